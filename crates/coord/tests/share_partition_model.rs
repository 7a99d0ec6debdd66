//! Random histories of one share-partition against a model that keeps every offset by itself: members that acquire,
//! acknowledge and vanish, locks that run out, writes that succeed, fail, or succeed without anybody hearing of it, a log
//! that grows, loses its head and is compacted, and crashes.
//!
//! Always: one owner per offset; an offset whose acceptance was reported is never delivered again, not even after a
//! crash; no offset is delivered more often than the limit; the start offset never goes back and never passes what is not
//! done. In the end: whatever is in the log and is not done is delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use taccola_coord::share_partition::{
    AckError, AcknowledgeType, AcknowledgementBatch, AcquireMode, AcquireRequest, AcquiredRange, FetchedBatch,
    RecordState, ShareLimits, SharePartition, StateBatch, StateWrite,
};

const LOCK_MS: i64 = 1_000;
const MEMBERS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Append {
        sizes: Vec<u8>,
    },
    /// `batches` of the log are read.
    Acquire {
        member: usize,
        record_limit: bool,
        batch_size: i32,
        max_records: i32,
        batches: usize,
        aborted: u8,
    },
    /// A part of one of the ranges that the member has; `each`: one type per offset.
    Acknowledge {
        member: usize,
        range: usize,
        skip: u8,
        len: u8,
        kind: u8,
        each: bool,
    },
    Release {
        member: usize,
    },
    Pass {
        ms: u16,
    },
    /// The oldest, or some, write ends.
    Written {
        which: usize,
        fate: Fate,
    },
    LogStart {
        forward: u8,
    },
    Compact {
        batch: usize,
    },
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ok,
    Failed,
    /// It is in the persister, and the answer says that it is not.
    FailedButThere,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => prop::collection::vec(1u8..9, 1..4).prop_map(|sizes| Op::Append { sizes }),
        8 => (0usize..3, any::<bool>(), 1i32..8, 1i32..20, 1usize..4, 0u8..12).prop_map(
            |(member, record_limit, batch_size, max_records, batches, aborted)| Op::Acquire {
                member, record_limit, batch_size, max_records, batches, aborted
            }
        ),
        8 => (0usize..3, 0usize..8, 0u8..4, 0u8..9, 0u8..5, any::<bool>()).prop_map(
            |(member, range, skip, len, kind, each)| Op::Acknowledge { member, range, skip, len, kind, each }
        ),
        1 => (0usize..3).prop_map(|member| Op::Release { member }),
        3 => (0u16..700).prop_map(|ms| Op::Pass { ms }),
        6 => (0usize..3, prop_oneof![6 => Just(Fate::Ok), 1 => Just(Fate::Failed), 1 => Just(Fate::FailedButThere)])
            .prop_map(|(which, fate)| Op::Written { which, fate }),
        1 => (1u8..12).prop_map(|forward| Op::LogStart { forward }),
        1 => (0usize..6).prop_map(|batch| Op::Compact { batch }),
        1 => Just(Op::Crash),
    ]
}

/// What the model knows of one offset.
#[derive(Clone, Debug, Default)]
struct Known {
    owner: Option<(usize, i64)>,
    pending: Option<(u64, RecordState, i16)>,
    delivery_count: i16,
    done: bool,
}

/// What the persister has of one offset: the higher delivery count wins, then the later state.
#[derive(Debug, Default)]
struct Persister {
    start_offset: i64,
    state: BTreeMap<i64, (i16, i8)>,
}

impl Persister {
    fn apply(&mut self, write: &StateWrite) {
        self.start_offset = self.start_offset.max(write.start_offset);
        for batch in &write.batches {
            assert!(batch.first_offset <= batch.last_offset);
            for offset in batch.first_offset..=batch.last_offset {
                self.state.insert(offset, (batch.delivery_count, batch.delivery_state));
            }
        }
        let start = self.start_offset;
        self.state.retain(|offset, _| *offset >= start);
    }

    fn batches(&self) -> Vec<StateBatch> {
        let mut batches: Vec<StateBatch> = Vec::new();
        for (offset, (count, state)) in &self.state {
            match batches.last_mut() {
                Some(last)
                    if last.last_offset + 1 == *offset
                        && last.delivery_state == *state
                        && last.delivery_count == *count =>
                {
                    last.last_offset = *offset;
                }
                _ => batches.push(StateBatch {
                    first_offset: *offset,
                    last_offset: *offset,
                    delivery_state: *state,
                    delivery_count: *count,
                }),
            }
        }
        batches
    }
}

struct World {
    limits: ShareLimits,
    now_ms: i64,
    log: Vec<FetchedBatch>,
    log_start: i64,
    log_end: i64,
    partition: SharePartition,
    persister: Persister,
    writes: Vec<StateWrite>,
    known: BTreeMap<i64, Known>,
    /// What was said to a member to be accepted.
    accepted: BTreeSet<i64>,
    held: [Vec<AcquiredRange>; 3],
    start_seen: i64,
    crashed: bool,
}

