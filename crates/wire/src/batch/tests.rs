//! Round trips, patchers, bounds and damage, over every codec.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::compress::{Codec, compress, decompress};

fn header(key: &'static str, value: Option<&'static [u8]>) -> RecordHeader {
    RecordHeader::new(key, value.map(Bytes::from_static))
}

fn sample(codec: Compression) -> Bytes {
    let mut b = BatchBuilder::new(codec).base_offset(100).partition_leader_epoch(7).producer(9, 3, 40);
    b.append(1_000, Some(b"k"), Some(b"v"), &[header("h", Some(b"1")), header("h", None), header("", Some(b""))]);
    b.append(999, None, Some(b""), &[]);
    b.append(1_001, Some(b""), None, &[]);
    b.build().unwrap()
}

#[test]
fn crc_is_castagnoli() {
    assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
}

#[test]
fn fields_and_records_survive_every_codec() {
    for codec in Compression::ALL {
        let batch = sample(codec);
        let h = verify_crc(&batch).unwrap();
        assert_eq!((h.base_offset, h.last_offset(), h.next_offset()), (100, 102, 103));
        assert_eq!((h.partition_leader_epoch, h.magic, h.records_count, h.last_offset_delta), (7, 2, 3, 2));
        assert_eq!((h.producer_id, h.producer_epoch, h.base_sequence, h.last_sequence()), (9, 3, 40, 42));
        assert_eq!((h.base_timestamp, h.max_timestamp, h.timestamp_type()), (1_000, 1_001, TimestampType::CreateTime));
        assert_eq!((h.compression().unwrap(), h.size_bytes()), (codec, batch.len()));
        let records: Vec<Record> = RecordIter::new(&batch).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            records.iter().map(|r| (r.offset, r.timestamp)).collect::<Vec<_>>(),
            [(100, 1_000), (101, 999), (102, 1_001)]
        );
        assert_eq!(records[0].headers, [header("h", Some(b"1")), header("h", None), header("", Some(b""))]);
        assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (None, Some(&b""[..])));
        assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (Some(&b""[..]), None));
    }
}

#[test]
fn sequences_wrap_behind_the_largest() {
    let mut b = BatchBuilder::new(Compression::None).producer(1, 0, i32::MAX - 1);
    for _ in 0..4 {
        b.append(0, None, None, &[]);
    }
    assert_eq!(BatchHeader::parse(&b.build().unwrap()).unwrap().last_sequence(), 1);
}

#[test]
fn patchers_keep_the_crc_right() {
    let mut batch = BytesMut::from(&sample(Compression::Lz4)[..]);
    set_base_offset(&mut batch, i64::MAX - 2);
    set_partition_leader_epoch(&mut batch, 12);
    let h = verify_crc(&batch).unwrap();
    assert_eq!(
        (h.base_offset, h.partition_leader_epoch, h.last_offset(), h.next_offset()),
        (i64::MAX - 2, 12, i64::MAX, i64::MAX)
    );
    set_max_timestamp(&mut batch, TimestampType::LogAppendTime, 5_000).unwrap();
    assert_eq!(verify_crc(&batch).unwrap().max_timestamp, 5_000);
    let batch = batch.freeze();
    assert!(RecordIter::new(&batch).unwrap().all(|r| r.unwrap().timestamp == 5_000));
    let mut short = [0u8; 20];
    set_base_offset(&mut short, -1);
    assert_eq!(short, [0u8; 20]);
}

#[test]
fn walks_concatenated_batches_up_to_a_partial_tail() {
    let one = sample(Compression::None);
    let run = [&one[..], &one[..], &one[..30]].concat();
    let mut it = batches(&run);
    let positions: Vec<usize> = it.by_ref().map(|b| b.unwrap().position).collect();
    assert_eq!(positions, [0, one.len()]);
    assert_eq!(it.tail(), &one[..30]);
    assert_eq!(batches(&[]).count(), 0);

    let mut bad = run.clone();
    bad[one.len() + 16] = 1;
    let mut it = batches(&bad);
    assert!(it.next().unwrap().is_ok());
    assert_eq!(it.next().unwrap().unwrap_err(), BatchError::BadMagic(1));
    assert!(it.next().is_none());
    assert_eq!(it.position(), one.len());

    let mut short = one[..20].to_vec();
    short[8..12].copy_from_slice(&48i32.to_be_bytes());
    assert_eq!(batches(&short).next().unwrap().unwrap_err(), BatchError::BadLength(48));
}

