//! Followers, in-sync replicas, leadership. Kafka: `ReplicationConfigs`.

use super::super::key::ConfigType::String;
use super::super::key::{ConfigKey, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("auto.leader.rebalance.enable").boolean(true).high().accepted()
        .doc("Give leadership back to preferred replicas by itself; with one node they always have it."),
    key("broker.rack").of(String).medium().implemented()
        .doc("Name of the rack, zone or site of this broker."),
    key("controlled.shutdown.enable").boolean(true).medium().accepted()
        .doc("Hand leadership over before stopping; with one node there is nobody to hand it to."),
    key("leader.imbalance.check.interval.seconds").long(300).seconds().min(1).high().accepted()
        .doc("How often the controller looks for leadership that is not with the preferred replicas."),
    key("num.replica.fetchers").int(1).min(1).high().cluster_wide().accepted()
        .doc("Fetchers per leader from which this broker replicates."),
    key("replica.fetch.backoff.ms").int(1000).ms().min(0).medium().accepted()
        .doc("Rest after a failed fetch from a leader."),
    key("replica.fetch.max.bytes").int(1_048_576).bytes().min(0).medium().accepted()
        .doc("Bytes asked for per partition when fetching from a leader."),
    key("replica.fetch.min.bytes").int(1).bytes().high().accepted()
        .doc("Bytes that a leader waits for before it answers this follower."),
    key("replica.fetch.response.max.bytes").int(10_485_760).bytes().min(0).medium().accepted()
        .doc("Bytes asked for altogether when fetching from a leader."),
    key("replica.fetch.wait.max.ms").int(500).ms().high().accepted()
        .doc("How long a leader may wait for enough bytes before it answers this follower."),
    key("replica.high.watermark.checkpoint.interval.ms").long(5000).ms().high().implemented()
        .doc("How often the file of high watermarks is written."),
    key("replica.lag.time.max.ms").long(30_000).ms().high().accepted()
        .doc("A follower that has not caught up for this long leaves the in-sync replicas."),
    key("replica.selector.class").of(String).medium()
        .refused_unless(&["org.apache.kafka.common.replica.LeaderSelector", "org.apache.kafka.common.replica.RackAwareReplicaSelector"], reasons::PLUGIN)
        .doc("The class that picks the replica for a consumer in the same rack."),
    key("replica.socket.receive.buffer.bytes").int(65_536).bytes().high().accepted()
        .doc("SO_RCVBUF of connections to leaders; -1: the system's own."),
    key("replica.socket.timeout.ms").int(30_000).ms().high().accepted()
        .doc("How long a fetch from a leader may take on the network."),
    key("unclean.leader.election.enable").boolean(false).high().cluster_wide().accepted()
        .doc("Let a replica that is out of sync lead when no other is left, at the price of lost records; one node \
             has one replica."),
    key("unclean.leader.election.interval.ms").long(300_000).ms().min(1).medium().internal().accepted()
        .doc("How often the controller looks for partitions that only an unclean election would bring back."),
];
