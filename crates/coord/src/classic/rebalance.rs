//! The transitions of a classic group: a rebalance begins, the members join, the next generation starts, the assignment
//! spreads. Answers to the classic half of Kafka's `GroupMetadataManager`.
//!
//! The generation goes up when the joining completes, never when a rebalance merely begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::codec::EncodeError;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::SyncGroupResponse;

use super::group::{Group, JoinTimer, State, session_key};
use super::sync_error;
use crate::GroupConfig;
use crate::effects::{Response, TimerKey};
use crate::outbox::{Change, Done, Outbox, ReplacedMember};
use crate::records;

impl Group {
    fn join_key(&self) -> TimerKey {
        TimerKey::Join { group: self.id.clone() }
    }

    fn sync_key(&self) -> TimerKey {
        TimerKey::Sync { group: self.id.clone() }
    }

    fn set_join_timer(&mut self, deadline_ms: i64, initial: Option<(i64, i64)>, out: &mut Outbox) {
        self.join_timer = Some(JoinTimer { deadline_ms, initial });
        out.set_timer(self.join_key(), deadline_ms);
    }

    pub(crate) fn cancel_sync_timer(&mut self, out: &mut Outbox) {
        if self.sync_deadline_ms.take().is_some() {
            out.cancel_timer(self.sync_key());
        }
    }

    /// Moves a member's session deadline to `timeout_ms` from now.
    pub(crate) fn extend_session(&mut self, member_id: &Arc<str>, timeout_ms: i64, now_ms: i64, out: &mut Outbox) {
        let group = self.id.clone();
        if let Some(member) = self.members.get_mut(member_id) {
            let key = || session_key(&group, member_id);
            member.session.extend(key, now_ms.saturating_add(timeout_ms.max(0)), out);
        }
    }

    /// A sign of life: the session starts anew.
    pub(crate) fn touch(&mut self, member_id: &Arc<str>, now_ms: i64, out: &mut Outbox) {
        if let Some(timeout_ms) = self.members.get(member_id).map(|m| i64::from(m.session_timeout_ms)) {
            self.extend_session(member_id, timeout_ms, now_ms, out);
        }
    }

    /// Begins a rebalance, or carries on with the one that is under way.
    pub(crate) fn rebalance_or_complete_join(&mut self, now_ms: i64, config: &GroupConfig, out: &mut Outbox) {
        match self.state {
            State::Stable | State::CompletingRebalance | State::Empty => self.prepare_rebalance(now_ms, config, out),
            State::PreparingRebalance => self.maybe_complete_join(now_ms, out),
        }
    }

    /// Has every member join again. Whoever waits for an assignment is told.
    pub(crate) fn prepare_rebalance(&mut self, now_ms: i64, config: &GroupConfig, out: &mut Outbox) {
        if self.state == State::CompletingRebalance {
            self.drop_assignments(ErrorCode::RebalanceInProgress, now_ms, out);
        }
        self.pending_syncs.clear();
        self.cancel_sync_timer(out);
        self.assignment_in_flight = false;
        let initial = self.state == State::Empty;
        self.transition(State::PreparingRebalance, now_ms);
        if initial {
            let delay_ms = i64::from(config.initial_rebalance_delay_ms).max(0);
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.set_join_timer(now_ms.saturating_add(delay_ms), Some((delay_ms, remaining_ms)), out);
        } else if self.has_all_members_joined() {
            self.complete_join(now_ms, out);
        } else {
            self.set_join_timer(now_ms.saturating_add(self.rebalance_timeout_ms()), None, out);
        }
    }

    /// Completes the joining when everybody is there. The first rebalance of an empty group waits for its delay.
    pub(crate) fn maybe_complete_join(&mut self, now_ms: i64, out: &mut Outbox) {
        if self.state == State::PreparingRebalance && self.previous != State::Empty && self.has_all_members_joined() {
            self.complete_join(now_ms, out);
        }
    }

