//! What becomes of delivered records: acknowledgements, releases, locks that run out, and the fate of their writes.
//! Answers to `acknowledge`, `releaseAcquiredRecords`, `releaseAcquisitionLockOnTimeout` and
//! `rollbackOrProcessStateUpdates` of Kafka's `SharePartition`.

use super::in_flight::{Pending, Slot};
use super::{RecordState, SharePartition, StateBatch, StateWrite, push_state};

/// The acknowledge types of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcknowledgeType {
    /// There is no record at this offset.
    Gap,
    Accept,
    Release,
    Reject,
    /// The member keeps the record for another lock duration (KIP-1222).
    Renew,
}

impl AcknowledgeType {
    pub fn of_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(AcknowledgeType::Gap),
            1 => Some(AcknowledgeType::Accept),
            2 => Some(AcknowledgeType::Release),
            3 => Some(AcknowledgeType::Reject),
            4 => Some(AcknowledgeType::Renew),
            _ => None,
        }
    }

    /// `None` for a renewal.
    fn target(self) -> Option<RecordState> {
        match self {
            AcknowledgeType::Gap | AcknowledgeType::Reject => Some(RecordState::Archived),
            AcknowledgeType::Accept => Some(RecordState::Acknowledged),
            AcknowledgeType::Release => Some(RecordState::Available),
            AcknowledgeType::Renew => None,
        }
    }
}

/// Offsets inclusive; one type for all of them, or one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcknowledgementBatch {
    pub first_offset: i64,
    pub last_offset: i64,
    pub types: Vec<AcknowledgeType>,
}

impl AcknowledgementBatch {
    /// Whether the offsets ascend and the types are one for all, or one for each.
    pub fn is_valid(&self) -> bool {
        let records = self.last_offset.checked_sub(self.first_offset).and_then(|distance| distance.checked_add(1));
        let records = records.and_then(|records| usize::try_from(records).ok()).filter(|records| *records > 0);
        self.first_offset >= 0 && records.is_some_and(|n| self.types.len() == 1 || self.types.len() == n)
    }

    /// Offsets of the same type in a row: first offset, last offset, type.
    fn runs(&self) -> Vec<(i64, i64, AcknowledgeType)> {
        if let [one] = self.types.as_slice() {
            return vec![(self.first_offset, self.last_offset, *one)];
        }
        let mut runs: Vec<(i64, i64, AcknowledgeType)> = Vec::new();
        for (offset, kind) in (self.first_offset..).zip(&self.types) {
            match runs.last_mut() {
                Some(run) if run.2 == *kind => run.1 = offset,
                _ => runs.push((offset, offset, *kind)),
            }
        }
        runs
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// INVALID_RECORD_STATE: not acquired, not by this member, being written already, or renewed where nobody may.
    #[error("a record is not in delivery to this member, or may not be renewed")]
    InvalidRecordState,
    /// INVALID_REQUEST.
    #[error("the batch does not lie within what was delivered, or its types do not fit its offsets")]
    InvalidRequest,
}

impl SharePartition {
    /// A member's verdict on records. All or nothing: an error leaves every record as it was. The reply waits until the
    /// write, if there is one, is written. No offset may come twice.
    pub fn acknowledge(
        &mut self,
        now_ms: i64,
        member: &str,
        batches: &[AcknowledgementBatch],
    ) -> Result<Option<StateWrite>, AckError> {
        for batch in batches {
            self.check(member, batch)?;
        }
        let id = self.begin_write();
        let mut state = Vec::new();
        self.writes.insert(id, Vec::new());
        for batch in batches {
            if let Err(error) = self.acknowledge_batch(now_ms, member, batch, id, &mut state) {
                self.written(id, now_ms, false);
                return Err(error);
            }
        }
        Ok(self.end_step(id, state))
    }

    /// A write, unless there is nothing to write.
    fn end_step(&mut self, id: u64, state: Vec<StateBatch>) -> Option<StateWrite> {
        if state.is_empty() {
            self.writes.remove(&id);
            return None;
        }
        Some(self.state_write(id, state))
    }

