//! Real clients' traffic: recorded, and said again.
//!
//! `traffic record [CLIENT...]` starts a fresh Kafka (`KAFKA_JARS`) for each client and writes `it/testdata/traffic/CLIENT`.
//! `traffic replay FILE IP:PORT` replays at a fresh broker and tells what it answers otherwise; fails if there is anything.
//! `traffic proxy PORT UPSTREAM_PORT FILE` records until standard input ends: the broker must advertise PORT.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for tests: a failed expectation is its result"
)]

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use taccola_it::differential::PROPERTIES;
use taccola_it::free_port;
use taccola_it::kafka::Kafka;
use taccola_it::traffic::{CLIENTS, Client, Recorder, Traffic, replay, warm_up};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["record", names @ ..] => {
            let wanted = |client: &&Client| names.is_empty() || names.contains(&client.name);
            if CLIENTS.iter().filter(wanted).all(record) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        ["replay", file, broker] => {
            let broker: SocketAddr = broker.parse().expect("IP:PORT");
            let traffic = Traffic::read(&std::fs::read(file).expect("a file")).expect("a recording");
            warm_up(broker.port());
            let replayed = replay(&traffic, broker).expect("the broker listens");
            print!("{}", replayed.report);
            println!("{} requests, {} replies differ", replayed.requests, replayed.differing);
            if replayed.differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        ["proxy", own, upstream, file] => {
            let port = |text: &str| text.parse::<u16>().expect("a port");
            let recorder = Recorder::start(port(own), port(upstream)).expect("the port is free");
            let mut nothing = Vec::new();
            std::io::stdin().read_to_end(&mut nothing).expect("standard input");
            std::fs::write(file, recorder.take().written().expect("a recording")).expect("written");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: traffic record [CLIENT...] | replay FILE IP:PORT | proxy PORT UPSTREAM_PORT FILE");
            eprintln!("clients: {}", CLIENTS.iter().map(|client| client.name).collect::<Vec<_>>().join(" "));
            ExitCode::from(2)
        }
    }
}

/// False where Kafka or the client is not installed.
fn record(client: &Client) -> bool {
    let (home, proxy) = (tempfile::tempdir().expect("a folder"), free_port());
    let advertised = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{proxy}");
    let mut properties = PROPERTIES.to_vec();
    properties.push(&advertised);
    let Some(kafka) = Kafka::start("record", home.path(), &properties, true) else { return false };
    warm_up(kafka.port);
    let recorder = Recorder::start(proxy, kafka.port).expect("a free port");
    let Some(()) = (client.run)(&format!("127.0.0.1:{proxy}")) else { return false };
    let traffic = recorder.take();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/traffic").join(client.name);
    std::fs::write(&file, traffic.written().expect("a recording")).expect("written");
    println!("{}: {} events", file.display(), traffic.events.len());
    true
}
