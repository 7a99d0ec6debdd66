//! CreateTopics, key 19, v2–v7. The controller decides (`taccola_meta::controller`); the answer comes once the topics are
//! durable, in the image, and their logs exist.

use std::sync::Arc;

use taccola_wire::messages::create_topics_request::CreateTopicsRequest;
use taccola_wire::messages::create_topics_response::{CreatableTopicResult, CreateTopicsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let created =
        broker.command(|controller, image| controller.create_topics(image, &request, &mut crate::random::uuid)).await;
    created.unwrap_or_else(|error| {
        let failed = |name: &str| CreatableTopicResult {
            name: name.to_owned(),
            error_code: error_map::metadata_write(&error).code(),
            error_message: Some(error.to_string()),
            ..Default::default()
        };
        let topics = request.topics.iter().map(|topic| failed(&topic.name)).collect();
        CreateTopicsResponse { topics, ..Default::default() }
    })
}
