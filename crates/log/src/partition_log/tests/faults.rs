//! Files that fail: nothing is acknowledged that was not written, no flush is tried twice, and a log that cannot know what
//! the disk holds answers no more until it is opened anew.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rustix::io::Errno;

use super::*;
use crate::file::{BufferedIo, SegmentFile, SegmentIo};

/// Switches that a test turns; writes fail after half of their bytes.
#[derive(Debug, Default)]
struct Faults {
    write: AtomicUsize,
    sync: AtomicUsize,
    read: AtomicUsize,
    syncs_seen: AtomicUsize,
    /// Opens that fail with EMFILE before one succeeds.
    no_descriptors: AtomicUsize,
    only_log: AtomicBool,
}

fn errno(code: &AtomicUsize) -> Option<io::Error> {
    match code.load(SeqCst) {
        0 => None,
        code => Some(io::Error::from_raw_os_error(code as i32)),
    }
}

#[derive(Debug)]
struct FaultyIo(Arc<Faults>);

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn SegmentFile>,
    faults: Arc<Faults>,
    is_log: bool,
}

impl SegmentIo for FaultyIo {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn SegmentFile>> {
        if self.0.no_descriptors.load(SeqCst) > 0 {
            self.0.no_descriptors.fetch_sub(1, SeqCst);
            return Err(Errno::MFILE.into());
        }
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let file = BufferedIo.open(path, create)?;
        Ok(Arc::new(FaultyFile { file, faults: Arc::clone(&self.0), is_log }))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        BufferedIo.sync_dir(path)
    }
}

impl FaultyFile {
    fn concerned(&self) -> bool {
        self.is_log || !self.faults.only_log.load(SeqCst)
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        match errno(&self.faults.write).filter(|_| self.concerned()) {
            Some(error) => {
                self.file.write_at(&bytes[..bytes.len() / 2], position)?;
                Err(error)
            }
            None => self.file.write_at(bytes, position),
        }
    }

    fn read_at(&self, out: &mut [u8], position: u64) -> io::Result<usize> {
        errno(&self.faults.read).map_or_else(|| self.file.read_at(out, position), Err)
    }

    fn read_onto(&self, out: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()> {
        errno(&self.faults.read).map_or_else(|| self.file.read_onto(out, position, length), Err)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.syncs_seen.fetch_add(1, SeqCst);
        errno(&self.faults.sync).map_or_else(|| self.file.sync(), Err)
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

fn faulty(dir: &Path, config: LogConfig) -> (PartitionLog, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let shared = LogShared::with_io(8, Box::new(FaultyIo(Arc::clone(&faults))));
    (PartitionLog::create(dir, tp(), None, Arc::new(config), shared).unwrap(), faults)
}

#[test]
fn a_failed_flush_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), LogConfig::default());
    log.append(&mut batch(2, 10, 0), at(0)).unwrap();
    assert_eq!(log.flush(0).unwrap(), 2);
    log.append(&mut batch(2, 10, 0), at(0)).unwrap();
    faults.sync.store(Errno::IO.raw_os_error() as usize, SeqCst);
    assert!(matches!(log.flush(0), Err(LogError::Io { op: "flush", .. })));
    let seen = faults.syncs_seen.load(SeqCst);
    faults.sync.store(0, SeqCst);
    assert!(matches!(log.flush(0), Err(LogError::Offline { .. })));
    assert!(matches!(log.append(&mut batch(1, 1, 0), at(0)), Err(AppendError::Storage(LogError::Offline { .. }))));
    assert!(matches!(log.read(0, 10, 10, true), Err(ReadError::Storage(LogError::Offline { .. }))));
    assert!(log.offline_reason().unwrap().contains("flush"), "{:?}", log.offline_reason());
    assert_eq!(faults.syncs_seen.load(SeqCst), seen);
    assert_eq!(log.recovery_point(), 2);
    drop(log);
    // Opened again it is what the disk says.
    let (log, _) = open(dir.path(), LogConfig::default(), unclean(2));
    assert_eq!((log.log_end_offset(), log.recovery_point()), (4, 2));
}

