//! Random interleavings of clients, time, the log's fate and crashes, against what must hold whatever happens:
//!
//! - every request is answered exactly once, and none is forgotten;
//! - what a replay of the committed log knows of offsets is what the live shard tells, after every single step;
//! - an acknowledged offset commit is in the log;
//! - a group's generation never goes down in the log, nor in what members are told between two crashes;
//! - a generation has one assignment, and a member is told no other one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use taccola_coord::{
    AppendId, CoordinatorRecord, Effects, GroupConfig, GroupShard, Reply, RequestContext, RequestToken, Response,
    TimerKey, TimerOp,
};
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{
    GroupMetadataKey, GroupMetadataValue, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, SyncGroupRequest,
};

const GROUPS: [&str; 2] = ["g", "h"];
const CLIENTS: usize = 5;

#[derive(Clone, Debug)]
enum Op {
    Join { client: usize, protocols: u8 },
    Sync { client: usize },
    Heartbeat { client: usize },
    Leave { client: usize },
    Commit { client: usize, partition: i32 },
    SimpleCommit { group: usize, partition: i32 },
    Fetch { group: usize },
    Delete { group: usize },
    Tick { ms: i64 },
    Committed,
    Failed,
    TimedOut,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    let group = 0..GROUPS.len();
    prop_oneof![
        8 => (client.clone(), 0..4u8).prop_map(|(client, protocols)| Op::Join { client, protocols }),
        8 => client.clone().prop_map(|client| Op::Sync { client }),
        2 => client.clone().prop_map(|client| Op::Heartbeat { client }),
        3 => client.clone().prop_map(|client| Op::Leave { client }),
        4 => (client, 0..3i32).prop_map(|(client, partition)| Op::Commit { client, partition }),
        2 => (group.clone(), 0..3i32).prop_map(|(group, partition)| Op::SimpleCommit { group, partition }),
        1 => group.clone().prop_map(|group| Op::Fetch { group }),
        1 => group.prop_map(|group| Op::Delete { group }),
        4 => prop_oneof![Just(1), Just(500), Just(7_000), Just(40_000)].prop_map(|ms| Op::Tick { ms }),
        10 => Just(Op::Committed),
        1 => Just(Op::Failed),
        1 => Just(Op::TimedOut),
        1 => Just(Op::Crash),
    ]
}

/// What a client believes.
#[derive(Clone, Debug, Default)]
struct Client {
    member_id: String,
    generation: i32,
    members: Vec<String>,
}

/// What a request was about.
#[derive(Clone, Debug)]
enum Asked {
    Join(usize),
    Sync(usize, i32, String),
    Offset(i64),
    Other,
}

struct Held {
    append: AppendId,
    records: Vec<CoordinatorRecord>,
    timed_out: bool,
}

struct World {
    shard: GroupShard,
    now_ms: i64,
    log: Vec<CoordinatorRecord>,
    held: Vec<Held>,
    timers: BTreeMap<TimerKey, i64>,
    open: BTreeMap<RequestToken, Asked>,
    clients: Vec<Client>,
    next: u64,
    /// The offsets of all commits in the log; each commit has an offset of its own.
    logged_offsets: BTreeSet<i64>,
    told_assignments: BTreeMap<(String, i32), Bytes>,
    told_generations: BTreeMap<&'static str, i32>,
}

fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 500, offsets_retention_ms: 3_600_000, ..Default::default() }
}

/// Two clients of group `g` are static.
fn instance_of(client: usize) -> Option<String> {
    (client < 2).then(|| format!("i{client}"))
}

fn group_of(client: usize) -> &'static str {
    if client < 4 { GROUPS[0] } else { GROUPS[1] }
}

impl World {
    fn new() -> Self {
        Self {
            shard: GroupShard::new(config(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage)),
            now_ms: 1_000_000,
            log: Vec::new(),
            held: Vec::new(),
            timers: BTreeMap::new(),
            open: BTreeMap::new(),
            clients: vec![Client::default(); CLIENTS],
            next: 0,
            logged_offsets: BTreeSet::new(),
            told_assignments: BTreeMap::new(),
            told_generations: BTreeMap::new(),
        }
    }

