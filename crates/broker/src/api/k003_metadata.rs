//! Metadata, key 3, v0–v13.
//!
//! Behaviour: describes the asked topics, by name or (v12) by id; `null` (v0: an empty list) means all, an empty list
//! none. If one is asked for by its id, only ids count. A missing topic is created when both the client and
//! `auto.create.topics.enable` allow it. This answer does not have it, as Kafka's has not: who looks whether a topic is gone
//! must not find the one that the look made. Brokers are named by their address on the listener that the client used.
//! Version notes: v10 carries topic ids, v12 accepts them, v8–v10 cluster operations, v13 a top-level error.

use std::collections::HashSet;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::topic::{is_internal, validate_topic_name};
use taccola_meta::MetadataImage;
use taccola_meta::image::topics::{PartitionRegistration, TopicImage};
use taccola_meta::views;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use taccola_wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

/// A topic may be asked for by its id alone from this version on.
const TOPIC_IDS_SINCE: i16 = 12;
/// An unknown listener has its own error from this version on.
const LISTENER_NOT_FOUND_SINCE: i16 = 6;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let version = context.api_version;
    if let Some(response) = refuse_ids_of_old_versions(version, &request) {
        return response;
    }
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let by_id = version >= TOPIC_IDS_SINCE && request.topics.iter().flatten().any(|topic| !topic.topic_id.is_zero());
    let image = Arc::clone(&broker.image());
    if !all && !by_id && request.allow_auto_topic_creation && broker.dynamic_config().topics.auto_create {
        let named = request.topics.iter().flatten().filter_map(|topic| topic.name.as_deref());
        broker.auto_create(named).await;
    }
    let topics = match request.topics {
        // Then names mean nothing: the Java client puts an empty one beside each id.
        Some(topics) if by_id => {
            let mut seen = HashSet::new();
            let asked = topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_zero() && seen.insert(*id));
            asked.map(|id| topic_by_id(broker, context, &image, id)).collect()
        }
        Some(topics) if !all => {
            // A topic that is named again has one row all the same: a small request must not lead to a large answer.
            let mut seen = HashSet::new();
            let asked = topics.iter().filter(|topic| seen.insert((topic.name.as_deref(), topic.topic_id)));
            asked.map(|topic| asked_topic(broker, context, &image, topic)).collect()
        }
        _ => image.topics.iter().map(|topic| describe(broker, context, &image, topic)).collect(),
    };
    let mut response = MetadataResponse {
        brokers: brokers(broker, context, &image),
        cluster_id: Some(broker.cluster_id.clone()),
        controller_id: broker.node_id,
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::CLUSTER;
    }
    if request.include_topic_authorized_operations {
        for topic in &mut response.topics {
            topic.topic_authorized_operations = operations::TOPIC;
        }
    }
    response
}

/// The whole request is INVALID_REQUEST when it names a topic by id in a version that cannot.
fn refuse_ids_of_old_versions(version: i16, request: &MetadataRequest) -> Option<MetadataResponse> {
    let by_id = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_zero();
    let topics = request.topics.as_ref().filter(|topics| version < TOPIC_IDS_SINCE && topics.iter().any(by_id))?;
    let refused = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    };
    Some(MetadataResponse { topics: topics.iter().map(refused).collect(), ..Default::default() })
}

fn brokers(broker: &Broker, context: &RequestContext, image: &MetadataImage) -> Vec<MetadataResponseBroker> {
    let active = image.cluster.brokers.values().filter(|registration| registration.is_active());
    active
        .filter_map(|registration| broker.endpoint(image, &context.connection, registration.id))
        .map(|e| MetadataResponseBroker { node_id: e.node_id, host: e.host, port: e.port, rack: e.rack })
        .collect()
}

fn topic_by_id(
    broker: &Broker,
    context: &RequestContext,
    image: &MetadataImage,
    topic_id: Uuid,
) -> MetadataResponseTopic {
    match image.topics.by_id(topic_id) {
        Some(topic) => describe(broker, context, image, topic),
        None => MetadataResponseTopic {
            error_code: ErrorCode::UnknownTopicId.code(),
            name: None,
            topic_id,
            ..Default::default()
        },
    }
}

fn asked_topic(
    broker: &Broker,
    context: &RequestContext,
    image: &MetadataImage,
    asked: &MetadataRequestTopic,
) -> MetadataResponseTopic {
    let unknown = |error: ErrorCode| MetadataResponseTopic {
        error_code: error.code(),
        name: asked.name.clone(),
        topic_id: asked.topic_id,
        is_internal: asked.name.as_deref().is_some_and(is_internal),
        ..Default::default()
    };
    match &asked.name {
        Some(name) => match image.topics.by_name(name) {
            Some(topic) => describe(broker, context, image, topic),
            None if validate_topic_name(name).is_err() => unknown(ErrorCode::InvalidTopicException),
            None => MetadataResponseTopic { topic_id: Uuid::ZERO, ..unknown(ErrorCode::UnknownTopicOrPartition) },
        },
        // Neither name nor id: an id that nobody has.
        None => topic_by_id(broker, context, image, asked.topic_id),
    }
}

fn describe(
    broker: &Broker,
    context: &RequestContext,
    image: &MetadataImage,
    topic: &TopicImage,
) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().map(|(index, p)| partition(broker, context, image, *index, p));
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        ..Default::default()
    }
}

fn partition(
    broker: &Broker,
    context: &RequestContext,
    image: &MetadataImage,
    partition_index: i32,
    registration: &PartitionRegistration,
) -> MetadataResponsePartition {
    let led = image.cluster.is_active(registration.leader);
    let error = if !led {
        ErrorCode::LeaderNotAvailable
    } else if broker.endpoint(image, &context.connection, registration.leader).is_some() {
        ErrorCode::None
    } else if context.api_version >= LISTENER_NOT_FOUND_SINCE {
        ErrorCode::ListenerNotFound
    } else {
        ErrorCode::LeaderNotAvailable
    };
    let is_offline = |id: &&i32| !image.cluster.is_active(**id) || views::is_in_offline_dir(image, registration, **id);
    let offline = registration.replicas.iter().filter(is_offline);
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index,
        leader_id: if error == ErrorCode::None { registration.leader } else { -1 },
        leader_epoch: registration.leader_epoch,
        replica_nodes: registration.replicas.clone(),
        isr_nodes: registration.isr.clone(),
        offline_replicas: offline.copied().collect(),
    }
}
