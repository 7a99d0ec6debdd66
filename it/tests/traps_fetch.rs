//! Compatibility traps of Fetch, ListOffsets and DeleteRecords.

use std::time::{Duration, Instant};

use taccola_it::conn::Conn;
use taccola_it::requests::{
    FETCH, batch, fetch, fetch_request, list_offset, new_topic, now_ms, produced, read_all, records_of,
};
use taccola_it::{Broker, eventually};
use taccola_wire::api::ApiKey;
use taccola_wire::batch::{BatchBuilder, Compression, batches};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::{DeleteRecordsRequest, DeleteTopicsRequest, FetchResponse, ListOffsetsRequest};

fn started(topic: &str) -> (Broker, Conn) {
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, topic, 1, &[]);
    (broker, conn)
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

/// Low watermark and error.
fn delete_records(conn: &mut Conn, topic: &str, offset: i64) -> (i64, ErrorCode) {
    let partition = DeleteRecordsPartition { partition_index: 0, offset };
    let topic = DeleteRecordsTopic { name: topic.to_owned(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 };
    let row = conn.ask(&request, 2).topics[0].partitions[0].clone();
    (row.low_watermark, code(row.error_code))
}

/// Kafka up to 3.x answered UNSUPPORTED_COMPRESSION_TYPE; 4.3.1, asked the same, sends what it stored, and so do we.
#[test]
fn trap_28_zstd_to_fetch_before_10_is_what_the_release_sends() {
    let (_broker, mut conn) = started("t");
    new_topic(&mut conn, "zstd", 1, &[("compression.type", "zstd")]);
    produced(&mut conn, "zstd", 0, batch(&["v"]));
    for version in [9, 10] {
        let row = conn.ask(&fetch_request("zstd", 0, 0), version).responses[0].partitions[0].clone();
        assert_eq!(row.error_code, 0, "v{version}");
        assert_eq!(records_of(&row, 0).len(), 1, "v{version}");
    }
}

#[test]
fn trap_30_an_offset_inside_a_batch_returns_the_whole_batch() {
    let (_broker, mut conn) = started("t");
    for codec in [Compression::None, Compression::Lz4, Compression::Gzip] {
        let mut builder = BatchBuilder::new(codec);
        for i in 0..7i64 {
            builder.append(now_ms(), None, Some(&i.to_be_bytes()), &[]);
        }
        produced(&mut conn, "t", 0, builder.build().unwrap());
    }
    for offset in 0..21 {
        let data = fetch(&mut conn, "t", 0, offset);
        let first = batches(&data.records.clone().unwrap()).next().unwrap().unwrap().header.base_offset;
        assert_eq!(first, offset / 7 * 7);
        let offsets: Vec<i64> = records_of(&data, offset).iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (offset..21).collect::<Vec<_>>());
    }
}

#[test]
fn trap_31_the_first_batch_comes_however_large() {
    let (_broker, mut conn) = started("t");
    let large = "x".repeat(300_000);
    produced(&mut conn, "t", 0, batch(&[&large]));
    produced(&mut conn, "t", 0, batch(&["small"]));
    for (total, partition) in [(1, 1), (1, 1 << 20), (1 << 20, 1), (0, 0)] {
        let mut request = fetch_request("t", 0, 0);
        request.max_bytes = total;
        request.topics[0].partitions[0].partition_max_bytes = partition;
        for version in [4, 12] {
            let reply = conn.ask(&request, version);
            let records = records_of(&reply.responses[0].partitions[0], 0);
            assert_eq!(
                records.first().map(|record| record.value.as_ref().unwrap().len()),
                Some(large.len()),
                "{total}"
            );
        }
    }
}

