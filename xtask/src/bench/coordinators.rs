//! Load for the coordinators: groups that form and change, offset commits at a steady rate, transactions back to back.
//! The same raw protocol as in [`super::load`], by versions that both brokers know.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use taccola_wire::batch::{BatchBuilder, Compression, set_producer};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions as OwnedPartitions,
};
use taccola_wire::messages::end_txn_request::EndTxnRequest;
use taccola_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use taccola_wire::messages::heartbeat_request::HeartbeatRequest;
use taccola_wire::messages::init_producer_id_request::InitProducerIdRequest;
use taccola_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use taccola_wire::messages::join_group_response::JoinGroupResponse;
use taccola_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use taccola_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use taccola_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use taccola_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use tokio::sync::Barrier;
use tokio::task::LocalSet;

use super::load::{Connection, Cpu, Measured, TOPIC, measured, noise};

/// Between two heartbeats of a member that has nothing to tell.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);
/// A group that is not stable by then never will be.
const STABLE_WITHIN: Duration = Duration::from_secs(60);
const RETRY_EVERY: Duration = Duration::from_millis(1);

/// `members` join a group, one leaves, then all; `rounds` times.
#[derive(Clone)]
pub(crate) struct Rebalance {
    pub(crate) members: usize,
    pub(crate) partitions: i32,
    pub(crate) rounds: u64,
    /// KIP-848's protocol instead of the classic one.
    pub(crate) consumer_protocol: bool,
}

/// Each group commits `partitions` offsets `per_second` times a second.
#[derive(Clone)]
pub(crate) struct Commits {
    pub(crate) groups: usize,
    pub(crate) per_second: u32,
    pub(crate) partitions: i32,
    pub(crate) seconds: u64,
}

/// Transactions of one batch, one after another on each producer, by the protocol of `transaction.version` 2.
#[derive(Clone)]
pub(crate) struct Transactions {
    pub(crate) producers: i32,
    pub(crate) records: usize,
    pub(crate) seconds: u64,
}

fn is_passing(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions
    )
}

/// Waits until the coordinator of a key is there; its topic is made by the first who asks.
async fn coordinator(connection: &mut Connection, key: &str, key_type: i8) -> Result<(), String> {
    let request = FindCoordinatorRequest { key_type, coordinator_keys: vec![key.to_owned()], ..Default::default() };
    let until = Instant::now() + STABLE_WITHIN;
    loop {
        let response = connection.call(4, &request).await?;
        match response.coordinators.first().map_or(-1, |c| c.error_code) {
            0 => return Ok(()),
            code if Instant::now() > until => return Err(format!("FindCoordinator: error {code}")),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn together<T: 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = Result<T, String>> + 'static>,
) -> Result<Vec<T>, String> {
    let local = LocalSet::new();
    let tasks: Vec<_> = tasks.into_iter().map(|task| local.spawn_local(task)).collect();
    local.await;
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.map_err(|error| error.to_string())??);
    }
    Ok(results)
}

// -- rebalances ------------------------------------------------------------------------------------------------------

/// A round's requests are its rebalances: the time of each, from its first request until all members have what is theirs.
pub(crate) async fn rebalance(address: &str, shape: &Rebalance, cpu: Cpu<'_>) -> Result<Measured, String> {
    let mut first = Connection::open(address).await?;
    coordinator(&mut first, "warm", 0).await?;
    let topic_id = first.topic_id().await?;
    let (before, started) = (cpu(), Instant::now());
    let mut times = Vec::new();
    for round in 0..shape.rounds {
        let group: Rc<str> = format!("bench-{round}-{}", started.elapsed().as_nanos()).into();
        coordinator(&mut first, &group, 0).await?;
        let barrier = Rc::new(Barrier::new(shape.members));
        let mut members = Vec::new();
        for index in 0..shape.members {
            let member = Member {
                connection: Connection::open(address).await?,
                group: group.clone(),
                index,
                shape: shape.clone(),
                barrier: barrier.clone(),
                topic_id,
            };
            members.push(member.run());
        }
        let spent = together(members).await?;
        // All pass the barriers at the same moments: the last one there tells the time.
        for which in 0..2 {
            let slowest = spent.iter().filter_map(|times| times.get(which)).max();
            times.extend(slowest.map(|time| time.as_micros() as u32));
        }
    }
    Ok(measured(times.len() as u64, 0, started, before, cpu, times))
}

struct Member {
    connection: Connection,
    group: Rc<str>,
    index: usize,
    shape: Rebalance,
    barrier: Rc<Barrier>,
    topic_id: taccola_base::Uuid,
}

