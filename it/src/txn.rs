//! Transactions as requests: a producer of either transaction version that does as it is told, and what a client in
//! read_committed delivers of a fetched partition.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, Record, RecordIter, batches};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use taccola_wire::messages::fetch_response::PartitionData;
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FetchRequest, InitProducerIdRequest,
    OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest,
};

use crate::load::Place;
use crate::requests::{fetch_request, now_ms, records_of};

/// Which protocol a producer speaks (`transaction.version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Partitions and groups are added first, and the epoch stays from one transaction to the next.
    One,
    /// KIP-890: partitions are added by being written to, and each end raises the epoch.
    Two,
}

impl Version {
    pub fn produce(self) -> i16 {
        if self == Self::One { 11 } else { 12 }
    }

    pub fn end(self) -> i16 {
        if self == Self::One { 4 } else { 5 }
    }

    pub fn commit_offsets(self) -> i16 {
        if self == Self::One { 4 } else { 5 }
    }
}

pub const READ_COMMITTED: i8 = 1;
/// Newest version of InitProducerId without two-phase commit.
pub const INIT: i16 = 5;
/// Newest version of AddPartitionsToTxn that clients send.
pub const ADD: i16 = 3;

/// Who a transactional producer is, and what its next batches carry. Requests alone: who sends them says what became of
/// them.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: String,
    pub version: Version,
    pub producer_id: i64,
    pub epoch: i16,
    pub sequences: BTreeMap<Place, i32>,
}

impl Identity {
    pub fn new(id: &str, version: Version) -> Self {
        Self { id: id.to_owned(), version, producer_id: -1, epoch: -1, sequences: BTreeMap::new() }
    }

    /// An idempotent producer without transactions.
    pub fn plain() -> Self {
        Self::new("", Version::Two)
    }

    fn transactional_id(&self) -> Option<String> {
        (!self.id.is_empty()).then(|| self.id.clone())
    }

    /// Of a producer that knows nothing: fences whoever used the id before.
    pub fn init(&self) -> InitProducerIdRequest {
        InitProducerIdRequest {
            transactional_id: self.transactional_id(),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }
    }

    /// What InitProducerId, or the end of a transaction of version 2, answered.
    pub fn is_now(&mut self, producer_id: i64, epoch: i16) {
        if (self.producer_id, self.epoch) != (producer_id, epoch) {
            (self.producer_id, self.epoch) = (producer_id, epoch);
            self.sequences.clear();
        }
    }

    pub fn add(&self, places: &BTreeSet<Place>) -> AddPartitionsToTxnRequest {
        let topics = by_topic(places.iter().map(|place| (place.clone(), place.1)));
        let topics = topics.into_iter().map(|(name, partitions)| AddPartitionsToTxnTopic { name, partitions });
        AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.clone(),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: topics.collect(),
            ..Default::default()
        }
    }

    /// One batch for each place, at the sequences that are next. They go on with [`Self::sent`].
    pub fn produce(&self, records: &BTreeMap<Place, Vec<(Bytes, Bytes)>>) -> ProduceRequest {
        let data = records.iter().map(|(place, records)| {
            let sequence = self.sequences.get(place).copied().unwrap_or(0);
            let mut builder = BatchBuilder::new(Compression::None)
                .producer(self.producer_id, self.epoch, sequence)
                .transactional(!self.id.is_empty());
            for (key, value) in records {
                builder.append(now_ms(), Some(key), Some(value), &[]);
            }
            let data = PartitionProduceData { index: place.1, records: Some(builder.build().expect("a batch")) };
            (place.clone(), data)
        });
        let topic_data = by_topic(data).into_iter().map(|(name, partition_data)| TopicProduceData {
            name,
            partition_data,
            ..Default::default()
        });
        ProduceRequest {
            transactional_id: self.transactional_id(),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: topic_data.collect(),
        }
    }

    pub fn sent(&mut self, place: &Place, records: usize) {
        *self.sequences.entry(place.clone()).or_default() += i32::try_from(records).expect("few records");
    }

    pub fn add_offsets(&self, group: &str) -> AddOffsetsToTxnRequest {
        AddOffsetsToTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            group_id: group.to_owned(),
        }
    }

    /// For nobody in particular of the group.
    pub fn commit_offset(&self, group: &str, place: &Place, offset: i64) -> TxnOffsetCommitRequest {
        let partition = TxnOffsetCommitRequestPartition {
            partition_index: place.1,
            committed_offset: offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(String::new()),
        };
        TxnOffsetCommitRequest {
            transactional_id: self.id.clone(),
            group_id: group.to_owned(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic { name: place.0.clone(), partitions: vec![partition] }],
            ..Default::default()
        }
    }

    pub fn end(&self, committed: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed,
        }
    }
}

fn by_topic<T>(rows: impl Iterator<Item = (Place, T)>) -> BTreeMap<String, Vec<T>> {
    let mut topics: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for ((topic, _), row) in rows {
        topics.entry(topic).or_default().push(row);
    }
    topics
}

/// A group's committed offset of one partition, as OffsetFetch v8 asks.
pub fn offset_fetch(group: &str, place: &Place, require_stable: bool) -> OffsetFetchRequest {
    let topics = vec![OffsetFetchRequestTopics {
        name: place.0.clone(),
        partition_indexes: vec![place.1],
        ..Default::default()
    }];
    let group = OffsetFetchRequestGroup { group_id: group.to_owned(), topics: Some(topics), ..Default::default() };
    OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() }
}

pub fn fetch_committed(place: &Place, offset: i64) -> FetchRequest {
    let mut request = fetch_request(&place.0, place.1, offset);
    request.isolation_level = READ_COMMITTED;
    request
}

/// What a client in read_committed delivers of one fetch at `from`, and where it goes on. Panics at what no client must
/// meet: data at or above the last stable offset, aborted transactions that are not sorted (trap 37).
pub fn committed_of(data: &PartitionData, from: i64) -> (Vec<Record>, i64) {
    let bytes = data.records.clone().unwrap_or_default();
    let aborted = data.aborted_transactions.clone().unwrap_or_default();
    assert!(aborted.is_sorted_by_key(|txn| txn.first_offset), "not sorted by first offset: {aborted:?}");
    let mut aborted = aborted.into_iter().peekable();
    let mut out: BTreeSet<i64> = BTreeSet::new();
    let (mut records, mut next) = (Vec::new(), from);
    for batch in batches(&bytes) {
        let batch = batch.expect("a batch");
        let header = batch.header;
        assert!(header.base_offset < data.last_stable_offset, "{header:?} at or above {}", data.last_stable_offset);
        while let Some(txn) = aborted.next_if(|txn| txn.first_offset <= header.last_offset()) {
            out.insert(txn.producer_id);
        }
        if header.is_control() {
            let whole = bytes.slice_ref(batch.bytes);
            let first = RecordIter::new(&whole).expect("a control batch").next().expect("a record").expect("a record");
            if matches!(ControlRecord::decode(&first), Ok(ControlRecord::Abort { .. })) {
                out.remove(&header.producer_id);
            }
        } else if !(header.is_transactional() && out.contains(&header.producer_id)) {
            let one = PartitionData { records: Some(bytes.slice_ref(batch.bytes)), ..data.clone() };
            records.extend(records_of(&one, from));
        }
        next = next.max(header.next_offset());
    }
    (records, next)
}

/// Whether the coordinator, or the partition, asks for patience.
pub fn wait(error: ErrorCode) -> bool {
    error == ErrorCode::ConcurrentTransactions
        || error == ErrorCode::UnstableOffsetCommit
        || error == ErrorCode::KafkaStorageError
        || error.retriable()
}
