//! How metadata records stand in the log of `__cluster_metadata-0` and in snapshots: record batches without keys, one
//! batch for what must be applied together.
//!
//! Answers to `BatchAccumulator`, `BatchBuilder` (raft) and `QuorumController.appendRecords`: an atomic command is exactly
//! one batch; other commands are cut into batches of at most [`BATCH_RECORDS_MAX`] records and [`BATCH_BYTES_MAX`] bytes.
//! An atomic command that is too large for one batch stands between BeginTransaction and EndTransaction records
//! (KIP-868), which a reader applies together.

use bytes::{Bytes, BytesMut};
use taccola_wire::batch::{
    BatchBuilder, BatchHeader, Compression, ControlRecord, ControlType, RecordIter, batches, verify_crc,
};
use taccola_wire::messages::{BeginTransactionRecord, EndTransactionRecord};

use crate::error::MetaError;
use crate::feature::MetadataVersion;
use crate::record::VersionedRecord;

/// Bytes of one batch, inclusive (`KafkaRaftClient.MAX_BATCH_SIZE_BYTES`).
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of one batch, inclusive (`QuorumController.MAX_RECORDS_PER_BATCH`).
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// What a batch takes beside its records.
const BATCH_OVERHEAD: usize = 61;

/// A batch that is ready to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBatch {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub bytes: Bytes,
}

/// Which leader appends, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendContext {
    /// Offset of the first record: the log end offset.
    pub base_offset: i64,
    pub leader_epoch: i32,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// The batches for one command's records. With `atomic`, either one batch or, where the metadata.version has them, a
/// transaction; else as many batches as it takes.
pub fn encode_batches(
    records: &[VersionedRecord],
    atomic: bool,
    version: MetadataVersion,
    at: AppendContext,
) -> Result<Vec<EncodedBatch>, MetaError> {
    let values = encode_all(records)?;
    let fits = |values: &[BytesMut]| {
        values.len() <= BATCH_RECORDS_MAX
            && values.iter().map(|v| record_bytes(v)).sum::<usize>() + BATCH_OVERHEAD <= BATCH_BYTES_MAX
    };
    if !atomic || fits(&values) {
        return cut(&values, at);
    }
    if !version.has_transactions() {
        let (max, max_bytes) = (BATCH_RECORDS_MAX, BATCH_BYTES_MAX);
        return Err(MetaError::NotAtomic { records: records.len(), max, max_bytes });
    }
    let mut whole = vec![VersionedRecord::new(BeginTransactionRecord::default(), 0).encode()?];
    whole.extend(values);
    whole.push(VersionedRecord::new(EndTransactionRecord::default(), 0).encode()?);
    cut(&whole, at)
}

fn encode_all(records: &[VersionedRecord]) -> Result<Vec<BytesMut>, MetaError> {
    records
        .iter()
        .map(|record| {
            let value = record.encode()?;
            let bytes = record_bytes(&value) + BATCH_OVERHEAD;
            if bytes > BATCH_BYTES_MAX {
                return Err(MetaError::RecordTooLarge { bytes, max: BATCH_BYTES_MAX });
            }
            Ok(value)
        })
        .collect()
}

fn record_bytes(value: &[u8]) -> usize {
    BatchBuilder::record_bytes_max(None, Some(value), &[])
}

/// Greedy: every batch but the last is as full as the bounds allow.
fn cut(values: &[BytesMut], at: AppendContext) -> Result<Vec<EncodedBatch>, MetaError> {
    let mut out = Vec::new();
    let mut next = at.base_offset;
    let mut builder = new_builder(next, at.leader_epoch);
    let mut bytes = BATCH_OVERHEAD;
    for value in values {
        let size = record_bytes(value);
        let full = bytes + size > BATCH_BYTES_MAX || builder.records_count() as usize >= BATCH_RECORDS_MAX;
        if full && !builder.is_empty() {
            out.push(finish(builder, &mut next)?);
            builder = new_builder(next, at.leader_epoch);
            bytes = BATCH_OVERHEAD;
        }
        builder.append(at.now_ms, None, Some(value), &[]);
        bytes += size;
    }
    if !builder.is_empty() {
        out.push(finish(builder, &mut next)?);
    }
    Ok(out)
}

fn new_builder(base_offset: i64, epoch: i32) -> BatchBuilder {
    BatchBuilder::new(Compression::None).base_offset(base_offset).partition_leader_epoch(epoch)
}

fn finish(builder: BatchBuilder, next: &mut i64) -> Result<EncodedBatch, MetaError> {
    let base_offset = *next;
    *next += i64::from(builder.records_count());
    let bytes = builder.build().map_err(|source| MetaError::Batch { offset: base_offset, source })?;
    Ok(EncodedBatch { base_offset, last_offset: *next - 1, bytes })
}

/// A control batch of one or several records.
pub(crate) fn control_batch(records: &[(ControlType, Bytes)], at: AppendContext) -> Result<EncodedBatch, MetaError> {
    let mut builder = new_builder(at.base_offset, at.leader_epoch).control(true);
    for (control_type, value) in records {
        builder.append(at.now_ms, Some(&control_type.key()), Some(value), &[]);
    }
    let mut next = at.base_offset;
    finish(builder, &mut next)
}

/// What one batch of the metadata log holds.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchContent {
    Records(Vec<VersionedRecord>),
    Control(Vec<ControlRecord>),
}

