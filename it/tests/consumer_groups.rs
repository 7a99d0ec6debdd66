//! Consumer groups (KIP-848) as clients see them: Apache Kafka's Java consumer and librdkafka together in one group, members
//! that come, go, return and die, server-side expressions and assignors, and groups that change their protocol while they run.
//!
//! `KAFKA_ORACLE=HOST:PORT` plays all but the kills of the broker to one that runs already, started with [`PROPERTIES`].

use std::collections::BTreeSet;

use taccola_base::Uuid;
use taccola_it::conn::Conn;
use taccola_it::eventually;
use taccola_it::group::find_coordinator;
use taccola_it::members::{Kind, Members, read_all, shared};
use taccola_it::requests::{batch, list_offset, new_topic, produced};
use taccola_it::server::{Server, fresh};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_describe_response::DescribedGroup;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ListGroupsRequest,
    OffsetFetchRequest,
};

/// Short rounds, so that a rebalance takes no minutes.
const PROPERTIES: &[&str] = &[
    "group.consumer.min.session.timeout.ms=6000",
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.heartbeat.interval.ms=500",
    "group.consumer.heartbeat.interval.ms=500",
    "group.consumer.assignment.interval.ms=0",
];
const CONSUMER: &str = "group.protocol=consumer";

/// A topic with a producer's view of it: what was written has to be read.
struct Topic {
    name: String,
    id: Uuid,
    partitions: i32,
    values: BTreeSet<String>,
}

impl Topic {
    fn new(conn: &mut Conn, prefix: &str, partitions: i32) -> Self {
        let name = fresh(prefix);
        let id = new_topic(conn, &name, partitions, &[]);
        eventually("leaders", || (0..partitions).all(|p| list_offset(conn, &name, p, -1).0 == 0).then_some(()));
        Self { name, id, partitions, values: BTreeSet::new() }
    }

    /// So many records into each partition.
    fn produce(&mut self, conn: &mut Conn, count: usize) {
        for partition in 0..self.partitions {
            let first = self.values.len();
            let values: Vec<String> = (first..first + count).map(|n| format!("{partition}:{n}")).collect();
            let slices: Vec<&str> = values.iter().map(String::as_str).collect();
            produced(conn, &self.name, partition, batch(&slices));
            self.values.extend(values);
        }
    }

    fn ends(&self, conn: &mut Conn) -> Vec<i64> {
        (0..self.partitions).map(|p| list_offset(conn, &self.name, p, -1).1).collect()
    }

    /// What a group has committed.
    fn committed(&self, conn: &mut Conn, group: &str) -> Vec<i64> {
        committed(conn, group, &self.name, self.partitions)
    }
}

fn committed(conn: &mut Conn, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let partition_indexes = (0..partitions).collect();
    let topic = OffsetFetchRequestTopics { name: topic.to_owned(), partition_indexes, ..Default::default() };
    let group = OffsetFetchRequestGroup {
        group_id: group.to_owned(),
        member_epoch: -1,
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let reply = conn.ask(&OffsetFetchRequest { groups: vec![group], ..Default::default() }, 9);
    let Some(topic) = reply.groups.first().and_then(|group| group.topics.first()) else { return Vec::new() };
    let mut rows: Vec<_> = topic.partitions.iter().map(|p| (p.partition_index, p.committed_offset)).collect();
    rows.sort_unstable();
    rows.into_iter().map(|(_, offset)| offset).collect()
}

/// A group's type and state.
fn listed(conn: &mut Conn, group: &str) -> (String, String) {
    let groups = conn.ask(&ListGroupsRequest::default(), 5).groups;
    groups.into_iter().find(|g| g.group_id == group).map(|g| (g.group_type, g.group_state)).unwrap_or_default()
}

fn described(conn: &mut Conn, group: &str) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
    conn.ask(&request, 1).groups.into_iter().next().expect("one group")
}

/// Two processes of members, one for each client; `None` where one is not installed.
fn both(test: &str, server: &Server) -> Option<(Members, Members)> {
    let bootstrap = server.bootstrap();
    Some((Members::new(test, Kind::Java, &bootstrap)?, Members::new(test, Kind::Librdkafka, &bootstrap)?))
}

