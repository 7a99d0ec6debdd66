//! Rebuilding a shard from the log: one record at a time, and the ends of transactions. Answers to Kafka's
//! `GroupCoordinatorShard.replay` and `GroupCoordinatorRecordSerde`.

use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::codec::{DecodeError, Message, Reader};
use taccola_wire::messages::{
    ConsumerGroupMetadataKey, GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, OffsetCommitKey,
    OffsetCommitValue, ShareGroupMetadataKey, StreamsGroupMetadataKey,
};

use crate::classic::Group;
use crate::offsets::OffsetAndMetadata;
use crate::shard::GroupShard;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    Applied,
    /// Of a kind that is not served, or not known: it stays in the log as it is.
    Skipped,
}

/// A record that says something about groups or offsets, and that cannot be understood: going on without it could lose
/// offsets, so that the partition must not be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("a record's key has no type")]
    NoKeyType,
    #[error("the key of type {key_type} does not decode: {error}")]
    Key { key_type: i16, error: DecodeError },
    #[error("the value of a record of type {key_type} has no version")]
    NoValueVersion { key_type: i16 },
    #[error("the value of a record of type {key_type} does not decode: {error}")]
    Value { key_type: i16, error: DecodeError },
}

/// Groups that other kinds of coordinators look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForeignGroup {
    Consumer,
    Share,
    Streams,
}

impl ForeignGroup {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }

    /// As in the list of groups.
    pub(crate) fn protocol_type(self) -> &'static str {
        self.name()
    }
}

/// `producer_id` of a record outside of any transaction.
const NO_PRODUCER_ID: i64 = -1;

impl GroupShard {
    /// Takes in one record of the log, in the log's order. `producer_id` is that of a transactional batch, else -1:
    /// offsets in a transaction count when [`GroupShard::replay_end_transaction`] says so.
    pub fn replay(
        &mut self,
        offset: i64,
        producer_id: i64,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<Replayed, ReplayError> {
        let (key_type, body) = prefixed(key).ok_or(ReplayError::NoKeyType)?;
        match key_type {
            LegacyOffsetCommitKey::API_KEY | OffsetCommitKey::API_KEY => {
                let key: OffsetCommitKey = decode_key(key_type, body)?;
                let value = value.map(|v| decode_value(key_type, v)).transpose()?;
                self.replay_offset(offset, producer_id, &key, value);
            }
            GroupMetadataKey::API_KEY => {
                let key: GroupMetadataKey = decode_key(key_type, body)?;
                let value = value.map(|v| decode_value(key_type, v)).transpose()?;
                self.replay_group(&key, value.as_ref());
            }
            ConsumerGroupMetadataKey::API_KEY => {
                let key: ConsumerGroupMetadataKey = decode_key(key_type, body)?;
                self.replay_foreign(&key.group_id, ForeignGroup::Consumer, value.is_some());
            }
            ShareGroupMetadataKey::API_KEY => {
                let key: ShareGroupMetadataKey = decode_key(key_type, body)?;
                self.replay_foreign(&key.group_id, ForeignGroup::Share, value.is_some());
            }
            StreamsGroupMetadataKey::API_KEY => {
                let key: StreamsGroupMetadataKey = decode_key(key_type, body)?;
                self.replay_foreign(&key.group_id, ForeignGroup::Streams, value.is_some());
            }
            _ => return Ok(Replayed::Skipped),
        }
        Ok(Replayed::Applied)
    }

    fn replay_offset(
        &mut self,
        offset: i64,
        producer_id: i64,
        key: &OffsetCommitKey,
        value: Option<OffsetCommitValue>,
    ) {
        let Some(value) = value else {
            return self.offsets.remove(&key.group, &key.topic, key.partition);
        };
        let (group, topic): (Arc<str>, Arc<str>) = (key.group.as_str().into(), key.topic.as_str().into());
        self.ensure_group(&group, value.commit_timestamp);
        let offset = OffsetAndMetadata {
            record_offset: offset,
            committed_offset: value.offset,
            leader_epoch: value.leader_epoch.max(-1),
            metadata: value.metadata.into(),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
            topic_id: value.topic_id,
        };
        if producer_id == NO_PRODUCER_ID {
            self.offsets.put(&group, &topic, key.partition, offset);
        } else {
            self.offsets.put_pending(producer_id, &group, &topic, key.partition, offset);
        }
    }

    fn replay_group(&mut self, key: &GroupMetadataKey, value: Option<&GroupMetadataValue>) {
        match value {
            None => {
                self.groups.remove(key.group.as_str());
            }
            Some(value) => {
                let incarnation = self.new_incarnation();
                let group = Group::from_record(key.group.as_str().into(), incarnation, value);
                self.foreign.remove(&group.id);
                self.groups.insert(group.id.clone(), group);
            }
        }
    }

    /// A group of another kind may take the place of one that has offsets alone.
    fn replay_foreign(&mut self, group_id: &str, kind: ForeignGroup, exists: bool) {
        if exists {
            self.groups.remove(group_id);
            self.foreign.insert(group_id.into(), kind);
        } else {
            self.foreign.remove(group_id);
        }
    }

    /// Takes in the marker that ends the producer's transaction.
    pub fn replay_end_transaction(&mut self, producer_id: i64, commit: bool) {
        self.offsets.end_transaction(producer_id, commit);
    }
}

/// The type or version in front, and what follows.
fn prefixed(bytes: &Bytes) -> Option<(i16, Bytes)> {
    let prefix = bytes.first_chunk::<2>()?;
    Some((i16::from_be_bytes(*prefix), bytes.slice(2..)))
}

fn decode_key<M: Message>(key_type: i16, body: Bytes) -> Result<M, ReplayError> {
    M::read(&mut Reader::new(body), 0).map_err(|error| ReplayError::Key { key_type, error })
}

fn decode_value<M: Message>(key_type: i16, value: &Bytes) -> Result<M, ReplayError> {
    let (version, body) = prefixed(value).ok_or(ReplayError::NoValueVersion { key_type })?;
    M::read(&mut Reader::new(body), version).map_err(|error| ReplayError::Value { key_type, error })
}
