//! Apache Kafka 4.3.1's answers to requests about groups, field by field. They were recorded by
//! `cargo run -p taccola-it --bin differential -- --record IP:PORT > it/testdata/groups.answers`, at a fresh Kafka that was
//! started with [`PROPERTIES`]; the same tool compares a live Kafka with a live Taccola.

use std::net::SocketAddr;

use taccola_it::Broker;
use taccola_it::differential::{Differential, PROPERTIES};

#[test]
fn groups_are_answered_as_kafka_answers() {
    let broker = Broker::start(PROPERTIES);
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    let answers = include_str!("../testdata/groups.answers");
    let mut differential = Differential::recorded(answers, address).expect("the broker listens");
    differential.run_groups();
    assert!(differential.cases > 500, "{} cases", differential.cases);
    assert_eq!(
        differential.differing, 0,
        "of {} cases (- Kafka, + Taccola):\n{}",
        differential.cases, differential.report
    );
}
