//! `taccola consume`: records to standard output, from partitions or as a member of a group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::OffsetSpec;
use taccola_client::{
    Admin, Consumer, ConsumerConfig, ConsumerRecord, Error, GroupConfig, GroupConsumer, IsolationLevel, StartOffset,
};
use taccola_wire::batch::TimestampType;

use super::Context;
use crate::cli::ConsumeArgs;
use crate::exit::{CliError, CliResult};
use crate::output::{self, Format, Stdout};
use crate::record_format::{Part, base64, parse, render};
use crate::timestamp;

/// How often the wait for records is looked up from.
const POLL: Duration = Duration::from_millis(500);

pub(crate) async fn run(context: &Context, mut args: ConsumeArgs) -> CliResult {
    let (start, shown) = offset_args(&args)?;
    let format = args.output.or(shown).or(context.format).unwrap_or_default();
    let parts = parse(args.format.as_deref().unwrap_or("%v\\n"));
    let parts = parts.map_err(|why| CliError::usage(format!("-f: {why}")))?;
    args.topics.sort();
    args.topics.dedup();
    let mut source = open(context, &args, start).await?;
    let mut printer = Printer { format, parts, number: 0, limit: args.num, out: Stdout::new() };
    let printed = tokio::select! {
        printed = print_all(&mut source, &mut printer, args.exit) => printed,
        // The usual end of reading on: what was printed stays committed.
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    let closed = match source {
        Source::Group(consumer) if printed.is_ok() => consumer.close().await.map_err(CliError::from),
        _ => Ok(()),
    };
    printed.and(closed)
}

/// `-o` means an offset here, but `-o json` is what fingers type; the last of each kind counts.
fn offset_args(args: &ConsumeArgs) -> CliResult<(Option<StartOffset>, Option<Format>)> {
    let (mut start, mut format) = (None, None);
    for text in &args.offset {
        match Format::from_str(text, true) {
            Ok(found) => format = Some(found),
            Err(_) => start = Some(parse_offset(text, now_ms()).map_err(CliError::usage)?),
        }
    }
    Ok((start, format))
}

fn parse_offset(text: &str, now_ms: i64) -> Result<StartOffset, String> {
    let bad = || format!("-o {text}: expected start, end, a number, -N, or @TIME");
    match text {
        "start" | "beginning" | "earliest" | "oldest" => return Ok(StartOffset::Earliest),
        "end" | "latest" | "newest" => return Ok(StartOffset::Latest),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return timestamp::parse(time, now_ms).map(StartOffset::Timestamp);
    }
    match text.strip_prefix('-') {
        Some(count) => count.parse().ok().filter(|c: &i64| *c >= 0).map(StartOffset::BeforeEnd).ok_or_else(bad),
        None => text.parse().ok().filter(|o: &i64| *o >= 0).map(StartOffset::At).ok_or_else(bad),
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

enum Source {
    Partitions(Box<Consumer>),
    Group(Box<GroupConsumer>),
}

impl Source {
    async fn poll(&mut self) -> Result<Vec<ConsumerRecord>, Error> {
        match self {
            Source::Partitions(consumer) => consumer.poll(POLL).await,
            Source::Group(consumer) => consumer.poll(POLL).await,
        }
    }

    /// What was polled but not printed must not be committed.
    fn give_back(&mut self, records: &[ConsumerRecord]) {
        if let Source::Group(consumer) = self {
            for record in records.iter().rev() {
                consumer.rewind(&TopicPartition::new(Arc::clone(&record.topic), record.partition), record.offset);
            }
        }
    }

    fn at_end(&self) -> bool {
        match self {
            Source::Partitions(consumer) => consumer.at_end(),
            Source::Group(consumer) => consumer.at_end(),
        }
    }
}

async fn open(context: &Context, args: &ConsumeArgs, start: Option<StartOffset>) -> CliResult<Source> {
    let isolation = if args.read_committed { IsolationLevel::ReadCommitted } else { IsolationLevel::ReadUncommitted };
    let config = ConsumerConfig { isolation, reset: Some(OffsetSpec::Earliest), ..Default::default() };
    let mut partitions = Vec::new();
    for name in &args.topics {
        let topic = context.client.topic(name).await?;
        for p in &topic.partitions {
            if args.partitions.is_empty() || args.partitions.contains(&p.index) {
                partitions.push(TopicPartition::new(Arc::clone(&topic.name), p.index));
            }
        }
        if let Some(absent) = args.partitions.iter().find(|p| topic.partition(**p).is_none()) {
            let last = topic.partitions.len().saturating_sub(1);
            let error = CliError::new(crate::exit::Exit::NotFound, format!("topic {name} has no partition {absent}"));
            return Err(error.hint(format!("its partitions are 0 to {last}")));
        }
    }
    if let Some(group) = &args.group {
        let start = match start {
            None | Some(StartOffset::Earliest) => OffsetSpec::Earliest,
            Some(StartOffset::Latest) => OffsetSpec::Latest,
            Some(StartOffset::Timestamp(ms)) => OffsetSpec::Timestamp(ms),
            Some(StartOffset::At(_) | StartOffset::BeforeEnd(_)) => {
                let error =
                    CliError::usage("in a group -o is start, end or @TIME, for partitions without a committed offset");
                return Err(error.hint(format!("`taccola group reset {group}` moves committed offsets")));
            }
        };
        let config_of_group = GroupConfig { start, ..GroupConfig::new(group.clone(), args.topics.iter().cloned()) };
        let consumer = GroupConsumer::new(context.client.clone(), config, config_of_group);
        return Ok(Source::Group(Box::new(consumer)));
    }
    let mut consumer = Consumer::new(context.client.clone(), config);
    let starts = match start.unwrap_or(StartOffset::Earliest) {
        StartOffset::At(offset) => inside_the_log(context, partitions, offset, isolation).await?,
        start => partitions.into_iter().map(|p| (p, start)).collect(),
    };
    consumer.assign(&starts).await?;
    Ok(Source::Partitions(Box::new(consumer)))
}

/// One offset is meant for all partitions; those that do not hold it start where they are nearest to it.
async fn inside_the_log(
    context: &Context,
    partitions: Vec<TopicPartition>,
    offset: i64,
    isolation: IsolationLevel,
) -> CliResult<Vec<(TopicPartition, StartOffset)>> {
    let admin = Admin::new(context.client.clone());
    let ask = async |spec: OffsetSpec| {
        let asked: Vec<_> = partitions.iter().map(|p| (p.clone(), spec)).collect();
        admin.list_offsets(&asked, isolation).await
    };
    let (starts, ends) = (ask(OffsetSpec::Earliest).await?, ask(OffsetSpec::Latest).await?);
    let mut inside = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let start = starts.get(&partition).and_then(|found| found.offset).unwrap_or(0);
        let end = ends.get(&partition).and_then(|found| found.offset).unwrap_or(start).max(start);
        let nearest = offset.clamp(start, end);
        if nearest != offset {
            output::note(&format!("{partition} holds offsets {start} to {end} (exclusive); starting at {nearest}"));
        }
        inside.push((partition, StartOffset::At(nearest)));
    }
    Ok(inside)
}

struct Printer {
    format: Format,
    parts: Vec<Part>,
    number: u64,
    limit: Option<u64>,
    out: Stdout,
}

impl Printer {
    fn full(&self) -> bool {
        self.limit.is_some_and(|limit| self.number >= limit)
    }

    fn print(&mut self, record: &ConsumerRecord, line: &mut Vec<u8>) -> CliResult {
        line.clear();
        match self.format {
            Format::Table => render(&self.parts, record, self.number, line),
            format => line.extend_from_slice(output::stream_document(format, &document(record)).as_bytes()),
        }
        self.number += 1;
        self.out.write(line)
    }
}

async fn print_all(source: &mut Source, printer: &mut Printer, exit: bool) -> CliResult {
    let mut line = Vec::new();
    while !printer.full() {
        let records = source.poll().await?;
        for (at, record) in records.iter().enumerate() {
            if printer.full() {
                source.give_back(records.get(at..).unwrap_or_default());
                break;
            }
            printer.print(record, &mut line)?;
        }
        printer.out.flush()?;
        if exit && source.at_end() {
            break;
        }
    }
    Ok(())
}

/// Bytes that are not UTF-8 are given in base64, under a name that says so.
fn document(record: &ConsumerRecord) -> Value {
    let mut value = json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "timestamp_type": match record.timestamp_type {
            TimestampType::CreateTime => "create",
            TimestampType::LogAppendTime => "append",
        },
    });
    put(&mut value, "key", record.key.as_ref());
    put(&mut value, "value", record.value.as_ref());
    if !record.headers.is_empty() {
        let header = |h: &taccola_wire::batch::RecordHeader| {
            let mut header = json!({});
            put(&mut header, "key", Some(&h.key));
            put(&mut header, "value", h.value.as_ref());
            header
        };
        if let Some(map) = value.as_object_mut() {
            map.insert("headers".to_owned(), record.headers.iter().map(header).collect());
        }
    }
    value
}

fn put(value: &mut Value, name: &str, bytes: Option<&Bytes>) {
    let Some(map) = value.as_object_mut() else { return };
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => map.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => map.insert(name.to_owned(), Value::String(text.to_owned())),
        Some(Err(bytes)) => map.insert(format!("{name}_base64"), Value::String(base64(bytes))),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets() {
        let cases = [
            ("start", StartOffset::Earliest),
            ("end", StartOffset::Latest),
            ("7", StartOffset::At(7)),
            ("-7", StartOffset::BeforeEnd(7)),
            ("@1795255200", StartOffset::Timestamp(1_795_255_200_000)),
            ("@-1s", StartOffset::Timestamp(9_000)),
        ];
        for (text, offset) in cases {
            assert_eq!(parse_offset(text, 10_000), Ok(offset), "{text}");
        }
        for bad in ["", "x", "-", "--1", "@", "1.5"] {
            assert!(parse_offset(bad, 0).is_err(), "{bad}");
        }
    }
}
