//! Kafka's primitive types on the wire, and the traits that every generated message implements.
//!
//! [`Reader`] is the only way from bytes of a peer to values. It never panics and never allocates what the bytes merely
//! claim: every length is held against the bytes that are left, and every byte that a decoded value occupies on the heap
//! is charged to a budget, [`DECODE_BUDGET_FACTOR`] times the frame plus [`DECODE_BUDGET_FLOOR`]. Byte strings and record
//! sets are slices of the frame and cost nothing. Unknown tagged fields are skipped, not kept.
//!
//! [`Writer`] refuses what Kafka's generated `write` refuses: a value that the version cannot carry.
//!
//! Answers to `org.apache.kafka.common.protocol.{Readable, Writable}` and KIP-482 (compact types, tagged fields).

use std::fmt;
use std::mem::size_of;

use bytes::{BufMut, Bytes, BytesMut};
use taccola_base::Uuid;
use taccola_base::limits::{DECODE_BUDGET_FACTOR, DECODE_BUDGET_FLOOR, TAGGED_FIELDS_MAX};

use crate::api::ApiKey;

/// Longest string in bytes, in both encodings.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// A structure inside a message, or a message's body: fields without any check of the version.
pub trait Struct: Sized + Default + Clone + fmt::Debug + PartialEq {
    fn read_fields(r: &mut Reader, v: i16) -> Result<Self, DecodeError>;
    fn write_fields(&self, w: &mut Writer, v: i16) -> Result<(), EncodeError>;
}

/// A message or record schema as a whole.
pub trait Message: Struct {
    /// The spec's name, e.g. `ProduceRequest`.
    const NAME: &'static str;
    /// Both inclusive. The maximum includes a version that Kafka marks as unstable.
    const MIN_VERSION: i16;
    const MAX_VERSION: i16;
    /// First version with compact types and tagged fields; `i16::MAX` when there is none.
    const FLEXIBLE_FROM: i16;

