//! The offset index and the time index of a segment. Answers to Kafka's `OffsetIndex` and `TimeIndex`.
//!
//! Both are files of fixed-size big-endian entries that rise: `(offset - base offset: u32, position: u32)` and
//! `(timestamp: i64, offset - base offset: u32)`. They are derived data: nothing may be wrong with the log because of
//! what they say, so whoever uses an entry checks it against the log, and a bad file is made anew.
//!
//! New entries collect in memory and are written behind, [`TAIL_ENTRIES`] at a time, and when the log flushes, rolls or
//! closes. Lookups read the file directly, so that an idle index costs no memory.

use std::io;
use std::sync::OnceLock;

use crate::file::SegmentFile;

/// Entries kept in memory before they are written to the file in one go.
const TAIL_ENTRIES: usize = 512;
/// Entries that a lookup reads at once when its search has narrowed so far.
const BLOCK_ENTRIES: u32 = 256;

pub(crate) trait Entry: Copy {
    const SIZE: usize;
    fn encode(self, out: &mut Vec<u8>);
    /// `None` only if `bytes` is shorter than [`Entry::SIZE`].
    fn decode(bytes: &[u8]) -> Option<Self>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of a batch, less the segment's base offset.
    pub relative_offset: u32,
    /// Where that batch begins.
    pub position: u32,
}

impl Entry for OffsetEntry {
    const SIZE: usize = 8;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (offset, rest) = bytes.split_first_chunk()?;
        let position = rest.first_chunk()?;
        Some(Self { relative_offset: u32::from_be_bytes(*offset), position: u32::from_be_bytes(*position) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// Largest timestamp of the segment up to and including the batch of the offset.
    pub timestamp: i64,
    pub relative_offset: u32,
}

impl Entry for TimeEntry {
    const SIZE: usize = 12;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (timestamp, rest) = bytes.split_first_chunk()?;
        let offset = rest.first_chunk()?;
        Some(Self { timestamp: i64::from_be_bytes(*timestamp), relative_offset: u32::from_be_bytes(*offset) })
    }
}

/// One index: entries in the file, then entries in memory.
#[derive(Debug)]
pub(crate) struct IndexTable<E> {
    /// Entries in the file; unset until the file is first looked at.
    written: OnceLock<u32>,
    tail: Vec<E>,
}

impl<E> Default for IndexTable<E> {
    /// An index whose file was not looked at yet.
    fn default() -> Self {
        Self { written: OnceLock::new(), tail: Vec::new() }
    }
}

impl<E: Entry> IndexTable<E> {
    /// An index whose file, if there is one, holds nothing of use.
    pub(crate) fn empty() -> Self {
        Self { written: OnceLock::from(0), tail: Vec::new() }
    }

    fn written(&self, file: &dyn SegmentFile) -> io::Result<u32> {
        if let Some(count) = self.written.get() {
            return Ok(*count);
        }
        let count = u32::try_from(file.len()? / E::SIZE as u64).unwrap_or(u32::MAX);
        Ok(*self.written.get_or_init(|| count))
    }

    pub(crate) fn count(&self, file: &dyn SegmentFile) -> io::Result<u32> {
        Ok(self.written(file)?.saturating_add(u32::try_from(self.tail.len()).unwrap_or(u32::MAX)))
    }

    fn in_file(&self, file: &dyn SegmentFile, index: u32) -> io::Result<Option<E>> {
        let mut bytes = [0; 16];
        let Some(bytes) = bytes.get_mut(..E::SIZE) else { return Ok(None) };
        let have = file.read_at(bytes, u64::from(index) * E::SIZE as u64)?;
        Ok(bytes.get(..have).and_then(E::decode))
    }

    pub(crate) fn last(&self, file: &dyn SegmentFile) -> io::Result<Option<E>> {
        match self.tail.last() {
            Some(entry) => Ok(Some(*entry)),
            None => match self.written(file)? {
                0 => Ok(None),
                count => self.in_file(file, count - 1),
            },
        }
    }

    /// The last entry for which `holds` is true, and the one after it. `holds` must be true up to some entry and false
    /// from there on; in a damaged file the answer is some entry that holds.
    pub(crate) fn last_where(
        &self,
        file: &dyn SegmentFile,
        holds: impl Fn(&E) -> bool,
    ) -> io::Result<(Option<E>, Option<E>)> {
        let in_tail = self.tail.partition_point(&holds);
        if let Some(before) = in_tail.checked_sub(1) {
            return Ok((self.tail.get(before).copied(), self.tail.get(in_tail).copied()));
        }
        let after = self.tail.first().copied();
        let (mut low, mut high) = (0, self.written(file)?);
        while high - low > BLOCK_ENTRIES {
            let middle = low + (high - low) / 2;
            match self.in_file(file, middle)? {
                Some(entry) if holds(&entry) => low = middle,
                Some(_) => high = middle,
                // Shorter than it was: what is left decides.
                None => high = middle,
            }
        }
        let mut block = Vec::new();
        // One more entry than the range, for the entry after it.
        file.read_onto(&mut block, u64::from(low) * E::SIZE as u64, (high - low) as usize * E::SIZE + E::SIZE)?;
        let limit = self.written(file)?.saturating_sub(low) as usize;
        let entries: Vec<E> = block.chunks_exact(E::SIZE).take(limit).filter_map(E::decode).collect();
        let at = entries.partition_point(&holds);
        let before = at.checked_sub(1).and_then(|i| entries.get(i)).copied();
        Ok((before, entries.get(at).copied().or(after)))
    }

