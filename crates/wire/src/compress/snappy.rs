//! Snappy in the stream format of snappy-java ("xerial"), which Kafka's clients use: a 16-byte header (magic, version,
//! lowest compatible version) and then blocks, each a big-endian length and one bare snappy block.
//!
//! Like snappy-java's reader, this one also takes a bare snappy block without any header, and a header between blocks
//! (streams that were concatenated). A block is decoded as a whole, so its memory is bounded before it is reserved: by
//! what the caller still accepts, and by the most that snappy can express in the bytes that are there.

use std::io::{self, BufRead};

/// The eight magic bytes.
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version and lowest compatible version.
const HEADER_BYTES: usize = 16;
/// snappy-java's default.
const BLOCK_BYTES: usize = 32 * 1024;
/// A copy of three bytes yields at most 64, so no block grows by more than this factor.
const EXPANSION_MAX: usize = 32;

pub(super) enum Error {
    Io(io::Error),
    /// The stream yields more than the caller accepts.
    TooLarge,
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

fn bad(detail: &'static str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, detail))
}

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) -> Result<(), snap::Error> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        // A block of 32 KiB compresses to far less than 2³¹ bytes.
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(())
}

enum State {
    Start,
    Blocks,
    End,
}

pub(super) struct Decoder<R> {
    src: R,
    state: State,
    /// The block being handed out, from `at` on.
    block: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(src: R) -> Self {
        Self { src, state: State::Start, block: Vec::new(), at: 0 }
    }

    /// Fills the front of `buf`; a block of more than `left` bytes is refused before it is decoded.
    pub(super) fn read(&mut self, buf: &mut [u8], left: usize) -> Result<usize, Error> {
        while self.at >= self.block.len() {
            let more = match self.state {
                State::Start => self.start(left)?,
                State::Blocks => self.next_block(left)?,
                State::End => false,
            };
            if !more {
                return Ok(0);
            }
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        for (to, from) in [(buf.get_mut(..n), rest.get(..n))] {
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(from);
            }
        }
        self.at += n;
        Ok(n)
    }

    /// Tells a header from a bare block. False at the end of the stream.
    fn start(&mut self, left: usize) -> Result<bool, Error> {
        let mut head = [0u8; HEADER_BYTES];
        let n = read_up_to(&mut self.src, &mut head)?;
        if n == HEADER_BYTES && head.starts_with(&MAGIC) {
            self.state = State::Blocks;
            return Ok(true);
        }
        self.state = State::End;
        if n == 0 {
            return Ok(false);
        }
        let mut bare = head.get(..n).unwrap_or_default().to_vec();
        self.src.read_to_end(&mut bare)?;
        self.decode(&bare, left)?;
        Ok(true)
    }

    fn next_block(&mut self, left: usize) -> Result<bool, Error> {
        let mut length = [0u8; 4];
        match read_up_to(&mut self.src, &mut length)? {
            0 => return Ok(false),
            4 => {}
            _ => return Err(bad("snappy stream ends inside a block length")),
        }
        if MAGIC.starts_with(&length) {
            let mut rest = [0u8; HEADER_BYTES - 4];
            if read_up_to(&mut self.src, &mut rest)? != rest.len() || !rest.starts_with(&MAGIC[4..]) {
                return Err(bad("snappy stream header is damaged"));
            }
            return Ok(true);
        }
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| bad("negative snappy block length"))?;
        let compressed = read_exactly(&mut self.src, length)?;
        self.decode(&compressed, left)?;
        Ok(true)
    }

    fn decode(&mut self, compressed: &[u8], left: usize) -> Result<(), Error> {
        let invalid = |e: snap::Error| Error::Io(io::Error::new(io::ErrorKind::InvalidData, e));
        let plain_len = snap::raw::decompress_len(compressed).map_err(invalid)?;
        if plain_len > compressed.len().saturating_mul(EXPANSION_MAX) {
            return Err(bad("snappy block claims more than it can hold"));
        }
        if plain_len > left {
            return Err(Error::TooLarge);
        }
        self.block = snap::raw::Decoder::new().decompress_vec(compressed).map_err(invalid)?;
        self.at = 0;
        Ok(())
    }
}

/// Reads until `buf` is full or the stream ends.
fn read_up_to<R: BufRead>(src: &mut R, buf: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buf.get_mut(n..).filter(|r| !r.is_empty()) {
        match src.read(rest)? {
            0 => break,
            read => n += read,
        }
    }
    Ok(n)
}

/// Reads `n` bytes; memory grows with what is there.
fn read_exactly<R: BufRead>(src: &mut R, n: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut limited = io::Read::take(src, n as u64);
    io::Read::read_to_end(&mut limited, &mut out)?;
    if out.len() != n {
        return Err(bad("snappy stream ends inside a block"));
    }
    Ok(out)
}
