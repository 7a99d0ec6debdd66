//! The task that owns a producer's batches: fills them, sends them per broker, settles or retries them.
//!
//! A request is put on its way by one task per broker, which submits requests in the order in which it gets them; replies
//! come back to the sending task as events. When the outcome of a batch with sequences cannot be known any more (its time
//! ran out), all batches of its partition that were sent fail with it, and the producer takes a new epoch before it sends
//! anything else (KIP-360), so that the next sequence is one that the broker expects.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::{Api, ApiExt};
use taccola_wire::batch::{BatchBuilder, BatchHeader};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use taccola_wire::messages::{InitProducerIdRequest, ProduceRequest};
use tokio::sync::{mpsc, oneshot};

use super::partition::{Identity, OpenBatch, PartitionQueue, SealedBatch, Waiting};
use super::transaction::Transaction;
use super::{Accepted, Acks, ProducerConfig, RecordMetadata};
use crate::cluster::{Client, Lane};
use crate::error::{Error, Result};

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// Versions up to which a producer without transactions behaves the same (12 is about transactions).
const NAMED_VERSION_MAX: i16 = TOPIC_ID_VERSION - 1;
/// Newest version that does not add partitions to the transaction by itself (KIP-890).
const EXPLICIT_VERSION_MAX: i16 = 11;
/// Commands taken at once before requests are looked at.
const COMMANDS_PER_ROUND: usize = 512;
/// How often time limits are checked while nothing else happens.
const TICK: Duration = Duration::from_millis(100);

pub(super) enum Command {
    Record(Box<Accepted>),
    Flush(oneshot::Sender<()>),
    /// Gives up what has not been sent, then settles as a flush does.
    Drop(oneshot::Sender<()>),
    /// The identity of a transactional producer, or its next epoch; nothing is in flight then.
    Identity(Identity),
}

/// What comes back to the sending task.
enum Event {
    Produced {
        node: i32,
        batches: Vec<SentBatch>,
        result: Result<Answer>,
    },
    Identity(Result<Identity>),
    /// Metadata of a topic was asked for; whether it came shows in the cache.
    Refreshed(Arc<str>),
}

struct SentBatch {
    partition: TopicPartition,
    topic_id: Uuid,
    batch: SealedBatch,
}

/// A produce reply; `None` with acks=0.
struct Answer {
    version: i16,
    response: Option<ProduceResponse>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IdentityState {
    /// Idempotence is off.
    Unused,
    Missing,
    Requested,
    Known(Identity),
    /// A new epoch is due as soon as nothing is in flight.
    Stale(Identity),
}

/// One broker's way out.
struct Lines {
    requests: mpsc::Sender<Vec<SentBatch>>,
    in_flight: usize,
}

pub(super) struct Sender {
    client: Client,
    config: Arc<ProducerConfig>,
    transaction: Option<Arc<Transaction>>,
    commands: mpsc::Receiver<Command>,
    closing: bool,
    queues: HashMap<TopicPartition, PartitionQueue>,
    lines: HashMap<i32, Lines>,
    identity: IdentityState,
    identity_retry_at: Option<Instant>,
    flushes: Vec<oneshot::Sender<()>>,
    events_in: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    /// Topics whose leaders are being asked for.
    refreshing: HashSet<Arc<str>>,
}

impl Sender {
    pub(super) fn new(
        client: Client,
        config: Arc<ProducerConfig>,
        transaction: Option<Arc<Transaction>>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let (events_in, events) = mpsc::channel(64);
        let identity = if config.idempotent { IdentityState::Missing } else { IdentityState::Unused };
        Self {
            client,
            config,
            transaction,
            commands,
            closing: false,
            queues: HashMap::new(),
            lines: HashMap::new(),
            identity,
            identity_retry_at: None,
            flushes: Vec::new(),
            events_in,
            events,
            refreshing: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.idle() {
                for flush in self.flushes.drain(..) {
                    // Whoever asked may have stopped waiting.
                    let _ = flush.send(());
                }
                if self.closing {
                    return;
                }
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.on_event(event),
                command = self.commands.recv(), if !self.closing => self.on_command(command),
                () = sleep_until(wake) => {}
            }
            for _ in 0..COMMANDS_PER_ROUND {
                match self.commands.try_recv() {
                    Ok(command) => self.on_command(Some(command)),
                    Err(_) => break,
                }
            }
            let now = Instant::now();
            self.expire(now);
            self.send_ready(now);
        }
    }