    /// Adds an entry; true when the tail should be written behind.
    pub(crate) fn push(&mut self, entry: E) -> bool {
        self.tail.push(entry);
        self.tail.len() >= TAIL_ENTRIES
    }

    pub(crate) fn has_tail(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Writes the entries in memory to the file and cuts off what the file holds behind them.
    pub(crate) fn write_tail(&mut self, file: &dyn SegmentFile) -> io::Result<()> {
        let written = self.written(file)?;
        let mut bytes = Vec::with_capacity(self.tail.len() * E::SIZE);
        for entry in &self.tail {
            entry.encode(&mut bytes);
        }
        let position = u64::from(written) * E::SIZE as u64;
        if !bytes.is_empty() {
            file.write_at(&bytes, position)?;
        }
        let end = position + bytes.len() as u64;
        if file.len()? != end {
            file.set_len(end)?;
        }
        let count = written.saturating_add(u32::try_from(self.tail.len()).unwrap_or(u32::MAX));
        self.written = OnceLock::from(count);
        self.tail.clear();
        if count > 0 {
            self.tail.shrink_to(TAIL_ENTRIES);
        }
        Ok(())
    }

    /// Drops all entries behind the last for which `keep` is true.
    pub(crate) fn truncate_where(&mut self, file: &dyn SegmentFile, keep: impl Fn(&E) -> bool) -> io::Result<()> {
        let in_tail = self.tail.partition_point(&keep);
        self.tail.truncate(in_tail);
        if in_tail == 0 {
            let (mut low, mut high) = (0, self.written(file)?);
            while low < high {
                let middle = low + (high - low) / 2;
                match self.in_file(file, middle)? {
                    Some(entry) if keep(&entry) => low = middle + 1,
                    _ => high = middle,
                }
            }
            self.written = OnceLock::from(low);
            file.set_len(u64::from(low) * E::SIZE as u64)?;
        }
        Ok(())
    }
}

/// Reads a whole index out of its bytes, for checks and tools; stops at the first entry that does not rise.
pub fn parse_offset_index(bytes: &[u8]) -> Vec<(u32, u32)> {
    let entries = bytes.chunks_exact(OffsetEntry::SIZE).filter_map(OffsetEntry::decode);
    let mut rising: Vec<(u32, u32)> = Vec::new();
    for entry in entries {
        let next = (entry.relative_offset, entry.position);
        if rising.last().is_some_and(|last| next.0 <= last.0 || next.1 <= last.1) {
            break;
        }
        rising.push(next);
    }
    rising
}

/// As [`parse_offset_index`], for a time index: `(timestamp, relative offset)`.
pub fn parse_time_index(bytes: &[u8]) -> Vec<(i64, u32)> {
    let entries = bytes.chunks_exact(TimeEntry::SIZE).filter_map(TimeEntry::decode);
    let mut rising: Vec<(i64, u32)> = Vec::new();
    for entry in entries {
        let next = (entry.timestamp, entry.relative_offset);
        if rising.last().is_some_and(|last| next.0 <= last.0 || next.1 < last.1) {
            break;
        }
        rising.push(next);
    }
    rising
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{BufferedIo, SegmentIo};

    #[test]
    fn lookups_see_file_and_tail_alike() {
        let dir = tempfile::tempdir().unwrap();
        let file = BufferedIo.open(&dir.path().join("i"), true).unwrap();
        for (written, in_tail) in [(0u32, 0u32), (0, 5), (1, 0), (3, 2), (1000, 0), (1300, 7)] {
            file.set_len(0).unwrap();
            let mut index = IndexTable::empty();
            for i in 0..written + in_tail {
                if i == written {
                    index.write_tail(&*file).unwrap();
                }
                index.push(OffsetEntry { relative_offset: i * 10 + 9, position: i * 100 });
            }
            if in_tail == 0 {
                index.write_tail(&*file).unwrap();
            }
            let total = written + in_tail;
            assert_eq!(index.count(&*file).unwrap(), total);
            for target in 0..total * 10 + 20 {
                let (found, next) = index.last_where(&*file, |e| e.relative_offset <= target).unwrap();
                let expected = (target + 1) / 10;
                assert_eq!(found.map(|e| e.position / 100 + 1).unwrap_or(0), expected.min(total), "{target}");
                assert_eq!(next.map(|e| e.position / 100), (expected < total).then_some(expected), "{target}");
            }
            let keep = total / 2;
            index.truncate_where(&*file, |e| e.position < keep * 100).unwrap();
            assert_eq!(index.count(&*file).unwrap(), keep);
            index.write_tail(&*file).unwrap();
            assert_eq!(file.len().unwrap(), u64::from(keep) * 8);
        }
    }
}
