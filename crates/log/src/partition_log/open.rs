//! Making a log's folder, and opening one: leftovers of interrupted work are finished or removed, the segments are
//! listed, and then either a clean stop is believed (nothing of the segments is read) or the tail is recovered.
//! Answers to Kafka's `LogLoader`.
//!
//! Damaged ranges that recovery found are kept in `taccola.quarantine`, a text file of ours in the partition's folder (a
//! JVM Kafka ignores it), so that a later clean start still knows them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use taccola_base::{TopicPartition, Uuid};

use super::PartitionLog;
use super::types::{OpenHints, QuarantinedRange, RecoveryReport};
use crate::checkpoint::{LEADER_EPOCH_CHECKPOINT, read_epochs, read_partition_metadata, write_partition_metadata};
use crate::config::LogConfig;
use crate::epoch_cache::EpochCache;
use crate::error::LogError;
use crate::file::{read_small, remove_if_exists, write_atomically};
use crate::scan::{Bounds, Scanner, Step};
use crate::segment::{Kind, Segment, segment_path};
use crate::shared::LogShared;

/// Larger producer snapshots are not read: more than the limit of producers, each with five batches, can fill.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 32 * 1024 * 1024;
const QUARANTINE_FILE: &str = "taccola.quarantine";
const QUARANTINE_BYTES_MAX: u64 = 1024 * 1024;
/// Ranges named in the file; more damage than this is still kept on disk, and found again by whoever reads it.
const QUARANTINE_RANGES_MAX: usize = 1024;

/// What a partition's folder holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Base offset → size of the `.log`.
    pub(crate) logs: BTreeMap<i64, u64>,
    /// Offsets of `.snapshot` files.
    pub(crate) snapshots: Vec<i64>,
    /// Base offsets of files that belong to a `.log`.
    pub(crate) indexes: Vec<(i64, Kind)>,
    /// `.deleted`, `.cleaned` and `.tmp` files.
    pub(crate) leftovers: Vec<PathBuf>,
    /// `.swap` files: the name they get, and whether that is a `.log`.
    pub(crate) swaps: Vec<(PathBuf, PathBuf, bool)>,
    pub(crate) has_epochs: bool,
}

impl Listing {
    pub(crate) fn read(dir: &Path) -> Result<Self, LogError> {
        let io_error = |e| LogError::io("list", dir, e);
        let mut listing = Self::default();
        for entry in std::fs::read_dir(dir).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            let path = entry.path();
            let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
            if [".deleted", ".cleaned", ".tmp"].iter().any(|suffix| name.ends_with(suffix)) {
                listing.leftovers.push(path);
            } else if let Some(final_name) = name.strip_suffix(".swap") {
                let is_log = parse_name(final_name).is_some_and(|(_, suffix)| suffix == "log");
                let target = dir.join(final_name);
                listing.swaps.push((path, target, is_log));
            } else if let Some((offset, suffix)) = parse_name(name) {
                if suffix == "log" {
                    listing.logs.insert(offset, entry.metadata().map_err(io_error)?.len());
                } else if suffix == "snapshot" {
                    listing.snapshots.push(offset);
                } else if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.suffix() == suffix) {
                    listing.indexes.push((offset, kind));
                }
            } else if name == LEADER_EPOCH_CHECKPOINT {
                listing.has_epochs = true;
            }
        }
        listing.snapshots.sort_unstable();
        Ok(listing)
    }
}

/// `00000000000000000042.log` → `(42, "log")`.
fn parse_name(name: &str) -> Option<(i64, &str)> {
    let (offset, suffix) = name.split_once('.')?;
    let digits = offset.len() == 20 && offset.bytes().all(|b| b.is_ascii_digit());
    Some((offset.parse().ok().filter(|_| digits)?, suffix))
}

impl PartitionLog {
    /// An empty log, whose folder `<log_dir>/<topic>-<partition>` is made by the first write. Fails if it exists.
    pub fn create(
        log_dir: &Path,
        topic_partition: TopicPartition,
        topic_id: Option<Uuid>,
        config: Arc<LogConfig>,
        shared: Arc<LogShared>,
    ) -> Result<Self, LogError> {
        let dir = log_dir.join(topic_partition.to_string());
        if std::fs::symlink_metadata(&dir).is_ok() {
            let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(LogError::io("create", &dir, exists));
        }
        let mut log = Self::assemble(dir, topic_partition, topic_id, config, shared, vec![Segment::new_empty(0)], 0);
        log.unborn = true;
        log.producers = OnceLock::from(Box::default());
        log.epochs = OnceLock::from(Box::default());
        Ok(log)
    }

