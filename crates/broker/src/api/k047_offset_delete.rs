//! OffsetDelete, key 47, v0.
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides; offsets of topics that the group is subscribed to stay.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_offset_delete(call.now_ms, &call.context, &request),
        |response| match response {
            Response::OffsetDelete(response) => Some(response),
            _ => None,
        },
    );
    called.await.unwrap_or_else(failed)
}

fn failed(error: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse { error_code: error.code(), ..Default::default() }
}
