//! `taccola group reset`: committed offsets, or the start offsets of a share group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::{CommittedOffset, ListedOffset, OffsetSpec};
use taccola_client::{Admin, Error, IsolationLevel};
use taccola_wire::error::ErrorCode;

use super::Context;
use crate::cli::GroupResetArgs;
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Table};
use crate::timestamp;

/// Where a group stands; `None` on partitions of a share group that nobody has fetched yet.
type Offsets = BTreeMap<TopicPartition, Option<i64>>;

/// A group that does not exist counts as one that commits: its offsets can be set before it begins.
pub(super) async fn is_share_group(admin: &Admin, group: &str) -> Result<bool, Error> {
    match admin.describe_group(group).await {
        Ok(description) => Ok(description.kind == "share"),
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn committed_offsets(admin: &Admin, group: &str) -> Result<Offsets, Error> {
    let committed = admin.group_offsets(group, None).await?;
    Ok(committed.into_iter().map(|(partition, committed)| (partition, Some(committed.offset))).collect())
}

async fn start_offsets(admin: &Admin, group: &str) -> Result<Offsets, Error> {
    let starts = admin.share_group_offsets(group, None).await?;
    Ok(starts.into_iter().map(|(partition, start)| (partition, start.start_offset)).collect())
}

async fn commit(admin: &Admin, group: &str, targets: &[(TopicPartition, i64)]) -> Result<(), Error> {
    let committed = |(partition, offset): &(TopicPartition, i64)| {
        let offset = CommittedOffset { offset: *offset, leader_epoch: -1, metadata: String::new() };
        (partition.clone(), offset)
    };
    let offsets: Vec<_> = targets.iter().map(committed).collect();
    admin.alter_group_offsets(group, &offsets).await
}

pub(super) async fn run(context: &Context, admin: &Admin, args: GroupResetArgs) -> CliResult {
    let shares = is_share_group(admin, &args.group).await?;
    let current = match shares {
        true => start_offsets(admin, &args.group).await?,
        false => committed_offsets(admin, &args.group).await?,
    };
    let partitions = reset_partitions(admin, &args, &current).await?;
    let targets = reset_targets(admin, &args, &partitions, &current).await?;
    if args.execute {
        match shares {
            true => admin.alter_share_group_offsets(&args.group, &targets).await?,
            false => commit(admin, &args.group, &targets).await?,
        }
    }
    let mut table = Table::new(&["GROUP", "TOPIC", "PARTITION", "OLD-OFFSET", "NEW-OFFSET"]);
    let mut values = Vec::new();
    for (partition, offset) in &targets {
        let old = current.get(partition).copied().flatten();
        table.row([
            args.group.clone(),
            partition.topic.to_string(),
            partition.partition.to_string(),
            old.map_or("-".to_owned(), |o| o.to_string()),
            offset.to_string(),
        ]);
        values.push(json!({
            "group": args.group,
            "topic": &*partition.topic,
            "partition": partition.partition,
            "old_offset": old,
            "new_offset": offset,
            "executed": args.execute,
        }));
    }
    output::result(context.format(args.output), &Value::Array(values), &[table])?;
    if !args.execute {
        output::note("Nothing was changed; add --execute to do it.");
    }
    Ok(())
}

/// The partitions named, or those with an offset.
async fn reset_partitions(admin: &Admin, args: &GroupResetArgs, current: &Offsets) -> CliResult<Vec<TopicPartition>> {
    if args.topics.is_empty() {
        if current.is_empty() {
            let error = CliError::new(Exit::NotFound, format!("group {} has no offset", args.group));
            return Err(error.hint("name the topics with --topic"));
        }
        return Ok(current.keys().cloned().collect());
    }
    named_partitions(admin, &args.topics).await
}

/// The partitions that `TOPIC` and `TOPIC:0,1` name.
pub(super) async fn named_partitions(admin: &Admin, topics: &[String]) -> CliResult<Vec<TopicPartition>> {
    let mut partitions = BTreeSet::new();
    for text in topics {
        let (name, indexes) = text.split_once(':').map_or((text.as_str(), None), |(n, p)| (n, Some(p)));
        let topic = admin.describe_topic(name).await?;
        let indexes = match indexes {
            None => topic.partitions.iter().map(|p| p.index).collect(),
            Some(list) => partition_list(list)?,
        };
        for index in indexes {
            if topic.partition(index).is_none() {
                return Err(CliError::new(Exit::NotFound, format!("topic {name} has no partition {index}")));
            }
            partitions.insert(TopicPartition::new(Arc::clone(&topic.name), index));
        }
    }
    Ok(partitions.into_iter().collect())
}

fn partition_list(text: &str) -> CliResult<Vec<i32>> {
    let parse = |p: &str| p.trim().parse().map_err(|_| CliError::usage(format!("{p:?} is no partition number")));
    text.split(',').map(parse).collect()
}

/// New offsets, always inside the log.
async fn reset_targets(
    admin: &Admin,
    args: &GroupResetArgs,
    partitions: &[TopicPartition],
    current: &Offsets,
) -> CliResult<Vec<(TopicPartition, i64)>> {
    let spec = match &args.to_datetime {
        Some(text) => {
            Some(OffsetSpec::Timestamp(timestamp::parse(text, timestamp::now_ms()).map_err(CliError::usage)?))
        }
        None => None,
    };
    let ask = async |spec: OffsetSpec| {
        let asked: Vec<_> = partitions.iter().map(|p| (p.clone(), spec)).collect();
        admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await
    };
    let starts = ask(OffsetSpec::Earliest).await?;
    let ends = ask(OffsetSpec::Latest).await?;
    let by_time = match spec {
        Some(spec) => ask(spec).await?,
        None => Default::default(),
    };
    let mut targets = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let offset_in = |map: &std::collections::HashMap<TopicPartition, ListedOffset>| {
            map.get(partition).and_then(|found| found.offset)
        };
        let start = offset_in(&starts).unwrap_or(0);
        let end = offset_in(&ends).unwrap_or(start);
        let current = current.get(partition).copied().flatten();
        let wanted = if args.to_earliest {
            start
        } else if args.to_latest {
            end
        } else if let Some(offset) = args.to_offset {
            offset
        } else if spec.is_some() {
            offset_in(&by_time).unwrap_or(end)
        } else if let Some(shift) = args.shift_by {
            let Some(current) = current else {
                let error = CliError::failure(format!("group {} has no offset for {partition}", args.group));
                return Err(error.hint("--shift-by needs one; use --to-earliest or --to-offset"));
            };
            current.saturating_add(shift)
        } else {
            current.unwrap_or(end)
        };
        targets.push((partition.clone(), wanted.clamp(start, end)));
    }
    Ok(targets)
}
