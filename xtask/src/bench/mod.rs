//! `cargo xtask bench`: Taccola and Apache Kafka 4.3.1 in the same run, by the same load generator, in pairs.
//!
//! The first figure of each row is the broker's CPU time, user and system apart, per GB or per request; wall time comes
//! second. Each row names its durability class: D1 survives `kill -9` (Kafka's default), D2 survives a power cut
//! (`flush.messages=1` in Kafka, `taccola.acks.durability=disk` here). Rows that Taccola loses are printed like the rest.

mod broker;
mod coordinators;
mod load;
mod partitions;
mod report;

use std::path::Path;

use broker::{BrokerKind, RunningBroker};
use coordinators::{Commits, Rebalance, Transactions};
use load::{ClosedLoop, Measured, Pipelined};

use crate::shell;

/// What one row does to a broker.
enum Workload {
    Produce(Pipelined),
    ClosedLoop(ClosedLoop),
    Consume(Pipelined),
    Rebalance(Rebalance),
    Commits(Commits),
    Transactions(Transactions),
}

struct Row {
    name: &'static str,
    class: &'static str,
    workload: Workload,
    /// Extra properties for each side.
    taccola: &'static [&'static str],
    kafka: &'static [&'static str],
}

impl Row {
    /// Whether requests, not bytes, are what counts.
    fn per_request(&self) -> bool {
        !matches!(self.workload, Workload::Produce(_) | Workload::Consume(_)) || self.name.starts_with("one ")
    }
}

const MEMORY: &[&str] = &["taccola.acks.durability=memory"];
/// So that a hundred members are in the first generation.
const DELAY: &[&str] = &["group.initial.rebalance.delay.ms=500"];
const MEMORY_DELAY: &[&str] = &["taccola.acks.durability=memory", "group.initial.rebalance.delay.ms=500"];
const DISK: &[&str] = &["taccola.acks.durability=disk"];
const FLUSH_EACH: &[&str] = &["log.flush.interval.messages=1"];

fn rows(scale: u64) -> Vec<Row> {
    let mb = |megabytes: u64| megabytes * 1_000_000 * scale / 100;
    let produce = |record_bytes, batch_bytes, total_bytes| Pipelined {
        record_bytes,
        batch_bytes,
        total_bytes,
        partitions: 8,
        in_flight: 5,
    };
    let one_record = Pipelined { in_flight: 5, ..produce(100, 1, mb(20)) };
    let closed = |producers| ClosedLoop { producers, record_bytes: 100, seconds: (6 * scale / 100).max(1) };
    let rebalance = |consumer_protocol| {
        let shape = Rebalance { members: 100, partitions: 1000, rounds: (5 * scale / 100).max(1), consumer_protocol };
        Workload::Rebalance(shape)
    };
    let seconds = (10 * scale / 100).max(1);
    let commits = Commits { groups: 100, per_second: 10, partitions: 50, seconds };
    let transactions =
        |records| Workload::Transactions(Transactions { producers: 8, records, seconds: seconds / 2 + 1 });
    let row = |name, class, workload, taccola, kafka| Row { name, class, workload, taccola, kafka };
    vec![
        row("produce 1 KB, 64 KB batches", "D1", Workload::Produce(produce(1000, 64_000, mb(1500))), MEMORY, &[]),
        row("produce 1 KB, 16 KB batches", "D1", Workload::Produce(produce(1000, 16_000, mb(800))), MEMORY, &[]),
        row("produce 100 B, 16 KB batches", "D1", Workload::Produce(produce(100, 16_000, mb(400))), MEMORY, &[]),
        row("produce 100 B, 64 KB batches", "D1", Workload::Produce(produce(100, 64_000, mb(800))), MEMORY, &[]),
        row("one 100 B record per request", "D1", Workload::Produce(one_record.clone()), MEMORY, &[]),
        row("produce 1 KB, 16 KB batches", "D2", Workload::Produce(produce(1000, 16_000, mb(200))), DISK, FLUSH_EACH),
        row("consume 1 KB records, warm", "D1", Workload::Consume(produce(1000, 64_000, mb(1500))), MEMORY, &[]),
        row("durable acks, 1 producer; Kafka D1", "D2:D1", Workload::ClosedLoop(closed(1)), DISK, &[]),
        row("durable acks, 64 producers; Kafka D1", "D2:D1", Workload::ClosedLoop(closed(64)), DISK, &[]),
        row("durable acks, 1 producer", "D2", Workload::ClosedLoop(closed(1)), DISK, FLUSH_EACH),
        row("durable acks, 64 producers", "D2", Workload::ClosedLoop(closed(64)), DISK, FLUSH_EACH),
        row("rebalances of 100 classic members", "D1", rebalance(false), MEMORY_DELAY, DELAY),
        row("rebalances of 100 KIP-848 members", "D1", rebalance(true), MEMORY, &[]),
        row("commits of 50 offsets, 100 groups", "D1", Workload::Commits(commits), MEMORY, &[]),
        row("transactions of 1 record", "D1", transactions(1), MEMORY, &[]),
        row("transactions of 10 records", "D1", transactions(10), MEMORY, &[]),
        row("transactions of 100 records", "D1", transactions(100), MEMORY, &[]),
        row("transactions of 1 record; Kafka D1", "D2:D1", transactions(1), DISK, &[]),
    ]
}

pub(crate) const USAGE: &str = "\
bench [--scale PERCENT] [--rows TEXT] [--pairs N]
    Taccola beside Apache Kafka, release build, as a table in Markdown.
    --scale PERCENT   shortens the workloads (default: 100)
    --rows TEXT       only the rows whose name contains it
    --pairs N         repeats each row, alternating which side comes first, and prints medians (default: 3)
    --only SIDE       only `taccola` or `kafka`";

