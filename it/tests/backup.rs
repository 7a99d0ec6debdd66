//! `taccola backup` end to end: what is restored is what was there, record by record and offset by offset; cuts under load;
//! kills of the broker and of the backup; damage; and a JVM Kafka on either side.
//!
//! `CUTS` sets the number of random cut points (default 4), `SEED` what they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use taccola_base::TopicPartition;
use taccola_client::admin::{CommittedOffset, NewTopic, OffsetSpec};
use taccola_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, ConsumerRecord, IsolationLevel, Producer, ProducerConfig,
    ProducerRecord, StartOffset, TransactionConfig, TransactionalProducer,
};
use taccola_it::clients::{kafka_tool, python};
use taccola_it::conn::Conn;
use taccola_it::crash::number;
use taccola_it::ledger::Rng;
use taccola_it::moto::Moto;
use taccola_it::{Broker, binary, eventually, free_port, run};
use taccola_wire::batch::{Compression, RecordHeader};
use tempfile::TempDir;

/// How long a JVM may take on a busy machine.
const JVM: Duration = Duration::from_secs(120);
const PASSPHRASE: &str = "correct horse battery staple";
const BROKER: [&str; 7] = [
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "transaction.state.log.num.partitions=3",
    "offsets.topic.num.partitions=3",
    "log.cleaner.backoff.ms=50",
    "log.cleaner.min.cleanable.ratio=0.01",
    "group.initial.rebalance.delay.ms=0",
];

fn client(bootstrap: &str) -> Client {
    Client::new(ClientConfig::new(bootstrap).expect("an address"))
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// `taccola backup VERB STORE …` against a broker.
fn backup(bootstrap: &str, verb: &str, store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["-b", bootstrap, "-o", "json", "backup", verb]).arg(store).args(arguments);
    command.env("TACCOLA_BACKUP_PASSPHRASE", PASSPHRASE).stdin(Stdio::null());
    command
}

fn json(mut command: Command) -> Value {
    let text = run(&mut command);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A command that must fail: its exit code, and what it said.
fn refused(mut command: Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(!status.success(), "{command:?} succeeded: {said}");
    (status.code().expect("an exit code"), said)
}

// ---- what is there ---------------------------------------------------------------------------------------------------

/// A record without the place where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<RecordHeader>,
}

/// One partition as a reader of committed records sees it: records with their offsets, and the end.
#[derive(Clone, Debug)]
struct Log {
    records: Vec<(i64, Plain)>,
    end: i64,
}

impl Log {
    fn plain(&self) -> Vec<&Plain> {
        self.records.iter().map(|(_, record)| record).collect()
    }

    /// Which record comes next at an offset, counted from the start.
    fn next_at(&self, offset: i64) -> usize {
        self.records.iter().position(|(at, _)| *at >= offset).unwrap_or(self.records.len())
    }
}

async fn read(client: &Client, topic: &str) -> Vec<Log> {
    client.forget_topic(topic);
    let found = client.topic(topic).await.expect("a topic");
    let mut logs = Vec::new();
    for partition in &found.partitions {
        let partition = TopicPartition::new(Arc::clone(&found.name), partition.index);
        let config = ConsumerConfig { isolation: IsolationLevel::ReadCommitted, ..Default::default() };
        let mut consumer = Consumer::new(client.clone(), config);
        consumer.assign(&[(partition.clone(), StartOffset::Earliest)]).await.expect("assigned");
        let asked = [(partition.clone(), OffsetSpec::Latest)];
        let found = Admin::new(client.clone()).list_offsets(&asked, IsolationLevel::ReadCommitted).await;
        let end = found.expect("the end")[&partition].offset.expect("an end");
        let mut records = Vec::new();
        let until = Instant::now() + taccola_it::WITHIN;
        while consumer.positions().get(&partition).is_none_or(|at| *at < end) {
            assert!(Instant::now() < until, "{partition} is not read up to {end}: {:?}", consumer.positions());
            let some = consumer.poll(Duration::from_millis(200)).await.expect("records");
            records.extend(some.into_iter().map(|record| (record.offset, plain(record))));
        }
        records.retain(|(offset, _)| *offset < end);
        logs.push(Log { records, end });
    }
    logs
}

