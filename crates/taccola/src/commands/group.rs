//! `taccola group`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::{CommittedOffset, GroupDescription, ListedOffset, OffsetSpec};
use taccola_client::{Admin, Error, IsolationLevel};

use super::{Context, first_failure};
use crate::cli::{GroupCommand, GroupResetArgs, OutputArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Table};
use crate::timestamp;

pub(crate) async fn run(context: &Context, command: GroupCommand) -> CliResult {
    let admin = Admin::new(context.client.clone());
    match command {
        GroupCommand::List { output } => list(context, &admin, output).await,
        GroupCommand::Describe { groups, output } => describe(context, &admin, groups, output).await,
        GroupCommand::Reset(args) => reset(context, &admin, args).await,
        GroupCommand::Delete { groups, output } => delete(context, &admin, groups, output).await,
    }
}

async fn list(context: &Context, admin: &Admin, output: OutputArgs) -> CliResult {
    let mut table = Table::new(&["GROUP", "TYPE", "STATE", "PROTOCOL", "COORDINATOR"]);
    let mut values = Vec::new();
    for group in admin.list_groups().await? {
        table.row([&group.id, &group.kind, &group.state, &group.protocol_type, &group.coordinator.to_string()]);
        values.push(json!({
            "group": group.id,
            "type": group.kind,
            "state": group.state,
            "protocol": group.protocol_type,
            "coordinator": group.coordinator,
        }));
    }
    output::result(context.format(output), &Value::Array(values), &[table])
}

async fn describe(context: &Context, admin: &Admin, groups: Vec<String>, output: OutputArgs) -> CliResult {
    let mut tables = Vec::new();
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for group in groups {
        match describe_one(admin, &group).await {
            Ok((value, one)) => {
                values.push(value);
                tables.extend(one);
            }
            Err(error) => failures.push((group, CliError::from(error))),
        }
    }
    if !values.is_empty() {
        output::result(context.format(output), &Value::Array(values), &tables)?;
    }
    first_failure(failures)
}

/// One partition's line.
struct Lag {
    partition: TopicPartition,
    committed: Option<i64>,
    end: Option<i64>,
    member: Option<usize>,
}

impl Lag {
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?).max(0))
    }
}

