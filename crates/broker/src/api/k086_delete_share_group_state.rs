//! DeleteShareGroupState, key 86, v0. Forgets the state of share partitions; those that are not
//! known are forgotten already. Inter-broker: who asks is the group
//! coordinator of another broker. Answers to `ShareCoordinatorService`.

use std::sync::Arc;

use taccola_coord::share_state::SharePartitionKey;
use taccola_wire::messages::delete_share_group_state_request::{DeleteShareGroupStateRequest, PartitionData};
use taccola_wire::messages::delete_share_group_state_response::{
    DeleteShareGroupStateResponse, DeleteStateResult, PartitionResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::share_state::{by_partition, told};

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DeleteShareGroupStateRequest,
) -> DeleteShareGroupStateResponse {
    let topics = request.topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect();
    let row = |key, partition| row(broker, key, partition);
    let rows = by_partition(request.group_id, topics, |partition| partition.partition, row).await;
    let result = |(topic_id, partitions)| DeleteStateResult { topic_id, partitions };
    DeleteShareGroupStateResponse { results: rows.into_iter().map(result).collect() }
}

async fn row(broker: &Broker, key: SharePartitionKey, partition: PartitionData) -> PartitionResult {
    let done = broker.delete_share_state(&key).await;
    let (error_code, error_message) = told(done);
    PartitionResult { partition: partition.partition, error_code, error_message }
}
