//! Replicas that move between the log directories of this broker (KIP-113). Answers to `ReplicaAlterLogDirsManager` and
//! `ReplicaManager.alterReplicaLogDirs`.
//!
//! One replica moves at a time, on the blocking pool; the others wait. A move that a stop or a crash ends begins anew at the
//! next start, which finds the copy's folder. Compaction leaves a log alone while it moves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::{LogError, PartitionLog, log_dir};
use taccola_wire::error::ErrorCode;
use tokio::sync::Notify;

use super::{cleaner, housekeeping};
use crate::broker::Broker;
use crate::clock;
use crate::partition::{Copied, Partition, RelocateError, Swapped};

/// How long a move waits for a compaction, or a flush, to end before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A replica on its way, or waiting for its turn.
#[derive(Debug)]
pub(crate) struct Move {
    topic_id: Uuid,
    pub to_dir: usize,
    cancelled: AtomicBool,
    /// Log end offset and bytes of the copy.
    pub copied_to: AtomicI64,
    pub bytes: AtomicI64,
}

/// All moves. LIMIT: one for each partition of this broker.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    all: Mutex<BTreeMap<TopicPartition, Arc<Move>>>,
    wanted: Notify,
    /// Folders of copies that a former start left behind, and where they were to go.
    found: Mutex<Vec<(TopicPartition, usize)>>,
}

impl Moves {
    pub(crate) fn with_found(found: Vec<(TopicPartition, usize)>) -> Self {
        Self { found: Mutex::new(found), ..Self::default() }
    }

    pub(crate) fn of(&self, at: &TopicPartition) -> Option<Arc<Move>> {
        self.all.lock().get(at).cloned()
    }

    fn cancel(&self, at: &TopicPartition) {
        if let Some(gone) = self.all.lock().remove(at) {
            gone.cancelled.store(true, Ordering::SeqCst);
        }
    }
}

/// How a move ended.
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
}

