//! One behaviour of a log per test: offsets, rolls, indexes, retention, truncation, restarts.

use super::*;

#[test]
fn offsets_are_assigned_and_batches_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    let mut sent = batch(3, 10, 5);
    let context = AppendContext { leader_epoch: 7, ..at(9) };
    let appended = log.append(&mut sent, context).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset, appended.duplicate), (0, 2, false));
    log.append(&mut batch(2, 10, 6), context).unwrap();
    assert_eq!(log.log_end_offset(), 5);
    let header = BatchHeader::parse(&sent).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (0, 7));
    assert_eq!(&read(&log, 0, 1).unwrap()[..], &sent[..]);
    // An offset in the middle brings the whole batch, one byte of room the first batch.
    for (offset, expected) in [(0, (0, 2)), (1, (0, 2)), (2, (0, 2)), (3, (3, 4)), (4, (3, 4))] {
        assert_eq!(ranges(&read(&log, offset, 1).unwrap()), [expected], "{offset}");
    }
    assert_eq!(ranges(&read(&log, 1, 10_000).unwrap()), [(0, 2), (3, 4)]);
    assert!(log.read(0, 1, i64::MAX, false).unwrap().read().unwrap().is_empty());
    assert!(read(&log, 5, 100).unwrap().is_empty());
    assert!(matches!(read(&log, 6, 100), Err(ReadError::OffsetOutOfRange { start: 0, end: 5, .. })));
    assert!(matches!(read(&log, -1, 100), Err(ReadError::OffsetOutOfRange { .. })));
    assert_eq!(ranges(&log.read(0, 10_000, 3, true).unwrap().read().unwrap()), [(0, 2)]);
    assert!(log.read(3, 10_000, 3, true).unwrap().read().unwrap().is_empty());
    assert_eq!(log.bytes_available(5, i64::MAX), 0);
    assert_eq!(log.bytes_available(0, i64::MAX), log.size_bytes());
}

#[test]
fn a_segment_rolls_by_size_time_and_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    for i in 0..20 {
        log.append(&mut batch(2, 50, i), at(0)).unwrap();
    }
    let per_segment = 1000 / batch(2, 50, 0).len();
    assert_eq!(log.segment_count(), 20usize.div_ceil(per_segment));
    assert_eq!(all(&log).len(), 20);

    let mut timed = small_config();
    timed.segment_ms = 1000;
    log.set_config(Arc::new(timed));
    let before = log.segment_count();
    log.append(&mut batch(1, 1, 500_000), at(0)).unwrap();
    assert_eq!(log.segment_count(), before + 1, "the batch is much younger than the segment's first");

    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_index_bytes: 48, index_interval_bytes: 0, ..small_config() };
    let mut log = create(dir.path(), LogConfig { segment_bytes: 1 << 20, ..config });
    for i in 0..10 {
        log.append(&mut batch(1, 10, i), at(0)).unwrap();
    }
    assert!(log.segment_count() > 2, "{}", log.segment_count());
    assert_eq!(all(&log).len(), 10);
}

#[test]
fn too_large_and_malformed_batches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig { max_message_bytes: 200, ..small_config() });
    assert!(matches!(log.append(&mut batch(1, 300, 0), at(0)), Err(AppendError::TooLarge { .. })));
    assert!(log.append(&mut batch(1, 300, 0), coordinator(0)).is_ok());
    assert!(matches!(log.append(&mut batch(1, 2000, 0), coordinator(0)), Err(AppendError::LargerThanSegment { .. })));
    let mut two = batch(1, 1, 0);
    two.extend_from_slice(&batch(1, 1, 0));
    assert!(matches!(log.append(&mut two, at(0)), Err(AppendError::Malformed { .. })));
    assert!(matches!(log.append(&mut [1, 2, 3], at(0)), Err(AppendError::Malformed { .. })));
    assert_eq!(log.log_end_offset(), 1);
}

#[test]
fn log_append_time_is_stamped_and_checksummed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig { log_append_time: true, ..small_config() });
    let appended = log.append(&mut batch(2, 5, 1), at(4242)).unwrap();
    assert_eq!(appended.log_append_time_ms, 4242);
    let bytes = read(&log, 0, 1000).unwrap();
    let header = verify_crc(&bytes).unwrap();
    assert_eq!(header.max_timestamp, 4242);
    assert!(RecordIter::new(&bytes).unwrap().all(|record| record.unwrap().timestamp == 4242));
}