#[test]
fn members_of_two_clients_share_and_nothing_is_lost_when_one_side_dies() {
    let mut server = Server::start(PROPERTIES);
    let test = "members_of_two_clients_share_and_nothing_is_lost_when_one_side_dies";
    let Some((mut java, mut native)) = both(test, &server) else { return };
    let mut conn = server.conn();
    let mut topic = Topic::new(&mut conn, "shared", 6);
    let group = fresh("group");
    let group_id = format!("group.id={group}");
    let topics = format!("topics={}", topic.name);
    let settings = [CONSUMER, &group_id, &topics];

    java.start("j1", &settings);
    topic.produce(&mut conn, 20);
    shared(&[(&java, "j1")], &[6]);
    native.start("n1", &settings);
    shared(&[(&java, "j1"), (&native, "n1")], &[3, 3]);
    native.start("n2", &settings);
    shared(&[(&java, "j1"), (&native, "n1"), (&native, "n2")], &[2, 2, 2]);
    topic.produce(&mut conn, 20);
    read_all(&[&java, &native], &topic.values);
    assert_eq!(listed(&mut conn, &group), ("consumer".to_owned(), "Stable".to_owned()));

    // The broker dies under all of them: they go on with what they have.
    let changes = java.changes("j1");
    if server.kill_and_restart() {
        conn = server.conn();
        topic.produce(&mut conn, 20);
        read_all(&[&java, &native], &topic.values);
        assert_eq!(java.changes("j1"), changes, "a restart is no rebalance");
    }

    // One says goodbye, then a process dies without a word: its partitions move when the session ends.
    native.close("n2");
    shared(&[(&java, "j1"), (&native, "n1")], &[3, 3]);
    native.kill();
    topic.produce(&mut conn, 20);
    shared(&[(&java, "j1")], &[6]);
    read_all(&[&java, &native], &topic.values);
    eventually("everything is committed", || {
        (topic.committed(&mut conn, &group) == topic.ends(&mut conn)).then_some(())
    });
    java.close("j1");
    assert_eq!(listed(&mut conn, &group), ("consumer".to_owned(), "Empty".to_owned()));
}

#[test]
fn a_static_member_returns_to_its_partitions_and_is_fenced_by_nobody_while_it_is_there() {
    let server = Server::start(PROPERTIES);
    let test = "a_static_member_returns_to_its_partitions";
    let Some(mut native) = Members::new(test, Kind::Librdkafka, &server.bootstrap()) else { return };
    let mut conn = server.conn();
    let mut topic = Topic::new(&mut conn, "static", 4);
    let group = fresh("group");
    let group_id = format!("group.id={group}");
    let topics = format!("topics={}", topic.name);
    let fixed = [CONSUMER, &group_id, &topics, "group.instance.id=one"];
    native.start("other", &[CONSUMER, &group_id, &topics]);
    native.start("first", &fixed);
    let before = shared(&[(&native, "other"), (&native, "first")], &[2, 2]);
    let changes = native.changes("other");

    // Somebody else with its instance id is turned away.
    native.start("thief", &fixed);
    native.wait_for("thief", "ERROR", |text| text.contains("still used by another member"));
    native.close("first");
    let gone = described(&mut conn, &group);
    let absent = gone.members.iter().find(|m| m.instance_id.as_deref() == Some("one")).expect("it keeps its place");
    assert_eq!(absent.member_epoch, -2, "away for a while");
    native.start("again", &fixed);
    eventually("its partitions are given back", || (native.assigned("again") == before["first"]).then_some(()));
    assert_eq!(native.changes("other"), changes, "nobody else has noticed");
    topic.produce(&mut conn, 5);
    read_all(&[&native], &topic.values);
}

#[test]
fn the_broker_evaluates_expressions_and_assigns_by_range() {
    let server = Server::start(PROPERTIES);
    let test = "the_broker_evaluates_expressions_and_assigns_by_range";
    let Some((mut java, mut native)) = both(test, &server) else { return };
    let mut conn = server.conn();
    let prefix = fresh("expr");
    let mut first = Topic::new(&mut conn, &format!("{prefix}-a"), 2);
    Topic::new(&mut conn, &format!("no-{prefix}"), 2);
    let group_id = format!("group.id={}", fresh("group"));
    let pattern = format!("pattern={prefix}-[ab].*");
    let settings = [CONSUMER, &group_id, &pattern];
    java.start("j", &[&settings[..], &["group.remote.assignor=range"]].concat());
    shared(&[(&java, "j")], &[2]);
    native.start("n", &[&settings[..], &["group.remote.assignor=range"]].concat());
    shared(&[(&java, "j"), (&native, "n")], &[1, 1]);
    first.produce(&mut conn, 3);
    read_all(&[&java, &native], &first.values);

    // A topic that comes later, and one that the expression does not mean.
    let mut second = Topic::new(&mut conn, &format!("{prefix}-b"), 2);
    Topic::new(&mut conn, &format!("{prefix}-c"), 2);
    let owned = shared(&[(&java, "j"), (&native, "n")], &[2, 2]);
    for assigned in owned.values() {
        let numbers: BTreeSet<&str> = assigned.iter().filter_map(|name| name.rsplit('-').next()).collect();
        assert_eq!(numbers.len(), 1, "range gives the same partitions of each topic: {owned:?}");
    }
    second.produce(&mut conn, 3);
    read_all(&[&java, &native], &second.values);
}