/// A batch that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedBatch {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub leader_epoch: i32,
    /// Milliseconds since the Unix epoch.
    pub append_time_ms: i64,
    pub content: BatchContent,
}

/// Reads exactly one batch: its CRC, its records, nothing behind it.
pub fn decode_batch(bytes: &Bytes) -> Result<DecodedBatch, MetaError> {
    let offset = BatchHeader::parse(bytes).map_or(-1, |h| h.base_offset);
    let in_batch = |source| MetaError::Batch { offset, source };
    let header = verify_crc(bytes).map_err(in_batch)?;
    let content = if header.is_control() {
        let records = RecordIter::new(bytes).map_err(in_batch)?;
        let decoded: Result<Vec<_>, _> = records.map(|r| r.and_then(|r| ControlRecord::decode(&r))).collect();
        BatchContent::Control(decoded.map_err(in_batch)?)
    } else {
        let mut decoded = Vec::new();
        for record in RecordIter::new(bytes).map_err(in_batch)? {
            let record = record.map_err(in_batch)?;
            let value = record.value.ok_or(MetaError::Frame("without a value").at(record.offset))?;
            decoded.push(VersionedRecord::decode(value).map_err(|e| e.at(record.offset))?);
        }
        BatchContent::Records(decoded)
    };
    Ok(DecodedBatch {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        leader_epoch: header.partition_leader_epoch,
        append_time_ms: header.max_timestamp,
        content,
    })
}

/// Reads a run of batches, such as a segment or a snapshot file; a batch that is cut off at the end is an error.
pub fn decode_batches(bytes: &Bytes) -> impl Iterator<Item = Result<DecodedBatch, MetaError>> + '_ {
    let mut run = batches(bytes);
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        match run.next() {
            Some(Ok(batch)) => Some(decode_batch(&bytes.slice_ref(batch.bytes))),
            Some(Err(source)) => {
                ended = true;
                Some(Err(MetaError::Batch { offset: -1, source }))
            }
            None => {
                ended = true;
                (!run.tail().is_empty()).then(|| Err(MetaError::Frame("cut off inside a batch")))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use taccola_wire::messages::{ConfigRecord, NoOpRecord};

    use super::*;

    const AT: AppendContext = AppendContext { base_offset: 40, leader_epoch: 3, now_ms: 1_000 };

    fn config(value_bytes: usize) -> VersionedRecord {
        let value = Some("v".repeat(value_bytes));
        VersionedRecord::new(ConfigRecord { resource_type: 2, name: "n".into(), value, ..Default::default() }, 0)
    }

    #[test]
    fn a_small_command_is_one_batch() {
        let records = vec![config(1), config(2)];
        let out = encode_batches(&records, true, MetadataVersion::LATEST, AT).unwrap();
        assert_eq!(out.len(), 1);
        let read = decode_batch(&out[0].bytes).unwrap();
        assert_eq!((read.base_offset, read.last_offset, read.leader_epoch, read.append_time_ms), (40, 41, 3, 1_000));
        assert_eq!(read.content, BatchContent::Records(records));
        assert!(encode_batches(&[], true, MetadataVersion::LATEST, AT).unwrap().is_empty());
    }

    #[test]
    fn a_large_atomic_command_is_a_transaction_of_contiguous_batches() {
        let records = vec![VersionedRecord::new(NoOpRecord::default(), 0); BATCH_RECORDS_MAX + 1];
        let out = encode_batches(&records, true, MetadataVersion::LATEST, AT).unwrap();
        assert_eq!(
            out.iter().map(|b| (b.base_offset, b.last_offset)).collect::<Vec<_>>(),
            [(40, 10_039), (10_040, 10_042)]
        );
        let kinds = |b: &EncodedBatch| match decode_batch(&b.bytes).unwrap().content {
            BatchContent::Records(r) => (r[0].record.name(), r[r.len() - 1].record.name()),
            BatchContent::Control(_) => ("", ""),
        };
        assert_eq!(kinds(&out[0]).0, "BeginTransactionRecord");
        assert_eq!(kinds(&out[1]).1, "EndTransactionRecord");
        assert!(matches!(encode_batches(&records, true, MetadataVersion(12), AT), Err(MetaError::NotAtomic { .. })));
        assert_eq!(encode_batches(&records, false, MetadataVersion(12), AT).unwrap().len(), 2);
    }

    #[test]
    fn batches_are_bounded_in_bytes() {
        let records: Vec<_> = (0..1_000).map(|_| config(30_000)).collect();
        let out = encode_batches(&records, false, MetadataVersion::LATEST, AT).unwrap();
        assert!(out.len() > 3 && out.iter().all(|b| b.bytes.len() <= BATCH_BYTES_MAX));
        assert_eq!(out.last().map(|b| b.last_offset), Some(1_039));
        // A string longer than Kafka's strings is refused, not cut.
        let long = encode_batches(&[config(BATCH_BYTES_MAX)], false, MetadataVersion::LATEST, AT);
        assert!(matches!(long, Err(MetaError::Encode { .. })));
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let out = encode_batches(&[config(9)], false, MetadataVersion::LATEST, AT).unwrap();
        let mut bytes = out[0].bytes.to_vec();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        assert!(matches!(decode_batch(&bytes.into()), Err(MetaError::Batch { offset: 40, .. })));
        let cut = out[0].bytes.slice(..out[0].bytes.len() - 1);
        assert_eq!(decode_batches(&cut).collect::<Vec<_>>(), [Err(MetaError::Frame("cut off inside a batch"))]);
    }
}
