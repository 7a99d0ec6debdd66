//! What DescribeConfigs answers: every key of a resource with value, source, type, synonyms and documentation.
//! Answers to Kafka's `ConfigHelper`.
//!
//! As there: keys for tests and of plug-ins appear only when set; a key that is unknown has no type and hides its
//! value; synonyms begin with the entry's own name (for a topic: with the broker's key that stands first behind it),
//! and what would come before it in the list is left out, so a list whose own name is nowhere set is empty.

use super::ConfigMap;
use super::key::{ConfigKey, ConfigType, Origin, Scope, UpdateMode};
use super::layers::{ConfigSource, Layers, find_broker_key, listener_base, stand_in};
use super::table;
use super::value::parse;
use super::view::default_value;
use std::collections::BTreeSet;

/// One place where the value could come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    /// `None`: null, or hidden.
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One config of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None`: null, or hidden because it is sensitive.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    pub is_read_only: bool,
    /// `None`: not known; `ConfigType::code` else, 0 for none.
    pub kind: Option<ConfigType>,
    /// The strongest first.
    pub synonyms: Vec<ConfigSynonym>,
    pub doc: Option<&'static str>,
}

impl ConfigEntry {
    /// The code of DescribeConfigs.
    pub fn type_code(&self) -> i8 {
        self.kind.map_or(0, ConfigType::code)
    }

    /// Nothing is set for it (`isDefault` of version 0).
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }
}

/// Everything of one broker.
pub fn describe_broker(layers: &Layers<'_>) -> Vec<ConfigEntry> {
    let mut names: BTreeSet<&str> = table::keys(Scope::Broker).filter(|k| k.is_listed()).map(|k| k.name).collect();
    for (_, map) in layers.strongest_first() {
        names.extend(map.keys().map(String::as_str));
    }
    names.into_iter().map(|name| broker_entry(layers, name)).collect()
}

/// What is set for all brokers (the broker resource with the empty name), and only that.
pub fn describe_broker_defaults(layers: &Layers<'_>) -> Vec<ConfigEntry> {
    let entry = |name: &String| {
        let mut entry = broker_entry(layers, name);
        entry.synonyms.retain(|s| s.source == ConfigSource::DynamicDefaultBroker);
        entry.source = entry.synonyms.first().map_or(ConfigSource::Default, |s| s.source);
        let raw = layers.dynamic_default.get(name);
        entry.value = raw.filter(|_| !entry.is_sensitive).map(|raw| render(find_broker_key(name), raw));
        entry
    };
    layers.dynamic_default.keys().map(entry).collect()
}

/// Everything of one topic.
pub fn describe_topic(layers: &Layers<'_>, overrides: &ConfigMap) -> Vec<ConfigEntry> {
    entries(Scope::Topic, overrides, |key| {
        let (first, fallback) = match key.synonyms.first() {
            Some(first) => (synonyms_of(layers, first), broker_value(layers, key.synonyms)),
            None => (Vec::new(), None),
        };
        (first, fallback.or_else(|| default_value(key).text()))
    })
}

/// Everything of one group.
pub fn describe_group(layers: &Layers<'_>, overrides: &ConfigMap) -> Vec<ConfigEntry> {
    entries(Scope::Group, overrides, |key| {
        let default = default_value(key).text();
        match key.synonyms.first() {
            Some(first) => (synonyms_of(layers, first), broker_value(layers, key.synonyms).or(default)),
            None => {
                let own =
                    ConfigSynonym { name: key.name.to_owned(), value: default.clone(), source: ConfigSource::Default };
                (vec![own], default)
            }
        }
    })
}

/// Everything of one client metrics subscription.
pub fn describe_client_metrics(overrides: &ConfigMap) -> Vec<ConfigEntry> {
    entries(Scope::ClientMetrics, overrides, |key| (Vec::new(), default_value(key).text()))
}

const fn source_of(scope: Scope) -> ConfigSource {
    match scope {
        Scope::Broker => ConfigSource::DynamicBroker,
        Scope::Topic => ConfigSource::Topic,
        Scope::Group => ConfigSource::Group,
        Scope::ClientMetrics => ConfigSource::ClientMetrics,
    }
}

/// The entries of a scope with one layer of its own; `behind` gives the synonyms behind it and the value without it.
fn entries(
    scope: Scope,
    overrides: &ConfigMap,
    behind: impl Fn(&ConfigKey) -> (Vec<ConfigSynonym>, Option<String>),
) -> Vec<ConfigEntry> {
    let mut all: Vec<&ConfigKey> =
        table::keys(scope).filter(|k| k.is_listed() || overrides.contains_key(k.name)).collect();
    all.sort_by_key(|k| k.name);
    all.into_iter()
        .map(|key| {
            let (mut synonyms, mut value) = behind(key);
            if let Some(raw) = overrides.get(key.name) {
                let source = source_of(scope);
                value = Some(render(Some(key), raw));
                synonyms.insert(0, ConfigSynonym { name: key.name.to_owned(), value: value.clone(), source });
            }
            ConfigEntry {
                name: key.name.to_owned(),
                value,
                source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
                is_sensitive: false,
                is_read_only: false,
                kind: Some(key.kind),
                synonyms,
                doc: Some(key.doc),
            }
        })
        .collect()
}

fn broker_entry(layers: &Layers<'_>, name: &str) -> ConfigEntry {
    let key = find_broker_key(name);
    let is_sensitive = key.is_none_or(ConfigKey::is_sensitive);
    // Kafka has no type for what only its plug-ins read.
    let kind = key.filter(|k| k.origin != Origin::KafkaPlugin).map(|k| k.kind);
    let synonyms = synonyms_of(layers, name);
    let value = match layers.lookup(name) {
        Some((raw, _)) => Some(render(key, raw)),
        None => key.and_then(|k| default_value(k).text()),
    };
    ConfigEntry {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
        is_sensitive,
        // A listener's keys are not among the names that Kafka calls dynamic.
        is_read_only: key.is_none_or(|k| k.name != name || k.update == UpdateMode::ReadOnly),
        kind,
        synonyms,
        doc: key.map(|k| k.doc),
    }
}

/// The names that stand for a broker's key, itself among them.
fn names_behind(name: &str) -> Vec<&str> {
    match name {
        "log.roll.ms" | "log.roll.hours" => vec!["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => vec!["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "log.flush.interval.ms" => vec!["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            vec!["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        }
        _ => std::iter::once(name).chain(listener_base(name)).collect(),
    }
}

/// Where a broker's value comes from, and what would come after it.
fn synonyms_of(layers: &Layers<'_>, name: &str) -> Vec<ConfigSynonym> {
    let names = names_behind(name);
    let hidden = find_broker_key(name).is_none_or(ConfigKey::is_sensitive);
    let synonym = |name: &str, value: String, source| ConfigSynonym {
        name: name.to_owned(),
        value: Some(value).filter(|_| !hidden),
        source,
    };
    let mut all = Vec::new();
    for (source, map) in layers.strongest_first() {
        for name in &names {
            all.extend(map.get(*name).map(|raw| synonym(name, raw.clone(), source)));
        }
    }
    for name in &names {
        let default = table::find(Scope::Broker, name).filter(|k| stand_in(k.name).is_none());
        // Kafka's own table does not have what its plug-ins read.
        let default = default.filter(|k| k.origin != Origin::KafkaPlugin);
        let text = default.and_then(|k| default_value(k).text());
        all.extend(text.map(|text| synonym(name, text, ConfigSource::Default)));
    }
    all.into_iter().skip_while(|s| s.name != name).collect()
}

/// What the broker's keys give a topic or group: the first that is set, in the unit of the topic's key, else the
/// default of the last that has one.
fn broker_value(layers: &Layers<'_>, names: &[&str]) -> Option<String> {
    let set = names.iter().find_map(|name| {
        let (raw, _) = layers.lookup(name)?;
        in_ms(name, render(table::find(Scope::Broker, name), raw))
    });
    set.or_else(|| {
        names.iter().find_map(|name| {
            let text = table::find(Scope::Broker, name).and_then(|k| default_value(k).text())?;
            in_ms(name, text)
        })
    })
}

/// Hours and minutes as milliseconds; other values as they are. Negative retention is -1, for ever.
fn in_ms(name: &str, text: String) -> Option<String> {
    let factor = match name {
        _ if name.ends_with(".hours") => 3_600_000,
        _ if name.ends_with(".minutes") => 60_000,
        _ => return Some(text),
    };
    let n: i64 = text.parse().ok()?;
    Some(if n < 0 { -1 } else { n.saturating_mul(factor) }.to_string())
}

/// A value as Kafka shows it; one that does not parse, as it was written.
fn render(key: Option<&ConfigKey>, raw: &str) -> String {
    key.and_then(|k| parse(k, raw).ok()).and_then(|v| v.text()).unwrap_or_else(|| raw.to_owned())
}
