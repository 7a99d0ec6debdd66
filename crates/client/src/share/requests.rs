//! ShareFetch and ShareAcknowledge of a share consumer: which request goes where, and what its answer means.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::share_acknowledge_request::{self as acknowledge, AcknowledgePartition, AcknowledgeTopic};
use taccola_wire::messages::share_fetch_request::{AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic};
use taccola_wire::messages::share_fetch_response::{PartitionData, ShareFetchResponse};
use taccola_wire::messages::{ShareAcknowledgeRequest, ShareFetchRequest};
use tokio::task::JoinSet;

use super::session::{FINAL_EPOCH, Key};
use super::{ShareConsumer, ShareRecord};
use crate::cluster::{Client, Lane};
use crate::error::{Error, Result};

/// First version that renews locks and limits strictly.
const RENEW_VERSION: i16 = 2;

/// What became of one partition's acknowledgements.
pub(super) type Outcome = (TopicPartition, Result<()>);

/// Acknowledgements on their way.
type Acks = BTreeMap<Key, (TopicPartition, Vec<AcknowledgementBatch>)>;

/// One broker's part of a round.
struct Fetch {
    node: i32,
    wanted: BTreeMap<Key, TopicPartition>,
    acks: Acks,
}

impl ShareConsumer {
    /// One fetch from every leader, with the decisions about what it holds; waits up to `wait` for records.
    pub(super) async fn fetch_round(&mut self, wait: Duration) -> Result<Vec<ShareRecord>> {
        let begun = Instant::now();
        let leaders = self.by_leader().await?;
        self.settle_elsewhere(&leaders).await?;
        let Some(member_id) = self.member_id().filter(|_| !leaders.is_empty()) else {
            self.wait_for_assignment(wait).await;
            return Ok(Vec::new());
        };
        let mut replies = JoinSet::new();
        for (node, wanted) in leaders {
            let acks = self.decided_at(node);
            let request = self.fetch_request(node, &member_id, &wanted, &acks, wait);
            let (client, fetch) = (self.client.clone(), Fetch { node, wanted, acks });
            let strict = self.config.strict_limit;
            replies.spawn(async move {
                let reply = send_fetch(&client, node, request, strict).await;
                (fetch, reply)
            });
        }
        let mut records = Vec::new();
        let mut paused = false;
        while let Some(joined) = replies.join_next().await {
            // A task of ours neither panics nor is aborted.
            let Ok((fetch, reply)) = joined else { continue };
            let taken = match reply {
                Ok(response) => self.take_fetch(fetch, response, &mut records),
                Err(error) => self.fetch_failed(fetch, error),
            };
            match taken {
                Ok(quiet) => paused |= quiet,
                Err(error) if self.held_error.is_none() => self.held_error = Some(error),
                Err(_) => {}
            }
        }
        if records.is_empty() {
            if let Some(error) = self.held_error.take() {
                return Err(error);
            }
            if paused {
                let pause = self.client.config().retry_backoff.min(wait.saturating_sub(begun.elapsed()));
                tokio::time::sleep(pause).await;
            }
        }
        Ok(records)
    }

    async fn wait_for_assignment(&mut self, wait: Duration) {
        match &mut self.membership {
            Some(membership) => membership.changed(wait).await,
            None => tokio::time::sleep(wait).await,
        }
    }

    /// What cannot go along with a fetch is acknowledged by itself: partitions that this member or their broker lost, and
    /// whatever a renewal stands beside (a fetch that renews fetches nothing).
    async fn settle_elsewhere(&mut self, leaders: &HashMap<i32, BTreeMap<Key, TopicPartition>>) -> Result<()> {
        let renewing: BTreeSet<i32> = self.held.values().filter(|h| h.renews()).map(|h| h.node).collect();
        let stays = |partition: &TopicPartition, held: &super::Held| {
            let key = (held.topic_id, partition.partition);
            leaders.get(&held.node).is_some_and(|wanted| wanted.contains_key(&key))
        };
        let alone: BTreeSet<i32> =
            self.held.iter().filter(|(partition, held)| !stays(partition, held)).map(|(_, held)| held.node).collect();
        for node in renewing.union(&alone).copied().collect::<Vec<_>>() {
            let outcomes = self.acknowledge_at(node, false).await;
            self.keep_outcomes(outcomes);
        }
        Ok(())
    }

    /// Takes the decisions about what a broker holds.
    fn decided_at(&mut self, node: i32) -> Acks {
        let mut acks = Acks::new();
        for (partition, held) in self.held.iter_mut().filter(|(_, held)| held.node == node) {
            let decided = held.take_decided();
            if !decided.is_empty() {
                acks.insert((held.topic_id, partition.partition), (partition.clone(), decided));
            }
        }
        self.held.retain(|_, held| !held.is_empty());
        acks
    }

