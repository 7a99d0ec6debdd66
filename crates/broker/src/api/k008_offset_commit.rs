//! OffsetCommit, key 8, v2–v10.
//!
//! Behaviour: offsets of topics that do not exist are refused one by one, the others go to the group's coordinator, which
//! answers once they are as durable as any acknowledged record. Version notes: v10 names topics by id (KIP-848).

use std::sync::Arc;

use taccola_coord::{Response, offset_commit_error_response};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;

const TOPIC_IDS_SINCE: i16 = 10;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let by_id = context.api_version >= TOPIC_IDS_SINCE;
    let partition = match broker.group_partition(&request.group_id) {
        Ok(partition) => partition,
        Err(error) => return offset_commit_error_response(&request, error),
    };
    let mut refused = Vec::new();
    let asked = std::mem::take(&mut request.topics);
    for mut topic in asked {
        let Some((name, id)) = broker.name_and_id(&topic.name, topic.topic_id, by_id) else {
            let error = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
            refused.push(refuse(&topic, |_| Some(error)));
            continue;
        };
        (topic.name, topic.topic_id) = (name, id);
        let image = broker.image();
        let known = |index: i32| image.topics.partition(&topic.name, index).is_some();
        let unknown = |index: i32| (!known(index)).then_some(ErrorCode::UnknownTopicOrPartition);
        if topic.partitions.iter().any(|p| !known(p.partition_index)) {
            refused.push(refuse(&topic, unknown));
            topic.partitions.retain(|p| known(p.partition_index));
        }
        drop(image);
        if !topic.partitions.is_empty() {
            request.topics.push(topic);
        }
    }
    let only_refused = request.topics.is_empty() && !refused.is_empty();
    let mut response =
        if only_refused { OffsetCommitResponse::default() } else { commit(broker, context, partition, &request).await };
    merge(&mut response, refused);
    for topic in &mut response.topics {
        if by_id {
            topic.name.clear();
        }
    }
    response
}

async fn commit(
    broker: &Arc<Broker>,
    context: &RequestContext,
    partition: i32,
    request: &OffsetCommitRequest,
) -> OffsetCommitResponse {
    let committed = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_offset_commit(call.now_ms, &call.context, request),
        |response| match response {
            Response::OffsetCommit(response) => Some(response),
            _ => None,
        },
    );
    committed.await.unwrap_or_else(|error| offset_commit_error_response(request, error))
}

/// The answer for those partitions of a topic that have an error.
fn refuse(topic: &OffsetCommitRequestTopic, error: impl Fn(i32) -> Option<ErrorCode>) -> OffsetCommitResponseTopic {
    let row = |partition_index: i32| {
        error(partition_index).map(|error| OffsetCommitResponsePartition { partition_index, error_code: error.code() })
    };
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().filter_map(|p| row(p.partition_index)).collect(),
    }
}

/// Adds refused partitions to their topic's entry.
fn merge(response: &mut OffsetCommitResponse, refused: Vec<OffsetCommitResponseTopic>) {
    for topic in refused {
        match response.topics.iter_mut().find(|t| t.name == topic.name && t.topic_id == topic.topic_id) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => response.topics.push(topic),
        }
    }
}
