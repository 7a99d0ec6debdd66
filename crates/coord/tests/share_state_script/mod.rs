//! The language of the scripts, and the shard that they speak to. `P` is a partition of group `g` and topic `t`, unless
//! `group=` and `topic=` say otherwise; a topic is named by its id's number.
//!
//! ```text
//! config [updates= cold= prune=]      starts with an empty log and these settings
//! init CLIENT P [state=0 start=0]     an InitializeShareGroupState
//! write CLIENT P [state=0 leader=0 start=-1 complete=-1] [FIRST-LAST:STATE*COUNT...]   a WriteShareGroupState
//! read CLIENT P [leader=0]            summary CLIENT P        delete CLIENT P
//! topics NUMBER...                    these exist from now on
//! tick DURATION                       lets time pass; timers fire at their time
//! hold | release                      appended records stay uncommitted | are committed, also those to come
//! next-append-fails ERROR             | append-times-out ERROR, of the oldest that is held
//! crash                               forgets everything but the committed log, and replays it
//! unload                              gives the shard up
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_coord::cluster_image::{ClusterImage, TopicChanges, TopicInfo};
use taccola_coord::share_state::{
    NO_DELIVERY_COMPLETE_COUNT, NO_START_OFFSET, SharePartitionKey, ShareStateAction, ShareStateConfig,
    ShareStateError, ShareStateReply, ShareStateShard, ShareStateTimer, StateBatch, WriteState,
};
use taccola_coord::{
    AppendId, CoordinatorRecord, CoordinatorShard, EffectsOf, Reply, RequestContext, RequestToken, TimerOp,
};
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ShareSnapshotKey, ShareSnapshotValue, ShareUpdateKey, ShareUpdateValue};

type Step = EffectsOf<ShareStateShard, ShareStateReply>;

/// Topics by their ids' numbers, each with three partitions.
#[derive(Clone, Debug)]
struct Topics(Vec<u128>);

impl ClusterImage for Topics {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.topics().find(|topic| &*topic.name == name)
    }
    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.topics().find(|topic| topic.id == id)
    }
    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        let info = |n: &u128| TopicInfo { name: format!("t{n}").into(), id: Uuid::from_u128(*n), partitions: 3 };
        Box::new(self.0.iter().map(info))
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

struct Args<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Args<'a> {
    fn parse(words: impl Iterator<Item = &'a str>) -> Self {
        let (named, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        Self { words, named: named.into_iter().map(|pair| pair.split_once('=').unwrap()).collect() }
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.named.get(key).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{key}={v} is no number")))
    }

    fn duration(&self, key: &str, default: i64) -> i64 {
        self.named.get(key).map_or(default, |v| duration_ms(v))
    }

    fn key(&self) -> SharePartitionKey {
        SharePartitionKey {
            group_id: (*self.named.get("group").unwrap_or(&"g")).into(),
            topic_id: Uuid::from_u128(self.number("topic", 1)),
            partition: self.words[1].parse().unwrap(),
        }
    }

    /// `0-9:2*1`: offsets, delivery state and count.
    fn batches(&self) -> Vec<StateBatch> {
        let batch = |word: &&str| {
            let (range, state) = word.split_once(':').unwrap();
            let ((first, last), (state, count)) = (range.split_once('-').unwrap(), state.split_once('*').unwrap());
            StateBatch {
                first_offset: first.parse().unwrap(),
                last_offset: last.parse().unwrap(),
                delivery_state: state.parse().unwrap(),
                delivery_count: count.parse().unwrap(),
            }
        };
        self.words[2..].iter().map(batch).collect()
    }
}

fn duration_ms(text: &str) -> i64 {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap();
    let unit = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)].into_iter().find(|u| u.0 == &text[at..]);
    text[..at].parse::<i64>().unwrap() * unit.unwrap().1
}

