//! Says again what a client said, in the same order, and compares what is heard.
//!
//! A request goes out where it stood, and a reply is waited for where it stood: what was concurrent is so again. Ids that the
//! brokers choose are learnt from the replies, and put into the requests that follow: topics, members, clusters, fetch
//! sessions. A name that the one broker uses for one thing must be one name of the other.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;

use bytes::Bytes;
use regex::{Captures, Regex};
use taccola_base::Uuid;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::frame::{HeaderError, decode_request_header};
use taccola_wire::messages::FetchRequest;

use super::recorder::{read_frame, write_frame};
use super::{Event, Traffic, words};
use crate::WITHIN;
use crate::differential::coverage::NOT_SERVED;
use crate::txn::wait;

/// Fields that are each broker's own, or that of the moment.
const OWN: [&str; 14] = [
    "throttle_time_ms",
    "port",
    "host",
    "error_message",
    "finalized_features_epoch",
    "log_append_time_ms",
    "log_dir",
    "total_bytes",
    "usable_bytes",
    "transaction_start_time_ms",
    "last_timestamp",
    "client_host",
    "partition_size",
    "documentation",
];

/// How a replay went.
#[derive(Debug, Default)]
pub struct Replayed {
    pub requests: usize,
    /// Replies that were compared, by API key.
    pub compared: BTreeMap<String, usize>,
    /// Replies by which Kafka asked its client to come again, where the other broker has an answer.
    pub patient: usize,
    pub differing: usize,
    /// What differs.
    pub report: String,
}

/// A request whose reply is due.
struct Due {
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    /// Not said again: a client would not have said it, as the key is not advertised.
    left_out: bool,
}

#[derive(Default)]
struct Replay {
    connections: HashMap<u32, TcpStream>,
    due: HashMap<u32, Vec<Due>>,
    /// The recorded broker's names, and the other's.
    names: Vec<(String, String)>,
    sessions: HashMap<i32, i32>,
    result: Replayed,
}

/// Replays at a broker that is as fresh as the recorded one was.
pub fn replay(traffic: &Traffic, broker: SocketAddr) -> io::Result<Replayed> {
    let mut replay = Replay::default();
    for event in &traffic.events {
        match event {
            Event::Request { connection, frame } => replay.request(broker, *connection, frame)?,
            Event::Reply { connection, frame } => replay.reply(*connection, frame)?,
            Event::Closed { connection } => drop(replay.connections.remove(connection)),
        }
    }
    Ok(replay.result)
}

