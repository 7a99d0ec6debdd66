//! Transactions over the wire: both transaction versions, fencing, timeouts, verification, offsets in transactions, what
//! readers see, and all of it across restarts and kills. The numbers of traps are those of the compatibility list.

use std::time::{Duration, Instant};

use taccola_it::conn::Conn;
use taccola_it::requests::{fetch_request, new_topic, now_ms, records_of};
use taccola_it::{Broker, eventually};
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use taccola_wire::messages::describe_producers_request::TopicRequest;
use taccola_wire::messages::fetch_response::PartitionData;
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use taccola_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest,
    ListTransactionsRequest, OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};

/// The last version of Produce of transaction version 1, and of EndTxn.
const PRODUCE_V1: i16 = 11;
const END_V1: i16 = 4;
const PRODUCE_V2: i16 = 12;
const END_V2: i16 = 5;
const READ_COMMITTED: i8 = 1;

/// A transactional producer that does as it is told.
#[derive(Clone, Debug)]
struct Producer {
    id: String,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

impl Producer {
    /// With the coordinator found and the id initialized, waiting for what the last user left.
    fn new(conn: &mut Conn, id: &str) -> Self {
        Self::with_timeout(conn, id, 60_000)
    }

    fn with_timeout(conn: &mut Conn, id: &str, timeout_ms: i32) -> Self {
        find_coordinator(conn, id);
        let response = eventually("InitProducerId", || {
            let response = conn.ask(&init_request(id, timeout_ms), 5);
            let again = [ErrorCode::ConcurrentTransactions, ErrorCode::CoordinatorLoadInProgress];
            (!again.contains(&code(response.error_code))).then_some(response)
        });
        assert_eq!(code(response.error_code), ErrorCode::None);
        Self { id: id.to_owned(), producer_id: response.producer_id, epoch: response.producer_epoch, sequence: 0 }
    }

    fn produce_request(&self, topic: &str, partition: i32, sequence: i32, values: &[&str]) -> ProduceRequest {
        let mut builder =
            BatchBuilder::new(Compression::None).producer(self.producer_id, self.epoch, sequence).transactional(true);
        for value in values {
            builder.append(now_ms(), None, Some(value.as_bytes()), &[]);
        }
        let data = PartitionProduceData { index: partition, records: Some(builder.build().expect("a batch")) };
        ProduceRequest {
            transactional_id: Some(self.id.clone()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: topic.to_owned(),
                partition_data: vec![data],
                ..Default::default()
            }],
        }
    }

    /// One batch; the sequence goes on if it was taken.
    fn produce(&mut self, conn: &mut Conn, version: i16, topic: &str, partition: i32, values: &[&str]) -> ErrorCode {
        let request = self.produce_request(topic, partition, self.sequence, values);
        let error = produced(&conn.ask(&request, version));
        if error == ErrorCode::None {
            self.sequence += values.len() as i32;
        }
        error
    }

    fn add(&self, conn: &mut Conn, topic: &str, partitions: &[i32]) -> Vec<ErrorCode> {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.clone(),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: topic.to_owned(),
                partitions: partitions.to_vec(),
            }],
            ..Default::default()
        };
        let response = conn.ask(&request, 3);
        let rows = response.results_by_topic_v3_and_below.into_iter().flat_map(|t| t.results_by_partition);
        rows.map(|row| code(row.partition_error_code)).collect()
    }

    /// The same, waiting for the end of the last transaction.
    #[track_caller]
    fn added(&self, conn: &mut Conn, topic: &str, partitions: &[i32]) {
        let errors = eventually("AddPartitionsToTxn", || {
            let errors = self.add(conn, topic, partitions);
            (!errors.contains(&ErrorCode::ConcurrentTransactions)).then_some(errors)
        });
        assert!(errors.iter().all(|error| *error == ErrorCode::None), "{errors:?}");
    }

    fn end(&mut self, conn: &mut Conn, version: i16, committed: bool) -> ErrorCode {
        let (producer_id, producer_epoch) = (self.producer_id, self.epoch);
        let request = EndTxnRequest { transactional_id: self.id.clone(), producer_id, producer_epoch, committed };
        let response = conn.ask(&request, version);
        let error = code(response.error_code);
        if error == ErrorCode::None && version >= END_V2 {
            (self.producer_id, self.epoch, self.sequence) = (response.producer_id, response.producer_epoch, 0);
        }
        error
    }
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

