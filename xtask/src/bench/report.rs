//! The table: medians of each row's runs, both sides under each other, and what the machine was.

use std::fs;
use std::time::Duration;

use super::broker::{BrokerKind, RunningBroker};
use super::load::Measured;

pub(crate) const HEADINGS: &str = "\
| Workload | Class | Broker | Broker CPU, user + system | Throughput | p50 ms | p99 ms |
| --- | --- | --- | ---: | ---: | ---: | ---: |";
pub(crate) const IDLE_HEADINGS: &str = "\
| Broker | Start, format included | RSS after 10 s | Idle CPU |
| --- | ---: | ---: | ---: |";

/// How long an idle broker is watched.
const IDLE: Duration = Duration::from_secs(10);

/// CPU, cores, memory and kernel.
pub(crate) fn machine() -> String {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        found.map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} x {}, {} of memory, Linux {}; load average at start {}",
        cores,
        line("/proc/cpuinfo", "model name"),
        line("/proc/meminfo", "MemTotal"),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

/// One line per side: medians of its runs, and Taccola's CPU as a fraction of Kafka's.
pub(crate) fn lines(
    name: &str,
    class: &str,
    per_request: bool,
    sides: &[BrokerKind],
    measured: Vec<Vec<Measured>>,
) -> Vec<String> {
    let (unit, per) = if per_request { ("us/request", 1e6) } else { ("s/GB", 1e9) };
    let medians: Vec<Median> = measured.iter().map(|runs| Median::of(runs, per_request, per)).collect();
    let kafka = sides
        .iter()
        .zip(&medians)
        .find(|(side, median)| side.name() == "kafka" && median.throughput > 0.0)
        .map(|(_, median)| median);
    let lines = sides.iter().zip(&medians).filter(|(_, median)| median.throughput > 0.0).map(|(side, median)| {
        let throughput = match per_request {
            true => format!("{:.1} k/s", median.throughput / 1e3),
            false => format!("{:.0} MB/s", median.throughput / 1e6),
        };
        let ratio = kafka.filter(|_| side.name() == "taccola").map_or(String::new(), |kafka| {
            let [cpu, speed] = [median.cpu() / kafka.cpu(), median.throughput / kafka.throughput];
            format!(" ({cpu:.2} x){}", if cpu > 1.0 || speed < 1.0 { " **behind**" } else { "" })
        });
        let [p50, p99] = [median.p50, median.p99].map(|ms| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}")));
        format!(
            "| {name} | {class} | {} | {:.2} + {:.2} {unit}{ratio} | {throughput} | {p50} | {p99} |",
            side.name(),
            median.user,
            median.system
        )
    });
    lines.collect()
}

/// Medians of several runs, each figure by itself.
struct Median {
    user: f64,
    system: f64,
    throughput: f64,
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Median {
    fn of(runs: &[Measured], per_request: bool, per: f64) -> Self {
        let units = |m: &Measured| (if per_request { m.requests } else { m.bytes }) as f64;
        let all = |figure: &dyn Fn(&Measured) -> f64| median(runs.iter().map(figure).collect()).unwrap_or(0.0);
        Self {
            user: all(&|m| m.cpu_user / units(m) * per),
            system: all(&|m| m.cpu_system / units(m) * per),
            throughput: all(&|m| units(m) / m.seconds),
            p50: median(runs.iter().filter_map(|m| m.percentile_ms(0.50)).collect()),
            p99: median(runs.iter().filter_map(|m| m.percentile_ms(0.99)).collect()),
        }
    }

    fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Starts a broker in an empty folder, leaves it alone, and says what that costs.
pub(crate) fn idle(side: &BrokerKind) -> Result<String, String> {
    let broker = RunningBroker::start(side, &[])?;
    let ready = broker.ready_after;
    let (user, system) = broker.cpu_seconds();
    std::thread::sleep(IDLE);
    let (user_after, system_after) = broker.cpu_seconds();
    let cpu = (user_after + system_after - user - system) / IDLE.as_secs_f64() * 100.0;
    let rss = broker.rss_mb();
    broker.stop()?;
    Ok(format!("| {} | {:.0} ms | {rss:.1} MB | {cpu:.2} % of a core |", side.name(), ready.as_secs_f64() * 1e3))
}
