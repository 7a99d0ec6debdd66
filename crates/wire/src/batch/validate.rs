//! What a broker checks in the records of one partition before it appends them, and what it changes. Answers to
//! `LogValidator`, `UnifiedLog.analyzeAndValidateRecords` and `ProduceRequest.validateRecords`. Pure: the time is given.
//!
//! The usual batch is judged by its header and CRC alone and kept byte for byte. Its records are walked only where
//! something depends on them: a compacted topic (every record needs a key), a limit on old timestamps, a header that
//! breaks the limit on future ones, another target codec, or [`Settings::verify_records`]. Kafka walks always, so it
//! also refuses what only a walk can show (damage under a right CRC) and corrects a wrong max timestamp.
//!
//! Sequence numbers, epochs and offsets are the log's; base offset and leader epoch are patched there, as they lie
//! outside the CRC.

use bytes::{Bytes, BytesMut};
use taccola_base::limits::RECORD_HEADERS_MAX;

use super::header::{HEADER_BYTES, LOG_OVERHEAD, MAGIC_AT, refresh_max_timestamp};
use super::{
    BatchBuilder, BatchError, BatchHeader, Compression, NO_TIMESTAMP, RecordView, RecordWalker, TimestampType,
    verify_crc,
};
use crate::compress::{Codec, max_decompressed};
use crate::error::ErrorCode;

/// Record errors that one refusal lists; the batch is refused at that point and the rest is not looked at.
pub const RECORD_ERRORS_MAX: usize = 1_000;
/// No batch of any version is shorter than this behind its length field (the smallest record of format v0).
const SMALLEST_LENGTH: i32 = 14;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A Produce request: nothing is taken for granted.
    #[default]
    Client,
    /// The broker's own coordinators, which write control batches and base offsets as they need them.
    Coordinator,
}

/// The topic's `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetCompression {
    /// Keep what the producer sent.
    #[default]
    Producer,
    Codec(Codec),
}

/// The topic's and the request's rules.
#[derive(Debug, Clone)]
pub struct Settings {
    pub origin: Origin,
    /// `cleanup.policy` contains `compact`.
    pub compacted: bool,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record's time may lie behind now, inclusive. `i64::MAX`: any.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a record's time may lie ahead of now, inclusive.
    pub after_max_ms: i64,
    /// `max.message.bytes`: the batch with its header, inclusive.
    pub max_message_bytes: usize,
    pub target: TargetCompression,
    /// False for Produce below version 7.
    pub zstd_allowed: bool,
    /// Walk every batch, and refuse what does not add up: framing, offsets that are not 0, 1, 2…, too many headers.
    pub verify_records: bool,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
}

impl Settings {
    /// Kafka's defaults for a topic, for a client, at `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        Self {
            origin: Origin::Client,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            max_message_bytes: 1_048_588,
            target: TargetCompression::Producer,
            zstd_allowed: true,
            verify_records: false,
            now_ms,
        }
    }

    fn out_of_window(&self, timestamp: i64) -> bool {
        timestamp != NO_TIMESTAMP
            && (self.now_ms.saturating_sub(timestamp) > self.before_max_ms
                || timestamp.saturating_sub(self.now_ms) > self.after_max_ms)
    }
}

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValidationError {
    /// One of CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, UNSUPPORTED_COMPRESSION_TYPE, INVALID_RECORD.
    pub code: ErrorCode,
    /// Index of the record in its batch and what is wrong with it; at most [`RECORD_ERRORS_MAX`].
    pub record_errors: Vec<(i32, String)>,
    pub message: String,
    /// Wrong whatever the topic is: Kafka finds it in the request, and asks no log (`ProduceRequest.validateRecords`).
    pub of_request: bool,
}

impl ValidationError {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, record_errors: Vec::new(), message: message.into(), of_request: false }
    }

    fn of_request(self) -> Self {
        Self { of_request: true, ..self }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRecord, message)
    }
}

impl From<BatchError> for ValidationError {
    fn from(e: BatchError) -> Self {
        let code = match &e {
            BatchError::UnknownCompression(_) => ErrorCode::UnsupportedCompressionType,
            // Java's producer then splits the batch and sends its parts.
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::Decompress { .. } => ErrorCode::CorruptMessage,
            e if e.is_corrupt() => ErrorCode::CorruptMessage,
            _ => ErrorCode::InvalidRecord,
        };
        Self::new(code, e.to_string())
    }
}

