//! One partition of `__share_group_state`. State is what the records in the log say: a request computes a record, and the
//! state changes by [`ShareStateShard::apply`] when the record is in the log, as it does at loading. Replies wait until the
//! record, or whatever they tell of, is committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_base::topic::SHARE_GROUP_STATE_TOPIC;
use taccola_wire::error::ErrorCode;

use super::records::{self, Change};
use super::{
    NO_DELIVERY_COMPLETE_COUNT, NO_EPOCH, NO_START_OFFSET, ReadState, STATE_BATCHES_MAX, SharePartitionKey, ShareState,
    ShareStateAction, ShareStateConfig, ShareStateError, ShareStateReply, ShareStateTimer, StateBatch, StateSummary,
    WriteState, combine,
};
use crate::cluster_image::{ClusterImage, TopicChanges};
use crate::coordinator_shard::{CoordinatorShard, EffectsOf};
use crate::effects::{AppendId, BatchKind, Effects, Released, Reply, RequestContext, RequestToken, TimerOp};
use crate::replay::{ReplayError, Replayed};
use crate::shard::append_error;

/// Records of one step; share partitions beyond that wait for the next one.
const RECORDS_PER_STEP_MAX: usize = 1_000;

type Step<R> = EffectsOf<ShareStateShard, R>;

#[derive(Debug)]
struct Known {
    state: ShareState,
    /// The highest that was seen: a lower one is fenced.
    leader_epoch: i32,
    /// Likewise; `None` as long as no snapshot told one.
    state_epoch: Option<i32>,
    /// Updates since the snapshot that was due last.
    updates: u32,
}

/// What waits for one append.
#[derive(Debug, Default)]
struct Pending {
    changes: Vec<(SharePartitionKey, Change)>,
    replies: Vec<(RequestToken, ShareStateReply)>,
}

#[derive(Debug)]
pub struct ShareStateShard {
    config: ShareStateConfig,
    image: Arc<dyn ClusterImage>,
    known: BTreeMap<SharePartitionKey, Known>,
    /// Where each share partition's last committed snapshot stands.
    snapshots: BTreeMap<SharePartitionKey, i64>,
    /// Where the last committed tombstone stands.
    last_tombstone: i64,
    /// Below this the log was told to be cut off.
    pruned_before: i64,
    timers_set: bool,
    pending: BTreeMap<AppendId, Pending>,
    next_append: u64,
}

impl ShareStateShard {
    /// The state of a share partition as the log tells it.
    pub fn state(&self, key: &SharePartitionKey) -> Option<&ShareState> {
        self.known.get(key).map(|known| &known.state)
    }

    /// Sets up a share partition, or sets it back to a new start offset.
    pub fn handle_initialize(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        key: &SharePartitionKey,
        state_epoch: i32,
        start_offset: i64,
    ) -> Step<ShareStateReply> {
        let known = self.known.get(key);
        let checked = check_partition(key)
            .and_then(|()| check_state_epoch(known, state_epoch))
            .and_then(|()| self.check_topic(key));
        if let Err(error) = checked {
            return now(ShareStateReply::Done(Err(error)));
        }
        let snapshot_epoch = known.map_or(0, |known| known.state.snapshot_epoch.saturating_add(1));
        let delivery_complete_count = if start_offset == NO_START_OFFSET { NO_DELIVERY_COMPLETE_COUNT } else { 0 };
        let state = ShareState {
            snapshot_epoch,
            state_epoch,
            leader_epoch: 0,
            start_offset,
            delivery_complete_count,
            create_timestamp_ms: now_ms,
            write_timestamp_ms: now_ms,
            batches: Vec::new(),
        };
        self.write(ctx.token, vec![(key.clone(), Change::Snapshot(state))], ShareStateReply::Done(Ok(())))
    }

