//! One shard: the transactional ids of one partition, and what is being written about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::limits;
use taccola_wire::error::ErrorCode;

use super::config::TransactionConfig;
use super::effects::{Markers, TransactionAction, TransactionEffects, TransactionResponse, TransactionTimerKey};
use super::metadata::{EPOCH_BUMP_FROM, Metadata, State};
use super::partitions::Partitions;
use super::records;
use crate::cluster_image::ClusterImage;
use crate::effects::{AppendId, CoordinatorRecord, Effects, Released, Reply, RequestToken, TimerOp};

/// The feature whose level says how states are written, and how the coordinator itself ends transactions.
const FEATURE: &str = "transaction.version";

#[derive(Debug)]
pub struct TransactionShard {
    pub(super) config: TransactionConfig,
    pub(super) image: Arc<dyn ClusterImage>,
    /// The coordinator's epoch, which markers carry.
    pub(super) leader_epoch: i32,
    pub(super) transactions: BTreeMap<Arc<str>, Transaction>,
    /// The ids whose state is Ongoing.
    pub(super) ongoing: BTreeSet<Arc<str>>,
    /// Of all ids together.
    id_bytes: usize,
    pub(super) appends: BTreeMap<AppendId, Vec<Step>>,
    next_append: u64,
    pub(super) abort_timer: bool,
    pub(super) expiration_timer: bool,
}

/// One transactional id.
#[derive(Debug)]
pub(super) struct Transaction {
    /// What the log says.
    pub(super) metadata: Metadata,
    /// Where it says so.
    pub(super) offset: i64,
    /// The append that is to change it.
    pub(super) pending: Option<AppendId>,
    /// All markers are written; that is still to be recorded.
    pub(super) markers_written: bool,
    /// The outcome is decided, and the next transaction is to begin.
    pub(super) waiting: Option<WaitingAdd>,
}

/// The first partitions of the next transaction: they wait a while for the end of this one.
#[derive(Debug)]
pub(super) struct WaitingAdd {
    pub(super) token: RequestToken,
    pub(super) response: TransactionResponse,
    pub(super) partitions: Partitions,
    pub(super) client_version: i16,
    pub(super) deadline_ms: i64,
}

/// What one record changes, and who waits for it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: Arc<str>,
    pub(super) change: Change,
    pub(super) waiting: Option<(RequestToken, TransactionResponse)>,
}

#[derive(Debug)]
pub(super) enum Change {
    To(Box<Metadata>),
    Remove,
    /// In force already.
    Done,
}

/// What one call of the shard collects.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) records: Vec<CoordinatorRecord>,
    pub(super) steps: Vec<Step>,
    pub(super) released: Vec<Released<TransactionResponse>>,
    pub(super) timers: Vec<TimerOp<TransactionTimerKey>>,
    pub(super) actions: Vec<TransactionAction>,
}

impl TransactionShard {
    pub fn new(config: TransactionConfig, image: Arc<dyn ClusterImage>, leader_epoch: i32) -> Self {
        Self {
            config,
            image,
            leader_epoch,
            transactions: BTreeMap::new(),
            ongoing: BTreeSet::new(),
            id_bytes: 0,
            appends: BTreeMap::new(),
            next_append: 0,
            abort_timer: false,
            expiration_timer: false,
        }
    }

    /// The cluster's `transaction.version`.
    pub(super) fn transaction_version(&self) -> i16 {
        self.image.feature_level(FEATURE)
    }

    /// The call's end: its records get an id, and the ids that they are about are in transition.
    pub(super) fn finish<R>(&mut self, now_ms: i64, response: Reply<R>, mut out: Out) -> TransactionEffects<R> {
        let append = (!out.records.is_empty()).then(|| {
            self.next_append += 1;
            let append = AppendId(self.next_append);
            for step in &out.steps {
                if let Some(transaction) = self.transactions.get_mut(&step.id) {
                    transaction.pending = Some(append);
                }
            }
            self.appends.insert(append, out.steps);
            append
        });
        self.set_timers(now_ms, &mut out.timers);
        Effects {
            records: out.records,
            batch: Default::default(),
            append,
            response,
            released: out.released,
            timers: out.timers,
            actions: out.actions,
        }
    }

    /// Both looks go on as long as there is something to look at.
    fn set_timers(&mut self, now_ms: i64, timers: &mut Vec<TimerOp<TransactionTimerKey>>) {
        if !self.abort_timer && !self.ongoing.is_empty() {
            self.abort_timer = true;
            let deadline_ms = now_ms.saturating_add(self.config.abort_interval_ms);
            timers.push(TimerOp::Set { key: TransactionTimerKey::AbortTimedOut, deadline_ms });
        }
        if !self.expiration_timer && !self.transactions.is_empty() {
            self.expiration_timer = true;
            let deadline_ms = now_ms.saturating_add(self.config.expiration_interval_ms);
            timers.push(TimerOp::Set { key: TransactionTimerKey::ExpireIds, deadline_ms });
        }
    }

