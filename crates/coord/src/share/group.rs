//! One share group as its records tell it, and what is remembered beside them. Answers to Kafka's `ShareGroup` and
//! `ShareGroupMember`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;

use super::records::{Body, GroupRecord, Subscription, TargetMetadata};
use super::{Assignment, InitTopic, StatePartitions};
use crate::group::{AnyGroup, CommitScope, Committer, ExpirationCondition, GroupKind};
use crate::outbox::{Change, Outbox};

/// The epoch of a group before its first record.
pub(super) const FIRST_EPOCH: i32 = 1;
/// The epoch of a member whose current assignment was forgotten.
const EPOCH_LEFT: i32 = -1;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Member {
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) subscription: Subscription,
    pub(crate) assigned: Assignment,
}

#[derive(Debug)]
pub(crate) struct ShareGroup {
    pub(crate) id: Arc<str>,
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    pub(crate) target_metadata: TargetMetadata,
    pub(crate) target: BTreeMap<Arc<str>, Assignment>,
    pub(crate) state_partitions: Option<StatePartitions>,
    /// When each member's session ends, ms. In memory alone.
    pub(crate) sessions: BTreeMap<Arc<str>, i64>,
    /// The group epoch at which the subscribed topics were last compared with the cluster's; `None`: something about
    /// them changed since. In memory alone.
    pub(crate) refreshed_at_epoch: Option<i32>,
}

impl ShareGroup {
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            members: BTreeMap::new(),
            target_metadata: TargetMetadata { epoch: FIRST_EPOCH, timestamp_ms: 0 },
            target: BTreeMap::new(),
            state_partitions: None,
            sessions: BTreeMap::new(),
            refreshed_at_epoch: None,
        }
    }

    /// What a record says becomes so; a tombstone of the group itself is the caller's.
    pub(crate) fn apply(&mut self, now_ms: i64, body: Body) {
        match body {
            Body::Epoch(Some(epoch)) => {
                self.epoch = epoch.epoch;
                self.metadata_hash = epoch.metadata_hash;
            }
            Body::Epoch(None) => {}
            Body::Member(id, Some(subscription)) => self.members.entry(id).or_default().subscription = subscription,
            Body::Member(id, None) => {
                self.members.remove(&id);
                self.sessions.remove(&id);
            }
            Body::TargetMetadata(metadata) => {
                self.target_metadata = metadata.unwrap_or(TargetMetadata { epoch: EPOCH_LEFT, timestamp_ms: 0 });
            }
            Body::TargetMember(id, Some(assignment)) => {
                self.target.insert(id, assignment);
            }
            Body::TargetMember(id, None) => {
                self.target.remove(&id);
            }
            Body::Current(id, Some(current)) => {
                let member = self.members.entry(id).or_default();
                member.epoch = current.epoch;
                member.previous_epoch = current.previous_epoch;
                member.assigned = current.assigned;
            }
            Body::Current(id, None) => {
                if let Some(member) = self.members.get_mut(&id) {
                    (member.epoch, member.previous_epoch) = (EPOCH_LEFT, EPOCH_LEFT);
                    member.assigned.clear();
                }
            }
            Body::StatePartitions(partitions) => {
                self.state_partitions = partitions.map(|mut partitions| {
                    for topic in partitions.initializing.values_mut().filter(|topic| topic.since_ms > 0) {
                        topic.since_ms = topic.since_ms.min(now_ms);
                    }
                    partitions
                });
            }
        }
    }

    /// Names of all subscribed topics.
    pub(crate) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.members.values().flat_map(|member| &member.subscription.topics).cloned().collect()
    }

    /// What may be assigned: partitions whose state is set up.
    pub(crate) fn initialized(&self) -> Option<&BTreeMap<Uuid, InitTopic>> {
        self.state_partitions.as_ref().map(|partitions| &partitions.initialized)
    }

    /// Whether partitions of subscribed topics were set up, or forgotten, that the target does not reflect.
    pub(crate) fn has_initialized_pending(&self) -> bool {
        let Some(initialized) = self.initialized().filter(|topics| !topics.is_empty()) else { return false };
        if self.members.is_empty() {
            return false;
        }
        let topics = self.topics();
        let mut assigned: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        for (topic_id, partitions) in self.target.values().flatten() {
            assigned.entry(*topic_id).or_default().extend(partitions);
        }
        initialized
            .iter()
            .filter(|(_, topic)| topics.contains(&topic.name))
            .any(|(id, topic)| assigned.get(id) != Some(&topic.partitions))
    }
}

impl AnyGroup for ShareGroup {
    fn kind(&self) -> GroupKind {
        GroupKind::Share
    }

    fn state_name(&self) -> &'static str {
        if self.members.is_empty() { "Empty" } else { "Stable" }
    }

    fn protocol_type(&self) -> &str {
        "share"
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.subscription.topics.contains(topic))
    }

    fn validate_offset_commit(&self, _committer: &Committer<'_>) -> Result<CommitScope, ErrorCode> {
        Err(ErrorCode::GroupIdNotFound)
    }

    /// There are none, which is what it says.
    fn validate_offset_fetch(&self, _member_id: Option<&str>, _epoch: i32) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        Err(ErrorCode::GroupIdNotFound)
    }

    fn write_tombstones(&self, out: &mut Outbox) {
        let members = || self.members.keys().cloned();
        let mut bodies: Vec<Body> = members().map(|id| Body::Current(id, None)).collect();
        bodies.extend(self.target.keys().cloned().map(|id| Body::TargetMember(id, None)));
        bodies.push(Body::TargetMetadata(None));
        bodies.extend(members().map(|id| Body::Member(id, None)));
        bodies.push(Body::StatePartitions(None));
        bodies.push(Body::Epoch(None));
        for body in bodies {
            // The same names stood in the records that made the group.
            let record = GroupRecord { group: self.id.clone(), body };
            if let Ok(encoded) = record.encode() {
                out.write(encoded, Change::Share(record));
            }
        }
    }

    fn expiration(&self) -> Option<ExpirationCondition> {
        None
    }

    /// Share groups stay until they are deleted: their state is kept elsewhere.
    fn may_expire(&self) -> bool {
        false
    }
}