/// What becomes of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Stored as they came.
    Keep,
    /// Timestamp type and max timestamp are set, and the CRC with them.
    Stamp { timestamp_type: TimestampType, max_timestamp: i64 },
    /// The records were written anew in another codec.
    Rebuild(Bytes),
}

/// A verdict that has not touched the bytes; [`Inspected::write_to`] makes the copy that will be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The header as it came.
    pub source: BatchHeader,
    pub change: Change,
    pub max_timestamp: i64,
    /// What the response says; `None` with CreateTime.
    pub log_append_time: Option<i64>,
}

/// A batch that may be appended once its base offset and leader epoch are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated {
    /// Exactly one batch.
    pub records: BytesMut,
    /// The header of `records`.
    pub header: BatchHeader,
    pub max_timestamp: i64,
    /// What the response says; `None` with CreateTime.
    pub log_append_time: Option<i64>,
}

impl Inspected {
    /// The size of the batch that will be stored.
    pub fn size_bytes(&self) -> usize {
        match &self.change {
            Change::Rebuild(bytes) => bytes.len(),
            _ => self.source.size_bytes(),
        }
    }

    /// Appends the batch as it will be stored to `out`: the one copy of the append path. `records` is what was inspected.
    pub fn write_to(&self, records: &[u8], out: &mut BytesMut) {
        match &self.change {
            Change::Rebuild(bytes) => out.extend_from_slice(bytes),
            change => {
                let start = out.len();
                out.extend_from_slice(records.get(..self.source.size_bytes()).unwrap_or_default());
                if let Change::Stamp { timestamp_type, max_timestamp } = *change {
                    let batch = out.get_mut(start..).unwrap_or_default();
                    refresh_max_timestamp(batch, &self.source, timestamp_type, max_timestamp);
                }
            }
        }
    }
}

/// [`inspect`] and the copy in one. `records` is not copied if nobody else holds it.
pub fn validate(records: Bytes, settings: &Settings) -> Result<Validated, ValidationError> {
    let verdict = inspect(&records, settings)?;
    let mut owned = match (&verdict.change, records.try_into_mut()) {
        (Change::Rebuild(_), Ok(_)) | (Change::Rebuild(_), Err(_)) => {
            let mut out = BytesMut::with_capacity(verdict.size_bytes());
            verdict.write_to(&[], &mut out);
            out
        }
        (change, Ok(mut owned)) => {
            if let Change::Stamp { timestamp_type, max_timestamp } = *change {
                refresh_max_timestamp(&mut owned, &verdict.source, timestamp_type, max_timestamp);
            }
            owned
        }
        (_, Err(shared)) => {
            let mut out = BytesMut::with_capacity(verdict.size_bytes());
            verdict.write_to(&shared, &mut out);
            out
        }
    };
    owned.truncate(verdict.size_bytes());
    let header = BatchHeader::parse_whole(&owned)?;
    Ok(Validated {
        records: owned,
        header,
        max_timestamp: verdict.max_timestamp,
        log_append_time: verdict.log_append_time,
    })
}

/// Judges the records of one partition. On success the batch is the first [`BatchHeader::size_bytes`] bytes of
/// `records`; the beginning of a second one that was cut off is ignored, as Kafka does.
pub fn inspect(records: &[u8], settings: &Settings) -> Result<Inspected, ValidationError> {
    let batch = one_batch(records).map_err(ValidationError::of_request)?;
    let header = BatchHeader::parse_whole(batch)?;
    let source = header.compression()?;
    if source == Compression::Zstd && !settings.zstd_allowed {
        return Err(ValidationError::new(
            ErrorCode::UnsupportedCompressionType,
            "zstd needs Produce version 7 or later",
        )
        .of_request());
    }
    let client = settings.origin == Origin::Client;
    if client && header.base_offset != 0 {
        return Err(ValidationError::invalid(format!("base offset is {}, not 0", header.base_offset)));
    }
    check_size(batch.len(), settings)?;
    verify_crc(batch)?;
    if client {
        check_client_header(&header)?;
    }
    let codec = target_codec(settings, &header, source);
    let verdict = if needs_walk(settings, &header, codec.is_some()) {
        walk(batch, &header, codec, settings)?
    } else {
        stamp(&header, header.max_timestamp, settings)
    };
    check_size(verdict.size_bytes(), settings)?;
    Ok(verdict)
}

