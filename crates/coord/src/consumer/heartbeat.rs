//! ConsumerGroupHeartbeat: joining, staying, leaving. Computes records and changes nothing but timers. Answers to
//! `GroupMetadataManager.consumerGroupHeartbeat` and `consumerGroupLeave`.

use std::sync::Arc;

use taccola_base::config::ConsumerGroupConfig;
use taccola_base::limits;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use taccola_wire::messages::consumer_group_heartbeat_response::{
    Assignment as ResponseAssignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};

use super::group::{ConsumerGroup, TopicDeltas, check_member_epoch, has_left_for_a_while};
use super::member::{Current, MemberState, Subscription};
use super::reconcile::Reconcile;
use super::records::{Body, GroupEpoch, TargetEpoch};
use super::regex::{self, RegexStep};
use super::target::{self, Updated, short_name, subscribed_ids};
use crate::cluster_image::ClusterImage;
use crate::effects::{Effects, Reply, RequestContext, Response};
use crate::group::GroupKind;
use crate::modern::assignment::{Assignment, EpochAssignment, normalized, without_epochs};
use crate::modern::settings::of_group;
use crate::modern::topics::TopicHashes;
use crate::modern::{JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, may_assign, new_member_id};
use crate::outbox::Outbox;
use crate::shard::GroupShard;

/// From this version on members choose their ids themselves.
const OWN_MEMBER_ID_FROM: i16 = 1;
const UNKNOWN_TIMEOUT: i32 = -1;

/// What a step may look at besides the group.
pub(super) struct Env<'a> {
    pub(super) now_ms: i64,
    pub(super) image: &'a dyn ClusterImage,
    pub(super) config: &'a ConsumerGroupConfig,
    pub(super) hashes: &'a mut TopicHashes,
}

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) error: ErrorCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        let message = match error {
            ErrorCode::UnknownMemberId => "The member is not in the group.",
            ErrorCode::FencedMemberEpoch => {
                "The member's epoch is not the one that it has here: it must rejoin with nothing."
            }
            ErrorCode::FencedInstanceId => "Another member has the instance id.",
            ErrorCode::UnreleasedInstanceId => "The instance id is in use.",
            ErrorCode::GroupMaxSizeReached => "The group has as many members as it may have.",
            ErrorCode::GroupIdNotFound => "There is no such consumer group.",
            _ => "The request cannot be served.",
        };
        Self::new(error, message)
    }
}

/// A member before and after a step.
pub(super) struct Step<'a> {
    pub(super) id: Arc<str>,
    /// What the log has of the member, or of the one whose place it takes.
    pub(super) old: Option<Arc<Subscription>>,
    pub(super) new: Arc<Subscription>,
    /// What it has before the step.
    pub(super) base: Current,
    pub(super) replaces: Option<Arc<str>>,
    pub(super) owned: Option<&'a Assignment>,
}

/// What a step comes to.
pub(super) struct Outcome {
    pub(super) current: Current,
    /// The group's metadata is as it was: it need not be looked at again.
    pub(super) clean: bool,
    pub(super) refreshed: bool,
}

