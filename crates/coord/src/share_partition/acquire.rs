//! Which records are delivered next, and to whom. Answers to `acquire`, `nextFetchOffset` and `canAcquireRecords` of
//! Kafka's `SharePartition`.
//!
//! Records are acquired by whole log batches. In the mode `record_limit` (KIP-1206) no more than asked for, though the
//! batch is in flight as a whole and its rest available. Records that were often delivered come in smaller portions, and
//! alone the last time.

use std::sync::Arc;

use super::in_flight::{InFlightBatch, Slot};
use super::{RecordState, SharePartition};

/// `ShareAcquireMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireMode {
    /// Whole batches, even if that is more records than asked for.
    BatchOptimized,
    /// Never more records than asked for.
    RecordLimit,
}

/// The boundaries of a record batch that was read, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedBatch {
    pub base_offset: i64,
    pub last_offset: i64,
}

#[derive(Clone, Debug)]
pub struct AcquireRequest {
    pub member: Arc<str>,
    pub mode: AcquireMode,
    /// Records of one range of the answer, about: ranges end with a log batch.
    pub batch_size: i32,
    pub max_records: i32,
    /// Where the read began: batches of the log that were asked for and did not come are gone.
    pub fetch_offset: i64,
}

/// Records that a member has now, both offsets inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquiredRange {
    pub first_offset: i64,
    pub last_offset: i64,
    pub delivery_count: i16,
}

impl AcquiredRange {
    pub fn records(&self) -> i64 {
        self.last_offset - self.first_offset + 1
    }
}

/// What one acquisition has so far.
struct Taking<'a> {
    request: &'a AcquireRequest,
    fetched: &'a [FetchedBatch],
    lock_until_ms: i64,
    /// Inclusive bounds of what may be taken.
    first: i64,
    last: i64,
    limit: i64,
    taken: Vec<AcquiredRange>,
    count: i64,
}

impl Taking<'_> {
    fn left(&self) -> i64 {
        self.limit - self.count
    }

    fn push(&mut self, first_offset: i64, last_offset: i64, delivery_count: i16) {
        self.count += last_offset - first_offset + 1;
        self.taken.push(AcquiredRange { first_offset, last_offset, delivery_count });
    }
}

impl SharePartition {
    /// Where to read next.
    pub fn next_fetch_offset(&mut self) -> i64 {
        let Some(last_in_flight) = self.last_in_flight() else {
            self.find_next = false;
            return self.end_offset;
        };
        if !self.find_next {
            return self.end_offset + 1;
        }
        let mut gap = self.active_gap();
        for batch in self.batches.values() {
            if let Some(gap_start) = gap {
                if batch.first > gap_start {
                    return gap_start;
                }
                gap = Some(gap_start.max(batch.last + 1));
            }
            if let Some((first, ..)) = batch.runs().find(|(_, _, slot)| slot.is_available()) {
                return first;
            }
        }
        self.find_next = false;
        last_in_flight.max(self.end_offset) + 1
    }

    /// Whether a read may lead to an acquisition: there is room, or something before the end offset is available.
    pub fn can_acquire(&mut self) -> bool {
        self.next_fetch_offset() != self.end_offset + 1
            || self.in_flight_records() < i64::from(self.limits.max_in_flight_records)
    }

    /// Gives records of the batches that were read from `request.fetch_offset` on to a member. The batches ascend.
    pub fn acquire(&mut self, now_ms: i64, request: &AcquireRequest, fetched: &[FetchedBatch]) -> Vec<AcquiredRange> {
        let (Some(first_batch), Some(last_batch)) = (fetched.first(), fetched.last()) else { return Vec::new() };
        let Some((last, limit)) = self.bounds(request, last_batch.last_offset) else { return Vec::new() };
        self.archive_stale(request.fetch_offset, first_batch.base_offset);
        let first = first_batch.base_offset.max(self.start_offset);
        let lock_until_ms = now_ms.saturating_add(i64::from(self.limits.record_lock_duration_ms));
        let mut taking = Taking { request, fetched, lock_until_ms, first, last, limit, taken: Vec::new(), count: 0 };
        let exhausted = self.take(&mut taking);
        self.move_gap_window(&taking, exhausted);
        // What turned out to be gone may have been all that the start offset waited for.
        self.advance_start();
        if !taking.taken.is_empty() {
            self.next_deadline_ms = self.next_deadline_ms.min(lock_until_ms);
        }
        taking.taken
    }

