//! Consumer groups: list, describe, delete; committed offsets: list, alter, delete. Groups of the classic protocol and of
//! KIP-848 are described alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_describe_response as consumer_response;
use taccola_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetDeleteRequest,
};

use super::{Admin, Outcomes};
use crate::cluster::{CoordinatorKind, Lane};
use crate::consumer::assignor;
use crate::consumer::offsets::{self, Member};
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: String,
    /// `consumer` for consumers; others use the classic protocol for purposes of their own.
    pub protocol_type: String,
    /// Empty when the broker is too old to tell; so is `kind` (`classic`, `consumer`, `share`, `streams`).
    pub state: String,
    pub kind: String,
    pub coordinator: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub id: String,
    pub state: String,
    pub kind: String,
    pub protocol_type: String,
    /// Assignor that the members agreed on.
    pub assignor: String,
    pub coordinator: i32,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// Sorted.
    pub assignment: Vec<TopicPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1 when unknown.
    pub leader_epoch: i32,
    pub metadata: String,
}

impl Admin {
    /// Groups of all coordinators, sorted by id.
    pub async fn list_groups(&self) -> Result<Vec<Group>> {
        let cluster = self.client.cluster().await?;
        let mut groups = Vec::new();
        for broker in cluster.brokers {
            groups.extend(self.client.retrying(|| self.list_groups_on(broker.id)).await?);
        }
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        groups.dedup_by(|a, b| a.id == b.id);
        Ok(groups)
    }

    async fn list_groups_on(&self, broker: i32) -> Result<Vec<Group>> {
        let api = self.client.broker(broker, Lane::General).await?;
        let version = api.version::<ListGroupsRequest>()?;
        let response = self.client.request(&api, &ListGroupsRequest::default(), version).await?;
        Error::check(response.error_code, format!("groups of broker {broker}"), None)?;
        let group = |g: taccola_wire::messages::list_groups_response::ListedGroup| Group {
            id: g.group_id,
            protocol_type: g.protocol_type,
            state: g.group_state,
            kind: g.group_type.to_lowercase(),
            coordinator: broker,
        };
        Ok(response.groups.into_iter().map(group).collect())
    }

    /// A group that does not exist is GROUP_ID_NOT_FOUND.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        self.client
            .retrying(|| async {
                match self.describe_consumer_group(group).await {
                    Ok(Some(description)) => Ok(description),
                    Ok(None) => self.describe_classic_group(group).await,
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// `None` when it is no group of KIP-848 or the broker knows none.
    async fn describe_consumer_group(&self, group: &str) -> Result<Option<GroupDescription>> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let Ok(version) = api.version::<ConsumerGroupDescribeRequest>() else { return Ok(None) };
        let request = ConsumerGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
        let response = self.client.request(&api, &request, version).await?;
        let Some(described) = response.groups.into_iter().next() else { return Ok(None) };
        match ErrorCode::from_code(described.error_code) {
            ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion => return Ok(None),
            _ => self.check_group(described.error_code, group, described.error_message.clone())?,
        }
        let coordinator = self.coordinator_id(group).await;
        Ok(Some(GroupDescription {
            id: described.group_id,
            state: described.group_state,
            kind: "consumer".to_owned(),
            protocol_type: "consumer".to_owned(),
            assignor: described.assignor_name,
            coordinator,
            members: described.members.into_iter().map(consumer_member).collect(),
        }))
    }

    async fn describe_classic_group(&self, group: &str) -> Result<GroupDescription> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let version = api.version::<DescribeGroupsRequest>()?;
        let request = DescribeGroupsRequest { groups: vec![group.to_owned()], ..Default::default() };
        let response = self.client.request(&api, &request, version).await?;
        let described = response.groups.into_iter().next().unwrap_or_default();
        self.check_group(described.error_code, group, described.error_message.clone())?;
        // Before KIP-1043 a group that does not exist was described as dead.
        if described.group_state == "Dead" {
            return Err(Error::broker(ErrorCode::GroupIdNotFound, format!("group {group}"), None));
        }
        let coordinator = self.coordinator_id(group).await;
        let DescribedGroup { group_id, group_state, protocol_type, protocol_data, members, .. } = described;
        Ok(GroupDescription {
            id: group_id,
            state: group_state,
            kind: "classic".to_owned(),
            members: members.into_iter().map(classic_member).collect(),
            protocol_type,
            assignor: protocol_data,
            coordinator,
        })
    }

    /// An error of a group, after what is known about its coordinator was dropped if it moved.
    fn check_group(&self, code: i16, group: &str, message: Option<String>) -> Result<()> {
        let result = Error::check(code, format!("group {group}"), message);
        if matches!(&result, Err(error) if error.stale_metadata()) {
            self.client.forget_coordinator(CoordinatorKind::Group, group);
        }
        result
    }

    async fn coordinator_id(&self, group: &str) -> i32 {
        self.client.coordinator_node(CoordinatorKind::Group, group).await.unwrap_or(-1)
    }

    pub async fn delete_groups(&self, groups: &[String]) -> Outcomes<()> {
        let mut outcomes = Vec::with_capacity(groups.len());
        for group in groups {
            let outcome = self.client.retrying(|| self.delete_group_once(group)).await;
            outcomes.push((group.clone(), outcome));
        }
        outcomes
    }

    async fn delete_group_once(&self, group: &str) -> Result<()> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let version = api.version::<DeleteGroupsRequest>()?;
        let request = DeleteGroupsRequest { groups_names: vec![group.to_owned()] };
        let response = self.client.request(&api, &request, version).await?;
        response.results.into_iter().try_for_each(|r| self.check_group(r.error_code, group, None))
    }

