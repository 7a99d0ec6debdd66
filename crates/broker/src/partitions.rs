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
    /// Partitions of each log directory, by its index.
    in_dir: Vec<usize>,
}

#[derive(Debug)]
struct Topic {
    id: Uuid,
    /// By partition index; `None` where another broker holds it.
    partitions: Vec<Option<Arc<Partition>>>,
    /// How many of them are here.
    held: usize,
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
        let topic = inner.topics.entry(name).or_insert_with(|| Topic {
            id: partition.topic_id,
            partitions: Vec::new(),
            held: 0,
        });
        if topic.partitions.len() <= index {
            topic.partitions.resize(index + 1, None);
        }
        let Some(slot) = topic.partitions.get_mut(index) else { return };
        topic.held += usize::from(slot.is_none());
        let dir = partition.log_dir();
        let replaced = slot.replace(partition);
        inner.count(dir, true);
        if let Some(replaced) = replaced {
            inner.count(replaced.log_dir(), false);
        }
    }

    /// Takes a partition out, if it is of the topic with this id. The last one takes the topic with it.
    pub fn remove(&self, topic: &str, id: Uuid, partition: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(partition).ok()?;
        let mut inner = self.inner.write();
        let entry = inner.topics.get_mut(topic).filter(|entry| entry.id == id)?;
        let removed = entry.partitions.get_mut(index)?.take();
        entry.held -= usize::from(removed.is_some());
        if entry.held == 0 {
            inner.topics.remove(topic);
            inner.names.remove(&id);
        }
        if let Some(removed) = &removed {
            inner.count(removed.log_dir(), false);
        }
        removed
    }

    /// A partition has gone from one log directory to another.
    pub fn moved(&self, from: usize, to: usize) {
        let mut inner = self.inner.write();
        inner.count(from, false);
        inner.count(to, true);
    }

    /// Any partition of a topic.
    pub fn any_of_topic(&self, topic: &str) -> Option<Arc<Partition>> {
        let inner = self.inner.read();
        inner.topics.get(topic)?.partitions.iter().flatten().next().cloned()
    }

    pub fn of_topic(&self, topic: &str) -> Vec<Arc<Partition>> {
        let inner = self.inner.read();
        inner.topics.get(topic).map(|topic| topic.partitions.iter().flatten().cloned().collect()).unwrap_or_default()
    }

    /// Which of some log directories holds the fewest partitions; the first of several.
    pub fn emptiest_dir(&self, mut dirs: impl Iterator<Item = usize>) -> Option<usize> {
        let inner = self.inner.read();
        let first = dirs.next()?;
        let held = |dir: &usize| inner.in_dir.get(*dir).copied().unwrap_or(0);
        std::iter::once(first).chain(dirs).min_by_key(held)
    }

    /// All partitions at this moment, in the order of their names: rounds over them are the same in every process.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let inner = self.inner.read();
        let mut topics: Vec<_> = inner.topics.iter().collect();
        topics.sort_unstable_by_key(|(name, _)| *name);
        topics.into_iter().flat_map(|(_, topic)| topic.partitions.iter().flatten().cloned()).collect()
    }
}

impl Inner {
    fn count(&mut self, dir: usize, one_more: bool) {
        if self.in_dir.len() <= dir {
            self.in_dir.resize(dir + 1, 0);
        }
        if let Some(count) = self.in_dir.get_mut(dir) {
            *count = if one_more { *count + 1 } else { count.saturating_sub(1) };
        }
    }
}
