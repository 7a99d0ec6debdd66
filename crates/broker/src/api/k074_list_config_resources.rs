//! ListConfigResources, key 74, v0–v1 (KIP-1142). Answers to `KafkaApis.handleListConfigResources`.
//!
//! Behaviour: names of what configs can be set for: all topics, all brokers (twice: as broker and as logger), and those
//! groups and client metrics subscriptions that have something set. An empty list of types means all; a type that is not
//! known is UNSUPPORTED_VERSION. Version notes: v0 is ListClientMetricsResources and knows nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use taccola_meta::MetadataImage;
use taccola_meta::image::config::ConfigResourceType;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::list_config_resources_request::ListConfigResourcesRequest;
use taccola_wire::messages::list_config_resources_response::{ConfigResource, ListConfigResourcesResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

const TYPES_SINCE: i16 = 1;
const ALL: [ConfigResourceType; 5] = [
    ConfigResourceType::Group,
    ConfigResourceType::ClientMetrics,
    ConfigResourceType::BrokerLogger,
    ConfigResourceType::Broker,
    ConfigResourceType::Topic,
];

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked: BTreeSet<i8> = request.resource_types.into_iter().collect();
    let known = |id: &i8| ALL.iter().any(|known| known.id() == *id);
    if context.api_version >= TYPES_SINCE && !asked.iter().all(known) {
        return ListConfigResourcesResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..Default::default() };
    }
    let wanted = |kind: &ConfigResourceType| match context.api_version {
        ..TYPES_SINCE => *kind == ConfigResourceType::ClientMetrics,
        _ => asked.is_empty() || asked.contains(&kind.id()),
    };
    let image = broker.image();
    let config_resources = ALL.into_iter().filter(wanted).flat_map(|kind| {
        names(&image, kind)
            .into_iter()
            .map(move |name| ConfigResource { resource_name: name, resource_type: kind.id() })
    });
    ListConfigResourcesResponse { config_resources: config_resources.collect(), ..Default::default() }
}

fn names(image: &MetadataImage, kind: ConfigResourceType) -> Vec<String> {
    match kind {
        ConfigResourceType::Topic => image.topics.iter().map(|topic| topic.name.to_string()).collect(),
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            image.cluster.brokers.values().filter(|broker| !broker.fenced).map(|broker| broker.id.to_string()).collect()
        }
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => {
            let set = image.configs.iter().filter(|(resource, _)| resource.resource_type == kind);
            set.map(|(resource, _)| resource.name.to_string()).collect()
        }
        ConfigResourceType::Other(_) => Vec::new(),
    }
}
