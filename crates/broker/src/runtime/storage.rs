//! What keeps a disk that fills up, and a broker that keeps crashing, from doing harm.
//!
//! **Full disks.** A part of each log directory's disk is kept back (`taccola.disk.reserve.bytes`, or a smaller share by
//! `taccola.disk.reserve.percent`). Below it producers are refused with KAFKA_STORAGE_ERROR, which they try again, while
//! fetches, deletions, retention, metadata, groups and transactions go on; so whoever makes room finds a broker that works.
//! The free space is looked at every second: producing goes on by itself. What the disk refuses all the same (somebody else
//! filled it) fails alone: nothing of it is in the log, and the next try may succeed.
//!
//! **Crash loops.** Starts after stops that were not clean are noted in a file of the first log directory. From
//! `taccola.crash.loop.limit` of them within ten minutes on, the broker starts in recovery mode: it serves what is there and
//! writes nothing for clients, deletes nothing and compacts nothing. A clean stop, or ten minutes, ends it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use taccola_base::config::TaccolaConfig;
use taccola_log::log_dir;

use crate::broker::Broker;
use crate::startup::StartError;
use crate::startup::dirs::{read_bounded, write_whole};

/// How often the free space is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// In a log directory: a line `0`, then the times (milliseconds since 1970) of starts after unclean stops.
pub(crate) const STARTS_FILE: &str = "taccola.starts";
const STARTS_BYTES_MAX: usize = 64 * 1024;
/// Starts before this are forgotten: ten minutes.
const CRASH_LOOP_MS: i64 = 600_000;
const STARTS_MAX: usize = 1_000;

/// One log directory's disk.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    low: AtomicBool,
    /// Bytes above the reserve at the last look, less what producers wrote since.
    headroom: AtomicI64,
}

/// Which log directories have no room for producers.
#[derive(Debug)]
pub struct DiskSpace {
    disks: Vec<Disk>,
    reserve_bytes: u64,
    reserve_percent: u64,
}

impl DiskSpace {
    pub(crate) fn new(dirs: impl Iterator<Item = PathBuf>, config: &TaccolaConfig) -> Self {
        let space = Self {
            disks: dirs.map(|path| Disk { path, low: AtomicBool::new(false), headroom: AtomicI64::new(0) }).collect(),
            reserve_bytes: config.disk_reserve_bytes,
            reserve_percent: u64::from(config.disk_reserve_percent),
        };
        space.look();
        space
    }

    /// Why a producer may not write so many bytes to a log directory, if so.
    pub fn refuses(&self, log_dir: usize, bytes: usize) -> Option<String> {
        let disk = self.disks.get(log_dir).filter(|_| self.reserve_bytes > 0)?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if disk.headroom.fetch_sub(bytes, Ordering::Relaxed) < bytes {
            // What was free at the last look is written, or the disk is low: a second may be too long to wait.
            self.look_at(disk);
        }
        if !disk.low.load(Ordering::Relaxed) {
            return None;
        }
        Some(format!("the disk of {} is full up to the reserve (taccola.disk.reserve.bytes)", disk.path.display()))
    }

    /// The disk of a log directory had no room for a batch: whoever comes next need not find out by trying.
    pub fn met_no_space(&self, log_dir: usize) {
        if let Some(disk) = self.disks.get(log_dir).filter(|_| self.reserve_bytes > 0) {
            self.look_at(disk);
        }
    }

    fn reserve(&self, total: u64) -> u64 {
        self.reserve_bytes.min(total / 100 * self.reserve_percent)
    }

    fn look(&self) {
        if self.reserve_bytes == 0 {
            return;
        }
        self.disks.iter().for_each(|disk| self.look_at(disk));
    }

    fn look_at(&self, disk: &Disk) {
        // A directory that does not answer is no full one: reads and writes say what is wrong with it.
        let Ok(found) = rustix::fs::statvfs(&disk.path) else { return };
        let total = found.f_blocks.saturating_mul(found.f_frsize);
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let reserve = self.reserve(total);
        let was_low = disk.low.load(Ordering::Relaxed);
        // A little more than the reserve must be free again, so that it does not go to and fro.
        let low = free < if was_low { reserve + reserve / 16 } else { reserve };
        disk.headroom.store(i64::try_from(free.saturating_sub(reserve)).unwrap_or(i64::MAX), Ordering::Relaxed);
        if disk.low.swap(low, Ordering::Relaxed) == low {
            return;
        }
        let dir = disk.path.display();
        if low {
            tracing::error!(%dir, free, reserve, "the disk is full up to the reserve: producers are refused");
        } else {
            tracing::info!(%dir, free, reserve, "the disk has room again: producers are served");
        }
    }
}