fn plain(record: ConsumerRecord) -> Plain {
    let ConsumerRecord { timestamp, key, value, headers, .. } = record;
    Plain { timestamp, key, value, headers }
}

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Records of every shape.
fn shapes(topic: &str, round: i64, number: i64) -> ProducerRecord {
    let text = |text: String| Some(Bytes::from(text));
    let header = |value: Option<&'static [u8]>| RecordHeader::new("h", value.map(Bytes::from_static));
    ProducerRecord {
        topic: topic.into(),
        partition: Some((number % 3) as i32),
        timestamp: Some(1_600_000_000_000 + round * 1_000 + number),
        key: match number % 4 {
            0 => None,
            1 => text(String::new()),
            _ => text(format!("k{}", number % 7)),
        },
        value: match number % 5 {
            0 => None,
            1 => text(String::new()),
            _ => text(format!("{topic} {round} {number} {}", "x".repeat((number * 37 % 400) as usize))),
        },
        headers: match number % 3 {
            0 => vec![],
            1 => vec![header(Some(b"1")), header(None), header(Some(b""))],
            _ => vec![header(Some(b"2"))],
        },
    }
}

const TOPICS: [&str; 5] = ["shapes", "transactions", "stamped", "trimmed", "compacted"];

async fn make_topics(admin: &Admin) {
    let topic = |name: &str, partitions, configs: &[(&str, &str)]| NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: Some(1),
        configs: configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    // Old timestamps, which a default retention would remove at once.
    let old = ("retention.ms", "-1");
    let topics = [
        topic("shapes", 3, &[old, ("max.message.bytes", "1500000")]),
        topic("transactions", 2, &[old]),
        topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]),
        topic("trimmed", 1, &[old]),
        topic(
            "compacted",
            1,
            &[("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")],
        ),
    ];
    for (name, outcome) in admin.create_topics(&topics, false).await.expect("an answer") {
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Adds to every topic; what it adds depends on the round.
async fn fill(client: &Client, round: i64) {
    let admin = Admin::new(client.clone());
    for codec in CODECS {
        let producer =
            Producer::new(client.clone(), ProducerConfig { compression: codec, ..Default::default() }).unwrap();
        for number in 0..40 {
            producer.send(shapes("shapes", round, number)).await.expect("taken");
        }
        producer.flush().await.expect("written");
    }
    let producer = Producer::new(client.clone(), ProducerConfig::default()).unwrap();
    for topic in ["stamped", "trimmed"] {
        for number in 0..20 {
            let record = ProducerRecord { partition: Some(0), ..shapes(topic, round, number) };
            producer.send(record).await.expect("taken");
            if number % 6 == 0 {
                producer.flush().await.expect("written");
            }
        }
    }
    // The same keys again and again, more than a segment of them.
    for number in 0..40 {
        let record = ProducerRecord {
            topic: "compacted".into(),
            partition: Some(0),
            key: Some(Bytes::from(format!("k{}", number % 3 + round))),
            value: Some(Bytes::from(format!("{number}").repeat(20_000))),
            ..Default::default()
        };
        producer.send(record).await.expect("taken");
    }
    producer.flush().await.expect("written");
    let trim = [(TopicPartition::new("trimmed", 0), 7 + round * 20)];
    admin.delete_records(&trim).await.expect("an answer");
    transactions(client, round).await;
}

/// Committed and aborted ones, and plain records between.
async fn transactions(client: &Client, round: i64) {
    let producer =
        TransactionalProducer::new(client.clone(), ProducerConfig::default(), TransactionConfig::new("backup-test"));
    let mut producer = producer.unwrap();
    producer.init().await.expect("a producer id");
    for transaction in 0..6 {
        producer.begin().await.expect("begun");
        for number in 0..3 {
            let record = shapes("transactions", round, transaction * 10 + number);
            producer.send(ProducerRecord { partition: Some((number % 2) as i32), ..record }).await.expect("taken");
        }
        match transaction % 3 {
            1 => producer.abort().await.expect("aborted"),
            _ => producer.commit().await.expect("committed"),
        }
    }
}

/// One group per place in the logs, so that every record is once the next one.
async fn commit(client: &Client, logs: &BTreeMap<&str, Vec<Log>>) {
    let admin = Admin::new(client.clone());
    for step in 0..12_i64 {
        let mut offsets = Vec::new();
        for (topic, logs) in logs {
            for (index, log) in (0..).zip(logs) {
                let start = log.records.first().map_or(log.end, |(offset, _)| *offset);
                let offset = start + (log.end - start) * step / 11;
                let metadata = format!("m{step}");
                let partition = TopicPartition::new(*topic, index);
                offsets.push((partition, CommittedOffset { offset, leader_epoch: -1, metadata }));
            }
        }
        admin.alter_group_offsets(&format!("group-{step}"), &offsets).await.expect("committed");
    }
}

/// The same records, and groups whose next record is the same.
async fn compare(source: &Client, target: &Client, topic: &str, restored: &str) {
    let (before, after) = (read(source, topic).await, read(target, restored).await);
    assert_eq!(before.len(), after.len(), "{topic}");
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.plain(), new.plain(), "{topic}");
    }
    let (from, to) = (Admin::new(source.clone()), Admin::new(target.clone()));
    for step in 0..12 {
        let group = format!("group-{step}");
        let (old, new) =
            (from.group_offsets(&group, None).await.unwrap(), to.group_offsets(&group, None).await.unwrap());
        for (index, (before, after)) in (0..).zip(before.iter().zip(&after)) {
            let committed = &old[&TopicPartition::new(topic, index)];
            let moved = &new[&TopicPartition::new(restored, index)];
            let place = format!("{group} {topic}-{index} {} -> {}", committed.offset, moved.offset);
            assert_eq!(before.next_at(committed.offset), after.next_at(moved.offset), "{place}");
            assert_eq!(committed.metadata, moved.metadata, "{place}");
        }
    }
}