    /// Writes the id's next state; `waiting` is answered when it is committed.
    pub(super) fn write(
        &self,
        id: &Arc<str>,
        next: Metadata,
        waiting: Option<(RequestToken, TransactionResponse)>,
        out: &mut Out,
    ) -> Result<(), ErrorCode> {
        // A state that no record can hold: the topic's names come out of requests, so that this is a request's fault.
        let record =
            records::state(id, &next, self.transaction_version()).map_err(|_| ErrorCode::UnknownServerError)?;
        out.records.push(record);
        out.steps.push(Step { id: id.clone(), change: Change::To(Box::new(next)), waiting });
        Ok(())
    }

    /// A request whose outcome is the next state of one id: its reply waits for the record.
    pub(super) fn finish_request<R>(
        &mut self,
        now_ms: i64,
        token: RequestToken,
        id: &Arc<str>,
        next: Metadata,
        response: TransactionResponse,
        error: impl FnOnce(ErrorCode) -> R,
    ) -> TransactionEffects<R> {
        let mut out = Out::default();
        let reply = match self.write(id, next, Some((token, response)), &mut out) {
            Ok(()) => Reply::Parked,
            Err(code) => Reply::Now(error(code)),
        };
        self.finish(now_ms, reply, out)
    }

    pub(super) fn finish_now<R>(&mut self, now_ms: i64, response: R) -> TransactionEffects<R> {
        self.finish(now_ms, Reply::Now(response), Out::default())
    }

    /// Puts a state in force.
    pub(super) fn set(&mut self, id: &Arc<str>, metadata: Metadata, offset: i64) {
        match metadata.state {
            State::Ongoing => self.ongoing.insert(id.clone()),
            _ => self.ongoing.remove(id),
        };
        match self.transactions.get_mut(id) {
            Some(transaction) => {
                transaction.metadata = metadata;
                transaction.offset = offset;
                transaction.markers_written = false;
            }
            None => {
                self.id_bytes += id.len();
                let transaction =
                    Transaction { metadata, offset, pending: None, markers_written: false, waiting: None };
                self.transactions.insert(id.clone(), transaction);
            }
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        if self.transactions.remove(id).is_some() {
            self.id_bytes -= id.len();
        }
        self.ongoing.remove(id);
    }

    pub(super) fn has_room_for(&self, id: &str) -> bool {
        self.transactions.len() < limits::TRANSACTIONAL_IDS_PER_PARTITION_MAX
            && self.id_bytes + id.len() <= limits::TRANSACTIONAL_ID_BYTES_PER_PARTITION_MAX
    }

    /// The id under which it is kept, and what is known of it.
    pub(super) fn find(&self, id: &str) -> Option<(&Arc<str>, &Transaction)> {
        self.transactions.get_key_value(id)
    }

    /// What is to be done once an outcome is in force: markers for every partition, or the end at once where there is
    /// none.
    pub(super) fn after_prepared(&mut self, now_ms: i64, id: &Arc<str>, out: &mut Out) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        let metadata = &transaction.metadata;
        if metadata.partitions.is_empty() {
            transaction.markers_written = true;
            return self.complete(now_ms, id, out);
        }
        out.actions.push(TransactionAction::SendMarkers(Markers {
            transactional_id: id.clone(),
            decided_at: transaction.offset,
            producer_id: metadata.producer_id,
            producer_epoch: metadata.producer_epoch,
            coordinator_epoch: self.leader_epoch,
            commit: metadata.state == State::PrepareCommit,
            partitions: metadata.partitions.clone(),
            transaction_version: if metadata.client_version >= EPOCH_BUMP_FROM { metadata.client_version } else { 0 },
        }));
    }

    /// Records that the transaction is over, and the beginning of the next one if that waits already.
    pub(super) fn complete(&mut self, now_ms: i64, id: &Arc<str>, out: &mut Out) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        if transaction.pending.is_some() || !transaction.markers_written || !transaction.metadata.state.is_prepared() {
            return;
        }
        let completed = transaction.metadata.completed(now_ms);
        let waiting = transaction.waiting.take();
        // What was in a record before fits into one without its partitions.
        let _ = self.write(id, completed.clone(), None, out);
        let Some(WaitingAdd { token, response, partitions, client_version, .. }) = waiting else { return };
        out.timers.push(TimerOp::Cancel { key: TransactionTimerKey::Waiting { transactional_id: id.clone() } });
        if !self.has_room_for_open() {
            let response = response.into_failure(ErrorCode::ConcurrentTransactions);
            return out.released.push(Released { token, response });
        }
        let next = completed.with_partitions(partitions, client_version, now_ms);
        if let Err(error) = self.write(id, next, Some((token, response.clone())), out) {
            out.released.push(Released { token, response: response.into_failure(error) });
        }
    }

    pub(super) fn has_room_for_open(&self) -> bool {
        self.ongoing.len() < limits::OPEN_TRANSACTIONS_PER_PARTITION_MAX
    }
}

impl Transaction {
    /// Another operation has begun and is not over.
    pub(super) fn in_transition(&self) -> bool {
        self.pending.is_some() || self.metadata.state.is_prepared()
    }
}
