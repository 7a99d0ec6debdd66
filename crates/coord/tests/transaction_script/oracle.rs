//! The scripts against a real Kafka. A part of a script, from one `config` to the next, ends where it says what no
//! client can say: a held append, a crash, time. The comment `# differs` in front of a command tells that the two are
//! known to disagree, and that the rest of the part is left out.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use taccola_coord::transaction::TransactionResponse;
use taccola_wire::codec::Request;
use taccola_wire::frame::{decode_response, encode_request};
use taccola_wire::messages::add_partitions_to_txn_response::AddPartitionsToTxnResult;
use taccola_wire::messages::describe_transactions_response::TransactionState;
use taccola_wire::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, DescribeTransactionsRequest};

use super::requests::Producer;
use super::{Args, command, print, requests};

/// The answers that pass by themselves while a coordinator starts.
const NOT_READY: [&str; 3] = ["NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"];
const SETTLE_ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

struct Oracle {
    stream: TcpStream,
    prefix: String,
    /// The script's producer ids to the broker's.
    producer_ids: BTreeMap<i64, i64>,
    producers: BTreeMap<String, Producer>,
}

/// Answers each difference.
pub(crate) fn compare(address: &str, path: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut oracle: Option<Oracle> = None;
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with("# differs") {
            oracle = None;
        }
        let Some((verb, args)) = command(line) else { continue };
        if verb == "config" {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let sayable = args.get("tv").is_none_or(|tv| tv == "2") && args.rest(0).is_empty();
            oracle = sayable.then(|| Oracle::new(address, format!("{name}-{at}-{}-", std::process::id())));
            continue;
        }
        let Some(now) = &mut oracle else { continue };
        let trace = lines[at + 1..].iter().take_while(|l| l.starts_with("  ")).map(|l| &l[2..]);
        let Some(replied) = now.run(verb, &args) else {
            oracle = None;
            continue;
        };
        let label = format!("{} {verb}: ", args.word(0).trim_matches('\''));
        let expected = trace.clone().find_map(|l| if verb == "describe" { Some(l) } else { l.strip_prefix(&label) });
        let expected = expected.unwrap_or("nothing");
        if !now.same(expected, &replied) {
            wrong.push(format!("{}:{}: {line}\n    script {expected}\n    kafka  {replied}", path.display(), at + 1));
        }
        now.learn(args.word(0), expected);
    }
    wrong
}

fn parse_producer(text: &str) -> Option<Producer> {
    let (id, epoch) = text.split_once('/')?;
    Some((id.parse().ok()?, epoch.parse().ok()?))
}

impl Oracle {
    fn new(address: &str, prefix: String) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        Self { stream, prefix, producer_ids: BTreeMap::new(), producers: BTreeMap::new() }
    }

    /// Word for word, but for producer ids, which are learned when they are first seen.
    fn same(&mut self, expected: &str, replied: &str) -> bool {
        let (expected, replied): (Vec<&str>, Vec<&str>) = (expected.split(' ').collect(), replied.split(' ').collect());
        expected.len() == replied.len()
            && expected.iter().zip(&replied).all(|(e, r)| match (parse_producer(e), parse_producer(r)) {
                (Some((script_id, script_epoch)), Some((id, epoch))) => {
                    script_epoch == epoch && *self.producer_ids.entry(script_id).or_insert(id) == id
                }
                _ => e == r,
            })
    }

    fn learn(&mut self, id: &str, expected: &str) {
        if let Some(producer) = parse_producer(expected) {
            self.producers.insert(id.to_owned(), producer);
        }
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let frame = encode_request(1, Some("c"), version, request).unwrap();
        self.stream.write_all(&frame).unwrap();
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        decode_response::<R>(version, Bytes::from(frame)).unwrap().1
    }

    /// Until it is no longer a matter of starting up.
    fn answer<R: Request>(&mut self, version: i16, request: &R, print: impl Fn(R::Response) -> String) -> String {
        for _ in 0..SETTLE_ATTEMPTS {
            let printed = print(self.call(version, request));
            if !NOT_READY.contains(&printed.as_str()) {
                return printed;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("the broker does not get ready")
    }

    fn describe(&mut self, id: &str) -> TransactionState {
        let request = DescribeTransactionsRequest { transactional_ids: vec![id.to_owned()] };
        self.call(0, &request).transaction_states.remove(0)
    }

    /// Waits until markers are written.
    fn settle(&mut self, id: &str) {
        for _ in 0..SETTLE_ATTEMPTS {
            if !self.describe(id).transaction_state.starts_with("Prepare") {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{id} does not end")
    }

    fn producer(&self, (id, epoch): Producer) -> Producer {
        (self.producer_ids.get(&id).copied().unwrap_or(id), epoch)
    }

    /// `None` when no client can say it.
    fn run(&mut self, verb: &str, args: &Args<'_>) -> Option<String> {
        let name = args.rest(0).first()?.trim_matches('\'').to_owned();
        let id = if name.is_empty() { String::new() } else { format!("{}{name}", self.prefix) };
        let last = self.producers.get(&name).copied().unwrap_or((-1, -1));
        let version = requests::version(args, verb);
        let replied = match verb {
            "init" if version < 6 => {
                let mut request = requests::init(&id, args, last);
                (request.producer_id, request.producer_epoch) =
                    self.producer((request.producer_id, request.producer_epoch));
                self.answer(version, &request, |r| print::init(&r))
            }
            "end" => {
                let mut request = requests::end(&id, args, last);
                (request.producer_id, request.producer_epoch) =
                    self.producer((request.producer_id, request.producer_epoch));
                self.answer(version, &request, |r| print::end(&r))
            }
            "offsets" => {
                let mut request = requests::offsets(&id, args, last);
                (request.producer_id, request.producer_epoch) =
                    self.producer((request.producer_id, request.producer_epoch));
                self.answer(version, &request, |r| print::response(&TransactionResponse::AddOffsets(r)))
            }
            "add" | "verify" => {
                let mut request = requests::add(&id, args, last, verb == "verify");
                (request.producer_id, request.producer_epoch) =
                    self.producer((request.producer_id, request.producer_epoch));
                let request = if version < 4 {
                    AddPartitionsToTxnRequest {
                        v3_and_below_transactional_id: request.transactional_id,
                        v3_and_below_producer_id: request.producer_id,
                        v3_and_below_producer_epoch: request.producer_epoch,
                        v3_and_below_topics: request.topics,
                        ..Default::default()
                    }
                } else {
                    AddPartitionsToTxnRequest { transactions: vec![request], ..Default::default() }
                };
                self.answer(version, &request, |r| print::added(&result(r)))
            }
            "describe" => return Some(print::described(&self.describe(&id))),
            _ => return None,
        };
        if !id.is_empty() {
            self.settle(&id);
        }
        Some(replied)
    }
}

fn result(mut response: AddPartitionsToTxnResponse) -> AddPartitionsToTxnResult {
    match response.results_by_transaction.pop() {
        Some(result) => result,
        None => AddPartitionsToTxnResult {
            transactional_id: String::new(),
            topic_results: response.results_by_topic_v3_and_below,
        },
    }
}
