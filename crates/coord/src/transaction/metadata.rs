//! One transactional id's state, and what each operation makes of it. Pure: a transition takes the state in force and
//! gives the one that will be in force when its record is in the log. Answers to Kafka's `TransactionMetadata`,
//! `TransactionState` and KIP-890.
//!
//! Invariants: an epoch never goes down under one producer id; `i16::MAX` is never given to a client, so that whoever
//! uses a producer id can always be fenced; a new producer id begins with epoch 0.

use super::partitions::Partitions;

pub(super) const NO_PRODUCER_ID: i64 = -1;
pub(super) const NO_EPOCH: i16 = -1;
/// Of a transaction that has not begun.
const NO_TIMESTAMP: i64 = -1;
/// From this transaction version on each end of a transaction raises the epoch.
pub(super) const EPOCH_BUMP_FROM: i16 = 2;
/// The timeout of two-phase commit: none.
pub(super) const TWO_PHASE_TIMEOUT_MS: i32 = i32::MAX;
/// The last epoch that a client is given: the next one can still fence it.
pub(super) const LAST_EPOCH: i16 = i16::MAX - 1;

/// The states by their number in records. Dead and PrepareEpochFence pass within one step of the shard: they are never
/// written, but a filter of ListTransactions may name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
    Dead = 6,
    PrepareEpochFence = 7,
}

impl State {
    const ALL: [State; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    pub(super) fn id(self) -> i8 {
        self as i8
    }

    pub(super) fn from_id(id: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.id() == id)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The outcome is decided, the markers are being written.
    pub(super) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// No transaction is open: the id may expire.
    pub(super) fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) commit: bool,
    /// Of the client; of the cluster when it is the coordinator that aborts.
    pub(super) transaction_version: i16,
    /// The id to go on with when the epochs of the present one are used up, else [`NO_PRODUCER_ID`].
    pub(super) next_producer_id: i64,
    /// It is the coordinator that aborts, to shut out whoever made the transaction.
    pub(super) fence: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) producer_id: i64,
    /// The id before the last transition: tells a retry across a change of id.
    pub(super) previous_producer_id: i64,
    /// The id from the end of the transaction on, when the epochs of the present one are used up.
    pub(super) next_producer_id: i64,
    pub(super) next_producer_epoch: i16,
    pub(super) producer_epoch: i16,
    /// The epoch before the last one that the same client was given; not in the log.
    pub(super) last_producer_epoch: i16,
    pub(super) timeout_ms: i32,
    pub(super) state: State,
    pub(super) partitions: Partitions,
    pub(super) start_ms: i64,
    pub(super) last_update_ms: i64,
    /// The transaction version of the client that made the present transaction.
    pub(super) client_version: i16,
}

