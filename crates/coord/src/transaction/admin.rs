//! DescribeTransactions and ListTransactions: what is in force, not what is being written.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_transactions_response::{TopicData, TransactionState as Described};
use taccola_wire::messages::list_transactions_response::TransactionState as Listed;
use taccola_wire::messages::{ListTransactionsRequest, ListTransactionsResponse};

use super::metadata::State;
use super::shard::TransactionShard;

/// Bytes that a compiled pattern may take; a larger one is INVALID_REGULAR_EXPRESSION.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// What a ListTransactions asks for, understood once for all shards.
#[derive(Debug)]
pub struct TransactionFilter {
    /// Empty: all.
    states: BTreeSet<State>,
    states_asked_for: bool,
    /// Each once, in the request's order.
    unknown_states: Vec<String>,
    producer_ids: BTreeSet<i64>,
    /// Below 0: none.
    duration_ms: i64,
    pattern: Option<Regex>,
}

impl TransactionFilter {
    /// The error is INVALID_REGULAR_EXPRESSION. A pattern must match the whole id, and takes time in proportion to it.
    pub fn new(request: &ListTransactionsRequest) -> Result<Self, ErrorCode> {
        let pattern = match request.transactional_id_pattern.as_deref() {
            None | Some("") => None,
            Some(pattern) => Some(compile(pattern)?),
        };
        let known = request.state_filters.iter().filter_map(|name| State::from_name(name)).collect();
        let mut seen = BTreeSet::new();
        let unknown =
            request.state_filters.iter().filter(|name| State::from_name(name).is_none() && seen.insert(*name));
        Ok(Self {
            states: known,
            states_asked_for: !request.state_filters.is_empty(),
            unknown_states: unknown.cloned().collect(),
            producer_ids: request.producer_id_filters.iter().copied().collect(),
            duration_ms: request.duration_filter,
            pattern,
        })
    }

    /// The answer without any transactions.
    pub fn response(&self) -> ListTransactionsResponse {
        ListTransactionsResponse { unknown_state_filters: self.unknown_states.clone(), ..Default::default() }
    }
}

/// The pattern alone first: what is put around it must not make sense of what has none by itself.
fn compile(pattern: &str) -> Result<Regex, ErrorCode> {
    let build = |pattern: &str| {
        let mut builder = RegexBuilder::new(pattern);
        builder.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build()
    };
    let compiled = build(pattern).and_then(|_| build(&format!("^(?:{pattern})$")));
    compiled.map_err(|_| ErrorCode::InvalidRegularExpression)
}

impl TransactionShard {
    /// One transactional id's state.
    pub fn describe_transaction(&self, transactional_id: &str) -> Described {
        let error = |code: ErrorCode| Described {
            error_code: code.code(),
            transactional_id: transactional_id.to_owned(),
            ..Default::default()
        };
        if transactional_id.is_empty() {
            return error(ErrorCode::InvalidRequest);
        }
        let Some((_, transaction)) = self.find(transactional_id) else {
            return error(ErrorCode::TransactionalIdNotFound);
        };
        let metadata = &transaction.metadata;
        let topics = metadata.partitions.topics().map(|(topic, partitions)| TopicData {
            topic: topic.to_string(),
            partitions: partitions.iter().copied().collect(),
        });
        Described {
            error_code: ErrorCode::None.code(),
            transactional_id: transactional_id.to_owned(),
            transaction_state: metadata.state.name().to_owned(),
            transaction_timeout_ms: metadata.timeout_ms,
            transaction_start_time_ms: metadata.start_ms,
            producer_id: metadata.producer_id,
            producer_epoch: metadata.producer_epoch,
            topics: topics.collect(),
        }
    }

    /// This shard's part of the list, in the order of the ids.
    pub fn list_transactions(&self, now_ms: i64, filter: &TransactionFilter) -> Vec<Listed> {
        let matches = |id: &str, state: State, producer_id: i64, start_ms: i64| {
            (!filter.states_asked_for || filter.states.contains(&state))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&producer_id))
                && (filter.duration_ms < 0 || now_ms.saturating_sub(start_ms) > filter.duration_ms)
                && filter.pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
        };
        self.transactions
            .iter()
            .filter(|(id, t)| matches(id, t.metadata.state, t.metadata.producer_id, t.metadata.start_ms))
            .map(|(id, t)| Listed {
                transactional_id: id.to_string(),
                producer_id: t.metadata.producer_id,
                transaction_state: t.metadata.state.name().to_owned(),
            })
            .collect()
    }
}
