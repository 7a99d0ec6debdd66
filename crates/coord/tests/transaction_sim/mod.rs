//! A coordinator with its log and timers, partitions with data and markers, and clients that share transactional ids.

mod checks;
mod partitions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_coord::transaction::{
    Markers, TransactionAction, TransactionConfig, TransactionEffects, TransactionResponse, TransactionShard,
    TransactionTimerKey,
};
use taccola_coord::{AppendId, CoordinatorRecord, CoordinatorShard, Reply, RequestContext, RequestToken, TimerOp};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use taccola_wire::messages::{EndTxnRequest, InitProducerIdRequest};

use crate::transaction_image::Image;
use checks::Checks;
use partitions::Partition;

pub(crate) const CLIENTS: usize = 5;
pub(crate) const PARTITIONS: i32 = 3;
const IDS: [&str; 2] = ["a", "b"];
const TIMEOUT_MS: i32 = 15_000;

/// Producer id and epoch. Producer ids are given out in order, so that a later one is greater.
pub(crate) type Producer = (i64, i16);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// InitProducerId, as one that goes on after an error or as a new one.
    Init {
        client: usize,
        resume: bool,
    },
    Add {
        client: usize,
        partition: i32,
    },
    Write {
        client: usize,
        partition: i32,
    },
    End {
        client: usize,
        commit: bool,
    },
    /// The last EndTxn again.
    Retry {
        client: usize,
    },
    /// The oldest append is committed.
    Committed,
    /// A marker that was asked for gets into one partition, or that it is in all is reported.
    Marker {
        pick: u8,
    },
    FailNext,
    TimedOut,
    Tick {
        ms: i64,
    },
    /// `kept` says how much survives of what is not committed.
    Crash {
        kept: u8,
    },
}

/// A schedule of its own for each seed.
pub(crate) fn schedule(seed: u64, steps: usize) -> Vec<Op> {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..steps).map(|_| random_op(&mut rng)).collect()
}

fn random_op(rng: &mut Rng) -> Op {
    let client = rng.below(CLIENTS as u64) as usize;
    let partition = rng.below(PARTITIONS as u64) as i32;
    match rng.below(70) {
        0..=5 => Op::Init { client, resume: rng.below(2) == 0 },
        6..=16 => Op::Add { client, partition },
        17..=24 => Op::Write { client, partition },
        25..=34 => Op::End { client, commit: rng.below(3) > 0 },
        35..=38 => Op::Retry { client },
        39..=52 => Op::Committed,
        53..=63 => Op::Marker { pick: rng.below(256) as u8 },
        64 => Op::FailNext,
        65 => Op::TimedOut,
        66..=68 => Op::Tick { ms: [1, 150, 3_000, 20_000][rng.below(4) as usize] },
        _ => Op::Crash { kept: rng.below(256) as u8 },
    }
}

/// xorshift64.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

#[derive(Clone, Debug, Default)]
struct Client {
    producer: Option<Producer>,
    /// The transaction that it believes to be open.
    transaction: Option<u64>,
    /// An end that it asked for and does not know the outcome of.
    ending: Option<(Producer, bool)>,
    /// A request is on its way.
    busy: bool,
}

#[derive(Clone, Debug)]
enum Asked {
    Init,
    Add,
    End { commit: bool, transaction: Option<u64> },
}

#[derive(Clone, Debug)]
struct Request {
    client: usize,
    asked: Asked,
    producer: Producer,
    /// The newest producer that anybody had been told of when the request was sent.
    newest: Producer,
}

/// Markers that a coordinator is writing.
struct Task {
    markers: Markers,
    left: Vec<i32>,
    /// A newer coordinator was in one of the partitions.
    fenced: bool,
}

