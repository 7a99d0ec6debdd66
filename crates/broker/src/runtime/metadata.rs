//! The metadata log and the image that it builds. One writer at a time turns a command into records, appends them to
//! `__cluster_metadata-0`, waits until they are as durable as any acknowledged record, and publishes the next image.
//!
//! Invariants: an image is published only after its records are acknowledged; what readers see never goes back, also not
//! over a restart; snapshots are written whole or not at all. Retention takes the oldest first, segments before the snapshot
//! that has what they had, and never the newest snapshot: whatever a crash leaves can be loaded.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_base::config::Listener;
use taccola_base::config::ServerConfig;
use taccola_base::planted::{Bug, planted};
use taccola_meta::batch::BatchContent;
use taccola_meta::batch::{AppendContext, EncodedBatch, decode_batch, decode_batches, encode_batches};
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::quorum::{self, StartState};
use taccola_meta::quorum_state::{self, QuorumState};
use taccola_meta::record::MetadataRecord;
use taccola_meta::snapshot::{DELETE_SUFFIX, PARTIAL_SUFFIX, Snapshot, SnapshotId};
use taccola_meta::voters::{QuorumStatus, StandaloneVoter};
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
/// What [`write_whole`] writes in place of a snapshot's partial file first.
const BESIDE_SUFFIX: &str = ".checkpoint.tmp";
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
    /// This node as it stands, or would stand, in a dynamic quorum.
    voter: StandaloneVoter,
    /// Where a static quorum's only voter is: name of the listener, host, port.
    static_listeners: Vec<(String, String, u16)>,
    dir: PathBuf,
    snapshot_bytes: u64,
    bytes_since_snapshot: u64,
    retention: Retention,
    /// Topics that the log behind the newest snapshot deletes, as of the start.
    deleted_topics: HashSet<Uuid>,
    /// Why nothing is written any more: a write ended in between, so log and image may no longer agree.
    broken: Option<String>,
}

/// How much is kept behind the newest snapshot.
#[derive(Clone, Copy, Debug)]
struct Retention {
    /// `metadata.max.retention.bytes`: segments and snapshots together; `None`: no bound.
    bytes: Option<u64>,
    /// `metadata.max.retention.ms`; `None`: no bound.
    age: Option<Duration>,
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
        let voter = StandaloneVoter { node_id: config.node_id, directory_id, listeners: controller_listeners(config) };
        let dir = config.metadata_log_dir.join("__cluster_metadata-0");
        let bad = |error: MetaError| StartError::Metadata(error.to_string());
        remove_leftovers(&dir);
        let mut loader = load_snapshot(&dir);
        let LoadedLog { last_epoch, bytes, deleted_topics } = load_log(&partition, &mut loader)?;
        let quorum_state = read_bounded(&dir.join(quorum_state::FILE_NAME), quorum_state::FILE_BYTES_MAX)?;
        let quorum_state = quorum_state.map(|text| QuorumState::parse(&String::from_utf8_lossy(&text))).transpose();
        let quorum_state = match quorum_state {
            // A lone voter finds its epoch in its log: what it voted for in a later one was never told to anybody.
            Err(error) if config.controller.voters.len() <= 1 => {
                tracing::error!(%error, "a damaged quorum-state is made anew from the metadata log");
                None
            }
            parsed => parsed.map_err(bad)?,
        };
        let start = StartState {
            node_id: config.node_id,
            directory_id,
            static_voters: config.controller.voters.iter().map(|voter| voter.id).collect(),
            quorum_state,
            last_epoch: last_epoch.max(loader.image().provenance.last_contained_epoch),
            facts: loader.quorum().clone(),
            listeners: voter.listeners.clone(),
        };
        let election = quorum::elect_alone(&start).map_err(bad)?;
        write_whole(&dir.join(quorum_state::FILE_NAME), election.quorum_state.format().as_bytes())?;
        let mut log = Self {
            partition,
            journal,
            durability,
            loader,
            leader_epoch: election.epoch,
            static_listeners: static_listeners(config, &voter.listeners),
            voter,
            dir,
            snapshot_bytes: config.controller.snapshot_max_record_bytes,
            bytes_since_snapshot: bytes,
            retention: Retention {
                bytes: u64::try_from(config.controller.metadata_retention_bytes).ok(),
                age: u64::try_from(config.controller.metadata_retention_ms).ok().map(Duration::from_millis),
            },
            deleted_topics,
            broken: None,
        };
        let failed = |error: MetadataWriteError| StartError::Metadata(error.to_string());
        let leader_change = quorum::start_of_epoch_batch(&election, log.append_context()).map_err(bad)?;
        log.write(vec![leader_change]).await.map_err(failed)?;
        let bootstrap = match read_bootstrap(&config.metadata_log_dir) {
            // It is only needed by a log that has none of its records yet.
            Err(error) if !log.loader.image().features.finalized.is_empty() => {
                tracing::warn!(%error, "the bootstrap records cannot be read; the metadata log has them");
                BootstrapMetadata::default()
            }
            read => read?,
        };
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

