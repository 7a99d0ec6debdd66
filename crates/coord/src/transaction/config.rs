//! The broker's settings that bear on transactions. Answers to Kafka's `TransactionStateManagerConfig`.

use std::time::Duration;

use taccola_base::config::TransactionsConfig;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`, inclusive.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`.
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval_ms: i64,
    /// `transaction.two.phase.commit.enable`.
    pub two_phase_commit_enable: bool,
}

impl Default for TransactionConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            max_timeout_ms: 900_000,
            id_expiration_ms: 7 * 24 * 3_600_000,
            abort_interval_ms: 10_000,
            expiration_interval_ms: 3_600_000,
            two_phase_commit_enable: false,
        }
    }
}

impl TransactionConfig {
    pub fn new(config: &TransactionsConfig) -> Self {
        Self {
            max_timeout_ms: config.max_timeout_ms,
            id_expiration_ms: config.transactional_id_expiration_ms,
            abort_interval_ms: ms(config.abort_timed_out_interval),
            expiration_interval_ms: ms(config.remove_expired_interval),
            two_phase_commit_enable: config.two_phase_commit_enable,
        }
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
