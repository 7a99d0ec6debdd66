//! Each topic's partitions in contiguous ranges, the first members having one more when it does not come out even: members
//! with the same topics get the same partition numbers of each. Answers to Kafka's `RangeAssignor`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use taccola_base::Uuid;

use super::{Assigned, AssignorInput, AssignorMember};
use crate::modern::assignment::Assignment;

/// Static members come first, by their instance ids: a restart gives them the same range.
fn order(a: &AssignorMember<'_>, b: &AssignorMember<'_>) -> Ordering {
    match (a.instance_id, b.instance_id) {
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.id.cmp(b.id),
    }
}

pub(crate) fn range(input: &AssignorInput<'_>) -> Assigned {
    let mut order_of: Vec<usize> = (0..input.members.len()).collect();
    order_of.sort_by(|a, b| match (input.members.get(*a), input.members.get(*b)) {
        (Some(a), Some(b)) => order(a, b),
        _ => Ordering::Equal,
    });
    let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for index in order_of {
        for topic in input.members.get(index).iter().flat_map(|m| m.topics.iter()) {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut assigned: Assigned = vec![Assignment::new(); input.members.len()];
    for (topic, members) in subscribers {
        let partitions = input.partitions_of(&topic);
        let count = i32::try_from(members.len()).unwrap_or(i32::MAX).max(1);
        let (least, extra) = (partitions / count, partitions % count);
        let mut next = 0;
        for (position, member) in (0_i32..).zip(members) {
            let end = next + least + i32::from(position < extra);
            if end > next
                && let Some(assignment) = assigned.get_mut(member)
            {
                assignment.insert(topic, (next..end).collect());
            }
            next = end;
        }
    }
    assigned
}