    /// Adds what was delivered.
    pub fn handle_write(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        key: &SharePartitionKey,
        write: &WriteState,
    ) -> Step<ShareStateReply> {
        match self.check_write(key, write).and_then(|known| self.change_of(now_ms, known, write, KeepLeaderEpoch)) {
            Ok(change) => self.write(ctx.token, vec![(key.clone(), change)], ShareStateReply::Done(Ok(()))),
            Err(error) => now(ShareStateReply::Done(Err(error))),
        }
    }

    /// Answers with the state; a leader of a new epoch fences those before it.
    pub fn handle_read(
        &mut self,
        now_ms: i64,
        ctx: &RequestContext<'_>,
        key: &SharePartitionKey,
        leader_epoch: i32,
    ) -> Step<ShareStateReply> {
        let known = match self.check_read(key, leader_epoch) {
            Ok(known) => known,
            Err(error) => return now(ShareStateReply::Read(Err(error))),
        };
        let state = &known.state;
        let read = ReadState {
            state_epoch: state.state_epoch,
            start_offset: state.start_offset,
            batches: state.batches.clone(),
        };
        if leader_epoch == NO_EPOCH || leader_epoch == known.leader_epoch {
            return self.answer(ctx.token, ShareStateReply::Read(Ok(read)));
        }
        let write = WriteState {
            state_epoch: state.state_epoch,
            leader_epoch,
            start_offset: state.start_offset,
            delivery_complete_count: state.delivery_complete_count,
            batches: Vec::new(),
        };
        match self.change_of(now_ms, known, &write, TakeLeaderEpoch) {
            Ok(change) => self.write(ctx.token, vec![(key.clone(), change)], ShareStateReply::Read(Ok(read))),
            Err(error) => now(ShareStateReply::Read(Err(error))),
        }
    }

    /// Answers with the epochs and offsets of a share partition; one that is not known has none.
    pub fn handle_summary(&mut self, ctx: &RequestContext<'_>, key: &SharePartitionKey) -> Step<ShareStateReply> {
        if let Err(error) = check_partition(key).and_then(|()| self.check_topic(key)) {
            return now(ShareStateReply::Summary(Err(error)));
        }
        let summary = self.known.get(key).map_or(StateSummary::UNINITIALIZED, |known| StateSummary {
            state_epoch: known.state.state_epoch,
            leader_epoch: known.state.leader_epoch,
            start_offset: known.state.start_offset,
            delivery_complete_count: known.state.delivery_complete_count,
        });
        self.answer(ctx.token, ShareStateReply::Summary(Ok(summary)))
    }

    /// Forgets a share partition; one that is not known is forgotten already.
    pub fn handle_delete(&mut self, ctx: &RequestContext<'_>, key: &SharePartitionKey) -> Step<ShareStateReply> {
        if let Err(error) = check_partition(key).and_then(|()| self.check_topic(key)) {
            return now(ShareStateReply::Done(Err(error)));
        }
        if !self.known.contains_key(key) {
            return self.answer(ctx.token, ShareStateReply::Done(Ok(())));
        }
        self.write(ctx.token, vec![(key.clone(), Change::Tombstone)], ShareStateReply::Done(Ok(())))
    }

    fn check_topic(&self, key: &SharePartitionKey) -> Result<(), ShareStateError> {
        match self.image.topic_by_id(key.topic_id) {
            Some(topic) if key.partition < topic.partitions => Ok(()),
            _ => Err(ErrorCode::UnknownTopicOrPartition.into()),
        }
    }

    fn check_write(&self, key: &SharePartitionKey, write: &WriteState) -> Result<&Known, ShareStateError> {
        check_partition(key)?;
        let known = self.known.get(key).ok_or_else(|| invalid("The share partition to write is not initialized."))?;
        check_leader_epoch(known, write.leader_epoch)?;
        check_state_epoch(Some(known), write.state_epoch)?;
        self.check_topic(key)?;
        let ordered = |batch: &StateBatch| batch.first_offset >= 0 && batch.first_offset <= batch.last_offset;
        if !write.batches.iter().all(ordered) {
            return Err(invalid("A state batch ends before it begins."));
        }
        Ok(known)
    }

