//! The loop that the crash tests share: start, judge what is there, load, crash at a seeded moment, again. What a crash is
//! (a kill, a power cut) and what else goes wrong meanwhile is the [`Machine`]'s business. Segments are small, so that they
//! roll, are compacted and are deleted by retention in every cycle.

use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::compacted::{self, Keeper};
use crate::conn::Conn;
use crate::ledger::{Existence, Rng};
use crate::load::{Committer, Deleter, Place, Reader, World, Writer, committed, drive, show};
use crate::requests::{self, Log};
use crate::{Broker, binary};

/// A broker that can be started and crashed.
pub trait Machine {
    fn port(&self) -> u16;

    /// Starts and waits until it serves.
    fn start(&mut self);

    /// Starts, and crashes after `delay`, ready or not.
    fn start_and_crash(&mut self, delay: Duration);

    /// Panics if the broker has ended by itself.
    fn assert_alive(&mut self);

    fn crash(&mut self);

    /// SIGTERM and a clean end; what it leaves is [`verify`]ed.
    fn stop(&mut self);

    /// Whether its disk can fail.
    fn has_misfortunes(&self) -> bool {
        false
    }

    /// From now on, until the crash.
    fn misfortune(&mut self, _misfortune: Misfortune, _rng: &mut Rng) {}
}

/// What may go wrong with a disk under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfortune {
    /// There is no more room.
    Full,
    /// Some reads fail.
    Unreadable,
    /// Syncs fail: the broker ends.
    SyncFails,
}

/// What a clean stop leaves has nothing wrong with it, derived files included.
pub fn verify(data: &Path) {
    let output = Command::new(binary()).args(["log", "verify"]).arg(data).output().expect("the binary runs");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "log verify after a clean stop: {}\n{said}\n{errors}", output.status);
}

/// Says on a panic how far a campaign came.
pub struct Progress {
    pub cycle: u64,
    pub seed: u64,
}

impl Drop for Progress {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("campaign stopped in cycle {} (seed {})", self.cycle, self.seed);
        }
    }
}

/// A broker on an ordinary file system, which survives the process.
pub struct Process(pub Broker);

impl Machine for Process {
    fn port(&self) -> u16 {
        self.0.port
    }

    fn start(&mut self) {
        self.0.launch();
    }

    fn start_and_crash(&mut self, delay: Duration) {
        self.0.spawn();
        std::thread::sleep(delay);
        self.0.kill();
    }

    fn assert_alive(&mut self) {
        self.0.assert_alive();
    }

    fn crash(&mut self) {
        self.0.kill();
    }

    fn stop(&mut self) {
        self.0.stop();
        verify(&self.0.data_dir());
    }
}

/// What is run, all of it following from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    pub cycles: u64,
    pub seed: u64,
    /// Longest load of a cycle.
    pub load: Duration,
    /// acks=1 is promised nothing in a power cut.
    pub acks_1: bool,
}

/// What a campaign has to tell.
#[derive(Debug, Default)]
pub struct Report {
    pub cycles: u64,
    pub crashes: u64,
    pub records: usize,
    pub batches: u64,
    pub commits: usize,
    pub topics: usize,
    recoveries: Vec<Duration>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.recoveries.clone();
        sorted.sort();
        let at = |part: usize| sorted.get(sorted.len() * part / 100).or(sorted.last()).copied().unwrap_or_default();
        let (median, p99, max) = (at(50), at(99), sorted.last().copied().unwrap_or_default());
        write!(
            f,
            "{} cycles, {} crashes, {} records known, {} batches acknowledged, {} committed offsets, {} topics made; \
             ready after a crash: median {median:.0?}, p99 {p99:.0?}, max {max:.0?}",
            self.cycles, self.crashes, self.records, self.batches, self.commits, self.topics
        )
    }
}

/// `name` from the environment, or what is given.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// The broker's settings for a campaign: what the coordinators and the cleaner do happens in every cycle.
pub const PROPERTIES: [&str; 8] = [
    "taccola.journal.bytes=4194304",
    "offsets.topic.num.partitions=3",
    "offsets.topic.segment.bytes=1048576",
    "log.cleaner.backoff.ms=100",
    "log.cleaner.min.cleanable.ratio=0.1",
    "log.retention.check.interval.ms=200",
    "taccola.crash.loop.limit=0",
    "log.cleaner.dedupe.buffer.size=4194304",
];

const TOPICS: [(&str, i32); 4] = [("crash-a", 3), ("crash-b", 2), ("crash-trimmed", 1), (RETAINED, 1)];
/// The topic that retention by size bounds.
const RETAINED: &str = "crash-retained";
const RETENTION_BYTES: &str = "400000";
/// Of it so much stays at least, what a power cut takes off its end counted.
const RETAINED_BYTES_MIN: usize = 150_000;

struct Actors {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    committers: Vec<Committer>,
    deleter: Deleter,
    keeper: Keeper,
}

