//! One share-partition that this broker leads: the state machine with its loading, its writes and its lock timer.
//! Answers to the asynchronous half of Kafka's `SharePartition`.
//!
//! Invariants: the state is loaded before anything is delivered; writes go to the persister one after another in the
//! order of the steps they come from, those that wait together as one; a leader that is fenced, or whose group or topic
//! is gone, ends for good, and the next request loads a new one. One timer task while records are locked, none else.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use taccola_coord::share_partition::{
    AckError, AcknowledgementBatch, LoadError, SharePartition, StateBatch, StateWrite, UNINITIALIZED_START_OFFSET,
};
use taccola_coord::share_state::{self, SharePartitionKey, ShareStateError, WriteState};
use taccola_log::TimestampQuery;
use taccola_wire::error::ErrorCode;
use tokio::sync::oneshot;

use super::settings::ShareGroupSettings;
use crate::broker::Broker;
use crate::clock;
use crate::error_map;
use crate::fetch::waiter::{FetchWaiter, WaiterList};
use crate::partition::{FetchIsolation, Partition};

/// Writes of one share-partition that go to the persister as one, at most.
const WRITES_TOGETHER_MAX: usize = 64;
/// How often the persister is asked while its coordinator is not there, and how long until it is asked again: twice as
/// long each time.
const PERSISTER_ATTEMPTS_MAX: u32 = 7;
const PERSISTER_BACKOFF: Duration = Duration::from_millis(50);

/// A write, and who waits for it.
type Queued = (StateWrite, oneshot::Sender<Result<(), ErrorCode>>);
/// What becomes of a write.
pub(super) type Fate = oneshot::Receiver<Result<(), ErrorCode>>;

#[derive(Debug)]
pub struct ShareLeader {
    pub key: SharePartitionKey,
    pub partition: Arc<Partition>,
    pub leader_epoch: i32,
    broker: Weak<Broker>,
    state: Mutex<LeaderState>,
}

#[derive(Debug)]
struct LeaderState {
    phase: Phase,
    /// A fetch reads the log now: no other does, and what it finds is acquired in order.
    fetching: bool,
    /// A fetch came while another had the turn: it looks again when the turn ends.
    turn_wanted: bool,
    /// Goes up whenever waiting fetches shall look again.
    version: u64,
    waiters: WaiterList,
    writes: VecDeque<Queued>,
    /// A task works on `writes`.
    writing: bool,
    /// When the timer fires. Wall clock milliseconds.
    timer_at_ms: Option<i64>,
}

#[derive(Debug)]
enum Phase {
    Loading,
    Active(Box<SharePartition>),
    /// Nobody needed it; whoever does now asks for a new one.
    Retired,
    Ended(ErrorCode),
}

/// What a fetch finds.
pub(super) enum Turn {
    /// It may read from this offset; it must end its turn.
    Mine {
        fetch_offset: i64,
    },
    /// Nothing to get here before something changes.
    Wait,
    /// A new leader must be asked for.
    Retired,
    Ended(ErrorCode),
}

impl ShareLeader {
    pub(super) fn new(broker: &Arc<Broker>, key: SharePartitionKey, partition: Arc<Partition>) -> Arc<Self> {
        let leader_epoch = partition.leadership().leader_epoch;
        let state = LeaderState {
            phase: Phase::Loading,
            fetching: false,
            turn_wanted: false,
            version: 0,
            waiters: WaiterList::default(),
            writes: VecDeque::new(),
            writing: false,
            timer_at_ms: None,
        };
        let broker = Arc::downgrade(broker);
        let leader = Arc::new(Self { key, partition, leader_epoch, broker, state: Mutex::new(state) });
        tokio::spawn(load(leader.clone()));
        leader
    }

