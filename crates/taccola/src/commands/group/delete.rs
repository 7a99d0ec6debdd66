//! `taccola group delete` and `delete-offsets`.

use std::collections::BTreeSet;

use serde_json::json;
use taccola_client::{Admin, Error};

use super::super::{Context, finish};
use super::reset;
use crate::cli::OutputArgs;
use crate::exit::{CliError, CliResult};
use crate::output::Table;

/// Deletes groups; of streams groups, if asked for, the topics that only they use.
pub(super) async fn groups(
    context: &Context,
    admin: &Admin,
    groups: Vec<String>,
    internal_topics: bool,
    output: OutputArgs,
) -> CliResult {
    let (mut table, mut values, mut failures) = (Table::new(&["GROUP", "STATUS"]), Vec::new(), Vec::new());
    // Afterwards nobody knows them.
    let mut topics = Vec::new();
    for group in groups.iter().filter(|_| internal_topics) {
        topics.push((group.clone(), internal_topics_of(admin, group).await.unwrap_or_default()));
    }
    for (group, outcome) in admin.delete_groups(&groups).await {
        let status = if outcome.is_ok() { "deleted" } else { "failed" };
        table.row([group.as_str(), status]);
        values.push(json!({"group": group, "status": status}));
        if let Err(error) = outcome {
            topics.retain(|(owner, _)| *owner != group);
            failures.push((group, CliError::from(error)));
        }
    }
    let topics: Vec<String> = topics.into_iter().flat_map(|(_, topics)| topics).collect();
    if !topics.is_empty() {
        for (topic, outcome) in admin.delete_topics(&topics).await? {
            let status = if outcome.is_ok() { "deleted" } else { "failed" };
            table.row([format!("topic {topic}"), status.to_owned()]);
            values.push(json!({"topic": topic, "status": status}));
            if let Err(error) = outcome {
                failures.push((topic, CliError::from(error)));
            }
        }
    }
    finish(context.format(output), values, table, failures)
}

/// Repartition and changelog topics of a streams group, as far as their names say that they are its own.
async fn internal_topics_of(admin: &Admin, group: &str) -> Result<Vec<String>, Error> {
    let topology = admin.describe_group(group).await?.topology.unwrap_or_default();
    let names = topology.subtopologies.into_iter().flat_map(|s| s.repartitions.into_iter().chain(s.changelogs));
    let own = |name: &String| {
        let name = name.strip_prefix(group).and_then(|name| name.strip_prefix('-'));
        name.is_some_and(|name| name.ends_with("-changelog") || name.ends_with("-repartition"))
    };
    Ok(names.filter(own).collect::<BTreeSet<_>>().into_iter().collect())
}

/// Makes a group forget offsets.
pub(super) async fn offsets(
    context: &Context,
    admin: &Admin,
    group: &str,
    topics: &[String],
    output: OutputArgs,
) -> CliResult {
    let outcomes: Vec<(String, Result<(), Error>)> = match reset::is_share_group(admin, group).await? {
        true if topics.iter().any(|topic| topic.contains(':')) => {
            return Err(CliError::usage("a share group forgets whole topics; name no partitions".to_owned()));
        }
        true => admin.delete_share_group_offsets(group, topics).await?,
        false => {
            let partitions = reset::named_partitions(admin, topics).await?;
            let deleted = admin.delete_group_offsets(group, &partitions).await?;
            deleted.into_iter().map(|(partition, outcome)| (partition.to_string(), outcome)).collect()
        }
    };
    let (mut table, mut values, mut failures) = (Table::new(&["GROUP", "OFFSETS", "STATUS"]), Vec::new(), Vec::new());
    for (subject, outcome) in outcomes {
        let status = if outcome.is_ok() { "deleted" } else { "failed" };
        table.row([group, &subject, status]);
        values.push(json!({"group": group, "offsets": subject, "status": status}));
        if let Err(error) = outcome {
            failures.push((subject, CliError::from(error)));
        }
    }
    finish(context.format(output), values, table, failures)
}
