//! Recovery after a stop that was not clean: the segments from the recovery point on are read in full, their derived files
//! made anew, and damage is either cut off (a torn tail, with nothing valid behind, beyond what was flushed) or kept and
//! named. Answers to Kafka's `LogSegment.recover` and `LogLoader.recoverLog`, except that Kafka cuts off at the first bad
//! batch and loses what is good behind it.

use std::sync::{Arc, OnceLock};

use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::BatchHeader;

use super::PartitionLog;
use super::types::{Offset, QuarantinedRange, RecoveryReport, Replayed};
use crate::error::{AppendError, LogError};
use crate::file::{SegmentFile, remove_if_exists};
use crate::producer_state::{ProducerState, marker_of};
use crate::salvage::Salvaged;
use crate::scan::{Bounds, Resync, Scanner, Step, contradicted_gap, resync};
use crate::segment::{Kind, MaxTimestamp, Segment, segment_path};

/// Where the scan of one segment begins.
struct ScanStart {
    position: u64,
    /// Base offset of the first batch to check: all index entries before it are kept.
    offset: Offset,
}

/// State of one segment's scan.
struct Scan<'r> {
    /// Offsets below were flushed.
    synced_to: Offset,
    is_last: bool,
    /// Last offsets in the segment are below this.
    limit: Offset,
    bytes_since_index: u64,
    /// Nothing before the batch that comes next vouches for its base offset.
    after_damage: bool,
    /// The disk could not read something of the segment: nothing is cut off, it may come back.
    unreadable: bool,
    report: &'r mut RecoveryReport,
}

impl PartitionLog {
    /// Reads the log from `from` on. `synced_to` is what was known to be on disk: if less than that is there, the rest is
    /// reported as lost. Sets the log end offset.
    pub(super) fn recover(
        &mut self,
        from: Offset,
        synced_to: Offset,
        now_ms: i64,
        report: &mut RecoveryReport,
    ) -> Result<(), LogError> {
        self.active = None;
        self.log_end_offset = i64::MAX;
        let at = self.segment_index(from);
        // A segment that was flushed to its end as the active one was flushed without its indexes.
        let begins_there = self.segments.get(at).is_some_and(|segment| segment.base_offset == from);
        let first_index = if begins_there { at.saturating_sub(1) } else { at };
        let start = match self.segments.get(first_index) {
            Some(segment) => self.scan_start(first_index, segment, from)?,
            None => return Ok(()),
        };
        tracing::debug!(log = %self.topic_partition, from, begins = start.offset, synced_to, snapshots = ?self.snapshots, "recovering");
        self.remove_damaged_snapshots(start.offset)?;
        let quarantined_before = self.quarantined.len();
        let first_base = self.segments.get(first_index).map_or(0, |segment| segment.base_offset);
        let is_before = |range: &QuarantinedRange| {
            let base = range.segment_base_offset;
            base < first_base || (base == first_base && range.end_position <= start.position)
        };
        self.quarantined.retain(is_before);
        // What is not yet checked is replayed without a check only up to where checking begins.
        let mut state = self.load_producers(start.offset);
        state.high_watermark_moved(i64::MAX);
        self.producers = OnceLock::from(Box::new(state));
        // What the first of two recoveries found is not in the file yet.
        let mut epochs = match self.epochs.take() {
            Some(known) if known.is_dirty() => *known,
            _ => self.load_epochs(),
        };
        let read = (!epochs.is_dirty()).then(|| epochs.entries().to_vec());
        epochs.truncate_from_end(start.offset);
        self.epochs = OnceLock::from(Box::new(epochs));
        let mut end = start.offset;
        let last = self.segments.len().saturating_sub(1);
        for i in first_index..=last {
            let base = self.segments.get(i).map_or(0, |segment| segment.base_offset);
            let from = if i == first_index { ScanStart { ..start } } else { ScanStart { position: 0, offset: base } };
            self.log_end_offset = i64::MAX;
            end = self.scan_segment(i, from, synced_to, report)?;
            report.segments_scanned += 1;
        }
        self.log_end_offset = end;
        self.finish_recovery(end, now_ms, quarantined_before, report)?;
        if let Some(read) = read {
            self.epochs_mut().confirm(&read);
        }
        Ok(())
    }

