//! From settings to [`ServerConfig`]: each typed field from its key, then the checks between keys that Kafka makes at
//! start (`AbstractKafkaConfig`, `KafkaConfig.validateValues`, `GroupCoordinatorConfig`), then refusals and warnings.

use super::ConfigMap;
use super::layers::Layers;
use super::net_load::load_net;
use super::server::*;
use super::settings::Settings;
use super::topic_config::LogConfigValues;
use super::view::{ConfigErrors, View};
use std::path::PathBuf;
use std::time::Duration;

/// A config that holds, and what the user should be told about it, one sentence each.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: ServerConfig,
    pub warnings: Vec<String>,
}

impl ServerConfig {
    /// What is set at start, alone.
    pub fn load(settings: &Settings) -> Result<Loaded, ConfigErrors> {
        Self::load_with(settings, &ConfigMap::new(), &ConfigMap::new())
    }

    /// What is set at start, and above it what was set while brokers ran: for all (config records of the broker
    /// resource with the empty name) and for this one. Wrong values among these are warnings and do not count.
    pub fn load_with(
        settings: &Settings,
        dynamic_default: &ConfigMap,
        dynamic_broker: &ConfigMap,
    ) -> Result<Loaded, ConfigErrors> {
        let static_config = settings.to_map();
        let layers = Layers { static_config: &static_config, dynamic_default, dynamic_broker };
        let mut view = View::new(settings, layers);
        view.check_names();
        let config = read(&mut view, settings.cluster_id());
        check(&mut view, &config);
        dedup(&mut view.errors);
        dedup(&mut view.warnings);
        if view.errors.is_empty() {
            Ok(Loaded { config, warnings: view.warnings })
        } else {
            Err(ConfigErrors(view.errors))
        }
    }
}

/// Keys that are read more than once complain more than once.
fn dedup<T: PartialEq>(items: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *items = kept;
}

fn read(v: &mut View<'_>, cluster_id: Option<&str>) -> ServerConfig {
    let node_id = v.i32("node.id");
    if v.is_set("broker.id") && v.i32("broker.id") != node_id && v.i32("broker.id") != -1 {
        v.conflict("node.id and broker.id must be the same when both are set");
    }
    check_roles(v);
    let log_dirs = read_log_dirs(v);
    let metadata_log_dir = v.opt_text("metadata.log.dir").map(PathBuf::from);
    let metadata_log_dir = metadata_log_dir.or_else(|| log_dirs.first().cloned()).unwrap_or_default();
    let net = load_net(v);
    let controller = read_controller(v, node_id, &net);
    ServerConfig {
        node_id,
        rack: v.opt_text("broker.rack"),
        cluster_id: cluster_id.map(str::to_owned),
        log_dirs,
        metadata_log_dir,
        net,
        topics: read_topics(v),
        log: LogConfigValues::of_broker(v),
        log_manager: read_log_manager(v),
        replication: read_replication(v),
        fetch: FetchConfig {
            max_bytes: v.i32("fetch.max.bytes"),
            session_slots: v.usize("max.incremental.fetch.session.cache.slots"),
        },
        groups: read_groups(v),
        offsets: read_offsets(v),
        transactions: read_transactions(v),
        share: read_share_coordinator(v),
        controller,
        remote: read_remote(v),
        quotas: QuotaWindows {
            client: window(v, "quota.window"),
            replication: window(v, "replication.quota.window"),
            controller: window(v, "controller.quota.window"),
        },
        telemetry_max_bytes: v.usize("telemetry.max.bytes"),
        taccola: read_taccola(v),
    }
}

fn check_roles(v: &mut View<'_>) {
    let roles = v.list("process.roles");
    let has = |r: &str| roles.iter().any(|x| x == r);
    match (has("broker"), has("controller")) {
        (true, true) => {}
        (true, false) => {
            v.refuse("process.roles", "a broker cannot use another node's controller yet; set broker,controller")
        }
        (false, true) => {
            v.refuse("process.roles", "a controller without a broker cannot be served yet; set broker,controller")
        }
        (false, false) => v.wrong("process.roles", "must be broker,controller"),
    }
}

