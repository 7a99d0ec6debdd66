//! The records of `__share_group_state`: snapshots (key type 0), updates (1), and tombstones of the former. Answers to
//! Kafka's `ShareCoordinatorRecordHelpers` and `ShareCoordinatorRecordSerde`.

use bytes::Bytes;
use taccola_wire::codec::EncodeError;
use taccola_wire::messages::{ShareSnapshotKey, ShareSnapshotValue, ShareUpdateKey, ShareUpdateValue};
use taccola_wire::messages::{share_snapshot_value, share_update_value};

use super::{SharePartitionKey, ShareState, StateBatch};
use crate::effects::CoordinatorRecord;
use crate::records::prefixed;
use crate::replay::{ReplayError, decode_key, decode_value, split_prefix};

/// The only version of both values.
const VALUE_VERSION: i16 = 0;

/// What one record says about a share partition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Snapshot(ShareState),
    /// What the write said, besides the state epoch, which only snapshots hold.
    Update {
        snapshot_epoch: i32,
        leader_epoch: i32,
        start_offset: i64,
        delivery_complete_count: i32,
        batches: Vec<StateBatch>,
    },
    Tombstone,
}

fn snapshot_key(key: &SharePartitionKey) -> Result<Bytes, EncodeError> {
    let key = ShareSnapshotKey { group_id: key.group_id.to_string(), topic_id: key.topic_id, partition: key.partition };
    prefixed(ShareSnapshotKey::API_KEY, &key, 0)
}

fn update_key(key: &SharePartitionKey) -> Result<Bytes, EncodeError> {
    let key = ShareUpdateKey { group_id: key.group_id.to_string(), topic_id: key.topic_id, partition: key.partition };
    prefixed(ShareUpdateKey::API_KEY, &key, 0)
}

pub(super) fn encode(key: &SharePartitionKey, change: &Change) -> Result<CoordinatorRecord, EncodeError> {
    match change {
        Change::Snapshot(state) => {
            let batch = |b: &StateBatch| share_snapshot_value::StateBatch {
                first_offset: b.first_offset,
                last_offset: b.last_offset,
                delivery_state: b.delivery_state,
                delivery_count: b.delivery_count,
            };
            let value = ShareSnapshotValue {
                snapshot_epoch: state.snapshot_epoch,
                state_epoch: state.state_epoch,
                leader_epoch: state.leader_epoch,
                start_offset: state.start_offset,
                delivery_complete_count: state.delivery_complete_count,
                create_timestamp: state.create_timestamp_ms,
                write_timestamp: state.write_timestamp_ms,
                state_batches: state.batches.iter().map(batch).collect(),
            };
            let value = prefixed(VALUE_VERSION, &value, VALUE_VERSION)?;
            Ok(CoordinatorRecord { key: snapshot_key(key)?, value: Some(value) })
        }
        Change::Update { snapshot_epoch, leader_epoch, start_offset, delivery_complete_count, batches } => {
            let batch = |b: &StateBatch| share_update_value::StateBatch {
                first_offset: b.first_offset,
                last_offset: b.last_offset,
                delivery_state: b.delivery_state,
                delivery_count: b.delivery_count,
            };
            let value = ShareUpdateValue {
                snapshot_epoch: *snapshot_epoch,
                leader_epoch: *leader_epoch,
                start_offset: *start_offset,
                delivery_complete_count: *delivery_complete_count,
                state_batches: batches.iter().map(batch).collect(),
            };
            let value = prefixed(VALUE_VERSION, &value, VALUE_VERSION)?;
            Ok(CoordinatorRecord { key: update_key(key)?, value: Some(value) })
        }
        Change::Tombstone => Ok(CoordinatorRecord { key: snapshot_key(key)?, value: None }),
    }
}

/// Understands a record; `None` for one of a kind that is not known.
pub(super) fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Option<(SharePartitionKey, Change)>, ReplayError> {
    let (key_type, body) = split_prefix(key).ok_or(ReplayError::NoKeyType)?;
    match key_type {
        ShareSnapshotKey::API_KEY => {
            let key: ShareSnapshotKey = decode_key(key_type, body)?;
            let change = match value {
                None => Change::Tombstone,
                Some(value) => Change::Snapshot(snapshot(decode_value(key_type, value)?)),
            };
            let key =
                SharePartitionKey { group_id: key.group_id.into(), topic_id: key.topic_id, partition: key.partition };
            Ok(Some((key, change)))
        }
        ShareUpdateKey::API_KEY => {
            let key: ShareUpdateKey = decode_key(key_type, body)?;
            let Some(value) = value else { return Ok(None) };
            let change = update(decode_value(key_type, value)?);
            let key =
                SharePartitionKey { group_id: key.group_id.into(), topic_id: key.topic_id, partition: key.partition };
            Ok(Some((key, change)))
        }
        _ => Ok(None),
    }
}

fn snapshot(value: ShareSnapshotValue) -> ShareState {
    let batch = |b: share_snapshot_value::StateBatch| StateBatch {
        first_offset: b.first_offset,
        last_offset: b.last_offset,
        delivery_count: b.delivery_count,
        delivery_state: b.delivery_state,
    };
    ShareState {
        snapshot_epoch: value.snapshot_epoch,
        state_epoch: value.state_epoch,
        leader_epoch: value.leader_epoch,
        start_offset: value.start_offset,
        delivery_complete_count: value.delivery_complete_count,
        create_timestamp_ms: value.create_timestamp,
        write_timestamp_ms: value.write_timestamp,
        batches: value.state_batches.into_iter().map(batch).collect(),
    }
}

fn update(value: ShareUpdateValue) -> Change {
    let batch = |b: share_update_value::StateBatch| StateBatch {
        first_offset: b.first_offset,
        last_offset: b.last_offset,
        delivery_count: b.delivery_count,
        delivery_state: b.delivery_state,
    };
    Change::Update {
        snapshot_epoch: value.snapshot_epoch,
        leader_epoch: value.leader_epoch,
        start_offset: value.start_offset,
        delivery_complete_count: value.delivery_complete_count,
        batches: value.state_batches.into_iter().map(batch).collect(),
    }
}
