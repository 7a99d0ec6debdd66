//! Compaction against a naive model, and its state on disk at each step of a change of segments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use taccola_base::TopicPartition;
use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, RecordIter, batches, end_txn_marker};

use super::*;
use crate::config::LogConfig;
use crate::partition_log::{AppendContext, AppendOrigin, OpenHints, PartitionLog};

pub(super) const LIMITS: CleanerLimits = CleanerLimits { map_bytes: 1 << 20, hash_key: (1, 2) };
const DELETE_RETENTION_MS: i64 = 1_000;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        cleanup_delete: false,
        cleanup_compact: true,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: DELETE_RETENTION_MS,
        ..LogConfig::default()
    }
}

fn create(dir: &Path) -> PartitionLog {
    let at = TopicPartition::new("t", 0);
    let mut log = PartitionLog::create(dir, at, None, Arc::new(config()), LogShared::new(64)).unwrap();
    log.make_folder().unwrap();
    log
}

fn open(dir: &Path, clean: bool, recovery_point: i64) -> PartitionLog {
    let hints = OpenHints { recovery_point, clean, ..OpenHints::default() };
    let tp = TopicPartition::new("t", 0);
    PartitionLog::open(dir, tp, None, Arc::new(config()), LogShared::new(64), hints, 0).unwrap().0
}

fn append(log: &mut PartitionLog, batch: &[u8], origin: AppendOrigin) -> i64 {
    let mut batch = BytesMut::from(batch);
    let base = log.append(&mut batch, AppendContext { origin, leader_epoch: 0, now_ms: 0 }).unwrap().base_offset;
    log.set_high_watermark(log.log_end_offset());
    base
}

struct Host<'a> {
    log: &'a mut PartitionLog,
    now_ms: i64,
    stop_after: usize,
}

impl CleanerHost for Host<'_> {
    fn throttle(&mut self, _bytes: u64) {}

    fn stopped(&self) -> bool {
        self.stop_after == 0
    }

    fn replace(&mut self, cleaned: CleanedSegment) -> Result<(), LogError> {
        self.stop_after -= 1;
        self.log.replace_segments(cleaned, self.now_ms)
    }
}

pub(super) fn clean(
    log: &mut PartitionLog,
    cleaned_to: Option<i64>,
    now_ms: i64,
    limits: CleanerLimits,
    stop_after: usize,
) -> Option<CleanOutcome> {
    log.flush(now_ms).unwrap();
    let cleanable = log.cleanable(cleaned_to, now_ms).unwrap().filter(|cleanable| cleanable.due)?;
    let job = log.begin_clean(&cleanable).unwrap();
    let outcome = job.run(now_ms, limits, &mut Host { log, now_ms, stop_after }).unwrap();
    log.purge(i64::MAX);
    outcome
}

/// `(offset, key, value)` of all records that are not control records, with `None` for a tombstone, and their producer.
fn records(log: &PartitionLog) -> Vec<(i64, i64, Bytes, Option<Bytes>)> {
    let mut found = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let bytes = log.read(offset, 300, i64::MAX, true).unwrap().read().unwrap();
        let before = offset;
        for batch in batches(&bytes) {
            let batch = bytes.slice_ref(batch.unwrap().bytes);
            let iter = RecordIter::new(&batch).unwrap();
            let header = *iter.header();
            offset = header.next_offset();
            if !header.is_control() {
                let record = iter.map(Result::unwrap);
                found.extend(record.map(|r| (r.offset, header.producer_id, r.key.unwrap(), r.value)));
            }
        }
        assert!(offset > before, "the log ends at {offset}, not at {}", log.log_end_offset());
    }
    found
}

/// The last value of each key that a consumer sees with read_committed; tombstones left out.
fn view(log: &PartitionLog) -> BTreeMap<Bytes, (i64, Bytes)> {
    let aborted = log.aborted_txns(log.log_start_offset(), log.log_end_offset()).unwrap();
    let stable = log.last_stable_offset();
    let mut view = BTreeMap::new();
    for (offset, producer, key, value) in records(log) {
        let is_aborted = aborted
            .iter()
            .any(|txn| txn.producer_id == producer && (txn.first_offset..=txn.last_offset).contains(&offset));
        if offset >= stable || is_aborted {
            continue;
        }
        match value {
            Some(value) => view.insert(key, (offset, value)),
            None => view.remove(&key),
        };
    }
    view
}

