//! The table against Apache Kafka's, and DescribeConfigs against a broker's answer.

use super::key::{DefaultValue, Importance, Origin, Status};
use super::*;
use std::collections::{BTreeMap, BTreeSet};

const KAFKA: &str = include_str!("testdata/kafka-4.3.1.tsv");
const DESCRIBED: &str = include_str!("testdata/describe-4.3.1.tsv");

fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect())
}

fn importance(key: &ConfigKey) -> &'static str {
    match key.importance {
        Importance::High => "high",
        Importance::Medium => "medium",
        Importance::Low => "low",
    }
}

/// A row as the file of Kafka's keys has it.
fn row(key: &ConfigKey) -> String {
    let default = match key.default {
        DefaultValue::Required => "(required)".to_owned(),
        other => other.text().unwrap_or_else(|| "null".to_owned()),
    };
    let mut mode = match key.scope {
        Scope::Broker if key.is_read_only() => String::new(),
        Scope::Broker => key.update.name().to_owned(),
        _ => key.synonyms.join(","),
    };
    if key.origin == Origin::KafkaInternal {
        mode.push_str("internal");
    }
    [key.scope.name(), key.name, key.kind.name(), &default, importance(key), &mode].join("\t")
}

#[test]
fn every_key_of_kafka_is_in_the_table() {
    let ours: BTreeSet<String> =
        table::all().filter(|k| matches!(k.origin, Origin::Kafka | Origin::KafkaInternal)).map(row).collect();
    let theirs: BTreeSet<String> = rows(KAFKA).map(|r| r.join("\t")).collect();
    assert_eq!(theirs.len(), 414);
    let difference: Vec<_> = ours.symmetric_difference(&theirs).collect();
    assert!(difference.is_empty(), "{difference:#?}");
}

