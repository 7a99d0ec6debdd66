//! The classic protocol's embedded formats (`ConsumerProtocolSubscription`, `ConsumerProtocolAssignment`) and the range and
//! round-robin assignors; the cooperative one stands in `sticky.rs`. Answers to `ConsumerProtocol`, `RangeAssignor`,
//! `RoundRobinAssignor`: for the same members, topics and subscriptions they give what the Java assignors give.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use taccola_base::TopicPartition;
use taccola_wire::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use taccola_wire::messages::consumer_protocol_assignment::{self as assignment, ConsumerProtocolAssignment};
use taccola_wire::messages::consumer_protocol_subscription::{self as subscription, ConsumerProtocolSubscription};

use super::sticky;

/// Versions that this client writes. Newer ones only add fields at the end.
const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 1;
/// No generation yet, or none that a member says.
pub(super) const NO_GENERATION: i32 = -1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    Range,
    RoundRobin,
    /// Members keep what stays with them while the group rebalances (KIP-429), if it is the only one that they name.
    CooperativeSticky,
}

impl Assignor {
    /// In order of preference.
    pub const ALL: [Self; 3] = [Self::Range, Self::RoundRobin, Self::CooperativeSticky];

    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Partitions per member. `partitions` holds the count of each topic that exists; topics without one get no owner.
    pub fn assign(
        self,
        members: &[Subscription],
        partitions: &BTreeMap<Arc<str>, i32>,
    ) -> HashMap<String, Vec<TopicPartition>> {
        match self {
            Self::Range => range(members, partitions),
            Self::RoundRobin => round_robin(members, partitions),
            Self::CooperativeSticky => sticky::assign(members, partitions),
        }
    }
}

/// What a member of the group wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub topics: BTreeSet<String>,
    /// What it owned when it joined, and in which generation it was given that (-1: unknown).
    pub owned: Vec<TopicPartition>,
    pub generation: i32,
}

impl Subscription {
    /// Members with a static id come first, by that id; the others by member id (`MemberInfo.compareTo`).
    fn order(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance) => (false, instance),
            None => (true, &self.member_id),
        }
    }
}

fn sorted(members: &[Subscription]) -> Vec<&Subscription> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|a, b| a.order().cmp(&b.order()));
    sorted
}

/// Per topic, consecutive ranges in the members' order; the first ones get one more when it does not divide evenly.
fn range(members: &[Subscription], partitions: &BTreeMap<Arc<str>, i32>) -> HashMap<String, Vec<TopicPartition>> {
    let mut owned: HashMap<String, Vec<TopicPartition>> = HashMap::new();
    let members = sorted(members);
    for member in &members {
        owned.entry(member.member_id.clone()).or_default();
    }
    for (topic, count) in partitions {
        let takers: Vec<_> = members.iter().filter(|m| m.topics.contains(&**topic)).collect();
        let takers_count = takers.len() as i32;
        if takers_count == 0 {
            continue;
        }
        let (each, extra) = (count / takers_count, count % takers_count);
        let mut next = 0;
        for (at, member) in (0i32..).zip(takers) {
            let share = each + i32::from(at < extra);
            let list = owned.entry(member.member_id.clone()).or_default();
            list.extend((next..next + share).map(|p| TopicPartition::new(Arc::clone(topic), p)));
            next += share;
        }
    }
    owned
}

/// All partitions of all topics in order, dealt out in a circle to the members that want them.
fn round_robin(members: &[Subscription], partitions: &BTreeMap<Arc<str>, i32>) -> HashMap<String, Vec<TopicPartition>> {
    let mut owned: HashMap<String, Vec<TopicPartition>> = HashMap::new();
    let members = sorted(members);
    for member in &members {
        owned.entry(member.member_id.clone()).or_default();
    }
    let mut circle = members.iter().cycle();
    for (topic, count) in partitions {
        if !members.iter().any(|m| m.topics.contains(&**topic)) {
            continue;
        }
        for partition in 0..*count {
            // Some member wants the topic, so the circle comes to it.
            if let Some(member) = circle.by_ref().find(|m| m.topics.contains(&**topic)) {
                let list = owned.entry(member.member_id.clone()).or_default();
                list.push(TopicPartition::new(Arc::clone(topic), partition));
            }
        }
    }
    owned
}

/// Two bytes of version stand in front of both formats.
fn versioned<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.write(&mut writer, version)?;
    let body = writer.into_bytes();
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(version);
    bytes.put_slice(&body);
    Ok(bytes.freeze())
}

/// Reads a version that may be newer than what is known here: such versions are read as the newest known one.
fn read_versioned<M: Message>(mut bytes: Bytes) -> Result<M, DecodeError> {
    let version = if bytes.len() < 2 { -1 } else { bytes.get_i16() };
    M::read(&mut Reader::new(bytes), version.min(M::MAX_VERSION))
}

/// The generation stands in the user data as well, for readers of `CooperativeStickyAssignor` before version 2.
pub(crate) fn encode_subscription(
    topics: &BTreeSet<String>,
    owned: &BTreeSet<TopicPartition>,
    generation: i32,
    rack: &str,
) -> Result<Bytes, EncodeError> {
    let topic = |(topic, partitions): (&Arc<str>, Vec<i32>)| subscription::TopicPartition {
        topic: topic.to_string(),
        partitions,
    };
    let message = ConsumerProtocolSubscription {
        topics: topics.iter().cloned().collect(),
        user_data: Some(Bytes::copy_from_slice(&generation.to_be_bytes())),
        owned_partitions: by_topic(owned).into_iter().map(topic).collect(),
        generation_id: generation,
        rack_id: (!rack.is_empty()).then(|| rack.to_owned()),
    };
    versioned(&message, SUBSCRIPTION_VERSION)
}

