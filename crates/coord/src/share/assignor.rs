//! The `simple` assignor: every partition goes to as many members as it takes for every member to have some, and members
//! keep what they have as far as that leaves all with about the same number. Answers to Kafka's `SimpleAssignor`
//! (balanced per group when all members want the same, else per topic), with members and partitions in sorted order where
//! Kafka has the order of a hash map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;

use super::Assignment;

type TopicIdPartition = (Uuid, i32);
type Held = BTreeSet<TopicIdPartition>;

/// Who wants what, and has what.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Topics that each member subscribes to, as far as they exist.
    pub(crate) subscriptions: BTreeMap<Arc<str>, BTreeSet<Uuid>>,
    /// What members were assigned before.
    pub(crate) previous: BTreeMap<Arc<str>, Assignment>,
    /// Partitions that may be assigned.
    pub(crate) assignable: BTreeMap<Uuid, BTreeSet<i32>>,
}

pub(crate) fn assign(input: &Input) -> BTreeMap<Arc<str>, Assignment> {
    let mut result: BTreeMap<Arc<str>, Assignment> =
        input.subscriptions.keys().map(|id| (id.clone(), Assignment::new())).collect();
    let all: BTreeSet<Uuid> = input.subscriptions.values().flatten().copied().collect();
    let homogeneous = input.subscriptions.values().all(|topics| *topics == all);
    let pools: Vec<BTreeSet<Uuid>> =
        if homogeneous { vec![all] } else { all.into_iter().map(|topic| BTreeSet::from([topic])).collect() };
    for pool in pools {
        let partitions: Vec<TopicIdPartition> = pool
            .iter()
            .filter_map(|topic| input.assignable.get(topic).map(|partitions| (topic, partitions)))
            .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
            .collect();
        let members: Vec<&Arc<str>> = input
            .subscriptions
            .iter()
            .filter(|(_, topics)| pool.iter().all(|topic| topics.contains(topic)))
            .map(|(id, _)| id)
            .collect();
        let held = balance(&partitions, members.iter().map(|id| previous(input, id)).collect());
        for (member, held) in members.into_iter().zip(held) {
            let assignment = result.entry(member.clone()).or_default();
            for (topic, partition) in held {
                assignment.entry(topic).or_default().insert(partition);
            }
        }
    }
    result
}

fn previous(input: &Input, member: &str) -> Held {
    let assignment = input.previous.get(member).into_iter().flatten();
    assignment.flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition))).collect()
}

/// Balances one pool of partitions over its members, who hold something from before.
fn balance(partitions: &[TopicIdPartition], held: Vec<Held>) -> Vec<Held> {
    let (members, count) = (held.len(), partitions.len());
    if members == 0 || count == 0 {
        return held.iter().map(|_| Held::new()).collect();
    }
    // How many members each partition is given to, and how many partitions each member gets.
    let sharing = members.div_ceil(count);
    let slots = sharing.saturating_mul(count);
    let share = |index: usize| slots.saturating_mul(index).div_ceil(members);
    let desired: Vec<usize> = (0..members).map(|index| share(index + 1).saturating_sub(share(index))).collect();
    let pool: BTreeSet<&TopicIdPartition> = partitions.iter().collect();
    let mut held: Vec<Held> =
        held.into_iter().map(|had| had.into_iter().filter(|partition| pool.contains(partition)).collect()).collect();
    let mut holders: BTreeMap<TopicIdPartition, BTreeSet<usize>> =
        partitions.iter().map(|partition| (*partition, BTreeSet::new())).collect();
    for (member, had) in held.iter().enumerate() {
        for partition in had {
            holders.entry(*partition).or_default().insert(member);
        }
    }
    revoke_overshared(sharing, &desired, &mut holders, &mut held);
    revoke_overfilled(&desired, &mut holders, &mut held);
    fill(sharing, &desired, &mut holders, &mut held);
    held
}

/// Partitions with too many members are taken away, from members with too many partitions first.
fn revoke_overshared(
    sharing: usize,
    desired: &[usize],
    holders: &mut BTreeMap<TopicIdPartition, BTreeSet<usize>>,
    held: &mut [Held],
) {
    for (partition, members) in holders {
        while members.len() > sharing {
            let is_overfilled =
                |member: &&usize| held.get(**member).map(BTreeSet::len) > desired.get(**member).copied();
            let Some(member) = members.iter().find(is_overfilled).or_else(|| members.first()).copied() else { break };
            members.remove(&member);
            if let Some(had) = held.get_mut(member) {
                had.remove(partition);
            }
        }
    }
}

