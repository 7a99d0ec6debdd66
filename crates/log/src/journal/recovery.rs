//! What a journal file still holds when it is opened, and the way from there to an empty, running one.
//!
//! The rule. The valid header slot of the higher generation names the incarnation. Live journals are scanned whole; a
//! block counts as a frame if it is whole and was written for this incarnation and this position. With M the highest
//! frame found and T the highest tail that M or a slot names, every frame from T to M was acknowledged and must be there.
//! What is behind M was being written when the power went and was never acknowledged. Anything else is damage, and is
//! reported with the numbers of the frames that are lost:
//! - a frame between T and M is missing;
//! - a frame with a whole header and a bad body carries a number above M + 1: M + 1 had been acknowledged before;
//! - a header slot knows of a durable frame above M.
//!
//! One case is beyond detection: bit rot in the very last frame looks like a torn write of it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use taccola_base::Uuid;

use super::buffer::AlignedBuf;
use super::device::JournalDevice;
use super::format::{
    BLOCK, BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, JournalEntry, RING_START, SLOTS, Slot, SlotFault, SlotState,
    decode_entries,
};
use super::staging::Staging;
use super::writer::JournalWriter;
use super::{FrameSeq, JournalConfig, JournalError, JournalIdentity};

/// Bytes that the scan reads at a time.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Acknowledged frames that the file no longer holds whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDamage {
    /// Numbers of the lost frames, in order.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Frames that are whole and will be replayed.
    pub intact: usize,
}

impl std::fmt::Display for JournalDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "acknowledged frames are lost (")?;
        for (i, range) in self.missing.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", range.start())?;
            if range.end() > range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        write!(f, "), {} are whole", self.intact)
    }
}

/// A frame to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedFrame {
    pub seq: FrameSeq,
    pub entries: Vec<JournalEntry>,
}

/// An opened journal that is not running yet. Apply every frame to its logs, sync these, then [`Self::start`].
/// Until then the file is not written to, so a crash in between replays the same frames again.
pub struct Recovery {
    device: Box<dyn JournalDevice>,
    identity: JournalIdentity,
    config: JournalConfig,
    slot: Slot,
    slot_index: usize,
    frames: Vec<FrameHeader>,
    next: usize,
    damage: Option<JournalDamage>,
    damage_accepted: bool,
}

/// A journal that takes entries.
pub struct Journal {
    pub staging: Staging,
    pub writer: JournalWriter,
}

impl Recovery {
    /// Reads the header slots and, unless the journal was stopped cleanly, finds what is to be replayed.
    pub(super) fn open(
        device: Box<dyn JournalDevice>,
        config: JournalConfig,
        identity: JournalIdentity,
    ) -> Result<Recovery, JournalError> {
        let (slot_index, slot) = newest_slot(device.as_ref())?;
        check_owner(&slot, &identity)?;
        Self::of_slot(device, config, identity, slot_index, slot)
    }

    /// As [`open`](Self::open), whoever's it is.
    pub(super) fn of_anybody(device: Box<dyn JournalDevice>, config: JournalConfig) -> Result<Recovery, JournalError> {
        let (slot_index, slot) = newest_slot(device.as_ref())?;
        let identity = JournalIdentity {
            cluster_id: slot.cluster_id.clone(),
            node_id: slot.node_id,
            directory_id: slot.directory_id,
        };
        Self::of_slot(device, config, identity, slot_index, slot)
    }

    fn of_slot(
        device: Box<dyn JournalDevice>,
        config: JournalConfig,
        identity: JournalIdentity,
        slot_index: usize,
        slot: Slot,
    ) -> Result<Recovery, JournalError> {
        if slot.file_bytes != device.size_bytes() {
            return Err(JournalError::WrongLength { expected: slot.file_bytes, found: device.size_bytes() });
        }
        let found = match slot.state {
            SlotState::Empty => Found::default(),
            SlotState::Live => find_frames(device.as_ref(), &slot)?,
        };
        Ok(Recovery {
            device,
            identity,
            config,
            slot,
            slot_index,
            frames: found.frames,
            next: 0,
            damage: found.damage,
            damage_accepted: false,
        })
    }

    /// The last stop was clean: there is nothing to replay.
    pub fn was_clean(&self) -> bool {
        self.slot.state == SlotState::Empty
    }

    /// Frames that will be replayed.
    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Acknowledged data that is lost. [`Self::start`] refuses until [`Self::accept_damage`] was called.
    pub fn damage(&self) -> Option<&JournalDamage> {
        self.damage.as_ref()
    }

    /// The operator knows what is lost, or it was repaired from elsewhere.
    pub fn accept_damage(&mut self) {
        self.damage_accepted = true;
    }

