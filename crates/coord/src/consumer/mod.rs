//! Consumer groups (KIP-848): the coordinator assigns partitions, members reconcile through heartbeats. Answers to
//! Kafka's `ConsumerGroup` and the consumer half of `GroupMetadataManager`.

use std::sync::Arc;

/// A record of a consumer group, decoded.
#[derive(Debug)]
pub(crate) enum GroupRecord {}

impl GroupRecord {
    pub(crate) fn group(&self) -> &Arc<str> {
        match *self {}
    }
}