fn read_log_dirs(v: &mut View<'_>) -> Vec<PathBuf> {
    let name = if v.is_set("log.dirs") { "log.dirs" } else { "log.dir" };
    let dirs = v.list(name);
    if dirs.is_empty() {
        v.wrong(name, "must name at least one directory");
    }
    let mut unique: Vec<PathBuf> = Vec::new();
    for dir in dirs.into_iter().map(PathBuf::from) {
        if unique.contains(&dir) {
            v.wrong(name, "must not name a directory twice");
        } else {
            unique.push(dir);
        }
    }
    unique
}

fn read_topics(v: &mut View<'_>) -> TopicsConfig {
    TopicsConfig {
        auto_create: v.bool("auto.create.topics.enable"),
        delete_enable: v.bool("delete.topic.enable"),
        num_partitions: v.i32("num.partitions"),
        default_replication_factor: i16::try_from(v.i32("default.replication.factor")).unwrap_or(i16::MAX),
        message_max_bytes: v.i32("message.max.bytes"),
        unclean_leader_election_enable: v.bool("unclean.leader.election.enable"),
        max_request_partition_size_limit: v.i32("max.request.partition.size.limit"),
    }
}

fn read_log_manager(v: &mut View<'_>) -> LogManagerConfig {
    LogManagerConfig {
        retention_check_interval: v.ms("log.retention.check.interval.ms"),
        initial_task_delay: v.ms("log.initial.task.delay.ms"),
        flush_scheduler_interval: v.ms_or_never("log.flush.scheduler.interval.ms"),
        flush_offset_checkpoint_interval: v.ms("log.flush.offset.checkpoint.interval.ms"),
        flush_start_offset_checkpoint_interval: v.ms("log.flush.start.offset.checkpoint.interval.ms"),
        recovery_threads_per_data_dir: v.usize("num.recovery.threads.per.data.dir"),
        alter_log_dirs_threads: v
            .opt_i64("num.replica.alter.log.dirs.threads")
            .map(|threads| usize::try_from(threads).unwrap_or(0)),
        alter_log_dirs_bytes_per_second: v.u64("replica.alter.log.dirs.io.max.bytes.per.second"),
        high_watermark_checkpoint_interval: v.ms("replica.high.watermark.checkpoint.interval.ms"),
        producer_id_expiration_ms: v.i64("producer.id.expiration.ms"),
        producer_id_expiration_check_interval: v.ms("producer.id.expiration.check.interval.ms"),
        partition_verification_enable: v.bool("transaction.partition.verification.enable"),
        cleaner: CleanerConfig {
            enable: v.bool("log.cleaner.enable"),
            threads: v.usize("log.cleaner.threads"),
            dedupe_buffer_bytes: v.u64("log.cleaner.dedupe.buffer.size"),
            io_buffer_bytes: v.usize("log.cleaner.io.buffer.size"),
            io_buffer_load_factor: v.f64("log.cleaner.io.buffer.load.factor"),
            io_max_bytes_per_second: v.f64("log.cleaner.io.max.bytes.per.second"),
            backoff: v.ms("log.cleaner.backoff.ms"),
        },
    }
}

fn read_replication(v: &mut View<'_>) -> ReplicationConfig {
    ReplicationConfig {
        lag_time_max: v.ms("replica.lag.time.max.ms"),
        fetch_max_bytes: v.i32("replica.fetch.max.bytes"),
        fetch_min_bytes: v.i32("replica.fetch.min.bytes"),
        fetch_response_max_bytes: v.i32("replica.fetch.response.max.bytes"),
        fetch_wait_max: v.ms("replica.fetch.wait.max.ms"),
        fetch_backoff: v.ms("replica.fetch.backoff.ms"),
        num_fetchers: v.usize("num.replica.fetchers"),
        socket_timeout: v.ms("replica.socket.timeout.ms"),
        socket_receive_buffer_bytes: v.size_or_none("replica.socket.receive.buffer.bytes"),
    }
}

