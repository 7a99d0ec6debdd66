//! The share coordinator's shard against a naive model: one delivery state per offset. After every step the log so far is
//! loaded anew, whole and cut off where the shard said that it may be, and tells the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_coord::cluster_image::{ClusterImage, TopicChanges, TopicInfo};
use taccola_coord::share_state::{
    ReadState, SharePartitionKey, ShareState, ShareStateAction, ShareStateConfig, ShareStateError, ShareStateReply,
    ShareStateShard, ShareStateTimer, StateBatch, WriteState,
};
use taccola_coord::{CoordinatorRecord, CoordinatorShard, EffectsOf, Reply, RequestContext, RequestToken};
use taccola_wire::error::ErrorCode;

const TOPIC: Uuid = Uuid::from_u128(0x7469_6e79);
const PARTITIONS: i32 = 3;

/// One topic, which may be gone.
#[derive(Debug)]
struct OneTopic(bool);

impl ClusterImage for OneTopic {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.topics().find(|topic| &*topic.name == name)
    }
    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.topics().find(|topic| topic.id == id)
    }
    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(self.0.then(|| TopicInfo { name: "t".into(), id: TOPIC, partitions: PARTITIONS }).into_iter())
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
        1
    }
}

fn key(partition: i32) -> SharePartitionKey {
    SharePartitionKey { group_id: "g".into(), topic_id: TOPIC, partition }
}

fn config(updates_per_snapshot: u32) -> ShareStateConfig {
    ShareStateConfig { updates_per_snapshot, cold_snapshot_interval_ms: 50, prune_interval_ms: 100 }
}

/// A shard and the log that it writes.
struct World {
    config: ShareStateConfig,
    shard: ShareStateShard,
    /// Records with their offsets; what was cut off is gone.
    log: Vec<(i64, CoordinatorRecord)>,
    next_offset: i64,
    now_ms: i64,
    next_token: u64,
    /// The next append fails.
    failing: bool,
}

impl World {
    fn new(config: ShareStateConfig) -> Self {
        let shard = ShareStateShard::new(config.clone(), Arc::new(OneTopic(true)), 0);
        Self { config, shard, log: Vec::new(), next_offset: 0, now_ms: 1_000, next_token: 0, failing: false }
    }

