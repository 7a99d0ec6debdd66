//! What happens to streams groups without a request: sessions end, a member does not give up what it should in time, the
//! first assignment is due, topics change, the log is loaded.

use std::sync::Arc;

use super::group::MemberState;
use super::heartbeat::{assignment_interval_ms, leave_records, session_timeout_ms, target_records, write};
use super::records::Body;
use crate::effects::TimerKey;
use crate::modern::may_assign;
use crate::outbox::Outbox;
use crate::shard::GroupShard;

/// How soon a member is removed again whose removal was not written, ms.
const FENCE_RETRY_MS: i64 = 5_000;

impl GroupShard {
    /// The log is replayed: sessions begin.
    pub(crate) fn streams_loaded(&mut self, now_ms: i64, out: &mut Outbox) {
        for (id, group) in &self.streams.groups {
            let timeout_ms = session_timeout_ms(&self.config, &*self.image, id);
            let soft = self.streams.soft.entry(id.clone()).or_default();
            for (member_id, member) in &group.members {
                soft.timeouts.touch(id, member_id, now_ms, timeout_ms, out);
                if member.state == MemberState::UnrevokedTasks {
                    let patience_ms = i64::from(member.metadata.rebalance_timeout_ms.max(0));
                    soft.timeouts.ask(id, member_id, member.epoch, now_ms.saturating_add(patience_ms), out);
                }
            }
        }
    }

    /// Whether the timer was that of a streams group, or of one that never came to be.
    pub(crate) fn streams_timer_fired(&mut self, now_ms: i64, key: &TimerKey, out: &mut Outbox) {
        let (TimerKey::ModernSession { group: id, .. }
        | TimerKey::ModernRebalance { group: id, .. }
        | TimerKey::ModernGroup { group: id }) = key
        else {
            return;
        };
        if !self.streams.groups.contains_key(id) {
            self.streams.soft.remove(id);
            return;
        }
        let bodies = match key {
            TimerKey::ModernSession { member, .. } => self.streams_session_fired(now_ms, id, member, out),
            TimerKey::ModernRebalance { member, .. } => self.streams_rebalance_fired(now_ms, id, member, out),
            _ => self.streams_delay_over(now_ms, id, out),
        };
        // Keys that were read or checked before can be written.
        let _ = write(id, bodies, out);
    }

    fn streams_session_fired(&mut self, now_ms: i64, id: &Arc<str>, member: &Arc<str>, out: &mut Outbox) -> Vec<Body> {
        let (Some(group), Some(soft)) = (self.streams.groups.get(id), self.streams.soft.get_mut(id)) else {
            return Vec::new();
        };
        if !soft.timeouts.session_fired(id, member, now_ms, out) {
            return Vec::new();
        }
        if !group.members.contains_key(member) {
            soft.timeouts.forget(member);
            return Vec::new();
        }
        out.set_timer(key_of_session(id, member), now_ms.saturating_add(FENCE_RETRY_MS));
        leave_records(group, member)
    }

    fn streams_rebalance_fired(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        member_id: &Arc<str>,
        out: &mut Outbox,
    ) -> Vec<Body> {
        let (Some(group), Some(soft)) = (self.streams.groups.get(id), self.streams.soft.get_mut(id)) else {
            return Vec::new();
        };
        let Some(member) = group.members.get(member_id) else { return Vec::new() };
        if !soft.timeouts.rebalance_fired(id, member_id, member.epoch, now_ms, out) {
            return Vec::new();
        }
        let key = TimerKey::ModernRebalance { group: id.clone(), member: member_id.clone() };
        out.set_timer(key, now_ms.saturating_add(FENCE_RETRY_MS));
        leave_records(group, member_id)
    }

    /// The group waited long enough for its first members.
    fn streams_delay_over(&mut self, now_ms: i64, id: &Arc<str>, out: &mut Outbox) -> Vec<Body> {
        let (Some(group), Some(soft)) = (self.streams.groups.get(id), self.streams.soft.get_mut(id)) else {
            return Vec::new();
        };
        match soft.initial_delay_until_ms {
            None => return Vec::new(),
            Some(until_ms) if now_ms < until_ms => {
                out.set_timer(TimerKey::ModernGroup { group: id.clone() }, until_ms);
                return Vec::new();
            }
            Some(_) => soft.initial_delay_until_ms = None,
        }
        let interval_ms = assignment_interval_ms(&self.config, &*self.image, id);
        let due = group.epoch > group.assignment_epoch && may_assign(group.assignment_ms, interval_ms, now_ms);
        let Some(configured) = soft.configured.as_ref().filter(|_| due && !group.members.is_empty()) else {
            return Vec::new();
        };
        target_records(now_ms, group, group.epoch, configured, &group.last_assignment_configs, None).1
    }
}

fn key_of_session(group: &Arc<str>, member: &Arc<str>) -> TimerKey {
    crate::modern::timeouts::session_key(group, member)
}
