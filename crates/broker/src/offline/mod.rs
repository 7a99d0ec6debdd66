//! Log directories without a broker: what `taccola log verify`, `repair` and `dump` do. Checks and dumps only look, also
//! while a broker runs there; repairs need the directory for themselves. Answers to Kafka's `DumpLogSegments`, and to what
//! its `LogManager` finds out at a start.

mod decode;
mod dump;
mod repair;
mod verify;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use taccola_base::TopicPartition;
use taccola_base::topic::is_internal;
use taccola_log::log_dir::{self, Offsets};
use taccola_log::verify::VerifyContext;
use taccola_log::{LogError, journal};

pub use decode::{Decoded, Decoder};
pub use dump::{DumpFilter, DumpedBatch, DumpedRecord, dump_derived, dump_segments};
pub use repair::{Repair, RepairReport, repair};
pub use taccola_log::verify::{Finding, Level, PartitionReport};
pub use verify::{DirReport, verify};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("{0} is neither a log directory nor a partition's folder")]
    NotALogDir(PathBuf),
    #[error("a broker is running on {0}; stop it first")]
    Running(PathBuf),
    #[error(
        "the last stop of {0} was not clean: start the broker once, which recovers it, and stop it; or say that it is to be \
         repaired as it is"
    )]
    Unclean(PathBuf),
    #[error("{0} cannot be shown: it is no segment, index, snapshot or checkpoint")]
    UnknownFile(PathBuf),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl OfflineError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// A log directory, or one partition of it.
struct Target {
    dir: PathBuf,
    /// The folder that was named instead of its directory.
    only: Option<TopicPartition>,
}

impl Target {
    fn find(path: &Path) -> Result<Self, OfflineError> {
        let path = path.canonicalize().map_err(|source| OfflineError::io(path, source))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let has = |name: &str| path.join(name).exists();
        if has(taccola_meta::meta_properties::FILE_NAME) || has(log_dir::RECOVERY_POINT_CHECKPOINT) {
            return Ok(Self { dir: path, only: None });
        }
        match (TopicPartition::from_dir_name(name), path.parent()) {
            (Some(only), Some(dir)) if holds_segments(&path) => Ok(Self { dir: dir.to_path_buf(), only: Some(only) }),
            _ => Err(OfflineError::NotALogDir(path)),
        }
    }

    fn concerns(&self, at: &TopicPartition, topics: &[String]) -> bool {
        self.only.as_ref().is_none_or(|only| only == at)
            && (topics.is_empty() || topics.iter().any(|topic| **topic == *at.topic))
    }
}

fn holds_segments(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().any(|entry| entry.file_name().to_str().is_some_and(|name| name.ends_with(".log")))
}

/// Whether a broker, of whatever kind, holds the directory.
fn is_running(dir: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(dir.join(".lock")) else { return false };
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// What the files of a directory say about its partitions.
struct DirState {
    running: bool,
    clean: bool,
    recovery_points: Offsets,
    cleaned: Offsets,
}

impl DirState {
    fn read(dir: &Path) -> Self {
        let offsets = |file| log_dir::read_offsets(dir, file).map(|read| read.offsets).unwrap_or_default();
        let running = is_running(dir);
        Self {
            running,
            clean: !running && dir.join(log_dir::CLEAN_SHUTDOWN_FILE).exists() && !journal::marker_raised(dir),
            recovery_points: offsets(log_dir::RECOVERY_POINT_CHECKPOINT),
            cleaned: offsets(log_dir::CLEANER_CHECKPOINT),
        }
    }

    fn may_have_gaps(&self, at: &TopicPartition) -> bool {
        self.cleaned.contains_key(at) || is_internal(&at.topic)
    }

    fn context(&self, at: &TopicPartition) -> VerifyContext {
        VerifyContext {
            may_have_gaps: self.may_have_gaps(at),
            unfinished: !self.clean,
            synced_to: self.recovery_points.get(at).copied().unwrap_or(0),
        }
    }
}
