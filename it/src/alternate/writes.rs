//! Records, transactions, topics and configs: the steps of [`World`] that write them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use taccola_wire::batch::{BatchBuilder, Compression, RecordHeader};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::create_partitions_request::CreatePartitionsTopic;
use taccola_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use taccola_wire::messages::delete_topics_request::DeleteTopicState;
use taccola_wire::messages::describe_configs_request::DescribeConfigsResource;
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::*;

use super::{COMPACTED, Fate, KEYS, Log, SHARED, World, Written};
use crate::conn::Conn;
use crate::eventually;
use crate::load::Place;
use crate::requests::{list_offset, new_topic, now_ms, produce};
use crate::txn::{ADD, INIT, Version, wait};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

impl World {
    fn value(&mut self) -> String {
        let length = 1 + self.rng.below(60) as usize;
        format!("{}:{}", self.session, "v".repeat(length))
    }

    /// A batch of any codec, some records with keys and headers.
    pub(super) fn write(&mut self, conn: &mut Conn) {
        let place = self.place();
        let codec = CODECS[self.rng.below(5) as usize];
        let mut builder = BatchBuilder::new(codec);
        let mut values = Vec::new();
        for n in 0..=self.rng.below(12) {
            let value = self.value();
            let key = self.rng.one_in(2).then(|| format!("key {n}"));
            let header = RecordHeader::new("name", Some(Bytes::from_static(b"value")));
            let headers = if self.rng.one_in(3) { vec![header] } else { Vec::new() };
            builder.append(now_ms(), key.as_deref().map(str::as_bytes), Some(value.as_bytes()), &headers);
            values.push(value);
        }
        let answer = produce(conn, &place.0, place.1, builder.build().expect("a batch"));
        assert_eq!(answer.error_code, 0, "{place:?}: {answer:?}");
        self.say(format!("{} records of {codec:?} to {place:?} at {}", values.len(), answer.base_offset));
        self.wrote(&place, answer.base_offset, values, None);
    }

    pub(super) fn wrote(&mut self, place: &Place, base: i64, values: Vec<String>, transaction: Option<usize>) {
        let log = self.logs.get_mut(place).expect("a known partition");
        assert_eq!(base, log.next, "{place:?}\n{}", self.done.join("\n"));
        for (offset, value) in (base..).zip(values) {
            log.records.push(Written { offset, value, transaction });
            log.next = offset + 1;
        }
    }

    /// A producer id of the first session is good in all others, and its sequences go on.
    pub(super) fn write_idempotent(&mut self, conn: &mut Conn) {
        let at = self.producers.len() - 1;
        if self.producers[at].identity.producer_id < 0 {
            let init = self.producers[at].identity.init();
            let given = eventually("a producer id", || Some(conn.ask(&init, INIT)).filter(|r| r.error_code == 0));
            self.producers[at].identity.is_now(given.producer_id, given.producer_epoch);
        }
        let place = self.place();
        let values: Vec<String> = (0..=self.rng.below(5)).map(|_| self.value()).collect();
        let records = values.iter().map(|value| (Bytes::from_static(b"k"), Bytes::from(value.clone()))).collect();
        let request = self.producers[at].identity.produce(&BTreeMap::from([(place.clone(), records)]));
        let answer = conn.ask(&request, 12).responses.remove(0).partition_responses.remove(0);
        assert_eq!(answer.error_code, 0, "idempotent, {place:?}: {answer:?}\n{}", self.done.join("\n"));
        self.say(format!("idempotent, {} records to {place:?} at {}", values.len(), answer.base_offset));
        self.producers[at].identity.sent(&place, values.len());
        self.producers[at].last = Some((request, answer.base_offset));
        self.wrote(&place, answer.base_offset, values, None);
    }

    /// The last batch of another broker is known to this one.
    pub(super) fn send_again(&mut self, conn: &mut Conn) {
        let Some((request, base)) = self.producers.last().and_then(|producer| producer.last.clone()) else { return };
        if !self.logs.contains_key(&(request.topic_data[0].name.clone(), request.topic_data[0].partition_data[0].index))
        {
            return;
        }
        let answer = conn.ask(&request, 12).responses.remove(0).partition_responses.remove(0);
        self.say(format!("the last idempotent batch again: {} at {}", answer.error_code, answer.base_offset));
        assert_eq!((answer.error_code, answer.base_offset), (0, base), "sent again\n{}", self.done.join("\n"));
    }

