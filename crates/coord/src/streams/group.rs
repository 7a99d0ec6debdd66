//! One streams group as its records tell it, and what is remembered beside them. Answers to Kafka's `StreamsGroup` and
//! `StreamsGroupMember`.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{
    StreamsGroupCurrentMemberAssignmentValue, StreamsGroupMemberMetadataValue, StreamsGroupMetadataValue,
};

use super::internal_topics::ConfiguredTopology;
use super::records::{Body, GroupRecord, active_of, passive_of, target_of};
use super::tasks::{AssignedTasks, Tasks, epoch_of};
use super::topology::Topology;
use crate::group::{AnyGroup, CommitScope, Committer, ExpirationCondition, GroupKind};
use crate::modern::LEAVE_EPOCH;
use crate::modern::timeouts::Timeouts;
use crate::outbox::{Change, Outbox};

/// From this version on OffsetCommit has room for a member epoch.
const COMMIT_EPOCH_FROM: i16 = 9;
/// The epoch of an assignment that was forgotten, and of a member's topology before it told it.
const NO_EPOCH: i32 = -1;

/// A group begins here, with an empty assignment: a member that has to wait for its first tasks is at this epoch, not at
/// the 0 with which it joined.
const FIRST_EPOCH: i32 = 1;

/// How far a member is on its way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    #[default]
    Stable,
    /// It has to give tasks up.
    UnrevokedTasks,
    /// Tasks that it should have are still elsewhere.
    UnreleasedTasks,
    /// Of a version that knows more states.
    Unknown,
}

impl MemberState {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Stable => 1,
            Self::UnrevokedTasks => 2,
            Self::UnreleasedTasks => 3,
            Self::Unknown => 127,
        }
    }

    fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Stable,
            2 => Self::UnrevokedTasks,
            3 => Self::UnreleasedTasks,
            _ => Self::Unknown,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) metadata: StreamsGroupMemberMetadataValue,
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: AssignedTasks,
    pub(crate) pending_revocation: AssignedTasks,
}

impl Default for Member {
    fn default() -> Self {
        let metadata = StreamsGroupMemberMetadataValue {
            rebalance_timeout_ms: -1,
            topology_epoch: NO_EPOCH,
            ..Default::default()
        };
        Self {
            metadata,
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: AssignedTasks::default(),
            pending_revocation: AssignedTasks::default(),
        }
    }
}

impl Member {
    /// Whether there is nothing left to do until the target changes.
    pub(crate) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    fn set_current(&mut self, current: &StreamsGroupCurrentMemberAssignmentValue) {
        let epoch = current.member_epoch;
        self.epoch = epoch;
        self.previous_epoch = current.previous_member_epoch;
        self.state = MemberState::from_code(current.state);
        self.assigned = AssignedTasks {
            active: active_of(&current.active_tasks, epoch),
            standby: passive_of(&current.standby_tasks),
            warmup: passive_of(&current.warmup_tasks),
        };
        self.pending_revocation = AssignedTasks {
            active: active_of(&current.active_tasks_pending_revocation, epoch),
            standby: passive_of(&current.standby_tasks_pending_revocation),
            warmup: passive_of(&current.warmup_tasks_pending_revocation),
        };
    }

    fn forget_current(&mut self) {
        self.epoch = LEAVE_EPOCH;
        self.previous_epoch = LEAVE_EPOCH;
        self.state = MemberState::Stable;
        self.assigned = AssignedTasks::default();
        self.pending_revocation = AssignedTasks::default();
    }

    /// What the member says of itself, in bytes.
    pub(crate) fn metadata_bytes(&self) -> usize {
        metadata_bytes(&self.metadata)
    }
}

pub(crate) fn metadata_bytes(m: &StreamsGroupMemberMetadataValue) -> usize {
    let tags: usize = m.client_tags.iter().map(|t| t.key.len() + t.value.len()).sum();
    let endpoint = m.user_endpoint.as_ref().map_or(0, |e| e.host.len());
    let rack = m.rack_id.as_ref().map_or(0, String::len);
    m.client_id.len() + m.client_host.len() + m.process_id.len() + rack + endpoint + tags
}

/// As in the list of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    Empty,
    /// The topics that the topology needs are not there, or do not fit.
    NotReady,
    Assigning,
    Reconciling,
    Stable,
}

impl GroupState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::NotReady => "NotReady",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// What is in memory alone. A restart begins it anew.
#[derive(Debug, Default)]
pub(crate) struct Soft {
    pub(crate) timeouts: Timeouts,
    /// The topology with the numbers of partitions, as of the last look at the cluster's topics.
    pub(crate) configured: Option<Arc<ConfiguredTopology>>,
    /// The hash of the topics and the epoch of the topology from which `configured` was made. The log may have others: a
    /// step that failed leaves its look at the topics behind.
    pub(crate) configured_from: (i64, i32),
    /// Nothing about the group's topics changed since `configured`.
    pub(crate) is_fresh: bool,
    /// Until when a group that was empty waits for more members before its first assignment, ms.
    pub(crate) initial_delay_until_ms: Option<i64>,
    /// Who asked for the whole application to stop.
    pub(crate) shutdown_by: Option<Arc<str>>,
    /// Ascends when what runs behind user endpoints changes.
    pub(crate) endpoint_epoch: i32,
}

