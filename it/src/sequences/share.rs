//! Members of share groups, and what administrators do with their offsets. After each change the share-partitions' state is
//! waited for, because brokers set it up in the background.

use taccola_base::Uuid;
use taccola_wire::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use taccola_wire::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::read_share_group_state_summary_request::{PartitionData, ReadStateSummaryData};
use taccola_wire::messages::share_group_describe_response::TopicPartitions as Described;
use taccola_wire::messages::share_group_heartbeat_response::TopicPartitions;
use taccola_wire::messages::{
    AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest,
    ReadShareGroupStateSummaryRequest, ShareGroupDescribeRequest, ShareGroupHeartbeatRequest,
};

use super::data;
use super::topics::{self, Topic};
use super::world::{MEMBERS, World, about, below, pick, version};
use crate::ledger::Rng;
use std::time::{Duration, Instant};

pub struct Group {
    pub id: String,
    pub members: Vec<Member>,
}

#[derive(Clone)]
pub struct Member {
    pub id: String,
    pub epoch: i32,
    /// What it last subscribed to.
    pub topics: Vec<String>,
    pub session: i32,
    /// Topic, partition, first and last offset (inclusive) of what it was given.
    pub given: Vec<(String, i32, i64, i64)>,
}

impl Group {
    pub fn new(id: String) -> Self {
        let member =
            |id: &&str| Member { id: (*id).to_owned(), epoch: 0, topics: Vec::new(), session: 0, given: Vec::new() };
        Self { id, members: MEMBERS.iter().take(3).map(member).collect() }
    }
}

/// The first group reads from the beginning.
pub fn prepare(world: &mut World, rng: &mut Rng) {
    let id = world.shares[0].id.clone();
    topics::set(world, 32, &id, "share.auto.offset.reset", "earliest", false);
    if rng.one_in(3) {
        topics::set(world, 32, &id, "share.isolation.level", "read_committed", false);
    }
}

pub fn step(world: &mut World, rng: &mut Rng) {
    let (group, member) = (below(rng, 2), below(rng, 3));
    match rng.below(16) {
        0..8 => heartbeat(world, rng, group, member),
        8..10 => describe(world, rng, group),
        10..12 => offsets(world, rng, group),
        12 => alter(world, rng, group),
        13 => delete(world, rng, group),
        14 => {
            let Member { id, epoch, .. } = world.shares[group].members[member].clone();
            let committer =
                data::Committer { group_id: world.shares[group].id.clone(), member_id: id, epoch, instance: None };
            if rng.one_in(2) { data::commit(world, rng, &committer) } else { data::offsets(world, rng, &committer) }
        }
        _ => data::produce(world, rng),
    }
}

fn id_of(world: &World, rng: &mut Rng, group: usize) -> String {
    if rng.one_in(15) { world.any_group(rng) } else { world.shares[group].id.clone() }
}

pub fn heartbeat(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let Member { id, epoch, .. } = world.shares[group].members[member].clone();
    let mut request = ShareGroupHeartbeatRequest {
        group_id: id_of(world, rng, group),
        member_id: if rng.one_in(25) { pick(rng, &["x", ""]).to_owned() } else { id },
        ..Default::default()
    };
    let topics: Vec<String> = (0..=below(rng, 2)).map(|_| world.some_topic(rng).name).collect();
    let kind = if epoch <= 0 && rng.below(4) > 0 { 0 } else { rng.below(8) };
    match kind {
        0 => request.subscribed_topic_names = (!rng.one_in(8)).then_some(topics),
        1 => request.member_epoch = -1,
        2 => {
            request.member_epoch = epoch;
            request.subscribed_topic_names = Some(topics);
        }
        _ => request.member_epoch = about(rng, epoch),
    }
    let reply = world.ask(&request, 1, |reply| {
        reply.error_message = None;
        if let Some(assignment) = &mut reply.assignment {
            // Which of them a member gets depends on hashes in Kafka: only whether and how many is compared.
            let count = assignment.topic_partitions.iter().map(|row| row.partitions.len()).sum::<usize>();
            let count = i32::try_from(count).expect("few");
            assignment.topic_partitions = vec![TopicPartitions { topic_id: Uuid::ZERO, partitions: vec![count] }];
        }
    });
    let Some(reply) = reply else { return };
    let own = world.shares[group].id.clone();
    let member = &mut world.shares[group].members[member];
    if request.group_id != own || request.member_id != member.id {
        return;
    }
    if reply.error_code == 0 {
        member.epoch = reply.member_epoch.max(0);
        if let Some(topics) = request.subscribed_topic_names {
            member.topics = topics;
        }
        if member.epoch == 0 {
            member.topics.clear();
        }
        settle(world, group);
    } else if [25, 110].contains(&reply.error_code) {
        member.epoch = 0;
    }
}