    fn ask(
        &mut self,
        handle: impl FnOnce(&mut ShareStateShard, i64, &RequestContext<'_>) -> EffectsOf<ShareStateShard, ShareStateReply>,
    ) -> ShareStateReply {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        let ctx = RequestContext { token, api_version: 0, client_id: "", client_host: "", fresh_id: [0; 16] };
        let effects = handle(&mut self.shard, self.now_ms, &ctx);
        let response = effects.response.clone();
        let effects = EffectsOf::<ShareStateShard, ()> {
            records: effects.records,
            batch: effects.batch,
            append: effects.append,
            response: Reply::Now(()),
            released: effects.released,
            timers: effects.timers,
            actions: effects.actions,
        };
        let released = self.run(effects);
        match response {
            Reply::Now(reply) => reply,
            Reply::Parked => released.into_iter().find(|(t, _)| *t == token).expect("answered once committed").1,
        }
    }

    /// Appends and commits what a step writes; answers what that releases.
    fn run(&mut self, effects: EffectsOf<ShareStateShard, ()>) -> Vec<(RequestToken, ShareStateReply)> {
        let mut released: Vec<_> = effects.released.into_iter().map(|r| (r.token, r.response)).collect();
        for action in effects.actions {
            let ShareStateAction::DeleteRecordsBefore(offset) = action;
            self.log.retain(|(at, _)| *at >= offset);
        }
        if let Some(append) = effects.append {
            let after = if std::mem::take(&mut self.failing) {
                self.shard.failed(self.now_ms, append, ErrorCode::NotEnoughReplicas)
            } else {
                let base = self.next_offset;
                for record in effects.records {
                    self.log.push((self.next_offset, record));
                    self.next_offset += 1;
                }
                self.shard.appended(self.now_ms, append, base);
                self.shard.committed(self.now_ms, append, base)
            };
            released.extend(self.run(after));
        }
        released
    }

    /// What the log alone tells.
    fn reloaded(&self) -> ShareStateShard {
        let mut shard = ShareStateShard::new(self.config.clone(), Arc::new(OneTopic(true)), 0);
        for (offset, record) in &self.log {
            shard.replay(*offset, -1, &record.key, record.value.as_ref()).unwrap();
        }
        let _ = shard.loaded(self.now_ms);
        shard
    }

    fn crash(&mut self) {
        self.shard = self.reloaded();
    }
}

#[derive(Clone, Debug)]
enum Op {
    Initialize { partition: i32, start: i64 },
    Write { partition: i32, start: Option<i64>, batches: Vec<StateBatch>, fails: bool },
    Read { partition: i32, leader_epoch: i32 },
    Delete { partition: i32 },
    Wait { ms: i64 },
    Prune,
    ColdSnapshot,
    Crash,
}

fn batch() -> impl Strategy<Value = StateBatch> {
    (0..40_i64, 0..12_i64, 1..5_i16, prop::sample::select(vec![0_i8, 2, 4])).prop_map(|(first, more, count, state)| {
        StateBatch { first_offset: first, last_offset: first + more, delivery_count: count, delivery_state: state }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        1 => (partition.clone(), -1..20_i64).prop_map(|(partition, start)| Op::Initialize { partition, start }),
        8 => (partition.clone(), prop::option::of(0..40_i64), prop::collection::vec(batch(), 0..5), prop::bool::weighted(0.1))
            .prop_map(|(partition, start, batches, fails)| Op::Write { partition, start, batches, fails }),
        2 => (partition.clone(), 0..4_i32).prop_map(|(partition, leader_epoch)| Op::Read { partition, leader_epoch }),
        1 => partition.prop_map(|partition| Op::Delete { partition }),
        1 => (1..80_i64).prop_map(|ms| Op::Wait { ms }),
        1 => Just(Op::Prune),
        1 => Just(Op::ColdSnapshot),
        1 => Just(Op::Crash),
    ]
}

/// What is known of one share partition, the naive way.
#[derive(Clone, Debug, Default)]
struct Naive {
    start: i64,
    states: BTreeMap<i64, (i16, i8)>,
}

impl Naive {
    fn write(&mut self, start: Option<i64>, batches: &[StateBatch]) {
        if let Some(start) = start {
            self.start = start;
        }
        for batch in batches {
            for offset in batch.first_offset..=batch.last_offset {
                let state = (batch.delivery_count, batch.delivery_state);
                let best = self.states.entry(offset).or_insert(state);
                *best = state.max(*best);
            }
        }
        self.states = self.states.split_off(&self.start);
    }
}

fn states(state: &ShareState) -> BTreeMap<i64, (i16, i8)> {
    let mut states = BTreeMap::new();
    let mut last = -1;
    for batch in &state.batches {
        assert!(batch.first_offset > last && batch.last_offset >= batch.first_offset, "{:?}", state.batches);
        last = batch.last_offset;
        for offset in batch.first_offset..=batch.last_offset {
            states.insert(offset, (batch.delivery_count, batch.delivery_state));
        }
    }
    states
}

fn check(world: &World, model: &BTreeMap<i32, Naive>) {
    let reloaded = world.reloaded();
    for partition in 0..PARTITIONS {
        let state = world.shard.state(&key(partition));
        assert_eq!(reloaded.state(&key(partition)), state, "partition {partition}, loaded anew");
        match model.get(&partition) {
            None => assert_eq!(state, None),
            Some(naive) => {
                let state = state.expect("initialized");
                assert_eq!(state.start_offset, naive.start);
                assert_eq!(states(state), naive.states, "partition {partition}");
            }
        }
    }
}

fn play(ops: Vec<Op>, updates_per_snapshot: u32) {
    let mut world = World::new(config(updates_per_snapshot));
    let mut model: BTreeMap<i32, Naive> = BTreeMap::new();
    let mut leader_epochs: BTreeMap<i32, i32> = BTreeMap::new();
    // Their log no longer says who led before: as in Kafka the fence may fall with a crash.
    let mut made_anew: BTreeSet<i32> = BTreeSet::new();
    for op in ops {
        match op {
            Op::Initialize { partition, start } => {
                let reply = world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(partition), 0, start));
                assert_eq!(reply, ShareStateReply::Done(Ok(())));
                if model.insert(partition, Naive { start, states: BTreeMap::new() }).is_some() {
                    made_anew.insert(partition);
                }
            }
            Op::Write { partition, start, batches, fails } => {
                world.failing = fails;
                let write = WriteState {
                    state_epoch: 0,
                    leader_epoch: -1,
                    start_offset: start.unwrap_or(-1),
                    delivery_complete_count: 0,
                    batches: batches.clone(),
                };
                let reply = world.ask(|s, now, ctx| s.handle_write(now, ctx, &key(partition), &write));
                match (model.get_mut(&partition), fails) {
                    (None, _) => {
                        assert!(matches!(reply, ShareStateReply::Done(Err(e)) if e.code == ErrorCode::InvalidRequest))
                    }
                    (Some(_), true) => assert!(
                        matches!(reply, ShareStateReply::Done(Err(e)) if e.code == ErrorCode::CoordinatorNotAvailable)
                    ),
                    (Some(naive), false) => {
                        assert_eq!(reply, ShareStateReply::Done(Ok(())));
                        naive.write(start, &batches);
                    }
                }
                world.failing = false;
            }
            Op::Read { partition, leader_epoch } => {
                let reply = world.ask(|s, now, ctx| s.handle_read(now, ctx, &key(partition), leader_epoch));
                let ShareStateReply::Read(reply) = reply else { panic!("{reply:?}") };
                let seen = leader_epochs.get(&partition).copied().unwrap_or(0);
                match (model.get(&partition), reply) {
                    (None, Err(error)) => assert_eq!(error.code, ErrorCode::InvalidRequest),
                    (Some(_), Err(error)) => {
                        assert_eq!(error.code, ErrorCode::FencedLeaderEpoch);
                        assert!(leader_epoch < seen, "{leader_epoch} {seen}");
                    }
                    (Some(naive), Ok(read)) => {
                        assert!(leader_epoch >= seen || made_anew.contains(&partition), "{leader_epoch} {seen}");
                        assert_eq!(read.start_offset, naive.start);
                        leader_epochs.insert(partition, leader_epoch);
                    }
                    (None, Ok(read)) => panic!("{read:?}"),
                }
            }
            Op::Delete { partition } => {
                let reply = world.ask(|s, _, ctx| s.handle_delete(ctx, &key(partition)));
                assert_eq!(reply, ShareStateReply::Done(Ok(())));
                model.remove(&partition);
                leader_epochs.remove(&partition);
            }
            Op::Wait { ms } => world.now_ms += ms,
            Op::Prune => {
                let effects = world.shard.on_timer(world.now_ms, &ShareStateTimer::Prune);
                world.run(effects);
            }
            Op::ColdSnapshot => {
                let effects = world.shard.on_timer(world.now_ms, &ShareStateTimer::ColdSnapshot);
                world.run(effects);
            }
            Op::Crash => world.crash(),
        }
        check(&world, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_log_tells_what_a_map_of_offsets_tells(ops in prop::collection::vec(op(), 1..60), updates in 0..6_u32) {
        play(ops, updates);
    }
}

fn write_of(state_epoch: i32, leader_epoch: i32) -> WriteState {
    WriteState { state_epoch, leader_epoch, start_offset: -1, delivery_complete_count: -1, batches: Vec::new() }
}

fn code(reply: ShareStateReply) -> ErrorCode {
    let error = |e: ShareStateError| e.code;
    match reply {
        ShareStateReply::Done(r) => r.map_or_else(error, |()| ErrorCode::None),
        ShareStateReply::Read(r) => r.map_or_else(error, |_| ErrorCode::None),
        ShareStateReply::Summary(r) => r.map_or_else(error, |_| ErrorCode::None),
    }
}

#[test]
fn old_epochs_are_fenced() {
    let mut world = World::new(config(500));
    assert_eq!(
        code(world.ask(|s, now, ctx| s.handle_write(now, ctx, &key(0), &write_of(0, 0)))),
        ErrorCode::InvalidRequest
    );
    assert_eq!(code(world.ask(|s, now, ctx| s.handle_read(now, ctx, &key(0), 0))), ErrorCode::InvalidRequest);
    assert_eq!(code(world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(0), 5, 10))), ErrorCode::None);
    assert_eq!(
        code(world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(0), 4, 0))),
        ErrorCode::FencedStateEpoch
    );
    assert_eq!(code(world.ask(|s, now, ctx| s.handle_read(now, ctx, &key(0), 3))), ErrorCode::None);
    for crash in [false, true] {
        if crash {
            world.crash();
        }
        let write = |world: &mut World, s_epoch, l_epoch| {
            code(world.ask(|s, now, ctx| s.handle_write(now, ctx, &key(0), &write_of(s_epoch, l_epoch))))
        };
        assert_eq!(write(&mut world, 4, 3), ErrorCode::FencedStateEpoch);
        assert_eq!(write(&mut world, 5, 2), ErrorCode::FencedLeaderEpoch);
        assert_eq!(write(&mut world, 5, 3), ErrorCode::None);
        assert_eq!(write(&mut world, -1, -1), ErrorCode::None);
        assert_eq!(code(world.ask(|s, now, ctx| s.handle_read(now, ctx, &key(0), 2))), ErrorCode::FencedLeaderEpoch);
    }
    // Who only writes is not the new leader: a read announces it.
    assert_eq!(code(world.ask(|s, now, ctx| s.handle_write(now, ctx, &key(0), &write_of(5, 9)))), ErrorCode::None);
    assert_eq!(code(world.ask(|s, now, ctx| s.handle_read(now, ctx, &key(0), 3))), ErrorCode::None);
    assert_eq!(
        code(world.ask(|s, now, ctx| s.handle_write(now, ctx, &key(PARTITIONS), &write_of(0, 0)))),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        code(world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(PARTITIONS), 0, 0))),
        ErrorCode::UnknownTopicOrPartition
    );
    assert_eq!(code(world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(-1), 0, 0))), ErrorCode::InvalidRequest);
}

