//! `differential KAFKA TACCOLA [FILTER]`, addresses as IP:PORT: the same requests at both, and each difference as `-` Kafka,
//! `+` Taccola; fails if there is any. Cases whose name holds FILTER count. `differential --record KAFKA` writes what a Kafka
//! answers to the group cases, for `it/testdata/groups.answers`.
//!
//! Both must be fresh single nodes with node id 0, as they get topics, records and configs, started with
//! `taccola_it::differential::PROPERTIES`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for tests: a failed expectation is its result"
)]

use std::net::SocketAddr;
use std::process::ExitCode;

use taccola_it::differential::{Differential, ON_PURPOSE, PROPERTIES};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = |at: usize| arguments.get(at).and_then(|text| text.parse::<SocketAddr>().ok());
    if let (Some("--record"), Some(kafka)) = (arguments.first().map(String::as_str), address(1)) {
        let mut differential = Differential::recorder(kafka).expect("Kafka listens");
        differential.run_groups();
        print!("{}", differential.recording());
        return ExitCode::SUCCESS;
    }
    let (Some(kafka), Some(taccola)) = (address(0), address(1)) else {
        eprintln!("usage: differential KAFKA_IP:PORT TACCOLA_IP:PORT [FILTER] | --record KAFKA_IP:PORT");
        eprintln!("both started with: {}", PROPERTIES.join(" "));
        return ExitCode::from(2);
    };
    let filter = arguments.get(2).map_or("", String::as_str);
    let mut differential = Differential::live(kafka, taccola, filter).expect("both brokers listen");
    differential.run_all();
    print!("{}", differential.report);
    for (case, why) in ON_PURPOSE {
        println!("on purpose: {case}: {why}");
    }
    let Differential { cases, differing, on_purpose, .. } = differential;
    println!("{differing} of {cases} cases differ, and {on_purpose} on purpose");
    if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
