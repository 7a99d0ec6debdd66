//! CreateTopics, CreatePartitions, Metadata, DescribeTopicPartitions, DescribeCluster, DeleteTopics.

use crate::conn::Conn;
use taccola_base::Uuid;
use taccola_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use taccola_wire::messages::metadata_request::MetadataRequestTopic;
use taccola_wire::messages::*;

use super::Differential;
use super::equal;

pub(crate) fn run(d: &mut Differential) {
    create(d);
    create_partitions(d);
    metadata(d);
    describe_topic_partitions(d);
    describe_cluster(d);
    delete(d);
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.to_owned(), num_partitions, replication_factor, ..Default::default() }
}

fn with_config(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
    };
    CreatableTopic { configs: configs.iter().map(config).collect(), ..topic(name, 1, 1) }
}

fn with_assignment(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(partition_index, broker_ids): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: broker_ids.to_vec(),
    };
    CreatableTopic { assignments: assignments.iter().map(assignment).collect(), ..topic(name, -1, -1) }
}

fn created(response: &mut CreateTopicsResponse) {
    response.topics.sort_by(|a, b| a.name.cmp(&b.name));
    for topic in &mut response.topics {
        equal::id(&mut topic.topic_id);
        equal::message(topic.error_code, &mut topic.error_message);
        if let Some(configs) = &mut topic.configs {
            configs.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }
}

fn create(d: &mut Differential) {
    let request =
        |topics: Vec<CreatableTopic>| CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    for version in 2..=7 {
        d.at("a topic", version, &request(vec![topic(&format!("d-create-{version}"), 2, 1)]), created);
        let validate_only = CreateTopicsRequest { validate_only: true, ..request(vec![topic("d-never", 3, 1)]) };
        d.at("validate only", version, &validate_only, created);
        d.at("exists", version, &request(vec![topic(&format!("d-create-{version}"), 2, 1)]), created);
        d.at("no topics", version, &request(vec![]), created);
    }
    for version in 4..=7 {
        d.at("defaults", version, &request(vec![topic(&format!("d-default-{version}"), -1, -1)]), created);
    }
    let bad = [
        topic("", 1, 1),
        topic(".", 1, 1),
        topic("..", 1, 1),
        topic("a b", 1, 1),
        topic(&"x".repeat(250), 1, 1),
        topic("__cluster_metadata", 1, 1),
        topic("d-zero", 0, 1),
        topic("d-negative", -2, 1),
        topic("d-many", i32::MAX, 1),
        topic("d-too-many", 10_001, 1),
        topic("d-zero-factor", 1, 0),
        topic("d-negative-factor", 1, -2),
        topic("d-large-factor", 1, 2),
        topic("d-largest-factor", 1, i16::MAX),
    ];
    for one in bad {
        let name: String = one.name.chars().take(20).collect();
        let case = format!("bad topic {name:?} {} {}", one.num_partitions, one.replication_factor);
        d.at(&case, 7, &request(vec![one]), created);
    }
    d.at("twice", 7, &request(vec![topic("d-twice", 1, 1), topic("d-twice", 1, 1), topic("d-once", 1, 1)]), created);
    let together = vec![topic("d-half", 6_000, 1), topic("d-half-2", 6_000, 1)];
    d.at("too many partitions together", 7, &request(together), created);
    d.at("collide with an old one", 7, &request(vec![topic("d-x.y", 1, 1)]), created);
    d.at("collide with an old one", 7, &request(vec![topic("d-x_y", 1, 1)]), created);
    let assignments = [
        with_assignment("d-assigned", &[(0, &[0]), (1, &[0])]),
        with_assignment("d-gap", &[(0, &[0]), (2, &[0])]),
        with_assignment("d-from-one", &[(1, &[0])]),
        with_assignment("d-negative-index", &[(-1, &[0])]),
        with_assignment("d-repeated-index", &[(0, &[0]), (0, &[0])]),
        with_assignment("d-unknown-broker", &[(0, &[7])]),
        with_assignment("d-repeated-broker", &[(0, &[0, 0])]),
        with_assignment("d-no-broker", &[(0, &[])]),
        CreatableTopic { num_partitions: 2, ..with_assignment("d-and-count", &[(0, &[0])]) },
        CreatableTopic { replication_factor: 1, ..with_assignment("d-and-factor", &[(0, &[0])]) },
    ];
    for one in assignments {
        let case = format!("assignment {}", one.name);
        d.at(&case, 7, &request(vec![one]), created);
    }
    let configs = [
        with_config("d-config", &[("cleanup.policy", Some("compact")), ("segment.bytes", Some("1048576"))]),
        with_config("d-config-list", &[("cleanup.policy", Some("compact,delete"))]),
        with_config("d-config-unknown", &[("no.such.config", Some("1"))]),
        with_config("d-config-bad", &[("retention.ms", Some("x"))]),
        with_config("d-config-range", &[("segment.bytes", Some("1"))]),
        with_config("d-config-null", &[("retention.ms", None)]),
        with_config("d-config-repeated", &[("retention.ms", Some("1")), ("retention.ms", Some("2000"))]),
        with_config("d-config-empty-name", &[("", Some("1"))]),
        with_config("d-config-lags", &[("min.compaction.lag.ms", Some("10")), ("max.compaction.lag.ms", Some("5"))]),
        with_config("d-config-remote", &[("remote.storage.enable", Some("true"))]),
        with_config("d-config-min-isr", &[("min.insync.replicas", Some("2"))]),
        with_config("d-config-empty-policy", &[("cleanup.policy", Some(""))]),
    ];
    for one in configs {
        let case = format!("config {}", one.name);
        d.all(&case, 7..=7, &request(vec![one]), created);
    }
}

fn create_partitions(d: &mut Differential) {
    let topic = |name: &str, count: i32, assignments: Option<&[&[i32]]>| CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        assignments: assignments
            .map(|all| all.iter().map(|ids| CreatePartitionsAssignment { broker_ids: ids.to_vec() }).collect()),
    };
    let request = |topics: Vec<CreatePartitionsTopic>, validate_only| CreatePartitionsRequest {
        topics,
        timeout_ms: 30_000,
        validate_only,
    };
    let rows = |response: &mut CreatePartitionsResponse| {
        response.results.sort_by(|a, b| a.name.cmp(&b.name));
        response.results.iter_mut().for_each(|row| equal::message(row.error_code, &mut row.error_message));
    };
    for version in 0..=3 {
        let mixed = vec![
            topic("d-create-2", 3 + i32::from(version), None),
            topic("d-missing", 3, None),
            topic("d-create-3", 1, None),
            topic("d-create-3", 4, None),
            topic("d-create-4", 2, None),
        ];
        d.at("a row per topic", version, &request(mixed, false), rows);
        d.at("validate only", version, &request(vec![topic("d-create-5", 9, None)], true), rows);
        d.at("no topics", version, &request(vec![], false), rows);
    }
    let cases = [
        ("fewer", topic("d-create-5", 1, None)),
        ("zero", topic("d-create-5", 0, None)),
        ("negative", topic("d-create-5", -1, None)),
        ("empty assignments", topic("d-create-5", 3, Some(&[]))),
        ("too few assignments", topic("d-create-5", 4, Some(&[&[0]]))),
        ("too many assignments", topic("d-create-5", 3, Some(&[&[0], &[0]]))),
        ("unknown broker", topic("d-create-5", 3, Some(&[&[9]]))),
        ("no broker", topic("d-create-5", 3, Some(&[&[]]))),
        ("broker twice", topic("d-create-5", 3, Some(&[&[0, 0]]))),
        ("assigned", topic("d-create-5", 3, Some(&[&[0]]))),
        ("bad name", topic("a b", 3, None)),
        ("empty name", topic("", 3, None)),
    ];
    for (case, one) in cases {
        d.at(case, 3, &request(vec![one], false), rows);
    }
}

