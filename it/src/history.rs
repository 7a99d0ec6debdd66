//! Everything that transactional producers asked for and were told, everything that readers saw, and the judgement of it:
//! one function for each anomaly of Jepsen's Kafka workload, which says what it found.
//!
//! Each record names its transaction and its number in it, so that a value is sent once. A moment is a tick of the
//! history's own clock: requests are noted before they are sent, replies after they came.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::load::{Place, show};

/// A record: its transaction and its number in it.
pub type Id = (u64, u64);

/// What was asked of a transaction's end and answered to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was asked, or an abort was: nobody may see it.
    #[default]
    NeverCommitted,
    /// A commit was asked at that moment, and nobody knows.
    Asked(u64),
    /// The same, and acknowledged.
    Committed(u64),
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub place: Place,
    /// As the broker acknowledged it.
    pub offset: Option<i64>,
    /// Offset of the input record that this one was made of.
    pub made_of: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub writer: u32,
    /// Not a transaction at all: each record counts when it is acknowledged.
    pub plain: bool,
    pub records: Vec<Sent>,
    pub outcome: Outcome,
    /// Transactions whose records it read before it ended.
    pub read: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub reader: u32,
    pub place: Place,
    pub offset: i64,
    pub id: Id,
    pub at: u64,
}

#[derive(Debug, Default)]
pub struct History {
    pub txns: Vec<Txn>,
    /// Records that readers in read_committed were given, in that order.
    pub seen: Vec<Seen>,
    /// What any reader found at an offset, and any writer was told of one.
    pub at: BTreeMap<(Place, i64), Id>,
    /// What stands there in the end: all, and what read_committed delivers.
    pub all: BTreeMap<Place, Vec<(i64, Id)>>,
    pub committed: BTreeMap<Place, Vec<(i64, Id)>>,
    /// What was seen to be wrong on the spot, each under the number of its anomaly.
    pub complaints: Vec<(u32, String)>,
    clock: u64,
}

impl History {
    pub fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub fn begin(&mut self, writer: u32, plain: bool) -> u64 {
        self.txns.push(Txn { writer, plain, ..Txn::default() });
        self.txns.len() as u64 - 1
    }

    pub fn txn(&mut self, id: u64) -> &mut Txn {
        &mut self.txns[id as usize]
    }

    /// A record that is about to be sent.
    pub fn send(&mut self, txn: u64, place: &Place, made_of: Option<i64>) -> (Bytes, Bytes) {
        let records = &mut self.txn(txn).records;
        records.push(Sent { place: place.clone(), offset: None, made_of });
        value((txn, records.len() as u64 - 1))
    }

    /// The acknowledgement of consecutive records; `base` below 0: the broker does not know any more where.
    pub fn acknowledged(&mut self, place: &Place, ids: &[Id], base: i64) {
        if base < 0 {
            return;
        }
        for (id, offset) in ids.iter().zip(base..) {
            self.note(place, offset, *id);
            self.txn(id.0).records[id.1 as usize].offset = Some(offset);
        }
    }

    pub fn note(&mut self, place: &Place, offset: i64, id: Id) {
        let before = self.at.insert((place.clone(), offset), id);
        if let Some(other) = before.filter(|before| *before != id) {
            self.complain(3, format!("{}@{offset}: {other:?}, and {id:?}", show(place)));
        }
    }

    pub fn complain(&mut self, anomaly: u32, what: String) {
        self.complaints.push((anomaly, what));
    }

    /// A reader in read_committed was given this.
    pub fn read(&mut self, reader: u32, place: &Place, offset: i64, id: Id) {
        self.note(place, offset, id);
        let at = self.now();
        self.seen.push(Seen { reader, place: place.clone(), offset, id, at });
    }

    fn finally(&self) -> HashMap<Id, Vec<(&Place, i64)>> {
        places_of(&self.committed)
    }

    fn sent(&self) -> impl Iterator<Item = (Id, &Txn, &Sent)> {
        let numbered = self.txns.iter().enumerate();
        numbered
            .flat_map(|(t, txn)| txn.records.iter().enumerate().map(move |(n, sent)| ((t as u64, n as u64), txn, sent)))
    }
}

