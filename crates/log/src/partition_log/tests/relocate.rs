//! A log that moves to another directory (`relocate.rs`): what is copied, what stays behind, and what a crash in between leaves.

use super::*;
use crate::log_dir;
use crate::partition_log::OriginalLog;

fn future(dir: &Path) -> PartitionLog {
    let id = Uuid::from_u128(9);
    PartitionLog::create_future(dir, tp(), Some(Uuid::from_u128(77)), id, Arc::new(small_config()), LogShared::new(64))
        .unwrap()
}

/// Copies all that there is.
fn copy_all(original: &PartitionLog, copy: &mut PartitionLog) -> OriginalLog {
    let seen = original.as_original();
    let mut next = seen.log_start_offset;
    while next < seen.log_end_offset {
        let bytes = original.read(next, 500, i64::MAX, true).unwrap().read().unwrap();
        next = copy.copy_from(&bytes, &seen, 0).unwrap();
    }
    seen
}

#[test]
fn a_copy_has_every_batch_and_takes_the_place() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut original = create(from.path(), small_config());
    for i in 0..40 {
        original.append(&mut batch(2, 40, i), at(0)).unwrap();
    }
    original.set_high_watermark(80);
    original.delete_records_before(33, 0).unwrap();
    let mut copy = future(to.path());
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0, "nothing before the first batch");
    let seen = copy_all(&original, &mut copy);
    assert_eq!((seen.log_start_offset, seen.is_unborn), (33, false));
    // The batch that holds the first offset came whole.
    assert_eq!((copy.log_start_offset(), copy.log_end_offset()), (32, 80));
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names(to.path()), ["t-0.00000000000000000000000000000009-future"]);
    assert_eq!(log_dir::futures(to.path()).unwrap().len(), 1);
    assert_eq!(log_dir::scan(to.path(), "-").unwrap().partitions.len(), 0);
    copy.set_high_watermark(80);
    copy.delete_records_before(33, 0).unwrap();
    copy.flush(0).unwrap();
    copy.become_current().unwrap();
    assert_eq!(names(to.path()), ["t-0"]);
    for offset in 33..80 {
        let read = |log: &PartitionLog| log.read(offset, 1, 80, true).unwrap().read().unwrap();
        assert_eq!(read(&copy), read(&original), "offset {offset}");
    }
    assert_eq!(copy.append(&mut batch(1, 40, 9), at(0)).unwrap().base_offset, 80);
}

#[test]
fn gaps_of_a_compacted_log_stay_inside_a_segment() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut original = create(from.path(), LogConfig { cleanup_compact: true, ..LogConfig::default() });
    for i in 0..10 {
        original.append(&mut batch(1, 40, i), at(0)).unwrap();
    }
    let bytes = original.read(0, 100_000, i64::MAX, true).unwrap().read().unwrap();
    // Every other batch was compacted away.
    let mut kept = Vec::new();
    for batch in taccola_wire::batch::batches(&bytes).map(|batch| batch.unwrap()).step_by(2) {
        kept.extend_from_slice(batch.bytes);
    }
    let mut copy = future(to.path());
    assert_eq!(copy.copy_from(&kept, &original.as_original(), 0).unwrap(), 9);
    let folder = copy.dir().to_path_buf();
    let segments = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log")).count()
    };
    assert_eq!(segments(&folder), 1);
    copy.flush(0).unwrap();
    copy.become_current().unwrap();
    drop(copy);
    let hints = OpenHints { compacted: true, ..OpenHints::default() };
    let (log, report) =
        PartitionLog::open(to.path(), tp(), None, Arc::new(small_config()), LogShared::new(4), hints, 0).unwrap();
    assert!(report.quarantined.is_empty(), "{report:?}");
    assert_eq!(log.log_end_offset(), 9);
}
