//! Compacted topics as clients see them: user topics, committed offsets, restarts, and what Kafka's own tool says of the
//! segments.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use taccola_it::conn::Conn;
use taccola_it::group::{commit_request, find_coordinator};
use taccola_it::requests::{batch, fetch, init_producer, list_offset, new_topic, now_ms, produce, produced, read_all};
use taccola_it::{Broker, clients, eventually, run};
use taccola_wire::batch::{BatchBuilder, Compression, batches};

/// Looks for work all the time, and takes whatever is dirty.
const EAGER: [&str; 3] =
    ["log.cleaner.backoff.ms=50", "log.cleaner.min.cleanable.ratio=0.01", "offsets.topic.num.partitions=1"];
/// A topic whose segments are small enough to be sealed soon.
const COMPACTED: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];

fn keyed(rows: &[(u32, Option<String>)], codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for (key, value) in rows {
        builder.append(now_ms(), Some(&key.to_be_bytes()), value.as_ref().map(String::as_bytes), &[]);
    }
    builder.build().expect("a batch")
}

/// Key and last value, over all records that are there, and how many they are.
fn contents(conn: &mut Conn, topic: &str) -> (BTreeMap<Bytes, Option<Bytes>>, usize) {
    let records = read_all(conn, topic, 0, 0);
    let count = records.len();
    (records.into_iter().map(|r| (r.key.expect("a key"), r.value)).collect(), count)
}

#[test]
fn of_each_key_the_last_record_stays_also_after_restarts() {
    let mut broker = Broker::start(&EAGER);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "c", 1, &COMPACTED);
    let mut expected = BTreeMap::new();
    let mut written = 0;
    for round in 0..60_u32 {
        let rows: Vec<(u32, Option<String>)> = (0..100)
            .map(|i| {
                let key = (i * 7 + round) % 150;
                let value = (key % 10 != round % 10).then(|| format!("{round} {}", "x".repeat(1000)));
                (key, value)
            })
            .collect();
        for (key, value) in &rows {
            expected.insert(Bytes::copy_from_slice(&key.to_be_bytes()), value.clone().map(Bytes::from));
        }
        written += rows.len();
        let codecs = Compression::ALL;
        produced(&mut conn, "c", 0, keyed(&rows, codecs[round as usize % codecs.len()]));
    }
    // One more segment's worth that does not compress, so that what stands before is sealed.
    for i in 0..1200_u32 {
        let mixed = |j: u32| i.wrapping_mul(2_654_435_761).wrapping_add(j.wrapping_mul(j).wrapping_mul(40_503)) >> 9;
        let noise: Vec<u8> = (0..1000).map(|j| mixed(j) as u8).collect();
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(now_ms(), Some(b"noise"), Some(&noise), &[]);
        produced(&mut conn, "c", 0, builder.build().expect("a batch"));
        expected.insert(Bytes::from_static(b"noise"), Some(Bytes::from(noise)));
        written += 1;
    }
    let end = list_offset(&mut conn, "c", 0, -1).2;
    eventually("the log is compacted", || (contents(&mut conn, "c").1 < written / 2).then_some(()));
    for restart in 0..3 {
        let (found, count) = contents(&mut conn, "c");
        assert!(found == expected, "restart {restart}: {} keys of {}", found.len(), expected.len());
        assert!(count < written / 2);
        assert_eq!(list_offset(&mut conn, "c", 0, -1).2, end);
        if restart == 0 {
            broker.restart();
        } else {
            broker.kill();
            broker.launch();
        }
        conn = Conn::connect(broker.port).expect("the broker accepts");
    }
    let dir = broker.data_dir();
    let checkpoint = fs::read_to_string(dir.join("cleaner-offset-checkpoint")).expect("a checkpoint");
    assert!(checkpoint.lines().any(|line| line.starts_with("c 0 ")), "{checkpoint}");
    broker.stop();
    let Some(mut dump) = clients::kafka_tool("compaction", "org.apache.kafka.tools.DumpLogSegments") else { return };
    for entry in fs::read_dir(dir.join("c-0")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "log") {
            let text = run(dump.arg("--deep-iteration").arg("--files").arg(&path));
            assert!(!text.contains("isvalid: false") && !text.contains("corrupt"), "{text}");
            break;
        }
    }
}

