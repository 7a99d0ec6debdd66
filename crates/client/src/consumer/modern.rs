//! Membership in a group of KIP-848 (`group.protocol=consumer`): the broker assigns, this side follows. Answers to
//! `ConsumerMembershipManager` and `ConsumerHeartbeatRequestManager`.
//!
//! Partitions that the broker wants back are given up, and their offsets committed, before it is told so; only then does
//! it give them to anybody else. Partitions that stay keep their positions and what was prefetched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use taccola_base::{TopicPartition, Uuid};
use taccola_net::api::ApiExt;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::ConsumerGroupHeartbeatRequest;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;

use super::group::{GroupConfig, Reader};
use super::membership::{Answer, Assignment, Beat, Heartbeat, LEAVE_EPOCH, Membership, STATIC_LEAVE_EPOCH};
use super::offsets::Member;
use crate::cluster::{Client, Lane};
use crate::error::{Error, Result};

/// First version with a regular expression that the broker evaluates.
const REGEX_VERSION: i16 = 1;

/// The group's protocol on the wire.
struct ConsumerHeartbeat {
    config: GroupConfig,
}

impl Heartbeat for ConsumerHeartbeat {
    fn group(&self) -> &str {
        &self.config.group_id
    }

    fn leave_epoch(&self) -> i32 {
        if self.config.instance_id.is_some() { STATIC_LEAVE_EPOCH } else { LEAVE_EPOCH }
    }

    async fn beat(&self, client: &Client, beat: Beat<'_>) -> Result<Answer> {
        let config = &self.config;
        let api = client.coordinator(&config.group_id, Lane::Group).await?;
        let version = api.version::<ConsumerGroupHeartbeatRequest>()?;
        if version < REGEX_VERSION && config.topics_regex.is_some() {
            return Err(Error::Invalid("the broker is too old to subscribe by a regular expression".to_owned()));
        }
        let mut request = ConsumerGroupHeartbeatRequest {
            group_id: config.group_id.clone(),
            member_id: beat.member_id.to_owned(),
            member_epoch: beat.epoch,
            instance_id: config.instance_id.clone(),
            topic_partitions: beat.owned.map(|owned| {
                let topic = |(id, partitions): (&Uuid, &Vec<i32>)| TopicPartitions {
                    topic_id: *id,
                    partitions: partitions.clone(),
                };
                owned.iter().map(topic).collect()
            }),
            ..Default::default()
        };
        if beat.full {
            request.rack_id = (!config.rack.is_empty()).then(|| config.rack.clone());
            request.rebalance_timeout_ms = i32::try_from(config.max_poll_interval.as_millis()).unwrap_or(i32::MAX);
            request.server_assignor.clone_from(&config.server_assignor);
            request.subscribed_topic_regex.clone_from(&config.topics_regex);
            if config.topics_regex.is_none() {
                request.subscribed_topic_names = Some(config.topics.iter().cloned().collect());
            }
        }
        let response = client.request_within(&api, &request, version, config.session_timeout).await?;
        Error::check(response.error_code, format!("group {}", config.group_id), response.error_message)?;
        let assignment = response.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            sorted(topics.map(|t| (t.topic_id, t.partitions)))
        });
        Ok(Answer {
            epoch: response.member_epoch,
            interval: Duration::from_millis(u64::try_from(response.heartbeat_interval_ms).unwrap_or(0)),
            assignment,
        })
    }
}

/// Partitions by topic, each list sorted.
pub(crate) fn sorted(topics: impl Iterator<Item = (Uuid, Vec<i32>)>) -> Assignment {
    let mut assignment = Assignment::new();
    for (id, mut partitions) in topics {
        partitions.sort_unstable();
        assignment.entry(id).or_default().append(&mut partitions);
    }
    assignment
}

/// The partitions of an assignment by name. Topics that this client cannot look up yet are left out and make the result
/// incomplete (`false`).
pub(crate) async fn named(client: &Client, assignment: &Assignment) -> Result<(BTreeMap<TopicPartition, Uuid>, bool)> {
    let (mut found, mut complete) = (BTreeMap::new(), true);
    for (id, partitions) in assignment {
        match client.topic_by_id(*id).await {
            Ok(topic) => {
                let partition = |p: &i32| (TopicPartition::new(topic.name.clone(), *p), *id);
                found.extend(partitions.iter().map(partition));
            }
            Err(error) if error.retriable() => complete = false,
            Err(error) => return Err(error),
        }
    }
    Ok((found, complete))
}

