//! StreamsGroupDescribe, key 89, v0 (KIP-1071). Groups of other kinds are GROUP_ID_NOT_FOUND.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use taccola_wire::messages::streams_group_describe_response::{DescribedGroup, StreamsGroupDescribeResponse};

use super::k088_streams_group_heartbeat::is_served;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let served = is_served(broker);
    let described = request.group_ids.into_iter().map(|id| {
        let described = if served { describe(broker, &id) } else { Err(ErrorCode::UnsupportedVersion) };
        let mut group = described.unwrap_or_else(|error| DescribedGroup {
            group_id: id.clone(),
            error_code: error.code(),
            ..Default::default()
        });
        if request.include_authorized_operations && group.error_code == ErrorCode::None.code() {
            group.authorized_operations = operations::GROUP;
        }
        group
    });
    StreamsGroupDescribeResponse { groups: described.collect(), ..Default::default() }
}

fn describe(broker: &Broker, id: &str) -> Result<DescribedGroup, ErrorCode> {
    if id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let partition = broker.group_partition(id)?;
    broker.groups.look(partition, |groups| groups.describe_streams_group(id))
}