impl Replay {
    fn request(&mut self, broker: SocketAddr, connection: u32, frame: &[u8]) -> io::Result<()> {
        let mut own = frame.to_vec();
        let due = match decode_request_header(Bytes::copy_from_slice(frame)) {
            Ok((key, header, reader)) => {
                let (version, correlation_id) = (header.request_api_version, header.correlation_id);
                if key == ApiKey::Fetch {
                    own = self.with_session(own, version, reader)?;
                }
                let left_out = NOT_SERVED.contains(&key) || among_brokers(key, version);
                Due { correlation_id, key, version, left_out }
            }
            // KIP-511: whoever asks for too much hears what there is, in the oldest words.
            Err(HeaderError::Unsupported { api_key, correlation_id, .. }) if api_key == ApiKey::ApiVersions.code() => {
                Due { correlation_id, key: ApiKey::ApiVersions, version: 0, left_out: false }
            }
            Err(error) => return Err(io::Error::other(format!("a recorded request: {error}"))),
        };
        let left_out = due.left_out;
        self.due.entry(connection).or_default().push(due);
        if left_out {
            return Ok(());
        }
        self.result.requests += 1;
        let mut frame = own;
        for (recorded, own) in &self.names {
            replace(&mut frame, recorded.as_bytes(), own.as_bytes());
            if let (Ok(recorded), Ok(own)) = (recorded.parse::<Uuid>(), own.parse::<Uuid>()) {
                replace(&mut frame, recorded.as_bytes(), own.as_bytes());
            }
        }
        let stream = match self.connections.entry(connection) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(new) => {
                let stream = TcpStream::connect_timeout(&broker, WITHIN)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(WITHIN))?;
                new.insert(stream)
            }
        };
        write_frame(stream, &frame)
    }

    fn with_session(
        &self,
        frame: Vec<u8>,
        version: i16,
        mut reader: taccola_wire::codec::Reader,
    ) -> io::Result<Vec<u8>> {
        let header_bytes = frame.len() - reader.remaining();
        let mut request = FetchRequest::read(&mut reader, version).map_err(io::Error::other)?;
        let Some(session) = self.sessions.get(&request.session_id) else { return Ok(frame) };
        request.session_id = *session;
        let mut changed = frame.get(..header_bytes).unwrap_or_default().to_vec();
        changed.extend_from_slice(&request.to_bytes(version).map_err(io::Error::other)?);
        Ok(changed)
    }

    fn reply(&mut self, connection: u32, frame: &[u8]) -> io::Result<()> {
        let correlation_id = frame.first_chunk().map(|id| i32::from_be_bytes(*id));
        let due = self.due.entry(connection).or_default();
        let at = due.iter().position(|due| Some(due.correlation_id) == correlation_id);
        let Due { key, version, left_out, .. } = due.remove(at.ok_or_else(|| io::Error::other("a reply to nothing"))?);
        if left_out {
            return Ok(());
        }
        let name = format!("{key:?} v{version}, reply {}", self.result.compared.values().sum::<usize>());
        *self.result.compared.entry(format!("{key:?}")).or_default() += 1;
        let recorded = words::shown(key, version, frame)?;
        let stream = self.connections.get_mut(&connection).ok_or_else(|| io::Error::other("no connection"))?;
        let said = match read_frame(stream) {
            Ok(frame) => words::shown(key, version, &frame).unwrap_or_else(|error| error.to_string()),
            Err(error) => format!("no reply: {error}"),
        };
        if asks_for_patience(&recorded) && !asks_for_patience(&said) {
            self.result.patient += 1;
        } else {
            self.compare(&name, &recorded, &said);
        }
        Ok(())
    }

    fn compare(&mut self, name: &str, recorded: &str, said: &str) {
        let same_shape = recorded.lines().count() == said.lines().count();
        let mut differing: Vec<String> = Vec::new();
        if same_shape {
            for (kafkas, own) in recorded.lines().zip(said.lines()) {
                if kafkas != own && !self.may_differ(kafkas.trim(), own.trim()) {
                    differing.push(format!("  - {}\n  + {}", kafkas.trim(), own.trim()));
                }
            }
        } else {
            differing.push(format!("  - {}\n  + {}", squeezed(recorded), squeezed(said)));
        }
        if !differing.is_empty() {
            self.result.differing += 1;
            let _ = writeln!(self.result.report, "{name}\n{}", differing.join("\n"));
        }
    }

    /// Whether two lines are the same but for what each broker chooses. Learns names.
    fn may_differ(&mut self, kafkas: &str, own: &str) -> bool {
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (named, value, mine) = match (field(kafkas), field(own)) {
            (Some((name, value)), Some((other, mine))) if name == other => (name, value, mine),
            (None, None) => (String::new(), kafkas.to_owned(), own.to_owned()),
            _ => return false,
        };
        if OWN.contains(&named.as_str()) {
            return true;
        }
        if named == "session_id" {
            let numbers = (value.trim_end_matches(',').parse::<i32>(), mine.trim_end_matches(',').parse::<i32>());
            let (Ok(kafkas), Ok(own)) = numbers else { return false };
            return (kafkas != 0) == (own != 0) && *self.sessions.entry(kafkas).or_insert(own) == own;
        }
        let (Some(kafkas), Some(own)) = (id_in(&value), id_in(&mine)) else { return false };
        kafkas[1] == own[1] && kafkas[3] == own[3] && self.learn(&kafkas[2], &own[2])
    }

    fn learn(&mut self, recorded: &str, own: &str) -> bool {
        if recorded.len() != own.len() {
            return false;
        }
        if let Some(known) = self.names.iter().find(|names| names.0 == recorded || names.1 == own) {
            return known.0 == recorded && known.1 == own;
        }
        self.names.push((recorded.to_owned(), own.to_owned()));
        true
    }
}

