//! What levels of which features a cluster supports and has finalized (KIP-584), as ApiVersions tells them.

use std::collections::BTreeMap;

use taccola_net::api::ApiExt;
use taccola_wire::messages::ApiVersionsRequest;

use crate::cluster::Client;
use crate::error::{Error, Result};

/// First versions of ApiVersions that tell features at all, and those that reach down to level 0.
const FEATURES_VERSION: i16 = 3;

/// One feature; levels are inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    pub min_supported: i16,
    pub max_supported: i16,
    /// 0: not in use.
    pub finalized: i16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Offset in the metadata log at which the finalized levels were read; `None` when the broker does not tell.
    pub epoch: Option<i64>,
    pub features: BTreeMap<String, Feature>,
}

/// One attempt.
pub(crate) async fn query(client: &Client) -> Result<Features> {
    let api = client.any().await?;
    let version = api.version::<ApiVersionsRequest>()?;
    if version < FEATURES_VERSION {
        return Ok(Features::default());
    }
    let request = ApiVersionsRequest {
        client_software_name: "taccola".to_owned(),
        client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let response = client.request(&api, &request, version).await?;
    Error::check(response.error_code, "features", None)?;
    let mut features: BTreeMap<String, Feature> = BTreeMap::new();
    for supported in response.supported_features {
        let feature = features.entry(supported.name).or_default();
        (feature.min_supported, feature.max_supported) = (supported.min_version, supported.max_version);
    }
    for finalized in response.finalized_features {
        features.entry(finalized.name).or_default().finalized = finalized.max_version_level;
    }
    let epoch = response.finalized_features_epoch;
    Ok(Features { epoch: (epoch >= 0).then_some(epoch), features })
}

/// One attempt: the finalized level of one feature, 0 when it is not in use.
pub(crate) async fn finalized(client: &Client, name: &str) -> Result<i16> {
    Ok(query(client).await?.features.get(name).map_or(0, |feature| feature.finalized))
}
