//! What a group depends on of its topics: a hash of their ids, names, partitions and racks, which goes up with the group's
//! epoch when it changes. Answers to Kafka's `Utils.computeTopicHash` and `computeGroupHash` (KIP-1101).

use std::collections::BTreeMap;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::cluster_image::{ClusterImage, TopicChanges, TopicInfo};

/// First byte of what is hashed, in case it ever changes.
const HASH_VERSION: u8 = 0;

/// The hash of a topic that exists.
pub(crate) fn topic_hash(image: &dyn ClusterImage, topic: &TopicInfo) -> i64 {
    let mut bytes = Vec::with_capacity(64 + 4 * usize::try_from(topic.partitions).unwrap_or(0).min(100_000));
    bytes.push(HASH_VERSION);
    let (most, least) = topic.id.as_bytes().split_at(8);
    // Numbers are hashed in little-endian order.
    bytes.extend(most.iter().rev());
    bytes.extend(least.iter().rev());
    put_string(&mut bytes, &topic.name);
    bytes.extend(topic.partitions.to_le_bytes());
    for partition in 0..topic.partitions {
        bytes.extend(partition.to_le_bytes());
        for rack in image.racks(topic.id, partition) {
            let units = i32::try_from(rack.encode_utf16().count()).unwrap_or(i32::MAX);
            bytes.extend(units.to_le_bytes());
            put_string(&mut bytes, &rack);
        }
    }
    XxHash3_64::oneshot(&bytes).cast_signed()
}

/// UTF-16, and then how much of it that was.
fn put_string(bytes: &mut Vec<u8>, text: &str) {
    let mut units = 0_i32;
    for unit in text.encode_utf16() {
        bytes.extend(unit.to_le_bytes());
        units = units.saturating_add(1);
    }
    bytes.extend(units.to_le_bytes());
}

/// Hashes of topics, for as long as the topics do not change.
#[derive(Debug, Default)]
pub(crate) struct TopicHashes(BTreeMap<Arc<str>, i64>);

impl TopicHashes {
    /// The hash over those topics that exist, in the order of their names; 0 when there are none.
    pub(crate) fn group_hash<'a>(
        &mut self,
        image: &dyn ClusterImage,
        topics: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> i64 {
        let mut bytes = Vec::new();
        for name in topics {
            let hash = match self.0.get(name) {
                Some(hash) => *hash,
                None => {
                    let Some(topic) = image.topic_by_name(name) else { continue };
                    let hash = topic_hash(image, &topic);
                    self.0.insert(topic.name, hash);
                    hash
                }
            };
            bytes.extend(hash.to_le_bytes());
        }
        if bytes.is_empty() { 0 } else { XxHash3_64::oneshot(&bytes).cast_signed() }
    }

    pub(crate) fn forget(&mut self, changes: &TopicChanges) {
        for name in &changes.changed {
            self.0.remove(name);
        }
        for (name, _) in &changes.deleted {
            self.0.remove(name.as_str());
        }
    }

    /// Everything may have changed.
    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }
}
