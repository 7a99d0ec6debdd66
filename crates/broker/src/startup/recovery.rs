//! Opening the logs: what the segments hold, then what only the journal holds.
//!
//! After a clean stop nothing is read. Otherwise each log is scanned above its recovery point, and the journal's batches
//! are put where the segments lack them. Above the recovery point the journal has every batch that was acknowledged as
//! durable, so damage up there (a page that never reached the disk) is cut off and replaced from the journal; damage
//! below it is left to quarantine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use taccola_base::planted::{Bug, planted};
use taccola_base::topic::is_internal;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::journal::{
    self, EntryKind, Journal, JournalConfig, JournalEntry, JournalError, JournalIdentity, KeptJournal,
};
use taccola_log::log_dir::{self, CheckpointRead, FoundPartition};
use taccola_log::{
    AppendError, FlushPlan, LogConfig, LogError, LogShared, OpenHints, PartitionLog, RecoveryReport, Replayed,
};

use super::StartError;
use super::dirs::{LogDir, LogDirs, dir_error};

/// Threads that open logs, whatever the config says: each may hold a few buffers of a megabyte.
const OPEN_THREADS_MAX: usize = 64;
/// Logs whose files are open at the same time for a flush.
const FLUSHED_TOGETHER: usize = 256;

/// A log that was found in a log directory.
pub(super) struct OpenedLog {
    pub log: PartitionLog,
    /// Index into `log.dirs`.
    pub log_dir: usize,
    pub topic_id: Option<Uuid>,
    /// The folder was not there: its batches come from the journal alone.
    pub recreated: bool,
}

/// Everything in the log directories, open, and the journal, running.
pub(super) struct OpenedLogs {
    pub logs: BTreeMap<TopicPartition, OpenedLog>,
    pub journal: Journal,
    pub summary: RecoverySummary,
}

/// What recovery did, for the log and for the first line that people read.
#[derive(Clone, Debug, Default)]
pub struct RecoverySummary {
    pub clean: bool,
    pub logs: usize,
    pub bytes_scanned: u64,
    pub truncated_bytes: u64,
    pub replayed_batches: usize,
    pub quarantined_ranges: usize,
}

impl RecoverySummary {
    fn add(&mut self, other: &Self) {
        self.bytes_scanned += other.bytes_scanned;
        self.truncated_bytes += other.truncated_bytes;
        self.replayed_batches += other.replayed_batches;
        self.quarantined_ranges += other.quarantined_ranges;
    }
}

/// What the journal holds.
#[derive(Default)]
struct Entries {
    of: BTreeMap<(Uuid, i32), Vec<JournalEntry>>,
    /// Whose the newest entry of each name is: a topic may have been deleted and made again.
    newest: BTreeMap<TopicPartition, Uuid>,
}

impl Entries {
    fn push(&mut self, entry: JournalEntry) {
        self.newest.insert(TopicPartition::new(entry.topic.as_str(), entry.partition), entry.topic_id);
        self.of.entry((entry.topic_id, entry.partition)).or_default().push(entry);
    }

    /// The entries of a folder. Whose records one holds that does not say so itself, because it was made shortly before the
    /// power went or is damaged, the journal knows if it has something of it; else the metadata will.
    fn take(&mut self, found: &mut FoundPartition) -> Vec<JournalEntry> {
        if found.topic_id.is_none() {
            found.topic_id = self.newest.get(&found.topic_partition).copied();
        }
        let entries = found.topic_id.and_then(|id| self.of.remove(&(id, found.topic_partition.partition)));
        entries.unwrap_or_default()
    }
}

/// What was kept of the journal for directories that failed.
#[derive(Default)]
struct Kept {
    /// By the index of a directory that is back.
    entries: BTreeMap<usize, (KeptJournal, Entries)>,
    /// The files that they are from.
    replayed: Vec<PathBuf>,
    /// Logs that the other files have batches of: those are kept for directories that are not back.
    waiting: BTreeSet<(Uuid, i32)>,
}

