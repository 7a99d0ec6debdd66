//! Asks for records to be deleted up to some offset, one request after the other. The log begins where the last acknowledged
//! request says, or later by one whose answer was lost; never before, and never beyond all that was asked for.

use bytes::Bytes;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::DeleteRecordsRequest;
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;

const DELETE_RECORDS: i16 = 2;

pub(in crate::simulation) struct Deleter {
    topic: &'static str,
    partitions: i32,
    /// What the request under way asks for: partition, offset; and what was acknowledged before.
    asked: Option<(i32, i64, i64)>,
    finishing: bool,
}

impl Deleter {
    pub(in crate::simulation) fn new(topic: &'static str, partitions: i32) -> Self {
        Self { topic, partitions, asked: None, finishing: false }
    }
}

impl Client for Deleter {
    fn name(&self) -> String {
        format!("deleter of {}", self.topic)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.finishing || self.asked.is_some() || !ctx.rng.one_in(4) {
            return None;
        }
        let partition_index = ctx.rng.below(self.partitions as u64) as i32;
        let known = ctx.ledger.partition(&(self.topic.to_owned(), partition_index));
        // Seldom beyond the end, which must be refused.
        let offset = ctx.rng.below(known.end() as u64 + 2) as i64;
        known.delete_asked = known.delete_asked.max(offset);
        self.asked = Some((partition_index, offset, known.acknowledged_end()));
        let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
        let topics = vec![DeleteRecordsTopic { name: self.topic.to_owned(), partitions }];
        *ctx.said = format!("{}-{partition_index} before {offset}", self.topic);
        Some(Ask { tag: 0, frame: encode(&DeleteRecordsRequest { topics, timeout_ms: 30_000 }, DELETE_RECORDS) })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let Some((partition, offset, acknowledged_end)) = self.asked.take() else { return };
        let response = decode::<DeleteRecordsRequest>(DELETE_RECORDS, frame);
        let row = &response.topics[0].partitions[0];
        *ctx.said = format!("code {} starts at {}", row.error_code, row.low_watermark);
        let known = ctx.ledger.partition(&(self.topic.to_owned(), partition));
        if row.error_code == 0 {
            let low = row.low_watermark;
            assert!((offset..=known.delete_asked).contains(&low), "{}: {low} after {offset}", self.name());
            known.deleted_to = known.deleted_to.max(low);
            return;
        }
        let beyond = row.error_code == ErrorCode::OffsetOutOfRange.code() && offset > acknowledged_end;
        assert!(beyond || is_retriable(row.error_code), "{}: {offset} answers {row:?}", self.name());
    }

    fn lost(&mut self, _ctx: &mut Ctx<'_>, _tag: u64) {
        self.asked = None;
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.asked.is_none()
    }
}
