//! What a broker answers to the transaction APIs at each of their versions: good requests, stale ones, absurd ones, in every
//! state of a transaction. One line for each case, in words that are the same for every broker: codes by name, ids and
//! epochs relative to the producer that asks. `it/testdata/transaction_answers.txt` holds the lines of Kafka 4.3.1.

mod admin;
mod markers;
mod offsets;
mod producers;

use std::fmt::{Display, Write as _};

use taccola_wire::batch::{BatchBuilder, Compression};
use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use taccola_wire::messages::{
    AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, EndTxnResponse, FindCoordinatorRequest,
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest,
};

use crate::conn::Conn;
use crate::eventually;
use crate::group::find_coordinator;
use crate::requests::{list_offset, new_topic, now_ms};
use crate::server::fresh;

/// A producer as its coordinator sees it.
#[derive(Clone, Debug)]
struct Producer {
    id: String,
    producer_id: i64,
    epoch: i16,
}

struct Asking {
    conn: Conn,
    reconnect: Box<dyn FnMut() -> Conn>,
    /// Two partitions.
    topic: String,
    group: String,
    out: String,
}

fn name(code: i16) -> &'static str {
    ErrorCode::from_code(code).name()
}

/// Asks everything; needs a broker that nobody else uses.
pub fn answers(mut connect: impl FnMut() -> Conn + 'static) -> String {
    let mut conn = connect();
    let (topic, group) = (fresh("answers"), fresh("group"));
    new_topic(&mut conn, &topic, 2, &[]);
    eventually("a leader", || (list_offset(&mut conn, &topic, 1, -1).0 == 0).then_some(()));
    find_coordinator(&mut conn, &group);
    let mut asking = Asking { conn, reconnect: Box::new(connect), topic, group, out: String::new() };
    producers::init(&mut asking);
    producers::add_partitions(&mut asking);
    producers::verify(&mut asking);
    producers::end(&mut asking);
    producers::produce(&mut asking);
    offsets::add_offsets(&mut asking);
    offsets::commit(&mut asking);
    markers::write(&mut asking);
    admin::describe(&mut asking);
    admin::list(&mut asking);
    admin::describe_producers(&mut asking);
    asking.out
}

impl Asking {
    /// One case; `show` says what the reply is.
    fn case<R: Request, D: Display>(
        &mut self,
        what: &str,
        version: i16,
        request: &R,
        show: impl Fn(&R::Response) -> D,
    ) {
        let answer = match self.conn.call(request, version) {
            Ok(response) => show(&response).to_string(),
            Err(_) => {
                self.conn = (self.reconnect)();
                "no reply".to_owned()
            }
        };
        let _ = writeln!(self.out, "{:?} v{version} {what}: {answer}", R::KEY);
    }

    /// Asks until nobody is in the way.
    fn settled<R: Request>(&mut self, request: &R, version: i16, code: impl Fn(&R::Response) -> i16) -> R::Response {
        let waits =
            [ErrorCode::ConcurrentTransactions, ErrorCode::CoordinatorLoadInProgress, ErrorCode::NotCoordinator];
        eventually("the end of the last transaction", || {
            let response = self.conn.ask(request, version);
            (!waits.contains(&ErrorCode::from_code(code(&response)))).then_some(response)
        })
    }

    fn init_request(id: &str) -> InitProducerIdRequest {
        InitProducerIdRequest {
            transactional_id: Some(id.to_owned()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        }
    }

    /// A producer with an id of its own.
    fn producer(&mut self) -> Producer {
        let id = fresh("txn");
        let keys = vec![id.clone()];
        let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: keys, ..Default::default() };
        eventually("a coordinator", || (self.conn.ask(&find, 4).coordinators[0].error_code == 0).then_some(()));
        let response = self.settled(&Self::init_request(&id), 5, |response| response.error_code);
        assert_eq!(response.error_code, 0, "{response:?}");
        Producer { id, producer_id: response.producer_id, epoch: response.producer_epoch }
    }

    /// The same with partition 0 in an open transaction.
    fn open(&mut self) -> Producer {
        let producer = self.producer();
        self.add(&producer, &[0]);
        producer
    }

