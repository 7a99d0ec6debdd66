//! The log against a list of batches.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Append { records: usize, value_bytes: usize, idempotent: bool },
    Replay { gap: i64 },
    Flush,
    Truncate { at: f64 },
    DeleteRecords { at: f64 },
    StartAt { ahead: i64 },
    ReopenClean,
    ReopenUnclean,
    Retention,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (1..5usize, 0..120usize, any::<bool>())
            .prop_map(|(records, value_bytes, idempotent)| Op::Append { records, value_bytes, idempotent }),
        1 => Just(Op::Replay { gap: 0 }),
        2 => Just(Op::Flush),
        1 => (0.0..1.0f64).prop_map(|at| Op::Truncate { at }),
        1 => (0.0..1.0f64).prop_map(|at| Op::DeleteRecords { at }),
        1 => (0..50i64).prop_map(|ahead| Op::StartAt { ahead }),
        2 => Just(Op::ReopenClean),
        2 => Just(Op::ReopenUnclean),
        1 => Just(Op::Retention),
    ]
}

/// What the log must show.
#[derive(Default)]
struct Model {
    start: i64,
    end: i64,
    /// Base offset, last offset, stored bytes.
    batches: Vec<(i64, i64, Vec<u8>)>,
    next_sequence: i32,
}

struct Rig {
    dir: tempfile::TempDir,
    log: Option<PartitionLog>,
    model: Model,
    config: LogConfig,
    clock: i64,
}

impl Rig {
    fn log(&mut self) -> &mut PartitionLog {
        self.log.as_mut().unwrap()
    }

    fn reopen(&mut self, hints: OpenHints) {
        let hints = OpenHints { log_start_offset: self.model.start, ..hints };
        let (log, report) = open(self.dir.path(), self.config.clone(), hints);
        assert_eq!((report.quarantined.len(), report.truncated_bytes), (0, 0), "{report:?}");
        self.log = Some(log);
        let end = self.model.end;
        self.log().set_high_watermark(end);
    }

    fn apply(&mut self, op: &Op) {
        self.clock += 7;
        let clock = self.clock;
        match op {
            Op::Append { records: count, value_bytes, idempotent } => {
                let mut builder = records(*count, *value_bytes, clock);
                if *idempotent {
                    builder = builder.producer(7, 0, self.model.next_sequence);
                    self.model.next_sequence += *count as i32;
                }
                let mut batch = build(builder);
                let context = AppendContext { leader_epoch: (clock / 70) as i32, ..at(clock) };
                let appended = self.log().append(&mut batch, context).unwrap();
                assert_eq!(appended.base_offset, self.model.end);
                self.model.end += *count as i64;
                assert_eq!(appended.last_offset + 1, self.model.end);
                self.model.batches.push((appended.base_offset, appended.last_offset, batch.to_vec()));
            }
            Op::Replay { gap } => {
                let mut batch = batch(2, 10, clock);
                let base = self.model.end + gap;
                taccola_wire::batch::set_base_offset(&mut batch, base);
                taccola_wire::batch::set_partition_leader_epoch(&mut batch, (clock / 70) as i32);
                self.log().append_as_is(&batch, clock).unwrap();
                self.model.end = base + 2;
                self.model.batches.push((base, base + 1, batch.to_vec()));
            }
            Op::Flush => assert_eq!(self.log().flush(clock).unwrap(), self.model.end),
            Op::Truncate { at } => self.truncate(*at),
            Op::DeleteRecords { at } => {
                let offset = self.model.start + ((self.model.end - self.model.start) as f64 * at) as i64;
                assert_eq!(self.log().delete_records_before(offset, clock).unwrap(), offset.max(self.model.start));
                self.model.start = self.model.start.max(offset);
            }
            Op::StartAt { ahead } => {
                let offset = self.model.end + ahead;
                self.log().truncate_fully_and_start_at(offset, clock).unwrap();
                self.model = Model { start: offset, end: offset, ..Model::default() };
            }
            Op::ReopenClean => {
                let point = self.log.take().unwrap().close(clock).unwrap();
                assert_eq!(point, self.model.end);
                self.reopen(clean(point));
            }
            Op::ReopenUnclean => {
                let point = self.log().recovery_point();
                drop(self.log.take());
                self.reopen(unclean(point));
            }
            Op::Retention => {
                // Nothing is old or large enough, so that nothing but what lies below the start may go.
                self.log().apply_retention(clock).unwrap();
                self.log().purge(clock);
            }
        }
        let end = self.model.end;
        self.log().set_high_watermark(end);
    }

    fn truncate(&mut self, at: f64) {
        let clock = self.clock;
        let offset = self.model.start + ((self.model.end - self.model.start) as f64 * at) as i64;
        let is_inside = offset < self.model.end;
        assert_eq!(self.log().truncate_to(offset, clock).unwrap(), is_inside);
        if is_inside {
            let keep = self.model.batches.iter().position(|(_, last, _)| *last >= offset).unwrap();
            self.model.end = self.model.batches[keep].0.min(offset);
            self.model.batches.truncate(keep);
            self.model.start = self.model.start.min(self.model.end);
            let known = self.log().producers();
            self.model.next_sequence = known.first().map_or(0, |producer| producer.last_sequence + 1);
        }
    }

