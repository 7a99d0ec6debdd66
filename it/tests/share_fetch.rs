//! ShareFetch and ShareAcknowledge as a client sees them: sessions, delivery, acknowledgements, locks, and what a kill
//! leaves. `KAFKA_ORACLE=HOST:PORT` plays them to a broker that runs already (all but those that kill), started with
//! `group.share.min.record.lock.duration.ms=1000`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use taccola_base::Uuid;
use taccola_it::conn::Conn;
use taccola_it::group::find_coordinator;
use taccola_it::requests::{batch, new_topic, now_ms, produced};
use taccola_it::txn::Version;
use taccola_it::txn_steps::{ended, produce, producer, settled};
use taccola_it::{Broker, eventually};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as AckBatch,
};
use taccola_wire::messages::share_fetch_request::{AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic};
use taccola_wire::messages::share_fetch_response::PartitionData;
use taccola_wire::messages::{
    DeleteRecordsRequest, IncrementalAlterConfigsRequest, ShareAcknowledgeRequest, ShareFetchRequest,
    ShareFetchResponse, ShareGroupHeartbeatRequest,
};

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;
const GROUP: i8 = 32;
const PROPERTIES: &[&str] =
    &["group.share.min.record.lock.duration.ms=1000", "group.share.record.lock.duration.ms=20000"];
/// A lock that runs out while a test waits.
const SHORT_LOCK: (&str, &str) = ("share.record.lock.duration.ms", "1500");

/// A broker of ours, or the oracle.
struct Server {
    ours: Option<Broker>,
    port: u16,
}

impl Server {
    fn start() -> Self {
        match std::env::var("KAFKA_ORACLE") {
            Ok(address) => Self { ours: None, port: address.rsplit(':').next().unwrap().parse().unwrap() },
            Err(_) => {
                let broker = Broker::start(PROPERTIES);
                Self { port: broker.port, ours: Some(broker) }
            }
        }
    }

    fn conn(&self) -> Conn {
        eventually("the broker accepts", || Conn::connect(self.port).ok())
    }

    /// A topic of one partition, and a group that begins at its first record.
    fn world(&self, settings: &[(&str, &str)]) -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("w{}-{}", now_ms(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut conn = self.conn();
        let topic_id = new_topic(&mut conn, &name, 1, &[]);
        let settings = [("share.auto.offset.reset", "earliest")].iter().chain(settings);
        let configs = settings.map(|(name, value)| AlterableConfig {
            name: (*name).to_owned(),
            config_operation: 0,
            value: Some((*value).to_owned()),
        });
        let resource =
            AlterConfigsResource { resource_type: GROUP, resource_name: name.clone(), configs: configs.collect() };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let response = conn.ask(&request, 1);
        assert_eq!(response.responses[0].error_code, 0, "{:?}", response.responses[0].error_message);
        World { name, topic_id }
    }
}

/// A topic and a group of the same name.
struct World {
    name: String,
    topic_id: Uuid,
}

impl World {
    fn produce(&self, server: &Server, values: &[&str]) {
        produced(&mut server.conn(), &self.name, 0, batch(values));
    }

