//! What can be wrong with the bytes of a record batch. Kafka's counterpart: `CorruptRecordException`,
//! `InvalidRecordException` and what the decompressors throw. [`BatchError::is_corrupt`] tells the two classes apart.

use super::Compression;

/// Why a batch or one of its records could not be read or built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the batch says it has.
    #[error("record batch needs {need} bytes, {have} are there")]
    Truncated { need: usize, have: usize },
    /// The length field is smaller than a header or larger than a batch can be.
    #[error("record batch length {0} is impossible")]
    BadLength(i32),
    #[error("record batch magic {0} is not supported")]
    BadMagic(i8),
    #[error("record batch is corrupt (stored crc = {stored:#010x}, computed crc = {computed:#010x})")]
    BadCrc { stored: u32, computed: u32 },
    #[error("unknown compression type id {0}")]
    UnknownCompression(u8),
    /// Framing inside the batch does not add up.
    #[error("invalid record: {0}")]
    InvalidRecord(&'static str),
    /// The compressed stream is damaged.
    #[error("cannot decompress {codec}: {detail}")]
    Decompress { codec: Compression, detail: String },
    #[error("cannot compress {codec}: {detail}")]
    Compress { codec: Compression, detail: String },
    /// The decompressed records exceed the bound that was set for them (bytes).
    #[error("decompressed records exceed {limit} bytes")]
    TooLarge { limit: usize },
    /// A batch under construction exceeds what its fields can express.
    #[error("record batch cannot be built: {0}")]
    Unbuildable(&'static str),
}

impl BatchError {
    /// True when the bytes are damaged (Kafka: CORRUPT_MESSAGE), false when they are whole but wrong (INVALID_RECORD).
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::BadLength(_) | Self::BadMagic(_) | Self::BadCrc { .. })
    }
}
