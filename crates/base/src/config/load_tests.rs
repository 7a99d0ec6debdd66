//! Tests of loading: the configs that people start with, and what is refused.

use super::*;
use std::path::Path;
use std::time::Duration;

fn load(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    ServerConfig::load(&pairs.iter().copied().collect())
}

fn config(pairs: &[(&str, &str)]) -> ServerConfig {
    load(pairs).unwrap_or_else(|e| panic!("{e}")).config
}

fn errors(pairs: &[(&str, &str)]) -> String {
    load(pairs).expect_err("must be refused").to_string()
}

/// What a script that starts a test broker writes.
const RIG: &str = "process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:20001
listeners=PLAINTEXT://127.0.0.1:20000,CONTROLLER://127.0.0.1:20001
advertised.listeners=PLAINTEXT://127.0.0.1:20000
controller.listener.names=CONTROLLER
log.dirs=/tmp/x/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
";

fn load_text(text: &str) -> Loaded {
    let mut settings = Settings::new();
    settings.add_properties(Path::new("server.properties"), text.as_bytes()).unwrap();
    ServerConfig::load(&settings).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn nothing_set_is_a_working_single_node() {
    let Loaded { config: c, warnings } = load(&[]).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((c.node_id, c.log_dirs.len(), c.net.listeners.len()), (1, 1, 1));
    assert_eq!(c.net.listeners[0].port, 9092);
    assert_eq!(c.net.listeners[0].host, None);
    assert_eq!(c.net.advertised[0].host, None, "the address on which the client arrived");
    assert_eq!(c.net.inter_broker_listener, "PLAINTEXT");
    assert!(c.net.controller_listeners.is_empty());
    assert_eq!(c.log.retention_ms, 7 * 24 * 3_600_000);
    assert_eq!(c.log.segment_ms, 7 * 24 * 3_600_000);
    assert_eq!(c.log.flush_ms, i64::MAX);
    assert_eq!(c.log_manager.flush_scheduler_interval, None);
    assert_eq!(c.net.request_timeout, Duration::from_secs(30));
    assert_eq!(c.net.queued_max_request_bytes, None);
    assert_eq!(c.groups.consumer.assignors, ["uniform", "range"]);
    assert_eq!(c.taccola.acks_durability, AcksDurability::Disk);
}

#[test]
fn the_rigs_and_the_suites_settings_load() {
    let Loaded { config: c, warnings } = load_text(RIG);
    let wanted = |w: &String| w.contains("has no effect here (server.properties:");
    assert!(warnings.iter().all(wanted) && warnings.len() <= 2, "{warnings:?}");
    assert_eq!(c.node_id, 0);
    assert_eq!(c.net.controller_listeners[0].port, 20001);
    assert_eq!(c.net.listeners[0].host.as_deref(), Some("127.0.0.1"));
    assert_eq!(c.offsets.topic_replication_factor, 1);
    assert_eq!(c.groups.classic.initial_rebalance_delay_ms, 0);
    for suite in [
        "num.partitions=4 auto.create.topics.enable=true group.initial.rebalance.delay.ms=1000 \
         group.share.min.record.lock.duration.ms=1000 \
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer \
         allow.everyone.if.no.acl.found=true",
        "num.partitions=3 auto.create.topics.enable=true",
        "group.min.session.timeout.ms=1000",
        "group.consumer.heartbeat.interval.ms=1000 group.consumer.min.heartbeat.interval.ms=1000",
        "group.consumer.assignment.interval.ms=0 group.consumer.min.assignment.interval.ms=0",
    ] {
        load_text(&format!("{RIG}{}\n", suite.replace(' ', "\n")));
    }
}

#[test]
fn an_authorizer_is_taken_only_where_it_promises_nothing() {
    let class = ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
    assert!(errors(&[class]).contains("ACLs are not implemented"));
    assert!(errors(&[class, ("allow.everyone.if.no.acl.found", "false")]).contains("refused"));
    assert!(errors(&[("authorizer.class.name", "x.Y"), ("allow.everyone.if.no.acl.found", "true")]).contains("x.Y"));
    let loaded = load(&[class, ("allow.everyone.if.no.acl.found", "true")]).unwrap();
    assert!(loaded.warnings.iter().any(|w| w.contains("everyone is allowed everything")), "{:?}", loaded.warnings);
    assert!(load(&[("authorizer.class.name", "")]).unwrap().warnings.is_empty());
}

#[test]
fn what_is_not_kept_is_refused() {
    for (key, value) in [
        ("zookeeper.connect", "zk:2181"),
        ("ssl.keystore.location", "/x"),
        ("listener.name.external.ssl.keystore.location", "/x"),
        ("listener.name.external.scram-sha-256.sasl.jaas.config", "secret"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("remote.log.storage.manager.class.name", "a.B"),
        ("metric.reporters", "a.B"),
        ("config.providers", "file"),
        ("config.providers.file.class", "a.B"),
        ("process.roles", "broker"),
        ("process.roles", "controller"),
        ("principal.builder.class", "a.B"),
        ("transaction.two.phase.commit.enable", "true"),
    ] {
        let e = errors(&[(key, value)]);
        assert!(e.contains(" is refused: "), "{e}");
        assert!(!e.contains("secret"), "{e}");
    }
    let tls = errors(&[("listeners", "SSL://:9093")]);
    assert!(tls.contains("only PLAINTEXT"), "{tls}");
    assert!(load(&[("remote.log.storage.system.enable", "FALSE")]).unwrap().warnings.is_empty());
    assert!(load(&[("metric.reporters", "")]).is_ok());
}

#[test]
fn a_wrong_value_is_one_sentence_with_its_place() {
    let mut settings = Settings::new();
    settings.add_properties(Path::new("server.properties"), b"# x\nlog.segment.bytes=7\nssl.key.password=pw").unwrap();
    settings.add_environment([("KAFKA_NUM_PARTITIONS", "many")]);
    settings.add_override("log.cleanup.policy=keep").unwrap();
    let e = ServerConfig::load(&settings).unwrap_err().to_string();
    let lines: Vec<&str> = e.lines().collect();
    for line in [
        "log.segment.bytes=7 must be a whole number of at least 1048576 (server.properties:2)",
        "num.partitions=many must be a whole number of at least 1 (environment variable KAFKA_NUM_PARTITIONS)",
        "log.cleanup.policy=keep must be a list of: compact, delete (command line)",
        "ssl.key.password=(hidden) is refused: TLS listeners are not implemented yet (server.properties:3)",
    ] {
        assert!(lines.contains(&line), "{line}\n{e}");
    }
    assert_eq!(lines.len(), 4, "{e}");
}

#[test]
fn warnings_come_once_each() {
    let loaded = load(&[
        ("num.partition", "3"),
        ("confluent.support.metrics.enable", "false"),
        ("inter.broker.protocol.version", "3.9"),
        ("num.io.threads", "16"),
        ("num.network.threads", "3"),
    ])
    .unwrap();
    assert_eq!(loaded.warnings.len(), 4, "{:?}", loaded.warnings);
    let has = |text: &str| assert!(loaded.warnings.iter().any(|w| w.contains(text)), "{text} in {:?}", loaded.warnings);
    has("unknown key num.partition is ignored (derived); did you mean num.partitions?");
    has("unknown key confluent.support.metrics.enable is ignored (derived)");
    has("Kafka 4 has it no more");
    has("num.io.threads has no effect here");
}

#[test]
fn checks_between_keys() {
    for (pairs, text) in [
        (&[("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")][..], "clients can reach"),
        (&[("advertised.listeners", "OTHER://h:1")], "must only name listeners"),
        (&[("listeners", "A://:1")], "which protocol listener A speaks"),
        (&[("listeners", "PLAINTEXT://:1,PLAINTEXT://:2")], "twice"),
        (&[("listeners", "PLAINTEXT://h:1,CONTROLLER://:1")], "port 1"),
        (&[("listeners", "CONTROLLER://:1")], "not in controller.listener.names"),
        (&[("listeners", "nonsense")], "NAME://host:port"),
        (&[("controller.quorum.voters", "7@h:1")], "must name this node"),
        (&[("controller.quorum.voters", "1@h:1,2@h:2")], "several nodes"),
        (&[("controller.quorum.voters", "1")], "id@host:port"),
        (&[("controller.quorum.bootstrap.servers", "other:9093")], "no controller listener of this node"),
        (&[("node.id", "1"), ("broker.id", "2")], "must be the same"),
        (&[("group.min.session.timeout.ms", "5"), ("group.max.session.timeout.ms", "4")], "at most group.max"),
        (&[("group.consumer.session.timeout.ms", "1000")], "from group.consumer.min.session.timeout.ms"),
        (
            &[("group.consumer.heartbeat.interval.ms", "50000"), ("group.consumer.max.heartbeat.interval.ms", "50000")],
            "must be less than",
        ),
        (&[("log.retention.ms", "0")], "log.retention.ms"),
        (&[("log.cleaner.dedupe.buffer.size", "1000")], "1 MiB"),
        (&[("max.connections.per.ip", "0")], "overrides"),
        (&[("max.connections.per.ip.overrides", "h")], "host:limit"),
        (&[("queued.max.request.bytes", "5")], "socket.request.max.bytes"),
        (&[("inter.broker.listener.name", "X")], "one of advertised.listeners"),
        (&[("inter.broker.listener.name", "PLAINTEXT"), ("security.inter.broker.protocol", "PLAINTEXT")], "both"),
        (&[("process.roles", "broker,controller"), ("controller.listener.names", "C")], "must name one of listeners"),
        (&[("log.dirs", "/a,/a")], "twice"),
        (&[("log.dirs", "")], "at least one directory"),
        (&[("log.dirs", "/a,,/b")], "without empty items"),
        (&[("offsets.topic.compression.codec", "9")], "zstd"),
        (&[("replica.fetch.wait.max.ms", "40000")], "replica.socket.timeout.ms"),
    ] {
        let e = errors(pairs);
        assert!(e.contains(text), "{pairs:?}: {e}");
    }
}

#[test]
fn listeners_by_name() {
    let c = config(&[
        ("listeners", "external://:9092,INTERNAL://0.0.0.0:9093,CTRL://127.0.0.1:9094"),
        ("advertised.listeners", "EXTERNAL://broker.example:19092,INTERNAL://[::1]:9093"),
        ("listener.security.protocol.map", "EXTERNAL:PLAINTEXT,INTERNAL:PLAINTEXT,CTRL:PLAINTEXT,SSL:SSL"),
        ("controller.listener.names", "CTRL"),
        ("inter.broker.listener.name", "INTERNAL"),
        ("controller.quorum.bootstrap.servers", "localhost:9094"),
        ("max.connections.per.ip.overrides", "127.0.0.1:5, host:0"),
        ("broker.id", "4"),
        ("listener.name.external.max.connections", "77"),
    ]);
    assert_eq!(c.net.listener_limits["EXTERNAL"].max_connections, Some(77));
    assert_eq!(c.net.max_connections, i32::MAX as u32);
    assert!(errors(&[("listener.name.plaintext.max.connections", "-1")]).contains("at least 0"));
    assert_eq!(c.node_id, 4);
    assert_eq!(c.net.listeners.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["EXTERNAL", "INTERNAL"]);
    assert_eq!(c.net.advertised[0].host.as_deref(), Some("broker.example"));
    assert_eq!(c.net.advertised[1].host.as_deref(), Some("::1"));
    assert_eq!(c.net.inter_broker_listener, "INTERNAL");
    assert_eq!(c.controller.bootstrap_servers, [("localhost".to_owned(), 9094)]);
    assert_eq!(c.net.max_connections_per_ip_overrides.get("host"), Some(&0));
}

#[test]
fn dynamic_values_lie_above_static_ones() {
    let map = |pairs: &[(&str, &str)]| -> ConfigMap {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let settings: Settings = [("message.max.bytes", "10"), ("log.retention.hours", "1")].into_iter().collect();
    let default = map(&[
        ("message.max.bytes", "20"),
        ("num.io.threads", "9"),
        ("log.retention.ms", "5"),
        ("listeners", "X://:1"),
    ]);
    let broker = map(&[("message.max.bytes", "30"), ("node.id", "9"), ("log.retention.ms", "wrong")]);
    let Loaded { config: c, warnings } = ServerConfig::load_with(&settings, &default, &broker).unwrap();
    assert_eq!(c.topics.message_max_bytes, 30);
    assert_eq!(c.log.max_message_bytes, 30);
    assert_eq!(c.net.num_io_threads, 9);
    assert_eq!(c.node_id, 1, "read-only keys do not count there");
    assert_eq!(c.net.listeners[0].name, "PLAINTEXT", "per-broker keys do not count for all");
    assert_eq!(c.log.retention_ms, 5, "a wrong dynamic value gives way to the next layer");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let none = ConfigMap::new();
    let c = ServerConfig::load_with(&settings, &default, &none).unwrap().config;
    assert_eq!(c.topics.message_max_bytes, 20);
    let c = ServerConfig::load_with(&settings, &none, &none).unwrap().config;
    assert_eq!(c.log.retention_ms, 3_600_000);
}

#[test]
fn retention_and_roll_take_the_finest_unit() {
    let c = config(&[("log.retention.hours", "2"), ("log.retention.minutes", "30"), ("log.roll.hours", "3")]);
    assert_eq!((c.log.retention_ms, c.log.segment_ms), (1_800_000, 10_800_000));
    let c = config(&[("log.retention.minutes", "-1"), ("log.roll.ms", "7"), ("log.flush.scheduler.interval.ms", "9")]);
    assert_eq!((c.log.retention_ms, c.log.segment_ms, c.log.flush_ms), (-1, 7, 9));
}

#[test]
fn topics_override_the_broker() {
    let c = config(&[("compression.type", "zstd"), ("log.preallocate", "true")]);
    let overrides: ConfigMap = [
        ("segment.bytes", "2097152"),
        ("retention.ms", "-1"),
        ("cleanup.policy", "compact,delete"),
        ("compression.type", "lz4"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("preallocate", "false"),
        ("leader.replication.throttled.replicas", "*"),
        ("segment.ms", "0"),
        ("nonsense", "1"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    let (t, ignored) = c.log.with_overrides(&overrides);
    assert_eq!(ignored.len(), 2, "{ignored:?}");
    assert_eq!((t.segment_bytes, t.retention_ms, t.segment_ms), (2_097_152, -1, c.log.segment_ms));
    assert!(t.cleanup_compact && t.cleanup_delete && !t.preallocate);
    assert_eq!(t.compression, TopicCompression::Lz4);
    assert_eq!(t.message_timestamp_type, MessageTimestampType::LogAppendTime);
    assert!((t.min_cleanable_dirty_ratio - 0.1).abs() < 1e-12);
    assert_eq!(t.leader_throttled_replicas, ["*"]);
    let small: ConfigMap = [("internal.segment.bytes".to_owned(), "100".to_owned())].into_iter().collect();
    assert_eq!(c.log.with_overrides(&small).0.segment_bytes, 100);
}

#[test]
fn places_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.properties");
    std::fs::write(&file, "num.partitions=2\nnum.partitions=3\nbroker.rack=r\nfetch.max.bytes=2000\n").unwrap();
    let environment = [("KAFKA_FETCH_MAX_BYTES", "3000"), ("KAFKA_BROKER_RACK", "e"), ("PATH", "/")];
    let settings = Settings::load(Some(&file), environment, &["broker.rack = f".to_owned()]).unwrap();
    assert_eq!(settings.value("num.partitions"), Some("3"), "the last one of a file wins");
    assert_eq!(settings.value("fetch.max.bytes"), Some("3000"));
    assert_eq!(settings.value("broker.rack"), Some(" f"));
    assert_eq!(settings.get("broker.rack").unwrap().place, Place::Flag);
    assert_eq!(settings.get("num.partitions").unwrap().place, Place::File { path: file, line: 2 });
    assert_eq!(ServerConfig::load(&settings).unwrap().config.rack.as_deref(), Some("f"));
    assert!(Settings::load(None, [("A", "b")], &["=1".to_owned()]).is_err());
    assert!(Settings::load(Some(Path::new("/nowhere")), [("A", "b")], &[]).is_err());
}

#[test]
fn environment_as_the_images_read_it() {
    let mut s = Settings::new();
    s.add_environment([
        ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://h:19092,BROKER://b:9093"),
        ("KAFKA_CFG_NUM_PARTITIONS", "7"),
        ("KAFKA_A__B___C_D", "x"),
        ("KAFKA_HEAP_OPTS", "-Xmx1g"),
        ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ("KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("KAFKA_SSL_KEYSTORE_FILENAME", "k.jks"),
        ("CLUSTER_ID", "abc"),
        ("TACCOLA_ACKS_DURABILITY", "memory"),
        ("TACCOLA_SOMETHING", "else"),
        ("HOME", "/root"),
    ]);
    let all: Vec<(&str, &str)> = s.iter().map(|(k, v)| (k, v.value.as_str())).collect();
    assert_eq!(
        all,
        [
            ("a_b-c.d", "x"),
            ("advertised.listeners", "PLAINTEXT://h:19092,BROKER://b:9093"),
            ("listeners", "PLAINTEXT://0.0.0.0:19092,BROKER://0.0.0.0:9093"),
            ("num.partitions", "7"),
            ("ssl.keystore.location", "/etc/kafka/secrets/k.jks"),
            ("taccola.acks.durability", "memory"),
        ]
    );
    assert_eq!(s.cluster_id(), Some("abc"));
}

#[test]
fn toml_has_the_same_names() {
    let mut s = Settings::new();
    let text = "node.id = 3\n\"max.connections.per.ip\" = 0x10\n[log]\ndirs = ['/a', \"/b\"]\ncleaner.enable = false\n\
                [log.cleaner.min]\ncleanable.ratio = 0.25\n";
    s.add_toml(Path::new("c.toml"), text.as_bytes()).unwrap();
    let all: Vec<(&str, &str)> = s.iter().map(|(k, v)| (k, v.value.as_str())).collect();
    assert_eq!(
        all,
        [
            ("log.cleaner.enable", "false"),
            ("log.cleaner.min.cleanable.ratio", "0.25"),
            ("log.dirs", "/a,/b"),
            ("max.connections.per.ip", "16"),
            ("node.id", "3"),
        ]
    );
    assert_eq!(s.get("log.dirs").unwrap().place, Place::File { path: "c.toml".into(), line: 4 });
    let error = |text: &[u8]| Settings::new().add_toml(Path::new("c.toml"), text).unwrap_err().to_string();
    assert!(error(b"a = 1\nb = ").starts_with("c.toml:2: "), "{}", error(b"a = 1\nb = "));
    assert!(error(b"a = 1979-05-27").contains("must be a text"));
    assert!(error(b"a = [[1]]").contains("must be a text"));
    assert!(error(b"a = [{b=1}]").contains("must be a text"));
    assert!(error(b"a.b = 1\n\"a.b\" = 2").contains("set twice"));
    assert!(error(b"x = '\xff'").contains("UTF-8"));
}

#[test]
fn files_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("big.properties");
    std::fs::write(&file, vec![b'x'; crate::limits::CONFIG_FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(Settings::new().add_file(&file).unwrap_err().to_string().contains("larger"));
}