    fn fetch_request(
        &mut self,
        node: i32,
        member_id: &str,
        wanted: &BTreeMap<Key, TopicPartition>,
        acks: &Acks,
        wait: Duration,
    ) -> ShareFetchRequest {
        let session = self.sessions.entry(node).or_default();
        let share_session_epoch = session.begin();
        let change = session.change(&wanted.keys().copied().collect());
        let mut topics: BTreeMap<Uuid, Vec<FetchPartition>> = BTreeMap::new();
        let named: BTreeSet<Key> = change.added.iter().chain(acks.keys()).copied().collect();
        for key in named {
            let batches = match share_session_epoch {
                // A new session holds no locks.
                0 => Vec::new(),
                _ => acks.get(&key).map(|(_, batches)| batches.clone()).unwrap_or_default(),
            };
            let partition = FetchPartition { partition_index: key.1, acknowledgement_batches: batches };
            topics.entry(key.0).or_default().push(partition);
        }
        let mut forgotten: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (id, partition) in change.forgotten {
            forgotten.entry(id).or_default().push(partition);
        }
        let config = &self.config;
        let wait = wait.min(config.fetch_max_wait);
        ShareFetchRequest {
            group_id: Some(config.group_id.clone()),
            member_id: Some(member_id.to_owned()),
            share_session_epoch,
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: config.fetch_max_bytes,
            max_records: config.max_records,
            batch_size: config.max_records,
            share_acquire_mode: i8::from(config.strict_limit),
            is_renew_ack: false,
            topics: topics.into_iter().map(|(topic_id, partitions)| FetchTopic { topic_id, partitions }).collect(),
            forgotten_topics_data: forgotten
                .into_iter()
                .map(|(topic_id, partitions)| ForgottenTopic { topic_id, partitions })
                .collect(),
        }
    }

    /// Whether a pause is due before the next round.
    fn fetch_failed(&mut self, fetch: Fetch, error: Error) -> Result<bool> {
        self.sessions.remove(&fetch.node);
        self.drop_locks(fetch.node);
        if error.stale_metadata() {
            fetch.wanted.values().for_each(|partition| self.client.forget_topic(&partition.topic));
        }
        self.keep_outcomes(failed(&fetch.acks, &error));
        if error.retriable() { Ok(true) } else { Err(error) }
    }

    /// With its session a broker releases what the member held there.
    fn drop_locks(&mut self, node: i32) {
        self.held.retain(|_, held| held.node != node);
    }

