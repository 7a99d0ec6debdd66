//! DeleteShareGroupOffsets, key 92, v0 (KIP-932). Forgets where an empty share group is in topics: NON_EMPTY_GROUP,
//! GROUP_ID_NOT_FOUND; by topic UNKNOWN_TOPIC_OR_PARTITION where there is nothing to forget.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest;
use taccola_wire::messages::delete_share_group_offsets_response::{
    DeleteShareGroupOffsetsResponse, DeleteShareGroupOffsetsResponseTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;

/// For a topic of which the group knows nothing.
const NOTHING_TO_DELETE: &str = "There is no offset information to delete.";

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    delete(broker, context, request).await.unwrap_or_else(|error| DeleteShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    })
}

async fn delete(
    broker: &Broker,
    context: &RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> Result<DeleteShareGroupOffsetsResponse, ErrorCode> {
    if !broker.share_groups_enabled() {
        return Err(ErrorCode::UnsupportedVersion);
    }
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let names: Vec<String> = request.topics.into_iter().map(|topic| topic.topic_name).collect();
    let (reply, outcomes) = broker.delete_share_group_offsets(context, &request.group_id, &names).await?;
    if let Some(error) = reply.error {
        return Err(error);
    }
    let topics = reply.topics.into_iter().map(|topic| {
        let failed = outcomes.get(&topic.id).and_then(|all| BTreeMap::values(all).find_map(|one| one.as_ref().err()));
        let (code, message) = match (topic.error, failed) {
            (Some(code), _) if topic.id.is_zero() => (code, Some(code.message().to_owned())),
            (Some(code), _) => (code, Some(NOTHING_TO_DELETE.to_owned())),
            (None, Some(failed)) => (failed.code, Some(failed.code.message().to_owned())),
            (None, None) => (ErrorCode::None, None),
        };
        DeleteShareGroupOffsetsResponseTopic {
            topic_name: topic.name,
            topic_id: topic.id,
            error_code: code.code(),
            error_message: message,
        }
    });
    Ok(DeleteShareGroupOffsetsResponse { responses: topics.collect(), ..Default::default() })
}
