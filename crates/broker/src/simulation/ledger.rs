//! What was sent, acknowledged and seen, and the judgement of what the broker serves. The naive model: per partition a map
//! from offsets to names of records, per transaction what was decided.
//!
//! Each record's value begins with its name, `writer.number.`, and its length and bytes follow from it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use taccola_base::Uuid;

use super::clients::classic::ClassicLedger;
use super::clients::member::GroupLedger;
use super::clients::share::ShareLedger;
use super::clients::streams::StreamsLedger;
use super::rng::Rng;
use super::world;

/// Who wrote a record, and its number among all records of that writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) writer: u32,
    pub(super) number: u32,
}

impl Name {
    pub(super) fn value(self) -> Bytes {
        let mut rng = Rng(u64::from(self.writer) << 32 | u64::from(self.number));
        let length = match rng.below(40) {
            0 => 500 + rng.index(400),
            _ => rng.index(200),
        };
        let mut value = format!("{}.{}.", self.writer, self.number).into_bytes();
        let filler = (0..length.div_ceil(8)).flat_map(|_| rng.next().to_be_bytes());
        value.extend(filler.take(length));
        value.into()
    }

    fn of(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b'.').map(|part| std::str::from_utf8(part).ok()?.parse().ok());
        Some(Self { writer: parts.next()??, number: parts.next()?? })
    }
}

pub(super) type Place = (String, i32);

/// What a topic promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Written with acks=all alone.
    Durable,
    /// Also with acks=1: survives the process, not the power.
    PageCache,
    /// As `Durable`, and compacted: the last record of each key stays.
    Compacted,
    /// As `Durable`, and retention deletes from the beginning: what is older than this (milliseconds), if said.
    Retained(Option<i64>),
}

/// What became of a transaction, as far as clients can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    /// The end was asked for and not answered, or the producer was fenced meanwhile: either may come true. `true`: its
    /// commit was asked for.
    Unknown(bool),
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
pub(super) struct PartitionLedger {
    /// What stands at an offset.
    known: BTreeMap<i64, Name>,
    sent: BTreeMap<Name, Sent>,
    /// Acknowledged names with their offsets.
    acked: BTreeMap<Name, i64>,
    /// Where the log begins at least: DeleteRecords acknowledged, and asked for.
    pub(super) deleted_to: i64,
    pub(super) delete_asked: i64,
}

#[derive(Clone, Debug)]
struct Sent {
    transaction: Option<u32>,
    key: Option<Bytes>,
    /// Names of one writer with this flag come in their order.
    ordered: bool,
    /// Its timestamp.
    at_ms: i64,
}

/// A record as it was read.
pub(super) struct Read {
    pub(super) offset: i64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Bytes,
    /// read_committed shows it.
    pub(super) visible: bool,
}

/// A whole partition as it was read.
pub(super) struct ReadAll {
    pub(super) records: Vec<Read>,
    pub(super) log_start: i64,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) kinds: BTreeMap<String, Kind>,
    pub(super) partitions: BTreeMap<Place, PartitionLedger>,
    pub(super) transactions: Vec<Fate>,
    pub(super) groups: BTreeMap<String, GroupLedger>,
    pub(super) classics: BTreeMap<&'static str, ClassicLedger>,
    pub(super) streams: BTreeMap<&'static str, StreamsLedger>,
    pub(super) shares: BTreeMap<&'static str, ShareLedger>,
    pub(super) topic_ids: BTreeMap<String, Uuid>,
}

impl Ledger {
    pub(super) fn partition(&mut self, place: &Place) -> &mut PartitionLedger {
        self.partitions.entry(place.clone()).or_default()
    }

    pub(super) fn begin_transaction(&mut self) -> u32 {
        self.transactions.push(Fate::Open);
        self.transactions.len() as u32 - 1
    }

    pub(super) fn fate(&mut self, transaction: u32) -> &mut Fate {
        &mut self.transactions[transaction as usize]
    }

    /// The power went: what only the page cache held may be gone.
    pub(super) fn power_cut(&mut self) {
        for (place, partition) in &mut self.partitions {
            if self.kinds.get(&place.0) == Some(&Kind::PageCache) {
                partition.known.clear();
                partition.acked.clear();
            }
        }
    }

    /// Judges a whole partition after a start, or at the end (`settled`: no transaction is open any more).
    pub(super) fn check(&mut self, place: &Place, read: &ReadAll, settled: bool) {
        let kind = self.kinds[&place.0];
        let at = format!("{}-{}", place.0, place.1);
        let partition = self.partitions.entry(place.clone()).or_default();
        assert!(read.log_start >= partition.deleted_to, "{at}: the log begins at {} again", read.log_start);
        match kind {
            Kind::Retained(age_ms) => partition.check_retention(&at, read, age_ms),
            _ => assert!(read.log_start <= partition.delete_asked, "{at}: the log begins at {}", read.log_start),
        }
        assert!(read.last_stable <= read.high_watermark, "{at}: LSO {} HW {}", read.last_stable, read.high_watermark);
        let mut found = BTreeSet::new();
        let mut last_of = BTreeMap::new();
        for record in &read.records {
            let name = partition.note(&at, record.offset, &record.value, record.key.as_ref());
            let first = found.insert(name);
            assert!(first, "{at}@{}: {name:?} comes twice", record.offset);
            if partition.sent[&name].ordered {
                let before = last_of.insert(name.writer, name.number).unwrap_or(0);
                assert!(before <= name.number, "{at}@{}: {name:?} comes behind {before}", record.offset);
            }
            if let Some(transaction) = partition.sent[&name].transaction {
                let below = record.offset < read.last_stable;
                judge(&mut self.transactions, &at, record, transaction, below);
            }
        }
        let there: BTreeMap<i64, Name> =
            read.records.iter().map(|record| (record.offset, Name::of(&record.value).unwrap())).collect();
        match kind {
            Kind::Compacted => partition.check_compacted(&at, &there),
            Kind::Durable | Kind::PageCache | Kind::Retained(_) => {
                partition.check_all_there(&at, &there, read.log_start)
            }
        }
        if settled {
            assert_eq!(read.last_stable, read.high_watermark, "{at}: a transaction is still open");
        }
    }
}

