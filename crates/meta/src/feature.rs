//! Features: their names, the ranges that Kafka 4.3.1 knows, and which record versions a metadata.version implies.
//!
//! Two tables, because two things must both be true. A directory has to start under a JVM Kafka of the same level, so its
//! records hold the levels that `kafka-storage format` writes, and the registrations of this node name Kafka's ranges
//! (a controller refuses a broker that does not support a finalized level). Clients, however, act on what ApiVersions
//! says, so [`advertised`] names only what this broker implements, whatever the records hold: a client that sees
//! `transaction.version` 0 uses the older transaction protocol, which is always valid. Answers to `Feature`,
//! `MetadataVersion`, `QuorumFeatures` (KIP-584, KIP-1022).

/// `metadata.version` that can be read and written: 3.3-IV3 to 4.3-IV0, inclusive.
pub const METADATA_VERSION_MIN: i16 = 7;
pub const METADATA_VERSION_MAX: i16 = 30;

pub const METADATA_VERSION: &str = "metadata.version";
pub const KRAFT_VERSION: &str = "kraft.version";
/// A dynamic quorum, whose voters stand in its log.
pub const KRAFT_VERSION_MAX: i16 = 1;
pub const TRANSACTION_VERSION: &str = "transaction.version";
pub const GROUP_VERSION: &str = "group.version";
pub const ELR_VERSION: &str = "eligible.leader.replicas.version";
pub const SHARE_VERSION: &str = "share.version";
pub const STREAMS_VERSION: &str = "streams.version";

/// A feature's range, both ends inclusive, and the level that a new directory gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureRange {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    /// What `kafka-storage format` of 4.3.1 finalizes; `None` for kraft.version, which is no metadata record.
    pub default: Option<i16>,
}

/// What Kafka 4.3.1 supports, by name.
pub const KAFKA_FEATURES: &[FeatureRange] = &[
    FeatureRange { name: ELR_VERSION, min: 0, max: 1, default: Some(1) },
    FeatureRange { name: GROUP_VERSION, min: 0, max: 1, default: Some(1) },
    FeatureRange { name: KRAFT_VERSION, min: 0, max: KRAFT_VERSION_MAX, default: None },
    FeatureRange {
        name: METADATA_VERSION,
        min: METADATA_VERSION_MIN,
        max: METADATA_VERSION_MAX,
        default: Some(METADATA_VERSION_MAX),
    },
    FeatureRange { name: SHARE_VERSION, min: 0, max: 1, default: Some(1) },
    FeatureRange { name: STREAMS_VERSION, min: 0, max: 1, default: Some(1) },
    FeatureRange { name: TRANSACTION_VERSION, min: 0, max: 2, default: Some(2) },
];

/// The highest level of each feature that this broker implements. Absent: 0.
pub const IMPLEMENTED: &[(&str, i16)] = &[
    (METADATA_VERSION, METADATA_VERSION_MAX),
    (KRAFT_VERSION, KRAFT_VERSION_MAX),
    (ELR_VERSION, 1),
    (TRANSACTION_VERSION, 2),
    (GROUP_VERSION, 1),
    (SHARE_VERSION, 1),
    (STREAMS_VERSION, 1),
];

/// A feature as ApiVersions tells it to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedFeature {
    pub name: String,
    pub min_supported: i16,
    pub max_supported: i16,
    /// The finalized level, never above `max_supported`; 0 is "not finalized" and must be left out of the response.
    pub finalized: i16,
}

/// The features for ApiVersions: Kafka's table cut down to `implemented`, finalized levels cut down with it.
pub fn advertised(finalized: impl Fn(&str) -> i16, implemented: &[(&str, i16)]) -> Vec<AdvertisedFeature> {
    KAFKA_FEATURES
        .iter()
        .map(|f| {
            let max = implemented.iter().find(|(name, _)| *name == f.name).map_or(0, |(_, max)| *max).min(f.max);
            AdvertisedFeature {
                name: f.name.to_owned(),
                min_supported: f.min.min(max),
                max_supported: max,
                finalized: finalized(f.name).min(max),
            }
        })
        .filter(|f| f.max_supported > 0)
        .collect()
}

/// A metadata.version as its level; what it implies for the versions of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetadataVersion(pub i16);

impl MetadataVersion {
    pub const LATEST: MetadataVersion = MetadataVersion(METADATA_VERSION_MAX);

    /// Whether this very level brought records, or fields of records, that the one before does not know.
    pub fn changed_metadata(self) -> bool {
        matches!(self.0, 7 | 8 | 11 | 13 | 14 | 15 | 17 | 23 | 30)
    }

    /// From 3.7-IV2 on, partitions name their directories (KIP-858).
    pub fn has_directories(self) -> bool {
        self.0 >= 17
    }

    /// From 4.0-IV1 on, partitions may have eligible leader replicas (KIP-966).
    pub fn has_elr(self) -> bool {
        self.0 >= 23
    }

    /// From 3.6-IV1 on, records may stand in a metadata transaction (KIP-868).
    pub fn has_transactions(self) -> bool {
        self.0 >= 13
    }

    /// From 3.7-IV0 on, controllers register themselves (KIP-919).
    pub fn has_controller_registration(self) -> bool {
        self.0 >= 15
    }

    /// From 4.3-IV0 on, log directories may be cordoned (KIP-1066).
    pub fn has_cordoned_dirs(self) -> bool {
        self.0 >= 30
    }

    /// PartitionRecord and PartitionChangeRecord.
    pub fn partition_record_version(self) -> i16 {
        i16::from(self.has_directories()) + i16::from(self.has_elr())
    }

    /// Version 2 has the migration flag (3.4-IV0), which a registration of today never sets.
    pub fn register_broker_record_version(self) -> i16 {
        match self.0 {
            30.. => 4,
            17.. => 3,
            8.. => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_see_only_what_is_implemented() {
        let kafka = |name: &str| KAFKA_FEATURES.iter().find(|f| f.name == name).and_then(|f| f.default).unwrap_or(0);
        let seen = advertised(kafka, IMPLEMENTED);
        let metadata = seen.iter().find(|f| f.name == METADATA_VERSION).unwrap();
        assert_eq!((metadata.min_supported, metadata.max_supported, metadata.finalized), (7, 30, 30));
        let transactions = seen.iter().find(|f| f.name == TRANSACTION_VERSION).unwrap();
        assert_eq!((transactions.max_supported, transactions.finalized), (2, 2));
        let with_groups = advertised(kafka, &[(GROUP_VERSION, 1)]);
        assert_eq!(
            with_groups.iter().map(|f| (f.name.as_str(), f.finalized)).collect::<Vec<_>>(),
            [(GROUP_VERSION, 1)]
        );
    }

    #[test]
    fn record_versions_follow_the_level() {
        let versions = |level| {
            let v = MetadataVersion(level);
            (v.partition_record_version(), v.register_broker_record_version())
        };
        assert_eq!([7, 8, 17, 23, 30].map(versions), [(0, 1), (0, 2), (1, 3), (2, 3), (2, 4)]);
    }
}
