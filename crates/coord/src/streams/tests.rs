//! A log of the JVM, and the life of a group, heartbeat by heartbeat.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_wire::batch::{RecordIter, batches};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::streams_group_heartbeat_request as request;
use taccola_wire::messages::streams_group_heartbeat_response as response;
use taccola_wire::messages::{ListGroupsRequest, StreamsGroupHeartbeatRequest};

use super::group::Member;
use super::records::{current_value, target_of, target_value};
use super::*;
use crate::cluster_image::{ClusterImage, TopicInfo};
use crate::coordinator_shard::CoordinatorShard;
use crate::effects::{Effects, Reply, RequestContext, RequestToken, Response, TimerKey, TimerOp};
use crate::group::{AnyGroup, CommitScope, Committer};
use crate::modern::topics::TopicHashes;
use crate::replay::split_prefix;
use crate::{CoordinatorRecord, GroupConfig, GroupShard};

/// The partition as Kafka 4.3.1 wrote it: an application with a repartition topic and a store, whose first instance was
/// followed by a second, that got standby tasks, whose instances died, and whose group was deleted.
const SEGMENT: &[u8] = include_bytes!("../../testdata/jvm_4_3_1.streams_groups.log");

#[derive(Clone, Debug, Default)]
struct Cluster(BTreeMap<String, (Uuid, i32)>);

impl Cluster {
    fn with(mut self, name: &str, partitions: i32) -> Self {
        let id = Uuid::from_u128(0x5000 + u128::try_from(self.0.len()).unwrap());
        self.0.insert(name.to_owned(), (id, partitions));
        self
    }
}

impl ClusterImage for Cluster {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.0.get(name).map(|(id, partitions)| TopicInfo { name: name.into(), id: *id, partitions: *partitions })
    }

    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.topics().find(|topic| topic.id == id)
    }

    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(self.0.keys().filter_map(|name| self.topic_by_name(name)))
    }

    fn racks(&self, _topic_id: Uuid, _partition: i32) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn feature_level(&self, _feature: &str) -> i16 {
        1
    }

    fn group_config(&self, _group_id: &str) -> Option<Arc<ConfigMap>> {
        None
    }

    fn version(&self) -> i64 {
        0
    }
}

fn shard(cluster: &Cluster) -> GroupShard {
    GroupShard::new(GroupConfig::default(), Arc::new(cluster.clone()))
}

/// The record that this crate writes for the state to which a record of the JVM leads.
fn written_again(group: Option<&StreamsGroup>, record: &GroupRecord) -> Body {
    match &record.body {
        Body::TargetMember(id, Some(value)) => Body::TargetMember(id.clone(), Some(target_value(&target_of(value)))),
        Body::Current(id, Some(_)) => {
            let member: &Member = &group.unwrap().members[id];
            Body::Current(id.clone(), Some(current_value(member)))
        }
        other => other.clone(),
    }
}

