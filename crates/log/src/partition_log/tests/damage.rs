//! Random damage to any file of the folder, then a start: never a panic, never a wrong byte, every loss named.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Harm {
    Flip { at: f64, bit: u8 },
    Cut { at: f64 },
    Zero { at: f64, bytes: usize },
    Garbage { bytes: Vec<u8> },
    Remove,
    Copy { from: f64, to: f64, bytes: usize },
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        6 => (0.0..1.0f64, 0..8u8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        1 => (0.0..1.0f64).prop_map(|at| Harm::Cut { at }),
        1 => (0.0..1.0f64, 1..300usize).prop_map(|(at, bytes)| Harm::Zero { at, bytes }),
        1 => prop::collection::vec(any::<u8>(), 1..200).prop_map(|bytes| Harm::Garbage { bytes }),
        1 => Just(Harm::Remove),
        // Less than what a batch's checksum covers: a whole batch in another's place has a right checksum, and Kafka's
        // format binds it to nothing else.
        1 => (0.0..1.0f64, 0.0..1.0f64, 1..50usize).prop_map(|(from, to, bytes)| Harm::Copy { from, to, bytes }),
    ]
}

fn inflict(path: &PathBuf, harm: &Harm) {
    let Ok(mut bytes) = std::fs::read(path) else { return };
    let place = |at: &f64| ((bytes.len() as f64 * at) as usize).min(bytes.len().saturating_sub(1));
    match harm {
        Harm::Flip { at, bit } => {
            let at = place(at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Harm::Cut { at } => bytes.truncate(place(at)),
        Harm::Zero { at, bytes: count } => {
            let at = place(at);
            bytes.iter_mut().skip(at).take(*count).for_each(|byte| *byte = 0);
        }
        Harm::Garbage { bytes: more } => bytes.extend_from_slice(more),
        Harm::Remove if path.extension().is_some_and(|extension| extension == "log") => {}
        Harm::Remove => {
            std::fs::remove_file(path).unwrap();
            return;
        }
        Harm::Copy { from, to, bytes: count } => {
            let (from, to) = (place(from), place(to));
            let part: Vec<u8> = bytes.iter().skip(from).take(*count).copied().collect();
            for (place, byte) in bytes.iter_mut().skip(to).zip(part) {
                *place = byte;
            }
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// A batch without the leader epoch, which no checksum covers.
fn comparable(batch: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[12..16].fill(0);
    batch
}

fn check_offset(log: &PartitionLog, offset: i64, batches: &[(i64, i64, Vec<u8>)], is_named: impl Fn(i64) -> bool) {
    let (first, _, expected) = batches.iter().find(|(_, last, _)| *last >= offset).unwrap();
    match read(log, offset, 1) {
        Ok(bytes) if bytes.is_empty() => {
            assert_eq!(offset, log.log_end_offset(), "missing without a word");
        }
        Ok(bytes) => {
            let header = verify_crc(&bytes).unwrap();
            assert_eq!(header.base_offset, *first, "reading {offset}");
            assert_eq!(comparable(&bytes), comparable(expected), "reading {offset}");
        }
        Err(ReadError::CorruptRecord { first, next_valid, .. }) => {
            assert!(first <= offset && offset < next_valid, "{first}..{next_valid} does not name {offset}");
        }
        Err(ReadError::OffsetOutOfRange { end, .. }) => assert!(offset >= end && is_named(offset), "{offset} of {end}"),
        Err(error) => panic!("{error}"),
    }
    if offset >= log.log_end_offset() {
        assert!(is_named(offset), "{offset} is behind the end and not named");
    }
}

fn run(harms: &[(usize, Harm)], clean_stop: bool, flushed: usize, segment_bytes: u32) {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes, index_interval_bytes: 200, ..LogConfig::default() };
    let mut log = create(dir.path(), config.clone());
    let mut stored = Vec::new();
    for i in 0..24 {
        let mut sent = match i % 6 {
            5 => marker(3, 0, i % 12 == 5, 1),
            4 => producer_batch(2, 3, 0, i / 6 * 2, true),
            _ => batch(1 + i as usize % 4, 20, i64::from(i) * 10),
        };
        let origin = if i % 6 == 5 { AppendOrigin::Coordinator { transaction_version: 0 } } else { CLIENT };
        let context = AppendContext { origin, leader_epoch: i / 9, now_ms: 0 };
        let appended = log.append(&mut sent, context).unwrap();
        stored.push((appended.base_offset, appended.last_offset, sent.to_vec()));
        if i as usize == flushed {
            log.flush(0).unwrap();
        }
    }
    let end = log.log_end_offset();
    let point = log.recovery_point();
    let hints = if clean_stop {
        clean(log.close(0).unwrap())
    } else {
        drop(log);
        unclean(point)
    };
    let files: Vec<PathBuf> = names(dir.path()).into_iter().map(|name| dir.path().join("t-0").join(name)).collect();
    for (index, harm) in harms {
        inflict(&files[index % files.len()], harm);
    }
    let shared = LogShared::new(8);
    let opened = PartitionLog::open(dir.path(), tp(), None, Arc::new(config), shared, hints, 0);
    let (mut log, report) = match opened {
        Ok(opened) => opened,
        Err(LogError::BadFile { path, .. }) => {
            assert!(path.ends_with("partition.metadata"), "{}", path.display());
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    let named_from = report.truncated_from_offset.unwrap_or(i64::MAX);
    let is_named = |offset: i64| {
        let quarantined = |range: &QuarantinedRange| (range.first_offset..range.next_valid_offset).contains(&offset);
        // What was never flushed may be gone without a trace, as after a power cut.
        let unflushed = !clean_stop && offset >= point;
        unflushed || offset >= named_from || report.quarantined.iter().any(quarantined)
    };
    let first = log.log_start_offset();
    assert!(first == 0, "the start moved to {first}");
    for offset in 0..end {
        check_offset(&log, offset, &stored, is_named);
    }
    // Everything else answers something.
    log.set_high_watermark(i64::MAX);
    let _ = log.aborted_txns(0, end);
    let _ = (log.producers(), log.last_stable_offset(), log.latest_leader_epoch());
    for query in [TimestampQuery::MaxTimestamp, TimestampQuery::At(55), TimestampQuery::Earliest] {
        let _ = log.offset_for_timestamp(query);
    }
    let before = log.log_end_offset();
    let appended = log.append(&mut batch(1, 5, 0), at(0)).unwrap();
    let late = log.take_late_reports();
    assert!(appended.base_offset >= before || !late.is_empty());
    assert_eq!(ranges(&read(&log, appended.base_offset, 1).unwrap()), [(appended.base_offset, appended.base_offset)]);
    let _ = log.apply_retention(0).unwrap();
    log.close(0).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_never_served_and_always_named(
        harms in prop::collection::vec((0..64usize, harm()), 1..4),
        clean_stop in any::<bool>(),
        flushed in 0..30usize,
        segment_bytes in prop_oneof![Just(600u32), Just(1500), Just(100_000)],
    ) {
        run(&harms, clean_stop, flushed, segment_bytes);
    }
}

/// A range that is nowhere in the log must not come to fit when the log grows: found by fuzzing.
#[test]
fn a_quarantine_that_names_nothing_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path(), small_config());
    let point = log.close(0).unwrap();
    let file = dir.path().join("t-0/taccola.quarantine");
    for text in ["0\n0 40 50 0 1 elsewhere\n", "0\nnonsense\n"] {
        std::fs::write(&file, text).unwrap();
        let (log, _) = open(dir.path(), small_config(), clean(point));
        assert!(log.quarantined().is_empty());
        assert!(!file.exists(), "{text}");
    }
    let (mut log, _) = open(dir.path(), small_config(), clean(point));
    log.append(&mut batch(1, 50, 1), at(0)).unwrap();
    let point = log.close(0).unwrap();
    let (log, _) = open(dir.path(), small_config(), clean(point));
    assert_eq!(all(&log), [(0, 0)]);
}

/// A power cut took the end of a sealed segment, and its successor is there. Where offsets may be missing this looks like
/// compaction; only the journal knows better.
#[test]
fn the_journal_puts_back_what_a_sealed_segment_of_a_compacted_log_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { cleanup_compact: true, ..small_config() };
    let mut log = create(dir.path(), config.clone());
    let mut journaled = Vec::new();
    for _ in 0..12 {
        let mut batch = batch(1, 200, 1);
        log.append(&mut batch, at(1)).unwrap();
        journaled.push(batch);
    }
    let (before, second) = (all(&log), log.segments[1].base_offset);
    let first_file = dir.path().join("t-0/00000000000000000000.log");
    drop(log);
    // The last two batches of the first segment.
    let kept: usize = journaled[..second as usize - 2].iter().map(|batch| batch.len()).sum();
    std::fs::OpenOptions::new().write(true).open(first_file).unwrap().set_len(kept as u64).unwrap();
    // What the cleaner has been through is not missing: a tombstone that deleted it may be gone by now.
    for (cleaned_to, found) in [(second, 0), (0, 2)] {
        let hints = OpenHints { compacted: true, cleaned_to, ..OpenHints::default() };
        let (mut log, _) = open(dir.path(), config.clone(), hints);
        assert_eq!(all(&log).len(), before.len() - 2);
        let repaired = journaled.iter().filter(|batch| log.replay(batch, 1).unwrap() == Replayed::Repaired).count();
        log.finish_replay(1).unwrap();
        assert_eq!((repaired, all(&log).len()), (found, before.len() - 2 + found));
    }
}

/// A power cut took back that a segment was cut off at its end, and the content of the segment that was begun there.
#[test]
fn what_a_lost_cut_leaves_behind_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    while log.segment_count() < 3 {
        log.append(&mut batch(1, 200, 0), at(0)).unwrap();
    }
    let folder = log.dir().to_path_buf();
    let second = log.segments[1].base_offset;
    log.flush(0).unwrap();
    drop(log);
    let file = |base| crate::segment::segment_path(&folder, base, "log");
    let stale = std::fs::read(file(second)).unwrap();
    let mut first = std::fs::read(file(0)).unwrap();
    first.extend_from_slice(&stale);
    std::fs::write(file(0), &first).unwrap();
    std::fs::write(file(second), b"").unwrap();
    let (mut log, _) = open(dir.path(), small_config(), unclean(0));
    assert!(log.truncate_to(second, 0).unwrap());
    assert_eq!(log.log_end_offset(), second);
    assert!(log.quarantined().is_empty(), "{:?}", log.quarantined());
    assert_eq!(log.append(&mut batch(1, 10, 0), at(0)).unwrap().base_offset, second);
    drop(log);
    let (log, report) = open(dir.path(), small_config(), unclean(0));
    assert_eq!((log.log_end_offset(), report.quarantined.len()), (second + 1, 0));
}

/// The journal puts a batch back into a late segment, which is read once more; what an earlier one told stays known.
#[test]
fn leader_epochs_of_before_a_repair_stay_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    log.append(&mut batch(1, 200, 0), at(0)).unwrap();
    log.flush(0).unwrap();
    let newer = || AppendContext { leader_epoch: 7, ..at(0) };
    let mut sent = Vec::new();
    while log.segment_count() < 5 {
        let mut bytes = batch(1, 200, 0);
        log.append(&mut bytes, newer()).unwrap();
        sent.push(bytes);
    }
    let late = log.segments[3].base_offset;
    let path = crate::segment::segment_path(log.dir(), late, "log");
    drop(log);
    let mut bytes = std::fs::read(&path).unwrap();
    let at_end = bytes.len() - 5;
    bytes[at_end] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (mut log, report) = open(dir.path(), small_config(), unclean(1));
    assert_eq!(report.quarantined.len(), 1);
    for bytes in &sent {
        log.replay(bytes, 0).unwrap();
    }
    log.finish_replay(0).unwrap();
    assert!(log.quarantined().is_empty());
    assert_eq!((log.epoch_for_offset(0), log.epoch_for_offset(1)), (Some(0), Some(7)));
}
