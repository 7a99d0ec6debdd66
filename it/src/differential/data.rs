//! ApiVersions, Produce, Fetch with and without sessions, ListOffsets.

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, batches, end_txn_marker, set_last_offset_delta};
use taccola_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::*;

use super::Differential;
use super::coverage::NOT_SERVED;
use super::equal;
use super::groups::topic_id;
use crate::conn::Conn;
use crate::requests::{fetch_request, init_producer, list_offset, new_topic, produce, produce_request};

/// Versions that know topics by their ids.
const PRODUCE_BY_ID: i16 = 13;
const FETCH_BY_ID: i16 = 13;

/// Milliseconds; of the first record that is produced.
const BEGIN: i64 = 1_600_000_000_000;

type Configs = &'static [(&'static str, &'static str)];
const TOPICS: &[(&str, Configs)] = &[
    ("p-one", &[]),
    ("p-compact", &[("cleanup.policy", "compact")]),
    ("p-stamped", &[("message.timestamp.type", "LogAppendTime")]),
    ("p-small", &[("max.message.bytes", "200")]),
    ("p-isr", &[("min.insync.replicas", "2")]),
    ("p-gzip", &[("compression.type", "gzip")]),
    ("p-times", &[("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "1000")]),
    ("p-open", &[]),
    ("p-read", &[]),
    ("p-empty", &[]),
];

pub(super) fn run(d: &mut Differential) {
    ask_api_versions(d);
    for (name, configs) in TOPICS {
        d.prepare("a topic", |conn| {
            // Times are old, so that batches are the same whenever they are sent.
            new_topic(conn, name, 2, &[&[("retention.ms", "-1")], *configs].concat());
            true
        });
        d.prepare("leaders", |conn| (0..2).all(|p| list_offset(conn, name, p, -1).0 == 0));
        d.call(&format!("<{name}>"), |conn| topic_id(conn, name).to_string());
    }
    prepare(d);
    d.call("<transactions>", |conn| topic_id(conn, "__transaction_state").to_string());
    fetch(d);
    sessions(d);
    list_offsets(d);
    produce_each(d);
    produce_odd(d);
    produce_by_id(d);
}

pub(crate) fn api_versions(response: &mut ApiVersionsResponse) {
    response.api_keys.retain(|row| !NOT_SERVED.iter().any(|key| key.code() == row.api_key));
    response.api_keys.sort_by_key(|row| row.api_key);
    response.finalized_features_epoch = response.finalized_features_epoch.min(1);
    response.finalized_features.sort_by(|a, b| a.name.cmp(&b.name));
    response.supported_features.sort_by(|a, b| a.name.cmp(&b.name));
}

fn ask_api_versions(d: &mut Differential) {
    let client = |name: &str, version: &str| ApiVersionsRequest {
        client_software_name: name.to_owned(),
        client_software_version: version.to_owned(),
        ..Default::default()
    };
    d.all("a client", 0..=4, &client("it", "1.0"), api_versions);
    for (name, version) in [("", "1"), ("it", ""), ("a b", "1"), ("-it", "1"), ("it-", "1"), ("i.t-2", "v1.0-rc.1")] {
        d.all(&format!("of {name:?} {version:?}"), 3..=4, &client(name, version), api_versions);
    }
}

/// Three records at once, of times a second apart.
fn three(from: i64, codec: Compression) -> Bytes {
    let mut batch = BatchBuilder::new(codec);
    for n in 0..3 {
        batch.append(BEGIN + (from + n) * 1000, Some(b"key"), Some(format!("value {}", from + n).as_bytes()), &[]);
    }
    batch.build().expect("a batch")
}

/// `p-read` with twelve records in four batches; `p-open` with an aborted transaction and an open one around plain records.
fn prepare(d: &mut Differential) {
    for (at, codec) in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::None].iter().enumerate() {
        let batch = three(at as i64 * 3, *codec);
        d.prepare("records", |conn| produce(conn, "p-read", 0, batch.clone()).error_code == 0);
    }
    for (end, value) in [(Some(false), "aborted"), (Some(true), "committed"), (None, "open")] {
        let id = format!("p-{value}");
        d.prepare("a coordinator", |conn| {
            let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.clone()], ..Default::default() };
            conn.ask(&find, 4).coordinators[0].error_code == 0
        });
        d.prepare("a transaction", |conn| transaction(conn, &id, value, end));
        let plain = three(0, Compression::None);
        d.prepare("plain records", |conn| produce(conn, "p-open", 0, plain.clone()).error_code == 0);
    }
}

