//! The transaction index of a segment: its aborted transactions. Answers to Kafka's `TransactionIndex`.
//!
//! The file (only there once a transaction was aborted) holds entries of 34 bytes in the order of their markers: version
//! i16 = 0, producer id, first offset, last offset (the marker's), last stable offset when the marker was written.

use std::io;

use crate::file::SegmentFile;
use crate::partition_log::AbortedTxn;

pub(crate) const ENTRY_BYTES: usize = 34;

pub(crate) fn encode(txn: &AbortedTxn) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    let fields = [txn.producer_id, txn.first_offset, txn.last_offset, txn.last_stable_offset];
    for (place, byte) in bytes.iter_mut().skip(2).zip(fields.into_iter().flat_map(i64::to_be_bytes)) {
        *place = byte;
    }
    bytes
}

/// The entries of a file's bytes, up to the first that makes no sense; and whether all made sense.
pub fn parse(bytes: &[u8]) -> (Vec<AbortedTxn>, bool) {
    let mut entries: Vec<AbortedTxn> = Vec::new();
    for chunk in bytes.chunks(ENTRY_BYTES) {
        let Some(entry) = decode(chunk) else { return (entries, false) };
        if entries.last().is_some_and(|last| last.last_offset >= entry.last_offset) {
            return (entries, false);
        }
        entries.push(entry);
    }
    (entries, true)
}

fn decode(bytes: &[u8]) -> Option<AbortedTxn> {
    let (version, rest) = bytes.split_first_chunk::<2>()?;
    let (producer_id, rest) = rest.split_first_chunk()?;
    let (first_offset, rest) = rest.split_first_chunk()?;
    let (last_offset, rest) = rest.split_first_chunk()?;
    let last_stable_offset = rest.first_chunk()?;
    let entry = AbortedTxn {
        producer_id: i64::from_be_bytes(*producer_id),
        first_offset: i64::from_be_bytes(*first_offset),
        last_offset: i64::from_be_bytes(*last_offset),
        last_stable_offset: i64::from_be_bytes(*last_stable_offset),
    };
    let sane = *version == [0, 0] && entry.producer_id >= 0 && entry.first_offset >= 0;
    (sane && entry.first_offset <= entry.last_offset).then_some(entry)
}

/// Reads a file's entries.
pub(crate) fn read(file: &dyn SegmentFile) -> io::Result<(Vec<AbortedTxn>, bool)> {
    Ok(parse(&read_bytes(file)?))
}

/// Reads a whole file.
pub(crate) fn read_bytes(file: &dyn SegmentFile) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    file.read_onto(&mut bytes, 0, length)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_round_trip_and_damage_is_seen() {
        let txn = |first, last| AbortedTxn {
            producer_id: 7,
            first_offset: first,
            last_offset: last,
            last_stable_offset: first,
        };
        let txns = vec![txn(3, 9), txn(1, 12)];
        let mut bytes: Vec<u8> = txns.iter().flat_map(encode).collect();
        assert_eq!(parse(&bytes), (txns.clone(), true));
        bytes.truncate(60);
        assert_eq!(parse(&bytes), (txns[..1].to_vec(), false));
        let mut bytes: Vec<u8> = txns.iter().flat_map(encode).collect();
        bytes[1] = 1;
        assert_eq!(parse(&bytes), (vec![], false));
    }
}
