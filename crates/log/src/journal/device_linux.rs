//! What only Linux offers the journal: direct, synchronous writes past the page cache, and reserving a file's space.
//! Everything here may be missing (tmpfs, overlay, network file systems); the caller then writes through the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::buffer::AlignedBuf;
use super::format::BLOCK;

fn custom_flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Opens for direct, synchronous writes, and proves by a read of one block that the file system takes aligned direct
/// I/O in units of [`BLOCK`]. `None` when it does not.
pub(super) fn open_direct(path: &Path, size_bytes: u64) -> Option<File> {
    let flags = custom_flags(OFlags::DIRECT | OFlags::DSYNC);
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()?;
    let mut block = AlignedBuf::zeroed(BLOCK);
    if size_bytes >= BLOCK as u64 {
        file.read_exact_at(block.bytes_mut(), 0).ok()?;
    }
    Some(file)
}

/// Opens for direct writes that a later sync makes durable; used to fill the file.
pub(super) fn open_direct_unsynced(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(custom_flags(OFlags::DIRECT)).open(path).ok()
}

/// Reserves the file's space and sets its length; false on a file system that cannot, where filling does it.
pub(super) fn reserve(file: &File, size_bytes: u64) -> io::Result<bool> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size_bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        other => other.map(|()| true).map_err(Into::into),
    }
}
