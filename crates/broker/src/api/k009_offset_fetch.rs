//! OffsetFetch, key 9, v1–v10.
//!
//! Behaviour: committed offsets of one group, or (v8) of several, each from its own coordinator. No topics means all that
//! the group has. Version notes: v7 can ask for stable offsets alone, v10 names topics by id: an unknown id is answered
//! UNKNOWN_TOPIC_ID for each of its partitions.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_coord::{Response, offset_fetch_groups, offset_fetch_response};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use taccola_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};

use crate::broker::Broker;
use crate::context::RequestContext;

const TOPIC_IDS_SINCE: i16 = 10;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    let mut groups = Vec::new();
    for group in offset_fetch_groups(request, context.api_version) {
        groups.push(fetch_group(broker, context, group, require_stable).await);
    }
    offset_fetch_response(groups, context.api_version)
}

async fn fetch_group(
    broker: &Arc<Broker>,
    context: &RequestContext,
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let by_id = context.api_version >= TOPIC_IDS_SINCE;
    let group_id = group.group_id.clone();
    let asked = group.topics.clone().unwrap_or_default();
    let mut unknown = Vec::new();
    if by_id && let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match broker.name_and_id("", topic.topic_id, true) {
            Some((name, _)) => {
                topic.name = name;
                true
            }
            None => {
                unknown.push(unknown_topic(topic));
                false
            }
        });
    }
    let fetched = match broker.group_partition(&group_id) {
        Ok(partition) => {
            let call = broker.groups.call(
                partition,
                context,
                |groups, call| groups.handle_offset_fetch(call.now_ms, &call.context, group, require_stable),
                |response| match response {
                    Response::OffsetFetch(response) => Some(response),
                    _ => None,
                },
            );
            call.await
        }
        Err(error) => Err(error),
    };
    let mut response = fetched.unwrap_or_else(|error| failed(group_id, &asked, error));
    if by_id {
        // An offset of a topic that is gone has no id that a client could understand.
        response.topics.retain_mut(|topic| match broker.name_and_id(&topic.name, Uuid::ZERO, false) {
            Some((_, id)) => {
                topic.topic_id = id;
                topic.name.clear();
                true
            }
            None => !topic.topic_id.is_zero(),
        });
        response.topics.extend(unknown);
    }
    response
}

fn unknown_topic(topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: String::new(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(|index| no_offset(*index, ErrorCode::UnknownTopicId)).collect(),
    }
}

/// The whole group's failure. Old versions carry it in each partition, so these are there.
fn failed(group_id: String, asked: &[OffsetFetchRequestTopics], error: ErrorCode) -> OffsetFetchResponseGroup {
    let topics = asked.iter().map(|topic| OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(|index| no_offset(*index, error)).collect(),
    });
    OffsetFetchResponseGroup { group_id, topics: topics.collect(), error_code: error.code() }
}

fn no_offset(partition_index: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: error.code(),
    }
}