#[test]
fn clean_stop_and_start_reads_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    for i in 0..20 {
        log.append(&mut producer_batch(2, 5, 0, i * 2, false), at(0)).unwrap();
    }
    let ranges_before = all(&log);
    let end = log.close(0).unwrap();
    assert_eq!(end, 40);
    assert!(names(dir.path()).contains(&"00000000000000000040.snapshot".to_owned()), "{:?}", names(dir.path()));

    let shared = LogShared::new(64);
    let open = PartitionLog::open(dir.path(), tp(), None, Arc::new(small_config()), Arc::clone(&shared), clean(end), 0);
    let (mut log, report) = open.unwrap();
    assert_eq!(report, RecoveryReport::default());
    assert_eq!(shared.open_handles(), 0, "a clean start opens no segment");
    assert_eq!((log.log_end_offset(), log.recovery_point()), (40, 40));
    assert_eq!(all(&log), ranges_before);
    // The producer is known with its last five batches: each of them is a duplicate, a gap is refused.
    for sequence in [30, 32, 34, 36, 38] {
        let again = log.append(&mut producer_batch(2, 5, 0, sequence, false), at(0)).unwrap();
        assert_eq!((again.base_offset, again.duplicate), (i64::from(sequence), true));
    }
    assert!(matches!(
        log.append(&mut producer_batch(1, 5, 0, 50, false), at(0)),
        Err(AppendError::OutOfOrderSequence { .. })
    ));
    log.append(&mut producer_batch(1, 5, 0, 40, false), at(0)).unwrap();
    assert_eq!(log.log_end_offset(), 41);
    assert!(log.take_late_reports().is_empty());
}

#[test]
fn unclean_start_recovers_all_that_reached_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    for i in 0..20 {
        log.append(&mut producer_batch(2, 5, 0, i * 2, false), AppendContext { leader_epoch: i / 7, ..at(0) }).unwrap();
        if i == 9 {
            assert_eq!(log.flush(0).unwrap(), 20);
        }
    }
    let ranges_before = all(&log);
    let epochs_before: Vec<_> = (0..4).map(|epoch| log.epoch_end_offset(epoch)).collect();
    drop(log);
    for point in [0, 20] {
        let (log, report) = open(dir.path(), small_config(), unclean(point));
        assert_eq!(log.log_end_offset(), 40);
        assert_eq!(log.recovery_point(), point);
        assert_eq!((report.truncated_bytes, report.quarantined.len()), (0, 0));
        assert_eq!(all(&log), ranges_before);
        assert_eq!(log.producers()[0].last_sequence, 39);
        assert_eq!((0..4).map(|epoch| log.epoch_end_offset(epoch)).collect::<Vec<_>>(), epochs_before);
        if point == 20 {
            assert!(report.bytes_scanned < log.size_bytes(), "only what is behind the recovery point");
        }
    }
}

#[test]
fn a_log_that_was_only_recovered_leaves_its_producers_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    log.append(&mut producer_batch(2, 5, 0, 0, true), at(0)).unwrap();
    drop(log);
    let (log, _) = open(dir.path(), small_config(), unclean(0));
    assert_eq!(log.close(0).unwrap(), 2);
    assert!(names(dir.path()).contains(&"00000000000000000002.snapshot".to_owned()), "{:?}", names(dir.path()));
    let (log, _) = open(dir.path(), small_config(), clean(2));
    assert_eq!(log.last_stable_offset(), 0, "the transaction is open still");
}

#[test]
fn a_torn_tail_is_cut_off_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    log.append(&mut batch(2, 10, 1), at(0)).unwrap();
    let whole = log.size_bytes();
    log.append(&mut batch(2, 10, 2), at(0)).unwrap();
    let torn = log.size_bytes() - 7;
    drop(log);
    let path = dir.path().join("t-0/00000000000000000000.log");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(torn).unwrap();
    let (mut log, report) = open(dir.path(), LogConfig::default(), unclean(0));
    assert_eq!((report.truncated_bytes, report.truncated_from_offset), (torn - whole, Some(2)));
    assert_eq!(log.log_end_offset(), 2);
    assert_eq!(log.append(&mut batch(1, 10, 3), at(0)).unwrap().base_offset, 2);
    assert_eq!(all(&log), [(0, 1), (2, 2)]);
}

#[test]
fn damage_in_the_middle_is_quarantined_and_what_follows_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    for i in 0..5 {
        log.append(&mut batch(2, 10, i), at(0)).unwrap();
    }
    let size = log.size_bytes() / 5;
    drop(log);
    let path = dir.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[size as usize * 2 + 70] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (log, report) = open(dir.path(), LogConfig::default(), unclean(0));
    assert_eq!(report.quarantined.len(), 1);
    let range = &report.quarantined[0];
    assert_eq!((range.first_offset, range.next_valid_offset), (4, 6));
    assert_eq!((range.start_position, range.end_position), (size * 2, size * 3));
    let end = log.log_end_offset();
    assert_eq!(end, 10);
    let check = |log: &PartitionLog| {
        assert_eq!(ranges(&read(log, 0, 10_000).unwrap()), [(0, 1), (2, 3)]);
        for offset in [4, 5] {
            assert!(matches!(read(log, offset, 100), Err(ReadError::CorruptRecord { first: 4, next_valid: 6, .. })));
        }
        assert_eq!(ranges(&read(log, 6, 10_000).unwrap()), [(6, 7), (8, 9)]);
    };
    check(&log);
    assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len(), "nothing is cut off");
    let point = log.close(0).unwrap();
    let (mut log, report) = open(dir.path(), LogConfig::default(), clean(point));
    assert_eq!(report, RecoveryReport::default());
    check(&log);
    assert_eq!(log.append(&mut batch(1, 10, 3), at(0)).unwrap().base_offset, 10);
    check(&log);
    let (log, _) = {
        drop(log);
        open(dir.path(), LogConfig::default(), unclean(0))
    };
    check(&log);
    assert_eq!(log.log_end_offset(), 11);
}

