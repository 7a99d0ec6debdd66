//! Which partitions of a share group have state at the share coordinator: what has to be set up, what has been, what is
//! forgotten with its group or topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;

use super::group::ShareGroup;
use super::records::Body;
use super::{Assignment, InitTopic, ShareReply, StateChange, StatePartitions};
use crate::cluster_image::ClusterImage;
use crate::effects::{Effects, Reply, RequestContext, Response};
use crate::group::AnyGroup;
use crate::outbox::Outbox;
use crate::shard::GroupShard;

/// The start offset of partitions whose leader decides.
const LEADER_DECIDES: i64 = -1;

impl GroupShard {
    /// Partitions of subscribed topics that have no state yet, or not after `group.share.initialize.retry.interval.ms`:
    /// they are recorded as being set up.
    pub(super) fn share_initialize(
        &self,
        bodies: &mut Vec<Body>,
        group: &ShareGroup,
        now_ms: i64,
        epoch: i32,
        topics: &BTreeSet<Arc<str>>,
    ) -> Option<StateChange> {
        let known = group.state_partitions.clone().unwrap_or_default();
        let retry_ms = i64::from(self.config.share.initialize_retry_interval_ms);
        let mut missing: BTreeMap<Uuid, InitTopic> = BTreeMap::new();
        for topic in topics.iter().filter_map(|name| self.image.topic_by_name(name)) {
            let initializing =
                known.initializing.get(&topic.id).filter(|t| t.since_ms >= now_ms.saturating_sub(retry_ms));
            let has = |partition: &i32| {
                [known.initialized.get(&topic.id), initializing]
                    .iter()
                    .flatten()
                    .any(|topic| topic.partitions.contains(partition))
            };
            let partitions: BTreeSet<i32> = (0..topic.partitions).filter(|partition| !has(partition)).collect();
            if !partitions.is_empty() {
                missing.insert(topic.id, InitTopic { name: topic.name.clone(), partitions, since_ms: now_ms });
            }
        }
        if missing.is_empty() {
            return None;
        }
        let change = StateChange {
            state_epoch: epoch,
            partitions: missing
                .iter()
                .map(|(id, topic)| (*id, topic.partitions.iter().map(|p| (*p, LEADER_DECIDES)).collect()))
                .collect(),
        };
        bodies.push(Body::StatePartitions(Some(begin(known, missing))));
        Some(change)
    }

    /// The share coordinator has set up these partitions.
    pub fn handle_share_state_initialized(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        group_id: &str,
        partitions: &Assignment,
    ) -> Effects<ShareReply> {
        self.change_share_state(ctx, group_id, |image, known| {
            for (id, partitions) in partitions {
                let name = known.initializing.get(id).map(|topic| topic.name.clone());
                let name = name.or_else(|| image.topic_by_id(*id).map(|topic| topic.name));
                let topic = known.initialized.entry(*id).or_insert_with(|| InitTopic {
                    name: name.unwrap_or_else(|| Arc::from(UNKNOWN_TOPIC)),
                    partitions: BTreeSet::new(),
                    since_ms: now_ms,
                });
                topic.partitions.extend(partitions);
            }
            remove(&mut known.initializing, partitions);
        })
    }

    /// The share coordinator could not set up these partitions: the next heartbeat has it tried again.
    pub fn handle_share_state_uninitialized(
        &mut self,
        ctx: &RequestContext<'_>,
        group_id: &str,
        partitions: &Assignment,
    ) -> Effects<ShareReply> {
        self.change_share_state(ctx, group_id, |_, known| remove(&mut known.initializing, partitions))
    }

