//! Over real files.

use std::path::Path;

use taccola_base::Uuid;

use super::super::device::FileDevice;
use super::super::{
    DirectIo, EntryHeader, EntryKind, FrameSeq, JOURNAL_FILE, Journal, JournalConfig, JournalError, StageError, open,
};
use super::{entry, identity};

const MIB: u64 = 1024 * 1024;

fn config(dir: &Path) -> JournalConfig {
    JournalConfig::in_log_dir(dir).size_bytes(MIB)
}

fn write_one(journal: &mut Journal, entry: &EntryHeader<'_>, records: &[u8]) -> FrameSeq {
    journal.staging.stage(entry, records).unwrap();
    let mut frame = journal.staging.take().unwrap();
    let seq = journal.writer.write(&mut frame).unwrap();
    journal.staging.give_back(frame);
    seq
}

#[test]
fn entries_come_back_in_order_until_the_stop_was_clean() {
    for direct_io in [DirectIo::Auto, DirectIo::Off] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path()).direct_io(direct_io);
        let recovery = open(config.clone(), identity()).unwrap();
        assert!(recovery.was_clean());
        let mut journal = recovery.start(Uuid::from_u128(10 << 64)).unwrap();
        write_one(&mut journal, &entry(0, 0, 3), b"first");
        let cut = EntryHeader { kind: EntryKind::Truncate, ..entry(0, 1, 1) };
        journal.staging.stage(&cut, b"").unwrap();
        write_one(&mut journal, &entry(0, 1, 2), &[7; 100_000]);
        drop(journal);

        let mut recovery = open(config.clone(), identity()).unwrap();
        assert!(!recovery.was_clean());
        let first = recovery.next_frame().unwrap().unwrap();
        assert_eq!((&first.entries[0].records[..], first.entries[0].topic.as_str()), (&b"first"[..], "orders"));
        let second = recovery.next_frame().unwrap().unwrap();
        assert_eq!(second.entries[0].kind, EntryKind::Truncate);
        assert_eq!(second.entries[1].records, vec![7; 100_000]);
        assert!(recovery.next_frame().unwrap().is_none());

        let journal = recovery.start(Uuid::from_u128(11 << 64)).unwrap();
        journal.writer.close_clean().unwrap();
        assert!(open(config, identity()).unwrap().was_clean());
    }
}

#[test]
fn is_one_plain_file_of_the_configured_length() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(config(dir.path()), identity()).unwrap());
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [JOURNAL_FILE]);
    assert_eq!(std::fs::metadata(dir.path().join(JOURNAL_FILE)).unwrap().len(), MIB);
}

#[test]
fn is_locked_while_open() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(config(dir.path()), identity()).unwrap().start(Uuid::from_u128(5)).unwrap();
    assert!(matches!(open(config(dir.path()), identity()), Err(JournalError::Locked { .. })));
    drop(journal);
    open(config(dir.path()), identity()).unwrap();
}

#[test]
fn takes_a_new_size_after_the_replay() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path()), identity()).unwrap().start(Uuid::from_u128(5)).unwrap();
    write_one(&mut journal, &entry(0, 0, 1), b"x");
    drop(journal);
    let larger = config(dir.path()).size_bytes(2 * MIB);
    let mut recovery = open(larger.clone(), identity()).unwrap();
    assert!(recovery.next_frame().unwrap().is_some());
    let mut journal = recovery.start(Uuid::from_u128(6)).unwrap();
    assert_eq!(journal.writer.tail().capacity_bytes(), 2 * MIB - 8192);
    write_one(&mut journal, &entry(0, 1, 2), b"y");
    drop(journal);
    let mut recovery = open(larger, identity()).unwrap();
    assert_eq!(recovery.next_frame().unwrap().unwrap().entries[0].records, &b"y"[..]);
}

#[test]
fn goes_round_many_times_with_checkpoints_when_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path()), identity()).unwrap().start(Uuid::from_u128(5)).unwrap();
    let tail = journal.writer.tail();
    let mut checkpoints = 0;
    for i in 0..200 {
        journal.staging.stage(&entry(0, i, i + 1), &vec![i as u8; 50_000]).unwrap();
        let mut frame = journal.staging.take().unwrap();
        if let Err(e) = journal.writer.write(&mut frame) {
            assert!(e.is_full() && tail.wants_checkpoint(), "{e}");
            checkpoints += 1;
            tail.release(tail.durable());
            assert_eq!(tail.used_bytes(), 0);
            journal.writer.write(&mut frame).unwrap();
        }
        journal.staging.give_back(frame);
    }
    assert!(checkpoints >= 8, "{checkpoints}");
    drop(journal);
    let mut recovery = open(config(dir.path()), identity()).unwrap();
    assert_eq!(recovery.damage(), None);
    let mut last = 0;
    while let Some(frame) = recovery.next_frame().unwrap() {
        assert_eq!(frame.entries[0].records[..], vec![frame.entries[0].base_offset as u8; 50_000]);
        last = frame.seq.0;
    }
    assert_eq!(last, 200);
}

#[test]
fn refuses_what_is_no_journal_or_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    std::fs::write(&path, vec![1; MIB as usize]).unwrap();
    assert!(matches!(open(config(dir.path()), identity()), Err(JournalError::NotAJournal)));
    std::fs::write(&path, b"short").unwrap();
    assert!(matches!(open(config(dir.path()), identity()), Err(JournalError::NotAJournal)));
    std::fs::remove_file(&path).unwrap();
    drop(open(config(dir.path()), identity()).unwrap());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB / 2).unwrap();
    assert!(matches!(open(config(dir.path()), identity()), Err(JournalError::WrongLength { .. })));
}

#[test]
fn a_leftover_of_an_interrupted_creation_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("taccola.journal.new"), b"half").unwrap();
    assert!(open(config(dir.path()), identity()).unwrap().was_clean());
    assert!(!dir.path().join("taccola.journal.new").exists());
}

#[test]
fn sizes_are_checked_and_large_entries_sent_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(open(config(dir.path()).size_bytes(4096), identity()), Err(JournalError::Config { .. })));
    let mut journal = open(config(dir.path()), identity()).unwrap().start(Uuid::from_u128(5)).unwrap();
    let largest = journal.staging.records_bytes_max();
    assert!(largest > 250_000 && largest < 262_144, "a quarter of the ring: {largest}");
    assert!(matches!(journal.staging.stage(&entry(0, 0, 1), &vec![0; 300_000]), Err(StageError::TooLarge { .. })));
    assert!(matches!(journal.staging.stage(&entry(0, 1, 1), b"x"), Err(StageError::IllFormed(_))));
    assert!(journal.staging.is_empty());
    write_one(&mut journal, &entry(0, 0, 1), &vec![9; largest]);
}

#[test]
fn a_full_disk_says_what_to_do() {
    // A size that no disk has.
    let dir = tempfile::tempdir().unwrap();
    let refused = FileDevice::create_filled(&dir.path().join(JOURNAL_FILE), 1 << 62).err().unwrap();
    assert!(matches!(refused, JournalError::NoSpace { .. }), "{refused:?}");
    assert!(refused.to_string().contains("taccola.journal.bytes"));
}