#[test]
fn flushed_records_that_are_gone_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    for i in 0..3 {
        log.append(&mut batch(2, 10, i), at(0)).unwrap();
    }
    assert_eq!(log.flush(0).unwrap(), 6);
    let size = log.size_bytes() / 3;
    drop(log);
    let path = dir.path().join("t-0/00000000000000000000.log");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size + 10).unwrap();
    let (mut log, report) = open(dir.path(), LogConfig::default(), unclean(6));
    assert_eq!(report.truncated_bytes, 0);
    assert_eq!((report.quarantined[0].first_offset, report.quarantined[0].next_valid_offset), (2, 6));
    assert_eq!(log.log_end_offset(), 6, "an acknowledged offset is not given out again");
    assert_eq!(log.append(&mut batch(1, 10, 3), at(0)).unwrap().base_offset, 6);
    assert!(matches!(read(&log, 3, 10), Err(ReadError::CorruptRecord { first: 2, next_valid: 6, .. })));
    assert_eq!(ranges(&read(&log, 6, 10).unwrap()), [(6, 6)]);
}

#[test]
fn transactions_hold_the_last_stable_offset_and_aborts_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    log.append(&mut batch(1, 5, 0), at(0)).unwrap();
    log.append(&mut producer_batch(2, 1, 0, 0, true), at(0)).unwrap(); // 1..=2
    log.append(&mut producer_batch(2, 2, 0, 0, true), at(0)).unwrap(); // 3..=4
    let end = log.log_end_offset();
    log.set_high_watermark(end);
    assert_eq!((log.last_stable_offset(), log.ongoing_txn(1, 0), log.ongoing_txn(1, 1)), (1, Some(1), None));
    log.append(&mut marker(1, 0, false, 3), coordinator(0)).unwrap(); // 5
    assert_eq!(log.last_stable_offset(), 1, "the marker is not below the high watermark");
    log.set_high_watermark(6);
    assert_eq!(log.last_stable_offset(), 3);
    log.append(&mut marker(2, 0, true, 3), coordinator(0)).unwrap(); // 6
    log.set_high_watermark(7);
    assert_eq!(log.last_stable_offset(), 7);
    let aborted = AbortedTxn { producer_id: 1, first_offset: 1, last_offset: 5, last_stable_offset: 3 };
    assert_eq!(log.aborted_txns(0, 7).unwrap(), [aborted]);
    assert_eq!(log.aborted_txns(6, 7).unwrap(), []);
    assert_eq!(log.aborted_txns(0, 1).unwrap(), []);
    // A coordinator that was replaced, and a marker of an older epoch.
    assert!(matches!(
        log.append(&mut marker(1, 0, true, 2), coordinator(0)),
        Err(AppendError::CoordinatorFenced { found: 2, current: 3, .. })
    ));
    log.append(&mut producer_batch(1, 1, 1, 0, true), at(0)).unwrap(); // 7
    assert!(matches!(
        log.append(&mut marker(1, 0, true, 3), coordinator(0)),
        Err(AppendError::InvalidProducerEpoch { .. })
    ));
    assert!(matches!(
        log.append(&mut marker(1, 1, true, 3), coordinator(2)),
        Err(AppendError::InvalidProducerEpoch { .. })
    ));
    assert!(matches!(
        log.append(&mut producer_batch(1, 1, 1, 1, false), at(0)),
        Err(AppendError::InvalidTxnState { .. })
    ));
    log.append(&mut marker(1, 2, false, 3), coordinator(2)).unwrap();
    log.append(&mut marker(1, 2, false, 3), coordinator(2)).unwrap();
    let expected = log.aborted_txns(0, 100).unwrap();
    assert_eq!(expected.len(), 2);
    for (txn_index, hints) in
        [("keep", unclean(0)), ("keep", unclean(7)), ("damage", clean(10)), ("damage", unclean(9))]
    {
        drop(log);
        if txn_index == "damage" {
            for name in names(dir.path()).iter().filter(|name| name.ends_with("txnindex")) {
                std::fs::write(dir.path().join("t-0").join(name), b"nonsense").unwrap();
            }
        }
        (log, _) = open(dir.path(), small_config(), hints);
        assert_eq!(log.aborted_txns(0, 100).unwrap(), expected, "{hints:?}");
        log.set_high_watermark(100);
        assert_eq!(log.last_stable_offset(), 10);
    }
}

