//! What the integration tests share.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_meta::batch::{AppendContext, decode_batch, encode_batches};
use taccola_meta::controller::config::ConfigMap;
use taccola_meta::controller::{ApiError, BrokerSpec, ConfigRules, EffectiveConfig};
use taccola_meta::image::{ConfigResource, ConfigResourceType, ControllerRegistration, Endpoint, VersionRange};
use taccola_meta::{Controller, ControllerSettings, MetadataImage, MetadataLoader, Outcome, VersionedRecord};
use taccola_wire::error::ErrorCode;

/// Knows one list; refuses keys that start with "bad".
pub struct TestRules;

impl ConfigRules for TestRules {
    fn validate(&self, _: &MetadataImage, _: &ConfigResource, new: &ConfigMap) -> Result<(), ApiError> {
        match new.keys().find(|k| k.starts_with("bad")) {
            Some(key) => Err(ApiError::new(ErrorCode::InvalidConfig, format!("there is no config {key}"))),
            None => Ok(()),
        }
    }

    fn is_list(&self, _: ConfigResourceType, key: &str) -> bool {
        key == "cleanup.policy"
    }

    fn default_value(&self, _: ConfigResourceType, key: &str) -> Option<String> {
        (key == "cleanup.policy").then(|| "delete".to_owned())
    }

    fn effective_topic_configs(&self, _: &MetadataImage, overrides: &ConfigMap) -> Vec<EffectiveConfig> {
        let shown = |(name, value): (&String, &String)| EffectiveConfig {
            name: name.clone(),
            value: Some(value.clone()),
            read_only: false,
            source: 1,
            sensitive: false,
        };
        overrides.iter().map(shown).collect()
    }
}

pub fn controller() -> Controller {
    Controller::new(ControllerSettings::default(), Arc::new(TestRules))
}

pub fn endpoint(name: &str, port: u16) -> Endpoint {
    Endpoint { name: name.into(), host: "127.0.0.1".into(), port, security_protocol: 0 }
}

pub fn controller_registration(id: i32, incarnation_id: Uuid, port: u16) -> ControllerRegistration {
    let features: BTreeMap<String, VersionRange> = taccola_meta::controller::broker::kafka_feature_ranges().collect();
    ControllerRegistration {
        id,
        incarnation_id,
        zk_migration_ready: false,
        listeners: vec![endpoint("CONTROLLER", port)],
        features,
    }
}

pub fn broker_spec(id: i32, incarnation_id: Uuid, port: u16, dir: Uuid) -> BrokerSpec {
    BrokerSpec { id, incarnation_id, listeners: vec![endpoint("PLAINTEXT", port)], rack: None, log_dirs: vec![dir] }
}

/// A metadata log in memory with the image that it builds.
#[derive(Default)]
pub struct MemoryLog {
    pub loader: MetadataLoader,
    pub batches: Vec<bytes::Bytes>,
    pub epoch: i32,
}

impl MemoryLog {
    pub fn next_offset(&self) -> i64 {
        self.loader.next_offset()
    }

    pub fn image(&self) -> &MetadataImage {
        self.loader.image()
    }

    pub fn at(&self) -> AppendContext {
        AppendContext {
            base_offset: self.next_offset(),
            leader_epoch: self.epoch,
            now_ms: 1_000_000 + self.next_offset(),
        }
    }

    /// Appends and applies a command's records, and returns its response.
    pub fn commit<R>(&mut self, outcome: Outcome<R>) -> R {
        self.append(&outcome.records, outcome.atomic);
        outcome.response
    }

    pub fn append(&mut self, records: &[VersionedRecord], atomic: bool) {
        for batch in encode_batches(records, atomic, self.image().metadata_version(), self.at()).unwrap() {
            self.append_bytes(batch.bytes);
        }
        self.loader.publish();
    }

    pub fn append_bytes(&mut self, bytes: bytes::Bytes) {
        self.loader.load(&decode_batch(&bytes).unwrap()).unwrap();
        self.batches.push(bytes);
    }
}