fn produced(response: &taccola_wire::messages::ProduceResponse) -> ErrorCode {
    code(response.responses[0].partition_responses[0].error_code)
}

fn init_request(id: &str, timeout_ms: i32) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: timeout_ms,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}

fn find_coordinator(conn: &mut Conn, id: &str) {
    let request = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.to_owned()], ..Default::default() };
    eventually("the transaction coordinator", || {
        let response = conn.ask(&request, 4);
        (response.coordinators[0].error_code == 0).then_some(())
    });
}

fn fetch_committed(conn: &mut Conn, topic: &str, partition: i32, offset: i64) -> PartitionData {
    let mut request = fetch_request(topic, partition, offset);
    request.isolation_level = READ_COMMITTED;
    let response = conn.ask(&request, 12);
    response.responses.into_iter().next().expect("one topic").partitions.into_iter().next().expect("one partition")
}

/// What a client in read_committed delivers: records below the last stable offset without those of aborted transactions.
fn committed(conn: &mut Conn, topic: &str, partition: i32) -> Vec<String> {
    let (mut offset, mut values) = (0, Vec::new());
    loop {
        let data = fetch_committed(conn, topic, partition, offset);
        assert_eq!(data.error_code, 0);
        let bytes = data.records.clone().unwrap_or_default();
        let aborted = data.aborted_transactions.clone().expect("a list under read_committed");
        assert!(aborted.is_sorted_by_key(|txn| txn.first_offset), "sorted by first offset (trap 37)");
        let mut aborted = aborted.into_iter().peekable();
        let mut out: Vec<i64> = Vec::new();
        let before = offset;
        for batch in taccola_wire::batch::batches(&bytes) {
            let batch = batch.expect("a batch");
            let header = batch.header;
            assert!(header.base_offset < data.last_stable_offset, "nothing at or above the last stable offset");
            while let Some(txn) = aborted.next_if(|txn| txn.first_offset <= header.last_offset()) {
                out.push(txn.producer_id);
            }
            if header.is_control() {
                let whole = bytes.slice_ref(batch.bytes);
                let record = taccola_wire::batch::RecordIter::new(&whole).unwrap().next().unwrap().unwrap();
                if matches!(
                    taccola_wire::batch::ControlRecord::decode(&record),
                    Ok(taccola_wire::batch::ControlRecord::Abort { .. })
                ) {
                    out.retain(|id| *id != header.producer_id);
                }
            } else if !(header.is_transactional() && out.contains(&header.producer_id)) {
                let one = PartitionData { records: Some(bytes.slice_ref(batch.bytes)), ..data.clone() };
                let records = records_of(&one, offset);
                values.extend(records.iter().map(|r| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap()));
            }
            offset = header.next_offset();
        }
        if offset == before {
            return values;
        }
    }
}

fn latest(conn: &mut Conn, topic: &str, isolation_level: i8) -> i64 {
    let partition = ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp: -1 };
    let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics, ..Default::default() };
    conn.ask(&request, 10).topics[0].partitions[0].offset
}

/// Waits until everything of the partition is decided.
fn settled(conn: &mut Conn, topic: &str, partition: i32) {
    eventually("the last stable offset at the end", || {
        let data = fetch_committed(conn, topic, partition, 0);
        (data.last_stable_offset == data.high_watermark).then_some(())
    });
}

fn start() -> (Broker, Conn) {
    start_with(&[])
}

fn start_with(properties: &[&str]) -> (Broker, Conn) {
    let mut all = vec!["transaction.state.log.num.partitions=3", "offsets.topic.num.partitions=3"];
    all.extend(properties);
    let broker = Broker::start(&all);
    let mut conn = Conn::connect(broker.port).expect("a connection");
    new_topic(&mut conn, "t", 2, &[]);
    (broker, conn)
}

