//! The loop of the crash tests of transactions: everybody works, the broker crashes at a seeded moment and comes back,
//! again and again, and what all of them learned is one [`History`], to be judged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use taccola_wire::api::ApiKey;

use crate::conn::Conn;
use crate::crash::{Machine, Progress};
use crate::history::{self, History, Id, parse};
use crate::ledger::Rng;
use crate::load::{Place, show};
use crate::proxy::{Fate, Proxy};
use crate::requests;
use crate::txn::{Version, committed_of, fetch_committed, offset_fetch};
use crate::txn_load::{Actor, Feeder, Link, Loop, PROGRESS_WITHIN, Reader, Stage, Writer};

/// All of it follows from the seed, but for what threads do.
#[derive(Clone, Copy, Debug)]
pub struct TxnCampaign {
    pub cycles: u64,
    pub seed: u64,
    /// Longest load of a cycle in which nobody is waited for.
    pub load: Duration,
}

/// What a campaign leaves to be judged.
pub struct Evidence {
    pub history: History,
    pub readers: Vec<u32>,
    /// Of each loop: its writer's number, its output, and its committed offset in the end.
    pub loops: Vec<(u32, Place, i64)>,
}

impl Evidence {
    /// Everything that is wrong with it: how often each anomaly was found, and the first of them.
    pub fn judge(&self) -> Vec<String> {
        let found = (1..=14).map(|anomaly| (anomaly, self.of(anomaly))).filter(|(_, found)| !found.is_empty());
        found
            .map(|(anomaly, found)| format!("{anomaly}, {} times: {:#?}", found.len(), &found[..found.len().min(8)]))
            .collect()
    }

    /// One anomaly's finds.
    pub fn of(&self, anomaly: u32) -> Vec<String> {
        let history = &self.history;
        let noted = history.complaints.iter().filter(|(n, _)| *n == anomaly).map(|(_, what)| what.clone());
        let found = match anomaly {
            1 => history::lost_writes(history),
            2 => history::unseen(history, &self.readers),
            4 => history::duplicates(history),
            5 => history::false_dedupes(history),
            6 => history::aborted_reads(history),
            7 => history::precommitted_reads(history),
            8 => history::cycles(history),
            9 => history::torn(history),
            10 => history::skips(history),
            11 => history::spurious_offsets(history),
            13 => {
                let of =
                    |(writer, output, done): &(u32, _, _)| history::consumed_twice(history, *writer, output, *done);
                self.loops.iter().flat_map(of).collect()
            }
            // 3, 12 and 14 are seen on the spot.
            _ => Vec::new(),
        };
        noted.chain(found).collect()
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut committed, mut asked, mut never) = (0, 0, 0);
        for txn in self.history.txns.iter().filter(|txn| !txn.plain) {
            match txn.outcome {
                history::Outcome::Committed(_) => committed += 1,
                history::Outcome::Asked(_) => asked += 1,
                history::Outcome::NeverCommitted => never += 1,
            }
        }
        let records: usize = self.history.all.values().map(Vec::len).sum();
        let seen = self.history.seen.len();
        write!(
            f,
            "{committed} transactions committed, {never} not, {asked} unknown; {records} records, {seen} seen live"
        )
    }
}

const TOPICS: [(&str, i32); 4] = [("txn-a", 2), ("txn-b", 1), ("in", 1), ("out", 2)];
const READERS: [u32; 2] = [50, 51];

fn place(topic: &str, partition: i32) -> Place {
    (topic.to_owned(), partition)
}

fn places() -> Vec<Place> {
    TOPICS.iter().flat_map(|(topic, n)| (0..*n).map(|partition| place(topic, partition))).collect()
}

/// Who works.
struct Member {
    actor: Box<dyn Actor>,
    through_proxy: bool,
    reader: bool,
}

type Cast = Vec<Member>;

