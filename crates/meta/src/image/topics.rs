//! Topics and their partitions. Answers to `TopicsImage`, `TopicImage`, `PartitionRegistration`.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::messages::{PartitionChangeRecord, PartitionRecord, TopicRecord};

use crate::chunk_map::ChunkMap;
use crate::feature::MetadataVersion;
use crate::record::VersionedRecord;

/// No broker leads.
pub const NO_LEADER: i32 = -1;
/// In a change: the leader stays.
pub const NO_LEADER_CHANGE: i32 = -2;
pub const LEADER_RECOVERED: i8 = 0;
/// The leader came from an unclean election.
pub const LEADER_RECOVERING: i8 = 1;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// In order of preference, never empty.
    pub replicas: Vec<i32>,
    /// One for each replica, in the same order.
    pub directories: Vec<Uuid>,
    pub isr: Vec<i32>,
    pub removing_replicas: Vec<i32>,
    pub adding_replicas: Vec<i32>,
    /// Eligible leader replicas: out of the ISR, but known to hold everything below the high watermark.
    pub elr: Vec<i32>,
    pub last_known_elr: Vec<i32>,
    pub leader: i32,
    pub leader_recovery_state: i8,
    /// Grows with every election, also of the same broker.
    pub leader_epoch: i32,
    /// Grows with every change.
    pub partition_epoch: i32,
}

impl PartitionRegistration {
    /// The partition that a record describes, or why it describes none.
    pub fn from_record(r: &PartitionRecord) -> Result<Self, String> {
        Ok(Self {
            replicas: r.replicas.clone(),
            directories: directories(&r.directories, r.replicas.len())?,
            isr: r.isr.clone(),
            removing_replicas: r.removing_replicas.clone(),
            adding_replicas: r.adding_replicas.clone(),
            elr: r.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: r.last_known_elr.clone().unwrap_or_default(),
            leader: r.leader,
            leader_recovery_state: r.leader_recovery_state,
            leader_epoch: r.leader_epoch,
            partition_epoch: r.partition_epoch,
        })
    }

    /// The partition after a change (`PartitionRegistration.merge`): the partition epoch grows by one, and so does the
    /// leader epoch when the change names a leader, even the same one.
    pub fn merge(&self, change: &PartitionChangeRecord) -> Result<Self, String> {
        let replicas = change.replicas.as_ref().unwrap_or(&self.replicas);
        let directories = match &change.directories {
            Some(named) => directories(named, replicas.len())?,
            None if self.directories.len() == replicas.len() => self.directories.clone(),
            None => directories(&[], replicas.len())?,
        };
        let pick = |new: &Option<Vec<i32>>, old: &[i32]| new.clone().unwrap_or_else(|| old.to_vec());
        let elected = change.leader != NO_LEADER_CHANGE;
        let grown = |epoch: i32| epoch.checked_add(1).ok_or_else(|| "its epoch cannot grow any more".to_owned());
        Ok(Self {
            replicas: replicas.clone(),
            directories,
            isr: pick(&change.isr, &self.isr),
            removing_replicas: pick(&change.removing_replicas, &self.removing_replicas),
            adding_replicas: pick(&change.adding_replicas, &self.adding_replicas),
            elr: pick(&change.eligible_leader_replicas, &self.elr),
            last_known_elr: pick(&change.last_known_elr, &self.last_known_elr),
            leader: if elected { change.leader } else { self.leader },
            leader_recovery_state: match change.leader_recovery_state {
                -1 => self.leader_recovery_state,
                state => state,
            },
            leader_epoch: if elected { grown(self.leader_epoch)? } else { self.leader_epoch },
            partition_epoch: grown(self.partition_epoch)?,
        })
    }

