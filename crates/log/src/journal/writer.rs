//! The flusher side: seals a frame, finds its place in the ring and writes it, one at a time.
//!
//! INVARIANT: a frame is durable when `write` returned `Ok`, and only then. After a failed write nothing is tried again
//! and every later call fails: what the disk holds is decided by opening the journal anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use taccola_base::Uuid;

use super::buffer::AlignedBuf;
use super::device::{JournalDevice, WriteMode};
use super::format::{BLOCK, BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, SLOTS, Slot, SlotState, crc32c};
use super::ring::{Place, Ring};
use super::staging::StagedFrame;
use super::{FrameSeq, JournalError};

/// What writer and checkpointer share: which frames are durable, and which the segments no longer need.
#[derive(Debug)]
pub struct JournalTail {
    /// Last durable frame; 0 before the first.
    durable: AtomicU64,
    /// First frame that is not released.
    tail: AtomicU64,
    used_bytes: AtomicU64,
    capacity: u64,
}

impl JournalTail {
    /// The last frame that survives a power cut; `FrameSeq(0)` before the first.
    pub fn durable(&self) -> FrameSeq {
        FrameSeq(self.durable.load(Ordering::Acquire))
    }

    /// Lets go of the frames up to `up_to`, inclusive: every segment that holds records of theirs has been synced.
    /// Frames that are not durable yet are not let go. The tail reaches the disk with the next frame.
    ///
    /// To checkpoint: read [`Self::durable`], then sync all segments with unsynced bytes, then release what was read.
    /// That is enough because records reach their segment before they are staged.
    pub fn release(&self, up_to: FrameSeq) {
        let up_to = up_to.0.min(self.durable().0);
        self.tail.fetch_max(up_to + 1, Ordering::AcqRel);
    }

    /// The oldest frame that is not released, or the next one to be written when all are.
    pub fn oldest(&self) -> FrameSeq {
        FrameSeq(self.tail.load(Ordering::Acquire))
    }

    /// Bytes of the ring that frames took which were not released when the last one was written.
    pub fn used_bytes(&self) -> u64 {
        if self.oldest() > self.durable() { 0 } else { self.used_bytes.load(Ordering::Acquire) }
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// Half of the ring is taken: checkpoint now, so that no flush has to wait for it.
    pub fn wants_checkpoint(&self) -> bool {
        self.used_bytes() * 2 > self.capacity
    }
}

/// Writes frames. Owned by whoever flushes; at most one write runs at a time.
pub struct JournalWriter {
    device: Box<dyn JournalDevice>,
    /// The slot as last written, and which one it was.
    slot: Slot,
    slot_index: usize,
    ring: Ring,
    shared: Arc<JournalTail>,
    /// First frame that recovery would want, as the disk knows it.
    persisted_tail: u64,
    poisoned: Option<Arc<str>>,
}

impl JournalWriter {
    /// Starts an empty ring under `slot` (live, of a new incarnation). Both header slots are written, so that the loss of
    /// one can never bring an older incarnation back; `newest_slot` is overwritten last.
    pub(super) fn start(
        device: Box<dyn JournalDevice>,
        slot: Slot,
        newest_slot: usize,
    ) -> Result<JournalWriter, JournalError> {
        let ring = Ring::new(slot.file_bytes);
        let shared = Arc::new(JournalTail {
            durable: AtomicU64::new(0),
            tail: AtomicU64::new(1),
            used_bytes: AtomicU64::new(0),
            capacity: ring.capacity(),
        });
        let mut writer =
            JournalWriter { device, slot, slot_index: newest_slot, ring, shared, persisted_tail: 1, poisoned: None };
        for _ in 0..SLOTS {
            writer.write_slot()?;
        }
        Ok(writer)
    }

    pub fn tail(&self) -> Arc<JournalTail> {
        Arc::clone(&self.shared)
    }

    pub fn mode(&self) -> WriteMode {
        self.device.mode()
    }

    /// This run's id of the journal, as given to `start`.
    pub fn incarnation(&self) -> Uuid {
        self.slot.incarnation
    }

