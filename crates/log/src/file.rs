//! The one way from a log to the disk: [`SegmentIo`] opens files, [`SegmentFile`] reads, writes and flushes one.
//!
//! How bytes reach the disk is tuned here and nowhere else, and tests put files that fail behind the same traits.
//! Positions and lengths are bytes. Nothing here retries a failed flush.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::buffer::spare_capacity;

use crate::disk_watch::DiskOp;

/// Pages come into the cache in runs of about this many bytes: one of each run is asked for.
#[cfg(target_os = "linux")]
const PROBE_STEP_BYTES: usize = 128 * 1024;
/// A range is probed so often and no further.
#[cfg(target_os = "linux")]
const PROBES_MAX: usize = 64;

/// One open file.
pub trait SegmentFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `position`, growing the file.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Fills `out` from `position`; answers how many bytes there were, fewer only at the end of the file.
    fn read_at(&self, out: &mut [u8], position: u64) -> io::Result<usize>;
    /// Appends at most `length` bytes from `position` to `out`, fewer only at the end of the file.
    fn read_onto(&self, out: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()>;
    /// Whether a read of this range probably need not wait for the disk. Files that cannot tell say no.
    fn is_cached(&self, _position: u64, _length: u64) -> bool {
        false
    }
    /// Makes content and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves space up to `length` and sets the file's length to it; doing nothing is allowed.
    fn preallocate(&self, length: u64) -> io::Result<()>;
}

/// Opens files and flushes folders.
pub trait SegmentIo: Send + Sync + fmt::Debug {
    /// For reading and writing; `create` makes the file if it is not there.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn SegmentFile>>;
    /// Makes the folder's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system of an open folder durable, which for many files is cheaper than each by
    /// itself; false where that is not to be had. Fails if anything there was lost since the folder was opened.
    fn sync_file_system(&self, _folder: &File) -> io::Result<bool> {
        Ok(false)
    }
}

/// Plain files through the page cache.
#[derive(Debug, Default)]
pub struct BufferedIo;

impl SegmentIo for BufferedIo {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn SegmentFile>> {
        if create {
            step(&DiskOp::Create { path, emptied: false })?;
        }
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        opened(path, &file);
        Ok(Arc::new(BufferedFile { file }))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        sync_dir(path)
    }

    /// On ext4 alone, which flushes the disk's cache too and reports what was lost. FUSE, for one, does neither.
    #[cfg(target_os = "linux")]
    fn sync_file_system(&self, folder: &File) -> io::Result<bool> {
        const EXT4_MAGIC: i64 = 0xef53;
        #[cfg(feature = "simulation")]
        if crate::disk_watch::is_watched() {
            // Who keeps account of what is synced knows single files.
            return Ok(false);
        }
        #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
        let kind = rustix::fs::fstatfs(folder)?.f_type as i64;
        if kind != EXT4_MAGIC {
            return Ok(false);
        }
        rustix::fs::syncfs(folder)?;
        Ok(true)
    }
}

/// Opens a file that is only looked at, perhaps while a broker writes to it.
pub(crate) fn open_read_only(path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
    Ok(Arc::new(BufferedFile { file: File::open(path)? }))
}

#[derive(Debug)]
struct BufferedFile {
    file: File,
}

impl SegmentFile for BufferedFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        step_writing(&self.file, position, bytes)?;
        self.file.write_all_at(bytes, position)
    }

    fn read_at(&self, out: &mut [u8], position: u64) -> io::Result<usize> {
        reading(&self.file, position, out.len())?;
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_onto(&self, out: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()> {
        reading(&self.file, position, length)?;
        let start = out.len();
        let end = start.saturating_add(length);
        out.try_reserve_exact(length).map_err(io::Error::other)?;
        while out.len() < end {
            let at = position + (out.len() - start) as u64;
            match rustix::io::pread(&self.file, spare_capacity(out), at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e == rustix::io::Errno::INTR => {}
                Err(e) => return Err(e.into()),
            }
        }
        out.truncate(end);
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn is_cached(&self, position: u64, length: u64) -> bool {
        let end = position.saturating_add(length);
        let at_hand = |at: u64| {
            let mut byte = [0];
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            rustix::io::preadv2(&self.file, &mut [io::IoSliceMut::new(&mut byte)], at, flags).is_ok()
        };
        let steps = (position..end).step_by(PROBE_STEP_BYTES);
        length == 0 || (steps.take(PROBES_MAX).all(at_hand) && at_hand(end - 1))
    }

    fn sync(&self) -> io::Result<()> {
        step(&DiskOp::Sync { file: &self.file })?;
        self.file.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        step(&DiskOp::SetLen { file: &self.file, length })?;
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        step(&DiskOp::SetLen { file: &self.file, length })?;
        self.file.set_len(length)
    }
}

/// Makes the folder's entries durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    step(&DiskOp::SyncDir { path })?;
    File::open(path)?.sync_all()
}

/// Replaces a small file so that a crash leaves the old or the new content: written to `<path>.tmp`, flushed, renamed,
/// folder flushed.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    write_new(temporary, content)?;
    rename(temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a file with this content, and flushes it.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = write_unsynced(path, content)?;
    step(&DiskOp::Sync { file: &file })?;
    file.sync_data()
}

/// Makes a file with this content, or replaces what it holds, without a flush.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    write_unsynced(path, content).map(|_| ())
}

