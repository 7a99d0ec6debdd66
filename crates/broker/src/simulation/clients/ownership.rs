//! What the members of one group know of it together: whose each partition or task is, and how long at least. What a member
//! was given is its own from the answer on until it tells that it gave it back, or until its session has run out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::simulation::world;

#[derive(Debug)]
pub(in crate::simulation) struct Ownership<P> {
    /// Whose it is, and until when at least (milliseconds since 1970).
    owners: BTreeMap<P, (u32, i64)>,
    /// The greatest epoch that anybody heard of.
    pub(super) epoch_max: i32,
}

impl<P> Default for Ownership<P> {
    fn default() -> Self {
        Self { owners: BTreeMap::new(), epoch_max: 0 }
    }
}

impl<P: Copy + Debug + Ord> Ownership<P> {
    /// A member has no more than this from now on.
    pub(super) fn keep(&mut self, member: u32, kept: &BTreeSet<P>) {
        self.owners.retain(|place, (owner, _)| *owner != member || kept.contains(place));
    }

    /// A member was given exactly this.
    pub(super) fn take(&mut self, group: &str, member: u32, given: &BTreeSet<P>, until_ms: i64) {
        self.keep(member, given);
        let now_ms = world::now_ms().unwrap();
        for place in given {
            let (owner, until) = self.owners.get(place).copied().unwrap_or((member, 0));
            let free = owner == member || until <= now_ms;
            assert!(free, "{group}: {place:?} is given to member {member} and still member {owner}'s");
            self.owners.insert(*place, (member, until_ms));
        }
    }

    /// A member was heard.
    pub(super) fn renew(&mut self, member: u32, until_ms: i64) {
        for (_, until) in self.owners.values_mut().filter(|(owner, _)| *owner == member) {
            *until = until_ms.max(*until);
        }
    }
}
