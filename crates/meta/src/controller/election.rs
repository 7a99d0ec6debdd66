//! ElectLeaders (KIP-460): a leader is elected because somebody asks, not because a broker came or went. Answers to
//! `ReplicationControlManager.electLeaders`.

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use taccola_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::partition_change::{Assignment, Election};
use super::{ApiError, Controller, Outcome};
use crate::image::{MetadataImage, NO_LEADER, TopicImage};
use crate::record::VersionedRecord;

/// What kind of election a request asks for; version 0 cannot say and means the preferred one.
fn election(kind: i8, api_version: i16) -> Result<Election, ApiError> {
    match kind {
        0 => Ok(Election::Preferred),
        _ if api_version == 0 => Ok(Election::Preferred),
        1 => Ok(Election::Unclean),
        other => Err(ApiError::new(ErrorCode::InvalidRequest, format!("there is no election of type {other}"))),
    }
}

impl Controller {
    pub fn elect_leaders(
        &self,
        image: &MetadataImage,
        request: &ElectLeadersRequest,
        api_version: i16,
    ) -> Outcome<ElectLeadersResponse> {
        // Kafka answers a request for nothing before it looks at the kind.
        if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
            return Outcome::atomic(Vec::new(), ElectLeadersResponse::default());
        }
        let election = match election(request.election_type, api_version) {
            Ok(election) => election,
            Err(error) => return Outcome::atomic(Vec::new(), refused(request, &error)),
        };
        let mut records = Vec::new();
        let mut response = ElectLeadersResponse::default();
        let Some(asked) = &request.topic_partitions else {
            response.replica_election_results = self.elect_everywhere(image, election, &mut records);
            return Outcome::atomic(records, response);
        };
        for topic in asked {
            let known = image.topics.by_name(&topic.topic);
            let elect = |(partition, records): (i32, &mut Vec<VersionedRecord>)| match known {
                Some(known) => self.elect_leader(image, known, partition, election, records),
                None => Err(unknown(&topic.topic)),
            };
            let rows = topic.partitions.iter().map(|id| row(*id, elect((*id, &mut records))));
            response
                .replica_election_results
                .push(ReplicaElectionResult { topic: topic.topic.clone(), partition_result: rows.collect() });
        }
        Outcome::atomic(records, response)
    }

    /// Every partition there is. Those that have the leader that they should have are not told.
    fn elect_everywhere(
        &self,
        image: &MetadataImage,
        election: Election,
        records: &mut Vec<VersionedRecord>,
    ) -> Vec<ReplicaElectionResult> {
        let mut results = Vec::new();
        for topic in image.topics.iter() {
            let mut result = ReplicaElectionResult { topic: topic.name.to_string(), ..Default::default() };
            for (id, _) in topic.partitions.iter() {
                let elected = self.elect_leader(image, topic, *id, election, records);
                if !matches!(&elected, Err(error) if error.code == ErrorCode::ElectionNotNeeded) {
                    result.partition_result.push(row(*id, elected));
                }
            }
            results.push(result);
        }
        results
    }

    fn elect_leader(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        id: i32,
        election: Election,
        records: &mut Vec<VersionedRecord>,
    ) -> Result<(), ApiError> {
        let partition = topic.partition(id).ok_or_else(|| unknown(&format!("{}-{id}", topic.name)))?;
        let not_needed = match election {
            Election::Preferred => partition.replicas.first() == Some(&partition.leader),
            _ => partition.leader != NO_LEADER,
        };
        if not_needed {
            return Err(ApiError::of(ErrorCode::ElectionNotNeeded));
        }
        let change = self.partition_change(image, topic, id, partition, Assignment::of(partition), election);
        let record = self.build_change(image, change).ok_or_else(|| {
            ApiError::of(match election {
                Election::Preferred => ErrorCode::PreferredLeaderNotAvailable,
                _ => ErrorCode::EligibleLeadersNotAvailable,
            })
        })?;
        records.push(record);
        Ok(())
    }
}

fn unknown(what: &str) -> ApiError {
    ApiError::new(ErrorCode::UnknownTopicOrPartition, format!("there is no {what}"))
}

fn row(partition_id: i32, elected: Result<(), ApiError>) -> PartitionResult {
    let error = elected.err();
    PartitionResult {
        partition_id,
        error_code: error.as_ref().map_or(0, |error| error.code.code()),
        error_message: error.map(|error| error.message),
    }
}

/// The same error for all partitions that the request names, and for the whole where the version has a place for it.
pub fn refused(request: &ElectLeadersRequest, error: &ApiError) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten();
    ElectLeadersResponse {
        error_code: error.code.code(),
        replica_election_results: topics
            .map(|topic| ReplicaElectionResult {
                topic: topic.topic.clone(),
                partition_result: topic.partitions.iter().map(|id| row(*id, Err(error.clone()))).collect(),
            })
            .collect(),
        ..Default::default()
    }
}
