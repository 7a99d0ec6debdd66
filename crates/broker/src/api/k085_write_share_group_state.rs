//! WriteShareGroupState, key 85, v0–v1. Adds deliveries to the state of share partitions:
//! FENCED_LEADER_EPOCH and FENCED_STATE_EPOCH for epochs that are older than what is known, INVALID_REQUEST for a share
//! partition that was not initialized. Version notes: v1 has a count of complete deliveries. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use taccola_coord::share_state::{SharePartitionKey, StateBatch, WriteState};
use taccola_wire::messages::write_share_group_state_request::{
    PartitionData, StateBatch as StateBatchData, WriteShareGroupStateRequest,
};
use taccola_wire::messages::write_share_group_state_response::{
    PartitionResult, WriteShareGroupStateResponse, WriteStateResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::{by_partition, told};

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: WriteShareGroupStateRequest,
) -> WriteShareGroupStateResponse {
    let topics = request.topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect();
    let row = |key, partition| row(broker, key, partition);
    let rows = by_partition(request.group_id, topics, |partition| partition.partition, row).await;
    let result = |(topic_id, partitions)| WriteStateResult { topic_id, partitions };
    WriteShareGroupStateResponse { results: rows.into_iter().map(result).collect() }
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
    let (error_code, error_message) = told(broker.write_share_state(&key, &write).await);
    PartitionResult { partition: partition.partition, error_code, error_message }
}
