//! Compatibility traps of Produce and InitProducerId.

use bytes::{Bytes, BytesMut};
use taccola_it::Broker;
use taccola_it::conn::Conn;
use taccola_it::requests::{
    self, PRODUCE, batch, fetch, init_producer, list_offset, new_topic, now_ms, produce, produce_request, produced,
    read_all,
};
use taccola_wire::api::ApiKey;
use taccola_wire::batch::{BatchBuilder, BatchHeader, Compression, RecordHeader, TimestampType, verify_crc};
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{MetadataRequest, MetadataResponse, ProduceResponse};

fn connect(broker: &Broker) -> Conn {
    Conn::connect(broker.port).expect("the broker accepts")
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

#[test]
fn trap_20_acks_0_has_no_response_and_an_error_closes() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "quiet", 1, &[]);
    for i in 0..10 {
        conn.send(&produce_request(0, "quiet", 0, batch(&[&format!("{i}")])), PRODUCE).unwrap();
    }
    let id = conn.send(&MetadataRequest::default(), 12).unwrap();
    let _: MetadataResponse = conn.reply(ApiKey::Metadata, 12, id).expect("the next reply is the metadata's");
    taccola_it::eventually("ten records", || (list_offset(&mut conn, "quiet", 0, -1).1 == 10).then_some(()));
    conn.send(&produce_request(0, "nowhere", 0, batch(&["x"])), PRODUCE).unwrap();
    assert!(conn.is_closed(), "only a closed connection can tell of the error");
}

#[test]
fn trap_21_offsets_are_the_brokers_and_a_claimed_one_is_refused() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    for at in 0..3 {
        assert_eq!(produced(&mut conn, "t", 0, batch(&["v"])), at);
        // Kafka refuses a batch that does not begin at 0 instead of putting it anywhere else.
        for base in [1, 77, i64::MAX - 9, -5] {
            let mut builder = BatchBuilder::new(Compression::None).base_offset(base);
            builder.append(now_ms(), None, Some(b"v"), &[]);
            let response = produce(&mut conn, "t", 0, builder.build().unwrap());
            assert_eq!(code(response.error_code), ErrorCode::InvalidRecord, "base offset {base}");
        }
    }
    let offsets: Vec<i64> = read_all(&mut conn, "t", 0, 0).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn trap_22_nothing_but_offset_and_leader_epoch_is_rewritten() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["before"]));
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        for i in 0..50 {
            builder.append(now_ms() + i, Some(b"key"), Some(b"value value value"), &[]);
        }
        let sent = builder.build().unwrap();
        let base = produced(&mut conn, "t", 0, sent.clone());
        let got = fetch(&mut conn, "t", 0, base).records.expect("records");
        let header = verify_crc(&got).expect("the checksum holds");
        assert_eq!(header.base_offset, base);
        assert_eq!(header.partition_leader_epoch, 0, "the leader's epoch, not -1");
        assert_eq!(got[8..12], sent[8..12], "{codec:?}: length");
        assert_eq!(got[16..], sent[16..], "{codec:?}: everything from the magic on");
    }
}

#[test]
fn trap_23_a_wrong_checksum_is_refused_and_crc_32_is_wrong() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    let mut bad = BytesMut::from(&batch(&["v"])[..]);
    bad[17] ^= 1;
    assert_eq!(code(produce(&mut conn, "t", 0, bad.freeze()).error_code), ErrorCode::CorruptMessage);
    // The bits of CRC-32 (zlib's polynomial) over the right range.
    let mut zlib = BytesMut::from(&batch(&["v"])[..]);
    let crc = zlib[21..].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    zlib[17..21].copy_from_slice(&(!crc).to_be_bytes());
    assert_eq!(code(produce(&mut conn, "t", 0, zlib.freeze()).error_code), ErrorCode::CorruptMessage);
    assert_eq!(list_offset(&mut conn, "t", 0, -1).1, 0);
}

