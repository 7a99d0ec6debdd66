//! The anomalies that Jepsen's Kafka workload looks for, as far as one node can have them: transactional writers of both
//! versions, loops that read, process and write, idempotent writers and readers, through a proxy that loses replies and
//! holds requests back, while the broker is killed at seeded moments. One campaign, and a test for each anomaly that
//! judges it. `TXN_CYCLES` (8 if unset) and `SEED` say how often and which.

use std::sync::OnceLock;
use std::time::Duration;

use taccola_it::Broker;
use taccola_it::crash::{Process, number};
use taccola_it::txn_campaign::{Evidence, TxnCampaign, run};

/// What all tests judge.
fn evidence() -> &'static Evidence {
    static EVIDENCE: OnceLock<Option<Evidence>> = OnceLock::new();
    // A campaign that panics is not run again for the next test.
    let campaign = || std::panic::catch_unwind(campaign).ok();
    EVIDENCE.get_or_init(campaign).as_ref().expect("the campaign came to its end")
}

fn campaign() -> Evidence {
    let properties = [
        "taccola.journal.bytes=4194304",
        "transaction.state.log.num.partitions=3",
        "offsets.topic.num.partitions=3",
        "transaction.state.log.segment.bytes=1048576",
    ];
    let mut machine = Process(Broker::prepare(&properties));
    let campaign =
        TxnCampaign { cycles: number("TXN_CYCLES", 8), seed: number("SEED", 4), load: Duration::from_millis(700) };
    let evidence = run(&mut machine, campaign);
    println!("kill -9 under transactions, seed {}: {evidence}", campaign.seed);
    evidence
}

#[track_caller]
fn judge(anomaly: u32) {
    let found = evidence().of(anomaly);
    assert!(found.is_empty(), "{} found, the first: {:#?}", found.len(), &found[..found.len().min(10)]);
}

#[test]
fn anomaly_01_no_acknowledged_write_is_lost() {
    judge(1);
}

#[test]
fn anomaly_02_nothing_committed_stays_unseen() {
    judge(2);
}

#[test]
fn anomaly_03_an_offset_holds_one_record_for_everybody() {
    judge(3);
}

#[test]
fn anomaly_04_nothing_is_written_twice_by_idempotent_writers() {
    judge(4);
}

#[test]
fn anomaly_05_nothing_new_is_taken_for_a_duplicate() {
    judge(5);
}

#[test]
fn anomaly_06_nothing_aborted_is_read() {
    judge(6);
}

#[test]
fn anomaly_07_nothing_is_read_before_its_commit() {
    judge(7);
}

#[test]
fn anomaly_08_information_does_not_flow_in_circles() {
    judge(8);
}

#[test]
fn anomaly_09_no_transaction_is_torn() {
    judge(9);
}

#[test]
fn anomaly_10_readers_skip_nothing_and_do_not_go_back() {
    judge(10);
}

#[test]
fn anomaly_11_acknowledged_offsets_are_real() {
    judge(11);
}

#[test]
fn anomaly_12_nobody_is_stuck() {
    judge(12);
}

#[test]
fn anomaly_13_each_input_is_processed_once() {
    judge(13);
}

#[test]
fn anomaly_14_the_committed_position_after_an_abort_is_the_one_before() {
    judge(14);
}
