//! Transactions, and the state of share groups. Kafka: `TransactionLogConfig`, `ShareCoordinatorConfig`.

use super::super::key::{ConfigKey, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("add.partitions.to.txn.retry.backoff.max.ms").int(100).ms().min(0).high().implemented()
        .doc("Longest rest between attempts to add a partition to a transaction that still has a marker pending."),
    key("add.partitions.to.txn.retry.backoff.ms").int(20).ms().min(1).high().implemented()
        .doc("First rest between attempts to add a partition to a transaction that still has a marker pending."),
    key("transaction.abort.timed.out.transaction.cleanup.interval.ms").int(10_000).ms().min(1).low().implemented()
        .doc("How often transactions past their timeout are looked for and aborted."),
    key("transaction.max.timeout.ms").int(900_000).ms().min(1).high().implemented()
        .doc("Longest timeout that a transactional producer may ask for."),
    key("transaction.partition.verification.enable").boolean(true).low().cluster_wide().implemented()
        .doc("Ask the coordinator, before a transactional append, whether the partition is part of the transaction."),
    key("transaction.remove.expired.transaction.cleanup.interval.ms").int(3_600_000).ms().min(1).low().implemented()
        .doc("How often transactional ids past their expiration are looked for."),
    key("transaction.state.log.load.buffer.size").int(5_242_880).bytes().min(1).high().accepted()
        .doc("Bytes read at a time when a coordinator loads its partition; a larger batch is still read."),
    key("transaction.state.log.min.isr").int(2).min(1).high().implemented()
        .doc("min.insync.replicas of __transaction_state when it is created."),
    key("transaction.state.log.num.partitions").int(50).min(1).high().implemented()
        .doc("Partitions of __transaction_state when it is created; changing it later loses track of transactions."),
    key("transaction.state.log.replication.factor").short(3).min(1).high().implemented()
        .doc("Replicas of __transaction_state; its creation waits until there are as many brokers."),
    key("transaction.state.log.segment.bytes").int(104_857_600).bytes().min(1).high().implemented()
        .doc("Segment size of __transaction_state."),
    key("transaction.two.phase.commit.enable").boolean(false).low().refused(reasons::TWOPC)
        .doc("Let producers keep prepared transactions open without a timeout, for two-phase commit."),
    key("transactional.id.expiration.ms").int(604_800_000).ms().min(1).high().implemented()
        .doc("How long a transactional id without activity is remembered."),
    key("share.coordinator.append.linger.ms").int(-1).ms().min(-1).medium().accepted()
        .doc("How long the share coordinator gathers records into one batch; -1: as long as there is more to do."),
    key("share.coordinator.cached.buffer.max.bytes").int(1_048_588).bytes().min(524_288).medium().cluster_wide()
        .accepted()
        .doc("Size up to which a share coordinator keeps its write buffer for reuse."),
    key("share.coordinator.cold.partition.snapshot.interval.ms").int(300_000).ms().min(1).low().internal().implemented()
        .doc("How often share partitions that are not in use get a snapshot."),
    key("share.coordinator.load.buffer.size").int(5_242_880).bytes().min(1).high().accepted()
        .doc("Bytes read at a time when a share coordinator loads its partition; a larger batch is still read."),
    key("share.coordinator.snapshot.update.records.per.snapshot").int(500).range(0, 500).medium().implemented()
        .doc("Updates of a share partition's state after which a full snapshot is written."),
    key("share.coordinator.state.topic.compression.codec").int(0).high().implemented()
        .doc("Codec of batches in __share_group_state, by its number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."),
    key("share.coordinator.state.topic.min.isr").short(2).min(1).high().implemented()
        .doc("min.insync.replicas of __share_group_state when it is created."),
    key("share.coordinator.state.topic.num.partitions").int(50).min(1).high().implemented()
        .doc("Partitions of __share_group_state when it is created; changing it later loses track of share groups."),
    key("share.coordinator.state.topic.prune.interval.ms").int(300_000).ms().min(1).low().internal().implemented()
        .doc("How often records of __share_group_state that newer ones replace are removed."),
    key("share.coordinator.state.topic.replication.factor").short(3).min(1).high().implemented()
        .doc("Replicas of __share_group_state; its creation waits until there are as many brokers."),
    key("share.coordinator.state.topic.segment.bytes").int(104_857_600).bytes().min(1).high().implemented()
        .doc("Segment size of __share_group_state."),
    key("share.coordinator.threads").int(1).min(1).medium().accepted()
        .doc("Kafka's threads of the share coordinators; here each of its partitions is worked on by one task at a \
             time."),
    key("share.coordinator.write.timeout.ms").int(5000).ms().min(1).high().implemented()
        .doc("How long a write of share state may wait to be stored and replicated."),
];
