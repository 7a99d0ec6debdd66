//! Our own clients (crate `client`) against a broker: transactions, groups of KIP-848, share groups, administration, and the
//! commands that stand on them. `KAFKA_ORACLE=HOST:PORT` runs them against that broker instead, e.g. a JVM Kafka.
//!
//! A test whose APIs the broker does not advertise is reported as not run.

use std::future::Future;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_base::TopicPartition;
use taccola_client::admin::{CommittedOffset, ConfigOp, ConfigResource, NewTopic, OffsetSpec, ResourceType};
use taccola_client::{
    AckMode, AckType, Admin, Client, ClientConfig, Consumer, ConsumerConfig, ConsumerRecord, Error, GroupConfig,
    GroupConsumer, GroupMetadata, GroupProtocol, IsolationLevel, ProducerConfig, ProducerRecord, ShareConfig,
    ShareConsumer, ShareRecord, StartOffset, TransactionConfig, TransactionalProducer,
};
use taccola_it::{Broker, WITHIN, binary, clients};
use taccola_wire::api::ApiKey;
use taccola_wire::error::ErrorCode;

/// The broker under test.
enum Target {
    Taccola(Broker),
    Oracle(String),
}

impl Target {
    fn start() -> Self {
        match std::env::var("KAFKA_ORACLE") {
            Ok(address) if !address.is_empty() => Self::Oracle(address),
            _ => Self::Taccola(Broker::start(&[
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "share.coordinator.state.topic.replication.factor=1",
                "share.coordinator.state.topic.min.isr=1",
            ])),
        }
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Taccola(broker) => broker.bootstrap(),
            Self::Oracle(address) => address.clone(),
        }
    }

    fn client(&self) -> Client {
        Client::new(ClientConfig::new(&self.bootstrap()).expect("an address"))
    }

    /// The command line against this broker.
    fn taccola(&self, arguments: &str) -> Command {
        let mut command = Command::new(binary());
        command.arg("--bootstrap").arg(self.bootstrap()).args(arguments.split_whitespace());
        command
    }
}

/// Runs a test on a runtime of its own, if the broker serves what it needs.
fn with_broker<F: Future<Output = ()>>(test: &str, needs: &[ApiKey], body: impl FnOnce(Arc<Target>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let target = Arc::new(Target::start());
        let api = target.client().any().await.expect("the broker answers");
        if let Some(absent) = needs.iter().find(|key| api.served(**key).is_none()) {
            println!("{} {test}: the broker does not serve {}", clients::ABSENT, absent.info().name);
            return;
        }
        body(target).await;
    });
}

const TRANSACTIONS: [ApiKey; 2] = [ApiKey::EndTxn, ApiKey::TxnOffsetCommit];
const CONSUMER_GROUPS: [ApiKey; 1] = [ApiKey::ConsumerGroupHeartbeat];

/// A name that no other run uses: the oracle keeps its topics.
fn fresh(name: &str) -> String {
    format!("{name}-{}", taccola_base::Uuid::random())
}

async fn new_topic(client: &Client, name: &str, partitions: i32) -> String {
    let name = fresh(name);
    let topic = NewTopic { name: name.clone(), partitions: Some(partitions), ..Default::default() };
    let made = Admin::new(client.clone()).create_topics(&[topic], false).await.expect("an answer");
    for (_, outcome) in made {
        outcome.expect("the topic is made");
    }
    name
}

fn record(topic: &str, partition: i32, value: &str) -> ProducerRecord {
    ProducerRecord {
        topic: topic.into(),
        partition: Some(partition),
        value: Some(value.to_owned().into()),
        ..Default::default()
    }
}

fn values(records: &[ConsumerRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap_or_default()).into_owned()).collect()
}

/// All of partition 0.
async fn read(client: &Client, topic: &str, isolation: IsolationLevel) -> Vec<String> {
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig { isolation, ..Default::default() });
    consumer.assign(&[(TopicPartition::new(topic, 0), StartOffset::Earliest)]).await.expect("assigned");
    let (mut found, until) = (Vec::new(), Instant::now() + WITHIN);
    while !consumer.at_end() {
        assert!(Instant::now() < until, "the end of {topic} is not reached");
        found.extend(values(&consumer.poll(Duration::from_millis(200)).await.expect("polled")));
    }
    found
}

/// What is committed of partition 0, once there are `count` records: a commit is acknowledged before its markers are seen.
async fn committed(client: &Client, topic: &str, count: usize) -> Vec<String> {
    let until = Instant::now() + WITHIN;
    loop {
        let found = read(client, topic, IsolationLevel::ReadCommitted).await;
        if found.len() >= count || Instant::now() >= until {
            return found;
        }
    }
}

fn transactional(client: &Client, id: &str) -> TransactionalProducer {
    let config = ProducerConfig { linger: Duration::ZERO, ..Default::default() };
    TransactionalProducer::new(client.clone(), config, TransactionConfig::new(id)).expect("a producer")
}

async fn produce(client: &Client, topic: &str, partition: i32, values: &[&str]) {
    let producer = taccola_client::Producer::new(client.clone(), ProducerConfig::default()).expect("a producer");
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push(producer.send(record(topic, partition, value)).await.expect("queued"));
    }
    for delivery in deliveries {
        delivery.await.expect("delivered");
    }
}

// ---- transactions ----------------------------------------------------------------------------------------------------

#[test]
fn committed_and_aborted_transactions_follow_one_another() {
    with_broker("committed_and_aborted_transactions_follow_one_another", &TRANSACTIONS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "txn", 2).await;
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        for round in 0..4 {
            producer.begin().await.expect("begun");
            for partition in 0..2 {
                let delivery = producer.send(record(&topic, partition, &format!("{round}"))).await.expect("queued");
                delivery.await.expect("delivered");
            }
            match round % 2 {
                0 => producer.commit().await.expect("committed"),
                _ => producer.abort().await.expect("aborted"),
            }
        }
        // Nothing was sent: there is nothing to tell the coordinator.
        producer.begin().await.expect("begun");
        producer.commit().await.expect("committed");
        assert_eq!(committed(&client, &topic, 2).await, ["0", "2"]);
        assert_eq!(read(&client, &topic, IsolationLevel::ReadUncommitted).await, ["0", "1", "2", "3"]);
    });
}

