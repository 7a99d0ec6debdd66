//! Metadata and administration as clients see them: one test per trap that clients are known to fall into, numbered as in
//! the project's list of them, and Kafka's own tools.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use taccola_base::Uuid;
use taccola_it::conn::Conn;
use taccola_it::requests::{
    batch, create_topic, fetch_request, init_producer, list_offset, new_topic, produce_request, produced, read_all,
    records_of,
};
use taccola_it::{Broker, clients, eventually, free_port, run};
use taccola_wire::api::ApiKey;
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::describe_configs_request::DescribeConfigsResource;
use taccola_wire::messages::describe_configs_response::DescribeConfigsResult;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::metadata_request::MetadataRequestTopic;
use taccola_wire::messages::metadata_response::MetadataResponseTopic;
use taccola_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use taccola_wire::messages::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn connect(broker: &Broker) -> Conn {
    Conn::connect(broker.port).expect("the broker accepts")
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() }
}

fn metadata(topics: Option<Vec<MetadataRequestTopic>>, allow_auto_topic_creation: bool) -> MetadataRequest {
    MetadataRequest { topics, allow_auto_topic_creation, ..Default::default() }
}

fn names(response: &MetadataResponse) -> Vec<&str> {
    response.topics.iter().filter_map(|topic| topic.name.as_deref()).collect()
}

/// One topic's row.
#[track_caller]
fn describe(conn: &mut Conn, topic: MetadataRequestTopic, version: i16) -> MetadataResponseTopic {
    let response = conn.ask(&metadata(Some(vec![topic]), false), version);
    response.topics.into_iter().next().expect("a row for the topic")
}

#[test]
fn trap_09_features_with_lowest_level_zero_are_hidden_from_old_clients() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let request = ApiVersionsRequest {
        client_software_name: "it".to_owned(),
        client_software_version: "1".to_owned(),
        ..Default::default()
    };
    let (old, new) = (conn.ask(&request, 3), conn.ask(&request, 4));
    assert!(old.supported_features.iter().all(|feature| feature.min_version > 0), "{:?}", old.supported_features);
    assert!(new.supported_features.iter().any(|feature| feature.min_version == 0), "{:?}", new.supported_features);
    assert!(!new.finalized_features.is_empty());
    assert!(new.finalized_features_epoch >= 0);
}

/// Whatever a version does not know must not be on the wire, and what says nothing need not be: these replies end with an
/// empty list of tags, also where later versions put some there (`node_endpoints`).
#[test]
fn trap_10_replies_hold_no_tags_of_other_versions() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "tags", 1, &[]);
    produced(&mut conn, "tags", 0, batch(&["a"]));
    let body = fetch_request("tags", 0, 0).to_bytes(12).expect("encodes");
    conn.send_body(ApiKey::Fetch, 12, &body).expect("sent");
    assert_eq!(conn.frame().expect("a reply").last(), Some(&0), "Fetch v12 ends with tags");
    for version in 9..=12 {
        let body = metadata(None, false).to_bytes(version).expect("encodes");
        conn.send_body(ApiKey::Metadata, version, &body).expect("sent");
        assert_eq!(conn.frame().expect("a reply").last(), Some(&0), "Metadata v{version} ends with tags");
    }
    for version in 9..=12 {
        let body = produce_request(-1, "tags", 0, batch(&["b"])).to_bytes(version).expect("encodes");
        conn.send_body(ApiKey::Produce, version, &body).expect("sent");
        assert_eq!(conn.frame().expect("a reply").last(), Some(&0), "Produce v{version} ends with tags");
    }
}

#[test]
fn trap_11_null_topics_mean_all_and_an_empty_list_means_none() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "one", 1, &[]);
    new_topic(&mut conn, "two", 1, &[]);
    assert_eq!(names(&conn.ask(&metadata(Some(vec![]), true), 0)), ["one", "two"], "version 0 has no null");
    for version in 1..=13 {
        assert_eq!(names(&conn.ask(&metadata(None, true), version)), ["one", "two"], "version {version}");
        assert!(conn.ask(&metadata(Some(vec![]), true), version).topics.is_empty(), "version {version}");
    }
}

