//! A member of a consumer group: what it said of itself, and what it has. Answers to Kafka's `ConsumerGroupMember`.

use std::sync::Arc;

use bytes::Bytes;
use taccola_base::Uuid;

use crate::modern::LEAVE_EPOCH;
use crate::modern::assignment::{EpochAssignment, same_partitions};

/// How far a member is on its way to its target. The numbers are those of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has what it should have, as far as it was told.
    Stable,
    /// It must give partitions back first.
    UnrevokedPartitions,
    /// It waits for partitions that others have not given back.
    UnreleasedPartitions,
    /// Written by a newer version: nothing is known of it.
    Unknown,
}

impl MemberState {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    pub(crate) fn from_code(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }
}

/// What a member says of itself: its record in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) rack_id: Option<String>,
    pub(crate) client_id: String,
    /// As Kafka shows it: a slash and the address.
    pub(crate) client_host: String,
    /// Ascending, each once.
    pub(crate) topics: Vec<Arc<str>>,
    /// Empty: none.
    pub(crate) regex: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) server_assignor: Option<String>,
    /// Set for members that speak the classic protocol.
    pub(crate) classic: Option<ClassicMember>,
}

/// What a member of the classic protocol says besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassicMember {
    pub(crate) session_timeout_ms: i32,
    /// In the member's order of preference.
    pub(crate) protocols: Vec<(String, Bytes)>,
}

impl Subscription {
    pub(crate) fn has_regex(&self) -> bool {
        !self.regex.is_empty()
    }

    /// What the group keeps of it, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let protocols = self.classic.iter().flat_map(|c| &c.protocols).map(|(name, data)| name.len() + data.len());
        self.client_id.len()
            + self.regex.len()
            + self.rack_id.as_ref().map_or(0, String::len)
            + self.topics.iter().map(|t| t.len()).sum::<usize>()
            + protocols.sum::<usize>()
    }
}

/// What a member has and at which epoch: its other record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) epoch: i32,
    /// The epoch that the member may still use if it did not get the reply that told it the current one.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: EpochAssignment,
    /// What it was asked to give back.
    pub(crate) pending_revocation: EpochAssignment,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: EpochAssignment::new(),
            pending_revocation: EpochAssignment::new(),
        }
    }
}

impl Current {
    /// A member whose record is gone while the member itself is still there.
    pub(crate) fn left() -> Self {
        Self { epoch: LEAVE_EPOCH, previous_epoch: LEAVE_EPOCH, ..Default::default() }
    }

    pub(crate) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    pub(crate) fn move_to(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    pub(crate) fn assigned_differs(&self, other: &Self) -> bool {
        !same_partitions(&self.assigned, &other.assigned)
    }

    /// The epoch at which the partition became the member's.
    pub(crate) fn assignment_epoch(&self, topic: &Uuid, partition: i32) -> Option<i32> {
        let of = |assignment: &EpochAssignment| assignment.get(topic).and_then(|p| p.get(&partition)).copied();
        of(&self.assigned).or_else(|| of(&self.pending_revocation))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) current: Current,
}

impl Member {
    pub(crate) fn is_classic(&self) -> bool {
        self.subscription.classic.is_some()
    }
}
