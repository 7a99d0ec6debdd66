//! A log of the JVM, and the life of a group.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_wire::batch::{RecordIter, batches};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::*;
use crate::cluster_image::{ClusterImage, TopicChanges, TopicInfo};
use crate::coordinator_shard::CoordinatorShard;
use crate::effects::{AppendId, CoordinatorRecord, Effects, GroupAction, Reply, Response, TimerKey};
use crate::group::AnyGroup;
use crate::modern::topics::TopicHashes;
use crate::replay::split_prefix;
use crate::{GroupConfig, GroupShard, RequestContext, RequestToken};

/// The partition as Kafka 4.3.1 wrote it: a share group whose one member came and went, whose offsets were reset and
/// deleted, and which was deleted itself; a second one, left empty.
const SEGMENT: &[u8] = include_bytes!("../../testdata/jvm_4_3_1.share_groups.log");

#[test]
fn a_log_of_the_jvm_loads_and_is_written_again_to_the_byte() {
    let mut shard = shard();
    let mut written = 0;
    for batch in batches(SEGMENT) {
        let batch = Bytes::copy_from_slice(batch.unwrap().bytes);
        for record in RecordIter::new(&batch).unwrap() {
            let record = record.unwrap();
            let (key, value) = (record.key.unwrap(), record.value);
            shard.replay(record.offset, -1, &key, value.as_ref()).unwrap();
            let (key_type, body) = split_prefix(&key).unwrap();
            let Some(typed) = decode(key_type, body, value.as_ref()).unwrap() else { continue };
            let encoded = typed.encode().unwrap();
            assert_eq!((encoded.key, encoded.value), (key, value), "{typed:?}");
            written += 1;
        }
    }
    assert!(written > 40, "{written}");
    let (hash, id) = (7_013_991_442_500_287_298, "Y76l7MxJSPqdUxD_5ZUtUg".parse().unwrap());
    let image = Cluster { name: "t1", id, partitions: 2 };
    assert_eq!(TopicHashes::default().group_hash(&image, [&Arc::from("t1")]), hash, "as in the group's records");
    assert_eq!(shard.share.keys().map(|id| &**id).collect::<Vec<_>>(), ["g2"]);
    let group = &shard.share["g2"];
    assert_eq!((group.state_name(), group.is_empty()), ("Empty", true));
    let partitions = group.state_partitions.as_ref().unwrap();
    assert_eq!(partitions.initialized.values().next().unwrap().partitions, BTreeSet::from([0, 1]));
}

const TOPIC: Uuid = Uuid::from_u128(42);

#[derive(Debug)]
struct Cluster {
    name: &'static str,
    id: Uuid,
    partitions: i32,
}

fn cluster(partitions: i32) -> Cluster {
    Cluster { name: "t", id: TOPIC, partitions }
}

impl ClusterImage for Cluster {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.topics().find(|topic| &*topic.name == name)
    }
    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.topics().find(|topic| topic.id == id)
    }
    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(std::iter::once(TopicInfo { name: self.name.into(), id: self.id, partitions: self.partitions }))
    }
    fn racks(&self, _topic_id: Uuid, _partition: i32) -> Vec<Arc<str>> {
        Vec::new()
    }
    fn feature_level(&self, _feature: &str) -> i16 {
        1
    }
    fn group_config(&self, group_id: &str) -> Option<Arc<ConfigMap>> {
        let set = [("share.session.timeout.ms", "50000"), ("share.heartbeat.interval.ms", "9")];
        let map = || set.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        (group_id == "configured").then(|| Arc::new(map()))
    }
    fn version(&self) -> i64 {
        i64::from(self.partitions)
    }
}

fn shard() -> GroupShard {
    GroupShard::new(GroupConfig::default(), Arc::new(cluster(4)))
}

/// A shard, and the log that it writes.
struct World {
    shard: GroupShard,
    log: Vec<CoordinatorRecord>,
    now_ms: i64,
    tokens: u64,
    timers: Vec<(TimerKey, i64)>,
}

impl World {
    fn new() -> Self {
        Self { shard: shard(), log: Vec::new(), now_ms: 1_000_000, tokens: 0, timers: Vec::new() }
    }

    fn step<R: Clone>(&mut self, effects: Effects<R>) -> (Option<R>, Vec<Response>) {
        let Effects { records, append, response, released, timers, .. }: Effects<R, Response, TimerKey, GroupAction> =
            effects;
        for timer in timers {
            if let crate::TimerOp::Set { key, deadline_ms } = timer {
                self.timers.retain(|(other, _)| *other != key);
                self.timers.push((key, deadline_ms));
            }
        }
        let mut out: Vec<Response> = released.into_iter().map(|r| r.response).collect();
        if let Some(append) = append {
            self.log.extend(records);
            self.shard.appended(self.now_ms, append, 0);
            let committed = CoordinatorShard::committed(&mut self.shard, self.now_ms, append, 0);
            out.extend(self.step(committed).1);
        }
        let now = match response {
            Reply::Now(response) => Some(response),
            Reply::Parked => None,
        };
        (now, out)
    }

