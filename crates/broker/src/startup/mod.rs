//! From a config to a broker that serves, and back to a directory that a JVM Kafka could take over. Listeners are served
//! last, when the broker knows at least what it knew before it stopped.

pub mod dirs;
pub(crate) mod file_handles;
mod recovery;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI16;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use taccola_base::config::{AcksDurability, Listener, ServerConfig, Settings};
use taccola_base::topic::CLUSTER_METADATA_TOPIC;
use taccola_base::{TopicPartition, Uuid, limits};
use taccola_coord::GroupConfig;
use taccola_log::journal::{self, Journal};
use taccola_log::{LogConfig, LogShared, PartitionLog, log_dir};
use taccola_meta::controller::broker::kafka_feature_ranges;
use taccola_meta::controller::{BrokerSpec, Controller, ControllerSettings, PreviousShutdown};
use taccola_meta::image::MetadataImage;
use taccola_meta::image::cluster::{ControllerRegistration, Endpoint};
use taccola_meta::image::config::ConfigResource;
use taccola_net::reply_memory::ReplyMemory;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::broker::{Broker, LogDirInfo};
use crate::clock;
use crate::config_rules::TableRules;
use crate::fetch::session::FetchSessionCache;
use crate::metrics::Metrics;
use crate::partition::{Durability, Leadership, Partition};
use crate::partitions::PartitionTable;
use crate::runtime::blocking;
use crate::runtime::cleaner::CleanerState;
use crate::runtime::coordinator::{self, GroupCoordinator};
use crate::runtime::housekeeping;
use crate::runtime::journal::JournalRuntime;
use crate::runtime::log_dirs::{self, FailedDirs};
use crate::runtime::metadata::MetadataLog;
use crate::runtime::producer_ids::ProducerIds;
use crate::runtime::relocate::Moves;
use crate::runtime::replicas::describe;
use crate::runtime::storage::{self, DiskSpace};
use crate::share_fetch::ShareFetchRuntime;
use crate::share_state;
use crate::tier::RemoteStorage;
use crate::topic_config::TopicConfig;
use crate::transactions;
use dirs::LogDirs;
pub use recovery::RecoverySummary;
use recovery::{OpenContext, OpenedLogs};

/// Why the broker does not start, in one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is in use by another broker; stop it first, or give this one another log.dirs")]
    Locked(PathBuf),
    #[error("{0}")]
    WrongDirectory(String),
    /// The disk refuses what a log directory is asked for; the others may do without it.
    #[error("cannot use the log directory {path}: {reason}")]
    Dir { path: PathBuf, reason: String },
    #[error("cannot load the cluster metadata: {0}")]
    Metadata(String),
    #[error("cannot open the log of {partition}: {reason}")]
    Log { partition: String, reason: String },
    #[error("cannot open the journal: {0}")]
    Journal(String),
    #[error("cannot listen on {address}: {source}; is another process using the port? Set another one in `listeners`")]
    Listen { address: String, source: io::Error },
    #[error("{0}")]
    Config(String),
}

