//! ListTransactions, key 66, v0–v2 (KIP-664, KIP-994, KIP-1152).
//!
//! Behaviour: the transactional ids whose coordinator is this broker, filtered as asked; COORDINATOR_LOAD_IN_PROGRESS as
//! long as one of its partitions is not loaded. A state that does not exist is named in the answer and matches nothing.

use std::sync::Arc;

use taccola_coord::transaction::TransactionFilter;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ListTransactionsRequest, ListTransactionsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    list(broker, &request)
        .unwrap_or_else(|error| ListTransactionsResponse { error_code: error.code(), ..Default::default() })
}

fn list(broker: &Broker, request: &ListTransactionsRequest) -> Result<ListTransactionsResponse, ErrorCode> {
    let filter = TransactionFilter::new(request)?;
    let now_ms = broker.now_ms();
    let mut response = filter.response();
    let all = broker
        .transactions
        .look_at_all(|shard| response.transaction_states.extend(shard.list_transactions(now_ms, &filter)));
    if all { Ok(response) } else { Err(ErrorCode::CoordinatorLoadInProgress) }
}
