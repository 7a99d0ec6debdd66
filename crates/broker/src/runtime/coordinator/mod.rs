//! Drives the group coordinator's pure shards: appends what they want recorded, tells them when it is committed, keeps
//! their timers, and answers requests when they say so. Answers to Kafka's `CoordinatorRuntime`.
//!
//! One shard per partition of `__consumer_offsets` that this broker leads. A shard's lock is taken before its partition's
//! and never while that one is held. Invariants: a shard's records are appended in the order in which it made them and
//! reported committed in that order; every parked request is answered exactly once, also when its shard goes away.

mod load;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use taccola_base::Uuid;
use taccola_base::topic::GROUP_METADATA_TOPIC;
use taccola_coord::{
    AppendId, CoordinatorRecord, Effects, GroupConfig, GroupShard, Reply, RequestContext as ShardContext, RequestToken,
    Response, TimerKey,
};
use taccola_log::AppendOrigin;
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::error::ErrorCode;
use tokio::sync::oneshot;

use crate::clock;
use crate::context::RequestContext;
use crate::error_map;
use crate::partition::{AppendRejected, Durability, Partition};
use crate::runtime::journal::{JournalRuntime, Ticket};
use timers::Timers;

/// What a batch takes besides its records.
const BATCH_HEADER_BYTES: usize = 61;
/// A commit that the disk has not confirmed within this is given up as far as its requests are concerned.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(3600);

/// All shards of this broker.
pub struct GroupCoordinator {
    shards: RwLock<HashMap<i32, Arc<Shard>>>,
    config: Mutex<GroupConfig>,
    compression: Compression,
    durability: Durability,
    journal: Arc<JournalRuntime>,
    timers: Arc<Timers>,
    handle: tokio::runtime::Handle,
    /// Itself, for the tasks that it starts.
    me: Weak<GroupCoordinator>,
}

/// One partition of `__consumer_offsets`.
pub(crate) struct Shard {
    partition: Arc<Partition>,
    core: Mutex<Core>,
}

enum State {
    Loading,
    Active(Box<GroupShard>),
    /// The log could not be understood: serving it could lose offsets.
    Failed,
}

struct Core {
    state: State,
    next_token: u64,
    parked: HashMap<RequestToken, oneshot::Sender<Response>>,
    /// Appends that wait for the disk, oldest first.
    uncommitted: VecDeque<Uncommitted>,
}

#[derive(Clone, Copy)]
struct Uncommitted {
    append: AppendId,
    base_offset: i64,
    ticket: Ticket,
}

/// The request's way in: what the shard's method is given.
pub(crate) struct Call<'a> {
    pub(crate) now_ms: i64,
    pub(crate) context: ShardContext<'a>,
}

impl GroupCoordinator {
    pub fn new(
        config: GroupConfig,
        compression_id: i8,
        durability: Durability,
        journal: Arc<JournalRuntime>,
        handle: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let coordinator = Arc::new_cyclic(|me| Self {
            shards: RwLock::default(),
            config: Mutex::new(config),
            compression: Compression::from_id(u8::try_from(compression_id).unwrap_or(0)).unwrap_or_default(),
            durability,
            journal,
            timers: Timers::new(),
            handle,
            me: me.clone(),
        });
        let weak = coordinator.me.clone();
        coordinator.handle.spawn(coordinator.timers.clone().run(move |partition, key| {
            if let Some(coordinator) = weak.upgrade() {
                coordinator.fire(partition, &key);
            }
        }));
        coordinator
    }

    /// Takes over a partition of `__consumer_offsets`: loads it, in the background unless it is empty.
    pub fn take_over(self: &Arc<Self>, partition: Arc<Partition>) {
        let index = partition.topic_partition.partition;
        if self.shards.read().contains_key(&index) {
            return;
        }
        let core = Core { state: State::Loading, next_token: 0, parked: HashMap::new(), uncommitted: VecDeque::new() };
        let shard = Arc::new(Shard { partition: partition.clone(), core: Mutex::new(core) });
        self.shards.write().insert(index, shard.clone());
        let empty = partition.with_log(|log| log.log_end_offset() == log.log_start_offset()).unwrap_or(true);
        let coordinator = self.clone();
        if empty {
            coordinator.load(&shard);
        } else {
            self.handle.spawn_blocking(move || coordinator.load(&shard));
        }
    }

    fn load(&self, shard: &Arc<Shard>) {
        let loaded = load::replay_log(&shard.partition, self.config.lock().clone());
        let mut core = shard.core.lock();
        match loaded {
            Ok(mut groups) => {
                let effects = groups.loaded(clock::now_ms());
                core.state = State::Active(Box::new(groups));
                self.run_effects(shard, &mut core, effects);
            }
            Err(reason) => {
                tracing::error!(partition = %shard.partition.topic_partition, reason, "cannot load groups and offsets");
                core.state = State::Failed;
            }
        }
    }