impl GroupShard {
    pub fn handle_consumer_group_heartbeat(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Effects<ConsumerGroupHeartbeatResponse> {
        let mut out = Outbox::default();
        match self.consumer_heartbeat(now_ms, ctx, request, &mut out) {
            Ok(response) => {
                self.finish_modern(ctx.token, &request.group_id, response, out, Response::ConsumerGroupHeartbeat)
            }
            Err(refusal) => self.finish(Reply::Now(refused(refusal)), Outbox::default()),
        }
    }

    fn consumer_heartbeat(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        out: &mut Outbox,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        validate(ctx.api_version, request, &self.config.consumer)?;
        match request.member_epoch {
            LEAVE_EPOCH | LEAVE_STATIC_EPOCH => self.consumer_leave(now_ms, request, out),
            JOIN_EPOCH => {
                if let Some(group) = self.upgraded(now_ms, &request.group_id, out)? {
                    return self.consumer_stay(now_ms, ctx, request, Some(group), out);
                }
                self.make_room_for(&request.group_id, GroupKind::Consumer, out)?;
                self.consumer_stay(now_ms, ctx, request, None, out)
            }
            _ => self.consumer_stay(now_ms, ctx, request, None, out),
        }
    }

    /// `made` is a group that this very step makes of a classic one.
    fn consumer_stay(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        made: Option<Box<ConsumerGroup>>,
        out: &mut Outbox,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let new_group;
        let group = match (self.consumer.get(request.group_id.as_str()), &made) {
            (_, Some(made)) => &**made,
            (Some(group), None) => group,
            (None, None) if joins => {
                new_group = ConsumerGroup::new(request.group_id.as_str().into());
                &new_group
            }
            (None, None) => return Err(ErrorCode::GroupIdNotFound.into()),
        };
        let owned = request
            .topic_partitions
            .as_ref()
            .map(|rows| normalized(rows.iter().map(|row| (row.topic_id, row.partitions.clone()))));
        let mut step = begin(ctx, request, group, &self.config.consumer, owned.as_ref(), out)?;
        step.new = said(ctx, request, &step.new);
        if step.new.bytes() + group.bytes > limits::GROUP_METADATA_BYTES_MAX {
            return Err(ErrorCode::GroupMaxSizeReached.into());
        }
        let mut env =
            Env { now_ms, image: &*self.image, config: &self.config.consumer, hashes: &mut self.topic_hashes };
        let outcome = advance(&mut env, group, &step, out)?;
        let (image, config) = (env.image, env.config);
        let interval = |key, default, min, max| of_group(image, &request.group_id, key, default, min, max);
        let heartbeat_ms = interval(
            "consumer.heartbeat.interval.ms",
            config.heartbeat_interval_ms,
            config.min_heartbeat_interval_ms,
            config.max_heartbeat_interval_ms,
        );
        let session_ms = session_timeout_ms(image, &request.group_id, config);
        let full = request.rebalance_timeout_ms != UNKNOWN_TIMEOUT
            && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
            && request.topic_partitions.is_some();
        let tells = joins || full || outcome.current.assigned_differs(&step.base);
        let response = ConsumerGroupHeartbeatResponse {
            member_id: Some(step.id.to_string()),
            member_epoch: outcome.current.epoch,
            heartbeat_interval_ms: heartbeat_ms,
            assignment: tells.then(|| response_assignment(&outcome.current.assigned)),
            ..Default::default()
        };
        let group_id = group.id.clone();
        let settles = outcome.current != step.base;
        match self.consumer.get_mut(&group_id) {
            Some(group) => {
                keep_time(group, &step, &outcome, now_ms, session_ms, settles, out);
            }
            // The group begins with this step; its timer is known to it with the next heartbeat.
            None => out.set_timer(
                crate::modern::timeouts::session_key(&group_id, &step.id),
                now_ms.saturating_add(i64::from(session_ms)),
            ),
        }
        Ok(response)
    }
}

/// Sets the timers of a member after a step.
pub(super) fn keep_time(
    group: &mut ConsumerGroup,
    step: &Step<'_>,
    outcome: &Outcome,
    now_ms: i64,
    session_ms: i32,
    settles: bool,
    out: &mut Outbox,
) {
    let id = group.id.clone();
    if outcome.clean {
        group.metadata_dirty = false;
    }
    if outcome.refreshed {
        group.regex_dirty = false;
        group.regex_refreshed_ms = now_ms;
    }
    group.timeouts.touch(&id, &step.id, now_ms, session_ms, out);
    if settles && step.new.classic.is_none() {
        if outcome.current.state == MemberState::UnrevokedPartitions {
            let deadline_ms = now_ms.saturating_add(i64::from(step.new.rebalance_timeout_ms.max(0)));
            group.timeouts.ask(&id, &step.id, outcome.current.epoch, deadline_ms, out);
        } else {
            group.timeouts.settle(&id, &step.id, out);
        }
    }
}

pub(super) fn session_timeout_ms(image: &dyn ClusterImage, group_id: &str, config: &ConsumerGroupConfig) -> i32 {
    of_group(
        image,
        group_id,
        "consumer.session.timeout.ms",
        config.session_timeout_ms,
        config.min_session_timeout_ms,
        config.max_session_timeout_ms,
    )
}

fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: refusal.error.code(),
        error_message: Some(refusal.message),
        ..Default::default()
    }
}

