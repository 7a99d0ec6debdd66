//! What CreateTopics, AlterConfigs and IncrementalAlterConfigs refuse, and how an incremental change makes a new map.
//! Answers to Kafka's `LogConfig.validate`, `GroupConfig.validate`, `ClientMetricsConfigs.validate`,
//! `DynamicBrokerConfig.validate` and the `ConfigurationControlManager`'s handling of operations.
//!
//! All of these take the whole map as it would be afterwards, since some checks span keys.

use super::ConfigMap;
use super::key::{ConfigKey, ConfigType, Scope, Status, UpdateMode};
use super::layers::{find_broker_key, listener_base};
use super::load::Loaded;
use super::server::{GroupsConfig, ServerConfig};
use super::settings::Settings;
use super::suggest::closest;
use super::table;
use super::topic_config::LogConfigValues;
use super::value::{Value, parse, split_list, trim};
use super::view::default_value;

/// Why a change is refused. The message is one sentence for the response's `errorMessage`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefusal {
    /// INVALID_CONFIG (40).
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST (42).
    #[error("{0}")]
    InvalidRequest(String),
}

/// The operations of IncrementalAlterConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOp {
    Set,
    Delete,
    Append,
    Subtract,
}

impl AlterOp {
    /// By its code on the wire.
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Append => "APPEND",
            Self::Subtract => "SUBTRACT",
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alteration<'a> {
    pub name: &'a str,
    pub op: AlterOp,
    /// Ignored by Delete; needed by the others.
    pub value: Option<&'a str>,
}

/// Keys that APPEND and SUBTRACT work on. Client metrics have none, though theirs are lists: so it is in Kafka.
pub fn is_list(scope: Scope, name: &str) -> bool {
    let key = if scope == Scope::Broker { find_broker_key(name) } else { table::find(scope, name) };
    scope != Scope::ClientMetrics && key.is_some_and(|k| k.kind == ConfigType::List)
}

/// The map after an incremental change; nothing is checked but the operations themselves.
pub fn alter(scope: Scope, current: &ConfigMap, changes: &[Alteration<'_>]) -> Result<ConfigMap, ConfigRefusal> {
    let mut out = current.clone();
    for (i, change) in changes.iter().enumerate() {
        if changes.iter().take(i).any(|earlier| earlier.name == change.name) {
            return Err(ConfigRefusal::InvalidRequest(format!("{} must be changed only once", change.name)));
        }
        if change.name.is_empty() {
            return Err(ConfigRefusal::InvalidRequest("a config must have a name".to_owned()));
        }
        if change.op == AlterOp::Delete {
            out.remove(change.name);
            continue;
        }
        let Some(value) = change.value else {
            return Err(ConfigRefusal::InvalidRequest(format!(
                "{} must have a value for {}",
                change.name,
                change.op.name()
            )));
        };
        if change.op == AlterOp::Set {
            out.insert(change.name.to_owned(), value.to_owned());
            continue;
        }
        if !is_list(scope, change.name) {
            let what = format!("{} is not a list and takes no {}", change.name, change.op.name());
            return Err(ConfigRefusal::InvalidConfig(what));
        }
        let items = altered_list(scope, current, change, value);
        out.insert(change.name.to_owned(), items.join(","));
    }
    Ok(out)
}

/// What is set now, or by default, with or without the items of `value`.
fn altered_list(scope: Scope, current: &ConfigMap, change: &Alteration<'_>, value: &str) -> Vec<String> {
    let default = || table::find(scope, change.name).and_then(|k| default_value(k).text());
    let now = current.get(change.name).cloned().or_else(default).unwrap_or_default();
    let mut items: Vec<String> = split_list(&now).into_iter().filter(|s| !s.is_empty()).collect();
    for item in split_list(value) {
        match change.op {
            AlterOp::Append if !items.contains(&item) => items.push(item),
            AlterOp::Subtract => items.retain(|x| *x != item),
            _ => {}
        }
    }
    items
}

/// The value parses, lies within the key's bounds, and does not promise what is not kept.
fn check_value(key: &ConfigKey, name: &str, raw: &str) -> Result<Value, String> {
    let shown = if key.is_sensitive() { "(hidden)" } else { raw };
    let value = parse(key, raw).map_err(|allowed| format!("{name}={shown} {allowed}"))?;
    if let Status::Refused { reason, unless } = key.status {
        let text = value.text().unwrap_or_default();
        if value != default_value(key) && !text.is_empty() && !unless.contains(&text.as_str()) {
            return Err(format!("{name}={shown} is refused: {reason}"));
        }
    }
    Ok(value)
}

fn find_or_hint(scope: Scope, name: &str) -> Result<&'static ConfigKey, String> {
    table::find(scope, name).ok_or_else(|| {
        let hint = closest(name, table::keys(scope).map(|k| k.name));
        let hint = hint.map(|h| format!("; did you mean {h}?")).unwrap_or_default();
        format!("{name} is no {} config{hint}", scope.name())
    })
}