impl Kept {
    fn read(first: &Path, dirs: &LogDirs, identity: &JournalIdentity) -> Result<Self, StartError> {
        let mut kept = Self::default();
        let failed = |path: &Path, error: JournalError| StartError::Journal(format!("{}: {error}", path.display()));
        for of_dir in journal::kept(first).map_err(|source| StartError::io("list", first, source))? {
            let path = of_dir.path.clone();
            if of_dir.logs.is_none() {
                tracing::warn!(path = %path.display(), "which logs a kept journal is for is not known");
            }
            let mut recovery = journal::open_kept(&path, identity.clone()).map_err(|error| failed(&path, error))?;
            if let Some(damage) = recovery.damage() {
                tracing::error!(path = %path.display(), %damage, "a kept journal is damaged: these acknowledged frames are lost");
            }
            let mut entries = Entries::default();
            while let Some(frame) = recovery.next_frame().map_err(|error| failed(&path, error))? {
                frame.entries.into_iter().for_each(|entry| entries.push(entry));
            }
            match dirs.dirs.iter().position(|dir| dir.id == of_dir.directory_id) {
                None => kept.waiting.extend(entries.of.into_keys().filter(|log| of_dir.may_be_of(log))),
                Some(index) => {
                    kept.entries.insert(index, (of_dir, entries));
                    kept.replayed.push(path);
                }
            }
        }
        Ok(kept)
    }

    /// Adds what is left, of logs whose folders never reached the disk, to the journal's own entries, which are later.
    /// Answers in which directory such logs are to be made; those of directories that are still missing are not.
    fn hand_over(
        &mut self,
        entries: &mut Entries,
        logs: &BTreeMap<TopicPartition, OpenedLog>,
    ) -> BTreeMap<(Uuid, i32), usize> {
        let mut placed = BTreeMap::new();
        for (index, (of_dir, earlier)) in std::mem::take(&mut self.entries) {
            for (at, topic_id) in earlier.newest {
                entries.newest.entry(at).or_insert(topic_id);
            }
            for (log, mut batches) in earlier.of {
                let topic = batches.first().map(|entry| entry.topic.as_str()).unwrap_or_default();
                if logs.contains_key(&TopicPartition::new(topic, log.1)) || !of_dir.may_be_of(&log) {
                    continue;
                }
                placed.insert(log, index);
                let later = entries.of.entry(log).or_default();
                batches.append(later);
                *later = batches;
            }
        }
        placed
    }
}

/// What opening the logs needs of the broker.
pub(super) struct OpenContext<'a> {
    pub node_id: i32,
    pub journal_bytes: u64,
    /// `num.recovery.threads.per.data.dir`.
    pub threads_per_dir: usize,
    pub shared: &'a Arc<LogShared>,
    pub config_of: &'a (dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
    pub now_ms: i64,
}

