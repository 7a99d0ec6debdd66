//! What keeps a disk that fills up, and a broker that keeps crashing, from doing harm.
//!
//! **Full disks.** A part of each log directory's disk is kept back (`taccola.disk.reserve.bytes`, or a smaller share by
//! `taccola.disk.reserve.percent`). Below it producers are refused with KAFKA_STORAGE_ERROR, which they try again, while
//! fetches, deletions, retention, metadata, groups and transactions go on; so whoever makes room finds a broker that works.
//! The free space is looked at every second: producing goes on by itself. What the disk refuses all the same (somebody else
//! filled it) fails alone: nothing of it is in the log, and the next try may succeed.
//!
//! **Crash loops.** A file of the first log directory notes starts that never got ready, and the moments at which the
//! broker ended itself because its storage failed or an invariant was broken. From `taccola.crash.loop.limit` of them within
//! ten minutes on, the broker starts in recovery mode: it serves what is there and writes nothing for clients, deletes
//! nothing and compacts nothing. A clean stop, or ten minutes, ends it. Somebody else's `kill -9` of a broker that serves is
//! no crash of its own, however often it comes; a start that gets ready forgets those before that did not.

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
/// In a log directory: a line `1`, then `start` or `failure` and a time (milliseconds since 1970) a line.
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
        if let Err(error) = super::blocking::spawn(move || looker.disk_space.look()).await {
            tracing::error!(%error, "looking at the free space");
        }
    }
}

/// What counts towards a crash loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// A start after a stop that was not clean, which has not got ready yet, or never did.
    Start,
    /// The broker ended itself.
    Failure,
}

/// Notes this start if the last stop was not clean, before anything is recovered: a start that crashes counts too. Answers
/// why the broker is to start in recovery mode, if so.
pub(crate) fn note_start(dir: &Path, is_new: bool, limit: u32, now_ms: i64) -> Result<Option<String>, StartError> {
    let clean = is_new || dir.join(log_dir::CLEAN_SHUTDOWN_FILE).exists();
    let known = known_mishaps(dir, now_ms);
    if clean {
        // A clean stop ends it.
        if known.is_some() {
            write_mishaps(dir, &[])?;
        }
        return Ok(None);
    }
    let mut mishaps = known.unwrap_or_default();
    let before = mishaps.len();
    mishaps.push((Mishap::Start, now_ms));
    write_mishaps(dir, &mishaps)?;
    let looping = limit > 0 && before >= usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(looping.then(|| format!("within ten minutes the broker failed {before} times, or did not get ready")))
}

/// Notes that the broker got ready: starts that did not are forgotten, failures are not.
pub(crate) fn note_ready(dir: &Path, now_ms: i64) -> Result<(), StartError> {
    let Some(mut mishaps) = known_mishaps(dir, now_ms) else { return Ok(()) };
    let before = mishaps.len();
    mishaps.retain(|(mishap, _)| *mishap == Mishap::Failure);
    if mishaps.len() == before { Ok(()) } else { write_mishaps(dir, &mishaps) }
}

/// Notes that the broker is about to end itself.
pub(crate) fn note_failure(dir: &Path, now_ms: i64) -> Result<(), StartError> {
    let mut mishaps = known_mishaps(dir, now_ms).unwrap_or_default();
    mishaps.push((Mishap::Failure, now_ms));
    write_mishaps(dir, &mishaps)
}

fn write_mishaps(dir: &Path, mishaps: &[(Mishap, i64)]) -> Result<(), StartError> {
    let line = |(mishap, at): &(Mishap, i64)| match mishap {
        Mishap::Start => format!("start {at}\n"),
        Mishap::Failure => format!("failure {at}\n"),
    };
    let content: String = std::iter::once("1\n".to_owned()).chain(mishaps.iter().map(line)).collect();
    match write_whole(&dir.join(STARTS_FILE), content.as_bytes()) {
        // A full disk must not keep a broker from starting that could make room.
        Err(StartError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

/// What the file names of the last ten minutes; `None` without a file. What lies in the future was noted by a wrong clock,
/// and a file that cannot be read says nothing.
fn known_mishaps(dir: &Path, now_ms: i64) -> Option<Vec<(Mishap, i64)>> {
    let content = read_bounded(&dir.join(STARTS_FILE), STARTS_BYTES_MAX).ok().flatten()?;
    let text = String::from_utf8_lossy(&content).into_owned();
    let mut lines = text.lines();
    if lines.next() != Some("1") {
        return Some(Vec::new());
    }
    let parse = |line: &str| match line.split_once(' ')? {
        ("start", at) => Some((Mishap::Start, at.parse::<i64>().ok()?)),
        ("failure", at) => Some((Mishap::Failure, at.parse::<i64>().ok()?)),
        _ => None,
    };
    let recent = |(_, at): &(Mishap, i64)| (now_ms.saturating_sub(CRASH_LOOP_MS)..=now_ms).contains(at);
    let mishaps: Vec<_> = lines.filter_map(parse).filter(recent).collect();
    Some(mishaps.get(mishaps.len().saturating_sub(STARTS_MAX)..).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn starts_that_never_get_ready_and_failures_are_a_crash_loop() {
        let dir = tempfile::tempdir().unwrap();
        let at = |minute: i64| NOW_MS + minute * 60_000;
        let start = |minute: i64| note_start(dir.path(), false, 3, at(minute)).unwrap();
        assert_eq!(note_start(dir.path(), true, 3, NOW_MS).unwrap(), None, "a new directory");
        assert_eq!([start(0), start(1), start(2)], [None, None, None]);
        assert!(start(3).unwrap().contains("3 times"));
        assert!(start(4).is_some());
        assert_eq!(start(20), None, "long ago");
        assert_eq!([start(21), start(21)], [None, None]);
        note_ready(dir.path(), at(21)).unwrap();
        assert_eq!([start(21), start(22)], [None, None], "who gets ready does not loop");
        for _ in 0..3 {
            note_ready(dir.path(), at(22)).unwrap();
            note_failure(dir.path(), at(22)).unwrap();
            start(22);
        }
        assert!(start(22).is_some(), "who fails after getting ready does");
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
