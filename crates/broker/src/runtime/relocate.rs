//! Replicas that move between the log directories of this broker (KIP-113). Answers to `ReplicaAlterLogDirsManager` and
//! `ReplicaManager.alterReplicaLogDirs`.
//!
//! `num.replica.alter.log.dirs.threads` replicas move at a time (unset: as many as there are directories), the others wait;
//! all of them together read `replica.alter.log.dirs.io.max.bytes.per.second`. A move that a stop or a crash ends begins anew
//! at the next start, which finds the copy's folder. Compaction leaves a log alone while it moves.
//!
//! Before a copy takes its log's place, the checkpoint files of its directory name it, or a kill there would have it read
//! like a log of which nothing is known; and the metadata do not name any directory, or the one of the two that is there
//! without the log would have an empty one made.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use taccola_base::{TopicPartition, Uuid, limits};
use taccola_log::{LogError, PartitionLog, log_dir};
use taccola_meta::controller::ReplicaPlace;
use taccola_wire::error::ErrorCode;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{blocking, cleaner, housekeeping, log_dirs};
use crate::broker::Broker;
use crate::clock;
use crate::partition::{Copied, Partition, RelocateError, Swapped};

/// How long a move waits for a compaction, or a flush, to end before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// At most this long does the throttle hold a move before it looks whether it is still wanted.
const THROTTLE_MAX: Duration = Duration::from_millis(200);
/// Read from a log at a time, bytes; a larger batch comes whole all the same.
const COPY_BYTES: usize = 4 * 1024 * 1024;
/// So much is read at a time however low the rate is.
const COPY_BYTES_MIN: usize = 64 * 1024;
/// Moves at a time, whatever the config says: each may hold a few buffers of 4 MiB.
const MOVES_AT_A_TIME_MAX: usize = 16;

/// A replica on its way, or waiting for its turn.
#[derive(Debug)]
pub(crate) struct Move {
    topic_id: Uuid,
    pub to_dir: usize,
    /// Somebody attends to it.
    taken: AtomicBool,
    cancelled: AtomicBool,
    /// Log end offset and bytes of the copy.
    pub copied_to: AtomicI64,
    pub bytes: AtomicI64,
}

/// A copy that is about to take its log's place, for the checkpoint files of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coming {
    pub to_dir: usize,
    pub recovery_point: i64,
    pub log_start_offset: i64,
}

/// All moves. LIMIT: one for each partition of this broker.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    all: Mutex<BTreeMap<TopicPartition, Arc<Move>>>,
    wanted: Notify,
    /// Folders of copies that a former start left behind, and where they were to go.
    found: Mutex<Vec<(TopicPartition, usize)>>,
    coming: Mutex<BTreeMap<TopicPartition, Coming>>,
    /// Where replicas are to be that are not here yet. LIMIT: [`limits::PREFERRED_DIRS_MAX`].
    preferred: Mutex<HashMap<TopicPartition, usize>>,
    throttle: Mutex<Throttle>,
}

impl Moves {
    pub(crate) fn with_found(found: Vec<(TopicPartition, usize)>) -> Self {
        Self { found: Mutex::new(found), ..Self::default() }
    }

    pub(crate) fn of(&self, at: &TopicPartition) -> Option<Arc<Move>> {
        self.all.lock().get(at).cloned()
    }

    /// The copies that are about to take their logs' places.
    pub(crate) fn coming(&self) -> Vec<(TopicPartition, Coming)> {
        self.coming.lock().iter().map(|(at, coming)| (at.clone(), *coming)).collect()
    }

    /// Into which directory the copy of a replica is about to take its log's place.
    pub(crate) fn coming_to(&self, at: &TopicPartition) -> Option<usize> {
        self.coming.lock().get(at).map(|coming| coming.to_dir)
    }

    /// Where a replica that is made now was asked to be, once.
    pub(crate) fn take_preferred(&self, at: &TopicPartition) -> Option<usize> {
        self.preferred.lock().remove(at)
    }

