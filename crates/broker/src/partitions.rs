//! The partitions that this broker holds, by topic name and id. Answers to the map in Kafka's `ReplicaManager`.
//!
//! Readers look up many times per request, writers change it on topic creation and deletion only. A topic is here if and
//! only if the metadata image that was applied last holds it and this broker is one of its replicas.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use taccola_base::Uuid;

use crate::partition::Partition;

#[derive(Debug, Default)]
pub struct PartitionTable {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    topics: HashMap<Arc<str>, Topic>,
    names: HashMap<Uuid, Arc<str>>,
}

#[derive(Debug)]
struct Topic {
    id: Uuid,
    /// By partition index; `None` where another broker holds it.
    partitions: Vec<Option<Arc<Partition>>>,
}

impl PartitionTable {
    pub fn get(&self, topic: &str, partition: i32) -> Option<Arc<Partition>> {
        let inner = self.inner.read();
        let index = usize::try_from(partition).ok()?;
        inner.topics.get(topic)?.partitions.get(index)?.clone()
    }

    pub fn topic_name(&self, id: &Uuid) -> Option<Arc<str>> {
        self.inner.read().names.get(id).cloned()
    }

    pub fn topic_id(&self, topic: &str) -> Option<Uuid> {
        self.inner.read().topics.get(topic).map(|topic| topic.id)
    }

    pub fn insert(&self, partition: Arc<Partition>) {
        let Ok(index) = usize::try_from(partition.topic_partition.partition) else { return };
        let mut inner = self.inner.write();
        let name = partition.topic_partition.topic.clone();
        inner.names.insert(partition.topic_id, name.clone());
        let topic =
            inner.topics.entry(name).or_insert_with(|| Topic { id: partition.topic_id, partitions: Vec::new() });
        if topic.partitions.len() <= index {
            topic.partitions.resize(index + 1, None);
        }
        if let Some(slot) = topic.partitions.get_mut(index) {
            *slot = Some(partition);
        }
    }

    /// Takes a partition out, if it is of the topic with this id. The last one takes the topic with it.
    pub fn remove(&self, topic: &str, id: Uuid, partition: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(partition).ok()?;
        let mut inner = self.inner.write();
        let entry = inner.topics.get_mut(topic).filter(|entry| entry.id == id)?;
        let removed = entry.partitions.get_mut(index)?.take();
        if entry.partitions.iter().all(Option::is_none) {
            inner.topics.remove(topic);
            inner.names.remove(&id);
        }
        removed
    }

    pub fn of_topic(&self, topic: &str) -> Vec<Arc<Partition>> {
        let inner = self.inner.read();
        inner.topics.get(topic).map(|topic| topic.partitions.iter().flatten().cloned().collect()).unwrap_or_default()
    }

    /// All partitions at this moment, in the order of their names: rounds over them are the same in every process.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let inner = self.inner.read();
        let mut topics: Vec<_> = inner.topics.iter().collect();
        topics.sort_unstable_by_key(|(name, _)| *name);
        topics.into_iter().flat_map(|(_, topic)| topic.partitions.iter().flatten().cloned()).collect()
    }
}
