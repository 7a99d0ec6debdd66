//! Topics: create, list, describe, delete, add partitions, delete records.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest};

use super::{Admin, Outcomes, settled};
use crate::cluster::{Lane, TopicMetadata};
use crate::error::{Error, Result};

#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    /// `None` takes the broker's default.
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    pub configs: Vec<(String, String)>,
}

/// What the broker made; counts are `None` when it is too old to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: Uuid,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
}

impl Admin {
    pub async fn create_topics(&self, topics: &[NewTopic], validate_only: bool) -> Result<Outcomes<CreatedTopic>> {
        self.client.retrying(|| self.create_topics_once(topics, validate_only)).await
    }

    async fn create_topics_once(&self, topics: &[NewTopic], validate_only: bool) -> Result<Outcomes<CreatedTopic>> {
        let api = self.client.any().await?;
        let version = api.version::<CreateTopicsRequest>()?;
        let creatable = |topic: &NewTopic| CreatableTopic {
            name: topic.name.clone(),
            num_partitions: topic.partitions.unwrap_or(-1),
            replication_factor: topic.replication_factor.unwrap_or(-1),
            configs: topic
                .configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) })
                .collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let response = self.client.request(&api, &request, version).await?;
        let outcome = response.topics.into_iter().map(|t| {
            let created = CreatedTopic {
                id: t.topic_id,
                partitions: (t.num_partitions >= 0).then_some(t.num_partitions),
                replication_factor: (t.replication_factor >= 0).then_some(t.replication_factor),
            };
            let result = Error::check(t.error_code, format!("topic {}", t.name), t.error_message).map(|()| created);
            (t.name, result)
        });
        settled(outcome.collect())
    }

    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicMetadata>>> {
        self.client.topics().await
    }

    /// Asked for anew, never from the cache.
    pub async fn describe_topic(&self, name: &str) -> Result<Arc<TopicMetadata>> {
        self.client.forget_topic(name);
        self.client.topic(name).await
    }

    pub async fn delete_topics(&self, names: &[String]) -> Result<Outcomes<()>> {
        let outcomes = self.client.retrying(|| self.delete_topics_once(names)).await;
        names.iter().for_each(|name| self.client.forget_topic(name));
        outcomes
    }

    async fn delete_topics_once(&self, names: &[String]) -> Result<Outcomes<()>> {
        let api = self.client.any().await?;
        let version = api.version::<DeleteTopicsRequest>()?;
        let mut request = DeleteTopicsRequest { timeout_ms: self.timeout_ms(), ..Default::default() };
        if version >= 6 {
            let by_name = |name: &String| DeleteTopicState { name: Some(name.clone()), ..Default::default() };
            request.topics = names.iter().map(by_name).collect();
        } else {
            request.topic_names = names.to_vec();
        }
        let response = self.client.request(&api, &request, version).await?;
        let outcomes = response.responses.into_iter().map(|r| {
            let name = r.name.unwrap_or_default();
            let result = match ErrorCode::from_code(r.error_code) {
                // Metadata is up to date where the deletion is decided: the topic is not there.
                ErrorCode::UnknownTopicOrPartition => Err(Error::UnknownTopic(name.clone())),
                _ => Error::check(r.error_code, format!("topic {name}"), r.error_message),
            };
            (name, result)
        });
        settled(outcomes.collect())
    }

    /// Raises topics to a total number of partitions.
    pub async fn create_partitions(&self, totals: &[(String, i32)], validate_only: bool) -> Result<Outcomes<()>> {
        self.client.retrying(|| self.create_partitions_once(totals, validate_only)).await
    }

    async fn create_partitions_once(&self, totals: &[(String, i32)], validate_only: bool) -> Result<Outcomes<()>> {
        let api = self.client.any().await?;
        let version = api.version::<CreatePartitionsRequest>()?;
        let topic = |(name, count): &(String, i32)| CreatePartitionsTopic {
            name: name.clone(),
            count: *count,
            assignments: None,
        };
        let request = CreatePartitionsRequest {
            topics: totals.iter().map(topic).collect(),
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        let response = self.client.request(&api, &request, version).await?;
        let outcomes = response.results.into_iter().map(|r| {
            let result = match ErrorCode::from_code(r.error_code) {
                ErrorCode::UnknownTopicOrPartition => Err(Error::UnknownTopic(r.name.clone())),
                _ => Error::check(r.error_code, format!("topic {}", r.name), r.error_message),
            };
            (r.name, result)
        });
        settled(outcomes.collect())
    }

    /// Deletes records before the given offsets (exclusive; -1 means all) and returns the new first offsets.
    pub async fn delete_records(&self, before: &[(TopicPartition, i64)]) -> Result<Vec<(TopicPartition, Result<i64>)>> {
        let mut by_leader: HashMap<i32, Vec<(TopicPartition, i64)>> = HashMap::new();
        for (partition, offset) in before {
            let leader = self.client.retrying(|| self.leader(partition)).await?;
            by_leader.entry(leader).or_default().push((partition.clone(), *offset));
        }
        let mut results = Vec::with_capacity(before.len());
        for (leader, partitions) in by_leader {
            results.extend(self.delete_records_on(leader, &partitions).await?);
        }
        Ok(results)
    }

    async fn delete_records_on(
        &self,
        leader: i32,
        partitions: &[(TopicPartition, i64)],
    ) -> Result<Vec<(TopicPartition, Result<i64>)>> {
        let api = self.client.broker(leader, Lane::General).await?;
        let version = api.version::<DeleteRecordsRequest>()?;
        let mut topics: BTreeMap<&str, Vec<DeleteRecordsPartition>> = BTreeMap::new();
        for (partition, offset) in partitions {
            let entry = DeleteRecordsPartition { partition_index: partition.partition, offset: *offset };
            topics.entry(&partition.topic).or_default().push(entry);
        }
        let topic = |(name, partitions): (&str, Vec<_>)| DeleteRecordsTopic { name: name.to_owned(), partitions };
        let request =
            DeleteRecordsRequest { topics: topics.into_iter().map(topic).collect(), timeout_ms: self.timeout_ms() };
        let response = self.client.request(&api, &request, version).await?;
        let mut results = Vec::with_capacity(partitions.len());
        for topic in response.topics {
            let name: Arc<str> = topic.name.into();
            for p in topic.partitions {
                let partition = TopicPartition::new(Arc::clone(&name), p.partition_index);
                let result = Error::check(p.error_code, partition.to_string(), None).map(|()| p.low_watermark);
                results.push((partition, result));
            }
        }
        Ok(results)
    }

    /// The broker that leads a partition.
    pub(crate) async fn leader(&self, partition: &TopicPartition) -> Result<i32> {
        let topic = self.client.topic(&partition.topic).await?;
        let Some(found) = topic.partition(partition.partition) else {
            let count = topic.partitions.len();
            return Err(Error::Invalid(format!(
                "topic {} has no partition {}; its partitions are 0 to {}",
                partition.topic,
                partition.partition,
                count.saturating_sub(1)
            )));
        };
        found.leader.ok_or_else(|| Error::broker(ErrorCode::LeaderNotAvailable, partition.to_string(), None))
    }
}