    fn check_read(&self, key: &SharePartitionKey, leader_epoch: i32) -> Result<&Known, ShareStateError> {
        check_partition(key)?;
        let known = self.known.get(key).ok_or_else(|| invalid("The share partition to read is not initialized."))?;
        check_leader_epoch(known, leader_epoch)?;
        self.check_topic(key)?;
        Ok(known)
    }

    /// The record of a write: an update, or a snapshot when enough updates have been written since the last.
    fn change_of(
        &self,
        now_ms: i64,
        known: &Known,
        write: &WriteState,
        epoch: LeaderEpoch,
    ) -> Result<Change, ShareStateError> {
        let state = &known.state;
        let leader_epoch = match epoch {
            TakeLeaderEpoch if write.leader_epoch != NO_EPOCH => write.leader_epoch,
            _ => state.leader_epoch,
        };
        let start_offset = if write.start_offset == NO_START_OFFSET { state.start_offset } else { write.start_offset };
        if known.updates >= self.config.updates_per_snapshot {
            return Ok(Change::Snapshot(ShareState {
                snapshot_epoch: state.snapshot_epoch.saturating_add(1),
                state_epoch: state.state_epoch,
                leader_epoch,
                start_offset,
                delivery_complete_count: write.delivery_complete_count,
                create_timestamp_ms: now_ms,
                write_timestamp_ms: now_ms,
                batches: bounded(combine(&state.batches, &write.batches, start_offset))?,
            }));
        }
        // Each new batch splits at most one.
        if state.batches.len().saturating_add(write.batches.len().saturating_mul(2)) > STATE_BATCHES_MAX {
            bounded(combine(&state.batches, &write.batches, start_offset))?;
        }
        Ok(Change::Update {
            snapshot_epoch: state.snapshot_epoch,
            leader_epoch,
            start_offset: write.start_offset,
            delivery_complete_count: write.delivery_complete_count,
            batches: combine(&[], &write.batches, write.start_offset),
        })
    }

    /// A step that appends, and answers when that is committed.
    fn write(
        &mut self,
        token: RequestToken,
        changes: Vec<(SharePartitionKey, Change)>,
        reply: ShareStateReply,
    ) -> Step<ShareStateReply> {
        let Ok(records) = changes.iter().map(|(key, change)| records::encode(key, change)).collect() else {
            let mut reply = reply;
            reply.fail(ErrorCode::InvalidRequest);
            return now(reply);
        };
        let append = self.next_append(Pending { changes, replies: vec![(token, reply)] });
        Effects { records, append: Some(append), ..parked() }
    }

    fn next_append(&mut self, pending: Pending) -> AppendId {
        let append = AppendId(self.next_append);
        self.next_append += 1;
        self.pending.insert(append, pending);
        append
    }

    /// A reply that tells what the log says: it waits for what of that is not committed yet.
    fn answer(&mut self, token: RequestToken, reply: ShareStateReply) -> Step<ShareStateReply> {
        match self.pending.last_entry() {
            None => now(reply),
            Some(mut last) => {
                last.get_mut().replies.push((token, reply));
                parked()
            }
        }
    }

