//! Membership with the classic protocol: join, sync, heartbeat, leave. Answers to `ConsumerCoordinator` and
//! `AbstractCoordinator`, with eager rebalancing: a member gives up its partitions before it joins anew, after it has
//! committed what was handed out (if it commits by itself).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
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
use super::group::Reader;
use super::offsets::Member;
use crate::cluster::{Backoff, Client, CoordinatorKind, Lane};
use crate::error::{Error, Result};

/// How long the broker may take to answer beyond the time for which it parks a join.
const JOIN_MARGIN: Duration = Duration::from_secs(5);

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
struct Generation {
    id: i32,
    pulse: watch::Receiver<Pulse>,
    heartbeats: JoinHandle<()>,
    /// Partition counts on which this member, as the leader, based the assignment.
    assigned_counts: Option<BTreeMap<Arc<str>, i32>>,
    counts_checked: Instant,
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

/// Not in the group until the first [`ClassicMember::keep`].
#[derive(Default)]
pub(super) struct ClassicMember {
    member_id: String,
    generation: Option<Generation>,
}

impl ClassicMember {
    pub(super) fn joined(&self) -> bool {
        self.generation.is_some()
    }

    /// As the coordinator knows this member; `None` outside of a generation.
    pub(super) fn member(&self, instance_id: Option<String>) -> Option<Member> {
        let generation = self.generation.as_ref()?.id;
        Some(Member { id: self.member_id.clone(), generation, instance_id })
    }

    /// Joins if need be.
    pub(super) async fn keep(&mut self, reader: &mut Reader) -> Result<()> {
        let Some(generation) = &self.generation else { return self.join(reader).await };
        let pulse = *generation.pulse.borrow();
        match pulse {
            Pulse::Steady if !self.partitions_changed(reader).await => Ok(()),
            Pulse::Steady | Pulse::Rebalance => {
                if let Some(member) = self.member(reader.config.instance_id.clone()) {
                    reader.commit_before_release(&member).await;
                }
                self.join(reader).await
            }
            Pulse::Lost => {
                self.member_id.clear();
                self.join(reader).await
            }
            Pulse::Refused(code) => Err(Error::broker(code, format!("group {}", reader.config.group_id), None)),
        }
    }

    /// The leader looks now and then whether topics have grown or appeared.
    async fn partitions_changed(&mut self, reader: &Reader) -> bool {
        let max_age = reader.client().config().metadata_max_age;
        let due = |m: &mut Generation| m.assigned_counts.is_some() && m.counts_checked.elapsed() >= max_age;
        if !self.generation.as_mut().is_some_and(due) {
            return false;
        }
        let topics = reader.config.topics.clone();
        let counts = partition_counts(reader.client(), &topics).await;
        let Some(generation) = &mut self.generation else { return false };
        generation.counts_checked = Instant::now();
        // What cannot be asked now is asked next time.
        let Ok(counts) = counts else { return false };
        let assigned = generation.assigned_counts.as_ref();
        counts.iter().any(|(topic, count)| assigned.and_then(|a| a.get(topic)) != Some(count))
    }

    /// Also in the middle of joining, once the coordinator has given an id. A static member stays in the group until its
    /// session ends.
    pub(super) async fn leave(mut self, reader: &Reader) -> Result<()> {
        let joining = self.generation.take().is_none();
        if self.member_id.is_empty() || reader.config.instance_id.is_some() {
            return Ok(());
        }
        let group = &reader.config.group_id;
        // The group's own connection may be taken by a join that waits for other members.
        let lane = if joining { Lane::General } else { Lane::Group };
        let api = reader.client().coordinator(group, lane).await?;
        let version = api.version::<LeaveGroupRequest>()?;
        let mut request = LeaveGroupRequest { group_id: group.clone(), ..Default::default() };
        if version >= 3 {
            let member = MemberIdentity { member_id: self.member_id.clone(), ..Default::default() };
            request.members = vec![member];
        } else {
            request.member_id.clone_from(&self.member_id);
        }
        let response = reader.client().request(&api, &request, version).await?;
        Error::check(response.error_code, format!("group {group}"), None)
    }

    // ---- joining -----------------------------------------------------------------------------------------------------

