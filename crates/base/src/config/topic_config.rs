//! The typed settings of one topic, resolved from its overrides and the broker's settings.
//! Answers to Kafka's `LogConfig`.

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
