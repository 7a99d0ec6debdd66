//! Reading as a member of a group, with the classic protocol: join, sync, heartbeat, leave, commit. Answers to
//! `ConsumerCoordinator` and `AbstractCoordinator`, with eager rebalancing: a member gives up its partitions before it joins
//! anew, after it has committed what was handed out (if it commits by itself).
//!
//! Records count as processed when [`GroupConsumer::poll`] is called again: that is when they may be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use taccola_base::TopicPartition;
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::join_group_response::JoinGroupResponse;
use taccola_wire::messages::leave_group_request::MemberIdentity;
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::assignor::{self, Assignor, Subscription};
use super::offsets::{self, Member};
use super::{Consumer, ConsumerConfig, ConsumerRecord};
use crate::admin::{Admin, CommittedOffset, OffsetSpec};
use crate::cluster::{Backoff, Client, Lane};
use crate::error::{Error, Result};

/// The longest wait for records before the state of the membership is looked at again.
const POLL_SLICE: Duration = Duration::from_millis(200);
/// How long the broker may take to answer beyond the time for which it parks a join.
const JOIN_MARGIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group_id: String,
    pub topics: BTreeSet<String>,
    /// `group.instance.id`: a static member keeps its partitions over a restart (KIP-345).
    pub instance_id: Option<String>,
    /// `session.timeout.ms`, `heartbeat.interval.ms`, `max.poll.interval.ms`.
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub rebalance_timeout: Duration,
    /// `auto.commit.interval.ms`; `None` leaves commits to the caller.
    pub auto_commit: Option<Duration>,
    /// Where to start without a committed offset.
    pub start: OffsetSpec,
    /// In order of preference.
    pub assignors: Vec<Assignor>,
}

impl GroupConfig {
    pub fn new(group_id: impl Into<String>, topics: impl IntoIterator<Item = String>) -> Self {
        Self {
            group_id: group_id.into(),
            topics: topics.into_iter().collect(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            auto_commit: Some(Duration::from_secs(5)),
            start: OffsetSpec::Latest,
            assignors: Assignor::ALL.to_vec(),
        }
    }
}

/// What the heartbeats say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulse {
    Steady,
    /// The group rebalances: join again with the same member id.
    Rebalance,
    /// The coordinator has forgotten the member: join as a new one.
    Lost,
    /// Another member took over the static id, or access was refused.
    Refused(ErrorCode),
}

/// A membership in one generation.
struct Membership {
    generation: i32,
    pulse: watch::Receiver<Pulse>,
    heartbeats: JoinHandle<()>,
    /// Partition counts on which this member, as the leader, based the assignment.
    assigned_counts: Option<BTreeMap<Arc<str>, i32>>,
    counts_checked: Instant,
    committed: Instant,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

pub struct GroupConsumer {
    consumer: Consumer,
    config: GroupConfig,
    member_id: String,
    membership: Option<Membership>,
    /// Offsets committed last, so that nothing is committed twice.
    last_committed: BTreeMap<TopicPartition, i64>,
}

impl GroupConsumer {
    /// Joins with the first poll.
    pub fn new(client: Client, consumer: ConsumerConfig, config: GroupConfig) -> Self {
        Self {
            consumer: Consumer::new(client, consumer),
            config,
            member_id: String::new(),
            membership: None,
            last_committed: BTreeMap::new(),
        }
    }

    fn client(&self) -> &Client {
        self.consumer.client()
    }

    /// Assigned partitions with their next offsets; empty outside a generation.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.consumer.positions()
    }

    /// Goes back to an offset of an assigned partition, so that neither it nor what follows counts as processed.
    pub fn rewind(&mut self, partition: &TopicPartition, offset: i64) {
        if self.consumer.positions.contains_key(partition) {
            self.consumer.seek(partition, offset);
        }
    }

    /// Whether this member has joined and read all its partitions to their ends.
    pub fn at_end(&self) -> bool {
        self.membership.is_some() && self.consumer.at_end()
    }

