//! `differential KAFKA TACCOLA [FILTER]`, addresses as IP:PORT: the same requests at both, and each difference as `-` Kafka,
//! `+` Taccola; fails if there is any. Cases whose name holds FILTER count. Both must be fresh single nodes with node id 0,
//! as they get topics, records and configs, started with `taccola_it::differential::PROPERTIES`. Areas are run that ask for as
//! many log directories as both have.
//!
//! `differential --record [AREA...]` starts a fresh Kafka (`KAFKA_JARS`) for each area and writes what it answers to
//! `it/testdata/answers/AREA.answers`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for tests: a failed expectation is its result"
)]

use std::net::SocketAddr;
use std::process::ExitCode;

use taccola_it::differential::{AREAS, Area, Differential, ON_PURPOSE, PROPERTIES};
use taccola_it::kafka::Kafka;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--record", wanted)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        let wanted = |area: &&Area| wanted.is_empty() || wanted.iter().any(|name| name == area.name);
        return if AREAS.iter().filter(wanted).all(record) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let address = |at: usize| arguments.get(at).and_then(|text| text.parse::<SocketAddr>().ok());
    let (Some(kafka), Some(taccola)) = (address(0), address(1)) else {
        eprintln!("usage: differential KAFKA_IP:PORT TACCOLA_IP:PORT [FILTER] | --record [AREA...]");
        eprintln!("both started with: {}", PROPERTIES.join(" "));
        eprintln!("areas: {}", AREAS.iter().map(|area| area.name).collect::<Vec<_>>().join(" "));
        return ExitCode::from(2);
    };
    let filter = arguments.get(2).map_or("", String::as_str);
    let mut differential = Differential::live(kafka, taccola, filter).expect("both brokers listen");
    let log_dirs = differential.log_dirs();
    for area in AREAS.iter().filter(|area| log_dirs.iter().all(|dirs| *dirs == area.log_dirs)) {
        differential.run(area);
    }
    print!("{}", differential.report);
    for (case, why) in ON_PURPOSE {
        println!("on purpose: {case}: {why}");
    }
    let Differential { cases, differing, on_purpose, .. } = differential;
    println!("{differing} of {cases} cases differ, and {on_purpose} on purpose");
    if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// False where Kafka is not installed.
fn record(area: &Area) -> bool {
    let home = tempfile::tempdir().expect("a folder");
    let properties = area.properties(home.path());
    let properties: Vec<&str> = properties.iter().map(String::as_str).collect();
    let Some(kafka) = Kafka::start("record", home.path(), &properties, true) else { return false };
    let address = SocketAddr::from(([127, 0, 0, 1], kafka.port));
    let mut differential = Differential::recorder(address).expect("Kafka listens");
    differential.run(area);
    let file = area.file();
    std::fs::write(&file, format!("# What Apache Kafka 4.3.1 answers.\n{}", differential.recording()))
        .expect("written");
    println!("{}", file.display());
    true
}
