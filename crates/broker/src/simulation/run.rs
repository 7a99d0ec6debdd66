//! One run: a broker, its disk, its clients, and the scheduler that lets one thing after the other happen as the seed says.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use taccola_base::config::{ServerConfig, Settings};
use taccola_log::{ReadError, disk_watch};
use taccola_net::server::{Call, ConnectionInfo, Reply, Service};
use taccola_wire::batch::{ControlRecord, ControlType, RecordIter, batches};
use taccola_wire::codec::Request;
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::{CreateTopicsRequest, FindCoordinatorRequest, OffsetFetchRequest};

use super::clients::share::ShareLedger;
use super::clients::{self, Client, Ctx, decode, encode};
use super::disk::Disk;
use super::ledger::{Kind, Ledger, Place, Read, ReadAll};
use super::network::{Answer, Network};
use super::rng::Rng;
use super::world;
use crate::broker::Broker;
use crate::dispatch::Dispatcher;
use crate::partition::{FetchIsolation, Partition, ReadRejected};
use crate::runtime::workers::Attendant;
use crate::runtime::{cleaner, housekeeping, log_dirs};
use crate::startup;

/// How long a request may take when nothing else goes on, in rounds.
const ROUNDS_MAX: u32 = 5_000;

/// Below the disk's root. The first has the journal and the metadata, the other may fail alone.
const LOG_DIRS: [&str; 2] = ["one", "two"];

/// What happened, line by line.
pub(super) type Trace = Rc<RefCell<Vec<String>>>;

pub(super) struct Run {
    rng: Rng,
    disk: Rc<Disk>,
    dir: std::path::PathBuf,
    clients: Vec<Box<dyn Client>>,
    ledger: Ledger,
    network: Network,
    trace: Trace,
    steps: u64,
    step: u64,
    boot: u32,
    topics_made: bool,
    /// A sync was made to fail: the broker may end itself, or do without a log directory.
    sync_fails: bool,
    /// The disk is full.
    full: bool,
    /// Some of the disk could not be read in this life of the broker.
    bad: bool,
    /// The trace is printed as it is made: what hangs never gets to its end.
    live: bool,
}

/// How a broker's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    PowerCut,
    Clean,
    /// All steps are done.
    Over,
}

