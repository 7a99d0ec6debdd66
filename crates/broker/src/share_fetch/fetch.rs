//! The long poll over share-partitions: whose turn it is to read, the read outside all locks, the acquisition, and the
//! wait when there is nothing. Answers to Kafka's `DelayedShareFetch` and `ShareFetchUtils`.
//!
//! A fetch that finds nothing waits on two things at once: more bytes in the logs of its partitions, and a change of
//! their share-partitions (records given back, room made, another's turn ended).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taccola_base::limits;
use taccola_coord::share_partition::{AcquireMode, AcquireRequest, AcquiredRange, FetchedBatch};
use taccola_log::{AbortedTxn, ReadError};
use taccola_wire::batch::batches;
use taccola_wire::error::ErrorCode;
use tokio::time::Instant;

use super::leader::{ShareLeader, Turn};
use super::{ShareGroupSettings, ShareMember, SharePartitionId, find};
use crate::broker::Broker;
use crate::error_map;
use crate::fetch::waiter::FetchWaiter;
use crate::partition::{Partition, PartitionRead, ReadRejected};
use crate::tier::{self, RemoteReadError};

/// How often a fetch reads again at once because what it read gave nothing but is done with: batches of aborted
/// transactions, or what was compacted away.
const ROUNDS_AT_ONCE_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct ShareFetchParams {
    pub max_wait: Duration,
    pub min_bytes: i64,
    pub max_bytes: usize,
    pub max_records: i32,
    pub batch_size: i32,
    pub mode: AcquireMode,
}

/// One partition's answer.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub id: SharePartitionId,
    pub error: ErrorCode,
    pub records: Bytes,
    pub acquired: Vec<AcquiredRange>,
}

impl Fetched {
    fn error(id: SharePartitionId, error: ErrorCode) -> Self {
        Self { id, error, records: Bytes::new(), acquired: Vec::new() }
    }
}

/// Which look of a fetch it is.
#[derive(Clone, Copy)]
struct Moment {
    comes_now: bool,
    last: bool,
}

/// One look at all partitions.
struct Round {
    answers: Vec<Fetched>,
    /// Partitions that could not be loaded, or are led by another broker now: told, but not at once.
    unreadable: Vec<Fetched>,
    /// What to wait for when there is no answer.
    waits: Vec<Wait>,
    bytes: i64,
    /// Something was read that gives no records and need not be read again.
    progress: bool,
}

struct Wait {
    leader: Arc<ShareLeader>,
    version: u64,
    /// The end of what was visible when it was read; `None`: the log does not matter.
    upper_bound: Option<i64>,
}

/// A turn to read.
struct Reading {
    id: SharePartitionId,
    leader: Arc<ShareLeader>,
    fetch_offset: i64,
    read: Option<Result<PartitionRead, ReadRejected>>,
}

/// Fetches for a member from the partitions of its session, in their order. Partitions without records, and without an
/// error, are not in the answer. One that cannot be loaded is told when the time is up or others have something: whoever
/// asks for it again at once would have it loaded again at once.
pub async fn fetch(
    broker: &Arc<Broker>,
    member: &ShareMember,
    partitions: &[SharePartitionId],
    params: &ShareFetchParams,
) -> Vec<Fetched> {
    let deadline = Instant::now() + params.max_wait;
    let mut rounds_at_once = 0;
    let mut comes_now = true;
    let mut readable = partitions.to_vec();
    let mut unreadable: Vec<Fetched> = Vec::new();
    loop {
        let last = Instant::now() >= deadline;
        let settings = ShareGroupSettings::of(broker, &member.group);
        let when = Moment { comes_now, last };
        let mut round = look(broker, member, &readable, params, &settings, when);
        comes_now = false;
        if !round.unreadable.is_empty() {
            readable.retain(|id| round.unreadable.iter().all(|row| row.id != *id));
            unreadable.append(&mut round.unreadable);
        }
        if !round.answers.is_empty() || partitions.is_empty() {
            unreadable.append(&mut round.answers);
            return unreadable;
        }
        if round.progress && rounds_at_once < ROUNDS_AT_ONCE_MAX {
            rounds_at_once += 1;
            continue;
        }
        if last {
            return unreadable;
        }
        rounds_at_once = 0;
        if !wait(broker, &round, params, &settings, deadline).await {
            return unreadable;
        }
    }
}

