//! Tiered storage (KIP-405): sealed segments of topics with `remote.storage.enable` are copied to an object store, read from there when
//! they are not here any more, and deleted when retention says so. Answers to Kafka's `RemoteLogManager`,
//! `TopicBasedRemoteLogMetadataManager` and, for the layout of objects, to a `RemoteStorageManager`.
//!
//! INVARIANTS
//! - Every step is a record in `__remote_log_metadata` that is durable before the next step begins. What is in memory is what
//!   those records say; a start reads them all.
//! - A segment is read only after the record that its copy is finished, which comes only when all its objects are there with
//!   their length. Its local segment goes no earlier.
//! - Before a remote segment is deleted the log start offset has moved past it and is on disk.
//! - One task at a time works on a partition.
//! - Nothing here waits while a partition's lock is held, and no worker of the runtime waits for the store or the disk.
//!
//! docs/internals/tiered-storage.md has the layout of objects and the order of steps.

mod cache;
mod copy;
mod delete;
mod index;
mod metadata;
mod objects;
mod read;
mod search;
mod task;
#[cfg(test)]
mod tests;
mod throttle;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use taccola_base::config::RemoteStorageConfig;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::remote::{DeleteState, RemoteSegment, RemoteSegments};
use taccola_remote::{Options, RemoteError, Store};
use tokio::sync::{Notify, watch};

pub(crate) use read::{RemoteReadError, read_partition};
pub(crate) use search::{find_by_timestamp, find_max_timestamp};
pub(crate) use task::run;

use cache::ReadCache;
use throttle::Throttle;

/// A partition of one topic; one that takes over the name is another.
type Key = (Uuid, i32);

/// What this broker knows of remote storage, and how it gets there.
pub(crate) struct RemoteStorage {
    /// As it was at start; what can change while the broker runs is read where it is needed.
    config: RemoteStorageConfig,
    store: Store,
    partitions: Mutex<HashMap<Key, RemotePartition>>,
    /// Whether `__remote_log_metadata` was read to its end since the start.
    loaded: watch::Sender<bool>,
    cache: ReadCache,
    copy_throttle: Throttle,
    /// Wakes the task before its interval is over.
    wake: Notify,
}

/// A partition that has, had or will have segments in remote storage.
struct RemotePartition {
    at: TopicPartition,
    segments: RemoteSegments,
    /// Set while the remote data of a deleted partition goes.
    deleting: Option<DeleteState>,
    /// End of what the last look at retention found old enough: a clock that jumps costs nothing at once.
    expired_before: i64,
}

/// Why a step towards remote storage was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TierError {
    #[error("object store: {0}")]
    Store(#[from] RemoteError),
    #[error("{0}")]
    Log(String),
    /// The record of the step could not be written.
    #[error("__remote_log_metadata: {0}")]
    Metadata(String),
    /// The partition is gone, or the broker stops.
    #[error("given up")]
    GivenUp,
}

impl RemoteStorage {
    /// Opens the store that the config names; `None` when tiered storage is off.
    pub(crate) fn open(config: &RemoteStorageConfig) -> Result<Option<Arc<Self>>, RemoteError> {
        let Some(url) = config.url.as_deref().filter(|_| config.enable) else { return Ok(None) };
        #[cfg(test)]
        if let Some(store) = tests::planted(url) {
            return Ok(Some(Self::new(config.clone(), store)));
        }
        let store = Store::open(url, &Options::from_pairs(&config.options.0)?)?;
        Ok(Some(Self::new(config.clone(), store)))
    }

    pub(crate) fn new(config: RemoteStorageConfig, store: Store) -> Arc<Self> {
        let cache = ReadCache::new(store.clone(), &config);
        let (loaded, _) = watch::channel(false);
        Arc::new(Self {
            cache,
            copy_throttle: Throttle::new(config.copy_bytes_per_second),
            store,
            partitions: Mutex::default(),
            loaded,
            wake: Notify::new(),
            config,
        })
    }

    /// Something changed that the task should look at soon.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    async fn wait_loaded(&self) {
        // The sender lives in this struct, so it cannot be gone.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// Runs `f` on what is known of a partition's remote segments.
    fn with<T>(&self, key: &Key, f: impl FnOnce(&mut RemotePartition) -> T) -> Option<T> {
        self.partitions.lock().get_mut(key).map(f)
    }

    fn find(&self, key: &Key, epochs: &[(i32, i64)], offset: i64) -> Option<RemoteSegment> {
        self.with(key, |remote| remote.segments.find_in(epochs, offset).cloned()).flatten()
    }
}