impl Run {
    pub(super) fn new(seed: u64, steps: u64, root: &std::path::Path, trace: Trace) -> Self {
        let dir = root.join("disk");
        let disk = Rc::new(Disk::new(&dir, seed));
        LOG_DIRS.iter().for_each(|name| drop(disk.folder(name)));
        Self {
            rng: Rng(seed),
            disk,
            dir,
            clients: super::workload::clients(&mut Rng(seed ^ 0xC11E)),
            ledger: Ledger { kinds: super::workload::kinds(), ..Ledger::default() },
            network: Network::default(),
            trace,
            steps,
            step: 0,
            boot: 0,
            topics_made: false,
            sync_fails: false,
            full: false,
            bad: false,
            live: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    fn say(&self, what: &str) {
        // The folder's name is not the seed's.
        let what = what.replace(self.dir.to_str().unwrap_or_default(), "");
        let line = format!("{:>5} {:>8} {what}", self.step, self.disk.operations());
        if self.live {
            eprintln!("{line}");
        }
        self.trace.borrow_mut().push(line);
    }

    /// Lives of the broker, one after the other, until all steps are done and everything was judged.
    pub(super) fn run(mut self) {
        disk_watch::install(Some(self.disk.clone()));
        loop {
            self.boot += 1;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = runtime.unwrap();
            let end = runtime.block_on(self.life());
            self.disk.stop();
            for answer in self.network.cut() {
                self.hear(answer);
            }
            // With the runtime go its tasks and what they hold of the broker.
            drop(runtime);
            world::take_storage_failure();
            (self.sync_fails, self.full, self.bad) = (false, false, false);
            self.ledger.shares.values_mut().for_each(ShareLedger::restarted);
            match end {
                End::Over => return,
                End::PowerCut => {
                    let loss = self.disk.cut_power();
                    self.ledger.power_cut();
                    self.say(&format!("the power is cut: {loss}"));
                }
                End::Killed | End::Clean => self.say(&format!("{end:?}")),
            }
            self.disk.revive();
        }
    }

    async fn life(&mut self) -> End {
        if self.rng.one_in(6) && self.boot > 1 {
            self.disk.die_in(self.rng.below(60));
        }
        let log_dirs = LOG_DIRS.map(|name| self.dir.join(name).to_str().unwrap().to_owned()).join(",");
        let settings: Settings =
            super::workload::SETTINGS.iter().copied().chain([("log.dirs", log_dirs.as_str())]).collect();
        let config = ServerConfig::load(&settings).unwrap_or_else(|errors| panic!("{errors}")).config;
        let broker = match startup::open(config, settings, &[], 1_000).await {
            Ok((broker, summary)) => {
                self.say(&format!("start {}: replayed {}", self.boot, summary.replayed_batches));
                broker
            }
            Err(error) if self.disk.is_dead() => {
                self.say(&format!("start {} ends: {error}", self.boot));
                return self.violent_end();
            }
            Err(error) => panic!("the broker does not start: {error}"),
        };
        let dispatcher = Dispatcher::new(broker.clone(), Attendant::absent());
        cleaner::load_checkpoints(&broker);
        tokio::spawn(log_dirs::run(broker.clone()));
        if let Some(end) = self.begin(&dispatcher).await {
            return end;
        }
        self.judge(&dispatcher, false).await;
        while self.step < self.steps {
            self.step += 1;
            if let Some(end) = self.one_step(&dispatcher).await {
                return end;
            }
        }
        self.finish(&dispatcher).await
    }

    /// Loads the coordinators; makes the topics if nobody has.
    async fn begin(&mut self, dispatcher: &Dispatcher) -> Option<End> {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        if !self.topics_made {
            let request =
                CreateTopicsRequest { topics: super::workload::topics(), timeout_ms: 10_000, ..Default::default() };
            let response = self.ask(dispatcher, &request, 7).await;
            match response {
                Some(response) if response.topics.iter().all(|topic| [0, 36].contains(&topic.error_code)) => {
                    let ids = response.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
                    self.ledger.topic_ids.extend(ids.filter(|(_, id)| !id.is_zero()));
                    self.topics_made = true;
                }
                response => {
                    assert!(self.disk.is_dead(), "CreateTopics: {response:?}");
                }
            }
        }
        for (key_type, key) in [(0, "g0"), (1, "t0")] {
            let request =
                FindCoordinatorRequest { key_type, coordinator_keys: vec![key.to_owned()], ..Default::default() };
            let Some(response) = self.ask(dispatcher, &request, 4).await else { return Some(self.violent_end()) };
            let found = &response.coordinators[0];
            assert!(found.error_code == 0 || self.disk.is_dead(), "FindCoordinator: {found:?}");
        }
        self.disk.is_dead().then(|| self.violent_end())
    }

    fn violent_end(&mut self) -> End {
        if self.rng.one_in(2) { End::Killed } else { End::PowerCut }
    }

    /// Something happens. `Some`: the broker's life is over.
    async fn one_step(&mut self, dispatcher: &Dispatcher) -> Option<End> {
        match self.rng.below(100) {
            0..38 => self.a_client_asks(),
            38..80 => self.something_happens(dispatcher),
            80..89 => tokio::task::yield_now().await,
            89..94 => {
                let ms = [1, 1, 10, 100, 1_000, 20_000][self.rng.index(6)];
                self.advance(ms).await;
                self.say(&format!("{ms} ms pass"));
            }
            94..97 => self.background(&dispatcher.broker).await,
            97 => {
                let busy = self.network.busy();
                if let Some(index) = (!busy.is_empty()).then(|| busy[self.rng.index(busy.len())]) {
                    let late = self.clients[self.network.client(index)].late();
                    let answers = self.network.break_off(dispatcher, index, late, &mut self.rng);
                    self.say(&format!("a connection breaks, {} unanswered", answers.len()));
                    answers.into_iter().for_each(|answer| self.hear(answer));
                }
            }
            _ => {
                if let Some(end) = self.trouble(dispatcher).await {
                    return Some(end);
                }
            }
        }
        self.network.tidy(dispatcher);
        if self.sync_fails && self.rng.one_in(30) {
            return Some(self.violent_end());
        }
        if self.disk.is_dead() {
            self.say("the process died");
            return Some(self.violent_end());
        }
        if let Some(reason) = world::take_storage_failure() {
            // A log directory that cannot be read or synced, and no room to do without it.
            assert!(self.sync_fails || (self.full && self.bad), "the broker ends itself: {reason}");
            self.say(&format!("the broker ends itself: {reason}"));
            return Some(self.violent_end());
        }
        None
    }

    async fn trouble(&mut self, dispatcher: &Dispatcher) -> Option<End> {
        match self.rng.below(12) {
            0 => {
                self.say("killed");
                return Some(End::Killed);
            }
            1 => return Some(End::PowerCut),
            2 => {
                let operations = self.rng.below(40);
                self.disk.die_in(operations);
                self.say(&format!("dies in {operations} operations"));
            }
            3 => {
                let syncs = 1 + self.rng.below(6);
                self.disk.fail_sync_in(syncs);
                self.sync_fails = true;
                self.say(&format!("the sync after {syncs} fails"));
            }
            4 => {
                for answer in self.network.cut() {
                    self.hear(answer);
                }
                let closed = startup::close(&dispatcher.broker).await;
                // A log that went offline stays so.
                let failed = self.disk.is_dead() || self.sync_fails || self.full || self.bad;
                assert!(closed.is_ok() || failed, "a clean stop: {closed:?}");
                if self.disk.is_dead() {
                    return Some(self.violent_end());
                }
                return Some(if self.rng.one_in(2) { End::Clean } else { End::PowerCut });
            }
            5 | 6 => {
                self.full = !self.full;
                self.disk.set_full(self.full);
                self.say(if self.full { "the disk is full" } else { "the disk has room again" });
            }
            7 => {
                self.bad = true;
                if let Some(what) = self.disk.go_bad() {
                    self.say(&format!("cannot be read any more: {what}"));
                }
            }
            8 => {
                self.disk.heal();
                self.say("can all be read again");
            }
            _ => {}
        }
        None
    }

    fn a_client_asks(&mut self) {
        let index = self.rng.index(self.clients.len());
        let mut said = String::new();
        let mut ctx =
            Ctx { rng: &mut self.rng, ledger: &mut self.ledger, boot: self.boot, bad: self.bad, said: &mut said };
        let client = &mut self.clients[index];
        if let Some(ask) = client.ask(&mut ctx) {
            let name = client.name();
            self.say(&format!("{name} asks: {said}"));
            self.network.send(index, ask);
        }
    }

    fn something_happens(&mut self, dispatcher: &Dispatcher) {
        let events = self.network.events(dispatcher);
        if events.is_empty() {
            return;
        }
        let event = events[self.rng.index(events.len())];
        let answers = self.network.happen(dispatcher, event);
        if self.disk.is_dead() {
            // Nobody heard what a dying process said.
            for answer in answers {
                self.hear(Answer { frame: None, ..answer });
            }
            return;
        }
        self.say(&format!("{event:?}"));
        answers.into_iter().for_each(|answer| self.hear(answer));
    }

    fn hear(&mut self, answer: Answer) {
        let mut said = String::new();
        let mut ctx =
            Ctx { rng: &mut self.rng, ledger: &mut self.ledger, boot: self.boot, bad: self.bad, said: &mut said };
        let client = &mut self.clients[answer.client];
        match answer.frame {
            Some(frame) => client.answered(&mut ctx, answer.tag, frame),
            None => client.lost(&mut ctx, answer.tag),
        }
        if !said.is_empty() {
            let name = client.name();
            self.say(&format!("{name} hears: {said}"));
        }
    }

    async fn advance(&mut self, ms: u64) {
        world::advance(ms);
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    /// One round of what the broker does by itself.
    async fn background(&mut self, broker: &Arc<Broker>) {
        type Round = fn(&Broker);
        let rounds: [(&str, Round); 7] = [
            ("retention", housekeeping::apply_retention),
            ("checkpoint", housekeeping::checkpoint),
            ("high watermarks", housekeeping::checkpoint_high_watermarks),
            ("log starts", |broker| {
                housekeeping::write_log_start_offsets(broker);
            }),
            ("flush by time", housekeeping::flush_by_time),
            ("producers expire", housekeeping::expire_producers),
            ("cleaner", |broker| {
                let rounds = (0..200).take_while(|_| cleaner::clean_dirtiest(broker, (1, 2))).count();
                assert!(rounds < 200, "the cleaner comes to no end");
            }),
        ];
        match self.rng.index(rounds.len() + 2) {
            7 => {
                self.say("a metadata snapshot");
                if let Ok(mut metadata) = broker.metadata.try_lock() {
                    metadata.snapshot();
                }
            }
            8 => {
                self.say("a journal checkpoint");
                if let Err(reason) = broker.journal.checkpoint() {
                    broker.journal.fail(&reason);
                }
            }
            round => {
                let (name, work) = rounds[round];
                self.say(name);
                let before = retained(broker);
                work(broker);
                check_retention_by_size(broker, before);
            }
        }
    }

    /// Sends one request outside of the schedule and waits for its answer; `None` when the broker died over it.
    async fn ask<R: Request>(&mut self, dispatcher: &Dispatcher, request: &R, version: i16) -> Option<R::Response> {
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 9_999));
        let info = ConnectionInfo { id: u64::MAX, listener: "PLAINTEXT".into(), peer, local: peer };
        let mut future = match dispatcher.call(&Arc::new(info), encode(request, version)) {
            Call::Done(reply) => return self.reply::<R>(reply, version),
            Call::Pending(future) | Call::Exclusive(future) => future,
        };
        for round in 0..ROUNDS_MAX {
            if let Poll::Ready(reply) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return self.reply::<R>(reply, version);
            }
            tokio::task::yield_now().await;
            if self.disk.is_dead() {
                return None;
            }
            if round % 50 == 49 {
                self.advance(10).await;
            }
        }
        panic!("{:?} is never answered", R::KEY);
    }

