//! AlterConfigs and IncrementalAlterConfigs. Answers to `ConfigurationControlManager`, and to the checks that
//! `ConfigAdminManager` makes before it.
//!
//! A resource's changes are applied together or not at all; resources do not depend on one another. What keys and values
//! mean is not known here: [`ConfigRules`] is asked.

use std::collections::{BTreeMap, BTreeSet};

use taccola_base::topic::validate_topic_name;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_configs_response::AlterConfigsResourceResponse as AlterRow;
use taccola_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalRow;
use taccola_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ClearElrRecord, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, incremental_alter_configs_request,
};

use super::{ApiError, Controller, Outcome};
use crate::image::config::config_record;
use crate::image::{ConfigResource, ConfigResourceType, MetadataImage};
use crate::record::VersionedRecord;

/// Names and values of one resource.
pub type ConfigMap = BTreeMap<String, String>;

/// Bytes of one value, inclusive: what a string holds on the wire.
pub const VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// Records that one request may lead to, inclusive (`MAX_RECORDS_PER_USER_OP`): POLICY_VIOLATION beyond.
const RECORDS_PER_REQUEST_MAX: usize = 10_000;

pub(super) const MIN_ISR: &str = "min.insync.replicas";

/// A topic's config as CreateTopics reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    pub name: String,
    /// `None` also for a secret.
    pub value: Option<String>,
    pub read_only: bool,
    /// Kafka's code of DescribeConfigs: 1 topic, 3 default broker, 4 static broker, 5 default.
    pub source: i8,
    pub sensitive: bool,
}

/// What keys and values mean, from the one table of config keys.
pub trait ConfigRules: Send + Sync {
    /// Checks everything that will be set on the resource itself; `image` has what is set now, on it and on others. The
    /// error is INVALID_CONFIG with a sentence for the client, or another code where Kafka has one.
    fn validate(&self, image: &MetadataImage, resource: &ConfigResource, new: &ConfigMap) -> Result<(), ApiError>;

    /// Whether the key is a list, which APPEND and SUBTRACT need.
    fn is_list(&self, resource_type: ConfigResourceType, key: &str) -> bool;

    /// The key's value where nothing is set, as Kafka's table has it: APPEND and SUBTRACT start from it.
    fn default_value(&self, resource_type: ConfigResourceType, key: &str) -> Option<String>;

    /// All configs of a topic with these overrides, by name.
    fn effective_topic_configs(&self, image: &MetadataImage, overrides: &ConfigMap) -> Vec<EffectiveConfig>;
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

impl Controller {
    /// Every resource's configs become exactly what the request says (AlterConfigs).
    pub fn alter_configs(&self, image: &MetadataImage, request: &AlterConfigsRequest) -> Outcome<AlterConfigsResponse> {
        let repeated = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(request.resources.len());
        for r in &request.resources {
            let resource = resource(r.resource_type, &r.resource_name);
            let result = once(&repeated, r.resource_type, &r.resource_name).and_then(|()| {
                let ops = r.configs.iter().map(|c| Ok((c.name.as_str(), ConfigOp::Set(value_of(&c.name, &c.value)?))));
                let mut ops = distinct(ops)?;
                if let Some(existing) = image.configs.of(&resource) {
                    let gone: Vec<&str> =
                        existing.keys().map(String::as_str).filter(|k| !ops.contains_key(k)).collect();
                    ops.extend(gone.into_iter().map(|k| (k, ConfigOp::Delete)));
                }
                self.alter_resource(image, &resource, &ops, true)
            });
            let error = take(result, &mut records);
            responses.push(AlterRow {
                error_code: error.as_ref().map_or(0, |e| e.code.code()),
                error_message: error.map(|e| e.message),
                resource_type: r.resource_type,
                resource_name: r.resource_name.clone(),
            });
        }
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, AlterConfigsResponse { throttle_time_ms: 0, responses })
    }

