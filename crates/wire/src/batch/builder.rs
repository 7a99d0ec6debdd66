//! Makes one batch out of records. Answers to `MemoryRecordsBuilder` for magic 2, and to the rewriting of batches by
//! the cleaner (explicit offsets, emptied batches, delete horizon).
//!
//! Records are written to one buffer, which starts with room for the header, so that an uncompressed batch is built
//! without a further copy. A mistake (offsets that go back, sizes beyond 2³¹) is kept and reported by [`build`].
//!
//! [`build`]: BatchBuilder::build

use bytes::Bytes;

use super::header::{ATTRIBUTES_AT, HEADER_BYTES, LOG_OVERHEAD};
use super::varint::{put_varint, put_varlong, varlong_len};
use super::{
    Attributes, BatchError, Compression, ControlRecord, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, Record, RecordHeader, RecordView, TimestampType,
};
use crate::compress::{Codec, compress};

/// A batch under construction; see the module.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Codec,
    attributes: Attributes,
    base_offset: i64,
    partition_leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    log_append_time: Option<i64>,
    delete_horizon: Option<i64>,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    last_offset_delta: Option<i32>,
    forced_last_offset_delta: Option<i32>,
    records_count: i32,
    /// Room for the header, then the records as they are before compression.
    buf: Vec<u8>,
    error: Option<BatchError>,
}

impl BatchBuilder {
    pub fn new(codec: impl Into<Codec>) -> Self {
        let codec = codec.into();
        Self {
            codec,
            attributes: Attributes::default().with_compression(codec.compression),
            base_offset: 0,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            log_append_time: None,
            delete_horizon: None,
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            last_offset_delta: None,
            forced_last_offset_delta: None,
            records_count: 0,
            buf: vec![0; HEADER_BYTES],
            error: None,
        }
    }

    /// A control batch with one record in it.
    pub fn for_control(record: &ControlRecord, timestamp_ms: i64) -> Self {
        let mut builder = Self::new(Compression::None).control(true);
        builder.append(timestamp_ms, Some(&record.key()), Some(&record.value()), &[]);
        builder
    }

