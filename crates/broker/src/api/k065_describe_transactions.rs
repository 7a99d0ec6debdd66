//! DescribeTransactions, key 65, v0 (KIP-664).
//!
//! Behaviour: the state of each transactional id as it is in force; an id that nobody used is TRANSACTIONAL_ID_NOT_FOUND.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::DescribeTransactionsRequest;
use taccola_wire::messages::describe_transactions_response::{DescribeTransactionsResponse, TransactionState};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let transaction_states = request.transactional_ids.iter().map(|id| describe(broker, id)).collect();
    DescribeTransactionsResponse { transaction_states, ..Default::default() }
}

fn describe(broker: &Broker, id: &str) -> TransactionState {
    let described = match id.is_empty() {
        true => Err(ErrorCode::InvalidRequest),
        false => broker
            .transaction_partition(id)
            .and_then(|partition| broker.transactions.look(partition, |shard| shard.describe_transaction(id))),
    };
    described.unwrap_or_else(|error| TransactionState {
        error_code: error.code(),
        transactional_id: id.to_owned(),
        ..Default::default()
    })
}
