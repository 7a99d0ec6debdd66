//! What the transaction indexes of a partition held when they were flushed: `taccola.aborted`, a text file of ours that a JVM
//! Kafka ignores. An index of Kafka's format that is gone, cut off or changed looks like one of fewer aborted transactions,
//! and readers of committed records would see what was taken back. With this file that is found out, and the batches are
//! asked instead. The file itself is never needed: without it, or where it is wrong, an index is believed, or read anew.
//!
//! A line `0`, then per segment with an index: base offset, number of entries, CRC-32C of these entries.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::error::LogError;
use crate::file::{read_small, remove_if_exists, write_atomically};
use crate::txn_index::ENTRY_BYTES;

pub(crate) const FILE_NAME: &str = "taccola.aborted";
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Base offset → entries, checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxnSums {
    segments: BTreeMap<i64, (usize, u32)>,
}

fn checksum(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).unwrap_or(0)
}

impl TxnSums {
    /// What the file says; nothing where there is none, or as far as it cannot be read.
    pub(crate) fn read(dir: &Path) -> Self {
        let text = read_small(&dir.join(FILE_NAME), BYTES_MAX).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        if lines.next() != Some("0") {
            return Self::default();
        }
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let base = words.next()?.parse().ok()?;
            Some((base, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        };
        Self { segments: lines.filter_map(parse).collect() }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(FILE_NAME);
        if self.segments.is_empty() {
            return remove_if_exists(&path).map_err(|e| LogError::io("remove", &path, e));
        }
        let mut text = String::from("0\n");
        for (base, (entries, sum)) in &self.segments {
            let _ = writeln!(text, "{base} {entries} {sum}");
        }
        write_atomically(&path, text.as_bytes()).map_err(|e| LogError::io("write", &path, e))
    }

    /// Notes what a segment's index holds; one without entries is forgotten.
    pub(crate) fn note(&mut self, base: i64, index: &[u8]) {
        match index.len() / ENTRY_BYTES {
            0 => self.segments.remove(&base),
            entries => {
                let whole = index.get(..entries * ENTRY_BYTES).unwrap_or_default();
                self.segments.insert(base, (entries, checksum(whole)))
            }
        };
    }

    pub(crate) fn keep(&mut self, is_there: impl Fn(i64) -> bool) {
        self.segments.retain(|base, _| is_there(*base));
    }

    /// Whether an index begins with what it held.
    pub(crate) fn agree(&self, base: i64, index: &[u8]) -> bool {
        self.segments.get(&base).is_none_or(|(entries, sum)| {
            let length = entries.checked_mul(ENTRY_BYTES);
            length.and_then(|length| index.get(..length)).is_some_and(|known| checksum(known) == *sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_lost_or_changed_something_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let index = vec![7; 3 * ENTRY_BYTES];
        let mut sums = TxnSums::default();
        sums.note(40, &index);
        sums.note(50, &[]);
        sums.write(dir.path()).unwrap();
        let read = TxnSums::read(dir.path());
        assert_eq!(read, sums);
        assert!(read.agree(40, &index) && read.agree(40, &[index.clone(), vec![1; 34]].concat()), "it may have grown");
        assert!(!read.agree(40, &index[..2 * ENTRY_BYTES]) && !read.agree(40, &[]));
        let mut flipped = index.clone();
        flipped[50] ^= 1;
        assert!(!read.agree(40, &flipped));
        assert!(read.agree(50, &[]) && read.agree(60, &flipped), "of what is not known nothing is said");
        sums.keep(|base| base != 40);
        sums.write(dir.path()).unwrap();
        assert!(!dir.path().join(FILE_NAME).exists());
        for junk in [&b""[..], b"1\n", b"0\nx y\n40 1\n", &[0xff; 30]] {
            std::fs::write(dir.path().join(FILE_NAME), junk).unwrap();
            assert_eq!(TxnSums::read(dir.path()), TxnSums::default());
        }
    }
}
