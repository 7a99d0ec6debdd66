//! Classic, consumer, share and streams groups, and committed offsets. Kafka: `GroupCoordinatorConfig`, `ShareGroupConfig`.

use super::super::key::{ConfigKey, INT_MAX, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("group.consumer.assignment.interval.ms").int(1000).ms().min(0).medium().cluster_wide().implemented()
        .doc("Shortest time between two assignments of one consumer group."),
    key("group.consumer.assignors").list("uniform,range")
        .one_of(&["uniform", "range", "org.apache.kafka.coordinator.group.assignor.UniformAssignor", "org.apache.kafka.coordinator.group.assignor.RangeAssignor"]).medium().implemented()
        .doc("Server-side assignors of consumer groups, the first being the default."),
    key("group.consumer.heartbeat.interval.ms").int(5000).ms().min(1).medium().implemented()
        .doc("How often members of consumer groups are told to send heartbeats."),
    key("group.consumer.max.assignment.interval.ms").int(15_000).ms().min(0).medium().implemented()
        .doc("Upper bound for consumer.assignment.interval.ms of a group."),
    key("group.consumer.max.heartbeat.interval.ms").int(15_000).ms().min(1).medium().implemented()
        .doc("Upper bound for consumer.heartbeat.interval.ms of a group."),
    key("group.consumer.max.session.timeout.ms").int(60_000).ms().min(1).medium().implemented()
        .doc("Upper bound for consumer.session.timeout.ms of a group."),
    key("group.consumer.max.size").int(INT_MAX).min(1).medium().implemented()
        .doc("Members that one consumer group may have."),
    key("group.consumer.migration.policy").string("bidirectional")
        .one_of_any_case(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]).medium().implemented()
        .doc("Which conversions between classic and consumer groups happen by themselves."),
    key("group.consumer.min.assignment.interval.ms").int(0).ms().min(0).medium().implemented()
        .doc("Lower bound for consumer.assignment.interval.ms of a group."),
    key("group.consumer.min.heartbeat.interval.ms").int(5000).ms().min(1).medium().implemented()
        .doc("Lower bound for consumer.heartbeat.interval.ms of a group."),
    key("group.consumer.min.session.timeout.ms").int(45_000).ms().min(1).medium().implemented()
        .doc("Lower bound for consumer.session.timeout.ms of a group."),
    key("group.consumer.regex.refresh.interval.ms").int(600_000).ms().min(10_000).medium().internal().implemented()
        .doc("How often regular expressions of subscriptions are resolved again though nothing has changed."),
    key("group.consumer.session.timeout.ms").int(45_000).ms().min(1).medium().implemented()
        .doc("A member of a consumer group without a heartbeat for this long is removed."),
    key("group.coordinator.append.linger.ms").int(-1).ms().min(-1).medium().accepted()
        .doc("How long the coordinator gathers records into one batch; -1: as long as there is more to do."),
    key("group.coordinator.background.threads").int(2).min(1).high().accepted()
        .doc("Kafka's threads for costly work of group coordinators."),
    key("group.coordinator.cached.buffer.max.bytes").int(1_048_588).bytes().min(524_288).medium().cluster_wide()
        .accepted()
        .doc("Size up to which a coordinator keeps its write buffer for reuse."),
    key("group.coordinator.rebalance.protocols").list("classic,consumer,streams")
        .one_of(&["consumer", "classic", "share", "streams"]).medium().accepted()
        .doc("Group protocols that are served."),
    key("group.coordinator.threads").int(4).min(1).high().accepted()
        .doc("Kafka's threads of the group coordinators; here each of its partitions is worked on by one task at a \
             time."),
    key("group.initial.rebalance.delay.ms").int(3000).ms().medium().implemented()
        .doc("How long a classic group that was empty waits for more members before its first rebalance."),
    key("group.max.session.timeout.ms").int(1_800_000).ms().medium().implemented()
        .doc("Longest session timeout that a member of a classic group may ask for."),
    key("group.max.size").int(INT_MAX).min(1).medium().implemented()
        .doc("Members that one classic group may have."),
    key("group.min.session.timeout.ms").int(6000).ms().medium().implemented()
        .doc("Shortest session timeout that a member of a classic group may ask for."),
    key("group.share.assignment.interval.ms").int(1000).ms().min(0).medium().cluster_wide().implemented()
        .doc("Shortest time between two assignments of one share group."),
    key("group.share.assignors").list("simple")
        .one_of(&["simple", "org.apache.kafka.coordinator.group.assignor.SimpleAssignor"]).medium().accepted()
        .doc("Server-side assignors of share groups."),
    key("group.share.delivery.count.limit").int(5).range(2, 10).medium()
        .doc("How often a record of a share group is delivered before it is given up."),
    key("group.share.heartbeat.interval.ms").int(5000).ms().min(1).medium().implemented()
        .doc("How often members of share groups are told to send heartbeats."),
    key("group.share.initialize.retry.interval.ms").int(30_000).ms().min(1).low().internal().implemented()
        .doc("How soon a share partition whose initialisation failed is tried again."),
    key("group.share.max.assignment.interval.ms").int(15_000).ms().min(0).medium().implemented()
        .doc("Upper bound for share.assignment.interval.ms of a group."),
    key("group.share.max.delivery.count.limit").int(10).range(5, 25).medium()
        .doc("Upper bound for share.delivery.count.limit of a group."),
    key("group.share.max.heartbeat.interval.ms").int(15_000).ms().min(1).medium().implemented()
        .doc("Upper bound for share.heartbeat.interval.ms of a group."),
    key("group.share.max.partition.max.record.locks").int(4000).range(2000, 10_000).medium()
        .doc("Upper bound for share.partition.max.record.locks of a group."),
    key("group.share.max.record.lock.duration.ms").int(60_000).ms().range(30_000, 3_600_000).medium()
        .doc("Upper bound for share.record.lock.duration.ms of a group."),
    key("group.share.max.session.timeout.ms").int(60_000).ms().min(1).medium().implemented()
        .doc("Upper bound for share.session.timeout.ms of a group."),
    key("group.share.max.share.sessions").int(2000).min(1).medium()
        .doc("Share sessions that one broker remembers."),
    key("group.share.max.size").int(200).range(1, 1000).medium().implemented()
        .doc("Members that one share group may have."),
    key("group.share.min.assignment.interval.ms").int(0).ms().min(0).medium().implemented()
        .doc("Lower bound for share.assignment.interval.ms of a group."),
    key("group.share.min.delivery.count.limit").int(2).range(2, 5).medium()
        .doc("Lower bound for share.delivery.count.limit of a group."),
    key("group.share.min.heartbeat.interval.ms").int(5000).ms().min(1).medium().implemented()
        .doc("Lower bound for share.heartbeat.interval.ms of a group."),
    key("group.share.min.partition.max.record.locks").int(100).range(100, 2000).medium()
        .doc("Lower bound for share.partition.max.record.locks of a group."),
    key("group.share.min.record.lock.duration.ms").int(15_000).ms().range(1000, 30_000).medium()
        .doc("Lower bound for share.record.lock.duration.ms of a group."),
    key("group.share.min.session.timeout.ms").int(45_000).ms().min(1).medium().implemented()
        .doc("Lower bound for share.session.timeout.ms of a group."),
    key("group.share.partition.max.record.locks").int(2000).range(100, 10_000).medium()
        .doc("Records of one share partition that may be in delivery at a time."),
    key("group.share.persister.class.name").string("org.apache.kafka.server.share.persister.DefaultStatePersister")
        .medium().internal().refused(reasons::PLUGIN)
        .doc("The class that stores the state of share groups."),
    key("group.share.record.lock.duration.ms").int(30_000).ms().range(1000, 3_600_000).medium()
        .doc("How long a delivered record stays reserved for its consumer."),
    key("group.share.session.timeout.ms").int(45_000).ms().min(1).medium().implemented()
        .doc("A member of a share group without a heartbeat for this long is removed."),
    key("group.streams.assignment.interval.ms").int(1000).ms().min(0).medium().cluster_wide().implemented()
        .doc("Shortest time between two assignments of one streams group."),
    key("group.streams.heartbeat.interval.ms").int(5000).ms().min(1).medium().implemented()
        .doc("How often members of streams groups are told to send heartbeats."),
    key("group.streams.initial.rebalance.delay.ms").int(3000).ms().min(0).medium().implemented()
        .doc("How long a streams group that was empty waits for more members before its first assignment."),
    key("group.streams.max.assignment.interval.ms").int(15_000).ms().min(0).medium().implemented()
        .doc("Upper bound for streams.assignment.interval.ms of a group."),
    key("group.streams.max.heartbeat.interval.ms").int(15_000).ms().min(1).medium().implemented()
        .doc("Upper bound for streams.heartbeat.interval.ms of a group."),
    key("group.streams.max.session.timeout.ms").int(60_000).ms().min(1).medium().implemented()
        .doc("Upper bound for streams.session.timeout.ms of a group."),
    key("group.streams.max.size").int(INT_MAX).min(1).medium().implemented()
        .doc("Members that one streams group may have."),
    key("group.streams.max.standby.replicas").int(2).min(0).medium().implemented()
        .doc("Upper bound for streams.num.standby.replicas of a group."),
    key("group.streams.min.assignment.interval.ms").int(0).ms().min(0).medium().implemented()
        .doc("Lower bound for streams.assignment.interval.ms of a group."),
    key("group.streams.min.heartbeat.interval.ms").int(5000).ms().min(1).medium().implemented()
        .doc("Lower bound for streams.heartbeat.interval.ms of a group."),
    key("group.streams.min.session.timeout.ms").int(45_000).ms().min(1).medium().implemented()
        .doc("Lower bound for streams.session.timeout.ms of a group."),
    key("group.streams.num.standby.replicas").int(0).min(0).medium().implemented()
        .doc("Standby copies of each stateful task."),
    key("group.streams.session.timeout.ms").int(45_000).ms().min(1).medium().implemented()
        .doc("A member of a streams group without a heartbeat for this long is removed."),
    key("offset.metadata.max.bytes").int(4096).bytes().high().implemented()
        .doc("Longest metadata string that a commit may attach to an offset."),
    key("offsets.commit.timeout.ms").int(5000).ms().min(1).high().accepted()
        .doc("How long a commit may wait for its record to be stored and replicated."),
    key("offsets.load.buffer.size").int(5_242_880).bytes().min(1).high().accepted()
        .doc("Bytes read at a time when a coordinator loads its partition; a larger batch is still read."),
    key("offsets.retention.check.interval.ms").long(600_000).ms().min(1).high().implemented()
        .doc("How often committed offsets past their retention are looked for."),
    key("offsets.retention.minutes").int(10_080).minutes().min(1).high().implemented()
        .doc("How long committed offsets outlive the group's last activity."),
    key("offsets.topic.compression.codec").int(0).high().accepted()
        .doc("Codec of batches in __consumer_offsets, by its number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."),
    key("offsets.topic.num.partitions").int(50).min(1).high().implemented()
        .doc("Partitions of __consumer_offsets when it is created; changing it later loses track of groups."),
    key("offsets.topic.replication.factor").short(3).min(1).high().implemented()
        .doc("Replicas of __consumer_offsets; its creation waits until there are as many brokers."),
    key("offsets.topic.segment.bytes").int(104_857_600).bytes().min(1).high().implemented()
        .doc("Segment size of __consumer_offsets, small so that it loads and compacts fast."),
];
