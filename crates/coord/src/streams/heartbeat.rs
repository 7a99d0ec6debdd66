//! StreamsGroupHeartbeat: a member joins, moves on, or leaves. A heartbeat computes records and changes nothing but what is
//! in memory alone: the records take effect when they are in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use taccola_base::limits;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::streams_group_heartbeat_request as request;
use taccola_wire::messages::streams_group_heartbeat_response as response;
use taccola_wire::messages::streams_group_member_metadata_value as metadata;
use taccola_wire::messages::streams_group_metadata_value::LastAssignmentConfig;
use taccola_wire::messages::{
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, StreamsGroupMemberMetadataValue,
    StreamsGroupMetadataValue, StreamsGroupTargetAssignmentMetadataValue,
};

use super::assignor::{self, MemberSpec};
use super::group::{Member, MemberState, Soft, StreamsGroup, metadata_bytes};
use super::internal_topics::{ConfiguredTopology, Status, configure};
use super::reconcile::{Goal, Owners, reconcile};
use super::records::{Body, GroupRecord, current_value, target_value};
use super::tasks::{ActiveTasks, TaskSet, Tasks, contains, epoch_of, insert, plain};
use super::topology::{Topology, record_of};
use super::validate::{Refused, check_request, check_tasks};
use super::{Streams, StreamsHeartbeat};
use crate::GroupConfig;
use crate::cluster_image::ClusterImage;
use crate::effects::{Effects, Reply, RequestContext, Response, TimerKey};
use crate::group::GroupKind;
use crate::modern::topics::TopicHashes;
use crate::modern::{JOIN_EPOCH, LEAVE_EPOCH, may_assign, settings};
use crate::outbox::{Change, Outbox};
use crate::shard::GroupShard;

/// The one thing that can be set about an assignment.
const STANDBY_REPLICAS: &str = "num.standby.replicas";

impl GroupShard {
    /// One heartbeat: joins, moves on, or leaves.
    pub fn handle_streams_group_heartbeat(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Effects<StreamsHeartbeat> {
        let mut out = Outbox::default();
        let reply = check_request(request).and_then(|()| match request.member_epoch {
            LEAVE_EPOCH => self.streams_leave(request, &mut out),
            _ => self.streams_heartbeat(now_ms, ctx, request, &mut out),
        });
        match reply {
            Ok(reply) => {
                self.finish_modern(ctx.token, &request.group_id, reply, out, |r| Response::Streams(Box::new(r)))
            }
            Err((error, message)) => {
                self.finish(Reply::Now(StreamsHeartbeat::refused(error, Some(message))), Outbox::default())
            }
        }
    }

    fn streams_heartbeat(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &StreamsGroupHeartbeatRequest,
        out: &mut Outbox,
    ) -> Result<StreamsHeartbeat, Refused> {
        let id: Arc<str> = request.group_id.as_str().into();
        if request.member_epoch == JOIN_EPOCH {
            let room = self.make_room_for(&id, GroupKind::Streams, out);
            room.map_err(|error| (error, format!("Group {id} is not a streams group.")))?;
        } else if !self.streams.groups.contains_key(&id) {
            return Err(not_found(&id, self.kind_of(&id)));
        }
        let fresh = StreamsGroup::new(id.clone());
        let Streams { groups, soft } = &mut self.streams;
        let mut local = Soft::default();
        let existing = groups.get(&id);
        let mut step = Step {
            now_ms,
            config: &self.config,
            image: &*self.image,
            exists: existing.is_some(),
            group: existing.unwrap_or(&fresh),
            soft: soft.get_mut(&id).unwrap_or(&mut local),
            hashes: &mut self.topic_hashes,
            bodies: Vec::new(),
            statuses: Vec::new(),
            out,
        };
        let reply = step.heartbeat(ctx, request)?;
        let bodies = step.bodies;
        soft.entry(id.clone()).or_insert(local);
        write(&id, bodies, out)?;
        Ok(reply)
    }

    fn streams_leave(
        &mut self,
        request: &StreamsGroupHeartbeatRequest,
        out: &mut Outbox,
    ) -> Result<StreamsHeartbeat, Refused> {
        let id = request.group_id.as_str();
        let Some(group) = self.streams.groups.get(id) else { return Err(not_found(id, self.kind_of(id))) };
        let soft = self.streams.soft.get_mut(id);
        let Some((member, _)) = group.members.get_key_value(request.member_id.as_str()) else {
            return Err(unknown_member(&request.member_id, id));
        };
        let bodies = leave_records(group, member);
        // The member's timers stay until it is gone from the log: they do nothing then.
        if let Some(soft) = soft.filter(|_| request.shutdown_application) {
            soft.shutdown_by.get_or_insert_with(|| member.clone());
        }
        write(&group.id, bodies, out)?;
        let response = StreamsGroupHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            status: Some(Vec::new()),
            ..Default::default()
        };
        Ok(StreamsHeartbeat { response, create: Vec::new() })
    }
}