fn read_groups(v: &mut View<'_>) -> GroupsConfig {
    let protocols = v.list("group.coordinator.rebalance.protocols");
    let has = |p: &str| protocols.iter().any(|x| x == p);
    let protocols = GroupProtocols {
        classic: has("classic"),
        consumer: has("consumer"),
        share: has("share"),
        streams: has("streams"),
    };
    GroupsConfig {
        classic: ClassicGroupConfig {
            min_session_timeout_ms: v.i32("group.min.session.timeout.ms"),
            max_session_timeout_ms: v.i32("group.max.session.timeout.ms"),
            max_size: v.i32("group.max.size"),
            initial_rebalance_delay_ms: v.i32("group.initial.rebalance.delay.ms"),
        },
        consumer: read_consumer_groups(v),
        share: read_share_groups(v),
        streams: read_streams_groups(v),
        protocols,
        coordinator_threads: v.usize("group.coordinator.threads"),
        append_linger: v.ms_or_never("group.coordinator.append.linger.ms"),
        cached_buffer_max_bytes: v.usize("group.coordinator.cached.buffer.max.bytes"),
    }
}

fn read_consumer_groups(v: &mut View<'_>) -> ConsumerGroupConfig {
    ConsumerGroupConfig {
        session_timeout_ms: v.i32("group.consumer.session.timeout.ms"),
        min_session_timeout_ms: v.i32("group.consumer.min.session.timeout.ms"),
        max_session_timeout_ms: v.i32("group.consumer.max.session.timeout.ms"),
        heartbeat_interval_ms: v.i32("group.consumer.heartbeat.interval.ms"),
        min_heartbeat_interval_ms: v.i32("group.consumer.min.heartbeat.interval.ms"),
        max_heartbeat_interval_ms: v.i32("group.consumer.max.heartbeat.interval.ms"),
        assignment_interval_ms: v.i32("group.consumer.assignment.interval.ms"),
        min_assignment_interval_ms: v.i32("group.consumer.min.assignment.interval.ms"),
        max_assignment_interval_ms: v.i32("group.consumer.max.assignment.interval.ms"),
        max_size: v.i32("group.consumer.max.size"),
        assignors: read_assignors(v, "group.consumer.assignors"),
        migration_policy: match v.text("group.consumer.migration.policy").to_ascii_lowercase().as_str() {
            "disabled" => MigrationPolicy::Disabled,
            "downgrade" => MigrationPolicy::Downgrade,
            "upgrade" => MigrationPolicy::Upgrade,
            _ => MigrationPolicy::Bidirectional,
        },
        regex_refresh_interval_ms: v.i32("group.consumer.regex.refresh.interval.ms"),
    }
}

/// Built-in assignors by their short names, whichever way they were written. At least one, none twice.
fn read_assignors(v: &mut View<'_>, name: &str) -> Vec<String> {
    let mut assignors: Vec<String> = Vec::new();
    for item in v.list(name) {
        let class = item.rsplit('.').next().unwrap_or(&item);
        let short = class.strip_suffix("Assignor").unwrap_or(class).to_ascii_lowercase();
        if assignors.contains(&short) {
            v.wrong(name, "must not name an assignor twice");
        } else {
            assignors.push(short);
        }
    }
    if assignors.is_empty() {
        v.wrong(name, "must name at least one assignor");
    }
    assignors
}

fn read_one_assignor(v: &mut View<'_>, name: &str) -> Vec<String> {
    let assignors = read_assignors(v, name);
    if assignors.len() > 1 {
        v.wrong(name, "must name one assignor only");
    }
    assignors
}

