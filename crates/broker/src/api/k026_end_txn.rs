//! EndTxn, key 26, v0–v5.
//!
//! Behaviour: answers when the outcome can no longer be lost; the markers follow. Version notes: from v5 on the producer
//! gets a higher epoch, or a new id when the epochs are used up (KIP-890).

use std::sync::Arc;

use taccola_coord::transaction::TransactionResponse;
use taccola_wire::messages::{EndTxnRequest, EndTxnResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: EndTxnRequest) -> EndTxnResponse {
    let ended = broker.transact(
        context,
        &request.transactional_id,
        |shard, call, fresh| shard.handle_end_txn(call.now_ms, &call.context, &request, fresh),
        |response| match response {
            TransactionResponse::EndTxn(response) => Some(response),
            _ => None,
        },
    );
    ended.await.unwrap_or_else(|error| EndTxnResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    })
}
