//! UpdateFeatures, with the answers that Kafka 4.3.1 gives to the same requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{MemoryLog, broker_spec, controller, controller_registration};
use taccola_base::Uuid;
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::controller::PreviousShutdown;
use taccola_meta::feature::{ELR_VERSION, IMPLEMENTED, KRAFT_VERSION, METADATA_VERSION};
use taccola_meta::image::ConfigResource;
use taccola_meta::quorum::activation_records;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::UpdateFeaturesRequest;
use taccola_wire::messages::update_features_request::FeatureUpdateKey;

fn node() -> MemoryLog {
    let mut log = MemoryLog { epoch: 1, ..MemoryLog::default() };
    for command in activation_records(&log.loader, &BootstrapMetadata::default()) {
        log.append(&command, true);
    }
    log.commit(controller().register_controller(&controller_registration(0, Uuid::from_u128(900), 9093)));
    let spec = broker_spec(0, Uuid::from_u128(901), 0, Uuid::from_u128(902));
    let next = log.next_offset();
    log.commit(controller().register_broker(log.image(), &spec, PreviousShutdown::NothingLost, next).unwrap());
    log
}

/// The sentence of the error, without what all have in common; `None` when the update holds.
fn update(log: &mut MemoryLog, updates: &[(&str, i16, i8)], validate_only: bool, version: i16) -> Option<String> {
    let key = |(feature, level, upgrade_type): &(&str, i16, i8)| FeatureUpdateKey {
        feature: (*feature).to_owned(),
        max_version_level: *level,
        upgrade_type: *upgrade_type,
        ..Default::default()
    };
    let feature_updates = updates.iter().map(key).collect();
    let request = UpdateFeaturesRequest { feature_updates, validate_only, ..Default::default() };
    let outcome = controller().update_features(log.image(), &request, version, 0, 1);
    let error = log.commit(outcome).err()?;
    assert_eq!(error.code, ErrorCode::InvalidUpdateVersion);
    let common = "The update failed for all features since the following feature had an error: ";
    Some(error.message.strip_prefix(common).expect("the common words").to_owned())
}

fn one(log: &mut MemoryLog, feature: &str, level: i16, upgrade_type: i8) -> Option<String> {
    update(log, &[(feature, level, upgrade_type)], false, 2)
}

#[test]
fn levels_go_up_by_upgrades_and_down_by_downgrades() {
    let mut log = node();
    assert_eq!(log.image().features.level(ELR_VERSION), 1);
    let unset = "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
                 downgrade.";
    let expected = Some(format!("Invalid update version 0 for feature {ELR_VERSION}. {unset}"));
    assert_eq!(one(&mut log, ELR_VERSION, 0, 1), expected);
    // Before v1 there is no type: an upgrade.
    assert_eq!(update(&mut log, &[(ELR_VERSION, 0, 2)], false, 0), expected);
    assert_eq!(update(&mut log, &[(ELR_VERSION, 0, 2)], true, 2), None);
    assert_eq!(log.image().features.level(ELR_VERSION), 1, "validated only");
    assert_eq!(one(&mut log, ELR_VERSION, 0, 2), None);
    assert_eq!(log.image().features.level(ELR_VERSION), 0);
    let newer =
        Some(format!("Invalid update version 1 for feature {ELR_VERSION}. Can't downgrade to a newer version."));
    assert_eq!(one(&mut log, ELR_VERSION, 1, 3), newer);
    assert_eq!(one(&mut log, ELR_VERSION, 1, 1), None);
    assert_eq!(one(&mut log, ELR_VERSION, 1, 2), None, "the same level is no change");
    assert_eq!(log.image().configs.value(&ConfigResource::default_broker(), "min.insync.replicas"), Some("1"));
}

#[test]
fn what_is_not_supported_is_refused_in_kafkas_words() {
    let mut log = node();
    let cases = [
        (ELR_VERSION, 2, 1, "Local controller 0 only supports versions 0-1"),
        (ELR_VERSION, -1, 3, "A feature version cannot be less than 0."),
        (ELR_VERSION, 1, 0, "The controller does not support the given upgrade type."),
        (ELR_VERSION, 1, 4, "The controller does not support the given upgrade type."),
        ("nope", 1, 1, "Local controller 0 does not support this feature."),
        ("nope", 0, 3, "Feature nope not found."),
        (METADATA_VERSION, 31, 1, "Local controller 0 only supports versions 7-30"),
        (METADATA_VERSION, 6, 3, "Local controller 0 only supports versions 7-30"),
        (KRAFT_VERSION, 0, 2, "Can't downgrade the version of this feature."),
        (KRAFT_VERSION, 2, 1, "Local controller 0 only supports versions 0-1"),
    ];
    for (feature, level, upgrade_type, why) in cases {
        let expected = format!("Invalid update version {level} for feature {feature}. {why}");
        assert_eq!(one(&mut log, feature, level, upgrade_type), Some(expected));
    }
    assert_eq!(
        one(&mut log, METADATA_VERSION, 29, 2).unwrap(),
        "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested downgrade because it \
         might delete metadata information."
    );
    assert_eq!(
        one(&mut log, METADATA_VERSION, 29, 3).unwrap(),
        "Unsupported metadata.version downgrade from 30 to 29. Unsafe metadata downgrade is not supported in this version."
    );
}

#[test]
fn all_updates_hold_or_none() {
    let mut log = node();
    let version = log.next_offset();
    assert!(update(&mut log, &[(ELR_VERSION, 0, 2), ("nope", 1, 1)], false, 2).is_some());
    assert_eq!((log.image().features.level(ELR_VERSION), log.next_offset()), (1, version));
    // Of two updates of one feature the later counts.
    assert_eq!(update(&mut log, &[(ELR_VERSION, 5, 1), (ELR_VERSION, 0, 3)], false, 2), None);
    assert_eq!(log.image().features.level(ELR_VERSION), 0);
    assert_eq!(update(&mut log, &[], false, 2), None);
    for (name, level) in IMPLEMENTED {
        assert_eq!(one(&mut log, name, *level, 1), None, "{name}");
    }
}

#[test]
fn the_quorums_own_level_is_raised_beside_the_records() {
    let log = node();
    let raise = |level, upgrade_type, validate_only, now| {
        let key = |feature: &str, max_version_level| FeatureUpdateKey {
            feature: feature.to_owned(),
            max_version_level,
            upgrade_type,
            ..Default::default()
        };
        let feature_updates = vec![key(KRAFT_VERSION, level), key(METADATA_VERSION, 30)];
        let request = UpdateFeaturesRequest { feature_updates, validate_only, ..Default::default() };
        controller().update_features(log.image(), &request, 2, 0, now)
    };
    let raised = raise(1, 1, false, 0);
    assert!(raised.records.is_empty(), "no record of the image holds it");
    assert_eq!(raised.response, Ok(Some(1)));
    assert_eq!(raise(1, 1, true, 0).response, Ok(None), "a dry run");
    assert_eq!(raise(1, 1, false, 1).response, Ok(None), "it is there already");
    for downgrade in [2, 3] {
        assert!(raise(0, downgrade, false, 1).response.is_err());
    }
    assert!(raise(2, 1, false, 0).response.is_err());
}
