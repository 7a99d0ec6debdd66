//! One partition's log: segments, indexes, producer state and leader epochs as one. Answers to Kafka's `UnifiedLog` and
//! `LocalLog`.
//!
//! INVARIANTS
//! - `segments` is never empty, sorted by base offset; the last one is active, alone is written to, and its base offset is
//!   at most `log_end_offset`.
//! - `log_start_offset` is in a local segment or behind them, except where a tiered log keeps the older part remotely (`tier.rs`).
//! - `log_start_offset <= high_watermark <= log_end_offset`, `recovery_point <= log_end_offset`.
//! - A batch is in the log (below `log_end_offset`) only after all its bytes were handed to the file system.
//! - Once `offline` is set nothing is written or read any more.
//! - While `unborn` is set nothing of the log is on disk, not even its folder: the log is empty and has one segment.
//!
//! What can be read again from disk is read when it is first needed (`producers`, `epochs`, `active`, each segment's
//! indexes), so that a log which nobody uses costs about a kilobyte.

mod append;
mod compact;
mod flush;
mod lookup;
mod open;
mod read;
mod recover;
mod relocate;
mod scrub;
mod shrink;
#[cfg(test)]
mod tests;
mod tier;
mod types;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use taccola_base::planted::{Bug, planted};
use taccola_base::{TopicPartition, Uuid};

use crate::config::LogConfig;
use crate::epoch_cache::EpochCache;
use crate::error::{AppendError, LogError};
use crate::producer_state::ProducerState;
use crate::segment::Segment;
use crate::shared::LogShared;
use crate::txn_sums::TxnSums;
use crate::verification::{VerificationGuard, Verifications};

pub use flush::FlushPlan;
pub(crate) use open::Listing;
pub use open::parse_quarantine;
pub use read::ReadSlice;
pub use relocate::OriginalLog;
pub use scrub::{ScrubJob, ScrubOutcome};
pub use tier::{CopyCandidate, CopyIndexes};
pub use types::*;

/// Recent batches of the active segment whose position is kept in memory, for readers at the tail.
const RECENT_BATCHES: usize = 8;

/// What only a log that is appended to needs.
#[derive(Debug)]
struct ActiveState {
    /// `(base offset, position)` of the latest batches, a ring; unused places hold `i64::MAX`.
    recent: [(i64, u32); RECENT_BATCHES],
    recent_next: usize,
    bytes_since_index: u64,
    /// Max timestamp of the segment's first batch; `None` while the segment is empty.
    first_timestamp: Option<i64>,
    created_ms: i64,
    /// The jitter of this segment, already bounded by `segment.jitter.ms`.
    jitter_ms: i64,
    preallocated: bool,
    /// Size of the segment when producers were last written out.
    snapshot_position: u64,
}

impl ActiveState {
    fn new(now_ms: i64, jitter_ms: i64) -> Self {
        Self {
            recent: [(i64::MAX, 0); RECENT_BATCHES],
            recent_next: 0,
            bytes_since_index: 0,
            first_timestamp: None,
            created_ms: now_ms,
            jitter_ms,
            preallocated: false,
            snapshot_position: 0,
        }
    }

    fn note_batch(&mut self, base_offset: i64, position: u64) {
        if let Some(place) = self.recent.get_mut(self.recent_next) {
            *place = (base_offset, u32::try_from(position).unwrap_or(u32::MAX));
        }
        self.recent_next = (self.recent_next + 1) % RECENT_BATCHES;
    }

    /// The latest remembered batch that begins at or before `offset`.
    fn recent_position(&self, offset: i64) -> Option<u64> {
        let known = self.recent.iter().filter(|(base, _)| *base <= offset);
        known.max_by_key(|(base, _)| *base).map(|(_, position)| u64::from(*position))
    }
}

/// A removed segment's file, to be unlinked when its time has come.
#[derive(Debug)]
struct PendingRemoval {
    path: PathBuf,
    due_ms: i64,
}

