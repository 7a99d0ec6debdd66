//! Group commit: many acknowledgements per flush, without a flusher thread.
//!
//! Batches are staged under the partition's lock and get a ticket. Whoever waits for a ticket and finds no flush running
//! performs one for all that is staged, on its own thread: a single producer so pays no hand-over, and whatever arrives
//! during a flush is the next one. When a flush ends it wakes those that it acknowledged, and one of those that it did
//! not, who leads the next. There is no window to tune. A disk that is slow blocks no worker of the runtime: whoever leads
//! hands the worker's place on first (see `workers`).
//!
//! Invariants: tickets are given in staging order and acknowledged in that order; a partition's high watermark is raised
//! before a ticket is; after a failed write nothing is acknowledged any more, and the broker stops.
//! LIMIT: one frame in flight, one being filled; what does not fit waits in `overflow`, which is bounded by the memory
//! permits of the requests that it belongs to.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use taccola_base::limits;
use taccola_base::planted::{Bug, planted};
use taccola_log::LogError;
use taccola_log::journal::{
    EntryHeader, EntryKind, JournalError, JournalTail, JournalWriter, StageError, StagedFrame, Staging,
};

use crate::partition::Partition;
use crate::runtime::replicas::describe;
use crate::runtime::workers::wait_for_disk;

/// A flush that takes longer than this (microseconds) is worth a switch of threads.
const SLOW_FLUSH_US: u64 = 500;

/// A place in the order of all journaled batches. Acknowledged once everything up to it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why a wait ended without an acknowledgement.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalWaitError {
    #[error("the disk did not answer in time")]
    TimedOut,
    #[error("the journal failed: {0}")]
    Failed(Arc<str>),
}

/// A batch for which the frame had no room.
struct Overflow {
    partition: Arc<Partition>,
    base_offset: i64,
    next_offset: i64,
    records: Bytes,
}

/// A batch in the frame that is being filled.
struct StagedBatch {
    partition: Arc<Partition>,
    next_offset: i64,
    /// Too large for any frame: the segment itself is synced instead.
    sync_segment: bool,
}

struct State {
    staging: Staging,
    staged: Vec<StagedBatch>,
    overflow: VecDeque<Overflow>,
    /// Last ticket given; last one whose batch is in the frame; last one acknowledged.
    given: u64,
    in_frame: u64,
    durable: u64,
    running: bool,
    waiters: Vec<(Ticket, Waker)>,
    failed: Option<Arc<str>>,
    /// Partitions with batches in frames that are not released.
    dirty: Vec<Arc<Partition>>,
}

/// Whoever knows the log directories, as the journal sees it: one of several may fail while the others go on.
pub trait LogDirFailures: Send + Sync {
    /// Whether a directory failed whose partitions are still here.
    fn is_pending(&self) -> bool;

    /// Notes that a log could not be flushed. False: nothing goes without its directory.
    fn note(&self, log_dir: usize, reason: &str) -> bool;

    /// Takes the partitions of failed directories away and keeps what the journal has of them. Called while nothing is
    /// written to the journal and nothing is released.
    fn isolate(&self) -> Result<(), String>;
}

/// Shared by all partitions and connections.
pub struct JournalRuntime {
    state: Mutex<State>,
    writer: Mutex<Option<JournalWriter>>,
    tail: Arc<JournalTail>,
    /// Held during a checkpoint: one at a time.
    checkpointing: Mutex<()>,
    checkpoint_wanted: (Mutex<bool>, Condvar),
    /// Bytes appended past the journal since the last checkpoint was asked for because of them.
    unflushed_bytes: AtomicU64,
    log_dirs: OnceLock<Box<dyn LogDirFailures>>,
    on_failure: Box<dyn Fn(&str) + Send + Sync>,
    /// Tells the disk up to where each log is flushed. False: it could not.
    note_recovery_points: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// Why nothing may be appended, if so.
    read_only: Mutex<Option<Arc<str>>>,
    is_read_only: AtomicBool,
    /// How long a flush takes of late, microseconds.
    flush_us: AtomicU64,
}

impl std::fmt::Debug for JournalRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalRuntime").field("tail", &self.tail).finish_non_exhaustive()
    }
}

/// How a checkpoint went.
enum Checkpointed {
    Released,
    /// Recovery points could not be written: the frames are kept.
    NotNoted,
    /// A log directory failed, and the next try will go on without it.
    DirFailed,
}