/// Waits for a change. False when the broker stops.
async fn wait(
    broker: &Broker,
    round: &Round,
    params: &ShareFetchParams,
    settings: &ShareGroupSettings,
    deadline: Instant,
) -> bool {
    let waiter = FetchWaiter::new((params.min_bytes - round.bytes).max(1));
    for wait in &round.waits {
        wait.leader.register(&waiter, wait.version);
        if let Some(upper_bound) = wait.upper_bound {
            wait.leader.partition.register_waiter(&waiter, settings.isolation, upper_bound);
        }
    }
    let stopping = tokio::select! {
        _ = tokio::time::timeout_at(deadline, waiter.woken()) => false,
        () = broker.stopping() => true,
    };
    waiter.finish();
    !stopping
}

fn look(
    broker: &Arc<Broker>,
    member: &ShareMember,
    partitions: &[SharePartitionId],
    params: &ShareFetchParams,
    settings: &ShareGroupSettings,
    when: Moment,
) -> Round {
    let mut round = Round { answers: Vec::new(), unreadable: Vec::new(), waits: Vec::new(), bytes: 0, progress: false };
    let mut turns = Vec::new();
    for id in partitions {
        take_turn(broker, member, *id, settings, when.comes_now, &mut round, &mut turns);
    }
    // Turns are ended one by one below, whatever comes: nothing here waits, and a read that fails is an answer.
    let room = broker.replies.reserve(params.max_bytes, limits::FETCH_BYTES_ALWAYS);
    let max_bytes = room.bytes().checked_div(turns.len()).unwrap_or(0);
    for turn in &mut turns {
        let read = turn.leader.partition.read(turn.fetch_offset, max_bytes, true, settings.isolation);
        let read = match read {
            Err(ReadRejected::Log(ReadError::InRemoteStorage { .. })) => {
                read_remote(broker, &turn.leader.partition, turn.fetch_offset, max_bytes, settings)
            }
            read => Some(read),
        };
        let records = read.as_ref().and_then(|read| read.as_ref().ok()).map_or(0, |read| read.records.len());
        round.bytes += i64::try_from(records).unwrap_or(i64::MAX);
        turn.read = read;
    }
    let enough = when.last || round.bytes >= params.min_bytes.max(1) || !round.answers.is_empty();
    let mut left = if enough { i64::from(params.max_records) } else { 0 };
    for turn in turns {
        acquire(member, params, turn, &mut left, &mut round);
    }
    round
}

fn take_turn(
    broker: &Arc<Broker>,
    member: &ShareMember,
    id: SharePartitionId,
    settings: &ShareGroupSettings,
    comes_now: bool,
    round: &mut Round,
    turns: &mut Vec<Reading>,
) {
    let partition = match find(broker, id) {
        Ok(partition) => partition,
        Err(error) => return round.answers.push(Fetched::error(id, error)),
    };
    let leader = broker.share_fetch.leader(broker, &member.group, &partition, comes_now);
    let (turn, version) = leader.begin_fetch(settings);
    match turn {
        Turn::Mine { fetch_offset } => turns.push(Reading { id, leader, fetch_offset, read: None }),
        Turn::Wait => round.waits.push(Wait { leader, version, upper_bound: None }),
        Turn::Retired => {
            broker.share_fetch.forget(&leader);
            round.progress = true;
        }
        Turn::Ended(error) => {
            broker.share_fetch.forget(&leader);
            round.unreadable.push(Fetched::error(id, error));
        }
    }
}

/// A read of what is in remote storage only; `None` when it does not come in time: a later look finds it kept. A turn must end before
/// anything else happens to its request, so this waits here, and the worker's other tasks go on elsewhere.
fn read_remote(
    broker: &Broker,
    partition: &Arc<Partition>,
    offset: i64,
    max_bytes: usize,
    settings: &ShareGroupSettings,
) -> Option<Result<PartitionRead, ReadRejected>> {
    let storage = broker.remote.as_ref()?;
    let runtime = tokio::runtime::Handle::current();
    let read = tier::read_partition(storage, partition, offset, max_bytes, true, settings.isolation);
    let max_wait = broker.dynamic_config().remote.fetch_max_wait;
    let read = async { tokio::time::timeout(max_wait, read).await };
    match tokio::task::block_in_place(|| runtime.block_on(read)).ok()? {
        Ok(read) => Some(Ok(read)),
        Err(RemoteReadError::Rejected(error)) => Some(Err(error)),
        Err(error) => {
            tracing::warn!(partition = %partition.topic_partition, %error, "a read from remote storage");
            None
        }
    }
}

