//! Reads of offsets that are in remote storage only. Answers to Kafka's `RemoteLogManager.read` and `RemoteLogReader`.
//!
//! INVARIANT: what is handed out are whole batches with a right checksum, in the order of their offsets and within those of their
//! segment, the first of which holds the offset that was asked for or, where the log has a gap, the next one behind it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use taccola_log::remote::RemoteSegment;
use taccola_log::{AbortedTxn, ReadError};
use taccola_remote::RemoteError;
use taccola_wire::batch::{BatchHeader, HEADER_BYTES, verify_crc};

use super::cache::{CHUNK_BYTES, CacheError, ChunkKey, Want};
use super::index::position_of;
use super::objects::{ObjectKind, object_key};
use super::{Key, RemoteStorage};
use crate::partition::{FetchIsolation, Partition, PartitionRead, ReadRejected};

/// Bytes beyond what was asked for that are looked at at once: an index entry comes about every 4 KiB.
const SLACK_BYTES: u64 = 16 * 1024;
/// Index objects larger than this are not used; the log is walked instead.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteReadError {
    /// Neither tier has the offset, or the local one changed meanwhile.
    #[error(transparent)]
    Rejected(#[from] ReadRejected),
    /// The store does not give it, or as many wait as may.
    #[error("{0}")]
    Unavailable(String),
    /// What the store gave is not what was copied.
    #[error("offset {offset}: {why}")]
    Corrupt { offset: i64, why: String },
}

impl RemoteReadError {
    pub(super) fn store(error: CacheError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A log as a read sees it.
#[derive(Clone)]
pub(super) struct LogView {
    pub(super) epochs: Vec<(i32, i64)>,
    pub(super) start: i64,
    pub(super) local_start: i64,
    pub(super) end: i64,
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) upper_bound: i64,
}

pub(super) fn view(partition: &Partition, isolation: FetchIsolation) -> Result<LogView, RemoteReadError> {
    let view = partition.with_log(|log| LogView {
        epochs: log.leader_epochs().to_vec(),
        start: log.log_start_offset(),
        local_start: log.local_log_start_offset(),
        end: log.log_end_offset(),
        high_watermark: log.high_watermark(),
        last_stable_offset: log.last_stable_offset(),
        upper_bound: isolation.upper_bound(log),
    });
    view.ok_or(RemoteReadError::Rejected(ReadRejected::NotLeader))
}

fn key_of(partition: &Partition) -> Key {
    (partition.topic_id, partition.topic_partition.partition)
}

/// As [`Partition::read`], for an offset of which that said that it is in remote storage.
pub(crate) async fn read_partition(
    remote: &Arc<RemoteStorage>,
    partition: &Arc<Partition>,
    offset: i64,
    max_bytes: usize,
    min_one_batch: bool,
    isolation: FetchIsolation,
) -> Result<PartitionRead, RemoteReadError> {
    remote.wait_loaded().await;
    let view = view(partition, isolation)?;
    let mut from = offset;
    loop {
        if from < view.start {
            return Err(out_of_range(&view, offset));
        }
        if from >= view.local_start {
            // Behind a gap at the end of the last remote segment, or deleted here meanwhile.
            return Ok(partition.read(from, max_bytes, min_one_batch, isolation)?);
        }
        let Some(segment) = remote.find(&key_of(partition), &view.epochs, from) else {
            return Err(out_of_range(&view, offset));
        };
        let reader = SegmentReader { remote, partition, segment: &segment };
        let records = match reader.read(from, max_bytes as u64, min_one_batch).await {
            Ok(records) => records,
            // Retention was faster than this read: the log begins later now.
            Err(RemoteReadError::Unavailable(_)) if log_start(partition) > from => {
                return Err(out_of_range(&view, offset));
            }
            Err(error) => return Err(error),
        };
        let Some(records) = records else {
            from = segment.end_offset + 1;
            continue;
        };
        let aborted_txns = match isolation {
            FetchIsolation::TxnCommitted => reader.aborted(&view, offset, &records).await?,
            _ => Vec::new(),
        };
        return Ok(PartitionRead {
            records,
            high_watermark: view.high_watermark,
            last_stable_offset: view.last_stable_offset,
            log_start_offset: view.start,
            upper_bound: view.upper_bound,
            aborted_txns,
        });
    }
}

fn log_start(partition: &Partition) -> i64 {
    partition.with_log(|log| log.log_start_offset()).unwrap_or(i64::MAX)
}

fn out_of_range(view: &LogView, offset: i64) -> RemoteReadError {
    let error = ReadError::OffsetOutOfRange { offset, start: view.start, end: view.end };
    RemoteReadError::Rejected(ReadRejected::Log(error))
}

/// Reads one remote segment.
pub(super) struct SegmentReader<'a> {
    pub(super) remote: &'a RemoteStorage,
    pub(super) partition: &'a Partition,
    pub(super) segment: &'a RemoteSegment,
}

