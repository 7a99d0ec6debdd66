//! The next step of one member towards what it should run: it first gives up what is not its any more, then gets what
//! nobody else runs. Answers to Kafka's `CurrentAssignmentBuilder` of streams groups.
//!
//! An active task runs at one member at a time, and a process has at most one copy of a task, in whichever role: a task
//! that is still somewhere it must not be is unreleased, and the member waits for it.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Member, MemberState};
use super::tasks::{ActiveTasks, AssignedTasks, TaskId, TaskSet, Tasks, contains, epoch_of, insert, insert_active};
use super::tasks::{iter, iter_active};

/// Where tasks are now, those that are being given up included.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// The process that has the task as an active one.
    active: BTreeMap<TaskId, String>,
    /// Processes that have the task as a standby or to warm it up.
    passive: BTreeMap<TaskId, BTreeSet<String>>,
}

impl Owners {
    pub(crate) fn of<'a>(members: impl IntoIterator<Item = &'a Member>) -> Self {
        let mut owners = Self::default();
        for member in members {
            for tasks in [&member.assigned, &member.pending_revocation] {
                owners.add(&member.metadata.process_id, tasks);
            }
        }
        owners
    }

    fn add(&mut self, process: &str, tasks: &AssignedTasks) {
        for (subtopology, partition, _) in iter_active(&tasks.active) {
            self.active.insert(TaskId { subtopology: subtopology.to_owned(), partition }, process.to_owned());
        }
        for (subtopology, partition) in iter(&tasks.standby).chain(iter(&tasks.warmup)) {
            let task = TaskId { subtopology: subtopology.to_owned(), partition };
            self.passive.entry(task).or_default().insert(process.to_owned());
        }
    }

    fn has_copy(&self, task: &TaskId, process: &str) -> bool {
        self.passive.get(task).is_some_and(|processes| processes.contains(process))
    }

    fn blocks_active(&self, task: &TaskId, process: &str) -> bool {
        self.active.contains_key(task) || self.has_copy(task, process)
    }

    fn blocks_passive(&self, task: &TaskId, process: &str) -> bool {
        self.active.get(task).is_some_and(|owner| owner == process) || self.has_copy(task, process)
    }
}

/// What a member has against what it should have.
#[derive(Debug, Default)]
struct Difference {
    /// In both.
    keeps: AssignedTasks,
    /// To give up.
    gives_up: AssignedTasks,
    /// Keeps, and gets now.
    gets: AssignedTasks,
    gets_any: bool,
    /// Something that it should get is still elsewhere.
    waits: bool,
}

/// The step's inputs besides the member.
#[derive(Debug)]
pub(crate) struct Goal<'a> {
    pub(crate) epoch: i32,
    pub(crate) target: &'a Tasks,
    pub(crate) owners: &'a Owners,
    /// What the member says it runs; `None`: it did not say.
    pub(crate) owned: Option<&'a Tasks>,
}

/// The member is in a state that this version does not know: it has to join anew.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownState;

/// The member after the step; the same when it cannot move.
pub(crate) fn reconcile(member: &Member, goal: &Goal<'_>) -> Result<Member, UnknownState> {
    match member.state {
        MemberState::Stable if member.epoch == goal.epoch => Ok(member.clone()),
        MemberState::Stable | MemberState::UnreleasedTasks => Ok(next(member, member.epoch, goal)),
        MemberState::UnrevokedTasks => match goal.owned {
            Some(owned) if !owned.contains_any(&member.pending_revocation) => {
                Ok(next(member, member.epoch.saturating_add(1), goal))
            }
            _ => Ok(member.clone()),
        },
        MemberState::Unknown => match goal.owned {
            Some(owned) if owned.is_empty() => Ok(next(member, goal.epoch, goal)),
            _ => Err(UnknownState),
        },
    }
}

fn next(member: &Member, epoch: i32, goal: &Goal<'_>) -> Member {
    let difference = difference(member, goal);
    let must_give_up =
        !difference.gives_up.is_empty() && goal.owned.is_none_or(|owned| owned.contains_any(&difference.gives_up));
    let mut next = Member { previous_epoch: member.epoch, ..member.clone() };
    if must_give_up {
        next.epoch = epoch;
        next.state = MemberState::UnrevokedTasks;
        next.assigned = difference.keeps;
        next.pending_revocation = difference.gives_up;
    } else {
        next.epoch = goal.epoch;
        next.state = if difference.waits { MemberState::UnreleasedTasks } else { MemberState::Stable };
        next.assigned = if difference.gets_any { difference.gets } else { difference.keeps };
        next.pending_revocation = AssignedTasks::default();
    }
    next
}

fn difference(member: &Member, goal: &Goal<'_>) -> Difference {
    let mut difference = Difference::default();
    let process = member.metadata.process_id.as_str();
    for (subtopology, partition, epoch) in iter_active(&member.assigned.active) {
        let kept = contains(&goal.target.active, subtopology, partition);
        let to = if kept { &mut difference.keeps } else { &mut difference.gives_up };
        insert_active(&mut to.active, subtopology, partition, epoch);
    }
    split(&member.assigned.standby, &goal.target.standby, &mut difference, |tasks| &mut tasks.standby);
    split(&member.assigned.warmup, &goal.target.warmup, &mut difference, |tasks| &mut tasks.warmup);

    difference.gets = difference.keeps.clone();
    add_active(&goal.target.active, &member.assigned.active, goal, process, &mut difference);
    add_passive(&goal.target.standby, &member.assigned.standby, goal, process, &mut difference, |t| &mut t.standby);
    add_passive(&goal.target.warmup, &member.assigned.warmup, goal, process, &mut difference, |t| &mut t.warmup);
    difference
}

fn split(
    has: &TaskSet,
    should: &TaskSet,
    difference: &mut Difference,
    role: impl Fn(&mut AssignedTasks) -> &mut TaskSet,
) {
    for (subtopology, partition) in iter(has) {
        let kept = contains(should, subtopology, partition);
        let to = if kept { &mut difference.keeps } else { &mut difference.gives_up };
        insert(role(to), subtopology, partition);
    }
}

fn add_active(should: &TaskSet, has: &ActiveTasks, goal: &Goal<'_>, process: &str, difference: &mut Difference) {
    for (subtopology, partition) in iter(should) {
        if epoch_of(has, subtopology, partition).is_some() {
            continue;
        }
        let task = TaskId { subtopology: subtopology.to_owned(), partition };
        if goal.owners.blocks_active(&task, process) {
            difference.waits = true;
        } else {
            insert_active(&mut difference.gets.active, subtopology, partition, goal.epoch);
            difference.gets_any = true;
        }
    }
}

fn add_passive(
    should: &TaskSet,
    has: &TaskSet,
    goal: &Goal<'_>,
    process: &str,
    difference: &mut Difference,
    role: impl Fn(&mut AssignedTasks) -> &mut TaskSet,
) {
    for (subtopology, partition) in iter(should) {
        if contains(has, subtopology, partition) {
            continue;
        }
        let task = TaskId { subtopology: subtopology.to_owned(), partition };
        if goal.owners.blocks_passive(&task, process) {
            difference.waits = true;
        } else {
            insert(role(&mut difference.gets), subtopology, partition);
            difference.gets_any = true;
        }
    }
}
