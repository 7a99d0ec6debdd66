//! The bytes of the journal file: header slots, frames, entries. Pure: slices in, values out. All integers are
//! big-endian, as in Kafka's own files; every checksum is CRC-32C.
//!
//! INVARIANT: a block is accepted as a frame only if magic, version, the journal's incarnation, the position that it was
//! written for, and both checksums agree, so that a stale, torn, misdirected or flipped block never becomes data.

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_base::topic::TOPIC_NAME_LEN_MAX;

/// Unit of alignment and of placement, in bytes: what every disk writes whole and direct I/O accepts everywhere.
pub const BLOCK: usize = 4096;
pub(super) const BLOCK_BYTES: u64 = BLOCK as u64;
/// Header slots at the start of the file; they are written in turn.
pub(super) const SLOTS: usize = 2;
/// First byte of the ring.
pub(super) const RING_START: u64 = SLOTS as u64 * BLOCK_BYTES;
pub(super) const FORMAT_VERSION: u32 = 1;
/// Bytes of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = 68;
/// Bytes of an entry without its topic name and its records.
pub(super) const ENTRY_HEADER_BYTES: usize = 44;
/// Longest cluster id that a header slot holds, in bytes, inclusive.
pub(super) const CLUSTER_ID_BYTES_MAX: usize = 255;

const FRAME_MAGIC: [u8; 8] = *b"TACCJRNF";
const SLOT_MAGIC: [u8; 8] = *b"TACCJRNL";
const SLOT_CRC_AT: usize = BLOCK - 4;
const FRAME_CRC_AT: usize = FRAME_HEADER_BYTES - 4;

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Reads fixed-size fields off a slice; `None` past its end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn slice(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }
}

/// Fills a slice from its front; what does not fit is dropped, which callers rule out by sizing.
struct Filler<'a>(&'a mut [u8]);

impl Filler<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let target = std::mem::take(&mut self.0);
        debug_assert!(bytes.len() <= target.len());
        if let Some((head, rest)) = target.split_at_mut_checked(bytes.len()) {
            head.copy_from_slice(bytes);
            self.0 = rest;
        }
    }
}

/// Whether the ring holds frames that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotState {
    /// Stopped cleanly, or never used: whatever the ring holds is void.
    Empty,
    Live,
}

/// One header slot. The valid one with the higher generation counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) generation: u64,
    pub(super) state: SlotState,
    pub(super) incarnation: Uuid,
    pub(super) directory_id: Uuid,
    pub(super) node_id: i32,
    pub(super) cluster_id: String,
    /// Length of the file, header slots included.
    pub(super) file_bytes: u64,
    /// Frames below are released (exclusive bound).
    pub(super) tail_seq: u64,
    /// Last frame that was durable when the slot was written; 0 when none was.
    pub(super) durable_seq: u64,
}

/// Why a block is no header slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotFault {
    /// Wrong magic, checksum or position: torn, flipped, or nothing of ours.
    Invalid,
    /// Whole, but of a later format.
    Version(u32),
}

