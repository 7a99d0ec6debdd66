//! The records of a streams group, typed as in the log: what a handler writes, replay reads and a group becomes. Answers to
//! Kafka's `StreamsCoordinatorRecordHelpers`.

use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::codec::{EncodeError, Message};
use taccola_wire::messages::streams_group_current_member_assignment_value as current;
use taccola_wire::messages::streams_group_target_assignment_member_value as target;
use taccola_wire::messages::{
    StreamsGroupCurrentMemberAssignmentKey, StreamsGroupCurrentMemberAssignmentValue, StreamsGroupMemberMetadataKey,
    StreamsGroupMemberMetadataValue, StreamsGroupMetadataKey, StreamsGroupMetadataValue,
    StreamsGroupTargetAssignmentMemberKey, StreamsGroupTargetAssignmentMemberValue,
    StreamsGroupTargetAssignmentMetadataKey, StreamsGroupTargetAssignmentMetadataValue, StreamsGroupTopologyKey,
    StreamsGroupTopologyValue,
};

use super::group::Member;
use super::tasks::{ActiveTasks, TaskSet, Tasks, insert, insert_active};
use crate::effects::CoordinatorRecord;
use crate::records::prefixed;
use crate::replay::{ReplayError, decode_key, decode_value};

/// All values have one version.
const VERSION: i16 = 0;

/// The key types of streams groups, inclusive; they have no gap.
pub(crate) const KEY_TYPE_FIRST: i16 = StreamsGroupMetadataKey::API_KEY;
pub(crate) const KEY_TYPE_LAST: i16 = StreamsGroupTopologyKey::API_KEY;

/// One record of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupRecord {
    pub(crate) group: Arc<str>,
    pub(crate) body: Body,
}

/// What a record says; `None` is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Metadata(Option<StreamsGroupMetadataValue>),
    Topology(Option<StreamsGroupTopologyValue>),
    Member(Arc<str>, Option<StreamsGroupMemberMetadataValue>),
    TargetMetadata(Option<StreamsGroupTargetAssignmentMetadataValue>),
    TargetMember(Arc<str>, Option<StreamsGroupTargetAssignmentMemberValue>),
    Current(Arc<str>, Option<StreamsGroupCurrentMemberAssignmentValue>),
}

impl Body {
    pub(crate) fn is_tombstone(&self) -> bool {
        matches!(
            self,
            Body::Metadata(None)
                | Body::Topology(None)
                | Body::Member(_, None)
                | Body::TargetMetadata(None)
                | Body::TargetMember(_, None)
                | Body::Current(_, None)
        )
    }
}

fn record<K: Message, V: Message>(key_type: i16, key: &K, value: Option<&V>) -> Result<CoordinatorRecord, EncodeError> {
    let value = value.map(|value| prefixed(VERSION, value, VERSION)).transpose()?;
    Ok(CoordinatorRecord { key: prefixed(key_type, key, 0)?, value })
}

impl GroupRecord {
    pub(crate) fn encode(&self) -> Result<CoordinatorRecord, EncodeError> {
        let group_id = self.group.to_string();
        match &self.body {
            Body::Metadata(value) => {
                record(StreamsGroupMetadataKey::API_KEY, &StreamsGroupMetadataKey { group_id }, value.as_ref())
            }
            Body::Topology(value) => {
                record(StreamsGroupTopologyKey::API_KEY, &StreamsGroupTopologyKey { group_id }, value.as_ref())
            }
            Body::TargetMetadata(value) => {
                let key = StreamsGroupTargetAssignmentMetadataKey { group_id };
                record(StreamsGroupTargetAssignmentMetadataKey::API_KEY, &key, value.as_ref())
            }
            Body::Member(member, value) => {
                let key = StreamsGroupMemberMetadataKey { group_id, member_id: member.to_string() };
                record(StreamsGroupMemberMetadataKey::API_KEY, &key, value.as_ref())
            }
            Body::TargetMember(member, value) => {
                let key = StreamsGroupTargetAssignmentMemberKey { group_id, member_id: member.to_string() };
                record(StreamsGroupTargetAssignmentMemberKey::API_KEY, &key, value.as_ref())
            }
            Body::Current(member, value) => {
                let key = StreamsGroupCurrentMemberAssignmentKey { group_id, member_id: member.to_string() };
                record(StreamsGroupCurrentMemberAssignmentKey::API_KEY, &key, value.as_ref())
            }
        }
    }
}

fn value<M: Message>(key_type: i16, value: Option<&Bytes>) -> Result<Option<M>, ReplayError> {
    value.map(|value| decode_value(key_type, value)).transpose()
}

