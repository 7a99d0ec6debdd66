//! The typed settings of one topic, resolved from its overrides and the broker's settings.
//! Answers to Kafka's `LogConfig`.
//!
//! A topic's own value comes first, then the broker's keys that stand behind it in their order, then the default.

use super::ConfigMap;
use super::key::Scope;
use super::table;
use super::value::{Value, parse};
use super::view::View;

/// Every topic setting, resolved. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfigValues {
    pub segment_bytes: i32,
    pub segment_ms: i64,
    pub segment_jitter_ms: i64,
    pub segment_index_bytes: i32,
    /// `flush.messages`; `i64::MAX`: never by count.
    pub flush_messages: i64,
    /// `flush.ms`; `i64::MAX`: never by time.
    pub flush_ms: i64,
    /// -1: no bound.
    pub retention_bytes: i64,
    /// -1: no bound.
    pub retention_ms: i64,
    /// -2: as `retention_bytes`.
    pub local_retention_bytes: i64,
    /// -2: as `retention_ms`.
    pub local_retention_ms: i64,
    pub max_message_bytes: i32,
    pub index_interval_bytes: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    pub cleanup_compact: bool,
    pub cleanup_delete: bool,
    pub compression: TopicCompression,
    pub gzip_level: i32,
    pub lz4_level: i32,
    pub zstd_level: i32,
    pub message_timestamp_type: MessageTimestampType,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub unclean_leader_election_enable: bool,
    pub leader_throttled_replicas: Vec<String>,
    pub follower_throttled_replicas: Vec<String>,
    pub remote_storage_enable: bool,
    pub remote_log_copy_disable: bool,
    pub remote_log_delete_on_disable: bool,
}

/// `compression.type` of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// As the producer compressed it.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageTimestampType {
    CreateTime,
    LogAppendTime,
}

impl TopicCompression {
    /// By its name in configs.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "producer" => Self::Producer,
            "uncompressed" => Self::Uncompressed,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

impl MessageTimestampType {
    /// By its name in configs.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "CreateTime" => Some(Self::CreateTime),
            "LogAppendTime" => Some(Self::LogAppendTime),
            _ => None,
        }
    }
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