    fn prefer(&self, at: TopicPartition, dir: usize) {
        let mut preferred = self.preferred.lock();
        if preferred.len() < limits::PREFERRED_DIRS_MAX || preferred.contains_key(&at) {
            preferred.insert(at, dir);
        }
    }

    fn cancel(&self, at: &TopicPartition) {
        if let Some(gone) = self.all.lock().remove(at) {
            gone.cancelled.store(true, Ordering::SeqCst);
        }
    }

    /// One that nobody attends to, from now on taken; and whether there are more.
    fn take_next(&self) -> Option<(TopicPartition, Arc<Move>)> {
        let all = self.all.lock();
        let (at, next) = all.iter().find(|(_, asked)| !asked.taken.swap(true, Ordering::SeqCst))?;
        // Those who wait are woken one by one.
        self.wanted.notify_one();
        Some((at.clone(), next.clone()))
    }
}

/// What all moves together have read beyond their rate.
#[derive(Debug, Default)]
struct Throttle {
    since: Option<Instant>,
    /// Bytes.
    owed: f64,
}

impl Throttle {
    fn spend(&mut self, bytes: u64) {
        self.owed += bytes as f64;
    }

    /// How long to wait before more is read, at so many bytes per second; zero: not at all.
    fn wait(&mut self, now: Instant, rate: u64) -> Duration {
        let elapsed = self.since.replace(now).map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.owed = (self.owed - elapsed.as_secs_f64() * rate as f64).max(0.0);
        match rate {
            0 => THROTTLE_MAX,
            rate => Duration::try_from_secs_f64(self.owed / rate as f64).unwrap_or(Duration::MAX),
        }
    }
}

/// How a move ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Moved,
    /// Asked for otherwise, or the partition is gone; nothing is left of it.
    Dropped,
    /// The broker stops: the next start goes on.
    Stopped,
}

#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Copy(#[from] RelocateError),
    #[error("{0}")]
    NoRoom(String),
    #[error("the metadata: {0}")]
    Metadata(String),
    #[error("{0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// What a step leaves of a copy.
enum Step {
    Again(PartitionLog),
    CaughtUp(PartitionLog),
    Ended(Ended),
}

impl Broker {
    /// Asks for a replica to be moved to the directory of this path; done when it is there. One that is not here is to be
    /// made there, if it ever is; the answer is an error all the same.
    pub(crate) fn alter_log_dir(&self, path: &str, topic: &str, partition: i32) -> Result<(), ErrorCode> {
        let at = TopicPartition::new(topic, partition);
        if !log_dir::can_be_copied(&at) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let to_dir = self.usable_dir(path)?;
        let Some(found) = self.partitions.get(topic, partition) else {
            let error = self.missing_partition_error(topic, partition);
            if error != ErrorCode::KafkaStorageError {
                self.moves.prefer(at, to_dir);
            }
            return Err(match error {
                // Its older name, which clients of this API know.
                ErrorCode::NotLeaderOrFollower => ErrorCode::ReplicaNotAvailable,
                error => error,
            });
        };
        if !found.is_online() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if found.topic_config().values.remote_storage_enable {
            // What is in the object store has no place in a copy.
            return Err(ErrorCode::InvalidRequest);
        }
        let at = &found.topic_partition;
        if self.moves.of(at).is_some_and(|known| known.to_dir != to_dir || found.log_dir() == to_dir) {
            self.moves.cancel(at);
        }
        if found.log_dir() != to_dir {
            self.moves.all.lock().entry(at.clone()).or_insert_with(|| {
                Arc::new(Move {
                    topic_id: found.topic_id,
                    to_dir,
                    taken: AtomicBool::new(false),
                    cancelled: AtomicBool::new(false),
                    copied_to: AtomicI64::new(0),
                    bytes: AtomicI64::new(0),
                })
            });
            self.moves.wanted.notify_one();
        }
        Ok(())
    }