impl Slot {
    /// Encodes into one block.
    pub(super) fn encode(&self, index: u32, block: &mut [u8]) {
        block.fill(0);
        let mut out = Filler(block);
        out.put(&SLOT_MAGIC);
        out.put(&FORMAT_VERSION.to_be_bytes());
        out.put(&index.to_be_bytes());
        out.put(&self.generation.to_be_bytes());
        out.put(&u32::from(self.state == SlotState::Live).to_be_bytes());
        out.put(&self.node_id.to_be_bytes());
        out.put(self.incarnation.as_bytes());
        out.put(self.directory_id.as_bytes());
        out.put(&self.file_bytes.to_be_bytes());
        out.put(&self.tail_seq.to_be_bytes());
        out.put(&self.durable_seq.to_be_bytes());
        let cluster_id = self.cluster_id.as_bytes();
        out.put(&u16::try_from(cluster_id.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.put(cluster_id);
        if let Some((head, tail)) = block.split_at_mut_checked(SLOT_CRC_AT) {
            tail.copy_from_slice(&crc32c(head).to_be_bytes());
        }
    }

    pub(super) fn decode(index: u32, block: &[u8]) -> Result<Slot, SlotFault> {
        Self::parse(index, block).unwrap_or(Err(SlotFault::Invalid))
    }

    fn parse(index: u32, block: &[u8]) -> Option<Result<Slot, SlotFault>> {
        let (head, crc) = block.split_at_checked(SLOT_CRC_AT)?;
        let mut c = Cursor(head);
        if c.array()? != SLOT_MAGIC || Cursor(crc).u32()? != crc32c(head) {
            return None;
        }
        let version = c.u32()?;
        if version != FORMAT_VERSION {
            return Some(Err(SlotFault::Version(version)));
        }
        if c.u32()? != index {
            return None;
        }
        let generation = c.u64()?;
        let state = match c.u32()? {
            0 => SlotState::Empty,
            1 => SlotState::Live,
            _ => return None,
        };
        let node_id = c.i32()?;
        let (incarnation, directory_id) = (c.uuid()?, c.uuid()?);
        let (file_bytes, tail_seq, durable_seq) = (c.u64()?, c.u64()?, c.u64()?);
        let id_len = usize::from(c.u16()?);
        let cluster_id = std::str::from_utf8(c.slice(id_len)?).ok()?.to_owned();
        Some(Ok(Slot {
            generation,
            state,
            incarnation,
            directory_id,
            node_id,
            cluster_id,
            file_bytes,
            tail_seq,
            durable_seq,
        }))
    }
}

/// The header of a frame. `length` counts the header, and not the zeros that fill the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) incarnation: Uuid,
    pub(super) seq: u64,
    /// Frames below were released when this one was written (exclusive bound, at most `seq`).
    pub(super) tail_seq: u64,
    /// Where in the file this frame was meant to go.
    pub(super) position: u64,
    pub(super) length: u32,
    pub(super) entry_count: u32,
    /// Over the bytes from the header's end to `length`.
    pub(super) body_crc: u32,
}

impl FrameHeader {
    pub(super) fn encode(&self, out: &mut [u8]) {
        let Some(header) = out.get_mut(..FRAME_HEADER_BYTES) else { return };
        let mut f = Filler(header);
        f.put(&FRAME_MAGIC);
        f.put(&FORMAT_VERSION.to_be_bytes());
        f.put(&self.entry_count.to_be_bytes());
        f.put(self.incarnation.as_bytes());
        f.put(&self.seq.to_be_bytes());
        f.put(&self.tail_seq.to_be_bytes());
        f.put(&self.position.to_be_bytes());
        f.put(&self.length.to_be_bytes());
        f.put(&self.body_crc.to_be_bytes());
        if let Some((head, crc)) = header.split_at_mut_checked(FRAME_CRC_AT) {
            crc.copy_from_slice(&crc32c(head).to_be_bytes());
        }
    }

    /// The header at `position` of a ring that ends at `ring_end`, if it is one of `incarnation`, meant for this very
    /// place, and names a length that lies in the ring. The body is not looked at.
    pub(super) fn decode(block: &[u8], incarnation: Uuid, position: u64, ring_end: u64) -> Option<FrameHeader> {
        let head = block.get(..FRAME_CRC_AT)?;
        let mut c = Cursor(block);
        if c.array()? != FRAME_MAGIC || c.u32()? != FORMAT_VERSION {
            return None;
        }
        let entry_count = c.u32()?;
        let header = FrameHeader {
            entry_count,
            incarnation: c.uuid()?,
            seq: c.u64()?,
            tail_seq: c.u64()?,
            position: c.u64()?,
            length: c.u32()?,
            body_crc: c.u32()?,
        };
        let whole = c.u32()? == crc32c(head)
            && header.incarnation == incarnation
            && header.position == position
            && header.length as usize >= FRAME_HEADER_BYTES
            && position.checked_add(header.padded()).is_some_and(|end| end <= ring_end)
            && header.seq > 0
            && header.tail_seq > 0
            && header.tail_seq <= header.seq;
        whole.then_some(header)
    }

