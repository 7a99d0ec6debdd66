//! Files that fail: nothing is acknowledged that was not written, no flush is tried twice, and a log that cannot know what
//! the disk holds answers no more until it is opened anew.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::*;
use crate::file::{BufferedIo, SegmentFile, SegmentIo};
use crate::verify::{Level, VerifyContext, verify_partition};

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
    /// Transaction indexes find no room.
    full_for_indexes: AtomicBool,
    /// Bytes that the disk cannot read, of files whose names end so.
    unreadable: Mutex<Option<(&'static str, Range<u64>)>>,
    /// Files that were written to and not synced since.
    unsynced: Mutex<std::collections::BTreeSet<PathBuf>>,
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
    path: PathBuf,
}

impl SegmentIo for FaultyIo {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn SegmentFile>> {
        if self.0.no_descriptors.load(SeqCst) > 0 {
            self.0.no_descriptors.fetch_sub(1, SeqCst);
            return Err(Errno::MFILE.into());
        }
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let file = BufferedIo.open(path, create)?;
        Ok(Arc::new(FaultyFile { file, faults: Arc::clone(&self.0), is_log, path: path.to_path_buf() }))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        BufferedIo.sync_dir(path)
    }
}

impl FaultyFile {
    fn unreadable(&self, position: u64, length: usize) -> Option<io::Error> {
        let lost = self.faults.unreadable.lock();
        let (suffix, range) = lost.as_ref()?;
        let overlaps = range.start < position.saturating_add(length as u64) && position < range.end;
        (overlaps && self.path.to_string_lossy().ends_with(suffix)).then(|| Errno::IO.into())
    }

    fn concerned(&self) -> bool {
        self.is_log || !self.faults.only_log.load(SeqCst)
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let full = self.faults.full_for_indexes.load(SeqCst) && self.path.to_string_lossy().ends_with(".txnindex");
        if full {
            return Err(Errno::NOSPC.into());
        }
        self.faults.unsynced.lock().insert(self.path.clone());
        match errno(&self.faults.write).filter(|_| self.concerned()) {
            Some(error) => {
                self.file.write_at(&bytes[..bytes.len() / 2], position)?;
                Err(error)
            }
            None => self.file.write_at(bytes, position),
        }
    }

    fn read_at(&self, out: &mut [u8], position: u64) -> io::Result<usize> {
        let error = errno(&self.faults.read).or(self.unreadable(position, out.len()));
        error.map_or_else(|| self.file.read_at(out, position), Err)
    }

