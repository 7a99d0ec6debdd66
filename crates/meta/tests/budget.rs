//! What reading metadata costs in memory: no bytes whatever make a reader allocate more than a multiple of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../wire/tests/common/counting.rs"]
mod counting;

use bytes::Bytes;
use counting::peak;
use taccola_base::limits::{DECODE_BUDGET_FACTOR, DECODE_BUDGET_FLOOR};
use taccola_meta::batch::{BatchContent, decode_batches};
use taccola_meta::bootstrap::BootstrapMetadata;
use taccola_meta::meta_properties::MetaProperties;
use taccola_meta::quorum_state::QuorumState;
use taccola_meta::snapshot::{Snapshot, SnapshotId};
use taccola_meta::{MetadataLoader, VersionedRecord};
use taccola_wire::batch::{BatchHeader, set_last_offset_delta};

const FILES: [&[u8]; 4] = [
    include_bytes!("../testdata/cluster_metadata.log"),
    include_bytes!("../testdata/00000000000000000096-0000000003.checkpoint"),
    include_bytes!("../testdata/bootstrap.checkpoint"),
    include_bytes!("../testdata/standalone.checkpoint"),
];

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

    /// A few bytes say something else, counts among them.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            let plant: &[u8] =
                [&[0xff, 0xff, 0xff, 0xff, 0x07][..], &[0x7f, 0xff, 0xff, 0xff], &[1], &[0x80]][self.below(4)];
            let end = (at + plant.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&plant[..end - at]);
        }
    }
}

/// What a reader may have beside what it reads; a shorter piece cannot name more than a longer one.
fn allowed(bytes: usize) -> usize {
    bytes * DECODE_BUDGET_FACTOR * 4 + 4 * DECODE_BUDGET_FLOOR
}

#[test]
fn records() {
    let mut random = Random(0x3e7a);
    for file in FILES {
        let whole = Bytes::from_static(file);
        for batch in decode_batches(&whole) {
            let BatchContent::Records(records) = batch.unwrap().content else { continue };
            for record in records {
                let encoded = record.encode().unwrap();
                for _ in 0..50 {
                    let mut bytes = encoded.to_vec();
                    random.damage(&mut bytes);
                    let size = bytes.len();
                    let (_, used) = peak(|| VersionedRecord::decode(bytes.into()).is_ok());
                    assert!(used <= allowed(size), "{used} for {record:?}");
                }
            }
        }
    }
}

/// Batches with damage in them and checksums that say that it is none.
fn damaged(file: &[u8], random: &mut Random) -> Bytes {
    let mut out = file.to_vec();
    let mut at = 0;
    while out.len() - at > 61 {
        let length = 12 + i32::from_be_bytes(out[at + 8..at + 12].try_into().unwrap()) as usize;
        let batch = &mut out[at..at + length];
        if random.below(3) == 0 {
            random.damage(&mut batch[61..]);
        }
        let header = BatchHeader::parse_whole(batch).unwrap();
        set_last_offset_delta(batch, header.last_offset_delta).unwrap();
        at += length;
    }
    out.into()
}

#[test]
fn logs_and_snapshots() {
    let mut random = Random(0x5a95);
    let id = SnapshotId { end_offset: 96, epoch: 3 };
    for file in FILES {
        for _ in 0..300 {
            let bytes = damaged(file, &mut random);
            let (_, used) = peak(|| {
                let mut loader = MetadataLoader::default();
                for batch in decode_batches(&bytes) {
                    if batch.is_ok_and(|batch| loader.load(&batch).is_ok()) {
                        continue;
                    }
                    return;
                }
                drop(loader.publish());
            });
            assert!(used <= allowed(bytes.len()), "loaded: {used} for {}", bytes.len());
            let (_, used) = peak(|| Snapshot::decode(id, &bytes).and_then(Snapshot::into_image).is_ok());
            assert!(used <= allowed(bytes.len()), "a snapshot: {used} for {}", bytes.len());
            let (_, used) = peak(|| BootstrapMetadata::decode(&bytes).is_ok());
            assert!(used <= allowed(bytes.len()), "a bootstrap file: {used} for {}", bytes.len());
        }
    }
}

#[test]
fn small_files() {
    let mut random = Random(0x7ea);
    let quorum = r#"{"leaderId":1,"leaderEpoch":3,"votedId":-1,"votedDirectoryId":"","data_version":1}"#;
    let properties = "version=1\ncluster.id=abc\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n";
    for text in [quorum.to_owned(), properties.to_owned(), "[".repeat(60_000), "a=\n".repeat(20_000)] {
        for round in 0..100 {
            let mut bytes = text.clone().into_bytes();
            if round > 0 {
                random.damage(&mut bytes);
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let (_, used) = peak(|| (QuorumState::parse(&text).is_ok(), MetaProperties::parse(&text).is_ok()));
            assert!(used <= allowed(text.len()), "{used} for {}", text.len());
        }
    }
}
