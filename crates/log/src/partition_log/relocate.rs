//! A copy of a log in another log directory, which takes its place once it has caught up. Answers to the future logs of
//! Kafka's `LogManager` (KIP-113): until then the folder is `<topic>-<partition>.<32 hexadecimal digits>-future`.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use taccola_base::{TopicPartition, Uuid};
use taccola_wire::batch::batches;

use super::PartitionLog;
use super::types::Offset;
use crate::config::LogConfig;
use crate::error::{AppendError, LogError};
use crate::file::sync_dir;
use crate::log_dir::folder_of;
use crate::segment::Segment;
use crate::shared::LogShared;

impl PartitionLog {
    /// An empty copy of a log, in another log directory. `unique_id` is new.
    pub fn create_future(
        log_dir: &Path,
        topic_partition: TopicPartition,
        topic_id: Option<Uuid>,
        unique_id: Uuid,
        config: Arc<LogConfig>,
        shared: Arc<LogShared>,
    ) -> Result<Self, LogError> {
        let dir = log_dir.join(folder_of(&topic_partition, unique_id, "future"));
        let mut log = Self::assemble(dir, topic_partition, topic_id, config, shared, vec![Segment::new_empty(0)], 0);
        log.unborn = true;
        log.producers = OnceLock::from(Box::default());
        log.epochs = OnceLock::from(Box::default());
        Ok(log)
    }

    /// Whether nothing of the log is on disk yet.
    pub fn is_unborn(&self) -> bool {
        self.unborn
    }

    /// Takes whole batches out of `original` as they are, and answers the new log end offset. What the original has dropped
    /// in the meantime is dropped here too.
    pub fn copy_from(&mut self, bytes: &[u8], original: &OriginalLog, now_ms: i64) -> Result<Offset, AppendError> {
        self.compacted |= original.compacted;
        for batch in batches(bytes) {
            let batch = batch.map_err(|error| AppendError::Malformed { reason: error.to_string() })?;
            let base = batch.header.base_offset;
            let is_empty = self.log_start_offset == self.log_end_offset;
            if is_empty && base != self.log_end_offset {
                self.truncate_fully_and_start_at(base, now_ms)?;
            }
            self.append_copied(batch.bytes, now_ms)?;
        }
        Ok(self.log_end_offset)
    }

    /// Makes the copy the log: what the original's readers may see they may see here, and the folder gets its name. All of
    /// it must be flushed, and the original's folder renamed, durably, before.
    pub fn become_current(&mut self) -> Result<(), LogError> {
        let (from, Some(log_dir)) = (self.dir.clone(), self.dir.parent().map(Path::to_path_buf)) else { return Ok(()) };
        let to = log_dir.join(self.topic_partition.to_string());
        if !self.unborn {
            crate::file::rename(&from, &to).map_err(|e| LogError::io("rename", &from, e))?;
            sync_dir(&log_dir).map_err(|e| LogError::io("flush", &log_dir, e))?;
        }
        self.dir = to;
        Ok(())
    }

    /// What a copy must know of this log.
    pub fn as_original(&self) -> OriginalLog {
        OriginalLog {
            log_start_offset: self.log_start_offset,
            log_end_offset: self.log_end_offset,
            compacted: self.may_have_gaps(),
            is_unborn: self.unborn,
        }
    }
}

/// A log of which a copy is made, as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalLog {
    pub log_start_offset: Offset,
    pub log_end_offset: Offset,
    /// Offsets may be missing anywhere.
    pub compacted: bool,
    /// It has no folder.
    pub is_unborn: bool,
}
