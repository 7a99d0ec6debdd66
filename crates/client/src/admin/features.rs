//! Features of the cluster: what is finalized, and changes to it (KIP-584).

use taccola_net::api::ApiExt;
use taccola_wire::messages::UpdateFeaturesRequest;
use taccola_wire::messages::update_features_request::FeatureUpdateKey;

use super::{Admin, Outcomes};
use crate::error::{Error, Result};
use crate::features::{self, Features};

/// First version with upgrade types and validation only.
const TYPES_VERSION: i16 = 1;

/// `FeatureUpdate.UpgradeType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum UpgradeType {
    Upgrade = 1,
    /// Only if no metadata is lost by it.
    SafeDowngrade = 2,
    UnsafeDowngrade = 3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    pub name: String,
    /// 0 takes the feature out of use.
    pub level: i16,
    pub kind: UpgradeType,
}

impl Admin {
    pub async fn describe_features(&self) -> Result<Features> {
        self.client.retrying(|| features::query(&self.client)).await
    }

    /// All or nothing, from version 2 of the API on.
    pub async fn update_features(&self, updates: &[FeatureUpdate], validate_only: bool) -> Result<Outcomes<()>> {
        self.client.retrying(|| self.update_features_once(updates, validate_only)).await
    }

    async fn update_features_once(&self, updates: &[FeatureUpdate], validate_only: bool) -> Result<Outcomes<()>> {
        let api = self.client.any().await?;
        let version = api.version::<UpdateFeaturesRequest>()?;
        if validate_only && version < TYPES_VERSION {
            return Err(Error::Invalid("the broker is too old to only check an update of features".to_owned()));
        }
        let update = |u: &FeatureUpdate| FeatureUpdateKey {
            feature: u.name.clone(),
            max_version_level: u.level,
            allow_downgrade: version < TYPES_VERSION && u.kind != UpgradeType::Upgrade,
            upgrade_type: if version < TYPES_VERSION { UpgradeType::Upgrade as i8 } else { u.kind as i8 },
        };
        let request = UpdateFeaturesRequest {
            timeout_ms: self.timeout_ms(),
            feature_updates: updates.iter().map(update).collect(),
            validate_only,
        };
        let response = self.client.request(&api, &request, version).await?;
        // One feature's refusal is the whole request's, which names it.
        Error::check(response.error_code, "features", response.error_message)?;
        let mut outcomes: Outcomes<()> = response
            .results
            .into_iter()
            .map(|r| {
                let outcome = Error::check(r.error_code, format!("feature {}", r.feature), r.error_message);
                (r.feature, outcome)
            })
            .collect();
        if outcomes.is_empty() {
            outcomes = updates.iter().map(|u| (u.name.clone(), Ok(()))).collect();
        }
        super::settled(outcomes)
    }
}