impl StartError {
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// Everything up to the listeners.
pub(crate) async fn open(
    config: ServerConfig,
    settings: Settings,
    bound: &[(Listener, TcpListener)],
    segment_handles_max: usize,
) -> Result<(Arc<Broker>, RecoverySummary), StartError> {
    let now_ms = clock::now_ms();
    let mut dirs = dirs::open(&config, now_ms)?;
    let recovery_mode = match dirs.dirs.first() {
        Some(dir) => storage::note_start(&dir.path, dirs.formatted, config.taccola.crash_loop_limit, now_ms)?,
        None => None,
    };
    let shared = LogShared::new(segment_handles_max);
    let base = TopicConfig::new(config.log.clone(), config.log_manager.producer_id_expiration_ms);
    let metadata_config = Arc::new(metadata_log_config(&config));
    let config_of = |tp: &TopicPartition| {
        if &*tp.topic == CLUSTER_METADATA_TOPIC { metadata_config.clone() } else { base.log.clone() }
    };
    let opening = OpenContext {
        node_id: config.node_id,
        journal_bytes: config.taccola.journal_bytes,
        threads_per_dir: config.log_manager.recovery_threads_per_data_dir,
        shared: &shared,
        config_of: &config_of,
        now_ms,
    };
    let (moves, opened) = open_logs(&mut dirs, &config.metadata_log_dir, &opening)?;
    let OpenedLogs { mut logs, journal: Journal { staging, writer }, summary } = opened;
    let remote =
        RemoteStorage::open(&config.remote).map_err(|error| StartError::Config(format!("remote storage: {error}")))?;
    let (stop, _) = watch::channel(false);
    let first_dir = dirs.dirs.first().map(|dir| dir.path.clone()).unwrap_or_default();
    let noted = first_dir.clone();
    taccola_base::invariant::before_abort(Box::new(move || note_failure(&noted)));
    let journal = Arc::new(JournalRuntime::new(
        staging,
        writer,
        Box::new(move |reason: &str| storage_failed(&first_dir, reason)),
    ));
    spawn_checkpointer(&journal)?;

    let (metadata_dir, metadata_dir_index) = metadata_dir(&config, &dirs);
    let metadata_at = TopicPartition::new(CLUSTER_METADATA_TOPIC, 0);
    let mut metadata_log = match logs.remove(&metadata_at) {
        Some(opened) => opened.log,
        None => PartitionLog::create(
            metadata_dir,
            metadata_at,
            Some(Uuid::METADATA_TOPIC_ID),
            metadata_config,
            shared.clone(),
        )
        .map_err(|error| StartError::Metadata(describe(&error)))?,
    };
    let made = metadata_log.make_folder().and_then(|()| metadata_log.flush(now_ms));
    made.map_err(|error| StartError::Metadata(describe(&error)))?;
    let metadata_partition = Partition::new(
        metadata_log,
        Uuid::METADATA_TOPIC_ID,
        metadata_dir_index,
        Leadership { leader_id: config.node_id, leader_epoch: 0, replicas_len: 1, isr_len: 1 },
        base.clone(),
    );
    let durability = match config.taccola.acks_durability {
        AcksDurability::Disk => Durability::Disk,
        AcksDurability::Memory => Durability::PageCache,
    };
    let directory_id = dirs.dirs.get(metadata_dir_index).map_or(Uuid::ZERO, |dir| dir.id);
    let metadata =
        MetadataLog::start(metadata_partition.clone(), journal.clone(), durability, &config, directory_id).await?;
    let image = metadata.image().clone();
    check_tiered_topics(&config, &image)?;
    let kraft_version = AtomicI16::new(metadata.kraft_version());
    let dynamic = Arc::new(ArcSwap::from_pointee(config.clone()));
    let rules = Arc::new(TableRules::new(config.node_id, settings.clone(), dynamic.clone()));
    let controller = Controller::new(controller_settings(&config), rules);
    let groups = GroupCoordinator::new(
        GroupConfig::new(&config.groups, &config.offsets),
        coordinator::image::view(Arc::default()),
        config.offsets.topic_compression_codec,
        durability,
        journal.clone(),
        tokio::runtime::Handle::current(),
    );
    let transactions = transactions::coordinator(&config, durability, journal.clone());
    let share_states = share_state::coordinator(&config, durability, journal.clone());
    let broker = Arc::new(Broker {
        node_id: config.node_id,
        cluster_id: dirs.cluster_id.clone(),
        kraft_version,
        log_dirs: dirs.dirs.iter().map(|dir| LogDirInfo::new(dir.path.clone(), dir.id)).collect(),
        offline_dirs: dirs.offline.iter().map(|(path, _)| path.clone()).collect(),
        failed_dirs: FailedDirs::default(),
        moves: Moves::with_found(moves),
        partitions: PartitionTable::default(),
        coordinators: vec![groups.clone(), transactions.clone(), share_states.clone()],
        groups,
        transactions,
        share_states,
        journal,
        log_shared: shared,
        metrics: Metrics::default(),
        image: ArcSwap::from_pointee(MetadataImage::default()),
        metadata: tokio::sync::Mutex::new(metadata),
        metadata_partition,
        controller,
        fetch_sessions: Mutex::new(FetchSessionCache::new(config.fetch.session_slots)),
        share_fetch: ShareFetchRuntime::default(),
        replies: ReplyMemory::new(limits::REPLY_BYTES_HELD_MAX),
        deleted_dirs: Mutex::default(),
        checkpoints_written: Mutex::default(),
        dynamic,
        cleaner: CleanerState::default(),
        disk_space: DiskSpace::new(dirs.dirs.iter().map(|dir| dir.path.clone()), &config.taccola),
        recovery_mode,
        remote,
        producer_ids: ProducerIds::default(),
        settings,
        stop,
        _dirs: dirs,
        config,
    });
    log_dirs::watch(&broker);
    share_state::serve_actions(&broker);
    transactions::serve_actions(&broker);
    {
        let metadata = broker.metadata.lock().await;
        refuse_foreign_names(&image, broker.node_id, &|id| metadata.was_deleted(id), &logs)?;
        adopt_logs(&broker, image, &|id| metadata.was_deleted(id), logs);
    }
    let noting = Arc::downgrade(&broker);
    broker.journal.note_recovery_points_by(Box::new(move || {
        noting.upgrade().is_none_or(|broker| housekeeping::write_recovery_points(&broker))
    }));
    register(&broker, bound, summary.clean).await?;
    if let Some(reason) = &broker.recovery_mode {
        enter_recovery_mode(&broker, reason);
    }
    for coordinator in &broker.coordinators {
        for partition in broker.partitions.of_topic(coordinator.topic()) {
            coordinator.take_over(partition);
        }
    }
    // In recovery mode nothing is proven yet.
    if broker.recovery_mode.is_none()
        && let Some(dir) = broker.log_dirs.first()
    {
        storage::note_ready(&dir.path, clock::now_ms())?;
    }
    Ok((broker, summary))
}

/// All logs, and the moves that a former start began. A directory that fails meanwhile is left out, and all begins anew:
/// nothing was changed that a second time would not find as it was.
fn open_logs(
    dirs: &mut LogDirs,
    metadata_dir: &Path,
    opening: &OpenContext<'_>,
) -> Result<(Vec<(TopicPartition, usize)>, OpenedLogs), StartError> {
    let attempt = |dirs: &LogDirs| {
        for dir in &dirs.dirs {
            let failed = |error: std::io::Error| StartError::Dir { path: dir.path.clone(), reason: error.to_string() };
            opening.shared.add_log_dir(&dir.path).map_err(failed)?;
        }
        let moves = dirs::settle_futures(dirs)?;
        Ok((moves, recovery::open_logs(dirs, opening)?))
    };
    loop {
        match attempt(dirs) {
            Err(StartError::Dir { path, reason }) if dirs.leave_out(&path, &reason, metadata_dir) => {
                tracing::error!(path = %path.display(), reason, "a log directory is offline; the others are served");
            }
            done => return done,
        }
    }
}

/// From here on nothing is written for anybody.
fn enter_recovery_mode(broker: &Broker, reason: &str) {
    broker.journal.set_read_only(Some(reason));
    let way_out = "stop the broker cleanly (SIGTERM) and start it again, wait ten minutes, or set \
                   taccola.crash.loop.limit=0";
    tracing::error!(reason, way_out, "recovery mode: what is there is served, and nothing is written");
    eprintln!("RECOVERY MODE: {reason}. What is there is served, and nothing is written. To leave it: {way_out}.");
}

/// A disk that cannot be trusted any more ends the process: what it really holds is found out by starting again.
fn storage_failed(first_dir: &Path, reason: &str) {
    #[cfg(test)]
    if crate::simulation::world::storage_failed(reason) {
        return;
    }
    tracing::error!(reason, "storage failed; nothing more is acknowledged, and the broker stops");
    eprintln!(
        "FATAL storage failed: {reason}. Start the broker again once the disk is well: it re-reads what is there."
    );
    note_failure(first_dir);
    std::process::exit(1);
}

/// Best effort: the disk may be what failed.
fn note_failure(first_dir: &Path) {
    if let Err(error) = storage::note_failure(first_dir, clock::now_ms()) {
        tracing::debug!(%error, "a failure was not noted");
    }
}

fn spawn_checkpointer(journal: &Arc<JournalRuntime>) -> Result<(), StartError> {
    #[cfg(test)]
    if crate::simulation::world::now_ms().is_some() {
        // It has no threads: checkpoints are steps of its scheduler.
        return Ok(());
    }
    let journal = journal.clone();
    std::thread::Builder::new()
        .name("checkpointer".to_owned())
        .spawn(move || journal.run_checkpointer())
        .map(|_| ())
        .map_err(|source| StartError::Config(format!("cannot start a thread: {source}")))
}

fn metadata_dir<'a>(config: &'a ServerConfig, dirs: &LogDirs) -> (&'a Path, usize) {
    let index = dirs.dirs.iter().position(|dir| dir.path == config.metadata_log_dir).unwrap_or(0);
    (&config.metadata_log_dir, index)
}