/// What the command line asks for.
struct Options {
    scale: u64,
    rows: String,
    pairs: u64,
    only: String,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { scale: 100, rows: String::new(), pairs: 3, only: String::new() };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            let number = || value.parse::<u64>().ok().filter(|n| *n > 0).ok_or(format!("{name} wants a number"));
            match name.as_str() {
                "--scale" => options.scale = number()?,
                "--pairs" => options.pairs = number()?,
                "--rows" => options.rows.clone_from(value),
                "--only" => options.only.clone_from(value),
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    if cfg!(debug_assertions) {
        // A debug build of the load generator would measure itself.
        let mut command = shell::cargo(root);
        command.args(["run", "--quiet", "--release", "--package", "xtask", "--", "bench"]).args(arguments);
        return shell::must(&mut command);
    }
    let mut sides = vec![BrokerKind::Taccola(shell::release_binary(root)?)];
    match broker::kafka_classpath(root) {
        Ok(classpath) => sides.push(BrokerKind::Kafka(classpath)),
        Err(reason) => println!("Apache Kafka is left out: {reason}\n"),
    }
    sides.retain(|side| options.only.is_empty() || side.name() == options.only);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    println!("{}\n", report::machine());
    println!("{}", report::HEADINGS);
    let mut failed = 0;
    for row in rows(options.scale).iter().filter(|row| row.name.contains(&options.rows)) {
        let mut measured = vec![Vec::new(); sides.len()];
        for pair in 0..options.pairs {
            // ABBA: neither side always comes first.
            let mut order: Vec<usize> = (0..sides.len()).collect();
            if pair % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let (Some(side), Some(results)) = (sides.get(index), measured.get_mut(index)) else { continue };
                match runtime.block_on(run_row(row, side)) {
                    Ok(result) => results.push(result),
                    Err(error) => {
                        failed += 1;
                        eprintln!("{} on {}: {error}", row.name, side.name());
                    }
                }
            }
        }
        for line in report::lines(row.name, row.class, row.per_request(), &sides, measured) {
            println!("{line}");
        }
    }
    if "start, idle".contains(&options.rows) {
        println!("\n{}", report::IDLE_HEADINGS);
        for side in &sides {
            println!("{}", report::idle(side)?);
        }
    }
    failed += runtime.block_on(run_restarts(&options, &sides));
    if failed == 0 { Ok(()) } else { Err(format!("{failed} runs failed")) }
}

/// The rows that start brokers again and again, once each. Answers how many failed.
async fn run_restarts(options: &Options, sides: &[BrokerKind]) -> u32 {
    let mut failed = 0;
    let mut tell = |name: &str, side: &BrokerKind, lines: Result<Vec<String>, String>| match lines {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(error) => {
            failed += 1;
            eprintln!("{name} on {}: {error}", side.name());
        }
    };
    for (name, topics) in [("partitions: many topics", 100), ("partitions: one topic", 1)] {
        if name.contains(&options.rows) {
            let all = i32::try_from(10_000 * options.scale / 100).unwrap_or(i32::MAX);
            println!("\n{}", partitions::HEADINGS);
            for side in sides {
                let shape = partitions::Shape { topics, partitions: all / topics };
                tell(name, side, partitions::lines(side, shape).await);
            }
        }
    }
    let name = "recovery";
    if name.contains(&options.rows) {
        let total_bytes = 10_000_000_000 * options.scale / 100;
        let shape = Pipelined { record_bytes: 1000, batch_bytes: 64_000, total_bytes, partitions: 10, in_flight: 5 };
        println!("\n{}", partitions::RECOVERY_HEADINGS);
        for side in sides {
            tell(name, side, partitions::recovery(side, &shape).await.map(|line| vec![line]));
        }
    }
    failed
}

async fn run_row(row: &Row, side: &BrokerKind) -> Result<Measured, String> {
    let extra = match side {
        BrokerKind::Taccola(_) => row.taccola,
        BrokerKind::Kafka(_) => row.kafka,
    };
    let broker = RunningBroker::start(side, extra)?;
    let address = broker.address();
    let cpu = || broker.cpu_seconds();
    let measured = match &row.workload {
        Workload::Produce(shape) => {
            load::create_topic(&address, shape.partitions).await?;
            // A JVM needs warming before it shows what it can do.
            load::produce(&address, shape, &cpu).await?;
            load::produce(&address, shape, &cpu).await?
        }
        Workload::Consume(shape) => {
            load::create_topic(&address, shape.partitions).await?;
            load::produce(&address, shape, &cpu).await?;
            load::consume(&address, shape, &cpu).await?;
            load::consume(&address, shape, &cpu).await?
        }
        Workload::ClosedLoop(shape) => {
            load::create_topic(&address, shape.producers).await?;
            load::closed_loop(&address, shape, &cpu).await?;
            load::closed_loop(&address, shape, &cpu).await?
        }
        Workload::Rebalance(shape) => {
            load::create_topic(&address, shape.partitions).await?;
            coordinators::rebalance(&address, shape, &cpu).await?;
            coordinators::rebalance(&address, shape, &cpu).await?
        }
        Workload::Commits(shape) => {
            load::create_topic(&address, shape.partitions).await?;
            coordinators::commits(&address, shape, &cpu).await?;
            coordinators::commits(&address, shape, &cpu).await?
        }
        Workload::Transactions(shape) => {
            load::create_topic(&address, shape.producers).await?;
            coordinators::transactions(&address, shape, &cpu).await?;
            coordinators::transactions(&address, shape, &cpu).await?
        }
    };
    broker.stop()?;
    Ok(measured)
}
