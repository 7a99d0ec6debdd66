//! The one table of config keys and everything derived from it: parsing, the typed views, DescribeConfigs, the checks
//! of AlterConfigs and CreateTopics, and `docs/config.md`.

use std::collections::BTreeMap;

mod describe;
pub mod docs;
pub mod key;
mod layers;
mod listeners;
mod load;
mod net_load;
pub mod properties;
mod server;
mod settings;
mod suggest;
pub mod table;
mod topic_config;
mod validate;
pub mod value;
mod view;

pub use describe::{
    ConfigEntry, ConfigSynonym, describe_broker, describe_broker_defaults, describe_client_metrics, describe_group,
    describe_topic,
};
pub use key::{ConfigKey, ConfigType, Scope};
pub use layers::{ConfigSource, Layers, find_broker_key, listener_base};
pub use listeners::{AdvertisedListener, Listener, SecurityProtocol};
pub use load::Loaded;
pub use server::*;
pub use settings::{Place, Setting, Settings, SettingsError, process_environment};
pub use suggest::closest;
pub use topic_config::{LogConfigValues, MessageTimestampType, TopicCompression};
pub use validate::{
    AlterOp, Alteration, CLIENT_ATTRIBUTES, ConfigRefusal, alter, is_list, parse_client_match, validate_broker_configs,
    validate_client_metrics_configs, validate_configs, validate_group_configs, validate_tiering, validate_topic_config,
    validate_topic_configs,
};
pub use value::parse_iso_duration_ms;
pub use view::{At, ConfigError, ConfigErrors};

/// Names and values of one resource or layer, as metadata records and requests carry them.
pub type ConfigMap = BTreeMap<String, String>;

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod validate_tests;
