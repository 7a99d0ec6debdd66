//! From a batch as it was stored to one that a broker takes from a client. Pure.
//!
//! What is kept: records in their order, with key, value, headers, timestamp, and the batch's compression. What cannot be
//! kept, because no client may write it: offsets, producer ids, sequences, the transactional bit, the leader epoch, and gaps
//! between records. A batch that a broker would take as it is keeps its records' bytes; others are written anew:
//!
//! - with gaps inside (compaction), as clients number records without gaps;
//! - with a part outside of the wanted offsets;
//! - with the broker's time (LogAppendTime), which clients may not claim: each record gets that time as its own;
//! - with a delete horizon in the place of the base timestamp.

use std::ops::Range;

use bytes::Bytes;
use taccola_wire::batch::{
    Attributes, BatchBuilder, BatchError, BatchHeader, RecordIter, TimestampType, set_attributes, verify_crc,
};

/// What is sent for one stored batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Base offset, leader epoch and producer are still to be set.
    pub bytes: Vec<u8>,
    pub offsets: SourceOffsets,
}

/// Which offsets the records had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOffsets {
    /// So many from the first on, without gaps.
    Dense { first: i64, count: i64 },
    /// One by one, increasing.
    Listed(Vec<i64>),
}

impl SourceOffsets {
    pub fn count(&self) -> i64 {
        match self {
            Self::Dense { count, .. } => *count,
            Self::Listed(offsets) => i64::try_from(offsets.len()).unwrap_or(i64::MAX),
        }
    }

    /// Inclusive; -1 if there is none.
    pub fn last(&self) -> i64 {
        match self {
            Self::Dense { first, count } => first.saturating_add(*count).saturating_sub(1),
            Self::Listed(offsets) => offsets.last().copied().unwrap_or(-1),
        }
    }

    /// How many of the records lie before an offset.
    pub fn before(&self, offset: i64) -> i64 {
        match self {
            Self::Dense { first, count } => offset.saturating_sub(*first).clamp(0, *count),
            Self::Listed(offsets) => {
                i64::try_from(offsets.partition_point(|known| *known < offset)).unwrap_or(i64::MAX)
            }
        }
    }
}

/// The records of a stored batch inside `window`; `None` when there are none. The stored CRC is checked.
pub fn outgoing(batch: &Bytes, window: &Range<i64>) -> Result<Option<Outgoing>, BatchError> {
    let header = verify_crc(batch)?;
    let covered = header.base_offset..header.next_offset();
    if header.is_control() || header.records_count <= 0 || covered.end <= window.start || covered.start >= window.end {
        return Ok(None);
    }
    let dense = i64::from(header.records_count) == i64::from(header.last_offset_delta) + 1;
    let inside = window.start <= covered.start && covered.end <= window.end;
    let own_times = header.timestamp_type() == TimestampType::CreateTime && header.delete_horizon_ms().is_none();
    match dense && inside && own_times {
        true => as_it_is(batch, &header).map(Some),
        false => anew(batch, &header, window),
    }
}

fn as_it_is(batch: &Bytes, header: &BatchHeader) -> Result<Outgoing, BatchError> {
    let mut bytes = batch.get(..header.size_bytes()).unwrap_or_default().to_vec();
    set_attributes(&mut bytes, Attributes::default().with_compression(header.compression()?))?;
    let offsets = SourceOffsets::Dense { first: header.base_offset, count: i64::from(header.records_count) };
    Ok(Outgoing { bytes, offsets })
}

fn anew(batch: &Bytes, header: &BatchHeader, window: &Range<i64>) -> Result<Option<Outgoing>, BatchError> {
    let mut builder = BatchBuilder::new(header.compression()?);
    let mut offsets = Vec::new();
    for record in RecordIter::new(batch)? {
        let record = record?;
        if window.contains(&record.offset) {
            builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers);
            offsets.push(record.offset);
        }
    }
    let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { return Ok(None) };
    let count = i64::from(builder.records_count());
    let offsets = match last - first + 1 == count {
        true => SourceOffsets::Dense { first, count },
        false => SourceOffsets::Listed(offsets),
    };
    Ok(Some(Outgoing { bytes: builder.build()?.to_vec(), offsets }))
}

/// Where committed offsets of one partition point after a restore: to the same next record. Fed with what was written, in
/// order.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// Wanted source offsets, increasing; the first `done.len()` of them are known.
    wanted: Vec<i64>,
    done: Vec<i64>,
}

impl Translation {
    pub fn new(wanted: impl IntoIterator<Item = i64>) -> Self {
        let mut wanted: Vec<i64> = wanted.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        Self { wanted, done: Vec::new() }
    }

    /// These records stand at `target` and behind now.
    pub fn written(&mut self, offsets: &SourceOffsets, target: i64) {
        while let Some(wanted) = self.wanted.get(self.done.len()).filter(|wanted| **wanted <= offsets.last()) {
            self.done.push(target.saturating_add(offsets.before(*wanted)));
        }
    }