    /// Before a group is deleted, all its state is: answers with what the share coordinator has to forget.
    pub fn handle_share_group_forget(&mut self, ctx: &RequestContext<'_>, group_id: &str) -> Effects<ShareReply> {
        let Some(group) = self.share.get(group_id) else {
            return self.finish(Reply::Now(ShareReply::Forget(Ok(None))), Outbox::default());
        };
        if let Err(error) = group.validate_delete() {
            return self.finish(Reply::Now(ShareReply::Forget(Err(error))), Outbox::default());
        }
        let Some(mut known) = group.state_partitions.clone() else {
            return self.finish(Reply::Now(ShareReply::Forget(Ok(None))), Outbox::default());
        };
        let mut partitions: BTreeMap<Uuid, BTreeMap<i32, i64>> = BTreeMap::new();
        for (id, topic) in known.initialized.iter().chain(&known.initializing) {
            partitions.entry(*id).or_default().extend(topic.partitions.iter().map(|p| (*p, LEADER_DECIDES)));
        }
        for topic in known.deleting.keys().filter_map(|id| self.image.topic_by_id(*id)) {
            partitions.entry(topic.id).or_default().extend((0..topic.partitions).map(|p| (p, LEADER_DECIDES)));
        }
        for (id, topic) in
            std::mem::take(&mut known.initialized).into_iter().chain(std::mem::take(&mut known.initializing))
        {
            known.deleting.insert(id, topic.name);
        }
        // Of topics that are gone the share coordinator has forgotten the state itself.
        partitions.retain(|id, _| self.image.topic_by_id(*id).is_some());
        let change = (!partitions.is_empty()).then_some(StateChange { state_epoch: group.epoch, partitions });
        self.write_share_state(ctx, group_id, known, ShareReply::Forget(Ok(change)))
    }

    /// Topics are gone, and the share coordinator forgets their state by itself.
    pub(crate) fn share_topics_deleted(&self, deleted: &[(String, Uuid)], out: &mut Outbox) {
        for (group_id, group) in &self.share {
            let Some(known) = &group.state_partitions else { continue };
            let mut left = known.clone();
            for (_, id) in deleted {
                left.initializing.remove(id);
                left.initialized.remove(id);
                left.deleting.remove(id);
            }
            if left != *known {
                // The same names stood in the record before.
                let _ = self.write_share(group_id, vec![Body::StatePartitions(Some(left))], out);
            }
        }
    }

    fn change_share_state(
        &mut self,
        ctx: &RequestContext<'_>,
        group_id: &str,
        change: impl FnOnce(&dyn ClusterImage, &mut StatePartitions),
    ) -> Effects<ShareReply> {
        // The group may have been deleted meanwhile.
        let Some(group) = self.share.get(group_id) else {
            return self.finish(Reply::Now(ShareReply::Done(Err(ErrorCode::GroupIdNotFound))), Outbox::default());
        };
        let before = group.state_partitions.clone().unwrap_or_default();
        let mut known = before.clone();
        change(&*self.image, &mut known);
        if known == before {
            return self.finish_share(ctx, group_id, ShareReply::Done(Ok(())), Outbox::default());
        }
        self.write_share_state(ctx, group_id, known, ShareReply::Done(Ok(())))
    }

    pub(super) fn write_share_state(
        &mut self,
        ctx: &RequestContext<'_>,
        group_id: &str,
        known: StatePartitions,
        reply: ShareReply,
    ) -> Effects<ShareReply> {
        let mut out = Outbox::default();
        match self.write_share(group_id, vec![Body::StatePartitions(Some(known))], &mut out) {
            Ok(()) => self.finish_share(ctx, group_id, reply, out),
            Err(error) => self.finish(Reply::Now(reply.into_failure(error)), Outbox::default()),
        }
    }

    pub(super) fn finish_share(
        &mut self,
        ctx: &RequestContext<'_>,
        group_id: &str,
        reply: ShareReply,
        out: Outbox,
    ) -> Effects<ShareReply> {
        self.finish_modern(ctx.token, group_id, reply, out, Response::Share)
    }
}

/// The name of a topic that is gone before its state was recorded.
const UNKNOWN_TOPIC: &str = "<UNKNOWN>";

/// Partitions begin to be set up: whatever was being forgotten of their topics is not any more.
pub(super) fn begin(mut known: StatePartitions, topics: BTreeMap<Uuid, InitTopic>) -> StatePartitions {
    for (id, topic) in topics {
        known.deleting.remove(&id);
        match known.initializing.entry(id) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(topic);
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let initializing = occupied.get_mut();
                initializing.partitions.extend(topic.partitions);
                initializing.since_ms = topic.since_ms;
            }
        }
    }
    known
}

fn remove(topics: &mut BTreeMap<Uuid, InitTopic>, partitions: &Assignment) {
    for (id, partitions) in partitions {
        if let Some(topic) = topics.get_mut(id) {
            topic.partitions.retain(|partition| !partitions.contains(partition));
        }
    }
    topics.retain(|_, topic| !topic.partitions.is_empty());
}