/// A full backup and one that continues it, restored under other names beside the originals, and into another cluster.
fn there_and_back(source: &str, target: &str) {
    let store = tempfile::tempdir().expect("a folder");
    on_a_runtime(async {
        let from = client(source);
        make_topics(&Admin::new(from.clone())).await;
        fill(&from, 0).await;
        // Gaps as compaction leaves them.
        let until = Instant::now() + JVM;
        while read(&from, "compacted").await[0].records.len() == 40 {
            assert!(Instant::now() < until, "nothing was compacted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let full = json(backup(source, "create", store.path(), &[]));
    assert_eq!(full["cut"]["instant"], true, "{full}");
    on_a_runtime(async {
        let from = client(source);
        fill(&from, 1).await;
        let mut logs = BTreeMap::new();
        for topic in TOPICS {
            logs.insert(topic, read(&from, topic).await);
        }
        commit(&from, &logs).await;
    });
    let next = json(backup(source, "create", store.path(), &["--incremental"]));
    assert_eq!(next["parent"], full["id"]);
    assert!(next["topics"].as_array().unwrap().iter().all(|topic| topic["kind"] == "incremental"), "{next}");
    let verified = json(backup(source, "verify", store.path(), &[]));
    assert!(verified["state"] == "good" && verified["checked"] == "contents", "{verified}");

    let beside = json(backup(source, "restore", store.path(), &["--prefix", "old-", "--read-back"]));
    let elsewhere = json(backup(target, "restore", store.path(), &["--read-back", "--rename", "shapes=forms"]));
    for report in [&beside, &elsewhere] {
        assert_eq!(report["failures"], Value::Array(vec![]), "{report}");
        assert_eq!(report["groups"].as_array().map(Vec::len), Some(12), "{report}");
        let kept = |topic: &str| {
            let topics = report["topics"].as_array().expect("topics");
            topics.iter().find(|row| row["topic"] == topic).expect("the topic")["offsets_kept"] == true
        };
        assert!(kept("shapes") && kept("stamped"), "{report}");
        assert!(!kept("transactions") && !kept("trimmed"), "{report}");
    }
    on_a_runtime(async {
        let (from, to) = (client(source), client(target));
        for topic in TOPICS.into_iter().filter(|topic| *topic != "compacted") {
            compare(&from, &from, topic, &format!("old-{topic}")).await;
            compare(&from, &to, topic, if topic == "shapes" { "forms" } else { topic }).await;
        }
        // Both sides may compact on: what each key has last is what counts.
        for topic in ["old-compacted", "compacted"] {
            let on = if topic == "compacted" { &to } else { &from };
            assert_eq!(last_values(on, topic).await, last_values(&from, "compacted").await);
        }
        let found = Admin::new(to.clone()).describe_topic("forms").await.expect("described");
        assert_eq!(found.partitions.len(), 3);
    });
    let configs = json(config_of(target, "forms"));
    assert!(configs.to_string().contains("1500000"), "{configs}");
    assert!(!json(config_of(target, "stamped")).to_string().contains("2147483647"));

    let (code, said) = refused(backup(target, "restore", store.path(), &["--rename", "shapes=forms"]));
    assert_eq!(code, 4, "{said}");
    let mut keyless = backup(source, "verify", store.path(), &[]);
    keyless.env_remove("TACCOLA_BACKUP_PASSPHRASE");
    assert_eq!(refused(keyless).0, 7);
    let mut wrong = backup(source, "describe", store.path(), &[]);
    wrong.env("TACCOLA_BACKUP_PASSPHRASE", "wrong horse battery staple");
    assert_eq!(refused(wrong).0, 7);
}

fn config_of(bootstrap: &str, topic: &str) -> Command {
    let mut command = Command::new(binary());
    command.args(["-b", bootstrap, "-o", "json", "topic", "describe", topic]);
    command
}

async fn last_values(client: &Client, topic: &str) -> BTreeMap<Option<Bytes>, Option<Bytes>> {
    let logs = read(client, topic).await;
    logs.into_iter().flat_map(|log| log.records).map(|(_, record)| (record.key, record.value)).collect()
}

#[test]
fn what_is_restored_is_what_was_there() {
    let (source, target) = (Broker::start(&BROKER), Broker::start(&BROKER));
    there_and_back(&source.bootstrap(), &target.bootstrap());
}

// ---- a JVM Kafka on either side --------------------------------------------------------------------------------------

/// Apache Kafka in a folder of its own.
struct Kafka {
    child: Child,
    port: u16,
    _home: TempDir,
}

impl Kafka {
    /// `None` where it is not installed.
    fn start(test: &str) -> Option<Self> {
        let home = tempfile::tempdir().expect("a folder");
        let (port, controller) = (free_port(), free_port());
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.voters=0@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}\noffsets.topic.replication.factor=1\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\nallow.everyone.if.no.acl.found=true\n",
            home.path().join("data").display()
        );
        BROKER.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        let file = home.path().join("kafka.properties");
        std::fs::write(&file, text).expect("kafka.properties is written");
        let mut tool = kafka_tool(test, "kafka.tools.StorageTool")?;
        run(tool.args(["format", "-t", "BACKbackBACKbackBACKba", "-c"]).arg(&file));
        let log = std::fs::File::create(home.path().join("kafka.log")).expect("kafka.log");
        let mut command = kafka_tool(test, "kafka.Kafka")?;
        command.arg(&file).stdin(Stdio::null()).stderr(log.try_clone().expect("a handle")).stdout(log);
        let kafka = Self { child: command.spawn().expect("java runs"), port, _home: home };
        let until = Instant::now() + JVM;
        let request = taccola_wire::messages::MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
        while !Conn::connect(port)
            .and_then(|mut conn| conn.call(&request, 12))
            .is_ok_and(|reply| !reply.brokers.is_empty())
        {
            assert!(Instant::now() < until, "Kafka did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(kafka)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Out of Kafka into Taccola and back again, with the ACLs that only Kafka has.
#[test]
fn kafka_to_taccola_and_back() {
    let Some(kafka) = Kafka::start("kafka_to_taccola_and_back") else { return };
    let jvm = format!("127.0.0.1:{}", kafka.port);
    let acl = taccola_client::admin::AclBinding {
        resource_type: 2,
        resource_name: "shapes".to_owned(),
        pattern_type: 3,
        principal: "User:reader".to_owned(),
        host: "*".to_owned(),
        operation: 3,
        permission: 3,
    };
    on_a_runtime(async {
        let made = Admin::new(client(&jvm)).create_acls(std::slice::from_ref(&acl)).await.expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    });
    let taccola = Broker::start(&BROKER);
    there_and_back(&jvm, &taccola.bootstrap());

    let store = tempfile::tempdir().expect("a folder");
    let own = json(backup(&taccola.bootstrap(), "create", store.path(), &[]));
    assert_eq!(own["acls"]["taken"], Value::Null, "{own}");
    assert!(own["acls"]["reason"].as_str().is_some_and(|reason| reason.contains("DescribeAcls")), "{own}");
    let back = json(backup(&jvm, "restore", store.path(), &["--prefix", "back-", "--read-back", "--no-groups"]));
    assert_eq!(back["failures"], Value::Array(vec![]), "{back}");
    on_a_runtime(async {
        let (from, to) = (client(&taccola.bootstrap()), client(&jvm));
        for topic in ["forms", "transactions", "stamped", "trimmed"] {
            let (before, after) = (read(&from, topic).await, read(&to, &format!("back-{topic}")).await);
            for (old, new) in before.iter().zip(&after) {
                assert_eq!(old.plain(), new.plain(), "{topic}");
            }
        }
    });

    let store = tempfile::tempdir().expect("a folder");
    let taken = json(backup(&jvm, "create", store.path(), &["-t", "shapes", "--no-groups"]));
    assert_eq!(taken["acls"]["taken"], 1, "{taken}");
    let arguments = ["--rename", "shapes=guarded", "--acls", "--no-groups"];
    let report = json(backup(&jvm, "restore", store.path(), &arguments));
    assert_eq!(report["acls"], 1, "{report}");
    on_a_runtime(async {
        let found = Admin::new(client(&jvm)).describe_acls().await.expect("ACLs");
        assert!(found.iter().any(|found| found.resource_name == "guarded" && found.principal == acl.principal));
    });
}

// ---- cuts under load -------------------------------------------------------------------------------------------------

const LOAD_PARTITIONS: usize = 3;
/// Between two records of a writer.
const REST: Duration = Duration::from_millis(1);

/// What writers know: how many records of a partition were sent, and how many acknowledged.
#[derive(Default)]
struct Known {
    sent: [AtomicU64; LOAD_PARTITIONS],
    acknowledged: [AtomicU64; LOAD_PARTITIONS],
    pairs_begun: AtomicU64,
    pairs_committed: AtomicU64,
    stop: AtomicBool,
}

/// Writes 0, 1, 2, … to one partition.
async fn count_up(client: Client, known: Arc<Known>, partition: usize) {
    let producer = Producer::new(client, ProducerConfig { linger: Duration::ZERO, ..Default::default() }).unwrap();
    let mut waiting = std::collections::VecDeque::new();
    while !known.stop.load(Ordering::SeqCst) {
        let next = known.sent[partition].fetch_add(1, Ordering::SeqCst);
        let record = ProducerRecord {
            topic: "load".into(),
            partition: Some(partition as i32),
            value: Some(next.to_string().into()),
            ..Default::default()
        };
        waiting.push_back(producer.send(record).await.expect("taken"));
        if waiting.len() > 20
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await.expect("acknowledged");
            known.acknowledged[partition].fetch_add(1, Ordering::SeqCst);
        }
        // Every cut reads all that was written: a campaign of many must not grow without bound.
        tokio::time::sleep(REST).await;
    }
}

/// Writes the same number to both partitions of `pairs`, in one transaction; every fourth is aborted.
async fn pair_up(client: Client, known: Arc<Known>) {
    let mut producer =
        TransactionalProducer::new(client, ProducerConfig::default(), TransactionConfig::new("pairs")).unwrap();
    producer.init().await.expect("a producer id");
    while !known.stop.load(Ordering::SeqCst) {
        let next = known.pairs_begun.fetch_add(1, Ordering::SeqCst);
        producer.begin().await.expect("begun");
        for partition in 0..2 {
            let value = Some(next.to_string().into());
            let record =
                ProducerRecord { topic: "pairs".into(), partition: Some(partition), value, ..Default::default() };
            producer.send(record).await.expect("taken");
        }
        if next % 4 == 3 {
            producer.abort().await.expect("aborted");
        } else {
            producer.commit().await.expect("committed");
            known.pairs_committed.store(next + 1, Ordering::SeqCst);
        }
    }
}

/// Commits, as the offset of the group `follower`, what was acknowledged.
async fn follow(client: Client, known: Arc<Known>) {
    let admin = Admin::new(client);
    while !known.stop.load(Ordering::SeqCst) {
        let committed = |partition: usize| {
            let offset = known.acknowledged[partition].load(Ordering::SeqCst) as i64;
            let place = TopicPartition::new("load", partition as i32);
            (place, CommittedOffset { offset, leader_epoch: -1, metadata: String::new() })
        };
        let offsets: Vec<_> = (0..LOAD_PARTITIONS).map(committed).collect();
        admin.alter_group_offsets("follower", &offsets).await.expect("committed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn numbers(log: &Log) -> Vec<u64> {
    let number = |record: &Plain| std::str::from_utf8(record.value.as_deref()?).ok()?.parse().ok();
    log.records.iter().map(|(_, record)| number(record).expect("a number")).collect()
}

/// Row 30 of the goals: random cuts under load, every other one incremental, each verified and restored; nothing that was
/// acknowledged before is missing, nothing is there that came later, no gap, no half of a transaction, no offset too far.
#[test]
fn random_cuts_under_load() {
    let (cuts, seed) = (number("CUTS", 4), number("SEED", 30));
    let source = Broker::start(&BROKER);
    let target = Broker::start(&BROKER);
    let store = tempfile::tempdir().expect("a folder");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let known = Arc::new(Known::default());
    let from = client(&source.bootstrap());
    let topic =
        |name: &str, partitions| NewTopic { name: name.to_owned(), partitions: Some(partitions), ..Default::default() };
    let topics = [topic("load", LOAD_PARTITIONS as i32), topic("pairs", 2)];
    runtime.block_on(Admin::new(from).create_topics(&topics, false)).expect("topics");
    let own = || client(&source.bootstrap());
    let mut writers: Vec<_> =
        (0..LOAD_PARTITIONS).map(|partition| runtime.spawn(count_up(own(), Arc::clone(&known), partition))).collect();
    writers.push(runtime.spawn(pair_up(own(), Arc::clone(&known))));
    writers.push(runtime.spawn(follow(own(), Arc::clone(&known))));

    runtime.block_on(async {
        let admin = Admin::new(own());
        let until = Instant::now() + taccola_it::WITHIN;
        while admin.group_offsets("follower", None).await.is_ok_and(|offsets| offsets.is_empty())
            || known.pairs_committed.load(Ordering::SeqCst) == 0
        {
            assert!(Instant::now() < until, "the load does not begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut rng = Rng(seed);
    let mut in_doubt = 0;
    let mut torn = 0;
    for cut in 0..cuts {
        std::thread::sleep(Duration::from_millis(rng.below(150)));
        let before: Vec<u64> = known.acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let pairs_before = known.pairs_committed.load(Ordering::SeqCst);
        let arguments: &[&str] = if cut % 4 == 0 { &[] } else { &["--incremental"] };
        let made = json(backup(&source.bootstrap(), "create", store.path(), arguments));
        let after: Vec<u64> = known.sent.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let pairs_after = known.pairs_begun.load(Ordering::SeqCst);
        let prefix = format!("cut{cut}-");
        let report = json(backup(&target.bootstrap(), "restore", store.path(), &["--prefix", &prefix, "--read-back"]));
        assert_eq!(report["failures"], Value::Array(vec![]), "{report}");

        let to = client(&target.bootstrap());
        let logs = runtime.block_on(read(&to, &format!("{prefix}load")));
        let follower = runtime.block_on(Admin::new(to.clone()).group_offsets("follower", None)).expect("offsets");
        for (partition, log) in logs.iter().enumerate() {
            let found = numbers(log);
            assert!(found.iter().copied().eq(0..found.len() as u64), "cut {cut}: a gap in load-{partition}");
            let (least, most) = (before[partition], after[partition]);
            let count = found.len() as u64;
            assert!((least..=most).contains(&count), "cut {cut}: load-{partition} has {count}, not {least} to {most}");
            let committed = &follower[&TopicPartition::new(format!("{prefix}load"), partition as i32)];
            assert!(committed.offset <= log.end, "cut {cut}: an offset beyond the cut");
        }
        let pairs = runtime.block_on(read(&to, &format!("{prefix}pairs")));
        let (left, right) = (numbers(&pairs[0]), numbers(&pairs[1]));
        let doubtful = made["cut"]["transactions_in_doubt"].as_array().is_some_and(|ids| !ids.is_empty());
        in_doubt += u64::from(doubtful);
        for found in [&left, &right] {
            assert!(found.iter().all(|number| number % 4 != 3), "cut {cut}: an aborted transaction");
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "cut {cut}: {found:?}");
            let whole = (0..pairs_before).filter(|number| number % 4 != 3).all(|number| found.contains(&number));
            assert!(whole, "cut {cut}: a committed transaction is missing");
            assert!(found.last().is_none_or(|last| *last < pairs_after), "cut {cut}: {found:?}");
        }
        torn += u64::from(left != right);
        assert!(left.len().abs_diff(right.len()) <= 1, "cut {cut}: {left:?} {right:?}");
        let topics: Vec<String> = ["load", "pairs"].iter().map(|topic| format!("{prefix}{topic}")).collect();
        runtime.block_on(Admin::new(to).delete_topics(&topics)).expect("deleted");
    }
    known.stop.store(true, Ordering::SeqCst);
    for writer in writers {
        runtime.block_on(writer).expect("a writer's end");
    }
    println!("{cuts} cuts of seed {seed}: {in_doubt} with a transaction in doubt, {torn} with a torn one");
    assert!(torn <= in_doubt + cuts / 20, "transactions were torn more often than they were in doubt");
}

// ---- kills and damage ------------------------------------------------------------------------------------------------

/// Some megabytes, so that there is a middle to be killed in.
fn bulk(bootstrap: &str, topic: &str) {
    on_a_runtime(async {
        let client = client(bootstrap);
        let new = NewTopic { name: topic.to_owned(), partitions: Some(4), ..Default::default() };
        Admin::new(client.clone()).create_topics(&[new], false).await.expect("a topic");
        let producer = Producer::new(client, ProducerConfig::default()).unwrap();
        for number in 0..6_000_u32 {
            let value = [number.to_be_bytes(); 500].concat();
            let record = ProducerRecord {
                topic: topic.into(),
                partition: Some((number % 4) as i32),
                value: Some(value.into()),
                ..Default::default()
            };
            producer.send(record).await.expect("taken");
        }
        producer.flush().await.expect("written");
    });
}

/// Kills a command after a while; whether it was still running.
fn kill_after(command: &mut Command, delay: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    std::thread::sleep(delay);
    let running = child.try_wait().expect("our child").is_none();
    let _ = child.kill();
    let _ = child.wait();
    running
}

fn states(bootstrap: &str, store: &Path) -> Vec<String> {
    let listed = json(backup(bootstrap, "list", store, &[]));
    listed.as_array().expect("a list").iter().map(|row| row["state"].as_str().expect("a state").to_owned()).collect()
}

#[test]
fn a_killed_run_leaves_nothing_that_looks_like_a_backup() {
    let broker = Broker::start(&BROKER);
    let bootstrap = broker.bootstrap();
    bulk(&bootstrap, "bulk");
    let store = tempfile::tempdir().expect("a folder");
    let mut rng = Rng(number("SEED", 9));
    for _ in 0..3 {
        let mut create = backup(&bootstrap, "create", store.path(), &["--jobs", "1"]);
        kill_after(&mut create, Duration::from_millis(150 + rng.below(400)));
    }
    let killed = states(&bootstrap, store.path());
    assert!(killed.iter().all(|state| state == "complete" || state == "unfinished"), "{killed:?}");
    for _ in killed.iter().filter(|state| *state == "complete") {
        json(backup(&bootstrap, "verify", store.path(), &[]));
    }
    let made = json(backup(&bootstrap, "create", store.path(), &[]));
    json(backup(&bootstrap, "verify", store.path(), &[made["id"].as_str().expect("an id")]));
    let cleaned = json(backup(&bootstrap, "clean", store.path(), &["--older-than", "0", "--execute"]));
    let unfinished = killed.iter().filter(|state| *state == "unfinished").count();
    assert_eq!(cleaned.as_array().map(Vec::len), Some(unfinished), "{cleaned}");
    assert!(states(&bootstrap, store.path()).iter().all(|state| state == "complete"));
    let folders = std::fs::read_dir(store.path().join("data")).expect("data").filter_map(Result::ok);
    // A directory keeps what a killed upload had staged under NAME#N, which no listing shows.
    let whole =
        |file: std::io::Result<std::fs::DirEntry>| !file.expect("a file").file_name().to_string_lossy().contains('#');
    let with_files = folders.filter(|folder| std::fs::read_dir(folder.path()).is_ok_and(|mut files| files.any(whole)));
    assert_eq!(with_files.count(), states(&bootstrap, store.path()).len());

    // A restore that is killed refuses to begin again by itself, and goes on when told.
    let mut restore = backup(&bootstrap, "restore", store.path(), &["--prefix", "r-", "--jobs", "1", "--no-verify"]);
    kill_after(&mut restore, Duration::from_millis(300));
    let report = json(backup(&bootstrap, "restore", store.path(), &["--prefix", "r-", "--resume", "--read-back"]));
    assert_eq!(report["failures"], Value::Array(vec![]), "{report}");
    on_a_runtime(async {
        let client = client(&bootstrap);
        let (before, after) = (read(&client, "bulk").await, read(&client, "r-bulk").await);
        assert!(before.iter().zip(&after).all(|(old, new)| old.plain() == new.plain() && old.end == new.end));
    });
}

/// The broker is killed and comes back while it is backed up, and while it is restored into.
#[test]
fn a_killed_broker_is_waited_for() {
    let mut broker = Broker::start(&BROKER);
    let bootstrap = broker.bootstrap();
    bulk(&bootstrap, "bulk");
    let store = tempfile::tempdir().expect("a folder");
    for (verb, arguments) in [("create", &["--jobs", "2"][..]), ("restore", &["--prefix", "r-", "--read-back"][..])] {
        let mut command = backup(&bootstrap, verb, store.path(), arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        eventually("the run to begin", || {
            let begun = match verb {
                "create" => std::fs::read_dir(store.path().join("runs")).is_ok_and(|mut runs| runs.next().is_some()),
                _ => {
                    let mut conn = Conn::connect(broker.port).expect("a connection");
                    taccola_it::requests::topics(&mut conn).contains(&"r-bulk".to_owned())
                }
            };
            begun.then_some(())
        });
        broker.kill();
        broker.launch();
        let output = child.wait_with_output().expect("our child");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {said}");
    }
    json(backup(&bootstrap, "verify", store.path(), &[]));
    on_a_runtime(async {
        let client = client(&bootstrap);
        let (before, after) = (read(&client, "bulk").await, read(&client, "r-bulk").await);
        assert!(before.iter().zip(&after).all(|(old, new)| old.plain() == new.plain()));
    });
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// What is damaged is named with what is lost, nothing of it is restored; mended, all is well again. A topic that was made
/// anew is taken in full.
#[test]
fn damage_is_named_and_refused() {
    let broker = Broker::start(&BROKER);
    let bootstrap = broker.bootstrap();
    bulk(&bootstrap, "bulk");
    let store = tempfile::tempdir().expect("a folder");
    json(backup(&bootstrap, "create", store.path(), &["--cipher", "aes-256-ctr-hmac-sha-256", "--kdf", "pbkdf2"]));
    let mut rng = Rng(number("SEED", 5));
    for file in files(&store.path().join("data")) {
        let whole = std::fs::read(&file).expect("an object");
        let mut damaged = whole.clone();
        let at = rng.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << rng.below(8);
        std::fs::write(&file, &damaged).expect("damaged");
        let (code, said) = refused(backup(&bootstrap, "verify", store.path(), &[]));
        assert!(code == 1 && said.contains("bulk") && said.contains("first_offset"), "{code} {said}");
        let (code, _) = refused(backup(&bootstrap, "verify", store.path(), &["--checksums-only"]));
        assert_eq!(code, 1);
        let (code, said) = refused(backup(&bootstrap, "restore", store.path(), &["--prefix", "r-"]));
        assert!(code == 1 && said.contains("data/"), "{code} {said}");
        std::fs::write(&file, &whole).expect("mended");
    }
    json(backup(&bootstrap, "verify", store.path(), &[]));
    on_a_runtime(async {
        let admin = Admin::new(client(&bootstrap));
        admin.delete_topics(&["bulk".to_owned()]).await.expect("deleted");
        eventually("the topic to be gone", || {
            (!taccola_it::requests::topics(&mut Conn::connect(broker.port).expect("a connection"))
                .contains(&"bulk".to_owned()))
            .then_some(())
        });
    });
    bulk(&bootstrap, "bulk");
    let anew = json(backup(&bootstrap, "create", store.path(), &["--incremental"]));
    assert_eq!(anew["topics"][0]["kind"], "full", "{anew}");
    assert!(anew["notes"].to_string().contains("made anew"), "{anew}");
}

// ---- an object store -------------------------------------------------------------------------------------------------

/// S3, with objects of several parts.
#[test]
fn s3_is_a_store() {
    let Some(python) = python("backup_s3", "moto.server") else { return };
    let moto = Moto::start(&python);
    moto.make_bucket("backups");
    let broker = Broker::start(&BROKER);
    let bootstrap = broker.bootstrap();
    bulk(&bootstrap, "bulk");
    let endpoint = format!("endpoint=http://127.0.0.1:{}", moto.port);
    let on_s3 = |verb: &str, arguments: &[&str]| {
        let mut command = backup(&bootstrap, verb, Path::new("s3://backups/some/prefix"), arguments);
        command.args(["--store-option", &endpoint, "--store-option", "allow.http=true"]);
        command.args(["--store-option", "region=us-east-1"]);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        json(command)
    };
    on_s3("create", &["--jobs", "1"]);
    bulk(&bootstrap, "more");
    on_s3("create", &["--incremental"]);
    assert_eq!(on_s3("list", &[]).as_array().map(Vec::len), Some(2));
    assert_eq!(on_s3("verify", &[])["state"], "good");
    let report = on_s3("restore", &["--prefix", "r-", "--read-back"]);
    assert_eq!(report["failures"], Value::Array(vec![]), "{report}");
    on_a_runtime(async {
        let client = client(&bootstrap);
        for topic in ["bulk", "more"] {
            let (before, after) = (read(&client, topic).await, read(&client, &format!("r-{topic}")).await);
            assert!(before.iter().zip(&after).all(|(old, new)| old.plain() == new.plain()));
        }
    });
}
