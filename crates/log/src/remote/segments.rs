//! The remote segments of one partition and where offsets lie in them. Answers to Kafka's `RemoteLogMetadataCache` and
//! `RemoteLogLeaderEpochState`.
//!
//! INVARIANTS
//! - Only a segment whose copy is finished is ever found by an offset.
//! - Per leader epoch a later copy takes the place of those that it covers; they stay known, so that they can be deleted, and are
//!   found by no offset any more.
//! - Transitions that [`SegmentState`] does not allow change nothing.

use std::collections::{BTreeMap, HashMap};

use taccola_base::Uuid;

use super::{RemoteSegment, SegmentState};

/// A record that does not fit what was there before. It is not applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RemoteStateError {
    /// An update of a segment that nobody began, or that is gone.
    #[error("remote segment {0} is not known")]
    Unknown(Uuid),
    /// Not a way that a segment can go.
    #[error("remote segment {id} cannot go from {from:?} to {to:?}")]
    Transition { id: Uuid, from: SegmentState, to: SegmentState },
}

#[derive(Clone, Debug, Default)]
struct EpochSegments {
    /// First offset that a segment has in the epoch → segment.
    by_start: BTreeMap<i64, Uuid>,
    /// Largest offset of the epoch that was ever copied, inclusive. Deletes do not lower it.
    highest: Option<i64>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct RemoteSegments {
    /// All that are not deleted.
    segments: HashMap<Uuid, RemoteSegment>,
    epochs: BTreeMap<i32, EpochSegments>,
}

impl RemoteSegments {
    /// The record with which a segment begins. Comes in any state where a topic was cut at its beginning.
    pub fn begin(&mut self, segment: RemoteSegment) -> Result<(), RemoteStateError> {
        let (id, state) = (segment.id, segment.state);
        if let Some(known) = self.segments.get(&id) {
            return if known.state == state {
                Ok(())
            } else {
                Err(RemoteStateError::Transition { id, from: known.state, to: state })
            };
        }
        if state == SegmentState::DeleteFinished {
            return Ok(());
        }
        self.segments.insert(id, segment);
        if state == SegmentState::CopyFinished {
            self.finish(id);
        }
        Ok(())
    }

    /// A segment's next state.
    pub fn update(&mut self, id: Uuid, state: SegmentState, event_timestamp_ms: i64) -> Result<(), RemoteStateError> {
        let Some(segment) = self.segments.get_mut(&id) else { return Err(RemoteStateError::Unknown(id)) };
        let from = segment.state;
        if !from.may_become(state) {
            return Err(RemoteStateError::Transition { id, from, to: state });
        }
        segment.state = state;
        segment.event_timestamp_ms = event_timestamp_ms;
        if from == state {
            return Ok(());
        }
        match state {
            SegmentState::CopyStarted => {}
            SegmentState::CopyFinished => self.finish(id),
            SegmentState::DeleteStarted => self.hide(id),
            SegmentState::DeleteFinished => {
                self.segments.remove(&id);
            }
        }
        Ok(())
    }

    fn finish(&mut self, id: Uuid) {
        let Some(segment) = self.segments.get(&id) else { return };
        for (epoch, _) in &segment.leader_epochs {
            let Some((start, end)) = segment.range_in_epoch(*epoch) else { continue };
            let known = self.epochs.entry(*epoch).or_default();
            let covered: Vec<i64> = known
                .by_start
                .range(start..)
                .filter(|(_, other)| {
                    let range = self.segments.get(*other).and_then(|other| other.range_in_epoch(*epoch));
                    range.is_some_and(|(_, other_end)| other_end <= end)
                })
                .map(|(at, _)| *at)
                .collect();
            for at in covered {
                known.by_start.remove(&at);
            }
            known.by_start.insert(start, id);
            known.highest = Some(known.highest.map_or(end, |highest| highest.max(end)));
        }
    }

    fn hide(&mut self, id: Uuid) {
        let Some(segment) = self.segments.get(&id) else { return };
        for (epoch, start) in &segment.leader_epochs {
            if let Some(known) = self.epochs.get_mut(epoch)
                && known.by_start.get(start) == Some(&id)
            {
                known.by_start.remove(start);
            }
        }
    }

    /// The segment that holds `offset` as it was written in `epoch`.
    pub fn find(&self, epoch: i32, offset: i64) -> Option<&RemoteSegment> {
        let (_, id) = self.epochs.get(&epoch)?.by_start.range(..=offset).next_back()?;
        let segment = self.segments.get(id)?;
        let (_, end) = segment.range_in_epoch(epoch)?;
        (offset <= end).then_some(segment)
    }