    fn read_onto(&self, out: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()> {
        let error = errno(&self.faults.read).or(self.unreadable(position, length));
        error.map_or_else(|| self.file.read_onto(out, position, length), Err)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.syncs_seen.fetch_add(1, SeqCst);
        self.faults.unsynced.lock().remove(&self.path);
        errno(&self.faults.sync).map_or_else(|| self.file.sync(), Err)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.faults.unsynced.lock().insert(self.path.clone());
        if length == 0 && self.unreadable(0, usize::MAX >> 1).is_some() {
            // What is written next stands elsewhere on the disk.
            self.faults.unreadable.lock().take();
        }
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
    let mut log = PartitionLog::create(dir, tp(), None, Arc::new(config), shared).unwrap();
    log.make_folder().unwrap();
    (log, faults)
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
    // Its range is damaged, for as long as it cannot be read.
    assert!(matches!(read(&log, 0, 100), Err(ReadError::CorruptRecord { first: 0, next_valid: 2, .. })));
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

#[test]
fn what_the_disk_cannot_read_is_damage_of_that_range() {
    let dir = tempfile::tempdir().unwrap();
    let config = || LogConfig { segment_bytes: 200_000, ..LogConfig::default() };
    let (mut log, faults) = faulty(dir.path(), config());
    for i in 0..30 {
        log.append(&mut batch(1, 20_000, i), at(0)).unwrap();
    }
    log.flush(0).unwrap();
    let size = std::fs::metadata(dir.path().join("t-0/00000000000000000000.log")).unwrap().len();
    let per_segment = size / 20_000;
    // In the third batch of the first segment.
    *faults.unreadable.lock() = Some(("00000000000000000000.log", 50_000..50_010));
    let check = |log: &PartitionLog| {
        assert!(matches!(read(log, 2, 100), Err(ReadError::CorruptRecord { first: 2, next_valid: 3, .. })));
        for offset in [0, 1, 3, per_segment as i64, 29] {
            assert_eq!(ranges(&read(log, offset, 100).unwrap()), [(offset, offset)]);
        }
    };
    check(&log);
    // The scrubber names it, and takes it back when it can be read again.
    let scrub = |log: &mut PartitionLog| {
        let outcome = log.begin_scrub(0).unwrap().unwrap().run(&mut |_| true).unwrap();
        log.end_scrub(&outcome).unwrap().len()
    };
    assert_eq!((scrub(&mut log), scrub(&mut log), log.quarantined().len()), (1, 0, 1));
    check(&log);
    // Another one that read before it came back, and ends later, does not name it again.
    let early = log.begin_scrub(0).unwrap().unwrap().run(&mut |_| true).unwrap();
    let lost = faults.unreadable.lock().take();
    assert_eq!((scrub(&mut log), log.quarantined().len()), (0, 0));
    assert_eq!((log.end_scrub(&early).unwrap().len(), log.quarantined().len()), (0, 0));
    assert_eq!(all(&log).len(), 30);
    *faults.unreadable.lock() = lost;
    drop(log);
    for clean in [true, false] {
        let shared = LogShared::with_io(8, Box::new(FaultyIo(Arc::clone(&faults))));
        let hints = OpenHints { recovery_point: if clean { 30 } else { 0 }, clean, ..OpenHints::default() };
        let (mut log, report) =
            PartitionLog::open(dir.path(), tp(), None, Arc::new(config()), shared, hints, 0).unwrap();
        assert_eq!((report.truncated_bytes, report.quarantined.len()), (0, usize::from(!clean)));
        check(&log);
        log.append(&mut batch(1, 10, 0), at(0)).unwrap();
        log.truncate_to(30, 0).unwrap();
    }
    // Of what can be read again the check of the folder only tells.
    let context = VerifyContext { may_have_gaps: false, synced_to: 0, unfinished: false };
    let levels = || {
        let report = verify_partition(&dir.path().join("t-0"), context, &mut |_| true).unwrap();
        let damage = report.findings.iter().filter(|finding| finding.offsets.is_some());
        damage.map(|finding| (finding.level, finding.offsets.clone())).collect::<Vec<_>>()
    };
    assert_eq!(levels(), [(Level::Note, Some(2..3))]);
}

#[test]
fn an_index_that_cannot_be_read_is_done_without() {
    for suffix in [".index", ".timeindex"] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, faults) = faulty(dir.path(), small_config());
        for i in 0..30 {
            log.append(&mut batch(2, 100, i), at(0)).unwrap();
        }
        let point = log.close(0).unwrap();
        *faults.unreadable.lock() = Some((suffix, 0..u64::MAX));
        let shared = LogShared::with_io(8, Box::new(FaultyIo(Arc::clone(&faults))));
        let opened = PartitionLog::open(dir.path(), tp(), None, Arc::new(small_config()), shared, clean(point), 0);
        let (mut log, _) = opened.unwrap();
        assert_eq!(all(&log).len(), 30, "{suffix}");
        log.append(&mut batch(2, 100, 0), at(0)).unwrap_or_else(|error| panic!("{suffix}: {error}"));
        assert_eq!(all(&log).len(), 31, "{suffix}");
    }
}

#[test]
fn a_clock_that_is_set_back_takes_no_time_back_and_one_that_jumps_ahead_deletes_nothing() {
    const DAY_MS: i64 = 86_400_000;
    let config = || LogConfig { log_append_time: true, retention_ms: DAY_MS, ..small_config() };
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), config());
    let stamped =
        |log: &mut PartitionLog, now_ms| log.append(&mut batch(2, 200, 0), at(now_ms)).unwrap().log_append_time_ms;
    assert_eq!((stamped(&mut log, 5_000), stamped(&mut log, 3_000), stamped(&mut log, 6_000)), (5_000, 5_000, 6_000));
    let point = log.close(6_000).unwrap();
    let (mut log, _) = open(dir.path(), config(), clean(point));
    assert_eq!(stamped(&mut log, 1_000), 6_000, "nor does a restart");
    for _ in 0..10 {
        stamped(&mut log, 7_000);
    }
    log.set_high_watermark(log.log_end_offset());
    let segments = log.segment_count();
    assert!(segments > 3);
    // A check a year ahead, one with the clock set right, again and again.
    for round in 0..5 {
        log.apply_retention(365 * DAY_MS).unwrap();
        log.apply_retention(8_000 + round).unwrap();
        assert_eq!(log.segment_count(), segments);
    }
    log.apply_retention(3 * DAY_MS).unwrap();
    assert!(log.apply_retention(3 * DAY_MS + 1).unwrap().segments_removed > 0, "two checks agree");
}

