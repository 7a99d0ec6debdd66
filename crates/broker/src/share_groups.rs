//! What share groups need besides a step of their shard: the group coordinator decides, the share coordinator of each
//! partition is asked, the group coordinator records what became of it. Answers to the share half of Kafka's
//! `GroupCoordinatorService`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use taccola_base::Uuid;
use taccola_coord::share::{Assignment, HeartbeatReply, OffsetsReply, ShareReply, StateChange};
use taccola_coord::share_state::{SharePartitionKey, ShareStateError};
use taccola_coord::{Effects, GroupShard, RequestContext as ShardContext, Response};
use taccola_meta::feature::SHARE_VERSION;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{AlterShareGroupOffsetsRequest, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::runtime::coordinator::{Call, Caller};

/// What the share coordinator said about each partition.
pub(crate) type StateOutcomes = BTreeMap<Uuid, BTreeMap<i32, Result<(), ShareStateError>>>;

/// Share partitions that are asked about at a time for one group.
const ASKED_AT_A_TIME: usize = 256;

/// What a share coordinator is asked for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Initialize,
    Delete,
}

impl Broker {
    /// Whether the cluster has share groups: `share.version` is finalized at 1.
    pub(crate) fn share_groups_enabled(&self) -> bool {
        self.image().features.level(SHARE_VERSION) >= 1
    }

    /// One heartbeat; state of new partitions is set up after the reply, for a later heartbeat to assign them.
    pub(crate) async fn share_group_heartbeat(
        self: &Arc<Self>,
        context: &RequestContext,
        request: ShareGroupHeartbeatRequest,
    ) -> Result<ShareGroupHeartbeatResponse, ErrorCode> {
        let partition = self.group_partition(&request.group_id)?;
        let reply = self.groups.call(
            partition,
            context,
            |shard, call| shard.handle_share_group_heartbeat(call.now_ms, &call.context, &request),
            |response| match response {
                Response::Share(ShareReply::Heartbeat(reply)) => Some(*reply),
                _ => None,
            },
        );
        let HeartbeatReply { response, initialize } = reply.await?;
        if let Some(change) = initialize {
            let (broker, group_id) = (self.clone(), request.group_id);
            tokio::spawn(async move { broker.initialize_share_partitions(&group_id, change).await });
        }
        Ok(response)
    }

    /// Has state set up, and recorded as set up. What fails is tried again by a later heartbeat.
    async fn initialize_share_partitions(&self, group_id: &str, change: StateChange) {
        let outcomes = self.ask_share_states(group_id, &change, Ask::Initialize).await;
        let failure = outcomes.values().flat_map(BTreeMap::values).find_map(|outcome| outcome.as_ref().err());
        let partitions: Assignment =
            outcomes.iter().map(|(id, partitions)| (*id, partitions.keys().copied().collect())).collect();
        let recorded = match failure {
            None => self.record_initialized(group_id, &partitions).await,
            Some(error) => {
                tracing::warn!(group_id, %error, "state of a share group's partitions is not set up");
                Err(error.code)
            }
        };
        if recorded.is_err() {
            let undone = self.ask_share_group(group_id, |shard, _, ctx| {
                shard.handle_share_state_uninitialized(ctx, group_id, &partitions)
            });
            if let Err(error) = undone.await {
                tracing::warn!(group_id, ?error, "partitions of a share group stay marked as being set up");
            }
        }
    }