fn cast(rng: &mut Rng) -> Cast {
    let writes = [place("txn-a", 0), place("txn-a", 1), place("txn-b", 0)];
    let looped =
        |id, version, rng: &mut Rng| Loop::new(id, version, place("in", 0), place("out", id as i32 - 10), rng.next());
    let member = |actor: Box<dyn Actor>, through_proxy| Member { actor, through_proxy, reader: false };
    let reader =
        |id, through_proxy| Member { actor: Box::new(Reader::new(id, &places())), through_proxy, reader: true };
    vec![
        member(Box::new(Writer::new(1, Version::One, &writes, rng.next())), true),
        member(Box::new(Writer::new(2, Version::Two, &writes, rng.next())), true),
        member(Box::new(Writer::new(3, Version::Two, &writes[1..], rng.next())), false),
        member(Box::new(looped(10, Version::One, rng)), false),
        member(Box::new(looped(11, Version::Two, rng)), true),
        member(Box::new(Feeder::new(20, place("in", 0), rng.next())), true),
        reader(READERS[0], false),
        reader(READERS[1], true),
    ]
}

/// Loses replies and requests, and holds some back: what comes late must be known or refused. Only a late EndTxn of
/// version 1 would end the next transaction, with Kafka as here: those are lost and not held.
fn unreliable(seed: u64) -> impl FnMut(ApiKey, i16) -> Fate + Send + 'static {
    let mut rng = Rng(seed);
    let end = Version::Two.end();
    move |key, version| match (rng.below(60), key) {
        (0..3, _) => Fate::LoseReply,
        (3, _) => Fate::LoseRequest,
        (4..7, ApiKey::Produce) => Fate::Hold,
        (4..9, ApiKey::EndTxn) if version >= end => Fate::Hold,
        _ => Fate::Pass,
    }
}

/// Runs a whole campaign.
pub fn run(machine: &mut impl Machine, campaign: TxnCampaign) -> Evidence {
    let mut rng = Rng(campaign.seed);
    let proxy = Proxy::start(machine.port(), unreliable(rng.next()));
    let stage =
        Stage { history: Default::default(), broker: machine.port(), proxy: proxy.port, stop: AtomicBool::new(false) };
    let mut cast = cast(&mut rng);
    machine.start();
    let mut conn = Conn::connect(machine.port()).expect("a connection");
    for (topic, partitions) in TOPICS {
        requests::new_topic(
            &mut conn,
            topic,
            partitions,
            &[("internal.segment.bytes", "65536"), ("file.delete.delay.ms", "100")],
        );
    }
    let mut progress = Progress { cycle: 0, seed: campaign.seed };
    for cycle in 0..campaign.cycles {
        progress.cycle = cycle;
        if cycle % 10 == 0 {
            eprintln!("cycle {cycle} of {} (seed {})", campaign.cycles, campaign.seed);
        }
        let patient = rng.one_in(2);
        let load = Duration::from_micros(1 + rng.below(campaign.load.as_micros() as u64));
        work(machine, &stage, &proxy, &mut cast, load, patient);
        while rng.one_in(4) {
            machine.start_and_crash(Duration::from_micros(rng.below(150_000)));
        }
        machine.start();
    }
    stage.stop.store(false, Ordering::SeqCst);
    proxy.rule(|_, _| Fate::Pass);
    // Everything that comes late comes before the end.
    while proxy.release().is_some() {}
    settle(&stage, &mut cast);
    let (all, committed) = finally(&stage, machine.port());
    let loops = [(10, place("out", 0)), (11, place("out", 1))];
    let loops = loops.map(|(id, output)| (id, output, committed_offset(&stage, &format!("loop-{id}"))));
    machine.stop();
    machine.start();
    let again = finally(&stage, machine.port());
    let mut history = stage.history.into_inner();
    if again != (all.clone(), committed.clone()) {
        history.complain(1, "after a clean restart there is something else".to_owned());
    }
    (history.all, history.committed) = (all, committed);
    Evidence { history, readers: READERS.to_vec(), loops: loops.to_vec() }
}

