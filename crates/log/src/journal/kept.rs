//! Copies of the journal for log directories that failed while a broker ran.
//!
//! The segments of such a directory may lack batches that only the journal is sure to have, and the others need the journal's
//! space. So the whole file is copied, once, before it lets go of anything; when the directory is back, what belongs to its
//! logs is replayed from the copy before the journal's own frames. A copy is a plain file, which a JVM Kafka ignores; as
//! long as there is one, the marker folder stays.
//!
//! Beside it, in text, stands which logs were in the directory (a line `1`, one with their number, then topic id and
//! partition): the copy has batches of all others too, and a log that is found nowhere may be in a directory that is still
//! missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use taccola_base::Uuid;

use super::buffer::AlignedBuf;
use super::device::{FileDevice, JournalDevice};
use super::{JOURNAL_FILE, JournalConfig, JournalError, JournalIdentity, Recovery, open_file};
use crate::disk_watch::DiskOp;
use crate::file::{opened, read_small, remove_if_exists, rename, step, step_writing, sync_dir, write_atomically};

/// What follows is the id of the directory that failed.
const KEPT_PREFIX: &str = "taccola.journal.of-";

/// Of the file that says which logs were in the directory.
const LOGS_SUFFIX: &str = ".logs";
/// Bytes of it.
const LOGS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Read at a time; a multiple of a block.
const COPY_BYTES: usize = 1024 * 1024;

/// Topic id and partition.
pub type LogId = (Uuid, i32);

/// What is kept for one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptJournal {
    pub directory_id: Uuid,
    pub path: PathBuf,
    /// The logs that were in it; `None`: nobody knows.
    pub logs: Option<BTreeSet<LogId>>,
}

impl KeptJournal {
    /// Whether a log may have been in the directory.
    pub fn may_be_of(&self, log: &LogId) -> bool {
        self.logs.as_ref().is_none_or(|logs| logs.contains(log))
    }
}

/// Copies the journal of `log_dir` for a directory that failed, which held these logs, durably. Nothing may be written to it
/// meanwhile.
pub fn keep_for(log_dir: &Path, failed: Uuid, logs: &BTreeSet<LogId>) -> io::Result<PathBuf> {
    let kept = log_dir.join(format!("{KEPT_PREFIX}{failed}"));
    if kept.try_exists()? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a journal is kept for that directory already"));
    }
    write_atomically(&logs_file(&kept), format_logs(logs).as_bytes())?;
    // Read as it is written, past the page cache: what the cache has of the file may be old.
    let journal = FileDevice::open_beside(&log_dir.join(JOURNAL_FILE))?;
    let beside = log_dir.join(format!("{KEPT_PREFIX}{failed}.tmp"));
    step(&DiskOp::Create { path: &beside, emptied: true })?;
    let copy = File::create(&beside)?;
    opened(&beside, &copy);
    let mut buf = AlignedBuf::zeroed(COPY_BYTES);
    let mut position = 0;
    while position < journal.size_bytes() {
        let rest = usize::try_from(journal.size_bytes() - position).unwrap_or(usize::MAX);
        let Some(chunk) = buf.bytes_mut().get_mut(..COPY_BYTES.min(rest)) else { break };
        journal.read(position, chunk)?;
        step_writing(&copy, position, chunk)?;
        copy.write_all_at(chunk, position)?;
        position += chunk.len() as u64;
    }
    step(&DiskOp::Sync { file: &copy })?;
    copy.sync_all()?;
    rename(&beside, &kept)?;
    sync_dir(log_dir)?;
    Ok(kept)
}

fn logs_file(kept: &Path) -> PathBuf {
    let mut path = kept.as_os_str().to_owned();
    path.push(LOGS_SUFFIX);
    path.into()
}

fn format_logs(logs: &BTreeSet<LogId>) -> String {
    let head = format!("1\n{}\n", logs.len());
    std::iter::once(head).chain(logs.iter().map(|(topic, partition)| format!("{topic} {partition}\n"))).collect()
}

/// `None`: not what was written.
fn parse_logs(text: &str) -> Option<BTreeSet<LogId>> {
    let mut lines = text.lines();
    let (version, count) = (lines.next()?, lines.next()?.parse::<usize>().ok()?);
    let log = |line: &str| {
        let (topic, partition) = line.split_once(' ')?;
        Some((topic.parse().ok()?, partition.parse().ok()?))
    };
    let logs: BTreeSet<LogId> = lines.map(log).collect::<Option<_>>()?;
    (version == "1" && logs.len() == count).then_some(logs)
}

/// The copies in a log directory, and whose they are.
pub fn kept(log_dir: &Path) -> io::Result<Vec<KeptJournal>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(log_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(KEPT_PREFIX)).and_then(|id| id.parse().ok());
        let Some(directory_id) = id else { continue };
        let path = entry.path();
        let logs = read_small(&logs_file(&path), LOGS_BYTES_MAX)?;
        let logs = logs.and_then(|content| parse_logs(std::str::from_utf8(&content).ok()?));
        found.push(KeptJournal { directory_id, path, logs });
    }
    Ok(found)
}

/// Opens a copy to be replayed. It is never started.
pub fn open_kept(path: &Path, identity: JournalIdentity) -> Result<Recovery, JournalError> {
    let config = JournalConfig { path: Some(path.to_path_buf()), ..JournalConfig::over_device() };
    Recovery::open(open_file(path, &config)?, config, identity)
}

/// Removes a copy whose frames are all in the segments, durably.
pub fn remove_kept(path: &Path) -> io::Result<()> {
    remove_if_exists(path)?;
    remove_if_exists(&logs_file(path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::super::{Journal, open};
    use super::*;

    #[test]
    fn a_copy_has_the_frames_that_the_journal_had() {
        let dir = tempfile::tempdir().unwrap();
        let identity = JournalIdentity { cluster_id: "c".into(), node_id: 1, directory_id: Uuid::from_u128(1 << 100) };
        let config = JournalConfig::in_log_dir(dir.path()).size_bytes(1 << 20);
        let Journal { staging, writer } =
            open(config.clone(), identity.clone()).unwrap().start(Uuid::from_u128(5 << 100)).unwrap();
        let failed = Uuid::from_u128(7 << 100);
        let logs: BTreeSet<LogId> = [(Uuid::from_u128(8 << 100), 0), (Uuid::from_u128(8 << 100), 3)].into();
        let path = keep_for(dir.path(), failed, &logs).unwrap();
        assert!(keep_for(dir.path(), failed, &logs).is_err(), "what is kept is not replaced");
        let found = kept(dir.path()).unwrap();
        let mine = KeptJournal { directory_id: failed, path: path.clone(), logs: Some(logs) };
        assert_eq!(found, [mine]);
        assert!(found[0].may_be_of(&(Uuid::from_u128(8 << 100), 3)) && !found[0].may_be_of(&(failed, 3)));
        std::fs::write(logs_file(&path), "1\n2\ncut off").unwrap();
        let found = kept(dir.path()).unwrap();
        assert_eq!(found[0].logs, None, "a damaged list says nothing");
        assert!(found[0].may_be_of(&(failed, 3)));
        let copy = open_kept(&path, identity.clone()).unwrap();
        assert_eq!((copy.frame_count(), copy.was_clean()), (0, false));
        assert!(open_kept(&path, JournalIdentity { node_id: 2, ..identity }).is_err());
        remove_kept(&path).unwrap();
        assert!(kept(dir.path()).unwrap().is_empty());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [JOURNAL_FILE]);
        drop((staging, writer));
    }
}
