//! A transactional producer: transactions of a few batches in any of its partitions, most of them with an offset of a
//! group, committed or aborted. Half of them speak as clients before KIP-890 do (they add partitions themselves), half as
//! those after it. It repeats what was not answered, gives up sometimes, and then begins anew under the same id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use taccola_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use taccola_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest,
    TxnOffsetCommitRequest,
};

use super::producer::produce_request;
use super::{Client, Ctx, decode, encode, is_retriable};
use crate::simulation::ledger::{Fate, Name};
use crate::simulation::network::Ask;
use crate::simulation::world;

#[derive(Clone, Debug)]
enum Step {
    Init,
    Add(i32),
    Produce(i32),
    AddOffsets,
    CommitOffset,
    End(bool),
}

struct Current {
    step: Step,
    frame: Bytes,
    names: Vec<Name>,
    under_way: bool,
}

pub(in crate::simulation) struct Transactional {
    writer: u32,
    topic: &'static str,
    partitions: i32,
    /// Transaction version 2.
    adds: bool,
    producer: Option<(i64, i16)>,
    plan: VecDeque<Step>,
    current: Option<Current>,
    transaction: Option<u32>,
    sequences: BTreeMap<i32, i32>,
    next_number: u32,
    /// Transactions with an offset that was acknowledged. The offset is the transaction's number.
    with_offset: BTreeSet<u32>,
    seen_offset: i64,
    finishing: bool,
}

impl Transactional {
    pub(in crate::simulation) fn new(writer: u32, topic: &'static str, partitions: i32, adds: bool) -> Self {
        Self {
            writer,
            topic,
            partitions,
            adds,
            producer: None,
            plan: VecDeque::new(),
            current: None,
            transaction: None,
            sequences: BTreeMap::new(),
            next_number: 0,
            with_offset: BTreeSet::new(),
            seen_offset: -1,
            finishing: false,
        }
    }

    fn id(&self) -> String {
        format!("t{}", self.writer)
    }

    fn group(&self) -> String {
        format!("tg{}", self.writer)
    }

    fn versions(&self) -> [i16; 4] {
        // InitProducerId, Produce, TxnOffsetCommit, EndTxn.
        if self.adds { [5, 12, 5, 5] } else { [4, 11, 4, 4] }
    }

    fn begin(&mut self, ctx: &mut Ctx<'_>) {
        self.transaction = Some(ctx.ledger.begin_transaction());
        let mut added = BTreeSet::new();
        for _ in 0..1 + ctx.rng.index(3) {
            let partition = ctx.rng.below(self.partitions as u64) as i32;
            if !self.adds && added.insert(partition) {
                self.plan.push_back(Step::Add(partition));
            }
            self.plan.push_back(Step::Produce(partition));
        }
        if !ctx.rng.one_in(3) {
            if !self.adds {
                self.plan.push_back(Step::AddOffsets);
            }
            self.plan.push_back(Step::CommitOffset);
        }
        self.plan.push_back(Step::End(!ctx.rng.one_in(3)));
    }

    /// Leaves the transaction to its fate.
    fn give_up(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(transaction) = self.transaction.take()
            && *ctx.ledger.fate(transaction) == Fate::Open
        {
            *ctx.ledger.fate(transaction) = Fate::Unknown(false);
        }
        self.producer = None;
        self.current = None;
        self.plan.clear();
    }