fn transaction(conn: &mut Conn, id: &str, value: &str, end: Option<bool>) -> bool {
    let init = InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: 600_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let begun = conn.ask(&init, 5);
    if begun.error_code != 0 {
        return false;
    }
    let mut batch = BatchBuilder::new(Compression::None);
    batch = batch.producer(begun.producer_id, begun.producer_epoch, 0).transactional(true);
    batch.append(BEGIN, None, Some(value.as_bytes()), &[]);
    let mut request = produce_request(-1, "p-open", 0, batch.build().expect("a batch"));
    request.transactional_id = Some(id.to_owned());
    let code = crate::eventually("a transactional batch", || {
        Some(conn.ask(&request, 12).responses[0].partition_responses[0].error_code).filter(|code| *code == 0)
    });
    if let Some(committed) = end {
        let before = list_offset(conn, "p-open", 0, -1).1;
        let request = EndTxnRequest {
            transactional_id: id.to_owned(),
            producer_id: begun.producer_id,
            producer_epoch: begun.producer_epoch,
            committed,
        };
        crate::eventually("an end", || Some(conn.ask(&request, 5).error_code).filter(|code| *code == 0));
        crate::eventually("a marker", || (list_offset(conn, "p-open", 0, -1).1 > before).then_some(()));
    }
    code == 0
}

/// Record bytes in words: what a batch says of itself, and its checksum where that is the client's.
fn in_words(records: &Bytes) -> Bytes {
    let mut words = Vec::new();
    for batch in batches(records) {
        let Ok(batch) = batch else {
            words.push("cut off".to_owned());
            break;
        };
        let header = batch.header;
        let control = header.is_control();
        let stamped = header.max_timestamp > BEGIN + 1_000_000;
        // What compresses is not the same everywhere.
        let packed = header.compression() == Ok(Compression::Gzip);
        words.push(format!(
            "{}..={} epoch {} {:?}{}{}{}",
            header.base_offset,
            header.last_offset(),
            header.partition_leader_epoch,
            header.compression(),
            if header.is_transactional() { " transactional" } else { "" },
            if control { " control" } else { "" },
            // Producer ids are the broker's, and times where it stamps.
            if control || stamped || packed || header.has_producer_id() {
                String::new()
            } else {
                format!(" {:08x}", header.crc)
            },
        ));
    }
    words.join("; ").into()
}

fn fetched(response: &mut FetchResponse) {
    response.session_id = response.session_id.min(1);
    in_fetch(response);
}

/// With records in words.
pub(crate) fn in_fetch(response: &mut FetchResponse) {
    for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        for transaction in row.aborted_transactions.iter_mut().flatten() {
            transaction.producer_id = transaction.producer_id.min(0);
        }
        row.records = row.records.as_ref().map(in_words);
    }
}

/// With a topic's id where the version wants it.
fn named(conn: &mut Conn, name: &str, version: i16, by_id: i16) -> (String, Uuid) {
    if version < by_id { (name.to_owned(), Uuid::ZERO) } else { (String::new(), topic_id(conn, name)) }
}

fn fetch_of(conn: &mut Conn, version: i16, name: &str, edit: &dyn Fn(&mut FetchRequest)) -> FetchRequest {
    let mut request = fetch_request(name, 0, 0);
    edit(&mut request);
    for topic in &mut request.topics {
        let (name, id) = named(conn, &std::mem::take(&mut topic.topic), version, FETCH_BY_ID);
        (topic.topic, topic.topic_id) = (name, id);
        // Fields that only later versions have.
        if version < 9 {
            topic.partitions.iter_mut().for_each(|partition| partition.current_leader_epoch = -1);
        }
    }
    request
}