#[test]
fn an_open_transaction_is_seen_by_nobody_who_reads_committed() {
    with_broker("an_open_transaction_is_seen_by_nobody_who_reads_committed", &TRANSACTIONS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "open", 1).await;
        produce(&client, &topic, 0, &["before"]).await;
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        producer.begin().await.expect("begun");
        producer.send(record(&topic, 0, "inside")).await.expect("queued").await.expect("delivered");
        produce(&client, &topic, 0, &["behind"]).await;
        assert_eq!(read(&client, &topic, IsolationLevel::ReadCommitted).await, ["before"]);
        assert_eq!(read(&client, &topic, IsolationLevel::ReadUncommitted).await, ["before", "inside", "behind"]);
        producer.commit().await.expect("committed");
        assert_eq!(committed(&client, &topic, 3).await, ["before", "inside", "behind"]);
    });
}

#[test]
fn a_second_producer_of_an_id_fences_the_first_and_aborts_its_transaction() {
    with_broker("a_second_producer_of_an_id_fences_the_first", &TRANSACTIONS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "fenced", 1).await;
        let id = fresh("id");
        let mut zombie = transactional(&client, &id);
        zombie.init().await.expect("initialized");
        zombie.begin().await.expect("begun");
        zombie.send(record(&topic, 0, "zombie")).await.expect("queued").await.expect("delivered");

        let mut heir = transactional(&target.client(), &id);
        heir.init().await.expect("initialized");
        heir.begin().await.expect("begun");
        heir.send(record(&topic, 0, "heir")).await.expect("queued").await.expect("delivered");
        heir.commit().await.expect("committed");

        let error = zombie.commit().await.expect_err("the zombie is fenced");
        assert!(matches!(error, Error::Fenced { .. }), "{error}");
        assert!(matches!(zombie.begin().await, Err(Error::Fenced { .. })), "for good");
        assert_eq!(committed(&client, &topic, 1).await, ["heir"]);
    });
}

#[test]
fn a_failed_record_leaves_a_transaction_to_be_aborted_and_its_producer_usable() {
    with_broker("a_failed_record_leaves_a_transaction_to_be_aborted", &TRANSACTIONS, async |target| {
        let client = target.client();
        let name = fresh("small");
        let configs = vec![("max.message.bytes".to_owned(), "1000".to_owned())];
        let topic = NewTopic { name: name.clone(), partitions: Some(1), configs, ..Default::default() };
        Admin::new(client.clone()).create_topics(&[topic], false).await.expect("made");
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        for round in 0..3 {
            producer.begin().await.expect("begun");
            producer.send(record(&name, 0, "aborted")).await.expect("queued").await.expect("delivered");
            let large = producer.send(record(&name, 0, &"x".repeat(5_000))).await.expect("queued");
            let refused = large.await.expect_err("too large");
            assert_eq!(refused.code(), Some(ErrorCode::MessageTooLarge), "{refused}");
            let error = producer.commit().await.expect_err("must be aborted");
            assert!(matches!(error, Error::Abortable { .. }), "{error}");
            assert!(matches!(producer.send(record(&name, 0, "late")).await, Err(Error::Abortable { .. })));
            producer.abort().await.expect("aborted");
            producer.begin().await.expect("begun");
            let sent = producer.send(record(&name, 0, &format!("{round}"))).await.expect("queued");
            producer.commit().await.expect("committed");
            sent.await.expect("delivered");
        }
        assert_eq!(committed(&client, &name, 3).await, ["0", "1", "2"]);
    });
}

#[test]
fn batches_that_are_too_large_for_their_topic_are_sent_in_parts() {
    with_broker("batches_that_are_too_large_for_their_topic", &TRANSACTIONS, async |target| {
        let client = target.client();
        let name = fresh("parts");
        let configs = vec![("max.message.bytes".to_owned(), "500".to_owned())];
        let topic = NewTopic { name: name.clone(), partitions: Some(1), configs, ..Default::default() };
        Admin::new(client.clone()).create_topics(&[topic], false).await.expect("made");
        let wanted: Vec<String> = (0..300).map(|n| format!("record {n} {}", "x".repeat(n % 100))).collect();
        let values: Vec<&str> = wanted.iter().map(String::as_str).collect();
        produce(&client, &name, 0, &values).await;
        assert_eq!(read(&client, &name, IsolationLevel::ReadUncommitted).await, wanted);
    });
}

#[test]
fn an_abort_drops_what_was_not_sent() {
    with_broker("an_abort_drops_what_was_not_sent", &TRANSACTIONS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "dropped", 1).await;
        let config = ProducerConfig { linger: Duration::from_secs(60), ..Default::default() };
        let id = TransactionConfig::new(fresh("id"));
        let mut producer = TransactionalProducer::new(client.clone(), config, id).expect("a producer");
        producer.init().await.expect("initialized");
        producer.begin().await.expect("begun");
        let lingering = producer.send(record(&topic, 0, "dropped")).await.expect("queued");
        producer.abort().await.expect("aborted");
        lingering.await.expect_err("never sent");
        producer.begin().await.expect("begun");
        let kept = producer.send(record(&topic, 0, "kept")).await.expect("queued");
        producer.commit().await.expect("committed");
        kept.await.expect("delivered");
        assert_eq!(read(&client, &topic, IsolationLevel::ReadUncommitted).await, ["kept"]);
    });
}

