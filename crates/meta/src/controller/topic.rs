//! CreateTopics, DeleteTopics, CreatePartitions. Answers to `ReplicationControlManager` and the checks of `ControllerApis`
//! before it.
//!
//! Each topic of a request succeeds or fails on its own; what succeeds is one atomic batch. A topic's partitions start at
//! leader epoch 0 and partition epoch 0, all its live replicas in the ISR, the first of them leading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::topic::{CLUSTER_METADATA_TOPIC, validate_topic_name};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use taccola_wire::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use taccola_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use taccola_wire::messages::delete_topics_response::DeletableTopicResult;
use taccola_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, RemoveTopicRecord, TopicRecord,
};

use super::broker::default_dir;
use super::config::{ConfigMap, ConfigOp, EffectiveConfig};
use super::{ApiError, Controller, Outcome, PARTITIONS_PER_REQUEST_MAX, PARTITIONS_PER_TOPIC_MAX};
use crate::image::{
    ConfigResource, LEADER_RECOVERED, MetadataImage, PartitionRegistration, TopicImage, unify_collision_chars,
};
use crate::record::VersionedRecord;

/// Where new ids come from: each must be random and never handed out before.
pub type NewIds<'a> = &'a mut dyn FnMut() -> Uuid;

impl Controller {
    /// Creates topics. `new_ids` gives one id per topic.
    pub fn create_topics(
        &self,
        image: &MetadataImage,
        request: &CreateTopicsRequest,
        new_ids: NewIds<'_>,
    ) -> Outcome<CreateTopicsResponse> {
        let repeated = repeated(request.topics.iter().map(|t| t.name.as_str()));
        let mut answered = BTreeSet::new();
        let mut unified = BTreeSet::new();
        let mut budget = PARTITIONS_PER_REQUEST_MAX;
        let too_many = self.requested_partitions(request) > PARTITIONS_PER_REQUEST_MAX;
        let (mut records, mut topics) = (Vec::new(), Vec::new());
        for topic in &request.topics {
            let created = if repeated.contains(topic.name.as_str()) {
                if !answered.insert(topic.name.as_str()) {
                    continue;
                }
                Err(ApiError::new(ErrorCode::InvalidRequest, "the request names this topic more than once"))
            } else if too_many {
                Err(excessive())
            } else {
                self.create_topic(image, topic, &mut unified, &mut budget, new_ids)
            };
            match created {
                Ok((new, row)) => {
                    records.extend(new);
                    topics.push(row);
                }
                Err(error) => topics.push(CreatableTopicResult {
                    name: topic.name.clone(),
                    error_code: error.code.code(),
                    error_message: Some(error.message),
                    ..Default::default()
                }),
            }
        }
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, CreateTopicsResponse { throttle_time_ms: 0, topics })
    }

    fn requested_partitions(&self, request: &CreateTopicsRequest) -> usize {
        let of = |topic: &CreatableTopic| match topic.num_partitions {
            _ if !topic.assignments.is_empty() => topic.assignments.len(),
            -1 => usize::try_from(self.settings.default_num_partitions).unwrap_or(1),
            n => usize::try_from(n).unwrap_or(0),
        };
        request.topics.iter().map(of).fold(0, usize::saturating_add)
    }

    fn create_topic(
        &self,
        image: &MetadataImage,
        topic: &CreatableTopic,
        unified: &mut BTreeSet<String>,
        budget: &mut usize,
        new_ids: NewIds<'_>,
    ) -> Result<(Vec<VersionedRecord>, CreatableTopicResult), ApiError> {
        check_new_name(image, &topic.name, unified)?;
        let (resource, ops) = (ConfigResource::topic(topic.name.as_str()), creation_ops(topic)?);
        let configs = self.alter_resource(image, &resource, &ops, false)?;
        let partitions = self.new_topic_partitions(image, topic)?;
        *budget = budget.checked_sub(partitions.len()).ok_or_else(excessive)?;
        let topic_id = new_ids();
        if let Some(name) = unify_collision_chars(&topic.name) {
            unified.insert(name);
        }
        let mut records = vec![VersionedRecord::new(TopicRecord { name: topic.name.clone(), topic_id }, 0)];
        records.extend(configs);
        let version = image.metadata_version();
        records.extend((0..).zip(&partitions).map(|(id, p)| p.record(topic_id, id, version)));
        let overrides: ConfigMap = ops
            .into_iter()
            .filter_map(|(key, op)| match op {
                ConfigOp::Set(value) => Some((key.to_owned(), value)),
                _ => None,
            })
            .collect();
        let shown = self.rules.effective_topic_configs(image, &overrides);
        let row = CreatableTopicResult {
            name: topic.name.clone(),
            topic_id,
            error_code: 0,
            error_message: None,
            topic_config_error_code: 0,
            num_partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
            replication_factor: partitions.first().map_or(-1, |p| i16::try_from(p.replicas.len()).unwrap_or(i16::MAX)),
            configs: Some(shown.into_iter().map(shown_config).collect()),
        };
        Ok((records, row))
    }

    fn new_topic_partitions(
        &self,
        image: &MetadataImage,
        topic: &CreatableTopic,
    ) -> Result<Vec<PartitionRegistration>, ApiError> {
        if !topic.assignments.is_empty() {
            return manual_partitions(image, topic);
        }
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            let message = "the replication factor must be at least 1, or -1 for the default";
            return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            let message = "the number of partitions must be at least 1, or -1 for the default";
            return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
        }
        let or_default = |given: i32, default: i32| if given == -1 { default } else { given };
        let count = or_default(topic.num_partitions, self.settings.default_num_partitions);
        let factor = or_default(topic.replication_factor.into(), self.settings.default_replication_factor.into());
        let (count, factor) = (usize::try_from(count).unwrap_or(1), usize::try_from(factor).unwrap_or(1));
        place(image, 0, count, factor)
    }

    /// Deletes topics by name or by id. A topic that is named more than once, in whatever way, is not deleted and has one
    /// row.
    pub fn delete_topics(&self, image: &MetadataImage, request: &DeleteTopicsRequest) -> Outcome<DeleteTopicsResponse> {
        let mut wanted: Vec<(Option<&str>, Uuid)> =
            request.topics.iter().map(|t| (t.name.as_deref(), t.topic_id)).collect();
        wanted.extend(request.topic_names.iter().map(|name| (Some(name.as_str()), Uuid::ZERO)));
        let mut times: BTreeMap<Uuid, usize> = BTreeMap::new();
        let mut same: BTreeMap<(Option<&str>, Uuid), usize> = BTreeMap::new();
        let found: Vec<Result<Arc<TopicImage>, ApiError>> =
            wanted.iter().map(|(name, id)| self.topic_to_delete(image, *name, *id)).collect();
        for (topic, item) in found.iter().zip(&wanted) {
            *same.entry(*item).or_default() += 1;
            if let Ok(topic) = topic {
                *times.entry(topic.id).or_default() += 1;
            }
        }
        let repeated = || ApiError::new(ErrorCode::InvalidRequest, "the request names this topic more than once");
        let (mut records, mut responses) = (Vec::new(), Vec::new());
        let (mut told, mut told_topics) = (BTreeSet::new(), BTreeSet::new());
        for (item, topic) in wanted.into_iter().zip(found) {
            let again = !told.insert(item);
            let literally = same.get(&item).is_some_and(|n| *n > 1);
            responses.push(match topic {
                _ if again => continue,
                _ if literally => refused_deletion(item.0, item.1, repeated()),
                Err(error) => refused_deletion(item.0, item.1, error),
                Ok(topic) if times.get(&topic.id).is_some_and(|n| *n > 1) => {
                    if !told_topics.insert(topic.id) {
                        continue;
                    }
                    refused_deletion(Some(&topic.name), topic.id, repeated())
                }
                Ok(topic) => {
                    records.push(VersionedRecord::new(RemoveTopicRecord { topic_id: topic.id }, 0));
                    let name = Some(topic.name.to_string());
                    DeletableTopicResult { name, topic_id: topic.id, error_code: 0, error_message: None }
                }
            });
        }
        Outcome::atomic(records, DeleteTopicsResponse { throttle_time_ms: 0, responses })
    }

    fn topic_to_delete(
        &self,
        image: &MetadataImage,
        name: Option<&str>,
        id: Uuid,
    ) -> Result<Arc<TopicImage>, ApiError> {
        if !self.settings.delete_topic_enable {
            return Err(ApiError::of(ErrorCode::TopicDeletionDisabled));
        }
        let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
        match name {
            Some(_) if !id.is_zero() => invalid("a topic is named by its name or by its id, not by both"),
            None if id.is_zero() => invalid("a topic needs a name or an id"),
            Some(name) => {
                image.topics.by_name(name).cloned().ok_or_else(|| ApiError::of(ErrorCode::UnknownTopicOrPartition))
            }
            None => image.topics.by_id(id).cloned().ok_or_else(|| ApiError::of(ErrorCode::UnknownTopicId)),
        }
    }

    /// Adds partitions to topics: a row per topic.
    pub fn create_partitions(
        &self,
        image: &MetadataImage,
        request: &CreatePartitionsRequest,
    ) -> Outcome<CreatePartitionsResponse> {
        let repeated = repeated(request.topics.iter().map(|t| t.name.as_str()));
        let mut answered = BTreeSet::new();
        let mut budget = PARTITIONS_PER_REQUEST_MAX;
        let (mut records, mut results) = (Vec::new(), Vec::new());
        for topic in &request.topics {
            let added = if repeated.contains(topic.name.as_str()) {
                if !answered.insert(topic.name.as_str()) {
                    continue;
                }
                Err(ApiError::new(ErrorCode::InvalidRequest, "the request names this topic more than once"))
            } else {
                add_partitions(image, topic, &mut budget)
            };
            let error = match added {
                Ok(new) => {
                    records.extend(new);
                    None
                }
                Err(error) => Some(error),
            };
            results.push(CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code: error.as_ref().map_or(0, |e| e.code.code()),
                error_message: error.map(|e| e.message),
            });
        }
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, CreatePartitionsResponse { throttle_time_ms: 0, results })
    }
}

