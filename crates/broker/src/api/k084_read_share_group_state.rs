//! ReadShareGroupState, key 84, v0. Answers with the state of share partitions:
//! FENCED_LEADER_EPOCH for a leader epoch that is older than what is known; a newer one is recorded. INVALID_REQUEST for a
//! share partition that was not initialized. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use taccola_coord::share_state::{SharePartitionKey, StateBatch};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::read_share_group_state_request::{PartitionData, ReadShareGroupStateRequest};
use taccola_wire::messages::read_share_group_state_response::{
    PartitionResult, ReadShareGroupStateResponse, ReadStateResult, StateBatch as StateBatchData,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::by_partition;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ReadShareGroupStateRequest,
) -> ReadShareGroupStateResponse {
    let topics = request.topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect();
    let row = |key, partition| row(broker, key, partition);
    let rows = by_partition(request.group_id, topics, |partition| partition.partition, row).await;
    let result = |(topic_id, partitions)| ReadStateResult { topic_id, partitions };
    ReadShareGroupStateResponse { results: rows.into_iter().map(result).collect() }
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
