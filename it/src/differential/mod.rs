//! The same requests at two brokers, and what differs between their replies. One is Apache Kafka, the oracle: a live one, or
//! what a live one answered when it was recorded.
//!
//! What must differ (ids, addresses, times, wordings) is made equal before comparing. Cases are told in areas, each for a
//! broker of its own; what Kafka 4.3.1 answers in an area stands in `it/testdata/answers/AREA.answers`.

mod cluster;
mod configs;
pub mod coverage;
mod data;
mod equal;
mod frames;
mod groups;
mod log_dirs;
mod membership;
mod purpose;
mod recording;
mod records;
mod share_data;
mod share_state;
mod topics;

use std::fmt::{Debug, Write as _};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use taccola_wire::api::ApiKey;
use taccola_wire::codec::Request;
use taccola_wire::messages::DescribeLogDirsRequest;

pub use self::groups::PROPERTIES;
pub use self::purpose::ON_PURPOSE;
use self::recording::Recording;
pub(crate) use self::recording::compact;
use crate::conn::Conn;
use crate::eventually;

/// What makes replies equal whoever asks.
pub(crate) mod normal {
    pub(crate) use super::configs::described as configs;
    pub(crate) use super::data::{api_versions, in_fetch as fetched};
    pub(crate) use super::share_data::in_words as share_fetched;
}

/// Cases that belong together.
pub struct Area {
    pub name: &'static str,
    /// Log directories of the broker that is asked.
    pub log_dirs: usize,
    run: fn(&mut Differential),
}

impl Area {
    /// Settings of the broker that is asked, whose data lies in this folder.
    pub fn properties(&self, home: &Path) -> Vec<String> {
        let dirs = ["data", "more"].iter().take(self.log_dirs).map(|name| home.join(name).display().to_string());
        let dirs = format!("log.dirs={}", dirs.collect::<Vec<_>>().join(","));
        PROPERTIES.iter().map(|line| (*line).to_owned()).chain([dirs]).collect()
    }

    /// Where it stands what Kafka answered.
    pub fn file(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/answers/{}.answers", self.name))
    }

    pub fn answers(&self) -> String {
        std::fs::read_to_string(self.file()).expect("recorded answers")
    }
}

macro_rules! areas {
    ($($name:ident $log_dirs:literal),*) => {
        &[$(Area { name: stringify!($name), log_dirs: $log_dirs, run: $name::run }),*]
    };
}

pub const AREAS: &[Area] = areas![
    topics 1, records 1, configs 1, cluster 1, groups 1, membership 1, data 1, share_data 1, share_state 1, frames 1,
    log_dirs 2
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

impl Live {
    fn ask_raw(&mut self, key: ApiKey, version: i16, body: &[u8]) -> &'static str {
        let asked = self.conn.send_body(key, version, body).and_then(|_| self.conn.frame());
        if asked.is_ok() {
            return "a reply";
        }
        self.conn = Conn::connect_to(self.address).expect("the broker still listens");
        "no reply"
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

    /// How many log directories each live broker has.
    pub fn log_dirs(&mut self) -> Vec<usize> {
        let kafka = match &mut self.oracle {
            Oracle::Live(kafka) => Some(kafka),
            _ => None,
        };
        let request = DescribeLogDirsRequest { topics: Some(Vec::new()) };
        let live = [Some(&mut self.asked), kafka].into_iter().flatten();
        live.map(|live| live.conn.ask(&request, 4).results.len()).collect()
    }

    pub fn run(&mut self, area: &Area) {
        (area.run)(self);
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
        let (pretty, short) = self.asked.ask(&request, version, &until, &equal);
        let (right, said) = match &mut self.oracle {
            Oracle::Live(kafka) => (kafka.ask(&request, version, &until, &equal).0, pretty),
            Oracle::Recorded(recording) => (recording.next(&name), short),
            Oracle::Recorder(recording) => return recording.add(name, short),
        };
        self.compare(&name, &right, &said);
    }

    /// A request whose body is nothing that its version knows. Answers only whether there is a reply.
    fn raw(&mut self, case: &str, key: ApiKey, version: i16, body: &[u8]) {
        let name = format!("{key:?} v{version}: {case}");
        let said = self.asked.ask_raw(key, version, body);
        let right = match &mut self.oracle {
            Oracle::Live(kafka) => kafka.ask_raw(key, version, body).to_owned(),
            Oracle::Recorded(recording) => recording.next(&name),
            Oracle::Recorder(recording) => return recording.add(name, said.to_owned()),
        };
        self.compare(&name, &right, said);
    }

    fn compare(&mut self, name: &str, right: &str, said: &str) {
        if !name.contains(&self.filter) {
            return;
        }
        self.cases += 1;
        if right == said {
            return;
        }
        if ON_PURPOSE.iter().any(|(known, _)| name.starts_with(known)) {
            self.on_purpose += 1;
        } else {
            self.differing += 1;
            let _ = writeln!(self.report, "{name}");
            difference(right, said, &mut self.report);
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
