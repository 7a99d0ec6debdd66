//! Administration: topics, configs, groups, offsets, transactions, ACLs, features, the cluster. Answers to `KafkaAdminClient`.
//!
//! Each operation goes where Kafka expects it: to any broker (which forwards to the controller), to a partition's leader,
//! to the coordinator of a group or transactional id, or to the broker that a config belongs to. Operations on several things return one result per
//! thing; an error of the whole request is the operation's own.

mod acls;
mod cluster;
mod configs;
mod describe_groups;
mod features;
mod groups;
mod offsets;
mod share_offsets;
mod topics;
mod transactions;

pub use acls::AclBinding;
pub use cluster::{ClusterDescription, LogDir, LogDirPartition, Node};
pub use configs::{ConfigEntry, ConfigOp, ConfigResource, ConfigSource, ConfigSynonym, ResourceType};
pub use describe_groups::{GroupDescription, GroupMember, Subtopology, Task, TaskKind, Topology};
pub use features::{FeatureUpdate, UpgradeType};
pub use groups::{CommittedOffset, Group};
pub use offsets::{ListedOffset, OffsetSpec};
pub use share_offsets::ShareOffset;
pub use topics::{CreatedTopic, NewTopic};
pub use transactions::{
    AbortTransaction, ProducerState, TransactionDescription, TransactionFilter, TransactionListing,
};

use crate::cluster::Client;
use crate::error::Result;

/// What became of each thing that was named, in the order of the broker's answer.
pub type Outcomes<T> = Vec<(String, Result<T>)>;

#[derive(Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The time that a broker is given for an operation, as the requests carry it.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

/// Whether every outcome failed in a way that may pass, so that the whole request is worth another attempt.
fn all_retriable<T>(outcomes: &[(String, Result<T>)]) -> bool {
    !outcomes.is_empty() && outcomes.iter().all(|(_, outcome)| matches!(outcome, Err(error) if error.retriable()))
}

/// Turns outcomes into an error when another attempt may help; see [`all_retriable`].
fn settled<T>(mut outcomes: Outcomes<T>) -> Result<Outcomes<T>> {
    if all_retriable(&outcomes)
        && let Some((_, Err(error))) = outcomes.pop()
    {
        return Err(error);
    }
    Ok(outcomes)
}