    fn request<R>(
        &mut self,
        asked: Asked,
        handle: impl FnOnce(&mut GroupShard, i64, &RequestContext<'_>) -> Effects<R>,
        wrap: impl FnOnce(R) -> Response,
    ) {
        self.next += 1;
        let token = RequestToken(self.next);
        let mut fresh_id = [0; 16];
        fresh_id[..6].copy_from_slice(&self.next.to_be_bytes()[2..]);
        let ctx = RequestContext { token, api_version: 9, client_id: "c", client_host: "/127.0.0.1", fresh_id };
        assert!(self.open.insert(token, asked).is_none());
        let mut effects = handle(&mut self.shard, self.now_ms, &ctx);
        if let Reply::Now(response) = std::mem::replace(&mut effects.response, Reply::Parked) {
            self.answer(token, wrap(response));
        }
        self.take(effects);
    }

    fn answer(&mut self, token: RequestToken, response: Response) {
        let asked = self.open.remove(&token).expect("answered once");
        match (asked, response) {
            (Asked::Join(client), Response::JoinGroup(response)) => self.joined(client, response),
            (Asked::Sync(client, generation, member_id), Response::SyncGroup(response)) => {
                if response.error_code == 0 {
                    let told =
                        self.told_assignments.entry((member_id, generation)).or_insert(response.assignment.clone());
                    assert_eq!(*told, response.assignment, "one assignment for a member in a generation");
                } else if ErrorCode::from_code(response.error_code) == ErrorCode::UnknownMemberId {
                    self.clients[client] = Client::default();
                }
            }
            (Asked::Offset(offset), Response::OffsetCommit(response)) => {
                if response.topics[0].partitions[0].error_code == 0 {
                    assert!(
                        self.logged_offsets.contains(&offset),
                        "offset {offset} is acknowledged, but not in the log"
                    );
                }
            }
            (Asked::Other, _) => {}
            (asked, response) => panic!("{asked:?} is answered with {response:?}"),
        }
    }

    fn joined(&mut self, client: usize, response: JoinGroupResponse) {
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                let told = self.told_generations.entry(group_of(client)).or_default();
                assert!(response.generation_id >= *told, "generation {} after {told}", response.generation_id);
                *told = response.generation_id;
                self.clients[client] = Client {
                    member_id: response.member_id,
                    generation: response.generation_id,
                    members: response.members.into_iter().map(|m| m.member_id).collect(),
                };
            }
            ErrorCode::MemberIdRequired => self.clients[client].member_id = response.member_id,
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.clients[client] = Client::default(),
            _ => {}
        }
    }

    fn take<R>(&mut self, effects: Effects<R>) {
        for released in effects.released {
            self.answer(released.token, released.response);
        }
        for timer in effects.timers {
            match timer {
                TimerOp::Set { key, deadline_ms } => self.timers.insert(key, deadline_ms),
                TimerOp::Cancel { key } => self.timers.remove(&key),
            };
        }
        assert_eq!(effects.append.is_some(), !effects.records.is_empty());
        self.forget_generations(&effects.records);
        if let Some(append) = effects.append {
            assert!(self.held.last().is_none_or(|h| h.append < append), "appends ascend");
            self.held.push(Held { append, records: effects.records, timed_out: false });
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Join { client, protocols } => self.join(client, protocols),
            Op::Sync { client } => self.sync(client),
            Op::Heartbeat { client } => {
                let me = self.clients[client].clone();
                let request = HeartbeatRequest {
                    group_id: group_of(client).into(),
                    generation_id: me.generation,
                    member_id: me.member_id,
                    group_instance_id: instance_of(client),
                };
                let wrap = |_| Response::DeleteGroups(Vec::new());
                self.request(Asked::Other, |s, now, ctx| s.handle_heartbeat(now, ctx, &request), wrap);
            }
            Op::Leave { client } => {
                let me = std::mem::take(&mut self.clients[client]);
                let member =
                    MemberIdentity { member_id: me.member_id, group_instance_id: instance_of(client), reason: None };
                let request = LeaveGroupRequest {
                    group_id: group_of(client).into(),
                    members: vec![member],
                    ..Default::default()
                };
                self.request(Asked::Other, |s, now, ctx| s.handle_leave(now, ctx, request), Response::LeaveGroup);
            }
            Op::Commit { client, partition } => {
                let me = self.clients[client].clone();
                self.commit(group_of(client), partition, me.generation, me.member_id);
            }
            Op::SimpleCommit { group, partition } => self.commit(GROUPS[group], partition, -1, String::new()),
            Op::Fetch { group } => {
                let request =
                    OffsetFetchRequestGroup { group_id: GROUPS[group].into(), topics: None, ..Default::default() };
                self.request(
                    Asked::Other,
                    |s, now, ctx| s.handle_offset_fetch(now, ctx, request, true),
                    Response::OffsetFetch,
                );
            }
            Op::Delete { group } => {
                let groups = vec![GROUPS[group].to_owned()];
                self.request(
                    Asked::Other,
                    |s, now, ctx| s.handle_delete_groups(now, ctx, &groups),
                    Response::DeleteGroups,
                );
            }
            Op::Tick { ms } => self.tick(ms),
            Op::Committed => self.committed(),
            Op::Failed => {
                // What timed out is in the log: it cannot fail any more.
                if self.held.first().is_some_and(|h| !h.timed_out) {
                    let held = self.held.remove(0);
                    let effects = self.shard.failed(self.now_ms, held.append, ErrorCode::NotEnoughReplicas);
                    self.take(effects);
                }
            }
            Op::TimedOut => {
                if let Some(held) = self.held.iter_mut().find(|h| !h.timed_out) {
                    held.timed_out = true;
                    let effects = self.shard.timed_out(self.now_ms, held.append, ErrorCode::RequestTimedOut);
                    self.take(effects);
                }
            }
            Op::Crash => self.crash(),
        }
        self.check();
    }

    fn join(&mut self, client: usize, protocols: u8) {
        let names: &[&str] = match protocols {
            0 => &["range", "sticky"],
            1 => &["sticky", "range"],
            2 => &["range"],
            _ => &["sticky"],
        };
        let protocol = |n: &&str| JoinGroupRequestProtocol { name: (*n).into(), metadata: Bytes::from_static(b"m") };
        let request = JoinGroupRequest {
            group_id: group_of(client).into(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 8_000,
            member_id: self.clients[client].member_id.clone(),
            group_instance_id: instance_of(client),
            protocol_type: "other".into(),
            protocols: names.iter().map(protocol).collect(),
            reason: None,
        };
        self.request(Asked::Join(client), |s, now, ctx| s.handle_join(now, ctx, request), Response::JoinGroup);
    }

    fn sync(&mut self, client: usize) {
        let me = self.clients[client].clone();
        let mark = self.next;
        let row = |id: &String| SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment: format!("{mark}").into_bytes().into(),
        };
        let request = SyncGroupRequest {
            group_id: group_of(client).into(),
            generation_id: me.generation,
            member_id: me.member_id.clone(),
            group_instance_id: instance_of(client),
            assignments: me.members.iter().map(row).collect(),
            ..Default::default()
        };
        let asked = Asked::Sync(client, me.generation, me.member_id);
        self.request(asked, |s, now, ctx| s.handle_sync(now, ctx, &request), Response::SyncGroup);
    }

    fn commit(&mut self, group: &str, partition: i32, generation: i32, member_id: String) {
        self.next += 1;
        let offset = self.next as i64;
        let row =
            OffsetCommitRequestPartition { partition_index: partition, committed_offset: offset, ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: generation,
            member_id,
            topics: vec![OffsetCommitRequestTopic { name: "t".into(), partitions: vec![row], ..Default::default() }],
            ..Default::default()
        };
        self.request(
            Asked::Offset(offset),
            |s, now, ctx| s.handle_offset_commit(now, ctx, &request),
            Response::OffsetCommit,
        );
    }

    fn tick(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        while let Some((key, at)) = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= end_ms)
            .min_by_key(|(_, at)| **at)
            .map(|(k, at)| (k.clone(), *at))
        {
            self.timers.remove(&key);
            self.now_ms = self.now_ms.max(at);
            let effects = self.shard.on_timer(self.now_ms, &key);
            self.take(effects);
        }
        self.now_ms = end_ms;
    }

    fn committed(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.remove(0);
        let base_offset = self.log.len() as i64;
        for record in held.records {
            if let (1, Some(value)) = (record.key[1], &record.value) {
                self.logged_offsets.insert(i64::from_be_bytes(value[2..10].try_into().unwrap()));
            }
            self.log.push(record);
        }
        let effects = self.shard.committed(self.now_ms, held.append, base_offset);
        self.take(effects);
    }

    /// A group that is deleted begins anew with generation 0, from the request on.
    fn forget_generations(&mut self, records: &[CoordinatorRecord]) {
        for (group, value) in records.iter().filter_map(group_record) {
            if value.is_none_or(|v| v.generation == 0) {
                self.told_generations.retain(|g, _| *g != group);
            }
        }
    }

    fn crash(&mut self) {
        self.shard = self.replayed();
        self.timers.clear();
        self.held.clear();
        self.open.clear();
        self.told_generations.clear();
        let effects = self.shard.loaded(self.now_ms);
        self.take(effects);
    }

    fn replayed(&self) -> GroupShard {
        let mut shard = GroupShard::new(config(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage));
        for (offset, record) in (0..).zip(&self.log) {
            shard.replay(offset, -1, &record.key, record.value.as_ref()).unwrap();
        }
        shard
    }

    fn check(&mut self) {
        let mut replayed = self.replayed();
        for group in GROUPS {
            let live = fetch_all(&mut self.shard, group);
            assert_eq!(live, fetch_all(&mut replayed, group), "offsets of {group}");
        }
        let mut generations: BTreeMap<String, (i32, Option<String>)> = BTreeMap::new();
        for (group, value) in self.log.iter().filter_map(group_record) {
            let Some(value) = value.filter(|v| v.generation > 0) else {
                generations.remove(&group);
                continue;
            };
            let assignments = value.members.iter().map(|m| String::from_utf8_lossy(&m.assignment).into_owned());
            let mark = assignments.filter(|a| !a.is_empty()).max();
            if let Some((generation, before)) = generations.get(&group) {
                assert!(value.generation >= *generation, "{group}: generation {} after {generation}", value.generation);
                if value.generation == *generation {
                    assert_eq!(*before, mark, "{group}: two assignments in generation {generation}");
                }
            }
            generations.insert(group, (value.generation, mark));
        }
    }

    /// Nobody does anything any more: whoever waits gets an answer in the end.
    fn settle(&mut self) {
        for _ in 0..50 {
            while !self.held.is_empty() {
                self.committed();
            }
            self.tick(60_000);
        }
        assert!(self.open.is_empty(), "forgotten: {:?}", self.open);
    }
}

fn group_record(record: &CoordinatorRecord) -> Option<(String, Option<GroupMetadataValue>)> {
    if record.key[1] != 2 {
        return None;
    }
    let key = GroupMetadataKey::from_bytes(record.key.slice(2..), 0).unwrap();
    let value = record.value.as_ref().map(|v| GroupMetadataValue::from_bytes(v.slice(2..), 3).unwrap());
    Some((key.group, value))
}

fn fetch_all(shard: &mut GroupShard, group: &str) -> Response {
    let request = OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
    let ctx =
        RequestContext { token: RequestToken(0), api_version: 8, client_id: "", client_host: "", fresh_id: [0; 16] };
    match shard.handle_offset_fetch(0, &ctx, request, false).response {
        Reply::Now(response) => Response::OffsetFetch(response),
        Reply::Parked => panic!("a plain fetch waits"),
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.settle();
        world.check();
    }
}
