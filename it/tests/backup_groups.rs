//! Backups of groups that are not consumers of one owner: start offsets of share groups, committed offsets and configs of
//! streams groups, out of Taccola and a JVM Kafka and back into either.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use taccola_base::TopicPartition;
use taccola_client::admin::{ConfigResource, NewTopic, ResourceType};
use taccola_client::{
    AckMode, AckType, Admin, Client, ClientConfig, Producer, ProducerConfig, ProducerRecord, ShareConfig,
    ShareConsumer, ShareRecord,
};
use taccola_it::conn::Conn;
use taccola_it::group::{commit_request, find_coordinator};
use taccola_it::kafka::Kafka;
use taccola_it::{Broker, WITHIN, binary, eventually, run};
use taccola_wire::messages::StreamsGroupHeartbeatRequest;
use taccola_wire::messages::streams_group_heartbeat_request::{Subtopology, Topology};

const BROKER: [&str; 3] = [
    "offsets.topic.num.partitions=3",
    "share.coordinator.state.topic.num.partitions=3",
    "group.initial.rebalance.delay.ms=0",
];
const RECORDS: i64 = 40;
/// Removed from the beginning, so that a restore moves every offset.
const TRIMMED: i64 = 10;
/// Of each partition's records that are left, accepted by the share group.
const ACCEPTED: [i64; 2] = [7, 3];
const STREAMS_COMMITTED: i64 = 23;

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

fn client(port: u16) -> Client {
    Client::new(ClientConfig::new(&format!("127.0.0.1:{port}")).expect("an address"))
}