#[test]
fn a_running_classic_group_moves_to_the_consumer_protocol_and_back() {
    let mut server = Server::start(PROPERTIES);
    let test = "a_running_classic_group_moves_to_the_consumer_protocol_and_back";
    let Some((mut java, mut native)) = both(test, &server) else { return };
    let mut conn = server.conn();
    let mut topic = Topic::new(&mut conn, "moving", 6);
    let group = fresh("group");
    let group_id = format!("group.id={group}");
    let topics = format!("topics={}", topic.name);
    let classic =
        ["group.protocol=classic", &group_id, &topics, "session.timeout.ms=6000", "heartbeat.interval.ms=500"];
    let modern = [CONSUMER, &group_id, &topics];

    // Upgrade: members of the new protocol come one by one, the old ones go.
    java.start("j-old", &classic);
    native.start("n-old", &[&classic[..], &["partition.assignment.strategy=range"]].concat());
    shared(&[(&java, "j-old"), (&native, "n-old")], &[3, 3]);
    assert_eq!(listed(&mut conn, &group).0, "classic");
    topic.produce(&mut conn, 10);
    java.start("j-new", &modern);
    shared(&[(&java, "j-old"), (&native, "n-old"), (&java, "j-new")], &[2, 2, 2]);
    let mixed = described(&mut conn, &group);
    let mut types: Vec<i8> = mixed.members.iter().map(|member| member.member_type).collect();
    types.sort_unstable();
    assert_eq!((mixed.error_code, types), (0, vec![0, 0, 1]), "two of the classic protocol");
    topic.produce(&mut conn, 10);
    read_all(&[&java, &native], &topic.values);
    if server.kill_and_restart() {
        conn = server.conn();
        find_coordinator(&mut conn, &group);
        topic.produce(&mut conn, 10);
        read_all(&[&java, &native], &topic.values);
    }
    java.close("j-old");
    native.start("n-new", &modern);
    shared(&[(&native, "n-old"), (&java, "j-new"), (&native, "n-new")], &[2, 2, 2]);
    native.close("n-old");
    shared(&[(&java, "j-new"), (&native, "n-new")], &[3, 3]);
    assert_eq!(listed(&mut conn, &group).0, "consumer");
    topic.produce(&mut conn, 10);
    read_all(&[&java, &native], &topic.values);

    // Downgrade: the group is classic again when the last member of the new protocol is gone.
    java.start("j-back", &classic);
    shared(&[(&java, "j-new"), (&native, "n-new"), (&java, "j-back")], &[2, 2, 2]);
    java.close("j-new");
    topic.produce(&mut conn, 10);
    native.close("n-new");
    shared(&[(&java, "j-back")], &[6]);
    eventually("a classic group", || {
        (listed(&mut conn, &group) == ("classic".to_owned(), "Stable".to_owned())).then_some(())
    });
    native.start("n-back", &[&classic[..], &["partition.assignment.strategy=range"]].concat());
    shared(&[(&java, "j-back"), (&native, "n-back")], &[3, 3]);
    topic.produce(&mut conn, 10);
    read_all(&[&java, &native], &topic.values);
    eventually("everything is committed", || {
        (topic.committed(&mut conn, &group) == topic.ends(&mut conn)).then_some(())
    });
}

// ---- The protocol itself, heartbeat by heartbeat ----------------------------------------------------------------------

fn joining(group: &str, member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

fn beating(
    group: &str,
    member: &str,
    member_epoch: i32,
    owned: Option<&[(Uuid, &[i32])]>,
) -> ConsumerGroupHeartbeatRequest {
    let row = |(topic_id, partitions): &(Uuid, &[i32])| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.to_vec(),
    };
    ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch,
        rebalance_timeout_ms: -1,
        topic_partitions: owned.map(|rows| rows.iter().map(row).collect()),
        ..Default::default()
    }
}