    /// Largest offset of `epoch` that was ever copied, inclusive.
    pub fn highest_offset(&self, epoch: i32) -> Option<i64> {
        self.epochs.get(&epoch)?.highest
    }

    /// Where what is copied ends (exclusive) in a log with these leader epochs and this end; 0 when nothing is.
    pub fn copied_to(&self, log_epochs: &[(i32, i64)], log_end: i64) -> i64 {
        let mut end = log_end;
        for (epoch, start) in log_epochs.iter().rev() {
            if let Some(highest) = self.highest_offset(*epoch)
                && highest >= *start
            {
                return (highest + 1).min(end);
            }
            end = *start;
        }
        0
    }

    /// The segment that holds `offset` of a log with these leader epochs.
    pub fn find_in(&self, log_epochs: &[(i32, i64)], offset: i64) -> Option<&RemoteSegment> {
        let at = log_epochs.partition_point(|(_, start)| *start <= offset).checked_sub(1)?;
        self.find(log_epochs.get(at)?.0, offset)
    }

    /// Whether all offsets of a segment from `log_start` on were written in the epochs of this log. Where they were not, a log
    /// that was cut back has gone another way since, and nothing will ask for them.
    pub fn is_of_log(segment: &RemoteSegment, log_epochs: &[(i32, i64)], log_start: i64, log_end: i64) -> bool {
        if segment.end_offset >= log_end {
            return false;
        }
        segment.leader_epochs.iter().all(|(epoch, _)| {
            let Some((start, end)) = segment.range_in_epoch(*epoch) else { return false };
            if end < log_start {
                return true;
            }
            let Some(at) = log_epochs.iter().position(|(known, _)| known == epoch) else { return start > end };
            let from = log_epochs.get(at).map_or(i64::MAX, |(_, from)| *from);
            let to = log_epochs.get(at + 1).map_or(log_end, |(_, next)| *next);
            start.max(log_start) >= from && end < to
        })
    }

    /// One segment.
    pub fn get(&self, id: &Uuid) -> Option<&RemoteSegment> {
        self.segments.get(id)
    }

    /// All that are not deleted, by their first offset.
    pub fn all(&self) -> Vec<&RemoteSegment> {
        let mut all: Vec<_> = self.segments.values().collect();
        all.sort_unstable_by_key(|segment| (segment.start_offset, segment.end_offset, segment.id));
        all
    }

