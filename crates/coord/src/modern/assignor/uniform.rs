//! Partitions as evenly as can be, and of all such assignments one that moves as little as can be. Members with the same
//! topics are counted; the general case is in `uniform_mixed`. Answers to Kafka's `UniformAssignor` and
//! `UniformHomogeneousAssignmentBuilder`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use taccola_base::Uuid;

use super::{Assigned, AssignorInput, AssignorMember};
use crate::modern::assignment::Assignment;

pub(crate) fn uniform(input: &AssignorInput<'_>) -> Assigned {
    if input.is_homogeneous() { homogeneous(input) } else { super::uniform_mixed::mixed(input) }
}

/// Who has a partition; the index of a member.
pub(super) type Owners = BTreeMap<Uuid, Vec<Option<u32>>>;

/// Every partition without an owner.
pub(super) fn nobody_owns<'a>(input: &AssignorInput<'_>, topics: impl IntoIterator<Item = &'a Uuid>) -> Owners {
    let slots = |topic: &Uuid| usize::try_from(input.partitions_of(topic)).unwrap_or(0);
    topics.into_iter().map(|topic| (*topic, vec![None; slots(topic)])).collect()
}

/// Gives a member what it had, of topics that it still wants and partitions that still exist and nobody else has. At most
/// `room` partitions; returns how many.
pub(super) fn keep(owners: &mut Owners, index: u32, member: &AssignorMember<'_>, room: usize) -> usize {
    let mut kept = 0;
    for (topic, partitions) in member.before.into_iter().flatten().filter(|(topic, _)| member.topics.contains(*topic)) {
        let Some(slots) = owners.get_mut(topic) else { continue };
        for partition in partitions {
            let slot = usize::try_from(*partition).ok().and_then(|at| slots.get_mut(at));
            if let Some(slot @ None) = slot
                && kept < room
            {
                *slot = Some(index);
                kept += 1;
            }
        }
    }
    kept
}

pub(super) fn into_assigned(owners: &Owners, members: usize) -> Assigned {
    let mut assigned: Assigned = vec![Assignment::new(); members];
    for (topic, slots) in owners {
        for (partition, owner) in (0_i32..).zip(slots) {
            let member = owner.and_then(|owner| usize::try_from(owner).ok()).and_then(|owner| assigned.get_mut(owner));
            if let Some(member) = member {
                member.entry(*topic).or_default().push(partition);
            }
        }
    }
    assigned
}

fn homogeneous(input: &AssignorInput<'_>) -> Assigned {
    let count = input.members.len();
    let Some(first) = input.members.first() else { return Vec::new() };
    let mut owners = nobody_owns(input, first.topics.iter());
    let total: usize = owners.values().map(Vec::len).sum();
    let (least, mut extra) = (total / count.max(1), total % count.max(1));
    // Who has most keeps most: the quotas that are one higher go where they save a move.
    let had = |member: &AssignorMember<'_>| {
        let topics = member.before.into_iter().flatten().filter(|(topic, _)| member.topics.contains(*topic));
        topics.map(|(_, partitions)| partitions.len()).sum::<usize>()
    };
    let mut order: Vec<(Reverse<usize>, u32, &AssignorMember<'_>)> =
        (0_u32..).zip(&input.members).map(|(index, member)| (Reverse(had(member)), index, member)).collect();
    order.sort_by_key(|(had, index, _)| (*had, *index));
    let mut room: Vec<(u32, usize)> = Vec::new();
    for (_, index, member) in order {
        let quota = least + usize::from(extra > 0);
        extra = extra.saturating_sub(1);
        let kept = keep(&mut owners, index, member, quota);
        if kept < quota {
            room.push((index, quota - kept));
        }
    }
    // From the back, so that a member that had nothing starts with the lowest partitions.
    room.sort_by_key(|(index, _)| Reverse(*index));
    for slot in owners.values_mut().flatten().filter(|slot| slot.is_none()) {
        let Some((index, left)) = room.last_mut() else { break };
        *slot = Some(*index);
        *left -= 1;
        if *left == 0 {
            room.pop();
        }
    }
    into_assigned(&owners, count)
}
