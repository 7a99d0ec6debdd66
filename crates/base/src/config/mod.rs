//! The one table of config keys and everything derived from it: parsing, the typed views, DescribeConfigs, the checks
//! of AlterConfigs and CreateTopics, and `docs/config.md`.

use std::collections::BTreeMap;

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
pub mod value;
mod view;

pub use key::{ConfigKey, ConfigType, Scope};
pub use layers::{ConfigSource, Layers, find_broker_key, listener_base};
pub use listeners::{AdvertisedListener, Listener, SecurityProtocol};
pub use load::Loaded;
pub use server::*;
pub use settings::{Place, Setting, Settings, SettingsError};
pub use suggest::closest;
pub use topic_config::{LogConfigValues, MessageTimestampType, TopicCompression};
pub use view::{At, ConfigError, ConfigErrors};

/// Names and values of one resource or layer, as metadata records and requests carry them.
pub type ConfigMap = BTreeMap<String, String>;

#[cfg(test)]
mod load_tests;
