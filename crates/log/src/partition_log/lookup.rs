//! Lookups by time, and the aborted transactions that a reader must know of.

use bytes::Bytes;
use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::{BatchHeader, RecordIter};

use super::PartitionLog;
use super::types::{AbortedTxn, Offset, OffsetForTimestamp, TimestampQuery};
use crate::error::{LogError, ReadError};
use crate::file::SegmentFile;
use crate::producer_state::{ProducerState, marker_of};
use crate::scan::{Bounds, Scanner, Step};
use crate::segment::{Kind, MaxTimestamp, Segment};

impl PartitionLog {
    /// What ListOffsets answers; `None` when no record qualifies. `Latest` is the log end offset: what a client may see
    /// of it (high watermark, last stable offset) is the caller's to say.
    pub fn offset_for_timestamp(&self, query: TimestampQuery) -> Result<Option<OffsetForTimestamp>, ReadError> {
        self.check_online()?;
        let special = |offset, leader_epoch: Option<i32>| {
            Ok(Some(OffsetForTimestamp { offset, timestamp_ms: -1, leader_epoch: leader_epoch.unwrap_or(-1) }))
        };
        match query {
            TimestampQuery::Earliest => special(self.log_start_offset, self.epoch_for_offset(self.log_start_offset)),
            TimestampQuery::EarliestLocal => {
                let offset = self.local_log_start_offset();
                special(offset, self.epoch_for_offset(offset))
            }
            TimestampQuery::Latest => special(self.log_end_offset, self.latest_leader_epoch()),
            TimestampQuery::LatestTiered if self.is_tiered() && self.copied_to > 0 => {
                special(self.copied_to - 1, self.epoch_for_offset(self.copied_to - 1))
            }
            TimestampQuery::LatestTiered => special(-1, None),
            TimestampQuery::EarliestPendingUpload if self.is_tiered() => {
                let offset = self.copied_to.max(self.local_log_start_offset());
                special(offset, self.epoch_for_offset(offset))
            }
            TimestampQuery::EarliestPendingUpload => special(-1, None),
            TimestampQuery::MaxTimestamp => self.record_with_max_timestamp(),
            TimestampQuery::At(timestamp) => self.first_record_at_or_after(timestamp),
        }
    }

    fn max_timestamp_of(&self, index: usize, segment: &Segment) -> Result<MaxTimestamp, LogError> {
        segment.max_timestamp(&self.shared, &self.dir, self.segment_end(index))
    }

    fn record_with_max_timestamp(&self) -> Result<Option<OffsetForTimestamp>, ReadError> {
        let mut best: Option<(usize, MaxTimestamp)> = None;
        for (i, segment) in self.segments.iter().enumerate() {
            let max = self.max_timestamp_of(i, segment)?;
            if max.offset >= 0 && best.is_none_or(|(_, known)| known.timestamp < max.timestamp) {
                best = Some((i, max));
            }
        }
        let Some((index, max)) = best else { return Ok(None) };
        let Some(segment) = self.segments.get(index) else { return Ok(None) };
        let hint = segment.locate(&self.shared, &self.dir, max.offset)?;
        self.first_record(index, segment, hint.position, max.timestamp)
    }