pub(crate) struct World {
    version: i16,
    shard: TransactionShard,
    leader_epoch: i32,
    now_ms: i64,
    /// Committed.
    log: Vec<CoordinatorRecord>,
    /// Appended.
    held: Vec<(AppendId, Vec<CoordinatorRecord>)>,
    fail_next: bool,
    timers: BTreeMap<TransactionTimerKey, i64>,
    tasks: Vec<Task>,
    partitions: Vec<Partition>,
    clients: Vec<Client>,
    requests: BTreeMap<RequestToken, Request>,
    next_token: u64,
    next_producer_id: i64,
    next_transaction: u64,
    checks: Checks,
    rng: Rng,
}

fn id_of(client: usize) -> &'static str {
    IDS[client % IDS.len()]
}

/// Clients of both versions share the ids, as in an upgrade.
fn speaks_v2(client: usize, version: i16) -> bool {
    version >= 2 && client != 3
}

fn fresh_shard(version: i16, leader_epoch: i32) -> TransactionShard {
    TransactionShard::new(TransactionConfig::default(), Arc::new(Image(version)), leader_epoch)
}

impl World {
    pub(crate) fn new(version: i16, seed: u64) -> Self {
        Self {
            version,
            shard: fresh_shard(version, 0),
            leader_epoch: 0,
            now_ms: 1_000_000,
            log: Vec::new(),
            held: Vec::new(),
            fail_next: false,
            timers: BTreeMap::new(),
            tasks: Vec::new(),
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            clients: vec![Client::default(); CLIENTS],
            requests: BTreeMap::new(),
            next_token: 0,
            next_producer_id: 1000,
            next_transaction: 0,
            checks: Checks::default(),
            rng: Rng(seed | 1),
        }
    }

