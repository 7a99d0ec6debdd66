//! Random interleavings of producers, zombies, retries, time, the log's fate, markers and crashes, against what must hold
//! whatever happens. `transaction_sim/` is the world in which they happen, and what it checks at every step.
//!
//! - Every request is answered once; an answer without an append is what a table says of the last record in the log.
//! - The log goes from state to state as the protocol allows; under one producer id the epoch never goes down.
//! - No two clients are ever given the same producer id and epoch; one that has been replaced adds nothing any more.
//! - A commit that was answered is in every partition in the end, an abort in none; a transaction of unknown outcome is
//!   in all or in none. No two markers of version 2 with one producer id and epoch say different things.
//! - When all is quiet no transaction is open, and a replay of the log tells what the shard tells.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod transaction_image;
mod transaction_sim;

use proptest::prelude::*;
use transaction_sim::{Op, World};

fn op() -> impl Strategy<Value = Op> {
    let client = 0..transaction_sim::CLIENTS;
    prop_oneof![
        6 => (client.clone(), any::<bool>()).prop_map(|(client, resume)| Op::Init { client, resume }),
        10 => (client.clone(), 0..transaction_sim::PARTITIONS).prop_map(|(client, partition)| Op::Add { client, partition }),
        8 => (client.clone(), 0..transaction_sim::PARTITIONS).prop_map(|(client, partition)| Op::Write { client, partition }),
        10 => (client.clone(), any::<bool>()).prop_map(|(client, commit)| Op::End { client, commit }),
        4 => client.prop_map(|client| Op::Retry { client }),
        12 => Just(Op::Committed),
        10 => any::<u8>().prop_map(|pick| Op::Marker { pick }),
        2 => Just(Op::FailNext),
        1 => Just(Op::TimedOut),
        3 => prop_oneof![Just(1), Just(150), Just(3_000), Just(20_000)].prop_map(|ms| Op::Tick { ms }),
        1 => any::<u8>().prop_map(|kept| Op::Crash { kept }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    #[test]
    fn whatever_happens(seed in any::<u64>(), version in 1i16..=2, ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new(version, seed);
        for op in ops {
            world.step(op);
        }
        world.drain();
    }
}

/// A crash after each step of many schedules, with every part of what was on its way to the disk.
#[test]
fn a_crash_at_every_step() {
    let mut crashes = 0;
    for seed in 0..40 {
        let ops = transaction_sim::schedule(seed, 60);
        for at in 0..ops.len() {
            for kept in 0..3 {
                let mut world = World::new(2 - (seed % 2) as i16, seed);
                for (step, op) in ops.iter().enumerate() {
                    world.step(*op);
                    if step == at {
                        world.step(Op::Crash { kept });
                    }
                }
                world.drain();
                crashes += 1;
            }
        }
    }
    assert_eq!(crashes, 40 * 60 * 3);
}

/// Epochs run out: the same world, in which each producer id has few left.
#[test]
fn few_epochs_left() {
    for seed in 0..400 {
        let mut world = World::near_the_last_epoch(2 - (seed % 2) as i16, seed);
        for op in transaction_sim::schedule(seed, 120) {
            world.step(op);
        }
        world.drain();
    }
}