impl World {
    fn new(limits: ShareLimits) -> Self {
        Self {
            limits,
            now_ms: 0,
            log: Vec::new(),
            log_start: 0,
            log_end: 0,
            partition: SharePartition::load(limits, 0, 0, 0, &[]).unwrap(),
            persister: Persister::default(),
            writes: Vec::new(),
            known: BTreeMap::new(),
            accepted: BTreeSet::new(),
            held: Default::default(),
            start_seen: 0,
            crashed: false,
        }
    }

    fn known(&mut self, offset: i64) -> &mut Known {
        self.known.entry(offset).or_default()
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Append { sizes } => {
                for size in sizes {
                    let batch =
                        FetchedBatch { base_offset: self.log_end, last_offset: self.log_end + i64::from(size) - 1 };
                    self.log_end = batch.last_offset + 1;
                    self.log.push(batch);
                }
            }
            Op::Acquire { member, record_limit, batch_size, max_records, batches, aborted } => {
                let mode = if record_limit { AcquireMode::RecordLimit } else { AcquireMode::BatchOptimized };
                self.acquire(member, mode, batch_size, max_records, batches, aborted == 0);
            }
            Op::Acknowledge { member, range, skip, len, kind, each } => {
                self.acknowledge(member, range, i64::from(skip), i64::from(len), kind, each)
            }
            Op::Release { member } => self.release(member),
            Op::Pass { ms } => {
                self.now_ms += i64::from(ms);
                self.timeouts();
            }
            Op::Written { which, fate } => {
                if !self.writes.is_empty() {
                    // The persister applies writes in their order: whoever is not the first is there later.
                    let at = if fate == Fate::Failed { which % self.writes.len() } else { 0 };
                    self.end_write(at, fate);
                }
            }
            Op::LogStart { forward } => {
                self.log_start = (self.log_start + i64::from(forward)).min(self.log_end);
                let log_start = self.log_start;
                self.log.retain(|batch| batch.last_offset >= log_start);
            }
            Op::Compact { batch } => {
                if batch + 1 < self.log.len() {
                    self.log.remove(batch);
                }
            }
            Op::Crash => self.crash(),
        }
        self.check();
    }

    fn acquire(&mut self, member: usize, mode: AcquireMode, batch_size: i32, max: i32, batches: usize, aborted: bool) {
        if !self.partition.can_acquire() {
            return;
        }
        let fetch_offset = self.partition.next_fetch_offset();
        if fetch_offset < self.log_start {
            self.partition.log_start_moved(self.log_start);
            self.after_log_start();
            return;
        }
        let from = self.log.partition_point(|batch| batch.last_offset < fetch_offset);
        let fetched: Vec<FetchedBatch> = self.log.iter().skip(from).take(batches).copied().collect();
        let request =
            AcquireRequest { member: Arc::from(MEMBERS[member]), mode, batch_size, max_records: max, fetch_offset };
        let first = fetched.first().map_or(i64::MAX, |batch| batch.base_offset);
        let taken = self.partition.acquire(self.now_ms, &request, &fetched);
        if !fetched.is_empty() {
            // What compaction took is archived.
            for (_, known) in self.known.range_mut(fetch_offset..first.max(fetch_offset)) {
                if known.owner.is_none() {
                    known.done = true;
                }
            }
        }
        if mode == AcquireMode::RecordLimit {
            assert!(taken.iter().map(AcquiredRange::records).sum::<i64>() <= i64::from(max));
        }
        let until = self.now_ms + LOCK_MS;
        for range in &taken {
            assert!(range.first_offset <= range.last_offset);
            assert!(range.first_offset >= self.start_seen, "delivered below the start offset");
            for offset in range.first_offset..=range.last_offset {
                let limit = self.limits.max_delivery_count;
                assert!(!self.accepted.contains(&offset), "{offset} was accepted and is delivered again");
                let known = self.known(offset);
                assert_eq!(known.owner, None, "{offset} is delivered to two members");
                assert!(!known.done, "{offset} is done and delivered again");
                assert_eq!(range.delivery_count, known.delivery_count + 1);
                assert!(range.delivery_count <= limit);
                known.delivery_count += 1;
                known.owner = Some((member, until));
            }
        }
        let kept = match aborted {
            false => taken,
            true => {
                let kept = self.partition.archive_aborted(taken.clone(), &fetched[..1.min(fetched.len())]);
                for range in taken {
                    for offset in range.first_offset..=range.last_offset {
                        if !kept.iter().any(|r| (r.first_offset..=r.last_offset).contains(&offset)) {
                            let known = self.known(offset);
                            known.owner = None;
                            known.done = true;
                        }
                    }
                }
                kept
            }
        };
        self.held[member].extend(kept);
    }

    fn acknowledge(&mut self, member: usize, range: usize, skip: i64, len: i64, kind: u8, each: bool) {
        let held = &self.held[member];
        if held.is_empty() {
            return;
        }
        let range = held[range % held.len()];
        let first = (range.first_offset + skip).min(range.last_offset);
        let last = (first + len).min(range.last_offset);
        let of = |id: i64| AcknowledgeType::of_id((id % 5) as i8).unwrap();
        let types: Vec<AcknowledgeType> = match each {
            true => (first..=last).map(|offset| of(offset + i64::from(kind))).collect(),
            false => vec![of(i64::from(kind))],
        };
        let batch = AcknowledgementBatch { first_offset: first, last_offset: last, types: types.clone() };
        let start = self.partition.start_offset();
        let expected = (first.max(start)..=last).all(|offset| {
            let known = self.known.get(&offset);
            known.is_some_and(|k| k.owner.is_some_and(|(owner, _)| owner == member) && k.pending.is_none())
        });
        let result = self.partition.acknowledge(self.now_ms, MEMBERS[member], &[batch]);
        assert_eq!(result.is_ok(), expected, "{first}-{last} by {member}: {result:?}");
        let until = self.now_ms + LOCK_MS;
        match result {
            Err(error) => {
                assert_eq!(error, AckError::InvalidRecordState);
            }
            Ok(write) => {
                let limit = self.limits.max_delivery_count;
                for offset in first.max(start)..=last {
                    let kind = *types.get((offset - first) as usize).or(types.first()).unwrap();
                    let id = write.as_ref().map(|write| write.id);
                    let known = self.known(offset);
                    let target = match kind {
                        AcknowledgeType::Renew => {
                            known.owner = Some((member, until));
                            continue;
                        }
                        AcknowledgeType::Accept => RecordState::Acknowledged,
                        AcknowledgeType::Gap | AcknowledgeType::Reject => RecordState::Archived,
                        AcknowledgeType::Release if known.delivery_count >= limit => RecordState::Archived,
                        AcknowledgeType::Release => RecordState::Available,
                    };
                    known.pending = Some((id.expect("a write"), target, known.delivery_count));
                }
                self.writes.extend(write);
            }
        }
    }

    fn release(&mut self, member: usize) {
        let (start, limit) = (self.partition.start_offset(), self.limits.max_delivery_count);
        let write = self.partition.release(MEMBERS[member]);
        self.held[member].clear();
        let mut any = false;
        for (offset, known) in &mut self.known {
            if known.owner.is_some_and(|(owner, _)| owner == member) && known.pending.is_none() {
                any = true;
                let id = write.as_ref().expect("a write").id;
                let target = match *offset < start || known.delivery_count >= limit {
                    true => RecordState::Archived,
                    false => RecordState::Available,
                };
                known.pending = Some((id, target, known.delivery_count));
            }
        }
        assert_eq!(any, write.is_some());
        self.writes.extend(write);
    }

    fn timeouts(&mut self) {
        let (now, limit, start) = (self.now_ms, self.limits.max_delivery_count, self.partition.start_offset());
        let due = |known: &Known| known.pending.is_none() && known.owner.is_some_and(|(_, until)| until <= now);
        let any = self.known.values().any(due);
        if any {
            assert!(self.partition.next_deadline_ms().is_some_and(|deadline| deadline <= now), "the timer is too late");
        }
        let write = self.partition.lock_timeouts(now);
        assert_eq!(write.is_some(), any);
        for (offset, known) in &mut self.known {
            if due(known) {
                known.owner = None;
                known.done = known.delivery_count >= limit || *offset < start;
            }
        }
        self.writes.extend(write);
    }

    fn end_write(&mut self, at: usize, fate: Fate) {
        let write = self.writes.remove(at);
        if fate != Fate::Failed {
            self.persister.apply(&write);
        }
        let ok = fate == Fate::Ok;
        let (now, limit, start) = (self.now_ms, self.limits.max_delivery_count, self.partition.start_offset());
        self.partition.written(write.id, now, ok);
        for (offset, known) in &mut self.known {
            let Some((_, target, count)) = known.pending.filter(|(id, ..)| *id == write.id) else { continue };
            known.pending = None;
            if ok {
                known.owner = None;
                known.delivery_count = count;
                known.done = target.is_terminal() || *offset < start;
                if target == RecordState::Acknowledged {
                    self.accepted.insert(*offset);
                }
            } else if known.owner.is_some_and(|(_, until)| until <= now) {
                known.owner = None;
                known.done = known.delivery_count >= limit || *offset < start;
            }
        }
    }

    fn after_log_start(&mut self) {
        let start = self.partition.start_offset();
        for (_, known) in self.known.range_mut(..start) {
            if known.owner.is_none() {
                known.done = true;
            }
        }
    }

    fn crash(&mut self) {
        self.crashed = true;
        // Writes that were under way: the first few got there.
        let arrived = self.writes.len() / 2;
        for write in self.writes.drain(..).take(arrived) {
            self.persister.apply(&write);
        }
        let batches = self.persister.batches();
        let start = self.persister.start_offset;
        self.partition = SharePartition::load(self.limits, 1, 0, start, &batches).unwrap();
        self.held = Default::default();
        self.known.clear();
        for batch in &batches {
            for offset in batch.first_offset..=batch.last_offset {
                let done = RecordState::of_persisted(batch.delivery_state).unwrap().is_terminal();
                let known = Known { delivery_count: batch.delivery_count, done, ..Default::default() };
                self.known.insert(offset, known);
            }
        }
        let start = self.partition.start_offset();
        for offset in &self.accepted {
            assert!(
                *offset < start || self.known.get(offset).is_some_and(|known| known.done),
                "the acceptance of {offset} is lost"
            );
        }
        self.start_seen = start;
        self.after_log_start();
    }

    fn check(&mut self) {
        let start = self.partition.start_offset();
        assert!(start >= self.start_seen, "the start offset went back");
        self.start_seen = start;
        for (first, last, state, count, owner) in self.partition.in_flight() {
            for offset in first..=last {
                let known = self.known.get(&offset).cloned().unwrap_or_default();
                let expected = match (known.owner, known.done) {
                    (Some(_), _) => RecordState::Acquired,
                    (None, true) => state,
                    (None, false) => RecordState::Available,
                };
                if known.done {
                    assert!(state.is_terminal(), "{offset} {state:?} {known:?}");
                }
                // What lies between batches of the log and was never delivered may have been archived.
                if state == RecordState::Archived && known.owner.is_none() {
                    continue;
                }
                assert_eq!(state, expected, "{offset} {known:?}");
                assert_eq!(owner, known.owner.map(|(owner, _)| MEMBERS[owner]), "{offset}");
                assert_eq!(count, known.delivery_count, "{offset}");
            }
        }
        let log_start = self.log_start;
        for (offset, known) in self.known.range(..start) {
            let in_log = self.log.iter().any(|b| (b.base_offset..=b.last_offset).contains(offset));
            assert!(
                known.done || *offset < log_start || !in_log || known.owner.is_some(),
                "{offset} was passed: {known:?}"
            );
        }
    }

    /// Everything is accepted until nothing more comes: then the start offset is the end of the log.
    fn drain(&mut self) {
        while !self.writes.is_empty() {
            self.end_write(0, Fate::Ok);
        }
        self.now_ms += 2 * LOCK_MS;
        self.timeouts();
        self.held = Default::default();
        for round in 0..10_000 {
            self.acquire(0, AcquireMode::BatchOptimized, 100, 100, 2, false);
            let held = std::mem::take(&mut self.held[0]);
            for range in held {
                self.held[0] = vec![range];
                self.acknowledge(0, 0, 0, i64::MAX / 4, 1, false);
            }
            self.held[0].clear();
            while !self.writes.is_empty() {
                self.end_write(0, Fate::Ok);
            }
            self.check();
            if self.partition.next_fetch_offset() >= self.log_end {
                break;
            }
            assert!(round < 9_999, "it does not come to an end: {:?}", self.partition);
        }
        let undone: Vec<_> = self.partition.in_flight().filter(|(_, _, state, ..)| !state.is_terminal()).collect();
        assert!(undone.is_empty(), "{undone:?}");
        let start = self.partition.start_offset();
        assert_eq!(start, self.partition.end_offset());
        assert!(self.crashed || start >= self.log_end || self.log.last().is_none_or(|b| b.last_offset < start));
        for batch in &self.log {
            for offset in batch.base_offset.max(self.log_start)..=batch.last_offset {
                let known = self.known.get(&offset);
                assert!(offset < start && (known.is_none_or(|known| known.done)), "{offset} is left over: {known:?}");
                if known.is_none() {
                    assert!(self.crashed, "{offset} was never delivered");
                }
            }
        }
    }
}

/// `SHARE_MODEL_CASES` for longer runs.
fn cases() -> u32 {
    std::env::var("SHARE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..Default::default() })]

    #[test]
    fn every_history_keeps_the_promises(
        ops in prop::collection::vec(op(), 1..90),
        max_in_flight_records in 5i32..40,
        max_delivery_count in 2i16..7,
    ) {
        let record_lock_duration_ms = LOCK_MS as i32;
        let limits = ShareLimits { max_in_flight_records, max_delivery_count, record_lock_duration_ms, renewals: true };
        let mut world = World::new(limits);
        for op in ops {
            world.run(op);
        }
        world.drain();
    }
}