impl Member {
    /// How long joining took, and how long the change after the first member's leave.
    async fn run(mut self) -> Result<Vec<Duration>, String> {
        self.barrier.wait().await;
        match self.shape.consumer_protocol {
            true => self.run_consumer().await,
            false => self.run_classic().await,
        }
    }

    async fn run_classic(&mut self) -> Result<Vec<Duration>, String> {
        let started = Instant::now();
        let mut member_id = String::new();
        let mut joined = self.classic_join(&mut member_id, self.shape.members).await?;
        let first = started.elapsed();
        self.barrier.wait().await;
        let started = Instant::now();
        let mut times = vec![first];
        if self.index == 0 {
            self.classic_leave(&member_id).await?;
        } else {
            while self.heartbeat(&joined).await? == 0 {
                tokio::time::sleep(HEARTBEAT_EVERY).await;
            }
            joined = self.classic_join(&mut member_id, self.shape.members - 1).await?;
            times.push(started.elapsed());
        }
        self.barrier.wait().await;
        if self.index > 0 {
            self.classic_leave(&joined.member_id).await?;
        }
        Ok(times)
    }

    /// Joins until a generation has all members, and has its assignment.
    async fn classic_join(&mut self, member_id: &mut String, members: usize) -> Result<JoinGroupResponse, String> {
        loop {
            let protocol =
                JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(SUBSCRIPTION) };
            let request = JoinGroupRequest {
                group_id: self.group.to_string(),
                session_timeout_ms: 45_000,
                rebalance_timeout_ms: 60_000,
                member_id: member_id.clone(),
                protocol_type: "consumer".into(),
                protocols: vec![protocol],
                ..Default::default()
            };
            let joined = self.connection.call(9, &request).await?;
            match ErrorCode::from_code(joined.error_code) {
                ErrorCode::None => {}
                ErrorCode::MemberIdRequired => {
                    member_id.clone_from(&joined.member_id);
                    continue;
                }
                ErrorCode::RebalanceInProgress => continue,
                _ if is_passing(joined.error_code) => {
                    tokio::time::sleep(RETRY_EVERY).await;
                    continue;
                }
                error => return Err(format!("JoinGroup: {error:?}")),
            }
            member_id.clone_from(&joined.member_id);
            if !self.classic_sync(&joined).await? {
                continue;
            }
            if joined.leader == *member_id && joined.members.len() == members {
                // The others hear of it by the next heartbeat; all is told by the assignment.
                return Ok(joined);
            }
            if joined.leader != *member_id && self.is_complete(&joined).await? {
                return Ok(joined);
            }
        }
    }

    /// Whether the generation stays: waits for the next one otherwise.
    async fn is_complete(&mut self, joined: &JoinGroupResponse) -> Result<bool, String> {
        // An assignment names how many members there are: see `classic_sync`.
        for _ in 0..3 {
            if self.heartbeat(joined).await? != 0 {
                return Ok(false);
            }
            tokio::time::sleep(HEARTBEAT_EVERY / 10).await;
        }
        Ok(true)
    }

    async fn classic_sync(&mut self, joined: &JoinGroupResponse) -> Result<bool, String> {
        let mut assignments = Vec::new();
        if joined.leader == joined.member_id {
            let count = joined.members.len().max(1) as i32;
            for (at, member) in joined.members.iter().enumerate() {
                let mut bytes = Vec::from([0, 0, 0, 0, 0, 1, 0, 5]);
                bytes.extend_from_slice(TOPIC.as_bytes());
                let own: Vec<i32> = (0..self.shape.partitions).filter(|p| p % count == at as i32).collect();
                bytes.extend_from_slice(&(own.len() as i32).to_be_bytes());
                own.iter().for_each(|p| bytes.extend_from_slice(&p.to_be_bytes()));
                bytes.extend_from_slice(&(-1_i32).to_be_bytes());
                let assignment = Bytes::from(bytes);
                assignments.push(SyncGroupRequestAssignment { member_id: member.member_id.clone(), assignment });
            }
        }
        let request = SyncGroupRequest {
            group_id: self.group.to_string(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments,
            ..Default::default()
        };
        let synced = self.connection.call(5, &request).await?;
        match ErrorCode::from_code(synced.error_code) {
            ErrorCode::None => Ok(true),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(false),
            error => Err(format!("SyncGroup: {error:?}")),
        }
    }

    async fn heartbeat(&mut self, joined: &JoinGroupResponse) -> Result<i16, String> {
        let request = HeartbeatRequest {
            group_id: self.group.to_string(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        Ok(self.connection.call(4, &request).await?.error_code)
    }

    async fn classic_leave(&mut self, member_id: &str) -> Result<(), String> {
        let member = MemberIdentity { member_id: member_id.to_owned(), ..Default::default() };
        let request =
            LeaveGroupRequest { group_id: self.group.to_string(), members: vec![member], ..Default::default() };
        self.connection.call(5, &request).await.map(drop)
    }

    async fn run_consumer(&mut self) -> Result<Vec<Duration>, String> {
        let mut state = Consumer { member_id: format!("{:022}", self.index), epoch: 0, owned: Vec::new() };
        let started = Instant::now();
        self.consumer_settle(&mut state, self.shape.members).await?;
        let mut times = vec![started.elapsed()];
        self.barrier.wait().await;
        let started = Instant::now();
        if self.index == 0 {
            self.consumer_leave(&state).await?;
        } else {
            self.consumer_settle(&mut state, self.shape.members - 1).await?;
            times.push(started.elapsed());
        }
        self.barrier.wait().await;
        if self.index > 0 {
            self.consumer_leave(&state).await?;
        }
        Ok(times)
    }

    /// Heartbeats until the member owns its share among `members`, and goes on until the epoch rests.
    async fn consumer_settle(&mut self, state: &mut Consumer, members: usize) -> Result<(), String> {
        let share = self.shape.partitions as usize / members;
        let until = Instant::now() + STABLE_WITHIN;
        let mut told = state.epoch > 0;
        loop {
            let epoch = state.epoch;
            let joining = epoch == 0;
            let request = ConsumerGroupHeartbeatRequest {
                group_id: self.group.to_string(),
                member_id: state.member_id.clone(),
                member_epoch: epoch,
                rebalance_timeout_ms: if joining { 60_000 } else { -1 },
                subscribed_topic_names: joining.then(|| vec![TOPIC.to_owned()]),
                topic_partitions: (joining || !told).then(|| {
                    let own = OwnedPartitions { topic_id: self.topic_id, partitions: state.owned.clone() };
                    if state.owned.is_empty() { Vec::new() } else { vec![own] }
                }),
                ..Default::default()
            };
            let response = self.connection.call(1, &request).await?;
            match response.error_code {
                0 => {}
                code if is_passing(code) => {
                    tokio::time::sleep(RETRY_EVERY).await;
                    continue;
                }
                code => return Err(format!("ConsumerGroupHeartbeat: error {code}")),
            }
            told = true;
            state.epoch = response.member_epoch;
            if let Some(assignment) = response.assignment {
                let assigned: Vec<i32> =
                    assignment.topic_partitions.into_iter().flat_map(|topic| topic.partitions).collect();
                let same = assigned.iter().collect::<HashSet<_>>() == state.owned.iter().collect::<HashSet<_>>();
                told = same;
                state.owned = assigned;
            }
            let settled = (share..=share + 1).contains(&state.owned.len());
            if told && settled && state.epoch >= self.final_epoch(members) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the group does not settle: {} of {share} at {}", state.owned.len(), state.epoch));
            }
            if told {
                tokio::time::sleep(HEARTBEAT_EVERY).await;
            }
        }
    }

    /// The epoch rises once per join and per leave.
    fn final_epoch(&self, members: usize) -> i32 {
        let changes = if members == self.shape.members { members } else { self.shape.members + 1 };
        changes as i32
    }

    async fn consumer_leave(&mut self, state: &Consumer) -> Result<(), String> {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.to_string(),
            member_id: state.member_id.clone(),
            member_epoch: -1,
            ..Default::default()
        };
        self.connection.call(1, &request).await.map(drop)
    }
}