#[test]
fn trap_24_log_append_time_is_the_brokers_in_every_place() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    for codec in [Compression::None, Compression::Zstd] {
        let before = now_ms();
        let mut builder = BatchBuilder::new(codec);
        builder.append(1_000, None, Some(b"a"), &[]);
        builder.append(2_000, None, Some(b"b"), &[]);
        let response = produce(&mut conn, "t", 0, builder.build().unwrap());
        assert_eq!(response.error_code, 0);
        assert!((before..=now_ms()).contains(&response.log_append_time_ms), "{response:?}");
        let bytes = fetch(&mut conn, "t", 0, response.base_offset).records.unwrap();
        let header = verify_crc(&bytes).expect("the checksum is made anew");
        assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(header.max_timestamp, response.log_append_time_ms);
        for record in read_all(&mut conn, "t", 0, response.base_offset) {
            assert_eq!(record.timestamp, response.log_append_time_ms);
        }
    }
    new_topic(&mut conn, "create", 1, &[]);
    assert_eq!(produce(&mut conn, "create", 0, batch(&["v"])).log_append_time_ms, -1);
}

#[test]
fn trap_25_max_message_bytes_is_enforced() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "small", 1, &[("max.message.bytes", "1000")]);
    new_topic(&mut conn, "usual", 1, &[]);
    let of = |bytes: usize| batch(&[&"x".repeat(bytes)]);
    assert_eq!(code(produce(&mut conn, "small", 0, of(1000)).error_code), ErrorCode::MessageTooLarge);
    assert_eq!(produced(&mut conn, "small", 0, of(900)), 0);
    assert_eq!(code(produce(&mut conn, "usual", 0, of(10 << 20)).error_code), ErrorCode::MessageTooLarge);
    // The default bound (1 MiB and the overhead of a log entry) itself fits.
    let fits = 1_048_588 - batch(&[""]).len() - 6;
    assert_eq!(produced(&mut conn, "usual", 0, of(fits)), 0);
}

#[test]
fn trap_26_records_without_key_on_a_compacted_topic_are_named() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[("cleanup.policy", "compact")]);
    let mut builder = BatchBuilder::new(Compression::None);
    for key in [Some(&b"k"[..]), None, Some(b""), None] {
        builder.append(now_ms(), key, Some(b"v"), &[]);
    }
    let bytes = builder.build().unwrap();
    let response = produce(&mut conn, "t", 0, bytes.clone());
    assert_eq!(code(response.error_code), ErrorCode::InvalidRecord);
    let indices: Vec<i32> = response.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(indices, [1, 3]);
    assert!(response.error_message.is_some(), "{response:?}");
    let request = produce_request(-1, "t", 0, bytes);
    assert_eq!(conn.ask(&request, 7).responses[0].partition_responses[0].error_code, response.error_code);
    assert_eq!(list_offset(&mut conn, "t", 0, -1).1, 0, "nothing of the batch was kept");
}

#[test]
fn trap_27_old_record_formats_are_refused() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    for magic in [0, 1, 3] {
        let mut old = BytesMut::from(&batch(&["v"])[..]);
        old[16] = magic;
        let answer = code(produce(&mut conn, "t", 0, old.freeze()).error_code);
        let clear = [ErrorCode::InvalidRecord, ErrorCode::UnsupportedForMessageFormat, ErrorCode::CorruptMessage];
        assert!(clear.contains(&answer), "magic {magic}: {}", answer.name());
    }
    let none = conn.ask(&produce_request(-1, "t", 0, Bytes::new()), 9);
    assert_eq!(code(none.responses[0].partition_responses[0].error_code), ErrorCode::InvalidRecord, "no batch at all");
    let two: Vec<u8> = [batch(&["a"]), batch(&["b"])].concat();
    let two = produce(&mut conn, "t", 0, two.into());
    assert_eq!(code(two.error_code), ErrorCode::InvalidRecord, "one batch per partition");
    let mut zstd = BatchBuilder::new(Compression::Zstd);
    zstd.append(now_ms(), None, Some(b"v"), &[]);
    let old = conn.ask(&produce_request(-1, "t", 0, zstd.build().unwrap()), 6);
    let answer = code(old.responses[0].partition_responses[0].error_code);
    assert_eq!(answer, ErrorCode::UnsupportedCompressionType, "zstd came with version 7");
    assert_eq!(list_offset(&mut conn, "t", 0, -1).1, 0);
}

