//! What can be set for one group by name, within the broker's bounds. Answers to Kafka's `GroupConfigManager`.

use crate::cluster_image::ClusterImage;

/// A number that the group's own settings may override, kept within the broker's bounds (inclusive), which may be newer
/// than the group's setting.
pub(crate) fn of_group(image: &dyn ClusterImage, group: &str, key: &str, default: i32, min: i32, max: i32) -> i32 {
    let own = image.group_config(group).and_then(|map| map.get(key).and_then(|value| value.trim().parse::<i32>().ok()));
    own.map_or(default, |value| value.min(max).max(min))
}
