//! From a share fetch's bytes to the records that were acquired, and from decisions about them to acknowledgements. Pure
//! state: no I/O, no clock.
//!
//! Every acquired offset is acknowledged: one that holds no record to hand out (control batches, what compaction took) as a
//! gap, one in a batch that cannot be read as rejected.

use std::collections::BTreeMap;

use bytes::Bytes;
use taccola_base::{TopicPartition, Uuid};
use taccola_wire::batch::{BatchError, batches, verify_crc};
use taccola_wire::messages::share_fetch_request::AcknowledgementBatch;
use taccola_wire::messages::share_fetch_response::{AcquiredRecords, PartitionData};

use super::{AckType, ShareRecord};
use crate::consumer::batches::append;
use crate::error::Error;

/// `AcknowledgeType` of an offset without a record.
const GAP: i8 = 0;

/// What one partition gave and what is to be said about it.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) topic_id: Uuid,
    /// The broker that holds the locks.
    pub(super) node: i32,
    /// Records handed out, by offset, with the decision if there is one.
    records: BTreeMap<i64, Option<AckType>>,
    /// Acknowledged by themselves: first offset → last offset (inclusive), type.
    ranges: BTreeMap<i64, (i64, i8)>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.ranges.is_empty()
    }

    /// Records that wait for a decision.
    pub(super) fn undecided(&self) -> usize {
        self.records.values().filter(|decision| decision.is_none()).count()
    }

    pub(super) fn decide_all(&mut self, decision: AckType) {
        self.records.values_mut().for_each(|d| *d = d.or(Some(decision)));
    }

    /// Whether the record is there to be decided on.
    pub(super) fn decide(&mut self, offset: i64, decision: AckType) -> bool {
        match self.records.get_mut(&offset) {
            Some(slot) => {
                *slot = Some(decision);
                true
            }
            None => false,
        }
    }

    /// Whether locks are to be renewed among what is decided.
    pub(super) fn renews(&self) -> bool {
        self.records.values().any(|decision| *decision == Some(AckType::Renew))
    }

    /// Takes what is decided, in runs of equal type. A renewed record stays, to be decided anew.
    pub(super) fn take_decided(&mut self) -> Vec<AcknowledgementBatch> {
        let mut ranges = std::mem::take(&mut self.ranges);
        self.records.retain(|offset, decision| match decision {
            Some(kind) => {
                ranges.insert(*offset, (*offset, *kind as i8));
                let renewed = *kind == AckType::Renew;
                *decision = None;
                renewed
            }
            None => true,
        });
        runs(ranges)
    }

    /// Takes a reply's data in: hands out what was acquired. An error is told beside the records before it.
    pub(super) fn take_in(
        &mut self,
        partition: &TopicPartition,
        data: &PartitionData,
        check_crcs: bool,
        out: &mut Vec<ShareRecord>,
    ) -> Result<(), Error> {
        let (found, unreadable) = decode(partition, data, check_crcs);
        let mut found = found.into_iter().peekable();
        for range in &data.acquired_records {
            // The first offset that is not accounted for.
            let mut next = range.first_offset;
            while let Some(record) = found.next_if(|record| record.offset <= range.last_offset) {
                if record.offset < next {
                    continue;
                }
                self.fill(next, record.offset.saturating_sub(1), &unreadable);
                next = record.offset.saturating_add(1);
                self.records.insert(record.offset, None);
                out.push(ShareRecord { delivery_count: range.delivery_count, record });
            }
            self.fill(next, range.last_offset, &unreadable);
        }
        match unreadable {
            None => Ok(()),
            Some((offset, _, source)) => Err(Error::Records {
                topic: partition.topic.to_string(),
                partition: partition.partition,
                offset,
                source,
            }),
        }
    }

    /// Offsets without a record, both ends inclusive.
    fn fill(&mut self, first: i64, last: i64, unreadable: &Unreadable) {
        if first > last {
            return;
        }
        let bad = unreadable.as_ref().is_some_and(|(from, to, _)| first <= *to && last >= *from);
        self.ranges.insert(first, (last, if bad { AckType::Reject as i8 } else { GAP }));
    }
}

/// First and last offset (inclusive) of what cannot be read, and why.
type Unreadable = Option<(i64, i64, BatchError)>;

