//! Opening the logs: what the segments hold, then what only the journal holds.
//!
//! After a clean stop nothing is read. Otherwise each log is scanned above its recovery point, and the journal's batches
//! are put where the segments lack them. Above the recovery point the journal has every batch that was acknowledged as
//! durable, so damage up there (a page that never reached the disk) is cut off and replaced from the journal; damage
//! below it is left to quarantine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use taccola_base::planted::{Bug, planted};
use taccola_base::topic::is_internal;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::journal::{self, EntryKind, Journal, JournalConfig, JournalEntry, JournalError, JournalIdentity};
use taccola_log::log_dir::{self, CheckpointRead, FoundPartition};
use taccola_log::{AppendError, LogConfig, LogError, LogShared, OpenHints, PartitionLog, RecoveryReport, Replayed};

use super::StartError;
use super::dirs::{LogDir, LogDirs};

/// A log that was found in a log directory.
pub(super) struct OpenedLog {
    pub log: PartitionLog,
    /// Index into `log.dirs`.
    pub log_dir: usize,
    pub topic_id: Option<Uuid>,
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

type Entries = BTreeMap<(Uuid, i32), Vec<JournalEntry>>;

/// Opens every log of every directory, replays the journal into them, and starts the journal anew.
pub(super) fn open_logs(
    dirs: &LogDirs,
    node_id: i32,
    journal_bytes: u64,
    shared: &Arc<LogShared>,
    config_of: &dyn Fn(&TopicPartition) -> Arc<LogConfig>,
    now_ms: i64,
) -> Result<OpenedLogs, StartError> {
    let Some(first) = dirs.dirs.first() else { return Err(StartError::Config("log.dirs names no directory".into())) };
    let journal_error = |error: journal::JournalError| StartError::Journal(error.to_string());
    let config = JournalConfig::in_log_dir(&first.path).size_bytes(journal_bytes);
    let identity = JournalIdentity { cluster_id: dirs.cluster_id.clone(), node_id, directory_id: first.id };
    let mut recovery = open_journal(&first.path, &config, &identity)?;
    if let Some(damage) = recovery.damage() {
        // A single node has nowhere to repair from: the loss is named, and what is whole is served.
        tracing::error!(%damage, "the journal is damaged: these acknowledged frames are lost");
        recovery.accept_damage();
    }
    let mut entries: Entries = BTreeMap::new();
    while let Some(frame) = recovery.next_frame().map_err(journal_error)? {
        for entry in frame.entries {
            entries.entry((entry.topic_id, entry.partition)).or_default().push(entry);
        }
    }
    let mut summary = RecoverySummary { clean: true, ..Default::default() };
    let mut logs = BTreeMap::new();
    for (index, dir) in dirs.dirs.iter().enumerate() {
        open_dir(dir, index, shared, config_of, &mut entries, now_ms, &mut summary, &mut logs)?;
    }
    for ((topic_id, partition), lost) in &entries {
        let topic = lost.first().map_or("", |entry| entry.topic.as_str());
        tracing::info!(topic, partition, %topic_id, batches = lost.len(), "journaled batches of a partition that is gone");
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

#[allow(clippy::too_many_arguments, reason = "one caller; the arguments are its locals")]
fn open_dir(
    dir: &LogDir,
    index: usize,
    shared: &Arc<LogShared>,
    config_of: &dyn Fn(&TopicPartition) -> Arc<LogConfig>,
    entries: &mut Entries,
    now_ms: i64,
    summary: &mut RecoverySummary,
    logs: &mut BTreeMap<TopicPartition, OpenedLog>,
) -> Result<(), StartError> {
    let path = &dir.path;
    let failed = |error: LogError| StartError::Log { partition: path.display().to_string(), reason: describe(&error) };
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
    for found in scan.partitions {
        let hints = OpenHints {
            recovery_point: recovery_points.get(&found.topic_partition).copied().unwrap_or(0),
            log_start_offset: log_start_offsets.get(&found.topic_partition).copied().unwrap_or(0),
            compacted: cleaned.contains_key(&found.topic_partition) || is_internal(&found.topic_partition.topic),
            cleaned_to: cleaned.get(&found.topic_partition).copied().unwrap_or(0),
            check_all: false,
            clean,
        };
        let found = identify(found, entries).map_err(failed)?;
        let journaled = found.topic_id.and_then(|id| entries.remove(&(id, found.topic_partition.partition)));
        let journaled = journaled.unwrap_or_default();
        let opened = open_log(path, found, hints, names_all, shared, config_of, journaled, now_ms, summary)?;
        logs.insert(opened.log.topic_partition().clone(), OpenedLog { log_dir: index, ..opened });
    }
    Ok(())
}

/// Finds out whose records a folder holds that does not say so itself: the journal knows the topic by name, if it has
/// something of it; else the metadata will, when the log is adopted.
fn identify(mut found: FoundPartition, entries: &Entries) -> Result<FoundPartition, LogError> {
    if let Some(reason) = &found.metadata_error {
        let partition = found.topic_partition.to_string();
        tracing::error!(partition, reason, "a damaged partition.metadata is set aside");
        log_dir::set_aside_partition_metadata(&found.path)?;
    }
    if found.topic_id.is_none() {
        let TopicPartition { topic, partition } = &found.topic_partition;
        let of_name = entries.iter().filter(|((_, index), batches)| {
            index == partition && batches.first().is_some_and(|entry| entry.topic == **topic)
        });
        let ids: Vec<Uuid> = of_name.map(|((id, _), _)| *id).collect();
        if let [id] = ids.as_slice() {
            found.topic_id = Some(*id);
        }
    }
    Ok(found)
}

#[allow(clippy::too_many_arguments, reason = "one caller; the arguments are its locals")]
fn open_log(
    dir: &Path,
    found: FoundPartition,
    hints: OpenHints,
    names_all: bool,
    shared: &Arc<LogShared>,
    config_of: &dyn Fn(&TopicPartition) -> Arc<LogConfig>,
    journaled: Vec<JournalEntry>,
    now_ms: i64,
    summary: &mut RecoverySummary,
) -> Result<OpenedLog, StartError> {
    let partition = found.topic_partition.to_string();
    let failed = |error: LogError| StartError::Log { partition: partition.clone(), reason: describe(&error) };
    // Where nothing says what was flushed, a hole may be damage.
    let promised = if names_all || !journaled.is_empty() { hints.recovery_point } else { i64::MAX };
    let config = config_of(&found.topic_partition);
    let (mut log, report) =
        PartitionLog::open(dir, found.topic_partition, found.topic_id, config, shared.clone(), hints, now_ms)
            .map_err(failed)?;
    tell(&partition, &report);
    summary.bytes_scanned += report.bytes_scanned;
    summary.truncated_bytes += report.truncated_bytes;
    summary.quarantined_ranges += report.quarantined.len();
    summary.replayed_batches += replay(&mut log, promised, &journaled, now_ms).map_err(failed)?;
    // What was only in the page cache is about to be served: it must not vanish with the power any more.
    log.flush(now_ms).map_err(failed)?;
    log.set_high_watermark(log.log_end_offset());
    Ok(OpenedLog { log, log_dir: 0, topic_id: found.topic_id })
}

/// Puts the journal's batches where the log lacks them, and syncs it. Answers how many.
///
/// First they are written back to their places, which keeps whatever is whole behind them. A hole from `promised` on (below
/// it all was flushed) that is left then held batches that were never promised to survive: the log is cut off there, and
/// what the journal has behind it is appended again.
fn replay(log: &mut PartitionLog, promised: i64, journaled: &[JournalEntry], now_ms: i64) -> Result<usize, LogError> {
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
    let read = log_dir::read_offsets(dir, file).map_err(|error| StartError::Log {
        partition: dir.join(file).display().to_string(),
        reason: describe(&error),
    })?;
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
            .map_err(|error| StartError::Log { partition: dir.path.display().to_string(), reason: describe(&error) })?;
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
            let opened = open_logs(&self.dirs, 0, 1 << 20, &self.shared, &|_| self.config.clone(), NOW_MS);
            opened.unwrap().logs.remove(&self.at).unwrap().log
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
