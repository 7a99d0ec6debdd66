//! OffsetDelete, key 47, v0.
//!
//! Behaviour: the group coordinator (`taccola_coord`) decides; offsets of topics that the group is subscribed to stay, and
//! topics that are not there are UNKNOWN_TOPIC_OR_PARTITION, unless the group as a whole is refused.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use taccola_wire::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use taccola_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return failed(error),
    };
    let image = broker.image();
    let (known, unknown): (Vec<_>, Vec<_>) =
        std::mem::take(&mut request.topics).into_iter().partition(|topic| image.topics.by_name(&topic.name).is_some());
    request.topics = known;
    drop(image);
    let called = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_offset_delete(call.now_ms, &call.context, &request),
        |response| match response {
            Response::OffsetDelete(response) => Some(response),
            _ => None,
        },
    );
    let mut response = called.await.unwrap_or_else(failed);
    if response.error_code == 0 {
        response.topics.extend(unknown.iter().map(refuse));
    }
    response
}

fn refuse(topic: &OffsetDeleteRequestTopic) -> OffsetDeleteResponseTopic {
    let error_code = ErrorCode::UnknownTopicOrPartition.code();
    let row = |partition_index| OffsetDeleteResponsePartition { partition_index, error_code };
    let partitions = topic.partitions.iter().map(|partition| row(partition.partition_index));
    OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
}

fn failed(error: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse { error_code: error.code(), ..Default::default() }
}
