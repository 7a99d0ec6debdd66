//! One segment: its files, its indexes, and what is known about it. Answers to Kafka's `LogSegment`.
//!
//! A segment that nobody uses holds no file open and has read none of its files. Offsets inside are relative to
//! `base_offset` and fit 31 bits; positions fit 32.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::BatchHeader;

use crate::error::LogError;
use crate::file::SegmentFile;
use crate::index::{IndexTable, OffsetEntry, TimeEntry, parse_offset_index, parse_time_index};
use crate::scan::{Bounds, Scanner, Step};
use crate::shared::{HandleSlot, LogShared};

/// The files of a segment, by suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    OffsetIndex,
    TimeIndex,
    TxnIndex,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Log, Kind::OffsetIndex, Kind::TimeIndex, Kind::TxnIndex];

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::OffsetIndex => "index",
            Kind::TimeIndex => "timeindex",
            Kind::TxnIndex => "txnindex",
        }
    }
}

pub(crate) fn segment_path(dir: &Path, base_offset: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}.{suffix}"))
}

/// The largest timestamp of a segment and the last offset of the first batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaxTimestamp {
    pub timestamp: i64,
    pub offset: i64,
}

impl MaxTimestamp {
    pub(crate) const NONE: Self = Self { timestamp: -1, offset: -1 };
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    /// Bytes of whole batches; the file may be longer (preallocation, a torn write).
    pub(crate) size: u64,
    /// Below this position nothing was checked or written by this process; readers check what they get.
    pub(crate) unchecked_below: u64,
    /// An index entry did not lead where it said; the index is made anew at the next chance.
    pub(crate) index_suspect: Arc<AtomicBool>,
    /// Files with content that the disk may not have yet.
    pub(crate) log_dirty: bool,
    pub(crate) index_dirty: bool,
    pub(crate) txn_dirty: bool,
    /// The transaction index was written by this process, so that what is known of it from before says nothing.
    pub(crate) txn_own: bool,
    /// The transaction index is not what it was; it is made anew at the next chance.
    pub(crate) txn_suspect: AtomicBool,
    log: Arc<HandleSlot>,
    offset_index_slot: Arc<HandleSlot>,
    time_index_slot: Arc<HandleSlot>,
    offset_index: IndexTable<OffsetEntry>,
    time_index: IndexTable<TimeEntry>,
    /// Entries of the offset index and the last timestamp of the time index (-1: none). Right for a segment made by this
    /// process and after [`Segment::load_for_append`].
    index_entries: u32,
    last_time_entry: i64,
    /// The offset behind the last batch, where recovery read the segment to its end.
    pub(crate) ends_at: Option<i64>,
    /// Set once known; kept up by appends.
    max_timestamp: OnceLock<MaxTimestamp>,
}

/// Where to begin looking for an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub position: u64,
    /// The batch at `position` must end with this offset, if the index is right.
    pub last_offset: Option<i64>,
    /// Position of the next index entry, at or before which the offset's batch begins.
    pub next_position: Option<u64>,
}

impl Segment {
    /// A segment without a batch; leftovers in its files are cut off as they are opened.
    pub(crate) fn new_empty(base_offset: i64) -> Self {
        Self {
            offset_index: IndexTable::empty(),
            time_index: IndexTable::empty(),
            max_timestamp: OnceLock::from(MaxTimestamp::NONE),
            ..Self::existing(base_offset, 0)
        }
    }

    /// A segment whose file has `size` bytes, of which nothing is read yet.
    pub(crate) fn existing(base_offset: i64, size: u64) -> Self {
        Self {
            base_offset,
            size,
            unchecked_below: size,
            index_suspect: Arc::default(),
            log_dirty: false,
            index_dirty: false,
            txn_dirty: false,
            txn_own: false,
            txn_suspect: AtomicBool::new(false),
            log: Arc::default(),
            offset_index_slot: Arc::default(),
            time_index_slot: Arc::default(),
            offset_index: IndexTable::default(),
            time_index: IndexTable::default(),
            index_entries: 0,
            last_time_entry: -1,
            ends_at: None,
            max_timestamp: OnceLock::new(),
        }
    }

