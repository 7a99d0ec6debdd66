//! The broker as its handlers see it: what it holds, and the few questions that many handlers ask.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI16, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use taccola_base::Uuid;
use taccola_base::config::{AcksDurability, ConfigMap, LogConfigValues, ServerConfig, Settings};
use taccola_base::topic::may_be_tiered;
use taccola_coord::GroupConfig;
use taccola_coord::share_state::ShareStateConfig;
use taccola_log::{LogShared, log_dir};
use taccola_meta::controller::{Controller, Outcome};
use taccola_meta::image::config::ConfigResource;
use taccola_meta::{MetadataImage, VersionedRecord};
use taccola_net::reply_memory::ReplyMemory;
use taccola_net::server::ConnectionInfo;
use taccola_wire::error::ErrorCode;
use tokio::sync::watch;

use crate::clock;
use crate::fetch::session::{FetchContext, FetchRequestView, FetchSessionCache};
use crate::metrics::Metrics;
use crate::partition::{Durability, Partition};
use crate::partitions::PartitionTable;
use crate::runtime::cleaner::CleanerState;
use crate::runtime::coordinator::{CoordinatorLifecycle, GroupCoordinator};
use crate::runtime::journal::JournalRuntime;
use crate::runtime::log_dirs::FailedDirs;
use crate::runtime::metadata::{MetadataLog, MetadataWriteError};
use crate::runtime::producer_ids::ProducerIds;
use crate::runtime::relocate::Moves;
use crate::runtime::storage::DiskSpace;
use crate::share_fetch::ShareFetchRuntime;
use crate::share_state::ShareStateCoordinator;
use crate::startup::dirs::LogDirs;
use crate::tier::RemoteStorage;
use crate::topic_config::TopicConfig;
use crate::transactions::TransactionCoordinator;

/// One broker process. Shared by all connections and background tasks for the life of the process.
pub struct Broker {
    /// As it was at start; what can change while the broker runs is in [`Self::dynamic_config`].
    pub config: ServerConfig,
    pub node_id: i32,
    pub cluster_id: String,
    /// The quorum's own feature level. The metadata writer alone changes it.
    pub(crate) kraft_version: AtomicI16,
    pub log_dirs: Vec<LogDirInfo>,
    /// Those of `log.dirs` that could not be used at start.
    pub offline_dirs: Vec<PathBuf>,
    pub(crate) failed_dirs: FailedDirs,
    pub(crate) moves: Moves,
    pub partitions: PartitionTable,
    pub journal: Arc<JournalRuntime>,
    pub groups: Arc<GroupCoordinator>,
    pub transactions: Arc<TransactionCoordinator>,
    pub share_states: Arc<ShareStateCoordinator>,
    /// All coordinators, each also a field of its own.
    pub(crate) coordinators: Vec<Arc<dyn CoordinatorLifecycle>>,
    pub log_shared: Arc<LogShared>,
    pub metrics: Metrics,
    pub(crate) image: ArcSwap<MetadataImage>,
    /// The controller's side: one command at a time.
    pub(crate) metadata: tokio::sync::Mutex<MetadataLog>,
    pub(crate) metadata_partition: Arc<Partition>,
    pub(crate) controller: Controller,
    pub(crate) fetch_sessions: Mutex<FetchSessionCache>,
    /// Share sessions, and the share-partitions that this broker leads.
    pub share_fetch: ShareFetchRuntime,
    /// What is read for clients and not yet sent.
    pub(crate) replies: ReplyMemory,
    /// Folders of deleted partitions: since when, and where.
    pub(crate) deleted_dirs: Mutex<Vec<(i64, PathBuf)>>,
    /// What each checkpoint file holds, by directory and file.
    pub(crate) checkpoints_written: Mutex<HashMap<(Uuid, &'static str), log_dir::Offsets>>,
    /// The settings with what was set while brokers ran.
    pub(crate) dynamic: Arc<ArcSwap<ServerConfig>>,
    pub(crate) cleaner: CleanerState,
    pub disk_space: DiskSpace,
    /// Why the broker only serves what is there, if so (`taccola.crash.loop.limit`).
    pub recovery_mode: Option<String>,
    /// Where tiered storage is on.
    pub(crate) remote: Option<Arc<RemoteStorage>>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) settings: Settings,
    pub(crate) stop: watch::Sender<bool>,
    /// Keeps the directories locked.
    pub(crate) _dirs: LogDirs,
}

