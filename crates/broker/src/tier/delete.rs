//! Removes remote segments: those beyond retention or below the log start offset, those that an interrupted copy or delete left,
//! and those of topics that are deleted or no longer tiered. Answers to Kafka's `RLMExpirationTask` and `RemoteLogMetadataManager`'s
//! deletion of partitions.
//!
//! Order of steps: the log start offset moves past the segment and is on disk; record DELETE_SEGMENT_STARTED, from which on nobody
//! reads it; the objects; record DELETE_SEGMENT_FINISHED. Each may be repeated after a crash.

use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_log::remote::{DeleteState, RemoteLogRecord, RemoteSegment, RemoteSegments, SegmentState};

use super::objects::{ObjectKind, object_key};
use super::{Key, RemoteStorage, TierError};
use crate::broker::Broker;
use crate::clock;
use crate::partition::Partition;
use crate::runtime::housekeeping;
use crate::runtime::replicas::describe;

impl RemoteStorage {
    pub(super) async fn delete_segment(
        &self,
        broker: &Broker,
        key: Key,
        at: &TopicPartition,
        segment: &RemoteSegment,
    ) -> Result<(), TierError> {
        self.advance(broker, key, at, segment, SegmentState::DeleteStarted).await?;
        for kind in ObjectKind::ALL {
            self.store.delete(&object_key(at, key.0, segment, kind)).await?;
        }
        self.cache.forget(&segment.id);
        self.advance(broker, key, at, segment, SegmentState::DeleteFinished).await
    }

    /// What an earlier attempt to copy or delete left. Only the task of the partition calls this, so none is under way.
    pub(super) async fn delete_leftovers(
        &self,
        broker: &Broker,
        key: Key,
        at: &TopicPartition,
    ) -> Result<(), TierError> {
        let left =
            |segment: &&RemoteSegment| matches!(segment.state, SegmentState::CopyStarted | SegmentState::DeleteStarted);
        for segment in self.select(&key, left) {
            tracing::info!(partition = %at, start_offset = segment.start_offset, state = ?segment.state,
                "an unfinished remote segment is removed");
            self.delete_segment(broker, key, at, &segment).await?;
        }
        Ok(())
    }

    /// All of a partition that is gone, or no longer tiered.
    pub(super) async fn delete_all(&self, broker: &Broker, key: Key, at: &TopicPartition) -> Result<(), TierError> {
        for segment in self.select(&key, |_| true) {
            self.delete_segment(broker, key, at, &segment).await?;
        }
        Ok(())
    }

    /// A partition whose topic was deleted.
    pub(super) async fn delete_partition(
        &self,
        broker: &Broker,
        key: Key,
        at: &TopicPartition,
    ) -> Result<(), TierError> {
        let record = |state| RemoteLogRecord::PartitionDelete {
            topic_id: key.0,
            at: at.clone(),
            state,
            broker_id: broker.node_id,
            event_timestamp_ms: clock::now_ms(),
        };
        let done = self.with(&key, |remote| remote.deleting).flatten();
        if done.is_none() {
            self.record(broker, record(DeleteState::Marked)).await?;
        }
        if done != Some(DeleteState::Started) {
            self.record(broker, record(DeleteState::Started)).await?;
        }
        self.delete_all(broker, key, at).await?;
        self.record(broker, record(DeleteState::Finished)).await?;
        tracing::info!(partition = %at, topic_id = %key.0, "the remote segments of a deleted topic are gone");
        Ok(())
    }

    fn select(&self, key: &Key, which: impl Fn(&&RemoteSegment) -> bool) -> Vec<RemoteSegment> {
        let pick = |segments: &RemoteSegments| segments.all().into_iter().filter(&which).cloned().collect();
        self.with(key, |remote| pick(&remote.segments)).unwrap_or_default()
    }