    fn reply<R: Request>(&self, reply: Reply, version: i16) -> Option<R::Response> {
        if self.disk.is_dead() {
            return None;
        }
        let Reply::Frame(frame) = reply else { panic!("{:?} is not answered", R::KEY) };
        let whole: Vec<u8> = frame.0.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        Some(decode::<R>(version, bytes::Bytes::from(whole).slice(4..)))
    }

    /// Brings everything to its end, then judges it all.
    async fn finish(&mut self, dispatcher: &Dispatcher) -> End {
        if self.sync_fails || self.bad {
            // A log may be offline, or lack what could not be read: only another start is sure to bring everything to its end.
            return self.violent_end();
        }
        self.disk.revive();
        self.full = false;
        self.say("finish");
        for _ in 0..ROUNDS_MAX {
            let open = self.clients.iter_mut().map(|client| client.finish()).filter(|done| !done).count();
            if open == 0 && self.network.busy().is_empty() {
                break;
            }
            self.a_client_asks();
            for _ in 0..4 {
                self.something_happens(dispatcher);
                tokio::task::yield_now().await;
            }
            self.advance(5).await;
        }
        for client in &mut self.clients {
            assert!(client.finish(), "{} does not come to its end", client.name());
        }
        assert!(self.network.busy().is_empty(), "requests are never answered: {:?}", self.network.busy());
        for _ in 0..100 {
            tokio::task::yield_now().await;
            self.advance(100).await;
        }
        self.judge(dispatcher, true).await;
        self.check_retention_ends(dispatcher).await;
        self.say("all is well");
        End::Over
    }