    /// Makes the folder and the files of an empty log, if they are not there. The next flush makes them durable: whoever
    /// needs the log before that finds its batches in the journal, and its name in the metadata.
    pub fn make_folder(&mut self) -> Result<(), LogError> {
        if !self.unborn {
            return Ok(());
        }
        self.check_online()?;
        match self.make_files() {
            Err(error @ LogError::NoSpace { .. }) => Err(error),
            made => made.map_err(|error| self.go_offline(error)),
        }
    }

    fn make_files(&mut self) -> Result<(), LogError> {
        match crate::file::create_dir(&self.dir) {
            // An attempt that ended for lack of space.
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(LogError::io("create", &self.dir, e));
            }
            _ => {}
        }
        if let Some(topic_id) = self.topic_id {
            write_partition_metadata(&self.dir, topic_id)?;
        }
        self.active_segment().create_files(&self.shared, &self.dir)?;
        self.unborn = false;
        self.birth_dirty = true;
        self.dir_dirty = true;
        Ok(())
    }

    /// Notes whose log this is, for a folder that does not say.
    pub fn adopt_topic_id(&mut self, topic_id: Uuid) -> Result<(), LogError> {
        if self.topic_id.is_none() {
            self.topic_id = Some(topic_id);
            if !self.unborn {
                write_partition_metadata(&self.dir, topic_id)?;
                self.birth_dirty = true;
                self.dir_dirty = true;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn assemble(
        dir: PathBuf,
        topic_partition: TopicPartition,
        topic_id: Option<Uuid>,
        config: Arc<LogConfig>,
        shared: Arc<LogShared>,
        segments: Vec<Segment>,
        now_ms: i64,
    ) -> Self {
        Self {
            topic_partition,
            topic_id,
            dir,
            config,
            shared,
            segments,
            log_start_offset: 0,
            log_end_offset: 0,
            high_watermark: 0,
            recovery_point: 0,
            opened_ms: now_ms,
            last_flush_ms: now_ms,
            active: None,
            producers: OnceLock::new(),
            verifications: Default::default(),
            epochs: OnceLock::new(),
            snapshots: Vec::new(),
            unsynced_snapshots: Vec::new(),
            dir_dirty: false,
            unborn: false,
            birth_dirty: false,
            sealed_for_close: false,
            flush_running: false,
            flush_limit: i64::MAX,
            offline: None,
            compacted: false,
            cleaned_to: 0,
            quarantined: Vec::new(),
            healed: 0,
            removals: Vec::new(),
            copied_to: 0,
            remote_start: None,
            expired_before: -1,
            late_reports: Vec::new(),
            txn_sums: OnceLock::new(),
            last_append_time_ms: -1,
            repaired_from: None,
        }
    }

    /// Opens an existing folder. After a clean stop nothing of the segments is read. `topic_id`, when given, must be
    /// the folder's; a folder without `partition.metadata` gets one. The high watermark begins at the log start offset.
    pub fn open(
        log_dir: &Path,
        topic_partition: TopicPartition,
        topic_id: Option<Uuid>,
        config: Arc<LogConfig>,
        shared: Arc<LogShared>,
        hints: OpenHints,
        now_ms: i64,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let dir = log_dir.join(topic_partition.to_string());
        let mut report = RecoveryReport::default();
        let topic_id = settle_topic_id(&dir, &topic_partition, topic_id)?;
        let mut listing = Listing::read(&dir)?;
        if !listing.leftovers.is_empty() || !listing.swaps.is_empty() {
            finish_interrupted_work(&dir, &shared, &listing, &mut report)?;
            listing = Listing::read(&dir)?;
        }
        remove_orphans(&dir, &mut listing, &mut report)?;
        let segments: Vec<_> = listing.logs.iter().map(|(base, size)| Segment::existing(*base, *size)).collect();
        for segment in &segments {
            let indexed = listing.indexes.contains(&(segment.base_offset, Kind::OffsetIndex));
            if !indexed && segment.size > u64::from(config.index_interval_bytes) {
                segment.index_suspect.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let mut log = Self::assemble(dir, topic_partition, topic_id, config, shared, segments, now_ms);
        if log.segments.is_empty() {
            let segment = Segment::new_empty(hints.log_start_offset.max(0));
            segment.create_files(&log.shared, &log.dir)?;
            log.segments.push(segment);
            log.dir_dirty = true;
            log.birth_dirty = true;
        }
        log.compacted = hints.compacted;
        log.cleaned_to = hints.cleaned_to;
        log.snapshots = listing.snapshots;
        log.load_quarantine(&mut report);
        let is_clean = hints.clean
            && match log.believe_clean_stop(&hints) {
                Err(error) if error.is_unreadable() => false,
                believed => believed?,
            };
        // What the disk could not read counts as if it had just been written: producers, epochs and indexes lack it.
        let readable_again = log.readable_again();
        let is_clean = is_clean && readable_again.is_none();
        // Who ended without a word may have made the folder just before.
        log.birth_dirty |= !is_clean;
        if hints.check_all {
            log.recover_all(hints.recovery_point, now_ms, &mut report)?;
        } else if !is_clean {
            let point = hints.recovery_point;
            if let Some(base) = readable_again {
                log.remove_snapshots(|offset| offset > base)?;
            }
            log.recover(readable_again.map_or(point, |base| base.min(point)), point, now_ms, &mut report)?;
        }
        log.settle_offsets(&hints, is_clean, &mut report);
        log.tell_missing_beginning(&hints);
        // A log that was never flushed has none yet.
        if !listing.has_epochs && log.size_bytes() > 0 && hints.recovery_point > log.log_start_offset {
            report.notes.push("the leader epoch checkpoint is missing; made anew from the batches".to_owned());
        }
        Ok((log, report))
    }

    /// Sets the log end offset from the checkpoint if nothing speaks against it; false when the tail must be recovered.
    fn believe_clean_stop(&mut self, hints: &OpenHints) -> Result<bool, LogError> {
        let (base, size) = (self.active_segment().base_offset, self.active_segment().size);
        let point = hints.recovery_point;
        if size == 0 {
            self.log_end_offset = base;
            // Behind an empty file more was on disk once.
            return Ok(point <= base);
        }
        // A clean stop leaves a producer snapshot at the log end offset: two files then agree on it.
        if point > base && self.snapshots.last() == Some(&point) {
            self.log_end_offset = point;
            return Ok(true);
        }
        let Some(end) = self.end_of_active()? else { return Ok(false) };
        self.log_end_offset = end;
        Ok(end >= point)
    }

    /// Walks the headers behind the last index entry of the active segment; `None` unless they lead to its end, without
    /// a gap where none can be.
    fn end_of_active(&self) -> Result<Option<i64>, LogError> {
        let segment = self.active_segment();
        let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
        let mut entry = segment.last_index_entry(&self.shared, &self.dir)?;
        let mut scanner = Scanner::new(&*log, entry.map_or(0, |(_, position)| position), segment.size);
        let mut bounds = Bounds { offset_min: segment.base_offset, offset_end: segment.offset_limit() };
        loop {
            let step = scanner.peek(bounds).map_err(|e| LogError::io("read", segment.path(&self.dir, Kind::Log), e))?;
            match step {
                Step::Batch(header) => {
                    let is_gap = match entry.take() {
                        Some((last_offset, _)) if last_offset != header.last_offset() => return Ok(None),
                        Some(_) => false,
                        None => header.base_offset != bounds.offset_min,
                    };
                    if is_gap && !self.may_have_gaps() {
                        return Ok(None);
                    }
                    bounds.offset_min = header.next_offset();
                    scanner.advance(&header);
                }
                Step::End => return Ok(entry.is_none().then_some(bounds.offset_min)),
                Step::Bad(_) => return Ok(None),
            }
        }
    }

    /// Retention notes in the leader epochs where the log begins. If they begin earlier than the first segment, either a crash
    /// came in between, or segments are gone that should be there.
    fn tell_missing_beginning(&self, hints: &OpenHints) {
        let first = self.segments.first().map_or(0, |segment| segment.base_offset);
        if first <= hints.log_start_offset || self.config.remote_storage_enable {
            return;
        }
        let epochs = read_epochs(&self.dir.join(LEADER_EPOCH_CHECKPOINT)).ok().flatten();
        let began = epochs.and_then(|(entries, _)| entries.first().map(|(_, start)| *start));
        if let Some(began) = began.filter(|began| *began < first) {
            let log = &self.topic_partition;
            tracing::warn!(%log, from = began, to = first, "the log's first segments are not here: unfinished retention, a log that was tiered, or loss");
        }
    }

    fn settle_offsets(&mut self, hints: &OpenHints, is_clean: bool, report: &mut RecoveryReport) {
        let first = self.segments.first().map_or(0, |segment| segment.base_offset);
        self.log_start_offset = first;
        if hints.log_start_offset > self.log_end_offset {
            // Either records behind it were lost before they were flushed, or the checkpoint is damaged. Believing it
            // would hide every record that is there.
            report.notes.push(format!(
                "log start offset {} of the checkpoint is above the log end offset {}; not used",
                hints.log_start_offset, self.log_end_offset
            ));
        } else {
            self.log_start_offset = hints.log_start_offset.max(first);
            // A tiered log's older part is not here.
            if hints.log_start_offset < first {
                self.remote_start = Some(hints.log_start_offset.max(0));
            }
            if self.config.remote_storage_enable {
                self.log_start_offset = self.remote_start.take().unwrap_or(self.log_start_offset);
            }
        }
        self.high_watermark = self.log_start_offset;
        if is_clean {
            self.recovery_point = self.log_end_offset;
        } else {
            self.recovery_point = hints.recovery_point.clamp(0, self.log_end_offset);
        }
    }

    // -- leader epochs -----------------------------------------------------------------------------------------------

    pub(super) fn load_epochs(&self) -> EpochCache {
        let path = self.dir.join(LEADER_EPOCH_CHECKPOINT);
        let is_empty = self.size_bytes() == 0;
        match read_epochs(&path) {
            Ok(Some((entries, None))) if is_empty || entries.first().is_some_and(|e| e.1 <= self.log_start_offset) => {
                return EpochCache::new(entries);
            }
            Ok(None) if is_empty => return EpochCache::default(),
            Ok(Some((_, damaged))) => {
                tracing::warn!(path = %path.display(), ?damaged, "leader epochs are made anew from the batches");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "leader epochs are made anew from the batches")
            }
        }
        let mut epochs = EpochCache::default();
        for (i, segment) in self.segments.iter().enumerate().filter(|(_, segment)| segment.size > 0) {
            let Ok(log) = segment.open(&self.shared, &self.dir, Kind::Log) else { continue };
            let _ = segment.walk(&*log, 0, self.segment_end(i), |header, _| {
                epochs.assign(header.partition_leader_epoch, header.base_offset);
                false
            });
        }
        epochs.set_dirty();
        epochs
    }

    // -- quarantine --------------------------------------------------------------------------------------------------

    fn load_quarantine(&mut self, report: &mut RecoveryReport) {
        let path = self.dir.join(QUARANTINE_FILE);
        match read_small(&path, QUARANTINE_BYTES_MAX) {
            Ok(None) => {}
            Ok(Some(text)) => {
                let (ranges, sane) = parse_quarantine(&text);
                if !sane {
                    report.notes.push(format!("{QUARANTINE_FILE} is damaged; what could be read is used"));
                }
                let is_here = |range: &QuarantinedRange| {
                    self.segments.iter().any(|segment| {
                        segment.base_offset == range.segment_base_offset && segment.size >= range.start_position
                    })
                };
                let named = ranges.len();
                self.quarantined = ranges.into_iter().filter(is_here).collect();
                if !sane || self.quarantined.len() != named {
                    // What is wrong now could come to fit when the log has grown, and hide what is written there.
                    if let Err(error) = self.save_quarantine() {
                        report.notes.push(format!("{QUARANTINE_FILE} is out of date and stays: {error}"));
                    }
                }
            }
            Err(error) => report.notes.push(format!("{QUARANTINE_FILE} cannot be read: {error}")),
        }
    }

    /// The first segment with a range that the disk could not read once and can read now.
    fn readable_again(&self) -> Option<i64> {
        let is_whole = |range: &&QuarantinedRange| {
            let segment = self.segments.iter().find(|segment| segment.base_offset == range.segment_base_offset);
            segment.is_some_and(|segment| self.is_whole(segment, range).unwrap_or(false))
        };
        let unreadable = self.quarantined.iter().filter(|range| range.reason.starts_with(crate::verify::UNREADABLE));
        unreadable.filter(is_whole).map(|range| range.segment_base_offset).min()
    }

    /// Whether batches with the right checksums fill a range.
    fn is_whole(&self, segment: &Segment, range: &QuarantinedRange) -> Result<bool, LogError> {
        let log = segment.open(&self.shared, &self.dir, Kind::Log)?;
        let mut scanner = Scanner::new(&*log, range.start_position, range.end_position);
        let mut bounds = Bounds { offset_min: range.first_offset, offset_end: range.next_valid_offset };
        loop {
            match scanner
                .peek_checked(bounds)
                .map_err(|e| LogError::io("read", segment.path(&self.dir, Kind::Log), e))?
            {
                Step::Batch(header) => {
                    bounds.offset_min = header.next_offset();
                    scanner.advance(&header);
                }
                Step::End => return Ok(range.start_position < range.end_position),
                Step::Bad(_) => return Ok(false),
            }
        }
    }

    /// Writes the known ranges; called whenever they change.
    pub(super) fn save_quarantine(&self) -> Result<(), LogError> {
        let path = self.dir.join(QUARANTINE_FILE);
        if self.quarantined.is_empty() {
            return remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e));
        }
        let mut text = String::from("0\n");
        for range in self.quarantined.iter().take(QUARANTINE_RANGES_MAX) {
            let reason = range.reason.replace('\n', " ");
            let (base, start, end) = (range.segment_base_offset, range.start_position, range.end_position);
            let _ = writeln!(text, "{base} {start} {end} {} {} {reason}", range.first_offset, range.next_valid_offset);
        }
        write_atomically(&path, text.as_bytes()).map_err(|e| LogError::io("write", &path, e))
    }
}

/// The ranges in the text of a `taccola.quarantine`, and whether all of it made sense.
pub fn parse_quarantine(text: &[u8]) -> (Vec<QuarantinedRange>, bool) {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let mut sane = lines.next() == Some("0");
    let mut ranges = Vec::new();
    for line in lines.take(QUARANTINE_RANGES_MAX) {
        match parse_quarantine_line(line) {
            Some(range) => ranges.push(range),
            None => sane = false,
        }
    }
    (ranges, sane)
}

fn parse_quarantine_line(line: &str) -> Option<QuarantinedRange> {
    let mut words = line.splitn(6, ' ');
    let range = QuarantinedRange {
        segment_base_offset: words.next()?.parse().ok()?,
        start_position: words.next()?.parse().ok()?,
        end_position: words.next()?.parse().ok()?,
        first_offset: words.next()?.parse().ok()?,
        next_valid_offset: words.next()?.parse().ok()?,
        reason: words.next()?.chars().take(200).collect(),
    };
    let sane = range.start_position <= range.end_position && range.first_offset <= range.next_valid_offset;
    sane.then_some(range)
}

fn settle_topic_id(dir: &Path, tp: &TopicPartition, expected: Option<Uuid>) -> Result<Option<Uuid>, LogError> {
    match (read_partition_metadata(dir)?, expected) {
        (Some(found), Some(expected)) if found != expected => {
            Err(LogError::InconsistentTopicId { log: tp.to_string(), found, expected })
        }
        (None, Some(expected)) => {
            write_partition_metadata(dir, expected)?;
            Ok(Some(expected))
        }
        (found, _) => Ok(found),
    }
}

/// Removes files of removals and compactions that were not finished, and completes the swaps that were.
fn finish_interrupted_work(
    dir: &Path,
    shared: &Arc<LogShared>,
    listing: &Listing,
    report: &mut RecoveryReport,
) -> Result<(), LogError> {
    // A `.cleaned` log means that the swap of its group was not complete when the swap files at or above it were made.
    let cleaned = listing.leftovers.iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".cleaned")?;
        parse_name(name).map(|(offset, _)| offset)
    });
    let cleaned_min = cleaned.min().unwrap_or(i64::MAX);
    for path in &listing.leftovers {
        remove_if_exists(path).map_err(|e| LogError::io("remove", path, e))?;
        report.notes.push(format!("removed the leftover {}", path.display()));
    }
    let base_of =
        |path: &PathBuf| path.file_name().and_then(OsStr::to_str).and_then(parse_name).map_or(0, |(base, _)| base);
    let mut damaged = Vec::new();
    for (swap, target, is_log) in
        listing.swaps.iter().filter(|(_, _, is_log)| *is_log).chain(listing.swaps.iter().filter(|s| !s.2))
    {
        if base_of(target) >= cleaned_min || damaged.contains(&base_of(target)) {
            remove_if_exists(swap).map_err(|e| LogError::io("remove", swap, e))?;
            continue;
        }
        if *is_log {
            let (covered_to, is_whole) = read_swap(shared, swap, base_of(target))?;
            // Of the segments that it replaces the first goes first: as long as that is there, they all are.
            if !is_whole && listing.logs.contains_key(&base_of(target)) {
                report.notes.push(format!("{} is damaged; what it was to replace stays", swap.display()));
                remove_if_exists(swap).map_err(|e| LogError::io("remove", swap, e))?;
                damaged.push(base_of(target));
                continue;
            }
            remove_replaced(dir, listing, base_of(target), covered_to)?;
        }
        crate::file::rename(swap, target).map_err(|e| LogError::io("rename", swap, e))?;
        report.notes.push(format!("completed the replacement of {}", target.display()));
    }
    shared.sync_dir(dir).map_err(|e| LogError::io("flush", dir, e))
}

