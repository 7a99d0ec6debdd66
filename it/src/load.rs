//! The mixed load of the crash tests: idempotent writers that pipeline and send again after a crash, plain writers that
//! never do, a reader, committers of offsets (with and without membership), and topics and records being deleted. Each
//! actor survives the broker: its state goes on into the next cycle. Everything it learns goes into the [`World`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use taccola_wire::api::ApiKey;
use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::join_group_request::JoinGroupRequestProtocol;
use taccola_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use taccola_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use taccola_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use taccola_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use taccola_wire::messages::{
    DeleteRecordsRequest, DeleteTopicsRequest, FetchResponse, FindCoordinatorRequest, JoinGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, ProduceResponse, SyncGroupRequest,
};

use crate::conn::Conn;
use crate::group;
use crate::ledger::{Existence, Name, Partition, Promise, Rng};
use crate::requests::{self, FETCH, PRODUCE};

/// A topic's name and a partition's index.
pub type Place = (String, i32);

/// What all actors know together.
#[derive(Debug, Default)]
pub struct World {
    pub partitions: BTreeMap<Place, Mutex<Partition>>,
    /// By group and partition.
    pub commits: Mutex<HashMap<(String, Place), Promise>>,
    pub topics: Mutex<BTreeMap<String, Existence>>,
    pub acknowledged_batches: AtomicU64,
    /// Every producer id that was given out.
    pub producer_ids: Mutex<HashSet<i64>>,
    /// The broker may end by itself at any time now.
    pub fragile: AtomicBool,
    /// The broker is being killed: whatever fails from now on is expected.
    pub stop: AtomicBool,
}

impl World {
    pub fn new(places: impl IntoIterator<Item = Place>) -> Self {
        Self { partitions: places.into_iter().map(|place| (place, Mutex::default())).collect(), ..Self::default() }
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub fn partition(&self, place: &Place) -> MutexGuard<'_, Partition> {
        self.partitions[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an id that must be new.
    pub fn producer_id(&self, id: i64) {
        let mut ids = self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(ids.insert(id), "producer id {id} was given out twice");
    }

    fn promise<T>(&self, group: &str, place: &Place, change: impl FnOnce(&mut Promise) -> T) -> T {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        change(commits.entry((group.to_owned(), place.clone())).or_insert(Promise { asked: -1, acknowledged: -1 }))
    }

    fn topic(&self, name: &str, state: Existence) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), state);
    }
}

pub fn show(place: &Place) -> String {
    format!("{}-{}", place.0, place.1)
}

/// Errors after which the same request may be sent again.
pub(crate) fn may_pass(code: i16) -> bool {
    ErrorCode::from_code(code).retriable() || code == ErrorCode::KafkaStorageError.code()
}

/// Runs `actor` until the broker dies. What fails before that is a failure of the test.
pub fn drive(world: &World, port: u16, mut actor: impl FnMut(&mut Conn) -> io::Result<()>) {
    let result = Conn::connect(port).and_then(|mut conn| actor(&mut conn));
    if let Err(error) = result {
        // The kill may be seen here a moment before it is announced to nobody: the flag is set first.
        let expected = world.stopped() || world.fragile.load(Ordering::SeqCst);
        assert!(expected, "a connection failed under a living broker: {error}");
    }
}

// ---- writers -----------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Batch {
    first: u64,
    count: u64,
    bytes: Bytes,
}

#[derive(Debug)]
struct Target {
    place: Place,
    next: u64,
    sequence: i32,
    /// Sent and not acknowledged, oldest first; idempotent writers only.
    waiting: VecDeque<Batch>,
    /// The last batches that were acknowledged, at most [`WINDOW`], and their base offsets; idempotent writers only.
    recent: VecDeque<(Batch, i64)>,
}

/// As many batches of a producer does a broker recognize.
const WINDOW: usize = 5;

/// One producer over several partitions.
#[derive(Debug)]
pub struct Writer {
    id: u32,
    acks: i16,
    idempotent: bool,
    producer: Option<(i64, i16)>,
    targets: Vec<Target>,
    rng: Rng,
}

