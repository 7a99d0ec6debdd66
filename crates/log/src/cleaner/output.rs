//! Writes a segment beside those that it will replace: `.cleaned` files, complete and on disk when they are handed over.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::BatchHeader;

use super::Source;
use crate::error::LogError;
use crate::file::{SegmentFile, remove_if_exists};
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::partition_log::{AbortedTxn, Offset};
use crate::segment::{Kind, MaxTimestamp, segment_path};
use crate::shared::LogShared;
use crate::txn_index;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 1024 * 1024;

/// A segment whose files end in `.cleaned` and are on disk.
#[derive(Debug)]
pub struct CleanedSegment {
    pub(crate) base_offset: Offset,
    pub(crate) size: u64,
    pub(crate) kinds: Vec<Kind>,
    /// Base offset and size of the segments that it replaces, as they were read.
    pub(crate) replaces: Vec<(Offset, u64)>,
}

pub(crate) fn cleaned_path(dir: &Path, base_offset: Offset, kind: Kind) -> PathBuf {
    with_suffix(&segment_path(dir, base_offset, kind.suffix()), "cleaned")
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

pub(super) struct SegmentWriter<'a> {
    dir: &'a Path,
    shared: &'a LogShared,
    base_offset: Offset,
    index_interval_bytes: u64,
    log: Arc<dyn SegmentFile>,
    written: u64,
    buffer: Vec<u8>,
    offsets: Vec<u8>,
    times: Vec<u8>,
    txns: Vec<u8>,
    bytes_since_index: u64,
    max: MaxTimestamp,
    last_time_entry: i64,
}

impl<'a> SegmentWriter<'a> {
    pub(super) fn create(
        dir: &'a Path,
        shared: &'a LogShared,
        base_offset: Offset,
        index_interval_bytes: u32,
    ) -> Result<Self, LogError> {
        let path = cleaned_path(dir, base_offset, Kind::Log);
        let log = shared.open_once(&path, true).map_err(|e| LogError::io("create", &path, e))?;
        log.set_len(0).map_err(|e| LogError::io("truncate", &path, e))?;
        Ok(Self {
            dir,
            shared,
            base_offset,
            index_interval_bytes: u64::from(index_interval_bytes),
            log,
            written: 0,
            buffer: Vec::new(),
            offsets: Vec::new(),
            times: Vec::new(),
            txns: Vec::new(),
            bytes_since_index: 0,
            max: MaxTimestamp::NONE,
            last_time_entry: -1,
        })
    }

    /// Bytes of batches so far.
    pub(super) fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn append(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        let position = self.size();
        if header.max_timestamp > self.max.timestamp {
            self.max = MaxTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
        if self.bytes_since_index > self.index_interval_bytes {
            self.bytes_since_index = 0;
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            OffsetEntry { relative_offset: self.relative(header.last_offset()), position }.encode(&mut self.offsets);
            self.push_time_entry();
        }
        self.bytes_since_index += batch.len() as u64;
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= WRITE_BYTES { self.write_out() } else { Ok(()) }
    }

    /// An aborted transaction of which something stays.
    pub(super) fn aborted(&mut self, txn: &AbortedTxn) {
        self.txns.extend_from_slice(&txn_index::encode(txn));
    }

    /// Completes the files and makes them durable.
    pub(super) fn finish(mut self, replaced: &[Source]) -> Result<CleanedSegment, LogError> {
        self.write_out()?;
        self.push_time_entry();
        let sync = || if planted(Bug::SwapBeforeSync) { Ok(()) } else { self.log.sync() };
        sync().map_err(|e| LogError::io("flush", cleaned_path(self.dir, self.base_offset, Kind::Log), e))?;
        let mut kinds = vec![Kind::OffsetIndex, Kind::TimeIndex];
        self.write_file(Kind::OffsetIndex, &self.offsets)?;
        self.write_file(Kind::TimeIndex, &self.times)?;
        if !self.txns.is_empty() {
            self.write_file(Kind::TxnIndex, &self.txns)?;
            kinds.push(Kind::TxnIndex);
        }
        // The log's name is the last to change: with it the replacement counts.
        kinds.push(Kind::Log);
        Ok(CleanedSegment {
            base_offset: self.base_offset,
            size: self.written,
            kinds,
            replaces: replaced.iter().map(|source| (source.base_offset, source.size)).collect(),
        })
    }

    /// Removes what was written.
    pub(super) fn discard(self) {
        let _ = remove_if_exists(&cleaned_path(self.dir, self.base_offset, Kind::Log));
    }

    fn relative(&self, offset: Offset) -> u32 {
        u32::try_from(offset.saturating_sub(self.base_offset)).unwrap_or(0)
    }

    fn push_time_entry(&mut self) {
        if self.max.offset >= 0 && self.last_time_entry < self.max.timestamp {
            self.last_time_entry = self.max.timestamp;
            let entry = TimeEntry { timestamp: self.max.timestamp, relative_offset: self.relative(self.max.offset) };
            entry.encode(&mut self.times);
        }
    }

    fn write_out(&mut self) -> Result<(), LogError> {
        let path = || cleaned_path(self.dir, self.base_offset, Kind::Log);
        self.log.write_at(&self.buffer, self.written).map_err(|e| LogError::io("write", path(), e))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn write_file(&self, kind: Kind, bytes: &[u8]) -> Result<(), LogError> {
        let path = cleaned_path(self.dir, self.base_offset, kind);
        let write = || {
            let file = self.shared.open_once(&path, true)?;
            file.set_len(0)?;
            file.write_at(bytes, 0)?;
            file.sync()
        };
        write().map_err(|e| LogError::io("write", &path, e))
    }
}
