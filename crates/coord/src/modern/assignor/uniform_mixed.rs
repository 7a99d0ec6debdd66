//! The uniform assignor for members with different topics. Answers to Kafka's `UniformHeterogeneousAssignmentBuilder`.
//!
//! Members keep what they had; what is left goes to whoever has least; then partitions move from who has more to who has
//! less, one at a time, until nobody that could take one of another's has two fewer. Each move makes the sum of the
//! squares of the loads smaller, so that it comes to an end.

use std::collections::{BTreeMap, BTreeSet};

use taccola_base::Uuid;

use super::uniform::{Owners, into_assigned, keep, nobody_owns};
use super::{Assigned, AssignorInput};

/// Passes over all topics; each makes the worst imbalance smaller, and what is left after so many is let be.
const PASSES_MAX: usize = 64;

pub(super) fn mixed(input: &AssignorInput<'_>) -> Assigned {
    let mut subscribers: BTreeMap<Uuid, Vec<u32>> = BTreeMap::new();
    for (index, member) in (0_u32..).zip(&input.members) {
        for topic in member.topics.iter() {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut owners = nobody_owns(input, subscribers.keys());
    let mut loads: Vec<usize> = vec![0; input.members.len()];
    for (index, member) in (0_u32..).zip(&input.members) {
        let kept = keep(&mut owners, index, member, usize::MAX);
        add(&mut loads, index, kept);
    }
    // Topics that few can take come first: the others even out what they leave.
    let mut topics: Vec<(&Uuid, &Vec<u32>)> = subscribers.iter().collect();
    topics.sort_by_key(|(topic, members)| (members.len(), **topic));
    for (topic, members) in &topics {
        fill(&mut owners, topic, members, &mut loads);
    }
    for _ in 0..PASSES_MAX {
        let mut moved = false;
        for (topic, members) in &topics {
            moved |= even_out(&mut owners, topic, members, &mut loads);
        }
        if !moved {
            break;
        }
    }
    into_assigned(&owners, input.members.len())
}

fn load(loads: &[usize], index: u32) -> usize {
    usize::try_from(index).ok().and_then(|at| loads.get(at)).copied().unwrap_or(0)
}

fn add(loads: &mut [usize], index: u32, count: usize) {
    if let Some(load) = usize::try_from(index).ok().and_then(|at| loads.get_mut(at)) {
        *load += count;
    }
}

fn take(loads: &mut [usize], index: u32) {
    if let Some(load) = usize::try_from(index).ok().and_then(|at| loads.get_mut(at)) {
        *load = load.saturating_sub(1);
    }
}

/// Gives the topic's partitions that nobody has to those with the least.
fn fill(owners: &mut Owners, topic: &Uuid, members: &[u32], loads: &mut [usize]) {
    let Some(slots) = owners.get_mut(topic) else { return };
    if slots.iter().all(Option::is_some) {
        return;
    }
    let mut by_load: BTreeSet<(usize, u32)> = members.iter().map(|m| (load(loads, *m), *m)).collect();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        let Some((least, member)) = by_load.pop_first() else { return };
        *slot = Some(member);
        add(loads, member, 1);
        by_load.insert((least + 1, member));
    }
}

/// Moves the topic's partitions from those with more to those with less. Whether something moved.
fn even_out(owners: &mut Owners, topic: &Uuid, members: &[u32], loads: &mut [usize]) -> bool {
    let Some(slots) = owners.get_mut(topic) else { return false };
    let mut by_load: BTreeSet<(usize, u32)> = members.iter().map(|m| (load(loads, *m), *m)).collect();
    // What each member has of the topic, the last partition last.
    let mut held: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (partition, owner) in slots.iter().enumerate() {
        held.entry(owner.unwrap_or_default()).or_default().push(partition);
    }
    let mut givers: BTreeSet<(usize, u32)> = held.keys().map(|m| (load(loads, *m), *m)).collect();
    let mut moved = false;
    while let (Some((most, giver)), Some((least, taker))) = (givers.pop_last(), by_load.first().copied()) {
        if most < least + 2 {
            break;
        }
        let Some(partition) = held.get_mut(&giver).and_then(Vec::pop) else { continue };
        if let Some(slot) = slots.get_mut(partition) {
            *slot = Some(taker);
        }
        moved = true;
        take(loads, giver);
        add(loads, taker, 1);
        by_load.remove(&(most, giver));
        by_load.insert((most - 1, giver));
        by_load.remove(&(least, taker));
        by_load.insert((least + 1, taker));
        givers.insert((most - 1, giver));
        givers.remove(&(least, taker));
        if let Some(own) = held.get_mut(&taker) {
            own.push(partition);
            givers.insert((least + 1, taker));
        }
    }
    moved
}