/// Everybody works until the crash. With patience, everybody gets something done first.
fn work(machine: &mut impl Machine, stage: &Stage, proxy: &Proxy, cast: &mut Cast, load: Duration, patient: bool) {
    stage.stop.store(false, Ordering::SeqCst);
    let done: Vec<AtomicU64> = cast.iter().map(|_| AtomicU64::new(0)).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (member, done) in cast.iter_mut().zip(&done) {
            scope.spawn(move || member.actor.work(&mut Link::new(stage, member.through_proxy), done));
        }
        loop {
            std::thread::sleep(Duration::from_millis(2));
            // One that is always held back is as good as two.
            if proxy.held() > 1 {
                let _ = proxy.release();
            }
            let waits = done.iter().filter(|done| done.load(Ordering::Relaxed) < 2).count();
            if began.elapsed() >= load && (!patient || waits == 0) {
                break;
            }
            if began.elapsed() > PROGRESS_WITHIN {
                stage.history.lock().complain(12, format!("{waits} did nothing for {PROGRESS_WITHIN:?}: {done:?}"));
                break;
            }
        }
        machine.assert_alive();
        stage.stop.store(true, Ordering::SeqCst);
        machine.crash();
    });
}

/// Nothing stays open, and readers go to the end.
fn settle(stage: &Stage, cast: &mut Cast) {
    for member in cast.iter_mut().filter(|member| !member.reader) {
        let _ = member.actor.settle(&mut Link::new(stage, false));
    }
    let mut conn = Conn::connect(stage.broker).expect("a connection");
    let until = Instant::now() + PROGRESS_WITHIN;
    for place in places() {
        loop {
            let request = fetch_committed(&place, 0);
            let data = conn.ask(&request, requests::FETCH).responses.remove(0).partitions.remove(0);
            if data.last_stable_offset == data.high_watermark {
                break;
            }
            if Instant::now() > until {
                let (stable, end) = (data.last_stable_offset, data.high_watermark);
                stage.history.lock().complain(12, format!("{}: stable to {stable} of {end}", show(&place)));
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for member in cast.iter_mut().filter(|member| member.reader) {
        let _ = member.actor.settle(&mut Link::new(stage, false));
    }
}

type Logs = BTreeMap<Place, Vec<(i64, Id)>>;

/// What is in the partitions, and what of it read_committed delivers.
fn finally(stage: &Stage, port: u16) -> (Logs, Logs) {
    let mut conn = Conn::connect(port).expect("a connection");
    let (mut all, mut committed) = (Logs::new(), Logs::new());
    for place in places() {
        let records = requests::read_all(&mut conn, &place.0, place.1, 0);
        all.insert(place.clone(), records.iter().map(|r| (r.offset, parse(r.value.as_deref()))).collect());
        let (mut next, mut delivered) = (0, Vec::new());
        loop {
            let request = fetch_committed(&place, next);
            let data = conn.ask(&request, requests::FETCH).responses.remove(0).partitions.remove(0);
            assert_eq!(data.error_code, 0, "{} at {next}", show(&place));
            let (records, end) = committed_of(&data, next);
            delivered.extend(records.iter().map(|r| (r.offset, parse(r.value.as_deref()))));
            if end == next {
                break;
            }
            next = end;
        }
        committed.insert(place, delivered);
    }
    let mut history = stage.history.lock();
    for (place, log) in &all {
        log.iter().for_each(|(offset, id)| history.note(place, *offset, *id));
    }
    (all, committed)
}

/// The group's offset of the input once nothing is open that could move it.
fn committed_offset(stage: &Stage, group: &str) -> i64 {
    let mut conn = Conn::connect(stage.broker).expect("a connection");
    let until = Instant::now() + PROGRESS_WITHIN;
    loop {
        let response = conn.ask(&offset_fetch(group, &place("in", 0), true), 8);
        let row = response.groups[0].topics.first().map(|topic| &topic.partitions[0]);
        match row.filter(|row| response.groups[0].error_code == 0 && row.error_code == 0) {
            Some(row) => return row.committed_offset.max(0),
            None if Instant::now() > until => {
                stage.history.lock().complain(12, format!("offsets of {group}: {response:?}"));
                return -1;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