    async fn judge(&mut self, dispatcher: &Dispatcher, settled: bool) {
        for partition in dispatcher.broker.partitions.all() {
            let place = (partition.topic_partition.topic.to_string(), partition.topic_partition.partition);
            if place.0.starts_with("__") {
                self.say(&format!("{}-{}: {:?} {}", place.0, place.1, partition.offsets(), contents(&partition)));
            }
            if self.ledger.kinds.contains_key(&place.0) {
                let read = read_all(&partition, self.ledger.kinds[&place.0]);
                self.say(&format!(
                    "{}-{}: {}..{} stable {}{}",
                    place.0,
                    place.1,
                    read.log_start,
                    read.high_watermark,
                    read.last_stable,
                    contents(&partition)
                ));
                self.ledger.check(&place, &read, settled);
            }
        }
        for index in 0..self.clients.len() {
            for (group, topic, partition) in self.clients[index].offsets() {
                let Some(offset) = self.committed_offset(dispatcher, &group, (topic, partition)).await else { return };
                self.say(&format!("{group}: {offset}"));
                let mut said = String::new();
                let mut ctx = Ctx {
                    rng: &mut self.rng,
                    ledger: &mut self.ledger,
                    boot: self.boot,
                    bad: self.bad,
                    said: &mut said,
                };
                self.clients[index].committed(&mut ctx, &group, offset, settled);
            }
        }
    }

    /// Retention deletes what it has to in the end.
    async fn check_retention_ends(&mut self, dispatcher: &Dispatcher) {
        let broker = &dispatcher.broker;
        // Two looks must agree that time has passed.
        for _ in 0..3 {
            self.advance(super::workload::RETENTION_MS as u64).await;
            housekeeping::apply_retention(broker);
        }
        if let Some((_, bytes)) = retained(broker) {
            let most = super::workload::RETENTION_BYTES + super::workload::TINY_BYTES;
            assert!(bytes <= most, "retention by size leaves {bytes} bytes");
        }
        let partition = broker.partitions.get(super::workload::BY_TIME, 0).unwrap();
        let (high_watermark, _, log_start) = partition.offsets().unwrap();
        assert_eq!(log_start, high_watermark, "retention by time leaves old records");
    }

