//! Brings this broker's partitions in line with the metadata image: creates, removes, reconfigures. Answers to Kafka's
//! `ReplicaManager.applyDelta` and `DynamicConfigPublisher`.

use std::path::Path;
use std::sync::Arc;

use taccola_base::{TopicPartition, Uuid};
use taccola_log::{LogError, PartitionLog};
use taccola_meta::image::config::ConfigResourceType;
use taccola_meta::image::topics::PartitionRegistration;
use taccola_meta::{MetadataChanges, MetadataImage};

use crate::broker::Broker;
use crate::clock;
use crate::partition::{Leadership, Partition};
use crate::runtime::coordinator::image::{self as coordinator_image, topic_changes};

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
        for gone in local.deletes.iter().chain(&local.not_replicas) {
            self.remove_replica(&gone.topic, gone.topic_id, gone.partition);
        }
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
            self.remove_replica(topic, known.topic_id, partition);
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
        let log_dir = self.choose_log_dir(registration);
        let Some(dir) = self.log_dirs.get(log_dir) else { return };
        let topic_partition = TopicPartition::new(topic, partition);
        let config = self.topic_config(image, topic);
        let created =
            PartitionLog::create(&dir.path, topic_partition, Some(id), config.log.clone(), self.log_shared.clone());
        match created {
            Ok(log) => self.partitions.insert(Partition::new(log, id, log_dir, leadership(registration), config)),
            Err(error) => {
                tracing::error!(topic, partition, error = describe(&error), "cannot create a partition's log")
            }
        }
    }

    /// The directory that the image assigns, else the one with the fewest partitions.
    fn choose_log_dir(&self, registration: &PartitionRegistration) -> usize {
        let assigned =
            registration.directory(self.node_id).and_then(|id| self.log_dirs.iter().position(|dir| dir.id == id));
        assigned.unwrap_or_else(|| {
            let mut counts = vec![0_usize; self.log_dirs.len()];
            for partition in self.partitions.all() {
                if let Some(count) = counts.get_mut(partition.log_dir) {
                    *count += 1;
                }
            }
            counts.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(index, _)| index)
        })
    }

    fn remove_replica(&self, topic: &str, id: Uuid, partition: i32) {
        let Some(gone) = self.partitions.remove(topic, id, partition) else { return };
        for coordinator in self.coordinators.iter().filter(|c| c.topic() == topic) {
            coordinator.give_up(partition);
        }
        if let Some(log) = gone.take_log() {
            self.remove_log(log);
        }
    }

    /// Renames a deleted partition's folder, which is unlinked after `log.segment.delete.delay.ms`.
    pub(crate) fn remove_log(&self, log: PartitionLog) {
        let at = log.topic_partition().to_string();
        match log.rename_for_delete(crate::random::uuid()) {
            Ok(path) => self.deleted_dirs.lock().push((clock::now_ms(), path)),
            Err(error) => tracing::error!(at, error = describe(&error), "cannot remove a partition's log"),
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