/// One of `log.dirs`.
#[derive(Debug)]
pub struct LogDirInfo {
    pub path: PathBuf,
    pub id: Uuid,
    offline: AtomicBool,
}

impl LogDirInfo {
    pub(crate) fn new(path: PathBuf, id: Uuid) -> Self {
        Self { path, id, offline: AtomicBool::new(false) }
    }

    /// False for good once it failed.
    pub fn is_online(&self) -> bool {
        !self.offline.load(Ordering::SeqCst)
    }

    pub(crate) fn set_offline(&self) {
        self.offline.store(true, Ordering::SeqCst);
    }
}

/// Where a broker can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerEndpoint {
    pub node_id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl Broker {
    /// The metadata image at this moment.
    pub fn image(&self) -> Guard<Arc<MetadataImage>> {
        self.image.load()
    }

    pub fn now_ms(&self) -> i64 {
        clock::now_ms()
    }

    /// The settings with what was set while brokers ran.
    pub fn dynamic_config(&self) -> Guard<Arc<ServerConfig>> {
        self.dynamic.load()
    }

    /// Takes over broker settings from the image's config records. What is not usable there is told and does not count.
    pub(crate) fn load_dynamic_config(&self, image: &MetadataImage) {
        let of =
            |resource: ConfigResource| image.configs.of(&resource).map(|map| ConfigMap::clone(map)).unwrap_or_default();
        let (for_all, own) = (of(ConfigResource::default_broker()), of(ConfigResource::broker(self.node_id)));
        match ServerConfig::load_with(&self.settings, &for_all, &own) {
            Ok(loaded) => {
                let config = loaded.config;
                self.groups.set_config(GroupConfig::new(&config.groups, &config.offsets));
                self.share_states.set_config(ShareStateConfig::new(&config.share));
                self.dynamic.store(Arc::new(config));
            }
            Err(errors) => tracing::warn!(%errors, "dynamic broker settings are not usable; those before hold"),
        }
    }

    /// Resolves once the broker begins to stop.
    pub async fn stopping(&self) {
        // The sender lives in this struct, so it cannot be gone.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// What `acks=all`, offset commits and metadata records wait for.
    pub fn acks_all_durability(&self) -> Durability {
        match self.config.taccola.acks_durability {
            AcksDurability::Disk => Durability::Disk,
            AcksDurability::Memory => Durability::PageCache,
        }
    }

    /// The error for a partition that this broker does not hold: another one's, or nobody's.
    pub fn missing_partition_error(&self, topic: &str, partition: i32) -> ErrorCode {
        match self.image().topics.partition(topic, partition) {
            // The log is in a directory that cannot be used, or could not be made.
            Some(registration) if registration.has_replica(self.node_id) => ErrorCode::KafkaStorageError,
            Some(_) => ErrorCode::NotLeaderOrFollower,
            None => ErrorCode::UnknownTopicOrPartition,
        }
    }

    /// Leader and leader epoch as the image has them.
    pub fn current_leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        self.image().topics.partition(topic, partition).map(|p| (p.leader, p.leader_epoch))
    }

    /// Addresses of brokers on the listener that the client used; unknown brokers are left out, none comes twice.
    pub fn endpoints(&self, connection: &ConnectionInfo, node_ids: &[i32]) -> Vec<BrokerEndpoint> {
        let image = self.image();
        let mut endpoints: Vec<BrokerEndpoint> = Vec::new();
        for (id, broker) in &image.cluster.brokers {
            if node_ids.contains(id) && broker.is_active() {
                endpoints.extend(self.endpoint(&image, connection, *id));
            }
        }
        endpoints
    }

    /// A broker's address on the client's listener. This broker, when nothing is configured for the listener, is reached
    /// where the client reached it.
    pub fn endpoint(&self, image: &MetadataImage, connection: &ConnectionInfo, node_id: i32) -> Option<BrokerEndpoint> {
        let registration = image.cluster.brokers.get(&node_id)?;
        let rack = registration.rack.clone();
        if node_id == self.node_id {
            let advertised = self.config.net.advertised.iter().find(|a| *a.name == *connection.listener);
            let host = advertised.and_then(|a| a.host.clone()).unwrap_or_else(|| connection.local.ip().to_string());
            let port = advertised.map(|a| a.port).filter(|port| *port != 0).unwrap_or(connection.local.port());
            return Some(BrokerEndpoint { node_id, host, port: i32::from(port), rack });
        }
        let endpoint = registration.listener(&connection.listener)?;
        Some(BrokerEndpoint { node_id, host: endpoint.host.clone(), port: i32::from(endpoint.port), rack })
    }

    /// Finds out how to serve a fetch.
    pub fn fetch_context(&self, request: FetchRequestView) -> FetchContext {
        self.fetch_sessions.lock().context(request, clock::now_ms(), crate::random::positive_i32)
    }

    /// A topic's settings: its overrides over the broker's.
    pub fn topic_config(&self, image: &MetadataImage, topic: &str) -> Arc<TopicConfig> {
        let dynamic = self.dynamic.load();
        let (values, ignored) = match image.configs.of(&ConfigResource::topic(topic)) {
            Some(overrides) => dynamic.log.with_overrides(overrides),
            None => (dynamic.log.clone(), Vec::new()),
        };
        for sentence in ignored {
            tracing::warn!(topic, sentence, "a topic setting in the metadata is not usable; the broker's value holds");
        }
        let values = LogConfigValues {
            remote_storage_enable: values.remote_storage_enable && self.remote.is_some() && may_be_tiered(topic),
            ..values
        };
        TopicConfig::new(values, self.config.log_manager.producer_id_expiration_ms)
    }

    /// Writes a command's records and applies what they change. The caller holds the metadata writer.
    pub(crate) async fn commit(
        &self,
        metadata: &mut MetadataLog,
        records: &[VersionedRecord],
    ) -> Result<(), MetadataWriteError> {
        let Some((image, changes)) = metadata.append_records(records).await? else { return Ok(()) };
        // One directory is known without a word. More of them: the broker chooses, and says which.
        let placed: Vec<Uuid> = match self.log_dirs.len() {
            0 | 1 => Vec::new(),
            _ => changes.partitions.keys().copied().collect(),
        };
        self.apply(image, &changes);
        match placed.is_empty() {
            true => Ok(()),
            false => self.commit_places(metadata, |id| placed.contains(&id)).await,
        }
    }

    /// Tells the metadata in which directories replicas of this broker really are, where they do not say.
    pub(crate) async fn commit_places(
        &self,
        metadata: &mut MetadataLog,
        of_topics: impl Fn(Uuid) -> bool,
    ) -> Result<(), MetadataWriteError> {
        let places = self.misplaced(metadata.image(), of_topics);
        let outcome = self.controller.assign_directories(metadata.image(), self.node_id, &places);
        if let Some((image, changes)) = metadata.append_records(&outcome.records).await? {
            self.apply(image, &changes);
        }
        Ok(())
    }

    /// The quorum's own feature level, which no metadata record holds.
    pub(crate) fn kraft_version(&self) -> i16 {
        self.kraft_version.load(Ordering::Relaxed)
    }

    /// Makes the quorum a dynamic one. The caller holds the metadata writer.
    pub(crate) async fn upgrade_quorum(&self, metadata: &mut MetadataLog) -> Result<(), MetadataWriteError> {
        let published = metadata.upgrade_quorum().await?;
        self.kraft_version.store(metadata.kraft_version(), Ordering::Relaxed);
        if let Some((image, changes)) = published {
            self.apply(image, &changes);
        }
        Ok(())
    }

    /// Runs one controller command to its end: its records are durable and applied when this returns.
    pub(crate) async fn command<R>(
        &self,
        command: impl FnOnce(&Controller, &MetadataImage) -> Outcome<R>,
    ) -> Result<R, MetadataWriteError> {
        let mut metadata = self.metadata.lock().await;
        let outcome = command(&self.controller, metadata.image());
        self.commit(&mut metadata, &outcome.records).await?;
        Ok(outcome.response)
    }
}
