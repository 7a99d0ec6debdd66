//! Reading: a plan is made under the log's lock, the file is read outside of it.
//!
//! The plan names a position at or before the wanted batch. The reader takes one run of bytes from there, finds the batch
//! by the headers, and cuts the run to whole batches below the upper bound. Bytes that this process neither wrote nor
//! recovered are checked by their checksums before they are handed out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_wire::batch::{BatchHeader, HEADER_BYTES, verify_crc};

use super::PartitionLog;
use super::types::Offset;
use crate::error::{LogError, ReadError};
use crate::file::SegmentFile;
use crate::salvage::{Salvaged, is_unreadable};
use crate::scan::{Bounds, Resync, Scanner, Step, judge, resync};
use crate::segment::{Hint, Kind, Segment};

/// Bytes of a segment's file that a read may look at.
#[derive(Debug)]
struct Run {
    file: Arc<dyn SegmentFile>,
    hint: Hint,
    /// Exclusive.
    end_position: u64,
    unchecked_below: u64,
    base_offset: Offset,
    /// First offset behind the run.
    end_offset: Offset,
    index_suspect: Arc<AtomicBool>,
    /// No batch may be missing between the run's last one and `end_offset`.
    gapless_end: bool,
}

impl Run {
    /// The same bytes with zeros for what the disk cannot read, all of them to be checked.
    fn salvaged(&self) -> Self {
        Self {
            file: Arc::new(Salvaged::new(Arc::clone(&self.file))),
            hint: self.hint,
            end_position: self.end_position,
            unchecked_below: u64::MAX,
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            index_suspect: Arc::clone(&self.index_suspect),
            gapless_end: self.gapless_end,
        }
    }
}

/// A planned read. Holds the files open, so that it can run outside the log's critical section and survives a deletion of
/// the segment.
#[derive(Debug)]
pub struct ReadSlice {
    topic_partition: TopicPartition,
    first: Option<Run>,
    /// The segment behind, when the wanted offset may have been compacted away at the first one's end.
    second: Option<Run>,
    offset: Offset,
    upper_bound: Offset,
    max_bytes: usize,
    min_one_batch: bool,
}

/// Bytes read beyond what was asked for, to find the batch in them, at most.
const SLACK_MAX: u64 = 64 * 1024;
/// The same where the index does not say how far it can be.
const SLACK_UNKNOWN: u64 = 8 * 1024;

/// So much at the end of a segment that this process writes is taken for cached.
const LATELY_BYTES: u64 = 1024 * 1024;

/// Where a batch was found: its header, its position, and the bytes from it on that were read already.
struct Found {
    header: BatchHeader,
    position: u64,
    bytes: Bytes,
    /// The base offset is what the batch before, the segment's name or the index says.
    place_is_sure: bool,
}

enum Search {
    Found(Found),
    /// Every batch of the run ends before the offset.
    NotHere,
    /// The index entry did not lead to its batch.
    IndexWrong,
}

impl Search {
    fn found(self) -> Option<Found> {
        match self {
            Self::Found(found) => Some(found),
            Self::NotHere | Self::IndexWrong => None,
        }
    }
}

enum Taken {
    Bytes(Bytes),
    /// The batch is not whole; a valid one that may hold the offset begins at `resume_at`.
    Damaged {
        first: Offset,
        resume_at: u64,
    },
}

impl ReadSlice {
    fn empty(log: &PartitionLog, offset: Offset) -> Self {
        Self {
            topic_partition: log.topic_partition.clone(),
            first: None,
            second: None,
            offset,
            upper_bound: offset,
            max_bytes: 0,
            min_one_batch: false,
        }
    }

    /// At most this many bytes will come, except for a first batch that is larger; 0 at the log's end.
    pub fn len_max(&self) -> usize {
        self.first.as_ref().map_or(0, |run| {
            let rest = run.end_position.saturating_sub(run.hint.position);
            self.max_bytes.min(usize::try_from(rest).unwrap_or(usize::MAX))
        })
    }

