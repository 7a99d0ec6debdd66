//! What the logs of one process share: the way to the disk and the bounded cache of file handles.
//!
//! A segment owns a [`HandleSlot`] for each of its files; the handle in it comes and goes. At most `handles_max` are open
//! in all slots together: opening one more closes the longest unused ones. A reader holds an `Arc` of the file, so that
//! closing or deleting never breaks it. Running out of descriptors (EMFILE, ENFILE) closes cached handles, then gives up
//! one of a few held in reserve, and tries again, so that an append does not fail for it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::file::{BufferedIo, SegmentFile, SegmentIo};

/// Descriptors held back for the case that the process has no other left.
const RESERVED: usize = 4;

/// Shared by all logs of a process.
#[derive(Debug)]
pub struct LogShared {
    io: Box<dyn SegmentIo>,
    handles_max: usize,
    open: Mutex<Vec<Weak<HandleSlot>>>,
    open_count: AtomicUsize,
    clock: AtomicU64,
    /// What `clock` said when idle handles were last closed.
    idle_before: AtomicU64,
    reserve: Mutex<Vec<File>>,
    log_dirs: Mutex<HashMap<PathBuf, Arc<File>>>,
    on_offline: OnceLock<OfflineHook>,
}

/// Hears of a log directory and what is wrong with it.
pub type TellOffline = Box<dyn Fn(&Path, &str) + Send + Sync>;

struct OfflineHook(TellOffline);

impl fmt::Debug for OfflineHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfflineHook")
    }
}

/// The place of one file's handle.
#[derive(Debug, Default)]
pub(crate) struct HandleSlot {
    file: Mutex<Option<Arc<dyn SegmentFile>>>,
    last_used: AtomicU64,
}

impl LogShared {
    /// `handles_max` bounds the open segment files (see `limits::SEGMENT_HANDLES_MAX`).
    pub fn new(handles_max: usize) -> Arc<Self> {
        Self::with_io(handles_max, Box::new(BufferedIo))
    }

    /// With another way to the disk, for tests and for tuning.
    pub fn with_io(handles_max: usize, io: Box<dyn SegmentIo>) -> Arc<Self> {
        let reserve = (0..RESERVED).map_while(|_| File::open("/dev/null").ok()).collect();
        Arc::new(Self {
            io,
            handles_max: handles_max.max(1),
            open: Mutex::default(),
            open_count: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
            idle_before: AtomicU64::new(0),
            reserve: Mutex::new(reserve),
            log_dirs: Mutex::default(),
            on_offline: OnceLock::new(),
        })
    }

