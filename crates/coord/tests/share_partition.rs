//! One share-partition, step by step: what is delivered to whom, and what is in flight afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use taccola_coord::share_partition::{
    AckError, AcknowledgeType, AcknowledgementBatch, AcquireMode, AcquireRequest, FetchedBatch, LoadError, RecordState,
    ShareLimits, SharePartition, StateBatch, StateWrite,
};

use AcknowledgeType::{Accept, Gap, Reject, Release, Renew};

const LOCK_MS: i64 = 1_000;
const LIMITS: ShareLimits = ShareLimits {
    max_in_flight_records: 100,
    max_delivery_count: 5,
    record_lock_duration_ms: LOCK_MS as i32,
    renewals: true,
};

/// A share-partition, with a log of batches of ten records.
struct Bench {
    partition: SharePartition,
    now_ms: i64,
}

impl Bench {
    fn new(limits: ShareLimits) -> Self {
        Self::loaded(limits, 0, &[]).unwrap()
    }

    fn loaded(limits: ShareLimits, start: i64, state: &[(i64, i64, RecordState, i16)]) -> Result<Self, LoadError> {
        let state: Vec<StateBatch> = state
            .iter()
            .map(|(first_offset, last_offset, state, delivery_count)| StateBatch {
                first_offset: *first_offset,
                last_offset: *last_offset,
                delivery_state: state.id(),
                delivery_count: *delivery_count,
            })
            .collect();
        Ok(Self { partition: SharePartition::load(limits, 3, 7, start, &state)?, now_ms: 0 })
    }

    /// Reads `batches` batches of the log from the next offset on; what the member gets.
    fn acquire(&mut self, member: &str, mode: AcquireMode, max: i32, batches: i64) -> String {
        let fetch_offset = self.partition.next_fetch_offset();
        let first = fetch_offset / 10 * 10;
        let fetched: Vec<FetchedBatch> = (0..batches)
            .map(|i| FetchedBatch { base_offset: first + i * 10, last_offset: first + i * 10 + 9 })
            .collect();
        self.acquire_of(member, mode, max, &fetched)
    }

    fn acquire_of(&mut self, member: &str, mode: AcquireMode, max_records: i32, fetched: &[FetchedBatch]) -> String {
        let fetch_offset = self.partition.next_fetch_offset();
        let request = AcquireRequest { member: Arc::from(member), mode, batch_size: 10, max_records, fetch_offset };
        let taken = self.partition.acquire(self.now_ms, &request, fetched);
        let ranges = taken.iter().map(|r| format!("{}-{}x{}", r.first_offset, r.last_offset, r.delivery_count));
        ranges.collect::<Vec<_>>().join(" ")
    }

    fn acknowledge(
        &mut self,
        member: &str,
        first_offset: i64,
        last_offset: i64,
        types: &[AcknowledgeType],
    ) -> Result<Option<StateWrite>, AckError> {
        let batch = AcknowledgementBatch { first_offset, last_offset, types: types.to_vec() };
        self.partition.acknowledge(self.now_ms, member, &[batch])
    }

    /// An acknowledgement that is written.
    fn done(&mut self, member: &str, first: i64, last: i64, kind: AcknowledgeType) {
        let write = self.acknowledge(member, first, last, &[kind]).unwrap().unwrap();
        self.partition.written(write.id, self.now_ms, true);
    }

    fn pass(&mut self, ms: i64) -> Option<StateWrite> {
        self.now_ms += ms;
        self.partition.lock_timeouts(self.now_ms)
    }

    /// Start and end offset, then what is in flight.
    fn state(&self) -> String {
        let mut text = format!("[{}..{}]", self.partition.start_offset(), self.partition.end_offset());
        for (first, last, state, count, owner) in self.partition.in_flight() {
            let owner = owner.map(|owner| format!("({owner})")).unwrap_or_default();
            text += &format!(" {first}-{last} {state:?}{owner}x{count}");
        }
        text
    }
}

use AcquireMode::{BatchOptimized, RecordLimit};

