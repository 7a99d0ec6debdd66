//! Tests of what changes of configs are refused, and that no input makes the parsers panic.

use super::value::{Value, parse, parse_iso_duration_ms};
use super::*;

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn server() -> ServerConfig {
    ServerConfig::load(&Settings::new()).unwrap().config
}

#[test]
fn topic_values() {
    for (name, value) in [
        ("cleanup.policy", ""),
        ("cleanup.policy", "delete, compact"),
        ("retention.ms", " 77 "),
        ("retention.ms", "-1"),
        ("max.message.bytes", "+5"),
        ("preallocate", "TRUE"),
        ("min.cleanable.dirty.ratio", "1e-1"),
        ("leader.replication.throttled.replicas", "*"),
        ("leader.replication.throttled.replicas", "0:1,1:2"),
        ("leader.replication.throttled.replicas", ""),
        ("internal.segment.bytes", "1024"),
        ("remote.storage.enable", "false"),
        ("compression.gzip.level", "-1"),
        ("compression.zstd.level", "-131072"),
    ] {
        assert_eq!(validate_topic_config(name, value), Ok(()), "{name}={value}");
    }
    for (name, value) in [
        ("cleanup.policy", "foo"),
        ("cleanup.policy", "compact,,delete"),
        ("retention.ms", "abc"),
        ("retention.ms", "-2"),
        ("retention.ms", ""),
        ("retention.ms", "99999999999999999999"),
        ("retention.ms", "1.0"),
        ("max.message.bytes", "2147483648"),
        ("preallocate", "yes"),
        ("compression.type", "none"),
        ("compression.type", "Gzip"),
        ("compression.gzip.level", "0"),
        ("compression.gzip.level", "10"),
        ("compression.zstd.level", "23"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("message.timestamp.type", "logappendtime"),
        ("segment.bytes", "1024"),
        ("segment.ms", "0"),
        ("leader.replication.throttled.replicas", "*,0:1"),
        ("leader.replication.throttled.replicas", "foo"),
        ("min.insync.replicas", "0"),
        ("message.format.version", "2.0"),
        ("no.such.key", "1"),
    ] {
        let e = validate_topic_config(name, value).expect_err(name);
        assert!(e.starts_with(name), "{e}");
    }
    assert!(validate_topic_config("retention.m", "1").unwrap_err().ends_with("did you mean retention.ms?"));
}

#[test]
fn topic_values_together() {
    let log = server().log;
    assert!(validate_topic_configs(&map(&[("min.compaction.lag.ms", "100")]), &log).is_ok());
    let lags = map(&[("min.compaction.lag.ms", "100"), ("max.compaction.lag.ms", "50")]);
    assert!(validate_topic_configs(&lags, &log).unwrap_err().contains("(100) must be at most"));
}

#[test]
fn group_values() {
    let groups = server().groups;
    for (name, value) in [
        ("consumer.session.timeout.ms", "50000"),
        ("share.auto.offset.reset", "by_duration:PT1H"),
        ("share.auto.offset.reset", "earliest"),
        ("share.isolation.level", "read_committed"),
        ("share.renew.acknowledge.enable", "false"),
        ("streams.num.standby.replicas", "2"),
    ] {
        assert_eq!(validate_group_configs(&map(&[(name, value)]), &groups), Ok(()), "{name}={value}");
    }
    for (name, value) in [
        ("consumer.session.timeout.ms", "1"),
        ("consumer.session.timeout.ms", "70000"),
        ("consumer.session.timeout.ms", "0"),
        ("consumer.heartbeat.interval.ms", "50000"),
        ("consumer.assignment.interval.ms", "16000"),
        ("share.auto.offset.reset", "LATEST"),
        ("share.auto.offset.reset", "by_duration:-PT1H"),
        ("share.auto.offset.reset", "by_duration:1h"),
        ("share.isolation.level", "READ_COMMITTED"),
        ("share.delivery.count.limit", "11"),
        ("share.record.lock.duration.ms", "5000"),
        ("share.partition.max.record.locks", "10001"),
        ("streams.num.standby.replicas", "3"),
        ("streams.initial.rebalance.delay.ms", "-1"),
        ("foo", "1"),
    ] {
        assert!(validate_group_configs(&map(&[(name, value)]), &groups).is_err(), "{name}={value}");
    }
}

#[test]
fn client_metrics_values() {
    let check = |name: &str, value: &str| validate_client_metrics_configs(&map(&[(name, value)]));
    for (name, value) in [
        ("interval.ms", "100"),
        ("interval.ms", "3600000"),
        ("match", "client_id=abc, client_software_name=x.*"),
        ("match", ""),
        ("metrics", "*"),
        ("metrics", ""),
    ] {
        assert_eq!(check(name, value), Ok(()), "{name}={value}");
    }
    assert!(matches!(check("interval.ms", "99"), Err(ConfigRefusal::InvalidRequest(_))));
    assert!(matches!(check("interval.ms", "3600001"), Err(ConfigRefusal::InvalidRequest(_))));
    assert!(matches!(check("interval.ms", "x"), Err(ConfigRefusal::InvalidConfig(_))));
    assert!(matches!(check("match", "foo=bar"), Err(ConfigRefusal::InvalidConfig(_))));
    assert!(matches!(check("match", "client_id"), Err(ConfigRefusal::InvalidConfig(_))));
    assert!(matches!(check("metrics", "a,,b"), Err(ConfigRefusal::InvalidConfig(_))));
    assert!(matches!(check("push", "1"), Err(ConfigRefusal::InvalidRequest(_))));
    assert_eq!(parse_client_match("client_id=a=b"), Ok(vec![("client_id", "a=b".to_owned())]));
}

#[test]
fn broker_values() {
    let (settings, current, none) = (Settings::new(), server(), ConfigMap::new());
    let of_all = |name: &str, value: &str| validate_broker_configs(&settings, &map(&[(name, value)]), &none, &current);
    let of_one = |name: &str, value: &str| validate_broker_configs(&settings, &none, &map(&[(name, value)]), &current);
    for (name, value) in [
        ("log.retention.ms", "5"),
        ("log.retention.ms", "-2"),
        ("num.io.threads", "9"),
        ("message.max.bytes", "5"),
        ("foo", "anything"),
        ("leader.replication.throttled.rate", "100"),
        ("log.cleanup.policy", "compact"),
        ("listener.name.plaintext.max.connections", "5"),
        ("max.connections.per.ip.overrides", "localhost:5"),
    ] {
        assert!(of_all(name, value).is_ok(), "{name}={value}: {:?}", of_all(name, value));
        assert!(of_one(name, value).is_ok(), "{name}={value}");
    }
    for (name, value) in [
        ("log.retention.hours", "5"),
        ("node.id", "5"),
        ("advertised.listeners", "PLAINTEXT://a:1"),
        ("log.retention.ms", "0"),
        ("num.io.threads", "100"),
        ("num.io.threads", "3"),
        ("message.max.bytes", "-1"),
        ("log.segment.bytes", "1000"),
        ("log.local.retention.ms", "999999999999"),
        ("group.consumer.assignment.interval.ms", "99999"),
        ("metric.reporters", "foo.Bar"),
        ("config.providers", "file"),
        ("max.connections.per.ip", "0"),
        ("max.connections.per.ip.overrides", "foo"),
        ("listeners", "PLAINTEXT://:9999"),
        ("ssl.keystore.location", "/x"),
        ("listener.name.plaintext.ssl.keystore.location", "/x"),
        ("cordoned.log.dirs", "/a"),
        ("log.cleaner.dedupe.buffer.size", "1"),
        ("follower.replication.throttled.rate", "-1"),
    ] {
        assert!(matches!(of_all(name, value), Err(ConfigRefusal::InvalidRequest(_))), "{name}={value}");
        assert!(matches!(of_one(name, value), Err(ConfigRefusal::InvalidRequest(_))), "{name}={value}");
    }
    let e = of_one("ssl.key.password", "hunter2").unwrap_err().to_string();
    assert!(!e.contains("hunter2"), "{e}");
    let loaded = of_all("message.max.bytes", "77").unwrap();
    assert_eq!(loaded.config.topics.message_max_bytes, 77);
}

fn change<'a>(name: &'a str, op: AlterOp, value: &'a str) -> Alteration<'a> {
    Alteration { name, op, value: Some(value) }
}

#[test]
fn incremental_changes() {
    let now = map(&[("cleanup.policy", "compact"), ("retention.ms", "5")]);
    let after = |changes: &[Alteration<'_>]| alter(Scope::Topic, &now, changes);
    use AlterOp::{Append, Delete, Set, Subtract};
    let policy = |c: &[Alteration<'_>]| after(c).unwrap().get("cleanup.policy").cloned();
    assert_eq!(policy(&[change("cleanup.policy", Append, "delete,compact")]), Some("compact,delete".to_owned()));
    assert_eq!(policy(&[change("cleanup.policy", Subtract, "compact")]), Some(String::new()));
    assert_eq!(policy(&[change("cleanup.policy", Delete, "")]), None);
    assert_eq!(policy(&[change("cleanup.policy", Set, "x")]), Some("x".to_owned()));
    let fresh = alter(Scope::Topic, &map(&[]), &[change("cleanup.policy", Append, "compact")]).unwrap();
    assert_eq!(fresh.get("cleanup.policy").map(String::as_str), Some("delete,compact"), "from the default");
    assert_eq!(after(&[change("no.such.key", Delete, "")]).unwrap(), now);
    assert!(matches!(after(&[change("retention.ms", Append, "5")]), Err(ConfigRefusal::InvalidConfig(_))));
    assert!(matches!(after(&[change("no.such.key", Append, "5")]), Err(ConfigRefusal::InvalidConfig(_))));
    let twice = [change("retention.ms", Set, "5"), change("retention.ms", Set, "6")];
    assert!(matches!(after(&twice), Err(ConfigRefusal::InvalidRequest(_))));
    let null = Alteration { name: "retention.ms", op: Set, value: None };
    assert!(matches!(after(&[null]), Err(ConfigRefusal::InvalidRequest(_))));
    assert!(!is_list(Scope::ClientMetrics, "metrics"));
    assert!(is_list(Scope::Broker, "log.cleanup.policy"));
    assert_eq!(AlterOp::from_code(4), None);
}

#[test]
fn durations() {
    for (text, ms) in [
        ("PT1H", Some(3_600_000)),
        ("P1DT2H3M4.5S", Some(93_784_500)),
        ("pt0.0019s", Some(1)),
        ("-PT1S", Some(-1_000)),
        ("PT-1.5S", Some(-1_500)),
        ("P", None),
        ("PT", None),
        ("P1H", None),
        ("PT1H1H", None),
        ("PT1S1M", None),
        ("1h", None),
        ("P99999999999999999999D", None),
        ("P9223372036854775807D", None),
    ] {
        assert_eq!(parse_iso_duration_ms(text), ms, "{text}");
    }
}

#[test]
fn doubles_as_java_writes_them() {
    let key = table::find(Scope::Broker, "log.cleaner.io.max.bytes.per.second").unwrap();
    for (text, shown) in [
        ("0.50", "0.5"),
        ("1e4", "10000.0"),
        ("1e7", "1.0E7"),
        ("12345678.9", "1.23456789E7"),
        ("0.001", "0.001"),
        ("1e-4", "1.0E-4"),
        ("-0.00012", "-1.2E-4"),
        ("0", "0.0"),
        ("1.7976931348623157E308", "1.7976931348623157E308"),
    ] {
        assert_eq!(parse(key, text).unwrap().text().as_deref(), Some(shown), "{text}");
    }
    assert!(parse(key, "Infinity").is_err());
}

/// A small generator (xorshift), so that each run sees the same bytes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that are mostly the characters that parsers look for.
    fn bytes(&mut self) -> Vec<u8> {
        const TELLING: &[u8] = b"\\\n\r\t\x0c =:#!u0aF,.*-+PTDHMS[]{}\"'@/_1";
        let len = (self.next() % 64) as usize;
        (0..len)
            .map(|_| {
                let n = self.next();
                if n.is_multiple_of(8) { (n >> 8) as u8 } else { TELLING[(n >> 8) as usize % TELLING.len()] }
            })
            .collect()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn properties_agree_with_java() {
    let own = include_str!("testdata/properties.tsv").to_owned();
    let more =
        std::env::var_os("PROPERTIES_TSV").map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default();
    for line in own.lines().chain(more.lines()).filter(|l| !l.starts_with('#')) {
        let (bytes, expected) = line.split_once('\t').unwrap();
        let ours = properties::parse_properties(&unhex(bytes)).ok();
        let ours: Option<ConfigMap> = ours.map(|all| all.into_iter().map(|p| (p.key, p.value)).collect());
        let text = |hex: &str| String::from_utf8(unhex(hex)).unwrap();
        let expected: Option<ConfigMap> = (expected != "error").then(|| {
            let pairs = expected.split(' ').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap());
            pairs.map(|(k, v)| (text(k), text(v))).collect()
        });
        let known = |map: Option<ConfigMap>| {
            map.map(|mut map| {
                map.retain(|k, _| !k.is_empty());
                map
            })
        };
        assert_eq!(known(ours), known(expected), "{:?}", String::from_utf8_lossy(&unhex(bytes)));
    }
}

#[test]
fn no_input_makes_a_parser_panic() {
    let mut noise = Noise(42);
    let keys: Vec<&ConfigKey> = table::all().collect();
    for i in 0..5_000 {
        let bytes = noise.bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let key = keys[i % keys.len()];
        if let Ok(value) = parse(key, &text) {
            // What is shown is what is read again.
            let shown = value.text().unwrap();
            assert_eq!(parse(key, &shown), Ok(value.clone()), "{} {text:?}", key.name);
            assert_ne!(value, Value::Null);
        }
        let _ = Settings::new().add_toml(std::path::Path::new("x.toml"), &bytes);
        let _ = parse_client_match(&text);
        let _ = parse_iso_duration_ms(&text);
        let mut settings = Settings::new();
        let _ = settings.add_override(&text);
        settings.add_environment([(format!("KAFKA_{text}"), text.clone())]);
        settings.set(key.name, text.clone(), Place::Flag);
        if i % 20 != 0 {
            continue; // What follows reads the whole table.
        }
        let _ = ServerConfig::load(&settings);
        let overrides = map(&[(key.name, &text)]);
        let _ = validate_topic_configs(&overrides, &server_log());
        let statics = settings.to_map();
        let layers = Layers { static_config: &statics, dynamic_default: &overrides, dynamic_broker: &overrides };
        let _ = (describe_broker(&layers), describe_topic(&layers, &overrides), describe_broker_defaults(&layers));
    }
}

/// Made once: the loop above is long.
fn server_log() -> LogConfigValues {
    static LOG: std::sync::LazyLock<LogConfigValues> = std::sync::LazyLock::new(|| server().log);
    LOG.clone()
}
