//! How a partition changes: elections, reassignments, and what follows from both. Answers to `PartitionChangeBuilder`,
//! `PartitionReassignmentReplicas`, `PartitionReassignmentRevert` and KIP-966.

use taccola_base::Uuid;
use taccola_wire::messages::PartitionChangeRecord;

use crate::feature::MetadataVersion;
use crate::image::{LEADER_RECOVERING, NO_LEADER, NO_LEADER_CHANGE, PartitionRegistration};
use crate::record::VersionedRecord;

/// Who may become the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// Whoever leads goes on, else the first replica that is in sync.
    Online,
    /// The first replica if it is in sync, else as `Online`.
    Preferred,
    /// As `Online`, but any live replica rather than none.
    Unclean,
}

/// Which brokers hold a partition, and which of them a reassignment brings in or takes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub replicas: Vec<i32>,
    pub removing: Vec<i32>,
    pub adding: Vec<i32>,
}

impl Assignment {
    pub(super) fn of(partition: &PartitionRegistration) -> Self {
        Self {
            replicas: partition.replicas.clone(),
            removing: partition.removing_replicas.clone(),
            adding: partition.adding_replicas.clone(),
        }
    }

    /// From what is to what was asked for: who leaves stays, behind the others, until those are in sync. A list that
    /// stays empty is left as the partition has it, as Kafka does.
    pub(super) fn toward(partition: &PartitionRegistration, target: &[i32]) -> Self {
        let without = |a: &[i32], b: &[i32]| {
            let mut rest: Vec<i32> = a.iter().copied().filter(|r| !b.contains(r)).collect();
            rest.sort_unstable();
            rest.dedup();
            rest
        };
        let mut changed = Self::of(partition);
        let (removing, adding) = (without(&partition.replicas, target), without(target, &partition.replicas));
        changed.replicas = target.iter().chain(&removing).copied().collect();
        if !removing.is_empty() {
            changed.removing = removing;
        }
        if !adding.is_empty() {
            changed.adding = adding;
        }
        changed
    }

    /// As it was before the reassignment that goes on.
    pub(super) fn reverted(partition: &PartitionRegistration) -> Self {
        let mut replicas = partition.replicas.clone();
        replicas.retain(|r| !partition.adding_replicas.contains(r));
        Self { replicas, removing: Vec::new(), adding: Vec::new() }
    }

    pub(super) fn in_progress(&self) -> bool {
        !self.removing.is_empty() || !self.adding.is_empty()
    }

    /// Ends the reassignment if all that stay are in sync, and takes those that leave out of the ISR.
    fn complete(&mut self, isr: &mut Vec<i32>) {
        if !self.in_progress() {
            return;
        }
        let stays = |r: &i32| !self.removing.contains(r);
        let replicas: Vec<i32> = self.replicas.iter().copied().filter(stays).collect();
        let in_sync: Vec<i32> = isr.iter().copied().filter(stays).collect();
        let empty = !self.removing.is_empty() && (replicas.is_empty() || in_sync.is_empty());
        if !empty && replicas.iter().all(|r| in_sync.contains(r)) {
            *isr = in_sync;
            *self = Self { replicas, removing: Vec::new(), adding: Vec::new() };
        }
    }
}

/// What is known of the partition and the cluster, and what is wanted.
pub(super) struct PartitionChange<'a> {
    pub partition: &'a PartitionRegistration,
    pub topic_id: Uuid,
    pub partition_id: i32,
    pub version: MetadataVersion,
    pub elr_enabled: bool,
    pub min_isr: usize,
    /// Who stays in the ISR, as far as known before the election.
    pub target_isr: Vec<i32>,
    pub target: Assignment,
    /// A broker that may have lost acknowledged records and so is no eligible leader any more.
    pub unclean_shutdown: Option<i32>,
    pub election: Election,
}

/// Who leads, and whether it may lack acknowledged records.
struct Elected {
    leader: i32,
    unclean: bool,
}