#[test]
fn idempotence_window_and_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    let mut send = |sequence, count, epoch| {
        let appended = log.append(&mut producer_batch(count, 9, epoch, sequence, false), at(0))?;
        Ok::<_, AppendError>((appended.base_offset, appended.last_offset, appended.duplicate))
    };
    // A producer that is not known may begin anywhere; sequences wrap behind i32::MAX.
    assert_eq!(send(i32::MAX - 1, 1, 3).unwrap(), (0, 0, false));
    assert_eq!(send(i32::MAX, 3, 3).unwrap(), (1, 3, false));
    assert_eq!(send(2, 2, 3).unwrap(), (4, 5, false));
    assert_eq!(send(4, 1, 3).unwrap(), (6, 6, false));
    assert_eq!(send(5, 1, 3).unwrap(), (7, 7, false));
    assert_eq!(send(i32::MAX - 1, 1, 3).unwrap(), (0, 0, true));
    assert_eq!(send(i32::MAX, 3, 3).unwrap(), (1, 3, true));
    assert_eq!(send(6, 1, 3).unwrap(), (8, 8, false));
    assert!(matches!(send(i32::MAX - 1, 1, 3), Err(AppendError::OutOfOrderSequence { .. })), "the sixth last");
    assert_eq!(send(i32::MAX, 3, 3).unwrap(), (1, 3, true));
    assert!(matches!(send(i32::MAX, 2, 3), Err(AppendError::OutOfOrderSequence { .. })), "another length");
    assert!(matches!(send(8, 1, 3), Err(AppendError::OutOfOrderSequence { found: 8, last: 6, .. })));
    assert!(matches!(send(7, 1, 2), Err(AppendError::InvalidProducerEpoch { found: 2, current: 3, .. })));
    assert!(matches!(send(7, 1, 4), Err(AppendError::OutOfOrderSequence { .. })), "a new epoch begins at 0");
    assert_eq!(send(0, 1, 4).unwrap(), (9, 9, false));
    assert_eq!(send(0, 1, 4).unwrap(), (9, 9, true));
    assert_eq!(log.producer_epoch(9), Some(4));
    assert_eq!(log.expire_producers(i64::MAX), 1);
    assert_eq!(log.append(&mut producer_batch(1, 9, 0, 77, false), at(0)).unwrap().base_offset, 10);
}

/// A batch that comes again after its transaction, whose verification goes nowhere, must not be what the next batches are
/// measured by.
#[test]
fn late_batches_of_a_transaction_do_not_stand_in_the_way_of_the_next() {
    for bumps_epoch in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = create(dir.path(), LogConfig::default());
        let first = |log: &mut PartitionLog, sequence, epoch| {
            let guard = log.start_verification(9, epoch, sequence, bumps_epoch);
            let context = AppendContext { origin: AppendOrigin::ClientTransaction { guard }, ..at(0) };
            log.append(&mut producer_batch(2, 9, epoch, sequence, true), context)
        };
        let end = |log: &mut PartitionLog, epoch| {
            let marker = end_txn_marker(0, 9, epoch, &ControlRecord::Commit { coordinator_epoch: 0 }).unwrap();
            log.append(&mut marker.to_vec(), coordinator(0)).unwrap();
        };
        first(&mut log, 0, 3).unwrap();
        let next = i16::from(bumps_epoch) + 3;
        end(&mut log, next);
        // The coordinator is asked for the late one, and refuses; or a newer epoch is known, and nobody is asked.
        assert_eq!(log.start_verification(9, 3, 0, bumps_epoch).is_some(), !bumps_epoch);
        let base = if bumps_epoch { 0 } else { 2 };
        first(&mut log, base, next).unwrap();
        assert_eq!(log.start_verification(9, 3, 0, bumps_epoch), None);
        first(&mut log, base + 2, next).unwrap();
        // Of the same epoch: what overtakes is refused still.
        end(&mut log, next + i16::from(bumps_epoch));
        let (next, base) = (next + i16::from(bumps_epoch), if bumps_epoch { 0 } else { 6 });
        let guard = log.start_verification(9, next, base, bumps_epoch);
        let context = AppendContext { origin: AppendOrigin::ClientTransaction { guard }, ..at(0) };
        let overtaking = log.append(&mut producer_batch(2, 9, next, base + 2, true), context);
        assert!(matches!(overtaking, Err(AppendError::OutOfOrderSequence { .. })), "{overtaking:?}");
    }
}

