//! Taking over from a JVM Kafka and giving back, with what is hard to keep: a JVM that was killed, compacted topics, an
//! open transaction that the other broker must end, groups of several kinds. The two take turns `SWAPS` times (default 2).

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_it::conn::Conn;
use taccola_it::crash::number;
use taccola_it::kafka::Kafka;
use taccola_it::load::committed;
use taccola_it::requests::{fetch_request, list_offset, new_topic, now_ms, produce, read_all, records_of};
use taccola_it::{Broker, eventually};
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::{
    ConsumerGroupHeartbeatRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ListGroupsRequest,
    OffsetCommitRequest, ProduceRequest, ShareGroupHeartbeatRequest,
};

/// Both brokers compact at once.
const EAGER: &[&str] = &[
    "log.cleaner.backoff.ms=100",
    "transaction.state.log.num.partitions=3",
    "share.coordinator.state.topic.num.partitions=3",
];
const TRANSACTIONAL_ID: &str = "handed-over";
const MEMBER: &str = "abcdefghijklmnopqrstuv";
const KEYS: usize = 5;
const READ_COMMITTED: i8 = 1;

/// A transaction that is open when the broker changes.
struct Open {
    producer_id: i64,
    epoch: i16,
    value: String,
}

#[derive(Default)]
struct World {
    session: usize,
    plain: Vec<String>,
    /// Latest value by key; `None`: a tombstone.
    compacted: BTreeMap<String, Option<String>>,
    compacted_written: usize,
    clock_ms: i64,
    transactional: Vec<String>,
    open: Option<Open>,
}

