//! The consumer protocol that members of classic groups speak with each other, as far as the coordinator reads and writes
//! it. Answers to Kafka's `ConsumerProtocol`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use taccola_wire::codec::{Message, Reader, Writer};
use taccola_wire::messages::consumer_protocol_assignment::TopicPartition;
use taccola_wire::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};

use super::member::Current;
use crate::cluster_image::ClusterImage;
use crate::modern::assignment::{Assignment, normalized, without_epochs};

pub(super) struct Embedded {
    /// Ascending, each once.
    pub(super) topics: Vec<Arc<str>>,
    pub(super) rack_id: Option<String>,
}

/// The version in front. Newer ones than are known begin with what the newest known one has.
fn version_and_body(bytes: &Bytes, max: i16) -> Option<(i16, Bytes)> {
    let version = i16::from_be_bytes(*bytes.first_chunk::<2>()?);
    (version >= 0).then(|| (version.min(max), bytes.slice(2..)))
}

/// A subscription, and what the member says that it has of topics that exist.
pub(super) fn subscription_of(image: &dyn ClusterImage, metadata: &Bytes) -> Option<(Embedded, Assignment)> {
    let (version, body) = version_and_body(metadata, ConsumerProtocolSubscription::MAX_VERSION)?;
    let said = ConsumerProtocolSubscription::read(&mut Reader::new(body), version).ok()?;
    let mut topics: Vec<Arc<str>> = said.topics.into_iter().map(Arc::from).collect();
    topics.sort_unstable();
    topics.dedup();
    let owned = said.owned_partitions.into_iter();
    let owned = normalized(owned.filter_map(|t| Some((image.topic_by_name(&t.topic)?.id, t.partitions))));
    Some((Embedded { topics, rack_id: said.rack_id }, owned))
}

/// The assignment of a member of a classic group; `None` when it cannot be read, or says more than partitions.
pub(super) fn assignment_of(image: &dyn ClusterImage, bytes: &Bytes) -> Option<Assignment> {
    if bytes.is_empty() {
        return Some(Assignment::new());
    }
    let (version, body) = version_and_body(bytes, ConsumerProtocolAssignment::MAX_VERSION)?;
    let said = ConsumerProtocolAssignment::read(&mut Reader::new(body), version).ok()?;
    if said.user_data.is_some_and(|data| !data.is_empty()) {
        return None;
    }
    let rows = said.assigned_partitions.into_iter();
    Some(normalized(rows.filter_map(|t| Some((image.topic_by_name(&t.topic)?.id, t.partitions)))))
}

/// What a member has, in the version in which it gave its `metadata`.
pub(super) fn assignment_bytes(image: &dyn ClusterImage, current: &Current, metadata: &Bytes) -> Option<Bytes> {
    bytes_of(image, &without_epochs(&current.assigned), metadata)
}

pub(super) fn bytes_of(image: &dyn ClusterImage, assignment: &Assignment, metadata: &Bytes) -> Option<Bytes> {
    let (version, _) = version_and_body(metadata, ConsumerProtocolAssignment::MAX_VERSION)?;
    let named: BTreeMap<Arc<str>, &Vec<i32>> =
        assignment.iter().filter_map(|(id, partitions)| Some((image.topic_by_id(*id)?.name, partitions))).collect();
    let row = |(name, partitions): (Arc<str>, &Vec<i32>)| TopicPartition {
        topic: name.to_string(),
        partitions: partitions.clone(),
    };
    let message =
        ConsumerProtocolAssignment { assigned_partitions: named.into_iter().map(row).collect(), user_data: None };
    let mut writer = Writer::new();
    message.write(&mut writer, version).ok()?;
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&writer.into_bytes());
    Some(bytes.freeze())
}
