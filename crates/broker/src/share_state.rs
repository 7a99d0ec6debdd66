//! The persister of share groups: state of share partitions, read and written at the share coordinator of each. Every
//! coordinator is this broker's own, so nothing goes over the wire; the inter-broker APIs (keys 83 to 87) answer by the
//! same functions. Answers to Kafka's `ShareCoordinatorService` and `DefaultStatePersister`.

use std::sync::{Arc, Weak};

use futures_util::future::join_all;
use taccola_base::Uuid;
use taccola_base::config::ServerConfig;
use taccola_base::topic::SHARE_GROUP_STATE_TOPIC;
use taccola_coord::share_state::{
    ReadState, SharePartitionKey, ShareStateAction, ShareStateConfig, ShareStateError, ShareStateReply,
    ShareStateShard, StateSummary, WriteState,
};
use taccola_coord::{EffectsOf, RequestContext};
use taccola_wire::error::ErrorCode;

use crate::broker::Broker;
use crate::clock;
use crate::partition::Durability;
use crate::runtime::blocking;
use crate::runtime::coordinator::{Call, Caller, Coordinator, image, partition_for};
use crate::runtime::housekeeping;
use crate::runtime::journal::JournalRuntime;

/// The state of share partitions.
pub type ShareStateCoordinator = Coordinator<ShareStateShard>;

pub(crate) fn coordinator(
    config: &ServerConfig,
    durability: Durability,
    journal: Arc<JournalRuntime>,
) -> Arc<ShareStateCoordinator> {
    ShareStateCoordinator::new(
        ShareStateConfig::new(&config.share),
        image::view(Arc::default()),
        config.share.topic_compression_codec,
        durability,
        journal,
        tokio::runtime::Handle::current(),
    )
}

/// Has the broker cut off what the shards no longer need.
pub(crate) fn serve_actions(broker: &Arc<Broker>) {
    let weak = Arc::downgrade(broker);
    let handle = tokio::runtime::Handle::current();
    broker.share_states.on_action(move |partition, action| {
        let weak = weak.clone();
        // The shard is locked, and this touches the disk.
        blocking::spawn_on(&handle, move || delete_records(&weak, partition, action));
    });
}

fn delete_records(broker: &Weak<Broker>, partition: i32, action: ShareStateAction) {
    let Some(broker) = broker.upgrade() else { return };
    let ShareStateAction::DeleteRecordsBefore(offset) = action;
    let Some(partition) = broker.partitions.get(SHARE_GROUP_STATE_TOPIC, partition) else { return };
    let deleted =
        partition.with_log(|log| log.delete_records_before(offset.min(log.high_watermark()), clock::now_ms()));
    match deleted {
        Some(Ok(_)) => {
            housekeeping::write_log_start_offsets(&broker);
        }
        Some(Err(error)) => {
            tracing::warn!(partition = %partition.topic_partition, %error, "redundant share state stays in the log");
        }
        None => {}
    }
}