pub(super) struct ConsumerMember {
    membership: Membership<ConsumerHeartbeat>,
    /// What is being read, with the topics' ids.
    owned: BTreeMap<TopicPartition, Uuid>,
    losses: u64,
    /// The assignment that `owned` is, when it is.
    followed: Option<Arc<Assignment>>,
    settled: bool,
}

impl ConsumerMember {
    pub(super) fn join(reader: &Reader) -> Self {
        let config = reader.config.clone();
        let polls = reader.polls.watch(config.max_poll_interval);
        Self {
            membership: Membership::join(reader.client().clone(), ConsumerHeartbeat { config }, polls),
            owned: BTreeMap::new(),
            losses: 0,
            followed: None,
            settled: false,
        }
    }

    pub(super) fn member_id(&self) -> &str {
        self.membership.member_id()
    }

    pub(super) fn epoch(&self) -> i32 {
        self.membership.epoch()
    }

    pub(super) fn settled(&self) -> bool {
        self.settled
    }

    pub(super) async fn changed(&mut self, timeout: Duration) {
        self.membership.changed(timeout).await;
    }

    /// Follows the assignment: first gives up, then takes, then reports.
    pub(super) async fn follow(&mut self, reader: &mut Reader) -> Result<()> {
        let view = self.membership.view()?;
        if view.losses != self.losses {
            // Others own them by now; committing would be refused.
            self.losses = view.losses;
            self.owned.clear();
            self.followed = None;
            reader.release_all();
        }
        let Some(assignment) = view.assignment else {
            self.settled = false;
            return Ok(());
        };
        if self.followed.as_ref() != Some(&assignment) {
            self.take_over(reader, assignment).await?;
        }
        // An assignment that is empty at first often only waits for others to give up theirs.
        self.settled = self.followed.is_some() && (!self.owned.is_empty() || view.answers > 1);
        Ok(())
    }

    async fn take_over(&mut self, reader: &mut Reader, assignment: Arc<Assignment>) -> Result<()> {
        self.followed = None;
        let (wanted, complete) = named(reader.client(), &assignment).await?;
        // A topic of the same name with another id is another topic.
        let stays = |(partition, id): (&TopicPartition, &Uuid)| wanted.get(partition) == Some(id);
        let revoked: Vec<_> = self.owned.iter().filter(|owned| !stays(*owned)).map(|(p, _)| p.clone()).collect();
        if !revoked.is_empty() {
            let member = self.member(reader.config.instance_id.clone());
            reader.commit_before_release(&member).await;
            revoked.iter().for_each(|partition| reader.release(partition));
            self.owned.retain(|partition, id| stays((partition, &*id)));
        }
        let added: Vec<_> = wanted.keys().filter(|p| !self.owned.contains_key(p)).cloned().collect();
        if !added.is_empty() {
            let member = self.member(reader.config.instance_id.clone());
            match reader.start_reading(&added, &member).await {
                Ok(()) => self.owned.extend(wanted),
                // The heartbeats will tell, of a deleted topic too; what was given up is reported in any case.
                Err(error) if outdated(&error) || error.stale_metadata() || matches!(error, Error::UnknownTopic(_)) => {
                    tracing::debug!(%error, "the assignment is followed later");
                }
                Err(error) => return Err(error),
            }
        }
        self.membership.own(self.losses, self.by_id());
        if complete && self.owned.len() == assignment.values().map(Vec::len).sum::<usize>() {
            self.followed = Some(assignment);
        }
        Ok(())
    }

    fn by_id(&self) -> Assignment {
        sorted(self.owned.iter().map(|(partition, id)| (*id, vec![partition.partition])))
    }

    /// As the coordinator knows this member now.
    pub(super) fn member(&self, instance_id: Option<String>) -> Member {
        Member { id: self.member_id().to_owned(), generation: self.epoch(), instance_id }
    }

    pub(super) async fn leave(self) -> Result<()> {
        self.membership.leave().await
    }
}

/// Whether an answer says that the member's epoch has moved on, or that it is not a member.
pub(super) fn outdated(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::StaleMemberEpoch | ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId)
    )
}
