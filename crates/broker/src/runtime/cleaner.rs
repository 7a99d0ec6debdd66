//! Compaction in the background: picks the log that needs it most, cleans it outside of the partition's lock, remembers
//! how far. Answers to Kafka's `LogCleaner` threads and `LogCleanerManager`.
//!
//! How far a log is clean stands in `cleaner-offset-checkpoint`. Losing it costs a round over records that are clean
//! already, nothing else. A log whose round failed is left alone for ten minutes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::cleaner::{CleanOutcome, CleanedSegment, CleanerHost, CleanerLimits};
use taccola_log::{LogError, log_dir};

use super::replicas::describe;
use crate::broker::Broker;
use crate::clock;
use crate::partition::Partition;

/// Milliseconds after which a log is tried again whose round failed: ten minutes.
const RETRY_AFTER_MS: i64 = 600_000;
/// At most this long does the throttle hold a round at once, so that a stop does not wait.
const THROTTLE_MAX: Duration = Duration::from_secs(1);

/// A partition of one topic; one that takes over the name is another.
type Key = (Uuid, i32);

#[derive(Default)]
pub struct CleanerState {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Where the next round's dirty part begins.
    cleaned_to: HashMap<Key, i64>,
    in_progress: HashSet<Key>,
    /// Since when.
    failed: HashMap<Key, i64>,
}

fn key(partition: &Partition) -> Key {
    (partition.topic_id, partition.topic_partition.partition)
}

impl CleanerState {
    /// Keeps cleaners away from a partition until it is given back; false while one is at it.
    pub(crate) fn claim(&self, partition: &Partition) -> bool {
        self.inner.lock().in_progress.insert(key(partition))
    }

    pub(crate) fn give_back(&self, partition: &Partition) {
        self.inner.lock().in_progress.remove(&key(partition));
    }
}

/// Runs `log.cleaner.threads` cleaners until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let cleaner = &broker.config.log_manager.cleaner;
    if !cleaner.enable {
        return;
    }
    load_checkpoints(&broker);
    let mut cleaners = tokio::task::JoinSet::new();
    for _ in 0..cleaner.threads {
        cleaners.spawn(run_one(broker.clone()));
    }
    while cleaners.join_next().await.is_some() {}
}

async fn run_one(broker: Arc<Broker>) {
    let hash_key = hash_key();
    let mut stopping = std::pin::pin!(broker.stopping());
    loop {
        let backoff = broker.dynamic_config().log_manager.cleaner.backoff.max(Duration::from_millis(1));
        tokio::select! {
            () = &mut stopping => return,
            () = tokio::time::sleep(backoff) => {}
        }
        let worker = broker.clone();
        let work = super::blocking::spawn(move || while clean_dirtiest(&worker, hash_key) {});
        if let Err(error) = work.await {
            tracing::error!(%error, "the cleaner");
        }
    }
}

/// No two processes hash keys alike.
fn hash_key() -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = crate::random::bytes16();
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest))
}

pub(crate) fn load_checkpoints(broker: &Broker) {
    let mut inner = broker.cleaner.inner.lock();
    for dir in &broker.log_dirs {
        let read = match log_dir::read_offsets(&dir.path, log_dir::CLEANER_CHECKPOINT) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(dir = %dir.path.display(), error = describe(&error), "the cleaner's checkpoint");
                continue;
            }
        };
        for (at, offset) in read.offsets {
            if let Some(partition) = broker.partitions.get(&at.topic, at.partition) {
                inner.cleaned_to.insert(key(&partition), offset);
            }
        }
    }
}

/// Cleans the log with the largest dirty share. False: none is due, or the broker stops.
pub(crate) fn clean_dirtiest(broker: &Broker, hash_key: (u64, u64)) -> bool {
    if stopping(broker) {
        return false;
    }
    let Some((partition, cleaned_to)) = choose(broker) else { return false };
    let started = Instant::now();
    let result = clean(broker, &partition, cleaned_to, hash_key);
    let mut inner = broker.cleaner.inner.lock();
    inner.in_progress.remove(&key(&partition));
    match result {
        Ok(Some(outcome)) => {
            inner.cleaned_to.insert(key(&partition), outcome.end_offset);
            drop(inner);
            tracing::info!(
                partition = %partition.topic_partition,
                dirty_from = outcome.end_offset,
                records_read = outcome.records_read,
                records_kept = outcome.records_kept,
                bytes_before = outcome.bytes_before,
                bytes_after = outcome.bytes_after,
                undecodable = outcome.undecodable,
                millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "compacted"
            );
            if let Err(error) = write_checkpoint(broker, partition.log_dir()) {
                tracing::error!(partition = %partition.topic_partition, error = describe(&error), "the cleaner's checkpoint");
            }
            true
        }
        Ok(None) => true,
        Err(error) => {
            inner.failed.insert(key(&partition), clock::now_ms());
            drop(inner);
            tracing::error!(partition = %partition.topic_partition, error = describe(&error), "compaction");
            true
        }
    }
}

