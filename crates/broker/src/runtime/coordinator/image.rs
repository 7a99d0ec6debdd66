//! The metadata image as coordinators see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_coord::cluster_image::{ClusterImage, TopicChanges, TopicInfo};
use taccola_meta::image::config::{ConfigResource, ConfigResourceType};
use taccola_meta::image::topics::TopicImage;
use taccola_meta::{MetadataChanges, MetadataImage};

#[derive(Debug)]
struct View(Arc<MetadataImage>);

/// The image behind the trait that coordinators know.
pub fn view(image: Arc<MetadataImage>) -> Arc<dyn ClusterImage> {
    Arc::new(View(image))
}

/// What coordinators may have to act on.
pub fn topic_changes(image: &MetadataImage, changes: &MetadataChanges) -> TopicChanges {
    let ids: BTreeSet<Uuid> = changes.created_topics.iter().chain(changes.partitions.keys()).copied().collect();
    TopicChanges {
        changed: ids.iter().filter_map(|id| image.topics.by_id(*id)).map(|topic| topic.name.clone()).collect(),
        deleted: changes.deleted_topics.values().map(|topic| (topic.name.to_string(), topic.id)).collect(),
        group_configs: changes
            .configs
            .iter()
            .filter(|resource| resource.resource_type == ConfigResourceType::Group)
            .map(|resource| resource.name.to_string())
            .collect(),
    }
}

fn info(topic: &TopicImage) -> TopicInfo {
    let partitions = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
    TopicInfo { name: topic.name.clone(), id: topic.id, partitions }
}

impl ClusterImage for View {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.0.topics.by_name(name).map(|topic| info(topic))
    }

    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.0.topics.by_id(id).map(|topic| info(topic))
    }

    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(self.0.topics.iter().map(|topic| info(topic)))
    }

    fn racks(&self, topic_id: Uuid, partition: i32) -> Vec<Arc<str>> {
        let Some(topic) = self.0.topics.by_id(topic_id) else { return Vec::new() };
        let Some(registration) = topic.partition(partition) else { return Vec::new() };
        let brokers = registration.replicas.iter().filter_map(|id| self.0.cluster.brokers.get(id));
        let racks: BTreeSet<&str> = brokers.filter_map(|broker| broker.rack.as_deref()).collect();
        racks.into_iter().map(Arc::from).collect()
    }

    fn feature_level(&self, feature: &str) -> i16 {
        self.0.features.level(feature)
    }

    fn group_config(&self, group_id: &str) -> Option<Arc<ConfigMap>> {
        self.0.configs.of(&ConfigResource::new(ConfigResourceType::Group, group_id)).cloned()
    }

    fn version(&self) -> i64 {
        self.0.provenance.last_contained_offset
    }
}
