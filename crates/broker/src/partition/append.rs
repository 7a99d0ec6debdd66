//! Appends to a partition: the leader's checks, the log, the journal.

use std::sync::Arc;

use bytes::BytesMut;
use taccola_base::planted::{Bug, planted};
use taccola_log::{AppendContext, AppendError, AppendOrigin};

use super::{Leadership, Partition, PartitionState, Undurable};

use crate::runtime::journal::{JournalRuntime, Ticket};

/// What a caller wants to be true before it is told that its batch is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk (`acks=all` under `taccola.acks.durability=disk`, or `flush.messages` reached).
    Disk,
    /// In the page cache: survives the process, not the power.
    PageCache,
}

#[derive(Clone, Copy, Debug)]
pub struct AppendOutcome {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    /// -1 unless the topic stamps batches itself.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// Wait for it before acknowledging; `None` when there is nothing to wait for.
    pub ticket: Option<Ticket>,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendRejected {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("the partition has {isr} in-sync replicas, fewer than min.insync.replicas={min}")]
    NotEnoughReplicas { isr: i32, min: i32 },
    #[error("the journal takes no more: {0}")]
    Journal(String),
    #[error("the broker is in recovery mode and writes nothing: {0}")]
    ReadOnly(String),
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl Partition {
    /// Refuses what waits for the whole ISR where that is smaller than `min.insync.replicas`. Of fewer replicas than that,
    /// all suffice (`Partition.effectiveMinIsr`).
    pub fn check_min_isr(&self) -> Result<(), AppendRejected> {
        let state = self.state.lock();
        let Leadership { replicas_len, isr_len: isr, .. } = state.leadership;
        let min = state.config.values.min_insync_replicas.min(replicas_len);
        if isr < min { Err(AppendRejected::NotEnoughReplicas { isr, min }) } else { Ok(()) }
    }

    /// Appends one validated batch, which carries its offsets afterwards. With `Durability::Disk` the batch is on its
    /// way to the journal when this returns, and the outcome holds the ticket to wait for.
    pub fn append(
        self: &Arc<Self>,
        journal: &JournalRuntime,
        batch: &mut BytesMut,
        origin: AppendOrigin,
        durability: Durability,
        now_ms: i64,
    ) -> Result<AppendOutcome, AppendRejected> {
        journal.check_writable().map_err(AppendRejected::ReadOnly)?;
        let mut state = self.state.lock();
        let leader_epoch = state.leadership.leader_epoch;
        let Some(log) = &mut state.log else { return Err(AppendRejected::NotLeader) };
        if durability == Durability::Disk {
            // Asked before anything is written: a batch that is in the log but can never be acknowledged helps nobody.
            journal.check_healthy().map_err(AppendRejected::Journal)?;
        }
        let appended = log.append(batch, AppendContext { origin, leader_epoch, now_ms })?;
        let flush_asked = log.flush_due(now_ms);
        let mut outcome = AppendOutcome {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            log_append_time_ms: appended.log_append_time_ms,
            log_start_offset: appended.log_start_offset,
            ticket: None,
        };
        if appended.duplicate {
            // The original may still be on its way to the disk: the duplicate is acknowledged no earlier.
            let waits = durability == Durability::Disk && appended.last_offset >= log.high_watermark();
            outcome.ticket = state.last_ticket.filter(|_| waits);
            return Ok(outcome);
        }
        let next_offset = appended.last_offset + 1;
        outcome.ticket =
            self.make_visible(&mut state, journal, appended.base_offset, next_offset, batch, durability, flush_asked);
        Ok(outcome)
    }

    /// Appends one batch that carries its offsets and leader epoch (the metadata log). Answers what to wait for.
    pub fn append_as_is(
        self: &Arc<Self>,
        journal: &JournalRuntime,
        batch: &[u8],
        durability: Durability,
        now_ms: i64,
    ) -> Result<Option<Ticket>, AppendRejected> {
        journal.check_writable().map_err(AppendRejected::ReadOnly)?;
        let mut state = self.state.lock();
        let Some(log) = &mut state.log else { return Err(AppendRejected::NotLeader) };
        journal.check_healthy().map_err(AppendRejected::Journal)?;
        let appended = log.append_as_is(batch, now_ms)?;
        let flush_asked = log.flush_due(now_ms);
        let next_offset = appended.last_offset + 1;
        Ok(self.make_visible(&mut state, journal, appended.base_offset, next_offset, batch, durability, flush_asked))
    }

    /// What follows every append: on its way to the journal, or visible at once.
    #[allow(clippy::too_many_arguments, reason = "the locals of its two callers")]
    fn make_visible(
        self: &Arc<Self>,
        state: &mut PartitionState,
        journal: &JournalRuntime,
        base_offset: i64,
        next_offset: i64,
        batch: &[u8],
        durability: Durability,
        flush_asked: bool,
    ) -> Option<Ticket> {
        let bytes = batch.len() as i64;
        if durability == Durability::PageCache && !flush_asked {
            journal.note_unflushed(self, batch.len() as u64);
            state.advance_high_watermark(bytes);
            return None;
        }
        let ticket = journal.stage(self, base_offset, next_offset, batch);
        state.undurable.push_back(Undurable { base_offset, next_offset, bytes });
        state.last_ticket = Some(ticket);
        if planted(Bug::HighWatermarkTooFar) {
            state.advance_high_watermark(bytes);
        }
        Some(ticket)
    }
}
