//! ShareGroupDescribe, key 77, v1 (KIP-932). A group that is not there, or is no share group, is GROUP_ID_NOT_FOUND.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::share_group_describe_request::ShareGroupDescribeRequest;
use taccola_wire::messages::share_group_describe_response::{DescribedGroup, ShareGroupDescribeResponse};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

pub async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let enabled = broker.share_groups_enabled();
    let groups = request.group_ids.into_iter().map(|group_id| {
        let described = match enabled {
            true => describe(broker, &group_id),
            false => Err(ErrorCode::UnsupportedVersion),
        };
        let mut group = described.unwrap_or_else(|error| DescribedGroup {
            group_id,
            error_code: error.code(),
            ..Default::default()
        });
        if request.include_authorized_operations && group.error_code == ErrorCode::None.code() {
            group.authorized_operations = operations::GROUP;
        }
        group
    });
    ShareGroupDescribeResponse { groups: groups.collect(), ..Default::default() }
}

fn describe(broker: &Broker, group_id: &str) -> Result<DescribedGroup, ErrorCode> {
    if group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let partition = broker.group_partition(group_id)?;
    broker.groups.look(partition, |groups| groups.describe_share_group(group_id))
}
