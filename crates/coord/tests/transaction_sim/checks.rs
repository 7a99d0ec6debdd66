//! What must hold, from what the log says and what clients were told: a naive model beside the shard.

use std::collections::{BTreeMap, BTreeSet};

use taccola_coord::CoordinatorRecord;
use taccola_coord::transaction::Markers;
use taccola_wire::codec::{Message, Reader};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTransaction;
use taccola_wire::messages::{EndTxnRequest, TransactionLogKey, TransactionLogValue};

use super::partitions::Partition;
use super::{Outcomes, Producer};

const EMPTY: i8 = 0;
const ONGOING: i8 = 1;
const PREPARE_COMMIT: i8 = 2;
const PREPARE_ABORT: i8 = 3;
const COMPLETE_COMMIT: i8 = 4;
const COMPLETE_ABORT: i8 = 5;

pub(crate) type State = TransactionLogValue;

#[derive(Default)]
pub(crate) struct Checks {
    /// Who was given a producer, by transactional id.
    owners: BTreeMap<(&'static str, Producer), usize>,
    newest: BTreeMap<&'static str, Producer>,
    /// How far the log is checked, and each id's last state there.
    checked: usize,
    last: BTreeMap<String, State>,
    /// Transactions with a record, and those whose outcome a client was told.
    written: BTreeSet<u64>,
    decided: BTreeMap<u64, bool>,
    marked: BTreeMap<Producer, bool>,
}

pub(crate) fn empty_state(id: &str, (producer_id, producer_epoch): Producer, now_ms: i64) -> CoordinatorRecord {
    let key = TransactionLogKey { transactional_id: id.to_owned() };
    let value = TransactionLogValue {
        producer_id,
        producer_epoch,
        transaction_timeout_ms: 15_000,
        transaction_last_update_timestamp_ms: now_ms,
        transaction_start_timestamp_ms: -1,
        ..Default::default()
    };
    CoordinatorRecord {
        key: [&[0, 0], &key.to_bytes(0).unwrap()[..]].concat().into(),
        value: Some([&[0, 1], &value.to_bytes(1).unwrap()[..]].concat().into()),
    }
}

fn read(record: &CoordinatorRecord) -> (String, State) {
    let key = TransactionLogKey::read(&mut Reader::new(record.key.slice(2..)), 0).unwrap();
    let value = record.value.as_ref().expect("nothing expires in so short a time");
    let version = i16::from_be_bytes(*value.first_chunk().unwrap());
    (key.transactional_id, TransactionLogValue::read(&mut Reader::new(value.slice(2..)), version).unwrap())
}

fn is_complete(state: &State) -> bool {
    [COMPLETE_COMMIT, COMPLETE_ABORT].contains(&state.transaction_status)
}

/// The state in force: the last one committed, or an end that is in the log.
pub(crate) fn last_state<'a>(
    log: &[CoordinatorRecord],
    held: impl Iterator<Item = &'a CoordinatorRecord>,
    id: &str,
) -> Option<State> {
    let committed = log.iter().rev().map(read).find(|(of, _)| of == id).map(|(_, state)| state);
    let ended = held.map(read).filter(|(of, state)| of == id && is_complete(state)).last();
    ended.map(|(_, state)| state).or(committed)
}

/// A change is on its way to the disk, other than an end.
pub(crate) fn is_being_changed<'a>(held: impl Iterator<Item = &'a CoordinatorRecord>, id: &str) -> bool {
    held.map(read).any(|(of, state)| of == id && !is_complete(&state))
}

impl Checks {
    pub(crate) fn newest(&self, id: &'static str) -> Producer {
        self.newest.get(id).copied().unwrap_or((-1, -1))
    }

    /// A client was told that it is this producer.
    pub(crate) fn given(&mut self, id: &'static str, client: usize, producer: Producer) {
        assert!(producer.1 < i16::MAX, "the last epoch is for fencing alone");
        let owner = *self.owners.entry((id, producer)).or_insert(client);
        assert_eq!(owner, client, "{id}: two clients are {producer:?}");
        let newest = self.newest.entry(id).or_insert(producer);
        *newest = producer.max(*newest);
    }

    pub(crate) fn written(&mut self, transaction: u64) {
        assert!(!self.decided.contains_key(&transaction), "written to after its end");
        self.written.insert(transaction);
    }

    pub(crate) fn decided(&mut self, transaction: u64, commit: bool) {
        assert_eq!(*self.decided.entry(transaction).or_insert(commit), commit);
    }

    pub(crate) fn markers_asked_for(&mut self, markers: &Markers, log: &[CoordinatorRecord]) {
        let state = last_state(log, std::iter::empty(), &markers.transactional_id).expect("no record of it");
        let prepared = if markers.commit { PREPARE_COMMIT } else { PREPARE_ABORT };
        assert_eq!(state.transaction_status, prepared, "the outcome is not committed");
        assert_eq!((state.producer_id, state.producer_epoch), (markers.producer_id, markers.producer_epoch));
        if markers.transaction_version >= 2 {
            let producer = (markers.producer_id, markers.producer_epoch);
            assert_eq!(*self.marked.entry(producer).or_insert(markers.commit), markers.commit, "{markers:?}");
        }
    }

