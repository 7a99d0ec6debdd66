//! The records of share groups in `__consumer_offsets`, typed: made by the handlers, or decoded at loading; either way
//! one function applies them. Answers to Kafka's `GroupCoordinatorRecordHelpers.newShareGroup*`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::codec::EncodeError;
use taccola_wire::messages::share_group_current_member_assignment_value::TopicPartitions;
use taccola_wire::messages::share_group_state_partition_metadata_value::{TopicInfo, TopicPartitionsInfo};
use taccola_wire::messages::share_group_target_assignment_member_value::TopicPartition;
use taccola_wire::messages::{
    ShareGroupCurrentMemberAssignmentKey, ShareGroupCurrentMemberAssignmentValue, ShareGroupMemberMetadataKey,
    ShareGroupMemberMetadataValue, ShareGroupMetadataKey, ShareGroupMetadataValue, ShareGroupStatePartitionMetadataKey,
    ShareGroupStatePartitionMetadataValue, ShareGroupTargetAssignmentMemberKey, ShareGroupTargetAssignmentMemberValue,
    ShareGroupTargetAssignmentMetadataKey, ShareGroupTargetAssignmentMetadataValue,
};

use super::{Assignment, InitTopic, StatePartitions};
use crate::effects::CoordinatorRecord;
use crate::records::prefixed;
use crate::replay::{ReplayError, decode_key, decode_value};

/// The only version of the values.
const VALUE_VERSION: i16 = 0;
/// The only state that a share group's member has in records.
const STATE_STABLE: i8 = 0;

/// A record of a share group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupRecord {
    pub(crate) group: Arc<str>,
    pub(crate) body: Body,
}

/// What it says; `None` is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Epoch(Option<Epoch>),
    Member(Arc<str>, Option<Subscription>),
    TargetMetadata(Option<TargetMetadata>),
    TargetMember(Arc<str>, Option<Assignment>),
    Current(Arc<str>, Option<Current>),
    StatePartitions(Option<StatePartitions>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) rack_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) topics: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TargetMetadata {
    pub(crate) epoch: i32,
    /// When it was computed, ms; 0: not known.
    pub(crate) timestamp_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) assigned: Assignment,
}

/// The types of share groups' keys, both ends inclusive.
pub(crate) const KEY_TYPE_FIRST: i16 = ShareGroupMemberMetadataKey::API_KEY;
pub(crate) const KEY_TYPE_LAST: i16 = ShareGroupStatePartitionMetadataKey::API_KEY;

impl Body {
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Body::Epoch(value) => value.is_none(),
            Body::Member(_, value) => value.is_none(),
            Body::TargetMetadata(value) => value.is_none(),
            Body::TargetMember(_, value) => value.is_none(),
            Body::Current(_, value) => value.is_none(),
            Body::StatePartitions(value) => value.is_none(),
        }
    }
}

