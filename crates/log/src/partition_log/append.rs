//! Appending: judge, assign, roll, write, note. One write per append, nothing flushed.

use std::sync::Arc;

use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::{BatchHeader, TimestampType, set_base_offset, set_max_timestamp, set_partition_leader_epoch};

use super::types::{AppendContext, AppendOrigin, Appended, Offset, RecoveryReport};
use super::{ActiveState, PartitionLog};
use crate::error::{AppendError, LogError};
use crate::producer_state::{Marker, Verdict, marker_of};
use crate::salvage::Salvaged;
use crate::segment::{Kind, Segment};

impl PartitionLog {
    /// Appends exactly one validated batch: checks the producer's state, gives it offsets and the leader epoch in
    /// place (`batch` holds the stored bytes afterwards, for the journal or for replicas), writes it, and rolls the
    /// segment first when it must. Nothing is flushed.
    pub fn append(&mut self, batch: &mut [u8], context: AppendContext) -> Result<Appended, AppendError> {
        let mut header = self.check_batch(batch)?;
        let by_client = matches!(context.origin, AppendOrigin::Client | AppendOrigin::ClientTransaction { .. });
        if by_client && batch.len() > self.config.max_message_bytes as usize {
            return Err(AppendError::TooLarge { size: batch.len(), max: self.config.max_message_bytes });
        }
        // First of all: this may find another log end offset than the one that was believed.
        self.ready_to_append(context.now_ms)?;
        let marker = marker_of(&header, batch);
        if header.has_producer_id()
            && let Verdict::Duplicate { base_offset, last_offset, timestamp } = self.producer_state().check(
                &header,
                marker.as_ref(),
                context.origin,
                self.verifications.get(header.producer_id),
            )?
        {
            let log_append_time_ms = if self.config.log_append_time { timestamp } else { -1 };
            let log_start_offset = self.log_start_offset;
            return Ok(Appended { base_offset, last_offset, log_append_time_ms, log_start_offset, duplicate: true });
        }
        let mut log_append_time_ms = -1;
        if self.config.log_append_time && context.origin != AppendOrigin::Replay {
            // A clock that is set back does not take the log's time back with it.
            self.last_append_time_ms = self.last_append_time_ms.max(context.now_ms);
            log_append_time_ms = self.last_append_time_ms;
            set_max_timestamp(batch, TimestampType::LogAppendTime, log_append_time_ms)?;
            header = BatchHeader::parse(batch)?;
        }
        set_base_offset(batch, self.log_end_offset);
        set_partition_leader_epoch(batch, context.leader_epoch);
        header.base_offset = self.log_end_offset;
        header.partition_leader_epoch = context.leader_epoch;
        self.write(batch, &header, marker, log_append_time_ms, context.now_ms)
    }

    /// Appends one batch with the offsets and the leader epoch that it carries, from the journal or a leader. Its base
    /// offset must not be below the log end offset; a gap is allowed and begins a new segment. Producer state is updated,
    /// not checked.
    pub fn append_as_is(&mut self, batch: &[u8], now_ms: i64) -> Result<Appended, AppendError> {
        self.append_given(batch, true, now_ms)
    }

    /// As [`append_as_is`](Self::append_as_is), for a copy of another log: where that one was compacted, gaps stay inside
    /// a segment.
    pub(super) fn append_copied(&mut self, batch: &[u8], now_ms: i64) -> Result<Appended, AppendError> {
        self.append_given(batch, !self.compacted, now_ms)
    }

    fn append_given(&mut self, batch: &[u8], roll_at_gap: bool, now_ms: i64) -> Result<Appended, AppendError> {
        let header = self.check_batch(batch)?;
        self.ready_to_append(now_ms)?;
        let (base, last, end) = (header.base_offset, header.last_offset(), self.log_end_offset);
        if base < end || last == i64::MAX {
            return Err(AppendError::OffsetsNotMonotonic { base, last, end });
        }
        let marker = marker_of(&header, batch);
        if base > end && roll_at_gap {
            // What lies before a gap keeps its end; recovery takes a gap inside a segment for damage.
            self.roll_at(base, now_ms)?;
        }
        self.write(batch, &header, marker, -1, now_ms)
    }

