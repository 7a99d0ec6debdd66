//! OffsetCommit and OffsetDelete. Answers to Kafka's `OffsetMetadataManager`.

use std::collections::BTreeSet;
use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use taccola_wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use taccola_wire::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use taccola_wire::messages::{OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse};

use crate::classic::State;
use crate::effects::{Effects, Reply, RequestContext, Response};
use crate::group::{CommitScope, Committer};
use crate::offsets::OffsetAndMetadata;
use crate::outbox::{Change, Outbox};
use crate::records;
use crate::shard::GroupShard;

/// From this version on a group that does not exist is told as such.
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;
/// `retention_time_ms` of a client that leaves the retention to the broker.
const DEFAULT_RETENTION: i64 = -1;

/// The whole request refused: every partition carries the error.
pub fn error_response(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    commit_response(request, |_| error.code())
}

fn commit_response(
    request: &OffsetCommitRequest,
    mut code: impl FnMut(&OffsetCommitRequestPartition) -> i16,
) -> OffsetCommitResponse {
    let mut partition = |p: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
        partition_index: p.partition_index,
        error_code: code(p),
    };
    let topics = request.topics.iter().map(|t| OffsetCommitResponseTopic {
        name: t.name.clone(),
        topic_id: t.topic_id,
        partitions: t.partitions.iter().map(&mut partition).collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

impl GroupShard {
    /// The caller has put both the name and the id to each topic, whichever the request has, and refuses unknown ones.
    pub fn handle_offset_commit(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &OffsetCommitRequest,
    ) -> Effects<OffsetCommitResponse> {
        let mut out = Outbox::default();
        if let Err(error) = self.validate_offset_commit(now_ms, ctx, request, &mut out) {
            return self.finish(Reply::Now(error_response(request, error)), out);
        }
        let group: Arc<str> = request.group_id.as_str().into();
        let expire_timestamp_ms =
            (request.retention_time_ms != DEFAULT_RETENTION).then(|| now_ms.saturating_add(request.retention_time_ms));
        let mut codes = Vec::new();
        for topic in &request.topics {
            let name: Arc<str> = topic.name.as_str().into();
            for partition in &topic.partitions {
                let offset = offset_of(now_ms, topic, partition, expire_timestamp_ms);
                let written = self.write_offset(&group, &name, partition.partition_index, offset, None, &mut out);
                codes.push(written.err().map_or(0, |error| error.code()));
            }
        }
        let mut codes = codes.into_iter();
        let response = commit_response(request, |_| codes.next().unwrap_or_default());
        self.finish_with_records(ctx.token, response, out, Response::OffsetCommit)
    }

    /// `producer_id` is that of the transaction which the commit is part of.
    pub(crate) fn write_offset(
        &self,
        group: &Arc<str>,
        topic: &Arc<str>,
        index: i32,
        offset: OffsetAndMetadata,
        producer_id: Option<i64>,
        out: &mut Outbox,
    ) -> Result<(), ErrorCode> {
        let max = usize::try_from(self.config.offset_metadata_max).unwrap_or(0);
        if offset.metadata.encode_utf16().take(max.saturating_add(1)).count() > max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        let record =
            records::offset_commit(group, topic, index, &offset).map_err(|_| ErrorCode::OffsetMetadataTooLarge)?;
        let change =
            Change::Offset { group: group.clone(), topic: topic.clone(), partition: index, offset, producer_id };
        out.write(record, change);
        Ok(())
    }

    /// Whether the group takes the commit; a commit is a sign of life, too.
    fn validate_offset_commit(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &OffsetCommitRequest,
        out: &mut Outbox,
    ) -> Result<(), ErrorCode> {
        let id = request.group_id.as_str();
        let committer = Committer {
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            epoch: request.generation_id_or_member_epoch,
            transactional: false,
            api_version: ctx.api_version,
        };
        let Some(group) = self.any_group(id) else {
            return match committer.epoch {
                // Offsets of a consumer that assigns itself make a group of their own.
                ..0 => Ok(()),
                _ if ctx.api_version >= GROUP_ID_NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
                _ => Err(ErrorCode::IllegalGeneration),
            };
        };
        if group.validate_offset_commit(&committer)? == CommitScope::ByAssignmentEpoch {
            let mut partitions =
                request.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p.partition_index)));
            let had = |(topic, partition): (&OffsetCommitRequestTopic, i32)| {
                let epoch = group.assignment_epoch(committer.member_id, &topic.name, topic.topic_id, partition);
                epoch.is_some_and(|epoch| epoch <= committer.epoch)
            };
            if !partitions.all(had) {
                return Err(group.stale_epoch_error(committer.member_id));
            }
        }
        if let Some(group) = self.groups.get_mut(id)
            && matches!(group.state, State::Stable | State::PreparingRebalance)
            && let Some(id) = group.members.get(request.member_id.as_str()).map(|m| m.id.clone())
        {
            group.touch(&id, now_ms, out);
        }
        Ok(())
    }

    pub fn handle_offset_delete(
        &mut self,
        _now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &OffsetDeleteRequest,
    ) -> Effects<OffsetDeleteResponse> {
        let mut out = Outbox::default();
        if let Err(error) = self.validate_offset_delete(request) {
            let response = OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
            return self.finish(Reply::Now(response), out);
        }
        let being_written = self.offsets_being_written(&request.group_id);
        let topics = request.topics.iter().map(|t| self.delete_offsets(&request.group_id, t, &being_written, &mut out));
        let response = OffsetDeleteResponse { topics: topics.collect(), ..Default::default() };
        self.finish_with_records(ctx.token, response, out, Response::OffsetDelete)
    }

    fn validate_offset_delete(&self, request: &OffsetDeleteRequest) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        self.any_group(&request.group_id).ok_or(ErrorCode::GroupIdNotFound)?.validate_offset_delete()
    }

    fn delete_offsets(
        &self,
        group_id: &str,
        topic: &OffsetDeleteRequestTopic,
        being_written: &BTreeSet<(Arc<str>, i32)>,
        out: &mut Outbox,
    ) -> OffsetDeleteResponseTopic {
        let subscribed = self.any_group(group_id).is_some_and(|g| g.is_subscribed_to(&topic.name));
        let error_code = if subscribed { ErrorCode::GroupSubscribedToTopic.code() } else { 0 };
        let name: Arc<str> = topic.name.as_str().into();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            partitions.push(OffsetDeleteResponsePartition { partition_index: index, error_code });
            let exists = self.offsets.get(group_id, &name, index).is_some()
                || self.offsets.is_pending(group_id, &name, index)
                || being_written.contains(&(name.clone(), index));
            if !subscribed && exists {
                write_tombstone(&group_id.into(), &name, index, out);
            }
        }
        OffsetDeleteResponseTopic { name: topic.name.clone(), partitions }
    }

    /// The partitions of the group whose commits are on their way into the log.
    pub(crate) fn offsets_being_written(&self, group_id: &str) -> BTreeSet<(Arc<str>, i32)> {
        let changes = self.pending.values().flat_map(|p| &p.changes);
        let key = |change: &Change| match change {
            Change::Offset { group, topic, partition, .. } if &**group == group_id => Some((topic.clone(), *partition)),
            _ => None,
        };
        changes.filter_map(key).collect()
    }
}

fn offset_of(
    now_ms: i64,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
    expire_timestamp_ms: Option<i64>,
) -> OffsetAndMetadata {
    OffsetAndMetadata {
        record_offset: -1,
        committed_offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch.max(-1),
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
        commit_timestamp_ms: now_ms,
        expire_timestamp_ms,
        topic_id: topic.topic_id,
    }
}

/// A key that was read or checked before can be written.
pub(crate) fn write_tombstone(group: &Arc<str>, topic: &Arc<str>, partition: i32, out: &mut Outbox) {
    if let Ok(record) = records::offset_tombstone(group, topic, partition) {
        let change = Change::OffsetTombstone { group: group.clone(), topic: topic.clone(), partition };
        out.write(record, change);
    }
}
