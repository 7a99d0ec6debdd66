//! One partition as the broker sees it: its log, its high watermark, who waits for it. Answers to Kafka's `Partition`.
//!
//! A plain struct with one short critical section: no task, no timer. Invariants:
//! - The high watermark never passes a record whose caller asked for durability until the journal has it on disk, so no
//!   consumer ever sees a record that a power cut could take back after it was promised.
//! - Batches enter the journal in the order of their offsets.
//! - Once a log is offline nothing is acknowledged any more.

mod append;
mod read;
mod relocate;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use taccola_base::planted::{Bug, planted};
use taccola_base::{TopicPartition, Uuid};
use taccola_log::{FlushPlan, LogError, PartitionLog};

pub use append::{AppendOutcome, AppendRejected, Durability};
pub use read::{EpochCheck, FetchIsolation, PartitionRead, ReadRejected};
pub use relocate::{Copied, RelocateError, Swapped};

use crate::fetch::waiter::{FetchWaiter, WaiterList};
use crate::runtime::journal::Ticket;
use crate::topic_config::TopicConfig;

/// Partitions whose files are open at the same time for a flush.
const FLUSHED_TOGETHER: usize = 256;

/// How often a flush looks whether another one of the same log has ended.
const OTHER_FLUSH_POLL: Duration = Duration::from_millis(1);

/// Facts of a partition from the metadata image that appends and reads are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub leader_id: i32,
    pub leader_epoch: i32,
    /// Replicas, and those of them in the ISR.
    pub replicas_len: i32,
    pub isr_len: i32,
}

/// Lives from the partition's creation, or the broker's start, until its topic is deleted or the broker stops.
#[derive(Debug)]
pub struct Partition {
    pub topic_partition: TopicPartition,
    pub topic_id: Uuid,
    /// Index into `log.dirs`.
    log_dir: AtomicUsize,
    /// Whether the journal counts this partition among those that its next checkpoint must sync.
    dirty: AtomicBool,
    state: Mutex<PartitionState>,
}

#[derive(Debug)]
struct PartitionState {
    /// `None` once the partition is deleted or closed: it answers as if it did not exist.
    log: Option<PartitionLog>,
    leadership: Leadership,
    config: Arc<TopicConfig>,
    /// Batches that wait for the journal, oldest first. LIMIT: bounded by the journal's staging space.
    undurable: VecDeque<Undurable>,
    /// The ticket of the newest batch in the journal.
    last_ticket: Option<Ticket>,
    waiters: WaiterList,
    /// Who waits for committed records: woken by the last stable offset.
    stable_waiters: WaiterList,
}

/// A batch that was appended and is not yet on disk.
#[derive(Clone, Copy, Debug)]
struct Undurable {
    base_offset: i64,
    next_offset: i64,
    bytes: i64,
}