    /// The last offset that may be taken, and how many records.
    fn bounds(&self, request: &AcquireRequest, last: i64) -> Option<(i64, i64)> {
        let max_records = i64::from(request.max_records);
        let room = i64::from(self.limits.max_in_flight_records) - self.in_flight_records();
        let (last, limit) = if room > 0 {
            (last, max_records.min(room))
        } else {
            // Full: only what is in flight already and available again may be taken.
            (last.min(self.end_offset), max_records.min(self.end_offset - request.fetch_offset + 1))
        };
        (limit > 0).then_some((last, limit))
    }

    /// Batches of the log from the fetch offset to the first that came are gone (compaction): nobody can deliver them.
    fn archive_stale(&mut self, fetch_offset: i64, base_offset: i64) {
        if fetch_offset < base_offset && self.archive_available(fetch_offset, base_offset - 1) {
            self.find_next = true;
        }
    }

    /// True when all that was read was looked at.
    fn take(&mut self, taking: &mut Taking<'_>) -> bool {
        let from = self.key_at_or_after(taking.first);
        let overlapping = self.batches.range(from..=taking.last.max(from)).map(|(key, _)| *key);
        let keys: Vec<i64> = overlapping.filter(|key| *key <= taking.last).collect();
        let mut next = taking.first;
        for key in keys {
            if taking.left() <= 0 {
                return false;
            }
            let Some(batch) = self.batches.get(&key) else { continue };
            let (batch_first, batch_last) = (batch.first, batch.last);
            if self.active_gap().is_some() && next < batch_first {
                self.take_new(taking, next, batch_first - 1);
                if taking.left() <= 0 {
                    return false;
                }
            }
            next = next.max(batch_last + 1);
            let throttled = self.is_throttled(key, taking.first, taking.last);
            if throttled && taking.count > 0 {
                return false;
            }
            if self.take_again(taking, key) && throttled {
                return false;
            }
        }
        if taking.left() <= 0 {
            return false;
        }
        self.take_new(taking, next, taking.last);
        taking.left() > 0
    }

    /// Whether something of a batch that could be taken was delivered so often that it comes in portions.
    fn is_throttled(&self, key: i64, first: i64, last: i64) -> bool {
        let from = self.limits.throttle_from();
        let Some(batch) = self.batches.get(&key) else { return false };
        batch.runs_within(first, last).any(|(_, _, slot)| slot.is_available() && slot.delivery_count >= from)
    }

    /// Takes what is available again of a batch in flight. True when that is something.
    fn take_again(&mut self, taking: &mut Taking<'_>, key: i64) -> bool {
        let limits = self.limits;
        let Some(batch) = self.batches.get_mut(&key) else { return false };
        let last_time = |count: i16| limits.max_delivery_count > 2 && count == limits.max_delivery_count - 1;
        let mut left = match taking.request.mode {
            AcquireMode::RecordLimit => taking.left(),
            AcquireMode::BatchOptimized => i64::MAX,
        };
        let (mut count, mut throttled) = (0, false);
        let mut ranges = Vec::new();
        for (first, last, slot) in batch.runs_within(taking.first, taking.last) {
            if !slot.is_available() {
                continue;
            }
            if left <= 0 || (last_time(slot.delivery_count) && count > 0) {
                break;
            }
            if slot.delivery_count >= limits.throttle_from() && !throttled {
                let halvings = u32::try_from(slot.delivery_count - limits.throttle_from() + 1).unwrap_or(0);
                left = left.min((batch.len().checked_shr(halvings).unwrap_or(0)).max(1) - count).max(1);
                throttled = true;
            }
            let alone = last_time(slot.delivery_count);
            let take = if alone { 1 } else { left.min(last - first + 1) };
            ranges.push(AcquiredRange {
                first_offset: first,
                last_offset: first + take - 1,
                delivery_count: slot.delivery_count.saturating_add(1),
            });
            count += take;
            left -= take;
            if alone {
                break;
            }
        }
        for range in &ranges {
            let (owner, until) = (&taking.request.member, taking.lock_until_ms);
            batch.change(range.first_offset, range.last_offset, |_, _, slot| {
                *slot = Slot::acquired(owner.clone(), range.delivery_count, until);
            });
            taking.push(range.first_offset, range.last_offset, range.delivery_count);
        }
        count > 0
    }

