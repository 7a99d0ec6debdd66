//! Whether what is derived from a partition's batches agrees with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use taccola_wire::batch::BatchHeader;

use super::{Finding, Level, PartitionReport, VerifyContext};
use crate::checkpoint::{LEADER_EPOCH_CHECKPOINT, read_epochs};
use crate::epoch_cache::EpochCache;
use crate::file::read_small;
use crate::index::{parse_offset_index, parse_time_index};
use crate::partition_log::{AbortedTxn, Listing, Offset};
use crate::producer_state::{ProducerState, marker_of, parse_snapshot};
use crate::segment::{Kind, segment_path};

/// Larger index files are not looked at.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;
const SNAPSHOT_BYTES_MAX: u64 = 32 * 1024 * 1024;
const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;

/// Follows the batches of a partition.
pub(super) struct Derived {
    dir: PathBuf,
    snapshots: Vec<Offset>,
    indexes: BTreeSet<(Offset, &'static str)>,
    producers: ProducerState,
    epochs: EpochCache,
    segment: Current,
    /// Records are missing: what the segments say of transactions may not be all.
    pub(super) damaged: bool,
}

/// The segment that is being walked.
#[derive(Default)]
struct Current {
    base: Offset,
    offsets: Vec<(u32, u32)>,
    next_offset_entry: usize,
    times: Vec<(i64, u32)>,
    next_time_entry: usize,
    /// Where the last batch ended: what lies between it and the next one is damaged, and entries for it say nothing.
    next_position: u64,
    next_offset: Offset,
    max_timestamp: i64,
    /// Aborted transactions whose marker is here: marker's offset → producer.
    aborted: BTreeMap<Offset, i64>,
    /// Abort markers here, of whatever transaction.
    markers: BTreeMap<Offset, i64>,
    /// Why an index is wrong, once.
    wrong: BTreeMap<&'static str, String>,
}

impl Derived {
    pub(super) fn new(dir: &Path, listing: &Listing) -> Self {
        Self {
            dir: dir.to_path_buf(),
            snapshots: listing.snapshots.clone(),
            indexes: listing.indexes.iter().map(|(base, kind)| (*base, kind.suffix())).collect(),
            producers: ProducerState::default(),
            epochs: EpochCache::default(),
            segment: Current::default(),
            damaged: false,
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.indexes.contains(&(self.segment.base, kind.suffix()))
    }

    fn path(&self, kind: Kind) -> PathBuf {
        segment_path(&self.dir, self.segment.base, kind.suffix())
    }

    /// The file's bytes; what keeps it from being read is a finding.
    fn read(&mut self, kind: Kind) -> Vec<u8> {
        if !self.has(kind) {
            return Vec::new();
        }
        match read_small(&self.path(kind), INDEX_BYTES_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                self.segment.wrong.insert(kind.suffix(), format!("cannot be read: {error}"));
                Vec::new()
            }
        }
    }

    pub(super) fn begin_segment(&mut self, base: Offset, size: u64, report: &mut PartitionReport) {
        self.segment = Current { base, next_offset: base, max_timestamp: -1, ..Current::default() };
        let bytes = self.read(Kind::OffsetIndex);
        self.segment.offsets = parse_offset_index(&bytes);
        check_entries(&mut self.segment.wrong, Kind::OffsetIndex, &bytes, self.segment.offsets.len(), OFFSET_ENTRY);
        let bytes = self.read(Kind::TimeIndex);
        self.segment.times = parse_time_index(&bytes);
        check_entries(&mut self.segment.wrong, Kind::TimeIndex, &bytes, self.segment.times.len(), TIME_ENTRY);
        for kind in [Kind::OffsetIndex, Kind::TimeIndex] {
            if size > 0 && !self.has(kind) {
                report.note(Level::Rebuildable, self.path(kind), "missing");
            }
        }
    }

    pub(super) fn batch(&mut self, header: &BatchHeader, position: u64, batch: &[u8]) {
        let segment = &mut self.segment;
        segment.max_timestamp = segment.max_timestamp.max(header.max_timestamp);
        let skipped = position > segment.next_position;
        while let Some((relative, at)) = segment.offsets.get(segment.next_offset_entry).copied() {
            let at = u64::from(at);
            if at > position {
                break;
            }
            segment.next_offset_entry += 1;
            if skipped && (segment.next_position..position).contains(&at) {
                continue;
            }
            if at < position {
                segment.wrong.entry("index").or_insert(format!("position {at} is inside a batch"));
            } else if header.last_offset() - segment.base != i64::from(relative) {
                let named = segment.base + i64::from(relative);
                let what = format!("offset {named} at position {at}, where {} ends a batch", header.last_offset());
                segment.wrong.entry("index").or_insert(what);
            }
        }
        while let Some((timestamp, relative)) = segment.times.get(segment.next_time_entry).copied() {
            let offset = segment.base + i64::from(relative);
            if offset > header.last_offset() {
                break;
            }
            segment.next_time_entry += 1;
            if skipped && (segment.next_offset..header.base_offset).contains(&offset) {
                continue;
            }
            let here = (header.base_offset..=header.last_offset()).contains(&offset);
            if !here || header.max_timestamp != timestamp || segment.max_timestamp > timestamp {
                let what = format!("timestamp {timestamp} at offset {offset} is not the largest up to there");
                segment.wrong.entry("timeindex").or_insert(what);
            }
        }
        (segment.next_position, segment.next_offset) = (position + batch.len() as u64, header.next_offset());
        self.epochs.assign(header.partition_leader_epoch, header.base_offset);
        self.note_producer(header, batch);
    }

