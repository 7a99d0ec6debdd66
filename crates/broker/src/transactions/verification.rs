//! Before a transaction's first batch in a partition: does the coordinator know that the partition is part of it? If
//! not, its end would not be written there, and readers would wait for ever (KIP-890). Clients of transaction version 2
//! leave the adding to the broker: then the question is an order. Answers to Kafka's `AddPartitionsToTxnManager` and the
//! transactional part of `ReplicaManager.handleProduceAppend`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use taccola_log::VerificationGuard;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};

use crate::broker::Broker;

/// The version of AddPartitionsToTxn in which brokers ask.
const BROKER_VERSION: i16 = 5;

/// What a client's version of an API knows of KIP-890. Answers to `TransactionSupportedOperation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Support {
    /// INVALID_TXN_STATE is all that it knows of transactions in disorder.
    Old,
    /// Knows TRANSACTION_ABORTABLE.
    Abortable,
    /// Transaction version 2: the broker adds partitions, and each transaction has an epoch of its own.
    Adds,
}

impl Support {
    pub(crate) fn of_produce(api_version: i16) -> Self {
        match api_version {
            ..=10 => Self::Old,
            11 => Self::Abortable,
            _ => Self::Adds,
        }
    }

    pub(crate) fn of_offset_commit(api_version: i16) -> Self {
        match api_version {
            ..=3 => Self::Old,
            4 => Self::Abortable,
            _ => Self::Adds,
        }
    }

    pub(crate) fn adds(self) -> bool {
        self == Self::Adds
    }
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producer<'a> {
    pub(crate) transactional_id: &'a str,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
}

/// Where somebody wants to write.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) first_sequence: i32,
}

/// By topic and partition.
pub(crate) type Guards = HashMap<(Arc<str>, i32), VerificationGuard>;

impl Broker {
    /// Whether transactional writes of this client are verified at all.
    pub(crate) fn verifies(&self, support: Support) -> bool {
        support.adds() || self.dynamic_config().transactions.partition_verification_enable
    }

    /// The guards of those places where the transaction is not open yet.
    pub(crate) fn begin_verification(&self, producer: Producer<'_>, support: Support, places: &[Place]) -> Guards {
        let Producer { producer_id, producer_epoch, .. } = producer;
        let guard = |place: &Place| {
            let partition = self.partitions.get(&place.topic, place.partition)?;
            let guard = partition.with_log(|log| {
                log.start_verification(producer_id, producer_epoch, place.first_sequence, support.adds())
            });
            guard.flatten().map(|guard| ((place.topic.clone(), place.partition), guard))
        };
        places.iter().filter_map(guard).collect()
    }

    /// Asks the coordinator for those places where the transaction is not open yet; answers under which guards it may
    /// begin there, or the error for the client. Waits a little where the producer's last transaction is still being
    /// ended, and begins anew after that, because its marker takes the guard away.
    pub(crate) async fn verify_transaction(
        &self,
        producer: Producer<'_>,
        support: Support,
        places: &[Place],
    ) -> HashMap<(Arc<str>, i32), Result<VerificationGuard, ErrorCode>> {
        let config = self.dynamic_config().transactions.clone();
        let mut rest = config.add_partitions_retry_backoff.min(Duration::from_millis(1));
        let mut rested = Duration::ZERO;
        loop {
            let guards = self.begin_verification(producer, support, places);
            let refusals = self.ask_coordinator(producer, support, &guards).await;
            let concurrent = refusals.iter().any(|(.., error)| *error == ErrorCode::ConcurrentTransactions);
            if !concurrent || !support.adds() || rested >= config.add_partitions_retry_backoff_max {
                // The coordinator may have let this wait until the last transaction was over, and with it the guards.
                let guards = if support.adds() { self.begin_verification(producer, support, places) } else { guards };
                let mut verified: HashMap<_, _> = guards.into_iter().map(|(at, guard)| (at, Ok(guard))).collect();
                for (topic, partition, error) in refusals {
                    verified.insert((topic.into(), partition), Err(told(error, support)));
                }
                return verified;
            }
            tokio::time::sleep(rest).await;
            rested += rest;
            rest = (rest * 2).min(config.add_partitions_retry_backoff);
        }
    }

    async fn ask_coordinator(
        &self,
        producer: Producer<'_>,
        support: Support,
        guards: &Guards,
    ) -> Vec<(String, i32, ErrorCode)> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in guards.keys() {
            topics.entry(topic).or_default().push(*partition);
        }
        if topics.is_empty() {
            return Vec::new();
        }
        let topics = topics.into_iter();
        let topics = topics.map(|(name, partitions)| AddPartitionsToTxnTopic { name: name.to_owned(), partitions });
        let request = AddPartitionsToTxnTransaction {
            transactional_id: producer.transactional_id.to_owned(),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            verify_only: !support.adds(),
            topics: topics.collect(),
        };
        let result = self.add_partitions_to_txn(BROKER_VERSION, &request).await;
        let rows = result.topic_results.into_iter().flat_map(|topic| {
            let name = topic.name;
            topic.results_by_partition.into_iter().map(move |row| (name.clone(), row))
        });
        rows.filter(|(_, row)| row.partition_error_code != ErrorCode::None.code())
            .map(|(name, row)| (name, row.partition_index, ErrorCode::from_code(row.partition_error_code)))
            .collect()
    }
}

/// The coordinator's error in words that the client's version understands.
fn told(error: ErrorCode, support: Support) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if support == Support::Old => ErrorCode::InvalidTxnState,
        // Older clients would not try again after these.
        ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorCode::ConcurrentTransactions if !support.adds() => ErrorCode::NotEnoughReplicas,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_hears_what_it_knows() {
        use ErrorCode as E;
        let (old, abortable, adds) = (Support::of_produce(10), Support::of_produce(11), Support::of_offset_commit(5));
        assert_eq!((old, abortable, adds), (Support::Old, Support::Abortable, Support::Adds));
        assert_eq!(told(E::TransactionAbortable, old), E::InvalidTxnState);
        assert_eq!(told(E::TransactionAbortable, abortable), E::TransactionAbortable);
        assert_eq!(told(E::ConcurrentTransactions, abortable), E::NotEnoughReplicas);
        assert_eq!(told(E::ConcurrentTransactions, adds), E::ConcurrentTransactions);
        assert_eq!(told(E::NotCoordinator, adds), E::NotEnoughReplicas);
        assert_eq!(told(E::ProducerFenced, adds), E::InvalidProducerEpoch);
    }
}
