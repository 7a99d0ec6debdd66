//! What the test suites of other clients found: requests as those clients form them, each with the answer that they need.

use taccola_it::Broker;
use taccola_it::conn::Conn;
use taccola_it::requests::new_topic;
use taccola_wire::api::ApiKey;
use taccola_wire::messages::MetadataResponse;

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