impl GroupRecord {
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(crate) fn encode(&self) -> Result<CoordinatorRecord, EncodeError> {
        let group_id = self.group.to_string();
        let (key, value) = match &self.body {
            Body::Epoch(epoch) => {
                let value = epoch.map(|e| ShareGroupMetadataValue { epoch: e.epoch, metadata_hash: e.metadata_hash });
                let key = prefixed(ShareGroupMetadataKey::API_KEY, &ShareGroupMetadataKey { group_id }, 0)?;
                (key, value.map(|v| prefixed(VALUE_VERSION, &v, VALUE_VERSION)).transpose()?)
            }
            Body::Member(member_id, subscription) => {
                let key = ShareGroupMemberMetadataKey { group_id, member_id: member_id.to_string() };
                let value = subscription.as_ref().map(|s| ShareGroupMemberMetadataValue {
                    rack_id: s.rack_id.clone(),
                    client_id: s.client_id.clone(),
                    client_host: s.client_host.clone(),
                    subscribed_topic_names: s.topics.iter().map(ToString::to_string).collect(),
                });
                let key = prefixed(ShareGroupMemberMetadataKey::API_KEY, &key, 0)?;
                (key, value.map(|v| prefixed(VALUE_VERSION, &v, VALUE_VERSION)).transpose()?)
            }
            Body::TargetMetadata(metadata) => {
                let value = metadata.map(|m| ShareGroupTargetAssignmentMetadataValue {
                    assignment_epoch: m.epoch,
                    assignment_timestamp: m.timestamp_ms,
                });
                let key = ShareGroupTargetAssignmentMetadataKey { group_id };
                let key = prefixed(ShareGroupTargetAssignmentMetadataKey::API_KEY, &key, 0)?;
                (key, value.map(|v| prefixed(VALUE_VERSION, &v, VALUE_VERSION)).transpose()?)
            }
            Body::TargetMember(member_id, assignment) => {
                let topic = |(topic_id, partitions): (&Uuid, &BTreeSet<i32>)| TopicPartition {
                    topic_id: *topic_id,
                    partitions: partitions.iter().copied().collect(),
                };
                let value = assignment.as_ref().map(|assignment| ShareGroupTargetAssignmentMemberValue {
                    topic_partitions: assignment.iter().map(topic).collect(),
                });
                let key = ShareGroupTargetAssignmentMemberKey { group_id, member_id: member_id.to_string() };
                let key = prefixed(ShareGroupTargetAssignmentMemberKey::API_KEY, &key, 0)?;
                (key, value.map(|v| prefixed(VALUE_VERSION, &v, VALUE_VERSION)).transpose()?)
            }
            Body::Current(member_id, current) => {
                let topic = |(topic_id, partitions): (&Uuid, &BTreeSet<i32>)| TopicPartitions {
                    topic_id: *topic_id,
                    partitions: partitions.iter().copied().collect(),
                };
                let value = current.as_ref().map(|c| ShareGroupCurrentMemberAssignmentValue {
                    member_epoch: c.epoch,
                    previous_member_epoch: c.previous_epoch,
                    state: STATE_STABLE,
                    assigned_partitions: c.assigned.iter().map(topic).collect(),
                });
                let key = ShareGroupCurrentMemberAssignmentKey { group_id, member_id: member_id.to_string() };
                let key = prefixed(ShareGroupCurrentMemberAssignmentKey::API_KEY, &key, 0)?;
                (key, value.map(|v| prefixed(VALUE_VERSION, &v, VALUE_VERSION)).transpose()?)
            }
            Body::StatePartitions(partitions) => {
                let key = ShareGroupStatePartitionMetadataKey { group_id };
                let key = prefixed(ShareGroupStatePartitionMetadataKey::API_KEY, &key, 0)?;
                let value = partitions.as_ref().map(state_partitions_value);
                (key, value.map(|v| prefixed(VALUE_VERSION, &v, VALUE_VERSION)).transpose()?)
            }
        };
        Ok(CoordinatorRecord { key, value })
    }
}

fn state_partitions_value(partitions: &StatePartitions) -> ShareGroupStatePartitionMetadataValue {
    let topic = |(topic_id, topic): (&Uuid, &InitTopic)| TopicPartitionsInfo {
        topic_id: *topic_id,
        topic_name: topic.name.to_string(),
        partitions: topic.partitions.iter().copied().collect(),
    };
    let deleting =
        |(topic_id, name): (&Uuid, &Arc<str>)| TopicInfo { topic_id: *topic_id, topic_name: name.to_string() };
    ShareGroupStatePartitionMetadataValue {
        initializing_topics: partitions.initializing.iter().map(topic).collect(),
        initialized_topics: partitions.initialized.iter().map(topic).collect(),
        deleting_topics: partitions.deleting.iter().map(deleting).collect(),
    }
}