#[test]
fn time_lookups() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    assert_eq!(log.offset_for_timestamp(TimestampQuery::At(0)).unwrap(), None);
    assert_eq!(log.offset_for_timestamp(TimestampQuery::MaxTimestamp).unwrap(), None);
    for i in 0..30 {
        log.append(&mut batch(2, 40, i * 10), AppendContext { leader_epoch: 2, ..at(0) }).unwrap();
    }
    let point = log.close(0).unwrap();
    for hints in [clean(point), unclean(0)] {
        let (mut log, _) = open(dir.path(), small_config(), hints);
        let at = |log: &PartitionLog, query| {
            log.offset_for_timestamp(query).unwrap().map(|found| (found.offset, found.timestamp_ms, found.leader_epoch))
        };
        for i in 0..30 {
            assert_eq!(at(&log, TimestampQuery::At(i * 10)), Some((i * 2, i * 10, 2)));
            assert_eq!(at(&log, TimestampQuery::At(i * 10 + 1)), Some((i * 2 + 1, i * 10 + 1, 2)));
        }
        assert_eq!(at(&log, TimestampQuery::At(300)), None);
        assert_eq!(at(&log, TimestampQuery::MaxTimestamp), Some((59, 291, 2)));
        assert_eq!(at(&log, TimestampQuery::Latest), Some((60, -1, 2)));
        assert_eq!(at(&log, TimestampQuery::LatestTiered), Some((-1, -1, -1)));
        log.set_high_watermark(60);
        if !hints.clean {
            log.delete_records_before(31, 0).unwrap();
            assert_eq!(at(&log, TimestampQuery::Earliest), Some((31, -1, 2)));
            assert_eq!(at(&log, TimestampQuery::At(0)), Some((31, 151, 2)), "never below the log start offset");
        }
    }
}

#[test]
fn delete_records_and_retention() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig { retention_ms: 1000, file_delete_delay_ms: 100, ..small_config() });
    for i in 0..30 {
        log.append(&mut batch(2, 40, i * 10), at(0)).unwrap();
    }
    log.set_high_watermark(60);
    let segments = log.segment_count();
    assert_eq!(log.delete_records_before(25, 0).unwrap(), 25);
    assert!(log.segment_count() < segments);
    assert!(matches!(read(&log, 24, 10), Err(ReadError::OffsetOutOfRange { start: 25, .. })));
    assert_eq!(ranges(&read(&log, 25, 10).unwrap()), [(24, 25)]);
    assert!(matches!(log.delete_records_before(61, 0), Err(LogError::OffsetOutOfRange { .. })));
    assert!(names(dir.path()).iter().any(|name| name.ends_with(".log.deleted")));
    assert!(log.purge(99) > 0);
    assert_eq!(log.purge(100), 0);
    assert!(!names(dir.path()).iter().any(|name| name.ends_with(".deleted")));
    // A restart keeps the start, from the checkpoint.
    let point = log.close(0).unwrap();
    let hints = OpenHints { log_start_offset: 25, ..clean(point) };
    let (mut log, _) = open(dir.path(), LogConfig { retention_ms: 1000, ..small_config() }, hints);
    assert_eq!((log.log_start_offset(), log.high_watermark()), (25, 25));
    // Time: what two calls agree on. Above the high watermark nothing goes.
    assert_eq!(log.apply_retention(1170).unwrap().segments_removed, 0);
    assert_eq!(log.apply_retention(1170).unwrap().segments_removed, 0);
    log.set_high_watermark(60);
    assert_eq!(log.apply_retention(1170).unwrap(), RetentionOutcome::default());
    assert_eq!(log.apply_retention(1300).unwrap(), RetentionOutcome::default(), "only one call says so yet");
    let outcome = log.apply_retention(1300).unwrap();
    assert!(outcome.segments_removed >= 1 && log.log_start_offset() > 25, "{outcome:?}");
    assert_eq!(outcome.new_log_start_offset, Some(log.log_start_offset()));
    log.apply_retention(i64::MAX).unwrap();
    log.apply_retention(i64::MAX).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size_bytes()), (60, 60, 0));
    assert_eq!(log.append(&mut batch(1, 1, 0), at(0)).unwrap().base_offset, 60);

    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig { retention_bytes: 1500, retention_ms: -1, ..small_config() });
    for i in 0..30 {
        log.append(&mut batch(2, 40, i * 10), at(0)).unwrap();
    }
    log.set_high_watermark(60);
    log.apply_retention(0).unwrap();
    assert!(log.size_bytes() >= 1500 && log.size_bytes() <= 2500, "{}", log.size_bytes());
}