/// A deleted, shortened or changed transaction index hides no abort.
#[test]
fn a_transaction_index_that_is_not_what_it_was_is_not_believed() {
    for harm in ["delete", "cut", "flip"] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = create(dir.path(), small_config());
        for i in 0..20 {
            log.append(&mut producer_batch(2, 9, 0, i * 2, true), at(0)).unwrap();
            log.append(&mut marker(9, 0, i % 2 == 1, 0), coordinator(0)).unwrap();
        }
        log.set_high_watermark(log.log_end_offset());
        let known = log.aborted_txns(0, i64::MAX).unwrap();
        assert_eq!(known.len(), 10);
        let point = log.close(0).unwrap();
        let harmed = names(dir.path()).into_iter().find(|name| name.ends_with(".txnindex")).unwrap();
        let path = dir.path().join("t-0").join(harmed);
        let bytes = std::fs::read(&path).unwrap();
        match harm {
            "delete" => std::fs::remove_file(&path).unwrap(),
            "cut" => std::fs::write(&path, &bytes[..bytes.len() - 34]).unwrap(),
            _ => {
                let mut flipped = bytes.clone();
                flipped[9] ^= 1;
                std::fs::write(&path, flipped).unwrap();
            }
        }
        for hints in [clean(point), unclean(point)] {
            let (mut log, _) = open(dir.path(), small_config(), hints);
            log.set_high_watermark(log.log_end_offset());
            assert_eq!(log.aborted_txns(0, i64::MAX).unwrap(), known, "{harm}");
        }
        let (mut log, _) = open(dir.path(), small_config(), clean(point));
        log.set_high_watermark(log.log_end_offset());
        log.aborted_txns(0, i64::MAX).unwrap();
        log.apply_retention(0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{harm}: made anew");
    }
}

/// A marker fits, and the entry of its transaction index does not.
#[test]
fn a_full_disk_hides_no_abort() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), small_config());
    log.append(&mut producer_batch(2, 9, 0, 0, true), at(0)).unwrap();
    log.flush(0).unwrap();
    faults.full_for_indexes.store(true, SeqCst);
    log.append(&mut marker(9, 0, false, 0), coordinator(0)).unwrap();
    log.set_high_watermark(log.log_end_offset());
    let aborted = |log: &PartitionLog| log.aborted_txns(0, i64::MAX).unwrap().len();
    assert_eq!(aborted(&log), 1);
    // The flush ends before what the index lacks, so that a crash finds it again.
    assert!(log.flush(0).unwrap() < log.log_end_offset());
    let point = log.recovery_point();
    log.apply_retention(0).unwrap();
    drop(log);
    let (mut log, _) = open(dir.path(), small_config(), unclean(point));
    log.set_high_watermark(log.log_end_offset());
    assert_eq!(aborted(&log), 1);
    drop(log);
    let shared = LogShared::with_io(8, Box::new(FaultyIo(Arc::clone(&faults))));
    let opened = PartitionLog::open(dir.path(), tp(), None, Arc::new(small_config()), shared, clean(point), 0);
    let mut log = opened.unwrap().0;
    log.append(&mut producer_batch(2, 9, 0, 2, true), at(0)).unwrap();
    log.append(&mut marker(9, 0, false, 0), coordinator(0)).unwrap();
    log.set_high_watermark(log.log_end_offset());
    faults.full_for_indexes.store(false, SeqCst);
    assert_eq!(aborted(&log), 2);
    assert_eq!(log.flush(0).unwrap(), log.log_end_offset(), "there is room again");
    let end = log.close(0).unwrap();
    let (mut log, _) = open(dir.path(), small_config(), clean(end));
    log.set_high_watermark(log.log_end_offset());
    assert_eq!(aborted(&log), 2);
}