#[derive(Clone, Debug)]
enum Step {
    Put { producer: Option<i64>, keys: Vec<(u8, bool)>, codec: u8 },
    End { producer: i64, commit: bool },
    Clean { small_map: bool, later_ms: i64, stop_after: usize },
    Reopen { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop::collection::vec((0_u8..6, prop::bool::weighted(0.2)), 1..4);
    prop_oneof![
        6 => (prop::option::of(1_i64..4), keys, 0_u8..5)
            .prop_map(|(producer, keys, codec)| Step::Put { producer, keys, codec }),
        3 => (1_i64..4, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        2 => (any::<bool>(), 0_i64..800, prop_oneof![3 => Just(usize::MAX), 1 => 1_usize..3])
            .prop_map(|(small_map, later_ms, stop_after)| Step::Clean { small_map, later_ms, stop_after }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

fn put(producer: Option<(i64, i32)>, keys: &[(u8, bool)], codec: u8, stamp: &mut u32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::from_id(codec).unwrap());
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence).transactional(true);
    }
    for (key, tombstone) in keys {
        *stamp += 1;
        let value = stamp.to_be_bytes();
        builder.append(i64::from(*stamp), Some(&[*key]), (!tombstone).then_some(&value[..]), &[]);
    }
    builder.build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever is cleaned when: the view stays, offsets and values stay, and a producer can go on.
    #[test]
    fn cleaning_changes_nothing_that_counts(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = create(dir.path());
        let (mut stamp, mut now_ms, mut cleaned_to) = (0, 10_000, None);
        let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
        let mut open_txns: BTreeSet<i64> = BTreeSet::new();
        let mut written: BTreeMap<i64, (Bytes, Option<Bytes>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put { producer, keys, codec } => {
                    let sequence = producer.map(|id| (id, *sequences.entry(id).or_default()));
                    let batch = put(sequence, &keys, codec, &mut stamp);
                    let base = append(&mut log, &batch, AppendOrigin::Client);
                    if let Some(id) = producer {
                        *sequences.get_mut(&id).unwrap() += i32::try_from(keys.len()).unwrap();
                        open_txns.insert(id);
                    }
                    for (offset, record) in (base..).zip(RecordIter::new(&batch).unwrap()) {
                        let record = record.unwrap();
                        written.insert(offset, (record.key.unwrap(), record.value));
                    }
                }
                Step::End { producer, commit } => {
                    let marker = match commit {
                        true => ControlRecord::Commit { coordinator_epoch: 0 },
                        false => ControlRecord::Abort { coordinator_epoch: 0 },
                    };
                    let marker = end_txn_marker(5, producer, 0, &marker).unwrap();
                    append(&mut log, &marker, AppendOrigin::Coordinator { transaction_version: 0 });
                    open_txns.remove(&producer);
                }
                Step::Clean { small_map, later_ms, stop_after } => {
                    now_ms += later_ms;
                    let before = view(&log);
                    let map_bytes = if small_map { 52 * 4 } else { 1 << 20 };
                    let outcome = clean(&mut log, cleaned_to, now_ms, CleanerLimits { map_bytes, ..LIMITS }, stop_after);
                    prop_assert_eq!(before, view(&log));
                    if let Some(outcome) = outcome {
                        let mut keys = BTreeSet::new();
                        for (offset, _, key, _) in records(&log) {
                            prop_assert!(offset >= outcome.end_offset || keys.insert(key), "{} twice", offset);
                        }
                        cleaned_to = Some(outcome.end_offset);
                    }
                }
                Step::Reopen { clean } => {
                    let (point, end) = (log.recovery_point(), log.log_end_offset());
                    let point = if clean { log.close(now_ms).unwrap() } else { drop(log); point };
                    log = open(dir.path(), clean, point);
                    log.set_high_watermark(end);
                    prop_assert!(log.quarantined().is_empty());
                    prop_assert_eq!(log.log_end_offset(), end);
                }
            }
        }
        for (offset, _, key, value) in records(&log) {
            prop_assert_eq!(written.get(&offset), Some(&(key, value)), "{}", offset);
        }
        for (id, sequence) in sequences {
            let summary = log.producers().into_iter().find(|p| p.producer_id == id);
            prop_assert_eq!(summary.map(|p| p.last_sequence), Some(sequence - 1));
        }
    }
}

fn keyed(key: &str, value: Option<&str>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    builder.build().unwrap()
}

fn fill(log: &mut PartitionLog, rounds: usize) {
    for i in 0..rounds {
        for key in ["a", "b", "c"] {
            append(log, &keyed(key, Some(&format!("value {i}"))), AppendOrigin::Client);
        }
    }
}

#[test]
fn a_tombstone_stays_until_its_horizon_and_the_log_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path());
    fill(&mut log, 10);
    append(&mut log, &keyed("a", None), AppendOrigin::Client);
    fill_key(&mut log, "x");
    let outcome = clean(&mut log, None, 0, LIMITS, usize::MAX).unwrap();
    assert!(outcome.bytes_after * 3 < outcome.bytes_before, "{outcome:?}");
    let tombstones = |log: &PartitionLog| records(log).iter().filter(|(.., value)| value.is_none()).count();
    assert_eq!(tombstones(&log), 1);
    fill_key(&mut log, "y");
    let outcome = clean(&mut log, Some(outcome.end_offset), DELETE_RETENTION_MS - 1, LIMITS, usize::MAX).unwrap();
    assert_eq!(tombstones(&log), 1);
    fill_key(&mut log, "z");
    clean(&mut log, Some(outcome.end_offset), DELETE_RETENTION_MS, LIMITS, usize::MAX).unwrap();
    assert_eq!(tombstones(&log), 0);
    assert!(records(&log).iter().all(|(_, _, key, _)| key != "a"));
}

