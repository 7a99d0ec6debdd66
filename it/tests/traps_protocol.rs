//! Compatibility traps of the protocol itself: versions, headers, correlation ids, order of replies, listeners, stopping.

use std::time::{Duration, Instant};

use taccola_it::conn::Conn;
use taccola_it::requests::{self, batch, new_topic, produce_request, produced};
use taccola_it::{Broker, free_port};
use taccola_wire::api::ApiKey;
use taccola_wire::codec::{Message, Reader, Request};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::*;

fn connect(broker: &Broker) -> Conn {
    Conn::connect(broker.port).expect("the broker accepts")
}

fn api_versions(conn: &mut Conn) -> ApiVersionsResponse {
    let request = ApiVersionsRequest {
        client_software_name: "it".to_owned(),
        client_software_version: "1".to_owned(),
        ..Default::default()
    };
    conn.ask(&request, 4)
}

#[test]
fn trap_01_api_versions_too_high_is_answered_in_version_0() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    for version in [5, 99, i16::MAX] {
        let id = conn.send_body(ApiKey::ApiVersions, version, b"\x03it\x021\0").unwrap();
        let mut reader = Reader::new(conn.frame().unwrap());
        assert_eq!(reader.i32().unwrap(), id);
        let response = ApiVersionsResponse::read(&mut reader, 0).unwrap();
        assert_eq!(reader.remaining(), 0, "nothing behind a version 0 body");
        assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
        let own =
            response.api_keys.iter().find(|row| row.api_key == ApiKey::ApiVersions.code()).expect("its own range");
        assert_eq!((own.min_version, own.max_version), (0, 4));
    }
    assert_eq!(api_versions(&mut conn).error_code, 0, "the connection lives on");
}

#[test]
fn trap_02_api_versions_response_header_has_no_tags() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    for version in [3, 4] {
        let id = conn.send_body(ApiKey::ApiVersions, version, b"\x03it\x021\0").unwrap();
        let frame = conn.frame().unwrap();
        assert_eq!(frame[..4], id.to_be_bytes());
        assert_eq!(frame[4..6], [0, 0], "the error code follows the correlation id at once");
        let rows = ApiVersionsResponse::read(&mut Reader::new(frame.slice(4..)), version).unwrap().api_keys.len();
        assert_eq!(usize::from(frame[6]), rows + 1, "then the length of the compact array");
    }
}

/// Sends the empty request at each version that is advertised and reads the reply to its last byte.
fn every_version<R: Request>(conn: &mut Conn, rows: &ApiVersionsResponse, request: &R) -> usize {
    let row = rows.api_keys.iter().find(|row| row.api_key == R::KEY.code());
    let row = row.unwrap_or_else(|| panic!("{:?} is not served", R::KEY));
    let from = row.min_version.max(R::MIN_VERSION);
    for version in from..=row.max_version {
        conn.call(request, version).unwrap_or_else(|error| panic!("{:?} v{version}: {error}", R::KEY));
    }
    (row.max_version - from) as usize + 1
}

