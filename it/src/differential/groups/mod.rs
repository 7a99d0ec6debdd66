//! Groups of every kind: heartbeats, descriptions, lists, and what a group of one kind says to a request for another.

mod consumer;
mod kinds;
mod share;
mod streams;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_topics_request::CreatableTopic;
use taccola_wire::messages::metadata_request::MetadataRequestTopic;
use taccola_wire::messages::*;

use super::{Differential, equal};
use crate::conn::Conn;
use crate::requests::list_offset;

/// What both brokers are started with: one shard that sees topics for all groups at once, no waiting before assignments.
pub const PROPERTIES: &[&str] = &[
    "offsets.topic.replication.factor=1",
    "offsets.topic.num.partitions=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "share.coordinator.state.topic.num.partitions=1",
    "group.initial.rebalance.delay.ms=0",
    "group.consumer.assignment.interval.ms=0",
    "group.share.assignment.interval.ms=0",
    "group.streams.assignment.interval.ms=0",
    "group.streams.initial.rebalance.delay.ms=0",
];

const TOPICS: [(&str, i32); 4] = [("g-one", 1), ("g-two", 2), ("g-four", 4), ("g-more", 3)];

pub(super) fn run(d: &mut Differential) {
    prepare(d);
    consumer::run(d);
    share::run(d);
    streams::run(d);
    kinds::run(d);
}

fn prepare(d: &mut Differential) {
    d.prepare("a coordinator", |conn| {
        let keys = vec!["g".to_owned()];
        let find = FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() };
        let found = conn.ask(&find, 4).coordinators.first().is_some_and(|c| c.error_code == 0);
        let probe = HeartbeatRequest { group_id: "g".to_owned(), member_id: "m".to_owned(), ..Default::default() };
        found && !(14..=16).contains(&conn.ask(&probe, 4).error_code)
    });
    for (name, partitions) in TOPICS {
        create(d, name, partitions);
    }
}

/// A topic that the coordinators of both brokers have seen when this returns.
fn create(d: &mut Differential, name: &str, num_partitions: i32) {
    let topic = CreatableTopic { name: name.to_owned(), num_partitions, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    d.prepare("the topic", |conn| [0, 36].contains(&conn.ask(&request, 7).topics[0].error_code));
    d.prepare("leaders", |conn| (0..num_partitions).all(|p| list_offset(conn, name, p, -1).0 == 0));
    d.call(&format!("<{name}>"), |conn| topic_id(conn, name).to_string());
    seen(d, name);
}

/// Waits until a group that has nothing to do with the others is assigned the topic.
fn seen(d: &mut Differential, name: &str) {
    d.prepare("the coordinator knows the topic", |conn| {
        let beat = |member_epoch| ConsumerGroupHeartbeatRequest {
            group_id: "lookout".to_owned(),
            member_id: "lookout".to_owned(),
            member_epoch,
            rebalance_timeout_ms: 30_000,
            subscribed_topic_names: Some(vec![name.to_owned()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        };
        let joined = conn.ask(&beat(0), 1);
        assert_eq!(joined.error_code, 0, "{joined:?}");
        assert_eq!(conn.ask(&beat(-1), 1).error_code, 0);
        joined.assignment.is_some_and(|assignment| !assignment.topic_partitions.is_empty())
    });
}

/// A broker's id of a topic.
pub(super) fn topic_id(conn: &mut Conn, name: &str) -> Uuid {
    let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: false, ..Default::default() };
    conn.ask(&request, 12).topics.first().map_or(Uuid::ZERO, |topic| topic.topic_id)
}

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A name as short as it must be to be read in a list of cases.
fn short(text: &str) -> String {
    match text.chars().count() {
        0..=20 => text.to_owned(),
        n => format!("{}…{n}", text.chars().take(12).collect::<String>()),
    }
}

/// Waiting is over when the coordinator has loaded what it must.
fn is_retriable(code: i16) -> bool {
    ErrorCode::from_code(code).retriable()
}

fn consumer_described(response: &mut ConsumerGroupDescribeResponse) {
    response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    for group in &mut response.groups {
        equal::message(group.error_code, &mut group.error_message);
        group.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        for member in &mut group.members {
            member.subscribed_topic_names.sort();
            for assignment in [&mut member.assignment, &mut member.target_assignment] {
                assignment.topic_partitions.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
                assignment.topic_partitions.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
            }
        }
    }
}
