//! The files that stand in a log directory beside the partitions: offset checkpoints, the clean-shutdown file, and the
//! scan that finds the partitions. Answers to Kafka's `LogManager`, `OffsetCheckpointFile`, `CleanShutdownFileHandler`.
//!
//! Order of a clean stop: close all logs, write the recovery points and log start offsets, then
//! [`write_clean_shutdown`]. Order of a start: [`take_clean_shutdown`] first, so that a crash while opening counts as one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use taccola_base::{TopicPartition, Uuid};

pub use crate::checkpoint::CheckpointRead;
use crate::checkpoint::read_partition_metadata;
use crate::error::LogError;
use crate::file::{read_small, remove_if_exists, sync_dir, write_atomically};

pub const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
pub const HIGH_WATERMARK_CHECKPOINT: &str = "replication-offset-checkpoint";
/// Kafka names a partition here only while its log start offset is above its first segment's base offset.
pub const LOG_START_OFFSET_CHECKPOINT: &str = "log-start-offset-checkpoint";
pub const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";

const CLEAN_SHUTDOWN_BYTES_MAX: u64 = 4096;
/// What file systems allow.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Offsets by partition, the content of one checkpoint file.
pub type Offsets = HashMap<TopicPartition, i64>;

/// Reads a checkpoint file; a missing one is empty. A damaged one answers what could be read, with `damaged` saying so:
/// every checkpoint can be done without at the price of more work at start.
pub fn read_offsets(log_dir: &Path, file: &str) -> Result<CheckpointRead, LogError> {
    crate::checkpoint::read_offsets(&log_dir.join(file))
}

/// Replaces a checkpoint file: written beside it, flushed, renamed over it, directory flushed.
pub fn write_offsets(log_dir: &Path, file: &str, offsets: &Offsets) -> Result<(), LogError> {
    crate::checkpoint::write_offsets(&log_dir.join(file), offsets)
}

/// Writes the mark of a clean stop, as the last act of it.
pub fn write_clean_shutdown(log_dir: &Path, broker_epoch: i64) -> Result<(), LogError> {
    let path = log_dir.join(CLEAN_SHUTDOWN_FILE);
    let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
    write_atomically(&path, text.as_bytes()).map_err(|e| LogError::io("write", &path, e))
}

/// Takes the mark of a clean stop: `Some(broker_epoch)` (-1 when it names none) if it was there. It is removed, and the
/// removal flushed, before this returns.
pub fn take_clean_shutdown(log_dir: &Path) -> Result<Option<i64>, LogError> {
    let path = log_dir.join(CLEAN_SHUTDOWN_FILE);
    let content = read_small(&path, CLEAN_SHUTDOWN_BYTES_MAX).map_err(|e| LogError::io("read", &path, e))?;
    let Some(content) = content else { return Ok(None) };
    remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e))?;
    sync_dir(log_dir).map_err(|e| LogError::io("flush", log_dir, e))?;
    Ok(Some(parse_clean_shutdown(&content)))
}

/// The broker epoch in the mark; -1 when there is none that can be read, which earlier releases' empty files have not.
pub fn parse_clean_shutdown(content: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(content);
    let Some((_, rest)) = text.split_once("\"brokerEpoch\"") else { return -1 };
    let Some(rest) = rest.trim_start().strip_prefix(':') else { return -1 };
    let rest = rest.trim_start();
    let number = rest.char_indices().take_while(|(i, c)| c.is_ascii_digit() || (*i == 0 && *c == '-')).count();
    rest.get(..number).and_then(|number| number.parse().ok()).unwrap_or(-1)
}

/// One partition's folder.
#[derive(Clone, Debug)]
pub struct FoundPartition {
    pub topic_partition: TopicPartition,
    pub path: PathBuf,
    /// From `partition.metadata`; `None` when the folder has none, or one that cannot be read (`metadata_error`).
    pub topic_id: Option<Uuid>,
    pub metadata_error: Option<String>,
}

/// What a log directory holds.
#[derive(Debug, Default)]
pub struct DirScan {
    /// Sorted by topic and partition.
    pub partitions: Vec<FoundPartition>,
    /// Folders ending in `-delete`: topics whose removal was not finished. See [`remove_deleted_dir`].
    pub to_delete: Vec<PathBuf>,
    /// Folders ending in `-future` or `-stray`: left alone.
    pub ignored: Vec<PathBuf>,
}