fn fetch(d: &mut Differential) {
    type Edit = Box<dyn Fn(&mut FetchRequest)>;
    let partition =
        |edit: fn(&mut FetchPartition)| -> Edit { Box::new(move |request| edit(&mut request.topics[0].partitions[0])) };
    let cases: Vec<(&str, &str, Edit)> = vec![
        ("all", "p-read", Box::new(|_| {})),
        ("from the middle of a batch", "p-read", partition(|p| p.fetch_offset = 4)),
        ("at the end", "p-read", partition(|p| p.fetch_offset = 12)),
        ("beyond the end", "p-read", partition(|p| p.fetch_offset = 13)),
        ("a negative offset", "p-read", partition(|p| p.fetch_offset = -1)),
        ("the latest epoch", "p-read", partition(|p| p.current_leader_epoch = 0)),
        ("a later epoch", "p-read", partition(|p| p.current_leader_epoch = 3)),
        ("one byte", "p-read", partition(|p| p.partition_max_bytes = 1)),
        ("no byte", "p-read", partition(|p| p.partition_max_bytes = 0)),
        ("one batch", "p-read", partition(|p| p.partition_max_bytes = 120)),
        ("one byte of all", "p-read", Box::new(|r| r.max_bytes = 1)),
        ("no byte of all", "p-read", Box::new(|r| r.max_bytes = 0)),
        ("an unknown partition", "p-read", partition(|p| p.partition = 7)),
        ("a negative partition", "p-read", partition(|p| p.partition = -1)),
        ("an empty log", "p-empty", Box::new(|_| {})),
        ("an unknown topic", "p-nowhere", Box::new(|_| {})),
        ("an empty name", "", Box::new(|_| {})),
        ("no topic", "p-read", Box::new(|r| r.topics.clear())),
        ("no partition", "p-read", Box::new(|r| r.topics[0].partitions.clear())),
        (
            "two partitions",
            "p-read",
            Box::new(|r| {
                let second = FetchPartition { partition: 1, ..r.topics[0].partitions[0].clone() };
                r.topics[0].partitions.push(second);
            }),
        ),
        (
            "two topics",
            "p-read",
            Box::new(|r| {
                let second = FetchTopic { topic: "p-open".to_owned(), ..r.topics[0].clone() };
                r.topics.push(second);
            }),
        ),
        ("uncommitted too", "p-open", Box::new(|_| {})),
        ("committed alone", "p-open", Box::new(|r| r.isolation_level = 1)),
        (
            "committed alone, behind the aborted",
            "p-open",
            Box::new(|r| {
                r.isolation_level = 1;
                r.topics[0].partitions[0].fetch_offset = 6;
            }),
        ),
        (
            "committed alone, at the last stable offset",
            "p-open",
            Box::new(|r| {
                r.isolation_level = 1;
                r.topics[0].partitions[0].fetch_offset = 10;
            }),
        ),
        ("another isolation", "p-open", Box::new(|r| r.isolation_level = 2)),
        (
            "a moment's wait for more",
            "p-read",
            Box::new(|r| {
                (r.max_wait_ms, r.min_bytes) = (10, 1 << 20);
            }),
        ),
    ];
    for (case, name, edit) in &cases {
        for version in 4..=18 {
            d.per_broker(case, version, |conn| fetch_of(conn, version, name, edit.as_ref()), fetched);
        }
    }
}

