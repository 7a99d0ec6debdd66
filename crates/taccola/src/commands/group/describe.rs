//! `taccola group describe`: state, members and what they own, offsets and lag, of groups of all kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::{GroupDescription, GroupMember, OffsetSpec, Task, TaskKind};
use taccola_client::{Admin, Error, IsolationLevel};

use super::Context;
use crate::cli::OutputArgs;
use crate::commands::first_failure;
use crate::exit::{CliError, CliResult};
use crate::output::{self, Table};

pub(super) async fn run(context: &Context, admin: &Admin, groups: Vec<String>, output: OutputArgs) -> CliResult {
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
struct Line {
    partition: TopicPartition,
    /// Committed offset, or a share group's start.
    offset: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    member: Option<usize>,
}

async fn describe_one(admin: &Admin, group: &str) -> Result<(Value, Vec<Table>), Error> {
    let description = admin.describe_group(group).await?;
    let shares = description.kind == "share";
    let lines = match shares {
        true => share_lines(admin, &description).await?,
        false => lines(admin, &description).await?,
    };
    let total: i64 = lines.iter().filter_map(|line| line.lag).sum();
    let mut tables = vec![summary(&description, total)];
    tables.push(if shares { share_table(&lines) } else { table(&description, &lines) });
    // A classic group's members stand beside their partitions.
    if description.kind != "classic" && !description.members.is_empty() {
        tables.push(members_table(&description.members));
    }
    let value = json!({
        "group": description.id,
        "state": description.state,
        "type": description.kind,
        "assignor": description.assignor,
        "coordinator": description.coordinator,
        "epoch": description.epoch,
        "assignment_epoch": description.assignment_epoch,
        "total_lag": total,
        "members": description.members.iter().map(member_value).collect::<Vec<_>>(),
        "partitions": lines.iter().map(|line| line_value(&description, line, shares)).collect::<Vec<_>>(),
        "topology": topology_value(&description),
    });
    Ok((value, tables))
}

fn dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn summary(description: &GroupDescription, total: i64) -> Table {
    let mut summary = Table::new(&[]);
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
    if let (Some(epoch), Some(assignment)) = (description.epoch, description.assignment_epoch) {
        summary.row(["EPOCH".to_owned(), epoch.to_string()]);
        summary.row(["ASSIGNMENT-EPOCH".to_owned(), assignment.to_string()]);
    }
    for subtopology in description.topology.iter().flat_map(|topology| &topology.subtopologies) {
        let (sources, changelogs) = (all_sources(subtopology).join(" "), subtopology.changelogs.join(" "));
        let changelogs = if changelogs.is_empty() { changelogs } else { format!("; changelogs {changelogs}") };
        summary.row(["SUBTOPOLOGY".to_owned(), format!("{}: {sources}{changelogs}", subtopology.id)]);
    }
    summary
}

fn table(description: &GroupDescription, lines: &[Line]) -> Table {
    let headings = ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "MEMBER-ID", "CLIENT-ID", "HOST"];
    let mut table = Table::new(&headings);
    for line in lines {
        let member = line.member.and_then(|at| description.members.get(at));
        table.row([
            line.partition.topic.to_string(),
            line.partition.partition.to_string(),
            dash(line.offset),
            dash(line.end),
            dash(line.lag),
            dash(member.map(|m| &m.id)),
            dash(member.map(|m| &m.client_id)),
            dash(member.map(|m| &m.host)),
        ]);
    }
    table
}

/// A share group's partitions have no owner: any of its members may take of them.
fn share_table(lines: &[Line]) -> Table {
    let mut table = Table::new(&["TOPIC", "PARTITION", "START-OFFSET", "LAG"]);
    for line in lines {
        let partition = line.partition.partition.to_string();
        table.row([line.partition.topic.to_string(), partition, dash(line.offset), dash(line.lag)]);
    }
    table
}

fn members_table(members: &[GroupMember]) -> Table {
    let mut table = Table::new(&["MEMBER-ID", "INSTANCE-ID", "CLIENT-ID", "HOST", "EPOCH", "ASSIGNMENT"]);
    for member in members {
        let assignment = match member.tasks.is_empty() {
            true => partition_names(&member.assignment),
            false => member.tasks.iter().map(task_name).collect(),
        };
        table.row([
            member.id.clone(),
            dash(member.instance_id.as_ref()),
            member.client_id.clone(),
            member.host.clone(),
            dash(member.epoch),
            assignment.join(" "),
        ]);
    }
    table
}

