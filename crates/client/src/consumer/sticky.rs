//! The cooperative-sticky assignor (KIP-429). Answers to `CooperativeStickyAssignor`: as balanced as the subscriptions allow,
//! and of all such assignments one that moves little.
//!
//! Cooperative members go on reading while the group rebalances, so a partition that changes hands is given to nobody in the
//! first round: its owner sees that it is missing, gives it up, and joins again; the second round hands it out. What holds in
//! every round: nobody is given a partition that another member says it owns, whatever the claims are.
//!
//! Balanced means that no chain of moves (a partition from A to B, one from B to C, ...) would even out the members at its two
//! ends. With equal subscriptions that is a difference of at most one. Which partitions move need not be what Java's assignor
//! would have moved: only the leader computes, and every member follows it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use taccola_base::{TopicPartition, TopicPartitionRef};

use super::assignor::Subscription;

/// Who says that it owns a partition.
struct Claim<'a> {
    generation: i32,
    /// The one of the newest generation; `None` if several say so of the same.
    owner: Option<&'a str>,
    /// Also those of an older generation.
    claimants: usize,
}

type Claims<'a> = BTreeMap<TopicPartitionRef<'a>, Claim<'a>>;

/// Partitions per member that may be handed out now.
pub(super) fn assign(
    members: &[Subscription],
    partitions: &BTreeMap<Arc<str>, i32>,
) -> HashMap<String, Vec<TopicPartition>> {
    let claims = claims(members);
    let plan = Plan::balanced(members, partitions, &claims);
    let names: BTreeMap<&str, &Arc<str>> = partitions.keys().map(|name| (&**name, name)).collect();
    let may_have = |member: &str, partition: TopicPartitionRef<'_>| match claims.get(&partition) {
        Some(claim) => claim.owner == Some(member),
        None => true,
    };
    let granted = |(id, member): (&str, Member<'_>)| {
        let held = member.holds.into_iter().flat_map(|(topic, list)| list.into_iter().map(move |p| (topic, p)));
        let granted = held.filter(|partition| may_have(id, *partition));
        let named = granted.filter_map(|(topic, p)| Some(TopicPartition::new(Arc::clone(names.get(topic)?), p)));
        (id.to_owned(), named.collect())
    };
    plan.members.into_iter().map(granted).collect()
}

fn claims(members: &[Subscription]) -> Claims<'_> {
    let mut claims = Claims::new();
    for member in members {
        let id = member.member_id.as_str();
        for p in &member.owned {
            let new = Claim { generation: member.generation, owner: Some(id), claimants: 0 };
            let claim = claims.entry((&*p.topic, p.partition)).or_insert(new);
            claim.claimants += 1;
            if claim.claimants > 1 && member.generation >= claim.generation {
                claim.owner = (member.generation > claim.generation).then_some(id);
                claim.generation = member.generation;
            }
        }
    }
    claims
}

#[derive(Default)]
struct Member<'a> {
    load: usize,
    holds: BTreeMap<&'a str, BTreeSet<i32>>,
    /// What it owned before, by right.
    before: BTreeSet<TopicPartitionRef<'a>>,
}

