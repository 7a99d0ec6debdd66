//! InitProducerId, key 22, v0–v5. Answers to `TransactionCoordinator.handleInitProducerId` and the checks before it.
//!
//! Behaviour: an idempotent producer gets a new id at epoch 0, also when it names the id that it had (v3 and later): as in
//! Kafka only a transactional producer keeps its id and has its epoch raised. A producer id without an epoch, or an epoch
//! without an id, is INVALID_REQUEST.
//!
//! A transactional id goes to its coordinator, which gives it a producer id, or a higher epoch of the one that it has, and
//! aborts what the last user of the id left open.

use std::sync::Arc;

use taccola_coord::transaction::TransactionResponse;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::init_producer_id_request::InitProducerIdRequest;
use taccola_wire::messages::init_producer_id_response::InitProducerIdResponse;

use crate::broker::Broker;
use crate::context::RequestContext;

const NO_PRODUCER_ID: i64 = -1;
const NO_PRODUCER_EPOCH: i16 = -1;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let given = match (refusal(&request), &request.transactional_id) {
        (Some(error), _) => Err(error),
        (None, Some(_)) => transactional(broker, context, &request).await,
        (None, None) => broker.next_producer_id().await.map(|producer_id| InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..Default::default()
        }),
    };
    match given {
        Ok(response) => response,
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            ..Default::default()
        },
    }
}

async fn transactional(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: &InitProducerIdRequest,
) -> Result<InitProducerIdResponse, ErrorCode> {
    let given = broker.transact(
        context,
        request.transactional_id.as_deref().unwrap_or_default(),
        |shard, call, fresh| shard.handle_init_producer_id(call.now_ms, &call.context, request, fresh),
        |response| match response {
            TransactionResponse::InitProducerId(response) => Some(response),
            _ => None,
        },
    );
    given.await
}

fn refusal(request: &InitProducerIdRequest) -> Option<ErrorCode> {
    let half = (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH);
    match &request.transactional_id {
        _ if half => Some(ErrorCode::InvalidRequest),
        Some(id) if id.is_empty() => Some(ErrorCode::InvalidRequest),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_an_epoch_come_together_or_not_at_all() {
        let request = |producer_id, producer_epoch, transactional_id: Option<&str>| InitProducerIdRequest {
            producer_id,
            producer_epoch,
            transactional_id: transactional_id.map(str::to_owned),
            ..Default::default()
        };
        assert_eq!(refusal(&request(-1, -1, None)), None);
        assert_eq!(refusal(&request(7, 3, None)), None);
        assert_eq!(refusal(&request(7, -1, None)), Some(ErrorCode::InvalidRequest));
        assert_eq!(refusal(&request(-1, 3, None)), Some(ErrorCode::InvalidRequest));
        assert_eq!(refusal(&request(-1, -1, Some(""))), Some(ErrorCode::InvalidRequest));
        assert_eq!(refusal(&request(-1, -1, Some("t"))), None);
    }
}
