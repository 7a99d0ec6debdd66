//! `taccola consume`: records to standard output, from partitions or as a member of a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Value, json};
use taccola_base::TopicPartition;
use taccola_client::admin::OffsetSpec;
use taccola_client::{
    AckMode, AckType, Admin, Assignor, Consumer, ConsumerConfig, ConsumerRecord, Error, GroupConfig, GroupConsumer,
    GroupProtocol, IsolationLevel, ShareConfig, ShareConsumer, ShareRecord, StartOffset,
};
use taccola_wire::batch::TimestampType;

use super::Context;
use crate::cli::{self, AckDecision, ConsumeArgs, Isolation};
use crate::exit::{CliError, CliResult};
use crate::output::{self, Format, Stdout};
use crate::record_format::{Part, base64, parse, render};
use crate::timestamp;

/// How often the wait for records is looked up from.
const POLL: Duration = Duration::from_millis(500);
/// A share group has no end: how long nothing must come for it to count as reached.
const SHARE_QUIET: Duration = Duration::from_secs(2);

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
        Source::Share(source) => source.close(printed.is_ok()).await,
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
            Err(_) => start = Some(parse_offset(text, timestamp::now_ms()).map_err(CliError::usage)?),
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

enum Source {
    Partitions(Box<Consumer>),
    Group(Box<GroupConsumer>),
    Share(Box<ShareSource>),
}

/// A share group's records, decided on when they were printed.
struct ShareSource {
    consumer: ShareConsumer,
    decision: AckType,
    /// Of the last poll, in its order.
    records: Vec<ShareRecord>,
    /// Since when nothing has come; `None` before there is a partition that something could come from.
    quiet_since: Option<Instant>,
}

impl ShareSource {
    fn open(context: &Context, args: &ConsumeArgs, group: &str) -> Self {
        let config = ShareConfig { mode: AckMode::Explicit, ..ShareConfig::new(group, args.topics.iter().cloned()) };
        let decision = match args.ack {
            AckDecision::Accept => AckType::Accept,
            AckDecision::Release => AckType::Release,
            AckDecision::Reject => AckType::Reject,
        };
        let consumer = ShareConsumer::new(context.client.clone(), config);
        Self { consumer, decision, records: Vec::new(), quiet_since: None }
    }

    async fn poll(&mut self) -> Result<Vec<ConsumerRecord>, Error> {
        self.decide(self.records.len());
        if let Some((_, error)) = self.consumer.take_failures().pop_first() {
            return Err(error);
        }
        self.records = self.consumer.poll(POLL).await?;
        if self.consumer.assigned().next().is_none() {
            self.quiet_since = None;
        } else if !self.records.is_empty() || self.quiet_since.is_none() {
            self.quiet_since = Some(Instant::now());
        }
        Ok(self.records.iter().map(|found| found.record.clone()).collect())
    }

    /// The first so many were printed; the others go back.
    fn decide(&mut self, printed: usize) {
        for (at, record) in self.records.drain(..).enumerate() {
            let decision = if at < printed { self.decision } else { AckType::Release };
            // Its lock may have run out, so that it comes again.
            if let Err(error) = self.consumer.acknowledge(&record, decision) {
                tracing::debug!(%error, "not acknowledged");
            }
        }
    }

    async fn close(mut self, printed: bool) -> CliResult {
        self.decide(if printed { self.records.len() } else { 0 });
        let mut outcomes = self.consumer.close().await?.into_values();
        Ok(outcomes.try_for_each(|outcome| outcome)?)
    }
}

impl Source {
    async fn poll(&mut self) -> Result<Vec<ConsumerRecord>, Error> {
        match self {
            Source::Partitions(consumer) => consumer.poll(POLL).await,
            Source::Group(consumer) => consumer.poll(POLL).await,
            Source::Share(source) => source.poll().await,
        }
    }

    /// What was polled but not printed (all from `printed` on) must not be committed.
    fn give_back(&mut self, records: &[ConsumerRecord], printed: usize) {
        match self {
            Source::Partitions(_) => {}
            Source::Group(consumer) => {
                for record in records.iter().skip(printed).rev() {
                    consumer.rewind(&TopicPartition::new(Arc::clone(&record.topic), record.partition), record.offset);
                }
            }
            Source::Share(source) => source.decide(printed),
        }
    }