    /// Single keys are set, removed, or extended and cut as lists (IncrementalAlterConfigs, KIP-339).
    pub fn incremental_alter_configs(
        &self,
        image: &MetadataImage,
        request: &IncrementalAlterConfigsRequest,
    ) -> Outcome<IncrementalAlterConfigsResponse> {
        let repeated = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(request.resources.len());
        for r in &request.resources {
            let result = once(&repeated, r.resource_type, &r.resource_name).and_then(|()| {
                let ops = distinct(r.configs.iter().map(|c| Ok((c.name.as_str(), op_of(c)?))))?;
                self.alter_resource(image, &resource(r.resource_type, &r.resource_name), &ops, true)
            });
            let error = take(result, &mut records);
            responses.push(IncrementalRow {
                error_code: error.as_ref().map_or(0, |e| e.code.code()),
                error_message: error.map(|e| e.message),
                resource_type: r.resource_type,
                resource_name: r.resource_name.clone(),
            });
        }
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses })
    }

    /// The records for one resource. `must_exist`: false for a topic that is being created.
    pub(super) fn alter_resource(
        &self,
        image: &MetadataImage,
        resource: &ConfigResource,
        ops: &BTreeMap<&str, ConfigOp>,
        must_exist: bool,
    ) -> Result<Vec<VersionedRecord>, ApiError> {
        check_name(resource)?;
        let empty = ConfigMap::new();
        let existing = image.configs.of(resource).map_or(&empty, |m| &**m);
        let mut new = existing.clone();
        let mut records = Vec::new();
        for (key, op) in ops {
            let current = existing.get(*key);
            let value = self.value_after(resource, key, current, op)?;
            // A broker's configs are written even when they stay as they are, as in Kafka.
            let write = current != value.as_ref() || resource.resource_type == ConfigResourceType::Broker;
            match &value {
                Some(v) => new.insert((*key).to_owned(), v.clone()),
                None => new.remove(*key),
            };
            if write {
                records.push(config_record(resource, key, value));
            }
        }
        self.rules.validate(image, resource, &new)?;
        if ops.contains_key(MIN_ISR) {
            check_min_isr(image, resource, new.get(MIN_ISR))?;
        }
        if must_exist {
            check_exists(image, resource)?;
        }
        if image.elr_enabled() && existing.get(MIN_ISR) != new.get(MIN_ISR) {
            clear_elr(resource, &mut records);
        }
        Ok(records)
    }

    fn value_after(
        &self,
        resource: &ConfigResource,
        key: &str,
        current: Option<&String>,
        op: &ConfigOp,
    ) -> Result<Option<String>, ApiError> {
        let (change, append) = match op {
            ConfigOp::Set(value) => return bounded(key, value.clone()).map(Some),
            ConfigOp::Delete => return Ok(None),
            ConfigOp::Append(change) => (change, true),
            ConfigOp::Subtract(change) => (change, false),
        };
        let kind = resource.resource_type;
        if !self.rules.is_list(kind, key) {
            let word = if append { "APPEND" } else { "SUBTRACT" };
            return Err(ApiError::new(ErrorCode::InvalidConfig, format!("{word} needs a list, and {key} is not one")));
        }
        let start = current.cloned().or_else(|| self.rules.default_value(kind, key)).unwrap_or_default();
        let mut items: Vec<&str> = start.split(',').filter(|item| !item.is_empty()).collect();
        for item in change.split(',') {
            match items.iter().position(|i| *i == item) {
                None if append => items.push(item),
                Some(at) if !append => {
                    items.remove(at);
                }
                _ => {}
            }
        }
        bounded(key, items.join(",")).map(Some)
    }
}

fn resource(resource_type: i8, name: &str) -> ConfigResource {
    ConfigResource::new(ConfigResourceType::from_id(resource_type), name)
}

fn bounded(key: &str, value: String) -> Result<String, ApiError> {
    if value.len() > VALUE_BYTES_MAX {
        let message = format!("the value of {key} has {} bytes, more than {VALUE_BYTES_MAX}", value.len());
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    Ok(value)
}

fn value_of(key: &str, value: &Option<String>) -> Result<String, ApiError> {
    value.clone().ok_or_else(|| ApiError::new(ErrorCode::InvalidRequest, format!("the value of {key} is null")))
}

fn op_of(config: &incremental_alter_configs_request::AlterableConfig) -> Result<ConfigOp, ApiError> {
    let value = || value_of(&config.name, &config.value);
    Ok(match config.config_operation {
        0 => ConfigOp::Set(value()?),
        1 => ConfigOp::Delete,
        2 => ConfigOp::Append(value()?),
        3 => ConfigOp::Subtract(value()?),
        other => {
            let message = format!("{other} is no operation on {}", config.name);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
    })
}

/// Resources that the request names more than once.
fn repeated<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> BTreeSet<(i8, String)> {
    let mut seen = BTreeSet::new();
    resources.filter(|r| !seen.insert(*r)).map(|(kind, name)| (kind, name.to_owned())).collect()
}

fn once(repeated: &BTreeSet<(i8, String)>, kind: i8, name: &str) -> Result<(), ApiError> {
    if !repeated.is_empty() && repeated.contains(&(kind, name.to_owned())) {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "the request names this resource more than once"));
    }
    Ok(())
}

