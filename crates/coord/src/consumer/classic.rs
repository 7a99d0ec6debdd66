//! Members of the classic protocol in a consumer group: JoinGroup, SyncGroup, Heartbeat and LeaveGroup as another way to
//! say what a ConsumerGroupHeartbeat says. The member's epoch is its generation; it never leads. Answers to the
//! `classicGroup…ToConsumerGroup` of Kafka's `GroupMetadataManager`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::config::MigrationPolicy;
use taccola_base::limits;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::leave_group_response::MemberResponse;
use taccola_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::embedded::{assignment_bytes, subscription_of};
use super::group::ConsumerGroup;
use super::heartbeat::{Env, Refusal, Step, advance, keep_time, replace};
use super::member::{ClassicMember, Current, Member, MemberState, Subscription};
use crate::classic::{join_error, sync_error};
use crate::effects::{Effects, Reply, RequestContext, Response};
use crate::modern::assignment::Assignment;
use crate::modern::{JOIN_EPOCH, new_member_id};
use crate::outbox::Outbox;
use crate::shard::{GroupShard, LEAVE_BATCH_FROM};

/// The protocol type of consumers.
const PROTOCOL_TYPE: &str = "consumer";
/// From this version on a member that has no id is given one and must come back with it (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;

/// A JoinGroup that is refused, with the member id that the reply names.
pub(crate) type JoinRefusal = (String, ErrorCode);

impl GroupShard {
    pub(crate) fn join_live_consumer_group(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
    ) -> Effects<JoinGroupResponse> {
        let mut out = Outbox::default();
        match self.join_consumer_group(now_ms, ctx, request, &mut out) {
            Ok(response) => self.finish_modern(ctx.token, &request.group_id, response, out, Response::JoinGroup),
            Err((member_id, error)) => {
                self.finish(Reply::Now(join_error(ctx.api_version, &member_id, error)), Outbox::default())
            }
        }
    }

    pub(crate) fn sync_live_consumer_group(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &SyncGroupRequest,
    ) -> Effects<SyncGroupResponse> {
        let mut out = Outbox::default();
        match self.sync_consumer_group(now_ms, request, &mut out) {
            Ok(response) => self.finish_modern(ctx.token, &request.group_id, response, out, Response::SyncGroup),
            Err(error) => self.finish(Reply::Now(sync_error(error)), out),
        }
    }

    pub(crate) fn leave_live_consumer_group(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &LeaveGroupRequest,
    ) -> Effects<LeaveGroupResponse> {
        let mut out = Outbox::default();
        let members = match self.leave_consumer_group(now_ms, &request.group_id, &request.members, &mut out) {
            Ok(members) => members,
            Err(error) => {
                let response = LeaveGroupResponse { error_code: error.code(), ..Default::default() };
                return self.finish(Reply::Now(response), Outbox::default());
            }
        };
        let response = if ctx.api_version < LEAVE_BATCH_FROM {
            let error_code = members.first().map_or(0, |m| m.error_code);
            LeaveGroupResponse { error_code, ..Default::default() }
        } else {
            LeaveGroupResponse { members, ..Default::default() }
        };
        self.finish_modern(ctx.token, &request.group_id, response, out, Response::LeaveGroup)
    }

    /// Whether a request of the classic protocol is for a consumer group that has members.
    pub(crate) fn is_live_consumer_group(&self, group_id: &str) -> bool {
        self.consumer.get(group_id).is_some_and(|group| !group.members.is_empty())
    }

    pub(crate) fn join_consumer_group(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        out: &mut Outbox,
    ) -> Result<JoinGroupResponse, JoinRefusal> {
        let refuse = |error| (request.member_id.clone(), error);
        let Some(group) = self.consumer.get(request.group_id.as_str()) else {
            return Err(refuse(ErrorCode::UnknownMemberId));
        };
        if self.config.consumer.migration_policy == MigrationPolicy::Disabled || !supports(group, request) {
            return Err(refuse(ErrorCode::InconsistentGroupProtocol));
        }
        let is_new = request.member_id.is_empty();
        let id = if is_new { new_member_id(ctx.fresh_id) } else { request.member_id.clone() };
        let max = usize::try_from(self.config.consumer.max_size).unwrap_or(0).min(limits::GROUP_MEMBERS_MAX);
        let instance_id = request.group_instance_id.as_deref();
        let known = group.members.contains_key(id.as_str())
            || instance_id.is_some_and(|instance| group.static_members.contains_key(instance));
        if !known && group.members.len() >= max {
            return Err((String::new(), ErrorCode::GroupMaxSizeReached));
        }
        if is_new && instance_id.is_none() && ctx.api_version >= MEMBER_ID_REQUIRED_FROM {
            return Err((id, ErrorCode::MemberIdRequired));
        }
        let (new, owned) = said(&*self.image, ctx, request).ok_or(refuse(ErrorCode::InconsistentGroupProtocol))?;
        if new.bytes() + group.bytes > limits::GROUP_METADATA_BYTES_MAX {
            return Err((String::new(), ErrorCode::GroupMaxSizeReached));
        }
        let step = begin(group, id.into(), is_new, new, &owned, out).map_err(refuse)?;
        let mut env =
            Env { now_ms, image: &*self.image, config: &self.config.consumer, hashes: &mut self.topic_hashes };
        let outcome = advance(&mut env, group, &step, out).map_err(|r: Refusal| refuse(r.error))?;
        let group_id = group.id.clone();
        if let Some(group) = self.consumer.get_mut(&group_id) {
            keep_time(group, &step, &outcome, now_ms, request.session_timeout_ms, false, out);
            // It must ask for its assignment within the time to rebalance.
            let deadline_ms = now_ms.saturating_add(i64::from(request.rebalance_timeout_ms.max(0)));
            group.timeouts.ask(&group_id, &step.id, outcome.current.epoch, deadline_ms, out);
        }
        Ok(JoinGroupResponse {
            generation_id: outcome.current.epoch,
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: request.protocols.first().map(|p| p.name.clone()),
            member_id: step.id.to_string(),
            ..Default::default()
        })
    }

