//! The controller: commands against an image become records and a response. Answers to `QuorumController` and the managers
//! behind it.
//!
//! Every method is a function of the image, the request and the ids given; nothing is applied here. The caller appends the
//! records, waits until they are committed, applies them, and only then answers, so that whoever gets the response finds its
//! effect in the image. Commands are handled one at a time, each against the image with all earlier ones in it.
//!
//! Authorisation, quotas and API versions are the caller's: it takes out what is not allowed before it asks, and adds the
//! rows of what it took out.

pub mod broker;
pub mod config;
mod directories;
pub mod election;
pub mod feature;
mod partition_change;
pub mod producer_ids;
pub mod reassignment;
pub mod topic;

use std::sync::Arc;

pub use broker::{BrokerSpec, PreviousShutdown};
pub use config::{ConfigRules, EffectiveConfig};
pub use directories::ReplicaPlace;
pub use producer_ids::PRODUCER_ID_BLOCK;
use taccola_wire::error::ErrorCode;

use partition_change::{Assignment, Election, PartitionChange};

use crate::image::{ConfigResource, MetadataImage, PartitionRegistration, TopicImage};
use crate::record::VersionedRecord;
use crate::views::is_in_offline_dir;

/// Partitions that one request may create, inclusive (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`):
/// POLICY_VIOLATION beyond.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;
/// Partitions of one topic, inclusive: POLICY_VIOLATION beyond. Kafka has no bound of its own here.
pub const PARTITIONS_PER_TOPIC_MAX: usize = 200_000;

/// An error of one item of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// With the code's own sentence.
    pub fn of(code: ErrorCode) -> Self {
        Self::new(code, code.message())
    }
}

/// What a command leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<R> {
    /// Empty when nothing changes; then there is nothing to append.
    pub records: Vec<VersionedRecord>,
    /// Whether the records must be applied together ([`crate::batch::encode_batches`]).
    pub atomic: bool,
    pub response: R,
}

impl<R> Outcome<R> {
    pub(crate) fn atomic(records: Vec<VersionedRecord>, response: R) -> Self {
        Self { records, atomic: true, response }
    }
}

/// What the controller needs to know of the node's own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerSettings {
    /// `num.partitions`.
    pub default_num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `min.insync.replicas` as the node's own file sets it; what is set dynamically goes before it.
    pub min_insync_replicas: i32,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            default_num_partitions: 1,
            default_replication_factor: 1,
            min_insync_replicas: 1,
            delete_topic_enable: true,
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Controller {
    settings: ControllerSettings,
    rules: Arc<dyn ConfigRules>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Controller {
    pub fn new(settings: ControllerSettings, rules: Arc<dyn ConfigRules>) -> Self {
        Self { settings, rules }
    }

    pub fn settings(&self) -> &ControllerSettings {
        &self.settings
    }

    /// A topic's value from its own overrides or the cluster's default.
    fn dynamic_topic_value<'a>(&self, image: &'a MetadataImage, topic: &Arc<str>, key: &str) -> Option<&'a str> {
        let own = image.configs.value(&ConfigResource::topic(Arc::clone(topic)), key);
        own.or_else(|| image.configs.value(&ConfigResource::default_broker(), key))
    }

    /// Replicas that must be in sync, at most the replication factor (`getTopicEffectiveMinIsr`).
    fn effective_min_isr(&self, image: &MetadataImage, topic: &Arc<str>, replicas: usize) -> usize {
        let dynamic =
            self.dynamic_topic_value(image, topic, config::MIN_ISR).and_then(|v| v.trim().parse::<i32>().ok());
        let wanted = dynamic.unwrap_or(self.settings.min_insync_replicas).max(1);
        usize::try_from(wanted).unwrap_or(1).min(replicas)
    }

    fn unclean_election(&self, image: &MetadataImage, topic: &Arc<str>) -> bool {
        let value = self.dynamic_topic_value(image, topic, "unclean.leader.election.enable");
        value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
    }

    /// A change of a partition to another assignment or by an election, ready for more to be said about it.
    fn partition_change<'a>(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        partition_id: i32,
        partition: &'a PartitionRegistration,
        target: Assignment,
        election: Election,
    ) -> PartitionChange<'a> {
        let replicas = topic.partition(0).map_or(1, |first| first.replicas.len());
        PartitionChange {
            partition,
            topic_id: topic.id,
            partition_id,
            version: image.metadata_version(),
            elr_enabled: image.elr_enabled(),
            min_isr: self.effective_min_isr(image, &topic.name, replicas),
            target_isr: partition.isr.clone(),
            target,
            unclean_shutdown: None,
            election,
        }
    }

    /// Its record, if it changes anything: live brokers may lead.
    fn build_change(&self, image: &MetadataImage, change: PartitionChange<'_>) -> Option<VersionedRecord> {
        let partition = change.partition;
        let may_lead = |r: i32| image.cluster.is_active(r) && !is_in_offline_dir(image, partition, r);
        change.build(may_lead, |r| broker::default_dir(image, r))
    }
}
