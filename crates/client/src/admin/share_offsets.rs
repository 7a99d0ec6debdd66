//! Start offsets of share groups: describe, alter, delete (KIP-932). A start offset is the first that the group may still
//! deliver; the broker counts the lag from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use taccola_wire::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use taccola_wire::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::{
    AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest,
};

use super::{Admin, Outcomes};
use crate::cluster::Lane;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOffset {
    /// `None`: nobody has fetched yet, so that the group's reset policy will decide.
    pub start_offset: Option<i64>,
    /// `None` when the broker does not tell.
    pub lag: Option<i64>,
    pub leader_epoch: i32,
}

impl Admin {
    /// Start offsets of the partitions named, or of all that the group knows.
    pub async fn share_group_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, ShareOffset>> {
        self.client.retrying(|| self.share_group_offsets_once(group, partitions)).await
    }

    async fn share_group_offsets_once(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, ShareOffset>> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let version = api.version::<DescribeShareGroupOffsetsRequest>()?;
        let topics = partitions.map(|partitions| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for p in partitions {
                topics.entry(&p.topic).or_default().push(p.partition);
            }
            let topic = |(name, partitions): (&str, Vec<i32>)| DescribeShareGroupOffsetsRequestTopic {
                topic_name: name.to_owned(),
                partitions,
            };
            topics.into_iter().map(topic).collect()
        });
        let group_asked = DescribeShareGroupOffsetsRequestGroup { group_id: group.to_owned(), topics };
        let request = DescribeShareGroupOffsetsRequest { groups: vec![group_asked] };
        let response = self.client.request(&api, &request, version).await?;
        let mut found = BTreeMap::new();
        for answered in response.groups {
            self.check_group(answered.error_code, group, answered.error_message)?;
            for topic in answered.topics {
                let name: Arc<str> = topic.topic_name.into();
                for p in topic.partitions {
                    let partition = TopicPartition::new(Arc::clone(&name), p.partition_index);
                    Error::check(p.error_code, format!("group {group}, {partition}"), p.error_message)?;
                    let offset = ShareOffset {
                        start_offset: (p.start_offset >= 0).then_some(p.start_offset),
                        lag: (p.lag >= 0).then_some(p.lag),
                        leader_epoch: p.leader_epoch,
                    };
                    found.insert(partition, offset);
                }
            }
        }
        Ok(found)
    }

    /// Moves start offsets of a group without members; what was in delivery is forgotten.
    pub async fn alter_share_group_offsets(&self, group: &str, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        self.client.retrying(|| self.alter_share_group_offsets_once(group, offsets)).await
    }

    async fn alter_share_group_offsets_once(&self, group: &str, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let version = api.version::<AlterShareGroupOffsetsRequest>()?;
        let mut topics: BTreeMap<&str, Vec<AlterShareGroupOffsetsRequestPartition>> = BTreeMap::new();
        for (partition, start_offset) in offsets {
            let entry = AlterShareGroupOffsetsRequestPartition {
                partition_index: partition.partition,
                start_offset: *start_offset,
            };
            topics.entry(&partition.topic).or_default().push(entry);
        }
        let topic = |(name, partitions): (&str, Vec<_>)| AlterShareGroupOffsetsRequestTopic {
            topic_name: name.to_owned(),
            partitions,
        };
        let request = AlterShareGroupOffsetsRequest {
            group_id: group.to_owned(),
            topics: topics.into_iter().map(topic).collect(),
        };
        let response = self.client.request(&api, &request, version).await?;
        self.check_group(response.error_code, group, response.error_message)?;
        for topic in response.responses {
            for p in topic.partitions {
                let partition = format!("{}-{}", topic.topic_name, p.partition_index);
                if ErrorCode::from_code(p.error_code) == ErrorCode::UnknownTopicOrPartition {
                    return Err(Error::Invalid(format!("partition {partition} does not exist")));
                }
                Error::check(p.error_code, format!("group {group}, {partition}"), p.error_message)?;
            }
        }
        Ok(())
    }

    /// Makes a group without members forget topics.
    pub async fn delete_share_group_offsets(&self, group: &str, topics: &[String]) -> Result<Outcomes<()>> {
        self.client.retrying(|| self.delete_share_group_offsets_once(group, topics)).await
    }

    async fn delete_share_group_offsets_once(&self, group: &str, topics: &[String]) -> Result<Outcomes<()>> {
        let api = self.client.coordinator(group, Lane::General).await?;
        let version = api.version::<DeleteShareGroupOffsetsRequest>()?;
        let topic = |name: &String| DeleteShareGroupOffsetsRequestTopic { topic_name: name.clone() };
        let request =
            DeleteShareGroupOffsetsRequest { group_id: group.to_owned(), topics: topics.iter().map(topic).collect() };
        let response = self.client.request(&api, &request, version).await?;
        self.check_group(response.error_code, group, response.error_message)?;
        // A topic's error is final: one that is unknown here will not be known a little later.
        let outcome = |topic: DeleteShareGroupOffsetsResponseTopic| {
            let message = match ErrorCode::from_code(topic.error_code) {
                ErrorCode::UnknownTopicOrPartition => Some("the group has no offsets of such a topic".to_owned()),
                _ => topic.error_message,
            };
            let subject = format!("group {group}, topic {}", topic.topic_name);
            (topic.topic_name, Error::check(topic.error_code, subject, message))
        };
        Ok(response.responses.into_iter().map(outcome).collect())
    }
}
