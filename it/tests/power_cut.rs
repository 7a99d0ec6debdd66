//! Power cuts under mixed load: what was not synced is lost or torn. `taccola.acks.durability=disk` loses nothing that was
//! acknowledged all the same. `POWER_CYCLES` (5 if unset; a campaign has 100) and `SEED` say how often and which.
#![cfg(target_os = "linux")]

use std::time::Duration;

use fuser::BackgroundSession;
use taccola_it::crash::{Campaign, Machine, Misfortune, PROPERTIES, number, run, verify};
use taccola_it::disk_faults::{Fault, Op};
use taccola_it::ledger::Rng;
use taccola_it::power::{Disk, Loss};
use taccola_it::txn_campaign::{self, TxnCampaign};
use taccola_it::{Broker, clients, eventually};

/// A broker on a disk whose power goes with the broker.
struct Powered {
    broker: Broker,
    disk: Disk,
    mounted: Option<BackgroundSession>,
    rng: Rng,
}

impl Powered {
    fn mount(&mut self) -> std::io::Result<()> {
        if self.mounted.is_none() {
            let at = self.broker.data_dir();
            std::fs::create_dir_all(&at)?;
            self.mounted = Some(self.disk.mount(&at)?);
        }
        Ok(())
    }

    fn lose(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            // Whoever serves a mount that ends within its first moments hears of an aborted connection.
            let ended = mounted.umount_and_join();
            let aborted = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionAborted;
            assert!(ended.as_ref().err().is_none_or(aborted), "{ended:?}: somebody still uses the disk");
            let at = self.broker.data_dir().display().to_string();
            eventually("the disk to be unmounted", || {
                let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts can be read");
                (!mounts.contains(&at)).then_some(())
            });
        }
        let loss = match self.rng.below(3) {
            0 => Loss::Everything,
            1 => Loss::Tail,
            _ => Loss::Scattered,
        };
        self.disk.restore(loss, &mut self.rng);
    }
}

impl Machine for Powered {
    fn port(&self) -> u16 {
        self.broker.port
    }

    fn start(&mut self) {
        self.mount().expect("mounted before");
        self.broker.launch();
    }

    fn start_and_crash(&mut self, delay: Duration) {
        self.mount().expect("mounted before");
        self.broker.spawn();
        std::thread::sleep(delay);
        self.crash();
    }

    fn assert_alive(&mut self) {
        self.broker.assert_alive();
    }

    fn crash(&mut self) {
        self.disk.cut();
        self.broker.kill();
        self.disk.heal();
        self.disk.set_capacity(None);
        self.lose();
    }

    fn has_misfortunes(&self) -> bool {
        true
    }

    fn misfortune(&mut self, misfortune: Misfortune, rng: &mut Rng) {
        match misfortune {
            Misfortune::Full => self.disk.set_capacity(Some(self.disk.used() + rng.below(1 << 20))),
            Misfortune::Unreadable => {
                let topic =
                    ["crash-a-1", "crash-b-0", "crash-compacted-0", "__consumer_offsets"][rng.below(4) as usize];
                self.disk.inject(Fault::eio(Op::Read, topic));
            }
            Misfortune::SyncFails => self.disk.inject(Fault::eio(Op::Sync, "")),
        }
    }

    fn stop(&mut self) {
        self.broker.stop();
        verify(&self.broker.data_dir());
        self.disk.cut();
        self.lose();
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        self.broker.kill();
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let seed = number("SEED", 3);
    let broker = Broker::prepare(&[&PROPERTIES[..], &["taccola.acks.durability=disk"]].concat());
    let mut machine = Powered { broker, disk: Disk::default(), mounted: None, rng: Rng(seed + 1) };
    if let Err(error) = machine.mount() {
        println!("{} nothing_acknowledged_is_lost_by_a_power_cut: FUSE cannot be mounted ({error})", clients::ABSENT);
        return;
    }
    let campaign =
        Campaign { cycles: number("POWER_CYCLES", 5), seed, load: Duration::from_millis(900), acks_1: false };
    let report = run(&mut machine, campaign);
    println!("power cut, durability=disk: {report}; {} syncs", machine.disk.syncs());
}

/// Transactions of both versions and offsets in them, judged for every anomaly: nothing that was acknowledged is lost, nothing
/// is half there, nothing aborted is read, nothing stays open.
#[test]
fn transactions_survive_a_power_cut_whole() {
    let seed = number("SEED", 5);
    let properties = [
        "taccola.acks.durability=disk",
        "taccola.journal.bytes=4194304",
        "transaction.state.log.num.partitions=3",
        "offsets.topic.num.partitions=3",
    ];
    let broker = Broker::prepare(&properties);
    let mut machine = Powered { broker, disk: Disk::default(), mounted: None, rng: Rng(seed + 1) };
    if let Err(error) = machine.mount() {
        println!("{} transactions_survive_a_power_cut_whole: FUSE cannot be mounted ({error})", clients::ABSENT);
        return;
    }
    let campaign = TxnCampaign { cycles: number("POWER_CYCLES", 4), seed, load: Duration::from_millis(700) };
    let evidence = txn_campaign::run(&mut machine, campaign);
    println!("power cut under transactions, seed {seed}: {evidence}; {} syncs", machine.disk.syncs());
    let found = evidence.judge();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
