//! ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments, DescribeQuorum, UpdateFeatures, UnregisterBroker.

use taccola_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use taccola_wire::messages::create_topics_request::CreatableTopic;
use taccola_wire::messages::elect_leaders_request::TopicPartitions;
use taccola_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use taccola_wire::messages::update_features_request::FeatureUpdateKey;
use taccola_wire::messages::*;

use super::Differential;
use super::equal;
use crate::requests::list_offset;

pub(crate) fn run(d: &mut Differential) {
    let topic =
        CreatableTopic { name: "e-one".to_owned(), num_partitions: 3, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    d.at("prepare", 7, &request, |response| response.topics.clear());
    old_metadata(d);
    elect(d);
    reassign(d);
    list(d);
    quorum(d, "static");
    features(d);
    for (case, broker_id) in [("nobody", 5), ("negative", -1)] {
        d.at(case, 0, &UnregisterBrokerRequest { broker_id }, |response| {
            equal::message(response.error_code, &mut response.error_message);
        });
    }
}

/// Metadata before auto-creation could be turned off; later versions are asked where topics are made.
fn old_metadata(d: &mut Differential) {
    let all = |version| if version == 0 { Some(Vec::new()) } else { None };
    let named = |name: &str| {
        let topic = metadata_request::MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
        Some(vec![topic])
    };
    d.prepare("a leader", |conn| list_offset(conn, "e-one", 2, -1).0 == 0);
    for version in 0..=3 {
        for (case, topics) in [("all", all(version)), ("one", named("e-one")), ("a bad name", named("a b"))] {
            let request = MetadataRequest { topics, ..Default::default() };
            d.at(case, version, &request, |response| {
                response.brokers.iter_mut().for_each(|broker| broker.port = broker.port.min(1));
                response.cluster_id = response.cluster_id.take().map(|_| "its id".to_owned());
                response.topics.sort_by(|a, b| a.name.cmp(&b.name));
                response.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
            });
        }
    }
}

fn elect(d: &mut Differential) {
    let topics = |asked: &[(&str, &[i32])]| {
        let topic =
            |(topic, ids): &(&str, &[i32])| TopicPartitions { topic: (*topic).to_owned(), partitions: ids.to_vec() };
        Some(asked.iter().map(topic).collect::<Vec<_>>())
    };
    for (case, kind) in [("preferred", 0), ("unclean", 1), ("a kind that is none", 2), ("a negative kind", -1)] {
        for (which, asked) in [
            ("led", topics(&[("e-one", &[0, 1])])),
            ("unknown", topics(&[("e-one", &[2, 3]), ("nowhere", &[0])])),
            ("twice", topics(&[("e-one", &[0, 0])])),
            ("nothing", Some(Vec::new())),
            ("no partitions", topics(&[("e-one", &[])])),
            ("everything", None),
        ] {
            for version in 0..=2 {
                let election_type = if version == 0 { 0 } else { kind };
                let request =
                    ElectLeadersRequest { election_type, topic_partitions: asked.clone(), ..Default::default() };
                d.at(&format!("{case}, {which}"), version, &request, |response| {
                    for topic in &mut response.replica_election_results {
                        for row in &mut topic.partition_result {
                            equal::message(row.error_code, &mut row.error_message);
                        }
                    }
                    response.replica_election_results.sort_by(|a, b| a.topic.cmp(&b.topic));
                });
            }
        }
    }
}

fn reassign(d: &mut Differential) {
    let cases: [(&str, &str, i32, Option<&[i32]>); 10] = [
        ("as it is", "e-one", 0, Some(&[0])),
        ("nobody's", "e-one", 0, Some(&[9])),
        ("one more that is nobody", "e-one", 0, Some(&[0, 9])),
        ("twice the same", "e-one", 0, Some(&[0, 0])),
        ("no replicas", "e-one", 0, Some(&[])),
        ("negative", "e-one", 0, Some(&[-1])),
        ("taken back", "e-one", 0, None),
        ("no such partition", "e-one", 9, Some(&[0])),
        ("a negative partition", "e-one", -1, None),
        ("no such topic", "nowhere", 0, Some(&[0])),
    ];
    let equal = |response: &mut AlterPartitionReassignmentsResponse| {
        for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            equal::message(row.error_code, &mut row.error_message);
        }
    };
    for (case, name, partition_index, replicas) in cases {
        let partition = ReassignablePartition { partition_index, replicas: replicas.map(<[i32]>::to_vec) };
        let topic = ReassignableTopic { name: name.to_owned(), partitions: vec![partition] };
        let request = AlterPartitionReassignmentsRequest { topics: vec![topic], ..Default::default() };
        d.all(case, 0..=1, &request, equal);
        let strict = AlterPartitionReassignmentsRequest { allow_replication_factor_change: false, ..request };
        d.at(&format!("{case}, with as many replicas"), 1, &strict, equal);
    }
    let nothing = AlterPartitionReassignmentsRequest::default();
    d.all("nothing", 0..=1, &nothing, equal);
    let strict = AlterPartitionReassignmentsRequest { allow_replication_factor_change: false, ..nothing };
    d.at("nothing, with as many replicas", 1, &strict, equal);
}