#[test]
fn a_full_disk_refuses_the_append_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), LogConfig::default());
    log.append(&mut producer_batch(2, 7, 0, 0, false), at(0)).unwrap();
    let size = log.size_bytes();
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        faults.write.store(errno.raw_os_error() as usize, SeqCst);
        let refused = log.append(&mut producer_batch(2, 7, 0, 2, false), at(0));
        assert!(matches!(refused, Err(AppendError::Storage(LogError::NoSpace { .. }))), "{refused:?}");
    }
    assert_eq!((log.log_end_offset(), log.size_bytes()), (2, size));
    assert_eq!(std::fs::metadata(dir.path().join("t-0/00000000000000000000.log")).unwrap().len(), size);
    assert_eq!(ranges(&read(&log, 0, 100).unwrap()), [(0, 1)]);
    faults.write.store(0, SeqCst);
    // The producer's retry is no duplicate, and no gap.
    let appended = log.append(&mut producer_batch(2, 7, 0, 2, false), at(0)).unwrap();
    assert_eq!((appended.base_offset, appended.duplicate), (2, false));
}

#[test]
fn a_failed_write_takes_the_log_offline_and_is_cut_off_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), LogConfig::default());
    log.append(&mut batch(2, 10, 0), at(0)).unwrap();
    faults.write.store(Errno::IO.raw_os_error() as usize, SeqCst);
    assert!(matches!(log.append(&mut batch(2, 10, 0), at(0)), Err(AppendError::Storage(LogError::Io { .. }))));
    faults.write.store(0, SeqCst);
    assert!(matches!(log.append(&mut batch(2, 10, 0), at(0)), Err(AppendError::Storage(LogError::Offline { .. }))));
    assert_eq!(log.log_end_offset(), 2);
    drop(log);
    let (log, _) = open(dir.path(), LogConfig::default(), unclean(0));
    assert_eq!(all(&log), [(0, 1)]);
}

#[test]
fn a_failed_read_is_an_error_and_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), LogConfig::default());
    log.append(&mut batch(2, 10, 0), at(0)).unwrap();
    faults.read.store(Errno::IO.raw_os_error() as usize, SeqCst);
    assert!(matches!(read(&log, 0, 100), Err(ReadError::Storage(LogError::Io { .. }))));
    faults.read.store(0, SeqCst);
    assert_eq!(ranges(&read(&log, 0, 100).unwrap()), [(0, 1)]);
}

#[test]
fn running_out_of_descriptors_fails_no_append() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), small_config());
    for i in 0..40 {
        if i % 3 == 0 {
            faults.no_descriptors.store(4, SeqCst);
        }
        log.append(&mut batch(2, 100, i), at(0)).unwrap();
    }
    assert!(log.segment_count() > 5);
    assert_eq!(all(&log).len(), 40);
}

#[test]
fn every_failing_write_of_a_run_leaves_a_log_that_opens() {
    // The n-th write or flush fails, whichever file it is for; then the process stops.
    for step in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, faults) = faulty(dir.path(), small_config());
        let mut acknowledged = 0;
        let mut flushed = 0;
        for i in 0..20 {
            if i == step % 20 {
                let code = if step < 40 { Errno::IO } else { Errno::NOSPC };
                let which = if step % 40 < 20 { &faults.write } else { &faults.sync };
                which.store(code.raw_os_error() as usize, SeqCst);
            }
            if let Ok(appended) = log.append(&mut producer_batch(2, 3, 0, i * 2, true), at(0)) {
                acknowledged = appended.last_offset + 1;
            }
            if i % 7 == 0
                && let Ok(point) = log.flush(0)
            {
                flushed = point;
            }
        }
        drop(log);
        let (log, report) = open(dir.path(), small_config(), unclean(flushed));
        assert_eq!(report.quarantined, [], "step {step}");
        assert!(log.log_end_offset() >= acknowledged, "step {step}: {} < {acknowledged}", log.log_end_offset());
        assert_eq!(all(&log).last().map_or(0, |(_, last)| last + 1), log.log_end_offset());
        assert!(flushed <= log.log_end_offset());
    }
}