fn check_size(size: usize, settings: &Settings) -> Result<(), ValidationError> {
    if size <= settings.max_message_bytes {
        return Ok(());
    }
    let message = format!("batch of {size} bytes exceeds the limit of {} bytes", settings.max_message_bytes);
    Err(ValidationError::new(ErrorCode::MessageTooLarge, message))
}

/// The length of the batch at the front of `bytes`, any format; `None` if it is not all there.
fn whole_batch_len(bytes: &[u8]) -> Result<Option<usize>, ValidationError> {
    let Some(length) = bytes.get(8..LOG_OVERHEAD).and_then(|b| b.first_chunk::<4>()) else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    if length < SMALLEST_LENGTH {
        return Err(BatchError::BadLength(length).into());
    }
    match bytes.get(MAGIC_AT).map(|m| *m as i8) {
        Some(0..=2) => {}
        Some(magic) => return Err(BatchError::BadMagic(magic).into()),
        None => return Ok(None),
    }
    let size = LOG_OVERHEAD + usize::try_from(length).unwrap_or(0);
    Ok(Some(size).filter(|size| *size <= bytes.len()))
}

/// The one batch of format v2 that a partition's records must be.
fn one_batch(records: &[u8]) -> Result<&[u8], ValidationError> {
    let Some(size) = whole_batch_len(records)? else {
        return Err(ValidationError::invalid("there is no whole record batch"));
    };
    let (batch, rest) = records.split_at_checked(size).unwrap_or((records, &[]));
    match batch.get(MAGIC_AT) {
        Some(2) => {}
        _ => return Err(ValidationError::invalid("only record batches of format v2 are accepted")),
    }
    if whole_batch_len(rest)?.is_some() {
        return Err(ValidationError::invalid("there is more than one record batch"));
    }
    Ok(batch)
}

fn check_client_header(h: &BatchHeader) -> Result<(), ValidationError> {
    if h.records_count <= 0 {
        return Err(ValidationError::invalid(format!("record count is {}", h.records_count)));
    }
    if i64::from(h.last_offset_delta) + 1 != i64::from(h.records_count) {
        return Err(ValidationError::invalid(format!(
            "last offset delta {} does not fit {} records",
            h.last_offset_delta, h.records_count
        )));
    }
    if h.is_control() {
        return Err(ValidationError::invalid("clients cannot write control records"));
    }
    if h.has_producer_id() && h.base_sequence < 0 {
        return Err(ValidationError::invalid(format!(
            "sequence {} with producer id {}",
            h.base_sequence, h.producer_id
        )));
    }
    Ok(())
}

/// The codec to which the batch must be rewritten, if it must. Control batches stay as their writer made them.
fn target_codec(settings: &Settings, header: &BatchHeader, source: Compression) -> Option<Codec> {
    match settings.target {
        TargetCompression::Codec(codec) if codec.compression != source => {
            Some(codec).filter(|_| !(header.is_control() && source == Compression::None))
        }
        _ => None,
    }
}

fn needs_walk(settings: &Settings, header: &BatchHeader, recompress: bool) -> bool {
    let create_time = settings.timestamp_type == TimestampType::CreateTime;
    let stamped_by_client = header.timestamp_type() == TimestampType::LogAppendTime;
    recompress
        || settings.verify_records
        || settings.compacted && !header.is_control()
        || create_time && (settings.before_max_ms < i64::MAX || settings.out_of_window(header.max_timestamp))
        // Only the broker stamps: every record of such a batch will be refused, and is listed.
        || stamped_by_client && (!create_time || header.max_timestamp == NO_TIMESTAMP)
}

/// The verdict on a batch whose records stay as they are.
fn stamp(header: &BatchHeader, create_time_max: i64, settings: &Settings) -> Inspected {
    let timestamp_type = settings.timestamp_type;
    let (max_timestamp, log_append_time) = match timestamp_type {
        TimestampType::CreateTime => (create_time_max, None),
        TimestampType::LogAppendTime => (settings.now_ms, Some(settings.now_ms)),
    };
    let same = header.timestamp_type() == timestamp_type && header.max_timestamp == max_timestamp;
    let change = if same { Change::Keep } else { Change::Stamp { timestamp_type, max_timestamp } };
    Inspected { source: *header, change, max_timestamp, log_append_time }
}

/// What is wrong with single records.
#[derive(Default)]
struct RecordErrors {
    list: Vec<(i32, String)>,
    timestamp: bool,
}