    fn prepare(&mut self, ctx: &mut Ctx<'_>, step: Step) -> Current {
        let (producer_id, producer_epoch) = self.producer.unwrap_or((-1, -1));
        let transactional_id = self.id();
        let [init, _, offsets, end] = self.versions();
        let mut names = Vec::new();
        let frame = match &step {
            Step::Init => encode(
                &InitProducerIdRequest {
                    transactional_id: Some(transactional_id),
                    transaction_timeout_ms: 60_000,
                    producer_id: -1,
                    producer_epoch: -1,
                    ..Default::default()
                },
                init,
            ),
            Step::Add(partition) => encode(
                &AddPartitionsToTxnRequest {
                    v3_and_below_transactional_id: transactional_id,
                    v3_and_below_producer_id: producer_id,
                    v3_and_below_producer_epoch: producer_epoch,
                    v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                        name: self.topic.to_owned(),
                        partitions: vec![*partition],
                    }],
                    ..Default::default()
                },
                3,
            ),
            Step::Produce(partition) => {
                let (frame, sent) = self.batch(ctx, *partition);
                names = sent;
                frame
            }
            Step::AddOffsets => {
                let group_id = self.group();
                encode(&AddOffsetsToTxnRequest { transactional_id, producer_id, producer_epoch, group_id }, 3)
            }
            Step::CommitOffset => {
                let partition = TxnOffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: i64::from(self.transaction.unwrap()),
                    committed_leader_epoch: -1,
                    committed_metadata: Some(String::new()),
                };
                let topic = TxnOffsetCommitRequestTopic { name: self.topic.to_owned(), partitions: vec![partition] };
                let request = TxnOffsetCommitRequest {
                    transactional_id,
                    group_id: self.group(),
                    producer_id,
                    producer_epoch,
                    generation_id: -1,
                    topics: vec![topic],
                    ..Default::default()
                };
                encode(&request, offsets)
            }
            Step::End(committed) => {
                let fate = ctx.ledger.fate(self.transaction.unwrap());
                if *fate == Fate::Open {
                    *fate = Fate::Unknown(*committed);
                }
                encode(&EndTxnRequest { transactional_id, producer_id, producer_epoch, committed: *committed }, end)
            }
        };
        Current { step, frame, names, under_way: false }
    }

    fn batch(&mut self, ctx: &mut Ctx<'_>, partition: i32) -> (Bytes, Vec<Name>) {
        let (id, epoch) = self.producer.unwrap_or((-1, -1));
        let sequence = self.sequences.entry(partition).or_insert(0);
        let mut builder = BatchBuilder::new(Compression::None).producer(id, epoch, *sequence).transactional(true);
        let mut names = Vec::new();
        for _ in 0..1 + ctx.rng.index(3) {
            let name = Name { writer: self.writer, number: self.next_number };
            self.next_number += 1;
            builder.append(world::now_ms().unwrap(), None, Some(&name.value()), &[]);
            ctx.ledger.partition(&(self.topic.to_owned(), partition)).sent(name, self.transaction, None, true);
            names.push(name);
        }
        *sequence += names.len() as i32;
        let request = produce_request(self.topic, partition, -1, Some(&self.id()), builder.build().unwrap());
        (encode(&request, self.versions()[1]), names)
    }

    /// The code of a step's answer, which is taken in if it is good.
    fn take_in(&mut self, ctx: &mut Ctx<'_>, current: &Current, frame: Bytes) -> i16 {
        let [init, produce, offsets, end] = self.versions();
        match &current.step {
            Step::Init => {
                let response = decode::<InitProducerIdRequest>(init, frame);
                if response.error_code == 0 {
                    self.is_now((response.producer_id, response.producer_epoch));
                }
                response.error_code
            }
            Step::Add(_) => {
                let response = decode::<AddPartitionsToTxnRequest>(3, frame);
                response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
            }
            Step::Produce(partition) => {
                let response = decode::<ProduceRequest>(produce, frame);
                let result = &response.responses[0].partition_responses[0];
                let known = result.error_code == 0;
                if !known && result.error_code != ErrorCode::DuplicateSequenceNumber.code() {
                    return result.error_code;
                }
                let at = format!("{}-{partition}", self.topic);
                for (i, name) in current.names.iter().enumerate() {
                    let offset = if known && result.base_offset >= 0 { result.base_offset + i as i64 } else { -1 };
                    ctx.ledger.partition(&(self.topic.to_owned(), *partition)).acked(&at, *name, offset);
                }
                0
            }
            Step::AddOffsets => decode::<AddOffsetsToTxnRequest>(3, frame).error_code,
            Step::CommitOffset => {
                let response = decode::<TxnOffsetCommitRequest>(offsets, frame);
                let code = response.topics[0].partitions[0].error_code;
                if code == 0 {
                    self.with_offset.insert(self.transaction.unwrap());
                }
                code
            }
            Step::End(committed) => {
                let response = decode::<EndTxnRequest>(end, frame);
                if response.error_code == 0 {
                    let transaction = self.transaction.take().unwrap();
                    let fate = if *committed { Fate::Committed } else { Fate::Aborted };
                    let before = *ctx.ledger.fate(transaction);
                    let fits = before == Fate::Unknown(*committed) || before == fate;
                    assert!(fits, "the end of transaction {transaction} is {before:?}, told was {fate:?}");
                    *ctx.ledger.fate(transaction) = fate;
                    if self.adds {
                        self.is_now((response.producer_id, response.producer_epoch));
                    }
                }
                response.error_code
            }
        }
    }

    fn is_now(&mut self, producer: (i64, i16)) {
        if self.producer != Some(producer) {
            self.producer = Some(producer);
            self.sequences.clear();
        }
    }
}

