//! The records of `__transaction_state`: the key is a type (`i16`, 0) and the transactional id, the value a version
//! (`i16`) and the state. Answers to Kafka's `TransactionLog`.

use bytes::{Bytes, BytesMut};
use taccola_wire::codec::{EncodeError, Message, Reader, Writer};
use taccola_wire::messages::transaction_log_value::PartitionsSchema;
use taccola_wire::messages::{TransactionLogKey, TransactionLogValue};

use super::metadata::{Metadata, NO_EPOCH, NO_PRODUCER_ID, State};
use super::partitions::Partitions;
use crate::effects::CoordinatorRecord;
use crate::replay::ReplayError;

/// From this level of `transaction.version` on values are flexible.
pub(super) const FLEXIBLE_FROM: i16 = 1;

fn prefixed<M: Message>(prefix: i16, message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.write(&mut writer, version)?;
    let body = writer.into_bytes();
    let mut out = BytesMut::with_capacity(2 + body.len());
    out.extend_from_slice(&prefix.to_be_bytes());
    out.extend_from_slice(&body);
    Ok(out.freeze())
}

fn key(transactional_id: &str) -> Result<Bytes, EncodeError> {
    let key = TransactionLogKey { transactional_id: transactional_id.to_owned() };
    prefixed(TransactionLogKey::API_KEY, &key, 0)
}

/// `transaction_version` is the cluster's.
pub(super) fn state(
    transactional_id: &str,
    metadata: &Metadata,
    transaction_version: i16,
) -> Result<CoordinatorRecord, EncodeError> {
    let version = i16::from(transaction_version >= FLEXIBLE_FROM);
    Ok(CoordinatorRecord {
        key: key(transactional_id)?,
        value: Some(prefixed(version, &to_value(metadata, version), version)?),
    })
}

pub(super) fn tombstone(transactional_id: &str) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: key(transactional_id)?, value: None })
}

fn to_value(metadata: &Metadata, version: i16) -> TransactionLogValue {
    let topics = metadata.partitions.topics();
    let partitions = topics.map(|(topic, partitions)| PartitionsSchema {
        topic: topic.to_string(),
        partition_ids: partitions.iter().copied().collect(),
    });
    let value = TransactionLogValue {
        producer_id: metadata.producer_id,
        producer_epoch: metadata.producer_epoch,
        transaction_timeout_ms: metadata.timeout_ms,
        transaction_status: metadata.state.id(),
        transaction_partitions: (metadata.state != State::Empty).then(|| partitions.collect()),
        transaction_last_update_timestamp_ms: metadata.last_update_ms,
        transaction_start_timestamp_ms: metadata.start_ms,
        ..Default::default()
    };
    if version == 0 {
        return value;
    }
    TransactionLogValue {
        previous_producer_id: metadata.previous_producer_id,
        next_producer_id: metadata.next_producer_id,
        next_producer_epoch: metadata.next_producer_epoch,
        client_transaction_version: metadata.client_version,
        ..value
    }
}

/// A record that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    State(String, Box<Metadata>),
    Tombstone(String),
    /// Of a type or version that is not known: Kafka passes over it too.
    Unknown,
}

pub(super) fn read(key: &Bytes, value: Option<&Bytes>) -> Result<Record, ReplayError> {
    let (key_type, body) = split(key).ok_or(ReplayError::NoKeyType)?;
    if key_type != TransactionLogKey::API_KEY {
        return Ok(Record::Unknown);
    }
    let key =
        TransactionLogKey::read(&mut Reader::new(body), 0).map_err(|error| ReplayError::Key { key_type, error })?;
    let Some(value) = value else {
        return Ok(Record::Tombstone(key.transactional_id));
    };
    let (version, body) = split(value).ok_or(ReplayError::NoValueVersion { key_type })?;
    let versions = TransactionLogValue::MIN_VERSION..=TransactionLogValue::MAX_VERSION;
    if !versions.contains(&version) {
        return Ok(Record::Unknown);
    }
    let value = TransactionLogValue::read(&mut Reader::new(body), version)
        .map_err(|error| ReplayError::Value { key_type, error })?;
    let metadata = from_value(value).ok_or(ReplayError::State { key_type })?;
    Ok(Record::State(key.transactional_id, Box::new(metadata)))
}

/// `None`: no coordinator ever writes such a state.
fn from_value(value: TransactionLogValue) -> Option<Metadata> {
    let state = State::from_id(value.transaction_status)
        .filter(|state| !matches!(state, State::Dead | State::PrepareEpochFence))?;
    if value.producer_id < 0 || value.producer_epoch < 0 {
        return None;
    }
    let topics = value.transaction_partitions.unwrap_or_default();
    let partitions: Partitions =
        topics.iter().flat_map(|t| t.partition_ids.iter().map(|p| (t.topic.as_str(), *p))).collect();
    Some(Metadata {
        producer_id: value.producer_id,
        previous_producer_id: value.previous_producer_id.max(NO_PRODUCER_ID),
        next_producer_id: value.next_producer_id.max(NO_PRODUCER_ID),
        next_producer_epoch: value.next_producer_epoch.max(NO_EPOCH),
        producer_epoch: value.producer_epoch,
        last_producer_epoch: NO_EPOCH,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: if state == State::Empty { Partitions::new() } else { partitions },
        start_ms: value.transaction_start_timestamp_ms,
        last_update_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
    })
}

/// The type or version in front, and what follows.
fn split(bytes: &Bytes) -> Option<(i16, Bytes)> {
    let prefix = bytes.first_chunk::<2>()?;
    Some((i16::from_be_bytes(*prefix), bytes.slice(2..)))
}
