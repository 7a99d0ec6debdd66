//! The same requests at two brokers, and what differs between their replies. One is Apache Kafka, the oracle: a live one, or
//! what a live one answered when it was recorded.
//!
//! What must differ (ids, addresses, times, wordings) is made equal before comparing.

mod cluster;
mod configs;
mod equal;
mod groups;
mod recording;
mod records;
mod topics;

use std::fmt::{Debug, Write as _};
use std::io;
use std::net::SocketAddr;

use taccola_wire::codec::Request;

pub use self::groups::PROPERTIES;
use self::recording::{Recording, compact};
use crate::conn::Conn;
use crate::eventually;

/// Cases that differ on purpose: how their names begin, and why.
pub const ON_PURPOSE: &[(&str, &str)] = &[
    ("Metadata v12: no id and no name", "Kafka fails with UNKNOWN_SERVER_ERROR; here an id that nobody has is unknown"),
    ("Metadata v13: no id and no name", "as above"),
    ("DeleteTopics v6: no name and no id, twice", "Kafka has one row for both, here each has its own"),
    ("DescribeProducers v0: twice", "Kafka answers as often as it is asked, which has no bound"),
    ("AlterConfigs v2: resource twice", "Kafka closes the connection; here it is INVALID_REQUEST for the resource"),
    ("IncrementalAlterConfigs v1: unknown operation", "Kafka: UNKNOWN_SERVER_ERROR; here INVALID_REQUEST"),
    ("IncrementalAlterConfigs v1: negative operation", "as above"),
    ("IncrementalAlterConfigs v1: logger", "levels are fixed at start: INVALID_REQUEST whatever the change"),
    ("DescribeShareGroupOffsets v1: some, and what is not there", "Kafka fails and closes the connection"),
    ("StreamsGroupHeartbeat v0: a topology with a copartition group that is none", "Kafka: UNKNOWN_SERVER_ERROR"),
    ("StreamsGroupHeartbeat v0: a topology with the same part twice", "Kafka: UNKNOWN_SERVER_ERROR"),
    ("StreamsGroupHeartbeat v0: older topology", "Kafka: UNKNOWN_SERVER_ERROR; a negative epoch is no topology's"),
];

/// A broker that is asked now.
struct Live {
    address: SocketAddr,
    conn: Conn,
    /// What this broker calls something, and what it is called in comparisons.
    names: Vec<(String, String)>,
}

impl Live {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { address, conn: Conn::connect_to(address)?, names: Vec::new() })
    }

    /// The reply in words: as pretty as is read, and as short as is kept.
    fn ask<R: Request>(
        &mut self,
        request: impl Fn(&mut Conn) -> R,
        version: i16,
        until: impl Fn(&R::Response) -> bool,
        equal: impl Fn(&mut R::Response),
    ) -> (String, String)
    where
        R::Response: Debug,
    {
        let reply = eventually("the reply that is waited for", || {
            let request = request(&mut self.conn);
            match self.conn.call(&request, version) {
                Ok(reply) => until(&reply).then_some(Some(reply)),
                Err(_) => Some(None),
            }
        });
        let Some(mut reply) = reply else {
            self.conn = Conn::connect_to(self.address).expect("the broker still listens");
            return ("no reply".to_owned(), "no reply".to_owned());
        };
        equal(&mut reply);
        let named = |mut text: String| {
            for (own, name) in &self.names {
                text = text.replace(own, name);
            }
            text
        };
        (named(format!("{reply:#?}")), compact(&named(format!("{reply:?}"))))
    }
}

/// Who says what is right.
enum Oracle {
    Live(Live),
    /// Read, and compared with.
    Recorded(Recording),
    /// Nobody: what the other says is written down.
    Recorder(Recording),
}

pub struct Differential {
    oracle: Oracle,
    asked: Live,
    filter: String,
    pub cases: usize,
    pub differing: usize,
    pub on_purpose: usize,
    /// What differs.
    pub report: String,
}

impl Differential {
    /// Two brokers; cases count whose name holds `filter`.
    pub fn live(kafka: SocketAddr, taccola: SocketAddr, filter: &str) -> io::Result<Self> {
        Ok(Self::new(Oracle::Live(Live::connect(kafka)?), Live::connect(taccola)?, filter))
    }

