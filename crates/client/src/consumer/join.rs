//! One member's way into a generation of a classic group: JoinGroup, the leader's work, SyncGroup; then its heartbeats. It
//! runs as a task, so that a cooperative member reads on meanwhile. Answers to `AbstractCoordinator.joinGroupIfNeeded`, and
//! its `HeartbeatThread`.

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

use super::assignor::{self, Assignor};
use super::group::GroupConfig;
use super::poll_clock::{PollClock, PollWatch};
use crate::cluster::{Backoff, Client, CoordinatorKind, Lane};
use crate::error::{Error, Result};

/// How long the broker may take to answer beyond the time for which it parks a join.
const JOIN_MARGIN: Duration = Duration::from_secs(5);

/// What the heartbeats say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Steady,
    /// The group rebalances: join again with the same member id.
    Rebalance,
    /// The coordinator has forgotten the member, or it left because nobody polled: join as a new one.
    Lost,
    /// Another member took over the static id, or access was refused.
    Refused(ErrorCode),
}

/// A membership in one generation.
pub(super) struct Generation {
    pub(super) id: i32,
    pub(super) pulse: watch::Receiver<Pulse>,
    pub(super) heartbeats: JoinHandle<()>,
    /// Partition counts on which this member, as the leader, based the assignment.
    pub(super) assigned_counts: Option<BTreeMap<Arc<str>, i32>>,
    pub(super) counts_checked: Instant,
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

pub(super) struct Joined {
    pub(super) generation: Generation,
    pub(super) partitions: Vec<TopicPartition>,
}

/// A join under way.
pub(super) struct Joining {
    pub(super) task: JoinHandle<Result<Joined>>,
    /// As the coordinator gave it; empty before.
    pub(super) member_id: watch::Receiver<String>,
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who joins, with what it keeps meanwhile.
pub(super) struct Join {
    pub(super) client: Client,
    pub(super) config: GroupConfig,
    pub(super) polls: PollClock,
    pub(super) owned: BTreeSet<TopicPartition>,
    /// In which `owned` was held.
    pub(super) generation: i32,
}

impl Join {
    /// Until there is an assignment; gives up after `default.api.timeout.ms` of failures that may pass. A member that keeps
    /// partitions hears at once when the coordinator does not know it any more; it has to give them up.
    pub(super) fn start(self, member_id: &str) -> Joining {
        let (ids, watched) = watch::channel(member_id.to_owned());
        Joining { task: tokio::spawn(self.run(ids)), member_id: watched }
    }