    /// A member that has the partition assigned, on a connection of its own, without a session yet.
    fn member(&self, server: &Server) -> Member {
        let mut conn = server.conn();
        find_coordinator(&mut conn, &self.name);
        let id = Uuid::from_bytes(fresh()).to_string();
        let mut epoch = 0;
        eventually("the partition is assigned", || {
            let request = ShareGroupHeartbeatRequest {
                group_id: self.name.clone(),
                member_id: id.clone(),
                member_epoch: epoch,
                rack_id: None,
                subscribed_topic_names: (epoch == 0).then(|| vec![self.name.clone()]),
            };
            let response = conn.ask(&request, 1);
            let code = ErrorCode::from_code(response.error_code);
            if matches!(
                code,
                ErrorCode::CoordinatorNotAvailable | ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator
            ) {
                return None;
            }
            assert_eq!(code, ErrorCode::None, "{:?}", response.error_message);
            epoch = response.member_epoch;
            response.assignment.filter(|assignment| !assignment.topic_partitions.is_empty())
        });
        Member { conn, group: self.name.clone(), id, topic_id: self.topic_id, epoch: 0 }
    }
}

fn fresh() -> [u8; 16] {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&now_ms().to_be_bytes());
    bytes[8..12].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

/// A member with a share session.
struct Member {
    conn: Conn,
    group: String,
    id: String,
    topic_id: Uuid,
    /// Of the next request.
    epoch: i32,
}

/// First offset, last offset, delivery count.
type Range = (i64, i64, i16);

fn ranges(data: &PartitionData) -> Vec<Range> {
    // Kafka tells offsets one by one where it keeps them so.
    let mut ranges: Vec<Range> = Vec::new();
    for range in &data.acquired_records {
        match ranges.last_mut() {
            Some(last) if last.1 + 1 == range.first_offset && last.2 == range.delivery_count => {
                last.1 = range.last_offset
            }
            _ => ranges.push((range.first_offset, range.last_offset, range.delivery_count)),
        }
    }
    ranges
}

impl Member {
    fn fetch_request(&self, max_wait_ms: i32) -> ShareFetchRequest {
        let partition = FetchPartition { partition_index: 0, ..Default::default() };
        let topics = vec![FetchTopic { topic_id: self.topic_id, partitions: vec![partition] }];
        ShareFetchRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.epoch,
            max_wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records: 500,
            batch_size: 500,
            topics: if self.epoch == 0 { topics } else { Vec::new() },
            ..Default::default()
        }
    }

    fn send(&mut self, request: &ShareFetchRequest) -> ShareFetchResponse {
        let response = self.conn.ask(request, 2);
        if response.error_code == 0 {
            self.epoch += 1;
        }
        response
    }

    /// The partition's part of the answer; an answer without it counts as empty.
    fn fetch_within(&mut self, max_wait_ms: i32) -> PartitionData {
        let response = self.send(&self.fetch_request(max_wait_ms));
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next().unwrap_or_default();
        assert_eq!(data.error_code, 0, "{:?}", data.error_message);
        data
    }

    /// Fetches until there is something, five seconds at most. Kafka answers now and then before its wait is over.
    fn fetch(&mut self) -> Vec<Range> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let ranges = ranges(&self.fetch_within(500));
            if !ranges.is_empty() || Instant::now() > until {
                return ranges;
            }
        }
    }

    /// Nothing comes for a while.
    fn fetch_nothing(&mut self) {
        assert_eq!(ranges(&self.fetch_within(300)), []);
    }

    fn acknowledge_with(&mut self, batches: &[(i64, i64, &[i8])], renews: bool) -> ErrorCode {
        let batches = batches.iter().map(|(first_offset, last_offset, types)| AckBatch {
            first_offset: *first_offset,
            last_offset: *last_offset,
            acknowledge_types: types.to_vec(),
        });
        let partition = AcknowledgePartition { partition_index: 0, acknowledgement_batches: batches.collect() };
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.epoch,
            is_renew_ack: renews,
            topics: vec![AcknowledgeTopic { topic_id: self.topic_id, partitions: vec![partition] }],
        };
        let response = self.conn.ask(&request, 2);
        if response.error_code != 0 {
            return ErrorCode::from_code(response.error_code);
        }
        self.epoch += 1;
        ErrorCode::from_code(response.responses[0].partitions[0].error_code)
    }

    fn acknowledge(&mut self, first: i64, last: i64, types: &[i8]) -> ErrorCode {
        self.acknowledge_with(&[(first, last, types)], false)
    }

    fn close(&mut self) -> ErrorCode {
        let request = ShareFetchRequest { topics: Vec::new(), ..self.fetch_request(0) };
        let request = ShareFetchRequest { share_session_epoch: -1, ..request };
        ErrorCode::from_code(self.conn.ask(&request, 2).error_code)
    }
}

