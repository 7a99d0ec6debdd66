//! Writes the ends of transactions into their partitions. Answers to Kafka's `TransactionMarkerChannelManager`,
//! `TransactionMarkerRequestCompletionHandler` and `KafkaApis.handleWriteTxnMarkers`.
//!
//! Invariants: a transaction is reported as over only when each of its markers can no longer be lost; a marker that could
//! not be written is tried again until it is, or until its topic, or this coordinator's claim, is gone. All markers of one
//! transaction wait for one flush.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::join_all;
use taccola_base::planted::{Bug, planted};
use taccola_base::topic::GROUP_METADATA_TOPIC;
use taccola_coord::transaction::Markers;
use taccola_coord::{EndMarker, Response};
use taccola_log::{AppendError, AppendOrigin};
use taccola_wire::batch::{ControlRecord, end_txn_marker};
use taccola_wire::error::ErrorCode;

use crate::broker::Broker;
use crate::clock;
use crate::error_map;
use crate::partition::AppendRejected;
use crate::runtime::coordinator::Caller;
use crate::runtime::journal::Ticket;

/// The first rest before markers that failed are tried again, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A flush that takes longer counts as failed: markers may be written twice.
const DURABLE_WITHIN: Duration = Duration::from_secs(60);
/// Markers that are appended before others have their turn on the thread.
const APPENDS_AT_ONCE: usize = 64;

/// What Kafka, which makes no batch of it, answers to a marker of nobody: only a request from outside can bring one.
const NO_PRODUCER: ErrorCode = ErrorCode::UnknownServerError;

/// A partition and what became of its marker.
pub(crate) type Written = (Arc<str>, i32, Result<(), ErrorCode>);

/// Writes all markers of a decided transaction, however often that takes, and then has the shard record its end.
pub(super) async fn carry_out(broker: Weak<Broker>, partition: i32, markers: Markers) {
    let marker = EndMarker {
        producer_id: markers.producer_id,
        producer_epoch: markers.producer_epoch,
        commit: markers.commit || planted(Bug::AbortCommits),
        coordinator_epoch: markers.coordinator_epoch,
        transaction_version: markers.transaction_version,
    };
    let mut left: Vec<(Arc<str>, i32)> = markers.partitions.iter().map(|(t, p)| (t.clone(), p)).collect();
    let mut rest = RETRY_MIN;
    loop {
        let Some(broker) = broker.upgrade() else { return };
        let mut again = Vec::new();
        for (topic, index, written) in broker.write_markers(marker, left).await {
            match written.map_err(|error| (error, fate(&broker, &topic, index, error))) {
                Ok(()) | Err((_, Fate::Gone)) => {}
                Err((error, Fate::Again)) => {
                    tracing::debug!(%topic, index, error = error.name(), "a transaction's marker is not written yet");
                    again.push((topic, index));
                }
                Err((error, Fate::Refused)) => {
                    // A newer coordinator, or the producer's next epoch, was here: it answers for the transaction. Of the
                    // latter Kafka sends none of the other markers any more, and the id stays at
                    // CONCURRENT_TRANSACTIONS until its coordinator is loaded anew; here the other partitions are
                    // told, and the id is free: what the newer epoch did cannot be taken back by waiting.
                    let id = &*markers.transactional_id;
                    tracing::warn!(%topic, index, error = error.name(), id, "a transaction's marker is refused");
                    if error == ErrorCode::TransactionCoordinatorFenced {
                        return;
                    }
                }
            }
        }
        if again.is_empty() {
            return report(&broker, partition, &markers).await;
        }
        left = again;
        drop(broker);
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(RETRY_MAX);
    }
}

async fn report(broker: &Broker, partition: i32, markers: &Markers) {
    let told = broker.transactions.call_as(
        partition,
        Caller { api_version: 0, client_id: "", client_host: "" },
        |shard, call| shard.handle_markers_written(call.now_ms, markers),
        |_| Some(()),
    );
    if told.await.is_err() {
        let id = &*markers.transactional_id;
        tracing::debug!(id, "the coordinator moved; whoever loads the partition writes the markers again");
    }
}

enum Fate {
    /// The topic was deleted: there is nothing to end.
    Gone,
    Again,
    Refused,
}

