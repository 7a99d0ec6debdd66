//! LeaveGroup, key 13, v0–v5.
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides. From v3 on several members leave at once, each with its own error.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_leave(call.now_ms, &call.context, request),
        |response| match response {
            Response::LeaveGroup(response) => Some(response),
            _ => None,
        },
    );
    called.await.unwrap_or_else(failed)
}

fn failed(error: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse { error_code: error.code(), ..Default::default() }
}