impl PartitionChange<'_> {
    /// The record of the change, if there is one. `acceptable`: brokers that may lead. `default_dir`: where a broker puts
    /// a replica that it did not have.
    pub(super) fn build(
        mut self,
        acceptable: impl Fn(i32) -> bool,
        default_dir: impl Fn(i32) -> Uuid,
    ) -> Option<VersionedRecord> {
        let p = self.partition;
        self.target.complete(&mut self.target_isr);
        let mut elr = self.target_elr();
        let elected = self.elect(&elr, &acceptable);
        let mut record = PartitionChangeRecord {
            partition_id: self.partition_id,
            topic_id: self.topic_id,
            leader: NO_LEADER_CHANGE,
            ..Default::default()
        };
        if elected.leader != p.leader {
            record.leader = elected.leader;
            if elr.contains(&elected.leader) {
                self.target_isr = vec![elected.leader];
                elr.retain(|r| *r != elected.leader);
            }
            if elected.unclean {
                record.isr = Some(vec![elected.leader]);
                if p.leader_recovery_state != LEADER_RECOVERING {
                    record.leader_recovery_state = LEADER_RECOVERING;
                }
            }
        }
        // A broker that leaves is told by a new leader epoch.
        if record.leader == NO_LEADER_CHANGE && p.replicas.iter().any(|r| !self.target.replicas.contains(r)) {
            record.leader = p.leader;
        }
        if record.isr.is_some() || !self.elr_enabled {
            elr.clear();
        }
        if elr != p.elr {
            record.eligible_leader_replicas = Some(elr);
        }
        // Without eligible leader replicas the ISR never becomes empty: its last member stays in it.
        if record.isr.is_none() && (!self.target_isr.is_empty() || self.elr_enabled) && self.target_isr != p.isr {
            record.isr = Some(self.target_isr);
        }
        bump_epoch_on_shrink(p, self.version, &mut record);
        if self.elr_enabled {
            last_known_leader(p, &mut record);
        }
        assignment_changes(p, self.target, self.version, default_dir, &mut record);
        let changes = record.isr.is_some()
            || record.eligible_leader_replicas.is_some()
            || record.last_known_elr.is_some()
            || record.leader != NO_LEADER_CHANGE
            || record.replicas.is_some()
            || record.removing_replicas.is_some()
            || record.adding_replicas.is_some()
            || record.directories.is_some();
        changes.then(|| VersionedRecord::new(record, self.version.partition_record_version()))
    }

    /// Who left the ISR stays eligible while the ISR is smaller than the minimum: nothing can have been acknowledged
    /// without it.
    fn target_elr(&self) -> Vec<i32> {
        if !self.elr_enabled {
            return self.partition.elr.clone();
        }
        if self.target_isr.len() >= self.min_isr {
            return Vec::new();
        }
        let mut elr: Vec<i32> = self.partition.elr.iter().chain(&self.partition.isr).copied().collect();
        elr.retain(|r| !self.target_isr.contains(r) && self.unclean_shutdown != Some(*r));
        elr.sort_unstable();
        elr.dedup();
        elr
    }

    fn elect(&self, elr: &[i32], acceptable: &impl Fn(i32) -> bool) -> Elected {
        let p = self.partition;
        let from = |set: &[i32], r: i32| set.contains(&r);
        let valid =
            |r: i32| (from(&self.target_isr, r) || (self.target_isr.is_empty() && from(elr, r))) && acceptable(r);
        let replicas = &self.target.replicas;
        let preferred = replicas.first().copied().filter(|r| self.election == Election::Preferred && valid(*r));
        if let Some(leader) = preferred {
            return Elected { leader, unclean: false };
        }
        if valid(p.leader) {
            return Elected { leader: p.leader, unclean: false };
        }
        if let Some(leader) = replicas.iter().copied().find(|r| valid(*r)) {
            return Elected { leader, unclean: false };
        }
        if let [last] = p.last_known_elr.as_slice()
            && self.elr_enabled
            && elr.is_empty()
            && self.target_isr.is_empty()
            && acceptable(*last)
        {
            return Elected { leader: *last, unclean: true };
        }
        let unclean = self.election == Election::Unclean;
        let any = replicas.iter().copied().find(|r| unclean && acceptable(*r));
        any.map_or(Elected { leader: NO_LEADER, unclean: false }, |leader| Elected { leader, unclean: true })
    }
}

/// Replicas, who joins and who leaves, and the replicas' directories.
fn assignment_changes(
    p: &PartitionRegistration,
    target: Assignment,
    version: MetadataVersion,
    default_dir: impl Fn(i32) -> Uuid,
    record: &mut PartitionChangeRecord,
) {
    if version.has_directories() && !target.replicas.is_empty() {
        let directories: Vec<Uuid> =
            target.replicas.iter().map(|r| p.directory(*r).unwrap_or_else(|| default_dir(*r))).collect();
        record.directories = Some(directories).filter(|named| *named != p.directories);
    }
    record.replicas = Some(target.replicas).filter(|replicas| !replicas.is_empty() && *replicas != p.replicas);
    record.removing_replicas = Some(target.removing).filter(|removing| *removing != p.removing_replicas);
    record.adding_replicas = Some(target.adding).filter(|adding| *adding != p.adding_replicas);
}

/// Before 3.6-IV0, a leader took a smaller ISR as a new epoch.
fn bump_epoch_on_shrink(p: &PartitionRegistration, version: MetadataVersion, record: &mut PartitionChangeRecord) {
    if version.0 >= 12 || record.leader != NO_LEADER_CHANGE {
        return;
    }
    if let Some(isr) = &record.isr
        && p.isr.iter().any(|r| !isr.contains(r))
    {
        record.leader = p.leader;
    }
}

/// The last leader is remembered while ISR and leader are gone, and forgotten as soon as there is one again.
fn last_known_leader(p: &PartitionRegistration, record: &mut PartitionChangeRecord) {
    if record.isr.as_ref().is_some_and(Vec::is_empty) && p.last_known_elr != [p.leader] {
        record.last_known_elr = Some(vec![p.leader]);
    } else if (record.leader >= 0 || (p.leader != NO_LEADER && record.leader != NO_LEADER))
        && !p.last_known_elr.is_empty()
    {
        record.last_known_elr = Some(Vec::new());
    }
}
