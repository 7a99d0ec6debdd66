//! Reading as a member of a share group (KIP-932): records are acquired for a time, and accepted, released or rejected one
//! by one. Answers to `KafkaShareConsumer`.
//!
//! A poll sends the decisions about what was handed out before, then fetches: one request per leader at a time. What a
//! decision came to is known after [`ShareConsumer::commit`]; of decisions that poll sent, the failures are kept for
//! [`ShareConsumer::take_failures`]. A record whose decision failed is delivered again, to this member or another.

mod records;
mod requests;
mod session;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::ApiExt;
use taccola_wire::messages::ShareGroupHeartbeatRequest;

use crate::cluster::{Client, Lane};
use crate::consumer::ConsumerRecord;
use crate::consumer::membership::{Answer, Assignment, Beat, Heartbeat, Membership};
use crate::consumer::modern::{named, sorted};
use crate::consumer::poll_clock::PollClock;
use crate::error::{Error, Result};
use records::Held;
use requests::Outcome;
use session::{Key, Session};

/// The longest wait for records before the membership is looked at again.
const POLL_SLICE: Duration = Duration::from_millis(500);

/// What becomes of a record (`AcknowledgeType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum AckType {
    /// Processed.
    Accept = 1,
    /// Somebody may try again.
    Release = 2,
    /// Nobody shall see it again.
    Reject = 3,
    /// More time; the record still has to be decided on (KIP-1222).
    Renew = 4,
}

/// `share.acknowledgement.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// The next poll or commit accepts what was not decided.
    #[default]
    Implicit,
    /// Everything has to be decided before the next poll.
    Explicit,
}

#[derive(Clone, Debug)]
pub struct ShareConfig {
    pub group_id: String,
    pub topics: BTreeSet<String>,
    pub mode: AckMode,
    /// `client.rack`.
    pub rack: String,
    /// `max.poll.records`: how many are acquired at a time, as far as batches allow.
    pub max_records: i32,
    /// `share.acquire.mode=record_limit`: never more than `max_records`, also out of a larger batch.
    pub strict_limit: bool,
    /// `fetch.max.bytes`, `fetch.max.wait.ms`.
    pub fetch_max_bytes: i32,
    pub fetch_max_wait: Duration,
    /// `check.crcs`.
    pub check_crcs: bool,
    /// `max.poll.interval.ms`: a member that does not poll for so long leaves; its next poll joins again.
    pub max_poll_interval: Duration,
}

impl ShareConfig {
    pub fn new(group_id: impl Into<String>, topics: impl IntoIterator<Item = String>) -> Self {
        Self {
            group_id: group_id.into(),
            topics: topics.into_iter().collect(),
            mode: AckMode::Implicit,
            rack: String::new(),
            max_records: 500,
            strict_limit: false,
            fetch_max_bytes: 50 * 1024 * 1024,
            fetch_max_wait: Duration::from_millis(500),
            check_crcs: true,
            max_poll_interval: Duration::from_secs(300),
        }
    }
}

/// A record that this member holds until it is decided on, or its lock runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareRecord {
    pub record: ConsumerRecord,
    /// 1 the first time.
    pub delivery_count: i16,
}

/// The group's protocol on the wire.
struct ShareHeartbeat {
    config: Arc<ShareConfig>,
}

impl Heartbeat for ShareHeartbeat {
    fn group(&self) -> &str {
        &self.config.group_id
    }

    async fn beat(&self, client: &Client, beat: Beat<'_>) -> Result<Answer> {
        let config = &self.config;
        let api = client.coordinator(&config.group_id, Lane::Group).await?;
        let version = api.version::<ShareGroupHeartbeatRequest>()?;
        let request = ShareGroupHeartbeatRequest {
            group_id: config.group_id.clone(),
            member_id: beat.member_id.to_owned(),
            member_epoch: beat.epoch,
            rack_id: (beat.full && !config.rack.is_empty()).then(|| config.rack.clone()),
            subscribed_topic_names: beat.full.then(|| config.topics.iter().cloned().collect()),
        };
        let response = client.request(&api, &request, version).await?;
        Error::check(response.error_code, format!("group {}", config.group_id), response.error_message)?;
        let assignment = response.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            sorted(topics.map(|t| (t.topic_id, t.partitions)))
        });
        Ok(Answer {
            epoch: response.member_epoch,
            interval: Duration::from_millis(u64::try_from(response.heartbeat_interval_ms).unwrap_or(0)),
            assignment,
        })
    }
}

pub struct ShareConsumer {
    client: Client,
    config: Arc<ShareConfig>,
    /// `None` before the first poll.
    membership: Option<Membership<ShareHeartbeat>>,
    losses: u64,
    /// What the assignment was when `assigned` was made from it, if all of it could be looked up.
    followed: Option<Arc<Assignment>>,
    assigned: BTreeMap<TopicPartition, Uuid>,
    sessions: HashMap<i32, Session>,
    held: BTreeMap<TopicPartition, Held>,
    failures: BTreeMap<TopicPartition, Error>,
    lock_timeout: Option<Duration>,
    /// What a poll met behind records that it returned; the next poll's result.
    held_error: Option<Error>,
    polls: PollClock,
}

impl ShareConsumer {
    /// Joins with the first poll.
    pub fn new(client: Client, config: ShareConfig) -> Self {
        Self {
            client,
            config: Arc::new(config),
            membership: None,
            losses: 0,
            followed: None,
            assigned: BTreeMap::new(),
            sessions: HashMap::new(),
            held: BTreeMap::new(),
            failures: BTreeMap::new(),
            lock_timeout: None,
            held_error: None,
            polls: PollClock::new(),
        }
    }

