//! Members of the classic protocol: two dynamic ones and two that claim the same instance, in each of two groups.

use bytes::{BufMut, Bytes, BytesMut};
use taccola_wire::codec::Message;
use taccola_wire::messages::consumer_protocol_subscription::TopicPartition;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{
    ConsumerProtocolSubscription, DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, SyncGroupRequest, SyncGroupResponse,
};

use super::data::{self, Committer};
use super::world::{World, about, below, pick, version};
use crate::differential::compact;
use crate::ledger::Rng;

pub struct Group {
    pub id: String,
    pub members: Vec<Member>,
}

#[derive(Clone, Default)]
pub struct Member {
    pub id: String,
    instance: Option<String>,
    generation: i32,
    protocol: Option<String>,
    /// What a leader was told of the others.
    others: Vec<String>,
    /// Ids it has had.
    ids: usize,
}

impl Group {
    pub fn new(id: String) -> Self {
        let dynamic = Member { generation: -1, ..Default::default() };
        let fixed = Member { instance: Some("i0".to_owned()), ..dynamic.clone() };
        Self { id, members: vec![dynamic.clone(), dynamic, fixed.clone(), fixed] }
    }
}

pub fn step(world: &mut World, rng: &mut Rng) {
    let (group, member) = (below(rng, 2), below(rng, 4));
    match rng.below(20) {
        0..6 => join(world, rng, group, member),
        6..11 => sync(world, rng, group, member),
        11..13 => heartbeat(world, rng, group, member),
        13 => leave(world, rng, group),
        14..16 => {
            let Member { id, instance, generation, .. } = world.classic[group].members[member].clone();
            let group_id = id_of(world, rng, group);
            data::commit(world, rng, &Committer { group_id, member_id: id, epoch: generation, instance });
        }
        16 => {
            let Member { id, generation, .. } = world.classic[group].members[member].clone();
            let group_id = id_of(world, rng, group);
            data::offsets(world, rng, &Committer { group_id, member_id: id, epoch: generation, instance: None });
        }
        17 => describe(world, rng, group),
        18 if rng.one_in(4) => silence(world, rng),
        18 => list(world, rng),
        _ => delete(world, rng, group),
    }
}

fn id_of(world: &World, rng: &mut Rng, group: usize) -> String {
    if rng.one_in(12) { world.any_group(rng) } else { world.classic[group].id.clone() }
}

fn member_id(world: &World, rng: &mut Rng, group: usize, member: usize) -> String {
    match rng.below(16) {
        0 => String::new(),
        1 => "nobody".to_owned(),
        2 => pick(rng, &world.classic[group].members).id,
        _ => world.classic[group].members[member].id.clone(),
    }
}

fn subscription(topics: &[String], generation: i32, version: i16) -> Bytes {
    let owned = topics.iter().take(1).map(|topic| TopicPartition { topic: topic.clone(), partitions: vec![0] });
    let subscription = ConsumerProtocolSubscription {
        topics: topics.to_vec(),
        owned_partitions: if version > 0 { owned.collect() } else { Vec::new() },
        generation_id: if version > 1 { generation } else { -1 },
        ..Default::default()
    };
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    bytes.put(subscription.to_bytes(version).expect("a subscription"));
    bytes.freeze()
}

fn join(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let group_id = id_of(world, rng, group);
    if world.is_parked(group, member) {
        return;
    }
    let id = member_id(world, rng, group, member);
    let Member { instance, generation, .. } = world.classic[group].members[member].clone();
    let topics: Vec<String> = (0..=below(rng, 2)).map(|n| world.topics[n].name.clone()).collect();
    let metadata = subscription(&topics, generation, version(rng, 0..=3));
    let names: &[&str] = pick(
        rng,
        &[&["range"][..], &["range"], &["range", "roundrobin"], &["range", "roundrobin"], &["roundrobin"], &["x"]],
    );
    let protocols =
        names.iter().map(|name| JoinGroupRequestProtocol { name: (*name).to_owned(), metadata: metadata.clone() });
    let request = JoinGroupRequest {
        group_id,
        session_timeout_ms: pick(rng, &[30_000, 30_000, 30_000, 30_000, 30_000, 100, 10_000_000]),
        rebalance_timeout_ms: 60_000,
        member_id: id,
        group_instance_id: instance.clone(),
        protocol_type: if rng.one_in(8) { "connect" } else { "consumer" }.to_owned(),
        protocols: protocols.collect(),
        reason: None,
    };
    // Who is only given an id holds a group here, and not in Kafka.
    let last = if request.group_id == world.classic[group].id { 9 } else { 3 };
    let version = if instance.is_some() { version(rng, 5..=9) } else { version(rng, 0..=last) };
    world.park(&request, version, group, member);
}

pub fn joined(world: &mut World, group: usize, member: usize, at: &str, mut reply: JoinGroupResponse) {
    let slot = &mut world.classic[group].members[member];
    if !reply.member_id.is_empty() && [0, 79].contains(&reply.error_code) && slot.id != reply.member_id {
        slot.ids += 1;
        let name = format!("<g{group} m{member} id {}>", slot.ids);
        slot.id.clone_from(&reply.member_id);
        world.call(&reply.member_id, name);
    }
    let slot = &mut world.classic[group].members[member];
    if reply.error_code == 0 {
        slot.generation = reply.generation_id;
        slot.protocol.clone_from(&reply.protocol_name);
        slot.others = reply.members.iter().map(|row| row.member_id.clone()).collect();
    }
    reply.members.sort_by_key(|row| world.name_of(&row.member_id));
    let text = compact(&format!("{reply:?}"));
    world.note(format!("<< {at} {text}"));
}

