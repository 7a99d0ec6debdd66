//! Keys outside Kafka's broker table that people set nevertheless: read by its plug-ins, set only while the broker
//! runs, or gone since Kafka 4.0.

use super::super::key::{ConfigKey, key};

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("allow.everyone.if.no.acl.found").boolean(false).plugin().medium().accepted()
        .doc("Read by the authorizer: allow everyone what no ACL speaks of."),
    key("super.users").string("").plugin().medium().accepted()
        .doc("Read by the authorizer: principals, separated by semicolons, that may do everything."),
    key("leader.replication.throttled.rate").long(i64::MAX).min(0).bytes_per_second().medium().dynamic_only()
        .cluster_wide().accepted()
        .doc("Upper bound of what leaders send to throttled replicas."),
    key("follower.replication.throttled.rate").long(i64::MAX).min(0).bytes_per_second().medium().dynamic_only()
        .cluster_wide().accepted()
        .doc("Upper bound of what throttled replicas fetch."),
    key("replica.alter.log.dirs.io.max.bytes.per.second").long(i64::MAX).min(0).bytes_per_second().medium()
        .dynamic_only().cluster_wide().implemented()
        .doc("Upper bound of what all moves between log directories together read."),
];

/// A key that older Kafka releases had and 4.x ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedKey {
    pub name: &'static str,
    /// What to do instead, as the end of a sentence.
    pub advice: &'static str,
    /// An error rather than a warning.
    pub refused: bool,
}

const fn gone(name: &'static str, advice: &'static str) -> RemovedKey {
    RemovedKey { name, advice, refused: false }
}

const fn zookeeper(name: &'static str) -> RemovedKey {
    RemovedKey {
        name,
        advice: "there is no ZooKeeper mode since Kafka 4.0; migrate the cluster to KRaft and set process.roles",
        refused: true,
    }
}

/// Keys of the past.
pub static REMOVED: &[RemovedKey] = &[
    zookeeper("zookeeper.connect"),
    zookeeper("zookeeper.metadata.migration.enable"),
    gone("advertised.host.name", "use advertised.listeners"),
    gone("advertised.port", "use advertised.listeners"),
    gone("broker.id.generation.enable", "set node.id"),
    gone("control.plane.listener.name", "use controller.listener.names"),
    gone("group.coordinator.new.enable", "it has no counterpart"),
    gone("host.name", "use listeners"),
    gone("inter.broker.protocol.version", "the metadata.version feature took its place"),
    gone("log.message.downconversion.enable", "messages are not converted down any more"),
    gone("log.message.format.version", "there is one message format"),
    gone("log.message.timestamp.difference.max.ms", "use log.message.timestamp.before.max.ms and ….after.max.ms"),
    gone("offsets.commit.required.acks", "commits always wait for all in-sync replicas"),
    gone("password.encoder.secret", "dynamic passwords are not stored"),
    gone("port", "use listeners"),
    gone("reserved.broker.max.id", "set node.id"),
    gone("zookeeper.connection.timeout.ms", "there is no ZooKeeper mode"),
    gone("zookeeper.session.timeout.ms", "there is no ZooKeeper mode"),
    gone("zookeeper.set.acl", "there is no ZooKeeper mode"),
];