/// The assignment that the group is on its way to.
struct Plan<'a> {
    members: BTreeMap<&'a str, Member<'a>>,
    /// Who wants a topic, sorted.
    takers: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Plan<'a> {
    fn balanced(members: &'a [Subscription], partitions: &'a BTreeMap<Arc<str>, i32>, claims: &Claims<'a>) -> Self {
        let mut plan = Self {
            members: members.iter().map(|m| (m.member_id.as_str(), Member::default())).collect(),
            takers: BTreeMap::new(),
        };
        for topic in partitions.keys() {
            let wants = members.iter().filter(|m| m.topics.contains(&**topic));
            let mut takers: Vec<_> = wants.map(|m| m.member_id.as_str()).collect();
            takers.sort_unstable();
            plan.takers.insert(topic, takers);
        }
        plan.place(partitions, claims);
        plan.level();
        plan
    }

    /// Leaves partitions with their owners, and gives the others to whoever has least; those that few want come first.
    fn place(&mut self, partitions: &'a BTreeMap<Arc<str>, i32>, claims: &Claims<'a>) {
        let mut topics: Vec<(&'a str, i32)> = partitions.iter().map(|(topic, count)| (&**topic, *count)).collect();
        topics.sort_by_key(|(topic, _)| (self.takers.get(topic).map_or(0, Vec::len), *topic));
        let mut free = Vec::new();
        for (topic, count) in topics {
            let Some(takers) = self.takers.get(topic).filter(|takers| !takers.is_empty()) else { continue };
            for partition in 0..count {
                let owner = claims.get(&(topic, partition)).and_then(|claim| claim.owner);
                match owner.filter(|owner| takers.binary_search(owner).is_ok()) {
                    Some(owner) => {
                        let Some(member) = self.members.get_mut(owner) else { continue };
                        member.before.insert((topic, partition));
                        member.give(topic, partition);
                    }
                    None => free.push((topic, partition)),
                }
            }
        }
        for (topic, partition) in free {
            let takers = self.takers.get(topic).map_or(&[][..], Vec::as_slice);
            let poorest = takers.iter().min_by_key(|id| self.members.get(**id).map_or(usize::MAX, |m| m.load));
            if let Some(member) = poorest.and_then(|id| self.members.get_mut(id)) {
                member.give(topic, partition);
            }
        }
    }

    /// Moves partitions until no chain of moves makes it more even. Where the fullest member cannot give, nobody whom its
    /// chains reach can give or take any more, now or later.
    fn level(&mut self) {
        let mut done: BTreeSet<&'a str> = BTreeSet::new();
        loop {
            let open = self.members.iter().filter(|(id, _)| !done.contains(*id));
            let Some((from, load)) = open.map(|(id, m)| (*id, m.load)).min_by_key(|(id, load)| (Reverse(*load), *id))
            else {
                return;
            };
            let reached = self.reach(from);
            let loads = reached.iter().map(|hop| (self.members.get(hop.to).map_or(0, |m| m.load), *hop));
            match loads.min_by_key(|(load, _)| *load) {
                Some((least, hop)) if least + 2 <= load => self.shift(hop, &reached),
                _ => {
                    done.insert(from);
                    done.extend(reached.iter().map(|hop| hop.to));
                }
            }
        }
    }

    /// Members that chains of moves lead to, nearest first.
    fn reach(&self, from: &'a str) -> Vec<Hop<'a>> {
        let (mut hops, mut members, mut topics) = (Vec::new(), BTreeSet::from([from]), BTreeSet::new());
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            let Some(member) = self.members.get(id) else { continue };
            // Partitions that the member did not have before move first.
            let mut held: Vec<_> = member.holds.keys().copied().filter(|topic| topics.insert(*topic)).collect();
            held.sort_by_key(|topic| !member.has_new(topic));
            for topic in held {
                for to in self.takers.get(topic).into_iter().flatten().filter(|to| members.insert(**to)) {
                    hops.push(Hop { from: id, topic, to });
                    queue.push_back(to);
                }
            }
        }
        hops
    }

    /// Moves one partition along each link of the chain that ends with `last`.
    fn shift(&mut self, last: Hop<'a>, reached: &[Hop<'a>]) {
        let mut next = Some(last);
        while let Some(Hop { from, topic, to }) = next {
            let back = self.members.get(to).map(|m| &m.before);
            let partition = self.members.get(from).and_then(|giver| giver.to_give(topic, back));
            if let Some(partition) = partition {
                self.members.entry(from).and_modify(|giver| giver.take(topic, partition));
                self.members.entry(to).and_modify(|taker| taker.give(topic, partition));
            }
            next = reached.iter().find(|hop| hop.to == from).copied();
        }
    }
}

/// A link of a chain: a partition of `topic` may go from one to the other.
#[derive(Clone, Copy)]
struct Hop<'a> {
    from: &'a str,
    topic: &'a str,
    to: &'a str,
}

impl<'a> Member<'a> {
    fn give(&mut self, topic: &'a str, partition: i32) {
        self.load += usize::from(self.holds.entry(topic).or_default().insert(partition));
    }

    fn take(&mut self, topic: &'a str, partition: i32) {
        let Some(list) = self.holds.get_mut(topic) else { return };
        self.load -= usize::from(list.remove(&partition));
        if list.is_empty() {
            self.holds.remove(topic);
        }
    }

    fn has_new(&self, topic: &'a str) -> bool {
        self.holds.get(topic).is_some_and(|list| list.iter().any(|p| !self.before.contains(&(topic, *p))))
    }