    /// Begins a transaction, or goes on with the one that is open, or ends it.
    pub(super) fn transaction(&mut self, conn: &mut Conn, at: usize) {
        self.coordinator(conn, 1, &self.producers[at].identity.id.clone());
        let is_open = self.producers[at].open.is_some();
        if self.producers[at].identity.producer_id < 0 || (!is_open && self.rng.one_in(6)) {
            self.initialize(conn, at);
        }
        if is_open && self.rng.one_in(2) {
            let committed = !self.rng.one_in(3);
            return self.end(conn, at, committed);
        }
        if is_open && self.rng.one_in(8) {
            // Whoever comes anew aborts what was open.
            self.initialize(conn, at);
            return self.ended(conn, at, Fate::Aborted);
        }
        self.write_in_transaction(conn, at);
        if self.rng.one_in(3) {
            self.offsets_in_transaction(conn, at);
        }
    }

    fn initialize(&mut self, conn: &mut Conn, at: usize) {
        let mut init = self.producers[at].identity.init();
        init.transaction_timeout_ms = 3_600_000;
        let given = eventually("InitProducerId", || {
            let reply = conn.ask(&init, INIT);
            assert!(reply.error_code == 0 || wait(ErrorCode::from_code(reply.error_code)), "{reply:?}");
            (reply.error_code == 0).then_some(reply)
        });
        self.producers[at].identity.is_now(given.producer_id, given.producer_epoch);
        self.say(format!("{} is {}/{}", self.producers[at].identity.id, given.producer_id, given.producer_epoch));
    }

    fn write_in_transaction(&mut self, conn: &mut Conn, at: usize) {
        let places: BTreeSet<Place> = (0..=self.rng.below(2)).map(|_| self.place()).collect();
        let mut records = BTreeMap::new();
        let mut values = BTreeMap::new();
        for place in &places {
            let some: Vec<String> = (0..=self.rng.below(3)).map(|_| self.value()).collect();
            let pairs = some.iter().map(|value| (Bytes::from_static(b"k"), Bytes::from(value.clone())));
            records.insert(place.clone(), pairs.collect::<Vec<_>>());
            values.insert(place.clone(), some);
        }
        let identity = self.producers[at].identity.clone();
        if identity.version == Version::One {
            let add = identity.add(&places);
            eventually("AddPartitionsToTxn", || {
                let reply = conn.ask(&add, ADD);
                let mut rows = reply.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
                rows.all(|row| row.partition_error_code == 0).then_some(())
            });
        }
        // Partitions one by one: what was taken is not sent again.
        for (place, pairs) in records {
            let request = identity.produce(&BTreeMap::from([(place.clone(), pairs)]));
            let base = eventually("a transactional batch", || {
                let row =
                    conn.ask(&request, identity.version.produce()).responses.remove(0).partition_responses.remove(0);
                let error = ErrorCode::from_code(row.error_code);
                assert!(row.error_code == 0 || wait(error), "{}: {row:?}\n{}", identity.id, self.done.join("\n"));
                (row.error_code == 0).then_some(row.base_offset)
            });
            let values = values.remove(&place).unwrap_or_default();
            self.say(format!("{} writes {} to {place:?} at {base}", identity.id, values.len()));
            self.producers[at].identity.sent(&place, values.len());
            let transaction = match &mut self.producers[at].open {
                Some((transaction, written)) => {
                    written.insert(place.clone());
                    *transaction
                }
                none => {
                    self.fates.push(Fate::Open);
                    *none = Some((self.fates.len() - 1, BTreeSet::from([place.clone()])));
                    self.fates.len() - 1
                }
            };
            self.wrote(&place, base, values, Some(transaction));
        }
    }

    fn offsets_in_transaction(&mut self, conn: &mut Conn, at: usize) {
        let identity = self.producers[at].identity.clone();
        let group = format!("of-{}", identity.id);
        let place = (SHARED.to_owned(), 0);
        let offset = self.rng.below(1000) as i64;
        self.coordinator(conn, 0, &group);
        if identity.version == Version::One {
            eventually("AddOffsetsToTxn", || {
                (conn.ask(&identity.add_offsets(&group), 3).error_code == 0).then_some(())
            });
        }
        let request = identity.commit_offset(&group, &place, offset);
        eventually("TxnOffsetCommit", || {
            let reply = conn.ask(&request, identity.version.commit_offsets());
            (reply.topics[0].partitions[0].error_code == 0).then_some(())
        });
        self.say(format!("{} commits {group} {place:?} at {offset}", identity.id));
        self.producers[at].offsets.push((group, place, offset));
    }