#[test]
fn transaction_version_2_is_finalized() {
    let (_broker, mut conn) = start();
    let request = ApiVersionsRequest {
        client_software_name: "it".into(),
        client_software_version: "1".into(),
        ..Default::default()
    };
    let response = conn.ask(&request, 4);
    let row = response.finalized_features.iter().find(|f| f.name == "transaction.version").expect("the feature");
    assert_eq!((row.min_version_level, row.max_version_level), (2, 2));
}

#[test]
fn trap_44_version_1_readers_see_what_is_committed_and_the_latest_offset_is_the_stable_one() {
    let (_broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "v1");
    p.added(&mut conn, "t", &[0]);
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["a", "b"]), ErrorCode::None);
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["c"]), ErrorCode::None);
    assert_eq!((latest(&mut conn, "t", 0), latest(&mut conn, "t", READ_COMMITTED)), (3, 0));
    assert!(committed(&mut conn, "t", 0).is_empty());
    assert_eq!(p.end(&mut conn, END_V1, true), ErrorCode::None);
    settled(&mut conn, "t", 0);
    // The marker takes an offset and is never delivered (trap 39).
    assert_eq!((latest(&mut conn, "t", 0), latest(&mut conn, "t", READ_COMMITTED)), (4, 4));
    assert_eq!(committed(&mut conn, "t", 0), ["a", "b", "c"]);
    p.added(&mut conn, "t", &[0]);
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["d"]), ErrorCode::None);
    assert_eq!(p.end(&mut conn, END_V1, false), ErrorCode::None);
    assert!(matches!(p.end(&mut conn, END_V1, false), ErrorCode::None | ErrorCode::ConcurrentTransactions), "a retry");
    settled(&mut conn, "t", 0);
    assert_eq!(p.end(&mut conn, END_V1, true), ErrorCode::InvalidTxnState, "trap 51: it was aborted");
    assert_eq!(committed(&mut conn, "t", 0), ["a", "b", "c"]);
}

#[test]
fn trap_40_an_abort_without_data_hides_nothing() {
    let (_broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "empty");
    p.added(&mut conn, "t", &[0, 1]);
    assert_eq!(p.end(&mut conn, END_V1, false), ErrorCode::None);
    p.added(&mut conn, "t", &[0]);
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["later"]), ErrorCode::None);
    assert_eq!(p.end(&mut conn, END_V1, true), ErrorCode::None);
    settled(&mut conn, "t", 0);
    assert_eq!(committed(&mut conn, "t", 0), ["later"]);
    assert!(fetch_committed(&mut conn, "t", 0, 0).aborted_transactions.unwrap().is_empty());
}

#[test]
fn trap_50_version_2_bumps_the_epoch_and_shuts_out_the_last() {
    let (_broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "v2");
    let first = p.clone();
    assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", 0, &["a"]), ErrorCode::None, "added by the broker");
    let before_end = p.clone();
    assert_eq!(p.end(&mut conn, END_V2, true), ErrorCode::None);
    assert_eq!((p.producer_id, p.epoch), (first.producer_id, first.epoch + 1));
    let mut retry = before_end;
    let retried = eventually("the retry of EndTxn", || match retry.end(&mut conn, END_V2, true) {
        ErrorCode::ConcurrentTransactions => None,
        error => Some(error),
    });
    assert_eq!((retried, retry.epoch), (ErrorCode::None, p.epoch), "the same answer");
    settled(&mut conn, "t", 0);
    // A batch that was on its way when the transaction ended: its epoch is looked at before its verification.
    let mut late = first;
    late.sequence = 1;
    assert_eq!(late.produce(&mut conn, PRODUCE_V2, "t", 0, &["late"]), ErrorCode::InvalidProducerEpoch);
    assert_eq!(late.produce(&mut conn, PRODUCE_V2, "t", 1, &["late"]), ErrorCode::InvalidProducerEpoch);
    // Nothing to commit; an abort of nothing is fine and bumps.
    assert_eq!(p.end(&mut conn, END_V2, true), ErrorCode::InvalidTxnState);
    let epoch = p.epoch;
    assert_eq!(p.end(&mut conn, END_V2, false), ErrorCode::None);
    assert_eq!(p.epoch, epoch + 1);
    for (round, commit) in [true, false, true].into_iter().enumerate() {
        let value = format!("{round}");
        for partition in 0..2 {
            p.sequence = 0;
            assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", partition, &[&value]), ErrorCode::None);
        }
        assert_eq!(p.end(&mut conn, END_V2, commit), ErrorCode::None);
    }
    for partition in 0..2 {
        settled(&mut conn, "t", partition);
    }
    assert_eq!(committed(&mut conn, "t", 0), ["a", "0", "2"]);
    assert_eq!(committed(&mut conn, "t", 1), ["0", "2"]);
}

