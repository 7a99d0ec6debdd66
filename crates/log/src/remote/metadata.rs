//! Records of `__remote_log_metadata`, from and to bytes, and the partition of that topic which holds them. Answers to Kafka's
//! `RemoteLogMetadataSerde` (frame version, api key and version as unsigned varints, then the record) and
//! `RemoteLogMetadataTopicPartitioner`. Keys of these records are null.

use taccola_base::{TopicPartition, Uuid};
use taccola_wire::codec::{DecodeError, Message, Reader, Struct, Writer};
use taccola_wire::messages::{
    remote_log_segment_metadata_record as full, remote_log_segment_metadata_update_record as update,
    remote_partition_delete_metadata_record as delete,
};

/// The only frame version that there is.
const FRAME_VERSION: u32 = 1;
/// Api keys of the records, by their schemas.
const SEGMENT: u32 = 0;
const UPDATE: u32 = 1;
const PARTITION_DELETE: u32 = 2;

/// Life of a remote segment; the numbers are Kafka's `RemoteLogSegmentState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum SegmentState {
    /// Objects may be there, in part.
    CopyStarted = 0,
    /// All objects are there: the segment may be read, and the local one may go.
    CopyFinished = 1,
    /// Nothing of it is read any more; objects may be there, in part.
    DeleteStarted = 2,
    /// Nothing is there.
    DeleteFinished = 3,
}

impl SegmentState {
    fn from_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(Self::CopyStarted),
            1 => Some(Self::CopyFinished),
            2 => Some(Self::DeleteStarted),
            3 => Some(Self::DeleteFinished),
            _ => None,
        }
    }

    /// Whether a segment may go from here to `next`. Saying the same again is allowed: appends may be repeated.
    pub fn may_become(self, next: Self) -> bool {
        use SegmentState::{CopyFinished, CopyStarted, DeleteFinished, DeleteStarted};
        self == next
            || matches!(
                (self, next),
                (CopyStarted, CopyFinished | DeleteStarted)
                    | (CopyFinished, DeleteStarted)
                    | (DeleteStarted, DeleteFinished)
            )
    }
}

/// Life of a deleted partition's remote data; the numbers are Kafka's `RemotePartitionDeleteState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum DeleteState {
    /// Somebody shall delete it.
    Marked = 0,
    /// Somebody does.
    Started = 1,
    /// Nothing is left.
    Finished = 2,
}

/// One segment in remote storage, as the record of its beginning and the later updates tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSegment {
    /// Chosen at random for each attempt to copy: objects of two attempts never mix.
    pub id: Uuid,
    /// Base offset of the local segment.
    pub start_offset: i64,
    /// Inclusive.
    pub end_offset: i64,
    /// Who wrote the record.
    pub broker_id: i32,
    /// Largest timestamp of a record.
    pub max_timestamp_ms: i64,
    /// When the last event was.
    pub event_timestamp_ms: i64,
    /// Bytes of the log object.
    pub size_bytes: i32,
    /// Leader epochs and where each begins; the first is clipped to `start_offset`. Not empty, rising in both.
    pub leader_epochs: Vec<(i32, i64)>,
    pub state: SegmentState,
    /// There is no object with aborted transactions.
    pub txn_index_empty: bool,
}

impl RemoteSegment {
    /// First and last offset (inclusive) that the segment has in `epoch`.
    pub fn range_in_epoch(&self, epoch: i32) -> Option<(i64, i64)> {
        let at = self.leader_epochs.iter().position(|(known, _)| *known == epoch)?;
        let start = self.leader_epochs.get(at).map(|(_, start)| *start)?;
        let end = self.leader_epochs.get(at + 1).map_or(self.end_offset, |(_, next)| next - 1);
        Some((start, end))
    }
}

/// A value in `__remote_log_metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteLogRecord {
    /// A copy begins.
    Segment { topic_id: Uuid, at: TopicPartition, segment: RemoteSegment },
    /// A segment goes on to its next state.
    Update {
        topic_id: Uuid,
        at: TopicPartition,
        id: Uuid,
        state: SegmentState,
        broker_id: i32,
        event_timestamp_ms: i64,
    },
    /// A partition was deleted.
    PartitionDelete { topic_id: Uuid, at: TopicPartition, state: DeleteState, broker_id: i32, event_timestamp_ms: i64 },
}

impl RemoteLogRecord {
    /// Topic id and partition that the record is about.
    pub fn partition(&self) -> (Uuid, &TopicPartition) {
        match self {
            Self::Segment { topic_id, at, .. }
            | Self::Update { topic_id, at, .. }
            | Self::PartitionDelete { topic_id, at, .. } => (*topic_id, at),
        }
    }