fn metadata_log_config(config: &ServerConfig) -> LogConfig {
    LogConfig {
        segment_bytes: u32::try_from(config.controller.metadata_segment_bytes).unwrap_or(u32::MAX),
        segment_ms: config.controller.metadata_segment_ms,
        // Snapshots decide what may go, not retention.
        retention_ms: -1,
        retention_bytes: -1,
        max_message_bytes: u32::MAX,
        ..LogConfig::default()
    }
}

fn controller_settings(config: &ServerConfig) -> ControllerSettings {
    ControllerSettings {
        default_num_partitions: config.topics.num_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        min_insync_replicas: config.log.min_insync_replicas,
        delete_topic_enable: config.topics.delete_enable,
    }
}

/// A folder whose `partition.metadata` names another topic of this cluster than its own name does was moved, or swapped with
/// another; one with the name of a topic and an id that nobody knows has a damaged file, or is of an earlier topic of that
/// name. Serving it, or an empty log in its place, would be wrong.
fn refuse_foreign_names(
    image: &MetadataImage,
    node_id: i32,
    was_deleted: &dyn Fn(Uuid) -> bool,
    logs: &BTreeMap<TopicPartition, recovery::OpenedLog>,
) -> Result<(), StartError> {
    for (at, opened) in logs {
        let Some(id) = opened.topic_id else { continue };
        let Some(owner) = image.topics.by_id(id) else {
            let expected = image.topics.by_name(&at.topic).filter(|topic| {
                topic.partition(at.partition).is_some_and(|registration| registration.has_replica(node_id))
            });
            if let Some(topic) = expected
                && !was_deleted(id)
                && opened.log.size_bytes() > 0
            {
                return Err(StartError::WrongDirectory(format!(
                    "the partition.metadata of the folder {at} says topic id {id}, and the topic {} has the id {}: put the \
                     right file back, or remove it if the records are the topic's; or move the folder away",
                    at.topic, topic.id
                )));
            }
            continue;
        };
        if *owner.name != *at.topic {
            return Err(StartError::WrongDirectory(format!(
                "the folder {at} holds records of the topic {}: its partition.metadata says so; give the folders the names \
                 that they had",
                owner.name
            )));
        }
    }
    Ok(())
}