/// Understands a record by its key's type; `None` for types that are not of share groups.
pub(crate) fn decode(key_type: i16, body: Bytes, value: Option<&Bytes>) -> Result<Option<GroupRecord>, ReplayError> {
    let (group, body): (String, Body) = match key_type {
        ShareGroupMetadataKey::API_KEY => {
            let key: ShareGroupMetadataKey = decode_key(key_type, body)?;
            let value: Option<ShareGroupMetadataValue> = value.map(|v| decode_value(key_type, v)).transpose()?;
            let epoch = value.map(|v| Epoch { epoch: v.epoch, metadata_hash: v.metadata_hash });
            (key.group_id, Body::Epoch(epoch))
        }
        ShareGroupMemberMetadataKey::API_KEY => {
            let key: ShareGroupMemberMetadataKey = decode_key(key_type, body)?;
            let value: Option<ShareGroupMemberMetadataValue> = value.map(|v| decode_value(key_type, v)).transpose()?;
            let subscription = value.map(|v| Subscription {
                rack_id: v.rack_id,
                client_id: v.client_id,
                client_host: v.client_host,
                topics: v.subscribed_topic_names.into_iter().map(Arc::from).collect(),
            });
            (key.group_id, Body::Member(key.member_id.into(), subscription))
        }
        ShareGroupTargetAssignmentMetadataKey::API_KEY => {
            let key: ShareGroupTargetAssignmentMetadataKey = decode_key(key_type, body)?;
            let value: Option<ShareGroupTargetAssignmentMetadataValue> =
                value.map(|v| decode_value(key_type, v)).transpose()?;
            let metadata =
                value.map(|v| TargetMetadata { epoch: v.assignment_epoch, timestamp_ms: v.assignment_timestamp });
            (key.group_id, Body::TargetMetadata(metadata))
        }
        ShareGroupTargetAssignmentMemberKey::API_KEY => {
            let key: ShareGroupTargetAssignmentMemberKey = decode_key(key_type, body)?;
            let value: Option<ShareGroupTargetAssignmentMemberValue> =
                value.map(|v| decode_value(key_type, v)).transpose()?;
            let topics = value.map(|v| assignment(v.topic_partitions.into_iter().map(|t| (t.topic_id, t.partitions))));
            (key.group_id, Body::TargetMember(key.member_id.into(), topics))
        }
        ShareGroupCurrentMemberAssignmentKey::API_KEY => {
            let key: ShareGroupCurrentMemberAssignmentKey = decode_key(key_type, body)?;
            let value: Option<ShareGroupCurrentMemberAssignmentValue> =
                value.map(|v| decode_value(key_type, v)).transpose()?;
            let current = value.map(|v| Current {
                epoch: v.member_epoch,
                previous_epoch: v.previous_member_epoch,
                assigned: assignment(v.assigned_partitions.into_iter().map(|t| (t.topic_id, t.partitions))),
            });
            (key.group_id, Body::Current(key.member_id.into(), current))
        }
        ShareGroupStatePartitionMetadataKey::API_KEY => {
            let key: ShareGroupStatePartitionMetadataKey = decode_key(key_type, body)?;
            let value: Option<ShareGroupStatePartitionMetadataValue> =
                value.map(|v| decode_value(key_type, v)).transpose()?;
            (key.group_id, Body::StatePartitions(value.map(state_partitions)))
        }
        _ => return Ok(None),
    };
    Ok(Some(GroupRecord { group: group.into(), body }))
}

fn assignment(topics: impl Iterator<Item = (Uuid, Vec<i32>)>) -> Assignment {
    let mut assignment = Assignment::new();
    for (topic_id, partitions) in topics {
        assignment.entry(topic_id).or_default().extend(partitions);
    }
    assignment
}

fn state_partitions(value: ShareGroupStatePartitionMetadataValue) -> StatePartitions {
    // Since when they are being initialized is not in the record: long ago, so that it is tried again.
    let topics = |topics: Vec<TopicPartitionsInfo>| -> BTreeMap<Uuid, InitTopic> {
        let topic = |t: TopicPartitionsInfo| {
            let partitions = t.partitions.into_iter().collect();
            (t.topic_id, InitTopic { name: t.topic_name.into(), partitions, since_ms: 0 })
        };
        topics.into_iter().map(topic).collect()
    };
    StatePartitions {
        initializing: topics(value.initializing_topics),
        initialized: topics(value.initialized_topics),
        deleting: value.deleting_topics.into_iter().map(|t| (t.topic_id, t.topic_name.into())).collect(),
    }
}