#[test]
fn trap_12_topics_by_id() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let id = new_topic(&mut conn, "by-id", 1, &[]);
    assert!(!id.is_zero());
    for version in 12..=13 {
        let found = describe(&mut conn, MetadataRequestTopic { topic_id: id, name: None }, version);
        assert_eq!((found.error_code, found.name.as_deref(), found.topic_id), (0, Some("by-id"), id));
        // The Java client leaves an empty name beside an id.
        let both = vec![
            MetadataRequestTopic { topic_id: id, name: Some(String::new()) },
            MetadataRequestTopic { topic_id: Uuid::ZERO, name: Some("made-by-name".to_owned()) },
        ];
        let found = conn.ask(&metadata(Some(both), true), version);
        assert_eq!(names(&found), ["by-id"], "with an id among them names do not count");
        let unknown = Uuid::METADATA_TOPIC_ID;
        let missing = describe(&mut conn, MetadataRequestTopic { topic_id: unknown, name: None }, version);
        let expected = (ErrorCode::UnknownTopicId.code(), None, unknown);
        assert_eq!((missing.error_code, missing.name, missing.topic_id), expected);
    }
    for version in 10..=11 {
        let refused = describe(&mut conn, MetadataRequestTopic { topic_id: id, name: None }, version);
        assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code(), "version {version}");
    }
    assert_eq!(describe(&mut conn, named("by-id"), 10).topic_id, id);
}

#[test]
fn trap_13_metadata_creates_topics_only_where_client_and_broker_allow_it() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let asked = describe(&mut conn, named("wanted"), 12);
    assert_eq!(asked.error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert!(names(&conn.ask(&metadata(None, true), 12)).is_empty(), "asking alone creates nothing");
    let made = eventually("the topic that was asked for", || {
        let response = conn.ask(&metadata(Some(vec![named("wanted")]), true), 12);
        let topic = response.topics.into_iter().next().expect("a row");
        let retriable = [0, ErrorCode::LeaderNotAvailable.code(), ErrorCode::UnknownTopicOrPartition.code()];
        assert!(retriable.contains(&topic.error_code), "{topic:?}");
        (topic.error_code == 0).then_some(topic)
    });
    assert!(!made.topic_id.is_zero() && made.partitions.len() == 1 && made.partitions[0].leader_id == 0, "{made:?}");

    let strict = Broker::start(&["auto.create.topics.enable=false"]);
    let mut conn = connect(&strict);
    let refused = conn.ask(&metadata(Some(vec![named("wanted")]), true), 12);
    assert_eq!(refused.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert!(names(&conn.ask(&metadata(None, true), 12)).is_empty());
}

#[test]
fn trap_14_bad_names_are_told_apart_from_missing_topics() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let too_long = "x".repeat(250);
    for name in ["a b", "", ".", "..", "ä", &too_long] {
        for version in 4..=13 {
            let response = conn.ask(&metadata(Some(vec![named(name)]), true), version);
            assert_eq!(response.topics[0].error_code, ErrorCode::InvalidTopicException.code(), "{name:?} v{version}");
        }
    }
    assert!(names(&conn.ask(&metadata(None, false), 12)).is_empty());
}