    pub fn record(&self, topic_id: Uuid, partition_id: i32, version: MetadataVersion) -> VersionedRecord {
        let non_empty = |ids: &[i32]| (version.has_elr() && !ids.is_empty()).then(|| ids.to_vec());
        let record = PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: if version.has_directories() { self.directories.clone() } else { Vec::new() },
            eligible_leader_replicas: non_empty(&self.elr),
            last_known_elr: non_empty(&self.last_known_elr),
        };
        VersionedRecord::new(record, version.partition_record_version())
    }

    /// The directory of a broker's replica.
    pub fn directory(&self, broker: i32) -> Option<Uuid> {
        let at = self.replicas.iter().position(|r| *r == broker)?;
        self.directories.get(at).copied()
    }

    /// Whether the broker holds a replica of it.
    pub fn has_replica(&self, broker: i32) -> bool {
        self.replicas.contains(&broker)
    }
}

/// Records from before 3.7-IV2 name no directories: such replicas are "migrating".
fn directories(named: &[Uuid], replicas: usize) -> Result<Vec<Uuid>, String> {
    if named.is_empty() {
        return Ok(vec![Uuid::DIRECTORY_MIGRATING; replicas]);
    }
    if named.len() != replicas {
        return Err(format!("it names {} directories for {replicas} replicas", named.len()));
    }
    Ok(named.to_vec())
}

/// One topic. Its partitions are numbered from 0 without gaps in every log that a controller wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicImage {
    pub name: Arc<str>,
    pub id: Uuid,
    pub partitions: ChunkMap<i32, Arc<PartitionRegistration>>,
}

impl TopicImage {
    pub fn partition(&self, id: i32) -> Option<&Arc<PartitionRegistration>> {
        self.partitions.get(&id)
    }

    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }
}

/// All topics, by name and by id. Both maps hold the same topics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicsImage {
    by_name: ChunkMap<Arc<str>, Arc<TopicImage>>,
    by_id: ChunkMap<Uuid, Arc<TopicImage>>,
    /// Names with '.' or '_' by [`unify_collision_chars`]: metrics cannot tell such names apart.
    collisions: ChunkMap<Arc<str>, Arc<Vec<Arc<str>>>>,
}

/// The name with '.' replaced by '_'; `None` when it holds neither, and so collides with no other name.
pub fn unify_collision_chars(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

impl TopicsImage {
    pub fn by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    pub fn by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    pub fn partition(&self, name: &str, partition: i32) -> Option<&Arc<PartitionRegistration>> {
        self.by_name(name)?.partition(partition)
    }

    /// Ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.values()
    }

    /// Topics whose name is `from` or comes after it, ascending by name.
    pub fn iter_from(&self, from: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.range_from(from).map(|(_, topic)| topic)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// An existing topic whose name differs from this one only in '.' and '_'.
    pub fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        let names = self.collisions.get(unify_collision_chars(name)?.as_str())?;
        names.iter().find(|other| ***other != *name)
    }

    pub(crate) fn insert(&mut self, topic: Arc<TopicImage>) {
        let name = Arc::clone(&topic.name);
        self.by_id.insert(topic.id, Arc::clone(&topic));
        if self.by_name.insert(Arc::clone(&name), topic).is_none()
            && let Some(unified) = unify_collision_chars(&name)
        {
            let mut names = self.collisions.get(unified.as_str()).cloned().unwrap_or_default();
            let list = Arc::make_mut(&mut names);
            // Sorted, so that images with the same topics are equal however they came about.
            list.insert(list.partition_point(|n| *n < name), name);
            self.collisions.insert(unified.into(), names);
        }
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<TopicImage>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        if let Some(unified) = unify_collision_chars(&topic.name)
            && let Some(mut names) = self.collisions.remove(unified.as_str())
        {
            Arc::make_mut(&mut names).retain(|n| *n != topic.name);
            if !names.is_empty() {
                self.collisions.insert(unified.into(), names);
            }
        }
        Some(topic)
    }

    pub(super) fn records(&self, version: MetadataVersion, out: &mut Vec<VersionedRecord>) {
        for topic in self.by_id.values() {
            out.push(VersionedRecord::new(TopicRecord { name: topic.name.to_string(), topic_id: topic.id }, 0));
            out.extend(topic.partitions.iter().map(|(id, p)| p.record(topic.id, *id, version)));
        }
    }
}
