//! Reading as a member of a group. Answers to `KafkaConsumer` with `subscribe`; the two protocols stand in `classic.rs`
//! and `modern.rs`.
//!
//! Records count as processed when [`GroupConsumer::poll`] is called again: that is when they may be committed. Before
//! partitions go to another member what was handed out of them is committed, if the consumer commits by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use taccola_base::TopicPartition;
use taccola_wire::error::ErrorCode;

use super::assignor::Assignor;
use super::classic::ClassicMember;
use super::modern::{ConsumerMember, outdated};
use super::offsets::{self, Member};
use super::poll_clock::PollClock;
use super::{Consumer, ConsumerConfig, ConsumerRecord};
use crate::admin::{Admin, CommittedOffset, OffsetSpec};
use crate::cluster::Client;
use crate::error::{Error, Result};

/// The longest wait for records before the state of the membership is looked at again.
const POLL_SLICE: Duration = Duration::from_millis(200);
/// How often a commit follows a member epoch that has just changed, and how long it waits to hear of it.
const COMMIT_ATTEMPTS: usize = 10;
const EPOCH_PATIENCE: Duration = Duration::from_secs(1);

/// `group.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// A member assigns for all.
    #[default]
    Classic,
    /// The broker assigns (KIP-848).
    Consumer,
}

#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group_id: String,
    pub protocol: GroupProtocol,
    pub topics: BTreeSet<String>,
    /// In place of `topics`: a regular expression (RE2) that the broker evaluates; [`GroupProtocol::Consumer`] only.
    pub topics_regex: Option<String>,
    /// `group.remote.assignor`: `uniform` or `range`; `None` leaves it to the broker.
    pub server_assignor: Option<String>,
    /// `client.rack`.
    pub rack: String,
    /// `group.instance.id`: a static member keeps its partitions over a restart (KIP-345).
    pub instance_id: Option<String>,
    /// `session.timeout.ms`, `heartbeat.interval.ms`; in KIP-848 the broker decides both.
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: a member that does not poll for so long leaves; its next poll joins again. It is also how
    /// long a rebalance waits for the member.
    pub max_poll_interval: Duration,
    /// `auto.commit.interval.ms`; `None` leaves commits to the caller.
    pub auto_commit: Option<Duration>,
    /// Where to start without a committed offset.
    pub start: OffsetSpec,
    /// In order of preference; [`GroupProtocol::Classic`] only. With [`Assignor::CooperativeSticky`] alone the member keeps
    /// what it has while the group rebalances.
    pub assignors: Vec<Assignor>,
}

impl GroupConfig {
    pub fn new(group_id: impl Into<String>, topics: impl IntoIterator<Item = String>) -> Self {
        Self {
            group_id: group_id.into(),
            protocol: GroupProtocol::Classic,
            topics: topics.into_iter().collect(),
            topics_regex: None,
            server_assignor: None,
            rack: String::new(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            auto_commit: Some(Duration::from_secs(5)),
            start: OffsetSpec::Latest,
            assignors: Assignor::ALL.to_vec(),
        }
    }
}

/// Who commits, for a transaction that takes the offsets along (`ConsumerGroupMetadata`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub group_id: String,
    /// Generation, or member epoch in KIP-848; -1 for nobody in particular.
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

impl GroupMetadata {
    /// For offsets that no member is responsible for.
    pub fn of_group(group_id: impl Into<String>) -> Self {
        Self { group_id: group_id.into(), generation: -1, member_id: String::new(), instance_id: None }
    }
}

/// The partitions of a member, as both protocols use them.
pub(super) struct Reader {
    pub(super) consumer: Consumer,
    pub(super) config: GroupConfig,
    /// Offsets committed last, so that nothing is committed twice.
    committed: BTreeMap<TopicPartition, i64>,
    committed_at: Instant,
    pub(super) polls: PollClock,
}

impl Reader {
    pub(super) fn client(&self) -> &Client {
        self.consumer.client()
    }

