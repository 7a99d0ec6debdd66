//! A growable buffer whose first byte lies on a block boundary in memory, as direct I/O demands.
//!
//! Alignment is reached without `unsafe`: the backing vector is one block longer than the capacity and the buffer begins
//! at its first aligned byte. Growing copies. Memory comes zeroed from the allocator and is touched only when used.

use super::format::BLOCK;

pub(super) struct AlignedBuf {
    backing: Vec<u8>,
    /// Index of the first aligned byte in `backing`.
    start: usize,
    /// Usable bytes from `start`; a multiple of [`BLOCK`].
    capacity: usize,
}

impl AlignedBuf {
    /// A zeroed buffer of at least `capacity` bytes, rounded up to whole blocks.
    pub(super) fn zeroed(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK).max(BLOCK);
        let backing = vec![0u8; capacity + BLOCK];
        let misfit = backing.as_ptr().addr() % BLOCK;
        let start = if misfit == 0 { 0 } else { BLOCK - misfit };
        Self { backing, start, capacity }
    }

    /// All of the buffer.
    pub(super) fn bytes(&self) -> &[u8] {
        self.backing.get(self.start..self.start + self.capacity).unwrap_or_default()
    }

    /// All of the buffer, to write into.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.backing.get_mut(self.start..self.start + self.capacity).unwrap_or_default()
    }

    /// Grows to at least `capacity` bytes; the first `keep` bytes stay.
    pub(super) fn grow(&mut self, capacity: usize, keep: usize) {
        if capacity <= self.capacity {
            return;
        }
        let mut larger = Self::zeroed(capacity.max(self.capacity * 2));
        let keep = keep.min(self.capacity);
        if let (Some(to), Some(from)) = (larger.bytes_mut().get_mut(..keep), self.bytes().get(..keep)) {
            to.copy_from_slice(from);
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_keeps_its_content_when_it_grows() {
        let mut buf = AlignedBuf::zeroed(5000);
        assert_eq!(buf.bytes().len(), 2 * BLOCK);
        buf.bytes_mut()[..3].copy_from_slice(b"abc");
        buf.grow(100_000, 3);
        assert!(buf.bytes().len() >= 100_000 && buf.bytes().len().is_multiple_of(BLOCK));
        assert_eq!(buf.bytes().as_ptr().addr() % BLOCK, 0);
        assert_eq!(&buf.bytes()[..4], b"abc\0");
    }
}