    /// Reads the whole log and makes all that is derived from it anew.
    pub(super) fn recover_all(
        &mut self,
        synced_to: Offset,
        now_ms: i64,
        report: &mut RecoveryReport,
    ) -> Result<(), LogError> {
        self.remove_snapshots(|_| true)?;
        let path = self.dir.join(crate::checkpoint::LEADER_EPOCH_CHECKPOINT);
        remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
        for kind in [Kind::OffsetIndex, Kind::TimeIndex, Kind::TxnIndex] {
            for segment in &self.segments {
                let path = segment.path(&self.dir, kind);
                remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
            }
        }
        let first = self.segments.first().map_or(0, |segment| segment.base_offset);
        self.recover(first, synced_to, now_ms, report)?;
        self.epochs_mut().set_dirty();
        self.write_snapshot(self.log_end_offset);
        Ok(())
    }

    /// Recovers the active segment alone, from its beginning; its end was believed and turned out to be wrong.
    pub(super) fn recover_active(&mut self, now_ms: i64, report: &mut RecoveryReport) -> Result<(), LogError> {
        let believed = self.log_end_offset;
        let base = self.active_segment().base_offset;
        let path = self.active_segment().path(&self.dir, Kind::Log);
        let length = self
            .active_segment()
            .open(&self.shared, &self.dir, Kind::Log)?
            .len()
            .map_err(|e| LogError::io("stat", path, e))?;
        if let Some(segment) = self.segments.last_mut() {
            segment.size = length;
            segment.index_suspect.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        let known = self.producers_at(believed);
        self.recover(base, believed, now_ms, report)?;
        if let Some(mut known) = known.filter(|_| self.log_end_offset == believed) {
            // Those of records that cannot be read, too.
            known.high_watermark_moved(self.high_watermark);
            self.producers = OnceLock::from(Box::new(known));
        }
        self.high_watermark = self.high_watermark.min(self.log_end_offset);
        self.recovery_point = self.recovery_point.min(self.log_end_offset);
        match self.load_active(now_ms)? {
            Some(active) => {
                self.active = Some(active);
                Ok(())
            }
            None => {
                let path = self.active_segment().path(&self.dir, Kind::Log);
                Err(LogError::BadFile { path, reason: "not readable after its recovery".to_owned() })
            }
        }
    }

    /// The producers up to an offset, as far as they are known without reading records.
    fn producers_at(&self, end: Offset) -> Option<ProducerState> {
        if let Some(state) = self.producers.get() {
            return Some(ProducerState::clone(state));
        }
        Some(self.load_snapshot(end)).filter(|(_, at)| *at == end).map(|(state, _)| state)
    }

    /// Applies a batch from the journal, with the offsets that it carries: appends one that lies behind the log's end,
    /// writes one whose place is damaged or missing back to its place, and skips one that is there. Entries come in the order in
    /// which they were staged; [`finish_replay`](Self::finish_replay) ends it.
    pub fn replay(&mut self, batch: &[u8], now_ms: i64) -> Result<Replayed, AppendError> {
        let header = self.check_batch(batch)?;
        if header.base_offset < self.log_end_offset
            && self.log_end_offset < header.next_offset()
            && self.size_bytes() == 0
        {
            self.begin_within(&header)?;
        }
        if header.base_offset >= self.log_end_offset {
            self.append_as_is(batch, now_ms)?;
            return Ok(Replayed::Appended);
        }
        let first = header.base_offset;
        let Some(index) = self.quarantined.iter().position(|range| range.first_offset == first) else {
            return Ok(if self.put_behind(batch, &header)? { Replayed::Repaired } else { Replayed::Present });
        };
        if self.put_back(index, batch, &header)? { Ok(Replayed::Repaired) } else { Ok(Replayed::Present) }
    }

    /// DeleteRecords moved the log's beginning into this batch, and nothing of the log itself reached the disk: it was made
    /// anew at its start offset. It begins with the batch, as it did.
    fn begin_within(&mut self, header: &BatchHeader) -> Result<(), LogError> {
        let start = self.log_start_offset;
        self.truncate_fully_and_start_at(header.base_offset, 0)?;
        self.log_start_offset = start;
        self.high_watermark = start;
        Ok(())
    }

    /// Writes a batch to the front of a damaged range, if it fits there exactly as it was.
    fn put_back(&mut self, index: usize, batch: &[u8], header: &BatchHeader) -> Result<bool, LogError> {
        let Some(range) = self.quarantined.get_mut(index) else { return Ok(false) };
        let next_position = range.start_position + batch.len() as u64;
        let ends_with_range =
            (next_position == range.end_position) == (header.next_offset() == range.next_valid_offset);
        if next_position > range.end_position || header.next_offset() > range.next_valid_offset || !ends_with_range {
            return Ok(false);
        }
        let base = range.segment_base_offset;
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.base_offset == base) else {
            return Ok(false);
        };
        let path = segment.path(&self.dir, Kind::Log);
        let file = segment.open(&self.shared, &self.dir, Kind::Log)?;
        file.write_at(batch, range.start_position).map_err(|e| LogError::io("write", path, e))?;
        segment.log_dirty = true;
        range.start_position = next_position;
        range.first_offset = header.next_offset();
        self.repaired_from = Some(self.repaired_from.map_or(base, |from| from.min(base)));
        if next_position == range.end_position {
            self.quarantined.remove(index);
        }
        Ok(true)
    }