    fn end(&mut self, conn: &mut Conn, at: usize, committed: bool) {
        let identity = self.producers[at].identity.clone();
        let request = identity.end(committed);
        let reply = eventually("EndTxn", || {
            let reply = conn.ask(&request, identity.version.end());
            let error = ErrorCode::from_code(reply.error_code);
            assert!(reply.error_code == 0 || wait(error), "{}: {reply:?}\n{}", identity.id, self.done.join("\n"));
            (reply.error_code == 0).then_some(reply)
        });
        if identity.version == Version::Two {
            self.producers[at].identity.is_now(reply.producer_id, reply.producer_epoch);
        }
        self.ended(conn, at, if committed { Fate::Committed } else { Fate::Aborted });
    }

    /// Waits for the markers.
    fn ended(&mut self, conn: &mut Conn, at: usize, fate: Fate) {
        let Some((transaction, places)) = self.producers[at].open.take() else { return };
        self.say(format!("{} ends: {fate:?}", self.producers[at].identity.id));
        self.fates[transaction] = fate;
        for place in places {
            // Deleted meanwhile.
            let Some(log) = self.logs.get_mut(&place) else { continue };
            log.next += 1;
            let wanted = log.next;
            eventually("a marker", || (list_offset(conn, &place.0, place.1, -1).1 == wanted).then_some(()));
        }
        let offsets = std::mem::take(&mut self.producers[at].offsets);
        if fate == Fate::Committed {
            for (group, place, offset) in offsets {
                self.offsets.insert((group, place), offset);
            }
        }
        let id = self.producers[at].identity.id.clone();
        let request = DescribeTransactionsRequest { transactional_ids: vec![id] };
        eventually("the transaction's end", || {
            let state = conn.ask(&request, 0).transaction_states[0].transaction_state.clone();
            // Who was initialized anew has none.
            (state.starts_with("Complete") || state == "Empty").then_some(())
        });
    }

    pub(super) fn write_compacted(&mut self, conn: &mut Conn) {
        for _ in 0..4 {
            // Timestamps apart by more than segment.ms: each batch begins a segment.
            self.clock_ms += 1000;
            let mut builder = BatchBuilder::new(CODECS[self.rng.below(5) as usize]);
            for _ in 0..=self.rng.below(4) {
                let key = format!("k{}", self.rng.below(KEYS));
                let value = (!self.rng.one_in(5)).then(|| self.value());
                builder.append(self.clock_ms, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[]);
                self.compacted.insert(key, value);
            }
            let answer = produce(conn, COMPACTED, 0, builder.build().expect("a batch"));
            assert_eq!(answer.error_code, 0, "{answer:?}");
        }
        self.say("compacted records".to_owned());
    }