#[test]
fn pipelined_batches_of_a_transaction_keep_their_order() {
    let (_broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "pipe");
    for round in 0..5 {
        let mut ids = Vec::new();
        for (sequence, partition) in (0..20).flat_map(|sequence| [(sequence, 0), (sequence, 1)]) {
            let value = format!("{round}-{sequence}");
            let request = p.produce_request("t", partition, sequence, &[&value]);
            ids.push(conn.send(&request, PRODUCE_V2).expect("sent"));
        }
        for id in ids {
            let key = taccola_wire::api::ApiKey::Produce;
            let response = conn.reply(key, PRODUCE_V2, id).expect("a reply");
            assert_eq!(produced(&response), ErrorCode::None);
        }
        assert_eq!(p.end(&mut conn, END_V2, true), ErrorCode::None);
    }
    settled(&mut conn, "t", 0);
    let expected: Vec<String> = (0..5).flat_map(|round| (0..20).map(move |s| format!("{round}-{s}"))).collect();
    assert_eq!(committed(&mut conn, "t", 0), expected);
}

#[test]
fn a_transaction_that_the_coordinator_does_not_know_cannot_begin() {
    let (_broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "hang");
    assert_eq!(p.produce(&mut conn, 10, "t", 0, &["x"]), ErrorCode::InvalidTxnState);
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["x"]), ErrorCode::TransactionAbortable);
    let mut nameless = p.produce_request("t", 0, 0, &["x"]);
    nameless.transactional_id = None;
    assert_eq!(produced(&conn.ask(&nameless, PRODUCE_V1)), ErrorCode::TransactionalIdAuthorizationFailed);
    let mut stranger = p.clone();
    stranger.producer_id += 1_000;
    assert_eq!(stranger.produce(&mut conn, PRODUCE_V2, "t", 0, &["x"]), ErrorCode::InvalidProducerIdMapping);
    // Verification: a partition that is not in the transaction is told apart from one that is.
    p.added(&mut conn, "t", &[0]);
    let verify = |partitions: Vec<i32>| AddPartitionsToTxnRequest {
        transactions: vec![AddPartitionsToTxnTransaction {
            transactional_id: "hang".into(),
            producer_id: p.producer_id,
            producer_epoch: p.epoch,
            verify_only: true,
            topics: vec![AddPartitionsToTxnTopic { name: "t".into(), partitions }],
        }],
        ..Default::default()
    };
    let response = conn.ask(&verify(vec![0, 1]), 5);
    let rows = &response.results_by_transaction[0].topic_results[0].results_by_partition;
    let codes: Vec<ErrorCode> = rows.iter().map(|row| code(row.partition_error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::TransactionAbortable]);
    assert_eq!(latest(&mut conn, "t", 0), 0, "nothing was written");
    let errors = p.add(&mut conn, "t", &[1, 7]);
    assert_eq!(errors, [ErrorCode::OperationNotAttempted, ErrorCode::UnknownTopicOrPartition]);
}

#[test]
fn without_verification_old_producers_write_unasked() {
    let (_broker, mut conn) = start_with(&["transaction.partition.verification.enable=false"]);
    let mut p = Producer::new(&mut conn, "unverified");
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["x"]), ErrorCode::None);
    assert_eq!(latest(&mut conn, "t", READ_COMMITTED), 0);
}

