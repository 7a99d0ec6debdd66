//! The controller's answers item by item, and how the image looks to clients. The codes are those that
//! `differential.rs` finds at a JVM Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use common::{MemoryLog, TestRules, broker_spec, controller, controller_registration, endpoint};
use taccola_base::Uuid;
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::controller::{BrokerSpec, PreviousShutdown};
use taccola_meta::image::{ConfigResource, Endpoint};
use taccola_meta::quorum::activation_records;
use taccola_meta::views::{self, ListenerView, PageStart};
use taccola_meta::{Controller, ControllerSettings};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::{
    AllocateProducerIdsRequest, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, IncrementalAlterConfigsRequest,
};

fn node() -> MemoryLog {
    let mut log = MemoryLog { epoch: 1, ..MemoryLog::default() };
    for command in activation_records(&log.loader, &BootstrapMetadata::default()) {
        log.append(&command, true);
    }
    log.commit(controller().register_controller(&controller_registration(0, Uuid::from_u128(900), 9093)));
    let internal = Endpoint { port: 19092, ..endpoint("INTERNAL", 0) };
    let spec = BrokerSpec {
        listeners: vec![endpoint("PLAINTEXT", 9092), internal],
        rack: Some("r1".into()),
        ..broker_spec(0, Uuid::from_u128(901), 0, Uuid::from_u128(902))
    };
    let next = log.next_offset();
    log.commit(controller().register_broker(log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap());
    log.commit(controller().unfence_broker(log.image(), 0).unwrap());
    log
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn create(log: &mut MemoryLog, topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsResponse {
    let request = CreateTopicsRequest { topics, timeout_ms: 1, validate_only };
    let mut next = 1_000 + log.next_offset() as u128 * 1_000;
    let outcome = controller().create_topics(log.image(), &request, &mut || {
        next += 1;
        Uuid::from_u128(next)
    });
    log.commit(outcome)
}

fn code(log: &mut MemoryLog, topic: CreatableTopic) -> ErrorCode {
    ErrorCode::from_code(create(log, vec![topic], false).topics[0].error_code)
}

#[test]
fn trap_63_create_topics() {
    let mut log = node();
    let validated = create(&mut log, vec![topic("t", 3, 1)], true);
    assert_eq!((validated.topics[0].error_code, validated.topics[0].num_partitions), (0, 3));
    assert!(log.image().topics.is_empty());

    let configs = vec![CreatableTopicConfig { name: "retention.ms".into(), value: Some("7".into()) }];
    let created = create(&mut log, vec![CreatableTopic { configs, ..topic("t", -1, -1) }], false);
    let row = &created.topics[0];
    assert_eq!((row.error_code, row.num_partitions, row.replication_factor), (0, 1, 1));
    assert!(!row.topic_id.is_zero() && row.error_message.is_none());
    assert_eq!(row.configs.as_ref().unwrap()[0].value.as_deref(), Some("7"));
    assert_eq!(log.image().configs.value(&ConfigResource::topic("t"), "retention.ms"), Some("7"));

    use ErrorCode as E;
    assert_eq!(code(&mut log, topic("t", 1, 1)), E::TopicAlreadyExists);
    assert_eq!(code(&mut log, topic("a", 1, 2)), E::InvalidReplicationFactor);
    assert_eq!(code(&mut log, topic("a", 1, 0)), E::InvalidReplicationFactor);
    assert_eq!(code(&mut log, topic("a", 0, 1)), E::InvalidPartitions);
    assert_eq!(code(&mut log, topic("a", i32::MAX, 1)), E::PolicyViolation);
    for name in ["", ".", "..", "a b", "ü", &"x".repeat(250)] {
        assert_eq!(code(&mut log, topic(name, 1, 1)), E::InvalidTopicException, "{name:?}");
    }
    assert_eq!(code(&mut log, topic("__cluster_metadata", 1, 1)), E::InvalidRequest);
    assert_eq!(code(&mut log, topic("c.d", 1, 1)), E::None);
    assert_eq!(code(&mut log, topic("c_d", 1, 1)), E::InvalidTopicException);
    let config = |name: &str, value: Option<&str>| {
        let configs = vec![CreatableTopicConfig { name: name.into(), value: value.map(Into::into) }];
        CreatableTopic { configs, ..topic("a", 1, 1) }
    };
    assert_eq!(code(&mut log, config("bad.key", Some("1"))), E::InvalidConfig);
    assert_eq!(code(&mut log, config("retention.ms", None)), E::InvalidConfig);
    assert_eq!(code(&mut log, config("retention.ms", Some(&"9".repeat(40_000)))), E::InvalidConfig);

    let twice = create(&mut log, vec![topic("d", 1, 1), topic("d", 1, 1), topic("e", 1, 1)], false);
    let rows: Vec<_> = twice.topics.iter().map(|t| (t.name.as_str(), t.error_code)).collect();
    assert_eq!(rows, [("d", 42), ("e", 0)]);
    let both_new = create(&mut log, vec![topic("x.y", 1, 1), topic("x_y", 1, 1)], false);
    assert_eq!(both_new.topics.iter().map(|t| t.error_code).collect::<Vec<_>>(), [0, 17]);
    let sum = create(&mut log, vec![topic("g1", 6_000, 1), topic("g2", 6_000, 1)], false);
    assert!(sum.topics.iter().all(|t| t.error_code == E::PolicyViolation.code()));
}

#[test]
fn trap_63_manual_assignments() {
    let mut log = node();
    let manual = |given: &[(i32, &[i32])]| CreatableTopic {
        assignments: given
            .iter()
            .map(|(index, ids)| CreatableReplicaAssignment { partition_index: *index, broker_ids: ids.to_vec() })
            .collect(),
        ..topic("m", -1, -1)
    };
    use ErrorCode as E;
    for wrong in [
        manual(&[(0, &[0]), (2, &[0])]),
        manual(&[(1, &[0])]),
        manual(&[(-1, &[0])]),
        manual(&[(0, &[5])]),
        manual(&[(0, &[0, 0])]),
        manual(&[(0, &[])]),
        manual(&[(0, &[0]), (0, &[0])]),
    ] {
        assert_eq!(code(&mut log, wrong.clone()), E::InvalidReplicaAssignment, "{wrong:?}");
    }
    assert_eq!(code(&mut log, CreatableTopic { num_partitions: 1, ..manual(&[(0, &[0])]) }), E::InvalidRequest);
    assert_eq!(code(&mut log, CreatableTopic { replication_factor: 1, ..manual(&[(0, &[0])]) }), E::InvalidRequest);
    assert_eq!(code(&mut log, manual(&[(1, &[0]), (0, &[0])])), E::None);
    assert_eq!(log.image().topics.by_name("m").unwrap().partition_count(), 2);
    log.commit(controller().fence_broker(log.image(), 0).unwrap());
    let late = CreatableTopic { name: "late".into(), ..manual(&[(0, &[0])]) };
    assert_eq!(code(&mut log, late), E::InvalidReplicaAssignment);
    assert_eq!(code(&mut log, topic("late", 1, 1)), E::InvalidReplicationFactor);
}

#[test]
fn trap_64_delete_topics_by_name_and_by_id() {
    let mut log = node();
    create(&mut log, vec![topic("a", 1, 1), topic("b", 1, 1), topic("c", 1, 1), topic("d", 1, 1)], false);
    let id = |log: &MemoryLog, name: &str| log.image().topics.by_name(name).unwrap().id;
    let (b, c) = (id(&log, "b"), id(&log, "c"));
    let name = |n: &str| DeleteTopicState { name: Some(n.into()), topic_id: Uuid::ZERO };
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let unknown = Uuid::from_u128(12_345);
    let topics = vec![
        name("a"),
        by_id(b),
        name("nope"),
        by_id(unknown),
        by_id(Uuid::ZERO),
        DeleteTopicState { name: Some("d".into()), topic_id: c },
        name("c"),
        by_id(c),
        name("d"),
        name("d"),
    ];
    let request = DeleteTopicsRequest { topics, ..Default::default() };
    let response = log.commit(controller().delete_topics(log.image(), &request));
    let rows: Vec<_> =
        response.responses.iter().map(|r| (r.name.as_deref(), r.topic_id.is_zero(), r.error_code)).collect();
    assert_eq!(
        rows,
        [
            (Some("a"), false, 0),
            (Some("b"), false, 0),
            (Some("nope"), true, 3),
            (None, false, 100),
            (None, true, 42),
            (Some("d"), false, 42),
            (Some("c"), false, 42),
            (Some("d"), true, 42),
        ]
    );
    assert_eq!(log.image().topics.iter().map(|t| &*t.name).collect::<Vec<_>>(), ["c", "d"]);
    // Older versions name topics in a list of their own.
    let request = DeleteTopicsRequest { topic_names: vec!["c".into()], ..Default::default() };
    let off = ControllerSettings { delete_topic_enable: false, ..ControllerSettings::default() };
    let off = Controller::new(off, Arc::new(TestRules));
    assert_eq!(off.delete_topics(log.image(), &request).response.responses[0].error_code, 73);
    assert_eq!(log.commit(controller().delete_topics(log.image(), &request)).responses[0].error_code, 0);
}

#[test]
fn trap_65_create_partitions_has_a_row_per_topic() {
    let mut log = node();
    create(&mut log, vec![topic("a", 2, 1), topic("b", 2, 1)], false);
    let grow = |name: &str, count| CreatePartitionsTopic { name: name.into(), count, assignments: None };
    let with = |name: &str, count, given: &[&[i32]]| CreatePartitionsTopic {
        assignments: Some(given.iter().map(|b| CreatePartitionsAssignment { broker_ids: b.to_vec() }).collect()),
        ..grow(name, count)
    };
    let mut codes = |topics: Vec<CreatePartitionsTopic>, validate_only| {
        let request = CreatePartitionsRequest { topics, timeout_ms: 1, validate_only };
        let response = log.commit(controller().create_partitions(log.image(), &request));
        let codes: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
        (codes, log.image().topics.by_name("a").unwrap().partition_count())
    };
    assert_eq!(codes(vec![grow("a", 3), grow("nope", 3), grow("b", 2)], false), (vec![0, 3, 37], 3));
    assert_eq!(codes(vec![grow("a", 9)], true), (vec![0], 3));
    assert_eq!(codes(vec![grow("a", i32::MAX)], false), (vec![44], 3));
    assert_eq!(codes(vec![grow("a", i32::MIN)], false), (vec![37], 3));
    assert_eq!(codes(vec![grow("a", 10_002)], false), (vec![0], 10_002));
    assert_eq!(codes(vec![with("b", 4, &[&[0]]), grow("b", 4)], false).0, [42]);
    assert_eq!(codes(vec![with("b", 4, &[&[0]])], false).0, [39]);
    assert_eq!(codes(vec![with("b", 3, &[&[9]])], false).0, [39]);
    assert_eq!(codes(vec![with("b", 3, &[&[0]])], false).0, [0]);
}

fn incremental(log: &mut MemoryLog, kind: i8, name: &str, configs: &[(&str, i8, Option<&str>)]) -> i16 {
    let config = |(name, op, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: (*name).into(),
        config_operation: *op,
        value: value.map(Into::into),
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: configs.iter().map(config).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    log.commit(controller().incremental_alter_configs(log.image(), &request)).responses[0].error_code
}

#[test]
fn trap_67_append_subtract_delete() {
    let mut log = node();
    create(&mut log, vec![topic("t", 1, 1)], false);
    let policy =
        |log: &MemoryLog| log.image().configs.value(&ConfigResource::topic("t"), "cleanup.policy").map(str::to_owned);
    // APPEND starts from the default, and adds nothing twice.
    assert_eq!(incremental(&mut log, 2, "t", &[("cleanup.policy", 2, Some("compact,delete"))]), 0);
    assert_eq!(policy(&log).as_deref(), Some("delete,compact"));
    assert_eq!(incremental(&mut log, 2, "t", &[("cleanup.policy", 3, Some("delete,other"))]), 0);
    assert_eq!(policy(&log).as_deref(), Some("compact"));
    assert_eq!(incremental(&mut log, 2, "t", &[("cleanup.policy", 1, None)]), 0);
    assert_eq!(policy(&log), None);
    assert_eq!(incremental(&mut log, 2, "t", &[("retention.ms", 2, Some("5"))]), 40);
    assert_eq!(incremental(&mut log, 2, "t", &[("retention.ms", 0, Some("5")), ("retention.ms", 1, None)]), 42);
    assert_eq!(incremental(&mut log, 2, "t", &[("retention.ms", 9, Some("5"))]), 42);
    assert_eq!(incremental(&mut log, 2, "nope", &[("retention.ms", 0, Some("5"))]), 3);
    assert_eq!(incremental(&mut log, 4, "", &[("log.retention.ms", 0, Some("5"))]), 0);
    assert_eq!(incremental(&mut log, 4, "0", &[("log.retention.ms", 0, Some("6"))]), 0);
    assert_eq!(incremental(&mut log, 4, "7", &[("log.retention.ms", 0, Some("6"))]), 42);
    assert_eq!(incremental(&mut log, 4, "", &[("min.insync.replicas", 1, None)]), 40);
    assert_eq!(incremental(&mut log, 99, "x", &[("a", 0, Some("6"))]), 42);
    let value = |resource| log.image().configs.value(&resource, "log.retention.ms").map(str::to_owned);
    assert_eq!(value(ConfigResource::default_broker()).as_deref(), Some("5"));
    assert_eq!(value(ConfigResource::broker(0)).as_deref(), Some("6"));
}

#[test]
fn producer_ids_are_for_registered_brokers() {
    let mut log = node();
    let epoch = log.image().cluster.brokers[&0].epoch;
    let request = |broker_id, broker_epoch| AllocateProducerIdsRequest { broker_id, broker_epoch };
    for wrong in [request(0, epoch - 1), request(1, epoch)] {
        let outcome = controller().allocate_producer_ids(log.image(), &wrong);
        assert_eq!((outcome.response.error_code, outcome.records.len()), (ErrorCode::StaleBrokerEpoch.code(), 0));
    }
    for start in [0, 1_000, 2_000] {
        let response = log.commit(controller().allocate_producer_ids(log.image(), &request(0, epoch)));
        assert_eq!((response.producer_id_start, response.producer_id_len), (start, 1_000));
    }
}

#[test]
fn traps_15_to_17_what_metadata_says() {
    let mut log = node();
    create(&mut log, vec![topic("t", 2, 1), topic("__consumer_offsets", 1, 1)], false);
    let brokers = views::metadata_brokers(log.image(), "INTERNAL");
    assert_eq!((brokers[0].node_id, brokers[0].port, brokers[0].rack.as_deref()), (0, 19092, Some("r1")));
    assert_eq!(views::metadata_controller_id(log.image()), Some(0));
    let view = ListenerView::for_metadata("PLAINTEXT", 12);
    let shown = |log: &MemoryLog, view| {
        views::metadata_topic(log.image(), log.image().topics.by_name("t").unwrap(), view).partitions[1].clone()
    };
    let p = shown(&log, view);
    assert_eq!((p.error_code, p.leader_id, p.leader_epoch), (0, 0, 0));
    assert_eq!((p.replica_nodes, p.isr_nodes, p.offline_replicas), (vec![0], vec![0], vec![]));
    // A listener that the leader does not have.
    assert_eq!(shown(&log, ListenerView::for_metadata("OTHER", 6)).error_code, ErrorCode::ListenerNotFound.code());
    assert_eq!(shown(&log, ListenerView::for_metadata("OTHER", 5)).error_code, ErrorCode::LeaderNotAvailable.code());
    let internal = log.image().topics.by_name("__consumer_offsets").unwrap();
    assert!(views::metadata_topic(log.image(), internal, view).is_internal);

    log.commit(controller().controlled_shutdown(log.image(), 0).unwrap());
    log.commit(controller().fence_broker(log.image(), 0).unwrap());
    let p = shown(&log, view);
    assert_eq!((p.error_code, p.leader_id, p.leader_epoch), (ErrorCode::LeaderNotAvailable.code(), -1, 1));
    assert_eq!((p.replica_nodes, p.isr_nodes, p.offline_replicas), (vec![0], vec![], vec![0]));
    assert!(views::metadata_brokers(log.image(), "PLAINTEXT").is_empty());
    assert_eq!(views::describe_cluster_brokers(log.image(), "PLAINTEXT", true).len(), 1);
    assert_eq!(views::describe_cluster_brokers(log.image(), "PLAINTEXT", false).len(), 0);
    let features = views::features(log.image(), 0, taccola_meta::feature::IMPLEMENTED);
    assert!(features.iter().any(|f| f.name == "metadata.version" && f.finalized == 30));
}

#[test]
fn pages_of_partitions_cover_everything_once() {
    let mut log = node();
    create(&mut log, vec![topic("a", 3, 1), topic("b", 1, 1), topic("c", 4, 1)], false);
    for limit in 1..10 {
        let (mut start, mut seen, mut pages) = ((String::new(), 0), Vec::new(), 0);
        loop {
            let at = PageStart { topic: &start.0, partition: start.1 };
            let page = views::describe_topic_partitions(log.image(), "PLAINTEXT", None, at, limit, |_| true);
            let rows = page
                .topics
                .iter()
                .flat_map(|t| t.partitions.iter().map(|p| (t.name.clone().unwrap(), p.partition_index)));
            let before = seen.len();
            seen.extend(rows);
            assert!(seen.len() - before <= limit);
            pages += 1;
            match page.next_cursor {
                Some(cursor) => start = (cursor.topic_name, cursor.partition_index),
                None => break,
            }
        }
        assert_eq!((seen.len(), pages), (8, 8usize.div_ceil(limit)));
        let mut sorted = seen.clone();
        sorted.dedup();
        assert_eq!(sorted, seen);
    }
    let names = ["c", "nope", "a b", "a", "a"];
    let page =
        views::describe_topic_partitions(log.image(), "PLAINTEXT", Some(&names), PageStart::default(), 100, |n| {
            n != "c"
        });
    let rows: Vec<_> =
        page.topics.iter().map(|t| (t.name.as_deref().unwrap(), t.error_code, t.partitions.len())).collect();
    assert_eq!(rows, [("a", 0, 3), ("a b", 17, 0), ("nope", 3, 0)]);
    assert_eq!(page.topics[0].partitions[0].eligible_leader_replicas, Some(vec![]));
    // A cursor at a topic that is gone goes on with the next one.
    let gone = PageStart { topic: "b5", partition: 7 };
    let page = views::describe_topic_partitions(log.image(), "PLAINTEXT", None, gone, 100, |_| true);
    assert_eq!(page.topics[0].partitions.len(), 4);
}
