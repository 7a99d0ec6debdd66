//! The typed view of the broker's settings: every value that the broker uses, in real types, checked once at start
//! as Kafka's `KafkaConfig` and `AbstractKafkaConfig.validateValues` check theirs.
//!
//! Invariants: a [`ServerConfig`] exists only if every value parsed, is within its bounds, and agrees with the others.
//! Durations that appear on the wire or are handed to cores without a clock are whole milliseconds (`…_ms`); waits of
//! the broker itself are [`Duration`].

use super::listeners::{AdvertisedListener, Listener};
use super::topic_config::LogConfigValues;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the broker reads at start; the parts that can change while it runs are rebuilt from the layers.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// `node.id`, or `broker.id`; 1 when neither is set.
    pub node_id: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `CLUSTER_ID` of the environment; no Kafka property sets it.
    pub cluster_id: Option<String>,
    /// `log.dirs`, else `log.dir`: at least one, none twice.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`, else the first of `log_dirs`.
    pub metadata_log_dir: PathBuf,
    pub net: NetConfig,
    pub topics: TopicsConfig,
    /// What a topic gets for every setting that it does not override.
    pub log: LogConfigValues,
    pub log_manager: LogManagerConfig,
    pub replication: ReplicationConfig,
    pub fetch: FetchConfig,
    pub groups: GroupsConfig,
    pub offsets: OffsetsConfig,
    pub transactions: TransactionsConfig,
    pub share: ShareCoordinatorConfig,
    pub controller: ControllerConfig,
    pub remote: RemoteStorageConfig,
    pub quotas: QuotaWindows,
    /// `telemetry.max.bytes`: the largest PushTelemetry payload.
    pub telemetry_max_bytes: usize,
    pub taccola: TaccolaConfig,
}

/// Listeners and connections.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConfig {
    /// `listeners` without those that `controller.listener.names` names. Never empty.
    pub listeners: Vec<Listener>,
    /// One for each that clients or brokers are told of; a host of `None` means: the address on which the client arrived.
    pub advertised: Vec<AdvertisedListener>,
    /// `inter.broker.listener.name`, or the first listener with `security.inter.broker.protocol`.
    pub inter_broker_listener: String,
    /// `listeners` that `controller.listener.names` names; empty when there is nothing to listen on for a quorum.
    pub controller_listeners: Vec<Listener>,
    pub controller_listener_names: Vec<String>,
    /// `connections.max.idle.ms`; `None` when negative: never closed for idling.
    pub connections_max_idle: Option<Duration>,
    pub max_connections: u32,
    pub max_connections_per_ip: u32,
    /// `max.connections.per.ip.overrides`: host or address to limit.
    pub max_connections_per_ip_overrides: BTreeMap<String, u32>,
    /// `max.connection.creation.rate`: new connections per second.
    pub max_connection_creation_rate: u32,
    /// `listener.name.<listener>.…`, by the listener's name in upper case; besides the limits of all together.
    pub listener_limits: BTreeMap<String, ListenerLimits>,
    /// `socket.request.max.bytes`: a larger frame closes the connection.
    pub socket_request_max_bytes: usize,
    /// `socket.receive.buffer.bytes`; `None` (-1): the system's own.
    pub socket_receive_buffer_bytes: Option<usize>,
    /// `socket.send.buffer.bytes`; `None` (-1): the system's own.
    pub socket_send_buffer_bytes: Option<usize>,
    pub socket_listen_backlog: u32,
    pub queued_max_requests: usize,
    /// `queued.max.request.bytes`; `None` (-1): bounded by the number of requests alone.
    pub queued_max_request_bytes: Option<u64>,
    pub num_network_threads: usize,
    pub num_io_threads: usize,
    pub background_threads: usize,
    /// `request.timeout.ms`.
    pub request_timeout: Duration,
    /// `connection.failed.authentication.delay.ms`.
    pub failed_authentication_delay: Duration,
}

/// What one listener allows; `None`: no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    pub max_connections: Option<u32>,
    pub max_connection_creation_rate: Option<u32>,
}