#[test]
fn the_log_stays_short_and_idle_partitions_do_not_hold_it_up() {
    let mut world = World::new(config(4));
    world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(0), 0, 0));
    world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(1), 0, 0));
    for offset in 0..100 {
        let batch = StateBatch { first_offset: offset, last_offset: offset, delivery_count: 1, delivery_state: 2 };
        let write = WriteState { start_offset: offset, batches: vec![batch], ..write_of(0, -1) };
        world.ask(|s, now, ctx| s.handle_write(now, ctx, &key(0), &write));
    }
    let prune = world.shard.on_timer(world.now_ms, &ShareStateTimer::Prune);
    world.run(prune);
    assert!(world.log.len() > 100, "partition 1 has nothing newer");
    world.now_ms += 50;
    let cold = world.shard.on_timer(world.now_ms, &ShareStateTimer::ColdSnapshot);
    world.run(cold);
    let prune = world.shard.on_timer(world.now_ms, &ShareStateTimer::Prune);
    world.run(prune);
    assert!(world.log.len() <= 6, "{}", world.log.len());
    let read = world.ask(|s, now, ctx| s.handle_read(now, ctx, &key(0), -1));
    let ReadState { start_offset, batches, .. } = match read {
        ShareStateReply::Read(Ok(read)) => read,
        other => panic!("{other:?}"),
    };
    assert_eq!((start_offset, batches.len()), (99, 1));
    let reloaded = world.reloaded();
    assert_eq!(reloaded.state(&key(0)), world.shard.state(&key(0)));
    assert_eq!(reloaded.state(&key(1)), world.shard.state(&key(1)));
}

#[test]
fn a_deleted_topic_takes_its_state_along() {
    let mut world = World::new(config(4));
    world.ask(|s, now, ctx| s.handle_initialize(now, ctx, &key(0), 0, 0));
    let changes = TopicChanges { deleted: vec![("t".to_owned(), TOPIC)], ..Default::default() };
    let image: Arc<dyn ClusterImage> = Arc::new(OneTopic(false));
    let effects = world.shard.on_new_image(world.now_ms, &image, &changes);
    world.run(effects);
    assert_eq!(world.shard.state(&key(0)), None);
    assert_eq!(world.reloaded().state(&key(0)), None);
}