    fn add_request(&self, producer: &Producer, partitions: &[i32]) -> AddPartitionsToTxnRequest {
        AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: producer.id.clone(),
            v3_and_below_producer_id: producer.producer_id,
            v3_and_below_producer_epoch: producer.epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: self.topic.clone(),
                partitions: partitions.to_vec(),
            }],
            ..Default::default()
        }
    }

    fn add(&mut self, producer: &Producer, partitions: &[i32]) {
        let request = self.add_request(producer, partitions);
        let code = |r: &taccola_wire::messages::AddPartitionsToTxnResponse| {
            r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        };
        let response = self.settled(&request, 3, code);
        assert_eq!(code(&response), 0, "{response:?}");
    }

    fn end_request(producer: &Producer, committed: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: producer.id.clone(),
            producer_id: producer.producer_id,
            producer_epoch: producer.epoch,
            committed,
        }
    }

    /// Ends the transaction and waits until its markers are written.
    fn ended(&mut self, producer: &mut Producer, version: i16, committed: bool) {
        let response = self.settled(&Self::end_request(producer, committed), version, |response| response.error_code);
        assert_eq!(response.error_code, 0, "{response:?}");
        if version >= 5 {
            (producer.producer_id, producer.epoch) = (response.producer_id, response.producer_epoch);
        }
        self.complete(producer);
    }

    fn complete(&mut self, producer: &Producer) {
        let request = DescribeTransactionsRequest { transactional_ids: vec![producer.id.clone()] };
        eventually(&format!("the markers, after:\n{}", self.out), || {
            let response = self.conn.ask(&request, 0);
            response.transaction_states[0].transaction_state.starts_with("Complete").then_some(())
        });
    }

    fn produce_request(&self, producer: &Producer, partition: i32, sequence: i32) -> ProduceRequest {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(producer.producer_id, producer.epoch, sequence)
            .transactional(true);
        builder.append(now_ms(), None, Some(b"x"), &[]);
        let mut request =
            crate::requests::produce_request(-1, &self.topic, partition, builder.build().expect("a batch"));
        request.transactional_id = Some(producer.id.clone());
        request
    }

    fn produced(&mut self, producer: &Producer, version: i16, partition: i32, sequence: i32) {
        let request = self.produce_request(producer, partition, sequence);
        let code = |r: &taccola_wire::messages::ProduceResponse| r.responses[0].partition_responses[0].error_code;
        let response = self.settled(&request, version, code);
        assert_eq!(code(&response), 0, "{response:?}");
    }
}

impl Producer {
    fn with_id(&self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self.clone() }
    }

    fn with_producer_id(&self, producer_id: i64) -> Self {
        Self { producer_id, ..self.clone() }
    }

    fn with_epoch(&self, epoch: i16) -> Self {
        Self { epoch, ..self.clone() }
    }

    /// The wrong users of a producer, and what is wrong with them.
    fn strangers(&self) -> [(&'static str, Self); 6] {
        [
            ("another producer id", self.with_producer_id(self.producer_id + 1_000_000)),
            ("no producer id", self.with_producer_id(-1)),
            ("an older epoch", self.with_epoch(self.epoch - 1)),
            ("a newer epoch", self.with_epoch(self.epoch + 1)),
            ("an unknown id", self.with_id(&fresh("nobody"))),
            ("an empty id", self.with_id("")),
        ]
    }

    /// A producer id and an epoch, relative to this one's.
    fn relative(&self, producer_id: i64, epoch: i16) -> String {
        match producer_id {
            -1 => format!("-1/{epoch}"),
            id if id == self.producer_id => format!("same/{:+}", epoch - self.epoch),
            _ => format!("new/{epoch}"),
        }
    }

    fn initialized(&self, response: &InitProducerIdResponse) -> String {
        let given = self.relative(response.producer_id, response.producer_epoch);
        let open = self.relative(response.ongoing_txn_producer_id, response.ongoing_txn_producer_epoch);
        let open = if open == "-1/-1" { String::new() } else { format!(" open {open}") };
        format!("{} {given}{open}", name(response.error_code))
    }

    fn ended(&self, response: &EndTxnResponse) -> String {
        format!("{} {}", name(response.error_code), self.relative(response.producer_id, response.producer_epoch))
    }
}
