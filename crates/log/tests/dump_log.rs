//! Writes a directory for Kafka's own tools to judge. Ignored: it runs where `TACCOLA_LOG_OUT` names an empty folder, and
//! whoever runs it gives the files to `kafka-dump-log.sh` and starts a JVM Kafka on the folder.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use bytes::BytesMut;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::{AppendContext, AppendOrigin, LogConfig, LogShared, PartitionLog, log_dir};
use taccola_wire::batch::{BatchBuilder, Compression, ControlRecord, end_txn_marker};

const CLIENT: AppendOrigin = AppendOrigin::Client;
const COORDINATOR: AppendOrigin = AppendOrigin::Coordinator { transaction_version: 2 };

fn append(log: &mut PartitionLog, batch: &[u8], origin: AppendOrigin, leader_epoch: i32, now_ms: i64) {
    let mut batch = BytesMut::from(batch);
    log.append(&mut batch, AppendContext { origin, leader_epoch, now_ms }).unwrap();
}

#[test]
#[ignore = "writes to TACCOLA_LOG_OUT for Kafka's tools"]
fn write_a_directory_for_kafkas_tools() {
    let out = std::path::PathBuf::from(std::env::var("TACCOLA_LOG_OUT").unwrap());
    let topic_id: Option<Uuid> = std::env::var("TACCOLA_TOPIC_ID").ok().map(|id| id.parse().unwrap());
    let now_ms: i64 = std::env::var("TACCOLA_NOW_MS").map_or(1_795_229_100_000, |ms| ms.parse().unwrap());
    let config = LogConfig { segment_bytes: 20_000, index_interval_bytes: 1000, ..LogConfig::default() };
    let tp = TopicPartition::new("judged", 0);
    let topic_id = topic_id.or(Some(Uuid::random()));
    let mut log = PartitionLog::create(&out, tp.clone(), topic_id, Arc::new(config), LogShared::new(8)).unwrap();
    let mut epoch = 0;
    for i in 0..200i32 {
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let mut builder = BatchBuilder::new(codecs[i as usize % codecs.len()]).producer(4000, 0, i * 3);
        for j in 0..3 {
            let value = format!("value {i} {j} {}", "x".repeat(100));
            builder.append(now_ms + i64::from(i), Some(format!("key{i}").as_bytes()), Some(value.as_bytes()), &[]);
        }
        append(&mut log, &builder.build().unwrap(), CLIENT, i / 60, now_ms);
        if i % 20 == 19 {
            let mut data = BatchBuilder::new(Compression::None).producer(4001, epoch, 0).transactional(true);
            data.append(now_ms, None, Some(b"in a transaction"), &[]);
            append(&mut log, &data.build().unwrap(), CLIENT, i / 60, now_ms);
            epoch += 1;
            let record = match i % 40 {
                39 => ControlRecord::Abort { coordinator_epoch: 1 },
                _ => ControlRecord::Commit { coordinator_epoch: 1 },
            };
            append(&mut log, &end_txn_marker(now_ms, 4001, epoch, &record).unwrap(), COORDINATOR, i / 60, now_ms);
        }
    }
    let end = log.close(now_ms).unwrap();
    let offsets = [(tp, end)].into();
    log_dir::write_offsets(&out, log_dir::RECOVERY_POINT_CHECKPOINT, &offsets).unwrap();
    log_dir::write_offsets(&out, log_dir::HIGH_WATERMARK_CHECKPOINT, &offsets).unwrap();
    log_dir::write_clean_shutdown(&out, -1).unwrap();
}
