//! Tiered storage. Kafka: `RemoteLogManagerConfig`.

use super::super::key::ConfigType::String;
use super::super::key::{ConfigKey, Valid, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("follower.fetch.last.tiered.offset.enable").boolean(false).medium().cluster_wide().accepted()
        .doc("Let a new follower of a tiered topic begin where the remote storage ends."),
    key("remote.fetch.max.wait.ms").int(500).ms().min(1).medium().cluster_wide().implemented()
        .doc("How long a fetch may wait for remote storage."),
    key("remote.list.offsets.request.timeout.ms").long(30_000).ms().min(1).medium().cluster_wide().implemented()
        .doc("How long ListOffsets may wait for remote storage."),
    key("remote.log.index.file.cache.total.size.bytes").long(1_073_741_824).bytes().min(1).low().cluster_wide()
        .accepted()
        .doc("Disk space for indexes fetched from remote storage."),
    key("remote.log.index.file.cache.ttl.ms").long(900_000).ms().min(-1).low().internal().accepted()
        .doc("How long unused indexes fetched from remote storage are kept."),
    key("remote.log.manager.copier.thread.pool.size").int(10).min(1).medium().cluster_wide().implemented()
        .doc("Segments copied to remote storage at the same time."),
    key("remote.log.manager.copy.max.bytes.per.second").long(i64::MAX).bytes_per_second().min(1).medium()
        .cluster_wide().implemented()
        .doc("Upper bound of copying to remote storage."),
    key("remote.log.manager.copy.quota.window.num").int(11).min(1).medium().accepted()
        .doc("Windows over which copying is averaged."),
    key("remote.log.manager.copy.quota.window.size.seconds").int(1).seconds().min(1).medium().accepted()
        .doc("Length of one such window."),
    key("remote.log.manager.expiration.thread.pool.size").int(10).min(1).medium().cluster_wide().accepted()
        .doc("Remote segments deleted at the same time."),
    key("remote.log.manager.fetch.max.bytes.per.second").long(i64::MAX).bytes_per_second().min(1).medium()
        .cluster_wide().implemented()
        .doc("Upper bound of fetching from remote storage."),
    key("remote.log.manager.fetch.quota.window.num").int(11).min(1).medium().accepted()
        .doc("Windows over which fetching is averaged."),
    key("remote.log.manager.fetch.quota.window.size.seconds").int(1).seconds().min(1).medium().accepted()
        .doc("Length of one such window."),
    key("remote.log.manager.follower.thread.pool.size").int(2).min(1).medium().cluster_wide().accepted()
        .doc("Threads that follow remote logs of partitions led elsewhere."),
    key("remote.log.manager.task.interval.ms").long(30_000).ms().min(1).low().implemented()
        .doc("How often there is a look at what to copy and what to delete."),
    key("remote.log.manager.task.retry.backoff.max.ms").long(30_000).ms().min(1).low().internal().implemented()
        .doc("Longest rest after a failed remote task."),
    key("remote.log.manager.task.retry.backoff.ms").long(500).ms().min(1).low().internal().implemented()
        .doc("First rest after a failed remote task."),
    key("remote.log.manager.task.retry.jitter").double("0.2").between(0.0, 0.5).low().internal().accepted()
        .doc("Random share by which that rest is moved."),
    key("remote.log.manager.thread.pool.size").int(2).min(1).medium().accepted()
        .doc("Threads for remote work that has no pool of its own."),
    key("remote.log.metadata.custom.metadata.max.bytes").int(128).bytes().min(0).low().accepted()
        .doc("Bytes that a remote storage plug-in may attach to a segment's metadata."),
    key("remote.log.metadata.manager.class.name")
        .string("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager").valid(Valid::NonEmpty).medium().refused(reasons::REMOTE)
        .doc("The class that keeps track of remote segments."),
    key("remote.log.metadata.manager.class.path").of(String).medium().refused(reasons::REMOTE)
        .doc("Where that class is loaded from."),
    key("remote.log.metadata.manager.impl.prefix").string("rlmm.config.").valid(Valid::NonEmpty).medium().implemented()
        .doc("Prefix of the keys that describe the topic of remote log metadata."),
    key("remote.log.metadata.manager.listener.name").of(String).valid(Valid::NonEmpty).medium()
        .refused(reasons::REMOTE)
        .doc("Listener through which that class reaches brokers."),
    key("remote.log.reader.max.pending.tasks").int(100).min(1).medium().implemented()
        .doc("Remote reads that may wait for a thread."),
    key("remote.log.reader.threads").int(10).min(1).medium().cluster_wide().implemented()
        .doc("Remote reads at the same time."),
    key("remote.log.storage.manager.class.name").of(String).valid(Valid::NonEmpty).medium().refused(reasons::REMOTE)
        .doc("The class that stores segments remotely."),
    key("remote.log.storage.manager.class.path").of(String).medium().refused(reasons::REMOTE)
        .doc("Where that class is loaded from."),
    key("remote.log.storage.manager.impl.prefix").string("rsm.config.").valid(Valid::NonEmpty).medium().implemented()
        .doc("Prefix of the keys that say how remote storage is reached: endpoint, region, allow.http, credentials."),
    key("remote.log.storage.system.enable").boolean(false).medium().implemented()
        .doc("Whether topics can be tiered to remote storage, which taccola.remote.storage.url names."),
];
