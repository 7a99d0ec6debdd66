//! The log of a partition moves to another log directory: a copy is made beside it while appends and reads go on, and takes
//! its place in one critical section once it has caught up.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use taccola_log::{AppendError, LogError, PartitionLog, ReadError, log_dir};

use super::Partition;

/// Read from the log at a time while appends wait, bytes.
const LAST_BYTES: usize = 4 * 1024 * 1024;
/// How often that is read at the end, while appends wait.
const LAST_READS_MAX: usize = 2;

/// What one step of copying did.
#[derive(Debug, PartialEq, Eq)]
pub enum Copied {
    /// There may be more.
    Some,
    /// The copy had everything a moment ago.
    All,
    /// The partition is not here any more.
    Gone,
}

/// Whether the copy took the log's place.
#[derive(Debug)]
pub enum Swapped {
    /// And where the folder of the old log is, if it had one, to be deleted.
    Done(Option<PathBuf>),
    /// Something was appended, or is being flushed: later.
    NotYet(PartitionLog),
    /// The partition is not here any more.
    Gone(PartitionLog),
}

/// Why a log cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("reading: {0}")]
    Read(#[from] ReadError),
    #[error("writing: {0}")]
    Append(#[from] AppendError),
}

impl Partition {
    /// Copies what comes next, so many bytes or one batch. Reads and writes outside the critical section.
    pub fn copy_some(&self, copy: &mut PartitionLog, bytes_max: usize, now_ms: i64) -> Result<Copied, RelocateError> {
        let Some(original) = self.with_log(|log| log.as_original()) else { return Ok(Copied::Gone) };
        if original.is_unborn {
            return Ok(Copied::All);
        }
        copy.make_folder()?;
        if original.log_start_offset > copy.log_end_offset() {
            copy.truncate_fully_and_start_at(original.log_start_offset, now_ms)?;
        }
        let next = copy.log_end_offset();
        if next >= original.log_end_offset {
            return Ok(Copied::All);
        }
        let Some(slice) = self.with_log(|log| log.read(next, bytes_max, i64::MAX, true)) else {
            return Ok(Copied::Gone);
        };
        let bytes = match slice.and_then(|slice| slice.read()) {
            // Retention was faster.
            Err(ReadError::OffsetOutOfRange { start, .. }) if start > next => return Ok(Copied::Some),
            read => read?,
        };
        if bytes.is_empty() {
            // What is missing at the end was compacted away, which the last batch's offsets never are.
            return Ok(Copied::All);
        }
        copy.copy_from(&bytes, &original, now_ms)?;
        Ok(Copied::Some)
    }

    /// Puts a copy in the log's place if little is missing, which is copied and flushed while appends wait. An error behind the point where the old log was let go
    /// of leaves the partition without a log until the next start, which finds the copy.
    pub fn swap_log(&self, mut copy: PartitionLog, to_dir: usize, now_ms: i64) -> Result<Swapped, RelocateError> {
        let mut state = self.state.lock();
        let Some(log) = &mut state.log else { return Ok(Swapped::Gone(copy)) };
        let original = log.as_original();
        if log.flush_is_running() || copy.is_unborn() != original.is_unborn {
            return Ok(Swapped::NotYet(copy));
        }
        for _ in 0..LAST_READS_MAX {
            let next = copy.log_end_offset();
            if next >= original.log_end_offset || original.log_start_offset > next {
                break;
            }
            let bytes = log.read(next, LAST_BYTES, i64::MAX, true)?.read()?;
            copy.copy_from(&bytes, &original, now_ms)?;
        }
        if copy.log_end_offset() != original.log_end_offset {
            return Ok(Swapped::NotYet(copy));
        }
        copy.flush(now_ms)?;
        copy.set_high_watermark(log.high_watermark());
        if original.log_start_offset > copy.log_start_offset() {
            copy.delete_records_before(original.log_start_offset, now_ms)?;
        }
        let Some(log) = state.log.take() else { return Ok(Swapped::Gone(copy)) };
        let deleted = log.rename_for_delete(crate::random::uuid())?;
        if let Some(dir) = deleted.as_deref().and_then(|path| path.parent()) {
            log_dir::sync(dir)?;
        }
        copy.become_current()?;
        copy.set_config(state.config.log.clone());
        state.log = Some(copy);
        self.log_dir.store(to_dir, Ordering::Release);
        state.wake_all();
        Ok(Swapped::Done(deleted))
    }
}
