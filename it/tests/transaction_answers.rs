//! The transaction APIs answer as Kafka 4.3.1 does, at every version and in every state. `KAFKA_ORACLE=HOST:PORT
//! UPDATE_EXPECT=1` records what that broker answers.

use taccola_it::server::Server;
use taccola_it::txn_answers::answers;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/transaction_answers.txt");

/// Cases that differ on purpose, what is answered here, and why.
const ON_PURPOSE: &[(&str, &str, &str)] = &[
    ("AddPartitionsToTxn v4 nobody", "NONE ", "Kafka answers only when the last of no transactions has answered"),
    ("AddPartitionsToTxn v5 nobody", "NONE ", "as above"),
    ("Produce v9 no producer id", NOBODYS, "Kafka appends a transactional batch of nobody, which no marker ends"),
    ("Produce v10 no producer id", NOBODYS, "as above"),
    ("Produce v11 no producer id", NOBODYS, "as above"),
    ("Produce v12 no producer id", NOBODYS, "as above"),
    ("WriteTxnMarkers v1 an older epoch", OLDER, "it is -1, for which Kafka has no words"),
    ("WriteTxnMarkers v2 an older epoch", OLDER, "as above"),
];

const NOBODYS: &str = "INVALID_PRODUCER_ID_MAPPING";
const OLDER: &str = "[0 INVALID_PRODUCER_EPOCH]";

#[test]
fn transaction_apis_answer_as_kafka_does() {
    let server = Server::start(&["transaction.state.log.num.partitions=3", "offsets.topic.num.partitions=3"]);
    let bootstrap = server.bootstrap();
    let found = answers(move || {
        taccola_it::conn::Conn::connect_to(bootstrap.parse().expect("an address")).expect("a connection")
    });
    if std::env::var_os("UPDATE_EXPECT").is_some() && std::env::var_os("KAFKA_ORACLE").is_some() {
        std::fs::write(RECORDED, found).expect("written");
        return;
    }
    let recorded = std::fs::read_to_string(RECORDED).expect("recorded answers");
    let (found, recorded): (Vec<&str>, Vec<&str>) = (found.lines().collect(), recorded.lines().collect());
    assert_eq!(found.len(), recorded.len(), "the cases changed: record them again");
    let mut differing = Vec::new();
    for (ours, kafkas) in found.iter().zip(&recorded) {
        let known = ON_PURPOSE.iter().any(|(case, answer, _)| *ours == format!("{case}: {answer}"));
        if ours != kafkas && !known {
            differing.push(format!("- {kafkas}\n+ {ours}"));
        }
    }
    assert!(differing.is_empty(), "{} of {} differ:\n{}", differing.len(), found.len(), differing.join("\n"));
}