    /// A broker and what Kafka answered once.
    pub fn recorded(recording: &str, taccola: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(Oracle::Recorded(Recording::read(recording)), Live::connect(taccola)?, ""))
    }

    /// Kafka alone, whose answers are to be kept.
    pub fn recorder(kafka: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(Oracle::Recorder(Recording::default()), Live::connect(kafka)?, ""))
    }

    fn new(oracle: Oracle, asked: Live, filter: &str) -> Self {
        let filter = filter.to_owned();
        Self { oracle, asked, filter, cases: 0, differing: 0, on_purpose: 0, report: String::new() }
    }

    /// Topics, records, configs, the cluster: what is compared with a live Kafka alone.
    pub fn run_all(&mut self) {
        topics::run(self);
        records::run(self);
        configs::run(self);
        cluster::run(self);
        groups::run(self);
    }

    /// Groups of every kind: what is also recorded.
    pub fn run_groups(&mut self) {
        groups::run(self);
    }

    /// What a recorder has heard.
    pub fn recording(&self) -> String {
        match &self.oracle {
            Oracle::Recorder(recording) | Oracle::Recorded(recording) => recording.written(),
            Oracle::Live(_) => String::new(),
        }
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
        self.until(case, version, request, |_| true, equal);
    }

    /// The same, asked again until the reply is what both must come to.
    fn until<R: Request>(
        &mut self,
        case: &str,
        version: i16,
        request: impl Fn(&mut Conn) -> R,
        until: impl Fn(&R::Response) -> bool,
        equal: impl Fn(&mut R::Response),
    ) where
        R::Response: Debug,
    {
        let name = format!("{} v{version}: {case}", R::KEY);
        let on_purpose = ON_PURPOSE.iter().any(|(known, _)| name.starts_with(known));
        let (pretty, short) = self.asked.ask(&request, version, &until, &equal);
        let (right, said) = match &mut self.oracle {
            Oracle::Live(kafka) => (kafka.ask(&request, version, &until, &equal).0, pretty),
            Oracle::Recorded(recording) => (recording.next(&name), short),
            Oracle::Recorder(recording) => return recording.add(name, short),
        };
        if !name.contains(&self.filter) {
            return;
        }
        self.cases += 1;
        if right != said && on_purpose {
            self.on_purpose += 1;
        } else if right != said {
            self.differing += 1;
            let _ = writeln!(self.report, "{name}");
            difference(&right, &said, &mut self.report);
        }
    }

    /// Something that has to be so at every live broker first.
    fn prepare(&mut self, what: &str, mut ready: impl FnMut(&mut Conn) -> bool) {
        let kafka = match &mut self.oracle {
            Oracle::Live(kafka) => Some(kafka),
            _ => None,
        };
        for live in [Some(&mut self.asked), kafka].into_iter().flatten() {
            eventually(what, || ready(&mut live.conn).then_some(()));
        }
    }

    /// What each broker calls `name`.
    fn call(&mut self, name: &str, own: impl Fn(&mut Conn) -> String) {
        let kafka = match &mut self.oracle {
            Oracle::Live(kafka) => Some(kafka),
            _ => None,
        };
        for live in [Some(&mut self.asked), kafka].into_iter().flatten() {
            let own = own(&mut live.conn);
            live.names.push((own, name.to_owned()));
        }
    }
}

/// Lines shown of each side.
const LINES_MAX: usize = 24;

fn difference(kafka: &str, taccola: &str, report: &mut String) {
    let (a, b): (Vec<&str>, Vec<&str>) = (kafka.lines().collect(), taccola.lines().collect());
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let end = end.min(a.len().min(b.len()) - start);
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    // Long stretches differ in a line here and there: show those lines only.
    let mut shown = false;
    for (own, other, mark) in [(a, b, '-'), (b, a, '+')] {
        let lines: Vec<_> = own.iter().filter(|line| own.len() < 12 || !other.contains(line)).collect();
        shown |= !lines.is_empty();
        for line in lines.iter().take(LINES_MAX) {
            let _ = writeln!(report, "  {mark} {}", line.trim());
        }
        if lines.len() > LINES_MAX {
            let _ = writeln!(report, "  {mark} (and {} lines more)", lines.len() - LINES_MAX);
        }
    }
    if !shown {
        let _ = writeln!(report, "  (the same lines in another order or number: {} and {})", a.len(), b.len());
    }
}