/// One setting of a topic, alone.
pub fn validate_topic_config(name: &str, value: &str) -> Result<(), String> {
    check_value(find_or_hint(Scope::Topic, name)?, name, value).map(drop)
}

/// All settings of a topic; `broker` holds those it does not have. An error is INVALID_CONFIG.
pub fn validate_topic_configs(overrides: &ConfigMap, broker: &LogConfigValues) -> Result<(), String> {
    for (name, value) in overrides {
        validate_topic_config(name, value)?;
    }
    let (topic, _) = broker.with_overrides(overrides);
    if topic.min_compaction_lag_ms > topic.max_compaction_lag_ms {
        return Err(format!(
            "min.compaction.lag.ms ({}) must be at most max.compaction.lag.ms ({})",
            topic.min_compaction_lag_ms, topic.max_compaction_lag_ms
        ));
    }
    Ok(())
}

/// Settings of a topic that have to do with tiered storage: `new` as they would be, `old` as they are (`None`: a new topic), and
/// whether the broker has remote storage. Answers to the rules of `LogConfig.validateTopicLogConfigValues` under KIP-405 and KIP-950.
pub fn validate_tiering(
    new: &LogConfigValues,
    old: Option<&LogConfigValues>,
    has_remote_storage: bool,
) -> Result<(), String> {
    if !new.remote_storage_enable {
        return match old {
            Some(old) if old.remote_storage_enable && !new.remote_log_delete_on_disable => Err(
                "remote.storage.enable can be taken back only together with remote.log.delete.on.disable=true, which deletes what is in \
                 remote storage; remote.log.copy.disable=true keeps it readable and copies no more"
                    .to_owned(),
            ),
            _ => Ok(()),
        };
    }
    if !has_remote_storage {
        return Err("remote.storage.enable=true needs remote.log.storage.system.enable=true at the broker".to_owned());
    }
    if new.cleanup_compact {
        return Err("remote.storage.enable=true does not go with a cleanup.policy that holds compact".to_owned());
    }
    let pairs =
        [("ms", new.local_retention_ms, new.retention_ms), ("bytes", new.local_retention_bytes, new.retention_bytes)];
    for (unit, local, total) in pairs {
        if local == -2 {
            continue;
        }
        if new.remote_log_copy_disable && local != total {
            return Err(format!(
                "with remote.log.copy.disable=true local.retention.{unit} must be -2 or the same as retention.{unit}"
            ));
        }
        if total != -1 && (local == -1 || local > total) {
            return Err(format!("local.retention.{unit} ({local}) must be at most retention.{unit} ({total})"));
        }
    }
    Ok(())
}

