//! The process dies at each operation on the disk of an append, a roll, a snapshot, a flush, a deletion, a truncation, a clean
//! stop, a start and a recovery (`crate::file::crash` counts them): what was acknowledged is there, byte for byte, and
//! nothing is quarantined. With `CRASH_POINTS` set each of the starts dies at each of its operations as well. What a power cut takes besides is the business of the tests on a file system of their own.

use std::collections::BTreeMap;

use super::*;
use crate::file::crash;
use crate::log_dir;

const SEGMENT_BYTES: u32 = 700;

/// What the log answered before it died.
#[derive(Clone, Debug, Default)]
struct Promise {
    /// Base offset → last offset and bytes.
    batches: BTreeMap<i64, (i64, Vec<u8>)>,
    /// Last acknowledged idempotent batch: sequence and base offset.
    last_sent: Option<(i32, i64)>,
    /// Abort markers: offset and producer.
    aborted: Vec<(i64, i64)>,
    /// Asked for: the log may start here.
    start_asked: i64,
    start: i64,
}

/// The process is dead.
struct Dead;

struct Run<'a> {
    dir: &'a Path,
    promise: Promise,
    /// Of the transactional producer.
    sequence: i32,
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: SEGMENT_BYTES, retention_bytes: 4_000, ..small_config() }
}

impl Run<'_> {
    fn append(&mut self, log: &mut PartitionLog, mut batch: BytesMut, origin: AppendOrigin) -> Result<i64, Dead> {
        let context = AppendContext { origin, leader_epoch: 0, now_ms: 1000 };
        let appended = log.append(&mut batch, context).map_err(|_| Dead)?;
        log.set_high_watermark(log.log_end_offset());
        self.promise.batches.insert(appended.base_offset, (appended.last_offset, batch.to_vec()));
        Ok(appended.base_offset)
    }

    /// Idempotent batches, and a transaction that is aborted.
    fn load(&mut self, log: &mut PartitionLog, from_sequence: i32, batches: i32) -> Result<(), Dead> {
        for i in 0..batches {
            let sequence = from_sequence + i * 2;
            let base = self.append(log, producer_batch(2, 7, 0, sequence, false), CLIENT)?;
            self.promise.last_sent = Some((sequence, base));
            if i == batches / 2 {
                self.append(log, producer_batch(1, 8, 0, self.sequence, true), CLIENT)?;
                self.sequence += 1;
                let at =
                    self.append(log, marker(8, 0, false, 0), AppendOrigin::Coordinator { transaction_version: 0 })?;
                self.promise.aborted.push((at, 8));
            }
        }
        Ok(())
    }

    /// As the broker's checkpoint.
    fn checkpoint(&mut self, log: &mut PartitionLog) -> Result<(), Dead> {
        let point = log.flush(1000).map_err(|_| Dead)?;
        self.write(log_dir::RECOVERY_POINT_CHECKPOINT, point)?;
        if log.log_start_offset() > 0 {
            self.write(log_dir::LOG_START_OFFSET_CHECKPOINT, log.log_start_offset())?;
        }
        Ok(())
    }

    fn write(&self, file: &str, offset: i64) -> Result<(), Dead> {
        log_dir::write_offsets(self.dir, file, &[(tp(), offset)].into()).map_err(|_| Dead)
    }

    /// A life of a log; ends early when the process dies.
    fn live(&mut self) -> Result<(), Dead> {
        let shared = LogShared::new(64);
        let mut log = PartitionLog::create(self.dir, tp(), Some(Uuid::from_u128(77)), Arc::new(config()), shared)
            .map_err(|_| Dead)?;
        self.load(&mut log, 0, 12)?;
        self.checkpoint(&mut log)?;
        self.load(&mut log, 24, 10)?;
        self.promise.start_asked = 9;
        log.delete_records_before(9, 2000).map_err(|_| Dead)?;
        self.write(log_dir::LOG_START_OFFSET_CHECKPOINT, 9)?;
        self.promise.start = 9;
        // By size; segments that are gone answer no more.
        self.promise.start_asked = log.log_end_offset();
        log.apply_retention(2000).map_err(|_| Dead)?;
        self.promise.start_asked = log.log_start_offset();
        log.purge(i64::MAX);
        self.load(&mut log, 44, 4)?;
        let point = log.close(2000).map_err(|_| Dead)?;
        self.write(log_dir::RECOVERY_POINT_CHECKPOINT, point)?;
        log_dir::write_clean_shutdown(self.dir, 1).map_err(|_| Dead)?;
        let mut log = start(self.dir).map_err(|_| Dead)?.0;
        self.load(&mut log, 52, 6)?;
        // A follower's truncation; nobody was promised what goes.
        let cut = log.log_end_offset() - 5;
        self.promise.batches.retain(|_, (last, _)| *last < cut);
        self.promise.aborted.retain(|(offset, _)| *offset < cut);
        self.promise.last_sent = None;
        log.truncate_to(cut, 2000).map_err(|_| Dead)?;
        self.append(&mut log, batch(2, 20, 1000), CLIENT)?;
        self.checkpoint(&mut log)?;
        // From here on nobody is promised that it is there.
        self.promise = Promise { start_asked: i64::MAX, ..Promise::default() };
        let renamed = log.rename_for_delete(Uuid::from_u128(5)).map_err(|_| Dead)?;
        renamed.map_or(Ok(()), |path| log_dir::remove_deleted_dir(&path)).map_err(|_| Dead)
    }
}