    /// What a record in the log does to the state, whoever wrote it.
    fn apply(&mut self, key: &SharePartitionKey, change: Change) {
        match change {
            Change::Tombstone => {
                self.known.remove(key);
            }
            Change::Snapshot(state) => self.apply_snapshot(key, state),
            Change::Update { snapshot_epoch, leader_epoch, start_offset, delivery_complete_count, batches } => {
                match self.known.entry(key.clone()) {
                    // The snapshot is gone: what the update says is all there is.
                    MapEntry::Vacant(vacant) => {
                        let state = ShareState {
                            snapshot_epoch,
                            state_epoch: NO_EPOCH,
                            leader_epoch,
                            start_offset,
                            delivery_complete_count,
                            create_timestamp_ms: 0,
                            write_timestamp_ms: 0,
                            batches,
                        };
                        vacant.insert(Known { state, leader_epoch, state_epoch: None, updates: 1 });
                    }
                    MapEntry::Occupied(mut occupied) => {
                        let known = occupied.get_mut();
                        let state = &mut known.state;
                        if start_offset != NO_START_OFFSET {
                            state.start_offset = start_offset;
                        }
                        if leader_epoch != NO_EPOCH {
                            state.leader_epoch = leader_epoch;
                        }
                        state.delivery_complete_count = delivery_complete_count;
                        state.batches = combine(&state.batches, &batches, state.start_offset);
                        known.leader_epoch = known.leader_epoch.max(leader_epoch);
                        known.updates = known.updates.saturating_add(1);
                    }
                }
            }
        }
    }

    fn apply_snapshot(&mut self, key: &SharePartitionKey, state: ShareState) {
        match self.known.entry(key.clone()) {
            MapEntry::Vacant(vacant) => {
                let (leader_epoch, state_epoch) = (state.leader_epoch, Some(state.state_epoch));
                vacant.insert(Known { state, leader_epoch, state_epoch, updates: 0 });
            }
            MapEntry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                known.leader_epoch = known.leader_epoch.max(state.leader_epoch);
                known.state_epoch = known.state_epoch.max(Some(state.state_epoch));
                // Snapshots that were not due do not put off the one that is.
                if known.updates >= self.config.updates_per_snapshot {
                    known.updates = 0;
                }
                known.state = state;
            }
        }
    }

    /// Remembers where the records stand that the log must keep.
    fn keep(&mut self, key: SharePartitionKey, tombstone: bool, offset: i64) {
        if tombstone {
            self.snapshots.remove(&key);
            self.last_tombstone = offset;
        } else {
            self.snapshots.insert(key, offset);
        }
    }

    /// The first offset whose record still says something: every share partition has its last snapshot there or above.
    fn redundant_before(&self) -> i64 {
        self.snapshots.values().min().copied().unwrap_or(self.last_tombstone)
    }

    fn prune(&mut self, now_ms: i64) -> Step<()> {
        let offset = self.redundant_before();
        let mut effects = self.rearm(ShareStateTimer::Prune, now_ms, self.config.prune_interval_ms);
        if offset > self.pruned_before {
            self.pruned_before = offset;
            effects.actions.push(ShareStateAction::DeleteRecordsBefore(offset));
        }
        effects
    }

    /// Writes snapshots of share partitions whose last one is old, so that they do not hold up the log's end. Once all
    /// of them have lain idle nothing is written any more.
    fn snapshot_cold(&mut self, now_ms: i64) -> Step<()> {
        let interval_ms = self.config.cold_snapshot_interval_ms;
        let mut effects = self.rearm(ShareStateTimer::ColdSnapshot, now_ms, interval_ms);
        if self.known.values().all(|known| known.state.create_timestamp_ms != known.state.write_timestamp_ms) {
            return effects;
        }
        let cold = |known: &Known| now_ms.saturating_sub(known.state.write_timestamp_ms) >= interval_ms;
        let snapshot = |known: &Known| ShareState {
            snapshot_epoch: known.state.snapshot_epoch.saturating_add(1),
            write_timestamp_ms: now_ms,
            ..known.state.clone()
        };
        let changes: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| cold(known))
            .take(RECORDS_PER_STEP_MAX)
            .map(|(key, known)| (key.clone(), Change::Snapshot(snapshot(known))))
            .collect();
        self.append_all(changes, &mut effects);
        effects
    }

    /// Share partitions of topics that are no more are forgotten.
    fn forget_topics(&mut self, deleted: &[(String, Uuid)]) -> Step<()> {
        let gone = |key: &&SharePartitionKey| deleted.iter().any(|(_, id)| *id == key.topic_id);
        let changes = self.known.keys().filter(gone).map(|key| (key.clone(), Change::Tombstone)).collect();
        let mut effects = done();
        self.append_all(changes, &mut effects);
        effects
    }

    fn append_all(&mut self, changes: Vec<(SharePartitionKey, Change)>, effects: &mut Step<()>) {
        // What was read from a record can be written to one.
        let records: Result<Vec<_>, _> = changes.iter().map(|(key, change)| records::encode(key, change)).collect();
        if let Ok(records) = records
            && !records.is_empty()
        {
            effects.records = records;
            effects.append = Some(self.next_append(Pending { changes, replies: Vec::new() }));
        }
    }

    /// Sets a timer anew as long as there is something to look at.
    fn rearm(&mut self, key: ShareStateTimer, now_ms: i64, interval_ms: i64) -> Step<()> {
        let mut effects = done();
        if self.known.is_empty() && self.pending.is_empty() && self.redundant_before() <= self.pruned_before {
            self.timers_set = false;
        } else {
            effects.timers.push(TimerOp::Set { key, deadline_ms: now_ms.saturating_add(interval_ms) });
        }
        effects
    }

    fn arm(&mut self, now_ms: i64) -> Step<()> {
        let mut effects = done();
        if !self.timers_set && !self.known.is_empty() {
            self.timers_set = true;
            for (key, interval_ms) in [
                (ShareStateTimer::Prune, self.config.prune_interval_ms),
                (ShareStateTimer::ColdSnapshot, self.config.cold_snapshot_interval_ms),
            ] {
                effects.timers.push(TimerOp::Set { key, deadline_ms: now_ms.saturating_add(interval_ms) });
            }
        }
        effects
    }
}