    fn acknowledge_batch(
        &mut self,
        now_ms: i64,
        member: &str,
        batch: &AcknowledgementBatch,
        write: u64,
        state: &mut Vec<StateBatch>,
    ) -> Result<(), AckError> {
        for (first, last, kind) in batch.runs() {
            let first = first.max(self.start_offset);
            if first <= last {
                self.acknowledge_run(now_ms, member, (first, last), kind, write, state)?;
            }
        }
        Ok(())
    }

    /// The ends of the batch must lie in what is in flight, and the member must have what lies between them from the start
    /// offset on; holes are natural.
    fn check(&self, member: &str, batch: &AcknowledgementBatch) -> Result<(), AckError> {
        if !batch.is_valid() {
            return Err(AckError::InvalidRequest);
        }
        if batch.last_offset < self.start_offset {
            return Ok(());
        }
        let first = batch.first_offset.max(self.start_offset);
        if self.batches.range(..=first).next_back().is_none() {
            return Err(AckError::InvalidRecordState);
        }
        let last = self.batches.range(..=batch.last_offset).next_back().map(|(_, batch)| batch.last);
        if last.is_none_or(|last| last < batch.last_offset) {
            return Err(AckError::InvalidRequest);
        }
        let from = self.key_at_or_after(first);
        let in_flight = self.batches.range(from..=batch.last_offset.max(from));
        let mut runs = in_flight.flat_map(|(_, in_flight)| in_flight.runs_within(first, batch.last_offset));
        if runs.all(|(_, _, slot)| is_delivered_to(slot, member)) { Ok(()) } else { Err(AckError::InvalidRecordState) }
    }

    fn acknowledge_run(
        &mut self,
        now_ms: i64,
        member: &str,
        (first, last): (i64, i64),
        kind: AcknowledgeType,
        write: u64,
        state: &mut Vec<StateBatch>,
    ) -> Result<(), AckError> {
        let limits = self.limits;
        let lock_until_ms = now_ms.saturating_add(i64::from(limits.record_lock_duration_ms));
        let from = self.key_at_or_after(first);
        for (_, batch) in self.batches.range_mut(from..=last.max(from)) {
            if !batch.runs_within(first, last).all(|(_, _, slot)| is_delivered_to(slot, member)) {
                return Err(AckError::InvalidRecordState);
            }
            let Some(target) = kind.target() else {
                if !limits.renewals {
                    return Err(AckError::InvalidRecordState);
                }
                batch.change(first, last, |_, _, slot| slot.lock_until_ms = lock_until_ms);
                continue;
            };
            let ranges = self.writes.entry(write).or_default();
            batch.change(first, last, |first, last, slot| {
                let target = settled(target, slot.delivery_count, limits.max_delivery_count);
                slot.pending = Some(Pending { write, target, delivery_count: slot.delivery_count });
                push_state(state, first, last, target, slot.delivery_count);
                ranges.push((first, last));
            });
        }
        Ok(())
    }

    /// Gives back what a member has: it closed its session, or is gone. It counts as delivered.
    pub fn release(&mut self, member: &str) -> Option<StateWrite> {
        let id = self.begin_write();
        let (mut state, mut ranges) = (Vec::new(), Vec::new());
        let (start_offset, limits) = (self.start_offset, self.limits);
        for batch in self.batches.values_mut() {
            let has = |slot: &Slot| is_delivered_to(slot, member);
            if !batch.runs().any(|(_, _, slot)| has(slot)) {
                continue;
            }
            let bounds = [(batch.first, batch.last.min(start_offset - 1)), (batch.first.max(start_offset), batch.last)];
            for (first, last) in bounds {
                batch.change(first, last, |first, last, slot| {
                    if !has(slot) {
                        return;
                    }
                    let delivery_count = slot.delivery_count;
                    let target = unlocked(first, start_offset, delivery_count, limits.max_delivery_count);
                    slot.pending = Some(Pending { write: id, target, delivery_count });
                    push_state(&mut state, first, last, target, delivery_count);
                    ranges.push((first, last));
                });
            }
        }
        self.writes.insert(id, ranges);
        self.end_step(id, state)
    }