/// Looks at the free space until the broker stops.
pub async fn watch(broker: Arc<Broker>) {
    let mut stopping = std::pin::pin!(broker.stopping());
    loop {
        tokio::select! {
            () = &mut stopping => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let looker = broker.clone();
        // A disk that hangs holds a thread of the pool, no worker.
        if let Err(error) = tokio::task::spawn_blocking(move || looker.disk_space.look()).await {
            tracing::error!(%error, "looking at the free space");
        }
    }
}

/// Notes this start if the last stop was not clean, before anything is recovered: a start that crashes counts too. Answers
/// why the broker is to start in recovery mode, if so.
pub(crate) fn note_start(dir: &Path, is_new: bool, limit: u32, now_ms: i64) -> Result<Option<String>, StartError> {
    let path = dir.join(STARTS_FILE);
    let clean = is_new || dir.join(log_dir::CLEAN_SHUTDOWN_FILE).exists();
    // One that cannot be read says nothing; it is written anew.
    let known = read_bounded(&path, STARTS_BYTES_MAX).ok().flatten();
    if clean && known.is_none() {
        return Ok(None);
    }
    let text = known.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let mut starts = if clean { Vec::new() } else { recent_starts(&text, now_ms) };
    let before = starts.len();
    if !clean {
        starts.push(now_ms);
    }
    let content: String =
        std::iter::once("0\n".to_owned()).chain(starts.iter().map(|start| format!("{start}\n"))).collect();
    match write_whole(&path, content.as_bytes()) {
        Ok(()) => {}
        // A full disk must not keep a broker from starting that could make room.
        Err(StartError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {}
        Err(error) => return Err(error),
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let looping = !clean && limit > 0 && before >= limit;
    Ok(looping.then(|| format!("{before} starts within ten minutes followed stops that were not clean")))
}

/// The starts of the last ten minutes that the file names. What lies in the future was noted by a wrong clock.
fn recent_starts(text: &str, now_ms: i64) -> Vec<i64> {
    let mut lines = text.lines();
    if lines.next() != Some("0") {
        return Vec::new();
    }
    let known = lines.filter_map(|line| line.parse::<i64>().ok());
    let recent = known.filter(|start| (now_ms.saturating_sub(CRASH_LOOP_MS)..=now_ms).contains(start));
    let recent: Vec<i64> = recent.collect();
    recent.get(recent.len().saturating_sub(STARTS_MAX)..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn unclean_starts_of_ten_minutes_are_a_crash_loop() {
        let dir = tempfile::tempdir().unwrap();
        let start = |minute: i64| note_start(dir.path(), false, 3, NOW_MS + minute * 60_000).unwrap();
        assert_eq!(note_start(dir.path(), true, 3, NOW_MS).unwrap(), None, "a new directory");
        assert_eq!([start(0), start(1), start(2)], [None, None, None]);
        assert!(start(3).unwrap().starts_with("3 starts"));
        assert!(start(4).is_some());
        assert_eq!(start(20), None, "long ago");
        assert_eq!([start(21), start(21)], [None, None]);
        assert!(start(22).is_some());
        log_dir::write_clean_shutdown(dir.path(), 1).unwrap();
        assert_eq!(start(22), None, "a clean stop ends it");
        std::fs::remove_file(dir.path().join(log_dir::CLEAN_SHUTDOWN_FILE)).unwrap();
        assert_eq!([start(22), start(22), start(22)], [None, None, None]);
        assert_eq!(start(-60), None, "those of the future were noted by a wrong clock");
        std::fs::write(dir.path().join(STARTS_FILE), [0xff; 100]).unwrap();
        assert_eq!(start(22), None, "a damaged file says nothing");
        assert_eq!(note_start(dir.path(), false, 0, NOW_MS).unwrap(), None);
    }

    #[test]
    fn the_reserve_is_the_smaller_of_both() {
        let config = |bytes, percent| DiskSpace { disks: Vec::new(), reserve_bytes: bytes, reserve_percent: percent };
        assert_eq!(config(1 << 30, 5).reserve(1 << 40), 1 << 30);
        assert_eq!(config(1 << 30, 5).reserve(1_000), 50);
        assert_eq!(config(1 << 30, 0).reserve(1_000), 0);
    }
}