fn fate(broker: &Broker, topic: &str, index: i32, error: ErrorCode) -> Fate {
    match error {
        ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => Fate::Refused,
        _ if broker.image().topics.partition(topic, index).is_none() => Fate::Gone,
        _ => Fate::Again,
    }
}

impl Broker {
    /// Writes one marker into each of the partitions; answers when all are durable or refused.
    pub(crate) async fn write_markers(
        &self,
        marker: EndMarker,
        partitions: impl IntoIterator<Item = (Arc<str>, i32)>,
    ) -> Vec<Written> {
        let (mut written, mut of_groups, mut ticket) = (Vec::new(), Vec::new(), None);
        for (count, (topic, index)) in partitions.into_iter().enumerate() {
            if count % APPENDS_AT_ONCE == APPENDS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            if &*topic == GROUP_METADATA_TOPIC {
                of_groups.push((topic, index));
                continue;
            }
            let appended = self.append_marker(&marker, &topic, index).map(|own| ticket = ticket.max(own));
            written.push((topic, index, appended));
        }
        let groups = join_all(of_groups.into_iter().map(|(topic, index)| async move {
            let ended = self.end_in_groups(marker, index).await;
            (topic, index, ended)
        }));
        let (of_groups, durable) = tokio::join!(groups, self.durable(ticket));
        for (topic, index, result) in written.iter_mut().filter(|(.., result)| result.is_ok()) {
            if let Some(error) = durable.err().or_else(|| self.lost_meanwhile(topic, *index)) {
                *result = Err(error);
            }
        }
        written.extend(of_groups);
        written
    }

    async fn durable(&self, ticket: Option<Ticket>) -> Result<(), ErrorCode> {
        let Some(ticket) = ticket else { return Ok(()) };
        self.journal.wait_for(ticket, DURABLE_WITHIN).await.map_err(|error| error_map::journal_wait(&error))
    }

    fn append_marker(&self, marker: &EndMarker, topic: &str, index: i32) -> Result<Option<Ticket>, ErrorCode> {
        let EndMarker { producer_id, producer_epoch, commit, coordinator_epoch, transaction_version } = *marker;
        let missing = || self.missing_partition_error(topic, index);
        let partition = self.partitions.get(topic, index).ok_or_else(missing)?;
        let control = match commit {
            true => ControlRecord::Commit { coordinator_epoch },
            false => ControlRecord::Abort { coordinator_epoch },
        };
        if producer_id < 0 || producer_epoch < 0 {
            return Err(NO_PRODUCER);
        }
        let now_ms = clock::now_ms();
        partition.check_min_isr().map_err(|error| error_map::append(&error))?;
        let batch = end_txn_marker(now_ms, producer_id, producer_epoch, &control);
        let batch = batch.map_err(|_| ErrorCode::UnknownServerError)?;
        let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let origin = AppendOrigin::Coordinator { transaction_version };
        match partition.append(&self.journal, &mut batch, origin, self.acks_all_durability(), now_ms) {
            Ok(outcome) => Ok(outcome.ticket),
            Err(error) => {
                if !matches!(
                    error,
                    AppendRejected::NotLeader
                        | AppendRejected::ReadOnly(_)
                        | AppendRejected::Log(AppendError::Storage(_))
                ) {
                    tracing::warn!(partition = %partition.topic_partition, producer_id, %error, "a marker is refused");
                }
                Err(error_map::append(&error))
            }
        }
    }

    /// The marker in a partition of `__consumer_offsets`, where offsets wait for it.
    async fn end_in_groups(&self, marker: EndMarker, partition: i32) -> Result<(), ErrorCode> {
        if marker.producer_id < 0 || marker.producer_epoch < 0 {
            return Err(NO_PRODUCER);
        }
        let ended = self.groups.call_as(
            partition,
            Caller { api_version: 0, client_id: "", client_host: "" },
            |groups, call| groups.handle_end_marker(call.now_ms, &call.context, marker),
            |response| match response {
                Response::EndMarker(error) => Some(error),
                _ => None,
            },
        );
        let error = match ended.await {
            Ok(ErrorCode::None) => return Ok(()),
            Ok(error) | Err(error) => error,
        };
        Err(match error {
            ErrorCode::CoordinatorNotAvailable | ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => {
                self.missing_partition_error(GROUP_METADATA_TOPIC, partition)
            }
            error => error,
        })
    }
}