    /// Best what the taker had before, then what this member had not.
    fn to_give(&self, topic: &'a str, taker: Option<&BTreeSet<TopicPartitionRef<'a>>>) -> Option<i32> {
        let price = |p: &i32| {
            let back = taker.is_some_and(|before| before.contains(&(topic, *p)));
            (!back, self.before.contains(&(topic, *p)), *p)
        };
        self.holds.get(topic)?.iter().copied().min_by_key(price)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = BTreeMap<String, BTreeSet<TopicPartition>>;

    fn granted(members: &[Subscription], counts: &BTreeMap<Arc<str>, i32>) -> Owned {
        assign(members, counts).into_iter().map(|(id, list)| (id, list.into_iter().collect())).collect()
    }

    /// What every member says when it joins for the next round.
    fn rejoin(members: &mut [Subscription], owned: &Owned) {
        let generation = members.iter().map(|m| m.generation).max().unwrap_or(-1) + 1;
        for member in members {
            member.generation = generation;
            member.owned = owned[&member.member_id].iter().cloned().collect();
        }
    }

    fn member(id: usize, topics: &[usize], owned: &[(usize, i32)], generation: i32) -> Subscription {
        Subscription {
            member_id: format!("m{id}"),
            instance_id: None,
            topics: topics.iter().map(|t| format!("t{t}")).collect(),
            owned: owned.iter().map(|(t, p)| TopicPartition::new(format!("t{t}"), *p)).collect(),
            generation,
        }
    }

    fn counts(list: &[i32]) -> BTreeMap<Arc<str>, i32> {
        list.iter().enumerate().map(|(t, count)| (format!("t{t}").into(), *count)).collect()
    }

    fn shown(owned: &Owned) -> Vec<String> {
        let line = |list: &BTreeSet<TopicPartition>| list.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(" ");
        owned.iter().map(|(id, list)| format!("{id}: {}", line(list))).collect()
    }

    #[test]
    fn a_new_member_gets_its_partitions_in_the_second_round() {
        let mut members = vec![member(0, &[0], &[(0, 0), (0, 1), (0, 2), (0, 3)], 4), member(1, &[0], &[], -1)];
        let first = granted(&members, &counts(&[4]));
        assert_eq!(shown(&first), ["m0: t0-2 t0-3", "m1: "]);
        rejoin(&mut members, &first);
        assert_eq!(shown(&granted(&members, &counts(&[4]))), ["m0: t0-2 t0-3", "m1: t0-0 t0-1"]);
    }

    #[test]
    fn an_old_generations_claim_neither_counts_nor_is_passed_over() {
        let members = [member(0, &[0], &[(0, 0)], 3), member(1, &[0], &[(0, 0), (0, 1)], 5)];
        // m1 owns both, so that one goes to m0, but m0 must not read on from where it believes to be.
        assert_eq!(shown(&granted(&members, &counts(&[2]))), ["m0: ", "m1: t0-1"]);
        let equals = [member(0, &[0], &[(0, 0)], 5), member(1, &[0], &[(0, 0), (0, 1)], 5)];
        assert_eq!(shown(&granted(&equals, &counts(&[2]))), ["m0: ", "m1: t0-1"]);
    }

    #[test]
    fn a_chain_of_moves_evens_out_what_no_single_move_does() {
        let (wide, narrow) = (&[0, 1][..], &[0][..]);
        let members = [member(0, narrow, &[(0, 0), (0, 1), (0, 2)], 1), member(1, wide, &[(1, 0), (1, 1)], 1)];
        let more = [members.as_slice(), &[member(2, &[1], &[], -1)]].concat();
        // m0 can give to m1 alone, and m1 to m2.
        assert_eq!(shown(&granted(&more, &counts(&[3, 2]))), ["m0: t0-1 t0-2", "m1: t1-1", "m2: "]);
    }

    #[test]
    fn what_is_gone_or_not_wanted_any_more_is_nobodys() {
        let members = [member(0, &[0], &[(0, 9), (1, 0), (7, 0)], 1), member(1, &[1], &[], 1)];
        assert_eq!(shown(&granted(&members, &counts(&[1, 1, 5]))), ["m0: t0-0", "m1: "]);
        assert!(assign(&[], &counts(&[1])).is_empty());
    }

    /// Members with topics they want, partitions they say they own, and the generation of that.
    fn groups() -> impl Strategy<Value = (Vec<Subscription>, BTreeMap<Arc<str>, i32>)> {
        let topic = || 0usize..4;
        let wants = proptest::collection::btree_set(topic(), 0..4);
        let owned = proptest::collection::btree_set((topic(), 0..7i32), 0..9);
        let members = proptest::collection::vec((wants, owned, -1..3i32), 1..7);
        (members, proptest::collection::vec(0..7i32, 4), any::<bool>()).prop_map(|(list, sizes, equal)| {
            let everything: Vec<_> = (0..4).collect();
            let subscription = |(id, (wants, owned, generation)): (usize, (BTreeSet<_>, BTreeSet<_>, i32))| {
                let wants: Vec<_> = if equal { everything.clone() } else { wants.into_iter().collect() };
                member(id, &wants, &owned.into_iter().collect::<Vec<_>>(), generation)
            };
            (list.into_iter().enumerate().map(subscription).collect(), counts(&sizes))
        })
    }

    /// Whether some chain of moves would even out two members, by trying all.
    fn can_be_evened(members: &[Subscription], owned: &Owned) -> bool {
        let reachable = |from: &str| {
            let (mut seen, mut todo) = (BTreeSet::from([from.to_owned()]), vec![from.to_owned()]);
            while let Some(id) = todo.pop() {
                for p in &owned[&id] {
                    let takers = members.iter().filter(|m| m.topics.contains(&*p.topic));
                    todo.extend(takers.map(|m| m.member_id.clone()).filter(|m| seen.insert(m.clone())));
                }
            }
            seen
        };
        owned.iter().any(|(id, list)| reachable(id).iter().any(|to| owned[to].len() + 2 <= list.len()))
    }

    /// How many partitions could stay, at most, with equal subscriptions and a perfect balance.
    fn most_that_can_stay(members: &[Subscription], counts: &BTreeMap<Arc<str>, i32>) -> usize {
        let wanted = |topic: &str| members[0].topics.contains(topic);
        let total: usize = counts.iter().filter(|(topic, _)| wanted(topic)).map(|(_, c)| *c as usize).sum();
        let (each, extra) = (total / members.len(), total % members.len());
        let claims = claims(members);
        let exists = |(topic, p): &TopicPartitionRef<'_>| wanted(topic) && (0..counts[*topic]).contains(p);
        let owned = |m: &Subscription| {
            claims.iter().filter(|(p, c)| exists(p) && c.owner == Some(m.member_id.as_str())).count()
        };
        let owned: Vec<_> = members.iter().map(owned).collect();
        owned.iter().map(|n| *n.min(&each)).sum::<usize>() + extra.min(owned.iter().filter(|n| **n > each).count())
    }

    proptest! {
        #[test]
        fn rounds_end_balanced_and_nobody_reads_what_another_reads((mut members, counts) in groups()) {
            let equal = members.iter().all(|m| m.topics == members[0].topics);
            let wanted: usize = counts
                .iter()
                .filter(|(topic, _)| members.iter().any(|m| m.topics.contains(&***topic)))
                .map(|(_, count)| *count as usize)
                .sum();
            let stays = equal.then(|| most_that_can_stay(&members, &counts));
            for round in 1.. {
                let now = granted(&members, &counts);
                let all: Vec<_> = now.values().flatten().collect();
                prop_assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "given twice");
                for member in &members {
                    for p in &now[&member.member_id] {
                        prop_assert!(member.topics.contains(&*p.topic) && p.partition < counts[&p.topic]);
                        let others = members.iter().filter(|m| m.member_id != member.member_id);
                        let added = !member.owned.contains(p);
                        prop_assert!(!added || others.clone().all(|m| !m.owned.contains(p)), "{p} is still read");
                    }
                }
                let kept = |m: &Subscription| m.owned.iter().filter(|p| now[&m.member_id].contains(*p)).count();
                if let (1, Some(stays)) = (round, stays) {
                    prop_assert_eq!(members.iter().map(kept).sum::<usize>(), stays, "more moved than had to");
                }
                let given_up = members.iter().any(|m| kept(m) < m.owned.len());
                rejoin(&mut members, &now);
                if !given_up {
                    prop_assert_eq!(all.len(), wanted, "left out");
                    prop_assert!(!can_be_evened(&members, &now), "not balanced: {:?}", now);
                    prop_assert_eq!(granted(&members, &counts), now, "not sticky");
                    break;
                }
                prop_assert!(round < if equal { 3 } else { 5 }, "no end");
            }
        }
    }
}