    /// Nothing follows: offsets behind the last record point to the end of the log.
    pub fn finish(mut self, end: i64) -> impl Iterator<Item = (i64, i64)> {
        self.done.resize(self.wanted.len(), end);
        self.wanted.into_iter().zip(self.done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taccola_wire::batch::{Compression, RecordHeader, set_base_offset};

    use super::*;

    const ALL: Range<i64> = 0..i64::MAX;

    type Plain = (i64, Option<Bytes>, Option<Bytes>, Vec<RecordHeader>);

    fn records(batch: &[u8]) -> Vec<Plain> {
        let batch = Bytes::copy_from_slice(batch);
        RecordIter::new(&batch).unwrap().map(Result::unwrap).map(|r| (r.timestamp, r.key, r.value, r.headers)).collect()
    }

    #[test]
    fn a_plain_batch_keeps_its_bytes() {
        let mut builder = BatchBuilder::new(Compression::Zstd).base_offset(100).producer(5, 6, 7).transactional(true);
        builder.append(1, None, Some(b""), &[]).append(2, Some(b"k"), None, &[]);
        let batch = builder.build().unwrap();
        let out = outgoing(&batch, &ALL).unwrap().unwrap();
        assert_eq!(out.bytes[61..], batch[61..]);
        assert_eq!(out.offsets, SourceOffsets::Dense { first: 100, count: 2 });
        assert!(!verify_crc(&out.bytes).unwrap().is_transactional());
    }

    #[test]
    fn the_brokers_time_becomes_each_records_own() {
        let mut builder = BatchBuilder::new(Compression::None).base_offset(3).log_append_time(99);
        builder.append(1, None, Some(b"a"), &[]).append(2, None, Some(b"b"), &[]);
        let out = outgoing(&builder.build().unwrap(), &ALL).unwrap().unwrap();
        assert!(records(&out.bytes).iter().all(|record| record.0 == 99));
        assert_eq!(verify_crc(&out.bytes).unwrap().timestamp_type(), TimestampType::CreateTime);
    }

    #[test]
    fn control_batches_and_what_lies_outside_are_left_out() {
        let mut builder = BatchBuilder::new(Compression::None).base_offset(10);
        (0..4).for_each(|n: i64| {
            builder.append(n, None, Some(&[n as u8]), &[]);
        });
        let batch = builder.build().unwrap();
        assert_eq!(outgoing(&batch, &(0..10)).unwrap(), None);
        assert_eq!(outgoing(&batch, &(14..20)).unwrap(), None);
        let out = outgoing(&batch, &(11..13)).unwrap().unwrap();
        assert_eq!(out.offsets, SourceOffsets::Dense { first: 11, count: 2 });
        assert_eq!(records(&out.bytes).iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2]);
        let control = taccola_wire::batch::ControlRecord::Commit { coordinator_epoch: 0 };
        let marker = taccola_wire::batch::end_txn_marker(1, 2, 3, &control).unwrap();
        assert_eq!(outgoing(&marker, &ALL).unwrap(), None);
    }

    /// A log as compaction and transactions leave it: batches of records at increasing offsets with gaps everywhere.
    fn logs() -> impl Strategy<Value = Vec<Bytes>> {
        let gaps = prop::collection::vec(prop_oneof![3 => Just(0_i32), 1 => 1..5], 1..6);
        prop::collection::vec((0_i64..4, gaps, 0_i32..3, prop::sample::select(vec![0_u8, 1, 2, 3, 4])), 0..8).prop_map(
            |batches| {
                let mut next = 0;
                let mut log = Vec::new();
                for (skip, gaps, tail, codec) in batches {
                    let mut builder = BatchBuilder::new(Compression::from_id(codec).unwrap()).base_offset(next + skip);
                    let mut delta = -1;
                    for gap in gaps {
                        delta += 1 + gap;
                        let offset = (next + skip + i64::from(delta)).to_be_bytes();
                        builder.append_at(delta, 1000 + i64::from(delta), None, Some(&offset), &[]);
                    }
                    let batch = builder.last_offset_delta(delta + tail).build().unwrap();
                    next = BatchHeader::parse(&batch).unwrap().next_offset();
                    log.push(batch);
                }
                log
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Against a naive model: the records in the window, one after the other; an offset's translation is the place of the
        /// first record that is not before it.
        #[test]
        fn restored_records_and_offsets_match_a_model(log in logs(), start in 0_i64..20, length in 0_i64..60, base in 0_i64..5) {
            let window = start..start + length;
            let mut model = Vec::new();
            let mut target = Vec::new();
            let mut translation = Translation::new(start..=start + length);
            let mut next = base;
            for batch in &log {
                for record in RecordIter::new(batch).unwrap().map(Result::unwrap) {
                    if window.contains(&record.offset) {
                        model.push((record.offset, record.timestamp, record.value));
                    }
                }
                if let Some(mut out) = outgoing(batch, &window).unwrap() {
                    set_base_offset(&mut out.bytes, next);
                    let header = verify_crc(&out.bytes).unwrap();
                    prop_assert_eq!(i64::from(header.records_count), out.offsets.count());
                    prop_assert_eq!(header.last_offset_delta + 1, header.records_count);
                    translation.written(&out.offsets, next);
                    next += out.offsets.count();
                    let bytes = Bytes::from(out.bytes);
                    target.extend(RecordIter::new(&bytes).unwrap().map(Result::unwrap));
                }
            }
            prop_assert_eq!(target.len(), model.len());
            for (at, (record, (_, timestamp, value))) in target.iter().zip(&model).enumerate() {
                prop_assert_eq!(record.offset, base + at as i64);
                prop_assert_eq!(record.timestamp, *timestamp);
                prop_assert_eq!(&record.value, value);
            }
            for (wanted, found) in translation.finish(next) {
                let place = model.iter().position(|record| record.0 >= wanted).unwrap_or(model.len());
                prop_assert_eq!(found, base + place as i64, "offset {}", wanted);
            }
        }
    }
}