fn choose(broker: &Broker) -> Option<(Arc<Partition>, Option<i64>)> {
    let now_ms = clock::now_ms();
    let mut best: Option<(f64, Arc<Partition>, Option<i64>)> = None;
    for partition in broker.partitions.all() {
        if !partition.topic_config().log.cleanup_compact {
            continue;
        }
        let cleaned_to = {
            let mut inner = broker.cleaner.inner.lock();
            let key = key(&partition);
            inner.failed.retain(|_, since_ms| now_ms - *since_ms < RETRY_AFTER_MS);
            if inner.in_progress.contains(&key) || inner.failed.contains_key(&key) {
                continue;
            }
            inner.cleaned_to.get(&key).copied()
        };
        let Some(ratio) = due(&partition, cleaned_to, now_ms) else { continue };
        if best.as_ref().is_none_or(|(best, ..)| ratio > *best) {
            best = Some((ratio, partition, cleaned_to));
        }
    }
    let (_, partition, cleaned_to) = best?;
    broker.cleaner.inner.lock().in_progress.insert(key(&partition)).then_some((partition, cleaned_to))
}

/// The dirty share of a log that is due. Sealed segments that are not on disk yet are flushed first: only what is there is
/// cleaned.
fn due(partition: &Arc<Partition>, cleaned_to: Option<i64>, now_ms: i64) -> Option<f64> {
    let is_sealed_unflushed = partition.with_log(|log| log.has_unflushed_sealed_segment())?;
    if is_sealed_unflushed && let Err(error) = partition.flush() {
        tracing::error!(partition = %partition.topic_partition, error = describe(&error), "flush");
        return None;
    }
    match partition.with_log(|log| log.cleanable(cleaned_to, now_ms))? {
        Ok(cleanable) => cleanable.filter(|cleanable| cleanable.due).map(|cleanable| cleanable.ratio()),
        Err(error) => {
            tracing::error!(partition = %partition.topic_partition, error = describe(&error), "compaction");
            None
        }
    }
}

fn clean(
    broker: &Broker,
    partition: &Arc<Partition>,
    cleaned_to: Option<i64>,
    hash_key: (u64, u64),
) -> Result<Option<CleanOutcome>, LogError> {
    let now_ms = clock::now_ms();
    let config = broker.dynamic_config().log_manager.cleaner.clone();
    let job = partition.with_log(|log| match log.cleanable(cleaned_to, now_ms)? {
        Some(cleanable) if cleanable.due => log.begin_clean(&cleanable).map(Some),
        _ => Ok(None),
    });
    let Some(job) = job.transpose()?.flatten() else { return Ok(None) };
    if cleaned_to.is_none() {
        // A log that the checkpoint does not name is taken to have no gaps when it is opened.
        broker.cleaner.inner.lock().cleaned_to.insert(key(partition), job.first_dirty_offset());
        write_checkpoint(broker, partition.log_dir())?;
    }
    let threads = config.threads.max(1) as u64;
    let map_bytes = (config.dedupe_buffer_bytes / threads) as f64 * config.io_buffer_load_factor.clamp(0.0, 1.0);
    let mut host = Host {
        broker,
        partition,
        bytes_per_second: config.io_max_bytes_per_second / threads as f64,
        started: Instant::now(),
        bytes: 0,
    };
    job.run(now_ms, CleanerLimits { map_bytes: map_bytes as u64, hash_key }, &mut host)
}

fn stopping(broker: &Broker) -> bool {
    *broker.stop.borrow()
}

struct Host<'a> {
    broker: &'a Broker,
    partition: &'a Partition,
    bytes_per_second: f64,
    started: Instant,
    bytes: u64,
}

impl CleanerHost for Host<'_> {
    fn throttle(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let due = Duration::try_from_secs_f64(self.bytes as f64 / self.bytes_per_second).unwrap_or(Duration::MAX);
        while let Some(wait) = due.checked_sub(self.started.elapsed()).filter(|wait| !wait.is_zero()) {
            if self.stopped() {
                return;
            }
            std::thread::sleep(wait.min(THROTTLE_MAX));
        }
    }

    fn stopped(&self) -> bool {
        stopping(self.broker) || self.partition.with_log(|_| ()).is_none()
    }

    fn replace(&mut self, cleaned: CleanedSegment) -> Result<(), LogError> {
        // A partition that is gone has had its folder renamed, with the cleaned files in it.
        self.partition.with_log(|log| log.replace_segments(cleaned, clock::now_ms())).unwrap_or(Ok(()))
    }
}

/// Kafka names a partition here once it was cleaned, and forgets it with the partition. One that is about to move into the
/// directory is there already.
pub(crate) fn write_checkpoint(broker: &Broker, dir_index: usize) -> Result<(), LogError> {
    let Some(dir) = broker.log_dirs.get(dir_index).filter(|dir| dir.is_online()) else { return Ok(()) };
    let mut inner = broker.cleaner.inner.lock();
    let partitions = broker.partitions.all();
    let known: HashSet<Key> = partitions.iter().map(|partition| key(partition)).collect();
    inner.cleaned_to.retain(|key, _| known.contains(key));
    let offsets: HashMap<TopicPartition, i64> = partitions
        .iter()
        .filter(|p| p.log_dir() == dir_index || broker.moves.coming_to(&p.topic_partition) == Some(dir_index))
        .filter_map(|p| inner.cleaned_to.get(&key(p)).map(|offset| (p.topic_partition.clone(), *offset)))
        .collect();
    log_dir::write_offsets(&dir.path, log_dir::CLEANER_CHECKPOINT, &offsets)
}