impl LogConfigValues {
    /// What a topic without overrides gets.
    pub(super) fn of_broker(v: &mut View<'_>) -> Self {
        let cleanup = v.list("log.cleanup.policy");
        let compression = TopicCompression::from_name(&v.text("compression.type"));
        let timestamp_type = MessageTimestampType::from_name(&v.text("log.message.timestamp.type"));
        Self {
            segment_bytes: v.i32("log.segment.bytes"),
            segment_ms: ms_or_hours(v, "log.roll.ms", "log.roll.hours"),
            segment_jitter_ms: ms_or_hours(v, "log.roll.jitter.ms", "log.roll.jitter.hours"),
            segment_index_bytes: v.i32("log.index.size.max.bytes"),
            flush_messages: v.i64("log.flush.interval.messages"),
            flush_ms: match v.opt_i64("log.flush.interval.ms") {
                Some(ms) => ms,
                None => v.i64("log.flush.scheduler.interval.ms"),
            },
            retention_bytes: v.i64("log.retention.bytes"),
            retention_ms: retention_ms(v),
            local_retention_bytes: v.i64("log.local.retention.bytes"),
            local_retention_ms: v.i64("log.local.retention.ms"),
            max_message_bytes: v.i32("message.max.bytes"),
            index_interval_bytes: v.i32("log.index.interval.bytes"),
            delete_retention_ms: v.i64("log.cleaner.delete.retention.ms"),
            file_delete_delay_ms: v.i64("log.segment.delete.delay.ms"),
            min_compaction_lag_ms: v.i64("log.cleaner.min.compaction.lag.ms"),
            max_compaction_lag_ms: v.i64("log.cleaner.max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: v.f64("log.cleaner.min.cleanable.ratio"),
            cleanup_compact: cleanup.iter().any(|p| p == "compact"),
            cleanup_delete: cleanup.iter().any(|p| p == "delete"),
            compression: compression.unwrap_or(TopicCompression::Producer),
            gzip_level: v.i32("compression.gzip.level"),
            lz4_level: v.i32("compression.lz4.level"),
            zstd_level: v.i32("compression.zstd.level"),
            message_timestamp_type: timestamp_type.unwrap_or(MessageTimestampType::CreateTime),
            message_timestamp_before_max_ms: v.i64("log.message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: v.i64("log.message.timestamp.after.max.ms"),
            min_insync_replicas: v.i32("min.insync.replicas"),
            preallocate: v.bool("log.preallocate"),
            unclean_leader_election_enable: v.bool("unclean.leader.election.enable"),
            leader_throttled_replicas: Vec::new(),
            follower_throttled_replicas: Vec::new(),
            remote_storage_enable: false,
            remote_log_copy_disable: false,
            remote_log_delete_on_disable: false,
        }
    }

    /// The settings of a topic with these overrides, `self` being the broker's. Names and values that
    /// `validate_topic_configs` refuses do not count; they are returned, one sentence each.
    pub fn with_overrides(&self, overrides: &ConfigMap) -> (Self, Vec<String>) {
        let mut out = self.clone();
        let mut ignored = Vec::new();
        for (name, raw) in overrides {
            let Some(key) = table::find(Scope::Topic, name) else {
                ignored.push(format!("{name} is no topic config"));
                continue;
            };
            match parse(key, raw) {
                Ok(value) => out.apply(name, value),
                Err(allowed) => ignored.push(format!("{name}={raw} {allowed}")),
            }
        }
        // Kafka's segment.bytes for tests counts whenever it is set.
        if let Some(Ok(Value::Number(n))) = overrides
            .get("internal.segment.bytes")
            .and_then(|raw| table::find(Scope::Topic, "internal.segment.bytes").map(|key| parse(key, raw)))
        {
            set_i32(&mut out.segment_bytes, n);
        }
        (out, ignored)
    }

    /// Values are of the type and within the bounds of their key.
    fn apply(&mut self, name: &str, value: Value) {
        match value {
            Value::Number(n) => self.apply_number(name, n),
            Value::Boolean(b) => self.apply_boolean(name, b),
            Value::Double(d) => self.min_cleanable_dirty_ratio = d,
            Value::Text(s) => self.apply_text(name, &s),
            Value::List(items) => self.apply_list(name, items),
            Value::Null => {}
        }
    }

    fn apply_number(&mut self, name: &str, n: i64) {
        match name {
            "segment.bytes" => set_i32(&mut self.segment_bytes, n),
            "segment.ms" => self.segment_ms = n,
            "segment.jitter.ms" => self.segment_jitter_ms = n,
            "segment.index.bytes" => set_i32(&mut self.segment_index_bytes, n),
            "flush.messages" => self.flush_messages = n,
            "flush.ms" => self.flush_ms = n,
            "retention.bytes" => self.retention_bytes = n,
            "retention.ms" => self.retention_ms = n,
            "local.retention.bytes" => self.local_retention_bytes = n,
            "local.retention.ms" => self.local_retention_ms = n,
            "max.message.bytes" => set_i32(&mut self.max_message_bytes, n),
            "index.interval.bytes" => set_i32(&mut self.index_interval_bytes, n),
            "delete.retention.ms" => self.delete_retention_ms = n,
            "file.delete.delay.ms" => self.file_delete_delay_ms = n,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = n,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = n,
            "compression.gzip.level" => set_i32(&mut self.gzip_level, n),
            "compression.lz4.level" => set_i32(&mut self.lz4_level, n),
            "compression.zstd.level" => set_i32(&mut self.zstd_level, n),
            "message.timestamp.before.max.ms" => self.message_timestamp_before_max_ms = n,
            "message.timestamp.after.max.ms" => self.message_timestamp_after_max_ms = n,
            "min.insync.replicas" => set_i32(&mut self.min_insync_replicas, n),
            _ => {}
        }
    }

    fn apply_boolean(&mut self, name: &str, b: bool) {
        match name {
            "preallocate" => self.preallocate = b,
            "unclean.leader.election.enable" => self.unclean_leader_election_enable = b,
            "remote.storage.enable" => self.remote_storage_enable = b,
            "remote.log.copy.disable" => self.remote_log_copy_disable = b,
            "remote.log.delete.on.disable" => self.remote_log_delete_on_disable = b,
            _ => {}
        }
    }

    fn apply_text(&mut self, name: &str, s: &str) {
        match name {
            "compression.type" => self.compression = TopicCompression::from_name(s).unwrap_or(self.compression),
            "message.timestamp.type" => {
                self.message_timestamp_type = MessageTimestampType::from_name(s).unwrap_or(self.message_timestamp_type);
            }
            _ => {}
        }
    }

    fn apply_list(&mut self, name: &str, items: Vec<String>) {
        match name {
            "cleanup.policy" => {
                self.cleanup_compact = items.iter().any(|p| p == "compact");
                self.cleanup_delete = items.iter().any(|p| p == "delete");
            }
            "leader.replication.throttled.replicas" => self.leader_throttled_replicas = items,
            "follower.replication.throttled.replicas" => self.follower_throttled_replicas = items,
            _ => {}
        }
    }
}

/// Bounds of `int` keys lie within `i32`.
fn set_i32(field: &mut i32, n: i64) {
    *field = i32::try_from(n).unwrap_or(*field);
}

fn ms_or_hours(v: &mut View<'_>, ms: &str, hours: &str) -> i64 {
    match v.opt_i64(ms) {
        Some(ms) => ms,
        None => v.i64(hours).saturating_mul(HOUR_MS),
    }
}

/// Any negative number means for ever.
fn retention_ms(v: &mut View<'_>) -> i64 {
    let ms = match (v.opt_i64("log.retention.ms"), v.opt_i64("log.retention.minutes")) {
        (Some(ms), _) => ms,
        (None, Some(minutes)) => minutes.saturating_mul(MINUTE_MS),
        (None, None) => v.i64("log.retention.hours").saturating_mul(HOUR_MS),
    };
    if ms < 0 { -1 } else { ms }
}

/// Checks between a broker's log keys, as one sentence.
pub(super) fn check_broker_log(c: &LogConfigValues) -> Result<(), String> {
    if c.retention_ms == 0 {
        return Err("log.retention.ms must be at least 1, or -1 for ever".to_owned());
    }
    if c.segment_ms < 1 {
        return Err("log.roll.ms must be at least 1".to_owned());
    }
    if c.segment_jitter_ms < 0 {
        return Err("log.roll.jitter.ms must not be negative".to_owned());
    }
    if c.local_retention_ms != -2 && c.retention_ms >= 0 && !(0..=c.retention_ms).contains(&c.local_retention_ms) {
        return Err("log.local.retention.ms must be -2 or at most log.retention.ms".to_owned());
    }
    if c.local_retention_bytes != -2
        && c.retention_bytes >= 0
        && !(0..=c.retention_bytes).contains(&c.local_retention_bytes)
    {
        return Err("log.local.retention.bytes must be -2 or at most log.retention.bytes".to_owned());
    }
    if c.min_compaction_lag_ms > c.max_compaction_lag_ms {
        return Err("log.cleaner.min.compaction.lag.ms must be at most log.cleaner.max.compaction.lag.ms".to_owned());
    }
    Ok(())
}
