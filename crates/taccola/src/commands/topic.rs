//! `taccola topic`.

use std::sync::Arc;

use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::{ConfigOp, ConfigResource, ConfigSource, NewTopic, OffsetSpec, ResourceType};
use taccola_client::cluster::TopicMetadata;
use taccola_client::{Admin, Error, IsolationLevel};
use taccola_wire::error::ErrorCode;

use super::{Context, finish, first_failure};
use crate::cli::{TopicAlterArgs, TopicCommand, TopicCreateArgs, TopicDeleteArgs, TopicDescribeArgs, TopicListArgs};
use crate::exit::{CliError, CliResult};
use crate::output::{self, Table};

pub(crate) async fn run(context: &Context, command: TopicCommand) -> CliResult {
    let admin = Admin::new(context.client.clone());
    match command {
        TopicCommand::Create(args) => create(context, &admin, args).await,
        TopicCommand::List(args) => list(context, &admin, args).await,
        TopicCommand::Describe(args) => describe(context, &admin, args).await,
        TopicCommand::Alter(args) => alter(context, &admin, args).await,
        TopicCommand::Delete(args) => delete(context, &admin, args).await,
    }
}

async fn create(context: &Context, admin: &Admin, args: TopicCreateArgs) -> CliResult {
    let topic = |name: &String| NewTopic {
        name: name.clone(),
        partitions: args.partitions,
        replication_factor: args.replicas,
        configs: args.configs.clone(),
    };
    let topics: Vec<_> = args.topics.iter().map(topic).collect();
    let mut table = Table::new(&["TOPIC", "STATUS"]);
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for (name, outcome) in admin.create_topics(&topics, args.dry_run).await? {
        let (status, created) = match outcome {
            Ok(created) => (if args.dry_run { "valid" } else { "created" }, Some(created)),
            Err(error) if args.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => ("exists", None),
            Err(error) => {
                failures.push((name.clone(), CliError::from(error)));
                ("failed", None)
            }
        };
        table.row([name.as_str(), status]);
        values.push(json!({
            "topic": name,
            "status": status,
            "id": created.as_ref().filter(|c| !c.id.is_zero()).map(|c| c.id.to_string()),
            "partitions": created.as_ref().and_then(|c| c.partitions),
            "replication_factor": created.as_ref().and_then(|c| c.replication_factor),
        }));
    }
    finish(context.format(args.output), values, table, failures)
}

async fn list(context: &Context, admin: &Admin, args: TopicListArgs) -> CliResult {
    let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICAS"]);
    let mut values = Vec::new();
    for topic in admin.list_topics().await? {
        if topic.internal && !args.internal {
            continue;
        }
        let replicas = replication_factor(&topic);
        table.row([topic.name.to_string(), topic.partitions.len().to_string(), replicas.to_string()]);
        values.push(json!({
            "name": &*topic.name,
            "partitions": topic.partitions.len(),
            "replicas": replicas,
            "internal": topic.internal,
        }));
    }
    output::result(context.format(args.output), &Value::Array(values), &[table])
}

fn replication_factor(topic: &TopicMetadata) -> usize {
    topic.partitions.first().map_or(0, |p| p.replicas.len())
}

async fn describe(context: &Context, admin: &Admin, args: TopicDescribeArgs) -> CliResult {
    let mut tables = Vec::new();
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for name in args.topics {
        match describe_one(admin, &name).await {
            Ok((value, one)) => {
                values.push(value);
                tables.extend(one);
            }
            Err(error) => failures.push((name, CliError::from(error))),
        }
    }
    if !values.is_empty() {
        output::result(context.format(args.output), &Value::Array(values), &tables)?;
    }
    first_failure(failures)
}

