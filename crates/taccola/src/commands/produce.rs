//! `taccola produce`: records from standard input.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use taccola_client::{
    Acks, Delivery, Error, Producer, ProducerConfig, ProducerRecord, RecordMetadata, TransactionConfig,
    TransactionalProducer,
};
use taccola_wire::batch::{Compression, RecordHeader};
use tokio::sync::mpsc;

use super::Context;
use crate::cli::ProduceArgs;
use crate::exit::{CliError, CliResult};
use crate::output::{self, Format, Stdout};
use crate::record_input::{InputRecord, RecordReader, Shape};

/// Records that were read and wait for the producer, and deliveries that wait to be looked at.
const PIPELINE_MAX: usize = 4_096;

pub(crate) async fn run(context: &Context, args: ProduceArgs) -> CliResult {
    let config = config(&args)?;
    let shape = shape(&args)?;
    let format = context.format(args.output);
    let mut way = Way::open(context, &args, config).await?;
    let interactive = output::stdin_is_terminal();
    if interactive {
        output::note(&format!("Each line becomes a record of {}; end with Ctrl-D.", args.topic));
    }
    let mut records = read_input(shape);
    let (deliveries, settled) = mpsc::channel(PIPELINE_MAX);
    let watcher = tokio::spawn(watch(settled, args.topic.clone(), format, interactive));
    let sent = send_all(&mut way, &args, &mut records, deliveries).await;
    way.flush().await?;
    let outcome = watcher.await.map_err(|error| CliError::failure(error.to_string()))?;
    let outcome = way.end(outcome.and_then(|count| sent.map(|()| count))).await;
    if let Ok(count) = &outcome
        && format == Format::Table
        && !interactive
    {
        let plural = if *count == 1 { "record" } else { "records" };
        output::note(&format!("{count} {plural} written to {}", args.topic));
    }
    outcome.map(|_| ())
}

/// How records are sent: one by one, or all in one transaction.
enum Way {
    Plain(Producer),
    Transaction(Box<TransactionalProducer>),
}

impl Way {
    async fn open(context: &Context, args: &ProduceArgs, config: ProducerConfig) -> CliResult<Self> {
        let Some(id) = &args.transactional_id else {
            return Ok(Self::Plain(Producer::new(context.client.clone(), config)?));
        };
        if !config.idempotent {
            return Err(CliError::usage("--transactional-id needs --acks all"));
        }
        let timeout = Duration::from_millis(args.transaction_timeout);
        let transaction = TransactionConfig { timeout, ..TransactionConfig::new(id.clone()) };
        let mut producer = TransactionalProducer::new(context.client.clone(), config, transaction)?;
        producer.init().await?;
        producer.begin().await?;
        Ok(Self::Transaction(Box::new(producer)))
    }

    async fn send(&mut self, record: ProducerRecord) -> Result<Delivery, Error> {
        match self {
            Self::Plain(producer) => producer.send(record).await,
            Self::Transaction(producer) => producer.send(record).await,
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Plain(producer) => producer.flush().await,
            Self::Transaction(producer) => producer.flush().await,
        }
    }

    /// Commits what went well and aborts the rest; the first failure is what is told.
    async fn end<T>(self, outcome: CliResult<T>) -> CliResult<T> {
        let Self::Transaction(mut producer) = self else { return outcome };
        let failure = match outcome {
            Ok(value) => match producer.commit().await {
                Ok(()) => return Ok(value),
                Err(error) => CliError::from(error),
            },
            Err(failure) => failure,
        };
        Err(match producer.abort().await {
            Ok(()) => failure.hint("the transaction was aborted"),
            Err(error) => {
                failure.hint(format!("the transaction could not be aborted ({error}) and ends by its timeout"))
            }
        })
    }
}

