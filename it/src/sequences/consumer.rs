//! Members of the consumer protocol (KIP-848): two dynamic ones and two that claim the same instance, in each of two groups.

use std::time::Duration;

use taccola_base::Uuid;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use taccola_wire::messages::consumer_group_heartbeat_response::Assignment;
use taccola_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};

use super::data::{self, Committer};
use super::world::{MEMBERS, World, about, below, pick, version};
use crate::ledger::Rng;

pub struct Group {
    pub id: String,
    members: Vec<Member>,
}

#[derive(Clone)]
struct Member {
    id: String,
    instance: Option<String>,
    epoch: i32,
    /// What it was told to have.
    assigned: Vec<(Uuid, Vec<i32>)>,
}

impl Group {
    pub fn new(id: String) -> Self {
        let member = |n: usize| Member {
            id: MEMBERS[n].to_owned(),
            instance: (n > 1).then(|| "i0".to_owned()),
            epoch: 0,
            assigned: Vec::new(),
        };
        Self { id, members: (0..4).map(member).collect() }
    }
}

pub fn step(world: &mut World, rng: &mut Rng) {
    let (group, member) = (below(rng, 2), below(rng, 4));
    match rng.below(16) {
        0..11 => heartbeat(world, rng, group, member),
        11..13 => {
            let Member { id, epoch, instance, .. } = world.consumers[group].members[member].clone();
            let group_id = id_of(world, rng, group);
            data::commit(world, rng, &Committer { group_id, member_id: id, epoch, instance });
        }
        14 if rng.one_in(2) => expression(world, rng),
        13 => {
            let Member { id, epoch, .. } = world.consumers[group].members[member].clone();
            let group_id = id_of(world, rng, group);
            data::offsets(world, rng, &Committer { group_id, member_id: id, epoch, instance: None });
        }
        _ => describe(world, rng, group),
    }
}

fn id_of(world: &World, rng: &mut Rng, group: usize) -> String {
    if rng.one_in(15) { world.any_group(rng) } else { world.consumers[group].id.clone() }
}

/// What a member subscribes to.
fn subscribe(world: &World, rng: &mut Rng, request: &mut ConsumerGroupHeartbeatRequest, version: i16) {
    let names: Vec<String> = (0..=below(rng, 2)).map(|_| world.some_topic(rng).name).collect();
    match (rng.below(8), version) {
        (0, _) => request.subscribed_topic_names = Some(Vec::new()),
        (1, 1) => request.subscribed_topic_regex = Some(pick(rng, &["", "(", "a(?=b)"]).to_owned()),
        _ => request.subscribed_topic_names = Some(names),
    }
}

