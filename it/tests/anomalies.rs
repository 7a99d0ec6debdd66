//! The anomalies that Jepsen's Kafka workload looks for, as far as one node can have them: transactional writers of both
//! versions, loops that read, process and write, idempotent writers and readers, through a proxy that loses replies and
//! holds requests back, while the broker is killed at seeded moments. One campaign, and a test for each anomaly that
//! judges it. `TXN_CYCLES` (8 if unset) and `SEED` say how often and which. What such a campaign does not meet has a test of
//! its own at the end.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_client::admin::OffsetSpec;
use taccola_client::{Admin, Client, ClientConfig, ConsumerConfig, GroupConfig, GroupConsumer, GroupProtocol};
use taccola_it::conn::Conn;
use taccola_it::crash::{Process, number};
use taccola_it::group::{commit_request, find_coordinator};
use taccola_it::requests::{batch, init_producer, list_offset, new_topic, now_ms, produced};
use taccola_it::txn_campaign::{Evidence, TxnCampaign, run};
use taccola_it::{Broker, WITHIN, eventually};
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::metadata_response::MetadataResponseTopic;
use taccola_wire::messages::{DeleteRecordsRequest, MetadataRequest};

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

// ---- what no campaign meets --------------------------------------------------------------------------------------------

fn sequenced(producer: (i64, i16), base_sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).producer(producer.0, producer.1, base_sequence);
    builder.append(now_ms(), None, Some(&[b'x'; 600]), &[]);
    builder.build().expect("a batch")
}

/// What a producer sent last is known as long as the producer is, not as long as the segments that hold it.
#[test]
fn anomaly_04_a_retry_is_known_when_its_segment_is_gone() {
    let mut broker = Broker::start(&["log.retention.check.interval.ms=200", "log.initial.task.delay.ms=0"]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    // Each record a segment of its own.
    new_topic(&mut conn, "t", 1, &[("segment.bytes", "1048576"), ("segment.ms", "1")]);
    let producer = init_producer(&mut conn).expect("an answer").expect("a producer id");
    for sequence in 0..6 {
        let offset = produced(&mut conn, "t", 0, sequenced(producer, sequence));
        assert_eq!(offset, i64::from(sequence));
        // Time passes, so that the next one rolls.
        let written = now_ms();
        eventually("another millisecond", || (now_ms() > written + 2).then_some(()));
    }
    delete_records(&mut conn, "t", 6);
    let segments = || {
        let folder = std::fs::read_dir(broker.data_dir().join("t-0")).expect("the partition's folder");
        folder.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "log")).count()
    };
    eventually("the segments to go", || (segments() == 1).then_some(()));
    for round in 0..3 {
        for sequence in 1..6 {
            let again = produced(&mut conn, "t", 0, sequenced(producer, sequence));
            assert_eq!(again, i64::from(sequence), "round {round}");
        }
        assert_eq!(list_offset(&mut conn, "t", 0, -1).1, 6, "round {round}: nothing was added");
        match round {
            0 => broker.restart(),
            _ => {
                broker.kill();
                broker.launch();
            }
        }
        conn = Conn::connect(broker.port).expect("the broker accepts");
    }
    assert_eq!(produced(&mut conn, "t", 0, sequenced(producer, 6)), 6, "and goes on");
}

fn delete_records(conn: &mut Conn, topic: &str, offset: i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions }];
    let response = conn.ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 }, 2);
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

