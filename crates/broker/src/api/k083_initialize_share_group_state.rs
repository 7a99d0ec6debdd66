//! InitializeShareGroupState, key 83, v0. Sets up the state of share partitions, or sets it back:
//! FENCED_STATE_EPOCH for a state epoch that is older than what is known. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use futures_util::future::join_all;
use taccola_coord::share_state::SharePartitionKey;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::initialize_share_group_state_request::{InitializeShareGroupStateRequest, PartitionData};
use taccola_wire::messages::initialize_share_group_state_response::{
    InitializeShareGroupStateResponse, InitializeStateResult, PartitionResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::is_well_formed;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: InitializeShareGroupStateRequest,
) -> InitializeShareGroupStateResponse {
    if !is_well_formed(&request.group_id, request.topics.iter().map(|topic| topic.partitions.len())) {
        return InitializeShareGroupStateResponse::default();
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
        async move { InitializeStateResult { topic_id: topic.topic_id, partitions: join_all(rows).await } }
    });
    InitializeShareGroupStateResponse { results: join_all(topics).await }
}

async fn row(broker: &Broker, key: SharePartitionKey, partition: PartitionData) -> PartitionResult {
    let done = broker.initialize_share_state(&key, partition.state_epoch, partition.start_offset).await;
    let (error_code, error_message) = match done {
        Ok(()) => (ErrorCode::None, None),
        Err(error) => (error.code, Some(error.message.into_owned())),
    };
    PartitionResult { partition: partition.partition, error_code: error_code.code(), error_message }
}