#[test]
fn batches_are_delivered_whole_and_done_records_are_forgotten() {
    let mut bench = Bench::new(LIMITS);
    assert_eq!(bench.acquire("a", BatchOptimized, 15, 3), "0-9x1 10-19x1");
    assert_eq!(bench.acquire("b", BatchOptimized, 1, 3), "20-29x1");
    assert_eq!(bench.state(), "[0..29] 0-9 Acquired(a)x1 10-19 Acquired(a)x1 20-29 Acquired(b)x1");
    let write = bench.acknowledge("a", 5, 19, &[Accept]).unwrap().unwrap();
    assert_eq!((write.state_epoch, write.leader_epoch, write.start_offset), (7, 3, 0));
    assert_eq!(write.delivery_complete_count, 15);
    let batch = StateBatch { first_offset: 5, last_offset: 19, delivery_state: 2, delivery_count: 1 };
    assert_eq!(write.batches, [batch], "neighbours in the same state are one batch");
    assert!(bench.state().contains("5-9 Acquired(a)x1"), "it counts when it is written: {}", bench.state());
    assert!(!bench.partition.written(write.id, 0, true));
    bench.done("a", 0, 4, Gap);
    assert_eq!(bench.state(), "[20..29] 20-29 Acquired(b)x1");
    bench.done("b", 20, 29, Reject);
    assert_eq!(bench.state(), "[30..30]");
    assert_eq!(bench.acquire("a", BatchOptimized, 1, 1), "30-39x1");
}

#[test]
fn one_type_for_each_offset() {
    let mut bench = Bench::new(LIMITS);
    bench.acquire("a", BatchOptimized, 1, 1);
    let types = [Accept, Accept, Release, Release, Gap, Reject, Accept, Renew, Renew, Release];
    let write = bench.acknowledge("a", 0, 9, &types).unwrap().unwrap();
    assert!(bench.partition.written(write.id, 0, true), "something is available again");
    assert_eq!(
        bench.state(),
        "[2..9] 0-1 Acknowledgedx1 2-3 Availablex1 4-5 Archivedx1 6-6 Acknowledgedx1 7-8 Acquired(a)x1 9-9 Availablex1"
    );
    assert_eq!(bench.partition.next_fetch_offset(), 2);
    assert_eq!(bench.acquire("b", BatchOptimized, 100, 1), "2-3x2 9-9x2");
    assert_eq!(bench.acknowledge("a", 7, 9, &[Accept]), Err(AckError::InvalidRecordState), "9 is b's");
    assert_eq!(bench.acknowledge("a", 7, 10, &[Accept]), Err(AckError::InvalidRequest), "10 is not in flight");
    assert_eq!(bench.acknowledge("a", 7, 8, &[Accept, Accept, Accept]), Err(AckError::InvalidRequest));
    assert_eq!(bench.acknowledge("a", 8, 7, &[Accept]), Err(AckError::InvalidRequest));
    assert_eq!(bench.acknowledge("a", i64::MIN, i64::MAX, &[Accept]), Err(AckError::InvalidRequest));
    assert_eq!(bench.acknowledge("a", 0, i64::MAX, &[Accept]), Err(AckError::InvalidRequest));
    assert_eq!(bench.acknowledge("a", 0, 1, &[Accept]), Ok(None), "what is done is passed over");
}

#[test]
fn a_failed_write_leaves_the_record_with_its_owner_or_gives_it_back_when_the_lock_ran_out() {
    let mut bench = Bench::new(LIMITS);
    bench.acquire("a", BatchOptimized, 1, 1);
    let first = bench.acknowledge("a", 0, 4, &[Accept]).unwrap().unwrap();
    assert_eq!(bench.acknowledge("a", 4, 4, &[Accept]), Err(AckError::InvalidRecordState), "it is being written");
    assert!(!bench.partition.written(first.id, bench.now_ms, false));
    assert_eq!(bench.state(), "[0..9] 0-9 Acquired(a)x1");
    let second = bench.acknowledge("a", 0, 4, &[Accept]).unwrap().unwrap();
    let timed_out = bench.pass(LOCK_MS).unwrap();
    assert_eq!(timed_out.batches[0].first_offset, 5);
    assert_eq!(bench.state(), "[0..9] 0-4 Acquired(a)x1 5-9 Availablex1");
    assert!(bench.partition.written(second.id, bench.now_ms, false));
    assert_eq!(bench.state(), "[0..9] 0-9 Availablex1");
    assert!(!bench.partition.written(second.id, bench.now_ms, true), "a write ends once");
    bench.partition.written(timed_out.id, bench.now_ms, false);
    assert_eq!(bench.state(), "[0..9] 0-9 Availablex1");
}

