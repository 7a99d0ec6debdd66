//! ReadShareGroupState, key 84, v0. Answers with the state of share partitions:
//! FENCED_LEADER_EPOCH for a leader epoch that is older than what is known; a newer one is recorded. INVALID_REQUEST for a
//! share partition that was not initialized. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use futures_util::future::join_all;
use taccola_coord::share_state::{SharePartitionKey, StateBatch};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::read_share_group_state_request::{PartitionData, ReadShareGroupStateRequest};
use taccola_wire::messages::read_share_group_state_response::{
    PartitionResult, ReadShareGroupStateResponse, ReadStateResult, StateBatch as StateBatchData,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::is_well_formed;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ReadShareGroupStateRequest,
) -> ReadShareGroupStateResponse {
    if !is_well_formed(&request.group_id, request.topics.iter().map(|topic| topic.partitions.len())) {
        return ReadShareGroupStateResponse::default();
    }
    let group_id: Arc<str> = request.group_id.into();
    // All at a time: the records of different share partitions wait for one flush.
    let topics = request.topics.into_iter().map(|topic| {
        let rows: Vec<_> = topic
            .partitions
            .into_iter()
            .map(|partition| {
                let key = SharePartitionKey {
                    group_id: group_id.clone(),
                    topic_id: topic.topic_id,
                    partition: partition.partition,
                };
                row(broker, key, partition)
            })
            .collect();
        async move { ReadStateResult { topic_id: topic.topic_id, partitions: join_all(rows).await } }
    });
    ReadShareGroupStateResponse { results: join_all(topics).await }
}

async fn row(broker: &Broker, key: SharePartitionKey, partition: PartitionData) -> PartitionResult {
    let batch = |b: StateBatch| StateBatchData {
        first_offset: b.first_offset,
        last_offset: b.last_offset,
        delivery_state: b.delivery_state,
        delivery_count: b.delivery_count,
    };
    match broker.read_share_state(&key, partition.leader_epoch).await {
        Ok(read) => PartitionResult {
            partition: partition.partition,
            error_code: ErrorCode::None.code(),
            error_message: None,
            state_epoch: read.state_epoch,
            start_offset: read.start_offset,
            state_batches: read.batches.into_iter().map(batch).collect(),
        },
        Err(error) => PartitionResult {
            partition: partition.partition,
            error_code: error.code.code(),
            error_message: Some(error.message.into_owned()),
            ..Default::default()
        },
    }
}
