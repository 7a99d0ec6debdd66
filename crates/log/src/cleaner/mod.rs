//! Compaction: of each key the last record stays. Answers to Kafka's `LogCleaner` and `Cleaner`; internal topics and
//! those of users go the same way.
//!
//! One round on one log: what lies between the first dirty offset and the first that must not be cleaned yet is read into
//! a map from keys to their last offsets (`offset_map.rs`); then every segment up to the map's end is written anew without
//! the records that the map knows a later one of, and without those of aborted transactions. Tombstones and markers of
//! emptied transactions stay until their delete horizon (KIP-534): it is written into their batch when a round meets them
//! first. Batches that hold a producer's last sequence number stay, if only as empty ones, and so does the last batch of
//! a round.
//!
//! INVARIANTS
//! - Only what is on disk (below the recovery point) and below the last stable offset is cleaned, and nothing at or behind
//!   damage.
//! - New segments are complete on disk before they take the old ones' place; at every moment of the change a crash leaves
//!   the one or the other ([`PartitionLog::replace_segments`]).
//! - What cannot be decoded is kept as it is.
//! - Memory: the map is bounded ([`CleanerLimits::map_bytes`]); when it is full the round ends there, and the next one goes
//!   on behind it.
//!
//! [`PartitionLog::replace_segments`]: crate::PartitionLog::replace_segments

mod filter;
#[cfg(test)]
mod jvm_tests;
mod offset_map;
mod output;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use taccola_wire::batch::{BatchHeader, RecordWalker};

use crate::error::LogError;
use crate::file::SegmentFile;
use crate::partition_log::{AbortedTxn, Offset};
use crate::scan::{Bounds, Scanner, Step};
use crate::shared::LogShared;
use filter::{BatchFilter, Filtered};
use offset_map::OffsetMap;
pub use output::CleanedSegment;
use output::SegmentWriter;
pub(crate) use output::{cleaned_path, with_suffix};
use transactions::TransactionTracker;

/// What a log offers to the cleaner at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanable {
    /// Where cleaning begins to look for later records of keys.
    pub first_dirty_offset: Offset,
    /// Exclusive end of what may be cleaned now.
    pub first_uncleanable_offset: Offset,
    /// Bytes below the first dirty offset, and from there to the first uncleanable one.
    pub clean_bytes: u64,
    pub cleanable_bytes: u64,
    /// The log's own `min.cleanable.dirty.ratio` asks for a round, or its `max.compaction.lag.ms` does.
    pub due: bool,
}

impl Cleanable {
    /// Share of the log that is dirty, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let total = self.clean_bytes.saturating_add(self.cleanable_bytes);
        if total == 0 { 0.0 } else { self.cleanable_bytes as f64 / total as f64 }
    }
}

/// Bounds of a round.
#[derive(Clone, Copy, Debug)]
pub struct CleanerLimits {
    /// What the map from keys to offsets may take, bytes (`log.cleaner.dedupe.buffer.size` of one thread).
    pub map_bytes: u64,
    /// Keys the hashes of keys, so that nobody can choose records that collide.
    pub hash_key: (u64, u64),
}

/// The last thing that a producer wrote, which keeps its sequence numbers alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerLast {
    /// `None`: its last entry is a marker of this epoch.
    pub last_data_offset: Option<Offset>,
    pub producer_epoch: i16,
}

/// One of the segments to clean, as it was when the round began.
#[derive(Debug)]
pub(crate) struct Source {
    pub base_offset: Offset,
    /// Exclusive: where the next segment begins.
    pub end_offset: Offset,
    pub size: u64,
    /// Bytes of its offset and time index, about.
    pub index_bytes: u64,
    pub file: Arc<dyn SegmentFile>,
}

/// A round of one log, taken out of the log's critical section.
#[derive(Debug)]
pub struct CleanJob {
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<LogShared>,
    pub(crate) first_dirty_offset: Offset,
    pub(crate) first_uncleanable_offset: Offset,
    /// All segments up to the first uncleanable offset, the clean ones too.
    pub(crate) sources: Vec<Source>,
    /// All aborted transactions that touch them; the markers of some lie behind.
    pub(crate) aborted: Vec<AbortedTxn>,
    pub(crate) producers: HashMap<i64, ProducerLast>,
    pub(crate) segment_bytes: u64,
    pub(crate) index_bytes_max: u64,
    pub(crate) index_interval_bytes: u32,
    pub(crate) delete_retention_ms: i64,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanOutcome {
    /// Where the next round's dirty part begins.
    pub end_offset: Offset,
    pub bytes_read: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub records_read: u64,
    pub records_kept: u64,
    pub segments_before: usize,
    pub segments_after: usize,
    /// Records without a key, which a compacted log cannot keep.
    pub keyless: u64,
    /// Batches that could not be decoded and stay as they are.
    pub undecodable: u64,
}

/// What the caller of a round provides.
pub trait CleanerHost {
    /// Told of bytes that were read or written, before more are: may wait, to keep to a rate.
    fn throttle(&mut self, bytes: u64);

