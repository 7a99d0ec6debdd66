//! Checking a log directory: its own files, then every partition.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_base::topic::CLUSTER_METADATA_TOPIC;
use taccola_log::log_dir;
use taccola_log::verify::{Finding, Level, PartitionReport, VerifyContext, verify_partition};
use taccola_log::{LogError, journal};
use taccola_meta::meta_properties::{self, MetaProperties};
use taccola_meta::snapshot::{Snapshot, SnapshotId};

use super::{DirState, OfflineError, Target};

/// What a log directory, or a part of it, holds.
#[derive(Debug, Default)]
pub struct DirReport {
    pub dir: PathBuf,
    /// A broker runs there.
    pub running: bool,
    /// The last stop was clean.
    pub clean: bool,
    /// Of the directory's own files.
    pub findings: Vec<Finding>,
    pub partitions: Vec<(TopicPartition, PartitionReport)>,
}

impl DirReport {
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(self.partitions.iter().flat_map(|(_, report)| &report.findings))
    }

    /// The worst that was found.
    pub fn level(&self) -> Option<Level> {
        self.all_findings().map(|finding| finding.level).max()
    }

    pub fn bytes(&self) -> u64 {
        self.partitions.iter().map(|(_, report)| report.bytes).sum()
    }

    fn note(&mut self, level: Level, file: PathBuf, what: impl Into<String>) {
        self.findings.push(Finding { level, file, positions: None, offsets: None, what: what.into() });
    }
}

/// Checks a log directory, or one partition's folder. `topics`: only these; empty: all.
pub fn verify(path: &Path, topics: &[String]) -> Result<DirReport, OfflineError> {
    let target = Target::find(path)?;
    let state = DirState::read(&target.dir);
    let mut report =
        DirReport { dir: target.dir.clone(), running: state.running, clean: state.clean, ..DirReport::default() };
    if target.only.is_none() {
        check_own_files(&target.dir, &state, &mut report);
    }
    let scan = match log_dir::scan(&target.dir, journal::MARKER_DIR) {
        Ok(scan) => scan,
        Err(LogError::BadFile { path, reason }) => {
            report.note(Level::Damage, path, reason);
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    for folder in scan.to_delete.into_iter().chain(scan.ignored) {
        report.note(Level::Note, folder, "set aside or waiting to be deleted; not looked at");
    }
    for found in scan.partitions.into_iter().filter(|found| target.concerns(&found.topic_partition, topics)) {
        let context = state.context(&found.topic_partition);
        let Some(mut partition) = check_partition(&found.path, context, state.running)? else { continue };
        if &*found.topic_partition.topic == CLUSTER_METADATA_TOPIC {
            check_snapshots(&found.path, &mut partition);
        }
        report.partitions.push((found.topic_partition, partition));
    }
    Ok(report)
}

/// `None`: the folder went away meanwhile.
fn check_partition(
    path: &Path,
    context: VerifyContext,
    running: bool,
) -> Result<Option<PartitionReport>, OfflineError> {
    let check = || verify_partition(path, context, &mut |_| true);
    let gone = || running && !path.exists();
    let first = match check() {
        Err(_) if gone() => return Ok(None),
        checked => checked?,
    };
    if !running || first.findings.iter().all(|finding| finding.level == Level::Note) {
        return Ok(Some(first));
    }
    // A segment that was compacted, or a file that was being written while it was read, is right the next time.
    match check() {
        Err(_) if gone() => Ok(None),
        checked => Ok(Some(checked?)),
    }
}

fn check_own_files(dir: &Path, state: &DirState, report: &mut DirReport) {
    let path = dir.join(meta_properties::FILE_NAME);
    match std::fs::read(&path) {
        Ok(text) => {
            if let Err(error) = MetaProperties::parse(&String::from_utf8_lossy(&text)) {
                report.note(Level::Damage, path, format!("whose directory it is cannot be read: {error}"));
            }
        }
        Err(error) => report.note(Level::Damage, path, format!("whose directory it is cannot be read: {error}")),
    }
    for file in [
        log_dir::RECOVERY_POINT_CHECKPOINT,
        log_dir::HIGH_WATERMARK_CHECKPOINT,
        log_dir::LOG_START_OFFSET_CHECKPOINT,
        log_dir::CLEANER_CHECKPOINT,
    ] {
        let damaged = match log_dir::read_offsets(dir, file) {
            Ok(read) => read.damaged,
            Err(error) => Some(error.to_string()),
        };
        if let Some(what) = damaged {
            report.note(Level::Rebuildable, dir.join(file), what);
        }
    }
    if state.running {
        return;
    }
    let path = dir.join(journal::JOURNAL_FILE);
    let raised = journal::marker_raised(dir);
    match journal::inspect(dir) {
        Ok(None) if raised => report.note(Level::Damage, path, "gone, and it held acknowledged records"),
        Ok(None) => {}
        Ok(Some(summary)) => {
            if let Some(damage) = summary.damage {
                report.note(Level::Damage, path, damage.to_string());
            } else if !summary.empty {
                report.note(Level::Note, path, format!("{} frames wait for the next start", summary.frames));
            }
        }
        Err(error) if raised => {
            report.note(Level::Damage, path, format!("{error}; it held acknowledged records"));
        }
        Err(error) => report.note(Level::Rebuildable, path, format!("{error}; it held nothing")),
    }
    if !state.clean {
        report.note(Level::Note, dir.join(log_dir::CLEAN_SHUTDOWN_FILE), "not there: the next start recovers the logs");
    }
}

/// The metadata log's snapshots.
fn check_snapshots(dir: &Path, report: &mut PartitionReport) {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    for entry in entries {
        let Some(id) = entry.file_name().to_str().and_then(SnapshotId::parse_file_name) else { continue };
        let read = std::fs::read(entry.path()).map_err(|error| error.to_string());
        let decoded = read.and_then(|bytes| Snapshot::decode(id, &Bytes::from(bytes)).map_err(|e| e.to_string()));
        if let Err(what) = decoded {
            let file = entry.path();
            report.findings.push(Finding { level: Level::Damage, file, positions: None, offsets: None, what });
        }
    }
}