/// Members with too many partitions give the first of them away.
fn revoke_overfilled(desired: &[usize], holders: &mut BTreeMap<TopicIdPartition, BTreeSet<usize>>, held: &mut [Held]) {
    for (member, (had, desired)) in held.iter_mut().zip(desired).enumerate() {
        while had.len() > *desired {
            let Some(partition) = had.pop_first() else { break };
            if let Some(members) = holders.get_mut(&partition) {
                members.remove(&member);
            }
        }
    }
}

/// Partitions with too few members are given to members with too few partitions, in turn. One that those have already is
/// left with fewer: everybody has it who could take it.
fn fill(
    sharing: usize,
    desired: &[usize],
    holders: &mut BTreeMap<TopicIdPartition, BTreeSet<usize>>,
    held: &mut [Held],
) {
    let lacks = |held: &[Held], member: usize| held.get(member).map(BTreeSet::len) < desired.get(member).copied();
    let mut turn: std::collections::VecDeque<usize> = (0..desired.len()).filter(|m| lacks(held, *m)).collect();
    for (partition, members) in holders {
        let mut passed = 0;
        while members.len() < sharing && passed < turn.len() {
            let Some(member) = turn.pop_front() else { break };
            if !members.insert(member) {
                passed += 1;
                turn.push_back(member);
                continue;
            }
            passed = 0;
            if let Some(had) = held.get_mut(member) {
                had.insert(*partition);
            }
            if lacks(held, member) {
                turn.push_back(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(77);

    fn input(members: usize, partitions: i32) -> Input {
        let members = (0..members).map(|i| (Arc::from(format!("m{i:03}")), BTreeSet::from([TOPIC])));
        Input {
            subscriptions: members.collect(),
            previous: BTreeMap::new(),
            assignable: BTreeMap::from([(TOPIC, (0..partitions).collect())]),
        }
    }

    fn sizes(result: &BTreeMap<Arc<str>, Assignment>) -> Vec<usize> {
        result.values().map(|assignment| assignment.values().map(BTreeSet::len).sum()).collect()
    }

    #[test]
    fn partitions_are_spread_and_shared() {
        assert_eq!(sizes(&assign(&input(1, 6))), [6]);
        assert_eq!(sizes(&assign(&input(4, 6))), [2, 1, 2, 1]);
        // More members than partitions: each has one, partitions have several.
        assert_eq!(sizes(&assign(&input(6, 2))), [1; 6]);
        assert_eq!(sizes(&assign(&input(3, 2))), [2, 1, 1]);
        assert_eq!(sizes(&assign(&input(3, 0))), [0; 3]);
    }

    #[test]
    fn members_keep_what_they_can() {
        for members in 1..12 {
            for partitions in 0..12 {
                let mut before = input(members, partitions);
                before.previous = assign(&before);
                let first = before.previous.clone();
                assert_eq!(assign(&before), first, "{members} {partitions}: nothing moves without a reason");
                let mut after = input(members + 1, partitions);
                after.previous = first.clone();
                let grown = assign(&after);
                for partition in 0..partitions {
                    let has = |a: &Assignment| a.get(&TOPIC).is_some_and(|p| p.contains(&partition));
                    assert!(grown.values().any(has), "{members} {partitions}: partition {partition} is with nobody");
                }
                let sizes = sizes(&grown);
                let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                assert!(most - least <= 1 || partitions == 0, "{members} {partitions}: {sizes:?}");
            }
        }
    }

    #[test]
    fn members_with_different_topics_get_what_they_want() {
        let other = Uuid::METADATA_TOPIC_ID;
        let mut input = input(2, 4);
        input.assignable.insert(other, (0..2).collect());
        input.subscriptions.insert(Arc::from("m000"), BTreeSet::from([TOPIC, other]));
        let result = assign(&input);
        assert_eq!(sizes(&result), [4, 2]);
        assert!(!result["m001"].contains_key(&other));
    }
}