#[test]
fn a_log_of_the_jvm_loads_and_is_written_again_to_the_byte() {
    let mut shard = shard(&Cluster::default());
    let (mut written, mut hashes, mut states) = (BTreeMap::new(), Vec::new(), Vec::new());
    for batch in batches(SEGMENT) {
        let batch = Bytes::copy_from_slice(batch.unwrap().bytes);
        for record in RecordIter::new(&batch).unwrap() {
            let record = record.unwrap();
            let (key, value) = (record.key.unwrap(), record.value);
            shard.replay(record.offset, -1, &key, value.as_ref()).unwrap();
            let (key_type, body) = split_prefix(&key).unwrap();
            let Some(typed) = decode(key_type, body, value.as_ref()).unwrap() else { continue };
            if let Body::Metadata(Some(value)) = &typed.body {
                hashes.push(value.metadata_hash);
            }
            let group = shard.streams.groups.get("words");
            states.extend(group.map(AnyGroup::state_name));
            let again = GroupRecord { body: written_again(group, &typed), ..typed };
            let encoded = again.encode().unwrap();
            assert_eq!((encoded.key, encoded.value), (key, value), "{again:?}");
            *written.entry(key_type).or_insert(0) += 1;
        }
    }
    assert_eq!(
        written.keys().copied().collect::<Vec<_>>(),
        (KEY_TYPE_FIRST..=KEY_TYPE_LAST).filter(|t| *t != 18).collect::<Vec<_>>()
    );
    states.dedup();
    assert!(states.ends_with(&["Empty"]) && states.contains(&"Stable") && states.contains(&"NotReady"), "{states:?}");
    assert!(shard.streams.groups.is_empty(), "it was deleted");
    let topics = [
        ("lines", "PdmPt3VxSSCjmEJMARe5Aw"),
        ("words-by-word-repartition", "fuk7-22wTKKzGmURKFYIyg"),
        ("words-counted-changelog", "4NxbMwC3STaLuYSgCKzOag"),
    ];
    let cluster = Cluster(topics.iter().map(|(name, id)| ((*name).to_owned(), (id.parse().unwrap(), 4))).collect());
    let names: Vec<Arc<str>> = topics.iter().map(|(name, _)| Arc::from(*name)).collect();
    let hash = TopicHashes::default().group_hash(&cluster, &names);
    assert_eq!(hashes.last(), Some(&hash), "what Kafka made of these topics");
}

/// One shard with everything committed at once, and a trace of what it said.
struct World {
    now_ms: i64,
    shard: GroupShard,
    timers: BTreeMap<TimerKey, i64>,
    log: Vec<CoordinatorRecord>,
    released: Vec<Response>,
}

fn info(name: &str) -> request::TopicInfo {
    request::TopicInfo { name: name.to_owned(), ..Default::default() }
}

fn topology(epoch: i32) -> request::Topology {
    let first = request::Subtopology {
        subtopology_id: "0".to_owned(),
        source_topics: vec!["lines".to_owned()],
        repartition_sink_topics: vec!["by-word".to_owned()],
        ..Default::default()
    };
    let second = request::Subtopology {
        subtopology_id: "1".to_owned(),
        repartition_source_topics: vec![info("by-word")],
        state_changelog_topics: vec![info("counted")],
        ..Default::default()
    };
    request::Topology { epoch, subtopologies: vec![first, second] }
}

fn join(member: &str, process: &str) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: "app".to_owned(),
        member_id: member.to_owned(),
        member_epoch: 0,
        rebalance_timeout_ms: 60_000,
        topology: Some(topology(0)),
        process_id: Some(process.to_owned()),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        ..Default::default()
    }
}