#[test]
fn truncation_and_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    for i in 0..20 {
        let context = AppendContext { leader_epoch: i / 5, ..at(0) };
        log.append(&mut producer_batch(2, 1, 0, i * 2, false), context).unwrap();
    }
    assert_eq!(log.epoch_end_offset(1), EpochEndOffset { leader_epoch: 1, end_offset: 20 });
    assert_eq!(log.epoch_end_offset(9), EpochEndOffset { leader_epoch: -1, end_offset: -1 });
    assert_eq!(log.epoch_for_offset(19), Some(1));
    assert!(!log.truncate_to(40, 0).unwrap());
    assert!(log.truncate_to(17, 0).unwrap());
    assert_eq!(log.log_end_offset(), 16, "the batch 16..=17 goes as a whole");
    assert_eq!(log.latest_leader_epoch(), Some(1));
    assert_eq!(log.producers()[0].last_sequence, 15);
    assert_eq!(all(&log).len(), 8);
    let appended =
        log.append(&mut producer_batch(2, 1, 0, 16, false), AppendContext { leader_epoch: 9, ..at(0) }).unwrap();
    assert_eq!(appended.base_offset, 16);
    assert_eq!(all(&log).len(), 9);
    log.truncate_fully_and_start_at(100, 0).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.latest_leader_epoch()), (100, 100, None));
    assert_eq!(log.append(&mut batch(1, 1, 0), at(0)).unwrap().base_offset, 100);
    drop(log);
    let (log, _) = open(dir.path(), small_config(), unclean(0));
    assert_eq!(all(&log), [(100, 100)]);
}

#[test]
fn replayed_batches_keep_their_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = create(dir.path(), small_config());
    let mut kept = Vec::new();
    for i in 0..4 {
        let mut sent = batch(2, 10, i);
        source.append(&mut sent, at(0)).unwrap();
        kept.push(sent);
    }
    let other = tempfile::tempdir().unwrap();
    let mut log = create(other.path(), small_config());
    log.append_as_is(&kept[1], 0).unwrap();
    assert!(matches!(log.append_as_is(&kept[0], 0), Err(AppendError::OffsetsNotMonotonic { end: 4, .. })));
    log.append_as_is(&kept[3], 0).unwrap();
    assert_eq!(log.log_end_offset(), 8);
    assert_eq!(ranges(&read(&log, 6, 10).unwrap()), [(6, 7)]);
    drop(log);
    let (log, report) = open(other.path(), small_config(), unclean(0));
    assert_eq!((log.log_end_offset(), report.quarantined.len()), (8, 2), "both gaps are named");
    assert_eq!(ranges(&read(&log, 2, 10).unwrap()), [(2, 3)]);
}

#[test]
fn deleted_segments_stay_readable_for_running_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    for i in 0..20 {
        log.append(&mut batch(2, 40, i), at(0)).unwrap();
    }
    let slice = log.read(0, 300, i64::MAX, true).unwrap();
    log.set_high_watermark(40);
    log.delete_records_before(40, 0).unwrap();
    log.purge(i64::MAX);
    assert_eq!(ranges(&slice.read().unwrap())[0], (0, 1));
    let path = log.rename_for_delete(Uuid::from_u128(5)).unwrap().unwrap();
    assert!(path.to_str().unwrap().ends_with("t-0.00000000000000000000000000000005-delete"));
    crate::log_dir::remove_deleted_dir(&path).unwrap();
}

#[test]
fn another_topic_of_the_same_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path(), small_config()));
    let other = Some(Uuid::from_u128(78));
    let opened = PartitionLog::open(dir.path(), tp(), other, Arc::new(small_config()), LogShared::new(4), clean(0), 0);
    assert!(matches!(opened, Err(LogError::InconsistentTopicId { .. })));
}

#[test]
fn an_idle_log_is_small() {
    assert!(size_of::<PartitionLog>() + size_of::<crate::segment::Segment>() < 1024);
}

#[test]
fn the_journal_puts_damaged_batches_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    let mut journal = Vec::new();
    for i in 0..8 {
        let (mut sent, context) = match i {
            6 => (marker(5, 0, false, 1), coordinator(0)),
            _ => (producer_batch(2, 5, 0, i.min(6) * 2, true), at(0)),
        };
        log.append(&mut sent, context).unwrap();
        journal.push(sent);
    }
    let end = log.log_end_offset();
    let expected = (all(&log), log.producers(), log.aborted_txns(0, end).unwrap());
    let size = journal[0].len();
    drop(log);
    // As a power cut leaves it: a hole in the middle, the last batches gone.
    let path = dir.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[size * 2..size * 4 + 30].fill(0);
    bytes.truncate(size * 6 + journal[6].len());
    std::fs::write(&path, &bytes).unwrap();
    let (mut log, report) = open(dir.path(), LogConfig::default(), unclean(0));
    assert_eq!((report.quarantined.len(), log.log_end_offset()), (1, end - 2));
    let replayed: Vec<_> = journal.iter().map(|batch| log.replay(batch, 0).unwrap()).collect();
    use Replayed::{Appended as A, Present as P, Repaired as R};
    assert_eq!(replayed, [P, P, R, R, R, P, P, A]);
    assert_eq!(log.finish_replay(0).unwrap().quarantined, []);
    assert_eq!(log.quarantined(), []);
    assert_eq!((all(&log), log.producers(), log.aborted_txns(0, end).unwrap()), expected);
    let point = log.close(0).unwrap();
    assert_eq!(point, end);
    let (log, report) = open(dir.path(), LogConfig::default(), clean(point));
    assert_eq!((report, all(&log)), (RecoveryReport::default(), expected.0));
}

