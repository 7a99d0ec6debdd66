//! Looks up in the index objects of a remote segment. An index says where to begin looking, never what is there: whoever reads the log
//! checks, and begins at its front when an index led astray.

/// Position in the log from which to look for `relative_offset`: entries are `(relative last offset of a batch, its position)`, 4 + 4
/// bytes, rising.
pub(super) fn position_of(index: &[u8], relative_offset: i64) -> u64 {
    let entries = index.as_chunks::<8>().0;
    let offset_of = |entry: &[u8; 8]| i64::from(u32_at(entry, 0));
    let after = entries.partition_point(|entry| offset_of(entry) <= relative_offset);
    let entry = after.checked_sub(1).and_then(|at| entries.get(at));
    entry.map_or(0, |entry| u64::from(u32_at(entry, 4)))
}

/// Relative offset from which to look for the first record with at least `timestamp`: entries are `(largest timestamp so far, relative
/// offset)`, 8 + 4 bytes, rising.
pub(super) fn offset_before(time_index: &[u8], timestamp: i64) -> i64 {
    let entries = time_index.as_chunks::<12>().0;
    let timestamp_of = |entry: &[u8; 12]| {
        let (high, low) = (u32_at(entry, 0), u32_at(entry, 4));
        ((u64::from(high) << 32) | u64::from(low)).cast_signed()
    };
    let after = entries.partition_point(|entry| timestamp_of(entry) < timestamp);
    let entry = after.checked_sub(1).and_then(|at| entries.get(at));
    entry.map_or(0, |entry| i64::from(u32_at(entry, 8)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups() {
        let index: Vec<u8> = [(9_u32, 100_u32), (19, 200)]
            .iter()
            .flat_map(|(o, p)| [o.to_be_bytes(), p.to_be_bytes()].concat())
            .collect();
        assert_eq!([0, 9, 10, 19, 99].map(|offset| position_of(&index, offset)), [0, 100, 100, 200, 200]);
        assert_eq!(position_of(&index[..7], 50), 0);
        let time: Vec<u8> = [(1_000_i64, 9_u32), (2_000, 19)]
            .iter()
            .flat_map(|(t, o)| [&t.to_be_bytes()[..], &o.to_be_bytes()].concat())
            .collect();
        assert_eq!([0, 1_000, 1_001, 2_000, 9_999].map(|t| offset_before(&time, t)), [0, 0, 9, 9, 19]);
    }
}
