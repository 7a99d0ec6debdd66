//! What every coordinator's shard is to the runtime that drives it. Answers to Kafka's `CoordinatorShard` and the promises
//! of `CoordinatorRuntime`.
//!
//! A shard is `handle(now, request) → Effects` plus `replay(record)`. The contract of the runtime:
//!
//! 1. It appends the records of a step while it still holds the shard, before any other step, and says [`appended`] when
//!    they are in the log, or [`failed`] when they are not and never will be. Nothing else happens in between, so that a
//!    shard may compute a step without changing itself, and change in `appended`: a failed append has nothing to undo.
//! 2. It says [`committed`] once the records can no longer be lost, in the order of their ids; [`timed_out`] when that
//!    did not happen in time, which may still be followed by `committed`.
//! 3. [`replay`] is for loading alone: what the shard wrote itself is never replayed to it.
//! 4. Timers fire at their deadline or later, perhaps once too often.
//! 5. A parked request is known to it before it runs the effects of that request.
//!
//! [`appended`]: CoordinatorShard::appended
//! [`failed`]: CoordinatorShard::failed
//! [`committed`]: CoordinatorShard::committed
//! [`timed_out`]: CoordinatorShard::timed_out
//! [`replay`]: CoordinatorShard::replay

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::error::ErrorCode;

use crate::cluster_image::{ClusterImage, TopicChanges};
use crate::effects::{AppendId, Effects};
use crate::replay::{ReplayError, Replayed};

/// The effects of a shard's step.
pub type EffectsOf<S, R> =
    Effects<R, <S as CoordinatorShard>::Response, <S as CoordinatorShard>::TimerKey, <S as CoordinatorShard>::Action>;

pub trait CoordinatorShard: Sized + Send + 'static {
    type Config: Clone + Send + Sync + 'static;
    /// The replies that can be parked.
    type Response: Send + 'static;
    type TimerKey: Clone + Debug + Ord + Hash + Send + 'static;
    /// What the shard wants done outside, besides records, replies and timers.
    type Action: Send + 'static;

    /// The internal topic whose partitions are the shards.
    const TOPIC: &'static str;

    /// `leader_epoch` is that of the partition: it is the coordinator's epoch.
    fn new(config: Self::Config, image: Arc<dyn ClusterImage>, leader_epoch: i32) -> Self;

    /// Replaces the settings; what is under way keeps its deadlines.
    fn set_config(&mut self, config: Self::Config);

    /// The cluster's metadata changed; `changes` is what a coordinator may have to act on.
    fn on_new_image(
        &mut self,
        now_ms: i64,
        image: &Arc<dyn ClusterImage>,
        changes: &TopicChanges,
    ) -> EffectsOf<Self, ()>;

    /// Takes in one record of the log, in the log's order. `producer_id` is that of a transactional batch, else -1.
    fn replay(
        &mut self,
        offset: i64,
        producer_id: i64,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Replayed, ReplayError>;

    /// Takes in the marker that ends a producer's transaction in this partition.
    fn replay_end_transaction(&mut self, _producer_id: i64, _commit: bool) {}

    /// The log is replayed: time begins.
    fn loaded(&mut self, now_ms: i64) -> EffectsOf<Self, ()>;

    /// The records of an append are in the log, though a crash may still take them; the first stands at `base_offset`.
    fn appended(&mut self, now_ms: i64, append: AppendId, base_offset: i64);

    /// The records of an append are committed.
    fn committed(&mut self, now_ms: i64, append: AppendId, base_offset: i64) -> EffectsOf<Self, ()>;

    /// The records of an append are not in the log and never will be.
    fn failed(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> EffectsOf<Self, ()>;

    /// The records of an append are in the log, but not committed within the time that a request may wait.
    fn timed_out(&mut self, now_ms: i64, append: AppendId, error: ErrorCode) -> EffectsOf<Self, ()>;

    fn on_timer(&mut self, now_ms: i64, key: &Self::TimerKey) -> EffectsOf<Self, ()>;

    /// The shard is no longer this broker's: what comes back are replies alone.
    fn unload(self) -> EffectsOf<Self, ()>;
}