    /// Joins if need be, commits what is due, and returns records; empty when `timeout` passes without any.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>> {
        let deadline = Instant::now() + timeout;
        loop {
            self.keep_membership().await?;
            self.commit_when_due().await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let records = self.consumer.poll(left.min(POLL_SLICE)).await?;
            if !records.is_empty() || left.is_zero() || self.at_end() {
                return Ok(records);
            }
        }
    }

    async fn keep_membership(&mut self) -> Result<()> {
        let Some(membership) = &self.membership else { return self.join().await };
        let pulse = *membership.pulse.borrow();
        match pulse {
            Pulse::Steady if !self.partitions_changed().await => Ok(()),
            Pulse::Steady | Pulse::Rebalance => {
                if self.config.auto_commit.is_some()
                    && let Err(error) = self.commit().await
                {
                    tracing::warn!(%error, "the last offsets before a rebalance were not committed");
                }
                self.join().await
            }
            Pulse::Lost => {
                self.member_id.clear();
                self.join().await
            }
            Pulse::Refused(code) => Err(Error::broker(code, format!("group {}", self.config.group_id), None)),
        }
    }

    /// The leader looks now and then whether topics have grown or appeared.
    async fn partitions_changed(&mut self) -> bool {
        let max_age = self.client().config().metadata_max_age;
        let due = |m: &mut Membership| m.assigned_counts.is_some() && m.counts_checked.elapsed() >= max_age;
        if !self.membership.as_mut().is_some_and(due) {
            return false;
        }
        let topics = self.config.topics.clone();
        let counts = self.partition_counts(&topics).await;
        let Some(membership) = &mut self.membership else { return false };
        membership.counts_checked = Instant::now();
        // What cannot be asked now is asked next time.
        let Ok(counts) = counts else { return false };
        let assigned = membership.assigned_counts.as_ref();
        counts.iter().any(|(topic, count)| assigned.and_then(|a| a.get(topic)) != Some(count))
    }

    async fn commit_when_due(&mut self) -> Result<()> {
        let (Some(interval), Some(membership)) = (self.config.auto_commit, &self.membership) else { return Ok(()) };
        if membership.committed.elapsed() < interval {
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
        let Some(membership) = &mut self.membership else { return Ok(()) };
        membership.committed = Instant::now();
        let generation = membership.generation;
        let due: Vec<_> = self
            .consumer
            .positions()
            .into_iter()
            .filter(|(partition, offset)| self.last_committed.get(partition) != Some(offset))
            .map(|(partition, offset)| {
                let leader_epoch = self.consumer.position_epoch(&partition);
                (partition, CommittedOffset { offset, leader_epoch, metadata: String::new() })
            })
            .collect();
        let instance_id = self.config.instance_id.as_deref();
        let member = Member { id: &self.member_id, generation, instance_id };
        let client = self.consumer.client();
        client.retrying(|| offsets::commit(client, &self.config.group_id, &due, member)).await?;
        self.last_committed.extend(due.into_iter().map(|(partition, committed)| (partition, committed.offset)));
        Ok(())
    }

    /// Commits (if this consumer commits by itself) and leaves the group.
    pub async fn close(mut self) -> Result<()> {
        let committed = match self.config.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        let joined = self.membership.take().is_some();
        if joined && self.config.instance_id.is_none() {
            self.leave().await?;
        }
        committed
    }

    async fn leave(&self) -> Result<()> {
        let group = &self.config.group_id;
        let api = self.client().coordinator(group, Lane::Group).await?;
        let version = api.version::<LeaveGroupRequest>()?;
        let mut request = LeaveGroupRequest { group_id: group.clone(), ..Default::default() };
        if version >= 3 {
            let member = MemberIdentity { member_id: self.member_id.clone(), ..Default::default() };
            request.members = vec![member];
        } else {
            request.member_id.clone_from(&self.member_id);
        }
        let response = self.client().request(&api, &request, version).await?;
        Error::check(response.error_code, format!("group {group}"), None)
    }

    // ---- joining -----------------------------------------------------------------------------------------------------

    /// Until there is an assignment; gives up after `default.api.timeout.ms` of failures that may pass.
    async fn join(&mut self) -> Result<()> {
        self.membership = None;
        self.consumer.unassign_all();
        self.last_committed.clear();
        let mut backoff = Backoff::new(self.client().config());
        let mut failing_since: Option<Instant> = None;
        loop {
            let error = match self.join_once().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.code() {
                // Part of the protocol: at once again.
                Some(ErrorCode::MemberIdRequired | ErrorCode::RebalanceInProgress) => continue,
                Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                    self.member_id.clear();
                    continue;
                }
                _ if !error.retriable() => return Err(error),
                _ => {}
            }
            if error.stale_metadata() {
                self.client().forget_coordinator(&self.config.group_id);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > self.client().config().operation_timeout {
                return Err(error);
            }
            tracing::debug!(%error, "joining the group failed");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn join_once(&mut self) -> Result<()> {
        let joined = self.send_join().await?;
        let generation = joined.generation_id;
        let leads = joined.leader == joined.member_id;
        let protocol = joined.protocol_name.clone().unwrap_or_default();
        let (assignments, counts) = match leads {
            true if joined.skip_assignment => (Vec::new(), None),
            true => {
                let (assignments, counts) = self.assign(&protocol, joined).await?;
                (assignments, Some(counts))
            }
            false => (Vec::new(), None),
        };
        let assignment = self.send_sync(generation, &protocol, assignments).await?;
        let partitions = assignor::decode_assignment(assignment)?;
        // Heartbeats start first: reading the offsets may take long.
        self.membership = Some(self.start_heartbeats(generation, counts));
        self.start_reading(&partitions, generation).await
    }

    async fn send_join(&mut self) -> Result<JoinGroupResponse> {
        let group = &self.config.group_id;
        let api = self.client().coordinator(group, Lane::Group).await?;
        let version = api.version::<JoinGroupRequest>()?;
        let metadata = assignor::encode_subscription(&self.config.topics);
        let metadata = metadata.map_err(|e| Error::Invalid(e.to_string()))?;
        let protocol =
            |a: &Assignor| JoinGroupRequestProtocol { name: a.name().to_owned(), metadata: metadata.clone() };
        let request = JoinGroupRequest {
            group_id: group.clone(),
            session_timeout_ms: millis(self.config.session_timeout),
            rebalance_timeout_ms: millis(self.config.rebalance_timeout),
            member_id: self.member_id.clone(),
            group_instance_id: self.config.instance_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: self.config.assignors.iter().map(protocol).collect(),
            ..Default::default()
        };
        let timeout = self.config.rebalance_timeout.saturating_add(JOIN_MARGIN);
        let response = self.client().request_within(&api, &request, version, timeout).await?;
        let code = ErrorCode::from_code(response.error_code);
        if matches!(code, ErrorCode::None | ErrorCode::MemberIdRequired) {
            self.member_id.clone_from(&response.member_id);
        }
        Error::check(response.error_code, format!("group {}", self.config.group_id), None)?;
        Ok(response)
    }

    /// The leader's work.
    async fn assign(
        &self,
        protocol: &str,
        joined: JoinGroupResponse,
    ) -> Result<(Vec<SyncGroupRequestAssignment>, BTreeMap<Arc<str>, i32>)> {
        let assignor = Assignor::from_name(protocol).ok_or_else(|| {
            Error::Invalid(format!("the group agreed on the assignor {protocol:?}, which is unknown here"))
        })?;
        let mut members = Vec::with_capacity(joined.members.len());
        for member in joined.members {
            members.push(Subscription {
                topics: assignor::decode_subscription(member.metadata)?,
                member_id: member.member_id,
                instance_id: member.group_instance_id,
            });
        }
        let topics = members.iter().flat_map(|m| m.topics.iter().cloned()).collect();
        let counts = self.partition_counts(&topics).await?;
        let owned = assignor.assign(&members, &counts);
        let mut assignments = Vec::with_capacity(owned.len());
        for (member_id, partitions) in owned {
            let assignment = assignor::encode_assignment(&partitions).map_err(|e| Error::Invalid(e.to_string()))?;
            assignments.push(SyncGroupRequestAssignment { member_id, assignment });
        }
        Ok((assignments, counts))
    }

    /// Topics that do not exist are left out.
    async fn partition_counts(&self, topics: &BTreeSet<String>) -> Result<BTreeMap<Arc<str>, i32>> {
        let mut counts = BTreeMap::new();
        for name in topics {
            self.client().forget_topic(name);
            match self.client().topic(name).await {
                Ok(topic) => {
                    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    counts.insert(Arc::clone(&topic.name), count);
                }
                Err(Error::UnknownTopic(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(counts)
    }

    async fn send_sync(
        &self,
        generation: i32,
        protocol: &str,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Bytes> {
        let group = &self.config.group_id;
        let api = self.client().coordinator(group, Lane::Group).await?;
        let version = api.version::<SyncGroupRequest>()?;
        let request = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.config.instance_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some(protocol.to_owned()),
            assignments,
        };
        let timeout = self.config.rebalance_timeout.saturating_add(JOIN_MARGIN);
        let response = self.client().request_within(&api, &request, version, timeout).await?;
        Error::check(response.error_code, format!("group {group}"), None)?;
        Ok(response.assignment)
    }

    /// From the committed offsets, or from the configured start where there is none.
    async fn start_reading(&mut self, partitions: &[TopicPartition], generation: i32) -> Result<()> {
        let client = self.consumer.client().clone();
        let instance_id = self.config.instance_id.as_deref();
        let member = Member { id: &self.member_id, generation, instance_id };
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
                self.last_committed.insert(partition.clone(), start);
            }
        }
        Ok(())
    }

    fn start_heartbeats(&self, generation: i32, assigned_counts: Option<BTreeMap<Arc<str>, i32>>) -> Membership {
        let (beat, pulse) = watch::channel(Pulse::Steady);
        let request = HeartbeatRequest {
            group_id: self.config.group_id.clone(),
            generation_id: generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.config.instance_id.clone(),
        };
        let (interval, session) = (self.config.heartbeat_interval, self.config.session_timeout);
        let heartbeats = tokio::spawn(heartbeats(self.client().clone(), request, interval, session, beat));
        let now = Instant::now();
        Membership { generation, pulse, heartbeats, assigned_counts, counts_checked: now, committed: now }
    }
}

fn fences_member(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::RebalanceInProgress | ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)
    )
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Beats until the membership needs attention or nobody listens.
async fn heartbeats(
    client: Client,
    request: HeartbeatRequest,
    interval: Duration,
    session: Duration,
    beat: watch::Sender<Pulse>,
) {
    let mut alive = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        let pulse = match heartbeat(&client, &request, session).await {
            Ok(ErrorCode::None) => {
                alive = Instant::now();
                continue;
            }
            Ok(ErrorCode::RebalanceInProgress) => Pulse::Rebalance,
            Ok(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => Pulse::Lost,
            Ok(code) if !code.retriable() => Pulse::Refused(code),
            Ok(_) | Err(_) => {
                client.forget_coordinator(&request.group_id);
                if alive.elapsed() < session {
                    continue;
                }
                Pulse::Lost
            }
        };
        // Nobody listens when the consumer is gone.
        let _ = beat.send(pulse);
        return;
    }
}

async fn heartbeat(client: &Client, request: &HeartbeatRequest, timeout: Duration) -> Result<ErrorCode> {
    let api = client.coordinator(&request.group_id, Lane::Group).await?;
    let version = api.version::<HeartbeatRequest>()?;
    let response = client.request_within(&api, request, version, timeout).await?;
    Ok(ErrorCode::from_code(response.error_code))
}
