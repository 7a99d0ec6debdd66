//! What was read of remote objects, in memory: chunks of a fixed size, the least recently used go first. Also the one place from which
//! objects are read, so that readers of the same chunk share one request, and a reader that goes away does not end it.
//!
//! LIMIT: `taccola.remote.fetch.cache.bytes` for what is here and under way together, but always at least one request;
//! `remote.log.reader.threads` requests at a time, `remote.log.reader.max.pending.tasks` waiting; more are refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use taccola_base::Uuid;
use taccola_base::config::RemoteStorageConfig;
use taccola_remote::{RemoteError, Store};
use tokio::sync::{Semaphore, watch};

use super::objects::ObjectKind;
use super::throttle::Throttle;

/// Bytes of a chunk; the last of an object is shorter.
pub(super) const CHUNK_BYTES: u64 = 2 * 1024 * 1024;

/// More requests at a time help nobody.
const READERS_MAX: usize = 10_000;

type Loaded = Result<Bytes, Arc<RemoteError>>;

/// Why a chunk is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CacheError {
    /// As many reads wait as may.
    #[error("too many remote reads wait")]
    Busy,
    #[error(transparent)]
    Store(Arc<RemoteError>),
}

/// One chunk of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) segment: Uuid,
    pub(super) kind: ObjectKind,
    /// Position by [`CHUNK_BYTES`]; whole objects are chunk 0.
    pub(super) chunk: u64,
}

struct Entry {
    loaded: watch::Receiver<Option<Loaded>>,
    bytes: u64,
    used: u64,
}

#[derive(Default)]
struct Entries {
    map: HashMap<ChunkKey, Entry>,
    bytes: u64,
    clock: u64,
    /// Requests that run or wait to.
    under_way: usize,
}

/// See the module.
pub(super) struct ReadCache {
    store: Store,
    entries: Arc<Mutex<Entries>>,
    permits: Arc<Semaphore>,
    throttle: Arc<Throttle>,
    bytes_max: u64,
    /// Permits that there are, and requests that may wait besides.
    readers: AtomicUsize,
    pending_max: usize,
}

/// What to ask the store for.
pub(super) enum Want {
    /// A range, end exclusive.
    Range(std::ops::Range<u64>),
    /// The whole object, of at most this many bytes.
    Whole(u64),
}

impl ReadCache {
    pub(super) fn new(store: Store, config: &RemoteStorageConfig) -> Self {
        Self {
            store,
            entries: Arc::default(),
            permits: Arc::new(Semaphore::new(config.readers.clamp(1, READERS_MAX))),
            throttle: Arc::new(Throttle::new(config.fetch_bytes_per_second)),
            bytes_max: config.cache_bytes as u64,
            readers: AtomicUsize::new(config.readers.clamp(1, READERS_MAX)),
            pending_max: config.readers_pending,
        }
    }

    /// Takes over settings that can change while the broker runs. Called by one task alone.
    pub(super) fn follow(&self, config: &RemoteStorageConfig) {
        self.throttle.set(config.fetch_bytes_per_second);
        let (have, want) = (self.readers.load(Ordering::Relaxed), config.readers.clamp(1, READERS_MAX));
        let now = if want > have {
            self.permits.add_permits(want - have);
            want
        } else {
            // Permits in use are taken back at a later look.
            have - self.permits.forget_permits(have - want)
        };
        self.readers.store(now, Ordering::Relaxed);
    }

    /// The chunk, from here or from the store.
    pub(super) async fn get(&self, key: ChunkKey, object: String, want: Want) -> Result<Bytes, CacheError> {
        let mut loaded = self.request(key, object, want)?;
        let result = loaded.wait_for(Option::is_some).await.map(|value| value.clone());
        match result {
            Ok(Some(Ok(bytes))) => Ok(bytes),
            Ok(Some(Err(error))) => Err(CacheError::Store(error)),
            // The request's task died: whoever asks next begins another.
            _ => Err(CacheError::Busy),
        }
    }

    /// Has a chunk read that will probably be asked for.
    pub(super) fn prefetch(&self, key: ChunkKey, object: String, want: Want) {
        let _ = self.request(key, object, want);
    }

    fn request(
        &self,
        key: ChunkKey,
        object: String,
        want: Want,
    ) -> Result<watch::Receiver<Option<Loaded>>, CacheError> {
        let mut entries = self.entries.lock();
        entries.clock += 1;
        let clock = entries.clock;
        if let Some(entry) = entries.map.get_mut(&key) {
            entry.used = clock;
            return Ok(entry.loaded.clone());
        }
        if entries.under_way >= self.readers.load(Ordering::Relaxed).saturating_add(self.pending_max) {
            return Err(CacheError::Busy);
        }
        let bytes = match &want {
            Want::Range(range) => range.end.saturating_sub(range.start),
            // Set right when it is here.
            Want::Whole(_) => 0,
        };
        let (sender, receiver) = watch::channel(None);
        entries.map.insert(key.clone(), Entry { loaded: receiver.clone(), bytes, used: clock });
        entries.bytes += bytes;
        entries.under_way += 1;
        self.make_room(&mut entries);
        drop(entries);
        let (store, shared, permits) = (self.store.clone(), self.entries.clone(), self.permits.clone());
        let throttle = self.throttle.clone();
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            throttle.take(usize::try_from(bytes).unwrap_or(usize::MAX)).await;
            let result = match want {
                Want::Range(range) => store.get(&object, range).await,
                Want::Whole(max) => store.get_whole(&object, max).await,
            };
            finish(&shared, &key, result.as_ref().ok());
            let _ = sender.send(Some(result.map_err(Arc::new)));
        });
        Ok(receiver)
    }

    /// Lets the least recently used go that nobody waits for any more.
    fn make_room(&self, entries: &mut Entries) {
        while entries.bytes > self.bytes_max {
            let done = entries.map.iter().filter(|(_, entry)| entry.loaded.borrow().is_some());
            let Some(key) = done.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else { return };
            if let Some(entry) = entries.map.remove(&key) {
                entries.bytes -= entry.bytes;
            }
        }
    }

    /// A segment that is deleted.
    pub(super) fn forget(&self, segment: &Uuid) {
        let mut entries = self.entries.lock();
        let mut gone = 0;
        entries.map.retain(|key, entry| {
            let keep = key.segment != *segment;
            gone += if keep { 0 } else { entry.bytes };
            keep
        });
        entries.bytes -= gone;
    }
}

/// A request ended: what failed is forgotten, so that the next reader tries again.
fn finish(entries: &Mutex<Entries>, key: &ChunkKey, bytes: Option<&Bytes>) {
    let mut entries = entries.lock();
    entries.under_way = entries.under_way.saturating_sub(1);
    match bytes {
        Some(bytes) => {
            let length = bytes.len() as u64;
            if let Some(before) = entries.map.get_mut(key).map(|entry| std::mem::replace(&mut entry.bytes, length)) {
                entries.bytes = entries.bytes.saturating_sub(before) + length;
            }
        }
        None => {
            if let Some(entry) = entries.map.remove(key) {
                entries.bytes -= entry.bytes;
            }
        }
    }
}
