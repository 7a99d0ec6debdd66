//! One side of a comparison: its connections, the ids that its broker chose, and what was said since the last step.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use taccola_base::Uuid;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::Request;
use taccola_wire::messages::{JoinGroupResponse, SyncGroupResponse};

use super::{classic, consumer, share, streams, topics, transactions};
use crate::conn::Conn;
use crate::differential::compact;
use crate::ledger::Rng;

/// Ids of members, which are chosen by clients: in the order of their hashes in Java, so that what goes through hash maps there
/// goes in their order, too.
pub const MEMBERS: [&str; 4] =
    ["ALNIjvj0xCi01D29FM1Jkg", "BjCtC9hTrBGu2pCBqhgoUA", "Cyb5MdXTKNxWMMiT6KCGpw", "D4fnzcBcxK6rTD6UJlnyLQ"];

/// A request whose reply may take its time.
struct Parked {
    conn: Conn,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    group: usize,
    member: usize,
}

pub struct World {
    pub address: SocketAddr,
    pub conn: Conn,
    pub prefix: String,
    /// What this broker calls something, and what it is called in comparisons.
    names: Vec<(String, String)>,
    producer_ids: BTreeMap<i64, String>,
    log: Vec<String>,
    parked: Vec<Parked>,
    /// Whether this step may have changed something.
    pub changing: bool,
    /// Groups so far that subscribed by an expression.
    pub expressions: usize,
    pub topics: Vec<topics::Topic>,
    pub classic: Vec<classic::Group>,
    pub consumers: Vec<consumer::Group>,
    pub shares: Vec<share::Group>,
    pub streams: Vec<streams::Group>,
    pub producers: Vec<transactions::Producer>,
}

impl World {
    pub fn new(address: SocketAddr, prefix: &str, seed: u64) -> io::Result<Self> {
        let mut world = Self {
            address,
            conn: Conn::connect_to(address)?,
            prefix: prefix.to_owned(),
            names: Vec::new(),
            producer_ids: BTreeMap::new(),
            log: Vec::new(),
            parked: Vec::new(),
            changing: false,
            expressions: 0,
            topics: Vec::new(),
            classic: (0..2).map(|n| classic::Group::new(format!("{prefix}-g{n}"))).collect(),
            consumers: (0..2).map(|n| consumer::Group::new(format!("{prefix}-c{n}"))).collect(),
            shares: (0..2).map(|n| share::Group::new(format!("{prefix}-s{n}"))).collect(),
            streams: (0..1).map(|n| streams::Group::new(format!("{prefix}-st{n}"))).collect(),
            producers: Vec::new(),
        };
        world.producers = transactions::producers(prefix);
        topics::prepare(&mut world, &mut Rng(seed));
        share::prepare(&mut world, &mut Rng(seed));
        world.log.clear();
        Ok(world)
    }

    /// From now on `own` is called `name` in what is compared.
    pub fn call(&mut self, own: &str, name: String) {
        if !own.is_empty() && !self.names.iter().any(|(known, _)| known == own) {
            self.names.push((own.to_owned(), name));
        }
    }

    pub fn call_producer(&mut self, own: i64) {
        let name = format!("P{}", self.producer_ids.len());
        if own >= 0 {
            self.producer_ids.entry(own).or_insert(name);
        }
    }

    fn named(&self, mut text: String) -> String {
        for (own, name) in &self.names {
            text = text.replace(own, name);
        }
        for (own, name) in &self.producer_ids {
            for end in [",", " }"] {
                text = text.replace(&format!("producer_id: {own}{end}"), &format!("producer_id: {name}{end}"));
            }
        }
        text.replace(&self.prefix, "q")
    }

    pub fn note(&mut self, text: String) {
        self.log.push(text);
    }

    /// What an id is called, or itself.
    pub fn name_of(&self, own: &str) -> String {
        self.names.iter().find(|(known, _)| known == own).map_or(own, |(_, name)| name).to_owned()
    }

    pub fn all_names(&self) -> BTreeMap<String, String> {
        self.names.iter().cloned().collect()
    }

    pub fn producer_names(&self) -> BTreeMap<i64, String> {
        self.producer_ids.clone()
    }

    /// How many names there are: what changes nothing finds no new ones.
    pub(super) fn asides(&self) -> usize {
        self.names.len() + self.producer_ids.len()
    }

    /// What was asked and answered since the last call.
    pub(super) fn said(&mut self) -> Vec<String> {
        let log = std::mem::take(&mut self.log);
        log.into_iter().map(|line| self.named(line)).collect()
    }

    fn told<R: Request>(&mut self, version: i16, request: &R) {
        let mut text = compact(&format!("{request:?}"));
        // Records hold producer ids.
        if let Some(at) = text.find("records: Some(b\"") {
            text.truncate(at);
            text.push_str("records …");
        }
        self.note(format!("> v{version} {text}"));
    }