/// Key and value of a record: the value says what it is, the key makes it a little longer.
pub fn value((txn, number): Id) -> (Bytes, Bytes) {
    let key = format!("{number:0>width$}", width = 8 + (txn % 97) as usize);
    (key.into(), format!("{txn}:{number}").into())
}

/// The record that a value names.
pub fn parse(value: Option<&[u8]>) -> Id {
    let text = std::str::from_utf8(value.expect("a value")).expect("text");
    let (txn, number) = text.split_once(':').expect("transaction and number");
    (txn.parse().expect("a number"), number.parse().expect("a number"))
}

fn places_of(logs: &BTreeMap<Place, Vec<(i64, Id)>>) -> HashMap<Id, Vec<(&Place, i64)>> {
    let mut places: HashMap<Id, Vec<_>> = HashMap::new();
    for (place, log) in logs {
        for (offset, id) in log {
            places.entry(*id).or_default().push((place, *offset));
        }
    }
    places
}

/// 1: what was acknowledged is not there in the end.
pub fn lost_writes(history: &History) -> Vec<String> {
    let there = history.finally();
    let lost = history.sent().filter(|(id, txn, sent)| {
        let promised = match txn.plain {
            true => sent.offset.is_some(),
            false => matches!(txn.outcome, Outcome::Committed(_)),
        };
        promised && !there.get(id).is_some_and(|at| at.iter().any(|(place, _)| **place == sent.place))
    });
    lost.map(|(id, txn, sent)| format!("{id:?} of {:?} in {}", txn.outcome, show(&sent.place))).collect()
}

/// 2: what is there in the end, and a reader that went on to the end was never given it.
pub fn unseen(history: &History, readers: &[u32]) -> Vec<String> {
    let mut given: HashMap<u32, HashSet<(&Place, i64)>> = HashMap::new();
    for seen in &history.seen {
        given.entry(seen.reader).or_default().insert((&seen.place, seen.offset));
    }
    let mut found = Vec::new();
    for reader in readers {
        for (place, log) in &history.committed {
            let missing =
                log.iter().filter(|(offset, _)| !given.get(reader).is_some_and(|g| g.contains(&(place, *offset))));
            found.extend(missing.map(|(offset, id)| format!("reader {reader}: {id:?} at {}@{offset}", show(place))));
        }
    }
    found
}

/// 4: a record twice, however it ended.
pub fn duplicates(history: &History) -> Vec<String> {
    let twice = places_of(&history.all).into_iter().filter(|(_, at)| at.len() > 1);
    twice.map(|(id, at)| format!("{id:?} at {at:?}")).collect()
}

/// 5: an acknowledgement that tells of an offset which holds another record, or none.
pub fn false_dedupes(history: &History) -> Vec<String> {
    let there: HashMap<(&Place, i64), Id> = history
        .all
        .iter()
        .flat_map(|(place, log)| log.iter().map(move |(offset, id)| ((place, *offset), *id)))
        .collect();
    let wrong = history.sent().filter_map(|(id, _, sent)| {
        let offset = sent.offset?;
        let found = there.get(&(&sent.place, offset));
        (found != Some(&id))
            .then(|| format!("{id:?}: acknowledged at {}@{offset}, there: {found:?}", show(&sent.place)))
    });
    wrong.collect()
}

/// 6: a record of a transaction that nobody ever asked to commit, given to a reader at any time or there in the end.
pub fn aborted_reads(history: &History) -> Vec<String> {
    let seen = history.seen.iter().map(|seen| (&seen.place, seen.offset, seen.id));
    let there = history.committed.iter().flat_map(|(place, log)| log.iter().map(move |(o, id)| (place, *o, *id)));
    let aborted = seen.chain(there).filter(|(.., id)| {
        let txn = &history.txns[id.0 as usize];
        !txn.plain && txn.outcome == Outcome::NeverCommitted
    });
    aborted.map(|(place, offset, id)| format!("{id:?} at {}@{offset}", show(place))).collect()
}

