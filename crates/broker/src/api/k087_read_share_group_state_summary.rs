//! ReadShareGroupStateSummary, key 87, v0–v1. Answers with epochs and offsets of share partitions;
//! of one that is not known with start offset -1. Version notes: v1 has a count of complete deliveries. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use futures_util::future::join_all;
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
use crate::share_state::is_well_formed;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ReadShareGroupStateSummaryRequest,
) -> ReadShareGroupStateSummaryResponse {
    if !is_well_formed(&request.group_id, request.topics.iter().map(|topic| topic.partitions.len())) {
        return ReadShareGroupStateSummaryResponse::default();
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
        async move { ReadStateSummaryResult { topic_id: topic.topic_id, partitions: join_all(rows).await } }
    });
    ReadShareGroupStateSummaryResponse { results: join_all(topics).await }
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
