//! Keys that only Taccola has.

use super::super::key::ConfigType::String;
use super::super::key::{ConfigKey, key};

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("taccola.acks.durability").string("disk").one_of(&["disk", "memory"]).high().ours().implemented()
        .doc("What acks=all promises: disk, the records survive a power cut; memory, they survive the process, as with \
             Kafka's defaults."),
    key("taccola.journal.bytes").long(67_108_864).range(1_048_576, 1_099_511_627_776).bytes().medium().ours()
        .implemented()
        .doc("Size of the shared journal, taken on disk at the first start; a larger one lets segments be flushed less \
             often."),
    key("taccola.produce.verify.records").boolean(false).low().ours().implemented()
        .doc("Walk the records of every batch that is produced, as Kafka does, instead of judging it by header and checksum: \
             batches that a client built wrongly under a right checksum are refused, for more CPU, above all of compressed \
             ones."),
    key("taccola.disk.reserve.bytes").long(1_073_741_824).min(0).bytes().medium().ours().implemented()
        .doc("Free space of a log directory's disk below which producers are refused with KAFKA_STORAGE_ERROR, while \
             fetches, deletions, metadata, groups and transactions go on; taccola.disk.reserve.percent may make it smaller. \
             0 refuses only what the disk refuses."),
    key("taccola.disk.reserve.percent").int(5).range(0, 50).medium().ours().implemented()
        .doc("The reserve is at most this share of the disk."),
    key("taccola.crash.loop.limit").int(5).range(0, 1000).medium().ours().implemented()
        .doc("Failures of the broker itself (its storage, a broken invariant) and starts that never got ready, within ten \
             minutes, from which on it starts in recovery mode: it serves what is there and writes nothing for clients. 0 \
             never does that."),
    key("taccola.scrub.bytes.per.second").long(8_388_608).min(0).bytes().low().ours().implemented()
        .doc("How fast the scrubber reads sealed segments to check their checksums; 0 turns it off. A core checks a \
             gigabyte or more per second, so the default takes less than a hundredth of one."),
    key("taccola.scrub.interval.ms").long(604_800_000).min(0).low().ours().implemented()
        .doc("Time from the end of one pass of the scrubber over all logs to the start of the next."),
    key("taccola.remote.storage.url").of(String).medium().ours().implemented()
        .doc("Where tiered topics' segments go: file:///dir, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix. How it is \
             reached stands under rsm.config. and in the environment."),
    key("taccola.remote.fetch.cache.bytes").long(134_217_728).range(16_777_216, 1_099_511_627_776).bytes().medium().ours()
        .implemented()
        .doc("Memory for what was read of remote segments, and of what probably will be next."),
    key("taccola.data.dir").of(String).medium().ours().accepted()
        .doc("Home of indexes and states that are no part of Kafka's directory; nothing is kept there yet."),
    key("taccola.log.format").string("human").one_of(&["human", "json"]).low().ours().implemented()
        .doc("How the process writes its own log: lines for people, or one JSON object per line."),
];