#[test]
fn trap_15_the_cluster_is_described_and_replicas_are_brokers_that_exist() {
    let broker = Broker::start(&["broker.rack=r1"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "three", 3, &[]);
    let mut cluster_ids = BTreeSet::new();
    for version in 2..=13 {
        let response = conn.ask(&metadata(None, version < 4), version);
        cluster_ids.insert(response.cluster_id.clone().expect("a cluster id"));
        let [known] = &*response.brokers else { panic!("{:?}", response.brokers) };
        let own = (0, "127.0.0.1", i32::from(broker.port), Some("r1"));
        assert_eq!((known.node_id, &*known.host, known.port, known.rack.as_deref()), own, "version {version}");
        assert_eq!(response.controller_id, 0);
        for partition in &response.topics[0].partitions {
            assert_eq!((partition.error_code, partition.leader_id), (0, 0));
            assert_eq!((&*partition.replica_nodes, &*partition.isr_nodes), (&[0][..], &[0][..]));
            assert!(partition.offline_replicas.is_empty());
        }
        assert_eq!(response.topics[0].partitions.len(), 3);
    }
    let described = conn.ask(&DescribeClusterRequest::default(), 2);
    cluster_ids.insert(described.cluster_id);
    assert_eq!(cluster_ids.len(), 1, "{cluster_ids:?}");
    assert_eq!((described.controller_id, described.brokers[0].port), (0, i32::from(broker.port)));
}

#[test]
fn trap_16_clients_are_told_the_address_of_the_listener_that_they_use() {
    let (inner, outer, controller) = (free_port(), free_port(), free_port());
    let listeners = format!(
        "listeners=INNER://127.0.0.1:{inner},OUTER://127.0.0.1:{outer},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=INNER://127.0.0.1:{inner},OUTER://broker.example:4711\n\
         controller.quorum.voters=0@127.0.0.1:{controller}\n\
         inter.broker.listener.name=INNER\n\
         listener.security.protocol.map=INNER:PLAINTEXT,OUTER:PLAINTEXT,CONTROLLER:PLAINTEXT"
    );
    let _broker = Broker::start(&[&listeners]);
    for (port, host, advertised) in [(inner, "127.0.0.1", i32::from(inner)), (outer, "broker.example", 4711)] {
        let mut conn = Conn::connect(port).expect("the broker accepts");
        let known = conn.ask(&metadata(Some(vec![]), false), 12).brokers.remove(0);
        assert_eq!((&*known.host, known.port), (host, advertised));
        let known = conn.ask(&DescribeClusterRequest::default(), 2).brokers.remove(0);
        assert_eq!((&*known.host, known.port), (host, advertised));
    }
}

fn leader_epoch(conn: &mut Conn, topic: &str) -> i32 {
    describe(conn, named(topic), 12).partitions[0].leader_epoch
}

#[test]
fn trap_17_leader_epochs_are_real_and_never_go_back() {
    let mut broker = Broker::start(&[]);
    new_topic(&mut connect(&broker), "epochs", 1, &[]);
    let mut last = 0;
    for kill in [false, true, false] {
        let mut conn = connect(&broker);
        let epoch = leader_epoch(&mut conn, "epochs");
        assert!(epoch >= last, "{epoch} after {last}");
        last = epoch;
        let offset = produced(&mut conn, "epochs", 0, batch(&["a"]));
        let fetched = taccola_it::requests::fetch(&mut conn, "epochs", 0, offset);
        let bytes = fetched.records.clone().unwrap_or_default();
        let header = taccola_wire::batch::BatchHeader::parse(&bytes).expect("a batch");
        assert_eq!(header.partition_leader_epoch, epoch, "the batch carries the epoch in which it was written");
        if kill {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
    }
}

#[test]
fn trap_18_a_restarting_broker_does_not_call_existing_topics_unknown() {
    let mut broker = Broker::start(&[]);
    new_topic(&mut connect(&broker), "there", 4, &[]);
    let (port, done) = (broker.port, Arc::new(AtomicBool::new(false)));
    let watching = done.clone();
    let watcher = std::thread::spawn(move || {
        let mut answers = 0;
        while !watching.load(Ordering::Relaxed) {
            let Ok(mut conn) = Conn::connect(port) else { continue };
            while let Ok(response) = conn.call(&metadata(Some(vec![named("there")]), true), 12) {
                let topic = &response.topics[0];
                assert_eq!((topic.error_code, topic.partitions.len()), (0, 4), "{topic:?}");
                answers += 1;
                if watching.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        answers
    });
    for _ in 0..3 {
        broker.restart();
        broker.kill();
        broker.launch();
    }
    done.store(true, Ordering::Relaxed);
    assert!(watcher.join().expect("no answer was wrong") > 0);
}

fn epoch_end(conn: &mut Conn, topic: &str, leader_epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch };
    let topics = vec![OffsetForLeaderTopic { topic: topic.to_owned(), partitions: vec![partition] }];
    let response = conn.ask(&OffsetForLeaderEpochRequest { replica_id: -1, topics }, 4);
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.leader_epoch, found.end_offset)
}

#[test]
fn trap_45_an_epoch_ends_where_the_next_began() {
    let mut broker = Broker::start(&[]);
    new_topic(&mut connect(&broker), "epochs", 1, &[]);
    let first = leader_epoch(&mut connect(&broker), "epochs");
    assert_eq!(epoch_end(&mut connect(&broker), "epochs", first), (0, first, 0), "nothing written yet");
    produced(&mut connect(&broker), "epochs", 0, batch(&["a", "b"]));
    broker.kill();
    broker.launch();
    let mut conn = connect(&broker);
    let second = leader_epoch(&mut conn, "epochs");
    assert_eq!(epoch_end(&mut conn, "epochs", first), (0, first, 2), "before anything is written");
    produced(&mut conn, "epochs", 0, batch(&["c"]));
    assert_eq!(epoch_end(&mut conn, "epochs", second), (0, second, 3));
    if second > first {
        assert_eq!(epoch_end(&mut conn, "epochs", first), (0, first, 2), "the first epoch's end, not the log's");
    }
    assert_eq!(epoch_end(&mut conn, "epochs", second + 5), (0, -1, -1));
    assert_eq!(epoch_end(&mut conn, "epochs", -1), (0, -1, -1));
}

fn delete_records(conn: &mut Conn, topic: &str, offset: i64) -> (i16, i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions }];
    let response = conn.ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 }, 2);
    let row = &response.topics[0].partitions[0];
    (row.error_code, row.low_watermark)
}