fn beat(conn: &mut Conn, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    conn.ask(request, 1)
}

/// Partitions by topic.
type Rows = Vec<(Uuid, Vec<i32>)>;

#[track_caller]
fn accepted(conn: &mut Conn, request: &ConsumerGroupHeartbeatRequest) -> (i32, Option<Rows>) {
    let reply = beat(conn, request);
    assert_eq!(reply.error_code, 0, "{reply:?}");
    let rows = |a: taccola_wire::messages::consumer_group_heartbeat_response::Assignment| {
        a.topic_partitions.into_iter().map(|t| (t.topic_id, t.partitions)).collect()
    };
    (reply.member_epoch, reply.assignment.map(rows))
}

#[track_caller]
fn refused(conn: &mut Conn, request: &ConsumerGroupHeartbeatRequest, code: ErrorCode) {
    assert_eq!(ErrorCode::from_code(beat(conn, request).error_code), code);
}

#[test]
fn trap_61_epochs_expressions_and_topics_that_come_later() {
    let mut server = Server::start(PROPERTIES);
    let mut conn = server.conn();
    let group = fresh("group");
    find_coordinator(&mut conn, &group);
    let Topic { name, id, .. } = Topic::new(&mut conn, "t61", 2);
    let (epoch, all) = accepted(&mut conn, &joining(&group, "a", &[&name]));
    assert_eq!(all, Some(vec![(id, vec![0, 1])]), "epoch 0 joins, and the first reply assigns");
    // Another member has to wait for what the first gives back.
    let (second_epoch, none) = accepted(&mut conn, &joining(&group, "b", &[&name]));
    assert_eq!((second_epoch, none), (epoch + 1, Some(Vec::new())), "UNRELEASED_PARTITIONS");
    let (same, half) = accepted(&mut conn, &beating(&group, "a", epoch, Some(&[(id, &[0, 1])])));
    let half = half.expect("it must give one back");
    assert_eq!((same, half.len()), (epoch, 1), "UNREVOKED_PARTITIONS: the old epoch until it has");
    let kept = half[0].1.clone();
    assert_eq!(accepted(&mut conn, &beating(&group, "b", second_epoch, None)).1, None);
    assert_eq!(accepted(&mut conn, &beating(&group, "a", epoch, Some(&[(id, &kept)]))).0, epoch + 1);
    let other = accepted(&mut conn, &beating(&group, "b", second_epoch, None)).1.expect("now it is free");
    assert_ne!(other[0].1, kept);

    // Epochs that are not the member's.
    refused(&mut conn, &beating(&group, "a", epoch + 7, None), ErrorCode::FencedMemberEpoch);
    refused(&mut conn, &beating(&group, "who", 1, None), ErrorCode::UnknownMemberId);
    refused(&mut conn, &beating(&group, "a", -3, None), ErrorCode::InvalidRequest);
    refused(&mut conn, &beating(&group, "a", -2, None), ErrorCode::InvalidRequest);

    // -1 leaves; who leaves is gone, and the other gets everything.
    assert_eq!(accepted(&mut conn, &beating(&group, "b", -1, None)).0, -1);
    refused(&mut conn, &beating(&group, "b", second_epoch, None), ErrorCode::UnknownMemberId);
    let (epoch, all) = accepted(&mut conn, &beating(&group, "a", epoch + 1, None));
    assert_eq!(all, Some(vec![(id, vec![0, 1])]));
    assert_eq!(accepted(&mut conn, &beating(&group, "a", -1, None)).0, -1);
    refused(&mut conn, &beating(&group, "a", epoch, None), ErrorCode::UnknownMemberId);

    // A static member: -2 keeps its place, whoever comes with its instance id gets it.
    let with_instance = |request: ConsumerGroupHeartbeatRequest| ConsumerGroupHeartbeatRequest {
        instance_id: Some("i".to_owned()),
        ..request
    };
    let (epoch, _) = accepted(&mut conn, &with_instance(joining(&group, "s1", &[&name])));
    refused(&mut conn, &with_instance(joining(&group, "s2", &[&name])), ErrorCode::UnreleasedInstanceId);
    refused(&mut conn, &with_instance(beating(&group, "s2", epoch, None)), ErrorCode::FencedInstanceId);
    assert_eq!(accepted(&mut conn, &with_instance(beating(&group, "s1", -2, None))).0, -2);
    let (same, all) = accepted(&mut conn, &with_instance(joining(&group, "s2", &[&name])));
    assert_eq!((same, all), (epoch, Some(vec![(id, vec![0, 1])])), "no rebalance");
    refused(&mut conn, &with_instance(beating(&group, "s1", epoch, None)), ErrorCode::FencedInstanceId);

    // An expression of RE2; what it does not understand is refused, topics that match later are assigned.
    let group = fresh("group");
    let prefix = fresh("later");
    find_coordinator(&mut conn, &group);
    let regex = |regex: &str| ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(regex.to_owned()),
        ..joining(&group, "r", &[])
    };
    for bad in ["(", "a(?=b)", "(a)\\1"] {
        refused(&mut conn, &regex(bad), ErrorCode::InvalidRegularExpression);
    }
    let (mut epoch, none) = accepted(&mut conn, &regex(&format!("{prefix}-.*")));
    assert_eq!(none, Some(Vec::new()));
    let later = new_topic(&mut conn, &format!("{prefix}-x"), 3, &[]);
    let found = eventually("the topic is assigned", || {
        let (now, assigned) = accepted(&mut conn, &beating(&group, "r", epoch, None));
        epoch = now;
        assigned.filter(|rows| !rows.is_empty())
    });
    assert_eq!(found, [(later, vec![0, 1, 2])]);
    if server.kill_and_restart() {
        conn = server.conn();
        find_coordinator(&mut conn, &group);
        assert_eq!(accepted(&mut conn, &beating(&group, "r", epoch, None)), (epoch, None), "nothing was forgotten");
    }
}

