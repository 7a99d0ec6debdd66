//! What makes a log shorter: truncation at its end, DeleteRecords and retention at its beginning.

use std::path::PathBuf;

use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::BatchHeader;

use super::types::{Offset, QuarantinedRange, RetentionOutcome};
use super::{PartitionLog, PendingRemoval};
use crate::error::LogError;
use crate::file::remove_if_exists;
use crate::segment::{Kind, Segment, segment_path};

impl PartitionLog {
    /// Drops all from `offset` on (a follower's truncation). A batch that holds `offset` in its middle goes as a whole.
    /// True when something was dropped.
    pub fn truncate_to(&mut self, offset: Offset, now_ms: i64) -> Result<bool, LogError> {
        self.check_online()?;
        if offset >= self.log_end_offset {
            return Ok(false);
        }
        if offset <= self.segments.first().map_or(0, |segment| segment.base_offset) {
            self.truncate_fully_and_start_at(offset.max(0), now_ms)?;
            return Ok(true);
        }
        let result = self.truncate_inside(offset);
        result.map_err(|e| self.go_offline(e))?;
        Ok(true)
    }

    fn truncate_inside(&mut self, offset: Offset) -> Result<(), LogError> {
        self.active = None;
        while self.segments.len() > 1 && self.active_segment().base_offset >= offset {
            if let Some(segment) = self.segments.pop() {
                self.remove_files_now(&segment)?;
            }
        }
        let base = self.active_segment().base_offset;
        let ranges = || self.quarantined.iter().filter(|range| range.segment_base_offset == base);
        // Damage at or behind the offset goes too, also what stands where no offset is left for it: the end of a segment
        // that was cut off once, if a power cut took the cut back. The search begins behind damage before the offset.
        let goes = |range: &&QuarantinedRange| range.next_valid_offset > offset || range.first_offset >= offset;
        let damaged = ranges().filter(goes).min_by_key(|range| range.start_position);
        let damaged = damaged.map(|range| (range.first_offset, range.start_position));
        let floor = ranges().filter(|range| !goes(range)).map(|range| range.end_position).max();
        let end_of_rest = self.log_end_offset;
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
        let hint = segment.locate(&self.shared, &self.dir, offset)?;
        let io_error = |e| LogError::io("truncate", segment_path(&self.dir, segment.base_offset, "log"), e);
        let floor = floor.unwrap_or(0);
        let find = |position| segment.walk(&*log, position, end_of_rest, |h, _| h.last_offset() >= offset);
        let mut found = find(hint.position.max(floor)).map_err(io_error)?;
        if found.is_none() && hint.position > floor {
            found = find(floor).map_err(io_error)?;
        }
        let found = found.map(|(header, position)| (header.base_offset, position));
        let cut = [found, damaged].into_iter().flatten().min_by_key(|(_, position)| *position);
        let mut end = offset;
        if let Some((first_offset, position)) = cut {
            // The middle of a batch cannot stay, nor a gap at the end: the log ends behind its last batch.
            end = first_offset.max(segment.base_offset);
            if first_offset > offset {
                end = segment.base_offset;
                let mut last = |header: &BatchHeader, at: u64| {
                    let before = at < position;
                    if before {
                        end = header.next_offset();
                    }
                    !before
                };
                segment.walk(&*log, floor, end_of_rest, &mut last).map_err(io_error)?;
            }
            log.set_len(position).map_err(io_error)?;
            segment.size = position;
            segment.unchecked_below = segment.unchecked_below.min(position);
            segment.log_dirty = true;
            segment.truncate_indexes(&self.shared, &self.dir, position, end)?;
            segment.forget_max_timestamp();
            segment.restore_max_timestamp(&self.shared, &self.dir, position, end)?;
            segment.push_time_entry();
            segment.write_indexes(&self.shared, &self.dir)?;
        }
        self.after_truncation(end)
    }

