//! One partition's log: segments, indexes, producer state and leader epochs as one. Answers to Kafka's `UnifiedLog` and
//! `LocalLog`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::{TopicPartition, Uuid};

use crate::config::LogConfig;
use crate::error::{AppendError, LogError, ReadError};
use crate::shared::LogShared;

/// A record's place in a partition.
pub type Offset = i64;

/// Who appends; decides which checks apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A Produce request: all checks.
    Client,
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

/// What the checkpoints say about a log before it is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHints {
    /// All below is known to be on disk; 0 when no checkpoint names the partition.
    pub recovery_point: Offset,
    /// From the log start offset checkpoint; 0 when it does not name the partition.
    pub log_start_offset: Offset,
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
    /// Offsets `first_offset..next_valid_offset` answer [`ReadError::CorruptRecord`].
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
    /// -5
    LatestTiered,
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

/// A planned read. Holds the file open, so that it can run outside the log's critical section and survives a deletion
/// of the segment.
#[derive(Debug)]
pub struct ReadSlice {}

impl ReadSlice {
    /// At most this many bytes will come, except for a first batch that is larger; 0 at the log's end.
    pub fn len_max(&self) -> usize {
        todo!()
    }

    /// Whole batches, the first holding the asked offset (or, where that was compacted away, the next one); empty at
    /// the log's end and when the first batch is larger than `max_bytes` and `min_one_batch` was not asked for.
    pub fn read(&self) -> Result<Bytes, ReadError> {
        todo!()
    }
}

/// A flush that can run outside the log's critical section: [`PartitionLog::begin_flush`], [`FlushPlan::run`],
/// [`PartitionLog::end_flush`].
#[derive(Debug)]
pub struct FlushPlan {}

impl FlushPlan {
    /// Flushes the files. The result must be handed to [`PartitionLog::end_flush`].
    pub fn run(&self) -> io::Result<()> {
        todo!()
    }
}

/// See the module's text. About 1 KB and no open file while idle.
#[derive(Debug)]
pub struct PartitionLog {}

#[allow(unused_variables)]
impl PartitionLog {
    /// Makes the folder `<log_dir>/<topic>-<partition>` with an empty log. Fails if it exists.
    pub fn create(
        log_dir: &Path,
        topic_partition: TopicPartition,
        topic_id: Option<Uuid>,
        config: Arc<LogConfig>,
        shared: Arc<LogShared>,
    ) -> Result<Self, LogError> {
        todo!()
    }

