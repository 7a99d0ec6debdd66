//! The cluster as the tests of transactions show it to a shard.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::config::ConfigMap;
use taccola_coord::cluster_image::{ClusterImage, TopicInfo};

/// A cluster of which only `transaction.version` is known.
#[derive(Debug)]
pub(crate) struct Image(pub(crate) i16);

impl ClusterImage for Image {
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

    fn feature_level(&self, feature: &str) -> i16 {
        if feature == "transaction.version" { self.0 } else { 0 }
    }

    fn group_config(&self, _group_id: &str) -> Option<Arc<ConfigMap>> {
        None
    }

    fn version(&self) -> i64 {
        0
    }
}
