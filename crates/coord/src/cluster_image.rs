//! What coordinators ask of the cluster's metadata. The broker answers from its image; tests answer from a table.
//! Answers to Kafka's `CoordinatorMetadataImage`.

use std::fmt::Debug;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::config::ConfigMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    pub name: Arc<str>,
    pub id: Uuid,
    pub partitions: i32,
}

/// Metadata at one moment: an image never changes.
pub trait ClusterImage: Debug + Send + Sync {
    fn topic_by_name(&self, name: &str) -> Option<TopicInfo>;

    fn topic_by_id(&self, id: Uuid) -> Option<TopicInfo>;

    /// All topics, internal ones too, by name.
    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_>;

    /// The racks of a partition's replicas, sorted, each once. Empty where brokers name none.
    fn racks(&self, topic_id: Uuid, partition: i32) -> Vec<Arc<str>>;

    /// The finalized level of a feature; 0 when it is not finalized.
    fn feature_level(&self, feature: &str) -> i16;

    /// What was set on a group by name (`ConfigResource` of type GROUP).
    fn group_config(&self, group_id: &str) -> Option<Arc<ConfigMap>>;

    /// Ascends from image to image.
    fn version(&self) -> i64;
}

/// What changed from one image to the next.
#[derive(Clone, Debug, Default)]
pub struct TopicChanges {
    /// Names of topics that were created, or got other partitions, replicas or racks.
    pub changed: Vec<Arc<str>>,
    /// Name and id of deleted topics.
    pub deleted: Vec<(String, Uuid)>,
    /// Groups whose own settings changed.
    pub group_configs: Vec<String>,
}

/// A cluster without topics, where there is no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyImage;

impl ClusterImage for EmptyImage {
    fn topic_by_name(&self, _name: &str) -> Option<TopicInfo> {
        None
    }

    fn topic_by_id(&self, _id: Uuid) -> Option<TopicInfo> {
        None
    }

    fn topics(&self) -> Box<dyn Iterator<Item = TopicInfo> + '_> {
        Box::new(std::iter::empty())
    }

    fn racks(&self, _topic_id: Uuid, _partition: i32) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn feature_level(&self, _feature: &str) -> i16 {
        0
    }

    fn group_config(&self, _group_id: &str) -> Option<Arc<ConfigMap>> {
        None
    }

    fn version(&self) -> i64 {
        -1
    }
}
