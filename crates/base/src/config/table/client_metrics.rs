//! Subscriptions to metrics of clients. Kafka: `ClientMetricsConfigs`.

use super::super::key::{ConfigKey, client_metrics_key};

#[rustfmt::skip]
pub(super) static KEYS: &[ConfigKey] = &[
    client_metrics_key("interval.ms").int(300_000).ms().medium().accepted()
        .doc("How often matching clients push their metrics."),
    client_metrics_key("match").list("").medium().accepted()
        .doc("Which clients are meant, as name=regular expression pairs; empty: all."),
    client_metrics_key("metrics").list("").medium().accepted()
        .doc("Prefixes of the metrics that clients push, or * for all."),
];
