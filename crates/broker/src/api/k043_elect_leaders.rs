//! ElectLeaders, key 43, v0–v2. The controller decides (`taccola_meta::controller::election`); the answer comes once the
//! new leaders are durable and in the image.
//!
//! Version notes: v0 knows preferred elections only; v1 brought the kind of election and an error for the whole.

use std::sync::Arc;

use taccola_meta::controller::ApiError;
use taccola_meta::controller::election::refused;
use taccola_wire::messages::elect_leaders_request::ElectLeadersRequest;
use taccola_wire::messages::elect_leaders_response::ElectLeadersResponse;

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;

/// The whole has an error from this version on.
const ERROR_SINCE: i16 = 1;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let version = context.api_version;
    let elected = broker.command(|controller, image| controller.elect_leaders(image, &request, version)).await;
    let mut response = elected.unwrap_or_else(|error| {
        refused(&request, &ApiError::new(error_map::metadata_write(&error), error.to_string()))
    });
    if version < ERROR_SINCE {
        response.error_code = 0;
    }
    response
}