async fn describe_one(admin: &Admin, name: &str) -> Result<(Value, Vec<Table>), Error> {
    let topic = admin.describe_topic(name).await?;
    let resource = ConfigResource { kind: ResourceType::Topic, name: name.to_owned() };
    let configs = admin.describe_configs(&resource, false).await?;
    let is_tiered = configs.iter().any(|c| c.name == "remote.storage.enable" && c.value.as_deref() == Some("true"));
    let offsets = offsets(admin, &topic, is_tiered).await;

    let mut summary = Table::new(&[]);
    summary.row(["NAME", name]);
    if !topic.id.is_zero() {
        summary.row(["ID".to_owned(), topic.id.to_string()]);
    }
    summary.row(["PARTITIONS".to_owned(), topic.partitions.len().to_string()]);
    summary.row(["REPLICAS".to_owned(), replication_factor(&topic).to_string()]);
    if topic.internal {
        summary.row(["INTERNAL", "yes"]);
    }

    let mut columns = vec!["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "START", "END"];
    if is_tiered {
        columns.extend(["LOCAL START", "TIERED TO"]);
    }
    let mut partitions = Table::new(&columns);
    let mut partition_values = Vec::new();
    for p in &topic.partitions {
        let Bounds { start, end, local_start, tiered_to } =
            offsets.get(usize::try_from(p.index).unwrap_or(usize::MAX)).copied().unwrap_or_default();
        let shown = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
        let leader = p.leader.map_or("none".to_owned(), |leader| leader.to_string());
        let mut row = vec![
            p.index.to_string(),
            leader,
            p.leader_epoch.to_string(),
            ids(&p.replicas),
            ids(&p.isr),
            shown(start),
            shown(end),
        ];
        let mut value = json!({
            "partition": p.index,
            "leader": p.leader,
            "leader_epoch": p.leader_epoch,
            "replicas": p.replicas,
            "isr": p.isr,
            "offline": p.offline,
            "start_offset": start,
            "end_offset": end,
        });
        if is_tiered {
            row.extend([shown(local_start), shown(tiered_to)]);
            if let Some(value) = value.as_object_mut() {
                value.insert("local_start_offset".to_owned(), json!(local_start));
                value.insert("last_tiered_offset".to_owned(), json!(tiered_to));
            }
        }
        partitions.row(row);
        partition_values.push(value);
    }

    let mut own = Table::new(&["CONFIG", "VALUE"]);
    let set: Vec<_> = configs.iter().filter(|c| c.source == ConfigSource::Topic).collect();
    for config in &set {
        own.row([config.name.as_str(), config.value.as_deref().unwrap_or("(secret)")]);
    }
    let value = json!({
        "name": name,
        "id": (!topic.id.is_zero()).then(|| topic.id.to_string()),
        "internal": topic.internal,
        "partitions": partition_values,
        "configs": configs.iter().map(|c| json!({
            "name": c.name, "value": c.value, "source": c.source.name(),
        })).collect::<Vec<_>>(),
    });
    let mut tables = vec![summary, partitions];
    if !set.is_empty() {
        tables.push(own);
    }
    Ok((value, tables))
}

fn ids(nodes: &[i32]) -> String {
    format!("[{}]", nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(" "))
}

/// Where a partition begins and ends; unknown where it has no leader or may not be read.
#[derive(Clone, Copy, Default)]
struct Bounds {
    start: Option<i64>,
    end: Option<i64>,
    /// Of a tiered topic: the first offset on the broker's disk, and the last that is in remote storage.
    local_start: Option<i64>,
    tiered_to: Option<i64>,
}

/// By partition index.
async fn offsets(admin: &Admin, topic: &Arc<TopicMetadata>, is_tiered: bool) -> Vec<Bounds> {
    let mut found = Vec::with_capacity(topic.partitions.len());
    let led: Vec<_> = topic
        .partitions
        .iter()
        .filter(|p| p.leader.is_some())
        .map(|p| TopicPartition::new(Arc::clone(&topic.name), p.index))
        .collect();
    let ask = async |spec: OffsetSpec| {
        let asked: Vec<_> = led.iter().map(|p| (p.clone(), spec)).collect();
        admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await.unwrap_or_default()
    };
    let (starts, ends) = (ask(OffsetSpec::Earliest).await, ask(OffsetSpec::Latest).await);
    let (mut locals, mut tiered) = (Default::default(), Default::default());
    if is_tiered {
        locals = ask(OffsetSpec::EarliestLocal).await;
        tiered = ask(OffsetSpec::LatestTiered).await;
    }
    for p in &topic.partitions {
        let partition = TopicPartition::new(Arc::clone(&topic.name), p.index);
        found.push(Bounds {
            start: starts.get(&partition).and_then(|o| o.offset),
            end: ends.get(&partition).and_then(|o| o.offset),
            local_start: locals.get(&partition).and_then(|o| o.offset),
            tiered_to: tiered.get(&partition).and_then(|o| o.offset),
        });
    }
    found
}

async fn alter(context: &Context, admin: &Admin, args: TopicAlterArgs) -> CliResult {
    let mut changes = Vec::new();
    if let Some(total) = args.partitions {
        let outcomes = admin.create_partitions(&[(args.topic.clone(), total)], args.dry_run).await?;
        outcomes.into_iter().try_for_each(|(_, outcome)| outcome)?;
        changes.push(format!("{total} partitions"));
    }
    let set = args.configs.iter().map(|(name, value)| (name.clone(), ConfigOp::Set(value.clone())));
    let ops: Vec<_> = set.chain(args.delete_configs.iter().map(|name| (name.clone(), ConfigOp::Delete))).collect();
    if !ops.is_empty() {
        let resource = ConfigResource { kind: ResourceType::Topic, name: args.topic.clone() };
        admin.alter_configs(&resource, &ops, args.dry_run).await?;
        changes.extend(args.configs.iter().map(|(name, value)| format!("{name}={value}")));
        changes.extend(args.delete_configs.iter().map(|name| format!("{name} reset")));
    }
    let status = if args.dry_run { "valid" } else { "altered" };
    let mut table = Table::new(&["TOPIC", "STATUS", "CHANGES"]);
    table.row([args.topic.as_str(), status, &changes.join(", ")]);
    let value = json!({"topic": args.topic, "status": status, "changes": changes});
    output::result(context.format(args.output), &value, &[table])
}

async fn delete(context: &Context, admin: &Admin, args: TopicDeleteArgs) -> CliResult {
    let mut table = Table::new(&["TOPIC", "STATUS"]);
    let mut values = Vec::new();
    let mut failures = Vec::new();
    for (name, outcome) in admin.delete_topics(&args.topics).await? {
        let status = match outcome {
            Ok(()) => "deleted",
            Err(Error::UnknownTopic(_)) if args.if_exists => "absent",
            Err(Error::UnknownTopic(_)) => {
                let error = CliError::from(Error::UnknownTopic(name.clone()));
                failures.push((name.clone(), error.hint("--if-exists accepts that")));
                "failed"
            }
            Err(error) => {
                failures.push((name.clone(), CliError::from(error)));
                "failed"
            }
        };
        table.row([name.as_str(), status]);
        values.push(json!({"topic": name, "status": status}));
    }
    finish(context.format(args.output), values, table, failures)
}
