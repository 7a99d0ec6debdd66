//! UnregisterBroker, key 64, v0. The controller forgets the broker (`taccola_meta::controller::broker`).
//!
//! Behaviour: this broker itself is INVALID_REQUEST. Kafka forgets also a broker that runs: what only that one holds is
//! without a leader from then on, and the process has to be started again before it serves anything. A cluster has other
//! brokers to move to first; this one has not.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::unregister_broker_request::UnregisterBrokerRequest;
use taccola_wire::messages::unregister_broker_response::UnregisterBrokerResponse;

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let failed = |code: ErrorCode, message: String| UnregisterBrokerResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..Default::default()
    };
    let id = request.broker_id;
    if id == broker.node_id {
        let message = format!("broker {id} is the one that serves; nothing would be left to serve its partitions");
        return failed(ErrorCode::InvalidRequest, message);
    }
    let mut metadata = broker.metadata.lock().await;
    match broker.controller.unregister_broker(metadata.image(), id) {
        Err(error) => failed(error.code, error.message),
        Ok(outcome) => match broker.commit(&mut metadata, &outcome.records).await {
            Ok(()) => UnregisterBrokerResponse::default(),
            Err(error) => failed(error_map::metadata_write(&error), error.to_string()),
        },
    }
}
