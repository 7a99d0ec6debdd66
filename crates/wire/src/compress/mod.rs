//! The compression codecs of record batches, each both ways, in the framing that Kafka's clients use.
//!
//! Decompression streams and is bounded: a [`Decompressor`] yields at most the bytes it was allowed and then fails with
//! [`BatchError::TooLarge`], whatever the stream claims about itself. Answers to `CompressionType`, `Compression`
//! (KIP-390 levels), `KafkaLZ4BlockOutputStream`, and snappy-java's stream format.
//!
//! | codec | framing written | also read |
//! |---|---|---|
//! | gzip | one member | several members |
//! | snappy | xerial: magic, versions, then length-prefixed blocks of 32 KiB | concatenated streams, one bare snappy block |
//! | lz4 | frame: 64 KiB independent blocks, no checksums, no size | linked blocks, other block sizes, checksums, content size |
//! | zstd | one frame with its content size | several frames; windows up to 128 MiB (level 22) |

mod snappy;

use std::fmt;
use std::io::{BufRead, Read, Write};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use taccola_base::limits::{DECOMPRESS_RATIO_MAX, DECOMPRESSED_BATCH_BYTES_MAX};

use crate::batch::BatchError;

/// Largest zstd window accepted, as a power of two: what level 22 uses, and zstd's own default bound.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const LZ4_FRAME_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// How a batch's records are compressed; the ids are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub fn from_id(id: u8) -> Result<Self, BatchError> {
        Self::ALL.into_iter().find(|c| c.id() == id).ok_or(BatchError::UnknownCompression(id))
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// By Kafka's name; `uncompressed` is what topic configurations call `none`.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "uncompressed" {
            return Some(Self::None);
        }
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec and how hard it tries (`compression.{gzip,lz4,zstd}.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Codec {
    pub compression: Compression,
    /// `None` is the codec's default: gzip 6, zstd 3. Snappy has no levels, and the lz4 encoder has one (its levels
    /// are accepted, as they change the size alone and never the format).
    pub level: Option<i32>,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        Self { compression, level: None }
    }
}

/// The bytes that a batch whose compressed records have this size may decompress to.
pub fn max_decompressed(compressed_len: usize) -> usize {
    compressed_len.saturating_mul(DECOMPRESS_RATIO_MAX).saturating_add(1024 * 1024).min(DECOMPRESSED_BATCH_BYTES_MAX)
}

/// Appends `plain`, compressed, to `out`.
pub fn compress(codec: Codec, plain: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let fail = |e: &dyn fmt::Display| BatchError::Compress { codec: codec.compression, detail: e.to_string() };
    match codec.compression {
        Compression::None => out.extend_from_slice(plain),
        Compression::Gzip => {
            let level = codec.level.and_then(|l| u32::try_from(l).ok()).map(|l| flate2::Compression::new(l.min(9)));
            let mut w = flate2::write::GzEncoder::new(out, level.unwrap_or_default());
            w.write_all(plain).and_then(|()| w.finish().map(drop)).map_err(|e| fail(&e))?;
        }
        Compression::Snappy => snappy::compress(plain, out).map_err(|e| fail(&e))?,
        Compression::Lz4 => {
            let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut w = FrameEncoder::with_frame_info(info, out);
            w.write_all(plain).map_err(|e| fail(&e))?;
            w.finish().map_err(|e| fail(&e))?;
        }
        Compression::Zstd => {
            let level = codec.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            out.extend_from_slice(&zstd::bulk::compress(plain, level).map_err(|e| fail(&e))?);
        }
    }
    Ok(())
}

enum Inner<R: BufRead> {
    None(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Snappy(snappy::Decoder<R>),
    Lz4(Box<FrameDecoder<R>>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
}

/// A bounded stream of decompressed bytes.
pub struct Decompressor<R: BufRead> {
    inner: Inner<R>,
    codec: Compression,
    /// Bytes that may still come out.
    left: usize,
    limit: usize,
    finished: bool,
}

impl<R: BufRead> fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("codec", &self.codec).field("left", &self.left).finish_non_exhaustive()
    }
}

impl<R: BufRead> Decompressor<R> {
    /// `max_out`: the bytes that may come out in all; the next one is an error.
    pub fn new(codec: Compression, mut src: R, max_out: usize) -> Result<Self, BatchError> {
        let fail = |e: std::io::Error| BatchError::Decompress { codec, detail: e.to_string() };
        let inner = match codec {
            Compression::None => Inner::None(src),
            Compression::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(src))),
            Compression::Snappy => Inner::Snappy(snappy::Decoder::new(src)),
            Compression::Lz4 => {
                // The library also reads a legacy format, which Kafka does not.
                if !src.fill_buf().map_err(fail)?.starts_with(&LZ4_FRAME_MAGIC) {
                    return Err(BatchError::Decompress { codec, detail: "not an lz4 frame".into() });
                }
                Inner::Lz4(Box::new(FrameDecoder::new(src)))
            }
            Compression::Zstd => {
                let mut d = zstd::stream::read::Decoder::with_buffer(src).map_err(fail)?;
                d.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(fail)?;
                Inner::Zstd(d)
            }
        };
        Ok(Self { inner, codec, left: max_out, limit: max_out, finished: false })
    }

    fn read_inner(&mut self, buf: &mut [u8]) -> Result<usize, BatchError> {
        let limit = self.limit;
        let left = self.left;
        let n = match &mut self.inner {
            Inner::None(r) => r.read(buf),
            Inner::Gzip(r) => r.read(buf),
            Inner::Snappy(r) => match r.read(buf, left) {
                Err(snappy::Error::TooLarge) => return Err(BatchError::TooLarge { limit }),
                Err(snappy::Error::Io(e)) => Err(e),
                Ok(n) => Ok(n),
            },
            Inner::Lz4(r) => r.read(buf),
            Inner::Zstd(r) => r.read(buf),
        };
        n.map_err(|e| BatchError::Decompress { codec: self.codec, detail: e.to_string() })
    }

    /// Fills the front of `buf` and says how much; 0 is the end and stays so.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, BatchError> {
        if self.finished || buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.finished = true;
            return match self.read_inner(&mut [0])? {
                0 => Ok(0),
                _ => Err(BatchError::TooLarge { limit: self.limit }),
            };
        }
        let want = buf.len().min(self.left);
        let n = self.read_inner(buf.get_mut(..want).unwrap_or_default())?;
        self.left -= n.min(self.left);
        self.finished = n == 0;
        Ok(n)
    }
}

/// Everything at once, within `max_out` bytes; memory grows with what comes out, not with what is claimed.
pub fn decompress(codec: Compression, compressed: &[u8], max_out: usize) -> Result<Vec<u8>, BatchError> {
    let mut d = Decompressor::new(codec, compressed, max_out)?;
    let mut out = Vec::new();
    let mut chunk = [0u8; 16 * 1024];
    loop {
        match d.read(&mut chunk)? {
            0 => return Ok(out),
            n => out.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
}