#[test]
fn trap_32_limits_per_partition_and_in_total() {
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).unwrap();
    new_topic(&mut conn, "t", 3, &[]);
    let value = "x".repeat(10_000);
    for partition in 0..3 {
        for _ in 0..10 {
            produced(&mut conn, "t", partition, batch(&[&value]));
        }
    }
    let mut request = fetch_request("t", 0, 0);
    let row = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..3)
        .map(|partition| {
            let mut row = row.clone();
            (row.partition, row.partition_max_bytes) = (partition, 25_000);
            row
        })
        .collect();
    let sizes = |reply: &FetchResponse| -> Vec<usize> {
        let rows = reply.responses.iter().flat_map(|topic| &topic.partitions);
        rows.map(|row| row.records.as_ref().map_or(0, bytes::Bytes::len)).collect()
    };
    let reply = conn.ask(&request, FETCH);
    assert!(sizes(&reply).iter().all(|size| (20_000..=25_000).contains(size)), "{:?}", sizes(&reply));
    for row in &reply.responses[0].partitions {
        // A batch may be cut off, but only behind a whole one.
        assert!(batches(row.records.as_ref().unwrap()).next().unwrap().is_ok());
    }
    request.max_bytes = 30_000;
    let reply = conn.ask(&request, FETCH);
    let total: usize = sizes(&reply).iter().sum();
    assert!(total <= 30_000, "{:?}", sizes(&reply));
    assert!(sizes(&reply)[0] >= 20_000, "the first in order is served first: {:?}", sizes(&reply));
}