    /// Reads on from the committed offsets, or from the configured start where there is none.
    pub(super) async fn start_reading(&mut self, partitions: &[TopicPartition], member: &Member) -> Result<()> {
        let client = self.client().clone();
        let group = &self.config.group_id;
        let committed = client.retrying(|| offsets::fetch(&client, group, Some(partitions), member)).await?;
        let fresh: Vec<_> =
            partitions.iter().filter(|p| !committed.contains_key(p)).map(|p| (p.clone(), self.config.start)).collect();
        let starts = Admin::new(client).list_offsets(&fresh, self.consumer.config.isolation).await?;
        for partition in partitions {
            let start = match committed.get(partition) {
                Some(committed) => committed.offset,
                None => starts.get(partition).and_then(|s| s.offset).unwrap_or(0),
            };
            self.consumer.seek(partition, start);
            if committed.contains_key(partition) {
                self.committed.insert(partition.clone(), start);
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, partition: &TopicPartition) {
        self.consumer.unassign(partition);
        self.committed.remove(partition);
    }

    pub(super) fn release_all(&mut self) {
        self.consumer.unassign_all();
        self.committed.clear();
    }

    /// A commit that partitions do not wait for if it fails.
    pub(super) async fn commit_before_release(&mut self, member: &Member) {
        if self.config.auto_commit.is_some()
            && let Err(error) = self.commit(member).await
        {
            tracing::warn!(%error, "the last offsets before a rebalance were not committed");
        }
    }

    async fn commit(&mut self, member: &Member) -> Result<()> {
        self.committed_at = Instant::now();
        let due: Vec<_> = self
            .consumer
            .positions()
            .into_iter()
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .map(|(partition, offset)| {
                let leader_epoch = self.consumer.position_epoch(&partition);
                (partition, CommittedOffset { offset, leader_epoch, metadata: String::new() })
            })
            .collect();
        let client = self.consumer.client();
        client.retrying(|| offsets::commit(client, &self.config.group_id, &due, member)).await?;
        self.committed.extend(due.into_iter().map(|(partition, committed)| (partition, committed.offset)));
        Ok(())
    }
}

enum Protocol {
    Classic(ClassicMember),
    /// `None` before the first poll.
    Consumer(Option<ConsumerMember>),
}

pub struct GroupConsumer {
    reader: Reader,
    protocol: Protocol,
}

impl GroupConsumer {
    /// Joins with the first poll.
    pub fn new(client: Client, consumer: ConsumerConfig, config: GroupConfig) -> Self {
        let protocol = match config.protocol {
            GroupProtocol::Classic => Protocol::Classic(ClassicMember::new()),
            GroupProtocol::Consumer => Protocol::Consumer(None),
        };
        let consumer = Consumer::new(client, consumer);
        let (committed, committed_at, polls) = (BTreeMap::new(), Instant::now(), PollClock::new());
        let reader = Reader { consumer, config, committed, committed_at, polls };
        Self { reader, protocol }
    }

    /// Assigned partitions with their next offsets; empty outside a generation.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.reader.consumer.positions()
    }

    /// Goes back to an offset of an assigned partition, so that neither it nor what follows counts as processed.
    pub fn rewind(&mut self, partition: &TopicPartition, offset: i64) {
        if self.reader.consumer.positions.contains_key(partition) {
            self.reader.consumer.seek(partition, offset);
        }
    }

    /// Whether this member has joined and read all its partitions to their ends.
    pub fn at_end(&self) -> bool {
        let settled = match &self.protocol {
            Protocol::Classic(member) => member.joined(),
            Protocol::Consumer(member) => member.as_ref().is_some_and(ConsumerMember::settled),
        };
        settled && self.reader.consumer.at_end()
    }

    /// The membership as it is now; outside of the group nobody's.
    pub fn group_metadata(&self) -> GroupMetadata {
        let group_id = self.reader.config.group_id.clone();
        match self.member() {
            Some(Member { id, generation, instance_id }) => {
                GroupMetadata { group_id, generation, member_id: id, instance_id }
            }
            None => GroupMetadata::of_group(group_id),
        }
    }

    fn member(&self) -> Option<Member> {
        let instance_id = self.reader.config.instance_id.clone();
        match &self.protocol {
            Protocol::Classic(member) => member.member(instance_id),
            Protocol::Consumer(member) => member.as_ref().map(|member| member.member(instance_id)),
        }
    }

    /// Joins if need be, commits what is due, and returns records; empty when `timeout` passes without any, or without an
    /// assignment.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>> {
        let deadline = Instant::now() + timeout;
        let _polling = self.reader.polls.polling();
        loop {
            self.keep_membership(deadline).await?;
            self.commit_when_due().await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let slice = left.min(POLL_SLICE);
            let records = match &mut self.protocol {
                Protocol::Consumer(Some(member)) if self.reader.consumer.positions.is_empty() => {
                    member.changed(slice).await;
                    Vec::new()
                }
                _ => self.reader.consumer.poll(slice).await?,
            };
            if !records.is_empty() || left.is_zero() || self.at_end() {
                return Ok(records);
            }
        }
    }

    async fn keep_membership(&mut self, until: Instant) -> Result<()> {
        match &mut self.protocol {
            Protocol::Classic(member) => member.keep(&mut self.reader, until).await,
            Protocol::Consumer(member) => {
                let reader = &mut self.reader;
                let join = || ConsumerMember::join(reader);
                member.get_or_insert_with(join).follow(reader).await
            }
        }
    }

    async fn commit_when_due(&mut self) -> Result<()> {
        let Some(interval) = self.reader.config.auto_commit else { return Ok(()) };
        if self.reader.committed_at.elapsed() < interval {
            return Ok(());
        }
        match self.commit().await {
            // The next poll joins again; what was not committed is read again by whoever gets it.
            Err(error) if error.retriable() || fences_member(&error) => {
                tracing::debug!(%error, "offsets were not committed");
                Ok(())
            }
            result => result,
        }
    }

    /// Commits the positions behind all records that polls have returned.
    pub async fn commit(&mut self) -> Result<()> {
        for attempt in 1.. {
            let Some(member) = self.member() else { break };
            let result = self.reader.commit(&member).await;
            let stale = matches!(&result, Err(error) if error.code() == Some(ErrorCode::StaleMemberEpoch));
            let Protocol::Consumer(Some(modern)) = &mut self.protocol else { return result };
            if !stale || attempt >= COMMIT_ATTEMPTS {
                return result;
            }
            if modern.epoch() == member.generation {
                modern.changed(EPOCH_PATIENCE).await;
            }
        }
        Ok(())
    }

    /// Commits (if this consumer commits by itself) and leaves the group.
    pub async fn close(mut self) -> Result<()> {
        let committed = match self.reader.config.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        let left = match self.protocol {
            Protocol::Classic(member) => member.leave(&self.reader).await,
            Protocol::Consumer(Some(member)) => member.leave().await,
            Protocol::Consumer(None) => Ok(()),
        };
        committed.and(left)
    }
}

fn fences_member(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration)) || outdated(error)
}