    /// Whether a new one must take its place for those who come now.
    pub fn is_ended(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Ended(_))
    }

    /// Asks for the right to read, and says which state that was, for [`Self::register`].
    pub(super) fn begin_fetch(&self, settings: &ShareGroupSettings) -> (Turn, u64) {
        let mut state = self.state.lock();
        let version = state.version;
        let fetching = state.fetching;
        let turn = match &mut state.phase {
            Phase::Loading => Turn::Wait,
            Phase::Retired => Turn::Retired,
            Phase::Ended(error) => Turn::Ended(*error),
            Phase::Active(_) if fetching => {
                state.turn_wanted = true;
                Turn::Wait
            }
            Phase::Active(partition) => {
                partition.set_limits(settings.limits);
                if partition.can_acquire() {
                    let fetch_offset = partition.next_fetch_offset();
                    state.fetching = true;
                    Turn::Mine { fetch_offset }
                } else {
                    Turn::Wait
                }
            }
        };
        (turn, version)
    }

    /// Ends a turn: `take` acquires from what was read. Also says which state it leaves, for [`Self::register`]. Fetches
    /// that came meanwhile look again; no others, or those that wait at the end of the log would wake each other for ever.
    pub fn end_fetch<T>(self: &Arc<Self>, take: impl FnOnce(i64, &mut SharePartition) -> T) -> (Option<T>, u64) {
        let mut state = self.state.lock();
        state.fetching = false;
        let mut wake = std::mem::take(&mut state.turn_wanted);
        let now_ms = clock::timer_ms();
        let taken = match &mut state.phase {
            Phase::Active(partition) => {
                let start_offset = partition.start_offset();
                let taken = take(now_ms, partition);
                wake |= partition.start_offset() != start_offset;
                Some(taken)
            }
            _ => None,
        };
        if wake {
            state.wake();
        }
        self.arm_timer(&mut state);
        (taken, state.version)
    }

    /// Has a fetch woken by the next change, or at once if there was one since `version`.
    pub fn register(&self, waiter: &Arc<FetchWaiter>, version: u64) {
        let mut state = self.state.lock();
        if state.version == version {
            state.waiters.register(waiter.clone());
        } else {
            waiter.wake();
        }
    }

    /// A member's verdict. `Ok(None)`: done, nothing to write.
    pub(super) fn acknowledge(
        self: &Arc<Self>,
        member: &str,
        settings: &ShareGroupSettings,
        batches: &[AcknowledgementBatch],
    ) -> Result<Option<Fate>, ErrorCode> {
        let mut state = self.state.lock();
        let now_ms = clock::timer_ms();
        let partition = match &mut state.phase {
            Phase::Active(partition) => partition,
            // Nothing is delivered yet, so nothing can be acknowledged.
            Phase::Loading | Phase::Retired => return Err(ErrorCode::InvalidRecordState),
            Phase::Ended(error) => return Err(*error),
        };
        partition.set_limits(settings.limits);
        let write = partition.acknowledge(now_ms, member, batches).map_err(|error| match error {
            AckError::InvalidRecordState => ErrorCode::InvalidRecordState,
            AckError::InvalidRequest => ErrorCode::InvalidRequest,
        })?;
        let fate = write.map(|write| self.submit(&mut state, write));
        self.arm_timer(&mut state);
        Ok(fate)
    }

    /// Gives back what a member has.
    pub fn release(self: &Arc<Self>, member: &str) {
        let mut state = self.state.lock();
        let Phase::Active(partition) = &mut state.phase else { return };
        if let Some(write) = partition.release(member) {
            self.submit(&mut state, write);
        }
    }

    /// Ends it for want of members, if nothing is being written. True when it has ended.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        if state.writing {
            return false;
        }
        if matches!(state.phase, Phase::Active(_)) {
            state.phase = Phase::Retired;
            state.wake();
        }
        matches!(state.phase, Phase::Retired | Phase::Ended(_))
    }

    /// This broker does not lead the share-partition any more.
    pub fn end(&self, error: ErrorCode) {
        let mut state = self.state.lock();
        state.phase = Phase::Ended(error);
        state.wake();
    }

    fn submit(self: &Arc<Self>, state: &mut LeaderState, write: StateWrite) -> Fate {
        let (sender, fate) = oneshot::channel();
        state.writes.push_back((write, sender));
        if !state.writing {
            state.writing = true;
            tokio::spawn(write_all(self.clone()));
        }
        fate
    }

    /// Makes sure that a timer fires when the next lock runs out.
    fn arm_timer(self: &Arc<Self>, state: &mut LeaderState) {
        let Phase::Active(partition) = &state.phase else { return };
        let Some(deadline_ms) = partition.next_deadline_ms() else { return };
        if state.timer_at_ms.is_none_or(|at_ms| deadline_ms < at_ms) {
            state.timer_at_ms = Some(deadline_ms);
            tokio::spawn(timer(Arc::downgrade(self), deadline_ms));
        }
    }

    fn on_timer(self: &Arc<Self>, at_ms: i64) {
        let mut state = self.state.lock();
        if state.timer_at_ms != Some(at_ms) {
            return;
        }
        state.timer_at_ms = None;
        let Phase::Active(partition) = &mut state.phase else { return };
        if let Some(write) = partition.lock_timeouts(clock::timer_ms()) {
            self.submit(&mut state, write);
            state.wake();
        }
        self.arm_timer(&mut state);
    }

    fn loaded(&self, loaded: Result<SharePartition, ErrorCode>) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Loading) {
            state.phase = match loaded {
                Ok(partition) => Phase::Active(Box::new(partition)),
                Err(error) => Phase::Ended(error),
            };
        }
        state.wake();
    }

    /// What is to be written next; `None` ends the task that writes.
    fn next_writes(&self) -> Option<Vec<Queued>> {
        let mut state = self.state.lock();
        let count = state.writes.len().min(WRITES_TOGETHER_MAX);
        state.writing = count > 0;
        (count > 0).then(|| state.writes.drain(..count).collect())
    }

    fn written(self: &Arc<Self>, writes: Vec<Written>, result: Result<(), ErrorCode>) {
        let mut state = self.state.lock();
        let now_ms = clock::timer_ms();
        let mut changed = false;
        if let Phase::Active(partition) = &mut state.phase {
            for write in &writes {
                changed |= partition.written(write.id, now_ms, result.is_ok());
            }
        }
        if let Err(error) = result
            && ends_leader(error)
        {
            state.phase = Phase::Ended(error);
            changed = true;
        }
        if changed {
            state.wake();
        }
        self.arm_timer(&mut state);
        drop(state);
        for write in writes {
            // Nobody waits for releases and lock timeouts.
            let _ = write.fate.send(result);
        }
    }
}

