//! Random members of a streams group against the shard: joins, heartbeats that lie behind, silence, topics that come and
//! grow, crashes, appends that fail. Always: a task is active at one living member at a time, and what the log says is what
//! the shard is. At the end everybody has what the target says, and every task is somebody's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_coord::cluster_image::{ClusterImage, TopicChanges, TopicInfo};
use taccola_coord::{
    AppendId, CoordinatorRecord, CoordinatorShard as _, Effects, GroupConfig, GroupShard, Reply, RequestContext,
    RequestToken, Response, StreamsHeartbeat, TimerKey, TimerOp,
};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::StreamsGroupHeartbeatRequest;
use taccola_wire::messages::streams_group_describe_response::DescribedGroup;
use taccola_wire::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Subtopology, TaskIds, TopicInfo as SentTopic, Topology,
};

const GROUP: &str = "app";
const MEMBERS: usize = 4;

#[derive(Clone, Debug, Default)]
struct Cluster {
    topics: BTreeMap<String, i32>,
    standbys: i32,
    version: i64,
}

impl ClusterImage for Cluster {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        let (name, partitions) = self.topics.get_key_value(name)?;
        let mut id = [7; 16];
        id.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Some(TopicInfo { name: name.as_str().into(), id: Uuid::from_bytes(id), partitions: *partitions })
    }

    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.topics().find(|topic| topic.id == id)
    }

    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(self.topics.keys().filter_map(|name| self.topic_by_name(name)))
    }

    fn racks(&self, _topic_id: Uuid, _partition: i32) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn feature_level(&self, _feature: &str) -> i16 {
        1
    }

    fn group_config(&self, _group_id: &str) -> Option<Arc<ConfigMap>> {
        let pair = ("streams.num.standby.replicas".to_owned(), self.standbys.to_string());
        Some(Arc::new(ConfigMap::from([pair])))
    }

    fn version(&self) -> i64 {
        self.version
    }
}

type Owned = BTreeMap<String, BTreeSet<i32>>;

/// A Kafka Streams client as the coordinator sees it.
#[derive(Clone, Debug, Default)]
struct Client {
    epoch: i32,
    joined: bool,
    active: Owned,
    standby: Owned,
}

struct World {
    now_ms: i64,
    cluster: Cluster,
    shard: GroupShard,
    log: Vec<CoordinatorRecord>,
    timers: BTreeMap<TimerKey, i64>,
    clients: Vec<Client>,
    fail_next: bool,
    tokens: u64,
}

fn topic(name: &str, partitions: i32) -> SentTopic {
    SentTopic { name: name.to_owned(), partitions, ..Default::default() }
}

/// Words by a repartition topic into a store, and a table that is joined with a fixed repartition topic.
fn topology() -> Topology {
    let first = Subtopology {
        subtopology_id: "0".to_owned(),
        source_topics: vec!["lines".to_owned()],
        repartition_sink_topics: vec!["by-word".to_owned()],
        ..Default::default()
    };
    let second = Subtopology {
        subtopology_id: "1".to_owned(),
        source_topics: vec!["names".to_owned()],
        repartition_source_topics: vec![topic("by-word", 0)],
        state_changelog_topics: vec![topic("counted", 0)],
        copartition_groups: vec![CopartitionGroup {
            source_topics: vec![0],
            repartition_source_topics: vec![0],
            ..Default::default()
        }],
        ..Default::default()
    };
    Topology { epoch: 0, subtopologies: vec![first, second] }
}

fn ids(owned: &Owned) -> Option<Vec<TaskIds>> {
    let id = |(s, p): (&String, &BTreeSet<i32>)| TaskIds {
        subtopology_id: s.clone(),
        partitions: p.iter().copied().collect(),
    };
    Some(owned.iter().map(id).collect())
}

impl World {
    fn new(standbys: i32) -> Self {
        let cluster = Cluster { standbys, ..Default::default() };
        Self {
            now_ms: 1_000_000,
            shard: GroupShard::new(GroupConfig::default(), Arc::new(cluster.clone())),
            cluster,
            log: Vec::new(),
            timers: BTreeMap::new(),
            clients: vec![Client::default(); MEMBERS],
            fail_next: false,
            tokens: 0,
        }
    }

