//! Damage to acknowledged frames is named, never passed over, and never becomes data.

use taccola_base::Uuid;

use super::super::{FrameSeq, Journal, JournalDamage, JournalError, Recovery, format_device, open_device};
use super::sim_disk::{Fault, SimDisk};
use super::{Rng, entry, identity};

const BLOCK: usize = 4096;
const RING: usize = 2 * BLOCK;

fn records(seq: u64) -> Vec<u8> {
    vec![seq as u8; 100 + 997 * (seq as usize % 9)]
}

/// A disk with frames 1 to `frames`, of which the first `released` are released, the last one saying so.
fn written(disk: &SimDisk, frames: u64, released: u64) -> Result<(), JournalError> {
    let mut formatted = disk.clone();
    format_device(&mut formatted, &identity())?;
    let Journal { mut staging, mut writer } =
        open_device(disk.boxed(), 1 << 20, identity())?.start(Uuid::from_u128(1 << 64))?;
    for seq in 1..=frames {
        staging.stage(&entry(0, seq as i64, seq as i64 + 1), &records(seq)).unwrap();
        let mut frame = staging.take().unwrap();
        if seq == frames {
            writer.tail().release(FrameSeq(released));
        }
        writer.write(&mut frame)?;
        staging.give_back(frame);
    }
    Ok(())
}

/// Opens and replays; every frame must be one that was written.
fn replay(disk: &SimDisk) -> (Vec<u64>, Option<JournalDamage>, Recovery) {
    let mut recovery = open_device(disk.boxed(), 1 << 20, identity()).unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = recovery.next_frame().unwrap() {
        assert_eq!(frame.entries.len(), 1);
        assert_eq!(&frame.entries[0].records[..], &records(frame.seq.0)[..]);
        seen.push(frame.seq.0);
    }
    (seen, recovery.damage().cloned(), recovery)
}

fn is_missing(damage: Option<&JournalDamage>, seq: u64) -> bool {
    damage.is_some_and(|d| d.missing.iter().any(|r| r.contains(&seq)))
}

#[test]
fn a_flipped_bit_is_named() {
    let disk = SimDisk::new(RING + 64 * BLOCK);
    written(&disk, 9, 0).unwrap();
    // Frame 4 starts behind frames 1 (1 block), 2 (1) and 3 (1).
    disk.0.lock().image[RING + 3 * BLOCK + 200] ^= 4;
    let (seen, damage, recovery) = replay(&disk);
    assert_eq!(seen, [1, 2, 3, 5, 6, 7, 8, 9]);
    let damage = damage.unwrap();
    assert_eq!(damage, JournalDamage { missing: vec![4..=4], intact: 8 });
    assert_eq!(damage.to_string(), "acknowledged frames are lost (4), 8 are whole");
    assert!(matches!(recovery.start(Uuid::from_u128(2)), Err(JournalError::Damaged(_))));
    let mut accepted = replay(&disk).2;
    accepted.accept_damage();
    accepted.start(Uuid::from_u128(2)).unwrap();
    assert_eq!(replay(&disk).0, [0; 0]);
}

#[test]
fn start_refuses_before_all_is_replayed_and_with_a_used_incarnation() {
    let disk = SimDisk::new(RING + 64 * BLOCK);
    written(&disk, 3, 0).unwrap();
    let recovery = open_device(disk.boxed(), 1 << 20, identity()).unwrap();
    assert!(matches!(recovery.start(Uuid::from_u128(2)), Err(JournalError::NotReplayed { frames: 3 })));
    for used in [Uuid::ZERO, Uuid::from_u128(1 << 64)] {
        assert!(matches!(replay(&disk).2.start(used), Err(JournalError::Config { .. })));
    }
}