/// Opens every log of every directory, replays the journal into them, and starts the journal anew.
pub(super) fn open_logs(dirs: &LogDirs, context: &OpenContext<'_>) -> Result<OpenedLogs, StartError> {
    let Some(first) = dirs.dirs.first() else { return Err(StartError::Config("log.dirs names no directory".into())) };
    let journal_error = |error: journal::JournalError| StartError::Journal(error.to_string());
    let config = JournalConfig::in_log_dir(&first.path).size_bytes(context.journal_bytes);
    let identity =
        JournalIdentity { cluster_id: dirs.cluster_id.clone(), node_id: context.node_id, directory_id: first.id };
    let mut recovery = open_journal(&first.path, &config, &identity)?;
    if let Some(damage) = recovery.damage() {
        // A single node has nowhere to repair from: the loss is named, and what is whole is served.
        tracing::error!(%damage, "the journal is damaged: these acknowledged frames are lost");
        recovery.accept_damage();
    }
    let mut entries = Entries::default();
    while let Some(frame) = recovery.next_frame().map_err(journal_error)? {
        for entry in frame.entries {
            entries.push(entry);
        }
    }
    let mut summary = RecoverySummary { clean: true, ..Default::default() };
    let mut found = Vec::new();
    let mut kept = Kept::read(&first.path, dirs, &identity)?;
    for (index, dir) in dirs.dirs.iter().enumerate() {
        let mut of_dir = scan_dir(dir, index, &mut entries, &mut summary)?;
        if let Some((_, earlier)) = kept.entries.get_mut(&index) {
            for log in &mut of_dir {
                let later = std::mem::replace(&mut log.journaled, earlier.take(&mut log.found));
                log.journaled.extend(later);
            }
        }
        found.extend(of_dir);
    }
    let mut logs = open_found(found, dirs, context, &mut summary)?;
    let placed = kept.hand_over(&mut entries, &logs);
    entries.of.retain(|log, _| placed.contains_key(log) || !kept.waiting.contains(log));
    recreate_logs(dirs, entries, &placed, context, &mut summary, &mut logs)?;
    flush_opened(dirs, &mut logs, context.now_ms)?;
    for path in &kept.replayed {
        journal::remove_kept(path).map_err(|source| StartError::io("remove", path, source))?;
    }
    let lacks = |dir: &LogDir| !dir.path.join(log_dir::RECOVERY_POINT_CHECKPOINT).is_file();
    if !recovery.was_clean() || dirs.dirs.iter().any(lacks) {
        write_recovery_points(dirs, &logs)?;
    }
    journal::raise_marker(&first.path).map_err(|source| StartError::io("mark", &first.path, source))?;
    let journal = recovery.start(crate::random::uuid()).map_err(journal_error)?;
    summary.logs = logs.len();
    Ok(OpenedLogs { logs, journal, summary })
}

/// Opens the journal. A damaged one that held nothing, as after a clean stop, is replaced; one that is damaged beyond
/// reading, or gone, while it held acknowledged records is for people to decide about.
fn open_journal(
    dir: &Path,
    config: &JournalConfig,
    identity: &JournalIdentity,
) -> Result<journal::Recovery, StartError> {
    let held_records = journal::marker_raised(dir);
    let decide = |what: String| {
        StartError::Journal(format!(
            "{what}; it held acknowledged records that the segments may lack. Put it back; or, to go on without them, remove \
             {} and the folder {} from {}: the log names what recovery then finds missing",
            journal::JOURNAL_FILE,
            journal::MARKER_DIR,
            dir.display()
        ))
    };
    if held_records && !dir.join(journal::JOURNAL_FILE).exists() {
        return Err(decide("the file is gone".to_owned()));
    }
    match journal::open(config.clone(), identity.clone()) {
        Err(error @ (JournalError::NotAJournal | JournalError::WrongLength { .. })) if held_records => {
            Err(decide(error.to_string()))
        }
        Err(error @ (JournalError::NotAJournal | JournalError::WrongLength { .. })) => {
            let aside = journal::set_aside(dir).map_err(|error| StartError::Journal(error.to_string()))?;
            tracing::error!(%error, moved_to = %aside.display(), "a damaged journal that held nothing is replaced");
            journal::open(config.clone(), identity.clone()).map_err(|error| StartError::Journal(error.to_string()))
        }
        opened => opened.map_err(|error| StartError::Journal(error.to_string())),
    }
}

/// A folder to be opened.
struct FoundLog {
    log_dir: usize,
    found: FoundPartition,
    hints: OpenHints,
    /// Whether the directory's recovery points are all there.
    names_all: bool,
    journaled: Vec<JournalEntry>,
}

