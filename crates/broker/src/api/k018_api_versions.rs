//! ApiVersions, key 18, v0–v4.
//!
//! Behaviour: answers the dispatch table, and from v3 on the features that this broker has implemented and that the
//! cluster has finalized. A name or version of the client's software that is not made of letters, digits, `.` and `-` is
//! INVALID_REQUEST (KIP-511). Features whose lowest level is 0 are hidden below v4, whose clients cannot read them.

use std::sync::Arc;

use taccola_meta::feature;
use taccola_wire::api::ApiKey;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::api_versions_request::ApiVersionsRequest;
use taccola_wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::dispatch;

/// Clients name their software from this version on.
const SOFTWARE_SINCE: i16 = 3;
/// Features may have a lowest level of 0 from this version on (KAFKA-17011).
const ZERO_LEVELS_SINCE: i16 = 4;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let named = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.chars().all(inner) && outer(text.chars().next()) && outer(text.chars().last())
    };
    if context.api_version >= SOFTWARE_SINCE
        && !(named(&request.client_software_name) && named(&request.client_software_version))
    {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() };
    }
    let image = broker.image();
    let finalized = |name: &str| match name {
        feature::KRAFT_VERSION => broker.kraft_version(),
        name => image.features.level(name),
    };
    let features = feature::advertised(finalized, feature::IMPLEMENTED);
    let shown = features.iter().filter(|f| context.api_version >= ZERO_LEVELS_SINCE || f.min_supported > 0);
    ApiVersionsResponse {
        api_keys: api_keys(),
        supported_features: shown
            .map(|f| SupportedFeatureKey {
                name: f.name.clone(),
                min_version: f.min_supported,
                max_version: f.max_supported,
            })
            .collect(),
        finalized_features_epoch: image.provenance.last_contained_offset,
        finalized_features: features
            .iter()
            .filter(|f| f.finalized > 0)
            .map(|f| FinalizedFeatureKey {
                name: f.name.clone(),
                max_version_level: f.finalized,
                min_version_level: f.finalized,
            })
            .collect(),
        ..Default::default()
    }
}

fn api_keys() -> Vec<ApiVersion> {
    let version = |row: &dispatch::Row| ApiVersion {
        api_key: row.key.code(),
        min_version: row.min_version,
        max_version: row.max_version,
    };
    dispatch::TABLE.iter().map(version).collect()
}

/// The answer, in version 0, to a version that is too new: the error, and which versions of this key there are.
pub fn unsupported_version() -> ApiVersionsResponse {
    let own = api_keys().into_iter().filter(|key| key.api_key == ApiKey::ApiVersions.code());
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: own.collect(),
        ..Default::default()
    }
}