impl Broker {
    /// The partition of `__share_group_state` that a share partition belongs to. The topic is created if it is missing.
    pub async fn share_state_partition(&self, key: &SharePartitionKey) -> Result<i32, ErrorCode> {
        if self.image().topics.by_name(SHARE_GROUP_STATE_TOPIC).is_none() {
            self.auto_create(std::iter::once(SHARE_GROUP_STATE_TOPIC)).await;
        }
        let image = self.image();
        let topic = image.topics.by_name(SHARE_GROUP_STATE_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let partitions = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
        Ok(partition_for(&key.coordinator_key(), partitions))
    }

    /// Sets up the state of a share partition, or sets it back. `start_offset` -1 leaves it to the partition's leader.
    pub async fn initialize_share_state(
        &self,
        key: &SharePartitionKey,
        state_epoch: i32,
        start_offset: i64,
    ) -> Result<(), ShareStateError> {
        let reply = self.ask_share_state(key, |shard, call, ctx| {
            shard.handle_initialize(call, ctx, key, state_epoch, start_offset)
        });
        done(reply.await?)
    }

    /// Adds deliveries to the state of a share partition; they are committed when this returns.
    pub async fn write_share_state(&self, key: &SharePartitionKey, write: &WriteState) -> Result<(), ShareStateError> {
        done(self.ask_share_state(key, |shard, now_ms, ctx| shard.handle_write(now_ms, ctx, key, write)).await?)
    }

    /// The state of a share partition; the leader epoch, unless it is -1, fences leaders before it.
    pub async fn read_share_state(
        &self,
        key: &SharePartitionKey,
        leader_epoch: i32,
    ) -> Result<ReadState, ShareStateError> {
        let reply = self.ask_share_state(key, |shard, now_ms, ctx| shard.handle_read(now_ms, ctx, key, leader_epoch));
        match reply.await? {
            ShareStateReply::Read(read) => read,
            _ => Err(ErrorCode::UnknownServerError.into()),
        }
    }

    /// Epochs and offsets of a share partition, known or not.
    pub async fn share_state_summary(&self, key: &SharePartitionKey) -> Result<StateSummary, ShareStateError> {
        match self.ask_share_state(key, |shard, _, ctx| shard.handle_summary(ctx, key)).await? {
            ShareStateReply::Summary(summary) => summary,
            _ => Err(ErrorCode::UnknownServerError.into()),
        }
    }

    /// Forgets the state of a share partition.
    pub async fn delete_share_state(&self, key: &SharePartitionKey) -> Result<(), ShareStateError> {
        done(self.ask_share_state(key, |shard, _, ctx| shard.handle_delete(ctx, key)).await?)
    }

    /// Asks the share coordinator of one share partition, and waits no longer than `share.coordinator.write.timeout.ms`.
    async fn ask_share_state(
        &self,
        key: &SharePartitionKey,
        handle: impl FnOnce(&mut ShareStateShard, i64, &RequestContext<'_>) -> EffectsOf<ShareStateShard, ShareStateReply>,
    ) -> Result<ShareStateReply, ShareStateError> {
        let partition = self.share_state_partition(key).await?;
        let who = Caller { api_version: 0, client_id: "", client_host: "" };
        let handle = |shard: &mut ShareStateShard, call: Call<'_>| handle(shard, call.now_ms, &call.context);
        let asked = self.share_states.call_as(partition, who, handle, Some);
        match tokio::time::timeout(self.config.share.write_timeout, asked).await {
            Ok(reply) => Ok(reply?),
            Err(_) => Err(ErrorCode::CoordinatorNotAvailable.into()),
        }
    }
}

fn done(reply: ShareStateReply) -> Result<(), ShareStateError> {
    match reply {
        ShareStateReply::Done(done) => done,
        _ => Err(ErrorCode::UnknownServerError.into()),
    }
}

/// The code and the message of a partition's row that says nothing else.
pub(crate) fn told(done: Result<(), ShareStateError>) -> (i16, Option<String>) {
    match done {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => (error.code.code(), Some(error.message.into_owned())),
    }
}

/// Answers a request about share state partition by partition, in the request's order. All at a time: the records of
/// different share partitions wait for one flush. A request that names no group, or a topic without partitions, is answered
/// with nothing, as Kafka does.
pub(crate) async fn by_partition<P, F: Future>(
    group_id: String,
    topics: Vec<(Uuid, Vec<P>)>,
    number: impl Fn(&P) -> i32,
    row: impl Fn(SharePartitionKey, P) -> F,
) -> Vec<(Uuid, Vec<F::Output>)> {
    if group_id.is_empty() || topics.is_empty() || topics.iter().any(|(_, partitions)| partitions.is_empty()) {
        return Vec::new();
    }
    let group_id: Arc<str> = group_id.into();
    let topics = topics.into_iter().map(|(topic_id, partitions)| {
        let rows = partitions.into_iter().map(|partition| {
            let key = SharePartitionKey { group_id: group_id.clone(), topic_id, partition: number(&partition) };
            row(key, partition)
        });
        let rows = join_all(rows);
        async move { (topic_id, rows.await) }
    });
    join_all(topics).await
}