fn write_unsynced(path: &Path, content: &[u8]) -> io::Result<File> {
    step(&DiskOp::Create { path, emptied: true })?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    opened(path, &file);
    step_writing(&file, 0, content)?;
    file.write_all_at(content, 0)?;
    Ok(file)
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step(&DiskOp::Rename { from, to })?;
    std::fs::rename(from, to)
}

pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    step(&DiskOp::CreateDir { path })?;
    std::fs::create_dir(path)
}

/// Unlinks a folder with all that is in it.
pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    // In two steps for the tests: a folder is not unlinked at once either.
    let mut entries = std::fs::read_dir(path)?;
    if let Some(entry) = entries.next().transpose()? {
        remove_if_exists(&entry.path())?;
    }
    step(&DiskOp::RemoveDirAll { path })?;
    std::fs::remove_dir_all(path)
}

/// Unlinks an empty folder.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    step(&DiskOp::RemoveDirAll { path })?;
    std::fs::remove_dir(path)
}

/// Comes before everything that changes the disk.
pub(crate) fn step(operation: &DiskOp<'_>) -> io::Result<()> {
    #[cfg(test)]
    crash::step()?;
    #[cfg(feature = "simulation")]
    crate::disk_watch::before(operation)?;
    let _ = operation;
    Ok(())
}

/// The same before a write. Who dies in it leaves a part of it.
pub(crate) fn step_writing(file: &File, position: u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    crash::step_writing(|| file.write_all_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), position))?;
    step_of_a_write(&DiskOp::Write { file, position, bytes })
}

#[cfg(feature = "simulation")]
fn step_of_a_write(operation: &DiskOp<'_>) -> io::Result<()> {
    crate::disk_watch::before(operation)
}

#[cfg(not(feature = "simulation"))]
#[inline(always)]
fn step_of_a_write(_operation: &DiskOp<'_>) -> io::Result<()> {
    Ok(())
}

/// Comes before a read.
fn reading(file: &File, position: u64, length: usize) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    crate::disk_watch::before(&DiskOp::Read { file, position, length: length as u64 })?;
    let _ = (file, position, length);
    Ok(())
}

/// Comes after a file was opened, perhaps made.
pub(crate) fn opened(path: &Path, file: &File) {
    #[cfg(feature = "simulation")]
    crate::disk_watch::opened(path, file);
    let _ = (path, file);
}

/// Replaces a small file so that a kill leaves the old or the new content. What a power cut leaves is the caller's to
/// care for: nothing is flushed.
pub(crate) fn write_renamed(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    write_file(temporary, content)?;
    rename(temporary, path)
}

/// Reads a small file, at most `limit` bytes of it; `None` when it is not there. A larger file is an error.
pub(crate) fn read_small(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if file.metadata()?.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "file is larger than its kind can be"));
    }
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit), &mut content)?;
    Ok(Some(content))
}

/// Unlinks a file; one that is not there is fine.
pub(crate) fn remove_if_exists(path: &Path) -> io::Result<()> {
    step(&DiskOp::RemoveFile { path })?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets a thread's process die at its n-th operation on the disk: it fails, and so do all that follow. A write that dies
/// leaves half of its bytes.
#[cfg(test)]
pub(crate) mod crash {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        /// Operations so far, and how many there will be.
        static LIFE: Cell<(u64, u64)> = const { Cell::new((0, u64::MAX)) };
    }

    /// Operation `at`, counted from 0, is the first that does not happen.
    pub(crate) fn arm(at: u64) {
        LIFE.set((0, at));
    }

    /// Nobody dies any more; how many operations there were.
    pub(crate) fn disarm() -> u64 {
        LIFE.replace((0, u64::MAX)).0
    }

    fn dead() -> io::Error {
        io::Error::other("the process is dead")
    }

    pub(super) fn step() -> io::Result<()> {
        let (seen, limit) = LIFE.get();
        if seen >= limit {
            return Err(dead());
        }
        LIFE.set((seen + 1, limit));
        Ok(())
    }

    pub(super) fn step_writing(half: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (seen, limit) = LIFE.get();
        if seen == limit {
            LIFE.set((seen, 0));
            half()?;
        }
        step()
    }
}
