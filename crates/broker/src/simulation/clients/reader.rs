//! Fetches from any place of a topic and looks at what it gets: records that were sent, where they always were.

use bytes::Bytes;
use taccola_wire::batch::{RecordIter, batches, verify_crc};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::FetchRequest;
use taccola_wire::messages::fetch_request::{FetchPartition, FetchTopic};

use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::network::Ask;

const FETCH: i16 = 12;

pub(in crate::simulation) struct Reader {
    number: u32,
    topic: &'static str,
    partitions: i32,
    committed: bool,
    partition: i32,
    next: i64,
    under_way: bool,
    finishing: bool,
}

impl Reader {
    pub(in crate::simulation) fn new(number: u32, topic: &'static str, partitions: i32, committed: bool) -> Self {
        Self { number, topic, partitions, committed, partition: 0, next: 0, under_way: false, finishing: false }
    }
}

impl Client for Reader {
    fn name(&self) -> String {
        format!("reader {}", self.number)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.finishing || std::mem::replace(&mut self.under_way, true) {
            return None;
        }
        if ctx.rng.one_in(5) {
            self.partition = ctx.rng.below(self.partitions as u64) as i32;
            self.next = 0;
            let place = (self.topic.to_owned(), self.partition);
            if ctx.rng.one_in(2) {
                self.next = ctx.ledger.partition(&place).somewhere(ctx.rng);
            }
        }
        let partition = FetchPartition {
            partition: self.partition,
            current_leader_epoch: -1,
            fetch_offset: self.next,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 1 << 14,
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: if ctx.rng.one_in(2) { 50 } else { 0 },
            min_bytes: 1,
            max_bytes: 1 << 20,
            isolation_level: i8::from(self.committed),
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: self.topic.to_owned(),
                partitions: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        *ctx.said = format!("{}-{} from {}", self.topic, self.partition, self.next);
        Some(Ask { tag: 0, frame: encode(&request, FETCH) })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        self.under_way = false;
        let response = decode::<FetchRequest>(FETCH, frame);
        if response.error_code != 0 || response.responses.is_empty() {
            assert!(response.error_code == 0 || is_retriable(response.error_code), "Fetch: {}", response.error_code);
            return;
        }
        let data = &response.responses[0].partitions[0];
        if data.error_code != 0 {
            let out_of_range = data.error_code == ErrorCode::OffsetOutOfRange.code();
            let damaged = ctx.bad && data.error_code == ErrorCode::CorruptMessage.code();
            assert!(out_of_range || damaged || is_retriable(data.error_code), "Fetch: {}", data.error_code);
            *ctx.said = format!("code {}", data.error_code);
            let place = (self.topic.to_owned(), self.partition);
            self.next = ctx.ledger.partition(&place).somewhere(ctx.rng);
            return;
        }
        let bound = if self.committed { data.last_stable_offset } else { data.high_watermark };
        let at = format!("{}-{}", self.topic, self.partition);
        let bytes = data.records.clone().unwrap_or_default();
        let place = (self.topic.to_owned(), self.partition);
        let from = self.next;
        for batch in batches(&bytes) {
            let Ok(batch) = batch else { break };
            verify_crc(batch.bytes).unwrap();
            assert!(batch.header.base_offset < bound, "{at}: {} is served beyond {bound}", batch.header.base_offset);
            self.next = batch.header.next_offset();
            if batch.header.is_control() {
                continue;
            }
            for record in RecordIter::new(&bytes.slice_ref(batch.bytes)).unwrap() {
                let record = record.unwrap();
                let value = record.value.expect("no tombstones are sent");
                ctx.ledger.partition(&place).note(&at, record.offset, &value, record.key.as_ref());
            }
        }
        *ctx.said = format!("{at} {from}..{} of {bound}", self.next);
    }

    fn lost(&mut self, _ctx: &mut Ctx<'_>, _tag: u64) {
        self.under_way = false;
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        !self.under_way
    }
}
