//! Transactions as their coordinators and partitions see them: list, describe, end by force. Answers to KIP-664 and to
//! `forceTerminateTransaction` of KIP-939.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use taccola_base::TopicPartition;
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_producers_request::TopicRequest;
use taccola_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use taccola_wire::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, InitProducerIdRequest, ListTransactionsRequest,
    WriteTxnMarkersRequest,
};

use super::Admin;
use crate::cluster::{CoordinatorKind, Lane};
use crate::error::{Error, Result};

/// First versions of ListTransactions with these filters.
const DURATION_VERSION: i16 = 1;
const PATTERN_VERSION: i16 = 2;
/// Newest version of InitProducerId without two-phase commit.
const INIT_VERSION_MAX: i16 = 5;

/// Which transactions are asked for; the default is all.
#[derive(Clone, Debug, Default)]
pub struct TransactionFilter {
    pub states: Vec<String>,
    pub producer_ids: Vec<i64>,
    /// Only those that are open for longer.
    pub running_longer_than: Option<Duration>,
    /// A regular expression (RE2) that the whole transactional id must match.
    pub pattern: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionListing {
    pub transactional_id: String,
    pub producer_id: i64,
    pub state: String,
    pub coordinator: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    pub transactional_id: String,
    pub coordinator: i32,
    pub state: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub timeout_ms: i32,
    /// When the open transaction began, in milliseconds.
    pub start_ms: Option<i64>,
    /// Sorted.
    pub partitions: Vec<TopicPartition>,
}

/// A producer that a partition remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub id: i64,
    pub epoch: i32,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    /// -1 when it has never ended a transaction.
    pub coordinator_epoch: i32,
    pub transaction_start: Option<i64>,
}

/// A transaction on one partition, and who is said to abort it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortTransaction {
    pub partition: TopicPartition,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
}

impl Admin {
    /// Transactions of all coordinators, sorted by id.
    pub async fn list_transactions(&self, filter: &TransactionFilter) -> Result<Vec<TransactionListing>> {
        let mut found = Vec::new();
        for broker in self.client.cluster().await?.brokers {
            found.extend(self.client.retrying(|| self.list_transactions_on(broker.id, filter)).await?);
        }
        found.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(found)
    }

    async fn list_transactions_on(&self, broker: i32, filter: &TransactionFilter) -> Result<Vec<TransactionListing>> {
        let api = self.client.broker(broker, Lane::General).await?;
        let version = api.version::<ListTransactionsRequest>()?;
        let too_old = (filter.running_longer_than.is_some() && version < DURATION_VERSION)
            || (filter.pattern.is_some() && version < PATTERN_VERSION);
        if too_old {
            return Err(Error::Invalid("the broker is too old for this filter of transactions".to_owned()));
        }
        let duration = filter.running_longer_than.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let request = ListTransactionsRequest {
            state_filters: filter.states.clone(),
            producer_id_filters: filter.producer_ids.clone(),
            duration_filter: duration.unwrap_or(-1),
            transactional_id_pattern: filter.pattern.clone(),
        };
        let response = self.client.request(&api, &request, version).await?;
        Error::check(response.error_code, format!("transactions of broker {broker}"), None)?;
        if let Some(unknown) = response.unknown_state_filters.first() {
            return Err(Error::Invalid(format!("broker {broker} knows no transaction state {unknown:?}")));
        }
        let listing = |t: taccola_wire::messages::list_transactions_response::TransactionState| TransactionListing {
            transactional_id: t.transactional_id,
            producer_id: t.producer_id,
            state: t.transaction_state,
            coordinator: broker,
        };
        Ok(response.transaction_states.into_iter().map(listing).collect())
    }

    /// An id that is not known is TRANSACTIONAL_ID_NOT_FOUND.
    pub async fn describe_transaction(&self, transactional_id: &str) -> Result<TransactionDescription> {
        self.client.retrying(|| self.describe_transaction_once(transactional_id)).await
    }

    async fn describe_transaction_once(&self, transactional_id: &str) -> Result<TransactionDescription> {
        let api = self.client.transaction_coordinator(transactional_id).await?;
        let version = api.version::<DescribeTransactionsRequest>()?;
        let request = DescribeTransactionsRequest { transactional_ids: vec![transactional_id.to_owned()] };
        let response = self.client.request(&api, &request, version).await?;
        let Some(found) = response.transaction_states.into_iter().next() else {
            return Err(Error::Invalid(format!("the broker left {transactional_id} out of its answer")));
        };
        self.check_transaction(found.error_code, transactional_id)?;
        let coordinator = self.client.coordinator_node(CoordinatorKind::Transaction, transactional_id).await?;
        let mut partitions = Vec::new();
        for topic in found.topics {
            let name: Arc<str> = topic.topic.into();
            partitions.extend(topic.partitions.into_iter().map(|p| TopicPartition::new(Arc::clone(&name), p)));
        }
        partitions.sort();
        Ok(TransactionDescription {
            transactional_id: found.transactional_id,
            coordinator,
            state: found.transaction_state,
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            timeout_ms: found.transaction_timeout_ms,
            start_ms: (found.transaction_start_time_ms >= 0).then_some(found.transaction_start_time_ms),
            partitions,
        })
    }