fn config(args: &ProduceArgs) -> CliResult<ProducerConfig> {
    let acks = match args.acks.as_str() {
        "all" | "-1" => Acks::All,
        "1" => Acks::Leader,
        "0" => Acks::None,
        other => return Err(CliError::usage(format!("--acks {other} is unknown; it is all, 1 or 0"))),
    };
    let compression = Compression::from_name(&args.compression).ok_or_else(|| {
        CliError::usage(format!("--compression {} is unknown; it is none, gzip, snappy, lz4 or zstd", args.compression))
    })?;
    let defaults = ProducerConfig::default();
    Ok(ProducerConfig {
        acks,
        idempotent: acks == Acks::All,
        compression,
        batch_bytes: args.batch_size,
        request_bytes_max: args.max_message_bytes.max(args.batch_size),
        buffer_bytes: defaults.buffer_bytes.max(args.max_message_bytes.saturating_mul(2)),
        linger: Duration::from_millis(args.linger),
        delivery_timeout: Duration::from_millis(args.delivery_timeout),
        ..defaults
    })
}

fn shape(args: &ProduceArgs) -> CliResult<Shape> {
    match &args.format {
        Some(format) => Shape::from_format(format).map_err(|why| CliError::usage(format!("-f {format:?}: {why}"))),
        None => Ok(Shape::Lines { key_separator: args.key_separator.as_ref().map(|s| unescape(s)) }),
    }
}

/// A tab is often wanted and hard to type.
fn unescape(separator: &str) -> Vec<u8> {
    separator.replace("\\t", "\t").into_bytes()
}

/// Reads on a thread of its own: standard input cannot be waited for otherwise.
fn read_input(shape: Shape) -> mpsc::Receiver<Result<InputRecord, String>> {
    let (records, queue) = mpsc::channel(PIPELINE_MAX);
    tokio::task::spawn_blocking(move || {
        let mut reader = RecordReader::new(io::stdin().lock(), shape);
        loop {
            let record = match reader.next() {
                Ok(Some(record)) => Ok(record),
                Ok(None) => return,
                Err(why) => Err(why),
            };
            let last = record.is_err();
            // The other end is gone when sending has failed.
            if records.blocking_send(record).is_err() || last {
                return;
            }
        }
    });
    queue
}

async fn send_all(
    way: &mut Way,
    args: &ProduceArgs,
    records: &mut mpsc::Receiver<Result<InputRecord, String>>,
    deliveries: mpsc::Sender<Delivery>,
) -> CliResult {
    let headers: Vec<_> = args
        .headers
        .iter()
        .map(|(name, value)| RecordHeader::new(name.clone(), Some(Bytes::from(value.clone()))))
        .collect();
    let topic: std::sync::Arc<str> = args.topic.as_str().into();
    let key = args.key.as_ref().map(|key| Bytes::from(key.clone()));
    while let Some(record) = records.recv().await {
        let record = record.map_err(CliError::failure)?;
        let value = record.value.filter(|value| !(args.tombstone && value.is_empty()));
        let mut all_headers = headers.clone();
        all_headers.extend(record.headers);
        let record = ProducerRecord {
            topic: record.topic.map_or_else(|| std::sync::Arc::clone(&topic), Into::into),
            partition: record.partition.or(args.partition),
            timestamp: record.timestamp,
            key: record.key.or_else(|| key.clone()),
            value,
            headers: all_headers,
        };
        let delivery = way.send(record).await?;
        // The watcher ends at the first failure; what it found is reported.
        if deliveries.send(delivery).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for deliveries in order and counts them; ends with the first failure.
async fn watch(
    mut deliveries: mpsc::Receiver<Delivery>,
    topic: String,
    format: Format,
    interactive: bool,
) -> CliResult<u64> {
    let mut count = 0;
    let mut out = Stdout::new();
    while let Some(delivery) = deliveries.recv().await {
        let RecordMetadata { partition, offset, timestamp } = delivery.await?;
        count += 1;
        match format {
            Format::Table if interactive => output::note(&format!("partition {partition}, offset {offset}")),
            Format::Table => {}
            Format::Json | Format::Yaml => {
                let value = json!({"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp});
                out.write(output::stream_document(format, &value).as_bytes())?;
                if deliveries.is_empty() {
                    out.flush()?;
                }
            }
        }
    }
    out.flush()?;
    Ok(count)
}