    /// The index of the log directory with this path, literally.
    fn usable_dir(&self, path: &str) -> Result<usize, ErrorCode> {
        // Letter by letter: the same directory by another path is none.
        if self.offline_dirs.iter().any(|dir| log_dirs::name_of(dir) == path) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let found = self.log_dirs.iter().position(|dir| log_dirs::name_of(&dir.path) == path);
        let found = found.ok_or(ErrorCode::LogDirNotFound)?;
        match self.log_dirs.get(found).is_some_and(|dir| dir.is_online()) {
            true => Ok(found),
            false => Err(ErrorCode::KafkaStorageError),
        }
    }

    /// Ends when the replica has moved, or need not.
    async fn relocate(self: &Arc<Self>, at: &TopicPartition, asked: &Arc<Move>) -> Result<Ended, MoveError> {
        let partition = self.partitions.get(&at.topic, at.partition).filter(|found| found.topic_id == asked.topic_id);
        let (Some(partition), Some(to)) = (partition, self.log_dirs.get(asked.to_dir)) else {
            return Ok(Ended::Dropped);
        };
        while !self.cleaner.claim(&partition) {
            if let Some(ended) = self.is_over(asked) {
                return Ok(ended);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let config = partition.topic_config().log.clone();
        let copy = PartitionLog::create_future(
            &to.path,
            at.clone(),
            Some(partition.topic_id),
            crate::random::uuid(),
            config,
            self.log_shared.clone(),
        );
        let folder = copy.as_ref().ok().map(|copy| copy.dir().to_path_buf());
        let ended = match copy {
            Ok(copy) => self.copy_and_swap(&partition, copy, asked).await,
            Err(error) => Err(error.into()),
        };
        let is_announced = self.moves.coming.lock().remove(at).is_some();
        self.cleaner.give_back(&partition);
        let is_of_no_use = matches!(ended, Ok(Ended::Dropped))
            || (ended.is_err() && partition.is_online() && partition.log_dir() != asked.to_dir);
        let worker = self.clone();
        blocking::spawn(move || {
            if let Some(folder) = folder.filter(|folder| is_of_no_use && folder.exists())
                && let Err(error) = log_dir::remove_future(&folder)
            {
                tracing::warn!(folder = %folder.display(), %error, "the copy of a log is not removed");
            }
            if is_announced {
                housekeeping::write_recovery_points(&worker);
                housekeeping::write_log_start_offsets(&worker);
            }
        })
        .await?;
        if is_announced && !self.is_stopping() {
            let mut metadata = self.metadata.lock().await;
            let told = self.commit_places(&mut metadata, |id| id == asked.topic_id).await;
            if let Err(error) = told {
                tracing::error!(partition = %at, %error, "where the replica is now is not in the metadata");
            }
        }
        ended
    }

    async fn copy_and_swap(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        mut copy: PartitionLog,
        asked: &Arc<Move>,
    ) -> Result<Ended, MoveError> {
        loop {
            if let Some(ended) = self.is_over(asked) {
                return Ok(ended);
            }
            let rate = self.dynamic_config().log_manager.alter_log_dirs_bytes_per_second;
            let wait = self.moves.throttle.lock().wait(Instant::now(), rate);
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(THROTTLE_MAX)).await;
                continue;
            }
            let (worker, of, todo) = (self.clone(), partition.clone(), asked.clone());
            copy = match blocking::spawn(move || worker.copy_more(&of, copy, &todo, rate)).await?? {
                Step::Ended(ended) => return Ok(ended),
                Step::Again(copy) => copy,
                Step::CaughtUp(copy) => {
                    self.tell_that_it_moves(partition).await?;
                    let (worker, of, todo) = (self.clone(), partition.clone(), asked.clone());
                    match blocking::spawn(move || worker.swap(&of, copy, &todo)).await?? {
                        Step::Ended(ended) => return Ok(ended),
                        Step::Again(copy) | Step::CaughtUp(copy) => copy,
                    }
                }
            };
        }
    }