/// A flush of the active segment leaves its indexes to the next one. A roll and a power cut later their ends may be gone,
/// and the segment lies below the recovery point, or reaches up to it.
#[test]
fn records_are_found_by_time_where_a_crash_cut_the_time_index_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    let mut times = Vec::new();
    while log.segments.len() < 3 {
        let time = 1_000 + 10 * times.len() as i64;
        log.append(&mut batch(1, 50, time), at(0)).unwrap();
        times.push(time);
    }
    let sealed = log.segments[1].base_offset;
    log.flush(0).unwrap();
    drop(log);
    let path = dir.path().join("t-0/00000000000000000000.timeindex");
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() >= 4 * 12, "{}", whole.len());
    for recovery_point in [sealed, sealed - 1, sealed / 2] {
        for entries in 0..=whole.len() / 12 {
            std::fs::write(&path, &whole[..entries * 12]).unwrap();
            let (log, _) = open(dir.path(), small_config(), unclean(recovery_point));
            for (offset, time) in times.iter().enumerate() {
                let found = log.offset_for_timestamp(TimestampQuery::At(*time)).unwrap().map(|found| found.offset);
                assert_eq!(found, Some(offset as i64), "{entries} entries, recovery from {recovery_point}");
            }
        }
    }
}

/// A compaction that was interrupted while the segments that it replaces were all there: what it made counts if it is whole.
#[test]
fn a_damaged_swap_does_not_take_the_place_of_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    let mut count = 0;
    while log.segments.len() < 4 {
        log.append(&mut batch(1, 50, 1_000 + count), at(0)).unwrap();
        count += 1;
    }
    let (second, third) = (log.segments[1].base_offset, log.segments[2].base_offset);
    log.flush(0).unwrap();
    drop(log);
    let folder = dir.path().join("t-0");
    let segment = |base: i64| std::fs::read(crate::segment::segment_path(&folder, base, "log")).unwrap();
    let whole = [segment(0), segment(second)].concat();
    let swap = folder.join("00000000000000000000.log.swap");
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 5] = [
        ("cut", |bytes| bytes.truncate(bytes.len() * 2 / 3)),
        ("cut at the beginning", |bytes| bytes.truncate(10)),
        ("empty", Vec::clear),
        ("a bit", |bytes| {
            let middle = bytes.len() / 3;
            bytes[middle] ^= 4;
        }),
        ("zeros", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
        }),
    ];
    let compacted = OpenHints { compacted: true, ..unclean(third) };
    for (name, harm) in harms {
        let mut bytes = whole.clone();
        harm(&mut bytes);
        std::fs::write(&swap, &bytes).unwrap();
        std::fs::write(folder.join("00000000000000000000.index.swap"), b"").unwrap();
        let (log, report) = open(dir.path(), small_config(), compacted);
        assert!(report.notes.iter().any(|note| note.contains("is damaged; what it was to replace stays")), "{name}");
        assert!(report.quarantined.is_empty(), "{name}: {report:?}");
        assert_eq!((log.log_end_offset(), log.segments.len()), (count, 4), "{name}");
        for offset in 0..count {
            let found = log.offset_for_timestamp(TimestampQuery::At(1_000 + offset)).unwrap();
            assert_eq!(found.map(|found| found.offset), Some(offset), "{name}");
        }
        assert!(!swap.exists(), "{name}");
    }
    std::fs::write(&swap, &whole).unwrap();
    let (log, _) = open(dir.path(), small_config(), compacted);
    assert_eq!((log.log_end_offset(), log.segments.len()), (count, 3), "a whole one replaces two");
}

