//! Walking one segment with every checksum, on behind what is damaged. Shared by the offline check and the scrubber.

use std::io;
use std::ops::Range;

use taccola_wire::batch::BatchHeader;

use crate::partition_log::Offset;
use crate::salvage::Salvaged;
use crate::scan::{Bounds, Resync, Scanner, Step, contradicted_gap, resync};

/// How the reason begins where the disk is to blame.
pub(crate) const UNREADABLE: &str = "the disk could not read some of the segment";
/// Bytes between two questions whether to go on.
const PACE_BYTES: u64 = 256 * 1024;

/// Where a segment stands in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentBounds {
    pub base: Offset,
    /// Offsets in the segment are below this.
    pub limit: Offset,
    /// Bytes to look at.
    pub size: u64,
    pub is_last: bool,
    pub may_have_gaps: bool,
}

/// Bytes that are no batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub positions: Range<u64>,
    /// Offsets that may have stood there.
    pub offsets: Range<Offset>,
    pub reason: String,
    /// At the end of the log's last segment, with nothing valid behind, and readable: as a write leaves it that was
    /// interrupted.
    pub torn: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub damaged: Vec<Damaged>,
    /// Behind the last batch, exclusive.
    pub end_offset: Offset,
    /// Where the last batch ends, or what could not be read behind it.
    pub end_position: u64,
    /// The caller ended it.
    pub stopped: bool,
}

/// Ranges of one segment beyond which it is taken for lost as a whole.
const DAMAGED_MAX: usize = 1_000;

/// Hands each whole batch to `visit`, in order, with its position and bytes.
pub(crate) fn walk_segment(
    file: &Salvaged,
    segment: SegmentBounds,
    visit: &mut dyn FnMut(&BatchHeader, u64, &[u8]),
    pace: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Walked> {
    let end = segment.size;
    let mut scanner = Scanner::new(file, 0, end);
    let mut bounds = Bounds { offset_min: segment.base, offset_end: segment.limit };
    let mut walked = Walked { end_offset: segment.base, ..Walked::default() };
    let (mut paced, mut after_damage) = (0, false);
    loop {
        if scanner.position() - paced >= PACE_BYTES {
            if !pace(scanner.position() - paced) {
                walked.stopped = true;
                return Ok(walked);
            }
            paced = scanner.position();
        }
        let reason = match scanner.peek_checked(bounds)? {
            Step::End => break,
            Step::Bad(reason) => reason,
            Step::Batch(header) => {
                let vouched = std::mem::take(&mut after_damage);
                let (is_last, gaps) = (segment.is_last, segment.may_have_gaps);
                match contradicted_gap(&mut scanner, &header, bounds.offset_min, vouched, is_last, gaps)? {
                    Some(reason) => reason,
                    None => {
                        let position = scanner.position();
                        visit(&header, position, scanner.bytes(&header)?);
                        bounds.offset_min = header.next_offset();
                        scanner.advance(&header);
                        walked.end_offset = bounds.offset_min;
                        continue;
                    }
                }
            }
        };
        let reason = match file.met_unreadable() {
            true => format!("{UNREADABLE}: {reason}"),
            false => reason,
        };
        let position = scanner.position();
        let expected = bounds.offset_min;
        let later = Bounds { offset_min: expected.saturating_add(1), ..bounds };
        match resync(file, position, end, later)? {
            Resync::Found { position: found, base_offset } if walked.damaged.len() < DAMAGED_MAX => {
                let (positions, offsets) = (position..found, expected..base_offset);
                walked.damaged.push(Damaged { positions, offsets, reason, torn: false });
                bounds.offset_min = base_offset;
                after_damage = true;
                scanner.seek(found);
            }
            behind => {
                let anything = Bounds { offset_min: i64::MIN, offset_end: i64::MAX };
                let whole = matches!(Scanner::new(file, position, end).peek_checked(anything)?, Step::Batch(_));
                let torn = segment.is_last && behind == Resync::Nothing && !whole && !file.met_unreadable();
                // At the log's end nobody knows how many offsets were there: at least one.
                let next = if segment.is_last { expected + 1 } else { segment.limit };
                walked.damaged.push(Damaged { positions: position..end, offsets: expected..next, reason, torn });
                walked.end_offset = if torn { expected } else { next };
                scanner.seek(end);
                break;
            }
        }
    }
    walked.end_position = scanner.position();
    pace(scanner.position().saturating_sub(paced));
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use taccola_wire::batch::{BatchBuilder, Compression};

    use super::*;
    use crate::file::open_read_only;

    /// `cargo test --release -p taccola-log --lib rate_of_a_pass -- --ignored --nocapture`: how fast one core reads segments out
    /// of the page cache and checks them.
    #[test]
    #[ignore = "measures, in a release build"]
    fn rate_of_a_pass() {
        const BYTES: usize = 256 << 20;
        for batch_bytes in [1_000, 16_000, 100_000] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let (mut written, mut offset) = (0, 0);
            while written < BYTES {
                let mut builder = BatchBuilder::new(Compression::None).base_offset(offset);
                builder.append(1, None, Some(&vec![offset as u8; batch_bytes]), &[]);
                let batch = builder.build().unwrap();
                file.write_all(&batch).unwrap();
                (written, offset) = (written + batch.len(), offset + 1);
            }
            let size = written as u64;
            let bounds = SegmentBounds { base: 0, limit: i64::MAX, size, is_last: true, may_have_gaps: false };
            let mut best = f64::MAX;
            for _ in 0..5 {
                let salvaged = Salvaged::new(open_read_only(file.path()).unwrap());
                let begun = Instant::now();
                let walked = walk_segment(&salvaged, bounds, &mut |_, _, _| {}, &mut |_| true).unwrap();
                best = best.min(begun.elapsed().as_secs_f64());
                assert_eq!((walked.end_offset, walked.damaged), (offset, vec![]));
            }
            println!("batches of {batch_bytes} bytes: {:.2} GiB/s", size as f64 / best / f64::from(1 << 30));
        }
    }
}
