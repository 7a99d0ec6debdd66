//! The commands of share groups. The share coordinator and the partitions' leaders are not there: `sinit` and the like say
//! what came of what they were asked for.

use std::collections::{BTreeMap, BTreeSet};

use taccola_base::Uuid;
use taccola_coord::share::{Assignment, HeartbeatReply, OffsetsReply, ShareReply, StateChange};
use taccola_coord::{CoordinatorRecord, Effects, GroupShard, RequestContext, Response};
use taccola_wire::codec::Message;
use taccola_wire::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::share_group_describe_response::DescribedGroup;
use taccola_wire::messages::share_group_state_partition_metadata_value::TopicPartitionsInfo;
use taccola_wire::messages::*;

use super::consumer::{id, list};
use super::print::code;
use super::requests::owned;
use super::world::World;
use super::{Args, print};

fn heartbeat(args: &Args<'_>) -> ShareGroupHeartbeatRequest {
    let epoch: i32 = args.number("epoch", 0);
    ShareGroupHeartbeatRequest {
        group_id: args.word(1).trim_matches('\'').to_owned(),
        member_id: args.get("member").unwrap_or(args.word(0)).to_owned(),
        member_epoch: epoch,
        rack_id: args.get("rack").map(str::to_owned),
        subscribed_topic_names: match args.get("topics") {
            Some(topics) => Some(list(topics)),
            None => (epoch == 0).then(|| vec!["t".to_owned()]),
        },
    }
}

/// `1:0+1`: partitions 0 and 1 of the topic with the id 1.
fn assignment(words: &[&str]) -> Assignment {
    let row = |row: &&str| {
        let (topic, partitions) = row.split_once(':').unwrap();
        let partitions = partitions.split('+').map(|p| p.parse().unwrap()).collect();
        (Uuid::from_u128(topic.parse().unwrap()), partitions)
    };
    words.iter().map(row).collect()
}

fn alter(args: &Args<'_>) -> AlterShareGroupOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<AlterShareGroupOffsetsRequestPartition>> = BTreeMap::new();
    for word in args.rest(2) {
        let (partition, offset) = word.split_once('=').unwrap();
        let (topic, index) = partition.rsplit_once('-').unwrap();
        topics.entry(topic).or_default().push(AlterShareGroupOffsetsRequestPartition {
            partition_index: index.parse().unwrap(),
            start_offset: offset.parse().unwrap(),
        });
    }
    let topic =
        |(name, partitions): (&str, _)| AlterShareGroupOffsetsRequestTopic { topic_name: name.to_owned(), partitions };
    AlterShareGroupOffsetsRequest { group_id: args.word(1).to_owned(), topics: topics.into_iter().map(topic).collect() }
}

fn change(change: Option<&StateChange>) -> String {
    let Some(change) = change else { return String::new() };
    let rows: Vec<String> = change.partitions.iter().map(|(topic, p)| format!("{}{p:?}", id(*topic))).collect();
    format!(" asks for {{{}}} at state epoch {}", rows.join(" "), change.state_epoch)
}

pub(crate) fn reply(reply: &ShareReply) -> String {
    match reply {
        ShareReply::Heartbeat(reply) => beat(reply),
        ShareReply::Done(Ok(())) => "ok".to_owned(),
        ShareReply::Done(Err(error)) | ShareReply::Forget(Err(error)) => error.name().to_owned(),
        ShareReply::Forget(Ok(asked)) => format!("ok{}", change(asked.as_ref())),
        ShareReply::Offsets(OffsetsReply { error: Some(error), .. }) => error.name().to_owned(),
        ShareReply::Offsets(OffsetsReply { topics, change: asked, .. }) => {
            let rows = topics.iter().map(|topic| match topic.error {
                Some(error) => format!(" {}={}", topic.name, error.name()),
                None => {
                    let wrong = topic.partitions.iter().filter_map(|(p, e)| Some(format!(" {p}={}", (*e)?.name())));
                    format!(" {}({}){}", topic.name, id(topic.id), wrong.collect::<String>())
                }
            });
            format!("ok{}{}", rows.collect::<String>(), change(asked.as_ref()))
        }
    }
}

