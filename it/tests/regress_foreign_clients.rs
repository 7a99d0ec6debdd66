//! What the test suites of other clients found: requests as those clients form them, each with the answer that they need.

use taccola_base::Uuid;
use taccola_it::conn::Conn;
use taccola_it::requests::{fetch_request, new_topic};
use taccola_it::{Broker, eventually};
use taccola_wire::api::ApiKey;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::metadata_request::MetadataRequestTopic;
use taccola_wire::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse};

/// librdkafka writes a null topic array into the place of a four-byte count, so that a Metadata request for all topics
/// carries three bytes behind its last field from version 9 on. Kafka does not look at them.
#[test]
fn bytes_behind_a_request_are_ignored() {
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "there", 1, &[]);
    for version in 9..=13 {
        let null_array_as_count: &[u8] = if version <= 10 { &[0, 0, 0, 0, 1, 0, 0, 0] } else { &[0, 0, 0, 0, 1, 0, 0] };
        let id = conn.send_body(ApiKey::Metadata, version, null_array_as_count).expect("sent");
        let reply: MetadataResponse = conn.reply(ApiKey::Metadata, version, id).expect("an answer");
        let names: Vec<_> = reply.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
        assert!(names.contains(&"there"), "version {version}: {names:?}");
    }
}

const FETCH_BY_ID: i16 = 13;

/// One round of a session; with `ask`, the topic's partition 0 is named in it. The session's id and the partition's error.
fn round(conn: &mut Conn, session_id: i32, session_epoch: i32, id: Uuid, ask: bool) -> (i32, i16) {
    let mut request = FetchRequest { session_id, session_epoch, ..fetch_request("", 0, 0) };
    match ask {
        true => request.topics.iter_mut().for_each(|topic| topic.topic_id = id),
        false => request.topics.clear(),
    }
    let response = conn.ask(&request, FETCH_BY_ID);
    assert_eq!(response.error_code, 0, "epoch {session_epoch}");
    let topic = response.responses.iter().find(|topic| topic.topic_id == id);
    (response.session_id, topic.and_then(|topic| topic.partitions.first()).map_or(0, |partition| partition.error_code))
}

fn delete(conn: &mut Conn, topic: &str) {
    let topics = vec![DeleteTopicState { name: Some(topic.to_owned()), ..Default::default() }];
    let deleted = conn.ask(&DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() }, 6);
    assert!(deleted.responses.iter().all(|topic| topic.error_code == 0));
}

/// kafka-go ends a reader with any error but "unknown topic", which it takes for a topic that may come back.
#[test]
fn a_fetch_that_waits_while_its_topic_is_deleted_hears_that_it_is_unknown() {
    let broker = Broker::start(&[]);
    let (mut conn, mut waiting) = (Conn::connect(broker.port).unwrap(), Conn::connect(broker.port).unwrap());
    for _ in 0..10 {
        new_topic(&mut conn, "t", 1, &[]);
        let request = FetchRequest { max_wait_ms: 60_000, min_bytes: 1, ..fetch_request("t", 0, 0) };
        let id = waiting.send(&request, FETCH_BY_ID - 1).unwrap();
        delete(&mut conn, "t");
        let response: FetchResponse = waiting.reply(ApiKey::Fetch, FETCH_BY_ID - 1, id).unwrap();
        let code = response.responses[0].partitions[0].error_code;
        assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code());
    }
}

/// kafka-go looks whether a topic is gone with a request that may create it.
#[test]
fn the_answer_that_creates_a_topic_does_not_have_it_yet() {
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "t", 1, &[]);
    delete(&mut conn, "t");
    let topics = vec![MetadataRequestTopic { name: Some("t".to_owned()), ..Default::default() }];
    let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: true, ..Default::default() };
    let first = &conn.ask(&request, 9).topics[0];
    assert_eq!((first.error_code, first.partitions.len()), (ErrorCode::UnknownTopicOrPartition.code(), 0));
    eventually("the topic", || (conn.ask(&request, 9).topics[0].partitions.len() == 1).then_some(()));
}

/// franz-go tells a topic that was deleted, or deleted and made anew, from an id that the broker never knew. A session
/// knows the name of a topic that is gone; a request without session does not.
#[test]
fn a_session_tells_a_topic_that_is_gone_from_an_unknown_id() {
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    let id = new_topic(&mut conn, "t", 1, &[]);
    let (session, code) = round(&mut conn, 0, 0, id, true);
    assert_eq!(code, 0);
    assert!(session > 0);

    delete(&mut conn, "t");
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    let mut epoch = 0;
    eventually("the session to see the deletion", || {
        epoch += 1;
        (round(&mut conn, session, epoch, id, false).1 == gone).then_some(())
    });
    assert_eq!(round(&mut conn, session, epoch + 1, id, true).1, gone);
    assert_eq!(round(&mut conn, 0, -1, id, true).1, ErrorCode::UnknownTopicId.code());

    assert_ne!(new_topic(&mut conn, "t", 1, &[]), id);
    let other = ErrorCode::InconsistentTopicId.code();
    epoch += 1;
    eventually("the session to see the new topic", || {
        epoch += 1;
        (round(&mut conn, session, epoch, id, false).1 == other).then_some(())
    });
    assert_eq!(round(&mut conn, session, epoch + 1, id, true).1, other);
}