/// A request on its way: which targets it carries, and each one's batch.
struct InFlight {
    correlation_id: i32,
    parts: Vec<(usize, u64, u64)>,
}

impl Writer {
    pub fn new(id: u32, acks: i16, idempotent: bool, places: &[Place], seed: u64) -> Self {
        let targets = places.iter().cloned();
        let targets = targets
            .map(|place| Target { place, next: 0, sequence: 0, waiting: VecDeque::new(), recent: VecDeque::new() })
            .collect();
        Self { id, acks, idempotent, producer: None, targets, rng: Rng(seed) }
    }

    /// Writes until the broker dies.
    pub fn run(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        while self.idempotent && self.producer.is_none() {
            match requests::init_producer(conn)? {
                Ok(producer) => {
                    world.producer_id(producer.0);
                    self.producer = Some(producer);
                }
                Err(code) => assert!(may_pass(code), "InitProducerId: {code}"),
            }
        }
        self.settle(world, conn)?;
        loop {
            if self.idempotent && self.rng.one_in(16) {
                self.skip_a_sequence(conn)?;
            }
            if self.idempotent && self.rng.one_in(8) {
                self.repeat(conn)?;
            }
            let depth = 1 + self.rng.below(5) as usize;
            let mut flight = VecDeque::new();
            let mut clean = true;
            for _ in 0..1 + self.rng.below(12) {
                while flight.len() >= depth {
                    clean &= self.collect(world, conn, &mut flight)?;
                }
                if !clean {
                    break;
                }
                let sent = self.send_new(world, conn)?;
                flight.push_back(sent);
            }
            while !flight.is_empty() {
                self.collect(world, conn, &mut flight)?;
            }
            self.settle(world, conn)?;
        }
    }

    /// A batch that leaves numbers out is refused; nothing else is under way.
    fn skip_a_sequence(&mut self, conn: &mut Conn) -> io::Result<()> {
        let (Some((id, epoch)), Some(target)) = (self.producer, self.targets.first()) else { return Ok(()) };
        if target.sequence == 0 {
            return Ok(());
        }
        let mut builder = BatchBuilder::new(Compression::None).producer(id, epoch, target.sequence + 1);
        builder.append(requests::now_ms(), Some(b"never"), Some(b"taken"), &[]);
        let records = builder.build().expect("a batch");
        let (topic, partition) = &target.place;
        let response = conn.call(&requests::produce_request(self.acks, topic, *partition, records), PRODUCE)?;
        let code = response.responses[0].partition_responses[0].error_code;
        assert_ne!(code, 0, "{}: a gap in the sequence of producer {id} is taken", show(&target.place));
        Ok(())
    }

    /// The oldest batch of the window is known: it is answered as it was.
    fn repeat(&mut self, conn: &mut Conn) -> io::Result<()> {
        let index = self.rng.below(self.targets.len() as u64) as usize;
        let Target { place: (topic, partition), recent, .. } = &self.targets[index];
        let Some((batch, base_offset)) = recent.front().filter(|_| recent.len() == WINDOW) else { return Ok(()) };
        let request = requests::produce_request(self.acks, topic, *partition, batch.bytes.clone());
        let response = conn.call(&request, PRODUCE)?;
        let answer = &response.responses[0].partition_responses[0];
        if !may_pass(answer.error_code) {
            let (found, due) = ((answer.error_code, answer.base_offset), (0, *base_offset));
            assert_eq!(found, due, "{topic}-{partition}: batch {} sent once more", batch.first);
        }
        Ok(())
    }

    /// Sends what was not acknowledged again, one batch per partition at a time, until nothing waits.
    fn settle(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        while self.targets.iter().any(|target| !target.waiting.is_empty()) {
            let heads = (0..self.targets.len()).filter(|index| !self.targets[*index].waiting.is_empty());
            let parts: Vec<_> = heads
                .map(|index| {
                    let batch = &self.targets[index].waiting[0];
                    (index, batch.first, batch.count, batch.bytes.clone())
                })
                .collect();
            let sent = self.send(conn, parts)?;
            let mut flight = VecDeque::from([sent]);
            self.collect(world, conn, &mut flight)?;
        }
        Ok(())
    }

