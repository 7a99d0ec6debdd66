//! A seeded workload that one broker begins and another goes on with, on the same data directory. [`World`] is the ledger:
//! what was acknowledged, and what must therefore be found. [`capture`] says everything that a broker tells of its state;
//! two brokers on one directory must say the same.

mod capture;
mod dump;
mod groups;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

pub use self::capture::{State, capture};
pub use self::dump::Dump;
use crate::conn::Conn;
use crate::eventually;
use crate::ledger::Rng;
use crate::load::Place;
use crate::requests::{list_offset, new_topic, read_all};
use crate::txn::{Identity, Version, committed_of, fetch_committed};

/// What both brokers are started with: both compact at once, and segments of the coordinators' topics are small.
pub const PROPERTIES: &[&str] = &[
    "offsets.topic.num.partitions=3",
    "log.cleaner.backoff.ms=100",
    "log.retention.check.interval.ms=1000",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "transaction.state.log.num.partitions=3",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "share.coordinator.state.topic.num.partitions=3",
    // An open transaction outlives the swaps.
    "transaction.max.timeout.ms=3600000",
    "group.share.record.lock.duration.ms=15000",
    "group.share.min.record.lock.duration.ms=15000",
];

/// A record that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) offset: i64,
    pub(crate) value: String,
    /// Which transaction it belongs to.
    pub(crate) transaction: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) start: i64,
    pub(crate) next: i64,
    pub(crate) records: Vec<Written>,
}

/// An idempotent or transactional producer that lives as long as the directory.
pub(crate) struct Producer {
    pub(crate) identity: Identity,
    /// The open transaction, and what it has written to.
    pub(crate) open: Option<(usize, BTreeSet<Place>)>,
    /// Offsets that commit with it: group, place, offset.
    pub(crate) offsets: Vec<(String, Place, i64)>,
    /// The last batch without a transaction, and where it went: sent again, it must not be written again.
    pub(crate) last: Option<(taccola_wire::messages::ProduceRequest, i64)>,
}

pub struct World {
    pub(crate) rng: Rng,
    pub(crate) session: usize,
    pub(crate) steps: usize,
    pub(crate) logs: BTreeMap<Place, Log>,
    pub(crate) gone: Vec<String>,
    pub(crate) topics_made: usize,
    pub(crate) fates: Vec<Fate>,
    pub(crate) producers: Vec<Producer>,
    /// Latest value by key; `None`: a tombstone.
    pub(crate) compacted: BTreeMap<String, Option<String>>,
    /// The compacted topic's time, in milliseconds: each batch begins a segment.
    pub(crate) clock_ms: i64,
    /// By group and place.
    pub(crate) offsets: BTreeMap<(String, Place), i64>,
    /// By kind and name of a resource: what was set.
    pub(crate) configs: BTreeMap<(i8, String), BTreeMap<String, String>>,
    /// Partitions and offsets of [`SHARED`] that the share group is done with.
    pub(crate) shared: BTreeSet<(i32, i64)>,
    /// By partition and offset of [`SHARED`]: how often it was given out.
    pub(crate) delivered: BTreeMap<(i32, i64), i16>,
    /// What was done, for whoever reads of a failure.
    pub done: Vec<String>,
}

pub(crate) const COMPACTED: &str = "compacted";
pub(crate) const SHARED: &str = "shared";
const KEYS: u64 = 7;

impl World {
    pub fn new(seed: u64, steps: usize) -> Self {
        let producers = (0..4).map(|n| {
            let version = if n % 2 == 0 { Version::Two } else { Version::One };
            let identity = if n == 3 { Identity::plain() } else { Identity::new(&format!("txn-{n}"), version) };
            Producer { identity, open: None, offsets: Vec::new(), last: None }
        });
        Self {
            rng: Rng(seed),
            session: 0,
            steps,
            logs: BTreeMap::new(),
            gone: Vec::new(),
            topics_made: 0,
            fates: Vec::new(),
            producers: producers.collect(),
            compacted: BTreeMap::new(),
            clock_ms: crate::requests::now_ms() - 86_400_000,
            offsets: BTreeMap::new(),
            configs: BTreeMap::new(),
            shared: BTreeSet::new(),
            delivered: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    /// The first broker's first words.
    pub fn create(&mut self, port: u16) {
        let mut conn = Conn::connect(port).expect("a connection");
        let eager = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "10"),
            ("min.cleanable.dirty.ratio", "0.001"),
            ("min.compaction.lag.ms", "0"),
        ];
        new_topic(&mut conn, COMPACTED, 1, &eager);
        new_topic(&mut conn, SHARED, 2, &[]);
        for partition in 0..2 {
            self.logs.insert((SHARED.to_owned(), partition), Log::default());
        }
        self.make_topic(&mut conn);
        self.make_topic(&mut conn);
        eventually("a leader", || (list_offset(&mut conn, COMPACTED, 0, -1).0 == 0).then_some(()));
    }