    async fn record_initialized(&self, group_id: &str, partitions: &Assignment) -> Result<(), ErrorCode> {
        let recorded = self.ask_share_group(group_id, |shard, now_ms, ctx| {
            shard.handle_share_state_initialized(now_ms, ctx, group_id, partitions)
        });
        match recorded.await? {
            ShareReply::Done(done) => done,
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    /// Asks the share coordinators of all partitions of a change.
    async fn ask_share_states(&self, group_id: &str, change: &StateChange, what: Ask) -> StateOutcomes {
        let group_id: Arc<str> = group_id.into();
        let all: Vec<(Uuid, i32, i64)> = change
            .partitions
            .iter()
            .flat_map(|(id, partitions)| partitions.iter().map(|(partition, offset)| (*id, *partition, *offset)))
            .collect();
        let mut outcomes = StateOutcomes::new();
        for some in all.chunks(ASKED_AT_A_TIME) {
            let asked = some.iter().map(|(topic_id, partition, offset)| {
                let key = SharePartitionKey { group_id: group_id.clone(), topic_id: *topic_id, partition: *partition };
                let offset = *offset;
                async move {
                    match what {
                        Ask::Initialize => self.initialize_share_state(&key, change.state_epoch, offset).await,
                        Ask::Delete => self.delete_share_state(&key).await,
                    }
                }
            });
            for ((topic_id, partition, _), outcome) in some.iter().zip(join_all(asked).await) {
                outcomes.entry(*topic_id).or_default().insert(*partition, outcome);
            }
        }
        outcomes
    }

    /// New start offsets for an empty group. The outcomes are those of partitions that exist.
    pub(crate) async fn alter_share_group_offsets(
        &self,
        context: &RequestContext,
        request: &AlterShareGroupOffsetsRequest,
    ) -> Result<(OffsetsReply, StateOutcomes), ErrorCode> {
        let group_id = request.group_id.as_str();
        let planned = self.call_share_group(group_id, context, |shard, now_ms, ctx| {
            shard.handle_alter_share_group_offsets(now_ms, ctx, request)
        });
        let ShareReply::Offsets(reply) = planned.await? else { return Err(ErrorCode::UnknownServerError) };
        let Some(change) = &reply.change else { return Ok((reply, StateOutcomes::new())) };
        let outcomes = self.ask_share_states(group_id, change, Ask::Initialize).await;
        // With an error among them, all count as being set up still, until a member's heartbeat has it done again.
        if outcomes.values().flat_map(BTreeMap::values).all(Result::is_ok) {
            let partitions: Assignment =
                outcomes.iter().map(|(id, partitions)| (*id, partitions.keys().copied().collect())).collect();
            self.record_initialized(group_id, &partitions).await?;
        }
        Ok((reply, outcomes))
    }

    /// Forgets the state of topics of an empty group.
    pub(crate) async fn delete_share_group_offsets(
        &self,
        context: &RequestContext,
        group_id: &str,
        names: &[String],
    ) -> Result<(OffsetsReply, StateOutcomes), ErrorCode> {
        let planned = self.call_share_group(group_id, context, |shard, _, ctx| {
            shard.handle_delete_share_group_offsets(ctx, group_id, names)
        });
        let ShareReply::Offsets(reply) = planned.await? else { return Err(ErrorCode::UnknownServerError) };
        let Some(change) = &reply.change else { return Ok((reply, StateOutcomes::new())) };
        let outcomes = self.ask_share_states(group_id, change, Ask::Delete).await;
        let done: BTreeSet<Uuid> = outcomes
            .iter()
            .filter(|(_, partitions)| partitions.values().all(Result::is_ok))
            .map(|(id, _)| *id)
            .collect();
        if !done.is_empty() {
            self.ask_share_group(group_id, |shard, _, ctx| shard.handle_share_offsets_deleted(ctx, group_id, &done))
                .await?;
        }
        Ok((reply, outcomes))
    }

    /// Before a share group is deleted: has all its state forgotten. Nothing happens to groups of other kinds.
    pub(crate) async fn forget_share_group(&self, context: &RequestContext, group_id: &str) -> Result<(), ErrorCode> {
        let planned =
            self.call_share_group(group_id, context, |shard, _, ctx| shard.handle_share_group_forget(ctx, group_id));
        let ShareReply::Forget(planned) = planned.await? else { return Err(ErrorCode::UnknownServerError) };
        let Some(change) = planned? else { return Ok(()) };
        let outcomes = self.ask_share_states(group_id, &change, Ask::Delete).await;
        match outcomes.values().flat_map(BTreeMap::values).find_map(|outcome| outcome.as_ref().err()) {
            Some(error) => Err(error.code),
            None => Ok(()),
        }
    }

    /// A step in a client's name.
    async fn call_share_group(
        &self,
        group_id: &str,
        context: &RequestContext,
        handle: impl FnOnce(&mut GroupShard, i64, &ShardContext<'_>) -> Effects<ShareReply>,
    ) -> Result<ShareReply, ErrorCode> {
        let partition = self.group_partition(group_id)?;
        let handle = |shard: &mut GroupShard, call: Call<'_>| handle(shard, call.now_ms, &call.context);
        self.groups.call(partition, context, handle, share_reply).await
    }

    /// A step in the broker's own name.
    async fn ask_share_group(
        &self,
        group_id: &str,
        handle: impl FnOnce(&mut GroupShard, i64, &ShardContext<'_>) -> Effects<ShareReply>,
    ) -> Result<ShareReply, ErrorCode> {
        let partition = self.group_partition(group_id)?;
        let who = Caller { api_version: 0, client_id: "", client_host: "" };
        let handle = |shard: &mut GroupShard, call: Call<'_>| handle(shard, call.now_ms, &call.context);
        self.groups.call_as(partition, who, handle, share_reply).await
    }
}

fn share_reply(response: Response) -> Option<ShareReply> {
    match response {
        Response::Share(reply) => Some(reply),
        _ => None,
    }
}
