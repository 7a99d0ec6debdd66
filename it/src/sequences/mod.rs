//! Seeded sequences of requests, plausible and hostile, at two live brokers: Apache Kafka, and Taccola. After each request the
//! replies are compared, and the sequence of a difference is made as short as it can be.
//!
//! A step is an area and a seed. What it asks follows from its seed and from what the world looks like, which is the same on
//! both sides as long as their replies are; so steps can be left out, and the rest means what it meant. Ids that brokers
//! choose are kept for each side and named in the texts that are compared.

mod classic;
mod consumer;
mod data;
mod share;
mod shares;
mod streams;
mod topics;
mod transactions;
mod world;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ledger::Rng;

pub use self::world::World;

/// What both brokers are started with, beside [`crate::differential::PROPERTIES`].
pub const PROPERTIES: &[&str] = &[
    "group.min.session.timeout.ms=200",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=100",
    "log.retention.check.interval.ms=86400000",
];

/// What a step is about; its share of all steps depends on the seed's flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Classic,
    Consumer,
    Share,
    ShareData,
    Streams,
    Transactions,
    Data,
    Topics,
}

impl Area {
    const ALL: [Self; 8] = [
        Self::Classic,
        Self::Consumer,
        Self::Share,
        Self::ShareData,
        Self::Streams,
        Self::Transactions,
        Self::Data,
        Self::Topics,
    ];

    fn take(self, world: &mut World, rng: &mut Rng) {
        match self {
            Self::Classic => classic::step(world, rng),
            Self::Consumer => consumer::step(world, rng),
            Self::Share => share::step(world, rng),
            Self::ShareData => shares::step(world, rng),
            Self::Streams => streams::step(world, rng),
            Self::Transactions => transactions::step(world, rng),
            Self::Data => data::step(world, rng),
            Self::Topics => topics::step(world, rng),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub area: Area,
    pub seed: u64,
}

/// The steps of a seed. One area has the most of them, so that sequences go deep somewhere.
pub fn steps(seed: u64, count: usize, only: Option<&str>) -> Vec<Step> {
    let mut rng = Rng(seed);
    let areas: Vec<Area> = Area::ALL
        .into_iter()
        .filter(|area| only.is_none_or(|only| only.split(',').any(|o| format!("{area:?}") == o)))
        .collect();
    let pick = |rng: &mut Rng| areas[usize::try_from(rng.below(areas.len() as u64)).expect("few")];
    let deep = pick(&mut rng);
    let step = |rng: &mut Rng| {
        let area = if rng.below(5) < 3 { deep } else { pick(rng) };
        Step { area, seed: rng.next() }
    };
    (0..count).map(|_| step(&mut rng)).collect()
}

/// How long a side may be behind the other before it counts as silent.
const BEHIND: Duration = Duration::from_secs(3);
/// How long both are listened to for replies that wait for something.
const QUIET: Duration = Duration::from_millis(70);

/// A difference: what was asked until then, and what both said last.
#[derive(Debug)]
pub struct Difference {
    pub at: usize,
    pub told: Vec<String>,
    pub kafka: String,
    pub taccola: String,
}

/// Two brokers that are asked the same.
pub struct Pair {
    kafka: SocketAddr,
    taccola: SocketAddr,
    /// Sequences so far: each has names of its own.
    sequences: usize,
    run: u32,
    pub requests: usize,
    /// Requests at which Kafka fails, and Taccola does not: they end their sequence and are told.
    pub failed: Vec<String>,
}

/// UNKNOWN_SERVER_ERROR, as replies are written here.
const FAILURE: &str = "error_code: -1";

impl Pair {
    pub fn new(kafka: SocketAddr, taccola: SocketAddr) -> Self {
        Self { kafka, taccola, sequences: 0, run: std::process::id(), requests: 0, failed: Vec::new() }
    }

    /// Plays the steps; the first difference ends it.
    pub fn play(&mut self, seed: u64, steps: &[Step]) -> Option<Difference> {
        self.sequences += 1;
        let prefix = format!("q{}x{}", self.run, self.sequences);
        let mut worlds =
            [self.kafka, self.taccola].map(|address| World::new(address, &prefix, seed).expect("the broker listens"));
        let mut told = Vec::new();
        let found = (0..steps.len()).find_map(|at| {
            let [kafka, taccola] = both(&mut worlds, steps[at]);
            let (same, kafka, taccola) = (kafka == taccola, kafka.join("\n"), taccola.join("\n"));
            self.requests += kafka.lines().filter(|line| line.starts_with("> ")).count();
            if same {
                told.push(kafka);
                return None;
            }
            Some(Difference { at, told: std::mem::take(&mut told), kafka, taccola })
        });
        let found = found.filter(|found| {
            let fails = found.kafka.contains(FAILURE) && !found.taccola.contains(FAILURE);
            if fails {
                self.failed.push(format!(
                    "{}\nTaccola: {}",
                    found.kafka,
                    found.taccola.lines().last().unwrap_or_default()
                ));
            }
            !fails
        });
        worlds.iter_mut().for_each(World::tidy);
        found
    }

    /// Leaves out steps as long as it still differs.
    pub fn shorten(&mut self, seed: u64, steps: &[Step]) -> (Vec<Step>, Option<Difference>) {
        let mut steps = steps.to_vec();
        let mut found = None;
        let mut chunk = (steps.len() / 2).max(1);
        loop {
            let mut from = 0;
            while from < steps.len() {
                let mut fewer = steps.clone();
                fewer.drain(from..(from + chunk).min(steps.len()));
                if let Some(difference) = self.play(seed, &fewer) {
                    fewer.truncate(difference.at + 1);
                    steps = fewer;
                    found = Some(difference);
                } else {
                    from += chunk;
                }
            }
            if chunk == 1 {
                return (steps, found);
            }
            chunk /= 2;
        }
    }
}

/// One step on both sides, at the same time, and what comes of it.
fn both(worlds: &mut [World; 2], step: Step) -> [Vec<String>; 2] {
    for again in 0..20 {
        let marks = [worlds[0].asides(), worlds[1].asides()];
        std::thread::scope(|scope| {
            for world in worlds.iter_mut() {
                scope.spawn(move || {
                    world.changing = false;
                    step.area.take(world, &mut Rng(step.seed));
                });
            }
        });
        settle(worlds);
        let said = [worlds[0].said(), worlds[1].said()];
        if said[0] == said[1] || worlds.iter().any(|world| world.changing) || again == 19 {
            return said;
        }
        // What changes nothing may be asked again: one side may still be at work in the background.
        debug_assert_eq!(marks, [worlds[0].asides(), worlds[1].asides()]);
        std::thread::sleep(Duration::from_millis(100));
    }
    unreachable!("the last round returns")
}

/// Hears replies that were waited for, until both sides have as many or one is too late.
fn settle(worlds: &mut [World; 2]) {
    if worlds.iter().all(|world| world.parked() == 0) {
        return;
    }
    let begun = Instant::now();
    let mut quiet = Instant::now();
    loop {
        for world in worlds.iter_mut() {
            if world.hear() {
                quiet = Instant::now();
            }
        }
        let level = worlds[0].waiting() == worlds[1].waiting();
        let none = worlds.iter().all(|world| world.parked() == 0);
        if level && (none || quiet.elapsed() > QUIET) || begun.elapsed() > BEHIND {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
