//! JoinGroup, key 11, v0–v9.
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides; the reply waits until the rebalance is complete.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_join(call.now_ms, &call.context, request),
        |response| match response {
            Response::JoinGroup(response) => Some(response),
            _ => None,
        },
    );
    called.await.unwrap_or_else(failed)
}

fn failed(error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse { error_code: error.code(), ..Default::default() }
}
