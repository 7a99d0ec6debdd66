//! The state of a consumer group: a function of its records, which [`ConsumerGroup::apply`] takes in one by one, from the
//! log and as they are made. Answers to Kafka's `ConsumerGroup` and `ModernGroup`.
//!
//! Invariants: a partition has at most one owner; counts are those of the members that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;

use super::member::{Current, Member, Subscription};
use super::records::{Body, GroupEpoch, ResolvedRegex, TargetEpoch, write};
use crate::group::{AnyGroup, CommitScope, Committer, ExpirationCondition, GroupKind};
use crate::modern::assignment::{Assignment, EpochAssignment};
use crate::modern::timeouts::Timeouts;
use crate::modern::{JOIN_EPOCH, LEAVE_STATIC_EPOCH};
use crate::outbox::Outbox;

/// Of a group without records. The first member's subscription raises it.
const FIRST_EPOCH: i32 = 1;
/// From this version on OffsetCommit carries member epochs.
const MEMBER_EPOCH_FROM: i16 = 9;

#[derive(Debug, Default)]
pub(crate) struct ConsumerGroup {
    pub(crate) id: Arc<str>,
    pub(crate) epoch: i32,
    /// Of the topics that members subscribed to when the epoch went up.
    pub(crate) metadata_hash: i64,
    pub(crate) target_epoch: TargetEpoch,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    pub(crate) targets: BTreeMap<Arc<str>, Arc<Assignment>>,
    pub(crate) regexes: BTreeMap<Arc<str>, Arc<ResolvedRegex>>,
    /// The log has a record that 4.1 replaced by the hash.
    pub(crate) has_partition_metadata: bool,

    // What follows from the above.
    /// Instance id to member id.
    pub(crate) static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// How many members and regular expressions name a topic.
    topics: BTreeMap<Arc<str>, usize>,
    /// How many members subscribe to a regular expression.
    pub(crate) regex_members: BTreeMap<Arc<str>, usize>,
    assignors: BTreeMap<String, usize>,
    owners: BTreeMap<Uuid, BTreeMap<i32, Arc<str>>>,
    /// Members that speak the classic protocol.
    pub(crate) classic_members: usize,
    /// How many of those support each protocol.
    pub(crate) classic_protocols: BTreeMap<String, usize>,
    /// What is kept of members' subscriptions, in bytes.
    pub(crate) bytes: usize,

    // Soft state: not in the log.
    pub(crate) timeouts: Timeouts,
    /// Topics may have changed since the hash was computed.
    pub(crate) metadata_dirty: bool,
    /// Topics came or went that a regular expression stands for.
    pub(crate) regex_dirty: bool,
    pub(crate) regex_refreshed_ms: i64,
}

/// As clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

fn count<K: Ord + Clone>(map: &mut BTreeMap<K, usize>, key: &K, by: isize) {
    let n = match map.get_mut(key) {
        Some(n) => n,
        None => map.entry(key.clone()).or_default(),
    };
    *n = n.saturating_add_signed(by);
    if *n == 0 {
        map.remove(key);
    }
}

impl ConsumerGroup {
    pub(crate) fn new(id: Arc<str>) -> Self {
        // Nothing is known of the topics yet.
        Self { id, epoch: FIRST_EPOCH, metadata_dirty: true, ..Default::default() }
    }

