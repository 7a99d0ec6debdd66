//! The way of a group from one protocol to the other while its members stay: up with the first member that sends a
//! ConsumerGroupHeartbeat, down when the last of these is gone. `group.consumer.migration.policy` allows each. Answers to
//! `convertToConsumerGroup` and `convertToClassicGroup` of Kafka's `GroupMetadataManager`.
//!
//! Both happen in one append: tombstones of what the group was, and the records of what it is.

use std::sync::Arc;

use taccola_base::config::MigrationPolicy;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;

use super::embedded::{assignment_of, bytes_of, subscription_of};
use super::group::ConsumerGroup;
use super::heartbeat::Refusal;
use super::member::{ClassicMember, Current, Member, Subscription};
use super::records::{Body, GroupEpoch, TargetEpoch};
use crate::classic;
use crate::cluster_image::ClusterImage;
use crate::group::AnyGroup;
use crate::modern::assignment::EpochAssignment;
use crate::modern::timeouts::session_key;
use crate::outbox::{Change, Outbox};
use crate::records;
use crate::shard::GroupShard;

/// One member of a classic group, as a consumer group keeps it.
struct Converted {
    id: Arc<str>,
    subscription: Subscription,
    current: Current,
}

impl GroupShard {
    /// The consumer group that a classic group with members becomes; `None`: there is no such group. Its records are
    /// written.
    pub(super) fn upgraded(
        &mut self,
        now_ms: i64,
        group_id: &str,
        out: &mut Outbox,
    ) -> Result<Option<Box<ConsumerGroup>>, Refusal> {
        let Some(group) = self.groups.get_mut(group_id).filter(|group| !group.members.is_empty()) else {
            return Ok(None);
        };
        let policy = self.config.consumer.migration_policy;
        let refuse = |why: &str| Err(Refusal::new(ErrorCode::GroupIdNotFound, why));
        if !matches!(policy, MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional) {
            return refuse("The group is a classic one, and the upgrade of groups with members is disabled.");
        }
        if !group.uses_consumer_protocol() {
            return refuse("The group is a classic one whose members are no consumers.");
        }
        if group.members.len() > usize::try_from(self.config.consumer.max_size).unwrap_or(0) {
            return refuse("The group is a classic one with more members than a consumer group may have.");
        }
        let members: Option<Vec<Converted>> = group.members.values().map(|m| convert(&*self.image, m, group)).collect();
        let Some(members) = members else {
            return refuse("The group is a classic one whose subscriptions or assignments cannot be read.");
        };
        let tombstone = records::group_tombstone(group_id).map_err(|_| ErrorCode::InvalidGroupId)?;
        out.write(tombstone, Change::ClassicGone { group: group.id.clone() });
        let (id, generation) = (group.id.clone(), group.generation);
        let mut made = Box::new(ConsumerGroup::new(id.clone()));
        for body in bodies(members, generation) {
            made.apply(&body);
            if let Body::Epoch(Some(epoch)) = &body {
                let metadata_hash = self.topic_hashes.group_hash(&*self.image, made.subscribed_topics());
                let body = Body::Epoch(Some(GroupEpoch { metadata_hash, ..*epoch }));
                made.apply(&body);
                made.write(out, body)?;
            } else {
                made.write(out, body)?;
            }
        }
        // Members that wait for the classic group come back to this one.
        group.release_all(ErrorCode::RebalanceInProgress, out);
        for (member_id, member) in &made.members {
            let session_ms = member.subscription.classic.as_ref().map_or(0, |c| i64::from(c.session_timeout_ms));
            out.set_timer(session_key(&id, member_id), now_ms.saturating_add(session_ms));
        }
        Ok(Some(made))
    }