#[test]
fn trap_03_response_header_follows_the_flexibility_of_the_version() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let rows = api_versions(&mut conn);
    let mut versions = 0;
    macro_rules! each {
        ($($request:ty),* $(,)?) => { $(versions += every_version(&mut conn, &rows, &<$request>::default());)* };
    }
    let produce = ProduceRequest { acks: 1, timeout_ms: 1_000, ..Default::default() };
    versions += every_version(&mut conn, &rows, &produce);
    let fetch = FetchRequest { replica_id: -1, session_epoch: -1, ..Default::default() };
    versions += every_version(&mut conn, &rows, &fetch);
    let metadata = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    let row = rows.api_keys.iter().find(|row| row.api_key == ApiKey::Metadata.code()).unwrap();
    for version in 1..=row.max_version {
        conn.ask(&metadata, version);
    }
    each!(
        ListOffsetsRequest,
        OffsetCommitRequest,
        FindCoordinatorRequest,
        JoinGroupRequest,
        HeartbeatRequest,
        LeaveGroupRequest,
        SyncGroupRequest,
        DescribeGroupsRequest,
        ListGroupsRequest,
        CreateTopicsRequest,
        DeleteTopicsRequest,
        DeleteRecordsRequest,
        OffsetForLeaderEpochRequest,
        DescribeConfigsRequest,
        AlterConfigsRequest,
        IncrementalAlterConfigsRequest,
        CreatePartitionsRequest,
        DeleteGroupsRequest,
        OffsetDeleteRequest,
        DescribeClusterRequest,
        DescribeProducersRequest,
        DescribeTopicPartitionsRequest,
        ListConfigResourcesRequest,
    );
    let mut describe = DescribeLogDirsRequest { topics: None, ..Default::default() };
    versions += every_version(&mut conn, &rows, &describe);
    describe.topics = Some(Vec::new());
    versions += every_version(&mut conn, &rows, &describe);
    let init =
        InitProducerIdRequest { producer_id: -1, producer_epoch: -1, transaction_timeout_ms: 1, ..Default::default() };
    versions += every_version(&mut conn, &rows, &init);
    println!("{versions} versions");
}

#[test]
fn trap_04_an_unknown_version_keeps_the_correlation_id_or_closes() {
    let broker = Broker::start(&[]);
    let mut other = connect(&broker);
    api_versions(&mut other);
    for (key, version) in [(ApiKey::Metadata, 99), (ApiKey::Produce, 2), (ApiKey::Fetch, 3), (ApiKey::Fetch, 99)] {
        let mut conn = connect(&broker);
        conn.send_body(key, version, &[0; 32]).unwrap();
        // Kafka closes: no version of the reply could be read for certain.
        assert!(conn.is_closed(), "{key:?} v{version}");
    }
    let mut conn = connect(&broker);
    let frame = [0, 0, 0, 10, 0x7f, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xff];
    std::io::Write::write_all(&mut conn.stream, &frame).unwrap();
    assert!(conn.is_closed(), "an unknown key");
    api_versions(&mut other);
}

#[test]
fn trap_05_produce_is_advertised_from_version_0() {
    let broker = Broker::start(&[]);
    let rows = api_versions(&mut connect(&broker));
    let row = rows.api_keys.iter().find(|row| row.api_key == ApiKey::Produce.code()).unwrap();
    assert_eq!(row.min_version, 0, "librdkafka before 2.11 turns compression off otherwise");
}

#[test]
fn trap_06_ranges_are_those_of_the_release() {
    let broker = Broker::start(&[]);
    let rows = api_versions(&mut connect(&broker));
    for row in &rows.api_keys {
        let key = ApiKey::from_code(row.api_key).expect("a key of the release");
        let info = key.info();
        assert_eq!((row.min_version, row.max_version), (info.advertised_min(), info.max), "{}", info.name);
    }
}

#[test]
fn trap_07_whoever_speaks_topic_ids_can_ask_for_them() {
    let broker = Broker::start(&[]);
    let rows = api_versions(&mut connect(&broker));
    let max =
        |key: ApiKey| rows.api_keys.iter().find(|row| row.api_key == key.code()).map_or(-1, |row| row.max_version);
    let by_id = max(ApiKey::Produce) >= 13 || max(ApiKey::Fetch) >= 13 || max(ApiKey::OffsetCommit) >= 10;
    assert!(!by_id || max(ApiKey::Metadata) >= 12);
    assert_eq!(max(ApiKey::OffsetCommit) >= 10, max(ApiKey::OffsetFetch) >= 10);
}

