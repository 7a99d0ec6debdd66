//! The broker's settings that bear on groups and committed offsets. Answers to Kafka's `GroupCoordinatorConfig`.

use taccola_base::config::{
    ConsumerGroupConfig, GroupProtocols, GroupsConfig, MigrationPolicy, OffsetsConfig, ShareGroupConfig,
    StreamsGroupConfig,
};
use taccola_base::limits;

#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`, inclusive.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`, inclusive.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members after the first; each new one
    /// extends it, up to the rebalance timeout.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`; what counts is never more than `limits::GROUP_MEMBERS_MAX`.
    pub max_size: i32,
    /// `offset.metadata.max.bytes`. Counts UTF-16 units, as Kafka does in spite of the name.
    pub offset_metadata_max: i32,
    /// `offsets.retention.minutes`.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `group.coordinator.rebalance.protocols`.
    pub protocols: GroupProtocols,
    pub consumer: ConsumerGroupConfig,
    pub share: ShareGroupConfig,
    pub streams: StreamsGroupConfig,
}

impl Default for GroupConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            protocols: GroupProtocols { classic: true, consumer: true, share: true, streams: true },
            consumer: default_consumer(),
            share: default_share(),
            streams: default_streams(),
        }
    }
}

impl GroupConfig {
    pub fn new(groups: &GroupsConfig, offsets: &OffsetsConfig) -> Self {
        Self {
            min_session_timeout_ms: groups.classic.min_session_timeout_ms,
            max_session_timeout_ms: groups.classic.max_session_timeout_ms,
            initial_rebalance_delay_ms: groups.classic.initial_rebalance_delay_ms,
            max_size: groups.classic.max_size,
            offset_metadata_max: offsets.metadata_max_bytes,
            offsets_retention_ms: offsets.retention_ms,
            offsets_retention_check_interval_ms: i64::try_from(offsets.retention_check_interval.as_millis())
                .unwrap_or(i64::MAX),
            protocols: groups.protocols,
            consumer: groups.consumer.clone(),
            share: groups.share.clone(),
            streams: groups.streams.clone(),
        }
    }

    pub(crate) fn members_max(&self) -> usize {
        usize::try_from(self.max_size).unwrap_or(0).min(limits::GROUP_MEMBERS_MAX)
    }
}

fn default_consumer() -> ConsumerGroupConfig {
    ConsumerGroupConfig {
        session_timeout_ms: 45_000,
        min_session_timeout_ms: 45_000,
        max_session_timeout_ms: 60_000,
        heartbeat_interval_ms: 5_000,
        min_heartbeat_interval_ms: 5_000,
        max_heartbeat_interval_ms: 15_000,
        assignment_interval_ms: 1_000,
        min_assignment_interval_ms: 0,
        max_assignment_interval_ms: 15_000,
        max_size: i32::MAX,
        assignors: vec!["uniform".to_owned(), "range".to_owned()],
        migration_policy: MigrationPolicy::Bidirectional,
        regex_refresh_interval_ms: 600_000,
    }
}

fn default_share() -> ShareGroupConfig {
    ShareGroupConfig {
        session_timeout_ms: 45_000,
        min_session_timeout_ms: 45_000,
        max_session_timeout_ms: 60_000,
        heartbeat_interval_ms: 5_000,
        min_heartbeat_interval_ms: 5_000,
        max_heartbeat_interval_ms: 15_000,
        assignment_interval_ms: 1_000,
        min_assignment_interval_ms: 0,
        max_assignment_interval_ms: 15_000,
        max_size: 200,
        assignors: vec!["simple".to_owned()],
        delivery_count_limit: 5,
        min_delivery_count_limit: 2,
        max_delivery_count_limit: 10,
        record_lock_duration_ms: 30_000,
        min_record_lock_duration_ms: 15_000,
        max_record_lock_duration_ms: 60_000,
        partition_max_record_locks: 2_000,
        min_partition_max_record_locks: 100,
        max_partition_max_record_locks: 4_000,
        max_share_sessions: 2_000,
        initialize_retry_interval_ms: 30_000,
    }
}

fn default_streams() -> StreamsGroupConfig {
    StreamsGroupConfig {
        session_timeout_ms: 45_000,
        min_session_timeout_ms: 45_000,
        max_session_timeout_ms: 60_000,
        heartbeat_interval_ms: 5_000,
        min_heartbeat_interval_ms: 5_000,
        max_heartbeat_interval_ms: 15_000,
        assignment_interval_ms: 1_000,
        min_assignment_interval_ms: 0,
        max_assignment_interval_ms: 15_000,
        max_size: i32::MAX,
        num_standby_replicas: 0,
        max_standby_replicas: 2,
        initial_rebalance_delay_ms: 3_000,
    }
}
