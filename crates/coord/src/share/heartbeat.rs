//! ShareGroupHeartbeat, sessions, ShareGroupDescribe. A heartbeat computes records and changes nothing: they take effect
//! when they are in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::limits;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::share_group_describe_response as describe;
use taccola_wire::messages::share_group_heartbeat_response as heartbeat;
use taccola_wire::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::assignor;
use super::group::{Member, ShareGroup};
use super::records::{Body, Current, Epoch, GroupRecord, Subscription, TargetMetadata};
use super::{Assignment, HeartbeatReply, ShareReply};
use crate::cluster_image::{ClusterImage, TopicChanges};
use crate::effects::{Effects, Reply, RequestContext, Response, TimerKey};
use crate::group::{AnyGroup, GroupKind};
use crate::modern::topics::TopicHashes;
use crate::modern::{may_assign, settings};
use crate::outbox::{Change, Outbox};
use crate::shard::GroupShard;

/// The member epoch of one that leaves.
const LEAVE: i32 = -1;
/// The member epoch of one that joins.
const JOIN: i32 = 0;
/// How soon a member is removed again whose removal was not written, ms.
const FENCE_RETRY_MS: i64 = 5_000;
/// In UTF-16 units, as Java counts.
const MEMBER_ID_LENGTH_MAX: usize = 36;
const ASSIGNOR: &str = "simple";

/// Why a heartbeat is refused.
type Refused = (ErrorCode, String);

pub(super) fn refused(error: ErrorCode, message: impl Into<String>) -> HeartbeatReply {
    let response = ShareGroupHeartbeatResponse {
        error_code: error.code(),
        error_message: Some(message.into()),
        ..Default::default()
    };
    HeartbeatReply { response, initialize: None }
}

/// What a heartbeat leads to.
struct Step<'a> {
    now_ms: i64,
    group: &'a ShareGroup,
    bodies: Vec<Body>,
}

impl GroupShard {
    /// One heartbeat: joins, changes a subscription, confirms, or leaves.
    pub fn handle_share_group_heartbeat(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &ShareGroupHeartbeatRequest,
    ) -> Effects<HeartbeatReply> {
        let computed = check_request(request).and_then(|()| match request.member_epoch {
            LEAVE => self.share_leave(request),
            _ => self.share_heartbeat(now_ms, ctx, request),
        });
        let wrap = |reply| Response::Share(ShareReply::Heartbeat(Box::new(reply)));
        let mut out = Outbox::default();
        let reply = computed.and_then(|(reply, bodies)| {
            self.write_share(&request.group_id, bodies, &mut out)
                .map_err(|error| (error, error.message().to_owned()))?;
            Ok(reply)
        });
        let reply = match reply {
            Ok(reply) => reply,
            Err((error, message)) => return self.finish(Reply::Now(refused(error, message)), Outbox::default()),
        };
        if request.member_epoch == LEAVE {
            out.cancel_timer(session_timer(&request.group_id, &request.member_id));
        } else {
            self.touch_share_member(now_ms, &request.group_id, &request.member_id, &mut out);
        }
        self.finish_modern(ctx.token, &request.group_id, reply, out, wrap)
    }

    /// Adds typed records of one group to a step.
    pub(super) fn write_share(&self, group: &str, bodies: Vec<Body>, out: &mut Outbox) -> Result<(), ErrorCode> {
        let group: Arc<str> = group.into();
        for body in bodies {
            let record = GroupRecord { group: group.clone(), body };
            let encoded = record.encode().map_err(|_| ErrorCode::InvalidRequest)?;
            out.write(encoded, Change::Share(record));
        }
        Ok(())
    }

    /// The group as it is, or as it would begin; a group of another kind is in the way.
    pub(super) fn share_group_or_new(&self, group_id: &str, create: bool) -> Result<Option<&ShareGroup>, ErrorCode> {
        match self.kind_of(group_id) {
            Some(GroupKind::Share) => Ok(self.share.get(group_id)),
            None if create => Ok(None),
            _ => Err(ErrorCode::GroupIdNotFound),
        }
    }