    /// The record's value; `None` if a name is longer than the format can say.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut w = Writer::new();
        let done = match self {
            Self::Segment { topic_id, at, segment } => {
                let topic_id_partition =
                    full::TopicIdPartitionEntry { name: at.topic.to_string(), id: *topic_id, partition: at.partition };
                let epochs = segment.leader_epochs.iter();
                let record = full::RemoteLogSegmentMetadataRecord {
                    remote_log_segment_id: full::RemoteLogSegmentIdEntry { topic_id_partition, id: segment.id },
                    start_offset: segment.start_offset,
                    end_offset: segment.end_offset,
                    broker_id: segment.broker_id,
                    max_timestamp_ms: segment.max_timestamp_ms,
                    event_timestamp_ms: segment.event_timestamp_ms,
                    segment_leader_epochs: epochs
                        .map(|(leader_epoch, offset)| full::SegmentLeaderEpochEntry {
                            leader_epoch: *leader_epoch,
                            offset: *offset,
                        })
                        .collect(),
                    segment_size_in_bytes: segment.size_bytes,
                    custom_metadata: None,
                    remote_log_segment_state: segment.state as i8,
                    txn_index_empty: segment.txn_index_empty,
                };
                frame(&mut w, SEGMENT, &record)
            }
            Self::Update { topic_id, at, id, state, broker_id, event_timestamp_ms } => {
                let topic_id_partition = update::TopicIdPartitionEntry {
                    name: at.topic.to_string(),
                    id: *topic_id,
                    partition: at.partition,
                };
                let record = update::RemoteLogSegmentMetadataUpdateRecord {
                    remote_log_segment_id: update::RemoteLogSegmentIdEntry { topic_id_partition, id: *id },
                    broker_id: *broker_id,
                    event_timestamp_ms: *event_timestamp_ms,
                    custom_metadata: None,
                    remote_log_segment_state: *state as i8,
                };
                frame(&mut w, UPDATE, &record)
            }
            Self::PartitionDelete { topic_id, at, state, broker_id, event_timestamp_ms } => {
                let topic_id_partition = delete::TopicIdPartitionEntry {
                    name: at.topic.to_string(),
                    id: *topic_id,
                    partition: at.partition,
                };
                let record = delete::RemotePartitionDeleteMetadataRecord {
                    topic_id_partition,
                    broker_id: *broker_id,
                    event_timestamp_ms: *event_timestamp_ms,
                    remote_partition_delete_state: *state as i8,
                };
                frame(&mut w, PARTITION_DELETE, &record)
            }
        };
        done.ok().map(|()| w.into_bytes().to_vec())
    }

    /// A record's value. `None`: a kind of record that says nothing of use here (a snapshot, which no version writes).
    pub fn decode(value: &[u8]) -> Result<Option<Self>, DecodeError> {
        let bytes = bytes::Bytes::copy_from_slice(value);
        let mut r = Reader::new(bytes);
        if r.uvarint()? != FRAME_VERSION {
            return Ok(None);
        }
        let (api_key, version) = (r.uvarint()?, r.uvarint()?);
        if version != 0 {
            return Ok(None);
        }
        Ok(match api_key {
            SEGMENT => segment_of(full::RemoteLogSegmentMetadataRecord::read_fields(&mut r, 0)?),
            UPDATE => {
                let record = update::RemoteLogSegmentMetadataUpdateRecord::read_fields(&mut r, 0)?;
                let of = record.remote_log_segment_id.topic_id_partition;
                SegmentState::from_id(record.remote_log_segment_state).map(|state| Self::Update {
                    topic_id: of.id,
                    at: TopicPartition::new(of.name.as_str(), of.partition),
                    id: record.remote_log_segment_id.id,
                    state,
                    broker_id: record.broker_id,
                    event_timestamp_ms: record.event_timestamp_ms,
                })
            }
            PARTITION_DELETE => {
                let record = delete::RemotePartitionDeleteMetadataRecord::read_fields(&mut r, 0)?;
                let of = record.topic_id_partition;
                let state = match record.remote_partition_delete_state {
                    0 => Some(DeleteState::Marked),
                    1 => Some(DeleteState::Started),
                    2 => Some(DeleteState::Finished),
                    _ => None,
                };
                state.map(|state| Self::PartitionDelete {
                    topic_id: of.id,
                    at: TopicPartition::new(of.name.as_str(), of.partition),
                    state,
                    broker_id: record.broker_id,
                    event_timestamp_ms: record.event_timestamp_ms,
                })
            }
            _ => None,
        })
    }
}