fn partition_names(partitions: &[TopicPartition]) -> Vec<String> {
    partitions.iter().map(TopicPartition::to_string).collect()
}

/// `0_3` as Kafka Streams names tasks, with a word in front when it is not the active one.
fn task_name(task: &Task) -> String {
    let kind = match task.kind {
        TaskKind::Active => "",
        TaskKind::Standby => "standby:",
        TaskKind::Warmup => "warmup:",
    };
    format!("{kind}{}_{}", task.subtopology, task.partition)
}

fn member_value(member: &GroupMember) -> Value {
    json!({
        "member_id": member.id,
        "instance_id": member.instance_id,
        "client_id": member.client_id,
        "host": member.host,
        "epoch": member.epoch,
        "assignment": partition_names(&member.assignment),
        "target_assignment": member.target.as_deref().map(partition_names),
        "tasks": member.tasks.iter().map(task_name).collect::<Vec<_>>(),
        "target_tasks": member.target_tasks.iter().map(task_name).collect::<Vec<_>>(),
    })
}

fn line_value(description: &GroupDescription, line: &Line, shares: bool) -> Value {
    let (topic, partition) = (&*line.partition.topic, line.partition.partition);
    if shares {
        return json!({"topic": topic, "partition": partition, "start_offset": line.offset, "lag": line.lag});
    }
    let member = line.member.and_then(|at| description.members.get(at));
    json!({
        "topic": topic,
        "partition": partition,
        "current_offset": line.offset,
        "log_end_offset": line.end,
        "lag": line.lag,
        "member_id": member.map(|m| &m.id),
    })
}

fn topology_value(description: &GroupDescription) -> Value {
    let Some(topology) = &description.topology else { return Value::Null };
    let subtopology = |s: &taccola_client::admin::Subtopology| json!({"id": s.id, "sources": all_sources(s), "changelogs": s.changelogs});
    json!({
        "epoch": topology.epoch,
        "subtopologies": topology.subtopologies.iter().map(subtopology).collect::<Vec<_>>(),
    })
}

/// Every partition that has an owner or a committed offset.
async fn lines(admin: &Admin, description: &GroupDescription) -> Result<Vec<Line>, Error> {
    let committed = admin.group_offsets(&description.id, None).await?;
    let mut owners: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
    for (at, member) in description.members.iter().enumerate() {
        owners.extend(member.assignment.iter().map(|p| (p, at)));
    }
    let partitions: BTreeSet<_> = committed.keys().chain(owners.keys().copied()).cloned().collect();
    let mut lines = Vec::with_capacity(partitions.len());
    let mut by_topic: BTreeMap<Arc<str>, Vec<TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(Arc::clone(&partition.topic)).or_default().push(partition);
    }
    for partitions in by_topic.into_values() {
        let asked: Vec<_> = partitions.iter().map(|p| (p.clone(), OffsetSpec::Latest)).collect();
        // A topic that is gone has no end; its committed offsets are still shown.
        let ends = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await.unwrap_or_default();
        for partition in partitions {
            let offset = committed.get(&partition).map(|c| c.offset);
            let end = ends.get(&partition).and_then(|e| e.offset);
            let lag = end.zip(offset).map(|(end, offset)| (end - offset).max(0));
            lines.push(Line { offset, end, lag, member: owners.get(&partition).copied(), partition });
        }
    }
    Ok(lines)
}

/// Every partition that the share group knows, and those that are assigned and that nobody has fetched yet.
async fn share_lines(admin: &Admin, description: &GroupDescription) -> Result<Vec<Line>, Error> {
    let known = admin.share_group_offsets(&description.id, None).await?;
    let assigned = description.members.iter().flat_map(|member| &member.assignment);
    let partitions: BTreeSet<_> = known.keys().chain(assigned).cloned().collect();
    let line = |partition: TopicPartition| {
        let found = known.get(&partition);
        Line {
            offset: found.and_then(|f| f.start_offset),
            end: None,
            lag: found.and_then(|f| f.lag),
            member: None,
            partition,
        }
    };
    Ok(partitions.into_iter().map(line).collect())
}

/// With repartition topics.
fn all_sources(subtopology: &taccola_client::admin::Subtopology) -> Vec<&str> {
    subtopology.sources.iter().chain(&subtopology.repartitions).map(String::as_str).collect()
}
