//! The controller's questions about configs, answered by the one table of keys.

use taccola_base::config::{ConfigMap, ConfigType, Layers, Scope, describe_topic, table};
use taccola_meta::MetadataImage;
use taccola_meta::controller::{ApiError, ConfigRules, EffectiveConfig};
use taccola_meta::image::config::{ConfigResource, ConfigResourceType};

/// The table of keys, over what was set at start.
#[derive(Debug)]
pub struct TableRules {
    static_config: ConfigMap,
}

impl TableRules {
    pub fn new(static_config: ConfigMap) -> Self {
        Self { static_config }
    }
}

fn scope(resource_type: ConfigResourceType) -> Option<Scope> {
    match resource_type {
        ConfigResourceType::Topic => Some(Scope::Topic),
        ConfigResourceType::Broker => Some(Scope::Broker),
        ConfigResourceType::Group => Some(Scope::Group),
        ConfigResourceType::ClientMetrics => Some(Scope::ClientMetrics),
        ConfigResourceType::BrokerLogger | ConfigResourceType::Other(_) => None,
    }
}

impl ConfigRules for TableRules {
    fn validate(&self, resource: &ConfigResource, new: &ConfigMap, existing: &ConfigMap) -> Result<(), ApiError> {
        let _ = (resource, new, existing);
        Ok(())
    }

    fn is_list(&self, resource_type: ConfigResourceType, key: &str) -> bool {
        let key = scope(resource_type).and_then(|scope| table::find(scope, key));
        key.is_some_and(|key| key.kind == ConfigType::List)
    }

    fn default_value(&self, resource_type: ConfigResourceType, key: &str) -> Option<String> {
        scope(resource_type).and_then(|scope| table::find(scope, key)).and_then(|key| key.default.text())
    }

    fn effective_topic_configs(&self, image: &MetadataImage, overrides: &ConfigMap) -> Vec<EffectiveConfig> {
        let none = ConfigMap::new();
        let dynamic_default = image.configs.of(&ConfigResource::default_broker()).map_or(&none, |map| map);
        let layers = Layers { static_config: &self.static_config, dynamic_default, dynamic_broker: &none };
        let effective = |entry: taccola_base::config::ConfigEntry| EffectiveConfig {
            read_only: entry.is_read_only,
            source: entry.source.code(),
            sensitive: entry.is_sensitive,
            name: entry.name,
            value: entry.value,
        };
        describe_topic(&layers, overrides).into_iter().map(effective).collect()
    }
}