#[test]
fn offsets_count_when_their_transaction_commits() {
    with_broker("offsets_count_when_their_transaction_commits", &TRANSACTIONS, async |target| {
        let client = target.client();
        let admin = Admin::new(client.clone());
        let topic = new_topic(&client, "etl", 1).await;
        let group = fresh("group");
        let partition = TopicPartition::new(topic.as_str(), 0);
        let offset = |offset| CommittedOffset { offset, leader_epoch: -1, metadata: "m".to_owned() };
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        for (at, commit) in [(3, false), (5, true), (7, false)] {
            producer.begin().await.expect("begun");
            producer.send(record(&topic, 0, "x")).await.expect("queued");
            let offsets = [(partition.clone(), offset(at))];
            producer.send_offsets(&offsets, &GroupMetadata::of_group(&group)).await.expect("taken along");
            match commit {
                true => producer.commit().await.expect("committed"),
                false => producer.abort().await.expect("aborted"),
            }
            let committed = admin.group_offsets(&group, Some(std::slice::from_ref(&partition))).await;
            let committed = committed.expect("offsets");
            let expected = (at >= 5).then(|| offset(5));
            assert_eq!(committed.get(&partition), expected.as_ref(), "after {at}");
        }
        // Who is no member cannot commit in a member's name.
        producer.begin().await.expect("begun");
        let stranger =
            GroupMetadata { generation: 3, member_id: "stranger".to_owned(), ..GroupMetadata::of_group(&group) };
        let refused = producer.send_offsets(&[(partition, offset(9))], &stranger).await.expect_err("no member");
        assert!(matches!(refused, Error::Abortable { .. }), "{refused}");
        producer.abort().await.expect("aborted");
    });
}

// ---- groups of KIP-848 -----------------------------------------------------------------------------------------------

fn group_config(group: &str, topics: &[&str]) -> GroupConfig {
    GroupConfig {
        protocol: GroupProtocol::Consumer,
        start: OffsetSpec::Earliest,
        auto_commit: Some(Duration::from_millis(100)),
        ..GroupConfig::new(group, topics.iter().map(|t| (*t).to_owned()))
    }
}

fn join(client: &Client, config: GroupConfig) -> GroupConsumer {
    GroupConsumer::new(client.clone(), ConsumerConfig::default(), config)
}

/// Polls all members until `done`; returns what they read.
async fn poll_until(
    what: &str,
    members: &mut [&mut GroupConsumer],
    mut done: impl FnMut(&[&mut GroupConsumer], &[String]) -> bool,
) -> Vec<String> {
    let (mut found, until) = (Vec::new(), Instant::now() + WITHIN);
    while !done(members, &found) {
        assert!(Instant::now() < until, "waited for: {what}; read so far: {found:?}");
        for member in members.iter_mut() {
            found.extend(values(&member.poll(Duration::from_millis(50)).await.expect("polled")));
        }
    }
    found
}

fn owned(members: &[&mut GroupConsumer]) -> Vec<usize> {
    members.iter().map(|member| member.positions().len()).collect()
}

#[test]
fn the_broker_assigns_and_members_follow() {
    with_broker("the_broker_assigns_and_members_follow", &CONSUMER_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "modern", 4).await;
        let group = fresh("group");
        for partition in 0..4 {
            produce(&client, &topic, partition, &["a"]).await;
        }
        let mut first = join(&client, group_config(&group, &[&topic]));
        let read = poll_until("all records", &mut [&mut first], |_, found| found.len() == 4).await;
        assert_eq!(read, ["a"; 4]);
        let mut second = join(&target.client(), group_config(&group, &[&topic]));
        let members = &mut [&mut first, &mut second];
        let again = poll_until("an even share", members, |members, _| owned(members) == [2, 2]).await;
        assert!(again.is_empty(), "committed before it was given up: {again:?}");

        let description = Admin::new(client.clone()).describe_group(&group).await.expect("described");
        assert_eq!((description.kind.as_str(), description.members.len()), ("consumer", 2));
        second.close().await.expect("closed");
        let again = poll_until("everything again", &mut [&mut first], |members, _| owned(members) == [4]).await;
        assert!(again.is_empty(), "committed on leaving: {again:?}");
        produce(&client, &topic, 3, &["b"]).await;
        assert_eq!(poll_until("a new record", &mut [&mut first], |_, found| !found.is_empty()).await, ["b"]);
        first.close().await.expect("closed");
        let committed = Admin::new(client.clone()).group_offsets(&group, None).await.expect("offsets");
        assert_eq!(committed.values().map(|c| c.offset).sum::<i64>(), 5);
    });
}

#[test]
fn a_regular_expression_is_the_brokers_to_evaluate() {
    with_broker("a_regular_expression_is_the_brokers_to_evaluate", &CONSUMER_GROUPS, async |target| {
        let client = target.client();
        let prefix = fresh("regex");
        for name in ["a", "b"] {
            let topic = format!("{prefix}-{name}");
            let new = NewTopic { name: topic.clone(), partitions: Some(1), ..Default::default() };
            Admin::new(client.clone()).create_topics(&[new], false).await.expect("made");
            produce(&client, &topic, 0, &[name]).await;
        }
        let regex = Some(format!("{prefix}-[a-z]"));
        let config = GroupConfig { topics_regex: regex, ..group_config(&fresh("group"), &[]) };
        let mut member = join(&client, config);
        let mut read = poll_until("both topics", &mut [&mut member], |_, found| found.len() == 2).await;
        read.sort();
        assert_eq!(read, ["a", "b"]);
        member.close().await.expect("closed");

        let bad = GroupConfig { topics_regex: Some("[".to_owned()), ..group_config(&fresh("group"), &[]) };
        let mut member = join(&client, bad);
        let until = Instant::now() + WITHIN;
        let error = loop {
            assert!(Instant::now() < until, "not refused");
            if let Err(error) = member.poll(Duration::from_millis(50)).await {
                break error;
            }
        };
        assert_eq!(error.code(), Some(ErrorCode::InvalidRegularExpression), "{error}");
    });
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    with_broker("a_static_member_comes_back_to_its_partitions", &CONSUMER_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "static", 2).await;
        let group = fresh("group");
        let config =
            |instance: &str| GroupConfig { instance_id: Some(instance.to_owned()), ..group_config(&group, &[&topic]) };
        let (mut one, mut two) = (join(&client, config("one")), join(&target.client(), config("two")));
        let members = &mut [&mut one, &mut two];
        poll_until("an even share", members, |members, _| owned(members) == [1, 1]).await;
        let before = one.positions();
        one.close().await.expect("closed");
        poll_until("a few rounds", &mut [&mut two], |members, _| owned(members) == [1]).await;
        let mut back = join(&target.client(), config("one"));
        poll_until("its share", &mut [&mut back, &mut two], |members, _| owned(members) == [1, 1]).await;
        assert_eq!(back.positions().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());

        let mut thief = join(&target.client(), config("one"));
        let until = Instant::now() + WITHIN;
        let error = loop {
            assert!(Instant::now() < until, "not refused");
            if let Err(error) = thief.poll(Duration::from_millis(50)).await {
                break error;
            }
        };
        assert_eq!(error.code(), Some(ErrorCode::UnreleasedInstanceId), "{error}");
    });
}