#[test]
fn trap_46_deleted_records_stay_deleted() {
    let mut broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    for topic in ["some", "all"] {
        new_topic(&mut conn, topic, 1, &[]);
        for value in ["a", "b", "c", "d"] {
            produced(&mut conn, topic, 0, batch(&[value]));
        }
    }
    assert_eq!(delete_records(&mut conn, "some", 2), (0, 2));
    assert_eq!(delete_records(&mut conn, "some", 1), (0, 2), "nothing comes back");
    assert_eq!(delete_records(&mut conn, "some", 5), (ErrorCode::OffsetOutOfRange.code(), -1));
    assert_eq!(delete_records(&mut conn, "some", -2), (ErrorCode::OffsetOutOfRange.code(), -1));
    assert_eq!(delete_records(&mut conn, "all", -1), (0, 4), "-1 is the high watermark");
    for kill in [true, false] {
        if kill {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
        let mut conn = connect(&broker);
        assert_eq!(list_offset(&mut conn, "some", 0, -2), (0, 2, -1), "killed: {kill}");
        assert_eq!(list_offset(&mut conn, "all", 0, -2), (0, 4, -1), "killed: {kill}");
        assert_eq!(list_offset(&mut conn, "all", 0, -1), (0, 4, -1), "killed: {kill}");
        let below = taccola_it::requests::fetch(&mut conn, "some", 0, 1);
        assert_eq!(below.error_code, ErrorCode::OffsetOutOfRange.code());
        assert_eq!(read_all(&mut conn, "some", 0, 2).len(), 2);
        let nothing = taccola_it::requests::fetch(&mut conn, "all", 0, 4);
        assert!(nothing.error_code == 0 && records_of(&nothing, 4).is_empty());
    }
    assert_eq!(produced(&mut connect(&broker), "all", 0, batch(&["e"])), 4);
}

#[test]
fn compacted_and_internal_topics_keep_their_records() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "compacted", 1, &[("cleanup.policy", "compact")]);
    new_topic(&mut conn, "both", 1, &[("cleanup.policy", "compact,delete")]);
    new_topic(&mut conn, "__consumer_offsets", 1, &[("cleanup.policy", "compact")]);
    assert_eq!(delete_records(&mut conn, "compacted", 0), (ErrorCode::PolicyViolation.code(), -1));
    assert_eq!(delete_records(&mut conn, "both", 0), (0, 0));
    assert_eq!(delete_records(&mut conn, "__consumer_offsets", 0), (ErrorCode::InvalidTopicException.code(), -1));
    assert_eq!(delete_records(&mut conn, "missing", 0), (ErrorCode::UnknownTopicOrPartition.code(), -1));
}

#[test]
fn trap_49_producer_ids_are_never_given_twice() {
    let mut broker = Broker::start(&[]);
    let mut given = BTreeSet::new();
    for kill in [false, true, false] {
        let mut conn = connect(&broker);
        // More than a block of 1000 has.
        for _ in 0..1_200 {
            let (id, epoch) = init_producer(&mut conn).expect("a reply").expect("an id");
            assert!(id >= 0 && epoch == 0 && given.insert(id), "{id} {epoch}");
        }
        if kill {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
    }
}

fn creatable(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.to_owned(), num_partitions, replication_factor, ..Default::default() }
}

fn create(topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only }
}

