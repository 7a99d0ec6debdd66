//! Python's clients against the broker; the programs are in `it/python`. `SCALE` sets the number of records per codec.

use std::process::Command;

use taccola_it::clients::{python, scale};
use taccola_it::{Broker, run};

fn check(test: &str, module: &str, program: &str) {
    let Some(python) = python(test, module) else { return };
    let broker = Broker::start(&["offsets.topic.num.partitions=5"]);
    let file = format!("{}/python/{program}", env!("CARGO_MANIFEST_DIR"));
    let said = run(Command::new(python).arg(file).arg(broker.bootstrap()).arg(scale().to_string()));
    println!("{module}: {}", said.replace('\n', "; "));
}

#[test]
fn confluent_kafka() {
    check("confluent_kafka", "confluent_kafka", "confluent.py");
}

#[test]
fn kafka_python() {
    check("kafka_python", "kafka", "kafka_python.py");
}
