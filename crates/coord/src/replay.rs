//! Rebuilding a shard from the log: one record at a time, and the ends of transactions. Answers to Kafka's
//! `GroupCoordinatorShard.replay` and `GroupCoordinatorRecordSerde`.

use std::sync::Arc;

use bytes::Bytes;
use taccola_wire::codec::{DecodeError, Message, Reader};
use taccola_wire::messages::{
    GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, OffsetCommitKey, OffsetCommitValue,
};

use crate::classic::Group;
use crate::consumer::GroupRecord;
use crate::offsets::OffsetAndMetadata;
use crate::shard::GroupShard;
use crate::share;
use crate::streams;

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
    #[error("the value of a record of type {key_type} tells of a state that cannot be")]
    State { key_type: i16 },
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
        let (key_type, body) = split_prefix(key).ok_or(ReplayError::NoKeyType)?;
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
            share::KEY_TYPE_FIRST..=share::KEY_TYPE_LAST => {
                if let Some(record) = share::decode(key_type, body, value)? {
                    self.apply_share(0, record);
                }
            }
            streams::KEY_TYPE_FIRST..=streams::KEY_TYPE_LAST => {
                if let Some(record) = streams::decode(key_type, body, value)? {
                    self.apply_streams(record);
                }
            }
            _ => match GroupRecord::decode(key_type, body, value)? {
                Some(record) => self.apply_consumer(&record),
                None => return Ok(Replayed::Skipped),
            },
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
        let offset = OffsetAndMetadata::from_record(offset, value);
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
                self.consumer.remove(&group.id);
                self.groups.insert(group.id.clone(), group);
            }
        }
    }

    /// Takes in the marker that ends the producer's transaction.
    pub fn replay_end_transaction(&mut self, producer_id: i64, commit: bool) {
        self.offsets.end_transaction(producer_id, commit);
    }
}

/// The type or version in front, and what follows.
pub(crate) fn split_prefix(bytes: &Bytes) -> Option<(i16, Bytes)> {
    let prefix = bytes.first_chunk::<2>()?;
    Some((i16::from_be_bytes(*prefix), bytes.slice(2..)))
}

pub(crate) fn decode_key<M: Message>(key_type: i16, body: Bytes) -> Result<M, ReplayError> {
    M::read(&mut Reader::new(body), 0).map_err(|error| ReplayError::Key { key_type, error })
}

pub(crate) fn decode_value<M: Message>(key_type: i16, value: &Bytes) -> Result<M, ReplayError> {
    let (version, body) = split_prefix(value).ok_or(ReplayError::NoValueVersion { key_type })?;
    M::read(&mut Reader::new(body), version).map_err(|error| ReplayError::Value { key_type, error })
}

#[cfg(test)]
mod tests {
    use taccola_wire::batch::{RecordIter, batches};
    use taccola_wire::messages::ListGroupsRequest;
    use taccola_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;

    use super::*;
    use crate::{GroupConfig, Reply, RequestContext, RequestToken, records};

    /// The partition as Kafka 4.3.1 wrote it: a classic group that was deleted, a KIP-848 group, a static member, offsets
    /// that the groups tool reset, a share group.
    const SEGMENT: &[u8] = include_bytes!("../testdata/jvm_4_3_1.consumer_offsets.log");

    fn segment() -> Vec<(i64, i64, Bytes, Option<Bytes>)> {
        let mut records = Vec::new();
        for batch in batches(SEGMENT) {
            let batch = Bytes::copy_from_slice(batch.unwrap().bytes);
            let iter = RecordIter::new(&batch).unwrap();
            let producer_id = iter.header().producer_id;
            for record in iter {
                let record = record.unwrap();
                records.push((record.offset, producer_id, record.key.unwrap(), record.value));
            }
        }
        records
    }

    #[test]
    fn a_log_of_the_jvm_loads() {
        let mut shard = GroupShard::new(GroupConfig::default(), std::sync::Arc::new(crate::cluster_image::EmptyImage));
        let mut skipped = 0;
        for (offset, producer_id, key, value) in segment() {
            let replayed = shard.replay(offset, producer_id, &key, value.as_ref()).unwrap();
            skipped += usize::from(replayed == Replayed::Skipped);
        }
        assert_eq!(skipped, 0);
        let effects = shard.loaded(0);
        assert_eq!(effects.timers.len(), 2, "one session, and the look for expired offsets");
        let groups = shard.list_groups(&ListGroupsRequest::default());
        let rows: Vec<String> =
            groups.iter().map(|g| format!("{} {} {}", g.group_id, g.group_type, g.group_state)).collect();
        assert_eq!(rows, ["gstatic classic Stable", "simple classic Empty", "g848 consumer Empty", "sh1 share Empty"]);
        for (group, expected) in [("jvm-group", ""), ("g848", "10 0"), ("gstatic", "10 0"), ("simple", "0 0")] {
            let ctx = RequestContext {
                token: RequestToken(1),
                api_version: 8,
                client_id: "",
                client_host: "",
                fresh_id: [0; 16],
            };
            let request = OffsetFetchRequestGroup { group_id: group.to_owned(), topics: None, ..Default::default() };
            let Reply::Now(response) = shard.handle_offset_fetch(0, &ctx, request, true).response else {
                panic!("nothing is being written")
            };
            let offsets = response.topics.iter().flat_map(|t| &t.partitions).map(|p| p.committed_offset.to_string());
            assert_eq!(offsets.collect::<Vec<_>>().join(" "), expected, "{group}");
        }
    }

    /// What this crate writes for the same state is what the JVM wrote, to the byte.
    #[test]
    fn records_are_written_as_the_jvm_writes_them() {
        let mut written = 0;
        for (_, _, key, value) in segment() {
            let (key_type, key_body) = split_prefix(&key).unwrap();
            let record = match (key_type, &value) {
                (OffsetCommitKey::API_KEY, value) => {
                    let key: OffsetCommitKey = decode_key(key_type, key_body).unwrap();
                    let value = value.as_ref().map(|v| decode_value::<OffsetCommitValue>(key_type, v).unwrap());
                    match value {
                        None => records::offset_tombstone(&key.group, &key.topic, key.partition),
                        Some(value) => {
                            let offset = OffsetAndMetadata::from_record(0, value);
                            records::offset_commit(&key.group, &key.topic, key.partition, &offset)
                        }
                    }
                }
                (GroupMetadataKey::API_KEY, value) => {
                    let key: GroupMetadataKey = decode_key(key_type, key_body).unwrap();
                    match value.as_ref().map(|v| decode_value::<GroupMetadataValue>(key_type, v).unwrap()) {
                        None => records::group_tombstone(&key.group),
                        Some(value) => {
                            let group = Group::from_record(key.group.as_str().into(), 1, &value);
                            records::group_metadata(&key.group, &group.to_record(|m| m.assignment.clone()))
                        }
                    }
                }
                _ => match GroupRecord::decode(key_type, key_body, value.as_ref()).unwrap() {
                    Some(record) => {
                        eprintln!("{record:?}");
                        record.encode()
                    }
                    None => continue,
                },
            };
            let record = record.unwrap();
            assert_eq!((record.key, record.value), (key, value));
            written += 1;
        }
        assert_eq!(written, 25);
    }
}
