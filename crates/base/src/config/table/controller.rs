//! What this node is, the metadata quorum and the metadata log. Kafka: `KRaftConfigs`, `QuorumConfig`.

use super::super::key::ConfigType::{Int, List, String};
use super::super::key::{ConfigKey, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("broker.heartbeat.interval.ms").int(2000).ms().medium().accepted()
        .doc("How often a broker sends heartbeats to the controller; here both are one process."),
    key("broker.id").int(-1).high().implemented()
        .doc("Older name of node.id."),
    key("broker.session.timeout.ms").int(9000).ms().medium().accepted()
        .doc("A broker without a heartbeat for this long is fenced."),
    key("controller.listener.names").of(List).required().high().implemented()
        .doc("Names of the listeners that belong to the controller; clients are not served there."),
    key("controller.performance.always.log.threshold.ms").long(2000).ms().min(0).medium().internal().accepted()
        .doc("Controller events that take longer are logged by Kafka one by one."),
    key("controller.performance.sample.period.ms").long(60_000).ms().min(100).medium().internal().accepted()
        .doc("How often Kafka logs a summary of controller events."),
    key("controller.quorum.append.linger.ms").int(25).ms().min(0).medium().accepted()
        .doc("How long the metadata leader gathers records into one batch."),
    key("controller.quorum.auto.join.enable").boolean(false).low().refused(reasons::QUORUM)
        .doc("Let a controller add itself to the voters when it starts."),
    key("controller.quorum.bootstrap.servers").list("").high().accepted()
        .doc("Addresses at which a node finds the metadata quorum; the one node here is its own quorum."),
    key("controller.quorum.election.backoff.max.ms").int(1000).ms().min(0).high().accepted()
        .doc("Longest random rest after an election without a winner."),
    key("controller.quorum.election.timeout.ms").int(1000).ms().min(0).high().accepted()
        .doc("How long a candidate waits for votes."),
    key("controller.quorum.fetch.max.bytes").int(1_048_576).bytes().min(1).low().accepted()
        .doc("Bytes that a node fetches of the metadata log at a time."),
    key("controller.quorum.fetch.snapshot.max.bytes").int(1_048_576).bytes().min(1).low().accepted()
        .doc("Bytes that a node fetches of a metadata snapshot at a time."),
    key("controller.quorum.fetch.timeout.ms").int(2000).ms().min(0).high().accepted()
        .doc("How long a node does without the quorum's leader before it calls an election."),
    key("controller.quorum.request.timeout.ms").int(2000).ms().min(0).medium().accepted()
        .doc("How long a request between nodes of the quorum may take."),
    key("controller.quorum.retry.backoff.ms").int(20).ms().min(0).low().accepted()
        .doc("Rest between attempts to reach a node of the quorum."),
    key("controller.quorum.voters").list("").high().implemented()
        .doc("The fixed members of the metadata quorum, as id@host:port; only this node itself can be one yet."),
    key("controller.quota.window.num").int(11).min(1).low().accepted()
        .doc("Windows over which the rate of topic creations and deletions is averaged."),
    key("controller.quota.window.size.seconds").int(1).seconds().min(1).low().accepted()
        .doc("Length of one such window."),
    key("controller.socket.timeout.ms").int(30_000).ms().medium().accepted()
        .doc("How long a request to the controller may take on the network."),
    key("initial.broker.registration.timeout.ms").int(60_000).ms().medium().accepted()
        .doc("How long a starting broker tries to register; here broker and controller are one process."),
    key("internal.metadata.delete.delay.millis").long(60_000).ms().low().internal().accepted()
        .doc("How long removed files of the metadata log stay on disk."),
    key("internal.metadata.log.segment.bytes").of(Int).bytes().low().internal().accepted()
        .doc("Segment size of the metadata log, for tests."),
    key("internal.metadata.max.batch.size.in.bytes").int(8_388_608).bytes().low().internal().accepted()
        .doc("Largest batch of metadata records."),
    key("metadata.log.dir").of(String).high().implemented()
        .doc("Where the metadata log is stored; unset: in the first of log.dirs."),
    key("metadata.log.max.record.bytes.between.snapshots").long(20_971_520).bytes().min(1).high().implemented()
        .doc("Bytes of metadata records after which a snapshot is written."),
    key("metadata.log.max.snapshot.interval.ms").long(3_600_000).ms().min(0).high().implemented()
        .doc("Time after which a snapshot is written if anything has changed; 0: only by bytes."),
    key("metadata.log.segment.bytes").int(1_073_741_824).bytes().min(8_388_608).high().implemented()
        .doc("Segment size of the metadata log."),
    key("metadata.log.segment.ms").long(604_800_000).ms().high().implemented()
        .doc("Time after which a segment of the metadata log is closed though not full."),
    key("metadata.max.idle.interval.ms").int(500).ms().min(0).low().accepted()
        .doc("How often the active controller writes a record that does nothing when there is nothing to write; 0: \
             never."),
    key("metadata.max.retention.bytes").long(104_857_600).bytes().high().implemented()
        .doc("Bytes of metadata log and snapshots that are kept, besides the newest snapshot and the log behind it; \
             negative: no bound."),
    key("metadata.max.retention.ms").long(604_800_000).ms().high().implemented()
        .doc("Time that a metadata snapshot, and the log before the next one, are kept; negative: no bound."),
    key("node.id").of(Int).required().min(0).high().implemented()
        .doc("Number of this node in its cluster; 1 when not set."),
    key("process.roles").of(List).required().one_of(&["broker", "controller"]).high().implemented()
        .doc("What this process is; only broker and controller in one can be served yet, which is also the default."),
    key("unstable.feature.versions.enable").boolean(false).high().internal().refused(reasons::UNSTABLE)
        .doc("Allow metadata and feature versions that are still being developed."),
];