    fn share_heartbeat(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<(HeartbeatReply, Vec<Body>), Refused> {
        let group_id = request.group_id.as_str();
        let joins = request.member_epoch == JOIN;
        let found = self.share_group_or_new(group_id, joins);
        let found = found.map_err(|error| (error, format!("Share group {group_id} not found.")))?;
        let fresh = ShareGroup::new(group_id.into());
        let group = found.unwrap_or(&fresh);
        self.check_share_size(group, &request.member_id)?;
        let (before, is_new) = match group.members.get(request.member_id.as_str()) {
            Some(member) => (member.clone(), false),
            None if joins => (Member::default(), true),
            None => {
                let message = format!("Member {} is not a member of group {group_id}.", request.member_id);
                return Err((ErrorCode::UnknownMemberId, message));
            }
        };
        check_epoch(&before, request.member_epoch)?;
        let mut member = Member { subscription: subscription(&before.subscription, ctx, request), ..before.clone() };
        self.check_share_metadata(group, &request.member_id, &member.subscription)?;

        let member_id: Arc<str> = request.member_id.as_str().into();
        let mut step = Step { now_ms, group, bodies: Vec::new() };
        let changed = member.subscription.topics != before.subscription.topics;
        if is_new || member.subscription != before.subscription {
            step.bodies.push(Body::Member(member_id.clone(), Some(member.subscription.clone())));
        }
        let epoch = self.share_group_epoch(&mut step, &member_id, &member, changed);
        let (target_epoch, target) = self.share_target(&mut step, epoch, &member_id, &member);
        self.reconcile_share_member(&mut step, &member_id, &mut member, target_epoch, &target, changed);
        let topics = step.topics_with(&member_id, Some(&member));
        let initialize = self.share_initialize(&mut step.bodies, group, now_ms, epoch, &topics);
        let tells = joins || request.subscribed_topic_names.is_some() || member.assigned != before.assigned;
        let response = ShareGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: member.epoch,
            heartbeat_interval_ms: self.share_heartbeat_interval_ms(group_id),
            assignment: tells.then(|| told_assignment(&member.assigned)),
            ..Default::default()
        };
        let bodies = step.bodies;
        if let Some(group) = self.share.get_mut(group_id) {
            group.refreshed_at_epoch = Some(epoch);
        }
        Ok((HeartbeatReply { response, initialize }, bodies))
    }

    fn check_share_size(&self, group: &ShareGroup, member_id: &str) -> Result<(), Refused> {
        let max = usize::try_from(self.config.share.max_size).unwrap_or(0);
        if group.members.len() < max || group.members.contains_key(member_id) {
            return Ok(());
        }
        Err((
            ErrorCode::GroupMaxSizeReached,
            format!("The share group has reached its maximum capacity of {max} members."),
        ))
    }

    fn check_share_metadata(
        &self,
        group: &ShareGroup,
        member_id: &str,
        subscription: &Subscription,
    ) -> Result<(), Refused> {
        let others = group.members.iter().filter(|(id, _)| ***id != *member_id).map(|(_, member)| &member.subscription);
        let bytes: usize = others.map(bytes_of).fold(bytes_of(subscription), usize::saturating_add);
        match bytes > limits::GROUP_METADATA_BYTES_MAX {
            true => Err((ErrorCode::GroupMaxSizeReached, "The group's members say too much.".to_owned())),
            false => Ok(()),
        }
    }

    /// The group's epoch goes up when what has to be assigned changed.
    fn share_group_epoch(&self, step: &mut Step<'_>, member_id: &Arc<str>, member: &Member, changed: bool) -> i32 {
        let group = step.group;
        let mut bump = changed;
        if group.target_metadata.epoch >= group.epoch {
            bump |= group.has_initialized_pending();
        }
        let refresh = group.refreshed_at_epoch.is_none_or(|epoch| group.epoch < epoch);
        if !bump && !refresh {
            return group.epoch;
        }
        let hash = TopicHashes::default().group_hash(&*self.image, &step.topics_with(member_id, Some(member)));
        bump |= hash != group.metadata_hash;
        if !bump {
            return group.epoch;
        }
        let epoch = group.epoch.saturating_add(1);
        step.bodies.push(Body::Epoch(Some(Epoch { epoch, metadata_hash: hash })));
        epoch
    }

