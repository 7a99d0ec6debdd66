//! The log as a whole: what its test modules share.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use taccola_base::{TopicPartition, Uuid};
use taccola_wire::batch::{
    BatchBuilder, BatchHeader, Compression, ControlRecord, RecordIter, batches, end_txn_marker, verify_crc,
};

use super::*;
use crate::error::{AppendError, ReadError};

mod basic;
mod crash_points;
mod damage;
mod faults;
mod model;
mod relocate;

const CLIENT: AppendOrigin = AppendOrigin::Client;

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn small_config() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 150, file_delete_delay_ms: 0, ..LogConfig::default() }
}

fn records(count: usize, value_bytes: usize, timestamp: i64) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None);
    for i in 0..count {
        builder.append(timestamp + i as i64, Some(format!("k{i}").as_bytes()), Some(&vec![b'v'; value_bytes]), &[]);
    }
    builder
}

fn build(builder: BatchBuilder) -> BytesMut {
    BytesMut::from(builder.build().unwrap().as_ref())
}

fn batch(count: usize, value_bytes: usize, timestamp: i64) -> BytesMut {
    build(records(count, value_bytes, timestamp))
}

fn producer_batch(count: usize, id: i64, epoch: i16, sequence: i32, transactional: bool) -> BytesMut {
    build(records(count, 10, 1000).producer(id, epoch, sequence).transactional(transactional))
}

fn marker(id: i64, epoch: i16, commit: bool, coordinator_epoch: i32) -> BytesMut {
    let record =
        if commit { ControlRecord::Commit { coordinator_epoch } } else { ControlRecord::Abort { coordinator_epoch } };
    BytesMut::from(end_txn_marker(2000, id, epoch, &record).unwrap().as_ref())
}

fn at(now_ms: i64) -> AppendContext {
    AppendContext { origin: CLIENT, leader_epoch: 0, now_ms }
}

fn coordinator(transaction_version: i16) -> AppendContext {
    AppendContext { origin: AppendOrigin::Coordinator { transaction_version }, leader_epoch: 0, now_ms: 0 }
}

fn create(dir: &Path, config: LogConfig) -> PartitionLog {
    let mut log = unborn(dir, config);
    log.make_folder().unwrap();
    log
}

fn unborn(dir: &Path, config: LogConfig) -> PartitionLog {
    PartitionLog::create(dir, tp(), Some(Uuid::from_u128(77)), Arc::new(config), LogShared::new(64)).unwrap()
}

fn open(dir: &Path, config: LogConfig, hints: OpenHints) -> (PartitionLog, RecoveryReport) {
    PartitionLog::open(dir, tp(), Some(Uuid::from_u128(77)), Arc::new(config), LogShared::new(64), hints, 0).unwrap()
}

fn clean(recovery_point: i64) -> OpenHints {
    OpenHints { recovery_point, clean: true, ..OpenHints::default() }
}

fn unclean(recovery_point: i64) -> OpenHints {
    OpenHints { recovery_point, ..OpenHints::default() }
}

fn read(log: &PartitionLog, offset: i64, max_bytes: usize) -> Result<Bytes, ReadError> {
    log.read(offset, max_bytes, i64::MAX, true)?.read()
}

/// `(base offset, last offset)` of each batch, all checksums right.
fn ranges(bytes: &[u8]) -> Vec<(i64, i64)> {
    let ranges = batches(bytes).map(|batch| {
        let batch = batch.unwrap();
        verify_crc(batch.bytes).unwrap();
        (batch.header.base_offset, batch.header.last_offset())
    });
    ranges.collect()
}

fn all(log: &PartitionLog) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let bytes = read(log, offset, 400).unwrap();
        let part = ranges(&bytes);
        offset = part.last().unwrap().1 + 1;
        found.extend(part);
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("t-0")).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_appended_lately_needs_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    assert!(log.read(0, 1000, 0, true).unwrap().is_cached(), "nothing to read");
    for _ in 0..4 {
        log.append(&mut batch(1, 700_000, 1), at(1)).unwrap();
    }
    let end = log.log_end_offset();
    assert!(log.read(3, 1 << 20, end, true).unwrap().is_cached());
    let first = log.read(0, 1 << 20, end, true).unwrap();
    // Probed; whatever the probe says, the read gives the records.
    let _ = first.is_cached();
    assert_eq!(ranges(&first.read().unwrap()), [(0, 0)]);
}