    /// Whether to stop: the log is gone, or the broker stops.
    fn stopped(&self) -> bool;

    /// Puts a cleaned segment in the place of those that it replaces.
    fn replace(&mut self, cleaned: CleanedSegment) -> Result<(), LogError>;
}

impl CleanJob {
    /// Where the round begins.
    pub fn first_dirty_offset(&self) -> Offset {
        self.first_dirty_offset
    }

    /// Runs the round. `None`: stopped before its end; what was replaced by then stays, which does no harm.
    pub fn run(
        &self,
        now_ms: i64,
        limits: CleanerLimits,
        host: &mut dyn CleanerHost,
    ) -> Result<Option<CleanOutcome>, LogError> {
        let mut outcome = CleanOutcome::default();
        let Some(map) = self.build_map(limits, host, &mut outcome)? else { return Ok(None) };
        outcome.end_offset = map.end_offset;
        let filter = BatchFilter {
            map: &map,
            producers: &self.producers,
            now_ms,
            delete_retention_ms: self.delete_retention_ms,
        };
        let mut transactions = TransactionTracker::new(&self.aborted, 0);
        for group in self.groups(map.end_offset) {
            if host.stopped() || !self.clean_group(group, &filter, &mut transactions, host, &mut outcome)? {
                return Ok(None);
            }
        }
        Ok(Some(outcome))
    }

    /// The last offset of each key in the dirty part.
    fn build_map(
        &self,
        limits: CleanerLimits,
        host: &mut dyn CleanerHost,
        outcome: &mut CleanOutcome,
    ) -> Result<Option<OffsetMap>, LogError> {
        let mut map = OffsetMap::new(limits, self.first_dirty_offset);
        let dirty = || self.sources.iter().filter(|source| source.end_offset > self.first_dirty_offset);
        let from = dirty().next().map_or(i64::MAX, |source| source.base_offset);
        let mut transactions = TransactionTracker::new(&self.aborted, from);
        for source in dirty() {
            let complete = self.each_batch(source, host, outcome, &mut |header, bytes| {
                if header.last_offset() >= self.first_uncleanable_offset {
                    return Ok(Visit::End);
                }
                let discard = transactions.sees(header, bytes);
                if !discard && !header.is_control() && header.last_offset() >= self.first_dirty_offset {
                    if !map.has_room_for(header.records_count) {
                        return Ok(Visit::End);
                    }
                    note_keys(&mut map, header, bytes, self.first_dirty_offset);
                }
                map.end_offset = map.end_offset.max(header.next_offset());
                Ok(Visit::Next)
            })?;
            match complete {
                // Where offsets are missing at the segment's end, or the next round would begin there again, for ever.
                Walked::All => {
                    let end = source.end_offset.min(self.first_uncleanable_offset);
                    map.end_offset = map.end_offset.max(end);
                }
                Walked::Ended => break,
                Walked::Stopped => return Ok(None),
            }
        }
        if map.is_empty_but_full() {
            return Err(LogError::BadFile {
                path: self.dir.clone(),
                reason: "one batch has more keys than log.cleaner.dedupe.buffer.size has room for".to_owned(),
            });
        }
        Ok(Some(map))
    }

    /// Neighbours that fit one segment together.
    fn groups(&self, end_offset: Offset) -> Vec<&[Source]> {
        let count = self.sources.iter().take_while(|source| source.base_offset < end_offset).count();
        let mut rest = self.sources.get(..count).unwrap_or_default();
        let mut groups = Vec::new();
        while let Some(first) = rest.first() {
            let (mut bytes, mut index_bytes) = (0_u64, 0_u64);
            let fits = |source: &Source| {
                bytes += source.size;
                index_bytes += source.index_bytes;
                bytes <= self.segment_bytes
                    && index_bytes <= self.index_bytes_max
                    && source.end_offset.saturating_sub(first.base_offset) <= i64::from(i32::MAX)
            };
            let length = rest.iter().take_while({
                let mut fits = fits;
                move |source| fits(source)
            });
            let (group, behind) = rest.split_at(length.count().clamp(1, rest.len()));
            groups.push(group);
            rest = behind;
        }
        groups
    }

