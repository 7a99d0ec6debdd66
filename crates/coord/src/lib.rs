//! The coordinators of Kafka 4.3 as pure replayable state machines: no clock, no randomness, no I/O, no await. One
//! [`GroupShard`] answers for one partition of `__consumer_offsets`, with groups of every kind; [`transaction`] and
//! [`share_state`] have the shards of `__transaction_state` and `__share_group_state`, [`share_partition`] the leader's side
//! of a share-partition. [`CoordinatorShard`] is what the runtime knows of the three.
//!
//! A request goes in with the time and a fresh id; [`Effects`] come out: records to append, the reply or the promise of
//! one, replies that were parked and are due now, timers. What a record says of offsets and transactions takes effect when
//! it is committed, so that no reader sees what a crash could take back; groups of the newer kinds follow the log as soon as
//! a record is in it, and their replies wait until it is committed. `docs/internals/coordinators.md` tells the protocol.
//!
//! Answers to Kafka's `GroupCoordinatorShard`, `GroupMetadataManager`, `OffsetMetadataManager` and `ClassicGroup`.

mod classic;
pub mod cluster_image;
mod config;
mod consumer;
mod coordinator_shard;
mod effects;
mod group;
mod group_admin;
mod groups;
mod modern;
mod offset_commit;
mod offset_fetch;
mod offsets;
mod outbox;
mod records;
mod replay;
mod shard;
pub mod share;
pub mod share_partition;
pub mod share_state;
mod streams;
pub mod transaction;
mod txn_offset_commit;

pub use config::GroupConfig;
pub use coordinator_shard::{CoordinatorShard, EffectsOf};
pub use effects::{
    AppendId, BatchKind, CoordinatorRecord, Effects, GroupAction, Released, Reply, RequestContext, RequestToken,
    Response, TimerKey, TimerOp,
};
pub use group::GroupKind;
pub use offset_commit::error_response as offset_commit_error_response;
pub use offset_fetch::{groups_of_request as offset_fetch_groups, response_of_groups as offset_fetch_response};
pub use replay::{ReplayError, Replayed};
pub use shard::GroupShard;
pub use streams::{MISSING_INTERNAL_TOPICS, StreamsHeartbeat};
pub use txn_offset_commit::{EndMarker, error_response as txn_offset_commit_error_response};
