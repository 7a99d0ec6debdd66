//! The state of a classic group and its invariants: who is a member, who waits, which protocols all members share.
//! Answers to Kafka's `ClassicGroup` and `ClassicGroupState`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::codec::{Message, Reader};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::join_group_response::JoinGroupResponseMember;
use taccola_wire::messages::{ConsumerProtocolSubscription, GroupMetadataValue, JoinGroupResponse};

use super::member::{Member, Waiting, protocol_bytes};
use super::{null_or_empty, sync_error};
use crate::effects::{Response, TimerKey};
use crate::outbox::{GroupRef, Outbox};

/// The protocol type of consumers: what the coordinator can read subscriptions of.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// A group that is dead is not in memory, so that there is no state for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// As clients see it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// The time in which members join.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinTimer {
    pub(crate) deadline_ms: i64,
    /// Of the first rebalance of an empty group: how long this round is, and how much time may still be added.
    pub(crate) initial: Option<(i64, i64)>,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Arc<str>,
    pub(crate) incarnation: u64,
    pub(crate) state: State,
    pub(crate) previous: State,
    /// When the state was entered; unknown for records of an old version.
    pub(crate) state_since_ms: Option<i64>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    pub(crate) generation: i32,
    pub(crate) leader: Option<Arc<str>>,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    /// Instance id to member id.
    pub(crate) static_members: BTreeMap<String, Arc<str>>,
    /// Members that were given an id and have not come back with it.
    pub(crate) pending_joins: BTreeMap<Arc<str>, super::member::Session>,
    /// Members that have not asked for their assignment in this generation.
    pub(crate) pending_syncs: BTreeSet<Arc<str>>,
    /// What the members subscribe to, when the coordinator can tell.
    pub(crate) subscribed_topics: Option<BTreeSet<String>>,
    /// A member came during the initial delay.
    pub(crate) new_member_added: bool,
    pub(crate) join_timer: Option<JoinTimer>,
    pub(crate) sync_deadline_ms: Option<i64>,
    /// The leader's assignment of this generation is being written.
    pub(crate) assignment_in_flight: bool,
    /// Members whose JoinGroup is parked.
    joining: usize,
    /// How many members support each protocol.
    supported: BTreeMap<String, usize>,
    /// What is kept of all members, in bytes.
    bytes: usize,
}

