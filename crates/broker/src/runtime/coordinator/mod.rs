//! Drives the pure shards of a coordinator: appends what they want recorded, tells them when it is committed, keeps their
//! timers, does what they ask for, and answers requests when they say so. One runtime for groups, transactions and share
//! state. Answers to Kafka's `CoordinatorRuntime`.
//!
//! One shard per partition of the coordinator's topic that this broker leads. A shard's lock is taken before its
//! partition's and never while that one is held. Invariants: a shard's records are appended before its next step and
//! reported committed in the order in which it made them; every parked request is answered exactly once, also when its
//! shard goes away.

mod append;
pub mod image;
mod load;
mod timers;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use taccola_base::planted::{Bug, planted};
use taccola_coord::cluster_image::{ClusterImage, TopicChanges};
use taccola_coord::{
    AppendId, CoordinatorShard, Effects, EffectsOf, GroupShard, Reply, RequestContext as ShardContext, RequestToken,
};
use taccola_wire::batch::Compression;
use taccola_wire::error::ErrorCode;
use tokio::sync::oneshot;

use crate::clock;
use crate::context::RequestContext;
use crate::partition::{Durability, Partition};
use crate::runtime::blocking;
use crate::runtime::journal::{JournalRuntime, Ticket};
use timers::Timers;

/// A commit that the disk has not confirmed within this is given up as far as its requests are concerned.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Groups and their offsets.
pub type GroupCoordinator = Coordinator<GroupShard>;

/// All shards of this broker.
pub struct Coordinator<S: CoordinatorShard> {
    shards: RwLock<BTreeMap<i32, Arc<Shard<S>>>>,
    config: Mutex<S::Config>,
    /// What new shards begin with.
    image: Mutex<Arc<dyn ClusterImage>>,
    compression: Compression,
    durability: Durability,
    journal: Arc<JournalRuntime>,
    timers: Arc<Timers<S::TimerKey>>,
    handle: tokio::runtime::Handle,
    /// Does what shards want done outside; given the shard's partition.
    act: OnceLock<Act<S::Action>>,
    /// Itself, for the tasks that it starts.
    me: Weak<Self>,
}

type Act<A> = Box<dyn Fn(i32, A) + Send + Sync>;

/// One partition of the coordinator's topic.
pub(crate) struct Shard<S: CoordinatorShard> {
    partition: Arc<Partition>,
    core: Mutex<Core<S>>,
}

enum State<S> {
    Loading,
    Active(Box<S>),
    /// The log could not be understood: serving it could lose what it says.
    Failed,
}

struct Core<S: CoordinatorShard> {
    state: State<S>,
    next_token: u64,
    parked: HashMap<RequestToken, oneshot::Sender<S::Response>>,
    /// Appends that wait for the disk, oldest first.
    uncommitted: VecDeque<Uncommitted>,
}

#[derive(Clone, Copy)]
struct Uncommitted {
    append: AppendId,
    base_offset: i64,
    ticket: Ticket,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) api_version: i16,
    pub(crate) client_id: &'a str,
    pub(crate) client_host: &'a str,
}

/// The request's way in: what the shard's method is given.
pub(crate) struct Call<'a> {
    pub(crate) now_ms: i64,
    pub(crate) context: ShardContext<'a>,
}

/// A coordinator as the metadata sees it: where its shards are, and what the cluster looks like.
pub trait CoordinatorLifecycle: Send + Sync {
    /// The internal topic whose partitions are the shards.
    fn topic(&self) -> &'static str;

    /// See [`Coordinator::take_over`].
    fn take_over(&self, partition: Arc<Partition>);

    /// See [`Coordinator::give_up`].
    fn give_up(&self, partition: i32);

    /// See [`Coordinator::publish`].
    fn publish(&self, image: Arc<dyn ClusterImage>, changes: &TopicChanges);
}

