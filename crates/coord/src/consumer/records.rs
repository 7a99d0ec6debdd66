//! The records of a consumer group: typed, as they are made and applied, and their bytes. Answers to Kafka's
//! `GroupCoordinatorRecordHelpers` (KIP-848).

use std::sync::Arc;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::codec::EncodeError;
use taccola_wire::messages::consumer_group_current_member_assignment_value::TopicPartitions;
use taccola_wire::messages::consumer_group_member_metadata_value::{ClassicMemberMetadata, ClassicProtocol};
use taccola_wire::messages::consumer_group_target_assignment_member_value::TopicPartition;
use taccola_wire::messages::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey, ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey, ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue,
};

use super::member::{ClassicMember, Current, MemberState, Subscription};
use crate::effects::CoordinatorRecord;
use crate::modern::assignment::{Assignment, EpochAssignment, normalized};
use crate::outbox::{Change, Outbox};
use crate::records::{encoded, tombstone};
use crate::replay::{ReplayError, decode_key, decode_value};

/// A record of a consumer group. `None` is a tombstone.
#[derive(Clone, Debug)]
pub(crate) struct GroupRecord {
    pub(crate) group: Arc<str>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Subscription {
        member: Arc<str>,
        value: Option<Arc<Subscription>>,
    },
    Epoch(Option<GroupEpoch>),
    /// Only read, and deleted when it is found: written before 4.1.
    PartitionMetadata {
        exists: bool,
    },
    TargetEpoch(Option<TargetEpoch>),
    Target {
        member: Arc<str>,
        value: Option<Arc<Assignment>>,
    },
    Current {
        member: Arc<str>,
        value: Option<Box<Current>>,
    },
    Regex {
        regex: Arc<str>,
        value: Option<Arc<ResolvedRegex>>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupEpoch {
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetEpoch {
    pub(crate) epoch: i32,
    /// When it was computed; 0 when the record does not say.
    pub(crate) timestamp_ms: i64,
}

/// The topics that a regular expression stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvedRegex {
    /// Ascending, each once.
    pub(crate) topics: Vec<Arc<str>>,
    /// Of the metadata in which the topics were looked up.
    pub(crate) version: i64,
    pub(crate) timestamp_ms: i64,
}

impl GroupRecord {
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// Whether a group that is not there begins with this record.
    pub(crate) fn makes_group(&self) -> bool {
        match &self.body {
            Body::Subscription { value, .. } => value.is_some(),
            Body::Epoch(value) => value.is_some(),
            Body::PartitionMetadata { exists } => *exists,
            Body::TargetEpoch(value) => value.is_some(),
            Body::Target { value, .. } => value.is_some(),
            Body::Current { value, .. } => value.is_some(),
            Body::Regex { value, .. } => value.is_some(),
        }
    }

    pub(crate) fn encode(&self) -> Result<CoordinatorRecord, EncodeError> {
        let group_id = self.group.to_string();
        match &self.body {
            Body::Subscription { member, value } => {
                let key = ConsumerGroupMemberMetadataKey { group_id, member_id: member.to_string() };
                record(ConsumerGroupMemberMetadataKey::API_KEY, &key, value.as_deref().map(subscription_value))
            }
            Body::Epoch(value) => record(
                ConsumerGroupMetadataKey::API_KEY,
                &ConsumerGroupMetadataKey { group_id },
                value.map(|v| ConsumerGroupMetadataValue { epoch: v.epoch, metadata_hash: v.metadata_hash }),
            ),
            Body::PartitionMetadata { .. } => {
                tombstone(ConsumerGroupPartitionMetadataKey::API_KEY, &ConsumerGroupPartitionMetadataKey { group_id })
            }
            Body::TargetEpoch(value) => record(
                ConsumerGroupTargetAssignmentMetadataKey::API_KEY,
                &ConsumerGroupTargetAssignmentMetadataKey { group_id },
                value.map(|v| ConsumerGroupTargetAssignmentMetadataValue {
                    assignment_epoch: v.epoch,
                    assignment_timestamp: v.timestamp_ms,
                }),
            ),
            Body::Target { member, value } => {
                let key = ConsumerGroupTargetAssignmentMemberKey { group_id, member_id: member.to_string() };
                record(ConsumerGroupTargetAssignmentMemberKey::API_KEY, &key, value.as_deref().map(target_value))
            }
            Body::Current { member, value } => {
                let key = ConsumerGroupCurrentMemberAssignmentKey { group_id, member_id: member.to_string() };
                record(ConsumerGroupCurrentMemberAssignmentKey::API_KEY, &key, value.as_deref().map(current_value))
            }
            Body::Regex { regex, value } => {
                let key = ConsumerGroupRegularExpressionKey { group_id, regular_expression: regex.to_string() };
                let value = value.as_deref().map(|v| ConsumerGroupRegularExpressionValue {
                    topics: v.topics.iter().map(|t| t.to_string()).collect(),
                    version: v.version,
                    timestamp: v.timestamp_ms,
                });
                record(ConsumerGroupRegularExpressionKey::API_KEY, &key, value)
            }
        }
    }

    /// `None`: the key is of no consumer group.
    pub(crate) fn decode(key_type: i16, key: Bytes, value: Option<&Bytes>) -> Result<Option<Self>, ReplayError> {
        let (group, body) = match key_type {
            ConsumerGroupMemberMetadataKey::API_KEY => {
                let key: ConsumerGroupMemberMetadataKey = decode_key(key_type, key)?;
                let value = value.map(|v| decode_value::<ConsumerGroupMemberMetadataValue>(key_type, v)).transpose()?;
                let value = value.map(|v| Arc::new(subscription_of(v)));
                (key.group_id, Body::Subscription { member: key.member_id.into(), value })
            }
            ConsumerGroupMetadataKey::API_KEY => {
                let key: ConsumerGroupMetadataKey = decode_key(key_type, key)?;
                let value = value.map(|v| decode_value::<ConsumerGroupMetadataValue>(key_type, v)).transpose()?;
                let value = value.map(|v| GroupEpoch { epoch: v.epoch, metadata_hash: v.metadata_hash });
                (key.group_id, Body::Epoch(value))
            }
            ConsumerGroupPartitionMetadataKey::API_KEY => {
                let key: ConsumerGroupPartitionMetadataKey = decode_key(key_type, key)?;
                (key.group_id, Body::PartitionMetadata { exists: value.is_some() })
            }
            ConsumerGroupTargetAssignmentMetadataKey::API_KEY => {
                let key: ConsumerGroupTargetAssignmentMetadataKey = decode_key(key_type, key)?;
                let value = value
                    .map(|v| decode_value::<ConsumerGroupTargetAssignmentMetadataValue>(key_type, v))
                    .transpose()?;
                let value =
                    value.map(|v| TargetEpoch { epoch: v.assignment_epoch, timestamp_ms: v.assignment_timestamp });
                (key.group_id, Body::TargetEpoch(value))
            }
            ConsumerGroupTargetAssignmentMemberKey::API_KEY => {
                let key: ConsumerGroupTargetAssignmentMemberKey = decode_key(key_type, key)?;
                let value =
                    value.map(|v| decode_value::<ConsumerGroupTargetAssignmentMemberValue>(key_type, v)).transpose()?;
                let value = value
                    .map(|v| Arc::new(normalized(v.topic_partitions.into_iter().map(|t| (t.topic_id, t.partitions)))));
                (key.group_id, Body::Target { member: key.member_id.into(), value })
            }
            ConsumerGroupCurrentMemberAssignmentKey::API_KEY => {
                let key: ConsumerGroupCurrentMemberAssignmentKey = decode_key(key_type, key)?;
                let value = value
                    .map(|v| decode_value::<ConsumerGroupCurrentMemberAssignmentValue>(key_type, v))
                    .transpose()?;
                (
                    key.group_id,
                    Body::Current { member: key.member_id.into(), value: value.map(|v| Box::new(current_of(v))) },
                )
            }
            ConsumerGroupRegularExpressionKey::API_KEY => {
                let key: ConsumerGroupRegularExpressionKey = decode_key(key_type, key)?;
                let value =
                    value.map(|v| decode_value::<ConsumerGroupRegularExpressionValue>(key_type, v)).transpose()?;
                let value = value.map(|v| {
                    let mut topics: Vec<Arc<str>> = v.topics.into_iter().map(Arc::from).collect();
                    topics.sort_unstable();
                    topics.dedup();
                    Arc::new(ResolvedRegex { topics, version: v.version, timestamp_ms: v.timestamp })
                });
                (key.group_id, Body::Regex { regex: key.regular_expression.into(), value })
            }
            _ => return Ok(None),
        };
        Ok(Some(Self { group: group.into(), body }))
    }
}

/// All values of consumer groups have version 0.
fn record<K: taccola_wire::codec::Message, V: taccola_wire::codec::Message>(
    key_type: i16,
    key: &K,
    value: Option<V>,
) -> Result<CoordinatorRecord, EncodeError> {
    match value {
        Some(value) => encoded(key_type, key, 0, &value),
        None => tombstone(key_type, key),
    }
}

fn subscription_value(s: &Subscription) -> ConsumerGroupMemberMetadataValue {
    let classic = s.classic.as_ref().map(|c| ClassicMemberMetadata {
        session_timeout_ms: c.session_timeout_ms,
        supported_protocols: c
            .protocols
            .iter()
            .map(|(name, metadata)| ClassicProtocol { name: name.clone(), metadata: metadata.clone() })
            .collect(),
    });
    ConsumerGroupMemberMetadataValue {
        instance_id: s.instance_id.as_deref().map(str::to_owned),
        rack_id: s.rack_id.clone(),
        client_id: s.client_id.clone(),
        client_host: s.client_host.clone(),
        subscribed_topic_names: s.topics.iter().map(|t| t.to_string()).collect(),
        subscribed_topic_regex: Some(s.regex.to_string()),
        rebalance_timeout_ms: s.rebalance_timeout_ms,
        server_assignor: s.server_assignor.clone(),
        classic_member_metadata: classic,
    }
}

fn subscription_of(v: ConsumerGroupMemberMetadataValue) -> Subscription {
    let mut topics: Vec<Arc<str>> = v.subscribed_topic_names.into_iter().map(Arc::from).collect();
    topics.sort_unstable();
    topics.dedup();
    let classic = v.classic_member_metadata.map(|c| ClassicMember {
        session_timeout_ms: c.session_timeout_ms,
        // Copied: a slice would keep the whole batch in memory.
        protocols: c.supported_protocols.into_iter().map(|p| (p.name, Bytes::copy_from_slice(&p.metadata))).collect(),
    });
    Subscription {
        instance_id: v.instance_id.map(Arc::from),
        rack_id: v.rack_id,
        client_id: v.client_id,
        client_host: v.client_host,
        topics,
        regex: v.subscribed_topic_regex.unwrap_or_default().into(),
        rebalance_timeout_ms: v.rebalance_timeout_ms,
        server_assignor: v.server_assignor,
        classic,
    }
}

fn target_value(assignment: &Assignment) -> ConsumerGroupTargetAssignmentMemberValue {
    let topic_partitions =
        assignment.iter().map(|(id, p)| TopicPartition { topic_id: *id, partitions: p.clone() }).collect();
    ConsumerGroupTargetAssignmentMemberValue { topic_partitions }
}

fn current_value(current: &Current) -> ConsumerGroupCurrentMemberAssignmentValue {
    ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: current.state.code(),
        assigned_partitions: epoch_rows(&current.assigned),
        partitions_pending_revocation: epoch_rows(&current.pending_revocation),
    }
}

fn epoch_rows(assignment: &EpochAssignment) -> Vec<TopicPartitions> {
    let row = |(id, partitions): (&Uuid, &std::collections::BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
    };
    assignment.iter().map(row).collect()
}

fn current_of(v: ConsumerGroupCurrentMemberAssignmentValue) -> Current {
    // Before 4.3 the record did not say at which epoch a partition was given: the member's own is the latest that it
    // can have been, and so fences most.
    let epoch = v.member_epoch.max(0);
    let assignment = |rows: Vec<TopicPartitions>| {
        let mut assignment = EpochAssignment::new();
        for row in rows.into_iter().filter(|row| !row.partitions.is_empty()) {
            let epochs = row.assignment_epochs.unwrap_or_default();
            let partitions = assignment.entry(row.topic_id).or_default();
            for (at, partition) in row.partitions.iter().enumerate() {
                partitions.insert(*partition, epochs.get(at).copied().unwrap_or(epoch));
            }
        }
        assignment
    };
    Current {
        epoch: v.member_epoch,
        previous_epoch: v.previous_member_epoch,
        state: MemberState::from_code(v.state),
        assigned: assignment(v.assigned_partitions),
        pending_revocation: assignment(v.partitions_pending_revocation),
    }
}

/// Writes a record of the group.
pub(crate) fn write(out: &mut Outbox, group: &Arc<str>, body: Body) -> Result<(), EncodeError> {
    let record = GroupRecord { group: group.clone(), body };
    out.write(record.encode()?, Change::Consumer(record));
    Ok(())
}