#[test]
fn trap_47_a_new_user_of_the_id_fences_the_old_and_aborts_its_transaction() {
    let (_broker, mut conn) = start();
    let too_long = conn.ask(&init_request("never", 900_001), 5);
    assert!(matches!(code(too_long.error_code), ErrorCode::InvalidTransactionTimeout | ErrorCode::NotCoordinator));
    let mut old = Producer::new(&mut conn, "shared");
    assert_eq!(code(conn.ask(&init_request("shared", 900_001), 5).error_code), ErrorCode::InvalidTransactionTimeout);
    assert_eq!(old.produce(&mut conn, PRODUCE_V2, "t", 0, &["old"]), ErrorCode::None);
    let waits = conn.ask(&init_request("shared", 60_000), 5);
    assert_eq!(code(waits.error_code), ErrorCode::ConcurrentTransactions);
    let mut new = Producer::new(&mut conn, "shared");
    assert_eq!(new.producer_id, old.producer_id);
    assert!(new.epoch > old.epoch);
    assert_eq!(old.end(&mut conn, END_V2, true), ErrorCode::ProducerFenced);
    assert_eq!(old.end(&mut conn, 1, true), ErrorCode::InvalidProducerEpoch, "what version 1 knows");
    assert_eq!(old.produce(&mut conn, PRODUCE_V2, "t", 0, &["zombie"]), ErrorCode::InvalidProducerEpoch);
    assert_eq!(new.produce(&mut conn, PRODUCE_V2, "t", 0, &["new"]), ErrorCode::None);
    assert_eq!(new.end(&mut conn, END_V2, true), ErrorCode::None);
    settled(&mut conn, "t", 0);
    assert_eq!(committed(&mut conn, "t", 0), ["new"]);
}

#[test]
fn a_transaction_past_its_timeout_is_aborted() {
    let (_broker, mut conn) = start_with(&["transaction.abort.timed.out.transaction.cleanup.interval.ms=100"]);
    let mut p = Producer::with_timeout(&mut conn, "slow", 500);
    assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", 0, &["x"]), ErrorCode::None);
    settled(&mut conn, "t", 0);
    assert!(committed(&mut conn, "t", 0).is_empty());
    // Kafka takes the epoch below the present one for a retry, and the retry of a commit does not fit an abort.
    assert_eq!(p.end(&mut conn, END_V2, true), ErrorCode::InvalidTxnState);
    assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", 0, &["late"]), ErrorCode::InvalidProducerEpoch);
    let again = Producer::new(&mut conn, "slow");
    assert!(again.epoch > p.epoch);
}

#[test]
fn a_waiting_reader_of_committed_records_wakes_when_the_transaction_ends() {
    let (broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "wake");
    let value = "v".repeat(1000);
    assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", 0, &[&value]), ErrorCode::None);
    let mut reader = Conn::connect(broker.port).expect("a connection");
    let mut request = fetch_request("t", 0, 0);
    (request.isolation_level, request.max_wait_ms, request.min_bytes) = (READ_COMMITTED, 20_000, 900);
    let began = Instant::now();
    let id = reader.send(&request, 12).expect("sent");
    // More of the open transaction is no reason to wake.
    assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", 0, &[&value]), ErrorCode::None);
    reader.read_within(Duration::from_millis(300)).expect("a limit");
    assert!(reader.frame().is_err(), "nothing is committed yet");
    assert_eq!(p.end(&mut conn, END_V2, true), ErrorCode::None);
    reader.read_within(Duration::from_secs(15)).expect("a limit");
    let response: taccola_wire::messages::FetchResponse =
        reader.reply(taccola_wire::api::ApiKey::Fetch, 12, id).expect("a reply");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(response.responses[0].partitions[0].records.as_ref().is_some_and(|records| records.len() > 2_000));
}

fn txn_offset_commit(p: &Producer, group: &str, generation_id: i32, offset: i64) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: p.id.clone(),
        group_id: group.into(),
        producer_id: p.producer_id,
        producer_epoch: p.epoch,
        generation_id,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_leader_epoch: -1,
                committed_metadata: Some("m".into()),
            }],
        }],
        ..Default::default()
    }
}

