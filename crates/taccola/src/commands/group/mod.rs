//! `taccola group`: groups of all kinds, classic, consumer (KIP-848), share (KIP-932) and streams (KIP-1071).

mod delete;
mod describe;
mod reset;

use serde_json::{Value, json};
use taccola_client::Admin;

use super::Context;
use crate::cli::{GroupCommand, GroupKind, OutputArgs};
use crate::exit::CliResult;
use crate::output::{self, Table};

pub(crate) async fn run(context: &Context, command: GroupCommand) -> CliResult {
    let admin = Admin::new(context.client.clone());
    match command {
        GroupCommand::List { kinds, output } => list(context, &admin, &kinds, output).await,
        GroupCommand::Describe { groups, output } => describe::run(context, &admin, groups, output).await,
        GroupCommand::Reset(args) => reset::run(context, &admin, args).await,
        GroupCommand::DeleteOffsets { group, topics, output } => {
            delete::offsets(context, &admin, &group, &topics, output).await
        }
        GroupCommand::Delete { groups, internal_topics, output } => {
            delete::groups(context, &admin, groups, internal_topics, output).await
        }
    }
}

/// The type's name in Kafka's answers, in lower case.
fn kind_name(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Classic => "classic",
        GroupKind::Consumer => "consumer",
        GroupKind::Share => "share",
        GroupKind::Streams => "streams",
    }
}

async fn list(context: &Context, admin: &Admin, kinds: &[GroupKind], output: OutputArgs) -> CliResult {
    let mut table = Table::new(&["GROUP", "TYPE", "STATE", "PROTOCOL", "COORDINATOR"]);
    let mut values = Vec::new();
    for group in admin.list_groups().await? {
        if !kinds.is_empty() && !kinds.iter().any(|kind| kind_name(*kind) == group.kind) {
            continue;
        }
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