#[test]
fn trap_08_topic_ids_are_real_and_stay() {
    let mut broker = Broker::start(&[]);
    let id = new_topic(&mut connect(&broker), "named", 1, &[]);
    assert!(!id.is_zero());
    let ask = |broker: &Broker| {
        let topic = metadata_request::MetadataRequestTopic { name: Some("named".to_owned()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        (10..=13).map(|version| connect(broker).ask(&request, version).topics[0].topic_id).collect::<Vec<_>>()
    };
    assert_eq!(ask(&broker), [id; 4]);
    broker.restart();
    assert_eq!(ask(&broker), [id; 4]);
    broker.kill();
    broker.launch();
    assert_eq!(ask(&broker), [id; 4]);
}

#[test]
fn trap_11_null_is_all_topics_and_empty_is_none() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "one", 1, &[]);
    for version in 1..=13 {
        let all = conn.ask(&MetadataRequest { topics: None, ..Default::default() }, version);
        assert_eq!(all.topics.len(), 1, "v{version}");
        let none = conn.ask(&MetadataRequest { topics: Some(Vec::new()), ..Default::default() }, version);
        assert!(none.topics.is_empty(), "v{version}");
        assert!(!none.brokers.is_empty() && none.controller_id == 0, "v{version}");
    }
    let id = conn.send_body(ApiKey::Metadata, 0, &[0; 4]).unwrap();
    let all: MetadataResponse = conn.reply(ApiKey::Metadata, 0, id).unwrap();
    assert_eq!(all.topics.len(), 1, "version 0 has no null: empty is all");
}

#[test]
fn trap_13_auto_creation_only_when_allowed() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    let ask = |conn: &mut Conn, name: &str, allow: bool| {
        let topic = metadata_request::MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: allow, ..Default::default() };
        conn.ask(&request, 12).topics[0].error_code
    };
    assert_eq!(ask(&mut conn, "ghost", false), ErrorCode::UnknownTopicOrPartition.code());
    assert!(requests::topics(&mut conn).is_empty());
    let first = ask(&mut conn, "made", true);
    assert!([0, ErrorCode::LeaderNotAvailable.code(), ErrorCode::UnknownTopicOrPartition.code()].contains(&first));
    taccola_it::eventually("the topic", || (ask(&mut conn, "made", true) == 0).then_some(()));
    // Trap 14: a name that no topic can have is said so at once, or clients ask for ever.
    for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
        assert_eq!(ask(&mut conn, name, true), ErrorCode::InvalidTopicException.code(), "{name:?}");
    }
}

#[test]
fn trap_16_each_listener_advertises_its_own_address() {
    let (internal, external, controller) = (free_port(), free_port(), free_port());
    let broker = Broker::start(&[
        &format!(
            "listeners=INTERNAL://127.0.0.1:{internal},EXTERNAL://127.0.0.1:{external},CONTROLLER://127.0.0.1:{controller}"
        ),
        &format!("advertised.listeners=INTERNAL://inside:{internal},EXTERNAL://outside.example:7"),
        "listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name=INTERNAL",
        &format!("controller.quorum.voters=0@127.0.0.1:{controller}"),
    ]);
    for (port, host, advertised) in [(internal, "inside", i32::from(internal)), (external, "outside.example", 7)] {
        let mut conn = Conn::connect(port).expect("the listener accepts");
        let response = conn.ask(&MetadataRequest { topics: None, ..Default::default() }, 12);
        let row = &response.brokers[0];
        assert_eq!((row.host.as_str(), row.port), (host, advertised));
        let find = FindCoordinatorRequest { coordinator_keys: vec!["g".to_owned()], ..Default::default() };
        let found = taccola_it::eventually("a coordinator", || {
            Some(conn.ask(&find, 4)).filter(|found| found.coordinators[0].error_code == 0)
        });
        assert_eq!((found.coordinators[0].host.as_str(), found.coordinators[0].port), (host, advertised));
    }
    drop(broker);
}

