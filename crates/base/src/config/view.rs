//! Reading typed values out of the layers, gathering errors and warnings on the way.
//!
//! A wrong value set at start is an error; a wrong value in a dynamic layer, which was checked when it was set, is a
//! warning, and the next layer counts.

use super::key::{ConfigKey, DefaultValue, Scope, Status};
use super::layers::{ConfigSource, Layers, find_broker_key, stand_in};
use super::settings::{Place, Settings};
use super::suggest::closest;
use super::table::{self, REMOVED};
use super::value::{Value, parse};
use std::fmt;
use std::time::Duration;

/// What is wrong with one setting, as one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{key}={value} {allowed}{place}")]
    Wrong { key: String, value: String, allowed: String, place: At },
    #[error("{key}={value} is refused: {reason}{place}")]
    Refused { key: String, value: String, reason: String, place: At },
    /// Settings that contradict each other.
    #[error("{0}")]
    Conflict(String),
}

/// Where something was set, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At(pub Option<Place>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

/// Everything that is wrong, one sentence per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// Keys that count for a listener of its own, besides those of TLS and SASL.
const PER_LISTENER: &[&str] = &["max.connections", "max.connection.creation.rate"];

/// Keys that hold the prefix of others, which are checked by whom they are for.
const PLUGIN_PREFIXES: &[&str] = &["remote.log.metadata.manager.impl.prefix", "remote.log.storage.manager.impl.prefix"];

/// A reader of typed values.
pub(super) struct View<'a> {
    settings: &'a Settings,
    layers: Layers<'a>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
}

impl<'a> View<'a> {
    pub(super) fn new(settings: &'a Settings, layers: Layers<'a>) -> Self {
        Self { settings, layers, errors: Vec::new(), warnings: Vec::new() }
    }

    /// What is set at start under names with this prefix, without it.
    pub(super) fn under(&self, prefix: &str) -> std::collections::BTreeMap<String, String> {
        let named = self.settings.iter().filter_map(|(name, setting)| Some((name.strip_prefix(prefix)?, setting)));
        named.map(|(name, setting)| (name.to_owned(), setting.value.clone())).collect()
    }