    fn take_fetch(
        &mut self,
        fetch: Fetch,
        response: ShareFetchResponse,
        records: &mut Vec<ShareRecord>,
    ) -> Result<bool> {
        let subject = format!("share fetch from broker {}", fetch.node);
        if let Err(error) = Error::check(response.error_code, subject, response.error_message) {
            return self.fetch_failed(fetch, error);
        }
        let session = self.sessions.entry(fetch.node).or_default();
        let first = session.begun_new();
        session.answered();
        if first && !fetch.acks.is_empty() {
            let lost = Error::broker(ErrorCode::ShareSessionNotFound, "acknowledgements", None);
            self.keep_outcomes(failed(&fetch.acks, &lost));
        }
        if let Ok(ms @ 1..) = u64::try_from(response.acquisition_lock_timeout_ms) {
            self.lock_timeout = Some(Duration::from_millis(ms));
        }
        let mut paused = false;
        let mut result = Ok(());
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let known = fetch.wanted.get(&key).or_else(|| fetch.acks.get(&key).map(|(partition, _)| partition));
                let Some(partition) = known.cloned() else { continue };
                match self.take_partition(fetch.node, key.0, &partition, data, records) {
                    Ok(quiet) => paused |= quiet,
                    Err(error) => result = Err(error),
                }
            }
        }
        result.map(|()| paused)
    }

    fn take_partition(
        &mut self,
        node: i32,
        topic_id: Uuid,
        partition: &TopicPartition,
        data: PartitionData,
        records: &mut Vec<ShareRecord>,
    ) -> Result<bool> {
        let acknowledged =
            Error::check(data.acknowledge_error_code, partition.to_string(), data.acknowledge_error_message.clone());
        self.keep_outcomes(vec![(partition.clone(), acknowledged)]);
        if let Err(error) = Error::check(data.error_code, partition.to_string(), data.error_message.clone()) {
            if error.stale_metadata() {
                self.client.forget_topic(&partition.topic);
            }
            return if error.retriable() { Ok(true) } else { Err(error) };
        }
        if data.acquired_records.is_empty() {
            return Ok(false);
        }
        let held = self.held.entry(partition.clone()).or_default();
        (held.topic_id, held.node) = (topic_id, node);
        held.take_in(partition, &data, self.config.check_crcs, records).map(|()| false)
    }

    // ---- acknowledgements by themselves ------------------------------------------------------------------------------

    /// All decisions, to every broker; with `closing` the sessions end, and what was not decided is released.
    pub(super) async fn acknowledge_all(&mut self, closing: bool) -> Result<Vec<Outcome>> {
        let mut nodes: BTreeSet<i32> = self.held.values().map(|held| held.node).collect();
        if closing {
            nodes.extend(self.sessions.keys());
        }
        let mut outcomes = Vec::new();
        for node in nodes {
            outcomes.extend(self.acknowledge_at(node, closing).await);
        }
        Ok(outcomes)
    }

    /// One broker's decisions. Whatever goes wrong is an outcome: the records come again.
    async fn acknowledge_at(&mut self, node: i32, closing: bool) -> Vec<Outcome> {
        let renew = self.held.values().any(|held| held.node == node && held.renews());
        let acks = self.decided_at(node);
        // The end of a session is understood whatever came before it, also behind a fetch that was given up.
        let usable = self.sessions.get(&node).is_some_and(|session| closing || session.established());
        let Some(member_id) = self.member_id().filter(|_| usable) else {
            let lost = Error::broker(ErrorCode::ShareSessionNotFound, "acknowledgements", None);
            return failed(&acks, &lost);
        };
        if acks.is_empty() && !closing {
            return Vec::new();
        }
        let session = self.sessions.entry(node).or_default();
        let epoch = session.begin();
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.config.group_id.clone()),
            member_id: Some(member_id),
            share_session_epoch: if closing { FINAL_EPOCH } else { epoch },
            is_renew_ack: renew,
            topics: acknowledged_topics(&acks),
        };
        match send_acknowledge(&self.client, node, request).await {
            Ok(codes) => {
                match closing {
                    true => session.reset(),
                    false => session.answered(),
                }
                let outcome = |(key, (partition, _)): (Key, (TopicPartition, _))| {
                    let (code, message) = codes.get(&key).cloned().unwrap_or_default();
                    let outcome = Error::check(code, partition.to_string(), message);
                    (partition, outcome)
                };
                acks.into_iter().map(outcome).collect()
            }
            Err(error) => {
                session.reset();
                self.drop_locks(node);
                failed(&acks, &error)
            }
        }
    }
}

fn failed(acks: &Acks, error: &Error) -> Vec<Outcome> {
    acks.values().map(|(partition, _)| (partition.clone(), Err(error.duplicate()))).collect()
}

fn acknowledged_topics(acks: &Acks) -> Vec<AcknowledgeTopic> {
    let mut topics: BTreeMap<Uuid, Vec<AcknowledgePartition>> = BTreeMap::new();
    for ((id, partition_index), (_, batches)) in acks {
        let batch = |b: &AcknowledgementBatch| acknowledge::AcknowledgementBatch {
            first_offset: b.first_offset,
            last_offset: b.last_offset,
            acknowledge_types: b.acknowledge_types.clone(),
        };
        let acknowledgement_batches = batches.iter().map(batch).collect();
        let partition = AcknowledgePartition { partition_index: *partition_index, acknowledgement_batches };
        topics.entry(*id).or_default().push(partition);
    }
    topics.into_iter().map(|(topic_id, partitions)| AcknowledgeTopic { topic_id, partitions }).collect()
}

async fn send_fetch(
    client: &Client,
    node: i32,
    request: ShareFetchRequest,
    strict: bool,
) -> Result<ShareFetchResponse> {
    let api = client.broker(node, Lane::Fetch).await?;
    let version = api.version::<ShareFetchRequest>()?;
    if strict && version < RENEW_VERSION {
        return Err(Error::Invalid("the broker is too old for a strict limit of records".to_owned()));
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let timeout = client.config().request_timeout.saturating_add(wait);
    client.request_within(&api, &request, version, timeout).await
}

/// The verdict on each partition.
async fn send_acknowledge(
    client: &Client,
    node: i32,
    request: ShareAcknowledgeRequest,
) -> Result<HashMap<Key, (i16, Option<String>)>> {
    let api = client.broker(node, Lane::Fetch).await?;
    let version = api.version::<ShareAcknowledgeRequest>()?;
    if request.is_renew_ack && version < RENEW_VERSION {
        return Err(Error::Invalid("the broker is too old to renew locks".to_owned()));
    }
    let response = client.request(&api, &request, version).await?;
    Error::check(response.error_code, format!("acknowledgements to broker {node}"), response.error_message)?;
    let mut codes = HashMap::new();
    for topic in response.responses {
        for p in topic.partitions {
            codes.insert((topic.topic_id, p.partition_index), (p.error_code, p.error_message));
        }
    }
    Ok(codes)
}