fn metadata(d: &mut Differential) {
    let named = |name: &str| MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
    let request = |topics: Option<Vec<MetadataRequestTopic>>| MetadataRequest {
        topics,
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let rows = |response: &mut MetadataResponse| {
        response.cluster_id = response.cluster_id.take().map(|_| "id".to_owned());
        response.brokers.iter_mut().for_each(|broker| broker.port = 1);
        response.topics.sort_by(|a, b| a.name.cmp(&b.name));
        for topic in &mut response.topics {
            equal::id(&mut topic.topic_id);
            topic.partitions.sort_by_key(|p| p.partition_index);
            topic.partitions.iter_mut().for_each(|p| p.leader_epoch = p.leader_epoch.min(0));
        }
    };
    let names = ["d-create-2", "d-missing", "a b", "", "d-create-2", "__consumer_offsets"];
    for version in 4..=13 {
        d.at("all", version, &request(None), rows);
        d.at("none", version, &request(Some(vec![])), rows);
        for name in names {
            d.at(&format!("{name:?}"), version, &request(Some(vec![named(name)])), rows);
        }
        d.at("several", version, &request(Some(names.iter().map(|name| named(name)).collect())), rows);
    }
    for version in 12..=13 {
        let by_id = |id: Uuid| MetadataRequestTopic { topic_id: id, name: None };
        d.at("unknown id", version, &request(Some(vec![by_id(Uuid::METADATA_TOPIC_ID)])), rows);
        d.at("no id and no name", version, &request(Some(vec![by_id(Uuid::ZERO)])), rows);
    }
    for version in 8..=10 {
        let all = MetadataRequest {
            include_cluster_authorized_operations: true,
            include_topic_authorized_operations: true,
            ..request(Some(vec![named("d-create-2"), named("d-missing")]))
        };
        d.at("operations", version, &all, rows);
    }
}

fn describe_topic_partitions(d: &mut Differential) {
    let request = |names: &[&str], limit: i32, cursor: Option<(&str, i32)>| DescribeTopicPartitionsRequest {
        topics: names.iter().map(|name| TopicRequest { name: (*name).to_owned() }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(name, partition_index)| Cursor { topic_name: name.to_owned(), partition_index }),
    };
    let rows = |response: &mut DescribeTopicPartitionsResponse| {
        for topic in &mut response.topics {
            equal::id(&mut topic.topic_id);
            topic.partitions.iter_mut().for_each(|p| p.leader_epoch = p.leader_epoch.min(0));
        }
    };
    d.at("all", 0, &request(&[], 2000, None), rows);
    for limit in [i32::MIN, -1, 0, 1, 3, i32::MAX] {
        d.at(&format!("all, limit {limit}"), 0, &request(&[], limit, None), rows);
    }
    let some = ["d-create-3", "d-missing", "d-create-2", "a b", "d-create-3", ""];
    // With an empty name among them Kafka fails (UNKNOWN_SERVER_ERROR).
    let named = some.split_last().map_or(&some[..], |(_, named)| named);
    d.at("named", 0, &request(named, 2000, None), rows);
    d.at("named, limit 2", 0, &request(named, 2, None), rows);
    for (topic, partition) in
        [("d-create-2", 1), ("d-create-2", 99), ("d-create-20", 1), ("", 0), ("zz", 0), ("d-gone", 3)]
    {
        d.at(&format!("from {topic:?} {partition}"), 0, &request(&[], 4, Some((topic, partition))), rows);
        d.at(&format!("named, from {topic:?} {partition}"), 0, &request(&some, 4, Some((topic, partition))), rows);
    }
    d.at("negative cursor", 0, &request(&some, 4, Some(("d-create-2", -1))), rows);
    d.at("negative cursor, all", 0, &request(&[], 4, Some(("d-create-2", -1))), rows);
}

fn describe_cluster(d: &mut Differential) {
    let rows = |response: &mut DescribeClusterResponse| {
        equal::message(response.error_code, &mut response.error_message);
        if !response.cluster_id.is_empty() {
            response.cluster_id = "id".to_owned();
        }
        response.brokers.iter_mut().for_each(|broker| broker.port = 1);
    };
    for version in 0..=2 {
        for include_cluster_authorized_operations in [false, true] {
            let request = DescribeClusterRequest { include_cluster_authorized_operations, ..Default::default() };
            d.at(&format!("operations {include_cluster_authorized_operations}"), version, &request, rows);
        }
    }
    for endpoint_type in [-1, 0, 2, 3, 99] {
        let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
        d.all(&format!("endpoint type {endpoint_type}"), 1..=2, &request, rows);
    }
    d.at("fenced", 2, &DescribeClusterRequest { include_fenced_brokers: true, ..Default::default() }, rows);
}

/// A broker's id of a topic.
fn topic_id(conn: &mut Conn, name: &str) -> Uuid {
    let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    conn.ask(&request, 12).topics.first().map_or(Uuid::ZERO, |topic| topic.topic_id)
}

fn delete(d: &mut Differential) {
    let rows = |response: &mut DeleteTopicsResponse| {
        response.responses.iter_mut().for_each(|row| {
            equal::id(&mut row.topic_id);
            equal::message(row.error_code, &mut row.error_message);
        });
        response
            .responses
            .sort_by(|a, b| (&a.name, a.topic_id, a.error_code).cmp(&(&b.name, b.topic_id, b.error_code)));
    };
    for version in 1..=5 {
        let named = |names: &[&str]| DeleteTopicsRequest {
            topic_names: names.iter().map(|name| (*name).to_owned()).collect(),
            timeout_ms: 30_000,
            ..Default::default()
        };
        let own = format!("d-create-{version}");
        d.at("by name", version, &named(&[&own, "d-missing", "a b", ""]), rows);
        d.at("again", version, &named(&[&own]), rows);
        d.at("none", version, &named(&[]), rows);
        d.at("twice", version, &named(&["d-create-6", "d-create-6", "d-create-6"]), rows);
        d.at("cluster metadata", version, &named(&["__cluster_metadata"]), rows);
    }
    let state = |name: Option<&str>, topic_id| DeleteTopicState { name: name.map(str::to_owned), topic_id };
    let request = |topics| DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let cases = [
        ("unknown id", vec![state(None, Uuid::METADATA_TOPIC_ID)]),
        ("no name and no id", vec![state(None, Uuid::ZERO)]),
        ("no name and no id, twice", vec![state(None, Uuid::ZERO), state(None, Uuid::ZERO)]),
        ("name and id", vec![state(Some("d-create-6"), Uuid::METADATA_TOPIC_ID)]),
        ("name twice", vec![state(Some("d-create-6"), Uuid::ZERO), state(Some("d-create-6"), Uuid::ZERO)]),
        ("missing twice", vec![state(Some("d-missing"), Uuid::ZERO), state(Some("d-missing"), Uuid::ZERO)]),
        ("unknown id twice", vec![state(None, Uuid::METADATA_TOPIC_ID), state(None, Uuid::METADATA_TOPIC_ID)]),
        ("empty", vec![]),
    ];
    for (case, topics) in cases {
        d.at(case, 6, &request(topics), rows);
    }
    let both = |conn: &mut Conn| {
        let id = topic_id(conn, "d-create-6");
        request(vec![state(Some("d-create-6"), Uuid::ZERO), state(None, id)])
    };
    d.per_broker("the same by name and by id", 6, both, rows);
    let twice = |conn: &mut Conn| {
        let id = topic_id(conn, "d-create-6");
        request(vec![state(None, id), state(None, id)])
    };
    d.per_broker("id twice", 6, twice, rows);
    d.per_broker("by id", 6, |conn| request(vec![state(None, topic_id(conn, "d-create-6"))]), rows);
    d.at("by name", 6, &request(vec![state(Some("d-create-7"), Uuid::ZERO)]), rows);
}
