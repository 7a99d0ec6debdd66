//! What decoding costs in memory: honest requests fit into the budget, and no bytes whatever make a decoder allocate more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use bytes::Bytes;
use common::{MESSAGES, Random, damage, samples};
use counting::peak;
use taccola_base::limits::{DECODE_BUDGET_FACTOR, DECODE_BUDGET_FLOOR};
use taccola_wire::batch::validate::{Settings, validate};
use taccola_wire::batch::{
    BatchBuilder, BatchHeader, Compression, RecordHeader, RecordIter, RecordWalker, batches, set_last_offset_delta,
};
use taccola_wire::codec::{DecodeError, Message, Reader};
use taccola_wire::compress::{compress, decompress};
use taccola_wire::frame::{decode_request_header, decode_versioned};
use taccola_wire::messages::*;

/// A growing vector exists twice while it moves, at three halves of what it is charged; a frame's first slice allocates a
/// counter of references.
fn allowed(budget: usize) -> usize {
    budget + budget / 2 + 256
}

#[test]
fn no_bytes_make_a_decoder_allocate_more_than_its_budget() {
    let mut random = Random::new(0xb0d6e7);
    for sample in samples().into_iter().filter(|s| !s.bytes.is_empty()) {
        let functions = &MESSAGES[sample.message.as_str()];
        for _ in 0..20 {
            let bytes = Bytes::from(damage(&sample.bytes, &mut random));
            let budget = bytes.len() * 4;
            let mut r = Reader::with_budget(bytes, budget);
            let (result, peak) = peak(|| (functions.read)(&mut r, sample.version).is_ok());
            assert!(peak <= allowed(budget), "{} v{}: {peak} of {budget}", sample.message, sample.version);
            assert!(r.charged() <= budget);
            let _ = result;
        }
    }
}

#[test]
fn a_frame_of_empty_strings_runs_out_of_budget() {
    // A compact array of a million strings of length 0, one byte each on the wire, 24 in memory.
    let mut frame = vec![0xc1, 0x84, 0x3d];
    frame.resize(1_000_003, 1);
    frame.push(0);
    let budget = frame.len() * DECODE_BUDGET_FACTOR + DECODE_BUDGET_FLOOR;
    let mut r = Reader::new(Bytes::from(frame));
    let (result, peak) = peak(|| DeleteGroupsRequest::read(&mut r, 2).map(|_| ()));
    assert_eq!(result, Err(DecodeError::Budget { budget }));
    assert!(peak <= allowed(budget));
}

#[test]
fn a_count_reserves_nothing() {
    let hostile: [(&[u8], i16); 4] = [
        (&[0x7f, 0xff, 0xff, 0xff], 1),
        (&[0, 0, 0, 9, 0, 1, b'a'], 1),
        (&[0xff, 0xff, 0xff, 0xff, 0x07], 9),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], 9),
    ];
    for (bytes, version) in hostile {
        let mut r = Reader::new(Bytes::from_static(bytes));
        let (result, peak) = peak(|| MetadataRequest::read(&mut r, version).is_err());
        assert!(result && peak <= 512, "{bytes:?}: {peak}");
    }
}

fn fits<T: Message>(message: &T) {
    for version in T::MIN_VERSION..=T::MAX_VERSION {
        // Not every version can carry the value; those that can suffice.
        if let Ok(bytes) = message.to_bytes(version) {
            assert_eq!(T::from_bytes(bytes, version).map(|_| ()), Ok(()), "{} v{version}", T::NAME);
        }
    }
}

/// Many small things, which weigh most in memory beside their size on the wire.
#[test]
fn honest_messages_fit() {
    const N: usize = 10_000;
    let name = || "events-1".to_owned();
    fits(&DeleteGroupsRequest { groups_names: vec!["g1".into(); N] });
    let topic = metadata_request::MetadataRequestTopic { name: Some(name()), ..Default::default() };
    fits(&MetadataRequest { topics: Some(vec![topic; N]), ..Default::default() });
    for (topics, partitions) in [(N, 1), (1, N)] {
        let one = produce_request::TopicProduceData {
            name: name(),
            partition_data: vec![Default::default(); partitions],
            ..Default::default()
        };
        fits(&ProduceRequest { topic_data: vec![one; topics], ..Default::default() });
        let one = fetch_request::FetchTopic {
            topic: name(),
            partitions: vec![Default::default(); partitions],
            ..Default::default()
        };
        fits(&FetchRequest { topics: vec![one; topics], ..Default::default() });
        let one = fetch_response::FetchableTopicResponse {
            topic: name(),
            partitions: vec![Default::default(); partitions],
            ..Default::default()
        };
        fits(&FetchResponse { responses: vec![one; topics], ..Default::default() });
        let one = offset_commit_request::OffsetCommitRequestTopic {
            name: name(),
            partitions: vec![Default::default(); partitions],
            ..Default::default()
        };
        fits(&OffsetCommitRequest { topics: vec![one; topics], ..Default::default() });
    }
    let config =
        describe_configs_response::DescribeConfigsResourceResult { name: "a.b.c.d".into(), ..Default::default() };
    let result = describe_configs_response::DescribeConfigsResult { configs: vec![config; 150], ..Default::default() };
    fits(&DescribeConfigsResponse { results: vec![result; 100], ..Default::default() });
}

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// What a codec holds beside its input and output: windows and blocks of its own.
const CODEC_BYTES: usize = 2 << 20;

