//! ConsumerGroupDescribe, key 69, v0–v1 (KIP-848). Groups of other kinds are GROUP_ID_NOT_FOUND. Version notes: v1 tells
//! members of the classic protocol from others.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use taccola_wire::messages::consumer_group_describe_response::{ConsumerGroupDescribeResponse, DescribedGroup};

use super::k068_consumer_group_heartbeat::is_served;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
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
    ConsumerGroupDescribeResponse { groups: described.collect(), ..Default::default() }
}

fn describe(broker: &Broker, id: &str) -> Result<DescribedGroup, ErrorCode> {
    if id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let partition = broker.group_partition(id)?;
    let ids = [id.to_owned()];
    let described = broker.groups.look(partition, |groups| groups.describe_consumer_groups(&ids))?;
    described.into_iter().next().ok_or(ErrorCode::GroupIdNotFound)
}