    #[must_use]
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.base_offset = offset;
        self
    }

    #[must_use]
    pub fn partition_leader_epoch(mut self, epoch: i32) -> Self {
        self.partition_leader_epoch = epoch;
        self
    }

    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    #[must_use]
    pub fn transactional(mut self, on: bool) -> Self {
        self.attributes = self.attributes.with_transactional(on);
        self
    }

    #[must_use]
    pub fn control(mut self, on: bool) -> Self {
        self.attributes = self.attributes.with_control(on);
        self
    }

    /// The broker's time (ms) holds for all records, whatever theirs are.
    #[must_use]
    pub fn log_append_time(mut self, now_ms: i64) -> Self {
        self.attributes = self.attributes.with_timestamp_type(TimestampType::LogAppendTime);
        self.log_append_time = Some(now_ms);
        self
    }

    /// When the cleaner may drop this batch's tombstones (ms). It takes the base timestamp's place, to which the
    /// records' times are then relative, so it must be set before the first record.
    #[must_use]
    pub fn delete_horizon(mut self, at_ms: i64) -> Self {
        if self.records_count > 0 {
            self.fail(BatchError::Unbuildable("delete horizon set after the first record"));
        }
        self.attributes = self.attributes.with_delete_horizon(true);
        self.delete_horizon = Some(at_ms);
        self.base_timestamp = Some(at_ms);
        self
    }

    /// The last offset delta, where it is not the last record's: compaction keeps the range of the original batch.
    #[must_use]
    pub fn last_offset_delta(mut self, delta: i32) -> Self {
        self.forced_last_offset_delta = Some(delta);
        self
    }

    /// The max timestamp (ms) of a batch without records; others derive it.
    #[must_use]
    pub fn max_timestamp_if_empty(mut self, ms: i64) -> Self {
        if self.records_count == 0 {
            self.max_timestamp = ms;
        }
        self
    }

    /// Adds a record right behind the last one.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> &mut Self {
        match self.last_offset_delta.map_or(Some(0), |last| last.checked_add(1)) {
            Some(delta) => self.append_at(delta, timestamp, key, value, headers),
            None => self.fail(BatchError::Unbuildable("offset delta exceeds 31 bits")),
        }
    }

    /// Adds a record at an offset relative to the base offset; larger than the last one's.
    pub fn append_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> &mut Self {
        self.push(offset_delta, timestamp, &Fields { key, value, headers: Headers::Parsed(headers) })
    }

    /// Adds a lent record right behind the last one, copying its headers' encoding; the time is given apart, as it
    /// depends on the batch from which the record came.
    pub fn append_view(&mut self, timestamp: i64, record: &RecordView<'_>) -> &mut Self {
        match self.last_offset_delta.map_or(Some(0), |last| last.checked_add(1)) {
            Some(delta) => self.append_view_at(delta, timestamp, record),
            None => self.fail(BatchError::Unbuildable("offset delta exceeds 31 bits")),
        }
    }

    /// [`append_view`](Self::append_view) at an offset relative to the base offset, as the cleaner needs it.
    pub fn append_view_at(&mut self, offset_delta: i32, timestamp: i64, record: &RecordView<'_>) -> &mut Self {
        let headers = Headers::Raw { count: record.headers_count, bytes: record.raw_headers };
        self.push(offset_delta, timestamp, &Fields { key: record.key, value: record.value, headers })
    }

    fn push(&mut self, offset_delta: i32, timestamp: i64, fields: &Fields<'_>) -> &mut Self {
        if offset_delta < 0 || self.last_offset_delta.is_some_and(|last| offset_delta <= last) {
            return self.fail(BatchError::Unbuildable("offsets do not increase"));
        }
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let Some(timestamp_delta) = timestamp.checked_sub(base) else {
            return self.fail(BatchError::Unbuildable("timestamps are too far apart"));
        };
        let body = 1 + varlong_len(timestamp_delta) + varlong_len(i64::from(offset_delta)) + fields.len();
        let Some(body_len) = i32::try_from(body).ok().filter(|n| self.buf.len() + 5 + *n as usize <= i32::MAX as usize)
        else {
            return self.fail(BatchError::Unbuildable("batch exceeds 31 bits"));
        };
        self.buf.reserve(body + 5);
        put_varint(&mut self.buf, body_len);
        self.buf.push(0);
        put_varlong(&mut self.buf, timestamp_delta);
        put_varint(&mut self.buf, offset_delta);
        fields.put(&mut self.buf);
        self.last_offset_delta = Some(offset_delta);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.records_count += 1;
        self
    }

    /// Adds a record as it was read, at its own offset, which must not lie before the base offset.
    pub fn append_record(&mut self, record: &Record) -> &mut Self {
        let delta = record.offset.checked_sub(self.base_offset).and_then(|d| i32::try_from(d).ok());
        match delta {
            Some(d) => {
                self.append_at(d, record.timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers)
            }
            None => self.fail(BatchError::Unbuildable("offset outside the batch")),
        }
    }

    pub fn records_count(&self) -> i32 {
        self.records_count
    }

    pub fn is_empty(&self) -> bool {
        self.records_count == 0
    }

    /// The batch's size before compression.
    pub fn uncompressed_bytes(&self) -> usize {
        self.buf.len()
    }

    /// The most that one more record with these fields adds before compression.
    pub fn record_bytes_max(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RecordHeader]) -> usize {
        // Length, attributes, timestamp delta and offset delta take at most 5 + 1 + 10 + 5 bytes.
        21 + Fields { key, value, headers: Headers::Parsed(headers) }.len()
    }

    fn fail(&mut self, error: BatchError) -> &mut Self {
        self.error.get_or_insert(error);
        self
    }

    /// Compresses, writes the header and the CRC. A batch without records needs an explicit last offset delta.
    pub fn build(mut self) -> Result<Bytes, BatchError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let natural = self.last_offset_delta;
        let last_offset_delta =
            self.forced_last_offset_delta.or(natural).ok_or(BatchError::Unbuildable("batch has no records"))?;
        if natural.is_some_and(|n| n > last_offset_delta) || last_offset_delta < 0 {
            return Err(BatchError::Unbuildable("last offset delta lies before the last record"));
        }
        if self.codec.compression != Compression::None && self.records_count > 0 {
            let mut out = Vec::with_capacity(self.buf.len() / 2 + HEADER_BYTES);
            out.resize(HEADER_BYTES, 0);
            compress(self.codec, self.buf.get(HEADER_BYTES..).unwrap_or_default(), &mut out)?;
            self.buf = out;
        }
        let length = i32::try_from(self.buf.len().saturating_sub(LOG_OVERHEAD))
            .map_err(|_| BatchError::Unbuildable("batch exceeds 31 bits"))?;
        self.write_header(length, last_offset_delta);
        Ok(Bytes::from(self.buf))
    }

    fn write_header(&mut self, length: i32, last_offset_delta: i32) {
        let mut h = Vec::with_capacity(HEADER_BYTES);
        h.extend_from_slice(&self.base_offset.to_be_bytes());
        h.extend_from_slice(&length.to_be_bytes());
        h.extend_from_slice(&self.partition_leader_epoch.to_be_bytes());
        h.push(2);
        h.extend_from_slice(&[0; 4]);
        h.extend_from_slice(&self.attributes.0.to_be_bytes());
        h.extend_from_slice(&last_offset_delta.to_be_bytes());
        h.extend_from_slice(&self.base_timestamp.unwrap_or(NO_TIMESTAMP).to_be_bytes());
        h.extend_from_slice(&self.log_append_time.unwrap_or(self.max_timestamp).to_be_bytes());
        h.extend_from_slice(&self.producer_id.to_be_bytes());
        h.extend_from_slice(&self.producer_epoch.to_be_bytes());
        h.extend_from_slice(&self.base_sequence.to_be_bytes());
        h.extend_from_slice(&self.records_count.to_be_bytes());
        for (to, from) in self.buf.iter_mut().zip(&h) {
            *to = *from;
        }
        let crc = crc_fast::crc32_iscsi(self.buf.get(ATTRIBUTES_AT..).unwrap_or_default());
        for (to, from) in self.buf.iter_mut().skip(ATTRIBUTES_AT - 4).zip(crc.to_be_bytes()) {
            *to = from;
        }
    }
}