    pub(crate) fn sync_consumer_group(
        &mut self,
        now_ms: i64,
        request: &SyncGroupRequest,
        out: &mut Outbox,
    ) -> Result<SyncGroupResponse, ErrorCode> {
        let group = self.consumer.get_mut(request.group_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
        let (id, classic) = classic_member(group, &request.member_id, request.group_instance_id.as_deref())?;
        let Some(member) = group.members.get(&id) else { return Err(ErrorCode::UnknownMemberId) };
        if member.current.epoch != request.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        let Some((protocol, metadata)) = classic.protocols.first() else { return Err(ErrorCode::UnknownMemberId) };
        if request.protocol_type.as_deref().is_some_and(|t| t != PROTOCOL_TYPE)
            || request.protocol_name.as_deref().is_some_and(|name| name != protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let group_id = group.id.clone();
        let behind = member.current.epoch < group.target_epoch.epoch;
        if behind && member.current.state != MemberState::UnrevokedPartitions {
            let deadline_ms = now_ms.saturating_add(i64::from(member.subscription.rebalance_timeout_ms.max(0)));
            group.timeouts.ask_once(&group_id, &id, member.current.epoch, deadline_ms, out);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let assignment =
            assignment_bytes(&*self.image, &member.current, metadata).ok_or(ErrorCode::UnknownServerError)?;
        group.timeouts.settle(&group_id, &id, out);
        group.timeouts.touch(&group_id, &id, now_ms, classic.session_timeout_ms, out);
        Ok(SyncGroupResponse {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment,
            ..Default::default()
        })
    }

    pub(crate) fn heartbeat_consumer_group(
        &mut self,
        now_ms: i64,
        request: &HeartbeatRequest,
        out: &mut Outbox,
    ) -> Result<(), ErrorCode> {
        let group = self.consumer.get_mut(request.group_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
        let (id, classic) = classic_member(group, &request.member_id, request.group_instance_id.as_deref())?;
        let Some(member) = group.members.get(&id) else { return Err(ErrorCode::UnknownMemberId) };
        let current = &member.current;
        if current.epoch != request.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        let group_id = group.id.clone();
        // Where nobody sends heartbeats of the other protocol, nobody else would compute the next target.
        let ahead = if group.classic_members == group.members.len() { group.epoch } else { group.target_epoch.epoch };
        let must_join = current.epoch < ahead
            || current.state == MemberState::UnrevokedPartitions
            || current.state == MemberState::UnreleasedPartitions && !waits_for_others(group, &id, current);
        let epoch = current.epoch;
        let deadline_ms = now_ms.saturating_add(i64::from(member.subscription.rebalance_timeout_ms.max(0)));
        group.timeouts.touch(&group_id, &id, now_ms, classic.session_timeout_ms, out);
        if must_join {
            group.timeouts.ask_once(&group_id, &id, epoch, deadline_ms, out);
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    pub(crate) fn leave_consumer_group(
        &mut self,
        now_ms: i64,
        group_id: &str,
        leaving: &[MemberIdentity],
        out: &mut Outbox,
    ) -> Result<Vec<MemberResponse>, ErrorCode> {
        let Some(group) = self.consumer.get(group_id) else { return Ok(crate::classic::unknown_members(leaving)) };
        let mut gone: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut rows = Vec::with_capacity(leaving.len());
        for identity in leaving {
            let found = leaving_member(group, identity);
            rows.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: found.as_ref().err().map_or(0, |error| error.code()),
            });
            gone.extend(found);
        }
        if !gone.is_empty() {
            let gone: Vec<Arc<str>> = gone.into_iter().collect();
            self.fence_consumer_members(now_ms, group_id, &gone, out)?;
        }
        Ok(rows)
    }
}

fn supports(group: &ConsumerGroup, request: &JoinGroupRequest) -> bool {
    let all = group.classic_members;
    request.protocol_type == PROTOCOL_TYPE
        && !request.protocols.is_empty()
        && (all == 0 || request.protocols.iter().any(|p| group.classic_protocols.get(&p.name) == Some(&all)))
}

/// What a JoinGroup says: a subscription, and what the member has.
fn said(
    image: &dyn crate::cluster_image::ClusterImage,
    ctx: &RequestContext<'_>,
    request: &JoinGroupRequest,
) -> Option<(Subscription, Assignment)> {
    let (embedded, owned) = subscription_of(image, &request.protocols.first()?.metadata)?;
    // Copied: a slice would keep the whole request in memory.
    let protocols = request.protocols.iter().map(|p| (p.name.clone(), Bytes::copy_from_slice(&p.metadata)));
    let subscription = Subscription {
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        rack_id: embedded.rack_id.filter(|rack| !rack.is_empty()),
        client_id: ctx.client_id.to_owned(),
        client_host: ctx.client_host.to_owned(),
        topics: embedded.topics,
        regex: Arc::from(""),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        server_assignor: None,
        classic: Some(ClassicMember { session_timeout_ms: request.session_timeout_ms, protocols: protocols.collect() }),
    };
    Some((subscription, owned))
}

fn begin<'a>(
    group: &ConsumerGroup,
    id: Arc<str>,
    is_new: bool,
    new: Subscription,
    owned: &'a Assignment,
    out: &mut Outbox,
) -> Result<Step<'a>, ErrorCode> {
    let holder = new.instance_id.as_deref().map(|instance| group.static_member(instance));
    let blank = |id: Arc<str>, new: Subscription| Step {
        id,
        old: None,
        new: Arc::new(new),
        base: Current::default(),
        replaces: None,
        owned: Some(owned),
    };
    let from = |member: &Member, step: Step<'a>| Step {
        old: Some(member.subscription.clone()),
        base: member.current.clone(),
        ..step
    };
    match holder {
        None | Some(None) if holder.is_none() || is_new => {
            let step = blank(id.clone(), new);
            Ok(match group.members.get(&id) {
                Some(member) => from(member, step),
                None => step,
            })
        }
        None | Some(None) => Err(ErrorCode::UnknownMemberId),
        Some(Some((holder_id, holder))) if is_new => {
            let base = Current { epoch: JOIN_EPOCH, previous_epoch: JOIN_EPOCH, ..holder.current.clone() };
            replace(group, holder_id, &id, &holder.subscription, &base, out)?;
            let old = Some(holder.subscription.clone());
            Ok(Step { old, base, replaces: Some(holder_id.clone()), ..blank(id, new) })
        }
        Some(Some((holder_id, _))) if **holder_id != *id => Err(ErrorCode::FencedInstanceId),
        Some(Some((_, holder))) => Ok(from(holder, blank(id, new))),
    }
}

/// The member, if it is one and speaks the classic protocol.
fn classic_member(
    group: &ConsumerGroup,
    member_id: &str,
    instance_id: Option<&str>,
) -> Result<(Arc<str>, ClassicMember), ErrorCode> {
    let (id, member) = match instance_id {
        None => group.members.get_key_value(member_id).ok_or(ErrorCode::UnknownMemberId)?,
        Some(instance) => {
            let (id, member) = group.static_member(instance).ok_or(ErrorCode::UnknownMemberId)?;
            if **id != *member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
            (id, member)
        }
    };
    let classic = member.subscription.classic.clone().ok_or(ErrorCode::UnknownMemberId)?;
    Ok((id.clone(), classic))
}

fn leaving_member(group: &ConsumerGroup, identity: &MemberIdentity) -> Result<Arc<str>, ErrorCode> {
    match identity.group_instance_id.as_deref() {
        None => group.members.get_key_value(identity.member_id.as_str()).map(|(id, _)| id.clone()),
        Some(instance) => {
            let id = group.static_member(instance).map(|(id, _)| id.clone());
            // An administrator knows only the instance id.
            if id.as_ref().is_some_and(|id| !identity.member_id.is_empty() && **id != *identity.member_id) {
                return Err(ErrorCode::FencedInstanceId);
            }
            id
        }
    }
    .ok_or(ErrorCode::UnknownMemberId)
}

/// Whether something of the member's target is still held by others, so that joining again would not help yet.
fn waits_for_others(group: &ConsumerGroup, id: &Arc<str>, current: &Current) -> bool {
    let Some(target) = group.targets.get(id) else { return false };
    target.iter().any(|(topic, partitions)| {
        let has = current.assigned.get(topic);
        partitions.iter().any(|p| !has.is_some_and(|has| has.contains_key(p)) && group.is_held(topic, *p))
    })
}
