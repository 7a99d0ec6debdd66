//! What is simulated: the broker's settings, the topics, and the clients.

use std::collections::BTreeMap;

use taccola_base::topic::{GROUP_METADATA_TOPIC, SHARE_GROUP_STATE_TOPIC, TRANSACTION_STATE_TOPIC};
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use super::clients::Client;
use super::clients::classic::Classic;
use super::clients::committer::Committer;
use super::clients::deleter::Deleter;
use super::clients::member::Member;
use super::clients::producer::Producer;
use super::clients::reader::Reader;
use super::clients::share::Sharer;
use super::clients::streams::Streamer;
use super::clients::transactional::Transactional;
use super::ledger::Kind;
use super::rng::Rng;

/// Small things, so that much happens in few steps.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "0"),
    ("listeners", "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"),
    ("advertised.listeners", "PLAINTEXT://127.0.0.1:9092"),
    ("controller.listener.names", "CONTROLLER"),
    ("controller.quorum.voters", "0@127.0.0.1:9093"),
    ("offsets.topic.num.partitions", "2"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.num.partitions", "2"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("log.index.size.max.bytes", "1024"),
    ("log.index.interval.bytes", "512"),
    ("log.cleaner.min.cleanable.ratio", "0.01"),
    ("log.segment.delete.delay.ms", "1000"),
    ("log.roll.ms", "30000"),
    ("offsets.retention.check.interval.ms", "864000000"),
    ("share.coordinator.state.topic.num.partitions", "2"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("taccola.journal.bytes", "1048576"),
    ("taccola.disk.reserve.bytes", "0"),
    ("taccola.crash.loop.limit", "0"),
];

const DURABLE: &str = "durable";
const LOOSE: &str = "loose";
const COMPACTED: &str = "compacted";
const IN_TRANSACTIONS: &str = "transactions";
/// Somebody deletes records of it.
const TRIMMED: &str = "trimmed";
pub(super) const BY_SIZE: &str = "by-size";
pub(super) const BY_TIME: &str = "by-time";
/// `retention.bytes` of the one, `retention.ms` of the other.
pub(super) const RETENTION_BYTES: u64 = 10_000;
pub(super) const RETENTION_MS: i64 = 90_000;
/// Segments of topics with retention.
pub(super) const TINY_BYTES: u64 = 4_096;

pub(super) fn kinds() -> BTreeMap<String, Kind> {
    let kinds = [
        (DURABLE, Kind::Durable),
        (LOOSE, Kind::PageCache),
        (COMPACTED, Kind::Compacted),
        (IN_TRANSACTIONS, Kind::Durable),
        (TRIMMED, Kind::Durable),
        (BY_SIZE, Kind::Retained(None)),
        (BY_TIME, Kind::Retained(Some(RETENTION_MS))),
    ];
    kinds.map(|(name, kind)| (name.to_owned(), kind)).into()
}

pub(super) fn topics() -> Vec<CreatableTopic> {
    let topic = |name: &str, partitions: i32, configs: &[(&str, &str)]| CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).to_owned(), value: Some((*value).to_owned()) })
            .collect(),
        ..Default::default()
    };
    let (tiny, most, oldest) = (TINY_BYTES.to_string(), RETENTION_BYTES.to_string(), RETENTION_MS.to_string());
    let (small, tiny) = (("internal.segment.bytes", "8192"), ("internal.segment.bytes", tiny.as_str()));
    let compact = ("cleanup.policy", "compact");
    vec![
        topic(DURABLE, 2, &[small]),
        topic(LOOSE, 1, &[small]),
        topic(COMPACTED, 1, &[tiny, compact]),
        topic(IN_TRANSACTIONS, 3, &[small]),
        topic(TRIMMED, 2, &[tiny]),
        topic(BY_SIZE, 1, &[tiny, ("retention.bytes", &most), ("retention.ms", "-1")]),
        topic(BY_TIME, 1, &[tiny, ("retention.ms", &oldest)]),
        topic(GROUP_METADATA_TOPIC, 2, &[tiny, compact]),
        topic(TRANSACTION_STATE_TOPIC, 2, &[tiny, compact]),
        topic(SHARE_GROUP_STATE_TOPIC, 2, &[tiny]),
    ]
}

/// A few of each kind.
pub(super) fn clients(rng: &mut Rng) -> Vec<Box<dyn Client>> {
    let mut clients: Vec<Box<dyn Client>> = vec![
        Box::new(Producer::new(1, DURABLE, 2, -1, true, false)),
        Box::new(Producer::new(2, DURABLE, 2, -1, false, false)),
        Box::new(Producer::new(3, LOOSE, 1, 1, false, false)),
        Box::new(Producer::new(4, COMPACTED, 1, -1, true, true)),
        Box::new(Committer::new("g0".to_owned(), DURABLE)),
        Box::new(Committer::new("g1".to_owned(), DURABLE)),
        Box::new(Reader::new(1, IN_TRANSACTIONS, 3, true)),
        Box::new(Reader::new(2, DURABLE, 2, false)),
    ];
    clients.push(Box::new(Producer::new(5, TRIMMED, 2, -1, true, false)));
    clients.push(Box::new(Deleter::new(TRIMMED, 2)));
    clients.push(Box::new(Reader::new(3, TRIMMED, 2, false)));
    clients.push(Box::new(Producer::new(6, BY_SIZE, 1, -1, true, false)));
    clients.push(Box::new(Producer::new(7, BY_TIME, 1, -1, true, false)));
    for number in 1..4 {
        clients.push(Box::new(Classic::new(number, "classics", DURABLE, number == 2)));
        clients.push(Box::new(Streamer::new(number, "streamers", IN_TRANSACTIONS)));
        clients.push(Box::new(Member::new(number, "members", IN_TRANSACTIONS)));
    }
    for number in 1..3 {
        clients.push(Box::new(Sharer::new(number, "sharers", DURABLE, 2)));
    }
    for number in 0..2 + rng.index(3) as u32 {
        clients.push(Box::new(Transactional::new(10 + number, IN_TRANSACTIONS, 3, number % 2 == 0)));
    }
    clients
}
