//! The committed offsets of one shard and those that wait for the end of a transaction. Only what is committed in the
//! log is in here. Answers to Kafka's `OffsetMetadataManager.Offsets` and `OffsetAndMetadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::messages::OffsetCommitValue;

/// What a group remembers of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetAndMetadata {
    /// Where the record stands in `__consumer_offsets`: of a transactional and a plain commit the later one counts,
    /// whenever the transaction ends. -1 until it is written.
    pub(crate) record_offset: i64,
    pub(crate) committed_offset: i64,
    /// -1: the client named none.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Box<str>,
    pub(crate) commit_timestamp_ms: i64,
    /// Set by clients that name a retention of their own (OffsetCommit before v5).
    pub(crate) expire_timestamp_ms: Option<i64>,
    /// Zero when the record does not say.
    pub(crate) topic_id: Uuid,
}

impl OffsetAndMetadata {
    pub(crate) fn from_record(record_offset: i64, value: OffsetCommitValue) -> Self {
        Self {
            record_offset,
            committed_offset: value.offset,
            leader_epoch: value.leader_epoch.max(-1),
            metadata: value.metadata.into(),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
            topic_id: value.topic_id,
        }
    }

    /// Whether the offset is of this topic rather than of another one that had the name. Without an id it may be.
    pub(crate) fn is_of_topic(&self, id: Uuid) -> bool {
        self.topic_id.is_zero() || id.is_zero() || self.topic_id == id
    }
}

pub(crate) type PartitionOffsets = BTreeMap<i32, OffsetAndMetadata>;
pub(crate) type TopicOffsets = BTreeMap<Arc<str>, PartitionOffsets>;
type GroupOffsets = BTreeMap<Arc<str>, TopicOffsets>;

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: GroupOffsets,
    /// By producer id.
    pending: BTreeMap<i64, GroupOffsets>,
}

impl Offsets {
    pub(crate) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetAndMetadata> {
        self.committed.get(group)?.get(topic)?.get(&partition)
    }

    pub(crate) fn group(&self, group: &str) -> Option<&TopicOffsets> {
        self.committed.get(group)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &TopicOffsets)> {
        self.committed.iter()
    }

    pub(crate) fn put(&mut self, group: &Arc<str>, topic: &Arc<str>, partition: i32, offset: OffsetAndMetadata) {
        put(&mut self.committed, group, topic, partition, offset);
    }

    pub(crate) fn put_pending(
        &mut self,
        producer_id: i64,
        group: &Arc<str>,
        topic: &Arc<str>,
        partition: i32,
        offset: OffsetAndMetadata,
    ) {
        put(self.pending.entry(producer_id).or_default(), group, topic, partition, offset);
    }

    /// A tombstone takes the committed offset and those of open transactions.
    pub(crate) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        remove(&mut self.committed, group, topic, partition);
        for groups in self.pending.values_mut() {
            remove(groups, group, topic, partition);
        }
    }

    /// Whether an open transaction holds an offset of the partition.
    pub(crate) fn is_pending(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.pending.values().any(|groups| {
            groups.get(group).and_then(|topics| topics.get(topic)).is_some_and(|p| p.contains_key(&partition))
        })
    }

    /// Whether an open transaction has committed offsets of the group.
    pub(crate) fn has_open_transactions(&self, group: &str) -> bool {
        self.pending.values().any(|groups| groups.contains_key(group))
    }

    /// Every partition for which the group has a committed offset or one in an open transaction.
    pub(crate) fn partitions_of(&self, group: &str) -> BTreeSet<(Arc<str>, i32)> {
        std::iter::once(&self.committed)
            .chain(self.pending.values())
            .filter_map(|groups| groups.get(group))
            .flatten()
            .flat_map(|(topic, partitions)| partitions.keys().map(move |p| (topic.clone(), *p)))
            .collect()
    }

    /// Every group and partition of the topic with a committed offset or one in an open transaction.
    pub(crate) fn partitions_of_topic(&self, topic: &str, id: Uuid) -> BTreeSet<(Arc<str>, i32)> {
        std::iter::once(&self.committed)
            .chain(self.pending.values())
            .flatten()
            .filter_map(|(group, topics)| topics.get(topic).map(|partitions| (group, partitions)))
            .flat_map(|(group, partitions)| partitions.iter().map(move |(p, offset)| (group, *p, offset)))
            .filter(|(_, _, offset)| offset.is_of_topic(id))
            .map(|(group, partition, _)| (group.clone(), partition))
            .collect()
    }

    /// Ends the producer's transaction. Returns the groups that a commit gave offsets to.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, commit: bool) -> Vec<Arc<str>> {
        let Some(groups) = self.pending.remove(&producer_id) else { return Vec::new() };
        if !commit {
            return Vec::new();
        }
        let mut touched = Vec::new();
        for (group, topics) in groups {
            touched.push(group.clone());
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    let newer =
                        self.get(&group, &topic, partition).is_none_or(|o| o.record_offset < offset.record_offset);
                    if newer {
                        self.put(&group, &topic, partition, offset);
                    }
                }
            }
        }
        touched
    }
}

fn put(groups: &mut GroupOffsets, group: &Arc<str>, topic: &Arc<str>, partition: i32, offset: OffsetAndMetadata) {
    let topics = match groups.get_mut(group) {
        Some(topics) => topics,
        None => groups.entry(group.clone()).or_default(),
    };
    let partitions = match topics.get_mut(topic) {
        Some(partitions) => partitions,
        None => topics.entry(topic.clone()).or_default(),
    };
    partitions.insert(partition, offset);
}

fn remove(groups: &mut GroupOffsets, group: &str, topic: &str, partition: i32) {
    let Some(topics) = groups.get_mut(group) else { return };
    if let Some(partitions) = topics.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
    }
    if topics.is_empty() {
        groups.remove(group);
    }
}
