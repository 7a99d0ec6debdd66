//! What clients of transactions trip over, and the two anomalies that take a network which loses and delays single requests.
//! The numbers of traps are those of the compatibility list.

use taccola_it::conn::Conn;
use taccola_it::load::Place;
use taccola_it::proxy::{Fate, Proxy};
use taccola_it::requests::{FETCH, fetch, new_topic, read_all};
use taccola_it::txn::{Version, committed_of, fetch_committed};
use taccola_it::txn_steps::{ended, produce, producer, settled};
use taccola_it::{Broker, eventually};
use taccola_wire::api::ApiKey;
use taccola_wire::batch::{ControlRecord, RecordIter, batches};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::WriteTxnMarkersRequest;
use taccola_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};

fn place() -> Place {
    ("t".to_owned(), 0)
}

fn start() -> (Broker, Conn) {
    let broker = Broker::start(&["transaction.state.log.num.partitions=3", "offsets.topic.num.partitions=3"]);
    let mut conn = Conn::connect(broker.port).expect("a connection");
    new_topic(&mut conn, "t", 1, &[]);
    (broker, conn)
}

/// What read_committed delivers once everything is decided.
fn committed(conn: &mut Conn) -> Vec<String> {
    let data = eventually("everything to be decided", || {
        let data = conn.ask(&fetch_committed(&place(), 0), FETCH).responses.remove(0).partitions.remove(0);
        (data.last_stable_offset == data.high_watermark).then_some(data)
    });
    let values = committed_of(&data, 0).0.into_iter().map(|record| record.value.expect("a value"));
    values.map(|value| String::from_utf8(value.to_vec()).expect("text")).collect()
}

#[test]
fn trap_39_a_marker_takes_an_offset_is_never_delivered_and_looks_as_kafkas() {
    let (_broker, mut conn) = start();
    let mut p = producer(&mut conn, "marker", Version::Two);
    for (value, commit) in [("a", true), ("b", false)] {
        produce(&mut conn, &mut p, &place(), value);
        let response = settled(&mut conn, &p.end(commit), p.version.end(), |response| response.error_code);
        ended(&mut p, &response);
    }
    assert_eq!(committed(&mut conn), ["a"]);
    let offsets: Vec<i64> = read_all(&mut conn, "t", 0, 0).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 2], "the markers lie between");
    let bytes = fetch(&mut conn, "t", 0, 0).records.expect("records");
    let mut markers = Vec::new();
    for batch in batches(&bytes) {
        let batch = batch.expect("a batch");
        if batch.header.is_control() {
            assert!(batch.header.is_transactional());
            assert_eq!((batch.header.base_sequence, batch.header.last_offset_delta), (-1, 0));
            let whole = bytes.slice_ref(batch.bytes);
            let record = RecordIter::new(&whole).expect("a batch").next().expect("a record").expect("a record");
            // Version 0, then the type; version 0, then the coordinator's epoch.
            let (key, value) = (record.key.clone().expect("a key"), record.value.clone().expect("a value"));
            assert_eq!((key.len(), &key[..2], value.len(), &value[..2]), (4, &[0, 0][..], 6, &[0, 0][..]));
            markers.push(ControlRecord::decode(&record).expect("a marker"));
        }
    }
    assert!(
        matches!(markers[..], [ControlRecord::Commit { .. }, ControlRecord::Abort { .. }]),
        "the types that Kafka writes: {markers:?}"
    );
}

#[test]
fn a_marker_of_nobody_is_not_written() {
    let (_broker, mut conn) = start();
    for (producer_id, producer_epoch) in [(7, -1), (-1, 0)] {
        for topic in ["t", "__consumer_offsets"] {
            let topics = vec![WritableTxnMarkerTopic { name: topic.to_owned(), partition_indexes: vec![0] }];
            let marker = WritableTxnMarker { producer_id, producer_epoch, topics, ..Default::default() };
            let reply = conn.ask(&WriteTxnMarkersRequest { markers: vec![marker] }, 1);
            let code = ErrorCode::from_code(reply.markers[0].topics[0].partitions[0].error_code);
            // The topic of offsets comes with the first group.
            let absent = topic != "t" && code == ErrorCode::UnknownTopicOrPartition;
            assert!(
                absent || code == ErrorCode::UnknownServerError,
                "{topic} {producer_id} {producer_epoch}: {code:?}"
            );
        }
    }
    assert_eq!(fetch(&mut conn, "t", 0, 0).high_watermark, 0);
}

#[test]
fn trap_51_an_end_whose_reply_was_lost_is_answered_truthfully() {
    let (broker, mut conn) = start();
    let proxy = Proxy::start(broker.port, |key, _| if key == ApiKey::EndTxn { Fate::LoseReply } else { Fate::Pass });
    let mut expected = Vec::new();
    for (version, commit, value) in
        [(Version::One, true, "a"), (Version::One, false, "b"), (Version::Two, true, "c"), (Version::Two, false, "d")]
    {
        let mut p = producer(&mut conn, &format!("lost-{value}"), version);
        produce(&mut conn, &mut p, &place(), value);
        let mut lossy = Conn::connect(proxy.port).expect("a connection");
        assert!(lossy.call(&p.end(commit), version.end()).is_err(), "the reply is lost");
        let response = settled(&mut conn, &p.end(commit), version.end(), |response| response.error_code);
        assert_eq!(ErrorCode::from_code(response.error_code), ErrorCode::None, "asked again");
        let other = settled(&mut conn, &p.end(!commit), version.end(), |response| response.error_code);
        assert_ne!(ErrorCode::from_code(other.error_code), ErrorCode::None, "it was decided otherwise");
        expected.extend(commit.then_some(value));
    }
    assert_eq!(committed(&mut conn), expected);
}

/// An end that comes when the producer has begun its next transaction. In version 2 each has an epoch of its own; in version
/// 1 nobody can tell, with Kafka as here: the next one is ended, but as a whole.
#[test]
fn anomaly_09_a_delayed_end_does_not_tear_the_next_transaction() {
    let (broker, mut conn) = start();
    let proxy = Proxy::start(broker.port, |key, _| if key == ApiKey::EndTxn { Fate::Hold } else { Fate::Pass });
    for version in [Version::Two, Version::One] {
        let mut p = producer(&mut conn, &format!("late-{version:?}"), version);
        produce(&mut conn, &mut p, &place(), "first");
        let mut slow = Conn::connect(proxy.port).expect("a connection");
        assert!(slow.call(&p.end(true), version.end()).is_err(), "held back");
        let response = settled(&mut conn, &p.end(true), version.end(), |response| response.error_code);
        ended(&mut p, &response);
        produce(&mut conn, &mut p, &place(), "second");
        proxy.release().expect("it waits").expect("delivered");
        let response = settled(&mut conn, &p.end(false), version.end(), |response| response.error_code);
        let late = version == Version::One;
        let told = if late { ErrorCode::InvalidTxnState } else { ErrorCode::None };
        assert_eq!(ErrorCode::from_code(response.error_code), told, "{version:?}");
    }
    assert_eq!(committed(&mut conn), ["first", "first", "second"]);
}