impl LeaderState {
    fn wake(&mut self) {
        self.version += 1;
        self.waiters.wake_all();
    }
}

struct Written {
    id: u64,
    fate: oneshot::Sender<Result<(), ErrorCode>>,
}

/// The errors after which this leader's state is not to be trusted: another one leads, or there is nothing to lead.
fn ends_leader(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::GroupIdNotFound | ErrorCode::UnknownTopicOrPartition)
}

/// What a client is told of a persister's error.
fn persister_error(error: &ShareStateError) -> ErrorCode {
    match error.code {
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable | ErrorCode::CoordinatorLoadInProgress => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::FencedLeaderEpoch | ErrorCode::FencedStateEpoch => ErrorCode::NotLeaderOrFollower,
        code @ (ErrorCode::GroupIdNotFound | ErrorCode::UnknownTopicOrPartition) => code,
        _ => ErrorCode::UnknownServerError,
    }
}

/// Asks the persister until its coordinator is there, or it has been long enough.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, ErrorCode>
where
    F: Future<Output = Result<T, ShareStateError>>,
{
    let mut attempt = 0;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => persister_error(&error),
        };
        attempt += 1;
        if error != ErrorCode::CoordinatorNotAvailable || attempt >= PERSISTER_ATTEMPTS_MAX {
            return Err(error);
        }
        tokio::time::sleep(PERSISTER_BACKOFF.saturating_mul(1 << attempt)).await;
    }
}

async fn load(leader: Arc<ShareLeader>) {
    let loaded = match leader.broker.upgrade() {
        Some(broker) => read(&broker, &leader).await,
        None => Err(ErrorCode::CoordinatorNotAvailable),
    };
    if let Err(error) = &loaded {
        tracing::debug!(group = %leader.key.group_id, partition = %leader.partition.topic_partition, ?error, "cannot load a share-partition");
    }
    leader.loaded(loaded);
}

