//! DescribeGroups, key 15, v0–v6. Classic groups; others are told dead, and from v6 on GROUP_ID_NOT_FOUND.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_groups_request::DescribeGroupsRequest;
use taccola_wire::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::operations;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let described = request.groups.into_iter().map(|id| {
        let mut group = describe(broker, context.api_version, &id).unwrap_or_else(|error| DescribedGroup {
            group_id: id.clone(),
            error_code: error.code(),
            ..Default::default()
        });
        if request.include_authorized_operations && group.error_code == ErrorCode::None.code() {
            group.authorized_operations = operations::GROUP;
        }
        group
    });
    DescribeGroupsResponse { groups: described.collect(), ..Default::default() }
}

fn describe(broker: &Broker, version: i16, id: &str) -> Result<DescribedGroup, ErrorCode> {
    let partition = broker.group_partition(id)?;
    let ids = [id.to_owned()];
    let described = broker.groups.look(partition, |groups| groups.describe_groups(version, &ids))?;
    described.into_iter().next().ok_or(ErrorCode::GroupIdNotFound)
}
