//! From the bytes of a fetch reply to records: skips what lies below the position, control batches, and (read_committed)
//! aborted transactions. The position always moves past every batch that was read, also when it yields no record, so that
//! compacted and control-only batches never stall a reader.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_wire::batch::{BatchHeader, ControlRecord, ControlType, RecordIter, batches, verify_crc};
use taccola_wire::messages::fetch_response::PartitionData;

use super::{ConsumerConfig, ConsumerRecord, IsolationLevel, Position};
use crate::error::{Error, Result};

/// Which producers are inside a transaction that aborts, at the point up to which batches were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct AbortedTransactions {
    /// First offset and producer id of aborted transactions that are still ahead.
    ahead: BinaryHeap<Reverse<(i64, i64)>>,
    inside: HashSet<i64>,
}

impl AbortedTransactions {
    /// The broker names, with each reply, all aborted transactions that touch it: producer id and first offset.
    pub(crate) fn load(&mut self, listed: impl IntoIterator<Item = (i64, i64)>) {
        self.ahead.clear();
        self.inside.clear();
        self.ahead.extend(listed.into_iter().map(|(producer_id, first)| Reverse((first, producer_id))));
    }

    /// Whether a batch belongs to an aborted transaction; call in offset order.
    pub(crate) fn hides(&mut self, header: &BatchHeader) -> bool {
        while let Some(Reverse((first_offset, producer_id))) = self.ahead.peek().copied() {
            if first_offset > header.last_offset() {
                break;
            }
            self.inside.insert(producer_id);
            self.ahead.pop();
        }
        header.is_transactional() && self.inside.contains(&header.producer_id)
    }

    pub(crate) fn ended(&mut self, producer_id: i64) {
        self.inside.remove(&producer_id);
    }
}

/// Reads one partition's data into `records` and moves its position.
pub(super) fn read(
    partition: &TopicPartition,
    position: &mut Position,
    data: PartitionData,
    config: &ConsumerConfig,
    records: &mut Vec<ConsumerRecord>,
) -> Result<()> {
    let committed_only = config.isolation == IsolationLevel::ReadCommitted;
    if committed_only {
        let listed = data.aborted_transactions.iter().flatten();
        position.aborted.load(listed.map(|t| (t.producer_id, t.first_offset)));
    }
    let Some(bytes) = data.records.filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
    let offset = position.offset;
    let failed = |offset, source| Error::Records {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        offset,
        source,
    };
    for batch in batches(&bytes) {
        let batch = batch.map_err(|source| failed(position.offset, source))?;
        let header = batch.header;
        if header.next_offset() <= position.offset {
            continue;
        }
        let raw = bytes.slice_ref(batch.bytes);
        if config.check_crcs {
            verify_crc(&raw).map_err(|source| failed(header.base_offset, source))?;
        }
        let hidden = committed_only && position.aborted.hides(&header);
        if header.is_control() {
            if committed_only && is_abort(&raw) {
                position.aborted.ended(header.producer_id);
            }
        } else if !hidden {
            append(partition, position.offset, &raw, records).map_err(|source| failed(header.base_offset, source))?;
        }
        position.offset = header.next_offset();
        position.leader_epoch = header.partition_leader_epoch;
    }
    if position.offset == offset {
        // The broker always returns at least one whole batch; anything else would stall here for ever.
        let source = taccola_wire::batch::BatchError::Truncated { need: bytes.len() + 1, have: bytes.len() };
        return Err(failed(offset, source));
    }
    Ok(())
}

pub(crate) fn is_abort(batch: &Bytes) -> bool {
    let record = RecordIter::new(batch).ok().and_then(|mut records| records.next()).and_then(|record| record.ok());
    record
        .and_then(|record| ControlRecord::decode(&record).ok())
        .is_some_and(|control| control.control_type() == ControlType::Abort)
}

