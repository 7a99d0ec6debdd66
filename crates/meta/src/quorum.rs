//! A quorum of one voter, as pure functions: what to write when it starts, and the control records of the metadata log.
//!
//! A single voter elects itself without asking anybody: it takes the next epoch, writes that to `quorum-state` before
//! anything else (so that no epoch is ever used twice), appends a LeaderChange control record, and is the leader; what it
//! appends and flushes is committed at once. Answers to `KafkaRaftClient`, `LeaderState`, `ActivationRecordsGenerator`.

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::batch::{ControlRecord, ControlType};
use taccola_wire::codec::Message;
use taccola_wire::messages::leader_change_message::Voter;
use taccola_wire::messages::{
    AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord, KRaftVersionRecord, LeaderChangeMessage,
    SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
};

use crate::batch::{AppendContext, EncodedBatch, control_batch};
use crate::bootstrap::BootstrapMetadata;
use crate::error::MetaError;
use crate::feature::{ELR_VERSION, METADATA_VERSION, MetadataVersion};
use crate::image::{ConfigResource, MetadataImage};
use crate::loader::{MetadataLoader, QuorumFacts};
use crate::quorum_state::QuorumState;
use crate::record::{MetadataRecord, VersionedRecord};
use crate::voters::StandaloneVoter;

/// A control record of the metadata log or of a snapshot, read.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlContent {
    LeaderChange(LeaderChangeMessage),
    SnapshotHeader(SnapshotHeaderRecord),
    SnapshotFooter(SnapshotFooterRecord),
    KRaftVersion(KRaftVersionRecord),
    Voters(VotersRecord),
    /// Of a kind that says nothing here.
    Other,
}

/// Reads a control record. Its body starts with its version, which is also the version that it is encoded with.
pub fn parse_control(record: &ControlRecord) -> Result<ControlContent, MetaError> {
    let ControlRecord::Other { control_type, value } = record else { return Ok(ControlContent::Other) };
    Ok(match control_type {
        ControlType::LeaderChange => ControlContent::LeaderChange(body(value)?),
        ControlType::SnapshotHeader => ControlContent::SnapshotHeader(body(value)?),
        ControlType::SnapshotFooter => ControlContent::SnapshotFooter(body(value)?),
        ControlType::KraftVersion => ControlContent::KRaftVersion(body(value)?),
        ControlType::KraftVoters => ControlContent::Voters(body(value)?),
        _ => ControlContent::Other,
    })
}

fn body<M: Message>(value: &Bytes) -> Result<M, MetaError> {
    let prefix = value.first_chunk::<2>().ok_or(MetaError::Frame("a control record without a version"))?;
    let version = i16::from_be_bytes(*prefix);
    M::from_bytes(value.clone(), version).map_err(|source| MetaError::Decode { name: M::NAME, version, source })
}

pub(crate) fn control_body<M: Message>(message: &M, version: i16) -> Result<Bytes, MetaError> {
    message.to_bytes(version).map_err(|source| MetaError::Encode { name: M::NAME, version, source })
}

/// What a voter knows when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct StartState {
    pub node_id: i32,
    /// Of the directory that holds the metadata log.
    pub directory_id: Uuid,
    /// The voters of `controller.quorum.voters`; empty when it is not set.
    pub static_voters: Vec<i32>,
    /// `quorum-state` as it was found.
    pub quorum_state: Option<QuorumState>,
    /// Epoch of the last batch of the log or of the snapshot, whichever is later; 0 when both are empty.
    pub last_epoch: i32,
    /// What snapshot and log say about the quorum.
    pub facts: QuorumFacts,
    /// Where this node listens as a controller: name, host, port. Empty: it does not.
    pub listeners: Vec<(String, String, u16)>,
}

/// What a single voter does at start, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Election {
    pub epoch: i32,
    /// First: written and flushed.
    pub quorum_state: QuorumState,
    /// Second: appended at the log's end with [`start_of_epoch_batch`].
    pub leader_change: LeaderChangeMessage,
    /// With it: the dynamic quorum, if so far only the first snapshot knows it, or if this node is where no voter was.
    pub quorum: Option<(KRaftVersionRecord, VotersRecord)>,
}

