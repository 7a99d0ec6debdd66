//! Kafka's small text files: offset checkpoints, the leader epoch checkpoint, `partition.metadata`.
//! Answers to `CheckpointFile`, `OffsetCheckpointFile`, `LeaderEpochCheckpointFile`, `PartitionMetadataFile`.
//!
//! A checkpoint is `0`, the number of entries, and one entry per line. Readers here never trust the number.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use taccola_base::{TopicPartition, Uuid};

use crate::error::LogError;
use crate::file::{read_small, write_atomically, write_renamed};

/// Larger checkpoint files are not read: about two million partitions.
const CHECKPOINT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Larger `partition.metadata` files are not read.
const METADATA_BYTES_MAX: u64 = 4096;

pub const PARTITION_METADATA_FILE: &str = "partition.metadata";
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";

/// The entries of a checkpoint's text, and why it was not read to its end, if it was not.
fn parse_checkpoint<T>(text: &[u8], parse_line: impl Fn(&str) -> Option<T>) -> (Vec<T>, Option<String>) {
    let mut entries = Vec::new();
    let Ok(text) = std::str::from_utf8(text) else {
        return (entries, Some("not UTF-8".to_owned()));
    };
    // Kafka makes its checkpoints as empty files first.
    if text.is_empty() {
        return (entries, None);
    }
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("0") {
        return (entries, Some("the first line is not version 0".to_owned()));
    }
    let Some(count) = lines.next().and_then(|line| line.trim().parse::<usize>().ok()) else {
        return (entries, Some("the second line is not a number of entries".to_owned()));
    };
    for line in lines.filter(|line| !line.trim().is_empty()) {
        match parse_line(line) {
            Some(entry) => entries.push(entry),
            None => return (entries, Some(format!("line {} is malformed", line.len().min(80)))),
        }
    }
    let damaged =
        (entries.len() != count).then(|| format!("{count} entries are announced, {} are there", entries.len()));
    (entries, damaged)
}

fn render_checkpoint(entries: impl ExactSizeIterator<Item = String>) -> Vec<u8> {
    let mut text = format!("0\n{}\n", entries.len());
    for entry in entries {
        text.push_str(&entry);
        text.push('\n');
    }
    text.into_bytes()
}

fn parse_offset_line(line: &str) -> Option<(TopicPartition, i64)> {
    let mut words = line.split_whitespace();
    let (topic, partition, offset) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    if words.next().is_some() || partition < 0 || offset < 0 || taccola_base::topic::validate_topic_name(topic).is_err()
    {
        return None;
    }
    Some((TopicPartition::new(topic, partition), offset))
}

/// What an offset checkpoint holds.
#[derive(Debug, Default)]
pub struct CheckpointRead {
    pub offsets: HashMap<TopicPartition, i64>,
    /// Why the file was not read to its end, if it was not.
    pub damaged: Option<String>,
}

/// Never fails on content, whatever it is.
pub fn parse_offsets(text: &[u8]) -> CheckpointRead {
    let (entries, damaged) = parse_checkpoint(text, parse_offset_line);
    CheckpointRead { offsets: entries.into_iter().collect(), damaged }
}

pub(crate) fn read_offsets(path: &Path) -> Result<CheckpointRead, LogError> {
    let content = read_small(path, CHECKPOINT_BYTES_MAX).map_err(|e| LogError::io("read", path, e))?;
    Ok(content.map(|text| parse_offsets(&text)).unwrap_or_default())
}

pub(crate) fn write_offsets(path: &Path, offsets: &HashMap<TopicPartition, i64>) -> Result<(), LogError> {
    let mut sorted: Vec<_> = offsets.iter().collect();
    sorted.sort();
    let text =
        render_checkpoint(sorted.into_iter().map(|(tp, offset)| format!("{} {} {offset}", tp.topic, tp.partition)));
    write_atomically(path, &text).map_err(|e| LogError::io("write", path, e))
}

/// `(epoch, start offset)` in order, and why the file was not read to its end, if it was not.
pub type EpochsRead = (Vec<(i32, i64)>, Option<String>);

/// Both must rise from line to line, else the file counts as damaged.
pub fn parse_epochs(text: &[u8]) -> EpochsRead {
    let (mut entries, mut damaged) = parse_checkpoint(text, |line| {
        let (epoch, start) = line.trim().split_once(' ')?;
        let (epoch, start) = (epoch.parse::<i32>().ok()?, start.parse::<i64>().ok()?);
        (epoch >= 0 && start >= 0).then_some((epoch, start))
    });
    let rising = entries.iter().zip(entries.iter().skip(1)).take_while(|(a, b)| a.0 < b.0 && a.1 <= b.1).count();
    if rising + 1 < entries.len() {
        entries.truncate(rising + 1);
        damaged.get_or_insert_with(|| "epochs do not rise".to_owned());
    }
    (entries, damaged)
}

