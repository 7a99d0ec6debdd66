//! StreamsGroupDescribe: a group as an administrator sees it.

use taccola_wire::error::ErrorCode;
use taccola_wire::messages::streams_group_describe_response as describe;
use taccola_wire::messages::streams_group_describe_response::DescribedGroup;

use super::group::{Member, StreamsGroup};
use super::tasks::{TaskSet, Tasks, plain};
use crate::shard::GroupShard;

impl GroupShard {
    /// `authorized_operations` are the caller's to fill in.
    pub fn describe_streams_group(&self, id: &str) -> DescribedGroup {
        let Some(group) = self.streams.groups.get(id) else {
            let why = if self.kind_of(id).is_some() { "is not a streams group" } else { "not found" };
            return DescribedGroup {
                group_id: id.to_owned(),
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(format!("Group {id} {why}.")),
                ..Default::default()
            };
        };
        let configured = self.streams.soft.get(id).and_then(|soft| soft.configured.as_ref());
        let topology = group.topology.as_ref().map(|topology| {
            match configured.filter(|c| c.is_ready() && c.epoch == topology.epoch) {
                Some(configured) => configured.describe(topology),
                None => topology.describe(),
            }
        });
        DescribedGroup {
            group_id: id.to_owned(),
            group_state: group.state().name().to_owned(),
            group_epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            topology,
            members: group.members.iter().map(|(id, member)| described(id, member, group)).collect(),
            ..Default::default()
        }
    }
}

fn described(id: &str, member: &Member, group: &StreamsGroup) -> describe::Member {
    let target = group.target.get(id).cloned().unwrap_or_default();
    let assigned = Tasks {
        active: plain(&member.assigned.active),
        standby: member.assigned.standby.clone(),
        warmup: member.assigned.warmup.clone(),
    };
    let m = &member.metadata;
    let endpoint = m.user_endpoint.as_ref();
    let tag = |t: &taccola_wire::messages::streams_group_member_metadata_value::KeyValue| describe::KeyValue {
        key: t.key.clone(),
        value: t.value.clone(),
    };
    describe::Member {
        member_id: id.to_owned(),
        member_epoch: member.epoch,
        instance_id: told(&m.instance_id),
        rack_id: told(&m.rack_id),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        topology_epoch: m.topology_epoch,
        process_id: m.process_id.clone(),
        user_endpoint: endpoint.map(|e| describe::Endpoint { host: e.host.clone(), port: e.port }),
        client_tags: m.client_tags.iter().map(tag).collect(),
        assignment: assignment(&assigned),
        target_assignment: assignment(&target),
        ..Default::default()
    }
}

fn assignment(tasks: &Tasks) -> describe::Assignment {
    let ids = |set: &TaskSet| {
        set.iter()
            .map(|(subtopology, partitions)| describe::TaskIds {
                subtopology_id: subtopology.clone(),
                partitions: partitions.iter().copied().collect(),
            })
            .collect()
    };
    describe::Assignment {
        active_tasks: ids(&tasks.active),
        standby_tasks: ids(&tasks.standby),
        warmup_tasks: ids(&tasks.warmup),
    }
}

/// What a member did not say is kept as an empty text.
fn told(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}