    /// What the runtime does: append, then commit.
    fn run<R>(&mut self, effects: Effects<R>) -> (Option<R>, Option<StreamsHeartbeat>) {
        let mut released = None;
        let mut queue: Vec<Effects<()>> = Vec::new();
        let Effects { records, append, response, timers, .. } = effects;
        let now = match response {
            Reply::Now(now) => Some(now),
            Reply::Parked => None,
        };
        self.arm(timers);
        if let Some(append) = append {
            queue.push(self.append(append, records));
        }
        for effects in queue {
            assert!(effects.append.is_none(), "a commit writes nothing here");
            self.arm(effects.timers);
            for reply in effects.released {
                if let Response::Streams(reply) = reply.response {
                    released = Some(*reply);
                }
            }
        }
        (now, released)
    }

    fn append(&mut self, append: AppendId, records: Vec<CoordinatorRecord>) -> Effects<()> {
        if std::mem::take(&mut self.fail_next) {
            return self.shard.failed(self.now_ms, append, ErrorCode::NotEnoughReplicas);
        }
        let base = i64::try_from(self.log.len()).unwrap();
        self.log.extend(records);
        self.shard.appended(self.now_ms, append, base);
        self.shard.committed(self.now_ms, append, base)
    }

    fn arm(&mut self, timers: Vec<TimerOp>) {
        for op in timers {
            match op {
                TimerOp::Set { key, deadline_ms } => self.timers.insert(key, deadline_ms),
                TimerOp::Cancel { key } => self.timers.remove(&key),
            };
        }
    }

    fn heartbeat(&mut self, at: usize, leave: bool) -> StreamsHeartbeat {
        let client = self.clients[at].clone();
        let member_id = format!("m{at}");
        let joins = !client.joined && !leave;
        let request = StreamsGroupHeartbeatRequest {
            group_id: GROUP.to_owned(),
            member_id: member_id.clone(),
            member_epoch: if leave { -1 } else { client.epoch },
            rebalance_timeout_ms: if joins { 20_000 } else { -1 },
            topology: (joins || client.epoch == 0).then(topology),
            // Two threads of one process share its state.
            process_id: joins.then(|| format!("p{}", at / 2)),
            active_tasks: if joins || client.epoch == 0 { Some(Vec::new()) } else { ids(&client.active) },
            standby_tasks: if joins || client.epoch == 0 { Some(Vec::new()) } else { ids(&client.standby) },
            warmup_tasks: Some(Vec::new()),
            ..Default::default()
        };
        let request = StreamsGroupHeartbeatRequest {
            rebalance_timeout_ms: if client.epoch == 0 { 20_000 } else { request.rebalance_timeout_ms },
            ..request
        };
        self.tokens += 1;
        let ctx = RequestContext {
            token: RequestToken(self.tokens),
            api_version: 0,
            client_id: "c",
            client_host: "/127.0.0.1",
            fresh_id: [1; 16],
        };
        let effects = self.shard.handle_streams_group_heartbeat(self.now_ms, &ctx, &request);
        let (now, released) = self.run(effects);
        now.or(released).expect("everything is committed at once")
    }