fn refused_deletion(name: Option<&str>, topic_id: Uuid, error: ApiError) -> DeletableTopicResult {
    DeletableTopicResult {
        name: name.map(str::to_owned),
        topic_id,
        error_code: error.code.code(),
        error_message: Some(error.message),
    }
}

fn excessive() -> ApiError {
    let message = format!("a request may create at most {PARTITIONS_PER_REQUEST_MAX} partitions");
    ApiError::new(ErrorCode::PolicyViolation, message)
}

fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// `unified`: names of this request that were created before, with their collision characters unified.
fn check_new_name(image: &MetadataImage, name: &str, unified: &BTreeSet<String>) -> Result<(), ApiError> {
    if name == CLUSTER_METADATA_TOPIC {
        let message = format!("topic '{name}' cannot be created");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    validate_topic_name(name).map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))?;
    if image.topics.by_name(name).is_some() {
        return Err(ApiError::new(ErrorCode::TopicAlreadyExists, format!("topic '{name}' already exists")));
    }
    let in_request = unify_collision_chars(name).is_some_and(|n| unified.contains(&n));
    let existing = image.topics.colliding(name);
    if in_request || existing.is_some() {
        let other = existing.map_or("another one of this request", |n| n);
        let message = format!("topic '{name}' differs from {other} only in '.' and '_'");
        return Err(ApiError::new(ErrorCode::InvalidTopicException, message));
    }
    Ok(())
}

