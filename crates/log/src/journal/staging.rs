//! The producer side: entries are copied into the frame that the next flush will write.
//!
//! Two buffers take turns: one is filled under a short lock while the other is being written without it. A frame's
//! sequence number is known before it is taken, so it serves as the ticket of every entry in it.

use super::FrameSeq;
use super::buffer::AlignedBuf;
use super::format::{ENTRY_HEADER_BYTES, EntryHeader, FRAME_HEADER_BYTES};

/// A buffer starts at this many bytes and doubles up to the frame limit, so an idle broker holds little.
const BUFFER_BYTES_START: usize = 64 * 1024;

/// Why an entry was not staged. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// The frame that is being filled has no room; there is when the running flush ends and the next one takes it.
    #[error("the staging buffer is full")]
    Full,
    /// No frame can hold the entry: sync its segment instead of waiting for the journal.
    #[error("an entry of {bytes} bytes is larger than a frame of {frame_bytes_max} bytes holds")]
    TooLarge { bytes: usize, frame_bytes_max: usize },
    #[error("the entry is ill-formed: {0}")]
    IllFormed(&'static str),
}

/// What staging an entry gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The entry is durable when this frame is.
    pub seq: FrameSeq,
    /// Bytes in the frame so far, header included.
    pub frame_bytes: usize,
}

/// A frame with its entries, not yet sealed. Goes from [`Staging::take`] to the writer and back to [`Staging::give_back`].
pub struct StagedFrame {
    pub(super) seq: FrameSeq,
    pub(super) buf: AlignedBuf,
    /// Bytes used, header included.
    pub(super) length: usize,
    pub(super) entry_count: u32,
}

impl StagedFrame {
    fn empty(seq: FrameSeq, buf: AlignedBuf) -> Self {
        Self { seq, buf, length: FRAME_HEADER_BYTES, entry_count: 0 }
    }

    pub fn seq(&self) -> FrameSeq {
        self.seq
    }

    pub fn entry_count(&self) -> u32 {
        self.entry_count
    }

    /// Bytes, header included, padding excluded.
    pub fn bytes(&self) -> usize {
        self.length
    }
}

/// The frame that is being filled, and the spare buffer. Lives under the caller's lock; nothing here blocks.
pub struct Staging {
    frame: StagedFrame,
    spare: Option<AlignedBuf>,
    frame_bytes_max: usize,
}

impl Staging {
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        let buf = || AlignedBuf::zeroed(BUFFER_BYTES_START.min(frame_bytes_max));
        Self { frame: StagedFrame::empty(FrameSeq(1), buf()), spare: Some(buf()), frame_bytes_max }
    }

    /// Largest records for which [`StageError::TooLarge`] never comes, whatever the topic's name.
    pub fn records_bytes_max(&self) -> usize {
        self.frame_bytes_max - FRAME_HEADER_BYTES - ENTRY_HEADER_BYTES - taccola_base::topic::TOPIC_NAME_LEN_MAX
    }

    /// Copies an entry into the frame. Costs one copy of the records.
    pub fn stage(&mut self, entry: &EntryHeader<'_>, records: &[u8]) -> Result<Staged, StageError> {
        if let Some(fault) = entry.fault(records.len()) {
            return Err(StageError::IllFormed(fault));
        }
        let bytes = entry.encoded_bytes(records.len());
        if FRAME_HEADER_BYTES + bytes > self.frame_bytes_max {
            return Err(StageError::TooLarge { bytes, frame_bytes_max: self.frame_bytes_max });
        }
        let start = self.frame.length;
        let end = start + bytes;
        if end > self.frame_bytes_max {
            return Err(StageError::Full);
        }
        self.frame.buf.grow(end, start);
        entry.encode(records, self.frame.buf.bytes_mut().get_mut(start..end).unwrap_or_default());
        self.frame.length = end;
        self.frame.entry_count += 1;
        Ok(Staged { seq: self.frame.seq, frame_bytes: end })
    }

    /// Whether entries wait for a flush.
    pub fn is_empty(&self) -> bool {
        self.frame.entry_count == 0
    }

    /// The frame that the next entry will be part of.
    pub fn next_seq(&self) -> FrameSeq {
        self.frame.seq
    }

    /// Takes the frame for writing. `None` when it is empty or the frame taken before has not been given back.
    pub fn take(&mut self) -> Option<StagedFrame> {
        if self.is_empty() {
            return None;
        }
        let next = StagedFrame::empty(FrameSeq(self.frame.seq.0 + 1), self.spare.take()?);
        Some(std::mem::replace(&mut self.frame, next))
    }

    /// Returns a written frame's buffer.
    pub fn give_back(&mut self, frame: StagedFrame) {
        self.spare = Some(frame.buf);
    }
}