/// A member that is not heard of, and a group without members afterwards.
fn silence(world: &mut World, rng: &mut Rng) {
    let group_id = format!("{}-silent", world.prefix);
    let instance = rng.one_in(2).then(|| "i".to_owned());
    let metadata = subscription(&[world.topics[0].name.clone()], -1, 0);
    let request = JoinGroupRequest {
        group_id: group_id.clone(),
        session_timeout_ms: 300,
        rebalance_timeout_ms: 300,
        group_instance_id: instance.clone(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata }],
        ..Default::default()
    };
    let name = format!("<silent {}>", world.all_names().len());
    let version = if instance.is_some() { version(rng, 5..=9) } else { version(rng, 0..=3) };
    let joined = world.ask_learning(&request, version, |world, reply| world.call(&reply.member_id, name), |_| ());
    let Some(joined) = joined else { return };
    world.pause(std::time::Duration::from_millis(1_500));
    let member_id = joined.member_id;
    let beat =
        HeartbeatRequest { group_id: group_id.clone(), generation_id: 1, member_id, group_instance_id: instance };
    world.ask(&beat, 4, |_| ());
    let request = DescribeGroupsRequest { groups: vec![group_id], include_authorized_operations: false };
    world.ask(&request, 5, |reply| reply.groups.iter_mut().for_each(|group| group.error_message = None));
}

fn sync(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let group_id = id_of(world, rng, group);
    if world.is_parked(group, member) {
        return;
    }
    let member_id = member_id(world, rng, group, member);
    let Member { instance, generation, protocol, mut others, .. } = world.classic[group].members[member].clone();
    others.sort_by_key(|id| world.name_of(id));
    let assignments = others.into_iter().enumerate().map(|(n, member_id)| SyncGroupRequestAssignment {
        member_id,
        assignment: Bytes::from(vec![u8::try_from(n).expect("few"); 5]),
    });
    let request = SyncGroupRequest {
        group_id,
        generation_id: about(rng, generation),
        member_id,
        group_instance_id: instance.clone(),
        protocol_type: pick(rng, &[None, Some("consumer"), Some("consumer"), Some("consumer"), Some("connect")])
            .map(str::to_owned),
        protocol_name: if rng.one_in(8) { Some("other".to_owned()) } else { protocol },
        assignments: assignments.collect(),
    };
    let version = if instance.is_some() { version(rng, 3..=5) } else { version(rng, 0..=5) };
    world.park(&request, version, group, member);
}

pub fn synced(world: &mut World, _: usize, _: usize, at: &str, reply: &SyncGroupResponse) {
    let text = compact(&format!("{reply:?}"));
    world.note(format!("<< {at} {text}"));
}

fn heartbeat(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let Member { instance, generation, .. } = world.classic[group].members[member].clone();
    let request = HeartbeatRequest {
        group_id: id_of(world, rng, group),
        generation_id: about(rng, generation),
        member_id: member_id(world, rng, group, member),
        group_instance_id: instance.clone(),
    };
    let version = if instance.is_some() { version(rng, 3..=4) } else { version(rng, 0..=4) };
    world.ask(&request, version, |_| ());
}

fn leave(world: &mut World, rng: &mut Rng, group: usize) {
    let group_id = id_of(world, rng, group);
    let version = version(rng, 0..=5);
    let member = below(rng, 4);
    let request = if version < 3 {
        LeaveGroupRequest { group_id, member_id: member_id(world, rng, group, member), ..Default::default() }
    } else {
        let members = (0..=below(rng, 3)).map(|_| {
            let member = below(rng, 4);
            let group_instance_id = world.classic[group].members[member].instance.clone();
            let member_id = if group_instance_id.is_some() && rng.one_in(2) {
                String::new()
            } else {
                member_id(world, rng, group, member)
            };
            MemberIdentity { member_id, group_instance_id, reason: Some("on purpose".to_owned()) }
        });
        LeaveGroupRequest { group_id, members: members.collect(), ..Default::default() }
    };
    world.ask(&request, version, |_| ());
}

fn describe(world: &mut World, rng: &mut Rng, group: usize) {
    let request = DescribeGroupsRequest {
        groups: vec![world.classic[group].id.clone(), world.any_group(rng)],
        include_authorized_operations: false,
    };
    let version = version(rng, 0..=6);
    let names = world.all_names();
    world.read(&request, version, |reply| {
        for group in &mut reply.groups {
            group.error_message = None;
            group.members.sort_by_key(|member| names.get(&member.member_id).cloned());
            group.members.iter_mut().for_each(|member| member.client_host.clear());
        }
    });
}

fn list(world: &mut World, rng: &mut Rng) {
    let states = pick(rng, &[&[][..], &["Stable"], &["Empty", "stable"], &["PreparingRebalance", "Assigning"], &["X"]]);
    let types = pick(rng, &[&[][..], &["classic"], &["Consumer", "share"], &["streams"], &["x"]]);
    let strings = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect();
    let request = ListGroupsRequest { states_filter: strings(states), types_filter: strings(types) };
    let prefix = format!("{}-", world.prefix);
    world.read(&request, 5, |reply| {
        reply.groups.retain(|group| group.group_id.starts_with(&prefix));
        reply.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    });
}

fn delete(world: &mut World, rng: &mut Rng, group: usize) {
    if rng.one_in(2) {
        return data::delete_offsets(world, rng, group);
    }
    let groups_names = vec![id_of(world, rng, group), world.any_group(rng)];
    world.ask(&DeleteGroupsRequest { groups_names }, 2, |reply| {
        reply.results.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    });
}