impl Actors {
    fn new(places: &[Place], campaign: &Campaign, rng: &mut Rng) -> Self {
        let mut writers: Vec<Writer> =
            (0..3).map(|id| Writer::new(id, -1, true, &places[id as usize..], rng.next())).collect();
        writers.push(Writer::new(10, -1, false, places, rng.next()));
        writers.push(Writer::new(11, -1, false, &places[2..5], rng.next()));
        if campaign.acks_1 {
            writers.push(Writer::new(12, 1, false, &places[1..4], rng.next()));
        }
        // Who follows a log that retention shortens may be told that it is too late.
        let kept: Vec<Place> = places.iter().filter(|place| place.0 != RETAINED).cloned().collect();
        let places = &kept[..];
        let committers = vec![
            Committer::new("alone", false, places, rng.next()),
            Committer::new("member", true, places, rng.next()),
        ];
        let trimmed = places.iter().filter(|place| place.0 == "crash-trimmed").cloned().collect::<Vec<_>>();
        Self {
            writers,
            readers: (0..2).map(|_| Reader::new(places, rng.next())).collect(),
            committers,
            deleter: Deleter::new(&trimmed, rng.next()),
            keeper: Keeper::new(rng.next()),
        }
    }
}

/// Runs a whole campaign; panics at the first broken promise.
pub fn run(machine: &mut impl Machine, campaign: Campaign) -> Report {
    let mut rng = Rng(campaign.seed);
    let places: Vec<Place> =
        TOPICS.iter().flat_map(|(topic, n)| (0..*n).map(|index| ((*topic).to_owned(), index))).collect();
    let world = World::new(places.iter().cloned());
    world.partition(&(RETAINED.to_owned(), 0)).retained_bytes = Some(RETAINED_BYTES_MIN);
    let mut actors = Actors::new(&places, &campaign, &mut rng);
    let mut progress = Progress { cycle: 0, seed: campaign.seed };
    let mut report = Report::default();

    machine.start();
    let mut conn = Conn::connect(machine.port()).expect("a connection");
    for (topic, partitions) in TOPICS {
        let retention = if topic == RETAINED { RETENTION_BYTES } else { "-1" };
        let small = [
            ("internal.segment.bytes", "131072"),
            ("file.delete.delay.ms", "100"),
            ("segment.ms", "3600000"),
            ("retention.bytes", retention),
        ];
        requests::new_topic(&mut conn, topic, partitions, &small);
    }
    requests::new_topic(&mut conn, compacted::TOPIC, 1, &compacted::CONFIGS);
    for cycle in 0..campaign.cycles {
        // Standard error: a campaign that hangs must say where.
        if cycle % 10 == 0 {
            eprintln!("cycle {cycle} of {} (seed {}): {} records", campaign.cycles, campaign.seed, records(&world));
        }
        progress.cycle = cycle;
        check(&world, &mut actors.keeper, machine.port(), cycle % 20 == 0);
        load(machine, &world, &mut actors, &campaign, &mut rng);
        report.crashes += 1;
        if rng.one_in(8) {
            // A clean stop among the crashes: what it leaves must be as good a base.
            machine.start();
            machine.stop();
        }
        while rng.one_in(3) {
            machine.start_and_crash(Duration::from_micros(rng.below(150_000)));
            report.crashes += 1;
        }
        let started = Instant::now();
        machine.start();
        report.recoveries.push(started.elapsed());
        report.cycles += 1;
    }
    progress.cycle = campaign.cycles;
    check(&world, &mut actors.keeper, machine.port(), true);
    actors.keeper.settle(&mut Conn::connect(machine.port()).expect("a connection"));
    machine.stop();
    machine.start();
    check(&world, &mut actors.keeper, machine.port(), true);
    report.records = records(&world);
    report.batches = world.acknowledged_batches.load(Ordering::Relaxed);
    report.commits = world.commits.lock().unwrap_or_else(PoisonError::into_inner).len();
    report.topics = world.topics.lock().unwrap_or_else(PoisonError::into_inner).len();
    report
}

fn records(world: &World) -> usize {
    world.partitions.keys().map(|place| world.partition(place).records()).sum()
}

