//! What the image looks like to clients: the rows of Metadata, DescribeTopicPartitions and DescribeCluster. Answers to
//! `KRaftMetadataCache`. Authorisation is the caller's: it decides which topics are asked for and which rows are hidden.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::topic::is_internal;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_cluster_response::DescribeClusterBroker;
use taccola_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use taccola_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

use crate::feature::{AdvertisedFeature, advertised};
use crate::image::{BrokerRegistration, Endpoint, MetadataImage, NO_LEADER, PartitionRegistration, TopicImage};

/// "Not asked for" in fields of authorised operations.
const NO_OPERATIONS: i32 = i32::MIN;

/// How partitions look to a client of one listener and one version of Metadata.
#[derive(Debug, Clone, Copy)]
pub struct ListenerView<'a> {
    /// The listener on which the request came in: the client is told addresses of the same listener.
    pub listener: &'a str,
    /// Metadata v0 leaves replicas that are not live out of the lists.
    pub hide_unavailable: bool,
    /// From v6 on, a leader without that listener is LISTENER_NOT_FOUND rather than LEADER_NOT_AVAILABLE.
    pub tell_missing_listener: bool,
}

impl<'a> ListenerView<'a> {
    pub fn for_metadata(listener: &'a str, version: i16) -> Self {
        Self { listener, hide_unavailable: version == 0, tell_missing_listener: version >= 6 }
    }
}

/// A live broker's address on the listener.
fn live<'a>(image: &'a MetadataImage, broker: i32, listener: &str) -> Option<(&'a BrokerRegistration, &'a Endpoint)> {
    let broker = image.cluster.brokers.get(&broker).filter(|b| !b.fenced)?;
    Some((broker, broker.listener(listener)?))
}

/// The brokers that Metadata names: live, and reachable on the listener.
pub fn metadata_brokers(image: &MetadataImage, listener: &str) -> Vec<MetadataResponseBroker> {
    let live = image.cluster.brokers.keys().filter_map(|id| live(image, *id, listener));
    live.map(|(broker, endpoint)| MetadataResponseBroker {
        node_id: broker.id,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        rack: broker.rack.clone(),
    })
    .collect()
}

/// The broker that clients take for the controller: any live one passes their requests on; `None` when there is none.
pub fn metadata_controller_id(image: &MetadataImage) -> Option<i32> {
    image.cluster.brokers.values().find(|b| !b.fenced).map(|b| b.id)
}

/// The brokers of DescribeCluster.
pub fn describe_cluster_brokers(
    image: &MetadataImage,
    listener: &str,
    with_fenced: bool,
) -> Vec<DescribeClusterBroker> {
    let brokers = image.cluster.brokers.values().filter(|b| with_fenced || !b.fenced);
    brokers
        .filter_map(|broker| {
            let endpoint = broker.listener(listener)?;
            Some(DescribeClusterBroker {
                broker_id: broker.id,
                host: endpoint.host.clone(),
                port: i32::from(endpoint.port),
                rack: broker.rack.clone(),
                is_fenced: broker.fenced,
            })
        })
        .collect()
}

/// The features of ApiVersions; `implemented` is usually [`crate::feature::IMPLEMENTED`]. The epoch that goes with them is
/// the provenance's last contained offset.
pub fn features(image: &MetadataImage, kraft_version: i16, implemented: &[(&str, i16)]) -> Vec<AdvertisedFeature> {
    let level = |name: &str| match name {
        crate::feature::KRAFT_VERSION => kraft_version,
        _ => image.features.level(name),
    };
    advertised(level, implemented)
}

/// A partition's leader as clients may use it, and the error that goes with it.
fn leader(image: &MetadataImage, p: &PartitionRegistration, view: ListenerView<'_>) -> (i32, ErrorCode) {
    if live(image, p.leader, view.listener).is_some() {
        return (p.leader, ErrorCode::None);
    }
    let is_live = image.cluster.brokers.get(&p.leader).is_some_and(|b| !b.fenced);
    let error =
        if is_live && view.tell_missing_listener { ErrorCode::ListenerNotFound } else { ErrorCode::LeaderNotAvailable };
    (NO_LEADER, error)
}

fn available(image: &MetadataImage, ids: &[i32], view: ListenerView<'_>) -> Vec<i32> {
    let keep = |id: &i32| !view.hide_unavailable || live(image, *id, view.listener).is_some();
    ids.iter().copied().filter(keep).collect()
}

/// Replicas whose broker is not live, or whose log directory is not online.
fn offline(image: &MetadataImage, p: &PartitionRegistration, listener: &str) -> Vec<i32> {
    let is_offline = |id: i32| live(image, id, listener).is_none() || is_in_offline_dir(image, p, id);
    p.replicas.iter().copied().filter(|id| is_offline(*id)).collect()
}

/// Whether the log directory of a broker's replica is none of those that the broker has
/// (`BrokerRegistration.hasOnlineDir`).
pub fn is_in_offline_dir(image: &MetadataImage, p: &PartitionRegistration, broker: i32) -> bool {
    let Some(known) = image.cluster.brokers.get(&broker) else { return false };
    let dir = p.directory(broker).unwrap_or(Uuid::DIRECTORY_UNASSIGNED);
    dir == Uuid::DIRECTORY_LOST || !(is_reserved(dir) || known.log_dirs.is_empty() || known.log_dirs.contains(&dir))
}

fn is_reserved(dir: Uuid) -> bool {
    u128::from_be_bytes(*dir.as_bytes()) < 100
}

