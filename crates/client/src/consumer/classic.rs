//! Membership with the classic protocol. Answers to `ConsumerCoordinator` and `AbstractCoordinator`. What was handed out is
//! committed before a member joins anew (if it commits by itself).
//!
//! Eager (KIP-429's word for the older way): a member gives up all its partitions before it joins, and waits for the new
//! ones. Cooperative, if all its assignors are: it keeps them and reads on until the new assignment is there; what that does
//! not hold it gives up then, and joins once more, so that somebody else can get it.

use std::collections::BTreeSet;
use std::time::Instant;

use taccola_base::TopicPartition;
use taccola_wire::error::ErrorCode;

use super::assignor::{Assignor, NO_GENERATION};
use super::group::{GroupConfig, Reader};
use super::join::{self, Generation, Join, Joined, Joining, Pulse};
use super::offsets::Member;
use crate::cluster::Lane;
use crate::error::{Error, Result};

/// Not in the group until the first [`ClassicMember::keep`].
pub(super) struct ClassicMember {
    member_id: String,
    /// While an eager member joins there is none; a cooperative one is in its last generation until it is in the next.
    generation: Option<Generation>,
    joining: Option<Joining>,
    /// Assigned, and not read from yet.
    unread: Vec<TopicPartition>,
    /// The assignment is not the group's last word: join again.
    rejoin: bool,
}

impl ClassicMember {
    pub(super) fn new() -> Self {
        Self { member_id: String::new(), generation: None, joining: None, unread: Vec::new(), rejoin: false }
    }

    pub(super) fn joined(&self) -> bool {
        self.generation.is_some() && self.joining.is_none() && !self.rejoin && self.unread.is_empty()
    }

    /// As the coordinator knows this member; `None` outside of a generation.
    pub(super) fn member(&self, instance_id: Option<String>) -> Option<Member> {
        let generation = self.generation.as_ref()?.id;
        Some(Member { id: self.member_id.clone(), generation, instance_id })
    }

    /// Joins if need be, and waits for it until then; a cooperative member that has something to read does not wait.
    pub(super) async fn keep(&mut self, reader: &mut Reader, until: Instant) -> Result<()> {
        if self.joining.is_none() && self.must_join(reader).await? {
            self.start_join(reader).await;
        }
        while let Some(joining) = &mut self.joining {
            let reads_on = !reader.consumer.positions.is_empty();
            let until = if reads_on { Instant::now() } else { until };
            let Ok(ended) = tokio::time::timeout_at(until.into(), &mut joining.task).await else { return Ok(()) };
            self.member_id = joining.member_id.borrow().clone();
            self.joining = None;
            match ended.map_err(|_| Error::Closed)? {
                Ok(joined) => self.take_over(reader, joined).await,
                Err(error) if is_lost(&error) => {
                    self.lose(reader);
                    self.start_join(reader).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.start_reading(reader).await
    }

    async fn must_join(&mut self, reader: &mut Reader) -> Result<bool> {
        let Some(generation) = &self.generation else { return Ok(true) };
        let pulse = *generation.pulse.borrow();
        match pulse {
            Pulse::Steady => Ok(self.rejoin || self.partitions_changed(reader).await),
            Pulse::Rebalance => Ok(true),
            Pulse::Lost => {
                self.lose(reader);
                Ok(true)
            }
            Pulse::Refused(code) => Err(Error::broker(code, format!("group {}", reader.config.group_id), None)),
        }
    }

    /// The leader looks now and then whether topics have grown or appeared.
    async fn partitions_changed(&mut self, reader: &Reader) -> bool {
        let max_age = reader.client().config().metadata_max_age;
        let due = |m: &mut Generation| m.assigned_counts.is_some() && m.counts_checked.elapsed() >= max_age;
        if !self.generation.as_mut().is_some_and(due) {
            return false;
        }
        let topics = reader.config.topics.clone();
        let counts = join::partition_counts(reader.client(), &topics).await;
        let Some(generation) = &mut self.generation else { return false };
        generation.counts_checked = Instant::now();
        // What cannot be asked now is asked next time.
        let Ok(counts) = counts else { return false };
        let assigned = generation.assigned_counts.as_ref();
        counts.iter().any(|(topic, count)| assigned.and_then(|a| a.get(topic)) != Some(count))
    }

    /// Others own the partitions by now.
    fn lose(&mut self, reader: &mut Reader) {
        self.member_id.clear();
        self.generation = None;
        self.unread.clear();
        reader.release_all();
    }

    async fn start_join(&mut self, reader: &mut Reader) {
        if let Some(member) = self.member(reader.config.instance_id.clone()) {
            reader.commit_before_release(&member).await;
        }
        let generation = self.generation.as_ref().map_or(NO_GENERATION, |generation| generation.id);
        match &self.generation {
            // The join counts as a heartbeat.
            Some(generation) if cooperative(&reader.config) => generation.heartbeats.abort(),
            _ => {
                self.generation = None;
                self.unread.clear();
                reader.release_all();
            }
        }
        self.rejoin = true;
        let owned = reader.consumer.positions.keys().chain(&self.unread).cloned().collect();
        let (client, config, polls) = (reader.client().clone(), reader.config.clone(), reader.polls.clone());
        self.joining = Some(Join { client, config, polls, owned, generation }.start(&self.member_id));
    }

    async fn take_over(&mut self, reader: &mut Reader, joined: Joined) {
        let wanted: BTreeSet<_> = joined.partitions.into_iter().collect();
        self.generation = Some(joined.generation);
        let held: Vec<_> = reader.consumer.positions.keys().cloned().collect();
        let revoked: Vec<_> = held.iter().filter(|partition| !wanted.contains(*partition)).collect();
        if !revoked.is_empty()
            && let Some(member) = self.member(reader.config.instance_id.clone())
        {
            // It was read on meanwhile.
            reader.commit_before_release(&member).await;
        }
        self.rejoin = !revoked.is_empty() || self.unread.iter().any(|partition| !wanted.contains(partition));
        revoked.into_iter().for_each(|partition| reader.release(partition));
        self.unread = wanted.into_iter().filter(|partition| !held.contains(partition)).collect();
    }

    async fn start_reading(&mut self, reader: &mut Reader) -> Result<()> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let Some(member) = self.member(reader.config.instance_id.clone()) else { return Ok(()) };
        reader.start_reading(&self.unread, &member).await?;
        self.unread.clear();
        Ok(())
    }

    /// Also in the middle of joining, once the coordinator has given an id. A static member stays in the group until its
    /// session ends.
    pub(super) async fn leave(mut self, reader: &Reader) -> Result<()> {
        self.generation = None;
        // The group's own connection may be taken by a join that waits for other members.
        let lane = if self.joining.is_some() { Lane::General } else { Lane::Group };
        if let Some(joining) = self.joining.take() {
            self.member_id = joining.member_id.borrow().clone();
        }
        if self.member_id.is_empty() || reader.config.instance_id.is_some() {
            return Ok(());
        }
        join::leave(reader.client(), &reader.config.group_id, &self.member_id, lane).await
    }
}

/// Whether partitions are kept during a rebalance: eager and cooperative assignors together are eager.
fn cooperative(config: &GroupConfig) -> bool {
    config.assignors.iter().all(|assignor| *assignor == Assignor::CooperativeSticky)
}

fn is_lost(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration))
}