fn error(name: &str) -> ErrorCode {
    ErrorCode::ALL.iter().copied().find(|e| e.name() == name).unwrap_or_else(|| panic!("no error {name}"))
}

fn batches(list: &[StateBatch]) -> String {
    let row =
        |b: &StateBatch| format!(" {}-{}:{}*{}", b.first_offset, b.last_offset, b.delivery_state, b.delivery_count);
    list.iter().map(row).collect()
}

fn reply(reply: &ShareStateReply) -> String {
    let refused = |error: &ShareStateError| error.code.name().to_owned();
    match reply {
        ShareStateReply::Done(done) => done.as_ref().map_or_else(refused, |()| "ok".to_owned()),
        ShareStateReply::Read(read) => read.as_ref().map_or_else(refused, |read| {
            format!("ok state={} start={}{}", read.state_epoch, read.start_offset, batches(&read.batches))
        }),
        ShareStateReply::Summary(summary) => summary.as_ref().map_or_else(refused, |s| {
            let (start, complete) = (s.start_offset, s.delivery_complete_count);
            format!("ok state={} leader={} start={start} complete={complete}", s.state_epoch, s.leader_epoch)
        }),
    }
}

fn record(record: &CoordinatorRecord) -> String {
    let key_type = i16::from_be_bytes([record.key[0], record.key[1]]);
    let (key, value) = (record.key.slice(2..), record.value.as_ref().map(|v| v.slice(2..)));
    let name = |kind: &str, group: &str, topic: Uuid, partition: i32| {
        format!("{kind} {group}:T{}-{partition}", u128::from_be_bytes(*topic.as_bytes()))
    };
    match key_type {
        ShareSnapshotKey::API_KEY => {
            let key = ShareSnapshotKey::from_bytes(key, 0).unwrap();
            let name = name("snapshot", &key.group_id, key.topic_id, key.partition);
            let Some(value) = value else { return format!("{name} tombstone") };
            let v = ShareSnapshotValue::from_bytes(value, 0).unwrap();
            let rows = v
                .state_batches
                .iter()
                .map(|b| format!(" {}-{}:{}*{}", b.first_offset, b.last_offset, b.delivery_state, b.delivery_count));
            let (epoch, state, leader, start) = (v.snapshot_epoch, v.state_epoch, v.leader_epoch, v.start_offset);
            format!("{name} {epoch} state={state} leader={leader} start={start}{}", rows.collect::<String>())
        }
        ShareUpdateKey::API_KEY => {
            let key = ShareUpdateKey::from_bytes(key, 0).unwrap();
            let name = name("update", &key.group_id, key.topic_id, key.partition);
            let Some(value) = value else { return format!("{name} tombstone") };
            let v = ShareUpdateValue::from_bytes(value, 0).unwrap();
            let rows = v
                .state_batches
                .iter()
                .map(|b| format!(" {}-{}:{}*{}", b.first_offset, b.last_offset, b.delivery_state, b.delivery_count));
            let (epoch, leader, start) = (v.snapshot_epoch, v.leader_epoch, v.start_offset);
            format!("{name} of {epoch} leader={leader} start={start}{}", rows.collect::<String>())
        }
        other => panic!("a record of type {other}"),
    }
}

struct World {
    config: ShareStateConfig,
    topics: Topics,
    shard: ShareStateShard,
    now_ms: i64,
    log: BTreeMap<i64, CoordinatorRecord>,
    next_offset: i64,
    timers: BTreeMap<ShareStateTimer, i64>,
    held: Vec<(AppendId, Vec<CoordinatorRecord>)>,
    hold: bool,
    next_fails: Option<ErrorCode>,
    waiting: BTreeMap<RequestToken, String>,
    tokens: u64,
    output: Vec<String>,
}