    /// Bytes that the frame takes in the ring.
    pub(super) fn padded(&self) -> u64 {
        u64::from(self.length).next_multiple_of(BLOCK_BYTES)
    }
}

/// What an entry says about its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The records from `base_offset` to `next_offset` were appended.
    Append,
    /// The log was cut back: it ends at `base_offset` (which equals `next_offset`); there are no records.
    Truncate,
}

/// What the producer side says about an entry. `next_offset` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader<'a> {
    pub kind: EntryKind,
    pub topic_id: Uuid,
    pub topic: &'a str,
    pub partition: i32,
    pub base_offset: i64,
    pub next_offset: i64,
}

impl EntryHeader<'_> {
    /// Bytes that the entry takes in a frame.
    pub fn encoded_bytes(&self, records_bytes: usize) -> usize {
        ENTRY_HEADER_BYTES + self.topic.len() + records_bytes
    }

    /// Why the entry makes no sense, if so.
    pub(super) fn fault(&self, records_bytes: usize) -> Option<&'static str> {
        let sound = match self.kind {
            EntryKind::Append => records_bytes > 0 && self.base_offset < self.next_offset,
            EntryKind::Truncate => records_bytes == 0 && self.base_offset == self.next_offset,
        };
        if self.topic.is_empty() || self.topic.len() > TOPIC_NAME_LEN_MAX {
            Some("the topic name is empty or too long")
        } else if self.base_offset < 0 || self.partition < 0 || !sound {
            Some("partition, offsets, kind and records do not fit each other")
        } else if u32::try_from(records_bytes).is_err() {
            Some("the records are larger than 4 GiB")
        } else {
            None
        }
    }

    /// Encodes entry and records to the front of `out`, which is exactly [`Self::encoded_bytes`] long.
    pub(super) fn encode(&self, records: &[u8], out: &mut [u8]) {
        let mut f = Filler(out);
        f.put(self.topic_id.as_bytes());
        f.put(&self.partition.to_be_bytes());
        f.put(&[u8::from(self.kind == EntryKind::Truncate), u8::try_from(self.topic.len()).unwrap_or(u8::MAX), 0, 0]);
        f.put(&self.base_offset.to_be_bytes());
        f.put(&self.next_offset.to_be_bytes());
        f.put(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_be_bytes());
        f.put(self.topic.as_bytes());
        f.put(records);
    }
}

/// An entry that replay hands out. `records` is a slice of the frame's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub kind: EntryKind,
    pub topic_id: Uuid,
    pub topic: String,
    pub partition: i32,
    pub base_offset: i64,
    /// Exclusive.
    pub next_offset: i64,
    pub records: Bytes,
}

impl JournalEntry {
    pub fn header(&self) -> EntryHeader<'_> {
        EntryHeader {
            kind: self.kind,
            topic_id: self.topic_id,
            topic: &self.topic,
            partition: self.partition,
            base_offset: self.base_offset,
            next_offset: self.next_offset,
        }
    }
}

