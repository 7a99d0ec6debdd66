//! `cargo xtask bench`: Taccola and Apache Kafka 4.3.1 in the same run, by the same load generator, in pairs.
//!
//! The first figure of each row is the broker's CPU time, user and system apart, per GB or per request; wall time comes
//! second. Each row names its durability class: D1 survives `kill -9` (Kafka's default), D2 survives a power cut
//! (`flush.messages=1` in Kafka, `taccola.acks.durability=disk` here). Rows that Taccola loses are printed like the rest.

mod broker;
mod load;

use std::path::Path;
use std::time::Duration;

use broker::{BrokerKind, RunningBroker};
use load::{ClosedLoop, Measured, Pipelined};

/// What one row does to a broker.
enum Workload {
    Produce(Pipelined),
    ClosedLoop(ClosedLoop),
    Consume(Pipelined),
}

struct Row {
    name: &'static str,
    class: &'static str,
    workload: Workload,
    /// Extra properties for each side; the row is left out for a side with `None`.
    taccola: &'static [&'static str],
    kafka: &'static [&'static str],
}

const MEMORY: &[&str] = &["taccola.acks.durability=memory"];
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
    ]
}

pub(crate) const USAGE: &str = "\
bench [--scale PERCENT] [--rows TEXT] [--pairs N]
    Taccola (release build) beside Apache Kafka in the same run.
    --scale PERCENT   shortens the workloads (default: 100)
    --rows TEXT       only the rows whose name contains it
    --pairs N         repeats each row, alternating which side comes first (default: 1)";

/// Runs the table. `--scale PERCENT` shortens the workloads, `--rows TEXT` picks rows by name, `--pairs N` repeats.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let number = |name: &str, default: u64| option(name).map_or(Ok(default), |v| v.parse().map_err(|_| format!("{name} wants a number")));
    let (scale, pairs) = (number("--scale", 100)?, number("--pairs", 1)?);
    let wanted = option("--rows").unwrap_or_default();
    let taccola = broker::build_taccola(root)?;
    let kafka = broker::kafka_classpath(root);
    if let Err(reason) = &kafka {
        println!("Apache Kafka is left out: {reason}\n");
    }
    let sides: Vec<BrokerKind> = std::iter::once(BrokerKind::Taccola(taccola)).chain(kafka.ok().map(BrokerKind::Kafka)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    println!("{:<40} {:>6} {:>8} {:>16} {:>16} {:>14} {:>10} {:>10}", "workload", "class", "broker", "user+sys", "per", "throughput", "p50 ms", "p99 ms");
    for row in rows(scale).iter().filter(|row| row.name.contains(&wanted)) {
        for pair in 0..pairs {
            // ABBA: neither side always comes first.
            let order: Vec<&BrokerKind> = if pair % 2 == 0 { sides.iter().collect() } else { sides.iter().rev().collect() };
            for side in order {
                let measured = runtime.block_on(run_row(row, side))?;
                print_row(row, side, &measured);
            }
        }
    }
    if wanted.is_empty() || "start idle".contains(&wanted) {
        for side in &sides {
            print_idle(side)?;
        }
    }
    Ok(())
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
            load::produce(&address, &Pipelined { total_bytes: shape.total_bytes / 5, ..shape.clone() }, &cpu).await?;
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
            load::closed_loop(&address, &ClosedLoop { seconds: shape.seconds.div_ceil(2), ..shape.clone() }, &cpu).await?;
            load::closed_loop(&address, shape, &cpu).await?
        }
    };
    broker.stop()?;
    Ok(measured)
}

fn print_row(row: &Row, side: &BrokerKind, m: &Measured) {
    let per_request = matches!(row.workload, Workload::ClosedLoop(_)) || row.name.starts_with("one ");
    let (unit, divisor) = if per_request { ("us/request", m.requests as f64 / 1e6) } else { ("s/GB", m.bytes as f64 / 1e9) };
    let throughput = match per_request {
        true => format!("{:.1} k/s", m.requests as f64 / m.seconds / 1e3),
        false => format!("{:.0} MB/s", m.bytes as f64 / m.seconds / 1e6),
    };
    println!(
        "{:<40} {:>6} {:>8} {:>16} {:>16} {:>14} {:>10} {:>10}",
        row.name,
        row.class,
        side.name(),
        format!("{:.2}+{:.2}", m.cpu_user / divisor, m.cpu_system / divisor),
        unit,
        throughput,
        m.percentile_ms(0.50),
        m.percentile_ms(0.99),
    );
}

fn print_idle(side: &BrokerKind) -> Result<(), String> {
    let broker = RunningBroker::start(side, &[])?;
    let ready = broker.ready_after;
    let (user, system) = broker.cpu_seconds();
    let wait = Duration::from_secs(10);
    std::thread::sleep(wait);
    let (user_after, system_after) = broker.cpu_seconds();
    let idle = (user_after + system_after - user - system) / wait.as_secs_f64() * 100.0;
    println!(
        "{:<40} {:>6} {:>8} ready after {:.0} ms, RSS {:.1} MB, idle CPU {idle:.2} %",
        "start (format included), idle",
        "",
        side.name(),
        ready.as_secs_f64() * 1e3,
        broker.rss_mb(),
    );
    broker.stop()
}