impl Metadata {
    /// Before the first InitProducerId.
    pub(super) fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            next_producer_epoch: NO_EPOCH,
            producer_epoch: NO_EPOCH,
            last_producer_epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            start_ms: NO_TIMESTAMP,
            last_update_ms: now_ms,
            client_version: 0,
        }
    }

    pub(super) fn is_epoch_exhausted(&self) -> bool {
        self.producer_epoch >= LAST_EPOCH
    }

    /// Fenced when its epochs had run out: no client was ever given this epoch, and none will be.
    pub(super) fn is_retired(&self) -> bool {
        self.producer_epoch == i16::MAX && !self.state.is_prepared()
    }

    /// Whether a producer whose last epoch this was may go on under a new producer id.
    pub(super) fn may_rotate(&self, epoch: i16) -> bool {
        epoch == self.producer_epoch || (self.is_retired() && epoch == self.last_producer_epoch)
    }

    /// Whether the end of the transaction needs a new producer id.
    pub(super) fn end_needs_producer_id(&self, transaction_version: i16) -> bool {
        transaction_version >= EPOCH_BUMP_FROM && self.is_epoch_exhausted()
    }

    fn next(&self, state: State) -> Self {
        Self { state, previous_producer_id: self.producer_id, ..self.clone() }
    }

    fn initialized(&self, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            timeout_ms,
            partitions: Partitions::new(),
            start_ms: NO_TIMESTAMP,
            last_update_ms: now_ms,
            ..self.next(State::Empty)
        }
    }

    /// A producer begins, or goes on after an error: the epoch goes up, unless the request repeats one that was carried
    /// out. `None`: the producer is fenced, or there is no epoch left.
    pub(super) fn bumped(&self, expected_epoch: Option<i16>, timeout_ms: i32, now_ms: i64) -> Option<Self> {
        let (producer_epoch, last_producer_epoch) = match expected_epoch {
            None => (self.producer_epoch.checked_add(1)?, NO_EPOCH),
            Some(epoch) if self.producer_epoch == NO_EPOCH || epoch == self.producer_epoch => {
                (self.producer_epoch.checked_add(1)?, self.producer_epoch)
            }
            Some(epoch) if epoch == self.last_producer_epoch => (self.producer_epoch, self.last_producer_epoch),
            Some(_) => return None,
        };
        Some(Self { producer_epoch, last_producer_epoch, ..self.initialized(timeout_ms, now_ms) })
    }

    /// The epochs of the producer id are used up.
    pub(super) fn rotated(&self, producer_id: i64, keep_last: bool, timeout_ms: i32, now_ms: i64) -> Self {
        let last_producer_epoch = if keep_last { self.producer_epoch } else { NO_EPOCH };
        Self { producer_id, producer_epoch: 0, last_producer_epoch, ..self.initialized(timeout_ms, now_ms) }
    }

    pub(super) fn with_partitions(&self, partitions: Partitions, client_version: i16, now_ms: i64) -> Self {
        let start_ms = if self.state == State::Ongoing { self.start_ms } else { now_ms };
        Self { partitions, start_ms, last_update_ms: now_ms, client_version, ..self.next(State::Ongoing) }
    }

    /// The outcome is decided.
    pub(super) fn prepared(&self, end: End, now_ms: i64) -> Self {
        let state = if end.commit { State::PrepareCommit } else { State::PrepareAbort };
        // A log that was tampered with may be at the last number: then there is no way up, and the markers are written
        // in the old manner.
        let (producer_epoch, bumped) = match self.producer_epoch.checked_add(1) {
            Some(epoch) => (epoch, true),
            None => (self.producer_epoch, false),
        };
        let bumps = end.transaction_version >= EPOCH_BUMP_FROM && bumped;
        let (producer_epoch, last_producer_epoch) = if bumps {
            (producer_epoch, self.producer_epoch)
        } else if end.fence {
            (producer_epoch, NO_EPOCH)
        } else {
            (self.producer_epoch, self.last_producer_epoch)
        };
        Self {
            producer_epoch,
            last_producer_epoch,
            next_producer_id: end.next_producer_id,
            // What is aborted before it began began now.
            start_ms: if self.state == State::Ongoing { self.start_ms } else { now_ms },
            last_update_ms: now_ms,
            client_version: if bumps { end.transaction_version } else { 0 },
            ..self.next(state)
        }
    }

    /// The markers are written.
    pub(super) fn completed(&self, now_ms: i64) -> Self {
        let state = if self.state == State::PrepareCommit { State::CompleteCommit } else { State::CompleteAbort };
        let (producer_id, producer_epoch) = self.after_completion();
        Self {
            producer_id,
            producer_epoch,
            next_producer_id: NO_PRODUCER_ID,
            next_producer_epoch: NO_EPOCH,
            partitions: Partitions::new(),
            last_update_ms: now_ms,
            ..self.next(state)
        }
    }

    /// What the producer goes on with once the transaction is over.
    pub(super) fn after_completion(&self) -> (i64, i16) {
        if self.client_version >= EPOCH_BUMP_FROM && self.next_producer_id != NO_PRODUCER_ID {
            (self.next_producer_id, self.next_producer_epoch.max(0))
        } else {
            (self.producer_id, self.producer_epoch)
        }
    }

    /// Open for longer than its producer allowed. Two-phase commit has no end of its own.
    pub(super) fn is_timed_out(&self, now_ms: i64) -> bool {
        self.state == State::Ongoing
            && self.timeout_ms != TWO_PHASE_TIMEOUT_MS
            && self.start_ms.saturating_add(i64::from(self.timeout_ms)) < now_ms
    }

    pub(super) fn is_expired(&self, expiration_ms: i64, now_ms: i64) -> bool {
        self.state.is_idle() && self.last_update_ms <= now_ms.saturating_sub(expiration_ms)
    }
}