    /// Opens an existing folder. After a clean stop nothing of the segments is read. `topic_id`, when given, must be
    /// the folder's; a folder without `partition.metadata` gets one.
    pub fn open(
        log_dir: &Path,
        topic_partition: TopicPartition,
        topic_id: Option<Uuid>,
        config: Arc<LogConfig>,
        shared: Arc<LogShared>,
        hints: OpenHints,
        now_ms: i64,
    ) -> Result<(Self, RecoveryReport), LogError> {
        todo!()
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        todo!()
    }
    pub fn topic_id(&self) -> Option<Uuid> {
        todo!()
    }
    pub fn config(&self) -> &Arc<LogConfig> {
        todo!()
    }
    /// Takes effect from the next append on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        todo!()
    }
    /// Why the log answers no more, if so.
    pub fn offline_reason(&self) -> Option<&str> {
        todo!()
    }

    // -- append ------------------------------------------------------------------------------------------------------

    /// Appends exactly one validated batch: checks the producer's state, gives it offsets and the leader epoch in
    /// place (`batch` holds the stored bytes afterwards, for the journal or for replicas), writes it, and rolls the
    /// segment first when it must. Nothing is flushed.
    pub fn append(&mut self, batch: &mut [u8], context: AppendContext) -> Result<Appended, AppendError> {
        todo!()
    }

    /// Appends one batch with the offsets and the leader epoch that it carries, from the journal or a leader. Its base
    /// offset must not be below the log end offset; a gap is allowed. Producer state is updated, not checked.
    pub fn append_as_is(&mut self, batch: &[u8], now_ms: i64) -> Result<Appended, AppendError> {
        todo!()
    }

    // -- offsets -----------------------------------------------------------------------------------------------------

    pub fn log_start_offset(&self) -> Offset {
        todo!()
    }
    /// The next offset to be given out.
    pub fn log_end_offset(&self) -> Offset {
        todo!()
    }
    /// All below is on disk, as far as this log was told.
    pub fn recovery_point(&self) -> Offset {
        todo!()
    }
    /// The broker's high watermark, exclusive. Kept here because the last stable offset follows it. Never lowered below
    /// the log start offset, nor raised above the log end offset; answers what it is now.
    pub fn set_high_watermark(&mut self, offset: Offset) -> Offset {
        todo!()
    }
    pub fn high_watermark(&self) -> Offset {
        todo!()
    }
    /// Bound for read_committed, exclusive: the start of the first transaction that is open, or whose marker is not yet
    /// below the high watermark; else the high watermark.
    pub fn last_stable_offset(&self) -> Offset {
        todo!()
    }
    /// Start of the first open (or not yet replicated) transaction.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        todo!()
    }

    // -- read --------------------------------------------------------------------------------------------------------

    /// Plans a read from `offset`, of batches that begin below `upper_bound` (exclusive) and below the log end offset.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        min_one_batch: bool,
    ) -> Result<ReadSlice, ReadError> {
        todo!()
    }

    /// Bytes between `offset` and `upper_bound`, to within an index interval; for `fetch.min.bytes`. 0 only when there
    /// is nothing.
    pub fn bytes_available(&self, offset: Offset, upper_bound: Offset) -> u64 {
        todo!()
    }

    /// Transactions aborted that touch `first..upper_bound`, sorted by first offset.
    pub fn aborted_txns(&self, first: Offset, upper_bound: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        todo!()
    }

    /// `None` when no record qualifies.
    pub fn offset_for_timestamp(&self, query: TimestampQuery) -> Result<Option<OffsetForTimestamp>, ReadError> {
        todo!()
    }

    // -- leader epochs -----------------------------------------------------------------------------------------------

    /// Latest leader epoch in the log.
    pub fn latest_leader_epoch(&self) -> Option<i32> {
        todo!()
    }
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<i32> {
        todo!()
    }
    /// Largest epoch at or below `leader_epoch` that the log holds, and where it ends (exclusive).
    pub fn epoch_end_offset(&self, leader_epoch: i32) -> EpochEndOffset {
        todo!()
    }
    /// A leader's first act in a new epoch: the epoch begins at the log end offset.
    pub fn assign_epoch_start(&mut self, leader_epoch: i32, start_offset: Offset) -> Result<(), LogError> {
        todo!()
    }

    // -- producers ---------------------------------------------------------------------------------------------------

    pub fn producers(&self) -> Vec<ProducerSummary> {
        todo!()
    }
    /// Start offset of the producer's open transaction at this epoch (KIP-890 verification asks for it).
    pub fn ongoing_txn(&self, producer_id: i64, producer_epoch: i16) -> Option<Offset> {
        todo!()
    }
    /// Forgets producers idle for `producer.id.expiration.ms`; answers how many.
    pub fn expire_producers(&mut self, now_ms: i64) -> usize {
        todo!()
    }

    // -- shrinking ---------------------------------------------------------------------------------------------------

    /// Drops all from `offset` on (a follower's truncation). True when something was dropped.
    pub fn truncate_to(&mut self, offset: Offset, now_ms: i64) -> Result<bool, LogError> {
        todo!()
    }
    /// Drops everything; the log is empty and begins at `offset`.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        todo!()
    }
    /// DeleteRecords: the log start offset moves to `offset` (at most the high watermark, which the caller checks), and
    /// segments wholly below go. Answers the low watermark. The caller checkpoints the log start offset.
    pub fn delete_records_before(&mut self, offset: Offset, now_ms: i64) -> Result<Offset, LogError> {
        todo!()
    }
    /// Removes segments by time, size and log start offset, as far as the high watermark allows.
    pub fn apply_retention(&mut self, now_ms: i64) -> Result<RetentionOutcome, LogError> {
        todo!()
    }
    /// Unlinks removed segments whose delay has passed; answers how many remain.
    pub fn purge(&mut self, now_ms: i64) -> usize {
        todo!()
    }

    // -- flush, stop -------------------------------------------------------------------------------------------------

    /// Makes all appended so far durable and answers the new recovery point. A failure takes the log offline.
    pub fn flush(&mut self, now_ms: i64) -> Result<Offset, LogError> {
        todo!()
    }
    /// `None` when nothing is unflushed.
    pub fn begin_flush(&mut self) -> Result<Option<FlushPlan>, LogError> {
        todo!()
    }
    pub fn end_flush(&mut self, plan: FlushPlan, result: io::Result<()>, now_ms: i64) -> Result<Offset, LogError> {
        todo!()
    }
    /// Records appended since the last flush (`flush.messages`).
    pub fn unflushed_messages(&self) -> i64 {
        todo!()
    }
    pub fn last_flush_ms(&self) -> i64 {
        todo!()
    }
    /// Whether `flush.messages` or `flush.ms` asks for a flush now.
    pub fn flush_due(&self, now_ms: i64) -> bool {
        todo!()
    }
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
    pub fn segment_count(&self) -> usize {
        todo!()
    }
    /// A clean stop: flush, producer snapshot, preallocated space given back. Answers the recovery point to checkpoint.
    pub fn close(self, now_ms: i64) -> Result<Offset, LogError> {
        todo!()
    }
    /// First step of a topic's deletion: renames the folder to `<topic>-<partition>.<id>-delete` and answers its path.
    pub fn rename_for_delete(self, unique_id: Uuid) -> Result<std::path::PathBuf, LogError> {
        todo!()
    }
}