    /// What is set under this name, by whichever layer.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.layers.lookup(name).map(|(value, _)| value)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    pub(super) fn at(&self, name: &str) -> At {
        At(self.settings.get(name).map(|s| s.place.clone()))
    }

    pub(super) fn wrong(&mut self, name: &str, allowed: impl Into<String>) {
        let value = self.shown(name);
        let error = ConfigError::Wrong { key: name.to_owned(), value, allowed: allowed.into(), place: self.at(name) };
        self.errors.push(error);
    }

    pub(super) fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        let value = self.shown(name);
        let error = ConfigError::Refused { key: name.to_owned(), value, reason: reason.into(), place: self.at(name) };
        self.errors.push(error);
    }

    pub(super) fn conflict(&mut self, what: impl Into<String>) {
        self.errors.push(ConfigError::Conflict(what.into()));
    }

    /// `true` if it holds, else an error.
    pub(super) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) -> bool {
        if !holds {
            self.conflict(what());
        }
        holds
    }

    /// A value for messages: never a secret.
    fn shown(&self, name: &str) -> String {
        let sensitive = find_broker_key(name).is_some_and(ConfigKey::is_sensitive);
        if sensitive { "(hidden)".to_owned() } else { self.raw(name).unwrap_or("").to_owned() }
    }

    /// The value of a key: the strongest layer whose value is right, else the default.
    pub(super) fn value(&mut self, name: &str) -> Value {
        let Some(key) = table::find(Scope::Broker, name) else {
            self.conflict(format!("{name} is not in the table of keys"));
            return Value::Null;
        };
        self.set_value(name, key).unwrap_or_else(|| default_value(key))
    }

    /// The value that is set under a name, as the type of `key`.
    fn set_value(&mut self, name: &str, key: &ConfigKey) -> Option<Value> {
        let mut layers = self.layers;
        while let Some((raw, source)) = layers.lookup(name) {
            match parse(key, raw) {
                Ok(value) => return Some(value),
                Err(allowed) if source == ConfigSource::StaticBroker => {
                    self.wrong(name, allowed);
                    break;
                }
                Err(allowed) => {
                    self.warnings.push(format!("{name}={raw}, set while the broker ran, is ignored: it {allowed}"));
                    layers = weaker(layers, source);
                }
            }
        }
        None
    }

    /// What is set under a listener's name for a key, if anything; negative numbers become 0.
    pub(super) fn opt_u32_of(&mut self, name: &str, base: &str) -> Option<u32> {
        match self.set_value(name, table::find(Scope::Broker, base)?) {
            Some(Value::Number(n)) => Some(u32::try_from(n.max(0)).unwrap_or(u32::MAX)),
            _ => None,
        }
    }

    pub(super) fn i64(&mut self, name: &str) -> i64 {
        match self.value(name) {
            Value::Number(n) => n,
            _ => self.untyped(name),
        }
    }

    pub(super) fn i32(&mut self, name: &str) -> i32 {
        let n = self.i64(name);
        i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX })
    }

    pub(super) fn i16(&mut self, name: &str) -> i16 {
        let n = self.i64(name);
        i16::try_from(n).unwrap_or(if n < 0 { i16::MIN } else { i16::MAX })
    }

    /// Negative numbers become 0.
    pub(super) fn u32(&mut self, name: &str) -> u32 {
        u32::try_from(self.i64(name).max(0)).unwrap_or(u32::MAX)
    }

    /// Negative numbers become 0.
    pub(super) fn u64(&mut self, name: &str) -> u64 {
        self.i64(name).max(0).unsigned_abs()
    }

    /// Negative numbers become 0.
    pub(super) fn usize(&mut self, name: &str) -> usize {
        usize::try_from(self.i64(name).max(0)).unwrap_or(usize::MAX)
    }

    /// A size of which negative means none.
    pub(super) fn size_or_none(&mut self, name: &str) -> Option<usize> {
        usize::try_from(self.i64(name)).ok()
    }

    /// Of a key in milliseconds; negative becomes 0.
    pub(super) fn ms(&mut self, name: &str) -> Duration {
        Duration::from_millis(self.u64(name))
    }

    /// Of a key in milliseconds, of which negative or `i64::MAX` means never.
    pub(super) fn ms_or_never(&mut self, name: &str) -> Option<Duration> {
        match self.i64(name) {
            i64::MAX => None,
            n => u64::try_from(n).ok().map(Duration::from_millis),
        }
    }

    pub(super) fn bool(&mut self, name: &str) -> bool {
        match self.value(name) {
            Value::Boolean(b) => b,
            _ => self.untyped(name),
        }
    }

    pub(super) fn f64(&mut self, name: &str) -> f64 {
        match self.value(name) {
            Value::Double(d) => d,
            _ => self.untyped(name),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        self.opt_text(name).unwrap_or_default()
    }

    /// `None` when null; an empty text is a text.
    pub(super) fn opt_text(&mut self, name: &str) -> Option<String> {
        match self.value(name) {
            Value::Text(s) => Some(s),
            Value::Null => None,
            _ => self.untyped(name),
        }
    }

    pub(super) fn opt_i64(&mut self, name: &str) -> Option<i64> {
        match self.value(name) {
            Value::Number(n) => Some(n),
            _ => None,
        }
    }

    /// Null is the empty list.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(items) => items,
            Value::Null => Vec::new(),
            _ => self.untyped(name),
        }
    }

    /// A key that is read as another type than the table says: a mistake in this crate, which tests find because
    /// nothing loads then.
    fn untyped<T: Default>(&mut self, name: &str) -> T {
        self.conflict(format!("{name} is read as another type than the table's"));
        T::default()
    }

    /// Unknown, removed, refused and inert keys among those set at start.
    pub(super) fn check_names(&mut self) {
        let settings = self.settings;
        for (name, setting) in settings.iter() {
            let place = At(Some(setting.place.clone()));
            let Some(key) = find_broker_key(name) else {
                self.check_unknown(name, &place);
                continue;
            };
            let of_listener = name != key.name;
            let Ok(value) = parse(key, &setting.value) else {
                // Keys with a typed home are reported there; the others here.
                if of_listener || !matches!(key.status, Status::Implemented) {
                    let allowed = super::value::allowed(key);
                    let value = if key.is_sensitive() { "(hidden)".to_owned() } else { setting.value.clone() };
                    self.errors.push(ConfigError::Wrong { key: name.to_owned(), value, allowed, place });
                }
                continue;
            };
            let text = value.text().unwrap_or_default();
            let is_default = value == default_value(key);
            match key.status {
                Status::Implemented if of_listener && !PER_LISTENER.contains(&key.name) => {
                    self.warnings.push(format!("{name} has no effect for one listener alone{place}"));
                }
                Status::Implemented => {}
                Status::Accepted if is_default => {}
                Status::Accepted => {
                    self.warnings.push(format!("{name} has no effect here{place}: {}", key.doc));
                }
                Status::Refused { .. } if is_default || text.is_empty() => {}
                Status::Refused { unless, .. } if allowed_items(&value, unless) => {}
                Status::Refused { reason, .. } => self.refuse(name, reason),
            }
        }
    }

    fn check_unknown(&mut self, name: &str, place: &At) {
        if let Some(removed) = REMOVED.iter().find(|r| r.name == name) {
            if removed.refused {
                self.refuse(name, removed.advice);
            } else {
                self.warnings.push(format!("{name} is ignored{place}: Kafka 4 has it no more, {}", removed.advice));
            }
            return;
        }
        if PLUGIN_PREFIXES.iter().any(|prefix| name.starts_with(&self.text(prefix))) {
            return;
        }
        if name.starts_with("config.providers.") {
            self.refuse(name, "values cannot be fetched by Java config providers");
            return;
        }
        let hint = closest(name, table::keys(Scope::Broker).map(|k| k.name));
        let hint = hint.map(|h| format!("; did you mean {h}?")).unwrap_or_default();
        self.warnings.push(format!("unknown key {name} is ignored{place}{hint}"));
    }
}

fn allowed_items(value: &Value, unless: &[&str]) -> bool {
    match value {
        Value::Text(s) => unless.contains(&s.as_str()),
        Value::List(items) => items.iter().all(|s| unless.contains(&s.as_str())),
        _ => false,
    }
}

/// The layers without `source` and those stronger than it.
fn weaker(mut layers: Layers<'_>, source: ConfigSource) -> Layers<'_> {
    static NOTHING: super::ConfigMap = super::ConfigMap::new();
    layers.dynamic_broker = &NOTHING;
    if source == ConfigSource::DynamicDefaultBroker {
        layers.dynamic_default = &NOTHING;
    }
    layers
}

/// The default, or for what Kafka wants to be set, what a single node does without it.
pub(super) fn default_value(key: &ConfigKey) -> Value {
    let text = match key.default {
        DefaultValue::Null => None,
        DefaultValue::Required => stand_in(key.name).map(str::to_owned),
        other => other.text(),
    };
    // Defaults need not be within bounds: Kafka has -1 for some that must be at least 0 when set.
    let any = ConfigKey { valid: super::key::Valid::Any, ..*key };
    text.and_then(|t| parse(&any, &t).ok()).unwrap_or(Value::Null)
}
