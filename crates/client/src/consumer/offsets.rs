//! Committed offsets of a group: read and written, for members and for administrators (`OffsetFetch`, `OffsetCommit`).

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use taccola_wire::messages::offset_fetch_response::OffsetFetchResponse;
use taccola_wire::messages::{OffsetCommitRequest, OffsetFetchRequest};

use crate::admin::CommittedOffset;
use crate::cluster::{Client, CoordinatorKind, Lane};
use crate::error::{Error, Result};

/// Newest versions that name topics; from 10 on they carry ids, which a group's old topics may no longer have.
const NAMED_VERSION_MAX: i16 = 9;

/// Who speaks: a member in its generation (or at its member epoch); the default is nobody in particular, an administrator.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) generation: i32,
    pub(crate) instance_id: Option<String>,
}

impl Default for Member {
    fn default() -> Self {
        Self { id: String::new(), generation: -1, instance_id: None }
    }
}

/// One attempt. `None` asks for all partitions that have an offset; partitions without one are left out.
pub(crate) async fn fetch(
    client: &Client,
    group: &str,
    partitions: Option<&[TopicPartition]>,
    member: &Member,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
    let api = client.coordinator(group, Lane::General).await?;
    let version = api.version_up_to::<OffsetFetchRequest>(NAMED_VERSION_MAX)?;
    let topics = partitions.map(by_topic);
    let mut request = OffsetFetchRequest { require_stable: version >= 7, ..Default::default() };
    if version >= 8 {
        let topic = |(name, partition_indexes): (&Arc<str>, Vec<i32>)| OffsetFetchRequestTopics {
            name: name.to_string(),
            partition_indexes,
            ..Default::default()
        };
        let member_id = (version >= 9 && !member.id.is_empty()).then(|| member.id.clone());
        request.groups = vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            member_epoch: if member_id.is_some() { member.generation } else { -1 },
            member_id,
            topics: topics.map(|topics| topics.into_iter().map(topic).collect()),
        }];
    } else {
        let topic = |(name, partition_indexes): (&Arc<str>, Vec<i32>)| OffsetFetchRequestTopic {
            name: name.to_string(),
            partition_indexes,
        };
        group.clone_into(&mut request.group_id);
        request.topics = topics.map(|topics| topics.into_iter().map(topic).collect());
    }
    let response = client.request(&api, &request, version).await?;
    let result = read_offsets(response, version, group);
    forget_if_moved(client, group, &result);
    result
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for p in partitions {
        topics.entry(&p.topic).or_default().push(p.partition);
    }
    topics
}

fn read_offsets(
    response: OffsetFetchResponse,
    version: i16,
    group: &str,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
    let mut offsets = BTreeMap::new();
    let mut add = |topic: &Arc<str>, partition, code, offset, leader_epoch, metadata: Option<String>| {
        let partition = TopicPartition::new(Arc::clone(topic), partition);
        Error::check(code, format!("group {group}, {partition}"), None)?;
        if offset >= 0 {
            let metadata = metadata.unwrap_or_default();
            offsets.insert(partition, CommittedOffset { offset, leader_epoch, metadata });
        }
        Ok::<(), Error>(())
    };
    if version < 8 {
        Error::check(response.error_code, format!("group {group}"), None)?;
        for topic in response.topics {
            let name: Arc<str> = topic.name.into();
            for p in topic.partitions {
                add(&name, p.partition_index, p.error_code, p.committed_offset, p.committed_leader_epoch, p.metadata)?;
            }
        }
        return Ok(offsets);
    }
    for answered in response.groups {
        Error::check(answered.error_code, format!("group {group}"), None)?;
        for topic in answered.topics {
            let name: Arc<str> = topic.name.into();
            for p in topic.partitions {
                add(&name, p.partition_index, p.error_code, p.committed_offset, p.committed_leader_epoch, p.metadata)?;
            }
        }
    }
    Ok(offsets)
}

/// One attempt. The first partition that fails is the error.
pub(crate) async fn commit(
    client: &Client,
    group: &str,
    offsets: &[(TopicPartition, CommittedOffset)],
    member: &Member,
) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let api = client.coordinator(group, Lane::General).await?;
    // A member reads what it commits, so that the ids are at hand.
    let id_of = |topic: &str| match member.id.is_empty() {
        true => Uuid::ZERO,
        false => client.cached_topic(topic).map_or(Uuid::ZERO, |topic| topic.id),
    };
    let by_id = offsets.iter().all(|(partition, _)| !id_of(&partition.topic).is_zero());
    let cap = if by_id { i16::MAX } else { NAMED_VERSION_MAX };
    let version = api.version_up_to::<OffsetCommitRequest>(cap)?;
    let mut topics: BTreeMap<&Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, committed) in offsets {
        topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch,
            committed_metadata: Some(committed.metadata.clone()),
        });
    }
    let topic = |(name, partitions): (&Arc<str>, Vec<_>)| OffsetCommitRequestTopic {
        topic_id: if version > NAMED_VERSION_MAX { id_of(name) } else { Uuid::ZERO },
        name: name.to_string(),
        partitions,
    };
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: member.generation,
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone().filter(|_| version >= 7),
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    };
    let response = client.request(&api, &request, version).await?;
    let result = response.topics.into_iter().try_for_each(|topic| {
        topic.partitions.into_iter().try_for_each(|p| {
            let named = offsets.iter().map(|(partition, _)| &partition.topic);
            let name = match topic.name.as_str() {
                "" => named.into_iter().find(|name| id_of(name) == topic.topic_id).map_or("", |name| name),
                name => name,
            };
            Error::check(p.error_code, format!("group {group}, {name}-{}", p.partition_index), None)
        })
    });
    forget_if_moved(client, group, &result);
    result
}

fn forget_if_moved<T>(client: &Client, group: &str, result: &Result<T>) {
    if let Err(Error::Broker { code: ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable, .. }) = result {
        client.forget_coordinator(CoordinatorKind::Group, group);
    }
}
