//! Configs of topics, brokers and groups: describe and alter (incrementally, KIP-339).

use taccola_net::api::ApiExt;
use taccola_wire::messages::describe_configs_request::DescribeConfigsResource;
use taccola_wire::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use super::Admin;
use crate::cluster::Lane;
use crate::error::{Error, Result};

/// What a config belongs to (`ConfigResource.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigResource {
    pub kind: ResourceType,
    /// A topic, a group, or a broker's id; the empty name means the defaults of all brokers.
    pub name: String,
}

/// Where a value comes from (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    DynamicBrokerLogger,
    ClientMetrics,
    Group,
    Unknown,
}

impl ConfigSource {
    fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            6 => Self::DynamicBrokerLogger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            _ => Self::Unknown,
        }
    }

    /// The constant's name in Kafka's tools.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::DynamicBrokerLogger => "DYNAMIC_BROKER_LOGGER_CONFIG",
            Self::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
            Self::Group => "DYNAMIC_GROUP_CONFIG",
            Self::Unknown => "UNKNOWN",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` when unset or secret.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub read_only: bool,
    pub sensitive: bool,
    pub synonyms: Vec<ConfigSynonym>,
    pub documentation: Option<String>,
}

/// One change of one key (`AlterConfigOp`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

impl Admin {
    /// Configs sorted by name.
    pub async fn describe_configs(&self, resource: &ConfigResource, docs: bool) -> Result<Vec<ConfigEntry>> {
        self.client.retrying(|| self.describe_configs_once(resource, docs)).await
    }

    async fn describe_configs_once(&self, resource: &ConfigResource, docs: bool) -> Result<Vec<ConfigEntry>> {
        let api = self.config_owner(resource).await?;
        let version = api.version::<DescribeConfigsRequest>()?;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.kind as i8,
                resource_name: resource.name.clone(),
                configuration_keys: None,
            }],
            include_synonyms: true,
            include_documentation: docs && version >= 3,
        };
        let response = self.client.request(&api, &request, version).await?;
        let result = response.results.into_iter().next();
        let result =
            result.ok_or_else(|| Error::Invalid("DescribeConfigs was answered without a result".to_owned()))?;
        let DescribeConfigsResult { error_code, error_message, configs, .. } = result;
        self.check_config(error_code, resource, error_message)?;
        let mut entries: Vec<_> = configs.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes some keys and leaves the others as they are.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        ops: &[(String, ConfigOp)],
        validate_only: bool,
    ) -> Result<()> {
        self.client.retrying(|| self.alter_configs_once(resource, ops, validate_only)).await
    }

    async fn alter_configs_once(
        &self,
        resource: &ConfigResource,
        ops: &[(String, ConfigOp)],
        validate_only: bool,
    ) -> Result<()> {
        let api = self.config_owner(resource).await?;
        let version = api.version::<IncrementalAlterConfigsRequest>()?;
        let config = |(name, op): &(String, ConfigOp)| {
            let (config_operation, value) = match op {
                ConfigOp::Set(value) => (0, Some(value.clone())),
                ConfigOp::Delete => (1, None),
                ConfigOp::Append(value) => (2, Some(value.clone())),
                ConfigOp::Subtract(value) => (3, Some(value.clone())),
            };
            AlterableConfig { name: name.clone(), config_operation, value }
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.kind as i8,
                resource_name: resource.name.clone(),
                configs: ops.iter().map(config).collect(),
            }],
            validate_only,
        };
        let response = self.client.request(&api, &request, version).await?;
        response.responses.into_iter().try_for_each(|r| self.check_config(r.error_code, resource, r.error_message))
    }

    fn check_config(&self, code: i16, resource: &ConfigResource, message: Option<String>) -> Result<()> {
        use taccola_wire::error::ErrorCode;
        let unknown = ErrorCode::from_code(code) == ErrorCode::UnknownTopicOrPartition;
        if unknown && resource.kind == ResourceType::Topic {
            return Err(Error::UnknownTopic(resource.name.clone()));
        }
        let kind = format!("{:?}", resource.kind).to_lowercase();
        Error::check(code, format!("{kind} {}", resource.name), message)
    }

    /// A broker's own configs are only known to itself.
    async fn config_owner(&self, resource: &ConfigResource) -> Result<std::sync::Arc<dyn taccola_net::api::Api>> {
        let of_broker = matches!(resource.kind, ResourceType::Broker | ResourceType::BrokerLogger);
        if of_broker && !resource.name.is_empty() {
            let id = resource.name.parse();
            let id = id.map_err(|_| Error::Invalid(format!("{:?} is no broker id", resource.name)))?;
            return self.client.broker(id, Lane::General).await;
        }
        self.client.any().await
    }
}

fn entry(config: DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: config.name,
        value: config.value,
        source: ConfigSource::from_code(config.config_source),
        read_only: config.read_only,
        sensitive: config.is_sensitive,
        synonyms: config
            .synonyms
            .into_iter()
            .map(|s| ConfigSynonym { name: s.name, value: s.value, source: ConfigSource::from_code(s.source) })
            .collect(),
        documentation: config.documentation,
    }
}