    fn idle(&self) -> bool {
        self.queues.values().all(PartitionQueue::is_idle)
    }

    /// `None` when nothing happens by itself.
    fn next_wake(&self) -> Option<Instant> {
        if self.idle() {
            return None;
        }
        let tick = Instant::now() + TICK;
        let lingering = self.queues.values().filter(|q| q.retry.is_empty() && q.paused_until.is_none());
        let due =
            lingering.filter_map(|q| q.open.front()).filter(|b| !b.closed).map(|b| b.created + self.config.linger);
        Some(due.min().map_or(tick, |due| due.min(tick)))
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Record(accepted)) => self.append(*accepted),
            Some(Command::Flush(done)) => {
                self.close_batches();
                self.flushes.push(done);
            }
            Some(Command::Drop(done)) => {
                if let Some(transaction) = &self.transaction
                    && self.queues.values().any(|queue| !queue.retry.is_empty())
                {
                    transaction.lose_sequences();
                }
                self.fail_everything(|| Error::Invalid("the transaction was aborted".to_owned()));
                self.flushes.push(done);
            }
            Some(Command::Identity(identity)) => self.on_identity(Ok(identity)),
            None => {
                self.closing = true;
                self.close_batches();
            }
        }
    }

    fn close_batches(&mut self) {
        self.queues.values_mut().flat_map(|q| q.open.iter_mut()).for_each(|batch| batch.closed = true);
    }

    fn append(&mut self, accepted: Accepted) {
        let Accepted { record, partition, timestamp, memory, delivery } = accepted;
        if let Some(failure) = self.transaction.as_ref().and_then(|transaction| transaction.failure()) {
            // Nobody may wait for it.
            let _ = delivery.send(Err(failure));
            return;
        }
        let queue = self.queues.entry(TopicPartition::new(Arc::clone(&record.topic), partition)).or_default();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let bytes = BatchBuilder::record_bytes_max(key, value, &record.headers);
        let batch_bytes = queue.batch_bytes_max.unwrap_or(usize::MAX).min(self.config.batch_bytes);
        let fits = |b: &OpenBatch| !b.closed && b.builder.uncompressed_bytes() + bytes <= batch_bytes;
        if !queue.open.back().is_some_and(fits) {
            if let Some(full) = queue.open.back_mut() {
                full.closed = true;
            }
            queue.open.push_back(OpenBatch {
                builder: BatchBuilder::new(self.config.compression),
                waiting: Vec::new(),
                created: Instant::now(),
                closed: false,
            });
        }
        if let Some(batch) = queue.open.back_mut() {
            batch.builder.append(timestamp, key, value, &record.headers);
            batch.closed |= batch.builder.uncompressed_bytes() >= batch_bytes;
            batch.waiting.push(Waiting { timestamp, delivery, _memory: memory });
        }
    }

    // ---- sending -----------------------------------------------------------------------------------------------------

    fn send_ready(&mut self, now: Instant) {
        let Some(identity) = self.identity(now) else { return };
        let mut by_leader: HashMap<i32, Vec<(TopicPartition, Uuid)>> = HashMap::new();
        let mut leaderless: Vec<Arc<str>> = Vec::new();
        let linger = self.config.linger;
        let ready = |b: &OpenBatch| b.closed || now.saturating_duration_since(b.created) >= linger;
        // Without sequences only one batch at a time keeps the order through retries.
        let in_flight_max = if self.config.idempotent { self.config.in_flight_max } else { 1 };
        for (partition, queue) in &mut self.queues {
            let several = queue.open.len() > 1;
            if !queue.sendable(now, in_flight_max, |b| several || ready(b)) {
                continue;
            }
            queue.paused_until = None;
            let topic = self.client.cached_topic(&partition.topic);
            let leader = topic.as_ref().and_then(|t| t.partition(partition.partition)).and_then(|p| p.leader);
            match (leader, topic) {
                (Some(leader), Some(topic)) => {
                    by_leader.entry(leader).or_default().push((partition.clone(), topic.id));
                }
                _ => leaderless.push(Arc::clone(&partition.topic)),
            }
        }
        leaderless.into_iter().for_each(|topic| self.refresh(topic));
        for (node, partitions) in by_leader {
            self.send_to(node, partitions, identity);
        }
    }

    /// One request per call: at most one batch per partition and `max.request.size` bytes.
    fn send_to(&mut self, node: i32, mut partitions: Vec<(TopicPartition, Uuid)>, identity: Identity) {
        let in_flight_max = self.config.in_flight_max;
        let transactional = self.transaction.is_some();
        let line = self.lines.entry(node).or_insert_with(|| {
            let (requests, queue) = mpsc::channel(in_flight_max);
            let line = Line {
                client: self.client.clone(),
                config: Arc::clone(&self.config),
                transaction: self.transaction.clone(),
                node,
                events: self.events_in.clone(),
            };
            tokio::spawn(line.run(queue));
            Lines { requests, in_flight: 0 }
        });
        if line.in_flight >= in_flight_max {
            return;
        }
        let Ok(permit) = line.requests.try_reserve() else { return };
        // Those who wait longest come first when not all fit.
        partitions.sort_by_key(|(p, _)| self.queues.get(p).and_then(oldest));
        let mut batches = Vec::with_capacity(partitions.len());
        let mut bytes = 0;
        for (partition, topic_id) in partitions {
            let Some(queue) = self.queues.get_mut(&partition) else { continue };
            match queue.take(identity, transactional) {
                Some(Ok(batch)) => {
                    bytes += batch.bytes.len();
                    batches.push(SentBatch { partition, topic_id, batch });
                }
                Some(Err((waiting, error))) => {
                    let error = error.to_string();
                    for record in waiting {
                        // Nobody may wait for it.
                        let _ = record.delivery.send(Err(Error::Invalid(error.clone())));
                    }
                }
                None => {}
            }
            if bytes >= self.config.request_bytes_max {
                break;
            }
        }
        if !batches.is_empty() {
            line.in_flight += 1;
            permit.send(batches);
        }
    }

    /// Asks for a topic's leaders in the background, one request at a time.
    fn refresh(&mut self, topic: Arc<str>) {
        if !self.refreshing.insert(Arc::clone(&topic)) {
            return;
        }
        let (client, events) = (self.client.clone(), self.events_in.clone());
        let pause = client.config().retry_backoff;
        tokio::spawn(async move {
            client.forget_topic(&topic);
            if let Err(error) = client.topic(&topic).await {
                tracing::debug!(%error, %topic, "no metadata");
                tokio::time::sleep(pause).await;
            }
            // The sending task is gone when this fails.
            let _ = events.send(Event::Refreshed(topic)).await;
        });
    }

    // ---- identity ----------------------------------------------------------------------------------------------------

    /// The identity to send with; `None` while there is none.
    fn identity(&mut self, now: Instant) -> Option<Identity> {
        match self.identity {
            IdentityState::Unused => return Some(Identity::NONE),
            IdentityState::Known(identity) => return Some(identity),
            IdentityState::Requested => return None,
            IdentityState::Stale(_) if self.queues.values().any(|q| q.in_flight > 0) => return None,
            IdentityState::Missing | IdentityState::Stale(_) => {}
        }
        // A transactional producer is told its identity.
        if self.transaction.is_some() || self.idle() || self.identity_retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let old = match self.identity {
            IdentityState::Stale(identity) => identity,
            _ => Identity::NONE,
        };
        self.identity = IdentityState::Requested;
        let (client, events) = (self.client.clone(), self.events_in.clone());
        tokio::spawn(async move {
            let result = client.retrying(|| init_producer(&client, old)).await;
            // The sending task is gone when this fails.
            let _ = events.send(Event::Identity(result)).await;
        });
        None
    }

    fn on_identity(&mut self, result: Result<Identity>) {
        match result {
            Ok(identity) => {
                self.identity = IdentityState::Known(identity);
                self.queues.values_mut().for_each(PartitionQueue::begin_sequences);
            }
            Err(error) => {
                tracing::warn!(%error, "no producer id");
                self.identity = IdentityState::Missing;
                self.identity_retry_at = Some(Instant::now() + self.client.config().retry_backoff_max);
                if !error.retriable() {
                    self.fail_everything(|| error.duplicate());
                }
            }
        }
    }

    fn fail_everything(&mut self, error: impl Fn() -> Error) {
        for queue in self.queues.values_mut() {
            for batch in queue.open.drain(..) {
                fail(batch.waiting, &error);
            }
            for batch in queue.retry.drain(..) {
                fail(batch.waiting, &error);
            }
        }
    }

    // ---- replies -----------------------------------------------------------------------------------------------------

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Identity(result) => self.on_identity(result),
            Event::Refreshed(topic) => {
                self.refreshing.remove(&topic);
            }
            Event::Produced { node, batches, result } => {
                if let Some(line) = self.lines.get_mut(&node) {
                    line.in_flight = line.in_flight.saturating_sub(1);
                }
                match result {
                    Ok(answer) => self.on_answer(batches, answer),
                    Err(error) => batches.into_iter().for_each(|sent| self.on_failure(sent, &error)),
                }
            }
        }
    }

    fn on_answer(&mut self, batches: Vec<SentBatch>, answer: Answer) {
        let Some(response) = answer.response else {
            for sent in batches {
                self.settle(sent, -1, -1);
            }
            return;
        };
        let mut answers: HashMap<(String, Uuid, i32), PartitionProduceResponse> = HashMap::new();
        let by_id = answer.version >= TOPIC_ID_VERSION;
        for topic in response.responses {
            let (name, id) = if by_id { (String::new(), topic.topic_id) } else { (topic.name, Uuid::ZERO) };
            for p in topic.partition_responses {
                answers.insert((name.clone(), id, p.index), p);
            }
        }
        for sent in batches {
            let key = match by_id {
                true => (String::new(), sent.topic_id, sent.partition.partition),
                false => (sent.partition.topic.to_string(), Uuid::ZERO, sent.partition.partition),
            };
            match answers.remove(&key) {
                Some(p) => self.on_partition(sent, p),
                None => {
                    let error = Error::Invalid(format!("the broker left {} out of its answer", sent.partition));
                    self.on_failure(sent, &error);
                }
            }
        }
    }

    fn on_partition(&mut self, sent: SentBatch, answer: PartitionProduceResponse) {
        let code = ErrorCode::from_code(answer.error_code);
        match code {
            ErrorCode::None => self.settle(sent, answer.base_offset, answer.log_append_time_ms),
            // It is stored already; its offset is no longer known.
            ErrorCode::DuplicateSequenceNumber => self.settle(sent, -1, -1),
            _ => {
                let record_errors = answer.record_errors.iter().filter_map(|e| e.batch_index_error_message.clone());
                let message = answer.error_message.or_else(|| record_errors.into_iter().next());
                let error = Error::broker(code, sent.partition.to_string(), message);
                self.on_failure(sent, &error);
            }
        }
    }

    fn settle(&mut self, sent: SentBatch, base_offset: i64, append_time: i64) {
        if let Some(queue) = self.queues.get_mut(&sent.partition) {
            queue.acknowledged();
        }
        let partition = sent.partition.partition;
        sent.batch.deliver(|index, own_time| {
            let offset = if base_offset < 0 { -1 } else { base_offset + i64::from(index) };
            let timestamp = if append_time >= 0 { append_time } else { own_time };
            Ok(RecordMetadata { partition, offset, timestamp })
        });
    }

    fn on_failure(&mut self, mut sent: SentBatch, error: &Error) {
        if error.stale_metadata() {
            self.client.forget_topic(&sent.partition.topic);
        }
        let Some(queue) = self.queues.get_mut(&sent.partition) else { return };
        if error.code() == Some(ErrorCode::MessageTooLarge) {
            match queue.too_large(sent.batch, self.config.compression) {
                Ok(()) => return,
                Err(batch) => sent.batch = batch,
            }
        }
        let code = error.code();
        let overtook = code == Some(ErrorCode::OutOfOrderSequenceNumber) && queue.may_have_overtaken(&sent.batch);
        let now = Instant::now();
        let in_time = now.saturating_duration_since(sent.batch.created) < self.config.delivery_timeout;
        let doomed = self.transaction.as_ref().is_some_and(|transaction| transaction.failure().is_some());
        let repeatable = self.config.acks != Acks::None && !doomed && (error.retriable() || overtook);
        if repeatable && in_time {
            tracing::debug!(%error, partition = %sent.partition, "sending again");
            queue.failed(sent.batch, now + self.client.config().retry_backoff);
            return;
        }
        queue.settled();
        let sequenced = sent.batch.base_sequence >= 0;
        // A refusal that leaves the sequence unused, or an outcome that nobody knows: the next batch needs a new epoch.
        fail(sent.batch.waiting, || error.duplicate());
        if sequenced {
            for batch in queue.retry.drain(..) {
                fail(batch.waiting, || error.duplicate());
            }
            self.sequence_lost(error);
        }
    }

    /// What comes next has to begin with a new epoch: at once, or (in a transaction) when it is aborted.
    fn sequence_lost(&mut self, error: &Error) {
        match &self.transaction {
            Some(transaction) => {
                transaction.fail(error);
                transaction.lose_sequences();
                self.fail_everything(|| error.duplicate());
            }
            None => self.renew_identity(error.code()),
        }
    }

    fn renew_identity(&mut self, code: Option<ErrorCode>) {
        if let IdentityState::Known(identity) = self.identity {
            // A producer id that the broker does not accept cannot be raised, only replaced.
            let replace = matches!(code, Some(ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced));
            self.identity = if replace { IdentityState::Missing } else { IdentityState::Stale(identity) };
        }
    }

    /// Gives up what has waited longer than `delivery.timeout.ms`. Batches in flight are left to their requests' limit.
    fn expire(&mut self, now: Instant) {
        let limit = self.config.delivery_timeout;
        let late = |created: Instant| now.saturating_duration_since(created) >= limit;
        let mut lost = None;
        for (partition, queue) in &mut self.queues {
            let error = || Error::Timeout { what: format!("delivery to {partition}"), timeout: limit };
            if queue.retry.front().is_some_and(|b| late(b.created)) {
                lost = self.config.idempotent.then(error);
                for batch in queue.retry.drain(..) {
                    fail(batch.waiting, error);
                }
            }
            while queue.open.front().is_some_and(|b| late(b.created)) {
                if self.transaction.is_some() {
                    lost = Some(error());
                }
                if let Some(batch) = queue.open.pop_front() {
                    fail(batch.waiting, error);
                }
            }
        }
        if let Some(error) = lost {
            self.sequence_lost(&error);
        }
    }
}

