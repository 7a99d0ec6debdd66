//! The assignors against what they promise, over random groups and what they were before.

use proptest::prelude::*;

use super::*;

type Spread = fn(&AssignorInput<'_>) -> Assigned;

fn topic(n: u8) -> Uuid {
    Uuid::from_u128(1_000 + u128::from(n))
}

/// Members as (id, topics), and the partition counts of eight topics.
#[derive(Clone, Debug)]
struct Cluster {
    members: BTreeMap<String, (BTreeSet<Uuid>, Option<String>)>,
    partitions: BTreeMap<Uuid, i32>,
}

fn cluster(homogeneous: bool) -> impl Strategy<Value = Cluster> {
    let partitions = proptest::collection::vec(0..12_i32, 6);
    let members = proptest::collection::btree_map(0..30_u8, (proptest::bits::u8::masked(0x3f), any::<bool>()), 1..12);
    (partitions, members, 1..64_u8).prop_map(move |(partitions, members, all)| Cluster {
        partitions: (0..).map(topic).zip(partitions).collect(),
        members: members
            .into_iter()
            .map(|(id, (mask, is_static))| {
                let mask = if homogeneous { all } else { mask };
                let topics = (0..6).filter(|n| mask & (1 << n) != 0).map(topic).collect();
                (format!("m{id:02}"), (topics, is_static.then(|| format!("i{}", 99 - id))))
            })
            .collect(),
    })
}

type Before = BTreeMap<String, Assignment>;

fn spread(assignor: Spread, cluster: &Cluster, before: &Before) -> Before {
    let members = cluster.members.iter().map(|(id, (topics, instance))| AssignorMember {
        id,
        instance_id: instance.as_deref(),
        topics: Arc::new(topics.clone()),
        before: before.get(id),
    });
    let input = AssignorInput { members: members.collect(), partitions: &cluster.partitions };
    cluster.members.keys().cloned().zip(assignor(&input)).collect()
}

fn size(assignment: &Assignment) -> usize {
    assignment.values().map(Vec::len).sum()
}

/// Everything that is subscribed to is assigned, once, to somebody who subscribes to it.
fn complete(cluster: &Cluster, after: &Before) {
    let mut seen = BTreeSet::new();
    for (id, assignment) in after {
        for (topic, partitions) in assignment {
            assert!(cluster.members[id].0.contains(topic), "{id} has {topic}");
            assert!(partitions.is_sorted(), "{partitions:?}");
            for partition in partitions {
                assert!((0..cluster.partitions[topic]).contains(partition));
                assert!(seen.insert((*topic, *partition)), "{topic}-{partition} twice");
            }
        }
    }
    let wanted: BTreeSet<Uuid> = cluster.members.values().flat_map(|(topics, _)| topics).copied().collect();
    let all: i32 = wanted.iter().map(|t| cluster.partitions[t]).sum();
    assert_eq!(seen.len(), usize::try_from(all).unwrap());
}

/// Nobody has two more than somebody who could take one of them.
fn balanced(cluster: &Cluster, after: &Before) {
    for (rich, has) in after {
        for (poor, (topics, _)) in &cluster.members {
            if has.keys().any(|topic| topics.contains(topic)) {
                assert!(size(has) <= size(&after[poor]) + 1, "{rich} has {has:?}, {poor} {:?}", after[poor]);
            }
        }
    }
}

fn kept(before: &Before, after: &Before) -> usize {
    let same = |(id, was): (&String, &Assignment)| {
        let is = after.get(id)?;
        Some(
            was.iter()
                .map(|(t, p)| p.iter().filter(|p| is.get(t).is_some_and(|is| is.contains(p))).count())
                .sum::<usize>(),
        )
    };
    before.iter().filter_map(same).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn uniform_spreads_evenly_and_moves_little(first in cluster(true), second in cluster(true)) {
        let before = spread(uniform, &first, &Before::new());
        complete(&first, &before);
        balanced(&first, &before);
        // Nothing changes: nothing moves.
        prop_assert_eq!(&spread(uniform, &first, &before), &before);
        let after = spread(uniform, &second, &before);
        complete(&second, &after);
        balanced(&second, &after);
        // No even assignment keeps more: each member keeps up to the quota that it can get.
        let total: usize = after.values().map(size).sum();
        let (least, mut extra) = (total / after.len(), total % after.len());
        let mut could: Vec<usize> = second.members.iter().map(|(id, (topics, _))| {
            let had = before.get(id).into_iter().flatten().filter(|(t, _)| topics.contains(*t));
            had.map(|(t, p)| p.iter().filter(|p| **p < second.partitions[t]).count()).sum()
        }).collect();
        could.sort_unstable_by(|a, b| b.cmp(a));
        let most: usize = could.into_iter().map(|had| {
            let quota = least + usize::from(extra > 0 && had > least);
            extra -= usize::from(extra > 0 && had > least);
            had.min(quota)
        }).sum();
        prop_assert!(kept(&before, &after) >= most.saturating_sub(second.members.len()), "{before:?} {after:?}");
        prop_assert!(kept(&before, &after) <= most);
    }

    #[test]
    fn uniform_takes_members_with_different_topics(first in cluster(false), second in cluster(false)) {
        let before = spread(uniform, &first, &Before::new());
        complete(&first, &before);
        balanced(&first, &before);
        prop_assert_eq!(&spread(uniform, &first, &before), &before);
        let after = spread(uniform, &second, &before);
        complete(&second, &after);
        balanced(&second, &after);
    }

    #[test]
    fn ranges_are_contiguous(cluster in cluster(false)) {
        let after = spread(range, &cluster, &Before::new());
        complete(&cluster, &after);
        for partitions in after.values().flat_map(BTreeMap::values) {
            prop_assert!(partitions.windows(2).all(|w| w[0] + 1 == w[1]), "{partitions:?}");
        }
        for topic in cluster.partitions.keys() {
            let sizes: Vec<usize> = cluster.members.iter().filter(|(_, (t, _))| t.contains(topic))
                .map(|(id, _)| after[id].get(topic).map_or(0, Vec::len)).collect();
            let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
            prop_assert!(most - least <= 1);
        }
    }
}

#[test]
fn a_member_that_joins_takes_no_more_than_its_share() {
    let subscribed: BTreeSet<Uuid> = [topic(0)].into();
    let mut cluster = Cluster { members: BTreeMap::new(), partitions: [(topic(0), 1_000)].into() };
    let mut before = Before::new();
    for n in 0..100 {
        cluster.members.insert(format!("m{n:03}"), (subscribed.clone(), None));
        let after = spread(uniform, &cluster, &before);
        complete(&cluster, &after);
        balanced(&cluster, &after);
        let share = 1_000 / (n + 1);
        assert!(kept(&before, &after) + share + 1 >= before.values().map(size).sum::<usize>());
        before = after;
    }
}
