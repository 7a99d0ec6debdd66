//! ShareGroupHeartbeat, key 76, v1 (KIP-932). Joins, confirms, changes a subscription, leaves.
//!
//! Behaviour: errors as the group coordinator has them (FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID, GROUP_ID_NOT_FOUND,
//! GROUP_MAX_SIZE_REACHED, INVALID_REQUEST). Partitions are assigned once their state is set up, which begins with the
//! first heartbeat that wants them and takes until a later one.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    if !broker.share_groups_enabled() {
        return refused(ErrorCode::UnsupportedVersion);
    }
    broker.share_group_heartbeat(context, request).await.unwrap_or_else(refused)
}

fn refused(error: ErrorCode) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse { error_code: error.code(), ..Default::default() }
}
