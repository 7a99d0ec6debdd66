//! Taking over from a JVM Kafka and giving back: a seeded workload that one broker begins and the other goes on with, clean and
//! killed, with compacted topics, transactions that are open when the broker changes, groups of every kind, dynamic configs.
//! After each change the next broker knows what the last one knew, and Kafka's dump tool reads every file of ours.
//!
//! `SWAPS` (default 1) says how often each takes its turn, `SEED` which workload it is, `STEPS` how long a turn is.

use std::collections::BTreeSet;
use std::sync::Arc;

use taccola_it::Broker;
use taccola_it::alternate::{Dump, PROPERTIES, State, World, capture};
use taccola_it::crash::number;
use taccola_it::kafka::Kafka;

/// What the next broker says must be what the last one said.
fn same(who: &str, world: &World, before: &State, after: &State) {
    let mut different = Vec::new();
    for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (was, is) = (before.get(key), after.get(key));
        if was != is {
            different.push(format!("{key}:\n- {}\n+ {}", shown(was), shown(is)));
        }
    }
    assert!(different.is_empty(), "{who}:\n{}\n{}", different.join("\n"), world.done.join("\n"));
}

fn shown(line: Option<&String>) -> &str {
    line.map_or("(nothing)", String::as_str)
}

fn dumped(test: &str, world: &World, taccola: &Broker) {
    let Some(dump) = Dump::of(test, &taccola.data_dir()) else { return };
    println!("the dump tool reads {:?}", dump.files);
    assert!(dump.complaints.is_empty(), "{}\n{}", dump.complaints.join("\n"), world.done.join("\n"));
    for kind in ["log", "index", "timeindex", "snapshot"] {
        assert!(dump.files.contains_key(kind), "no {kind}: {:?}", dump.files);
    }
}

/// Turns of both, beginning with Kafka or with Taccola.
fn alternate(test: &str, kafka_first: bool) {
    let home = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let seed = number("SEED", 7) + u64::from(kafka_first);
    println!("seed {seed}");
    let mut world = World::new(seed, usize::try_from(number("STEPS", 12)).expect("a count"));
    let mut taccola = Broker::prepare_in(home.clone(), PROPERTIES);
    let mut known: Option<State> = None;
    let turns = number("SWAPS", 1) * 2 + 1;
    for turn in 0..turns {
        let kafkas = (turn % 2 == 0) == kafka_first;
        // Each is killed every other time.
        let killed = turn % 4 < 2;
        if kafkas {
            let Some(kafka) = Kafka::start(test, home.path(), PROPERTIES, turn == 0) else { return };
            known = Some(turn_of(&mut world, "Kafka", kafka.port, known));
            if killed {
                // SIGKILL.
                drop(kafka);
            } else {
                kafka.stop();
            }
            continue;
        }
        if turn == 0 && taccola_it::clients::kafka_tool(test, "kafka.Kafka").is_none() {
            return;
        }
        taccola.launch();
        known = Some(turn_of(&mut world, "Taccola", taccola.port, known));
        if killed {
            taccola.kill();
            taccola.launch();
            if let Some(before) = &known {
                same("Taccola, killed and started again", &world, before, &capture(taccola.port));
            }
        }
        taccola.stop();
        dumped(test, &world, &taccola);
    }
}

fn turn_of(world: &mut World, who: &str, port: u16, known: Option<State>) -> State {
    match known {
        Some(before) => same(who, world, &before, &capture(port)),
        None => world.create(port),
    }
    world.turn(who, port);
    capture(port)
}

#[test]
fn a_killed_kafka_is_taken_over_and_given_back() {
    alternate("a_killed_kafka_is_taken_over_and_given_back", true);
}

#[test]
fn kafka_goes_on_with_what_taccola_began() {
    alternate("kafka_goes_on_with_what_taccola_began", false);
}