    /// What the only voter tells of its quorum.
    pub fn quorum_status(&self) -> QuorumStatus {
        let committed = self.partition.with_log(|log| log.high_watermark()).unwrap_or(-1);
        let voter = match self.kraft_version() {
            0 => StandaloneVoter {
                directory_id: Uuid::ZERO,
                listeners: self.static_listeners.clone(),
                ..self.voter.clone()
            },
            _ => self.voter.clone(),
        };
        let (epoch, log_end_offset) = (self.leader_epoch, self.next_offset());
        QuorumStatus { epoch, high_watermark: committed, log_end_offset, voter }
    }

    /// Makes the static quorum a dynamic one. `quorum-state` follows at the next election.
    pub async fn upgrade_quorum(&mut self) -> Result<Option<(MetadataImage, MetadataChanges)>, MetadataWriteError> {
        let batch = quorum::upgrade_batch(&self.voter, self.append_context())?;
        self.write(vec![batch]).await?;
        Ok(self.loader.publish().map(|published| (published.image, published.changes)))
    }

    /// Whether the log that was loaded at the start says that the topic was deleted. What an older snapshot no longer
    /// knows is not known here either.
    pub fn was_deleted(&self, topic_id: Uuid) -> bool {
        self.deleted_topics.contains(&topic_id)
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
        let before = self.next_offset();
        let written = self.append_and_load(&batches).await;
        if let Err(error @ MetadataWriteError::Append(_)) = &written
            && self.next_offset() == before
        {
            // A full disk, say: nothing of it is in the log.
            tracing::error!(%error, "a metadata write was refused");
        } else if let Err(error) = &written {
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
        if let Some(ticket) = last.filter(|_| !planted(Bug::MetadataNotAwaited)) {
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

    /// Writes a snapshot of the image, then removes what retention no longer keeps. Failing to is told and tried again later: the log has it all.
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
                self.clean();
            }
            Err(error) => tracing::error!(error, "cannot write a metadata snapshot"),
        }
    }

    /// Removes the oldest snapshot, and before it the segments that lie wholly below the next one, as long as there is a
    /// next one and `metadata.max.retention.bytes` or `.ms` is exceeded. Answers to `KafkaRaftLog.maybeClean`.
    pub fn clean(&mut self) {
        if let Err(error) = self.try_clean() {
            tracing::error!(error, "cannot remove old parts of the metadata log");
        }
        self.partition.with_log(|log| log.purge(clock::now_ms()));
    }

    fn try_clean(&mut self) -> Result<(), String> {
        let mut kept = snapshots(&self.dir);
        kept.sort();
        let mut oldest_first = kept.iter().peekable();
        let mut bytes: u64 = kept.iter().map(|(_, path)| file_bytes(path)).sum();
        while let (Some((_, path)), Some((next, _))) = (oldest_first.next(), oldest_first.peek()) {
            let of_log = self.partition.with_log(|log| log.size_bytes()).unwrap_or(0);
            let too_large = self.retention.bytes.is_some_and(|most| bytes + of_log > most);
            if !too_large && self.retention.age.is_none_or(|most| file_age(path) <= most) {
                break;
            }
            let removed = self.partition.with_log(|log| {
                let to = next.end_offset.min(log.high_watermark());
                if to > log.log_start_offset() {
                    log.delete_records_before(to, clock::now_ms()).map(|_| ())
                } else {
                    Ok(())
                }
            });
            removed.unwrap_or(Ok(())).map_err(|error| error.to_string())?;
            let of_snapshot = file_bytes(path);
            std::fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
            bytes -= of_snapshot.min(bytes);
        }
        Ok(())
    }
}