    fn check_transaction(&self, code: i16, transactional_id: &str) -> Result<()> {
        let result = Error::check(code, format!("transactional id {transactional_id}"), None);
        if matches!(&result, Err(error) if error.stale_metadata()) {
            self.client.forget_coordinator(CoordinatorKind::Transaction, transactional_id);
        }
        result
    }

    /// Ends whatever transaction the id has open, and shuts its producer out. The coordinator aborts it, or completes what
    /// was decided already.
    pub async fn terminate_transaction(&self, transactional_id: &str) -> Result<()> {
        // Asked first, because the request below would make an id that does not exist.
        self.describe_transaction(transactional_id).await?;
        self.client
            .retrying(|| async {
                let api = self.client.transaction_coordinator(transactional_id).await?;
                let version = api.version_up_to::<InitProducerIdRequest>(INIT_VERSION_MAX)?;
                let request = InitProducerIdRequest {
                    transactional_id: Some(transactional_id.to_owned()),
                    transaction_timeout_ms: self.timeout_ms(),
                    producer_id: -1,
                    producer_epoch: -1,
                    ..Default::default()
                };
                let response = self.client.request(&api, &request, version).await?;
                self.check_transaction(response.error_code, transactional_id)
            })
            .await
    }

    /// Producers that a partition's leader remembers.
    pub async fn describe_producers(&self, partition: &TopicPartition) -> Result<Vec<ProducerState>> {
        self.client.retrying(|| self.describe_producers_once(partition)).await
    }

    async fn describe_producers_once(&self, partition: &TopicPartition) -> Result<Vec<ProducerState>> {
        let api = self.client.broker(self.leader(partition).await?, Lane::General).await?;
        let version = api.version::<DescribeProducersRequest>()?;
        let topic = TopicRequest { name: partition.topic.to_string(), partition_indexes: vec![partition.partition] };
        let request = DescribeProducersRequest { topics: vec![topic] };
        let response = self.client.request(&api, &request, version).await?;
        let mut found = Vec::new();
        for p in response.topics.into_iter().flat_map(|t| t.partitions) {
            Error::check(p.error_code, partition.to_string(), p.error_message)?;
            found.extend(p.active_producers.into_iter().map(|p| ProducerState {
                id: p.producer_id,
                epoch: p.producer_epoch,
                last_sequence: p.last_sequence,
                last_timestamp: p.last_timestamp,
                coordinator_epoch: p.coordinator_epoch,
                transaction_start: (p.current_txn_start_offset >= 0).then_some(p.current_txn_start_offset),
            }));
        }
        Ok(found)
    }

    /// Finds the transaction that holds up a partition from `start_offset` on.
    pub async fn find_hanging(&self, partition: &TopicPartition, start_offset: i64) -> Result<AbortTransaction> {
        let producers = self.describe_producers(partition).await?;
        let found = producers.iter().find(|p| p.transaction_start == Some(start_offset));
        let Some(producer) = found else {
            return Err(Error::broker(
                ErrorCode::ResourceNotFound,
                partition.to_string(),
                Some(format!("no open transaction begins at offset {start_offset}")),
            ));
        };
        Ok(AbortTransaction {
            partition: partition.clone(),
            producer_id: producer.id,
            producer_epoch: i16::try_from(producer.epoch).unwrap_or(i16::MAX),
            // A producer that never ended a transaction here was seen by no coordinator; 0 passes every check.
            coordinator_epoch: producer.coordinator_epoch.max(0),
        })
    }

    /// Writes an abort marker past the coordinator, for a transaction that it has lost (a hanging one).
    pub async fn abort_transaction(&self, abort: &AbortTransaction) -> Result<()> {
        self.client.retrying(|| self.abort_transaction_once(abort)).await
    }

    async fn abort_transaction_once(&self, abort: &AbortTransaction) -> Result<()> {
        let partition = &abort.partition;
        let api = self.client.broker(self.leader(partition).await?, Lane::General).await?;
        let version = api.version::<WriteTxnMarkersRequest>()?;
        let topic =
            WritableTxnMarkerTopic { name: partition.topic.to_string(), partition_indexes: vec![partition.partition] };
        let marker = WritableTxnMarker {
            producer_id: abort.producer_id,
            producer_epoch: abort.producer_epoch,
            transaction_result: false,
            topics: vec![topic],
            coordinator_epoch: abort.coordinator_epoch,
            ..Default::default()
        };
        let request = WriteTxnMarkersRequest { markers: vec![marker] };
        let response = self.client.request(&api, &request, version).await?;
        let results = response.markers.into_iter().flat_map(|m| m.topics).flat_map(|t| t.partitions);
        let mut codes: BTreeMap<i32, i16> = results.map(|p| (p.partition_index, p.error_code)).collect();
        match codes.remove(&partition.partition) {
            Some(code) => Error::check(code, partition.to_string(), None),
            None => Err(Error::Invalid(format!("the broker left {partition} out of its answer"))),
        }
    }
}
