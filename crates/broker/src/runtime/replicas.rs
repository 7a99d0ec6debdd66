//! Brings this broker's partitions in line with the metadata image: creates, removes, reconfigures. Answers to Kafka's
//! `ReplicaManager.applyDelta` and `DynamicConfigPublisher`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use taccola_base::{TopicPartition, Uuid};
use taccola_log::{LogError, PartitionLog, log_dir};
use taccola_meta::controller::ReplicaPlace;
use taccola_meta::image::config::ConfigResourceType;
use taccola_meta::image::topics::PartitionRegistration;
use taccola_meta::{MetadataChanges, MetadataImage};

use crate::broker::Broker;
use crate::clock;
use crate::partition::{Leadership, Partition};
use crate::runtime::coordinator::image::{self as coordinator_image, topic_changes};

/// Where a replica of this broker is, by the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AssignedDir {
    /// Index of the log directory.
    Online(usize),
    /// It does not say.
    Unknown,
    /// In a directory that is not here.
    Gone,
}

/// What the image says of a partition's leadership.
pub fn leadership(registration: &PartitionRegistration) -> Leadership {
    let count = |nodes: &[i32]| i32::try_from(nodes.len()).unwrap_or(i32::MAX);
    Leadership {
        leader_id: registration.leader,
        leader_epoch: registration.leader_epoch,
        replicas_len: count(&registration.replicas),
        isr_len: count(&registration.isr),
    }
}

impl Broker {
    /// Makes an image the current one and does what its changes ask for. Called by the metadata writer alone, in order.
    pub(crate) fn apply(&self, image: MetadataImage, changes: &MetadataChanges) {
        let local = changes.local(&image, self.node_id);
        for (at, registration) in local.leaders.iter().chain(&local.followers) {
            self.add_or_update(&image, &at.topic, at.topic_id, at.partition, registration);
        }
        let broker_changed = changes.configs.iter().any(|r| r.resource_type == ConfigResourceType::Broker);
        for resource in changes.configs.iter().filter(|r| r.resource_type == ConfigResourceType::Topic) {
            self.reconfigure_topic(&image, &resource.name);
        }
        if broker_changed {
            self.reconfigure_broker(&image);
        }
        let image = Arc::new(image);
        self.image.store(image.clone());
        // Fetches that wait there wake, and must learn from the image that the topic is gone.
        let gone = local.deletes.iter().chain(&local.not_replicas);
        self.remove_replicas(gone.map(|gone| (&*gone.topic, gone.topic_id, gone.partition)));
        if let Some(remote) = self.remote.as_ref().filter(|_| !local.deletes.is_empty() || !changes.configs.is_empty())
        {
            remote.wake();
        }
        let (view, topic_changes) = (coordinator_image::view(image.clone()), topic_changes(&image, changes));
        for coordinator in &self.coordinators {
            coordinator.publish(view.clone(), &topic_changes);
            let led = local.leaders.iter().filter(|(at, _)| *at.topic == *coordinator.topic());
            for partition in led.filter_map(|(at, _)| self.partitions.get(&at.topic, at.partition)) {
                coordinator.take_over(partition);
            }
        }
    }

    fn reconfigure_topic(&self, image: &MetadataImage, topic: &str) {
        let config = self.topic_config(image, topic);
        for partition in self.partitions.of_topic(topic) {
            partition.set_topic_config(config.clone());
        }
    }

    /// Topics without overrides follow the broker's settings.
    fn reconfigure_broker(&self, image: &MetadataImage) {
        self.load_dynamic_config(image);
        for topic in image.topics.iter() {
            self.reconfigure_topic(image, &topic.name);
        }
    }

    fn add_or_update(
        &self,
        image: &MetadataImage,
        topic: &str,
        id: Uuid,
        partition: i32,
        registration: &PartitionRegistration,
    ) {
        if let Some(known) = self.partitions.get(topic, partition) {
            if known.topic_id == id {
                known.set_leadership(leadership(registration));
                return;
            }
            // The topic was deleted and made again under the same name.
            self.remove_replicas(std::iter::once((topic, known.topic_id, partition)));
        }
        self.create_replica(image, topic, id, partition, registration);
    }

    /// Makes an empty log for a partition that has none here.
    pub(crate) fn create_replica(
        &self,
        image: &MetadataImage,
        topic: &str,
        id: Uuid,
        partition: i32,
        registration: &PartitionRegistration,
    ) {
        let topic_partition = TopicPartition::new(topic, partition);
        let preferred = self.moves.take_preferred(&topic_partition);
        let preferred = preferred.filter(|index| self.online_dirs().any(|online| online == *index));
        let Some(chosen) = self.choose_log_dir(registration) else {
            tracing::error!(topic, partition, "its log directory cannot be used; it answers KAFKA_STORAGE_ERROR");
            return;
        };
        let log_dir = preferred.unwrap_or(chosen);
        let Some(dir) = self.log_dirs.get(log_dir) else { return };
        // One for all partitions of a topic; it changes for all of them together.
        let sibling = self.partitions.any_of_topic(topic).filter(|sibling| sibling.topic_id == id);
        let config = sibling.map_or_else(|| self.topic_config(image, topic), |sibling| sibling.topic_config());
        let created =
            PartitionLog::create(&dir.path, topic_partition, Some(id), config.log.clone(), self.log_shared.clone());
        match created {
            Ok(log) => self.partitions.insert(Partition::new(log, id, log_dir, leadership(registration), config)),
            Err(error) => {
                tracing::error!(topic, partition, error = describe(&error), "cannot create a partition's log")
            }
        }
    }