    /// Until there is an assignment; gives up after `default.api.timeout.ms` of failures that may pass.
    async fn join(&mut self, reader: &mut Reader) -> Result<()> {
        self.generation = None;
        reader.release_all();
        let mut backoff = Backoff::new(reader.client().config());
        let mut failing_since: Option<Instant> = None;
        loop {
            let error = match self.join_once(reader).await {
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
                reader.client().forget_coordinator(CoordinatorKind::Group, &reader.config.group_id);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > reader.client().config().operation_timeout {
                return Err(error);
            }
            tracing::debug!(%error, "joining the group failed");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn join_once(&mut self, reader: &mut Reader) -> Result<()> {
        let joined = self.send_join(reader).await?;
        let generation = joined.generation_id;
        let leads = joined.leader == joined.member_id;
        let protocol = joined.protocol_name.clone().unwrap_or_default();
        let (assignments, counts) = match leads {
            true if joined.skip_assignment => (Vec::new(), None),
            true => {
                let (assignments, counts) = assign(reader.client(), &protocol, joined).await?;
                (assignments, Some(counts))
            }
            false => (Vec::new(), None),
        };
        let assignment = self.send_sync(reader, generation, &protocol, assignments).await?;
        let partitions = assignor::decode_assignment(assignment)?;
        // Heartbeats start first: reading the offsets may take long.
        self.generation = Some(self.start_heartbeats(reader, generation, counts));
        let instance_id = reader.config.instance_id.clone();
        let member = Member { id: self.member_id.clone(), generation, instance_id };
        reader.start_reading(&partitions, &member).await
    }

    async fn send_join(&mut self, reader: &Reader) -> Result<JoinGroupResponse> {
        let group = &reader.config.group_id;
        let api = reader.client().coordinator(group, Lane::Group).await?;
        let version = api.version::<JoinGroupRequest>()?;
        let metadata = assignor::encode_subscription(&reader.config.topics);
        let metadata = metadata.map_err(|e| Error::Invalid(e.to_string()))?;
        let protocol =
            |a: &Assignor| JoinGroupRequestProtocol { name: a.name().to_owned(), metadata: metadata.clone() };
        let request = JoinGroupRequest {
            group_id: group.clone(),
            session_timeout_ms: millis(reader.config.session_timeout),
            rebalance_timeout_ms: millis(reader.config.rebalance_timeout),
            member_id: self.member_id.clone(),
            group_instance_id: reader.config.instance_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: reader.config.assignors.iter().map(protocol).collect(),
            ..Default::default()
        };
        let timeout = reader.config.rebalance_timeout.saturating_add(JOIN_MARGIN);
        let response = reader.client().request_within(&api, &request, version, timeout).await?;
        let code = ErrorCode::from_code(response.error_code);
        if matches!(code, ErrorCode::None | ErrorCode::MemberIdRequired) {
            self.member_id.clone_from(&response.member_id);
        }
        Error::check(response.error_code, format!("group {}", reader.config.group_id), None)?;
        Ok(response)
    }

    async fn send_sync(
        &self,
        reader: &Reader,
        generation: i32,
        protocol: &str,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Bytes> {
        let group = &reader.config.group_id;
        let api = reader.client().coordinator(group, Lane::Group).await?;
        let version = api.version::<SyncGroupRequest>()?;
        let request = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: generation,
            member_id: self.member_id.clone(),
            group_instance_id: reader.config.instance_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some(protocol.to_owned()),
            assignments,
        };
        let timeout = reader.config.rebalance_timeout.saturating_add(JOIN_MARGIN);
        let response = reader.client().request_within(&api, &request, version, timeout).await?;
        Error::check(response.error_code, format!("group {group}"), None)?;
        Ok(response.assignment)
    }

    fn start_heartbeats(
        &self,
        reader: &Reader,
        generation: i32,
        assigned_counts: Option<BTreeMap<Arc<str>, i32>>,
    ) -> Generation {
        let (beat, pulse) = watch::channel(Pulse::Steady);
        let request = HeartbeatRequest {
            group_id: reader.config.group_id.clone(),
            generation_id: generation,
            member_id: self.member_id.clone(),
            group_instance_id: reader.config.instance_id.clone(),
        };
        let (interval, session) = (reader.config.heartbeat_interval, reader.config.session_timeout);
        let heartbeats = tokio::spawn(heartbeats(reader.client().clone(), request, interval, session, beat));
        Generation { id: generation, pulse, heartbeats, assigned_counts, counts_checked: Instant::now() }
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
    let mut members = Vec::with_capacity(joined.members.len());
    for member in joined.members {
        members.push(Subscription {
            topics: assignor::decode_subscription(member.metadata)?,
            member_id: member.member_id,
            instance_id: member.group_instance_id,
        });
    }
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
async fn partition_counts(client: &Client, topics: &BTreeSet<String>) -> Result<BTreeMap<Arc<str>, i32>> {
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
                client.forget_coordinator(CoordinatorKind::Group, &request.group_id);
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