    /// Writes a batch behind a sealed segment's last one, where it belongs and is missing: the segment's end never reached
    /// the disk, its successor did. In a log that may have gaps nothing else tells. A batch that was compacted away since the
    /// cleaner's checkpoint comes back so, and goes again; below that checkpoint nothing is missing, and what would come back
    /// could be what a tombstone, which is gone by now, had deleted.
    fn put_behind(&mut self, batch: &[u8], header: &BatchHeader) -> Result<bool, LogError> {
        let index = self.segment_index(header.base_offset);
        let Some(next_base) = self.segments.get(index + 1).map(|next| next.base_offset) else { return Ok(false) };
        let Some(segment) = self.segments.get_mut(index) else { return Ok(false) };
        let base = segment.base_offset;
        let is_missing =
            header.base_offset >= self.cleaned_to && segment.ends_at.is_some_and(|end| header.base_offset >= end);
        if !is_missing
            || header.next_offset() > next_base
            || self.quarantined.iter().any(|range| range.segment_base_offset == base)
        {
            return Ok(false);
        }
        let path = segment.path(&self.dir, Kind::Log);
        let file = segment.open(&self.shared, &self.dir, Kind::Log)?;
        file.write_at(batch, segment.size).map_err(|e| LogError::io("write", path, e))?;
        segment.size += batch.len() as u64;
        segment.ends_at = Some(header.next_offset());
        segment.log_dirty = true;
        self.repaired_from = Some(self.repaired_from.map_or(base, |from| from.min(base)));
        Ok(true)
    }

    /// Ends the replay of the journal: where batches were put back, the segments from there on are read once more, so
    /// that indexes, producers and aborted transactions know of them.
    pub fn finish_replay(&mut self, now_ms: i64) -> Result<RecoveryReport, LogError> {
        let mut report = RecoveryReport::default();
        let Some(from) = self.repaired_from.take() else { return Ok(report) };
        let (synced_to, end) = (self.recovery_point, self.log_end_offset);
        self.remove_snapshots(|offset| offset > from)?;
        if let Err(error) = self.recover(from, synced_to, now_ms, &mut report) {
            self.log_end_offset = end;
            return Err(self.go_offline(error));
        }
        self.save_quarantine()?;
        Ok(report)
    }

