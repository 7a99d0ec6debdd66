//! The log's side of tiered storage (KIP-405): what may be copied, what remote storage makes dispensable here, and where the local
//! part of the log begins. Answers to the `remoteLogEnabled` paths of Kafka's `UnifiedLog`.
//!
//! With `remote.storage.enable` the log start offset is that of both tiers: it does not follow the local segments, and offsets
//! between it and the first local segment are read from remote storage ([`ReadError::InRemoteStorage`]).
//!
//! INVARIANT: a local segment goes by `local.retention.*` only when all of it is below [`PartitionLog::set_copied_to`], or together with
//! the log start offset.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::PartitionLog;
use super::types::Offset;
use crate::checkpoint::render_epochs;
use crate::error::{LogError, ReadError};
use crate::file::{SegmentFile, read_small};
use crate::scan::{Bounds, Scanner, Step};
use crate::segment::{Kind, segment_path};

/// Larger index files are not copied: `segment.index.bytes` allows less.
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A sealed segment that may be copied, and what goes with it. Read it outside of the partition's lock.
#[derive(Debug)]
pub struct CopyCandidate {
    pub base_offset: Offset,
    /// Exclusive: where the next segment begins.
    pub end_offset: Offset,
    pub size_bytes: u64,
    /// -1 when no record has one.
    pub max_timestamp_ms: i64,
    /// Leader epochs in the segment; the first begins at `base_offset`.
    pub leader_epochs: Vec<(i32, Offset)>,
    /// `leader-epoch-checkpoint` of the log up to the segment's end.
    pub epoch_checkpoint: Bytes,
    log: Arc<dyn SegmentFile>,
    dir: PathBuf,
    /// Aborted transactions as readers here get them, which is not always what the file says. `None`: there are none.
    txn_index: Option<Bytes>,
    /// Producer state at `end_offset`, where there is no file.
    snapshot: Option<Vec<u8>>,
}

/// The files beside a segment's `.log`.
#[derive(Debug)]
pub struct CopyIndexes {
    pub offset_index: Bytes,
    pub time_index: Bytes,
    /// `None`: no transaction was aborted.
    pub txn_index: Option<Bytes>,
    pub producer_snapshot: Bytes,
}

impl CopyCandidate {
    /// Reads the files beside the `.log`.
    pub fn indexes(&self) -> Result<CopyIndexes, LogError> {
        let read = |offset: Offset, suffix: &str| {
            let path = segment_path(&self.dir, offset, suffix);
            read_small(&path, INDEX_BYTES_MAX).map_err(|e| LogError::io("read", path, e))
        };
        let whole = |bytes: Option<Vec<u8>>| Bytes::from(bytes.unwrap_or_default());
        let snapshot = match &self.snapshot {
            Some(bytes) => Some(bytes.clone()),
            None => read(self.end_offset, "snapshot")?,
        };
        Ok(CopyIndexes {
            offset_index: whole(read(self.base_offset, Kind::OffsetIndex.suffix())?),
            time_index: whole(read(self.base_offset, Kind::TimeIndex.suffix())?),
            txn_index: self.txn_index.clone(),
            producer_snapshot: whole(snapshot),
        })
    }

    /// Whole batches from `position` on, about `max` bytes of them and at least one; `None` at the end. Every checksum is verified:
    /// what is damaged must not become the only copy.
    pub fn read(&self, position: u64, max: usize) -> Result<Option<Bytes>, ReadError> {
        let path = || segment_path(&self.dir, self.base_offset, "log");
        let io_error = |e| LogError::io("read", path(), e);
        let mut scanner = Scanner::new(&*self.log, position, self.size_bytes);
        let mut bounds = Bounds { offset_min: self.base_offset, offset_end: self.end_offset };
        let mut out = Vec::new();
        while out.len() < max {
            match scanner.peek_checked(bounds).map_err(io_error)? {
                Step::Batch(header) => {
                    out.extend_from_slice(scanner.bytes(&header).map_err(io_error)?);
                    bounds.offset_min = header.next_offset();
                    scanner.advance(&header);
                }
                Step::End => break,
                Step::Bad(_) => {
                    let log = path().display().to_string();
                    return Err(ReadError::CorruptRecord {
                        log,
                        first: bounds.offset_min,
                        next_valid: self.end_offset,
                    });
                }
            }
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }
}

impl PartitionLog {
    /// Whether older records may be in remote storage only.
    pub fn is_tiered(&self) -> bool {
        self.config.remote_storage_enable
    }