async fn read(broker: &Broker, leader: &ShareLeader) -> Result<SharePartition, ErrorCode> {
    let read = patiently(|| broker.read_share_state(&leader.key, leader.leader_epoch)).await?;
    let settings = ShareGroupSettings::of(broker, &leader.key.group_id);
    let start_offset = match read.start_offset {
        UNINITIALIZED_START_OFFSET => reset_offset(&leader.partition, &settings)?,
        offset => offset,
    };
    let batches: Vec<StateBatch> = read.batches.iter().map(state_batch).collect();
    SharePartition::load(settings.limits, leader.leader_epoch, read.state_epoch, start_offset, &batches).map_err(
        |error: LoadError| {
            tracing::error!(
                group = %leader.key.group_id, partition = %leader.partition.topic_partition, %error,
                "the state of a share-partition cannot be used"
            );
            ErrorCode::UnknownServerError
        },
    )
}

/// Where a group begins that has read nothing of the partition.
fn reset_offset(partition: &Partition, settings: &ShareGroupSettings) -> Result<i64, ErrorCode> {
    let query = settings.offset_reset.query(clock::now_ms());
    let found = partition.with_log(|log| {
        // A group that sees committed records alone begins, as Kafka has it, at the high watermark all the same.
        let latest = FetchIsolation::HighWatermark.upper_bound(log);
        if query == TimestampQuery::Latest {
            return Ok(latest);
        }
        log.offset_for_timestamp(query).map(|found| found.map_or(latest, |found| found.offset.min(latest)))
    });
    found.ok_or(ErrorCode::NotLeaderOrFollower)?.map_err(|error| error_map::log_read(&error))
}

fn state_batch(batch: &share_state::StateBatch) -> StateBatch {
    StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    }
}

/// Works on a leader's writes until there are none.
async fn write_all(leader: Arc<ShareLeader>) {
    loop {
        let Some(writes) = leader.next_writes() else {
            if let Some(broker) = leader.broker.upgrade() {
                broker.share_fetch.retire(&leader);
            }
            return;
        };
        let Some(request) = together(writes.iter().map(|(write, _)| write)) else { continue };
        let result = match leader.broker.upgrade() {
            // A write that got there although nobody heard of it changes nothing when it comes again.
            Some(broker) => patiently(|| broker.write_share_state(&leader.key, &request)).await,
            None => Err(ErrorCode::CoordinatorNotAvailable),
        };
        let writes = writes.into_iter().map(|(write, fate)| Written { id: write.id, fate }).collect();
        leader.written(writes, result);
    }
}

/// Writes that follow each other, as one: the last one's offsets, and the state batches in their order.
fn together<'a>(writes: impl Iterator<Item = &'a StateWrite>) -> Option<WriteState> {
    let mut all: Option<WriteState> = None;
    for write in writes {
        let batches = write.batches.iter().map(|batch| share_state::StateBatch {
            first_offset: batch.first_offset,
            last_offset: batch.last_offset,
            delivery_count: batch.delivery_count,
            delivery_state: batch.delivery_state,
        });
        let all = all.get_or_insert_with(|| WriteState {
            state_epoch: write.state_epoch,
            leader_epoch: write.leader_epoch,
            start_offset: write.start_offset,
            delivery_complete_count: 0,
            batches: Vec::new(),
        });
        all.start_offset = write.start_offset;
        all.delivery_complete_count = write.delivery_complete_count;
        all.batches.extend(batches);
    }
    all
}

/// Waits until a lock runs out.
async fn timer(leader: Weak<ShareLeader>, at_ms: i64) {
    loop {
        let left_ms = at_ms.saturating_sub(clock::timer_ms());
        let Ok(left_ms) = u64::try_from(left_ms) else { break };
        if left_ms == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(left_ms)).await;
    }
    if let Some(leader) = leader.upgrade() {
        leader.on_timer(at_ms);
    }
}
