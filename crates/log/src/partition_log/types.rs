//! What callers give to a [`PartitionLog`](crate::PartitionLog) and get from it.

use crate::verification::VerificationGuard;

/// A record's place in a partition.
pub type Offset = i64;

/// Who appends; decides which checks apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A Produce request: all checks. Whether a transaction may begin here was not asked.
    Client,
    /// A transactional batch of a Produce request: it continues the producer's open transaction, or begins one under the
    /// guard of [`PartitionLog::start_verification`](crate::PartitionLog::start_verification).
    ClientTransaction { guard: Option<VerificationGuard> },
    /// The same for a coordinator's records in a client's transaction, which have no sequence.
    CoordinatorTransaction { guard: Option<VerificationGuard> },
    /// A coordinator's own records and transaction markers. `transaction_version` is the producer's (KIP-890) for a
    /// marker, else 0: from version 2 on a marker must carry a higher producer epoch than the transaction's data.
    Coordinator { transaction_version: i16 },
    /// A batch that was accepted before: read from the journal or from a leader.
    Replay,
}

/// What an append is done under.
#[derive(Clone, Copy, Debug)]
pub struct AppendContext {
    pub origin: AppendOrigin,
    pub leader_epoch: i32,
    pub now_ms: i64,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// The time given to the batch under LogAppendTime, else -1. For a duplicate: the original's timestamp under
    /// LogAppendTime, else -1.
    pub log_append_time_ms: i64,
    pub log_start_offset: Offset,
    /// The producer sent this batch before; the offsets are the original's and nothing was written. Acknowledge it once
    /// the original is as durable as the caller asks.
    pub duplicate: bool,
}

/// What became of a batch from the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    Appended,
    /// It was written back to its place in the middle of the log.
    Repaired,
    /// The log holds its offsets already, or they are damaged and it does not fit their place.
    Present,
}

/// What the checkpoints say about a log before it is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHints {
    /// All below is known to be on disk; 0 when no checkpoint names the partition.
    pub recovery_point: Offset,
    /// From the log start offset checkpoint; 0 when it does not name the partition.
    pub log_start_offset: Offset,
    /// The log is or was compacted (the cleaner's checkpoint names it, or its topic always is).
    pub compacted: bool,
    /// From the cleaner's checkpoint: below it the log was compacted, and what that left is on disk; 0 when nothing says so.
    pub cleaned_to: Offset,
    /// Everything is read and checked, whatever the stop was like, and all that is derived is made anew.
    pub check_all: bool,
    /// The directory was stopped cleanly ([`crate::log_dir::take_clean_shutdown`]).
    pub clean: bool,
}

/// Damaged bytes that were left where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRange {
    pub segment_base_offset: Offset,
    /// Bytes `start_position..end_position` of the segment's file.
    pub start_position: u64,
    pub end_position: u64,
    /// Offsets `first_offset..next_valid_offset` answer [`CorruptRecord`](crate::ReadError::CorruptRecord).
    pub first_offset: Offset,
    pub next_valid_offset: Offset,
    pub reason: String,
}

/// What opening found and did. Empty after a clean stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub segments_scanned: usize,
    pub bytes_scanned: u64,
    pub indexes_rebuilt: usize,
    /// Bytes of a torn tail that were cut off, and the first offset that they may have held.
    pub truncated_bytes: u64,
    pub truncated_from_offset: Option<Offset>,
    pub quarantined: Vec<QuarantinedRange>,
    /// Other repairs, one sentence each (a rebuilt checkpoint, an ignored snapshot, a removed leftover).
    pub notes: Vec<String>,
}

/// What a lookup by time asks for (ListOffsets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampQuery {
    /// First record with this timestamp or a later one.
    At(i64),
    /// -1
    Latest,
    /// -2
    Earliest,
    /// -3
    MaxTimestamp,
    /// -4
    EarliestLocal,
    /// -5: the last offset that is in remote storage.
    LatestTiered,
    /// -6: the first that is not.
    EarliestPendingUpload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetForTimestamp {
    pub offset: Offset,
    /// -1 for the special queries that have none.
    pub timestamp_ms: i64,
    /// -1 when not known.
    pub leader_epoch: i32,
}

/// Answer to OffsetForLeaderEpoch: both -1 when undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub leader_epoch: i32,
    pub end_offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: Offset,
    /// Offset of the abort marker, inclusive.
    pub last_offset: Offset,
    pub last_stable_offset: Offset,
}

/// One row of DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSummary {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp_ms: i64,
    pub coordinator_epoch: i32,
    /// -1 when no transaction is open.
    pub current_txn_start_offset: Offset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionOutcome {
    pub segments_removed: usize,
    pub bytes_removed: u64,
    /// The log start offset moved to here.
    pub new_log_start_offset: Option<Offset>,
}