    fn at_end(&self) -> bool {
        match self {
            Source::Partitions(consumer) => consumer.at_end(),
            Source::Group(consumer) => consumer.at_end(),
            Source::Share(source) => source.quiet_since.is_some_and(|since| since.elapsed() >= SHARE_QUIET),
        }
    }
}

async fn open(context: &Context, args: &ConsumeArgs, start: Option<StartOffset>) -> CliResult<Source> {
    let isolation = match args.isolation {
        Isolation::ReadUncommitted if !args.read_committed => IsolationLevel::ReadUncommitted,
        _ => IsolationLevel::ReadCommitted,
    };
    let config = ConsumerConfig { isolation, reset: Some(OffsetSpec::Earliest), ..Default::default() };
    if let (true, Some(group)) = (args.regex, &args.group) {
        return by_regex(context, args, group, start, config);
    }
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
        if args.share {
            return Ok(Source::Share(Box::new(ShareSource::open(context, args, group))));
        }
        let topics = args.topics.iter().cloned();
        return in_group(context, config, group_config(args, group, start, topics)?);
    }
    let mut consumer = Consumer::new(context.client.clone(), config);
    let starts = match start.unwrap_or(StartOffset::Earliest) {
        StartOffset::At(offset) => inside_the_log(context, partitions, offset, isolation).await?,
        start => partitions.into_iter().map(|p| (p, start)).collect(),
    };
    consumer.assign(&starts).await?;
    Ok(Source::Partitions(Box::new(consumer)))
}

fn in_group(context: &Context, consumer: ConsumerConfig, group: GroupConfig) -> CliResult<Source> {
    Ok(Source::Group(Box::new(GroupConsumer::new(context.client.clone(), consumer, group))))
}

fn group_config(
    args: &ConsumeArgs,
    group: &str,
    start: Option<StartOffset>,
    topics: impl IntoIterator<Item = String>,
) -> CliResult<GroupConfig> {
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
    let protocol = match args.group_protocol {
        cli::GroupProtocol::Classic => GroupProtocol::Classic,
        cli::GroupProtocol::Consumer => GroupProtocol::Consumer,
    };
    let mut config =
        GroupConfig { start, protocol, instance_id: args.instance_id.clone(), ..GroupConfig::new(group, topics) };
    match (protocol, args.assignor.as_slice()) {
        (_, []) => {}
        (GroupProtocol::Classic, names) => {
            let known = |name: &String| Assignor::from_name(name).ok_or_else(|| unknown_assignor(name));
            config.assignors = names.iter().map(known).collect::<CliResult<_>>()?;
        }
        (GroupProtocol::Consumer, [name]) => config.server_assignor = Some(name.clone()),
        (GroupProtocol::Consumer, _) => return Err(CliError::usage("--assignor: the broker takes one name")),
    }
    Ok(config)
}

fn unknown_assignor(name: &str) -> CliError {
    let names: Vec<_> = Assignor::ALL.iter().map(|assignor| assignor.name()).collect();
    CliError::usage(format!("--assignor {name}: expected {}", names.join(", ")))
}

/// Which topics there are is for the broker to find out.
fn by_regex(
    context: &Context,
    args: &ConsumeArgs,
    group: &str,
    start: Option<StartOffset>,
    config: ConsumerConfig,
) -> CliResult<Source> {
    if args.group_protocol != cli::GroupProtocol::Consumer {
        let error = CliError::usage("--regex needs a group whose partitions the broker assigns");
        return Err(error.hint("add --group-protocol consumer"));
    }
    let [regex] = args.topics.as_slice() else {
        return Err(CliError::usage("--regex takes one regular expression").hint("join several with |"));
    };
    let group = group_config(args, group, start, [])?;
    in_group(context, config, GroupConfig { topics_regex: Some(regex.clone()), ..group })
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
                source.give_back(&records, at);
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