    /// The time to join is over, or the initial delay.
    pub(crate) fn join_timer_fired(&mut self, now_ms: i64, config: &GroupConfig, out: &mut Outbox) {
        let Some(timer) = self.join_timer else { return };
        if now_ms < timer.deadline_ms {
            return out.set_timer(self.join_key(), timer.deadline_ms);
        }
        self.join_timer = None;
        if self.state != State::PreparingRebalance {
            return;
        }
        match timer.initial {
            Some((delay_ms, remaining_ms)) if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let next_ms = i64::from(config.initial_rebalance_delay_ms).max(0).min(remaining_ms);
                let left_ms = (remaining_ms - delay_ms).max(0);
                self.set_join_timer(now_ms.saturating_add(next_ms), Some((next_ms, left_ms)), out);
            }
            _ => self.complete_join(now_ms, out),
        }
    }

    /// Starts the next generation with those who joined. Dynamic members that did not are out; static ones stay in
    /// until their session ends.
    fn complete_join(&mut self, now_ms: i64, out: &mut Outbox) {
        if self.join_timer.take().is_some() {
            out.cancel_timer(self.join_key());
        }
        let late = self.members.values().filter(|m| m.join.is_none() && m.instance_id.is_none());
        let late: Vec<Arc<str>> = late.map(|m| m.id.clone()).collect();
        for id in &late {
            self.remove(id, out);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members are left and none came back: their sessions decide.
            return self.set_join_timer(now_ms.saturating_add(self.rebalance_timeout_ms()), None, out);
        }
        self.new_member_added = false;
        self.assignment_in_flight = false;
        self.pending_syncs.clear();
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.compute_subscribed_topics();
        if self.members.is_empty() {
            self.transition(State::Empty, now_ms);
            return self.write_emptied(out);
        }
        self.transition(State::CompletingRebalance, now_ms);
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            let response = |group: &Self, version| group.join_response(id, version, group.is_leader(id));
            if let Some(waiting) = self.members.get(id).and_then(|m| m.join) {
                let response = response(self, waiting.api_version);
                self.release_join(id, |_| response, out);
            }
            self.touch(id, now_ms, out);
            if let Some(member) = self.members.get_mut(id) {
                member.is_new = false;
            }
            self.pending_syncs.insert(id.clone());
        }
        let deadline_ms = now_ms.saturating_add(self.rebalance_timeout_ms());
        self.sync_deadline_ms = Some(deadline_ms);
        out.set_timer(self.sync_key(), deadline_ms);
    }

    /// Keeps the leader if it has joined, else takes a member that has. False when nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else { return false };
        if self.members.get(leader).is_some_and(|m| m.join.is_some()) {
            return true;
        }
        match self.members.values().find(|m| m.join.is_some()) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    fn write_emptied(&mut self, out: &mut Outbox) {
        // A record that cannot be written would not have been accepted as a member before.
        if let Ok(record) = records::group_metadata(&self.id, &self.to_record(|_| Bytes::new())) {
            out.write(record, Change::Group);
            out.done.push(Done::Emptied { group: self.reference() });
        }
    }

    /// Writes the leader's assignment; it takes effect when it is committed.
    pub(crate) fn write_assignment(
        &mut self,
        assignments: BTreeMap<Arc<str>, Bytes>,
        out: &mut Outbox,
    ) -> Result<(), EncodeError> {
        let value = self.to_record(|m| assignments.get(&m.id).cloned().unwrap_or_default());
        out.write(records::group_metadata(&self.id, &value)?, Change::Group);
        self.assignment_in_flight = true;
        out.done.push(Done::Assigned { group: self.reference(), generation: self.generation, assignments });
        Ok(())
    }

    /// The assignment is committed: everybody who waits for it gets it.
    pub(crate) fn assigned(
        &mut self,
        generation: i32,
        mut assignments: BTreeMap<Arc<str>, Bytes>,
        now_ms: i64,
        out: &mut Outbox,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        self.assignment_in_flight = false;
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            self.set_assignment(id, assignments.remove(id).unwrap_or_default());
            self.release_assignment(id, now_ms, out);
        }
        self.transition(State::Stable, now_ms);
    }

    fn release_assignment(&mut self, member_id: &Arc<str>, now_ms: i64, out: &mut Outbox) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let Some(waiting) = member.sync.take() else { return };
        let assignment = member.assignment.clone();
        let response = self.sync_response(assignment);
        out.release(waiting.token, Response::SyncGroup(response));
        self.touch(member_id, now_ms, out);
    }

    pub(crate) fn sync_response(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment,
            ..Default::default()
        }
    }

    /// The assignment could not be written: everybody who waits for it is told, and all join again.
    pub(crate) fn assignment_failed(
        &mut self,
        generation: i32,
        error: ErrorCode,
        now_ms: i64,
        config: &GroupConfig,
        out: &mut Outbox,
    ) {
        if self.state == State::CompletingRebalance && self.generation == generation {
            self.drop_assignments(error, now_ms, out);
            self.prepare_rebalance(now_ms, config, out);
        }
    }

    fn drop_assignments(&mut self, error: ErrorCode, now_ms: i64, out: &mut Outbox) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            self.set_assignment(id, Bytes::new());
            let Some(waiting) = self.members.get_mut(id).and_then(|m| m.sync.take()) else { continue };
            out.release(waiting.token, Response::SyncGroup(sync_error(error)));
            self.touch(id, now_ms, out);
        }
    }

    /// The time to fetch assignments is over: members that did not are out.
    pub(crate) fn sync_timer_fired(&mut self, now_ms: i64, config: &GroupConfig, out: &mut Outbox) {
        let Some(deadline_ms) = self.sync_deadline_ms else { return };
        if now_ms < deadline_ms {
            return out.set_timer(self.sync_key(), deadline_ms);
        }
        self.sync_deadline_ms = None;
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_syncs.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_syncs) {
            self.remove(&id, out);
        }
        self.prepare_rebalance(now_ms, config, out);
    }

    /// A member's session may be over.
    pub(crate) fn session_timer_fired(
        &mut self,
        member_id: &Arc<str>,
        now_ms: i64,
        config: &GroupConfig,
        out: &mut Outbox,
    ) {
        let group = self.id.clone();
        let key = || session_key(&group, member_id);
        if let Some(session) = self.pending_joins.get_mut(member_id) {
            if session.fired(key, now_ms, out) {
                self.remove(member_id, out);
                self.complete_join_if_all_joined(now_ms, out);
            }
        } else if let Some(member) = self.members.get_mut(member_id)
            && member.session.fired(key, now_ms, out)
            && !member.has_satisfied_heartbeat()
        {
            self.remove(member_id, out);
            self.members_removed(now_ms, config, out);
        }
    }

    /// What follows when a member went on its own or was given up.
    pub(crate) fn members_removed(&mut self, now_ms: i64, config: &GroupConfig, out: &mut Outbox) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(now_ms, config, out),
            State::PreparingRebalance => self.complete_join_if_all_joined(now_ms, out),
            State::Empty => {}
        }
    }

    /// Unlike [`Group::maybe_complete_join`] this ends an initial delay, too: nobody may be left to wait for.
    fn complete_join_if_all_joined(&mut self, now_ms: i64, out: &mut Outbox) {
        if self.state == State::PreparingRebalance && self.has_all_members_joined() {
            self.complete_join(now_ms, out);
        }
    }

    /// A static member's new id is committed: it may go on where the old one was, with no rebalance.
    pub(crate) fn replaced(&mut self, generation: i32, replaced: &ReplacedMember, out: &mut Outbox) {
        // In a rebalance that began meanwhile the member waits like any other.
        if self.state != State::Stable || self.generation != generation {
            return;
        }
        let Some(waiting) = self.members.get(&replaced.new_id).and_then(|m| m.join) else { return };
        let id = &replaced.new_id;
        const SKIP_ASSIGNMENT_FROM: i16 = 9;
        let response = if waiting.api_version >= SKIP_ASSIGNMENT_FROM {
            let leads = self.is_leader(id);
            let mut response = self.join_response(id, waiting.api_version, leads);
            response.skip_assignment = leads;
            response
        } else {
            let mut response = self.join_response(id, waiting.api_version, false);
            response.leader = replaced.old_leader.clone();
            response
        };
        self.release_join(id, |_| response, out);
    }

    /// A static member's new id could not be written: the old one counts again.
    pub(crate) fn replace_failed(
        &mut self,
        generation: i32,
        replaced: ReplacedMember,
        error: ErrorCode,
        now_ms: i64,
        out: &mut Outbox,
    ) {
        let id = &replaced.new_id;
        if self.state != State::Stable || self.generation != generation || !self.members.contains_key(id) {
            return;
        }
        self.release_join(
            id,
            |waiting| {
                let mut response = super::join_error(waiting.api_version, "", error);
                response.leader = replaced.old_leader.clone();
                response
            },
            out,
        );
        let ReplacedMember { old_id, new_id, old_protocols, .. } = replaced;
        let (rebalance_ms, session_ms) = (replaced.old_rebalance_timeout_ms, replaced.old_session_timeout_ms);
        self.update(&new_id, old_protocols, rebalance_ms, session_ms, None, out);
        self.replace_static(&new_id, &old_id, out);
        self.touch(&old_id, now_ms, out);
    }
}
