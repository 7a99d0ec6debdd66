//! What becomes of what was given out: records, markers, time, the shard itself.

use std::sync::Arc;

use bytes::Bytes;
use taccola_base::planted::{Bug, planted};
use taccola_base::topic::TRANSACTION_STATE_TOPIC;
use taccola_wire::error::ErrorCode;

use super::config::TransactionConfig;
use super::effects::{Markers, TransactionAction, TransactionEffects, TransactionResponse, TransactionTimerKey};
use super::metadata::{NO_PRODUCER_ID, State};
use super::records::{self, Record};
use super::shard::{Change, Out, Step, TransactionShard};
use crate::cluster_image::{ClusterImage, TopicChanges};
use crate::coordinator_shard::CoordinatorShard;
use crate::effects::{AppendId, Released, Reply, TimerOp};
use crate::replay::{ReplayError, Replayed};

/// How long to rest before the end of a transaction is recorded again after that failed.
const COMPLETE_RETRY_MS: i64 = 100;
/// Ids that go in one step; if there are more, the next step follows at once.
const EXPIRE_BATCH: usize = 5_000;
/// Transactions that are aborted in one step; likewise.
const ABORT_BATCH: usize = 1_000;

impl TransactionShard {
    /// All markers that were asked for are written: the transaction is over. Heard twice, or too late, it does no harm.
    pub fn handle_markers_written(&mut self, now_ms: i64, markers: &Markers) -> TransactionEffects<()> {
        let mut out = Out::default();
        let prepared = if markers.commit { State::PrepareCommit } else { State::PrepareAbort };
        if let Some(transaction) = self.transactions.get_mut(&markers.transactional_id)
            && transaction.metadata.state == prepared
            && transaction.offset == markers.decided_at
        {
            transaction.markers_written = true;
            self.complete(now_ms, &markers.transactional_id, &mut out);
        }
        self.finish(now_ms, Reply::Now(()), out)
    }

    /// The ends of transactions count from here on.
    fn append_done(&mut self, append: AppendId, base_offset: i64) {
        let Some(steps) = self.appends.get_mut(&append) else { return };
        let mut ended = Vec::new();
        for (offset, step) in (base_offset..).zip(steps) {
            if let Change::To(next) = &step.change
                && matches!(next.state, State::CompleteCommit | State::CompleteAbort)
                && let Change::To(next) = std::mem::replace(&mut step.change, Change::Done)
            {
                ended.push((step.id.clone(), *next, offset));
            }
        }
        for (id, next, offset) in ended {
            // Behind the end may stand the beginning of the next transaction.
            let more = |step: &Step| step.id == id && !matches!(step.change, Change::Done);
            if !self.appends.get(&append).is_some_and(|steps| steps.iter().any(more)) {
                self.settle(&id, append);
            }
            self.set(&id, next, offset);
        }
    }

    /// The append no longer keeps the id in transition.
    fn settle(&mut self, id: &str, append: AppendId) {
        if let Some(transaction) = self.transactions.get_mut(id)
            && transaction.pending == Some(append)
        {
            transaction.pending = None;
        }
    }

    /// A step's records stand one behind the other.
    fn commit(&mut self, now_ms: i64, append: AppendId, base_offset: i64) -> TransactionEffects<()> {
        let mut out = Out::default();
        self.append_done(append, base_offset);
        let steps = self.appends.remove(&append).unwrap_or_default();
        for (offset, Step { id, change, waiting }) in (base_offset..).zip(steps) {
            self.settle(&id, append);
            match change {
                Change::To(next) => {
                    let prepared = next.state.is_prepared();
                    self.set(&id, *next, offset);
                    if prepared {
                        self.after_prepared(now_ms, &id, &mut out);
                    }
                }
                Change::Remove => self.remove(&id),
                Change::Done => {}
            }
            if let Some((token, response)) = waiting {
                out.released.push(Released { token, response });
            }
        }
        self.finish(now_ms, Reply::Now(()), out)
    }

