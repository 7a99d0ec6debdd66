//! Who works with transactions in the crash tests: transactional writers of both versions that read meanwhile, loops that
//! read, process and write, an idempotent writer without transactions, and readers. Each survives the broker: what was
//! under way when it died is asked again, or given up, in the next cycle. Everything that they learn goes into the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{FetchResponse, FindCoordinatorRequest};

use crate::conn::Conn;
use crate::history::{Id, Outcome, Shared, parse};
use crate::ledger::Rng;
use crate::load::{Place, show};
use crate::requests::FETCH;
use crate::txn::{ADD, INIT, Identity, Version, committed_of, fetch_committed, offset_fetch, wait};

/// Anomaly 12: nothing takes longer while the broker lives.
pub const PROGRESS_WITHIN: Duration = Duration::from_secs(10);

/// Kinds of coordinators in FindCoordinator.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// The broker is gone, or on its way.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;

pub type Step<T> = Result<T, Stopped>;

/// What all actors share.
pub struct Stage {
    pub history: Shared,
    pub broker: u16,
    /// In front of the broker, losing and holding.
    pub proxy: u16,
    pub stop: AtomicBool,
}

impl Stage {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// An actor's way to the broker: reconnects while the broker lives, asks again what got lost, waits when told to.
pub struct Link<'a> {
    pub stage: &'a Stage,
    port: u16,
    conn: Option<Conn>,
}

impl<'a> Link<'a> {
    pub fn new(stage: &'a Stage, through_proxy: bool) -> Self {
        Self { stage, port: if through_proxy { stage.proxy } else { stage.broker }, conn: None }
    }

    /// Asks until there is a reply that `code` does not take for a request to wait.
    pub fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        code: impl Fn(&R::Response) -> i16,
    ) -> Step<R::Response> {
        let until = Instant::now() + PROGRESS_WITHIN;
        loop {
            if self.stage.stopped() {
                return Err(Stopped);
            }
            let waits = match self.once(request, version) {
                Some(response) if !wait(ErrorCode::from_code(code(&response))) => return Ok(response),
                Some(response) => ErrorCode::from_code(code(&response)).name(),
                None => "no connection",
            };
            if Instant::now() > until && !self.stage.stopped() {
                let what = format!("{:?} v{version}: {waits} for {PROGRESS_WITHIN:?}", R::KEY);
                self.stage.history.lock().complain(12, what);
                return Err(Stopped);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn once<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        if self.conn.is_none() {
            self.conn = Conn::connect(self.port).ok();
        }
        let answer = self.conn.as_mut()?.call(request, version);
        if answer.is_err() {
            self.conn = None;
        }
        answer.ok()
    }

    /// Which also has the coordinators' topic created.
    fn find_coordinator(&mut self, key_type: i8, key: &str) -> Step<()> {
        let find = FindCoordinatorRequest { key_type, coordinator_keys: vec![key.to_owned()], ..Default::default() };
        self.ask(&find, 4, |response| response.coordinators[0].error_code).map(drop)
    }

    /// One fetch in read_committed: what it delivers, and where it goes on.
    fn read(&mut self, place: &Place, from: i64, wait_ms: i32) -> Step<(Vec<(i64, Id)>, i64)> {
        let mut request = fetch_committed(place, from);
        (request.max_wait_ms, request.min_bytes) = (wait_ms, 1);
        let code = |response: &FetchResponse| response.responses[0].partitions[0].error_code;
        let response = self.ask(&request, FETCH, code)?;
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, 0, "Fetch of {} at {from}", show(place));
        let (records, next) = committed_of(data, from);
        Ok((records.iter().map(|record| (record.offset, parse(record.value.as_deref()))).collect(), next))
    }
}

/// What waits for an acknowledgement.
type Batches = BTreeMap<Place, Vec<(Id, (Bytes, Bytes))>>;

/// A producer and its open transaction, as far as it got.
struct Producer {
    id: u32,
    identity: Identity,
    initialized: bool,
    open: Option<u64>,
    added: BTreeSet<Place>,
    pending: Batches,
    ending: Option<bool>,
}

impl Producer {
    fn new(id: u32, identity: Identity) -> Self {
        let (added, pending) = Default::default();
        Self { id, identity, initialized: false, open: None, added, pending, ending: None }
    }

    /// Gives up what is open, whatever becomes of it.
    fn abandon(&mut self) {
        (self.open, self.ending, self.initialized) = (None, None, false);
        self.pending.clear();
    }