    fn share(
        &mut self,
        handle: impl FnOnce(&mut GroupShard, i64, &RequestContext<'_>) -> Effects<ShareReply>,
    ) -> ShareReply {
        self.tokens += 1;
        let ctx = context(self.tokens);
        let effects = handle(&mut self.shard, self.now_ms, &ctx);
        let (now, released) = self.step(effects);
        now.unwrap_or_else(|| match released.into_iter().next() {
            Some(Response::Share(reply)) => reply,
            other => panic!("{other:?}"),
        })
    }

    fn beat(&mut self, group: &str, member: &str, epoch: i32, topics: Option<&[&str]>) -> HeartbeatReply {
        self.tokens += 1;
        let request = ShareGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: member.to_owned(),
            member_epoch: epoch,
            rack_id: None,
            subscribed_topic_names: topics.map(|topics| topics.iter().map(ToString::to_string).collect()),
        };
        let effects = self.shard.handle_share_group_heartbeat(self.now_ms, &context(self.tokens), &request);
        let (now, released) = self.step(effects);
        now.unwrap_or_else(|| match released.into_iter().next() {
            Some(Response::Share(ShareReply::Heartbeat(reply))) => *reply,
            other => panic!("{other:?}"),
        })
    }

    /// What the broker does after a heartbeat that found new partitions.
    fn initialize(&mut self, group: &str, reply: &HeartbeatReply) {
        let change = reply.initialize.as_ref().expect("something to set up");
        let partitions: Assignment =
            change.partitions.iter().map(|(id, p)| (*id, p.keys().copied().collect())).collect();
        let done = self.share(|s, now, ctx| s.handle_share_state_initialized(now, ctx, group, &partitions));
        assert_eq!(done, ShareReply::Done(Ok(())));
    }

    /// Time passes; timers fire.
    fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        let (due, later) = std::mem::take(&mut self.timers).into_iter().partition(|(_, at)| *at <= self.now_ms);
        self.timers = later;
        for (key, _) in due {
            let effects = CoordinatorShard::on_timer(&mut self.shard, self.now_ms, &key);
            self.step(effects);
        }
    }

    fn crash(&mut self) {
        let mut shard = shard();
        for record in &self.log {
            shard.replay(0, -1, &record.key, record.value.as_ref()).unwrap();
        }
        self.shard = shard;
        self.timers.clear();
        let effects = CoordinatorShard::loaded(&mut self.shard, self.now_ms);
        self.step(effects);
    }

    /// What the log tells, without what is in memory alone.
    fn story(shard: &GroupShard) -> String {
        let mut story = String::new();
        for (id, group) in &shard.share {
            let partitions = group.state_partitions.as_ref().map(|p| {
                let names = |t: &BTreeMap<Uuid, InitTopic>| -> Vec<_> {
                    t.values().map(|t| (t.name.clone(), t.partitions.clone())).collect()
                };
                (names(&p.initializing), names(&p.initialized), p.deleting.clone())
            });
            story += &format!(
                "{id} {} {} {:?} {:?} {:?} {partitions:?}\n",
                group.epoch, group.metadata_hash, group.members, group.target_metadata, group.target
            );
        }
        story
    }

    fn check(&self) {
        let mut loaded = shard();
        for record in &self.log {
            loaded.replay(0, -1, &record.key, record.value.as_ref()).unwrap();
        }
        assert_eq!(Self::story(&loaded), Self::story(&self.shard), "the log tells the same");
    }
}

fn context(token: u64) -> RequestContext<'static> {
    RequestContext {
        token: RequestToken(token),
        api_version: 1,
        client_id: "c",
        client_host: "/127.0.0.1",
        fresh_id: [0; 16],
    }
}

fn partitions(response: &ShareGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    Some(assignment.topic_partitions.iter().flat_map(|t| t.partitions.clone()).collect())
}

fn error(reply: &HeartbeatReply) -> i16 {
    reply.response.error_code
}

