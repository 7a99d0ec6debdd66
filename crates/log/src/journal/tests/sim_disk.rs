//! A disk in memory whose writes can be cut short, scattered, lost, misdirected or refused.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::{JournalDevice, WriteMode};
use super::Rng;

pub(super) const SECTOR: usize = 512;

/// What happens to the write during which the power goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tear {
    /// The first sectors arrive, in order.
    Prefix,
    /// Any subset of the sectors arrives.
    Subset(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Reported as done, never done.
    Lost,
    /// Done at another place.
    Misdirected(u64),
    /// Reported as failed; done or not.
    Eio { done: bool },
}

#[derive(Default)]
pub(super) struct Disk {
    pub(super) image: Vec<u8>,
    /// Sectors that still arrive before the power goes; `None`: it stays on.
    pub(super) sectors_left: Option<u64>,
    pub(super) tear: Option<Tear>,
    pub(super) off: bool,
    pub(super) sectors_written: u64,
    pub(super) writes: u64,
    /// Number of a write (0-based) and what goes wrong with it.
    pub(super) fault: Option<(u64, Fault)>,
}

#[derive(Clone, Default)]
pub(super) struct SimDisk(pub(super) Arc<Mutex<Disk>>);

impl SimDisk {
    pub(super) fn new(size_bytes: usize) -> Self {
        let disk = SimDisk::default();
        disk.0.lock().image = vec![0; size_bytes];
        disk
    }

    pub(super) fn power_on(&self) {
        let mut disk = self.0.lock();
        disk.off = false;
        disk.sectors_left = None;
        disk.fault = None;
    }

    pub(super) fn boxed(&self) -> Box<dyn JournalDevice> {
        Box::new(self.clone())
    }
}

fn failed(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl Disk {
    fn copy_sectors(&mut self, position: usize, bytes: &[u8], take: impl Fn(usize) -> bool) {
        for (i, sector) in bytes.chunks(SECTOR).enumerate() {
            if take(i) {
                let at = position + i * SECTOR;
                self.image[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }
}

impl JournalDevice for SimDisk {
    fn size_bytes(&self) -> u64 {
        self.0.lock().image.len() as u64
    }

    fn read(&self, position: u64, buf: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock();
        let from = position as usize;
        buf.copy_from_slice(disk.image.get(from..from + buf.len()).ok_or_else(|| failed("read past the end"))?);
        Ok(())
    }

    fn write_durable(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.off {
            return Err(failed("no power"));
        }
        assert!(position.is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
        assert_eq!(bytes.as_ptr().addr() % 4096, 0);
        let sectors = (bytes.len() / SECTOR) as u64;
        let number = disk.writes;
        disk.writes += 1;
        match disk.fault {
            Some((at, Fault::Lost)) if at == number => return Ok(()),
            Some((at, Fault::Misdirected(elsewhere))) if at == number => {
                let room = disk.image.len() as u64 - bytes.len() as u64;
                disk.copy_sectors(elsewhere.min(room - room % 4096) as usize, bytes, |_| true);
                return Ok(());
            }
            Some((at, Fault::Eio { done })) if at == number => {
                disk.copy_sectors(position as usize, bytes, |_| done);
                return Err(failed("EIO"));
            }
            _ => {}
        }
        if let Some(left) = disk.sectors_left {
            if left < sectors {
                disk.off = true;
                match disk.tear {
                    Some(Tear::Subset(seed)) => {
                        let mut rng = Rng(seed);
                        let subset: Vec<bool> = (0..sectors).map(|_| rng.chance(2)).collect();
                        disk.copy_sectors(position as usize, bytes, |i| subset[i]);
                    }
                    _ => disk.copy_sectors(position as usize, bytes, |i| (i as u64) < left),
                }
                return Err(failed("the power went"));
            }
            disk.sectors_left = Some(left - sectors);
        }
        disk.sectors_written += sectors;
        disk.copy_sectors(position as usize, bytes, |_| true);
        Ok(())
    }

    fn mode(&self) -> WriteMode {
        WriteMode::BufferedThenSync
    }
}
