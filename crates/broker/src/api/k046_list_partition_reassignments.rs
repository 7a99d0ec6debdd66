//! ListPartitionReassignments, key 46, v0. What the image says; a reassignment that goes on is one that another controller
//! began ([`super::k045_alter_partition_reassignments`]).

use std::sync::Arc;

use taccola_meta::controller::reassignment::list_partition_reassignments;
use taccola_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use taccola_wire::messages::list_partition_reassignments_response::ListPartitionReassignmentsResponse;

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    list_partition_reassignments(&broker.image(), &request)
}
