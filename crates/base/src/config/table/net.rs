//! Listeners, connections, sockets, threads, and how much of requests and answers is held. Kafka: `SocketServerConfigs`.

use super::super::key::ConfigType::{List, String};
use super::super::key::{ConfigKey, INT_MAX, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("advertised.listeners").of(List).high().implemented()
        .doc("Addresses that clients and other brokers are told to connect to; unset: those of listeners, and for a \
             wildcard the address on which the client arrived."),
    key("connection.failed.authentication.delay.ms").int(100).ms().min(0).low().accepted()
        .doc("How long an answer to a failed authentication is held back; there is no authentication yet."),
    key("connections.max.idle.ms").long(600_000).ms().medium().implemented()
        .doc("A connection without traffic for this long is closed; negative: never."),
    key("connections.max.reauth.ms").long(0).ms().medium().accepted()
        .doc("How long a SASL session lives before the client must authenticate again; there is no SASL listener \
             yet."),
    key("early.start.listeners").of(List).high().accepted()
        .doc("Listeners that open before the metadata is loaded; here all of them open once it is."),
    key("inter.broker.listener.name").of(String).medium().implemented()
        .doc("Name of the listener that brokers use among themselves."),
    key("listener.security.protocol.map")
        .string("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT").low().per_broker().implemented()
        .doc("Which security protocol each listener name speaks."),
    key("listeners").list("PLAINTEXT://:9092").high().per_broker().implemented()
        .doc("Addresses to listen on, as NAME://host:port; an empty host or 0.0.0.0 means every interface, port 0 \
             any free port."),
    key("max.connection.creation.rate").int(INT_MAX).min(0).medium().cluster_wide().implemented()
        .doc("New connections accepted per second, after a burst of one second's worth; what comes faster waits in the \
             backlog. Also for single listeners, as listener.name.<name>.max.connection.creation.rate."),
    key("max.connections").int(INT_MAX).min(0).medium().cluster_wide().implemented()
        .doc("Open connections on all listeners together, and never more than the process's limit of open files \
             leaves; further ones wait to be accepted. Also for single listeners, as \
             listener.name.<name>.max.connections."),
    key("max.connections.per.ip").int(INT_MAX).min(0).medium().cluster_wide().implemented()
        .doc("Open connections from one address; further ones are closed at once."),
    key("max.connections.per.ip.overrides").string("").medium().cluster_wide().implemented()
        .doc("Limits for single addresses or host names instead of max.connections.per.ip, as host:limit,host:limit."),
    key("num.io.threads").int(8).min(1).high().cluster_wide().accepted()
        .doc("Kafka's request handler threads; the runtime here sizes itself by the processors."),
    key("num.network.threads").int(3).min(1).high().cluster_wide().accepted()
        .doc("Kafka's network threads per listener; the runtime here sizes itself by the processors."),
    key("background.threads").int(10).min(1).high().cluster_wide().accepted()
        .doc("Kafka's threads for periodic work; the runtime here sizes itself by the processors."),
    key("queued.max.request.bytes").long(-1).bytes().medium().implemented()
        .doc("Request bytes held in memory by all connections together; reading stops beyond it; -1: a share of the \
             machine's memory."),
    key("queued.max.requests").int(500).min(1).high().accepted()
        .doc("Length of Kafka's queue between its network and its handler threads. There is none here: a request is \
             started when it has been read, up to 64 requests and 8 MiB per connection."),
    key("request.timeout.ms").int(30_000).ms().high().implemented()
        .doc("How long a request of this broker to another node may take."),
    key("security.inter.broker.protocol").string("PLAINTEXT")
        .one_of(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]).medium().refused(reasons::TLS)
        .doc("Protocol whose listener brokers use among themselves when no listener is named; only PLAINTEXT is \
             spoken yet."),
    key("socket.connection.setup.timeout.max.ms").long(30_000).ms().medium().accepted()
        .doc("Longest wait for one of this broker's own connections to be set up, after all retries have lengthened \
             it."),
    key("socket.connection.setup.timeout.ms").long(10_000).ms().medium().accepted()
        .doc("First wait for one of this broker's own connections to be set up."),
    key("socket.listen.backlog.size").int(50).min(1).medium().implemented()
        .doc("Connections that the system queues before they are accepted; the system's own maximum applies too."),
    key("socket.receive.buffer.bytes").int(102_400).bytes().high().implemented()
        .doc("SO_RCVBUF of client connections; -1: the system's own."),
    key("socket.request.max.bytes").int(104_857_600).bytes().min(1).high().implemented()
        .doc("Largest request frame; a larger one closes the connection."),
    key("socket.send.buffer.bytes").int(102_400).bytes().high().implemented()
        .doc("SO_SNDBUF of client connections; -1: the system's own."),
    key("unstable.api.versions.enable").boolean(false).high().internal().refused(reasons::UNSTABLE)
        .doc("Serve API versions that are still being developed."),
    key("fetch.purgatory.purge.interval.requests").int(1000).medium().accepted()
        .doc("Kafka's batch size for forgetting finished waiting fetches; here they are forgotten at once."),
    key("producer.purgatory.purge.interval.requests").int(1000).medium().accepted()
        .doc("Kafka's batch size for forgetting finished waiting produces; here they are forgotten at once."),
    key("delete.records.purgatory.purge.interval.requests").int(1).medium().accepted()
        .doc("Kafka's batch size for forgetting finished DeleteRecords waits; here they are forgotten at once."),
    key("share.fetch.purgatory.purge.interval.requests").int(1000).medium().accepted()
        .doc("Kafka's batch size for forgetting finished waiting share fetches; here they are forgotten at once."),
    key("fetch.max.bytes").int(57_671_680).bytes().min(1024).medium().implemented()
        .doc("Largest answer to one fetch, whatever the client asks for; a single larger batch is still returned."),
    key("max.incremental.fetch.session.cache.slots").int(1000).min(0).medium().implemented()
        .doc("Fetch sessions remembered at a time; a client that finds none fetches without a session."),
    key("max.request.partition.size.limit").int(2000).min(1).medium().implemented()
        .doc("Partitions in one DescribeTopicPartitions answer; the client continues with a cursor."),
    key("server.max.startup.time.ms").long(i64::MAX).ms().min(0).medium().internal().accepted()
        .doc("How long Kafka may take to start before it gives up."),
];