    /// Reads one value and leaves the reader behind its last byte.
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        if version < Self::MIN_VERSION || version > Self::MAX_VERSION {
            return Err(DecodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        Self::read_fields(r, version)
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if version < Self::MIN_VERSION || version > Self::MAX_VERSION {
            return Err(EncodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        self.write_fields(w, version)
    }

    /// Reads a value that must fill `bytes` exactly.
    fn from_bytes(bytes: Bytes, version: i16) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let value = Self::read(&mut r, version)?;
        r.finish()?;
        Ok(value)
    }

    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::new();
        self.write(&mut w, version)?;
        Ok(w.into_bytes().freeze())
    }
}

/// A request, tied to its key and its response.
pub trait Request: Message {
    const KEY: ApiKey;
    type Response: Message;
}

/// Why bytes are not a value. `at` is an offset from the first byte given to the reader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{message} has no version {version}")]
    UnsupportedVersion { message: &'static str, version: i16 },
    #[error("{needed} bytes needed at {at}, {remaining} left")]
    Truncated { at: usize, needed: usize, remaining: usize },
    #[error("null at {at}, where the version allows none")]
    Null { at: usize },
    #[error("{length} is no length for what stands at {at}")]
    Length { at: usize, length: i64 },
    #[error("{count} elements claimed at {at}, {remaining} bytes left")]
    Count { at: usize, count: usize, remaining: usize },
    #[error("varint at {at} is too long")]
    Varint { at: usize },
    #[error("string at {at} is not UTF-8")]
    Utf8 { at: usize },
    #[error("{count} tagged fields claimed at {at}")]
    TaggedFields { at: usize, count: u32 },
    #[error("tagged field {tag} at {at} says {declared} bytes, its value has {actual}")]
    TaggedSize { at: usize, tag: u32, declared: usize, actual: usize },
    #[error("the value would need more than {budget} bytes of memory")]
    Budget { budget: usize },
    #[error("{count} bytes behind the value")]
    Trailing { count: usize },
}

/// Why a value has no encoding in a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("{message} has no version {version}")]
    UnsupportedVersion { message: &'static str, version: i16 },
    #[error("{field} is not its default, and version {version} has no such field")]
    NotInVersion { field: &'static str, version: i16 },
    #[error("{field} is null, which version {version} does not allow")]
    Null { field: &'static str, version: i16 },
    #[error("{length} bytes or elements are more than the field holds")]
    TooLong { length: usize },
}

/// Kafka's fixed-width types that stand in arrays. `WIDTH` is the size on the wire and in memory, in bytes.
pub trait Scalar: Copy {
    const WIDTH: usize;
    fn get(r: &mut Reader) -> Result<Self, DecodeError>;
    fn put(self, w: &mut Writer);
}

macro_rules! scalars {
    ($($t:ident)*) => {$(
        impl Scalar for $t {
            const WIDTH: usize = size_of::<$t>();
            fn get(r: &mut Reader) -> Result<Self, DecodeError> {
                r.$t()
            }
            fn put(self, w: &mut Writer) {
                w.$t(self)
            }
        }
        impl Reader {
            pub fn $t(&mut self) -> Result<$t, DecodeError> {
                Ok($t::from_be_bytes(self.fixed()?))
            }
        }
        impl Writer {
            pub fn $t(&mut self, value: $t) {
                self.buf.put_slice(&value.to_be_bytes());
            }
        }
    )*};
}

scalars!(i8 i16 i32 i64 u16 u32 f64);

impl Scalar for Uuid {
    const WIDTH: usize = 16;
    fn get(r: &mut Reader) -> Result<Self, DecodeError> {
        r.uuid()
    }
    fn put(self, w: &mut Writer) {
        w.uuid(self)
    }
}

/// A cursor over one frame.
#[derive(Debug, Clone)]
pub struct Reader {
    buf: Bytes,
    pos: usize,
    /// Exclusive bound of what may be read; less than the buffer's end inside a tagged field.
    end: usize,
    budget: usize,
    budget_left: usize,
}

impl Reader {
    pub fn new(bytes: Bytes) -> Self {
        let budget = bytes.len().saturating_mul(DECODE_BUDGET_FACTOR).saturating_add(DECODE_BUDGET_FLOOR);
        Self::with_budget(bytes, budget)
    }

    /// For bytes of a source that is trusted more, or less, than a client: `budget` is the heap memory in bytes that the
    /// decoded values may occupy.
    pub fn with_budget(bytes: Bytes, budget: usize) -> Self {
        let end = bytes.len();
        Self { buf: bytes, pos: 0, end, budget, budget_left: budget }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.end - self.pos
    }

    /// Offset of the next byte from the first one given to the reader.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Bytes of the budget that are charged so far.
    pub fn charged(&self) -> usize {
        self.budget - self.budget_left
    }

    /// What is left, as a slice of the frame, without moving on.
    pub fn rest(&self) -> Bytes {
        self.buf.slice(self.pos..self.end)
    }

    /// What has been read so far, as a slice of the frame.
    pub fn consumed(&self) -> Bytes {
        self.buf.slice(..self.pos)
    }

    /// An error unless everything has been read.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.remaining() > 0 { Err(DecodeError::Trailing { count: self.remaining() }) } else { Ok(()) }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.budget_left = self.budget_left.checked_sub(bytes).ok_or(DecodeError::Budget { budget: self.budget })?;
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], DecodeError> {
        let truncated = DecodeError::Truncated { at: self.pos, needed: n, remaining: self.remaining() };
        if n > self.remaining() {
            return Err(truncated);
        }
        let slice = self.buf.get(self.pos..self.pos + n).ok_or(truncated)?;
        self.pos += n;
        Ok(slice)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    /// Unsigned LEB128 of at most 5 bytes. Bits beyond the 32nd are dropped, as Kafka does.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let at = self.pos;
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { at })
    }

    /// Unsigned LEB128 of at most 10 bytes.
    pub fn uvarlong(&mut self) -> Result<u64, DecodeError> {
        let at = self.pos;
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28, 35, 42, 49, 56, 63] {
            let [byte] = self.fixed()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { at })
    }