#[test]
fn trap_33_a_long_poll_wakes_at_an_append_and_at_an_error() {
    let (broker, mut conn) = started("t");
    let mut request = fetch_request("t", 0, 0);
    (request.max_wait_ms, request.min_bytes) = (20_000, 1);
    let id = conn.send(&request, FETCH).unwrap();
    let mut other = Conn::connect(broker.port).unwrap();
    // The fetch waits for sure once a later request of another connection was served.
    list_offset(&mut other, "t", 0, -1);
    let begun = Instant::now();
    produced(&mut other, "t", 0, batch(&["wake"]));
    let reply: FetchResponse = conn.reply(ApiKey::Fetch, FETCH, id).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(records_of(&reply.responses[0].partitions[0], 0).len(), 1);
    // An error does not wait.
    let begun = Instant::now();
    let mut request = fetch_request("t", 5, 0);
    (request.max_wait_ms, request.min_bytes) = (20_000, 1);
    let reply = conn.ask(&request, FETCH);
    assert_eq!(code(reply.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    assert!(begun.elapsed() < Duration::from_secs(10));
    // Nothing comes: the wait is kept, more or less.
    let begun = Instant::now();
    let mut request = fetch_request("t", 0, 1);
    (request.max_wait_ms, request.min_bytes) = (300, 1);
    let reply = conn.ask(&request, FETCH);
    assert_eq!(reply.responses[0].partitions[0].error_code, 0);
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    // Too little is there: the wait goes on until enough is.
    let mut request = fetch_request("t", 0, 0);
    (request.max_wait_ms, request.min_bytes) = (20_000, 5_000);
    let id = conn.send(&request, FETCH).unwrap();
    produced(&mut other, "t", 0, batch(&["little"]));
    produced(&mut other, "t", 0, batch(&[&"x".repeat(6_000)]));
    let reply: FetchResponse = conn.reply(ApiKey::Fetch, FETCH, id).unwrap();
    assert_eq!(records_of(&reply.responses[0].partitions[0], 0).len(), 3);
}

#[test]
fn trap_34_the_end_is_empty_and_beyond_is_out_of_range() {
    let (_broker, mut conn) = started("t");
    assert_eq!(fetch(&mut conn, "t", 0, 0).error_code, 0, "an empty log has an end, too");
    produced(&mut conn, "t", 0, batch(&["a", "b", "c"]));
    let end = fetch(&mut conn, "t", 0, 3);
    assert_eq!((end.error_code, end.high_watermark, end.log_start_offset), (0, 3, 0));
    assert!(end.records.unwrap_or_default().is_empty());
    for offset in [4, i64::MAX, -1] {
        assert_eq!(code(fetch(&mut conn, "t", 0, offset).error_code), ErrorCode::OffsetOutOfRange, "{offset}");
    }
    assert_eq!(delete_records(&mut conn, "t", 2), (2, ErrorCode::None));
    assert_eq!(code(fetch(&mut conn, "t", 0, 1).error_code), ErrorCode::OffsetOutOfRange);
    assert_eq!(fetch(&mut conn, "t", 0, 2).log_start_offset, 2);
}

#[test]
fn trap_35_sessions_on_the_wire() {
    let (_broker, mut conn) = started("t");
    let mut request = fetch_request("t", 0, 0);
    request.session_epoch = 0;
    let full = conn.ask(&request, FETCH);
    assert_ne!(full.session_id, 0);
    assert_eq!(full.responses.len(), 1, "a full fetch names every partition");
    request.session_id = full.session_id;
    request.topics.clear();
    request.session_epoch = 1;
    assert!(conn.ask(&request, FETCH).responses.is_empty(), "nothing changed");
    produced(&mut conn, "t", 0, batch(&["v"]));
    request.session_epoch = 2;
    assert_eq!(conn.ask(&request, FETCH).responses.len(), 1, "what changed");
    assert_eq!(code(conn.ask(&request, FETCH).error_code), ErrorCode::InvalidFetchSessionEpoch);
    request.session_id = i32::MAX - 5;
    assert_eq!(code(conn.ask(&request, FETCH).error_code), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn trap_36_a_topic_made_anew_is_another_one() {
    let (_broker, mut conn) = started("t");
    let by_id = |conn: &mut Conn, id, version: i16| {
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].topic_id = id;
        request.topics[0].topic.clear();
        conn.ask(&request, version).responses[0].partitions[0].error_code
    };
    let old = new_topic(&mut conn, "again", 1, &[]);
    assert_eq!(by_id(&mut conn, old, 13), 0);
    let topic = DeleteTopicState { name: Some("again".to_owned()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(conn.ask(&request, 6).responses[0].error_code, 0);
    let new = new_topic(&mut conn, "again", 1, &[]);
    assert_ne!(old, new);
    for version in 13..=18 {
        assert_eq!(code(by_id(&mut conn, old, version)), ErrorCode::UnknownTopicId, "v{version}");
        assert_eq!(by_id(&mut conn, new, version), 0, "v{version}");
    }
}

#[test]
fn trap_37_aborted_transactions_are_null_without_read_committed() {
    let (_broker, mut conn) = started("t");
    produced(&mut conn, "t", 0, batch(&["v"]));
    for (isolation, null) in [(0, true), (1, false)] {
        let mut request = fetch_request("t", 0, 0);
        request.isolation_level = isolation;
        for version in 4..=12 {
            let row = conn.ask(&request, version).responses[0].partitions[0].clone();
            assert_eq!(row.aborted_transactions.is_none(), null, "v{version} isolation {isolation}");
            // Trap 38: without an open transaction the stable offset is the high watermark.
            assert_eq!((row.last_stable_offset, row.high_watermark), (1, 1), "v{version}");
        }
        request.topics[0].partitions[0].fetch_offset = 9;
        let row = conn.ask(&request, 12).responses[0].partitions[0].clone();
        assert_eq!((code(row.error_code), row.aborted_transactions), (ErrorCode::OffsetOutOfRange, None));
    }
}

#[test]
fn trap_43_list_offsets_by_time_and_by_the_special_timestamps() {
    let (_broker, mut conn) = started("t");
    let now = now_ms();
    assert_eq!(list_offset(&mut conn, "t", 0, -1), (0, 0, -1), "an empty log");
    assert_eq!(list_offset(&mut conn, "t", 0, -3), (0, -1, -1), "no greatest timestamp");
    for times in [[100, 200, 300], [250, 400, 350]] {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        for time in times {
            builder.append(now + time, None, Some(b"v"), &[]);
        }
        produced(&mut conn, "t", 0, builder.build().unwrap());
    }
    assert_eq!(list_offset(&mut conn, "t", 0, -1), (0, 6, -1), "latest");
    assert_eq!(list_offset(&mut conn, "t", 0, -2), (0, 0, -1), "earliest");
    assert_eq!(list_offset(&mut conn, "t", 0, -3), (0, 4, now + 400), "greatest timestamp");
    assert_eq!(list_offset(&mut conn, "t", 0, -4), (0, 0, -1), "earliest local");
    assert_eq!(list_offset(&mut conn, "t", 0, -5), (0, -1, -1), "latest tiered: there is none");
    for (asked, offset, time) in
        [(0, 0, 100), (100, 0, 100), (101, 1, 200), (300, 2, 300), (301, 4, 400), (400, 4, 400)]
    {
        assert_eq!(list_offset(&mut conn, "t", 0, now + asked), (0, offset, now + time), "at {asked}");
    }
    assert_eq!(list_offset(&mut conn, "t", 0, now + 401), (0, -1, -1), "none is no error");
    // After a trim nothing below the start is found (RPi 18282).
    delete_records(&mut conn, "t", 2);
    assert_eq!(list_offset(&mut conn, "t", 0, -2).1, 2);
    assert_eq!(list_offset(&mut conn, "t", 0, now), (0, 2, now + 300));
    assert_eq!(code(list_offset(&mut conn, "t", 7, -1).0), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn trap_43_list_offsets_names_the_leader_epoch() {
    let (_broker, mut conn) = started("t");
    produced(&mut conn, "t", 0, batch(&["v"]));
    // Trap 44: read_committed and read_uncommitted agree without transactions.
    for isolation_level in [0, 1] {
        let mut request = ListOffsetsRequest { replica_id: -1, isolation_level, ..Default::default() };
        request.topics = vec![taccola_wire::messages::list_offsets_request::ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![taccola_wire::messages::list_offsets_request::ListOffsetsPartition {
                partition_index: 0,
                current_leader_epoch: 0,
                timestamp: -1,
            }],
        }];
        for version in 4..=10 {
            let row = conn.ask(&request, version).topics[0].partitions[0].clone();
            assert_eq!((row.error_code, row.offset, row.leader_epoch), (0, 1, 0), "v{version}");
        }
        request.topics[0].partitions[0].current_leader_epoch = 9;
        let row = conn.ask(&request, 10).topics[0].partitions[0].clone();
        assert_eq!(code(row.error_code), ErrorCode::UnknownLeaderEpoch);
    }
}

#[test]
fn trap_46_deleted_records_stay_deleted() {
    let (mut broker, mut conn) = started("t");
    for _ in 0..4 {
        produced(&mut conn, "t", 0, batch(&["a", "b"]));
    }
    assert_eq!(delete_records(&mut conn, "t", 3), (3, ErrorCode::None));
    assert_eq!(delete_records(&mut conn, "t", 1), (3, ErrorCode::None), "below the start nothing happens");
    assert_eq!(delete_records(&mut conn, "t", 9).1, ErrorCode::OffsetOutOfRange);
    assert_eq!(read_all(&mut conn, "t", 0, 3).first().map(|record| record.offset), Some(3));
    for crash in [false, true] {
        if crash {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
        conn = Conn::connect(broker.port).unwrap();
        eventually("the partition", || (list_offset(&mut conn, "t", 0, -2).0 == 0).then_some(()));
        assert_eq!(list_offset(&mut conn, "t", 0, -2).1, 3, "crash: {crash}");
    }
    assert_eq!(delete_records(&mut conn, "t", -1), (8, ErrorCode::None), "-1 is the high watermark");
    assert_eq!((list_offset(&mut conn, "t", 0, -2).1, list_offset(&mut conn, "t", 0, -1).1), (8, 8));
    assert_eq!(produced(&mut conn, "t", 0, batch(&["on"])), 8);
    broker.restart();
    conn = Conn::connect(broker.port).unwrap();
    assert_eq!((list_offset(&mut conn, "t", 0, -2).1, list_offset(&mut conn, "t", 0, -1).1), (8, 9));
}
