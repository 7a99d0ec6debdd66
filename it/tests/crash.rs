//! `kill -9` under mixed load, over and over. `CYCLES` (10 if unset; a campaign has 200) and `SEED` say how often and which.

use std::time::Duration;

use taccola_it::Broker;
use taccola_it::crash::{Campaign, Machine, number, run};

/// A broker on an ordinary file system, which survives the process.
struct Process(Broker);

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

fn campaign(durability: &str, seed: u64) {
    let durability = format!("taccola.acks.durability={durability}");
    let mut machine = Process(Broker::prepare(&[&durability, "taccola.journal.bytes=4194304"]));
    let campaign = Campaign {
        cycles: number("CYCLES", 10),
        seed: number("SEED", seed),
        load: Duration::from_millis(700),
        acks_1: true,
    };
    let report = run(&mut machine, campaign);
    println!("kill -9, {durability}: {report}");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    campaign("disk", 1);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_in_memory_mode() {
    campaign("memory", 2);
}
