//! The compacted topic of the crash tests: one writer that overwrites and deletes keys, and the judgement of what a log that
//! is compacted meanwhile holds: of each key its last value, or one that was sent behind it and never acknowledged; never
//! an older one, nothing that was not sent, and in the end nothing that compaction should have removed.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use taccola_wire::batch::{BatchBuilder, Compression, Record, RecordHeader};

use crate::WITHIN;
use crate::conn::Conn;
use crate::ledger::Rng;
use crate::load::{World, may_pass};
use crate::requests::{self, PRODUCE};

pub const TOPIC: &str = "crash-compacted";
const KEYS: u64 = 40;
/// What makes segments roll; it is never judged by its values.
const FILLER: &str = "filler";
/// Configs of the topic: rolls and rounds of the cleaner in every cycle.
pub const CONFIGS: [(&str, &str); 6] = [
    ("cleanup.policy", "compact"),
    ("internal.segment.bytes", "65536"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "100"),
    ("file.delete.delay.ms", "100"),
    ("segment.ms", "3600000"),
];

/// What is known of a key: versions rise, and every fourth is a tombstone.
#[derive(Clone, Copy, Debug, Default)]
struct Versions {
    /// The last that is known to be there, 0 for none; nothing older may come back.
    known: u64,
    sent: u64,
}

/// Whether a version deletes its key.
fn is_tombstone(version: u64) -> bool {
    version.is_multiple_of(4)
}

fn value(key: u64, version: u64) -> Option<Vec<u8>> {
    let mut rng = Rng(key << 32 | version);
    let length = 16 + rng.below(1_500);
    (!is_tombstone(version)).then(|| (0..length).map(|_| rng.next() as u8).collect())
}

/// The partition's keys and their writer. A record names its version in a header.
#[derive(Debug)]
pub struct Keeper {
    keys: BTreeMap<u64, Versions>,
    rng: Rng,
}

impl Keeper {
    pub fn new(seed: u64) -> Self {
        Self { keys: BTreeMap::new(), rng: Rng(seed) }
    }

    /// Overwrites keys until the broker dies.
    pub fn run(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        loop {
            let mut builder = BatchBuilder::new(Compression::None);
            let mut carried = Vec::new();
            for _ in 0..1 + self.rng.below(12) {
                let key = self.rng.below(KEYS);
                let versions = self.keys.entry(key).or_default();
                versions.sent += 1;
                let value = value(key, versions.sent);
                let headers = [RecordHeader::new("version", Some(versions.sent.to_string().into()))];
                builder.append(requests::now_ms(), Some(key.to_string().as_bytes()), value.as_deref(), &headers);
                carried.push((key, versions.sent));
            }
            let batch = builder.build().expect("a batch");
            let response = conn.call(&requests::produce_request(-1, TOPIC, 0, batch), PRODUCE)?;
            match response.responses[0].partition_responses[0].error_code {
                0 => {
                    for (key, version) in carried {
                        self.keys.entry(key).or_default().known = version;
                    }
                    world.acknowledged_batches.fetch_add(1, Ordering::Relaxed);
                }
                code => assert!(may_pass(code), "{TOPIC}: Produce answered {code}"),
            }
        }
    }

    /// Judges what is there. Nothing is under way, so what is found is known from now on.
    pub fn check(&mut self, conn: &mut Conn) {
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        for record in read(conn) {
            let Some((key, version)) = self.judge(&record) else { continue };
            let before = found.insert(key, version);
            assert!(
                before.is_none_or(|before| before < version),
                "{TOPIC}@{}: key {key} has version {version} behind {before:?}",
                record.offset
            );
        }
        for (key, versions) in &mut self.keys {
            let Versions { known, sent } = *versions;
            let possible = |version: &u64| (known.max(1)..=sent).contains(version);
            match found.get(key) {
                Some(version) => {
                    assert!(possible(version), "{TOPIC}: key {key} is at version {version}, not in {known}..={sent}");
                    versions.known = *version;
                }
                None => {
                    let gone = known == 0 || (known..=sent).any(is_tombstone);
                    assert!(gone, "{TOPIC}: key {key} is gone; version {known} was acknowledged, {sent} sent");
                }
            }
        }
    }

    fn judge(&self, record: &Record) -> Option<(u64, u64)> {
        let text = String::from_utf8(record.key.clone().unwrap_or_default().to_vec()).expect("a key of ours");
        if text == FILLER {
            return None;
        }
        let key: u64 = text.parse().unwrap_or_else(|_| panic!("{TOPIC}@{}: foreign key {text:?}", record.offset));
        let sent = self.keys.get(&key).map_or(0, |versions| versions.sent);
        let stated = record.headers.first().and_then(|header| header.value.as_deref()).unwrap_or_default();
        let version: u64 = String::from_utf8_lossy(stated).parse().expect("a version");
        let same = value(key, version).as_deref() == record.value.as_deref();
        assert!(same, "{TOPIC}@{}: wrong bytes in version {version} of key {key}", record.offset);
        assert!(version <= sent, "{TOPIC}@{}: version {version} of key {key} was never sent", record.offset);
        Some((key, version))
    }

    /// Compaction comes to an end: of each key below the active segment one record is left, and no tombstone.
    pub fn settle(&mut self, conn: &mut Conn) {
        let until = Instant::now() + WITHIN;
        let last_of_ours = requests::list_offset(conn, TOPIC, 0, -1).1;
        loop {
            for _ in 0..3 {
                let mut builder = BatchBuilder::new(Compression::None);
                builder.append(requests::now_ms(), Some(FILLER.as_bytes()), Some(&[b'x'; 40_000]), &[]);
                requests::produced(conn, TOPIC, 0, builder.build().expect("a batch"));
            }
            let mut count: BTreeMap<Vec<u8>, (usize, bool)> = BTreeMap::new();
            for record in read(conn).iter().filter(|record| record.offset < last_of_ours) {
                let entry = count.entry(record.key.clone().unwrap_or_default().to_vec()).or_default();
                *entry = (entry.0 + 1, entry.1 || record.value.is_none());
            }
            let left: Vec<String> = count
                .iter()
                .filter(|(_, (records, tombstone))| *records > 1 || *tombstone)
                .map(|(key, (records, _))| format!("{}: {records}", String::from_utf8_lossy(key)))
                .collect();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{TOPIC}: compaction leaves records or tombstones of {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.check(conn);
    }
}

/// Everything that is there; offsets rise, and may have gaps.
fn read(conn: &mut Conn) -> Vec<Record> {
    let records = requests::read_all(conn, TOPIC, 0, 0);
    assert!(records.is_sorted_by_key(|record| record.offset), "{TOPIC}: offsets go back");
    records
}