/// 7: a record given to a reader before its commit was asked for; or read by its own transaction.
pub fn precommitted_reads(history: &History) -> Vec<String> {
    let early = history.seen.iter().filter(|seen| match history.txns[seen.id.0 as usize].outcome {
        Outcome::Asked(at) | Outcome::Committed(at) => seen.at < at,
        Outcome::NeverCommitted => false,
    });
    let mut found: Vec<String> = early
        .map(|seen| format!("reader {}: {:?} at {}@{}", seen.reader, seen.id, show(&seen.place), seen.offset))
        .collect();
    let own = history.txns.iter().enumerate().filter(|(t, txn)| !txn.plain && txn.read.contains(&(*t as u64)));
    found.extend(own.map(|(t, _)| format!("transaction {t} read itself")));
    found
}

/// 8: transactions that read from one another in a circle (wr edges alone: writes are not isolated).
pub fn cycles(history: &History) -> Vec<String> {
    // Kahn: what is left when everything without a reader is taken away is on a circle, or behind one.
    let reads = |t: u64| history.txns[t as usize].read.iter().copied().filter(move |other| *other != t);
    let mut incoming = vec![0_usize; history.txns.len()];
    (0..history.txns.len() as u64).flat_map(reads).for_each(|other| incoming[other as usize] += 1);
    let mut free: Vec<u64> = (0..history.txns.len() as u64).filter(|t| incoming[*t as usize] == 0).collect();
    while let Some(t) = free.pop() {
        for other in reads(t) {
            incoming[other as usize] -= 1;
            if incoming[other as usize] == 0 {
                free.push(other);
            }
        }
    }
    let left: BTreeSet<usize> = (0..incoming.len()).filter(|t| incoming[*t] > 0).collect();
    left.into_iter().map(|t| format!("transaction {t} reads {:?}", history.txns[t].read)).collect()
}

/// 9: of a transaction some is there and some is not.
pub fn torn(history: &History) -> Vec<String> {
    let there = history.finally();
    let whole = |t: u64, txn: &Txn| {
        let found = (0..txn.records.len() as u64).filter(|n| there.contains_key(&(t, *n))).count();
        found == 0 || found == txn.records.len()
    };
    let numbered = history.txns.iter().enumerate().filter(|(_, txn)| !txn.plain);
    let torn = numbered.filter(|(t, txn)| !whole(*t as u64, txn));
    torn.map(|(t, txn)| format!("transaction {t}: {txn:?}")).collect()
}

/// 10: a reader's records of a partition are not, one after the other, those that are there in the end.
pub fn skips(history: &History) -> Vec<String> {
    let mut given: BTreeMap<(u32, &Place), Vec<i64>> = BTreeMap::new();
    for seen in &history.seen {
        given.entry((seen.reader, &seen.place)).or_default().push(seen.offset);
    }
    let mut found = Vec::new();
    for ((reader, place), offsets) in given {
        let log = history.committed.get(place).map_or(&[][..], Vec::as_slice);
        for (given, (expected, id)) in offsets.iter().zip(log) {
            if given != expected {
                found.push(format!("reader {reader}: {}@{given} in place of {expected} ({id:?})", show(place)));
                break;
            }
        }
        if offsets.len() > log.len() {
            found.push(format!(
                "reader {reader}: {} records of {}, which has {}",
                offsets.len(),
                show(place),
                log.len()
            ));
        }
    }
    found
}

/// 11: a writer's acknowledged offsets of a partition that do not rise, which is where a made-up offset 0 shows.
pub fn spurious_offsets(history: &History) -> Vec<String> {
    let mut last: HashMap<(u32, &Place), i64> = HashMap::new();
    let mut found = Vec::new();
    for (id, txn, sent) in history.sent() {
        let Some(offset) = sent.offset else { continue };
        let before = last.insert((txn.writer, &sent.place), offset);
        if before.is_some_and(|before| before >= offset) {
            found.push(format!("{id:?} of writer {}: {}@{offset} after {before:?}", txn.writer, show(&sent.place)));
        }
    }
    found
}