fn oldest(queue: &PartitionQueue) -> Option<Instant> {
    queue.retry.front().map(|b| b.created).or_else(|| queue.open.front().map(|b| b.created))
}

fn fail(waiting: Vec<Waiting>, error: impl Fn() -> Error) {
    for record in waiting {
        // Nobody may wait for it.
        let _ = record.delivery.send(Err(error()));
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A new id, or (from version 3 on) the next epoch of an old one.
async fn init_producer(client: &Client, old: Identity) -> Result<Identity> {
    let api = client.any().await?;
    let version = api.version::<InitProducerIdRequest>()?;
    let keep = version >= 3 && old != Identity::NONE;
    let kept = if keep { old } else { Identity::NONE };
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        producer_id: kept.id,
        producer_epoch: kept.epoch,
        ..Default::default()
    };
    let response = client.request(&api, &request, version).await?;
    Error::check(response.error_code, "producer id", None)?;
    Ok(Identity { id: response.producer_id, epoch: response.producer_epoch })
}

/// Puts one broker's requests on their way, in order.
struct Line {
    client: Client,
    config: Arc<ProducerConfig>,
    transaction: Option<Arc<Transaction>>,
    node: i32,
    events: mpsc::Sender<Event>,
}

impl Line {
    async fn run(self, mut queue: mpsc::Receiver<Vec<SentBatch>>) {
        while let Some(batches) = queue.recv().await {
            let (node, events) = (self.node, self.events.clone());
            match self.submit(&batches).await {
                Ok(reply) => {
                    tokio::spawn(async move {
                        let result = reply.await;
                        // The sending task is gone when this fails.
                        let _ = events.send(Event::Produced { node, batches, result }).await;
                    });
                }
                Err(error) => {
                    let _ = events.send(Event::Produced { node, batches, result: Err(error) }).await;
                }
            }
        }
    }

    /// Resolves when the request's place in the connection's order is fixed.
    async fn submit(&self, batches: &[SentBatch]) -> Result<impl Future<Output = Result<Answer>> + Send + 'static> {
        let api = self.client.broker(self.node, Lane::Produce).await?;
        let version = self.version(&api, batches)?;
        let request = self.request(batches, version);
        let answered = self.config.acks != Acks::None;
        let pending = api.start(&request, version, answered).await?;
        let timeout = self.config.request_timeout;
        let address = api.address().to_owned();
        Ok(async move {
            let body = match tokio::time::timeout(timeout, pending).await {
                Ok(body) => body?,
                Err(_) => return Err(Error::Timeout { what: format!("Produce from {address}"), timeout }),
            };
            let response = if answered { Some(taccola_net::api::decode(body, version)?) } else { None };
            Ok(Answer { version, response })
        })
    }

    fn version(&self, api: &Arc<dyn Api>, batches: &[SentBatch]) -> Result<i16> {
        let all_have_ids = batches.iter().all(|sent| !sent.topic_id.is_zero());
        let cap = match &self.transaction {
            Some(transaction) if !transaction.implicit() => EXPLICIT_VERSION_MAX,
            _ if all_have_ids => i16::MAX,
            _ => NAMED_VERSION_MAX,
        };
        let version = api.version_up_to::<ProduceRequest>(cap)?;
        let zstd = |sent: &SentBatch| {
            let compression = BatchHeader::parse(&sent.batch.bytes).ok().and_then(|h| h.compression().ok());
            compression == Some(taccola_wire::batch::Compression::Zstd)
        };
        if version < 7 && batches.iter().any(zstd) {
            return Err(Error::Invalid("the broker is too old for zstd; choose another compression".to_owned()));
        }
        Ok(version)
    }

    fn request(&self, batches: &[SentBatch], version: i16) -> ProduceRequest {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        let mut places: HashMap<&Arc<str>, usize> = HashMap::new();
        for sent in batches {
            let data =
                PartitionProduceData { index: sent.partition.partition, records: Some(sent.batch.bytes.clone()) };
            let place = *places.entry(&sent.partition.topic).or_insert_with(|| {
                topics.push(TopicProduceData {
                    name: sent.partition.topic.to_string(),
                    topic_id: if version >= TOPIC_ID_VERSION { sent.topic_id } else { Uuid::ZERO },
                    ..Default::default()
                });
                topics.len() - 1
            });
            if let Some(topic) = topics.get_mut(place) {
                topic.partition_data.push(data);
            }
        }
        ProduceRequest {
            transactional_id: self.transaction.as_ref().map(|transaction| transaction.id.clone()),
            acks: self.config.acks as i16,
            timeout_ms: i32::try_from(self.config.request_timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: topics,
        }
    }
}