/// Records count as processed when the next poll is called: a consumer that commits by itself never commits what it has
/// just been given, and who comes after it sees that again.
#[test]
fn anomaly_14_a_consumer_commits_what_the_poll_before_the_last_returned() {
    let broker = Broker::start(&[
        "group.min.session.timeout.ms=3000",
        "group.consumer.min.session.timeout.ms=3000",
        "group.consumer.session.timeout.ms=3000",
        "group.consumer.min.heartbeat.interval.ms=200",
        "group.consumer.heartbeat.interval.ms=200",
    ]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for (topic, protocol) in [("classic", GroupProtocol::Classic), ("modern", GroupProtocol::Consumer)] {
        new_topic(&mut conn, topic, 1, &[]);
        runtime.block_on(async {
            let config = GroupConfig {
                protocol,
                start: OffsetSpec::Earliest,
                auto_commit: Some(Duration::ZERO),
                session_timeout: Duration::from_secs(3),
                heartbeat_interval: Duration::from_millis(200),
                ..GroupConfig::new(topic, [topic.to_owned()])
            };
            let client = || Client::new(ClientConfig::new(&broker.bootstrap()).expect("an address"));
            let admin = Admin::new(client());
            let mut member = GroupConsumer::new(client(), ConsumerConfig::default(), config.clone());
            let mut committed = None;
            for round in 0..4 {
                produced(&mut conn, topic, 0, batch(&[&format!("{round}")]));
                assert_eq!(next_values(&mut member).await, [format!("{round}")]);
                let offsets = admin.group_offsets(topic, None).await.expect("offsets");
                committed = offsets.values().next().map(|offset| offset.offset);
                assert_eq!(committed.unwrap_or(0), round, "what was just returned does not count yet");
            }
            // It is gone without a word.
            drop(member);
            assert_eq!(committed, Some(3));
            let mut heir = GroupConsumer::new(client(), ConsumerConfig::default(), config);
            assert_eq!(next_values(&mut heir).await, ["3"], "and is seen again");
            heir.close().await.expect("closed");
        });
    }
}

async fn next_values(member: &mut GroupConsumer) -> Vec<String> {
    let until = Instant::now() + WITHIN;
    loop {
        assert!(Instant::now() < until, "nothing comes");
        let records = member.poll(Duration::from_millis(100)).await.expect("polled");
        if !records.is_empty() {
            let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            return records.iter().map(|record| value(record.value.as_deref())).collect();
        }
    }
}

/// A broker that was killed tells nobody of a time before: what it served it serves again with its first answer.
#[test]
fn a_broker_that_is_back_serves_no_metadata_that_is_older_than_what_it_served() {
    let mut broker = Broker::start(&["offsets.topic.num.partitions=3"]);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    find_coordinator(&mut conn, "g");
    for round in 0..4 {
        let name = format!("t{round}");
        new_topic(&mut conn, &name, 3, &[]);
        let before = described(&mut conn);
        assert_eq!(before.len(), round + 2, "with __consumer_offsets");
        broker.kill();
        let ready = broker.spawn();
        let mut answers = 0;
        // Until some time after it says that it is ready.
        let mut until = None;
        while until.is_none_or(|until| Instant::now() < until) {
            if until.is_none() && ready.try_recv().is_ok() {
                until = Some(Instant::now() + Duration::from_millis(300));
            }
            broker.assert_alive();
            let Ok(mut early) = Conn::connect(broker.port) else { continue };
            let all = MetadataRequest { topics: None, ..Default::default() };
            let Ok(reply) = early.call(&all, 12) else { continue };
            answers += 1;
            for (topic, (id, partitions)) in &before {
                let now = reply.topics.iter().find(|row| row.name.as_deref() == Some(topic));
                let now = now.unwrap_or_else(|| panic!("answer {answers}: {topic} is missing"));
                assert_eq!((now.error_code, now.topic_id, now.partitions.len()), (0, *id, partitions.len()), "{topic}");
                for row in &now.partitions {
                    let epoch = partitions[&row.partition_index];
                    assert!(row.leader_epoch >= epoch, "{topic}: epoch {} after {epoch}", row.leader_epoch);
                    assert_eq!((row.error_code, row.leader_id, &row.isr_nodes[..]), (0, 0, &[0][..]), "{topic}");
                }
            }
            let commit = early.call(&commit_request("g", -1, "", &name, 1), 9);
            if let Ok(commit) = commit {
                let code = ErrorCode::from_code(commit.topics[0].partitions[0].error_code);
                let loads = [ErrorCode::CoordinatorLoadInProgress, ErrorCode::NotCoordinator];
                assert!(code == ErrorCode::None || loads.contains(&code), "round {round}: {code:?}");
            }
        }
        assert!(answers > 0, "round {round}: it was asked in time");
        conn = Conn::connect(broker.port).expect("the broker accepts");
    }
}

/// Topics with their ids, and their partitions' leader epochs.
fn described(conn: &mut Conn) -> BTreeMap<String, (Uuid, BTreeMap<i32, i32>)> {
    let reply = conn.ask(&MetadataRequest { topics: None, ..Default::default() }, 12);
    let topic = |topic: MetadataResponseTopic| {
        let epochs = topic.partitions.iter().map(|row| (row.partition_index, row.leader_epoch)).collect();
        (topic.name.expect("a name"), (topic.topic_id, epochs))
    };
    reply.topics.into_iter().map(topic).collect()
}
