//! One step of a member towards its target: it gives back first, then its epoch moves, then it is given what others have
//! let go. Answers to Kafka's `CurrentAssignmentBuilder`.

use std::collections::{BTreeMap, BTreeSet};

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;

use super::member::{Current, MemberState};
use crate::modern::assignment::{Assignment, EpochAssignment, contains};

pub(super) struct Reconcile<'a> {
    pub(super) current: &'a Current,
    pub(super) target_epoch: i32,
    pub(super) target: &'a Assignment,
    /// Topics that the member wants and that exist.
    pub(super) subscribed: &'a BTreeSet<Uuid>,
    pub(super) subscription_changed: bool,
    /// What the member says that it has; `None`: it does not say.
    pub(super) owned: Option<&'a Assignment>,
    /// Whether a member has the partition, this one included.
    pub(super) is_held: &'a dyn Fn(&Uuid, i32) -> bool,
}

impl Reconcile<'_> {
    pub(super) fn next(&self) -> Result<Current, ErrorCode> {
        let current = self.current;
        match current.state {
            MemberState::Stable if current.epoch != self.target_epoch => Ok(self.advance(current.epoch)),
            MemberState::UnrevokedPartitions if !self.has_still(&current.pending_revocation) => {
                Ok(self.advance(current.epoch))
            }
            MemberState::Stable | MemberState::UnrevokedPartitions if self.subscription_changed => {
                Ok(self.drop_unsubscribed())
            }
            MemberState::Stable | MemberState::UnrevokedPartitions => Ok(current.clone()),
            MemberState::UnreleasedPartitions => Ok(self.advance(current.epoch)),
            // It begins again with nothing.
            MemberState::Unknown if self.owned.is_some_and(BTreeMap::is_empty) => Ok(self.advance(self.target_epoch)),
            MemberState::Unknown => Err(ErrorCode::FencedMemberEpoch),
        }
    }

    /// Whether the member may still have some of these.
    fn has_still(&self, partitions: &EpochAssignment) -> bool {
        let Some(owned) = self.owned else { return true };
        partitions.iter().any(|(topic, partitions)| {
            owned.get(topic).is_some_and(|owned| owned.iter().any(|p| partitions.contains_key(p)))
        })
    }

    /// Compares what the member has with the target. `epoch` is what it keeps while it gives back.
    fn advance(&self, epoch: i32) -> Current {
        let mut assigned = EpochAssignment::new();
        let mut revoked = EpochAssignment::new();
        for (topic, partitions) in &self.current.assigned {
            let wanted = self.subscribed.contains(topic);
            for (partition, at) in partitions {
                let stays = wanted && contains(self.target, topic, *partition);
                let side = if stays { &mut assigned } else { &mut revoked };
                side.entry(*topic).or_default().insert(*partition, *at);
            }
        }
        let mut next = self.current.clone();
        if !revoked.is_empty() && self.has_still(&revoked) {
            next.state = MemberState::UnrevokedPartitions;
            next.epoch = epoch;
            next.previous_epoch = self.current.epoch;
            next.assigned = assigned;
            next.pending_revocation = revoked;
            return next;
        }
        let unreleased = self.add_free(&mut assigned);
        next.state = if unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable };
        next.move_to(self.target_epoch);
        next.assigned = assigned;
        next.pending_revocation = EpochAssignment::new();
        next
    }

    /// Adds what the target has and nobody else holds. Whether something is still held.
    fn add_free(&self, assigned: &mut EpochAssignment) -> bool {
        let mut unreleased = false;
        for (topic, partitions) in self.target.iter().filter(|(topic, _)| self.subscribed.contains(*topic)) {
            let has = assigned.get(topic).cloned().unwrap_or_default();
            let own = self.current.pending_revocation.get(topic);
            for partition in partitions.iter().filter(|p| !has.contains_key(*p)) {
                let held = (self.is_held)(topic, *partition) && !own.is_some_and(|own| own.contains_key(partition));
                if held {
                    unreleased = true;
                } else {
                    assigned.entry(*topic).or_default().insert(*partition, self.target_epoch);
                }
            }
        }
        unreleased
    }

    /// The member must give back at once what it does not want any more, whatever its next target is.
    fn drop_unsubscribed(&self) -> Current {
        let mut next = self.current.clone();
        let unwanted: Vec<Uuid> =
            next.assigned.keys().filter(|topic| !self.subscribed.contains(*topic)).copied().collect();
        if unwanted.is_empty() {
            return next;
        }
        let mut pending = next.pending_revocation.clone();
        for topic in unwanted {
            let partitions = next.assigned.remove(&topic).unwrap_or_default();
            pending.entry(topic).or_default().extend(partitions);
        }
        next.previous_epoch = self.current.epoch;
        if self.has_still(&pending) {
            next.state = MemberState::UnrevokedPartitions;
            next.pending_revocation = pending;
        }
        next
    }
}
