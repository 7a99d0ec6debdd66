//! The batches of an extent, checked one by one as its bytes come: checksum, order of offsets, counts. Pure.

use bytes::{Buf, Bytes, BytesMut};
use taccola_wire::batch::{BatchError, BatchHeader, verify_crc};

use crate::contents::Extent;

/// Fed with the plain bytes of an extent in order, gives its batches.
#[derive(Debug)]
pub(crate) struct ExtentWalker {
    extent: Extent,
    buffer: BytesMut,
    fed: u64,
    batches: u64,
    records: u64,
    /// First offset that no batch has covered yet.
    next_offset: i64,
}

impl ExtentWalker {
    pub(crate) fn new(extent: &Extent) -> Self {
        let next_offset = extent.first;
        Self { extent: extent.clone(), buffer: BytesMut::new(), fed: 0, batches: 0, records: 0, next_offset }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.fed += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
    }

    /// Everything before this offset was read well.
    pub(crate) fn good_until(&self) -> i64 {
        self.next_offset
    }

    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The next whole batch, if its bytes are there.
    pub(crate) fn next_batch(&mut self) -> Result<Option<(BatchHeader, Bytes)>, String> {
        let header = match BatchHeader::parse(&self.buffer) {
            Ok(header) => header,
            Err(BatchError::Truncated { .. }) => return Ok(None),
            Err(error) => return Err(self.wrong(error)),
        };
        let left = self.extent.bytes.saturating_sub(self.fed).saturating_add(self.buffer.len() as u64);
        let size = header.size_bytes();
        if size as u64 > left {
            return Err(self.wrong("a batch is longer than what is left"));
        }
        if self.buffer.len() < size {
            return Ok(None);
        }
        let batch = self.buffer.copy_to_bytes(size);
        verify_crc(&batch).map_err(|error| self.wrong(error))?;
        let first = self.batches == 0;
        let starts_well =
            if first { header.base_offset == self.extent.first } else { header.base_offset >= self.next_offset };
        if !starts_well || header.last_offset() > self.extent.last || header.last_offset() < header.base_offset {
            return Err(self.wrong("offsets are not those of the manifest"));
        }
        self.batches += 1;
        self.records += u64::try_from(header.records_count).unwrap_or(0);
        self.next_offset = header.next_offset();
        Ok(Some((header, batch)))
    }

    /// Call when all bytes were fed and all batches taken.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let extent = &self.extent;
        let all = self.fed == extent.bytes && self.buffer.is_empty();
        if all
            && self.batches == extent.batches
            && self.records == extent.records
            && self.next_offset == extent.last + 1
        {
            return Ok(());
        }
        Err(self.wrong("counts are not those of the manifest"))
    }

    fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("at offset {}: {what}", self.next_offset)
    }
}
