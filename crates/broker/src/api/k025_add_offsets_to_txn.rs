//! AddOffsetsToTxn, key 25, v0–v4.
//!
//! Behaviour: the partition of `__consumer_offsets` that keeps the group's offsets becomes part of the transaction.

use std::sync::Arc;

use taccola_base::topic::GROUP_METADATA_TOPIC;
use taccola_coord::transaction::TransactionResponse;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let added = add(broker, context, &request).await;
    added.unwrap_or_else(|error| AddOffsetsToTxnResponse { error_code: error.code(), ..Default::default() })
}

async fn add(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: &AddOffsetsToTxnRequest,
) -> Result<AddOffsetsToTxnResponse, ErrorCode> {
    if broker.image().topics.by_name(GROUP_METADATA_TOPIC).is_none() {
        broker.auto_create(std::iter::once(GROUP_METADATA_TOPIC)).await;
    }
    let offsets = broker.group_partition(&request.group_id)?;
    let partition = broker.transaction_partition(&request.transactional_id)?;
    let added = broker.transactions.call(
        partition,
        context,
        |shard, call| shard.handle_add_offsets(call.now_ms, &call.context, request, GROUP_METADATA_TOPIC, offsets),
        |response| match response {
            TransactionResponse::AddOffsets(response) => Some(response),
            _ => None,
        },
    );
    added.await
}
