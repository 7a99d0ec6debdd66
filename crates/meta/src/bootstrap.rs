//! What a new directory starts with: `bootstrap.checkpoint`, and the first snapshot of a dynamic quorum.
//!
//! The records finalize the feature levels that `kafka-storage format` 4.3.1 finalizes, not fewer: a JVM Kafka that takes
//! the directory over then runs with its own defaults, and levels can be raised, but hardly be lowered, later. What clients
//! are told is another matter; see [`crate::feature`]. Answers to `BootstrapDirectory`, `BootstrapMetadata`, `Formatter`.

use bytes::Bytes;
use taccola_wire::messages::FeatureLevelRecord;

use crate::error::MetaError;
use crate::feature::{KAFKA_FEATURES, METADATA_VERSION, METADATA_VERSION_MAX};
use crate::loader::QuorumFacts;
use crate::record::VersionedRecord;
use crate::snapshot::{Snapshot, SnapshotId};
use crate::voters::StandaloneVoter;

/// In every log directory.
pub const FILE_NAME: &str = "bootstrap.checkpoint";
/// Longest file that is read, in bytes, inclusive.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The records that the first leader of a cluster writes into its empty log.
#[derive(Debug, Clone, PartialEq)]
pub struct BootstrapMetadata {
    pub records: Vec<VersionedRecord>,
}

impl Default for BootstrapMetadata {
    /// metadata.version first, the others by name.
    fn default() -> Self {
        let level = |name: &str, level: i16| {
            VersionedRecord::new(FeatureLevelRecord { name: name.to_owned(), feature_level: level }, 0)
        };
        let others = KAFKA_FEATURES.iter().filter(|f| f.name != METADATA_VERSION);
        let mut records = vec![level(METADATA_VERSION, METADATA_VERSION_MAX)];
        records.extend(others.filter_map(|f| Some(level(f.name, f.default?))));
        Self { records }
    }
}

impl BootstrapMetadata {
    /// The bytes of `bootstrap.checkpoint`.
    pub fn encode(&self, now_ms: i64) -> Result<Bytes, MetaError> {
        let quorum = QuorumFacts::default();
        Snapshot { id: BOOTSTRAP_ID, last_contained_log_time_ms: 0, quorum, records: self.records.clone() }
            .encode(now_ms)
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, MetaError> {
        Ok(Self { records: Snapshot::decode(BOOTSTRAP_ID, bytes)?.records })
    }
}

/// The state before any record.
pub const BOOTSTRAP_ID: SnapshotId = SnapshotId { end_offset: 0, epoch: 0 };

/// The first snapshot of a dynamic quorum of one (`kafka-storage format --standalone`), to be written as
/// [`BOOTSTRAP_ID`]'s file into the folder of the metadata log. A static quorum has none.
pub fn standalone_snapshot(voter: &StandaloneVoter) -> Snapshot {
    let quorum = QuorumFacts { kraft_version: 1, voters: Some(voter.record()), only_in_first_snapshot: true };
    Snapshot { id: BOOTSTRAP_ID, last_contained_log_time_ms: 0, quorum, records: Vec::new() }
}

/// `partition.metadata` in the folder of the metadata log.
pub const METADATA_PARTITION_METADATA: &str = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