fn distinct<'a>(
    ops: impl Iterator<Item = Result<(&'a str, ConfigOp), ApiError>>,
) -> Result<BTreeMap<&'a str, ConfigOp>, ApiError> {
    let mut out = BTreeMap::new();
    for op in ops {
        let (key, op) = op?;
        if key.is_empty() || key.len() > VALUE_BYTES_MAX {
            return Err(ApiError::new(ErrorCode::InvalidConfig, "a config key is empty or too long"));
        }
        if out.insert(key, op).is_some() {
            return Err(ApiError::new(ErrorCode::InvalidRequest, format!("the request names {key} more than once")));
        }
    }
    Ok(out)
}

fn take(result: Result<Vec<VersionedRecord>, ApiError>, records: &mut Vec<VersionedRecord>) -> Option<ApiError> {
    match result {
        Ok(new) if records.len() + new.len() > RECORDS_PER_REQUEST_MAX => {
            let message = format!("a request may change at most {RECORDS_PER_REQUEST_MAX} configs");
            Some(ApiError::new(ErrorCode::PolicyViolation, message))
        }
        Ok(new) => {
            records.extend(new);
            None
        }
        Err(error) => Some(error),
    }
}

/// Whether the name can be one of its type (`ControllerConfigurationValidator`).
fn check_name(resource: &ConfigResource) -> Result<(), ApiError> {
    let bad = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    let name = &*resource.name;
    match resource.resource_type {
        ConfigResourceType::Topic if name.is_empty() => bad("default topic resources do not exist".into()),
        ConfigResourceType::Topic => {
            validate_topic_name(name).map_err(|m| ApiError::new(ErrorCode::InvalidTopicException, m))
        }
        ConfigResourceType::Broker if name.is_empty() => Ok(()),
        ConfigResourceType::Broker => match name.parse::<i32>() {
            Ok(id) if id >= 0 => Ok(()),
            _ => bad(format!("{name:?} is no broker id")),
        },
        ConfigResourceType::ClientMetrics if name.is_empty() => {
            bad("a client metrics subscription needs a name".into())
        }
        ConfigResourceType::Group if name.is_empty() => bad("a group needs a name".into()),
        ConfigResourceType::ClientMetrics | ConfigResourceType::Group => Ok(()),
        ConfigResourceType::BrokerLogger | ConfigResourceType::Other(_) => {
            bad(format!("resource type {} has no configs that can be stored", resource.resource_type.id()))
        }
    }
}

fn check_exists(image: &MetadataImage, resource: &ConfigResource) -> Result<(), ApiError> {
    let name = &*resource.name;
    match resource.resource_type {
        ConfigResourceType::Topic if image.topics.by_name(name).is_none() => {
            Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, format!("there is no topic '{name}'")))
        }
        ConfigResourceType::Broker if !name.is_empty() => {
            let known = name.parse().is_ok_and(|id: i32| {
                image.cluster.brokers.contains_key(&id) || image.cluster.controllers.contains_key(&id)
            });
            let unknown = || ApiError::new(ErrorCode::InvalidRequest, format!("there is no node with id {name}"));
            known.then_some(()).ok_or_else(unknown)
        }
        _ => Ok(()),
    }
}

/// With eligible leader replicas on, the controller must know the minimum for certain: the cluster-wide value stays set,
/// and no broker has one of its own.
fn check_min_isr(image: &MetadataImage, resource: &ConfigResource, value: Option<&String>) -> Result<(), ApiError> {
    if resource.resource_type != ConfigResourceType::Broker || !image.elr_enabled() {
        return Ok(());
    }
    let bad = |message: &str| Err(ApiError::new(ErrorCode::InvalidConfig, message));
    if !resource.name.is_empty() {
        return bad("min.insync.replicas of a single broker cannot be changed while eligible leader replicas are on");
    }
    if value.is_none() {
        return bad("the cluster's min.insync.replicas cannot be removed while eligible leader replicas are on");
    }
    Ok(())
}

/// Another minimum: who was eligible under the old one need not be under the new one.
fn clear_elr(resource: &ConfigResource, records: &mut Vec<VersionedRecord>) {
    let topic_name = match resource.resource_type {
        ConfigResourceType::Topic => resource.name.to_string(),
        ConfigResourceType::Broker if resource.name.is_empty() => String::new(),
        _ => return,
    };
    records.push(VersionedRecord::new(ClearElrRecord { topic_name }, 0));
}
