//! Logs: where they lie, how they roll, are kept, cleaned and flushed, and how topics come to be. Kafka: `ServerLogConfigs`, `CleanerConfig`.

use super::super::key::ConfigType::{Class, Int, List, Long};
use super::super::key::{ConfigKey, Valid, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("auto.create.topics.enable").boolean(true).high().implemented()
        .doc("Create a topic when a client asks for the metadata of one that does not exist."),
    key("compression.gzip.level").int(-1).valid(Valid::GzipLevel).medium().cluster_wide().implemented()
        .doc("Level used when the broker itself compresses with gzip; -1: the library's default."),
    key("compression.lz4.level").int(9).range(1, 17).medium().cluster_wide().accepted()
        .doc("Level used when the broker itself compresses with lz4; the encoder here has one level."),
    key("compression.type").string("producer").one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
        .high().cluster_wide().implemented()
        .doc("How batches are compressed on disk: as the producer did, not at all, or with the codec named."),
    key("compression.zstd.level").int(3).range(-131_072, 22).medium().cluster_wide().implemented()
        .doc("Level used when the broker itself compresses with zstd."),
    key("cordoned.log.dirs").list("").medium().per_broker().refused(reasons::CORDON)
        .doc("Log directories that get no new replicas; * means all."),
    key("default.replication.factor").int(1).medium().implemented()
        .doc("Replicas of topics that are created without a number."),
    key("delete.topic.enable").boolean(true).high().implemented()
        .doc("Whether topics can be deleted."),
    key("log.cleaner.backoff.ms").long(15_000).ms().min(0).medium().cluster_wide().implemented()
        .doc("How long the cleaner rests when there was nothing to clean."),
    key("log.cleaner.dedupe.buffer.size").long(134_217_728).bytes().medium().cluster_wide().implemented()
        .doc("Memory of all cleaner threads together for the map from keys to offsets."),
    key("log.cleaner.delete.retention.ms").long(86_400_000).ms().min(0).medium().cluster_wide().implemented()
        .doc("How long compacted topics keep tombstones and transaction markers, unless the topic says otherwise."),
    key("log.cleaner.enable").boolean(true).medium().implemented()
        .doc("Whether compacted topics are compacted at all."),
    key("log.cleaner.io.buffer.load.factor").double("0.9").medium().cluster_wide().implemented()
        .doc("How full the map from keys to offsets may get, 0 to 1."),
    key("log.cleaner.io.buffer.size").int(524_288).bytes().min(0).medium().cluster_wide().accepted()
        .doc("Memory of all cleaner threads together for reading and writing."),
    key("log.cleaner.io.max.bytes.per.second").double("1.7976931348623157E308").bytes_per_second().medium()
        .cluster_wide().implemented()
        .doc("Upper bound of the cleaner's reads and writes together."),
    key("log.cleaner.max.compaction.lag.ms").long(i64::MAX).ms().min(1).medium().cluster_wide().implemented()
        .doc("Longest time that a record may stay uncompacted, unless the topic says otherwise."),
    key("log.cleaner.min.cleanable.ratio").double("0.5").between(0.0, 1.0).medium().cluster_wide().implemented()
        .doc("Share of a log that must be uncompacted before the cleaner takes it, unless the topic says otherwise."),
    key("log.cleaner.min.compaction.lag.ms").long(0).ms().min(0).medium().cluster_wide().implemented()
        .doc("Shortest time that a record stays uncompacted, unless the topic says otherwise."),
    key("log.cleaner.threads").int(1).min(0).medium().cluster_wide().implemented()
        .doc("Logs that are compacted at the same time."),
    key("log.cleanup.policy").list("delete").one_of(&["compact", "delete"]).medium().cluster_wide().implemented()
        .doc("What happens to old records: delete, compact, both, or neither when empty, unless the topic says \
             otherwise."),
    key("log.dir").list("/tmp/kafka-logs").high().implemented()
        .doc("Where partitions are stored, when log.dirs is not set."),
    key("log.dir.failure.timeout.ms").long(30_000).ms().min(1).low().accepted()
        .doc("How long Kafka waits for the controller to hear of a failed log directory before it stops."),
    key("log.dirs").of(List).high().implemented()
        .doc("Where partitions are stored: one directory or several, each on its own disk."),
    key("log.flush.interval.messages").long(i64::MAX).min(1).high().cluster_wide().implemented()
        .doc("Records after which a partition is flushed, unless the topic says otherwise."),
    key("log.flush.interval.ms").of(Long).ms().high().cluster_wide().implemented()
        .doc("Age of unflushed records at which a partition is flushed, unless the topic says otherwise; unset: \
             log.flush.scheduler.interval.ms."),
    key("log.flush.offset.checkpoint.interval.ms").int(60_000).ms().min(0).high().implemented()
        .doc("How often the file of recovery points is written."),
    key("log.flush.scheduler.interval.ms").long(i64::MAX).ms().high().implemented()
        .doc("How often partitions are looked at for a flush that is due by age."),
    key("log.flush.start.offset.checkpoint.interval.ms").int(60_000).ms().min(0).high().implemented()
        .doc("How often the file of log start offsets is written."),
    key("log.index.interval.bytes").int(4096).bytes().min(0).medium().cluster_wide().implemented()
        .doc("Log bytes between two entries of the offset index, unless the topic says otherwise."),
    key("log.index.size.max.bytes").int(10_485_760).bytes().min(4).medium().cluster_wide().implemented()
        .doc("Size at which an index file is full and its segment rolls, unless the topic says otherwise."),
    key("log.initial.task.delay.ms").long(30_000).ms().min(0).low().internal().accepted()
        .doc("How long after the start the periodic work on logs begins."),
    key("log.local.retention.bytes").long(-2).bytes().min(-2).medium().cluster_wide().implemented()
        .doc("Bytes kept on the local disk by tiered topics, unless the topic says otherwise; -2: as \
             log.retention.bytes."),
    key("log.local.retention.ms").long(-2).ms().min(-2).medium().cluster_wide().implemented()
        .doc("Time that tiered topics keep records on the local disk, unless the topic says otherwise; -2: as \
             log.retention.ms."),
    key("log.message.timestamp.after.max.ms").long(3_600_000).ms().min(0).medium().cluster_wide().implemented()
        .doc("How far a record's timestamp may lie ahead of the broker's clock, unless the topic says otherwise."),
    key("log.message.timestamp.before.max.ms").long(i64::MAX).ms().min(0).medium().cluster_wide().implemented()
        .doc("How far a record's timestamp may lie behind the broker's clock, unless the topic says otherwise."),
    key("log.message.timestamp.type").string("CreateTime").one_of(&["CreateTime", "LogAppendTime"]).medium()
        .cluster_wide().implemented()
        .doc("Whether a record keeps its producer's timestamp or gets the time of the append, unless the topic says \
             otherwise."),
    key("log.preallocate").boolean(false).medium().cluster_wide().implemented()
        .doc("Give a new segment its full size on disk at once, unless the topic says otherwise."),
    key("log.retention.bytes").long(-1).bytes().high().cluster_wide().implemented()
        .doc("Bytes that a partition keeps, unless the topic says otherwise; -1: no bound."),
    key("log.retention.check.interval.ms").long(300_000).ms().min(1).medium().implemented()
        .doc("How often logs are looked at for segments past their retention."),
    key("log.retention.hours").int(168).hours().high().implemented()
        .doc("Hours that records are kept; log.retention.minutes and log.retention.ms come first."),
    key("log.retention.minutes").of(Int).minutes().high().implemented()
        .doc("Minutes that records are kept; log.retention.ms comes first."),
    key("log.retention.ms").of(Long).ms().high().cluster_wide().implemented()
        .doc("Time that records are kept, unless the topic says otherwise; -1: for ever."),
    key("log.roll.hours").int(168).hours().min(1).high().implemented()
        .doc("Hours after which a segment is closed though not full; log.roll.ms comes first."),
    key("log.roll.jitter.hours").int(0).hours().min(0).high().implemented()
        .doc("Hours by which closing may come earlier, at random; log.roll.jitter.ms comes first."),
    key("log.roll.jitter.ms").of(Long).ms().high().cluster_wide().implemented()
        .doc("Time by which closing may come earlier, at random, unless the topic says otherwise."),
    key("log.roll.ms").of(Long).ms().high().cluster_wide().implemented()
        .doc("Time after which a segment is closed though not full, unless the topic says otherwise."),
    key("log.segment.bytes").int(1_073_741_824).bytes().min(1_048_576).high().cluster_wide().implemented()
        .doc("Size at which a segment is closed, unless the topic says otherwise."),
    key("log.segment.delete.delay.ms").long(60_000).ms().min(0).high().cluster_wide().implemented()
        .doc("How long the files of a removed segment stay on disk, renamed, unless the topic says otherwise."),
    key("message.max.bytes").int(1_048_588).bytes().min(0).high().cluster_wide().implemented()
        .doc("Largest record batch as it is stored, unless the topic says otherwise with max.message.bytes."),
    key("min.insync.replicas").int(1).min(1).high().cluster_wide().implemented()
        .doc("In-sync replicas without which acks=all is refused, unless the topic says otherwise."),
    key("num.partitions").int(1).min(1).medium().implemented()
        .doc("Partitions of topics that are created without a number."),
    key("num.recovery.threads.per.data.dir").int(2).min(1).high().cluster_wide().implemented()
        .doc("Logs of one directory that are recovered at the same time at start."),
    key("num.replica.alter.log.dirs.threads").of(Int).high().implemented()
        .doc("Replicas that move between log directories at a time, at most 16; unset: as many as directories."),
    key("create.topic.policy.class.name").of(Class).low().refused(reasons::PLUGIN)
        .doc("A Java class that may veto the creation of topics."),
    key("alter.config.policy.class.name").of(Class).low().refused(reasons::PLUGIN)
        .doc("A Java class that may veto changes of configs."),
    key("producer.id.expiration.check.interval.ms").int(600_000).ms().min(1).low().internal().implemented()
        .doc("How often idle producer ids are looked for."),
    key("producer.id.expiration.ms").int(86_400_000).ms().min(1).low().cluster_wide().implemented()
        .doc("How long a partition remembers a producer that writes no more."),
];