/// Enough for the segment before to be sealed.
fn fill_key(log: &mut PartitionLog, key: &str) {
    for _ in 0..8 {
        append(log, &keyed(key, Some("0123456789")), AppendOrigin::Client);
    }
}

#[test]
fn what_is_open_uncommitted_or_young_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path());
    let first = put(Some((7, 0)), &[(0, false)], 0, &mut 0);
    append(&mut log, &first, AppendOrigin::Client);
    fill(&mut log, 10);
    assert_eq!(log.cleanable(None, 0).unwrap().unwrap().first_uncleanable_offset, 0, "an open transaction");
    let marker = end_txn_marker(5, 7, 0, &ControlRecord::Commit { coordinator_epoch: 0 }).unwrap();
    append(&mut log, &marker, AppendOrigin::Coordinator { transaction_version: 0 });
    assert_eq!(log.cleanable(None, 0).unwrap().unwrap().first_uncleanable_offset, 0, "nothing is on disk");
    log.flush(0).unwrap();
    let cleanable = log.cleanable(None, 0).unwrap().unwrap();
    assert!(cleanable.due && cleanable.first_uncleanable_offset > 0);
    log.set_config(Arc::new(LogConfig { min_compaction_lag_ms: 1000, ..config() }));
    assert!(!log.cleanable(None, 500).unwrap().unwrap().due);
    assert!(log.cleanable(None, 5_000).unwrap().unwrap().due);
    log.set_config(Arc::new(LogConfig { min_cleanable_dirty_ratio: 1.0, ..config() }));
    assert!(!log.cleanable(None, 5_000).unwrap().unwrap().due);
    let lag = LogConfig { min_cleanable_dirty_ratio: 1.0, max_compaction_lag_ms: 1000, ..config() };
    log.set_config(Arc::new(lag));
    assert!(log.cleanable(None, 5_000).unwrap().unwrap().due);
}

/// The folder at each step of a change of segments, as a crash would leave it, opens to the same view.
#[test]
fn a_crash_while_segments_change_leaves_the_old_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path());
    fill(&mut log, 12);
    log.flush(0).unwrap();
    let (before, end) = (view(&log), log.log_end_offset());
    let cleanable = log.cleanable(None, 0).unwrap().unwrap();
    let job = log.begin_clean(&cleanable).unwrap();
    struct Crash<'a> {
        log: &'a mut PartitionLog,
        dir: &'a Path,
        check: &'a dyn Fn(&Path),
    }
    impl CleanerHost for Crash<'_> {
        fn throttle(&mut self, _bytes: u64) {}
        fn stopped(&self) -> bool {
            false
        }
        fn replace(&mut self, cleaned: CleanedSegment) -> Result<(), LogError> {
            // Every prefix of the renames, in their order.
            let part = self.dir.join("t-0");
            let name = |base: i64, kind: crate::segment::Kind| format!("{base:020}.{}", kind.suffix());
            let mut renames = Vec::new();
            for kind in &cleaned.kinds {
                let name = name(cleaned.base_offset, *kind);
                renames.push((format!("{name}.cleaned"), format!("{name}.swap")));
            }
            for (base, _) in &cleaned.replaces {
                for kind in crate::segment::Kind::ALL {
                    renames.push((name(*base, kind), format!("{}.deleted", name(*base, kind))));
                }
            }
            for kind in &cleaned.kinds {
                let name = name(cleaned.base_offset, *kind);
                renames.push((format!("{name}.swap"), name));
            }
            for steps in 0..=renames.len() {
                let copy = tempfile::tempdir().unwrap();
                std::fs::create_dir(copy.path().join("t-0")).unwrap();
                for entry in std::fs::read_dir(&part).unwrap() {
                    let entry = entry.unwrap();
                    std::fs::copy(entry.path(), copy.path().join("t-0").join(entry.file_name())).unwrap();
                }
                for (from, to) in &renames[..steps] {
                    let at = |name: &str| copy.path().join("t-0").join(name);
                    let renamed = std::fs::rename(at(from), at(to));
                    assert!(renamed.is_ok() || from.ends_with("txnindex"), "{from}");
                }
                (self.check)(copy.path());
            }
            self.log.replace_segments(cleaned, 0)
        }
    }
    let point = log.recovery_point();
    let check = |copy: &Path| {
        let mut log = open(copy, false, point);
        log.set_high_watermark(end);
        assert!(log.quarantined().is_empty());
        assert_eq!(log.log_end_offset(), end);
        assert_eq!(view(&log), before);
    };
    let outcome = job.run(0, LIMITS, &mut Crash { log: &mut log, dir: dir.path(), check: &check }).unwrap().unwrap();
    assert!(outcome.bytes_after < outcome.bytes_before);
    assert_eq!(view(&log), before);
}