/// Everybody works until the crash, whose moment is a number of acknowledged batches, or a time if that comes first.
fn load(machine: &mut impl Machine, world: &World, actors: &mut Actors, campaign: &Campaign, rng: &mut Rng) {
    world.stop.store(false, Ordering::SeqCst);
    let misfortune = (machine.has_misfortunes() && rng.one_in(3)).then(|| match rng.below(3) {
        0 => Misfortune::Full,
        1 => Misfortune::Unreadable,
        _ => Misfortune::SyncFails,
    });
    let fragile = misfortune == Some(Misfortune::SyncFails);
    world.fragile.store(fragile, Ordering::SeqCst);
    let port = machine.port();
    let enough = world.acknowledged_batches.load(Ordering::Relaxed) + rng.below(400);
    let time = Duration::from_micros(1 + rng.below(campaign.load.as_micros() as u64));
    let (begun, until) = (Instant::now(), Instant::now() + time);
    let mut strikes = misfortune.map(|misfortune| (begun + time.mul_f64(rng.below(100) as f64 / 100.0), misfortune));
    std::thread::scope(|scope| {
        for writer in &mut actors.writers {
            scope.spawn(move || drive(world, port, |conn| writer.run(world, conn)));
        }
        for reader in &mut actors.readers {
            scope.spawn(move || drive(world, port, |conn| reader.run(world, conn)));
        }
        for committer in &mut actors.committers {
            scope.spawn(move || drive(world, port, |conn| committer.run(world, conn)));
        }
        let keeper = &mut actors.keeper;
        scope.spawn(move || drive(world, port, |conn| keeper.run(world, conn)));
        let deleter = &mut actors.deleter;
        scope.spawn(move || drive(world, port, |conn| deleter.run(world, conn)));
        while Instant::now() < until && world.acknowledged_batches.load(Ordering::Relaxed) < enough {
            if let Some((_, misfortune)) = strikes.take_if(|(at, _)| *at <= Instant::now()) {
                machine.misfortune(misfortune, rng);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        if !fragile {
            machine.assert_alive();
        }
        world.stop.store(true, Ordering::SeqCst);
        machine.crash();
    });
}

/// What is found by time and by leader epoch is what the records say, which were read from the log's start on.
fn check_lookups(conn: &mut Conn, place: &Place, log: &Log) -> Result<(), String> {
    let (topic, partition) = (place.0.as_str(), place.1);
    let step = (log.records.len() / 3).max(1);
    for record in log.records.iter().step_by(step).chain(log.records.last()) {
        let first = log.records.iter().find(|other| other.timestamp >= record.timestamp);
        let expected = first.map(|first| (0, first.offset, first.timestamp));
        let found = requests::list_offset(conn, topic, partition, record.timestamp);
        if Some(found) != expected {
            return Err(format!("{}: ListOffsets by time answers {found:?}, due is {expected:?}", show(place)));
        }
    }
    for (index, (epoch, _)) in log.epochs.iter().enumerate() {
        let end = log.epochs.get(index + 1).map_or(log.end, |(_, start)| *start);
        let found = requests::epoch_end(conn, topic, partition, *epoch);
        if found != (*epoch, end) {
            return Err(format!("{}: leader epoch {epoch} ends at {found:?}, due is {end}", show(place)));
        }
    }
    let first = log.epochs.first().map(|(epoch, _)| *epoch);
    let found = requests::leader_epoch_at_start(conn, topic, partition);
    if first.is_some_and(|first| first != found) {
        return Err(format!("{}: begins with leader epoch {found}, due is {first:?}", show(place)));
    }
    Ok(())
}

/// Where a log starts and what it holds from some offset on. Retention may move the start meanwhile: then once more.
fn look(conn: &mut Conn, place: &Place, from: impl Fn(i64) -> i64) -> (i64, i64, Log) {
    loop {
        let (code, log_start, _) = requests::list_offset(conn, &place.0, place.1, -2);
        assert_eq!(code, 0, "ListOffsets of {}", show(place));
        let from = from(log_start);
        let seen = requests::read_log(conn, &place.0, place.1, from).and_then(|log| {
            if from == log_start {
                check_lookups(conn, place, &log)?;
            }
            Ok(log)
        });
        if requests::list_offset(conn, &place.0, place.1, -2).1 == log_start {
            return (log_start, from, seen.unwrap_or_else(|error| panic!("{error}")));
        }
    }
}

/// Judges all that the broker serves now.
fn check(world: &World, keeper: &mut Keeper, port: u16, all: bool) {
    let mut conn = Conn::connect(port).expect("a connection");
    let fresh = requests::init_producer(&mut conn).expect("an answer");
    if let Ok((id, _)) = fresh {
        world.producer_id(id);
    }
    keeper.check(&mut conn);
    for place in world.partitions.keys() {
        let from = |log_start| world.partition(place).check_from(all, log_start);
        let (log_start, from, log) = look(&mut conn, place, from);
        world.partition(place).check(&show(place), log_start, from, &log);
    }
    let mut commits = world.commits.lock().unwrap_or_else(PoisonError::into_inner);
    for group in ["alone", "member"] {
        let places: Vec<Place> = world.partitions.keys().cloned().collect();
        for (place, offset, metadata) in committed(&mut conn, group, &places) {
            let Some(promise) = commits.get_mut(&(group.to_owned(), place.clone())) else {
                assert_eq!(offset, -1, "{group} never committed {}", show(&place));
                continue;
            };
            promise.check(&format!("{group}'s offset of {}", show(&place)), offset);
            if offset >= 0 {
                assert_eq!(metadata, Some(format!("at {offset}")));
            }
        }
    }
    drop(commits);
    let there = requests::topics(&mut conn);
    let mut topics = world.topics.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, state) in topics.iter_mut() {
        let found = if there.contains(name) { Existence::Present } else { Existence::Absent };
        assert!(
            *state == Existence::Open || *state == found,
            "topic {name}: {found:?}, but {state:?} was acknowledged"
        );
        *state = found;
    }
}
