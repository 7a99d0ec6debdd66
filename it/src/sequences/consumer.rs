//! Members of the consumer protocol (KIP-848): two dynamic ones and two that claim the same instance, in each of two groups.

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
    /// Somebody has subscribed by an expression: Kafka looks for its topics ten seconds later when that was so before.
    expressed: bool,
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
        Self { id, members: (0..4).map(member).collect(), expressed: false }
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
fn subscribe(world: &World, rng: &mut Rng, request: &mut ConsumerGroupHeartbeatRequest, version: i16, expressed: bool) {
    let names: Vec<String> = (0..=below(rng, 2)).map(|_| world.some_topic(rng).name).collect();
    let regex = match rng.below(7) {
        0 => format!("{}-t.*", world.prefix),
        1 => format!("{}-t[01]", world.prefix),
        2 => format!("{}-t[^3]|none", world.prefix),
        3 => String::new(),
        4 => "(".to_owned(),
        5 => format!("(?i){}-T2", world.prefix),
        _ => format!("^{}-t1$", world.prefix),
    };
    let version = if expressed { 0 } else { version };
    match (rng.below(6), version) {
        (0 | 1, 1) => request.subscribed_topic_regex = Some(regex),
        (3, _) => request.subscribed_topic_names = Some(Vec::new()),
        _ => request.subscribed_topic_names = Some(names),
    }
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
    let own = request.group_id == world.consumers[group].id && request.member_id == id;
    let expressed = world.consumers[group].expressed || !own;
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
            subscribe(world, rng, &mut request, version, expressed);
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
            subscribe(world, rng, &mut request, version, expressed);
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
    let expresses = request.subscribed_topic_regex.as_deref().is_some_and(|regex| !regex.is_empty());
    let reply = world.ask_learning(
        &request,
        version,
        |world, reply| {
            if let (true, Some(id)) = (learned, &reply.member_id) {
                world.call(id, format!("<c{group} m{member}>"));
            }
        },
        |reply| {
            // Kafka looks for the topics of an expression afterwards.
            if expresses && reply.error_code == 0 {
                (reply.member_epoch, reply.assignment) = (0, None);
            }
            equal(reply, |id| topics.iter().find(|topic| topic.id == id).map(|topic| topic.name.clone()));
        },
    );
    let Some(reply) = reply else { return };
    if expresses && reply.error_code == 0 {
        world.pause(std::time::Duration::from_millis(150));
    }
    if request.group_id != world.consumers[group].id || request.member_id != world.consumers[group].members[member].id {
        return;
    }
    let at = member;
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
    if expresses && reply.error_code == 0 {
        world.consumers[group].expressed = true;
        express(world, group, at);
    }
}

/// By the names of the topics, which are the same on both sides.
fn in_order(world: &World, assignment: Assignment) -> Vec<(Uuid, Vec<i32>)> {
    let mut rows: Vec<_> = assignment.topic_partitions.into_iter().map(|row| (row.topic_id, row.partitions)).collect();
    rows.sort_by_key(|(id, _)| world.topic_name(*id));
    rows.iter_mut().for_each(|(_, partitions)| partitions.sort_unstable());
    rows
}

/// Takes what an expression gives: how many steps that needs is not compared.
fn express(world: &mut World, group: usize, at: usize) {
    for _ in 0..2 {
        let Group { id, members, .. } = &world.consumers[group];
        let rows = members[at]
            .assigned
            .iter()
            .map(|(id, partitions)| TopicPartitions { topic_id: *id, partitions: partitions.clone() });
        let request = ConsumerGroupHeartbeatRequest {
            group_id: id.clone(),
            member_id: members[at].id.clone(),
            instance_id: members[at].instance.clone(),
            member_epoch: members[at].epoch,
            rebalance_timeout_ms: -1,
            topic_partitions: Some(rows.collect()),
            ..Default::default()
        };
        let Ok(reply) = world.conn.call(&request, 1) else { return };
        if reply.error_code == 0 {
            let assigned = reply.assignment.map(|assignment| in_order(world, assignment));
            let member = &mut world.consumers[group].members[at];
            member.epoch = reply.member_epoch;
            if let Some(assigned) = assigned {
                member.assigned = assigned;
            }
        }
    }
    let member = &world.consumers[group].members[at];
    let text = format!("then: epoch {} {:?}", member.epoch, member.assigned);
    world.note(text);
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
