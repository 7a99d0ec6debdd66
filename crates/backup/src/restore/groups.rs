//! Groups of a restore: committed offsets (or a share group's start offsets), translated to where the same next record stands
//! now; configs of groups.

use std::collections::HashMap;

use taccola_base::TopicPartition;
use taccola_client::Admin;
use taccola_client::admin::{CommittedOffset, ConfigResource, ResourceType};

use super::partition::Restored;
use super::plan::Plan;
use super::{RestoreOptions, configs};
use crate::contents::{Contents, Group};

/// One group after a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredGroup {
    pub id: String,
    pub kind: String,
    /// Number of offsets that were set.
    pub offsets: usize,
}

pub(super) async fn restore(
    admin: &Admin,
    contents: &Contents,
    plan: &Plan,
    restored: &[Restored],
    options: &RestoreOptions,
    failures: &mut Vec<String>,
) -> Vec<RestoredGroup> {
    let mut translated: HashMap<(&str, i32, i64), i64> = HashMap::new();
    for part in restored {
        let place = |(from, to): &(i64, i64)| ((part.work.topic.as_str(), part.work.target.partition, *from), *to);
        translated.extend(part.translated.iter().map(place));
    }
    let mut groups = Vec::new();
    for group in contents.groups.iter().filter(|group| plan.groups.contains(&group.id)) {
        let offsets: Vec<_> = group
            .offsets
            .iter()
            .filter_map(|offset| {
                let target = &plan.target(&offset.topic)?.target;
                let to = translated.get(&(offset.topic.as_str(), offset.partition, offset.offset))?;
                let partition = TopicPartition::new(target.as_str(), offset.partition);
                let committed = CommittedOffset { offset: *to, leader_epoch: -1, metadata: offset.metadata.clone() };
                Some((partition, committed))
            })
            .collect();
        if let Err(error) = set(admin, group, &offsets).await {
            failures.push(format!("offsets of group {}: {error}", group.id));
            continue;
        }
        if options.into != super::Into::Append && !group.configs.is_empty() {
            let resource = ConfigResource { kind: ResourceType::Group, name: group.id.clone() };
            configs::set(admin, &resource, &group.configs, failures).await;
        }
        groups.push(RestoredGroup { id: group.id.clone(), kind: group.kind.clone(), offsets: offsets.len() });
    }
    groups
}

async fn set(
    admin: &Admin,
    group: &Group,
    offsets: &[(TopicPartition, CommittedOffset)],
) -> taccola_client::error::Result<()> {
    if group.kind == "share" {
        let starts: Vec<_> = offsets.iter().map(|(partition, offset)| (partition.clone(), offset.offset)).collect();
        return admin.alter_share_group_offsets(&group.id, &starts).await;
    }
    admin.alter_group_offsets(&group.id, offsets).await
}