    /// Committed offsets of a group: of the partitions named, or of all that have one.
    pub async fn group_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
        let nobody = Member::default();
        self.client.retrying(|| offsets::fetch(&self.client, group, partitions, &nobody)).await
    }

    /// Sets committed offsets; a consumer group with members refuses with UNKNOWN_MEMBER_ID.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets_to_set: &[(TopicPartition, CommittedOffset)],
    ) -> Result<()> {
        let nobody = Member::default();
        self.client.retrying(|| offsets::commit(&self.client, group, offsets_to_set, &nobody)).await
    }

    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Result<()>)>> {
        self.client.retrying(|| self.delete_group_offsets_once(group, partitions)).await
    }

    async fn delete_group_offsets_once(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Result<()>)>> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let version = api.version::<OffsetDeleteRequest>()?;
        let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for p in partitions {
            let partition = OffsetDeleteRequestPartition { partition_index: p.partition };
            topics.entry(&p.topic).or_default().push(partition);
        }
        let topic = |(name, partitions): (&str, Vec<_>)| OffsetDeleteRequestTopic { name: name.to_owned(), partitions };
        let request =
            OffsetDeleteRequest { group_id: group.to_owned(), topics: topics.into_iter().map(topic).collect() };
        let response = self.client.request(&api, &request, version).await?;
        self.check_group(response.error_code, group, None)?;
        let mut results = Vec::with_capacity(partitions.len());
        for topic in response.topics {
            let name: Arc<str> = topic.name.into();
            for p in topic.partitions {
                let partition = TopicPartition::new(Arc::clone(&name), p.partition_index);
                let result = Error::check(p.error_code, partition.to_string(), None);
                results.push((partition, result));
            }
        }
        Ok(results)
    }
}

fn consumer_member(member: consumer_response::Member) -> GroupMember {
    let mut assignment: Vec<_> = member
        .assignment
        .topic_partitions
        .into_iter()
        .flat_map(|t| {
            let name: Arc<str> = t.topic_name.into();
            t.partitions.into_iter().map(move |p| TopicPartition::new(Arc::clone(&name), p))
        })
        .collect();
    assignment.sort();
    GroupMember {
        id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.client_host,
        assignment,
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
    }
}