    /// The partition is no longer here: whoever waits is told to look for the coordinator again.
    pub fn give_up(&self, partition: i32) {
        let Some(shard) = self.shards.write().remove(&partition) else { return };
        let mut core = shard.core.lock();
        if let State::Active(groups) = std::mem::replace(&mut core.state, State::Loading) {
            for released in groups.unload().released {
                if let Some(waiting) = core.parked.remove(&released.token) {
                    let _ = waiting.send(released.response);
                }
            }
        }
        self.timers.forget(partition);
    }

    /// New settings; what is under way keeps its deadlines.
    pub fn set_config(&self, config: GroupConfig) {
        *self.config.lock() = config.clone();
        for shard in self.all() {
            if let State::Active(groups) = &mut shard.core.lock().state {
                groups.set_config(config.clone());
            }
        }
    }

    /// Topics were deleted: their committed offsets go.
    pub fn topics_deleted(&self, topics: &[(String, Uuid)]) {
        for shard in self.all() {
            let mut core = shard.core.lock();
            if let State::Active(groups) = &mut core.state {
                let effects = groups.on_topics_deleted(clock::now_ms(), topics);
                self.run_effects(&shard, &mut core, effects);
            }
        }
    }

    fn all(&self) -> Vec<Arc<Shard>> {
        self.shards.read().values().cloned().collect()
    }

