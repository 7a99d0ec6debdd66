//! One partition's batches: open, ready, in flight; and the order in which they may be sent. Pure state: no I/O, no clock.
//!
//! Invariants: sequences are given when a batch is first sent and never change; batches are sent in sequence order; after a
//! failure that may pass, nothing is sent until all batches in flight have come back, and then one at a time until the
//! failed ones are through (so that a later batch never overtakes). With idempotence the broker refuses such overtaking with
//! OUT_OF_ORDER_SEQUENCE_NUMBER, which is why that error may pass while an earlier batch is being retried. A broker that
//! knows nothing of a producer yet takes any first sequence, so that until one batch is acknowledged only one is sent. A batch
//! that is too large for its topic becomes two with the same sequences, and smaller ones are filled from then on.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use taccola_wire::batch::{
    BatchBuilder, BatchError, Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, RecordWalker,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::RecordMetadata;
use crate::error::Result;

/// Who waits for one record.
pub(super) struct Waiting {
    pub(super) timestamp: i64,
    pub(super) delivery: oneshot::Sender<Result<RecordMetadata>>,
    /// Released with the record.
    pub(super) _memory: OwnedSemaphorePermit,
}

/// The producer's identity for idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

impl Identity {
    pub(super) const NONE: Self = Self { id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH };
}

/// A batch that still takes records.
pub(super) struct OpenBatch {
    pub(super) builder: BatchBuilder,
    pub(super) waiting: Vec<Waiting>,
    pub(super) created: Instant,
    /// Full, or flushed: to be sent without lingering.
    pub(super) closed: bool,
}

/// A batch that was sent at least once, or is about to be.
pub(super) struct SealedBatch {
    pub(super) bytes: Bytes,
    pub(super) base_sequence: i32,
    pub(super) waiting: Vec<Waiting>,
    pub(super) created: Instant,
    pub(super) retried: bool,
}

impl SealedBatch {
    /// Both halves, with the sequences that their records have. `None` if it cannot be halved: a record alone.
    fn halves(&self, compression: Compression) -> Result<Option<[Half; 2]>, BatchError> {
        // What the producer itself packed may be unpacked.
        let mut records = RecordWalker::new(&self.bytes, usize::MAX)?;
        let header = *records.header();
        let first = header.records_count / 2;
        if first == 0 {
            return Ok(None);
        }
        let mut half = |count: i32, base_sequence: i32| {
            let builder = BatchBuilder::new(compression);
            let mut builder = builder
                .producer(header.producer_id, header.producer_epoch, base_sequence)
                .transactional(header.is_transactional());
            for _ in 0..count {
                let Some(record) = records.next_record().transpose()? else { break };
                builder.append_view(record.timestamp(&header), &record);
            }
            let uncompressed_bytes = builder.uncompressed_bytes();
            Ok(Half { bytes: builder.build()?, base_sequence, uncompressed_bytes })
        };
        let second_sequence = match self.base_sequence {
            NO_SEQUENCE => NO_SEQUENCE,
            base => next_sequence(base, first),
        };
        Ok(Some([half(first, self.base_sequence)?, half(header.records_count - first, second_sequence)?]))
    }

    pub(super) fn deliver(self, mut result: impl FnMut(i32, i64) -> Result<RecordMetadata>) {
        for (index, waiting) in (0i32..).zip(self.waiting) {
            // Whoever sent the record may not care for the outcome.
            let _ = waiting.delivery.send(result(index, waiting.timestamp));
        }
    }
}

/// A part of a batch that was too large.
struct Half {
    bytes: Bytes,
    base_sequence: i32,
    uncompressed_bytes: usize,
}

#[derive(Default)]
pub(super) struct PartitionQueue {
    /// Set once a batch was too large for the topic: what a batch is filled to at most, before compression.
    pub(super) batch_bytes_max: Option<usize>,
    pub(super) open: VecDeque<OpenBatch>,
    /// Failed in a way that may pass; sorted by sequence.
    pub(super) retry: VecDeque<SealedBatch>,
    pub(super) in_flight: usize,
    /// A failure was seen and its batches are not through yet.
    pub(super) recovering: bool,
    next_sequence: i32,
    /// Whether the broker knows this producer on this partition: a batch with its identity was acknowledged.
    known: bool,
    /// Not sent before this time.
    pub(super) paused_until: Option<Instant>,
}