    fn check(&mut self) {
        let model = &self.model;
        let log = self.log.as_ref().unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (model.start, model.end));
        assert!(matches!(read(log, model.end + 1, 1), Err(ReadError::OffsetOutOfRange { .. })));
        for max_bytes in [1, 300, 100_000] {
            let mut offset = model.start;
            while offset < model.end {
                let bytes = read(log, offset, max_bytes).unwrap();
                let first = model.batches.iter().position(|(_, last, _)| *last >= offset).unwrap();
                let mut expected = Vec::new();
                for (_, last, stored) in &model.batches[first..] {
                    if !expected.is_empty() && expected.len() + stored.len() > bytes.len() {
                        break;
                    }
                    expected.extend_from_slice(stored);
                    offset = last + 1;
                }
                assert_eq!(&bytes[..], &expected[..]);
                assert!(bytes.len() <= max_bytes || expected.len() == model.batches[first].2.len());
            }
            assert!(read(log, model.end, max_bytes).unwrap().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_list_of_batches(
        ops in prop::collection::vec(op(), 1..60),
        segment_bytes in 700..3000u32,
        index_interval_bytes in 0..500u32,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig {
            segment_bytes,
            index_interval_bytes,
            segment_ms: 400,
            file_delete_delay_ms: 10,
            producer_id_expiration_ms: i64::MAX,
            ..LogConfig::default()
        };
        let log = create(dir.path(), config.clone());
        let mut rig = Rig { dir, log: Some(log), model: Model::default(), config, clock: 1 };
        for op in &ops {
            rig.apply(op);
            rig.check();
        }
        prop_assert!(rig.log().take_late_reports().is_empty());
    }
}

/// A producer's view: what it sent, in order, and the last five batches of its epoch.
#[derive(Default)]
struct Producer {
    epoch: i16,
    next: Option<i32>,
    window: Vec<(i16, i32, i32, i64)>,
}

fn plus(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// Sends good, repeated, skipped and fenced batches of three producers and compares the verdicts, across restarts
    /// (which forget all but the last batch of each producer).
    #[test]
    fn idempotence_is_kafkas(
        sends in prop::collection::vec((0..3i64, 0..12u8, 1..4i32, 0..7usize), 1..80),
        first_sequence in prop_oneof![Just(0), Just(i32::MAX - 4), 5..100i32],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { segment_bytes: 2000, producer_id_expiration_ms: i64::MAX, ..LogConfig::default() };
        let mut log = create(dir.path(), config.clone());
        let mut producers: Vec<Producer> = (0..3).map(|_| Producer::default()).collect();
        for (id, what, count, back) in sends {
            let producer = &mut producers[id as usize];
            let next = producer.next.unwrap_or(first_sequence);
            let send = |log: &mut PartitionLog, epoch, sequence, count: i32| {
                log.append(&mut producer_batch(count as usize, id, epoch, sequence, false), at(0))
            };
            match what {
                0 if !producer.window.is_empty() => {
                    let index = producer.window.len() - 1 - back.min(producer.window.len() - 1);
                    let (epoch, sequence, count, base_offset) = producer.window[index];
                    let appended = send(&mut log, epoch, sequence, count).unwrap();
                    prop_assert_eq!((appended.base_offset, appended.duplicate), (base_offset, true));
                }
                1 if producer.next.is_some() => {
                    let result = send(&mut log, producer.epoch, plus(next, 1 + back as i32), count);
                    let is_out_of_order = matches!(result, Err(AppendError::OutOfOrderSequence { .. }));
                    prop_assert!(is_out_of_order);
                }
                2 if producer.next.is_some() && producer.epoch > 0 => {
                    let result = send(&mut log, producer.epoch - 1, next, count);
                    let is_fenced = matches!(result, Err(AppendError::InvalidProducerEpoch { .. }));
                    prop_assert!(is_fenced);
                }
                3 if producer.next.is_some() => {
                    let result = send(&mut log, producer.epoch + 1, plus(next, 5), count);
                    prop_assert_eq!(result.is_err(), plus(next, 5) != 0);
                    if result.is_err() {
                        producer.epoch += 1;
                        producer.window.clear();
                        let appended = send(&mut log, producer.epoch, 0, count).unwrap();
                        producer.window.push((producer.epoch, 0, count, appended.base_offset));
                        producer.next = Some(count);
                    }
                }
                4 => {
                    let clean_stop = back % 2 == 0;
                    let hints = if clean_stop { clean(log.close(0).unwrap()) } else { drop(log); unclean(0) };
                    log = open(dir.path(), config.clone(), hints).0;
                    log.producers();
                    for producer in &mut producers {
                        let keep = producer.window.len().saturating_sub(1);
                        producer.window.drain(..keep);
                    }
                }
                _ => {
                    let appended = send(&mut log, producer.epoch, next, count).unwrap();
                    prop_assert!(!appended.duplicate);
                    producer.next = Some(plus(next, count));
                    producer.window.push((producer.epoch, next, count, appended.base_offset));
                    let too_many = producer.window.len().saturating_sub(5);
                    producer.window.drain(..too_many);
                }
            }
        }
    }
}