    fn send_new(&mut self, world: &World, conn: &mut Conn) -> io::Result<InFlight> {
        let mut parts = Vec::new();
        let chosen = self.rng.next();
        for index in 0..self.targets.len() {
            if chosen >> index & 1 == 0 && !(index + 1 == self.targets.len() && parts.is_empty()) {
                continue;
            }
            let (first, count, bytes) = self.new_batch(index);
            let target = &mut self.targets[index];
            world.partition(&target.place).sent(self.id, self.idempotent, target.next);
            if self.idempotent {
                target.waiting.push_back(Batch { first, count, bytes: bytes.clone() });
            }
            parts.push((index, first, count, bytes));
        }
        self.send(conn, parts)
    }

    fn new_batch(&mut self, index: usize) -> (u64, u64, Bytes) {
        let count_max = 1 + self.rng.below(20);
        let codec = match self.rng.below(8) {
            0 => Compression::Gzip,
            1 => Compression::Snappy,
            2 => Compression::Lz4,
            3 => Compression::Zstd,
            _ => Compression::None,
        };
        let target = &mut self.targets[index];
        let mut builder = BatchBuilder::new(codec);
        if let Some((id, epoch)) = self.producer {
            builder = builder.producer(id, epoch, target.sequence);
        }
        let first = target.next;
        let mut count = 0;
        // Below half a segment, however large the values are.
        while count < count_max && builder.uncompressed_bytes() < 32 * 1024 {
            let name = Name { writer: self.id, number: first + count };
            builder.append(requests::now_ms(), Some(&name.key()), name.value().as_deref(), &[]);
            count += 1;
        }
        target.next += count;
        target.sequence += count as i32;
        (first, count, builder.build().expect("a batch"))
    }

    fn send(&mut self, conn: &mut Conn, parts: Vec<(usize, u64, u64, Bytes)>) -> io::Result<InFlight> {
        let mut topics: BTreeMap<String, Vec<PartitionProduceData>> = BTreeMap::new();
        let mut carried = Vec::new();
        for (index, first, count, bytes) in parts {
            let (topic, partition) = self.targets[index].place.clone();
            topics.entry(topic).or_default().push(PartitionProduceData { index: partition, records: Some(bytes) });
            carried.push((index, first, count));
        }
        let topic_data = topics
            .into_iter()
            .map(|(name, partition_data)| TopicProduceData { name, partition_data, ..Default::default() })
            .collect();
        let request = ProduceRequest { acks: self.acks, timeout_ms: 30_000, topic_data, ..Default::default() };
        let correlation_id = conn.send(&request, PRODUCE)?;
        Ok(InFlight { correlation_id, parts: carried })
    }

