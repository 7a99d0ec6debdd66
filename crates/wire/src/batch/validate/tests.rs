//! Each case's answer is what a running Kafka 4.3.1 gave to the same bytes, except where a comment says otherwise.

use super::super::{RecordHeader, RecordIter, batches, set_base_offset, set_last_offset_delta};
use super::*;

const NOW: i64 = 1_795_227_405_255;
const HOUR: i64 = 3_600_000;

fn settings() -> Settings {
    Settings::new(NOW)
}

fn built(codec: Compression, timestamps: &[i64]) -> BytesMut {
    let mut b = BatchBuilder::new(codec);
    for t in timestamps {
        b.append(*t, Some(b"k"), Some(b"v"), &[RecordHeader::new("h", None)]);
    }
    BytesMut::from(&b.build().unwrap()[..])
}

fn plain() -> BytesMut {
    built(Compression::None, &[NOW, NOW])
}

/// Writes `field` at `at` and makes the CRC right again.
fn patched<const N: usize>(mut batch: BytesMut, at: usize, field: [u8; N]) -> BytesMut {
    batch[at..at + N].copy_from_slice(&field);
    let h = BatchHeader::parse(&batch);
    if let Ok(h) = h {
        set_last_offset_delta(&mut batch, h.last_offset_delta).ok();
    }
    batch
}

fn code(records: &[u8], settings: &Settings) -> i16 {
    validate(Bytes::copy_from_slice(records), settings).err().map_or(0, |e| e.code.code())
}

fn with_attributes(batch: BytesMut, bits: i16) -> BytesMut {
    patched(batch, 21, bits.to_be_bytes())
}

#[test]
fn a_usual_batch_is_kept_in_place() {
    for codec in Compression::ALL {
        let batch = built(codec, &[NOW - 5, NOW]).freeze();
        let address = batch.as_ptr();
        let verdict = inspect(&batch, &settings()).unwrap();
        assert_eq!(verdict.change, Change::Keep);
        let copy = batch.to_vec();
        let v = validate(batch, &settings()).unwrap();
        assert_eq!((v.max_timestamp, v.log_append_time), (NOW, None));
        assert_eq!(v.records, copy);
        assert_eq!(v.records.as_ptr(), address, "unshared bytes are not copied");
    }
}

#[test]
fn there_must_be_one_whole_batch_of_format_v2() {
    let ok = plain();
    let s = settings();
    for cut in [0, 11, 16, ok.len() - 1] {
        assert_eq!(code(&ok[..cut], &s), 87, "{cut} bytes");
    }
    for length in [13, 14, 48, 0, -1] {
        let bad = patched(ok.clone(), 8, i32::to_be_bytes(length));
        assert_eq!(code(&bad, &s), 2, "length {length}");
    }
    for (magic, expected) in [(0, 87), (1, 87), (3, 2), (-1, 2)] {
        assert_eq!(code(&patched(ok.clone(), 16, i8::to_be_bytes(magic)), &s), expected, "magic {magic}");
    }
    let with = |tail: &[u8]| [&ok[..], tail].concat();
    assert_eq!(code(&with(&ok), &s), 87);
    assert_eq!(code(&with(&patched(ok.clone(), 16, [9])), &s), 2);
    assert_eq!(code(&with(&[0; 12]), &s), 2);
    for tail in [&ok[..70.min(ok.len() - 1)], &[0; 5], b"\0\0\0\0\0\0\0\0\0\0\0\x64\x07\x07\x07\x07"] {
        let v = validate(with(tail).into(), &s).unwrap();
        assert_eq!(v.records, ok, "a partial second batch is dropped");
    }
}

#[test]
fn headers_of_clients_are_checked() {
    let s = settings();
    let mut bad_crc = plain();
    bad_crc[20] ^= 1;
    assert_eq!(code(&bad_crc, &s), 2);
    set_base_offset(&mut bad_crc, 5);
    assert_eq!(code(&bad_crc, &s), 87, "the base offset is judged before the CRC");
    let case = |count: i32, last: i32| {
        let batch = patched(plain(), 57, count.to_be_bytes());
        code(&patched(batch, 23, last.to_be_bytes()), &s)
    };
    for (count, last) in [(0, 1), (3, 1), (2, 5), (-1, -2), (0, -1), (0, 0), (i32::MIN, i32::MAX)] {
        assert_eq!(case(count, last), 87, "count {count}, last offset delta {last}");
    }
    assert_eq!(code(&with_attributes(plain(), 0x20), &s), 87, "control batch");
    let producer = |id, epoch, sequence| {
        let mut b = BatchBuilder::new(Compression::None).producer(id, epoch, sequence);
        b.append(NOW, None, None, &[]);
        code(&b.build().unwrap(), &s)
    };
    assert_eq!((producer(4, 0, -1), producer(4, 0, 0), producer(-5, -1, -1)), (87, 0, 0));
    for unknown_bits in [0x40, 0x80] {
        assert_eq!(code(&with_attributes(plain(), unknown_bits), &s), 0);
    }
}

