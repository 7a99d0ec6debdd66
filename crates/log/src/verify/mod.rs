//! Checks a partition's folder and changes nothing: every byte of the segments, and whether what is derived from them
//! (indexes, aborted transactions, producer snapshots, leader epochs) agrees with them. Nothing is believed because of a
//! clean stop. Answers to the sanity checks of Kafka's `LogSegment`, `DumpLogSegments --index-sanity-check`, and goes on
//! behind what is damaged.
//!
//! A folder that a broker writes to at the same time can be checked too: what its derived files do not have yet, and an
//! unfinished last batch, are no findings then.

mod derived;
mod segment;

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::checkpoint::{PARTITION_METADATA_FILE, read_partition_metadata};
use crate::error::LogError;
use crate::file::{open_read_only, read_small};
use crate::partition_log::{Listing, Offset, parse_quarantine};
use crate::salvage::Salvaged;
use crate::segment::segment_path;

pub(crate) use segment::{Damaged, SegmentBounds, UNREADABLE, walk_segment};

use derived::Derived;

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is wrong: unfinished work, or what a start will put right as a matter of course.
    Note,
    /// Can be made anew from the segments; wrong until then only in what it says.
    Rebuildable,
    /// Records cannot be read.
    Damage,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub file: PathBuf,
    /// Bytes of the file.
    pub positions: Option<Range<u64>>,
    /// Offsets that are concerned.
    pub offsets: Option<Range<Offset>>,
    pub what: String,
}

/// What is known about a folder besides what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyContext {
    /// Offsets may be missing: the log is or was compacted.
    pub may_have_gaps: bool,
    /// Written to at the same time, or not stopped cleanly: the newest of everything may be unfinished.
    pub unfinished: bool,
    /// All below must be there (the recovery point); 0 when not known.
    pub synced_to: Offset,
}

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct PartitionReport {
    pub segments: usize,
    pub bytes: u64,
    pub batches: u64,
    pub records: u64,
    pub start_offset: Offset,
    /// Exclusive.
    pub end_offset: Offset,
    pub findings: Vec<Finding>,
}

/// Findings of one folder; what is beyond is counted in a last note.
const FINDINGS_MAX: usize = 10_000;

impl PartitionReport {
    fn found(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else if let Some(last) = self.findings.last_mut() {
            "there is more than is listed here".clone_into(&mut last.what);
        }
    }

    fn note(&mut self, level: Level, file: PathBuf, what: impl Into<String>) {
        self.found(Finding { level, file, positions: None, offsets: None, what: what.into() });
    }
}

