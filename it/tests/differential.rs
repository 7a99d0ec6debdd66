//! Apache Kafka 4.3.1's answers, field by field, to requests of every API key at every version that is advertised. They were
//! recorded by `cargo run -p taccola-it --bin differential -- --record [AREA]`; the same tool compares a live Kafka with a
//! live Taccola. Cases that differ on purpose, and how many there are of each key and version: docs/differences.md.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use taccola_it::Broker;
use taccola_it::conn::Conn;
use taccola_it::differential::{AREAS, Differential, coverage};
use taccola_wire::messages::ApiVersionsRequest;

fn compare(name: &str) {
    let area = AREAS.iter().find(|area| area.name == name).expect("an area");
    let home = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let properties = area.properties(home.path());
    let properties: Vec<&str> = properties.iter().map(String::as_str).collect();
    let broker = Broker::start_in(home, &properties);
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    let mut differential = Differential::recorded(&area.answers(), address).expect("the broker listens");
    differential.run(area);
    assert!(differential.cases > 50, "{} cases", differential.cases);
    assert_eq!(
        differential.differing, 0,
        "of {} cases (- Kafka, + Taccola):\n{}",
        differential.cases, differential.report
    );
}

macro_rules! compared {
    ($($test:ident: $area:literal),*) => {
        $(#[test]
        fn $test() {
            compare($area);
        })*

        #[test]
        fn every_area_is_compared() {
            let compared = [$($area),*];
            assert!(AREAS.iter().all(|area| compared.contains(&area.name)));
        }
    };
}

compared! {
    topics_are_answered_as_kafka_answers: "topics",
    records_are_answered_as_kafka_answers: "records",
    configs_are_answered_as_kafka_answers: "configs",
    the_cluster_is_answered_as_kafka_answers: "cluster",
    groups_are_answered_as_kafka_answers: "groups",
    membership_is_answered_as_kafka_answers: "membership",
    data_is_answered_as_kafka_answers: "data",
    share_fetches_are_answered_as_kafka_answers: "share_data",
    share_state_is_answered_as_kafka_answers: "share_state",
    frames_are_answered_as_kafka_answers: "frames",
    log_dirs_are_answered_as_kafka_answers: "log_dirs"
}

/// Fewest cases for a key at a version: two frames that are none of its requests, and one that is.
const LEAST: usize = 3;

#[test]
fn every_advertised_version_has_cases() {
    let broker = Broker::start(&[]);
    let mut conn = Conn::connect(broker.port).expect("a connection");
    let advertised: BTreeMap<i16, (i16, i16)> = conn
        .ask(&ApiVersionsRequest::default(), 0)
        .api_keys
        .iter()
        .map(|row| (row.api_key, (row.min_version, row.max_version)))
        .collect();
    let expected: BTreeMap<i16, (i16, i16)> =
        coverage::served().map(|info| (info.key.code(), (info.advertised_min(), info.max))).collect();
    assert_eq!(advertised, expected, "coverage::NOT_SERVED is not what is advertised");
    // Below its lowest version Produce is refused, which one case says.
    let holes: Vec<String> = coverage::holes(LEAST)
        .into_iter()
        .filter(|hole| !["Produce v0: 1 cases", "Produce v1: 1 cases", "Produce v2: 1 cases"].contains(&hole.as_str()))
        .collect();
    assert!(holes.is_empty(), "{}", holes.join("\n"));
}

/// `UPDATE_DOCS=1` writes the tables anew.
#[test]
fn the_list_of_differences_is_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let text = std::fs::read_to_string(&path).expect("docs/differences.md");
    let (purpose, cases) = coverage::tables();
    let mut wanted = text.clone();
    for (name, table) in [("differences", purpose), ("cases", cases)] {
        let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
        let (before, rest) = wanted.split_once(&begin).expect("the line before the table");
        let (_, after) = rest.split_once(&end).expect("the line behind the table");
        wanted = format!("{before}{begin}{table}{end}{after}");
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).expect("written");
    } else {
        assert!(text == wanted, "docs/differences.md: run this test with UPDATE_DOCS=1");
    }
}