    /// The directory that the image assigns, else the one with the fewest partitions. `None` where that could be one that
    /// is not here: an empty log in its place would pass for the partition.
    fn choose_log_dir(&self, registration: &PartitionRegistration) -> Option<usize> {
        match self.assigned_dir(registration) {
            AssignedDir::Online(index) => Some(index),
            AssignedDir::Gone => None,
            // A partition of this epoch was just made.
            AssignedDir::Unknown if self.lacks_log_dirs() && registration.partition_epoch > 0 => None,
            AssignedDir::Unknown => self.partitions.emptiest_dir(self.online_dirs()),
        }
    }

    /// Where the image says that this broker's replica is.
    pub(crate) fn assigned_dir(&self, registration: &PartitionRegistration) -> AssignedDir {
        match registration.directory(self.node_id) {
            None | Some(Uuid::DIRECTORY_UNASSIGNED | Uuid::DIRECTORY_MIGRATING) => AssignedDir::Unknown,
            Some(id) => {
                let found = self.log_dirs.iter().position(|dir| dir.id == id && dir.is_online());
                found.map_or(AssignedDir::Gone, AssignedDir::Online)
            }
        }
    }

    /// Replicas of which the image does not know where they are, in some topics. What is just changing its place is told
    /// by who moves it.
    pub(crate) fn misplaced(&self, image: &MetadataImage, of_topics: impl Fn(Uuid) -> bool) -> Vec<ReplicaPlace> {
        let place = |partition: Arc<Partition>| {
            let at = &partition.topic_partition;
            let registration = image.topics.partition(&at.topic, at.partition)?;
            if self.moves.coming_to(at).is_some() {
                return None;
            }
            let directory = self.log_dirs.get(partition.log_dir())?.id;
            let place = ReplicaPlace { topic_id: partition.topic_id, partition: at.partition, directory };
            (registration.directory(self.node_id) != Some(directory)).then_some(place)
        };
        let topics = image.topics.iter().filter(|topic| of_topics(topic.id));
        topics.flat_map(|topic| self.partitions.of_topic(&topic.name)).filter_map(place).collect()
    }

    fn remove_replicas<'a>(&self, all: impl Iterator<Item = (&'a str, Uuid, i32)>) {
        let mut logs = Vec::new();
        for (topic, id, partition) in all {
            let Some(gone) = self.partitions.remove(topic, id, partition) else { continue };
            for coordinator in self.coordinators.iter().filter(|c| c.topic() == topic) {
                coordinator.give_up(partition);
            }
            logs.extend(gone.take_log());
        }
        self.remove_logs(logs);
    }

    /// Renames deleted partitions' folders, which are unlinked after `log.segment.delete.delay.ms`.
    pub(crate) fn remove_logs(&self, logs: Vec<PartitionLog>) {
        let mut changed = BTreeSet::new();
        for log in logs {
            let at = log.topic_partition().to_string();
            match log.rename_for_delete(crate::random::uuid()) {
                Ok(None) => {}
                Ok(Some(path)) => {
                    changed.extend(path.parent().map(Path::to_path_buf));
                    self.deleted_dirs.lock().push((clock::now_ms(), path));
                }
                Err(error) => tracing::error!(at, error = describe(&error), "cannot remove a partition's log"),
            }
        }
        for dir in changed {
            // If it is lost, the next start finds the folders and learns from the metadata what became of their topics.
            if let Err(error) = log_dir::sync(&dir) {
                tracing::warn!(dir = %dir.display(), error = describe(&error), "a log directory is not flushed");
            }
        }
    }

    /// Unlinks folders of deleted partitions whose delay has passed.
    pub(crate) fn purge_deleted_dirs(&self, delay_ms: i64) {
        let now_ms = clock::now_ms();
        let mut waiting = self.deleted_dirs.lock();
        let (due, later): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|(since, _)| now_ms - since >= delay_ms);
        *waiting = later;
        drop(waiting);
        for (_, path) in due {
            unlink(&path);
        }
    }
}

fn unlink(path: &Path) {
    if let Err(error) = taccola_log::log_dir::remove_deleted_dir(path) {
        tracing::warn!(path = %path.display(), error = describe(&error), "cannot remove a deleted partition's folder");
    }
}

/// An error with its cause.
pub fn describe(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
