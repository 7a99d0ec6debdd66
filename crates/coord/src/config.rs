//! The broker's settings that bear on classic groups and committed offsets. Answers to Kafka's `GroupCoordinatorConfig`.

use taccola_base::config::{ClassicGroupConfig, OffsetsConfig};
use taccola_base::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
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
        }
    }
}

impl GroupConfig {
    pub fn new(groups: &ClassicGroupConfig, offsets: &OffsetsConfig) -> Self {
        Self {
            min_session_timeout_ms: groups.min_session_timeout_ms,
            max_session_timeout_ms: groups.max_session_timeout_ms,
            initial_rebalance_delay_ms: groups.initial_rebalance_delay_ms,
            max_size: groups.max_size,
            offset_metadata_max: offsets.metadata_max_bytes,
            offsets_retention_ms: offsets.retention_ms,
            offsets_retention_check_interval_ms: i64::try_from(offsets.retention_check_interval.as_millis())
                .unwrap_or(i64::MAX),
        }
    }

    pub(crate) fn members_max(&self) -> usize {
        usize::try_from(self.max_size).unwrap_or(0).min(limits::GROUP_MEMBERS_MAX)
    }
}
