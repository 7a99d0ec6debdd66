//! Random sequences of requests to the coordinators and to partitions, at Kafka and at Taccola at once (`sequences`).
//!
//! `KAFKA_JARS=… SEED=1 SEEDS=100 STEPS=60 cargo test -p taccola-it --test sequences -- --ignored --nocapture` starts both;
//! `KAFKA_ORACLE=HOST:PORT` (and `TACCOLA_ORACLE=HOST:PORT`) names brokers that run, fresh ones with the properties of both
//! lists. `AREA=Share,ShareData` keeps to these areas, `KEEP=1` goes on after a difference.

use std::net::SocketAddr;

use taccola_it::crash::number;
use taccola_it::kafka::Kafka;
use taccola_it::sequences::{PROPERTIES, Pair, steps};
use taccola_it::{Broker, differential};

fn named(variable: &str) -> Option<SocketAddr> {
    std::env::var(variable).ok().map(|address| address.parse().expect("IP:PORT"))
}

#[test]
#[ignore = "needs a live Kafka"]
fn random_sequences_are_answered_as_kafka_answers() {
    let properties = [differential::PROPERTIES, PROPERTIES].concat();
    let home = tempfile::tempdir().expect("a folder");
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let kafka =
        named("KAFKA_ORACLE").is_none().then(|| Kafka::start("sequences", home.path(), &properties, true)).flatten();
    let Some(oracle) = named("KAFKA_ORACLE").or_else(|| kafka.as_ref().map(|kafka| local(kafka.port))) else { return };
    let taccola = named("TACCOLA_ORACLE").is_none().then(|| Broker::start(&properties));
    let asked =
        named("TACCOLA_ORACLE").or_else(|| taccola.as_ref().map(|broker| local(broker.port))).expect("one of both");

    let only = std::env::var("AREA").ok();
    let (first, count) = (number("SEED", 1), number("SEEDS", 20));
    let length = usize::try_from(number("STEPS", 60)).expect("small");
    let mut pair = Pair::new(oracle, asked);
    let mut differing = Vec::new();
    for seed in first..first + count {
        let steps = steps(seed, length, only.as_deref());
        let Some(found) = pair.play(seed, &steps) else { continue };
        let played = steps.get(..=found.at).unwrap_or_default();
        let (_, shortest) = if number("SHORTEN", 1) == 1 { pair.shorten(seed, played) } else { (Vec::new(), None) };
        let flaky = if shortest.is_none() { " (not again)" } else { "" };
        let found = shortest.unwrap_or(found);
        println!(
            "=== seed {seed}{flaky}\n{}\n--- Kafka\n{}\n+++ Taccola\n{}\n",
            found.told.join("\n"),
            found.kafka,
            found.taccola
        );
        differing.push(seed);
        if number("KEEP", 0) == 0 {
            break;
        }
    }
    for failed in &pair.failed {
        println!("Kafka fails: {failed}");
    }
    println!("{} requests in {count} seeds from {first}; differing: {differing:?}", pair.requests);
    assert!(differing.is_empty());
}