    /// Those whose copy is finished, by their first offset.
    pub fn finished(&self) -> Vec<&RemoteSegment> {
        let mut all = self.all();
        all.retain(|segment| segment.state == SegmentState::CopyFinished);
        all
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(id: u128, start: i64, end: i64, epochs: &[(i32, i64)]) -> RemoteSegment {
        RemoteSegment {
            id: Uuid::from_u128(id),
            start_offset: start,
            end_offset: end,
            broker_id: 1,
            max_timestamp_ms: 0,
            event_timestamp_ms: 0,
            size_bytes: 1,
            leader_epochs: epochs.to_vec(),
            state: SegmentState::CopyStarted,
            txn_index_empty: true,
        }
    }

    #[test]
    fn a_segment_is_found_while_its_copy_is_finished() {
        let mut remote = RemoteSegments::default();
        let id = Uuid::from_u128(1);
        remote.begin(segment(1, 0, 99, &[(0, 0), (2, 50)])).unwrap();
        assert_eq!(remote.find(0, 10), None);
        remote.update(id, SegmentState::CopyFinished, 1).unwrap();
        assert_eq!(remote.find(0, 49).map(|s| s.id), Some(id));
        assert_eq!(remote.find(0, 50), None);
        assert_eq!(remote.find(2, 50).map(|s| s.id), Some(id));
        assert_eq!(remote.copied_to(&[(0, 0), (2, 50)], 120), 100);
        assert_eq!(remote.copied_to(&[(0, 0), (2, 50), (3, 80)], 120), 80);
        assert_eq!(remote.copied_to(&[(0, 0), (1, 30)], 120), 30);
        let back = SegmentState::CopyStarted;
        assert!(remote.update(id, back, 1).is_err());
        remote.update(id, SegmentState::DeleteStarted, 1).unwrap();
        assert_eq!(remote.find(0, 10), None);
        assert_eq!(remote.highest_offset(2), Some(99));
        remote.update(id, SegmentState::DeleteFinished, 1).unwrap();
        assert!(remote.is_empty());
        assert_eq!(remote.update(id, SegmentState::DeleteStarted, 1), Err(RemoteStateError::Unknown(id)));
    }

    #[test]
    fn what_a_log_went_away_from_is_told() {
        let copied = segment(1, 10, 29, &[(0, 10), (1, 20)]);
        let of = |epochs: &[(i32, i64)], start| RemoteSegments::is_of_log(&copied, epochs, start, 100);
        assert!(of(&[(0, 0), (1, 20), (2, 30)], 0));
        assert!(!of(&[(0, 0), (1, 20), (2, 25)], 0));
        assert!(!of(&[(0, 0), (2, 20)], 0));
        assert!(of(&[(1, 22)], 22));
        assert!(!RemoteSegments::is_of_log(&copied, &[(0, 0), (1, 20)], 0, 29));
    }

    /// What the model keeps: every segment that was ever finished, in the order of finishing, and whether it still is.
    #[derive(Default)]
    struct Model {
        finished: Vec<(RemoteSegment, bool)>,
    }

    impl Model {
        fn find(&self, epoch: i32, offset: i64) -> Option<Uuid> {
            let mut best: Option<(i64, Uuid, bool)> = None;
            for (i, (segment, alive)) in self.finished.iter().enumerate() {
                let Some((start, end)) = segment.range_in_epoch(epoch) else { continue };
                let covered = self
                    .finished
                    .iter()
                    .skip(i + 1)
                    .any(|(later, _)| later.range_in_epoch(epoch).is_some_and(|(s, e)| s <= start && e >= end));
                if covered || !alive || start > offset {
                    continue;
                }
                // Of two with the same beginning the later one counts, though it is shorter.
                if best.is_none_or(|(known, ..)| start >= known) {
                    best = Some((start, segment.id, offset <= end));
                }
            }
            best.and_then(|(_, id, inside)| inside.then_some(id))
        }
    }

    fn ops() -> impl Strategy<Value = Vec<(u8, i64, i64, u8)>> {
        proptest::collection::vec((0..4_u8, 0..40_i64, 1..20_i64, 0..4_u8), 1..60)
    }

    proptest! {
        #[test]
        fn lookups_are_the_models(ops in ops()) {
            let mut remote = RemoteSegments::default();
            let mut model = Model::default();
            let mut started: Vec<RemoteSegment> = Vec::new();
            for (n, (kind, start, length, pick)) in ops.into_iter().enumerate() {
                match kind {
                    0 => {
                        let split = start + length / 2;
                        let epoch = i32::from(pick);
                        let epochs = if split > start && pick > 1 { vec![(epoch - 1, start), (epoch, split)] } else { vec![(epoch, start)] };
                        let new = segment(n as u128 + 1, start, start + length - 1, &epochs);
                        remote.begin(new.clone()).unwrap();
                        started.push(new);
                    }
                    1 | 2 if !started.is_empty() => {
                        let new = started.remove(usize::from(pick) % started.len());
                        remote.update(new.id, SegmentState::CopyFinished, 0).unwrap();
                        // Two copies that begin alike in one epoch and differ in length: the table has one place for both.
                        for (epoch, _) in &new.leader_epochs {
                            let (s, e) = new.range_in_epoch(*epoch).unwrap();
                            prop_assume!(!model.finished.iter().any(|(old, alive)| *alive
                                && old.range_in_epoch(*epoch).is_some_and(|(os, oe)| os == s && oe > e)));
                        }
                        model.finished.push((new, true));
                    }
                    3 => {
                        let alive: Vec<usize> = (0..model.finished.len()).filter(|i| model.finished[*i].1).collect();
                        if let Some(at) = alive.get(usize::from(pick)) {
                            let id = model.finished[*at].0.id;
                            remote.update(id, SegmentState::DeleteStarted, 0).unwrap();
                            remote.update(id, SegmentState::DeleteFinished, 0).unwrap();
                            model.finished[*at].1 = false;
                        }
                    }
                    _ => {}
                }
            }
            for epoch in 0..4 {
                for offset in 0..62 {
                    prop_assert_eq!(remote.find(epoch, offset).map(|s| s.id), model.find(epoch, offset), "{} {}", epoch, offset);
                }
                let highest = model.finished.iter().filter_map(|(s, _)| s.range_in_epoch(epoch)).map(|(_, end)| end).max();
                prop_assert_eq!(remote.highest_offset(epoch), highest);
            }
        }
    }
}