#[derive(Debug)]
pub(crate) struct StreamsGroup {
    pub(crate) id: Arc<str>,
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
    /// The topology whose topics were last found to be there and to fit; -1: they were not.
    pub(crate) validated_topology_epoch: i32,
    pub(crate) last_assignment_configs: BTreeMap<String, String>,
    pub(crate) topology: Option<Arc<Topology>>,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    pub(crate) assignment_epoch: i32,
    /// When the target was computed, ms; 0: never.
    pub(crate) assignment_ms: i64,
    pub(crate) target: BTreeMap<Arc<str>, Tasks>,
}

impl StreamsGroup {
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            validated_topology_epoch: 0,
            last_assignment_configs: BTreeMap::new(),
            topology: None,
            members: BTreeMap::new(),
            assignment_epoch: FIRST_EPOCH,
            assignment_ms: 0,
            target: BTreeMap::new(),
        }
    }

    /// What a record says becomes so; a tombstone of the group itself is the caller's.
    pub(crate) fn apply(&mut self, body: Body) {
        match body {
            Body::Metadata(Some(value)) => self.set_metadata(value),
            Body::Metadata(None) => {}
            Body::Topology(value) => {
                self.topology = value.map(|value| Arc::new(Topology::from_record(&value)));
            }
            Body::Member(id, Some(value)) => self.members.entry(id).or_default().metadata = value,
            Body::Member(id, None) => {
                self.members.remove(&id);
            }
            Body::TargetMetadata(value) => {
                self.assignment_epoch = value.as_ref().map_or(NO_EPOCH, |v| v.assignment_epoch);
                self.assignment_ms = value.map_or(0, |v| v.assignment_timestamp);
            }
            Body::TargetMember(id, Some(value)) => {
                self.target.insert(id, target_of(&value));
            }
            Body::TargetMember(id, None) => {
                self.target.remove(&id);
            }
            Body::Current(id, Some(value)) => self.members.entry(id).or_default().set_current(&value),
            Body::Current(id, None) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.forget_current();
                }
            }
        }
    }

    fn set_metadata(&mut self, value: StreamsGroupMetadataValue) {
        self.epoch = value.epoch;
        self.metadata_hash = value.metadata_hash;
        self.validated_topology_epoch = value.validated_topology_epoch;
        let configs = value.last_assignment_configs.unwrap_or_default();
        self.last_assignment_configs = configs.into_iter().map(|config| (config.key, config.value)).collect();
    }

    pub(crate) fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.topology.as_ref().is_none_or(|t| t.epoch != self.validated_topology_epoch) {
            GroupState::NotReady
        } else if self.epoch > self.assignment_epoch {
            GroupState::Assigning
        } else if self.members.values().all(|m| m.is_reconciled_to(self.assignment_epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// The records without which the member is gone, in Kafka's order.
    pub(crate) fn removal_of(id: &Arc<str>) -> [Body; 3] {
        [Body::Current(id.clone(), None), Body::TargetMember(id.clone(), None), Body::Member(id.clone(), None)]
    }
}

impl AnyGroup for StreamsGroup {
    fn kind(&self) -> GroupKind {
        GroupKind::Streams
    }

    fn state_name(&self) -> &'static str {
        self.state().name()
    }

    fn protocol_type(&self) -> &str {
        GroupKind::Streams.name()
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        !self.members.is_empty() && self.topology.as_ref().is_some_and(|t| t.reader_of(topic).is_some())
    }

    fn validate_offset_commit(&self, committer: &Committer<'_>) -> Result<CommitScope, ErrorCode> {
        let Committer { member_id, instance_id, epoch, transactional, api_version } = *committer;
        // An administrator, as long as nobody else is there.
        if epoch < 0 && self.members.is_empty() {
            return Ok(CommitScope::Everything);
        }
        if transactional && epoch == -1 && member_id.is_empty() && instance_id.is_none() {
            return Ok(CommitScope::Everything);
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !transactional && api_version < COMMIT_EPOCH_FROM {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == member.epoch {
            Ok(CommitScope::Everything)
        } else if epoch > member.epoch {
            Err(ErrorCode::StaleMemberEpoch)
        } else {
            Ok(CommitScope::ByAssignmentEpoch)
        }
    }

    fn assignment_epoch(&self, member_id: &str, topic: &str, _topic_id: Uuid, partition: i32) -> Option<i32> {
        let member = self.members.get(member_id)?;
        let subtopology = self.topology.as_ref()?.reader_of(topic)?;
        epoch_of(&member.assigned.active, subtopology, partition)
            .or_else(|| epoch_of(&member.pending_revocation.active, subtopology, partition))
    }

    fn validate_offset_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.members.get(id)).ok_or(ErrorCode::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    /// Topics that are read are refused one by one.
    fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn write_tombstones(&self, out: &mut Outbox) {
        let members = || self.members.keys().cloned();
        let bodies = members()
            .map(|id| Body::Current(id, None))
            .chain(members().map(|id| Body::TargetMember(id, None)))
            .chain([Body::TargetMetadata(None)])
            .chain(members().map(|id| Body::Member(id, None)))
            .chain([Body::Metadata(None), Body::Topology(None)]);
        for body in bodies {
            let record = GroupRecord { group: self.id.clone(), body };
            // Keys that were read or checked before can be written.
            if let Ok(encoded) = record.encode() {
                out.write(encoded, Change::Streams(record));
            }
        }
    }

    fn expiration(&self) -> Option<ExpirationCondition> {
        Some(ExpirationCondition::Commit)
    }
}