#[test]
fn a_group_lives() {
    let mut world = World::new();
    let first = world.beat("g", "a", 0, Some(&["t"]));
    // As Kafka: a group begins at epoch 1, and nothing is assigned before its state is set up.
    assert_eq!((first.response.member_epoch, partitions(&first.response)), (2, Some(vec![])));
    assert_eq!(first.initialize.as_ref().unwrap().state_epoch, 2);
    world.check();
    let again = world.beat("g", "a", 2, None);
    assert_eq!((again.response.assignment, again.initialize), (None, None), "nothing new, and being set up already");
    world.initialize("g", &first);
    world.check();
    let soon = world.beat("g", "a", 2, None);
    assert_eq!((soon.response.member_epoch, soon.response.assignment), (2, None), "not before the assignment interval");
    world.wait(1_000);
    let assigned = world.beat("g", "a", 2, None);
    assert_eq!((assigned.response.member_epoch, partitions(&assigned.response)), (3, Some(vec![0, 1, 2, 3])));
    world.wait(1_000);
    let joined = world.beat("g", "b", 0, Some(&["t"]));
    assert_eq!(partitions(&joined.response).unwrap().len(), 2);
    let moved = world.beat("g", "a", 3, None);
    assert_eq!((moved.response.member_epoch, partitions(&moved.response).unwrap().len()), (4, 2));
    // A reply that got lost: the epoch before is as good.
    assert_eq!(error(&world.beat("g", "a", 3, None)), 0);
    assert_eq!(error(&world.beat("g", "a", 2, None)), ErrorCode::FencedMemberEpoch.code());
    assert_eq!(error(&world.beat("g", "a", 9, None)), ErrorCode::FencedMemberEpoch.code());
    assert_eq!(error(&world.beat("g", "nobody", 3, None)), ErrorCode::UnknownMemberId.code());
    assert_eq!(error(&world.beat("nothing", "a", 3, None)), ErrorCode::GroupIdNotFound.code());
    world.check();
    world.crash();
    world.check();
    let left = world.beat("g", "b", -1, None);
    assert_eq!((error(&left), left.response.member_epoch), (0, -1));
    world.check();
    assert_eq!(error(&world.beat("g", "b", -1, None)), ErrorCode::UnknownMemberId.code());
    world.wait(1_000);
    let back = world.beat("g", "a", 4, None);
    assert_eq!(partitions(&back.response), Some(vec![0, 1, 2, 3]));
    // No sign of life: the session ends.
    world.wait(45_001);
    assert!(world.shard.share["g"].members.is_empty());
    assert_eq!(error(&world.beat("g", "a", 5, None)), ErrorCode::UnknownMemberId.code());
    world.check();
}

#[test]
fn new_partitions_are_set_up_and_assigned() {
    let mut world = World::new();
    let first = world.beat("g", "a", 0, Some(&["t"]));
    world.initialize("g", &first);
    world.wait(1_000);
    assert_eq!(world.beat("g", "a", 2, None).response.member_epoch, 3);
    let image: Arc<dyn ClusterImage> = Arc::new(cluster(6));
    let changes = TopicChanges { changed: vec!["t".into()], ..Default::default() };
    let effects = CoordinatorShard::on_new_image(&mut world.shard, world.now_ms, &image, &changes);
    world.step(effects);
    world.wait(1_000);
    let grown = world.beat("g", "a", 3, None);
    assert_eq!(grown.response.member_epoch, 4, "the topic is another");
    let change = grown.initialize.clone().unwrap();
    assert_eq!(change.partitions[&TOPIC].keys().copied().collect::<Vec<_>>(), [4, 5]);
    // It cannot be set up now: the next heartbeat tries again.
    let partitions_of = |reply: &HeartbeatReply| -> Assignment {
        let change = reply.initialize.as_ref().unwrap();
        change.partitions.iter().map(|(id, p)| (*id, p.keys().copied().collect())).collect()
    };
    let failed = partitions_of(&grown);
    world.share(|s, _, ctx| s.handle_share_state_uninitialized(ctx, "g", &failed));
    let retried = world.beat("g", "a", 4, None);
    assert_eq!(partitions_of(&retried), failed);
    world.initialize("g", &retried);
    world.wait(1_000);
    let assigned = world.beat("g", "a", 4, None);
    assert_eq!(partitions(&assigned.response), Some(vec![0, 1, 2, 3, 4, 5]));
    // One that nobody answers for is tried again when its time is over, or after a restart.
    world.crash();
    assert_eq!(world.shard.share["g"].initialized().unwrap()[&TOPIC].partitions.len(), 6);
}

