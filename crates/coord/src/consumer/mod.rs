//! Consumer groups (KIP-848): the coordinator assigns partitions, members reconcile through heartbeats. Answers to
//! Kafka's `ConsumerGroup` and the consumer half of `GroupMetadataManager`.
//!
//! `group` and `member` hold the state, `records` what it consists of in the log, `heartbeat` a member's way through it,
//! with `regex`, `target` and `reconcile` as its stations, `fence` the way out, `describe` the look from outside, `classic`
//! members of the other protocol, in whose words `embedded` reads, and `migration` the way from one to the other.

mod classic;
mod describe;
mod embedded;
mod fence;
mod group;
mod heartbeat;
mod member;
mod migration;
mod re2;
mod reconcile;
mod records;
mod regex;
mod target;

pub(crate) use group::ConsumerGroup;
pub(crate) use records::GroupRecord;

use crate::cluster_image::TopicChanges;
use crate::outbox::Outbox;
use crate::shard::GroupShard;

impl GroupShard {
    /// A record of a consumer group, from the log or just appended to it.
    pub(crate) fn apply_consumer(&mut self, record: &GroupRecord) {
        let group = match self.consumer.get_mut(&record.group) {
            Some(group) => group,
            None if record.makes_group() => {
                // It takes the place of one that had offsets alone.
                self.groups.remove(&record.group);
                let id = record.group.clone();
                self.consumer.entry(id.clone()).or_insert_with(|| ConsumerGroup::new(id))
            }
            None => return,
        };
        if !group.apply(&record.body) {
            self.consumer.remove(&record.group);
        }
    }

    /// Sessions begin, and the time of those who are to give back.
    pub(crate) fn consumers_loaded(&mut self, now_ms: i64, out: &mut Outbox) {
        let (image, config) = (&*self.image, &self.config.consumer);
        for group in self.consumer.values_mut() {
            let session_ms = heartbeat::session_timeout_ms(image, &group.id, config);
            let id = group.id.clone();
            for (member_id, member) in &group.members {
                let session_ms = member.subscription.classic.as_ref().map_or(session_ms, |c| c.session_timeout_ms);
                group.timeouts.touch(&id, member_id, now_ms, session_ms, out);
                if member.current.state == member::MemberState::UnrevokedPartitions && !member.is_classic() {
                    let timeout_ms = i64::from(member.subscription.rebalance_timeout_ms.max(0));
                    let deadline_ms = now_ms.saturating_add(timeout_ms);
                    group.timeouts.ask(&id, member_id, member.current.epoch, deadline_ms, out);
                }
            }
            group.regex_dirty = !group.regex_members.is_empty();
        }
    }

    /// Topics changed: the next heartbeat of each group that they concern looks at them.
    pub(crate) fn consumers_see(&mut self, changes: &TopicChanges) {
        // A new image without changes: what changed is not known.
        let unknown = changes.changed.is_empty() && changes.deleted.is_empty() && changes.group_configs.is_empty();
        for group in self.consumer.values_mut() {
            group.metadata_dirty |= unknown;
            group.regex_dirty |= unknown && !group.regexes.is_empty();
            let changed = changes.changed.iter().map(|name| (&**name, true));
            let deleted = changes.deleted.iter().map(|(name, _)| (name.as_str(), false));
            for (name, exists) in changed.chain(deleted) {
                // A topic that was deleted may have been made anew.
                let exists = exists || self.image.topic_by_name(name).is_some();
                group.metadata_dirty |= crate::group::AnyGroup::is_subscribed_to(group, name);
                if !group.regex_dirty && !group.regexes.is_empty() {
                    group.regex_dirty = regex::concerns(group, name, exists);
                }
            }
        }
    }
}