/// DeleteRecords moved the log start offset into a batch, then a power cut took all of the log.
#[test]
fn the_journal_puts_back_a_batch_in_which_the_log_begins() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    let mut journal = Vec::new();
    for i in 0..4 {
        let mut sent = producer_batch(3, 5, 0, i * 3, false);
        log.append(&mut sent, at(0)).unwrap();
        journal.push(sent);
    }
    drop(log);
    for (start, found) in [(0, 4), (1, 4), (3, 3), (4, 3), (11, 1), (12, 0)] {
        std::fs::remove_dir_all(dir.path().join("t-0")).unwrap();
        std::fs::create_dir(dir.path().join("t-0")).unwrap();
        let hints = OpenHints { log_start_offset: start, ..OpenHints::default() };
        let (mut log, _) = open(dir.path(), LogConfig::default(), hints);
        let appended = journal.iter().filter(|batch| log.replay(batch, 0).unwrap() == Replayed::Appended).count();
        log.finish_replay(0).unwrap();
        log.set_high_watermark(i64::MAX);
        assert_eq!((appended, log.log_start_offset(), log.log_end_offset()), (found, start, 12));
        for offset in start..12 {
            assert_eq!(ranges(&read(&log, offset, 1).unwrap()), [(offset / 3 * 3, offset / 3 * 3 + 2)]);
        }
        let point = log.close(0).unwrap();
        let hints = OpenHints { recovery_point: point, log_start_offset: start, clean: true, ..OpenHints::default() };
        let (log, report) = open(dir.path(), LogConfig::default(), hints);
        assert_eq!((report, log.log_start_offset(), log.log_end_offset()), (RecoveryReport::default(), start, 12));
    }
}

#[test]
fn truncation_around_damage() {
    for (offset, expected) in [(3, 2), (4, 4), (5, 4), (6, 6), (8, 8)] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = create(dir.path(), LogConfig::default());
        for i in 0..5 {
            log.append(&mut batch(2, 10, i), at(0)).unwrap();
        }
        let size = log.size_bytes() as usize / 5;
        drop(log);
        let path = dir.path().join("t-0/00000000000000000000.log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[size * 2..size * 3].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let (mut log, _) = open(dir.path(), LogConfig::default(), unclean(0));
        assert_eq!(log.quarantined().len(), 1);
        assert!(log.truncate_to(offset, 0).unwrap());
        assert_eq!(log.log_end_offset(), expected, "{offset}");
        assert_eq!(log.quarantined().len(), usize::from(expected > 4));
        assert_eq!(log.append(&mut batch(1, 10, 9), at(0)).unwrap().base_offset, expected);
        assert_eq!(ranges(&read(&log, expected, 10).unwrap()), [(expected, expected)]);
        drop(log);
        let (log, _) = open(dir.path(), LogConfig::default(), unclean(0));
        assert_eq!(log.log_end_offset(), expected + 1);
    }
}

#[test]
fn a_batch_inside_a_damaged_value_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    log.append(&mut batch(2, 10, 0), at(0)).unwrap();
    // A value that holds batches which would fit the log.
    let mut inner = Vec::new();
    for base in 2..8 {
        let mut one = batch(1, 5, 0);
        taccola_wire::batch::set_base_offset(&mut one, base);
        inner.extend_from_slice(&one);
    }
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..5 {
        builder.append(0, None, Some(&inner), &[]);
    }
    log.append(&mut build(builder), at(0)).unwrap();
    log.append(&mut batch(2, 10, 0), at(0)).unwrap();
    let first_size = batch(2, 10, 0).len();
    let point = log.close(0).unwrap();
    let path = dir.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[first_size + 30] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    for hints in [clean(point), unclean(0)] {
        let (log, _) = open(dir.path(), LogConfig::default(), hints);
        for offset in 2..7 {
            let refused = read(&log, offset, 1000);
            assert!(matches!(refused, Err(ReadError::CorruptRecord { first: 2, next_valid: 7, .. })), "{refused:?}");
        }
        assert_eq!(ranges(&read(&log, 7, 1000).unwrap()), [(7, 8)]);
    }
}