#[test]
fn a_member_that_was_put_out_joins_again_and_rereads_what_was_not_committed() {
    with_broker("a_member_that_was_put_out_joins_again", &CONSUMER_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "fenced", 1).await;
        produce(&client, &topic, 0, &["a"]).await;
        let group = fresh("group");
        let config = GroupConfig { auto_commit: None, ..group_config(&group, &[&topic]) };
        let mut member = join(&client, config);
        poll_until("the record", &mut [&mut member], |_, found| found == ["a"]).await;
        let metadata = member.group_metadata();
        // Somebody says in its name that it leaves.
        let api = client.coordinator(&group, taccola_client::cluster::Lane::General).await.expect("a coordinator");
        let leave = taccola_wire::messages::ConsumerGroupHeartbeatRequest {
            group_id: group.clone(),
            member_id: metadata.member_id.clone(),
            member_epoch: -1,
            ..Default::default()
        };
        let left = client.request(&api, &leave, 0).await.expect("an answer");
        assert_eq!(left.error_code, 0, "{left:?}");
        poll_until("the record once more", &mut [&mut member], |_, found| found == ["a"]).await;
        member.commit().await.expect("committed");
        member.close().await.expect("closed");
    });
}

#[test]
fn offsets_of_a_member_go_along_with_a_transaction() {
    let needs = [ApiKey::EndTxn, ApiKey::TxnOffsetCommit, ApiKey::ConsumerGroupHeartbeat];
    with_broker("offsets_of_a_member_go_along_with_a_transaction", &needs, async |target| {
        let client = target.client();
        let (from, to) = (new_topic(&client, "from", 1).await, new_topic(&client, "to", 1).await);
        let group = fresh("group");
        produce(&client, &from, 0, &["a", "b"]).await;
        let config = GroupConfig { auto_commit: None, ..group_config(&group, &[&from]) };
        let mut member = join(&client, config);
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        let read_values = poll_until("the records", &mut [&mut member], |_, found| found.len() == 2).await;
        producer.begin().await.expect("begun");
        for value in &read_values {
            producer.send(record(&to, 0, value)).await.expect("queued");
        }
        let positions = member.positions().into_iter();
        let offset = |offset| CommittedOffset { offset, leader_epoch: -1, metadata: String::new() };
        let offsets: Vec<_> = positions.map(|(partition, at)| (partition, offset(at))).collect();
        producer.send_offsets(&offsets, &member.group_metadata()).await.expect("taken along");
        producer.commit().await.expect("committed");
        assert_eq!(committed(&client, &to, 2).await, ["a", "b"]);
        let asked = [TopicPartition::new(from.as_str(), 0)];
        let committed = Admin::new(client.clone()).group_offsets(&group, Some(&asked)).await.expect("offsets");
        assert_eq!(committed.values().map(|c| c.offset).collect::<Vec<_>>(), [2]);
    });
}

// ---- share groups ----------------------------------------------------------------------------------------------------

const SHARE_GROUPS: [ApiKey; 3] = [ApiKey::ShareGroupHeartbeat, ApiKey::ShareFetch, ApiKey::ShareAcknowledge];

/// A share group that starts where the topic starts.
async fn share_group(client: &Client) -> String {
    let group = fresh("share");
    let resource = ConfigResource { kind: ResourceType::Group, name: group.clone() };
    let earliest = [("share.auto.offset.reset".to_owned(), ConfigOp::Set("earliest".to_owned()))];
    Admin::new(client.clone()).alter_configs(&resource, &earliest, false).await.expect("configured");
    group
}

fn share(client: &Client, group: &str, topic: &str, mode: AckMode) -> ShareConsumer {
    let config = ShareConfig { mode, ..ShareConfig::new(group, [topic.to_owned()]) };
    ShareConsumer::new(client.clone(), config)
}

/// Polls until so many records came.
async fn acquire(consumer: &mut ShareConsumer, count: usize) -> Vec<ShareRecord> {
    let (mut found, until) = (Vec::new(), Instant::now() + WITHIN);
    while found.len() < count {
        assert!(Instant::now() < until, "waited for {count} records, got {found:?}");
        found.extend(consumer.poll(Duration::from_millis(200)).await.expect("polled"));
    }
    found
}

fn delivered(records: &[ShareRecord]) -> Vec<(String, i16)> {
    records.iter().map(|r| (values(std::slice::from_ref(&r.record)).remove(0), r.delivery_count)).collect()
}

fn all_ok(outcomes: std::collections::BTreeMap<TopicPartition, Result<(), Error>>) -> usize {
    let count = outcomes.len();
    outcomes.into_iter().for_each(|(partition, outcome)| outcome.unwrap_or_else(|e| panic!("{partition}: {e}")));
    count
}