/// See the module's text.
#[derive(Debug)]
pub struct PartitionLog {
    topic_partition: TopicPartition,
    topic_id: Option<Uuid>,
    dir: PathBuf,
    config: Arc<LogConfig>,
    shared: Arc<LogShared>,
    segments: Vec<Segment>,
    log_start_offset: i64,
    log_end_offset: i64,
    high_watermark: i64,
    recovery_point: i64,
    /// When the log was opened; producers idle since long before are not loaded.
    opened_ms: i64,
    last_flush_ms: i64,
    active: Option<Box<ActiveState>>,
    producers: OnceLock<Box<ProducerState>>,
    verifications: Verifications,
    epochs: OnceLock<Box<EpochCache>>,
    /// Offsets of the producer snapshots on disk, rising.
    snapshots: Vec<i64>,
    /// Snapshots written since the last flush.
    unsynced_snapshots: Vec<i64>,
    dir_dirty: bool,
    /// Nothing is on disk yet: see [`PartitionLog::make_folder`].
    unborn: bool,
    /// The folder was made since the last flush: its entry in the log directory, and its `partition.metadata`.
    birth_dirty: bool,
    /// Indexes and snapshot are written: see [`PartitionLog::seal_for_close`].
    sealed_for_close: bool,
    flush_running: bool,
    /// What was written at or behind this offset since the running flush began is not covered by it: the log was cut back
    /// in the meantime.
    flush_limit: i64,
    offline: Option<Box<str>>,
    /// The log is or was compacted: offsets may be missing anywhere.
    compacted: bool,
    /// See [`OpenHints::cleaned_to`].
    cleaned_to: Offset,
    quarantined: Vec<QuarantinedRange>,
    /// How often something could be read again that could not be read before.
    healed: u64,
    removals: Vec<PendingRemoval>,
    /// See `tier.rs`; 0 until the broker knows.
    copied_to: i64,
    /// A log start offset below the first segment that the checkpoint named when this log was opened without knowing whether it is
    /// tiered; the first settings decide.
    remote_start: Option<i64>,
    /// Upper end of what the last retention check found old enough; see `apply_retention`.
    expired_before: i64,
    late_reports: Vec<RecoveryReport>,
    /// What the transaction indexes held when they were flushed; nothing for most logs.
    txn_sums: OnceLock<Box<TxnSums>>,
    /// The latest time that was given to a batch under LogAppendTime, as far as the active segment tells; -1: none.
    last_append_time_ms: i64,
    /// Base offset of the first segment in which a damaged range was written anew.
    repaired_from: Option<i64>,
}

