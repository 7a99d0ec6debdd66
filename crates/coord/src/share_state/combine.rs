//! Delivery states of overlapping batches become those of batches that do not overlap. Answers to Kafka's
//! `PersisterStateBatchCombiner`, batch by batch: the records in the log hold its results.

use std::collections::BTreeSet;

use super::{NO_START_OFFSET, StateBatch};

/// Old and new batches in one list, sorted, without overlap, nothing below the start offset. Where several batches cover
/// an offset the one that was delivered most often counts, then the one with the highest state: a late write of an older
/// delivery changes nothing. Neighbours in the same state become one, as far as one pass from the left finds them.
pub fn combine(so_far: &[StateBatch], new: &[StateBatch], start_offset: i64) -> Vec<StateBatch> {
    let kept: Vec<StateBatch> = so_far.iter().chain(new).filter_map(|batch| cut(*batch, start_offset)).collect();
    if kept.len() < 2 {
        return kept;
    }
    let mut rest: BTreeSet<StateBatch> = kept.into_iter().collect();
    let mut done = Vec::with_capacity(rest.len());
    while let Some(left) = rest.pop_first() {
        match rest.first().copied().filter(|right| touches(&left, right)) {
            None => done.push(left),
            Some(right) => {
                rest.remove(&right);
                rest.extend(join(left, right).into_iter().flatten());
            }
        }
    }
    done
}

/// What of a batch lies at the start offset or above.
fn cut(batch: StateBatch, start_offset: i64) -> Option<StateBatch> {
    if start_offset == NO_START_OFFSET || batch.first_offset >= start_offset {
        return Some(batch);
    }
    (batch.last_offset >= start_offset).then_some(StateBatch { first_offset: start_offset, ..batch })
}

/// Which of two deliveries counts.
fn rank(batch: &StateBatch) -> (i16, i8) {
    (batch.delivery_count, batch.delivery_state)
}

/// Whether two batches, the left one first in order, share offsets or are neighbours in the same state.
fn touches(left: &StateBatch, right: &StateBatch) -> bool {
    right.first_offset <= left.last_offset
        || (left.last_offset.checked_add(1) == Some(right.first_offset) && rank(left) == rank(right))
}

/// Two batches that touch, the left one first in order, as up to three that do not overlap each other.
fn join(left: StateBatch, right: StateBatch) -> [Option<StateBatch>; 3] {
    if rank(&left) == rank(&right) {
        let last_offset = left.last_offset.max(right.last_offset);
        return [Some(StateBatch { last_offset, ..left }), None, None];
    }
    if rank(&right) < rank(&left) {
        // What of the right one sticks out behind the left one.
        let tail = (right.last_offset > left.last_offset)
            .then(|| StateBatch { first_offset: left.last_offset.saturating_add(1), ..right });
        return [Some(left), tail, None];
    }
    let head = (left.first_offset < right.first_offset)
        .then(|| StateBatch { last_offset: right.first_offset.saturating_sub(1), ..left });
    let tail = (left.last_offset > right.last_offset)
        .then(|| StateBatch { first_offset: right.last_offset.saturating_add(1), ..left });
    [head, Some(right), tail]
}