/// Ends a turn that takes nothing.
fn end_without(leader: Arc<ShareLeader>, upper_bound: Option<i64>, round: &mut Round) {
    let (_, version) = leader.end_fetch(|_, _| ());
    round.waits.push(Wait { leader, version, upper_bound });
}

/// Ends a turn with what of the read the member gets.
fn acquire(member: &ShareMember, params: &ShareFetchParams, turn: Reading, left: &mut i64, round: &mut Round) {
    let Reading { id, leader, fetch_offset, read } = turn;
    let read = match read {
        Some(Ok(read)) => read,
        Some(Err(error)) => return failed(id, leader, &error, round),
        None => return end_without(leader, None, round),
    };
    let upper_bound = Some(read.upper_bound);
    let (fetched, aborted) = boundaries(&read.records, &read.aborted_txns);
    if fetched.is_empty() || *left <= 0 {
        return end_without(leader, upper_bound, round);
    }
    let request = AcquireRequest {
        member: member.member.clone(),
        mode: params.mode,
        batch_size: params.batch_size,
        max_records: i32::try_from(*left).unwrap_or(i32::MAX),
        fetch_offset,
    };
    let (taken, version) = leader.end_fetch(|now_ms, partition| {
        let acquired = partition.acquire(now_ms, &request, &fetched);
        let acquired = partition.archive_aborted(acquired, &aborted);
        (acquired, partition.next_fetch_offset())
    });
    let Some((acquired, next_fetch_offset)) = taken else {
        // It ended meanwhile: the next look tells.
        round.progress = true;
        return;
    };
    let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else {
        round.progress |= next_fetch_offset != fetch_offset;
        return round.waits.push(Wait { leader, version, upper_bound });
    };
    *left -= acquired.iter().map(AcquiredRange::records).sum::<i64>();
    let records = cut(&read.records, first.first_offset, last.last_offset);
    round.answers.push(Fetched { id, error: ErrorCode::None, records, acquired });
}

/// Ends a turn whose read failed: the log begins later than the share-partition, or the client is told.
fn failed(id: SharePartitionId, leader: Arc<ShareLeader>, error: &ReadRejected, round: &mut Round) {
    if let ReadRejected::Log(ReadError::OffsetOutOfRange { .. }) = error {
        let log_start_offset = leader.partition.offsets().map_or(0, |(_, _, log_start)| log_start);
        let (moved, version) = leader.end_fetch(|_, partition| partition.log_start_moved(log_start_offset));
        round.progress |= moved != Some(false);
        return round.waits.push(Wait { leader, version, upper_bound: None });
    }
    leader.end_fetch(|_, _| ());
    round.answers.push(Fetched::error(id, error_map::read(error)));
}

/// The batches that were read, and those of them whose transactions were aborted.
fn boundaries(records: &[u8], aborted_txns: &[AbortedTxn]) -> (Vec<FetchedBatch>, Vec<FetchedBatch>) {
    let (mut fetched, mut aborted) = (Vec::new(), Vec::new());
    let producers: HashSet<i64> = aborted_txns.iter().map(|txn| txn.producer_id).collect();
    for batch in batches(records).map_while(Result::ok) {
        let header = batch.header;
        let bounds = FetchedBatch { base_offset: header.base_offset, last_offset: header.last_offset() };
        fetched.push(bounds);
        let of_txn = |txn: &AbortedTxn| {
            txn.producer_id == header.producer_id
                && txn.first_offset <= header.base_offset
                && header.base_offset <= txn.last_offset
        };
        let transactional = header.is_transactional() && !header.is_control();
        if transactional && producers.contains(&header.producer_id) && aborted_txns.iter().any(of_txn) {
            aborted.push(bounds);
        }
    }
    (fetched, aborted)
}

/// The batches that have offsets from `first` to `last`.
fn cut(records: &Bytes, first: i64, last: i64) -> Bytes {
    let (mut begin, mut end) = (None, 0);
    for batch in batches(records).map_while(Result::ok) {
        if batch.header.last_offset() < first {
            continue;
        }
        if batch.header.base_offset > last {
            break;
        }
        begin.get_or_insert(batch.position);
        end = batch.position + batch.bytes.len();
    }
    begin.map_or_else(Bytes::new, |begin| records.slice(begin..end))
}