#[test]
fn a_write_that_the_disk_lost_or_misplaced_is_named() {
    // Two writes format, two start; frame n is write n + 3.
    for frame in 1..9u64 {
        for fault in [Fault::Lost, Fault::Misdirected((RING + 50 * BLOCK) as u64)] {
            let disk = SimDisk::new(RING + 64 * BLOCK);
            disk.0.lock().fault = Some((frame + 3, fault));
            written(&disk, 9, 0).unwrap();
            let (seen, damage, _) = replay(&disk);
            assert_eq!(seen.len(), 8);
            assert_eq!(damage.unwrap().missing, [frame..=frame]);
        }
    }
}

#[test]
fn a_failed_write_poisons() {
    for done in [false, true] {
        let disk = SimDisk::new(RING + 64 * BLOCK);
        disk.0.lock().fault = Some((7, Fault::Eio { done }));
        assert!(matches!(written(&disk, 9, 0), Err(JournalError::Poisoned { .. })));
        let (seen, damage, _) = replay(&disk);
        assert_eq!(damage, None);
        assert_eq!(seen, if done { vec![1, 2, 3, 4] } else { vec![1, 2, 3] });
    }
}

#[test]
fn a_torn_header_slot_leaves_the_other() {
    for slot in 0..2 {
        let disk = SimDisk::new(RING + 64 * BLOCK);
        written(&disk, 5, 2).unwrap();
        disk.0.lock().image[slot * BLOCK..slot * BLOCK + 512].fill(0);
        let (seen, damage, _) = replay(&disk);
        assert_eq!((seen, damage), (vec![3, 4, 5], None));
    }
    let disk = SimDisk::new(RING + 64 * BLOCK);
    written(&disk, 5, 2).unwrap();
    disk.0.lock().image[..RING].fill(0);
    assert!(matches!(open_device(disk.boxed(), 1 << 20, identity()), Err(JournalError::NotAJournal)));
}

#[test]
fn any_single_fault_is_harmless_or_named() {
    for seed in 0..3_000 {
        let mut rng = Rng(seed);
        let (frames, released) = (12, rng.below(8));
        let disk = SimDisk::new(RING + 64 * BLOCK);
        written(&disk, frames, released).unwrap();
        {
            let mut disk = disk.0.lock();
            let blocks = disk.image.len() / BLOCK;
            let from = rng.below(blocks as u64) as usize * BLOCK;
            let to = rng.below(blocks as u64) as usize * BLOCK;
            match rng.below(4) {
                0 => disk.image[from + rng.below(BLOCK as u64) as usize] ^= 1 << rng.below(8),
                1 => disk.image[from..from + BLOCK].fill(0),
                2 => disk.image[from + 512 * rng.below(8) as usize..from + BLOCK].fill(0xff),
                // A stale or misdirected block.
                _ => disk.image.copy_within(from..from + BLOCK, to),
            }
        }
        let (seen, damage, _) = replay(&disk);
        for seq in released + 1..=frames {
            let named = is_missing(damage.as_ref(), seq);
            // The very last frame cannot be told from a torn one; it takes its tail with it, hence `seq > released`.
            assert!(seen.contains(&seq) || named || seq == frames, "seed {seed}: frame {seq} vanished");
            assert!(!(seen.contains(&seq) && named), "seed {seed}");
        }
    }
}

#[test]
fn the_owner_is_checked() {
    let disk = SimDisk::new(RING + 64 * BLOCK);
    written(&disk, 1, 0).unwrap();
    let mut other = identity();
    other.node_id = 2;
    let refused = open_device(disk.boxed(), 1 << 20, other).err().unwrap();
    assert_eq!(refused.to_string(), "the journal belongs to node id 1, not 2");
    let mut other = identity();
    other.cluster_id = "another".into();
    assert!(matches!(open_device(disk.boxed(), 1 << 20, other), Err(JournalError::WrongOwner { .. })));
    let mut other = identity();
    other.directory_id = Uuid::from_u128(3);
    assert!(matches!(open_device(disk.boxed(), 1 << 20, other), Err(JournalError::WrongOwner { .. })));
}