    /// The member's target: the one that is, or a new one of the group's epoch.
    fn share_target(
        &self,
        step: &mut Step<'_>,
        epoch: i32,
        member_id: &Arc<str>,
        member: &Member,
    ) -> (i32, Assignment) {
        let group = step.group;
        let metadata = group.target_metadata;
        let due = may_assign(metadata.timestamp_ms, self.share_assignment_interval_ms(&group.id), step.now_ms);
        if metadata.epoch >= epoch || !due {
            return (metadata.epoch, group.target.get(member_id).cloned().unwrap_or_default());
        }
        let mut subscriptions: BTreeMap<Arc<str>, &Subscription> =
            group.members.iter().map(|(id, member)| (id.clone(), &member.subscription)).collect();
        subscriptions.insert(member_id.clone(), &member.subscription);
        let topic_ids = |subscription: &Subscription| {
            subscription.topics.iter().filter_map(|name| self.image.topic_by_name(name)).map(|topic| topic.id).collect()
        };
        let initialized = group.initialized().into_iter().flatten();
        let exists = |id: &taccola_base::Uuid| self.image.topic_by_id(*id).map_or(0, |topic| topic.partitions);
        let assignable = initialized.map(|(id, topic)| {
            let count = exists(id);
            (*id, topic.partitions.iter().copied().filter(|partition| *partition < count).collect())
        });
        let input = assignor::Input {
            subscriptions: subscriptions
                .iter()
                .map(|(id, subscription)| (id.clone(), topic_ids(subscription)))
                .collect(),
            previous: group.target.clone(),
            assignable: assignable.collect(),
        };
        let mut assigned = assignor::assign(&input);
        for (id, assignment) in &assigned {
            if group.target.get(id) != Some(assignment) {
                step.bodies.push(Body::TargetMember(id.clone(), Some(assignment.clone())));
            }
        }
        step.bodies.push(Body::TargetMetadata(Some(TargetMetadata { epoch, timestamp_ms: step.now_ms })));
        (epoch, assigned.remove(member_id).unwrap_or_default())
    }

    /// Members of share groups take their target at once: nobody has to give anything back first.
    fn reconcile_share_member(
        &self,
        step: &mut Step<'_>,
        member_id: &Arc<str>,
        member: &mut Member,
        target_epoch: i32,
        target: &Assignment,
        changed: bool,
    ) {
        let before = (member.epoch, member.assigned.clone());
        if target_epoch != member.epoch || changed {
            let wanted = |id: &taccola_base::Uuid| {
                let topic = self.image.topic_by_id(*id);
                topic.is_some_and(|topic| member.subscription.topics.contains(&topic.name))
            };
            member.assigned =
                target.iter().filter(|(id, _)| wanted(id)).map(|(id, partitions)| (*id, partitions.clone())).collect();
        }
        if target_epoch != member.epoch {
            (member.previous_epoch, member.epoch) = (member.epoch, target_epoch);
        }
        if before != (member.epoch, member.assigned.clone()) {
            let current = Current {
                epoch: member.epoch,
                previous_epoch: member.previous_epoch,
                assigned: member.assigned.clone(),
            };
            step.bodies.push(Body::Current(member_id.clone(), Some(current)));
        }
    }