#[test]
fn trap_29_snappy_and_lz4_are_framed_as_java_frames_them() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let frames: [(&str, &[u8]); 4] = [
        ("gzip", &[0x1f, 0x8b]),
        ("snappy", b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"),
        ("lz4", &[0x04, 0x22, 0x4d, 0x18]),
        ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ];
    for (codec, magic) in frames {
        // The broker compresses itself here.
        new_topic(&mut conn, codec, 1, &[("compression.type", codec)]);
        let values: Vec<String> = (0..100).map(|i| format!("value {i} {}", "x".repeat(400))).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        produced(&mut conn, codec, 0, batch(&values));
        let bytes = fetch(&mut conn, codec, 0, 0).records.unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_ne!(header.compression().unwrap(), Compression::None, "{codec}");
        assert_eq!(bytes[61..61 + magic.len()], *magic, "{codec}");
        let got = read_all(&mut conn, codec, 0, 0);
        assert!(got.iter().zip(&values).all(|(record, value)| record.value.as_deref() == Some(value.as_bytes())));
        assert_eq!(got.len(), values.len(), "{codec}");
    }
}

#[test]
fn trap_42_null_and_empty_and_headers_come_back_as_sent() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    let header = |key: &'static str, value: Option<&'static [u8]>| {
        RecordHeader::new(Bytes::from_static(key.as_bytes()), value.map(Bytes::from_static))
    };
    let headers = vec![
        header("twice", Some(b"1")),
        header("null", None),
        header("twice", Some(b"2")),
        header("", Some(b"")),
        header("twice", Some(b"1")),
    ];
    for codec in [Compression::None, Compression::Lz4] {
        let mut builder = BatchBuilder::new(codec);
        for key in [None, Some(&b""[..]), Some(b"\0")] {
            for value in [None, Some(&b""[..]), Some(b"v")] {
                builder.append(now_ms(), key, value, &headers);
            }
        }
        let base = produced(&mut conn, "t", 0, builder.build().unwrap());
        let got = read_all(&mut conn, "t", 0, base);
        assert_eq!(got.len(), 9);
        let mut got = got.iter();
        for key in [None, Some(&b""[..]), Some(b"\0")] {
            for value in [None, Some(&b""[..]), Some(b"v")] {
                let record = got.next().unwrap();
                assert_eq!((record.key.as_deref(), record.value.as_deref()), (key, value));
                assert_eq!(record.headers, headers);
            }
        }
    }
}

fn sequenced((id, epoch): (i64, i16), sequence: i32, count: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).producer(id, epoch, sequence);
    for i in 0..count {
        builder.append(now_ms(), None, Some(&i.to_be_bytes()), &[]);
    }
    builder.build().unwrap()
}

#[test]
fn trap_48_sequences_in_a_window_of_five() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 2, &[]);
    let producer = init_producer(&mut conn).unwrap().expect("a producer id");
    for i in 0..7 {
        assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, i * 3, 3)), i64::from(i) * 3);
    }
    // The last five are known with their offsets.
    for i in 2..7 {
        assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, i * 3, 3)), i64::from(i) * 3, "batch {i} again");
    }
    let before = produce(&mut conn, "t", 0, sequenced(producer, 0, 3));
    assert!(
        [ErrorCode::OutOfOrderSequenceNumber, ErrorCode::DuplicateSequenceNumber].contains(&code(before.error_code)),
        "{before:?}"
    );
    let gap = produce(&mut conn, "t", 0, sequenced(producer, 24, 1));
    assert_eq!(code(gap.error_code), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, 21, 1)), 21, "and goes on");
    // An id that the partition does not know may begin anywhere (KIP-890 left idempotence alone).
    assert_eq!(produced(&mut conn, "t", 1, sequenced(producer, 1000, 2)), 0);
    let (id, epoch) = producer;
    assert_eq!(produced(&mut conn, "t", 1, sequenced((id, epoch + 1), 0, 1)), 2, "a new epoch begins at 0");
    let stale = produce(&mut conn, "t", 1, sequenced((id, epoch), 1002, 1));
    assert_eq!(code(stale.error_code), ErrorCode::InvalidProducerEpoch);
}

