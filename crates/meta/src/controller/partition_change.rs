//! Elections: how a partition changes when brokers come and go. Answers to `PartitionChangeBuilder` (without
//! reassignments) and KIP-966.

use taccola_base::Uuid;
use taccola_wire::messages::PartitionChangeRecord;

use crate::feature::MetadataVersion;
use crate::image::{LEADER_RECOVERING, NO_LEADER, NO_LEADER_CHANGE, PartitionRegistration};
use crate::record::VersionedRecord;

/// What an election is told about the partition and the cluster.
pub(super) struct PartitionChange<'a> {
    pub partition: &'a PartitionRegistration,
    pub topic_id: Uuid,
    pub partition_id: i32,
    pub version: MetadataVersion,
    pub elr_enabled: bool,
    pub min_isr: usize,
    /// Who stays in the ISR, as far as known before the election.
    pub target_isr: Vec<i32>,
    /// A broker that may have lost acknowledged records and so is no eligible leader any more.
    pub unclean_shutdown: Option<i32>,
    /// `unclean.leader.election.enable`.
    pub unclean_election: bool,
}

/// Who leads, and whether it may lack acknowledged records.
struct Elected {
    leader: i32,
    unclean: bool,
}

impl PartitionChange<'_> {
    /// The record of the change, if there is one. `acceptable`: brokers that may lead.
    pub(super) fn build(mut self, acceptable: impl Fn(i32) -> bool) -> Option<VersionedRecord> {
        let p = self.partition;
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
        let changes = record.isr.is_some()
            || record.eligible_leader_replicas.is_some()
            || record.last_known_elr.is_some()
            || record.leader != NO_LEADER_CHANGE;
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
        if valid(p.leader) {
            return Elected { leader: p.leader, unclean: false };
        }
        if let Some(leader) = p.replicas.iter().copied().find(|r| valid(*r)) {
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
        let any = p.replicas.iter().copied().find(|r| self.unclean_election && acceptable(*r));
        any.map_or(Elected { leader: NO_LEADER, unclean: false }, |leader| Elected { leader, unclean: true })
    }
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