    pub(super) fn delete_records(&mut self, conn: &mut Conn) {
        let place = self.place();
        // Not beyond an open transaction, whose records the ledger would have to forget.
        let log = &self.logs[&place];
        let open = log.records.iter().find(|r| r.transaction.is_some_and(|t| self.fates[t] == Fate::Open));
        let most = open.map_or(log.next, |record| record.offset);
        if place.0 == SHARED || most <= log.start {
            return;
        }
        let to = log.start + self.rng.below((most - log.start) as u64 + 1) as i64;
        let partition = DeleteRecordsPartition { partition_index: place.1, offset: to };
        let row = DeleteRecordsTopic { name: place.0.clone(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![row], timeout_ms: 10_000 };
        assert_eq!(conn.ask(&request, 2).topics[0].partitions[0].error_code, 0);
        self.say(format!("{place:?} begins at {to}"));
        if let Some(log) = self.logs.get_mut(&place) {
            log.start = to;
        }
    }

    pub(super) fn make_topic(&mut self, conn: &mut Conn) {
        self.topics_made += 1;
        let name = format!("topic-{}", self.topics_made);
        let partitions = 1 + self.rng.below(3) as i32;
        let mut configs = vec![("index.interval.bytes", "100")];
        if self.rng.one_in(2) {
            configs.push(("internal.segment.bytes", "2048"));
        }
        if self.rng.one_in(3) {
            configs.push(("message.timestamp.type", "LogAppendTime"));
        }
        new_topic(conn, &name, partitions, &configs);
        for partition in 0..partitions {
            eventually("a leader", || (list_offset(conn, &name, partition, -1).0 == 0).then_some(()));
            self.logs.insert((name.clone(), partition), Log::default());
        }
        self.say(format!("{name} with {partitions} partitions, {configs:?}"));
    }

    /// A new topic, one that goes, or one that grows.
    pub(super) fn change_topics(&mut self, conn: &mut Conn) {
        let names = self.topic_names();
        let written: BTreeSet<&String> = self
            .producers
            .iter()
            .filter_map(|p| p.open.as_ref())
            .flat_map(|open| &open.1)
            .map(|place| &place.0)
            .collect();
        let free: Vec<String> =
            names.iter().filter(|name| *name != SHARED && !written.contains(name)).cloned().collect();
        if free.len() < 3 || self.rng.one_in(3) {
            return self.make_topic(conn);
        }
        let name = free[self.rng.below(free.len() as u64) as usize].clone();
        if self.rng.one_in(2) {
            let state = DeleteTopicState { name: Some(name.clone()), ..Default::default() };
            let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 10_000, ..Default::default() };
            assert_eq!(conn.ask(&request, 6).responses[0].error_code, 0);
            self.logs.retain(|place, _| place.0 != name);
            self.offsets.retain(|(_, place), _| place.0 != name);
            self.configs.remove(&(TOPIC, name.clone()));
            self.producers.iter_mut().for_each(|p| p.identity.sequences.retain(|place, _| place.0 != name));
            self.say(format!("{name} is deleted"));
            self.gone.push(name);
            return;
        }
        let count = self.logs.keys().filter(|place| place.0 == name).count() as i32 + 1;
        let topic = CreatePartitionsTopic { name: name.clone(), count, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
        assert_eq!(conn.ask(&request, 3).results[0].error_code, 0);
        eventually("a leader", || (list_offset(conn, &name, count - 1, -1).0 == 0).then_some(()));
        self.say(format!("{name} has {count} partitions"));
        self.logs.insert((name, count - 1), Log::default());
    }

    /// Configs of a topic, of this broker or all, of a group: one set, or taken back.
    pub(super) fn change_configs(&mut self, conn: &mut Conn) {
        let topics: Vec<String> = self.topic_names().into_iter().collect();
        let topic = topics[self.rng.below(topics.len() as u64) as usize].clone();
        let number = 100_000_000 + self.rng.below(1_000_000);
        let (kind, resource, name) = match self.rng.below(5) {
            0 => (TOPIC, topic, "retention.ms"),
            1 => (TOPIC, topic, "max.message.bytes"),
            2 => (BROKER, "0".to_owned(), "log.cleaner.io.buffer.size"),
            3 => (BROKER, String::new(), "log.retention.ms"),
            _ => (GROUP, "configured".to_owned(), "consumer.session.timeout.ms"),
        };
        let value = match name {
            "consumer.session.timeout.ms" => format!("{}", 45_000 + number % 10_000),
            "log.cleaner.io.buffer.size" => format!("{}", 500_000 + number % 1_000),
            _ => number.to_string(),
        };
        let delete = self.rng.one_in(4);
        let config = AlterableConfig {
            name: name.to_owned(),
            config_operation: i8::from(delete),
            value: (!delete).then(|| value.clone()),
        };
        let row = AlterConfigsResource { resource_type: kind, resource_name: resource.clone(), configs: vec![config] };
        let request = IncrementalAlterConfigsRequest { resources: vec![row], ..Default::default() };
        let reply = conn.ask(&request, 1);
        assert_eq!(reply.responses[0].error_code, 0, "{name} of {resource:?}: {reply:?}");
        self.say(format!("{name} of {kind} {resource:?}: {}", if delete { "default" } else { &value }));
        let known = self.configs.entry((kind, resource)).or_default();
        if delete {
            known.remove(name);
        } else {
            known.insert(name.to_owned(), value);
        }
    }

    pub(super) fn check_configs(&self, who: &str, conn: &mut Conn) {
        for ((kind, resource), wanted) in &self.configs {
            let row = DescribeConfigsResource {
                resource_type: *kind,
                resource_name: resource.clone(),
                configuration_keys: Some(wanted.keys().cloned().collect()),
            };
            let request = DescribeConfigsRequest { resources: vec![row], ..Default::default() };
            if wanted.is_empty() {
                continue;
            }
            let found: BTreeMap<String, String> = conn.ask(&request, 4).results[0]
                .configs
                .iter()
                .filter_map(|config| Some((config.name.clone(), config.value.clone()?)))
                .collect();
            assert_eq!(&found, wanted, "{who}: configs of {kind} {resource:?}\n{}", self.done.join("\n"));
        }
    }
}
