//! The commands of consumer groups: requests, and how their replies and records are shown. `T1` is the topic with the id 1.

use std::sync::Arc;

use taccola_base::Uuid;
use taccola_coord::cluster_image::{ClusterImage, TopicChanges};
use taccola_coord::{CoordinatorRecord, Effects, GroupShard, Response};
use taccola_wire::codec::Message;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use taccola_wire::messages::*;

use super::Args;
use super::print::code;
use super::world::World;

/// A topic's id as its number.
pub(crate) fn id(uuid: Uuid) -> String {
    format!("T{}", u128::from_be_bytes(*uuid.as_bytes()))
}

pub(crate) fn list(text: &str) -> Vec<String> {
    text.split('+').filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

/// `1:0+1,2:3`: partitions 0 and 1 of the topic with the id 1, and 3 of another; `-` is none.
fn partitions(text: &str) -> Vec<TopicPartitions> {
    let row = |row: &str| {
        let (topic, partitions) = row.split_once(':').unwrap();
        TopicPartitions {
            topic_id: Uuid::from_u128(topic.parse().unwrap()),
            partitions: partitions.split('+').map(|p| p.parse().unwrap()).collect(),
        }
    };
    text.split(',').filter(|row| !row.is_empty() && *row != "-").map(row).collect()
}

/// A joining member names all that it must; any other what the command says.
pub(crate) fn heartbeat(args: &Args<'_>) -> ConsumerGroupHeartbeatRequest {
    let epoch: i32 = args.number("epoch", 0);
    let joins = epoch == 0;
    let owned = args.get("owned").map(partitions);
    ConsumerGroupHeartbeatRequest {
        group_id: args.word(1).trim_matches('\'').to_owned(),
        member_id: args.get("member").unwrap_or(args.word(0)).trim_matches('\'').to_owned(),
        member_epoch: epoch,
        instance_id: args.get("instance").map(str::to_owned),
        rack_id: args.get("rack").map(str::to_owned),
        rebalance_timeout_ms: args.duration("rebalance", if joins { 60_000 } else { -1 }) as i32,
        subscribed_topic_names: match args.get("topics") {
            Some(topics) => Some(list(topics)),
            None if joins && args.get("regex").is_none() => Some(vec!["t".to_owned()]),
            None => None,
        },
        subscribed_topic_regex: args.get("regex").map(|r| r.trim_matches('\'').to_owned()),
        server_assignor: args.get("assignor").map(str::to_owned),
        topic_partitions: if joins { owned.or(Some(Vec::new())) } else { owned },
    }
}

pub(crate) fn reply(r: &ConsumerGroupHeartbeatResponse) -> String {
    if r.error_code != 0 {
        return code(r.error_code).to_owned();
    }
    let assignment = match &r.assignment {
        None => String::new(),
        Some(a) => {
            let rows: Vec<String> =
                a.topic_partitions.iter().map(|t| format!("{}{:?}", id(t.topic_id), t.partitions)).collect();
            format!(" assigned {{{}}}", rows.join(" "))
        }
    };
    let member = r.member_id.as_deref().unwrap_or("null");
    format!("ok {member} epoch={} interval={}{assignment}", r.member_epoch, r.heartbeat_interval_ms)
}

pub(crate) fn described(row: &consumer_group_describe_response::DescribedGroup) -> Vec<String> {
    if row.error_code != 0 {
        return vec![format!("{}: {}", row.group_id, code(row.error_code))];
    }
    let show = |a: &consumer_group_describe_response::Assignment| {
        let rows: Vec<String> =
            a.topic_partitions.iter().map(|t| format!("{}{:?}", t.topic_name, t.partitions)).collect();
        rows.join(" ")
    };
    let mut lines = vec![format!(
        "{}: {} epoch={} assignment={} {}",
        row.group_id, row.group_state, row.group_epoch, row.assignment_epoch, row.assignor_name
    )];
    for m in &row.members {
        let instance = m.instance_id.as_ref().map(|i| format!("/{i}")).unwrap_or_default();
        let regex =
            m.subscribed_topic_regex.as_ref().filter(|r| !r.is_empty()).map(|r| format!(" /{r}/")).unwrap_or_default();
        lines.push(format!(
            "  {}{instance} type={} epoch={} {:?}{regex} has {{{}}} should {{{}}}",
            m.member_id,
            m.member_type,
            m.member_epoch,
            m.subscribed_topic_names,
            show(&m.assignment),
            show(&m.target_assignment)
        ));
    }
    lines
}

/// A record of a consumer group; `None`: of another kind.
pub(crate) fn record(record: &CoordinatorRecord) -> Option<String> {
    let key_type = i16::from_be_bytes([record.key[0], record.key[1]]);
    let key = record.key.slice(2..);
    let value = record.value.as_ref().map(|v| v.slice(2..));
    let show = |name: String, value: Option<String>| format!("{name} {}", value.as_deref().unwrap_or("tombstone"));
    Some(match key_type {
        3 => {
            let key = ConsumerGroupMetadataKey::from_bytes(key, 0).unwrap();
            // The hash is compared where its number means something.
            let value = value.map(|v| ConsumerGroupMetadataValue::from_bytes(v, 0).unwrap());
            let value =
                value.map(|v| format!("epoch={} hash={}", v.epoch, if v.metadata_hash == 0 { "0" } else { "…" }));
            show(format!("cgroup {}", key.group_id), value)
        }
        4 => {
            let key = ConsumerGroupPartitionMetadataKey::from_bytes(key, 0).unwrap();
            show(format!("cgroup-topics {}", key.group_id), value.map(|v| format!("{} bytes", v.len())))
        }
        5 => {
            let key = ConsumerGroupMemberMetadataKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ConsumerGroupMemberMetadataValue::from_bytes(v, 0).unwrap());
            let value = value.map(|v| {
                let regex = v.subscribed_topic_regex.filter(|r| !r.is_empty()).map(|r| format!(" /{r}/"));
                let instance = v.instance_id.map(|i| format!(" instance={i}")).unwrap_or_default();
                let rack = v.rack_id.map(|r| format!(" rack={r}")).unwrap_or_default();
                let assignor = v.server_assignor.map(|a| format!(" {a}")).unwrap_or_default();
                let classic = v.classic_member_metadata.map(|c| {
                    let names: Vec<String> = c.supported_protocols.into_iter().map(|p| p.name).collect();
                    format!(" classic {} {names:?}", c.session_timeout_ms)
                });
                format!(
                    "{:?}{}{instance}{rack}{assignor}{} rebalance={}",
                    v.subscribed_topic_names,
                    regex.unwrap_or_default(),
                    classic.unwrap_or_default(),
                    v.rebalance_timeout_ms
                )
            });
            show(format!("cmember {} {}", key.group_id, key.member_id), value)
        }
        6 => {
            let key = ConsumerGroupTargetAssignmentMetadataKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ConsumerGroupTargetAssignmentMetadataValue::from_bytes(v, 0).unwrap());
            show(format!("ctarget {}", key.group_id), value.map(|v| format!("epoch={}", v.assignment_epoch)))
        }
        7 => {
            let key = ConsumerGroupTargetAssignmentMemberKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ConsumerGroupTargetAssignmentMemberValue::from_bytes(v, 0).unwrap());
            let value = value.map(|v| {
                let rows: Vec<String> =
                    v.topic_partitions.iter().map(|t| format!("{}{:?}", id(t.topic_id), t.partitions)).collect();
                format!("{{{}}}", rows.join(" "))
            });
            show(format!("ctarget {} {}", key.group_id, key.member_id), value)
        }
        8 => {
            let key = ConsumerGroupCurrentMemberAssignmentKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ConsumerGroupCurrentMemberAssignmentValue::from_bytes(v, 0).unwrap());
            let rows = |rows: &[consumer_group_current_member_assignment_value::TopicPartitions]| {
                let rows: Vec<String> = rows
                    .iter()
                    .map(|t| {
                        format!(
                            "{}{:?}@{:?}",
                            id(t.topic_id),
                            t.partitions,
                            t.assignment_epochs.as_deref().unwrap_or(&[])
                        )
                    })
                    .collect();
                rows.join(" ")
            };
            let value = value.map(|v| {
                let state = ["stable", "unrevoked", "unreleased"].get(v.state as usize).unwrap_or(&"unknown");
                format!(
                    "epoch={} previous={} {state} {{{}}} revokes {{{}}}",
                    v.member_epoch,
                    v.previous_member_epoch,
                    rows(&v.assigned_partitions),
                    rows(&v.partitions_pending_revocation)
                )
            });
            show(format!("ccurrent {} {}", key.group_id, key.member_id), value)
        }
        16 => {
            let key = ConsumerGroupRegularExpressionKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ConsumerGroupRegularExpressionValue::from_bytes(v, 0).unwrap());
            show(
                format!("cregex {} /{}/", key.group_id, key.regular_expression),
                value.map(|v| format!("{:?}", v.topics)),
            )
        }
        _ => return None,
    })
}