    /// Writes one group anew. False: stopped.
    fn clean_group(
        &self,
        group: &[Source],
        filter: &BatchFilter<'_>,
        transactions: &mut TransactionTracker,
        host: &mut dyn CleanerHost,
        outcome: &mut CleanOutcome,
    ) -> Result<bool, LogError> {
        let Some(first) = group.first() else { return Ok(true) };
        let mut writer = SegmentWriter::create(&self.dir, &self.shared, first.base_offset, self.index_interval_bytes)?;
        let mut written = 0;
        for source in group {
            let (mut read, mut kept, mut keyless, mut undecodable) = (0, 0, 0, 0);
            let walked = self.each_batch(source, host, outcome, &mut |header, bytes| {
                match filter.apply(header, bytes, transactions) {
                    Filtered::Drop { records } => read += records,
                    Filtered::Keep => {
                        read += u64::from(header.records_count.unsigned_abs());
                        kept += u64::from(header.records_count.unsigned_abs());
                        writer.append(header, bytes)?;
                    }
                    Filtered::Undecodable => {
                        undecodable += 1;
                        writer.append(header, bytes)?;
                    }
                    Filtered::Rewrite { batch, records, retained, without_key } => {
                        read += records;
                        kept += retained;
                        keyless += without_key;
                        let header = BatchHeader::parse(&batch)
                            .map_err(|e| LogError::BadFile { path: self.dir.clone(), reason: e.to_string() })?;
                        writer.append(&header, &batch)?;
                    }
                }
                Ok(Visit::Next)
            })?;
            outcome.records_read += read;
            outcome.records_kept += kept;
            outcome.keyless += keyless;
            outcome.undecodable += undecodable;
            for txn in transactions.take_retained() {
                writer.aborted(&txn);
            }
            if walked == Walked::Stopped {
                writer.discard();
                return Ok(false);
            }
            host.throttle(writer.size().saturating_sub(written));
            written = writer.size();
        }
        outcome.bytes_before += group.iter().map(|source| source.size).sum::<u64>();
        outcome.bytes_after += written;
        outcome.segments_before += group.len();
        outcome.segments_after += 1;
        host.replace(writer.finish(group)?)?;
        Ok(true)
    }

    /// Visits the batches of a segment in order, whole and with a right checksum: damage ends the round with an error.
    fn each_batch(
        &self,
        source: &Source,
        host: &mut dyn CleanerHost,
        outcome: &mut CleanOutcome,
        visit: &mut Visitor<'_>,
    ) -> Result<Walked, LogError> {
        let path = || crate::segment::segment_path(&self.dir, source.base_offset, "log");
        let io_error = |e| LogError::io("read", path(), e);
        let mut scanner = Scanner::new(&*source.file, 0, source.size);
        let mut bounds = Bounds { offset_min: source.base_offset, offset_end: source.end_offset };
        let mut told = 0;
        loop {
            let header = match scanner.peek_checked(bounds).map_err(io_error)? {
                Step::Batch(header) => header,
                Step::End => break,
                Step::Bad(reason) => return Err(LogError::BadFile { path: path(), reason }),
            };
            let visited = visit(&header, scanner.bytes(&header).map_err(io_error)?)?;
            bounds.offset_min = header.next_offset();
            scanner.advance(&header);
            if scanner.position() - told >= THROTTLE_STEP {
                outcome.bytes_read += scanner.position() - told;
                host.throttle(scanner.position() - told);
                told = scanner.position();
                if host.stopped() {
                    return Ok(Walked::Stopped);
                }
            }
            if matches!(visited, Visit::End) {
                return Ok(Walked::Ended);
            }
        }
        outcome.bytes_read += scanner.position().saturating_sub(told);
        host.throttle(scanner.position().saturating_sub(told));
        Ok(Walked::All)
    }
}

/// Bytes between two looks at the rate and at whether to stop.
const THROTTLE_STEP: u64 = 256 * 1024;

type Visitor<'a> = dyn FnMut(&BatchHeader, &[u8]) -> Result<Visit, LogError> + 'a;

enum Visit {
    Next,
    End,
}

#[derive(PartialEq, Eq)]
enum Walked {
    All,
    Ended,
    Stopped,
}

/// A batch that does not decode puts nothing into the map: it will be kept as it is, and so will what stands before it.
fn note_keys(map: &mut OffsetMap, header: &BatchHeader, bytes: &[u8], from: Offset) {
    let Ok(mut records) = RecordWalker::new(bytes, taccola_wire::batch::max_decompressed(bytes.len())) else { return };
    let mut keys = Vec::new();
    while let Some(record) = records.next_record() {
        let Ok(record) = record else { return };
        let offset = record.offset(header);
        if let Some(key) = record.key.filter(|_| offset >= from) {
            keys.push((map.hash(key), offset));
        }
    }
    for (hash, offset) in keys {
        map.put(hash, offset);
    }
}