impl<S: CoordinatorShard> CoordinatorLifecycle for Coordinator<S> {
    fn topic(&self) -> &'static str {
        S::TOPIC
    }

    fn take_over(&self, partition: Arc<Partition>) {
        Coordinator::take_over(self, partition);
    }

    fn give_up(&self, partition: i32) {
        Coordinator::give_up(self, partition);
    }

    fn publish(&self, image: Arc<dyn ClusterImage>, changes: &TopicChanges) {
        Coordinator::publish(self, image, changes);
    }
}

impl<S: CoordinatorShard> Coordinator<S> {
    pub fn new(
        config: S::Config,
        image: Arc<dyn ClusterImage>,
        compression_id: i8,
        durability: Durability,
        journal: Arc<JournalRuntime>,
        handle: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let coordinator = Arc::new_cyclic(|me| Self {
            shards: RwLock::default(),
            config: Mutex::new(config),
            image: Mutex::new(image),
            compression: Compression::from_id(u8::try_from(compression_id).unwrap_or(0)).unwrap_or_default(),
            durability,
            journal,
            timers: Timers::new(),
            handle,
            act: OnceLock::new(),
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

    /// Says what does the shards' actions; once, before the first partition is taken over.
    pub fn on_action(&self, act: impl Fn(i32, S::Action) + Send + Sync + 'static) {
        if self.act.set(Box::new(act)).is_err() {
            tracing::error!(topic = S::TOPIC, "the coordinator's actions are set twice; the first holds");
        }
    }

    /// Takes over a partition of the coordinator's topic: loads it, in the background unless it is empty.
    pub fn take_over(&self, partition: Arc<Partition>) {
        let index = partition.topic_partition.partition;
        if self.shards.read().contains_key(&index) {
            return;
        }
        let core = Core { state: State::Loading, next_token: 0, parked: HashMap::new(), uncommitted: VecDeque::new() };
        let shard = Arc::new(Shard { partition: partition.clone(), core: Mutex::new(core) });
        self.shards.write().insert(index, shard.clone());
        let empty = partition.with_log(|log| log.log_end_offset() == log.log_start_offset()).unwrap_or(true);
        if empty {
            return self.load(&shard);
        }
        let me = self.me.clone();
        blocking::spawn_on(&self.handle, move || {
            if let Some(coordinator) = me.upgrade() {
                coordinator.load(&shard);
            }
        });
    }

    fn load(&self, shard: &Arc<Shard<S>>) {
        let leader_epoch = shard.partition.leadership().leader_epoch;
        let (config, image) = (self.config.lock().clone(), self.image.lock().clone());
        let version = image.version();
        let mut state = S::new(config, image, leader_epoch);
        let loaded = load::replay_log(&shard.partition, &mut state);
        let mut core = shard.core.lock();
        if let Err(reason) = loaded {
            tracing::error!(partition = %shard.partition.topic_partition, reason, "cannot load a coordinator's partition");
            core.state = State::Failed;
            return;
        }
        let now_ms = clock::timer_ms();
        let effects = state.loaded(now_ms);
        core.state = State::Active(Box::new(state));
        self.run_effects(shard, &mut core, effects);
        // Settings and metadata may have changed while the log was read.
        let (config, image) = (self.config.lock().clone(), self.image.lock().clone());
        if let State::Active(state) = &mut core.state {
            state.set_config(config);
            if image.version() > version {
                let effects = state.on_new_image(now_ms, &image, &TopicChanges::default());
                self.run_effects(shard, &mut core, effects);
            }
        }
    }

    /// The partition is no longer here: whoever waits is told to look for the coordinator again.
    pub fn give_up(&self, partition: i32) {
        let Some(shard) = self.shards.write().remove(&partition) else { return };
        let mut core = shard.core.lock();
        if let State::Active(state) = std::mem::replace(&mut core.state, State::Loading) {
            for released in state.unload().released {
                if let Some(waiting) = core.parked.remove(&released.token) {
                    let _ = waiting.send(released.response);
                }
            }
        }
        self.timers.forget(partition);
    }

    /// New settings; what is under way keeps its deadlines.
    pub fn set_config(&self, config: S::Config) {
        *self.config.lock() = config.clone();
        for shard in self.all() {
            if let State::Active(state) = &mut shard.core.lock().state {
                state.set_config(config.clone());
            }
        }
    }

    /// The cluster's metadata changed. Called in the order of the images.
    pub fn publish(&self, image: Arc<dyn ClusterImage>, changes: &TopicChanges) {
        *self.image.lock() = image.clone();
        for shard in self.all() {
            let mut core = shard.core.lock();
            if let State::Active(state) = &mut core.state {
                let effects = state.on_new_image(clock::timer_ms(), &image, changes);
                self.run_effects(&shard, &mut core, effects);
            }
        }
    }

    fn all(&self) -> Vec<Arc<Shard<S>>> {
        self.shards.read().values().cloned().collect()
    }

    /// Runs one request on the shard of a group. `Err` is the error for the whole request: the group is not here, or not
    /// loaded yet.
    pub(crate) async fn call<R>(
        &self,
        partition: i32,
        context: &RequestContext,
        handle: impl FnOnce(&mut S, Call<'_>) -> EffectsOf<S, R>,
        take: impl FnOnce(S::Response) -> Option<R>,
    ) -> Result<R, ErrorCode> {
        let host = context.client_host();
        let who = Caller { api_version: context.api_version, client_id: context.client_id(), client_host: &host };
        self.call_as(partition, who, handle, take).await
    }

    /// The same for what the broker itself asks of a shard.
    pub(crate) async fn call_as<R>(
        &self,
        partition: i32,
        who: Caller<'_>,
        handle: impl FnOnce(&mut S, Call<'_>) -> EffectsOf<S, R>,
        take: impl FnOnce(S::Response) -> Option<R>,
    ) -> Result<R, ErrorCode> {
        let waiting = {
            let shard = self.shard(partition)?;
            let mut core = shard.core.lock();
            let token = RequestToken(core.next_token);
            core.next_token += 1;
            let call = Call {
                now_ms: clock::timer_ms(),
                context: ShardContext {
                    token,
                    api_version: who.api_version,
                    client_id: who.client_id,
                    client_host: who.client_host,
                    fresh_id: crate::random::bytes16(),
                },
            };
            let (response, effects) = split(handle(active(&mut core)?, call));
            let waiting = match response {
                Reply::Now(response) => Ok(response),
                Reply::Parked => {
                    let (sender, receiver) = oneshot::channel();
                    core.parked.insert(token, sender);
                    Err(receiver)
                }
            };
            self.run_effects(&shard, &mut core, effects);
            waiting
        };
        match waiting {
            Ok(response) => Ok(response),
            Err(receiver) => receiver.await.ok().and_then(take).ok_or(ErrorCode::NotCoordinator),
        }
    }

    /// Looks at a shard without changing it.
    pub(crate) fn look<R>(&self, partition: i32, look: impl FnOnce(&S) -> R) -> Result<R, ErrorCode> {
        let shard = self.shard(partition)?;
        let mut core = shard.core.lock();
        active(&mut core).map(|groups| look(groups))
    }

    /// Looks at each shard that is loaded; true when all are.
    pub(crate) fn look_at_all(&self, mut look: impl FnMut(&S)) -> bool {
        let mut all = true;
        for shard in self.all() {
            match active(&mut shard.core.lock()) {
                Ok(groups) => look(groups),
                Err(_) => all = false,
            }
        }
        all
    }

    fn shard(&self, partition: i32) -> Result<Arc<Shard<S>>, ErrorCode> {
        self.shards.read().get(&partition).cloned().ok_or(ErrorCode::NotCoordinator)
    }

    fn fire(&self, partition: i32, key: &S::TimerKey) {
        let Ok(shard) = self.shard(partition) else { return };
        let mut core = shard.core.lock();
        if let State::Active(state) = &mut core.state {
            let effects = state.on_timer(clock::timer_ms(), key);
            self.run_effects(&shard, &mut core, effects);
        }
    }

    /// Does what a step asks for, and what that leads to.
    fn run_effects(&self, shard: &Arc<Shard<S>>, core: &mut Core<S>, effects: EffectsOf<S, ()>) {
        let partition = shard.partition.topic_partition.partition;
        let mut due = VecDeque::from([effects]);
        while let Some(effects) = due.pop_front() {
            self.timers.apply(partition, effects.timers);
            for released in effects.released {
                // A client that went away has dropped its end.
                if let Some(waiting) = core.parked.remove(&released.token) {
                    let _ = waiting.send(released.response);
                }
            }
            for action in effects.actions {
                if let Some(act) = self.act.get() {
                    act(partition, action);
                }
            }
            let Some(append) = effects.append else { continue };
            let is_groups = S::TOPIC == GroupShard::TOPIC;
            let appended = match planted(Bug::CommitNotWritten) && is_groups && append.0 % 4 == 3 {
                true => Ok((0, None)),
                false => self.append(&shard.partition, &effects.records, effects.batch),
            };
            let not_awaited = if is_groups { Bug::CommitNotAwaited } else { Bug::DecisionNotAwaited };
            let State::Active(state) = &mut core.state else { continue };
            let now_ms = clock::timer_ms();
            match appended {
                Ok((base_offset, ticket)) => {
                    state.appended(now_ms, append, base_offset);
                    match ticket {
                        None => due.push_back(state.committed(now_ms, append, base_offset)),
                        Some(_) if planted(not_awaited) => {
                            due.push_back(state.committed(now_ms, append, base_offset));
                        }
                        Some(ticket) => {
                            core.uncommitted.push_back(Uncommitted { append, base_offset, ticket });
                            self.confirm_later(shard, ticket);
                        }
                    }
                }
                Err(error) => due.push_back(state.failed(now_ms, append, error)),
            }
        }
    }

    /// Waits for the disk in a task of its own, then reports everything that is confirmed by then, in order.
    fn confirm_later(&self, shard: &Arc<Shard<S>>, ticket: Ticket) {
        let (shard, coordinator, journal) = (Arc::downgrade(shard), self.me.clone(), self.journal.clone());
        self.handle.spawn(async move {
            let confirmed = journal.wait_for(ticket, COMMIT_WAIT_MAX).await;
            let (Some(shard), Some(coordinator)) = (shard.upgrade(), coordinator.upgrade()) else { return };
            coordinator.confirm(&shard, ticket, confirmed.is_ok());
        });
    }

    fn confirm(&self, shard: &Arc<Shard<S>>, ticket: Ticket, durable: bool) {
        let mut core = shard.core.lock();
        while let Some(oldest) = core.uncommitted.front().copied().filter(|oldest| oldest.ticket <= ticket) {
            core.uncommitted.pop_front();
            let State::Active(state) = &mut core.state else { return };
            let now_ms = clock::timer_ms();
            let effects = match durable {
                true => state.committed(now_ms, oldest.append, oldest.base_offset),
                false => state.timed_out(now_ms, oldest.append, ErrorCode::KafkaStorageError),
            };
            self.run_effects(shard, &mut core, effects);
        }
    }
}

fn active<S: CoordinatorShard>(core: &mut Core<S>) -> Result<&mut S, ErrorCode> {
    match &mut core.state {
        State::Active(state) => Ok(state),
        State::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
        State::Failed => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

fn split<R, P, K, A>(effects: Effects<R, P, K, A>) -> (Reply<R>, Effects<(), P, K, A>) {
    let Effects { records, batch, append, response, released, timers, actions } = effects;
    (response, Effects { records, batch, append, response: Reply::Now(()), released, timers, actions })
}

/// The partition of a coordinator's topic that a group, or a transactional id, belongs to: the absolute value of Java's hash of the name, 0 for the
/// one number that has none (Kafka's `Utils.abs`; the default partitioner's `toPositive` is another function).
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

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