    fn note_producer(&mut self, header: &BatchHeader, batch: &[u8]) {
        if !header.has_producer_id() {
            return;
        }
        let marker = marker_of(header, batch);
        if marker.is_some_and(|marker| !marker.commit) {
            self.segment.markers.insert(header.base_offset, header.producer_id);
        }
        if let Some(txn) = self.producers.update(header, marker.as_ref()) {
            self.producers.complete(&txn);
            if !txn.commit {
                self.segment.aborted.insert(txn.last_offset, txn.producer_id);
            }
        }
    }

    pub(super) fn end_segment(
        &mut self,
        is_last: bool,
        end_position: u64,
        context: VerifyContext,
        report: &mut PartitionReport,
    ) {
        let damaged = self.damaged;
        let segment = &mut self.segment;
        if let Some((_, at)) = segment.offsets.get(segment.next_offset_entry)
            && !(is_last && context.unfinished)
            && !damaged
        {
            segment.wrong.entry("index").or_insert(format!("position {at} is behind the end, {end_position}"));
        }
        if let Some((_, relative)) = segment.times.get(segment.next_time_entry)
            && !(is_last && context.unfinished)
            && !damaged
        {
            let offset = segment.base + i64::from(*relative);
            segment.wrong.entry("timeindex").or_insert(format!("offset {offset} is behind the end"));
        }
        self.check_txns(is_last, context);
        let (base, wrong) = (self.segment.base, std::mem::take(&mut self.segment.wrong));
        for (suffix, what) in wrong {
            report.note(Level::Rebuildable, segment_path(&self.dir, base, suffix), what);
        }
    }

    /// Compares the aborted transactions of the file with those of the batches.
    fn check_txns(&mut self, is_last: bool, context: VerifyContext) {
        let bytes = self.read(Kind::TxnIndex);
        let (txns, sane) = crate::txn_index::parse(&bytes);
        let segment = &mut self.segment;
        if !sane {
            segment.wrong.entry("txnindex").or_insert("holds an entry that makes no sense".to_owned());
            return;
        }
        // A transaction that was begun in records which are gone cannot be found again.
        if self.damaged || (is_last && context.unfinished) {
            return;
        }
        let listed: BTreeMap<Offset, &AbortedTxn> = txns.iter().map(|txn| (txn.last_offset, txn)).collect();
        for (offset, producer) in &segment.aborted {
            if listed.get(offset).is_none_or(|txn| txn.producer_id != *producer) {
                let what = format!("lacks the transaction of producer {producer} that was aborted at {offset}");
                segment.wrong.entry("txnindex").or_insert(what);
            }
        }
        // Compaction keeps entries longer than markers.
        let extra = listed.iter().find(|(offset, txn)| {
            segment.markers.get(offset).is_none_or(|producer| *producer != txn.producer_id) && !context.may_have_gaps
        });
        if let Some((offset, txn)) = extra {
            let what =
                format!("names a transaction of producer {} aborted at {offset}, which is none", txn.producer_id);
            segment.wrong.entry("txnindex").or_insert(what);
        }
    }

    pub(super) fn finish(&mut self, context: VerifyContext, report: &mut PartitionReport) {
        for offset in std::mem::take(&mut self.snapshots) {
            let path = segment_path(&self.dir, offset, "snapshot");
            let what = match read_small(&path, SNAPSHOT_BYTES_MAX) {
                Ok(Some(bytes)) => match parse_snapshot(&bytes) {
                    Ok(_) if offset > report.end_offset && !context.unfinished => {
                        format!("of offset {offset}, behind the log's end {}", report.end_offset)
                    }
                    Ok(_) => continue,
                    Err(reason) => reason,
                },
                Ok(None) => continue,
                Err(error) => format!("cannot be read: {error}"),
            };
            report.note(Level::Rebuildable, path, what);
        }
        self.check_epochs(context, report);
    }

    fn check_epochs(&self, context: VerifyContext, report: &mut PartitionReport) {
        let path = self.dir.join(LEADER_EPOCH_CHECKPOINT);
        let Some((first, _)) = self.epochs.entries().first() else { return };
        let rebuildable = |what: String| {
            let finding =
                Finding { level: Level::Rebuildable, file: path.clone(), positions: None, offsets: None, what };
            Some(finding)
        };
        let finding = match read_epochs(&path) {
            // Written with the first flush.
            Ok(None) if context.unfinished => None,
            Ok(None) => rebuildable(format!("missing: the batches have epochs from {first} on")),
            Err(error) => rebuildable(error.to_string()),
            Ok(Some((_, Some(damaged)))) => rebuildable(damaged),
            Ok(Some((entries, None))) => {
                let newest = entries.last().map_or(-1, |(epoch, _)| *epoch);
                let known = EpochCache::new(entries);
                let wrong = self.epochs.entries().iter().find(|(epoch, start)| {
                    // The newest may not have been written yet.
                    known.for_offset(*start) != Some(*epoch) && !(context.unfinished && *epoch > newest)
                });
                wrong.and_then(|(epoch, start)| rebuildable(format!("epoch {epoch} begins at {start} in the batches")))
            }
        };
        if let Some(finding) = finding {
            report.found(finding);
        }
    }
}

/// Whether all of an index made sense. A JVM Kafka that was not stopped leaves zeros behind the last entry.
fn check_entries(
    wrong: &mut BTreeMap<&'static str, String>,
    kind: Kind,
    bytes: &[u8],
    entries: usize,
    entry_bytes: usize,
) {
    let rest = bytes.get(entries * entry_bytes..).unwrap_or_default();
    if rest.iter().any(|byte| *byte != 0) {
        let what = format!("entry {entries} does not rise above the one before, or is cut off");
        wrong.entry(kind.suffix()).or_insert(what);
    }
}
