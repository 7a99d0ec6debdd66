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
    key("taccola.data.dir").of(String).medium().ours().accepted()
        .doc("Home of indexes and states that are no part of Kafka's directory; nothing is kept there yet."),
    key("taccola.log.format").string("human").one_of(&["human", "json"]).low().ours().implemented()
        .doc("How the process writes its own log: lines for people, or one JSON object per line."),
];
