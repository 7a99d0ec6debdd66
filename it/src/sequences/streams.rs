//! Members of a Streams group (KIP-1071), with topologies that fit and such that do not.

use taccola_wire::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Endpoint, KeyValue, Subtopology, TaskIds, TopicInfo, Topology,
};
use taccola_wire::messages::{
    StreamsGroupDescribeRequest, StreamsGroupDescribeResponse, StreamsGroupHeartbeatRequest,
    StreamsGroupHeartbeatResponse,
};

use super::data::{self, Committer};
use super::world::{MEMBERS, World, about, below, pick};
use crate::ledger::Rng;

/// `StreamsGroupHeartbeatResponse.Status`.
const MISSING_INTERNAL_TOPICS: i8 = 3;

type Tasks = Vec<(String, Vec<i32>)>;

pub struct Group {
    pub id: String,
    members: Vec<Member>,
}

#[derive(Clone)]
struct Member {
    id: String,
    epoch: i32,
    active: Tasks,
    standby: Tasks,
}

impl Group {
    pub fn new(id: String) -> Self {
        let member = |id: &&str| Member { id: (*id).to_owned(), epoch: 0, active: Vec::new(), standby: Vec::new() };
        Self { id, members: MEMBERS.iter().take(3).map(member).collect() }
    }
}

pub fn step(world: &mut World, rng: &mut Rng) {
    let member = below(rng, 3);
    match rng.below(12) {
        0..9 => heartbeat(world, rng, member),
        9 => {
            let Member { id, epoch, .. } = world.streams[0].members[member].clone();
            let committer = Committer { group_id: world.streams[0].id.clone(), member_id: id, epoch, instance: None };
            if rng.one_in(2) { data::commit(world, rng, &committer) } else { data::offsets(world, rng, &committer) }
        }
        _ => describe(world, rng),
    }
}

/// Of which there are some that fit one another, and some that fit nothing.
fn topology(world: &World, rng: &mut Rng) -> Topology {
    let name = |n: usize| world.topics[n].name.clone();
    let internal = |suffix: &str, partitions| TopicInfo {
        name: format!("{}-{suffix}", world.prefix),
        partitions,
        topic_configs: vec![KeyValue { key: "cleanup.policy".to_owned(), value: "compact".to_owned() }],
        ..Default::default()
    };
    let part = |id: &str, sources: Vec<String>| Subtopology {
        subtopology_id: id.to_owned(),
        source_topics: sources,
        ..Default::default()
    };
    let subtopologies = match rng.below(8) {
        0..3 => vec![part("0", vec![name(0)])],
        3 => vec![Subtopology {
            state_changelog_topics: vec![internal("store-changelog", 0)],
            ..part("0", vec![name(0)])
        }],
        4 => vec![
            Subtopology {
                repartition_sink_topics: vec![format!("{}-by-repartition", world.prefix)],
                ..part("0", vec![name(0)])
            },
            Subtopology {
                repartition_source_topics: vec![internal("by-repartition", pick(rng, &[0, 3]))],
                ..part("1", Vec::new())
            },
        ],
        5 => vec![Subtopology {
            copartition_groups: vec![CopartitionGroup { source_topics: vec![0, 1], ..Default::default() }],
            ..part("0", vec![name(0), name(1)])
        }],
        6 => vec![part("0", vec![name(3)])],
        _ => vec![part("0", vec![name(0)]), part("1", vec![name(1)])],
    };
    Topology { epoch: pick(rng, &[0, 0, 0, 0, 1]), subtopologies }
}

fn tasks(rows: &Tasks) -> Option<Vec<TaskIds>> {
    Some(
        rows.iter()
            .map(|(id, partitions)| TaskIds { subtopology_id: id.clone(), partitions: partitions.clone() })
            .collect(),
    )
}

