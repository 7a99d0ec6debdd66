//! Transactions on this broker: the coordinator of transactional ids, the markers that it has written, and the question
//! that comes before a transaction's first batch in a partition. Answers to Kafka's `TransactionCoordinator`,
//! `TransactionMarkerChannelManager` and `AddPartitionsToTxnManager`.
//!
//! Coordinator and partitions are this broker's own, so nothing goes over the wire; the APIs among brokers
//! (AddPartitionsToTxn v4 and later, WriteTxnMarkers) answer by the same functions.

pub(crate) mod markers;
pub(crate) mod produce;
pub(crate) mod verification;

use std::sync::Arc;

use taccola_base::config::ServerConfig;
use taccola_base::topic::TRANSACTION_STATE_TOPIC;
use taccola_coord::transaction::{
    NeedsProducerId, TransactionAction, TransactionConfig, TransactionEffects, TransactionResponse, TransactionShard,
};
use taccola_coord::{Effects, Reply};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTransaction;
use taccola_wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::partition::Durability;
use crate::runtime::coordinator::{Call, Caller, Coordinator, image, partition_for};
use crate::runtime::journal::JournalRuntime;

/// Transactional ids and their transactions.
pub type TransactionCoordinator = Coordinator<TransactionShard>;

/// Kafka writes `__transaction_state` uncompressed.
const NO_COMPRESSION: i8 = 0;

pub(crate) fn coordinator(
    config: &ServerConfig,
    durability: Durability,
    journal: Arc<JournalRuntime>,
) -> Arc<TransactionCoordinator> {
    TransactionCoordinator::new(
        TransactionConfig::new(&config.transactions),
        image::view(Arc::default()),
        NO_COMPRESSION,
        durability,
        journal,
        tokio::runtime::Handle::current(),
    )
}

/// Has the broker write the markers that the shards ask for.
pub(crate) fn serve_actions(broker: &Arc<Broker>) {
    let weak = Arc::downgrade(broker);
    let handle = tokio::runtime::Handle::current();
    broker.transactions.on_action(move |partition, action| {
        let TransactionAction::SendMarkers(asked) = action;
        // The shard is locked here. LIMIT: one task for each decided transaction, which the shard bounds.
        handle.spawn(markers::carry_out(weak.clone(), partition, asked));
    });
}

impl Broker {
    /// The partition of `__transaction_state` that a transactional id belongs to.
    pub fn transaction_partition(&self, transactional_id: &str) -> Result<i32, ErrorCode> {
        let image = self.image();
        let topic = image.topics.by_name(TRANSACTION_STATE_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
        let partitions = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
        Ok(partition_for(transactional_id, partitions))
    }

    /// Runs a request that may turn out to need a producer id which nobody had before.
    pub(crate) async fn transact<R>(
        &self,
        context: &RequestContext,
        transactional_id: &str,
        mut handle: impl FnMut(
            &mut TransactionShard,
            Call<'_>,
            Option<i64>,
        ) -> Result<TransactionEffects<R>, NeedsProducerId>,
        take: impl Fn(TransactionResponse) -> Option<R>,
    ) -> Result<R, ErrorCode> {
        let mut fresh = None;
        // Once without an id, once with one.
        for _ in 0..2 {
            let partition = self.transaction_partition(transactional_id)?;
            let answer = self.transactions.call(
                partition,
                context,
                |shard, call| match handle(shard, call, fresh) {
                    Ok(effects) => map(effects, Ok),
                    Err(needs) => nothing(Err(needs)),
                },
                |response| take(response).map(Ok),
            );
            match answer.await? {
                Ok(response) => return Ok(response),
                Err(NeedsProducerId) => fresh = Some(self.next_producer_id().await?),
            }
        }
        Err(ErrorCode::UnknownServerError)
    }

    /// Adds partitions to a transaction, or finds out whether they are part of it. Errors are told partition by partition.
    pub(crate) async fn add_partitions_to_txn(
        &self,
        api_version: i16,
        request: &AddPartitionsToTxnTransaction,
    ) -> AddPartitionsToTxnResult {
        let partition = match self.transaction_partition(&request.transactional_id) {
            Ok(partition) => partition,
            Err(error) => return add_partitions_error(request, |_, _| error),
        };
        let added = self.transactions.call_as(
            partition,
            Caller { api_version, client_id: "", client_host: "" },
            |shard, call| shard.handle_add_partitions(call.now_ms, &call.context, request),
            |response| match response {
                TransactionResponse::AddPartitions(result) => Some(result),
                _ => None,
            },
        );
        added.await.unwrap_or_else(|error| add_partitions_error(request, |_, _| error))
    }
}

pub(crate) fn add_partitions_error(
    request: &AddPartitionsToTxnTransaction,
    error: impl Fn(&str, i32) -> ErrorCode,
) -> AddPartitionsToTxnResult {
    let topic_results = request.topics.iter().map(|topic| {
        let row = |partition_index: &i32| AddPartitionsToTxnPartitionResult {
            partition_index: *partition_index,
            partition_error_code: error(&topic.name, *partition_index).code(),
        };
        AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: topic.partitions.iter().map(row).collect(),
        }
    });
    AddPartitionsToTxnResult {
        transactional_id: request.transactional_id.clone(),
        topic_results: topic_results.collect(),
    }
}

fn map<R, T>(effects: TransactionEffects<R>, f: impl FnOnce(R) -> T) -> TransactionEffects<T> {
    let Effects { records, batch, append, response, released, timers, actions } = effects;
    let response = match response {
        Reply::Now(response) => Reply::Now(f(response)),
        Reply::Parked => Reply::Parked,
    };
    Effects { records, batch, append, response, released, timers, actions }
}

fn nothing<T>(response: T) -> TransactionEffects<T> {
    Effects {
        records: Vec::new(),
        batch: Default::default(),
        append: None,
        response: Reply::Now(response),
        released: Vec::new(),
        timers: Vec::new(),
        actions: Vec::new(),
    }
}