    /// Zigzag.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.uvarint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Zigzag.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let value = self.uvarlong()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The one place where a peer's signed length becomes a size; any negative one means null.
    fn length(at: usize, length: i64, max: usize) -> Result<Option<usize>, DecodeError> {
        if length < 0 {
            return Ok(None);
        }
        usize::try_from(length).ok().filter(|n| *n <= max).map(Some).ok_or(DecodeError::Length { at, length })
    }

    fn string_length(&mut self, flex: bool) -> Result<Option<usize>, DecodeError> {
        let at = self.pos;
        let length = if flex { i64::from(self.uvarint()?) - 1 } else { i64::from(self.i16()?) };
        Self::length(at, length, STRING_BYTES_MAX)
    }

    /// Length of a byte string or count of an array.
    fn long_length(&mut self, flex: bool) -> Result<Option<usize>, DecodeError> {
        let at = self.pos;
        let length = if flex { i64::from(self.uvarint()?) - 1 } else { i64::from(self.i32()?) };
        Self::length(at, length, i32::MAX as usize)
    }

    pub fn opt_string(&mut self, flex: bool) -> Result<Option<String>, DecodeError> {
        let Some(n) = self.string_length(flex)? else { return Ok(None) };
        let at = self.pos;
        if n > self.remaining() {
            return Err(DecodeError::Truncated { at, needed: n, remaining: self.remaining() });
        }
        self.charge(n)?;
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| DecodeError::Utf8 { at })?;
        Ok(Some(text.to_owned()))
    }

    pub fn string(&mut self, flex: bool) -> Result<String, DecodeError> {
        let at = self.pos;
        self.opt_string(flex)?.ok_or(DecodeError::Null { at })
    }

    /// Also for record sets, which are byte strings on the wire.
    pub fn opt_bytes(&mut self, flex: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(n) = self.long_length(flex)? else { return Ok(None) };
        self.slice(n).map(Some)
    }

    pub fn bytes(&mut self, flex: bool) -> Result<Bytes, DecodeError> {
        let at = self.pos;
        self.opt_bytes(flex)?.ok_or(DecodeError::Null { at })
    }

    /// The next `n` bytes as a slice of the frame.
    pub fn slice(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        let from = self.pos;
        self.take(n)?;
        Ok(self.buf.slice(from..self.pos))
    }

    /// An array's count: never more than the bytes that are left, because every element takes at least one.
    fn count(&mut self, flex: bool, width: usize) -> Result<Option<usize>, DecodeError> {
        let at = self.pos;
        let Some(count) = self.long_length(flex)? else { return Ok(None) };
        if count > self.remaining() / width.max(1) {
            return Err(DecodeError::Count { at, count, remaining: self.remaining() });
        }
        Ok(Some(count))
    }

    /// Null or an array whose elements `item` reads. Memory grows with the elements that are really there.
    pub fn opt_array<T>(
        &mut self,
        flex: bool,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.count(flex, 1)? else { return Ok(None) };
        let mut items = Vec::new();
        while items.len() < count {
            if items.len() == items.capacity() {
                let more = items.len().max(4).min(count - items.len());
                self.charge(more.saturating_mul(size_of::<T>()))?;
                items.reserve_exact(more);
            }
            items.push(item(self)?);
        }
        Ok(Some(items))
    }

    pub fn opt_structs<T: Struct>(&mut self, flex: bool, v: i16) -> Result<Option<Vec<T>>, DecodeError> {
        self.opt_array(flex, |r| T::read_fields(r, v))
    }

    pub fn structs<T: Struct>(&mut self, flex: bool, v: i16) -> Result<Vec<T>, DecodeError> {
        let at = self.pos;
        self.opt_structs(flex, v)?.ok_or(DecodeError::Null { at })
    }

    pub fn opt_strings(&mut self, flex: bool) -> Result<Option<Vec<String>>, DecodeError> {
        self.opt_array(flex, |r| r.string(flex))
    }

    pub fn strings(&mut self, flex: bool) -> Result<Vec<String>, DecodeError> {
        let at = self.pos;
        self.opt_strings(flex)?.ok_or(DecodeError::Null { at })
    }

    pub fn opt_scalars<T: Scalar>(&mut self, flex: bool) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.count(flex, T::WIDTH)? else { return Ok(None) };
        // The elements are all there, so this reserves no more than the frame holds.
        self.charge(count.saturating_mul(size_of::<T>()))?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::get(self)?);
        }
        Ok(Some(items))
    }

    pub fn scalars<T: Scalar>(&mut self, flex: bool) -> Result<Vec<T>, DecodeError> {
        let at = self.pos;
        self.opt_scalars(flex)?.ok_or(DecodeError::Null { at })
    }

    /// A nullable structure stands behind a signed byte: negative means null.
    pub fn opt_struct<T: Struct>(&mut self, v: i16) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { T::read_fields(self, v).map(Some) }
    }

    /// Inside of a tagged field a nullable structure stands behind an unsigned varint instead: 0 means null.
    pub fn opt_tagged_struct<T: Struct>(&mut self, v: i16) -> Result<Option<T>, DecodeError> {
        if self.uvarint()? == 0 { Ok(None) } else { T::read_fields(self, v).map(Some) }
    }

    /// Reads the tagged fields at the end of a structure. `field` reads the value of a tag that it knows and says whether
    /// it did; what it does not know is skipped. A value must be as long as its field says.
    pub fn tagged(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.tagged_count()? {
            let tag = self.uvarint()?;
            let at = self.pos;
            let declared = self.uvarint()? as usize;
            if declared > self.remaining() {
                return Err(DecodeError::Truncated { at, needed: declared, remaining: self.remaining() });
            }
            let (start, outer) = (self.pos, self.end);
            self.end = start + declared;
            let known = field(self, tag)?;
            if known && self.pos != self.end {
                return Err(DecodeError::TaggedSize { at, tag, declared, actual: self.pos - start });
            }
            self.pos = self.end;
            self.end = outer;
        }
        Ok(())
    }

    fn tagged_count(&mut self) -> Result<u32, DecodeError> {
        let at = self.pos;
        let count = self.uvarint()?;
        if count as usize > TAGGED_FIELDS_MAX.min(self.remaining() / 2) {
            return Err(DecodeError::TaggedFields { at, count });
        }
        Ok(count)
    }

    /// The end of a structure that knows no tagged field.
    pub fn skip_tagged(&mut self, flex: bool) -> Result<(), DecodeError> {
        if flex { self.tagged(|_, _| Ok(false)) } else { Ok(()) }
    }
}