impl JournalRuntime {
    /// `on_failure` is called once, when the journal or a segment under it can no longer be trusted.
    pub fn new(staging: Staging, writer: JournalWriter, on_failure: Box<dyn Fn(&str) + Send + Sync>) -> Self {
        let state = State {
            staging,
            staged: Vec::new(),
            overflow: VecDeque::new(),
            given: 0,
            in_frame: 0,
            durable: 0,
            running: false,
            waiters: Vec::new(),
            failed: None,
            dirty: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            tail: writer.tail(),
            writer: Mutex::new(Some(writer)),
            checkpointing: Mutex::new(()),
            checkpoint_wanted: (Mutex::new(false), Condvar::new()),
            unflushed_bytes: AtomicU64::new(0),
            log_dirs: OnceLock::new(),
            on_failure,
            note_recovery_points: OnceLock::new(),
            read_only: Mutex::default(),
            is_read_only: AtomicBool::new(false),
            flush_us: AtomicU64::new(0),
        }
    }

    /// Sets, once, what tells the disk up to where each log is flushed: done before frames are let go of.
    pub fn note_recovery_points_by(&self, note: Box<dyn Fn() -> bool + Send + Sync>) {
        let _ = self.note_recovery_points.set(note);
    }

    /// From now on no partition takes a batch, or they do again (`None`).
    pub fn set_read_only(&self, reason: Option<&str>) {
        *self.read_only.lock() = reason.map(Arc::from);
        self.is_read_only.store(reason.is_some(), Ordering::Release);
    }

    /// `Err` with the reason while nothing may be appended.
    pub fn check_writable(&self) -> Result<(), String> {
        if !self.is_read_only.load(Ordering::Acquire) {
            return Ok(());
        }
        self.read_only.lock().as_ref().map_or(Ok(()), |reason| Err(reason.to_string()))
    }

    /// `Err` with the reason once the journal has failed.
    pub fn check_healthy(&self) -> Result<(), String> {
        self.state.lock().failed.as_ref().map_or(Ok(()), |reason| Err(reason.to_string()))
    }

    /// Takes a batch that was just appended. Called under the partition's lock, so that a partition's batches are staged
    /// in the order of their offsets.
    pub fn stage(&self, partition: &Arc<Partition>, base_offset: i64, next_offset: i64, records: &[u8]) -> Ticket {
        let mut state = self.state.lock();
        state.given += 1;
        if !state.overflow.is_empty() || !state.stage_now(partition, base_offset, next_offset, records) {
            let records = Bytes::copy_from_slice(records);
            state.overflow.push_back(Overflow { partition: partition.clone(), base_offset, next_offset, records });
        }
        Ticket(state.given)
    }

    /// Notes a batch that nobody waits for: it is flushed with the next checkpoint, which comes early enough that little
    /// must be read again after a crash. Called under the partition's lock.
    pub fn note_unflushed(&self, partition: &Arc<Partition>, bytes: u64) {
        if partition.mark_dirty() {
            self.state.lock().dirty.push(partition.clone());
        }
        let unflushed = self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unflushed >= limits::UNFLUSHED_BYTES_MAX {
            self.unflushed_bytes.store(0, Ordering::Relaxed);
            self.request_checkpoint();
        }
    }

    /// Sets who knows the log directories, once. Without it any failure is final.
    pub fn watch_log_dirs(&self, failures: Box<dyn LogDirFailures>) {
        let _ = self.log_dirs.set(failures);
    }