impl World {
    fn new(config: ShareStateConfig) -> Self {
        let topics = Topics(vec![1, 2]);
        let shard = ShareStateShard::new(config.clone(), Arc::new(topics.clone()), 0);
        Self {
            config,
            topics,
            shard,
            now_ms: 1_000_000,
            log: BTreeMap::new(),
            next_offset: 0,
            timers: BTreeMap::new(),
            held: Vec::new(),
            hold: false,
            next_fails: None,
            waiting: BTreeMap::new(),
            tokens: 0,
            output: Vec::new(),
        }
    }

    fn run(&mut self, verb: &str, args: &Args<'_>) {
        match verb {
            "config" => {
                let d = ShareStateConfig::default();
                *self = Self::new(ShareStateConfig {
                    updates_per_snapshot: args.number("updates", d.updates_per_snapshot),
                    cold_snapshot_interval_ms: args.duration("cold", d.cold_snapshot_interval_ms),
                    prune_interval_ms: args.duration("prune", d.prune_interval_ms),
                });
                self.load();
            }
            "init" => {
                let (state, start) = (args.number("state", 0), args.number("start", 0));
                self.ask(verb, args, |shard, now, ctx, key| shard.handle_initialize(now, ctx, key, state, start));
            }
            "write" => {
                let write = WriteState {
                    state_epoch: args.number("state", 0),
                    leader_epoch: args.number("leader", 0),
                    start_offset: args.number("start", NO_START_OFFSET),
                    delivery_complete_count: args.number("complete", NO_DELIVERY_COMPLETE_COUNT),
                    batches: args.batches(),
                };
                self.ask(verb, args, |shard, now, ctx, key| shard.handle_write(now, ctx, key, &write));
            }
            "read" => {
                let leader = args.number("leader", 0);
                self.ask(verb, args, |shard, now, ctx, key| shard.handle_read(now, ctx, key, leader));
            }
            "summary" => self.ask(verb, args, |shard, _, ctx, key| shard.handle_summary(ctx, key)),
            "delete" => self.ask(verb, args, |shard, _, ctx, key| shard.handle_delete(ctx, key)),
            "topics" => {
                let now = Topics(args.words.iter().map(|word| word.parse().unwrap()).collect());
                let name = |n: &u128| (format!("t{n}"), Uuid::from_u128(*n));
                let deleted = self.topics.0.iter().filter(|n| !now.0.contains(n)).map(name).collect();
                self.topics = now;
                let image: Arc<dyn ClusterImage> = Arc::new(self.topics.clone());
                let changes = TopicChanges { deleted, ..Default::default() };
                let effects = self.shard.on_new_image(self.now_ms, &image, &changes);
                self.take(effects);
            }
            "tick" => self.tick(duration_ms(args.words[0])),
            "hold" => self.hold = true,
            "release" => {
                self.hold = false;
                self.commit();
            }
            "next-append-fails" => self.next_fails = Some(error(args.words[0])),
            "append-times-out" => {
                let append = self.held[0].0;
                let effects = self.shard.timed_out(self.now_ms, append, error(args.words[0]));
                self.take(effects);
            }
            "crash" => {
                self.lose("connection lost");
                self.load();
            }
            "unload" => {
                let empty = ShareStateShard::new(self.config.clone(), Arc::new(self.topics.clone()), 0);
                let effects = CoordinatorShard::unload(std::mem::replace(&mut self.shard, empty));
                self.take(effects);
                self.lose("forgotten");
            }
            _ => panic!("no command {verb}"),
        }
    }

    fn lose(&mut self, how: &str) {
        self.timers.clear();
        self.held.clear();
        self.hold = false;
        let lost = std::mem::take(&mut self.waiting).into_values();
        self.output.extend(lost.map(|label| format!("{label}: {how}")));
    }

    fn load(&mut self) {
        self.shard = ShareStateShard::new(self.config.clone(), Arc::new(self.topics.clone()), 0);
        for (offset, record) in &self.log {
            if let Err(error) = self.shard.replay(*offset, -1, &record.key, record.value.as_ref()) {
                self.output.push(format!("{offset}: {error}"));
            }
        }
        let effects = self.shard.loaded(self.now_ms);
        self.take(effects);
    }

