//! AlterShareGroupOffsets, key 91, v0 (KIP-932). New start offsets for an empty share group, which is made if it is not
//! there: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND for a group of another kind; UNKNOWN_TOPIC_OR_PARTITION by partition.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequest;
use taccola_wire::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponse, AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    alter(broker, context, &request).await.unwrap_or_else(|error| AlterShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    })
}

async fn alter(
    broker: &Broker,
    context: &RequestContext,
    request: &AlterShareGroupOffsetsRequest,
) -> Result<AlterShareGroupOffsetsResponse, ErrorCode> {
    if !broker.share_groups_enabled() {
        return Err(ErrorCode::UnsupportedVersion);
    }
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let (reply, outcomes) = broker.alter_share_group_offsets(context, request).await?;
    if let Some(error) = reply.error {
        return Err(error);
    }
    let topics = reply.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|(partition_index, error)| {
            let failed =
                outcomes.get(&topic.id).and_then(|partitions| partitions.get(&partition_index)?.as_ref().err());
            let (code, message) = match (error, failed) {
                (Some(code), _) => (code, Some(code.message().to_owned())),
                (None, Some(failed)) => (failed.code, Some(failed.message.to_string())),
                (None, None) => (ErrorCode::None, None),
            };
            AlterShareGroupOffsetsResponsePartition { partition_index, error_code: code.code(), error_message: message }
        });
        AlterShareGroupOffsetsResponseTopic {
            topic_name: topic.name,
            topic_id: topic.id,
            partitions: partitions.collect(),
        }
    });
    Ok(AlterShareGroupOffsetsResponse { responses: topics.collect(), ..Default::default() })
}