#[test]
fn records_are_accepted_released_and_rejected_one_by_one() {
    with_broker("records_are_accepted_released_and_rejected_one_by_one", &SHARE_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "queue", 1).await;
        let group = share_group(&client).await;
        produce(&client, &topic, 0, &["accept", "release", "reject", "release"]).await;
        let mut consumer = share(&client, &group, &topic, AckMode::Explicit);
        let records = acquire(&mut consumer, 4).await;
        assert!(consumer.acquisition_lock_timeout().is_some());
        assert!(consumer.poll(Duration::ZERO).await.is_err(), "not everything is decided");
        for record in &records {
            let decision = match values(std::slice::from_ref(&record.record))[0].as_str() {
                "accept" => AckType::Accept,
                "release" => AckType::Release,
                _ => AckType::Reject,
            };
            consumer.acknowledge(record, decision).expect("held");
        }
        assert_eq!(all_ok(consumer.commit().await.expect("committed")), 1);
        assert!(consumer.acknowledge(&records[0], AckType::Accept).is_err(), "no longer held");
        let again = acquire(&mut consumer, 2).await;
        assert_eq!(delivered(&again), [("release".to_owned(), 2), ("release".to_owned(), 2)]);
        for record in &again {
            consumer.acknowledge(record, AckType::Accept).expect("held");
        }
        assert!(consumer.poll(Duration::from_millis(700)).await.expect("polled").is_empty(), "sent along with a fetch");
        assert!(consumer.take_failures().is_empty());
        consumer.close().await.expect("closed");
    });
}

#[test]
fn a_renewed_record_stays_until_it_is_decided_on() {
    with_broker("a_renewed_record_stays_until_it_is_decided_on", &SHARE_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "renew", 1).await;
        let group = share_group(&client).await;
        produce(&client, &topic, 0, &["slow", "fast"]).await;
        let mut consumer = share(&client, &group, &topic, AckMode::Explicit);
        let records = acquire(&mut consumer, 2).await;
        consumer.acknowledge(&records[0], AckType::Renew).expect("held");
        consumer.acknowledge(&records[1], AckType::Accept).expect("held");
        produce(&client, &topic, 0, &["next"]).await;
        let next = acquire(&mut consumer, 1).await;
        assert_eq!(delivered(&next), [("next".to_owned(), 1)]);
        assert_eq!(consumer.undecided(), 2);
        consumer.acknowledge(&records[0], AckType::Accept).expect("still held");
        consumer.acknowledge(&next[0], AckType::Accept).expect("held");
        assert_eq!(all_ok(consumer.commit().await.expect("committed")), 1);
        consumer.close().await.expect("closed");
    });
}

