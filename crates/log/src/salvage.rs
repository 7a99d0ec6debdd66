//! Reading around what the disk cannot read. A sector that answers EIO is damage like any other: what stands around it is
//! still good. [`Salvaged`] reads such a range in small blocks and puts zeros where a block cannot be read, so that the
//! checksums of the batches there fail. Whoever reads through it must check checksums.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::file::SegmentFile;

/// What a disk reads whole or not at all, at most.
const BLOCK_BYTES: u64 = 4096;

/// Whether an error says that the bytes are lost, and not that the process or the disk has other troubles.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::IO, rustix::io::Errno::BADMSG].into_iter().any(|lost| code == Some(lost.raw_os_error()))
}

/// A file of which unreadable blocks read as zeros. Writes go through.
#[derive(Debug)]
pub(crate) struct Salvaged {
    file: Arc<dyn SegmentFile>,
    unreadable: AtomicBool,
}

impl Salvaged {
    pub(crate) fn new(file: Arc<dyn SegmentFile>) -> Self {
        Self { file, unreadable: AtomicBool::new(false) }
    }

    /// Whether a block could not be read so far.
    pub(crate) fn met_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Reads `out.len()` bytes block by block; answers how many there were.
    fn read_blocks(&self, out: &mut [u8], position: u64) -> io::Result<usize> {
        let end = self.file.len()?.saturating_sub(position);
        let length = usize::try_from(end).unwrap_or(usize::MAX).min(out.len());
        let mut done = 0;
        while done < length {
            let at = position + done as u64;
            let to_boundary = usize::try_from(BLOCK_BYTES - at % BLOCK_BYTES).unwrap_or(1);
            let Some(block) = out.get_mut(done..length.min(done + to_boundary)) else { break };
            match self.file.read_at(block, at) {
                Ok(_) => {}
                Err(e) if is_unreadable(&e) => {
                    self.unreadable.store(true, Ordering::Relaxed);
                    block.fill(0);
                }
                Err(e) => return Err(e),
            }
            done += block.len();
        }
        Ok(length)
    }
}

impl SegmentFile for Salvaged {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(bytes, position)
    }

    fn read_at(&self, out: &mut [u8], position: u64) -> io::Result<usize> {
        match self.file.read_at(out, position) {
            Err(e) if is_unreadable(&e) => self.read_blocks(out, position),
            other => other,
        }
    }

    fn read_onto(&self, out: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()> {
        let start = out.len();
        match self.file.read_onto(out, position, length) {
            Err(e) if is_unreadable(&e) => {
                let rest = self.file.len()?.saturating_sub(position);
                let length = usize::try_from(rest).unwrap_or(usize::MAX).min(length);
                out.truncate(start);
                out.try_reserve_exact(length).map_err(io::Error::other)?;
                out.resize(start + length, 0);
                let read = self.read_blocks(out.get_mut(start..).unwrap_or_default(), position)?;
                out.truncate(start + read);
                Ok(())
            }
            other => other,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.file.preallocate(length)
    }
}