#[test]
fn emptied_batches_and_gaps() {
    let empty = BatchBuilder::new(Compression::Zstd).base_offset(5).last_offset_delta(9).max_timestamp_if_empty(77);
    let batch = empty.build().unwrap();
    let h = verify_crc(&batch).unwrap();
    assert_eq!((h.last_offset(), h.records_count, h.max_timestamp, batch.len()), (14, 0, 77, HEADER_BYTES));
    assert_eq!(RecordIter::new(&batch).unwrap().count(), 0);

    let mut gaps = BatchBuilder::new(Compression::Gzip).base_offset(10).last_offset_delta(9).delete_horizon(500);
    gaps.append_at(3, 400, None, None, &[]).append_at(7, 600, None, None, &[]);
    let batch = gaps.build().unwrap();
    assert_eq!(BatchHeader::parse(&batch).unwrap().delete_horizon_ms(), Some(500));
    let got: Vec<_> = RecordIter::new(&batch).unwrap().map(|r| r.map(|r| (r.offset, r.timestamp)).unwrap()).collect();
    assert_eq!(got, [(13, 400), (17, 600)]);
}

#[test]
fn builder_reports_what_does_not_fit() {
    assert!(BatchBuilder::new(Compression::None).build().is_err());
    let mut back = BatchBuilder::new(Compression::None);
    back.append_at(4, 0, None, None, &[]).append_at(4, 0, None, None, &[]);
    assert!(back.build().is_err());
    let mut before = BatchBuilder::new(Compression::None).last_offset_delta(1);
    before.append_at(2, 0, None, None, &[]);
    assert!(before.build().is_err());
    let mut far = BatchBuilder::new(Compression::None);
    far.append(i64::MIN, None, None, &[]).append(i64::MAX, None, None, &[]);
    assert!(far.build().is_err());
}

#[test]
fn control_records_round_trip() {
    let marker = ControlRecord::Commit { coordinator_epoch: 17 };
    let batch = end_txn_marker(1_234, 55, 2, &marker).unwrap();
    let h = verify_crc(&batch).unwrap();
    assert!(h.is_control() && h.is_transactional() && h.has_producer_id());
    assert_eq!((h.base_sequence, h.last_sequence(), h.records_count), (NO_SEQUENCE, NO_SEQUENCE, 1));
    let record = RecordIter::new(&batch).unwrap().next().unwrap().unwrap();
    assert_eq!(ControlRecord::decode(&record).unwrap(), marker);
    for id in -1..9 {
        let t = ControlType::from_id(id);
        assert_eq!((t.id(), ControlType::from_key(&t.key()).unwrap()), (id, t));
    }
    assert!(ControlType::from_key(&[0, 0, 0]).is_err());
    assert!(ControlType::from_key(&[0xff, 0xff, 0, 0]).is_err());
}

#[test]
fn a_record_count_that_is_wrong_is_noticed() {
    for codec in Compression::ALL {
        for (count, expected) in [(2, 2), (4, 3), (-1, 0)] {
            let mut batch = BytesMut::from(&sample(codec)[..]);
            batch[57..61].copy_from_slice(&i32::to_be_bytes(count));
            let batch = batch.freeze();
            let Ok(mut it) = RecordIter::new(&batch) else {
                assert_eq!(count, -1);
                continue;
            };
            assert_eq!(it.by_ref().take_while(Result::is_ok).count(), expected, "{codec} {count}");
            assert!(it.next().is_none());
            let mut walker = RecordWalker::new(&batch, 1 << 20).unwrap();
            let mut seen = 0;
            let failed = loop {
                match walker.next_record() {
                    Some(Ok(_)) => seen += 1,
                    Some(Err(_)) => break true,
                    None => break false,
                }
            };
            assert_eq!((seen, failed), (expected, true), "{codec} {count}");
        }
    }
}

