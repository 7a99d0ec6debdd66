//! DescribeQuorum, key 55, v0–v2. The quorum of one that this node is (`taccola_meta::voters`).
//!
//! Version notes: v1 brought the times of the last fetch, v2 nodes, directories and messages.

use std::sync::Arc;

use taccola_meta::voters::describe_quorum;
use taccola_wire::messages::describe_quorum_request::DescribeQuorumRequest;
use taccola_wire::messages::describe_quorum_response::DescribeQuorumResponse;

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let status = broker.metadata.lock().await.quorum_status();
    describe_quorum(&status, &request, context.api_version, broker.now_ms())
}