    fn init(&mut self, link: &mut Link<'_>) -> Step<()> {
        if self.initialized {
            return Ok(());
        }
        if !self.identity.id.is_empty() {
            link.find_coordinator(TRANSACTION, &self.identity.id)?;
        }
        let response = link.ask(&self.identity.init(), INIT, |response| response.error_code)?;
        assert_eq!(response.error_code, 0, "InitProducerId of {}", self.identity.id);
        self.identity.is_now(response.producer_id, response.producer_epoch);
        self.initialized = true;
        Ok(())
    }

    fn begin(&mut self, link: &Link<'_>, plain: bool) -> u64 {
        let txn = link.stage.history.lock().begin(self.id, plain);
        (self.open, self.ending) = (Some(txn), None);
        self.added.clear();
        txn
    }

    /// `count` more records for `place`, to be delivered.
    fn add(&mut self, link: &Link<'_>, txn: u64, place: &Place, count: u64, made_of: Option<i64>) {
        let mut history = link.stage.history.lock();
        for n in 0..count {
            let record = history.send(txn, place, made_of.map(|first| first + n as i64));
            let number = history.txn(txn).records.len() as u64 - 1;
            self.pending.entry(place.clone()).or_default().push(((txn, number), record));
        }
    }

    /// Sends what is pending until all of it is acknowledged.
    fn deliver(&mut self, link: &mut Link<'_>) -> Step<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let new: BTreeSet<Place> = self.pending.keys().filter(|place| !self.added.contains(*place)).cloned().collect();
        if self.identity.version == Version::One && !new.is_empty() {
            let response = link.ask(&self.identity.add(&new), ADD, |response| {
                let mut rows = response.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
                rows.find(|row| row.partition_error_code != 0).map_or(0, |row| row.partition_error_code)
            })?;
            let mut rows = response.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
            assert!(rows.all(|row| row.partition_error_code == 0), "AddPartitionsToTxn: {response:?}");
            self.added.extend(new);
        }
        let records =
            self.pending.iter().map(|(place, rows)| (place.clone(), rows.iter().map(|r| r.1.clone()).collect()));
        let request = self.identity.produce(&records.collect());
        let response = link.ask(&request, self.identity.version.produce(), |response| {
            let rows = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            // Whoever is behind a partition that waits is sent again with it: once more or not, it must not matter.
            rows.map(|row| row.error_code).find(|code| wait(ErrorCode::from_code(*code))).unwrap_or(0)
        })?;
        let pending = std::mem::take(&mut self.pending);
        for topic in &response.responses {
            for row in &topic.partition_responses {
                let place = (topic.name.clone(), row.index);
                let code = ErrorCode::from_code(row.error_code);
                assert!(
                    matches!(code, ErrorCode::None | ErrorCode::DuplicateSequenceNumber),
                    "Produce of {:?} to {}: {} (row {row:?})",
                    self.identity,
                    show(&place),
                    code.name()
                );
                let ids: Vec<Id> = pending[&place].iter().map(|(id, _)| *id).collect();
                let base = if code == ErrorCode::None { row.base_offset } else { -1 };
                link.stage.history.lock().acknowledged(&place, &ids, base);
                self.identity.sent(&place, ids.len());
            }
        }
        Ok(())
    }

    /// Asks for the end, again if it was asked before.
    fn end(&mut self, link: &mut Link<'_>, commit: bool) -> Step<()> {
        let txn = self.open.expect("an open transaction");
        if commit && self.ending.is_none() {
            let mut history = link.stage.history.lock();
            let now = history.now();
            history.txn(txn).outcome = Outcome::Asked(now);
        }
        self.ending = Some(commit);
        let response =
            link.ask(&self.identity.end(commit), self.identity.version.end(), |response| response.error_code)?;
        assert_eq!(ErrorCode::from_code(response.error_code), ErrorCode::None, "EndTxn of {}", self.identity.id);
        if self.identity.version == Version::Two {
            self.identity.is_now(response.producer_id, response.producer_epoch);
        }
        let mut history = link.stage.history.lock();
        if let Outcome::Asked(at) = history.txn(txn).outcome {
            history.txn(txn).outcome = Outcome::Committed(at);
        }
        drop(history);
        (self.open, self.ending) = (None, None);
        Ok(())
    }
}