/// How topics come to be, and how large messages may be.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicsConfig {
    pub auto_create: bool,
    pub delete_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    /// `message.max.bytes`: the largest record batch for topics without their own `max.message.bytes`.
    pub message_max_bytes: i32,
    pub unclean_leader_election_enable: bool,
    /// `max.request.partition.size.limit`: partitions in one DescribeTopicPartitions answer.
    pub max_request_partition_size_limit: i32,
}

/// What the manager of all logs does and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct LogManagerConfig {
    pub retention_check_interval: Duration,
    /// `log.initial.task.delay.ms`.
    pub initial_task_delay: Duration,
    /// `log.flush.scheduler.interval.ms`; `None`: no flush by time.
    pub flush_scheduler_interval: Option<Duration>,
    pub flush_offset_checkpoint_interval: Duration,
    pub flush_start_offset_checkpoint_interval: Duration,
    pub recovery_threads_per_data_dir: usize,
    /// `num.replica.alter.log.dirs.threads`; `None`: as many as directories.
    pub alter_log_dirs_threads: Option<usize>,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`, of all moves together.
    pub alter_log_dirs_bytes_per_second: u64,
    pub high_watermark_checkpoint_interval: Duration,
    pub producer_id_expiration_ms: i64,
    pub producer_id_expiration_check_interval: Duration,
    /// `transaction.partition.verification.enable`.
    pub partition_verification_enable: bool,
    pub cleaner: CleanerConfig,
}

/// The log cleaner.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerConfig {
    pub enable: bool,
    pub threads: usize,
    /// `log.cleaner.dedupe.buffer.size`, bytes of all threads together.
    pub dedupe_buffer_bytes: u64,
    /// `log.cleaner.io.buffer.size`, bytes of all threads together.
    pub io_buffer_bytes: usize,
    pub io_buffer_load_factor: f64,
    /// `log.cleaner.io.max.bytes.per.second`; infinite by default in all but name.
    pub io_max_bytes_per_second: f64,
    pub backoff: Duration,
}

/// Followers and ISR.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicationConfig {
    pub lag_time_max: Duration,
    pub fetch_max_bytes: i32,
    pub fetch_min_bytes: i32,
    pub fetch_response_max_bytes: i32,
    pub fetch_wait_max: Duration,
    pub fetch_backoff: Duration,
    pub num_fetchers: usize,
    pub socket_timeout: Duration,
    /// `None` (-1): the system's own.
    pub socket_receive_buffer_bytes: Option<usize>,
}

/// Fetch sessions and answers.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchConfig {
    /// `fetch.max.bytes`: the largest fetch answer, whatever the client asks.
    pub max_bytes: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub session_slots: usize,
}

/// All kinds of groups.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupsConfig {
    pub classic: ClassicGroupConfig,
    pub consumer: ConsumerGroupConfig,
    pub share: ShareGroupConfig,
    pub streams: StreamsGroupConfig,
    /// `group.coordinator.rebalance.protocols`.
    pub protocols: GroupProtocols,
    pub coordinator_threads: usize,
    /// `group.coordinator.append.linger.ms`; `None` (-1): as long as the load asks for.
    pub append_linger: Option<Duration>,
    pub cached_buffer_max_bytes: usize,
}

/// Which protocols the group coordinator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupProtocols {
    pub classic: bool,
    pub consumer: bool,
    pub share: bool,
    pub streams: bool,
}

/// `group.*` of the classic protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassicGroupConfig {
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub max_size: i32,
    pub initial_rebalance_delay_ms: i32,
}

/// `group.consumer.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerGroupConfig {
    pub session_timeout_ms: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
    pub min_heartbeat_interval_ms: i32,
    pub max_heartbeat_interval_ms: i32,
    pub assignment_interval_ms: i32,
    pub min_assignment_interval_ms: i32,
    pub max_assignment_interval_ms: i32,
    pub max_size: i32,
    /// Names of built-in assignors; the first is the default.
    pub assignors: Vec<String>,
    pub migration_policy: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`.
    pub regex_refresh_interval_ms: i32,
}

/// `group.consumer.migration.policy`: which conversions between classic and consumer groups happen by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    Disabled,
    Downgrade,
    Upgrade,
    Bidirectional,
}

/// `group.share.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareGroupConfig {
    pub session_timeout_ms: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
    pub min_heartbeat_interval_ms: i32,
    pub max_heartbeat_interval_ms: i32,
    pub assignment_interval_ms: i32,
    pub min_assignment_interval_ms: i32,
    pub max_assignment_interval_ms: i32,
    pub max_size: i32,
    pub assignors: Vec<String>,
    pub delivery_count_limit: i32,
    pub min_delivery_count_limit: i32,
    pub max_delivery_count_limit: i32,
    pub record_lock_duration_ms: i32,
    pub min_record_lock_duration_ms: i32,
    pub max_record_lock_duration_ms: i32,
    pub partition_max_record_locks: i32,
    pub min_partition_max_record_locks: i32,
    pub max_partition_max_record_locks: i32,
    pub max_share_sessions: i32,
    pub initialize_retry_interval_ms: i32,
}

/// `group.streams.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamsGroupConfig {
    pub session_timeout_ms: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub heartbeat_interval_ms: i32,
    pub min_heartbeat_interval_ms: i32,
    pub max_heartbeat_interval_ms: i32,
    pub assignment_interval_ms: i32,
    pub min_assignment_interval_ms: i32,
    pub max_assignment_interval_ms: i32,
    pub max_size: i32,
    pub num_standby_replicas: i32,
    pub max_standby_replicas: i32,
    pub initial_rebalance_delay_ms: i32,
}

