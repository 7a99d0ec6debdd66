//! What Kafka's cleaner made of a log, this one makes of it too: the same batches with the same records, in the same
//! segments. Sizes and checksums may differ, as codecs do, and so may the moment of the delete horizon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_wire::batch::{Attributes, BatchHeader, Record, RecordIter, batches};

use super::tests::{LIMITS, clean};
use crate::config::LogConfig;
use crate::partition_log::{OpenHints, PartitionLog};
use crate::shared::LogShared;

/// Behind every horizon that Kafka wrote.
const LATER_MS: i64 = 4_000_000_000_000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/compaction-4.3.1").join(name)
}

/// A batch without its size, its checksum, and the moment of its horizon.
#[derive(Debug, PartialEq)]
struct Kept {
    base_offset: i64,
    last_offset: i64,
    leader_epoch: i32,
    attributes: Attributes,
    producer: (i64, i16, i32),
    max_timestamp: i64,
    records: Vec<Record>,
}

fn kept(segment: &Bytes) -> Vec<Kept> {
    let of = |header: BatchHeader, batch: Bytes| Kept {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        leader_epoch: header.partition_leader_epoch,
        attributes: header.attributes,
        producer: (header.producer_id, header.producer_epoch, header.base_sequence),
        max_timestamp: header.max_timestamp,
        records: RecordIter::new(&batch).unwrap().map(Result::unwrap).collect(),
    };
    let batches = batches(segment).map(Result::unwrap);
    batches.map(|batch| of(batch.header, segment.slice_ref(batch.bytes))).collect()
}

/// The segments of a folder, by name.
fn segments(dir: &Path) -> Vec<(String, Vec<Kept>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, kept(&Bytes::from(std::fs::read(&path).unwrap()))));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Cleans a copy of `before` from where the round before ended, and compares.
fn cleans_like_kafka(before: &str, after: &str, cleaned_to: Option<i64>) {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("c-0");
    std::fs::create_dir(&part).unwrap();
    for entry in std::fs::read_dir(fixture(before)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), part.join(entry.file_name())).unwrap();
    }
    let config = LogConfig {
        cleanup_delete: false,
        cleanup_compact: true,
        min_cleanable_dirty_ratio: 0.01,
        delete_retention_ms: 1_000,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    let hints = OpenHints { compacted: true, ..OpenHints::default() };
    let tp = TopicPartition::new("c", 0);
    let (mut log, _) =
        PartitionLog::open(dir.path(), tp, None, Arc::new(config), LogShared::new(64), hints, LATER_MS).unwrap();
    log.set_high_watermark(log.log_end_offset());
    clean(&mut log, cleaned_to, LATER_MS, LIMITS, usize::MAX).expect("there is something to clean");
    let (ours, kafkas) = (segments(&part), segments(&fixture(after)));
    assert_eq!(
        ours.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        kafkas.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    for ((name, ours), (_, kafkas)) in ours.iter().zip(&kafkas) {
        for (ours, kafkas) in ours.iter().zip(kafkas) {
            assert_eq!(ours, kafkas, "{name}");
        }
        assert_eq!(ours.len(), kafkas.len(), "batches of {name}");
    }
}

#[test]
fn the_first_round_of_a_log() {
    cleans_like_kafka("first-before", "first-after", None);
}

#[test]
fn the_next_round_behind_the_horizons_of_the_first() {
    cleans_like_kafka("second-before", "second-after", Some(413));
}