/// `key` is what follows the type. `None`: not a record of a streams group.
pub(crate) fn decode(key_type: i16, key: Bytes, bytes: Option<&Bytes>) -> Result<Option<GroupRecord>, ReplayError> {
    let (group, body) = match key_type {
        StreamsGroupMetadataKey::API_KEY => {
            let key: StreamsGroupMetadataKey = decode_key(key_type, key)?;
            (key.group_id, Body::Metadata(value(key_type, bytes)?))
        }
        StreamsGroupTopologyKey::API_KEY => {
            let key: StreamsGroupTopologyKey = decode_key(key_type, key)?;
            (key.group_id, Body::Topology(value(key_type, bytes)?))
        }
        StreamsGroupTargetAssignmentMetadataKey::API_KEY => {
            let key: StreamsGroupTargetAssignmentMetadataKey = decode_key(key_type, key)?;
            (key.group_id, Body::TargetMetadata(value(key_type, bytes)?))
        }
        StreamsGroupMemberMetadataKey::API_KEY => {
            let key: StreamsGroupMemberMetadataKey = decode_key(key_type, key)?;
            (key.group_id, Body::Member(key.member_id.into(), value(key_type, bytes)?))
        }
        StreamsGroupTargetAssignmentMemberKey::API_KEY => {
            let key: StreamsGroupTargetAssignmentMemberKey = decode_key(key_type, key)?;
            (key.group_id, Body::TargetMember(key.member_id.into(), value(key_type, bytes)?))
        }
        StreamsGroupCurrentMemberAssignmentKey::API_KEY => {
            let key: StreamsGroupCurrentMemberAssignmentKey = decode_key(key_type, key)?;
            (key.group_id, Body::Current(key.member_id.into(), value(key_type, bytes)?))
        }
        _ => return Ok(None),
    };
    Ok(Some(GroupRecord { group: group.into(), body }))
}

/// The record of what a member should run.
pub(crate) fn target_value(tasks: &Tasks) -> StreamsGroupTargetAssignmentMemberValue {
    let ids = |set: &TaskSet| {
        set.iter()
            .map(|(subtopology, partitions)| target::TaskIds {
                subtopology_id: subtopology.clone(),
                partitions: partitions.iter().copied().collect(),
            })
            .collect()
    };
    StreamsGroupTargetAssignmentMemberValue {
        active_tasks: ids(&tasks.active),
        standby_tasks: ids(&tasks.standby),
        warmup_tasks: ids(&tasks.warmup),
    }
}

pub(crate) fn target_of(value: &StreamsGroupTargetAssignmentMemberValue) -> Tasks {
    let set = |ids: &[target::TaskIds]| {
        let mut set = TaskSet::new();
        for id in ids {
            id.partitions.iter().for_each(|partition| insert(&mut set, &id.subtopology_id, *partition));
        }
        set
    };
    Tasks { active: set(&value.active_tasks), standby: set(&value.standby_tasks), warmup: set(&value.warmup_tasks) }
}

/// The record of what a member runs.
pub(crate) fn current_value(member: &Member) -> StreamsGroupCurrentMemberAssignmentValue {
    StreamsGroupCurrentMemberAssignmentValue {
        member_epoch: member.epoch,
        previous_member_epoch: member.previous_epoch,
        state: member.state.code(),
        active_tasks: active_ids(&member.assigned.active),
        standby_tasks: passive_ids(&member.assigned.standby),
        warmup_tasks: passive_ids(&member.assigned.warmup),
        active_tasks_pending_revocation: active_ids(&member.pending_revocation.active),
        standby_tasks_pending_revocation: passive_ids(&member.pending_revocation.standby),
        warmup_tasks_pending_revocation: passive_ids(&member.pending_revocation.warmup),
    }
}

fn active_ids(set: &ActiveTasks) -> Vec<current::TaskIds> {
    let ids = set.iter().map(|(subtopology, partitions)| current::TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
    });
    ids.collect()
}

fn passive_ids(set: &TaskSet) -> Vec<current::TaskIds> {
    let ids = set.iter().map(|(subtopology, partitions)| current::TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.iter().copied().collect(),
        // As Kafka leaves it: empty, so that it is not written.
        assignment_epochs: Some(Vec::new()),
    });
    ids.collect()
}

/// Tasks without an epoch, as older versions wrote them, count as assigned at the member's epoch.
pub(crate) fn active_of(ids: &[current::TaskIds], member_epoch: i32) -> ActiveTasks {
    let mut set = ActiveTasks::new();
    for id in ids {
        let epochs = id.assignment_epochs.as_deref().unwrap_or_default();
        for (at, partition) in id.partitions.iter().enumerate() {
            let epoch = epochs.get(at).copied().unwrap_or(member_epoch);
            insert_active(&mut set, &id.subtopology_id, *partition, epoch);
        }
    }
    set
}

pub(crate) fn passive_of(ids: &[current::TaskIds]) -> TaskSet {
    let mut set = TaskSet::new();
    for id in ids {
        id.partitions.iter().for_each(|partition| insert(&mut set, &id.subtopology_id, *partition));
    }
    set
}
