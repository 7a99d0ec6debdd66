//! AlterShareGroupOffsets and DeleteShareGroupOffsets: the group coordinator's side of them. The state itself is the share
//! coordinator's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::AlterShareGroupOffsetsRequest;

use super::group::FIRST_EPOCH;
use super::records::Body;
use super::state::begin;
use super::{Assignment, InitTopic, OffsetsReply, OffsetsTopic, ShareReply, StateChange};
use crate::effects::{Effects, Reply, RequestContext};
use crate::group::AnyGroup;
use crate::outbox::Outbox;
use crate::shard::GroupShard;

impl GroupShard {
    /// New start offsets for partitions of an empty group, which is made if there is none: they are set up anew.
    pub fn handle_alter_share_group_offsets(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &AlterShareGroupOffsetsRequest,
    ) -> Effects<ShareReply> {
        let group_id = request.group_id.as_str();
        let refuse = |error| ShareReply::Offsets(OffsetsReply::refused(error));
        let group = match self.share_group_or_new(group_id, true) {
            Ok(group) => group,
            Err(error) => return self.finish(Reply::Now(refuse(error)), Outbox::default()),
        };
        if let Some(Err(error)) = group.map(|group| group.validate_delete()) {
            return self.finish(Reply::Now(refuse(error)), Outbox::default());
        }
        let epoch = group.map_or(FIRST_EPOCH, |group| group.epoch);
        let known = group.and_then(|group| group.state_partitions.clone()).unwrap_or_default();
        let mut change = StateChange { state_epoch: epoch, partitions: BTreeMap::new() };
        let mut initializing: BTreeMap<Uuid, InitTopic> = BTreeMap::new();
        let mut topics = Vec::new();
        for topic in &request.topics {
            let found = self.image.topic_by_name(&topic.topic_name);
            let (id, count) = found.as_ref().map_or((Uuid::ZERO, 0), |info| (info.id, info.partitions));
            let mut partitions = BTreeMap::new();
            for partition in &topic.partitions {
                let index = partition.partition_index;
                if !(0..count).contains(&index) {
                    partitions.insert(index, Some(ErrorCode::UnknownTopicOrPartition));
                    continue;
                }
                partitions.insert(index, None);
                change.partitions.entry(id).or_default().insert(index, partition.start_offset);
                let name: Arc<str> = topic.topic_name.as_str().into();
                let entry = initializing.entry(id).or_insert_with(|| InitTopic {
                    name,
                    partitions: BTreeSet::new(),
                    since_ms: now_ms,
                });
                entry.partitions.insert(index);
            }
            topics.push(OffsetsTopic { name: topic.topic_name.clone(), id, error: None, partitions });
        }
        let mut out = Outbox::default();
        let written = match initializing.is_empty() {
            true => Ok(()),
            false => {
                self.write_share(group_id, vec![Body::StatePartitions(Some(begin(known, initializing)))], &mut out)
            }
        };
        if let Err(error) = written {
            return self.finish(Reply::Now(refuse(error)), Outbox::default());
        }
        let change = (!change.partitions.is_empty()).then_some(change);
        self.finish_share(ctx, group_id, ShareReply::Offsets(OffsetsReply { error: None, topics, change }), out)
    }

    /// State of topics of an empty group is to be forgotten.
    pub fn handle_delete_share_group_offsets(
        &mut self,
        ctx: &RequestContext<'_>,
        group_id: &str,
        names: &[String],
    ) -> Effects<ShareReply> {
        let refuse = |error| ShareReply::Offsets(OffsetsReply::refused(error));
        let Some(group) = self.share.get(group_id) else {
            return self.finish(Reply::Now(refuse(ErrorCode::GroupIdNotFound)), Outbox::default());
        };
        if let Err(error) = group.validate_delete() {
            return self.finish(Reply::Now(refuse(error)), Outbox::default());
        }
        let mut known = group.state_partitions.clone().unwrap_or_default();
        let mut change = StateChange { state_epoch: group.epoch, partitions: BTreeMap::new() };
        let mut topics: Vec<OffsetsTopic> = Vec::new();
        for name in names {
            let info = self.image.topic_by_name(name);
            let id = info.as_ref().map_or(Uuid::ZERO, |info| info.id);
            let unknown = OffsetsTopic {
                name: name.clone(),
                id: Uuid::ZERO,
                error: Some(ErrorCode::UnknownTopicOrPartition),
                partitions: BTreeMap::new(),
            };
            let Some(info) = info else {
                topics.push(unknown);
                continue;
            };
            let partitions: BTreeSet<i32> = match known.initialized.remove(&id) {
                Some(topic) => topic.partitions,
                // An earlier attempt did not get to its end.
                None if known.deleting.contains_key(&id) => (0..info.partitions).collect(),
                None => {
                    topics.push(unknown);
                    continue;
                }
            };
            known.deleting.insert(id, info.name.clone());
            change.partitions.insert(id, partitions.iter().map(|partition| (*partition, -1)).collect());
            let partitions = partitions.into_iter().map(|partition| (partition, None)).collect();
            topics.push(OffsetsTopic { name: name.clone(), id, error: None, partitions });
        }
        if change.partitions.is_empty() {
            let reply = ShareReply::Offsets(OffsetsReply { error: None, topics, change: None });
            return self.finish_share(ctx, group_id, reply, Outbox::default());
        }
        let reply = ShareReply::Offsets(OffsetsReply { error: None, topics, change: Some(change) });
        self.write_share_state(ctx, group_id, known, reply)
    }

    /// The share coordinator has forgotten these topics.
    pub fn handle_share_offsets_deleted(
        &mut self,
        ctx: &RequestContext<'_>,
        group_id: &str,
        topics: &BTreeSet<Uuid>,
    ) -> Effects<ShareReply> {
        let Some(group) = self.share.get(group_id) else {
            return self.finish(Reply::Now(ShareReply::Done(Ok(()))), Outbox::default());
        };
        let mut known = group.state_partitions.clone().unwrap_or_default();
        known.deleting.retain(|id, _| !topics.contains(id));
        self.write_share_state(ctx, group_id, known, ShareReply::Done(Ok(())))
    }

    /// Partitions whose state is set up, of a group that may not exist.
    pub fn share_initialized_partitions(&self, group_id: &str) -> Assignment {
        let group = self.share.get(group_id);
        let topics = group.and_then(|group| group.initialized()).into_iter().flatten();
        topics.map(|(id, topic)| (*id, topic.partitions.clone())).collect()
    }
}
