//! Where frames lie in the ring. Pure arithmetic over positions in the file.
//!
//! INVARIANT: a position that belongs to a frame at or above the *persisted* tail is never handed out. The persisted tail
//! is the one that a durable frame or header slot names, not the one that was merely released: were a frame torn that
//! overwrote released frames, recovery would go by an older tail and miss them.

use std::collections::VecDeque;

use super::format::RING_START;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) position: u64,
    pub(super) bytes: u64,
}

/// Frames that must stay, oldest first, and where the next one goes. Bounded by the ring: a frame takes at least a block.
#[derive(Debug)]
pub(super) struct Ring {
    end: u64,
    live: VecDeque<Place>,
}

impl Ring {
    /// An empty ring in a file of `file_bytes`.
    pub(super) fn new(file_bytes: u64) -> Self {
        Self { end: file_bytes, live: VecDeque::new() }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.end - RING_START
    }

    /// Frames never straddle the ring's end, so the space before it can be lost to a frame that does not fit there.
    /// `None` when there is no room beside the frames with `seq >= tail_seq`.
    pub(super) fn place(&self, bytes: u64, tail_seq: u64) -> Option<u64> {
        let Some(newest) = self.live.back() else {
            return (bytes <= self.capacity()).then_some(RING_START);
        };
        let head = newest.position + newest.bytes;
        let fits_to_end = head + bytes <= self.end;
        let Some(oldest) = self.live.iter().find(|p| p.seq >= tail_seq) else {
            // Nothing has to stay: go on behind the newest, so that the whole ring is worn alike.
            return if fits_to_end { Some(head) } else { (bytes <= self.capacity()).then_some(RING_START) };
        };
        if oldest.position < head {
            if fits_to_end {
                return Some(head);
            }
            return (RING_START + bytes <= oldest.position).then_some(RING_START);
        }
        (head + bytes <= oldest.position).then_some(head)
    }

    /// Bytes between the oldest frame with `seq >= tail_seq` and the head, waste at the ring's end included.
    pub(super) fn used(&self, tail_seq: u64) -> u64 {
        let Some(newest) = self.live.back() else { return 0 };
        let head = newest.position + newest.bytes;
        match self.live.iter().find(|p| p.seq >= tail_seq) {
            None => 0,
            Some(oldest) if oldest.position < head => head - oldest.position,
            Some(oldest) => self.capacity() - (oldest.position - head),
        }
    }

    pub(super) fn push(&mut self, place: Place) {
        self.live.push_back(place);
    }

    /// Forgets frames below `tail_seq`, which is now persisted. The newest stays: it says where the head is, and counts
    /// as released by its number.
    pub(super) fn persisted(&mut self, tail_seq: u64) {
        while self.live.len() > 1 && self.live.front().is_some_and(|p| p.seq < tail_seq) {
            self.live.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::BLOCK_BYTES;
    use super::*;

    fn ring(blocks: u64) -> Ring {
        Ring::new(RING_START + blocks * BLOCK_BYTES)
    }

    fn add(ring: &mut Ring, seq: u64, blocks: u64, tail_seq: u64) -> Option<u64> {
        let position = ring.place(blocks * BLOCK_BYTES, tail_seq)?;
        ring.push(Place { seq, position, bytes: blocks * BLOCK_BYTES });
        Some((position - RING_START) / BLOCK_BYTES)
    }

    #[test]
    fn goes_round_without_touching_what_must_stay() {
        let mut r = ring(8);
        assert_eq!(add(&mut r, 1, 3, 1), Some(0));
        assert_eq!(add(&mut r, 2, 3, 1), Some(3));
        assert_eq!(add(&mut r, 3, 3, 1), None, "2 blocks to the end, none at the start");
        assert_eq!(add(&mut r, 3, 3, 2), Some(0), "3 blocks of the released first frame, the last two are lost");
        r.persisted(2);
        assert_eq!(r.used(2), 8 * BLOCK_BYTES);
        assert_eq!(add(&mut r, 4, 1, 2), None, "full: head meets tail");
        assert_eq!(r.used(3), 3 * BLOCK_BYTES);
        assert_eq!(add(&mut r, 4, 5, 3), Some(3), "exactly to the end");
        r.persisted(3);
        assert_eq!(add(&mut r, 5, 3, 4), Some(0));
        assert_eq!(r.used(6), 0);
        assert_eq!(add(&mut r, 6, 8, 6), Some(0), "a frame as large as the ring, when nothing must stay");
        assert_eq!(add(&mut r, 7, 9, 7), None);
    }
}
