//! What reading the files of a log directory costs in memory: no bytes whatever make a parser allocate more than a multiple of
//! them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../wire/tests/common/counting.rs"]
mod counting;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use counting::peak;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::journal::{
    EntryHeader, EntryKind, Journal, JournalDevice, JournalIdentity, WriteMode, format_device, open_device,
};
use taccola_log::{LogConfig, LogShared, OpenHints, PartitionLog, checkpoint, log_dir};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// The bytes with a few of them changed, and counts that name what is not there.
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..1 + self.below(3) {
            if out.is_empty() {
                return out;
            }
            let at = self.below(out.len());
            match self.below(5) {
                0 => out[at] ^= 1 << self.below(8),
                1 => out[at] = [0, b'9', 0x7f, 0x80, 0xff][self.below(5)],
                2 => {
                    let plant: &[u8] = [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 8], b"999999999\n"][self.below(3)];
                    out.splice(at..(at + plant.len()).min(out.len()), plant.iter().copied());
                }
                3 => {
                    let part = out[at..].to_vec();
                    out.extend_from_slice(&part);
                }
                _ => out.truncate(at),
            }
        }
        out
    }
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kafka-4.3.1")
}

/// Every file of a JVM Kafka's partitions and of the directory itself.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![testdata()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Any parser takes any file: what it is called says nothing about what is in it.
fn parse(which: usize, bytes: &[u8]) {
    match which {
        0 => drop(taccola_log::parse_offset_index(bytes)),
        1 => drop(taccola_log::parse_time_index(bytes)),
        2 => drop(taccola_log::parse_txn_index(bytes)),
        3 => drop(taccola_log::parse_snapshot(bytes)),
        4 => drop(checkpoint::parse_offsets(bytes)),
        5 => drop(checkpoint::parse_epochs(bytes)),
        6 => drop(checkpoint::parse_partition_metadata(bytes)),
        7 => drop(log_dir::parse_clean_shutdown(bytes)),
        _ => drop(taccola_log::parse_quarantine(bytes)),
    }
}

#[test]
fn small_files_cost_a_multiple_of_themselves() {
    let mut random = Random(0x5a11);
    for (name, whole) in files() {
        for round in 0..40 {
            let bytes = if round == 0 { whole.clone() } else { random.damaged(&whole) };
            for which in 0..9 {
                // A line of a few bytes becomes a row of some tens; an error shows a piece of what was wrong.
                let allowed = 64 * bytes.len() + 8 * 1024;
                let ((), used) = peak(|| parse(which, &bytes));
                assert!(used <= allowed, "parser {which} on {name}: {used} bytes for {}", bytes.len());
            }
        }
    }
}

/// What a log keeps for itself, whatever is in it.
const LOG_BYTES: usize = 1 << 20;

#[test]
fn a_log_that_is_recovered_costs_a_multiple_of_its_files() {
    let mut random = Random(0x106);
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for folder in ["txn-0", "fix-0", "seg-0"] {
        let at = TopicPartition::new(&folder[..3], 0);
        let dir = home.path().join(folder);
        for round in 0..60 {
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir(&dir).unwrap();
            let mut size = 0;
            for entry in std::fs::read_dir(testdata().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let mut bytes = std::fs::read(&path).unwrap();
                if round > 0 && random.below(2) == 0 {
                    bytes = random.damaged(&bytes);
                }
                size += bytes.len();
                std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
            }
            let (config, shared) = (Arc::new(LogConfig::default()), LogShared::new(4));
            let hints = OpenHints { check_all: round % 2 == 0, clean: round % 3 == 0, ..OpenHints::default() };
            let (_, used) =
                peak(|| PartitionLog::open(home.path(), at.clone(), None, config, shared, hints, 0).is_ok());
            assert!(used <= LOG_BYTES + 64 * size, "{folder}: {used} bytes for {size}");
        }
    }
}

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
/// The greatest frame that the journal is opened for.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// What its reader holds, whatever the frames' size.
const READ_AHEAD_BYTES: usize = 1 << 20;

#[derive(Clone)]
struct InMemory(Arc<Mutex<Vec<u8>>>);

impl JournalDevice for InMemory {
    fn size_bytes(&self) -> u64 {
        (BLOCKS * BLOCK) as u64
    }

    fn read(&self, position: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = position as usize;
        buf.copy_from_slice(&self.0.lock().unwrap()[from..from + buf.len()]);
        Ok(())
    }

    fn write_durable(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let from = position as usize;
        self.0.lock().unwrap()[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn mode(&self) -> WriteMode {
        WriteMode::BufferedThenSync
    }
}

/// A journal with a few frames.
fn journal(identity: &JournalIdentity) -> InMemory {
    let memory = InMemory(Arc::new(Mutex::new(vec![0; BLOCKS * BLOCK])));
    format_device(&mut memory.clone(), identity).unwrap();
    let opened = open_device(Box::new(memory.clone()), FRAME_BYTES_MAX, identity.clone()).unwrap();
    let Journal { mut staging, mut writer } = opened.start(Uuid::from_u128(1 << 64)).unwrap();
    for offset in 0..12 {
        let header = EntryHeader {
            kind: EntryKind::Append,
            topic_id: Uuid::from_u128(5),
            topic: "t",
            partition: 0,
            base_offset: offset,
            next_offset: offset + 1,
        };
        staging.stage(&header, &[7; 3_000]).unwrap();
        let mut frame = staging.take().unwrap();
        writer.write(&mut frame).unwrap();
        staging.give_back(frame);
    }
    memory
}

/// A frame's header says something else, and its checksum that this is right.
fn lie(image: &mut [u8], block: usize, random: &mut Random) {
    let at = block * BLOCK + random.below(16) * 4;
    let lie = [u32::MAX, i32::MAX as u32, FRAME_BYTES_MAX as u32, 0][random.below(4)];
    image[at..at + 4].copy_from_slice(&lie.to_be_bytes());
    let start = block * BLOCK;
    let crc = crc_fast::crc32_iscsi(&image[start..start + 64]);
    image[start + 64..start + 68].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn a_journal_costs_a_few_frames_whatever_it_says() {
    let mut random = Random(0x7041);
    let identity = JournalIdentity { cluster_id: "c".into(), node_id: 1, directory_id: Uuid::from_u128(1 << 100) };
    for round in 0..200 {
        let memory = journal(&identity);
        for _ in 0..round % 5 {
            lie(&mut memory.0.lock().unwrap(), 2 + random.below(BLOCKS - 2), &mut random);
        }
        let (frames, used) = peak(|| {
            let mut frames = 0;
            let Ok(mut recovery) = open_device(Box::new(memory.clone()), FRAME_BYTES_MAX, identity.clone()) else {
                return frames;
            };
            while let Ok(Some(_)) = recovery.next_frame() {
                frames += 1;
            }
            frames
        });
        assert!(round % 5 > 0 || frames == 12, "{frames} frames");
        assert!(used <= READ_AHEAD_BYTES + 8 * FRAME_BYTES_MAX, "{used} bytes");
    }
}