/// Incremental fetches (KIP-227). Each case opens a session of its own.
fn sessions(d: &mut Differential) {
    for version in [7, 11, 12, 13, 18] {
        let opened = move |conn: &mut Conn| -> i32 {
            let request = fetch_of(conn, version, "p-read", &|r| r.session_epoch = 0);
            conn.ask(&request, version).session_id
        };
        let bare = |session_id, session_epoch| FetchRequest {
            session_id,
            session_epoch,
            topics: Vec::new(),
            ..fetch_request("p-read", 0, 0)
        };
        d.per_broker(
            "opens a session",
            version,
            |conn| fetch_of(conn, version, "p-read", &|r| r.session_epoch = 0),
            fetched,
        );
        d.per_broker("nothing new", version, |conn| bare(opened(conn), 1), fetched);
        d.per_broker("an epoch ahead", version, |conn| bare(opened(conn), 2), fetched);
        d.per_broker("an epoch behind", version, |conn| bare(opened(conn), 0), fetched);
        d.per_broker("the end of a session", version, |conn| bare(opened(conn), -1), fetched);
        d.per_broker("a negative epoch", version, |conn| bare(opened(conn), -2), fetched);
        d.at("no such session", version, &bare(77, 1), fetched);
        d.at("a negative session", version, &bare(-1, 1), fetched);
        let again = |conn: &mut Conn, edit: &dyn Fn(&mut FetchRequest)| {
            let id = opened(conn);
            fetch_of(conn, version, "p-read", &|r| {
                (r.session_id, r.session_epoch) = (id, 1);
                edit(r);
            })
        };
        d.per_broker(
            "another offset",
            version,
            |conn| again(conn, &|r| r.topics[0].partitions[0].fetch_offset = 3),
            fetched,
        );
        d.per_broker(
            "one more partition",
            version,
            |conn| again(conn, &|r| r.topics[0].partitions[0].partition = 1),
            fetched,
        );
        d.per_broker(
            "one that is not there",
            version,
            |conn| again(conn, &|r| r.topics[0].partitions[0].partition = 9),
            fetched,
        );
        d.per_broker(
            "an unknown topic more",
            version,
            |conn| again(conn, &|r| r.topics[0].topic = "p-nowhere".to_owned()),
            fetched,
        );
        let forgetting = |conn: &mut Conn, name: &str, partition| {
            let id = opened(conn);
            let (topic, topic_id) = named(conn, name, version, FETCH_BY_ID);
            let forgotten = ForgottenTopic { topic, topic_id, partitions: vec![partition] };
            FetchRequest { forgotten_topics_data: vec![forgotten], ..bare(id, 1) }
        };
        d.per_broker("forgets its partition", version, |conn| forgetting(conn, "p-read", 0), fetched);
        d.per_broker("forgets what it had not", version, |conn| forgetting(conn, "p-read", 1), fetched);
        d.per_broker("forgets the unknown", version, |conn| forgetting(conn, "p-nowhere", 0), fetched);
    }
}

fn list_offsets(d: &mut Differential) {
    let request = |name: &str, partition_index, timestamp, current_leader_epoch, isolation_level| ListOffsetsRequest {
        replica_id: -1,
        isolation_level,
        timeout_ms: 5_000,
        topics: vec![ListOffsetsTopic {
            name: name.to_owned(),
            partitions: vec![ListOffsetsPartition { partition_index, current_leader_epoch, timestamp }],
        }],
    };
    // A marker's time is the broker's.
    let listed = |response: &mut ListOffsetsResponse| {
        for row in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            row.timestamp = row.timestamp.min(BEGIN + 1_000_000);
        }
    };
    for version in 1..=11 {
        for timestamp in
            [-1, -2, -3, -4, -5, -6, -7, i64::MIN, 0, BEGIN, BEGIN + 1, BEGIN + 7_500, BEGIN + 11_000, i64::MAX]
        {
            d.at(&format!("time {timestamp}"), version, &request("p-read", 0, timestamp, -1, 0), |_| {});
        }
        for timestamp in [-1, -3, 0] {
            d.at(&format!("empty, time {timestamp}"), version, &request("p-empty", 0, timestamp, -1, 0), |_| {});
        }
        for isolation in 0..=if version < 2 { 0 } else { 2 } {
            for timestamp in [-1, -2, -3, BEGIN + 2_500] {
                let case = format!("transactions, isolation {isolation}, time {timestamp}");
                d.at(&case, version, &request("p-open", 0, timestamp, -1, isolation), listed);
            }
        }
        d.at("an unknown partition", version, &request("p-read", 5, -1, -1, 0), |_| {});
        d.at("a negative partition", version, &request("p-read", -1, -1, -1, 0), |_| {});
        d.at("an unknown topic", version, &request("p-nowhere", 0, -1, -1, 0), |_| {});
        d.at("an empty name", version, &request("", 0, -1, -1, 0), |_| {});
        d.at("nothing", version, &ListOffsetsRequest { topics: Vec::new(), ..request("x", 0, 0, -1, 0) }, |_| {});
        if version >= 4 {
            d.at("its epoch", version, &request("p-read", 0, -1, 0, 0), |_| {});
            d.at("a later epoch", version, &request("p-read", 0, -1, 4, 0), |_| {});
        }
        let mut twice = request("p-read", 0, -1, -1, 0);
        let first = twice.topics[0].partitions[0].clone();
        twice.topics[0].partitions.push(ListOffsetsPartition { timestamp: -2, ..first });
        d.at("twice", version, &twice, |_| {});
        let of_replica = ListOffsetsRequest { replica_id: 3, ..request("p-read", 0, -1, -1, 0) };
        d.at("of a replica that is none", version, &of_replica, |_| {});
    }
}

