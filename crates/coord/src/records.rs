//! The records of `__consumer_offsets` that classic groups and committed offsets consist of: a key is a type (`i16`) and
//! its fields, a value a version (`i16`) and its fields. Answers to Kafka's `GroupCoordinatorRecordHelpers`,
//! `CoordinatorRecordType` and `GroupCoordinatorRecordSerde`.

use bytes::{Bytes, BytesMut};
use taccola_wire::codec::{EncodeError, Message, Writer};
use taccola_wire::messages::{GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};

use crate::effects::CoordinatorRecord;
use crate::offsets::OffsetAndMetadata;

/// The value version that Kafka 4.3 writes for an offset: 1 is the only one with an expire timestamp.
fn offset_value_version(offset: &OffsetAndMetadata) -> i16 {
    if offset.expire_timestamp_ms.is_some() { 1 } else { 4 }
}

/// The value version that Kafka 4.3 writes for a group.
const GROUP_VALUE_VERSION: i16 = 3;

/// An `i16` and a message: both keys and values have this form. Keys have one schema version, 0.
pub(crate) fn prefixed<M: Message>(prefix: i16, message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.write(&mut writer, version)?;
    let body = writer.into_bytes();
    let mut out = BytesMut::with_capacity(2 + body.len());
    out.extend_from_slice(&prefix.to_be_bytes());
    out.extend_from_slice(&body);
    Ok(out.freeze())
}

/// A record with a value; `version` is that of the value.
pub(crate) fn encoded<K: Message, V: Message>(
    key_type: i16,
    key: &K,
    version: i16,
    value: &V,
) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: prefixed(key_type, key, 0)?, value: Some(prefixed(version, value, version)?) })
}

pub(crate) fn tombstone<K: Message>(key_type: i16, key: &K) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: prefixed(key_type, key, 0)?, value: None })
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Result<Bytes, EncodeError> {
    let key = OffsetCommitKey { group: group.to_owned(), topic: topic.to_owned(), partition };
    prefixed(OffsetCommitKey::API_KEY, &key, 0)
}

pub(crate) fn offset_commit(
    group: &str,
    topic: &str,
    partition: i32,
    offset: &OffsetAndMetadata,
) -> Result<CoordinatorRecord, EncodeError> {
    let version = offset_value_version(offset);
    let value = OffsetCommitValue {
        offset: offset.committed_offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.to_string(),
        commit_timestamp: offset.commit_timestamp_ms,
        expire_timestamp: offset.expire_timestamp_ms.unwrap_or(-1),
        topic_id: offset.topic_id,
    };
    Ok(CoordinatorRecord {
        key: offset_key(group, topic, partition)?,
        value: Some(prefixed(version, &value, version)?),
    })
}

pub(crate) fn offset_tombstone(group: &str, topic: &str, partition: i32) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: offset_key(group, topic, partition)?, value: None })
}

fn group_key(group: &str) -> Result<Bytes, EncodeError> {
    prefixed(GroupMetadataKey::API_KEY, &GroupMetadataKey { group: group.to_owned() }, 0)
}

pub(crate) fn group_metadata(group: &str, value: &GroupMetadataValue) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord {
        key: group_key(group)?,
        value: Some(prefixed(GROUP_VALUE_VERSION, value, GROUP_VALUE_VERSION)?),
    })
}

pub(crate) fn group_tombstone(group: &str) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: group_key(group)?, value: None })
}
