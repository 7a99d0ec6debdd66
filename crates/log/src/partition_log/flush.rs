//! Making the log durable, and the clean stop. A flush that failed is never tried again: the page cache may have dropped
//! what it could not write, so the log goes offline until it is opened, and read, anew.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::planted::{Bug, planted};

use super::PartitionLog;
use super::types::Offset;
use crate::checkpoint::{LEADER_EPOCH_CHECKPOINT, write_epochs};
use crate::error::LogError;
use crate::file::SegmentFile;
use crate::segment::{Kind, segment_path};
use crate::shared::LogShared;

/// A flush that can run outside the log's critical section: [`PartitionLog::begin_flush`], [`FlushPlan::run`],
/// [`PartitionLog::end_flush`].
#[derive(Debug)]
pub struct FlushPlan {
    files: Vec<Arc<dyn SegmentFile>>,
    dir: Option<PathBuf>,
    shared: Arc<LogShared>,
    /// All below is durable once the plan ran.
    end_offset: Offset,
}

impl FlushPlan {
    /// Flushes the files. The result must be handed to [`PartitionLog::end_flush`].
    pub fn run(&self) -> io::Result<()> {
        if !planted(Bug::SkipSegmentSync) {
            self.files.iter().try_for_each(|file| file.sync())?;
        }
        self.dir.as_ref().filter(|_| !planted(Bug::SkipFolderSync)).map_or(Ok(()), |dir| self.shared.sync_dir(dir))
    }

    /// Exclusive end of what the plan makes durable.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }
}

impl PartitionLog {
    /// Makes all appended so far durable and answers the new recovery point. A failure takes the log offline.
    pub fn flush(&mut self, now_ms: i64) -> Result<Offset, LogError> {
        match self.begin_flush()? {
            Some(plan) => {
                let result = plan.run();
                self.end_flush(plan, result, now_ms)
            }
            None => {
                self.last_flush_ms = now_ms;
                Ok(self.recovery_point)
            }
        }
    }

    /// Whether a plan is under way.
    pub fn flush_is_running(&self) -> bool {
        self.flush_running
    }

    /// `None` when nothing is unflushed, or while another plan is under way.
    pub fn begin_flush(&mut self) -> Result<Option<FlushPlan>, LogError> {
        self.check_online()?;
        if self.first_suspect_txn_index().is_some() {
            match self.rebuild_suspect_txn_indexes() {
                Err(error @ LogError::NoSpace { .. }) => {
                    tracing::warn!(log = %self.topic_partition, %error, "transaction index not written");
                }
                rebuilt => rebuilt.map_err(|e| self.go_offline(e))?,
            }
        }
        let nothing = self.recovery_point == self.log_end_offset && !self.dir_dirty;
        if self.flush_running || (nothing && !self.epochs.get().is_some_and(|epochs| epochs.is_dirty())) {
            return Ok(None);
        }
        let files = self.dirty_files().map_err(|e| self.go_offline(e))?;
        match self.write_epochs_if_dirty() {
            // It repeats what the batches say, and stays dirty.
            Err(error @ LogError::NoSpace { .. }) => {
                tracing::warn!(log = %self.topic_partition, %error, "leader epochs not written");
            }
            written => written.map_err(|e| self.go_offline(e))?,
        }
        let dir = std::mem::take(&mut self.dir_dirty).then(|| self.dir.clone());
        self.flush_running = true;
        self.flush_limit = i64::MAX;
        // What a transaction index lacks is found again by recovery, which begins here.
        let end_offset = self.log_end_offset.min(self.first_suspect_txn_index().unwrap_or(Offset::MAX));
        Ok(Some(FlushPlan { files, dir, shared: Arc::clone(&self.shared), end_offset }))
    }

