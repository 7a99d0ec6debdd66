//! Walking the batches of a segment's file by their headers, with or without checking every byte, and finding the next
//! whole batch behind damage. Answers to Kafka's `FileRecords.batches` and the loop of `LogSegment.recover`.
//!
//! The walk never trusts a length: it reads at most the file, and a batch must fit between its position and `end`.

use std::io;

use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::{BatchHeader, HEADER_BYTES, verify_crc};

use crate::file::SegmentFile;

/// Bytes read at a time while only headers are wanted.
const HEADER_CHUNK: usize = 4 * 1024;
/// Bytes read at a time while every byte is checked.
const FULL_CHUNK: usize = 256 * 1024;
/// Bytes read at a time while looking for a batch behind damage.
const RESYNC_CHUNK: usize = 1024 * 1024;
/// Bytes beyond four times the searched range that a search may spend on checksums of things that look like batches.
const RESYNC_SLACK: u64 = 64 * 1024 * 1024;

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Step {
    Batch(BatchHeader),
    /// `end` is reached.
    End,
    /// No whole valid batch; why.
    Bad(String),
}

/// A window on a file that moves forward.
pub(crate) struct Scanner<'a> {
    file: &'a dyn SegmentFile,
    end: u64,
    position: u64,
    window: Vec<u8>,
    window_at: u64,
}

/// What a batch must satisfy besides its own checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Base offset, inclusive.
    pub offset_min: i64,
    /// Last offset, exclusive.
    pub offset_end: i64,
}

impl<'a> Scanner<'a> {
    /// Walks `position..end` of the file; `end` is at most the file's length.
    pub(crate) fn new(file: &'a dyn SegmentFile, position: u64, end: u64) -> Self {
        Self { file, end, position, window: Vec::new(), window_at: position }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// `length` bytes at the current position, fewer at `end`; reads at least `chunk` if it must read.
    fn fill(&mut self, length: usize, chunk: usize) -> io::Result<&[u8]> {
        let want = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX).min(length);
        let offset = self.position.checked_sub(self.window_at).and_then(|at| usize::try_from(at).ok());
        let present = offset.is_some_and(|at| at.checked_add(want).is_some_and(|end| end <= self.window.len()));
        if !present {
            let read = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
            self.window.clear();
            self.window_at = self.position;
            self.file.read_onto(&mut self.window, self.position, read.min(length.max(chunk)))?;
            if self.window.capacity() > 4 * FULL_CHUNK.max(self.window.len()) {
                self.window.shrink_to_fit();
            }
        }
        let at = usize::try_from(self.position.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        let rest = self.window.get(at..).unwrap_or_default();
        Ok(rest.get(..want).unwrap_or(rest))
    }

    /// The header at the current position, judged by itself and by `bounds`. Does not move.
    pub(crate) fn peek(&mut self, bounds: Bounds) -> io::Result<Step> {
        if self.position >= self.end {
            return Ok(Step::End);
        }
        let room = self.end - self.position;
        let bytes = self.fill(HEADER_BYTES, HEADER_CHUNK)?;
        Ok(judge(bytes, room, bounds))
    }

    /// As [`peek`](Self::peek), and the batch's checksum must be right. Does not move.
    pub(crate) fn peek_checked(&mut self, bounds: Bounds) -> io::Result<Step> {
        if self.position < self.end {
            self.fill(HEADER_BYTES, FULL_CHUNK)?;
        }
        let header = match self.peek(bounds)? {
            Step::Batch(header) => header,
            other => return Ok(other),
        };
        let bytes = self.fill(header.size_bytes(), FULL_CHUNK)?;
        match verify_crc(bytes) {
            Err(_) if planted(Bug::RecoverySkipsChecksum) => Ok(Step::Batch(header)),
            Ok(_) => Ok(Step::Batch(header)),
            Err(e) => Ok(Step::Bad(e.to_string())),
        }
    }

    /// The whole batch at the current position, whose header [`peek`](Self::peek) answered.
    pub(crate) fn bytes(&mut self, header: &BatchHeader) -> io::Result<&[u8]> {
        self.fill(header.size_bytes(), HEADER_CHUNK)
    }

    /// Moves behind a batch.
    pub(crate) fn advance(&mut self, header: &BatchHeader) {
        self.position = self.position.saturating_add(header.size_bytes() as u64);
    }
}

/// Judges a header at the front of `bytes` with `room` bytes up to the end of what may be read.
pub(crate) fn judge(bytes: &[u8], room: u64, bounds: Bounds) -> Step {
    let header = match BatchHeader::parse(bytes) {
        Ok(header) => header,
        Err(e) => return Step::Bad(e.to_string()),
    };
    if header.size_bytes() as u64 > room {
        return Step::Bad(format!("a batch of {} bytes where {room} are left", header.size_bytes()));
    }
    if header.last_offset_delta < 0 {
        return Step::Bad(format!("last offset delta {} is negative", header.last_offset_delta));
    }
    if header.base_offset < bounds.offset_min || header.last_offset() >= bounds.offset_end {
        return Step::Bad(format!(
            "offsets {}..={} where {}..{} are possible",
            header.base_offset,
            header.last_offset(),
            bounds.offset_min,
            bounds.offset_end
        ));
    }
    Step::Batch(header)
}

/// A base offset stands outside of its batch's checksum. A batch that leaves a gap before it but runs into the next one is
/// damaged there, and so is one that leaves a gap at the end of a log that was never compacted. Answers why the batch that
/// was just peeked at is not believed, if so. `after_damage`: nothing before the batch vouches for its base offset.
pub(crate) fn contradicted_gap(
    scanner: &mut Scanner<'_>,
    header: &BatchHeader,
    expected: i64,
    after_damage: bool,
    is_last: bool,
    may_have_gaps: bool,
) -> io::Result<Option<String>> {
    if header.base_offset == expected && !after_damage {
        return Ok(None);
    }
    let here = scanner.position();
    scanner.advance(header);
    let behind = scanner.peek(Bounds { offset_min: i64::MIN, offset_end: i64::MAX });
    scanner.seek(here);
    let contradicted = match behind? {
        Step::Batch(behind) => behind.base_offset < header.next_offset(),
        Step::End => is_last && !after_damage && !may_have_gaps,
        Step::Bad(_) => false,
    };
    let found = header.base_offset;
    Ok(contradicted.then(|| format!("base offset {found} where {expected} is next, against the batches around")))
}

/// Where a search for a whole batch behind damage ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resync {
    /// A valid batch begins at `position` with this base offset.
    Found {
        position: u64,
        base_offset: i64,
    },
    Nothing,
    /// Too much looked like a batch; what follows was not searched.
    GaveUp,
}

