//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455, KIP-860). Answers to
//! `ReplicationControlManager.alterPartitionReassignments` and `listPartitionReassignments`.
//!
//! A reassignment in Kafka has a first half, which adds the new replicas, and a second one, which takes out the old ones
//! once the new ones are in sync. Nobody here copies a partition from its leader, so only what is complete at once is
//! taken: another order of the same replicas, fewer replicas, the end of a reassignment that another controller began.
//! What would have to wait is INVALID_REPLICA_ASSIGNMENT rather than a reassignment that never ends.

use std::collections::BTreeSet;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use taccola_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use taccola_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use taccola_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
};

use super::partition_change::{Assignment, Election};
use super::{ApiError, Controller, Outcome};
use crate::image::{MetadataImage, PartitionRegistration, TopicImage};
use crate::record::{MetadataRecord, VersionedRecord};

impl Controller {
    pub fn alter_partition_reassignments(
        &self,
        image: &MetadataImage,
        request: &AlterPartitionReassignmentsRequest,
    ) -> Outcome<AlterPartitionReassignmentsResponse> {
        let mut records = Vec::new();
        let may_change_factor = request.allow_replication_factor_change;
        let mut responses = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for target in &topic.partitions {
                let error = match self.reassign(image, &topic.name, target, may_change_factor) {
                    Ok(record) => {
                        records.extend(record);
                        None
                    }
                    Err(error) => Some(error),
                };
                partitions.push(ReassignablePartitionResponse {
                    partition_index: target.partition_index,
                    error_code: error.as_ref().map_or(0, |error| error.code.code()),
                    error_message: error.map(|error| error.message),
                });
            }
            responses.push(ReassignableTopicResponse { name: topic.name.clone(), partitions });
        }
        // Kafka answers a request without topics before it looks at anything else, with the fields' own defaults.
        let nothing = request.topics.is_empty();
        let response = AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: may_change_factor || nothing,
            error_message: nothing.then(String::new),
            responses,
            ..Default::default()
        };
        Outcome::atomic(records, response)
    }

    fn reassign(
        &self,
        image: &MetadataImage,
        name: &str,
        target: &ReassignablePartition,
        may_change_factor: bool,
    ) -> Result<Option<VersionedRecord>, ApiError> {
        let unknown = |what: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, format!("there is no {what}"));
        let id = target.partition_index;
        let topic = image.topics.by_name(name).ok_or_else(|| unknown(format!("topic {name}")))?;
        let partition = topic.partition(id).ok_or_else(|| unknown(format!("partition {name}-{id}")))?;
        match &target.replicas {
            None => self.cancel(image, topic, id, partition),
            Some(replicas) => {
                check_replicas(image, replicas)?;
                if !may_change_factor {
                    check_factor(partition, replicas.len())?;
                }
                let assignment = Assignment::toward(partition, replicas);
                let change = self.partition_change(image, topic, id, partition, assignment, Election::Online);
                let record = self.build_change(image, change);
                if record.as_ref().is_some_and(|record| goes_on(partition, record)) {
                    return Err(bad_assignment(format!(
                        "{name}-{id} would have to be copied to brokers that do not hold it, from {:?} to {replicas:?}, \
                         and this release does not replicate",
                        partition.replicas
                    )));
                }
                Ok(record)
            }
        }
    }

    /// Goes back to the replicas from before the reassignment.
    fn cancel(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        id: i32,
        partition: &PartitionRegistration,
    ) -> Result<Option<VersionedRecord>, ApiError> {
        if !Assignment::of(partition).in_progress() {
            return Err(ApiError::of(ErrorCode::NoReassignmentInProgress));
        }
        let assignment = Assignment::reverted(partition);
        let unclean_election = self.unclean_election(image, &topic.name);
        let mut isr = partition.isr.clone();
        isr.retain(|r| !partition.adding_replicas.contains(r));
        if isr.is_empty() {
            let Some(first) = assignment.replicas.first() else {
                return Err(bad_assignment("all replicas were added by the reassignment"));
            };
            if !unclean_election {
                let message = format!("to go back, {}-{id} would need an unclean leader election", topic.name);
                return Err(bad_assignment(message));
            }
            isr.push(*first);
        }
        let election = if unclean_election { Election::Unclean } else { Election::Online };
        let mut change = self.partition_change(image, topic, id, partition, assignment, election);
        change.target_isr = isr;
        Ok(self.build_change(image, change))
    }
}

fn bad_assignment(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidReplicaAssignment, message)
}

/// Whether the partition would be left in the middle of a reassignment.
fn goes_on(partition: &PartitionRegistration, record: &VersionedRecord) -> bool {
    let MetadataRecord::PartitionChange(change) = &record.record else { return false };
    let left = |changed: &Option<Vec<i32>>, now: &[i32]| !changed.as_deref().unwrap_or(now).is_empty();
    left(&change.removing_replicas, &partition.removing_replicas)
        || left(&change.adding_replicas, &partition.adding_replicas)
}

/// A request may forbid that the number of replicas changes. In the middle of a reassignment its target counts.
fn check_factor(partition: &PartitionRegistration, wanted: usize) -> Result<(), ApiError> {
    let mut now: BTreeSet<i32> = partition.replicas.iter().chain(&partition.adding_replicas).copied().collect();
    for leaving in &partition.removing_replicas {
        now.remove(leaving);
    }
    if now.len() == wanted {
        return Ok(());
    }
    let message = format!("the replication factor would change from {} to {wanted}", now.len());
    Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message))
}

/// Replicas that somebody names by hand: registered brokers, each once.
fn check_replicas(image: &MetadataImage, replicas: &[i32]) -> Result<(), ApiError> {
    if replicas.is_empty() {
        return Err(bad_assignment("the list of replicas is empty"));
    }
    let mut seen = BTreeSet::new();
    for broker in replicas {
        if !image.cluster.brokers.contains_key(broker) {
            return Err(bad_assignment(format!("broker {broker} is not registered")));
        }
        if !seen.insert(broker) {
            return Err(bad_assignment(format!("broker {broker} is named more than once")));
        }
    }
    Ok(())
}

/// The reassignments that go on: of the partitions that are asked for, or of all.
pub fn list_partition_reassignments(
    image: &MetadataImage,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics = match &request.topics {
        None => image.topics.iter().filter_map(|t| ongoing(t, t.partitions.iter().map(|(id, _)| *id))).collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|t| ongoing(image.topics.by_name(&t.name)?, t.partition_indexes.iter().copied()))
            .collect(),
    };
    ListPartitionReassignmentsResponse { error_message: None, topics, ..Default::default() }
}

fn ongoing(topic: &TopicImage, partitions: impl Iterator<Item = i32>) -> Option<OngoingTopicReassignment> {
    // Named twice, told once: the answer is no longer than the topic.
    let asked: BTreeSet<i32> = partitions.collect();
    let row = |id: i32| {
        let partition = topic.partition(id).filter(|p| Assignment::of(p).in_progress())?;
        Some(OngoingPartitionReassignment {
            partition_index: id,
            replicas: partition.replicas.clone(),
            adding_replicas: partition.adding_replicas.clone(),
            removing_replicas: partition.removing_replicas.clone(),
        })
    };
    let partitions: Vec<_> = asked.into_iter().filter_map(row).collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment { name: topic.name.to_string(), partitions })
}
