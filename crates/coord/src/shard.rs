//! One shard: the groups and offsets of one partition of `__consumer_offsets`, the requests, and the fate of what was
//! given out to be written. Answers to Kafka's `GroupCoordinatorShard`.
//!
//! Two kinds of change wait for their records. Committed offsets change when the records are committed, in the order of
//! the log. Classic groups run ahead of the log, as Kafka's do: joining, generations and sessions live in memory alone,
//! and only what a reply promises (an assignment, a static member's new id, a deletion) waits, as a [`Done`].
//!
//! Modern groups (consumer, share, streams) are what their records in the log say and nothing else: a handler computes
//! records and changes nothing, and the records are applied when they are appended, typed as they were made, by the same
//! function that replay calls with what it decoded. A failed append has nothing to undo. Replies wait until everything
//! that they can be seen from is committed ([`GroupShard::finish_modern`]). A kind hooks in with
//!
//! 1. a map of its groups in [`GroupShard`], whose groups are an [`AnyGroup`](crate::group::AnyGroup), with a line in
//!    `any_group` and `all_groups` (`groups.rs`): from there lists, deletion, offsets and expiry know it;
//! 2. a [`Change`] variant with its typed record, a line in `Change::modern_group`, and one in `apply_modern`;
//! 3. lines in `GroupShard::replay`; in `modern_loaded`, where sessions begin; in
//!    `modern_image`, when metadata changes; in `modern_timer_fired`, for the `TimerKey::Modern*` of its groups;
//! 4. its handlers, `impl GroupShard { pub fn handle_* }` in its own module: `make_room_for` says whether the group can be
//!    of the kind, `finish_modern` makes the [`Effects`]; a variant of [`Response`] if replies can be parked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::limits;
use taccola_base::topic::GROUP_METADATA_TOPIC;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use taccola_wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};

use crate::GroupConfig;
use crate::classic::{Group, MEMBER_ID_PREFIX_MAX, State, bytes_of_member, join_error, sync_error};
use crate::cluster_image::{ClusterImage, TopicChanges};
use crate::consumer::ConsumerGroup;
use crate::coordinator_shard::CoordinatorShard;
use crate::effects::{AppendId, Effects, GroupAction, Reply, RequestContext, RequestToken, Response, TimerKey};
use crate::group::{AnyGroup, GroupKind};
use crate::modern::topics::TopicHashes;
use crate::offsets::Offsets;
use crate::outbox::{Change, Done, GroupRef, Outbox};
use crate::records;
use crate::replay::{ReplayError, Replayed};
use crate::share::ShareGroup;
use crate::streams::Streams;

/// From this version on LeaveGroup names several members, and each has an error of its own.
pub(crate) const LEAVE_BATCH_FROM: i16 = 3;
/// From this version on SyncGroup must name the protocol's type and name.
const SYNC_PROTOCOL_FROM: i16 = 5;

#[derive(Debug)]
pub struct GroupShard {
    pub(crate) config: GroupConfig,
    pub(crate) image: Arc<dyn ClusterImage>,
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    pub(crate) share: BTreeMap<Arc<str>, ShareGroup>,
    pub(crate) consumer: BTreeMap<Arc<str>, ConsumerGroup>,
    pub(crate) streams: Streams,
    pub(crate) offsets: Offsets,
    /// What groups compute of the image's topics.
    pub(crate) topic_hashes: TopicHashes,
    pub(crate) pending: BTreeMap<AppendId, Pending>,
    /// The last append with records of a modern group, as long as it is not committed.
    pub(crate) modern_appends: BTreeMap<Arc<str>, AppendId>,
    next_append: u64,
    next_incarnation: u64,
    /// Where the last look for expired offsets stopped; `None`: it had seen every group.
    pub(crate) expiration_cursor: Option<Arc<str>>,
}

/// What waits for one append.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) changes: Vec<Change>,
    pub(crate) done: Vec<Done>,
    /// Modern groups with records in the append.
    pub(crate) modern_groups: Vec<Arc<str>>,
    /// Whoever waited was told this error; who comes now is told the same.
    pub(crate) timed_out: Option<ErrorCode>,
    /// OffsetFetch requests that want nothing that is still being written.
    pub(crate) fetches: Vec<(RequestToken, OffsetFetchRequestGroup)>,
}

