//! Which layer a broker's value comes from: set while the broker runs for it alone, for all brokers, set at start, or
//! the table's default. Answers to Kafka's `DynamicBrokerConfig`.

use super::ConfigMap;
use super::key::{ConfigKey, Scope, UpdateMode};
use super::table;

/// Where a value that DescribeConfigs shows comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    DynamicBrokerLogger,
    ClientMetrics,
    Group,
}

impl ConfigSource {
    /// The code of DescribeConfigs.
    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::DynamicBrokerLogger => 6,
            Self::ClientMetrics => 7,
            Self::Group => 8,
        }
    }

    /// Kafka's name of it in tools.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::DynamicBrokerLogger => "DYNAMIC_BROKER_LOGGER_CONFIG",
            Self::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
            Self::Group => "DYNAMIC_GROUP_CONFIG",
        }
    }
}

/// What is set for one broker, the strongest last.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// From file, environment and flags: `Settings::to_map`.
    pub static_config: &'a ConfigMap,
    /// Config records of the broker resource with the empty name.
    pub dynamic_default: &'a ConfigMap,
    /// Config records of this broker.
    pub dynamic_broker: &'a ConfigMap,
}

impl<'a> Layers<'a> {
    /// The layers with the strongest first.
    pub(super) fn strongest_first(&self) -> [(ConfigSource, &'a ConfigMap); 3] {
        [
            (ConfigSource::DynamicBroker, self.dynamic_broker),
            (ConfigSource::DynamicDefaultBroker, self.dynamic_default),
            (ConfigSource::StaticBroker, self.static_config),
        ]
    }

    /// What is set under this exact name, and where. Values of a dynamic layer count only if the key may be there.
    pub fn lookup(&self, name: &str) -> Option<(&'a str, ConfigSource)> {
        let update = find_broker_key(name).map(|k| k.update);
        self.strongest_first().into_iter().find_map(|(source, map)| {
            let counts = !matches!(
                (source, update),
                (ConfigSource::DynamicBroker | ConfigSource::DynamicDefaultBroker, Some(UpdateMode::ReadOnly))
                    | (ConfigSource::DynamicDefaultBroker, Some(UpdateMode::PerBroker))
            );
            map.get(name).filter(|_| counts).map(|v| (v.as_str(), source))
        })
    }
}

/// A broker's key by its name, or by its name behind `listener.name.<listener>.` or
/// `listener.name.<listener>.<mechanism>.`.
pub fn find_broker_key(name: &str) -> Option<&'static ConfigKey> {
    table::find(Scope::Broker, name).or_else(|| table::find(Scope::Broker, listener_base(name)?))
}

/// What stands behind a listener's prefix, if the table has it. Mechanisms come before SASL's keys alone.
pub fn listener_base(name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix("listener.name.")?;
    let (_, base) = rest.split_once('.')?;
    let found = table::find(Scope::Broker, base).or_else(|| {
        let (_, base) = base.split_once('.')?;
        let of_mechanism = base.starts_with("sasl.") || base == "connections.max.reauth.ms";
        table::find(Scope::Broker, base).filter(|_| of_mechanism)
    });
    found.map(|k| k.name)
}

/// What Kafka wants to be set and a single node can do without.
pub(super) fn stand_in(name: &str) -> Option<&'static str> {
    match name {
        "node.id" => Some("1"),
        "process.roles" => Some("broker,controller"),
        "controller.listener.names" => Some("CONTROLLER"),
        _ => None,
    }
}