fn not_found(id: &str, kind: Option<GroupKind>) -> Refused {
    let why = if kind.is_some() { "is not a streams group" } else { "not found" };
    let what = if kind.is_some() { "Group" } else { "Streams group" };
    (ErrorCode::GroupIdNotFound, format!("{what} {id} {why}."))
}

fn unknown_member(member: &str, group: &str) -> Refused {
    (ErrorCode::UnknownMemberId, format!("Member {member} is not a member of group {group}."))
}

/// Adds typed records of one group to a step.
pub(super) fn write(group: &Arc<str>, bodies: Vec<Body>, out: &mut Outbox) -> Result<(), Refused> {
    for body in bodies {
        let record = GroupRecord { group: group.clone(), body };
        let encoded = record.encode().map_err(|e| (ErrorCode::InvalidRequest, e.to_string()))?;
        out.write(encoded, Change::Streams(record));
    }
    Ok(())
}

/// The member is gone, and the rest gets a new assignment.
pub(super) fn leave_records(group: &StreamsGroup, member: &Arc<str>) -> Vec<Body> {
    let mut bodies = StreamsGroup::removal_of(member).to_vec();
    bodies.push(epoch_record(
        group.epoch.saturating_add(1),
        group.metadata_hash,
        group.validated_topology_epoch,
        &group.last_assignment_configs,
    ));
    bodies
}

fn epoch_record(epoch: i32, hash: i64, validated: i32, configs: &BTreeMap<String, String>) -> Body {
    let config = |(key, value): (&String, &String)| LastAssignmentConfig { key: key.clone(), value: value.clone() };
    Body::Metadata(Some(StreamsGroupMetadataValue {
        epoch,
        metadata_hash: hash,
        validated_topology_epoch: validated,
        last_assignment_configs: Some(configs.iter().map(config).collect()),
    }))
}

fn standby_replicas(configs: &BTreeMap<String, String>) -> usize {
    configs.get(STANDBY_REPLICAS).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A new target for all members: those whose tasks change, then the epoch. `changed` is the member as it will be.
pub(super) fn target_records(
    now_ms: i64,
    group: &StreamsGroup,
    epoch: i32,
    configured: &ConfiguredTopology,
    configs: &BTreeMap<String, String>,
    changed: Option<(&Arc<str>, &Member)>,
) -> (BTreeMap<Arc<str>, Tasks>, Vec<Body>) {
    let none = Tasks::default();
    let mut specs: BTreeMap<Arc<str>, MemberSpec<'_>> = BTreeMap::new();
    for (id, member) in group.members.iter().chain(changed) {
        let previous = group.target.get(id).unwrap_or(&none);
        specs.insert(id.clone(), MemberSpec { process_id: &member.metadata.process_id, previous });
    }
    let target = if configured.is_ready() {
        assignor::assign(&specs, &configured.specs(), standby_replicas(configs))
    } else {
        specs.keys().map(|id| (id.clone(), Tasks::default())).collect()
    };
    let differs = |id: &Arc<str>, tasks: &Tasks| group.target.get(id) != Some(tasks);
    let mut bodies: Vec<Body> = target
        .iter()
        .filter(|(id, tasks)| differs(id, tasks))
        .map(|(id, tasks)| Body::TargetMember(id.clone(), Some(target_value(tasks))))
        .collect();
    bodies.push(Body::TargetMetadata(Some(StreamsGroupTargetAssignmentMetadataValue {
        assignment_epoch: epoch,
        assignment_timestamp: now_ms,
    })));
    (target, bodies)
}

/// The setting of the group within the broker's bounds.
pub(super) fn session_timeout_ms(config: &GroupConfig, image: &dyn ClusterImage, group: &str) -> i32 {
    let c = &config.streams;
    let (default, min, max) = (c.session_timeout_ms, c.min_session_timeout_ms, c.max_session_timeout_ms);
    settings::of_group(image, group, "streams.session.timeout.ms", default, min, max)
}

pub(super) fn assignment_interval_ms(config: &GroupConfig, image: &dyn ClusterImage, group: &str) -> i32 {
    let c = &config.streams;
    let (default, min, max) = (c.assignment_interval_ms, c.min_assignment_interval_ms, c.max_assignment_interval_ms);
    settings::of_group(image, group, "streams.assignment.interval.ms", default, min, max)
}

/// What one heartbeat leads to.
struct Step<'a> {
    now_ms: i64,
    config: &'a GroupConfig,
    image: &'a dyn ClusterImage,
    /// The group has a record in the log.
    exists: bool,
    group: &'a StreamsGroup,
    soft: &'a mut Soft,
    hashes: &'a mut TopicHashes,
    bodies: Vec<Body>,
    statuses: Vec<response::Status>,
    out: &'a mut Outbox,
}