    /// Takes back what was locked until now or before. It counts at once, whatever becomes of the write.
    pub fn lock_timeouts(&mut self, now_ms: i64) -> Option<StateWrite> {
        if now_ms < self.next_deadline_ms {
            return None;
        }
        let (start_offset, limits) = (self.start_offset, self.limits);
        let (mut state, mut next_deadline_ms) = (Vec::new(), i64::MAX);
        let mut available = false;
        for batch in self.batches.values_mut() {
            let acquired = |slot: &Slot| slot.owner.is_some() && slot.pending.is_none();
            let due = |slot: &Slot| acquired(slot) && slot.lock_until_ms <= now_ms;
            for (_, _, slot) in batch.runs() {
                if acquired(slot) && !due(slot) {
                    next_deadline_ms = next_deadline_ms.min(slot.lock_until_ms);
                }
            }
            if !batch.runs().any(|(_, _, slot)| due(slot)) {
                continue;
            }
            let bounds = [(batch.first, batch.last.min(start_offset - 1)), (batch.first.max(start_offset), batch.last)];
            for (first, last) in bounds {
                batch.change(first, last, |first, last, slot| {
                    if due(slot) {
                        let target = unlocked(first, start_offset, slot.delivery_count, limits.max_delivery_count);
                        available |= target == RecordState::Available;
                        push_state(&mut state, first, last, target, slot.delivery_count);
                        *slot = Slot::new(target, slot.delivery_count);
                    }
                });
            }
        }
        self.next_deadline_ms = next_deadline_ms;
        self.find_next |= available;
        if state.is_empty() {
            return None;
        }
        let id = self.begin_write();
        let write = self.state_write(id, state);
        self.writes.insert(id, Vec::new());
        self.advance_start();
        Some(write)
    }

    /// The fate of a write. True when something became available or the start offset moved: whoever waits for records
    /// looks again.
    pub fn written(&mut self, id: u64, now_ms: i64, ok: bool) -> bool {
        let Some(ranges) = self.writes.remove(&id) else { return false };
        let (start_offset, limits) = (self.start_offset, self.limits);
        let (mut available, mut next_deadline_ms) = (false, self.next_deadline_ms);
        for (first, last) in ranges {
            let from = self.key_at_or_after(first);
            for (_, batch) in self.batches.range_mut(from..=last.max(from)) {
                for (first, last) in [(first, last.min(start_offset - 1)), (first.max(start_offset), last)] {
                    batch.change(first, last, |first, _, slot| {
                        let Some(pending) = slot.pending.filter(|pending| pending.write == id) else { return };
                        slot.pending = None;
                        if ok {
                            let gone = first < start_offset && pending.target == RecordState::Available;
                            let state = if gone { RecordState::Archived } else { pending.target };
                            *slot = Slot::new(state, pending.delivery_count);
                        } else if slot.lock_until_ms <= now_ms {
                            let state = unlocked(first, start_offset, slot.delivery_count, limits.max_delivery_count);
                            *slot = Slot::new(state, slot.delivery_count);
                        } else {
                            next_deadline_ms = next_deadline_ms.min(slot.lock_until_ms);
                        }
                        available |= slot.is_available();
                    });
                }
            }
        }
        self.next_deadline_ms = next_deadline_ms;
        self.find_next |= available;
        self.advance_start() || available
    }
}

/// Whether the member has the record, and nothing that it said of it is being written.
fn is_delivered_to(slot: &Slot, member: &str) -> bool {
    slot.owner.as_deref() == Some(member) && slot.pending.is_none()
}

/// Where a record comes to that was delivered so often: one that cannot be delivered again is given up.
fn settled(target: RecordState, delivery_count: i16, max_delivery_count: i16) -> RecordState {
    match target {
        RecordState::Available if delivery_count >= max_delivery_count => RecordState::Archived,
        target => target,
    }
}

/// Where a record comes to whose lock ran out.
fn unlocked(offset: i64, start_offset: i64, delivery_count: i16, max_delivery_count: i16) -> RecordState {
    match offset < start_offset {
        true => RecordState::Archived,
        false => settled(RecordState::Available, delivery_count, max_delivery_count),
    }
}