impl Pending {
    /// The groups that the records are about, besides those whose offsets change.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Arc<str>> {
        self.done.iter().filter_map(|done| match done {
            Done::Created { group }
            | Done::Emptied { group }
            | Done::Assigned { group, .. }
            | Done::Replaced { group, .. } => Some(group.id.clone()),
            Done::Deleted { group } => Some(group.id.clone()),
            Done::Respond { .. } => None,
        })
    }
}

impl GroupShard {
    pub fn new(config: GroupConfig, image: Arc<dyn ClusterImage>) -> Self {
        Self {
            config,
            image,
            groups: BTreeMap::new(),
            share: BTreeMap::new(),
            consumer: BTreeMap::new(),
            streams: Streams::default(),
            offsets: Offsets::default(),
            topic_hashes: TopicHashes::default(),
            pending: BTreeMap::new(),
            modern_appends: BTreeMap::new(),
            next_append: 0,
            next_incarnation: 0,
            expiration_cursor: None,
        }
    }

    /// Replaces the settings; what is under way keeps its deadlines.
    pub fn set_config(&mut self, config: GroupConfig) {
        self.config = config;
    }

    pub(crate) fn new_incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }

    /// The step's end: its records get an id, and whoever waits for them is remembered under it.
    pub(crate) fn finish<R>(&mut self, response: Reply<R>, out: Outbox) -> Effects<R> {
        let append = out.writes().then(|| {
            self.next_append += 1;
            let id = AppendId(self.next_append);
            let pending = Pending { changes: out.changes, done: out.done, ..Default::default() };
            self.pending.insert(id, pending);
            id
        });
        Effects {
            records: out.records,
            batch: out.batch,
            append,
            response,
            released: out.released,
            timers: out.timers,
            actions: out.actions,
        }
    }

    /// A reply that the step itself released, as when the last member joins, is a reply at once.
    fn finish_request<R>(
        &mut self,
        token: RequestToken,
        response: Reply<R>,
        mut out: Outbox,
        take: impl FnOnce(Response) -> Option<R>,
    ) -> Effects<R> {
        let mut response = response;
        if let Some(at) = out.released.iter().position(|r| r.token == token) {
            let released = out.released.remove(at);
            if let Some(now) = take(released.response) {
                response = Reply::Now(now);
            }
        }
        self.finish(response, out)
    }

    /// A reply that says what the records of this step say waits for them.
    pub(crate) fn finish_with_records<R>(
        &mut self,
        token: RequestToken,
        response: R,
        mut out: Outbox,
        wrap: impl FnOnce(R) -> Response,
    ) -> Effects<R> {
        if !out.writes() {
            return self.finish(Reply::Now(response), out);
        }
        out.done.push(Done::Respond { token, response: wrap(response) });
        self.finish(Reply::Parked, out)
    }

    pub fn handle_join(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        mut request: JoinGroupRequest,
    ) -> Effects<JoinGroupResponse> {
        let mut out = Outbox::default();
        let mut names = BTreeSet::new();
        request.protocols.retain(|p| names.insert(p.name.clone()));
        if ctx.api_version == 0 {
            // There was one timeout for both.
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        let response = match self.validate_join(ctx, &request) {
            Err((member_id, error)) => Reply::Now(join_error(ctx.api_version, member_id, error)),
            Ok(()) if self.is_live_consumer_group(&request.group_id) => {
                return self.join_live_consumer_group(now_ms, ctx, &request);
            }
            Ok(()) => self.join(now_ms, ctx, &request, &mut out),
        };
        self.finish_request(ctx.token, response, out, |r| match r {
            Response::JoinGroup(r) => Some(r),
            _ => None,
        })
    }

    fn validate_join<'a>(
        &self,
        ctx: &RequestContext<'_>,
        request: &'a JoinGroupRequest,
    ) -> Result<(), (&'a str, ErrorCode)> {
        let member_id = request.member_id.as_str();
        let sessions = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if request.group_id.is_empty() {
            return Err((member_id, ErrorCode::InvalidGroupId));
        }
        if !sessions.contains(&request.session_timeout_ms) {
            return Err((member_id, ErrorCode::InvalidSessionTimeout));
        }
        let kind = self.kind_of(&request.group_id);
        // An empty streams group makes room.
        let replaceable = self.streams.groups.get(request.group_id.as_str()).is_some_and(AnyGroup::is_empty);
        if !replaceable && !matches!(kind, None | Some(GroupKind::Classic | GroupKind::Consumer)) {
            return Err(("", ErrorCode::InconsistentGroupProtocol));
        }
        let prefix = request.group_instance_id.as_deref().unwrap_or(ctx.client_id);
        if prefix.len() > MEMBER_ID_PREFIX_MAX {
            return Err((member_id, ErrorCode::InvalidRequest));
        }
        let live = self.is_live_consumer_group(&request.group_id);
        if !live && !self.groups.contains_key(request.group_id.as_str()) {
            if !member_id.is_empty() {
                return Err((member_id, ErrorCode::UnknownMemberId));
            }
            if request.protocol_type.is_empty() || request.protocols.is_empty() {
                return Err((member_id, ErrorCode::InconsistentGroupProtocol));
            }
            if bytes_of_member(ctx, request) > limits::GROUP_METADATA_BYTES_MAX {
                return Err(("", ErrorCode::GroupMaxSizeReached));
            }
        }
        Ok(())
    }

    fn join(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &JoinGroupRequest,
        out: &mut Outbox,
    ) -> Reply<JoinGroupResponse> {
        let id = request.group_id.as_str();
        if !self.groups.contains_key(id)
            && let Err(error) = self.create_group(now_ms, id, out)
        {
            return Reply::Now(join_error(ctx.api_version, &request.member_id, error));
        }
        match self.groups.get_mut(id) {
            Some(group) => group.join(now_ms, ctx, request, &self.config, out),
            None => Reply::Now(join_error(ctx.api_version, &request.member_id, ErrorCode::UnknownServerError)),
        }
    }

    /// A group begins with a record, so that it is known after a restart that it exists.
    fn create_group(&mut self, now_ms: i64, id: &str, out: &mut Outbox) -> Result<(), ErrorCode> {
        let group = Group::new(id.into(), self.new_incarnation(), now_ms);
        if let Some(empty) = self.consumer.get(id) {
            AnyGroup::write_tombstones(empty, out);
        }
        if let Some(empty) = self.streams.groups.get(id) {
            empty.write_tombstones(out);
        }
        let record = records::group_metadata(id, &group.to_record(|m| m.assignment.clone()))
            .map_err(|_| ErrorCode::InvalidGroupId)?;
        out.write(record, Change::Group);
        out.done.push(Done::Created { group: group.reference() });
        self.groups.insert(group.id.clone(), group);
        Ok(())
    }

    pub fn handle_sync(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        request: &SyncGroupRequest,
    ) -> Effects<SyncGroupResponse> {
        let mut out = Outbox::default();
        let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
        let response = if ctx.api_version >= SYNC_PROTOCOL_FROM && !names_protocol {
            Reply::Now(sync_error(ErrorCode::InconsistentGroupProtocol))
        } else if request.group_id.is_empty() {
            Reply::Now(sync_error(ErrorCode::InvalidGroupId))
        } else if self.is_live_consumer_group(&request.group_id) {
            return self.sync_live_consumer_group(now_ms, ctx, request);
        } else {
            match self.groups.get_mut(request.group_id.as_str()) {
                None => Reply::Now(sync_error(ErrorCode::UnknownMemberId)),
                Some(group) => group.sync(now_ms, ctx, request, &self.config, &mut out),
            }
        };
        self.finish_request(ctx.token, response, out, |r| match r {
            Response::SyncGroup(r) => Some(r),
            _ => None,
        })
    }

    pub fn handle_heartbeat(
        &mut self,
        now_ms: i64,
        _ctx: &RequestContext<'_>,
        request: &HeartbeatRequest,
    ) -> Effects<HeartbeatResponse> {
        let mut out = Outbox::default();
        let result = if request.group_id.is_empty() {
            Err(ErrorCode::InvalidGroupId)
        } else if self.is_live_consumer_group(&request.group_id) {
            self.heartbeat_consumer_group(now_ms, request, &mut out)
        } else {
            match self.groups.get_mut(request.group_id.as_str()) {
                None => Err(ErrorCode::UnknownMemberId),
                Some(group) => group.heartbeat(now_ms, request, &mut out),
            }
        };
        let error_code = result.err().map_or(0, |error| error.code());
        self.finish(Reply::Now(HeartbeatResponse { error_code, ..Default::default() }), out)
    }

    pub fn handle_leave(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        mut request: LeaveGroupRequest,
    ) -> Effects<LeaveGroupResponse> {
        let mut out = Outbox::default();
        if request.group_id.is_empty() {
            let response = LeaveGroupResponse { error_code: ErrorCode::InvalidGroupId.code(), ..Default::default() };
            return self.finish(Reply::Now(response), out);
        }
        if ctx.api_version < LEAVE_BATCH_FROM {
            let member_id = std::mem::take(&mut request.member_id);
            request.members =
                vec![taccola_wire::messages::leave_group_request::MemberIdentity { member_id, ..Default::default() }];
        }
        if self.is_live_consumer_group(&request.group_id) {
            return self.leave_live_consumer_group(now_ms, ctx, &request);
        }
        let members = match self.groups.get_mut(request.group_id.as_str()) {
            Some(group) => group.leave(now_ms, &request.members, &self.config, &mut out),
            None => crate::classic::unknown_members(&request.members),
        };
        let response = if ctx.api_version < LEAVE_BATCH_FROM {
            let error_code = members.first().map_or(0, |m| m.error_code);
            LeaveGroupResponse { error_code, ..Default::default() }
        } else {
            LeaveGroupResponse { members, ..Default::default() }
        };
        self.finish_with_records(ctx.token, response, out, Response::LeaveGroup)
    }

    /// A timer's time is up.
    pub fn on_timer(&mut self, now_ms: i64, key: &TimerKey) -> Effects<()> {
        let mut out = Outbox::default();
        let config = &self.config;
        match key {
            TimerKey::Session { group, member } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.session_timer_fired(member, now_ms, config, &mut out);
                }
            }
            TimerKey::Join { group } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.join_timer_fired(now_ms, config, &mut out);
                }
            }
            TimerKey::Sync { group } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.sync_timer_fired(now_ms, config, &mut out);
                }
            }
            TimerKey::ModernSession { .. } | TimerKey::ModernRebalance { .. } | TimerKey::ModernGroup { .. } => {
                self.modern_timer_fired(now_ms, key, &mut out);
            }
            TimerKey::Expiration => self.expire(now_ms, &mut out),
        }
        self.finish(Reply::Now(()), out)
    }

    /// The records of an append are committed; the first of them stands at `base_offset`. Appends are reported in the
    /// order of their ids.
    pub fn committed(&mut self, now_ms: i64, append: AppendId, base_offset: i64) -> Effects<()> {
        let mut out = Outbox::default();
        if let Some(pending) = self.pending.remove(&append) {
            self.forget_append(append, &pending.modern_groups);
            for (offset, change) in (base_offset..).zip(pending.changes) {
                self.apply(now_ms, offset, change);
            }
            for done in pending.done {
                self.complete(now_ms, done, &mut out);
            }
            self.release_fetches(pending.fetches, &mut out);
        }
        self.finish(Reply::Now(()), out)
    }

    fn apply(&mut self, now_ms: i64, record_offset: i64, change: Change) {
        match change {
            Change::Offset { group, topic, partition, mut offset, producer_id } => {
                if !self.is_being_deleted(&group) {
                    self.ensure_group(&group, now_ms);
                }
                offset.record_offset = record_offset;
                match producer_id {
                    None => self.offsets.put(&group, &topic, partition, offset),
                    Some(id) => self.offsets.put_pending(id, &group, &topic, partition, offset),
                }
            }
            Change::EndTransaction { producer_id, commit } => self.replay_end_transaction(producer_id, commit),
            Change::OffsetTombstone { group, topic, partition } => self.offsets.remove(&group, &topic, partition),
            // Applied when it was appended.
            Change::Group
            | Change::ClassicGone { .. }
            | Change::ClassicBack(_)
            | Change::Consumer(_)
            | Change::Streams(_)
            | Change::Share(_) => {}
        }
    }

    /// A commit that stands before the tombstones of its group makes no group: that comes back if they cannot be written.
    fn is_being_deleted(&self, id: &str) -> bool {
        let mut done = self.pending.values().flat_map(|p| &p.done);
        done.any(|done| matches!(done, Done::Deleted { group } if &*group.id == id))
    }

    /// Offsets belong to a group: without members they make a simple one.
    pub(crate) fn ensure_group(&mut self, id: &Arc<str>, now_ms: i64) {
        if self.kind_of(id).is_none() {
            let incarnation = self.new_incarnation();
            self.groups.insert(id.clone(), Group::new(id.clone(), incarnation, now_ms));
        }
    }

    fn live(&mut self, reference: &GroupRef) -> Option<&mut Group> {
        self.groups.get_mut(&reference.id).filter(|group| group.is(reference))
    }

    fn complete(&mut self, now_ms: i64, done: Done, out: &mut Outbox) {
        match done {
            Done::Respond { token, response } => out.release(token, response),
            Done::Assigned { group, generation, assignments } => {
                if let Some(group) = self.live(&group) {
                    group.assigned(generation, assignments, now_ms, out);
                }
            }
            Done::Replaced { group, generation, replaced } => {
                if let Some(group) = self.live(&group) {
                    group.replaced(generation, &replaced, out);
                }
            }
            Done::Created { .. } | Done::Emptied { .. } | Done::Deleted { .. } => {}
        }
    }

    /// The records of an append are not in the log and never will be. When that is not certain, see
    /// [`GroupShard::timed_out`].
    pub fn failed(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> Effects<()> {
        let mut out = Outbox::default();
        if let Some(pending) = self.pending.remove(&append) {
            self.forget_append(append, &pending.modern_groups);
            let error = append_error(error);
            for done in pending.done {
                self.give_up(now_ms, done, error, &mut out);
            }
            self.release_fetches(pending.fetches, &mut out);
        }
        self.finish(Reply::Now(()), out)
    }

    fn give_up(&mut self, now_ms: i64, done: Done, error: ErrorCode, out: &mut Outbox) {
        match done {
            Done::Respond { token, response } => out.release(token, response.into_failure(error)),
            Done::Created { group } => {
                // A group that has had a generation since is in the log with that.
                if self.live(&group).is_some_and(|g| g.generation == 0)
                    && let Some(mut group) = self.groups.remove(&group.id)
                {
                    group.cancel_timers(out);
                    group.release_all(error, out);
                }
            }
            Done::Assigned { group, generation, .. } => {
                let config = self.config.clone();
                if let Some(group) = self.live(&group) {
                    group.assignment_failed(generation, error, now_ms, &config, out);
                }
            }
            Done::Replaced { group, generation, replaced } => {
                if let Some(group) = self.live(&group) {
                    group.replace_failed(generation, replaced, error, now_ms, out);
                }
            }
            Done::Deleted { group } => {
                self.groups.entry(group.id.clone()).or_insert(*group);
            }
            // If the coordinator moves before the next record, the members of the old generation come back to life
            // and die again of their sessions.
            Done::Emptied { .. } => {}
        }
    }

    /// The records of an append are in the log, but not committed within the time that a request may wait: requests are
    /// answered with the error, and the records still take effect if [`GroupShard::committed`] is reported later.
    pub fn timed_out(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> Effects<()> {
        let mut out = Outbox::default();
        let Some(pending) = self.pending.get_mut(&append) else { return self.finish(Reply::Now(()), out) };
        let error = append_error(error);
        pending.timed_out = Some(error);
        let (keep, give_up): (Vec<Done>, Vec<Done>) = std::mem::take(&mut pending.done)
            .into_iter()
            .partition(|done| matches!(done, Done::Deleted { .. } | Done::Created { .. } | Done::Emptied { .. }));
        pending.done = keep;
        for (token, group) in std::mem::take(&mut pending.fetches) {
            // Clients do not expect COORDINATOR_NOT_AVAILABLE from OffsetFetch.
            out.release(token, Response::OffsetFetch(crate::offset_fetch::failed(&group, ErrorCode::NotCoordinator)));
        }
        for done in give_up {
            self.give_up(now_ms, done, error, &mut out);
        }
        self.finish(Reply::Now(()), out)
    }

    /// The shard is no longer this broker's: everybody who waits is told to look for the coordinator again. What comes
    /// back are replies alone; the caller drops the timers with the shard.
    pub fn unload(mut self) -> Effects<()> {
        let mut out = Outbox::default();
        for (_, pending) in std::mem::take(&mut self.pending) {
            for done in pending.done {
                if let Done::Respond { token, response } = done {
                    out.release(token, response.into_failure(ErrorCode::NotCoordinator));
                }
            }
            for (token, group) in pending.fetches {
                let response = crate::offset_fetch::failed(&group, ErrorCode::NotCoordinator);
                out.release(token, Response::OffsetFetch(response));
            }
        }
        for group in self.groups.values_mut() {
            group.release_all(ErrorCode::NotCoordinator, &mut out);
        }
        out.timers.clear();
        self.finish(Reply::Now(()), out)
    }

    /// The log is replayed: sessions begin, and the look for expired offsets.
    pub fn loaded(&mut self, now_ms: i64) -> Effects<()> {
        let mut out = Outbox::default();
        let orphans: Vec<Arc<str>> = self.offsets.groups().map(|(group, _)| group.clone()).collect();
        for group in &orphans {
            self.ensure_group(group, now_ms);
        }
        for group in self.groups.values_mut() {
            let members: Vec<Arc<str>> = group.members.keys().cloned().collect();
            for member in &members {
                group.touch(member, now_ms, &mut out);
            }
            // The limit may have been lowered: a rebalance lets the last to come back find the group full.
            if members.len() > self.config.members_max() && group.state == State::Stable {
                group.prepare_rebalance(now_ms, &self.config, &mut out);
            }
        }
        self.modern_loaded(now_ms, &mut out);
        self.schedule_expiration(now_ms, &mut out);
        self.finish(Reply::Now(()), out)
    }
}

/// What the runtime drives; each method is told where it is written.
impl CoordinatorShard for GroupShard {
    type Config = GroupConfig;
    type Response = Response;
    type TimerKey = TimerKey;
    type Action = GroupAction;

    const TOPIC: &'static str = GROUP_METADATA_TOPIC;

    fn new(config: GroupConfig, image: Arc<dyn ClusterImage>, _leader_epoch: i32) -> Self {
        GroupShard::new(config, image)
    }

    fn set_config(&mut self, config: GroupConfig) {
        GroupShard::set_config(self, config);
    }

    fn on_new_image(&mut self, now_ms: i64, image: &Arc<dyn ClusterImage>, changes: &TopicChanges) -> Effects<()> {
        self.image = image.clone();
        let mut out = Outbox::default();
        self.modern_image(now_ms, changes, &mut out);
        self.delete_topics(&changes.deleted, &mut out);
        self.finish(Reply::Now(()), out)
    }

    fn replay(
        &mut self,
        offset: i64,
        producer_id: i64,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Replayed, ReplayError> {
        GroupShard::replay(self, offset, producer_id, key, value)
    }

    fn replay_end_transaction(&mut self, producer_id: i64, commit: bool) {
        GroupShard::replay_end_transaction(self, producer_id, commit);
    }

    fn loaded(&mut self, now_ms: i64) -> Effects<()> {
        GroupShard::loaded(self, now_ms)
    }

    fn appended(&mut self, now_ms: i64, append: AppendId, _base_offset: i64) {
        self.apply_appended(now_ms, append);
    }

    fn committed(&mut self, now_ms: i64, append: AppendId, base_offset: i64) -> Effects<()> {
        GroupShard::committed(self, now_ms, append, base_offset)
    }

    fn failed(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> Effects<()> {
        GroupShard::failed(self, now_ms, append, error)
    }

    fn timed_out(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> Effects<()> {
        GroupShard::timed_out(self, now_ms, append, error)
    }

    fn on_timer(&mut self, now_ms: i64, key: &TimerKey) -> Effects<()> {
        GroupShard::on_timer(self, now_ms, key)
    }

    fn unload(self) -> Effects<()> {
        GroupShard::unload(self)
    }
}

/// What a client learns when records could not be written.
pub(crate) fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}