/// A batch whose one record's value is `len` zeros.
fn bomb(codec: Compression, len: usize) -> Bytes {
    let mut b = BatchBuilder::new(codec);
    b.append(0, None, Some(&vec![0u8; len]), &[]);
    b.build().unwrap()
}

#[test]
fn bombs_end_at_the_bound() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let batch = bomb(codec, 8 << 20);
        let limit = 1 << 20;
        let got = RecordIter::with_max_out(&batch, limit).unwrap().next().unwrap();
        assert_eq!(got.unwrap_err(), BatchError::TooLarge { limit }, "{codec}");
        let compressed = &batch[HEADER_BYTES..];
        assert_eq!(decompress(codec, compressed, limit).unwrap_err(), BatchError::TooLarge { limit }, "{codec}");
        // Exactly as much as there is passes, one byte less does not.
        let whole = decompress(codec, compressed, usize::MAX >> 1).unwrap().len();
        assert_eq!(decompress(codec, compressed, whole).unwrap().len(), whole, "{codec}");
        assert!(decompress(codec, compressed, whole - 1).is_err(), "{codec}");
    }
    // A kilobyte of zstd that yields far more than the ratio allows.
    let batch = bomb(Compression::Zstd, 64 << 20);
    assert!(matches!(RecordIter::new(&batch).unwrap().next(), Some(Err(BatchError::TooLarge { .. }))));
}

#[test]
fn snappy_block_that_claims_much_reserves_nothing() {
    // A bare block: length 2³²-1, then one literal byte.
    let claims = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61];
    assert!(matches!(decompress(Compression::Snappy, &claims, usize::MAX), Err(BatchError::Decompress { .. })));
}

#[test]
fn snappy_reads_what_snappy_java_reads() {
    let plain = vec![7u8; 100_000];
    let mut framed = Vec::new();
    compress(Compression::Snappy.into(), &plain, &mut framed).unwrap();
    assert!(framed.starts_with(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"));
    let twice = [&framed[..], &framed[..]].concat();
    assert_eq!(decompress(Compression::Snappy, &twice, 200_000).unwrap(), [&plain[..], &plain[..]].concat());
    let bare = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(decompress(Compression::Snappy, &bare, 100_000).unwrap(), plain);
}

#[test]
fn lz4_reads_other_frames_and_writes_kafkas() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let plain: Vec<u8> = (0..400_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    for (mode, size) in [(BlockMode::Linked, BlockSize::Max256KB), (BlockMode::Independent, BlockSize::Max4MB)] {
        let info = FrameInfo::new()
            .block_mode(mode)
            .block_size(size)
            .content_checksum(true)
            .block_checksums(true)
            .content_size(Some(plain.len() as u64));
        let mut w = FrameEncoder::with_frame_info(info, Vec::new());
        std::io::Write::write_all(&mut w, &plain).unwrap();
        let framed = w.finish().unwrap();
        assert_eq!(decompress(Compression::Lz4, &framed, plain.len()).unwrap(), plain);
    }
    let mut ours = Vec::new();
    compress(Compression::Lz4.into(), &plain, &mut ours).unwrap();
    // Version 1, independent blocks, no checksums; 64 KiB blocks.
    assert_eq!(ours[..6], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40]);
    assert!(decompress(Compression::Lz4, b"\x02\x21\x4c\x18rest", 10).is_err());
}

#[test]
fn gzip_and_zstd_streams_may_be_concatenated() {
    for codec in [Compression::Gzip, Compression::Zstd] {
        let mut two = Vec::new();
        compress(codec.into(), b"one", &mut two).unwrap();
        compress(codec.into(), b"two", &mut two).unwrap();
        assert_eq!(decompress(codec, &two, 6).unwrap(), b"onetwo");
    }
}

#[test]
fn levels_of_every_codec_decode() {
    let plain: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    for (compression, levels) in [
        (Compression::Gzip, vec![-1, 1, 9, 99]),
        (Compression::Lz4, vec![1, 9, 17]),
        (Compression::Zstd, vec![-131_072, -1, 1, 22]),
    ] {
        for level in levels {
            let mut out = Vec::new();
            compress(Codec { compression, level: Some(level) }, &plain, &mut out).unwrap();
            assert_eq!(decompress(compression, &out, plain.len()).unwrap(), plain, "{compression} {level}");
        }
    }
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

type RawRecord = (u8, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn any_records() -> impl Strategy<Value = Vec<RawRecord>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let headers = prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::option::of(bytes())), 0..4);
    let record = (1u8..5, -1i64..1 << 50, prop::option::of(bytes()), prop::option::of(bytes()), headers);
    prop::collection::vec(record, 1..40)
}

