//! FindCoordinator, key 10, v0–v6.
//!
//! Behaviour: names the broker that leads the partition of `__consumer_offsets` or `__transaction_state` that the group or
//! transactional id belongs to; the topic is created if it is not there. Version notes: v1 has key types, v4 takes several
//! keys, v6 knows share partitions, whose keys are `groupId:topicId:partition`. INVALID_REQUEST for types that a version
//! does not know.

use std::sync::Arc;

use taccola_base::topic::{GROUP_METADATA_TOPIC, SHARE_GROUP_STATE_TOPIC, TRANSACTION_STATE_TOPIC};
use taccola_coord::share_state::SharePartitionKey;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use taccola_wire::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};

use crate::broker::{Broker, BrokerEndpoint};
use crate::context::RequestContext;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// Several keys in one request from this version on.
const BATCH_SINCE: i16 = 4;
const SHARE_SINCE: i16 = 6;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys = if context.api_version >= BATCH_SINCE { request.coordinator_keys } else { vec![request.key] };
    let mut coordinators = Vec::new();
    for key in keys {
        let found = find(broker, context, request.key_type, &key).await;
        coordinators.push(coordinator(key, found));
    }
    if context.api_version >= BATCH_SINCE {
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let Some(only) = coordinators.pop() else { return FindCoordinatorResponse::default() };
    FindCoordinatorResponse {
        error_code: only.error_code,
        // Kafka names what is no error in these versions.
        error_message: match only.error_code {
            0 => Some(ErrorCode::None.name().to_owned()),
            _ => only.error_message,
        },
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

async fn find(
    broker: &Arc<Broker>,
    context: &RequestContext,
    key_type: i8,
    key: &str,
) -> Result<BrokerEndpoint, ErrorCode> {
    let topic = match key_type {
        GROUP => GROUP_METADATA_TOPIC,
        TRANSACTION => TRANSACTION_STATE_TOPIC,
        SHARE if context.api_version >= SHARE_SINCE => return find_share(broker, context, key).await,
        _ => return Err(ErrorCode::InvalidRequest),
    };
    if broker.image().topics.by_name(topic).is_none() {
        broker.auto_create(std::iter::once(topic)).await;
    }
    let partition = match key_type {
        TRANSACTION => broker.transaction_partition(key).map_err(|_| ErrorCode::CoordinatorNotAvailable)?,
        _ => broker.group_partition(key)?,
    };
    let (leader, _) = broker.current_leader(topic, partition).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let image = broker.image();
    broker.endpoint(&image, &context.connection, leader).ok_or(ErrorCode::CoordinatorNotAvailable)
}

/// A share partition's coordinator: `groupId:topicId:partition`.
async fn find_share(broker: &Arc<Broker>, context: &RequestContext, key: &str) -> Result<BrokerEndpoint, ErrorCode> {
    let key = SharePartitionKey::parse(key).ok_or(ErrorCode::InvalidRequest)?;
    let partition = broker.share_state_partition(&key).await?;
    let leader = broker.current_leader(SHARE_GROUP_STATE_TOPIC, partition);
    let (leader, _) = leader.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let image = broker.image();
    broker.endpoint(&image, &context.connection, leader).ok_or(ErrorCode::CoordinatorNotAvailable)
}

fn coordinator(key: String, found: Result<BrokerEndpoint, ErrorCode>) -> Coordinator {
    match found {
        Ok(e) => Coordinator { key, node_id: e.node_id, host: e.host, port: e.port, ..Default::default() },
        Err(error) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: error.code(),
            error_message: Some(error.message().to_owned()),
            ..Default::default()
        },
    }
}
