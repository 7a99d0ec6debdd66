//! Periodic work: retention, checkpoint files, flushes by time, folders of deleted topics, waits that ran out. Everything
//! that touches a disk runs on the blocking pool, one round at a time, and skips what has nothing to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taccola_base::TopicPartition;
use taccola_log::{LogError, PartitionLog, log_dir};

use super::relocate::Coming;
use super::replicas::describe;
use crate::broker::Broker;
use crate::clock;
use crate::partition::Partition;

/// How often waits for the disk are looked at for their deadline.
const DEADLINES_EVERY: Duration = Duration::from_secs(1);

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let log_manager = &broker.config.log_manager;
    let mut retention = interval(log_manager.retention_check_interval);
    let mut recovery_points = interval(log_manager.flush_offset_checkpoint_interval);
    let mut high_watermarks = interval(log_manager.high_watermark_checkpoint_interval);
    let mut flush = interval(log_manager.flush_scheduler_interval.unwrap_or(Duration::from_secs(86_400)));
    let mut log_starts = interval(log_manager.flush_start_offset_checkpoint_interval);
    let mut producers = interval(log_manager.producer_id_expiration_check_interval);
    let snapshot_every = broker.config.controller.snapshot_max_interval;
    let mut snapshots = interval(snapshot_every.unwrap_or(Duration::from_secs(86_400)));
    let mut deadlines = interval(DEADLINES_EVERY);
    let mut stopping = std::pin::pin!(broker.stopping());
    // A start after a crash may have found much that no checkpoint names.
    blocking(&broker, checkpoint).await;
    loop {
        tokio::select! {
            () = &mut stopping => return,
            _ = retention.tick() => {
                blocking(&broker, apply_retention).await;
                broker.metadata.lock().await.clean();
            }
            _ = recovery_points.tick() => blocking(&broker, checkpoint).await,
            _ = high_watermarks.tick() => blocking(&broker, checkpoint_high_watermarks).await,
            _ = flush.tick() => blocking(&broker, flush_by_time).await,
            _ = log_starts.tick() => blocking(&broker, checkpoint_log_start_offsets).await,
            _ = producers.tick() => blocking(&broker, expire_producers).await,
            _ = snapshots.tick(), if snapshot_every.is_some() => broker.metadata.lock().await.snapshot_if_changed(),
            _ = deadlines.tick() => broker.journal.wake_expired(),
        }
    }
}

