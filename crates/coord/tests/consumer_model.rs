//! Random interleavings of members of a consumer group, of topics that come and go, of failing appends and crashes. What
//! must hold, whatever happens: members that the group knows never process the same partition, epochs only go up, the log
//! tells what the shard knows, and once everything is quiet the group comes to rest with every partition assigned.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "script/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::Cluster;
use proptest::prelude::*;
use taccola_base::Uuid;
use taccola_coord::cluster_image::{ClusterImage, TopicChanges};
use taccola_coord::{
    AppendId, CoordinatorRecord, CoordinatorShard, Effects, GroupConfig, GroupShard, Reply, RequestContext,
    RequestToken, Response, TimerKey, TimerOp,
};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use taccola_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

const CLIENTS: usize = 5;
const TOPICS: [&str; 3] = ["ta", "tb", "other"];
const GROUP: &str = "g";

type Owned = BTreeSet<(Uuid, i32)>;

#[derive(Clone, Debug, Default)]
struct Client {
    /// A client that starts anew has another id, unless it is static.
    life: usize,
    epoch: i32,
    owned: Owned,
    /// What it is to give back, as long as it is busy with it.
    giving: Owned,
    wants: u8,
    /// A request of its own is on the way.
    waits: Option<RequestToken>,
    /// It does not take part.
    away: bool,
    subscribed: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Beat { client: usize, reply_lost: bool, busy: bool },
    Leave { client: usize },
    Restart { client: usize },
    Subscribe { client: usize, wants: u8 },
    Tick { ms: i64 },
    Hold,
    Commit,
    NextFails,
    TimesOut,
    Crash,
    Grow { topic: usize },
    Drop { topic: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    prop_oneof![
        20 => (client(), proptest::bool::weighted(0.1), proptest::bool::weighted(0.3))
            .prop_map(|(client, reply_lost, busy)| Op::Beat { client, reply_lost, busy }),
        1 => client().prop_map(|client| Op::Leave { client }),
        1 => client().prop_map(|client| Op::Restart { client }),
        2 => (client(), 0..8_u8).prop_map(|(client, wants)| Op::Subscribe { client, wants }),
        4 => prop_oneof![Just(100), Just(1_500), Just(20_000), Just(50_000)].prop_map(|ms| Op::Tick { ms }),
        2 => Just(Op::Hold),
        3 => Just(Op::Commit),
        1 => Just(Op::NextFails),
        1 => Just(Op::TimesOut),
        1 => Just(Op::Crash),
        1 => (0..TOPICS.len()).prop_map(|topic| Op::Grow { topic }),
        1 => (0..TOPICS.len()).prop_map(|topic| Op::Drop { topic }),
    ]
}

struct World {
    shard: GroupShard,
    cluster: Cluster,
    now_ms: i64,
    log: Vec<CoordinatorRecord>,
    held: Vec<(AppendId, Vec<CoordinatorRecord>)>,
    hold: bool,
    next_fails: bool,
    timers: BTreeMap<TimerKey, i64>,
    clients: Vec<Client>,
    /// Whose request it is, and whether the reply gets lost.
    open: BTreeMap<RequestToken, (usize, bool, bool)>,
    next: u64,
}

fn config() -> GroupConfig {
    GroupConfig::default()
}

fn member_id(client: usize, life: usize) -> String {
    format!("c{client}-{life}")
}

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::default();
        cluster.put("ta", 3);
        cluster.put("tb", 2);
        Self {
            shard: GroupShard::new(config(), Arc::new(cluster.clone())),
            cluster,
            now_ms: 1_000_000,
            log: Vec::new(),
            held: Vec::new(),
            hold: false,
            next_fails: false,
            timers: BTreeMap::new(),
            clients: (0..CLIENTS).map(|n| Client { wants: 1 + n as u8 % 3, ..Default::default() }).collect(),
            open: BTreeMap::new(),
            next: 0,
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Beat { client, reply_lost, busy } => {
                self.clients[client].away = false;
                self.beat(client, reply_lost, busy);
            }
            Op::Leave { client } => {
                if self.clients[client].epoch > 0 && self.clients[client].waits.is_none() {
                    self.clients[client].owned.clear();
                    self.clients[client].giving.clear();
                    self.send(client, -1, true, false);
                    self.clients[client].waits = None;
                    self.clients[client].epoch = 0;
                    self.clients[client].away = true;
                }
            }
            Op::Restart { client } => {
                let c = &mut self.clients[client];
                *c = Client { life: c.life + 1, wants: c.wants, ..Default::default() };
            }
            Op::Subscribe { client, wants } => {
                self.clients[client].wants = wants;
                self.clients[client].subscribed = false;
            }
            Op::Tick { ms } => self.tick(ms),
            Op::Hold => self.hold = true,
            Op::Commit => self.commit(),
            Op::NextFails => self.next_fails = true,
            Op::TimesOut => {
                if let Some((append, _)) = self.held.first() {
                    let effects = self.shard.timed_out(self.now_ms, *append, ErrorCode::RequestTimedOut);
                    self.take(effects);
                }
            }
            Op::Crash => self.crash(),
            Op::Grow { topic } => {
                let name = TOPICS[topic];
                let partitions = self.cluster.topics.get(name).map_or(1, |t| (t.partitions + 1).min(7));
                self.cluster.put(name, partitions);
                self.publish(TopicChanges { changed: vec![name.into()], ..Default::default() });
            }
            Op::Drop { topic } => {
                let name = TOPICS[topic];
                if let Some(id) = self.cluster.remove(name) {
                    self.publish(TopicChanges { deleted: vec![(name.to_owned(), id)], ..Default::default() });
                }
            }
        }
        self.check();
    }

    fn publish(&mut self, changes: TopicChanges) {
        let image: Arc<dyn ClusterImage> = Arc::new(self.cluster.clone());
        let effects = self.shard.on_new_image(self.now_ms, &image, &changes);
        self.take(effects);
    }

    fn beat(&mut self, client: usize, reply_lost: bool, busy: bool) {
        if self.clients[client].waits.is_some() {
            return;
        }
        if !busy {
            let giving = std::mem::take(&mut self.clients[client].giving);
            self.clients[client].owned.retain(|p| !giving.contains(p));
        }
        let epoch = self.clients[client].epoch;
        self.send(client, epoch, reply_lost, busy);
    }

    fn send(&mut self, client: usize, epoch: i32, reply_lost: bool, busy: bool) {
        self.next += 1;
        let token = RequestToken(self.next);
        let c = &mut self.clients[client];
        c.waits = Some(token);
        let says = epoch == 0 || !c.subscribed;
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &c.owned {
            owned.entry(*topic).or_default().push(*partition);
        }
        let names = TOPICS.iter().enumerate().filter(|(n, _)| c.wants & (1 << n) != 0);
        // One client subscribes by an expression.
        let by_regex = client == 4;
        let regex = if c.wants & 1 != 0 { "t[ab]" } else { "nothing" };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.to_owned(),
            member_id: member_id(client, c.life),
            member_epoch: epoch,
            // Who is not sure what the group knows says everything.
            rebalance_timeout_ms: if says { 30_000 } else { -1 },
            subscribed_topic_names: (says && !by_regex).then(|| names.map(|(_, name)| (*name).to_owned()).collect()),
            subscribed_topic_regex: (says && by_regex).then(|| regex.to_owned()),
            topic_partitions: Some(
                owned.into_iter().map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions }).collect(),
            ),
            ..Default::default()
        };
        if epoch >= 0 {
            c.subscribed = true;
        }
        self.open.insert(token, (client, reply_lost, busy));
        let ctx = RequestContext { token, api_version: 1, client_id: "c", client_host: "/1", fresh_id: [7; 16] };
        let mut effects = self.shard.handle_consumer_group_heartbeat(self.now_ms, &ctx, &request);
        if let Reply::Now(response) = std::mem::replace(&mut effects.response, Reply::Parked) {
            self.answer(token, response);
        }
        self.take_any(effects);
    }

    fn answer(&mut self, token: RequestToken, response: ConsumerGroupHeartbeatResponse) {
        let Some((client, lost, _)) = self.open.remove(&token) else { return };
        let c = &mut self.clients[client];
        // The client is another one by now, or has left.
        if c.waits != Some(token) {
            return;
        }
        c.waits = None;
        if lost {
            c.subscribed = false;
            return;
        }
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                assert!(response.member_epoch >= c.epoch, "epoch {} after {}", response.member_epoch, c.epoch);
                assert_eq!(response.member_id.as_deref(), Some(&*member_id(client, c.life)));
                c.epoch = response.member_epoch;
                let Some(assignment) = response.assignment else { return };
                let assigned: Owned = assignment
                    .topic_partitions
                    .iter()
                    .flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p)))
                    .collect();
                c.giving = c.owned.difference(&assigned).copied().collect();
                c.owned.extend(assigned);
            }
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                *c = Client { life: c.life, wants: c.wants, ..Default::default() };
            }
            ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => c.subscribed = false,
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, effects: Effects<()>) {
        self.take_any(effects);
    }

    fn take_any<R>(&mut self, effects: Effects<R>) {
        for released in effects.released {
            let Response::ConsumerGroupHeartbeat(response) = released.response else { panic!("another reply") };
            self.answer(released.token, response);
        }
        for timer in effects.timers {
            match timer {
                TimerOp::Set { key, deadline_ms } => drop(self.timers.insert(key, deadline_ms)),
                TimerOp::Cancel { key } => drop(self.timers.remove(&key)),
            }
        }
        let Some(append) = effects.append else { return };
        if std::mem::take(&mut self.next_fails) {
            let effects = self.shard.failed(self.now_ms, append, ErrorCode::NotEnoughReplicas);
            return self.take(effects);
        }
        self.shard.appended(self.now_ms, append, 0);
        self.held.push((append, effects.records));
        if !self.hold {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.hold = false;
        while !self.held.is_empty() {
            let (append, records) = self.held.remove(0);
            let base_offset = self.log.len() as i64;
            self.log.extend(records);
            let effects = self.shard.committed(self.now_ms, append, base_offset);
            self.take(effects);
        }
    }

    fn tick(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        loop {
            let due =
                self.timers.iter().filter(|(_, at)| **at <= end_ms).min_by_key(|(key, at)| (**at, (*key).clone()));
            let Some((key, at)) = due.map(|(key, at)| (key.clone(), *at)) else { break };
            self.timers.remove(&key);
            self.now_ms = self.now_ms.max(at);
            let effects = self.shard.on_timer(self.now_ms, &key);
            self.take(effects);
        }
        self.now_ms = end_ms;
    }

    fn replayed(&self) -> GroupShard {
        let mut shard = GroupShard::new(config(), Arc::new(self.cluster.clone()));
        for (offset, record) in (0..).zip(&self.log) {
            shard.replay(offset, -1, &record.key, record.value.as_ref()).unwrap();
        }
        shard
    }

    fn crash(&mut self) {
        self.shard = self.replayed();
        self.timers.clear();
        self.held.clear();
        self.hold = false;
        self.next_fails = false;
        for (_, (client, ..)) in std::mem::take(&mut self.open) {
            self.clients[client].waits = None;
            self.clients[client].subscribed = false;
        }
        let effects = self.shard.loaded(self.now_ms);
        self.take(effects);
    }

    fn check(&self) {
        let ids = [GROUP.to_owned()];
        let described = self.shard.describe_consumer_groups(&ids);
        let members: BTreeSet<&str> = described[0].members.iter().map(|m| m.member_id.as_str()).collect();
        let mut given = BTreeSet::new();
        for member in &described[0].members {
            for topic in &member.assignment.topic_partitions {
                for partition in &topic.partitions {
                    assert!(given.insert((topic.topic_id, *partition)), "two have it: {described:#?}");
                }
            }
        }
        let mut owned: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (n, client) in self.clients.iter().enumerate() {
            if members.contains(&*member_id(n, client.life)) {
                for partition in &client.owned {
                    if let Some(other) = owned.insert(*partition, n) {
                        panic!("{partition:?} is processed by {other} and {n}: {described:#?} {:#?}", self.clients);
                    }
                }
            }
        }
        if self.held.is_empty() {
            assert_eq!(self.replayed().describe_consumer_groups(&ids), described);
        }
    }

    /// Nothing goes wrong any more: the group comes to rest.
    fn settle(&mut self) {
        self.next_fails = false;
        self.commit();
        // Who went away silently is forgotten.
        for _ in 0..30 {
            for client in 0..CLIENTS {
                if !self.clients[client].away {
                    self.beat(client, false, false);
                }
            }
            self.tick(5_000);
            self.check();
        }
        let described = self.shard.describe_consumer_groups(&[GROUP.to_owned()]);
        let live: Vec<&Client> = self.clients.iter().filter(|c| !c.away).collect();
        if live.is_empty() {
            return;
        }
        assert_eq!(described[0].group_state, "Stable", "{described:#?} {:#?}", self.clients);
        let mut wanted: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        for (n, client) in self.clients.iter().enumerate().filter(|(_, c)| !c.away) {
            assert_eq!(client.epoch, described[0].group_epoch);
            let regex = if client.wants & 1 != 0 { vec!["ta", "tb"] } else { Vec::new() };
            let names = TOPICS.iter().enumerate().filter(|(t, _)| client.wants & (1 << t) != 0).map(|(_, t)| *t);
            let names: Vec<&str> = if n == 4 { regex } else { names.collect() };
            for topic in names.into_iter().filter_map(|t| self.cluster.topics.get(t)) {
                wanted.extend((0..topic.partitions).map(|p| (topic.id, p)));
            }
        }
        let owned: BTreeSet<(Uuid, i32)> = live.iter().flat_map(|c| c.owned.iter().copied()).collect();
        assert_eq!(owned, wanted, "{described:#?} {:#?}", self.clients);
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens(ops in proptest::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.settle();
    }
}

/// A hundred members and a thousand partitions: what does not change is cheap, and the members end up with ten each.
#[test]
fn a_large_group_comes_to_rest() {
    let mut cluster = Cluster::default();
    cluster.put("big", 1_000);
    let mut world = World::new();
    world.cluster = cluster;
    world.shard = GroupShard::new(config(), Arc::new(world.cluster.clone()));
    world.clients = vec![Client { wants: 0, ..Default::default() }; 100];
    let beat = |world: &mut World, client: usize| {
        world.next += 1;
        let token = RequestToken(world.next);
        let c = &mut world.clients[client];
        c.waits = Some(token);
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in c.owned.difference(&c.giving) {
            owned.entry(*topic).or_default().push(*partition);
        }
        let giving = std::mem::take(&mut c.giving);
        c.owned.retain(|p| !giving.contains(p));
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.to_owned(),
            member_id: member_id(client, 0),
            member_epoch: c.epoch,
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: (c.epoch == 0).then(|| vec!["big".to_owned()]),
            topic_partitions: Some(
                owned.into_iter().map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions }).collect(),
            ),
            ..Default::default()
        };
        world.open.insert(token, (client, false, false));
        let ctx = RequestContext { token, api_version: 1, client_id: "c", client_host: "/1", fresh_id: [7; 16] };
        let mut effects = world.shard.handle_consumer_group_heartbeat(world.now_ms, &ctx, &request);
        if let Reply::Now(response) = std::mem::replace(&mut effects.response, Reply::Parked) {
            world.answer(token, response);
        }
        world.take_any(effects);
    };
    for _ in 0..8 {
        for client in 0..100 {
            beat(&mut world, client);
        }
        world.tick(5_000);
    }
    assert!(world.clients.iter().all(|c| c.owned.len() == 10), "{:?}", world.clients[0]);
    let records = world.log.len();
    for client in 0..100 {
        beat(&mut world, client);
    }
    assert_eq!(world.log.len(), records, "at rest nothing is written");
}