/// The error of a partition that must be named.
fn code(response: &ShareFetchResponse, topic: Uuid, index: i32) -> ErrorCode {
    let topic = response.responses.iter().find(|row| row.topic_id == topic).expect("the topic");
    let row = topic.partitions.iter().find(|row| row.partition_index == index).expect("the partition");
    ErrorCode::from_code(row.error_code)
}

fn code_of(response: &ShareFetchResponse) -> ErrorCode {
    ErrorCode::from_code(response.error_code)
}

#[test]
fn sessions_count_their_requests() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    for epoch in [1, -1] {
        let request = ShareFetchRequest { share_session_epoch: epoch, topics: Vec::new(), ..member.fetch_request(0) };
        assert_eq!(code_of(&member.conn.ask(&request, 2)), ErrorCode::ShareSessionNotFound, "epoch {epoch}");
    }
    assert_eq!(member.acknowledge(0, 0, &[ACCEPT]), ErrorCode::InvalidShareSessionEpoch);
    let mut with_acks = member.fetch_request(0);
    with_acks.topics[0].partitions[0].acknowledgement_batches =
        vec![AcknowledgementBatch { first_offset: 0, last_offset: 0, acknowledge_types: vec![ACCEPT] }];
    assert_eq!(code_of(&member.conn.ask(&with_acks, 2)), ErrorCode::InvalidRequest);
    let nobody = ShareFetchRequest { member_id: Some(String::new()), ..member.fetch_request(0) };
    assert_eq!(code_of(&member.conn.ask(&nobody, 2)), ErrorCode::InvalidRequest);
    let no_group = ShareFetchRequest { group_id: None, ..member.fetch_request(0) };
    assert_eq!(code_of(&member.conn.ask(&no_group, 2)), ErrorCode::InvalidRequest);

    let first = member.send(&member.fetch_request(0));
    assert!(first.responses.iter().flat_map(|topic| &topic.partitions).all(|row| row.acquired_records.is_empty()));
    let second = member.send(&member.fetch_request(0));
    assert_eq!(second.responses, [], "later ones those with news");
    let skipped = ShareFetchRequest { share_session_epoch: 5, ..member.fetch_request(0) };
    assert_eq!(code_of(&member.conn.ask(&skipped, 2)), ErrorCode::InvalidShareSessionEpoch);
    member.epoch = 7;
    assert_eq!(member.acknowledge(0, 0, &[ACCEPT]), ErrorCode::InvalidShareSessionEpoch);
    assert_eq!(member.close(), ErrorCode::None);
    assert_eq!(member.close(), ErrorCode::ShareSessionNotFound);
}

#[test]
fn unknown_topics_and_partitions_are_told_and_forgotten_ones_are_not() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    let partition = |partition_index| FetchPartition { partition_index, ..Default::default() };
    let mut request = member.fetch_request(0);
    request.topics[0].partitions.push(partition(9));
    let response = member.send(&request);
    assert_eq!(code(&response, world.topic_id, 9), ErrorCode::UnknownTopicOrPartition);
    let forgotten = vec![ForgottenTopic { topic_id: world.topic_id, partitions: vec![9] }];
    let request = ShareFetchRequest { forgotten_topics_data: forgotten, ..member.fetch_request(0) };
    assert_eq!(member.send(&request).responses, []);
    if server.ours.is_none() {
        // Kafka 4.3.1 answers the whole request with UNKNOWN_SERVER_ERROR.
        return;
    }
    let unknown = Uuid::from_bytes(fresh());
    let topics = vec![FetchTopic { topic_id: unknown, partitions: vec![partition(0)] }];
    let request = ShareFetchRequest { topics, ..member.fetch_request(0) };
    let response = member.send(&request);
    assert_eq!(code(&response, unknown, 0), ErrorCode::UnknownTopicId);
}