/// What a directory holds. The mark of its clean stop is taken.
fn scan_dir(
    dir: &LogDir,
    index: usize,
    entries: &mut Entries,
    summary: &mut RecoverySummary,
) -> Result<Vec<FoundLog>, StartError> {
    let path = &dir.path;
    let failed = |error: LogError| dir_error(path, path.display().to_string(), error);
    let scan = log_dir::scan(path, journal::MARKER_DIR).map_err(failed)?;
    let clean = log_dir::take_clean_shutdown(path).map_err(failed)?.is_some();
    summary.clean &= clean || scan.partitions.is_empty();
    let CheckpointRead { offsets: recovery_points, damaged } = checkpoint(path, log_dir::RECOVERY_POINT_CHECKPOINT)?;
    // The journal lets go of nothing before this file names it.
    let names_all = damaged.is_none() && path.join(log_dir::RECOVERY_POINT_CHECKPOINT).is_file();
    let log_start_offsets = checkpoint(path, log_dir::LOG_START_OFFSET_CHECKPOINT)?.offsets;
    let cleaned = checkpoint(path, log_dir::CLEANER_CHECKPOINT)?.offsets;
    for deleted in &scan.to_delete {
        log_dir::remove_deleted_dir(deleted).map_err(failed)?;
    }
    let mut logs = Vec::with_capacity(scan.partitions.len());
    for mut found in scan.partitions {
        if let Some(reason) = found.metadata_error.take() {
            let partition = found.topic_partition.to_string();
            tracing::error!(partition, reason, "a damaged partition.metadata is set aside");
            log_dir::set_aside_partition_metadata(&found.path).map_err(failed)?;
        }
        let at = &found.topic_partition;
        let hints = OpenHints {
            recovery_point: recovery_points.get(at).copied().unwrap_or(0),
            log_start_offset: log_start_offsets.get(at).copied().unwrap_or(0),
            compacted: cleaned.contains_key(at) || is_internal(&at.topic),
            cleaned_to: cleaned.get(at).copied().unwrap_or(0),
            check_all: false,
            clean,
        };
        let journaled = entries.take(&mut found);
        logs.push(FoundLog { log_dir: index, found, hints, names_all, journaled });
    }
    Ok(logs)
}

