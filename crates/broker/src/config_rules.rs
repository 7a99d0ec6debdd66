//! The controller's questions about configs, answered by the one table of keys. Answers to Kafka's
//! `ControllerConfigurationValidator` and, for brokers, `DynamicBrokerConfig.validate`.
//!
//! What would be set is looked at as a whole: a resource whose settings were bad already takes no change but one that
//! makes all of them good, as in Kafka.

use std::sync::Arc;

use arc_swap::ArcSwap;
use taccola_base::config::{
    ConfigEntry, ConfigMap, ConfigRefusal, Layers, Scope, ServerConfig, Settings, describe_topic, is_list, table,
    validate_broker_configs, validate_client_metrics_configs, validate_group_configs, validate_tiering,
    validate_topic_configs,
};
use taccola_meta::MetadataImage;
use taccola_meta::controller::{ApiError, ConfigRules, EffectiveConfig};
use taccola_meta::image::config::{ConfigResource, ConfigResourceType};
use taccola_wire::error::ErrorCode;

/// The table of keys, over what was set at start and what is in force now.
pub struct TableRules {
    node_id: i32,
    settings: Settings,
    /// Shared with the broker.
    current: Arc<ArcSwap<ServerConfig>>,
}

impl TableRules {
    pub fn new(node_id: i32, settings: Settings, current: Arc<ArcSwap<ServerConfig>>) -> Self {
        Self { node_id, settings, current }
    }

    /// `new`: everything that would be set on the broker resource.
    fn validate_broker(&self, image: &MetadataImage, name: &str, new: &ConfigMap) -> Result<(), ApiError> {
        let none = ConfigMap::new();
        let set = |resource: &ConfigResource| image.configs.of(resource).map_or(none.clone(), |map| (**map).clone());
        let (for_all, own) = if name.is_empty() {
            (new.clone(), set(&ConfigResource::broker(self.node_id)))
        } else if name.parse() == Ok(self.node_id) {
            (set(&ConfigResource::default_broker()), new.clone())
        } else {
            let message = format!("broker {} cannot answer for broker {name}", self.node_id);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        };
        validate_broker_configs(&self.settings, &for_all, &own, &self.current.load()).map(drop).map_err(refusal)
    }
}

fn refusal(refusal: ConfigRefusal) -> ApiError {
    match refusal {
        ConfigRefusal::InvalidConfig(message) => ApiError::new(ErrorCode::InvalidConfig, message),
        ConfigRefusal::InvalidRequest(message) => ApiError::new(ErrorCode::InvalidRequest, message),
    }
}

/// Whose keys a resource has; loggers are no part of the table.
pub fn scope(resource_type: ConfigResourceType) -> Option<Scope> {
    match resource_type {
        ConfigResourceType::Topic => Some(Scope::Topic),
        ConfigResourceType::Broker => Some(Scope::Broker),
        ConfigResourceType::Group => Some(Scope::Group),
        ConfigResourceType::ClientMetrics => Some(Scope::ClientMetrics),
        ConfigResourceType::BrokerLogger | ConfigResourceType::Other(_) => None,
    }
}

impl ConfigRules for TableRules {
    fn validate(&self, image: &MetadataImage, resource: &ConfigResource, new: &ConfigMap) -> Result<(), ApiError> {
        let invalid = |message| refusal(ConfigRefusal::InvalidConfig(message));
        match resource.resource_type {
            ConfigResourceType::Topic => {
                let current = self.current.load();
                validate_topic_configs(new, &current.log).map_err(invalid)?;
                let old = image.configs.of(resource).map(|old| current.log.with_overrides(old).0);
                let (new, _) = current.log.with_overrides(new);
                validate_tiering(&new, old.as_ref(), current.remote.enable).map_err(invalid)
            }
            ConfigResourceType::Group => validate_group_configs(new, &self.current.load().groups).map_err(invalid),
            ConfigResourceType::ClientMetrics => validate_client_metrics_configs(new).map_err(refusal),
            ConfigResourceType::Broker => self.validate_broker(image, &resource.name, new),
            // The controller refuses these types before it asks.
            ConfigResourceType::BrokerLogger | ConfigResourceType::Other(_) => Ok(()),
        }
    }

    fn is_list(&self, resource_type: ConfigResourceType, key: &str) -> bool {
        scope(resource_type).is_some_and(|scope| is_list(scope, key))
    }

    fn default_value(&self, resource_type: ConfigResourceType, key: &str) -> Option<String> {
        scope(resource_type).and_then(|scope| table::find(scope, key)).and_then(|key| key.default.text())
    }

    fn effective_topic_configs(&self, image: &MetadataImage, overrides: &ConfigMap) -> Vec<EffectiveConfig> {
        let none = ConfigMap::new();
        let set = |resource: &ConfigResource| image.configs.of(resource).map_or(&none, |map| map);
        let (default, own) = (ConfigResource::default_broker(), ConfigResource::broker(self.node_id));
        let static_config = self.settings.to_map();
        let layers =
            Layers { static_config: &static_config, dynamic_default: set(&default), dynamic_broker: set(&own) };
        let effective = |entry: ConfigEntry| EffectiveConfig {
            read_only: entry.is_read_only,
            source: entry.source.code(),
            sensitive: entry.is_sensitive,
            name: entry.name,
            value: entry.value,
        };
        describe_topic(&layers, overrides).into_iter().map(effective).collect()
    }
}