#[test]
fn an_end_that_was_believed_wrongly_is_found_out_before_offsets_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), LogConfig::default());
    for i in 0..5 {
        log.append(&mut batch(2, 10, i), at(0)).unwrap();
    }
    log.close(0).unwrap();
    // A checkpoint and a snapshot that agree on a wrong offset.
    let folder = dir.path().join("t-0");
    let snapshot = |offset: i64| folder.join(format!("{offset:020}.snapshot"));
    std::fs::rename(snapshot(10), snapshot(6)).unwrap();
    let (mut log, _) = open(dir.path(), LogConfig::default(), clean(6));
    assert_eq!(log.log_end_offset(), 6);
    let mut sent = batch(1, 10, 9);
    assert_eq!(log.append(&mut sent, at(0)).unwrap().base_offset, 10);
    assert_eq!(BatchHeader::parse(&sent).unwrap().base_offset, 10);
    assert_eq!(log.take_late_reports().len(), 1);
    assert_eq!(all(&log), [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 10)]);
}

#[test]
fn a_flush_outside_the_lock_covers_what_was_there_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = unborn(dir.path(), small_config());
    assert!(log.begin_flush().unwrap().is_none());
    for i in 0..4 {
        log.append(&mut batch(2, 10, i), at(0)).unwrap();
    }
    let plan = log.begin_flush().unwrap().unwrap();
    assert_eq!(plan.end_offset(), 8);
    assert!(log.begin_flush().unwrap().is_none(), "one at a time");
    log.append(&mut batch(2, 10, 9), at(0)).unwrap();
    let result = plan.run();
    assert_eq!(log.end_flush(plan, result, 5).unwrap(), 8);
    assert_eq!((log.unflushed_messages(), log.last_flush_ms()), (2, 5));
    // What is written in place of records that were cut off while the flush ran is not flushed.
    let plan = log.begin_flush().unwrap().unwrap();
    log.truncate_to(4, 0).unwrap();
    log.append(&mut batch(6, 10, 9), at(0)).unwrap();
    let result = plan.run();
    assert_eq!(log.end_flush(plan, result, 6).unwrap(), 4);
    assert_eq!(log.flush(7).unwrap(), 10);
}

#[test]
fn nothing_is_on_disk_before_the_first_write() {
    let dir = tempfile::tempdir().unwrap();
    let entries = || std::fs::read_dir(dir.path()).unwrap().count();
    let mut log = unborn(dir.path(), small_config());
    assert_eq!(log.read(0, 100, i64::MAX, true).unwrap().read().unwrap().len(), 0);
    assert_eq!(log.offset_for_timestamp(TimestampQuery::At(0)).unwrap(), None);
    assert_eq!(log.offset_for_timestamp(TimestampQuery::MaxTimestamp).unwrap(), None);
    assert!(log.aborted_txns(0, 0).unwrap().is_empty());
    log.apply_retention(i64::MAX).unwrap();
    assert_eq!(log.cleanable(None, 0).unwrap(), None);
    assert_eq!((log.delete_records_before(0, 0).unwrap(), log.flush(0).unwrap()), (0, 0));
    assert_eq!(log.close(0).unwrap(), 0);
    assert_eq!(entries(), 0);
    assert_eq!(unborn(dir.path(), small_config()).rename_for_delete(Uuid::from_u128(5)).unwrap(), None);

    let mut log = unborn(dir.path(), small_config());
    log.append(&mut batch(1, 40, 1), at(0)).unwrap();
    log.flush(0).unwrap();
    assert_eq!(entries(), 1);
    drop(log);
    let (log, _) = PartitionLog::open(
        dir.path(),
        tp(),
        None,
        Arc::new(small_config()),
        LogShared::new(4),
        OpenHints::default(),
        0,
    )
    .unwrap();
    assert_eq!((log.log_end_offset(), log.topic_id()), (1, Some(Uuid::from_u128(77))));
    let again = PartitionLog::create(dir.path(), tp(), None, Arc::new(small_config()), LogShared::new(4));
    assert!(again.is_err(), "a folder that is there is opened, not made");
}

#[cfg(unix)]
#[test]
fn recovery_writes_no_epochs_that_the_file_has() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mut log = create(dir.path(), small_config());
    log.append(&mut batch(2, 10, 1_000), at(1_000)).unwrap();
    log.flush(1_000).unwrap();
    let file = log.dir().join(crate::checkpoint::LEADER_EPOCH_CHECKPOINT);
    let inode = || std::fs::metadata(&file).unwrap().ino();
    let before = inode();
    drop(log);
    // Killed: everything was flushed, or nothing of the last batches.
    for recovery_point in [2, 0] {
        let (mut log, _) = open(dir.path(), small_config(), unclean(recovery_point));
        assert!(log.begin_flush().unwrap().is_some_and(|plan| plan.run().is_ok()));
        assert_eq!(inode(), before, "recovery point {recovery_point}");
        assert_eq!(log.epochs().entries(), [(0, 0)]);
    }
}
