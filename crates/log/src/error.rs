//! What can go wrong in a log, sorted by what a caller does about it. The broker maps each to one of Kafka's codes.

use std::io;
use std::path::{Path, PathBuf};

/// Trouble with files. The log that answers `Offline` stays so until it is opened again.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// KAFKA_STORAGE_ERROR.
    #[error("{op} {path}")]
    Io {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// KAFKA_STORAGE_ERROR: a write or flush failed before, and what the disk holds is not known until it is re-read.
    #[error("the log {log} is offline: {reason}")]
    Offline { log: String, reason: String },
    /// The disk has no room (ENOSPC, EDQUOT). Nothing was written; later appends may succeed. KAFKA_STORAGE_ERROR.
    #[error("no space left on the device of {path}")]
    NoSpace { path: PathBuf },
    /// A file that cannot be rebuilt does not hold what it must, e.g. `partition.metadata`.
    #[error("{path} is not readable: {reason}")]
    BadFile { path: PathBuf, reason: String },
    /// The folder belongs to another topic of the same name. INCONSISTENT_TOPIC_ID.
    #[error("{log} holds topic id {found}, not {expected}")]
    InconsistentTopicId { log: String, found: taccola_base::Uuid, expected: taccola_base::Uuid },
    /// OFFSET_OUT_OF_RANGE, for `delete_records_before` and truncation.
    #[error("offset {offset} is outside [{start}, {end}]")]
    OffsetOutOfRange { offset: i64, start: i64, end: i64 },
}

impl LogError {
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match source.raw_os_error() {
            Some(code) if is_no_space(code) => Self::NoSpace { path },
            _ => Self::Io { op, path, source },
        }
    }
}

impl LogError {
    /// The disk has lost what was to be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Io { source, .. } if crate::salvage::is_unreadable(source))
    }
}

pub(crate) fn is_no_space(code: i32) -> bool {
    code == rustix::io::Errno::NOSPC.raw_os_error() || code == rustix::io::Errno::DQUOT.raw_os_error()
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Storage(#[from] LogError),
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id} epoch {producer_epoch} sent sequence {found} after {last}")]
    OutOfOrderSequence { producer_id: i64, producer_epoch: i16, found: i32, last: i32 },
    /// INVALID_PRODUCER_EPOCH: the batch's epoch is older than the producer's.
    #[error("producer {producer_id} sent epoch {found}, the current one is {current}")]
    InvalidProducerEpoch { producer_id: i64, found: i16, current: i16 },
    /// INVALID_TXN_STATE: a non-transactional batch inside an open transaction, or the like.
    #[error("producer {producer_id}: {reason}")]
    InvalidTxnState { producer_id: i64, reason: &'static str },
    /// TRANSACTION_COORDINATOR_FENCED: a marker from a coordinator older than one already seen.
    #[error("producer {producer_id}: marker of coordinator epoch {found}, the current one is {current}")]
    CoordinatorFenced { producer_id: i64, found: i32, current: i32 },
    /// MESSAGE_TOO_LARGE.
    #[error("a batch of {size} bytes is larger than {max}")]
    TooLarge { size: usize, max: u32 },
    /// RECORD_LIST_TOO_LARGE: it fits into no segment.
    #[error("a batch of {size} bytes is larger than a segment, {max}")]
    LargerThanSegment { size: usize, max: u32 },
    /// CORRUPT_MESSAGE: the bytes are no whole batch v2 of the stated length.
    #[error("not one whole record batch: {reason}")]
    Malformed { reason: String },
    /// INVALID_RECORD, or for a replica UNEXPECTED: offsets do not continue the log.
    #[error("batch offsets {base}..={last} do not follow log end offset {end}")]
    OffsetsNotMonotonic { base: i64, last: i64, end: i64 },
}

/// Why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// OFFSET_OUT_OF_RANGE. `end` is the log end offset, exclusive (reading at it answers nothing).
    #[error("offset {offset} is outside [{start}, {end}]")]
    OffsetOutOfRange { offset: i64, start: i64, end: i64 },
    /// The log begins before it, its local part behind it: the caller reads it from remote storage, or answers
    /// OFFSET_MOVED_TO_TIERED_STORAGE.
    #[error("offset {offset} is below {local_start}, in remote storage")]
    InRemoteStorage { offset: i64, local_start: i64 },
    /// CORRUPT_MESSAGE: the offset lies in a range that is damaged on disk. Reads from `next_valid` on work.
    #[error("offsets {first}..{next_valid} of {log} are damaged on disk")]
    CorruptRecord { log: String, first: i64, next_valid: i64 },
    #[error(transparent)]
    Storage(#[from] LogError),
}