fn response_assignment(assigned: &EpochAssignment) -> ResponseAssignment {
    let row = |(topic_id, partitions)| TopicPartitions { topic_id, partitions };
    ResponseAssignment { topic_partitions: without_epochs(assigned).into_iter().map(row).collect() }
}

fn validate(
    api_version: i16,
    request: &ConsumerGroupHeartbeatRequest,
    config: &ConsumerGroupConfig,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let epoch = request.member_epoch;
    let must_have_id = api_version >= OWN_MEMBER_ID_FROM || epoch > 0 || epoch == LEAVE_EPOCH;
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(|t| t.trim().is_empty());
    if must_have_id && request.member_id.trim().is_empty() {
        return invalid("MemberId must not be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId must not be empty.");
    }
    if is_empty(&request.instance_id) {
        return invalid("InstanceId must not be empty.");
    }
    if is_empty(&request.rack_id) {
        return invalid("RackId must not be empty.");
    }
    match epoch {
        JOIN_EPOCH if request.rebalance_timeout_ms == UNKNOWN_TIMEOUT => {
            return invalid("RebalanceTimeoutMs must be given when joining.");
        }
        JOIN_EPOCH if !request.topic_partitions.as_ref().is_some_and(Vec::is_empty) => {
            return invalid("TopicPartitions must be there and empty when joining.");
        }
        JOIN_EPOCH if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() => {
            return invalid("SubscribedTopicNames or SubscribedTopicRegex must be given when joining.");
        }
        LEAVE_STATIC_EPOCH if request.instance_id.is_none() => return invalid("InstanceId must be given."),
        ..LEAVE_STATIC_EPOCH => return invalid("MemberEpoch is out of range."),
        _ => {}
    }
    if let Some(assignor) = &request.server_assignor
        && !config.assignors.iter().any(|a| short_name(a) == assignor)
    {
        let known: Vec<&str> = config.assignors.iter().map(|a| short_name(a)).collect();
        let message = format!("ServerAssignor {assignor} is not among those of this broker: {}.", known.join(", "));
        return Err(Refusal::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}

/// Who it is that sends the heartbeat. `step.new` is still what the member said before.
fn begin<'a>(
    ctx: &RequestContext<'_>,
    request: &ConsumerGroupHeartbeatRequest,
    group: &ConsumerGroup,
    config: &ConsumerGroupConfig,
    owned: Option<&'a Assignment>,
    out: &mut Outbox,
) -> Result<Step<'a>, Refusal> {
    let joins = request.member_epoch == JOIN_EPOCH;
    let known = group.members.get_key_value(request.member_id.as_str());
    let max = usize::try_from(config.max_size).unwrap_or(0).min(limits::GROUP_MEMBERS_MAX);
    if known.is_none() && joins && group.members.len() >= max && !may_replace(group, request) {
        return Err(ErrorCode::GroupMaxSizeReached.into());
    }
    let new_step =
        |id: Arc<str>| Step { id, old: None, new: Arc::default(), base: Current::default(), replaces: None, owned };
    let id: Arc<str> = match known {
        Some((id, _)) => id.clone(),
        None if request.member_id.is_empty() => new_member_id(ctx.fresh_id).into(),
        None => request.member_id.as_str().into(),
    };
    let stays = |member: &super::member::Member| {
        check_member_epoch(&member.current, request.member_epoch, owned)?;
        Ok::<_, Refusal>(Step {
            old: Some(member.subscription.clone()),
            new: member.subscription.clone(),
            base: member.current.clone(),
            ..new_step(id.clone())
        })
    };
    let Some(instance_id) = request.instance_id.as_deref() else {
        return match known {
            Some((_, member)) => stays(member),
            None if joins => Ok(new_step(id)),
            None => Err(ErrorCode::UnknownMemberId.into()),
        };
    };
    match (group.static_member(instance_id), joins) {
        (None, true) => match known {
            Some((_, member)) => stays(member),
            None => Ok(new_step(id)),
        },
        (None, false) => Err(ErrorCode::UnknownMemberId.into()),
        (Some((_, holder)), true) if !has_left_for_a_while(holder) && !holder.is_classic() => {
            Err(ErrorCode::UnreleasedInstanceId.into())
        }
        (Some((holder_id, holder)), true) => {
            let base = Current { epoch: JOIN_EPOCH, previous_epoch: JOIN_EPOCH, ..holder.current.clone() };
            replace(group, holder_id, &id, &holder.subscription, &base, out)?;
            let subscription = holder.subscription.clone();
            Ok(Step {
                old: Some(subscription.clone()),
                new: subscription,
                base,
                replaces: Some(holder_id.clone()).filter(|old| *old != id),
                ..new_step(id)
            })
        }
        (Some((holder_id, _)), false) if **holder_id != *id => Err(ErrorCode::FencedInstanceId.into()),
        (Some((_, holder)), false) => stays(holder),
    }
}