fn built(codec: Compression, base: i64, raw: &[RawRecord]) -> (Bytes, Vec<Record>) {
    let mut expected = Vec::new();
    let mut offset = base - 1;
    for (gap, timestamp, key, value, headers) in raw {
        offset += i64::from(*gap);
        expected.push(Record {
            offset,
            timestamp: *timestamp,
            key: key.clone().map(Bytes::from),
            value: value.clone().map(Bytes::from),
            headers: headers.iter().map(|(k, v)| RecordHeader::new(k.clone(), v.clone().map(Bytes::from))).collect(),
        });
    }
    let mut b = BatchBuilder::new(codec).base_offset(base);
    for r in &expected {
        b.append_record(r);
    }
    (b.build().unwrap(), expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_built_is_read(codec in any_codec(), base in 0i64..1 << 60, raw in any_records()) {
        let (batch, expected) = built(codec, base, &raw);
        let h = verify_crc(&batch).unwrap();
        prop_assert_eq!(h.records_count as usize, expected.len());
        prop_assert_eq!(h.last_offset(), expected.last().unwrap().offset);
        prop_assert_eq!(h.max_timestamp, expected.iter().map(|r| r.timestamp).max().unwrap());
        // Naive: fields at their documented places.
        prop_assert_eq!(&batch[0..8], base.to_be_bytes());
        prop_assert_eq!(&batch[8..12], (batch.len() as i32 - 12).to_be_bytes());
        prop_assert_eq!(&batch[27..35], expected[0].timestamp.to_be_bytes());
        let got: Vec<Record> = RecordIter::new(&batch).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&got, &expected);
        let mut walker = RecordWalker::new(&batch, 1 << 24).unwrap();
        for r in &expected {
            let h = *walker.header();
            let v = walker.next_record().unwrap().unwrap();
            prop_assert_eq!((v.offset(&h), v.timestamp(&h)), (r.offset, r.timestamp));
            prop_assert_eq!((v.key, v.value), (r.key.as_deref(), r.value.as_deref()));
            prop_assert_eq!(v.headers().count(), r.headers.len());
        }
        prop_assert!(walker.next_record().is_none());
    }

    #[test]
    fn a_flipped_bit_is_caught(codec in any_codec(), raw in any_records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (batch, _) = built(codec, 0, &raw);
        let mut damaged = batch.to_vec();
        let at = 16 + at.index(batch.len() - 16);
        damaged[at] ^= 1 << bit;
        prop_assert!(verify_crc(&damaged).is_err(), "byte {} bit {}", at, bit);
    }

    #[test]
    fn damaged_batches_end_in_an_error_or_in_order(
        codec in any_codec(),
        raw in any_records(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (batch, _) = built(codec, 0, &raw);
        let mut damaged = batch.to_vec();
        for (at, with) in flips {
            let at = at.index(damaged.len());
            damaged[at] = with;
        }
        damaged.truncate(cut.index(damaged.len() + 1));
        let damaged = Bytes::from(damaged);
        for b in batches(&damaged).flatten() {
            let whole = Bytes::copy_from_slice(b.bytes);
            if let Ok(it) = RecordIter::new(&whole) {
                let _ = it.take(100_000).count();
            }
        }
    }
}