/// The election of a quorum of one. An error says why this node must not elect itself.
pub fn elect_alone(start: &StartState) -> Result<Election, MetaError> {
    let dynamic = start.facts.kraft_version >= 1;
    check_alone(start, dynamic)?;
    let seen = start.quorum_state.as_ref().map_or(0, |s| s.leader_epoch).max(start.last_epoch).max(0);
    let epoch = seen.checked_add(1).ok_or_else(|| MetaError::QuorumState("the epoch cannot grow any more".into()))?;
    let quorum_state = if dynamic {
        QuorumState::dynamic_leader(start.node_id, epoch)
    } else {
        QuorumState::static_leader(start.node_id, epoch, &[start.node_id])
    };
    // Kafka writes and reads version 0 also in a dynamic quorum, without directory ids.
    let voter = Voter { voter_id: start.node_id, voter_directory_id: Uuid::ZERO };
    let leader_change = LeaderChangeMessage {
        version: 0,
        leader_id: start.node_id,
        voters: vec![voter.clone()],
        granting_voters: vec![voter],
    };
    let facts = &start.facts;
    let own = StandaloneVoter {
        node_id: start.node_id,
        directory_id: start.directory_id,
        listeners: start.listeners.clone(),
    };
    let moved = facts.voters.clone().filter(|known| !start.listeners.is_empty() && *known != own.record());
    let untold = facts.voters.clone().filter(|_| facts.only_in_first_snapshot);
    let voters = moved.map(|_| own.record()).or(untold).filter(|_| dynamic);
    let quorum = voters.map(|v| (KRaftVersionRecord { version: 0, kraft_version: facts.kraft_version }, v));
    Ok(Election { epoch, quorum_state, leader_change, quorum })
}

fn check_alone(start: &StartState, dynamic: bool) -> Result<(), MetaError> {
    let refuse = |reason: String| Err(MetaError::QuorumState(reason));
    let me = start.node_id;
    if dynamic {
        let voters = start.facts.voters.as_ref().map(|v| v.voters.as_slice()).unwrap_or_default();
        return match voters {
            [one] if one.voter_id == me && one.voter_directory_id == start.directory_id => Ok(()),
            [one] if one.voter_id == me => refuse(format!(
                "the only voter is directory {} of node {me}, this is directory {}",
                one.voter_directory_id, start.directory_id
            )),
            others => refuse(format!("node {me} is not the only voter; the log names {} voters", others.len())),
        };
    }
    let recorded = start.quorum_state.as_ref().map(|s| s.current_voters.as_slice()).unwrap_or_default();
    for voters in [recorded, &start.static_voters] {
        if !voters.is_empty() && voters != [me] {
            return refuse(format!(
                "node {me} is not the only voter of {voters:?}; quorums of several voters are not supported"
            ));
        }
    }
    Ok(())
}

/// The control batch with which a leader opens its epoch.
pub fn start_of_epoch_batch(election: &Election, at: AppendContext) -> Result<EncodedBatch, MetaError> {
    let message = &election.leader_change;
    let mut records = vec![(ControlType::LeaderChange, control_body(message, message.version)?)];
    if let Some((version, voters)) = &election.quorum {
        records.push((ControlType::KraftVersion, control_body(version, version.version)?));
        records.push((ControlType::KraftVoters, control_body(voters, voters.version)?));
    }
    control_batch(&records, at)
}

/// The control batch that makes a static quorum of one a dynamic one: kraft.version 1 and its voter (KIP-853).
pub fn upgrade_batch(voter: &StandaloneVoter, at: AppendContext) -> Result<EncodedBatch, MetaError> {
    let version = KRaftVersionRecord { version: 0, kraft_version: crate::feature::KRAFT_VERSION_MAX };
    let voters = voter.record();
    let records = [
        (ControlType::KraftVersion, control_body(&version, version.version)?),
        (ControlType::KraftVoters, control_body(&voters, voters.version)?),
    ];
    control_batch(&records, at)
}

/// The records that a new leader writes before any command: the end of a transaction that its predecessor left open, and
/// the bootstrap records if the log has none yet. They come as one or more atomic commands, in order.
pub fn activation_records(loader: &MetadataLoader, bootstrap: &BootstrapMetadata) -> Vec<Vec<VersionedRecord>> {
    let mut commands = Vec::new();
    if loader.open_transaction().is_some() {
        let reason = Some("the controller that began it ended before it did".to_owned());
        commands.push(vec![VersionedRecord::new(AbortTransactionRecord { reason }, 0)]);
    }
    if loader.image().features.finalized.is_empty() {
        commands.push(bootstrap_command(bootstrap));
    } else {
        let records = elr_safety_records(loader.image());
        if !records.is_empty() {
            commands.push(records);
        }
    }
    commands
}

