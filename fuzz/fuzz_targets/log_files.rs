//! The small files of a log directory, each through its parser: the first byte picks which. What was parsed must rise, stay
//! in its bounds, and never cost more than the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taccola_log::{checkpoint, log_dir};

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 9 {
        0 => {
            let entries = taccola_log::parse_offset_index(bytes);
            assert!(entries.len() <= bytes.len() / 8);
            assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
        }
        1 => {
            let entries = taccola_log::parse_time_index(bytes);
            assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        }
        2 => {
            let (txns, whole) = taccola_log::parse_txn_index(bytes);
            assert!(!whole || txns.len() * 34 == bytes.len());
            assert!(txns.iter().all(|txn| txn.first_offset <= txn.last_offset));
        }
        3 => {
            if let Ok(producers) = taccola_log::parse_snapshot(bytes) {
                assert!(producers <= bytes.len() / 46);
            }
        }
        4 => {
            let read = checkpoint::parse_offsets(bytes);
            assert!(read.offsets.len() <= bytes.len());
            assert!(read.offsets.values().all(|offset| *offset >= 0));
        }
        5 => {
            let (epochs, _) = checkpoint::parse_epochs(bytes);
            assert!(epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        }
        6 => {
            if let Ok(id) = checkpoint::parse_partition_metadata(bytes) {
                assert!(!id.is_zero());
            }
        }
        7 => {
            log_dir::parse_clean_shutdown(bytes);
        }
        _ => {
            let (ranges, _) = taccola_log::parse_quarantine(bytes);
            assert!(ranges.iter().all(|range| range.start_position <= range.end_position));
        }
    }
});