    async fn run(mut self, ids: watch::Sender<String>) -> Result<Joined> {
        let mut backoff = Backoff::new(self.client.config());
        let mut failing_since: Option<Instant> = None;
        loop {
            let error = match self.attempt(&ids).await {
                Ok(joined) => return Ok(joined),
                Err(error) => error,
            };
            match error.code() {
                // Part of the protocol: at once again.
                Some(ErrorCode::MemberIdRequired | ErrorCode::RebalanceInProgress) => continue,
                Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) if self.owned.is_empty() => {
                    ids.send_replace(String::new());
                    continue;
                }
                _ if !error.retriable() => return Err(error),
                _ => {}
            }
            if error.stale_metadata() {
                self.client.forget_coordinator(CoordinatorKind::Group, &self.config.group_id);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > self.client.config().operation_timeout {
                return Err(error);
            }
            tracing::debug!(%error, "joining the group failed");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn attempt(&mut self, ids: &watch::Sender<String>) -> Result<Joined> {
        let joined = self.send_join(ids).await?;
        let member_id = ids.borrow().clone();
        let generation = joined.generation_id;
        self.generation = generation;
        let leads = joined.leader == joined.member_id;
        let protocol = joined.protocol_name.clone().unwrap_or_default();
        let (assignments, counts) = match leads {
            true if joined.skip_assignment => (Vec::new(), None),
            true => {
                let (assignments, counts) = assign(&self.client, &protocol, joined).await?;
                (assignments, Some(counts))
            }
            false => (Vec::new(), None),
        };
        let assignment = self.send_sync(&member_id, &protocol, assignments).await?;
        let partitions = assignor::decode_assignment(assignment)?;
        // Heartbeats start at once: reading the offsets may take long, and so may the next poll.
        Ok(Joined { generation: self.start_heartbeats(member_id, counts), partitions })
    }

    async fn send_join(&self, ids: &watch::Sender<String>) -> Result<JoinGroupResponse> {
        let config = &self.config;
        let api = self.client.coordinator(&config.group_id, Lane::Group).await?;
        let version = api.version::<JoinGroupRequest>()?;
        let metadata = assignor::encode_subscription(&config.topics, &self.owned, self.generation, &config.rack);
        let metadata = metadata.map_err(|e| Error::Invalid(e.to_string()))?;
        let protocol =
            |a: &Assignor| JoinGroupRequestProtocol { name: a.name().to_owned(), metadata: metadata.clone() };
        let request = JoinGroupRequest {
            group_id: config.group_id.clone(),
            session_timeout_ms: millis(config.session_timeout),
            rebalance_timeout_ms: millis(config.max_poll_interval),
            member_id: ids.borrow().clone(),
            group_instance_id: config.instance_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: config.assignors.iter().map(protocol).collect(),
            ..Default::default()
        };
        let timeout = config.max_poll_interval.saturating_add(JOIN_MARGIN);
        let response = self.client.request_within(&api, &request, version, timeout).await?;
        let code = ErrorCode::from_code(response.error_code);
        if matches!(code, ErrorCode::None | ErrorCode::MemberIdRequired) {
            ids.send_replace(response.member_id.clone());
        }
        Error::check(response.error_code, format!("group {}", config.group_id), None)?;
        Ok(response)
    }

    async fn send_sync(
        &self,
        member_id: &str,
        protocol: &str,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Bytes> {
        let group = &self.config.group_id;
        let api = self.client.coordinator(group, Lane::Group).await?;
        let version = api.version::<SyncGroupRequest>()?;
        let request = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: self.generation,
            member_id: member_id.to_owned(),
            group_instance_id: self.config.instance_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some(protocol.to_owned()),
            assignments,
        };
        let timeout = self.config.max_poll_interval.saturating_add(JOIN_MARGIN);
        let response = self.client.request_within(&api, &request, version, timeout).await?;
        Error::check(response.error_code, format!("group {group}"), None)?;
        Ok(response.assignment)
    }

    fn start_heartbeats(&self, member_id: String, assigned_counts: Option<BTreeMap<Arc<str>, i32>>) -> Generation {
        let (beat, pulse) = watch::channel(Pulse::Steady);
        let config = &self.config;
        let request = HeartbeatRequest {
            group_id: config.group_id.clone(),
            generation_id: self.generation,
            member_id,
            group_instance_id: config.instance_id.clone(),
        };
        let beats = Heartbeats {
            client: self.client.clone(),
            request,
            interval: config.heartbeat_interval,
            session: config.session_timeout,
            polls: self.polls.watch(config.max_poll_interval),
        };
        let heartbeats = tokio::spawn(async move {
            let last = beats.run(&beat).await;
            // Nobody listens when the consumer is gone.
            let _ = beat.send(last);
        });
        Generation { id: self.generation, pulse, heartbeats, assigned_counts, counts_checked: Instant::now() }
    }
}

/// The leader's work.
async fn assign(
    client: &Client,
    protocol: &str,
    joined: JoinGroupResponse,
) -> Result<(Vec<SyncGroupRequestAssignment>, BTreeMap<Arc<str>, i32>)> {
    let assignor = Assignor::from_name(protocol).ok_or_else(|| {
        Error::Invalid(format!("the group agreed on the assignor {protocol:?}, which is unknown here"))
    })?;
    let members = joined.members.into_iter();
    let members = members.map(|m| assignor::decode_subscription(m.member_id, m.group_instance_id, m.metadata));
    let members = members.collect::<Result<Vec<_>, _>>()?;
    let topics = members.iter().flat_map(|m| m.topics.iter().cloned()).collect();
    let counts = partition_counts(client, &topics).await?;
    let owned = assignor.assign(&members, &counts);
    let mut assignments = Vec::with_capacity(owned.len());
    for (member_id, partitions) in owned {
        let assignment = assignor::encode_assignment(&partitions).map_err(|e| Error::Invalid(e.to_string()))?;
        assignments.push(SyncGroupRequestAssignment { member_id, assignment });
    }
    Ok((assignments, counts))
}

/// Topics that do not exist are left out.
pub(super) async fn partition_counts(client: &Client, topics: &BTreeSet<String>) -> Result<BTreeMap<Arc<str>, i32>> {
    let mut counts = BTreeMap::new();
    for name in topics {
        client.forget_topic(name);
        match client.topic(name).await {
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

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A member that is not static says that it goes.
pub(super) async fn leave(client: &Client, group: &str, member_id: &str, lane: Lane) -> Result<()> {
    let api = client.coordinator(group, lane).await?;
    let version = api.version::<LeaveGroupRequest>()?;
    let mut request = LeaveGroupRequest { group_id: group.to_owned(), ..Default::default() };
    if version >= 3 {
        let member = MemberIdentity { member_id: member_id.to_owned(), ..Default::default() };
        request.members = vec![member];
    } else {
        member_id.clone_into(&mut request.member_id);
    }
    let response = client.request(&api, &request, version).await?;
    Error::check(response.error_code, format!("group {group}"), None)
}

struct Heartbeats {
    client: Client,
    request: HeartbeatRequest,
    interval: Duration,
    session: Duration,
    polls: PollWatch,
}

impl Heartbeats {
    /// Beats until the membership is over. A member that is to join again stays alive until it does.
    async fn run(mut self, pulse: &watch::Sender<Pulse>) -> Pulse {
        let mut alive = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = self.polls.overdue() => {
                    self.leave().await;
                    return Pulse::Lost;
                }
            }
            match self.beat().await {
                Ok(ErrorCode::None) => alive = Instant::now(),
                Ok(ErrorCode::RebalanceInProgress) => {
                    alive = Instant::now();
                    pulse.send_if_modified(|pulse| std::mem::replace(pulse, Pulse::Rebalance) != Pulse::Rebalance);
                }
                Ok(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => return Pulse::Lost,
                Ok(code) if !code.retriable() => return Pulse::Refused(code),
                Ok(_) | Err(_) => {
                    self.client.forget_coordinator(CoordinatorKind::Group, &self.request.group_id);
                    if alive.elapsed() >= self.session {
                        return Pulse::Lost;
                    }
                }
            }
        }
    }

    async fn beat(&self) -> Result<ErrorCode> {
        let api = self.client.coordinator(&self.request.group_id, Lane::Group).await?;
        let version = api.version::<HeartbeatRequest>()?;
        let response = self.client.request_within(&api, &self.request, version, self.session).await?;
        Ok(ErrorCode::from_code(response.error_code))
    }

    /// Nobody has polled for `max.poll.interval.ms`. A static member's session ends by itself.
    async fn leave(&self) {
        let HeartbeatRequest { group_id, member_id, group_instance_id, .. } = &self.request;
        tracing::warn!(group = %group_id, "leaving the group: the consumer has not polled for max.poll.interval.ms");
        if group_instance_id.is_none()
            && let Err(error) = leave(&self.client, group_id, member_id, Lane::Group).await
        {
            tracing::debug!(%error, "the group was not told");
        }
    }
}