struct Consumer {
    member_id: String,
    epoch: i32,
    owned: Vec<i32>,
}

/// A consumer's subscription to the topic, version 0.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x05bench\xff\xff\xff\xff";

// -- commits ---------------------------------------------------------------------------------------------------------

pub(crate) async fn commits(address: &str, shape: &Commits, cpu: Cpu<'_>) -> Result<Measured, String> {
    let mut groups = Vec::new();
    for index in 0..shape.groups {
        let group = format!("commits-{index}");
        let mut connection = Connection::open(address).await?;
        coordinator(&mut connection, &group, 0).await?;
        groups.push((connection, group));
    }
    let period = Duration::from_secs(1) / shape.per_second;
    let (before, started) = (cpu(), Instant::now());
    let until = started + Duration::from_secs(shape.seconds);
    let partitions = shape.partitions;
    let tasks = groups.into_iter().enumerate().map(|(index, (mut connection, group))| async move {
        // Spread over the period, as clients are.
        tokio::time::sleep(period * index as u32 / 100).await;
        let mut every = tokio::time::interval(period);
        let mut latencies = Vec::new();
        while Instant::now() < until {
            every.tick().await;
            let offset = latencies.len() as i64;
            let at = Instant::now();
            commit(&mut connection, &group, partitions, offset).await?;
            latencies.push(at.elapsed().as_micros() as u32);
        }
        Ok(latencies)
    });
    let latencies: Vec<u32> = together(tasks).await?.into_iter().flatten().collect();
    Ok(measured(latencies.len() as u64, 0, started, before, cpu, latencies))
}

