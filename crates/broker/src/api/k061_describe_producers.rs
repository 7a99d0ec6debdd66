//! DescribeProducers, key 61, v0. Answers to `ReplicaManager.activeProducerState`.
//!
//! Behaviour: the producers whose state the partition's log still has (`producer.id.expiration.ms`), with their last
//! sequence and open transaction. Only the leader answers. A partition that comes again is INVALID_REQUEST: its producers
//! are many, and a small request must not lead to an answer of any size.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use taccola_base::topic::validate_topic_name;
use taccola_log::ProducerSummary;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_producers_request::DescribeProducersRequest;
use taccola_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut seen: HashMap<String, HashSet<i32>> = HashMap::new();
    let topics = request.topics.into_iter().map(|topic| {
        let seen = seen.entry(topic.name.clone()).or_default();
        let partitions = topic.partition_indexes.iter().map(|index| {
            let found = if seen.insert(*index) {
                producers(broker, &topic.name, *index)
            } else {
                Err(ErrorCode::InvalidRequest)
            };
            row(*index, found)
        });
        TopicResponse { partitions: partitions.collect(), name: topic.name }
    });
    DescribeProducersResponse { topics: topics.collect(), ..Default::default() }
}

fn row(partition_index: i32, found: Result<Vec<ProducerState>, ErrorCode>) -> PartitionResponse {
    match found {
        Ok(active_producers) => PartitionResponse { partition_index, active_producers, ..Default::default() },
        Err(error) => PartitionResponse {
            partition_index,
            error_code: error.code(),
            error_message: Some(error.message().to_owned()),
            ..Default::default()
        },
    }
}

fn producers(broker: &Broker, topic: &str, index: i32) -> Result<Vec<ProducerState>, ErrorCode> {
    if validate_topic_name(topic).is_err() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let missing = || broker.missing_partition_error(topic, index);
    let partition = broker.partitions.get(topic, index).ok_or_else(missing)?;
    let summaries = partition.with_log(|log| match log.offline_reason() {
        Some(_) => Err(ErrorCode::KafkaStorageError),
        None => Ok(log.producers()),
    });
    let summaries = summaries.ok_or(ErrorCode::NotLeaderOrFollower)??;
    Ok(summaries.into_iter().map(state).collect())
}

fn state(producer: ProducerSummary) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.current_txn_start_offset,
    }
}