fn creation_ops(topic: &CreatableTopic) -> Result<BTreeMap<&str, ConfigOp>, ApiError> {
    let mut ops = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            return Err(ApiError::new(ErrorCode::InvalidConfig, format!("the value of {} is null", config.name)));
        };
        // A key that comes twice keeps its last value, as in Kafka.
        ops.insert(config.name.as_str(), ConfigOp::Set(value.clone()));
    }
    Ok(ops)
}

fn shown_config(config: EffectiveConfig) -> CreatableTopicConfigs {
    CreatableTopicConfigs {
        name: config.name,
        value: config.value.filter(|_| !config.sensitive),
        read_only: config.read_only,
        config_source: config.source,
        is_sensitive: config.sensitive,
    }
}

fn bad_assignment(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidReplicaAssignment, message)
}

fn manual_partitions(image: &MetadataImage, topic: &CreatableTopic) -> Result<Vec<PartitionRegistration>, ApiError> {
    for (given, what) in
        [(i32::from(topic.replication_factor), "replication factor"), (topic.num_partitions, "number of partitions")]
    {
        if given != -1 {
            let message = format!("with an assignment of replicas, the {what} must be -1");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
    }
    let mut by_id: BTreeMap<i32, &CreatableReplicaAssignment> = BTreeMap::new();
    for assignment in &topic.assignments {
        if by_id.insert(assignment.partition_index, assignment).is_some() {
            return Err(bad_assignment(format!("partition {} is assigned twice", assignment.partition_index)));
        }
    }
    let mut factor = None;
    let mut partitions = Vec::with_capacity(by_id.len());
    for ((id, assignment), expected) in by_id.into_iter().zip(0..) {
        if id != expected {
            return Err(bad_assignment("partitions must be numbered from 0 without gaps"));
        }
        partitions.push(assigned(image, id, &assignment.broker_ids, factor)?);
        factor = Some(assignment.broker_ids.len());
    }
    Ok(partitions)
}

/// A new partition with exactly these replicas. `factor`: how many there must be.
fn assigned(
    image: &MetadataImage,
    id: i32,
    replicas: &[i32],
    factor: Option<usize>,
) -> Result<PartitionRegistration, ApiError> {
    if replicas.is_empty() {
        return Err(bad_assignment(format!("partition {id} has no replicas")));
    }
    let mut seen = BTreeSet::new();
    for broker in replicas {
        if !image.cluster.brokers.contains_key(broker) {
            return Err(bad_assignment(format!(
                "partition {id} is assigned to broker {broker}, which is not registered"
            )));
        }
        if !seen.insert(broker) {
            return Err(bad_assignment(format!("partition {id} is assigned to broker {broker} twice")));
        }
    }
    if let Some(factor) = factor.filter(|f| *f != replicas.len()) {
        return Err(bad_assignment(format!("partition {id} has {} replicas, others have {factor}", replicas.len())));
    }
    let all_out = || bad_assignment(format!("all brokers of partition {id} are fenced or shutting down"));
    new_partition(image, replicas.to_vec()).ok_or_else(all_out)
}

/// `None` when none of the replicas is live.
fn new_partition(image: &MetadataImage, replicas: Vec<i32>) -> Option<PartitionRegistration> {
    let isr: Vec<i32> = replicas.iter().copied().filter(|r| image.cluster.is_active(*r)).collect();
    let leader = *isr.first()?;
    Some(PartitionRegistration {
        directories: replicas.iter().map(|r| default_dir(image, *r)).collect(),
        replicas,
        isr,
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader,
        leader_recovery_state: LEADER_RECOVERED,
        leader_epoch: 0,
        partition_epoch: 0,
    })
}

/// Spreads partitions over brokers: partition n starts at the n-th broker, replicas follow in a ring; live brokers come
/// before fenced ones, so that every partition has a leader.
fn place(
    image: &MetadataImage,
    first_partition: usize,
    count: usize,
    factor: usize,
) -> Result<Vec<PartitionRegistration>, ApiError> {
    let refuse = |message: String| ApiError::new(ErrorCode::InvalidReplicationFactor, message);
    let known = image.cluster.brokers.len();
    if factor > known {
        let message = format!("a replication factor of {factor} needs as many brokers, and {known} are registered");
        return Err(refuse(message));
    }
    if count > PARTITIONS_PER_REQUEST_MAX {
        return Err(excessive());
    }
    let (live, fenced): (Vec<i32>, Vec<i32>) =
        image.cluster.brokers.keys().partition(|id| image.cluster.is_active(**id));
    if live.is_empty() {
        return Err(refuse("all brokers are fenced or shutting down".to_owned()));
    }
    (first_partition..first_partition.saturating_add(count))
        .map(|n| {
            let ring = |set: &[i32], len: usize| -> Vec<i32> {
                set.iter().cycle().skip(n % set.len().max(1)).take(len.min(set.len())).copied().collect()
            };
            let mut replicas = ring(&live, factor);
            replicas.extend(ring(&fenced, factor - replicas.len()));
            new_partition(image, replicas).ok_or_else(|| refuse("no broker is live".to_owned()))
        })
        .collect()
}

fn add_partitions(
    image: &MetadataImage,
    request: &CreatePartitionsTopic,
    budget: &mut usize,
) -> Result<Vec<VersionedRecord>, ApiError> {
    let unknown = || ApiError::of(ErrorCode::UnknownTopicOrPartition);
    let topic = image.topics.by_name(&request.name).ok_or_else(unknown)?;
    let (now, wanted) = (topic.partition_count(), usize::try_from(request.count).unwrap_or(0));
    let additional = match wanted.checked_sub(now) {
        Some(additional) if additional > 0 => additional,
        _ => {
            let message = format!("topic '{}' has {now} partitions; {} is no increase", request.name, request.count);
            return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
        }
    };
    if wanted > PARTITIONS_PER_TOPIC_MAX {
        let message = format!("a topic may have at most {PARTITIONS_PER_TOPIC_MAX} partitions");
        return Err(ApiError::new(ErrorCode::PolicyViolation, message));
    }
    *budget = budget.checked_sub(additional).ok_or_else(excessive)?;
    let factor = topic.partition(0).map_or(1, |p| p.replicas.len());
    let first = i32::try_from(now).unwrap_or(i32::MAX);
    let partitions = match &request.assignments {
        None => place(image, now, additional, factor)?,
        Some(given) if given.len() != additional => {
            return Err(bad_assignment(format!("{additional} partitions are added, but {} are assigned", given.len())));
        }
        Some(given) => {
            let assign = (first..).zip(given).map(|(id, a)| assigned(image, id, &a.broker_ids, Some(factor)));
            assign.collect::<Result<_, _>>()?
        }
    };
    let version = image.metadata_version();
    Ok((first..).zip(&partitions).map(|(id, p)| p.record(topic.id, id, version)).collect())
}
