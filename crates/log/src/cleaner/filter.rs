//! What stays of one batch. Answers to Kafka's `Cleaner.shouldRetainRecord`, `checkBatchRetention` and
//! `MemoryRecords.filterTo`.

use std::collections::HashMap;

use bytes::Bytes;
use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, RecordWalker, TimestampType, max_decompressed,
};

use super::ProducerLast;
use super::offset_map::OffsetMap;
use super::transactions::TransactionTracker;

pub(super) struct BatchFilter<'a> {
    pub(super) map: &'a OffsetMap,
    pub(super) producers: &'a HashMap<i64, ProducerLast>,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
}

pub(super) enum Filtered {
    /// The batch as it is.
    Keep,
    Drop {
        records: u64,
    },
    Rewrite {
        batch: Bytes,
        records: u64,
        retained: u64,
        without_key: u64,
    },
    /// The batch as it is: its records cannot be read.
    Undecodable,
}

/// What a look at the records of a batch found.
#[derive(Default)]
struct Survey {
    /// Per record.
    retained: Vec<bool>,
    without_key: u64,
    tombstones: bool,
}

impl BatchFilter<'_> {
    pub(super) fn apply(&self, header: &BatchHeader, batch: &[u8], transactions: &mut TransactionTracker) -> Filtered {
        let unneeded = transactions.sees(header, batch);
        let horizon_ms = header.delete_horizon_ms();
        let discard = match header.is_control() {
            true => unneeded && horizon_ms.is_some_and(|at| at <= self.now_ms),
            false => unneeded,
        };
        let Ok(survey) = self.survey(header, batch, discard) else { return Filtered::Undecodable };
        let records = survey.retained.len() as u64;
        let retained = survey.retained.iter().filter(|retained| **retained).count() as u64;
        // A batch without records stays for its producer's sequence, or because it ends the round.
        let keep_empty = self.holds_last_of_producer(header) || header.next_offset() == self.map.end_offset;
        if retained == 0 {
            return match keep_empty {
                false => Filtered::Drop { records },
                true if records == 0 => Filtered::Keep,
                true => rewritten(empty(header), records, 0, survey.without_key),
            };
        }
        let marker_of_nothing = header.is_control() && unneeded;
        let needs_horizon = horizon_ms.is_none() && (survey.tombstones || marker_of_nothing);
        if retained == records && !needs_horizon {
            return Filtered::Keep;
        }
        let horizon_ms = match needs_horizon {
            true => Some(self.now_ms.saturating_add(self.delete_retention_ms)),
            false => horizon_ms,
        };
        rewritten(rewrite(header, batch, &survey.retained, horizon_ms), records, retained, survey.without_key)
    }

    fn survey(&self, header: &BatchHeader, batch: &[u8], discard: bool) -> Result<Survey, BatchError> {
        let mut survey = Survey::default();
        let mut records = RecordWalker::new(batch, max_decompressed(batch.len()))?;
        while let Some(record) = records.next_record() {
            let record = record?;
            if discard || header.is_control() {
                survey.retained.push(!discard);
                continue;
            }
            let offset = record.offset(header);
            let retained = match record.key {
                _ if offset >= self.map.end_offset => true,
                None => {
                    survey.without_key += 1;
                    false
                }
                Some(key) => {
                    let is_last = self.map.get(key).is_none_or(|last| {
                        offset >= last + i64::from(planted(Bug::CompactionDropsLiveKey))
                            || planted(Bug::CompactionKeepsOldValue)
                    });
                    let expired =
                        !planted(Bug::TombstoneKept) && header.delete_horizon_ms().is_some_and(|at| self.now_ms >= at);
                    is_last && (record.value.is_some() || !expired)
                }
            };
            survey.tombstones |= retained && record.value.is_none();
            survey.retained.push(retained);
        }
        Ok(survey)
    }

    /// Whether the batch is the last that its producer wrote.
    fn holds_last_of_producer(&self, header: &BatchHeader) -> bool {
        let Some(last) = self.producers.get(&header.producer_id).filter(|_| header.has_producer_id()) else {
            return false;
        };
        match last.last_data_offset {
            Some(offset) => !header.is_control() && header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.producer_epoch,
        }
    }
}

fn rewritten(batch: Result<Bytes, BatchError>, records: u64, retained: u64, without_key: u64) -> Filtered {
    match batch {
        Ok(batch) => Filtered::Rewrite { batch, records, retained, without_key },
        Err(_) => Filtered::Undecodable,
    }
}

/// A builder with everything that a batch says besides its records.
fn like(header: &BatchHeader, compression: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression)
        .base_offset(header.base_offset)
        .partition_leader_epoch(header.partition_leader_epoch)
        .producer(header.producer_id, header.producer_epoch, header.base_sequence)
        .transactional(header.is_transactional())
        .control(header.is_control())
        .last_offset_delta(header.last_offset_delta);
    if header.timestamp_type() == TimestampType::LogAppendTime {
        builder = builder.log_append_time(header.max_timestamp);
    }
    builder
}

/// Kafka says of a batch without records that it is not compressed.
fn empty(header: &BatchHeader) -> Result<Bytes, BatchError> {
    like(header, Compression::None).max_timestamp_if_empty(header.max_timestamp).build()
}

fn rewrite(
    header: &BatchHeader,
    batch: &[u8],
    retained: &[bool],
    horizon_ms: Option<i64>,
) -> Result<Bytes, BatchError> {
    let mut builder = like(header, header.compression()?);
    if let Some(at_ms) = horizon_ms {
        builder = builder.delete_horizon(at_ms);
    }
    let mut records = RecordWalker::new(batch, max_decompressed(batch.len()))?;
    for keep in retained {
        let Some(record) = records.next_record() else { break };
        let record = record?;
        if *keep {
            builder.append_view_at(record.offset_delta, record.timestamp(header), &record);
        }
    }
    builder.build()
}