/// `owned`: `SUBTOPOLOGY:P+P,...`.
fn beat(member: &str, epoch: i32, owned: Option<&str>) -> StreamsGroupHeartbeatRequest {
    let ids = |text: &str| {
        let one = |task: &str| {
            let (subtopology, partitions) = task.split_once(':').unwrap();
            request::TaskIds {
                subtopology_id: subtopology.to_owned(),
                partitions: partitions.split('+').map(|p| p.parse().unwrap()).collect(),
            }
        };
        text.split(',').filter(|task| !task.is_empty()).map(one).collect::<Vec<_>>()
    };
    StreamsGroupHeartbeatRequest {
        group_id: "app".to_owned(),
        member_id: member.to_owned(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        active_tasks: owned.map(ids),
        standby_tasks: owned.map(|_| Vec::new()),
        warmup_tasks: owned.map(|_| Vec::new()),
        ..Default::default()
    }
}

impl World {
    fn new(cluster: &Cluster) -> Self {
        Self {
            now_ms: 1_000_000,
            shard: shard(cluster),
            timers: BTreeMap::new(),
            log: Vec::new(),
            released: Vec::new(),
        }
    }

    fn run<R>(&mut self, effects: Effects<R>) -> Option<R> {
        let Effects { records, append, response, timers, .. } = effects;
        self.arm(timers);
        let now = match response {
            Reply::Now(now) => Some(now),
            Reply::Parked => None,
        };
        let Some(append) = append else { return now };
        let base = i64::try_from(self.log.len()).unwrap();
        self.log.extend(records);
        self.shard.appended(self.now_ms, append, base);
        let committed = self.shard.committed(self.now_ms, append, base);
        self.arm(committed.timers);
        self.released = committed.released.into_iter().map(|r| r.response).collect();
        now
    }

    fn arm(&mut self, timers: Vec<TimerOp>) {
        for op in timers {
            match op {
                TimerOp::Set { key, deadline_ms } => self.timers.insert(key, deadline_ms),
                TimerOp::Cancel { key } => self.timers.remove(&key),
            };
        }
    }

    fn send(&mut self, request: &StreamsGroupHeartbeatRequest) -> StreamsHeartbeat {
        let ctx = RequestContext {
            token: RequestToken(1),
            api_version: 0,
            client_id: "c",
            client_host: "/127.0.0.1",
            fresh_id: [1; 16],
        };
        let effects = self.shard.handle_streams_group_heartbeat(self.now_ms, &ctx, request);
        match self.run(effects) {
            Some(reply) => reply,
            None => match self.released.pop() {
                Some(Response::Streams(reply)) => *reply,
                other => panic!("{other:?}"),
            },
        }
    }

    /// The reply in one line.
    fn say(&mut self, request: &StreamsGroupHeartbeatRequest) -> String {
        let StreamsHeartbeat { response, create } = self.send(request);
        let error = ErrorCode::from_code(response.error_code);
        if error != ErrorCode::None {
            return format!("{error:?}");
        }
        let mut line = format!("epoch {}", response.member_epoch);
        if let Some(tasks) = &response.active_tasks {
            write!(line, ", {}", shown(tasks)).unwrap();
        }
        for status in response.status.iter().flatten() {
            write!(line, ", status {}", status.status_code).unwrap();
        }
        for topic in create {
            write!(line, ", create {} {}", topic.name, topic.num_partitions).unwrap();
        }
        write!(line, "; {}", self.shard.streams.groups["app"].state_name()).unwrap();
        line
    }

    fn tick(&mut self, ms: i64) {
        let until = self.now_ms + ms;
        loop {
            let next = self.timers.iter().min_by_key(|(_, at)| **at).map(|(key, at)| (key.clone(), *at));
            let Some((key, at)) = next.filter(|(_, at)| *at <= until) else { break };
            self.timers.remove(&key);
            self.now_ms = at;
            let effects = self.shard.on_timer(self.now_ms, &key);
            self.run(effects);
        }
        self.now_ms = until;
    }

    fn set(&mut self, cluster: &Cluster) {
        let image: Arc<dyn ClusterImage> = Arc::new(cluster.clone());
        let changes =
            TopicChanges { changed: cluster.0.keys().map(|n| n.as_str().into()).collect(), ..Default::default() };
        let effects = self.shard.on_new_image(self.now_ms, &image, &changes);
        self.run(effects);
    }

    fn members(&self) -> Vec<String> {
        self.shard.streams.groups["app"].members.keys().map(ToString::to_string).collect()
    }
}

fn shown(tasks: &[response::TaskIds]) -> String {
    let one = |t: &response::TaskIds| {
        let partitions: Vec<String> = t.partitions.iter().map(ToString::to_string).collect();
        format!("{}:{}", t.subtopology_id, partitions.join("+"))
    };
    format!("[{}]", tasks.iter().map(one).collect::<Vec<_>>().join(","))
}

fn complete() -> Cluster {
    Cluster::default().with("lines", 2).with("by-word", 2).with("counted", 2)
}

/// A world with one stable member, `a`.
fn with_one_member() -> World {
    let mut world = World::new(&complete());
    world.send(&join("a", "p1"));
    world.tick(3_000);
    world.send(&beat("a", 1, Some("")));
    world
}

#[test]
fn topics_come_one_by_one_and_then_tasks() {
    let mut world = World::new(&Cluster::default());
    assert_eq!(world.say(&join("a", "p1")), "epoch 1, [], status 5, status 1; NotReady");
    world.tick(3_000);
    let cluster = Cluster::default().with("lines", 2);
    world.set(&cluster);
    let create = "create by-word 2, create counted 2";
    assert_eq!(world.say(&beat("a", 1, Some(""))), format!("epoch 2, status 5, status 3, {create}; NotReady"));
    world.set(&cluster.clone().with("by-word", 2).with("counted", 3));
    assert_eq!(world.say(&beat("a", 2, None)), "epoch 2, status 5, status 2; NotReady", "counted is too wide");
    world.set(&cluster.with("by-word", 2).with("counted", 2));
    world.tick(1_000);
    assert_eq!(world.say(&beat("a", 2, None)), "epoch 5, [0:0+1,1:0+1]; Stable");
    assert_eq!(world.say(&beat("a", 5, Some("0:0+1,1:0+1"))), "epoch 5; Stable");
}

#[test]
fn a_second_member_gets_what_the_first_gives_up() {
    let mut world = with_one_member();
    world.tick(1_000);
    assert_eq!(world.say(&join("b", "p2")), "epoch 3, []; Reconciling", "all tasks are still a's");
    assert_eq!(world.say(&beat("a", 2, Some("0:0+1,1:0+1"))), "epoch 2, [0:0,1:0]; Reconciling");
    assert_eq!(world.say(&beat("b", 3, None)), "epoch 3; Reconciling");
    assert_eq!(world.say(&beat("a", 2, Some("0:0+1,1:0"))), "epoch 2; Reconciling", "it still has one of them");
    assert_eq!(world.say(&beat("a", 2, Some("0:0,1:0"))), "epoch 3; Reconciling");
    assert_eq!(world.say(&beat("b", 3, Some(""))), "epoch 3, [0:1,1:1]; Stable");
    let leave = StreamsGroupHeartbeatRequest { member_epoch: -1, ..beat("b", 0, None) };
    assert_eq!(world.say(&leave), "epoch -1; Assigning");
    world.tick(1_000);
    assert_eq!(world.say(&beat("a", 3, None)), "epoch 4, [0:0+1,1:0+1]; Stable");
}

#[test]
fn a_member_that_does_not_give_up_or_is_silent_is_removed() {
    let mut world = with_one_member();
    world.tick(1_000);
    world.send(&join("b", "p2"));
    world.send(&beat("a", 2, Some("0:0+1,1:0+1")));
    for _ in 0..4 {
        world.tick(16_000);
        world.send(&beat("a", 2, None));
        world.send(&beat("b", 3, None));
    }
    assert_eq!(world.members(), ["b"], "a had a minute");
    assert_eq!(world.say(&beat("a", 2, None)), "UnknownMemberId");
    world.tick(45_000);
    assert_eq!(world.members(), [] as [&str; 0], "b was silent");
    assert_eq!(world.shard.streams.groups["app"].state_name(), "Empty");
}

#[test]
fn epochs_fence() {
    let mut world = with_one_member();
    assert_eq!(world.say(&beat("a", 3, None)), "FencedMemberEpoch", "from the future");
    assert_eq!(world.say(&beat("a", 1, None)), "FencedMemberEpoch", "an old one, without its tasks");
    assert_eq!(world.say(&beat("a", 1, Some("0:0"))), "epoch 2; Stable", "a lost reply");
    assert_eq!(world.say(&beat("a", 1, Some("0:2"))), "FencedMemberEpoch", "a task that is not its");
    assert_eq!(world.say(&beat("x", 1, None)), "UnknownMemberId");
    assert_eq!(world.say(&beat("a", 2, Some("0:2"))), "InvalidRequest", "a task that does not exist");
    let other = StreamsGroupHeartbeatRequest { group_id: "other".to_owned(), ..beat("a", 1, None) };
    assert_eq!(world.say(&other), "GroupIdNotFound");
}

#[test]
fn topologies_must_be_the_same_and_may_be_old() {
    let mut world = with_one_member();
    let mut newer = join("b", "p2");
    newer.topology = Some(topology(1));
    assert_eq!(world.say(&newer), "InvalidRequest");
    let mut world = World::new(&complete());
    world.send(&newer);
    assert_eq!(world.say(&join("a", "p1")), "epoch 1, [], status 0, status 5; Assigning");
}

#[test]
fn what_kafka_does_not_support_is_refused() {
    let mut world = World::new(&complete());
    let cases: [fn(&mut StreamsGroupHeartbeatRequest); 6] = [
        |r| r.instance_id = Some("i".to_owned()),
        |r| r.task_offsets = Some(Vec::new()),
        |r| r.topology.as_mut().unwrap().subtopologies[0].source_topic_regex = vec!["a.*".to_owned()],
        |r| r.topology = None,
        |r| r.rebalance_timeout_ms = -1,
        |r| r.standby_tasks = None,
    ];
    for change in cases {
        let mut request = join("a", "p1");
        change(&mut request);
        assert_eq!(world.say(&request), "InvalidRequest", "{request:?}");
    }
    let mut fixed = join("a", "p1");
    fixed.topology.as_mut().unwrap().subtopologies[1].state_changelog_topics[0].partitions = 3;
    assert_eq!(world.say(&fixed), "StreamsInvalidTopology");
    let mut circle = join("a", "p1");
    circle.topology.as_mut().unwrap().subtopologies[0].repartition_sink_topics.clear();
    assert_eq!(world.say(&circle), "StreamsInvalidTopology");
    assert!(world.log.is_empty() && world.shard.streams.groups.is_empty());
}

#[test]
fn a_shutdown_reaches_everybody_until_all_are_gone() {
    let mut world = with_one_member();
    let mut fatal = beat("a", 2, None);
    fatal.shutdown_application = true;
    assert_eq!(world.say(&fatal), "epoch 2, status 4; Stable");
    assert_eq!(world.say(&join("b", "p2")), "epoch 2, [], status 5, status 4; Assigning");
    for member in ["a", "b"] {
        let leave = StreamsGroupHeartbeatRequest { member_epoch: -1, ..beat(member, 0, None) };
        world.say(&leave);
    }
    assert_eq!(world.say(&join("c", "p2")), "epoch 2, [], status 5; Assigning");
}

#[test]
fn a_shutdown_that_comes_with_the_group_itself_is_not_forgotten() {
    let mut world = World::new(&complete());
    let fatal = StreamsGroupHeartbeatRequest { shutdown_application: true, ..join("a", "p1") };
    assert!(world.say(&fatal).contains("status 4"));
    assert!(world.say(&join("b", "p2")).contains("status 4"));
}

#[test]
fn a_classic_member_takes_the_place_of_an_empty_group() {
    let mut world = with_one_member();
    let protocol = taccola_wire::messages::join_group_request::JoinGroupRequestProtocol {
        name: "range".to_owned(),
        ..Default::default()
    };
    let classic = taccola_wire::messages::JoinGroupRequest {
        group_id: "app".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol],
        ..Default::default()
    };
    let ctx = RequestContext {
        token: RequestToken(9),
        api_version: 3,
        client_id: "c",
        client_host: "/127.0.0.1",
        fresh_id: [2; 16],
    };
    let effects = world.shard.handle_join(world.now_ms, &ctx, classic.clone());
    let refused = world.run(effects).unwrap();
    assert_eq!(refused.error_code, ErrorCode::InconsistentGroupProtocol.code());
    world.send(&StreamsGroupHeartbeatRequest { member_epoch: -1, ..beat("a", 0, None) });
    let effects = world.shard.handle_join(world.now_ms, &ctx, classic);
    assert!(world.run(effects).is_none(), "the rebalance has begun");
    let listed = world.shard.list_groups(&ListGroupsRequest::default());
    let kinds: Vec<&str> = listed.iter().map(|g| g.group_type.as_str()).collect();
    assert_eq!(kinds, ["classic"]);
    let mut again = shard(&complete());
    for (offset, record) in (0..).zip(&world.log) {
        again.replay(offset, -1, &record.key, record.value.as_ref()).unwrap();
    }
    assert_eq!(again.list_groups(&ListGroupsRequest::default())[0].group_type, "classic");
    let mut back = join("a", "p1");
    back.member_epoch = 0;
    assert_eq!(world.say(&back), "GroupIdNotFound");
}

