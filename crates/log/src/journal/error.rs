//! What can go wrong with the journal. Every variant asks the caller for something else.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::FrameSeq;
use super::recovery::JournalDamage;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be opened, made or locked. Nothing was changed.
    #[error("cannot {op} the journal")]
    Io { op: &'static str, source: io::Error },
    #[error("cannot read the journal at byte {position}")]
    Read { position: u64, source: io::Error },
    #[error(
        "there is no room for the journal {path:?}: free {size_bytes} bytes on its disk, or make \
         taccola.journal.bytes smaller"
    )]
    NoSpace { path: PathBuf, size_bytes: u64, source: io::Error },
    #[error("the journal {path:?} is in use by another process")]
    Locked { path: PathBuf },
    /// The log directory is another node's, or the journal was copied here.
    #[error("the journal belongs to {what} {found}, not {expected}")]
    WrongOwner { what: &'static str, found: String, expected: String },
    /// Neither header slot is whole.
    #[error("the file is no journal, or both of its header slots are damaged")]
    NotAJournal,
    #[error("the journal has format {version}, which this version cannot read")]
    Version { version: u32 },
    #[error("the journal is {found} bytes long instead of {expected}: it was cut off or extended")]
    WrongLength { expected: u64, found: u64 },
    #[error("{what}")]
    Config { what: &'static str },
    /// Acknowledged data is lost: tell the operator, or repair from a replica, then accept.
    #[error("the journal is damaged: {0}")]
    Damaged(JournalDamage),
    #[error("frame {seq} of the journal cannot be read: {what}")]
    Unreadable { seq: u64, what: &'static str },
    #[error("{frames} frames of the journal have not been replayed")]
    NotReplayed { frames: u64 },
    /// Nothing was written: sync the segments, release, and write the same frame again.
    #[error("the journal is full: {needed} bytes are needed and {used} of {capacity} taken")]
    Full { needed: u64, used: u64, capacity: u64 },
    /// A write failed. What the disk holds is unknown until the journal is opened anew.
    #[error("the journal failed and takes nothing more: {reason}")]
    Poisoned { reason: Arc<str> },
    #[error("frames {} to {} of the journal are not released", oldest.0, newest.0)]
    NotReleased { oldest: FrameSeq, newest: FrameSeq },
}

impl JournalError {
    /// Whether the journal can go on after a checkpoint.
    pub fn is_full(&self) -> bool {
        matches!(self, JournalError::Full { .. })
    }
}