    /// Runs one request on the shard of a group. `Err` is the error for the whole request: the group is not here, or not
    /// loaded yet.
    pub(crate) async fn call<R>(
        self: &Arc<Self>,
        partition: i32,
        context: &RequestContext,
        handle: impl FnOnce(&mut GroupShard, Call<'_>) -> Effects<R>,
        take: impl FnOnce(Response) -> Option<R>,
    ) -> Result<R, ErrorCode> {
        let waiting = {
            let shard = self.shard(partition)?;
            let mut core = shard.core.lock();
            let token = RequestToken(core.next_token);
            core.next_token += 1;
            let host = context.client_host();
            let call = Call {
                now_ms: clock::now_ms(),
                context: ShardContext {
                    token,
                    api_version: context.api_version,
                    client_id: context.client_id(),
                    client_host: &host,
                    fresh_id: crate::random::bytes16(),
                },
            };
            let Effects { records, append, response, released, timers } = handle(active(&mut core)?, call);
            let waiting = match response {
                Reply::Now(response) => Ok(response),
                Reply::Parked => {
                    let (sender, receiver) = oneshot::channel();
                    core.parked.insert(token, sender);
                    Err(receiver)
                }
            };
            self.run_effects(
                &shard,
                &mut core,
                Effects { records, append, response: Reply::Now(()), released, timers },
            );
            waiting
        };
        match waiting {
            Ok(response) => Ok(response),
            Err(receiver) => receiver.await.ok().and_then(take).ok_or(ErrorCode::NotCoordinator),
        }
    }

    /// Looks at a shard without changing it.
    pub(crate) fn look<R>(&self, partition: i32, look: impl FnOnce(&GroupShard) -> R) -> Result<R, ErrorCode> {
        let shard = self.shard(partition)?;
        let mut core = shard.core.lock();
        active(&mut core).map(|groups| look(groups))
    }

    /// Looks at each shard that is loaded; true when all are.
    pub(crate) fn look_at_all(&self, mut look: impl FnMut(&GroupShard)) -> bool {
        let mut all = true;
        for shard in self.all() {
            match active(&mut shard.core.lock()) {
                Ok(groups) => look(groups),
                Err(_) => all = false,
            }
        }
        all
    }

    fn shard(&self, partition: i32) -> Result<Arc<Shard>, ErrorCode> {
        self.shards.read().get(&partition).cloned().ok_or(ErrorCode::NotCoordinator)
    }

    fn fire(self: &Arc<Self>, partition: i32, key: &TimerKey) {
        let Ok(shard) = self.shard(partition) else { return };
        let mut core = shard.core.lock();
        if let State::Active(groups) = &mut core.state {
            let effects = groups.on_timer(clock::now_ms(), key);
            self.run_effects(&shard, &mut core, effects);
        }
    }

    /// Does what a step asks for, and what that leads to.
    fn run_effects<R>(&self, shard: &Arc<Shard>, core: &mut Core, effects: Effects<R>) {
        let mut due = VecDeque::from([without_response(effects)]);
        while let Some(effects) = due.pop_front() {
            self.timers.apply(shard.partition.topic_partition.partition, effects.timers);
            for released in effects.released {
                // A client that went away has dropped its end.
                if let Some(waiting) = core.parked.remove(&released.token) {
                    let _ = waiting.send(released.response);
                }
            }
            let Some(append) = effects.append else { continue };
            let appended = self.append(shard, &effects.records);
            let State::Active(groups) = &mut core.state else { continue };
            let now_ms = clock::now_ms();
            match appended {
                Ok((base_offset, None)) => due.push_back(groups.committed(now_ms, append, base_offset)),
                Ok((base_offset, Some(ticket))) => {
                    core.uncommitted.push_back(Uncommitted { append, base_offset, ticket });
                    self.confirm_later(shard, ticket);
                }
                Err(error) => due.push_back(groups.failed(now_ms, append, error)),
            }
        }
    }

    /// Appends a step's records, in as many batches as the topic's `max.message.bytes` asks for. Answers where the first
    /// record stands, and what to wait for.
    fn append(&self, shard: &Shard, records: &[CoordinatorRecord]) -> Result<(i64, Option<Ticket>), ErrorCode> {
        let max_bytes = usize::try_from(shard.partition.topic_config().values.max_message_bytes).unwrap_or(0);
        let mut first = None;
        let mut ticket = None;
        let mut records = records.iter().peekable();
        while records.peek().is_some() {
            let mut builder = BatchBuilder::new(self.compression);
            let now_ms = clock::now_ms();
            while let Some(record) = records.next_if(|record| {
                let more = BatchBuilder::record_bytes_max(Some(&record.key), record.value.as_deref(), &[]);
                builder.is_empty() || BATCH_HEADER_BYTES + builder.uncompressed_bytes() + more <= max_bytes
            }) {
                builder.append(now_ms, Some(&record.key), record.value.as_deref(), &[]);
            }
            let batch = builder.build().map_err(|_| ErrorCode::UnknownServerError)?;
            let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
            let origin = AppendOrigin::Coordinator { transaction_version: 0 };
            let outcome = shard.partition.append(&self.journal, &mut batch, origin, self.durability, now_ms);
            let outcome = outcome.map_err(|error| match error {
                AppendRejected::NotLeader => ErrorCode::NotCoordinator,
                error => error_map::append(&error),
            })?;
            first.get_or_insert(outcome.base_offset);
            ticket = ticket.max(outcome.ticket);
        }
        first.map(|base_offset| (base_offset, ticket)).ok_or(ErrorCode::UnknownServerError)
    }

    /// Waits for the disk in a task of its own, then reports everything that is confirmed by then, in order.
    fn confirm_later(&self, shard: &Arc<Shard>, ticket: Ticket) {
        let (shard, coordinator, journal) = (Arc::downgrade(shard), self.me.clone(), self.journal.clone());
        self.handle.spawn(async move {
            let confirmed = journal.wait_for(ticket, COMMIT_WAIT_MAX).await;
            let (Some(shard), Some(coordinator)) = (shard.upgrade(), coordinator.upgrade()) else { return };
            coordinator.confirm(&shard, ticket, confirmed.is_ok());
        });
    }

    fn confirm(&self, shard: &Arc<Shard>, ticket: Ticket, durable: bool) {
        let mut core = shard.core.lock();
        while let Some(oldest) = core.uncommitted.front().copied().filter(|oldest| oldest.ticket <= ticket) {
            core.uncommitted.pop_front();
            let State::Active(groups) = &mut core.state else { return };
            let now_ms = clock::now_ms();
            let effects = match durable {
                true => groups.committed(now_ms, oldest.append, oldest.base_offset),
                false => groups.timed_out(now_ms, oldest.append, ErrorCode::KafkaStorageError),
            };
            self.run_effects(shard, &mut core, effects);
        }
    }
}

fn active(core: &mut Core) -> Result<&mut GroupShard, ErrorCode> {
    match &mut core.state {
        State::Active(groups) => Ok(groups),
        State::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
        State::Failed => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

fn without_response<R>(effects: Effects<R>) -> Effects<()> {
    let Effects { records, append, released, timers, .. } = effects;
    Effects { records, append, response: Reply::Now(()), released, timers }
}

/// The partition of `__consumer_offsets` that a group belongs to: the absolute value of Java's hash of the name, 0 for the
/// one number that has none (Kafka's `Utils.abs`; the default partitioner's `toPositive` is another function).
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// Name of the topic whose partitions are the shards.
pub const TOPIC: &str = GROUP_METADATA_TOPIC;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_java_puts_them() {
        // "group".hashCode() is 98629247, "" hashes to 0, "polygenelubricants" to Integer.MIN_VALUE.
        assert_eq!(partition_for("group", 50), 98_629_247 % 50);
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        // A negative hash, seen on a real Kafka: -317619447 lies in 0 of 3, where its lower 31 bits would say 2.
        assert_eq!((partition_for("swappers", 3), partition_for("swappers", 50)), (0, 47));
    }
}
