//! Spreads tasks over members: a task stays where it was as long as that keeps the load even, then goes where its state is,
//! then to the least loaded process. Standby copies go to other processes than the active task. Answers to Kafka's
//! `StickyTaskAssignor`; ties that Kafka leaves to the order of a hash map go by name.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tasks::{TaskId, Tasks, insert, iter};

/// A subtopology as the assignor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubtopologySpec {
    pub(crate) tasks: i32,
    /// Has changelogs, and so may have standby tasks.
    pub(crate) stateful: bool,
}

/// A member as the assignor sees it.
#[derive(Clone, Debug)]
pub(crate) struct MemberSpec<'a> {
    pub(crate) process_id: &'a str,
    /// Its last target assignment.
    pub(crate) previous: &'a Tasks,
}

/// The new target assignment; empty when there are no members. Every active task is given out.
pub(crate) fn assign<'a>(
    members: &BTreeMap<Arc<str>, MemberSpec<'a>>,
    topology: &'a BTreeMap<String, SubtopologySpec>,
    standby_replicas: usize,
) -> BTreeMap<Arc<str>, Tasks> {
    if members.is_empty() {
        return BTreeMap::new();
    }
    let mut state = State::new(members, topology, standby_replicas);
    state.assign_active(task_ids(topology, false));
    if standby_replicas > 0 {
        state.assign_standby(task_ids(topology, true));
    }
    state.processes.into_values().flat_map(|process| process.assigned).collect()
}

fn task_ids(topology: &BTreeMap<String, SubtopologySpec>, stateful_only: bool) -> Vec<TaskId> {
    let chosen = topology.iter().filter(|(_, spec)| spec.stateful || !stateful_only);
    chosen
        .flat_map(|(id, spec)| (0..spec.tasks).map(|partition| TaskId { subtopology: id.clone(), partition }))
        .collect()
}

fn by_partition(a: &TaskId, b: &TaskId) -> Ordering {
    (a.partition, &a.subtopology).cmp(&(b.partition, &b.subtopology))
}

/// A member with its process.
#[derive(Clone, Debug)]
struct Holder<'a> {
    process: &'a str,
    member: Arc<str>,
}

#[derive(Debug, Default)]
struct Process {
    assigned: BTreeMap<Arc<str>, Tasks>,
    counts: BTreeMap<Arc<str>, usize>,
    all: BTreeSet<TaskId>,
    tasks: usize,
}

/// A quota: tasks still to give out, and members that can still take some.
#[derive(Debug)]
struct Quota {
    tasks: usize,
    members: usize,
    per_member: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        Self { tasks, members, per_member: tasks.div_ceil(members.max(1)) }
    }

    /// A member has `count` tasks now: once it is full, the others share the rest.
    fn taken(&mut self, count: usize) {
        if count == self.per_member {
            self.members = self.members.saturating_sub(1);
            self.tasks = self.tasks.saturating_sub(count);
            self.per_member = if self.members == 0 { 0 } else { self.tasks.div_ceil(self.members) };
        }
    }
}

impl Process {
    /// Tasks per member: compared as fractions, without rounding.
    fn lighter_than(&self, other: &Process) -> bool {
        self.tasks.saturating_mul(other.counts.len()) < other.tasks.saturating_mul(self.counts.len())
    }

    fn count(&self, member: &str) -> usize {
        self.counts.get(member).copied().unwrap_or(0)
    }

    /// How many tasks the member has then.
    fn add(&mut self, member: &Arc<str>, task: &TaskId, active: bool) -> usize {
        self.tasks += 1;
        self.all.insert(task.clone());
        let tasks = self.assigned.entry(member.clone()).or_default();
        insert(if active { &mut tasks.active } else { &mut tasks.standby }, &task.subtopology, task.partition);
        let count = self.counts.entry(member.clone()).or_insert(0);
        *count += 1;
        *count
    }

    fn least_loaded_member(&self) -> Option<Arc<str>> {
        self.counts.iter().min_by_key(|(_, count)| **count).map(|(member, _)| member.clone())
    }
}

struct State<'a> {
    processes: BTreeMap<&'a str, Process>,
    previous_active: BTreeMap<TaskId, Holder<'a>>,
    previous_standby: BTreeMap<TaskId, Vec<Holder<'a>>>,
    active: Quota,
    total: Quota,
    standby_replicas: usize,
}