    pub(super) fn check_batch(&self, batch: &[u8]) -> Result<BatchHeader, AppendError> {
        self.check_online()?;
        let header = BatchHeader::parse_whole(batch)?;
        if header.size_bytes() != batch.len() {
            return Err(AppendError::Malformed {
                reason: format!("a batch of {} bytes in {} bytes", header.size_bytes(), batch.len()),
            });
        }
        if header.last_offset_delta < 0 {
            return Err(AppendError::Malformed { reason: "the last offset delta is negative".to_owned() });
        }
        let max = self.config.segment_bytes;
        if batch.len() > max as usize {
            return Err(AppendError::LargerThanSegment { size: batch.len(), max });
        }
        Ok(header)
    }

    fn write(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        marker: Option<Marker>,
        log_append_time_ms: i64,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        if self.must_roll(batch.len(), header, now_ms) {
            self.roll_at(header.base_offset, now_ms)?;
        }
        // Loaded before the write: afterwards there is no way back.
        self.epochs();
        if header.has_producer_id() {
            self.producer_state();
        }
        let position = self.active_segment().size;
        let file = self.active_segment().open(&self.shared, &self.dir, Kind::Log)?;
        if let Err(source) = file.write_at(batch, position) {
            let error = LogError::io("write", self.active_segment().path(&self.dir, Kind::Log), source);
            // The next write begins at the same position; a torn rest must not outlive a restart.
            let undone = file.set_len(position);
            return Err(match (error, undone) {
                (error @ LogError::NoSpace { .. }, Ok(())) => error.into(),
                (error, _) => self.go_offline(error).into(),
            });
        }
        self.note_written(header, marker.as_ref(), position)?;
        Ok(Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms,
            log_start_offset: self.log_start_offset,
            duplicate: false,
        })
    }

    /// The batch is in the file: everything derived follows. A failure here is one of derived files, which are made anew
    /// after the log went offline and was opened again.
    fn note_written(&mut self, header: &BatchHeader, marker: Option<&Marker>, position: u64) -> Result<(), LogError> {
        let size = header.size_bytes() as u64;
        let interval = u64::from(self.config.index_interval_bytes);
        self.log_end_offset = header.next_offset();
        let (Some(segment), Some(active)) = (self.segments.last_mut(), self.active.as_mut()) else { return Ok(()) };
        segment.size = position + size;
        segment.log_dirty = true;
        segment.note_timestamp(header);
        active.note_batch(header.base_offset, position);
        active.first_timestamp.get_or_insert(header.max_timestamp);
        let mut result = Ok(());
        if active.bytes_since_index > interval {
            active.bytes_since_index = 0;
            result = segment.index_batch(&self.shared, &self.dir, header, position);
        }
        active.bytes_since_index += size;
        if header.partition_leader_epoch >= 0 {
            self.epochs_mut().assign(header.partition_leader_epoch, header.base_offset);
        }
        if header.has_producer_id() {
            result = result.and(self.update_producers(header, marker));
        }
        match result {
            Err(error @ LogError::NoSpace { .. }) => {
                // The batch stands; only what can be rebuilt is missing, and it is still in memory.
                tracing::warn!(log = %self.topic_partition, %error, "index not written");
                Ok(())
            }
            Err(error) => Err(self.go_offline(error)),
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn update_producers(&mut self, header: &BatchHeader, marker: Option<&Marker>) -> Result<(), LogError> {
        let high_watermark = self.high_watermark;
        if header.is_transactional() {
            self.verifications.clear(header.producer_id);
        }
        let producers = self.producer_state_mut();
        let Some(completed) = producers.update(header, marker) else { return Ok(()) };
        let last_stable_offset = producers.stable_offset_at(&completed);
        producers.complete(&completed);
        producers.high_watermark_moved(high_watermark);
        if completed.commit {
            return Ok(());
        }
        let txn = super::types::AbortedTxn {
            producer_id: completed.producer_id,
            first_offset: completed.first_offset,
            last_offset: completed.last_offset,
            last_stable_offset,
        };
        self.append_txn_index(&txn)
    }

    fn append_txn_index(&mut self, txn: &super::types::AbortedTxn) -> Result<(), LogError> {
        if planted(Bug::AbortedTxnNotIndexed) {
            return Ok(());
        }
        let index = self.segment_index(txn.last_offset);
        let Some(segment) = self.segments.get_mut(index) else { return Ok(()) };
        segment.txn_dirty = true;
        segment.txn_own = true;
        self.dir_dirty = true;
        let path = segment.path(&self.dir, Kind::TxnIndex);
        let written = segment.open(&self.shared, &self.dir, Kind::TxnIndex).and_then(|file| {
            let write = || {
                let whole = file.len()? / crate::txn_index::ENTRY_BYTES as u64 * crate::txn_index::ENTRY_BYTES as u64;
                file.write_at(&crate::txn_index::encode(txn), whole)
            };
            write().map_err(|e| LogError::io("write", path, e))
        });
        match written {
            Err(error @ LogError::NoSpace { .. }) => {
                // Readers ask the batches until there is room, and no flush passes the segment until then.
                tracing::warn!(log = %self.topic_partition, %error, "transaction index not written");
                segment.txn_suspect.store(true, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
            // Unlike the other indexes this one decides what a reader sees, so a failure is never passed over.
            written => written,
        }
    }

    fn must_roll(&self, batch_bytes: usize, header: &BatchHeader, now_ms: i64) -> bool {
        let segment = self.active_segment();
        let Some(active) = &self.active else { return false };
        if segment.size == 0 {
            // An empty segment takes any batch, except one that its base offset cannot express.
            return header.last_offset().saturating_sub(segment.base_offset) > i64::from(i32::MAX);
        }
        let age = match active.first_timestamp {
            Some(first) if first >= 0 && header.max_timestamp >= 0 => header.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(active.created_ms),
        };
        segment.size + batch_bytes as u64 > u64::from(self.config.segment_bytes)
            || age > self.config.segment_ms.saturating_sub(active.jitter_ms)
            || segment.index_is_full(self.config.segment_index_bytes)
            || header.last_offset().saturating_sub(segment.base_offset) > i64::from(i32::MAX)
    }

    /// Seals the active segment and begins a new one at `base_offset`, at least the log end offset.
    pub(super) fn roll_at(&mut self, base_offset: Offset, now_ms: i64) -> Result<(), LogError> {
        self.seal_active()?;
        if self.active_segment().base_offset == base_offset {
            return Ok(());
        }
        let segment = Segment::new_empty(base_offset);
        segment.create_files(&self.shared, &self.dir)?;
        // A snapshot at each roll bounds what must be read again after a crash.
        self.write_snapshot(base_offset);
        self.dir_dirty = true;
        self.log_end_offset = self.log_end_offset.max(base_offset);
        let mut active = ActiveState::new(now_ms, self.jitter_for(base_offset));
        if self.config.preallocate {
            let file = segment.open(&self.shared, &self.dir, Kind::Log)?;
            active.preallocated = file.preallocate(u64::from(self.config.segment_bytes)).is_ok();
        }
        if let Some(sealed) = self.segments.last_mut() {
            // What is read from here on may come from the disk again: readers check it.
            sealed.unchecked_below = sealed.size;
        }
        self.segments.push(segment);
        self.active = Some(Box::new(active));
        Ok(())
    }

    /// Completes the active segment's indexes and gives preallocated space back.
    pub(super) fn seal_active(&mut self) -> Result<(), LogError> {
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        segment.push_time_entry();
        segment.write_indexes(&self.shared, &self.dir)?;
        if self.active.as_ref().is_some_and(|active| active.preallocated) {
            let file = segment.open(&self.shared, &self.dir, Kind::Log)?;
            file.set_len(segment.size).map_err(|e| LogError::io("truncate", segment.path(&self.dir, Kind::Log), e))?;
        }
        Ok(())
    }

    /// A value below `segment.jitter.ms` that depends on the log and the segment, so that logs made together do not roll
    /// together.
    fn jitter_for(&self, base_offset: i64) -> i64 {
        let jitter = self.config.segment_jitter_ms.min(self.config.segment_ms);
        if jitter <= 0 {
            return 0;
        }
        let name = self.topic_partition.topic.bytes().chain(self.topic_partition.partition.to_be_bytes());
        let seed = name.chain(base_offset.to_be_bytes());
        let hash = seed.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        (hash % jitter as u64) as i64
    }

    /// Learns what appending needs to know of the active segment. After a clean stop this is the first look into it: the
    /// tail must end where the checkpoint said, else the segment is recovered here and now.
    pub(super) fn ready_to_append(&mut self, now_ms: i64) -> Result<(), LogError> {
        if self.active.is_some() {
            return Ok(());
        }
        self.make_folder()?;
        match self.load_active(now_ms)? {
            Some(active) => self.active = Some(active),
            None => {
                tracing::warn!(log = %self.topic_partition, "the tail is not what a clean stop left; recovering");
                let mut report = RecoveryReport::default();
                let believed_end = self.log_end_offset;
                if let Err(error) = self.recover_active(now_ms, &mut report) {
                    self.log_end_offset = believed_end;
                    return Err(self.go_offline(error));
                }
                self.late_reports.push(report);
            }
        }
        Ok(())
    }

    /// `None` when the segment does not end at the log end offset, or is damaged.
    pub(super) fn load_active(&mut self, now_ms: i64) -> Result<Option<Box<ActiveState>>, LogError> {
        let end = self.log_end_offset;
        let mut active = Box::new(ActiveState::new(now_ms, self.jitter_for(self.active_segment().base_offset)));
        let Some(segment) = self.segments.last_mut() else { return Ok(None) };
        match segment.load_for_append(&self.shared, &self.dir) {
            Err(error) if error.is_unreadable() => return Ok(None),
            loaded => loaded?,
        }
        if segment.size == 0 {
            segment.set_max_timestamp(crate::segment::MaxTimestamp::NONE);
            return Ok((segment.base_offset == end).then_some(active));
        }
        let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
        let log = Arc::new(Salvaged::new(log));
        let io_error = |e| LogError::io("read", segment.path(&self.dir, Kind::Log), e);
        let first = segment.walk(&*log, 0, end, |_, _| true).map_err(io_error)?;
        let Some((first, _)) = first else { return Ok(None) };
        active.first_timestamp = Some(first.max_timestamp);
        let (mut position, indexed) = match segment.last_index_entry(&self.shared, &self.dir) {
            Ok(Some((last_offset, position))) if position < segment.size => (position, Some(last_offset)),
            Ok(Some(_)) => return Ok(None),
            Ok(None) => (0, None),
            Err(error) if error.is_unreadable() => return Ok(None),
            Err(error) => return Err(error),
        };
        let start = position;
        let mut next = segment.base_offset;
        let mut index_is_right = indexed.is_none();
        let mut append_time_ms = -1;
        segment
            .walk(&*log, start, end, |header, at| {
                index_is_right |= at == start && indexed == Some(header.last_offset());
                active.note_batch(header.base_offset, at);
                if header.timestamp_type() == TimestampType::LogAppendTime {
                    append_time_ms = append_time_ms.max(header.max_timestamp);
                }
                position = at + header.size_bytes() as u64;
                next = header.next_offset();
                false
            })
            .map_err(io_error)?;
        if position != segment.size || next != end || !index_is_right || log.met_unreadable() {
            return Ok(None);
        }
        self.last_append_time_ms = self.last_append_time_ms.max(append_time_ms);
        active.bytes_since_index = segment.size - start;
        segment.max_timestamp(&self.shared, &self.dir, end)?;
        Ok(Some(active))
    }
}