impl Partition {
    pub fn new(
        log: PartitionLog,
        topic_id: Uuid,
        log_dir: usize,
        leadership: Leadership,
        config: Arc<TopicConfig>,
    ) -> Arc<Self> {
        let topic_partition = log.topic_partition().clone();
        let state = PartitionState {
            log: Some(log),
            leadership,
            config,
            undurable: VecDeque::new(),
            last_ticket: None,
            waiters: WaiterList::default(),
            stable_waiters: WaiterList::default(),
        };
        Arc::new(Self {
            topic_partition,
            topic_id,
            log_dir: AtomicUsize::new(log_dir),
            dirty: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Which of `log.dirs` holds it.
    pub fn log_dir(&self) -> usize {
        self.log_dir.load(Ordering::Acquire)
    }

    pub fn leadership(&self) -> Leadership {
        self.state.lock().leadership
    }

    /// Takes over what the metadata image says. A new leader epoch is noted in the log and wakes fetches.
    pub fn set_leadership(&self, leadership: Leadership) {
        let mut state = self.state.lock();
        if state.leadership != leadership {
            state.leadership = leadership;
            state.wake_all();
        }
    }

    /// The topic's settings. Cheap: one pointer is copied.
    pub fn topic_config(&self) -> Arc<TopicConfig> {
        self.state.lock().config.clone()
    }

    /// Takes effect from the next append on.
    pub fn set_topic_config(&self, config: Arc<TopicConfig>) {
        let mut state = self.state.lock();
        if let Some(log) = &mut state.log {
            log.set_config(config.log.clone());
        }
        state.config = config;
    }

    /// Runs `f` on the log; `None` once the partition is gone. Keep it short: appends wait meanwhile.
    pub fn with_log<T>(&self, f: impl FnOnce(&mut PartitionLog) -> T) -> Option<T> {
        self.state.lock().log.as_mut().map(f)
    }

    /// Takes the log away for good: fetches wake and find the partition gone.
    pub fn take_log(&self) -> Option<PartitionLog> {
        let mut state = self.state.lock();
        state.wake_all();
        state.log.take()
    }

    /// The same for a clean stop. A flush under way comes to its end first: a log that is closed during one does not sync
    /// what was appended since that began.
    pub fn take_log_to_close(&self) -> Option<PartitionLog> {
        loop {
            let mut state = self.state.lock();
            if !state.log.as_ref().is_some_and(PartitionLog::flush_is_running) {
                state.wake_all();
                return state.log.take();
            }
            drop(state);
            std::thread::sleep(OTHER_FLUSH_POLL);
        }
    }

    /// Registers a fetch, unless more is visible than `seen_upper_bound`, in which case it wakes at once.
    pub fn register_waiter(&self, waiter: &Arc<FetchWaiter>, isolation: FetchIsolation, seen_upper_bound: i64) {
        let mut state = self.state.lock();
        match &state.log {
            Some(log) if isolation.upper_bound(log) == seen_upper_bound => match isolation {
                FetchIsolation::TxnCommitted => state.stable_waiters.register(waiter.clone()),
                FetchIsolation::LogEnd | FetchIsolation::HighWatermark => state.waiters.register(waiter.clone()),
            },
            _ => waiter.wake(),
        }
    }

    /// True when the partition was not dirty before.
    pub fn mark_dirty(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Whether the journal has batches of it that a checkpoint must sync before they may go.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Whether it is here and its disk has not failed.
    pub fn is_online(&self) -> bool {
        self.with_log(|log| !log.is_offline()).unwrap_or(false)
    }

    /// Must come before the flush that makes it true.
    pub fn clear_dirty(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    /// Makes all that was appended so far durable in the segments. The files are synced outside the critical section; who
    /// meets another flush of the same log waits for it, as that one need not cover what was appended since it began. A
    /// failure takes the log offline and is never tried again. A partition that is gone has nothing to flush.
    pub fn flush(self: &Arc<Self>) -> Result<(), LogError> {
        Self::flush_all(std::slice::from_ref(self)).map_err(|(_, error)| error)
    }

    /// [`Self::flush`] of many, as few flushes of the file system where they are many. The first failure ends it.
    pub fn flush_all(partitions: &[Arc<Partition>]) -> Result<(), (Arc<Partition>, LogError)> {
        for some in partitions.chunks(FLUSHED_TOGETHER) {
            let mut waiting = Self::flush_idle(some)?;
            while !waiting.is_empty() {
                // Another flush of the same log may not cover what was appended since it began.
                std::thread::sleep(OTHER_FLUSH_POLL);
                waiting = Self::flush_idle(&waiting)?;
            }
        }
        Ok(())
    }

    /// Flushes those that nobody else flushes at this moment; answers the others. Waits for nobody while it holds plans of
    /// its own.
    fn flush_idle(some: &[Arc<Partition>]) -> Result<Vec<Arc<Partition>>, (Arc<Partition>, LogError)> {
        let (mut begun, mut plans, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut failed = Ok(());
        for partition in some {
            let begin = |log: &mut PartitionLog| (!log.flush_is_running()).then(|| log.begin_flush());
            match partition.with_log(begin) {
                None | Some(Some(Ok(None))) => {}
                Some(None) => waiting.push(partition.clone()),
                Some(Some(Ok(Some(plan)))) => {
                    begun.push(partition);
                    plans.push(plan);
                }
                Some(Some(Err(error))) => {
                    // What was begun must end.
                    failed = Err((Arc::clone(partition), error));
                    break;
                }
            }
        }
        let results = FlushPlan::run_all(&plans);
        let now_ms = crate::clock::now_ms();
        for (partition, (plan, result)) in begun.into_iter().zip(plans.into_iter().zip(results)) {
            let ended = partition.with_log(|log| log.end_flush(plan, result, now_ms)).transpose();
            failed = failed.and(ended.map(|_| ()).map_err(|error| (Arc::clone(partition), error)));
        }
        failed.map(|()| waiting)
    }

    /// The journal has everything below `next_offset` on disk.
    pub fn durable_up_to(&self, next_offset: i64) {
        let mut state = self.state.lock();
        let mut bytes = 0;
        while let Some(oldest) = state.undurable.front().copied() {
            if oldest.next_offset > next_offset {
                break;
            }
            bytes += oldest.bytes;
            state.undurable.pop_front();
        }
        if planted(Bug::HighWatermarkStuck) {
            return;
        }
        state.advance_high_watermark(bytes);
    }
}

impl PartitionState {
    fn wake_all(&mut self) {
        self.waiters.wake_all();
        self.stable_waiters.wake_all();
    }

    /// Raises the high watermark to the first batch that is not durable, or the log's end, and tells who waits.
    fn advance_high_watermark(&mut self, bytes: i64) {
        let Some(log) = &mut self.log else { return };
        let target = self.undurable.front().map_or(log.log_end_offset(), |oldest| oldest.base_offset);
        let target = if planted(Bug::HighWatermarkTooFar) { log.log_end_offset() } else { target };
        let before = log.high_watermark();
        if target <= before {
            return;
        }
        // Looked at only where somebody waits for it: the log may not have read its producers yet.
        let stable_before = (!self.stable_waiters.is_empty()).then(|| log.last_stable_offset());
        log.set_high_watermark(target);
        self.waiters.add(bytes.max(1));
        let Some(stable_before) = stable_before else { return };
        match log.last_stable_offset() - stable_before {
            ..=0 => {}
            // The end of a transaction shows what was there before: more than these bytes.
            moved if moved > target - before => self.stable_waiters.wake_all(),
            _ => self.stable_waiters.add(bytes.max(1)),
        }
    }
}