fn beat(reply: &HeartbeatReply) -> String {
    let r = &reply.response;
    if r.error_code != 0 {
        return code(r.error_code).to_owned();
    }
    let rows = |a: &share_group_heartbeat_response::Assignment| {
        let rows = a.topic_partitions.iter().map(|t| format!("{}{:?}", id(t.topic_id), t.partitions));
        format!(" assigned {{{}}}", rows.collect::<Vec<_>>().join(" "))
    };
    let member = r.member_id.as_deref().unwrap_or("null");
    let assigned = r.assignment.as_ref().map(rows).unwrap_or_default();
    let asked = change(reply.initialize.as_ref());
    format!("ok {member} epoch={} interval={}{assigned}{asked}", r.member_epoch, r.heartbeat_interval_ms)
}

fn described(row: &DescribedGroup) -> Vec<String> {
    if row.error_code != 0 {
        return vec![format!("{}: {}", row.group_id, code(row.error_code))];
    }
    let mut lines = vec![format!(
        "{}: {} epoch={} assignment={} {}",
        row.group_id, row.group_state, row.group_epoch, row.assignment_epoch, row.assignor_name
    )];
    for m in &row.members {
        let rows = m.assignment.topic_partitions.iter().map(|t| format!("{}{:?}", t.topic_name, t.partitions));
        let has: Vec<String> = rows.collect();
        let (member, epoch, wants) = (&m.member_id, m.member_epoch, &m.subscribed_topic_names);
        lines.push(format!("  {member} epoch={epoch} {wants:?} has {{{}}}", has.join(" ")));
    }
    lines
}

/// A record of a share group; `None`: of another kind.
pub(crate) fn record(record: &CoordinatorRecord) -> Option<String> {
    let key_type = i16::from_be_bytes([record.key[0], record.key[1]]);
    let key = record.key.slice(2..);
    let value = record.value.as_ref().map(|v| v.slice(2..));
    let show = |name: String, value: Option<String>| format!("{name} {}", value.as_deref().unwrap_or("tombstone"));
    Some(match key_type {
        ShareGroupMetadataKey::API_KEY => {
            let key = ShareGroupMetadataKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ShareGroupMetadataValue::from_bytes(v, 0).unwrap());
            let hash = |hash| if hash == 0 { "0" } else { "…" };
            let value = value.map(|v| format!("epoch={} hash={}", v.epoch, hash(v.metadata_hash)));
            show(format!("sgroup {}", key.group_id), value)
        }
        ShareGroupMemberMetadataKey::API_KEY => {
            let key = ShareGroupMemberMetadataKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ShareGroupMemberMetadataValue::from_bytes(v, 0).unwrap());
            let rack = |rack: Option<String>| rack.map(|r| format!(" rack={r}")).unwrap_or_default();
            let value = value.map(|v| format!("{:?}{}", v.subscribed_topic_names, rack(v.rack_id)));
            show(format!("smember {} {}", key.group_id, key.member_id), value)
        }
        ShareGroupTargetAssignmentMetadataKey::API_KEY => {
            let key = ShareGroupTargetAssignmentMetadataKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ShareGroupTargetAssignmentMetadataValue::from_bytes(v, 0).unwrap());
            show(format!("starget {}", key.group_id), value.map(|v| format!("epoch={}", v.assignment_epoch)))
        }
        ShareGroupTargetAssignmentMemberKey::API_KEY => {
            let key = ShareGroupTargetAssignmentMemberKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ShareGroupTargetAssignmentMemberValue::from_bytes(v, 0).unwrap());
            let value = value.map(|v| {
                let rows = v.topic_partitions.iter().map(|t| format!("{}{:?}", id(t.topic_id), t.partitions));
                format!("{{{}}}", rows.collect::<Vec<_>>().join(" "))
            });
            show(format!("starget {} {}", key.group_id, key.member_id), value)
        }
        ShareGroupCurrentMemberAssignmentKey::API_KEY => {
            let key = ShareGroupCurrentMemberAssignmentKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ShareGroupCurrentMemberAssignmentValue::from_bytes(v, 0).unwrap());
            let value = value.map(|v| {
                let rows = v.assigned_partitions.iter().map(|t| format!("{}{:?}", id(t.topic_id), t.partitions));
                let rows: Vec<String> = rows.collect();
                format!("epoch={} previous={} {{{}}}", v.member_epoch, v.previous_member_epoch, rows.join(" "))
            });
            show(format!("scurrent {} {}", key.group_id, key.member_id), value)
        }
        ShareGroupStatePartitionMetadataKey::API_KEY => {
            let key = ShareGroupStatePartitionMetadataKey::from_bytes(key, 0).unwrap();
            let value = value.map(|v| ShareGroupStatePartitionMetadataValue::from_bytes(v, 0).unwrap());
            let rows = |rows: &[TopicPartitionsInfo]| {
                let rows = rows.iter().map(|t| format!("{}({}){:?}", t.topic_name, id(t.topic_id), t.partitions));
                rows.collect::<Vec<_>>().join(" ")
            };
            let value = value.map(|v| {
                let gone: Vec<&str> = v.deleting_topics.iter().map(|t| t.topic_name.as_str()).collect();
                let (new, set_up) = (rows(&v.initializing_topics), rows(&v.initialized_topics));
                format!("initializing {{{new}}} initialized {{{set_up}}} deleting {gone:?}")
            });
            show(format!("sstate {}", key.group_id), value)
        }
        _ => return None,
    })
}

