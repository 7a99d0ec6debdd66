//! ListGroups, key 16, v0–v5. All groups whose shards are loaded; COORDINATOR_LOAD_IN_PROGRESS with what there is while
//! some are not. Version notes: v4 filters by state, v5 by type.

use std::sync::Arc;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::broker::Broker;
use crate::context::RequestContext;

const STATES_SINCE: i16 = 4;
const TYPES_SINCE: i16 = 5;

pub async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let mut response = ListGroupsResponse::default();
    let all = broker.groups.look_at_all(|groups| response.groups.extend(groups.list_groups(&request)));
    if !all {
        response.error_code = ErrorCode::CoordinatorLoadInProgress.code();
    }
    for group in &mut response.groups {
        if context.api_version < STATES_SINCE {
            group.group_state.clear();
        }
        if context.api_version < TYPES_SINCE {
            group.group_type.clear();
        }
    }
    response
}
