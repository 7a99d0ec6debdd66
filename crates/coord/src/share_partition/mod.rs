//! The leader of one share-partition: one partition as one share group reads it (KIP-932). A pure state machine; answers
//! to Kafka's `SharePartition`.
//!
//! Between the start offset (SPSO) and the end offset (SPEO) every record is available, acquired by one member until its
//! lock runs out, acknowledged or archived. Invariants:
//! - A record has at most one owner at a time.
//! - A record whose acceptance was reported is never delivered again: a transition that a member asked for counts when the
//!   persister has it, and until then the record stays acquired.
//! - No record is delivered more often than the delivery count limit says.
//! - The start offset never goes back, and nothing below it is delivered.
//! - What is neither acknowledged nor archived is delivered again.
//!
//! The caller gives it the time and the boundaries of fetched batches, does the reading and the writing, and reports the
//! fate of each [`StateWrite`] with [`SharePartition::written`]. It may report them in any order.

mod acknowledge;
mod acquire;
mod in_flight;
mod offsets;

use std::collections::BTreeMap;

use in_flight::{InFlightBatch, Slot};

pub use acknowledge::{AckError, AcknowledgeType, AcknowledgementBatch};
pub use acquire::{AcquireMode, AcquireRequest, AcquiredRange, FetchedBatch};
pub use in_flight::RecordState;

/// What a persister says of a share-partition whose start offset was never set.
pub const UNINITIALIZED_START_OFFSET: i64 = -1;

/// Settings of a share group that count from the next step on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimits {
    /// `share.partition.max.record.locks`: from the start to the end offset. Whole batches may go beyond it.
    pub max_in_flight_records: i32,
    /// `share.delivery.count.limit`.
    pub max_delivery_count: i16,
    /// `share.record.lock.duration.ms`.
    pub record_lock_duration_ms: i32,
    /// `share.renew.acknowledge.enable`: whether members may keep records for longer.
    pub renewals: bool,
}

impl ShareLimits {
    /// From this delivery count on records are delivered in smaller and smaller portions, so that one that kills its
    /// consumer does not take its neighbours along.
    fn throttle_from(&self) -> i16 {
        (self.max_delivery_count / 2 + self.max_delivery_count % 2).max(2)
    }
}

/// Records in the same state, as the persister keeps them. Both offsets inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBatch {
    pub first_offset: i64,
    pub last_offset: i64,
    /// [`RecordState::id`]; never that of an acquired record.
    pub delivery_state: i8,
    pub delivery_count: i16,
}

/// What the persister is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// For [`SharePartition::written`].
    pub id: u64,
    pub state_epoch: i32,
    pub leader_epoch: i32,
    pub start_offset: i64,
    /// Records from the start offset on whose delivery is complete (KIP-1226).
    pub delivery_complete_count: i32,
    pub batches: Vec<StateBatch>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("state batch {first}-{last} begins before the end of what is before it ({expected})")]
    Overlap { first: i64, last: i64, expected: i64 },
    #[error("state batch {first}-{last} has delivery state {state}")]
    State { first: i64, last: i64, state: i8 },
}

/// Offsets between batches that were loaded may hold records that were acquired when the last leader ended: nobody wrote
/// anything of them. While the end offset is that of the loading, what lies from `gap_start` on may be such a gap.
#[derive(Clone, Copy, Debug)]
struct GapWindow {
    end_offset: i64,
    gap_start: i64,
}

#[derive(Debug)]
pub struct SharePartition {
    limits: ShareLimits,
    state_epoch: i32,
    leader_epoch: i32,
    start_offset: i64,
    /// Inclusive while batches are in flight; the next offset to fetch when none is.
    end_offset: i64,
    /// By first offset. LIMIT: `max_in_flight_records` and one fetch.
    batches: BTreeMap<i64, InFlightBatch>,
    /// Some record before the end offset may have become available.
    find_next: bool,
    gap_window: Option<GapWindow>,
    next_write: u64,
    /// The ranges whose pending transitions a write decides.
    writes: BTreeMap<u64, Vec<(i64, i64)>>,
    /// No lock runs out before it. Wall clock milliseconds; `i64::MAX` when nothing is acquired.
    next_deadline_ms: i64,
}

