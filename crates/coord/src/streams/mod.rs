//! Streams groups (KIP-1071): the coordinator knows the topology of a Kafka Streams application, has its internal topics
//! created, and gives its tasks to the members, who reconcile through heartbeats. Answers to Kafka's
//! `org.apache.kafka.coordinator.group.streams` and the streams half of `GroupMetadataManager`.
//!
//! `topology` is what the application sent, `internal_topics` what that means for the cluster's topics, `assignor` who
//! should run what, `reconcile` one member's next step, `records` the log, `group` the state, `heartbeat` and `timers` what
//! moves it, `describe` what is shown.
//!
//! Always true: a group is what its records say; an active task is assigned to one member at a time, counting those that
//! still have to give it up.

mod assignor;
mod describe;
mod group;
mod heartbeat;
mod internal_topics;
mod reconcile;
mod records;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod topology;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::StreamsGroupHeartbeatResponse;
use taccola_wire::messages::create_topics_request::CreatableTopic;

pub(crate) use group::StreamsGroup;
pub(crate) use records::{GroupRecord, KEY_TYPE_FIRST, KEY_TYPE_LAST, decode};

use group::Soft;
use records::Body;

use crate::cluster_image::TopicChanges;
use crate::shard::GroupShard;

/// A heartbeat's reply, and the internal topics that the caller should have created, with what came of it in the status
/// MISSING_INTERNAL_TOPICS.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamsHeartbeat {
    pub response: StreamsGroupHeartbeatResponse,
    pub create: Vec<CreatableTopic>,
}

/// The status under which a member is told that internal topics are missing.
pub const MISSING_INTERNAL_TOPICS: i8 = 3;

impl StreamsHeartbeat {
    pub fn refused(error: ErrorCode, message: Option<String>) -> Self {
        let response =
            StreamsGroupHeartbeatResponse { error_code: error.code(), error_message: message, ..Default::default() };
        Self { response, create: Vec::new() }
    }
}

/// The streams groups of a shard.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) groups: BTreeMap<Arc<str>, StreamsGroup>,
    /// What is in memory alone; a group has some before its first record is in the log. Goes with the group, or with
    /// the last timer of one that never came to be.
    soft: BTreeMap<Arc<str>, Soft>,
}

impl Streams {
    /// What a record says becomes so. True when the group exists by it, which a tombstone does not bring about.
    pub(crate) fn apply(&mut self, record: GroupRecord) -> bool {
        let GroupRecord { group: id, body } = record;
        let tombstone = body.is_tombstone();
        if body == Body::Metadata(None) {
            self.groups.remove(&id);
            self.soft.remove(&id);
            return false;
        }
        if !self.groups.contains_key(&id) {
            if tombstone {
                return false;
            }
            self.groups.insert(id.clone(), StreamsGroup::new(id.clone()));
        }
        let (Some(group), soft) = (self.groups.get_mut(&id), self.soft.get_mut(&id)) else { return false };
        if let Some(soft) = soft {
            match &body {
                Body::Topology(_) => soft.is_fresh = false,
                Body::Member(member, None) => soft.timeouts.forget(member),
                _ => {}
            }
        }
        group.apply(body);
        if group.members.is_empty()
            && let Some(soft) = self.soft.get_mut(&id)
        {
            soft.shutdown_by = None;
        }
        !tombstone
    }

    /// Topics changed: groups that depend on them look again with their next heartbeat.
    pub(crate) fn topics_changed(&mut self, changes: &TopicChanges) {
        // Nothing named: anything may have changed.
        let all = changes.changed.is_empty() && changes.deleted.is_empty();
        for (id, soft) in &mut self.soft {
            let Some(topology) = self.groups.get(id).and_then(|g| g.topology.as_ref()) else { continue };
            let required = topology.required_topics();
            let changed = all
                || changes.changed.iter().any(|topic| required.contains(topic))
                || changes.deleted.iter().any(|(topic, _)| required.contains(topic.as_str()));
            if changed {
                soft.is_fresh = false;
            }
        }
    }
}

impl GroupShard {
    /// What a record says becomes so. A group takes the place of a classic one that has offsets alone.
    pub(crate) fn apply_streams(&mut self, record: GroupRecord) {
        let id = record.group.clone();
        if self.streams.apply(record) {
            self.groups.remove(&id);
        }
    }
}