#[test]
fn accepted_records_are_done_released_ones_come_again_rejected_ones_do_not() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1", "2", "3", "4", "5"]);
    assert_eq!(member.fetch(), [(0, 5, 1)]);
    member.fetch_nothing();
    assert_eq!(member.acknowledge(0, 1, &[ACCEPT]), ErrorCode::None);
    assert_eq!(member.acknowledge(2, 5, &[RELEASE, REJECT, ACCEPT, RELEASE]), ErrorCode::None);
    assert_eq!(member.fetch(), [(2, 2, 2), (5, 5, 2)]);
    assert_eq!(member.acknowledge_with(&[(2, 2, &[ACCEPT]), (5, 5, &[ACCEPT])], false), ErrorCode::None);
    member.fetch_nothing();
    world.produce(&server, &["6"]);
    assert_eq!(member.fetch(), [(6, 6, 1)]);
}

#[test]
fn a_session_that_is_opened_again_takes_nothing_from_its_member() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1"]);
    assert_eq!(member.fetch(), [(0, 1, 1)]);
    member.epoch = 0;
    member.fetch_nothing();
    assert_eq!(member.acknowledge(0, 1, &[ACCEPT, RELEASE]), ErrorCode::None);
    assert_eq!(member.fetch(), [(1, 1, 2)]);
}

#[test]
fn a_partition_that_cannot_be_loaded_is_told_and_does_not_end_the_wait() {
    let server = Server::start();
    let (world, other) = (server.world(&[]), server.world(&[]));
    let mut member = world.member(&server);
    // The group is not subscribed to the other topic, so that there is no state of it.
    let topic = |topic_id| FetchTopic { topic_id, partitions: vec![FetchPartition::default()] };
    for topics in [vec![topic(other.topic_id)], vec![topic(other.topic_id), topic(world.topic_id)]] {
        member.epoch = 0;
        let begun = Instant::now();
        let response = member.send(&ShareFetchRequest { topics, ..member.fetch_request(1_500) });
        assert_eq!(code(&response, other.topic_id, 0), ErrorCode::UnknownServerError);
        assert!(begun.elapsed() > Duration::from_millis(1_200), "{:?}", begun.elapsed());
    }
    // What comes of the others ends the wait, and the error is told beside it.
    member.epoch = 0;
    world.produce(&server, &["0"]);
    let topics = vec![topic(other.topic_id), topic(world.topic_id)];
    let response = member.send(&ShareFetchRequest { topics, ..member.fetch_request(20_000) });
    let row = response.responses.iter().find(|row| row.topic_id == world.topic_id).expect("the topic with a record");
    assert_eq!(ranges(&row.partitions[0]), [(0, 0, 1)]);
}

#[test]
fn acknowledgements_travel_with_a_fetch() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1"]);
    assert_eq!(member.fetch(), [(0, 1, 1)]);
    world.produce(&server, &["2"]);
    let ack = |first_offset, last_offset, kind| AcknowledgementBatch {
        first_offset,
        last_offset,
        acknowledge_types: vec![kind],
    };
    let partition = FetchPartition { partition_index: 0, acknowledgement_batches: vec![ack(0, 1, ACCEPT)] };
    let topics = vec![FetchTopic { topic_id: world.topic_id, partitions: vec![partition] }];
    let request = ShareFetchRequest { topics, ..member.fetch_request(2_000) };
    let response = member.send(&request);
    let data = &response.responses[0].partitions[0];
    assert_eq!((data.error_code, data.acknowledge_error_code), (0, 0));
    assert_eq!(ranges(data), [(2, 2, 1)]);
    let partition = FetchPartition { partition_index: 0, acknowledgement_batches: vec![ack(0, 2, ACCEPT)] };
    let topics = vec![FetchTopic { topic_id: world.topic_id, partitions: vec![partition] }];
    let request = ShareFetchRequest { topics, ..member.fetch_request(0) };
    let response = member.send(&request);
    let data = &response.responses[0].partitions[0];
    assert_eq!(data.error_code, 0);
    // What lies before the start offset is done: the rest of the batch counts.
    assert_eq!(ErrorCode::from_code(data.acknowledge_error_code), ErrorCode::None);
    assert_eq!(member.close(), ErrorCode::None);
}