/// A group whose one member subscribes by an expression. Kafka looks for the topics afterwards, and for ten seconds not again:
/// what the member has in the end is compared, and not in how many heartbeats it came there.
fn expression(world: &mut World, rng: &mut Rng) {
    let prefix = world.prefix.clone();
    let expressions = [
        format!("{prefix}-t.*"),
        format!("{prefix}-t[01]"),
        format!("{prefix}-t[^3]|none"),
        format!("(?i){prefix}-T2"),
        format!("^{prefix}-t1$"),
        format!("{prefix}-t"),
        format!(".*{prefix}-t\\d"),
        format!("{prefix}-(?P<kind>t)(0|3)"),
        format!("\\Q{prefix}-t0\\E"),
        format!("{prefix}-t[[:digit:]]{{1,2}}"),
    ];
    let group_id = format!("{prefix}-rx{}", world.expressions);
    world.expressions += 1;
    let mut request = ConsumerGroupHeartbeatRequest {
        group_id,
        member_id: MEMBERS[0].to_owned(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_regex: Some(pick(rng, &expressions)),
        subscribed_topic_names: rng.one_in(3).then(|| vec![world.some_topic(rng).name]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    let both = request.subscribed_topic_names.is_some();
    let reply = world.ask(&request, 1, |reply| {
        reply.error_message = None;
        (reply.member_epoch, reply.assignment) = (0, None);
    });
    let Some(mut reply) = reply.filter(|reply| reply.error_code == 0) else { return };
    world.pause(Duration::from_millis(200));
    let mut assigned = Vec::new();
    for _ in 0..3 {
        if let Some(assignment) = reply.assignment.take() {
            assigned = in_order(world, assignment);
        }
        request.member_epoch = reply.member_epoch;
        let rows = assigned.iter();
        let rows =
            rows.map(|(topic_id, partitions)| TopicPartitions { topic_id: *topic_id, partitions: partitions.clone() });
        request.topic_partitions = Some(rows.collect());
        (request.subscribed_topic_regex, request.subscribed_topic_names) = (None, None);
        let Ok(next) = world.conn.call(&request, 1) else { return };
        reply = next;
    }
    world.note(format!("names, too: {both}; then: error {} {assigned:?}", reply.error_code));
}

fn heartbeat(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let Member { id, instance, epoch, assigned } = world.consumers[group].members[member].clone();
    let version = if rng.one_in(8) { 0 } else { 1 };
    let mut request = ConsumerGroupHeartbeatRequest {
        group_id: id_of(world, rng, group),
        member_id: if rng.one_in(25) { pick(rng, &["x", ""]).to_owned() } else { id.clone() },
        instance_id: instance.clone(),
        rebalance_timeout_ms: -1,
        ..Default::default()
    };
    let owned: Vec<_> = assigned
        .iter()
        .map(|(topic_id, partitions)| TopicPartitions { topic_id: *topic_id, partitions: partitions.clone() })
        .collect();
    // Who is not in the group mostly joins, who is mostly stays.
    let kind = if epoch <= 0 && rng.below(4) > 0 { 0 } else { rng.below(12) };
    match kind {
        0 => {
            request.rebalance_timeout_ms = pick(rng, &[60_000, 60_000, 60_000, 60_000, 60_000, 0, -1]);
            request.topic_partitions = Some(if rng.one_in(10) { owned } else { Vec::new() });
            subscribe(world, rng, &mut request, version);
            request.server_assignor =
                pick(rng, &[None, None, None, Some("uniform"), Some("range"), Some("none")]).map(str::to_owned);
            if rng.one_in(4) {
                request.rack_id = Some("r".to_owned());
            }
        }
        1 => request.member_epoch = if instance.is_some() && rng.one_in(2) { -2 } else { -1 },
        2..6 => {
            request.member_epoch = about(rng, epoch);
            request.topic_partitions = Some(owned);
        }
        6 => {
            request.member_epoch = epoch;
            request.topic_partitions = Some(owned.into_iter().take(1).collect());
        }
        7 => {
            request.member_epoch = epoch;
            request.topic_partitions =
                Some(vec![TopicPartitions { topic_id: world.some_topic(rng).id, partitions: vec![0, 1] }]);
        }
        8 => {
            request.member_epoch = epoch;
            request.topic_partitions = Some(owned);
            subscribe(world, rng, &mut request, version);
        }
        9 => {
            request.member_epoch = epoch;
            request.server_assignor = Some(pick(rng, &["range", "uniform", "none", ""]).to_owned());
        }
        10 => {
            request.member_epoch = epoch;
            request.instance_id = pick(rng, &[None, Some("i0"), Some("i1"), Some("")]).map(str::to_owned);
            request.rebalance_timeout_ms = 40_000;
        }
        _ => request.member_epoch = about(rng, epoch),
    }
    let asked = request.member_epoch;
    let topics = world.topics.clone();
    let learned = request.member_id.is_empty();
    let reply = world.ask_learning(
        &request,
        version,
        |world, reply| {
            if let (true, Some(id)) = (learned, &reply.member_id) {
                world.call(id, format!("<c{group} m{member}>"));
            }
        },
        |reply| {
            equal(reply, |id| topics.iter().find(|topic| topic.id == id).map(|topic| topic.name.clone()));
        },
    );
    let Some(reply) = reply else { return };
    if request.group_id != world.consumers[group].id || request.member_id != world.consumers[group].members[member].id {
        return;
    }
    let assigned = reply.assignment.map(|assignment| in_order(world, assignment));
    let member = &mut world.consumers[group].members[member];
    if reply.error_code == 0 {
        member.epoch = reply.member_epoch.max(0);
        if let Some(assigned) = assigned {
            member.assigned = assigned;
        }
        if asked < 0 {
            member.assigned.clear();
        }
    } else if [25, 110].contains(&reply.error_code) {
        member.epoch = 0;
        member.assigned.clear();
    }
}

/// By the names of the topics, which are the same on both sides.
fn in_order(world: &World, assignment: Assignment) -> Vec<(Uuid, Vec<i32>)> {
    let mut rows: Vec<_> = assignment.topic_partitions.into_iter().map(|row| (row.topic_id, row.partitions)).collect();
    rows.sort_by_key(|(id, _)| world.topic_name(*id));
    rows.iter_mut().for_each(|(_, partitions)| partitions.sort_unstable());
    rows
}

fn equal(reply: &mut ConsumerGroupHeartbeatResponse, name: impl Fn(Uuid) -> Option<String>) {
    reply.error_message = None;
    if let Some(assignment) = &mut reply.assignment {
        assignment.topic_partitions.sort_by_key(|row| name(row.topic_id));
        assignment.topic_partitions.iter_mut().for_each(|row| row.partitions.sort_unstable());
    }
}

fn describe(world: &mut World, rng: &mut Rng, group: usize) {
    let mut group_ids = vec![world.consumers[group].id.clone()];
    if rng.one_in(3) {
        group_ids.push(world.any_group(rng));
    }
    let request = ConsumerGroupDescribeRequest { group_ids, include_authorized_operations: false };
    let names = world.all_names();
    world.read(&request, version(rng, 0..=1), |reply: &mut ConsumerGroupDescribeResponse| {
        reply.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        for group in &mut reply.groups {
            group.error_message = None;
            group
                .members
                .sort_by_key(|member| names.get(&member.member_id).cloned().unwrap_or(member.member_id.clone()));
            for member in &mut group.members {
                member.client_host.clear();
                member.subscribed_topic_names.sort();
                for assignment in [&mut member.assignment, &mut member.target_assignment] {
                    assignment.topic_partitions.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
                    assignment.topic_partitions.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
                }
            }
        }
    });
}