    /// Asks; the reply as it came, before `equal` makes it comparable. `None`: the broker closed the connection.
    pub fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        equal: impl Fn(&mut R::Response),
    ) -> Option<R::Response>
    where
        R::Response: Debug + Clone,
    {
        self.ask_learning(request, version, |_, _| (), equal)
    }

    /// The same where the reply has ids, which `learn` gives their names first.
    pub fn ask_learning<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        learn: impl FnOnce(&mut Self, &R::Response),
        equal: impl Fn(&mut R::Response),
    ) -> Option<R::Response>
    where
        R::Response: Debug + Clone,
    {
        self.changing = true;
        self.told(version, request);
        match self.conn.call(request, version) {
            Ok(reply) => {
                learn(self, &reply);
                let mut shown = reply.clone();
                equal(&mut shown);
                let text = compact(&format!("{shown:?}"));
                self.note(format!("< {text}"));
                Some(reply)
            }
            Err(error) => {
                self.conn = Conn::connect_to(self.address).expect("the broker still listens");
                self.note(format!("< no reply: {:?}", error.kind()));
                None
            }
        }
    }

    /// The same for what changes nothing, and may be asked again when the sides differ.
    pub fn read<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        equal: impl Fn(&mut R::Response),
    ) -> Option<R::Response>
    where
        R::Response: Debug + Clone,
    {
        let changing = self.changing;
        let reply = self.ask(request, version, equal);
        self.changing = changing;
        reply
    }

    /// Sends what is answered when others have done their part.
    pub fn park<R: Request>(&mut self, request: &R, version: i16, group: usize, member: usize) {
        self.changing = true;
        self.told(version, request);
        let mut conn = Conn::connect_to(self.address).expect("the broker still listens");
        let correlation_id = conn.send(request, version).expect("the request is sent");
        self.parked.push(Parked { conn, key: R::KEY, version, correlation_id, group, member });
    }

    pub fn is_parked(&self, group: usize, member: usize) -> bool {
        self.parked.iter().any(|parked| (parked.group, parked.member) == (group, member))
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn waiting(&self) -> Vec<(usize, usize)> {
        let mut waiting: Vec<_> = self.parked.iter().map(|parked| (parked.group, parked.member)).collect();
        waiting.sort_unstable();
        waiting
    }

    /// Takes replies that have come; whether there were any. Those of one moment are told in the order of the members.
    pub(super) fn hear(&mut self) -> bool {
        let (mut come, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parked).into_iter().partition(|parked| {
            let stream = &parked.conn.stream;
            let mut byte = [0; 1];
            stream.set_nonblocking(true).expect("a socket");
            let come = !matches!(stream.peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            stream.set_nonblocking(false).expect("a socket");
            come
        });
        self.parked = wait;
        let any = !come.is_empty();
        if any {
            come.sort_by_key(|parked| (parked.group, parked.member));
        }
        for mut parked in come {
            let Parked { key, version, correlation_id, group, member, .. } = parked;
            let at = format!("g{group} m{member}");
            match key {
                ApiKey::JoinGroup => match parked.conn.reply::<JoinGroupResponse>(key, version, correlation_id) {
                    Ok(reply) => classic::joined(self, group, member, &at, reply),
                    Err(error) => self.note(format!("< {at} {:?}", error.kind())),
                },
                _ => match parked.conn.reply::<SyncGroupResponse>(key, version, correlation_id) {
                    Ok(reply) => classic::synced(self, group, member, &at, &reply),
                    Err(error) => self.note(format!("< {at} {:?}", error.kind())),
                },
            }
        }
        // Replies of one step come in no order.
        if let Some(from) = self.log.iter().position(|line| line.starts_with("<<")) {
            self.log[from..].sort();
        }
        any
    }

    /// Leaves little behind.
    pub(super) fn tidy(&mut self) {
        self.parked.clear();
        topics::delete_all(self);
    }

    pub fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    /// A group of any kind, mostly not the one that is meant.
    pub fn any_group(&self, rng: &mut Rng) -> String {
        match rng.below(6) {
            0 => self.classic[0].id.clone(),
            1 => self.consumers[0].id.clone(),
            2 => self.shares[0].id.clone(),
            3 => self.streams[0].id.clone(),
            4 => format!("{}-none", self.prefix),
            _ => String::new(),
        }
    }

    /// The broker's id of a topic; `None` for one that is not there.
    pub fn topic_id(&self, name: &str) -> Uuid {
        self.topics.iter().find(|topic| topic.name == name && topic.exists).map_or(Uuid::ZERO, |topic| topic.id)
    }

    pub fn topic_name(&self, id: Uuid) -> Option<String> {
        self.topics.iter().find(|topic| topic.id == id).map(|topic| topic.name.clone())
    }

    pub fn some_topic(&self, rng: &mut Rng) -> topics::Topic {
        self.topics[below(rng, self.topics.len())].clone()
    }
}

/// 0 ≤ result < `bound`.
pub fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).expect("small")
}

pub fn pick<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[below(rng, of.len())].clone()
}

/// A version of those that are served.
pub fn version(rng: &mut Rng, range: std::ops::RangeInclusive<i16>) -> i16 {
    let count = u64::try_from(range.end() - range.start() + 1).expect("a range");
    range.start() + i16::try_from(rng.below(count)).expect("small")
}

/// Mostly the number itself, now and then one beside it.
pub fn about(rng: &mut Rng, number: i32) -> i32 {
    match rng.below(14) {
        0 => number.wrapping_sub(1),
        1 => number.wrapping_add(1),
        2 => 0,
        3 => pick(rng, &[-1, -2, -3, i32::MAX]),
        _ => number,
    }
}
