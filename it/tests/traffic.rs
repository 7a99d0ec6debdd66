//! What real clients said to Apache Kafka 4.3.1 is said again to Taccola, and answered as they were answered. Recordings are made
//! by `cargo run -p taccola-it --bin traffic -- record [CLIENT]`; see `it/src/traffic`.

use std::net::SocketAddr;
use std::path::Path;

use taccola_it::Broker;
use taccola_it::differential::PROPERTIES;
use taccola_it::traffic::{CLIENTS, Traffic, replay, warm_up};

fn check(client: &str, least: usize) {
    assert!(CLIENTS.iter().any(|known| known.name == client));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/traffic").join(client);
    let traffic = Traffic::read(&std::fs::read(file).expect("a recording")).expect("a recording");
    let broker = Broker::start(PROPERTIES);
    warm_up(broker.port);
    let replayed = replay(&traffic, SocketAddr::from(([127, 0, 0, 1], broker.port))).expect("the broker listens");
    let patient = replayed.patient;
    println!("{client}: {} requests, {patient} answered sooner, {:?}", replayed.requests, replayed.compared);
    assert!(replayed.requests >= least, "{} requests", replayed.requests);
    assert_eq!(replayed.differing, 0, "- Kafka, + Taccola:\n{}", replayed.report);
}

#[test]
fn kcat() {
    check("kcat", 50);
}

#[test]
fn confluent_kafka() {
    check("confluent-kafka", 50);
}

#[test]
fn kafka_python() {
    check("kafka-python", 40);
}

#[test]
fn franz_go() {
    check("franz-go", 50);
}

#[test]
#[ignore = "how far a share group and a transaction's markers are when the next request comes is a matter of time"]
fn console_tools() {
    check("console-tools", 100);
}