#[test]
fn a_log_that_changed_meanwhile_keeps_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path());
    fill(&mut log, 12);
    log.flush(0).unwrap();
    let cleanable = log.cleanable(None, 0).unwrap().unwrap();
    let job = log.begin_clean(&cleanable).unwrap();
    let start = log.log_end_offset() - 4;
    log.delete_records_before(start, 0).unwrap();
    assert!(job.run(0, LIMITS, &mut Host { log: &mut log, now_ms: 0, stop_after: usize::MAX }).is_err());
    assert_eq!(log.log_start_offset(), start);
    let names: Vec<_> = std::fs::read_dir(dir.path().join("t-0")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".cleaned")), "{names:?}");
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("t-0")).unwrap();
    for entry in std::fs::read_dir(dir.join("t-0")).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join("t-0").join(entry.file_name())).unwrap();
    }
    copy
}

/// The process dies at each operation of a round: writing the cleaned segments, flushing them, the change of names.
#[test]
fn a_crash_at_every_operation_of_a_round_changes_no_view() {
    use crate::file::crash;
    let template = tempfile::tempdir().unwrap();
    let mut log = create(template.path());
    fill(&mut log, 12);
    let data = put(Some((7, 0)), &[(0, false), (1, false)], 0, &mut 0);
    append(&mut log, &data, AppendOrigin::Client);
    let aborted = end_txn_marker(5, 7, 0, &ControlRecord::Abort { coordinator_epoch: 0 }).unwrap();
    append(&mut log, &aborted, AppendOrigin::Coordinator { transaction_version: 0 });
    fill(&mut log, 12);
    let point = log.flush(0).unwrap();
    let (before, end) = (view(&log), log.log_end_offset());
    drop(log);
    let round = |dir: &Path| -> Option<()> {
        let mut log = open(dir, false, point);
        log.set_high_watermark(end);
        log.flush(0).ok()?;
        let cleanable = log.cleanable(None, 0).ok()??;
        let job = log.begin_clean(&cleanable).ok()?;
        job.run(0, LIMITS, &mut Host { log: &mut log, now_ms: 0, stop_after: usize::MAX }).ok()??;
        log.purge(i64::MAX);
        Some(())
    };
    let check = |dir: &Path, at: u64| {
        let mut log = open(dir, false, point);
        log.set_high_watermark(end);
        assert!(log.quarantined().is_empty(), "operation {at}: {:?}", log.quarantined());
        assert_eq!((log.log_end_offset(), view(&log)), (end, before.clone()), "operation {at}");
    };
    // Opening is counted too, and must not die here: it is somebody else's test.
    let opening = {
        let copy = copy_of(template.path());
        crash::arm(u64::MAX);
        drop(open(copy.path(), false, point));
        crash::disarm()
    };
    let whole = copy_of(template.path());
    crash::arm(u64::MAX);
    assert!(round(whole.path()).is_some(), "the round without a crash");
    let operations = crash::disarm();
    check(whole.path(), operations);
    assert!(operations > opening + 40, "{operations}, {opening} of them to open");
    for at in opening..operations {
        let copy = copy_of(template.path());
        crash::arm(at);
        let _ = round(copy.path());
        crash::disarm();
        check(copy.path(), at);
    }
}

/// Offsets may be missing where a sealed segment ends: a power cut took what nobody was promised, or a JVM's cleaner left
/// it so. A round that ended before them would be due again at once, for ever.
#[test]
fn a_round_goes_past_offsets_that_are_missing_at_a_segments_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path());
    fill(&mut log, 12);
    let end = log.close(0).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(dir.path().join("t-0")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let sealed = &files[files.len() - 2];
    let bytes = std::fs::read(sealed).unwrap();
    let last = batches(&bytes).map(Result::unwrap).last().unwrap().bytes.len();
    std::fs::write(sealed, &bytes[..bytes.len() - last]).unwrap();
    let mut log = open(dir.path(), true, end);
    log.set_high_watermark(log.log_end_offset());
    let active = log.cleanable(None, 0).unwrap().unwrap().first_uncleanable_offset;
    let outcome = clean(&mut log, None, 0, LIMITS, usize::MAX).unwrap();
    assert_eq!(outcome.end_offset, active);
    assert!(!log.cleanable(Some(outcome.end_offset), 0).unwrap().unwrap().due);
}
