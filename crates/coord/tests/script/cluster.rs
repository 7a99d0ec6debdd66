//! The cluster's metadata in a script: topics that it creates, each with the next number as its id.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_coord::cluster_image::{ClusterImage, TopicInfo};

#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) topics: BTreeMap<String, TopicInfo>,
    pub(crate) groups: BTreeMap<String, Arc<ConfigMap>>,
    pub(crate) next_id: u128,
    pub(crate) version: i64,
}

impl Cluster {
    /// Creates a topic, or gives it more partitions.
    pub(crate) fn put(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions = partitions;
            return;
        }
        self.next_id += 1;
        let topic = TopicInfo { name: name.into(), id: Uuid::from_u128(self.next_id), partitions };
        self.topics.insert(name.to_owned(), topic);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Uuid> {
        self.version += 1;
        self.topics.remove(name).map(|t| t.id)
    }
}

impl ClusterImage for Cluster {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo> {
        self.topics.get(name).cloned()
    }

    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.topics.values().find(|t| t.id == id).cloned()
    }

    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(self.topics.values().cloned())
    }

    fn racks(&self, _topic_id: Uuid, _partition: i32) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn feature_level(&self, _feature: &str) -> i16 {
        1
    }

    fn group_config(&self, group_id: &str) -> Option<Arc<ConfigMap>> {
        self.groups.get(group_id).cloned()
    }

    fn version(&self) -> i64 {
        self.version
    }
}
