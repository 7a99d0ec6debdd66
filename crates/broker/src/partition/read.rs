//! Reads from a partition: the bound that the isolation level sets, then the log.

use bytes::Bytes;
use taccola_log::{AbortedTxn, PartitionLog, ReadError};

use super::{Leadership, Partition};
use crate::runtime::workers::wait_for_disk;

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchIsolation {
    /// Replicas and the broker itself.
    LogEnd,
    HighWatermark,
    /// read_committed.
    TxnCommitted,
}

impl FetchIsolation {
    /// The first offset that must not be seen.
    pub fn upper_bound(self, log: &PartitionLog) -> i64 {
        match self {
            FetchIsolation::LogEnd => log.log_end_offset(),
            FetchIsolation::HighWatermark => log.high_watermark(),
            FetchIsolation::TxnCommitted => log.last_stable_offset(),
        }
    }
}

/// A read and the state of the partition at that moment.
#[derive(Clone, Debug)]
pub struct PartitionRead {
    pub records: Bytes,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    pub upper_bound: i64,
    /// Only under read_committed, sorted by first offset.
    pub aborted_txns: Vec<AbortedTxn>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadRejected {
    /// The partition was deleted, or the broker is stopping.
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Log(#[from] ReadError),
}

impl Partition {
    /// Reads whole batches from `offset`. The file is read outside the critical section.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one_batch: bool,
        isolation: FetchIsolation,
    ) -> Result<PartitionRead, ReadRejected> {
        let (slice, mut read) = {
            let state = self.state.lock();
            let log = state.log.as_ref().ok_or(ReadRejected::NotLeader)?;
            let upper_bound = isolation.upper_bound(log);
            let slice = log.read(offset, max_bytes, upper_bound, min_one_batch)?;
            let aborted_txns = match isolation {
                FetchIsolation::TxnCommitted => log.aborted_txns(offset, upper_bound)?,
                _ => Vec::new(),
            };
            let read = PartitionRead {
                records: Bytes::new(),
                high_watermark: log.high_watermark(),
                last_stable_offset: log.last_stable_offset(),
                log_start_offset: log.log_start_offset(),
                upper_bound,
                aborted_txns,
            };
            (slice, read)
        };
        read.records = if slice.is_cached() { slice.read()? } else { wait_for_disk(|| slice.read())? };
        Ok(read)
    }

    /// High watermark, last stable offset and log start offset; `None` once the partition is gone.
    pub fn offsets(&self) -> Option<(i64, i64, i64)> {
        self.with_log(|log| (log.high_watermark(), log.last_stable_offset(), log.log_start_offset()))
    }

    /// Whether a client's view of the leader epoch is ours (`currentLeaderEpoch`, -1: it does not say).
    pub fn check_leader_epoch(&self, current_leader_epoch: i32) -> EpochCheck {
        let Leadership { leader_epoch, .. } = self.leadership();
        match current_leader_epoch {
            -1 => EpochCheck::Ok,
            epoch if epoch < leader_epoch => EpochCheck::Fenced,
            epoch if epoch > leader_epoch => EpochCheck::Unknown,
            _ => EpochCheck::Ok,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochCheck {
    Ok,
    /// FENCED_LEADER_EPOCH: the client is behind.
    Fenced,
    /// UNKNOWN_LEADER_EPOCH: the client is ahead.
    Unknown,
}