/// All entries of a frame's body (the bytes after the header, without padding). `None` when they do not fill the body
/// exactly or their number differs, which a frame with a matching checksum never shows.
pub(super) fn decode_entries(body: &Bytes, entry_count: u32) -> Option<Vec<JournalEntry>> {
    let mut entries = Vec::new();
    let mut c = Cursor(body);
    while !c.0.is_empty() {
        let (topic_id, partition) = (c.uuid()?, c.i32()?);
        let [kind, topic_len, _, _] = c.array()?;
        let kind = match kind {
            0 => EntryKind::Append,
            1 => EntryKind::Truncate,
            _ => return None,
        };
        let (base_offset, next_offset) = (c.i64()?, c.i64()?);
        let records_len = c.u32()? as usize;
        let topic = std::str::from_utf8(c.slice(usize::from(topic_len))?).ok()?.to_owned();
        let records = body.slice_ref(c.slice(records_len)?);
        let entry = JournalEntry { kind, topic_id, topic, partition, base_offset, next_offset, records };
        if entry.header().fault(records_len).is_some() {
            return None;
        }
        entries.push(entry);
    }
    (u32::try_from(entries.len()).ok()? == entry_count).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            generation: 7,
            state: SlotState::Live,
            incarnation: Uuid::from_u128(1 << 90),
            directory_id: Uuid::from_u128(5 << 80),
            node_id: 3,
            cluster_id: "a cluster".into(),
            file_bytes: 1 << 20,
            tail_seq: 4,
            durable_seq: 9,
        }
    }

    #[test]
    fn slot_round_trips_and_every_flipped_bit_is_noticed() {
        let mut block = vec![0; BLOCK];
        slot().encode(1, &mut block);
        assert_eq!(Slot::decode(1, &block), Ok(slot()));
        assert_eq!(Slot::decode(0, &block), Err(SlotFault::Invalid), "a slot in the other one's place");
        for bit in 0..BLOCK * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::decode(1, &block), Err(SlotFault::Invalid));
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_later_format_is_told_from_garbage() {
        let mut block = vec![0; BLOCK];
        slot().encode(0, &mut block);
        block[11] = 2;
        let crc = crc32c(&block[..SLOT_CRC_AT]);
        block[SLOT_CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(Slot::decode(0, &block), Err(SlotFault::Version(2)));
    }

    #[test]
    fn frame_header_binds_incarnation_and_position() {
        let incarnation = Uuid::from_u128(99);
        let header = FrameHeader {
            incarnation,
            seq: 5,
            tail_seq: 2,
            position: 8192,
            length: 5000,
            entry_count: 1,
            body_crc: 0xdead_beef,
        };
        let mut block = vec![0; BLOCK];
        header.encode(&mut block);
        assert_eq!(FrameHeader::decode(&block, incarnation, 8192, 1 << 20), Some(header));
        assert_eq!(FrameHeader::decode(&block, Uuid::from_u128(98), 8192, 1 << 20), None);
        assert_eq!(FrameHeader::decode(&block, incarnation, 12288, 1 << 20), None, "misdirected");
        assert_eq!(FrameHeader::decode(&block, incarnation, 8192, 12288), None, "reaches past the ring");
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&block, incarnation, 8192, 1 << 20), None);
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn entries_round_trip_and_ill_formed_ones_are_refused() {
        let append = EntryHeader {
            kind: EntryKind::Append,
            topic_id: Uuid::from_u128(77),
            topic: "orders",
            partition: 3,
            base_offset: 10,
            next_offset: 12,
        };
        let cut = EntryHeader { kind: EntryKind::Truncate, base_offset: 11, next_offset: 11, ..append };
        let mut body = vec![0; append.encoded_bytes(5) + cut.encoded_bytes(0)];
        let at = append.encoded_bytes(5);
        append.encode(b"12345", &mut body[..at]);
        cut.encode(b"", &mut body[at..]);
        let bytes = Bytes::from(body.clone());
        let entries = decode_entries(&bytes, 2).unwrap();
        assert_eq!(entries[0].header(), append);
        assert_eq!(&entries[0].records[..], b"12345");
        assert_eq!(entries[1].header(), cut);
        assert!(decode_entries(&bytes, 3).is_none());
        for cut in 1..body.len() {
            if cut != at {
                assert!(decode_entries(&bytes.slice(..cut), 2).is_none());
            }
        }
        assert!(append.fault(0).is_some() && cut.fault(1).is_some());
        assert!(EntryHeader { topic: "", ..append }.fault(1).is_some());
    }
}
