//! From the resolved settings of a topic to what the log and the validation of batches want of them.

use std::sync::Arc;

use taccola_base::config::{LogConfigValues, MessageTimestampType, TopicCompression};
use taccola_log::LogConfig;
use taccola_wire::batch::TimestampType;
use taccola_wire::batch::validate::{Origin, Settings, TargetCompression};
use taccola_wire::compress::{Codec, Compression};

/// First Produce version whose clients know zstd.
const ZSTD_SINCE: i16 = 7;

/// A partition's settings in both forms. Shared by all partitions of a topic.
#[derive(Debug)]
pub struct TopicConfig {
    pub values: LogConfigValues,
    pub log: Arc<LogConfig>,
}

impl TopicConfig {
    pub fn new(values: LogConfigValues, producer_id_expiration_ms: i64) -> Arc<Self> {
        let log = Arc::new(log_config(&values, producer_id_expiration_ms));
        Arc::new(Self { values, log })
    }

    /// The rules for a client's batch; `verify_records`: it is walked even if nothing of the topic asks for it.
    pub fn validation(&self, produce_version: i16, verify_records: bool, now_ms: i64) -> Settings {
        let values = &self.values;
        Settings {
            origin: Origin::Client,
            compacted: values.cleanup_compact,
            timestamp_type: match values.message_timestamp_type {
                MessageTimestampType::CreateTime => TimestampType::CreateTime,
                MessageTimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            before_max_ms: values.message_timestamp_before_max_ms,
            after_max_ms: values.message_timestamp_after_max_ms,
            max_message_bytes: usize::try_from(values.max_message_bytes).unwrap_or(0),
            target: target_compression(values),
            zstd_allowed: produce_version >= ZSTD_SINCE,
            verify_records,
            now_ms,
        }
    }
}

fn target_compression(values: &LogConfigValues) -> TargetCompression {
    let codec = |compression, level| TargetCompression::Codec(Codec { compression, level });
    match values.compression {
        TopicCompression::Producer => TargetCompression::Producer,
        TopicCompression::Uncompressed => codec(Compression::None, None),
        TopicCompression::Gzip => codec(Compression::Gzip, Some(values.gzip_level)),
        TopicCompression::Snappy => codec(Compression::Snappy, None),
        TopicCompression::Lz4 => codec(Compression::Lz4, Some(values.lz4_level)),
        TopicCompression::Zstd => codec(Compression::Zstd, Some(values.zstd_level)),
    }
}

/// Sizes are checked against their bounds when they are set; a negative one cannot come, and would be 0 here.
fn log_config(values: &LogConfigValues, producer_id_expiration_ms: i64) -> LogConfig {
    let size = |bytes: i32| u32::try_from(bytes).unwrap_or(0);
    LogConfig {
        segment_bytes: size(values.segment_bytes),
        segment_ms: values.segment_ms,
        segment_jitter_ms: values.segment_jitter_ms,
        index_interval_bytes: size(values.index_interval_bytes),
        segment_index_bytes: size(values.segment_index_bytes),
        retention_ms: values.retention_ms,
        retention_bytes: values.retention_bytes,
        // With compaction it is refused where topics are configured.
        remote_storage_enable: values.remote_storage_enable && !values.cleanup_compact,
        remote_copy_disable: values.remote_log_copy_disable,
        local_retention_ms: values.local_retention_ms,
        local_retention_bytes: values.local_retention_bytes,
        max_message_bytes: size(values.max_message_bytes),
        flush_messages: values.flush_messages,
        flush_ms: values.flush_ms,
        file_delete_delay_ms: values.file_delete_delay_ms,
        preallocate: values.preallocate,
        log_append_time: values.message_timestamp_type == MessageTimestampType::LogAppendTime,
        message_timestamp_before_max_ms: values.message_timestamp_before_max_ms,
        message_timestamp_after_max_ms: values.message_timestamp_after_max_ms,
        cleanup_delete: values.cleanup_delete,
        cleanup_compact: values.cleanup_compact,
        delete_retention_ms: values.delete_retention_ms,
        min_compaction_lag_ms: values.min_compaction_lag_ms,
        max_compaction_lag_ms: values.max_compaction_lag_ms,
        min_cleanable_dirty_ratio: values.min_cleanable_dirty_ratio,
        min_insync_replicas: values.min_insync_replicas,
        producer_id_expiration_ms,
    }
}
