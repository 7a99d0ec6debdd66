//! Topic names and partitions. Answers to Kafka's `Topic` (name rules) and `TopicPartition`.

use std::fmt;
use std::sync::Arc;

/// Longest topic name in bytes, inclusive: a partition's folder name must still fit a file system's 255.
pub const TOPIC_NAME_LEN_MAX: usize = 249;

/// Topics that the broker itself writes; clients may not produce to them and auto-creation follows their own settings.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
pub const SHARE_GROUP_STATE_TOPIC: &str = "__share_group_state";
/// Topics that tiered storage itself, or the broker, needs at hand stay on the local disk whatever their settings say.
pub fn may_be_tiered(topic: &str) -> bool {
    !is_internal(topic) && !matches!(topic, REMOTE_LOG_METADATA_TOPIC | CLUSTER_METADATA_TOPIC)
}

/// Not internal in Kafka's sense: clients may write to it if they are let.
pub const REMOTE_LOG_METADATA_TOPIC: &str = "__remote_log_metadata";
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether Kafka counts the topic as internal (`Topic.isInternal`).
pub fn is_internal(topic: &str) -> bool {
    matches!(topic, GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC | SHARE_GROUP_STATE_TOPIC)
}

/// Why a topic name is refused, in words for a client; `Ok` when the name is legal (`Topic.validate`).
pub fn validate_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the topic name is empty".to_owned());
    }
    if name == "." || name == ".." {
        return Err(format!("the topic name cannot be '{name}'"));
    }
    if name.len() > TOPIC_NAME_LEN_MAX {
        return Err(format!("the topic name is {} bytes long, more than {TOPIC_NAME_LEN_MAX}", name.len()));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(c) => Err(format!("the topic name holds {c:?}; only ASCII letters, digits, '.', '_' and '-' are allowed")),
        None => Ok(()),
    }
}

/// One partition of a topic. Displays as the folder name `topic-partition`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// A borrowed [`TopicPartition`], for lookups without an allocation.
pub type TopicPartitionRef<'a> = (&'a str, i32);

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The partition that a folder name stands for, or `None` when it is no partition's folder name.
    pub fn from_dir_name(name: &str) -> Option<Self> {
        let (topic, partition) = name.rsplit_once('-')?;
        let digits_only = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
        if !digits_only || validate_topic_name(topic).is_err() {
            return None;
        }
        Some(Self::new(topic, partition.parse().ok()?))
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dir_name_is_split_at_the_last_dash() {
        assert_eq!(TopicPartition::from_dir_name("a-b-12"), Some(TopicPartition::new("a-b", 12)));
        assert_eq!(TopicPartition::new("a-b", 12).to_string(), "a-b-12");
        for bad in ["a", "a-", "-1", "a-+1", "a-x", "a-99999999999"] {
            assert_eq!(TopicPartition::from_dir_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn topic_names() {
        assert!(validate_topic_name("A.b_c-9").is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "ü", &"x".repeat(250)] {
            assert!(validate_topic_name(bad).is_err(), "{bad:?}");
        }
        assert!(validate_topic_name(&"x".repeat(249)).is_ok());
    }
}