/// Lists a log directory. A folder that is no partition's is refused, as Kafka refuses it; `own_marker` is the name of
/// the one folder that is ours.
pub fn scan(log_dir: &Path, own_marker: &str) -> Result<DirScan, LogError> {
    let io_error = |e| LogError::io("list", log_dir, e);
    let mut found = DirScan::default();
    for entry in std::fs::read_dir(log_dir).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let path = entry.path();
        let is_dir = match entry.file_type().map_err(io_error)? {
            kind if kind.is_symlink() => path.is_dir(),
            kind => kind.is_dir(),
        };
        if !is_dir || entry.file_name() == own_marker {
            continue;
        }
        let refused = |reason: &str| LogError::BadFile { path: path.clone(), reason: reason.to_owned() };
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Err(refused("a folder whose name is no partition's")) };
        match classify(name) {
            DirName::Partition(topic_partition) => {
                let (topic_id, metadata_error) = match read_partition_metadata(&path) {
                    Ok(topic_id) => (topic_id, None),
                    Err(error) => (None, Some(error.to_string())),
                };
                found.partitions.push(FoundPartition { topic_partition, path, topic_id, metadata_error });
            }
            DirName::Delete => found.to_delete.push(path),
            DirName::Future | DirName::Ignored => found.ignored.push(path),
            // ext4 puts it at the root of each volume, and Kafka does not take it for a log either.
            DirName::Other if name == "lost+found" => found.ignored.push(path),
            DirName::Other => {
                return Err(refused(
                    "a folder whose name is not <topic>-<partition> does not belong into a log directory",
                ));
            }
        }
    }
    found.partitions.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
    Ok(found)
}

/// Moves a `partition.metadata` that cannot be read out of the way, to be looked at; whose records the folder holds must be
/// found out otherwise.
pub fn set_aside_partition_metadata(partition_dir: &Path) -> Result<(), LogError> {
    let path = partition_dir.join(crate::checkpoint::PARTITION_METADATA_FILE);
    let aside = partition_dir.join("taccola.damaged-partition.metadata");
    crate::file::rename(&path, &aside).map_err(|e| LogError::io("rename", &path, e))?;
    sync_dir(partition_dir).map_err(|e| LogError::io("flush", partition_dir, e))
}

/// Folders of copies that were to take a log's place (`-future`), and of which partition; their names are cut where they
/// would be too long, and such ones are left alone.
pub fn futures(log_dir: &Path) -> Result<Vec<(TopicPartition, PathBuf)>, LogError> {
    let io_error = |e| LogError::io("list", log_dir, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(log_dir).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| matches!(classify(name), DirName::Future)) else { continue };
        let partition = name.rsplit_once('.').and_then(|(partition, _)| TopicPartition::from_dir_name(partition));
        found.extend(partition.map(|partition| (partition, entry.path())));
    }
    Ok(found)
}

/// Unlinks a copy that is made anew, or not needed.
pub fn remove_future(path: &Path) -> Result<(), LogError> {
    crate::file::remove_dir_all(path).map_err(|e| LogError::io("remove", path, e))
}

/// Makes a copy the log: the original was let go of, so the copy is whole.
pub fn promote_future(path: &Path, topic_partition: &TopicPartition) -> Result<(), LogError> {
    let to = path.with_file_name(topic_partition.to_string());
    crate::file::rename(path, &to).map_err(|e| LogError::io("rename", path, e))?;
    path.parent().map_or(Ok(()), sync)
}

/// Whether the name of a copy's folder holds all of the partition's name; if not, nobody could tell whose the copy is.
pub fn can_be_copied(topic_partition: &TopicPartition) -> bool {
    let whole = format!("{topic_partition}.{}-future", Uuid::ZERO.as_bytes().map(|b| format!("{b:02x}")).concat());
    whole.len() <= FILE_NAME_BYTES_MAX
}

