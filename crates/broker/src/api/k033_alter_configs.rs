//! AlterConfigs, key 33, v0–v2: a resource's configs become exactly what the request says. The controller decides
//! (`taccola_meta::controller::config`), the one table of keys says what is good (`config_rules`); the answer comes once
//! the change is durable and in force.

use std::sync::Arc;

use taccola_wire::messages::alter_configs_request::AlterConfigsRequest;
use taccola_wire::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let altered = broker.command(|controller, image| controller.alter_configs(image, &request)).await;
    altered.unwrap_or_else(|error| {
        let failed = request.resources.iter().map(|resource| AlterConfigsResourceResponse {
            error_code: error_map::metadata_write(&error).code(),
            error_message: Some(error.to_string()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        });
        AlterConfigsResponse { responses: failed.collect(), ..Default::default() }
    })
}
