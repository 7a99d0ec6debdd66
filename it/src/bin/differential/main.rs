//! The same requests at two brokers, and what differs between their replies. One is Apache Kafka, the oracle.
//!
//! `differential IP:PORT IP:PORT [FILTER]`: Kafka first. Both must be fresh single nodes with node id 0, as they get
//! topics, records and configs. Cases whose name holds FILTER run; prints each difference as `-` Kafka, `+` Taccola, and
//! fails if there is any. What must differ (ids, addresses, times, wordings) is made equal before comparing.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for tests: a failed expectation is its result"
)]

mod cluster;
mod configs;
mod equal;
mod records;
mod topics;

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use taccola_it::conn::Conn;
use taccola_wire::codec::Request;

/// Cases that differ on purpose: how their names begin, and why.
const ON_PURPOSE: &[(&str, &str)] = &[
    ("Metadata v12: no id and no name", "Kafka fails with UNKNOWN_SERVER_ERROR; here an id that nobody has is unknown"),
    ("Metadata v13: no id and no name", "as above"),
    ("DeleteTopics v6: no name and no id, twice", "Kafka has one row for both, here each has its own"),
    ("DescribeProducers v0: twice", "Kafka answers as often as it is asked, which has no bound"),
    ("AlterConfigs v2: resource twice", "Kafka closes the connection; here it is INVALID_REQUEST for the resource"),
    ("IncrementalAlterConfigs v1: unknown operation", "Kafka: UNKNOWN_SERVER_ERROR; here INVALID_REQUEST"),
    ("IncrementalAlterConfigs v1: negative operation", "as above"),
    ("IncrementalAlterConfigs v1: logger", "levels are fixed at start: INVALID_REQUEST whatever the change"),
];

struct Differential {
    addresses: [SocketAddr; 2],
    kafka: Conn,
    taccola: Conn,
    filter: String,
    cases: usize,
    differing: usize,
    on_purpose: usize,
}

impl Differential {
    fn new(addresses: [SocketAddr; 2], filter: &str) -> io::Result<Self> {
        let [kafka, taccola] = addresses;
        Ok(Self {
            addresses,
            kafka: Conn::connect_to(kafka)?,
            taccola: Conn::connect_to(taccola)?,
            filter: filter.to_owned(),
            cases: 0,
            differing: 0,
            on_purpose: 0,
        })
    }

    /// One request at one version.
    fn at<R: Request>(&mut self, case: &str, version: i16, request: &R, equal: impl Fn(&mut R::Response))
    where
        R::Response: Debug,
    {
        self.per_broker(case, version, |_| request.clone(), equal);
    }

    /// The same at all versions of a range.
    fn all<R: Request>(
        &mut self,
        case: &str,
        versions: std::ops::RangeInclusive<i16>,
        request: &R,
        equal: impl Fn(&mut R::Response),
    ) where
        R::Response: Debug,
    {
        for version in versions {
            self.at(case, version, request, &equal);
        }
    }

    /// A request that holds something of the broker's own, such as an id.
    fn per_broker<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        request: impl Fn(&mut Conn) -> R,
        equal: impl Fn(&mut R::Response),
    ) where
        R::Response: Debug,
    {
        let [kafka_at, taccola_at] = self.addresses;
        let show = |conn: &mut Conn, address| {
            let request = request(conn);
            match conn.call(&request, version) {
                Ok(mut response) => {
                    equal(&mut response);
                    format!("{response:#?}")
                }
                Err(_) => {
                    *conn = Conn::connect_to(address).expect("the broker still listens");
                    "no reply".to_owned()
                }
            }
        };
        let (kafka, taccola) = (show(&mut self.kafka, kafka_at), show(&mut self.taccola, taccola_at));
        let name = format!("{} v{version}: {case}", R::KEY);
        if !name.contains(&self.filter) {
            return;
        }
        self.cases += 1;
        if kafka != taccola && ON_PURPOSE.iter().any(|(known, _)| name.starts_with(known)) {
            self.on_purpose += 1;
        } else if kafka != taccola {
            self.differing += 1;
            println!("{name}");
            print_difference(&kafka, &taccola);
        }
    }
}

/// Lines shown of each side.
const LINES_MAX: usize = 24;

fn print_difference(kafka: &str, taccola: &str) {
    let (a, b): (Vec<&str>, Vec<&str>) = (kafka.lines().collect(), taccola.lines().collect());
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let end = end.min(a.len().min(b.len()) - start);
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    // Long stretches differ in a line here and there: show those lines only.
    let shown = std::cell::Cell::new(false);
    let only = |own: &[&str], other: &[&str], mark: char| {
        let lines: Vec<_> = own.iter().filter(|line| own.len() < 12 || !other.contains(line)).collect();
        shown.set(shown.get() || !lines.is_empty());
        for line in lines.iter().take(LINES_MAX) {
            println!("  {mark} {}", line.trim());
        }
        if lines.len() > LINES_MAX {
            println!("  {mark} (and {} lines more)", lines.len() - LINES_MAX);
        }
    };
    only(a, b, '-');
    only(b, a, '+');
    if !shown.get() {
        println!("  (the same lines in another order or number: {} and {})", a.len(), b.len());
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = |at: usize| arguments.get(at).and_then(|text| text.parse::<SocketAddr>().ok());
    let (Some(kafka), Some(taccola)) = (address(0), address(1)) else {
        eprintln!("usage: differential KAFKA_IP:PORT TACCOLA_IP:PORT [FILTER]");
        return ExitCode::from(2);
    };
    let filter = arguments.get(2).map_or("", String::as_str);
    let mut differential = Differential::new([kafka, taccola], filter).expect("both brokers listen");
    topics::run(&mut differential);
    records::run(&mut differential);
    configs::run(&mut differential);
    cluster::run(&mut differential);
    for (case, why) in ON_PURPOSE {
        println!("on purpose: {case}: {why}");
    }
    let Differential { cases, differing, on_purpose, .. } = differential;
    println!("{differing} of {cases} cases differ, and {on_purpose} on purpose");
    if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
