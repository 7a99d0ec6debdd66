//! InitializeShareGroupState, key 83, v0. Sets up the state of share partitions, or sets it back:
//! FENCED_STATE_EPOCH for a state epoch that is older than what is known. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use taccola_coord::share_state::SharePartitionKey;
use taccola_wire::messages::initialize_share_group_state_request::{InitializeShareGroupStateRequest, PartitionData};
use taccola_wire::messages::initialize_share_group_state_response::{
    InitializeShareGroupStateResponse, InitializeStateResult, PartitionResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::{by_partition, told};

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: InitializeShareGroupStateRequest,
) -> InitializeShareGroupStateResponse {
    let topics = request.topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect();
    let row = |key, partition| row(broker, key, partition);
    let rows = by_partition(request.group_id, topics, |partition| partition.partition, row).await;
    let result = |(topic_id, partitions)| InitializeStateResult { topic_id, partitions };
    InitializeShareGroupStateResponse { results: rows.into_iter().map(result).collect() }
}

async fn row(broker: &Broker, key: SharePartitionKey, partition: PartitionData) -> PartitionResult {
    let done = broker.initialize_share_state(&key, partition.state_epoch, partition.start_offset).await;
    let (error_code, error_message) = told(done);
    PartitionResult { partition: partition.partition, error_code, error_message }
}