/// A batch of `n` records of which every one is as small as can be, or has headers.
fn batch_of(codec: Compression, n: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for i in 0..n {
        let header = |key: &'static [u8], value| RecordHeader { key: Bytes::from_static(key), value };
        let headers = [header(b"h", Some(Bytes::from_static(b"v"))), header(b"", None)];
        builder.append(i, None, Some(b"value"), if i % 3 == 0 { &headers } else { &[] });
    }
    builder.build().expect("a batch")
}

/// Length and checksum are right again, so that damage reaches the records.
fn repaired(mut batch: Vec<u8>) -> Bytes {
    batch.resize(batch.len().max(61), 0);
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let header = BatchHeader::parse_whole(&batch).expect("repaired");
    set_last_offset_delta(&mut batch, header.last_offset_delta).expect("repaired");
    batch.into()
}

#[test]
fn walking_a_batch_allocates_one_record_at_a_time_beside_what_is_unpacked() {
    const MAX_OUT: usize = 64 * 1024;
    let mut random = Random::new(0xba7c4);
    for codec in CODECS {
        let whole = batch_of(codec, 200);
        for round in 0..150 {
            let bytes = if round == 0 { whole.clone() } else { repaired(damage(&whole, &mut random)) };
            // A header is a row of 72 bytes at most, and takes two bytes at least.
            let allowed = CODEC_BYTES + MAX_OUT * 2 + 36 * (MAX_OUT + bytes.len());
            let (_, used) = peak(|| {
                if let Ok(records) = RecordIter::with_max_out(&bytes, MAX_OUT) {
                    let _ = records.take_while(Result::is_ok).count();
                }
            });
            assert!(used <= allowed, "{codec:?}, records: {used} of {allowed}");
            let allowed = CODEC_BYTES + MAX_OUT * 2;
            let (_, used) = peak(|| {
                let Ok(mut walker) = RecordWalker::new(&bytes, MAX_OUT) else { return };
                while let Some(Ok(_)) = walker.next_record() {}
            });
            assert!(used <= allowed, "{codec:?}, walked: {used} of {allowed}");
            let (_, used) = peak(|| batches(&bytes).flatten().count());
            assert_eq!(used, 0, "{codec:?}: headers");
            let settings = Settings { verify_records: true, max_message_bytes: 1 << 20, ..Settings::new(0) };
            let (_, used) = peak(|| validate(bytes.clone(), &settings).is_ok());
            assert!(used <= allowed + 2 * bytes.len(), "{codec:?}, validated: {used}");
        }
    }
}

#[test]
fn a_bomb_is_unpacked_no_further_than_allowed() {
    const MAX_OUT: usize = 100_000;
    for codec in CODECS.into_iter().filter(|codec| *codec != Compression::None) {
        let mut bomb = Vec::new();
        compress(codec.into(), &vec![0; 64 << 20], &mut bomb).expect("compressed");
        let (unpacked, used) = peak(|| decompress(codec, &bomb, MAX_OUT).map(drop));
        assert!(unpacked.is_err(), "{codec:?}");
        assert!(used <= 2 * MAX_OUT + CODEC_BYTES, "{codec:?}: {used}");
    }
}

#[test]
fn headers_of_frames_and_versioned_records_keep_to_the_budget() {
    let mut random = Random::new(0x4ead);
    for size in [4, 8, 10, 14, 40, 400, 4_000] {
        for _ in 0..300 {
            let mut frame = damage(&vec![0; size], &mut random);
            // Any of the keys, any of their versions.
            if frame.len() >= 4 {
                frame[1] %= 95;
                frame[3] %= 20;
                (frame[0], frame[2]) = (0, 0);
            }
            let frame = Bytes::from(frame);
            let budget = frame.len() * DECODE_BUDGET_FACTOR + DECODE_BUDGET_FLOOR;
            let (_, used) = peak(|| decode_request_header(frame.clone()).is_ok());
            assert!(used <= allowed(budget), "{frame:?}: {used}");
            let (_, used) = peak(|| decode_versioned::<OffsetCommitValue>(frame.clone(), true).is_ok());
            assert!(used <= allowed(budget), "{frame:?}: {used}");
        }
    }
}
