//! Which log directory of a broker holds a replica, and directories that fail. Answers to
//! `ReplicationControlManager.handleAssignReplicasToDirs` and `handleDirectoriesOffline` (KIP-858).

use taccola_base::Uuid;
use taccola_wire::messages::{BrokerRegistrationChangeRecord, PartitionChangeRecord};

use super::broker::{Move, about, registered};
use super::{ApiError, Controller, Outcome};
use crate::image::{MetadataImage, NO_LEADER_CHANGE};
use crate::record::VersionedRecord;

/// A replica of the broker, and where it really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaPlace {
    pub topic_id: Uuid,
    pub partition: i32,
    pub directory: Uuid,
}

impl Controller {
    /// Notes where the broker's replicas are; what is known already, or not a replica of the broker, changes nothing.
    pub fn assign_directories(&self, image: &MetadataImage, broker: i32, places: &[ReplicaPlace]) -> Outcome<()> {
        let version = image.metadata_version();
        if !version.has_directories() {
            return Outcome { records: Vec::new(), atomic: false, response: () };
        }
        let change = |place: &ReplicaPlace| {
            let partition = image.topics.by_id(place.topic_id)?.partition(place.partition)?;
            let at = partition.replicas.iter().position(|replica| *replica == broker)?;
            let mut directories = partition.directories.clone();
            let slot = directories.get_mut(at).filter(|known| **known != place.directory)?;
            *slot = place.directory;
            let record = PartitionChangeRecord {
                partition_id: place.partition,
                topic_id: place.topic_id,
                leader: NO_LEADER_CHANGE,
                directories: Some(directories),
                ..Default::default()
            };
            Some(VersionedRecord::new(record, version.partition_record_version()))
        };
        Outcome { records: places.iter().filter_map(change).collect(), atomic: false, response: () }
    }

    /// Directories of a broker failed: what it led there has no leader, and it has left those ISRs. Directories that it
    /// does not have any more change nothing.
    pub fn directories_offline(
        &self,
        image: &MetadataImage,
        broker: i32,
        failed: &[Uuid],
    ) -> Result<Outcome<()>, ApiError> {
        let registration = registered(image, broker)?;
        let (lost, left): (Vec<Uuid>, Vec<Uuid>) =
            registration.log_dirs.iter().copied().partition(|dir| failed.contains(dir));
        let mut records = Vec::new();
        if !lost.is_empty() {
            let leaving = Move { remove: Some(broker), ..Move::default() };
            let there = |partition: &crate::image::PartitionRegistration| {
                partition.directory(broker).is_some_and(|dir| lost.contains(&dir))
            };
            self.elect(image, leaving, there, &mut records);
            let change = BrokerRegistrationChangeRecord { log_dirs: left, ..about(registration) };
            records.push(VersionedRecord::new(change, 2));
        }
        Ok(Outcome::atomic(records, ()))
    }
}