impl SegmentReader<'_> {
    fn size(&self) -> u64 {
        u64::try_from(self.segment.size_bytes).unwrap_or(0)
    }

    fn object(&self, kind: ObjectKind) -> String {
        object_key(&self.partition.topic_partition, self.partition.topic_id, self.segment, kind)
    }

    fn corrupt(&self, offset: i64, why: impl std::fmt::Display) -> RemoteReadError {
        RemoteReadError::Corrupt { offset, why: format!("{}: {why}", self.object(ObjectKind::Log)) }
    }

    /// An object beside the log, whole. One that is not there is empty.
    pub(super) async fn whole(&self, kind: ObjectKind) -> Result<Bytes, RemoteReadError> {
        let key = ChunkKey { segment: self.segment.id, kind, chunk: 0 };
        match self.remote.cache.get(key, self.object(kind), Want::Whole(INDEX_BYTES_MAX)).await {
            Ok(bytes) => Ok(bytes),
            Err(CacheError::Store(error))
                if matches!(*error, RemoteError::NotFound { .. } | RemoteError::TooLarge { .. }) =>
            {
                tracing::warn!(object = self.object(kind), %error, "an index is missing in remote storage");
                Ok(Bytes::new())
            }
            Err(error) => Err(RemoteReadError::store(error)),
        }
    }

    fn chunk(&self, chunk: u64) -> Option<(ChunkKey, String, Want)> {
        let start = chunk * CHUNK_BYTES;
        let end = (start + CHUNK_BYTES).min(self.size());
        let key = ChunkKey { segment: self.segment.id, kind: ObjectKind::Log, chunk };
        (start < end).then(|| (key, self.object(ObjectKind::Log), Want::Range(start..end)))
    }

    /// Bytes of the log, fewer only at its end.
    pub(super) async fn bytes(&self, position: u64, length: u64) -> Result<Bytes, RemoteReadError> {
        let end = position.saturating_add(length).min(self.size());
        let mut out = BytesMut::new();
        let mut at = position;
        while at < end {
            let number = at / CHUNK_BYTES;
            let Some((key, object, want)) = self.chunk(number) else { break };
            let chunk = self.remote.cache.get(key, object, want).await.map_err(RemoteReadError::store)?;
            let from = usize::try_from(at - number * CHUNK_BYTES).unwrap_or(usize::MAX);
            let to = usize::try_from(end - number * CHUNK_BYTES).unwrap_or(usize::MAX).min(chunk.len());
            if from >= to {
                return Err(self.corrupt(self.segment.start_offset, "shorter than it was"));
            }
            if at == position && to as u64 + number * CHUNK_BYTES == end {
                return Ok(chunk.slice(from..to));
            }
            out.extend_from_slice(chunk.get(from..to).unwrap_or_default());
            at += (to - from) as u64;
        }
        Ok(out.freeze())
    }

    /// Batches from the one with `offset` on, about `max_bytes`; `None` when the segment ends before.
    async fn read(&self, offset: i64, max_bytes: u64, min_one: bool) -> Result<Option<Bytes>, RemoteReadError> {
        let Some((position, bytes)) = self.locate(offset, max_bytes).await? else { return Ok(None) };
        let first = self.header(&bytes, offset)?;
        let size = first.size_bytes() as u64;
        if size > max_bytes && !min_one {
            return Ok(Some(Bytes::new()));
        }
        let want = size.max(max_bytes);
        let enough = bytes.len() as u64 >= want.min(self.size() - position);
        let bytes = if enough { bytes } else { self.bytes(position, want).await? };
        let end = self.whole_batches(&bytes, want, offset)?;
        self.prefetch(position + end as u64);
        Ok(Some(bytes.slice(..end)))
    }

    /// Where the first batch is that ends at or behind `offset`, and what was read from there on, at least its header.
    async fn locate(&self, offset: i64, max_bytes: u64) -> Result<Option<(u64, Bytes)>, RemoteReadError> {
        let index = self.whole(ObjectKind::OffsetIndex).await?;
        let hint = position_of(&index, offset - self.segment.start_offset);
        for from in [hint, 0] {
            match self.scan(from, |header| header.last_offset() >= offset, max_bytes).await {
                // The index led behind the offset.
                Ok(Some((position, bytes))) if from > 0 && position == from => {
                    let header = self.header(&bytes, offset)?;
                    if header.base_offset <= offset {
                        return Ok(Some((position, bytes)));
                    }
                }
                Ok(found) => return Ok(found),
                Err(RemoteReadError::Corrupt { .. }) if from > 0 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Walks headers from `position` on; the first that `wanted` says yes to, with what was read from there on.
    pub(super) async fn scan(
        &self,
        mut position: u64,
        mut wanted: impl FnMut(&BatchHeader) -> bool,
        max_bytes: u64,
    ) -> Result<Option<(u64, Bytes)>, RemoteReadError> {
        let mut bytes = Bytes::new();
        let mut at = 0_usize;
        while position + (at as u64) < self.size() {
            if bytes.len() < at.saturating_add(HEADER_BYTES) {
                position += at as u64;
                at = 0;
                bytes = self.bytes(position, max_bytes.saturating_add(SLACK_BYTES)).await?;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let header = self.header(rest, self.segment.start_offset)?;
            if wanted(&header) {
                return Ok(Some((position + at as u64, bytes.slice(at..))));
            }
            at = at.saturating_add(header.size_bytes());
        }
        Ok(None)
    }

    /// The header at the front of `bytes`, which must be one that can be in this segment.
    fn header(&self, bytes: &[u8], offset: i64) -> Result<BatchHeader, RemoteReadError> {
        let header = BatchHeader::parse(bytes).map_err(|error| self.corrupt(offset, error))?;
        let possible = self.segment.start_offset..=self.segment.end_offset;
        if header.last_offset_delta < 0
            || !possible.contains(&header.base_offset)
            || !possible.contains(&header.last_offset())
        {
            return Err(self.corrupt(offset, "a batch that does not belong there"));
        }
        Ok(header)
    }

    /// Length of the whole, good batches at the front of `bytes`, `max_bytes` at most; at least one.
    fn whole_batches(&self, bytes: &[u8], max_bytes: u64, offset: i64) -> Result<usize, RemoteReadError> {
        let mut end = 0;
        let mut next_offset = self.segment.start_offset;
        while let Some(rest) = bytes.get(end..).filter(|rest| rest.len() >= HEADER_BYTES) {
            let judged = self.header(rest, offset).and_then(|header| {
                let size = header.size_bytes();
                if end > 0 && (size > rest.len() || (end + size) as u64 > max_bytes) {
                    return Ok(None);
                }
                verify_crc(rest).map_err(|error| self.corrupt(header.base_offset, error))?;
                if header.base_offset < next_offset {
                    return Err(self.corrupt(header.base_offset, "offsets go back"));
                }
                Ok(Some(header))
            });
            match judged {
                Ok(Some(header)) => {
                    end += header.size_bytes();
                    next_offset = header.next_offset();
                }
                Ok(None) => break,
                Err(error) if end == 0 => return Err(error),
                // The next read begins there, and is told.
                Err(_) => break,
            }
        }
        if end == 0 { Err(self.corrupt(offset, "no whole batch")) } else { Ok(end) }
    }

    /// Has the chunk read that follows `position`, or the beginning of the next segment.
    fn prefetch(&self, position: u64) {
        if let Some((key, object, want)) = self.chunk(position / CHUNK_BYTES + 1) {
            return self.remote.cache.prefetch(key, object, want);
        }
        let epochs = self.partition.with_log(|log| log.leader_epochs().to_vec()).unwrap_or_default();
        if let Some(next) = self.remote.find(&key_of(self.partition), &epochs, self.segment.end_offset + 1) {
            let reader = SegmentReader { remote: self.remote, partition: self.partition, segment: &next };
            if let Some((key, object, want)) = reader.chunk(0) {
                self.remote.cache.prefetch(key, object, want);
            }
            let key = ChunkKey { segment: next.id, kind: ObjectKind::OffsetIndex, chunk: 0 };
            self.remote.cache.prefetch(key, reader.object(ObjectKind::OffsetIndex), Want::Whole(INDEX_BYTES_MAX));
        }
    }

    /// The aborted transactions that touch what was read from `offset` on: from this segment, those behind it, and the local log.
    async fn aborted(&self, view: &LogView, offset: i64, records: &[u8]) -> Result<Vec<AbortedTxn>, RemoteReadError> {
        let mut upper_bound = offset;
        for batch in taccola_wire::batch::batches(records).map_while(Result::ok) {
            upper_bound = batch.header.next_offset();
        }
        let mut found = Vec::new();
        let mut segment = self.segment.clone();
        loop {
            let reader = SegmentReader { remote: self.remote, partition: self.partition, segment: &segment };
            let txns = if segment.txn_index_empty { Vec::new() } else { reader.txns().await? };
            let complete = txns.iter().any(|txn| txn.last_stable_offset >= upper_bound);
            found.extend(txns.into_iter().filter(|txn| txn.last_offset >= offset && txn.first_offset < upper_bound));
            if complete {
                break;
            }
            let next = segment.end_offset + 1;
            match self.remote.find(&key_of(self.partition), &view.epochs, next).filter(|_| next < view.local_start) {
                Some(behind) => segment = behind,
                None => {
                    let local =
                        self.partition.with_log(|log| log.aborted_txns(next.max(offset), upper_bound.max(next)));
                    let local = local.ok_or(RemoteReadError::Rejected(ReadRejected::NotLeader))?;
                    let local = local.map_err(|error| RemoteReadError::Rejected(error.into()))?;
                    found.extend(local.into_iter().filter(|txn| txn.first_offset < upper_bound));
                    break;
                }
            }
        }
        found.sort_unstable_by_key(|txn| (txn.first_offset, txn.last_offset));
        found.dedup();
        Ok(found)
    }

    async fn txns(&self) -> Result<Vec<AbortedTxn>, RemoteReadError> {
        let bytes = self.whole(ObjectKind::TxnIndex).await?;
        let (txns, sane) = taccola_log::parse_txn_index(&bytes);
        let range = self.segment.start_offset..=self.segment.end_offset;
        if bytes.is_empty() || !sane || !txns.iter().all(|txn| range.contains(&txn.last_offset)) {
            // Without it aborted records would pass for committed ones.
            return Err(self.corrupt(self.segment.start_offset, "the index of aborted transactions is damaged"));
        }
        Ok(txns)
    }
}