/// Byte strings from this size on are kept apart by a [`Writer::vectored`] instead of being copied.
pub const SPLICE_BYTES_MIN: usize = 2 * 1024;

/// A growing buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buf: BytesMut,
    /// Byte strings that belong into `buf` in front of the offset given, in ascending order.
    splices: Vec<(usize, Bytes)>,
    spliced: usize,
    vectored: bool,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self { buf: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Keeps large byte strings as they are; [`Writer::into_chunks`] yields them without a copy.
    pub fn vectored() -> Self {
        Self { vectored: true, ..Self::default() }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.buf.len() + self.spliced
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything in one buffer.
    pub fn into_bytes(self) -> BytesMut {
        if self.splices.is_empty() {
            return self.buf;
        }
        let mut out = BytesMut::with_capacity(self.len());
        self.into_chunks().iter().for_each(|chunk| out.put_slice(chunk));
        out
    }

    /// Everything in order, in as many chunks as it takes to copy nothing; none is empty.
    pub fn into_chunks(mut self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(2 * self.splices.len() + 1);
        let mut done = 0;
        for (at, bytes) in self.splices {
            let head = self.buf.split_to(at - done);
            done = at;
            if !head.is_empty() {
                chunks.push(head.freeze());
            }
            chunks.push(bytes);
        }
        if !self.buf.is_empty() {
            chunks.push(self.buf.freeze());
        }
        chunks
    }

    /// Overwrites the four bytes at `at`, which must be written already and in front of every byte string kept apart.
    pub fn patch_i32(&mut self, at: usize, value: i32) {
        if let Some(place) = self.buf.get_mut(at..at.saturating_add(4)) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    pub fn bool(&mut self, value: bool) {
        self.buf.put_u8(u8::from(value));
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.buf.put_slice(value.as_bytes());
    }

    pub fn uvarint(&mut self, value: u32) {
        self.uvarlong(u64::from(value));
    }

    pub fn uvarlong(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buf.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    /// Zigzag.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// Zigzag.
    pub fn varlong(&mut self, value: i64) {
        self.uvarlong(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    pub fn string(&mut self, value: &str, flex: bool) -> Result<(), EncodeError> {
        let length = value.len();
        let n = i16::try_from(length).map_err(|_| EncodeError::TooLong { length })?;
        if flex {
            self.uvarint(u32::from(n.cast_unsigned()) + 1)
        } else {
            self.i16(n)
        }
        self.raw(value.as_bytes());
        Ok(())
    }

    pub fn opt_string(&mut self, value: &Option<String>, flex: bool) -> Result<(), EncodeError> {
        match value {
            Some(value) => return self.string(value, flex),
            None if flex => self.uvarint(0),
            None => self.i16(-1),
        }
        Ok(())
    }

    fn long_length(&mut self, length: usize, flex: bool) -> Result<(), EncodeError> {
        let n = i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?;
        if flex {
            self.uvarint(n.cast_unsigned() + 1)
        } else {
            self.i32(n)
        }
        Ok(())
    }

    fn null(&mut self, flex: bool) {
        if flex { self.uvarint(0) } else { self.i32(-1) }
    }

    /// Also for record sets.
    pub fn bytes(&mut self, value: &Bytes, flex: bool) -> Result<(), EncodeError> {
        self.long_length(value.len(), flex)?;
        if self.vectored && value.len() >= SPLICE_BYTES_MIN {
            self.splices.push((self.buf.len(), value.clone()));
            self.spliced += value.len();
        } else {
            self.raw(value);
        }
        Ok(())
    }

    pub fn opt_bytes(&mut self, value: &Option<Bytes>, flex: bool) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.bytes(value, flex)?,
            None => self.null(flex),
        }
        Ok(())
    }

    pub fn scalars<T: Scalar>(&mut self, values: &[T], flex: bool) -> Result<(), EncodeError> {
        self.long_length(values.len(), flex)?;
        values.iter().for_each(|value| value.put(self));
        Ok(())
    }

    pub fn opt_scalars<T: Scalar>(&mut self, values: &Option<Vec<T>>, flex: bool) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.scalars(values, flex)?,
            None => self.null(flex),
        }
        Ok(())
    }

    pub fn strings(&mut self, values: &[String], flex: bool) -> Result<(), EncodeError> {
        self.long_length(values.len(), flex)?;
        values.iter().try_for_each(|value| self.string(value, flex))
    }

    pub fn opt_strings(&mut self, values: &Option<Vec<String>>, flex: bool) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.strings(values, flex)?,
            None => self.null(flex),
        }
        Ok(())
    }

    pub fn structs<T: Struct>(&mut self, values: &[T], flex: bool, v: i16) -> Result<(), EncodeError> {
        self.long_length(values.len(), flex)?;
        values.iter().try_for_each(|value| value.write_fields(self, v))
    }

    pub fn opt_structs<T: Struct>(&mut self, values: &Option<Vec<T>>, flex: bool, v: i16) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.structs(values, flex, v)?,
            None => self.null(flex),
        }
        Ok(())
    }

    pub fn opt_struct<T: Struct>(&mut self, value: &Option<T>, v: i16) -> Result<(), EncodeError> {
        match value {
            Some(value) => {
                self.i8(1);
                value.write_fields(self, v)?;
            }
            None => self.i8(-1),
        }
        Ok(())
    }

    /// See [`Reader::opt_tagged_struct`].
    pub fn opt_tagged_struct<T: Struct>(&mut self, value: &Option<T>, v: i16) -> Result<(), EncodeError> {
        self.uvarint(u32::from(value.is_some()));
        value.as_ref().map_or(Ok(()), |value| value.write_fields(self, v))
    }

    /// The tagged fields at the end of a structure.
    pub fn tagged(&mut self, fields: &TaggedFields) {
        self.uvarint(fields.count);
        self.raw(&fields.body.buf);
    }

    /// The end of a structure that has no tagged field.
    pub fn no_tagged(&mut self, flex: bool) {
        if flex {
            self.uvarint(0);
        }
    }
}