/// All settings of a group; `groups` holds the bounds. An error is INVALID_CONFIG.
pub fn validate_group_configs(overrides: &ConfigMap, groups: &GroupsConfig) -> Result<(), String> {
    let mut numbers = std::collections::BTreeMap::new();
    for (name, raw) in overrides {
        if let Value::Number(n) = check_value(find_or_hint(Scope::Group, name)?, name, raw)? {
            numbers.insert(name.as_str(), n);
            check_group_bounds(name, n, groups)?;
        }
    }
    let (c, s, t) = (&groups.consumer, &groups.share, &groups.streams);
    for (kind, heartbeat, session) in [
        ("consumer", c.heartbeat_interval_ms, c.session_timeout_ms),
        ("share", s.heartbeat_interval_ms, s.session_timeout_ms),
        ("streams", t.heartbeat_interval_ms, t.session_timeout_ms),
    ] {
        let (heartbeat_key, session_key) =
            (format!("{kind}.heartbeat.interval.ms"), format!("{kind}.session.timeout.ms"));
        let number = |key: &String, default: i32| numbers.get(key.as_str()).copied().unwrap_or(i64::from(default));
        if number(&heartbeat_key, heartbeat) >= number(&session_key, session) {
            return Err(format!("{heartbeat_key} must be less than {session_key}"));
        }
    }
    Ok(())
}

/// Between the broker's smallest and largest for it, where there are such.
fn check_group_bounds(name: &str, n: i64, groups: &GroupsConfig) -> Result<(), String> {
    let (c, s, t) = (&groups.consumer, &groups.share, &groups.streams);
    let (min, max) = match name {
        "consumer.session.timeout.ms" => (c.min_session_timeout_ms, c.max_session_timeout_ms),
        "consumer.heartbeat.interval.ms" => (c.min_heartbeat_interval_ms, c.max_heartbeat_interval_ms),
        "consumer.assignment.interval.ms" => (c.min_assignment_interval_ms, c.max_assignment_interval_ms),
        "share.session.timeout.ms" => (s.min_session_timeout_ms, s.max_session_timeout_ms),
        "share.heartbeat.interval.ms" => (s.min_heartbeat_interval_ms, s.max_heartbeat_interval_ms),
        "share.assignment.interval.ms" => (s.min_assignment_interval_ms, s.max_assignment_interval_ms),
        "share.record.lock.duration.ms" => (s.min_record_lock_duration_ms, s.max_record_lock_duration_ms),
        "share.delivery.count.limit" => (s.min_delivery_count_limit, s.max_delivery_count_limit),
        "share.partition.max.record.locks" => (s.min_partition_max_record_locks, s.max_partition_max_record_locks),
        "streams.session.timeout.ms" => (t.min_session_timeout_ms, t.max_session_timeout_ms),
        "streams.heartbeat.interval.ms" => (t.min_heartbeat_interval_ms, t.max_heartbeat_interval_ms),
        "streams.assignment.interval.ms" => (t.min_assignment_interval_ms, t.max_assignment_interval_ms),
        "streams.num.standby.replicas" => (0, t.max_standby_replicas),
        _ => return Ok(()),
    };
    if (i64::from(min)..=i64::from(max)).contains(&n) {
        Ok(())
    } else {
        Err(format!("{name}={n} must be from {min} to {max}, as the broker's bounds for it say"))
    }
}

/// Shortest and longest push interval of client metrics, inclusive.
const PUSH_INTERVAL_MS: std::ops::RangeInclusive<i64> = 100..=3_600_000;

