//! What decoding costs in memory: honest requests fit into the budget, and no bytes whatever make a decoder allocate more.

#![allow(unsafe_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use common::{MESSAGES, Random, damage, samples};
use taccola_base::limits::{DECODE_BUDGET_FACTOR, DECODE_BUDGET_FLOOR};
use taccola_wire::codec::{DecodeError, Message, Reader};
use taccola_wire::messages::*;

/// Counts the bytes of this thread that are allocated, and their peak.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory in bytes that `work` had allocated at a time.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let value = work();
    (value, usize::try_from(PEAK.get()).unwrap())
}

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
