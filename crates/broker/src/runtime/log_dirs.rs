//! One of several log directories fails while the broker runs: its partitions go, the others go on. Answers to Kafka's
//! `LogDirFailureChannel` and `ReplicaManager.handleLogDirFailure`.
//!
//! Whatever met the failure notes it; the next checkpoint, which is asked for at once, takes the directory's partitions away
//! and keeps a copy of the journal for it ([`taccola_log::journal::keep_for`]), before anything is released; then the
//! metadata are told. Acknowledgements that were under way look once more whether their partition is still here. The first
//! directory, which has the journal, and that of the metadata log cannot be done without: their failure stops the broker.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use taccola_log::journal;
use taccola_wire::error::ErrorCode;
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::runtime::journal::LogDirFailures;

/// What failed so far.
#[derive(Debug, Default)]
pub(crate) struct FailedDirs {
    /// Whether any ever did.
    any: AtomicBool,
    /// Whether some wait to be isolated.
    pending: AtomicBool,
    noted: Mutex<Vec<(usize, String)>>,
    /// Directories without partitions, of which the metadata are to be told.
    isolated: Mutex<Vec<taccola_base::Uuid>>,
    tell: Notify,
}

impl Broker {
    /// Of the directories that were usable at start, those that still are: their indexes into `log_dirs`.
    pub(crate) fn online_dirs(&self) -> impl Iterator<Item = usize> {
        self.log_dirs.iter().enumerate().filter(|(_, dir)| dir.is_online()).map(|(index, _)| index)
    }

    /// Whether a log directory is missing: one that could not be used at start, or has failed since.
    pub(crate) fn lacks_log_dirs(&self) -> bool {
        !self.offline_dirs.is_empty() || self.failed_dirs.any.load(Ordering::SeqCst)
    }

    /// Notes that a directory does not do what it is asked for. False: nothing goes without it, or it is none.
    pub(crate) fn note_dir_failure(&self, log_dir: usize, reason: &str) -> bool {
        let Some(dir) = self.log_dirs.get(log_dir) else { return false };
        if log_dir == 0 || log_dir == self.metadata_partition.log_dir() {
            return false;
        }
        if dir.is_online() {
            let mut noted = self.failed_dirs.noted.lock();
            if !noted.iter().any(|(known, _)| *known == log_dir) {
                tracing::error!(dir = %dir.path.display(), reason, "a log directory failed; the others are served");
                noted.push((log_dir, reason.to_owned()));
            }
            self.failed_dirs.any.store(true, Ordering::SeqCst);
            self.failed_dirs.pending.store(true, Ordering::SeqCst);
            drop(noted);
            self.journal.request_checkpoint();
        }
        true
    }

    /// After a wait for the disk: what a batch may not be acknowledged with, if its partition went in the meantime.
    pub(crate) fn lost_meanwhile(&self, topic: &str, partition: i32) -> Option<ErrorCode> {
        if !self.failed_dirs.any.load(Ordering::SeqCst) {
            return None;
        }
        match self.partitions.get(topic, partition) {
            Some(partition) if partition.is_online() => None,
            Some(_) => Some(ErrorCode::KafkaStorageError),
            None => Some(self.missing_partition_error(topic, partition)),
        }
    }

    fn isolate_dirs(&self) -> Result<(), String> {
        let failed = {
            let mut noted = self.failed_dirs.noted.lock();
            self.failed_dirs.pending.store(false, Ordering::SeqCst);
            std::mem::take(&mut *noted)
        };
        for (index, reason) in failed {
            let Some(dir) = self.log_dirs.get(index) else { continue };
            dir.set_offline();
            let mut journaled = false;
            let mut logs = BTreeSet::new();
            for partition in self.partitions.all().into_iter().filter(|partition| partition.log_dir() == index) {
                let at = &partition.topic_partition;
                logs.insert((partition.topic_id, at.partition));
                self.partitions.remove(&at.topic, partition.topic_id, at.partition);
                for coordinator in self.coordinators.iter().filter(|coordinator| coordinator.topic() == &*at.topic) {
                    coordinator.give_up(at.partition);
                }
                drop(partition.take_log());
                journaled |= partition.is_dirty();
            }
            let first = self.log_dirs.first().filter(|_| journaled);
            let kept = first.map(|first| journal::keep_for(&first.path, dir.id, &logs)).transpose();
            kept.map_err(|error| format!("the journal is not kept for {} ({reason}): {error}", dir.path.display()))?;
            self.failed_dirs.isolated.lock().push(dir.id);
            self.failed_dirs.tell.notify_one();
        }
        Ok(())
    }
}

/// What clients call a log directory: its absolute path, without a slash at the end.
pub(crate) fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.components().as_path().display().to_string()
}

/// The broker as the journal and the logs see it: they live inside it.
struct Watcher(Weak<Broker>);

impl LogDirFailures for Watcher {
    fn is_pending(&self) -> bool {
        self.0.upgrade().is_some_and(|broker| broker.failed_dirs.pending.load(Ordering::SeqCst))
    }

    fn note(&self, log_dir: usize, reason: &str) -> bool {
        self.0.upgrade().is_some_and(|broker| broker.note_dir_failure(log_dir, reason))
    }

    fn isolate(&self) -> Result<(), String> {
        self.0.upgrade().map_or(Ok(()), |broker| broker.isolate_dirs())
    }
}

/// Has journal and logs tell of failures.
pub(crate) fn watch(broker: &Arc<Broker>) {
    broker.journal.watch_log_dirs(Box::new(Watcher(Arc::downgrade(broker))));
    let weak = Arc::downgrade(broker);
    broker.log_shared.on_offline(Box::new(move |path: &Path, reason: &str| {
        let Some(broker) = weak.upgrade() else { return };
        if let Some(index) = broker.log_dirs.iter().position(|dir| dir.path == path) {
            broker.note_dir_failure(index, reason);
        }
    }));
}

/// Tells the metadata of directories that failed, until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = std::pin::pin!(broker.stopping());
    loop {
        tokio::select! {
            () = &mut stopping => return,
            () = broker.failed_dirs.tell.notified() => {}
        }
        let failed = std::mem::take(&mut *broker.failed_dirs.isolated.lock());
        if failed.is_empty() {
            continue;
        }
        let mut metadata = broker.metadata.lock().await;
        match broker.controller.directories_offline(metadata.image(), broker.node_id, &failed) {
            Err(error) => tracing::error!(message = error.message, "directories that failed are not in the metadata"),
            Ok(outcome) => {
                if let Err(error) = broker.commit(&mut metadata, &outcome.records).await {
                    tracing::error!(%error, "directories that failed are not in the metadata");
                }
            }
        }
    }
}