    /// The next frame, oldest first; `None` after the last. Holds one frame in memory at a time.
    pub fn next_frame(&mut self) -> Result<Option<ReplayedFrame>, JournalError> {
        let Some(header) = self.frames.get(self.next).copied() else { return Ok(None) };
        let mut buf = AlignedBuf::zeroed(header.length as usize);
        read(self.device.as_ref(), header.position, buf.bytes_mut())?;
        let whole = buf.bytes().get(..header.length as usize).unwrap_or_default();
        let again = FrameHeader::decode(whole, header.incarnation, header.position, self.slot.file_bytes);
        let body = Bytes::copy_from_slice(whole.get(FRAME_HEADER_BYTES..).unwrap_or_default());
        if again != Some(header) || super::format::crc32c(&body) != header.body_crc {
            return Err(JournalError::Unreadable { seq: header.seq, what: "it changed between two reads" });
        }
        let entries = decode_entries(&body, header.entry_count)
            .ok_or(JournalError::Unreadable { seq: header.seq, what: "its entries are ill-formed" })?;
        self.next += 1;
        Ok(Some(ReplayedFrame { seq: FrameSeq(header.seq), entries }))
    }

    /// Voids what the file held and starts an empty journal under `incarnation`, an id that was never used before.
    /// Everything that was replayed must be durable in the segments. When the configured size differs from the file's,
    /// a new file takes its place.
    pub fn start(mut self, incarnation: Uuid) -> Result<Journal, JournalError> {
        if let Some(damage) = self.damage.take_if(|_| !self.damage_accepted) {
            return Err(JournalError::Damaged(damage));
        }
        if self.next < self.frames.len() {
            let rest = (self.frames.len() - self.next) as u64;
            return Err(JournalError::NotReplayed { frames: rest });
        }
        if incarnation == Uuid::ZERO || incarnation == self.slot.incarnation {
            return Err(JournalError::Config { what: "the incarnation id is zero or was used before" });
        }
        if let Some(path) = self.config.path.clone()
            && self.config.size_bytes != self.slot.file_bytes
        {
            drop(self.device);
            super::create_file(&path, &self.config, &self.identity)?;
            self.device = super::open_file(&path, &self.config)?;
            (self.slot_index, self.slot) = newest_slot(self.device.as_ref())?;
        }
        let frame_bytes_max = self.config.frame_bytes_max.min(frame_limit(self.slot.file_bytes));
        let slot = Slot { state: SlotState::Live, incarnation, tail_seq: 1, durable_seq: 0, ..self.slot };
        let writer = JournalWriter::start(self.device, slot, self.slot_index)?;
        Ok(Journal { staging: Staging::new(frame_bytes_max), writer })
    }
}

/// A frame takes at most a quarter of the ring, so that one is written while others wait for a checkpoint.
fn frame_limit(file_bytes: u64) -> usize {
    usize::try_from((file_bytes - RING_START) / 4).unwrap_or(usize::MAX)
}

/// Blocks that the disk cannot read are zeros: whatever frame was there is not whole.
fn read(device: &dyn JournalDevice, position: u64, buf: &mut [u8]) -> Result<(), JournalError> {
    match device.read(position, buf) {
        Err(error) if crate::salvage::is_unreadable(&error) => {}
        read => return read.map_err(|source| JournalError::Read { position, source }),
    }
    tracing::error!(position, bytes = buf.len(), "the disk cannot read some of the journal");
    for (index, block) in buf.chunks_mut(BLOCK).enumerate() {
        let at = position + index as u64 * BLOCK_BYTES;
        match device.read(at, block) {
            Err(error) if crate::salvage::is_unreadable(&error) => block.fill(0),
            read => read.map_err(|source| JournalError::Read { position: at, source })?,
        }
    }
    Ok(())
}

/// The valid slot with the highest generation. One slot may be torn or rotten, not both.
fn newest_slot(device: &dyn JournalDevice) -> Result<(usize, Slot), JournalError> {
    if device.size_bytes() < RING_START {
        return Err(JournalError::NotAJournal);
    }
    let mut block = AlignedBuf::zeroed(BLOCK);
    let mut newest: Option<(usize, Slot)> = None;
    for index in 0..SLOTS {
        read(device, index as u64 * BLOCK_BYTES, block.bytes_mut())?;
        match Slot::decode(u32::try_from(index).unwrap_or(0), block.bytes()) {
            Ok(slot) => {
                if newest.as_ref().is_none_or(|(_, n)| slot.generation > n.generation) {
                    newest = Some((index, slot));
                }
            }
            Err(SlotFault::Version(version)) => return Err(JournalError::Version { version }),
            Err(SlotFault::Invalid) => tracing::warn!(slot = index, "a header slot of the journal is not whole"),
        }
    }
    newest.ok_or(JournalError::NotAJournal)
}