fn read_share_groups(v: &mut View<'_>) -> ShareGroupConfig {
    ShareGroupConfig {
        session_timeout_ms: v.i32("group.share.session.timeout.ms"),
        min_session_timeout_ms: v.i32("group.share.min.session.timeout.ms"),
        max_session_timeout_ms: v.i32("group.share.max.session.timeout.ms"),
        heartbeat_interval_ms: v.i32("group.share.heartbeat.interval.ms"),
        min_heartbeat_interval_ms: v.i32("group.share.min.heartbeat.interval.ms"),
        max_heartbeat_interval_ms: v.i32("group.share.max.heartbeat.interval.ms"),
        assignment_interval_ms: v.i32("group.share.assignment.interval.ms"),
        min_assignment_interval_ms: v.i32("group.share.min.assignment.interval.ms"),
        max_assignment_interval_ms: v.i32("group.share.max.assignment.interval.ms"),
        max_size: v.i32("group.share.max.size"),
        assignors: read_one_assignor(v, "group.share.assignors"),
        delivery_count_limit: v.i32("group.share.delivery.count.limit"),
        min_delivery_count_limit: v.i32("group.share.min.delivery.count.limit"),
        max_delivery_count_limit: v.i32("group.share.max.delivery.count.limit"),
        record_lock_duration_ms: v.i32("group.share.record.lock.duration.ms"),
        min_record_lock_duration_ms: v.i32("group.share.min.record.lock.duration.ms"),
        max_record_lock_duration_ms: v.i32("group.share.max.record.lock.duration.ms"),
        partition_max_record_locks: v.i32("group.share.partition.max.record.locks"),
        min_partition_max_record_locks: v.i32("group.share.min.partition.max.record.locks"),
        max_partition_max_record_locks: v.i32("group.share.max.partition.max.record.locks"),
        max_share_sessions: v.i32("group.share.max.share.sessions"),
        initialize_retry_interval_ms: v.i32("group.share.initialize.retry.interval.ms"),
    }
}

fn read_streams_groups(v: &mut View<'_>) -> StreamsGroupConfig {
    StreamsGroupConfig {
        session_timeout_ms: v.i32("group.streams.session.timeout.ms"),
        min_session_timeout_ms: v.i32("group.streams.min.session.timeout.ms"),
        max_session_timeout_ms: v.i32("group.streams.max.session.timeout.ms"),
        heartbeat_interval_ms: v.i32("group.streams.heartbeat.interval.ms"),
        min_heartbeat_interval_ms: v.i32("group.streams.min.heartbeat.interval.ms"),
        max_heartbeat_interval_ms: v.i32("group.streams.max.heartbeat.interval.ms"),
        assignment_interval_ms: v.i32("group.streams.assignment.interval.ms"),
        min_assignment_interval_ms: v.i32("group.streams.min.assignment.interval.ms"),
        max_assignment_interval_ms: v.i32("group.streams.max.assignment.interval.ms"),
        max_size: v.i32("group.streams.max.size"),
        num_standby_replicas: v.i32("group.streams.num.standby.replicas"),
        max_standby_replicas: v.i32("group.streams.max.standby.replicas"),
        initial_rebalance_delay_ms: v.i32("group.streams.initial.rebalance.delay.ms"),
    }
}

/// A codec by its number in a batch's attributes.
fn codec(v: &mut View<'_>, name: &str) -> i8 {
    match i8::try_from(v.i32(name)) {
        Ok(code @ 0..=4) => code,
        _ => {
            v.wrong(name, "must be 0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)");
            0
        }
    }
}

fn read_offsets(v: &mut View<'_>) -> OffsetsConfig {
    OffsetsConfig {
        topic_num_partitions: v.i32("offsets.topic.num.partitions"),
        topic_replication_factor: v.i16("offsets.topic.replication.factor"),
        topic_segment_bytes: v.i32("offsets.topic.segment.bytes"),
        topic_compression_codec: codec(v, "offsets.topic.compression.codec"),
        retention_ms: v.i64("offsets.retention.minutes").saturating_mul(60_000),
        retention_check_interval: v.ms("offsets.retention.check.interval.ms"),
        commit_timeout: v.ms("offsets.commit.timeout.ms"),
        load_buffer_bytes: v.usize("offsets.load.buffer.size"),
        metadata_max_bytes: v.i32("offset.metadata.max.bytes"),
    }
}