/// Where this node's config says that it would listen as a controller.
fn controller_listeners(config: &ServerConfig) -> Vec<(String, String, u16)> {
    let host = |listener: &Listener| listener.host.clone().unwrap_or_else(|| "localhost".to_owned());
    config.net.controller_listeners.iter().map(|l| (l.name.clone(), host(l), l.port)).collect()
}

/// The address of `controller.quorum.voters`, which has no name of a listener; without it, the listeners themselves.
fn static_listeners(config: &ServerConfig, own: &[(String, String, u16)]) -> Vec<(String, String, u16)> {
    let name = config.net.controller_listener_names.first().cloned().unwrap_or_default();
    let voter = config.controller.voters.iter().find(|voter| voter.id == config.node_id);
    voter.map_or_else(|| own.to_vec(), |voter| vec![(name, voter.host.clone(), voter.port)])
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Since when the file has been there; zero if that cannot be found out.
fn file_age(path: &Path) -> Duration {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|time| time.elapsed().ok()).unwrap_or_default()
}

/// Snapshots that were being written or removed when the broker ended.
fn remove_leftovers(dir: &Path) {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    for entry in entries {
        let name = entry.file_name();
        let is_leftover = name.to_str().is_some_and(|name| {
            [PARTIAL_SUFFIX, DELETE_SUFFIX, BESIDE_SUFFIX].iter().any(|suffix| name.ends_with(suffix))
        });
        if is_leftover && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove an unfinished metadata snapshot");
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

fn snapshots(dir: &Path) -> Vec<(SnapshotId, PathBuf)> {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let parse = |name: &std::ffi::OsStr| SnapshotId::parse_file_name(name.to_str()?);
    entries.iter().filter_map(|entry| Some((parse(&entry.file_name())?, entry.path()))).collect()
}

/// The newest snapshot that can be read.
fn load_snapshot(dir: &Path) -> MetadataLoader {
    let mut newest_first = snapshots(dir);
    newest_first.sort();
    for (id, path) in newest_first.into_iter().rev() {
        let bytes = read_bounded(&path, SNAPSHOT_BYTES_MAX).map(Option::unwrap_or_default);
        let loader = bytes.map_err(|error| error.to_string()).and_then(|bytes| {
            Snapshot::decode(id, &bytes).and_then(MetadataLoader::from_snapshot).map_err(|error| error.to_string())
        });
        match loader {
            Ok(loader) => return loader,
            // The one before and the log behind it may still have it all; if not, the log says so.
            Err(error) => tracing::error!(path = %path.display(), error, "a metadata snapshot is damaged and not used"),
        }
    }
    MetadataLoader::default()
}

/// What the log behind the snapshot told besides the image.
struct LoadedLog {
    /// Epoch of its last batch.
    last_epoch: i32,
    bytes: u64,
    deleted_topics: HashSet<Uuid>,
}

/// Topics that a batch deletes.
fn deletions(content: &BatchContent) -> impl Iterator<Item = Uuid> + '_ {
    let records = match content {
        BatchContent::Records(records) => records.as_slice(),
        BatchContent::Control(_) => &[],
    };
    records.iter().filter_map(|record| match &record.record {
        MetadataRecord::RemoveTopic(removed) => Some(removed.topic_id),
        _ => None,
    })
}

/// Loads the log behind the snapshot.
fn load_log(partition: &Partition, loader: &mut MetadataLoader) -> Result<LoadedLog, StartError> {
    let bad = |error: String| StartError::Metadata(error);
    let mut epoch = partition.with_log(|log| log.latest_leader_epoch()).flatten().unwrap_or(0);
    let mut bytes = 0;
    let mut deleted_topics = HashSet::new();
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
            deleted_topics.extend(deletions(&batch.content));
            loader.load(&batch).map_err(|e| bad(e.to_string()))?;
        }
        if loader.next_offset() <= offset {
            return Err(bad(format!("the metadata log does not go on at offset {offset}")));
        }
    }
    loader.publish();
    Ok(LoadedLog { last_epoch: epoch, bytes, deleted_topics })
}
