//! What the cleaner asks of a log, and the change of segments. Answers to Kafka's `LogCleanerManager.cleanableOffsets` and
//! `LocalLog.replaceSegments`.

use std::sync::Arc;

use super::PartitionLog;
use super::types::Offset;
use crate::cleaner::{CleanJob, Cleanable, CleanedSegment, Source, cleaned_path, with_suffix};
use crate::error::{LogError, ReadError};
use crate::segment::{Kind, Segment};

impl PartitionLog {
    /// Whether something below the active segment may not be on disk yet.
    pub fn has_unflushed_sealed_segment(&self) -> bool {
        self.offline.is_none() && self.recovery_point < self.active_segment().base_offset
    }

    /// What there is to clean. `cleaned_to` is where the last round ended, from the cleaner's checkpoint; one that cannot
    /// be is not believed. `None`: the log is not compacted, or cannot be read.
    pub fn cleanable(&mut self, cleaned_to: Option<Offset>, now_ms: i64) -> Result<Option<Cleanable>, LogError> {
        if !self.config.cleanup_compact || self.offline.is_some() {
            return Ok(None);
        }
        self.rebuild_suspect_indexes()?;
        let first = self.segments.first().map_or(0, |segment| segment.base_offset);
        let start = self.log_start_offset.max(first);
        let first_dirty_offset = cleaned_to.filter(|to| (start..=self.log_end_offset).contains(to)).unwrap_or(start);
        let mut end = self.active_segment().base_offset;
        end = end.min(self.recovery_point).min(self.last_stable_offset());
        if let Some(damaged) = self.quarantined.iter().map(|range| range.segment_base_offset).min() {
            end = end.min(damaged);
        }
        let mut oldest_dirty_ms = None;
        let (mut clean_bytes, mut cleanable_bytes) = (0, 0);
        for (i, segment) in self.segments.iter().enumerate() {
            let segment_end = self.segment_end(i);
            if segment_end <= first_dirty_offset {
                clean_bytes += segment.size;
                continue;
            }
            if segment.base_offset >= end {
                break;
            }
            let newest_ms = segment.max_timestamp(&self.shared, &self.dir, segment_end)?.timestamp;
            if self.config.min_compaction_lag_ms > 0
                && newest_ms > now_ms.saturating_sub(self.config.min_compaction_lag_ms)
            {
                end = end.min(segment.base_offset);
                break;
            }
            oldest_dirty_ms = oldest_dirty_ms.or(self.first_timestamp(segment, segment_end)?);
            cleanable_bytes += segment.size;
        }
        let end = end.max(first_dirty_offset);
        let cleanable =
            Cleanable { first_dirty_offset, first_uncleanable_offset: end, clean_bytes, cleanable_bytes, due: false };
        let too_old = oldest_dirty_ms
            .is_some_and(|oldest: i64| now_ms.saturating_sub(oldest) > self.config.max_compaction_lag_ms);
        let due = end > first_dirty_offset
            && cleanable_bytes > 0
            && (too_old || cleanable.ratio() > self.config.min_cleanable_dirty_ratio);
        Ok(Some(Cleanable { due, ..cleanable }))
    }

    /// Timestamp of a segment's first batch.
    fn first_timestamp(&self, segment: &Segment, end: Offset) -> Result<Option<i64>, LogError> {
        let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
        let first = segment.walk(&*log, 0, end, |_, _| true);
        let first = first.map_err(|e| LogError::io("read", segment.path(&self.dir, Kind::Log), e))?;
        Ok(first.map(|(header, _)| header.max_timestamp).filter(|ms| *ms >= 0))
    }