impl World {
    /// Whether the command is one of share groups.
    pub(crate) fn run_share(&mut self, verb: &str, args: &Args<'_>) -> bool {
        match verb {
            "shb" => {
                let request = heartbeat(args);
                self.request(
                    args,
                    "shb",
                    |shard, now, ctx| shard.handle_share_group_heartbeat(now, ctx, &request),
                    |reply| Response::Share(ShareReply::Heartbeat(Box::new(reply))),
                );
            }
            "sdescribe" => {
                for group in owned(args.rest(0)) {
                    self.output.extend(described(&self.shard.describe_share_group(&group)));
                }
            }
            "sinit" => self.share(args, "sinit", |shard, now, ctx, group| {
                shard.handle_share_state_initialized(now, ctx, group, &assignment(args.rest(2)))
            }),
            "suninit" => self.share(args, "suninit", |shard, _, ctx, group| {
                shard.handle_share_state_uninitialized(ctx, group, &assignment(args.rest(2)))
            }),
            "salter" => self.share(args, "salter", |shard, now, ctx, _| {
                shard.handle_alter_share_group_offsets(now, ctx, &alter(args))
            }),
            "soffset-delete" => self.share(args, "soffset-delete", |shard, _, ctx, group| {
                shard.handle_delete_share_group_offsets(ctx, group, &owned(args.rest(2)))
            }),
            "sdeleted" => self.share(args, "sdeleted", |shard, _, ctx, group| {
                let ids = args.rest(2).iter().map(|topic| Uuid::from_u128(topic.parse().unwrap()));
                shard.handle_share_offsets_deleted(ctx, group, &ids.collect::<BTreeSet<_>>())
            }),
            "sforget" => {
                self.share(args, "sforget", |shard, _, ctx, group| shard.handle_share_group_forget(ctx, group))
            }
            _ => return false,
        }
        true
    }

    fn share(
        &mut self,
        args: &Args<'_>,
        what: &str,
        handle: impl FnOnce(&mut GroupShard, i64, &RequestContext<'_>, &str) -> Effects<ShareReply>,
    ) {
        let group = args.word(1);
        self.request(args, what, |shard, now, ctx| handle(shard, now, ctx, group), Response::Share);
    }
}

pub(crate) fn printed(one: &CoordinatorRecord) -> String {
    record(one).or_else(|| super::consumer::record(one)).unwrap_or_else(|| print::record(one))
}