/// What a client metrics subscription can match a client by.
pub static CLIENT_ATTRIBUTES: &[&str] = &[
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// `match` of a subscription: pairs of an attribute's name and a regular expression, which the caller compiles.
pub fn parse_client_match(value: &str) -> Result<Vec<(&'static str, String)>, String> {
    split_list(value)
        .iter()
        .map(|item| {
            let (name, pattern) = item.split_once('=').unwrap_or((item, ""));
            let name = CLIENT_ATTRIBUTES.iter().find(|a| **a == trim(name));
            name.filter(|_| !trim(pattern).is_empty()).map(|name| (*name, trim(pattern).to_owned())).ok_or_else(|| {
                format!("match={item} must be one of {}, with = and a regular expression", CLIENT_ATTRIBUTES.join(", "))
            })
        })
        .collect()
}

/// All settings of a client metrics subscription, but for the syntax of regular expressions.
pub fn validate_client_metrics_configs(overrides: &ConfigMap) -> Result<(), ConfigRefusal> {
    for (name, raw) in overrides {
        let key = find_or_hint(Scope::ClientMetrics, name).map_err(ConfigRefusal::InvalidRequest)?;
        let value = check_value(key, name, raw).map_err(ConfigRefusal::InvalidConfig)?;
        match (key.name, value) {
            ("interval.ms", Value::Number(n)) if !PUSH_INTERVAL_MS.contains(&n) => {
                let (min, max) = (PUSH_INTERVAL_MS.start(), PUSH_INTERVAL_MS.end());
                return Err(ConfigRefusal::InvalidRequest(format!("interval.ms={n} must be from {min} to {max}")));
            }
            ("match", _) => parse_client_match(raw).map(drop).map_err(ConfigRefusal::InvalidConfig)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whatever can be checked of the whole map of one topic, group or subscription; a broker's has its own function,
/// `validate_broker_configs`, and passes here.
pub fn validate_configs(scope: Scope, configs: &ConfigMap, current: &ServerConfig) -> Result<(), ConfigRefusal> {
    match scope {
        Scope::Topic => validate_topic_configs(configs, &current.log).map_err(ConfigRefusal::InvalidConfig),
        Scope::Group => validate_group_configs(configs, &current.groups).map_err(ConfigRefusal::InvalidConfig),
        Scope::ClientMetrics => validate_client_metrics_configs(configs),
        Scope::Broker => Ok(()),
    }
}

/// Thread counts can at most double or halve in one change.
const THREADS: &[&str] = &[
    "num.io.threads",
    "num.network.threads",
    "background.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
];

/// Changed while a Kafka broker runs, but here only at start.
const ONLY_AT_START: &[&str] = &["listeners", "listener.security.protocol.map"];

/// All dynamic settings of brokers as they would be: of all (`dynamic_default`) and of this one (`dynamic_broker`).
/// `current` is what is in force now. Keys that no table knows are allowed, as in Kafka.
pub fn validate_broker_configs(
    settings: &Settings,
    dynamic_default: &ConfigMap,
    dynamic_broker: &ConfigMap,
    current: &ServerConfig,
) -> Result<Loaded, ConfigRefusal> {
    let invalid = ConfigRefusal::InvalidRequest;
    for (map, of_all) in [(dynamic_default, true), (dynamic_broker, false)] {
        for (name, raw) in map {
            let Some(key) = find_broker_key(name) else { continue };
            check_dynamic(key, name, of_all).map_err(invalid)?;
            let value = check_value(key, name, raw).map_err(invalid)?;
            check_threads(key, &value, current).map_err(invalid)?;
        }
    }
    ServerConfig::load_with(settings, dynamic_default, dynamic_broker).map_err(|e| invalid(e.to_string()))
}

fn check_dynamic(key: &ConfigKey, name: &str, of_all: bool) -> Result<(), String> {
    let of_listener = name != key.name && listener_base(name).is_some();
    if of_listener {
        return Ok(());
    }
    if ONLY_AT_START.contains(&name) {
        return Err(format!("{name} cannot be changed while the broker runs yet"));
    }
    match key.update {
        UpdateMode::ReadOnly => Err(format!("{name} cannot be changed while the broker runs")),
        UpdateMode::PerBroker if of_all => Err(format!("{name} cannot be changed for all brokers, only for one")),
        _ => Ok(()),
    }
}

fn check_threads(key: &ConfigKey, value: &Value, current: &ServerConfig) -> Result<(), String> {
    let Value::Number(new) = value else { return Ok(()) };
    if !THREADS.contains(&key.name) {
        return Ok(());
    }
    let now = match key.name {
        "num.io.threads" => current.net.num_io_threads,
        "num.network.threads" => current.net.num_network_threads,
        "background.threads" => current.net.background_threads,
        "num.replica.fetchers" => current.replication.num_fetchers,
        _ => current.log_manager.recovery_threads_per_data_dir,
    };
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (min, max) = (now / 2, now.saturating_mul(2));
    if (min..=max).contains(new) {
        Ok(())
    } else {
        Err(format!("{}={new} must be from {min} to {max}: it can at most halve or double", key.name))
    }
}