/// `__consumer_offsets` and what commits may hold.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetsConfig {
    pub topic_num_partitions: i32,
    pub topic_replication_factor: i16,
    pub topic_segment_bytes: i32,
    /// `offsets.topic.compression.codec`: the code of the record batch attribute (0 none … 4 zstd).
    pub topic_compression_codec: i8,
    /// `offsets.retention.minutes`, as milliseconds.
    pub retention_ms: i64,
    pub retention_check_interval: Duration,
    pub commit_timeout: Duration,
    pub load_buffer_bytes: usize,
    /// `offset.metadata.max.bytes`: the longest metadata string of one committed offset.
    pub metadata_max_bytes: i32,
}

/// Transaction coordinator and `__transaction_state`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransactionsConfig {
    pub topic_num_partitions: i32,
    pub topic_replication_factor: i16,
    pub topic_min_isr: i32,
    pub topic_segment_bytes: i32,
    pub load_buffer_bytes: usize,
    pub max_timeout_ms: i32,
    pub transactional_id_expiration_ms: i64,
    pub abort_timed_out_interval: Duration,
    pub remove_expired_interval: Duration,
    pub two_phase_commit_enable: bool,
    pub partition_verification_enable: bool,
    pub add_partitions_retry_backoff: Duration,
    /// In all, for one request.
    pub add_partitions_retry_backoff_max: Duration,
}

/// Share coordinator and `__share_group_state`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareCoordinatorConfig {
    pub topic_num_partitions: i32,
    pub topic_replication_factor: i16,
    pub topic_min_isr: i32,
    pub topic_segment_bytes: i32,
    pub topic_compression_codec: i8,
    pub topic_prune_interval: Duration,
    pub load_buffer_bytes: usize,
    pub snapshot_update_records_per_snapshot: i32,
    pub cold_partition_snapshot_interval: Duration,
    pub write_timeout: Duration,
    pub append_linger: Option<Duration>,
}

/// Controller, metadata log and registration of brokers.
#[derive(Debug, Clone, PartialEq)]
pub struct ControllerConfig {
    /// `controller.quorum.voters`; empty with a dynamic quorum or when not set.
    pub voters: Vec<QuorumVoter>,
    /// `controller.quorum.bootstrap.servers` as host and port.
    pub bootstrap_servers: Vec<(String, u16)>,
    pub broker_heartbeat_interval: Duration,
    pub broker_session_timeout: Duration,
    pub initial_registration_timeout: Duration,
    pub election_timeout: Duration,
    pub fetch_timeout: Duration,
    pub request_timeout: Duration,
    pub append_linger: Duration,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub snapshot_max_record_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; `None` (0): only by bytes.
    pub snapshot_max_interval: Option<Duration>,
    pub metadata_segment_bytes: i32,
    pub metadata_segment_ms: i64,
    /// Bytes kept before a snapshot; negative: no bound by size.
    pub metadata_retention_bytes: i64,
    pub metadata_retention_ms: i64,
    /// `metadata.max.idle.interval.ms`: how often a no-op record is written when idle; `None` (0): never.
    pub metadata_max_idle_interval: Option<Duration>,
    /// `internal.metadata.max.batch.size.in.bytes`.
    pub metadata_max_batch_bytes: usize,
}