#[test]
fn trap_63_create_topics() {
    let broker = Broker::start(&["num.partitions=3"]);
    let mut conn = connect(&broker);
    let tried = conn.ask(&create(vec![creatable("tried", 2, 1)], true), 7);
    assert_eq!((tried.topics[0].error_code, tried.topics[0].num_partitions), (0, 2));
    assert!(names(&conn.ask(&metadata(None, false), 12)).is_empty(), "validate only creates nothing");

    let by_default = conn.ask(&create(vec![creatable("default", -1, -1)], false), 7).topics.remove(0);
    assert_eq!((by_default.error_code, by_default.num_partitions, by_default.replication_factor), (0, 3, 1));
    assert!(!by_default.topic_id.is_zero());
    let configs = by_default.configs.expect("configs since version 5");
    assert!(configs.iter().any(|config| config.name == "retention.ms" && config.value.as_deref() == Some("604800000")));
    assert_eq!(describe(&mut conn, named("default"), 12).topic_id, by_default.topic_id);

    let set = CreatableTopicConfig { name: "retention.ms".to_owned(), value: Some("1000".to_owned()) };
    let with = |configs| CreatableTopic { configs, ..creatable("set", 1, 1) };
    let row = conn.ask(&create(vec![with(vec![set.clone()])], false), 5).topics.remove(0);
    let shown = row.configs.expect("configs").into_iter().find(|config| config.name == "retention.ms").expect("it");
    assert_eq!((shown.value.as_deref(), shown.config_source), (Some("1000"), 1));

    let unknown = CreatableTopicConfig { name: "no.such".to_owned(), ..set.clone() };
    let null = CreatableTopicConfig { value: None, ..set };
    let assigned = |partition_index, broker_ids: &[i32]| CreatableTopic {
        assignments: vec![CreatableReplicaAssignment { partition_index, broker_ids: broker_ids.to_vec() }],
        ..creatable("assigned", -1, -1)
    };
    let refused = [
        (creatable("default", 1, 1), ErrorCode::TopicAlreadyExists),
        (creatable("a b", 1, 1), ErrorCode::InvalidTopicException),
        (creatable("zero", 0, 1), ErrorCode::InvalidPartitions),
        (creatable("factor", 1, 2), ErrorCode::InvalidReplicationFactor),
        (creatable("factor", 1, 0), ErrorCode::InvalidReplicationFactor),
        (creatable("many", 1_000_000, 1), ErrorCode::PolicyViolation),
        (with(vec![unknown]), ErrorCode::InvalidConfig),
        (with(vec![null]), ErrorCode::InvalidConfig),
        (assigned(0, &[7]), ErrorCode::InvalidReplicaAssignment),
        (assigned(1, &[0]), ErrorCode::InvalidReplicaAssignment),
    ];
    for (topic, expected) in refused {
        let topic = CreatableTopic { name: topic.name.replace("set", "unset"), ..topic };
        let case = format!("{topic:?}");
        let row = conn.ask(&create(vec![topic], false), 7).topics.remove(0);
        assert_eq!(ErrorCode::from_code(row.error_code), expected, "{case}");
        assert!(row.error_message.is_some());
    }
    let row = conn.ask(&create(vec![assigned(0, &[0])], false), 7).topics.remove(0);
    assert_eq!((row.error_code, row.num_partitions, row.replication_factor), (0, 1, 1));
    for version in 2..=7 {
        let name = format!("v{version}");
        assert_eq!(conn.ask(&create(vec![creatable(&name, 1, 1)], false), version).topics[0].error_code, 0);
        produced(&mut conn, &name, 0, batch(&["at once"]));
    }
}

#[test]
fn trap_64_delete_topics_by_name_and_by_id() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    for version in 1..=5 {
        new_topic(&mut conn, "gone", 2, &[]);
        produced(&mut conn, "gone", 1, batch(&["x"]));
        let topic_names = vec!["gone".to_owned(), "never".to_owned()];
        let request = DeleteTopicsRequest { topic_names, timeout_ms: 10_000, ..Default::default() };
        let mut rows = conn.ask(&request, version).responses;
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let codes: Vec<_> =
            rows.iter().map(|row| (row.name.as_deref(), ErrorCode::from_code(row.error_code))).collect();
        let expected = [(Some("gone"), ErrorCode::None), (Some("never"), ErrorCode::UnknownTopicOrPartition)];
        assert_eq!(codes, expected, "version {version}");
        assert_eq!(describe(&mut conn, named("gone"), 12).error_code, ErrorCode::UnknownTopicOrPartition.code());
    }
    let by = |name: Option<&str>, topic_id| DeleteTopicState { name: name.map(str::to_owned), topic_id };
    let delete = |topics| DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    let first = new_topic(&mut conn, "first", 1, &[]);
    let row = conn.ask(&delete(vec![by(None, first)]), 6).responses.remove(0);
    assert_eq!((row.error_code, row.name.as_deref(), row.topic_id), (0, Some("first"), first));
    let again = conn.ask(&delete(vec![by(None, first)]), 6).responses.remove(0);
    assert_eq!(again.error_code, ErrorCode::UnknownTopicId.code());
    let second = new_topic(&mut conn, "first", 1, &[]);
    assert_ne!(first, second, "the same name is another topic");
    let both = conn.ask(&delete(vec![by(Some("first"), second)]), 6).responses.remove(0);
    assert_eq!(both.error_code, ErrorCode::InvalidRequest.code());
    let twice = conn.ask(&delete(vec![by(Some("first"), Uuid::ZERO), by(None, second)]), 6);
    assert!(twice.responses.iter().all(|row| row.error_code == ErrorCode::InvalidRequest.code()), "{twice:?}");
    assert_eq!(conn.ask(&delete(vec![by(Some("first"), Uuid::ZERO)]), 6).responses[0].error_code, 0);
    assert!(names(&conn.ask(&metadata(None, false), 12)).is_empty());
}