    async fn committed_offset(&mut self, dispatcher: &Dispatcher, group: &str, place: Place) -> Option<i64> {
        let topic = OffsetFetchRequestTopics { name: place.0, partition_indexes: vec![place.1], ..Default::default() };
        let group =
            OffsetFetchRequestGroup { group_id: group.to_owned(), topics: Some(vec![topic]), ..Default::default() };
        let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let mut last = 0;
        for _ in 0..100 {
            let response = self.ask(dispatcher, &request, 8).await?;
            let group = &response.groups[0];
            last = group.error_code;
            if group.error_code == 0 {
                let partition = &group.topics[0].partitions[0];
                assert_eq!(partition.error_code, 0, "OffsetFetch");
                return Some(partition.committed_offset);
            }
            assert!(clients::is_retriable(group.error_code), "OffsetFetch answers {}", group.error_code);
            self.advance(10).await;
        }
        panic!("the offsets are never loaded: {last}");
    }
}

/// Log start offset and bytes of the partition with retention by size, where it can be used.
fn retained(broker: &Broker) -> Option<(i64, u64)> {
    let partition = broker.partitions.get(super::workload::BY_SIZE, 0)?;
    partition.with_log(|log| (log.log_start_offset(), log.size_bytes()))
}

/// Retention leaves as many bytes as it was told to.
fn check_retention_by_size(broker: &Broker, before: Option<(i64, u64)>) {
    if let (Some((before, _)), Some((start, bytes))) = (before, retained(broker)) {
        let enough = start == before || bytes >= super::workload::RETENTION_BYTES;
        assert!(enough, "retention by size leaves {bytes} bytes from {start} on, it began at {before}");
    }
}

/// The batches of a partition: their offsets, how many records, and whose.
fn contents(partition: &Partition) -> String {
    let (_, _, mut offset) = partition.offsets().unwrap();
    let mut shown = String::new();
    while let Ok(read) = partition.read(offset, 1 << 20, true, FetchIsolation::LogEnd) {
        let before = offset;
        for batch in batches(&read.records).map_while(Result::ok) {
            let header = batch.header;
            shown.push_str(&format!(
                " {}-{}:{}x{:08x}",
                header.base_offset,
                header.last_offset(),
                header.records_count,
                header.crc
            ));
            offset = header.next_offset();
        }
        if offset == before {
            break;
        }
    }
    shown
}

/// A whole partition with what read_committed shows of it.
fn read_all(partition: &Arc<Partition>, kind: Kind) -> ReadAll {
    let (high_watermark, last_stable, log_start) = partition.offsets().unwrap();
    let first = partition.read(log_start, 1, true, FetchIsolation::TxnCommitted);
    let mut to_come = first.map(|read| read.aborted_txns).unwrap_or_default();
    to_come.sort_by_key(|aborted| aborted.first_offset);
    let mut to_come = to_come.into_iter().peekable();
    let mut aborting = std::collections::BTreeSet::new();
    let mut records = Vec::new();
    let mut offset = log_start;
    while offset < high_watermark {
        let read = match partition.read(offset, 1 << 20, true, FetchIsolation::HighWatermark) {
            // What was never promised to survive a power cut may leave a hole.
            Err(ReadRejected::Log(ReadError::CorruptRecord { next_valid, .. })) if kind == Kind::PageCache => {
                offset = next_valid;
                continue;
            }
            read => read.unwrap_or_else(|error| panic!("{}@{offset}: {error}", partition.topic_partition)),
        };
        let before = offset;
        for batch in batches(&read.records) {
            let batch = batch.unwrap();
            let header = &batch.header;
            while let Some(aborted) = to_come.next_if(|aborted| aborted.first_offset <= header.last_offset()) {
                aborting.insert(aborted.producer_id);
            }
            offset = header.next_offset();
            let hidden = header.is_transactional() && aborting.contains(&header.producer_id);
            for record in RecordIter::new(&read.records.slice_ref(batch.bytes)).unwrap() {
                let record = record.unwrap();
                if header.is_control() {
                    if ControlRecord::decode(&record).unwrap().control_type() == ControlType::Abort {
                        aborting.remove(&header.producer_id);
                    }
                    continue;
                }
                if record.offset < log_start {
                    continue;
                }
                let visible = !hidden && record.offset < last_stable;
                let value = record.value.unwrap_or_default();
                records.push(Read { offset: record.offset, key: record.key, value, visible });
            }
        }
        if offset == before {
            break;
        }
    }
    ReadAll { records, log_start, high_watermark, last_stable }
}