    fn after_truncation(&mut self, end: Offset) -> Result<(), LogError> {
        self.log_end_offset = end;
        self.log_start_offset = self.log_start_offset.min(end);
        self.high_watermark = self.high_watermark.min(end).max(self.log_start_offset);
        self.recovery_point = self.recovery_point.min(end);
        self.flush_limit = self.flush_limit.min(end);
        self.epochs_mut().truncate_from_end(end);
        self.remove_snapshots(|offset| offset > end)?;
        self.truncate_txns(end)?;
        self.producers.take();
        let bases: Vec<_> = self.segments.iter().map(|segment| segment.base_offset).collect();
        let before = self.quarantined.len();
        self.quarantined.retain(|q| q.first_offset < end && bases.contains(&q.segment_base_offset));
        if self.quarantined.len() != before {
            self.save_quarantine()?;
        }
        self.dir_dirty = true;
        Ok(())
    }

    fn truncate_txns(&mut self, end: Offset) -> Result<(), LogError> {
        let index = self.segments.len().saturating_sub(1);
        self.truncate_txn_index(index, end)
    }

    /// Drops everything; the log is empty and begins at `offset`.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset, _now_ms: i64) -> Result<(), LogError> {
        self.check_online()?;
        let result = self.start_anew(offset);
        result.map_err(|e| self.go_offline(e))
    }

    fn start_anew(&mut self, offset: Offset) -> Result<(), LogError> {
        self.make_folder()?;
        self.active = None;
        for segment in std::mem::take(&mut self.segments) {
            self.remove_files_now(&segment)?;
        }
        let segment = Segment::new_empty(offset);
        segment.create_files(&self.shared, &self.dir)?;
        self.segments.push(segment);
        self.epochs_mut().clear();
        self.remove_snapshots(|_| true)?;
        self.log_start_offset = offset;
        self.after_truncation(offset)?;
        self.high_watermark = offset;
        self.recovery_point = offset;
        self.producers = std::sync::OnceLock::from(Box::default());
        Ok(())
    }

    /// DeleteRecords: the log start offset moves to `offset` (at most the high watermark, which the caller checks), and
    /// segments wholly below go. Answers the low watermark. The caller checkpoints the log start offset.
    pub fn delete_records_before(&mut self, offset: Offset, now_ms: i64) -> Result<Offset, LogError> {
        self.check_online()?;
        if offset > self.log_end_offset || offset < 0 {
            let (start, end) = (self.log_start_offset, self.log_end_offset);
            return Err(LogError::OffsetOutOfRange { offset, start, end });
        }
        let too_far = planted(Bug::DeleteRecordsTooFar) && offset < self.high_watermark;
        let offset = offset + i64::from(too_far);
        if offset > self.log_start_offset {
            self.move_log_start(offset);
            self.remove_below_log_start(now_ms)?;
        }
        Ok(self.log_start_offset)
    }

    pub(super) fn move_log_start(&mut self, offset: Offset) {
        self.log_start_offset = offset;
        self.high_watermark = self.high_watermark.max(offset);
        self.epochs_mut().truncate_from_start(offset);
        // Transactions that ended below no longer hold anything back.
        if let Some(producers) = self.producers.get_mut() {
            producers.high_watermark_moved(offset.max(self.high_watermark));
        }
    }

    fn remove_below_log_start(&mut self, now_ms: i64) -> Result<RetentionOutcome, LogError> {
        let start = self.log_start_offset;
        let count = self.segments.iter().skip(1).take_while(|next| next.base_offset <= start).count();
        self.remove_oldest(count, now_ms)
    }

    /// Removes segments by time, size and log start offset, as far as the high watermark allows.
    ///
    /// By time only what the previous call already found old enough goes: a clock that jumps ahead and is set right before
    /// the next call costs no record.
    pub fn apply_retention(&mut self, now_ms: i64) -> Result<RetentionOutcome, LogError> {
        self.check_online()?;
        for rebuilt in [self.rebuild_suspect_indexes(), self.rebuild_suspect_txn_indexes()] {
            // A full disk must not keep from being removed what fills it.
            if let Err(error) = rebuilt {
                let LogError::NoSpace { .. } = error else { return Err(error) };
                tracing::warn!(log = %self.topic_partition, %error, "an index is not made anew");
            }
        }
        let old_start = self.log_start_offset;
        let mut outcome = RetentionOutcome::default();
        if self.config.cleanup_delete {
            let (retention_ms, retention_bytes, dispensable) = self.local_bounds();
            let by_time = self.expired_segments(now_ms, retention_ms)?;
            let expired_before = self.base_behind(by_time);
            let agreed = self.segments.iter().take_while(|s| s.base_offset < self.expired_before).count();
            outcome.add(&self.remove_oldest_and_roll(by_time.min(agreed).min(dispensable), now_ms)?);
            self.expired_before = expired_before;
            let (.., dispensable) = self.local_bounds();
            let oversize = self.oversize_segments(retention_bytes).min(dispensable);
            outcome.add(&self.remove_oldest_and_roll(oversize, now_ms)?);
        }
        outcome.add(&self.remove_below_log_start(now_ms)?);
        outcome.new_log_start_offset = (self.log_start_offset != old_start).then_some(self.log_start_offset);
        Ok(outcome)
    }

    /// What retention of the local segments goes by: age, size, and how many of the oldest may go at all. Of a tiered log only
    /// what is in remote storage may; where copying is switched off the log start offset follows instead.
    fn local_bounds(&self) -> (i64, i64, usize) {
        let config = &self.config;
        if !config.remote_storage_enable {
            return (config.retention_ms, config.retention_bytes, usize::MAX);
        }
        let or = |local: i64, total: i64| if local == -2 { total } else { local };
        let copied = (0..self.segments.len()).take_while(|i| self.segment_end(*i) <= self.copied_to).count();
        let dispensable = if config.remote_copy_disable { usize::MAX } else { copied };
        let retention_ms = or(config.local_retention_ms, config.retention_ms);
        (retention_ms, or(config.local_retention_bytes, config.retention_bytes), dispensable)
    }

    /// Base offset of the segment behind the first `count`; the log's end when there is none.
    fn base_behind(&self, count: usize) -> Offset {
        self.segments.get(count).map_or(self.log_end_offset, |segment| segment.base_offset)
    }

    /// How many of the oldest segments are older than `retention_ms`. One whose timestamps lie in the future is not.
    fn expired_segments(&self, now_ms: i64, retention_ms: i64) -> Result<usize, LogError> {
        if retention_ms < 0 {
            return Ok(0);
        }
        let mut count = 0;
        for (i, segment) in self.segments.iter().enumerate() {
            let end = self.segment_end(i);
            if segment.size == 0 || end > self.high_watermark {
                break;
            }
            let newest = segment.max_timestamp(&self.shared, &self.dir, end)?.timestamp;
            let newest = if newest >= 0 { newest } else { self.modified_ms(segment) };
            if now_ms.saturating_sub(newest) <= retention_ms {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// For records without timestamps: when the file was last written.
    fn modified_ms(&self, segment: &Segment) -> i64 {
        let modified = std::fs::metadata(segment.path(&self.dir, Kind::Log)).and_then(|m| m.modified()).ok();
        let age = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        age.and_then(|age| i64::try_from(age.as_millis()).ok()).unwrap_or(i64::MAX)
    }

    fn oversize_segments(&self, retention_bytes: i64) -> usize {
        let Ok(limit) = u64::try_from(retention_bytes) else { return 0 };
        let mut excess = self.size_bytes().saturating_sub(limit);
        if planted(Bug::RetentionTooMuch) && excess > 0 {
            return self.segments.len();
        }
        let mut count = 0;
        for (i, segment) in self.segments.iter().enumerate() {
            if segment.size == 0 || segment.size > excess || self.segment_end(i) > self.high_watermark {
                break;
            }
            excess -= segment.size;
            count += 1;
        }
        count
    }

    fn remove_oldest_and_roll(&mut self, count: usize, now_ms: i64) -> Result<RetentionOutcome, LogError> {
        if count > 0 && count == self.segments.len() {
            self.ready_to_append(now_ms).map_err(|e| self.go_offline(e))?;
            if count < self.segments.len() {
                // Getting ready found damage and rolled; the next call decides anew.
                return Ok(RetentionOutcome::default());
            }
            self.roll_at(self.log_end_offset, now_ms)?;
        }
        let outcome = self.remove_oldest(count, now_ms)?;
        let first = self.segments.first().map_or(0, |segment| segment.base_offset);
        let is_kept_remotely = self.config.remote_storage_enable && first <= self.copied_to;
        if first > self.log_start_offset && !is_kept_remotely {
            self.move_log_start(first);
        }
        Ok(outcome)
    }

    /// Takes the oldest segments out of the log and renames their files; [`purge`](Self::purge) unlinks them.
    fn remove_oldest(&mut self, count: usize, now_ms: i64) -> Result<RetentionOutcome, LogError> {
        let mut outcome = RetentionOutcome::default();
        let count = count.min(self.segments.len().saturating_sub(1));
        for segment in self.segments.drain(..count).collect::<Vec<_>>() {
            outcome.segments_removed += 1;
            outcome.bytes_removed += segment.size;
            segment.close_handles(&self.shared);
            let due_ms = now_ms.saturating_add(self.config.file_delete_delay_ms);
            for kind in Kind::ALL {
                self.mark_deleted(segment.path(&self.dir, kind), due_ms)?;
            }
        }
        if count > 0 {
            self.dir_dirty = true;
            let first = self.segments.first().map_or(0, |segment| segment.base_offset);
            self.remove_snapshots(|offset| offset < first)?;
            let before = self.quarantined.len();
            self.quarantined.retain(|range| range.segment_base_offset >= first);
            if self.quarantined.len() != before {
                self.save_quarantine()?;
            }
        }
        Ok(outcome)
    }

    pub(super) fn mark_deleted(&mut self, path: PathBuf, due_ms: i64) -> Result<(), LogError> {
        let mut renamed = path.clone().into_os_string();
        renamed.push(".deleted");
        match crate::file::rename(&path, renamed.as_ref()) {
            Ok(()) => {
                self.removals.push(PendingRemoval { path: renamed.into(), due_ms });
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(LogError::io("rename", path, e)),
        }
    }

    fn remove_files_now(&self, segment: &Segment) -> Result<(), LogError> {
        segment.close_handles(&self.shared);
        for kind in Kind::ALL {
            let path = segment.path(&self.dir, kind);
            remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
        }
        Ok(())
    }

    pub(super) fn remove_snapshots(&mut self, which: impl Fn(Offset) -> bool) -> Result<(), LogError> {
        for offset in self.snapshots.iter().copied().filter(|offset| which(*offset)) {
            let path = segment_path(&self.dir, offset, "snapshot");
            remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
        }
        self.snapshots.retain(|offset| !which(*offset));
        Ok(())
    }

    /// Keeps the snapshots at segments' beginnings, and the latest two: recovery begins a little before the latest.
    pub(super) fn remove_stray_snapshots(&mut self) {
        let bases: Vec<_> = self.segments.iter().map(|segment| segment.base_offset).collect();
        let newest = self.snapshots.iter().rev().nth(1).or(self.snapshots.last()).copied().unwrap_or(0);
        let _ = self.remove_snapshots(|offset| bases.binary_search(&offset).is_err() && offset < newest);
    }

    /// Unlinks removed segments whose delay has passed; answers how many files remain.
    pub fn purge(&mut self, now_ms: i64) -> usize {
        self.removals.retain(|removal| {
            if removal.due_ms > now_ms {
                return true;
            }
            if let Err(error) = remove_if_exists(&removal.path) {
                tracing::warn!(path = %removal.path.display(), %error, "removed segment's file is still there");
            }
            false
        });
        self.removals.len()
    }

    /// Makes anew the offset and time indexes of sealed segments that readers found wrong.
    pub(super) fn rebuild_suspect_indexes(&mut self) -> Result<(), LogError> {
        let sealed = self.segments.len().saturating_sub(1);
        for i in 0..sealed {
            let end = self.segment_end(i);
            let Some(segment) = self.segments.get_mut(i) else { break };
            if segment.index_suspect.load(std::sync::atomic::Ordering::Relaxed) {
                let interval = u64::from(self.config.index_interval_bytes);
                segment.rebuild_indexes(&self.shared, &self.dir, end, interval)?;
                tracing::warn!(log = %self.topic_partition, base_offset = segment.base_offset, "indexes made anew");
            }
        }
        Ok(())
    }
}

impl RetentionOutcome {
    fn add(&mut self, other: &Self) {
        self.segments_removed += other.segments_removed;
        self.bytes_removed += other.bytes_removed;
    }
}
