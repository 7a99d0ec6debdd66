//! Copies a partition's sealed segments, oldest first, one at a time. Answers to Kafka's `RLMCopyTask`.
//!
//! Order of steps: record COPY_SEGMENT_STARTED; indexes, producer snapshot, leader epochs; the log in parts; lengths of all objects
//! compared; record COPY_SEGMENT_FINISHED. A crash or error anywhere before the last leaves a segment that nobody reads, which
//! `delete.rs` removes; the next attempt has another id.

use std::sync::Arc;

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_log::CopyCandidate;
use taccola_log::remote::{RemoteLogRecord, RemoteSegment, SegmentState};
use taccola_remote::RemoteError;

use super::objects::{ObjectKind, object_key};
use super::{Key, RemoteStorage, TierError};
use crate::broker::Broker;
use crate::clock;
use crate::partition::Partition;
use crate::runtime::replicas::describe;

/// Bytes of a log that are read at a time.
const READ_BYTES: usize = 1024 * 1024;

impl RemoteStorage {
    /// Copies whatever can be copied now.
    pub(super) async fn copy_all(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        partition: &Arc<Partition>,
    ) -> Result<(), TierError> {
        loop {
            let copied_to = self.settle(partition).ok_or(TierError::GivenUp)?;
            if partition.topic_config().log.remote_copy_disable {
                return Ok(());
            }
            let Some(candidate) = candidate(partition.clone(), copied_to).await? else { return Ok(()) };
            self.copy_one(broker, partition, Arc::new(candidate)).await?;
            if *broker.stop.borrow() {
                return Err(TierError::GivenUp);
            }
        }
    }

    /// Tells the log what remote storage has of it; answers up to where (exclusive), at least where the local log begins.
    pub(super) fn settle(&self, partition: &Partition) -> Option<i64> {
        let key = (partition.topic_id, partition.topic_partition.partition);
        partition.with_log(|log| {
            let epochs = log.leader_epochs().to_vec();
            let end = log.log_end_offset();
            let start = log.local_log_start_offset();
            let (copied_to, has_any) = self
                .with(&key, |remote| {
                    let mut offset = start;
                    while let Some(segment) = remote.segments.find_in(&epochs, offset) {
                        offset = segment.end_offset.saturating_add(1).min(end);
                    }
                    (offset, remote.segments.copied_to(&epochs, end) > 0)
                })
                .unwrap_or((start, false));
            log.set_copied_to(if has_any { copied_to } else { 0 });
            copied_to
        })
    }

    async fn copy_one(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        partition: &Arc<Partition>,
        candidate: Arc<CopyCandidate>,
    ) -> Result<(), TierError> {
        let key = (partition.topic_id, partition.topic_partition.partition);
        let at = &partition.topic_partition;
        let indexes = {
            let candidate = candidate.clone();
            let read = tokio::task::spawn_blocking(move || candidate.indexes()).await;
            read.map_err(|error| TierError::Log(error.to_string()))?
                .map_err(|error| TierError::Log(describe(&error)))?
        };
        let segment = RemoteSegment {
            id: crate::random::uuid(),
            start_offset: candidate.base_offset,
            end_offset: candidate.end_offset - 1,
            broker_id: broker.node_id,
            max_timestamp_ms: candidate.max_timestamp_ms,
            event_timestamp_ms: clock::now_ms(),
            size_bytes: i32::try_from(candidate.size_bytes).unwrap_or(i32::MAX),
            leader_epochs: candidate.leader_epochs.clone(),
            state: SegmentState::CopyStarted,
            txn_index_empty: indexes.txn_index.is_none(),
        };
        let started = RemoteLogRecord::Segment { topic_id: key.0, at: at.clone(), segment: segment.clone() };
        self.record(broker, started).await?;
        let small = [
            (ObjectKind::OffsetIndex, Some(indexes.offset_index)),
            (ObjectKind::TimeIndex, Some(indexes.time_index)),
            (ObjectKind::TxnIndex, indexes.txn_index),
            (ObjectKind::ProducerSnapshot, Some(indexes.producer_snapshot)),
            (ObjectKind::LeaderEpochs, Some(candidate.epoch_checkpoint.clone())),
        ];
        let stored = self.store_objects(broker, key, at, &segment, small, candidate.clone()).await;
        if let Err(error) = stored {
            if !matches!(error, TierError::GivenUp) {
                // What is there of it goes at once if it can; else the next round finds it.
                self.delete_segment(broker, key, at, &segment).await?;
            }
            return Err(error);
        }
        self.advance(broker, key, at, &segment, SegmentState::CopyFinished).await?;
        self.settle(partition);
        tracing::info!(
            partition = %at,
            start_offset = segment.start_offset,
            end_offset = segment.end_offset,
            bytes = candidate.size_bytes,
            "a segment was copied to remote storage"
        );
        Ok(())
    }

    async fn store_objects(
        &self,
        broker: &Broker,
        key: Key,
        at: &TopicPartition,
        segment: &RemoteSegment,
        small: [(ObjectKind, Option<Bytes>); 5],
        candidate: Arc<CopyCandidate>,
    ) -> Result<(), TierError> {
        let mut lengths = Vec::new();
        for (kind, bytes) in small {
            let Some(bytes) = bytes else { continue };
            let name = object_key(at, key.0, segment, kind);
            lengths.push((name.clone(), bytes.len() as u64));
            self.copy_throttle.take(bytes.len()).await;
            self.store.put(&name, bytes).await?;
        }
        let name = object_key(at, key.0, segment, ObjectKind::Log);
        lengths.push((name.clone(), candidate.size_bytes));
        self.store_log(broker, &name, candidate).await?;
        // A store that says done and has less would cost records once the local segment is gone.
        for (name, want) in lengths {
            let have = self.store.head(&name).await?;
            if have != want {
                return Err(RemoteError::Short { key: name, have, want }.into());
            }
        }
        Ok(())
    }

    async fn store_log(&self, broker: &Broker, name: &str, candidate: Arc<CopyCandidate>) -> Result<(), TierError> {
        let mut upload = self.store.upload(name)?;
        let sent = async {
            loop {
                let (candidate, position) = (candidate.clone(), upload.written());
                let read = tokio::task::spawn_blocking(move || candidate.read(position, READ_BYTES)).await;
                let read = read.map_err(|error| TierError::Log(error.to_string()))?;
                let Some(bytes) = read.map_err(|error| TierError::Log(error.to_string()))? else { return Ok(()) };
                self.copy_throttle.take(bytes.len()).await;
                if *broker.stop.borrow() {
                    return Err(TierError::GivenUp);
                }
                upload.write(&bytes).await?;
            }
        }
        .await;
        match sent {
            Ok(()) => Ok(upload.finish().await?),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }
}

/// The next segment to copy. Sealed segments that are not on disk yet are flushed first: only what is there is copied.
async fn candidate(partition: Arc<Partition>, copied_to: i64) -> Result<Option<CopyCandidate>, TierError> {
    let work = move || {
        if partition.with_log(|log| log.has_unflushed_sealed_segment()).unwrap_or(false) {
            partition.flush().map_err(|error| TierError::Log(describe(&error)))?;
        }
        let candidate = partition.with_log(|log| log.copy_candidate(copied_to)).ok_or(TierError::GivenUp)?;
        candidate.map_err(|error| TierError::Log(describe(&error)))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| TierError::Log(error.to_string()))?
}