#[test]
fn trap_19_replies_come_in_the_order_of_the_requests() {
    let broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "ordered", 1, &[]);
    let mut sent = Vec::new();
    for i in 0..64 {
        // Slow ones (a fetch that waits), quick ones and durable ones, all at once.
        let key_and_id = match i % 4 {
            0 => {
                let mut fetch = requests::fetch_request("ordered", 0, 0);
                (fetch.max_wait_ms, fetch.min_bytes) = (30, 1 << 20);
                (ApiKey::Fetch, conn.send(&fetch, 12).unwrap())
            }
            1 => {
                let request = produce_request(-1, "ordered", 0, batch(&[&format!("{i}")]));
                (ApiKey::Produce, conn.send(&request, 12).unwrap())
            }
            2 => (ApiKey::Metadata, conn.send(&MetadataRequest::default(), 12).unwrap()),
            _ => (ApiKey::ListGroups, conn.send(&ListGroupsRequest::default(), 4).unwrap()),
        };
        sent.push(key_and_id);
    }
    let mut offsets = Vec::new();
    for (key, id) in sent {
        match key {
            ApiKey::Fetch => drop(conn.reply::<FetchResponse>(key, 12, id).unwrap()),
            ApiKey::Produce => {
                let reply: ProduceResponse = conn.reply(key, 12, id).unwrap();
                offsets.push(reply.responses[0].partition_responses[0].base_offset);
            }
            ApiKey::Metadata => drop(conn.reply::<MetadataResponse>(key, 12, id).unwrap()),
            _ => drop(conn.reply::<ListGroupsResponse>(key, 4, id).unwrap()),
        }
    }
    assert_eq!(offsets, (0..16).collect::<Vec<i64>>(), "appends keep the connection's order, too");
}

#[test]
fn trap_62_find_coordinator_old_and_new_at_once() {
    let broker = Broker::start(&[]);
    let (mut old, mut new) = (connect(&broker), connect(&broker));
    let one = FindCoordinatorRequest { key: "g1".to_owned(), ..Default::default() };
    let many =
        FindCoordinatorRequest { coordinator_keys: vec!["g1".to_owned(), "g2".to_owned()], ..Default::default() };
    taccola_it::eventually("coordinators in both forms", || {
        let (first, second) = (old.ask(&one, 3), new.ask(&many, 6));
        assert_eq!(second.coordinators.len(), 2);
        let there = first.error_code == 0 && second.coordinators.iter().all(|row| row.error_code == 0);
        there.then(|| {
            assert_eq!((first.node_id, first.port), (0, i32::from(broker.port)));
            for (row, key) in second.coordinators.iter().zip(["g1", "g2"]) {
                assert_eq!((row.key.as_str(), row.node_id, row.port), (key, 0, i32::from(broker.port)));
            }
        })
    });
    for version in 0..=2 {
        assert_eq!(old.ask(&one, version).error_code, 0);
    }
}

#[test]
fn trap_68_a_stop_answers_with_what_clients_try_again() {
    let mut broker = Broker::start(&[]);
    let mut conn = connect(&broker);
    new_topic(&mut conn, "stopped", 1, &[]);
    produced(&mut conn, "stopped", 0, batch(&["before"]));
    let mut waiting = connect(&broker);
    let mut fetch = requests::fetch_request("stopped", 0, 1);
    (fetch.max_wait_ms, fetch.min_bytes) = (20_000, 1);
    let id = waiting.send(&fetch, 12).unwrap();
    let producer = std::thread::spawn(move || {
        let mut last = 0;
        let mut record = 0;
        while let Ok(response) =
            conn.call(&produce_request(-1, "stopped", 0, batch(&[&format!("{record}")])), requests::PRODUCE)
        {
            let row = &response.responses[0].partition_responses[0];
            let code = ErrorCode::from_code(row.error_code);
            assert!(code == ErrorCode::None || code.retriable(), "{}", code.name());
            if code == ErrorCode::None {
                last = row.base_offset;
            }
            record += 1;
        }
        last
    });
    let begun = Instant::now();
    broker.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "the stop does not wait for long polls: {:?}", begun.elapsed());
    if let Ok(reply) = waiting.reply::<FetchResponse>(ApiKey::Fetch, 12, id) {
        let code = ErrorCode::from_code(reply.responses[0].partitions[0].error_code);
        assert!(code == ErrorCode::None || code.retriable(), "{}", code.name());
    }
    let last = producer.join().expect("no code that ends a client");
    broker.launch();
    let (_, end, _) = requests::list_offset(&mut connect(&broker), "stopped", 0, -1);
    assert!(end > last, "offset {last} was acknowledged, the log ends at {end}");
}
