//! Share groups (KIP-932): members take turns with the records of partitions that several may share. The coordinator
//! assigns; whether a record was delivered is the business of the partition's leader and of the share coordinator, which
//! the group coordinator has set up the state of every partition before it assigns it. Answers to Kafka's `ShareGroup`
//! and the share half of `GroupMetadataManager`.
//!
//! Setting up, and forgetting, goes in three steps: a record says what is about to happen, the broker asks the share
//! coordinator ([`StateChange`]), a record says that it is done. A step that gets lost is done again.

mod assignor;
mod group;
mod heartbeat;
mod offsets;
mod records;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::ShareGroupHeartbeatResponse;

pub(crate) use group::ShareGroup;
pub(crate) use records::{GroupRecord, KEY_TYPE_FIRST, KEY_TYPE_LAST, decode};

/// Partitions by topic id.
pub type Assignment = BTreeMap<Uuid, BTreeSet<i32>>;

/// A topic some of whose partitions have, or get, state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitTopic {
    pub name: Arc<str>,
    pub partitions: BTreeSet<i32>,
    /// When the setting up began, ms. In memory alone: 0 after a restart.
    pub since_ms: i64,
}

/// Which partitions of a share group have state at the share coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePartitions {
    pub initializing: BTreeMap<Uuid, InitTopic>,
    pub initialized: BTreeMap<Uuid, InitTopic>,
    /// Topics whose state is being forgotten, by name.
    pub deleting: BTreeMap<Uuid, Arc<str>>,
}

/// What the share coordinator has to be asked for in the group's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub state_epoch: i32,
    /// Start offsets by topic and partition; -1 leaves it to the partition's leader.
    pub partitions: BTreeMap<Uuid, BTreeMap<i32, i64>>,
}

/// A heartbeat's reply, and what is to be set up after it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatReply {
    pub response: ShareGroupHeartbeatResponse,
    pub initialize: Option<StateChange>,
}

/// How AlterShareGroupOffsets and DeleteShareGroupOffsets go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsReply {
    /// The error for the whole request.
    pub error: Option<ErrorCode>,
    /// Each topic that was named, with its id if there is such a topic.
    pub topics: Vec<OffsetsTopic>,
    /// What to ask the share coordinator for.
    pub change: Option<StateChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsTopic {
    pub name: String,
    pub id: Uuid,
    /// For the topic as a whole.
    pub error: Option<ErrorCode>,
    /// With the error of each; none: it is part of the change.
    pub partitions: BTreeMap<i32, Option<ErrorCode>>,
}

/// The replies of a shard about share groups that can be parked.
#[derive(Clone, Debug, PartialEq)]
pub enum ShareReply {
    Heartbeat(Box<HeartbeatReply>),
    Offsets(OffsetsReply),
    /// To a step that has nothing to say but whether it was written.
    Done(Result<(), ErrorCode>),
    /// What is to be forgotten before a group can be deleted.
    Forget(Result<Option<StateChange>, ErrorCode>),
}

impl ShareReply {
    /// The same reply after its records could not be written.
    pub(crate) fn into_failure(self, error: ErrorCode) -> Self {
        match self {
            Self::Heartbeat(_) => Self::Heartbeat(Box::new(heartbeat::refused(error, error.message()))),
            Self::Offsets(_) => Self::Offsets(OffsetsReply::refused(error)),
            Self::Done(_) => Self::Done(Err(error)),
            Self::Forget(_) => Self::Forget(Err(error)),
        }
    }
}

impl OffsetsReply {
    fn refused(error: ErrorCode) -> Self {
        Self { error: Some(error), topics: Vec::new(), change: None }
    }
}