#[test]
fn locks_run_out_unless_they_are_renewed() {
    let mut bench = Bench::new(LIMITS);
    assert_eq!(bench.partition.next_deadline_ms(), None);
    bench.acquire("a", BatchOptimized, 1, 1);
    assert_eq!(bench.partition.next_deadline_ms(), Some(LOCK_MS));
    assert_eq!(bench.pass(LOCK_MS / 2), None);
    assert_eq!(bench.acknowledge("a", 0, 4, &[Renew]), Ok(None));
    let write = bench.pass(LOCK_MS / 2).unwrap();
    assert_eq!(write.batches.len(), 1);
    assert_eq!(bench.state(), "[0..9] 0-4 Acquired(a)x1 5-9 Availablex1");
    assert_eq!(bench.partition.next_deadline_ms(), Some(LOCK_MS + LOCK_MS / 2));
    bench.pass(LOCK_MS / 2).unwrap();
    assert_eq!(bench.state(), "[0..9] 0-9 Availablex1");
    assert_eq!(bench.partition.next_deadline_ms(), None);
}

#[test]
fn what_fails_often_comes_in_smaller_portions_alone_the_last_time_and_is_given_up() {
    let mut bench = Bench::new(LIMITS);
    let mut trace = Vec::new();
    for _ in 0..5 {
        loop {
            let got = bench.acquire("a", BatchOptimized, 100, 1);
            // Beyond the first batch there is nothing to see here.
            if got.is_empty() || got.starts_with("10-") {
                break;
            }
            trace.push(got);
        }
        bench.partition.release("b");
        bench.pass(LOCK_MS);
    }
    let expected = [
        "0-9x1", "0-9x2", "0-9x3", "0-4x4", "5-9x4", "0-0x5", "1-1x5", "2-2x5", "3-3x5", "4-4x5", "5-5x5", "6-6x5",
        "7-7x5", "8-8x5", "9-9x5",
    ];
    assert_eq!(trace, expected);
    assert!(bench.partition.start_offset() >= 10, "{}", bench.state());
}

#[test]
fn a_member_that_goes_gives_back_what_it_has_and_nothing_else() {
    let mut bench = Bench::new(LIMITS);
    bench.acquire("a", BatchOptimized, 1, 1);
    bench.acquire("b", BatchOptimized, 1, 1);
    bench.done("a", 0, 4, Accept);
    let accepting = bench.acknowledge("a", 5, 6, &[Accept]).unwrap().unwrap();
    let released = bench.partition.release("a").unwrap();
    assert_eq!((released.batches[0].first_offset, released.batches[0].last_offset), (7, 9));
    assert_eq!(bench.partition.release("a"), None);
    bench.partition.written(released.id, 0, true);
    bench.partition.written(accepting.id, 0, true);
    assert_eq!(bench.state(), "[7..19] 0-6 Acknowledgedx1 7-9 Availablex1 10-19 Acquired(b)x1");
}

#[test]
fn record_limit_leaves_the_rest_of_a_batch_available() {
    let mut bench = Bench::new(LIMITS);
    assert_eq!(bench.acquire("a", RecordLimit, 3, 2), "0-2x1");
    assert_eq!(bench.state(), "[0..9] 0-2 Acquired(a)x1 3-9 Availablex0");
    assert_eq!(bench.acquire("b", RecordLimit, 3, 2), "3-5x1");
    assert_eq!(bench.acquire("b", RecordLimit, 6, 2), "6-9x1 10-11x1");
    assert_eq!(bench.partition.next_fetch_offset(), 12);
}

#[test]
fn no_more_than_the_limit_is_in_flight_but_for_whole_batches_and_what_comes_back() {
    let limits = ShareLimits { max_in_flight_records: 15, ..LIMITS };
    let mut bench = Bench::new(limits);
    assert_eq!(bench.acquire("a", BatchOptimized, 100, 5), "0-9x1 10-19x1");
    assert!(!bench.partition.can_acquire());
    assert_eq!(bench.acquire("a", BatchOptimized, 100, 5), "");
    bench.done("a", 12, 12, Release);
    assert!(bench.partition.can_acquire());
    assert_eq!(bench.acquire("b", BatchOptimized, 100, 5), "12-12x2", "nothing new comes with it");
    bench.done("a", 0, 9, Accept);
    assert!(bench.partition.can_acquire());
    assert_eq!(bench.acquire("b", BatchOptimized, 100, 5), "20-29x1");
}