/// Up to which offset (exclusive) a `.log.swap` holds what there is, and whether all of it can be read.
fn read_swap(shared: &Arc<LogShared>, swap: &Path, base: i64) -> Result<(i64, bool), LogError> {
    let io_error = |e| LogError::io("read", swap, e);
    let file = shared.open_once(swap, false).map_err(io_error)?;
    let length = file.len().map_err(io_error)?;
    let mut scanner = Scanner::new(&*file, 0, length);
    let mut bounds = Bounds { offset_min: base, offset_end: i64::MAX };
    let is_whole = loop {
        match scanner.peek_checked(bounds) {
            Ok(Step::Batch(header)) => {
                bounds.offset_min = header.next_offset();
                scanner.advance(&header);
            }
            Ok(Step::End) => break length > 0,
            Ok(Step::Bad(_)) => break false,
            Err(error) if crate::salvage::is_unreadable(&error) => break false,
            Err(error) => return Err(io_error(error)),
        }
    };
    Ok((bounds.offset_min.max(base + 1), is_whole))
}

/// Removes the segments whose records a `.log.swap` holds.
fn remove_replaced(dir: &Path, listing: &Listing, base: i64, covered_to: i64) -> Result<(), LogError> {
    for old in listing.logs.keys().filter(|old| (base..covered_to).contains(*old)) {
        for kind in Kind::ALL {
            let path = segment_path(dir, *old, kind.suffix());
            remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
        }
    }
    Ok(())
}

/// Removes indexes without a log, and all snapshots but those at a segment's beginning and those in the last segment.
fn remove_orphans(dir: &Path, listing: &mut Listing, report: &mut RecoveryReport) -> Result<(), LogError> {
    for (base, kind) in &listing.indexes {
        if !listing.logs.contains_key(base) {
            let path = segment_path(dir, *base, kind.suffix());
            remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
            report.notes.push(format!("removed {}, which has no log", path.display()));
        }
    }
    let last_base = listing.logs.keys().next_back().copied().unwrap_or(0);
    let logs = &listing.logs;
    let keep = |offset: &i64| logs.contains_key(offset) || *offset > last_base;
    for offset in listing.snapshots.iter().filter(|offset| !keep(offset)) {
        let path = segment_path(dir, *offset, "snapshot");
        remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
    }
    listing.snapshots.retain(keep);
    Ok(())
}
