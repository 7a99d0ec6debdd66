//! `cargo xtask simulate`: the broker's simulation (crates/broker/src/simulation) over many seeds, or one seed with its trace.

use std::path::Path;

use crate::shell;

pub(crate) const USAGE: &str = "\
simulate [--seed N] [--seeds COUNT] [--steps N] [--threads N] [--trace]
    Runs the whole broker on one thread under a seeded scheduler with simulated disk, clock and network, one seed after the
    other: 1000 from a seed of the moment, or COUNT from seed N on (--seed alone: that one). What fails is printed with the
    command that runs it again; --trace prints everything that happened.";

/// Seeds when nobody says how many.
const SEEDS: u64 = 1_000;

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (mut seed, mut seeds, mut steps, mut threads, mut trace) = (None, None, None, None, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let place = match argument.as_str() {
            "--seed" => &mut seed,
            "--seeds" => &mut seeds,
            "--steps" => &mut steps,
            "--threads" => &mut threads,
            "--trace" => {
                trace = true;
                continue;
            }
            _ => return Err(USAGE.to_owned()),
        };
        let number = arguments.next().and_then(|text| text.parse::<u64>().ok());
        *place = Some(number.ok_or_else(|| USAGE.to_owned())?);
    }
    let count = seeds.unwrap_or(if seed.is_some() { 1 } else { SEEDS });
    let seed = seed.unwrap_or_else(of_the_moment);
    println!("seeds {seed} to {}", seed.saturating_add(count).saturating_sub(1));
    let mut command = shell::cargo(root);
    command.args(["test", "--quiet", "--package", "taccola-broker", "--lib", "--", "--nocapture", "--exact"]);
    command.arg("simulation::many_seeds");
    command.env("SIM_SEED", seed.to_string()).env("SIM_SEEDS", count.to_string());
    for (variable, value) in [("SIM_STEPS", steps), ("SIM_THREADS", threads)] {
        if let Some(value) = value {
            command.env(variable, value.to_string());
        }
    }
    if trace {
        command.env("SIM_TRACE", "1");
    }
    shell::must(&mut command)
}

/// Another campaign each time: milliseconds since 1970.
fn of_the_moment() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(1))
}
