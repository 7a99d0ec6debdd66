//! The folder that keeps a JVM Kafka from starting on a log directory whose journal holds records that the segments lack.
//!
//! Kafka's `LogManager` refuses a log directory with a folder whose name is no partition's, and ignores plain files. So
//! the folder is raised before the first frame is written and lowered after the journal was marked empty.

use std::io;
use std::path::Path;

use crate::file::{create_dir, remove_dir, sync_dir};

/// Name of the folder. What follows the last dash is no number, so it can never be taken for a partition's.
pub const MARKER_DIR: &str = "taccola.journal.not-empty";

/// Makes the folder, durably. Done when it already stands.
pub fn raise_marker(log_dir: &Path) -> io::Result<()> {
    match create_dir(&log_dir.join(MARKER_DIR)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => sync_dir(log_dir),
    }
}

/// Removes the folder, durably. Done when it is not there.
pub fn lower_marker(log_dir: &Path) -> io::Result<()> {
    match remove_dir(&log_dir.join(MARKER_DIR)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => sync_dir(log_dir),
    }
}

/// Whether the folder stands: the journal of this directory was not stopped cleanly, or is in use.
pub fn marker_raised(log_dir: &Path) -> bool {
    log_dir.join(MARKER_DIR).is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_raised_and_lowered_any_number_of_times() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            raise_marker(dir.path()).unwrap();
            raise_marker(dir.path()).unwrap();
            assert!(marker_raised(dir.path()));
            lower_marker(dir.path()).unwrap();
            lower_marker(dir.path()).unwrap();
            assert!(!marker_raised(dir.path()));
        }
    }
}