impl Broker {
    /// Asks for a replica to be moved to the directory of this path; done when it is there.
    pub(crate) fn alter_log_dir(&self, path: &str, topic: &str, partition: i32) -> Result<(), ErrorCode> {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if self.offline_dirs.iter().any(|dir| absolute(dir) == Path::new(path)) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let found = self.log_dirs.iter().position(|dir| absolute(&dir.path) == Path::new(path));
        let to_dir = found.ok_or(ErrorCode::LogDirNotFound)?;
        if !self.log_dirs.get(to_dir).is_some_and(|dir| dir.is_online()) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let found = self.partitions.get(topic, partition);
        let found = found.ok_or_else(|| self.missing_partition_error(topic, partition))?;
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
                    cancelled: AtomicBool::new(false),
                    copied_to: AtomicI64::new(0),
                    bytes: AtomicI64::new(0),
                })
            });
            self.moves.wanted.notify_one();
        }
        Ok(())
    }

    fn next_move(&self) -> Option<(TopicPartition, Arc<Move>)> {
        self.moves.all.lock().iter().next().map(|(at, found)| (at.clone(), found.clone()))
    }

    /// Blocks until the replica has moved, or need not.
    fn relocate(&self, at: &TopicPartition, asked: &Move) -> Result<Ended, MoveError> {
        let partition = self.partitions.get(&at.topic, at.partition).filter(|found| found.topic_id == asked.topic_id);
        let (Some(partition), Some(to)) = (partition, self.log_dirs.get(asked.to_dir)) else {
            return Ok(Ended::Dropped);
        };
        while !self.cleaner.claim(&partition) {
            if self.is_over(asked) {
                return Ok(if self.is_stopping() { Ended::Stopped } else { Ended::Dropped });
            }
            std::thread::sleep(LOOK_AGAIN);
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
        let ended = copy.map_err(MoveError::from).and_then(|copy| self.copy_and_swap(&partition, copy, asked));
        self.cleaner.give_back(&partition);
        let is_of_no_use = matches!(ended, Ok(Ended::Dropped))
            || (ended.is_err() && partition.is_online() && partition.log_dir() != asked.to_dir);
        if let Some(folder) = folder.filter(|folder| is_of_no_use && folder.exists())
            && let Err(error) = log_dir::remove_future(&folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "the copy of a log is not removed");
        }
        ended
    }

    fn copy_and_swap(
        &self,
        partition: &Arc<Partition>,
        mut copy: PartitionLog,
        asked: &Move,
    ) -> Result<Ended, MoveError> {
        loop {
            if self.is_over(asked) {
                return Ok(if self.is_stopping() { Ended::Stopped } else { Ended::Dropped });
            }
            let before = copy.size_bytes();
            let copied = partition.copy_some(&mut copy, clock::now_ms())?;
            asked.copied_to.store(copy.log_end_offset(), Ordering::Relaxed);
            asked.bytes.store(i64::try_from(copy.size_bytes()).unwrap_or(i64::MAX), Ordering::Relaxed);
            let grown = usize::try_from(copy.size_bytes().saturating_sub(before)).unwrap_or(usize::MAX);
            if let Some(reason) = self.disk_space.refuses(asked.to_dir, grown) {
                return Err(MoveError::NoRoom(reason));
            }
            match copied {
                Copied::Some => continue,
                Copied::Gone => return Ok(Ended::Dropped),
                Copied::All => {}
            }
            copy.flush(clock::now_ms())?;
            // Told before: a start between the two must know what it finds.
            cleaner::write_checkpoint_with(self, asked.to_dir, Some(partition))?;
            let start = partition.with_log(|log| log.log_start_offset()).unwrap_or(0);
            housekeeping::name_log_start(self, asked.to_dir, &partition.topic_partition, start)?;
            let from = partition.log_dir();
            match partition.swap_log(copy, asked.to_dir, clock::now_ms())? {
                Swapped::Gone(_) => return Ok(Ended::Dropped),
                Swapped::NotYet(again) => copy = again,
                Swapped::Done(deleted) => {
                    self.partitions.moved(from, asked.to_dir);
                    self.deleted_dirs.lock().extend(deleted.map(|path: PathBuf| (clock::now_ms(), path)));
                    housekeeping::write_recovery_points(self);
                    housekeeping::write_log_start_offsets(self);
                    return Ok(Ended::Moved);
                }
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    fn is_over(&self, asked: &Move) -> bool {
        let is_online = self.log_dirs.get(asked.to_dir).is_some_and(|dir| dir.is_online());
        asked.cancelled.load(Ordering::SeqCst) || self.is_stopping() || !is_online
    }
}

/// Moves what is asked for, until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = std::pin::pin!(broker.stopping());
    let found = std::mem::take(&mut *broker.moves.found.lock());
    for (at, to_dir) in found {
        let Some(path) = broker.log_dirs.get(to_dir).and_then(|dir| std::path::absolute(&dir.path).ok()) else {
            continue;
        };
        if let Err(error) = broker.alter_log_dir(&path.display().to_string(), &at.topic, at.partition) {
            tracing::info!(partition = %at, ?error, "a move that a former start began is not taken up");
        }
    }
    loop {
        let Some((at, asked)) = broker.next_move() else {
            tokio::select! {
                () = &mut stopping => return,
                () = broker.moves.wanted.notified() => continue,
            }
        };
        let (worker, of, todo) = (broker.clone(), at.clone(), asked.clone());
        let ended = super::blocking::spawn(move || worker.relocate(&of, &todo)).await;
        {
            let mut all = broker.moves.all.lock();
            if all.get(&at).is_some_and(|known| Arc::ptr_eq(known, &asked)) {
                all.remove(&at);
            }
        }
        match ended {
            Ok(Ok(Ended::Stopped)) => return,
            Ok(Ok(Ended::Dropped)) => tracing::info!(partition = %at, "the move to another log directory was dropped"),
            Ok(Ok(Ended::Moved)) => {
                tracing::info!(partition = %at, "moved to another log directory");
                let mut metadata = broker.metadata.lock().await;
                if let Err(error) = broker.commit_places(&mut metadata, |id| id == asked.topic_id).await {
                    tracing::error!(partition = %at, %error, "where the replica is now is not in the metadata");
                }
            }
            Ok(Err(error)) => tracing::error!(partition = %at, %error, "the move to another log directory failed"),
            Err(error) => tracing::error!(partition = %at, %error, "the move to another log directory"),
        }
    }
}
