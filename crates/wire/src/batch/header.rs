//! The 61 bytes at the front of a batch: a parsed copy, patchers in place, and the walk over concatenated batches.
//!
//! Nothing here reads a record. Layout (offset: field): 0 base offset i64, 8 batch length i32 (bytes that follow it),
//! 12 partition leader epoch i32, 16 magic i8, 17 crc u32, 21 attributes i16, 23 last offset delta i32,
//! 27 base timestamp i64, 35 max timestamp i64, 43 producer id i64, 51 producer epoch i16, 53 base sequence i32,
//! 57 record count i32.

use super::{BatchError, Compression};

/// Bytes of a v2 header, up to and including the record count.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what stands in front of the bytes that the length field counts.
pub const LOG_OVERHEAD: usize = 12;
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;
pub const NO_PARTITION_LEADER_EPOCH: i32 = -1;

const LEADER_EPOCH_AT: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;

/// Who gave the records their timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// The batch's attribute bits: 0..=2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;

    /// Ids above 4 are reserved and refused.
    pub fn compression(self) -> Result<Compression, BatchError> {
        Compression::from_id((self.0 & Self::COMPRESSION) as u8)
    }

    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// The base timestamp field holds the time after which tombstones may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    #[must_use]
    pub fn with_compression(self, codec: Compression) -> Self {
        Self((self.0 & !Self::COMPRESSION) | i16::from(codec.id()))
    }

    #[must_use]
    pub fn with_timestamp_type(self, t: TimestampType) -> Self {
        self.with(Self::LOG_APPEND_TIME, t == TimestampType::LogAppendTime)
    }

    #[must_use]
    pub fn with_transactional(self, on: bool) -> Self {
        self.with(Self::TRANSACTIONAL, on)
    }

    #[must_use]
    pub fn with_control(self, on: bool) -> Self {
        self.with(Self::CONTROL, on)
    }

    #[must_use]
    pub fn with_delete_horizon(self, on: bool) -> Self {
        self.with(Self::DELETE_HORIZON, on)
    }

    fn with(self, bit: i16, on: bool) -> Self {
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// A copy of the header's fields as they stand; whether they make sense together is for the caller to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field; [`BatchHeader::size_bytes`] is the whole batch.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

fn split<const N: usize>(rest: &mut &[u8], need: usize) -> Result<[u8; N], BatchError> {
    let (head, tail) =
        rest.split_first_chunk::<N>().ok_or(BatchError::Truncated { need, have: need.saturating_sub(rest.len()) })?;
    *rest = tail;
    Ok(*head)
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which need not hold the whole batch.
    ///
    /// Guarantees on success: magic is 2 and the length covers at least the header. Nothing else is judged.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic != 2
        {
            return Err(BatchError::BadMagic(magic as i8));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated { need: HEADER_BYTES, have: bytes.len() });
        }
        let r = &mut { bytes };
        let header = Self {
            base_offset: i64::from_be_bytes(split(r, HEADER_BYTES)?),
            batch_length: i32::from_be_bytes(split(r, HEADER_BYTES)?),
            partition_leader_epoch: i32::from_be_bytes(split(r, HEADER_BYTES)?),
            magic: i8::from_be_bytes(split(r, HEADER_BYTES)?),
            crc: u32::from_be_bytes(split(r, HEADER_BYTES)?),
            attributes: Attributes(i16::from_be_bytes(split(r, HEADER_BYTES)?)),
            last_offset_delta: i32::from_be_bytes(split(r, HEADER_BYTES)?),
            base_timestamp: i64::from_be_bytes(split(r, HEADER_BYTES)?),
            max_timestamp: i64::from_be_bytes(split(r, HEADER_BYTES)?),
            producer_id: i64::from_be_bytes(split(r, HEADER_BYTES)?),
            producer_epoch: i16::from_be_bytes(split(r, HEADER_BYTES)?),
            base_sequence: i32::from_be_bytes(split(r, HEADER_BYTES)?),
            records_count: i32::from_be_bytes(split(r, HEADER_BYTES)?),
        };
        if header.batch_length < (HEADER_BYTES - LOG_OVERHEAD) as i32 {
            return Err(BatchError::BadLength(header.batch_length));
        }
        Ok(header)
    }

    /// Like [`parse`](Self::parse), and `bytes` must hold the whole batch (more may follow).
    pub fn parse_whole(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse(bytes)?;
        if bytes.len() < header.size_bytes() {
            return Err(BatchError::Truncated { need: header.size_bytes(), have: bytes.len() });
        }
        Ok(header)
    }

    /// The whole batch in bytes, header included.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Inclusive.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the last one.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Inclusive; sequences run 0..=i32::MAX and then start again at 0. [`NO_SEQUENCE`] when the batch has none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta.max(0));
        (sum % (i64::from(i32::MAX) + 1)) as i32
    }

    pub fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        self.attributes.compression()
    }

    pub fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Milliseconds since the epoch from which on the cleaner may drop this batch's tombstones and markers.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }
}

/// CRC-32C (Castagnoli, as in iSCSI) of what the batch's CRC covers: from the attributes to the end of the batch.
/// `batch` holds one whole batch; bytes behind it are not looked at.
pub fn computed_crc(batch: &[u8]) -> Result<u32, BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    Ok(crc_of(batch, &header))
}