impl SharePartition {
    /// From what the persister has. `start_offset` is set: the caller has turned an uninitialized one into an offset.
    pub fn load(
        limits: ShareLimits,
        leader_epoch: i32,
        state_epoch: i32,
        start_offset: i64,
        state: &[StateBatch],
    ) -> Result<Self, LoadError> {
        let mut this = Self {
            limits,
            state_epoch,
            leader_epoch,
            start_offset,
            end_offset: start_offset,
            batches: BTreeMap::new(),
            find_next: false,
            gap_window: None,
            next_write: 1,
            writes: BTreeMap::new(),
            next_deadline_ms: i64::MAX,
        };
        let (mut expected, mut gap_start) = (start_offset, None);
        for batch in state {
            let StateBatch { first_offset: first, last_offset: last, delivery_state, delivery_count } = *batch;
            if first < expected || last < first || last == i64::MAX {
                return Err(LoadError::Overlap { first, last, expected });
            }
            let state = RecordState::of_persisted(delivery_state);
            let state = state.ok_or(LoadError::State { first, last, state: delivery_state })?;
            if first > expected && gap_start.is_none() {
                gap_start = Some(expected);
            }
            this.batches.insert(first, InFlightBatch::new(first, last, Slot::new(state, delivery_count)));
            expected = last + 1;
        }
        if let Some((_, last)) = this.batches.last_key_value() {
            this.end_offset = last.last;
            this.find_next = true;
            this.gap_window = gap_start.map(|gap_start| GapWindow { end_offset: this.end_offset, gap_start });
            this.advance_start();
        }
        Ok(this)
    }

    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    pub fn state_epoch(&self) -> i32 {
        self.state_epoch
    }

    pub fn limits(&self) -> ShareLimits {
        self.limits
    }

    /// What is acquired keeps its lock.
    pub fn set_limits(&mut self, limits: ShareLimits) {
        self.limits = limits;
    }

    /// No lock runs out before this moment; `None` while nothing is acquired. It may be too early, never too late.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        (self.next_deadline_ms != i64::MAX).then_some(self.next_deadline_ms)
    }

    /// All records in flight: first and last offset, state, delivery count, owner.
    pub fn in_flight(&self) -> impl Iterator<Item = (i64, i64, RecordState, i16, Option<&str>)> {
        self.batches
            .values()
            .flat_map(|batch| batch.runs())
            .map(|(first, last, slot)| (first, last, slot.state, slot.delivery_count, slot.owner.as_deref()))
    }

    /// From the start to the end offset.
    pub fn in_flight_records(&self) -> i64 {
        if self.batches.is_empty() { 0 } else { self.end_offset - self.start_offset + 1 }
    }

    /// Records from the start offset on in a terminal state, or being written into one.
    pub fn delivery_complete_count(&self) -> i32 {
        let runs = self.batches.values().flat_map(|batch| batch.runs_within(self.start_offset, i64::MAX));
        let complete = runs.filter(|(_, _, slot)| slot.counts_as_complete()).map(|(first, last, _)| last - first + 1);
        i32::try_from(complete.sum::<i64>()).unwrap_or(i32::MAX)
    }

    /// The last offset of what is in flight, if its end is not before the start offset.
    fn last_in_flight(&self) -> Option<i64> {
        self.batches.last_key_value().map(|(_, batch)| batch.last).filter(|last| *last >= self.start_offset)
    }

    /// The first batch that has offsets at or after `offset`, by key.
    fn key_at_or_after(&self, offset: i64) -> i64 {
        match self.batches.range(..=offset).next_back() {
            Some((key, batch)) if batch.last >= offset => *key,
            _ => offset,
        }
    }

    fn active_gap(&self) -> Option<i64> {
        let window = self.gap_window.filter(|window| window.end_offset == self.end_offset);
        window.map(|window| window.gap_start.max(self.start_offset))
    }

    /// Moves the gap window behind what is in flight; ends it when nothing is left of it.
    fn close_gaps(&mut self) {
        let Some(mut gap_start) = self.active_gap() else {
            self.gap_window = None;
            return;
        };
        while let Some((_, batch)) = self.batches.range(..=gap_start).next_back()
            && batch.last >= gap_start
        {
            gap_start = batch.last + 1;
        }
        let window = GapWindow { end_offset: self.end_offset, gap_start };
        self.gap_window = Some(window).filter(|window| window.gap_start <= window.end_offset);
    }

    fn begin_write(&mut self) -> u64 {
        let id = self.next_write;
        self.next_write += 1;
        id
    }

    fn state_write(&mut self, id: u64, batches: Vec<StateBatch>) -> StateWrite {
        StateWrite {
            id,
            state_epoch: self.state_epoch,
            leader_epoch: self.leader_epoch,
            start_offset: self.start_offset,
            delivery_complete_count: self.delivery_complete_count(),
            batches,
        }
    }
}

/// Adds a state batch, as one with its neighbour where they are alike.
fn push_state(batches: &mut Vec<StateBatch>, first_offset: i64, last_offset: i64, state: RecordState, count: i16) {
    let delivery_state = state.id();
    if let Some(before) = batches.last_mut()
        && before.last_offset + 1 == first_offset
        && before.delivery_state == delivery_state
        && before.delivery_count == count
    {
        before.last_offset = last_offset;
        return;
    }
    batches.push(StateBatch { first_offset, last_offset, delivery_state, delivery_count: count });
}