/// One of the cast. `work` ends when the broker does; `settle` leaves nothing open.
pub trait Actor: Send {
    fn work(&mut self, link: &mut Link<'_>, done: &AtomicU64) -> Step<()>;

    fn settle(&mut self, link: &mut Link<'_>) -> Step<()>;
}

/// Transactions over some places, with reads in between.
pub struct Writer {
    producer: Producer,
    places: Vec<Place>,
    positions: BTreeMap<Place, i64>,
    left: u64,
    rng: Rng,
}

impl Writer {
    pub fn new(id: u32, version: Version, places: &[Place], seed: u64) -> Self {
        let producer = Producer::new(id, Identity::new(&format!("writer-{id}"), version));
        Self { producer, places: places.to_vec(), positions: BTreeMap::new(), left: 0, rng: Rng(seed) }
    }

    fn transaction(&mut self, link: &mut Link<'_>) -> Step<()> {
        self.producer.init(link)?;
        if self.producer.open.is_none() {
            self.producer.begin(link, false);
            self.left = 1 + self.rng.below(4);
        }
        let txn = self.producer.open.expect("begun");
        self.producer.deliver(link)?;
        while self.producer.ending.is_none() && self.left > 0 {
            for _ in 0..1 + self.rng.below(3) {
                let place = self.places[self.rng.below(self.places.len() as u64) as usize].clone();
                self.producer.add(link, txn, &place, 1 + self.rng.below(5), None);
            }
            self.left -= 1;
            self.producer.deliver(link)?;
            if self.rng.one_in(2) {
                self.look(link, txn)?;
            }
        }
        let commit = match self.producer.ending {
            Some(commit) => commit,
            None if self.rng.one_in(12) => {
                self.producer.abandon();
                return Ok(());
            }
            None => !self.rng.one_in(3),
        };
        self.producer.end(link, commit)
    }

    /// Reads on somewhere, as part of the transaction.
    fn look(&mut self, link: &mut Link<'_>, txn: u64) -> Step<()> {
        let place = self.places[self.rng.below(self.places.len() as u64) as usize].clone();
        let from = self.positions.get(&place).copied().unwrap_or(0);
        let (records, next) = link.read(&place, from, 0)?;
        let mut history = link.stage.history.lock();
        for (offset, id) in records {
            history.note(&place, offset, id);
            history.txn(txn).read.insert(id.0);
        }
        self.positions.insert(place, next);
        Ok(())
    }
}

impl Actor for Writer {
    fn work(&mut self, link: &mut Link<'_>, done: &AtomicU64) -> Step<()> {
        // The transaction of before the crash goes on, or whoever comes next finds it open.
        if self.rng.one_in(2) {
            self.producer.abandon();
        }
        loop {
            self.transaction(link)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn settle(&mut self, link: &mut Link<'_>) -> Step<()> {
        self.producer.abandon();
        self.producer.init(link)
    }
}

/// Reads one place in read_committed, writes what it read to another, and commits its offset in the same transaction.
pub struct Loop {
    producer: Producer,
    pub group: String,
    input: Place,
    output: Place,
    /// First offset of the input that is not in a transaction which was ended, if known.
    position: Option<i64>,
    rng: Rng,
}

impl Loop {
    pub fn new(id: u32, version: Version, input: Place, output: Place, seed: u64) -> Self {
        let producer = Producer::new(id, Identity::new(&format!("loop-{id}"), version));
        Self { producer, group: format!("loop-{id}"), input, output, position: None, rng: Rng(seed) }
    }

    /// The committed offset, when nothing is open that could move it.
    fn committed(&self, link: &mut Link<'_>) -> Step<i64> {
        let request = offset_fetch(&self.group, &self.input, true);
        let response = link.ask(&request, 8, |response| {
            let group = &response.groups[0];
            let row = group.topics.first().map_or(0, |topic| topic.partitions[0].error_code);
            if group.error_code != 0 { group.error_code } else { row }
        })?;
        let row = &response.groups[0].topics[0].partitions[0];
        assert_eq!((response.groups[0].error_code, row.error_code), (0, 0), "OffsetFetch of {}", self.group);
        Ok(row.committed_offset.max(0))
    }

    fn transaction(&mut self, link: &mut Link<'_>) -> Step<()> {
        if !self.producer.initialized {
            link.find_coordinator(GROUP, &self.group)?;
        }
        self.producer.init(link)?;
        let position = self.committed(link)?;
        if let Some(expected) = self.position.replace(position).filter(|expected| *expected != position) {
            let what = format!("{}: at {expected} when the last transaction ended, at {position} now", self.group);
            link.stage.history.lock().complain(14, what);
        }
        let (records, _) = link.read(&self.input, position, 20)?;
        let count = (records.len() as u64).min(1 + self.rng.below(10));
        if count == 0 {
            return Ok(());
        }
        let txn = self.producer.begin(link, false);
        let mut history = link.stage.history.lock();
        history.txn(txn).read.extend(records.iter().take(count as usize).map(|(_, id)| id.0));
        drop(history);
        self.producer.add(link, txn, &self.output, count, Some(position));
        self.producer.deliver(link)?;
        let next = position + count as i64;
        self.commit_offset(link, next)?;
        self.finish(link, next)
    }

    fn commit_offset(&mut self, link: &mut Link<'_>, offset: i64) -> Step<()> {
        let identity = &self.producer.identity;
        if identity.version == Version::One {
            let response = link.ask(&identity.add_offsets(&self.group), 3, |response| response.error_code)?;
            assert_eq!(response.error_code, 0, "AddOffsetsToTxn of {}", self.group);
        }
        let request = identity.commit_offset(&self.group, &self.input, offset);
        let response =
            link.ask(&request, identity.version.commit_offsets(), |r| r.topics[0].partitions[0].error_code)?;
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "TxnOffsetCommit of {}", self.group);
        Ok(())
    }

    fn finish(&mut self, link: &mut Link<'_>, next: i64) -> Step<()> {
        if self.rng.one_in(12) {
            self.producer.abandon();
            return Ok(());
        }
        let commit = !self.rng.one_in(3);
        let before = self.position.take();
        self.producer.end(link, commit)?;
        self.position = if commit { Some(next) } else { before };
        Ok(())
    }
}

impl Actor for Loop {
    fn work(&mut self, link: &mut Link<'_>, done: &AtomicU64) -> Step<()> {
        // A decision that was on its way is asked for once more, sometimes.
        if let (Some(commit), true) = (self.producer.ending, self.rng.one_in(2)) {
            self.producer.end(link, commit)?;
            self.position = None;
        }
        // What was decided before holds; what was open is nobody's offset.
        if self.producer.ending.is_some() {
            self.position = None;
        }
        self.producer.abandon();
        loop {
            self.transaction(link)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn settle(&mut self, link: &mut Link<'_>) -> Step<()> {
        self.producer.abandon();
        self.producer.init(link)
    }
}

/// Idempotent batches without transactions, each sent until it is acknowledged, over any number of crashes.
pub struct Feeder {
    producer: Producer,
    place: Place,
    rng: Rng,
}

impl Feeder {
    pub fn new(id: u32, place: Place, seed: u64) -> Self {
        Self { producer: Producer::new(id, Identity::plain()), place, rng: Rng(seed) }
    }
}

impl Actor for Feeder {
    fn work(&mut self, link: &mut Link<'_>, done: &AtomicU64) -> Step<()> {
        loop {
            self.settle(link)?;
            let txn = self.producer.begin(link, true);
            self.producer.add(link, txn, &self.place.clone(), 1 + self.rng.below(8), None);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn settle(&mut self, link: &mut Link<'_>) -> Step<()> {
        self.producer.init(link)?;
        self.producer.deliver(link)
    }
}

/// Follows all places in read_committed from where it stands.
pub struct Reader {
    id: u32,
    positions: BTreeMap<Place, i64>,
}

impl Reader {
    pub fn new(id: u32, places: &[Place]) -> Self {
        Self { id, positions: places.iter().map(|place| (place.clone(), 0)).collect() }
    }

    /// One fetch of each place; whether any went on.
    fn round(&mut self, link: &mut Link<'_>) -> Step<bool> {
        let mut went_on = false;
        for (place, position) in &mut self.positions {
            let (records, next) = link.read(place, *position, 1)?;
            let mut history = link.stage.history.lock();
            for (offset, id) in records {
                history.read(self.id, place, offset, id);
            }
            went_on |= next > *position;
            *position = next;
        }
        Ok(went_on)
    }
}

impl Actor for Reader {
    fn work(&mut self, link: &mut Link<'_>, done: &AtomicU64) -> Step<()> {
        loop {
            self.round(link)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// To the end, which no writer moves any more.
    fn settle(&mut self, link: &mut Link<'_>) -> Step<()> {
        while self.round(link)? {}
        Ok(())
    }
}