    pub(crate) fn state(&self) -> State {
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.target_epoch.epoch {
            State::Assigning
        } else if self.members.values().all(|m| m.current.is_reconciled_to(self.target_epoch.epoch)) {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    pub(crate) fn static_member(&self, instance_id: &str) -> Option<(&Arc<str>, &Member)> {
        self.static_members.get(instance_id).and_then(|id| self.members.get_key_value(id))
    }

    /// The topics that members name, and those that their regular expressions stand for.
    pub(crate) fn subscribed_topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    /// The same after subscriptions and resolved expressions come (+1) and go (-1).
    pub(crate) fn subscribed_topics_with(&self, deltas: &TopicDeltas) -> BTreeSet<Arc<str>> {
        let stays = |(topic, n): (&Arc<str>, &usize)| {
            let delta = deltas.0.get(topic).copied().unwrap_or(0);
            (n.saturating_add_signed(delta) > 0).then(|| topic.clone())
        };
        let comes = deltas.0.iter().filter(|(topic, delta)| **delta > 0 && !self.topics.contains_key(*topic));
        self.topics.iter().filter_map(stays).chain(comes.map(|(topic, _)| topic.clone())).collect()
    }

    /// Whether somebody else than `member` has the partition.
    pub(crate) fn is_held(&self, topic: &Uuid, partition: i32) -> bool {
        self.owners.get(topic).is_some_and(|p| p.contains_key(&partition))
    }

    /// The assignor that most members ask for, when `leaving` is replaced by `coming`. Votes that are even are for uniform,
    /// which comes first in Kafka's hash map.
    pub(crate) fn preferred_assignor(
        &self,
        leaving: Option<&Subscription>,
        coming: Option<&Subscription>,
    ) -> Option<String> {
        let leaving = leaving.and_then(|s| s.server_assignor.as_deref());
        let coming = coming.and_then(|s| s.server_assignor.as_deref());
        let votes = |name: &str, n: usize| {
            n.saturating_sub(usize::from(leaving == Some(name))) + usize::from(coming == Some(name))
        };
        let mut all: BTreeMap<&str, usize> =
            self.assignors.iter().map(|(name, n)| (&**name, votes(name, *n))).collect();
        if let Some(name) = coming {
            all.entry(name).or_insert(1);
        }
        let best = all.into_iter().filter(|(_, n)| *n > 0).max_by_key(|(name, n)| (*n, *name));
        best.map(|(name, _)| name.to_owned())
    }

    /// The target of a member; a static one that comes back under a new id has that of the old.
    pub(crate) fn target_of(&self, member: &str, instance_id: Option<&str>) -> Option<&Arc<Assignment>> {
        self.targets.get(member).or_else(|| self.targets.get(self.static_members.get(instance_id?)?))
    }

    /// Takes in one record; false: the group is gone.
    pub(crate) fn apply(&mut self, body: &Body) -> bool {
        match body {
            Body::Subscription { member, value } => self.apply_subscription(member, value.as_ref()),
            Body::Epoch(Some(value)) => {
                let GroupEpoch { epoch, metadata_hash } = *value;
                self.epoch = epoch;
                self.metadata_hash = metadata_hash;
            }
            Body::Epoch(None) => return false,
            Body::PartitionMetadata { exists } => self.has_partition_metadata = *exists,
            Body::TargetEpoch(value) => {
                self.target_epoch = value.unwrap_or(TargetEpoch { epoch: -1, timestamp_ms: 0 });
            }
            Body::Target { member, value: Some(value) } => {
                self.targets.insert(member.clone(), value.clone());
            }
            Body::Target { member, value: None } => {
                self.targets.remove(member);
            }
            Body::Current { member, value: Some(value) } => self.apply_current(member, (**value).clone()),
            Body::Current { member, value: None } => {
                if self.members.contains_key(member) {
                    self.apply_current(member, Current::left());
                }
            }
            Body::Regex { regex, value } => self.apply_regex(regex, value.as_ref()),
        }
        true
    }

    fn apply_subscription(&mut self, id: &Arc<str>, value: Option<&Arc<Subscription>>) {
        let old = match value {
            Some(value) => {
                let member = match self.members.get_mut(id) {
                    Some(member) => member,
                    None => self.members.entry(id.clone()).or_default(),
                };
                std::mem::replace(&mut member.subscription, value.clone())
            }
            None => {
                let Some(member) = self.members.remove(id) else { return };
                self.release(id, &member.current);
                self.timeouts.forget(id);
                member.subscription
            }
        };
        self.count_subscription(&old, -1);
        if let Some(instance) = old.instance_id.as_ref().filter(|i| self.static_members.get(*i) == Some(id)) {
            self.static_members.remove(instance);
        }
        if let Some(value) = value {
            self.count_subscription(value, 1);
            if let Some(instance) = &value.instance_id {
                self.static_members.insert(instance.clone(), id.clone());
            }
        }
    }

    fn count_subscription(&mut self, subscription: &Subscription, by: isize) {
        for topic in &subscription.topics {
            count(&mut self.topics, topic, by);
        }
        if subscription.has_regex() {
            count(&mut self.regex_members, &subscription.regex, by);
        }
        if let Some(assignor) = &subscription.server_assignor {
            count(&mut self.assignors, assignor, by);
        }
        if let Some(classic) = &subscription.classic {
            self.classic_members = self.classic_members.saturating_add_signed(by);
            for (protocol, _) in &classic.protocols {
                count(&mut self.classic_protocols, protocol, by);
            }
        }
        let bytes = isize::try_from(subscription.bytes()).unwrap_or(isize::MAX);
        self.bytes = self.bytes.saturating_add_signed(bytes.saturating_mul(by));
    }

    fn apply_current(&mut self, id: &Arc<str>, value: Current) {
        let id = match self.members.get_key_value(id) {
            Some((id, _)) => id.clone(),
            None => id.clone(),
        };
        let old = self.members.get(&id).map(|m| m.current.clone()).unwrap_or_default();
        self.release(&id, &old);
        for assignment in [&value.assigned, &value.pending_revocation] {
            self.take(&id, assignment);
        }
        self.members.entry(id).or_default().current = value;
    }

    fn take(&mut self, id: &Arc<str>, assignment: &EpochAssignment) {
        for (topic, partitions) in assignment {
            let owners = self.owners.entry(*topic).or_default();
            for partition in partitions.keys() {
                owners.insert(*partition, id.clone());
            }
        }
    }

    /// In a log that is compacted in part, somebody else may own what this member had by now: that stays.
    fn release(&mut self, id: &Arc<str>, current: &Current) {
        for (topic, partitions) in current.assigned.iter().chain(&current.pending_revocation) {
            let Some(owners) = self.owners.get_mut(topic) else { continue };
            for partition in partitions.keys() {
                if owners.get(partition) == Some(id) {
                    owners.remove(partition);
                }
            }
            if owners.is_empty() {
                self.owners.remove(topic);
            }
        }
    }

    fn apply_regex(&mut self, regex: &Arc<str>, value: Option<&Arc<ResolvedRegex>>) {
        let old = match value {
            Some(value) => self.regexes.insert(regex.clone(), value.clone()),
            None => self.regexes.remove(regex),
        };
        for topic in old.iter().flat_map(|old| &old.topics) {
            count(&mut self.topics, topic, -1);
        }
        for topic in value.iter().flat_map(|new| &new.topics) {
            count(&mut self.topics, topic, 1);
        }
    }

    /// Tombstones of one member's records.
    pub(crate) fn write_member_tombstones(&self, member: &Arc<str>, out: &mut Outbox) -> Result<(), ErrorCode> {
        let bodies = [
            Body::Current { member: member.clone(), value: None },
            Body::Target { member: member.clone(), value: None },
            Body::Subscription { member: member.clone(), value: None },
        ];
        bodies.into_iter().try_for_each(|body| self.write(out, body))
    }

    pub(crate) fn write(&self, out: &mut Outbox, body: Body) -> Result<(), ErrorCode> {
        write(out, &self.id, body).map_err(|_| ErrorCode::InvalidRequest)
    }
}

/// How many more, or fewer, members and expressions name a topic.
#[derive(Debug, Default)]
pub(crate) struct TopicDeltas(BTreeMap<Arc<str>, isize>);

impl TopicDeltas {
    pub(crate) fn add<'a>(&mut self, topics: impl IntoIterator<Item = &'a Arc<str>>, by: isize) {
        for topic in topics {
            *self.0.entry(topic.clone()).or_default() += by;
        }
    }
}

impl AnyGroup for ConsumerGroup {
    fn kind(&self) -> GroupKind {
        GroupKind::Consumer
    }