#[test]
fn trap_64_deletion_can_be_switched_off() {
    let broker = Broker::start(&["delete.topic.enable=false"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "kept", 1, &[]);
    let topic_names = vec!["kept".to_owned()];
    let request = DeleteTopicsRequest { topic_names, timeout_ms: 10_000, ..Default::default() };
    for (version, expected) in [(2, ErrorCode::InvalidRequest), (3, ErrorCode::TopicDeletionDisabled)] {
        assert_eq!(conn.ask(&request, version).responses[0].error_code, expected.code());
    }
    assert_eq!(names(&conn.ask(&metadata(None, false), 12)), ["kept"]);
}

#[test]
fn trap_65_create_partitions_returns_a_row_per_topic() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "grows", 1, &[]);
    new_topic(&mut conn, "stays", 2, &[]);
    let topic = |name: &str, count| CreatePartitionsTopic { name: name.to_owned(), count, assignments: None };
    for version in 0..=3 {
        let count = 2 + i32::from(version);
        let topics = vec![topic("grows", count), topic("stays", 2), topic("stays-less", 1), topic("missing", 9)];
        let request = CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only: false };
        let mut rows = conn.ask(&request, version).results;
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let codes: Vec<_> = rows.iter().map(|row| (&*row.name, ErrorCode::from_code(row.error_code))).collect();
        let expected = [
            ("grows", ErrorCode::None),
            ("missing", ErrorCode::UnknownTopicOrPartition),
            ("stays", ErrorCode::InvalidPartitions),
            ("stays-less", ErrorCode::UnknownTopicOrPartition),
        ];
        assert_eq!(codes, expected, "version {version}");
        produced(&mut conn, "grows", count - 1, batch(&["in the new one"]));
    }
    let topics = vec![topic("grows", 50)];
    let tried = conn.ask(&CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only: true }, 3);
    assert_eq!(tried.results[0].error_code, 0);
    assert_eq!(describe(&mut conn, named("grows"), 12).partitions.len(), 5);
}

fn configs(conn: &mut Conn, resource_type: i8, name: &str, version: i16) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource { resource_type, resource_name: name.to_owned(), configuration_keys: None };
    let include = version >= 3;
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: include };
    conn.ask(&request, version).results.remove(0)
}