    /// The last index entry below `from` that the log confirms; the segment's beginning when there is none, or when
    /// another derived file of the segment cannot be trusted.
    fn scan_start(&self, index: usize, segment: &Segment, from: Offset) -> Result<ScanStart, LogError> {
        let beginning = ScanStart { position: 0, offset: segment.base_offset };
        let txns_are_sane = match self.shared.open_once(&segment.path(&self.dir, Kind::TxnIndex), false) {
            Ok(file) => crate::txn_index::read_bytes(&*file).is_ok_and(|bytes| {
                self.txn_sums().agree(segment.base_offset, &bytes) && crate::txn_index::parse(&bytes).1
            }),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound && self.txn_sums().agree(segment.base_offset, &[]),
        };
        let quarantined = self.quarantined.iter().any(|range| range.segment_base_offset == segment.base_offset);
        if from <= segment.base_offset || segment.size == 0 || !txns_are_sane || quarantined {
            return Ok(beginning);
        }
        if !segment.indexes_rise(&self.shared, &self.dir) {
            return Ok(beginning);
        }
        let hint = segment.locate(&self.shared, &self.dir, from - 1)?;
        let Some(last_offset) = hint.last_offset else { return Ok(beginning) };
        let log = Salvaged::new(segment.open(&self.shared, &self.dir, Kind::Log)?);
        let bounds = Bounds { offset_min: segment.base_offset, offset_end: self.segment_end(index) };
        let step = Scanner::new(&log, hint.position, segment.size).peek_checked(bounds);
        match step.map_err(|e| LogError::io("read", segment.path(&self.dir, Kind::Log), e))? {
            Step::Batch(header) if header.last_offset() == last_offset => {
                Ok(ScanStart { position: hint.position, offset: header.base_offset })
            }
            _ => Ok(beginning),
        }
    }

    /// Drops producer snapshots from `offset` on that a crash left unfinished.
    fn remove_damaged_snapshots(&mut self, offset: Offset) -> Result<(), LogError> {
        let is_damaged = |at: &Offset| {
            let path = segment_path(&self.dir, *at, "snapshot");
            let bytes = crate::file::read_small(&path, super::open::SNAPSHOT_BYTES_MAX);
            bytes.is_ok_and(|bytes| bytes.is_some_and(|bytes| crate::producer_state::parse_snapshot(&bytes).is_err()))
        };
        let damaged: Vec<Offset> =
            self.snapshots.iter().copied().filter(|at| *at >= offset && is_damaged(at)).collect();
        self.remove_snapshots(|at| damaged.contains(&at))
    }

    /// Checks a segment's batches and makes its derived files anew; answers where it ends.
    fn scan_segment(
        &mut self,
        index: usize,
        start: ScanStart,
        synced_to: Offset,
        report: &mut RecoveryReport,
    ) -> Result<Offset, LogError> {
        let is_last = index + 1 == self.segments.len();
        let next_base = self.segments.get(index + 1).map(|next| next.base_offset);
        let Some(segment) = self.segments.get_mut(index) else { return Ok(start.offset) };
        let limit = next_base.unwrap_or_else(|| segment.offset_limit());
        let path = segment.path(&self.dir, Kind::Log);
        let io_error = |e| LogError::io("read", &path, e);
        let file = Arc::new(Salvaged::new(segment.open(&self.shared, &self.dir, Kind::Log)?));
        segment.size = file.len().map_err(io_error)?;
        segment.unchecked_below = start.position;
        segment.ends_at = None;
        segment.forget_max_timestamp();
        segment.set_max_timestamp(MaxTimestamp::NONE);
        if start.position == 0 {
            segment.reset_indexes(&self.shared, &self.dir)?;
            report.indexes_rebuilt += 1;
        } else {
            segment.truncate_indexes(&self.shared, &self.dir, start.position, start.offset)?;
            segment.restore_max_timestamp(&self.shared, &self.dir, start.position, start.offset)?;
        }
        self.truncate_txn_index(index, start.offset)?;
        let end = self.segments.get(index).map_or(0, |segment| segment.size);
        let mut scanner = Scanner::new(&*file, start.position, end);
        let mut bounds = Bounds { offset_min: start.offset, offset_end: limit };
        let mut scan =
            Scan { synced_to, is_last, limit, bytes_since_index: 0, after_damage: false, unreadable: false, report };
        loop {
            let step = scanner.peek_checked(bounds).map_err(io_error)?;
            let step = match step {
                Step::Batch(header) => {
                    let vouched = std::mem::take(&mut scan.after_damage);
                    let (expected, gaps) = (bounds.offset_min, self.may_have_gaps());
                    let why = contradicted_gap(&mut scanner, &header, expected, vouched, scan.is_last, gaps);
                    why.map_err(io_error)?.map_or(Step::Batch(header), Step::Bad)
                }
                other => other,
            };
            match step {
                Step::Batch(header) => {
                    self.note_scanned(index, &mut scanner, &header, &mut scan).map_err(io_error)??;
                    bounds.offset_min = header.next_offset();
                    scanner.advance(&header);
                }
                Step::End => {
                    if let Some(segment) = self.segments.get_mut(index) {
                        segment.ends_at = Some(bounds.offset_min);
                    }
                    self.note_missing(index, &mut bounds, scanner.position(), &mut scan);
                    break;
                }
                Step::Bad(mut reason) => {
                    scan.unreadable = file.met_unreadable();
                    if scan.unreadable {
                        reason = format!("{}: {reason}", crate::verify::UNREADABLE);
                    }
                    let go_on =
                        self.handle_damage(index, &*file, scanner.position(), end, &mut bounds, reason, &mut scan)?;
                    match go_on {
                        Some(position) => scanner.seek(position),
                        None => break,
                    }
                }
            }
        }
        scan.report.bytes_scanned += scanner.position().saturating_sub(start.position);
        if let Some(segment) = self.segments.get_mut(index) {
            if !is_last {
                // What is read from here on may come from the disk again: readers check it.
                segment.unchecked_below = segment.size;
            }
            segment.push_time_entry();
            segment.write_indexes(&self.shared, &self.dir)?;
            segment.log_dirty = true;
            segment.index_dirty = true;
        }
        Ok(bounds.offset_min)
    }