fn read_transactions(v: &mut View<'_>) -> TransactionsConfig {
    TransactionsConfig {
        topic_num_partitions: v.i32("transaction.state.log.num.partitions"),
        topic_replication_factor: v.i16("transaction.state.log.replication.factor"),
        topic_min_isr: v.i32("transaction.state.log.min.isr"),
        topic_segment_bytes: v.i32("transaction.state.log.segment.bytes"),
        load_buffer_bytes: v.usize("transaction.state.log.load.buffer.size"),
        max_timeout_ms: v.i32("transaction.max.timeout.ms"),
        transactional_id_expiration_ms: v.i64("transactional.id.expiration.ms"),
        abort_timed_out_interval: v.ms("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        remove_expired_interval: v.ms("transaction.remove.expired.transaction.cleanup.interval.ms"),
        two_phase_commit_enable: v.bool("transaction.two.phase.commit.enable"),
        partition_verification_enable: v.bool("transaction.partition.verification.enable"),
        add_partitions_retry_backoff: v.ms("add.partitions.to.txn.retry.backoff.ms"),
        add_partitions_retry_backoff_max: v.ms("add.partitions.to.txn.retry.backoff.max.ms"),
    }
}

fn read_share_coordinator(v: &mut View<'_>) -> ShareCoordinatorConfig {
    ShareCoordinatorConfig {
        topic_num_partitions: v.i32("share.coordinator.state.topic.num.partitions"),
        topic_replication_factor: v.i16("share.coordinator.state.topic.replication.factor"),
        topic_min_isr: v.i32("share.coordinator.state.topic.min.isr"),
        topic_segment_bytes: v.i32("share.coordinator.state.topic.segment.bytes"),
        topic_compression_codec: codec(v, "share.coordinator.state.topic.compression.codec"),
        topic_prune_interval: v.ms("share.coordinator.state.topic.prune.interval.ms"),
        load_buffer_bytes: v.usize("share.coordinator.load.buffer.size"),
        snapshot_update_records_per_snapshot: v.i32("share.coordinator.snapshot.update.records.per.snapshot"),
        cold_partition_snapshot_interval: v.ms("share.coordinator.cold.partition.snapshot.interval.ms"),
        write_timeout: v.ms("share.coordinator.write.timeout.ms"),
        append_linger: v.ms_or_never("share.coordinator.append.linger.ms"),
    }
}

fn read_controller(v: &mut View<'_>, node_id: i32, net: &NetConfig) -> ControllerConfig {
    let voters = read_voters(v);
    if !voters.is_empty() {
        if !voters.iter().any(|x| x.id == node_id) {
            v.wrong("controller.quorum.voters", format!("must name this node, whose node.id is {node_id}"));
        } else if voters.len() > 1 {
            v.refuse("controller.quorum.voters", "a quorum of several nodes is not implemented yet");
        }
    }
    ControllerConfig {
        voters,
        bootstrap_servers: read_bootstrap_servers(v, net),
        broker_heartbeat_interval: v.ms("broker.heartbeat.interval.ms"),
        broker_session_timeout: v.ms("broker.session.timeout.ms"),
        initial_registration_timeout: v.ms("initial.broker.registration.timeout.ms"),
        election_timeout: v.ms("controller.quorum.election.timeout.ms"),
        fetch_timeout: v.ms("controller.quorum.fetch.timeout.ms"),
        request_timeout: v.ms("controller.quorum.request.timeout.ms"),
        append_linger: v.ms("controller.quorum.append.linger.ms"),
        snapshot_max_record_bytes: v.u64("metadata.log.max.record.bytes.between.snapshots"),
        snapshot_max_interval: v.ms_or_never("metadata.log.max.snapshot.interval.ms").filter(|d| !d.is_zero()),
        metadata_segment_bytes: v.i32("metadata.log.segment.bytes"),
        metadata_segment_ms: v.i64("metadata.log.segment.ms"),
        metadata_retention_bytes: v.i64("metadata.max.retention.bytes"),
        metadata_retention_ms: v.i64("metadata.max.retention.ms"),
        metadata_max_idle_interval: v.ms_or_never("metadata.max.idle.interval.ms").filter(|d| !d.is_zero()),
        metadata_max_batch_bytes: v.usize("internal.metadata.max.batch.size.in.bytes"),
    }
}

/// Partitions of `__remote_log_metadata` when nothing says otherwise.
const REMOTE_METADATA_PARTITIONS: i32 = 50;

fn read_remote(v: &mut View<'_>) -> RemoteStorageConfig {
    let enable = v.bool("remote.log.storage.system.enable");
    let url = v.opt_text("taccola.remote.storage.url");
    if enable && url.is_none() {
        v.conflict("taccola.remote.storage.url must be set where remote.log.storage.system.enable=true");
    }
    let rlmm = v.text("remote.log.metadata.manager.impl.prefix");
    let rsm = v.text("remote.log.storage.manager.impl.prefix");
    let number = |v: &mut View<'_>, name: &str, default: i64, min: i64| {
        let name = format!("{rlmm}remote.log.metadata.topic.{name}");
        match v.raw(&name).map(|text| text.trim().parse::<i64>()) {
            None => default,
            Some(Ok(n)) if (min..=i64::from(i32::MAX)).contains(&n) || (n >= min && default < 0) => n,
            Some(_) => {
                v.conflict(format!("{name} must be a number of at least {min}"));
                default
            }
        }
    };
    let metadata_partitions = number(v, "num.partitions", i64::from(REMOTE_METADATA_PARTITIONS), 1);
    RemoteStorageConfig {
        enable,
        url,
        options: StoreOptions(v.under(&rsm)),
        cache_bytes: v.usize("taccola.remote.fetch.cache.bytes"),
        fetch_max_wait: v.ms("remote.fetch.max.wait.ms"),
        list_offsets_timeout: v.ms("remote.list.offsets.request.timeout.ms"),
        copiers: v.usize("remote.log.manager.copier.thread.pool.size"),
        copy_bytes_per_second: v.u64("remote.log.manager.copy.max.bytes.per.second"),
        fetch_bytes_per_second: v.u64("remote.log.manager.fetch.max.bytes.per.second"),
        task_interval: v.ms("remote.log.manager.task.interval.ms"),
        retry_backoff: v.ms("remote.log.manager.task.retry.backoff.ms"),
        retry_backoff_max: v.ms("remote.log.manager.task.retry.backoff.max.ms"),
        readers: v.usize("remote.log.reader.threads"),
        readers_pending: v.usize("remote.log.reader.max.pending.tasks"),
        metadata_partitions: i32::try_from(metadata_partitions).unwrap_or(REMOTE_METADATA_PARTITIONS),
        metadata_retention_ms: number(v, "retention.ms", -1, -1),
    }
}

