//! The metadata image: what all records up to one offset say, immutable and cheap to clone.
//!
//! Answers to Kafka's `MetadataImage` and the images in it. Everything that a record says is kept, also what this broker
//! does not act on (delegation tokens, a migration state), so that a directory of a JVM survives being opened, snapshotted
//! and handed back. Two images are equal exactly if they hold the same facts, whatever records built them; the provenance
//! takes part in it.

pub mod cluster;
pub mod config;
pub mod security;
pub mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use cluster::{BrokerRegistration, ClusterImage, ControllerRegistration, Endpoint, VersionRange};
pub use config::{ConfigResource, ConfigResourceType, ConfigsImage};
use taccola_base::Uuid;
use taccola_wire::messages::{FeatureLevelRecord, ProducerIdsRecord, ZkMigrationStateRecord};

pub use security::{AclBinding, DelegationToken, QuotaEntity, ScramCredential};
pub use topics::{
    LEADER_RECOVERED, LEADER_RECOVERING, NO_LEADER, NO_LEADER_CHANGE, PartitionRegistration, TopicImage, TopicsImage,
    unify_collision_chars,
};

use crate::chunk_map::ChunkMap;
use crate::feature::{METADATA_VERSION, MetadataVersion};
use crate::record::VersionedRecord;

/// Up to where the log has been applied. All -1 before anything was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// Offset of the last record that is in the image, inclusive.
    pub last_contained_offset: i64,
    pub last_contained_epoch: i32,
    /// Append time of the last batch, milliseconds since the Unix epoch.
    pub last_contained_log_time_ms: i64,
}

impl Default for Provenance {
    fn default() -> Self {
        Self { last_contained_offset: -1, last_contained_epoch: -1, last_contained_log_time_ms: -1 }
    }
}

/// Finalized features.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeaturesImage {
    /// Finalized levels by name, `metadata.version` among them; a level of 0 is not kept.
    pub finalized: BTreeMap<String, i16>,
    /// What a migration from ZooKeeper left behind in releases before 4.0.
    pub zk_migration_state: Option<i8>,
}

impl FeaturesImage {
    /// The finalized level, 0 when there is none.
    pub fn level(&self, name: &str) -> i16 {
        self.finalized.get(name).copied().unwrap_or(0)
    }

    pub fn metadata_version(&self) -> MetadataVersion {
        MetadataVersion(self.finalized.get(METADATA_VERSION).copied().unwrap_or(crate::feature::METADATA_VERSION_MIN))
    }

    fn records(&self, out: &mut Vec<VersionedRecord>) {
        let record = |name: &str, level: i16| {
            VersionedRecord::new(FeatureLevelRecord { name: name.to_owned(), feature_level: level }, 0)
        };
        // metadata.version comes first: it decides how a reader takes what follows.
        if let Some(level) = self.finalized.get(METADATA_VERSION) {
            out.push(record(METADATA_VERSION, *level));
        }
        out.extend(self.finalized.iter().filter(|(n, _)| *n != METADATA_VERSION).map(|(n, l)| record(n, *l)));
        if let Some(state) = self.zk_migration_state {
            out.push(VersionedRecord::new(ZkMigrationStateRecord { zk_migration_state: state }, 0));
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataImage {
    pub provenance: Provenance,
    pub features: Arc<FeaturesImage>,
    pub cluster: Arc<ClusterImage>,
    pub topics: TopicsImage,
    pub configs: ConfigsImage,
    /// Quotas by entity, then by quota name.
    pub client_quotas: ChunkMap<QuotaEntity, Arc<BTreeMap<String, f64>>>,
    /// First producer id that has not been handed out in a block; `None` before the first block.
    pub next_producer_id: Option<i64>,
    pub acls: ChunkMap<Uuid, Arc<AclBinding>>,
    /// By mechanism (1: SCRAM-SHA-256, 2: SCRAM-SHA-512), then user.
    pub scram: ChunkMap<(i8, Arc<str>), Arc<ScramCredential>>,
    pub delegation_tokens: ChunkMap<Arc<str>, Arc<DelegationToken>>,
}

impl MetadataImage {
    pub fn metadata_version(&self) -> MetadataVersion {
        self.features.metadata_version()
    }

    /// Whether partitions keep eligible leader replicas (`eligible.leader.replicas.version` ≥ 1).
    pub fn elr_enabled(&self) -> bool {
        self.metadata_version().has_elr() && self.features.level(crate::feature::ELR_VERSION) >= 1
    }

    /// The records that build this image again, in the order of Kafka's snapshots.
    pub fn to_records(&self) -> Vec<VersionedRecord> {
        let version = self.metadata_version();
        let mut out = Vec::new();
        self.features.records(&mut out);
        self.cluster.records(version, &mut out);
        self.topics.records(version, &mut out);
        self.configs.records(&mut out);
        for (entity, quotas) in self.client_quotas.iter() {
            entity.records(quotas, &mut out);
        }
        if let Some(next_producer_id) = self.next_producer_id {
            let record = ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id };
            out.push(VersionedRecord::new(record, 0));
        }
        out.extend(self.acls.iter().map(|(id, acl)| acl.record(*id)));
        out.extend(self.scram.iter().map(|((mechanism, user), c)| c.record(*mechanism, user)));
        out.extend(self.delegation_tokens.iter().map(|(id, token)| token.record(id)));
        out
    }
}