    /// Waits until the ticket's batch is on disk. Leads a flush when there is none.
    pub fn wait_for(&self, ticket: Ticket, timeout: Duration) -> DurableWait<'_> {
        // Far away stands for never: an overflowing deadline cannot come anyway.
        let deadline =
            Instant::now().checked_add(timeout).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        DurableWait { journal: self, ticket, deadline }
    }

    /// Wakes all waiters, so that those whose time is up notice. Called about once a second.
    pub fn wake_expired(&self) {
        let waiters = std::mem::take(&mut self.state.lock().waiters);
        for (_, waker) in waiters {
            waker.wake();
        }
    }

    /// Flushes what is staged, if there is something and nobody else is at it.
    fn flush_once(&self) {
        let Some(mut flush) = self.begin() else { return };
        let begun = Instant::now();
        let result = if self.flush_us.load(Ordering::Relaxed) < SLOW_FLUSH_US {
            self.write(&mut flush)
        } else {
            wait_for_disk(|| self.write(&mut flush))
        };
        self.note_flush(begun.elapsed());
        if result.is_ok() {
            for batch in &flush.batches {
                batch.partition.durable_up_to(batch.next_offset);
            }
        }
        self.end(flush, result);
    }

    /// A moving average over some four flushes.
    fn note_flush(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.flush_us.load(Ordering::Relaxed);
        self.flush_us.store(before - before / 4 + took / 4, Ordering::Relaxed);
    }

    fn begin(&self) -> Option<Flush> {
        let mut state = self.state.lock();
        if state.running || state.failed.is_some() || state.staged.is_empty() {
            return None;
        }
        let frame = state.staging.take();
        let batches = std::mem::take(&mut state.staged);
        let up_to = state.in_frame;
        state.running = true;
        state.refill();
        Some(Flush { frame, batches, up_to })
    }

    fn write(&self, flush: &mut Flush) -> Result<(), JournalError> {
        if let Some(frame) = &mut flush.frame {
            let mut writer = self.writer.lock();
            let Some(writer) = writer.as_mut() else {
                return Err(JournalError::Config { what: "the journal is closed" });
            };
            loop {
                match writer.write(frame) {
                    Err(error) if error.is_full() => {
                        let poisoned = |reason: String| JournalError::Poisoned { reason: reason.into() };
                        loop {
                            match self.checkpoint_once(true).map_err(poisoned)? {
                                Checkpointed::Released => break,
                                Checkpointed::DirFailed => {}
                                Checkpointed::NotNoted => {
                                    return Err(poisoned(
                                        "it is full, and recovery points cannot be written".to_owned(),
                                    ));
                                }
                            }
                        }
                    }
                    Err(error) => return Err(error),
                    Ok(_) => break,
                }
            }
        }
        for batch in flush.batches.iter().filter(|batch| batch.sync_segment) {
            if let Err(error) = batch.partition.flush()
                && !self.may_go_on_without(&batch.partition, &error)
            {
                return Err(JournalError::Poisoned { reason: error.to_string().into() });
            }
        }
        if self.tail.wants_checkpoint() {
            self.request_checkpoint();
        }
        Ok(())
    }

    fn end(&self, flush: Flush, result: Result<(), JournalError>) {
        let mut state = self.state.lock();
        if let Some(frame) = flush.frame {
            state.staging.give_back(frame);
        }
        state.running = false;
        if let Err(error) = result {
            drop(state);
            self.fail(&error.to_string());
            return;
        }
        state.durable = flush.up_to;
        let durable = Ticket(state.durable);
        let (mut woken, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.waiters).into_iter().partition(|(ticket, _)| *ticket <= durable);
        state.waiters = waiting;
        if !state.staged.is_empty()
            && let Some(leader) = state.waiters.pop()
        {
            woken.push(leader);
        }
        drop(state);
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Ends acknowledgements for good.
    pub fn fail(&self, reason: &str) {
        let mut state = self.state.lock();
        let first = state.failed.is_none();
        state.failed.get_or_insert_with(|| reason.into());
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for (_, waker) in waiters {
            waker.wake();
        }
        if first {
            (self.on_failure)(reason);
        }
    }

    // -- checkpoints -------------------------------------------------------------------------------------------------

    /// Syncs every segment that has journaled batches, notes that, then lets go of their frames. Blocks for the disk. False:
    /// it could not be noted, and the frames are kept.
    ///
    /// What was ever promised is so below its log's recovery point or in the journal, and recovery may cut a log off at a
    /// hole above both.
    pub fn checkpoint(&self) -> Result<bool, String> {
        loop {
            let failed = self.log_dirs.get().is_some_and(|dirs| dirs.is_pending());
            let quiet = failed.then(|| self.writer.lock());
            match self.checkpoint_once(quiet.is_some())? {
                Checkpointed::Released => return Ok(true),
                Checkpointed::NotNoted => return Ok(false),
                Checkpointed::DirFailed => {}
            }
        }
    }

    /// `quiet`: the caller holds the writer.
    fn checkpoint_once(&self, quiet: bool) -> Result<Checkpointed, String> {
        let _one_at_a_time = self.checkpointing.lock();
        if let Some(dirs) = self.log_dirs.get().filter(|dirs| dirs.is_pending()) {
            if !quiet {
                return Ok(Checkpointed::DirFailed);
            }
            dirs.isolate()?;
        }
        let up_to = self.tail.durable();
        let dirty = std::mem::take(&mut self.state.lock().dirty);
        dirty.iter().for_each(|partition| partition.clear_dirty());
        let flushed = if planted(Bug::FrameReleasedEarly) { Ok(()) } else { Partition::flush_all(&dirty) };
        if let Err((partition, error)) = flushed {
            self.dirty_again(dirty);
            let reason = format!("{}: {}", partition.topic_partition, describe(&error));
            let may_go_on = self.may_go_on_without(&partition, &error);
            return if may_go_on { Ok(Checkpointed::DirFailed) } else { Err(reason) };
        }
        if self.note_recovery_points.get().is_some_and(|note| !note()) {
            // What a directory that fails here has in the journal is still needed.
            self.dirty_again(dirty);
            let dir_failed = self.log_dirs.get().is_some_and(|dirs| dirs.is_pending());
            return Ok(if dir_failed { Checkpointed::DirFailed } else { Checkpointed::NotNoted });
        }
        self.tail.release(up_to);
        Ok(Checkpointed::Released)
    }

    fn dirty_again(&self, partitions: Vec<Arc<Partition>>) {
        let mut state = self.state.lock();
        let again = partitions.into_iter().filter(|partition| partition.mark_dirty());
        state.dirty.extend(again);
    }

    /// Whether a failed flush takes the log's directory with it and nothing else.
    fn may_go_on_without(&self, partition: &Partition, error: &LogError) -> bool {
        let of_disk = matches!(error, LogError::Io { .. } | LogError::Offline { .. });
        of_disk && self.log_dirs.get().is_some_and(|dirs| dirs.note(partition.log_dir(), &describe(error)))
    }

    pub fn request_checkpoint(&self) {
        *self.checkpoint_wanted.0.lock() = true;
        self.checkpoint_wanted.1.notify_one();
    }

    /// The checkpointer's loop: a checkpoint whenever half of the ring is taken, until [`Self::close`].
    pub fn run_checkpointer(&self) {
        loop {
            let mut wanted = self.checkpoint_wanted.0.lock();
            while !*wanted {
                self.checkpoint_wanted.1.wait(&mut wanted);
            }
            *wanted = false;
            drop(wanted);
            if self.writer.lock().is_none() {
                return;
            }
            if let Err(reason) = self.checkpoint() {
                self.fail(&reason);
                return;
            }
        }
    }

    /// A clean stop, after all logs were closed: the journal is marked empty. Ends the checkpointer.
    pub fn close(&self) -> Result<(), JournalError> {
        let writer = self.writer.lock().take();
        self.request_checkpoint();
        let Some(writer) = writer else { return Ok(()) };
        self.tail.release(self.tail.durable());
        writer.close_clean()
    }

    pub fn used_bytes(&self) -> u64 {
        self.tail.used_bytes()
    }
}

