//! ConsumerGroupHeartbeat, key 68, v0–v1 (KIP-848).
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides; the reply waits until what it says is durable.
//! UNSUPPORTED_VERSION where the protocol is switched off: `group.coordinator.rebalance.protocols`, or `group.version` 0.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_meta::feature::GROUP_VERSION;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    if !is_served(broker) {
        return failed(ErrorCode::UnsupportedVersion);
    }
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_consumer_group_heartbeat(call.now_ms, &call.context, &request),
        |response| match response {
            Response::ConsumerGroupHeartbeat(response) => Some(response),
            _ => None,
        },
    );
    called.await.unwrap_or_else(failed)
}

/// Whether consumer groups are served here.
pub(super) fn is_served(broker: &Broker) -> bool {
    broker.dynamic.load().groups.protocols.consumer && broker.image().features.level(GROUP_VERSION) >= 1
}

fn failed(error: ErrorCode) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse { error_code: error.code(), ..Default::default() }
}