    /// Takes a round out of the critical section.
    pub fn begin_clean(&mut self, cleanable: &Cleanable) -> Result<CleanJob, LogError> {
        self.check_online()?;
        let mut sources = Vec::new();
        for (i, segment) in self.segments.iter().enumerate() {
            let end_offset = self.segment_end(i);
            if segment.base_offset >= cleanable.first_uncleanable_offset || i + 1 == self.segments.len() {
                break;
            }
            sources.push(Source {
                base_offset: segment.base_offset,
                end_offset,
                size: segment.size,
                // One entry per `index.interval.bytes`, of 8 and 12 bytes.
                index_bytes: segment.size / u64::from(self.config.index_interval_bytes.max(1)) * 12,
                file: segment.open(&self.shared, &self.dir, Kind::Log)?,
            });
        }
        let first = sources.first().map_or(0, |source| source.base_offset);
        let aborted = self.aborted_txns(first, cleanable.first_uncleanable_offset).map_err(|error| match error {
            ReadError::Storage(error) => error,
            other => LogError::BadFile { path: self.dir.clone(), reason: other.to_string() },
        })?;
        Ok(CleanJob {
            aborted,
            dir: self.dir.clone(),
            shared: Arc::clone(&self.shared),
            first_dirty_offset: cleanable.first_dirty_offset,
            first_uncleanable_offset: cleanable.first_uncleanable_offset,
            sources,
            producers: self.producer_state().last_writes(),
            segment_bytes: u64::from(self.config.segment_bytes),
            index_bytes_max: u64::from(self.config.segment_index_bytes),
            index_interval_bytes: self.config.index_interval_bytes,
            delete_retention_ms: self.config.delete_retention_ms,
        })
    }

    /// Puts a cleaned segment in the place of those that it was made of. Refused, with the cleaned files removed, when
    /// these are not as they were (retention, DeleteRecords or a truncation came first).
    ///
    /// Names change in this order, each step durable before the next: `.cleaned` to `.swap`, the log's file last (from
    /// there on the replacement counts, and opening the log completes it); the old files to `.deleted`; `.swap` to none.
    pub fn replace_segments(&mut self, cleaned: CleanedSegment, now_ms: i64) -> Result<(), LogError> {
        self.check_online()?;
        let Some(at) = self.segments.iter().position(|segment| segment.base_offset == cleaned.base_offset) else {
            return self.refuse_cleaned(&cleaned);
        };
        let count = cleaned.replaces.len();
        let old = self.segments.get(at..at + count).unwrap_or_default();
        let same = old.iter().map(|segment| (segment.base_offset, segment.size)).eq(cleaned.replaces.iter().copied());
        if !same || count == 0 || at + count >= self.segments.len() {
            return self.refuse_cleaned(&cleaned);
        }
        self.swap_in(&cleaned, at, now_ms).map_err(|e| self.go_offline(e))
    }

    fn refuse_cleaned(&self, cleaned: &CleanedSegment) -> Result<(), LogError> {
        for kind in &cleaned.kinds {
            let path = cleaned_path(&self.dir, cleaned.base_offset, *kind);
            crate::file::remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
        }
        Err(LogError::BadFile {
            path: self.dir.clone(),
            reason: "the segments changed while they were cleaned".to_owned(),
        })
    }

    fn swap_in(&mut self, cleaned: &CleanedSegment, at: usize, now_ms: i64) -> Result<(), LogError> {
        let rename = |from: &std::path::Path, to: &std::path::Path| {
            crate::file::rename(from, to).map_err(|e| LogError::io("rename", from, e))
        };
        let path = |kind: Kind| crate::segment::segment_path(&self.dir, cleaned.base_offset, kind.suffix());
        for kind in &cleaned.kinds {
            rename(&cleaned_path(&self.dir, cleaned.base_offset, *kind), &with_suffix(&path(*kind), "swap"))?;
        }
        self.shared.sync_dir(&self.dir).map_err(|e| LogError::io("flush", &self.dir, e))?;
        let targets: Vec<_> = cleaned.kinds.iter().map(|kind| path(*kind)).collect();
        let due_ms = now_ms.saturating_add(self.config.file_delete_delay_ms);
        let old: Vec<Segment> = self.segments.drain(at..at + cleaned.replaces.len()).collect();
        let mut segment = Segment::existing(cleaned.base_offset, cleaned.size);
        (segment.txn_own, segment.txn_dirty) = (true, true);
        self.segments.insert(at, segment);
        for segment in old {
            segment.close_handles(&self.shared);
            for kind in Kind::ALL {
                self.mark_deleted(segment.path(&self.dir, kind), due_ms)?;
            }
        }
        for target in targets {
            rename(&with_suffix(&target, "swap"), &target)?;
        }
        self.dir_dirty = true;
        self.remove_stray_snapshots();
        Ok(())
    }
}