    /// Copies what comes next. A copy that has everything is flushed, and named where the next start looks for it.
    fn copy_more(
        &self,
        partition: &Partition,
        mut copy: PartitionLog,
        asked: &Move,
        rate: u64,
    ) -> Result<Step, MoveError> {
        let before = copy.size_bytes();
        let bytes_max = usize::try_from(rate).unwrap_or(usize::MAX).clamp(COPY_BYTES_MIN, COPY_BYTES);
        let copied = partition.copy_some(&mut copy, bytes_max, clock::now_ms())?;
        asked.copied_to.store(copy.log_end_offset(), Ordering::Relaxed);
        asked.bytes.store(i64::try_from(copy.size_bytes()).unwrap_or(i64::MAX), Ordering::Relaxed);
        let grown = copy.size_bytes().saturating_sub(before);
        self.moves.throttle.lock().spend(grown);
        if let Some(reason) = self.disk_space.refuses(asked.to_dir, usize::try_from(grown).unwrap_or(usize::MAX)) {
            return Err(MoveError::NoRoom(reason));
        }
        match copied {
            Copied::Some => return Ok(Step::Again(copy)),
            Copied::Gone => return Ok(Step::Ended(Ended::Dropped)),
            Copied::All => {}
        }
        copy.flush(clock::now_ms())?;
        let log_start_offset = partition.with_log(|log| log.log_start_offset()).unwrap_or(0);
        let coming = Coming { to_dir: asked.to_dir, recovery_point: copy.recovery_point(), log_start_offset };
        self.moves.coming.lock().insert(partition.topic_partition.clone(), coming);
        cleaner::write_checkpoint(self, asked.to_dir)?;
        let are_named = housekeeping::write_recovery_points(self) && housekeeping::write_log_start_offsets(self);
        if !are_named {
            // Some directory fails; whether it is one of these is known when the failure was dealt with.
            std::thread::sleep(LOOK_AGAIN);
            return Ok(Step::Again(copy));
        }
        Ok(Step::CaughtUp(copy))
    }

    fn swap(&self, partition: &Arc<Partition>, copy: PartitionLog, asked: &Move) -> Result<Step, MoveError> {
        let from = partition.log_dir();
        match partition.swap_log(copy, asked.to_dir, clock::now_ms())? {
            Swapped::Gone(_) => Ok(Step::Ended(Ended::Dropped)),
            Swapped::NotYet(copy) => {
                std::thread::sleep(LOOK_AGAIN);
                Ok(Step::Again(copy))
            }
            Swapped::Done(deleted) => {
                self.partitions.moved(from, asked.to_dir);
                self.deleted_dirs.lock().extend(deleted.map(|path: PathBuf| (clock::now_ms(), path)));
                Ok(Step::Ended(Ended::Moved))
            }
        }
    }

