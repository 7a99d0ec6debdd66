//! The share coordinator: what share groups have delivered, as the records of `__share_group_state` tell it. One
//! [`ShareStateShard`] answers for one partition of that topic; a share partition (group, topic, partition) belongs to the
//! shard that [`SharePartitionKey::coordinator_key`] hashes to. Answers to Kafka's `ShareCoordinatorShard` (KIP-932).
//!
//! A share partition's state is a start offset and the delivery states of offsets from there on, in batches that do not
//! overlap. The log has a snapshot of it and the updates since; a new snapshot makes everything before it redundant.

mod combine;
mod records;
mod shard;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::config::ShareCoordinatorConfig;
use taccola_wire::error::ErrorCode;

pub use combine::combine;
pub use shard::ShareStateShard;

/// Batches of one share partition's state; a snapshot of as many still fits a record of a mebibyte. More is
/// INVALID_REQUEST. A share partition has at most `group.share.max.partition.max.record.locks` (10 000) records in flight.
pub const STATE_BATCHES_MAX: usize = 40_000;

/// Start offset of state that is not told.
pub const NO_START_OFFSET: i64 = -1;
/// An epoch that is not told and not compared.
pub const NO_EPOCH: i32 = -1;
/// How many deliveries are complete when nobody counted.
pub const NO_DELIVERY_COMPLETE_COUNT: i32 = -1;

/// A share partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharePartitionKey {
    pub group_id: Arc<str>,
    pub topic_id: Uuid,
    pub partition: i32,
}

impl SharePartitionKey {
    /// What FindCoordinator is asked with, and what is hashed to a partition of `__share_group_state`.
    pub fn coordinator_key(&self) -> String {
        format!("{}:{}:{}", self.group_id, self.topic_id, self.partition)
    }

    /// Understands a coordinator's key. Group ids may hold colons; topic ids and partitions do not.
    pub fn parse(key: &str) -> Option<Self> {
        let (rest, partition) = key.rsplit_once(':')?;
        let (group_id, topic_id) = rest.rsplit_once(':')?;
        let (topic_id, partition) = (topic_id.parse().ok()?, partition.parse().ok()?);
        (!group_id.is_empty() && partition >= 0).then(|| Self { group_id: group_id.into(), topic_id, partition })
    }
}

/// Offsets with one delivery state, both ends inclusive. In the order of the fields the later of two equal ranges is the
/// one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateBatch {
    pub first_offset: i64,
    pub last_offset: i64,
    pub delivery_count: i16,
    /// 0 available, 2 acknowledged, 4 archived.
    pub delivery_state: i8,
}

/// The state of one share partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareState {
    /// Ascends with each snapshot.
    pub snapshot_epoch: i32,
    pub state_epoch: i32,
    pub leader_epoch: i32,
    pub start_offset: i64,
    pub delivery_complete_count: i32,
    pub create_timestamp_ms: i64,
    /// When the last snapshot was written. Differs from the creation only where a share partition lay idle.
    pub write_timestamp_ms: i64,
    pub batches: Vec<StateBatch>,
}

/// What is asked of WriteShareGroupState for one share partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteState {
    pub state_epoch: i32,
    pub leader_epoch: i32,
    /// [`NO_START_OFFSET`]: as it is.
    pub start_offset: i64,
    pub delivery_complete_count: i32,
    pub batches: Vec<StateBatch>,
}

/// What ReadShareGroupState answers for one share partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    pub state_epoch: i32,
    pub start_offset: i64,
    pub batches: Vec<StateBatch>,
}

/// What ReadShareGroupStateSummary answers for one share partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSummary {
    pub state_epoch: i32,
    pub leader_epoch: i32,
    pub start_offset: i64,
    pub delivery_complete_count: i32,
}

impl StateSummary {
    /// Of a share partition that is not known.
    pub const UNINITIALIZED: Self = Self {
        state_epoch: 0,
        leader_epoch: 0,
        start_offset: NO_START_OFFSET,
        delivery_complete_count: NO_DELIVERY_COMPLETE_COUNT,
    };
}

/// Why a share partition's state is not read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ShareStateError {
    pub code: ErrorCode,
    pub message: Cow<'static, str>,
}

impl ShareStateError {
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<ErrorCode> for ShareStateError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.message())
    }
}

/// The replies of the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareStateReply {
    /// To Initialize, Write and Delete.
    Done(Result<(), ShareStateError>),
    Read(Result<ReadState, ShareStateError>),
    Summary(Result<StateSummary, ShareStateError>),
}

impl ShareStateReply {
    fn fail(&mut self, error: ErrorCode) {
        *self = match self {
            Self::Done(_) => Self::Done(Err(error.into())),
            Self::Read(_) => Self::Read(Err(error.into())),
            Self::Summary(_) => Self::Summary(Err(error.into())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareStateTimer {
    /// The next look for records that newer ones replace.
    Prune,
    /// The next look for share partitions that have not had a snapshot for long.
    ColdSnapshot,
}

/// What the shard wants done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareStateAction {
    /// The records of the shard's partition below this offset say nothing any more.
    DeleteRecordsBefore(i64),
}

/// `share.coordinator.*` as far as a shard goes by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareStateConfig {
    /// `share.coordinator.snapshot.update.records.per.snapshot`.
    pub updates_per_snapshot: u32,
    /// `share.coordinator.cold.partition.snapshot.interval.ms`.
    pub cold_snapshot_interval_ms: i64,
    /// `share.coordinator.state.topic.prune.interval.ms`.
    pub prune_interval_ms: i64,
}

impl Default for ShareStateConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self { updates_per_snapshot: 500, cold_snapshot_interval_ms: 300_000, prune_interval_ms: 300_000 }
    }
}

impl ShareStateConfig {
    pub fn new(config: &ShareCoordinatorConfig) -> Self {
        let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            updates_per_snapshot: u32::try_from(config.snapshot_update_records_per_snapshot).unwrap_or(0),
            cold_snapshot_interval_ms: ms(config.cold_partition_snapshot_interval),
            prune_interval_ms: ms(config.topic_prune_interval),
        }
    }
}
