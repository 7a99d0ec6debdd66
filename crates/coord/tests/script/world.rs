//! One shard, its log, its clock and its timers, and the clients around it.

use std::collections::BTreeMap;

use taccola_base::config::{ConsumerGroupConfig, MigrationPolicy};
use taccola_coord::{
    AppendId, CoordinatorRecord, CoordinatorShard as _, Effects, GroupConfig, GroupShard, Released, Reply,
    RequestContext, RequestToken, Response, TimerKey, TimerOp,
};
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{OffsetCommitKey, OffsetCommitValue};

use super::cluster::Cluster;
use super::requests::{owned, topic_id};
use super::{Args, duration_ms, print, requests, share};

/// A record in the log.
struct Stored {
    producer_id: i64,
    /// `Err`: the end of the producer's transaction, committed or not.
    record: Result<CoordinatorRecord, bool>,
}

pub(crate) struct World {
    config: GroupConfig,
    pub(crate) shard: GroupShard,
    pub(crate) cluster: Cluster,
    pub(crate) now_ms: i64,
    log: Vec<Stored>,
    timers: BTreeMap<TimerKey, i64>,
    /// Appended, not committed.
    held: Vec<(AppendId, Vec<CoordinatorRecord>)>,
    hold: bool,
    /// The next records never get into the log.
    next_fails: Option<ErrorCode>,
    tokens: BTreeMap<RequestToken, String>,
    next_token: u64,
    next_id: u8,
    pub(crate) output: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let config = GroupConfig { initial_rebalance_delay_ms: 0, ..Default::default() };
        Self {
            shard: GroupShard::new(config.clone(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage)),
            config,
            cluster: Cluster::default(),
            now_ms: 1_000_000,
            log: Vec::new(),
            timers: BTreeMap::new(),
            held: Vec::new(),
            hold: false,
            next_fails: None,
            tokens: BTreeMap::new(),
            next_token: 0,
            next_id: 0,
            output: Vec::new(),
        }
    }

    pub(crate) fn take_output(&mut self) -> Vec<String> {
        std::mem::take(&mut self.output).into_iter().map(|line| print::shorten(&line)).collect()
    }

    pub(crate) fn run(&mut self, verb: &str, args: &Args<'_>) {
        match verb {
            "config" => self.configure(args),
            "limit" => {
                self.config.max_size = args.number("max-size", self.config.max_size);
                self.shard.set_config(self.config.clone());
            }
            "join" => self.join(args),
            "sync" => self.sync(args),
            "heartbeat" => self.heartbeat(args),
            "leave" => self.leave(args),
            "commit" => self.commit(args),
            "fetch" => self.fetch(args),
            "offset-delete" => self.offset_delete(args),
            "delete" => {
                let groups = owned(args.rest(1));
                self.request(
                    args,
                    "delete",
                    |shard, now, ctx| shard.handle_delete_groups(now, ctx, &groups),
                    Response::DeleteGroups,
                );
            }
            "describe" => {
                for row in self.shard.describe_groups(args.number("v", 6), &owned(args.rest(0))) {
                    self.output.push(print::described(&row));
                }
            }
            "list" => {
                let request = requests::list(args);
                for row in self.shard.list_groups(&request) {
                    self.output.push(print::listed(&row));
                }
            }
            "topics-deleted" => {
                let effects = self.shard.on_topics_deleted(
                    self.now_ms,
                    &args.rest(0).iter().map(|name| ((*name).to_owned(), topic_id(args))).collect::<Vec<_>>(),
                );
                self.take(effects);
            }
            "tick" => self.tick(duration_ms(args.word(0))),
            "hold" => self.hold = true,
            "release" => self.release(),
            "append-fails" => self.fate(args.word(0), GroupShard::failed),
            "append-times-out" => {
                let Some((id, _)) = self.held.first() else { panic!("nothing is held") };
                let effects = self.shard.timed_out(self.now_ms, *id, print::error(args.word(0)));
                self.take(effects);
            }
            "crash" => self.crash(),
            "unload" => {
                let shard = std::mem::replace(
                    &mut self.shard,
                    GroupShard::new(self.config.clone(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage)),
                );
                let effects = shard.unload();
                self.take(effects);
                self.timers.clear();
                self.held.clear();
                assert!(self.tokens.is_empty(), "forgotten: {:?}", self.tokens);
            }
            "txn" => self.transactional(args),
            "end-txn" => {
                let (producer_id, commit) = (args.word(0).parse().unwrap(), args.word(1) == "commit");
                self.log.push(Stored { producer_id, record: Err(commit) });
                self.shard.replay_end_transaction(producer_id, commit);
            }
            "raw" => self.raw(args),
            "log" => {
                for (offset, stored) in self.log.iter().enumerate() {
                    let line = match &stored.record {
                        Ok(record) => share::printed(record),
                        Err(commit) => format!("end of transaction, commit={commit}"),
                    };
                    self.output.push(format!("{offset}: {line}"));
                }
            }
            "next-append-fails" => self.next_fails = Some(print::error(args.word(0))),
            _ if self.run_consumer(verb, args) || self.run_share(verb, args) => {}
            _ => panic!("no command {verb}"),
        }
    }

    fn configure(&mut self, args: &Args<'_>) {
        let output = std::mem::take(&mut self.output);
        let next_id = self.next_id;
        *self = Self { output, next_id, ..Self::new() };
        let consumer = ConsumerGroupConfig {
            assignment_interval_ms: args.duration("assignment-interval", 0) as i32,
            max_size: args.number("consumer-max-size", i32::MAX),
            migration_policy: match args.get("policy") {
                Some("disabled") => MigrationPolicy::Disabled,
                Some("upgrade") => MigrationPolicy::Upgrade,
                Some("downgrade") => MigrationPolicy::Downgrade,
                _ => MigrationPolicy::Bidirectional,
            },
            ..GroupConfig::default().consumer
        };
        let d = GroupConfig::default();
        self.config = GroupConfig {
            min_session_timeout_ms: args.duration("min-session", d.min_session_timeout_ms.into()) as i32,
            max_session_timeout_ms: args.duration("max-session", d.max_session_timeout_ms.into()) as i32,
            initial_rebalance_delay_ms: args.duration("initial-delay", 0) as i32,
            max_size: args.number("max-size", d.max_size),
            offset_metadata_max: args.number("metadata-max", d.offset_metadata_max),
            offsets_retention_ms: args.duration("offsets-retention", d.offsets_retention_ms),
            offsets_retention_check_interval_ms: args.duration("check-interval", d.offsets_retention_check_interval_ms),
            consumer,
            ..d
        };
        self.shard =
            GroupShard::new(self.config.clone(), std::sync::Arc::new(taccola_coord::cluster_image::EmptyImage));
        if args.get("check-interval").is_some() {
            let effects = self.shard.loaded(self.now_ms);
            self.take(effects);
        }
    }

    /// Sends a request and prints the reply, or that it waits.
    pub(crate) fn request<R>(
        &mut self,
        args: &Args<'_>,
        what: &str,
        handle: impl FnOnce(&mut GroupShard, i64, &RequestContext<'_>) -> Effects<R>,
        wrap: impl FnOnce(R) -> Response,
    ) {
        let client = args.word(0);
        self.next_token += 1;
        self.next_id += 1;
        let token = RequestToken(self.next_token);
        let mut fresh_id = [0; 16];
        fresh_id[15] = self.next_id;
        let ctx = RequestContext {
            token,
            api_version: requests::version(args, what),
            client_id: client,
            client_host: "/127.0.0.1",
            fresh_id,
        };
        let label = format!("{client} {what}");
        self.tokens.insert(token, label.clone());
        let mut effects = handle(&mut self.shard, self.now_ms, &ctx);
        match std::mem::replace(&mut effects.response, Reply::Parked) {
            Reply::Now(response) => {
                self.tokens.remove(&token);
                self.output.push(format!("{label}: {}", print::response(&wrap(response))));
            }
            Reply::Parked => self.output.push(format!("{label}: waits")),
        }
        self.take(effects);
    }

    pub(crate) fn take<R>(&mut self, effects: Effects<R>) {
        for Released { token, response } in &effects.released {
            let label = self.tokens.remove(token).unwrap_or_else(|| panic!("{token:?} is answered twice"));
            self.output.push(format!("{label}: {}", print::response(response)));
        }
        for timer in effects.timers {
            match timer {
                TimerOp::Set { key, deadline_ms } => {
                    let after_ms = deadline_ms - self.now_ms;
                    self.output.push(format!("timer {} in {after_ms} ms", print::timer(&key)));
                    self.timers.insert(key, deadline_ms);
                }
                TimerOp::Cancel { key } => {
                    if self.timers.remove(&key).is_some() {
                        self.output.push(format!("timer {} cancelled", print::timer(&key)));
                    }
                }
            }
        }
        assert_eq!(effects.append.is_some(), !effects.records.is_empty());
        let Some(append) = effects.append else { return };
        for record in &effects.records {
            self.output.push(format!("append {}", share::printed(record)));
        }
        if let Some(error) = self.next_fails.take() {
            self.output.push("… which fails".to_owned());
            let effects = self.shard.failed(self.now_ms, append, error);
            return self.take(effects);
        }
        let base_offset = (self.log.len() + self.held.iter().map(|(_, records)| records.len()).sum::<usize>()) as i64;
        self.shard.appended(self.now_ms, append, base_offset);
        self.held.push((append, effects.records));
        if !self.hold {
            self.commit_held();
        }
    }

    fn commit_held(&mut self) {
        while !self.held.is_empty() {
            let (append, records) = self.held.remove(0);
            let base_offset = self.log.len() as i64;
            self.log.extend(records.into_iter().map(|r| Stored { producer_id: -1, record: Ok(r) }));
            let effects = self.shard.committed(self.now_ms, append, base_offset);
            self.take(effects);
        }
    }

    fn release(&mut self) {
        self.hold = false;
        self.commit_held();
    }

    fn fate(&mut self, error: &str, report: impl Fn(&mut GroupShard, i64, AppendId, ErrorCode) -> Effects<()>) {
        assert!(!self.held.is_empty(), "nothing is held");
        let (append, _) = self.held.remove(0);
        let effects = report(&mut self.shard, self.now_ms, append, print::error(error));
        self.take(effects);
    }

    fn tick(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms + duration_ms;
        loop {
            let due =
                self.timers.iter().filter(|(_, at)| **at <= end_ms).min_by_key(|(key, at)| (**at, (*key).clone()));
            let Some((key, at)) = due.map(|(key, at)| (key.clone(), *at)) else { break };
            self.timers.remove(&key);
            self.now_ms = self.now_ms.max(at);
            self.output.push(format!("{} ms before the end: {} fires", end_ms - self.now_ms, print::timer(&key)));
            let effects = self.shard.on_timer(self.now_ms, &key);
            self.take(effects);
        }
        self.now_ms = end_ms;
    }

    fn crash(&mut self) {
        self.shard = GroupShard::new(self.config.clone(), std::sync::Arc::new(self.cluster.clone()));
        self.timers.clear();
        self.held.clear();
        self.hold = false;
        for label in std::mem::take(&mut self.tokens).into_values() {
            self.output.push(format!("{label}: connection lost"));
        }
        for (offset, stored) in self.log.iter().enumerate() {
            match &stored.record {
                Ok(record) => {
                    let result =
                        self.shard.replay(offset as i64, stored.producer_id, &record.key, record.value.as_ref());
                    if let Err(error) = result {
                        self.output.push(format!("{offset}: {error}"));
                    }
                }
                Err(commit) => self.shard.replay_end_transaction(stored.producer_id, *commit),
            }
        }
        let effects = self.shard.loaded(self.now_ms);
        self.take(effects);
    }

    fn join(&mut self, args: &Args<'_>) {
        let request = requests::join(args);
        self.request(args, "join", |shard, now, ctx| shard.handle_join(now, ctx, request), Response::JoinGroup);
    }

    fn sync(&mut self, args: &Args<'_>) {
        let request = requests::sync(args);
        self.request(args, "sync", |shard, now, ctx| shard.handle_sync(now, ctx, &request), Response::SyncGroup);
    }

    fn heartbeat(&mut self, args: &Args<'_>) {
        let request = requests::heartbeat(args);
        let ctx = RequestContext {
            token: RequestToken(0),
            api_version: 4,
            client_id: args.word(0),
            client_host: "/127.0.0.1",
            fresh_id: [0; 16],
        };
        let effects = self.shard.handle_heartbeat(self.now_ms, &ctx, &request);
        let Reply::Now(response) = &effects.response else { panic!("a heartbeat waits") };
        self.output.push(format!("{} heartbeat: {}", args.word(0), print::code(response.error_code)));
        self.take(effects);
    }

    fn leave(&mut self, args: &Args<'_>) {
        let request = requests::leave(args);
        self.request(args, "leave", |shard, now, ctx| shard.handle_leave(now, ctx, request), Response::LeaveGroup);
    }

    fn commit(&mut self, args: &Args<'_>) {
        let request = requests::commit(args);
        self.request(
            args,
            "commit",
            |shard, now, ctx| shard.handle_offset_commit(now, ctx, &request),
            Response::OffsetCommit,
        );
    }

    fn fetch(&mut self, args: &Args<'_>) {
        let request = requests::fetch(args);
        self.request(
            args,
            "fetch",
            |shard, now, ctx| shard.handle_offset_fetch(now, ctx, request, requests::is_stable(args)),
            Response::OffsetFetch,
        );
    }

    fn offset_delete(&mut self, args: &Args<'_>) {
        let request = requests::offset_delete(args);
        self.request(
            args,
            "offset-delete",
            |shard, now, ctx| shard.handle_offset_delete(now, ctx, &request),
            Response::OffsetDelete,
        );
    }

    fn transactional(&mut self, args: &Args<'_>) {
        let producer_id = args.word(0).parse().unwrap();
        let (partition, offset) = args.word(2).split_once('=').unwrap();
        let (topic, index) = partition.rsplit_once('-').unwrap();
        let key = OffsetCommitKey {
            group: args.word(1).to_owned(),
            topic: topic.to_owned(),
            partition: index.parse().unwrap(),
        };
        let value =
            OffsetCommitValue { offset: offset.parse().unwrap(), commit_timestamp: self.now_ms, ..Default::default() };
        let record = CoordinatorRecord {
            key: [&1i16.to_be_bytes(), &key.to_bytes(0).unwrap()[..]].concat().into(),
            value: Some([&3i16.to_be_bytes(), &value.to_bytes(3).unwrap()[..]].concat().into()),
        };
        self.append_foreign(producer_id, record);
    }

    fn raw(&mut self, args: &Args<'_>) {
        let value = match args.rest(1).first() {
            None | Some(&"null") => None,
            Some(hex) => Some(print::unhex(hex)),
        };
        self.append_foreign(-1, CoordinatorRecord { key: print::unhex(args.word(0)), value });
    }

    /// A record that another broker wrote.
    fn append_foreign(&mut self, producer_id: i64, record: CoordinatorRecord) {
        let offset = self.log.len() as i64;
        match self.shard.replay(offset, producer_id, &record.key, record.value.as_ref()) {
            Ok(replayed) => self.output.push(format!("{replayed:?}")),
            Err(error) => self.output.push(format!("{error}")),
        }
        self.log.push(Stored { producer_id, record: Ok(record) });
    }
}