impl<'a> State<'a> {
    fn new(
        members: &BTreeMap<Arc<str>, MemberSpec<'a>>,
        topology: &BTreeMap<String, SubtopologySpec>,
        standby_replicas: usize,
    ) -> Self {
        let count = |spec: &SubtopologySpec| usize::try_from(spec.tasks).unwrap_or(0);
        let active: usize = topology.values().map(count).sum();
        let copies = |spec: &SubtopologySpec| if spec.stateful { count(spec) * standby_replicas } else { 0 };
        let standby: usize = topology.values().map(copies).sum();
        let mut state = Self {
            processes: BTreeMap::new(),
            previous_active: BTreeMap::new(),
            previous_standby: BTreeMap::new(),
            active: Quota::new(active, members.len()),
            total: Quota::new(active + standby, members.len()),
            standby_replicas,
        };
        for (id, spec) in members {
            let process = state.processes.entry(spec.process_id).or_default();
            process.assigned.insert(id.clone(), Tasks::default());
            process.counts.insert(id.clone(), 0);
            let holder = Holder { process: spec.process_id, member: id.clone() };
            for (subtopology, partition) in iter(&spec.previous.active) {
                let task = TaskId { subtopology: subtopology.to_owned(), partition };
                state.previous_active.insert(task, holder.clone());
            }
            for (subtopology, partition) in iter(&spec.previous.standby) {
                let task = TaskId { subtopology: subtopology.to_owned(), partition };
                state.previous_standby.entry(task).or_default().push(holder.clone());
            }
        }
        state
    }

    fn give(&mut self, process: &str, member: &Arc<str>, task: &TaskId, active: bool) {
        let Some(process) = self.processes.get_mut(process) else { return };
        let count = process.add(member, task, active);
        if active {
            self.active.taken(count);
        }
        self.total.taken(count);
    }

    fn count(&self, holder: &Holder<'_>) -> usize {
        self.processes.get(holder.process).map_or(usize::MAX, |process| process.count(&holder.member))
    }

    fn assign_active(&mut self, mut tasks: Vec<TaskId>) {
        // Partitions of several subtopologies that went together stay together.
        tasks.sort_by(by_partition);
        tasks.retain(|task| {
            let holder = self.previous_active.get(task).cloned();
            !self.give_back(holder, task)
        });
        tasks.retain(|task| {
            let holder = self.previous_standby_holder(task);
            !self.give_back(holder, task)
        });
        tasks.sort();
        for task in &tasks {
            let Some((process, member)) = self.lightest(None) else { return };
            self.give(process, &member, task, true);
        }
    }

    /// To a member that knows the task, if it has room for active tasks.
    fn give_back(&mut self, holder: Option<Holder<'a>>, task: &TaskId) -> bool {
        let Some(holder) = holder.filter(|holder| self.count(holder) < self.active.per_member) else { return false };
        self.give(holder.process, &holder.member, task, true);
        true
    }

    /// The lightest process, or the lightest that has no copy of a task, and its lightest member.
    fn lightest(&self, without: Option<&TaskId>) -> Option<(&'a str, Arc<str>)> {
        let mut best: Option<(&'a str, &Process)> = None;
        for (id, process) in &self.processes {
            if without.is_some_and(|task| process.all.contains(task)) {
                continue;
            }
            if best.is_none_or(|(_, lightest)| process.lighter_than(lightest)) {
                best = Some((id, process));
            }
        }
        best.and_then(|(id, process)| process.least_loaded_member().map(|member| (id, member)))
    }

    /// Of those that had the task as a standby, the least loaded whose process has no copy yet.
    fn previous_standby_holder(&self, task: &TaskId) -> Option<Holder<'a>> {
        let free = |holder: &&Holder<'a>| self.processes.get(holder.process).is_some_and(|p| !p.all.contains(task));
        let mut best: Option<&Holder<'a>> = None;
        for holder in self.previous_standby.get(task)?.iter().filter(free) {
            let better = best.is_none_or(|best| {
                let (Some(a), Some(b)) = (self.processes.get(holder.process), self.processes.get(best.process)) else {
                    return false;
                };
                a.lighter_than(b) && self.count(holder) < self.count(best)
            });
            if better {
                best = Some(holder);
            }
        }
        best.cloned()
    }

