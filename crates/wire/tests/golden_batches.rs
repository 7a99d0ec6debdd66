//! Batches made by Kafka's own classes, read by ours, and ours for Kafka's to read.
//!
//! `testdata/batch/golden.txt` comes from `xtask/golden/BatchGolden.java write`, which also states the format.
//! With `TACCOLA_GOLDEN_OUT=FILE`, the same records are written by our builder to FILE in that format, for
//! `BatchGolden.java check FILE`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: helpers outside #[test] may fail it")]

use std::fmt::Write;

use bytes::Bytes;
use taccola_wire::batch::{
    BatchBuilder, BatchHeader, Compression, ControlRecord, ControlType, NO_TIMESTAMP, RecordIter, TimestampType,
    end_txn_marker, verify_crc,
};

const GOLDEN: &str = include_str!("../testdata/batch/golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect::<Vec<_>>().into()
}

fn field(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "-".into(),
        Some([]) => ".".into(),
        Some(b) if b.len() <= 64 => hex(b),
        Some(b) => format!("#{}:{:x}", b.len(), crc_fast::crc32_iscsi(b)),
    }
}

fn describe(batch: &Bytes) -> String {
    let h = verify_crc(batch).unwrap();
    let mut out = format!(
        "h {} {} {} {} {} {} {} {} {}\n",
        h.base_offset,
        h.last_offset(),
        h.partition_leader_epoch,
        h.attributes.0,
        h.max_timestamp,
        h.producer_id,
        h.producer_epoch,
        h.base_sequence,
        h.records_count
    );
    for r in RecordIter::new(batch).unwrap() {
        let r = r.unwrap();
        write!(out, "r {} {} {} {}", r.offset, r.timestamp, field(r.key.as_deref()), field(r.value.as_deref()))
            .unwrap();
        for h in &r.headers {
            write!(out, " {}={}", field(Some(&h.key)), field(h.value.as_deref())).unwrap();
        }
        out.push('\n');
    }
    out
}

/// Name, bytes and description of every golden batch.
fn golden() -> Vec<(String, Bytes, String)> {
    let mut all: Vec<(String, Bytes, String)> = Vec::new();
    for line in GOLDEN.lines() {
        if let Some(rest) = line.strip_prefix("batch ") {
            let (name, bytes) = rest.split_once(' ').unwrap();
            all.push((name.into(), unhex(bytes), String::new()));
        } else {
            let (_, _, description) = all.last_mut().unwrap();
            description.push_str(line);
            description.push('\n');
        }
    }
    all
}

fn named(name: &str) -> Bytes {
    golden().into_iter().find(|(n, ..)| n == name).unwrap().1
}

#[test]
fn kafkas_batches_read_the_same() {
    let all = golden();
    assert_eq!(all.len(), 19);
    for (name, batch, expected) in all {
        assert_eq!(describe(&batch), expected, "{name}");
    }
}

/// The same batch by our builder.
fn rebuilt(batch: &Bytes) -> Bytes {
    let h = BatchHeader::parse(batch).unwrap();
    let mut b = BatchBuilder::new(h.compression().unwrap())
        .base_offset(h.base_offset)
        .partition_leader_epoch(h.partition_leader_epoch)
        .producer(h.producer_id, h.producer_epoch, h.base_sequence)
        .transactional(h.is_transactional())
        .control(h.is_control())
        .last_offset_delta(h.last_offset_delta)
        .max_timestamp_if_empty(h.max_timestamp);
    if let Some(at) = h.delete_horizon_ms() {
        b = b.delete_horizon(at);
    }
    if h.timestamp_type() == TimestampType::LogAppendTime {
        b = b.log_append_time(h.max_timestamp);
    }
    for r in RecordIter::new(batch).unwrap() {
        b.append_record(&r.unwrap());
    }
    b.build().unwrap()
}

#[test]
fn our_batches_hold_the_same() {
    let mut ours = String::new();
    for (name, batch, expected) in golden() {
        let again = rebuilt(&batch);
        assert_eq!(describe(&again), expected, "{name}");
        // Codecs differ in how well they compress; LogAppendTime hides the records' own times.
        let h = BatchHeader::parse(&batch).unwrap();
        if h.compression() == Ok(Compression::None) && h.timestamp_type() == TimestampType::CreateTime {
            assert_eq!(hex(&again), hex(&batch), "{name}: byte for byte");
        }
        write!(ours, "batch {name} {}\n{expected}", hex(&again)).unwrap();
    }
    if let Ok(path) = std::env::var("TACCOLA_GOLDEN_OUT") {
        std::fs::write(path, ours).unwrap();
    }
}

#[test]
fn markers_are_kafkas_byte_for_byte() {
    for (name, base, marker) in [
        ("commit", 77, ControlRecord::Commit { coordinator_epoch: 17 }),
        ("abort", 78, ControlRecord::Abort { coordinator_epoch: 18 }),
    ] {
        let theirs = named(name);
        let mut ours = end_txn_marker(1_700_000_000_000, 4_242, 3, &marker).unwrap().to_vec();
        taccola_wire::batch::set_base_offset(&mut ours, base);
        taccola_wire::batch::set_partition_leader_epoch(&mut ours, 5);
        assert_eq!(hex(&ours), hex(&theirs), "{name}");
    }
}

#[test]
fn control_types_are_kafkas() {
    for (name, expected) in [
        ("leader-change", ControlType::LeaderChange),
        ("snapshot-header", ControlType::SnapshotHeader),
        ("snapshot-footer", ControlType::SnapshotFooter),
        ("kraft-version", ControlType::KraftVersion),
        ("voters", ControlType::KraftVoters),
    ] {
        let record = RecordIter::new(&named(name)).unwrap().next().unwrap().unwrap();
        let control = ControlRecord::decode(&record).unwrap();
        assert_eq!(control.control_type(), expected);
        assert_eq!((&control.key()[..], control.value()), (&record.key.unwrap()[..], record.value.unwrap()));
    }
}

#[test]
fn no_timestamp_stays_no_timestamp() {
    assert_eq!(BatchHeader::parse(&named("transactional-no-timestamp")).unwrap().max_timestamp, NO_TIMESTAMP);
}
