//! CreatePartitions, key 37, v0–v3. The controller decides (`taccola_meta::controller`); the answer, a row per topic,
//! comes once the partitions are durable, in the image, and their logs exist.

use std::sync::Arc;

use taccola_wire::messages::create_partitions_request::CreatePartitionsRequest;
use taccola_wire::messages::create_partitions_response::{CreatePartitionsResponse, CreatePartitionsTopicResult};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let created = broker.command(|controller, image| controller.create_partitions(image, &request)).await;
    created.unwrap_or_else(|error| {
        let failed = request.topics.iter().map(|topic| CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: error_map::metadata_write(&error).code(),
            error_message: Some(error.to_string()),
        });
        CreatePartitionsResponse { results: failed.collect(), ..Default::default() }
    })
}
