//! The loop that the crash tests share: start, judge what is there, load, crash at a seeded moment, again. What a crash is
//! (a kill, a power cut) is the [`Machine`]'s business.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::Broker;
use crate::conn::Conn;
use crate::ledger::{Existence, Rng};
use crate::load::{Committer, Deleter, Place, Reader, World, Writer, committed, drive, show};
use crate::requests;

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

    /// SIGTERM and a clean end.
    fn stop(&mut self);
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

const TOPICS: [(&str, i32); 3] = [("crash-a", 3), ("crash-b", 2), ("crash-trimmed", 1)];

struct Actors {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    committers: Vec<Committer>,
    deleter: Deleter,
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
        }
    }
}

/// Runs a whole campaign; panics at the first broken promise.
pub fn run(machine: &mut impl Machine, campaign: Campaign) -> Report {
    let mut rng = Rng(campaign.seed);
    let places: Vec<Place> =
        TOPICS.iter().flat_map(|(topic, n)| (0..*n).map(|index| ((*topic).to_owned(), index))).collect();
    let world = World::new(places.iter().cloned());
    let mut actors = Actors::new(&places, &campaign, &mut rng);
    let mut report = Report::default();

    machine.start();
    let mut conn = Conn::connect(machine.port()).expect("a connection");
    for (topic, partitions) in TOPICS {
        let small = [("internal.segment.bytes", "131072"), ("file.delete.delay.ms", "100"), ("segment.ms", "3600000")];
        requests::new_topic(&mut conn, topic, partitions, &small);
    }
    for cycle in 0..campaign.cycles {
        // Standard error: a campaign that hangs must say where.
        if cycle % 10 == 0 {
            eprintln!("cycle {cycle} of {} (seed {}): {} records", campaign.cycles, campaign.seed, records(&world));
        }
        check(&world, machine.port(), cycle % 20 == 0);
        load(machine, &world, &mut actors, &campaign, &mut rng);
        report.crashes += 1;
        if rng.one_in(20) {
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
    check(&world, machine.port(), true);
    machine.stop();
    machine.start();
    check(&world, machine.port(), true);
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
    let port = machine.port();
    let enough = world.acknowledged_batches.load(Ordering::Relaxed) + rng.below(400);
    let until = Instant::now() + Duration::from_micros(1 + rng.below(campaign.load.as_micros() as u64));
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
        let deleter = &mut actors.deleter;
        scope.spawn(move || drive(world, port, |conn| deleter.run(world, conn)));
        while Instant::now() < until && world.acknowledged_batches.load(Ordering::Relaxed) < enough {
            std::thread::sleep(Duration::from_micros(200));
        }
        machine.assert_alive();
        world.stop.store(true, Ordering::SeqCst);
        machine.crash();
    });
}

/// Judges all that the broker serves now.
fn check(world: &World, port: u16, all: bool) {
    let mut conn = Conn::connect(port).expect("a connection");
    for place in world.partitions.keys() {
        let (code, log_start, _) = requests::list_offset(&mut conn, &place.0, place.1, -2);
        assert_eq!(code, 0, "ListOffsets of {}", show(place));
        let from = world.partition(place).check_from(all, log_start);
        let records = requests::read_all(&mut conn, &place.0, place.1, from);
        world.partition(place).check(&show(place), log_start, from, &records);
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
