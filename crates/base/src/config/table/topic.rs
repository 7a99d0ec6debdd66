//! What a topic can override, each with the broker keys that stand behind it. Kafka: `LogConfig`, `ServerTopicConfigSynonyms`.

use super::super::key::ConfigType::Int;
use super::super::key::{ConfigKey, Valid, topic_key};

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    topic_key("cleanup.policy").list("delete").one_of(&["compact", "delete"]).medium().synonyms(&["log.cleanup.policy"])
        .implemented()
        .doc("What happens to old records: delete, compact, both, or neither when empty."),
    topic_key("compression.gzip.level").int(-1).valid(Valid::GzipLevel).medium().synonyms(&["compression.gzip.level"])
        .implemented()
        .doc("Level used when the broker itself compresses this topic with gzip; -1: the library's default."),
    topic_key("compression.lz4.level").int(9).range(1, 17).medium().synonyms(&["compression.lz4.level"]).accepted()
        .doc("Level used when the broker itself compresses this topic with lz4; the encoder here has one level."),
    topic_key("compression.type").string("producer").one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])
        .medium().synonyms(&["compression.type"]).implemented()
        .doc("How batches are compressed on disk: as the producer did, not at all, or with the codec named."),
    topic_key("compression.zstd.level").int(3).range(-131_072, 22).medium().synonyms(&["compression.zstd.level"])
        .implemented()
        .doc("Level used when the broker itself compresses this topic with zstd."),
    topic_key("delete.retention.ms").long(86_400_000).ms().min(0).medium().synonyms(&["log.cleaner.delete.retention.ms"])
        .implemented()
        .doc("How long compaction keeps tombstones and transaction markers."),
    topic_key("file.delete.delay.ms").long(60_000).ms().min(0).medium().synonyms(&["log.segment.delete.delay.ms"])
        .implemented()
        .doc("How long the files of a removed segment stay on disk, renamed."),
    topic_key("flush.messages").long(i64::MAX).min(1).medium().synonyms(&["log.flush.interval.messages"]).implemented()
        .doc("Records after which a partition is flushed."),
    topic_key("flush.ms").long(i64::MAX).ms().min(0).medium()
        .synonyms(&["log.flush.interval.ms", "log.flush.scheduler.interval.ms"]).implemented()
        .doc("Age of unflushed records at which a partition is flushed."),
    topic_key("follower.replication.throttled.replicas").list("").valid(Valid::ThrottledReplicas).medium().accepted()
        .doc("Replicas whose fetching is throttled, as partition:broker, or * for all."),
    topic_key("index.interval.bytes").int(4096).bytes().min(0).medium().synonyms(&["log.index.interval.bytes"])
        .implemented()
        .doc("Log bytes between two entries of the offset index."),
    topic_key("internal.segment.bytes").of(Int).bytes().medium().internal().implemented()
        .doc("Size at which a segment is closed, without segment.bytes' lower bound, for tests."),
    topic_key("leader.replication.throttled.replicas").list("").valid(Valid::ThrottledReplicas).medium().accepted()
        .doc("Replicas to which sending is throttled, as partition:broker, or * for all."),
    topic_key("local.retention.bytes").long(-2).bytes().min(-2).medium().synonyms(&["log.local.retention.bytes"]).implemented()
        .doc("Bytes that a tiered partition keeps on the local disk; -2: as retention.bytes."),
    topic_key("local.retention.ms").long(-2).ms().min(-2).medium().synonyms(&["log.local.retention.ms"]).implemented()
        .doc("Time that a tiered partition keeps records on the local disk; -2: as retention.ms."),
    topic_key("max.compaction.lag.ms").long(i64::MAX).ms().min(1).medium().synonyms(&["log.cleaner.max.compaction.lag.ms"])
        .implemented()
        .doc("Longest time that a record may stay uncompacted."),
    topic_key("max.message.bytes").int(1_048_588).bytes().min(0).medium().synonyms(&["message.max.bytes"]).implemented()
        .doc("Largest record batch as it is stored."),
    topic_key("message.timestamp.after.max.ms").long(3_600_000).ms().min(0).medium()
        .synonyms(&["log.message.timestamp.after.max.ms"]).implemented()
        .doc("How far a record's timestamp may lie ahead of the broker's clock."),
    topic_key("message.timestamp.before.max.ms").long(i64::MAX).ms().min(0).medium()
        .synonyms(&["log.message.timestamp.before.max.ms"]).implemented()
        .doc("How far a record's timestamp may lie behind the broker's clock."),
    topic_key("message.timestamp.type").string("CreateTime").one_of(&["CreateTime", "LogAppendTime"]).medium()
        .synonyms(&["log.message.timestamp.type"]).implemented()
        .doc("Whether a record keeps its producer's timestamp or gets the time of the append."),
    topic_key("min.cleanable.dirty.ratio").double("0.5").between(0.0, 1.0).medium()
        .synonyms(&["log.cleaner.min.cleanable.ratio"]).implemented()
        .doc("Share of a log that must be uncompacted before the cleaner takes it."),
    topic_key("min.compaction.lag.ms").long(0).ms().min(0).medium().synonyms(&["log.cleaner.min.compaction.lag.ms"])
        .implemented()
        .doc("Shortest time that a record stays uncompacted."),
    topic_key("min.insync.replicas").int(1).min(1).medium().synonyms(&["min.insync.replicas"]).implemented()
        .doc("In-sync replicas without which acks=all is refused."),
    topic_key("preallocate").boolean(false).medium().synonyms(&["log.preallocate"]).implemented()
        .doc("Give a new segment its full size on disk at once."),
    topic_key("remote.log.copy.disable").boolean(false).medium().implemented()
        .doc("Stop copying segments of a tiered topic."),
    topic_key("remote.log.delete.on.disable").boolean(false).medium().implemented()
        .doc("Delete what is in remote storage when tiering is switched off."),
    topic_key("remote.storage.enable").boolean(false).medium().implemented()
        .doc("Whether the topic is tiered to remote storage."),
    topic_key("retention.bytes").long(-1).bytes().medium().synonyms(&["log.retention.bytes"]).implemented()
        .doc("Bytes that a partition keeps; -1: no bound."),
    topic_key("retention.ms").long(604_800_000).ms().min(-1).medium()
        .synonyms(&["log.retention.ms", "log.retention.minutes", "log.retention.hours"]).implemented()
        .doc("Time that records are kept; -1: for ever."),
    topic_key("segment.bytes").int(1_073_741_824).bytes().min(1_048_576).medium().synonyms(&["log.segment.bytes"])
        .implemented()
        .doc("Size at which a segment is closed."),
    topic_key("segment.index.bytes").int(10_485_760).bytes().min(4).medium().synonyms(&["log.index.size.max.bytes"])
        .implemented()
        .doc("Size at which an index file is full and its segment rolls."),
    topic_key("segment.jitter.ms").long(0).ms().min(0).medium().synonyms(&["log.roll.jitter.ms", "log.roll.jitter.hours"])
        .implemented()
        .doc("Time by which closing a segment may come earlier, at random."),
    topic_key("segment.ms").long(604_800_000).ms().min(1).medium().synonyms(&["log.roll.ms", "log.roll.hours"])
        .implemented()
        .doc("Time after which a segment is closed though not full."),
    topic_key("unclean.leader.election.enable").boolean(false).medium().synonyms(&["unclean.leader.election.enable"])
        .accepted()
        .doc("Let a replica that is out of sync lead when no other is left, at the price of lost records; one node \
             has one replica."),
];