fn list(d: &mut Differential) {
    let topics = |asked: &[(&str, &[i32])]| {
        let topic = |(name, ids): &(&str, &[i32])| ListPartitionReassignmentsTopics {
            name: (*name).to_owned(),
            partition_indexes: ids.to_vec(),
        };
        Some(asked.iter().map(topic).collect::<Vec<_>>())
    };
    for (case, asked) in [
        ("everything", None),
        ("nothing", Some(Vec::new())),
        ("quiet", topics(&[("e-one", &[0, 1])])),
        ("unknown", topics(&[("e-one", &[7]), ("nowhere", &[0])])),
    ] {
        let request = ListPartitionReassignmentsRequest { topics: asked, ..Default::default() };
        d.at(case, 0, &request, |_| ());
    }
}

fn quorum(d: &mut Differential, of: &str) {
    use describe_quorum_request::{PartitionData, TopicData};
    let topic = |name: &str, ids: &[i32]| TopicData {
        topic_name: name.to_owned(),
        partitions: ids.iter().map(|id| PartitionData { partition_index: *id }).collect(),
    };
    let log = "__cluster_metadata";
    for (case, topics) in [
        ("the log", vec![topic(log, &[0])]),
        ("another partition", vec![topic(log, &[1])]),
        ("two partitions", vec![topic(log, &[0, 1])]),
        ("no partition", vec![topic(log, &[])]),
        ("two topics", vec![topic(log, &[0]), topic("e-one", &[0])]),
        ("another topic", vec![topic("e-one", &[0])]),
        ("nothing", Vec::new()),
    ] {
        d.all(&format!("{case}, {of}"), 0..=2, &DescribeQuorumRequest { topics }, |response| {
            for listener in response.nodes.iter_mut().flat_map(|node| &mut node.listeners) {
                listener.port = 0;
            }
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                equal::message(partition.error_code, &mut partition.error_message);
                partition.leader_epoch = partition.leader_epoch.min(1);
                partition.high_watermark = partition.high_watermark.min(1);
                for voter in &mut partition.current_voters {
                    equal::id(&mut voter.replica_directory_id);
                    voter.log_end_offset = voter.log_end_offset.min(1);
                    voter.last_fetch_timestamp = voter.last_fetch_timestamp.min(1);
                    voter.last_caught_up_timestamp = voter.last_caught_up_timestamp.min(1);
                }
            }
        });
    }
}

/// The quorum stays as it is made here.
fn features(d: &mut Differential) {
    let update = |feature: &str, max_version_level, upgrade_type| FeatureUpdateKey {
        feature: feature.to_owned(),
        max_version_level,
        upgrade_type,
        ..Default::default()
    };
    let cases: [(&str, Vec<FeatureUpdateKey>); 12] = [
        ("nothing", Vec::new()),
        ("as it is", vec![update("metadata.version", 30, 1)]),
        ("too high", vec![update("metadata.version", 31, 1)]),
        ("a downgrade that loses", vec![update("metadata.version", 7, 2)]),
        ("an upgrade downwards", vec![update("group.version", 0, 1)]),
        ("unknown", vec![update("nothing", 1, 1)]),
        ("unknown, at level 0", vec![update("nothing", 0, 2)]),
        ("no name", vec![update("", 1, 1)]),
        ("negative", vec![update("group.version", -1, 2)]),
        ("no kind", vec![update("group.version", 1, 0)]),
        ("one of two", vec![update("group.version", 1, 1), update("nothing", 1, 1)]),
        ("quorum, too high", vec![update("kraft.version", 2, 1)]),
    ];
    let equal = |response: &mut UpdateFeaturesResponse| {
        equal::message(response.error_code, &mut response.error_message);
        response.results.sort_by(|a, b| a.feature.cmp(&b.feature));
    };
    for (validate_only, dry) in [(true, "as a dry run"), (false, "for good")] {
        for (case, feature_updates) in &cases {
            let request =
                UpdateFeaturesRequest { feature_updates: feature_updates.clone(), validate_only, ..Default::default() };
            d.all(&format!("{case}, {dry}"), 0..=2, &request, equal);
        }
        let request = |level, kind| UpdateFeaturesRequest {
            feature_updates: vec![update("kraft.version", level, kind)],
            validate_only,
            ..Default::default()
        };
        d.all(&format!("quorum, {dry}"), 0..=2, &request(1, 1), equal);
        d.all(&format!("quorum, back, {dry}"), 0..=2, &request(0, 2), equal);
        d.all(&format!("quorum, back at any price, {dry}"), 1..=2, &request(0, 3), equal);
        quorum(d, dry);
    }
}