    /// A living client's heartbeat: it does what it is told before the next one.
    fn beat(&mut self, at: usize) {
        let reply = self.heartbeat(at, false).response;
        let client = &mut self.clients[at];
        match ErrorCode::from_code(reply.error_code) {
            ErrorCode::None => {
                client.joined = true;
                client.epoch = reply.member_epoch;
                let set = |ids: Vec<taccola_wire::messages::streams_group_heartbeat_response::TaskIds>| -> Owned {
                    ids.into_iter().map(|t| (t.subtopology_id, t.partitions.into_iter().collect())).collect()
                };
                if let Some(tasks) = reply.active_tasks {
                    client.active = set(tasks);
                }
                if let Some(tasks) = reply.standby_tasks {
                    client.standby = set(tasks);
                }
            }
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                *client = Client::default();
            }
            ErrorCode::InvalidRequest => {
                // Topics went away under it, and its tasks with them.
                *client = Client { joined: true, ..Client::default() };
            }
            _ => {}
        }
        self.check();
    }

    fn leave(&mut self, at: usize) {
        if self.clients[at].joined {
            self.clients[at].active.clear();
            let reply = self.heartbeat(at, true).response;
            if ErrorCode::from_code(reply.error_code) != ErrorCode::CoordinatorNotAvailable {
                self.clients[at] = Client::default();
            }
        }
    }

    fn tick(&mut self, ms: i64) {
        let until = self.now_ms + ms;
        loop {
            let next = self.timers.iter().min_by_key(|(_, at)| **at).map(|(key, at)| (key.clone(), *at));
            let Some((key, at)) = next.filter(|(_, at)| *at <= until) else { break };
            self.timers.remove(&key);
            self.now_ms = self.now_ms.max(at);
            let effects = self.shard.on_timer(self.now_ms, &key);
            let _ = self.run(effects);
        }
        self.now_ms = until;
    }

    fn set_topic(&mut self, name: &str, partitions: i32) {
        self.cluster.topics.insert(name.to_owned(), partitions);
        self.cluster.version += 1;
        let image: Arc<dyn ClusterImage> = Arc::new(self.cluster.clone());
        let changes = TopicChanges { changed: vec![name.into()], ..Default::default() };
        let effects = self.shard.on_new_image(self.now_ms, &image, &changes);
        let _ = self.run(effects);
    }

    fn replayed(&self) -> GroupShard {
        let mut shard = GroupShard::new(GroupConfig::default(), Arc::new(self.cluster.clone()));
        for (offset, record) in (0..).zip(&self.log) {
            shard.replay(offset, -1, &record.key, record.value.as_ref()).unwrap();
        }
        shard
    }

    fn crash(&mut self) {
        self.shard = self.replayed();
        self.timers.clear();
        let effects = self.shard.loaded(self.now_ms);
        let _ = self.run(effects);
    }

    fn described(&self) -> DescribedGroup {
        self.shard.describe_streams_group(GROUP)
    }

    fn check(&self) {
        let group = self.described();
        let members: BTreeSet<&str> = group.members.iter().map(|m| m.member_id.as_str()).collect();
        let mut active: BTreeMap<(String, i32), usize> = BTreeMap::new();
        for (at, client) in self.clients.iter().enumerate() {
            if !members.contains(format!("m{at}").as_str()) {
                continue;
            }
            for (subtopology, partitions) in &client.active {
                for partition in partitions {
                    let before = active.insert((subtopology.clone(), *partition), at);
                    assert_eq!(before, None, "task {subtopology}_{partition} is active twice");
                }
            }
        }
        let mut again = self.replayed().describe_streams_group(GROUP);
        // Numbers of partitions are known once somebody looked at the topics.
        again.topology.clone_from(&group.topology);
        assert_eq!(again, group, "the log says something else");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Beat(usize),
    Leave(usize),
    /// A restart without a word.
    Forget(usize),
    Tick(i64),
    Topic(&'static str, i32),
    Crash,
    FailNext,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0..MEMBERS).prop_map(Step::Beat),
        1 => (0..MEMBERS).prop_map(Step::Leave),
        1 => (0..MEMBERS).prop_map(Step::Forget),
        3 => prop_oneof![Just(500), Just(3_000), Just(21_000), Just(46_000)].prop_map(Step::Tick),
        2 => prop_oneof![
            Just(Step::Topic("lines", 3)),
            Just(Step::Topic("lines", 5)),
            Just(Step::Topic("names", 4)),
            Just(Step::Topic("by-word", 4)),
            Just(Step::Topic("counted", 4)),
        ],
        1 => Just(Step::Crash),
        1 => Just(Step::FailNext),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn tasks_are_active_once_and_the_group_comes_to_rest(steps in steps(), standbys in 0..3) {
        let mut world = World::new(standbys);
        for step in steps {
            match step {
                Step::Beat(at) => world.beat(at),
                Step::Leave(at) => world.leave(at),
                Step::Forget(at) => world.clients[at] = Client::default(),
                Step::Tick(ms) => world.tick(ms),
                Step::Topic(name, partitions) => world.set_topic(name, partitions),
                Step::Crash => world.crash(),
                Step::FailNext => world.fail_next = true,
            }
            world.check();
        }
        world.fail_next = false;
        for (name, partitions) in [("lines", 5), ("names", 4), ("by-word", 4), ("counted", 4)] {
            world.set_topic(name, partitions);
        }
        for _ in 0..12 {
            for at in 0..MEMBERS {
                world.beat(at);
            }
            world.tick(3_000);
        }
        let group = world.described();
        prop_assert_eq!(group.group_state.as_str(), "Stable");
        let mut tasks = 0;
        for member in &group.members {
            prop_assert_eq!(&member.assignment, &member.target_assignment);
            tasks += member.assignment.active_tasks.iter().map(|t| t.partitions.len()).sum::<usize>();
        }
        prop_assert_eq!((group.members.len(), tasks), (MEMBERS, 5 + 4));
    }
}