#[test]
fn codecs() {
    let s = settings();
    for id in 5..8 {
        // Kafka answers UNKNOWN_SERVER_ERROR.
        assert_eq!(code(&with_attributes(plain(), id), &s), 76);
    }
    let zstd = built(Compression::Zstd, &[NOW]);
    assert_eq!((code(&zstd, &s), code(&zstd, &Settings { zstd_allowed: false, ..s.clone() })), (0, 76));
    let verify = Settings { verify_records: true, ..s };
    for id in 1..5 {
        // Kafka answers UNKNOWN_SERVER_ERROR.
        assert_ne!(code(&with_attributes(plain(), id), &verify), 0, "garbage for codec {id}");
    }
}

#[test]
fn sizes_are_limited_before_and_after_recompression() {
    let mut b = BatchBuilder::new(Compression::Gzip);
    b.append(NOW, None, Some(&[b'v'; 5000]), &[]);
    let batch = b.build().unwrap();
    let exact = Settings { max_message_bytes: batch.len(), ..settings() };
    assert_eq!(code(&batch, &exact), 0);
    assert_eq!(code(&batch, &Settings { max_message_bytes: batch.len() - 1, ..settings() }), 10);
    let inflated = Settings { target: TargetCompression::Codec(Compression::None.into()), ..exact };
    assert_eq!(code(&batch, &inflated), 10);
}

#[test]
fn log_append_time_stamps_without_a_walk() {
    let s = Settings { timestamp_type: TimestampType::LogAppendTime, ..settings() };
    for codec in Compression::ALL {
        let v = validate(built(codec, &[NOW + 2 * HOUR, 5]).freeze(), &s).unwrap();
        assert_eq!((v.log_append_time, v.max_timestamp, v.header.max_timestamp), (Some(NOW), NOW, NOW));
        assert_eq!(v.header.timestamp_type(), TimestampType::LogAppendTime);
        verify_crc(&v.records).unwrap();
        assert!(RecordIter::new(&v.records.freeze()).unwrap().all(|r| r.unwrap().timestamp == NOW));
    }
    let e = validate(with_attributes(plain(), 8).freeze(), &s).unwrap_err();
    assert_eq!((e.code, e.record_errors.len()), (ErrorCode::InvalidTimestamp, 2));
}

#[test]
fn a_clients_log_append_time_bit_is_cleared() {
    let v = validate(with_attributes(plain(), 8).freeze(), &settings()).unwrap();
    assert_eq!((v.header.timestamp_type(), v.header.max_timestamp), (TimestampType::CreateTime, NOW));
    verify_crc(&v.records).unwrap();
    let e = validate(with_attributes(built(Compression::None, &[-1, -1]), 8).freeze(), &settings()).unwrap_err();
    assert_eq!((e.code, e.record_errors.len()), (ErrorCode::InvalidTimestamp, 2));
    assert_eq!(code(&built(Compression::None, &[-1, -1]), &settings()), 0);
}

#[test]
fn timestamps_lie_in_the_window() {
    let s = settings();
    let indexes = |timestamps: &[i64], s: &Settings| match validate(built(Compression::Lz4, timestamps).freeze(), s) {
        Ok(_) => vec![],
        Err(e) => {
            assert_eq!(e.code, ErrorCode::InvalidTimestamp);
            e.record_errors.iter().map(|(i, _)| *i).collect()
        }
    };
    assert_eq!(indexes(&[NOW, NOW + HOUR], &s), [0; 0]);
    assert_eq!(indexes(&[NOW, NOW + HOUR + 1, 0, i64::MAX - 1], &s), [1, 3]);
    let before = Settings { before_max_ms: 60_000, ..settings() };
    assert_eq!(indexes(&[NOW - 60_000, NOW - 60_001, -1, 0], &before), [1, 3]);
    let none = Settings { after_max_ms: i64::MAX, ..settings() };
    assert_eq!(indexes(&[i64::MAX, 0], &none), [0; 0]);

    // A header that claims a time that no record has is put right.
    let v = validate(patched(plain(), 35, (NOW + 2 * HOUR).to_be_bytes()).freeze(), &s).unwrap();
    assert_eq!((v.max_timestamp, v.header.max_timestamp), (NOW, NOW));
    verify_crc(&v.records).unwrap();
}

