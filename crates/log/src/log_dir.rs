//! The files that stand in a log directory beside the partitions: offset checkpoints, the clean-shutdown file, and the
//! scan that finds the partitions. Answers to Kafka's `LogManager`, `OffsetCheckpointFile`, `CleanShutdownFileHandler`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use taccola_base::{TopicPartition, Uuid};

use crate::error::LogError;

pub const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
pub const HIGH_WATERMARK_CHECKPOINT: &str = "replication-offset-checkpoint";
pub const LOG_START_OFFSET_CHECKPOINT: &str = "log-start-offset-checkpoint";
pub const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";

/// Offsets by partition, the content of one checkpoint file.
pub type Offsets = HashMap<TopicPartition, i64>;

/// Reads a checkpoint file; a missing one is empty. A damaged one is reported and answers what could be read, with
/// `damaged` saying so: every checkpoint can be done without at the price of more work at start.
pub fn read_offsets(log_dir: &Path, file: &str) -> Result<CheckpointRead, LogError> {
    let _ = (log_dir, file);
    todo!()
}

pub struct CheckpointRead {
    pub offsets: Offsets,
    /// Why the file was not read to its end, if it was not.
    pub damaged: Option<String>,
}

/// Replaces a checkpoint file: written beside it, flushed, renamed over it, directory flushed.
pub fn write_offsets(log_dir: &Path, file: &str, offsets: &Offsets) -> Result<(), LogError> {
    let _ = (log_dir, file, offsets);
    todo!()
}

/// Writes the mark of a clean stop, as the last act of it.
pub fn write_clean_shutdown(log_dir: &Path, broker_epoch: i64) -> Result<(), LogError> {
    let _ = (log_dir, broker_epoch);
    todo!()
}

/// Takes the mark of a clean stop: `Some(broker_epoch)` (-1 when it names none) if it was there. It is removed, and the
/// removal flushed, before this returns.
pub fn take_clean_shutdown(log_dir: &Path) -> Result<Option<i64>, LogError> {
    let _ = log_dir;
    todo!()
}

/// One partition's folder.
#[derive(Clone, Debug)]
pub struct FoundPartition {
    pub topic_partition: TopicPartition,
    pub path: PathBuf,
    /// From `partition.metadata`; `None` when the folder has none.
    pub topic_id: Option<Uuid>,
}

/// What a log directory holds.
#[derive(Debug, Default)]
pub struct DirScan {
    pub partitions: Vec<FoundPartition>,
    /// Folders ending in `-delete`: topics whose removal was not finished. See [`remove_deleted_dir`].
    pub to_delete: Vec<PathBuf>,
    /// Folders ending in `-future` or `-stray`: left alone.
    pub ignored: Vec<PathBuf>,
}

/// Lists a log directory. A folder that is no partition's is refused, as Kafka refuses it; `own_marker` is the name of
/// the one folder that is ours.
pub fn scan(log_dir: &Path, own_marker: &str) -> Result<DirScan, LogError> {
    let _ = (log_dir, own_marker);
    todo!()
}

/// Unlinks a folder that [`PartitionLog::rename_for_delete`](crate::PartitionLog::rename_for_delete) renamed.
pub fn remove_deleted_dir(path: &Path) -> Result<(), LogError> {
    let _ = path;
    todo!()
}