impl World {
    fn create(&mut self, port: u16) {
        let mut conn = Conn::connect(port).expect("a connection");
        self.clock_ms = now_ms() - 3_600_000;
        new_topic(&mut conn, "plain", 1, &[]);
        let eager = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "10"),
            ("min.cleanable.dirty.ratio", "0.001"),
            ("min.compaction.lag.ms", "0"),
        ];
        new_topic(&mut conn, "compacted", 1, &eager);
        new_topic(&mut conn, "transactional", 1, &[]);
        for topic in ["plain", "compacted", "transactional"] {
            eventually("a leader", || (list_offset(&mut conn, topic, 0, -1).0 == 0).then_some(()));
        }
    }

    /// One broker's turn: what the others left is there, the open transaction is ended, more is written.
    fn turn(&mut self, who: &str, port: u16) {
        self.session += 1;
        let who = format!("{who}, session {}", self.session);
        let mut conn = Conn::connect(port).expect("a connection");
        for topic in ["plain", "compacted", "transactional"] {
            eventually("a leader", || (list_offset(&mut conn, topic, 0, -1).0 == 0).then_some(()));
        }
        self.check(&who, &mut conn);
        self.end_transaction(&who, &mut conn);
        let value = format!("plain of {who}");
        write(&mut conn, "plain", &[(None, Some(&value))], now_ms());
        self.plain.push(value);
        self.write_compacted(&who, &mut conn);
        self.commit_offsets(&mut conn);
        self.begin_transaction(&who, &mut conn);
        self.check(&who, &mut conn);
    }

    fn check(&self, who: &str, conn: &mut Conn) {
        let plain: Vec<String> = read_all(conn, "plain", 0, 0).iter().map(|record| text(&record.value)).collect();
        assert_eq!(plain, self.plain, "{who}");
        let mut found = BTreeMap::new();
        for record in read_all(conn, "compacted", 0, 0) {
            found.insert(text(&record.key), record.value.as_ref().map(|value| text(&Some(value.clone()))));
        }
        let live = |map: &BTreeMap<String, Option<String>>| -> BTreeMap<String, String> {
            map.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
        };
        assert_eq!(live(&found), live(&self.compacted), "{who}: the latest value of each key");
        assert_eq!(self.read_committed(conn), self.transactional, "{who}");
        if self.session > 1 {
            let at = self.plain.len() as i64;
            let known = [("plain".to_owned(), 0)];
            for group in ["classic-kind", "consumer-kind"] {
                let (_, offset, _) = committed(conn, group, &known).remove(0);
                assert!((at - 1..=at).contains(&offset), "{who}: {group} is at {offset} of {at}");
            }
            let kinds = kinds(conn);
            for (group, kind) in [("classic-kind", "classic"), ("consumer-kind", "consumer"), ("share-kind", "share")] {
                assert_eq!(kinds.get(group).map(|kind| kind.to_lowercase()).as_deref(), Some(kind), "{who}: {group}");
            }
        }
    }

    /// Values below the last stable offset that no aborted transaction wrote: aborted values say so themselves.
    fn read_committed(&self, conn: &mut Conn) -> Vec<String> {
        let mut request = fetch_request("transactional", 0, 0);
        request.isolation_level = READ_COMMITTED;
        let data = conn.ask(&request, 12).responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0);
        let aborted = data.aborted_transactions.clone().unwrap_or_default();
        let mut values = Vec::new();
        for record in records_of(&data, 0) {
            assert!(record.offset < data.last_stable_offset);
            let value = text(&record.value);
            if value.starts_with("abort") {
                assert!(aborted.iter().any(|txn| txn.first_offset == record.offset), "{value} is not told as aborted");
            } else {
                values.push(value);
            }
        }
        values
    }

    fn write_compacted(&mut self, who: &str, conn: &mut Conn) {
        for round in 0..10 {
            // Timestamps apart by more than segment.ms: each batch begins a segment.
            self.clock_ms += 1000;
            for key in 0..KEYS {
                let (key, value) = (format!("k{key}"), format!("{who}, {round}"));
                write(conn, "compacted", &[(Some(&key), Some(&value))], self.clock_ms);
                self.compacted.insert(key, Some(value));
                self.compacted_written += 1;
            }
        }
        let gone = format!("k{}", self.session % KEYS);
        self.clock_ms += 1000;
        write(conn, "compacted", &[(Some(&gone), None)], self.clock_ms);
        self.compacted.insert(gone, None);
        self.compacted_written += 1;
        eventually("compaction", || {
            (read_all(conn, "compacted", 0, 0).len() < 2 * KEYS + 3 * self.session).then_some(())
        });
        assert!(list_offset(conn, "compacted", 0, -1).1 >= self.compacted_written as i64, "offsets stay");
    }

    fn commit_offsets(&self, conn: &mut Conn) {
        let offset = self.plain.len() as i64;
        for (key_type, group) in [(0, "classic-kind"), (0, "consumer-kind"), (0, "share-kind")] {
            let request =
                FindCoordinatorRequest { key_type, coordinator_keys: vec![group.to_owned()], ..Default::default() };
            eventually("a coordinator", || (conn.ask(&request, 4).coordinators[0].error_code == 0).then_some(()));
        }
        commit(conn, "classic-kind", "", -1, offset);
        let mut heartbeat = ConsumerGroupHeartbeatRequest {
            group_id: "consumer-kind".to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: 0,
            rebalance_timeout_ms: 30_000,
            subscribed_topic_names: Some(vec!["plain".to_owned()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        };
        let epoch = eventually("a member of a consumer group", || {
            let response = conn.ask(&heartbeat, 1);
            (response.error_code == 0).then_some(response.member_epoch)
        });
        commit(conn, "consumer-kind", MEMBER, epoch, offset);
        heartbeat.member_epoch = -1;
        assert_eq!(conn.ask(&heartbeat, 1).error_code, 0);
        let mut heartbeat = ShareGroupHeartbeatRequest {
            group_id: "share-kind".to_owned(),
            member_id: MEMBER.to_owned(),
            member_epoch: 0,
            subscribed_topic_names: Some(vec!["plain".to_owned()]),
            ..Default::default()
        };
        eventually("a member of a share group", || (conn.ask(&heartbeat, 1).error_code == 0).then_some(()));
        heartbeat.member_epoch = -1;
        assert_eq!(conn.ask(&heartbeat, 1).error_code, 0);
    }

    fn begin_transaction(&mut self, who: &str, conn: &mut Conn) {
        coordinator(conn);
        let request = InitProducerIdRequest {
            transactional_id: Some(TRANSACTIONAL_ID.to_owned()),
            transaction_timeout_ms: 600_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let begun = eventually("InitProducerId", || Some(conn.ask(&request, 5)).filter(|reply| reply.error_code == 0));
        let ending = if self.session.is_multiple_of(2) { "abort" } else { "commit" };
        let value = format!("{ending} {who}");
        let (producer_id, epoch) = (begun.producer_id, begun.producer_epoch);
        let mut builder = BatchBuilder::new(Compression::None).producer(producer_id, epoch, 0).transactional(true);
        builder.append(now_ms(), None, Some(value.as_bytes()), &[]);
        let data = PartitionProduceData { index: 0, records: Some(builder.build().expect("a batch")) };
        let topic =
            TopicProduceData { name: "transactional".to_owned(), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(TRANSACTIONAL_ID.to_owned()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
        };
        eventually("a transactional batch", || {
            (conn.ask(&request, 12).responses[0].partition_responses[0].error_code == 0).then_some(())
        });
        self.open = Some(Open { producer_id, epoch, value });
    }

    fn end_transaction(&mut self, who: &str, conn: &mut Conn) {
        let Some(open) = self.open.take() else { return };
        let committed = open.value.starts_with("commit");
        coordinator(conn);
        let request = EndTxnRequest {
            transactional_id: TRANSACTIONAL_ID.to_owned(),
            producer_id: open.producer_id,
            producer_epoch: open.epoch,
            committed,
        };
        let code = eventually("EndTxn", || {
            // 14, 15, 16, 51: the coordinator loads, or is not found yet, or is still busy.
            Some(conn.ask(&request, 5).error_code).filter(|code| ![14, 15, 16, 51].contains(code))
        });
        assert_eq!(code, 0, "{who} ends the transaction that another broker began");
        if committed {
            self.transactional.push(open.value);
        }
        eventually("the marker", || (self.read_committed(conn) == self.transactional).then_some(()));
    }
}

fn text(bytes: &Option<bytes::Bytes>) -> String {
    String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
}

fn coordinator(conn: &mut Conn) {
    let keys = vec![TRANSACTIONAL_ID.to_owned()];
    let request = FindCoordinatorRequest { key_type: 1, coordinator_keys: keys, ..Default::default() };
    eventually("a coordinator", || (conn.ask(&request, 4).coordinators[0].error_code == 0).then_some(()));
}

fn write(conn: &mut Conn, topic: &str, records: &[(Option<&str>, Option<&str>)], timestamp: i64) {
    let mut builder = BatchBuilder::new(Compression::Lz4);
    for (key, value) in records {
        builder.append(timestamp, key.map(str::as_bytes), value.map(str::as_bytes), &[]);
    }
    let answer = produce(conn, topic, 0, builder.build().expect("a batch"));
    assert_eq!(answer.error_code, 0, "{topic}");
}

fn commit(conn: &mut Conn, group: &str, member: &str, epoch: i32, offset: i64) {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_leader_epoch: -1,
        ..Default::default()
    };
    let topic =
        OffsetCommitRequestTopic { name: "plain".to_owned(), partitions: vec![partition], ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: epoch,
        member_id: member.to_owned(),
        topics: vec![topic],
        ..Default::default()
    };
    eventually("a commit", || (conn.ask(&request, 9).topics[0].partitions[0].error_code == 0).then_some(()));
}

/// Kind by group.
fn kinds(conn: &mut Conn) -> BTreeMap<String, String> {
    let groups = eventually("the list of groups", || {
        Some(conn.ask(&ListGroupsRequest::default(), 5)).filter(|reply| reply.error_code == 0)
    });
    groups.groups.into_iter().map(|group| (group.group_id, group.group_type)).collect()
}

#[test]
fn a_killed_kafka_is_taken_over_and_given_back() {
    let test = "a_killed_kafka_is_taken_over_and_given_back";
    let home = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let mut world = World::default();
    let mut properties = vec!["offsets.topic.num.partitions=3"];
    properties.extend(EAGER);
    let mut taccola = Broker::prepare_in(home.clone(), &properties);
    for swap in 0..number("SWAPS", 2) {
        let Some(kafka) = Kafka::start(test, home.path(), EAGER, swap == 0) else { return };
        if swap == 0 {
            world.create(kafka.port);
        }
        world.turn("Kafka", kafka.port);
        if swap % 2 == 0 {
            // SIGKILL.
            drop(kafka);
        } else {
            kafka.stop();
        }
        taccola.launch();
        world.turn("Taccola", taccola.port);
        taccola.stop();
    }
    taccola.launch();
    world.turn("Taccola at last", taccola.port);
}