#[test]
fn offsets_are_altered_and_deleted_while_nobody_is_there() {
    let mut world = World::new();
    let request = |start_offset| taccola_wire::messages::AlterShareGroupOffsetsRequest {
        group_id: "g".to_owned(),
        topics: vec![taccola_wire::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic {
            topic_name: "t".to_owned(),
            partitions: [0, 9]
                .map(|partition_index| {
                    taccola_wire::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequestPartition {
                        partition_index,
                        start_offset,
                    }
                })
                .to_vec(),
        }],
    };
    let reply = world.share(|s, now, ctx| s.handle_alter_share_group_offsets(now, ctx, &request(7)));
    let ShareReply::Offsets(reply) = reply else { panic!("{reply:?}") };
    let change = reply.change.unwrap();
    assert_eq!(change.partitions[&TOPIC], BTreeMap::from([(0, 7)]));
    assert_eq!(reply.topics[0].partitions[&9], Some(ErrorCode::UnknownTopicOrPartition));
    let partitions = Assignment::from([(TOPIC, BTreeSet::from([0]))]);
    world.share(|s, now, ctx| s.handle_share_state_initialized(now, ctx, "g", &partitions));
    assert_eq!(world.shard.share_initialized_partitions("g"), partitions);
    world.check();
    let names = ["t".to_owned(), "other".to_owned()];
    let reply = world.share(|s, _, ctx| s.handle_delete_share_group_offsets(ctx, "g", &names));
    let ShareReply::Offsets(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.change.unwrap().partitions[&TOPIC].len(), 1);
    assert_eq!(reply.topics[1].error, Some(ErrorCode::UnknownTopicOrPartition));
    world.share(|s, _, ctx| s.handle_share_offsets_deleted(ctx, "g", &BTreeSet::from([TOPIC])));
    assert!(world.shard.share_initialized_partitions("g").is_empty());
    world.check();
    // Not while somebody is a member.
    world.beat("g", "a", 0, Some(&["t"]));
    let refused = ShareReply::Offsets(OffsetsReply::refused(ErrorCode::NonEmptyGroup));
    assert_eq!(world.share(|s, now, ctx| s.handle_alter_share_group_offsets(now, ctx, &request(0))), refused);
    assert_eq!(world.share(|s, _, ctx| s.handle_delete_share_group_offsets(ctx, "g", &names)), refused);
    assert_eq!(
        world.share(|s, _, ctx| s.handle_share_group_forget(ctx, "g")),
        ShareReply::Forget(Err(ErrorCode::NonEmptyGroup))
    );
}

#[test]
fn a_group_is_deleted_after_its_state() {
    let mut world = World::new();
    let first = world.beat("g", "a", 0, Some(&["t"]));
    world.initialize("g", &first);
    world.beat("g", "a", -1, None);
    let planned = world.share(|s, _, ctx| s.handle_share_group_forget(ctx, "g"));
    let ShareReply::Forget(Ok(Some(change))) = planned else { panic!("{planned:?}") };
    assert_eq!(change.partitions[&TOPIC].len(), 4);
    world.check();
    // An attempt that did not get to its end is repeated.
    let planned = world.share(|s, _, ctx| s.handle_share_group_forget(ctx, "g"));
    assert!(matches!(planned, ShareReply::Forget(Ok(Some(_)))), "{planned:?}");
    world.tokens += 1;
    let effects = world.shard.handle_delete_groups(world.now_ms, &context(world.tokens), &["g".to_owned()]);
    world.step(effects);
    assert!(world.shard.share.is_empty());
    world.check();
}

#[test]
fn a_failed_append_changes_nothing() {
    let mut world = World::new();
    world.tokens += 1;
    let request = ShareGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: "a".to_owned(),
        subscribed_topic_names: Some(vec!["t".to_owned()]),
        ..Default::default()
    };
    let effects = world.shard.handle_share_group_heartbeat(world.now_ms, &context(1), &request);
    let append: AppendId = effects.append.unwrap();
    let failed = CoordinatorShard::failed(&mut world.shard, world.now_ms, append, ErrorCode::NotEnoughReplicas);
    let Some(Response::Share(ShareReply::Heartbeat(reply))) = failed.released.into_iter().next().map(|r| r.response)
    else {
        panic!("a reply")
    };
    assert_eq!((error(&reply), reply.initialize), (ErrorCode::CoordinatorNotAvailable.code(), None));
    assert!(world.shard.share.is_empty());
}

#[test]
fn requests_are_checked() {
    let mut world = World::new();
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(error(&world.beat("", "a", 0, Some(&["t"]))), invalid);
    assert_eq!(error(&world.beat("g", "", 0, Some(&["t"]))), invalid);
    assert_eq!(error(&world.beat("g", "a", 0, None)), invalid);
    assert_eq!(error(&world.beat("g", "a", 0, Some(&[]))), invalid);
    assert_eq!(error(&world.beat("g", "a", -2, None)), invalid);
    let long = "x".repeat(40_000);
    assert_eq!(error(&world.beat(&long, "a", 0, Some(&["t"]))), invalid);
    assert!(world.log.is_empty());
    // Its own settings, moved into the broker's bounds.
    let reply = world.beat("configured", "a", 0, Some(&["t"]));
    assert_eq!(reply.response.heartbeat_interval_ms, 5_000);
    assert_eq!(world.timers.last().unwrap().1, world.now_ms + 50_000);
    for member in 0..200 {
        world.beat("full", &format!("m{member}"), 0, Some(&["t"]));
    }
    assert_eq!(error(&world.beat("full", "one more", 0, Some(&["t"]))), ErrorCode::GroupMaxSizeReached.code());
}