fn backup(port: u16, verb: &str, store: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(binary());
    command.args(["-b", &format!("127.0.0.1:{port}"), "-o", "json", "backup", verb]).arg(store).args(arguments);
    let text = run(command.stdin(Stdio::null()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn load(port: u16) {
    let client = client(port);
    let admin = Admin::new(client.clone());
    let topic = NewTopic {
        name: "t".to_owned(),
        partitions: Some(2),
        replication_factor: Some(1),
        configs: Default::default(),
    };
    for (_, outcome) in admin.create_topics(&[topic], false).await.expect("an answer") {
        outcome.expect("made");
    }
    let producer = Producer::new(client.clone(), ProducerConfig::default()).expect("a producer");
    for number in 0..RECORDS {
        for partition in 0..2 {
            let value = Some(Bytes::from(format!("{partition}-{number}")));
            let record = ProducerRecord { topic: "t".into(), partition: Some(partition), value, ..Default::default() };
            producer.send(record).await.expect("taken");
        }
        producer.flush().await.expect("written");
    }
    admin.delete_records(&[(at(0), TRIMMED), (at(1), TRIMMED)]).await.expect("deleted");
    for (group, name, value) in [
        ("sharers", "share.auto.offset.reset", "earliest"),
        ("sharers", "share.record.lock.duration.ms", "17000"),
        ("streamers", "streams.session.timeout.ms", "47000"),
    ] {
        let resource = ConfigResource { kind: ResourceType::Group, name: group.to_owned() };
        let change = [(name.to_owned(), taccola_client::admin::ConfigOp::Set(value.to_owned()))];
        admin.alter_configs(&resource, &change, false).await.expect("set");
    }
    share(client).await;
}

/// A member accepts some records, gives back what it has of the others, and leaves. The state that is kept names the start
/// offset as it was before the decisions that come with it: those about the others are sent for themselves.
async fn share(client: Client) {
    let config = ShareConfig { mode: AckMode::Explicit, ..ShareConfig::new("sharers", ["t".to_owned()]) };
    let mut consumer = ShareConsumer::new(client, config);
    let is_accepted =
        |record: &ShareRecord| record.record.offset < TRIMMED + ACCEPTED[record.record.partition as usize];
    let mut accepted = 0;
    let until = Instant::now() + WITHIN;
    while accepted < ACCEPTED.iter().sum::<i64>() {
        assert!(Instant::now() < until, "{accepted} were accepted");
        let records = consumer.poll(Duration::from_millis(300)).await.expect("records");
        for (decision, accepts) in [(AckType::Accept, true), (AckType::Release, false)] {
            for record in records.iter().filter(|record| is_accepted(record) == accepts) {
                consumer.acknowledge(record, decision).expect("held");
                accepted += i64::from(accepts);
            }
            for outcome in consumer.commit().await.expect("an answer").into_values() {
                outcome.expect("acknowledged");
            }
        }
    }
    consumer.close().await.expect("left");
}

/// A member of a streams group joins, commits and leaves.
fn stream(port: u16) {
    let mut conn = Conn::connect(port).expect("a connection");
    let epoch = join_streams(&mut conn);
    let mut commit = commit_request("streamers", epoch, "streams-member", "t", STREAMS_COMMITTED);
    commit.topics[0].partitions[0].committed_leader_epoch = -1;
    eventually("the commit", || {
        let response = conn.ask(&commit, 9);
        (response.topics[0].partitions[0].error_code == 0).then_some(())
    });
    assert_eq!(conn.ask(&heartbeat(-1), 0).error_code, 0);
}

fn heartbeat(member_epoch: i32) -> StreamsGroupHeartbeatRequest {
    let full = member_epoch == 0;
    let topology = Topology {
        epoch: 0,
        subtopologies: vec![Subtopology {
            subtopology_id: "0".to_owned(),
            source_topics: vec!["t".to_owned()],
            ..Default::default()
        }],
    };
    StreamsGroupHeartbeatRequest {
        group_id: "streamers".to_owned(),
        member_id: "streams-member".to_owned(),
        member_epoch,
        rebalance_timeout_ms: if full { 60_000 } else { -1 },
        topology: full.then_some(topology),
        active_tasks: full.then(Vec::new),
        standby_tasks: full.then(Vec::new),
        warmup_tasks: full.then(Vec::new),
        process_id: full.then(|| "process".to_owned()),
        client_tags: full.then(Vec::new),
        ..Default::default()
    }
}

fn join_streams(conn: &mut Conn) -> i32 {
    find_coordinator(conn, "streamers");
    eventually("a streams group", || {
        let response = conn.ask(&heartbeat(0), 0);
        // The coordinator may still be loading.
        (response.error_code == 0).then_some(response.member_epoch)
    })
}

/// The groups' next records are what they were; and they can be joined again.
fn judge(port: u16, trimmed: i64, shown: &str) {
    let starts: BTreeMap<TopicPartition, i64> = on_a_runtime(async {
        let admin = Admin::new(client(port));
        let starts = admin.share_group_offsets("sharers", None).await.expect("start offsets");
        starts.into_iter().filter_map(|(at, share)| Some((at, share.start_offset?))).collect()
    });
    let expected = [0, 1].map(|partition| (at(partition), trimmed + ACCEPTED[partition as usize]));
    assert_eq!(starts, BTreeMap::from(expected), "{shown}");
    let committed = || {
        on_a_runtime(async {
            let found = Admin::new(client(port)).group_offsets("streamers", None).await.expect("offsets");
            found.into_iter().map(|(at, committed)| (at, committed.offset)).collect::<BTreeMap<_, _>>()
        })
    };
    let expected = BTreeMap::from([(at(0), STREAMS_COMMITTED - TRIMMED + trimmed)]);
    assert_eq!(committed(), expected, "{shown}");
    let configs = |group: &str| {
        on_a_runtime(async {
            let resource = ConfigResource { kind: ResourceType::Group, name: group.to_owned() };
            let all = Admin::new(client(port)).describe_configs(&resource, false).await.expect("configs");
            all.into_iter().map(|entry| (entry.name, entry.value.unwrap_or_default())).collect::<BTreeMap<_, _>>()
        })
    };
    assert_eq!(configs("sharers")["share.record.lock.duration.ms"], "17000", "{shown}");
    assert_eq!(configs("streamers")["streams.session.timeout.ms"], "47000", "{shown}");
    let mut conn = Conn::connect(port).expect("a connection");
    join_streams(&mut conn);
    assert_eq!(conn.ask(&heartbeat(-1), 0).error_code, 0, "{shown}");
    assert_eq!(committed(), expected, "{shown}: a member changes nothing");
}

/// A backup of one cluster, restored into another one.
fn carry(source: u16, target: u16, trimmed: i64, shown: &str) {
    let store = tempfile::tempdir().expect("a folder");
    judge(source, trimmed, &format!("{shown}: the source"));
    backup(source, "create", store.path(), &["--cipher", "none"]);
    let report = backup(target, "restore", store.path(), &["--read-back"]);
    assert_eq!(report["failures"], Value::Array(vec![]), "{shown}: {report}");
    judge(target, 0, shown);
}

fn loaded() -> Broker {
    let source = Broker::start(&BROKER);
    on_a_runtime(load(source.port));
    stream(source.port);
    source
}

#[test]
fn share_and_streams_groups_go_on_where_they_were() {
    let target = Broker::start(&BROKER);
    carry(loaded().port, target.port, TRIMMED, "Taccola to Taccola");
}

#[test]
fn share_and_streams_groups_cross_to_kafka_and_back() {
    let home = tempfile::tempdir().expect("a folder");
    let test = "share_and_streams_groups_cross_to_kafka_and_back";
    let Some(kafka) = Kafka::start(test, home.path(), &[], true) else { return };
    carry(loaded().port, kafka.port, TRIMMED, "Taccola to Kafka");
    let back = Broker::start(&BROKER);
    carry(kafka.port, back.port, 0, "Kafka to Taccola");
}