#[test]
fn bad_acknowledgements_change_nothing() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1", "2", "3"]);
    assert_eq!(member.fetch(), [(0, 3, 1)]);
    let mut other = world.member(&server);
    other.fetch_nothing();
    assert_eq!(other.acknowledge(0, 3, &[ACCEPT]), ErrorCode::InvalidRecordState);
    for (first, last, types) in
        [(3, 0, [ACCEPT].as_slice()), (0, 3, &[]), (0, 3, &[ACCEPT, ACCEPT]), (0, 3, &[9]), (0, 3, &[RENEW])]
    {
        assert_eq!(member.acknowledge(first, last, types), ErrorCode::InvalidRequest, "{first}-{last} {types:?}");
    }
    let overlapping = member.acknowledge_with(&[(0, 2, &[ACCEPT]), (2, 3, &[ACCEPT])], false);
    assert_eq!(overlapping, ErrorCode::InvalidRecordState);
    let overlapping = member.acknowledge_with(&[(0, 2, &[ACCEPT]), (1, 3, &[ACCEPT])], false);
    assert_eq!(overlapping, ErrorCode::InvalidRequest);
    assert_eq!(member.acknowledge(0, 9, &[ACCEPT]), ErrorCode::InvalidRequest, "beyond what was delivered");
    assert_eq!(member.acknowledge(0, 1, &[RELEASE]), ErrorCode::None);
    assert_eq!(member.acknowledge(0, 3, &[ACCEPT]), ErrorCode::InvalidRecordState, "a part of it is not delivered");
    assert_eq!(member.acknowledge(2, 3, &[ACCEPT]), ErrorCode::None, "so nothing of it was accepted");
    assert_eq!(member.fetch(), [(0, 1, 2)]);
}