fn read_voters(v: &mut View<'_>) -> Vec<QuorumVoter> {
    let name = "controller.quorum.voters";
    let mut voters: Vec<QuorumVoter> = Vec::new();
    for item in v.list(name) {
        let voter = item.split_once('@').and_then(|(id, address)| {
            let (host, port) = super::listeners::split_host_port(address)?;
            let id = id.parse::<i32>().ok().filter(|id| *id >= 0)?;
            Some(QuorumVoter { id, host: host.to_owned(), port })
        });
        match voter.filter(|x| !x.host.is_empty() && !voters.iter().any(|y| y.id == x.id)) {
            Some(voter) => voters.push(voter),
            None => v.wrong(name, "must be a list of id@host:port, no id twice"),
        }
    }
    voters
}

/// Only this node's own controller listener can be among them: any other would mean another node's quorum.
fn read_bootstrap_servers(v: &mut View<'_>, net: &NetConfig) -> Vec<(String, u16)> {
    let name = "controller.quorum.bootstrap.servers";
    let mut servers = Vec::new();
    for item in v.list(name) {
        match super::listeners::split_host_port(&item) {
            Some((host, port)) if !host.is_empty() && port > 0 => {
                if !net.controller_listeners.iter().any(|l| l.port == port) {
                    v.refuse(name, format!("{item} is no controller listener of this node, and another node's quorum cannot be joined yet"));
                }
                servers.push((host.to_owned(), port));
            }
            _ => v.wrong(name, "must be a list of host:port"),
        }
    }
    servers
}