impl Step<'_> {
    fn heartbeat(
        &mut self,
        ctx: &RequestContext<'_>,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<StreamsHeartbeat, Refused> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let id: Arc<str> = request.member_id.as_str().into();
        let before = self.member(&id, joins)?;
        check_epoch(&before, request)?;
        let mut member = Member { metadata: told(&before.metadata, ctx, request), ..before.clone() };
        self.check_size(&id, &member)?;
        let mut bump = member.metadata != before.metadata;
        if bump {
            self.bodies.push(Body::Member(id.clone(), Some(member.metadata.clone())));
        }
        let topology = self.topology(request)?;
        self.tell_stale_topology(&member);
        let (configured, hash) = self.configured(&topology)?;
        bump |= hash != self.group.metadata_hash;
        let validated = if configured.is_ready() { topology.epoch } else { -1 };
        if configured.is_ready() {
            check_tasks(&configured, request.active_tasks.as_ref())?;
            check_tasks(&configured, request.standby_tasks.as_ref())?;
            check_tasks(&configured, request.warmup_tasks.as_ref())?;
        }
        let configs = BTreeMap::from([(STANDBY_REPLICAS.to_owned(), self.standby_replicas().to_string())]);
        bump |= validated != self.group.validated_topology_epoch || configs != self.group.last_assignment_configs;
        let mut epoch = self.group.epoch;
        if bump {
            epoch = epoch.saturating_add(1);
            self.bodies.push(epoch_record(epoch, hash, validated, &configs));
        }
        self.delay_first_assignment();
        let (target_epoch, target) = self.target(epoch, &configured, &configs, &id, &member);
        self.reconcile(&id, &mut member, request, target_epoch, &target)?;
        let timeout_ms = session_timeout_ms(self.config, self.image, &self.group.id);
        self.soft.timeouts.touch(&self.group.id, &id, self.now_ms, timeout_ms, self.out);
        if request.shutdown_application {
            self.soft.shutdown_by.get_or_insert_with(|| id.clone());
        }
        let changed = joins || member.assigned != before.assigned;
        let response = self.response(&id, &member, changed, request, &configured);
        Ok(StreamsHeartbeat { response, create: configured.to_create.clone() })
    }

    fn member(&self, id: &Arc<str>, joins: bool) -> Result<Member, Refused> {
        match self.group.members.get(id) {
            Some(member) => Ok(member.clone()),
            None if joins => {
                let max = usize::try_from(self.config.streams.max_size).unwrap_or(0).min(limits::GROUP_MEMBERS_MAX);
                if self.group.members.len() < max {
                    return Ok(Member::default());
                }
                let message = format!("The streams group has reached its maximum capacity of {max} members.");
                Err((ErrorCode::GroupMaxSizeReached, message))
            }
            None => Err(unknown_member(id, &self.group.id)),
        }
    }

    /// What all members say of themselves is bounded.
    fn check_size(&self, id: &Arc<str>, member: &Member) -> Result<(), Refused> {
        let others: usize =
            self.group.members.iter().filter(|(other, _)| *other != id).map(|(_, m)| m.metadata_bytes()).sum();
        if others.saturating_add(metadata_bytes(&member.metadata)) <= limits::GROUP_METADATA_BYTES_MAX {
            return Ok(());
        }
        Err((ErrorCode::GroupMaxSizeReached, "The members of the group say too much about themselves.".to_owned()))
    }

    /// The group's topology: the one it has, or the one that its first member brings.
    fn topology(&mut self, request: &StreamsGroupHeartbeatRequest) -> Result<Arc<Topology>, Refused> {
        match (&self.group.topology, &request.topology) {
            (Some(known), None) => Ok(known.clone()),
            (None, None) => {
                Err((ErrorCode::UnknownServerError, "The group has no topology, and the member sent none.".to_owned()))
            }
            (None, Some(sent)) => {
                let record = record_of(sent);
                let topology = Arc::new(Topology::from_record(&record));
                self.bodies.push(Body::Topology(Some(record)));
                Ok(topology)
            }
            (Some(known), Some(sent)) => {
                if known.epoch > sent.epoch || **known == Topology::from_record(&record_of(sent)) {
                    return Ok(known.clone());
                }
                Err((ErrorCode::InvalidRequest, "Topology updates are not supported yet.".to_owned()))
            }
        }
    }

    fn tell(&mut self, status: Status, detail: impl Into<String>) {
        self.statuses.push(response::Status { status_code: status.code(), status_detail: detail.into() });
    }

    fn tell_stale_topology(&mut self, member: &Member) {
        let Some(topology) = &self.group.topology else { return };
        let (has, is) = (member.metadata.topology_epoch, topology.epoch);
        if has < is {
            self.tell(
                Status::StaleTopology,
                format!("The member's topology epoch {has} is behind the group's topology epoch {is}."),
            );
        }
    }

    /// What the topology means for the topics as they are now, and the hash of those. Looked up again when a topic of the
    /// group may have changed, until the hash is in the log.
    fn configured(&mut self, topology: &Arc<Topology>) -> Result<(Arc<ConfiguredTopology>, i64), Refused> {
        let known = self.soft.configured.clone().filter(|_| self.group.topology.is_some());
        if let Some(configured) = known.as_ref().filter(|_| self.soft.is_fresh) {
            return Ok((configured.clone(), self.group.metadata_hash));
        }
        let hash = self.hashes.group_hash(self.image, &topology.required_topics());
        let unchanged = hash == self.group.metadata_hash;
        let from = (hash, topology.epoch);
        let configured = match known.filter(|_| self.soft.configured_from == from) {
            Some(configured) => configured,
            None => {
                let configured = configure(topology, self.image);
                Arc::new(configured.map_err(|error| (ErrorCode::StreamsInvalidTopology, error.to_string()))?)
            }
        };
        self.soft.configured = Some(configured.clone());
        self.soft.configured_from = from;
        self.soft.is_fresh = unchanged && self.group.topology.is_some();
        Ok((configured, hash))
    }

    fn standby_replicas(&self) -> i32 {
        let c = &self.config.streams;
        let (default, max) = (c.num_standby_replicas, c.max_standby_replicas);
        settings::of_group(self.image, &self.group.id, "streams.num.standby.replicas", default, 0, max)
    }

    /// A group that was empty waits a little for more members.
    fn delay_first_assignment(&mut self) {
        if !self.group.members.is_empty() || self.soft.initial_delay_until_ms.is_some() {
            return;
        }
        let default = self.config.streams.initial_rebalance_delay_ms;
        let key = "streams.initial.rebalance.delay.ms";
        let delay_ms = settings::of_group(self.image, &self.group.id, key, default, 0, i32::MAX);
        if delay_ms > 0 {
            let until_ms = self.now_ms.saturating_add(i64::from(delay_ms));
            self.soft.initial_delay_until_ms = Some(until_ms);
            self.out.set_timer(TimerKey::ModernGroup { group: self.group.id.clone() }, until_ms);
        }
    }

    /// The target that the member moves towards, and its epoch: the last one, unless it is time for a new one.
    fn target(
        &mut self,
        epoch: i32,
        configured: &ConfiguredTopology,
        configs: &BTreeMap<String, String>,
        id: &Arc<str>,
        member: &Member,
    ) -> (i32, Tasks) {
        let last = (self.group.assignment_epoch, self.group.target.get(id).cloned().unwrap_or_default());
        match self.soft.initial_delay_until_ms {
            Some(until_ms) if self.now_ms < until_ms => {
                self.tell(
                    Status::AssignmentDelayed,
                    "Assignment delayed due to the configured initial rebalance delay.",
                );
                return (self.group.assignment_epoch, Tasks::default());
            }
            // The timer is late.
            Some(_) => self.soft.initial_delay_until_ms = None,
            None => {}
        }
        if self.group.assignment_epoch >= epoch {
            return last;
        }
        let interval_ms = assignment_interval_ms(self.config, self.image, &self.group.id);
        if !may_assign(self.group.assignment_ms, interval_ms, self.now_ms) {
            self.tell(Status::AssignmentDelayed, "Assignment delayed due to the configured assignment interval.");
            return last;
        }
        let (target, bodies) = target_records(self.now_ms, self.group, epoch, configured, configs, Some((id, member)));
        self.bodies.extend(bodies);
        (epoch, target.get(id).cloned().unwrap_or_default())
    }

    fn reconcile(
        &mut self,
        id: &Arc<str>,
        member: &mut Member,
        request: &StreamsGroupHeartbeatRequest,
        epoch: i32,
        target: &Tasks,
    ) -> Result<(), Refused> {
        if member.is_reconciled_to(epoch) {
            return Ok(());
        }
        let owners = Owners::of(self.group.members.values());
        let owned = owned(request);
        let goal = Goal { epoch, target, owners: &owners, owned: owned.as_ref() };
        let next = reconcile(member, &goal).map_err(|_| {
            let message =
                "The streams group member is in a unknown state. The member must abandon all its tasks and rejoin.";
            (ErrorCode::FencedMemberEpoch, message.to_owned())
        })?;
        if next == *member {
            return Ok(());
        }
        self.bodies.push(Body::Current(id.clone(), Some(current_value(&next))));
        let group = &self.group.id;
        if next.state == MemberState::UnrevokedTasks {
            let timeout_ms = i64::from(next.metadata.rebalance_timeout_ms.max(0));
            let deadline_ms = self.now_ms.saturating_add(timeout_ms);
            self.soft.timeouts.ask(group, id, next.epoch, deadline_ms, self.out);
        } else {
            self.soft.timeouts.settle(group, id, self.out);
        }
        *member = next;
        Ok(())
    }

    fn response(
        &mut self,
        id: &Arc<str>,
        member: &Member,
        changed: bool,
        request: &StreamsGroupHeartbeatRequest,
        configured: &ConfiguredTopology,
    ) -> StreamsGroupHeartbeatResponse {
        let c = &self.config.streams;
        let (default, min, max) = (c.heartbeat_interval_ms, c.min_heartbeat_interval_ms, c.max_heartbeat_interval_ms);
        let group = &self.group.id;
        let interval = settings::of_group(self.image, group, "streams.heartbeat.interval.ms", default, min, max);
        let mut response = StreamsGroupHeartbeatResponse {
            member_id: id.to_string(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: interval,
            ..Default::default()
        };
        let mut endpoint_epoch = self.soft.endpoint_epoch;
        if changed {
            response.active_tasks = Some(task_ids(&plain(&member.assigned.active)));
            response.standby_tasks = Some(task_ids(&member.assigned.standby));
            response.warmup_tasks = Some(task_ids(&member.assigned.warmup));
            if member.metadata.user_endpoint.is_some() {
                endpoint_epoch = endpoint_epoch.saturating_add(1);
            }
        }
        if endpoint_epoch != request.endpoint_information_epoch {
            response.partitions_by_user_endpoint = Some(self.endpoints(id, member, configured));
        }
        if self.exists {
            self.soft.endpoint_epoch = endpoint_epoch;
            response.endpoint_information_epoch = endpoint_epoch;
        }
        if let Some(problem) = &configured.problem {
            self.tell(problem.status, problem.detail.clone());
        }
        if let Some(by) = self.soft.shutdown_by.clone() {
            self.tell(
                Status::ShutdownApplication,
                format!(
                    "Streams group member {by} encountered a fatal error and requested a shutdown for the entire application."
                ),
            );
        }
        response.status = Some(std::mem::take(&mut self.statuses));
        response
    }

    /// Which topic partitions are behind which user endpoint.
    fn endpoints(
        &self,
        id: &Arc<str>,
        member: &Member,
        configured: &ConfiguredTopology,
    ) -> Vec<response::EndpointToPartitions> {
        let others = self.group.members.iter().filter(|(other, _)| *other != id).map(|(_, member)| member);
        let row = |member: &Member| {
            let endpoint = member.metadata.user_endpoint.as_ref()?;
            Some(response::EndpointToPartitions {
                user_endpoint: response::Endpoint { host: endpoint.host.clone(), port: endpoint.port },
                active_partitions: self.partitions_behind(&plain(&member.assigned.active), configured),
                standby_partitions: self.partitions_behind(&member.assigned.standby, configured),
            })
        };
        others.chain([member]).filter_map(row).collect()
    }

    fn partitions_behind(&self, tasks: &TaskSet, configured: &ConfiguredTopology) -> Vec<response::TopicPartition> {
        let mut rows = Vec::new();
        let Some(subtopologies) = &configured.subtopologies else { return rows };
        for (id, partitions) in tasks {
            let Some(subtopology) = subtopologies.get(id) else { continue };
            for topic in subtopology.source_topics.iter().chain(&subtopology.repartition_sources) {
                let Some(info) = self.image.topic_by_name(topic) else { continue };
                // A topic with fewer partitions than there are tasks is behind the first ones.
                let most = usize::try_from(info.partitions).unwrap_or(0);
                let partitions = partitions.iter().copied().take(most).collect();
                rows.push(response::TopicPartition { topic: topic.clone(), partitions });
            }
        }
        rows
    }
}