    /// Whether [`ReadSlice::read`] probably need not wait for the disk. What this process appended lately is taken for
    /// cached, the rest is probed.
    pub fn is_cached(&self) -> bool {
        let is_cached = |run: &Run| {
            let position = run.hint.position;
            let rest = run.end_position.saturating_sub(position);
            if position >= run.unchecked_below && rest <= LATELY_BYTES {
                return true;
            }
            let slack =
                run.hint.next_position.map_or(SLACK_UNKNOWN, |next| next.saturating_sub(position).min(SLACK_MAX));
            run.file.is_cached(position, rest.min((self.max_bytes as u64).saturating_add(slack)))
        };
        self.first.as_ref().is_none_or(is_cached)
    }

    /// Whole batches, the first holding the asked offset (or, where that was compacted away, the next one); empty at
    /// the log's end and when the first batch is larger than `max_bytes` and `min_one_batch` was not asked for.
    pub fn read(&self) -> Result<Bytes, ReadError> {
        match self.read_runs(self.first.iter().chain(&self.second)) {
            Err(ReadError::Storage(LogError::Io { source, .. })) if is_unreadable(&source) => {
                // What the disk cannot read is damaged; what stands around it is served.
                let around: Vec<Run> = self.first.iter().chain(&self.second).map(Run::salvaged).collect();
                self.read_runs(around.iter())
            }
            other => other,
        }
    }

