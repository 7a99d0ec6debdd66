//! Walks the records of one batch, decompressing as it goes and never beyond a bound.
//!
//! [`RecordIter`] yields owned records whose bytes are slices of the batch (or of decompressed chunks);
//! [`RecordWalker`] lends each record for one step and copies nothing, for validation. Both yield exactly the number of
//! records in the header, and then an error if bytes are left over, as `DefaultRecordBatch`'s iterators do. After an
//! error they end.

use bytes::{Buf, Bytes, BytesMut, buf::Reader};

use super::header::HEADER_BYTES;
use super::varint::{Cursor, peek_varint};
use super::{BatchError, BatchHeader, Compression, TimestampType};
use crate::compress::{Decompressor, max_decompressed};

/// Decompression goes in steps of this many bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// Headers reserved ahead of reading them.
const HEADERS_RESERVE_MAX: usize = 16;

/// A record header; keys may repeat, and their order is kept. The key is UTF-8 by convention and kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordHeader {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl RecordHeader {
    pub fn new(key: impl Into<Bytes>, value: Option<Bytes>) -> Self {
        Self { key: key.into(), value }
    }

    /// The key as text; bytes that are not UTF-8 become replacement characters.
    pub fn key_str(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }
}

/// One record. Null and empty differ for key and value alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds; the batch's max timestamp when its type is LogAppendTime.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// One record, borrowed, as it stands in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub attributes: i8,
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The headers' encoding without their count; checked to be well formed.
    pub raw_headers: &'a [u8],
    pub headers_count: usize,
}

impl<'a> RecordView<'a> {
    /// Reads a record's body (what follows its length), which must fill `body` exactly.
    fn parse(body: &'a [u8]) -> Result<Self, BatchError> {
        let mut c = Cursor::new(body);
        let attributes = c.u8()? as i8;
        let timestamp_delta = c.varlong()?;
        let offset_delta = c.varint()?;
        let key = c.nullable()?;
        let value = c.nullable()?;
        let count =
            usize::try_from(c.varint()?).map_err(|_| BatchError::InvalidRecord("negative number of headers"))?;
        // A header takes two bytes at least.
        if count > c.remaining() / 2 {
            return Err(BatchError::InvalidRecord("more headers than bytes"));
        }
        let raw_headers = c.rest();
        for _ in 0..count {
            read_header(&mut c)?;
        }
        if c.remaining() != 0 {
            return Err(BatchError::InvalidRecord("record is longer than its fields"));
        }
        Ok(Self { attributes, timestamp_delta, offset_delta, key, value, raw_headers, headers_count: count })
    }

    /// The headers in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut c = Cursor::new(self.raw_headers);
        (0..self.headers_count).map_while(move |_| read_header(&mut c).ok())
    }

    /// This record's time in ms, given its batch's header.
    pub fn timestamp(&self, header: &BatchHeader) -> i64 {
        match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => header.base_timestamp.saturating_add(self.timestamp_delta),
        }
    }

    pub fn offset(&self, header: &BatchHeader) -> i64 {
        header.base_offset.saturating_add(i64::from(self.offset_delta))
    }
}

fn read_header<'a>(c: &mut Cursor<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), BatchError> {
    let key = c.nullable()?.ok_or(BatchError::InvalidRecord("header key is null"))?;
    Ok((key, c.nullable()?))
}

/// Decompressed bytes that were not consumed yet, and where more come from.
struct Stream<R: std::io::BufRead> {
    source: Decompressor<R>,
    buf: BytesMut,
}

impl<R: std::io::BufRead> Stream<R> {
    fn new(codec: Compression, src: R, max_out: usize) -> Result<Self, BatchError> {
        Ok(Self { source: Decompressor::new(codec, src, max_out)?, buf: BytesMut::new() })
    }

    /// Reads a step further; false at the end.
    fn fill(&mut self) -> Result<bool, BatchError> {
        let have = self.buf.len();
        self.buf.resize(have + CHUNK_BYTES, 0);
        let n = self.source.read(self.buf.get_mut(have..).unwrap_or_default());
        self.buf.truncate(have + n.as_ref().copied().unwrap_or(0));
        Ok(n? != 0)
    }

    fn need(&mut self, n: usize) -> Result<(), BatchError> {
        while self.buf.len() < n {
            if !self.fill()? {
                return Err(BatchError::InvalidRecord("records end before their count is reached"));
            }
        }
        Ok(())
    }

    /// The next record's body.
    fn next_body(&mut self) -> Result<BytesMut, BatchError> {
        let (len, prefix) = loop {
            if let Some(found) = peek_varint(&self.buf)? {
                break found;
            }
            self.need(self.buf.len() + 1)?;
        };
        let len = body_length(len)?;
        self.need(prefix + len)?;
        self.buf.advance(prefix);
        Ok(self.buf.split_to(len))
    }

    /// After the last record: nothing may be left. Reading on also has the codec check its own trailer.
    fn finish(&mut self) -> Result<(), BatchError> {
        if !self.buf.is_empty() || self.fill()? { Err(LEFT_OVER) } else { Ok(()) }
    }
}

const LEFT_OVER: BatchError = BatchError::InvalidRecord("bytes are left after the last record");

fn body_length(len: i32) -> Result<usize, BatchError> {
    usize::try_from(len).map_err(|_| BatchError::InvalidRecord("negative record length"))
}

fn records_count(header: &BatchHeader) -> Result<i32, BatchError> {
    match header.records_count {
        n if n < 0 => Err(BatchError::InvalidRecord("negative record count")),
        n => Ok(n),
    }
}

