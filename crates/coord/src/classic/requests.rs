//! What a classic group answers to JoinGroup, SyncGroup, Heartbeat and LeaveGroup, and which offset commits it takes.
//! Answers to the classic half of Kafka's `GroupMetadataManager` and to `ClassicGroup.validate*`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::limits;
use taccola_wire::codec::STRING_BYTES_MAX;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::leave_group_response::MemberResponse;
use taccola_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::group::{Group, State};
use super::member::{Member, Session, Waiting, keep_protocols, protocol_bytes};
use super::{join_error, sync_error};
use crate::GroupConfig;
use crate::effects::{Reply, RequestContext};
use crate::outbox::{Change, Done, Outbox, ReplacedMember};
use crate::records;

/// How long the JoinGroup of a new member may be parked before the member is given up: it cannot send heartbeats, and
/// may be gone.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;
/// From this version on a member that has no id is given one and must come back with it (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// A dash and a UUID's text.
const UUID_LEN: usize = 37;
/// Longest part of a member id before its UUID: the id must fit a string of Kafka's.
pub(crate) const MEMBER_ID_PREFIX_MAX: usize = STRING_BYTES_MAX - UUID_LEN;

type JoinReply = Reply<JoinGroupResponse>;

fn refuse(ctx: &RequestContext<'_>, member_id: &str, error: ErrorCode) -> JoinReply {
    Reply::Now(join_error(ctx.api_version, member_id, error))
}

/// The member's id: what it is called, and a UUID of the request's random bytes.
fn new_member_id(ctx: &RequestContext<'_>, instance_id: Option<&str>) -> Arc<str> {
    let mut b = ctx.fresh_id;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    let prefix = instance_id.unwrap_or(ctx.client_id);
    let uuid = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
    format!("{prefix}-{uuid}").into()
}

/// What the group would keep of the member that joins, in bytes.
pub(crate) fn bytes_of_member(ctx: &RequestContext<'_>, request: &JoinGroupRequest) -> usize {
    let instance = request.group_instance_id.as_ref().map_or(0, String::len);
    // The member id is made of the client id or the instance id.
    protocol_bytes(&request.protocols) + 2 * (ctx.client_id.len() + instance) + UUID_LEN
}