    fn read_runs<'a>(&self, runs: impl Iterator<Item = &'a Run>) -> Result<Bytes, ReadError> {
        for run in runs {
            let mut found = self.find(run)?;
            while let Some(batch) = found {
                match self.take(run, batch)? {
                    Taken::Bytes(bytes) => return Ok(bytes),
                    // The offset may be in a batch behind the damage: one that is there twice.
                    Taken::Damaged { first, resume_at } => {
                        found = self.search(run, resume_at, None, Some(first))?.found();
                    }
                }
            }
        }
        Ok(Bytes::new())
    }

    fn io_error(&self, source: std::io::Error) -> ReadError {
        ReadError::Storage(LogError::io("read", self.topic_partition.to_string(), source))
    }

    /// Finds the first batch that ends at or behind the offset; `None` when the run has none.
    fn find(&self, run: &Run) -> Result<Option<Found>, ReadError> {
        let mut search = self.search(run, run.hint.position, run.hint.last_offset, None)?;
        if matches!(search, Search::IndexWrong) {
            run.index_suspect.store(true, Ordering::Relaxed);
            search = self.search(run, 0, None, None)?;
        }
        Ok(search.found())
    }

    /// Walks headers from `start`. `entry` is what the index says of the batch there: its last offset; `damaged_from` the
    /// first offset that was lost before it.
    fn search(
        &self,
        run: &Run,
        start: u64,
        entry: Option<Offset>,
        mut damaged_from: Option<Offset>,
    ) -> Result<Search, ReadError> {
        let mut window = Bytes::new();
        let mut window_at = start;
        let mut position = start;
        let mut bounds = Bounds { offset_min: run.base_offset, offset_end: run.end_offset };
        let mut previous = None;
        while position < run.end_position {
            let mut at = usize::try_from(position - window_at).unwrap_or(usize::MAX);
            if at.saturating_add(HEADER_BYTES) > window.len() && window_at + (window.len() as u64) < run.end_position {
                window = self.load(run, position)?;
                window_at = position;
                at = 0;
            }
            let rest = window.get(at..).unwrap_or_default();
            match judge(rest, run.end_position - position, bounds) {
                Step::Batch(header) if position == start && entry.is_some_and(|last| last != header.last_offset()) => {
                    return Ok(Search::IndexWrong);
                }
                Step::Batch(header) if header.last_offset() >= self.offset => {
                    if let Some(first) = damaged_from
                        && header.base_offset > self.offset
                    {
                        return Err(self.corrupt(first, header.base_offset));
                    }
                    if header.base_offset > self.offset {
                        self.check_before_gap(run, previous, header.base_offset)?;
                    }
                    let indexed = position == start && entry.is_some();
                    let follows = header.base_offset == bounds.offset_min && damaged_from.is_none();
                    let place_is_sure = indexed || follows;
                    let bytes = window.slice(at.min(window.len())..);
                    return Ok(Search::Found(Found { header, position, bytes, place_is_sure }));
                }
                Step::Batch(header) => {
                    bounds.offset_min = header.next_offset();
                    previous = Some((position, header));
                    position += header.size_bytes() as u64;
                }
                Step::Bad(_) if position == start && entry.is_some() => return Ok(Search::IndexWrong),
                Step::Bad(_) | Step::End => {
                    let first = *damaged_from.get_or_insert(bounds.offset_min);
                    match self.next_valid(run, position, bounds)? {
                        Some((behind, base_offset)) if base_offset <= self.offset => {
                            position = behind;
                            bounds.offset_min = base_offset;
                            window = Bytes::new();
                            window_at = position;
                        }
                        Some((_, base_offset)) => return Err(self.corrupt(first, base_offset)),
                        None => return Err(self.corrupt(first, run.end_offset)),
                    }
                }
            }
        }
        match damaged_from {
            Some(first) => Err(self.corrupt(first, run.end_offset)),
            None if run.gapless_end && bounds.offset_min < run.end_offset => {
                Err(self.corrupt(bounds.offset_min, run.end_offset))
            }
            None => {
                self.check_before_gap(run, previous, run.end_offset)?;
                Ok(Search::NotHere)
            }
        }
    }

    /// The offset was in no batch. Believed only if the batch before the gap is whole: how far it reaches is something
    /// that only its checksum vouches for.
    fn check_before_gap(
        &self,
        run: &Run,
        previous: Option<(u64, BatchHeader)>,
        next_valid: Offset,
    ) -> Result<(), ReadError> {
        let Some((position, header)) = previous.filter(|(position, _)| *position < run.unchecked_below) else {
            return Ok(());
        };
        let mut scanner = Scanner::new(&*run.file, position, run.end_position);
        let bounds = Bounds { offset_min: i64::MIN, offset_end: i64::MAX };
        match scanner.peek_checked(bounds).map_err(|e| self.io_error(e))? {
            Step::Batch(_) => Ok(()),
            _ => Err(self.corrupt(header.base_offset, next_valid)),
        }
    }

    /// Reads what is probably needed from `position` on.
    fn load(&self, run: &Run, position: u64) -> Result<Bytes, ReadError> {
        let slack = match run.hint.next_position {
            Some(next) => next.saturating_sub(position).min(SLACK_MAX),
            None => SLACK_UNKNOWN,
        };
        let want = (self.max_bytes as u64).saturating_add(slack).max(HEADER_BYTES as u64);
        let length = usize::try_from(want.min(run.end_position - position)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        run.file.read_onto(&mut bytes, position, length).map_err(|e| self.io_error(e))?;
        Ok(Bytes::from(bytes))
    }

    /// Cuts the run to whole batches, from the found one on.
    fn take(&self, run: &Run, found: Found) -> Result<Taken, ReadError> {
        let Found { header, position, mut bytes, place_is_sure } = found;
        let size = header.size_bytes();
        if header.base_offset >= self.upper_bound || (size > self.max_bytes && !self.min_one_batch) {
            return Ok(Taken::Bytes(Bytes::new()));
        }
        if bytes.len() < size {
            let want = size.max(self.max_bytes) as u64;
            let length = usize::try_from(want.min(run.end_position - position)).unwrap_or(usize::MAX);
            let mut whole = Vec::new();
            run.file.read_onto(&mut whole, position, length).map_err(|e| self.io_error(e))?;
            bytes = Bytes::from(whole);
        }
        if position < run.unchecked_below && !place_is_sure {
            self.check_place(run, &header, position)?;
        }
        let mut end = 0;
        let mut bounds = Bounds { offset_min: header.base_offset, offset_end: run.end_offset };
        while let Some(rest) = bytes.get(end..) {
            let Step::Batch(header) = judge(rest, rest.len() as u64, bounds) else { break };
            let next = end + header.size_bytes();
            if header.base_offset >= self.upper_bound || (end > 0 && next > self.max_bytes) {
                break;
            }
            if position + (end as u64) < run.unchecked_below && verify_crc(rest).is_err() {
                break;
            }
            end = next;
            bounds.offset_min = header.next_offset();
        }
        if end == 0 {
            // The header was good and the batch is not: too short in the file, or its checksum is wrong.
            let first = header.base_offset.min(self.offset);
            return match self.next_valid(run, position, Bounds { offset_min: header.base_offset, ..bounds })? {
                Some((resume_at, base_offset)) if base_offset <= self.offset => Ok(Taken::Damaged { first, resume_at }),
                next => Err(self.corrupt(first, next.map_or(run.end_offset, |(_, base_offset)| base_offset))),
            };
        }
        Ok(Taken::Bytes(bytes.slice(..end)))
    }

    /// A batch's base offset is outside of its checksum. Where nothing before the batch vouches for it, what follows must
    /// agree: the next batch begins behind this one, and the log's last one ends at the log's end.
    fn check_place(&self, run: &Run, header: &BatchHeader, position: u64) -> Result<(), ReadError> {
        let next = position + header.size_bytes() as u64;
        let mut scanner = Scanner::new(&*run.file, next, run.end_position);
        let anything = Bounds { offset_min: i64::MIN, offset_end: i64::MAX };
        match scanner.peek(anything).map_err(|e| self.io_error(e))? {
            Step::Batch(behind) if behind.base_offset < header.next_offset() => {
                Err(self.corrupt(self.offset, behind.base_offset.max(self.offset + 1)))
            }
            Step::End if self.second.is_none() && run.gapless_end && header.next_offset() != run.end_offset => {
                Err(self.corrupt(self.offset, run.end_offset))
            }
            _ => Ok(()),
        }
    }

    /// The next valid batch behind the damaged one at `damaged`, which held `bounds.offset_min` at least.
    fn next_valid(&self, run: &Run, damaged: u64, bounds: Bounds) -> Result<Option<(u64, Offset)>, ReadError> {
        let bounds = Bounds { offset_min: bounds.offset_min.saturating_add(1), ..bounds };
        match resync(&*run.file, damaged, run.end_position, bounds).map_err(|e| self.io_error(e))? {
            Resync::Found { position, base_offset } => Ok(Some((position, base_offset))),
            Resync::Nothing | Resync::GaveUp => Ok(None),
        }
    }

    fn corrupt(&self, first: Offset, next_valid: Offset) -> ReadError {
        // A copy of the same offsets further on does not make the range empty.
        let next_valid = next_valid.max(first.saturating_add(1));
        ReadError::CorruptRecord { log: self.topic_partition.to_string(), first, next_valid }
    }
}