/// Whether read_committed shows a record must follow from what became of its transaction.
fn judge(transactions: &mut [Fate], at: &str, record: &Read, transaction: u32, below_stable: bool) {
    let fate = &mut transactions[transaction as usize];
    let what = format!("{at}@{}: a record of transaction {transaction} ({fate:?})", record.offset);
    match (record.visible, below_stable) {
        (true, _) => match *fate {
            Fate::Committed => {}
            Fate::Unknown(true) => *fate = Fate::Committed,
            _ => panic!("{what} is shown"),
        },
        (false, true) => match *fate {
            Fate::Aborted => {}
            Fate::Unknown(_) | Fate::Open => *fate = Fate::Aborted,
            Fate::Committed => panic!("{what} is hidden"),
        },
        // Not decided yet here: markers follow the decision.
        (false, false) => {}
    }
}

impl PartitionLedger {
    pub(super) fn sent(&mut self, name: Name, transaction: Option<u32>, key: Option<Bytes>, ordered: bool) {
        self.sent.insert(name, Sent { transaction, key, ordered, at_ms: world::now_ms().unwrap() });
    }

    /// `base_offset` -1: it is there, but the broker does not know any more where.
    pub(super) fn acked(&mut self, at: &str, name: Name, offset: i64) {
        if offset >= 0 {
            let other = self.known.insert(offset, name);
            assert!(other.is_none_or(|other| other == name), "{at}@{offset}: {name:?} in the place of {other:?}");
        }
        self.acked.insert(name, offset);
    }

    /// A record that was served stays where it is, unless only the page cache had it.
    pub(super) fn note(&mut self, at: &str, offset: i64, value: &Bytes, key: Option<&Bytes>) -> Name {
        let name = Name::of(value).unwrap_or_else(|| panic!("{at}@{offset}: a foreign record {value:?}"));
        let sent = self.sent.get(&name).unwrap_or_else(|| panic!("{at}@{offset}: {name:?} was never sent"));
        assert_eq!(*value, name.value(), "{at}@{offset}: wrong bytes in {name:?}");
        assert_eq!(key, sent.key.as_ref(), "{at}@{offset}: wrong key of {name:?}");
        let other = self.known.insert(offset, name);
        assert!(other.is_none_or(|other| other == name), "{at}@{offset}: {name:?} in the place of {other:?}");
        name
    }

    /// One behind the last record that anybody saw.
    pub(super) fn end(&self) -> i64 {
        self.known.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// One behind the last acknowledged record: the high watermark is here at least.
    pub(super) fn acknowledged_end(&self) -> i64 {
        self.acked.values().max().map_or(0, |offset| offset + 1)
    }

    /// Somewhere in it.
    pub(super) fn somewhere(&self, rng: &mut Rng) -> i64 {
        self.deleted_to + rng.below((self.end() - self.deleted_to).max(0) as u64 + 1) as i64
    }

    /// What is gone was old enough.
    fn check_retention(&self, at: &str, read: &ReadAll, age_ms: Option<i64>) {
        assert!(read.log_start <= read.high_watermark, "{at}: begins at {} of {}", read.log_start, read.high_watermark);
        let Some(age_ms) = age_ms else { return };
        let now_ms = world::now_ms().unwrap();
        for (offset, name) in self.known.range(..read.log_start) {
            let age = now_ms - self.sent[name].at_ms;
            assert!(age > age_ms, "{at}@{offset}: {name:?} is gone after {age} ms");
        }
    }

    fn check_all_there(&self, at: &str, there: &BTreeMap<i64, Name>, log_start: i64) {
        for (offset, name) in self.known.range(log_start..) {
            assert_eq!(there.get(offset), Some(name), "{at}@{offset}: {name:?} is gone");
        }
        let names: BTreeSet<Name> = there.values().copied().collect();
        for (name, offset) in &self.acked {
            let gone = *offset < log_start && (*offset >= 0 || log_start > 0);
            assert!(gone || names.contains(name), "{at}: {name:?}, acknowledged at {offset}, is gone");
        }
    }

    /// What is missing must have been followed by a record with the same key.
    fn check_compacted(&self, at: &str, there: &BTreeMap<i64, Name>) {
        let mut last: BTreeMap<Option<&Bytes>, i64> = BTreeMap::new();
        for (offset, name) in &self.known {
            last.insert(self.sent[name].key.as_ref(), *offset);
        }
        for (key, offset) in last {
            let name = &self.known[&offset];
            assert_eq!(there.get(&offset), Some(name), "{at}@{offset}: the last record of {key:?} is gone");
        }
    }
}