/// Whether a reply says that something is not ready yet: an error that passes, or a transaction whose markers are not written.
fn asks_for_patience(reply: &str) -> bool {
    reply.lines().any(|line| match line.trim().split_once(": ") {
        Some(("error_code" | "partition_error_code", code)) => {
            code.trim_end_matches(',').parse::<i16>().is_ok_and(|code| wait(ErrorCode::from_code(code)))
        }
        Some(("transaction_state", state)) => state.starts_with("\"Prepare"),
        _ => false,
    })
}

/// An id, with what stands before and behind it: a member's, or one of 22 digits of six bits.
fn id_in(value: &str) -> Option<Captures<'_>> {
    static IDS: OnceLock<[Regex; 3]> = OnceLock::new();
    let ids = IDS.get_or_init(|| {
        let pattern = |text: &str| Regex::new(text).expect("a pattern");
        [
            pattern("^(.*?)([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(.*)$"),
            pattern(r#"^(\W*|Some\("?)([A-Za-z0-9_-]{22})(\W*)$"#),
            // A share partition: group, topic, partition.
            pattern(r#"^("[^"]*:)([A-Za-z0-9_-]{22})(:\d+",)$"#),
        ]
    });
    ids.iter().find_map(|id| id.captures(value))
}

/// What a broker asks itself, by its advertised address and so through the proxy.
fn among_brokers(key: ApiKey, version: i16) -> bool {
    match key {
        ApiKey::AddPartitionsToTxn => version >= 4,
        ApiKey::WriteTxnMarkers
        | ApiKey::InitializeShareGroupState
        | ApiKey::ReadShareGroupState
        | ApiKey::WriteShareGroupState
        | ApiKey::DeleteShareGroupState
        | ApiKey::ReadShareGroupStateSummary => true,
        _ => false,
    }
}

/// Exchanges bytes for as many others.
fn replace(frame: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = frame.get(at..).and_then(|rest| rest.windows(from.len()).position(|window| window == from))
    {
        if let Some(place) = frame.get_mut(at + found..at + found + from.len()) {
            place.copy_from_slice(to);
        }
        at += found + from.len();
    }
}

/// On one line, and no longer than is read.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(2_000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_learnt_and_must_be_kept() {
        let mut replay = Replay::default();
        let line = |id: &str| format!("topic_id: {id},");
        let (a, b, c) = ("AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAAg", "AAAAAAAAAAAAAAAAAAAAAw");
        assert!(replay.may_differ(&line(a), &line(b)));
        assert!(replay.may_differ(&line(a), &line(b)));
        assert!(!replay.may_differ(&line(a), &line(c)), "another name for the same thing");
        assert!(!replay.may_differ(&line(c), &line(b)), "the same name for another thing");
        assert!(!replay.may_differ("error_code: 3,", "error_code: 0,"));
        assert!(replay.may_differ("port: 3,", "port: 9,"));
        let member = |id: &str| format!("member_id: \"client-{id}\",");
        let (d, e) = ("0a5a2f4a-0000-4000-8000-000000000001", "0a5a2f4a-0000-4000-8000-000000000002");
        assert!(replay.may_differ(&member(d), &member(e)));
        let mut frame = format!("x client-{d} y").into_bytes();
        replace(&mut frame, d.as_bytes(), e.as_bytes());
        assert_eq!(frame, format!("x client-{e} y").into_bytes());
    }
}