    fn share_leave(&self, request: &ShareGroupHeartbeatRequest) -> Result<(HeartbeatReply, Vec<Body>), Refused> {
        let group = self.share.get(request.group_id.as_str());
        let group =
            group.ok_or_else(|| (ErrorCode::GroupIdNotFound, format!("Group {} not found.", request.group_id)))?;
        if !group.members.contains_key(request.member_id.as_str()) {
            let message = format!("Member {} is not a member of group {}.", request.member_id, request.group_id);
            return Err((ErrorCode::UnknownMemberId, message));
        }
        let response = ShareGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            ..Default::default()
        };
        Ok((HeartbeatReply { response, initialize: None }, self.share_fence(group, &request.member_id)))
    }

    /// The records that remove a member.
    fn share_fence(&self, group: &ShareGroup, member_id: &str) -> Vec<Body> {
        let id: Arc<str> = member_id.into();
        let step = Step { now_ms: 0, group, bodies: Vec::new() };
        let metadata_hash = TopicHashes::default().group_hash(&*self.image, &step.topics_with(&id, None));
        vec![
            Body::Current(id.clone(), None),
            Body::TargetMember(id.clone(), None),
            Body::Member(id, None),
            Body::Epoch(Some(Epoch { epoch: group.epoch.saturating_add(1), metadata_hash })),
        ]
    }

    /// A sign of life. The member may be on its way into the log: then the session begins with it.
    fn touch_share_member(&mut self, now_ms: i64, group_id: &str, member_id: &str, out: &mut Outbox) {
        let deadline_ms = now_ms.saturating_add(i64::from(self.share_session_timeout_ms(group_id)));
        let before = match self.share.get_mut(group_id) {
            Some(group) => group.sessions.insert(member_id.into(), deadline_ms),
            None => None,
        };
        // A timer that fires early is set again; one that is set for later than the new deadline would be late.
        if before.is_none_or(|before_ms| deadline_ms < before_ms) {
            out.set_timer(session_timer(group_id, member_id), deadline_ms);
        }
    }

    /// A member's session may have ended.
    pub(crate) fn share_timer_fired(&mut self, now_ms: i64, key: &TimerKey, out: &mut Outbox) {
        let TimerKey::ModernSession { group: group_id, member: member_id } = key else { return };
        let Some(group) = self.share.get_mut(group_id) else { return };
        if !group.members.contains_key(member_id) {
            group.sessions.remove(member_id);
            return;
        }
        let Some(group) = self.share.get(group_id) else { return };
        match group.sessions.get(member_id) {
            Some(deadline_ms) if *deadline_ms > now_ms => {
                out.set_timer(key.clone(), *deadline_ms);
            }
            // The first heartbeat came before the member was known.
            None => self.touch_share_member(now_ms, group_id, member_id, out),
            Some(_) => {
                // A member whose tombstones are on the way into the log is gone before the next step; should they not
                // get there, its session ends once more.
                let bodies = self.share_fence(group, member_id);
                // What stood in records goes into records.
                let _ = self.write_share(group_id, bodies, out);
                out.set_timer(key.clone(), now_ms.saturating_add(FENCE_RETRY_MS));
            }
        }
    }

    /// What a record says becomes so; from the log `now_ms` is 0.
    pub(crate) fn apply_share(&mut self, now_ms: i64, record: GroupRecord) {
        let GroupRecord { group, body } = record;
        if body == Body::Epoch(None) {
            self.share.remove(&group);
            return;
        }
        if body.is_tombstone() && !self.share.contains_key(&group) {
            return;
        }
        // It may take the place of a group that has offsets alone.
        self.groups.remove(&group);
        let entry = self.share.entry(group).or_insert_with_key(|id| ShareGroup::new(id.clone()));
        entry.apply(now_ms, body);
    }

    /// Metadata changed: groups look at their topics again.
    pub(crate) fn share_image(&mut self, changes: &TopicChanges, out: &mut Outbox) {
        let deleted = changes.deleted.iter().map(|(name, _)| name.as_str());
        let names: BTreeSet<&str> = changes.changed.iter().map(|name| &**name).chain(deleted).collect();
        for group in self.share.values_mut() {
            if names.iter().any(|name| group.is_subscribed_to(name)) {
                group.refreshed_at_epoch = None;
            }
        }
        self.share_topics_deleted(&changes.deleted, out);
    }

    /// The log is replayed: sessions begin.
    pub(crate) fn share_loaded(&mut self, now_ms: i64, out: &mut Outbox) {
        let members: Vec<(Arc<str>, Arc<str>)> = self
            .share
            .iter()
            .flat_map(|(group, state)| state.members.keys().map(move |member| (group.clone(), member.clone())))
            .collect();
        for (group, member) in members {
            self.touch_share_member(now_ms, &group, &member, out);
        }
    }

    /// What is told of a share group; an error stands for a group that is not one.
    pub fn describe_share_group(&self, group_id: &str) -> describe::DescribedGroup {
        let Some(group) = self.share.get(group_id) else {
            let message = match self.kind_of(group_id) {
                Some(_) => format!("Group {group_id} is not a share group."),
                None => format!("Group {group_id} not found."),
            };
            return describe::DescribedGroup {
                group_id: group_id.to_owned(),
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(message),
                ..Default::default()
            };
        };
        describe::DescribedGroup {
            group_id: group_id.to_owned(),
            group_state: group.state_name().to_owned(),
            group_epoch: group.epoch,
            assignment_epoch: group.target_metadata.epoch,
            assignor_name: ASSIGNOR.to_owned(),
            members: group.members.iter().map(|(id, member)| described(&*self.image, id, member)).collect(),
            ..Default::default()
        }
    }

    fn share_session_timeout_ms(&self, group_id: &str) -> i32 {
        let share = &self.config.share;
        let (default, min, max) =
            (share.session_timeout_ms, share.min_session_timeout_ms, share.max_session_timeout_ms);
        settings::of_group(&*self.image, group_id, "share.session.timeout.ms", default, min, max)
    }

    fn share_heartbeat_interval_ms(&self, group_id: &str) -> i32 {
        let share = &self.config.share;
        let (default, min, max) =
            (share.heartbeat_interval_ms, share.min_heartbeat_interval_ms, share.max_heartbeat_interval_ms);
        settings::of_group(&*self.image, group_id, "share.heartbeat.interval.ms", default, min, max)
    }

    fn share_assignment_interval_ms(&self, group_id: &str) -> i32 {
        let share = &self.config.share;
        let (default, min, max) =
            (share.assignment_interval_ms, share.min_assignment_interval_ms, share.max_assignment_interval_ms);
        settings::of_group(&*self.image, group_id, "share.assignment.interval.ms", default, min, max)
    }
}

