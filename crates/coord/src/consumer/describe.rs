//! ConsumerGroupDescribe. Answers to `ConsumerGroup.asDescribedGroup`.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};

use super::group::ConsumerGroup;
use super::member::{Current, Member};
use super::target::{UNIFORM, short_name};
use crate::modern::assignment::{Assignment, without_epochs};
use crate::shard::GroupShard;

/// Member types of version 1.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl GroupShard {
    /// `authorized_operations` are the caller's to fill in.
    pub fn describe_consumer_groups(&self, group_ids: &[String]) -> Vec<DescribedGroup> {
        group_ids.iter().map(|id| self.describe_consumer_group(id)).collect()
    }

    fn describe_consumer_group(&self, group_id: &str) -> DescribedGroup {
        let Some(group) = self.consumer.get(group_id) else {
            let why = if self.kind_of(group_id).is_some() { "is not a consumer group" } else { "not found" };
            return DescribedGroup {
                group_id: group_id.to_owned(),
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(format!("Group {group_id} {why}.")),
                ..Default::default()
            };
        };
        let default = || self.config.consumer.assignors.first().map_or(UNIFORM, |a| short_name(a)).to_owned();
        DescribedGroup {
            group_id: group_id.to_owned(),
            group_state: group.state().name().to_owned(),
            group_epoch: group.epoch,
            assignment_epoch: group.target_epoch.epoch,
            assignor_name: group.preferred_assignor(None, None).unwrap_or_else(default),
            members: group.members.iter().map(|(id, member)| self.describe_member(group, id, member)).collect(),
            ..Default::default()
        }
    }

    fn describe_member(&self, group: &ConsumerGroup, id: &Arc<str>, member: &Member) -> DescribedMember {
        let subscription = &member.subscription;
        let target = group.target_of(id, subscription.instance_id.as_deref()).cloned().unwrap_or_default();
        DescribedMember {
            member_id: id.to_string(),
            instance_id: subscription.instance_id.as_deref().map(str::to_owned),
            rack_id: subscription.rack_id.clone(),
            member_epoch: member.current.epoch,
            client_id: subscription.client_id.clone(),
            client_host: subscription.client_host.clone(),
            subscribed_topic_names: subscription.topics.iter().map(|t| t.to_string()).collect(),
            subscribed_topic_regex: Some(subscription.regex.to_string()),
            assignment: self.describe_assignment(&held(&member.current)),
            target_assignment: self.describe_assignment(&target),
            member_type: if member.is_classic() { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
        }
    }

    /// Topics that are gone are left out: they have no name.
    fn describe_assignment(&self, assignment: &Assignment) -> DescribedAssignment {
        let row = |(topic_id, partitions): (&Uuid, &Vec<i32>)| {
            let topic = self.image.topic_by_id(*topic_id)?;
            let topic_name = topic.name.to_string();
            Some(TopicPartitions { topic_id: *topic_id, topic_name, partitions: partitions.clone() })
        };
        DescribedAssignment { topic_partitions: assignment.iter().filter_map(row).collect() }
    }
}

/// What a member has: also what it was asked to give back, until it did.
fn held(current: &Current) -> Assignment {
    let mut held = without_epochs(&current.assigned);
    for (topic, partitions) in &current.pending_revocation {
        let of_topic = held.entry(*topic).or_default();
        of_topic.extend(partitions.keys().copied());
        of_topic.sort_unstable();
        of_topic.dedup();
    }
    held
}
