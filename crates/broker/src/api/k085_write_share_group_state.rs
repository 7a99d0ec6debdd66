//! WriteShareGroupState, key 85, v0–v1. Adds deliveries to the state of share partitions:
//! FENCED_LEADER_EPOCH and FENCED_STATE_EPOCH for epochs that are older than what is known, INVALID_REQUEST for a share
//! partition that was not initialized. Version notes: v1 has a count of complete deliveries. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use futures_util::future::join_all;
use taccola_coord::share_state::{SharePartitionKey, StateBatch, WriteState};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::write_share_group_state_request::{
    PartitionData, StateBatch as StateBatchData, WriteShareGroupStateRequest,
};
use taccola_wire::messages::write_share_group_state_response::{
    PartitionResult, WriteShareGroupStateResponse, WriteStateResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::is_well_formed;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: WriteShareGroupStateRequest,
) -> WriteShareGroupStateResponse {
    if !is_well_formed(&request.group_id, request.topics.iter().map(|topic| topic.partitions.len())) {
        return WriteShareGroupStateResponse::default();
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
        async move { WriteStateResult { topic_id: topic.topic_id, partitions: join_all(rows).await } }
    });
    WriteShareGroupStateResponse { results: join_all(topics).await }
}

async fn row(broker: &Broker, key: SharePartitionKey, partition: PartitionData) -> PartitionResult {
    let batch = |b: StateBatchData| StateBatch {
        first_offset: b.first_offset,
        last_offset: b.last_offset,
        delivery_count: b.delivery_count,
        delivery_state: b.delivery_state,
    };
    let write = WriteState {
        state_epoch: partition.state_epoch,
        leader_epoch: partition.leader_epoch,
        start_offset: partition.start_offset,
        delivery_complete_count: partition.delivery_complete_count,
        batches: partition.state_batches.into_iter().map(batch).collect(),
    };
    let (error_code, error_message) = match broker.write_share_state(&key, &write).await {
        Ok(()) => (ErrorCode::None, None),
        Err(error) => (error.code, Some(error.message.into_owned())),
    };
    PartitionResult { partition: partition.partition, error_code: error_code.code(), error_message }
}
