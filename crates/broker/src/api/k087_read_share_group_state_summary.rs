//! ReadShareGroupStateSummary, key 87, v0–v1. Answers with epochs and offsets of share partitions;
//! of one that is not known with start offset -1. Version notes: v1 has a count of complete deliveries. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use taccola_coord::share_state::SharePartitionKey;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::read_share_group_state_summary_request::{
    PartitionData, ReadShareGroupStateSummaryRequest,
};
use taccola_wire::messages::read_share_group_state_summary_response::{
    PartitionResult, ReadShareGroupStateSummaryResponse, ReadStateSummaryResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::by_partition;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ReadShareGroupStateSummaryRequest,
) -> ReadShareGroupStateSummaryResponse {
    let topics = request.topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect();
    let row = |key, partition| row(broker, key, partition);
    let rows = by_partition(request.group_id, topics, |partition| partition.partition, row).await;
    let result = |(topic_id, partitions)| ReadStateSummaryResult { topic_id, partitions };
    ReadShareGroupStateSummaryResponse { results: rows.into_iter().map(result).collect() }
}

async fn row(broker: &Broker, key: SharePartitionKey, partition: PartitionData) -> PartitionResult {
    match broker.share_state_summary(&key).await {
        Ok(summary) => PartitionResult {
            partition: partition.partition,
            error_code: ErrorCode::None.code(),
            error_message: None,
            state_epoch: summary.state_epoch,
            leader_epoch: summary.leader_epoch,
            start_offset: summary.start_offset,
            delivery_complete_count: summary.delivery_complete_count,
        },
        Err(error) => PartitionResult {
            partition: partition.partition,
            error_code: error.code.code(),
            error_message: Some(error.message.into_owned()),
            ..Default::default()
        },
    }
}
