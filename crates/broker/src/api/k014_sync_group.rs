//! SyncGroup, key 14, v0–v5.
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides; followers wait for the leader's assignment, and everybody until it
//! is recorded.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_sync(call.now_ms, &call.context, &request),
        |response| match response {
            Response::SyncGroup(response) => Some(response),
            _ => None,
        },
    );
    called.await.unwrap_or_else(failed)
}

fn failed(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: error.code(), ..Default::default() }
}