    fn assign_standby(&mut self, mut tasks: Vec<TaskId>) {
        tasks.sort_by(|a, b| by_partition(b, a));
        let mut open: Vec<(TaskId, usize)> = Vec::new();
        for task in tasks {
            let placed = (0..self.standby_replicas).take_while(|_| self.give_standby_back(&task)).count();
            if placed < self.standby_replicas {
                open.push((task, self.standby_replicas - placed));
            }
        }
        open.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (task, copies) in open {
            for _ in 0..copies {
                // No process without a copy is left: fewer copies than asked for.
                let Some((process, member)) = self.lightest(Some(&task)) else { break };
                self.give(process, &member, &task, false);
            }
        }
    }

    /// One copy to a member that had the task, as an active or a standby one, if it has room.
    fn give_standby_back(&mut self, task: &TaskId) -> bool {
        let free = |holder: &Holder<'a>| {
            self.processes.get(holder.process).is_some_and(|p| !p.all.contains(task))
                && self.count(holder) < self.total.per_member
        };
        let active = self.previous_active.get(task).filter(|holder| free(holder)).cloned();
        let holder = active.or_else(|| self.previous_standby_holder(task).filter(free));
        let Some(holder) = holder else { return false };
        self.give(holder.process, &holder.member, task, false);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(specs: &[(&str, i32, bool)]) -> BTreeMap<String, SubtopologySpec> {
        specs
            .iter()
            .map(|(id, tasks, stateful)| ((*id).to_owned(), SubtopologySpec { tasks: *tasks, stateful: *stateful }))
            .collect()
    }

    fn run(
        members: &[(&str, &str)],
        previous: &BTreeMap<Arc<str>, Tasks>,
        specs: &[(&str, i32, bool)],
        standby: usize,
    ) -> BTreeMap<Arc<str>, Tasks> {
        let none = Tasks::default();
        let members = members.iter().map(|(member, process)| {
            let id: Arc<str> = (*member).into();
            let previous = previous.get(&id).unwrap_or(&none);
            (id, MemberSpec { process_id: process, previous })
        });
        let topology = topology(specs);
        assign(&members.collect(), &topology, standby)
    }

    fn active(assignment: &BTreeMap<Arc<str>, Tasks>, member: &str) -> usize {
        iter(&assignment[member].active).count()
    }

    #[test]
    fn tasks_are_spread_evenly_and_each_is_active_once() {
        let assignment =
            run(&[("a", "p1"), ("b", "p2"), ("c", "p3")], &BTreeMap::new(), &[("0", 4, true), ("1", 3, false)], 0);
        assert_eq!(["a", "b", "c"].map(|m| active(&assignment, m)), [3, 2, 2]);
        let all: BTreeSet<_> = assignment.values().flat_map(|t| iter(&t.active)).collect();
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn a_second_member_takes_half_and_the_first_keeps_the_rest() {
        let before = run(&[("a", "p1")], &BTreeMap::new(), &[("0", 4, true)], 0);
        let after = run(&[("a", "p1"), ("b", "p2")], &before, &[("0", 4, true)], 0);
        assert_eq!([active(&after, "a"), active(&after, "b")], [2, 2]);
        assert!(iter(&after["a"].active).all(|(s, p)| super::super::tasks::contains(&before["a"].active, s, p)));
        let back = run(&[("a", "p1")], &after, &[("0", 4, true)], 0);
        assert_eq!(active(&back, "a"), 4);
    }

    #[test]
    fn standbys_are_on_other_processes_and_take_over() {
        let members = [("a", "p1"), ("b", "p2"), ("a2", "p1")];
        let before = run(&members, &BTreeMap::new(), &[("0", 6, true), ("1", 2, false)], 1);
        let processes: BTreeMap<&str, &str> = members.into_iter().collect();
        let mut copies = 0;
        for (member, tasks) in &before {
            for (subtopology, partition) in iter(&tasks.standby) {
                copies += 1;
                assert_eq!(subtopology, "0", "only stateful subtopologies have standby tasks");
                let owner =
                    before.iter().find(|(_, t)| super::super::tasks::contains(&t.active, subtopology, partition));
                assert_ne!(processes[&**owner.unwrap().0], processes[&**member]);
            }
        }
        assert_eq!(copies, 6);
        // b is gone: what it ran goes where a copy was.
        let after = run(&[("a", "p1"), ("a2", "p1")], &before, &[("0", 6, true), ("1", 2, false)], 1);
        assert_eq!(after.values().map(|t| iter(&t.active).count()).sum::<usize>(), 8);
        assert!(after.values().all(|t| t.standby.is_empty()), "one process alone has no standbys");
    }
}