    /// Takes one reply; false if something was not taken and everything behind it must wait.
    fn collect(&mut self, world: &World, conn: &mut Conn, flight: &mut VecDeque<InFlight>) -> io::Result<bool> {
        let Some(sent) = flight.pop_front() else { return Ok(true) };
        let response: ProduceResponse = conn.reply(ApiKey::Produce, PRODUCE, sent.correlation_id)?;
        let mut answers = HashMap::new();
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                answers.insert((topic.name.clone(), partition.index), (partition.error_code, partition.base_offset));
            }
        }
        let mut clean = true;
        for (index, first, count) in sent.parts {
            let place = self.targets[index].place.clone();
            let (code, base_offset) = answers.remove(&place).unwrap_or_else(|| panic!("no answer for {place:?}"));
            clean &= self.judge(world, index, (first, count), code, base_offset);
        }
        Ok(clean)
    }

    fn judge(&mut self, world: &World, index: usize, (first, count): (u64, u64), code: i16, base_offset: i64) -> bool {
        let target = &mut self.targets[index];
        let name = Name { writer: self.id, number: first };
        let duplicate = code == ErrorCode::DuplicateSequenceNumber.code();
        let head = target.waiting.front().is_some_and(|batch| batch.first == first);
        if code == 0 || (duplicate && self.idempotent) {
            let base_offset = if duplicate { -1 } else { base_offset };
            let mut partition = world.partition(&target.place);
            partition.acknowledged(&show(&target.place), name, count, base_offset);
            if self.acks == -1 {
                partition.visible_end = partition.visible_end.max(base_offset + count as i64);
            }
            drop(partition);
            world.acknowledged_batches.fetch_add(1, Ordering::Relaxed);
            if self.idempotent {
                assert!(head, "{}: {name:?} was taken before an older batch", show(&target.place));
                if base_offset < 0 {
                    target.recent.clear();
                } else if let Some(batch) = target.waiting.front() {
                    target.recent.push_back((batch.clone(), base_offset));
                    target.recent.drain(..target.recent.len().saturating_sub(WINDOW));
                }
                target.waiting.pop_front();
            }
            return true;
        }
        // Behind a batch that was refused the next ones are out of order; at the head that means a loss.
        let behind = self.idempotent && !head && code == ErrorCode::OutOfOrderSequenceNumber.code();
        assert!(
            may_pass(code) && !(head && code == ErrorCode::OutOfOrderSequenceNumber.code()) || behind,
            "{}: Produce of {name:?} answered {} (base offset {base_offset})",
            show(&target.place),
            ErrorCode::from_code(code).name()
        );
        false
    }
}

// ---- a reader ----------------------------------------------------------------------------------------------------------

/// Follows all partitions from where it stands; what it has seen must never change.
#[derive(Debug)]
pub struct Reader {
    positions: BTreeMap<Place, i64>,
    rng: Rng,
}

impl Reader {
    pub fn new(places: &[Place], seed: u64) -> Self {
        Self { positions: places.iter().map(|place| (place.clone(), 0)).collect(), rng: Rng(seed) }
    }

    pub fn run(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        let places: Vec<Place> = self.positions.keys().cloned().collect();
        loop {
            let place = &places[self.rng.below(places.len() as u64) as usize];
            let offset = self.positions[place];
            let visible_end = world.partition(place).visible_end;
            let mut request = requests::fetch_request(&place.0, place.1, offset);
            (request.max_wait_ms, request.min_bytes) = (20, 1);
            let response: FetchResponse = conn.call(&request, FETCH)?;
            let data = &response.responses[0].partitions[0];
            let known = data.log_start_offset;
            match ErrorCode::from_code(data.error_code) {
                ErrorCode::None => {}
                ErrorCode::OffsetOutOfRange if offset < known.max(world.partition(place).delete_asked) => {
                    self.positions.insert(place.clone(), world.partition(place).delete_asked);
                    continue;
                }
                code if may_pass(data.error_code) => {
                    let _ = code;
                    continue;
                }
                code => panic!("{}: Fetch at {offset} answered {}", show(place), code.name()),
            }
            let end = data.high_watermark;
            assert!(end >= visible_end, "{}: ends at {end}, {visible_end} was acknowledged", show(place));
            let records = requests::records_of(data, offset);
            let mut partition = world.partition(place);
            for record in &records {
                partition.served(&show(place), record);
            }
            if let Some(last) = records.last() {
                self.positions.insert(place.clone(), last.offset + 1);
            }
        }
    }
}

// ---- committers --------------------------------------------------------------------------------------------------------

/// Commits ever higher offsets, as a group's only member or without membership.
#[derive(Debug)]
pub struct Committer {
    pub group: String,
    member: bool,
    identity: (i32, String),
    places: Vec<Place>,
    rng: Rng,
}

impl Committer {
    pub fn new(group: &str, member: bool, places: &[Place], seed: u64) -> Self {
        let identity = (-1, String::new());
        Self { group: group.to_owned(), member, identity, places: places.to_vec(), rng: Rng(seed) }
    }