    /// Both ids begin shortly before the last epoch.
    pub(crate) fn near_the_last_epoch(version: i16, seed: u64) -> Self {
        let mut world = Self::new(version, seed);
        for (at, id) in IDS.iter().enumerate() {
            let epoch = i16::MAX - 2 - world.rng.below(5) as i16;
            world.log.push(checks::empty_state(id, (100 + at as i64, epoch), world.now_ms));
        }
        world.crash(0);
        world
    }

    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Init { client, resume } => self.init(client, resume),
            Op::Add { client, partition } => self.add(client, partition),
            Op::Write { client, partition } => self.write(client, partition),
            Op::End { client, commit } => self.end(client, commit),
            Op::Retry { client } => self.retry(client),
            Op::Committed => self.commit_oldest(),
            Op::Marker { pick } => self.marker(pick),
            Op::FailNext => self.fail_next = true,
            Op::TimedOut => {
                if let Some((append, _)) = self.held.first() {
                    let effects = self.shard.timed_out(self.now_ms, *append, ErrorCode::RequestTimedOut);
                    self.take(effects);
                }
            }
            Op::Tick { ms } => self.tick(ms),
            Op::Crash { kept } => self.crash(kept),
        }
        self.checks.log_is_in_order(&self.log);
        if self.held.is_empty() {
            self.a_replay_tells_the_same();
        }
    }

    fn init(&mut self, client: usize, resume: bool) {
        if self.clients[client].busy {
            return;
        }
        let expected = if resume { self.clients[client].producer } else { None };
        let (producer_id, producer_epoch) = expected.unwrap_or((-1, -1));
        let request = InitProducerIdRequest {
            transactional_id: Some(id_of(client).to_owned()),
            transaction_timeout_ms: TIMEOUT_MS,
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        let token = self.sent(client, Asked::Init, (producer_id, producer_epoch));
        let now_ms = self.now_ms;
        let ctx = context(token, 5);
        let effects = self.shard.handle_init_producer_id(now_ms, &ctx, &request, None).unwrap_or_else(|_| {
            self.next_producer_id += 1;
            self.shard.handle_init_producer_id(now_ms, &ctx, &request, Some(self.next_producer_id)).unwrap()
        });
        self.reply(token, effects, TransactionResponse::InitProducerId);
    }

    fn adding(&self, client: usize, partition: i32, verify_only: bool) -> Option<AddPartitionsToTxnTransaction> {
        let (producer_id, producer_epoch) = self.clients[client].producer?;
        let topics = vec![AddPartitionsToTxnTopic { name: "t".to_owned(), partitions: vec![partition] }];
        let transactional_id = id_of(client).to_owned();
        Some(AddPartitionsToTxnTransaction { transactional_id, producer_id, producer_epoch, verify_only, topics })
    }

    fn add(&mut self, client: usize, partition: i32) {
        if self.clients[client].busy || self.clients[client].ending.is_some() {
            return;
        }
        let Some(request) = self.adding(client, partition, false) else { return };
        let v2 = speaks_v2(client, self.version);
        let token = self.sent(client, Asked::Add, (request.producer_id, request.producer_epoch));
        let expected = self.checks.expect_add(self.last_state(client), &request, self.in_transition(client));
        let effects = self.shard.handle_add_partitions(self.now_ms, &context(token, if v2 { 4 } else { 3 }), &request);
        match (&effects.response, expected) {
            (Reply::Now(result), Some(expected)) => {
                assert_eq!(result.topic_results[0].results_by_partition[0].partition_error_code, expected.code());
            }
            // The beginning of the next transaction waits for the end of this one.
            (Reply::Parked, None | Some(ErrorCode::ConcurrentTransactions)) => {}
            (response, expected) => panic!("{response:?}, not {expected:?}"),
        }
        self.reply(token, effects, TransactionResponse::AddPartitions);
    }

    /// What a broker does with a batch: asks whether the partition is in the transaction, then looks at the epoch.
    fn write(&mut self, client: usize, partition: i32) {
        let Some(transaction) = self.clients[client].transaction else { return };
        let Some(request) = self.adding(client, partition, true) else { return };
        if self.clients[client].ending.is_some() {
            return;
        }
        let effects = self.shard.handle_add_partitions(self.now_ms, &context(RequestToken(0), 5), &request);
        let Reply::Now(result) = &effects.response else { panic!("verification never waits") };
        let code = result.topic_results[0].results_by_partition[0].partition_error_code;
        let producer = (request.producer_id, request.producer_epoch);
        if code == 0 && self.partitions[partition as usize].write(producer, transaction) {
            self.checks.written(transaction);
        }
        self.take(effects);
    }

    fn end(&mut self, client: usize, commit: bool) {
        let state = &self.clients[client];
        let Some(producer) = state.producer.filter(|_| !state.busy && state.ending.is_none()) else { return };
        // A commit without a transaction is refused, and so is everything of version 1.
        if state.transaction.is_none() && (commit || !speaks_v2(client, self.version)) {
            return;
        }
        self.clients[client].ending = Some((producer, commit));
        self.retry(client);
    }

    fn retry(&mut self, client: usize) {
        let state = &self.clients[client];
        let Some((producer, commit)) = state.ending.filter(|_| !state.busy) else { return };
        let asked = Asked::End { commit, transaction: state.transaction };
        let request = EndTxnRequest {
            transactional_id: id_of(client).to_owned(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            committed: commit,
        };
        let v2 = speaks_v2(client, self.version);
        let token = self.sent(client, asked, producer);
        let expected = self.checks.expect_end(self.last_state(client), &request, v2, self.in_transition(client));
        let now_ms = self.now_ms;
        let ctx = context(token, if v2 { 5 } else { 4 });
        let effects = self.shard.handle_end_txn(now_ms, &ctx, &request, None).unwrap_or_else(|_| {
            self.next_producer_id += 1;
            self.shard.handle_end_txn(now_ms, &ctx, &request, Some(self.next_producer_id)).unwrap()
        });
        match (&effects.response, expected) {
            (Reply::Now(response), Some(expected)) => assert_eq!(response.error_code, expected.code()),
            (Reply::Parked, None) => {}
            (response, expected) => panic!("{response:?}, not {expected:?}"),
        }
        self.reply(token, effects, TransactionResponse::EndTxn);
    }

    fn sent(&mut self, client: usize, asked: Asked, producer: Producer) -> RequestToken {
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        let newest = self.checks.newest(id_of(client));
        self.clients[client].busy = true;
        self.requests.insert(token, Request { client, asked, producer, newest });
        token
    }

    fn reply<R>(
        &mut self,
        token: RequestToken,
        mut effects: TransactionEffects<R>,
        wrap: impl FnOnce(R) -> TransactionResponse,
    ) {
        if let Reply::Now(response) = std::mem::replace(&mut effects.response, Reply::Parked) {
            self.answered(token, &wrap(response));
        }
        self.take(effects);
    }

    fn answered(&mut self, token: RequestToken, response: &TransactionResponse) {
        let request = self.requests.remove(&token).expect("answered twice");
        let id = id_of(request.client);
        let client = &mut self.clients[request.client];
        client.busy = false;
        match (response, &request.asked) {
            (TransactionResponse::InitProducerId(r), Asked::Init) => match ErrorCode::from_code(r.error_code) {
                ErrorCode::None => {
                    let producer = (r.producer_id, r.producer_epoch);
                    self.checks.given(id, request.client, producer);
                    *client = Client { producer: Some(producer), ..Default::default() };
                }
                ErrorCode::ConcurrentTransactions | ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator => {}
                ErrorCode::ProducerFenced => *client = Client::default(),
                error => panic!("{error:?}"),
            },
            (TransactionResponse::AddPartitions(r), Asked::Add) => {
                let code = r.topic_results[0].results_by_partition[0].partition_error_code;
                match ErrorCode::from_code(code) {
                    ErrorCode::None => {
                        assert!(request.producer >= request.newest, "{request:?} adds though it is replaced");
                        if client.transaction.is_none() {
                            self.next_transaction += 1;
                            client.transaction = Some(self.next_transaction);
                        }
                    }
                    ErrorCode::ProducerFenced | ErrorCode::InvalidProducerIdMapping => *client = Client::default(),
                    _ => {}
                }
            }
            (TransactionResponse::EndTxn(r), Asked::End { commit, transaction }) => {
                match ErrorCode::from_code(r.error_code) {
                    ErrorCode::None => {
                        if let Some(transaction) = transaction {
                            self.checks.decided(*transaction, *commit);
                        }
                        client.transaction = None;
                        client.ending = None;
                        if r.producer_id != -1 {
                            let producer = (r.producer_id, r.producer_epoch);
                            client.producer = Some(producer);
                            self.checks.given(id, request.client, producer);
                        }
                    }
                    ErrorCode::ConcurrentTransactions
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::NotCoordinator => {}
                    _ => *client = Client::default(),
                }
            }
            (response, asked) => panic!("{response:?} to {asked:?}"),
        }
    }

    fn take<R>(&mut self, effects: TransactionEffects<R>) {
        for released in &effects.released {
            self.answered(released.token, &released.response);
        }
        for timer in effects.timers {
            match timer {
                TimerOp::Set { key, deadline_ms } => self.timers.insert(key, deadline_ms),
                TimerOp::Cancel { key } => self.timers.remove(&key),
            };
        }
        for TransactionAction::SendMarkers(markers) in effects.actions {
            self.checks.markers_asked_for(&markers, &self.log);
            let left = markers.partitions.iter().map(|(_, partition)| partition).collect();
            self.tasks.push(Task { markers, left, fenced: false });
        }
        let Some(append) = effects.append else { return };
        if std::mem::take(&mut self.fail_next) {
            let effects = self.shard.failed(self.now_ms, append, ErrorCode::NotEnoughReplicas);
            return self.take(effects);
        }
        let held: usize = self.held.iter().map(|(_, records)| records.len()).sum();
        self.shard.appended(self.now_ms, append, (self.log.len() + held) as i64);
        self.held.push((append, effects.records));
    }

    fn commit_oldest(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (append, records) = self.held.remove(0);
        let base_offset = self.log.len() as i64;
        self.log.extend(records);
        let effects = self.shard.committed(self.now_ms, append, base_offset);
        self.take(effects);
    }

    fn marker(&mut self, pick: u8) {
        if self.tasks.is_empty() {
            return;
        }
        let at = usize::from(pick) % self.tasks.len();
        let task = &mut self.tasks[at];
        if let Some(partition) = task.left.pop() {
            task.fenced |= !self.partitions[partition as usize].mark(&task.markers);
            return;
        }
        let task = self.tasks.remove(at);
        // Whoever was not shut out may also be late: the coordinator was replaced by another on the same broker.
        if !task.fenced {
            let effects = self.shard.handle_markers_written(self.now_ms, &task.markers);
            self.take(effects);
        }
    }

    fn tick(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        loop {
            let due = self.timers.iter().filter(|(_, at)| **at <= end_ms).min_by_key(|(key, at)| (**at, *key));
            let Some((key, at)) = due.map(|(key, at)| (key.clone(), *at)) else { break };
            self.timers.remove(&key);
            self.now_ms = self.now_ms.max(at);
            let effects = self.shard.on_timer(self.now_ms, &key);
            self.take(effects);
        }
        self.now_ms = end_ms;
    }

    fn crash(&mut self, kept: u8) {
        let held: Vec<CoordinatorRecord> = std::mem::take(&mut self.held).into_iter().flat_map(|(_, r)| r).collect();
        let kept = usize::from(kept) % (held.len() + 1);
        self.log.extend(held.into_iter().take(kept));
        self.leader_epoch += 1;
        self.fail_next = false;
        self.timers.clear();
        for request in std::mem::take(&mut self.requests).into_values() {
            self.clients[request.client].busy = false;
        }
        self.shard = fresh_shard(self.version, self.leader_epoch);
        for (offset, record) in self.log.iter().enumerate() {
            self.shard.replay(offset as i64, -1, &record.key, record.value.as_ref()).unwrap();
        }
        let effects = self.shard.loaded(self.now_ms);
        self.take(effects);
    }

    /// Everything that is under way comes to its end, and nothing new begins.
    pub(crate) fn drain(&mut self) {
        self.fail_next = false;
        for _ in 0..4 {
            while !self.held.is_empty() || !self.tasks.is_empty() {
                self.commit_oldest();
                self.marker(0);
            }
            self.tick(i64::from(TIMEOUT_MS) + 10_001);
        }
        assert!(self.requests.is_empty(), "never answered: {:?}", self.requests);
        for id in IDS {
            let state = self.shard.describe_transaction(id);
            let open = ["Ongoing", "PrepareCommit", "PrepareAbort"].contains(&state.transaction_state.as_str());
            assert!(!open, "{state:?} is stuck");
        }
        self.checks.log_is_in_order(&self.log);
        self.a_replay_tells_the_same();
        self.checks.outcomes(&self.partitions);
    }

    fn last_state(&self, client: usize) -> Option<checks::State> {
        checks::last_state(&self.log, self.held.iter().flat_map(|(_, records)| records), id_of(client))
    }

    fn in_transition(&self, client: usize) -> bool {
        checks::is_being_changed(self.held.iter().flat_map(|(_, records)| records), id_of(client))
    }

    fn a_replay_tells_the_same(&self) {
        let mut replayed = fresh_shard(self.version, 0);
        for record in &self.log {
            replayed.replay(0, -1, &record.key, record.value.as_ref()).unwrap();
        }
        for id in IDS {
            assert_eq!(replayed.describe_transaction(id), self.shard.describe_transaction(id));
        }
    }
}

fn context(token: RequestToken, api_version: i16) -> RequestContext<'static> {
    RequestContext { token, api_version, client_id: "c", client_host: "/127.0.0.1", fresh_id: [0; 16] }
}

/// The transactions whose every record is committed, or aborted.
pub(crate) type Outcomes = BTreeMap<u64, BTreeSet<Option<bool>>>;