/// Enough commits to seal a segment: what remains is about the last of each.
#[test]
fn committed_offsets_stay_bounded() {
    let mut broker = Broker::start(&[&EAGER[..], &["offsets.topic.segment.bytes=1048576"]].concat());
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["v"]));
    find_coordinator(&mut conn, "g");
    for offset in 0..600 {
        let mut request = commit_request("g", -1, "", "t", offset);
        request.topics[0].partitions[0].committed_metadata = Some("m".repeat(4000));
        eventually("the commit", || {
            let code = conn.ask(&request, 8).topics[0].partitions[0].error_code;
            (code == 0).then_some(())
        });
    }
    let size = |broker: &Broker| -> u64 {
        let files = fs::read_dir(broker.data_dir().join("__consumer_offsets-0")).expect("the folder");
        let logs = files.filter_map(Result::ok).filter(|f| f.path().extension().is_some_and(|e| e == "log"));
        logs.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
    };
    let before = size(&broker);
    eventually("__consumer_offsets is compacted", || (size(&broker) < 1_048_576).then_some(()));
    assert!(before > 0);
    broker.kill();
    broker.launch();
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    assert_eq!(taccola_it::load::committed(&mut conn, "g", &[("t".to_owned(), 0)])[0].1, 599);
}

/// A topic that was compacted and is not any more has gaps that are no damage.
#[test]
fn gaps_outlive_the_policy() {
    let mut broker = Broker::start(&EAGER);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "c", 1, &COMPACTED);
    for i in 0..40_u32 {
        produced(&mut conn, "c", 0, keyed(&[(i % 3, Some("x".repeat(100_000 + i as usize)))], Compression::None));
    }
    eventually("the log is compacted", || (contents(&mut conn, "c").1 < 25).then_some(()));
    let (kept, _) = contents(&mut conn, "c");
    let mut alter = taccola_it::taccola(&broker, &["topic", "alter", "c", "--config", "cleanup.policy=delete"]);
    run(&mut alter);
    for _ in 0..2 {
        for offset in 0..40 {
            let records = read_all(&mut conn, "c", 0, offset);
            assert!(records.iter().all(|r| r.offset >= offset));
        }
        assert!(contents(&mut conn, "c").0 == kept);
        broker.kill();
        broker.launch();
        conn = Conn::connect(broker.port).expect("the broker accepts");
    }
}

/// Nothing of a producer's last batch is wanted any more, but what it says of sequences and offsets is.
#[test]
fn trap_41_an_emptied_batch_keeps_its_offsets_and_its_producer() {
    let mut broker = Broker::start(&EAGER);
    let mut conn = Conn::connect(broker.port).expect("the broker accepts");
    new_topic(&mut conn, "c", 1, &COMPACTED);
    let (id, epoch) = init_producer(&mut conn).expect("an answer").expect("an id");
    let mine = |sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None).producer(id, epoch, sequence);
        for value in ["a", "b"] {
            builder.append(now_ms(), Some(&0_u32.to_be_bytes()), Some(value.as_bytes()), &[]);
        }
        builder.build().expect("a batch")
    };
    produced(&mut conn, "c", 0, keyed(&[(0, Some("before".to_owned()))], Compression::None));
    let base = produced(&mut conn, "c", 0, mine(0));
    assert_eq!(base, 1);
    for i in 0..40_u32 {
        produced(&mut conn, "c", 0, keyed(&[(i % 3, Some("x".repeat(100_000)))], Compression::None));
    }
    let emptied = |conn: &mut Conn| {
        let bytes = fetch(conn, "c", 0, 0).records.unwrap_or_default();
        let first = batches(&bytes).next()?.expect("a batch").header;
        (first.producer_id == id && first.records_count == 0).then_some((first.base_offset, first.next_offset()))
    };
    assert_eq!(eventually("the batch is emptied", || emptied(&mut conn)), (base, base + 2));
    for restarted in [false, true] {
        if restarted {
            broker.kill();
            broker.launch();
            conn = Conn::connect(broker.port).expect("the broker accepts");
        }
        for offset in 0..=base + 2 {
            let records = read_all(&mut conn, "c", 0, offset);
            assert!(records.iter().all(|record| record.offset >= base + 2), "from {offset}");
        }
        let again = produce(&mut conn, "c", 0, mine(0));
        assert_eq!((again.error_code, again.base_offset), (0, base), "a duplicate is known as one");
    }
    assert!(produced(&mut conn, "c", 0, mine(2)) > base, "and the sequence goes on");
}