/// A member that missed the last reply repeats its epoch; any other epoch is not its.
fn check_epoch(member: &Member, request: &StreamsGroupHeartbeatRequest) -> Result<(), Refused> {
    let (received, is) = (request.member_epoch, member.epoch);
    if received == JOIN_EPOCH || received == is {
        return Ok(());
    }
    let repeats = received < is && received == member.previous_epoch && owns_no_more(member, request);
    if repeats {
        return Ok(());
    }
    let than = if received > is { "greater" } else { "smaller" };
    let message = format!(
        "The streams group member has a {than} member epoch ({received}) than the one known by the group coordinator ({is}). The member must abandon all its partitions and rejoin."
    );
    Err((ErrorCode::FencedMemberEpoch, message))
}

/// Whether the member says what it runs, and all of it is assigned to it.
fn owns_no_more(member: &Member, request: &StreamsGroupHeartbeatRequest) -> bool {
    let Some(owned) = owned(request) else { return false };
    let active = |set: &ActiveTasks| super::tasks::iter(&owned.active).all(|(s, p)| epoch_of(set, s, p).is_some());
    let passive = |owned: &TaskSet, set: &TaskSet| super::tasks::iter(owned).all(|(s, p)| contains(set, s, p));
    active(&member.assigned.active)
        && passive(&owned.standby, &member.assigned.standby)
        && passive(&owned.warmup, &member.assigned.warmup)
}

