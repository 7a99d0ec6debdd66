//! DeleteGroups, key 42, v0–v2. Each group is deleted by its own coordinator: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.

use std::sync::Arc;

use taccola_coord::Response;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_groups_request::DeleteGroupsRequest;
use taccola_wire::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

pub async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results: Vec<DeletableGroupResult> = Vec::new();
    for group_id in request.groups_names {
        if results.iter().any(|result| result.group_id == group_id) {
            continue;
        }
        let deleted = delete(broker, context, &group_id).await;
        results.push(deleted.unwrap_or_else(|error| DeletableGroupResult { group_id, error_code: error.code() }));
    }
    DeleteGroupsResponse { results, ..Default::default() }
}

async fn delete(
    broker: &Arc<Broker>,
    context: &RequestContext,
    group_id: &str,
) -> Result<DeletableGroupResult, ErrorCode> {
    let partition = broker.group_partition(group_id)?;
    broker.forget_share_group(context, group_id).await?;
    let ids = [group_id.to_owned()];
    let deleted = broker.groups.call(
        partition,
        context,
        |groups, call| groups.handle_delete_groups(call.now_ms, &call.context, &ids),
        |response| match response {
            Response::DeleteGroups(results) => Some(results),
            _ => None,
        },
    );
    deleted.await?.into_iter().next().ok_or(ErrorCode::GroupIdNotFound)
}