fn offset_of(conn: &mut Conn, group: &str, require_stable: bool) -> (ErrorCode, i64) {
    let topics = vec![OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() }];
    let group = OffsetFetchRequestGroup { group_id: group.into(), topics: Some(topics), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() };
    eventually("OffsetFetch", || {
        let response = conn.ask(&request, 8);
        let group = &response.groups[0];
        if group.error_code != 0 {
            return None;
        }
        let row = &group.topics[0].partitions[0];
        Some((code(row.error_code), row.committed_offset))
    })
}

fn committed_in_txn(conn: &mut Conn, p: &Producer, version: i16, group: &str, offset: i64) -> ErrorCode {
    let request = txn_offset_commit(p, group, -1, offset);
    eventually("TxnOffsetCommit", || {
        let error = code(conn.ask(&request, version).topics[0].partitions[0].error_code);
        let again = [ErrorCode::ConcurrentTransactions, ErrorCode::CoordinatorNotAvailable];
        (!again.contains(&error)).then_some(error)
    })
}

#[test]
fn trap_52_offsets_are_part_of_the_transaction() {
    let (mut broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "eos");
    let find = FindCoordinatorRequest { key_type: 0, coordinator_keys: vec!["g".into()], ..Default::default() };
    conn.ask(&find, 4);
    for (version, commit, offset) in [(3, true, 5), (3, false, 6), (5, true, 7), (5, false, 8)] {
        let before = offset_of(&mut conn, "g", false).1;
        if version < 5 {
            let request = AddOffsetsToTxnRequest {
                transactional_id: p.id.clone(),
                producer_id: p.producer_id,
                producer_epoch: p.epoch,
                group_id: "g".into(),
            };
            eventually("AddOffsetsToTxn", || match code(conn.ask(&request, 3).error_code) {
                ErrorCode::None => Some(()),
                ErrorCode::ConcurrentTransactions | ErrorCode::CoordinatorNotAvailable => None,
                error => panic!("{error:?}"),
            });
        }
        assert_eq!(committed_in_txn(&mut conn, &p, version, "g", offset), ErrorCode::None);
        assert_eq!(offset_of(&mut conn, "g", true).0, ErrorCode::UnstableOffsetCommit, "anomaly 13");
        assert_eq!(offset_of(&mut conn, "g", false), (ErrorCode::None, before));
        let end = if version < 5 { END_V1 } else { END_V2 };
        assert_eq!(p.end(&mut conn, end, commit), ErrorCode::None);
        let after = eventually("a stable offset", || match offset_of(&mut conn, "g", true) {
            (ErrorCode::None, offset) => Some(offset),
            _ => None,
        });
        assert_eq!(after, if commit { offset } else { before });
    }
    // A member that is not there, and a transaction that nobody began.
    let request = txn_offset_commit(&p, "g", 3, 9);
    let error = code(conn.ask(&request, 5).topics[0].partitions[0].error_code);
    assert!(matches!(error, ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration), "{error:?}");
    assert_eq!(p.end(&mut conn, END_V2, false), ErrorCode::None);
    assert_eq!(committed_in_txn(&mut conn, &p, 3, "g", 9), ErrorCode::InvalidTxnState, "AddOffsetsToTxn is missing");
    broker.restart();
    let mut conn = Conn::connect(broker.port).expect("a connection");
    assert_eq!(offset_of(&mut conn, "g", true), (ErrorCode::None, 7), "the same after a restart");
}

