//! DeleteTopics, key 20, v1–v6. The controller decides (`taccola_meta::controller`); the answer comes once the topics are
//! gone from the image and their folders are renamed. The folders' space is freed `file.delete.delay.ms` later.
//!
//! Version notes: v6 names a topic by name or by id; `delete.topic.enable=false` is INVALID_REQUEST below v3, whose
//! clients do not know TOPIC_DELETION_DISABLED.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_topics_request::DeleteTopicsRequest;
use taccola_wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

const DELETION_DISABLED_SINCE: i16 = 3;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let deleted = broker.command(|controller, image| controller.delete_topics(image, &request)).await;
    let mut response = deleted.unwrap_or_else(|error| {
        let failed = |name: Option<String>, topic_id| DeletableTopicResult {
            name,
            topic_id,
            error_code: error_map::metadata_write(&error).code(),
            error_message: Some(error.to_string()),
        };
        let by_state = request.topics.iter().map(|topic| failed(topic.name.clone(), topic.topic_id));
        let by_name = request.topic_names.iter().map(|name| failed(Some(name.clone()), Default::default()));
        DeleteTopicsResponse { responses: by_state.chain(by_name).collect(), ..Default::default() }
    });
    if context.api_version < DELETION_DISABLED_SINCE {
        for row in response.responses.iter_mut().filter(|row| row.error_code == ErrorCode::TopicDeletionDisabled.code())
        {
            row.error_code = ErrorCode::InvalidRequest.code();
        }
    }
    response
}
