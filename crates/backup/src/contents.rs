//! What a manifest says about the cluster: topics with their partitions and extents, groups, configs, ACLs, and what is
//! not there and why. Sealed together with the manifest.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    pub cluster_id: Option<String>,
    pub cut: Cut,
    /// Sorted by name.
    pub topics: Vec<Topic>,
    /// Sorted by id.
    pub groups: Vec<Group>,
    /// Dynamic configs of brokers.
    pub brokers: Vec<BrokerConfigs>,
    pub acls: Acls,
    /// What whoever restores should know: gaps, topics that were taken in full, what the cluster refused.
    pub notes: Vec<String>,
}

/// Which records are visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Up to the last stable offset, without aborted transactions.
    #[default]
    ReadCommitted,
    /// Up to the high watermark, with records of transactions that were aborted or are open.
    ReadUncommitted,
}

impl Isolation {
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// The moment that a backup stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    pub isolation: Isolation,
    /// Every partition's end was read between these two times (milliseconds, the backup's clock).
    pub begun_ms: i64,
    pub ended_ms: i64,
    /// Two readings of all ends one after the other were equal: all of them held at one moment.
    pub instant: bool,
    /// Transactions whose end was being written when the ends were read, so that some partitions may have them and others
    /// not. Empty when none was seen.
    pub transactions_in_doubt: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    pub name: String,
    /// The nil id when the brokers are too old for ids.
    pub id: String,
    pub replication_factor: i16,
    /// Set for this topic, sorted.
    pub configs: Vec<(String, String)>,
    /// Records before this backup's are in the parent.
    pub incremental: bool,
    /// Indexes 0 and up, without gaps.
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub index: i32,
    /// First offset of the log at the cut: what the parents hold below it is no longer part of the topic.
    pub log_start: i64,
    /// First offset that this backup holds itself: the parent's `cut`, or the start of the log.
    pub from: i64,
    /// Exclusive: first offset that is not part of the backup.
    pub cut: i64,
    pub leader_epoch: i32,
    /// In order of offsets.
    pub extents: Vec<Extent>,
}

/// A run of batches of one partition in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Its number among the identity's objects.
    pub object: u32,
    /// First byte in the object's plain contents.
    pub at: u64,
    pub bytes: u64,
    /// Base offset of the first batch.
    pub first: i64,
    /// Last offset of the last batch, inclusive.
    pub last: i64,
    pub batches: u64,
    pub records: u64,
}

impl Partition {
    pub fn records(&self) -> u64 {
        self.extents.iter().map(|extent| extent.records).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.bytes).sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub id: String,
    /// `classic`, `consumer`, `share`, `streams`; empty when the broker is too old to tell.
    pub kind: String,
    pub protocol_type: String,
    /// Sorted by topic and partition. Those of a share group are the first offsets that it may still deliver.
    pub offsets: Vec<GroupOffset>,
    /// Set for this group, sorted.
    pub configs: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOffset {
    pub topic: String,
    pub partition: i32,
    /// Never beyond the partition's cut.
    pub offset: i64,
    pub metadata: String,
    /// What the group had committed, where that was beyond the cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfigs {
    /// `None`: the default of all brokers.
    pub broker: Option<i32>,
    pub configs: Vec<(String, String)>,
}

/// Either all ACLs, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acls {
    Taken(Vec<Acl>),
    /// The cluster does not serve them, or does not let this principal see them.
    NotTaken(String),
}

impl Default for Acls {
    fn default() -> Self {
        Self::NotTaken("not asked for".to_owned())
    }
}

/// One access control entry, in the protocol's codes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    pub resource_type: i8,
    pub resource_name: String,
    pub pattern_type: i8,
    pub principal: String,
    pub host: String,
    pub operation: i8,
    pub permission: i8,
}