impl PartitionQueue {
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.retry.is_empty() && self.in_flight == 0
    }

    /// Whether a batch could be sent now; `ready` decides about a batch that was never sent.
    pub(super) fn sendable(&self, now: Instant, in_flight_max: usize, ready: impl Fn(&OpenBatch) -> bool) -> bool {
        if self.paused_until.is_some_and(|until| until > now) {
            return false;
        }
        let alone = self.recovering || !self.known;
        let room = if alone { self.in_flight == 0 } else { self.in_flight < in_flight_max };
        room && (!self.retry.is_empty() || self.open.front().is_some_and(ready))
    }

    /// Takes the next batch in order. `None` when there is none.
    pub(super) fn take(
        &mut self,
        identity: Identity,
        transactional: bool,
    ) -> Option<Result<SealedBatch, (Vec<Waiting>, BatchError)>> {
        if let Some(batch) = self.retry.pop_front() {
            self.in_flight += 1;
            return Some(Ok(batch));
        }
        let OpenBatch { builder, waiting, created, .. } = self.open.pop_front()?;
        let records = builder.records_count();
        let base_sequence = if identity == Identity::NONE { NO_SEQUENCE } else { self.next_sequence };
        let builder = builder.producer(identity.id, identity.epoch, base_sequence).transactional(transactional);
        let bytes = match builder.build() {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err((waiting, error))),
        };
        if identity != Identity::NONE {
            self.next_sequence = next_sequence(base_sequence, records);
        }
        self.in_flight += 1;
        Some(Ok(SealedBatch { bytes, base_sequence, waiting, created, retried: false }))
    }

    /// The producer has a new identity: sequences begin anew.
    pub(super) fn begin_sequences(&mut self) {
        self.next_sequence = 0;
        self.known = false;
    }

    pub(super) fn acknowledged(&mut self) {
        self.known = true;
        self.settled();
    }

    /// Whether a batch that is in flight may have been sent ahead of one that failed.
    pub(super) fn may_have_overtaken(&self, batch: &SealedBatch) -> bool {
        self.in_flight > 1 || self.retry.front().is_some_and(|first| precedes(first, batch))
    }

    /// A batch came back and its outcome is final.
    pub(super) fn settled(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.retry.is_empty() && self.in_flight == 0 {
            self.recovering = false;
        }
    }

    /// A batch came back as too large. Its halves are to be sent; the batch itself comes back if it has none.
    pub(super) fn too_large(&mut self, batch: SealedBatch, compression: Compression) -> Result<(), SealedBatch> {
        let Ok(Some(halves)) = batch.halves(compression) else { return Err(batch) };
        self.in_flight = self.in_flight.saturating_sub(1);
        self.recovering = true;
        let limit = halves.iter().map(|half| half.uncompressed_bytes).max();
        self.batch_bytes_max = limit.into_iter().chain(self.batch_bytes_max).min();
        let at = self.retry.iter().position(|other| precedes(&batch, other)).unwrap_or(self.retry.len());
        let SealedBatch { mut waiting, created, .. } = batch;
        let rest = waiting.split_off(waiting.len() / 2);
        for (half, waiting) in halves.into_iter().zip([waiting, rest]).rev() {
            let Half { bytes, base_sequence, .. } = half;
            self.retry.insert(at, SealedBatch { bytes, base_sequence, waiting, created, retried: true });
        }
        Ok(())
    }

    /// A batch came back and is to be sent again.
    pub(super) fn failed(&mut self, mut batch: SealedBatch, until: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.recovering = true;
        self.paused_until = Some(until);
        batch.retried = true;
        let at = self.retry.iter().position(|other| precedes(&batch, other)).unwrap_or(self.retry.len());
        self.retry.insert(at, batch);
    }
}

/// Sequence order, which wraps at 2^31 - 1; without sequences by age.
fn precedes(a: &SealedBatch, b: &SealedBatch) -> bool {
    if a.base_sequence == NO_SEQUENCE {
        return a.created < b.created;
    }
    let ahead = b.base_sequence.wrapping_sub(a.base_sequence) & i32::MAX;
    ahead != 0 && ahead < i32::MAX / 2
}

