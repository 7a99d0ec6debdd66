//! Runs the scripts of `testdata/share_partition/`: the leader's side of one share-partition, with its writes on their way to
//! a share coordinator. A line that begins a line is a command, an indented one is what it printed. The whole trace is
//! compared; `UPDATE_EXPECT=1` writes it anew.
//!
//! ```text
//! config [start=0 locks=100 count=5 lock=1s]   starts anew with these limits; the log has batches of ten records
//! fetch MEMBER [max=10 batches=1 strict]        reads from where the next record is, and acquires
//! ack MEMBER FIRST-LAST=TYPE,TYPE... ...        types: gap accept release reject renew; one for all, or one for each
//! release MEMBER                      its session has ended
//! tick DURATION                       time passes; locks run out
//! hold                                writes wait for `written` or `fails`, which end the oldest; else they end at once
//! written | fails
//! lead                                another leader loads what was written; what was not is lost
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use taccola_coord::share_partition::{
    AcknowledgeType, AcknowledgementBatch, AcquireMode, AcquireRequest, FetchedBatch, ShareLimits, SharePartition,
    StateBatch, StateWrite,
};

struct World {
    limits: ShareLimits,
    partition: SharePartition,
    leader_epoch: i32,
    now_ms: i64,
    hold: bool,
    on_the_way: VecDeque<StateWrite>,
    /// What the share coordinator has: the start offset, and state and count of each record.
    start_offset: i64,
    written: BTreeMap<i64, (i8, i16)>,
    output: Vec<String>,
}

impl World {
    fn new(named: &BTreeMap<&str, &str>) -> Self {
        let number = |key: &str, default: i64| named.get(key).map_or(default, |v| v.parse().unwrap());
        let limits = ShareLimits {
            max_in_flight_records: number("locks", 100) as i32,
            max_delivery_count: number("count", 5) as i16,
            record_lock_duration_ms: named.get("lock").map_or(1_000, |v| duration_ms(v)) as i32,
            renewals: true,
        };
        let start_offset = number("start", 0);
        let partition = SharePartition::load(limits, 0, 1, start_offset, &[]).unwrap();
        let (on_the_way, written, output) = (VecDeque::new(), BTreeMap::new(), Vec::new());
        let (leader_epoch, now_ms, hold) = (0, 0, false);
        Self { limits, partition, leader_epoch, now_ms, hold, on_the_way, start_offset, written, output }
    }

    fn run(&mut self, verb: &str, words: &[&str], named: &BTreeMap<&str, &str>) {
        match verb {
            "config" => *self = Self::new(named),
            "fetch" => self.fetch(words, named),
            "ack" => {
                let batches: Vec<_> = words[1..].iter().map(|word| batch(word)).collect();
                match self.partition.acknowledge(self.now_ms, words[0], &batches) {
                    Ok(None) => self.output.push("nothing to write".to_owned()),
                    Ok(Some(write)) => self.send(write),
                    Err(error) => self.output.push(format!("{error:?}")),
                }
            }
            "release" => {
                let write = self.partition.release(words[0]);
                write.into_iter().for_each(|write| self.send(write));
            }
            "tick" => {
                self.now_ms += duration_ms(words[0]);
                let write = self.partition.lock_timeouts(self.now_ms);
                write.into_iter().for_each(|write| self.send(write));
            }
            "hold" => self.hold = true,
            "written" => self.end(true),
            "fails" => self.end(false),
            "lead" => {
                self.leader_epoch += 1;
                self.on_the_way.clear();
                self.hold = false;
                let state: Vec<_> =
                    self.written.iter().map(|(offset, (state, count))| one(*offset, *state, *count)).collect();
                let (epoch, start) = (self.leader_epoch, self.start_offset);
                self.partition = SharePartition::load(self.limits, epoch, 1, start, &state).unwrap();
            }
            _ => panic!("no command {verb}"),
        }
        self.show();
    }