#[test]
fn compacted_topics_need_keys() {
    let s = Settings { compacted: true, ..settings() };
    let mut b = BatchBuilder::new(Compression::Snappy);
    b.append(NOW, None, Some(b"v"), &[]).append(NOW, Some(b""), None, &[]).append(NOW, None, None, &[]);
    let batch = b.build().unwrap();
    let e = validate(batch.clone(), &s).unwrap_err();
    assert_eq!(e.code, ErrorCode::InvalidRecord);
    assert_eq!(e.record_errors.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(code(&batch, &settings()), 0);

    let mut b = BatchBuilder::new(Compression::None);
    b.append(NOW, None, None, &[]).append(NOW + 2 * HOUR, Some(b"k"), None, &[]);
    let e = validate(b.build().unwrap(), &s).unwrap_err();
    assert_eq!((e.code, e.record_errors.len()), (ErrorCode::InvalidTimestamp, 2), "the time decides the code");

    let mut many = BatchBuilder::new(Compression::Zstd);
    for _ in 0..5_000 {
        many.append(NOW, None, None, &[]);
    }
    let e = validate(many.build().unwrap(), &s).unwrap_err();
    assert_eq!(e.record_errors.len(), RECORD_ERRORS_MAX);
}

#[test]
fn another_codec_rebuilds_the_batch() {
    for source in Compression::ALL {
        for target in Compression::ALL.into_iter().filter(|t| *t != source) {
            let mut b = BatchBuilder::new(source).producer(7, 1, 9).transactional(true);
            b.append(NOW, Some(b"k"), None, &[RecordHeader::new("a", None), RecordHeader::new("a", None)]);
            b.append(NOW - 9, None, Some(b""), &[]);
            let original = b.build().unwrap();
            let s = Settings { target: TargetCompression::Codec(target.into()), ..settings() };
            let v = validate(original.clone(), &s).unwrap();
            let h = verify_crc(&v.records).unwrap();
            assert_eq!((h, h.compression().unwrap()), (v.header, target));
            assert_eq!((h.producer_id, h.producer_epoch, h.base_sequence, h.is_transactional()), (7, 1, 9, true));
            let read = |b: &Bytes| RecordIter::new(b).unwrap().map(Result::unwrap).collect::<Vec<_>>();
            assert_eq!(read(&v.records.freeze()), read(&original), "{source} to {target}");
        }
    }
}

/// Two records whose offset deltas are 3 and 9, under a header that says 0 and 1.
fn out_of_order(codec: Compression) -> BytesMut {
    let mut b = BatchBuilder::new(codec);
    b.append_at(3, NOW, None, None, &[]).append_at(9, NOW, None, None, &[]);
    patched(BytesMut::from(&b.build().unwrap()[..]), 23, 1i32.to_be_bytes())
}

#[test]
fn what_only_a_walk_shows() {
    let s = settings();
    let verify = Settings { verify_records: true, ..settings() };
    assert_eq!(code(&out_of_order(Compression::None), &s), 0);
    assert_eq!(code(&out_of_order(Compression::None), &Settings { before_max_ms: HOUR, ..settings() }), 0);
    assert_eq!(code(&out_of_order(Compression::None), &verify), 87);
    assert_eq!(code(&out_of_order(Compression::Gzip), &Settings { before_max_ms: HOUR, ..settings() }), 87);
    let to_none = Settings { target: TargetCompression::Codec(Compression::None.into()), ..settings() };
    let v = validate(out_of_order(Compression::Gzip).freeze(), &to_none).unwrap();
    let offsets: Vec<i64> = RecordIter::new(&v.records.freeze()).unwrap().map(|r| r.unwrap().offset).collect();
    assert_eq!(offsets, [0, 1], "a rebuilt batch gets its offsets anew");

    for codec in Compression::ALL {
        let three = built(codec, &[NOW; 3]);
        for count in [2i32, 4] {
            let batch = patched(three.clone(), 57, count.to_be_bytes());
            let batch = patched(batch, 23, (count - 1).to_be_bytes());
            // Kafka always walks: 87.
            assert_eq!(code(&batch, &s), 0);
            assert_eq!(code(&batch, &verify), 87, "{codec}, {count} of 3");
            assert_eq!(code(&batch, &Settings { compacted: true, ..settings() }), 87);
        }
    }
    let mut headers = BatchBuilder::new(Compression::None);
    headers.append(NOW, None, None, &vec![RecordHeader::new("h", None); RECORD_HEADERS_MAX + 1]);
    let batch = headers.build().unwrap();
    assert_eq!((code(&batch, &s), code(&batch, &verify)), (0, 87));
}

#[test]
fn coordinators_write_control_batches_to_compacted_topics() {
    let marker = super::super::end_txn_marker(NOW, 4, 1, &super::super::ControlRecord::Abort { coordinator_epoch: 2 });
    let mut marker = BytesMut::from(&marker.unwrap()[..]);
    set_base_offset(&mut marker, 1_234);
    let s = Settings {
        origin: Origin::Coordinator,
        compacted: true,
        target: TargetCompression::Codec(Compression::Lz4.into()),
        ..settings()
    };
    let v = validate(marker.clone().freeze(), &s).unwrap();
    assert_eq!(v.records, marker);
    assert_eq!(code(&marker, &settings()), 87);
}

#[test]
fn write_to_appends_the_batch_alone() {
    let s = Settings { timestamp_type: TimestampType::LogAppendTime, ..settings() };
    let records = [&plain()[..], b"cut off"].concat();
    let mut out = BytesMut::from(&plain()[..]);
    inspect(&records, &s).unwrap().write_to(&records, &mut out);
    let all: Vec<_> = batches(&out).map(|b| verify_crc(b.unwrap().bytes).unwrap().max_timestamp).collect();
    assert_eq!(all, [NOW, NOW]);
    assert_eq!(out.len(), 2 * plain().len());
}
