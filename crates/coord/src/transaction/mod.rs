//! The transaction coordinator of Kafka 4.3, as a pure replayable state machine: one [`TransactionShard`] answers for one
//! partition of `__transaction_state`. Answers to Kafka's `TransactionCoordinator` and `TransactionStateManager`, and to
//! KIP-98, KIP-360, KIP-664, KIP-890.
//!
//! Each operation makes the next state of one transactional id, writes it, and lets it count when its record is
//! committed; until then the id is in transition and whoever else wants something of it is told CONCURRENT_TRANSACTIONS.
//! An append that fails leaves the id as it was. Only the end of a transaction (Complete*) counts as soon as it is in
//! the log: nothing that is promised after it can outlive it, because what is promised waits for a record behind it.
//!
//! Invariants: markers are asked for when the outcome is committed, never before; an outcome once committed is never
//! taken back; a transaction is over when the caller reports all of its markers, not before.

mod admin;
mod config;
mod effects;
mod fate;
mod metadata;
mod partitions;
mod records;
mod requests;
mod shard;
#[cfg(test)]
mod tests;

pub use admin::TransactionFilter;
pub use config::TransactionConfig;
pub use effects::{
    Markers, NeedsProducerId, TransactionAction, TransactionEffects, TransactionResponse, TransactionTimerKey,
};
pub use partitions::Partitions;
pub use shard::TransactionShard;
