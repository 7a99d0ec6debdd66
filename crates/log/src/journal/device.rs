//! The file below the journal, behind a trait so that tests can tear, lose, misdirect and fail its writes.
//!
//! INVARIANT: when `write_durable` returns `Ok`, the bytes survive a power cut. When it returns an error nothing is known
//! about them, and the caller never repeats the call.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use taccola_base::planted::{Bug, planted};

#[cfg(target_os = "linux")]
use super::device_linux as platform;
#[cfg(not(target_os = "linux"))]
use portable as platform;

use super::buffer::AlignedBuf;
use crate::disk_watch::DiskOp;
use crate::file::{opened, step, step_writing};

use super::{DirectIo, JournalError};

/// Bytes of a reserved file that are filled when it is made.
const FILL_BYTES_RESERVED: u64 = 2 * 1024 * 1024;
/// Bytes that one write takes while the file is filled.
const FILL_BYTES: usize = 4 * 1024 * 1024;

/// A file of fixed length that is read and written in whole blocks, from memory that is aligned to blocks.
pub trait JournalDevice: Send {
    /// Length in bytes.
    fn size_bytes(&self) -> u64;
    /// Fills `buf` from `position`.
    fn read(&self, position: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `position` and returns once they survive a power cut.
    fn write_durable(&mut self, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// How writes become durable, for the log and for metrics.
    fn mode(&self) -> WriteMode;
}

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// One call past the page cache that returns when the disk has it (`O_DIRECT` and `O_DSYNC`).
    DirectSync,
    /// A write to the page cache, then `fdatasync` (`F_FULLFSYNC` on macOS).
    BufferedThenSync,
}

/// The journal file itself. Holds an exclusive lock for as long as it is open.
pub(super) struct FileDevice {
    file: File,
    mode: WriteMode,
    size_bytes: u64,
}

impl FileDevice {
    /// Opens an existing file and locks it.
    pub(super) fn open(path: &Path, direct_io: DirectIo) -> Result<Self, JournalError> {
        let io_error = |op| move |source| JournalError::Io { op, source };
        let plain = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open"))?;
        match plain.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::Locked { path: path.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(JournalError::Io { op: "lock", source }),
        }
        let size_bytes = plain.metadata().map_err(io_error("stat"))?.len();
        let direct = match direct_io {
            DirectIo::Auto if planted(Bug::JournalNotSynced) => None,
            DirectIo::Auto => platform::open_direct(path, size_bytes),
            DirectIo::Off => None,
        };
        let Some(file) = direct else {
            return Ok(Self { file: plain, mode: WriteMode::BufferedThenSync, size_bytes });
        };
        // The lock belongs to the open file description: it is taken over, not shared.
        drop(plain);
        file.try_lock().map_err(|_| JournalError::Locked { path: path.to_owned() })?;
        Ok(Self { file, mode: WriteMode::DirectSync, size_bytes })
    }

    /// Opens a file to read what whoever holds its lock has written, which is the caller's to hold up meanwhile.
    pub(super) fn open_beside(path: &Path) -> io::Result<Self> {
        let plain = File::open(path)?;
        let size_bytes = plain.metadata()?.len();
        let file = platform::open_direct(path, size_bytes).unwrap_or(plain);
        Ok(Self { file, mode: WriteMode::BufferedThenSync, size_bytes })
    }

    /// Makes a file of `size_bytes` whose space is all taken: reserved first, so that a full disk is noticed before anything
    /// else happens, then filled with zeros and synced. Where the space could be reserved only the beginning is filled, so
    /// that a first start need not wait for the disk: the first lap writes the rest, at the price of one extent
    /// conversion per write. An older file at `path` is emptied.
    pub(super) fn create_filled(path: &Path, size_bytes: u64) -> Result<(), JournalError> {
        let fault = |op: &'static str| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    JournalError::NoSpace { path: path.to_owned(), size_bytes, source }
                }
                _ => JournalError::Io { op, source },
            }
        };
        step(&DiskOp::Create { path, emptied: true }).map_err(fault("create"))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(fault("create"))?;
        opened(path, &file);
        step(&DiskOp::SetLen { file: &file, length: size_bytes }).map_err(fault("reserve"))?;
        let reserved = check_free(&file, size_bytes)
            .and_then(|()| platform::reserve(&file, size_bytes))
            .map_err(fault("reserve"))?;
        let fill_bytes = if reserved { size_bytes.min(FILL_BYTES_RESERVED) } else { size_bytes };
        let zeros = AlignedBuf::zeroed(FILL_BYTES);
        let direct = platform::open_direct_unsynced(path);
        let mut at = 0;
        while at < fill_bytes {
            let n = usize::try_from(fill_bytes - at).unwrap_or(FILL_BYTES).min(FILL_BYTES);
            let chunk = zeros.bytes().get(..n).unwrap_or_default();
            let direct_done = direct.as_ref().is_some_and(|d| d.write_all_at(chunk, at).is_ok());
            if !direct_done {
                file.write_all_at(chunk, at).map_err(fault("fill"))?;
            }
            at += n as u64;
        }
        step(&DiskOp::Sync { file: &file }).map_err(fault("sync"))?;
        file.sync_all().map_err(fault("sync"))
    }
}

impl JournalDevice for FileDevice {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, position: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, position)
    }

    fn write_durable(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        step_writing(&self.file, position, bytes)?;
        self.file.write_all_at(bytes, position)?;
        step(&DiskOp::Sync { file: &self.file })?;
        match self.mode {
            WriteMode::DirectSync => Ok(()),
            WriteMode::BufferedThenSync if planted(Bug::JournalNotSynced) => Ok(()),
            WriteMode::BufferedThenSync => self.file.sync_data(),
        }
    }

    fn mode(&self) -> WriteMode {
        self.mode
    }
}

/// Fails as a full disk would when its file system has no `size_bytes` to give. Asked first, because to try would take
/// all that is left, if only for a moment, from everybody else.
fn check_free(file: &File, size_bytes: u64) -> io::Result<()> {
    let stat = rustix::fs::fstatvfs(file)?;
    if stat.f_bavail.saturating_mul(stat.f_frsize) < size_bytes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// What `device_linux` does, for systems that have no direct I/O of that kind.
#[cfg(not(target_os = "linux"))]
mod portable {
    use super::*;

    pub(super) fn open_direct(_path: &Path, _size_bytes: u64) -> Option<File> {
        None
    }

    pub(super) fn open_direct_unsynced(_path: &Path) -> Option<File> {
        None
    }

    pub(super) fn reserve(_file: &File, _size_bytes: u64) -> io::Result<bool> {
        Ok(false)
    }
}
