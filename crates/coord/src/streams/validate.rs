//! What a StreamsGroupHeartbeat must look like, whatever the group. Answers to `GroupCoordinatorService`'s checks; the
//! texts are those that Kafka's clients show.

use std::collections::BTreeSet;

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::StreamsGroupHeartbeatRequest;
use taccola_wire::messages::streams_group_heartbeat_request::{TaskIds, Topology};

use super::internal_topics::ConfiguredTopology;
use crate::modern::{JOIN_EPOCH, LEAVE_STATIC_EPOCH};

/// Why a heartbeat is refused.
pub(super) type Refused = (ErrorCode, String);

fn invalid(message: impl Into<String>) -> Refused {
    (ErrorCode::InvalidRequest, message.into())
}

fn require(holds: bool, message: &str) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(invalid(message)) }
}

fn none_or_empty<T>(list: Option<&Vec<T>>) -> bool {
    list.is_none_or(Vec::is_empty)
}

pub(super) fn check_request(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refused> {
    check_supported(request)?;
    let not_blank = |text: Option<&String>| text.is_none_or(|text| !text.trim().is_empty());
    require(not_blank(Some(&request.member_id)), "MemberId can't be empty.")?;
    require(not_blank(Some(&request.group_id)), "GroupId can't be empty.")?;
    require(not_blank(request.rack_id.as_ref()), "RackId can't be empty.")?;
    match request.member_epoch {
        JOIN_EPOCH => check_join(request)?,
        LEAVE_STATIC_EPOCH => return Err(invalid("InstanceId can't be null.")),
        epoch if epoch < LEAVE_STATIC_EPOCH => {
            return Err(invalid(format!("MemberEpoch is {epoch}, but must be greater than or equal to -2.")));
        }
        _ => require(request.topology.is_none(), "Topology can only be provided when (re-)joining.")?,
    }
    let given = [&request.active_tasks, &request.standby_tasks, &request.warmup_tasks].map(Option::is_some);
    require(given == [true; 3] || given == [false; 3], "If one task-type is non-null, all must be non-null.")
}

/// What Kafka 4.3 has a place for in the request and refuses.
fn check_supported(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refused> {
    require(request.instance_id.is_none(), "Static membership is not yet supported.")?;
    require(request.task_offsets.is_none(), "TaskOffsets are not supported yet.")?;
    require(request.task_end_offsets.is_none(), "TaskEndOffsets are not supported yet.")?;
    require(none_or_empty(request.warmup_tasks.as_ref()), "WarmupTasks are not supported yet.")?;
    let regex = request.topology.iter().flat_map(|t| &t.subtopologies).any(|s| !s.source_topic_regex.is_empty());
    require(!regex, "Regular expressions for source topics are not supported yet.")
}

fn check_join(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refused> {
    require(request.rebalance_timeout_ms != -1, "RebalanceTimeoutMs must be provided in first request.")?;
    require(none_or_empty(request.active_tasks.as_ref()), "ActiveTasks must be empty when (re-)joining.")?;
    require(none_or_empty(request.standby_tasks.as_ref()), "StandbyTasks must be empty when (re-)joining.")?;
    require(none_or_empty(request.warmup_tasks.as_ref()), "WarmupTasks must be empty when (re-)joining.")?;
    let topology = request.topology.as_ref().ok_or_else(|| invalid("Topology must be non-null when (re-)joining."))?;
    check_topology(topology)
}

fn check_topology(topology: &Topology) -> Result<(), Refused> {
    let wrong = |message: String| Err((ErrorCode::StreamsInvalidTopology, message));
    for topic in topology.subtopologies.iter().flat_map(|s| &s.state_changelog_topics) {
        if topic.partitions != 0 {
            return wrong(format!(
                "Changelog topic {} must have an undefined partition count, but it is set to {}.",
                topic.name, topic.partitions
            ));
        }
    }
    let fixed = topology.subtopologies.iter().flat_map(|s| &s.repartition_source_topics);
    if let Some(topic) = fixed.into_iter().find(|topic| topic.partitions < 0) {
        return wrong(format!("Repartition topic {} has a negative number of partitions.", topic.name));
    }
    if topology.epoch < 0 {
        return wrong("Topology epoch must be non-negative.".to_owned());
    }
    let mut ids = BTreeSet::new();
    match topology.subtopologies.iter().find(|s| !ids.insert(s.subtopology_id.as_str())) {
        Some(twice) => wrong(format!("Subtopology {} is named twice.", twice.subtopology_id)),
        None => Ok(()),
    }
}

/// The tasks that a member says it runs must exist.
pub(super) fn check_tasks(configured: &ConfiguredTopology, tasks: Option<&Vec<TaskIds>>) -> Result<(), Refused> {
    let Some(subtopologies) = &configured.subtopologies else { return Ok(()) };
    for ids in tasks.into_iter().flatten() {
        let id = &ids.subtopology_id;
        let Some(subtopology) = subtopologies.get(id) else {
            return Err(invalid(format!("Subtopology {id} does not exist in the topology.")));
        };
        let count = subtopology.tasks;
        if let Some(partition) = ids.partitions.iter().find(|p| !(0..count).contains(*p)) {
            return Err(invalid(format!(
                "Task {partition} for subtopology {id} is invalid. Number of tasks for this subtopology: {count}"
            )));
        }
    }
    Ok(())
}