    fn fail(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> TransactionEffects<()> {
        let mut out = Out::default();
        let error = append_error(error);
        for Step { id, waiting, .. } in self.appends.remove(&append).unwrap_or_default() {
            self.settle(&id, append);
            let asked_for = waiting.is_some();
            if let Some((token, response)) = waiting {
                out.released.push(Released { token, response: response.into_failure(error) });
            }
            let Some(transaction) = self.transactions.get(&id) else { continue };
            if transaction.metadata.producer_epoch < 0 {
                // It was to be its first record.
                self.remove(&id);
            } else if !asked_for && transaction.markers_written && transaction.metadata.state.is_prepared() {
                let key = TransactionTimerKey::Complete { transactional_id: id };
                out.timers.push(TimerOp::Set { key, deadline_ms: now_ms.saturating_add(COMPLETE_RETRY_MS) });
            }
        }
        self.finish(now_ms, Reply::Now(()), out)
    }

    /// Who waits is told to try again; the ids stay in transition, because the records may still come true.
    fn give_up_waiting(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> TransactionEffects<()> {
        let mut out = Out::default();
        let error = append_error(error);
        for step in self.appends.get_mut(&append).into_iter().flatten() {
            if let Some((token, response)) = step.waiting.take() {
                out.released.push(Released { token, response: response.into_failure(error) });
            }
        }
        self.finish(now_ms, Reply::Now(()), out)
    }

    /// The end of the transaction takes too long for those who want to begin the next.
    fn waited_enough(&mut self, now_ms: i64, id: &str, out: &mut Out) {
        let Some(transaction) = self.transactions.get_mut(id) else { return };
        if let Some(waiting) = transaction.waiting.take_if(|waiting| waiting.deadline_ms <= now_ms) {
            let response = waiting.response.into_failure(ErrorCode::ConcurrentTransactions);
            out.released.push(Released { token: waiting.token, response });
        }
    }

    fn abort_timed_out(&mut self, now_ms: i64, out: &mut Out) {
        self.abort_timer = false;
        let mut due = self.ongoing.iter().filter(|id| {
            self.transactions.get(*id).is_some_and(|t| t.pending.is_none() && t.metadata.is_timed_out(now_ms))
        });
        let ids: Vec<Arc<str>> = due.by_ref().take(ABORT_BATCH).cloned().collect();
        let more = due.next().is_some();
        for id in ids {
            if let Some(transaction) = self.transactions.get(&id) {
                // Without a new producer id even where the epochs run out with this: the next InitProducerId brings one.
                let next = self.fenced(&transaction.metadata, NO_PRODUCER_ID, now_ms);
                // Tried again at the next look.
                let _ = self.write(&id, next, None, out);
            }
        }
        if more {
            self.abort_timer = true;
            out.timers.push(TimerOp::Set { key: TransactionTimerKey::AbortTimedOut, deadline_ms: now_ms });
        }
    }

    fn expire_ids(&mut self, now_ms: i64, out: &mut Out) {
        self.expiration_timer = false;
        let expiration_ms = self.config.id_expiration_ms;
        let mut due = self
            .transactions
            .iter()
            .filter(|(_, t)| t.pending.is_none() && t.metadata.is_expired(expiration_ms, now_ms))
            .map(|(id, _)| id);
        let ids: Vec<Arc<str>> = due.by_ref().take(EXPIRE_BATCH).cloned().collect();
        let more = due.next().is_some();
        for id in ids {
            if let Ok(record) = records::tombstone(&id) {
                out.records.push(record);
                out.steps.push(Step { id, change: Change::Remove, waiting: None });
            }
        }
        if more {
            self.expiration_timer = true;
            out.timers.push(TimerOp::Set { key: TransactionTimerKey::ExpireIds, deadline_ms: now_ms });
        }
    }

    /// What was decided before the last stop is carried out.
    fn start(&mut self, now_ms: i64) -> TransactionEffects<()> {
        let mut out = Out::default();
        let prepared = self.transactions.iter().filter(|(_, t)| t.metadata.state.is_prepared());
        let prepared: Vec<Arc<str>> = prepared.map(|(id, _)| id.clone()).collect();
        for id in prepared.into_iter().filter(|_| !planted(Bug::MarkersNotResumed)) {
            self.after_prepared(now_ms, &id, &mut out);
        }
        self.finish(now_ms, Reply::Now(()), out)
    }
}

impl CoordinatorShard for TransactionShard {
    type Config = TransactionConfig;
    type Response = TransactionResponse;
    type TimerKey = TransactionTimerKey;
    type Action = TransactionAction;

    const TOPIC: &'static str = TRANSACTION_STATE_TOPIC;

    fn new(config: TransactionConfig, image: Arc<dyn ClusterImage>, leader_epoch: i32) -> Self {
        TransactionShard::new(config, image, leader_epoch)
    }

    fn set_config(&mut self, config: TransactionConfig) {
        self.config = config;
    }

    fn on_new_image(
        &mut self,
        now_ms: i64,
        image: &Arc<dyn ClusterImage>,
        _changes: &TopicChanges,
    ) -> TransactionEffects<()> {
        self.image = image.clone();
        self.finish_now(now_ms, ())
    }

    fn replay(
        &mut self,
        offset: i64,
        _producer_id: i64,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Replayed, ReplayError> {
        match records::read(key, value)? {
            Record::State(id, metadata) => self.set(&id.into(), *metadata, offset),
            Record::Tombstone(id) => self.remove(&id),
            Record::Unknown => return Ok(Replayed::Skipped),
        }
        Ok(Replayed::Applied)
    }

    fn loaded(&mut self, now_ms: i64) -> TransactionEffects<()> {
        self.start(now_ms)
    }

    fn appended(&mut self, _now_ms: i64, append: AppendId, base_offset: i64) {
        self.append_done(append, base_offset);
    }

    fn committed(&mut self, now_ms: i64, append: AppendId, base_offset: i64) -> TransactionEffects<()> {
        self.commit(now_ms, append, base_offset)
    }

    fn failed(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> TransactionEffects<()> {
        self.fail(now_ms, append, error)
    }

    fn timed_out(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> TransactionEffects<()> {
        self.give_up_waiting(now_ms, append, error)
    }

    fn on_timer(&mut self, now_ms: i64, key: &TransactionTimerKey) -> TransactionEffects<()> {
        let mut out = Out::default();
        match key {
            TransactionTimerKey::AbortTimedOut => self.abort_timed_out(now_ms, &mut out),
            TransactionTimerKey::ExpireIds => self.expire_ids(now_ms, &mut out),
            TransactionTimerKey::Complete { transactional_id } => self.complete(now_ms, transactional_id, &mut out),
            TransactionTimerKey::Waiting { transactional_id } => {
                self.waited_enough(now_ms, transactional_id, &mut out);
            }
        }
        self.finish(now_ms, Reply::Now(()), out)
    }

    fn unload(mut self) -> TransactionEffects<()> {
        let written = std::mem::take(&mut self.appends).into_values().flatten().filter_map(|step| step.waiting);
        let waiting = self.transactions.into_values().filter_map(|t| t.waiting).map(|w| (w.token, w.response));
        let released = written
            .chain(waiting)
            .map(|(token, response)| Released { token, response: response.into_failure(ErrorCode::NotCoordinator) });
        let released = released.collect();
        TransactionEffects {
            records: Vec::new(),
            batch: Default::default(),
            append: None,
            response: Reply::Now(()),
            released,
            timers: Vec::new(),
            actions: Vec::new(),
        }
    }
}

/// What a client learns when records could not be written.
fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut
        | ErrorCode::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError | ErrorCode::NotCoordinator => {
            ErrorCode::NotCoordinator
        }
        _ => ErrorCode::UnknownServerError,
    }
}