#[test]
fn endpoints_are_told_when_they_change() {
    let mut world = World::new(&complete());
    let mut first = join("a", "p1");
    first.user_endpoint = Some(request::Endpoint { host: "h".to_owned(), port: 80 });
    world.send(&first);
    world.tick(3_000);
    let reply = world.send(&beat("a", 1, Some(""))).response;
    let endpoints = reply.partitions_by_user_endpoint.unwrap();
    assert_eq!((endpoints[0].user_endpoint.host.as_str(), endpoints[0].user_endpoint.port), ("h", 80));
    let topics: Vec<_> =
        endpoints[0].active_partitions.iter().map(|t| (t.topic.as_str(), t.partitions.len())).collect();
    assert_eq!(topics, [("lines", 2), ("by-word", 2)]);
    let known = StreamsGroupHeartbeatRequest {
        endpoint_information_epoch: reply.endpoint_information_epoch,
        ..beat("a", 2, None)
    };
    assert_eq!(world.send(&known).response.partitions_by_user_endpoint, None);
}

#[test]
fn commits_carry_the_epoch_at_which_the_task_came() {
    let world = with_one_member();
    let group = &world.shard.streams.groups["app"];
    let by = |epoch: i32| {
        let committer = Committer { member_id: "a", instance_id: None, epoch, transactional: false, api_version: 9 };
        group.validate_offset_commit(&committer)
    };
    assert_eq!(by(2), Ok(CommitScope::Everything));
    assert_eq!(by(3), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(by(1), Ok(CommitScope::ByAssignmentEpoch));
    assert_eq!(by(-1), Ok(CommitScope::ByAssignmentEpoch), "not without a member");
    assert_eq!(group.assignment_epoch("a", "lines", Uuid::ZERO, 1), Some(2));
    assert_eq!(group.assignment_epoch("a", "counted", Uuid::ZERO, 1), None, "not read");
    assert!(group.is_subscribed_to("by-word") && !group.is_subscribed_to("counted"));
}

#[test]
fn an_empty_group_can_be_deleted_and_one_with_members_cannot() {
    let mut world = with_one_member();
    let listed = world.shard.list_groups(&ListGroupsRequest::default());
    assert_eq!((listed[0].group_type.as_str(), listed[0].protocol_type.as_str()), ("streams", "streams"));
    let ids = ["app".to_owned()];
    let ctx =
        RequestContext { token: RequestToken(1), api_version: 2, client_id: "", client_host: "", fresh_id: [0; 16] };
    let effects = world.shard.handle_delete_groups(world.now_ms, &ctx, &ids);
    assert_eq!(world.run(effects).unwrap()[0].error_code, ErrorCode::NonEmptyGroup.code());
    world.send(&StreamsGroupHeartbeatRequest { member_epoch: -1, ..beat("a", 0, None) });
    let effects = world.shard.handle_delete_groups(world.now_ms, &ctx, &ids);
    world.run(effects);
    assert!(world.shard.streams.groups.is_empty() && world.shard.streams.soft.is_empty());
    let mut again = shard(&complete());
    for (offset, record) in (0..).zip(&world.log) {
        again.replay(offset, -1, &record.key, record.value.as_ref()).unwrap();
    }
    assert!(again.streams.groups.is_empty(), "nothing is left in the log");
}
