//! The sessions of modern members, and the time in which they must give partitions back. Soft state: it is not in the log
//! and begins anew when the log is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::effects::TimerKey;
use crate::outbox::Outbox;

#[derive(Clone, Copy, Debug)]
struct Session {
    deadline_ms: i64,
    /// When the timer fires; a sign of life only moves the deadline.
    armed_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Rebalance {
    deadline_ms: i64,
    /// The member's epoch when it was asked to give back.
    epoch: i32,
}

/// The timeouts of one group's members.
#[derive(Debug, Default)]
pub(crate) struct Timeouts {
    sessions: BTreeMap<Arc<str>, Session>,
    rebalances: BTreeMap<Arc<str>, Rebalance>,
}

pub(crate) fn session_key(group: &Arc<str>, member: &Arc<str>) -> TimerKey {
    TimerKey::ModernSession { group: group.clone(), member: member.clone() }
}

fn rebalance_key(group: &Arc<str>, member: &Arc<str>) -> TimerKey {
    TimerKey::ModernRebalance { group: group.clone(), member: member.clone() }
}

impl Timeouts {
    /// A sign of life. Costs no timer operation unless the timer would fire too late.
    pub(crate) fn touch(
        &mut self,
        group: &Arc<str>,
        member: &Arc<str>,
        now_ms: i64,
        timeout_ms: i32,
        out: &mut Outbox,
    ) {
        let deadline_ms = now_ms.saturating_add(i64::from(timeout_ms.max(0)));
        match self.sessions.get_mut(member) {
            Some(session) => {
                session.deadline_ms = deadline_ms;
                if deadline_ms < session.armed_ms {
                    session.armed_ms = deadline_ms;
                    out.set_timer(session_key(group, member), deadline_ms);
                }
            }
            None => {
                self.sessions.insert(member.clone(), Session { deadline_ms, armed_ms: deadline_ms });
                out.set_timer(session_key(group, member), deadline_ms);
            }
        }
    }

    /// The session's timer fired: whether the time is really up. If it is not, the timer is set again.
    pub(crate) fn session_fired(&mut self, group: &Arc<str>, member: &Arc<str>, now_ms: i64, out: &mut Outbox) -> bool {
        let Some(session) = self.sessions.get_mut(member) else { return true };
        if now_ms >= session.deadline_ms {
            return true;
        }
        session.armed_ms = session.deadline_ms;
        out.set_timer(session_key(group, member), session.deadline_ms);
        false
    }

    /// The member is asked to give something back at this epoch. Asking again starts the time anew.
    pub(crate) fn ask(&mut self, group: &Arc<str>, member: &Arc<str>, epoch: i32, deadline_ms: i64, out: &mut Outbox) {
        self.rebalances.insert(member.clone(), Rebalance { deadline_ms, epoch });
        out.set_timer(rebalance_key(group, member), deadline_ms);
    }

    /// The same, unless it is asked already.
    pub(crate) fn ask_once(
        &mut self,
        group: &Arc<str>,
        member: &Arc<str>,
        epoch: i32,
        deadline_ms: i64,
        out: &mut Outbox,
    ) {
        if self.rebalances.get(member).is_none_or(|rebalance| rebalance.epoch != epoch) {
            self.ask(group, member, epoch, deadline_ms, out);
        }
    }

    /// The member has given back what it was asked to.
    pub(crate) fn settle(&mut self, group: &Arc<str>, member: &Arc<str>, out: &mut Outbox) {
        if self.rebalances.remove(member).is_some() {
            out.cancel_timer(rebalance_key(group, member));
        }
    }

    /// The rebalance timer fired: whether a member at `epoch` has missed its time.
    pub(crate) fn rebalance_fired(
        &mut self,
        group: &Arc<str>,
        member: &Arc<str>,
        epoch: i32,
        now_ms: i64,
        out: &mut Outbox,
    ) -> bool {
        let Some(rebalance) = self.rebalances.get(member).copied() else { return false };
        if now_ms < rebalance.deadline_ms {
            out.set_timer(rebalance_key(group, member), rebalance.deadline_ms);
            return false;
        }
        rebalance.epoch == epoch
    }

    /// The member is gone.
    pub(crate) fn forget(&mut self, member: &str) {
        self.sessions.remove(member);
        self.rebalances.remove(member);
    }
}