#[test]
fn describe_list_and_abort_what_hangs() {
    let (_broker, mut conn) = start_with(&["transaction.partition.verification.enable=false"]);
    let mut p = Producer::new(&mut conn, "seen");
    p.added(&mut conn, "t", &[1]);
    // Not in the transaction: it hangs.
    assert_eq!(p.produce(&mut conn, PRODUCE_V1, "t", 0, &["x"]), ErrorCode::None);
    let request = DescribeTransactionsRequest { transactional_ids: vec!["seen".into(), "unseen".into()] };
    let response = conn.ask(&request, 0);
    let seen = &response.transaction_states[0];
    assert_eq!((seen.error_code, seen.transaction_state.as_str()), (0, "Ongoing"));
    assert_eq!((seen.producer_id, seen.topics[0].partitions.as_slice()), (p.producer_id, &[1][..]));
    assert_eq!(code(response.transaction_states[1].error_code), ErrorCode::TransactionalIdNotFound);
    let list = |states: &[&str]| ListTransactionsRequest {
        state_filters: states.iter().map(|state| (*state).to_owned()).collect(),
        duration_filter: -1,
        ..Default::default()
    };
    assert_eq!(conn.ask(&list(&["Ongoing"]), 2).transaction_states.len(), 1);
    let other = conn.ask(&list(&["Empty", "Nonsense"]), 2);
    assert_eq!((other.transaction_states.len(), other.unknown_state_filters), (0, vec!["Nonsense".to_owned()]));
    let request =
        DescribeProducersRequest { topics: vec![TopicRequest { name: "t".into(), partition_indexes: vec![0] }] };
    let rows = conn.ask(&request, 0).topics[0].partitions[0].active_producers.clone();
    assert_eq!((rows[0].producer_id, rows[0].current_txn_start_offset), (p.producer_id, 0));
    assert_eq!(p.end(&mut conn, END_V1, true), ErrorCode::None);
    settled(&mut conn, "t", 1);
    assert_eq!(fetch_committed(&mut conn, "t", 0, 0).last_stable_offset, 0, "it hangs");
    let abort = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: p.producer_id,
            producer_epoch: p.epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0, 9] }],
            coordinator_epoch: rows[0].coordinator_epoch,
            transaction_version: 0,
        }],
    };
    let response = conn.ask(&abort, 1);
    let mut codes: Vec<_> =
        response.markers[0].topics[0].partitions.iter().map(|p| (p.partition_index, code(p.error_code))).collect();
    codes.sort();
    assert_eq!(codes, [(0, ErrorCode::None), (9, ErrorCode::UnknownTopicOrPartition)]);
    settled(&mut conn, "t", 0);
    assert!(committed(&mut conn, "t", 0).is_empty());
}

/// Somebody ended the transaction in one partition under a higher epoch: the marker is refused there for good, and the id must
/// be usable again all the same. In Kafka it stays in PrepareCommit.
#[test]
fn a_marker_that_is_refused_for_good_does_not_hold_up_the_transaction() {
    let (_broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "refused");
    for partition in 0..2 {
        assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", partition, &["x"]), ErrorCode::None);
        p.sequence = 0;
    }
    let marker = WritableTxnMarker {
        producer_id: p.producer_id,
        producer_epoch: p.epoch + 7,
        transaction_result: false,
        topics: vec![WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0] }],
        coordinator_epoch: 0,
        transaction_version: 0,
    };
    let response = conn.ask(&WriteTxnMarkersRequest { markers: vec![marker] }, 1);
    assert_eq!(response.markers[0].topics[0].partitions[0].error_code, 0);
    assert_eq!(p.end(&mut conn, END_V2, true), ErrorCode::None);
    Producer::new(&mut conn, "refused");
    settled(&mut conn, "t", 1);
    assert_eq!((committed(&mut conn, "t", 0), committed(&mut conn, "t", 1)), (vec![], vec!["x".to_owned()]));
}