/// Zeros where a time index begins look like an entry for the first record at the beginning of all times.
#[test]
fn a_time_index_that_begins_with_zeros_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    let mut count = 0;
    while log.segments.len() < 3 {
        log.append(&mut batch(1, 50, 1_000 + count), at(0)).unwrap();
        count += 1;
    }
    let point = log.segments[1].base_offset - 1;
    log.flush(0).unwrap();
    drop(log);
    let path = dir.path().join("t-0/00000000000000000000.timeindex");
    let whole = std::fs::read(&path).unwrap();
    for zeros in [12, 24, whole.len()] {
        let mut torn = whole.clone();
        torn[..zeros].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let (log, _) = open(dir.path(), small_config(), unclean(point));
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{zeros} zeros");
        for offset in 0..count {
            let found = log.offset_for_timestamp(TimestampQuery::At(1_000 + offset)).unwrap();
            assert_eq!(found.map(|found| found.offset), Some(offset), "{zeros} zeros");
        }
    }
}

/// A power cut may leave zeros inside an index, and half of a snapshot. Whoever goes on with the log, a JVM Kafka too,
/// believes them after a clean stop: recovery makes the one anew and drops the other.
#[test]
fn what_a_crash_left_of_indexes_and_snapshots_is_gone_after_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig { segment_bytes: 4_000, index_interval_bytes: 100, ..small_config() });
    let mut count = 0;
    while log.segments.len() < 3 {
        log.append(&mut producer_batch(1, 5, 0, count, false), at(0)).unwrap();
        count += 1;
    }
    let point = log.segments[1].base_offset - 2;
    let snapshot = crate::segment::segment_path(&dir.path().join("t-0"), log.segments[2].base_offset, "snapshot");
    drop(log);
    let index = dir.path().join("t-0/00000000000000000000.index");
    let whole = std::fs::read(&index).unwrap();
    let mut torn = whole.clone();
    torn[32..64].fill(0);
    let mut begins_torn = whole.clone();
    begins_torn[..8].fill(0);
    for torn in [torn, begins_torn] {
        std::fs::write(&index, &torn).unwrap();
        std::fs::write(&snapshot, b"ha").unwrap();
        let config = LogConfig { segment_bytes: 4_000, index_interval_bytes: 100, ..small_config() };
        let (log, _) = open(dir.path(), config, unclean(point));
        assert_eq!(std::fs::read(&index).unwrap(), whole);
        assert!(!snapshot.exists());
        assert_eq!(log.log_end_offset(), i64::from(count));
    }
}

#[test]
fn records_are_found_by_time_where_the_log_was_cut_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = || LogConfig { segment_bytes: 100_000, index_interval_bytes: 400, ..small_config() };
    let mut log = create(dir.path(), config());
    for i in 0..40 {
        log.append(&mut batch(1, 50, 1_000 + 10 * i), at(0)).unwrap();
    }
    for end in (1..40).rev() {
        log.truncate_to(end, 0).unwrap();
        let found = |log: &PartitionLog| {
            let last = TimestampQuery::At(1_000 + 10 * (end - 1));
            log.offset_for_timestamp(last).unwrap().map(|found| found.offset)
        };
        assert_eq!(found(&log), Some(end - 1));
        let point = log.close(0).unwrap();
        log = open(dir.path(), config(), clean(point)).0;
        assert_eq!(found(&log), Some(end - 1), "after a clean stop");
    }
}

#[test]
fn a_clean_stop_leaves_nothing_unsynced_also_of_what_recovery_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    for i in 0..20 {
        log.append(&mut batch(1, 50, i), at(0)).unwrap();
    }
    drop(log);
    let faults = Arc::new(Faults::default());
    let shared = LogShared::with_io(64, Box::new(FaultyIo(Arc::clone(&faults))));
    let (log, _) = PartitionLog::open(dir.path(), tp(), None, Arc::new(small_config()), shared, unclean(0), 0).unwrap();
    assert!(!faults.unsynced.lock().is_empty());
    log.close(0).unwrap();
    assert!(faults.unsynced.lock().is_empty(), "{:?}", faults.unsynced.lock());
}