/// One entry of `controller.quorum.voters`: `id@host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumVoter {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

/// Samples and their length for the three families of quotas.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaWindows {
    pub client: QuotaWindow,
    pub replication: QuotaWindow,
    pub controller: QuotaWindow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaWindow {
    pub samples: u32,
    pub size: Duration,
}

/// Keys of ours, which no Kafka has.
#[derive(Debug, Clone, PartialEq)]
pub struct TaccolaConfig {
    pub acks_durability: AcksDurability,
    /// `taccola.journal.bytes`: size of the shared journal.
    pub journal_bytes: u64,
    /// `taccola.produce.verify.records`: every produced batch is walked.
    pub produce_verify_records: bool,
    /// `taccola.disk.reserve.bytes` and `.percent`: what producers may not use of a disk is the smaller of both.
    pub disk_reserve_bytes: u64,
    pub disk_reserve_percent: u32,
    /// `taccola.crash.loop.limit`: unclean starts within ten minutes that make the next one read-only; 0: none do.
    pub crash_loop_limit: u32,
    /// `taccola.scrub.bytes.per.second`; 0: no scrubbing.
    pub scrub_bytes_per_second: u64,
    /// `taccola.scrub.interval.ms`: from one pass to the next.
    pub scrub_interval: Duration,
    /// `taccola.data.dir`: home of indexes and states that are no part of Kafka's directory.
    pub data_dir: Option<PathBuf>,
    pub log_format: LogFormat,
}

/// `taccola.acks.durability`: what an acks=all acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcksDurability {
    /// The records are on disk: they survive a power cut.
    Disk,
    /// The records are in the page cache: they survive the process, as with Kafka's defaults.
    Memory,
}

/// `taccola.log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

/// Tiered storage (KIP-405).
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteStorageConfig {
    /// `remote.log.storage.system.enable`
    pub enable: bool,
    /// `taccola.remote.storage.url`; set when `enable` is.
    pub url: Option<String>,
    /// What stands under `remote.log.storage.manager.impl.prefix`, without it.
    pub options: StoreOptions,
    /// `taccola.remote.fetch.cache.bytes`
    pub cache_bytes: usize,
    /// `remote.fetch.max.wait.ms`
    pub fetch_max_wait: Duration,
    /// `remote.list.offsets.request.timeout.ms`
    pub list_offsets_timeout: Duration,
    /// `remote.log.manager.copier.thread.pool.size`: partitions worked on at a time.
    pub copiers: usize,
    /// `remote.log.manager.copy.max.bytes.per.second`
    pub copy_bytes_per_second: u64,
    /// `remote.log.manager.fetch.max.bytes.per.second`
    pub fetch_bytes_per_second: u64,
    /// `remote.log.manager.task.interval.ms`
    pub task_interval: Duration,
    /// `remote.log.manager.task.retry.backoff.ms`
    pub retry_backoff: Duration,
    /// `remote.log.manager.task.retry.backoff.max.ms`
    pub retry_backoff_max: Duration,
    /// `remote.log.reader.threads`: requests to the store at a time.
    pub readers: usize,
    /// `remote.log.reader.max.pending.tasks`: further ones that may wait.
    pub readers_pending: usize,
    /// `rlmm.config.remote.log.metadata.topic.num.partitions`
    pub metadata_partitions: i32,
    /// `rlmm.config.remote.log.metadata.topic.retention.ms`
    pub metadata_retention_ms: i64,
}

/// Settings of a store by name. Some are secrets, so none is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreOptions(pub BTreeMap<String, String>);

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
