//! OffsetFetch: what is committed of one group. Since v8 a request names several groups, which may live in different
//! shards: it is taken apart and put together here. Answers to Kafka's `OffsetMetadataManager.fetchOffsets` and
//! `OffsetFetchRequest`, `OffsetFetchResponse`.

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use taccola_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

use crate::effects::{AppendId, Effects, Reply, RequestContext, RequestToken, Response};
use crate::offsets::OffsetAndMetadata;
use crate::outbox::{Change, Outbox};
use crate::shard::{GroupShard, Pending};

/// What is told of a partition without a committed offset.
const INVALID_OFFSET: i64 = -1;
/// From this version on a request names several groups.
const GROUPS_FROM: i16 = 8;
/// From this version on there is an error that is not a partition's.
const TOP_LEVEL_ERROR_FROM: i16 = 2;

/// The groups that a request of any version asks for.
pub fn groups_of_request(request: OffsetFetchRequest, api_version: i16) -> Vec<OffsetFetchRequestGroup> {
    if api_version >= GROUPS_FROM {
        return request.groups;
    }
    let topic = |t: taccola_wire::messages::offset_fetch_request::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
        name: t.name,
        partition_indexes: t.partition_indexes,
        ..Default::default()
    };
    vec![OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: request.topics.map(|topics| topics.into_iter().map(topic).collect()),
        ..Default::default()
    }]
}

/// The response in the form of a version. A group with an error has no topics. Below v8 there is exactly one group, below v2 its error goes into each
/// partition, for which `groups` carries the partitions of the request.
pub fn response_of_groups(groups: Vec<OffsetFetchResponseGroup>, api_version: i16) -> OffsetFetchResponse {
    if api_version >= GROUPS_FROM {
        let mut groups = groups;
        groups.iter_mut().filter(|group| group.error_code != 0).for_each(|group| group.topics.clear());
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let Some(group) = groups.into_iter().next() else { return OffsetFetchResponse::default() };
    let in_partitions = api_version < TOP_LEVEL_ERROR_FROM && group.error_code != 0;
    let partition = |p: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        error_code: if in_partitions { group.error_code } else { p.error_code },
    };
    let keep_topics = group.error_code == 0 || in_partitions;
    let topics = group.topics.into_iter().filter(|_| keep_topics).map(|t| OffsetFetchResponseTopic {
        name: t.name,
        partitions: t.partitions.into_iter().map(partition).collect(),
    });
    let topics = topics.collect();
    let error_code = if in_partitions { 0 } else { group.error_code };
    OffsetFetchResponse { topics, error_code, ..Default::default() }
}

/// The reply for a group of which nothing can be said. Partitions are named for clients that look for the error there.
pub(crate) fn failed(request: &OffsetFetchRequestGroup, error: ErrorCode) -> OffsetFetchResponseGroup {
    let topics = request.topics.iter().flatten().map(|topic| response_topic(topic, |_| unknown_offset(error)));
    OffsetFetchResponseGroup { group_id: request.group_id.clone(), topics: topics.collect(), error_code: error.code() }
}

impl GroupShard {
    /// The caller has put a name to each topic, also where the request has ids alone. With `require_stable`, offsets of
    /// open transactions are UNSTABLE_OFFSET_COMMIT, and what is being written to the group's offsets is waited for.
    pub fn handle_offset_fetch(
        &mut self,
        _now_ms: i64,
        ctx: &RequestContext<'_>,
        request: OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> Effects<OffsetFetchResponseGroup> {
        if let Some(group) = self.any_group(&request.group_id)
            && let Err(error) = group.validate_offset_fetch(request.member_id.as_deref(), request.member_epoch)
        {
            return self.finish(Reply::Now(failed(&request, error)), Outbox::default());
        }
        let last_write = if require_stable { self.last_write_to(&request.group_id) } else { None };
        if let Some(pending) = last_write.and_then(|id| self.pending.get_mut(&id)) {
            pending.fetches.push((ctx.token, request));
            return self.finish(Reply::Parked, Outbox::default());
        }
        let response = self.fetch_offsets(&request, require_stable);
        self.finish(Reply::Now(response), Outbox::default())
    }

    fn last_write_to(&self, group_id: &str) -> Option<AppendId> {
        let touches = |pending: &Pending| {
            pending.changes.iter().any(|change| match change {
                Change::Offset { group, .. } | Change::OffsetTombstone { group, .. } => &**group == group_id,
                _ => false,
            })
        };
        self.pending.iter().rev().find(|(_, pending)| touches(pending)).map(|(id, _)| *id)
    }

    pub(crate) fn release_fetches(&self, fetches: Vec<(RequestToken, OffsetFetchRequestGroup)>, out: &mut Outbox) {
        for (token, request) in fetches {
            out.release(token, Response::OffsetFetch(self.fetch_offsets(&request, true)));
        }
    }

    fn fetch_offsets(&self, request: &OffsetFetchRequestGroup, require_stable: bool) -> OffsetFetchResponseGroup {
        let group_id = request.group_id.as_str();
        let partition = |name: &str, topic_id: Uuid, index: i32| {
            if require_stable && self.offsets.is_pending(group_id, name, index) {
                return unknown_offset(ErrorCode::UnstableOffsetCommit);
            }
            match self.offsets.get(group_id, name, index) {
                Some(offset) if offset.is_of_topic(topic_id) => known_offset(offset),
                _ => unknown_offset(ErrorCode::None),
            }
        };
        let topics = match &request.topics {
            Some(topics) => {
                topics.iter().map(|t| response_topic(t, |index| partition(&t.name, t.topic_id, index))).collect()
            }
            None => self
                .offsets
                .group(group_id)
                .into_iter()
                .flatten()
                .map(|(name, partitions)| {
                    let row = |index: &i32| OffsetFetchResponsePartitions {
                        partition_index: *index,
                        ..partition(name, Uuid::ZERO, *index)
                    };
                    OffsetFetchResponseTopics {
                        name: name.to_string(),
                        partitions: partitions.keys().map(row).collect(),
                        ..Default::default()
                    }
                })
                .collect(),
        };
        OffsetFetchResponseGroup { group_id: group_id.to_owned(), topics, error_code: 0 }
    }
}

fn response_topic(
    topic: &OffsetFetchRequestTopics,
    partition: impl Fn(i32) -> OffsetFetchResponsePartitions,
) -> OffsetFetchResponseTopics {
    let row = |index: &i32| OffsetFetchResponsePartitions { partition_index: *index, ..partition(*index) };
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(row).collect(),
    }
}

fn unknown_offset(error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: 0,
        committed_offset: INVALID_OFFSET,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: error.code(),
    }
}

fn known_offset(offset: &OffsetAndMetadata) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: 0,
        committed_offset: offset.committed_offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(offset.metadata.to_string()),
        error_code: 0,
    }
}