/// What the member `member_id` of an answer to JoinGroup wants.
pub(crate) fn decode_subscription(
    member_id: String,
    instance_id: Option<String>,
    bytes: Bytes,
) -> Result<Subscription, DecodeError> {
    let message = read_versioned::<ConsumerProtocolSubscription>(bytes)?;
    // Java's and librdkafka's sticky assignors both end their user data with it.
    let last = || message.user_data.as_deref().and_then(|data| data.last_chunk().copied());
    let generation = match message.generation_id {
        said @ 0.. => said,
        _ => last().map_or(NO_GENERATION, i32::from_be_bytes).max(NO_GENERATION),
    };
    let owned = message.owned_partitions.into_iter().map(|t| (t.topic, t.partitions));
    let topics = message.topics.into_iter().collect();
    Ok(Subscription { member_id, instance_id, topics, owned: flat(owned), generation })
}

fn by_topic<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> BTreeMap<&'a Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for p in partitions {
        topics.entry(&p.topic).or_default().push(p.partition);
    }
    topics
}

fn flat(topics: impl Iterator<Item = (String, Vec<i32>)>) -> Vec<TopicPartition> {
    let mut partitions = Vec::new();
    for (topic, list) in topics {
        let name: Arc<str> = topic.into();
        partitions.extend(list.into_iter().map(|p| TopicPartition::new(Arc::clone(&name), p)));
    }
    partitions
}

pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes, EncodeError> {
    let topic = |(topic, partitions): (&Arc<str>, Vec<i32>)| assignment::TopicPartition {
        topic: topic.to_string(),
        partitions,
    };
    let message = ConsumerProtocolAssignment {
        assigned_partitions: by_topic(partitions).into_iter().map(topic).collect(),
        ..Default::default()
    };
    versioned(&message, ASSIGNMENT_VERSION)
}

/// An empty byte string is an empty assignment, as for members that the leader left out.
pub(crate) fn decode_assignment(bytes: Bytes) -> Result<Vec<TopicPartition>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let message: ConsumerProtocolAssignment = read_versioned(bytes)?;
    Ok(flat(message.assigned_partitions.into_iter().map(|t| (t.topic, t.partitions))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, instance: Option<&str>, topics: &[&str]) -> Subscription {
        Subscription {
            member_id: id.to_owned(),
            instance_id: instance.map(str::to_owned),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            owned: Vec::new(),
            generation: NO_GENERATION,
        }
    }

    fn shown(owned: &HashMap<String, Vec<TopicPartition>>) -> Vec<String> {
        let mut lines: Vec<_> = owned
            .iter()
            .map(|(id, list)| format!("{id}: {}", list.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(" ")))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn range_gives_the_first_members_more() {
        let members = [member("b", None, &["t", "u"]), member("a", None, &["t"]), member("c", Some("0"), &["t"])];
        let partitions = BTreeMap::from([("t".into(), 4), ("u".into(), 1), ("unwanted".into(), 3)]);
        let owned = Assignor::Range.assign(&members, &partitions);
        assert_eq!(shown(&owned), ["a: t-2", "b: t-3 u-0", "c: t-0 t-1"]);
    }

    #[test]
    fn round_robin_goes_on_across_topics() {
        let members = [member("a", None, &["t", "u"]), member("b", None, &["t", "u"])];
        let partitions = BTreeMap::from([("t".into(), 3), ("u".into(), 3)]);
        let owned = Assignor::RoundRobin.assign(&members, &partitions);
        assert_eq!(shown(&owned), ["a: t-0 t-2 u-1", "b: t-1 u-0 u-2"]);
    }

    #[test]
    fn formats_go_there_and_back() {
        let owned = vec![TopicPartition::new("x", 1), TopicPartition::new("y", 0)];
        let wants = Subscription { owned: owned.clone(), generation: 7, ..member("m", None, &["x", "y"]) };
        let bytes = encode_subscription(&wants.topics, &owned.into_iter().collect(), 7, "rack").unwrap();
        assert_eq!(decode_subscription("m".to_owned(), None, bytes), Ok(wants));
        let partitions = vec![TopicPartition::new("x", 0), TopicPartition::new("x", 3), TopicPartition::new("y", 1)];
        assert_eq!(decode_assignment(encode_assignment(&partitions).unwrap()), Ok(partitions));
        assert_eq!(decode_assignment(Bytes::new()), Ok(vec![]));
        for damaged in [&b"\0"[..], b"\xff\xff", b"\0\x01\x7f\xff\xff\xff"] {
            assert!(decode_assignment(Bytes::from_static(damaged)).is_err());
        }
    }

    #[test]
    fn the_generation_of_older_members_stands_at_the_end_of_their_user_data() {
        // Java before version 2: the generation alone. librdkafka: what it owned (here nothing), then the generation.
        for (data, generation) in [(&[0, 0, 0, 9][..], 9), (&[0, 0, 0, 0, 0, 0, 0, 5], 5), (&[1], -1), (&[255; 4], -1)]
        {
            let user_data = Some(Bytes::copy_from_slice(data));
            let message = ConsumerProtocolSubscription { user_data, ..Default::default() };
            let bytes = versioned(&message, 1).unwrap();
            let read = decode_subscription("m".to_owned(), None, bytes).unwrap();
            assert_eq!(read, Subscription { generation, ..member("m", None, &[]) });
        }
    }
}