#[test]
fn trap_66_describe_configs_has_everything() {
    let broker = Broker::start(&["default.replication.factor=1", "a.plugin.password=hunter2"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "topic", 1, &[("retention.ms", "1000")]);
    for version in 1..=4 {
        let topic = configs(&mut conn, TOPIC, "topic", version);
        assert_eq!(topic.error_code, 0);
        assert!(topic.configs.len() >= 30, "{}", topic.configs.len());
        let of = |name: &str| topic.configs.iter().find(|config| config.name == name).expect("the config");
        let (set, default) = (of("retention.ms"), of("retention.bytes"));
        assert_eq!((set.value.as_deref(), set.config_source), (Some("1000"), 1));
        assert_eq!((default.value.as_deref(), default.config_source), (Some("-1"), 5));
        let synonyms: Vec<_> = set.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
        assert_eq!(synonyms[0], ("retention.ms", Some("1000"), 1));
        assert!(synonyms.iter().all(|(name, ..)| name.contains("retention")), "{synonyms:?}");
        if version >= 3 {
            assert!(topic.configs.iter().all(|config| config.config_type > 0 && config.documentation.is_some()));
        }

        let own = configs(&mut conn, BROKER, "0", version);
        let of = |name: &str| own.configs.iter().find(|config| config.name == name).expect("the config");
        assert!(own.configs.len() > 250, "{}", own.configs.len());
        let factor = of("default.replication.factor");
        assert_eq!((factor.value.as_deref(), factor.config_source, factor.read_only), (Some("1"), 4, true));
        let secret = of("a.plugin.password");
        assert_eq!((secret.value.as_deref(), secret.is_sensitive), (None, true));
        assert!(!format!("{own:?}").contains("hunter2"), "not in the synonyms either");
        assert!(!of("log.retention.ms").read_only);
    }
    let missing = configs(&mut conn, TOPIC, "missing", 4);
    assert_eq!(missing.error_code, ErrorCode::UnknownTopicOrPartition.code());
}

/// One change: 0 set, 1 delete, 2 append, 3 subtract.
fn change(conn: &mut Conn, of: (i8, &str), key: &str, operation: i8, value: Option<&str>) -> ErrorCode {
    let config = AlterableConfig { name: key.to_owned(), config_operation: operation, value: value.map(str::to_owned) };
    let resource = AlterConfigsResource { resource_type: of.0, resource_name: of.1.to_owned(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    ErrorCode::from_code(conn.ask(&request, 1).responses[0].error_code)
}

fn value(conn: &mut Conn, of: (i8, &str), key: &str) -> (Option<String>, i8) {
    let found = configs(conn, of.0, of.1, 4).configs.into_iter().find(|config| config.name == key);
    found.map_or((None, 0), |config| (config.value, config.config_source))
}

#[test]
fn trap_67_incremental_changes() {
    let mut broker = Broker::start(&["log.retention.ms=500000000"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "topic", 1, &[]);
    let (topic, own, all) = ((TOPIC, "topic"), (BROKER, "0"), (BROKER, ""));
    let policy = "cleanup.policy";
    assert_eq!(change(&mut conn, topic, policy, 2, Some("compact")), ErrorCode::None);
    assert_eq!(value(&mut conn, topic, policy), (Some("delete,compact".to_owned()), 1), "appended to the default");
    assert_eq!(change(&mut conn, topic, policy, 3, Some("delete")), ErrorCode::None);
    assert_eq!(value(&mut conn, topic, policy), (Some("compact".to_owned()), 1));
    assert_eq!(change(&mut conn, topic, policy, 1, None), ErrorCode::None);
    assert_eq!(value(&mut conn, topic, policy), (Some("delete".to_owned()), 5), "the default again");
    assert_eq!(change(&mut conn, topic, "retention.ms", 2, Some("1")), ErrorCode::InvalidConfig, "no list");
    assert_eq!(change(&mut conn, topic, "retention.ms", 0, Some("x")), ErrorCode::InvalidConfig);
    assert_eq!(change(&mut conn, topic, "retention.ms", 0, None), ErrorCode::InvalidRequest);
    assert_eq!(change(&mut conn, topic, "no.such", 0, Some("1")), ErrorCode::InvalidConfig);
    assert_eq!(change(&mut conn, topic, "retention.ms", 7, Some("1")), ErrorCode::InvalidRequest);
    assert_eq!(change(&mut conn, (TOPIC, "missing"), policy, 1, None), ErrorCode::UnknownTopicOrPartition);

    let (key, text) = ("log.retention.ms", |text: &str| Some(text.to_owned()));
    assert_eq!(value(&mut conn, topic, "retention.ms"), (text("500000000"), 4));
    assert_eq!(change(&mut conn, all, key, 0, Some("600000000")), ErrorCode::None);
    assert_eq!(value(&mut conn, own, key), (text("600000000"), 3));
    assert_eq!(value(&mut conn, all, key), (text("600000000"), 3));
    assert_eq!(change(&mut conn, own, key, 0, Some("700000000")), ErrorCode::None);
    assert_eq!(value(&mut conn, own, key), (text("700000000"), 2));
    assert_eq!(value(&mut conn, topic, "retention.ms"), (text("700000000"), 2), "topics follow their broker");
    assert_eq!(change(&mut conn, own, "log.dirs", 0, Some("/x")), ErrorCode::InvalidRequest, "read-only");
    assert_eq!(change(&mut conn, (BROKER, "7"), key, 0, Some("1")), ErrorCode::InvalidRequest, "another broker");

    broker.restart();
    let mut conn = connect(&broker);
    assert_eq!(value(&mut conn, own, key), (text("700000000"), 2), "after a restart");
    assert_eq!(change(&mut conn, own, key, 1, None), ErrorCode::None);
    assert_eq!(value(&mut conn, own, key), (text("600000000"), 3));
    assert_eq!(change(&mut conn, all, key, 1, None), ErrorCode::None);
    assert_eq!(value(&mut conn, own, key), (text("500000000"), 4));
}

/// A change of a topic's settings counts from the next request on.
#[test]
fn changed_settings_are_in_force_when_the_answer_comes() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "small", 1, &[]);
    produced(&mut conn, "small", 0, batch(&[&"x".repeat(2_000)]));
    assert_eq!(change(&mut conn, (TOPIC, "small"), "max.message.bytes", 0, Some("1000")), ErrorCode::None);
    let refused = taccola_it::requests::produce(&mut conn, "small", 0, batch(&[&"x".repeat(2_000)]));
    assert_eq!(refused.error_code, ErrorCode::MessageTooLarge.code());
    assert_eq!(change(&mut conn, (BROKER, ""), "message.max.bytes", 0, Some("1500")), ErrorCode::None);
    assert_eq!(create_topic(&mut conn, "other", 1, &[]).0, 0);
    let refused = taccola_it::requests::produce(&mut conn, "other", 0, batch(&[&"x".repeat(2_000)]));
    assert_eq!(refused.error_code, ErrorCode::MessageTooLarge.code());
}

/// Small requests that ask for large answers: each comes back whole or refused, and the broker stays.
#[test]
fn repeated_names_do_not_multiply_the_answer() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "wide", 1_000, &[]);
    let again = vec![named("wide"); 50_000];
    assert_eq!(conn.ask(&metadata(Some(again), false), 12).topics.len(), 1);
    let resource =
        DescribeConfigsResource { resource_type: BROKER, resource_name: "0".to_owned(), configuration_keys: None };
    let request = DescribeConfigsRequest {
        resources: vec![resource; 5_000],
        include_synonyms: true,
        include_documentation: true,
    };
    let results = conn.ask(&request, 4).results;
    assert_eq!(results.len(), 5_000);
    let refused = results.iter().filter(|result| result.error_code == ErrorCode::PolicyViolation.code()).count();
    assert!(refused > 0 && results[0].error_code == 0);
}