    pub(crate) fn path(&self, dir: &Path, kind: Kind) -> PathBuf {
        segment_path(dir, self.base_offset, kind.suffix())
    }

    /// The file, opened if it is not; all but the log's are made if they are not there.
    pub(crate) fn open(&self, shared: &LogShared, dir: &Path, kind: Kind) -> Result<Arc<dyn SegmentFile>, LogError> {
        let path = || self.path(dir, kind);
        let opened = match kind {
            Kind::Log => shared.handle(&self.log, false, path),
            Kind::OffsetIndex => shared.handle(&self.offset_index_slot, true, path),
            Kind::TimeIndex => shared.handle(&self.time_index_slot, true, path),
            Kind::TxnIndex => shared.open_once(&path(), true),
        };
        opened.map_err(|e| LogError::io("open", path(), e))
    }

    /// Makes the empty `.log`, cutting off what a file of that name holds.
    pub(crate) fn create_files(&self, shared: &LogShared, dir: &Path) -> Result<(), LogError> {
        for kind in [Kind::Log, Kind::OffsetIndex, Kind::TimeIndex] {
            let path = self.path(dir, kind);
            let slot = match kind {
                Kind::OffsetIndex => &self.offset_index_slot,
                Kind::TimeIndex => &self.time_index_slot,
                _ => &self.log,
            };
            let file = shared.handle(slot, true, || path.clone()).map_err(|e| LogError::io("create", &path, e))?;
            if !file.is_empty().map_err(|e| LogError::io("stat", &path, e))? {
                file.set_len(0).map_err(|e| LogError::io("truncate", &path, e))?;
            }
        }
        self.close_handles_of(shared, &[Kind::OffsetIndex, Kind::TimeIndex]);
        crate::file::remove_if_exists(&self.path(dir, Kind::TxnIndex))
            .map_err(|e| LogError::io("remove", self.path(dir, Kind::TxnIndex), e))
    }

    pub(crate) fn close_handles(&self, shared: &LogShared) {
        self.close_handles_of(shared, &Kind::ALL);
    }

    fn close_handles_of(&self, shared: &LogShared, kinds: &[Kind]) {
        for kind in kinds {
            match kind {
                Kind::Log => shared.close(&self.log),
                Kind::OffsetIndex => shared.close(&self.offset_index_slot),
                Kind::TimeIndex => shared.close(&self.time_index_slot),
                Kind::TxnIndex => {}
            }
        }
    }