impl Group {
    pub(crate) fn new(id: Arc<str>, incarnation: u64, now_ms: i64) -> Self {
        Self {
            id,
            incarnation,
            state: State::Empty,
            previous: State::Empty,
            state_since_ms: Some(now_ms),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            join_timer: None,
            sync_deadline_ms: None,
            assignment_in_flight: false,
            joining: 0,
            supported: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// The group as its record tells: with members it is stable.
    pub(crate) fn from_record(id: Arc<str>, incarnation: u64, value: &GroupMetadataValue) -> Self {
        let mut group = Self::new(id, incarnation, 0);
        let protocol_name = value.protocol.as_deref().unwrap_or_default();
        for member in &value.members {
            group.add(Member::from_record(member, protocol_name));
        }
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        group.previous = group.state;
        group.state_since_ms = (value.current_state_timestamp != -1).then_some(value.current_state_timestamp);
        group.protocol_type = Some(value.protocol_type.clone()).filter(|t| !t.is_empty());
        group.protocol_name = value.protocol.clone();
        group.generation = value.generation;
        group.leader = value.leader.as_deref().map(Arc::from);
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The group's record; `assignments` are those that are being written.
    pub(crate) fn to_record(&self, assignments: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        let protocol_name = self.protocol_name.as_deref().unwrap_or_default();
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: self.members.values().map(|m| m.to_record(protocol_name, assignments(m))).collect(),
        }
    }

    pub(crate) fn reference(&self) -> GroupRef {
        GroupRef { id: self.id.clone(), incarnation: self.incarnation }
    }

    pub(crate) fn is(&self, reference: &GroupRef) -> bool {
        self.incarnation == reference.incarnation
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(crate) fn leader_or_empty(&self) -> String {
        self.leader.as_deref().unwrap_or_default().to_owned()
    }

    pub(crate) fn joining(&self) -> usize {
        self.joining
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn session_key(&self, member_id: &Arc<str>) -> TimerKey {
        session_key(&self.id, member_id)
    }

    pub(crate) fn transition(&mut self, state: State, now_ms: i64) {
        self.previous = self.state;
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    /// The caller has made sure that the member shares a protocol with the group.
    pub(crate) fn add(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.pending_joins.remove(&member.id);
        self.joining += usize::from(member.join.is_some());
        self.bytes += member.bytes();
        self.count_protocols(&member.protocols, 1);
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out, or one that was only given an id. What it waits for is answered with UNKNOWN_MEMBER_ID: if
    /// it is still alive, it starts anew.
    pub(crate) fn remove(&mut self, member_id: &Arc<str>, out: &mut Outbox) {
        if self.pending_joins.remove(member_id).is_some() {
            out.cancel_timer(self.session_key(member_id));
        }
        self.pending_syncs.remove(member_id);
        self.release_join_error(member_id, "", ErrorCode::UnknownMemberId, out);
        self.release_sync_error(member_id, ErrorCode::UnknownMemberId, out);
        let Some(member) = self.members.remove(member_id) else { return };
        out.cancel_timer(self.session_key(member_id));
        self.bytes = self.bytes.saturating_sub(member.bytes());
        self.count_protocols(&member.protocols, -1);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member another member id. Whoever waits under the old one is fenced.
    pub(crate) fn replace_static(&mut self, old_id: &Arc<str>, new_id: &Arc<str>, out: &mut Outbox) {
        self.release_join_error(old_id, old_id, ErrorCode::FencedInstanceId, out);
        self.release_sync_error(old_id, ErrorCode::FencedInstanceId, out);
        let Some(mut member) = self.members.remove(old_id) else { return };
        out.cancel_timer(self.session_key(old_id));
        self.bytes = self.bytes.saturating_sub(member.bytes());
        member.id = new_id.clone();
        member.session = Default::default();
        self.bytes += member.bytes();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.clone());
        }
        self.members.insert(new_id.clone(), member);
    }

    /// The member joins again, perhaps with other protocols, and waits.
    pub(crate) fn update(
        &mut self,
        member_id: &Arc<str>,
        protocols: Vec<JoinGroupRequestProtocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        waiting: Option<Waiting>,
        out: &mut Outbox,
    ) {
        // A request that is still parked was sent by the same member before: only the newest gets the generation.
        self.release_join_error(member_id, member_id, ErrorCode::RebalanceInProgress, out);
        let Some(member) = self.members.get_mut(member_id) else { return };
        self.bytes = (self.bytes + protocol_bytes(&protocols)).saturating_sub(protocol_bytes(&member.protocols));
        let old = std::mem::replace(&mut member.protocols, protocols.clone());
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        member.join = waiting;
        self.joining += usize::from(waiting.is_some());
        self.count_protocols(&old, -1);
        self.count_protocols(&protocols, 1);
    }

    pub(crate) fn set_assignment(&mut self, member_id: &Arc<str>, assignment: Bytes) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        self.bytes = (self.bytes + assignment.len()).saturating_sub(member.assignment.len());
        member.assignment = assignment;
    }

    /// Answers a member's parked JoinGroup, if there is one.
    pub(crate) fn release_join(
        &mut self,
        member_id: &Arc<str>,
        response: impl FnOnce(Waiting) -> JoinGroupResponse,
        out: &mut Outbox,
    ) {
        let Some(waiting) = self.members.get_mut(member_id).and_then(|m| m.join.take()) else { return };
        self.joining = self.joining.saturating_sub(1);
        out.release(waiting.token, Response::JoinGroup(response(waiting)));
    }

    pub(crate) fn release_join_error(&mut self, member_id: &Arc<str>, told: &str, error: ErrorCode, out: &mut Outbox) {
        self.release_join(member_id, |w| super::join_error(w.api_version, told, error), out);
    }

    pub(crate) fn release_sync_error(&mut self, member_id: &Arc<str>, error: ErrorCode, out: &mut Outbox) {
        let Some(waiting) = self.members.get_mut(member_id).and_then(|m| m.sync.take()) else { return };
        out.release(waiting.token, Response::SyncGroup(sync_error(error)));
    }

    /// Answers everybody who waits, with an error: the group goes away.
    pub(crate) fn release_all(&mut self, error: ErrorCode, out: &mut Outbox) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            self.release_join_error(id, id, error, out);
            self.release_sync_error(id, error, out);
        }
    }

    /// Cancels every timer of the group.
    pub(crate) fn cancel_timers(&mut self, out: &mut Outbox) {
        for id in self.members.keys().chain(self.pending_joins.keys()) {
            out.cancel_timer(self.session_key(id));
        }
        if self.join_timer.take().is_some() {
            out.cancel_timer(TimerKey::Join { group: self.id.clone() });
        }
        if self.sync_deadline_ms.take().is_some() {
            out.cancel_timer(TimerKey::Sync { group: self.id.clone() });
        }
    }

    /// The reply to a member's JoinGroup in the current generation.
    pub(crate) fn join_response(&self, member_id: &str, api_version: i16, with_members: bool) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone().or_else(|| null_or_empty(api_version)),
            leader: self.leader_or_empty(),
            member_id: member_id.to_owned(),
            members: if with_members { self.join_response_members() } else { Vec::new() },
            ..Default::default()
        }
    }

