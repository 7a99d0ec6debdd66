//! Bytes on their way to one socket. Small replies are copied together so that many of them cost one system call; large
//! payloads (fetched records) are kept as they are and handed to the kernel as slices of one `writev`.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Payloads of at least this many bytes are not copied.
const COPY_BYTES_MAX: usize = 4 * 1024;
/// Slices given to one `writev`.
const SLICES_MAX: usize = 64;

/// One complete reply: its bytes in order, size prefix included.
#[derive(Debug, Default)]
pub struct ReplyFrame(pub Vec<Bytes>);

impl From<BytesMut> for ReplyFrame {
    fn from(bytes: BytesMut) -> Self {
        Self(vec![bytes.freeze()])
    }
}

impl From<Bytes> for ReplyFrame {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

/// The queue of one connection. Bounded by the caller, which starts no request while replies wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, frame: ReplyFrame) {
        for chunk in frame.0 {
            self.len += chunk.len();
            if chunk.len() < COPY_BYTES_MAX {
                self.tail.extend_from_slice(&chunk);
            } else {
                self.close_tail();
                self.chunks.push_back(chunk);
            }
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// The next bytes as slices for one vectored write.
    pub(crate) fn slices(&mut self) -> Vec<IoSlice<'_>> {
        self.close_tail();
        self.chunks.iter().take(SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect()
    }

    /// Forgets the first `written` bytes.
    pub(crate) fn advance(&mut self, mut written: usize) {
        self.len = self.len.saturating_sub(written);
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_over_copied_and_whole_chunks() {
        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![7; COPY_BYTES_MAX]);
        outbox.push(ReplyFrame(vec![Bytes::from_static(b"ab"), large.clone(), Bytes::from_static(b"c")]));
        outbox.push(Bytes::from_static(b"d").into());
        assert_eq!(outbox.len, COPY_BYTES_MAX + 4);
        let mut seen = Vec::new();
        while !outbox.is_empty() {
            let first: Vec<u8> = outbox.slices().iter().flat_map(|s| s.to_vec()).take(3).collect();
            seen.extend_from_slice(&first);
            outbox.advance(first.len());
        }
        assert_eq!(seen, [b"ab".as_slice(), &large, b"cd"].concat());
    }
}