/// `<topic>-<partition>.<unique id>-<suffix>`. Kafka cuts the topic's name where the whole would exceed a file name's 255
/// bytes.
pub(crate) fn folder_of(topic_partition: &TopicPartition, unique_id: Uuid, suffix: &str) -> String {
    let id: String = unique_id.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let tail = format!("-{}.{id}-{suffix}", topic_partition.partition);
    let topic = topic_partition.topic.chars().take(FILE_NAME_BYTES_MAX.saturating_sub(tail.len())).collect::<String>();
    format!("{topic}{tail}")
}

enum DirName {
    Partition(TopicPartition),
    Delete,
    Future,
    Ignored,
    Other,
}

/// `<topic>-<partition>`, or that with `.<32 hexadecimal digits>-delete`, `-future` or `-stray` behind.
fn classify(name: &str) -> DirName {
    for (suffix, kind) in [("-delete", DirName::Delete), ("-future", DirName::Future), ("-stray", DirName::Ignored)] {
        if let Some((partition, id)) = name.strip_suffix(suffix).and_then(|rest| rest.rsplit_once('.'))
            && id.len() == 32
            && id.bytes().all(|b| b.is_ascii_hexdigit())
            && TopicPartition::from_dir_name(partition).is_some()
        {
            return kind;
        }
    }
    TopicPartition::from_dir_name(name).map_or(DirName::Other, DirName::Partition)
}

/// Makes the entries of a log directory durable.
pub fn sync(log_dir: &Path) -> Result<(), LogError> {
    sync_dir(log_dir).map_err(|e| LogError::io("flush", log_dir, e))
}

/// Unlinks a folder that [`PartitionLog::rename_for_delete`](crate::PartitionLog::rename_for_delete) renamed.
pub fn remove_deleted_dir(path: &Path) -> Result<(), LogError> {
    let is_deleted = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with("-delete"));
    if !is_deleted {
        return Err(LogError::BadFile { path: path.to_path_buf(), reason: "not a folder to be deleted".to_owned() });
    }
    match crate::file::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(LogError::io("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_shutdown_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take_clean_shutdown(dir.path()).unwrap(), None);
        write_clean_shutdown(dir.path(), 12).unwrap();
        let path = dir.path().join(CLEAN_SHUTDOWN_FILE);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{\"version\":0,\"brokerEpoch\":12}");
        assert_eq!(take_clean_shutdown(dir.path()).unwrap(), Some(12));
        assert_eq!(take_clean_shutdown(dir.path()).unwrap(), None);
        for (text, epoch) in [("", -1), ("{}", -1), ("{\"brokerEpoch\" : -1}", -1), ("{\"brokerEpoch\":77}", 77)] {
            assert_eq!(parse_clean_shutdown(text.as_bytes()), epoch, "{text}");
        }
    }

    #[test]
    fn a_copy_has_its_partitions_whole_name() {
        for (length, partition, fits) in [(213, 0, true), (214, 0, false), (212, 10, true), (213, 10, false)] {
            let at = TopicPartition::new("t".repeat(length).as_str(), partition);
            assert_eq!(can_be_copied(&at), fits, "{length} {partition}");
            let name = folder_of(&at, Uuid::from_u128(1 << 100), "future");
            assert!(name.len() <= 255);
            assert_eq!(name.starts_with(&format!("{at}.")), fits);
        }
    }

    #[test]
    fn scan_knows_partitions_and_refuses_strangers() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let names = ["b-1", "a-0", "__cluster_metadata-0", "taccola.marker", "lost+found"];
        for name in names.map(str::to_owned).into_iter().chain([format!("a-1.{id}-delete"), format!("a-2.{id}-stray")])
        {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("meta.properties"), "").unwrap();
        let found = scan(dir.path(), "taccola.marker").unwrap();
        let names: Vec<_> = found.partitions.iter().map(|p| p.topic_partition.to_string()).collect();
        assert_eq!(names, ["__cluster_metadata-0", "a-0", "b-1"]);
        assert_eq!((found.to_delete.len(), found.ignored.len()), (1, 2));
        remove_deleted_dir(&found.to_delete[0]).unwrap();
        assert!(remove_deleted_dir(&found.partitions[0].path).is_err());
        assert!(scan(dir.path(), "other.marker").is_err());
        std::fs::create_dir(dir.path().join("stranger")).unwrap();
        assert!(scan(dir.path(), "taccola.marker").is_err());
    }
}