/// `None` when the file is not there.
pub(crate) fn read_epochs(path: &Path) -> Result<Option<EpochsRead>, LogError> {
    let content = read_small(path, CHECKPOINT_BYTES_MAX).map_err(|e| LogError::io("read", path, e))?;
    Ok(content.map(|text| parse_epochs(&text)))
}

/// The text of a `leader-epoch-checkpoint`.
pub(crate) fn render_epochs(epochs: &[(i32, i64)]) -> Vec<u8> {
    render_checkpoint(epochs.iter().map(|(epoch, start)| format!("{epoch} {start}")))
}

/// A log's first one is not flushed: that comes with the log's next flush, and until then the batches say the same. Later
/// ones may name epochs of which no batch is here any more.
pub(crate) fn write_epochs(path: &Path, epochs: &[(i32, i64)]) -> Result<(), LogError> {
    let text = render_epochs(epochs);
    let written = if path.exists() { write_atomically(path, &text) } else { write_renamed(path, &text) };
    written.map_err(|e| LogError::io("write", path, e))
}

/// The topic id in the text of a `partition.metadata`.
pub fn parse_partition_metadata(text: &[u8]) -> Result<Uuid, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?;
    let mut version = None;
    let mut id = None;
    for line in text.lines() {
        match line.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("version", value)) => version = value.parse::<i32>().ok(),
            Some(("topic_id", value)) => id = value.parse::<Uuid>().ok(),
            _ => {}
        }
    }
    match (version, id) {
        (Some(0), Some(id)) if !id.is_zero() => Ok(id),
        (Some(0), Some(_)) => Err("the topic id is zero".to_owned()),
        (Some(0), None) => Err("no topic id".to_owned()),
        (version, _) => Err(format!("version {version:?} is not 0")),
    }
}

/// `None` when the folder has no `partition.metadata`, or one of which a power cut left the name alone.
pub(crate) fn read_partition_metadata(partition_dir: &Path) -> Result<Option<Uuid>, LogError> {
    let path = partition_dir.join(PARTITION_METADATA_FILE);
    let content = read_small(&path, METADATA_BYTES_MAX).map_err(|e| LogError::io("read", &path, e))?;
    let written = content.filter(|text| text.iter().any(|byte| *byte != 0));
    written.map(|text| parse_partition_metadata(&text)).transpose().map_err(|reason| LogError::BadFile { path, reason })
}

/// Not flushed: that comes with the log's next flush.
pub(crate) fn write_partition_metadata(partition_dir: &Path, topic_id: Uuid) -> Result<(), LogError> {
    let path = partition_dir.join(PARTITION_METADATA_FILE);
    let mut text = String::new();
    let _ = write!(text, "version: 0\ntopic_id: {topic_id}");
    write_renamed(&path, text.as_bytes()).map_err(|e| LogError::io("write", &path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let offsets: HashMap<_, _> =
            [(TopicPartition::new("b", 1), 5), (TopicPartition::new("a-x", 0), i64::MAX)].into();
        write_offsets(&path, &offsets).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("0\n2\na-x 0 {}\nb 1 5\n", i64::MAX));
        let read = read_offsets(&path).unwrap();
        assert_eq!((read.offsets, read.damaged), (offsets, None));
        assert!(read_offsets(&dir.path().join("missing")).unwrap().offsets.is_empty());
    }

    #[test]
    fn damaged_checkpoints_are_named() {
        for (text, entries) in [
            ("1\n0\n", 0),
            ("0\nx\n", 0),
            ("0\n2\na 0 1\n", 1),
            ("0\n1\na 0 -1\n", 0),
            ("0\n99999999999\n", 0),
            ("0\n1\na 0 1 2\n", 0),
        ] {
            let read = parse_offsets(text.as_bytes());
            assert!(read.damaged.is_some(), "{text:?}");
            assert_eq!(read.offsets.len(), entries, "{text:?}");
        }
        assert!(parse_epochs(b"0\n2\n3 4\n2 9\n").1.is_some());
        assert_eq!(parse_epochs(b"0\n2\n3 4\n5 9\n"), (vec![(3, 4), (5, 9)], None));
    }

    #[test]
    fn partition_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::random();
        assert_eq!(read_partition_metadata(dir.path()).unwrap(), None);
        write_partition_metadata(dir.path(), id).unwrap();
        assert_eq!(read_partition_metadata(dir.path()).unwrap(), Some(id));
        for bad in [
            "",
            "version: 0",
            "version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(parse_partition_metadata(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