/// Opens logs on `num.recovery.threads.per.data.dir` threads for each directory; the first failure ends it.
fn open_found(
    found: Vec<FoundLog>,
    dirs: &LogDirs,
    context: &OpenContext<'_>,
    summary: &mut RecoverySummary,
) -> Result<BTreeMap<TopicPartition, OpenedLog>, StartError> {
    let threads = open_threads(dirs, context).min(found.len()).max(1);
    let logs = BTreeMap::new();
    let state = Mutex::new((found.into_iter(), logs, std::mem::take(summary), None));
    let work = || {
        loop {
            let Some(next) = state.lock().0.next() else { return };
            let mut done = RecoverySummary::default();
            let opened = open_log(dirs, next, context, &mut done);
            let mut state = state.lock();
            state.2.add(&done);
            match opened {
                Ok(opened) => {
                    let at = opened.log.topic_partition().clone();
                    if let Some(other) = state.1.insert(at.clone(), opened) {
                        let reason =
                            format!("it stands in two log directories, one of them {}", other.log.dir().display());
                        state.3.get_or_insert(StartError::Log { partition: at.to_string(), reason });
                    }
                }
                Err(error) => {
                    state.3.get_or_insert(error);
                    state.0 = Vec::new().into_iter();
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let (_, logs, done, failure) = state.into_inner();
    *summary = done;
    failure.map_or(Ok(logs), Err)
}

fn open_threads(dirs: &LogDirs, context: &OpenContext<'_>) -> usize {
    #[cfg(test)]
    if crate::simulation::world::now_ms().is_some() {
        // Its world is that of one thread.
        return 1;
    }
    context.threads_per_dir.saturating_mul(dirs.dirs.len()).clamp(1, OPEN_THREADS_MAX)
}

fn open_log(
    dirs: &LogDirs,
    FoundLog { log_dir, found, hints, names_all, journaled }: FoundLog,
    context: &OpenContext<'_>,
    summary: &mut RecoverySummary,
) -> Result<OpenedLog, StartError> {
    let partition = found.topic_partition.to_string();
    let Some(dir) = dirs.dirs.get(log_dir) else { return Err(StartError::Config("no such log directory".into())) };
    let failed = |error: LogError| dir_error(&dir.path, partition.clone(), error);
    // Where nothing says what was flushed, a hole may be damage.
    let promised = if names_all || !journaled.is_empty() { hints.recovery_point } else { i64::MAX };
    let config = (context.config_of)(&found.topic_partition);
    let (shared, now_ms) = (context.shared.clone(), context.now_ms);
    let (mut log, report) =
        PartitionLog::open(&dir.path, found.topic_partition, found.topic_id, config, shared, hints, now_ms)
            .map_err(failed)?;
    tell(&partition, &report);
    summary.bytes_scanned += report.bytes_scanned;
    summary.truncated_bytes += report.truncated_bytes;
    summary.quarantined_ranges += report.quarantined.len();
    summary.replayed_batches += replay(&mut log, &hints, promised, &journaled, now_ms).map_err(failed)?;
    log.set_high_watermark(log.log_end_offset());
    Ok(OpenedLog { log, log_dir, topic_id: found.topic_id, recreated: false })
}

/// Logs whose folders the power took before they were synced. Those of deleted topics are removed once the metadata are
/// known.
fn recreate_logs(
    dirs: &LogDirs,
    entries: Entries,
    placed: &BTreeMap<(Uuid, i32), usize>,
    context: &OpenContext<'_>,
    summary: &mut RecoverySummary,
    logs: &mut BTreeMap<TopicPartition, OpenedLog>,
) -> Result<(), StartError> {
    let mut log_start_offsets = Vec::new();
    for dir in &dirs.dirs {
        log_start_offsets.push(checkpoint(&dir.path, log_dir::LOG_START_OFFSET_CHECKPOINT)?.offsets);
    }
    for ((topic_id, partition), journaled) in entries.of {
        let known = placed.get(&(topic_id, partition)).copied();
        let index = known.unwrap_or(0);
        let (Some(dir), Some(starts)) = (dirs.dirs.get(index), log_start_offsets.get(index)) else { continue };
        let Some(topic) = journaled.first().map(|entry| entry.topic.as_str()) else { continue };
        let at = TopicPartition::new(topic, partition);
        if logs.contains_key(&at) || entries.newest.get(&at) != Some(&topic_id) {
            tracing::info!(partition = %at, %topic_id, batches = journaled.len(), "journaled batches of a deleted topic");
            continue;
        }
        if let Some((path, reason)) = dirs.offline.first().filter(|_| known.is_none()) {
            // Acknowledged records: starting would void them.
            return Err(StartError::Journal(format!(
                "it holds {} batches of {at}, whose log may be in {}, which cannot be used ({reason}); bring the directory back",
                journaled.len(),
                path.display()
            )));
        }
        let failed = |error: LogError| dir_error(&dir.path, at.to_string(), error);
        let (config, shared) = ((context.config_of)(&at), context.shared.clone());
        let mut log = PartitionLog::create(&dir.path, at.clone(), Some(topic_id), config, shared).map_err(failed)?;
        let hints = OpenHints { log_start_offset: starts.get(&at).copied().unwrap_or(0), ..OpenHints::default() };
        summary.replayed_batches += replay(&mut log, &hints, 0, &journaled, context.now_ms).map_err(failed)?;
        log.set_high_watermark(log.log_end_offset());
        logs.insert(at, OpenedLog { log, log_dir: index, topic_id: Some(topic_id), recreated: true });
    }
    Ok(())
}

/// Syncs what recovery found and what it put back. What was only in the page cache is about to be served: it must not vanish
/// with the power any more. And the journal is voided next. After a clean stop there is nothing to sync.
fn flush_opened(dirs: &LogDirs, logs: &mut BTreeMap<TopicPartition, OpenedLog>, now_ms: i64) -> Result<(), StartError> {
    let mut opened: Vec<_> = logs.values_mut().collect();
    for some in opened.chunks_mut(FLUSHED_TOGETHER) {
        let failed = |opened: &OpenedLog, error: LogError| {
            let partition = opened.log.topic_partition().to_string();
            match dirs.dirs.get(opened.log_dir) {
                Some(dir) => dir_error(&dir.path, partition, error),
                None => StartError::Log { partition, reason: describe(&error) },
            }
        };
        let mut begun = Vec::new();
        let mut plans = Vec::new();
        for opened in some {
            if let Some(plan) = opened.log.begin_flush().map_err(|error| failed(opened, error))? {
                begun.push(opened);
                plans.push(plan);
            }
        }
        let results = FlushPlan::run_all(&plans);
        for (opened, (plan, result)) in begun.into_iter().zip(plans.into_iter().zip(results)) {
            opened.log.end_flush(plan, result, now_ms).map_err(|error| failed(opened, error))?;
        }
    }
    Ok(())
}

/// Puts the journal's batches where the log lacks them. Answers how many.
///
/// First they are written back to their places, which keeps whatever is whole behind them. A hole from `promised` on (below
/// it all was flushed) that is left then held batches that were never promised to survive: the log is cut off there, and
/// what the journal has behind it is appended again.
fn replay(
    log: &mut PartitionLog,
    hints: &OpenHints,
    promised: i64,
    journaled: &[JournalEntry],
    now_ms: i64,
) -> Result<usize, LogError> {
    let unusable = |log: &PartitionLog, entry: &JournalEntry, error: AppendError| LogError::BadFile {
        path: journal::JOURNAL_FILE.into(),
        reason: format!("offset {} of {}: {error}", entry.base_offset, log.topic_partition()),
    };
    let mut replayed = 0;
    let journaled = match journaled.split_last() {
        Some((_, older)) if planted(Bug::ReplayStopsShort) => older,
        _ => journaled,
    };
    for entry in journaled {
        if entry.kind == EntryKind::Truncate {
            log.truncate_to(entry.base_offset, now_ms)?;
            continue;
        }
        let outcome = log.replay(&entry.records, now_ms).map_err(|error| unusable(log, entry, error))?;
        replayed += usize::from(outcome != Replayed::Present);
    }
    if !journaled.is_empty() {
        log.finish_replay(now_ms)?;
    }
    let holes = log.quarantined().iter().map(|range| range.first_offset).filter(|first| *first >= promised);
    if let Some(first) = holes.min() {
        let partition = log.topic_partition().to_string();
        tracing::warn!(partition, from_offset = first, "cut off at batches that were not synced when the power went");
        log.truncate_to(first, now_ms)?;
        for entry in journaled.iter().filter(|entry| entry.kind == EntryKind::Append) {
            if entry.base_offset >= log.log_end_offset() {
                log.append_as_is(&entry.records, now_ms).map_err(|error| unusable(log, entry, error))?;
            }
        }
    }
    // What the checkpoint says was beyond the log's end before the replay.
    if (log.log_start_offset() + 1..=log.log_end_offset()).contains(&hints.log_start_offset) {
        log.delete_records_before(hints.log_start_offset, now_ms)?;
    }
    Ok(replayed)
}

fn tell(partition: &str, report: &RecoveryReport) {
    if report.truncated_bytes > 0 {
        let from = report.truncated_from_offset.unwrap_or(-1);
        tracing::warn!(partition, bytes = report.truncated_bytes, from_offset = from, "cut off a torn tail");
    }
    for range in &report.quarantined {
        tracing::error!(
            partition,
            first_offset = range.first_offset,
            next_valid_offset = range.next_valid_offset,
            bytes = range.end_position - range.start_position,
            reason = range.reason,
            "damaged records are quarantined"
        );
    }
    for note in &report.notes {
        tracing::info!(partition, note, "recovery");
    }
}

fn checkpoint(dir: &Path, file: &str) -> Result<CheckpointRead, StartError> {
    let failed = |error: LogError| dir_error(dir, dir.join(file).display().to_string(), error);
    let read = log_dir::read_offsets(dir, file).map_err(failed)?;
    if let Some(damage) = &read.damaged {
        tracing::warn!(file, damage, "a damaged checkpoint; what it does not say is found out by scanning");
    }
    Ok(read)
}

fn write_recovery_points(dirs: &LogDirs, logs: &BTreeMap<TopicPartition, OpenedLog>) -> Result<(), StartError> {
    for (index, dir) in dirs.dirs.iter().enumerate() {
        let of_dir = logs.values().filter(|opened| opened.log_dir == index);
        let points = of_dir.map(|opened| (opened.log.topic_partition().clone(), opened.log.recovery_point())).collect();
        log_dir::write_offsets(&dir.path, log_dir::RECOVERY_POINT_CHECKPOINT, &points)
            .map_err(|error| dir_error(&dir.path, dir.path.display().to_string(), error))?;
    }
    Ok(())
}

/// An error with its cause.
fn describe(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use taccola_base::config::{ServerConfig, Settings};
    use taccola_log::{AppendContext, AppendOrigin};
    use taccola_wire::batch::{BatchBuilder, Compression};

    use super::*;

    const NOW_MS: i64 = 0;

    struct World {
        _dir: tempfile::TempDir,
        dirs: LogDirs,
        shared: Arc<LogShared>,
        config: Arc<LogConfig>,
        at: TopicPartition,
    }

    impl World {
        /// A log of so many batches of one record, and a broker that was killed.
        fn killed(batches: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data").display().to_string();
            let settings: Settings =
                [("listeners", "PLAINTEXT://127.0.0.1:0"), ("log.dirs", path.as_str())].into_iter().collect();
            let dirs = crate::startup::dirs::open(&ServerConfig::load(&settings).unwrap().config, 0).unwrap();
            let (shared, config) = (LogShared::new(16), Arc::new(LogConfig::default()));
            let at = TopicPartition::new("t", 0);
            let path = &dirs.dirs[0].path;
            let mut log = PartitionLog::create(path, at.clone(), None, config.clone(), shared.clone()).unwrap();
            for _ in 0..batches {
                let mut batch = BatchBuilder::new(Compression::None);
                batch.append(0, None, Some(b"never acknowledged"), &[]);
                let mut batch = BytesMut::from(batch.build().unwrap().as_ref());
                let context = AppendContext { origin: AppendOrigin::Client, leader_epoch: 0, now_ms: NOW_MS };
                log.append(&mut batch, context).unwrap();
            }
            Self { _dir: dir, dirs, shared, config, at }
        }

        fn path(&self) -> &Path {
            &self.dirs.dirs[0].path
        }

        fn open(&self) -> PartitionLog {
            let context = OpenContext {
                node_id: 0,
                journal_bytes: 1 << 20,
                threads_per_dir: 2,
                shared: &self.shared,
                config_of: &|_| self.config.clone(),
                now_ms: NOW_MS,
            };
            open_logs(&self.dirs, &context).unwrap().logs.remove(&self.at).unwrap().log
        }
    }

    #[test]
    fn what_only_the_page_cache_held_is_on_disk_before_it_is_served() {
        let log = World::killed(1).open();
        assert_eq!((log.high_watermark(), log.recovery_point()), (1, 1));
    }

    /// A power cut may take a batch and leave a later one.
    #[test]
    fn a_hole_is_cut_off_where_nothing_was_promised_and_kept_where_something_may_have_been() {
        for (recovery_point, end, holes) in [(Some(0), 1, 0), (Some(1), 1, 0), (Some(3), 3, 1), (None, 3, 1)] {
            let world = World::killed(3);
            if let Some(offset) = recovery_point {
                let points = [(world.at.clone(), offset)].into_iter().collect();
                log_dir::write_offsets(world.path(), log_dir::RECOVERY_POINT_CHECKPOINT, &points).unwrap();
            }
            let segment = world.path().join("t-0/00000000000000000000.log");
            let mut bytes = std::fs::read(&segment).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&segment, bytes).unwrap();
            let log = world.open();
            assert_eq!((log.log_end_offset(), log.quarantined().len()), (end, holes), "{recovery_point:?}");
        }
    }

    #[test]
    fn the_first_start_names_what_is_flushed() {
        let world = World::killed(2);
        world.open();
        let read = log_dir::read_offsets(world.path(), log_dir::RECOVERY_POINT_CHECKPOINT).unwrap();
        assert_eq!(read.offsets.get(&world.at), Some(&2));
    }
}