    fn first_record_at_or_after(&self, timestamp: i64) -> Result<Option<OffsetForTimestamp>, ReadError> {
        for (i, segment) in self.segments.iter().enumerate() {
            if self.max_timestamp_of(i, segment)?.timestamp < timestamp {
                continue;
            }
            let position = segment.locate_timestamp(&self.shared, &self.dir, timestamp, self.segment_end(i))?;
            if let Some(found) = self.first_record(i, segment, position, timestamp)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record of a segment, from `position` on, with a timestamp of at least `timestamp`.
    fn first_record(
        &self,
        index: usize,
        segment: &Segment,
        position: u64,
        timestamp: i64,
    ) -> Result<Option<OffsetForTimestamp>, ReadError> {
        let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
        let io_error = |e| LogError::io("read", segment.path(&self.dir, Kind::Log), e);
        let mut from = position;
        loop {
            let found = segment.walk(&*log, from, self.segment_end(index), |header, _| {
                header.max_timestamp >= timestamp && header.last_offset() >= self.log_start_offset
            });
            let Some((header, at)) = found.map_err(io_error)? else { return Ok(None) };
            let batch = read_batch(&*log, &header, at).map_err(io_error)?;
            if let Some((offset, timestamp_ms)) = self.record_in(&header, batch, timestamp)? {
                let leader_epoch = header.partition_leader_epoch;
                return Ok(Some(OffsetForTimestamp { offset, timestamp_ms, leader_epoch }));
            }
            from = at + header.size_bytes() as u64;
        }
    }

    fn record_in(
        &self,
        header: &BatchHeader,
        batch: Bytes,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let corrupt = || ReadError::CorruptRecord {
            log: self.topic_partition.to_string(),
            first: header.base_offset,
            next_valid: header.next_offset(),
        };
        taccola_wire::batch::verify_crc(&batch).map_err(|_| corrupt())?;
        for record in RecordIter::new(&batch).map_err(|_| corrupt())? {
            let record = record.map_err(|_| corrupt())?;
            let late_enough = record.timestamp >= timestamp + i64::from(planted(Bug::TimeLookupOffByOne));
            if late_enough && record.offset >= self.log_start_offset {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
        Ok(None)
    }

    /// Transactions aborted that touch `first..upper_bound`, sorted by first offset.
    pub fn aborted_txns(&self, first: Offset, upper_bound: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        self.check_online()?;
        let mut found = Vec::new();
        for (i, segment) in self.segments.iter().enumerate().skip(self.segment_index(first)) {
            let txns = self.txns_of(i, segment)?;
            // Nothing behind a marker that was written when all before the bound was stable can concern the reader.
            let complete = txns.iter().any(|txn| txn.last_stable_offset >= upper_bound);
            found.extend(txns.into_iter().filter(|txn| txn.last_offset >= first && txn.first_offset < upper_bound));
            if complete {
                break;
            }
        }
        found.sort_unstable_by_key(|txn| (txn.first_offset, txn.last_offset));
        Ok(found)
    }

    pub(super) fn txns_of(&self, index: usize, segment: &Segment) -> Result<Vec<AbortedTxn>, LogError> {
        if segment.txn_suspect.load(std::sync::atomic::Ordering::Relaxed) {
            return self.replay_aborted(segment.base_offset, self.segment_end(index));
        }
        let path = segment.path(&self.dir, Kind::TxnIndex);
        let io_error = |e| LogError::io("read", &path, e);
        let bytes = match self.shared.open_once(&path, false) {
            Ok(file) => match crate::txn_index::read_bytes(&*file) {
                Err(e) if crate::salvage::is_unreadable(&e) => None,
                read => Some(read.map_err(io_error)?),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(Vec::new()),
            Err(e) => return Err(io_error(e)),
        };
        let range = segment.base_offset..self.segment_end(index);
        if let Some(bytes) = bytes.filter(|bytes| {
            // Of most segments nothing is known and nothing is there.
            segment.txn_own || self.txn_sums().agree(segment.base_offset, bytes)
        }) {
            let (txns, sane) = crate::txn_index::parse(&bytes);
            if sane && txns.iter().all(|txn| range.contains(&txn.last_offset)) {
                return Ok(txns);
            }
        }
        if !segment.txn_suspect.swap(true, std::sync::atomic::Ordering::Relaxed) {
            tracing::warn!(path = %path.display(), "transaction index is damaged; reading the log instead");
        }
        self.replay_aborted(segment.base_offset, range.end)
    }

    /// Where the first segment begins whose transaction index is not what its batches say.
    pub(super) fn first_suspect_txn_index(&self) -> Option<Offset> {
        let is_suspect = |segment: &&Segment| segment.txn_suspect.load(std::sync::atomic::Ordering::Relaxed);
        self.segments.iter().find(is_suspect).map(|segment| segment.base_offset)
    }

    /// Makes a transaction index anew that readers found wrong, or that found no room.
    pub(super) fn rebuild_suspect_txn_indexes(&mut self) -> Result<(), LogError> {
        for index in 0..self.segments.len() {
            let end = self.segment_end(index);
            let Some(segment) = self.segments.get(index) else { break };
            if !segment.txn_suspect.load(std::sync::atomic::Ordering::Relaxed) {
                continue;
            }
            let txns = self.replay_aborted(segment.base_offset, end)?;
            let path = segment.path(&self.dir, Kind::TxnIndex);
            let bytes: Vec<u8> = txns.iter().flat_map(crate::txn_index::encode).collect();
            // A crash in between leaves less than its sum says, and is found out by that.
            let write = || {
                let file = self.shared.open_once(&path, true)?;
                file.set_len(0)?;
                file.write_at(&bytes, 0)
            };
            write().map_err(|e| LogError::io("write", &path, e))?;
            tracing::warn!(path = %path.display(), entries = txns.len(), "transaction index made anew");
            if let Some(segment) = self.segments.get_mut(index) {
                segment.txn_suspect.store(false, std::sync::atomic::Ordering::Relaxed);
                (segment.txn_own, segment.txn_dirty) = (true, true);
                self.dir_dirty = true;
            }
        }
        Ok(())
    }

    /// The aborted transactions with a marker in `from..to`, out of the batches themselves.
    fn replay_aborted(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTxn>, LogError> {
        let mut state = self.load_producers(from);
        let mut aborted = Vec::new();
        self.replay_into(&mut state, from, to, &mut |txn| aborted.push(txn))?;
        Ok(aborted)
    }

    /// Feeds the headers of `from..to` to a producer state; `aborted` gets each aborted transaction that ends in it.
    pub(super) fn replay_into(
        &self,
        state: &mut ProducerState,
        from: Offset,
        to: Offset,
        aborted: &mut dyn FnMut(AbortedTxn),
    ) -> Result<(), LogError> {
        for (i, segment) in self.segments.iter().enumerate().skip(self.segment_index(from)) {
            if segment.base_offset >= to {
                break;
            }
            if segment.size == 0 {
                continue;
            }
            let end = self.segment_end(i).max(segment.base_offset);
            let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
            let start = segment.locate(&self.shared, &self.dir, from)?;
            let replay = |position: u64,
                          entry: Option<Offset>,
                          state: &mut ProducerState,
                          aborted: &mut dyn FnMut(AbortedTxn)| {
                replay_file(&*log, position..segment.size, entry, segment.base_offset..end, from..to, state, aborted)
            };
            let path = || segment.path(&self.dir, Kind::Log);
            let io_error = |e| LogError::io("read", path(), e);
            if !replay(start.position, start.last_offset, state, aborted).map_err(io_error)? {
                replay(0, None, state, aborted).map_err(io_error)?;
            }
        }
        Ok(())
    }

    /// The producers as of `end`: the latest good snapshot at or before it, and the batches behind that. What cannot be
    /// read is left out, as Kafka leaves out what it lost.
    pub(super) fn load_producers(&self, end: Offset) -> ProducerState {
        let (mut state, from) = self.load_snapshot(end);
        if from < end
            && let Err(error) = self.replay_into(&mut state, from, end, &mut |_| {})
        {
            tracing::error!(log = %self.topic_partition, %error, "producers not read in full");
        }
        state.high_watermark_moved(self.high_watermark);
        state
    }

    /// The latest good snapshot at or before `end`, and its offset; nothing and the log's start when there is none.
    pub(super) fn load_snapshot(&self, end: Offset) -> (ProducerState, Offset) {
        let expiration_ms = self.config.producer_id_expiration_ms;
        let first = self.segments.first().map_or(0, |segment| segment.base_offset);
        for offset in self.snapshots.iter().rev().copied().filter(|offset| *offset <= end && *offset >= first) {
            let path = crate::segment::segment_path(&self.dir, offset, "snapshot");
            let state = match crate::file::read_small(&path, super::open::SNAPSHOT_BYTES_MAX) {
                Ok(Some(bytes)) => ProducerState::decode_snapshot(&bytes, self.opened_ms, expiration_ms),
                Ok(None) => continue,
                Err(error) => Err(error.to_string()),
            };
            match state {
                Ok(state) => return (state, offset),
                Err(reason) => {
                    tracing::warn!(path = %path.display(), %reason, "producer snapshot is not used");
                }
            }
        }
        (ProducerState::default(), first.min(end))
    }
}

fn read_batch(log: &dyn SegmentFile, header: &BatchHeader, position: u64) -> std::io::Result<Bytes> {
    let mut batch = Vec::new();
    log.read_onto(&mut batch, position, header.size_bytes())?;
    Ok(Bytes::from(batch))
}

/// One segment's part of [`PartitionLog::replay_into`]; false when the index entry did not lead to its batch, and nothing
/// was done. Bytes that are no batch end the walk.
fn replay_file(
    log: &dyn SegmentFile,
    positions: std::ops::Range<u64>,
    entry: Option<Offset>,
    possible: std::ops::Range<Offset>,
    wanted: std::ops::Range<Offset>,
    state: &mut ProducerState,
    aborted: &mut dyn FnMut(AbortedTxn),
) -> std::io::Result<bool> {
    let mut scanner = Scanner::new(log, positions.start, positions.end);
    let mut bounds = Bounds { offset_min: possible.start, offset_end: possible.end };
    let mut first = true;
    loop {
        let header = match scanner.peek(bounds)? {
            Step::Batch(header) => header,
            _ => return Ok(!(first && entry.is_some())),
        };
        if std::mem::take(&mut first) && entry.is_some_and(|last| last != header.last_offset()) {
            return Ok(false);
        }
        if header.base_offset >= wanted.end {
            return Ok(true);
        }
        if header.has_producer_id() && header.base_offset >= wanted.start {
            let marker = if header.is_control() { marker_of(&header, scanner.bytes(&header)?) } else { None };
            if let Some(txn) = state.update(&header, marker.as_ref()) {
                let last_stable_offset = state.stable_offset_at(&txn);
                state.complete(&txn);
                if !txn.commit {
                    let (producer_id, first_offset, last_offset) = (txn.producer_id, txn.first_offset, txn.last_offset);
                    aborted(AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset });
                }
            }
        }
        bounds.offset_min = header.next_offset();
        scanner.advance(&header);
    }
}
