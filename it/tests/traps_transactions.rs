//! What clients of transactions trip over, and the two anomalies that take a network which loses and delays single requests.
//! The numbers of traps are those of the compatibility list.

use taccola_it::conn::Conn;
use taccola_it::load::Place;
use taccola_it::proxy::{Fate, Proxy};
use taccola_it::requests::{FETCH, fetch, new_topic, read_all};
use taccola_it::txn::{ADD, INIT, Identity, Version, committed_of, fetch_committed};
use taccola_it::{Broker, eventually};
use taccola_wire::api::ApiKey;
use taccola_wire::batch::{ControlRecord, RecordIter, batches};
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{EndTxnResponse, FindCoordinatorRequest};

fn place() -> Place {
    ("t".to_owned(), 0)
}

fn start() -> (Broker, Conn) {
    let broker = Broker::start(&["transaction.state.log.num.partitions=3", "offsets.topic.num.partitions=3"]);
    let mut conn = Conn::connect(broker.port).expect("a connection");
    new_topic(&mut conn, "t", 1, &[]);
    (broker, conn)
}

/// Asks until nobody is in the way.
fn settled<R: Request>(conn: &mut Conn, request: &R, version: i16, code: impl Fn(&R::Response) -> i16) -> R::Response {
    let waits =
        |code| matches!(ErrorCode::from_code(code), ErrorCode::ConcurrentTransactions) || code == 14 || code == 16;
    eventually("the end of the last transaction", || {
        let response = conn.ask(request, version);
        (!waits(code(&response))).then_some(response)
    })
}

fn producer(conn: &mut Conn, id: &str, version: Version) -> Identity {
    let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.to_owned()], ..Default::default() };
    eventually("a coordinator", || (conn.ask(&find, 4).coordinators[0].error_code == 0).then_some(()));
    let mut identity = Identity::new(id, version);
    let response = settled(conn, &identity.init(), INIT, |response| response.error_code);
    assert_eq!(response.error_code, 0);
    identity.is_now(response.producer_id, response.producer_epoch);
    identity
}

fn produce(conn: &mut Conn, p: &mut Identity, value: &'static str) {
    if p.version == Version::One {
        let code = |r: &taccola_wire::messages::AddPartitionsToTxnResponse| {
            r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        };
        let added = settled(conn, &p.add(&[place()].into()), ADD, code);
        assert_eq!(code(&added), 0);
    }
    let records = [(place(), vec![("k".into(), value.into())])].into();
    let response =
        settled(conn, &p.produce(&records), p.version.produce(), |r| r.responses[0].partition_responses[0].error_code);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    p.sent(&place(), 1);
}

fn ended(p: &mut Identity, response: &EndTxnResponse) {
    assert_eq!(ErrorCode::from_code(response.error_code), ErrorCode::None);
    if p.version == Version::Two {
        p.is_now(response.producer_id, response.producer_epoch);
    }
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
        produce(&mut conn, &mut p, value);
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
fn trap_51_an_end_whose_reply_was_lost_is_answered_truthfully() {
    let (broker, mut conn) = start();
    let proxy = Proxy::start(broker.port, |key, _| if key == ApiKey::EndTxn { Fate::LoseReply } else { Fate::Pass });
    let mut expected = Vec::new();
    for (version, commit, value) in
        [(Version::One, true, "a"), (Version::One, false, "b"), (Version::Two, true, "c"), (Version::Two, false, "d")]
    {
        let mut p = producer(&mut conn, &format!("lost-{value}"), version);
        produce(&mut conn, &mut p, value);
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
        produce(&mut conn, &mut p, "first");
        let mut slow = Conn::connect(proxy.port).expect("a connection");
        assert!(slow.call(&p.end(true), version.end()).is_err(), "held back");
        let response = settled(&mut conn, &p.end(true), version.end(), |response| response.error_code);
        ended(&mut p, &response);
        produce(&mut conn, &mut p, "second");
        proxy.release().expect("it waits").expect("delivered");
        let response = settled(&mut conn, &p.end(false), version.end(), |response| response.error_code);
        let late = version == Version::One;
        let told = if late { ErrorCode::InvalidTxnState } else { ErrorCode::None };
        assert_eq!(ErrorCode::from_code(response.error_code), told, "{version:?}");
    }
    assert_eq!(committed(&mut conn), ["first", "first", "second"]);
}