    fn join_response_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol_name = self.protocol_name.as_deref().unwrap_or_default();
        let row = |m: &Member| JoinGroupResponseMember {
            member_id: m.id.to_string(),
            group_instance_id: m.instance_id.clone(),
            metadata: m.metadata(protocol_name),
        };
        self.members.values().map(row).collect()
    }

    /// Whether the request is of a member, and of the one that holds its instance id now.
    pub(crate) fn validate_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(id) if &**id != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    pub(crate) fn has_all_members_joined(&self) -> bool {
        self.joining == self.members.len() && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout of all members.
    pub(crate) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| i64::from(m.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    /// Whether a member with these protocols can be in the group: one of them is known to all members.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[JoinGroupRequestProtocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|p| self.supported.get(&p.name).copied().unwrap_or(0) == all)
    }

    /// Each member votes for the first protocol on its list that all members support; most votes win, the leader's
    /// order decides between equals.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let is_candidate = |name: &str| self.supported.get(name).copied().unwrap_or(0) == all;
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(choice) = member.protocols.iter().find(|p| is_candidate(&p.name)) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let by_leader = leader.into_iter().flat_map(|m| &m.protocols).map(|p| p.name.as_str());
        by_leader.chain(votes.keys().copied()).find(|name| votes.get(name) == Some(&most)).map(str::to_owned)
    }

    fn count_protocols(&mut self, protocols: &[JoinGroupRequestProtocol], by: isize) {
        for protocol in protocols {
            let count = self.supported.entry(protocol.name.clone()).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.supported.remove(&protocol.name);
            }
        }
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// A consumer group whose subscriptions nobody can read counts as subscribed to everything.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed_topics.as_ref().map_or_else(|| self.uses_consumer_protocol(), |topics| topics.contains(topic))
    }

    pub(crate) fn compute_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol_name = self.protocol_name.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol_name))?);
        }
        Some(topics)
    }
}

pub(crate) fn session_key(group: &Arc<str>, member_id: &Arc<str>) -> TimerKey {
    TimerKey::Session { group: group.clone(), member: member_id.clone() }
}

/// The topics of a consumer's subscription. Every version begins with the fields of version 0.
fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    const VERSION_BYTES: usize = 2;
    if metadata.len() < VERSION_BYTES {
        return None;
    }
    let mut reader = Reader::new(metadata.slice(VERSION_BYTES..));
    ConsumerProtocolSubscription::read(&mut reader, 0).ok().map(|s| s.topics)
}