    pub fn run(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        loop {
            if self.member && self.identity.1.is_empty() {
                self.join(conn)?;
            }
            if self.identity.0 > 0 && self.rng.one_in(8) {
                self.commit_late(conn)?;
            }
            let place = self.places[self.rng.below(self.places.len() as u64) as usize].clone();
            let offset = world.promise(&self.group, &place, |promise| {
                promise.asked = promise.asked.max(0) + 1;
                promise.asked
            });
            let partition = OffsetCommitRequestPartition {
                partition_index: place.1,
                committed_offset: offset,
                committed_leader_epoch: -1,
                committed_metadata: Some(format!("at {offset}")),
            };
            let topic =
                OffsetCommitRequestTopic { name: place.0.clone(), partitions: vec![partition], ..Default::default() };
            let request = OffsetCommitRequest {
                group_id: self.group.clone(),
                generation_id_or_member_epoch: self.identity.0,
                member_id: self.identity.1.clone(),
                topics: vec![topic],
                ..Default::default()
            };
            let response = conn.call(&request, 9)?;
            match ErrorCode::from_code(response.topics[0].partitions[0].error_code) {
                ErrorCode::None => world.promise(&self.group, &place, |promise| promise.acknowledged = offset),
                ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress
                    if self.member =>
                {
                    self.identity = (-1, String::new());
                }
                code => assert!(may_pass(code.code()), "OffsetCommit answered {}", code.name()),
            }
        }
    }

    /// What a member says of the generation before is refused.
    fn commit_late(&mut self, conn: &mut Conn) -> io::Result<()> {
        let (generation, member) = &self.identity;
        let (topic, partition) = &self.places[0];
        let mut request = group::commit_request(&self.group, generation - 1, member, topic, 0);
        request.topics[0].partitions[0].partition_index = *partition;
        let code = conn.call(&request, 8)?.topics[0].partitions[0].error_code;
        assert_ne!(code, 0, "{}: a commit of generation {} is taken", self.group, generation - 1);
        Ok(())
    }

    fn join(&mut self, conn: &mut Conn) -> io::Result<()> {
        let protocol = JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"\0\0") };
        let mut request = JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 6_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
            ..Default::default()
        };
        let joined = loop {
            let joined = conn.call(&request, 9)?;
            match ErrorCode::from_code(joined.error_code) {
                ErrorCode::None => break joined,
                ErrorCode::MemberIdRequired => request.member_id = joined.member_id,
                ErrorCode::UnknownMemberId => request.member_id.clear(),
                code => assert!(may_pass(code.code()), "JoinGroup answered {}", code.name()),
            }
        };
        let assignments = joined.members.iter().map(|member| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: Bytes::from_static(b"\0\0"),
        });
        let sync = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let code = conn.call(&sync, 5)?.error_code;
        if code == 0 {
            self.identity = (joined.generation_id, joined.member_id);
        } else {
            let fine = may_pass(code) || [25, 22, 27].contains(&code);
            assert!(fine, "SyncGroup answered {}", ErrorCode::from_code(code).name());
        }
        Ok(())
    }
}

