//! Building Fetch requests per broker and matching their replies (sessionless: epoch -1, KIP-227).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::{Api, ApiExt};
use taccola_wire::messages::FetchRequest;
use taccola_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use taccola_wire::messages::fetch_response::{FetchResponse, PartitionData};

use super::Consumer;
use crate::cluster::{Client, Lane, TopicMetadata};
use crate::error::{Error, Result};

/// Session epoch of a fetch that belongs to no session.
const FINAL_EPOCH: i32 = -1;
/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;

/// A reply, or why there is none.
pub(super) struct Fetched {
    pub(super) node: i32,
    /// Partitions that were asked for, with their generations.
    pub(super) asked: Vec<(TopicPartition, u64)>,
    pub(super) result: Result<Vec<PartitionResult>>,
}

pub(super) struct PartitionResult {
    pub(super) partition: TopicPartition,
    pub(super) generation: u64,
    pub(super) data: PartitionData,
}

/// One partition of a request.
struct Wanted {
    partition: TopicPartition,
    topic_id: Uuid,
    leader_epoch: i32,
    offset: i64,
    generation: u64,
}

/// A request's settings, from the consumer's config.
struct Limits {
    min_bytes: i32,
    max_bytes: i32,
    partition_max_bytes: i32,
    max_wait: Duration,
    isolation: i8,
    rack: String,
}

impl Consumer {
    /// Starts a fetch at each leader that has none under way.
    pub(super) async fn start_fetches(&mut self) -> Result<()> {
        let now = Instant::now();
        for position in self.positions.values_mut() {
            if position.paused_until.is_some_and(|until| until <= now) {
                position.paused_until = None;
            }
        }
        let mut by_leader: BTreeMap<i32, Vec<Wanted>> = BTreeMap::new();
        let mut leaderless = Vec::new();
        let mut topics: HashMap<Arc<str>, Arc<TopicMetadata>> = HashMap::new();
        let mut active: Vec<_> = self.positions.iter().filter(|(_, p)| p.paused_until.is_none()).collect();
        active.sort_by(|a, b| a.0.cmp(b.0));
        for (partition, position) in active {
            let topic = match topics.get(&partition.topic) {
                Some(topic) => Arc::clone(topic),
                None => {
                    let topic = self.client.topic(&partition.topic).await?;
                    topics.insert(Arc::clone(&partition.topic), Arc::clone(&topic));
                    topic
                }
            };
            let found = topic.partition(partition.partition);
            let Some((leader, leader_epoch)) = found.and_then(|p| Some((p.leader?, p.leader_epoch))) else {
                leaderless.push((partition.clone(), position.generation));
                continue;
            };
            if !self.fetching.contains(&leader) {
                by_leader.entry(leader).or_default().push(Wanted {
                    partition: partition.clone(),
                    topic_id: topic.id,
                    leader_epoch,
                    offset: position.offset,
                    generation: position.generation,
                });
            }
        }
        for (partition, generation) in leaderless {
            self.client.forget_topic(&partition.topic);
            self.pause(&partition, generation);
        }
        for (node, wanted) in by_leader {
            self.start_fetch(node, wanted);
        }
        Ok(())
    }

    fn start_fetch(&mut self, node: i32, mut wanted: Vec<Wanted>) {
        self.fetching.insert(node);
        self.rotation = self.rotation.wrapping_add(1);
        let turn = self.rotation % wanted.len().max(1);
        wanted.rotate_left(turn);
        let limits = Limits {
            min_bytes: self.config.fetch_min_bytes,
            max_bytes: self.config.fetch_max_bytes,
            partition_max_bytes: self.config.partition_max_bytes,
            max_wait: self.config.fetch_max_wait,
            isolation: self.config.isolation as i8,
            rack: self.config.rack.clone(),
        };
        let client = self.client.clone();
        let results = self.results_in.clone();
        tokio::spawn(async move {
            let asked = wanted.iter().map(|w| (w.partition.clone(), w.generation)).collect();
            let result = fetch(&client, node, wanted, &limits).await;
            // The consumer is gone when this fails.
            let _ = results.send(Fetched { node, asked, result }).await;
        });
    }
}

async fn fetch(client: &Client, node: i32, wanted: Vec<Wanted>, limits: &Limits) -> Result<Vec<PartitionResult>> {
    let api = client.broker(node, Lane::Fetch).await?;
    let version = fetch_version(&api, &wanted)?;
    let request = request(&wanted, limits, version);
    let timeout = client.config().request_timeout.saturating_add(limits.max_wait);
    let response = client.request_within(&api, &request, version, timeout).await?;
    Error::check(response.error_code, format!("fetch from broker {node}"), None)?;
    Ok(matched(response, wanted, version))
}

/// Ids only when every topic has one.
fn fetch_version(api: &Arc<dyn Api>, wanted: &[Wanted]) -> Result<i16> {
    let all_have_ids = wanted.iter().all(|w| !w.topic_id.is_zero());
    let cap = if all_have_ids { i16::MAX } else { TOPIC_ID_VERSION - 1 };
    Ok(api.version_up_to::<FetchRequest>(cap)?)
}

fn request(wanted: &[Wanted], limits: &Limits, version: i16) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for w in wanted {
        let partition = FetchPartition {
            partition: w.partition.partition,
            current_leader_epoch: w.leader_epoch,
            fetch_offset: w.offset,
            partition_max_bytes: limits.partition_max_bytes,
            ..Default::default()
        };
        // The order of partitions is the order in which the broker fills the reply; one entry per run of a topic would
        // name topics twice, so that runs are merged.
        match topics.iter_mut().find(|t| t.topic_id == w.topic_id && *t.topic == *w.partition.topic) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic: w.partition.topic.to_string(),
                topic_id: w.topic_id,
                partitions: vec![partition],
            }),
        }
    }
    FetchRequest {
        replica_id: -1,
        max_wait_ms: i32::try_from(limits.max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: limits.min_bytes,
        max_bytes: limits.max_bytes,
        isolation_level: limits.isolation,
        session_epoch: FINAL_EPOCH,
        topics,
        rack_id: if version >= 11 { limits.rack.clone() } else { String::new() },
        ..Default::default()
    }
}

fn matched(response: FetchResponse, wanted: Vec<Wanted>, version: i16) -> Vec<PartitionResult> {
    let mut by_key: HashMap<(String, Uuid, i32), Wanted> = HashMap::with_capacity(wanted.len());
    for w in wanted {
        let (name, id) = if version >= TOPIC_ID_VERSION {
            (String::new(), w.topic_id)
        } else {
            (w.partition.topic.to_string(), Uuid::ZERO)
        };
        by_key.insert((name, id, w.partition.partition), w);
    }
    let mut results = Vec::new();
    for topic in response.responses {
        let (name, id) =
            if version >= TOPIC_ID_VERSION { (String::new(), topic.topic_id) } else { (topic.topic, Uuid::ZERO) };
        for data in topic.partitions {
            if let Some(w) = by_key.remove(&(name.clone(), id, data.partition_index)) {
                results.push(PartitionResult { partition: w.partition, generation: w.generation, data });
            }
        }
    }
    results
}