impl Client for Transactional {
    fn name(&self) -> String {
        format!("transactional {}", self.writer)
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>) -> Option<Ask> {
        if self.current.as_ref().is_some_and(|current| current.under_way) {
            return None;
        }
        if !self.finishing && ctx.rng.one_in(60) {
            self.give_up(ctx);
        }
        if self.current.is_none() {
            if self.producer.is_none() && self.plan.is_empty() {
                self.plan.push_back(Step::Init);
            }
            if self.plan.is_empty() {
                if self.finishing {
                    return None;
                }
                self.begin(ctx);
            }
            let step = self.plan.pop_front()?;
            self.current = Some(self.prepare(ctx, step));
        }
        let current = self.current.as_mut()?;
        current.under_way = true;
        *ctx.said = format!("{:?} {:?} of {:?}", current.step, current.names.first(), self.transaction);
        Some(Ask { tag: 0, frame: current.frame.clone() })
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, _tag: u64, frame: Bytes) {
        let Some(mut current) = self.current.take() else { return };
        let of = self.transaction;
        let code = self.take_in(ctx, &current, frame);
        *ctx.said = format!("{:?} of {of:?}: code {code}, {:?}", current.step, self.producer);
        if code == 0 {
            return;
        }
        if is_retriable(code) {
            current.under_way = false;
            self.current = Some(current);
            return;
        }
        match ErrorCode::from_code(code) {
            ErrorCode::TransactionAbortable if !matches!(current.step, Step::Init | Step::End(_)) => {
                self.plan = VecDeque::from([Step::End(false)]);
            }
            ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidTxnState
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::TransactionAbortable => self.give_up(ctx),
            other => panic!("t{}: {:?} is answered with {other:?}", self.writer, current.step),
        }
    }

    fn lost(&mut self, _ctx: &mut Ctx<'_>, _tag: u64) {
        if let Some(current) = &mut self.current {
            current.under_way = false;
        }
    }

    fn finish(&mut self) -> bool {
        self.finishing = true;
        self.current.is_none() && self.plan.is_empty() && self.producer.is_some()
    }

    fn offsets(&self) -> Vec<(String, String, i32)> {
        vec![(self.group(), self.topic.to_owned(), 0)]
    }

    fn committed(&mut self, ctx: &mut Ctx<'_>, group: &str, offset: i64, settled: bool) {
        assert!(offset >= self.seen_offset, "{group}: {offset} is committed, and was {}", self.seen_offset);
        self.seen_offset = offset;
        if let Ok(transaction) = u32::try_from(offset) {
            let fate = ctx.ledger.fate(transaction);
            let may_be = matches!(*fate, Fate::Committed | Fate::Unknown(true));
            assert!(may_be, "{group}: the offset of transaction {offset} is committed, which is {fate:?}");
            *fate = Fate::Committed;
        }
        // Markers follow the decision; but the next transaction waits for them, so only the last may lag.
        let committed = |transaction: &&u32| *ctx.ledger.fate(**transaction) == Fate::Committed;
        let decided: Vec<u32> = self.with_offset.iter().filter(committed).copied().collect();
        let settled = settled || self.transaction.is_some_and(|current| self.with_offset.contains(&current));
        let last = if settled { decided.last() } else { decided.iter().rev().nth(1) };
        assert!(
            last.is_none_or(|last| i64::from(*last) <= offset),
            "{group}: {offset} is committed, {last:?} is decided"
        );
    }
}
