//! What a group can override, each with the broker key that stands behind it. Kafka: `GroupConfig`.

use super::super::key::{ConfigKey, Valid, group_key};

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    group_key("consumer.assignment.interval.ms").int(1000).ms().min(0).medium()
        .synonyms(&["group.consumer.assignment.interval.ms"]).accepted()
        .doc("Shortest time between two assignments of this consumer group."),
    group_key("consumer.heartbeat.interval.ms").int(5000).ms().min(1).medium()
        .synonyms(&["group.consumer.heartbeat.interval.ms"]).accepted()
        .doc("How often members of this consumer group are told to send heartbeats."),
    group_key("consumer.session.timeout.ms").int(45_000).ms().min(1).medium()
        .synonyms(&["group.consumer.session.timeout.ms"]).accepted()
        .doc("A member of this consumer group without a heartbeat for this long is removed."),
    group_key("share.assignment.interval.ms").int(1000).ms().min(0).medium()
        .synonyms(&["group.share.assignment.interval.ms"]).implemented()
        .doc("Shortest time between two assignments of this share group."),
    group_key("share.auto.offset.reset").string("latest").valid(Valid::ShareOffsetReset).medium()
        .doc("Where this share group begins in a partition that it has not read: latest, earliest, or by_duration:P… \
             ago."),
    group_key("share.delivery.count.limit").int(5).min(2).medium().synonyms(&["group.share.delivery.count.limit"])
        .doc("How often a record is delivered before this share group gives it up."),
    group_key("share.heartbeat.interval.ms").int(5000).ms().min(1).medium()
        .synonyms(&["group.share.heartbeat.interval.ms"]).implemented()
        .doc("How often members of this share group are told to send heartbeats."),
    group_key("share.isolation.level").string("read_uncommitted").one_of(&["read_committed", "read_uncommitted"]).medium()
        .doc("Whether this share group sees records of transactions that are not committed."),
    group_key("share.partition.max.record.locks").int(2000).min(100).medium()
        .synonyms(&["group.share.partition.max.record.locks"])
        .doc("Records of one partition that may be in delivery at a time in this share group."),
    group_key("share.record.lock.duration.ms").int(30_000).ms().min(1000).medium()
        .synonyms(&["group.share.record.lock.duration.ms"])
        .doc("How long a delivered record stays reserved for its consumer in this share group."),
    group_key("share.renew.acknowledge.enable").boolean(true).medium()
        .doc("Whether consumers of this share group may extend a reservation by acknowledging with RENEW."),
    group_key("share.session.timeout.ms").int(45_000).ms().min(1).medium().synonyms(&["group.share.session.timeout.ms"])
        .implemented()
        .doc("A member of this share group without a heartbeat for this long is removed."),
    group_key("streams.assignment.interval.ms").int(1000).ms().min(0).medium()
        .synonyms(&["group.streams.assignment.interval.ms"]).implemented()
        .doc("Shortest time between two assignments of this streams group."),
    group_key("streams.heartbeat.interval.ms").int(5000).ms().min(1).medium()
        .synonyms(&["group.streams.heartbeat.interval.ms"]).implemented()
        .doc("How often members of this streams group are told to send heartbeats."),
    group_key("streams.initial.rebalance.delay.ms").int(3000).ms().min(0).medium()
        .synonyms(&["group.streams.initial.rebalance.delay.ms"]).implemented()
        .doc("How long this streams group, when it was empty, waits for more members before its first assignment."),
    group_key("streams.num.standby.replicas").int(0).min(0).medium().synonyms(&["group.streams.num.standby.replicas"])
        .implemented()
        .doc("Standby copies of each stateful task of this streams group."),
    group_key("streams.session.timeout.ms").int(45_000).ms().min(1).medium()
        .synonyms(&["group.streams.session.timeout.ms"]).implemented()
        .doc("A member of this streams group without a heartbeat for this long is removed."),
];