#[test]
fn locks_run_out_and_what_nobody_manages_is_given_up() {
    let server = Server::start();
    let world = server.world(&[SHORT_LOCK, ("share.delivery.count.limit", "2")]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1"]);
    assert_eq!(member.fetch(), [(0, 1, 1)]);
    assert_eq!(member.acknowledge(0, 0, &[ACCEPT]), ErrorCode::None);
    assert_eq!(member.fetch(), [(1, 1, 2)], "a fetch that waits gets it when its lock runs out");
    world.produce(&server, &["2"]);
    assert_eq!(member.fetch(), [(2, 2, 1)]);
    assert_eq!(member.fetch(), [(2, 2, 2)], "the other one was delivered twice and is given up");
    assert_eq!(member.acknowledge(1, 1, &[ACCEPT]), ErrorCode::None, "it lies before the start offset");
}

#[test]
fn a_renewal_keeps_the_lock() {
    let server = Server::start();
    let world = server.world(&[SHORT_LOCK]);
    let mut member = world.member(&server);
    world.produce(&server, &["0"]);
    assert_eq!(member.fetch(), [(0, 0, 1)]);
    let mut other = world.member(&server);
    let until = Instant::now() + Duration::from_millis(3_500);
    while Instant::now() < until {
        assert_eq!(member.acknowledge_with(&[(0, 0, &[RENEW])], true), ErrorCode::None);
        assert_eq!(ranges(&other.fetch_within(300)), []);
    }
    assert_eq!(member.acknowledge(0, 0, &[ACCEPT]), ErrorCode::None);
    let mut renews_and_fetches = member.fetch_request(0);
    renews_and_fetches.is_renew_ack = true;
    assert_eq!(code_of(&member.conn.ask(&renews_and_fetches, 2)), ErrorCode::InvalidRequest);
}

#[test]
fn a_renewal_that_the_group_does_not_allow_takes_the_other_decisions_along() {
    let server = Server::start();
    let world = server.world(&[("share.renew.acknowledge.enable", "false")]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1", "2"]);
    assert_eq!(member.fetch(), [(0, 2, 1)]);
    assert_eq!(member.acknowledge(0, 0, &[ACCEPT]), ErrorCode::None);
    let refused = ErrorCode::InvalidRecordState;
    for batches in [&[(1, 1, &[RENEW][..])][..], &[(1, 2, &[ACCEPT, RENEW])], &[(1, 1, &[ACCEPT]), (2, 2, &[RENEW])]] {
        assert_eq!(member.acknowledge_with(batches, true), refused, "{batches:?}");
    }
    assert_eq!(member.acknowledge_with(&[(0, 0, &[RENEW])], true), ErrorCode::None, "it is behind everybody");
    assert_eq!(member.acknowledge_with(&[(9, 9, &[RENEW])], true), ErrorCode::InvalidRequest, "it is not there");
    assert_eq!(member.acknowledge(1, 2, &[ACCEPT]), ErrorCode::None, "still the member's");
}

#[test]
fn what_a_session_had_is_free_when_it_ends() {
    let server = Server::start();
    let world = server.world(&[]);
    let (mut first, mut second) = (world.member(&server), world.member(&server));
    world.produce(&server, &["0", "1"]);
    assert_eq!(first.fetch(), [(0, 1, 1)]);
    second.fetch_nothing();
    assert_eq!(first.close(), ErrorCode::None);
    assert_eq!(second.fetch(), [(0, 1, 2)]);
    drop(second);
    let mut third = world.member(&server);
    assert_eq!(third.fetch(), [(0, 1, 3)], "a connection that ends takes its session along");
    assert_eq!(third.acknowledge(0, 1, &[ACCEPT]), ErrorCode::None);
}

#[test]
fn record_limit_is_strict_and_batch_optimized_is_not() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1", "2", "3", "4"]);
    let limited = |member: &Member, mode| ShareFetchRequest {
        max_records: 2,
        batch_size: 2,
        share_acquire_mode: mode,
        ..member.fetch_request(2_000)
    };
    let get = |member: &mut Member, mode| {
        let response = member.send(&limited(member, mode));
        let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next().unwrap_or_default();
        ranges(&data)
    };
    let first = eventually("records", || Some(get(&mut member, 1)).filter(|ranges| !ranges.is_empty()));
    assert_eq!(first, [(0, 1, 1)]);
    assert_eq!(get(&mut member, 1), [(2, 3, 1)]);
    assert_eq!(get(&mut member, 0), [(4, 4, 1)]);
    world.produce(&server, &["5", "6", "7"]);
    assert_eq!(get(&mut member, 0), [(5, 7, 1)], "whole batches");
}

#[test]
fn a_fetch_waits_for_records_of_the_log_and_for_those_that_are_given_back() {
    let server = Server::start();
    let world = server.world(&[]);
    let (mut first, mut second) = (world.member(&server), world.member(&server));
    first.fetch_nothing();
    second.fetch_nothing();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            (ranges(&first.fetch_within(20_000)), began.elapsed())
        });
        std::thread::sleep(Duration::from_millis(300));
        world.produce(&server, &["0"]);
        let (got, took) = waiting.join().unwrap();
        assert_eq!(got, [(0, 0, 1)]);
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            (ranges(&second.fetch_within(20_000)), began.elapsed())
        });
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(first.acknowledge(0, 0, &[RELEASE]), ErrorCode::None);
        let (got, took) = waiting.join().unwrap();
        assert_eq!(got, [(0, 0, 2)]);
        // Kafka lets it wait to the end.
        assert!(server.ours.is_none() || took < Duration::from_secs(10), "{took:?}");
    });
}

