//! Brokers and controllers come and go: registration, fencing, controlled shutdown, and the elections that follow.
//! Answers to `ClusterControlManager` and the broker handlers of `ReplicationControlManager`.
//!
//! One node on its own runs through the same steps as in a cluster, so that its log is what a JVM's would be:
//! * start: [`Controller::register_controller`], [`Controller::register_broker`], [`Controller::unfence_broker`], which
//!   elects leaders: every start has new leader epochs. A registration from before that still counts as live, because the
//!   node was killed, is fenced on the way, as a cluster does when the session runs out;
//! * orderly stop: [`Controller::controlled_shutdown`], then [`Controller::fence_broker`];
//! * a broker that will not come back: [`Controller::unregister_broker`].

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{BrokerRegistrationChangeRecord, UnregisterBrokerRecord};

use super::partition_change::{Assignment, Election};
use super::{ApiError, Controller, Outcome};
use crate::feature::{KAFKA_FEATURES, KRAFT_VERSION};
use crate::image::{BrokerRegistration, ControllerRegistration, Endpoint, MetadataImage, NO_LEADER, VersionRange};
use crate::record::VersionedRecord;
use crate::views::is_in_offline_dir;

/// What a broker tells when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSpec {
    pub id: i32,
    /// New with every start of the process.
    pub incarnation_id: Uuid,
    /// What clients and other brokers connect to: the advertised listeners, without the controller's.
    pub listeners: Vec<Endpoint>,
    pub rack: Option<String>,
    /// Ids of its log directories that are online, ascending.
    pub log_dirs: Vec<Uuid>,
}

/// How the broker's last run ended, as far as it matters for what its replicas hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviousShutdown {
    /// Every acknowledged record is on its disks: it stopped in order (`.kafka_cleanshutdown` names the last broker
    /// epoch), or acknowledgements wait for the disk.
    NothingLost,
    /// Acknowledged records may be missing: its replicas are no eligible leaders any more, and a partition that only it
    /// has is led by it again as after an unclean election.
    MayHaveLost,
}

/// Which broker is treated how by an election.
#[derive(Default, Clone, Copy)]
pub(super) struct Move {
    pub(super) remove: Option<i32>,
    pub(super) add: Option<i32>,
    pub(super) unclean: Option<i32>,
}

impl Controller {
    pub fn register_controller(&self, registration: &ControllerRegistration) -> Outcome<()> {
        Outcome::atomic(vec![registration.record()], ())
    }

    /// Registers a broker, fenced. The response is its epoch, which is `next_offset`: the log's end, where the first of
    /// these records will stand.
    pub fn register_broker(
        &self,
        image: &MetadataImage,
        spec: &BrokerSpec,
        previous: PreviousShutdown,
        next_offset: i64,
    ) -> Result<Outcome<i64>, ApiError> {
        self.check_spec(image, spec)?;
        let known = image.cluster.brokers.get(&spec.id);
        let mut records = Vec::new();
        if let Some(known) = known.filter(|b| b.incarnation_id != spec.incarnation_id) {
            let id = spec.id;
            if previous == PreviousShutdown::MayHaveLost && image.elr_enabled() {
                let unclean = Move { unclean: Some(id), ..Move::default() };
                self.elect(image, unclean, |p| p.isr.contains(&id) || p.elr.contains(&id), &mut records);
            } else if !known.fenced {
                // It ended without a word: what it led gets a new leader epoch, even if it leads it again.
                let leaving = Move { remove: Some(id), ..Move::default() };
                self.elect(image, leaving, |p| p.isr.contains(&id), &mut records);
            }
        }
        let registration = BrokerRegistration {
            id: spec.id,
            epoch: next_offset,
            incarnation_id: spec.incarnation_id,
            listeners: spec.listeners.clone(),
            features: kafka_feature_ranges().collect(),
            rack: spec.rack.clone(),
            fenced: true,
            in_controlled_shutdown: false,
            is_migrating_zk_broker: false,
            log_dirs: spec.log_dirs.clone(),
            cordoned_log_dirs: None,
        };
        records.push(registration.record(image.metadata_version()));
        Ok(Outcome::atomic(records, next_offset))
    }