    /// First offset that is here: at or above the log start offset.
    pub fn local_log_start_offset(&self) -> Offset {
        self.segments.first().map_or(0, |segment| segment.base_offset).max(self.log_start_offset)
    }

    /// Everything from the log start offset up to here (exclusive) is in remote storage, for good. What is above is kept whatever
    /// `local.retention.*` says.
    pub fn set_copied_to(&mut self, offset: Offset) {
        self.copied_to = offset;
    }

    /// See [`Self::set_copied_to`].
    pub fn copied_to(&self) -> Offset {
        self.copied_to
    }

    /// Leader epochs and where they begin, in both tiers.
    pub fn leader_epochs(&self) -> &[(i32, Offset)] {
        self.epochs().entries()
    }

    /// Puts back epochs that begin before the first one that is known, out of remote segments.
    pub fn restore_older_epochs(&mut self, older: &[(i32, Offset)]) {
        let log_start = self.log_start_offset;
        self.epochs_mut().prepend(older, log_start);
    }

    /// Bytes of local segments that are not wholly below `offset`.
    pub fn size_from(&self, offset: Offset) -> u64 {
        let ends_above = |(i, _): &(usize, &crate::segment::Segment)| self.segment_end(*i) > offset;
        self.segments.iter().enumerate().filter(ends_above).map(|(_, segment)| segment.size).sum()
    }

    /// The first sealed segment that ends above `copied_to` and is wholly stable and on disk. What holds damage is not offered, nor is
    /// anything behind it.
    pub fn copy_candidate(&self, copied_to: Offset) -> Result<Option<CopyCandidate>, LogError> {
        self.check_online()?;
        let stable = self.last_stable_offset().min(self.recovery_point);
        for (i, segment) in self.segments.iter().enumerate() {
            let end = self.segment_end(i);
            if end <= copied_to.max(self.log_start_offset) {
                continue;
            }
            let is_sealed = i + 1 < self.segments.len();
            let is_damaged = self.quarantined.iter().any(|range| range.segment_base_offset == segment.base_offset);
            if !is_sealed || end > stable || is_damaged {
                return Ok(None);
            }
            if segment.size == 0 || end <= segment.base_offset {
                continue;
            }
            let base_offset = segment.base_offset;
            let max = segment.max_timestamp(&self.shared, &self.dir, end)?;
            let entries = self.epochs().entries();
            let before_end = entries.partition_point(|(_, start)| *start < end);
            let known = entries.get(..before_end).unwrap_or_default();
            let from = known.partition_point(|(_, start)| *start <= base_offset).saturating_sub(1);
            let mut leader_epochs: Vec<(i32, Offset)> = known.get(from..).unwrap_or_default().to_vec();
            if let Some(first) = leader_epochs.first_mut() {
                first.1 = base_offset;
            }
            let txns: Vec<u8> = self.txns_of(i, segment)?.iter().flat_map(crate::txn_index::encode).collect();
            let has_snapshot = self.snapshots.binary_search(&end).is_ok();
            return Ok(Some(CopyCandidate {
                base_offset,
                end_offset: end,
                size_bytes: segment.size,
                max_timestamp_ms: max.timestamp,
                leader_epochs,
                epoch_checkpoint: Bytes::from(render_epochs(known)),
                log: segment.open(&self.shared, &self.dir, Kind::Log)?,
                dir: self.dir.clone(),
                txn_index: (!txns.is_empty()).then(|| Bytes::from(txns)),
                snapshot: (!has_snapshot).then(|| self.load_producers(end).encode_snapshot()),
            }));
        }
        Ok(None)
    }
}