#[test]
fn the_table_is_sound() {
    let mut seen = BTreeSet::new();
    for key in table::all() {
        assert!(seen.insert((key.scope, key.name)), "{} twice", key.name);
        assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{}: {}", key.name, key.doc);
        for synonym in key.synonyms {
            assert!(table::find(Scope::Broker, synonym).is_some(), "{} names {synonym}", key.name);
        }
        if let DefaultValue::Text(text) = key.default {
            assert!(value::parse(&ConfigKey { valid: key::Valid::Any, ..*key }, text).is_ok(), "{}", key.name);
        }
        let ours = key.name.starts_with("taccola.");
        assert_eq!(ours, key.origin == Origin::Taccola, "{}", key.name);
    }
    for removed in table::REMOVED {
        assert!(table::find(Scope::Broker, removed.name).is_none(), "{}", removed.name);
    }
    // A refusal must leave the default standing.
    let refused = table::all().filter(|k| matches!(k.status, Status::Refused { .. })).count();
    assert!(refused > 30, "{refused}");
}

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// What the broker behind `describe-4.3.1.tsv` was started with.
fn started() -> ConfigMap {
    map(&[
        ("process.roles", "broker,controller"),
        ("node.id", "0"),
        ("broker.id", "0"),
        ("controller.quorum.voters", "0@127.0.0.1:20001"),
        ("listeners", "PLAINTEXT://127.0.0.1:20000,CONTROLLER://127.0.0.1:20001"),
        ("advertised.listeners", "PLAINTEXT://127.0.0.1:20000"),
        ("controller.listener.names", "CONTROLLER"),
        ("log.dirs", "/data/data"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("log.retention.hours", "1"),
        ("log.retention.minutes", "30"),
        ("log.roll.hours", "2"),
        ("log.flush.scheduler.interval.ms", "1000"),
        ("listener.name.plaintext.ssl.keystore.location", "/x"),
        ("listener.name.plaintext.max.connections", "77"),
        ("unknown.key", "foo"),
        ("ssl.keystore.password", "secret"),
        ("allow.everyone.if.no.acl.found", "true"),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:a"),
        ("unstable.api.versions.enable", "true"),
        ("log.cleaner.min.cleanable.ratio", "0.50"),
        ("log.cleaner.io.max.bytes.per.second", "1e4"),
        ("log.initial.task.delay.ms", "500"),
        ("sasl.enabled.mechanisms", "PLAIN, SCRAM-SHA-256"),
        ("controlled.shutdown.enable", "FALSE"),
        ("log.roll.jitter.hours", "1"),
        ("log.cleanup.policy", "compact"),
        ("group.share.min.record.lock.duration.ms", "1000"),
        ("metadata.max.idle.interval.ms", "501"),
    ])
}

fn line(e: &ConfigEntry) -> String {
    let null = |v: &Option<String>| v.clone().unwrap_or_else(|| "null".to_owned());
    let synonyms: Vec<String> =
        e.synonyms.iter().map(|s| format!("{}:{}={}", s.source.name(), s.name, null(&s.value))).collect();
    let flags = format!("{}{}", if e.is_sensitive { "S" } else { "-" }, if e.is_read_only { "R" } else { "-" });
    let kind = e.kind.map_or_else(|| "UNKNOWN".to_owned(), |k| k.name().to_uppercase());
    format!("{}\t{}\t{}\t{flags}\t{kind}\t{}", e.name, null(&e.value), e.source.name(), synonyms.join("|"))
}

/// What Kafka shows for a key of which nothing is set.
fn plain(name: &str, kind: &str, default: &str, mode: &str) -> String {
    let flags = format!("{}{}", if kind == "password" { "S" } else { "-" }, if mode.is_empty() { "R" } else { "-" });
    let synonym = if default == "null" { String::new() } else { format!("DEFAULT_CONFIG:{name}={default}") };
    format!("{name}\t{default}\tDEFAULT_CONFIG\t{flags}\t{}\t{synonym}", kind.to_uppercase())
}

#[test]
fn describe_answers_as_kafka_does() {
    let (static_config, broker) = (started(), ConfigMap::new());
    let dynamic_default = map(&[("min.insync.replicas", "1")]);
    let layers = Layers { static_config: &static_config, dynamic_default: &dynamic_default, dynamic_broker: &broker };
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut special = BTreeSet::new();
    for r in rows(DESCRIBED) {
        let [kind, entity, name, ..] = r[..] else { panic!("{r:?}") };
        expected.entry(format!("{kind}/{entity}")).or_default().push(r[2..].join("\t"));
        special.insert((kind, name));
    }
    for r in rows(KAFKA).filter(|r| r[0] == "broker" && r[5] != "internal" && !special.contains(&("BROKER", r[1]))) {
        expected.entry("BROKER/0".to_owned()).or_default().push(plain(r[1], r[2], r[3], r[5]));
    }
    let topic = map(&[("segment.ms", "99999")]);
    for (resource, entries) in [
        ("BROKER/0", describe_broker(&layers)),
        ("BROKER/", describe_broker_defaults(&layers)),
        ("TOPIC/t", describe_topic(&layers, &topic)),
        ("GROUP/g", describe_group(&layers, &broker)),
        ("CLIENT_METRICS/m", describe_client_metrics(&broker)),
    ] {
        let ours: BTreeSet<String> = entries.iter().filter(|e| !e.name.starts_with("taccola.")).map(line).collect();
        let theirs: BTreeSet<String> = expected.remove(resource).unwrap().into_iter().collect();
        let difference: Vec<_> = ours.symmetric_difference(&theirs).collect();
        assert!(difference.is_empty(), "{resource}: {difference:#?}");
        assert!(entries.iter().all(|e| e.doc.is_some() || e.name == "unknown.key"));
    }
    assert!(expected.is_empty(), "{expected:?}");
}

#[test]
fn overrides_come_first_in_describe() {
    let (static_config, broker) = (ConfigMap::new(), ConfigMap::new());
    let dynamic_default = map(&[("message.max.bytes", "2000000")]);
    let layers = Layers { static_config: &static_config, dynamic_default: &dynamic_default, dynamic_broker: &broker };
    let find = |entries: Vec<ConfigEntry>, name: &str| line(entries.iter().find(|e| e.name == name).unwrap());
    let topic = map(&[("retention.ms", "12345"), ("cleanup.policy", "compact, delete")]);
    assert_eq!(
        find(describe_topic(&layers, &topic), "cleanup.policy"),
        "cleanup.policy\tcompact,delete\tDYNAMIC_TOPIC_CONFIG\t--\tLIST\t\
         DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete|DEFAULT_CONFIG:log.cleanup.policy=delete"
    );
    assert_eq!(
        find(describe_topic(&layers, &topic), "retention.ms"),
        "retention.ms\t12345\tDYNAMIC_TOPIC_CONFIG\t--\tLONG\tDYNAMIC_TOPIC_CONFIG:retention.ms=12345"
    );
    assert_eq!(
        find(describe_topic(&layers, &topic), "max.message.bytes"),
        "max.message.bytes\t2000000\tDYNAMIC_DEFAULT_BROKER_CONFIG\t--\tINT\t\
         DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=2000000|DEFAULT_CONFIG:message.max.bytes=1048588"
    );
    assert_eq!(
        find(describe_group(&layers, &map(&[("consumer.session.timeout.ms", "50000")])), "consumer.session.timeout.ms"),
        "consumer.session.timeout.ms\t50000\tDYNAMIC_GROUP_CONFIG\t--\tINT\t\
         DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000|DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000"
    );
    assert_eq!(
        find(describe_client_metrics(&map(&[("metrics", "a,b")])), "metrics"),
        "metrics\ta,b\tDYNAMIC_CLIENT_METRICS_CONFIG\t--\tLIST\tDYNAMIC_CLIENT_METRICS_CONFIG:metrics=a,b"
    );
    assert_eq!(describe_broker_defaults(&layers).len(), 1);
    let none = ConfigMap::new();
    let bare = Layers { static_config: &none, dynamic_default: &none, dynamic_broker: &none };
    assert_eq!(find(describe_broker(&bare), "node.id"), "node.id\t1\tDEFAULT_CONFIG\t-R\tINT\t");
}