/// 13: of the output of a loop that reads, processes and writes, what is not there exactly once and in the input's order.
/// `done`: the committed offset of the input.
pub fn consumed_twice(history: &History, writer: u32, output: &Place, done: i64) -> Vec<String> {
    let log = history.committed.get(output).map_or(&[][..], Vec::as_slice);
    let mine = log.iter().filter(|(_, id)| history.txns[id.0 as usize].writer == writer);
    let made_of: Vec<i64> =
        mine.filter_map(|(_, id)| history.txns[id.0 as usize].records[id.1 as usize].made_of).collect();
    let wrong = made_of.iter().zip(0..).find(|(found, expected)| *found != expected);
    let mut found: Vec<String> =
        wrong.map(|(found, expected)| format!("input {found} in place of {expected}")).into_iter().collect();
    if made_of.len() as i64 != done {
        found.push(format!("{} outputs, and the input is committed up to {done}", made_of.len()));
    }
    found
}

/// A history that several threads write.
#[derive(Debug, Default)]
pub struct Shared(Mutex<History>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn into_inner(self) -> History {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        ("t".to_owned(), 0)
    }

    /// Two records of one committed transaction, one of an aborted one.
    fn clean() -> History {
        let mut history = History::default();
        let (good, bad) = (history.begin(1, false), history.begin(1, false));
        for txn in [good, good, bad] {
            history.send(txn, &place(), None);
        }
        history.acknowledged(&place(), &[(good, 0), (good, 1)], 0);
        history.acknowledged(&place(), &[(bad, 0)], 3);
        let asked = history.now();
        history.txn(good).outcome = Outcome::Committed(asked);
        history.read(7, &place(), 0, (good, 0));
        history.read(7, &place(), 1, (good, 1));
        history.all.insert(place(), vec![(0, (0, 0)), (1, (0, 1)), (3, (1, 0))]);
        history.committed.insert(place(), vec![(0, (0, 0)), (1, (0, 1))]);
        history
    }

    fn found(history: &History) -> Vec<u32> {
        let checks = [
            (1, lost_writes(history)),
            (2, unseen(history, &[7])),
            (4, duplicates(history)),
            (5, false_dedupes(history)),
            (6, aborted_reads(history)),
            (7, precommitted_reads(history)),
            (8, cycles(history)),
            (9, torn(history)),
            (10, skips(history)),
            (11, spurious_offsets(history)),
        ];
        let noted = history.complaints.iter().map(|(anomaly, _)| *anomaly);
        noted.chain(checks.into_iter().filter(|(_, found)| !found.is_empty()).map(|(n, _)| n)).collect()
    }

    #[test]
    fn each_anomaly_is_found_and_nothing_in_a_clean_history() {
        assert_eq!(found(&clean()), []);
        type Planted = (&'static [u32], fn(&mut History));
        let planted: [Planted; 12] = [
            (&[1, 9, 10], |h| h.committed.get_mut(&place()).unwrap().truncate(1)),
            (&[1, 10], |h| h.committed.get_mut(&place()).unwrap().clear()),
            (&[2], |h| drop(h.seen.pop())),
            (&[3], |h| h.note(&place(), 0, (1, 0))),
            (&[4], |h| h.all.get_mut(&place()).unwrap().push((9, (1, 0)))),
            (&[5], |h| h.all.get_mut(&place()).unwrap().truncate(2)),
            (&[2, 6], |h| h.committed.get_mut(&place()).unwrap().push((3, (1, 0)))),
            (&[6, 10], |h| h.read(8, &place(), 3, (1, 0))),
            (&[7], |h| h.txn(0).outcome = Outcome::Committed(1_000)),
            (&[8], |h| (0..2).for_each(|t| h.txn(t).read.extend([1 - t]))),
            (&[10], |h| h.seen.swap(0, 1)),
            (&[5, 11], |h| h.txn(1).records[0].offset = Some(0)),
        ];
        for (anomalies, plant) in planted {
            let mut history = clean();
            plant(&mut history);
            assert_eq!(found(&history), anomalies);
        }
        let mut history = clean();
        history.txn(0).records[0].made_of = Some(0);
        history.txn(0).records[1].made_of = Some(1);
        assert!(consumed_twice(&history, 1, &place(), 2).is_empty());
        assert!(!consumed_twice(&history, 1, &place(), 1).is_empty());
        history.txn(0).records[1].made_of = Some(0);
        assert!(!consumed_twice(&history, 1, &place(), 2).is_empty());
    }
}