/// Finds the first whole valid batch behind the damaged one at `damaged`, before `end`, that obeys `bounds` and is followed
/// by another header or by the end. That condition, and trying first where the damaged batch's own length leads, keep a batch
/// inside a record's value from being taken for one of the log's.
pub(crate) fn resync(file: &dyn SegmentFile, damaged: u64, end: u64, bounds: Bounds) -> io::Result<Resync> {
    if let Some(found) = behind_by_length(file, damaged, end, bounds)? {
        return Ok(found);
    }
    let from = damaged + 1;
    let mut budget = end.saturating_sub(from).saturating_mul(4).saturating_add(RESYNC_SLACK);
    let mut chunk = Vec::new();
    let mut at = from;
    while at.saturating_add(HEADER_BYTES as u64) <= end {
        chunk.clear();
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(RESYNC_CHUNK);
        file.read_onto(&mut chunk, at, length)?;
        for (i, window) in chunk.windows(HEADER_BYTES).enumerate() {
            // The magic byte, and the length's first: no batch is near 2^31 bytes.
            if window.get(16) != Some(&2) || window.get(8).is_none_or(|b| *b > 0x7f) {
                continue;
            }
            let position = at + i as u64;
            let Step::Batch(header) = judge(window, end - position, bounds) else { continue };
            let size = header.size_bytes() as u64;
            let Some(left) = budget.checked_sub(size) else { return Ok(Resync::GaveUp) };
            budget = left;
            if is_batch_of_the_log(file, position, end, &header)? {
                return Ok(Resync::Found { position, base_offset: header.base_offset });
            }
        }
        let step = chunk.len().saturating_sub(HEADER_BYTES - 1).max(1);
        at += step as u64;
    }
    Ok(Resync::Nothing)
}

fn behind_by_length(file: &dyn SegmentFile, damaged: u64, end: u64, bounds: Bounds) -> io::Result<Option<Resync>> {
    let mut header = Vec::new();
    file.read_onto(&mut header, damaged, HEADER_BYTES)?;
    let Ok(parsed) = BatchHeader::parse(&header) else { return Ok(None) };
    let position = damaged.saturating_add(parsed.size_bytes() as u64);
    if position >= end {
        return Ok(None);
    }
    header.clear();
    file.read_onto(&mut header, position, HEADER_BYTES)?;
    match judge(&header, end - position, bounds) {
        Step::Batch(header) if is_batch_of_the_log(file, position, end, &header)? => {
            Ok(Some(Resync::Found { position, base_offset: header.base_offset }))
        }
        _ => Ok(None),
    }
}

fn is_batch_of_the_log(file: &dyn SegmentFile, position: u64, end: u64, header: &BatchHeader) -> io::Result<bool> {
    let mut batch = Vec::new();
    file.read_onto(&mut batch, position, header.size_bytes())?;
    if verify_crc(&batch).is_err() {
        return Ok(false);
    }
    let next = position + header.size_bytes() as u64;
    if next == end {
        return Ok(true);
    }
    batch.clear();
    file.read_onto(&mut batch, next, HEADER_BYTES)?;
    let bounds = Bounds { offset_min: header.next_offset(), offset_end: i64::MAX };
    Ok(matches!(judge(&batch, end - next, bounds), Step::Batch(_)))
}
