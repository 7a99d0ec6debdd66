//! Heartbeat, key 12, v0–v4.
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides, at once. While the group is being loaded the answer is no error,
//! as in Kafka: the member must not rejoin because of a restart.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_heartbeat(call.now_ms, &call.context, &request),
        |_| None,
    );
    called.await.unwrap_or_else(failed)
}

fn failed(error: ErrorCode) -> HeartbeatResponse {
    // A member that is told of a loading coordinator would only ask again.
    let error = if error == ErrorCode::CoordinatorLoadInProgress { ErrorCode::None } else { error };
    HeartbeatResponse { error_code: error.code(), ..Default::default() }
}