fn may_replace(group: &ConsumerGroup, request: &ConsumerGroupHeartbeatRequest) -> bool {
    request.instance_id.as_deref().is_some_and(|instance| group.static_members.contains_key(instance))
}

/// A static member comes back under another id: what the log has of the old one becomes the new one's.
pub(super) fn replace(
    group: &ConsumerGroup,
    old: &Arc<str>,
    new: &Arc<str>,
    subscription: &Arc<Subscription>,
    current: &Current,
    out: &mut Outbox,
) -> Result<(), ErrorCode> {
    group.write_member_tombstones(old, out)?;
    let target = group.targets.get(old).cloned().unwrap_or_default();
    group.write(out, Body::Subscription { member: new.clone(), value: Some(subscription.clone()) })?;
    group.write(out, Body::Target { member: new.clone(), value: Some(target) })?;
    group.write(out, Body::Current { member: new.clone(), value: Some(Box::new(current.clone())) })
}

/// The member's subscription with what the request says anew.
fn said(
    ctx: &RequestContext<'_>,
    request: &ConsumerGroupHeartbeatRequest,
    old: &Arc<Subscription>,
) -> Arc<Subscription> {
    let same = |now: &Option<String>, was: Option<&str>| now.is_none() || now.as_deref() == was;
    let unchanged = request.subscribed_topic_names.is_none()
        && same(&request.subscribed_topic_regex, Some(&old.regex))
        && same(&request.instance_id, old.instance_id.as_deref())
        && same(&request.rack_id, old.rack_id.as_deref())
        && same(&request.server_assignor, old.server_assignor.as_deref())
        && (request.rebalance_timeout_ms == UNKNOWN_TIMEOUT
            || request.rebalance_timeout_ms == old.rebalance_timeout_ms)
        && ctx.client_id == old.client_id
        && ctx.client_host == old.client_host
        && old.classic.is_none();
    if unchanged {
        return old.clone();
    }
    let topics = match &request.subscribed_topic_names {
        None => old.topics.clone(),
        Some(names) => {
            let mut topics: Vec<&str> = names.iter().map(String::as_str).collect();
            topics.sort_unstable();
            topics.dedup();
            if topics.iter().copied().eq(old.topics.iter().map(|t| &**t)) {
                old.topics.clone()
            } else {
                topics.into_iter().map(Arc::from).collect()
            }
        }
    };
    let new = Subscription {
        instance_id: request.instance_id.as_deref().map(Arc::from).or_else(|| old.instance_id.clone()),
        rack_id: request.rack_id.clone().or_else(|| old.rack_id.clone()),
        client_id: ctx.client_id.to_owned(),
        client_host: ctx.client_host.to_owned(),
        topics,
        regex: request.subscribed_topic_regex.as_deref().map_or_else(|| old.regex.clone(), Arc::from),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            UNKNOWN_TIMEOUT => old.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        server_assignor: request.server_assignor.clone().or_else(|| old.server_assignor.clone()),
        classic: None,
    };
    if new == **old { old.clone() } else { Arc::new(new) }
}