    /// Writes a frame and returns once it is durable. Frames must come in the order in which they were staged.
    ///
    /// [`JournalError::Full`] changes nothing: checkpoint, release, and write the same frame again. Every other error is
    /// final for this writer.
    pub fn write(&mut self, frame: &mut StagedFrame) -> Result<FrameSeq, JournalError> {
        self.check_usable()?;
        let seq = frame.seq.0;
        let durable = self.shared.durable().0;
        if seq != durable + 1 {
            return Err(self.poison(format!("frame {seq} was to follow frame {durable}")));
        }
        let padded = frame.length.next_multiple_of(BLOCK);
        let position = self.make_room(padded as u64)?;
        let tail_seq = self.shared.oldest().0;
        self.seal(frame, position, tail_seq, padded);
        let bytes = frame.buf.bytes().get(..padded).unwrap_or_default();
        if let Err(e) = self.device.write_durable(position, bytes) {
            return Err(self.poison(format!("writing frame {seq} at byte {position}: {e}")));
        }
        self.ring.push(Place { seq, position, bytes: padded as u64 });
        self.note_persisted(tail_seq);
        self.shared.used_bytes.store(self.ring.used(tail_seq), Ordering::Release);
        self.shared.durable.store(seq, Ordering::Release);
        Ok(frame.seq)
    }

    /// A place for `bytes`; writes a header slot when only the tail's being on disk stands in the way.
    fn make_room(&mut self, bytes: u64) -> Result<u64, JournalError> {
        if let Some(position) = self.ring.place(bytes, self.persisted_tail) {
            return Ok(position);
        }
        let tail_seq = self.shared.oldest().0;
        let Some(position) = self.ring.place(bytes, tail_seq) else {
            return Err(JournalError::Full {
                needed: bytes,
                used: self.ring.used(tail_seq),
                capacity: self.ring.capacity(),
            });
        };
        self.slot.tail_seq = tail_seq;
        self.slot.durable_seq = self.shared.durable().0;
        self.write_slot()?;
        self.note_persisted(tail_seq);
        Ok(position)
    }

    fn note_persisted(&mut self, tail_seq: u64) {
        self.persisted_tail = self.persisted_tail.max(tail_seq);
        self.ring.persisted(self.persisted_tail);
    }

    fn seal(&self, frame: &mut StagedFrame, position: u64, tail_seq: u64, padded: usize) {
        let length = frame.length;
        if let Some(padding) = frame.buf.bytes_mut().get_mut(length..padded) {
            padding.fill(0);
        }
        let body = frame.buf.bytes().get(FRAME_HEADER_BYTES..length).unwrap_or_default();
        let header = FrameHeader {
            incarnation: self.slot.incarnation,
            seq: frame.seq.0,
            tail_seq,
            position,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            entry_count: frame.entry_count,
            body_crc: crc32c(body),
        };
        header.encode(frame.buf.bytes_mut());
    }

    /// Writes the slot that is not the newest, durably, as the newest.
    fn write_slot(&mut self) -> Result<(), JournalError> {
        let index = (self.slot_index + 1) % SLOTS;
        self.slot.generation += 1;
        let mut block = AlignedBuf::zeroed(BLOCK);
        self.slot.encode(u32::try_from(index).unwrap_or(0), block.bytes_mut());
        if let Err(e) = self.device.write_durable(index as u64 * BLOCK_BYTES, block.bytes()) {
            return Err(self.poison(format!("writing header slot {index}: {e}")));
        }
        self.slot_index = index;
        Ok(())
    }

    /// Marks the journal empty, durably. Refused while frames are not released. Stage nothing afterwards.
    pub fn close_clean(mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        let (oldest, durable) = (self.shared.oldest().0, self.shared.durable().0);
        if oldest <= durable {
            return Err(JournalError::NotReleased { oldest: FrameSeq(oldest), newest: FrameSeq(durable) });
        }
        self.slot.state = SlotState::Empty;
        self.slot.tail_seq = oldest;
        self.slot.durable_seq = durable;
        for _ in 0..SLOTS {
            self.write_slot()?;
        }
        Ok(())
    }

    fn check_usable(&self) -> Result<(), JournalError> {
        match &self.poisoned {
            Some(reason) => Err(JournalError::Poisoned { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    fn poison(&mut self, reason: String) -> JournalError {
        let reason: Arc<str> = reason.into();
        self.poisoned = Some(Arc::clone(&reason));
        JournalError::Poisoned { reason }
    }
}