async fn commit(connection: &mut Connection, group: &str, partitions: i32, offset: i64) -> Result<(), String> {
    let row = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: Some(String::new()),
    };
    let topic = OffsetCommitRequestTopic {
        name: TOPIC.into(),
        partitions: (0..partitions).map(row).collect(),
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    loop {
        let response = connection.call(8, &request).await?;
        let code = response.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).find(|code| *code != 0);
        match code {
            None => return Ok(()),
            Some(code) if is_passing(code) => tokio::time::sleep(RETRY_EVERY).await,
            Some(code) => return Err(format!("OffsetCommit: error {code}")),
        }
    }
}

// -- transactions ----------------------------------------------------------------------------------------------------

/// A request of the result is a whole transaction.
pub(crate) async fn transactions(address: &str, shape: &Transactions, cpu: Cpu<'_>) -> Result<Measured, String> {
    let mut producers = Vec::new();
    for index in 0..shape.producers {
        let id = format!("bench-{index}");
        let mut connection = Connection::open(address).await?;
        coordinator(&mut connection, &id, 1).await?;
        producers.push(Transactional::begin(connection, id, index, shape.records).await?);
    }
    let (before, started) = (cpu(), Instant::now());
    let until = started + Duration::from_secs(shape.seconds);
    let tasks = producers.into_iter().map(|mut producer| async move {
        let mut latencies = Vec::new();
        while Instant::now() < until {
            let at = Instant::now();
            producer.transaction().await?;
            latencies.push(at.elapsed().as_micros() as u32);
        }
        Ok(latencies)
    });
    let latencies: Vec<u32> = together(tasks).await?.into_iter().flatten().collect();
    Ok(measured(latencies.len() as u64, 0, started, before, cpu, latencies))
}

struct Transactional {
    connection: Connection,
    id: String,
    partition: i32,
    producer_id: i64,
    epoch: i16,
    batch: BytesMut,
}

impl Transactional {
    async fn begin(mut connection: Connection, id: String, partition: i32, records: usize) -> Result<Self, String> {
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let given = loop {
            let response = connection.call(4, &request).await?;
            match response.error_code {
                0 => break response,
                code if is_passing(code) => tokio::time::sleep(RETRY_EVERY).await,
                code => return Err(format!("InitProducerId: error {code}")),
            }
        };
        let mut builder = BatchBuilder::new(Compression::None).producer(given.producer_id, 0, 0).transactional(true);
        for value in noise().take(records) {
            builder.append(1_700_000_000_000, None, Some(&value.repeat(100 / value.len())), &[]);
        }
        let batch = BytesMut::from(builder.build().map_err(|error| error.to_string())?.as_ref());
        let (producer_id, epoch) = (given.producer_id, given.producer_epoch);
        Ok(Self { connection, id, partition, producer_id, epoch, batch })
    }

    async fn transaction(&mut self) -> Result<(), String> {
        // The epoch is a new one each time, and with it sequences begin at 0.
        set_producer(&mut self.batch, self.producer_id, self.epoch, 0).map_err(|error| error.to_string())?;
        let data = PartitionProduceData { index: self.partition, records: Some(self.batch.clone().freeze()) };
        let topic = TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(self.id.clone()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
        };
        loop {
            let response = self.connection.call(12, &request).await?;
            let code = response.responses.iter().flat_map(|t| &t.partition_responses).map(|p| p.error_code).next();
            match code {
                Some(0) => break,
                Some(code) if is_passing(code) => tokio::time::sleep(RETRY_EVERY).await,
                code => return Err(format!("Produce: error {code:?}")),
            }
        }
        let request = EndTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: true,
        };
        loop {
            let response = self.connection.call(5, &request).await?;
            match response.error_code {
                0 => {
                    (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
                    return Ok(());
                }
                code if is_passing(code) => tokio::time::sleep(RETRY_EVERY).await,
                code => return Err(format!("EndTxn: error {code}")),
            }
        }
    }
}
