//! Making the log durable, and the clean stop. A flush that failed is never tried again: the page cache may have dropped
//! what it could not write, so the log goes offline until it is opened, and read, anew.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_base::planted::{Bug, planted};

use super::PartitionLog;
use super::types::Offset;
use crate::checkpoint::{LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA_FILE, write_epochs};
use crate::error::LogError;
use crate::file::SegmentFile;
use crate::log_dir::folder_of;
use crate::segment::{Kind, segment_path};
use crate::shared::LogShared;

/// How far the active segment grows before its producers are written out again, bytes.
const SNAPSHOT_EVERY_BYTES: u64 = 64 * 1024 * 1024;

/// From so many files and folders on the whole file system is flushed instead of each.
const FILES_FOR_FILE_SYSTEM: usize = 256;

/// A flush that can run outside the log's critical section: [`PartitionLog::begin_flush`], [`FlushPlan::run`],
/// [`PartitionLog::end_flush`].
#[derive(Debug)]
pub struct FlushPlan {
    files: Vec<Arc<dyn SegmentFile>>,
    /// The folder, and the log directory if the folder is new there.
    dirs: Vec<PathBuf>,
    log_dir: Option<PathBuf>,
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
        if planted(Bug::SkipFolderSync) {
            return Ok(());
        }
        self.dirs.iter().try_for_each(|dir| self.shared.sync_dir(dir))
    }

    /// Runs many plans, each with its own result, as one flush of the file systems if they are of many files.
    pub fn run_all(plans: &[FlushPlan]) -> Vec<io::Result<()>> {
        let files: usize = plans.iter().map(|plan| plan.files.len() + plan.dirs.len()).sum();
        let dirs: BTreeSet<_> = plans.iter().filter_map(|plan| plan.log_dir.as_deref()).collect();
        let at_once = files >= FILES_FOR_FILE_SYSTEM
            && !(planted(Bug::SkipSegmentSync) || planted(Bug::SkipFolderSync))
            && plans.iter().all(|plan| plan.log_dir.is_some())
            && plans.first().is_some_and(|first| dirs.iter().all(|dir| first.shared.sync_file_system(dir)));
        plans.iter().map(|plan| if at_once { Ok(()) } else { plan.run() }).collect()
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

    /// Whether a plan is under way. What was appended since it was made waits for the next one.
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
        if self.unborn || self.flush_running || (nothing && !self.epochs.get().is_some_and(|epochs| epochs.is_dirty()))
        {
            return Ok(None);
        }
        self.write_snapshot_if_far();
        let files = self.dirty_files().map_err(|e| self.go_offline(e))?;
        let mut dirs = Vec::new();
        if std::mem::take(&mut self.dir_dirty) {
            dirs.push(self.dir.clone());
        }
        if std::mem::take(&mut self.birth_dirty) {
            dirs.extend(self.dir.parent().map(Path::to_path_buf));
        }
        self.flush_running = true;
        self.flush_limit = i64::MAX;
        let log_dir = self.dir.parent().map(Path::to_path_buf);
        // What a transaction index lacks is found again by recovery, which begins here. So are leader epochs that found no
        // room.
        let lacks_epochs = self.epochs.get().is_some_and(|epochs| epochs.is_dirty());
        let found_again = self.first_suspect_txn_index().unwrap_or(Offset::MAX);
        let found_again = if lacks_epochs { found_again.min(self.recovery_point) } else { found_again };
        let end_offset = self.log_end_offset.min(found_again);
        Ok(Some(FlushPlan { files, dirs, log_dir, shared: Arc::clone(&self.shared), end_offset }))
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
        let sealed = self.sealed_for_close;
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
            if (i < last || sealed) && std::mem::take(&mut segment.index_dirty) {
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
        let mut small = Vec::new();
        if self.birth_dirty {
            small.push(self.dir.join(PARTITION_METADATA_FILE));
        }
        if self.epochs.get().is_some_and(|epochs| epochs.is_dirty()) {
            match self.write_epochs_if_dirty() {
                // It repeats what the batches say, and stays dirty.
                Err(error @ LogError::NoSpace { .. }) => {
                    tracing::warn!(log = %self.topic_partition, %error, "leader epochs not written");
                }
                written => written?,
            }
            self.dir_dirty = true;
            small.push(self.dir.join(LEADER_EPOCH_CHECKPOINT));
        } else if let Some(epochs) = self.epochs.get_mut().filter(|epochs| epochs.is_unsynced()) {
            epochs.set_clean();
            self.dir_dirty = true;
            small.push(self.dir.join(LEADER_EPOCH_CHECKPOINT));
        }
        files.extend(small.iter().filter_map(|path| self.shared.open_once(path, false).ok()));
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

    /// Recovery walks the batches behind the latest snapshot that lies before its scan: in a large segment that must not
    /// be the whole of it.
    fn write_snapshot_if_far(&mut self) {
        let size = self.active_segment().size;
        let Some(active) = self.active.as_mut().filter(|_| self.producers.get().is_some()) else { return };
        if size.saturating_sub(active.snapshot_position) >= SNAPSHOT_EVERY_BYTES {
            active.snapshot_position = size;
            self.write_snapshot(self.log_end_offset);
            self.remove_stray_snapshots();
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

    /// The first half of a clean stop, so that many logs are flushed together: indexes completed, producer snapshot at
    /// the log end offset. A log that was neither written to nor recovered since it was opened is not touched. Nothing is
    /// appended afterwards; a flush and [`close`](Self::close) follow.
    pub fn seal_for_close(&mut self) -> Result<(), LogError> {
        self.check_online()?;
        if self.unborn || self.sealed_for_close {
            return Ok(());
        }
        // Also of a log that was only recovered: after a clean stop Kafka takes a log without a snapshot for one without
        // producers, and would forget the transactions that are open in it.
        self.write_snapshot(self.log_end_offset);
        if self.active.is_some() {
            self.seal_active().map_err(|e| self.go_offline(e))?;
            self.remove_stray_snapshots();
        }
        // Recovery may have written indexes where nothing was appended since.
        self.sealed_for_close = true;
        self.dir_dirty |= self.segments.last().is_some_and(|segment| segment.index_dirty);
        Ok(())
    }

    /// A clean stop: [`seal_for_close`](Self::seal_for_close), flush. Answers the recovery point to checkpoint.
    pub fn close(mut self, now_ms: i64) -> Result<Offset, LogError> {
        self.seal_for_close()?;
        self.flush(now_ms)?;
        if self.first_suspect_txn_index().is_some() {
            return Err(LogError::NoSpace { path: self.dir.clone() });
        }
        self.purge(i64::MAX);
        Ok(self.recovery_point)
    }

    /// First step of a topic's deletion: renames the folder to `<topic>-<partition>.<id>-delete` and answers its path,
    /// for [`remove_deleted_dir`](crate::log_dir::remove_deleted_dir); `None` where there never was a folder. The rename
    /// is durable once the log directory is flushed, and until then the metadata say that the topic is gone.
    pub fn rename_for_delete(self, unique_id: Uuid) -> Result<Option<PathBuf>, LogError> {
        if self.unborn {
            return Ok(None);
        }
        let target = self.dir.with_file_name(folder_of(&self.topic_partition, unique_id, "delete"));
        for segment in &self.segments {
            segment.close_handles(&self.shared);
        }
        crate::file::rename(&self.dir, &target).map_err(|e| LogError::io("rename", &self.dir, e))?;
        Ok(Some(target))
    }
}