/// Without remote storage tiered topics would begin where their local part does, and the rest be forgotten.
fn check_tiered_topics(config: &ServerConfig, image: &MetadataImage) -> Result<(), StartError> {
    if config.remote.enable {
        return Ok(());
    }
    let is_tiered = |name: &str| {
        let overrides = image.configs.of(&ConfigResource::topic(name));
        overrides.and_then(|map| map.get("remote.storage.enable")).is_some_and(|value| value == "true")
    };
    match image.topics.iter().find(|topic| is_tiered(&topic.name)) {
        Some(topic) => Err(StartError::Config(format!(
            "topic {} has remote.storage.enable=true: set remote.log.storage.system.enable=true and taccola.remote.storage.url, and \
             delete or change such topics before tiered storage is switched off",
            topic.name
        ))),
        None => Ok(()),
    }
}

/// Gives the logs that were found to the partitions of the image. What the image does not know goes where deleted partitions
/// go if the metadata log says that its topic was deleted, as when the broker ended in between; else nobody knows whose
/// data it is, and it is set aside.
fn adopt_logs(
    broker: &Broker,
    image: MetadataImage,
    was_deleted: &dyn Fn(Uuid) -> bool,
    logs: BTreeMap<TopicPartition, recovery::OpenedLog>,
) {
    broker.load_dynamic_config(&image);
    let mut removed = Vec::new();
    let mut configs = HashMap::new();
    for (at, opened) in logs {
        let topic = image.topics.by_name(&at.topic).filter(|topic| opened.topic_id.is_none_or(|id| id == topic.id));
        let registration = topic.and_then(|topic| topic.partition(at.partition));
        match (topic, registration.filter(|registration| registration.has_replica(broker.node_id))) {
            (Some(topic), Some(registration)) => {
                let config = configs.entry(topic.id).or_insert_with(|| broker.topic_config(&image, &at.topic)).clone();
                let leadership = crate::runtime::replicas::leadership(registration);
                let mut log = opened.log;
                log.set_config(config.log.clone());
                if let Err(error) = log.adopt_topic_id(topic.id) {
                    tracing::error!(partition = %at, error = describe(&error), "partition.metadata");
                }
                broker.partitions.insert(Partition::new(log, topic.id, opened.log_dir, leadership, config));
            }
            _ if opened.recreated
                || opened.topic_id.is_some_and(|id| was_deleted(id) && image.topics.by_id(id).is_none()) =>
            {
                tracing::info!(partition = %at, "the folder of a deleted topic is removed");
                removed.push(opened.log);
            }
            _ => set_aside(broker, &at, opened.log_dir),
        }
    }
    broker.remove_logs(removed);
    // Partitions of the image without a folder: never written.
    let missing: Vec<_> = image
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |(index, registration)| (topic, *index, registration)))
        .filter(|(topic, index, r)| {
            r.has_replica(broker.node_id) && broker.partitions.get(&topic.name, *index).is_none()
        })
        .map(|(topic, index, r)| (topic.clone(), index, r.clone()))
        .collect();
    for (topic, index, registration) in missing {
        broker.create_replica(&image, &topic.name, topic.id, index, &registration);
    }
    broker.image.store(Arc::new(image));
}

