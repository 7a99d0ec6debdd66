//! The metadata log and the image that it builds. One writer at a time turns a command into records, appends them to
//! `__cluster_metadata-0`, waits until they are as durable as any acknowledged record, and publishes the next image.
//!
//! Invariants: an image is published only after its records are acknowledged; what readers see never goes back, also not
//! over a restart; snapshots are written whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_base::config::ServerConfig;
use taccola_meta::batch::{AppendContext, EncodedBatch, decode_batch, decode_batches, encode_batches};
use taccola_meta::quorum::{self, StartState};
use taccola_meta::quorum_state::{self, QuorumState};
use taccola_meta::snapshot::{PARTIAL_SUFFIX, Snapshot, SnapshotId};
use taccola_meta::{MetaError, MetadataChanges, MetadataImage, MetadataLoader, VersionedRecord};

use crate::clock;
use crate::partition::{AppendRejected, Durability, FetchIsolation, Partition};
use crate::runtime::journal::JournalRuntime;
use crate::startup::StartError;
use crate::startup::dirs::{read_bootstrap, read_bounded, write_whole};

/// Bytes read from the metadata log at a time.
const LOAD_BYTES: usize = 8 * 1024 * 1024;
/// Largest snapshot that is read.
const SNAPSHOT_BYTES_MAX: usize = 1 << 30;
/// A metadata write that takes longer is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a command's records were not written. Nothing of them is visible.
#[derive(Debug, thiserror::Error)]
pub enum MetadataWriteError {
    #[error("an earlier metadata write failed ({0}); restart the broker")]
    Broken(String),
    #[error(transparent)]
    Encode(#[from] MetaError),
    #[error(transparent)]
    Append(#[from] AppendRejected),
    #[error(transparent)]
    Journal(#[from] crate::runtime::journal::JournalWaitError),
}

/// The writer's side. The broker keeps it behind an async mutex.
pub struct MetadataLog {
    partition: Arc<Partition>,
    journal: Arc<JournalRuntime>,
    durability: Durability,
    loader: MetadataLoader,
    leader_epoch: i32,
    dir: PathBuf,
    snapshot_bytes: u64,
    bytes_since_snapshot: u64,
    /// Why nothing is written any more: a write ended in between, so log and image may no longer agree.
    broken: Option<String>,
}

impl MetadataLog {
    /// Loads the newest snapshot and what the log has behind it, then takes the next epoch: `quorum-state` first, then the
    /// LeaderChange record, then whatever a new leader owes its log.
    pub async fn start(
        partition: Arc<Partition>,
        journal: Arc<JournalRuntime>,
        durability: Durability,
        config: &ServerConfig,
        directory_id: Uuid,
    ) -> Result<Self, StartError> {
        let dir = config.metadata_log_dir.join("__cluster_metadata-0");
        let bad = |error: MetaError| StartError::Metadata(error.to_string());
        let mut loader = load_snapshot(&dir)?;
        let (last_epoch, bytes) = load_log(&partition, &mut loader)?;
        let quorum_state = read_bounded(&dir.join(quorum_state::FILE_NAME), quorum_state::FILE_BYTES_MAX)?;
        let quorum_state =
            quorum_state.map(|text| QuorumState::parse(&String::from_utf8_lossy(&text))).transpose().map_err(bad)?;
        let start = StartState {
            node_id: config.node_id,
            directory_id,
            static_voters: config.controller.voters.iter().map(|voter| voter.id).collect(),
            quorum_state,
            last_epoch: last_epoch.max(loader.image().provenance.last_contained_epoch),
            facts: loader.quorum().clone(),
        };
        let election = quorum::elect_alone(&start).map_err(bad)?;
        write_whole(&dir.join(quorum_state::FILE_NAME), election.quorum_state.format().as_bytes())?;
        let mut log = Self {
            partition,
            journal,
            durability,
            loader,
            leader_epoch: election.epoch,
            dir,
            snapshot_bytes: config.controller.snapshot_max_record_bytes,
            bytes_since_snapshot: bytes,
            broken: None,
        };
        let failed = |error: MetadataWriteError| StartError::Metadata(error.to_string());
        let leader_change = quorum::start_of_epoch_batch(&election, log.append_context()).map_err(bad)?;
        log.write(vec![leader_change]).await.map_err(failed)?;
        let bootstrap = read_bootstrap(&config.metadata_log_dir)?;
        for command in quorum::activation_records(&log.loader, &bootstrap) {
            log.append_records(&command).await.map_err(failed)?;
        }
        Ok(log)
    }

    pub fn image(&self) -> &MetadataImage {
        self.loader.image()
    }

    /// The quorum's own feature level, which is no metadata record.
    pub fn kraft_version(&self) -> i16 {
        self.loader.quorum().kraft_version
    }

    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The offset that the next record will have.
    pub fn next_offset(&self) -> i64 {
        self.partition.with_log(|log| log.log_end_offset()).unwrap_or(0)
    }

    fn append_context(&self) -> AppendContext {
        AppendContext { base_offset: self.next_offset(), leader_epoch: self.leader_epoch, now_ms: clock::now_ms() }
    }

    /// Writes a command's records, all or none, and answers the image after them and what changed; `None` when there was
    /// nothing to publish.
    pub async fn append_records(
        &mut self,
        records: &[VersionedRecord],
    ) -> Result<Option<(MetadataImage, MetadataChanges)>, MetadataWriteError> {
        if records.is_empty() {
            return Ok(None);
        }
        let version = self.loader.image().metadata_version();
        let batches = encode_batches(records, true, version, self.append_context())?;
        self.write(batches).await?;
        let published = self.loader.publish().map(|published| (published.image, published.changes));
        if self.bytes_since_snapshot >= self.snapshot_bytes {
            self.snapshot();
        }
        Ok(published)
    }

    /// Appends, waits for the disk, loads. After a failure in between nobody knows what a restart will find, so nothing
    /// more is written.
    async fn write(&mut self, batches: Vec<EncodedBatch>) -> Result<(), MetadataWriteError> {
        if let Some(reason) = &self.broken {
            return Err(MetadataWriteError::Broken(reason.clone()));
        }
        let written = self.append_and_load(&batches).await;
        if let Err(error) = &written {
            tracing::error!(%error, "a metadata write failed; no more are accepted until the broker is restarted");
            self.broken = Some(error.to_string());
        }
        written
    }

    async fn append_and_load(&mut self, batches: &[EncodedBatch]) -> Result<(), MetadataWriteError> {
        let mut last = None;
        for batch in batches {
            let ticket = self.partition.append_as_is(&self.journal, &batch.bytes, self.durability, clock::now_ms())?;
            last = last.max(ticket);
        }
        if let Some(ticket) = last {
            self.journal.wait_for(ticket, WRITE_TIMEOUT).await?;
        }
        for batch in batches {
            self.bytes_since_snapshot += batch.bytes.len() as u64;
            self.loader.load(&decode_batch(&batch.bytes)?)?;
        }
        Ok(())
    }

    /// A snapshot by time, unless nothing was written since the last one.
    pub fn snapshot_if_changed(&mut self) {
        if self.bytes_since_snapshot > 0 {
            self.snapshot();
        }
    }

    /// Writes a snapshot of the image and removes older ones. Failing to is told and tried again later: the log has it all.
    pub fn snapshot(&mut self) {
        let image = self.loader.image();
        let id = SnapshotId::of(image);
        let written = Snapshot::of(image, self.loader.quorum())
            .encode(clock::now_ms())
            .map_err(|error| error.to_string())
            .and_then(|bytes| write_snapshot(&self.dir, id, &bytes).map_err(|error| error.to_string()));
        match written {
            Ok(()) => {
                self.bytes_since_snapshot = 0;
                remove_snapshots_before(&self.dir, id);
            }
            Err(error) => tracing::error!(error, "cannot write a metadata snapshot"),
        }
    }
}

fn write_snapshot(dir: &Path, id: SnapshotId, bytes: &[u8]) -> Result<(), StartError> {
    let path = dir.join(id.file_name());
    let partial = dir.join(id.file_name().replace(taccola_meta::snapshot::SUFFIX, PARTIAL_SUFFIX));
    write_whole(&partial, bytes)?;
    std::fs::rename(&partial, &path).map_err(|source| StartError::io("rename", &partial, source))?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| StartError::io("sync", dir, source))
}

fn remove_snapshots_before(dir: &Path, newest: SnapshotId) {
    for (id, path) in snapshots(dir) {
        if id < newest
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old metadata snapshot");
        }
    }
}

fn snapshots(dir: &Path) -> Vec<(SnapshotId, PathBuf)> {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let parse = |name: &std::ffi::OsStr| SnapshotId::parse_file_name(name.to_str()?);
    entries.iter().filter_map(|entry| Some((parse(&entry.file_name())?, entry.path()))).collect()
}

fn load_snapshot(dir: &Path) -> Result<MetadataLoader, StartError> {
    let Some((id, path)) = snapshots(dir).into_iter().max() else { return Ok(MetadataLoader::default()) };
    let bytes = read_bounded(&path, SNAPSHOT_BYTES_MAX)?.unwrap_or_default();
    let named = |error: MetaError| StartError::Metadata(format!("{}: {error}", path.display()));
    Snapshot::decode(id, &bytes).and_then(MetadataLoader::from_snapshot).map_err(named)
}

/// Loads the log behind the snapshot. Answers the epoch of its last batch, and its bytes.
fn load_log(partition: &Partition, loader: &mut MetadataLoader) -> Result<(i32, u64), StartError> {
    let bad = |error: String| StartError::Metadata(error);
    let mut epoch = partition.with_log(|log| log.latest_leader_epoch()).flatten().unwrap_or(0);
    let mut bytes = 0;
    loop {
        let offset = loader.next_offset();
        let read = partition.read(offset, LOAD_BYTES, true, FetchIsolation::LogEnd).map_err(|e| bad(e.to_string()))?;
        if read.records.is_empty() {
            break;
        }
        bytes += read.records.len() as u64;
        let records: Bytes = read.records;
        for batch in decode_batches(&records) {
            let batch = batch.map_err(|e| bad(e.to_string()))?;
            epoch = epoch.max(batch.leader_epoch);
            loader.load(&batch).map_err(|e| bad(e.to_string()))?;
        }
        if loader.next_offset() <= offset {
            return Err(bad(format!("the metadata log does not go on at offset {offset}")));
        }
    }
    loader.publish();
    Ok((epoch, bytes))
}