    /// How long records stay with this member, once a broker has said so.
    pub fn acquisition_lock_timeout(&self) -> Option<Duration> {
        self.lock_timeout
    }

    /// Failures of decisions that polls sent, one per partition.
    pub fn take_failures(&mut self) -> BTreeMap<TopicPartition, Error> {
        std::mem::take(&mut self.failures)
    }

    /// Records handed out and not decided on.
    pub fn undecided(&self) -> usize {
        self.held.values().map(Held::undecided).sum()
    }

    /// Partitions assigned to this member, possibly to others as well.
    pub fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys()
    }

    /// Decides about a record of the last poll; sent with the next poll or commit.
    pub fn acknowledge(&mut self, record: &ShareRecord, decision: AckType) -> Result<()> {
        let ConsumerRecord { topic, partition, offset, .. } = &record.record;
        let partition = TopicPartition::new(Arc::clone(topic), *partition);
        let decided = self.held.get_mut(&partition).is_some_and(|held| held.decide(*offset, decision));
        match decided {
            true => Ok(()),
            false => Err(Error::Invalid(format!("{partition} at offset {offset} is not held by this consumer"))),
        }
    }

    /// Sends decisions, and returns what was acquired; empty when `timeout` passes without anything.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ShareRecord>> {
        let _polling = self.polls.polling();
        if let Some(error) = self.held_error.take() {
            return Err(error);
        }
        match self.config.mode {
            AckMode::Implicit => self.held.values_mut().for_each(|held| held.decide_all(AckType::Accept)),
            AckMode::Explicit => self.demand_decisions()?,
        }
        let deadline = Instant::now() + timeout;
        loop {
            self.follow().await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let records = self.fetch_round(left.min(POLL_SLICE)).await?;
            if !records.is_empty() || left.is_zero() {
                return Ok(records);
            }
        }
    }

    /// A record that was renewed is decided anew, and may wait for that.
    fn demand_decisions(&self) -> Result<()> {
        let renewing = self.held.values().any(Held::renews);
        match self.undecided() {
            0 => Ok(()),
            _ if renewing => Ok(()),
            count => Err(Error::Invalid(format!("{count} records wait to be acknowledged before the next poll"))),
        }
    }

    /// Sends decisions and waits for what they came to, by partition.
    pub async fn commit(&mut self) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        if self.config.mode == AckMode::Implicit {
            self.held.values_mut().for_each(|held| held.decide_all(AckType::Accept));
        }
        let outcomes = self.acknowledge_all(false).await?;
        Ok(outcomes.into_iter().collect())
    }

    /// Sends decisions, gives back what was not decided, and leaves the group. The outcomes are as for a commit.
    pub async fn close(mut self) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        if self.config.mode == AckMode::Implicit {
            self.held.values_mut().for_each(|held| held.decide_all(AckType::Accept));
        }
        let outcomes = self.acknowledge_all(true).await;
        if let Some(membership) = self.membership.take() {
            membership.leave().await?;
        }
        Ok(outcomes?.into_iter().collect())
    }

    /// Takes the latest assignment over.
    async fn follow(&mut self) -> Result<()> {
        let (client, config) = (&self.client, &self.config);
        let polls = &self.polls;
        let join = || {
            let heartbeat = ShareHeartbeat { config: Arc::clone(config) };
            Membership::join(client.clone(), heartbeat, polls.watch(config.max_poll_interval))
        };
        let view = self.membership.get_or_insert_with(join).view()?;
        if view.losses != self.losses {
            // The brokers have released what was held.
            self.losses = view.losses;
            self.held.clear();
            self.sessions.clear();
            self.assigned.clear();
            self.followed = None;
        }
        let Some(assignment) = view.assignment else { return Ok(()) };
        if self.followed.as_ref() != Some(&assignment) {
            let (assigned, complete) = named(&self.client, &assignment).await?;
            self.assigned = assigned;
            self.followed = complete.then_some(assignment);
        }
        Ok(())
    }

    fn member_id(&self) -> Option<String> {
        self.membership.as_ref().map(|membership| membership.member_id().to_owned())
    }

    fn keep_outcomes(&mut self, outcomes: Vec<Outcome>) {
        for (partition, outcome) in outcomes {
            if let Err(error) = outcome {
                tracing::debug!(%error, %partition, "acknowledgements were refused");
                self.failures.insert(partition, error);
            }
        }
    }

    /// Assigned partitions by leader; those without one are looked up again next time.
    async fn by_leader(&self) -> Result<HashMap<i32, BTreeMap<Key, TopicPartition>>> {
        let mut found: HashMap<i32, BTreeMap<Key, TopicPartition>> = HashMap::new();
        for (partition, id) in &self.assigned {
            let topic = match self.client.topic(&partition.topic).await {
                Ok(topic) => topic,
                // It was deleted, and the next assignment is without it.
                Err(Error::UnknownTopic(_)) => continue,
                Err(error) => return Err(error),
            };
            match topic.partition(partition.partition).and_then(|p| p.leader) {
                Some(leader) => {
                    found.entry(leader).or_default().insert((*id, partition.partition), partition.clone());
                }
                None => self.client.forget_topic(&partition.topic),
            }
        }
        Ok(found)
    }
}
