//! The whole broker on one thread under a seeded scheduler, with a simulated disk, clock and network: what a seed does, it
//! does again (docs/internals/simulation.md).
//!
//! Nothing of the broker is replaced: requests go through its dispatcher, coordinators, journal and logs write real files
//! in a folder of their own. What is simulated stands around it: [`disk`] hears of each change to a file and can let the
//! process die at any of them, or cut the power; [`world`] has the time and the random bytes; [`network`] decides when a
//! frame arrives and whether its reply is heard; [`run`] decides what happens next. After each start, and at the end, what
//! the broker serves is judged by a naive model, [`ledger`].
//!
//! `cargo xtask simulate` runs many seeds; a seed that fails is printed with the command that runs it again.

mod clients;
mod disk;
mod ledger;
mod moves;
mod network;
mod rng;
mod run;
mod workload;
pub(crate) mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use run::{Run, Trace};

/// In CI.
const SEEDS: u64 = 100;
const STEPS: u64 = 600;

/// Runs one seed; its trace, and why it failed if it did.
fn simulate(seed: u64, steps: u64) -> (Vec<String>, Option<String>) {
    let dir = tempfile::tempdir_in(memory()).unwrap();
    let trace = Trace::default();
    world::begin(seed);
    taccola_base::invariant::before_abort(Box::new(|| eprintln!("simulated by seed {:?}", world::seed())));
    let run = AssertUnwindSafe(|| Run::new(seed, steps, dir.path(), trace.clone()).run());
    let failure = catch_unwind(run).err().map(|panic| match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => panic.downcast_ref::<&str>().copied().unwrap_or("a panic").to_owned(),
    });
    taccola_log::disk_watch::install(None);
    world::end();
    let trace = trace.take();
    (trace, failure)
}

/// A folder in memory where there is one.
fn memory() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect(variable))
}

/// `SIM_SEED`, `SIM_SEEDS`, `SIM_STEPS`, `SIM_THREADS`; `SIM_TRACE` prints all that happens.
#[test]
fn many_seeds() {
    let (first, seeds, steps) = (number("SIM_SEED", 1), number("SIM_SEEDS", SEEDS), number("SIM_STEPS", STEPS));
    if std::env::var_os("SIM_TRACE").is_some() {
        // What the broker says, between the lines of the trace.
        let _ = tracing_subscriber::fmt()
            .without_time()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .try_init();
    }
    let next = Arc::new(AtomicU64::new(first));
    let threads = number("SIM_THREADS", 2);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let next = next.clone();
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return failed;
                    }
                    let (trace, failure) = simulate(seed, steps);
                    if let Some(failure) = failure {
                        let tail = trace.len().saturating_sub(25);
                        println!("seed {seed}: {failure}\n{}", trace[tail..].join("\n"));
                        println!("again: cargo xtask simulate --seed {seed} --steps {steps} --trace");
                        failed.push(seed);
                    }
                }
            })
        })
        .collect();
    let failed: Vec<u64> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    assert!(failed.is_empty(), "{} of {seeds} seeds fail: {failed:?}", failed.len());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..4 {
        let (first, _) = simulate(seed, 400);
        let (second, _) = simulate(seed, 400);
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("seed {seed}, line {at}:\n{}\n{}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