fn nullable_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |f| varlong_len(f.len() as i64) + f.len())
}

/// Headers to write: as values, or as another record's encoding of them.
enum Headers<'a> {
    Parsed(&'a [RecordHeader]),
    Raw { count: usize, bytes: &'a [u8] },
}

/// What a record holds besides its time and offset.
struct Fields<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl Fields<'_> {
    fn headers_count(&self) -> usize {
        match self.headers {
            Headers::Parsed(list) => list.len(),
            Headers::Raw { count, .. } => count,
        }
    }

    /// Encoded bytes, the headers' count included.
    fn len(&self) -> usize {
        let headers = match self.headers {
            Headers::Parsed(list) => {
                list.iter().map(|h| nullable_len(Some(&h.key)) + nullable_len(h.value.as_deref())).sum()
            }
            Headers::Raw { bytes, .. } => bytes.len(),
        };
        nullable_len(self.key) + nullable_len(self.value) + varlong_len(self.headers_count() as i64) + headers
    }

    /// Lengths were checked: the record as a whole fits in 31 bits.
    fn put(&self, out: &mut Vec<u8>) {
        put_nullable(out, self.key);
        put_nullable(out, self.value);
        put_varlong(out, self.headers_count() as i64);
        match self.headers {
            Headers::Parsed(list) => {
                for h in list {
                    put_nullable(out, Some(&h.key));
                    put_nullable(out, h.value.as_deref());
                }
            }
            Headers::Raw { bytes, .. } => out.extend_from_slice(bytes),
        }
    }
}

fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}