    fn note_scanned(
        &mut self,
        index: usize,
        scanner: &mut Scanner<'_>,
        header: &BatchHeader,
        scan: &mut Scan<'_>,
    ) -> std::io::Result<Result<(), LogError>> {
        let interval = u64::from(self.config.index_interval_bytes);
        let position = scanner.position();
        let marker = if header.is_control() { marker_of(header, scanner.bytes(header)?) } else { None };
        let marker = marker.filter(|_| !planted(Bug::MarkerNotReplayed));
        let Some(segment) = self.segments.get_mut(index) else { return Ok(Ok(())) };
        segment.note_timestamp(header);
        if scan.bytes_since_index > interval {
            scan.bytes_since_index = 0;
            if let Err(e) = segment.index_batch(&self.shared, &self.dir, header, position) {
                return Ok(Err(e));
            }
        }
        scan.bytes_since_index += header.size_bytes() as u64;
        self.epochs_mut().assign(header.partition_leader_epoch, header.base_offset);
        if header.has_producer_id() {
            return Ok(self.update_producers(header, marker.as_ref()));
        }
        Ok(Ok(()))
    }

    /// The segment's file ended; names what must have been there.
    fn note_missing(&mut self, index: usize, bounds: &mut Bounds, position: u64, scan: &mut Scan<'_>) {
        let expected = bounds.offset_min;
        let plausible = self
            .segments
            .get(index)
            .is_some_and(|segment| scan.synced_to.saturating_sub(segment.base_offset) <= i64::from(i32::MAX));
        let next = if scan.is_last {
            scan.synced_to
        } else if self.may_have_gaps() {
            expected
        } else {
            scan.limit
        };
        if next <= expected {
            return;
        }
        if scan.is_last && !plausible {
            let note =
                format!("recovery point {} is far above the log end offset {expected}; not used", scan.synced_to);
            scan.report.notes.push(note);
            return;
        }
        self.quarantine(index, position..position, expected..next, "the file ends before".to_owned(), scan);
        bounds.offset_min = next;
    }