fn segment_of(record: full::RemoteLogSegmentMetadataRecord) -> Option<RemoteLogRecord> {
    let of = record.remote_log_segment_id.topic_id_partition;
    let mut leader_epochs: Vec<(i32, i64)> =
        record.segment_leader_epochs.iter().map(|entry| (entry.leader_epoch, entry.offset)).collect();
    leader_epochs.sort_unstable();
    let sane = !leader_epochs.is_empty() && record.start_offset >= 0 && record.start_offset <= record.end_offset;
    let segment = RemoteSegment {
        id: record.remote_log_segment_id.id,
        start_offset: record.start_offset,
        end_offset: record.end_offset,
        broker_id: record.broker_id,
        max_timestamp_ms: record.max_timestamp_ms,
        event_timestamp_ms: record.event_timestamp_ms,
        size_bytes: record.segment_size_in_bytes,
        leader_epochs,
        state: SegmentState::from_id(record.remote_log_segment_state)?,
        txn_index_empty: record.txn_index_empty,
    };
    let at = TopicPartition::new(of.name.as_str(), of.partition);
    sane.then_some(RemoteLogRecord::Segment { topic_id: of.id, at, segment })
}

fn frame(w: &mut Writer, api_key: u32, record: &impl Message) -> Result<(), taccola_wire::codec::EncodeError> {
    w.uvarint(FRAME_VERSION);
    w.uvarint(api_key);
    w.uvarint(0);
    record.write_fields(w, 0)
}

/// The partition of `__remote_log_metadata` that holds what concerns a partition. Only ids go into the hash, not names.
pub fn metadata_partition(topic_id: Uuid, partition: i32, partitions: i32) -> i32 {
    let bits = u128::from_be_bytes(*topic_id.as_bytes());
    let hash_of = |half: u64| (half ^ (half >> 32)) as u32 as i32;
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let hash = [hash_of(low), hash_of(high), partition]
        .iter()
        .fold(1_i32, |hash, part| hash.wrapping_mul(31).wrapping_add(*part));
    (murmur2(&hash.to_be_bytes()) & i32::MAX) % partitions.max(1)
}

/// The 32-bit MurmurHash2 of a four-byte key, with the seed that Kafka uses.
fn murmur2(data: &[u8; 4]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut k = u32::from_le_bytes(*data).wrapping_mul(M);
    k ^= k >> 24;
    let mut h = (0x9747_b28c_u32 ^ 4).wrapping_mul(M) ^ k.wrapping_mul(M);
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> RemoteSegment {
        RemoteSegment {
            id: Uuid::from_u128(77),
            start_offset: 10,
            end_offset: 29,
            broker_id: 1,
            max_timestamp_ms: 1_000,
            event_timestamp_ms: 2_000,
            size_bytes: 4_096,
            leader_epochs: vec![(0, 10), (3, 20)],
            state: SegmentState::CopyStarted,
            txn_index_empty: true,
        }
    }

    #[test]
    fn records_round_trip() {
        let at = TopicPartition::new("orders", 3);
        let topic_id = Uuid::from_u128(42);
        let records = [
            RemoteLogRecord::Segment { topic_id, at: at.clone(), segment: segment() },
            RemoteLogRecord::Update {
                topic_id,
                at: at.clone(),
                id: Uuid::from_u128(77),
                state: SegmentState::CopyFinished,
                broker_id: 1,
                event_timestamp_ms: 5,
            },
            RemoteLogRecord::PartitionDelete {
                topic_id,
                at,
                state: DeleteState::Started,
                broker_id: 1,
                event_timestamp_ms: 9,
            },
        ];
        for record in records {
            let bytes = record.encode().unwrap();
            assert_eq!(RemoteLogRecord::decode(&bytes).unwrap(), Some(record));
            for cut in 0..bytes.len() {
                let _ = RemoteLogRecord::decode(&bytes[..cut]);
            }
        }
        assert_eq!(segment().range_in_epoch(0), Some((10, 19)));
        assert_eq!(segment().range_in_epoch(3), Some((20, 29)));
        assert_eq!(segment().range_in_epoch(1), None);
    }

    /// What `RemoteLogMetadataTopicPartitioner` of 4.3.1 answers.
    #[test]
    fn the_partition_is_kafkas() {
        for (id, partition, count, expected) in PARTITIONS {
            assert_eq!(metadata_partition(id.parse().unwrap(), *partition, *count), *expected, "{id} {partition}");
        }
    }

    const PARTITIONS: &[(&str, i32, i32, i32)] = &[
        ("AAAAAAAAAAAAAAAAAAAAKg", 0, 1, 0),
        ("AAAAAAAAAAAAAAAAAAAAKg", 3, 7, 5),
        ("AAAAAAAAAAAAAAAAAAAAKg", 17, 50, 12),
        ("vQ3kGyvKSJyVtYgSbOTRlQ", 0, 7, 0),
        ("vQ3kGyvKSJyVtYgSbOTRlQ", 3, 50, 11),
        ("q83vEjRWeJCrze8SNFZ4kA", 1000, 7, 6),
        ("q83vEjRWeJCrze8SNFZ4kA", 0, 50, 32),
        ("_____________________w", 17, 7, 2),
        ("_____________________w", 1000, 50, 20),
    ];
}
