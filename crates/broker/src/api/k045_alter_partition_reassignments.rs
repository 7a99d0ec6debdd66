//! AlterPartitionReassignments, key 45, v0–v1. The controller decides (`taccola_meta::controller::reassignment`): what is
//! complete at once is taken, what would have to wait for a copy is refused.
//!
//! Version notes: v1 can forbid that the number of replicas changes.

use std::sync::Arc;

use taccola_wire::messages::alter_partition_reassignments_request::AlterPartitionReassignmentsRequest;
use taccola_wire::messages::alter_partition_reassignments_response::AlterPartitionReassignmentsResponse;

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let changed = broker.command(|controller, image| controller.alter_partition_reassignments(image, &request)).await;
    changed.unwrap_or_else(|error| AlterPartitionReassignmentsResponse {
        error_code: error_map::metadata_write(&error).code(),
        error_message: Some(error.to_string()),
        ..Default::default()
    })
}