#[test]
fn kafkas_own_tools_administer_topics_configs_and_records() {
    let test = "kafkas_own_tools_administer_topics_configs_and_records";
    let class = |class: &str| clients::kafka_tool(test, class);
    if class("org.apache.kafka.tools.TopicCommand").is_none() {
        return;
    }
    let broker = Broker::start(&[]);
    let bootstrap = broker.bootstrap();
    let tool = |name: &str, arguments: &[&str]| {
        let mut command = class(name).expect("it was there a moment ago");
        run(command.arg("--bootstrap-server").arg(&bootstrap).args(arguments))
    };
    let topics = "org.apache.kafka.tools.TopicCommand";
    tool(topics, &["--create", "--topic", "tools", "--partitions", "2", "--config", "retention.ms=86400000"]);
    tool(topics, &["--alter", "--topic", "tools", "--partitions", "3"]);
    let described = tool(topics, &["--describe", "--topic", "tools"]);
    assert!(described.contains("PartitionCount: 3") && described.contains("retention.ms=86400000"), "{described}");
    let config = "kafka.admin.ConfigCommand";
    let of_topic = ["--entity-type", "topics", "--entity-name", "tools"];
    tool(config, &[&of_topic[..], &["--alter", "--add-config", "segment.ms=700000"]].concat());
    let shown = tool(config, &[&of_topic[..], &["--describe"]].concat());
    assert!(shown.contains("segment.ms=700000"), "{shown}");
    let shown = tool(config, &["--entity-type", "brokers", "--entity-name", "0", "--describe", "--all"]);
    assert!(shown.contains("log.retention.hours=168"), "{shown}");
    produced(&mut connect(&broker), "tools", 0, batch(&["a", "b", "c"]));
    let file = broker.dir.path().join("offsets.json");
    std::fs::write(&file, r#"{"partitions":[{"topic":"tools","partition":0,"offset":2}],"version":1}"#)
        .expect("written");
    let file = file.to_str().expect("a name in UTF-8");
    let deleted = tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file]);
    assert!(deleted.contains("low_watermark: 2"), "{deleted}");
    let dirs = tool("org.apache.kafka.tools.LogDirsCommand", &["--describe", "--topic-list", "tools"]);
    assert!(dirs.contains(r#""partition":"tools-2","size":0"#), "{dirs}");
    tool(topics, &["--delete", "--topic", "tools"]);
    assert_eq!(tool(topics, &["--list"]).trim(), "");
}
