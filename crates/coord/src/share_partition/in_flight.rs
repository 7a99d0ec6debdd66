//! What is known of the records between a share-partition's start and end offset. Answers to Kafka's `RecordState`,
//! `InFlightState` and `InFlightBatch`.
//!
//! A batch is a range of offsets that was acquired at once; inside it, neighbours in the same condition are one run, so
//! that work goes with the number of conditions and not of records: a batch whose last offset lies millions behind its
//! first costs no more than any other. Invariants: the runs of a batch cover it without holes, ascending; two neighbours
//! differ; a slot has an owner exactly while it is acquired, and only an acquired slot has a pending transition.

use std::sync::Arc;

/// `RecordState`. The numbers are those of the records and of ReadShareGroupState; 3 is reserved (`ARCHIVING`: Kafka 4.3
/// names it and never enters it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    Available,
    Acquired,
    Acknowledged,
    Archived,
}

impl RecordState {
    pub fn id(self) -> i8 {
        match self {
            RecordState::Available => 0,
            RecordState::Acquired => 1,
            RecordState::Acknowledged => 2,
            RecordState::Archived => 4,
        }
    }

    /// The states that are written to the persister.
    pub fn of_persisted(id: i8) -> Option<Self> {
        match id {
            0 => Some(RecordState::Available),
            2 => Some(RecordState::Acknowledged),
            4 => Some(RecordState::Archived),
            _ => None,
        }
    }

    /// Nothing comes after it.
    pub fn is_terminal(self) -> bool {
        matches!(self, RecordState::Acknowledged | RecordState::Archived)
    }
}

/// A change that counts once the persister has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) write: u64,
    pub(super) target: RecordState,
    pub(super) delivery_count: i16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) state: RecordState,
    pub(super) delivery_count: i16,
    /// The member that it is delivered to.
    pub(super) owner: Option<Arc<str>>,
    /// Of an acquired slot: from this moment on the owner has it no longer. Wall clock milliseconds.
    pub(super) lock_until_ms: i64,
    pub(super) pending: Option<Pending>,
}

impl Slot {
    pub(super) fn new(state: RecordState, delivery_count: i16) -> Self {
        Self { state, delivery_count, owner: None, lock_until_ms: 0, pending: None }
    }

    pub(super) fn acquired(owner: Arc<str>, delivery_count: i16, lock_until_ms: i64) -> Self {
        Self { state: RecordState::Acquired, delivery_count, owner: Some(owner), lock_until_ms, pending: None }
    }

    pub(super) fn is_available(&self) -> bool {
        self.state == RecordState::Available
    }

    /// Whether the start offset may pass it.
    pub(super) fn is_done(&self) -> bool {
        self.state.is_terminal()
    }

    /// Whether it is in a terminal state, or will be when what is being written is written.
    pub(super) fn counts_as_complete(&self) -> bool {
        self.pending.map_or(self.state, |pending| pending.target).is_terminal()
    }
}

/// Neighbours in the same condition, up to and with `last`.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) last: i64,
    pub(super) slot: Slot,
}

#[derive(Clone, Debug)]
pub(super) struct InFlightBatch {
    pub(super) first: i64,
    pub(super) last: i64,
    runs: Vec<Run>,
}

impl InFlightBatch {
    pub(super) fn new(first: i64, last: i64, slot: Slot) -> Self {
        Self { first, last, runs: vec![Run { last, slot }] }
    }

    /// How many offsets it covers.
    pub(super) fn len(&self) -> i64 {
        self.last - self.first + 1
    }

    /// All runs: first offset, last offset, condition.
    pub(super) fn runs(&self) -> impl Iterator<Item = (i64, i64, &Slot)> {
        let mut next = self.first;
        self.runs.iter().map(move |run| {
            let first = next;
            next = run.last + 1;
            (first, run.last, &run.slot)
        })
    }

    /// The runs that have offsets in `from..=to`, cut to it.
    pub(super) fn runs_within(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, i64, &Slot)> {
        self.runs()
            .filter(move |(first, last, _)| *last >= from && *first <= to)
            .map(move |(first, last, slot)| (first.max(from), last.min(to), slot))
    }

    /// Lets `change` change what lies in `from..=to`, run by run; it is told the offsets.
    pub(super) fn change(&mut self, from: i64, to: i64, mut change: impl FnMut(i64, i64, &mut Slot)) {
        let (from, to) = (from.max(self.first), to.min(self.last));
        if from > to {
            return;
        }
        self.split_before(from);
        self.split_before(to + 1);
        let mut first = self.first;
        for run in &mut self.runs {
            if first >= from && run.last <= to {
                change(first, run.last, &mut run.slot);
            }
            first = run.last + 1;
        }
        self.merge();
    }

    /// Makes a run begin at `offset`.
    fn split_before(&mut self, offset: i64) {
        let mut first = self.first;
        for at in 0..self.runs.len() {
            let Some(run) = self.runs.get(at) else { return };
            if first < offset && offset <= run.last {
                let head = Run { last: offset - 1, slot: run.slot.clone() };
                self.runs.insert(at, head);
                return;
            }
            first = run.last + 1;
        }
    }

    fn merge(&mut self) {
        self.runs.dedup_by(|later, earlier| {
            let same = earlier.slot == later.slot;
            if same {
                earlier.last = later.last;
            }
            same
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(batch: &InFlightBatch) -> Vec<(i64, i64, RecordState)> {
        batch.runs().map(|(first, last, slot)| (first, last, slot.state)).collect()
    }

    #[test]
    fn runs_split_where_they_change_and_merge_again() {
        let mut batch = InFlightBatch::new(10, 19, Slot::new(RecordState::Available, 1));
        batch.change(12, 14, |first, last, slot| {
            assert_eq!((first, last), (12, 14));
            slot.state = RecordState::Archived;
        });
        let (available, archived) = (RecordState::Available, RecordState::Archived);
        assert_eq!(shape(&batch), [(10, 11, available), (12, 14, archived), (15, 19, available)]);
        batch.change(0, 100, |_, _, slot| slot.state = archived);
        assert_eq!(shape(&batch), [(10, 19, archived)]);
        assert_eq!(batch.runs().count(), 1);
        batch.change(19, 19, |_, _, slot| slot.state = available);
        batch.change(10, 10, |_, _, slot| slot.state = available);
        assert_eq!(shape(&batch), [(10, 10, available), (11, 18, archived), (19, 19, available)]);
        let within: Vec<_> = batch.runs_within(10, 12).map(|(first, last, _)| (first, last)).collect();
        assert_eq!(within, [(10, 10), (11, 12)]);
        batch.change(20, 30, |_, _, _| panic!("outside"));
    }
}