    /// Takes records that were not in flight before, from `first` to `last` or to the end of the log batch in which the
    /// limit is reached.
    fn take_new(&mut self, taking: &mut Taking<'_>, first: i64, last: i64) {
        let first = match self.last_in_flight() {
            Some(_) => first,
            None => first.max(self.end_offset),
        };
        let limit = taking.left();
        let mut last = last;
        if first > last || limit <= 0 {
            return;
        }
        if limit < last - first + 1 {
            let within_batch = end_of_batch(taking.fetched, first + limit - 1);
            last = if self.active_gap().is_some() { within_batch.min(last) } else { within_batch };
        }
        if let Some((next, _)) = self.batches.range(first..).next() {
            last = last.min(next - 1);
        }
        let was_empty = self.batches.first_key_value().is_none_or(|(key, _)| *key > first);
        match taking.request.mode {
            AcquireMode::BatchOptimized => self.take_new_batches(taking, first, last),
            AcquireMode::RecordLimit => self.take_new_records(taking, first, last, limit),
        }
        if was_empty {
            self.start_offset = self.start_offset.max(first);
        }
        self.end_offset = self.end_offset.max(last);
    }

    fn take_new_batches(&mut self, taking: &mut Taking<'_>, first: i64, last: i64) {
        let batch_size = i64::from(taking.request.batch_size.max(1));
        let mut begin = first;
        if last - first + 1 > batch_size {
            for batch in taking.fetched {
                if batch.base_offset > last {
                    break;
                }
                if batch.base_offset - begin >= batch_size {
                    self.insert_acquired(taking, begin, batch.base_offset - 1);
                    begin = batch.base_offset;
                }
            }
        }
        self.insert_acquired(taking, begin, last);
    }

    fn take_new_records(&mut self, taking: &mut Taking<'_>, first: i64, last: i64, limit: i64) {
        let last_taken = last.min(first + limit - 1);
        let slot = Slot::acquired(taking.request.member.clone(), 1, taking.lock_until_ms);
        let mut batch = InFlightBatch::new(first, last, slot);
        if last_taken < last {
            batch.change(last_taken + 1, last, |_, _, slot| *slot = Slot::new(RecordState::Available, 0));
            self.find_next = true;
        }
        self.batches.insert(first, batch);
        taking.push(first, last_taken, 1);
    }

    fn insert_acquired(&mut self, taking: &mut Taking<'_>, first: i64, last: i64) {
        let slot = Slot::acquired(taking.request.member.clone(), 1, taking.lock_until_ms);
        self.batches.insert(first, InFlightBatch::new(first, last, slot));
        taking.push(first, last, 1);
    }

    /// What was looked at is no gap any more.
    fn move_gap_window(&mut self, taking: &Taking<'_>, exhausted: bool) {
        let Some(window) = &mut self.gap_window else { return };
        if exhausted && taking.request.fetch_offset <= window.gap_start {
            window.gap_start = window.gap_start.max(taking.last + 1);
        }
        if let Some(taken) = taking.taken.last() {
            window.gap_start = window.gap_start.max(taken.last_offset + 1);
        }
        self.close_gaps();
    }

    /// Takes records of aborted transactions out of what was just acquired, for good. The ranges ascend.
    pub fn archive_aborted(&mut self, acquired: Vec<AcquiredRange>, aborted: &[FetchedBatch]) -> Vec<AcquiredRange> {
        let mut left = acquired;
        for batch in aborted {
            let (from, to) = (batch.base_offset, batch.last_offset);
            let mut rest = Vec::with_capacity(left.len() + 1);
            for range in left {
                if range.last_offset < from || range.first_offset > to {
                    rest.push(range);
                    continue;
                }
                self.archive_acquired(range.first_offset.max(from), range.last_offset.min(to));
                if range.first_offset < from {
                    rest.push(AcquiredRange { last_offset: from - 1, ..range });
                }
                if range.last_offset > to {
                    rest.push(AcquiredRange { first_offset: to + 1, ..range });
                }
            }
            left = rest;
        }
        if !aborted.is_empty() {
            self.advance_start();
        }
        left
    }

    fn archive_acquired(&mut self, first: i64, last: i64) {
        let from = self.key_at_or_after(first);
        for (_, batch) in self.batches.range_mut(from..=last.max(from)) {
            batch.change(first, last, |_, _, slot| {
                *slot = Slot::new(RecordState::Archived, slot.delivery_count);
            });
        }
    }
}

/// The last offset of the batch that holds `offset`, or `offset` where none does.
fn end_of_batch(fetched: &[FetchedBatch], offset: i64) -> i64 {
    let at = fetched.partition_point(|batch| batch.base_offset <= offset);
    let batch = at.checked_sub(1).and_then(|at| fetched.get(at));
    batch.map(|batch| batch.last_offset).filter(|last| *last >= offset).unwrap_or(offset)
}