impl Step<'_> {
    /// Names of the topics that the group subscribes to with the member as given, or without it.
    fn topics_with(&self, member_id: &Arc<str>, member: Option<&Member>) -> BTreeSet<Arc<str>> {
        let others = self.group.members.iter().filter(|(id, _)| *id != member_id).map(|(_, member)| member);
        others.chain(member).flat_map(|member| &member.subscription.topics).cloned().collect()
    }
}

pub(crate) fn session_timer(group: &str, member: &str) -> TimerKey {
    TimerKey::ModernSession { group: group.into(), member: member.into() }
}

fn check_request(request: &ShareGroupHeartbeatRequest) -> Result<(), Refused> {
    let invalid = |message: &str| Err((ErrorCode::InvalidRequest, message.to_owned()));
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    // An id of Kafka's has 22 characters, a UUID 36.
    if request.member_id.encode_utf16().count() > MEMBER_ID_LENGTH_MAX {
        return invalid("MemberId is too long.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|rack| rack.trim().is_empty()) {
        return invalid("RackId can't be empty.");
    }
    if request.member_epoch == JOIN && request.subscribed_topic_names.as_ref().is_none_or(Vec::is_empty) {
        return invalid("SubscribedTopicNames must be set in first request.");
    }
    if request.member_epoch < LEAVE {
        return invalid("MemberEpoch is invalid.");
    }
    Ok(())
}

/// A member knows its epoch, or the one before when a reply got lost; joining again is always right.
fn check_epoch(member: &Member, epoch: i32) -> Result<(), Refused> {
    if epoch == JOIN || epoch == member.epoch || (epoch < member.epoch && epoch == member.previous_epoch) {
        return Ok(());
    }
    let side = if epoch > member.epoch { "greater" } else { "smaller" };
    let message = format!(
        "The share group member has a {side} member epoch ({epoch}) than the one known by the group coordinator ({}). \
         The member must abandon all its partitions and rejoin.",
        member.epoch
    );
    Err((ErrorCode::FencedMemberEpoch, message))
}

fn subscription(before: &Subscription, ctx: &RequestContext<'_>, request: &ShareGroupHeartbeatRequest) -> Subscription {
    let topics = request.subscribed_topic_names.as_ref();
    Subscription {
        rack_id: request.rack_id.clone().or_else(|| before.rack_id.clone()),
        client_id: ctx.client_id.to_owned(),
        client_host: ctx.client_host.to_owned(),
        topics: topics.map_or_else(
            || before.topics.clone(),
            |topics| topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
        ),
    }
}

fn bytes_of(subscription: &Subscription) -> usize {
    subscription.topics.iter().map(|topic| topic.len()).sum::<usize>()
        + subscription.client_id.len()
        + subscription.client_host.len()
        + subscription.rack_id.as_ref().map_or(0, String::len)
}

fn told_assignment(assignment: &Assignment) -> heartbeat::Assignment {
    let topic = |(topic_id, partitions): (&taccola_base::Uuid, &BTreeSet<i32>)| heartbeat::TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.iter().copied().collect(),
    };
    heartbeat::Assignment { topic_partitions: assignment.iter().map(topic).collect() }
}

fn described(image: &dyn ClusterImage, id: &str, member: &Member) -> describe::Member {
    let topics = member.assigned.iter().filter_map(|(topic_id, partitions)| {
        image.topic_by_id(*topic_id).map(|topic| describe::TopicPartitions {
            topic_id: *topic_id,
            topic_name: topic.name.to_string(),
            partitions: partitions.iter().copied().collect(),
        })
    });
    describe::Member {
        member_id: id.to_owned(),
        rack_id: member.subscription.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.subscription.client_id.clone(),
        client_host: member.subscription.client_host.clone(),
        subscribed_topic_names: member.subscription.topics.iter().map(ToString::to_string).collect(),
        assignment: describe::Assignment { topic_partitions: topics.collect() },
    }
}