    /// `retention.ms`, `retention.bytes` and the log start offset, over both tiers.
    pub(super) async fn expire(&self, broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<(), TierError> {
        let key = (partition.topic_id, partition.topic_partition.partition);
        let at = &partition.topic_partition;
        let view = partition
            .with_log(|log| View {
                epochs: log.leader_epochs().to_vec(),
                start: log.log_start_offset(),
                end: log.log_end_offset(),
                high_watermark: log.high_watermark(),
                local_bytes: log.size_from(log.copied_to()),
            })
            .ok_or(TierError::GivenUp)?;
        let finished = self.select(&key, |segment| segment.state == SegmentState::CopyFinished);
        let (mut ours, below): (Vec<_>, Vec<_>) =
            finished.into_iter().partition(|segment| segment.end_offset >= view.start);
        for segment in below {
            self.delete_segment(broker, key, at, &segment).await?;
        }
        // What this log does not know stays: if the local disk was lost it may be all that there is.
        ours.retain(|segment| RemoteSegments::is_of_log(segment, &view.epochs, view.start, view.end));
        let config = partition.topic_config();
        if !config.log.cleanup_delete {
            return Ok(());
        }
        let now_ms = clock::now_ms();
        let old = expired(&ours, now_ms, config.log.retention_ms);
        let old_end = ours.get(..old).and_then(<[_]>::last).map_or(-1, |segment| segment.end_offset + 1);
        let agreed = self.with(&key, |remote| std::mem::replace(&mut remote.expired_before, old_end)).unwrap_or(-1);
        let agreed = ours.iter().take(old).take_while(|segment| segment.end_offset < agreed).count();
        let count = agreed.max(oversize(&ours, view.local_bytes, config.log.retention_bytes));
        let gone = ours.get(..count).unwrap_or_default();
        let Some(last) = gone.last() else { return Ok(()) };
        let new_start = (last.end_offset + 1).min(view.high_watermark);
        self.move_log_start(broker, partition, new_start).await?;
        for segment in gone {
            self.delete_segment(broker, key, at, segment).await?;
        }
        tracing::info!(partition = %at, segments = gone.len(), log_start_offset = new_start,
            "retention removed remote segments");
        Ok(())
    }

    /// Moves the log start offset, and has it on disk.
    async fn move_log_start(
        &self,
        broker: &Arc<Broker>,
        partition: &Arc<Partition>,
        offset: i64,
    ) -> Result<(), TierError> {
        let (broker, partition) = (broker.clone(), partition.clone());
        let work = move || {
            let moved = partition.with_log(|log| log.delete_records_before(offset, clock::now_ms()));
            moved.ok_or(TierError::GivenUp)?.map_err(|error| TierError::Log(describe(&error)))?;
            let written = housekeeping::write_log_start_offsets(&broker);
            if written { Ok(()) } else { Err(TierError::Log("the log start offset is not on disk".to_owned())) }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| TierError::Log(error.to_string()))?
    }
}

/// A partition's log at one moment.
struct View {
    epochs: Vec<(i32, i64)>,
    start: i64,
    end: i64,
    high_watermark: i64,
    /// Bytes that are here and not in remote storage.
    local_bytes: u64,
}

/// How many of the oldest are older than `retention_ms` (-1: for ever).
fn expired(segments: &[RemoteSegment], now_ms: i64, retention_ms: i64) -> usize {
    if retention_ms < 0 {
        return 0;
    }
    segments
        .iter()
        .take_while(|segment| {
            let newest =
                if segment.max_timestamp_ms >= 0 { segment.max_timestamp_ms } else { segment.event_timestamp_ms };
            now_ms.saturating_sub(newest) > retention_ms
        })
        .count()
}

/// How many of the oldest go until both tiers together have at most `retention_bytes` (-1: no bound).
fn oversize(segments: &[RemoteSegment], local_bytes: u64, retention_bytes: i64) -> usize {
    let Ok(limit) = u64::try_from(retention_bytes) else { return 0 };
    let size = |segment: &RemoteSegment| u64::try_from(segment.size_bytes).unwrap_or(0);
    let total: u64 = segments.iter().map(size).sum::<u64>() + local_bytes;
    let mut excess = total.saturating_sub(limit);
    segments
        .iter()
        .take_while(|segment| {
            let fits = size(segment) <= excess && size(segment) > 0;
            excess = excess.saturating_sub(size(segment));
            fits
        })
        .count()
}

#[cfg(test)]
mod tests {
    use taccola_base::Uuid;

    use super::*;

    fn segment(start: i64, timestamp: i64, size: i32) -> RemoteSegment {
        RemoteSegment {
            id: Uuid::from_u128(start as u128 + 1),
            start_offset: start,
            end_offset: start + 9,
            broker_id: 1,
            max_timestamp_ms: timestamp,
            event_timestamp_ms: 0,
            size_bytes: size,
            leader_epochs: vec![(0, start)],
            state: SegmentState::CopyFinished,
            txn_index_empty: true,
        }
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_needed() {
        let segments = [segment(0, 100, 10), segment(10, 200, 10), segment(20, 150, 10)];
        assert_eq!(expired(&segments, 300, -1), 0);
        assert_eq!(expired(&segments, 300, 99), 3);
        assert_eq!(expired(&segments, 300, 100), 1);
        assert_eq!(expired(&segments, 300, 150), 1);
        assert_eq!(expired(&segments, 1_000, 0), 3);
        assert_eq!(oversize(&segments, 5, -1), 0);
        assert_eq!(oversize(&segments, 5, 35), 0);
        assert_eq!(oversize(&segments, 5, 25), 1);
        assert_eq!(oversize(&segments, 5, 24), 1);
        assert_eq!(oversize(&segments, 5, 0), 3);
    }
}