/// What the member says it runs, if it says.
fn owned(request: &StreamsGroupHeartbeatRequest) -> Option<Tasks> {
    let set = |ids: &[request::TaskIds]| {
        let mut set = TaskSet::new();
        for id in ids {
            id.partitions.iter().for_each(|partition| insert(&mut set, &id.subtopology_id, *partition));
        }
        set
    };
    Some(Tasks {
        active: set(request.active_tasks.as_ref()?),
        standby: set(request.standby_tasks.as_ref()?),
        warmup: set(request.warmup_tasks.as_ref()?),
    })
}

fn task_ids(set: &TaskSet) -> Vec<response::TaskIds> {
    let ids = set.iter().map(|(subtopology, partitions)| response::TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: partitions.iter().copied().collect(),
    });
    ids.collect()
}

/// What the member says of itself; what it leaves out stays.
fn told(
    before: &StreamsGroupMemberMetadataValue,
    ctx: &RequestContext<'_>,
    request: &StreamsGroupHeartbeatRequest,
) -> StreamsGroupMemberMetadataValue {
    let mut told = before.clone();
    told.client_id = ctx.client_id.to_owned();
    told.client_host = ctx.client_host.to_owned();
    if request.rack_id.is_some() {
        told.rack_id.clone_from(&request.rack_id);
    }
    if request.rebalance_timeout_ms != -1 {
        told.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topology) = &request.topology {
        told.topology_epoch = topology.epoch;
    }
    if let Some(process_id) = &request.process_id {
        told.process_id.clone_from(process_id);
    }
    if let Some(endpoint) = &request.user_endpoint {
        told.user_endpoint = Some(metadata::Endpoint { host: endpoint.host.clone(), port: endpoint.port });
    }
    if let Some(tags) = &request.client_tags {
        let by_key: BTreeMap<&String, &String> = tags.iter().map(|tag| (&tag.key, &tag.value)).collect();
        let pair = |(key, value): (&String, &String)| metadata::KeyValue { key: key.clone(), value: value.clone() };
        told.client_tags = by_key.into_iter().map(pair).collect();
    }
    told
}
