//! Everything that was sent, acknowledged and seen, partition by partition, and the judgement of what a broker serves
//! after a crash. It is the only source of truth: records carry their writer and number in the key, and their value
//! follows from these, so that each byte that comes back can be checked.
//!
//! What is demanded: an acknowledged record is at its offset; whatever was once served stays what it was; no record comes
//! twice; records of one idempotent writer keep their order; nothing comes that was not sent; offsets have no gap;
//! committed offsets and log start offsets never go back behind what was acknowledged nor beyond what was asked for.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use taccola_wire::batch::Record;

use crate::requests::Log;

/// Who wrote a record, and its number among that writer's records in the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub writer: u32,
    pub number: u64,
}

impl Name {
    pub fn key(self) -> Bytes {
        let mut key = Vec::with_capacity(12);
        key.extend_from_slice(&self.writer.to_be_bytes());
        key.extend_from_slice(&self.number.to_be_bytes());
        key.into()
    }

    fn parse(key: &[u8]) -> Option<Self> {
        let (writer, number) = key.split_first_chunk::<4>()?;
        let number = number.first_chunk::<8>().filter(|_| number.len() == 8)?;
        Some(Self { writer: u32::from_be_bytes(*writer), number: u64::from_be_bytes(*number) })
    }

    /// Null for one in 16, sometimes tens of kilobytes, mostly some hundred bytes.
    pub fn value(self) -> Option<Bytes> {
        let mut rng = Rng(u64::from(self.writer) << 40 | self.number | 1 << 63);
        let length = match rng.below(64) {
            0..4 => return None,
            4..8 => 0,
            8 => 20_000 + rng.below(40_000),
            _ => rng.below(1_200),
        };
        let bytes = (0..length.div_ceil(8)).flat_map(|_| rng.next().to_be_bytes()).take(length as usize);
        Some(bytes.collect::<Vec<u8>>().into())
    }
}

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 ≤ result < `bound`; `bound` > 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// One partition.
#[derive(Debug, Default)]
pub struct Partition {
    /// What stands at an offset, from an acknowledgement or from a fetch.
    known: BTreeMap<i64, Name>,
    /// Acknowledged as duplicates, without an offset.
    somewhere: HashSet<Name>,
    /// Next number of each writer: nothing from here on was sent.
    sent: HashMap<u32, u64>,
    /// Writers that send again and must not show twice, and in order.
    idempotent: HashSet<u32>,
    /// DeleteRecords: acknowledged, and asked for.
    pub deleted_to: i64,
    pub delete_asked: i64,
    /// Retention keeps at least so many bytes; `None`: it deletes nothing.
    pub retained_bytes: Option<usize>,
    /// Behind the last record that was acknowledged with acks=all: readers see it.
    pub visible_end: i64,
    /// Where the last check ended.
    checked_to: i64,
}

impl Partition {
    pub fn sent(&mut self, writer: u32, idempotent: bool, next: u64) {
        self.sent.insert(writer, next);
        if idempotent {
            self.idempotent.insert(writer);
        }
    }

    /// `base_offset` -1: it is there, but the broker does not know any more where.
    pub fn acknowledged(&mut self, name: &str, first: Name, count: u64, base_offset: i64) {
        for i in 0..count {
            let record = Name { writer: first.writer, number: first.number + i };
            if base_offset < 0 {
                self.somewhere.insert(record);
            } else {
                self.note(name, base_offset + i as i64, record);
            }
        }
    }

    fn note(&mut self, name: &str, offset: i64, record: Name) {
        if let Some(other) = self.known.insert(offset, record) {
            assert_eq!(other, record, "{name}: two records at offset {offset}");
        }
    }

    /// Checks one record that the broker served, and remembers it.
    pub fn served(&mut self, name: &str, record: &Record) -> Name {
        let key = record.key.as_deref().unwrap_or_default();
        let found = Name::parse(key).unwrap_or_else(|| panic!("{name}@{}: foreign key {key:?}", record.offset));
        let sent = self.sent.get(&found.writer).copied().unwrap_or(0);
        assert!(found.number < sent, "{name}@{}: {found:?} was never sent (up to {sent})", record.offset);
        assert_eq!(record.value, found.value(), "{name}@{}: wrong bytes in {found:?}", record.offset);
        self.note(name, record.offset, found);
        found
    }

    /// Where a check begins: at the log's start if `all`, else a little before the end of the last one.
    pub fn check_from(&self, all: bool, log_start: i64) -> i64 {
        if all || self.retained_bytes.is_some() { log_start } else { log_start.max(self.checked_to - 200) }
    }

    /// Judges everything that is served from `from` on, the log starting at `log_start`.
    pub fn check(&mut self, name: &str, log_start: i64, from: i64, Log { records, bytes, .. }: &Log) {
        assert!(self.deleted_to <= log_start, "{name}: starts at {log_start}, was deleted up to {}", self.deleted_to);
        let kept = from <= log_start && self.retained_bytes.is_some_and(|least| *bytes >= least);
        assert!(
            log_start <= self.delete_asked || kept,
            "{name}: starts at {log_start}, nobody deleted beyond {}, and {bytes} bytes are left",
            self.delete_asked
        );
        if kept {
            self.delete_asked = self.delete_asked.max(log_start);
        }
        let mut next = from;
        let mut seen = HashSet::new();
        let mut last: HashMap<u32, u64> = HashMap::new();
        for record in records {
            assert_eq!(record.offset, next, "{name}: a gap");
            next += 1;
            let found = self.served(name, record);
            assert!(seen.insert(found), "{name}@{}: {found:?} a second time", record.offset);
            if self.idempotent.contains(&found.writer)
                && let Some(before) = last.insert(found.writer, found.number)
            {
                // A gap would be a hole in the writer's sequence: a record that was skipped for good.
                assert_eq!(before + 1, found.number, "{name}@{}: writer {} out of order", record.offset, found.writer);
            }
        }
        // Every known offset was either read just now with that content (`note` compares) or is gone.
        if let Some((offset, record)) = self.known.range(next.max(from)..).next() {
            panic!("{name}: ends at {next}, but {record:?} was acknowledged or served at {offset}");
        }
        if from <= log_start {
            let deleted = log_start > 0;
            if let Some(lost) = self.somewhere.iter().find(|record| !seen.contains(record) && !deleted) {
                panic!("{name}: {lost:?} was acknowledged as a duplicate and is nowhere");
            }
        } else {
            // The stretch before was checked earlier; a record must not come again after it.
            let overlap = self.known.range(..from).rev().take(20_000);
            for (offset, record) in overlap {
                assert!(!seen.contains(record), "{name}: {record:?} at {offset} and again");
            }
        }
        self.checked_to = next;
    }

    /// Records that are known to be there.
    pub fn records(&self) -> usize {
        self.known.len()
    }

    /// Offset behind the last known record.
    pub fn end(&self) -> i64 {
        self.known.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }
}

/// A number that only grows: what was asked for, and what was acknowledged of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    pub asked: i64,
    pub acknowledged: i64,
}

impl Promise {
    pub fn check(&mut self, what: &str, found: i64) {
        assert!(found >= self.acknowledged, "{what}: {found}, but {} was acknowledged", self.acknowledged);
        assert!(found <= self.asked, "{what}: {found}, but at most {} was asked for", self.asked);
        // What was served must stay, too.
        self.acknowledged = found;
    }
}

/// A topic that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// A change of state is under way and was not acknowledged.
    Open,
    Present,
    Absent,
}