#[test]
fn the_log_start_takes_what_is_available_and_waits_for_nothing() {
    let mut bench = Bench::new(LIMITS);
    bench.acquire("a", BatchOptimized, 30, 3);
    bench.done("a", 0, 4, Release);
    assert!(bench.partition.log_start_moved(15));
    assert!(!bench.partition.log_start_moved(15));
    assert_eq!(bench.partition.start_offset(), 15);
    let write = bench.acknowledge("a", 5, 19, &[Accept]).unwrap().unwrap();
    assert_eq!((write.start_offset, write.batches[0].first_offset), (15, 15));
    bench.partition.written(write.id, 0, true);
    assert_eq!(bench.partition.start_offset(), 20);
    let write = bench.pass(LOCK_MS).unwrap();
    let states: Vec<i8> = write.batches.iter().map(|batch| batch.delivery_state).collect();
    assert!(states.starts_with(&[4]), "what was in delivery below the start is archived: {states:?}");
    assert_eq!(bench.state(), "[20..29] 20-29 Availablex1");
    assert!(bench.partition.log_start_moved(100));
    assert_eq!(bench.state(), "[100..100]");
}

#[test]
fn what_compaction_took_is_not_waited_for() {
    let mut bench = Bench::new(LIMITS);
    bench.acquire("a", BatchOptimized, 30, 3);
    bench.done("a", 0, 29, Release);
    let third = [FetchedBatch { base_offset: 20, last_offset: 29 }];
    assert_eq!(bench.acquire_of("a", BatchOptimized, 100, &third), "20-29x2");
    assert_eq!(bench.state(), "[20..29] 20-29 Acquired(a)x2");
}

#[test]
fn aborted_batches_are_archived_and_not_delivered() {
    let mut bench = Bench::new(LIMITS);
    let request = AcquireRequest {
        member: Arc::from("a"),
        mode: BatchOptimized,
        batch_size: 100,
        max_records: 100,
        fetch_offset: 0,
    };
    let fetched: Vec<FetchedBatch> =
        (0..3).map(|i| FetchedBatch { base_offset: i * 10, last_offset: i * 10 + 9 }).collect();
    let taken = bench.partition.acquire(0, &request, &fetched);
    let kept = bench.partition.archive_aborted(taken, &fetched[1..2]);
    let kept: Vec<(i64, i64)> = kept.iter().map(|range| (range.first_offset, range.last_offset)).collect();
    assert_eq!(kept, [(0, 9), (20, 29)]);
    assert_eq!(bench.state(), "[0..29] 0-9 Acquired(a)x1 10-19 Archivedx1 20-29 Acquired(a)x1");
}

#[test]
fn what_nobody_wrote_of_is_delivered_after_a_load() {
    let state =
        [(5, 9, RecordState::Acknowledged, 1), (20, 24, RecordState::Available, 2), (25, 29, RecordState::Archived, 5)];
    let mut bench = Bench::loaded(LIMITS, 0, &state).unwrap();
    assert_eq!(bench.partition.start_offset(), 0);
    assert_eq!(bench.acquire("a", BatchOptimized, 100, 1), "0-4x1");
    assert_eq!(bench.acquire("a", BatchOptimized, 100, 2), "10-19x1 20-24x3");
    assert_eq!(bench.acquire("a", BatchOptimized, 100, 1), "30-39x1");
    for (first, last) in [(0, 4), (10, 24), (30, 39)] {
        bench.done("a", first, last, Accept);
    }
    assert_eq!(bench.state(), "[40..40]");
}

#[test]
fn a_state_that_contradicts_itself_is_not_loaded() {
    let available = RecordState::Available;
    for state in [[(0, 5, available, 1), (5, 6, available, 1)], [(0, 5, available, 1), (9, 8, available, 1)]] {
        assert!(matches!(Bench::loaded(LIMITS, 0, &state), Err(LoadError::Overlap { .. })));
    }
    assert!(matches!(Bench::loaded(LIMITS, 3, &[(0, 5, available, 1)]), Err(LoadError::Overlap { .. })));
    let acquired = [(0, 5, RecordState::Acquired, 1)];
    assert!(matches!(Bench::loaded(LIMITS, 0, &acquired), Err(LoadError::State { state: 1, .. })));
    let done = [(0, 9, RecordState::Acknowledged, 1), (10, 19, RecordState::Archived, 5)];
    assert_eq!(Bench::loaded(LIMITS, 0, &done).unwrap().state(), "[20..20]");
}
