//! What groups are like: state, members, assignments. Classic groups, those of KIP-848, share groups (KIP-932) and streams
//! groups (KIP-1071) are described alike, as far as they are.

use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_net::api::{Api, ApiExt};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use taccola_wire::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, ShareGroupDescribeRequest, StreamsGroupDescribeRequest,
};
use taccola_wire::messages::{
    consumer_group_describe_response as consumer, share_group_describe_response as share,
    streams_group_describe_response as streams,
};

use super::Admin;
use crate::cluster::{CoordinatorKind, Lane};
use crate::consumer::assignor;
use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescription {
    pub id: String,
    pub state: String,
    /// `classic`, `consumer`, `share` or `streams`.
    pub kind: String,
    pub protocol_type: String,
    /// Assignor that the members agreed on, or that the broker uses.
    pub assignor: String,
    pub coordinator: i32,
    /// Epochs of the group and of its target assignment; `None` for classic groups.
    pub epoch: Option<i32>,
    pub assignment_epoch: Option<i32>,
    pub members: Vec<GroupMember>,
    /// Of a streams group.
    pub topology: Option<Topology>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// `None` for classic groups.
    pub epoch: Option<i32>,
    /// Sorted.
    pub assignment: Vec<TopicPartition>,
    /// Where the member is to get; `None` when the broker does not tell.
    pub target: Option<Vec<TopicPartition>>,
    /// Tasks of a member of a streams group, sorted.
    pub tasks: Vec<Task>,
    pub target_tasks: Vec<Task>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKind {
    Active,
    Standby,
    Warmup,
}

/// A subtopology's share of one partition of its sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub kind: TaskKind,
    pub subtopology: String,
    pub partition: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    pub epoch: i32,
    pub subtopologies: Vec<Subtopology>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subtopology {
    pub id: String,
    /// Without repartition topics.
    pub sources: Vec<String>,
    pub repartitions: Vec<String>,
    pub changelogs: Vec<String>,
}

impl Admin {
    /// A group that does not exist is GROUP_ID_NOT_FOUND.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.client.retrying(|| self.describe_group_once(group)).await
    }

    async fn describe_group_once(&self, group: &str) -> Result<GroupDescription> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let mut found = self.describe_consumer_group(&api, group).await?;
        if found.is_none() {
            found = self.describe_share_group(&api, group).await?;
        }
        if found.is_none() {
            found = self.describe_streams_group(&api, group).await?;
        }
        let mut found = match found {
            Some(found) => found,
            None => self.describe_classic_group(&api, group).await?,
        };
        found.coordinator = self.client.coordinator_node(CoordinatorKind::Group, group).await.unwrap_or(-1);
        Ok(found)
    }

    /// Whether there is a description: not when the group is of another kind or does not exist.
    fn is_described(&self, code: i16, group: &str, message: Option<String>) -> Result<bool> {
        match ErrorCode::from_code(code) {
            ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion => Ok(false),
            _ => self.check_group(code, group, message).map(|()| true),
        }
    }

    async fn describe_consumer_group(&self, api: &Arc<dyn Api>, group: &str) -> Result<Option<GroupDescription>> {
        let Ok(version) = api.version::<ConsumerGroupDescribeRequest>() else { return Ok(None) };
        let request = ConsumerGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
        let response = self.client.request(api, &request, version).await?;
        let Some(described) = response.groups.into_iter().next() else { return Ok(None) };
        if !self.is_described(described.error_code, group, described.error_message)? {
            return Ok(None);
        }
        let epochs = (described.group_epoch, described.assignment_epoch);
        Ok(Some(GroupDescription {
            assignor: described.assignor_name,
            members: described.members.into_iter().map(consumer_member).collect(),
            ..modern("consumer", described.group_id, described.group_state, epochs)
        }))
    }

    async fn describe_share_group(&self, api: &Arc<dyn Api>, group: &str) -> Result<Option<GroupDescription>> {
        let Ok(version) = api.version::<ShareGroupDescribeRequest>() else { return Ok(None) };
        let request = ShareGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
        let response = self.client.request(api, &request, version).await?;
        let Some(described) = response.groups.into_iter().next() else { return Ok(None) };
        if !self.is_described(described.error_code, group, described.error_message)? {
            return Ok(None);
        }
        let epochs = (described.group_epoch, described.assignment_epoch);
        Ok(Some(GroupDescription {
            assignor: described.assignor_name,
            members: described.members.into_iter().map(share_member).collect(),
            ..modern("share", described.group_id, described.group_state, epochs)
        }))
    }

    async fn describe_streams_group(&self, api: &Arc<dyn Api>, group: &str) -> Result<Option<GroupDescription>> {
        let Ok(version) = api.version::<StreamsGroupDescribeRequest>() else { return Ok(None) };
        let request = StreamsGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
        let response = self.client.request(api, &request, version).await?;
        let Some(described) = response.groups.into_iter().next() else { return Ok(None) };
        if !self.is_described(described.error_code, group, described.error_message)? {
            return Ok(None);
        }
        let epochs = (described.group_epoch, described.assignment_epoch);
        Ok(Some(GroupDescription {
            members: described.members.into_iter().map(streams_member).collect(),
            topology: described.topology.map(topology),
            ..modern("streams", described.group_id, described.group_state, epochs)
        }))
    }

    async fn describe_classic_group(&self, api: &Arc<dyn Api>, group: &str) -> Result<GroupDescription> {
        let version = api.version::<DescribeGroupsRequest>()?;
        let request = DescribeGroupsRequest { groups: vec![group.to_owned()], ..Default::default() };
        let response = self.client.request(api, &request, version).await?;
        let described = response.groups.into_iter().next().unwrap_or_default();
        self.check_group(described.error_code, group, described.error_message.clone())?;
        // Before KIP-1043 a group that does not exist was described as dead.
        if described.group_state == "Dead" {
            return Err(Error::broker(ErrorCode::GroupIdNotFound, format!("group {group}"), None));
        }
        let DescribedGroup { group_id, group_state, protocol_type, protocol_data, members, .. } = described;
        Ok(GroupDescription {
            id: group_id,
            state: group_state,
            kind: "classic".to_owned(),
            members: members.into_iter().map(classic_member).collect(),
            protocol_type,
            assignor: protocol_data,
            ..Default::default()
        })
    }
}

