//! A member of a classic group. Answers to Kafka's `ClassicGroupMember`.

use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::messages::describe_groups_response::DescribedGroupMember;
use taccola_wire::messages::group_metadata_value::MemberMetadata;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;

use crate::effects::{RequestToken, TimerKey};
use crate::outbox::Outbox;

/// A parked request of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) token: RequestToken,
    pub(crate) api_version: i16,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// `group.instance.id`: set for static members.
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In the member's order of preference, each name once.
    pub(crate) protocols: Vec<JoinGroupRequestProtocol>,
    pub(crate) assignment: Bytes,
    pub(crate) join: Option<Waiting>,
    pub(crate) sync: Option<Waiting>,
    /// Until the first completed rebalance: a new member does not know its id yet, cannot send heartbeats, and may be
    /// gone while its JoinGroup is parked.
    pub(crate) is_new: bool,
    pub(crate) session: Session,
}

/// When a member is given up, and when the timer that looks will fire. Heartbeats only move the deadline; the timer
/// moves itself when it fires early, so that a heartbeat costs no timer operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Session {
    deadline_ms: i64,
    armed_ms: Option<i64>,
}

impl Session {
    pub(crate) fn extend(&mut self, key: impl FnOnce() -> TimerKey, deadline_ms: i64, out: &mut Outbox) {
        self.deadline_ms = deadline_ms;
        if self.armed_ms.is_none_or(|armed| deadline_ms < armed) {
            self.armed_ms = Some(deadline_ms);
            out.set_timer(key(), deadline_ms);
        }
    }

    /// The timer fired: whether the time is really up. If it is not, the timer is set again.
    pub(crate) fn fired(&mut self, key: impl FnOnce() -> TimerKey, now_ms: i64, out: &mut Outbox) -> bool {
        self.armed_ms = None;
        let up = now_ms >= self.deadline_ms;
        if !up {
            self.extend(key, self.deadline_ms, out);
        }
        up
    }
}

impl Member {
    /// The metadata that the member gave for a protocol.
    pub(crate) fn metadata(&self, protocol_name: &str) -> Bytes {
        self.protocols.iter().find(|p| p.name == protocol_name).map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// A member that waits for its group needs no heartbeat, unless it is new.
    pub(crate) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }

    /// What the group keeps of the member, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.id.len() + self.client_id.len() + self.instance_id.as_ref().map_or(0, String::len);
        names + self.assignment.len() + protocol_bytes(&self.protocols)
    }

    pub(crate) fn describe(&self, protocol_name: Option<&str>) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: self.id.to_string(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: protocol_name.map(|name| self.metadata(name)).unwrap_or_default(),
            member_assignment: self.assignment.clone(),
        }
    }

    /// The member in the group's record, with the assignment that is being written.
    pub(crate) fn to_record(&self, protocol_name: &str, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member_id: self.id.to_string(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout: self.rebalance_timeout_ms,
            session_timeout: self.session_timeout_ms,
            subscription: self.metadata(protocol_name),
            assignment,
        }
    }

    pub(crate) fn from_record(member: &MemberMetadata, protocol_name: &str) -> Self {
        let rebalance_timeout_ms =
            if member.rebalance_timeout == -1 { member.session_timeout } else { member.rebalance_timeout };
        Self {
            id: member.member_id.as_str().into(),
            instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout,
            protocols: vec![JoinGroupRequestProtocol {
                name: protocol_name.to_owned(),
                metadata: Bytes::copy_from_slice(&member.subscription),
            }],
            assignment: Bytes::copy_from_slice(&member.assignment),
            join: None,
            sync: None,
            is_new: false,
            session: Session::default(),
        }
    }
}

pub(crate) fn protocol_bytes(protocols: &[JoinGroupRequestProtocol]) -> usize {
    protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum()
}

/// The protocols as the group keeps them: copied, since a slice of the request would keep the whole request in memory.
pub(crate) fn keep_protocols(protocols: &[JoinGroupRequestProtocol]) -> Vec<JoinGroupRequestProtocol> {
    let keep = |p: &JoinGroupRequestProtocol| JoinGroupRequestProtocol {
        name: p.name.clone(),
        metadata: Bytes::copy_from_slice(&p.metadata),
    };
    protocols.iter().map(keep).collect()
}