#[test]
fn commits_are_accepted_at_the_epoch_of_the_member_and_of_its_partitions() {
    let server = Server::start(PROPERTIES);
    let mut conn = server.conn();
    let (group, name) = (fresh("group"), fresh("commits"));
    new_topic(&mut conn, &name, 2, &[]);
    find_coordinator(&mut conn, &group);
    let (epoch, _) = accepted(&mut conn, &joining(&group, "a", &[&name]));
    let mut commit = |generation: i32, member: &str, offset: i64| {
        let request = taccola_it::group::commit_request(&group, generation, member, &name, offset);
        ErrorCode::from_code(conn.ask(&request, 9).topics[0].partitions[0].error_code)
    };
    assert_eq!(commit(epoch, "a", 1), ErrorCode::None);
    assert_eq!(commit(epoch + 1, "a", 2), ErrorCode::StaleMemberEpoch);
    assert_eq!(commit(epoch, "b", 2), ErrorCode::UnknownMemberId);
    assert_eq!(commit(-1, "", 2), ErrorCode::UnknownMemberId, "only an empty group takes offsets of nobody");
    assert_eq!(commit(epoch - 1, "a", 2), ErrorCode::StaleMemberEpoch, "older than the partition's assignment");
    // A client that knows nothing of member epochs in its errors.
    let request = taccola_it::group::commit_request(&group, epoch + 1, "a", &name, 2);
    let old = conn.ask(&request, 8).topics[0].partitions[0].error_code;
    assert_eq!(ErrorCode::from_code(old), ErrorCode::UnsupportedVersion);
    assert_eq!(committed(&mut conn, &group, &name, 1), [1]);

    let fetch = |member: Option<&str>, member_epoch: i32| {
        let topic = OffsetFetchRequestTopics { name: name.clone(), partition_indexes: vec![0], ..Default::default() };
        let group = OffsetFetchRequestGroup {
            group_id: group.clone(),
            member_id: member.map(str::to_owned),
            member_epoch,
            topics: Some(vec![topic]),
        };
        OffsetFetchRequest { groups: vec![group], ..Default::default() }
    };
    for (member, member_epoch, code) in [
        (Some("a"), epoch, ErrorCode::None),
        (None, -1, ErrorCode::None),
        (Some("a"), epoch + 1, ErrorCode::StaleMemberEpoch),
        (Some("b"), epoch, ErrorCode::UnknownMemberId),
    ] {
        let reply = conn.ask(&fetch(member, member_epoch), 9);
        assert_eq!(ErrorCode::from_code(reply.groups[0].error_code), code, "{member:?} {member_epoch}");
    }
}