fn produced(response: &mut ProduceResponse) {
    response.responses.iter_mut().for_each(|topic| topic.partition_responses.sort_by_key(|row| row.index));
    for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        equal::message(row.error_code, &mut row.error_message);
        row.log_append_time_ms = row.log_append_time_ms.min(1);
        for error in &mut row.record_errors {
            error.batch_index_error_message = None;
        }
    }
}

/// Bytes with one that is another.
fn flipped(batch: &Bytes, at: usize) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at] ^= 0x40;
    bytes.into()
}

/// What must be refused, or taken in a way of its own; some for topics of their own.
fn odd_batches() -> Vec<(&'static str, &'static str, Option<Bytes>)> {
    let good = three(0, Compression::None);
    let mut gap = BatchBuilder::new(Compression::None);
    gap.append_at(0, BEGIN, None, Some(b"a"), &[]);
    gap.append_at(5, BEGIN, None, Some(b"b"), &[]);
    let mut longer = good.to_vec();
    let _ = set_last_offset_delta(&mut longer, 7);
    let mut two = good.to_vec();
    two.extend_from_slice(&good);
    let mut old = good.to_vec();
    old[16] = 1;
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.append(BEGIN, Some(b"key"), Some(b"a"), &[]).append(BEGIN, None, Some(b"b"), &[]);
    let mut large = BatchBuilder::new(Compression::None);
    large.append(BEGIN, None, Some(&[b'x'; 400]), &[]);
    let mut future = BatchBuilder::new(Compression::None);
    future.append(i64::MAX, None, Some(b"x"), &[]);
    let marker = end_txn_marker(BEGIN, 4, 0, &ControlRecord::Commit { coordinator_epoch: 0 });
    vec![
        ("no records", "p-one", None),
        ("empty records", "p-one", Some(Bytes::new())),
        ("a batch cut short", "p-one", Some(good.slice(..good.len() - 1))),
        ("a header cut short", "p-one", Some(good.slice(..30))),
        ("a wrong checksum", "p-one", Some(flipped(&good, good.len() - 1))),
        ("a magic that is none", "p-one", Some(flipped(&good, 16))),
        ("an old magic", "p-one", Some(old.into())),
        ("two batches", "p-one", Some(two.into())),
        ("offsets with a gap", "p-one", Some(gap.build().expect("a batch"))),
        ("a last offset too high", "p-one", Some(longer.into())),
        ("no key for a compacted topic", "p-compact", Some(keyless.build().expect("a batch"))),
        ("keys for a compacted topic", "p-compact", Some(good.clone())),
        ("too large", "p-small", Some(large.build().expect("a batch"))),
        ("just small enough", "p-small", Some(good.clone())),
        ("too few in sync", "p-isr", Some(good.clone())),
        ("stamped here", "p-stamped", Some(good.clone())),
        ("compressed here", "p-gzip", Some(good.clone())),
        ("a time too old", "p-times", Some(good.clone())),
        ("a time too far", "p-times", Some(future.build().expect("a batch"))),
        ("a marker of a client", "p-one", marker.ok()),
        ("an unknown topic", "p-nowhere", Some(good.clone())),
        ("an empty name", "", Some(good.clone())),
        ("a bad name", "a b", Some(good.clone())),
        ("the metadata's log", "__cluster_metadata", Some(good.clone())),
        ("a coordinator's log", "__transaction_state", Some(good)),
    ]
}

fn data(index: i32, records: Option<Bytes>) -> PartitionProduceData {
    PartitionProduceData { index, records }
}

fn topic_data(name: &str, partition_data: Vec<PartitionProduceData>) -> TopicProduceData {
    TopicProduceData { name: name.to_owned(), partition_data, ..Default::default() }
}

