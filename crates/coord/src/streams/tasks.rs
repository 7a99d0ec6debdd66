//! Tasks: a subtopology and a partition. Who runs which, as a target, and as assigned, with the epochs since when. Answers
//! to Kafka's `TaskId`, `TasksTuple` and `TasksTupleWithEpochs`.

use std::collections::{BTreeMap, BTreeSet};

/// One task. Ordered by subtopology, then by partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId {
    pub(crate) subtopology: String,
    pub(crate) partition: i32,
}

/// Tasks by subtopology; no subtopology is without tasks.
pub(crate) type TaskSet = BTreeMap<String, BTreeSet<i32>>;

/// Active tasks by subtopology, with the member epoch at which each was assigned.
pub(crate) type ActiveTasks = BTreeMap<String, BTreeMap<i32, i32>>;

/// What a member should run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) active: TaskSet,
    pub(crate) standby: TaskSet,
    pub(crate) warmup: TaskSet,
}

/// What a member runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AssignedTasks {
    pub(crate) active: ActiveTasks,
    pub(crate) standby: TaskSet,
    pub(crate) warmup: TaskSet,
}

pub(crate) fn insert(set: &mut TaskSet, subtopology: &str, partition: i32) {
    match set.get_mut(subtopology) {
        Some(partitions) => {
            partitions.insert(partition);
        }
        None => {
            set.insert(subtopology.to_owned(), BTreeSet::from([partition]));
        }
    }
}

pub(crate) fn insert_active(set: &mut ActiveTasks, subtopology: &str, partition: i32, epoch: i32) {
    match set.get_mut(subtopology) {
        Some(partitions) => {
            partitions.insert(partition, epoch);
        }
        None => {
            set.insert(subtopology.to_owned(), BTreeMap::from([(partition, epoch)]));
        }
    }
}

pub(crate) fn contains(set: &TaskSet, subtopology: &str, partition: i32) -> bool {
    set.get(subtopology).is_some_and(|partitions| partitions.contains(&partition))
}

pub(crate) fn epoch_of(set: &ActiveTasks, subtopology: &str, partition: i32) -> Option<i32> {
    set.get(subtopology).and_then(|partitions| partitions.get(&partition)).copied()
}

/// All tasks of a set, in order.
pub(crate) fn iter(set: &TaskSet) -> impl Iterator<Item = (&str, i32)> {
    set.iter().flat_map(|(subtopology, partitions)| partitions.iter().map(|p| (subtopology.as_str(), *p)))
}

/// All active tasks with their epochs, in order.
pub(crate) fn iter_active(set: &ActiveTasks) -> impl Iterator<Item = (&str, i32, i32)> {
    set.iter().flat_map(|(subtopology, partitions)| partitions.iter().map(|(p, e)| (subtopology.as_str(), *p, *e)))
}

fn overlap(a: &TaskSet, b: &TaskSet) -> bool {
    iter(b).any(|(subtopology, partition)| contains(a, subtopology, partition))
}

/// Without the epochs.
pub(crate) fn plain(active: &ActiveTasks) -> TaskSet {
    active.iter().map(|(subtopology, partitions)| (subtopology.clone(), partitions.keys().copied().collect())).collect()
}

impl AssignedTasks {
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }
}

impl Tasks {
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Whether any task of the other is here in the same role.
    pub(crate) fn contains_any(&self, other: &AssignedTasks) -> bool {
        iter_active(&other.active).any(|(subtopology, partition, _)| contains(&self.active, subtopology, partition))
            || overlap(&self.standby, &other.standby)
            || overlap(&self.warmup, &other.warmup)
    }
}