    /// Makes a classic group of what is left without these members, if they all speak its protocol. Whether it did.
    pub(super) fn downgrade_without(
        &mut self,
        now_ms: i64,
        group_id: &str,
        leaving: &[Arc<str>],
        out: &mut Outbox,
    ) -> Result<bool, ErrorCode> {
        let policy = self.config.consumer.migration_policy;
        let incarnation = self.new_incarnation();
        let Some(group) = self.consumer.get(group_id) else { return Ok(false) };
        let stays: Vec<(&Arc<str>, &Member)> = group.members.iter().filter(|(id, _)| !leaving.contains(*id)).collect();
        let may = matches!(policy, MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional)
            && !stays.is_empty()
            && stays.len() <= self.config.members_max()
            && stays.iter().all(|(_, member)| member.is_classic());
        if !may {
            return Ok(false);
        }
        let mut made = classic::Group::new(group.id.clone(), incarnation, now_ms);
        made.protocol_type = Some("consumer".to_owned());
        made.generation = group.epoch;
        for (id, member) in stays {
            made.add(classic_member(&*self.image, group, id, member));
        }
        made.protocol_name = made.select_protocol();
        made.subscribed_topics = made.compute_subscribed_topics();
        made.state = classic::State::Stable;
        made.previous = classic::State::Stable;
        let record = records::group_metadata(&group.id, &made.to_record(|m| m.assignment.clone()))
            .map_err(|_| ErrorCode::UnknownServerError)?;
        group.write_tombstones(out);
        let ids: Vec<Arc<str>> = made.members.keys().cloned().collect();
        for id in &ids {
            made.touch(id, now_ms, out);
        }
        made.prepare_rebalance(now_ms, &self.config, out);
        out.write(record, Change::ClassicBack(Box::new(made)));
        Ok(true)
    }
}

fn convert(image: &dyn ClusterImage, member: &classic::Member, group: &classic::Group) -> Option<Converted> {
    let protocol = group.protocol_name.as_deref().or_else(|| member.protocols.first().map(|p| p.name.as_str()))?;
    let (embedded, _) = subscription_of(image, &member.metadata(protocol))?;
    let assigned: EpochAssignment = assignment_of(image, &member.assignment)?
        .into_iter()
        .map(|(topic, partitions)| (topic, partitions.into_iter().map(|p| (p, group.generation)).collect()))
        .collect();
    let protocols = member.protocols.iter().map(|p| (p.name.clone(), p.metadata.clone())).collect();
    let subscription = Subscription {
        instance_id: member.instance_id.as_deref().map(Arc::from),
        rack_id: embedded.rack_id.filter(|rack| !rack.is_empty()),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topics: embedded.topics,
        regex: Arc::from(""),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: None,
        classic: Some(ClassicMember { session_timeout_ms: member.session_timeout_ms, protocols }),
    };
    let current = Current { epoch: group.generation, previous_epoch: group.generation, assigned, ..Default::default() };
    Some(Converted { id: member.id.clone(), subscription, current })
}

/// The records of a group with these members, all at the generation that they had.
fn bodies(members: Vec<Converted>, generation: i32) -> Vec<Body> {
    let mut bodies = Vec::new();
    let (mut targets, mut currents) = (Vec::new(), Vec::new());
    for Converted { id, subscription, current } in members {
        let target = crate::modern::assignment::without_epochs(&current.assigned);
        bodies.push(Body::Subscription { member: id.clone(), value: Some(Arc::new(subscription)) });
        targets.push(Body::Target { member: id.clone(), value: Some(Arc::new(target)) });
        currents.push(Body::Current { member: id, value: Some(Box::new(current)) });
    }
    bodies.push(Body::Epoch(Some(GroupEpoch { epoch: generation, metadata_hash: 0 })));
    bodies.extend(targets);
    bodies.push(Body::TargetEpoch(Some(TargetEpoch { epoch: generation, timestamp_ms: 0 })));
    bodies.extend(currents);
    bodies
}

fn classic_member(image: &dyn ClusterImage, group: &ConsumerGroup, id: &Arc<str>, member: &Member) -> classic::Member {
    let subscription = &member.subscription;
    let said = subscription.classic.clone().unwrap_or_default();
    let target = group.targets.get(id).cloned().unwrap_or_default();
    let assignment = said.protocols.first().and_then(|(_, metadata)| bytes_of(image, &target, metadata));
    classic::Member {
        id: id.clone(),
        instance_id: subscription.instance_id.as_deref().map(str::to_owned),
        client_id: subscription.client_id.clone(),
        client_host: subscription.client_host.clone(),
        rebalance_timeout_ms: subscription.rebalance_timeout_ms,
        session_timeout_ms: said.session_timeout_ms,
        protocols: said
            .protocols
            .into_iter()
            .map(|(name, metadata)| JoinGroupRequestProtocol { name, metadata })
            .collect(),
        assignment: assignment.unwrap_or_default(),
        join: None,
        sync: None,
        is_new: false,
        session: Default::default(),
    }
}