#[test]
fn members_share_a_partition_and_what_one_leaves_behind_comes_again() {
    with_broker("members_share_a_partition", &SHARE_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "shared", 1).await;
        let group = share_group(&client).await;
        produce(&client, &topic, 0, &["a", "b"]).await;
        let mut first = share(&client, &group, &topic, AckMode::Explicit);
        let records = acquire(&mut first, 2).await;
        let mut second = share(&target.client(), &group, &topic, AckMode::Implicit);
        let until = Instant::now() + WITHIN;
        while second.assigned().count() == 0 {
            assert!(Instant::now() < until, "nothing is assigned");
            assert!(second.poll(Duration::from_millis(100)).await.expect("polled").is_empty(), "held by the first");
        }
        let description = Admin::new(client.clone()).describe_group(&group).await.expect("described");
        assert_eq!((description.kind.as_str(), description.members.len()), ("share", 2));
        first.acknowledge(&records[0], AckType::Accept).expect("held");
        // Closing gives back what is undecided.
        all_ok(first.close().await.expect("closed"));
        let rest = acquire(&mut second, 1).await;
        assert_eq!(delivered(&rest), [("b".to_owned(), 2)]);
        // Accepted by closing.
        assert_eq!(all_ok(second.close().await.expect("closed")), 1);
        let admin = Admin::new(client.clone());
        let until = Instant::now() + WITHIN;
        loop {
            // Kafka moves the start only with the next write, and counts what was delivered before it out of the lag.
            let offsets = admin.share_group_offsets(&group, None).await.expect("offsets");
            let partition = offsets.get(&TopicPartition::new(topic.as_str(), 0)).expect("the partition is known");
            match (partition.start_offset, partition.lag) {
                (Some(1 | 2), Some(0)) => break,
                other => assert!(Instant::now() < until, "start and lag are {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn aborted_records_are_gaps_that_nobody_has_to_decide_on() {
    let needs = [SHARE_GROUPS.as_slice(), &TRANSACTIONS].concat();
    with_broker("aborted_records_are_gaps", &needs, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "gaps", 1).await;
        let group = share_group(&client).await;
        let resource = ConfigResource { kind: ResourceType::Group, name: group.clone() };
        let committed = [("share.isolation.level".to_owned(), ConfigOp::Set("read_committed".to_owned()))];
        Admin::new(client.clone()).alter_configs(&resource, &committed, false).await.expect("configured");
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        for round in 0..3 {
            producer.begin().await.expect("begun");
            producer.send(record(&topic, 0, &format!("{round}"))).await.expect("queued").await.expect("delivered");
            match round {
                1 => producer.abort().await.expect("aborted"),
                _ => producer.commit().await.expect("committed"),
            }
        }
        let mut consumer = share(&client, &group, &topic, AckMode::Implicit);
        let records = acquire(&mut consumer, 2).await;
        assert_eq!(delivered(&records), [("0".to_owned(), 1), ("2".to_owned(), 1)]);
        all_ok(consumer.close().await.expect("closed"));
    });
}

// ---- the command line ------------------------------------------------------------------------------------------------

/// Exit code, standard output and standard error of a command that ends within [`WITHIN`].
#[track_caller]
fn outcome(mut command: Command) -> (i32, String, String) {
    use std::process::Stdio;

    let shown = format!("{command:?}");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // What it prints is far less than a pipe holds.
    let until = Instant::now() + WITHIN;
    while child.try_wait().expect("our child").is_none() {
        if Instant::now() >= until {
            let _ = child.kill();
            let output = child.wait_with_output().expect("our child");
            panic!("{shown} did not end: {output:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("our child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn printed(command: Command) -> String {
    let shown = format!("{command:?}");
    let (code, out, err) = outcome(command);
    assert_eq!(code, 0, "{shown}\n{out}\n{err}");
    out
}

#[track_caller]
fn json(command: Command) -> serde_json::Value {
    let out = printed(command);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn commands_for_transactions() {
    let needs = [
        TRANSACTIONS.as_slice(),
        &[ApiKey::ListTransactions, ApiKey::DescribeTransactions, ApiKey::DescribeProducers, ApiKey::WriteTxnMarkers],
    ];
    with_broker("commands_for_transactions", &needs.concat(), async |target| {
        let client = target.client();
        let topic = new_topic(&client, "cli-txn", 1).await;
        let (id, open_id) = (fresh("id"), fresh("id"));
        let produce = target.taccola(&format!("produce {topic} --transactional-id {id}"));
        taccola_it::run_with_input(&mut { produce }, "a\nb\n");
        let mut zombie = transactional(&client, &open_id);
        zombie.init().await.expect("initialized");
        zombie.begin().await.expect("begun");
        let start = zombie.send(record(&topic, 0, "c")).await.expect("queued").await.expect("delivered").offset;

        let consume = |isolation: &str| printed(target.taccola(&format!("consume {topic} -e --isolation {isolation}")));
        assert_eq!(consume("read_committed"), "a\nb\n");
        assert_eq!(consume("read_uncommitted"), "a\nb\nc\n");

        let listed = json(target.taccola(&format!("txn list --pattern {open_id} -o json")));
        assert_eq!(
            (listed[0]["transactional_id"].as_str(), listed[0]["state"].as_str()),
            (Some(&*open_id), Some("Ongoing"))
        );
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
        let empty = json(target.taccola(&format!("txn list --pattern {open_id} --state Empty -o json")));
        assert_eq!(empty, serde_json::json!([]));
        let described = json(target.taccola(&format!("txn describe {open_id} -o json")));
        assert_eq!(described[0]["partitions"], serde_json::json!([format!("{topic}-0")]));
        assert!(described[0]["open_ms"].is_number());

        let (code, _, why) = outcome(target.taccola(&format!("txn abort --topic {topic} --partition 0")));
        assert_eq!(code, 2);
        assert!(why.contains(&format!("open ones begin at {start} ")), "{why}");
        let (code, _, why) =
            outcome(target.taccola(&format!("txn abort --topic {topic} --partition 0 --start-offset 999")));
        assert_eq!(code, 3, "{why}");
        printed(target.taccola(&format!("txn abort {open_id}")));
        assert!(matches!(zombie.commit().await, Err(Error::Fenced { .. })));
        assert_eq!(consume("read_committed"), "a\nb\n");
        produce_after(&client, &topic).await;
        assert_eq!(consume("read_committed"), "a\nb\nd\n", "nothing holds readers up");

        for command in ["txn describe nobody-has-this", "txn abort nobody-has-this"] {
            let (code, _, why) = outcome(target.taccola(command));
            assert_eq!(code, 3, "{why}");
            assert!(why.contains("taccola txn list"), "{why}");
        }
        let (code, _, why) = outcome(target.taccola("txn list --state Nonsense"));
        assert_eq!(code, 1, "{why}");
    });
}

async fn produce_after(client: &Client, topic: &str) {
    produce(client, topic, 0, &["d"]).await;
}

#[test]
fn a_hanging_transaction_is_aborted_on_its_partition() {
    let needs = [TRANSACTIONS.as_slice(), &[ApiKey::DescribeProducers, ApiKey::WriteTxnMarkers]].concat();
    with_broker("a_hanging_transaction_is_aborted_on_its_partition", &needs, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "hanging", 1).await;
        let mut producer = transactional(&client, &fresh("id"));
        producer.init().await.expect("initialized");
        producer.begin().await.expect("begun");
        producer.send(record(&topic, 0, "hangs")).await.expect("queued").await.expect("delivered");
        produce(&client, &topic, 0, &["behind"]).await;
        assert!(read(&client, &topic, IsolationLevel::ReadCommitted).await.is_empty());
        let aborted =
            json(target.taccola(&format!("txn abort --topic {topic} --partition 0 --start-offset 0 -o json")));
        assert_eq!(aborted["producer_id"], producer.identity().0);
        assert_eq!(committed(&client, &topic, 1).await, ["behind"]);
    });
}

#[test]
fn commands_for_share_groups() {
    let needs = [
        SHARE_GROUPS.as_slice(),
        &[ApiKey::DescribeShareGroupOffsets, ApiKey::AlterShareGroupOffsets, ApiKey::ShareGroupDescribe],
    ];
    with_broker("commands_for_share_groups", &needs.concat(), async |target| {
        let client = target.client();
        let topic = new_topic(&client, "cli-share", 1).await;
        let group = share_group(&client).await;
        produce(&client, &topic, 0, &["a", "b", "c"]).await;
        let consume = |more: &str| printed(target.taccola(&format!("consume {topic} --share -g {group} {more}")));
        assert_eq!(consume("-n 1"), "a\n");
        assert_eq!(consume("-n 2 --ack release"), "b\nc\n", "what was not printed came back");
        assert_eq!(consume("-e"), "b\nc\n", "so did what was released");

        let listed = json(target.taccola("group list --type share -o json"));
        let ours = listed.as_array().expect("a list").iter().find(|g| g["group"] == *group).expect("listed");
        assert_eq!((ours["type"].as_str(), ours["state"].as_str()), (Some("share"), Some("Empty")));
        let (code, _, _) = outcome(target.taccola(&format!("group describe {group}")));
        assert_eq!(code, 0);
        let described = json(target.taccola(&format!("group describe {group} -o json")));
        assert_eq!((described[0]["type"].as_str(), described[0]["total_lag"].as_i64()), (Some("share"), Some(0)));

        let reset = json(target.taccola(&format!("group reset {group} --to-offset 1 --execute -o json")));
        assert_eq!(reset[0]["new_offset"], 1);
        let described = json(target.taccola(&format!("group describe {group} -o json")));
        assert_eq!(described[0]["partitions"][0]["start_offset"], 1);
        assert_eq!(described[0]["total_lag"], 2);
        assert_eq!(consume("-n 2"), "b\nc\n");
        let (code, _, why) = outcome(target.taccola(&format!("group delete-offsets {group} -t {topic}:0")));
        assert_eq!(code, 2, "{why}");
        let asked = Instant::now();
        let (code, _, why) = outcome(target.taccola(&format!("group delete-offsets {group} -t nowhere-{topic}")));
        assert!(code != 0 && why.contains("the group has no offsets of such a topic"), "{code} {why}");
        assert!(asked.elapsed() < Duration::from_secs(30), "an answer that will not change is not asked for again");
        let gone = json(target.taccola(&format!("group delete-offsets {group} -t {topic} -o json")));
        assert_eq!((gone[0]["offsets"].as_str(), gone[0]["status"].as_str()), (Some(topic.as_str()), Some("deleted")));
        printed(target.taccola(&format!("group delete {group}")));
        let (code, _, why) = outcome(target.taccola(&format!("group describe {group}")));
        assert_eq!(code, 3, "{why}");
    });
}

#[test]
fn commands_for_consumer_groups() {
    with_broker("commands_for_consumer_groups", &[ApiKey::ConsumerGroupDescribe], async |target| {
        let client = target.client();
        let topic = new_topic(&client, "cli-consumer", 2).await;
        let group = fresh("group");
        produce(&client, &topic, 1, &["a", "b"]).await;
        let consume = |more: &str| target.taccola(&format!("consume -g {group} --group-protocol consumer {more}"));
        assert_eq!(printed(consume(&format!("{topic} -n 1"))), "a\n");
        assert_eq!(printed(consume(&format!("{topic}.* -r -e"))), "b\n");
        let (code, _, why) = outcome(target.taccola(&format!("consume {topic}.* -r -g {group}")));
        assert_eq!(code, 2, "{why}");
        let mut member = join(&client, group_config(&group, &[&topic]));
        poll_until("its partitions", &mut [&mut member], |members, _| owned(members) == [2]).await;
        let described = json(target.taccola(&format!("group describe {group} -o json")));
        let (of_group, of_member) = (&described[0], &described[0]["members"][0]);
        assert_eq!((of_group["type"].as_str(), of_group["total_lag"].as_i64()), (Some("consumer"), Some(0)));
        assert_eq!(of_member["member_id"], member.group_metadata().member_id);
        assert_eq!(of_member["assignment"], serde_json::json!([format!("{topic}-0"), format!("{topic}-1")]));
        assert_eq!(of_member["assignment"], of_member["target_assignment"]);
        let (code, _, why) = outcome(target.taccola(&format!("group reset {group} --to-earliest --execute")));
        assert_eq!(code, 1);
        assert!(why.contains("stop its consumers"), "{why}");
        member.close().await.expect("closed");
        printed(target.taccola(&format!("group reset {group} --to-earliest --execute")));
        assert_eq!(printed(consume(&format!("{topic} -n 2"))), "a\nb\n");
        let gone = json(target.taccola(&format!("group delete-offsets {group} -t {topic}:0,1 -o json")));
        let gone: Vec<_> = gone.as_array().expect("a list").iter().map(|row| row["status"].as_str()).collect();
        assert_eq!(gone, [Some("deleted"); 2]);
        printed(target.taccola(&format!("group delete {group}")));
    });
}

#[test]
fn members_of_the_command_line_choose_their_assignor() {
    with_broker("members_of_the_command_line_choose_their_assignor", &CONSUMER_GROUPS, async |target| {
        let client = target.client();
        let topic = new_topic(&client, "cli-assignor", 1).await;
        produce(&client, &topic, 0, &["a", "b"]).await;
        let consume = |more: &str| target.taccola(&format!("consume {topic} -n 2 {more} -g {}", fresh("group")));
        assert_eq!(printed(consume("--assignor cooperative-sticky")), "a\nb\n");
        assert_eq!(printed(consume("--assignor cooperative-sticky,range")), "a\nb\n");
        assert_eq!(printed(consume("--group-protocol consumer --assignor range")), "a\nb\n");
        let (code, _, why) = outcome(consume("--assignor sticky"));
        assert!(code == 2 && why.contains("range, roundrobin, cooperative-sticky"), "{code} {why}");
        let (code, _, why) = outcome(consume("--group-protocol consumer --assignor nobodys"));
        assert!(code != 0 && why.contains("UNSUPPORTED_ASSIGNOR"), "{code} {why}");
    });
}

#[test]
fn commands_for_streams_groups() {
    let needs = [ApiKey::StreamsGroupHeartbeat, ApiKey::StreamsGroupDescribe];
    with_broker("commands_for_streams_groups", &needs, async |target| {
        use taccola_wire::messages::StreamsGroupHeartbeatRequest;
        use taccola_wire::messages::streams_group_heartbeat_request::{Subtopology, TopicInfo, Topology};

        let client = target.client();
        let topic = new_topic(&client, "cli-streams", 2).await;
        let group = fresh("streams");
        let changelog = format!("{group}-store-changelog");
        let subtopology = Subtopology {
            subtopology_id: "0".to_owned(),
            source_topics: vec![topic.clone()],
            state_changelog_topics: vec![TopicInfo { name: changelog.clone(), ..Default::default() }],
            ..Default::default()
        };
        let mut beat = StreamsGroupHeartbeatRequest {
            group_id: group.clone(),
            member_id: "m".to_owned(),
            rebalance_timeout_ms: 30_000,
            topology: Some(Topology { epoch: 0, subtopologies: vec![subtopology] }),
            active_tasks: Some(Vec::new()),
            standby_tasks: Some(Vec::new()),
            warmup_tasks: Some(Vec::new()),
            process_id: Some("p".to_owned()),
            client_tags: Some(Vec::new()),
            ..Default::default()
        };
        let until = Instant::now() + WITHIN;
        let described = loop {
            let api = client.coordinator(&group, taccola_client::cluster::Lane::General).await;
            if let Ok(api) = api {
                let answer = client.request(&api, &beat, 0).await.expect("an answer");
                let code = ErrorCode::from_code(answer.error_code);
                assert!(code.is_ok() || code.retriable(), "{answer:?}");
                if code.is_ok() {
                    beat = StreamsGroupHeartbeatRequest {
                        group_id: group.clone(),
                        member_id: "m".to_owned(),
                        member_epoch: answer.member_epoch,
                        rebalance_timeout_ms: -1,
                        ..Default::default()
                    };
                    let described = json(target.taccola(&format!("group describe {group} -o json")));
                    if described[0]["members"][0]["tasks"] == serde_json::json!(["0_0", "0_1"]) {
                        break described;
                    }
                }
            }
            assert!(Instant::now() < until, "no tasks");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(described[0]["type"], "streams");
        assert_eq!(described[0]["topology"]["subtopologies"][0]["sources"], serde_json::json!([topic]));
        assert!(printed(target.taccola(&format!("group describe {group}"))).contains("0_0 0_1"));
        let listed = json(target.taccola("group list --type streams -o json"));
        assert!(listed.as_array().expect("a list").iter().any(|g| g["group"] == *group));

        let api = client.coordinator(&group, taccola_client::cluster::Lane::General).await.expect("a coordinator");
        beat.member_epoch = -1;
        assert_eq!(client.request(&api, &beat, 0).await.expect("an answer").error_code, 0);
        let deleted = json(target.taccola(&format!("group delete {group} --internal-topics -o json")));
        assert_eq!((deleted[0]["status"].as_str(), deleted[1]["status"].as_str()), (Some("deleted"), Some("deleted")));
        assert_eq!(deleted[1]["topic"], changelog);
        let topics = printed(target.taccola("topic list"));
        assert!(topics.contains(&topic) && !topics.contains(&changelog), "{topics}");
    });
}

#[test]
fn commands_for_features() {
    with_broker("commands_for_features", &[ApiKey::UpdateFeatures], async |target| {
        let described = json(target.taccola("features -o json"));
        assert!(described["epoch"].is_number());
        let feature = |name: &str| {
            let features = described["features"].as_array().expect("a list");
            features.iter().find(|f| f["feature"] == name).cloned().unwrap_or_else(|| panic!("no {name}: {described}"))
        };
        let metadata = feature("metadata.version");
        assert!(metadata["finalized"].as_i64() > Some(0), "{metadata}");
        let same = format!("features upgrade --feature metadata.version={} --dry-run -o json", metadata["finalized"]);
        assert_eq!(json(target.taccola(&same))[0]["status"], "valid");
        // What is there is the newest release's.
        let release = json(target.taccola("features upgrade --release-version 4.3 --dry-run -o json"));
        let rows = release.as_array().expect("a list");
        assert!(rows.len() >= 3 && rows.iter().all(|row| row["status"] == "valid"), "{release}");
        let (code, _, why) = outcome(target.taccola("features upgrade --release-version 9.9"));
        assert_eq!(code, 2, "{why}");
        assert!(why.contains("3.3 to 4.3"), "{why}");
        for refused in [
            "features upgrade --feature metadata.version=32000 --dry-run",
            "features upgrade --feature no.such.feature=1 --dry-run",
            "features downgrade --feature metadata.version=1 --dry-run",
            "features disable --feature metadata.version --dry-run",
        ] {
            let (code, _, why) = outcome(target.taccola(refused));
            assert_eq!(code, 1, "{refused}: {why}");
            assert!(why.starts_with("error: feature"), "{refused}: {why}");
        }
    });
}

#[test]
fn a_start_that_fails_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let serve = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("serve").args(arguments).current_dir(dir.path());
        outcome(command)
    };
    let (code, _, why) = serve(&["-c", "missing.properties"]);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("missing.properties") && why.contains("name a file that exists with -c"), "{why}");
    std::fs::write(dir.path().join("file"), "x").expect("written");
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", taccola_it::free_port());
    let (code, _, why) = serve(&["--override", "log.dirs=file", "--override", &listeners]);
    assert_eq!(code, 1, "{why}");
    assert!(why.contains("it is a file: set log.dirs to a directory"), "{why}");
    assert_eq!(std::fs::read(dir.path().join("file")).expect("still there"), b"x");
}

#[test]
fn who_gives_up_joining_leaves_the_group() {
    with_broker("who_gives_up_joining_leaves_the_group", &[], async |target| {
        let client = target.client();
        let topic = new_topic(&client, "early", 1).await;
        let group = fresh("group");
        // The group waits some seconds for more members before the first generation.
        let config = GroupConfig { protocol: GroupProtocol::Classic, ..group_config(&group, &[&topic]) };
        let mut member = join(&target.client(), config);
        let admin = Admin::new(client.clone());
        let members = async || admin.describe_group(&group).await.map_or(0, |group| group.members.len());
        let seen = async {
            while members().await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            polled = member.poll(WITHIN) => panic!("joined at once: {:?}", polled.map(|records| records.len())),
            () = seen => {}
        }
        member.close().await.expect("closed");
        assert_eq!(members().await, 0);
    });
}
