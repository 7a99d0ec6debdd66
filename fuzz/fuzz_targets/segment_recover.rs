//! A partition's folder with arbitrary bytes in its `.log` and in one derived file, opened, read through, written to,
//! stopped and opened again. Every offset is a batch with a right checksum, or named as damaged; what was readable stays
//! so; nothing panics.
//!
//! Input: flags (bit 0 clean stop, 1 compacted topic, 2 repair lengths and checksums of the log's batches, 3 check all, 4..7
//! the derived file), recovery point, length of the log's part (u16), the log's bytes, the derived file's bytes.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use taccola_base::TopicPartition;
use taccola_log::{
    AppendContext, AppendOrigin, LogConfig, LogError, LogShared, OpenHints, PartitionLog, ReadError, TimestampQuery,
};
use taccola_wire::batch::{self, BatchBuilder, Compression};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    base.join(format!("taccola-fuzz-{}", std::process::id()))
});

const DERIVED: [&str; 6] = [
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    "00000000000000000005.snapshot",
    "leader-epoch-checkpoint",
    "taccola.quarantine",
];

/// Makes the walk get further: each batch in turn gets magic 2, a length that fits, and the right checksum.
fn repair(log: &mut [u8]) {
    let mut at = 0;
    while log.len() - at >= batch::HEADER_BYTES {
        let rest = &mut log[at..];
        let room = rest.len() - batch::LOG_OVERHEAD;
        let length = i32::from_be_bytes(rest[8..12].try_into().expect("four bytes")).unsigned_abs() as usize % 200;
        let length = (length + 49).min(room);
        rest[..6].fill(0);
        rest[8..12].copy_from_slice(&(length as i32).to_be_bytes());
        rest[16] = 2;
        if let Ok(crc) = batch::computed_crc(rest) {
            rest[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        at += batch::LOG_OVERHEAD + length;
    }
}

fn open(compact: bool, hints: OpenHints) -> Option<PartitionLog> {
    let config = LogConfig { index_interval_bytes: 100, cleanup_compact: compact, ..LogConfig::default() };
    let opened =
        PartitionLog::open(&DIR, TopicPartition::new("f", 0), None, Arc::new(config), LogShared::new(4), hints, 0);
    match opened {
        Ok((log, _)) => Some(log),
        Err(LogError::BadFile { .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// What a reader gets: the batches' bytes and the damaged ranges.
fn walk(log: &PartitionLog) -> (Vec<u8>, Vec<(i64, i64)>) {
    let (mut bytes, mut damaged) = (Vec::new(), Vec::new());
    let mut offset = log.log_start_offset();
    for _ in 0..10_000 {
        if offset >= log.log_end_offset() {
            return (bytes, damaged);
        }
        match log.read(offset, 1, i64::MAX, true).and_then(|slice| slice.read()) {
            Ok(read) => {
                assert!(!read.is_empty(), "nothing at {offset}");
                let header = batch::verify_crc(&read).expect("a right checksum");
                assert!(header.last_offset() >= offset);
                offset = header.next_offset();
                bytes.extend_from_slice(&read);
            }
            Err(ReadError::CorruptRecord { first, next_valid, .. }) => {
                assert!(first <= offset && offset < next_valid, "{first}..{next_valid} for {offset}");
                damaged.push((offset, next_valid));
                offset = next_valid;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("no end");
}

fuzz_target!(|data: &[u8]| {
    let [flags, point, high, low, rest @ ..] = data else { return };
    let split = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (log_bytes, derived) = rest.split_at(split);
    let mut log_bytes = log_bytes.to_vec();
    if flags & 4 != 0 {
        repair(&mut log_bytes);
    }
    let dir = DIR.join("f-0");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("00000000000000000000.log"), &log_bytes).expect("a log");
    if let Some(name) = DERIVED.get(usize::from(flags >> 4)) {
        std::fs::write(dir.join(name), derived).expect("a derived file");
    }
    let compact = flags & 2 != 0;
    let (recovery_point, clean, check_all) = (i64::from(*point), flags & 1 != 0, flags & 8 != 0);
    let hints = OpenHints { recovery_point, compacted: compact, check_all, clean, ..OpenHints::default() };
    let Some(mut log) = open(compact, hints) else { return };
    log.set_high_watermark(i64::MAX);
    walk(&log);
    let _ = (log.producers(), log.last_stable_offset(), log.aborted_txns(0, i64::MAX), log.epoch_for_offset(3));
    for query in [TimestampQuery::At(0), TimestampQuery::MaxTimestamp, TimestampQuery::Earliest] {
        let _ = log.offset_for_timestamp(query);
    }
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1, None, Some(b"new"), &[]);
    let mut new = BytesMut::from(&builder.build().expect("a batch")[..]);
    let context = AppendContext { origin: AppendOrigin::Client, leader_epoch: 1, now_ms: 1 };
    let appended = log.append(&mut new, context).expect("an append");
    assert_eq!(appended.last_offset + 1, log.log_end_offset());
    let before = walk(&log);
    let end = log.log_end_offset();
    let start = log.log_start_offset();
    let point = log.close(2).expect("a clean stop");
    assert_eq!(point, end);
    let hints = OpenHints {
        recovery_point: point,
        log_start_offset: start,
        compacted: compact,
        clean: true,
        ..OpenHints::default()
    };
    let log = open(compact, hints).expect("what was closed opens");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (start, end));
    assert_eq!(walk(&log), before);
});