    fn fetch(&mut self, words: &[&str], named: &BTreeMap<&str, &str>) {
        let number = |key: &str, default: i64| named.get(key).map_or(default, |v| v.parse().unwrap());
        let fetch_offset = self.partition.next_fetch_offset();
        let first = fetch_offset / 10 * 10;
        let read = |n: i64| FetchedBatch { base_offset: first + n * 10, last_offset: first + n * 10 + 9 };
        let fetched: Vec<_> = (0..number("batches", 1)).map(read).collect();
        let strict = words.contains(&"strict");
        let mode = if strict { AcquireMode::RecordLimit } else { AcquireMode::BatchOptimized };
        let (member, max_records) = (Arc::from(words[0]), number("max", 10) as i32);
        let request = AcquireRequest { member, mode, batch_size: 10, max_records, fetch_offset };
        let taken = self.partition.acquire(self.now_ms, &request, &fetched);
        let taken = taken.iter().map(|r| format!(" {}-{}*{}", r.first_offset, r.last_offset, r.delivery_count));
        self.output.push(format!("from {fetch_offset}:{}", taken.collect::<String>()));
    }

    fn send(&mut self, write: StateWrite) {
        let row =
            |b: &StateBatch| format!(" {}-{}:{}*{}", b.first_offset, b.last_offset, b.delivery_state, b.delivery_count);
        let rows: String = write.batches.iter().map(row).collect();
        self.output.push(format!("write {} start={}{rows}", write.id, write.start_offset));
        self.on_the_way.push_back(write);
        if !self.hold {
            self.end(true);
        }
    }

    fn end(&mut self, ok: bool) {
        let write = self.on_the_way.pop_front().expect("a write is on its way");
        if ok {
            self.start_offset = self.start_offset.max(write.start_offset);
            for b in &write.batches {
                let records = b.first_offset..=b.last_offset;
                self.written.extend(records.map(|offset| (offset, (b.delivery_state, b.delivery_count))));
            }
            self.written = self.written.split_off(&self.start_offset);
        }
        let wakes = self.partition.written(write.id, self.now_ms, ok);
        let woken = if wakes { ", and there is something to fetch" } else { "" };
        self.output.push(format!("write {} {}{woken}", write.id, if ok { "is written" } else { "failed" }));
    }

    /// Start and end offset, then what is in flight.
    fn show(&mut self) {
        let mut text = format!("[{}..{}]", self.partition.start_offset(), self.partition.end_offset());
        for (first, last, state, count, owner) in self.partition.in_flight() {
            let owner = owner.map(|owner| format!("({owner})")).unwrap_or_default();
            write!(text, " {first}-{last} {state:?}{owner}*{count}").unwrap();
        }
        if let Some(deadline_ms) = self.partition.next_deadline_ms() {
            write!(text, "; locks until {} ms from now", deadline_ms - self.now_ms).unwrap();
        }
        self.output.push(text);
    }
}

fn one(offset: i64, delivery_state: i8, delivery_count: i16) -> StateBatch {
    StateBatch { first_offset: offset, last_offset: offset, delivery_state, delivery_count }
}

fn batch(word: &str) -> AcknowledgementBatch {
    let (range, types) = word.split_once('=').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let kind = |name: &str| match name {
        "gap" => AcknowledgeType::Gap,
        "accept" => AcknowledgeType::Accept,
        "release" => AcknowledgeType::Release,
        "reject" => AcknowledgeType::Reject,
        "renew" => AcknowledgeType::Renew,
        _ => panic!("no type {name}"),
    };
    AcknowledgementBatch {
        first_offset: first.parse().unwrap(),
        last_offset: last.parse().unwrap(),
        types: types.split(',').map(kind).collect(),
    }
}

fn duration_ms(text: &str) -> i64 {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().unwrap(),
        None => text.strip_suffix('s').unwrap().parse::<i64>().unwrap() * 1_000,
    }
}

/// The script with its trace.
fn run(text: &str) -> String {
    let (mut world, mut out) = (World::new(&BTreeMap::new()), String::new());
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        let mut words = line.split_whitespace();
        let Some(verb) = words.next().filter(|_| !line.starts_with('#')) else { continue };
        // Acknowledged ranges are no names.
        let is_named = |word: &&str| word.split_once('=').is_some_and(|(name, _)| !name.contains('-'));
        let (named, words): (Vec<&str>, Vec<&str>) = words.partition(is_named);
        world.run(verb, &words, &named.into_iter().map(|pair| pair.split_once('=').unwrap()).collect());
        for printed in std::mem::take(&mut world.output) {
            writeln!(out, "  {printed}").unwrap();
        }
    }
    out
}

#[test]
fn scripts_print_what_they_printed() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/share_partition");
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = run(&expected);
        if update {
            std::fs::write(&path, actual).unwrap();
        } else {
            assert_eq!(expected, actual, "{}: UPDATE_EXPECT=1 writes the trace anew", path.display());
        }
    }
}