impl PartitionLog {
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    pub fn topic_id(&self) -> Option<Uuid> {
        self.topic_id
    }

    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Takes effect from the next append on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        self.compacted |= self.config.cleanup_compact;
        self.config = config;
        let remote_start = self.remote_start.take();
        if self.config.remote_storage_enable {
            self.log_start_offset = remote_start.unwrap_or(self.log_start_offset).min(self.log_start_offset);
        } else {
            let first = self.segments.first().map_or(0, |segment| segment.base_offset);
            if first > self.log_start_offset {
                self.move_log_start(first);
            }
        }
    }

    /// The partition's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why the log answers no more, if so.
    pub fn offline_reason(&self) -> Option<&str> {
        self.offline.as_deref()
    }

    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The next offset to be given out.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// All below is on disk, as far as this log was told.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// The broker's high watermark, exclusive. Kept here because the last stable offset follows it. Never lowered below
    /// the log start offset, nor raised above the log end offset; answers what it is now.
    pub fn set_high_watermark(&mut self, offset: Offset) -> Offset {
        self.high_watermark = offset.clamp(self.log_start_offset, self.log_end_offset);
        if let Some(producers) = self.producers.get_mut() {
            producers.high_watermark_moved(self.high_watermark);
        }
        self.high_watermark
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Bound for read_committed, exclusive: the start of the first transaction that is open, or whose marker is not yet
    /// below the high watermark; else the high watermark.
    pub fn last_stable_offset(&self) -> Offset {
        let unstable = self.first_unstable_offset().unwrap_or(self.high_watermark);
        let unstable = unstable + i64::from(planted(Bug::LastStableOffsetOffByOne));
        unstable.min(self.high_watermark)
    }

    /// Start of the first open (or not yet replicated) transaction, at least the log start offset.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        self.producer_state().first_unstable_offset().map(|offset| offset.max(self.log_start_offset))
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Damaged ranges that are kept on disk and answer [`ReadError::CorruptRecord`](crate::ReadError::CorruptRecord).
    pub fn quarantined(&self) -> &[QuarantinedRange] {
        &self.quarantined
    }

    /// Reports of repairs that were made after opening: a log stopped cleanly is looked at when it is first used.
    pub fn take_late_reports(&mut self) -> Vec<RecoveryReport> {
        std::mem::take(&mut self.late_reports)
    }

    // -- leader epochs -----------------------------------------------------------------------------------------------

    /// Latest leader epoch in the log.
    pub fn latest_leader_epoch(&self) -> Option<i32> {
        self.epochs().latest()
    }

    pub fn epoch_for_offset(&self, offset: Offset) -> Option<i32> {
        self.epochs().for_offset(offset)
    }

    /// Largest epoch at or below `leader_epoch` that the log holds, and where it ends (exclusive).
    pub fn epoch_end_offset(&self, leader_epoch: i32) -> EpochEndOffset {
        self.epochs().end_offset(leader_epoch, self.log_end_offset)
    }

    /// A leader's first act in a new epoch: the epoch begins at `start_offset`, the log end offset.
    pub fn assign_epoch_start(&mut self, leader_epoch: i32, start_offset: Offset) -> Result<(), LogError> {
        self.check_online()?;
        self.epochs_mut().assign(leader_epoch, start_offset);
        Ok(())
    }

    // -- producers ---------------------------------------------------------------------------------------------------

    /// The rows of DescribeProducers, by producer id.
    pub fn producers(&self) -> Vec<ProducerSummary> {
        self.producer_state().summaries()
    }

    /// Start offset of the producer's open transaction at this epoch (KIP-890 verification asks for it).
    pub fn ongoing_txn(&self, producer_id: i64, producer_epoch: i16) -> Option<Offset> {
        self.producer_state().ongoing_txn(producer_id, producer_epoch)
    }

    /// Before the coordinator is asked whether the producer's transaction includes this partition: the guard under which
    /// its first batch may be appended. `None` when there is nothing to ask: the transaction is open here, or the producer
    /// has a newer epoch already. `bumps_epoch`: the producer has a new epoch in each transaction (KIP-890, part 2).
    pub fn start_verification(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        first_sequence: i32,
        bumps_epoch: bool,
    ) -> Option<VerificationGuard> {
        let producers = self.producer_state();
        let fenced = producers.epoch_of(producer_id).is_some_and(|current| current > producer_epoch);
        if fenced || producers.ongoing_txn(producer_id, producer_epoch).is_some() {
            return None;
        }
        // A batch that comes late (what it holds is written, or given up) says nothing of what is written first.
        let late = producers.is_past(producer_id, producer_epoch, first_sequence);
        let lowest_sequence = if late { i32::MAX } else { first_sequence };
        Some(self.verifications.start(producer_id, producer_epoch, lowest_sequence, bumps_epoch))
    }

    /// The producer's current epoch, if the log knows the producer.
    pub fn producer_epoch(&self, producer_id: i64) -> Option<i16> {
        self.producer_state().epoch_of(producer_id)
    }

    /// Forgets producers idle for `producer.id.expiration.ms`; answers how many. Does not load what was not needed yet.
    pub fn expire_producers(&mut self, now_ms: i64) -> usize {
        let expiration_ms = self.config.producer_id_expiration_ms;
        self.producers.get_mut().map_or(0, |producers| producers.expire(now_ms, expiration_ms))
    }

    fn producer_state(&self) -> &ProducerState {
        self.producers.get_or_init(|| Box::new(self.load_producers(self.log_end_offset)))
    }

    fn producer_state_mut(&mut self) -> &mut ProducerState {
        self.producer_state();
        match self.producers.get_mut() {
            Some(producers) => producers,
            None => unreachable!("set by the line before"),
        }
    }

    fn epochs(&self) -> &EpochCache {
        self.epochs.get_or_init(|| Box::new(self.load_epochs()))
    }

    fn txn_sums(&self) -> &TxnSums {
        self.txn_sums.get_or_init(|| Box::new(TxnSums::read(&self.dir)))
    }

    fn epochs_mut(&mut self) -> &mut EpochCache {
        self.epochs();
        match self.epochs.get_mut() {
            Some(epochs) => epochs,
            None => unreachable!("set by the line before"),
        }
    }

    /// Whether missing offsets say nothing: compaction leaves gaps, and they outlive a change of `cleanup.policy`.
    fn may_have_gaps(&self) -> bool {
        self.compacted || self.config.cleanup_compact
    }

    // -- shared helpers ----------------------------------------------------------------------------------------------

    /// Whether a failure of the disk took the log offline.
    pub fn is_offline(&self) -> bool {
        self.offline.is_some()
    }

    fn check_online(&self) -> Result<(), LogError> {
        match &self.offline {
            Some(reason) => {
                Err(LogError::Offline { log: self.topic_partition.to_string(), reason: reason.to_string() })
            }
            None => Ok(()),
        }
    }

    /// Takes the log offline for good and passes the error on.
    fn go_offline(&mut self, error: LogError) -> LogError {
        if self.offline.is_none() {
            let mut reason = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                reason = format!("{reason}: {source}");
            }
            tracing::error!(log = %self.topic_partition, %reason, "log is offline");
            self.shared.note_offline(self.dir.parent().unwrap_or(&self.dir), &reason);
            self.offline = Some(reason.into());
        }
        error
    }

    /// Index of the segment that would hold `offset`: the last one that begins at or before it, else the first.
    fn segment_index(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1)
    }

    /// Where segment `index` ends, exclusive.
    fn segment_end(&self, index: usize) -> i64 {
        self.segments.get(index + 1).map_or(self.log_end_offset, |next| next.base_offset)
    }

    fn active_segment(&self) -> &Segment {
        match self.segments.last() {
            Some(segment) => segment,
            None => unreachable!("a log has at least one segment"),
        }
    }
}

impl From<taccola_wire::batch::BatchError> for AppendError {
    fn from(error: taccola_wire::batch::BatchError) -> Self {
        Self::Malformed { reason: error.to_string() }
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        for segment in &self.segments {
            segment.close_handles(&self.shared);
        }
    }
}