/// `share.isolation.level`: what was aborted is never handed out, and nothing of a transaction before it is decided.
#[test]
fn read_committed_hands_out_what_was_decided_for() {
    let server = Server::start();
    let world = server.world(&[("share.isolation.level", "read_committed")]);
    let mut member = world.member(&server);
    let mut conn = server.conn();
    let place = (world.name.clone(), 0);
    let mut p = producer(&mut conn, &world.name, Version::Two);
    world.produce(&server, &["before"]);
    for (value, commit) in [("aborted", false), ("committed", true)] {
        produce(&mut conn, &mut p, &place, value);
        let response = settled(&mut conn, &p.end(commit), p.version.end(), |response| response.error_code);
        ended(&mut p, &response);
    }
    produce(&mut conn, &mut p, &place, "open");
    world.produce(&server, &["behind"]);
    // 0 before, 1 aborted and its marker, 3 committed and its marker, 5 open, 6 behind.
    let handed_out = |member: &mut Member, wanted: i64| {
        let mut offsets: Vec<i64> = Vec::new();
        eventually("the records", || {
            offsets.extend(member.fetch().into_iter().flat_map(|(first, last, _)| first..=last));
            offsets.contains(&wanted).then_some(())
        });
        offsets
    };
    let offsets = handed_out(&mut member, 3);
    assert!(offsets.contains(&0) && !offsets.contains(&1), "{offsets:?}");
    assert!(!offsets.contains(&5) && !offsets.contains(&6), "beyond the last stable offset: {offsets:?}");
    assert_eq!(member.acknowledge(0, 0, &[ACCEPT]), ErrorCode::None);
    let response = settled(&mut conn, &p.end(true), p.version.end(), |response| response.error_code);
    ended(&mut p, &response);
    let offsets = handed_out(&mut member, 6);
    assert!(offsets.contains(&5), "{offsets:?}");
}

#[test]
fn deleted_records_are_passed() {
    let server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    world.produce(&server, &["0", "1", "2", "3"]);
    assert_eq!(member.fetch(), [(0, 3, 1)]);
    assert_eq!(member.acknowledge(0, 3, &[RELEASE]), ErrorCode::None);
    let partition = DeleteRecordsPartition { partition_index: 0, offset: 2 };
    let topic = DeleteRecordsTopic { name: world.name.clone(), partitions: vec![partition] };
    server.conn().ask(&DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 }, 2);
    assert_eq!(member.fetch(), [(2, 3, 2)]);
    assert_eq!(member.acknowledge(0, 3, &[ACCEPT]), ErrorCode::None, "what is gone is not asked about");
    member.fetch_nothing();
}

#[test]
fn after_a_kill_what_was_accepted_stays_so_and_the_rest_comes_again() {
    if std::env::var_os("KAFKA_ORACLE").is_some() {
        return;
    }
    let mut server = Server::start();
    let world = server.world(&[]);
    let mut member = world.member(&server);
    for round in 0..8 {
        world.produce(&server, ["a", "b", "c", "d"].map(|value| value).as_slice());
        assert_eq!(member.fetch(), [(round * 4, round * 4 + 3, 1)]);
    }
    // Accepted: 0-5 and 10-19; released: 24. The rest is in delivery.
    for (first, last) in [(0, 5), (10, 19)] {
        assert_eq!(member.acknowledge(first, last, &[ACCEPT]), ErrorCode::None);
    }
    assert_eq!(member.acknowledge(24, 24, &[RELEASE]), ErrorCode::None);
    let broker = server.ours.as_mut().unwrap();
    broker.kill();
    broker.launch();
    server.port = server.ours.as_ref().unwrap().port;
    let mut member = world.member(&server);
    let mut got = Vec::new();
    while got.len() < 16 {
        let ranges = member.fetch();
        assert!(!ranges.is_empty(), "not everything comes again: {got:?}");
        for (first, last, _) in ranges {
            got.extend(first..=last);
            assert_eq!(member.acknowledge(first, last, &[ACCEPT]), ErrorCode::None);
        }
    }
    let expected: Vec<i64> = (6..10).chain(20..32).collect();
    got.sort_unstable();
    assert_eq!(got, expected);
    member.fetch_nothing();
}
