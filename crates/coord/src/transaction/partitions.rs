//! The partitions of one transaction: topics by name, their partitions in order. Grows only; copies are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::limits;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partitions {
    topics: Arc<BTreeMap<Arc<str>, BTreeSet<i32>>>,
}

/// A topic's name in the record, with its length and the count of its partitions, at most; and one partition.
const TOPIC_OVERHEAD: usize = 12;
const PARTITION_BYTES: usize = 4;

impl Partitions {
    pub fn new() -> Self {
        Self::default()
    }

    /// All topics by name, each with its partitions in order.
    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeSet<i32>)> {
        self.topics.iter()
    }

    /// Every topic and partition, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32)> {
        self.topics.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |p| (topic, *p)))
    }

    pub fn contains(&self, topic: &str, partition: i32) -> bool {
        self.topics.get(topic).is_some_and(|partitions| partitions.contains(&partition))
    }

    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeSet::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn insert(&mut self, topic: &str, partition: i32) {
        if self.contains(topic, partition) {
            return;
        }
        let topics = Arc::make_mut(&mut self.topics);
        match topics.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition);
            }
            None => {
                topics.insert(topic.into(), BTreeSet::from([partition]));
            }
        }
    }

    /// Whether a record can hold them.
    pub(super) fn fit(&self) -> bool {
        let bytes: usize = self.topics.iter().map(|(t, p)| t.len() + TOPIC_OVERHEAD + PARTITION_BYTES * p.len()).sum();
        self.len() <= limits::TRANSACTION_PARTITIONS_MAX && bytes <= limits::TRANSACTION_PARTITION_BYTES_MAX
    }
}

impl<T: AsRef<str>> FromIterator<(T, i32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (T, i32)>>(iter: I) -> Self {
        let mut partitions = Self::new();
        for (topic, partition) in iter {
            partitions.insert(topic.as_ref(), partition);
        }
        partitions
    }
}
