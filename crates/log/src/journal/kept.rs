//! Copies of the journal for log directories that failed while a broker ran.
//!
//! The segments of such a directory may lack batches that only the journal is sure to have, and the others need the journal's
//! space. So the whole file is copied, once, before it lets go of anything; when the directory is back, what belongs to its
//! logs is replayed from the copy before the journal's own frames. A copy is a plain file, which a JVM Kafka ignores; as
//! long as there is one, the marker folder stays.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use taccola_base::Uuid;

use super::buffer::AlignedBuf;
use super::device::{FileDevice, JournalDevice};
use super::{JOURNAL_FILE, JournalConfig, JournalError, JournalIdentity, Recovery, open_file};
use crate::disk_watch::DiskOp;
use crate::file::{opened, remove_if_exists, rename, step, step_writing, sync_dir};

/// What follows is the id of the directory that failed.
const KEPT_PREFIX: &str = "taccola.journal.of-";

/// Read at a time; a multiple of a block.
const COPY_BYTES: usize = 1024 * 1024;

/// Copies the journal of `log_dir` for a directory that failed, durably. Nothing may be written to it meanwhile.
pub fn keep_for(log_dir: &Path, failed: Uuid) -> io::Result<PathBuf> {
    let kept = log_dir.join(format!("{KEPT_PREFIX}{failed}"));
    if kept.try_exists()? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a journal is kept for that directory already"));
    }
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

/// The copies in a log directory, and whose they are.
pub fn kept(log_dir: &Path) -> io::Result<Vec<(Uuid, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(log_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(KEPT_PREFIX)).and_then(|id| id.parse().ok());
        found.extend(id.map(|id| (id, entry.path())));
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
        let path = keep_for(dir.path(), failed).unwrap();
        assert!(keep_for(dir.path(), failed).is_err(), "what is kept is not replaced");
        assert_eq!(kept(dir.path()).unwrap(), [(failed, path.clone())]);
        let copy = open_kept(&path, identity.clone()).unwrap();
        assert_eq!((copy.frame_count(), copy.was_clean()), (0, false));
        assert!(open_kept(&path, JournalIdentity { node_id: 2, ..identity }).is_err());
        remove_kept(&path).unwrap();
        assert!(kept(dir.path()).unwrap().is_empty());
        drop((staging, writer));
    }
}