/// The way from a member's subscription to what it is given: group epoch, target, and the member's next step to it.
pub(super) fn advance(
    env: &mut Env<'_>,
    group: &ConsumerGroup,
    step: &Step<'_>,
    out: &mut Outbox,
) -> Result<Outcome, Refusal> {
    let old = step.old.as_deref();
    if !step.old.as_ref().is_some_and(|old| Arc::ptr_eq(old, &step.new) || *old == step.new) {
        group.write(out, Body::Subscription { member: step.id.clone(), value: Some(step.new.clone()) })?;
    }
    let names_changed = old.map_or(&[][..], |s| &s.topics) != step.new.topics.as_slice();
    let mut deltas = TopicDeltas::default();
    if names_changed {
        deltas.add(old.iter().flat_map(|s| &s.topics), -1);
        deltas.add(&step.new.topics, 1);
    }
    let regexes = regex::follow(env, group, old, &step.new, &mut deltas, out)?;
    let bump = names_changed || regexes.changed;
    let mut epoch = group.epoch;
    if bump || group.metadata_dirty {
        epoch = next_epoch(env, group, &deltas, bump, out)?;
    }
    let (target_epoch, target) = next_target(env, group, step, epoch, &regexes, out)?;
    let subscription_changed = names_changed || regexes.changed;
    let current = if !subscription_changed && step.base.is_reconciled_to(target_epoch) {
        step.base.clone()
    } else {
        let subscribed = subscribed_ids(env.image, &step.new, regexes.resolved(group, &step.new.regex));
        let reconcile = Reconcile {
            current: &step.base,
            target_epoch,
            target: &target,
            subscribed: &subscribed,
            subscription_changed,
            owned: step.owned,
            is_held: &|topic, partition| group.is_held(topic, partition),
        };
        reconcile.next()?
    };
    if current != step.base {
        group.write(out, Body::Current { member: step.id.clone(), value: Some(Box::new(current.clone())) })?;
    }
    // What changed may yet fail to be written: then it is looked up again.
    let refreshed = regexes.refreshed && !regexes.changed;
    Ok(Outcome { current, clean: epoch == group.epoch, refreshed })
}

/// The group's epoch after this step, one more if its topics are not what they were.
fn next_epoch(
    env: &mut Env<'_>,
    group: &ConsumerGroup,
    deltas: &TopicDeltas,
    bump: bool,
    out: &mut Outbox,
) -> Result<i32, Refusal> {
    let metadata_hash = env.hashes.group_hash(env.image, &group.subscribed_topics_with(deltas));
    let mut epoch = group.epoch;
    if bump || metadata_hash != group.metadata_hash {
        epoch = epoch.checked_add(1).ok_or(ErrorCode::UnknownServerError)?;
        group.write(out, Body::Epoch(Some(GroupEpoch { epoch, metadata_hash })))?;
    }
    if group.has_partition_metadata {
        group.write(out, Body::PartitionMetadata { exists: false })?;
    }
    Ok(epoch)
}

/// The member's target and its epoch; computed anew when the group's epoch is ahead and the last one is long enough ago.
fn next_target(
    env: &Env<'_>,
    group: &ConsumerGroup,
    step: &Step<'_>,
    epoch: i32,
    regexes: &RegexStep,
    out: &mut Outbox,
) -> Result<(i32, Arc<Assignment>), Refusal> {
    let config = env.config;
    let interval_ms = || {
        of_group(
            env.image,
            &group.id,
            "consumer.assignment.interval.ms",
            config.assignment_interval_ms,
            config.min_assignment_interval_ms,
            config.max_assignment_interval_ms,
        )
    };
    let last = group.target_epoch;
    if last.epoch >= epoch || !may_assign(last.timestamp_ms, interval_ms(), env.now_ms) {
        let target = group.target_of(&step.id, step.new.instance_id.as_deref()).cloned().unwrap_or_default();
        return Ok((last.epoch, target));
    }
    let updated = Updated { id: &step.id, subscription: &step.new, replaces: step.replaces.as_ref() };
    let mut own = Arc::default();
    for (member, assignment) in target::compute(env, group, &updated, regexes) {
        let was = group.targets.get(&member);
        let is_own = member == step.id;
        if was.is_some_and(|was| **was == assignment) {
            if is_own {
                own = was.cloned().unwrap_or_default();
            }
            continue;
        }
        let assignment = Arc::new(assignment);
        if is_own {
            own = assignment.clone();
        }
        group.write(out, Body::Target { member, value: Some(assignment) })?;
    }
    group.write(out, Body::TargetEpoch(Some(TargetEpoch { epoch, timestamp_ms: env.now_ms })))?;
    Ok((epoch, own))
}
