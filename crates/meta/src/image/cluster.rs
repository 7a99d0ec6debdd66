//! Registered brokers and controllers. Answers to `ClusterImage`, `BrokerRegistration`, `ControllerRegistration`.

use std::collections::BTreeMap;

use taccola_base::Uuid;
use taccola_wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use taccola_wire::messages::register_controller_record::{ControllerEndpoint, ControllerFeature};
use taccola_wire::messages::{RegisterBrokerRecord, RegisterControllerRecord};

use crate::feature::MetadataVersion;
use crate::record::VersionedRecord;

/// An address of a node on one of its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub host: String,
    pub port: u16,
    /// Kafka's `SecurityProtocol` id: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// A range of levels, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    pub min: i16,
    pub max: i16,
}

/// A broker as its last registration and the changes since tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub id: i32,
    /// Changes with every registration.
    pub epoch: i64,
    /// Changes with every start of the process.
    pub incarnation_id: Uuid,
    pub listeners: Vec<Endpoint>,
    pub features: BTreeMap<String, VersionRange>,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub is_migrating_zk_broker: bool,
    /// Its log directories that are online.
    pub log_dirs: Vec<Uuid>,
    /// `None` until the broker has told.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl BrokerRegistration {
    /// Whether it may lead and be in an ISR (`ClusterControlManager.isActive`).
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    pub fn listener(&self, name: &str) -> Option<&Endpoint> {
        self.listeners.iter().find(|l| l.name == name)
    }

    /// Where new replicas of this broker go (`BrokerRegistration.defaultDir`): its only directory that is not cordoned,
    /// else it is left to the broker.
    pub fn default_dir(&self) -> Uuid {
        let cordoned = self.cordoned_log_dirs.as_deref().unwrap_or_default();
        match self.log_dirs.as_slice() {
            [] => Uuid::DIRECTORY_MIGRATING,
            [only] if !cordoned.contains(only) => *only,
            _ => Uuid::DIRECTORY_UNASSIGNED,
        }
    }

    pub fn from_record(record: &RegisterBrokerRecord) -> Self {
        Self {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            listeners: record
                .end_points
                .iter()
                .map(|e| endpoint(&e.name, &e.host, e.port, e.security_protocol))
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| (f.name.clone(), VersionRange { min: f.min_supported_version, max: f.max_supported_version }))
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            is_migrating_zk_broker: record.is_migrating_zk_broker,
            log_dirs: record.log_dirs.clone(),
            cordoned_log_dirs: record.cordoned_log_dirs.clone(),
        }
    }

    pub fn record(&self, version: MetadataVersion) -> VersionedRecord {
        let record = RegisterBrokerRecord {
            broker_id: self.id,
            is_migrating_zk_broker: self.is_migrating_zk_broker,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch,
            end_points: self
                .listeners
                .iter()
                .map(|e| BrokerEndpoint {
                    name: e.name.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                })
                .collect(),
            features: self
                .features
                .iter()
                .map(|(name, range)| BrokerFeature {
                    name: name.clone(),
                    min_supported_version: range.min,
                    max_supported_version: range.max,
                })
                .collect(),
            rack: self.rack.clone(),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            log_dirs: if version.has_directories() { self.log_dirs.clone() } else { Vec::new() },
            cordoned_log_dirs: self.cordoned_log_dirs.clone().filter(|_| version.has_cordoned_dirs()),
        };
        VersionedRecord::new(record, version.register_broker_record_version())
    }
}

fn endpoint(name: &str, host: &str, port: u16, security_protocol: i16) -> Endpoint {
    Endpoint { name: name.to_owned(), host: host.to_owned(), port, security_protocol }
}

/// A controller as its last registration tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerRegistration {
    pub id: i32,
    pub incarnation_id: Uuid,
    pub zk_migration_ready: bool,
    pub listeners: Vec<Endpoint>,
    pub features: BTreeMap<String, VersionRange>,
}

impl ControllerRegistration {
    pub fn from_record(record: &RegisterControllerRecord) -> Self {
        Self {
            id: record.controller_id,
            incarnation_id: record.incarnation_id,
            zk_migration_ready: record.zk_migration_ready,
            listeners: record
                .end_points
                .iter()
                .map(|e| endpoint(&e.name, &e.host, e.port, e.security_protocol))
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| (f.name.clone(), VersionRange { min: f.min_supported_version, max: f.max_supported_version }))
                .collect(),
        }
    }

    pub fn record(&self) -> VersionedRecord {
        let record = RegisterControllerRecord {
            controller_id: self.id,
            incarnation_id: self.incarnation_id,
            zk_migration_ready: self.zk_migration_ready,
            end_points: self
                .listeners
                .iter()
                .map(|e| ControllerEndpoint {
                    name: e.name.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                })
                .collect(),
            features: self
                .features
                .iter()
                .map(|(name, range)| ControllerFeature {
                    name: name.clone(),
                    min_supported_version: range.min,
                    max_supported_version: range.max,
                })
                .collect(),
        };
        VersionedRecord::new(record, 0)
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterImage {
    pub brokers: BTreeMap<i32, BrokerRegistration>,
    pub controllers: BTreeMap<i32, ControllerRegistration>,
}

impl ClusterImage {
    /// Whether the broker may lead and be in an ISR.
    pub fn is_active(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(BrokerRegistration::is_active)
    }

    pub(super) fn records(&self, version: MetadataVersion, out: &mut Vec<VersionedRecord>) {
        out.extend(self.brokers.values().map(|b| b.record(version)));
        if version.has_controller_registration() {
            out.extend(self.controllers.values().map(ControllerRegistration::record));
        }
    }
}