    /// Takes the result of a plan; answers the new recovery point.
    pub fn end_flush(&mut self, plan: FlushPlan, result: io::Result<()>, now_ms: i64) -> Result<Offset, LogError> {
        self.flush_running = false;
        self.check_online()?;
        if let Err(source) = result.or_else(|e| if planted(Bug::FlushErrorIgnored) { Ok(()) } else { Err(e) }) {
            let path = self.active_segment().path(&self.dir, Kind::Log);
            return Err(self.go_offline(LogError::Io { op: "flush", path, source }));
        }
        let flushed = plan.end_offset.min(self.log_end_offset).min(self.flush_limit);
        self.recovery_point = self.recovery_point.max(flushed);
        self.last_flush_ms = now_ms;
        Ok(self.recovery_point)
    }

    /// The files that the disk may not have in full. Index entries in memory are written out for sealed segments only:
    /// the active segment's can be found again from the log.
    fn dirty_files(&mut self) -> Result<Vec<Arc<dyn SegmentFile>>, LogError> {
        let mut files = Vec::new();
        let mut indexed = Vec::new();
        let last = self.segments.len().saturating_sub(1);
        for (i, segment) in self.segments.iter_mut().enumerate() {
            if std::mem::take(&mut segment.log_dirty) {
                files.push(segment.open(&self.shared, &self.dir, Kind::Log)?);
            }
            if std::mem::take(&mut segment.txn_dirty) {
                let path = segment.path(&self.dir, Kind::TxnIndex);
                let bytes = match self.shared.open_once(&path, false) {
                    Ok(file) => {
                        let bytes = crate::txn_index::read_bytes(&*file).map_err(|e| LogError::io("read", &path, e))?;
                        files.push(file);
                        bytes
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
                    Err(e) => return Err(LogError::io("open", path, e)),
                };
                indexed.push((segment.base_offset, bytes));
            }
            if i < last && std::mem::take(&mut segment.index_dirty) {
                match segment.write_indexes(&self.shared, &self.dir) {
                    Err(error @ LogError::NoSpace { .. }) => {
                        // Their entries stay in memory, and can be found again from the log.
                        tracing::warn!(log = %self.topic_partition, %error, "index not written");
                        segment.index_dirty = true;
                        continue;
                    }
                    written => written?,
                }
                files.push(segment.open(&self.shared, &self.dir, Kind::OffsetIndex)?);
                files.push(segment.open(&self.shared, &self.dir, Kind::TimeIndex)?);
            }
        }
        for offset in std::mem::take(&mut self.unsynced_snapshots) {
            // One that was removed in the meantime needs no flush.
            let path = segment_path(&self.dir, offset, "snapshot");
            if let Ok(file) = self.shared.open_once(&path, false) {
                files.push(file);
            }
        }
        self.note_txn_indexes(&indexed)?;
        Ok(files)
    }

    /// Writes down what transaction indexes hold now, if that changed.
    fn note_txn_indexes(&mut self, indexed: &[(Offset, Vec<u8>)]) -> Result<(), LogError> {
        if indexed.is_empty() {
            return Ok(());
        }
        let mut sums = self.txn_sums().clone();
        indexed.iter().for_each(|(base, bytes)| sums.note(*base, bytes));
        sums.keep(|base| self.segments.binary_search_by_key(&base, |segment| segment.base_offset).is_ok());
        if sums == *self.txn_sums() {
            return Ok(());
        }
        match sums.write(&self.dir) {
            Err(error @ LogError::NoSpace { .. }) => {
                tracing::warn!(log = %self.topic_partition, %error, "not written");
                return Ok(());
            }
            written => written?,
        }
        self.txn_sums = std::sync::OnceLock::from(Box::new(sums));
        Ok(())
    }

    pub(super) fn write_epochs_if_dirty(&mut self) -> Result<(), LogError> {
        if let Some(epochs) = self.epochs.get_mut()
            && epochs.is_dirty()
        {
            write_epochs(&self.dir.join(LEADER_EPOCH_CHECKPOINT), epochs.entries())?;
            epochs.set_clean();
        }
        Ok(())
    }

    /// Writes the producers as of now, the log end offset being `offset`. A failure costs a longer start after a crash,
    /// nothing else, so it is only logged.
    pub(super) fn write_snapshot(&mut self, offset: Offset) {
        if self.snapshots.last().is_some_and(|last| *last >= offset) || offset == 0 {
            return;
        }
        let bytes = self.producer_state().encode_snapshot();
        let path = segment_path(&self.dir, offset, "snapshot");
        match crate::file::write_file(&path, &bytes) {
            Ok(()) => {
                self.snapshots.push(offset);
                self.unsynced_snapshots.push(offset);
                self.dir_dirty = true;
            }
            Err(error) => {
                tracing::warn!(log = %self.topic_partition, %error, path = %path.display(), "snapshot not written");
                let _ = crate::file::remove_if_exists(&path);
            }
        }
    }

    /// Records appended since the last flush (`flush.messages`).
    pub fn unflushed_messages(&self) -> i64 {
        self.log_end_offset - self.recovery_point
    }

    pub fn last_flush_ms(&self) -> i64 {
        self.last_flush_ms
    }

    /// Whether `flush.messages` or `flush.ms` asks for a flush now.
    pub fn flush_due(&self, now_ms: i64) -> bool {
        let unflushed = self.unflushed_messages();
        unflushed > 0
            && (unflushed >= self.config.flush_messages
                || now_ms.saturating_sub(self.last_flush_ms) >= self.config.flush_ms)
    }

    /// A clean stop: indexes completed, producer snapshot at the log end offset, flush. Answers the recovery point to
    /// checkpoint. A log that was neither written to nor recovered since it was opened is not touched.
    pub fn close(mut self, now_ms: i64) -> Result<Offset, LogError> {
        self.check_online()?;
        // Also of a log that was only recovered: after a clean stop Kafka takes a log without a snapshot for one without
        // producers, and would forget the transactions that are open in it.
        self.write_snapshot(self.log_end_offset);
        if self.active.is_some() {
            self.seal_active().map_err(|e| self.go_offline(e))?;
            self.remove_stray_snapshots();
        }
        // Recovery may have written them where nothing was appended since.
        if let Some(segment) = self.segments.last_mut()
            && std::mem::take(&mut segment.index_dirty)
        {
            for kind in [Kind::OffsetIndex, Kind::TimeIndex] {
                let path = segment.path(&self.dir, kind);
                let file = segment.open(&self.shared, &self.dir, kind)?;
                file.sync().map_err(|e| LogError::io("flush", path, e))?;
            }
        }
        self.flush(now_ms)?;
        if self.first_suspect_txn_index().is_some() {
            return Err(LogError::NoSpace { path: self.dir.clone() });
        }
        self.purge(i64::MAX);
        Ok(self.recovery_point)
    }

    /// First step of a topic's deletion: renames the folder to `<topic>-<partition>.<id>-delete` and answers its path,
    /// for [`remove_deleted_dir`](crate::log_dir::remove_deleted_dir).
    pub fn rename_for_delete(self, unique_id: Uuid) -> Result<PathBuf, LogError> {
        let id: String = unique_id.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let suffix = format!(".{id}-delete");
        // Kafka cuts the topic's name where the whole would exceed a file name's 255 bytes.
        let partition = format!("-{}", self.topic_partition.partition);
        let room = 255usize.saturating_sub(suffix.len() + partition.len());
        let topic: String = self.topic_partition.topic.chars().take(room).collect();
        let target = self.dir.with_file_name(format!("{topic}{partition}{suffix}"));
        for segment in &self.segments {
            segment.close_handles(&self.shared);
        }
        crate::file::rename(&self.dir, &target).map_err(|e| LogError::io("rename", &self.dir, e))?;
        if let Some(parent) = self.dir.parent() {
            self.shared.sync_dir(parent).map_err(|e| LogError::io("flush", parent, e))?;
        }
        Ok(target)
    }
}
