//! Finalized features change: UpdateFeatures. Answers to `FeatureControlManager` and `MetadataVersion.checkIfMetadataChanged`.
//!
//! All updates of a request hold or none does. A level is taken only if this node implements it, whatever Kafka's own
//! range is: nobody is promised what is not there.

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::FeatureLevelRecord;
use taccola_wire::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};

use super::config::MIN_ISR;
use super::{ApiError, Controller, Outcome};
use crate::feature::{
    ELR_VERSION, IMPLEMENTED, KAFKA_FEATURES, KRAFT_VERSION, METADATA_VERSION, METADATA_VERSION_MIN, MetadataVersion,
};
use crate::image::config::config_record;
use crate::image::{ConfigResource, ConfigResourceType, MetadataImage};
use crate::record::VersionedRecord;

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;
/// Before it a request has no upgrade type; Kafka takes such a request for an upgrade.
const UPGRADE_TYPE_FROM: i16 = 1;

impl Controller {
    /// `node_id` is the controller's, `kraft_version` the quorum's own level, which no record holds. The response is the
    /// level to which the quorum is to be raised ([`crate::quorum::upgrade_batch`]) before the records are written, if it
    /// is asked for.
    pub fn update_features(
        &self,
        image: &MetadataImage,
        request: &UpdateFeaturesRequest,
        api_version: i16,
        node_id: i32,
        kraft_version: i16,
    ) -> Outcome<Result<Option<i16>, ApiError>> {
        let (mut records, mut quorum) = (Vec::new(), None);
        for update in updates(&request.feature_updates, api_version) {
            match self.update_feature(image, &update, node_id, kraft_version) {
                Ok(mut more) => {
                    records.append(&mut more);
                    if update.feature == KRAFT_VERSION {
                        quorum = Some(update.level).filter(|level| *level > kraft_version);
                    }
                }
                Err(reason) => {
                    let message = format!(
                        "The update failed for all features since the following feature had an error: {reason}"
                    );
                    return Outcome::atomic(Vec::new(), Err(ApiError::new(ErrorCode::InvalidUpdateVersion, message)));
                }
            }
        }
        if request.validate_only {
            records.clear();
            quorum = None;
        }
        Outcome::atomic(records, Ok(quorum))
    }

    fn update_feature(
        &self,
        image: &MetadataImage,
        update: &Update<'_>,
        node_id: i32,
        kraft_version: i16,
    ) -> Result<Vec<VersionedRecord>, String> {
        let Update { feature, level, upgrade_type } = *update;
        let invalid = |why: String| Err(format!("Invalid update version {level} for feature {feature}. {why}"));
        if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&upgrade_type) {
            return invalid("The controller does not support the given upgrade type.".to_owned());
        }
        let current = if feature == KRAFT_VERSION { kraft_version } else { image.features.level(feature) };
        if level < 0 {
            return invalid("A feature version cannot be less than 0.".to_owned());
        }
        if let Some(why) = unsupported(feature, level, node_id) {
            return invalid(why);
        }
        if level < current && upgrade_type == UPGRADE {
            return invalid(
                "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
                 downgrade."
                    .to_owned(),
            );
        }
        if level > current && upgrade_type != UPGRADE {
            return invalid("Can't downgrade to a newer version.".to_owned());
        }
        if level == current {
            return Ok(Vec::new());
        }
        match feature {
            KRAFT_VERSION if level < current => invalid("Can't downgrade the version of this feature.".to_owned()),
            // Control records, which are no records of the image.
            KRAFT_VERSION => Ok(Vec::new()),
            METADATA_VERSION => {
                check_metadata_version(current, level, upgrade_type)?;
                Ok(vec![level_record(feature, level)])
            }
            ELR_VERSION if level > 0 => {
                let mv = image.metadata_version();
                if !mv.has_elr() {
                    return invalid(format!("It needs {METADATA_VERSION} 23 or later, and the cluster has {}.", mv.0));
                }
                let mut records = vec![level_record(feature, level)];
                self.settle_min_isr(image, &mut records);
                Ok(records)
            }
            _ => Ok(vec![level_record(feature, level)]),
        }
    }

    /// With eligible leader replicas on, `min.insync.replicas` is set for the whole cluster and for no single broker.
    fn settle_min_isr(&self, image: &MetadataImage, records: &mut Vec<VersionedRecord>) {
        let for_all = ConfigResource::default_broker();
        if image.configs.value(&for_all, MIN_ISR).is_none() {
            records.push(config_record(&for_all, MIN_ISR, Some(self.settings.min_insync_replicas.to_string())));
        }
        for (resource, values) in image.configs.iter() {
            let is_one_broker = resource.resource_type == ConfigResourceType::Broker && !resource.name.is_empty();
            if is_one_broker && values.contains_key(MIN_ISR) {
                records.push(config_record(resource, MIN_ISR, None));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Update<'a> {
    feature: &'a str,
    level: i16,
    upgrade_type: i8,
}

/// Each feature once: of two updates the later one counts, at the place of the first.
fn updates(asked: &[FeatureUpdateKey], api_version: i16) -> Vec<Update<'_>> {
    let mut updates: Vec<Update<'_>> = Vec::new();
    for key in asked {
        let upgrade_type = if api_version >= UPGRADE_TYPE_FROM { key.upgrade_type } else { UPGRADE };
        let update = Update { feature: &key.feature, level: key.max_version_level, upgrade_type };
        match updates.iter_mut().find(|known| known.feature == key.feature) {
            Some(known) => *known = update,
            None => updates.push(update),
        }
    }
    updates
}

/// Why a level cannot be finalized here.
fn unsupported(feature: &str, level: i16, node_id: i32) -> Option<String> {
    let range = KAFKA_FEATURES.iter().find(|f| f.name == feature);
    let max = IMPLEMENTED.iter().find(|(name, _)| *name == feature).map(|(_, max)| *max);
    match (range, max) {
        (None, _) if level == 0 => Some(format!("Feature {feature} not found.")),
        (None, _) => Some(format!("Local controller {node_id} does not support this feature.")),
        // Anything can be switched off.
        (Some(range), None) if level == 0 && range.min == 0 => None,
        (Some(_), None) => Some(format!("Local controller {node_id} does not support this feature.")),
        (Some(range), Some(max)) => (!(range.min..=max).contains(&level))
            .then(|| format!("Local controller {node_id} only supports versions {}-{max}", range.min)),
    }
}

fn check_metadata_version(current: i16, level: i16, upgrade_type: i8) -> Result<(), String> {
    if level >= current {
        return Ok(());
    }
    let refused = |why: &str| Err(format!("Unsupported metadata.version downgrade from {current} to {level}. {why}"));
    let loses = (level + 1..=current).any(|level| MetadataVersion(level).changed_metadata());
    match upgrade_type {
        SAFE_DOWNGRADE if loses => {
            refused("Refusing to perform the requested downgrade because it might delete metadata information.")
        }
        UNSAFE_DOWNGRADE if loses => refused("Unsafe metadata downgrade is not supported in this version."),
        _ if level < METADATA_VERSION_MIN => refused("It is older than anything that can be read."),
        _ => Ok(()),
    }
}

fn level_record(feature: &str, level: i16) -> VersionedRecord {
    VersionedRecord::new(FeatureLevelRecord { name: feature.to_owned(), feature_level: level }, 0)
}