    pub(crate) fn log_is_in_order(&mut self, log: &[CoordinatorRecord]) {
        for record in &log[self.checked..] {
            let (id, next) = read(record);
            if let Some(last) = self.last.get(&id) {
                assert!(may_follow(last.transaction_status, next.transaction_status), "{last:?}\n{next:?}");
                let (before, after) =
                    ((last.producer_id, last.producer_epoch), (next.producer_id, next.producer_epoch));
                assert!(after >= before, "{before:?} then {after:?}");
                if last.producer_id != next.producer_id {
                    assert_eq!(next.producer_epoch, 0);
                }
            }
            self.last.insert(id, next);
        }
        self.checked = log.len();
    }

    /// What an AddPartitionsToTxn is answered when it writes nothing.
    pub(crate) fn expect_add(
        &self,
        state: Option<State>,
        request: &AddPartitionsToTxnTransaction,
        in_transition: bool,
    ) -> Option<ErrorCode> {
        if in_transition {
            return Some(ErrorCode::ConcurrentTransactions);
        }
        let Some(state) = state else { return Some(ErrorCode::InvalidProducerIdMapping) };
        if [PREPARE_COMMIT, PREPARE_ABORT].contains(&state.transaction_status) {
            return Some(ErrorCode::ConcurrentTransactions);
        }
        if state.producer_id != request.producer_id {
            return Some(ErrorCode::InvalidProducerIdMapping);
        }
        if state.producer_epoch != request.producer_epoch {
            return Some(ErrorCode::ProducerFenced);
        }
        let partition = request.topics[0].partitions[0];
        let partitions = state.transaction_partitions.iter().flatten().flat_map(|t| &t.partition_ids);
        let is_in = partitions.into_iter().any(|p| *p == partition);
        (state.transaction_status == ONGOING && is_in).then_some(ErrorCode::None)
    }

    /// What an EndTxn is answered when it writes nothing: the table of KIP-890.
    pub(crate) fn expect_end(
        &self,
        state: Option<State>,
        request: &EndTxnRequest,
        v2: bool,
        in_transition: bool,
    ) -> Option<ErrorCode> {
        let prepared = |s: &State| [PREPARE_COMMIT, PREPARE_ABORT].contains(&s.transaction_status);
        let busy = in_transition || state.as_ref().is_some_and(prepared);
        if busy && v2 {
            return Some(ErrorCode::ConcurrentTransactions);
        }
        let Some(state) = state else { return Some(ErrorCode::InvalidProducerIdMapping) };
        let overflow = v2
            && state.previous_producer_id == request.producer_id
            && request.producer_epoch == i16::MAX - 1
            && state.producer_epoch == 0;
        if state.producer_id != request.producer_id && !overflow {
            return Some(ErrorCode::InvalidProducerIdMapping);
        }
        let status = state.transaction_status;
        let behind = i32::from(state.producer_epoch) - i32::from(request.producer_epoch);
        let retry = v2 && (behind == 1 && state.client_transaction_version >= 2 || overflow);
        let over = [COMPLETE_COMMIT, COMPLETE_ABORT].contains(&status);
        let retired = state.producer_epoch == i16::MAX && !busy && status != ONGOING;
        if retired || !(behind == 0 || (over && retry)) {
            return Some(ErrorCode::ProducerFenced);
        }
        if busy {
            return Some(ErrorCode::ConcurrentTransactions);
        }
        match (status, request.committed) {
            (ONGOING, _) => None,
            (COMPLETE_COMMIT, true) | (COMPLETE_ABORT, false) if retry || !v2 => Some(ErrorCode::None),
            (EMPTY | COMPLETE_COMMIT | COMPLETE_ABORT, false) if v2 && !retry => None,
            _ => Some(ErrorCode::InvalidTxnState),
        }
    }

    /// When all is quiet.
    pub(crate) fn outcomes(&self, partitions: &[Partition]) {
        let mut outcomes = Outcomes::new();
        partitions.iter().for_each(|partition| partition.collect(&mut outcomes));
        for (transaction, outcomes) in outcomes {
            assert_eq!(outcomes.len(), 1, "transaction {transaction} is torn: {outcomes:?}");
            let outcome = outcomes.into_iter().next().flatten();
            let outcome = outcome.unwrap_or_else(|| panic!("transaction {transaction} never ends"));
            if let Some(told) = self.decided.get(&transaction) {
                assert_eq!(outcome, *told, "transaction {transaction}");
            }
        }
    }
}

fn may_follow(last: i8, next: i8) -> bool {
    match next {
        EMPTY => [EMPTY, COMPLETE_COMMIT, COMPLETE_ABORT].contains(&last),
        ONGOING => [EMPTY, ONGOING, COMPLETE_COMMIT, COMPLETE_ABORT].contains(&last),
        PREPARE_COMMIT => last == ONGOING,
        PREPARE_ABORT => [EMPTY, ONGOING, COMPLETE_COMMIT, COMPLETE_ABORT].contains(&last),
        COMPLETE_COMMIT => last == PREPARE_COMMIT,
        COMPLETE_ABORT => last == PREPARE_ABORT,
        _ => false,
    }
}
