//! The journal's recovery over a damaged file. The input writes a few frames, then edits the bytes of the file, then the
//! journal is opened and replayed. Without repaired checksums whatever is replayed must be what was written, and a
//! replay that reports no damage must hold every frame that was durable and not released, the very last one excepted
//! (it looks like a torn write). With repaired checksums anything may come out, but nothing may panic or run away.

#![no_main]

use std::io;
use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use taccola_base::Uuid;
use taccola_log::journal::{
    EntryHeader, EntryKind, FrameSeq, Journal, JournalDevice, JournalIdentity, WriteMode, format_device, open_device,
};

const BLOCK: usize = 4096;
const BLOCKS: usize = 26;

#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl JournalDevice for Memory {
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

/// Takes bytes off the input; zeros once it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }
}

fn identity() -> JournalIdentity {
    JournalIdentity { cluster_id: "fuzz".into(), node_id: 1, directory_id: Uuid::from_u128(1 << 100) }
}

/// Writes frames; returns the records of each, and up to which they are released.
fn write_frames(memory: &Memory, input: &mut Input<'_>) -> (Vec<Vec<u8>>, u64) {
    format_device(&mut memory.clone(), &identity()).unwrap();
    let Journal { mut staging, mut writer } =
        open_device(Box::new(memory.clone()), 1 << 20, identity()).unwrap().start(Uuid::from_u128(1 << 64)).unwrap();
    let tail = writer.tail();
    let mut written: Vec<Vec<u8>> = Vec::new();
    for _ in 0..input.byte() % 24 {
        let (fill, size) = (input.byte(), 1 + input.u16() % 9_000);
        let offset = written.len() as i64;
        let header = EntryHeader {
            kind: EntryKind::Append,
            topic_id: Uuid::from_u128(5),
            topic: "t",
            partition: 0,
            base_offset: offset,
            next_offset: offset + 1,
        };
        staging.stage(&header, &vec![fill; size]).unwrap();
        let mut frame = staging.take().unwrap();
        if fill.is_multiple_of(3) {
            tail.release(FrameSeq(u64::from(fill) % (written.len() as u64 + 1)));
        }
        while let Err(e) = writer.write(&mut frame) {
            assert!(e.is_full());
            tail.release(tail.oldest());
        }
        staging.give_back(frame);
        written.push(vec![fill; size]);
    }
    let released = tail.oldest().0 - 1;
    (written, released)
}

/// Edits the file; `true` if checksums were repaired.
fn edit(image: &mut [u8], input: &mut Input<'_>) -> bool {
    let mut repaired = false;
    while !input.0.is_empty() {
        let (op, block) = (input.byte() % 6, usize::from(input.byte()) % BLOCKS * BLOCK);
        let at = block + input.u16() % BLOCK;
        match op {
            0 => image[at] ^= input.byte(),
            1 => image[at] = input.byte(),
            2 => image[block..block + BLOCK].fill(input.byte()),
            3 => image.copy_within(block..block + BLOCK, usize::from(input.byte()) % BLOCKS * BLOCK),
            4 => image[block + at % 128] = input.byte(),
            _ => {
                repaired = true;
                repair(image, block);
            }
        }
    }
    repaired
}

/// Makes the checksums of the slot or frame at `block` match again.
fn repair(image: &mut [u8], block: usize) {
    if block < 2 * BLOCK {
        let crc = crc_fast::crc32_iscsi(&image[block..block + BLOCK - 4]);
        image[block + BLOCK - 4..block + BLOCK].copy_from_slice(&crc.to_be_bytes());
        return;
    }
    let length = u32::from_be_bytes(image[block + 56..block + 60].try_into().unwrap()) as usize;
    if let Some(body) = image.get(block + 68..block.saturating_add(length)) {
        let crc = crc_fast::crc32_iscsi(body);
        image[block + 60..block + 64].copy_from_slice(&crc.to_be_bytes());
    }
    let crc = crc_fast::crc32_iscsi(&image[block..block + 64]);
    image[block + 64..block + 68].copy_from_slice(&crc.to_be_bytes());
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory = Memory(Arc::new(Mutex::new(vec![0; BLOCKS * BLOCK])));
    let (written, released) = write_frames(&memory, &mut input);
    let untouched = input.0.is_empty();
    let repaired = edit(&mut memory.0.lock().unwrap(), &mut input);
    let Ok(mut recovery) = open_device(Box::new(memory.clone()), 1 << 20, identity()) else {
        assert!(!untouched);
        return;
    };
    let mut seen = Vec::new();
    loop {
        match recovery.next_frame() {
            Ok(Some(frame)) if repaired => seen.push(frame.seq.0),
            Ok(Some(frame)) => {
                assert_eq!(frame.entries.len(), 1);
                assert_eq!(frame.entries[0].records, written[frame.seq.0 as usize - 1]);
                seen.push(frame.seq.0);
            }
            Ok(None) => break,
            Err(_) => {
                assert!(repaired);
                return;
            }
        }
    }
    assert!(seen.windows(2).all(|w| w[0] < w[1]));
    if untouched {
        assert!(recovery.damage().is_none());
        assert_eq!(seen.last().copied().unwrap_or(released), written.len() as u64);
    }
    recovery.accept_damage();
    let _ = recovery.start(Uuid::from_u128(2 << 64));
});
