//! What one step of the shard collects on its way: it becomes the [`Effects`](crate::Effects) and what is to be done when
//! the records are committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;

use crate::classic::Group;
use crate::consumer;
use crate::effects::{BatchKind, CoordinatorRecord, GroupAction, Released, RequestToken, Response, TimerKey, TimerOp};
use crate::offsets::OffsetAndMetadata;
use crate::streams;

/// What one record changes. Offsets change once it is committed, modern groups as soon as it is in the log. Classic
/// groups run ahead of the log and change by [`Done`].
#[derive(Debug)]
pub(crate) enum Change {
    Offset {
        group: Arc<str>,
        topic: Arc<str>,
        partition: i32,
        offset: OffsetAndMetadata,
        /// Of the transaction that it is part of.
        producer_id: Option<i64>,
    },
    OffsetTombstone {
        group: Arc<str>,
        topic: Arc<str>,
        partition: i32,
    },
    /// The end of a producer's transaction.
    EndTransaction {
        producer_id: i64,
        commit: bool,
    },
    /// Of a classic group, or of a modern one after it was applied.
    Group,
    /// A modern group takes the place of this classic one, which is gone when the record is in the log.
    ClassicGone {
        group: Arc<str>,
    },
    /// This classic group takes the place of a modern one.
    ClassicBack(Box<Group>),
    Consumer(consumer::GroupRecord),
    Streams(streams::GroupRecord),
    Share(crate::share::GroupRecord),
}

/// What waits for the fate of the records of one append.
#[derive(Debug)]
pub(crate) enum Done {
    /// A reply that says what the records say.
    Respond { token: RequestToken, response: Response },
    /// The group was created by a JoinGroup: it lives in memory already, its first record is on the way.
    Created { group: GroupRef },
    /// The last member left: the group is empty already, whatever becomes of the record.
    Emptied { group: GroupRef },
    /// The leader's assignment for one generation.
    Assigned { group: GroupRef, generation: i32, assignments: BTreeMap<Arc<str>, Bytes> },
    /// A static member came back under a new member id, with no rebalance.
    Replaced { group: GroupRef, generation: i32, replaced: ReplacedMember },
    /// The group was deleted: it is gone already, and comes back if the tombstone does not get written.
    Deleted { group: Box<Group> },
}

/// One life of a group: a group that was deleted and created again is another.
#[derive(Clone, Debug)]
pub(crate) struct GroupRef {
    pub(crate) id: Arc<str>,
    pub(crate) incarnation: u64,
}

/// How to go back to the old id when the new one cannot be written.
#[derive(Debug)]
pub(crate) struct ReplacedMember {
    pub(crate) old_id: Arc<str>,
    pub(crate) new_id: Arc<str>,
    pub(crate) old_protocols: Vec<JoinGroupRequestProtocol>,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) old_session_timeout_ms: i32,
    /// Who led the group before: clients below JoinGroup v9 must not learn that it is they, or they would assign anew.
    pub(crate) old_leader: String,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) records: Vec<CoordinatorRecord>,
    pub(crate) batch: BatchKind,
    /// One for each record.
    pub(crate) changes: Vec<Change>,
    pub(crate) done: Vec<Done>,
    pub(crate) released: Vec<Released>,
    pub(crate) timers: Vec<TimerOp>,
    pub(crate) actions: Vec<GroupAction>,
}

impl Outbox {
    /// Whether there is something to append.
    pub(crate) fn writes(&self) -> bool {
        !self.records.is_empty() || matches!(self.batch, BatchKind::EndMarker { .. })
    }

    pub(crate) fn release(&mut self, token: RequestToken, response: Response) {
        self.released.push(Released { token, response });
    }

    pub(crate) fn write(&mut self, record: CoordinatorRecord, change: Change) {
        self.records.push(record);
        self.changes.push(change);
    }

    pub(crate) fn set_timer(&mut self, key: TimerKey, deadline_ms: i64) {
        self.timers.push(TimerOp::Set { key, deadline_ms });
    }

    pub(crate) fn cancel_timer(&mut self, key: TimerKey) {
        self.timers.push(TimerOp::Cancel { key });
    }
}