impl RecordErrors {
    fn check(&mut self, index: i32, record: &RecordView<'_>, header: &BatchHeader, settings: &Settings) {
        if settings.compacted && !header.is_control() && record.key.is_none() {
            self.list.push((index, "a compacted topic needs a key in every record".into()));
            return;
        }
        let timestamp = record.timestamp(header);
        if settings.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP {
            if settings.out_of_window(timestamp) {
                let low = settings.now_ms.saturating_sub(settings.before_max_ms);
                let high = settings.now_ms.saturating_add(settings.after_max_ms);
                self.timestamp = true;
                self.list.push((index, format!("timestamp {timestamp} lies outside {low} to {high}")));
                return;
            }
        } else if header.timestamp_type() == TimestampType::LogAppendTime {
            self.timestamp = true;
            self.list.push((index, "producers cannot set the timestamp type LogAppendTime".into()));
            return;
        }
        if settings.verify_records {
            self.verify(index, record);
        }
    }

    fn verify(&mut self, index: i32, record: &RecordView<'_>) {
        if record.offset_delta != index {
            self.list.push((index, format!("offset delta is {}, not {index}", record.offset_delta)));
        } else if record.headers_count > RECORD_HEADERS_MAX {
            self.list.push((index, format!("{} headers exceed {RECORD_HEADERS_MAX}", record.headers_count)));
        }
    }

    fn into_result(self) -> Result<(), ValidationError> {
        let Some((index, first)) = self.list.first() else { return Ok(()) };
        let code = if self.timestamp { ErrorCode::InvalidTimestamp } else { ErrorCode::InvalidRecord };
        let message = format!("{} records are refused; record {index}: {first}", self.list.len());
        Err(ValidationError { code, message, record_errors: self.list, of_request: false })
    }
}

/// Looks at every record, and rewrites the batch for another codec. Offsets inside an uncompressed batch that is kept
/// are not held against it, as in Kafka.
fn walk(
    batch: &[u8],
    header: &BatchHeader,
    codec: Option<Codec>,
    settings: &Settings,
) -> Result<Inspected, ValidationError> {
    let (in_order, max_timestamp) = check_records(batch, header, settings)?;
    let compressed = header.compression()? != Compression::None;
    if codec.is_none() && compressed && !in_order && settings.origin == Origin::Client {
        return Err(ValidationError::invalid("offsets inside a compressed batch are not 0, 1, 2…"));
    }
    let mut verdict = stamp(header, max_timestamp, settings);
    if let Some(codec) = codec {
        verdict.change = Change::Rebuild(rebuild(batch, header, codec, settings)?);
    }
    Ok(verdict)
}

/// Whether the offsets are 0, 1, 2…, and the largest timestamp of the records.
fn check_records(batch: &[u8], header: &BatchHeader, settings: &Settings) -> Result<(bool, i64), ValidationError> {
    let mut walker = RecordWalker::new(batch, max_decompressed(batch.len()))?;
    let mut errors = RecordErrors::default();
    let (mut index, mut in_order, mut max_timestamp) = (0, true, NO_TIMESTAMP);
    while let Some(record) = walker.next_record() {
        let record = record?;
        errors.check(index, &record, header, settings);
        if errors.list.len() >= RECORD_ERRORS_MAX {
            break;
        }
        in_order &= record.offset_delta == index;
        max_timestamp = max_timestamp.max(record.timestamp(header));
        index += 1;
    }
    errors.into_result()?;
    Ok((in_order, max_timestamp))
}

/// The same records in another codec, with offsets 0, 1, 2…
fn rebuild(batch: &[u8], header: &BatchHeader, codec: Codec, settings: &Settings) -> Result<Bytes, ValidationError> {
    let mut builder = BatchBuilder::new(codec)
        .base_offset(header.base_offset)
        .partition_leader_epoch(header.partition_leader_epoch)
        .producer(header.producer_id, header.producer_epoch, header.base_sequence)
        .transactional(header.is_transactional())
        .control(header.is_control());
    if settings.timestamp_type == TimestampType::LogAppendTime {
        builder = builder.log_append_time(settings.now_ms);
    }
    let mut walker = RecordWalker::new(batch, max_decompressed(batch.len()))?;
    while let Some(record) = walker.next_record() {
        let record = record?;
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        builder.append_view(timestamp, &record);
    }
    Ok(builder.build()?)
}

const _: () = assert!(HEADER_BYTES > LOG_OVERHEAD + SMALLEST_LENGTH as usize);

#[cfg(test)]
mod tests;