/// What is alike in groups whose assignment the broker makes.
fn modern(kind: &str, id: String, state: String, (epoch, assignment_epoch): (i32, i32)) -> GroupDescription {
    GroupDescription {
        id,
        state,
        kind: kind.to_owned(),
        protocol_type: kind.to_owned(),
        epoch: Some(epoch),
        assignment_epoch: Some(assignment_epoch),
        ..Default::default()
    }
}

/// Partitions of topics with their names, sorted.
fn partitions(topics: impl Iterator<Item = (String, Vec<i32>)>) -> Vec<TopicPartition> {
    let mut all: Vec<_> = topics
        .flat_map(|(name, partitions)| {
            let name: Arc<str> = name.into();
            partitions.into_iter().map(move |p| TopicPartition::new(Arc::clone(&name), p))
        })
        .collect();
    all.sort();
    all
}

fn consumer_member(member: consumer::Member) -> GroupMember {
    let named = |assignment: consumer::Assignment| {
        partitions(assignment.topic_partitions.into_iter().map(|t| (t.topic_name, t.partitions)))
    };
    GroupMember {
        id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.client_host,
        epoch: Some(member.member_epoch),
        assignment: named(member.assignment),
        target: Some(named(member.target_assignment)),
        ..Default::default()
    }
}

fn share_member(member: share::Member) -> GroupMember {
    let topics = member.assignment.topic_partitions.into_iter();
    GroupMember {
        id: member.member_id,
        client_id: member.client_id,
        host: member.client_host,
        epoch: Some(member.member_epoch),
        assignment: partitions(topics.map(|t| (t.topic_name, t.partitions))),
        ..Default::default()
    }
}

fn streams_member(member: streams::Member) -> GroupMember {
    GroupMember {
        id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.client_host,
        epoch: Some(member.member_epoch),
        tasks: tasks(member.assignment),
        target_tasks: tasks(member.target_assignment),
        ..Default::default()
    }
}

fn tasks(assignment: streams::Assignment) -> Vec<Task> {
    let kinds = [
        (TaskKind::Active, assignment.active_tasks),
        (TaskKind::Standby, assignment.standby_tasks),
        (TaskKind::Warmup, assignment.warmup_tasks),
    ];
    let mut all = Vec::new();
    for (kind, subtopologies) in kinds {
        for ids in subtopologies {
            let subtopology = ids.subtopology_id;
            all.extend(ids.partitions.into_iter().map(|partition| Task {
                kind,
                subtopology: subtopology.clone(),
                partition,
            }));
        }
    }
    all.sort();
    all
}

fn topology(topology: streams::Topology) -> Topology {
    let subtopology = |s: streams::Subtopology| Subtopology {
        id: s.subtopology_id,
        sources: s.source_topics,
        repartitions: s.repartition_source_topics.into_iter().map(|t| t.name).collect(),
        changelogs: s.state_changelog_topics.into_iter().map(|t| t.name).collect(),
    };
    Topology {
        epoch: topology.epoch,
        subtopologies: topology.subtopologies.unwrap_or_default().into_iter().map(subtopology).collect(),
    }
}

/// What other clients put into the assignment is shown if it has the consumers' format, else left out.
fn classic_member(member: DescribedGroupMember) -> GroupMember {
    let mut assignment = assignor::decode_assignment(member.member_assignment).unwrap_or_default();
    assignment.sort();
    GroupMember {
        id: member.member_id,
        instance_id: member.group_instance_id,
        client_id: member.client_id,
        host: member.client_host,
        assignment,
        ..Default::default()
    }
}