/// Committed offsets of a group, asking until the coordinator is there.
pub fn committed(conn: &mut Conn, group: &str, places: &[Place]) -> Vec<(Place, i64, Option<String>)> {
    let topics = places.iter().map(|(topic, partition)| OffsetFetchRequestTopics {
        name: topic.clone(),
        partition_indexes: vec![*partition],
        ..Default::default()
    });
    let group = OffsetFetchRequestGroup {
        group_id: group.to_owned(),
        member_epoch: -1,
        topics: Some(topics.collect()),
        ..Default::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    // Whoever asks for a coordinator makes `__consumer_offsets`.
    let find = FindCoordinatorRequest {
        coordinator_keys: request.groups.iter().map(|group| group.group_id.clone()).collect(),
        ..Default::default()
    };
    crate::eventually("the group's coordinator", || {
        let found = conn.ask(&find, 4);
        if found.coordinators[0].error_code != 0 {
            return None;
        }
        let response = conn.ask(&request, 9);
        let group = &response.groups[0];
        if group.error_code != 0 {
            assert!(may_pass(group.error_code), "OffsetFetch answered {}", group.error_code);
            return None;
        }
        let mut found = Vec::new();
        for topic in &group.topics {
            for partition in &topic.partitions {
                let place = (topic.name.clone(), partition.partition_index);
                found.push((place, partition.committed_offset, partition.metadata.clone()));
            }
        }
        Some(found)
    })
}

// ---- topics and records that go ----------------------------------------------------------------------------------------

/// Creates and deletes topics, and deletes the oldest records of a partition now and then.
#[derive(Debug)]
pub struct Deleter {
    made: u64,
    alive: VecDeque<String>,
    places: Vec<Place>,
    rng: Rng,
}

impl Deleter {
    pub fn new(places: &[Place], seed: u64) -> Self {
        Self { made: 0, alive: VecDeque::new(), places: places.to_vec(), rng: Rng(seed) }
    }

    pub fn run(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        loop {
            match self.rng.below(4) {
                0 if !self.places.is_empty() => self.delete_records(world, conn)?,
                1 | 2 if self.alive.len() > 3 => self.delete_topic(world, conn)?,
                _ => self.create_topic(world, conn)?,
            }
            // One change of the metadata every few milliseconds, as between the batches of a busy broker.
            std::thread::sleep(std::time::Duration::from_millis(self.rng.below(20)));
        }
    }

    fn create_topic(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        self.made += 1;
        let name = format!("comes-and-goes-{}", self.made);
        world.topic(&name, Existence::Open);
        let topic = taccola_wire::messages::create_topics_request::CreatableTopic {
            name: name.clone(),
            num_partitions: 1 + self.rng.below(3) as i32,
            replication_factor: 1,
            ..Default::default()
        };
        let request = taccola_wire::messages::CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let code = conn.call(&request, requests::CREATE_TOPICS)?.topics[0].error_code;
        if code == 0 {
            world.topic(&name, Existence::Present);
            self.alive.push_back(name);
        } else {
            assert!(may_pass(code), "CreateTopics {name} answered {}", ErrorCode::from_code(code).name());
        }
        Ok(())
    }

    fn delete_topic(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        let Some(name) = self.alive.pop_front() else { return Ok(()) };
        world.topic(&name, Existence::Open);
        let topic = DeleteTopicState { name: Some(name.clone()), ..Default::default() };
        let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let code = conn.call(&request, 6)?.responses[0].error_code;
        if code == 0 {
            world.topic(&name, Existence::Absent);
        } else {
            assert!(may_pass(code), "DeleteTopics {name} answered {}", ErrorCode::from_code(code).name());
        }
        Ok(())
    }

    fn delete_records(&mut self, world: &World, conn: &mut Conn) -> io::Result<()> {
        let place = self.places[self.rng.below(self.places.len() as u64) as usize].clone();
        let offset = {
            let mut partition = world.partition(&place);
            let offset = partition.deleted_to.max(partition.end() - 300);
            partition.delete_asked = partition.delete_asked.max(offset);
            offset
        };
        let partition = DeleteRecordsPartition { partition_index: place.1, offset };
        let topic = DeleteRecordsTopic { name: place.0.clone(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
        let result = &conn.call(&request, 2)?.topics[0].partitions[0];
        if result.error_code == 0 {
            let mut partition = world.partition(&place);
            assert_eq!(result.low_watermark, offset, "DeleteRecords of {}", show(&place));
            partition.deleted_to = partition.deleted_to.max(result.low_watermark);
        } else {
            let name = ErrorCode::from_code(result.error_code).name();
            assert!(may_pass(result.error_code), "DeleteRecords of {} to {offset} answered {name}", show(&place));
        }
        Ok(())
    }
}