/// Records of batches in which something was acquired, up to the first that cannot be read.
fn decode(
    partition: &TopicPartition,
    data: &PartitionData,
    check_crcs: bool,
) -> (Vec<crate::consumer::ConsumerRecord>, Unreadable) {
    let mut records = Vec::new();
    let acquired = |first: i64, last: i64| {
        let overlaps = |r: &AcquiredRecords| r.first_offset <= last && first <= r.last_offset;
        data.acquired_records.iter().any(overlaps)
    };
    let mut next = data.acquired_records.first().map_or(0, |r| r.first_offset);
    for batch in batches(&data.records) {
        let batch = match batch {
            Ok(batch) => batch,
            // What lies behind damage is out of reach.
            Err(error) => return (records, Some((next, i64::MAX, error))),
        };
        let header = batch.header;
        next = header.next_offset();
        if header.is_control() || !acquired(header.base_offset, header.last_offset()) {
            continue;
        }
        let raw: Bytes = data.records.slice_ref(batch.bytes);
        let checked = if check_crcs { verify_crc(&raw).map(|_| ()) } else { Ok(()) };
        let read = checked.and_then(|()| append(partition, header.base_offset, &raw, &mut records));
        if let Err(error) = read {
            records.retain(|record| record.offset < header.base_offset);
            return (records, Some((header.base_offset, header.last_offset(), error)));
        }
    }
    (records, None)
}

/// Neighbours of one type become one batch, which then names its type once.
fn runs(ranges: BTreeMap<i64, (i64, i8)>) -> Vec<AcknowledgementBatch> {
    let mut runs: Vec<AcknowledgementBatch> = Vec::new();
    for (first_offset, (last_offset, kind)) in ranges {
        match runs.last_mut() {
            Some(run) if run.last_offset.saturating_add(1) == first_offset && run.acknowledge_types == [kind] => {
                run.last_offset = last_offset;
            }
            _ => runs.push(AcknowledgementBatch { first_offset, last_offset, acknowledge_types: vec![kind] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, end_txn_marker, set_base_offset};

    use super::*;

    fn batch(base_offset: i64, values: usize) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None).base_offset(base_offset);
        for _ in 0..values {
            builder.append(5, None, Some(b"v"), &[]);
        }
        builder.build().unwrap()
    }

    fn marker(offset: i64) -> Bytes {
        let mut bytes = end_txn_marker(5, 1, 0, &ControlRecord::Commit { coordinator_epoch: 0 }).unwrap().to_vec();
        set_base_offset(&mut bytes, offset);
        bytes.into()
    }

    fn data(acquired: &[(i64, i64)], batches: &[Bytes]) -> PartitionData {
        let range = |(first, last): &(i64, i64)| AcquiredRecords {
            first_offset: *first,
            last_offset: *last,
            delivery_count: 1,
        };
        PartitionData {
            records: batches.concat().into(),
            acquired_records: acquired.iter().map(range).collect(),
            ..Default::default()
        }
    }

    fn take_in(held: &mut Held, data: &PartitionData) -> (Vec<i64>, bool) {
        let mut out = Vec::new();
        let ok = held.take_in(&TopicPartition::new("t", 0), data, true, &mut out).is_ok();
        (out.iter().map(|r| r.record.offset).collect(), ok)
    }

    fn shown(batches: &[AcknowledgementBatch]) -> Vec<(i64, i64, i8)> {
        batches.iter().map(|b| (b.first_offset, b.last_offset, b.acknowledge_types[0])).collect()
    }

    #[test]
    fn only_what_was_acquired_is_handed_out_and_gaps_are_acknowledged() {
        let mut held = Held::default();
        let data = data(&[(1, 2), (5, 8)], &[batch(0, 4), marker(5), batch(7, 3)]);
        assert_eq!(take_in(&mut held, &data), (vec![1, 2, 7, 8], true));
        assert_eq!(shown(&held.take_decided()), [(5, 6, 0)], "gaps need no decision");
        assert_eq!(held.undecided(), 4);
        assert!(
            held.decide(2, AckType::Release) && held.decide(7, AckType::Reject) && !held.decide(9, AckType::Accept)
        );
        held.decide_all(AckType::Accept);
        assert_eq!(shown(&held.take_decided()), [(1, 1, 1), (2, 2, 2), (7, 7, 3), (8, 8, 1)]);
        assert!(held.is_empty());
    }

    #[test]
    fn neighbours_of_one_type_are_one_run_and_renewed_records_stay() {
        let mut held = Held::default();
        take_in(&mut held, &data(&[(0, 5)], &[batch(0, 6)]));
        (0..3).for_each(|offset| assert!(held.decide(offset, AckType::Renew)));
        (3..6).for_each(|offset| assert!(held.decide(offset, AckType::Accept)));
        assert!(held.renews());
        assert_eq!(shown(&held.take_decided()), [(0, 2, 4), (3, 5, 1)]);
        assert_eq!((held.undecided(), held.renews()), (3, false));
    }

    #[test]
    fn what_cannot_be_read_is_rejected() {
        let mut damaged = batch(2, 2).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let mut held = Held::default();
        let data = data(&[(0, 3)], &[batch(0, 2), damaged.into()]);
        assert_eq!(take_in(&mut held, &data), (vec![0, 1], false));
        assert_eq!(shown(&held.take_decided()), [(2, 3, 3)]);
    }
}