    fn state_name(&self) -> &'static str {
        self.state().name()
    }

    fn protocol_type(&self) -> &str {
        "consumer"
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    fn validate_offset_commit(&self, committer: &Committer<'_>) -> Result<CommitScope, ErrorCode> {
        let Committer { member_id, instance_id, epoch, transactional, api_version } = *committer;
        // An administrator, as long as nobody else is there.
        if epoch < 0 && self.members.is_empty() {
            return Ok(CommitScope::Everything);
        }
        if transactional && epoch < 0 && member_id.is_empty() && instance_id.is_none() {
            return Ok(CommitScope::Everything);
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !transactional && !member.is_classic() && api_version < MEMBER_EPOCH_FROM {
            return Err(ErrorCode::UnsupportedVersion);
        }
        match epoch.cmp(&member.current.epoch) {
            std::cmp::Ordering::Equal => Ok(CommitScope::Everything),
            std::cmp::Ordering::Less => Ok(CommitScope::ByAssignmentEpoch),
            std::cmp::Ordering::Greater if member.is_classic() => Err(ErrorCode::IllegalGeneration),
            std::cmp::Ordering::Greater => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    fn assignment_epoch(&self, member_id: &str, _topic: &str, topic_id: Uuid, partition: i32) -> Option<i32> {
        self.members.get(member_id)?.current.assignment_epoch(&topic_id, partition)
    }

    fn stale_epoch_error(&self, member_id: &str) -> ErrorCode {
        match self.members.get(member_id).is_some_and(Member::is_classic) {
            true => ErrorCode::IllegalGeneration,
            false => ErrorCode::StaleMemberEpoch,
        }
    }

    fn validate_offset_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.members.get(id)).ok_or(ErrorCode::UnknownMemberId)?;
        match epoch == member.current.epoch {
            true => Ok(()),
            false if member.is_classic() => Err(ErrorCode::IllegalGeneration),
            false => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn write_tombstones(&self, out: &mut Outbox) {
        let members = || self.members.keys().cloned();
        let mut bodies: Vec<Body> = Vec::new();
        bodies.extend(members().map(|member| Body::Current { member, value: None }));
        bodies.extend(self.targets.keys().cloned().map(|member| Body::Target { member, value: None }));
        bodies.push(Body::TargetEpoch(None));
        bodies.extend(members().map(|member| Body::Subscription { member, value: None }));
        if self.has_partition_metadata {
            bodies.push(Body::PartitionMetadata { exists: false });
        }
        bodies.extend(self.regexes.keys().cloned().map(|regex| Body::Regex { regex, value: None }));
        bodies.push(Body::Epoch(None));
        for body in bodies {
            // Keys that were read or written before can be written.
            let _ = write(out, &self.id, body);
        }
    }

    fn expiration(&self) -> Option<ExpirationCondition> {
        Some(ExpirationCondition::Commit)
    }
}

/// Whether a member with these epochs takes a heartbeat that says `epoch`, from a member that says what it `owns`.
pub(crate) fn check_member_epoch(current: &Current, epoch: i32, owns: Option<&Assignment>) -> Result<(), ErrorCode> {
    if epoch == JOIN_EPOCH || epoch == current.epoch {
        return Ok(());
    }
    // The reply that told it the current epoch may have been lost: it may go on if it has nothing but what it was given.
    let owned = owns.is_some_and(|owns| {
        owns.iter().all(|(topic, partitions)| {
            current.assigned.get(topic).is_some_and(|given| partitions.iter().all(|p| given.contains_key(p)))
        })
    });
    if epoch < current.epoch && epoch == current.previous_epoch && owned {
        return Ok(());
    }
    Err(ErrorCode::FencedMemberEpoch)
}

/// Whether the member has left for a while and waits for somebody under its instance id.
pub(crate) fn has_left_for_a_while(member: &Member) -> bool {
    member.current.epoch == LEAVE_STATIC_EPOCH
}