/// Waits until the group's topics have state.
fn settle(world: &mut World, group: usize) {
    let group = &world.shares[group];
    let wanted =
        |topic: &&Topic| topic.exists && group.members.iter().any(|member| member.topics.contains(&topic.name));
    let topics: Vec<ReadStateSummaryData> = world
        .topics
        .iter()
        .filter(wanted)
        .map(|topic| ReadStateSummaryData {
            topic_id: topic.id,
            partitions: (0..topic.partitions).map(|partition| PartitionData { partition, leader_epoch: 0 }).collect(),
        })
        .collect();
    if topics.is_empty() {
        return;
    }
    let request = ReadShareGroupStateSummaryRequest { group_id: group.id.clone(), topics };
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let reply = world.conn.ask(&request, 1);
        if reply
            .results
            .iter()
            .flat_map(|topic| &topic.partitions)
            .all(|row| row.error_code == 0 && row.state_epoch > 0)
        {
            break;
        }
        world.pause(Duration::from_millis(10));
    }
    // The group coordinator hears of it a moment later.
    world.pause(Duration::from_millis(40));
}

fn describe(world: &mut World, rng: &mut Rng, group: usize) {
    let group_ids = vec![id_of(world, rng, group)];
    world.read(&ShareGroupDescribeRequest { group_ids, include_authorized_operations: false }, 1, |reply| {
        for group in &mut reply.groups {
            group.error_message = None;
            group.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
            for member in &mut group.members {
                member.client_host.clear();
                member.subscribed_topic_names.sort();
                let rows = &mut member.assignment.topic_partitions;
                let count = i32::try_from(rows.iter().map(|row| row.partitions.len()).sum::<usize>()).expect("few");
                *rows = vec![Described { partitions: vec![count], ..Default::default() }];
            }
        }
    });
}

pub fn offsets(world: &mut World, rng: &mut Rng, group: usize) {
    let topics = (!rng.one_in(3)).then(|| {
        let topic = world.some_topic(rng);
        let partitions = (0..topic.partitions).collect();
        vec![DescribeShareGroupOffsetsRequestTopic { topic_name: topic.name, partitions }]
    });
    // Kafka fails as a whole when some of what is named is not there.
    if topics.iter().flatten().any(|topic| world.topic_id(&topic.topic_name).is_zero()) {
        return;
    }
    let groups = vec![DescribeShareGroupOffsetsRequestGroup { group_id: id_of(world, rng, group), topics }];
    world.read(&DescribeShareGroupOffsetsRequest { groups }, version(rng, 0..=1), |reply| {
        for group in &mut reply.groups {
            group.error_message = None;
            group.topics.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
            for topic in &mut group.topics {
                topic.partitions.sort_by_key(|row| row.partition_index);
                topic.partitions.iter_mut().for_each(|row| row.error_message = None);
            }
        }
    });
}

fn alter(world: &mut World, rng: &mut Rng, group: usize) {
    let topic = world.some_topic(rng);
    let partitions = (0..=below(rng, 2)).map(|_| AlterShareGroupOffsetsRequestPartition {
        // Kafka fails at a negative one.
        partition_index: data::partition(rng, topic.partitions).max(0),
        start_offset: pick(rng, &[0, 1, 3, 100]),
    });
    let partitions: Vec<_> = partitions.collect();
    let topics = vec![AlterShareGroupOffsetsRequestTopic { topic_name: topic.name, partitions }];
    let request = AlterShareGroupOffsetsRequest { group_id: id_of(world, rng, group), topics };
    world.ask(&request, 0, |reply| {
        reply.error_message = None;
        for topic in &mut reply.responses {
            topic.partitions.sort_by_key(|row| row.partition_index);
            topic.partitions.iter_mut().for_each(|row| row.error_message = None);
            // Kafka has a row for each mention.
            topic.partitions.dedup();
        }
    });
}

fn delete(world: &mut World, rng: &mut Rng, group: usize) {
    let topics = vec![DeleteShareGroupOffsetsRequestTopic { topic_name: world.some_topic(rng).name }];
    let request = DeleteShareGroupOffsetsRequest { group_id: id_of(world, rng, group), topics };
    world.ask(&request, 0, |reply| {
        reply.error_message = None;
        reply.responses.iter_mut().for_each(|topic| topic.error_message = None);
    });
}