/// Checks one folder. `pace` hears of bytes read, and ends the check by answering false.
pub fn verify_partition(
    dir: &Path,
    context: VerifyContext,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<PartitionReport, LogError> {
    let mut report = PartitionReport::default();
    let listing = Listing::read(dir)?;
    match read_partition_metadata(dir) {
        Ok(Some(_)) => {}
        Ok(None) => report.note(
            Level::Rebuildable,
            dir.join(PARTITION_METADATA_FILE),
            "missing: which topic it is, the name says",
        ),
        Err(error) => report.note(Level::Rebuildable, dir.join(PARTITION_METADATA_FILE), error.to_string()),
    }
    for path in listing.leftovers.iter().chain(listing.swaps.iter().map(|(path, ..)| path)) {
        report.note(Level::Note, path.clone(), "of unfinished work: the next start finishes or removes it");
    }
    let mut derived = Derived::new(dir, &listing);
    let logs: Vec<(Offset, u64)> = listing.logs.iter().map(|(base, size)| (*base, *size)).collect();
    report.start_offset = logs.first().map_or(0, |(base, _)| *base);
    report.end_offset = report.start_offset;
    for (index, (base, size)) in logs.iter().enumerate() {
        let next_base = logs.get(index + 1).map(|(base, _)| *base);
        let place = Place { base: *base, size: *size, next_base };
        if !verify_segment(dir, place, context, &mut derived, &mut report, pace)? {
            return Ok(report);
        }
    }
    if report.end_offset < context.synced_to {
        let offsets = Some(report.end_offset..context.synced_to);
        let what = "the log ends before its recovery point".to_owned();
        let file = segment_path(dir, logs.last().map_or(0, |(base, _)| *base), "log");
        report.found(Finding { level: Level::Damage, file, positions: None, offsets, what });
    }
    derived.finish(context, &mut report);
    note_quarantined(dir, &mut report)?;
    Ok(report)
}

/// Walks one file of batches, whatever its name; the findings are what is no batch in it.
pub fn read_segment(
    path: &Path,
    visit: &mut dyn FnMut(&taccola_wire::batch::BatchHeader, u64, &[u8]),
) -> Result<Vec<Finding>, LogError> {
    let io_error = |e| LogError::io("read", path, e);
    let file = Salvaged::new(open_read_only(path).map_err(io_error)?);
    let size = crate::file::SegmentFile::len(&file).map_err(io_error)?;
    let bounds = SegmentBounds { base: 0, limit: i64::MAX, size, is_last: true, may_have_gaps: true };
    let walked = walk_segment(&file, bounds, visit, &mut |_| true).map_err(io_error)?;
    let finding = |damaged: Damaged| Finding {
        level: Level::Damage,
        file: path.to_path_buf(),
        positions: Some(damaged.positions),
        offsets: Some(damaged.offsets),
        what: damaged.reason,
    };
    Ok(walked.damaged.into_iter().map(finding).collect())
}

/// One segment among its neighbours.
struct Place {
    base: Offset,
    size: u64,
    next_base: Option<Offset>,
}

/// False: `pace` ended it.
fn verify_segment(
    dir: &Path,
    place: Place,
    context: VerifyContext,
    derived: &mut Derived,
    report: &mut PartitionReport,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<bool, LogError> {
    let path = segment_path(dir, place.base, "log");
    let file = match open_read_only(&path) {
        Ok(file) => Salvaged::new(file),
        // Retention or compaction took it while the folder was being read.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && context.unfinished => return Ok(true),
        Err(e) => return Err(LogError::io("open", &path, e)),
    };
    let bounds = SegmentBounds {
        base: place.base,
        limit: place.next_base.unwrap_or(place.base.saturating_add(i64::from(i32::MAX) + 1)),
        size: place.size,
        is_last: place.next_base.is_none(),
        may_have_gaps: context.may_have_gaps,
    };
    let segments_before = report.segments;
    report.segments += 1;
    derived.begin_segment(place.base, place.size, report);
    let walked = {
        let mut visit = |header: &taccola_wire::batch::BatchHeader, position: u64, batch: &[u8]| {
            report.batches += 1;
            report.records += u64::from(header.records_count.unsigned_abs());
            derived.batch(header, position, batch);
        };
        walk_segment(&file, bounds, &mut visit, pace).map_err(|e| LogError::io("read", &path, e))?
    };
    report.bytes += walked.end_position;
    for Damaged { positions, offsets, reason, torn } in walked.damaged {
        let unfinished = torn && context.unfinished && offsets.start >= context.synced_to;
        let (level, what) = match unfinished {
            true => (Level::Note, format!("an unfinished batch at the log's end: {reason}")),
            false => (Level::Damage, reason),
        };
        derived.damaged |= level == Level::Damage;
        report.found(Finding { level, file: path.clone(), positions: Some(positions), offsets: Some(offsets), what });
    }
    if walked.stopped {
        return Ok(false);
    }
    report.end_offset = walked.end_offset;
    derived.end_segment(place.next_base.is_none(), walked.end_position, context, report);
    if let Some(next) = place.next_base
        && walked.end_offset < next
        && !context.may_have_gaps
        && !(place.size == 0 && segments_before == 0)
    {
        let offsets = Some(walked.end_offset..next);
        let positions = Some(walked.end_position..walked.end_position);
        let what = "the file ends before the next segment's first offset".to_owned();
        report.found(Finding { level: Level::Damage, file: path, positions, offsets, what });
    }
    Ok(true)
}

/// What recovery or the scrubber found before, as far as it is not among the findings anyway.
fn note_quarantined(dir: &Path, report: &mut PartitionReport) -> Result<(), LogError> {
    const BYTES_MAX: u64 = 1024 * 1024;
    let path = dir.join("taccola.quarantine");
    let Some(text) = read_small(&path, BYTES_MAX).map_err(|e| LogError::io("read", &path, e))? else { return Ok(()) };
    let (ranges, sane) = parse_quarantine(&text);
    if !sane {
        report.note(Level::Rebuildable, path, "cannot be read to its end");
    }
    for range in ranges {
        let file = segment_path(dir, range.segment_base_offset, "log");
        let same = |finding: &Finding| {
            finding.file == file
                && finding
                    .offsets
                    .as_ref()
                    .is_some_and(|offsets| offsets.start < range.next_valid_offset && range.first_offset < offsets.end)
        };
        let (first, next) = (range.first_offset, range.next_valid_offset);
        if let Some(known) = report.findings.iter_mut().find(|finding| same(finding)) {
            known.what.push_str(" (quarantined)");
        } else {
            let positions = Some(range.start_position..range.end_position);
            // All of it was just read, and is whole: what the disk could not read before has come back.
            let (level, what) = match range.reason.starts_with(UNREADABLE) && range.start_position < range.end_position
            {
                true => (Level::Note, format!("can be read again; was quarantined: {}", range.reason)),
                false => (Level::Damage, format!("quarantined: {}", range.reason)),
            };
            report.found(Finding { level, file, positions, offsets: Some(first..next), what });
        }
    }
    Ok(())
}