    /// No batch of the segment ends at or behind this offset: offsets in its indexes are relative to its base.
    pub(crate) fn offset_limit(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(i32::MAX) + 1)
    }

    fn relative(&self, offset: i64) -> u32 {
        u32::try_from(offset.saturating_sub(self.base_offset)).unwrap_or(0)
    }

    // -- offset index ------------------------------------------------------------------------------------------------

    /// Where the batch with `offset` begins, or a little before.
    pub(crate) fn locate(&self, shared: &LogShared, dir: &Path, offset: i64) -> Result<Hint, LogError> {
        let from_start = Hint { position: 0, last_offset: None, next_position: None };
        if self.index_suspect.load(Ordering::Relaxed) || self.size == 0 {
            return Ok(from_start);
        }
        let target = offset.saturating_sub(self.base_offset).clamp(0, i64::from(u32::MAX)) as u32;
        let found = self.open(shared, dir, Kind::OffsetIndex).and_then(|file| {
            let found = self.offset_index.last_where(&*file, |entry| entry.relative_offset <= target);
            found.map_err(|e| LogError::io("read", self.path(dir, Kind::OffsetIndex), e))
        });
        let (entry, next) = match found {
            Ok(found) => found,
            Err(error) => {
                // The log is the truth: without its index it is only slower to search.
                tracing::warn!(%error, "an index that cannot be read is not used");
                self.index_suspect.store(true, Ordering::Relaxed);
                return Ok(from_start);
            }
        };
        let begin = entry.map_or(0, |entry| u64::from(entry.position));
        let next_position = next.map(|next| u64::from(next.position));
        let next_position = next_position.filter(|position| (begin + 1..self.size).contains(position));
        Ok(match entry {
            Some(entry) if u64::from(entry.position) < self.size => Hint {
                position: u64::from(entry.position),
                last_offset: Some(self.base_offset + i64::from(entry.relative_offset)),
                next_position,
            },
            Some(_) => from_start,
            None => Hint { next_position, ..from_start },
        })
    }

    /// The last entry of the offset index: `(last offset of the batch, its position)`.
    pub(crate) fn last_index_entry(&self, shared: &LogShared, dir: &Path) -> Result<Option<(i64, u64)>, LogError> {
        let file = self.open(shared, dir, Kind::OffsetIndex)?;
        let last =
            self.offset_index.last(&*file).map_err(|e| LogError::io("read", self.path(dir, Kind::OffsetIndex), e))?;
        Ok(last.map(|entry| (self.base_offset + i64::from(entry.relative_offset), u64::from(entry.position))))
    }

    /// Whether both indexes can be read, and rise from entry to entry, as no torn one does.
    pub(crate) fn indexes_rise(&self, shared: &LogShared, dir: &Path) -> bool {
        let bytes_of = |kind| {
            let file = self.open(shared, dir, kind).ok()?;
            let (mut bytes, length) = (Vec::new(), file.len().ok()?);
            // An index is bounded by its segment, whose length a u32 holds.
            file.read_onto(&mut bytes, 0, usize::try_from(length).ok()?).ok().map(|()| bytes)
        };
        // The first batch has no entry in the offset index, and a time of zero is what a hole in a file looks like.
        let offsets = bytes_of(Kind::OffsetIndex).is_some_and(|bytes| {
            let entries = parse_offset_index(&bytes);
            entries.len() * 8 == bytes.len() && entries.first().is_none_or(|(_, position)| *position > 0)
        });
        offsets
            && bytes_of(Kind::TimeIndex).is_some_and(|bytes| {
                let entries = parse_time_index(&bytes);
                entries.len() * 12 == bytes.len() && entries.first().is_none_or(|(timestamp, _)| *timestamp > 0)
            })
    }

    /// Reads what an append must know of the indexes.
    pub(crate) fn load_for_append(&mut self, shared: &LogShared, dir: &Path) -> Result<(), LogError> {
        let file = self.open(shared, dir, Kind::OffsetIndex)?;
        let path = || self.path(dir, Kind::OffsetIndex);
        let entries = self.offset_index.count(&*file).map_err(|e| LogError::io("stat", path(), e))?;
        let file = self.open(shared, dir, Kind::TimeIndex)?;
        let path = || self.path(dir, Kind::TimeIndex);
        let last = self.time_index.last(&*file).map_err(|e| LogError::io("read", path(), e))?;
        self.index_entries = entries;
        self.last_time_entry = last.map_or(-1, |last| last.timestamp);
        Ok(())
    }

    /// Whether one of the indexes has as many entries as `segment.index.bytes` allows.
    pub(crate) fn index_is_full(&self, index_bytes: u32) -> bool {
        // The time index never has more entries than the offset index, but its entries are larger, and the last place
        // is kept for the entry that is written when the segment rolls.
        self.index_entries >= index_bytes / 8 || self.index_entries.saturating_add(1) >= index_bytes / 12
    }

    /// Adds index entries for a batch at `position`.
    pub(crate) fn index_batch(
        &mut self,
        shared: &LogShared,
        dir: &Path,
        header: &BatchHeader,
        position: u64,
    ) -> Result<(), LogError> {
        let relative_offset = self.relative(header.last_offset()) + u32::from(planted(Bug::OffsetIndexWrong));
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        self.index_dirty = true;
        self.index_entries = self.index_entries.saturating_add(1);
        let full = self.offset_index.push(OffsetEntry { relative_offset, position });
        self.push_time_entry();
        if full { self.write_indexes(shared, dir) } else { Ok(()) }
    }

    /// Notes the segment's largest timestamp in the time index, if it rose since the last entry.
    pub(crate) fn push_time_entry(&mut self) {
        let max = self.max_timestamp.get().copied().unwrap_or(MaxTimestamp::NONE);
        if max.offset >= 0 && self.last_time_entry < max.timestamp {
            self.last_time_entry = max.timestamp;
            self.index_dirty = true;
            let relative_offset = self.relative(max.offset);
            let timestamp = max.timestamp - i64::from(planted(Bug::TimeIndexOffByOne));
            self.time_index.push(TimeEntry { timestamp, relative_offset });
        }
    }

    /// Writes the indexes' entries in memory to their files.
    pub(crate) fn write_indexes(&mut self, shared: &LogShared, dir: &Path) -> Result<(), LogError> {
        if self.offset_index.has_tail() {
            let file = self.open(shared, dir, Kind::OffsetIndex)?;
            let path = self.path(dir, Kind::OffsetIndex);
            self.offset_index.write_tail(&*file).map_err(|e| LogError::io("write", path, e))?;
        }
        if self.time_index.has_tail() {
            let file = self.open(shared, dir, Kind::TimeIndex)?;
            let path = self.path(dir, Kind::TimeIndex);
            self.time_index.write_tail(&*file).map_err(|e| LogError::io("write", path, e))?;
        }
        Ok(())
    }

    /// Drops index entries for positions at or behind `position`, and time entries at or behind `offset`.
    pub(crate) fn truncate_indexes(
        &mut self,
        shared: &LogShared,
        dir: &Path,
        position: u64,
        offset: i64,
    ) -> Result<(), LogError> {
        self.index_dirty = true;
        let file = self.open(shared, dir, Kind::OffsetIndex)?;
        let path = self.path(dir, Kind::OffsetIndex);
        self.offset_index
            .truncate_where(&*file, |entry| u64::from(entry.position) < position)
            .map_err(|e| LogError::io("truncate", path, e))?;
        let file = self.open(shared, dir, Kind::TimeIndex)?;
        let path = self.path(dir, Kind::TimeIndex);
        let relative = offset.saturating_sub(self.base_offset);
        self.time_index
            .truncate_where(&*file, |entry| i64::from(entry.relative_offset) < relative)
            .map_err(|e| LogError::io("truncate", path, e))?;
        self.load_for_append(shared, dir)
    }

    /// Empties both indexes, in memory and on disk.
    pub(crate) fn reset_indexes(&mut self, shared: &LogShared, dir: &Path) -> Result<(), LogError> {
        self.offset_index = IndexTable::empty();
        self.time_index = IndexTable::empty();
        self.index_entries = 0;
        self.last_time_entry = -1;
        self.index_suspect.store(false, Ordering::Relaxed);
        self.index_dirty = true;
        for kind in [Kind::OffsetIndex, Kind::TimeIndex] {
            let file = self.open(shared, dir, kind)?;
            file.set_len(0).map_err(|e| LogError::io("truncate", self.path(dir, kind), e))?;
        }
        Ok(())
    }

    /// Makes both indexes anew from the headers. Stops at bytes that are no batch.
    pub(crate) fn rebuild_indexes(
        &mut self,
        shared: &LogShared,
        dir: &Path,
        end_offset: i64,
        interval: u64,
    ) -> Result<(), LogError> {
        self.reset_indexes(shared, dir)?;
        self.set_max_timestamp(MaxTimestamp::NONE);
        let log = self.open(shared, dir, Kind::Log)?;
        let mut batches = Vec::new();
        let mut since = 0;
        self.walk(&*log, 0, end_offset, |header, position| {
            let indexed = since > interval;
            since = if indexed { 0 } else { since } + header.size_bytes() as u64;
            batches.push((*header, position, indexed));
            false
        })
        .map_err(|e| LogError::io("read", self.path(dir, Kind::Log), e))?;
        for (header, position, indexed) in batches {
            self.note_timestamp(&header);
            if indexed {
                self.index_batch(shared, dir, &header, position)?;
            }
        }
        self.push_time_entry();
        self.write_indexes(shared, dir)
    }

    /// The largest timestamp before `position`, where the batch at `offset` begins: from the last entry of the time index,
    /// which a crash may have cut short, and from the batches behind that.
    pub(crate) fn restore_max_timestamp(
        &mut self,
        shared: &LogShared,
        dir: &Path,
        position: u64,
        offset: i64,
    ) -> Result<(), LogError> {
        let file = self.open(shared, dir, Kind::TimeIndex)?;
        let io_error = |op, e| LogError::io(op, segment_path(dir, self.base_offset, Kind::TimeIndex.suffix()), e);
        let mut from = 0;
        if let Some(last) = self.time_index.last(&*file).map_err(|e| io_error("read", e))? {
            let named = self.base_offset + i64::from(last.relative_offset);
            match self.batch_of_time_entry(shared, dir, named, last.timestamp, offset)? {
                Some(at) => {
                    from = at;
                    self.set_max_timestamp(MaxTimestamp { timestamp: last.timestamp, offset: named });
                }
                None => {
                    self.time_index.truncate_where(&*file, |_| false).map_err(|e| io_error("truncate", e))?;
                    self.last_time_entry = -1;
                }
            }
        }
        let log = self.open(shared, dir, Kind::Log)?;
        let mut max = self.max_timestamp.get().copied().unwrap_or(MaxTimestamp::NONE);
        let noted = self.walk(&*log, from, offset, |header, at| {
            if at < position && header.max_timestamp > max.timestamp {
                max = MaxTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() };
            }
            at >= position
        });
        noted.map_err(|e| LogError::io("read", self.path(dir, Kind::Log), e))?;
        self.set_max_timestamp(max);
        Ok(())
    }

    // -- timestamps --------------------------------------------------------------------------------------------------

    pub(crate) fn set_max_timestamp(&mut self, max: MaxTimestamp) {
        self.max_timestamp = OnceLock::from(max);
    }

    pub(crate) fn forget_max_timestamp(&mut self) {
        self.max_timestamp = OnceLock::new();
    }

    /// Raises the largest timestamp by a batch.
    pub(crate) fn note_timestamp(&mut self, header: &BatchHeader) {
        let known = self.max_timestamp.get().copied().unwrap_or(MaxTimestamp::NONE);
        if header.max_timestamp > known.timestamp {
            self.set_max_timestamp(MaxTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() });
        } else if self.max_timestamp.get().is_none() {
            self.set_max_timestamp(known);
        }
    }

    /// The largest timestamp, from the time index if it is not known yet: its last entry is written when a segment rolls
    /// or closes. An entry that cannot be (behind the segment, or with no batch of that timestamp) is not believed: then
    /// the headers are walked.
    pub(crate) fn max_timestamp(
        &self,
        shared: &LogShared,
        dir: &Path,
        end_offset: i64,
    ) -> Result<MaxTimestamp, LogError> {
        if let Some(max) = self.max_timestamp.get() {
            return Ok(*max);
        }
        let max = match self.max_from_index(shared, dir, end_offset) {
            Ok(Some(max)) => max,
            Err(error) if !error.is_unreadable() => return Err(error),
            Ok(None) | Err(_) => self.max_from_headers(shared, dir, end_offset)?,
        };
        Ok(*self.max_timestamp.get_or_init(|| max))
    }

    fn max_from_index(&self, shared: &LogShared, dir: &Path, end: i64) -> Result<Option<MaxTimestamp>, LogError> {
        let file = self.open(shared, dir, Kind::TimeIndex)?;
        let last =
            self.time_index.last(&*file).map_err(|e| LogError::io("read", self.path(dir, Kind::TimeIndex), e))?;
        let Some(last) = last else { return Ok(None) };
        let offset = self.base_offset + i64::from(last.relative_offset);
        if offset >= end {
            return Ok(None);
        }
        let named = self.batch_of_time_entry(shared, dir, offset, last.timestamp, end)?;
        Ok(named.map(|_| MaxTimestamp { timestamp: last.timestamp, offset }))
    }

    fn max_from_headers(&self, shared: &LogShared, dir: &Path, end_offset: i64) -> Result<MaxTimestamp, LogError> {
        let log = self.open(shared, dir, Kind::Log)?;
        let mut max = MaxTimestamp::NONE;
        self.walk(&*log, 0, end_offset, |header, _| {
            if header.max_timestamp > max.timestamp {
                max = MaxTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() };
            }
            false
        })
        .map_err(|e| LogError::io("read", self.path(dir, Kind::Log), e))?;
        Ok(max)
    }

    /// Where to begin looking for the first record with a timestamp of at least `timestamp`. `end_offset` is where the
    /// segment ends, exclusive.
    pub(crate) fn locate_timestamp(
        &self,
        shared: &LogShared,
        dir: &Path,
        timestamp: i64,
        end_offset: i64,
    ) -> Result<u64, LogError> {
        let file = self.open(shared, dir, Kind::TimeIndex)?;
        let (entry, _) = self
            .time_index
            .last_where(&*file, |entry| entry.timestamp < timestamp)
            .map_err(|e| LogError::io("read", self.path(dir, Kind::TimeIndex), e))?;
        let Some(entry) = entry else { return Ok(0) };
        let offset = self.base_offset + i64::from(entry.relative_offset);
        Ok(self.batch_of_time_entry(shared, dir, offset, entry.timestamp, end_offset)?.unwrap_or(0))
    }

    /// Position of the batch that a time index entry names, if it is there and has that timestamp.
    fn batch_of_time_entry(
        &self,
        shared: &LogShared,
        dir: &Path,
        offset: i64,
        timestamp: i64,
        end_offset: i64,
    ) -> Result<Option<u64>, LogError> {
        let log = self.open(shared, dir, Kind::Log)?;
        let find = |position| {
            self.walk(&*log, position, end_offset, |header, _| header.last_offset() >= offset)
                .map_err(|e| LogError::io("read", self.path(dir, Kind::Log), e))
        };
        let names = |header: &BatchHeader| header.last_offset() == offset && header.max_timestamp == timestamp;
        let hint = self.locate(shared, dir, offset)?;
        Ok(find(hint.position)?.filter(|(header, _)| names(header)).map(|(_, position)| position))
    }

    // -- walking -----------------------------------------------------------------------------------------------------

    /// Walks headers from `position` until `visit` answers true; answers that batch and its position. Stops silently at
    /// bytes that are no batch.
    pub(crate) fn walk(
        &self,
        log: &dyn SegmentFile,
        position: u64,
        end_offset: i64,
        mut visit: impl FnMut(&BatchHeader, u64) -> bool,
    ) -> io::Result<Option<(BatchHeader, u64)>> {
        let mut scanner = Scanner::new(log, position, self.size);
        let mut bounds = Bounds { offset_min: self.base_offset, offset_end: end_offset };
        while let Step::Batch(header) = scanner.peek(bounds)? {
            if visit(&header, scanner.position()) {
                return Ok(Some((header, scanner.position())));
            }
            bounds.offset_min = header.next_offset();
            scanner.advance(&header);
        }
        Ok(None)
    }
}
