//! Directories that a JVM Kafka wrote: opened after a clean stop they show what Kafka showed, and recovered without any
//! derived file they yield the same derived files, byte for byte.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_log::{AbortedTxn, LogConfig, LogShared, OpenHints, PartitionLog, RecoveryReport, TimestampQuery, log_dir};
use taccola_wire::batch::{batches, verify_crc};

const NOW_MS: i64 = 1_795_229_100_000;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kafka-4.3.1")
}

fn copy_of_fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
        let path = entry.unwrap().path();
        let target = dir.path().join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            for file in std::fs::read_dir(&path).unwrap() {
                let file = file.unwrap().path();
                std::fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
            }
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
    dir
}

fn config(topic: &str) -> LogConfig {
    let index_interval_bytes = match topic {
        "seg" => 0,
        "mix" => 150,
        _ => 4096,
    };
    LogConfig { index_interval_bytes, producer_id_expiration_ms: i64::MAX, ..LogConfig::default() }
}

fn open(dir: &Path, topic: &str, hints: OpenHints) -> (PartitionLog, RecoveryReport) {
    let tp = TopicPartition::new(topic, 0);
    PartitionLog::open(dir, tp, None, Arc::new(config(topic)), LogShared::new(16), hints, NOW_MS).unwrap()
}

fn hints(dir: &Path, topic: &str, clean: bool) -> OpenHints {
    let points = log_dir::read_offsets(dir, log_dir::RECOVERY_POINT_CHECKPOINT).unwrap();
    assert_eq!(points.damaged, None);
    let recovery_point = points.offsets[&TopicPartition::new(topic, 0)];
    OpenHints { recovery_point: if clean { recovery_point } else { 0 }, clean, ..OpenHints::default() }
}

/// The `.log` files' content as a reader gets it.
fn content(log: &PartitionLog) -> Vec<u8> {
    let mut all = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let bytes = log.read(offset, 100, i64::MAX, true).unwrap().read().unwrap();
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            verify_crc(batch.bytes).unwrap();
            offset = batch.header.next_offset();
        }
        all.extend_from_slice(&bytes);
    }
    all
}

fn files(dir: &Path, suffixes: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| suffixes.iter().any(|suffix| path.extension().is_some_and(|e| e == *suffix)));
    wanted.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn the_directory_scans_and_was_stopped_cleanly() {
    let dir = copy_of_fixture();
    let found = log_dir::scan(dir.path(), "none").unwrap();
    let names: Vec<_> = found.partitions.iter().map(|p| p.topic_partition.to_string()).collect();
    assert_eq!(names, ["fix-0", "mix-0", "seg-0", "txn-0"]);
    assert!(found.partitions.iter().all(|p| p.topic_id.is_some()));
    assert_eq!(log_dir::take_clean_shutdown(dir.path()).unwrap(), Some(12));
}

#[test]
fn clean_and_recovered_logs_show_the_same_as_kafka() {
    // The node was started again behind the records of the first two: their last epoch has none.
    for (topic, start, end, epoch) in [("fix", 0, 51, 2), ("txn", 0, 35, 2), ("seg", 0, 17, 0), ("mix", 9, 18, 0)] {
        let mut expected = Vec::new();
        for (_, bytes) in files(&fixture().join(format!("{topic}-0")), &["log"]) {
            expected.extend_from_slice(&bytes);
        }
        for clean in [true, false] {
            let dir = copy_of_fixture();
            let (mut log, report) = open(dir.path(), topic, hints(dir.path(), topic, clean));
            assert_eq!((log.log_start_offset(), log.log_end_offset()), (start, end), "{topic}");
            assert_eq!(log.latest_leader_epoch(), Some(if clean { epoch } else { 0 }));
            assert_eq!(log.epoch_end_offset(0).end_offset, end);
            assert_eq!((report.quarantined.len(), report.truncated_bytes, report.notes.len()), (0, 0, 0), "{report:?}");
            assert_eq!(content(&log), expected, "{topic}");
            log.set_high_watermark(end);
            let unstable = if topic == "seg" { 14 } else { end };
            assert_eq!(log.last_stable_offset(), unstable, "{topic}");
        }
    }
}

#[test]
fn producers_and_aborted_transactions_are_kafkas() {
    for clean in [true, false] {
        let dir = copy_of_fixture();
        let (log, _) = open(dir.path(), "seg", hints(dir.path(), "seg", clean));
        let rows: Vec<_> = log
            .producers()
            .into_iter()
            .map(|p| {
                let txn = p.current_txn_start_offset;
                (p.producer_id, p.producer_epoch, p.last_sequence, p.last_timestamp_ms, p.coordinator_epoch, txn)
            })
            .collect();
        let expected = [
            (1001, 7, -1, 1_795_229_015_488, 2, -1),
            (1002, 2, 0, 1_700_000_000_300, -1, 14),
            (1003, 0, 5, 1_700_000_000_050, -1, -1),
        ];
        assert_eq!(rows, expected);
        let aborted = log.aborted_txns(0, 17).unwrap();
        let txn = |first_offset, last_offset, last_stable_offset| AbortedTxn {
            producer_id: 1001,
            first_offset,
            last_offset,
            last_stable_offset,
        };
        assert_eq!(aborted, [txn(6, 9, 10), txn(15, 16, 14)]);
        let at = |timestamp| log.offset_for_timestamp(TimestampQuery::At(timestamp)).unwrap().map(|found| found.offset);
        assert_eq!(at(1_700_000_000_000), Some(0));
        assert_eq!(at(1_700_000_000_041), Some(5));
        assert_eq!(at(1_700_000_000_102), Some(8));
        assert_eq!(at(1_795_229_015_489), None);
    }
}

#[test]
fn recovery_makes_the_same_files_as_kafka() {
    for topic in ["fix", "txn", "seg", "mix"] {
        let dir = copy_of_fixture();
        let partition = dir.path().join(format!("{topic}-0"));
        let derived = ["index", "timeindex", "txnindex"];
        let expected = files(&partition, &derived);
        for name in expected.keys() {
            std::fs::remove_file(partition.join(name)).unwrap();
        }
        std::fs::remove_file(partition.join("leader-epoch-checkpoint")).unwrap();
        // Of a transaction whose beginning was removed only the snapshot still knows.
        for name in files(&partition, &["snapshot"]).keys().filter(|_| topic != "mix") {
            std::fs::remove_file(partition.join(name)).unwrap();
        }
        let (mut log, _) = open(dir.path(), topic, hints(dir.path(), topic, false));
        log.set_high_watermark(i64::MAX);
        log.close(NOW_MS).unwrap();
        assert_eq!(files(&partition, &derived), expected, "{topic}");
        assert!(partition.join("leader-epoch-checkpoint").exists());
    }
}
