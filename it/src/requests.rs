//! Requests that many tests send, with what they never vary filled in.

use bytes::Bytes;
use taccola_wire::batch::{BatchBuilder, Compression, Record, RecordIter, batches, verify_crc};
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use taccola_wire::messages::fetch_response::PartitionData;
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use taccola_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::produce_response::PartitionProduceResponse;
use taccola_wire::messages::{
    CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest,
};

use crate::conn::Conn;
use taccola_base::Uuid;

/// Newest versions that name topics instead of numbering them.
pub const PRODUCE: i16 = 12;
pub const FETCH: i16 = 12;
pub const CREATE_TOPICS: i16 = 7;
pub const LIST_OFFSETS: i16 = 10;

/// One batch with these values, uncompressed, without producer id.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.append(now_ms(), None, Some(value.as_bytes()), &[]);
    }
    builder.build().expect("a batch")
}

pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("before the year 292 million")
}

/// Creates a topic; the code, and the topic's id.
pub fn create_topic(conn: &mut Conn, name: &str, partitions: i32, configs: &[(&str, &str)]) -> (i16, Uuid) {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig { name: (*name).to_owned(), value: Some((*value).to_owned()) })
        .collect();
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let response = conn.ask(&request, CREATE_TOPICS);
    let result = response.topics.first().expect("one result per topic");
    (result.error_code, result.topic_id)
}

/// A topic that must come into being.
#[track_caller]
pub fn new_topic(conn: &mut Conn, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
    let (code, id) = create_topic(conn, name, partitions, configs);
    assert_eq!(code, 0, "CreateTopics {name}");
    id
}

pub fn produce_request(acks: i16, topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(records) };
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData { name: topic.to_owned(), partition_data: vec![data], ..Default::default() }],
        ..Default::default()
    }
}

/// Produces one batch with acks=all.
pub fn produce(conn: &mut Conn, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
    let response = conn.ask(&produce_request(-1, topic, partition, records), PRODUCE);
    let topic = response.responses.into_iter().next().expect("one topic");
    topic.partition_responses.into_iter().next().expect("one partition")
}

/// The same where it must succeed; the base offset.
#[track_caller]
pub fn produced(conn: &mut Conn, topic: &str, partition: i32, records: Bytes) -> i64 {
    let response = produce(conn, topic, partition, records);
    assert_eq!(response.error_code, 0, "{response:?}");
    response.base_offset
}

pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 8 << 20,
        session_id: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                current_leader_epoch: -1,
                fetch_offset: offset,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: 8 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// One fetch without a session and without waiting.
pub fn fetch(conn: &mut Conn, topic: &str, partition: i32, offset: i64) -> PartitionData {
    let response = conn.ask(&fetch_request(topic, partition, offset), FETCH);
    assert_eq!(response.error_code, 0);
    let topic = response.responses.into_iter().next().expect("one topic");
    topic.partitions.into_iter().next().expect("one partition")
}

/// All records of a fetched partition from `offset` on, control batches left out, each batch's checksum verified.
pub fn records_of(data: &PartitionData, offset: i64) -> Vec<Record> {
    let bytes = data.records.clone().unwrap_or_default();
    let mut records = Vec::new();
    for batch in batches(&bytes) {
        let batch = batch.expect("a batch");
        verify_crc(batch.bytes).expect("the batch's checksum");
        if !batch.header.is_control() {
            let whole = bytes.slice_ref(batch.bytes);
            for record in RecordIter::new(&whole).expect("a batch that can be read") {
                let record = record.expect("a record that can be read");
                if record.offset >= offset {
                    records.push(record);
                }
            }
        }
    }
    records
}

/// What a partition holds from some offset to its high watermark.
#[derive(Debug, Default)]
pub struct Log {
    pub records: Vec<Record>,
    /// Leader epochs and where they begin, as the batches say.
    pub epochs: Vec<(i32, i64)>,
    pub bytes: usize,
    pub end: i64,
}

/// Reads a partition from `offset` to its high watermark.
pub fn read_all(conn: &mut Conn, topic: &str, partition: i32, offset: i64) -> Vec<Record> {
    read_log(conn, topic, partition, offset).unwrap_or_else(|error| panic!("{error}")).records
}

/// The same with what the batches say besides; an error of the broker says where it came.
pub fn read_log(conn: &mut Conn, topic: &str, partition: i32, offset: i64) -> Result<Log, String> {
    let (mut next, mut log) = (offset, Log::default());
    loop {
        let data = fetch(conn, topic, partition, next);
        if data.error_code != 0 {
            return Err(format!("fetch of {topic}-{partition} at {next}: error {}", data.error_code));
        }
        let records = records_of(&data, next);
        let bytes = data.records.clone().unwrap_or_default();
        let mut last = None;
        for batch in batches(&bytes).flatten() {
            last = Some(batch.header.next_offset());
            let epoch = batch.header.partition_leader_epoch;
            if log.epochs.last().is_none_or(|(known, _)| *known != epoch) {
                log.epochs.push((epoch, batch.header.base_offset.max(offset)));
            }
        }
        log.bytes += bytes.len();
        log.records.extend(records);
        match last {
            Some(end) if end > next => next = end,
            _ => {
                assert_eq!(next, data.high_watermark, "{topic}-{partition}: nothing at {next}");
                log.end = next;
                return Ok(log);
            }
        }
    }
}

/// Leader epoch and end offset that OffsetForLeaderEpoch answers.
pub fn epoch_end(conn: &mut Conn, topic: &str, partition: i32, leader_epoch: i32) -> (i32, i64) {
    let partition = OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch };
    let topic = OffsetForLeaderTopic { topic: topic.to_owned(), partitions: vec![partition] };
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
    let found = &conn.ask(&request, 4).topics[0].partitions[0];
    assert_eq!(found.error_code, 0, "{found:?}");
    (found.leader_epoch, found.end_offset)
}

/// Offset and timestamp for a ListOffsets timestamp (-1 latest, -2 earliest, …), with the code.
pub fn list_offset(conn: &mut Conn, topic: &str, partition: i32, timestamp: i64) -> (i16, i64, i64) {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp }],
        }],
        ..Default::default()
    };
    let response = conn.ask(&request, LIST_OFFSETS);
    let topic = response.topics.into_iter().next().expect("one topic");
    let found = topic.partitions.into_iter().next().expect("one partition");
    (found.error_code, found.offset, found.timestamp)
}

/// The leader epoch that ListOffsets tells with the earliest offset.
pub fn leader_epoch_at_start(conn: &mut Conn, topic: &str, partition: i32) -> i32 {
    let partition = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp: -2 };
    let topic = ListOffsetsTopic { name: topic.to_owned(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    conn.ask(&request, LIST_OFFSETS).topics[0].partitions[0].leader_epoch
}

/// A fresh producer id and epoch.
pub fn init_producer(conn: &mut Conn) -> std::io::Result<Result<(i64, i16), i16>> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let response = conn.call(&request, 4)?;
    Ok(match response.error_code {
        0 => Ok((response.producer_id, response.producer_epoch)),
        code => Err(code),
    })
}

/// Names of all topics.
pub fn topics(conn: &mut Conn) -> Vec<String> {
    let request = MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() };
    conn.ask(&request, 12).topics.into_iter().filter_map(|topic| topic.name).collect()
}
