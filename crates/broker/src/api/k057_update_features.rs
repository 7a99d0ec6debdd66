//! UpdateFeatures, key 57, v0–v2. The controller decides (`taccola_meta::controller::feature`); the answer comes once the
//! new levels are durable and in the image.
//!
//! Version notes: v0 and v1 have a row per feature when all updates hold; v2 has none.

use std::sync::Arc;

use taccola_meta::controller::ApiError;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::update_features_request::UpdateFeaturesRequest;
use taccola_wire::messages::update_features_response::{UpdatableFeatureResult, UpdateFeaturesResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error_map;
use crate::runtime::metadata::MetadataWriteError;

/// No rows from this version on.
const NO_ROWS_SINCE: i16 = 2;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let failed = |code: ErrorCode, message: String| UpdateFeaturesResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..Default::default()
    };
    let version = context.api_version;
    let updated = update(broker, &request, version).await;
    match updated {
        Ok(Ok(())) => {
            let row = |feature: String| UpdatableFeatureResult {
                feature,
                error_code: 0,
                // Kafka's words for no error.
                error_message: Some(ErrorCode::None.name().to_owned()),
            };
            let rows = request.feature_updates.into_iter().filter(|_| version < NO_ROWS_SINCE);
            let results = rows.map(|u| row(u.feature)).collect();
            UpdateFeaturesResponse { error_message: None, results, ..Default::default() }
        }
        Ok(Err(error)) => failed(error.code, error.message),
        Err(error) => failed(error_map::metadata_write(&error), error.to_string()),
    }
}

/// All levels, the quorum's own first: what writes it is a control batch.
async fn update(
    broker: &Arc<Broker>,
    request: &UpdateFeaturesRequest,
    version: i16,
) -> Result<Result<(), ApiError>, MetadataWriteError> {
    let mut metadata = broker.metadata.lock().await;
    let (node_id, kraft_version) = (broker.node_id, metadata.kraft_version());
    let outcome = broker.controller.update_features(metadata.image(), request, version, node_id, kraft_version);
    let quorum = match outcome.response {
        Ok(quorum) => quorum,
        Err(error) => return Ok(Err(error)),
    };
    if quorum.is_some() {
        broker.upgrade_quorum(&mut metadata).await?;
    }
    broker.commit(&mut metadata, &outcome.records).await.map(Ok)
}
