//! Offsets of partitions: first, last, by time (`ListOffsets`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use taccola_base::TopicPartition;
use taccola_net::api::ApiExt;
use taccola_wire::messages::ListOffsetsRequest;
use taccola_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use super::Admin;
use crate::cluster::Lane;
use crate::consumer::IsolationLevel;
use crate::error::{Error, Result};

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    Earliest,
    /// The end: high watermark, or last stable offset under read_committed.
    Latest,
    /// Of the record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// First offset that is still on the broker's own disk (KIP-405).
    EarliestLocal,
    /// Last offset that is in remote storage (KIP-405).
    LatestTiered,
    /// Of the first record at or after this time in milliseconds.
    Timestamp(i64),
}

impl OffsetSpec {
    fn wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::LatestTiered => -5,
            Self::Timestamp(ms) => ms.max(0),
        }
    }

    /// First version of ListOffsets that knows it.
    fn version_min(self) -> i16 {
        match self {
            Self::MaxTimestamp => 7,
            Self::EarliestLocal => 8,
            Self::LatestTiered => 9,
            _ => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// `None`: there is no such record, e.g. none after the time asked for.
    pub offset: Option<i64>,
    /// -1 when the broker names none.
    pub timestamp: i64,
    pub leader_epoch: i32,
}

impl Admin {
    /// All or nothing: an error of any partition is the operation's.
    pub async fn list_offsets(
        &self,
        asked: &[(TopicPartition, OffsetSpec)],
        isolation: IsolationLevel,
    ) -> Result<HashMap<TopicPartition, ListedOffset>> {
        self.client.retrying(|| self.list_offsets_once(asked, isolation)).await
    }

    async fn list_offsets_once(
        &self,
        asked: &[(TopicPartition, OffsetSpec)],
        isolation: IsolationLevel,
    ) -> Result<HashMap<TopicPartition, ListedOffset>> {
        let mut by_leader: BTreeMap<i32, Vec<&(TopicPartition, OffsetSpec)>> = BTreeMap::new();
        for entry in asked {
            by_leader.entry(self.leader(&entry.0).await?).or_default().push(entry);
        }
        let mut found = HashMap::with_capacity(asked.len());
        for (leader, partitions) in by_leader {
            self.list_offsets_on(leader, &partitions, isolation, &mut found).await?;
        }
        Ok(found)
    }

    async fn list_offsets_on(
        &self,
        leader: i32,
        asked: &[&(TopicPartition, OffsetSpec)],
        isolation: IsolationLevel,
        found: &mut HashMap<TopicPartition, ListedOffset>,
    ) -> Result<()> {
        let api = self.client.broker(leader, Lane::General).await?;
        let version = api.version::<ListOffsetsRequest>()?;
        if let Some((_, spec)) = asked.iter().find(|(_, spec)| spec.version_min() > version) {
            return Err(Error::Invalid(format!("the broker is too old to look up offsets by {spec:?}")));
        }
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (partition, spec) in asked {
            let entry = ListOffsetsPartition {
                partition_index: partition.partition,
                timestamp: spec.wire(),
                ..Default::default()
            };
            topics.entry(&partition.topic).or_default().push(entry);
        }
        let topic = |(name, partitions): (&str, Vec<_>)| ListOffsetsTopic { name: name.to_owned(), partitions };
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: if version >= 2 { isolation as i8 } else { 0 },
            topics: topics.into_iter().map(topic).collect(),
            timeout_ms: self.timeout_ms(),
        };
        let response = self.client.request(&api, &request, version).await?;
        for topic in response.topics {
            let name: Arc<str> = topic.name.into();
            for p in topic.partitions {
                let partition = TopicPartition::new(Arc::clone(&name), p.partition_index);
                Error::check(p.error_code, partition.to_string(), None)?;
                let offset = (p.offset >= 0).then_some(p.offset);
                found.insert(partition, ListedOffset { offset, timestamp: p.timestamp, leader_epoch: p.leader_epoch });
            }
        }
        match asked.iter().find(|(partition, _)| !found.contains_key(partition)) {
            Some((partition, _)) => Err(Error::Invalid(format!("the broker left {partition} out of its answer"))),
            None => Ok(()),
        }
    }
}