impl PartitionLog {
    /// Plans a read from `offset`, of batches that begin below `upper_bound` (exclusive) and below the log end offset.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        min_one_batch: bool,
    ) -> Result<ReadSlice, ReadError> {
        self.check_online()?;
        let (start, end) = (self.log_start_offset, self.log_end_offset);
        if offset < start || offset > end {
            return Err(ReadError::OffsetOutOfRange { offset, start, end });
        }
        let local_start = self.local_log_start_offset();
        if offset < local_start {
            return Err(ReadError::InRemoteStorage { offset, local_start });
        }
        let upper_bound = upper_bound.min(end);
        if offset >= upper_bound {
            return Ok(ReadSlice::empty(self, offset));
        }
        if let Some(range) = self.quarantined.iter().find(|q| (q.first_offset..q.next_valid_offset).contains(&offset)) {
            let (first, next_valid) = (range.first_offset, range.next_valid_offset);
            return Err(ReadError::CorruptRecord { log: self.topic_partition.to_string(), first, next_valid });
        }
        let index = self.segment_index(offset);
        self.check_not_emptied(index)?;
        let first = self.run(index, offset)?;
        let second = match &first {
            Some(run) if run.hint.next_position.is_some() => None,
            _ => self.next_run(index + 1)?,
        };
        Ok(ReadSlice {
            topic_partition: self.topic_partition.clone(),
            first,
            second,
            offset,
            upper_bound,
            max_bytes,
            min_one_batch,
        })
    }

    /// A sealed segment that has offsets and no bytes lost them, unless compaction removed its records.
    fn check_not_emptied(&self, index: usize) -> Result<(), ReadError> {
        let Some(segment) = self.segments.get(index) else { return Ok(()) };
        if segment.size > 0 || index + 1 == self.segments.len() || self.may_have_gaps() {
            return Ok(());
        }
        let (first, next_valid) = (segment.base_offset, self.segment_end(index));
        Err(ReadError::CorruptRecord { log: self.topic_partition.to_string(), first, next_valid })
    }

    /// The first run with anything in it, from segment `index` on.
    fn next_run(&self, index: usize) -> Result<Option<Run>, LogError> {
        match self.segments.iter().skip(index).position(|segment| segment.size > 0) {
            Some(skipped) => {
                let index = index + skipped;
                let base_offset = self.segments.get(index).map_or(0, |segment| segment.base_offset);
                self.run(index, base_offset)
            }
            None => Ok(None),
        }
    }

    /// The bytes of segment `index` in which `offset` is; `None` when it has none.
    fn run(&self, index: usize, offset: Offset) -> Result<Option<Run>, LogError> {
        let Some(segment) = self.segments.get(index).filter(|segment| segment.size > 0) else { return Ok(None) };
        let mut run = Run {
            file: segment.open(&self.shared, &self.dir, Kind::Log)?,
            hint: self.hint(index, segment, offset)?,
            end_position: segment.size,
            unchecked_below: segment.unchecked_below,
            base_offset: segment.base_offset,
            end_offset: self.segment_end(index),
            index_suspect: Arc::clone(&segment.index_suspect),
            gapless_end: !self.may_have_gaps() || index + 1 == self.segments.len(),
        };
        for range in self.quarantined.iter().filter(|q| q.segment_base_offset == segment.base_offset) {
            if range.next_valid_offset <= offset {
                if run.hint.position < range.end_position {
                    run.hint = Hint { position: range.end_position, last_offset: None, next_position: None };
                }
                run.base_offset = run.base_offset.max(range.next_valid_offset);
            } else if range.start_position < run.end_position {
                run.end_position = range.start_position;
                run.end_offset = range.first_offset;
            }
        }
        Ok((run.hint.position < run.end_position).then_some(run))
    }

    /// Where to begin looking for `offset` in a segment.
    fn hint(&self, index: usize, segment: &Segment, offset: Offset) -> Result<Hint, LogError> {
        if index + 1 == self.segments.len()
            && let Some(position) = self.active.as_ref().and_then(|active| active.recent_position(offset))
        {
            return Ok(Hint { position, last_offset: None, next_position: Some(position) });
        }
        segment.locate(&self.shared, &self.dir, offset)
    }

    /// Bytes between `offset` and `upper_bound`, to within an index interval; for `fetch.min.bytes`. 0 only when there
    /// is nothing.
    pub fn bytes_available(&self, offset: Offset, upper_bound: Offset) -> u64 {
        let upper_bound = upper_bound.min(self.log_end_offset);
        if offset >= upper_bound || self.offline.is_some() {
            return 0;
        }
        let (from, to) = (self.segment_index(offset), self.segment_index(upper_bound));
        let end = if upper_bound == self.log_end_offset {
            self.segments.iter().take(to + 1).skip(from).map(|segment| segment.size).sum::<u64>()
        } else {
            let before: u64 = self.segments.iter().take(to).skip(from).map(|segment| segment.size).sum();
            before + self.position_of(to, upper_bound)
        };
        end.saturating_sub(self.position_of(from, offset)).max(1)
    }

    fn position_of(&self, index: usize, offset: Offset) -> u64 {
        let hint = self.segments.get(index).map(|segment| self.hint(index, segment, offset));
        hint.and_then(Result::ok).map_or(0, |hint| hint.position)
    }
}