async fn describe_one(admin: &Admin, group: &str) -> Result<(Value, [Table; 2]), Error> {
    let description = admin.describe_group(group).await?;
    let committed = admin.group_offsets(group, None).await?;
    let lags = lags(admin, &description, &committed).await;

    let mut summary = Table::new(&[]);
    let total: i64 = lags.iter().filter_map(Lag::lag).sum();
    for (name, value) in [
        ("GROUP", description.id.clone()),
        ("STATE", description.state.clone()),
        ("TYPE", description.kind.clone()),
        ("ASSIGNOR", description.assignor.clone()),
        ("COORDINATOR", description.coordinator.to_string()),
        ("MEMBERS", description.members.len().to_string()),
        ("TOTAL-LAG", total.to_string()),
    ] {
        summary.row([name.to_owned(), value]);
    }
    let headings = ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "MEMBER-ID", "CLIENT-ID", "HOST"];
    let mut table = Table::new(&headings);
    let mut partitions = Vec::new();
    let dash = |offset: Option<i64>| offset.map_or("-".to_owned(), |o| o.to_string());
    for lag in &lags {
        let member = lag.member.and_then(|at| description.members.get(at));
        let of_member = |field: fn(&taccola_client::admin::GroupMember) -> &String| {
            member.map_or("-".to_owned(), |m| field(m).clone())
        };
        table.row([
            lag.partition.topic.to_string(),
            lag.partition.partition.to_string(),
            dash(lag.committed),
            dash(lag.end),
            dash(lag.lag()),
            of_member(|m| &m.id),
            of_member(|m| &m.client_id),
            of_member(|m| &m.host),
        ]);
        partitions.push(json!({
            "topic": &*lag.partition.topic,
            "partition": lag.partition.partition,
            "current_offset": lag.committed,
            "log_end_offset": lag.end,
            "lag": lag.lag(),
            "member_id": member.map(|m| &m.id),
        }));
    }
    let members: Vec<_> = description
        .members
        .iter()
        .map(|m| {
            json!({
                "member_id": m.id, "instance_id": m.instance_id, "client_id": m.client_id, "host": m.host,
                "assignment": m.assignment.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let value = json!({
        "group": description.id,
        "state": description.state,
        "type": description.kind,
        "assignor": description.assignor,
        "coordinator": description.coordinator,
        "total_lag": total,
        "members": members,
        "partitions": partitions,
    });
    Ok((value, [summary, table]))
}

/// Every partition that has an owner or a committed offset.
async fn lags(
    admin: &Admin,
    description: &GroupDescription,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Vec<Lag> {
    let mut owners: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
    for (at, member) in description.members.iter().enumerate() {
        owners.extend(member.assignment.iter().map(|p| (p, at)));
    }
    let partitions: BTreeSet<_> = committed.keys().chain(owners.keys().copied()).cloned().collect();
    let mut lags = Vec::with_capacity(partitions.len());
    let mut by_topic: BTreeMap<Arc<str>, Vec<TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(Arc::clone(&partition.topic)).or_default().push(partition);
    }
    for partitions in by_topic.into_values() {
        let asked: Vec<_> = partitions.iter().map(|p| (p.clone(), OffsetSpec::Latest)).collect();
        // A topic that is gone has no end; its committed offsets are still shown.
        let ends = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await.unwrap_or_default();
        for partition in partitions {
            lags.push(Lag {
                committed: committed.get(&partition).map(|c| c.offset),
                end: ends.get(&partition).and_then(|e| e.offset),
                member: owners.get(&partition).copied(),
                partition,
            });
        }
    }
    lags
}

async fn delete(context: &Context, admin: &Admin, groups: Vec<String>, output: OutputArgs) -> CliResult {
    let mut table = Table::new(&["GROUP", "STATUS"]);
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for (group, outcome) in admin.delete_groups(&groups).await {
        let status = if outcome.is_ok() { "deleted" } else { "failed" };
        table.row([group.as_str(), status]);
        values.push(json!({"group": group, "status": status}));
        if let Err(error) = outcome {
            failures.push((group, CliError::from(error)));
        }
    }
    let format = context.format(output);
    if values.len() > failures.len() || format != output::Format::Table {
        output::result(format, &Value::Array(values), &[table])?;
    }
    first_failure(failures)
}

async fn reset(context: &Context, admin: &Admin, args: GroupResetArgs) -> CliResult {
    let committed = admin.group_offsets(&args.group, None).await?;
    let partitions = reset_partitions(admin, &args, &committed).await?;
    let targets = reset_targets(admin, &args, &partitions, &committed).await?;
    if args.execute {
        let offsets: Vec<_> = targets
            .iter()
            .map(|(partition, offset)| {
                let committed = CommittedOffset { offset: *offset, leader_epoch: -1, metadata: String::new() };
                (partition.clone(), committed)
            })
            .collect();
        admin.alter_group_offsets(&args.group, &offsets).await?;
    }
    let mut table = Table::new(&["GROUP", "TOPIC", "PARTITION", "OLD-OFFSET", "NEW-OFFSET"]);
    let mut values = Vec::new();
    for (partition, offset) in &targets {
        let old = committed.get(partition).map(|c| c.offset);
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

/// The partitions named, or those with a committed offset.
async fn reset_partitions(
    admin: &Admin,
    args: &GroupResetArgs,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> CliResult<Vec<TopicPartition>> {
    if args.topics.is_empty() {
        if committed.is_empty() {
            let error = CliError::new(Exit::NotFound, format!("group {} has no committed offset", args.group));
            return Err(error.hint("name the topics with --topic"));
        }
        return Ok(committed.keys().cloned().collect());
    }
    let mut partitions = BTreeSet::new();
    for text in &args.topics {
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
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> CliResult<Vec<(TopicPartition, i64)>> {
    let spec = match &args.to_datetime {
        Some(text) => Some(OffsetSpec::Timestamp(timestamp::parse(text, now_ms()).map_err(CliError::usage)?)),
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
        let current = committed.get(partition).map(|c| c.offset);
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
                let error = CliError::failure(format!("group {} has no committed offset for {partition}", args.group));
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

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