/// With eligible leader replicas on, the cluster-wide `min.insync.replicas` must be a dynamic config, because the
/// controller decides with it (`ConfigurationControlManager.maybeGenerateElrSafetyRecords`).
fn elr_safety_records(image: &MetadataImage) -> Vec<VersionedRecord> {
    let resource = ConfigResource::default_broker();
    if !image.elr_enabled() || image.configs.value(&resource, MIN_ISR).is_some() {
        return Vec::new();
    }
    vec![crate::image::config::config_record(&resource, MIN_ISR, Some("1".to_owned()))]
}

const MIN_ISR: &str = "min.insync.replicas";

fn bootstrap_command(bootstrap: &BootstrapMetadata) -> Vec<VersionedRecord> {
    let level = |feature: &str| {
        bootstrap.records.iter().rev().find_map(|r| match &r.record {
            MetadataRecord::FeatureLevel(f) if f.name == feature => Some(f.feature_level),
            _ => None,
        })
    };
    let version = MetadataVersion(level(METADATA_VERSION).unwrap_or(crate::feature::METADATA_VERSION_MIN));
    let mut records = bootstrap.records.clone();
    if version.has_elr() && level(ELR_VERSION).unwrap_or(0) >= 1 {
        let resource = ConfigResource::default_broker();
        records.push(crate::image::config::config_record(&resource, MIN_ISR, Some("1".to_owned())));
    }
    if version.has_transactions() {
        let begin = BeginTransactionRecord { name: Some("Bootstrap records".to_owned()) };
        records.insert(0, VersionedRecord::new(begin, 0));
        records.push(VersionedRecord::new(EndTransactionRecord::default(), 0));
    }
    records
}

#[cfg(test)]
mod tests {
    use taccola_wire::messages::voters_record;

    use super::*;

    fn start() -> StartState {
        StartState {
            node_id: 0,
            directory_id: Uuid::from_u128(777),
            static_voters: vec![0],
            quorum_state: None,
            last_epoch: 0,
            facts: QuorumFacts::default(),
            listeners: Vec::new(),
        }
    }

    #[test]
    fn every_start_takes_a_new_epoch() {
        let first = elect_alone(&start()).unwrap();
        assert_eq!((first.epoch, first.leader_change.version), (1, 0));
        let again = StartState { quorum_state: Some(first.quorum_state), ..start() };
        assert_eq!(elect_alone(&again).unwrap().epoch, 2);
        // A log that knows a later epoch than the file wins.
        assert_eq!(elect_alone(&StartState { last_epoch: 9, ..again }).unwrap().epoch, 10);
    }

    #[test]
    fn a_node_among_several_voters_does_not_elect_itself() {
        assert!(elect_alone(&StartState { static_voters: vec![0, 1, 2], ..start() }).is_err());
        assert!(elect_alone(&StartState { static_voters: vec![1], ..start() }).is_err());
        assert!(elect_alone(&StartState { static_voters: vec![], ..start() }).is_ok());
        let recorded = QuorumState::static_leader(1, 4, &[0, 1, 2]);
        assert!(elect_alone(&StartState { quorum_state: Some(recorded), ..start() }).is_err());
    }

    #[test]
    fn a_dynamic_voter_is_known_by_its_directory() {
        let voters = |directory| {
            let voter = voters_record::Voter {
                voter_id: 0,
                voter_directory_id: Uuid::from_u128(directory),
                ..Default::default()
            };
            QuorumFacts {
                kraft_version: 1,
                voters: Some(VotersRecord { version: 0, voters: vec![voter] }),
                ..Default::default()
            }
        };
        let election = elect_alone(&StartState { facts: voters(777), ..start() }).unwrap();
        assert_eq!(election.leader_change.version, 0);
        assert!(election.quorum.is_none());
        let first = QuorumFacts { only_in_first_snapshot: true, ..voters(777) };
        assert!(elect_alone(&StartState { facts: first, ..start() }).unwrap().quorum.is_some());
        assert!(elect_alone(&StartState { facts: voters(778), ..start() }).is_err());
        assert!(
            elect_alone(&StartState { facts: QuorumFacts { kraft_version: 1, ..Default::default() }, ..start() })
                .is_err()
        );
    }
}