/// A flush under way. `frame` is `None` when it holds only batches that no frame can.
struct Flush {
    frame: Option<StagedFrame>,
    batches: Vec<StagedBatch>,
    up_to: u64,
}

impl State {
    /// Puts a batch into the frame; false when it has no room.
    fn stage_now(&mut self, partition: &Arc<Partition>, base_offset: i64, next_offset: i64, records: &[u8]) -> bool {
        let entry = EntryHeader {
            kind: EntryKind::Append,
            topic_id: partition.topic_id,
            topic: &partition.topic_partition.topic,
            partition: partition.topic_partition.partition,
            base_offset,
            next_offset,
        };
        let sync_segment = match self.staging.stage(&entry, records) {
            Ok(_) => false,
            Err(StageError::Full) => return false,
            Err(StageError::TooLarge { .. } | StageError::IllFormed(_)) => true,
        };
        if partition.mark_dirty() {
            self.dirty.push(partition.clone());
        }
        self.staged.push(StagedBatch { partition: partition.clone(), next_offset, sync_segment });
        self.in_frame += 1;
        true
    }

    fn refill(&mut self) {
        while let Some(next) = self.overflow.pop_front() {
            if !self.stage_now(&next.partition, next.base_offset, next.next_offset, &next.records) {
                self.overflow.push_front(next);
                return;
            }
        }
    }
}

