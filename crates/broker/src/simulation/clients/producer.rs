//! Producers without transactions. An idempotent one keeps up to five batches under way in each partition and sends again
//! whatever was not answered; a plain one sends each batch once.
//!
//! A batch with nothing unanswered before it must never meet OUT_OF_ORDER_SEQUENCE_NUMBER: the broker would have forgotten
//! what it acknowledged.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::produce_response::PartitionProduceResponse;
use taccola_wire::messages::{InitProducerIdRequest, ProduceRequest};

use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::ledger::Name;
use crate::simulation::network::Ask;
use crate::simulation::world;

const PRODUCE: i16 = 12;
const INIT_PRODUCER_ID: i16 = 4;
const WINDOW: usize = 5;

struct Batch {
    /// Its place among all batches of the lane.
    ordinal: usize,
    names: Vec<Name>,
    base_sequence: i32,
    request: Bytes,
    /// The tag of the request that is under way.
    under_way: Option<u64>,
}

#[derive(Default)]
struct Lane {
    window: VecDeque<Batch>,
    /// Something was acknowledged. A broker that knows nothing of a producer takes any sequence, so that until then only one
    /// batch may be under way.
    known: bool,
    next_sequence: i32,
    next_ordinal: usize,
}

pub(in crate::simulation) struct Producer {
    writer: u32,
    topic: &'static str,
    partitions: i32,
    acks: i16,
    idempotent: bool,
    keyed: bool,
    id: Option<(i64, i16)>,
    asking_id: bool,
    lanes: BTreeMap<i32, Lane>,
    next_number: u32,
    next_tag: u64,
    finishing: bool,
}

impl Producer {
    pub(in crate::simulation) fn new(
        writer: u32,
        topic: &'static str,
        partitions: i32,
        acks: i16,
        idempotent: bool,
        keyed: bool,
    ) -> Self {
        Self {
            writer,
            topic,
            partitions,
            acks,
            idempotent,
            keyed,
            id: None,
            asking_id: false,
            lanes: BTreeMap::new(),
            next_number: 0,
            next_tag: 1,
            finishing: false,
        }
    }

    fn new_batch(&mut self, ctx: &mut Ctx<'_>, partition: i32) {
        let count = 1 + ctx.rng.index(4);
        let (id, epoch) = self.id.unwrap_or((-1, -1));
        let lane = self.lanes.entry(partition).or_default();
        let base_sequence = if self.idempotent { lane.next_sequence } else { -1 };
        let compression = if ctx.rng.one_in(4) { Compression::Lz4 } else { Compression::None };
        let mut builder = BatchBuilder::new(compression).producer(id, epoch, base_sequence);
        let mut names = Vec::new();
        for _ in 0..count {
            let name = Name { writer: self.writer, number: self.next_number };
            self.next_number += 1;
            let key = self.keyed.then(|| Bytes::from(format!("k{}", ctx.rng.below(6))));
            let now_ms = world::now_ms().unwrap();
            builder.append(now_ms, key.as_deref(), Some(&name.value()), &[]);
            ctx.ledger.partition(&(self.topic.to_owned(), partition)).sent(name, None, key, self.idempotent);
            names.push(name);
        }
        lane.next_sequence += count as i32;
        let request = produce_request(self.topic, partition, self.acks, None, builder.build().unwrap());
        let request = encode(&request, PRODUCE);
        let ordinal = lane.next_ordinal;
        lane.next_ordinal += 1;
        lane.window.push_back(Batch { ordinal, names, base_sequence, request, under_way: None });
    }

    fn judge(&mut self, ctx: &mut Ctx<'_>, partition: i32, tag: u64, response: &PartitionProduceResponse) {
        let at = format!("{}-{partition}", self.topic);
        let lane = self.lanes.entry(partition).or_default();
        let Some(index) = lane.window.iter().position(|batch| batch.under_way == Some(tag)) else { return };
        let batch = &mut lane.window[index];
        batch.under_way = None;
        let code = ErrorCode::from_code(response.error_code);
        match code {
            ErrorCode::None | ErrorCode::DuplicateSequenceNumber => {
                let base = if code == ErrorCode::None { response.base_offset } else { -1 };
                for (i, name) in batch.names.iter().enumerate() {
                    let offset = if base < 0 { -1 } else { base + i as i64 };
                    ctx.ledger.partition(&(self.topic.to_owned(), partition)).acked(&at, *name, offset);
                }
                lane.known = true;
                lane.window.remove(index);
            }
            ErrorCode::OutOfOrderSequenceNumber if index > 0 => {}
            _ if is_retriable(response.error_code) => {
                if !self.idempotent {
                    lane.window.remove(index);
                }
            }
            _ => panic!("{at}: sequence {} is refused with {code:?} {response:?}", batch.base_sequence),
        }
    }
}

impl Client for Producer {
    fn name(&self) -> String {
        format!("producer {}", self.writer)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.idempotent && self.id.is_none() {
            if std::mem::replace(&mut self.asking_id, true) {
                return None;
            }
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            };
            return Some(Ask { tag: 0, frame: encode(&request, INIT_PRODUCER_ID) });
        }
        let partition = ctx.rng.below(self.partitions as u64) as i32;
        let lane = self.lanes.entry(partition).or_default();
        if lane.window.iter().all(|batch| batch.under_way.is_some()) {
            let oldest = lane.window.front().map_or(lane.next_ordinal, |batch| batch.ordinal);
            let most = if lane.known || !self.idempotent { WINDOW } else { 1 };
            if lane.next_ordinal - oldest >= most || self.finishing {
                return None;
            }
            self.new_batch(ctx, partition);
        }
        let tag = self.next_tag;
        let lane = self.lanes.entry(partition).or_default();
        let batch = lane.window.iter_mut().find(|batch| batch.under_way.is_none())?;
        batch.under_way = Some(tag);
        self.next_tag += 1;
        *ctx.said = format!("{}-{partition} {:?} seq {}", self.topic, batch.names[0], batch.base_sequence);
        Some(Ask { tag, frame: batch.request.clone() })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, tag: u64, frame: Bytes) {
        if tag == 0 {
            let response = decode::<InitProducerIdRequest>(INIT_PRODUCER_ID, frame);
            self.asking_id = false;
            if response.error_code == 0 {
                self.id = Some((response.producer_id, response.producer_epoch));
            } else {
                assert!(is_retriable(response.error_code), "{response:?}");
            }
            *ctx.said = format!("producer id {:?}", self.id);
            return;
        }
        let response = decode::<ProduceRequest>(PRODUCE, frame);
        let partition = &response.responses[0].partition_responses[0];
        *ctx.said = format!("code {} offset {}", partition.error_code, partition.base_offset);
        self.judge(ctx, partition.index, tag, partition);
    }

    fn lost(&mut self, _ctx: &mut Ctx<'_>, tag: u64) {
        if tag == 0 {
            self.asking_id = false;
        }
        for lane in self.lanes.values_mut() {
            if let Some(index) = lane.window.iter().position(|batch| batch.under_way == Some(tag)) {
                match self.idempotent {
                    true => lane.window[index].under_way = None,
                    false => drop(lane.window.remove(index)),
                }
            }
        }
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.lanes.values().all(|lane| lane.window.is_empty())
    }
}

pub(super) fn produce_request(
    topic: &str,
    partition: i32,
    acks: i16,
    transactional_id: Option<&str>,
    records: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(records) };
    ProduceRequest {
        transactional_id: transactional_id.map(str::to_owned),
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData { name: topic.to_owned(), partition_data: vec![data], ..Default::default() }],
    }
}
