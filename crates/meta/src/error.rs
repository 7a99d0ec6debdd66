//! What can be wrong with metadata that is read: each message is one sentence for an operator.

use taccola_wire::batch::BatchError;
use taccola_wire::codec::{DecodeError, EncodeError};

/// Why metadata cannot be read, applied or written. Any of these while a directory is opened stops the start: metadata that
/// is only partly understood must not be served or extended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    #[error("a metadata record is {0}")]
    Frame(&'static str),
    #[error("metadata record frame version {0} is not 1, the only one known")]
    FrameVersion(u32),
    #[error("metadata record type {0} is not known to this release; it was written by a later one")]
    UnknownRecord(u32),
    #[error("{name} has no version {version} in this release (it has {min} to {max}); it was written by a later one")]
    RecordVersion { name: &'static str, version: u32, min: i16, max: i16 },
    #[error("{name} version {version} cannot be read: {source}")]
    Decode { name: &'static str, version: i16, source: DecodeError },
    #[error("{name} version {version} cannot be written: {source}")]
    Encode { name: &'static str, version: i16, source: EncodeError },
    #[error("{name} has {count} bytes behind its end")]
    Garbage { name: &'static str, count: usize },
    #[error("{record} cannot be applied: {reason}")]
    Replay { record: &'static str, reason: String },
    #[error("metadata batch at offset {offset}: {source}")]
    Batch { offset: i64, source: BatchError },
    #[error("metadata record at offset {offset}: {source}")]
    At { offset: i64, source: Box<MetaError> },
    #[error("metadata snapshot: {0}")]
    Snapshot(String),
    #[error("a metadata record of {bytes} bytes is larger than a batch may be ({max} bytes)")]
    RecordTooLarge { bytes: usize, max: usize },
    #[error(
        "{records} metadata records must be one atomic batch, which takes at most {max} records and {max_bytes} bytes"
    )]
    NotAtomic { records: usize, max: usize, max_bytes: usize },
    #[error("meta.properties: {0}")]
    MetaProperties(String),
    #[error("quorum-state: {0}")]
    QuorumState(String),
    #[error("metadata.version {0} is outside {min} to {max}, which this release reads", min = crate::feature::METADATA_VERSION_MIN, max = crate::feature::METADATA_VERSION_MAX)]
    MetadataVersion(i16),
}

impl MetaError {
    /// Adds where in the log the error is.
    #[must_use]
    pub fn at(self, offset: i64) -> Self {
        match self {
            Self::At { .. } | Self::Batch { .. } => self,
            other => Self::At { offset, source: Box::new(other) },
        }
    }

    pub(crate) fn replay(record: &'static str, reason: impl Into<String>) -> Self {
        Self::Replay { record, reason: reason.into() }
    }
}
