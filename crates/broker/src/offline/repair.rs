//! Repairing a log directory: what can be made anew from the segments is, and what cannot is quarantined, so that the next
//! start knows of it. No record that can be read is dropped, wherever it stands; only a torn last batch behind the recovery
//! point is cut off, which every start does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_log::verify::{Finding, Level};
use taccola_log::{LogConfig, LogShared, OpenHints, PartitionLog, RecoveryReport, log_dir};

use super::{DirReport, DirState, OfflineError, Target, verify};

/// What is done about one partition.
#[derive(Clone, Debug)]
pub struct Repair {
    pub partition: TopicPartition,
    /// What the check found.
    pub findings: Vec<Finding>,
    /// What was done; `None` when it was only to be told.
    pub done: Option<RecoveryReport>,
}

#[derive(Debug)]
pub struct RepairReport {
    pub dir: PathBuf,
    pub partitions: Vec<Repair>,
    /// Findings in the directory's own files; a start makes the checkpoints anew, and says what else is to be done.
    pub findings: Vec<Finding>,
}

const HANDLES: usize = 64;

/// Checks, and with `execute` repairs. `unclean_too`: also where the last stop was not clean.
pub fn repair(
    path: &Path,
    topics: &[String],
    execute: bool,
    unclean_too: bool,
    now_ms: i64,
) -> Result<RepairReport, OfflineError> {
    let target = Target::find(path)?;
    let state = DirState::read(&target.dir);
    if execute && state.running {
        return Err(OfflineError::Running(target.dir));
    }
    if execute && !state.clean && !unclean_too {
        return Err(OfflineError::Unclean(target.dir));
    }
    let DirReport { dir, findings, partitions, .. } = verify(path, topics)?;
    let mut repairs = Vec::new();
    let shared = LogShared::new(HANDLES);
    for (partition, report) in partitions {
        let findings: Vec<Finding> = report.findings.into_iter().filter(|f| f.level > Level::Note).collect();
        if findings.is_empty() {
            continue;
        }
        if execute && repairs.is_empty() {
            // From here on the directory is no longer as a clean stop left it: the next start looks at it.
            remove_clean_mark(&dir)?;
        }
        let done = if execute { Some(repair_partition(&dir, &partition, &state, &shared, now_ms)?) } else { None };
        repairs.push(Repair { partition, findings, done });
    }
    Ok(RepairReport { dir, partitions: repairs, findings })
}

fn remove_clean_mark(dir: &Path) -> Result<(), OfflineError> {
    log_dir::take_clean_shutdown(dir)?;
    Ok(())
}

fn repair_partition(
    dir: &Path,
    partition: &TopicPartition,
    state: &DirState,
    shared: &Arc<LogShared>,
    now_ms: i64,
) -> Result<RecoveryReport, OfflineError> {
    let folder = dir.join(partition.to_string());
    let scan = log_dir::scan(dir, taccola_log::journal::MARKER_DIR)?;
    let damaged_metadata =
        scan.partitions.iter().any(|found| found.topic_partition == *partition && found.metadata_error.is_some());
    if damaged_metadata {
        log_dir::set_aside_partition_metadata(&folder)?;
    }
    let hints = OpenHints {
        recovery_point: state.recovery_points.get(partition).copied().unwrap_or(0),
        compacted: state.may_have_gaps(partition),
        check_all: true,
        ..OpenHints::default()
    };
    // The topic's settings are in the metadata; what matters here (where index entries go) may differ without harm.
    let config = Arc::new(LogConfig::default());
    let (log, report) = PartitionLog::open(dir, partition.clone(), None, config, Arc::clone(shared), hints, now_ms)?;
    log.close(now_ms)?;
    Ok(report)
}