    /// One broker's turn: what the others left is there; then steps at random, and what it wrote is there too.
    pub fn turn(&mut self, who: &str, port: u16) {
        self.session += 1;
        let who = format!("{who}, session {}", self.session);
        let mut conn = Conn::connect(port).expect("a connection");
        self.done.push(format!("--- {who}"));
        self.check(&who, &mut conn);
        self.each_kind(&mut conn);
        for _ in 0..self.steps {
            self.step(&mut conn);
        }
        self.check(&who, &mut conn);
    }

    fn say(&mut self, what: String) {
        self.done.push(what);
    }

    /// So that no session is without them.
    fn each_kind(&mut self, conn: &mut Conn) {
        self.write_compacted(conn);
        self.consumer_group(conn);
        self.classic_group(conn);
        self.share_group(conn);
        self.streams_group(conn);
        self.send_again(conn);
        for producer in 0..3 {
            self.transaction(conn, producer);
        }
    }

    fn step(&mut self, conn: &mut Conn) {
        match self.rng.below(20) {
            0..=4 => self.write(conn),
            5..=6 => self.write_idempotent(conn),
            7..=10 => {
                let producer = self.rng.below(3) as usize;
                self.transaction(conn, producer);
            }
            11 => self.write_compacted(conn),
            12 => self.delete_records(conn),
            13 => self.change_topics(conn),
            14 => self.change_configs(conn),
            15 => self.simple_commit(conn),
            16 => self.consumer_group(conn),
            17 => self.share_group(conn),
            18 => self.classic_group(conn),
            _ => self.forget_offsets(conn),
        }
    }

    pub(crate) fn place(&mut self) -> Place {
        // What a share group reads is written by its step alone, so that the ledger knows how far it is.
        let places: Vec<Place> = self.logs.keys().filter(|place| place.0 != SHARED).cloned().collect();
        let at = self.rng.below(places.len() as u64) as usize;
        places[at].clone()
    }

    pub(crate) fn topic_names(&self) -> BTreeSet<String> {
        self.logs.keys().map(|place| place.0.clone()).collect()
    }

    /// Everything that the ledger knows.
    fn check(&self, who: &str, conn: &mut Conn) {
        let done = || self.done.join("\n");
        for (place, log) in &self.logs {
            eventually("a leader", || (list_offset(conn, &place.0, place.1, -1).0 == 0).then_some(()));
            let start = list_offset(conn, &place.0, place.1, -2).1;
            assert_eq!(start, log.start, "{who}: start of {place:?}\n{}", done());
            let found: Vec<(i64, String)> =
                read_all(conn, &place.0, place.1, start).iter().map(|r| (r.offset, text(&r.value))).collect();
            let all = log.records.iter().filter(|r| r.offset >= log.start);
            let wanted: Vec<(i64, String)> = all.clone().map(|r| (r.offset, r.value.clone())).collect();
            assert_eq!(found, wanted, "{who}: {place:?}\n{}", done());
            assert_eq!(list_offset(conn, &place.0, place.1, -1).1, log.next, "{who}: end of {place:?}\n{}", done());
            let is = |record: &&Written, fate| record.transaction.is_some_and(|t| self.fates[t] == fate);
            let stable = all.clone().find(|r| is(r, Fate::Open)).map_or(log.next, |r| r.offset);
            let wanted: Vec<(i64, String)> = all
                .filter(|r| r.offset < stable && !is(r, Fate::Aborted))
                .map(|r| (r.offset, r.value.clone()))
                .collect();
            assert_eq!(committed_records(conn, place, start), wanted, "{who}: committed in {place:?}\n{}", done());
        }
        self.check_compacted(who, conn);
        let there = crate::requests::topics(conn);
        for gone in &self.gone {
            assert!(!there.contains(gone), "{who}: {gone} is back\n{}", done());
        }
        self.check_groups(who, conn);
        self.check_configs(who, conn);
    }

    fn check_compacted(&self, who: &str, conn: &mut Conn) {
        let mut found = BTreeMap::new();
        for record in read_all(conn, COMPACTED, 0, 0) {
            match &record.value {
                Some(_) => found.insert(text(&record.key), text(&record.value)),
                None => found.remove(&text(&record.key)),
            };
        }
        let wanted: BTreeMap<String, String> =
            self.compacted.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
        assert_eq!(found, wanted, "{who}: the latest value of each key\n{}", self.done.join("\n"));
    }
}

/// What a consumer in read_committed delivers, to the last stable offset.
fn committed_records(conn: &mut Conn, place: &Place, start: i64) -> Vec<(i64, String)> {
    let (mut next, mut all) = (start, Vec::new());
    loop {
        let request = fetch_committed(place, next);
        let mut data = conn.ask(&request, 12).responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0, "{place:?} at {next}");
        // Kafka tells them in the order of their markers, and clients sort.
        data.aborted_transactions.iter_mut().for_each(|aborted| aborted.sort_by_key(|txn| txn.first_offset));
        let (records, end) = committed_of(&data, next);
        all.extend(records.iter().map(|record| (record.offset, text(&record.value))));
        if end <= next {
            assert_eq!(next, data.last_stable_offset, "{place:?}: nothing at {next}");
            return all;
        }
        next = end;
    }
}

pub(crate) fn text(bytes: &Option<bytes::Bytes>) -> String {
    String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
}