fn window(v: &mut View<'_>, prefix: &str) -> QuotaWindow {
    QuotaWindow {
        samples: v.u32(&format!("{prefix}.num")),
        size: Duration::from_secs(v.u64(&format!("{prefix}.size.seconds"))),
    }
}

fn read_taccola(v: &mut View<'_>) -> TaccolaConfig {
    TaccolaConfig {
        acks_durability: match v.text("taccola.acks.durability").as_str() {
            "memory" => AcksDurability::Memory,
            _ => AcksDurability::Disk,
        },
        journal_bytes: v.u64("taccola.journal.bytes"),
        produce_verify_records: v.bool("taccola.produce.verify.records"),
        disk_reserve_bytes: v.u64("taccola.disk.reserve.bytes"),
        disk_reserve_percent: v.u32("taccola.disk.reserve.percent"),
        crash_loop_limit: v.u32("taccola.crash.loop.limit"),
        scrub_bytes_per_second: v.u64("taccola.scrub.bytes.per.second"),
        scrub_interval: v.ms("taccola.scrub.interval.ms"),
        data_dir: v.opt_text("taccola.data.dir").filter(|s| !s.is_empty()).map(PathBuf::from),
        log_format: match v.text("taccola.log.format").as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Human,
        },
    }
}

/// Checks between keys.
fn check(v: &mut View<'_>, c: &ServerConfig) {
    check_authorizer(v);
    check_logs(v, c);
    check_timings(v, c);
    check_groups(v, &c.groups);
    let n = &c.net;
    v.require(n.queued_max_request_bytes.is_none_or(|b| b >= n.socket_request_max_bytes as u64), || {
        "queued.max.request.bytes must be at least socket.request.max.bytes, or -1".to_owned()
    });
    v.require(n.max_connections_per_ip > 0 || !n.max_connections_per_ip_overrides.is_empty(), || {
        "max.connections.per.ip can be 0 only with max.connections.per.ip.overrides".to_owned()
    });
}

/// With this setting Kafka's authorizer allows everything as long as no ACL exists, and none can be made here: taken
/// at its word, it changes nothing. Without it, Kafka would deny what is not allowed, and so nothing may be promised.
fn check_authorizer(v: &mut View<'_>) {
    if v.text("authorizer.class.name").is_empty() {
        return;
    }
    if v.raw("allow.everyone.if.no.acl.found").is_some_and(|s| s.trim().eq_ignore_ascii_case("true")) {
        v.warnings.push(
            "authorizer.class.name has no effect here: everyone is allowed everything, and ACLs cannot be created yet"
                .to_owned(),
        );
    } else {
        v.refuse(
            "authorizer.class.name",
            "ACLs are not implemented yet; only with allow.everyone.if.no.acl.found=true does it promise nothing",
        );
    }
}

