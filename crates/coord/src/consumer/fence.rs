//! Members that leave, or are given up. Answers to `GroupMetadataManager.consumerGroupLeave` and
//! `consumerGroupFenceMembers`.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use taccola_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use super::group::{ConsumerGroup, TopicDeltas};
use super::heartbeat::Refusal;
use super::member::{Current, MemberState};
use super::records::{Body, GroupEpoch};
use crate::cluster_image::ClusterImage;
use crate::effects::TimerKey;
use crate::modern::topics::TopicHashes;
use crate::modern::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH};
use crate::outbox::Outbox;
use crate::shard::GroupShard;

impl GroupShard {
    pub(super) fn consumer_leave(
        &mut self,
        now_ms: i64,
        request: &ConsumerGroupHeartbeatRequest,
        out: &mut Outbox,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let group = self.consumer.get(request.group_id.as_str()).ok_or(ErrorCode::GroupIdNotFound)?;
        let (id, member) = match request.instance_id.as_deref() {
            None => group.members.get_key_value(request.member_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?,
            Some(instance) => {
                let (id, member) = group.static_member(instance).ok_or(ErrorCode::UnknownMemberId)?;
                if **id != *request.member_id {
                    return Err(ErrorCode::FencedInstanceId.into());
                }
                (id, member)
            }
        };
        let id = id.clone();
        if request.instance_id.is_some() && request.member_epoch == LEAVE_STATIC_EPOCH {
            // What it has stays its own until its session ends; whoever comes back for it may commit at any epoch.
            let mut current =
                Current { epoch: LEAVE_STATIC_EPOCH, pending_revocation: BTreeMap::new(), ..member.current.clone() };
            current.assigned.values_mut().flat_map(BTreeMap::values_mut).for_each(|epoch| *epoch = 0);
            group.write(out, Body::Current { member: id.clone(), value: Some(Box::new(current)) })?;
        } else {
            self.fence_consumer_members(now_ms, &request.group_id, std::slice::from_ref(&id), out)?;
        }
        let member_epoch = request.member_epoch.min(LEAVE_EPOCH);
        Ok(ConsumerGroupHeartbeatResponse { member_id: Some(id.to_string()), member_epoch, ..Default::default() })
    }

    /// Writes members out of the group, which rebalances without them; or goes back to the classic protocol if nobody
    /// speaks another any more.
    pub(super) fn fence_consumer_members(
        &mut self,
        now_ms: i64,
        group_id: &str,
        members: &[Arc<str>],
        out: &mut Outbox,
    ) -> Result<(), ErrorCode> {
        if self.downgrade_without(now_ms, group_id, members, out)? {
            return Ok(());
        }
        let Some(group) = self.consumer.get(group_id) else { return Ok(()) };
        // Their timers go on: should the records not get into the log, the sessions still end. Else they fire in vain.
        fence(group, members, &*self.image, &mut self.topic_hashes, out)
    }

    /// A session may be over, or the time to give partitions back.
    pub(crate) fn consumer_timer_fired(&mut self, now_ms: i64, key: &TimerKey, out: &mut Outbox) {
        let (group_id, member, up) = match key {
            TimerKey::ModernSession { group: id, member } => {
                let Some(group) = self.consumer.get_mut(id) else { return };
                if !group.members.contains_key(member) {
                    // It has left, or its first record never got into the log.
                    return group.timeouts.forget(member);
                }
                (id, member, group.timeouts.session_fired(id, member, now_ms, out))
            }
            TimerKey::ModernRebalance { group: id, member } => {
                let Some(group) = self.consumer.get_mut(id) else { return };
                let Some(current) = group.members.get(member).map(|m| &m.current) else { return };
                let (epoch, asked) = (current.epoch, current.state == MemberState::UnrevokedPartitions);
                let up = group.timeouts.rebalance_fired(id, member, epoch, now_ms, out);
                let classic = group.members.get(member).is_some_and(super::member::Member::is_classic);
                (id, member, up && (asked || classic))
            }
            _ => return,
        };
        if up {
            // A record that cannot be made is one that could not have been read or made before.
            let _ = self.fence_consumer_members(now_ms, group_id, std::slice::from_ref(member), out);
            // If the tombstones cannot be written, the member is given up again later.
            if out.writes() {
                out.set_timer(key.clone(), now_ms.saturating_add(FENCE_AGAIN_MS));
            }
        }
    }
}

/// When a member that was given up is looked at again, in case it could not be written.
const FENCE_AGAIN_MS: i64 = 10_000;

fn fence(
    group: &ConsumerGroup,
    members: &[Arc<str>],
    image: &dyn ClusterImage,
    hashes: &mut TopicHashes,
    out: &mut Outbox,
) -> Result<(), ErrorCode> {
    let mut deltas = TopicDeltas::default();
    let mut regexes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for id in members {
        let Some(member) = group.members.get(id) else { continue };
        group.write_member_tombstones(id, out)?;
        deltas.add(&member.subscription.topics, -1);
        if member.subscription.has_regex() {
            *regexes.entry(&member.subscription.regex).or_default() += 1;
        }
    }
    for (regex, leaving) in regexes {
        if group.regex_members.get(regex).copied().unwrap_or(0) <= leaving
            && let Some(resolved) = group.regexes.get(regex)
        {
            deltas.add(&resolved.topics, -1);
            group.write(out, Body::Regex { regex: regex.clone(), value: None })?;
        }
    }
    let metadata_hash = hashes.group_hash(image, &group.subscribed_topics_with(&deltas));
    let epoch = group.epoch.checked_add(1).ok_or(ErrorCode::UnknownServerError)?;
    group.write(out, Body::Epoch(Some(GroupEpoch { epoch, metadata_hash })))
}