#[test]
fn anomaly_6_what_was_aborted_stays_unseen_and_what_is_open_stays_open_after_restarts() {
    let (mut broker, mut conn) = start();
    let mut p = Producer::new(&mut conn, "one");
    let mut expected = Vec::new();
    for round in 0..10 {
        let value = format!("{round}");
        assert_eq!(p.produce(&mut conn, PRODUCE_V2, "t", 0, &[&value]), ErrorCode::None);
        let commit = round % 3 != 0;
        assert_eq!(p.end(&mut conn, END_V2, commit), ErrorCode::None);
        if commit {
            expected.push(value);
        }
    }
    let mut open = Producer::new(&mut conn, "open");
    assert_eq!(open.produce(&mut conn, PRODUCE_V2, "t", 0, &["open"]), ErrorCode::None);
    for kill in [true, false, true] {
        if kill {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
        let mut conn = Conn::connect(broker.port).expect("a connection");
        eventually("the markers", || (committed(&mut conn, "t", 0) == expected).then_some(()));
        let data = fetch_committed(&mut conn, "t", 0, 0);
        assert_eq!(data.last_stable_offset, 20, "the open transaction begins here");
    }
    let mut conn = Conn::connect(broker.port).expect("a connection");
    find_coordinator(&mut conn, "open");
    let ended = eventually("EndTxn", || match open.end(&mut conn, END_V2, true) {
        ErrorCode::CoordinatorLoadInProgress => None,
        error => Some(error),
    });
    assert_eq!(ended, ErrorCode::None);
    expected.push("open".into());
    settled(&mut conn, "t", 0);
    assert_eq!(committed(&mut conn, "t", 0), expected);
}

/// One transaction over both partitions; `None` when the broker died under it and nobody knows.
fn one_transaction(port: u16, id: &str, value: &str, commit: bool) -> Option<()> {
    let mut conn = Conn::connect(port).ok()?;
    let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.to_owned()], ..Default::default() };
    conn.call(&find, 4).ok()?;
    let mut p = loop {
        let response = conn.call(&init_request(id, 60_000), 5).ok()?;
        match code(response.error_code) {
            ErrorCode::None => {
                let (producer_id, epoch) = (response.producer_id, response.producer_epoch);
                break Producer { id: id.to_owned(), producer_id, epoch, sequence: 0 };
            }
            ErrorCode::ConcurrentTransactions
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable => std::thread::sleep(Duration::from_millis(2)),
            error => panic!("InitProducerId: {error:?}"),
        }
    };
    for partition in 0..2 {
        let response = conn.call(&p.produce_request("t", partition, 0, &[value]), PRODUCE_V2).ok()?;
        assert_eq!(produced(&response), ErrorCode::None);
    }
    let request = EndTxnRequest {
        transactional_id: p.id.clone(),
        producer_id: p.producer_id,
        producer_epoch: p.epoch,
        committed: commit,
    };
    let response = conn.call(&request, END_V2).ok()?;
    assert_eq!(code(response.error_code), ErrorCode::None);
    p.epoch = response.producer_epoch;
    Some(())
}

/// Kills at random points under transactions over two partitions: every outcome that was acknowledged holds in both, and
/// one that was not is the same in both (anomalies 1, 5, 6, 9; half a transaction, as seen on Kafka).
#[test]
fn no_half_transactions_under_kill_9() {
    let rounds: u32 = std::env::var("TXN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut broker, _) = start();
    let mut acknowledged: Vec<(String, bool)> = Vec::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(broker.pid());
    for round in 0..rounds {
        let port = broker.port;
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for n in 0.. {
                        let (value, commit) = (format!("{round}-{worker}-{n}"), n % 3 != 1);
                        match one_transaction(port, &format!("w{worker}"), &value, commit) {
                            Some(()) => done.push((value, commit)),
                            None => return done,
                        }
                    }
                    done
                })
            })
            .collect();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(50 + (seed >> 33) % 400));
        broker.kill();
        for worker in workers {
            acknowledged.extend(worker.join().expect("a worker"));
        }
        broker.launch();
    }
    let mut conn = Conn::connect(broker.port).expect("a connection");
    // Whoever comes next ends what was open.
    for worker in 0..3 {
        Producer::new(&mut conn, &format!("w{worker}"));
    }
    settled(&mut conn, "t", 0);
    settled(&mut conn, "t", 1);
    let (mut zero, mut one) = (committed(&mut conn, "t", 0), committed(&mut conn, "t", 1));
    zero.sort();
    one.sort();
    assert_eq!(zero, one, "a transaction is whole or not at all");
    assert!(zero.windows(2).all(|pair| pair[0] != pair[1]), "nothing twice");
    for (value, commit) in &acknowledged {
        assert_eq!(zero.binary_search(value).is_ok(), *commit, "{value}");
    }
    assert!(!acknowledged.is_empty(), "at least one transaction ended between two kills");
}
