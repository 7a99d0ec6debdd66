//! `taccola txn`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::{AbortTransaction, TransactionDescription, TransactionFilter};
use taccola_client::{Admin, Error};

use super::{Context, first_failure};
use crate::cli::{OutputArgs, TxnAbortArgs, TxnCommand, TxnListArgs};
use crate::exit::{CliError, CliResult};
use crate::output::{self, Table};
use crate::timestamp;

pub(crate) async fn run(context: &Context, command: TxnCommand) -> CliResult {
    let admin = Admin::new(context.client.clone());
    match command {
        TxnCommand::List(args) => list(context, &admin, args).await,
        TxnCommand::Describe { ids, output } => describe(context, &admin, ids, output).await,
        TxnCommand::Abort(args) => abort(context, &admin, args).await,
    }
}

async fn list(context: &Context, admin: &Admin, args: TxnListArgs) -> CliResult {
    let filter = TransactionFilter {
        states: args.states,
        producer_ids: args.producer_ids,
        running_longer_than: args.longer_than.map(Duration::from_millis),
        pattern: args.pattern,
    };
    let mut table = Table::new(&["TRANSACTIONAL-ID", "COORDINATOR", "PRODUCER-ID", "STATE"]);
    let mut values = Vec::new();
    for found in admin.list_transactions(&filter).await? {
        table.row([
            found.transactional_id.clone(),
            found.coordinator.to_string(),
            found.producer_id.to_string(),
            found.state.clone(),
        ]);
        values.push(json!({
            "transactional_id": found.transactional_id,
            "coordinator": found.coordinator,
            "producer_id": found.producer_id,
            "state": found.state,
        }));
    }
    output::result(context.format(args.output), &Value::Array(values), &[table])
}

async fn describe(context: &Context, admin: &Admin, ids: Vec<String>, output: OutputArgs) -> CliResult {
    let (mut tables, mut values, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for id in ids {
        match admin.describe_transaction(&id).await {
            Ok(found) => {
                values.push(value(&found));
                tables.push(table(&found));
            }
            Err(error) => failures.push((id, CliError::from(error))),
        }
    }
    if !values.is_empty() {
        output::result(context.format(output), &Value::Array(values), &tables)?;
    }
    first_failure(failures)
}

/// How long the transaction has been open, in milliseconds; `None` when it is over.
fn open_ms(found: &TransactionDescription) -> Option<i64> {
    let open = matches!(found.state.as_str(), "Ongoing" | "PrepareCommit" | "PrepareAbort" | "PrepareEpochFence");
    found.start_ms.filter(|_| open).map(|start| timestamp::now_ms().saturating_sub(start).max(0))
}

fn names(found: &TransactionDescription) -> Vec<String> {
    found.partitions.iter().map(TopicPartition::to_string).collect()
}

fn table(found: &TransactionDescription) -> Table {
    let dash = |ms: Option<i64>| ms.map_or("-".to_owned(), |ms| ms.to_string());
    let mut table = Table::new(&[]);
    for (name, value) in [
        ("TRANSACTIONAL-ID", found.transactional_id.clone()),
        ("STATE", found.state.clone()),
        ("PRODUCER-ID", found.producer_id.to_string()),
        ("PRODUCER-EPOCH", found.producer_epoch.to_string()),
        ("COORDINATOR", found.coordinator.to_string()),
        ("TIMEOUT-MS", found.timeout_ms.to_string()),
        ("START-TIME-MS", dash(found.start_ms)),
        ("OPEN-MS", dash(open_ms(found))),
        ("PARTITIONS", names(found).join(" ")),
    ] {
        table.row([name.to_owned(), value]);
    }
    table
}

fn value(found: &TransactionDescription) -> Value {
    json!({
        "transactional_id": found.transactional_id,
        "state": found.state,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "coordinator": found.coordinator,
        "timeout_ms": found.timeout_ms,
        "start_time_ms": found.start_ms,
        "open_ms": open_ms(found),
        "partitions": names(found),
    })
}

async fn abort(context: &Context, admin: &Admin, args: TxnAbortArgs) -> CliResult {
    let mut table = Table::new(&["TRANSACTION", "STATUS"]);
    let format = context.format(args.output);
    if let Some(id) = &args.transactional_id {
        admin.terminate_transaction(id).await?;
        table.row([id.as_str(), "ended"]);
        return output::result(format, &json!({"transactional_id": id, "status": "ended"}), &[table]);
    }
    let abort = hanging(admin, &args).await?;
    admin.abort_transaction(&abort).await?;
    table.row([format!("{} of producer {}", abort.partition, abort.producer_id), "aborted".to_owned()]);
    let value = json!({
        "topic": &*abort.partition.topic,
        "partition": abort.partition.partition,
        "producer_id": abort.producer_id,
        "producer_epoch": abort.producer_epoch,
        "coordinator_epoch": abort.coordinator_epoch,
        "status": "aborted",
    });
    output::result(format, &value, &[table])
}

/// The transaction that the arguments mean.
async fn hanging(admin: &Admin, args: &TxnAbortArgs) -> CliResult<AbortTransaction> {
    let (Some(topic), Some(partition)) = (&args.topic, args.partition) else {
        return Err(CliError::usage("name a transactional id, or --topic and --partition"));
    };
    let partition = TopicPartition::new(Arc::<str>::from(topic.as_str()), partition);
    if let (Some(producer_id), Some(producer_epoch)) = (args.producer_id, args.producer_epoch) {
        let coordinator_epoch = args.coordinator_epoch;
        return Ok(AbortTransaction { partition, producer_id, producer_epoch, coordinator_epoch });
    }
    if let Some(start) = args.start_offset {
        return Ok(admin.find_hanging(&partition, start).await?);
    }
    Err(open_transactions(admin, &partition).await?)
}

/// What to choose from, when it was not said which.
async fn open_transactions(admin: &Admin, partition: &TopicPartition) -> Result<CliError, Error> {
    let producers = admin.describe_producers(partition).await?;
    let open: Vec<_> = producers
        .iter()
        .filter_map(|p| p.transaction_start.map(|start| format!("{start} (producer {})", p.id)))
        .collect();
    let error = CliError::usage(format!("it is not said which transaction of {partition} is meant"));
    Ok(error.hint(match open.is_empty() {
        true => "none is open there".to_owned(),
        false => format!("name it with --start-offset; open ones begin at {}", open.join(", ")),
    }))
}
