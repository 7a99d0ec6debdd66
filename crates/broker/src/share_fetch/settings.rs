//! A share group's settings: its own, the broker's where it has none. Answers to Kafka's `ShareGroupConfigProvider`.

use taccola_base::config::{ConfigMap, ShareGroupConfig, parse_iso_duration_ms};
use taccola_coord::share_partition::ShareLimits;
use taccola_log::TimestampQuery;
use taccola_meta::image::config::{ConfigResource, ConfigResourceType};

use crate::broker::Broker;
use crate::partition::FetchIsolation;

/// The settings of one share group at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareGroupSettings {
    pub limits: ShareLimits,
    pub isolation: FetchIsolation,
    pub offset_reset: OffsetReset,
}

/// `share.auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    Latest,
    Earliest,
    /// Records that are at most this old. Milliseconds.
    ByDuration(i64),
}

impl OffsetReset {
    fn parse(value: &str) -> Option<Self> {
        match value {
            "latest" => Some(OffsetReset::Latest),
            "earliest" => Some(OffsetReset::Earliest),
            other => other.strip_prefix("by_duration:").and_then(parse_iso_duration_ms).map(OffsetReset::ByDuration),
        }
    }

    pub fn query(self, now_ms: i64) -> TimestampQuery {
        match self {
            OffsetReset::Latest => TimestampQuery::Latest,
            OffsetReset::Earliest => TimestampQuery::Earliest,
            OffsetReset::ByDuration(ms) => TimestampQuery::At(now_ms.saturating_sub(ms).max(0)),
        }
    }
}

impl ShareGroupSettings {
    pub fn of(broker: &Broker, group: &str) -> Self {
        let image = broker.image();
        let own = image.configs.of(&ConfigResource::new(ConfigResourceType::Group, group)).cloned();
        let dynamic = broker.dynamic_config();
        Self::new(&dynamic.groups.share, own.as_deref().unwrap_or(&ConfigMap::new()))
    }

    /// A group's number counts within the broker's bounds.
    fn new(broker: &ShareGroupConfig, own: &ConfigMap) -> Self {
        let number = |key: &str, default: i32, min: i32, max: i32| {
            own.get(key).and_then(|value| value.trim().parse().ok()).map_or(default, |n: i32| n.max(min).min(max))
        };
        let max_delivery_count = number(
            "share.delivery.count.limit",
            broker.delivery_count_limit,
            broker.min_delivery_count_limit,
            broker.max_delivery_count_limit,
        );
        let limits = ShareLimits {
            max_in_flight_records: number(
                "share.partition.max.record.locks",
                broker.partition_max_record_locks,
                broker.min_partition_max_record_locks,
                broker.max_partition_max_record_locks,
            ),
            max_delivery_count: i16::try_from(max_delivery_count).unwrap_or(i16::MAX),
            record_lock_duration_ms: number(
                "share.record.lock.duration.ms",
                broker.record_lock_duration_ms,
                broker.min_record_lock_duration_ms,
                broker.max_record_lock_duration_ms,
            ),
            renewals: own.get("share.renew.acknowledge.enable").is_none_or(|value| value.trim() != "false"),
        };
        let committed = own.get("share.isolation.level").is_some_and(|level| level == "read_committed");
        let reset = own.get("share.auto.offset.reset").and_then(|value| OffsetReset::parse(value));
        Self {
            limits,
            isolation: if committed { FetchIsolation::TxnCommitted } else { FetchIsolation::HighWatermark },
            offset_reset: reset.unwrap_or(OffsetReset::Latest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_own_settings_count_within_the_brokers_bounds() {
        let settings = taccola_base::config::Settings::default();
        let config = taccola_base::config::ServerConfig::load(&settings).unwrap().config.groups.share;
        let none = ShareGroupSettings::new(&config, &ConfigMap::new());
        assert_eq!(none.limits.max_delivery_count, 5);
        assert_eq!(none.limits.max_in_flight_records, 2000);
        assert_eq!(none.limits.record_lock_duration_ms, 30_000);
        assert_eq!((none.isolation, none.offset_reset), (FetchIsolation::HighWatermark, OffsetReset::Latest));
        let own = [
            ("share.delivery.count.limit", "99"),
            ("share.record.lock.duration.ms", "15000"),
            ("share.isolation.level", "read_committed"),
            ("share.auto.offset.reset", "by_duration:PT1H"),
            ("share.renew.acknowledge.enable", "false"),
        ];
        let own: ConfigMap = own.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let own = ShareGroupSettings::new(&config, &own);
        assert_eq!((own.limits.max_delivery_count, own.limits.record_lock_duration_ms), (10, 15_000));
        assert_eq!(own.isolation, FetchIsolation::TxnCommitted);
        assert_eq!(own.offset_reset.query(3_600_001), TimestampQuery::At(1));
        assert!(!own.limits.renewals && none.limits.renewals);
    }
}