    /// Segment files open now.
    pub fn open_handles(&self) -> usize {
        self.open_count.load(Ordering::Relaxed)
    }

    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.retry_without_descriptors(|| self.io.sync_dir(path))
    }

    /// Makes a log directory known, before anything is written there, so that its file system can be flushed as a whole.
    /// The folder stays open: a flush fails on whatever was lost since.
    pub fn add_log_dir(&self, path: &Path) -> io::Result<()> {
        self.log_dirs.lock().insert(path.to_path_buf(), Arc::new(File::open(path)?));
        Ok(())
    }

    /// Sets, once, who is told of the log directory and the reason when a log goes offline (`LogDirFailureChannel`). It is
    /// called in the log's critical section.
    pub fn on_offline(&self, tell: TellOffline) {
        let _ = self.on_offline.set(OfflineHook(tell));
    }

    pub(crate) fn note_offline(&self, log_dir: &Path, reason: &str) {
        if let Some(hook) = self.on_offline.get() {
            (hook.0)(log_dir, reason);
        }
    }

    /// See [`SegmentIo::sync_file_system`]. A failure may be of other processes' files, and counts as "not done".
    pub(crate) fn sync_file_system(&self, log_dir: &Path) -> bool {
        let folder = self.log_dirs.lock().get(log_dir).cloned();
        folder.is_some_and(|folder| self.io.sync_file_system(&folder).unwrap_or(false))
    }

    /// Closes what nobody used since the call before.
    pub fn close_idle(&self) {
        let now = self.clock.load(Ordering::Relaxed);
        let before = self.idle_before.swap(now, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.retain(|slot| {
            let Some(slot) = slot.upgrade() else { return false };
            if slot.last_used.load(Ordering::Relaxed) < before {
                self.close(&slot);
            }
            slot.file.lock().is_some()
        });
    }

    /// Opens a file for one use, outside the cache.
    pub(crate) fn open_once(&self, path: &Path, create: bool) -> io::Result<Arc<dyn SegmentFile>> {
        self.retry_without_descriptors(|| self.io.open(path, create))
    }

    /// The slot's handle, opened if it is not.
    pub(crate) fn handle(
        &self,
        slot: &Arc<HandleSlot>,
        create: bool,
        path: impl FnOnce() -> std::path::PathBuf,
    ) -> io::Result<Arc<dyn SegmentFile>> {
        slot.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        if let Some(file) = slot.file.lock().as_ref() {
            return Ok(Arc::clone(file));
        }
        if self.open_handles() >= self.handles_max {
            self.close_oldest(self.handles_max.div_ceil(16));
        }
        let file = self.open_once(&path(), create)?;
        let mut place = slot.file.lock();
        if let Some(other) = place.as_ref() {
            return Ok(Arc::clone(other));
        }
        *place = Some(Arc::clone(&file));
        drop(place);
        self.open.lock().push(Arc::downgrade(slot));
        self.open_count.fetch_add(1, Ordering::Relaxed);
        Ok(file)
    }

    /// Closes the slot's handle, before its file is renamed or removed or because the log closes.
    pub(crate) fn close(&self, slot: &HandleSlot) {
        if slot.file.lock().take().is_some() {
            self.open_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn close_oldest(&self, count: usize) {
        let mut open = self.open.lock();
        open.retain(|slot| slot.upgrade().is_some_and(|slot| slot.file.lock().is_some()));
        open.sort_by_cached_key(|slot| slot.upgrade().map_or(0, |slot| slot.last_used.load(Ordering::Relaxed)));
        let count = count.min(open.len());
        for slot in open.drain(..count).filter_map(|slot| slot.upgrade()) {
            self.close(&slot);
        }
    }

    fn retry_without_descriptors<T>(&self, run: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut tries = 0;
        loop {
            match run() {
                Err(e) if tries < 2 * RESERVED && is_out_of_descriptors(&e) => {
                    tries += 1;
                    self.close_oldest((self.open_handles() / 2).max(1));
                    if tries > 1 {
                        self.reserve.lock().pop();
                    }
                }
                Ok(value) => {
                    if tries == 0 {
                        self.refill_reserve();
                    }
                    return Ok(value);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn refill_reserve(&self) {
        if let Some(mut reserve) = self.reserve.try_lock()
            && reserve.len() < RESERVED
            && let Ok(file) = File::open("/dev/null")
        {
            reserve.push(file);
        }
    }
}

fn is_out_of_descriptors(e: &io::Error) -> bool {
    let code = e.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error()) || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_handles_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let shared = LogShared::new(8);
        let slots: Vec<_> = (0..3).map(|_| Arc::new(HandleSlot::default())).collect();
        let open = |i: usize| drop(shared.handle(&slots[i], true, || dir.path().join(i.to_string())).unwrap());
        (0..3).for_each(open);
        shared.close_idle();
        assert_eq!(shared.open_handles(), 3);
        open(1);
        shared.close_idle();
        assert_eq!(shared.open_handles(), 1);
        shared.close_idle();
        assert_eq!(shared.open_handles(), 0);
        open(1);
        assert_eq!(shared.open_handles(), 1);
    }

    #[test]
    fn the_longest_unused_handles_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let shared = LogShared::new(4);
        let slots: Vec<_> = (0..20).map(|_| Arc::new(HandleSlot::default())).collect();
        let mut held = Vec::new();
        for (i, slot) in slots.iter().enumerate() {
            let file = shared.handle(slot, true, || dir.path().join(i.to_string())).unwrap();
            file.write_at(&[i as u8], 0).unwrap();
            assert!(shared.open_handles() <= 4, "{}", shared.open_handles());
            held.push(file);
        }
        // Files taken before stay readable, and closed ones come back.
        for (i, (slot, file)) in slots.iter().zip(&held).enumerate() {
            let again = shared.handle(slot, false, || dir.path().join(i.to_string())).unwrap();
            let mut byte = [0];
            assert_eq!(again.read_at(&mut byte, 0).unwrap(), 1);
            assert_eq!(byte, [i as u8]);
            assert_eq!(file.read_at(&mut byte, 0).unwrap(), 1);
        }
    }
}