/// Renames a folder that no topic owns, as Kafka does with stray replicas, so that nobody reads it by mistake.
fn set_aside(broker: &Broker, at: &TopicPartition, log_dir: usize) {
    let Some(dir) = broker.log_dirs.get(log_dir) else { return };
    let from = dir.path.join(at.to_string());
    let id: String = crate::random::uuid().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let suffix = format!("-{}.{id}-stray", at.partition);
    // Kafka cuts the topic's name where the whole would exceed a file name's 255 bytes.
    let topic: String = at.topic.chars().take(255usize.saturating_sub(suffix.len())).collect();
    let to = dir.path.join(format!("{topic}{suffix}"));
    match std::fs::rename(&from, &to) {
        Ok(()) => tracing::warn!(partition = %at, moved_to = %to.display(), "a folder of no known topic was set aside"),
        Err(error) => tracing::error!(partition = %at, %error, "cannot set a folder of no known topic aside"),
    }
}

/// Registers this node as controller and as broker, the latter under a new epoch, and unfences it.
async fn register(broker: &Arc<Broker>, bound: &[(Listener, TcpListener)], clean: bool) -> Result<(), StartError> {
    let mut log_dirs: Vec<Uuid> = broker.log_dirs.iter().map(|dir| dir.id).collect();
    log_dirs.sort();
    let spec = BrokerSpec {
        id: broker.node_id,
        incarnation_id: crate::random::uuid(),
        listeners: registered_listeners(&broker.config, bound),
        rack: broker.config.rack.clone(),
        log_dirs,
    };
    let durable = broker.config.taccola.acks_durability == AcksDurability::Disk;
    let previous = if clean || durable { PreviousShutdown::NothingLost } else { PreviousShutdown::MayHaveLost };
    let failed = |error: String| StartError::Metadata(error);
    let mut metadata = broker.metadata.lock().await;
    let controller = controller_registration(&broker.config);
    let outcome = broker.controller.register_controller(&controller);
    broker.commit(&mut metadata, &outcome.records).await.map_err(|error| failed(error.to_string()))?;
    let next_offset = metadata.next_offset();
    let outcome = broker.controller.register_broker(metadata.image(), &spec, previous, next_offset);
    let outcome = outcome.map_err(|error| failed(error.message))?;
    broker.commit(&mut metadata, &outcome.records).await.map_err(|error| failed(error.to_string()))?;
    let outcome =
        broker.controller.unfence_broker(metadata.image(), broker.node_id).map_err(|error| failed(error.message))?;
    broker.commit(&mut metadata, &outcome.records).await.map_err(|error| failed(error.to_string()))?;
    if broker.log_dirs.len() > 1 {
        broker.commit_places(&mut metadata, |_| true).await.map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// This node as a controller: where the config says that it would listen for others of its quorum.
fn controller_registration(config: &ServerConfig) -> ControllerRegistration {
    let endpoint = |listener: &Listener| Endpoint {
        name: listener.name.clone(),
        host: listener.host.clone().unwrap_or_else(|| "localhost".to_owned()),
        port: listener.port,
        security_protocol: listener.protocol.id(),
    };
    ControllerRegistration {
        id: config.node_id,
        incarnation_id: crate::random::uuid(),
        zk_migration_ready: false,
        listeners: config.net.controller_listeners.iter().map(endpoint).collect(),
        features: kafka_feature_ranges().collect(),
    }
}

/// The end of this broker's registration, as Kafka writes it at a clean stop: announced, then fenced. Partitions keep
/// their leader in the next epoch.
async fn deregister(broker: &Broker) -> Result<(), StartError> {
    let failed = |error: String| StartError::Metadata(error);
    let mut metadata = broker.metadata.lock().await;
    let outcome = broker.controller.controlled_shutdown(metadata.image(), broker.node_id);
    let outcome = outcome.map_err(|error| failed(error.message))?;
    broker.commit(&mut metadata, &outcome.records).await.map_err(|error| failed(error.to_string()))?;
    let outcome =
        broker.controller.fence_broker(metadata.image(), broker.node_id).map_err(|error| failed(error.message))?;
    broker.commit(&mut metadata, &outcome.records).await.map_err(|error| failed(error.to_string()))
}

/// What other brokers and tools are told: the advertised addresses, completed by what is bound.
fn registered_listeners(config: &ServerConfig, bound: &[(Listener, TcpListener)]) -> Vec<Endpoint> {
    let endpoint = |(listener, socket): &(Listener, TcpListener)| {
        let local = socket.local_addr().ok();
        let advertised = config.net.advertised.iter().find(|a| a.name == listener.name);
        let host = advertised.and_then(|a| a.host.clone()).or_else(|| listener.host.clone());
        let port = advertised.map(|a| a.port).filter(|port| *port != 0);
        Endpoint {
            name: listener.name.clone(),
            host: host.unwrap_or_else(|| "localhost".to_owned()),
            port: port.or(local.map(|local| local.port())).unwrap_or(listener.port),
            security_protocol: listener.protocol.id(),
        }
    };
    bound.iter().map(endpoint).collect()
}

/// The clean stop's last part: logs flushed and closed, checkpoints and marks written, the journal empty.
pub(crate) async fn close(broker: &Arc<Broker>) -> Result<(), StartError> {
    let epoch = broker.image().cluster.brokers.get(&broker.node_id).map_or(-1, |registration| registration.epoch);
    broker.journal.set_read_only(None);
    deregister(broker).await?;
    let broker = broker.clone();
    let closed = blocking::spawn(move || close_blocking(&broker, epoch)).await;
    closed.unwrap_or_else(|error| Err(StartError::Config(error.to_string())))
}

fn close_blocking(broker: &Broker, epoch: i64) -> Result<(), StartError> {
    housekeeping::checkpoint(broker);
    housekeeping::checkpoint_high_watermarks(broker);
    let mut points = vec![log_dir::Offsets::new(); broker.log_dirs.len()];
    let mut all = broker.partitions.all();
    all.push(broker.metadata_partition.clone());
    // What fails here fails again below, with its name.
    for partition in &all {
        let _ = partition.with_log(|log| log.seal_for_close());
    }
    let _ = Partition::flush_all(&all);
    for partition in all {
        let Some(log) = partition.take_log_to_close() else { continue };
        let failed = |error: taccola_log::LogError| StartError::Log {
            partition: partition.topic_partition.to_string(),
            reason: describe(&error),
        };
        let is_needed = partition.log_dir() == 0 || partition.log_dir() == broker.metadata_partition.log_dir();
        let point = match log.close(clock::now_ms()).map_err(failed) {
            Err(error) if !is_needed => {
                // Its directory is not marked as cleanly stopped, and the journal keeps what it has of it.
                broker.note_dir_failure(partition.log_dir(), &error.to_string());
                continue;
            }
            closed => closed?,
        };
        if let Some(points) = points.get_mut(partition.log_dir()) {
            points.insert(partition.topic_partition.clone(), point);
        }
    }
    broker.purge_deleted_dirs(0);
    for (dir, points) in broker.log_dirs.iter().zip(&points).filter(|(dir, _)| dir.is_online()) {
        let failed = |error: taccola_log::LogError| StartError::Log {
            partition: dir.path.display().to_string(),
            reason: describe(&error),
        };
        log_dir::write_offsets(&dir.path, log_dir::RECOVERY_POINT_CHECKPOINT, points).map_err(failed)?;
    }
    broker.journal.close().map_err(|error| StartError::Journal(error.to_string()))?;
    if let Some(first) = broker.log_dirs.first() {
        let kept = journal::kept(&first.path).map_err(|source| StartError::io("list", &first.path, source))?;
        // What is kept for a directory that failed is as good as a journal that is not empty.
        if kept.is_empty() {
            journal::lower_marker(&first.path).map_err(|source| StartError::io("unmark", &first.path, source))?;
        }
    }
    for dir in broker.log_dirs.iter().filter(|dir| dir.is_online()) {
        log_dir::write_clean_shutdown(&dir.path, epoch)
            .map_err(|error| StartError::Log { partition: dir.path.display().to_string(), reason: describe(&error) })?;
    }
    Ok(())
}
