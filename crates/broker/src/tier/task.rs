//! The background task: reads `__remote_log_metadata`, then looks at every tiered partition once per
//! `remote.log.manager.task.interval.ms`: what was left behind, what is to delete, what is to copy.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use taccola_base::TopicPartition;

use super::{Key, RemoteStorage, TierError};
use crate::broker::Broker;
use crate::partition::Partition;

/// A partition's failures in a row, and when it is looked at again.
type Resting = HashMap<Key, (u32, tokio::time::Instant)>;

/// Runs until the broker stops; returns at once where tiered storage is off.
pub(crate) async fn run(broker: Arc<Broker>) {
    let Some(remote) = broker.remote.clone() else { return };
    if !load(&broker, &remote).await || broker.recovery_mode.is_some() {
        // In recovery mode what is in remote storage is served, and nothing is written.
        return;
    }
    let mut resting = Resting::new();
    let mut stopping = std::pin::pin!(broker.stopping());
    loop {
        let round = round(&broker, &remote, &mut resting);
        tokio::select! {
            // What is under way is dropped between two steps; the next start finds what it left.
            () = &mut stopping => return,
            () = round => {}
        }
        tokio::select! {
            () = &mut stopping => return,
            () = remote.wake.notified() => {}
            () = tokio::time::sleep(remote.config.task_interval) => {}
        }
    }
}

/// False: the broker stops.
async fn load(broker: &Arc<Broker>, remote: &Arc<RemoteStorage>) -> bool {
    let mut stopping = std::pin::pin!(broker.stopping());
    loop {
        let (work_broker, work_remote) = (broker.clone(), remote.clone());
        let loaded = tokio::task::spawn_blocking(move || work_remote.load(&work_broker)).await;
        match loaded.map_err(|error| error.to_string()).and_then(|loaded| loaded) {
            Ok(()) => break,
            Err(error) => tracing::error!(error, "remote log metadata cannot be read; nothing is tiered until it can"),
        }
        tokio::select! {
            () = &mut stopping => return false,
            () = tokio::time::sleep(remote.config.retry_backoff_max) => {}
        }
    }
    for partition in broker.partitions.all().iter().filter(|partition| is_tiered(partition)) {
        remote.reconcile(partition);
    }
    remote.loaded.send_replace(true);
    true
}

fn is_tiered(partition: &Partition) -> bool {
    partition.topic_config().log.remote_storage_enable
}

fn key_of(partition: &Partition) -> Key {
    (partition.topic_id, partition.topic_partition.partition)
}

impl RemoteStorage {
    /// After a start: a log start offset below everything that is in either tier (its checkpoint was lost) moves up.
    fn reconcile(&self, partition: &Partition) {
        self.settle(partition);
        let key = key_of(partition);
        let moved = partition.with_log(|log| {
            let (start, local) = (log.log_start_offset(), log.local_log_start_offset());
            if start >= local {
                return Ok(start);
            }
            // A lost checkpoint of leader epochs was made anew from the local batches alone.
            let older = self.with(&key, |remote| {
                let finished = remote.segments.finished().into_iter();
                finished.flat_map(|segment| segment.leader_epochs.iter().copied()).collect::<Vec<_>>()
            });
            log.restore_older_epochs(&older.unwrap_or_default());
            let epochs = log.leader_epochs();
            let first = self.with(&key, |remote| {
                let finished = remote.segments.finished();
                finished.iter().find(|s| s.end_offset >= start && s.start_offset < local).map(|s| s.start_offset)
            });
            let is_there = self.find(&key, epochs, start).is_some();
            let first = if is_there { start } else { first.flatten().unwrap_or(local) };
            log.delete_records_before(first.clamp(start, local), crate::clock::now_ms())
        });
        if let Some(Err(error)) = moved {
            tracing::error!(partition = %partition.topic_partition, %error, "the log start offset of a tiered log");
        }
    }
}

async fn round(broker: &Arc<Broker>, remote: &Arc<RemoteStorage>, resting: &mut Resting) {
    let config = broker.dynamic_config().remote.clone();
    remote.cache.follow(&config);
    remote.copy_throttle.set(config.copy_bytes_per_second);
    let now = tokio::time::Instant::now();
    let work =
        targets(broker, remote).into_iter().filter(|(key, ..)| resting.get(key).is_none_or(|(_, at)| *at <= now));
    let work: Vec<_> = work.collect();
    let results = futures_util::stream::iter(work)
        .map(|(key, at, partition)| async move { (key, at.clone(), one(broker, remote, key, &at, partition).await) })
        .buffer_unordered(config.copiers.max(1));
    let mut results = std::pin::pin!(results);
    while let Some((key, at, result)) = results.next().await {
        match result {
            Ok(()) | Err(TierError::GivenUp) => {
                resting.remove(&key);
            }
            Err(error) => {
                let (failures, until) = resting.entry(key).or_insert((0, now));
                *failures = failures.saturating_add(1);
                let wait = rest(remote, *failures);
                *until = tokio::time::Instant::now() + wait;
                tracing::error!(partition = %at, %error, failures, retry_ms = wait.as_millis() as u64, "tiered storage");
                let wake = remote.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    wake.wake();
                });
            }
        }
    }
    let live: BTreeSet<Key> = remote.partitions.lock().keys().copied().collect();
    resting.retain(|key, _| live.contains(key));
}

fn rest(remote: &RemoteStorage, failures: u32) -> Duration {
    let wait = remote.config.retry_backoff.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    wait.min(remote.config.retry_backoff_max)
}

/// Partitions that are tiered, were, or are deleted.
fn targets(broker: &Broker, remote: &RemoteStorage) -> Vec<(Key, TopicPartition, Option<Arc<Partition>>)> {
    let mut found: HashMap<Key, (TopicPartition, Option<Arc<Partition>>)> = HashMap::new();
    for (key, known) in remote.partitions.lock().iter() {
        found.insert(*key, (known.at.clone(), None));
    }
    for partition in broker.partitions.all() {
        let key = key_of(&partition);
        if is_tiered(&partition) || found.contains_key(&key) {
            found.insert(key, (partition.topic_partition.clone(), Some(partition)));
        }
    }
    found.into_iter().map(|(key, (at, partition))| (key, at, partition)).collect()
}

async fn one(
    broker: &Arc<Broker>,
    remote: &Arc<RemoteStorage>,
    key: Key,
    at: &TopicPartition,
    partition: Option<Arc<Partition>>,
) -> Result<(), TierError> {
    match partition {
        Some(partition) if is_tiered(&partition) => {
            remote.settle(&partition);
            remote.delete_leftovers(broker, key, at).await?;
            remote.expire(broker, &partition).await?;
            remote.copy_all(broker, &partition).await
        }
        // `remote.storage.enable` was taken back, which is only allowed with `remote.log.delete.on.disable`.
        Some(_) => remote.delete_all(broker, key, at).await,
        // Not this broker's, or a folder that could not be made: only what the metadata do not know is deleted.
        None if broker.image().topics.by_id(key.0).is_some() => Ok(()),
        None => remote.delete_partition(broker, key, at).await,
    }
}