#[test]
fn trap_48_sequences_wrap_to_zero() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    let producer = init_producer(&mut conn).unwrap().unwrap();
    produced(&mut conn, "t", 0, sequenced(producer, i32::MAX - 2, 2));
    // This batch carries i32::MAX and 0.
    assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, i32::MAX, 2)), 2);
    assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, 1, 1)), 4);
    assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, i32::MAX, 2)), 2, "a duplicate across the wrap");
    assert_eq!(list_offset(&mut conn, "t", 0, -1).1, 5);
}

#[test]
fn trap_49_producer_state_survives_restarts_and_ids_are_never_given_twice() {
    let mut broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    let mut ids = std::collections::HashSet::new();
    let producer = init_producer(&mut conn).unwrap().unwrap();
    ids.insert(producer.0);
    for i in 0..3 {
        produced(&mut conn, "t", 0, sequenced(producer, i, 1));
    }
    for round in 0..3 {
        if round == 1 {
            broker.kill();
            broker.launch();
        } else {
            broker.restart();
        }
        conn = connect(&broker);
        for i in 0..3 {
            assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, i, 1)), i64::from(i), "round {round}");
        }
        let gap = produce(&mut conn, "t", 0, sequenced(producer, 10, 1));
        assert_eq!(code(gap.error_code), ErrorCode::OutOfOrderSequenceNumber, "round {round}");
        for _ in 0..3 {
            assert!(ids.insert(init_producer(&mut conn).unwrap().unwrap().0), "round {round}: an id twice");
        }
    }
}

#[test]
fn trap_47_init_producer_id_checks_its_timeout() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let mut request = taccola_wire::messages::InitProducerIdRequest {
        transactional_id: None,
        producer_id: -1,
        producer_epoch: -1,
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    // Without a transactional id the timeout means nothing.
    assert_eq!(conn.ask(&request, 5).error_code, 0);
    request.transactional_id = Some(String::new());
    assert_eq!(code(conn.ask(&request, 5).error_code), ErrorCode::InvalidRequest);
}

#[test]
fn unknown_partitions_and_acks_that_are_none() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "t", 1, &[]);
    for (topic, partition) in [("t", 1), ("t", -1), ("t", i32::MAX), ("absent", 0)] {
        let response = produce(&mut conn, topic, partition, batch(&["v"]));
        assert_eq!(code(response.error_code), ErrorCode::UnknownTopicOrPartition, "{topic}-{partition}");
    }
    for acks in [2, -2, i16::MAX] {
        let id = conn.send_body(
            ApiKey::Produce,
            PRODUCE,
            &requests::produce_request(acks, "t", 0, batch(&["v"])).to_bytes(PRODUCE).unwrap(),
        );
        let response: ProduceResponse = conn.reply(ApiKey::Produce, PRODUCE, id.unwrap()).unwrap();
        let answer = code(response.responses[0].partition_responses[0].error_code);
        assert_eq!(answer, ErrorCode::InvalidRequiredAcks, "acks={acks}");
    }
}

#[test]
fn what_only_a_walk_shows_is_refused_where_the_walk_is_asked_for() {
    let damaged = || {
        let mut bytes = BytesMut::from(&batch(&["first", "second"])[..]);
        // The first record's length, behind the header: the batch's checksum is made to agree with it.
        bytes[61] = 0x7e;
        let crc = taccola_wire::batch::computed_crc(&bytes).expect("a whole batch");
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    };
    let broker = Broker::start(&["taccola.produce.verify.records=true"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "walked", 1, &[]);
    assert_eq!(code(produce(&mut conn, "walked", 0, damaged()).error_code), ErrorCode::InvalidRecord);
    assert_eq!(produced(&mut conn, "walked", 0, batch(&["good"])), 0, "nothing of it was appended");
}

/// Of fewer replicas than `min.insync.replicas`, all suffice: Kafka asks a partition for no more than it has.
#[test]
fn one_replica_of_one_is_in_sync_enough() {
    let broker = Broker::start(&["min.insync.replicas=2"]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "own", 1, &[("min.insync.replicas", "3")]);
    new_topic(&mut conn, "brokers", 1, &[]);
    for topic in ["own", "brokers"] {
        assert_eq!(produced(&mut conn, topic, 0, batch(&["x"])), 0);
    }
}