    fn check_spec(&self, image: &MetadataImage, spec: &BrokerSpec) -> Result<(), ApiError> {
        if spec.id < 0 {
            return Err(ApiError::new(ErrorCode::InvalidRequest, format!("broker id {} is negative", spec.id)));
        }
        let version = image.metadata_version();
        for (name, level) in image.features.finalized.iter() {
            let supported =
                kafka_feature_ranges().find(|(n, _)| n == name).map_or(VersionRange { min: 0, max: 0 }, |f| f.1);
            if !(supported.min..=supported.max).contains(level) {
                let message = format!(
                    "{name} is finalized at {level}; this release supports {} to {}",
                    supported.min, supported.max
                );
                return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
            }
        }
        if !version.has_directories() {
            return Ok(());
        }
        if spec.log_dirs.is_empty() {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "a broker must name its log directories"));
        }
        for other in image.cluster.brokers.values().filter(|b| b.id != spec.id) {
            if let Some(dir) = spec.log_dirs.iter().find(|d| other.log_dirs.contains(d)) {
                let message = format!("log directory {dir} is registered by broker {}", other.id);
                return Err(ApiError::new(ErrorCode::DuplicateBrokerRegistration, message));
            }
        }
        Ok(())
    }

    /// Lets a registered broker take part: it leads what has no leader and what it may lead. With it goes, once per
    /// registration, that no log directory is cordoned.
    pub fn unfence_broker(&self, image: &MetadataImage, id: i32) -> Result<Outcome<()>, ApiError> {
        let broker = registered(image, id)?;
        let mut records = Vec::new();
        if image.metadata_version().has_cordoned_dirs() && broker.cordoned_log_dirs.is_none() {
            let change = BrokerRegistrationChangeRecord { cordoned_log_dirs: Some(Vec::new()), ..about(broker) };
            records.push(VersionedRecord::new(change, 3));
        }
        if broker.fenced {
            records.push(VersionedRecord::new(BrokerRegistrationChangeRecord { fenced: -1, ..about(broker) }, 0));
            self.elect(image, Move { add: Some(id), ..Move::default() }, |p| p.leader == NO_LEADER, &mut records);
        }
        Ok(Outcome::atomic(records, ()))
    }

    /// First step of an orderly stop: the broker gives up what it leads and leaves the ISRs.
    pub fn controlled_shutdown(&self, image: &MetadataImage, id: i32) -> Result<Outcome<()>, ApiError> {
        let broker = registered(image, id)?;
        let mut records = Vec::new();
        if !broker.in_controlled_shutdown {
            let change = BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..about(broker) };
            records.push(VersionedRecord::new(change, 1));
        }
        let leaving = Move { remove: Some(id), ..Move::default() };
        self.elect(image, leaving, |p| p.isr.contains(&id), &mut records);
        Ok(Outcome::atomic(records, ()))
    }

    /// The broker takes no part any more.
    pub fn fence_broker(&self, image: &MetadataImage, id: i32) -> Result<Outcome<()>, ApiError> {
        let broker = registered(image, id)?;
        if broker.fenced {
            return Ok(Outcome::atomic(Vec::new(), ()));
        }
        let mut records = Vec::new();
        let leaving = Move { remove: Some(id), ..Move::default() };
        self.elect(image, leaving, |p| p.isr.contains(&id), &mut records);
        records.push(VersionedRecord::new(BrokerRegistrationChangeRecord { fenced: 1, ..about(broker) }, 0));
        Ok(Outcome::atomic(records, ()))
    }

    /// Forgets a broker for good: it leaves ISRs and gives up what it leads.
    pub fn unregister_broker(&self, image: &MetadataImage, id: i32) -> Result<Outcome<()>, ApiError> {
        let broker = registered(image, id)?;
        let mut records = Vec::new();
        let leaving = Move { remove: Some(id), ..Move::default() };
        self.elect(image, leaving, |p| p.isr.contains(&id) || p.elr.contains(&id), &mut records);
        let gone = UnregisterBrokerRecord { broker_id: id, broker_epoch: broker.epoch };
        records.push(VersionedRecord::new(gone, 0));
        Ok(Outcome::atomic(records, ()))
    }

    pub(super) fn check_broker_epoch(&self, image: &MetadataImage, id: i32, epoch: i64) -> Result<(), ApiError> {
        match image.cluster.brokers.get(&id) {
            Some(broker) if broker.epoch == epoch => Ok(()),
            _ => Err(ApiError::of(ErrorCode::StaleBrokerEpoch)),
        }
    }

    /// Changes the partitions that `concerned` picks (`generateLeaderAndIsrUpdates`).
    pub(super) fn elect(
        &self,
        image: &MetadataImage,
        change: Move,
        concerned: impl Fn(&crate::image::PartitionRegistration) -> bool,
        records: &mut Vec<VersionedRecord>,
    ) {
        let out = |r: i32| change.remove == Some(r) || change.unclean == Some(r);
        for topic in image.topics.iter() {
            for (id, partition) in topic.partitions.iter().filter(|(_, p)| concerned(p)) {
                let election = match self.unclean_election(image, &topic.name) {
                    true => Election::Unclean,
                    false => Election::Online,
                };
                let assignment = Assignment::of(partition);
                let mut builder = self.partition_change(image, topic, *id, partition, assignment, election);
                builder.target_isr.retain(|r| !out(*r));
                let acceptable = |r: i32| {
                    !out(r)
                        && (change.add == Some(r) || image.cluster.is_active(r))
                        && !is_in_offline_dir(image, partition, r)
                };
                builder.unclean_shutdown = change.unclean;
                records.extend(builder.build(acceptable, |r| default_dir(image, r)));
            }
        }
    }
}

/// The ranges that registrations name: Kafka's, so that a directory may hold Kafka's levels ([`crate::feature`]).
pub fn kafka_feature_ranges() -> impl Iterator<Item = (String, VersionRange)> {
    KAFKA_FEATURES.iter().map(|f| (f.name.to_owned(), VersionRange { min: f.min, max: f.max }))
}

/// Whether the feature stands in control records rather than in metadata records.
pub fn is_quorum_feature(name: &str) -> bool {
    name == KRAFT_VERSION
}

pub(super) fn registered(image: &MetadataImage, id: i32) -> Result<&BrokerRegistration, ApiError> {
    let unknown = || ApiError::new(ErrorCode::BrokerIdNotRegistered, format!("broker {id} is not registered"));
    image.cluster.brokers.get(&id).ok_or_else(unknown)
}

/// Where a broker puts a replica that it did not have.
pub(super) fn default_dir(image: &MetadataImage, broker: i32) -> Uuid {
    image.cluster.brokers.get(&broker).map_or(Uuid::DIRECTORY_UNASSIGNED, BrokerRegistration::default_dir)
}

/// A change of the current registration that changes nothing yet.
pub(super) fn about(broker: &BrokerRegistration) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord { broker_id: broker.id, broker_epoch: broker.epoch, ..Default::default() }
}
