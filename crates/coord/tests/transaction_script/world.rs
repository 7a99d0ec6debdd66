//! One shard, its log, its clock and its timers, and the partitions that get markers.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_coord::cluster_image::ClusterImage;
use taccola_coord::transaction::{
    Markers, NeedsProducerId, TransactionAction, TransactionConfig, TransactionEffects, TransactionFilter,
    TransactionResponse, TransactionShard, TransactionTimerKey,
};
use taccola_coord::{AppendId, CoordinatorRecord, CoordinatorShard, Reply, RequestContext, RequestToken, TimerOp};
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::transaction_log_value::PartitionsSchema;
use taccola_wire::messages::{ListTransactionsResponse, TransactionLogKey, TransactionLogValue};

use super::requests::{Producer, producer, topic_partition, version};
use super::{Args, duration_ms, print, requests};
use crate::transaction_image::Image;

/// The first producer id that is given out.
const FIRST_PRODUCER_ID: i64 = 1000;

pub(crate) struct World {
    config: TransactionConfig,
    transaction_version: i16,
    leader_epoch: i32,
    shard: TransactionShard,
    now_ms: i64,
    log: Vec<CoordinatorRecord>,
    timers: BTreeMap<TransactionTimerKey, i64>,
    held: Vec<(AppendId, Vec<CoordinatorRecord>)>,
    hold: bool,
    /// What becomes of the next append.
    fails: Option<ErrorCode>,
    /// Asked for, not written.
    markers: Vec<Markers>,
    hold_markers: bool,
    tokens: BTreeMap<RequestToken, String>,
    next_token: u64,
    next_producer_id: i64,
    /// What each transactional id's client was told last.
    producers: BTreeMap<String, Producer>,
    output: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let config = TransactionConfig::default();
        let image: Arc<dyn ClusterImage> = Arc::new(Image(2));
        Self {
            shard: TransactionShard::new(config.clone(), image, 0),
            config,
            transaction_version: 2,
            leader_epoch: 0,
            now_ms: 1_000_000,
            log: Vec::new(),
            timers: BTreeMap::new(),
            held: Vec::new(),
            hold: false,
            fails: None,
            markers: Vec::new(),
            hold_markers: false,
            tokens: BTreeMap::new(),
            next_token: 0,
            next_producer_id: FIRST_PRODUCER_ID,
            producers: BTreeMap::new(),
            output: Vec::new(),
        }
    }

    pub(crate) fn take_output(&mut self) -> Vec<String> {
        std::mem::take(&mut self.output)
    }

    pub(crate) fn run(&mut self, verb: &str, args: &Args<'_>) {
        match verb {
            "config" => self.configure(args),
            "init" | "add" | "verify" | "offsets" | "end" => self.request(verb, args),
            "markers" => {
                let at = self.markers.iter().position(|m| &*m.transactional_id == args.word(0));
                let markers = self.markers.remove(at.unwrap_or_else(|| panic!("no markers were asked for")));
                self.markers_written(&markers);
            }
            "hold-markers" => self.hold_markers = true,
            "release-markers" => {
                self.hold_markers = false;
                self.write_markers();
            }
            "describe" => {
                let described = self.shard.describe_transaction(args.word(0).trim_matches('\''));
                self.output.push(print::described(&described));
            }
            "list" => self.list(args),
            "tick" => self.tick(duration_ms(args.word(0))),
            "hold" => self.hold = true,
            "release" => {
                self.hold = false;
                self.commit_held();
            }
            "next-append-fails" => self.fails = Some(print::error(args.word(0))),
            "append-times-out" => {
                let append = self.held[0].0;
                let effects = self.shard.timed_out(self.now_ms, append, print::error(args.word(0)));
                self.take(effects);
            }
            "crash" => self.crash(),
            "unload" => self.unload(),
            "state" => self.foreign_state(args),
            "raw" => self.foreign(CoordinatorRecord {
                key: print::unhex(args.word(0)),
                value: args.rest(1).first().map(|value| print::unhex(value)),
            }),
            _ => panic!("no command {verb}"),
        }
    }

    fn fresh_shard(&self) -> TransactionShard {
        TransactionShard::new(self.config.clone(), Arc::new(Image(self.transaction_version)), self.leader_epoch)
    }

    fn configure(&mut self, args: &Args<'_>) {
        *self = Self { output: std::mem::take(&mut self.output), ..Self::new() };
        let d = TransactionConfig::default();
        self.config = TransactionConfig {
            max_timeout_ms: args.duration("max-timeout", d.max_timeout_ms.into()) as i32,
            id_expiration_ms: args.duration("id-expiration", d.id_expiration_ms),
            abort_interval_ms: args.duration("abort-interval", d.abort_interval_ms),
            expiration_interval_ms: args.duration("expiration-interval", d.expiration_interval_ms),
            ..d
        };
        self.transaction_version = args.number("tv", 2);
        self.leader_epoch = args.number("epoch", 0);
        self.shard = self.fresh_shard();
    }

    fn request(&mut self, verb: &str, args: &Args<'_>) {
        let id = args.word(0).trim_matches('\'');
        let last = self.producers.get(id).copied().unwrap_or((-1, -1));
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        let label = format!("{id} {verb}");
        self.tokens.insert(token, label.clone());
        let ctx = RequestContext {
            token,
            api_version: version(args, verb),
            client_id: "c",
            client_host: "/127.0.0.1",
            fresh_id: [0; 16],
        };
        let now_ms = self.now_ms;
        match verb {
            "init" => {
                let request = requests::init(id, args, last);
                let effects =
                    self.with_producer_id(|shard, fresh| shard.handle_init_producer_id(now_ms, &ctx, &request, fresh));
                self.reply(token, effects, TransactionResponse::InitProducerId);
            }
            "end" => {
                let request = requests::end(id, args, last);
                let effects = self.with_producer_id(|shard, fresh| shard.handle_end_txn(now_ms, &ctx, &request, fresh));
                self.reply(token, effects, TransactionResponse::EndTxn);
            }
            "offsets" => {
                let request = requests::offsets(id, args, last);
                let effects = self.shard.handle_add_offsets(now_ms, &ctx, &request, "__consumer_offsets", 3);
                self.reply(token, effects, TransactionResponse::AddOffsets);
            }
            _ => {
                let request = requests::add(id, args, last, verb == "verify");
                let effects = self.shard.handle_add_partitions(now_ms, &ctx, &request);
                self.reply(token, effects, TransactionResponse::AddPartitions);
            }
        }
    }

    fn with_producer_id<R>(
        &mut self,
        mut handle: impl FnMut(&mut TransactionShard, Option<i64>) -> Result<R, NeedsProducerId>,
    ) -> R {
        if let Ok(effects) = handle(&mut self.shard, None) {
            return effects;
        }
        self.next_producer_id += 1;
        handle(&mut self.shard, Some(self.next_producer_id - 1)).unwrap_or_else(|_| panic!("it was given one"))
    }

    fn reply<R>(
        &mut self,
        token: RequestToken,
        mut effects: TransactionEffects<R>,
        wrap: impl FnOnce(R) -> TransactionResponse,
    ) {
        match std::mem::replace(&mut effects.response, Reply::Parked) {
            Reply::Now(response) => self.answered(token, &wrap(response)),
            Reply::Parked => {}
        }
        self.take(effects);
    }

    fn answered(&mut self, token: RequestToken, response: &TransactionResponse) {
        let label = self.tokens.remove(&token).unwrap_or_else(|| panic!("{token:?} is answered twice"));
        self.output.push(format!("{label}: {}", print::response(response)));
        let producer = match response {
            TransactionResponse::InitProducerId(r) if r.error_code == 0 => (r.producer_id, r.producer_epoch),
            TransactionResponse::EndTxn(r) if r.producer_id != -1 => (r.producer_id, r.producer_epoch),
            _ => return,
        };
        let id = label.split(' ').next().unwrap_or_default();
        self.producers.insert(id.to_owned(), producer);
    }

    fn take<R>(&mut self, effects: TransactionEffects<R>) {
        for released in &effects.released {
            self.answered(released.token, &released.response);
        }
        for timer in effects.timers {
            match timer {
                TimerOp::Set { key, deadline_ms } => {
                    self.output.push(format!("timer {} in {} ms", print::timer(&key), deadline_ms - self.now_ms));
                    self.timers.insert(key, deadline_ms);
                }
                TimerOp::Cancel { key } => {
                    self.output.push(format!("timer {} cancelled", print::timer(&key)));
                    self.timers.remove(&key);
                }
            }
        }
        for TransactionAction::SendMarkers(markers) in effects.actions {
            self.output.push(print::markers(&markers));
            self.markers.push(markers);
        }
        assert_eq!(effects.append.is_some(), !effects.records.is_empty());
        if let Some(append) = effects.append {
            for record in &effects.records {
                self.output.push(format!("append {}", print::record(record)));
            }
            match self.fails.take() {
                Some(error) => {
                    self.output.push("the append fails".to_owned());
                    let effects = self.shard.failed(self.now_ms, append, error);
                    self.take(effects);
                }
                None => {
                    let held: usize = self.held.iter().map(|(_, records)| records.len()).sum();
                    self.shard.appended(self.now_ms, append, (self.log.len() + held) as i64);
                    self.held.push((append, effects.records));
                }
            }
            if !self.hold {
                self.commit_held();
            }
        }
        if !self.hold_markers {
            self.write_markers();
        }
    }

    fn commit_held(&mut self) {
        while !self.held.is_empty() {
            let (append, records) = self.held.remove(0);
            let base_offset = self.log.len() as i64;
            self.log.extend(records);
            let effects = self.shard.committed(self.now_ms, append, base_offset);
            self.take(effects);
        }
    }

    fn write_markers(&mut self) {
        while !self.markers.is_empty() {
            let markers = self.markers.remove(0);
            self.markers_written(&markers);
        }
    }

    fn markers_written(&mut self, m: &Markers) {
        let effects = self.shard.handle_markers_written(self.now_ms, m);
        self.take(effects);
    }

    fn list(&mut self, args: &Args<'_>) {
        let response = match TransactionFilter::new(&requests::list(args)) {
            Ok(filter) => ListTransactionsResponse {
                transaction_states: self.shard.list_transactions(self.now_ms, &filter),
                ..filter.response()
            },
            Err(error) => ListTransactionsResponse { error_code: error.code(), ..Default::default() },
        };
        self.output.push(print::listed(&response));
    }

    fn tick(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms + duration_ms;
        loop {
            let due = self.timers.iter().filter(|(_, at)| **at <= end_ms).min_by_key(|(key, at)| (**at, *key));
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
        self.leader_epoch += 1;
        self.shard = self.fresh_shard();
        self.timers.clear();
        self.held.clear();
        self.markers.clear();
        self.hold = false;
        for label in std::mem::take(&mut self.tokens).into_values() {
            self.output.push(format!("{label}: connection lost"));
        }
        for (offset, record) in self.log.iter().enumerate() {
            if let Err(error) = self.shard.replay(offset as i64, -1, &record.key, record.value.as_ref()) {
                self.output.push(format!("{offset}: {error}"));
            }
        }
        let effects = self.shard.loaded(self.now_ms);
        self.take(effects);
    }

    fn unload(&mut self) {
        let next = self.fresh_shard();
        let effects = std::mem::replace(&mut self.shard, next).unload();
        self.timers.clear();
        self.held.clear();
        self.markers.clear();
        self.take(effects);
        assert!(self.tokens.is_empty(), "forgotten: {:?}", self.tokens);
    }

    fn foreign_state(&mut self, args: &Args<'_>) {
        let (producer_id, producer_epoch) = producer(args.word(1), (-1, -1));
        let mut partitions: Vec<PartitionsSchema> = Vec::new();
        for (topic, partition) in args.rest(3).iter().map(|p| topic_partition(p)) {
            partitions.push(PartitionsSchema { topic: topic.to_owned(), partition_ids: vec![partition] });
        }
        let version: i16 = args.number("v", 1);
        let value = TransactionLogValue {
            producer_id,
            producer_epoch,
            next_producer_id: args.number("next", -1),
            previous_producer_id: if version == 0 { -1 } else { producer_id },
            client_transaction_version: if version == 0 { 0 } else { args.number("tv", 2) },
            transaction_timeout_ms: 60_000,
            transaction_status: print::state_id(args.word(2)),
            transaction_partitions: Some(partitions),
            transaction_last_update_timestamp_ms: self.now_ms,
            transaction_start_timestamp_ms: self.now_ms,
            ..Default::default()
        };
        let key = TransactionLogKey { transactional_id: args.word(0).to_owned() };
        self.foreign(CoordinatorRecord {
            key: [&0i16.to_be_bytes(), &key.to_bytes(0).unwrap()[..]].concat().into(),
            value: Some([&version.to_be_bytes(), &value.to_bytes(version).unwrap()[..]].concat().into()),
        });
    }

    /// A record that another broker wrote.
    fn foreign(&mut self, record: CoordinatorRecord) {
        let offset = self.log.len() as i64;
        match self.shard.replay(offset, -1, &record.key, record.value.as_ref()) {
            Ok(replayed) => self.output.push(format!("{replayed:?}")),
            Err(error) => self.output.push(format!("{error}")),
        }
        self.log.push(record);
    }
}