fn check_logs(v: &mut View<'_>, c: &ServerConfig) {
    let cleaner = &c.log_manager.cleaner;
    let per_thread = cleaner.dedupe_buffer_bytes / (cleaner.threads.max(1) as u64);
    v.require(per_thread > 1024 * 1024, || {
        "log.cleaner.dedupe.buffer.size must be more than 1 MiB for each of log.cleaner.threads".to_owned()
    });
    if let Err(what) = super::topic_config::check_broker_log(&c.log) {
        v.conflict(what);
    }
    for name in ["log.retention.minutes", "log.retention.hours"] {
        let value = v.opt_i64(name);
        v.require(value.is_none_or(|n| n == -1 || n >= 1), || format!("{name} must be at least 1, or -1"));
    }
    v.require(c.offsets.metadata_max_bytes >= 0, || "offset.metadata.max.bytes must not be negative".to_owned());
    v.require(c.topics.default_replication_factor >= 1, || "default.replication.factor must be at least 1".to_owned());
    if c.topics.default_replication_factor > 1 {
        v.warnings.push(
            "default.replication.factor is more than 1, but there is one broker: creating topics without a number of \
             replicas will fail"
                .to_owned(),
        );
    }
}

fn check_timings(v: &mut View<'_>, c: &ServerConfig) {
    let (r, q) = (&c.replication, &c.controller);
    v.require(r.fetch_wait_max <= r.socket_timeout, || {
        "replica.fetch.wait.max.ms must be at most replica.socket.timeout.ms".to_owned()
    });
    v.require(r.fetch_wait_max <= r.lag_time_max, || {
        "replica.fetch.wait.max.ms must be at most replica.lag.time.max.ms".to_owned()
    });
    v.require(q.broker_heartbeat_interval.saturating_mul(2) <= q.broker_session_timeout, || {
        "broker.heartbeat.interval.ms must be at most half of broker.session.timeout.ms".to_owned()
    });
    let n = &c.net;
    v.require(n.connections_max_idle.is_none_or(|idle| n.failed_authentication_delay < idle), || {
        "connection.failed.authentication.delay.ms must be less than connections.max.idle.ms".to_owned()
    });
}

/// The middle key lies within its bounds, and these are in order.
fn check_between(v: &mut View<'_>, key: &str, min_key: &str, max_key: &str) {
    let (min, value, max) = (v.i32(min_key), v.i32(key), v.i32(max_key));
    if v.require(min <= max, || format!("{min_key} ({min}) must be at most {max_key} ({max})")) {
        v.require((min..=max).contains(&value), || {
            format!("{key} ({value}) must be from {min_key} ({min}) to {max_key} ({max})")
        });
    }
}

fn check_groups(v: &mut View<'_>, g: &GroupsConfig) {
    v.require(g.classic.min_session_timeout_ms <= g.classic.max_session_timeout_ms, || {
        "group.min.session.timeout.ms must be at most group.max.session.timeout.ms".to_owned()
    });
    for kind in ["consumer", "share", "streams"] {
        for what in ["session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms"] {
            check_between(
                v,
                &format!("group.{kind}.{what}"),
                &format!("group.{kind}.min.{what}"),
                &format!("group.{kind}.max.{what}"),
            );
        }
        let heartbeat = v.i32(&format!("group.{kind}.heartbeat.interval.ms"));
        let session = v.i32(&format!("group.{kind}.session.timeout.ms"));
        v.require(heartbeat < session, || {
            format!("group.{kind}.heartbeat.interval.ms must be less than group.{kind}.session.timeout.ms")
        });
    }
    for what in ["delivery.count.limit", "record.lock.duration.ms"] {
        check_between(
            v,
            &format!("group.share.{what}"),
            &format!("group.share.min.{what}"),
            &format!("group.share.max.{what}"),
        );
    }
    check_between(
        v,
        "group.share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    );
    v.require(g.share.max_share_sessions >= g.share.max_size, || {
        "group.share.max.share.sessions must be at least group.share.max.size".to_owned()
    });
    v.require(g.streams.num_standby_replicas <= g.streams.max_standby_replicas, || {
        "group.streams.num.standby.replicas must be at most group.streams.max.standby.replicas".to_owned()
    });
    v.require(g.protocols.classic, || "group.coordinator.rebalance.protocols must hold classic".to_owned());
}