/// Recovery finds epochs only in what it reads: what was flushed without them must be read again.
#[cfg(target_os = "linux")]
#[test]
fn leader_epochs_that_found_no_room_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    log.append(&mut batch(1, 10, 0), at(0)).unwrap();
    log.flush(0).unwrap();
    let temporary = log.dir().join("leader-epoch-checkpoint.tmp");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    log.append(&mut batch(1, 10, 0), AppendContext { leader_epoch: 7, ..at(0) }).unwrap();
    assert_eq!(log.flush(0).unwrap(), 1, "as far as the file knows the epochs");
    drop(log);
    std::fs::remove_file(&temporary).unwrap();
    let (mut log, _) = open(dir.path(), LogConfig::default(), unclean(1));
    assert_eq!(log.epoch_for_offset(1), Some(7));
    assert_eq!(log.flush(0).unwrap(), 2);
    drop(log);
    let (log, _) = open(dir.path(), LogConfig::default(), unclean(2));
    assert_eq!((log.epoch_for_offset(0), log.epoch_for_offset(1)), (Some(0), Some(7)));
}

#[test]
fn what_could_not_be_read_at_the_first_append_is_there_at_the_next_start() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, faults) = faulty(dir.path(), LogConfig::default());
        for i in 0..5 {
            log.append(&mut producer_batch(2, 7, 0, i * 2, false), at(0)).unwrap();
        }
        log.close(0).unwrap();
        let again = |point| {
            let shared = LogShared::with_io(8, Box::new(FaultyIo(Arc::clone(&faults))));
            let hints = OpenHints { recovery_point: point, clean, ..OpenHints::default() };
            PartitionLog::open(dir.path(), tp(), None, Arc::new(LogConfig::default()), shared, hints, 0).unwrap().0
        };
        let mut log = again(10);
        *faults.unreadable.lock() = Some(("00000000000000000000.log", 0..10));
        // The first look at the tail.
        log.append(&mut batch(1, 10, 0), at(0)).unwrap();
        assert_eq!(log.quarantined().len(), 1);
        let again_sent = log.append(&mut producer_batch(2, 7, 0, 8, false), at(0)).unwrap();
        assert!(again_sent.duplicate, "who wrote what cannot be read is still known");
        let end = log.close(0).unwrap();
        faults.unreadable.lock().take();
        let mut log = again(end);
        assert_eq!((log.quarantined(), all(&log).len()), (&[][..], 6));
        // Its producer is known again.
        let appended = log.append(&mut producer_batch(2, 7, 0, 8, false), at(0)).unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (8, true));
    }
}

/// A range of a later segment at positions that were checked in the first one that recovery looks at.
#[test]
fn what_recovery_reads_anew_it_does_not_hold_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, faults) = faulty(dir.path(), small_config());
    for i in 0..20 {
        log.append(&mut batch(2, 100, i), at(0)).unwrap();
    }
    let (segments, last) = (log.segment_count(), log.active_segment().base_offset);
    let end = log.close(0).unwrap();
    let last: &str = format!("{last:020}.log").leak();
    let again = |hints| {
        let shared = LogShared::with_io(8, Box::new(FaultyIo(Arc::clone(&faults))));
        PartitionLog::open(dir.path(), tp(), None, Arc::new(small_config()), shared, hints, 0).unwrap().0
    };
    let mut log = again(clean(end));
    *faults.unreadable.lock() = Some((last, 0..10));
    log.append(&mut batch(1, 10, 0), at(0)).unwrap();
    assert_eq!((log.quarantined().len(), log.segment_count()), (1, segments + 1));
    drop(log);
    faults.unreadable.lock().take();
    let log = again(unclean(end));
    assert_eq!((log.quarantined(), all(&log).len()), (&[][..], 21));
}