fn check_owner(slot: &Slot, identity: &JournalIdentity) -> Result<(), JournalError> {
    let wrong = |what, found: String, expected: String| JournalError::WrongOwner { what, found, expected };
    if slot.cluster_id != identity.cluster_id {
        return Err(wrong("cluster id", slot.cluster_id.clone(), identity.cluster_id.clone()));
    }
    if slot.node_id != identity.node_id {
        return Err(wrong("node id", slot.node_id.to_string(), identity.node_id.to_string()));
    }
    if slot.directory_id != identity.directory_id {
        return Err(wrong("directory id", slot.directory_id.to_string(), identity.directory_id.to_string()));
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    frames: Vec<FrameHeader>,
    damage: Option<JournalDamage>,
}

/// Scans the ring and applies the rule at the top of this file.
fn find_frames(device: &dyn JournalDevice, slot: &Slot) -> Result<Found, JournalError> {
    let mut scan = Scan { window: Window::new(device), whole: Vec::new(), torn_seq_max: 0 };
    scan.run(slot)?;
    let mut whole = scan.whole;
    whole.sort_by_key(|h| h.seq);
    let (last, last_tail) = whole.last().map_or((0, 1), |h| (h.seq, h.tail_seq));
    let tail = last_tail.max(slot.tail_seq);
    whole.retain(|h| h.seq >= tail);
    whole.dedup_by_key(|h| h.seq);

    let mut acknowledged = last.max(slot.durable_seq);
    if scan.torn_seq_max > last + 1 {
        acknowledged = acknowledged.max(scan.torn_seq_max - 1);
    }
    let mut missing = Vec::new();
    let mut expected = tail;
    for header in &whole {
        if header.seq > expected {
            missing.push(expected..=header.seq - 1);
        }
        expected = header.seq + 1;
    }
    if acknowledged >= expected {
        missing.push(expected..=acknowledged);
    }
    let damage = (!missing.is_empty()).then_some(JournalDamage { missing, intact: whole.len() });
    Ok(Found { frames: whole, damage })
}

struct Scan<'a> {
    window: Window<'a>,
    whole: Vec<FrameHeader>,
    /// Highest number in a whole header above a body that is not.
    torn_seq_max: u64,
}

impl Scan<'_> {
    /// Looks at every block where a frame may begin; the inside of a whole frame is skipped.
    fn run(&mut self, slot: &Slot) -> Result<(), JournalError> {
        let mut at = RING_START;
        while at + BLOCK_BYTES <= slot.file_bytes {
            let header = FrameHeader::decode(self.window.block(at)?, slot.incarnation, at, slot.file_bytes);
            let mut step = BLOCK_BYTES;
            if let Some(header) = header {
                if self.window.crc32c(at + FRAME_HEADER_BYTES as u64, at + u64::from(header.length))? == header.body_crc
                {
                    self.whole.push(header);
                    step = header.padded();
                } else {
                    self.torn_seq_max = self.torn_seq_max.max(header.seq);
                }
            }
            at += step;
        }
        Ok(())
    }
}

/// Reads the file through one buffer, mostly forward.
struct Window<'a> {
    device: &'a dyn JournalDevice,
    buf: AlignedBuf,
    start: u64,
    bytes: usize,
}

impl<'a> Window<'a> {
    fn new(device: &'a dyn JournalDevice) -> Self {
        Self { device, buf: AlignedBuf::zeroed(WINDOW_BYTES), start: 0, bytes: 0 }
    }

    /// What the window holds from `position` on, at least a byte unless the file ends there.
    fn from(&mut self, position: u64) -> Result<&[u8], JournalError> {
        let end = self.start + self.bytes as u64;
        if position < self.start || position >= end {
            self.start = position - position % BLOCK_BYTES;
            let rest = self.device.size_bytes().saturating_sub(self.start);
            self.bytes = usize::try_from(rest).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            self.bytes -= self.bytes % BLOCK;
            read(self.device, self.start, self.buf.bytes_mut().get_mut(..self.bytes).unwrap_or_default())?;
        }
        let skip = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        Ok(self.buf.bytes().get(skip..self.bytes).unwrap_or_default())
    }

    fn block(&mut self, position: u64) -> Result<&[u8], JournalError> {
        Ok(self.from(position)?.get(..BLOCK).unwrap_or_default())
    }

    /// Checksum of the file's bytes from `position` to `end`, exclusive.
    fn crc32c(&mut self, mut position: u64, end: u64) -> Result<u32, JournalError> {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        while position < end {
            let here = self.from(position)?;
            let n = usize::try_from(end - position).unwrap_or(usize::MAX).min(here.len());
            if n == 0 {
                break;
            }
            digest.update(here.get(..n).unwrap_or_default());
            position += n as u64;
        }
        Ok(u32::try_from(digest.finalize()).unwrap_or(0))
    }
}