    fn ask(
        &mut self,
        verb: &str,
        args: &Args<'_>,
        handle: impl FnOnce(&mut ShareStateShard, i64, &RequestContext<'_>, &SharePartitionKey) -> Step,
    ) {
        self.tokens += 1;
        let token = RequestToken(self.tokens);
        let ctx = RequestContext { token, api_version: 0, client_id: "", client_host: "", fresh_id: [0; 16] };
        let label = format!("{} {verb}", args.words[0]);
        self.waiting.insert(token, label.clone());
        let mut effects = handle(&mut self.shard, self.now_ms, &ctx, &args.key());
        match std::mem::replace(&mut effects.response, Reply::Parked) {
            Reply::Now(response) => {
                self.waiting.remove(&token);
                self.output.push(format!("{label}: {}", reply(&response)));
            }
            Reply::Parked => self.output.push(format!("{label}: waits")),
        }
        self.take(effects);
    }

    fn take<R>(&mut self, effects: EffectsOf<ShareStateShard, R>) {
        for released in &effects.released {
            let label = self.waiting.remove(&released.token).expect("answered once");
            self.output.push(format!("{label}: {}", reply(&released.response)));
        }
        for timer in effects.timers {
            match timer {
                TimerOp::Set { key, deadline_ms } => {
                    self.output.push(format!("timer {key:?} in {} ms", deadline_ms - self.now_ms));
                    self.timers.insert(key, deadline_ms);
                }
                TimerOp::Cancel { key } => {
                    self.output.push(format!("timer {key:?} cancelled"));
                    self.timers.remove(&key);
                }
            }
        }
        for ShareStateAction::DeleteRecordsBefore(offset) in effects.actions {
            self.log = self.log.split_off(&offset);
            self.output.push(format!("the log begins at {offset}, with {} records", self.log.len()));
        }
        let Some(append) = effects.append else { return };
        self.output.extend(effects.records.iter().map(|one| format!("append {}", record(one))));
        if let Some(error) = self.next_fails.take() {
            self.output.push("… which fails".to_owned());
            let effects = self.shard.failed(self.now_ms, append, error);
            return self.take(effects);
        }
        let held: usize = self.held.iter().map(|(_, records)| records.len()).sum();
        self.shard.appended(self.now_ms, append, self.next_offset + held as i64);
        self.held.push((append, effects.records));
        if !self.hold {
            self.commit();
        }
    }

    fn commit(&mut self) {
        while !self.held.is_empty() {
            let (append, records) = self.held.remove(0);
            let base = self.next_offset;
            self.next_offset += records.len() as i64;
            self.log.extend((base..).zip(records));
            let effects = self.shard.committed(self.now_ms, append, base);
            self.take(effects);
        }
    }

    fn tick(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms + duration_ms;
        while let Some((key, at)) = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= end_ms)
            .min_by_key(|(key, at)| (**at, (*key).clone()))
            .map(|(key, at)| (key.clone(), *at))
        {
            self.timers.remove(&key);
            self.now_ms = at;
            self.output.push(format!("{} ms before the end: {key:?} fires", end_ms - at));
            let effects = self.shard.on_timer(self.now_ms, &key);
            self.take(effects);
        }
        self.now_ms = end_ms;
    }
}

/// The script with its trace.
pub(crate) fn run(text: &str) -> String {
    let (mut world, mut out) = (World::new(ShareStateConfig::default()), String::new());
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        let mut words = line.split_whitespace();
        if let (Some(verb), false) = (words.next(), line.starts_with('#')) {
            world.run(verb, &Args::parse(words));
            for printed in std::mem::take(&mut world.output) {
                writeln!(out, "  {printed}").unwrap();
            }
        }
    }
    out
}
