//! `taccola backup restore`.

use std::sync::Arc;

use serde_json::{Value, json};
use taccola_backup::restore::{self, Into, Plan, Report, RestoreOptions};
use taccola_backup::{Chain, Error, Progress, Selector};

use super::{repository, secret, showing};
use crate::cli::BackupRestoreArgs;
use crate::commands::Context;
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Format, Table};

pub(super) async fn run(context: &Context, args: BackupRestoreArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let keys = secret::keyring(&args.key, false)?;
    let id = repository.resolve(&args.backup).await?;
    let chain = Arc::new(Chain::open(&repository, &id, &keys).await?);
    let format = context.format(args.output);
    let (dry_run, into) = (args.dry_run, into(&args));
    let options = options(args, into);
    if dry_run {
        let plan = restore::plan(&context.client, &chain, &options).await.map_err(hinted)?;
        return planned(format, &id, &plan);
    }
    let progress = Progress::default();
    let work = restore::restore(&context.client, &repository, &chain, &keys, &options, &progress);
    let report = showing(&progress, "partitions", work).await.map_err(hinted)?;
    restored(format, &id, &report)
}

fn into(args: &BackupRestoreArgs) -> Into {
    match (args.resume, args.append) {
        (true, _) => Into::Resume,
        (_, true) => Into::Append,
        _ => Into::Empty,
    }
}

fn options(args: BackupRestoreArgs, into: Into) -> RestoreOptions {
    RestoreOptions {
        topics: Selector { include: args.topics, exclude: args.exclude_topic },
        groups: Selector { include: args.groups, exclude: Vec::new() },
        rename: args.rename,
        prefix: args.prefix,
        into,
        with_groups: !args.no_groups,
        with_broker_configs: args.broker_configs,
        with_acls: args.acls,
        replication_factor: args.replicas,
        verify_first: !args.no_verify,
        verify_after: args.read_back,
        jobs: usize::from(args.jobs),
    }
}

fn hinted(error: Error) -> CliError {
    match &error {
        Error::Refused(message) if message.contains("exists and holds records") => {
            let error = CliError::new(Exit::AlreadyExists, message.clone());
            error.hint(
                "restore under another name (--rename, --prefix), go on with --resume, or add to it with --append",
            )
        }
        _ => error.into(),
    }
}

fn planned(format: Format, id: &str, plan: &Plan) -> CliResult {
    let mut table = Table::new(&["TOPIC", "BECOMES", "PARTITIONS", "ACTION"]);
    let mut topics = Vec::new();
    for topic in &plan.topics {
        let action = topic.action.name();
        table.row([topic.source.as_str(), &topic.target, &topic.partitions.to_string(), action]);
        topics.push(json!({
            "topic": topic.source, "target": topic.target, "partitions": topic.partitions, "action": action,
        }));
    }
    let value = json!({"backup": id, "topics": topics, "groups": plan.groups, "executed": false});
    output::result(format, &value, &[table])?;
    if format == Format::Table && !plan.groups.is_empty() {
        output::note(&format!("Offsets of groups: {}", plan.groups.join(", ")));
    }
    output::note("Nothing was changed.");
    Ok(())
}

fn restored(format: Format, id: &str, report: &Report) -> CliResult {
    let mut topics = Table::new(&["TOPIC", "RESTORED-AS", "PARTITIONS", "WRITTEN", "FOUND", "OFFSETS"]);
    let mut topic_values = Vec::new();
    for topic in &report.topics {
        let offsets = if topic.offsets_kept { "kept" } else { "translated" };
        topics.row([
            topic.source.clone(),
            topic.target.clone(),
            topic.partitions.to_string(),
            topic.written.to_string(),
            topic.found.to_string(),
            offsets.to_owned(),
        ]);
        topic_values.push(json!({
            "topic": topic.source,
            "target": topic.target,
            "partitions": topic.partitions,
            "records_written": topic.written,
            "records_found": topic.found,
            "offsets_kept": topic.offsets_kept,
        }));
    }
    let mut groups = match report.groups.is_empty() {
        true => Table::new(&[]),
        false => Table::new(&["GROUP", "TYPE", "OFFSETS"]),
    };
    let mut group_values = Vec::new();
    for group in &report.groups {
        groups.row([group.id.clone(), group.kind.clone(), group.offsets.to_string()]);
        group_values.push(json!({"group": group.id, "type": group.kind, "offsets": group.offsets}));
    }
    let value: Value = json!({
        "backup": id,
        "topics": topic_values,
        "groups": group_values,
        "acls": report.acls,
        "read_back": report.verified,
        "failures": report.failures,
    });
    output::result(format, &value, &[topics, groups])?;
    let mut failures = report.failures.iter();
    match failures.next_back() {
        None => Ok(()),
        Some(last) => {
            failures.for_each(|failure| output::note(&format!("error: {failure}")));
            Err(CliError::failure(format!("restored, but not all of it: {last}")))
        }
    }
}