/// One topic for Metadata, with all its partitions.
pub fn metadata_topic(image: &MetadataImage, topic: &TopicImage, view: ListenerView<'_>) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().map(|(id, p)| {
        let (leader_id, mut error) = leader(image, p, view);
        let (replica_nodes, isr_nodes) = (available(image, &p.replicas, view), available(image, &p.isr, view));
        let hidden = replica_nodes.len() < p.replicas.len() || isr_nodes.len() < p.isr.len();
        if error == ErrorCode::None && hidden {
            error = ErrorCode::ReplicaNotAvailable;
        }
        MetadataResponsePartition {
            error_code: error.code(),
            partition_index: *id,
            leader_id,
            leader_epoch: p.leader_epoch,
            replica_nodes,
            isr_nodes,
            offline_replicas: offline(image, p, view.listener),
        }
    });
    MetadataResponseTopic {
        error_code: 0,
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: NO_OPERATIONS,
    }
}

/// A topic of Metadata that cannot be shown: asked for by name, or by id (then the name stays null).
pub fn metadata_topic_error(name: Option<&str>, topic_id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: error.code(),
        name: name.map(str::to_owned),
        topic_id,
        is_internal: name.is_some_and(is_internal),
        partitions: Vec::new(),
        topic_authorized_operations: NO_OPERATIONS,
    }
}

/// One page of DescribeTopicPartitions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicPartitionsPage {
    pub topics: Vec<DescribeTopicPartitionsResponseTopic>,
    pub next_cursor: Option<Cursor>,
}

/// Where a page starts: a topic's name and a partition in it, which counts only if that topic comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageStart<'a> {
    pub topic: &'a str,
    /// Not negative; the caller answers INVALID_REQUEST to a negative one.
    pub partition: i32,
}

/// Topics by name, in ascending order, from the cursor on, at most `limit` partitions (at least 1). `names`: the topics
/// asked for; `None` is all. Of topics asked for by name, unknown ones get a row with an error. `visible`: whether the
/// client may know of a topic.
pub fn describe_topic_partitions(
    image: &MetadataImage,
    listener: &str,
    names: Option<&[&str]>,
    start: PageStart<'_>,
    limit: usize,
    visible: impl Fn(&str) -> bool,
) -> TopicPartitionsPage {
    let mut page = Page { image, listener, left: limit.max(1), out: TopicPartitionsPage::default() };
    match names {
        None => {
            for topic in image.topics.iter_from(start.topic).filter(|t| visible(&t.name)) {
                if !page.topic(topic, start) {
                    break;
                }
            }
        }
        Some(names) => {
            let mut sorted: Vec<&str> = names.iter().copied().filter(|n| *n >= start.topic && visible(n)).collect();
            sorted.sort_unstable();
            sorted.dedup();
            for name in sorted {
                let goes_on = match image.topics.by_name(name) {
                    Some(topic) => page.topic(topic, start),
                    None => page.unknown(name),
                };
                if !goes_on {
                    break;
                }
            }
        }
    }
    page.out
}

struct Page<'a> {
    image: &'a MetadataImage,
    listener: &'a str,
    left: usize,
    out: TopicPartitionsPage,
}

impl Page<'_> {
    /// Whether the page has room for more.
    fn topic(&mut self, topic: &Arc<TopicImage>, start: PageStart<'_>) -> bool {
        let first = if *topic.name == *start.topic { start.partition } else { 0 };
        if self.left == 0 {
            self.out.next_cursor = Some(Cursor { topic_name: topic.name.to_string(), partition_index: first });
            return false;
        }
        let mut partitions = Vec::new();
        for (id, p) in topic.partitions.range_from(&first) {
            if partitions.len() >= self.left {
                self.out.next_cursor = Some(Cursor { topic_name: topic.name.to_string(), partition_index: *id });
                break;
            }
            partitions.push(describe_partition(self.image, *id, p, self.listener));
        }
        self.left -= partitions.len();
        self.out.topics.push(DescribeTopicPartitionsResponseTopic {
            error_code: 0,
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            is_internal: is_internal(&topic.name),
            partitions,
            topic_authorized_operations: NO_OPERATIONS,
        });
        self.out.next_cursor.is_none()
    }

    fn unknown(&mut self, name: &str) -> bool {
        if self.left == 0 {
            self.out.next_cursor = Some(Cursor { topic_name: name.to_owned(), partition_index: 0 });
            return false;
        }
        let error = match taccola_base::topic::validate_topic_name(name) {
            Ok(()) => ErrorCode::UnknownTopicOrPartition,
            Err(_) => ErrorCode::InvalidTopicException,
        };
        self.out.topics.push(describe_topic_error(name, error));
        true
    }
}

/// A topic of DescribeTopicPartitions that cannot be shown.
pub fn describe_topic_error(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.to_owned()),
        topic_id: Uuid::ZERO,
        is_internal: is_internal(name),
        partitions: Vec::new(),
        topic_authorized_operations: NO_OPERATIONS,
    }
}

fn describe_partition(
    image: &MetadataImage,
    id: i32,
    p: &PartitionRegistration,
    listener: &str,
) -> DescribeTopicPartitionsResponsePartition {
    let view = ListenerView { listener, hide_unavailable: false, tell_missing_listener: true };
    let (leader_id, error) = leader(image, p, view);
    DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index: id,
        leader_id,
        leader_epoch: p.leader_epoch,
        replica_nodes: p.replicas.clone(),
        isr_nodes: p.isr.clone(),
        eligible_leader_replicas: Some(p.elr.clone()),
        last_known_elr: Some(p.last_known_elr.clone()),
        offline_replicas: offline(image, p, listener),
    }
}