/// Whether a write's leader epoch becomes the state's: only a read announces a leader.
enum LeaderEpoch {
    Keep,
    Take,
}
use LeaderEpoch::{Keep as KeepLeaderEpoch, Take as TakeLeaderEpoch};

impl CoordinatorShard for ShareStateShard {
    type Config = ShareStateConfig;
    type Response = ShareStateReply;
    type TimerKey = ShareStateTimer;
    type Action = ShareStateAction;

    const TOPIC: &'static str = SHARE_GROUP_STATE_TOPIC;

    fn new(config: ShareStateConfig, image: Arc<dyn ClusterImage>, _leader_epoch: i32) -> Self {
        Self {
            config,
            image,
            known: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            last_tombstone: 0,
            pruned_before: 0,
            timers_set: false,
            pending: BTreeMap::new(),
            next_append: 0,
        }
    }

    fn set_config(&mut self, config: ShareStateConfig) {
        self.config = config;
    }

    fn on_new_image(&mut self, _now_ms: i64, image: &Arc<dyn ClusterImage>, changes: &TopicChanges) -> Step<()> {
        self.image = image.clone();
        self.forget_topics(&changes.deleted)
    }

    fn replay(
        &mut self,
        offset: i64,
        _producer_id: i64,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Replayed, ReplayError> {
        let Some((key, change)) = records::decode(key, value)? else { return Ok(Replayed::Skipped) };
        match change {
            Change::Update { .. } => {}
            Change::Snapshot(_) => self.keep(key.clone(), false, offset),
            Change::Tombstone => self.keep(key.clone(), true, offset),
        }
        self.apply(&key, change);
        Ok(Replayed::Applied)
    }

    fn loaded(&mut self, now_ms: i64) -> Step<()> {
        self.arm(now_ms)
    }

    fn appended(&mut self, _now_ms: i64, append: AppendId, _base_offset: i64) {
        let changes = self.pending.get(&append).map(|pending| pending.changes.clone()).unwrap_or_default();
        for (key, change) in changes {
            self.apply(&key, change);
        }
    }

    fn committed(&mut self, now_ms: i64, append: AppendId, base_offset: i64) -> Step<()> {
        let mut effects = self.arm(now_ms);
        let Some(pending) = self.pending.remove(&append) else { return effects };
        for (offset, (key, change)) in (base_offset..).zip(pending.changes) {
            if !matches!(change, Change::Update { .. }) {
                self.keep(key, change == Change::Tombstone, offset);
            }
        }
        effects.released = pending.replies.into_iter().map(|(token, response)| Released { token, response }).collect();
        effects
    }

    fn failed(&mut self, _now_ms: i64, append: AppendId, error: ErrorCode) -> Step<()> {
        let replies = self.pending.remove(&append).map(|pending| pending.replies).unwrap_or_default();
        Effects { released: refuse(replies, append_error(error)), ..done() }
    }

    fn timed_out(&mut self, _now_ms: i64, append: AppendId, error: ErrorCode) -> Step<()> {
        let replies = self.pending.get_mut(&append).map(|p| std::mem::take(&mut p.replies)).unwrap_or_default();
        Effects { released: refuse(replies, append_error(error)), ..done() }
    }

    fn on_timer(&mut self, now_ms: i64, key: &ShareStateTimer) -> Step<()> {
        match key {
            ShareStateTimer::Prune => self.prune(now_ms),
            ShareStateTimer::ColdSnapshot => self.snapshot_cold(now_ms),
        }
    }

    fn unload(self) -> Step<()> {
        let replies = self.pending.into_values().flat_map(|pending| pending.replies).collect();
        Effects { released: refuse(replies, ErrorCode::NotCoordinator), ..done() }
    }
}

fn refuse(replies: Vec<(RequestToken, ShareStateReply)>, error: ErrorCode) -> Vec<Released<ShareStateReply>> {
    let refused = replies.into_iter().map(|(token, mut response)| {
        response.fail(error);
        Released { token, response }
    });
    refused.collect()
}

fn invalid(message: &'static str) -> ShareStateError {
    ShareStateError::new(ErrorCode::InvalidRequest, message)
}

fn check_partition(key: &SharePartitionKey) -> Result<(), ShareStateError> {
    if key.partition < 0 { Err(invalid("A partition's number is not negative.")) } else { Ok(()) }
}

fn check_leader_epoch(known: &Known, leader_epoch: i32) -> Result<(), ShareStateError> {
    match leader_epoch != NO_EPOCH && known.leader_epoch > leader_epoch {
        true => Err(ErrorCode::FencedLeaderEpoch.into()),
        false => Ok(()),
    }
}

fn check_state_epoch(known: Option<&Known>, state_epoch: i32) -> Result<(), ShareStateError> {
    match state_epoch != NO_EPOCH && known.and_then(|known| known.state_epoch).is_some_and(|seen| seen > state_epoch) {
        true => Err(ErrorCode::FencedStateEpoch.into()),
        false => Ok(()),
    }
}

fn bounded(batches: Vec<StateBatch>) -> Result<Vec<StateBatch>, ShareStateError> {
    match batches.len() > STATE_BATCHES_MAX {
        true => Err(invalid("A share partition's state has too many batches.")),
        false => Ok(batches),
    }
}

fn now<R>(response: R) -> Step<R> {
    Effects {
        records: Vec::new(),
        batch: BatchKind::Plain,
        append: None,
        response: Reply::Now(response),
        released: Vec::new(),
        timers: Vec::new(),
        actions: Vec::new(),
    }
}

fn done() -> Step<()> {
    now(())
}

fn parked<R>() -> Step<R> {
    Effects {
        records: Vec::new(),
        batch: BatchKind::Plain,
        append: None,
        response: Reply::Parked,
        released: Vec::new(),
        timers: Vec::new(),
        actions: Vec::new(),
    }
}
