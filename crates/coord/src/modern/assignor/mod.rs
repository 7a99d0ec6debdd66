//! How partitions are spread over the members of a group. Answers to Kafka's `PartitionAssignor`, `UniformAssignor` and
//! `RangeAssignor`.
//!
//! Each is a function of the members in the order of their ids, of the topics, and of what the members should have had
//! before. Invariants of the result: every partition of a topic that somebody subscribes to belongs to exactly one member,
//! and that member subscribes to it.

mod range;
#[cfg(test)]
mod tests;
mod uniform;
mod uniform_mixed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;

use super::assignment::Assignment;

pub(crate) use range::range;
pub(crate) use uniform::uniform;

/// A member as the assignors see it.
#[derive(Clone, Debug)]
pub(crate) struct AssignorMember<'a> {
    pub(crate) id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
    /// Topics that exist. Members with the same topics may share the set, which makes it cheap to see that they do.
    pub(crate) topics: Arc<BTreeSet<Uuid>>,
    /// What the member should have had so far.
    pub(crate) before: Option<&'a Assignment>,
}

/// The members, ascending by id, and the number of partitions of each topic that anybody subscribes to.
#[derive(Clone, Debug)]
pub(crate) struct AssignorInput<'a> {
    pub(crate) members: Vec<AssignorMember<'a>>,
    pub(crate) partitions: &'a BTreeMap<Uuid, i32>,
}

impl AssignorInput<'_> {
    /// Whether all members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let Some(first) = self.members.first() else { return true };
        self.members.iter().all(|m| Arc::ptr_eq(&m.topics, &first.topics) || m.topics == first.topics)
    }

    fn partitions_of(&self, topic: &Uuid) -> i32 {
        self.partitions.get(topic).copied().unwrap_or(0)
    }
}

/// The assignments, one for each member in the order of the input.
pub(crate) type Assigned = Vec<Assignment>;
