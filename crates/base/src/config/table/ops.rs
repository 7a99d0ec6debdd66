//! Quotas, metrics, telemetry. Kafka: `QuotaConfig`, `MetricConfigs`.

use super::super::key::ConfigType::Class;
use super::super::key::{ConfigKey, key};
use super::reasons;

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    key("client.quota.callback.class").of(Class).low().refused(reasons::PLUGIN)
        .doc("A Java class that decides on client quotas."),
    key("config.providers").list("").low().cluster_wide().refused(reasons::PROVIDERS)
        .doc("Java classes that fetch values from elsewhere."),
    key("kafka.metrics.polling.interval.secs").int(10).seconds().min(1).low().accepted()
        .doc("How often Kafka's own metric reporters are called."),
    key("kafka.metrics.reporters").list("").low().refused(reasons::PLUGIN)
        .doc("Java classes that report Kafka's older metrics."),
    key("metric.reporters").list("org.apache.kafka.common.metrics.JmxReporter").low().cluster_wide()
        .refused(reasons::PLUGIN)
        .doc("Java classes that report metrics; the default JMX reporter has no counterpart here."),
    key("metrics.num.samples").int(2).min(1).low().accepted()
        .doc("Samples that Kafka keeps for each windowed metric."),
    key("metrics.recording.level").string("INFO").low().accepted()
        .doc("How detailed the metrics are that Kafka keeps."),
    key("metrics.sample.window.ms").long(30_000).ms().min(1).low().accepted()
        .doc("Length of one sample of Kafka's windowed metrics."),
    key("alter.log.dirs.replication.quota.window.num").int(11).min(1).low().accepted()
        .doc("Windows over which the rate of moves between log directories is averaged."),
    key("alter.log.dirs.replication.quota.window.size.seconds").int(1).seconds().min(1).low().accepted()
        .doc("Length of one such window."),
    key("quota.window.num").int(11).min(1).low().accepted()
        .doc("Windows over which client quotas are averaged."),
    key("quota.window.size.seconds").int(1).seconds().min(1).low().accepted()
        .doc("Length of one such window."),
    key("replication.quota.window.num").int(11).min(1).low().accepted()
        .doc("Windows over which replication quotas are averaged."),
    key("replication.quota.window.size.seconds").int(1).seconds().min(1).low().accepted()
        .doc("Length of one such window."),
    key("telemetry.max.bytes").int(1_048_576).bytes().min(1).low().accepted()
        .doc("Largest metrics report that a client may push."),
];