/// Opens what a dead process left, as the broker does.
fn start(dir: &Path) -> Result<(PartitionLog, RecoveryReport), LogError> {
    let offset = |file| log_dir::read_offsets(dir, file).map(|read| read.offsets.get(&tp()).copied().unwrap_or(0));
    let hints = OpenHints {
        recovery_point: offset(log_dir::RECOVERY_POINT_CHECKPOINT)?,
        log_start_offset: offset(log_dir::LOG_START_OFFSET_CHECKPOINT)?,
        clean: log_dir::take_clean_shutdown(dir)?.is_some(),
        ..OpenHints::default()
    };
    let (mut log, report) =
        PartitionLog::open(dir, tp(), Some(Uuid::from_u128(77)), Arc::new(config()), LogShared::new(64), hints, 0)?;
    log.set_high_watermark(log.log_end_offset());
    Ok((log, report))
}

fn check(dir: &Path, promise: &Promise, point: &str) {
    if !dir.join("t-0").exists() {
        assert!(promise.batches.is_empty(), "{point}: the folder is gone");
        return;
    }
    let (mut log, report) = start(dir).unwrap_or_else(|error| panic!("{point}: {error}"));
    assert_eq!(report.quarantined, [], "{point}");
    let (first, end) = (log.log_start_offset(), log.log_end_offset());
    assert!((promise.start..=promise.start_asked.max(promise.start)).contains(&first), "{point}: starts at {first}");
    for (base, (last, bytes)) in promise.batches.range(first..) {
        assert!(*last < end, "{point}: {base}..={last} was acknowledged, the log ends at {end}");
        let found = read(&log, *base, 1).unwrap_or_else(|error| panic!("{point}: {base}: {error}"));
        assert_eq!(found.as_ref(), bytes, "{point}: {base}");
    }
    // Nothing but what was sent, without a gap.
    let mut next = first;
    while next < end {
        let found = ranges(&read(&log, next, 300).unwrap_or_else(|error| panic!("{point}: {next}: {error}")));
        let last = found.last().unwrap_or_else(|| panic!("{point}: nothing at {next} of {end}")).1;
        assert!(found.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{point}: {found:?}");
        next = last + 1;
    }
    let aborted = log.aborted_txns(first, end).unwrap();
    for (offset, producer) in promise.aborted.iter().filter(|(offset, _)| *offset >= first) {
        let known = aborted.iter().any(|txn| txn.last_offset == *offset && txn.producer_id == *producer);
        assert!(known, "{point}: the transaction aborted at {offset} is forgotten: {aborted:?}");
    }
    if let Some((sequence, base)) = promise.last_sent.filter(|(_, base)| *base >= first) {
        let again = log.append(&mut producer_batch(2, 7, 0, sequence, false), at(1000)).unwrap();
        assert!(again.duplicate && again.base_offset == base, "{point}: {sequence} was taken twice: {again:?}");
    }
    log.append(&mut batch(1, 10, 1000), at(1000)).unwrap_or_else(|error| panic!("{point}: {error}"));
}

/// Runs a life that dies at operation `at`; what it was promised.
fn die_at(dir: &Path, at: u64) -> Promise {
    let mut run = Run { dir, promise: Promise::default(), sequence: 0 };
    crash::arm(at);
    let _ = run.live();
    crash::disarm();
    run.promise
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let whole = tempfile::tempdir().unwrap();
    let mut run = Run { dir: whole.path(), promise: Promise::default(), sequence: 0 };
    crash::arm(u64::MAX);
    assert!(run.live().is_ok(), "the life without a crash");
    let operations = crash::disarm();
    assert!(operations > 150, "{operations}");
    let nested_every = if std::env::var_os("CRASH_POINTS").is_some() { 1 } else { 30 };
    let mut recoveries = 0;
    for at in 0..operations {
        let dir = tempfile::tempdir().unwrap();
        let promise = die_at(dir.path(), at);
        // Some starts die as well, at each of their operations.
        if at % nested_every == 0 {
            for again in 0.. {
                crash::arm(again);
                let died = !dir.path().join("t-0").exists() || start(dir.path()).is_err();
                let seen = crash::disarm();
                recoveries += 1;
                if !died || seen < again {
                    break;
                }
            }
        }
        check(dir.path(), &promise, &format!("operation {at} of {operations}"));
    }
    println!("{operations} operations, {recoveries} starts that died: all recovered");
}