    /// Decides about bytes at `position` that are no batch. Answers where to go on, or `None` when nothing is left.
    #[allow(clippy::too_many_arguments)]
    fn handle_damage(
        &mut self,
        index: usize,
        file: &dyn SegmentFile,
        position: u64,
        end: u64,
        bounds: &mut Bounds,
        reason: String,
        scan: &mut Scan<'_>,
    ) -> Result<Option<u64>, LogError> {
        let path = self.segments.get(index).map(|segment| segment.path(&self.dir, Kind::Log)).unwrap_or_default();
        let io_error = |e| LogError::io("read", &path, e);
        let expected = bounds.offset_min;
        // Whatever was there held an offset: a batch behind it that claims the same one is damaged itself.
        let later = Bounds { offset_min: expected.saturating_add(1), ..*bounds };
        let behind = resync(file, position, end, later).map_err(io_error)?;
        if let Resync::Found { position: found, base_offset } = behind {
            self.quarantine(index, position..found, expected..base_offset, reason, scan);
            bounds.offset_min = base_offset;
            scan.after_damage = true;
            return Ok(Some(found));
        }
        let anything = Bounds { offset_min: i64::MIN, offset_end: i64::MAX };
        let whole = Scanner::new(file, position, end).peek_checked(anything).map_err(io_error)?;
        let nothing_valid = behind == Resync::Nothing && !matches!(whole, Step::Batch(_));
        if scan.is_last && expected >= scan.synced_to && nothing_valid && !scan.unreadable {
            if planted(Bug::TornTailKept) {
                return Ok(None);
            }
            file.set_len(position).map_err(|e| LogError::io("truncate", &path, e))?;
            if let Some(segment) = self.segments.get_mut(index) {
                segment.size = position;
            }
            scan.report.truncated_bytes += end - position;
            scan.report.truncated_from_offset.get_or_insert(expected);
            return Ok(None);
        }
        // At the log's end nobody knows how many offsets were there: at least one.
        let next = if scan.is_last { scan.synced_to.max(expected + 1) } else { scan.limit };
        self.quarantine(index, position..end, expected..next, reason, scan);
        bounds.offset_min = next;
        Ok(None)
    }

    fn quarantine(
        &mut self,
        index: usize,
        positions: std::ops::Range<u64>,
        offsets: std::ops::Range<Offset>,
        reason: String,
        scan: &mut Scan<'_>,
    ) {
        let range = QuarantinedRange {
            segment_base_offset: self.segments.get(index).map_or(0, |segment| segment.base_offset),
            start_position: positions.start,
            end_position: positions.end,
            first_offset: offsets.start,
            next_valid_offset: offsets.end,
            reason,
        };
        tracing::error!(log = %self.topic_partition, ?range, "damaged records are kept on disk and not served");
        scan.report.quarantined.push(range.clone());
        self.quarantined.push(range);
    }

    /// Keeps the aborted transactions whose marker lies before `offset`.
    pub(super) fn truncate_txn_index(&mut self, index: usize, offset: Offset) -> Result<(), LogError> {
        let Some(segment) = self.segments.get_mut(index) else { return Ok(()) };
        segment.txn_dirty = true;
        segment.txn_own = true;
        let path = segment.path(&self.dir, Kind::TxnIndex);
        let io_error = |e| LogError::io("truncate", &path, e);
        let file = match self.shared.open_once(&path, false) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io_error(e)),
        };
        let (txns, _) = crate::txn_index::read(&*file).map_err(io_error)?;
        let keep = txns.iter().take_while(|txn| txn.last_offset < offset).count();
        if keep == 0 {
            return remove_if_exists(&path).map_err(io_error);
        }
        file.set_len((keep * crate::txn_index::ENTRY_BYTES) as u64).map_err(io_error)
    }

    fn finish_recovery(
        &mut self,
        end: Offset,
        now_ms: i64,
        quarantined_before: usize,
        report: &mut RecoveryReport,
    ) -> Result<(), LogError> {
        self.dir_dirty = true;
        self.epochs_mut().truncate_from_end(end);
        for offset in self.snapshots.iter().filter(|offset| **offset > end) {
            let path = segment_path(&self.dir, *offset, "snapshot");
            remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
        }
        self.snapshots.retain(|offset| *offset <= end);
        if quarantined_before > 0 || !self.quarantined.is_empty() {
            self.save_quarantine()?;
        }
        let base = self.active_segment().base_offset;
        if self.quarantined.iter().any(|range| range.segment_base_offset == base) {
            // Nothing is written behind damage: the segment is sealed as it is.
            self.roll_at(end, now_ms)?;
            report.notes.push(format!("segment {base} is damaged; a new one begins at offset {end}"));
        }
        Ok(())
    }
}