fn crc_of(batch: &[u8], header: &BatchHeader) -> u32 {
    crc_fast::crc32_iscsi(batch.get(ATTRIBUTES_AT..header.size_bytes()).unwrap_or_default())
}

/// Checks the stored CRC of the whole batch at the front of `batch`.
pub fn verify_crc(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    let computed = crc_of(batch, &header);
    if computed != header.crc {
        return Err(BatchError::BadCrc { stored: header.crc, computed });
    }
    Ok(header)
}

fn put<const N: usize>(batch: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(field) = batch.get_mut(at..at + N) {
        field.copy_from_slice(&bytes);
    }
}

/// Outside the CRC. A slice shorter than a header is left as it is.
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) {
    if batch.len() >= HEADER_BYTES {
        put(batch, 0, base_offset.to_be_bytes());
    }
}

/// Outside the CRC. A slice shorter than a header is left as it is.
pub fn set_partition_leader_epoch(batch: &mut [u8], epoch: i32) {
    if batch.len() >= HEADER_BYTES {
        put(batch, LEADER_EPOCH_AT, epoch.to_be_bytes());
    }
}

/// Sets the timestamp type's bit and the max timestamp (ms), and computes the CRC anew when either changed.
pub fn set_max_timestamp(
    batch: &mut [u8],
    timestamp_type: TimestampType,
    max_timestamp: i64,
) -> Result<(), BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    refresh_max_timestamp(batch, &header, timestamp_type, max_timestamp);
    Ok(())
}

/// [`set_max_timestamp`] for a batch whose header was parsed already.
pub(super) fn refresh_max_timestamp(batch: &mut [u8], header: &BatchHeader, timestamp_type: TimestampType, max: i64) {
    let attributes = header.attributes.with_timestamp_type(timestamp_type);
    if attributes == header.attributes && header.max_timestamp == max {
        return;
    }
    put(batch, ATTRIBUTES_AT, attributes.0.to_be_bytes());
    put(batch, MAX_TIMESTAMP_AT, max.to_be_bytes());
    refresh_crc(batch, header);
}

/// Sets producer id, epoch and base sequence, and computes the CRC anew (a client that retries under a new producer id).
pub fn set_producer(batch: &mut [u8], id: i64, epoch: i16, base_sequence: i32) -> Result<(), BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    put(batch, PRODUCER_ID_AT, id.to_be_bytes());
    put(batch, PRODUCER_ID_AT + 8, epoch.to_be_bytes());
    put(batch, PRODUCER_ID_AT + 10, base_sequence.to_be_bytes());
    refresh_crc(batch, &header);
    Ok(())
}

/// Sets the attributes and computes the CRC anew. The records must be encoded as they say.
pub fn set_attributes(batch: &mut [u8], attributes: Attributes) -> Result<(), BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    put(batch, ATTRIBUTES_AT, attributes.0.to_be_bytes());
    refresh_crc(batch, &header);
    Ok(())
}

/// Sets the last offset delta and computes the CRC anew.
pub fn set_last_offset_delta(batch: &mut [u8], delta: i32) -> Result<(), BatchError> {
    let header = BatchHeader::parse_whole(batch)?;
    put(batch, LAST_OFFSET_DELTA_AT, delta.to_be_bytes());
    refresh_crc(batch, &header);
    Ok(())
}

fn refresh_crc(batch: &mut [u8], header: &BatchHeader) {
    let crc = crc_of(batch, header);
    put(batch, CRC_AT, crc.to_be_bytes());
}

/// One whole batch inside a larger run of bytes.
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a> {
    pub header: BatchHeader,
    /// Exactly the batch.
    pub bytes: &'a [u8],
    /// Where the batch starts in the run.
    pub position: usize,
}

/// Walks concatenated batches by their headers; a batch that is cut off at the end is not yielded (see [`Batches::tail`]).
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
    position: usize,
    failed: bool,
}

/// The batches in `bytes`, which may end inside one, as a fetch response or a torn segment does.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes, position: 0, failed: false }
}

impl<'a> Batches<'a> {
    /// What has not been yielded: after the end, the beginning of a batch that was cut off (empty if none was);
    /// after an error, everything from the bad batch on.
    pub fn tail(&self) -> &'a [u8] {
        self.rest
    }

    /// Where the next batch, or the tail, starts.
    pub fn position(&self) -> usize {
        self.position
    }

    fn advance(&mut self) -> Result<Option<BatchRef<'a>>, BatchError> {
        let header = match BatchHeader::parse_whole(self.rest) {
            Ok(header) => header,
            Err(BatchError::Truncated { .. }) => return self.partial().map(|()| None),
            Err(e) => return Err(e),
        };
        let Some((bytes, rest)) = self.rest.split_at_checked(header.size_bytes()) else { return Ok(None) };
        let position = self.position;
        self.rest = rest;
        self.position += bytes.len();
        Ok(Some(BatchRef { header, bytes, position }))
    }

    /// A tail is only a tail if its length field, where present, could belong to a batch.
    fn partial(&self) -> Result<(), BatchError> {
        let length = self.rest.get(8..LOG_OVERHEAD).and_then(|b| b.first_chunk::<4>());
        match length.map(|b| i32::from_be_bytes(*b)) {
            Some(n) if n < (HEADER_BYTES - LOG_OVERHEAD) as i32 => Err(BatchError::BadLength(n)),
            _ => Ok(()),
        }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = !matches!(item, Some(Ok(_)));
        item
    }
}