/// The first tick comes after one period.
fn interval(period: Duration) -> tokio::time::Interval {
    let period = period.max(Duration::from_millis(1));
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

async fn blocking(broker: &Arc<Broker>, work: fn(&Broker)) {
    let broker = broker.clone();
    if let Err(error) = super::blocking::spawn(move || work(&broker)).await {
        tracing::error!(%error, "housekeeping");
    }
}

pub(crate) fn apply_retention(broker: &Broker) {
    if broker.recovery_mode.is_some() {
        return;
    }
    let now_ms = clock::now_ms();
    for partition in broker.partitions.all() {
        let outcome = partition.with_log(|log| {
            let outcome = log.apply_retention(now_ms);
            log.purge(now_ms);
            outcome
        });
        match outcome {
            Some(Ok(outcome)) if outcome.segments_removed > 0 => tracing::info!(
                partition = %partition.topic_partition,
                segments = outcome.segments_removed,
                bytes = outcome.bytes_removed,
                "retention removed segments"
            ),
            Some(Err(error)) => {
                tracing::error!(partition = %partition.topic_partition, error = describe(&error), "retention")
            }
            _ => {}
        }
    }
    broker.purge_deleted_dirs(broker.config.log.file_delete_delay_ms);
    broker.log_shared.close_idle();
}

/// A failure is logged where it happens; the next round tries again.
fn checkpoint_log_start_offsets(broker: &Broker) {
    write_log_start_offsets(broker);
}

pub(crate) fn expire_producers(broker: &Broker) {
    let now_ms = clock::now_ms();
    for partition in broker.partitions.all() {
        partition.with_log(|log| log.expire_producers(now_ms));
    }
}

/// `flush.ms` and `flush.messages` of acks that did not wait for the disk.
pub(crate) fn flush_by_time(broker: &Broker) {
    let now_ms = clock::now_ms();
    for partition in broker.partitions.all() {
        if partition.with_log(|log| log.flush_due(now_ms)).unwrap_or(false)
            && let Err(error) = partition.flush()
        {
            tracing::error!(partition = %partition.topic_partition, error = describe(&error), "flush");
        }
    }
}

/// Syncs what the journal holds, then tells recovery where to begin.
pub fn checkpoint(broker: &Broker) {
    if let Err(reason) = broker.journal.checkpoint() {
        broker.journal.fail(&reason);
        return;
    }
    // What did not go through the journal (acks=1, the memory class, what recovery found) would be scanned again and again.
    let mut unflushed = broker.partitions.all();
    unflushed.retain(|partition| partition.with_log(|log| log.unflushed_messages() > 0).unwrap_or(false));
    while let Err((failed, error)) = Partition::flush_all(&unflushed) {
        tracing::error!(partition = %failed.topic_partition, error = describe(&error), "flush");
        unflushed.retain(|partition| !Arc::ptr_eq(partition, &failed));
    }
    write_recovery_points(broker);
    write_log_start_offsets(broker);
}

/// Where recovery has to begin, the metadata log included. False: not all is on disk.
pub fn write_recovery_points(broker: &Broker) -> bool {
    let offset_of = Offset { known: &|log| Some(log.recovery_point()), coming: &|copy| Some(copy.recovery_point) };
    write_checkpoint(broker, log_dir::RECOVERY_POINT_CHECKPOINT, Some(&broker.metadata_partition), &offset_of)
}

/// Kafka lists only partitions whose log does not begin with their first segment. False: not all is on disk.
pub fn write_log_start_offsets(broker: &Broker) -> bool {
    let positive = |offset: i64| (offset > 0).then_some(offset);
    let offset_of =
        Offset { known: &|log| positive(log.log_start_offset()), coming: &|copy| positive(copy.log_start_offset) };
    write_checkpoint(broker, log_dir::LOG_START_OFFSET_CHECKPOINT, None, &offset_of)
}

pub fn checkpoint_high_watermarks(broker: &Broker) {
    let offset_of = Offset { known: &|log| Some(log.high_watermark()), coming: &|_| None };
    write_checkpoint(broker, log_dir::HIGH_WATERMARK_CHECKPOINT, None, &offset_of);
}

/// What a checkpoint file says of a log, and of a copy that is about to take a log's place; `None`: nothing.
struct Offset<'a> {
    known: &'a dyn Fn(&PartitionLog) -> Option<i64>,
    coming: &'a dyn Fn(&Coming) -> Option<i64>,
}

/// Writes one checkpoint file per log directory; a file that would not change is left alone. False: one was not written.
fn write_checkpoint(
    broker: &Broker,
    file: &'static str,
    also: Option<&Arc<Partition>>,
    offset_of: &Offset<'_>,
) -> bool {
    // Taken before the offsets are, so that of two rounds at once the later state is written last.
    let mut written = broker.checkpoints_written.lock();
    let mut by_dir: Vec<HashMap<TopicPartition, i64>> = vec![HashMap::new(); broker.log_dirs.len()];
    // Before the logs are looked at: a copy that takes its place in between is named as either.
    for (at, coming) in broker.moves.coming() {
        if let (Some(offsets), Some(offset)) = (by_dir.get_mut(coming.to_dir), (offset_of.coming)(&coming)) {
            offsets.insert(at, offset);
        }
    }
    for partition in broker.partitions.all().iter().chain(also) {
        let Some(offsets) = by_dir.get_mut(partition.log_dir()) else { continue };
        if let Some(offset) = partition.with_log(|log| (offset_of.known)(log)).flatten() {
            offsets.insert(partition.topic_partition.clone(), offset);
        }
    }
    let mut complete = true;
    for (index, (dir, offsets)) in broker.log_dirs.iter().zip(by_dir).enumerate() {
        let key = (dir.id, file);
        if !dir.is_online() || written.get(&key) == Some(&offsets) {
            continue;
        }
        match log_dir::write_offsets(&dir.path, file, &offsets) {
            Ok(()) => {
                written.insert(key, offsets);
            }
            Err(error) => {
                complete = false;
                if matches!(error, LogError::Io { .. }) {
                    broker.note_dir_failure(index, &describe(&error));
                }
                tracing::error!(file, dir = %dir.path.display(), error = describe(&error), "checkpoint");
            }
        }
    }
    complete
}