    /// From here on the metadata do not say where the replica is, until it has moved.
    async fn tell_that_it_moves(self: &Arc<Self>, partition: &Partition) -> Result<(), MoveError> {
        let place = ReplicaPlace {
            topic_id: partition.topic_id,
            partition: partition.topic_partition.partition,
            directory: Uuid::DIRECTORY_UNASSIGNED,
        };
        let mut metadata = self.metadata.lock().await;
        let outcome = self.controller.assign_directories(metadata.image(), self.node_id, &[place]);
        self.commit(&mut metadata, &outcome.records).await.map_err(|error| MoveError::Metadata(error.to_string()))
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    fn is_over(&self, asked: &Move) -> Option<Ended> {
        if self.is_stopping() {
            return Some(Ended::Stopped);
        }
        let is_online = self.log_dirs.get(asked.to_dir).is_some_and(|dir| dir.is_online());
        (asked.cancelled.load(Ordering::SeqCst) || !is_online).then_some(Ended::Dropped)
    }
}

/// Moves what is asked for, until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let found = std::mem::take(&mut *broker.moves.found.lock());
    for (at, to_dir) in found {
        let Some(path) = broker.log_dirs.get(to_dir).map(|dir| log_dirs::name_of(&dir.path)) else { continue };
        if let Err(error) = broker.alter_log_dir(&path, &at.topic, at.partition) {
            tracing::info!(partition = %at, ?error, "a move that a former start began is not taken up");
        }
    }
    if broker.log_dirs.len() < 2 {
        return;
    }
    let wanted = broker.config.log_manager.alter_log_dirs_threads.unwrap_or(broker.log_dirs.len());
    let mut movers = JoinSet::new();
    for _ in 0..wanted.clamp(1, MOVES_AT_A_TIME_MAX) {
        movers.spawn(run_one(broker.clone()));
    }
    while movers.join_next().await.is_some() {}
}

async fn run_one(broker: Arc<Broker>) {
    let mut stopping = std::pin::pin!(broker.stopping());
    while !broker.is_stopping() {
        if !move_one(&broker).await {
            tokio::select! {
                () = &mut stopping => return,
                () = broker.moves.wanted.notified() => {}
            }
        }
    }
}

/// Sees one move to its end. False: none waits.
pub(crate) async fn move_one(broker: &Arc<Broker>) -> bool {
    let Some((at, asked)) = broker.moves.take_next() else { return false };
    let ended = broker.relocate(&at, &asked).await;
    {
        let mut all = broker.moves.all.lock();
        if all.get(&at).is_some_and(|known| Arc::ptr_eq(known, &asked)) {
            all.remove(&at);
        }
    }
    match ended {
        Ok(Ended::Stopped) => {}
        Ok(Ended::Dropped) => tracing::info!(partition = %at, "the move to another log directory was dropped"),
        Ok(Ended::Moved) => tracing::info!(partition = %at, "moved to another log directory"),
        Err(error) => tracing::error!(partition = %at, %error, "the move to another log directory failed"),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_for_all_moves_together_and_may_change() {
        let mut throttle = Throttle::default();
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        assert_eq!(throttle.wait(at(0), 1_000), Duration::ZERO, "nothing was read yet");
        throttle.spend(2_000);
        throttle.spend(1_000);
        assert_eq!(throttle.wait(at(0), 1_000), Duration::from_secs(3));
        assert_eq!(throttle.wait(at(1_000), 1_000), Duration::from_secs(2));
        assert_eq!(throttle.wait(at(1_000), 4_000), Duration::from_millis(500), "faster from now on");
        assert_eq!(throttle.wait(at(2_000), 0), THROTTLE_MAX, "nothing moves at no rate");
        assert_eq!(throttle.wait(at(60_000), 1_000), Duration::ZERO);
        throttle.spend(1_000);
        assert_eq!(throttle.wait(at(120_000), 1_000), Duration::ZERO, "time without a move is not saved up");
        throttle.spend(1_000);
        assert_eq!(throttle.wait(at(120_000), 1_000), Duration::from_secs(1));
        assert_eq!(throttle.wait(at(120_000), i64::MAX as u64), Duration::ZERO, "as good as no bound");
    }

    #[test]
    fn preferences_are_bounded_and_taken_once() {
        let moves = Moves::default();
        for partition in 0..limits::PREFERRED_DIRS_MAX as i32 + 5 {
            moves.prefer(TopicPartition::new("t", partition), 1);
        }
        assert_eq!(moves.preferred.lock().len(), limits::PREFERRED_DIRS_MAX);
        moves.prefer(TopicPartition::new("t", 3), 0);
        assert_eq!(moves.take_preferred(&TopicPartition::new("t", 3)), Some(0));
        assert_eq!(moves.take_preferred(&TopicPartition::new("t", 3)), None);
    }
}