pub(crate) fn append(
    partition: &TopicPartition,
    from: i64,
    batch: &Bytes,
    records: &mut Vec<ConsumerRecord>,
) -> Result<(), taccola_wire::batch::BatchError> {
    let iter = RecordIter::new(batch)?;
    let timestamp_type = iter.header().timestamp_type();
    let leader_epoch = iter.header().partition_leader_epoch;
    for record in iter {
        let record = record?;
        if record.offset < from {
            continue;
        }
        records.push(ConsumerRecord {
            topic: Arc::clone(&partition.topic),
            partition: partition.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_type,
            leader_epoch,
            key: record.key,
            value: record.value,
            headers: record.headers,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use taccola_wire::batch::{BatchBuilder, Compression, end_txn_marker};
    use taccola_wire::messages::fetch_response::AbortedTransaction;

    use super::*;

    fn position(offset: i64) -> Position {
        let aborted = AbortedTransactions::default();
        Position { offset, leader_epoch: -1, generation: 1, end: None, paused_until: None::<Instant>, aborted }
    }

    fn batch(base_offset: i64, producer: i64, values: &[&str]) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::Lz4).base_offset(base_offset);
        for value in values {
            builder.append(5, None, Some(value.as_bytes()), &[]);
        }
        let builder = if producer < 0 { builder } else { builder.producer(producer, 0, 0).transactional(true) };
        builder.build().unwrap()
    }

    fn marker(offset: i64, producer: i64, commit: bool) -> Bytes {
        let coordinator_epoch = 0;
        let control = match commit {
            true => ControlRecord::Commit { coordinator_epoch },
            false => ControlRecord::Abort { coordinator_epoch },
        };
        let mut bytes = end_txn_marker(5, producer, 0, &control).unwrap().to_vec();
        taccola_wire::batch::set_base_offset(&mut bytes, offset);
        bytes.into()
    }

    fn read_values(
        from: i64,
        isolation: IsolationLevel,
        aborted: &[(i64, i64)],
        batches: &[Bytes],
    ) -> (Vec<String>, i64) {
        let listed = |(producer_id, first_offset): &(i64, i64)| AbortedTransaction {
            producer_id: *producer_id,
            first_offset: *first_offset,
        };
        let data = PartitionData {
            records: Some(batches.concat().into()),
            aborted_transactions: Some(aborted.iter().map(listed).collect()),
            ..Default::default()
        };
        let mut position = position(from);
        let mut records = Vec::new();
        let config = ConsumerConfig { isolation, ..Default::default() };
        read(&TopicPartition::new("t", 0), &mut position, data, &config, &mut records).unwrap();
        let values = records.iter().map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned());
        (values.collect(), position.offset)
    }

    #[test]
    fn reading_starts_inside_a_batch_and_ends_behind_control_batches() {
        let batches = [batch(0, -1, &["a", "b", "c"]), marker(3, 7, true)];
        let (values, next) = read_values(1, IsolationLevel::ReadUncommitted, &[], &batches);
        assert_eq!((values, next), (vec!["b".to_owned(), "c".to_owned()], 4));
        let (values, next) = read_values(3, IsolationLevel::ReadUncommitted, &[], &batches[1..]);
        assert_eq!((values, next), (vec![], 4));
    }

    #[test]
    fn aborted_transactions_are_hidden_up_to_their_marker() {
        let batches = [
            batch(0, 1, &["aborted"]),
            batch(1, 2, &["committed"]),
            batch(2, -1, &["plain"]),
            marker(3, 1, false),
            batch(4, 1, &["later"]),
            marker(5, 1, true),
        ];
        let all = read_values(0, IsolationLevel::ReadUncommitted, &[], &batches).0;
        assert_eq!(all, ["aborted", "committed", "plain", "later"]);
        let (committed, next) = read_values(0, IsolationLevel::ReadCommitted, &[(1, 0)], &batches);
        assert_eq!((committed, next), (vec!["committed".to_owned(), "plain".to_owned(), "later".to_owned()], 6));
    }

    #[test]
    fn damage_is_an_error_and_moves_nothing() {
        let mut damaged = batch(0, -1, &["a"]).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        for records in [damaged, b"short".to_vec(), vec![0; 61]] {
            let data = PartitionData { records: Some(records.into()), ..Default::default() };
            let (mut position, mut out) = (position(0), Vec::new());
            let config = ConsumerConfig::default();
            assert!(read(&TopicPartition::new("t", 0), &mut position, data, &config, &mut out).is_err());
            assert_eq!((position.offset, out.len()), (0, 0));
        }
    }
}