fn produce_each(d: &mut Differential) {
    let by_name = |topic_data| ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data, ..Default::default() };
    for version in 3..PRODUCE_BY_ID {
        for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let rows = vec![topic_data("p-one", vec![data(0, Some(three(0, codec)))])];
            d.at(&format!("{codec:?}"), version, &by_name(rows), produced);
        }
        let good = Some(three(0, Compression::None));
        for acks in [1, 2, -2] {
            let rows = vec![topic_data("p-one", vec![data(0, good.clone())])];
            d.at(&format!("acks {acks}"), version, &ProduceRequest { acks, ..by_name(rows) }, produced);
        }
        let rows = vec![topic_data("p-isr", vec![data(0, good.clone())])];
        d.at("too few in sync, acks 1", version, &ProduceRequest { acks: 1, ..by_name(rows) }, produced);
        for index in [2, -1, i32::MAX] {
            let rows = vec![topic_data("p-one", vec![data(index, good.clone())])];
            d.at(&format!("partition {index}"), version, &by_name(rows), produced);
        }
        let rows = vec![topic_data("p-one", vec![data(0, good.clone()), data(1, good.clone())])];
        d.at("two partitions", version, &by_name(rows), produced);
        let rows = vec![
            topic_data("p-nowhere", vec![data(0, good.clone())]),
            topic_data("p-one", vec![data(1, good.clone())]),
        ];
        d.at("one of two topics", version, &by_name(rows), |response| {
            produced(response);
            response.responses.sort_by(|a, b| a.name.cmp(&b.name));
        });
        d.at("no topic", version, &by_name(Vec::new()), produced);
        d.at("no partition", version, &by_name(vec![topic_data("p-one", Vec::new())]), produced);
        let request = ProduceRequest { timeout_ms: -1, ..by_name(vec![topic_data("p-one", vec![data(0, good)])]) };
        d.at("a negative timeout", version, &request, produced);
    }
}

fn produce_odd(d: &mut Differential) {
    for version in [3, 7, 8, 12] {
        for (case, topic, records) in odd_batches() {
            let request = ProduceRequest {
                acks: -1,
                timeout_ms: 5_000,
                topic_data: vec![topic_data(topic, vec![data(0, records)])],
                ..Default::default()
            };
            d.at(case, version, &request, produced);
        }
    }
    idempotent(d);
    // What of all this came to be stored.
    for name in ["p-one", "p-compact", "p-small", "p-stamped", "p-gzip", "p-isr", "p-times"] {
        d.at(&format!("what {name} holds"), 12, &fetch_request(name, 0, 0), |response: &mut FetchResponse| {
            fetched(response);
        });
    }
}

fn idempotent(d: &mut Differential) {
    let ids = std::cell::RefCell::new(std::collections::HashMap::new());
    d.prepare("a producer id", |conn| {
        let Ok(Ok(id)) = init_producer(conn) else { return false };
        ids.borrow_mut().insert(conn.stream.peer_addr().expect("connected"), id);
        true
    });
    // Case, epoch above the producer's, first sequence.
    let cases = [
        ("begins late", 0, 5),
        ("begins", 0, 0),
        ("the same again", 0, 0),
        ("continues", 0, 3),
        ("the same again", 0, 3),
        ("leaves a gap", 0, 9),
        ("an older batch again", 0, 0),
        ("a negative sequence", 0, -1),
        ("a negative epoch", -1, 6),
        ("a later epoch in the middle", 2, 4),
        ("a later epoch", 2, 0),
        ("the epoch before", 0, 6),
        ("wraps", 2, i32::MAX),
    ];
    for (case, epoch, sequence) in cases {
        d.per_broker(
            &format!("idempotent, {case}"),
            12,
            |conn| {
                let id = ids.borrow()[&conn.stream.peer_addr().expect("connected")];
                let mut batch = BatchBuilder::new(Compression::None).producer(id.0, id.1 + epoch, sequence);
                for n in 0..3 {
                    batch.append(BEGIN + n, None, Some(b"x"), &[]);
                }
                produce_request(-1, "p-one", 1, batch.build().expect("a batch"))
            },
            produced,
        );
    }
}

fn produce_by_id(d: &mut Differential) {
    let good = three(0, Compression::None);
    for (case, topic, records) in odd_batches() {
        d.per_broker(
            case,
            PRODUCE_BY_ID,
            |conn| {
                let row = TopicProduceData {
                    topic_id: topic_id(conn, topic),
                    ..topic_data("", vec![data(0, records.clone())])
                };
                ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![row], ..Default::default() }
            },
            produced,
        );
    }
    for (case, id) in [("an id of nobody", Uuid::from_bytes([7; 16])), ("no id", Uuid::ZERO)] {
        let row = TopicProduceData { topic_id: id, ..topic_data("", vec![data(0, Some(good.clone()))]) };
        let request = ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![row], ..Default::default() };
        d.at(case, PRODUCE_BY_ID, &request, produced);
    }
}