impl World {
    /// Whether the command is one of consumer groups, or of topics.
    pub(crate) fn run_consumer(&mut self, verb: &str, args: &Args<'_>) -> bool {
        match verb {
            "chb" => {
                let request = heartbeat(args);
                self.request(
                    args,
                    "chb",
                    |shard, now, ctx| shard.handle_consumer_group_heartbeat(now, ctx, &request),
                    Response::ConsumerGroupHeartbeat,
                );
            }
            "cdescribe" => {
                for row in self.shard.describe_consumer_groups(&super::requests::owned(args.rest(0))) {
                    self.output.extend(described(&row));
                }
            }
            "topic" => {
                let name = args.word(0);
                self.cluster.put(name, args.word(1).parse().unwrap());
                self.publish(TopicChanges { changed: vec![name.into()], ..Default::default() });
            }
            "drop-topic" => {
                let name = args.word(0);
                let gone = self.cluster.remove(name).unwrap_or_else(|| panic!("no topic {name}"));
                self.publish(TopicChanges { deleted: vec![(name.to_owned(), gone)], ..Default::default() });
            }
            "group-config" => {
                let group = args.word(0);
                let map = args.rest(1).iter().map(|w| w.split_once(':').unwrap());
                let map = map.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                self.cluster.groups.insert(group.to_owned(), Arc::new(map));
                self.publish(TopicChanges { group_configs: vec![group.to_owned()], ..Default::default() });
            }
            _ => return false,
        }
        true
    }

    fn publish(&mut self, changes: TopicChanges) {
        let image: Arc<dyn ClusterImage> = Arc::new(self.cluster.clone());
        let effects: Effects<()> = <GroupShard as taccola_coord::CoordinatorShard>::on_new_image(
            &mut self.shard,
            self.now_ms,
            &image,
            &changes,
        );
        self.take(effects);
    }
}