/// The sequence behind `records` records from `base` on; after 2^31 - 1 comes 0.
fn next_sequence(base: i32, records: i32) -> i32 {
    base.wrapping_add(records) & i32::MAX
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use taccola_wire::batch::{BatchHeader, Compression};

    use super::*;

    const IDENTITY: Identity = Identity { id: 7, epoch: 1 };

    fn open(records: usize) -> OpenBatch {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            builder.append(1, None, Some(b"x"), &[]);
        }
        OpenBatch { builder, waiting: Vec::new(), created: Instant::now(), closed: true }
    }

    fn sequences(queue: &mut PartitionQueue) -> Option<i32> {
        let batch = queue.take(IDENTITY, false)?.ok()?;
        assert_eq!(BatchHeader::parse(&batch.bytes).unwrap().base_sequence, batch.base_sequence);
        Some(batch.base_sequence)
    }

    #[test]
    fn sequences_grow_by_records_and_wrap() {
        let mut queue = PartitionQueue { next_sequence: i32::MAX - 1, ..Default::default() };
        queue.open.extend([open(3), open(1)]);
        assert_eq!(sequences(&mut queue), Some(i32::MAX - 1));
        assert_eq!(sequences(&mut queue), Some(1));
        assert_eq!(queue.in_flight, 2);
    }

    #[test]
    fn one_at_a_time_until_the_broker_knows_the_producer() {
        let now = Instant::now();
        let mut queue = PartitionQueue::default();
        queue.open.extend((0..4).map(|_| open(1)));
        assert_eq!(sequences(&mut queue), Some(0));
        assert!(!queue.sendable(now, 5, |_| true));
        queue.acknowledged();
        assert_eq!(sequences(&mut queue), Some(1));
        assert!(queue.sendable(now, 5, |_| true));
        queue.begin_sequences();
        assert!(!queue.sendable(now, 5, |_| true));
    }

    #[test]
    fn after_a_failure_batches_go_one_at_a_time_in_their_old_order() {
        let now = Instant::now();
        let mut queue = PartitionQueue { known: true, ..Default::default() };
        queue.open.extend((0..4).map(|_| open(1)));
        let first = queue.take(IDENTITY, false).unwrap().ok().unwrap();
        let second = queue.take(IDENTITY, false).unwrap().ok().unwrap();
        let third = queue.take(IDENTITY, false).unwrap().ok().unwrap();
        let later = now + Duration::from_millis(1);
        assert!(queue.may_have_overtaken(&second));
        queue.failed(second, now);
        assert!(!queue.sendable(later, 5, |_| true), "others are still in flight");
        queue.failed(first, now);
        queue.failed(third, now);
        for expected in 0..4 {
            assert!(queue.sendable(later, 5, |_| true));
            assert_eq!(sequences(&mut queue), Some(expected));
            if expected < 3 {
                assert!(!queue.sendable(later, 5, |_| true), "one at a time while recovering");
            }
            queue.settled();
        }
        assert!(queue.is_idle() && !queue.recovering);
    }

    #[test]
    fn a_batch_that_is_too_large_becomes_two_in_its_place() {
        let mut queue = PartitionQueue { known: true, next_sequence: i32::MAX - 1, ..Default::default() };
        let mut five = open(0);
        for n in 0..5 {
            five.builder.append(10 + n, Some(b"k"), Some(&[n as u8]), &[]);
        }
        queue.open.extend([five, open(1)]);
        let large = queue.take(IDENTITY, false).unwrap().ok().unwrap();
        let behind = queue.take(IDENTITY, false).unwrap().ok().unwrap();
        queue.failed(behind, Instant::now());
        assert!(queue.too_large(large, Compression::Gzip).is_ok());
        assert_eq!(queue.in_flight, 0);
        let mut seen = Vec::new();
        for expected in [i32::MAX - 1, 0, 3] {
            let batch = queue.take(IDENTITY, false).unwrap().ok().unwrap();
            let mut records = RecordWalker::new(&batch.bytes, usize::MAX).unwrap();
            let header = *records.header();
            assert_eq!((header.base_sequence, header.producer_id, header.producer_epoch), (expected, 7, 1));
            while let Some(record) = records.next_record() {
                let record = record.unwrap();
                seen.push((record.timestamp(&header), record.value.unwrap().to_vec()));
            }
            queue.settled();
        }
        let five = (0..5u8).map(|n| (10 + i64::from(n), vec![n]));
        assert_eq!(seen, five.chain([(1, b"x".to_vec())]).collect::<Vec<_>>());
        assert!(queue.batch_bytes_max.is_some() && queue.is_idle());
        queue.open.push_back(open(1));
        let alone = queue.take(IDENTITY, false).unwrap().ok().unwrap();
        assert!(queue.too_large(alone, Compression::None).is_err(), "one record alone is not halved");
    }
}
