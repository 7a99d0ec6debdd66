//! Sets of partitions by topic, as targets and as what members have.

use std::collections::BTreeMap;

use taccola_base::Uuid;

/// Partitions by topic, ascending and each once. No topic is there without a partition.
pub(crate) type Assignment = BTreeMap<Uuid, Vec<i32>>;

/// Partitions by topic, each with the member's epoch when it was given to the member. No topic is there without a
/// partition.
pub(crate) type EpochAssignment = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Sorts and drops what is there twice, and topics without partitions.
pub(crate) fn normalized(topics: impl IntoIterator<Item = (Uuid, Vec<i32>)>) -> Assignment {
    let mut assignment = Assignment::new();
    for (topic, partitions) in topics {
        if !partitions.is_empty() {
            assignment.entry(topic).or_default().extend(partitions);
        }
    }
    for partitions in assignment.values_mut() {
        partitions.sort_unstable();
        partitions.dedup();
    }
    assignment
}

pub(crate) fn contains(assignment: &Assignment, topic: &Uuid, partition: i32) -> bool {
    assignment.get(topic).is_some_and(|partitions| partitions.binary_search(&partition).is_ok())
}

pub(crate) fn without_epochs(assignment: &EpochAssignment) -> Assignment {
    assignment.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}

/// Whether both have the same partitions, whatever their epochs.
pub(crate) fn same_partitions(a: &EpochAssignment, b: &EpochAssignment) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((x, p), (y, q))| x == y && p.len() == q.len() && p.keys().eq(q.keys()))
}
