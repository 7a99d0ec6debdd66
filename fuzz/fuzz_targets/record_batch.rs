//! Record batches of every codec: no input panics, allocates without bound, or makes the two walks disagree, and what
//! validation lets in is a batch that a reader accepts.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use taccola_wire::batch::validate::{Origin, Settings, TargetCompression, inspect, validate};
use taccola_wire::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, ControlRecord, HEADER_BYTES, Record, RecordIter, RecordWalker,
    TimestampType, batches, set_last_offset_delta, verify_crc,
};

/// Small, so that bombs are cheap to meet.
const MAX_OUT: usize = 256 * 1024;

/// Makes length, magic and CRC right, so that damage reaches the records and the codecs.
fn repair(data: &[u8]) -> Vec<u8> {
    let mut batch = data.to_vec();
    if batch.len() < HEADER_BYTES {
        batch.resize(HEADER_BYTES, 0);
    }
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let h = BatchHeader::parse_whole(&batch).expect("repaired");
    // Refreshes the CRC.
    set_last_offset_delta(&mut batch, h.last_offset_delta).expect("repaired");
    verify_crc(&batch).expect("repaired");
    batch
}

fn walked(batch: &Bytes) -> Result<Vec<Record>, BatchError> {
    let records: Result<Vec<Record>, _> = RecordIter::with_max_out(batch, MAX_OUT)?.collect();
    let mut walker = RecordWalker::new(batch, MAX_OUT)?;
    let header = *walker.header();
    let mut seen = 0;
    let failed = loop {
        match walker.next_record() {
            None => break None,
            Some(Err(e)) => break Some(e),
            Some(Ok(view)) => {
                if let Ok(records) = &records {
                    let r = &records[seen];
                    assert_eq!((view.offset(&header), view.timestamp(&header)), (r.offset, r.timestamp));
                    assert_eq!((view.key, view.value), (r.key.as_deref(), r.value.as_deref()));
                    assert!(view.headers().eq(r.headers.iter().map(|h| (&h.key[..], h.value.as_deref()))));
                }
                seen += 1;
            }
        }
    };
    assert_eq!(records.as_ref().err(), failed.as_ref());
    records
}

fn check_batch(batch: &Bytes) {
    let Ok(records) = walked(batch) else { return };
    let h = BatchHeader::parse(batch).expect("walked");
    let mut builder = BatchBuilder::new(h.compression().expect("walked")).base_offset(h.base_offset);
    for r in &records {
        let _ = ControlRecord::decode(r);
        builder.append_record(r);
    }
    // Offsets that go back, and no records at all, cannot be built.
    if let Ok(again) = builder.build() {
        let again = RecordIter::new(&again).expect("built").map(|r| r.expect("built"));
        assert!(again.eq(records.iter().cloned()));
    }
}

fn check_validation(data: &Bytes) {
    let base = Settings { now_ms: 1_700_000_000_000, max_message_bytes: 1 << 20, ..Settings::new(0) };
    let gzip = TargetCompression::Codec(Compression::Gzip.into());
    for settings in [
        base.clone(),
        Settings { compacted: true, before_max_ms: 1 << 40, ..base.clone() },
        Settings { timestamp_type: TimestampType::LogAppendTime, verify_records: true, ..base.clone() },
        Settings { target: gzip, origin: Origin::Coordinator, ..base.clone() },
    ] {
        let Ok(verdict) = inspect(data, &settings) else {
            assert!(validate(data.clone(), &settings).is_err());
            continue;
        };
        let v = validate(data.clone(), &settings).expect("inspected");
        assert_eq!(v.records.len(), verdict.size_bytes());
        assert_eq!(verify_crc(&v.records).expect("stored"), v.header);
        assert_eq!(v.header.size_bytes(), v.records.len());
        if settings.verify_records {
            let stored = v.records.freeze();
            let offsets = RecordIter::new(&stored).expect("verified").map(|r| r.expect("verified").offset);
            assert!(offsets.eq(v.header.base_offset..v.header.next_offset()));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let data = Bytes::from(if mode & 1 == 1 { repair(data) } else { data.to_vec() });
    for batch in batches(&data).flatten() {
        check_batch(&data.slice_ref(batch.bytes));
    }
    check_validation(&data);
});