/// Collects the tagged fields of a structure, which must be added in ascending order of their tags.
#[derive(Debug, Default)]
pub struct TaggedFields {
    count: u32,
    body: Writer,
}

impl TaggedFields {
    /// Adds a field if `present`: it exists in the version and is not its default.
    pub fn add(
        &mut self,
        tag: u32,
        present: bool,
        value: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        if !present {
            return Ok(());
        }
        let mut w = Writer::new();
        value(&mut w)?;
        self.count += 1;
        self.body.uvarint(tag);
        self.body.uvarint(u32::try_from(w.len()).map_err(|_| EncodeError::TooLong { length: w.len() })?);
        self.body.raw(&w.buf);
        Ok(())
    }
}

/// Refuses a value that would be lost: `carried` says that the version has the field or that it is its default.
pub fn carried(carried: bool, field: &'static str, version: i16) -> Result<(), EncodeError> {
    if carried { Ok(()) } else { Err(EncodeError::NotInVersion { field, version }) }
}

/// The value of a field that may not be null in this version.
pub fn some<'a, T>(value: &'a Option<T>, field: &'static str, version: i16) -> Result<&'a T, EncodeError> {
    value.as_ref().ok_or(EncodeError::Null { field, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FetchResponse, HeartbeatRequest, ProducerSnapshot};

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn varints() {
        let cases: [(u32, &[u8]); 5] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in cases {
            let mut w = Writer::new();
            w.uvarint(value);
            assert_eq!(&w.into_bytes()[..], bytes);
            assert_eq!(reader(bytes).uvarint(), Ok(value));
        }
        for value in [0, -1, 1, i32::MIN, i32::MAX, 63, -64, 64] {
            let mut w = Writer::new();
            w.varint(value);
            w.varlong(i64::from(value));
            let mut r = Reader::new(w.into_bytes().freeze());
            assert_eq!((r.varint(), r.varlong()), (Ok(value), Ok(i64::from(value))));
        }
        for value in [i64::MIN, i64::MAX] {
            let mut w = Writer::new();
            w.varlong(value);
            assert_eq!(w.len(), 10);
            assert_eq!(Reader::new(w.into_bytes().freeze()).varlong(), Ok(value));
        }
        assert_eq!(reader(&[0xff; 6]).uvarint(), Err(DecodeError::Varint { at: 0 }));
        assert_eq!(reader(&[0xff; 11]).uvarlong(), Err(DecodeError::Varint { at: 0 }));
        assert!(matches!(reader(&[0x80]).uvarint(), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn negative_lengths_mean_null() {
        assert_eq!(reader(&[0xff, 0xff]).opt_string(false), Ok(None));
        assert_eq!(reader(&[0]).opt_string(true), Ok(None));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xfe]).opt_bytes(false), Ok(None));
        assert_eq!(reader(&[0]).opt_scalars::<i32>(true), Ok(None));
        assert_eq!(reader(&[0xff, 0xff]).string(false), Err(DecodeError::Null { at: 0 }));
        assert_eq!(reader(&[0x80, 0, 0, 0]).scalars::<i64>(false), Err(DecodeError::Null { at: 0 }));
    }

    #[test]
    fn strings() {
        assert_eq!(reader(&[0, 2, 0xc3, 0xa9]).string(false), Ok("\u{e9}".to_owned()));
        assert_eq!(reader(&[0, 1, 0xc3]).string(false), Err(DecodeError::Utf8 { at: 2 }));
        // 32768 bytes: one more than a string may have.
        let mut long = vec![0x81, 0x80, 2];
        long.resize(40_000, b'a');
        assert_eq!(reader(&long).string(true), Err(DecodeError::Length { at: 0, length: 32_768 }));
        let mut w = Writer::new();
        assert_eq!(w.string(&"a".repeat(32_768), true), Err(EncodeError::TooLong { length: 32_768 }));
        assert_eq!(w.string(&"a".repeat(32_767), true), Ok(()));
        assert_eq!(Reader::new(w.into_bytes().freeze()).string(true).map(|s| s.len()), Ok(32_767));
    }

    #[test]
    fn byte_strings_are_slices_of_the_frame() {
        let frame = Bytes::from_static(&[0, 0, 0, 3, 7, 8, 9]);
        let mut r = Reader::with_budget(frame.clone(), 0);
        let bytes = r.bytes(false).unwrap();
        assert_eq!(&bytes[..], [7, 8, 9]);
        assert_eq!(bytes.as_ptr(), frame[4..].as_ptr());
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        // Heartbeat v4: group "", generation 0, member "", instance null; tag 5 with two bytes, tag 200 with none.
        let mut bytes = vec![1, 0, 0, 0, 0, 1, 0, 2, 5, 2, 0xaa, 0xbb, 0xc8, 1, 0];
        let mut r = reader(&bytes);
        assert_eq!(HeartbeatRequest::read(&mut r, 4), Ok(HeartbeatRequest::default()));
        assert_eq!(r.finish(), Ok(()));
        bytes[7] = 70;
        assert_eq!(HeartbeatRequest::read(&mut reader(&bytes), 4), Err(DecodeError::TaggedFields { at: 7, count: 70 }));
        bytes[7] = 2;
        bytes[9] = 100;
        assert!(matches!(HeartbeatRequest::read(&mut reader(&bytes), 4), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn more_tagged_fields_than_allowed() {
        let field = [9, 0];
        let mut bytes = vec![1, 0, 0, 0, 0, 1, 0, 65];
        bytes.extend(field.repeat(65));
        assert_eq!(HeartbeatRequest::read(&mut reader(&bytes), 4), Err(DecodeError::TaggedFields { at: 7, count: 65 }));
        bytes[7] = 64;
        assert_eq!(HeartbeatRequest::read(&mut reader(&bytes), 4), Ok(HeartbeatRequest::default()));
    }

    #[test]
    fn a_tagged_field_is_as_long_as_it_says() {
        // Fetch response v16: throttle, error, session, no topics; node endpoints say two bytes, an empty array has one.
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 2, 1, 0];
        let error = DecodeError::TaggedSize { at: 13, tag: 0, declared: 2, actual: 1 };
        assert_eq!(FetchResponse::read(&mut reader(&bytes), 16), Err(error));
        // It cannot read past its end either, though the frame goes on.
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 2, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(FetchResponse::read(&mut reader(&bytes), 16), Err(DecodeError::Count { .. })));
    }

    #[test]
    fn versions_out_of_range_are_refused_both_ways() {
        let error = DecodeError::UnsupportedVersion { message: "ProducerSnapshot", version: 2 };
        assert_eq!(ProducerSnapshot::read(&mut reader(&[0; 64]), 2), Err(error));
        assert!(ProducerSnapshot::default().to_bytes(0).is_err());
        assert!(ProducerSnapshot::default().to_bytes(1).is_ok());
    }

    #[test]
    fn a_value_may_have_to_fill_its_bytes() {
        let bytes = ProducerSnapshot::default().to_bytes(1).unwrap();
        assert!(ProducerSnapshot::from_bytes(bytes.clone(), 1).is_ok());
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert_eq!(ProducerSnapshot::from_bytes(longer, 1), Err(DecodeError::Trailing { count: 1 }));
    }
}
