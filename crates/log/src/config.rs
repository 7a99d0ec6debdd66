//! The topic settings that a partition's log obeys. Answers to Kafka's `LogConfig`; the defaults are Kafka's.
//! One `Arc<LogConfig>` is shared by all partitions with the same settings, so that a partition pays one pointer.

/// Settings of one log. Times are milliseconds, sizes bytes; -1 means "no limit" where Kafka says so.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment never grows beyond this, inclusive, except for one batch larger than it.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment whose first batch is older than this rolls at the next append.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: at most this much is taken off `segment_ms`, by a value fixed per segment.
    pub segment_jitter_ms: i64,
    /// `index.interval.bytes`: log bytes between two index entries, about.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: size at which an index is full and the segment rolls.
    pub segment_index_bytes: u32,
    /// `retention.ms`; -1 keeps forever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 keeps all.
    pub retention_bytes: i64,
    /// `local.retention.ms`; -2 follows `retention_ms`. Matters only for a tiered log.
    pub local_retention_ms: i64,
    /// `local.retention.bytes`; -2 follows `retention_bytes`.
    pub local_retention_bytes: i64,
    /// `remote.storage.enable`, where the broker has remote storage.
    pub remote_storage_enable: bool,
    /// `remote.log.copy.disable`: what is in remote storage stays readable, nothing is added.
    pub remote_copy_disable: bool,
    /// `max.message.bytes`: largest batch that a client may append, inclusive.
    pub max_message_bytes: u32,
    /// `flush.messages`: unflushed records after which the caller should flush; `i64::MAX` is never.
    pub flush_messages: i64,
    /// `flush.ms`: age of unflushed records after which the caller should flush; `i64::MAX` is never.
    pub flush_ms: i64,
    /// `file.delete.delay.ms`: how long a removed segment's files stay, renamed to `.deleted`.
    pub file_delete_delay_ms: i64,
    /// `preallocate`: give a new segment its full size on disk at once.
    pub preallocate: bool,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: i64,
    /// `cleanup.policy` holds `delete`.
    pub cleanup_delete: bool,
    /// `cleanup.policy` holds `compact`.
    pub cleanup_compact: bool,
    /// `delete.retention.ms`: how long compaction keeps tombstones and markers.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.insync.replicas`; carried for the broker, the log does not look at it.
    pub min_insync_replicas: i32,
    /// `producer.id.expiration.ms` (a broker setting): a producer without an open transaction is forgotten after this.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 * 1024 * 1024,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            local_retention_ms: -2,
            local_retention_bytes: -2,
            remote_storage_enable: false,
            remote_copy_disable: false,
            max_message_bytes: 1024 * 1024 + 12,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            preallocate: false,
            log_append_time: false,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            cleanup_delete: true,
            cleanup_compact: false,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            min_insync_replicas: 1,
            producer_id_expiration_ms: DAY_MS,
        }
    }
}
