//! Groups of all kinds: list and delete; committed offsets of those that have them: list, alter, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_net::api::ApiExt;
use taccola_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use taccola_wire::messages::{DeleteGroupsRequest, ListGroupsRequest, OffsetDeleteRequest};

use super::{Admin, Outcomes};
use crate::cluster::{CoordinatorKind, Lane};
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

    /// An error of a group, after what is known about its coordinator was dropped if it moved.
    pub(super) fn check_group(&self, code: i16, group: &str, message: Option<String>) -> Result<()> {
        let result = Error::check(code, format!("group {group}"), message);
        if matches!(&result, Err(error) if error.stale_metadata()) {
            self.client.forget_coordinator(CoordinatorKind::Group, group);
        }
        result
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
