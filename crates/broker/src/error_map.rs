//! The only place where an engine's error becomes one of Kafka's codes. Matches are exhaustive: a new variant must be
//! given its code here before it compiles.

use taccola_log::{AppendError, LogError, ReadError};
use taccola_wire::error::ErrorCode;

use crate::partition::{AppendRejected, ReadRejected};
use crate::runtime::journal::JournalWaitError;
use crate::runtime::metadata::MetadataWriteError;
use crate::tier::RemoteReadError;

pub fn log(error: &LogError) -> ErrorCode {
    match error {
        LogError::Io { .. } | LogError::Offline { .. } | LogError::NoSpace { .. } | LogError::BadFile { .. } => {
            ErrorCode::KafkaStorageError
        }
        LogError::InconsistentTopicId { .. } => ErrorCode::InconsistentTopicId,
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
    }
}

pub fn append(error: &AppendRejected) -> ErrorCode {
    match error {
        AppendRejected::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendRejected::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendRejected::Journal(_) | AppendRejected::ReadOnly(_) => ErrorCode::KafkaStorageError,
        AppendRejected::Log(error) => log_append(error),
    }
}

fn log_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Storage(error) => log(error),
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
        AppendError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        AppendError::Malformed { .. } => ErrorCode::CorruptMessage,
        AppendError::OffsetsNotMonotonic { .. } => ErrorCode::InvalidRecord,
    }
}

pub fn read(error: &ReadRejected) -> ErrorCode {
    match error {
        ReadRejected::NotLeader => ErrorCode::NotLeaderOrFollower,
        ReadRejected::Log(error) => log_read(error),
    }
}

/// Kafka has no code for a store that does not answer.
pub(crate) fn remote_read(error: &RemoteReadError) -> ErrorCode {
    match error {
        RemoteReadError::Rejected(error) => read(error),
        RemoteReadError::Unavailable(_) => ErrorCode::UnknownServerError,
        RemoteReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
    }
}

pub fn log_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::InRemoteStorage { .. } => ErrorCode::OffsetMovedToTieredStorage,
        ReadError::CorruptRecord { .. } => ErrorCode::CorruptMessage,
        ReadError::Storage(error) => log(error),
    }
}

pub fn journal_wait(error: &JournalWaitError) -> ErrorCode {
    match error {
        JournalWaitError::TimedOut => ErrorCode::RequestTimedOut,
        JournalWaitError::Failed(_) => ErrorCode::KafkaStorageError,
    }
}

pub fn metadata_write(error: &MetadataWriteError) -> ErrorCode {
    match error {
        MetadataWriteError::Broken(_) => ErrorCode::KafkaStorageError,
        // The records were made here: that they cannot be written down is a defect of ours.
        MetadataWriteError::Encode(_) => ErrorCode::UnknownServerError,
        MetadataWriteError::Append(error) => append(error),
        MetadataWriteError::Journal(error) => journal_wait(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_learn_which_kind_of_failure_it_was() {
        let stale = AppendError::InvalidProducerEpoch { producer_id: 1, found: 0, current: 1 };
        assert_eq!(append(&AppendRejected::Log(stale)), ErrorCode::InvalidProducerEpoch);
        let gap = AppendError::OutOfOrderSequence { producer_id: 1, producer_epoch: 0, found: 5, last: 1 };
        assert_eq!(append(&AppendRejected::Log(gap)), ErrorCode::OutOfOrderSequenceNumber);
        let offline = LogError::Offline { log: "t-0".into(), reason: "EIO".into() };
        assert_eq!(log(&offline), ErrorCode::KafkaStorageError);
        assert_eq!(journal_wait(&JournalWaitError::TimedOut), ErrorCode::RequestTimedOut);
        assert_eq!(read(&ReadRejected::NotLeader), ErrorCode::NotLeaderOrFollower);
    }
}