fn heartbeat(world: &mut World, rng: &mut Rng, at: usize) {
    let Member { id, epoch, active, standby } = world.streams[0].members[at].clone();
    let group_id = if rng.one_in(20) { world.any_group(rng) } else { world.streams[0].id.clone() };
    let mut request = StreamsGroupHeartbeatRequest {
        group_id,
        member_id: if rng.one_in(30) { String::new() } else { id },
        rebalance_timeout_ms: -1,
        ..Default::default()
    };
    let kind = if epoch <= 0 && rng.below(4) > 0 { 0 } else { rng.below(14) };
    match kind {
        0 => {
            request.rebalance_timeout_ms = 60_000;
            // Mostly all members have the same topology.
            let mut shared = Rng(u64::from_le_bytes(*b"topology") ^ world.prefix.len() as u64);
            request.topology = Some(if rng.one_in(4) { topology(world, rng) } else { topology(world, &mut shared) });
            request.process_id = Some(format!("p{}", at % 2));
            (request.active_tasks, request.standby_tasks, request.warmup_tasks) =
                (Some(Vec::new()), Some(Vec::new()), Some(Vec::new()));
            request.client_tags = Some(Vec::new());
            if rng.one_in(4) {
                request.user_endpoint = Some(Endpoint { host: format!("h{at}"), port: 80 });
            }
        }
        1 => request.member_epoch = pick(rng, &[-1, -1, -2]),
        2..8 => {
            request.member_epoch = about(rng, epoch);
            (request.active_tasks, request.standby_tasks, request.warmup_tasks) =
                (tasks(&active), tasks(&standby), Some(Vec::new()));
        }
        8 => {
            request.member_epoch = epoch;
            (request.active_tasks, request.standby_tasks, request.warmup_tasks) =
                (Some(Vec::new()), Some(Vec::new()), Some(Vec::new()));
        }
        9 => {
            request.member_epoch = epoch;
            request.active_tasks = Some(vec![TaskIds { subtopology_id: "9".to_owned(), partitions: vec![0] }]);
            (request.standby_tasks, request.warmup_tasks) = (Some(Vec::new()), Some(Vec::new()));
        }
        10 => {
            request.member_epoch = epoch;
            request.user_endpoint = Some(Endpoint { host: format!("h{at}"), port: 80 });
            request.endpoint_information_epoch = -1;
        }
        11 => {
            request.member_epoch = epoch;
            request.process_id = Some(format!("p{}", below(rng, 3)));
            request.client_tags = Some(vec![KeyValue { key: "zone".to_owned(), value: "a".to_owned() }]);
        }
        12 => {
            request.member_epoch = epoch;
            request.topology = Some(topology(world, rng));
            request.shutdown_application = rng.one_in(6);
        }
        _ => request.member_epoch = about(rng, epoch),
    }
    let reply = world.ask(&request, 0, equal);
    let Some(reply) = reply else { return };
    // Internal topics are made in the background, here before the reply, there behind it.
    if reply.status.iter().flatten().any(|status| status.status_code == MISSING_INTERNAL_TOPICS) {
        world.pause(std::time::Duration::from_millis(400));
    }
    let own = world.streams[0].id.clone();
    let member = &mut world.streams[0].members[at];
    if request.group_id != own || request.member_id != member.id {
        return;
    }
    if reply.error_code == 0 {
        member.epoch = reply.member_epoch.max(0);
        let rows = |tasks: Vec<taccola_wire::messages::streams_group_heartbeat_response::TaskIds>| -> Tasks {
            let mut tasks: Tasks = tasks.into_iter().map(|row| (row.subtopology_id, row.partitions)).collect();
            tasks.sort();
            tasks.iter_mut().for_each(|(_, partitions)| partitions.sort_unstable());
            tasks
        };
        if let Some(tasks) = reply.active_tasks {
            member.active = rows(tasks);
        }
        if let Some(tasks) = reply.standby_tasks {
            member.standby = rows(tasks);
        }
        if request.member_epoch < 0 {
            (member.active, member.standby) = (Vec::new(), Vec::new());
        }
    } else if [25, 110].contains(&reply.error_code) {
        (member.epoch, member.active, member.standby) = (0, Vec::new(), Vec::new());
    }
}

fn equal(reply: &mut StreamsGroupHeartbeatResponse) {
    reply.error_message = None;
    for status in reply.status.iter_mut().flatten() {
        status.status_detail.clear();
    }
    if let Some(status) = &mut reply.status {
        status.sort_by_key(|status| status.status_code);
    }
    for tasks in [&mut reply.active_tasks, &mut reply.standby_tasks, &mut reply.warmup_tasks].into_iter().flatten() {
        tasks.sort_by(|a, b| a.subtopology_id.cmp(&b.subtopology_id));
        tasks.iter_mut().for_each(|task| task.partitions.sort_unstable());
    }
    if let Some(endpoints) = &mut reply.partitions_by_user_endpoint {
        endpoints.sort_by(|a, b| a.user_endpoint.host.cmp(&b.user_endpoint.host));
        for row in endpoints.iter_mut().flat_map(|row| [&mut row.active_partitions, &mut row.standby_partitions]) {
            row.sort_by(|a, b| a.topic.cmp(&b.topic));
            row.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        }
    }
}

fn describe(world: &mut World, rng: &mut Rng) {
    let mut group_ids = vec![world.streams[0].id.clone()];
    if rng.one_in(3) {
        group_ids.push(world.any_group(rng));
    }
    let request = StreamsGroupDescribeRequest { group_ids, include_authorized_operations: false };
    world.read(&request, 0, |reply: &mut StreamsGroupDescribeResponse| {
        reply.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        for group in &mut reply.groups {
            group.error_message = None;
            group.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
            for member in &mut group.members {
                member.client_host.clear();
                for assignment in [&mut member.assignment, &mut member.target_assignment] {
                    for tasks in
                        [&mut assignment.active_tasks, &mut assignment.standby_tasks, &mut assignment.warmup_tasks]
                    {
                        tasks.sort_by(|a, b| a.subtopology_id.cmp(&b.subtopology_id));
                        tasks.iter_mut().for_each(|task| task.partitions.sort_unstable());
                    }
                }
            }
        }
    });
}