/// See [`JournalRuntime::wait_for`]. Dropping it gives up the wait, not the flush.
pub struct DurableWait<'a> {
    journal: &'a JournalRuntime,
    ticket: Ticket,
    deadline: Instant,
}

impl Future for DurableWait<'_> {
    type Output = Result<(), JournalWaitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut state = self.journal.state.lock();
            if Ticket(state.durable) >= self.ticket {
                return Poll::Ready(Ok(()));
            }
            if let Some(reason) = &state.failed {
                return Poll::Ready(Err(JournalWaitError::Failed(reason.clone())));
            }
            if state.running || state.staged.is_empty() {
                if Instant::now() >= self.deadline {
                    return Poll::Ready(Err(JournalWaitError::TimedOut));
                }
                state.waiters.push((self.ticket, context.waker().clone()));
                return Poll::Pending;
            }
            drop(state);
            self.journal.flush_once();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::BytesMut;
    use taccola_base::config::{ServerConfig, Settings};
    use taccola_base::{TopicPartition, Uuid};
    use taccola_log::journal::{self, Journal, JournalConfig, JournalIdentity};
    use taccola_log::{AppendOrigin, LogShared, PartitionLog};
    use taccola_wire::batch::{BatchBuilder, Compression};

    use super::*;
    use crate::partition::{Durability, Leadership};
    use crate::topic_config::TopicConfig;

    const PARTITIONS: usize = 4;
    const FRAME_BYTES_MAX: usize = 256 * 1024;
    const RECORD_BYTES: [usize; 4] = [10, 5_000, 120_000, 400_000];

    fn open(dir: &Path) -> journal::Recovery {
        let config = JournalConfig::in_log_dir(dir).size_bytes(2 << 20).frame_bytes_max(FRAME_BYTES_MAX);
        let identity = JournalIdentity { cluster_id: "c".into(), node_id: 0, directory_id: Uuid::from_u128(1 << 90) };
        journal::open(config, identity).unwrap()
    }

    fn start(dir: &Path) -> (Arc<JournalRuntime>, Vec<Arc<Partition>>) {
        let Journal { staging, writer } = open(dir).start(Uuid::from_u128(1 << 100)).unwrap();
        let journal = Arc::new(JournalRuntime::new(staging, writer, Box::new(|reason| panic!("{reason}"))));
        let settings: Settings =
            [("listeners", "PLAINTEXT://127.0.0.1:0"), ("log.dirs", "unused")].into_iter().collect();
        let mut values = ServerConfig::load(&settings).unwrap().config.log;
        values.max_message_bytes = 10 << 20;
        let config = TopicConfig::new(values, 86_400_000);
        let partitions = (0..PARTITIONS as i32).map(|index| {
            let (at, id) = (TopicPartition::new("t", index), Uuid::from_u128((1 << 80) + index as u128));
            let log = PartitionLog::create(dir, at, Some(id), config.log.clone(), LogShared::new(16)).unwrap();
            let leadership = Leadership { leader_id: 0, leader_epoch: 0, replicas_len: 1, isr_len: 1 };
            Partition::new(log, id, 0, leadership, config.clone())
        });
        (journal, partitions.collect())
    }

    fn batch(bytes: usize) -> BytesMut {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(1, None, Some(&vec![7; bytes]), &[]);
        BytesMut::from(builder.build().unwrap().as_ref())
    }

    /// A flush syncs what was there when it began; what came behind it must be synced by the stop.
    #[test]
    fn a_clean_stop_waits_for_a_flush_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, partitions) = start(dir.path());
        let partition = partitions[0].clone();
        let append = || {
            let appended =
                partition.append(&journal, &mut batch(10), AppendOrigin::Client, Durability::PageCache, 1).unwrap();
            appended.last_offset
        };
        append();
        let plan = partition.with_log(|log| log.begin_flush()).unwrap().unwrap().expect("something to flush");
        assert_eq!(append(), 1);
        let (tell, told) = std::sync::mpsc::channel();
        let closer = std::thread::spawn({
            let partition = partition.clone();
            move || {
                let log = partition.take_log_to_close().expect("the log");
                tell.send(()).unwrap();
                log.close(1).unwrap()
            }
        });
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "the flush is not over");
        let results = taccola_log::FlushPlan::run_all(std::slice::from_ref(&plan));
        let ended = partition.with_log(|log| log.end_flush(plan, results.into_iter().next().unwrap(), 1));
        ended.expect("the log is still there").unwrap();
        assert_eq!(closer.join().unwrap(), 2, "the recovery point is behind all of it");
    }

    /// Batches of all sizes (several frames' worth, and one that no frame holds) from many tasks: each is visible and
    /// durable when its wait ends, over several laps of the ring.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_acknowledged_batch_is_visible_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, partitions) = start(dir.path());
        let tasks: Vec<_> = (0..8)
            .map(|task: usize| {
                let (journal, partitions) = (journal.clone(), partitions.clone());
                tokio::spawn(async move {
                    for round in 0..24 {
                        let partition = &partitions[(task + round) % PARTITIONS];
                        let mut batch = batch(RECORD_BYTES[(task * 7 + round) % RECORD_BYTES.len()]);
                        let appended =
                            partition.append(&journal, &mut batch, AppendOrigin::Client, Durability::Disk, 1).unwrap();
                        journal.wait_for(appended.ticket.unwrap(), Duration::from_secs(60)).await.unwrap();
                        let (high_watermark, _, _) = partition.offsets().unwrap();
                        assert!(high_watermark > appended.last_offset);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let ends: Vec<i64> = partitions.iter().map(|p| p.with_log(|log| log.log_end_offset()).unwrap()).collect();
        let synced: Vec<i64> = partitions.iter().map(|p| p.with_log(|log| log.recovery_point()).unwrap()).collect();
        assert_eq!(ends.iter().sum::<i64>(), 8 * 24);
        drop(journal);
        let mut recovery = open(dir.path());
        assert!(recovery.damage().is_none());
        let mut next = synced;
        while let Some(frame) = recovery.next_frame().unwrap() {
            for entry in frame.entries {
                let next = &mut next[entry.partition as usize];
                assert!(entry.base_offset <= *next, "a gap in the journal at {}", entry.base_offset);
                *next = (*next).max(entry.next_offset);
            }
        }
        assert_eq!(next, ends, "what the segments have not synced is in the journal");
    }

    #[tokio::test]
    async fn page_cache_appends_are_visible_at_once_but_never_past_an_undurable_one() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, partitions) = start(dir.path());
        let append = |durability| {
            partitions[0].append(&journal, &mut batch(10), AppendOrigin::Client, durability, 1).unwrap().ticket
        };
        let visible = || partitions[0].offsets().unwrap().0;
        assert!(append(Durability::PageCache).is_none());
        assert_eq!(visible(), 1);
        let ticket = append(Durability::Disk).unwrap();
        assert!(append(Durability::PageCache).is_none());
        assert_eq!(visible(), 1, "the second batch is not on disk, so the third is hidden behind it");
        journal.wait_for(ticket, Duration::from_secs(60)).await.unwrap();
        assert_eq!(visible(), 3);
    }

    /// A checkpoint that took a running flush for its own would release frames that the other does not cover.
    #[test]
    fn a_flush_waits_for_the_one_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, partitions) = start(dir.path());
        let partition = &partitions[0];
        let append = || partition.append(&journal, &mut batch(10), AppendOrigin::Client, Durability::Disk, 1).unwrap();
        append();
        let plan = partition.with_log(|log| log.begin_flush()).unwrap().unwrap().unwrap();
        append();
        let other = std::thread::spawn({
            let partition = partition.clone();
            move || partition.flush()
        });
        assert!(!other.is_finished());
        let result = plan.run();
        partition.with_log(|log| log.end_flush(plan, result, 2)).unwrap().unwrap();
        other.join().unwrap().unwrap();
        assert_eq!(partition.with_log(|log| log.recovery_point()), Some(2));
    }

    #[tokio::test]
    async fn after_a_failure_nobody_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let Journal { staging, writer } = open(dir.path()).start(Uuid::from_u128(1 << 100)).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let journal = JournalRuntime::new(staging, writer, Box::new(move |reason| tell.lock().push(reason.to_owned())));
        journal.fail("EIO");
        journal.fail("again");
        assert_eq!(*told.lock(), ["EIO"]);
        assert!(journal.check_healthy().is_err());
        let waited = journal.wait_for(Ticket(1), Duration::from_secs(60)).await;
        assert!(matches!(waited, Err(JournalWaitError::Failed(_))));
    }
}