/// The body at the front of `rest`, which moves behind it.
fn plain_body<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BatchError> {
    let (len, prefix) =
        peek_varint(rest)?.ok_or(BatchError::InvalidRecord("records end before their count is reached"))?;
    let mut c = Cursor::new(rest);
    c.take(prefix)?;
    let body = c.take(body_length(len)?)?;
    *rest = c.rest();
    Ok(body)
}

enum Owned {
    Plain(Bytes),
    Stream(Box<Stream<Reader<Bytes>>>),
}

/// The records of one batch, owned; see the module.
pub struct RecordIter {
    header: BatchHeader,
    source: Owned,
    /// Records still to come; `None` once ended.
    left: Option<i32>,
}

impl RecordIter {
    /// The records of the batch at the front of `batch`, with the default bound on decompression. The CRC is not checked.
    pub fn new(batch: &Bytes) -> Result<Self, BatchError> {
        Self::with_max_out(batch, max_decompressed(batch.len()))
    }

    /// `max_out`: bytes that the records may decompress to; an uncompressed batch is not bounded by it.
    pub fn with_max_out(batch: &Bytes, max_out: usize) -> Result<Self, BatchError> {
        let header = BatchHeader::parse_whole(batch)?;
        let payload = batch.slice(HEADER_BYTES..header.size_bytes());
        let left = Some(records_count(&header)?);
        let source = match header.compression()? {
            Compression::None => Owned::Plain(payload),
            // An emptied batch keeps its codec's bits and has no stream at all.
            _ if payload.is_empty() && header.records_count == 0 => Owned::Plain(payload),
            codec => Owned::Stream(Box::new(Stream::new(codec, payload.reader(), max_out)?)),
        };
        Ok(Self { header, source, left })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn advance(&mut self) -> Result<Record, BatchError> {
        let body = match &mut self.source {
            Owned::Plain(rest) => {
                let mut slice: &[u8] = rest;
                let body = plain_body(&mut slice)?;
                let body = rest.slice_ref(body);
                *rest = rest.slice_ref(slice);
                body
            }
            Owned::Stream(stream) => stream.next_body()?.freeze(),
        };
        let view = RecordView::parse(&body)?;
        let own = |slice: &[u8]| body.slice_ref(slice);
        let mut headers = Vec::with_capacity(view.headers_count.min(HEADERS_RESERVE_MAX));
        headers.extend(view.headers().map(|(key, value)| RecordHeader { key: own(key), value: value.map(own) }));
        Ok(Record {
            offset: view.offset(&self.header),
            timestamp: view.timestamp(&self.header),
            key: view.key.map(own),
            value: view.value.map(own),
            headers,
        })
    }

    fn finish(&mut self) -> Result<(), BatchError> {
        match &mut self.source {
            Owned::Plain(rest) if rest.is_empty() => Ok(()),
            Owned::Plain(_) => Err(LEFT_OVER),
            Owned::Stream(stream) => stream.finish(),
        }
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.left.take()?;
        if left == 0 {
            return self.finish().err().map(Err);
        }
        let item = self.advance();
        if item.is_ok() {
            self.left = Some(left - 1);
        }
        Some(item)
    }
}

impl std::fmt::Debug for RecordIter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordIter").field("header", &self.header).field("left", &self.left).finish_non_exhaustive()
    }
}

enum Lent<'a> {
    Plain(&'a [u8]),
    Stream { stream: Box<Stream<&'a [u8]>>, body: BytesMut },
}

/// The records of one batch, lent one at a time; see the module.
pub struct RecordWalker<'a> {
    header: BatchHeader,
    source: Lent<'a>,
    left: Option<i32>,
}

impl<'a> RecordWalker<'a> {
    /// As [`RecordIter::with_max_out`].
    pub fn new(batch: &'a [u8], max_out: usize) -> Result<Self, BatchError> {
        let header = BatchHeader::parse_whole(batch)?;
        let payload = batch.get(HEADER_BYTES..header.size_bytes()).unwrap_or_default();
        let left = Some(records_count(&header)?);
        let source = match header.compression()? {
            Compression::None => Lent::Plain(payload),
            _ if payload.is_empty() && header.records_count == 0 => Lent::Plain(payload),
            codec => Lent::Stream { stream: Box::new(Stream::new(codec, payload, max_out)?), body: BytesMut::new() },
        };
        Ok(Self { header, source, left })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The next record, lent until the following call; `None` at the end.
    pub fn next_record(&mut self) -> Option<Result<RecordView<'_>, BatchError>> {
        let left = self.left.take()?;
        if left == 0 {
            return match &mut self.source {
                Lent::Plain([]) => None,
                Lent::Plain(_) => Some(Err(LEFT_OVER)),
                Lent::Stream { stream, .. } => stream.finish().err().map(Err),
            };
        }
        let view = match &mut self.source {
            Lent::Plain(rest) => plain_body(rest).and_then(RecordView::parse),
            Lent::Stream { stream, body } => {
                // Dropped first, so that the buffer behind it can be used again.
                *body = BytesMut::new();
                stream.next_body().and_then(|next| {
                    *body = next;
                    RecordView::parse(body)
                })
            }
        };
        if view.is_ok() {
            self.left = Some(left - 1);
        }
        Some(view)
    }
}

impl std::fmt::Debug for RecordWalker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordWalker").field("header", &self.header).field("left", &self.left).finish_non_exhaustive()
    }
}
