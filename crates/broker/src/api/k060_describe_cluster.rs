//! DescribeCluster, key 60, v0–v2. Answers to `AuthHelper.computeDescribeClusterResponse`.
//!
//! Behaviour: the cluster's id, its brokers by their address on the listener that the client used, and a live broker in
//! the controller's place, since any broker passes on what is meant for it. Version notes: v1 says which kind of node is
//! meant, and this listener has brokers only; v2 can ask for fenced brokers.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_cluster_request::DescribeClusterRequest;
use taccola_wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if let Some((error, message)) = refusal(request.endpoint_type) {
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(message),
            ..Default::default()
        };
    }
    let image = broker.image();
    let shown = image.cluster.brokers.values().filter(|known| request.include_fenced_brokers || !known.fenced);
    let brokers = shown.filter_map(|known| {
        let endpoint = broker.endpoint(&image, &context.connection, known.id)?;
        Some(DescribeClusterBroker {
            broker_id: endpoint.node_id,
            host: endpoint.host,
            port: endpoint.port,
            rack: endpoint.rack,
            is_fenced: known.fenced,
        })
    });
    let mut response = DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: broker.cluster_id.clone(),
        controller_id: broker.node_id,
        brokers: brokers.collect(),
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::CLUSTER;
    }
    response
}

fn refusal(endpoint_type: i8) -> Option<(ErrorCode, String)> {
    match endpoint_type {
        BROKERS => None,
        CONTROLLERS => {
            Some((ErrorCode::MismatchedEndpointType, "this endpoint is a broker's, not a controller's".to_owned()))
        }
        other => Some((ErrorCode::UnsupportedEndpointType, format!("{other} is no type of endpoint"))),
    }
}