impl Group {
    pub(crate) fn join(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        config: &GroupConfig,
        out: &mut Outbox,
    ) -> JoinReply {
        if !self.has_room_for(ctx, request, config) {
            let id: Arc<str> = request.member_id.as_str().into();
            let was_member = self.members.contains_key(&id);
            self.remove(&id, out);
            if was_member {
                self.members_removed(now_ms, config, out);
            }
            return refuse(ctx, "", ErrorCode::GroupMaxSizeReached);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return refuse(ctx, &request.member_id, ErrorCode::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty() {
            self.join_unknown(now_ms, ctx, request, config, out)
        } else {
            self.join_known(now_ms, ctx, request, config, out)
        }
    }

    /// Whether the group may grow by this member, in number and in bytes.
    fn has_room_for(&self, ctx: &RequestContext<'_>, request: &JoinGroupRequest, config: &GroupConfig) -> bool {
        let id = request.member_id.as_str();
        let known = self.members.get(id).or_else(|| {
            self.static_members.get(request.group_instance_id.as_ref()?).and_then(|id| self.members.get(id))
        });
        let max = config.members_max();
        let in_number = match self.state {
            // Counting those who have joined rather than all lets the last to come find a group that shrank full.
            State::PreparingRebalance => known.is_some_and(|m| m.join.is_some()) || self.joining() < max,
            State::Empty | State::CompletingRebalance | State::Stable => known.is_some() || self.members.len() < max,
        };
        let pending = self.pending_joins.contains_key(id) || known.is_some() || self.pending_joins.len() < max;
        let others = self.bytes().saturating_sub(known.map_or(0, Member::bytes));
        let waiting: usize = self.pending_joins.keys().map(|id| id.len()).sum();
        let bytes = others.saturating_add(waiting).saturating_add(bytes_of_member(ctx, request));
        in_number && pending && bytes <= limits::GROUP_METADATA_BYTES_MAX
    }

    fn join_unknown(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        config: &GroupConfig,
        out: &mut Outbox,
    ) -> JoinReply {
        let instance_id = request.group_instance_id.as_deref();
        let new_id = new_member_id(ctx, instance_id);
        if let Some(instance_id) = instance_id {
            return match self.static_members.get(instance_id).cloned() {
                Some(old_id) => self.join_replacing_static(now_ms, ctx, request, config, old_id, new_id, out),
                None => self.join_adding(now_ms, ctx, request, config, new_id, out),
            };
        }
        if ctx.api_version < MEMBER_ID_REQUIRED_FROM {
            return self.join_adding(now_ms, ctx, request, config, new_id, out);
        }
        let mut session = Session::default();
        let deadline_ms = now_ms.saturating_add(i64::from(request.session_timeout_ms));
        session.extend(|| self.session_key(&new_id), deadline_ms, out);
        self.pending_joins.insert(new_id.clone(), session);
        refuse(ctx, &new_id, ErrorCode::MemberIdRequired)
    }

    fn join_known(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        config: &GroupConfig,
        out: &mut Outbox,
    ) -> JoinReply {
        let id: Arc<str> = request.member_id.as_str().into();
        let instance_id = request.group_instance_id.as_deref();
        if instance_id.is_none() && self.pending_joins.contains_key(&id) {
            return self.join_adding(now_ms, ctx, request, config, id, out);
        }
        if let Err(error) = self.validate_member(&id, instance_id) {
            return refuse(ctx, &id, error);
        }
        let unchanged = self.members.get(&id).is_some_and(|m| m.protocols == request.protocols);
        match self.state {
            State::PreparingRebalance => self.join_again(now_ms, ctx, request, config, &id, out),
            // The reply was lost on its way: give it again.
            State::CompletingRebalance if unchanged => {
                Reply::Now(self.join_response(&id, ctx.api_version, self.is_leader(&id)))
            }
            // A follower with nothing new may fetch its assignment. A leader joins to have the group rebalance, for
            // instance because a topic has more partitions.
            State::Stable if unchanged && !self.is_leader(&id) => {
                Reply::Now(self.join_response(&id, ctx.api_version, false))
            }
            State::CompletingRebalance | State::Stable => self.join_again(now_ms, ctx, request, config, &id, out),
            State::Empty => refuse(ctx, &id, ErrorCode::UnknownMemberId),
        }
    }

    fn join_again(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        config: &GroupConfig,
        id: &Arc<str>,
        out: &mut Outbox,
    ) -> JoinReply {
        self.update(
            id,
            keep_protocols(&request.protocols),
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            Some(waiting(ctx)),
            out,
        );
        self.rebalance_or_complete_join(now_ms, config, out);
        Reply::Parked
    }

    fn join_adding(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        config: &GroupConfig,
        id: Arc<str>,
        out: &mut Outbox,
    ) -> JoinReply {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if self.state == State::PreparingRebalance && self.previous == State::Empty {
            self.new_member_added = true;
        }
        // The session of a member that was only given its id goes on as the new member's.
        let session = self.pending_joins.remove(&id).unwrap_or_default();
        self.add(Member {
            id: id.clone(),
            instance_id: request.group_instance_id.clone(),
            client_id: ctx.client_id.to_owned(),
            client_host: ctx.client_host.to_owned(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: keep_protocols(&request.protocols),
            assignment: Bytes::new(),
            join: Some(waiting(ctx)),
            sync: None,
            is_new: true,
            session,
        });
        self.extend_session(&id, NEW_MEMBER_JOIN_TIMEOUT_MS, now_ms, out);
        self.rebalance_or_complete_join(now_ms, config, out);
        Reply::Parked
    }

    /// A static member starts again: it takes the place of the one that had its instance id.
    #[allow(clippy::too_many_arguments)]
    fn join_replacing_static(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        config: &GroupConfig,
        old_id: Arc<str>,
        new_id: Arc<str>,
        out: &mut Outbox,
    ) -> JoinReply {
        let Some(old) = self.members.get(&old_id) else {
            return refuse(ctx, &request.member_id, ErrorCode::UnknownMemberId);
        };
        let replaced = ReplacedMember {
            old_id: old_id.clone(),
            new_id: new_id.clone(),
            old_protocols: old.protocols.clone(),
            old_rebalance_timeout_ms: old.rebalance_timeout_ms,
            old_session_timeout_ms: old.session_timeout_ms,
            old_leader: self.leader_or_empty(),
        };
        self.replace_static(&old_id, &new_id, out);
        self.update(
            &new_id,
            keep_protocols(&request.protocols),
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            Some(waiting(ctx)),
            out,
        );
        self.touch(&new_id, now_ms, out);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol_name => {
                self.write_replaced(replaced, now_ms, out);
            }
            // In CompletingRebalance the leader may be assigning to the old id already.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(now_ms, config, out),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(now_ms, out),
        }
        Reply::Parked
    }

    fn write_replaced(&mut self, replaced: ReplacedMember, now_ms: i64, out: &mut Outbox) {
        match records::group_metadata(&self.id, &self.to_record(|m| m.assignment.clone())) {
            Ok(record) => {
                out.write(record, Change::Group);
                let (group, generation) = (self.reference(), self.generation);
                out.done.push(Done::Replaced { group, generation, replaced });
            }
            Err(_) => self.replace_failed(self.generation, replaced, ErrorCode::UnknownServerError, now_ms, out),
        }
    }

    pub(crate) fn sync(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &SyncGroupRequest,
        config: &GroupConfig,
        out: &mut Outbox,
    ) -> Reply<SyncGroupResponse> {
        if let Err(error) = self.validate_sync(request) {
            return Reply::Now(sync_error(error));
        }
        let Some(id) = self.members.get(request.member_id.as_str()).map(|m| m.id.clone()) else {
            return Reply::Now(sync_error(ErrorCode::UnknownMemberId));
        };
        match self.state {
            State::Empty => Reply::Now(sync_error(ErrorCode::UnknownMemberId)),
            State::PreparingRebalance => Reply::Now(sync_error(ErrorCode::RebalanceInProgress)),
            State::Stable => {
                self.synced(&id, out);
                let assignment = self.members.get(&id).map(|m| m.assignment.clone()).unwrap_or_default();
                Reply::Now(self.sync_response(assignment))
            }
            State::CompletingRebalance => {
                // A request that is still parked was sent by the same member before.
                self.release_sync_error(&id, ErrorCode::RebalanceInProgress, out);
                if let Some(member) = self.members.get_mut(&id) {
                    member.sync = Some(waiting(ctx));
                }
                self.synced(&id, out);
                // A generation has one assignment: a leader that asks again waits for the one that is being written.
                if self.is_leader(&id) && !self.assignment_in_flight {
                    self.take_assignment(now_ms, request, config, out);
                }
                Reply::Parked
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        if self.state == State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: &Option<String>, has: &Option<String>| matches!((asked, has), (Some(asked), Some(has)) if asked != has);
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn synced(&mut self, id: &Arc<str>, out: &mut Outbox) {
        self.pending_syncs.remove(id);
        if self.pending_syncs.is_empty() {
            self.cancel_sync_timer(out);
        }
    }

    fn take_assignment(&mut self, now_ms: i64, request: &SyncGroupRequest, config: &GroupConfig, out: &mut Outbox) {
        let mut assignments: BTreeMap<Arc<str>, Bytes> = BTreeMap::new();
        let mut bytes = self.bytes();
        for row in &request.assignments {
            let Some(member) = self.members.get(row.member_id.as_str()) else { continue };
            bytes = bytes.saturating_add(row.assignment.len());
            assignments.insert(member.id.clone(), row.assignment.clone());
        }
        let fits = bytes <= limits::GROUP_METADATA_BYTES_MAX;
        for assignment in assignments.values_mut().filter(|_| fits) {
            *assignment = Bytes::copy_from_slice(assignment);
        }
        if !fits || self.write_assignment(assignments, out).is_err() {
            let error = ErrorCode::UnknownServerError;
            self.assignment_failed(self.generation, error, now_ms, config, out);
        }
    }

    pub(crate) fn heartbeat(
        &mut self,
        now_ms: i64,
        request: &HeartbeatRequest,
        out: &mut Outbox,
    ) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        if let Some(id) = self.members.get(request.member_id.as_str()).map(|m| m.id.clone()) {
            self.touch(&id, now_ms, out);
        }
        if self.state == State::PreparingRebalance { Err(ErrorCode::RebalanceInProgress) } else { Ok(()) }
    }

    pub(crate) fn leave(
        &mut self,
        now_ms: i64,
        leaving: &[MemberIdentity],
        config: &GroupConfig,
        out: &mut Outbox,
    ) -> Vec<MemberResponse> {
        let mut left = false;
        let mut rows = Vec::with_capacity(leaving.len());
        for member in leaving {
            let result = self.leave_one(member, out);
            left |= result.is_ok();
            rows.push(MemberResponse {
                member_id: member.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                error_code: result.err().map_or(0, |error| error.code()),
            });
        }
        if left {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(now_ms, config, out),
                State::PreparingRebalance => self.maybe_complete_join(now_ms, out),
                State::Empty => {}
            }
        }
        rows
    }

    fn leave_one(&mut self, member: &MemberIdentity, out: &mut Outbox) -> Result<(), ErrorCode> {
        let instance_id = member.group_instance_id.as_deref();
        let id: Arc<str> = if member.member_id.is_empty() {
            // An administrator knows only the instance id.
            instance_id.and_then(|i| self.static_members.get(i)).cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            if !self.pending_joins.contains_key(member.member_id.as_str()) {
                self.validate_member(&member.member_id, instance_id)?;
            }
            member.member_id.as_str().into()
        };
        self.remove(&id, out);
        Ok(())
    }
}

fn waiting(ctx: &RequestContext<'_>) -> Waiting {
    Waiting { token: ctx.token, api_version: ctx.api_version }
}
