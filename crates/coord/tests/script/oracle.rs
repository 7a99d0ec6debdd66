//! The scripts against a real Kafka: what it replies is what the traces say. `KAFKA_ORACLE=HOST:PORT` names a broker of
//! the same level with `group.initial.rebalance.delay.ms=0` and a topic `t`, `u`, `v` and `old` of 8 partitions each;
//! without it there is nothing to compare with, and the test is ignored.
//!
//! Compared are the replies to each command, whatever order they come in. A part of a script, from one `config` to the
//! next, ends where it says what no client can say (a held append, a crash, another setting, an hour of waiting). The
//! comment `# differs` in front of a command tells that the two are known to disagree.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use taccola_coord::Response;
use taccola_wire::codec::Request;
use taccola_wire::frame::{decode_response, encode_request};
use taccola_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest, OffsetFetchRequest,
    OffsetFetchResponse,
};

use super::{Args, World, duration_ms, print, requests};

/// How long no reply has come when all have that will come.
const QUIET: Duration = Duration::from_millis(400);
/// Longer waits end a part.
const TICK_MAX_MS: i64 = 13_000;

struct Oracle {
    address: String,
    /// Of the group ids: parts do not see each other.
    prefix: String,
    /// Member ids, the script's to the broker's.
    ids: BTreeMap<String, String>,
    replies: mpsc::Receiver<String>,
    sender: mpsc::Sender<String>,
}

impl Oracle {
    fn new(address: &str, prefix: String) -> Self {
        let (sender, replies) = mpsc::channel();
        Self { address: address.to_owned(), prefix, ids: BTreeMap::new(), replies, sender }
    }

    fn group(&self, id: &str) -> String {
        if id.is_empty() { String::new() } else { format!("{}{id}", self.prefix) }
    }

    fn id(&self, id: &str) -> String {
        self.ids.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    /// Sends a request on a connection of its own and puts the reply into words when it comes.
    fn send<R: Request + Send + 'static>(
        &self,
        args: &Args<'_>,
        what: &str,
        version: i16,
        request: R,
        wrap: impl FnOnce(R::Response) -> Vec<String> + Send + 'static,
    ) {
        let client = args.word(0).to_owned();
        let version = version.clamp(R::MIN_VERSION, R::MAX_VERSION);
        let frame = encode_request(1, Some(&client), version, &request).unwrap();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(&frame).unwrap();
        let (sender, label) = (self.sender.clone(), format!("{client} {what}"));
        std::thread::spawn(move || {
            let mut size = [0; 4];
            if stream.read_exact(&mut size).is_err() {
                return;
            }
            let mut frame = vec![0; u32::from_be_bytes(size) as usize];
            stream.read_exact(&mut frame).unwrap();
            let (_, response) = decode_response::<R>(version, Bytes::from(frame)).unwrap();
            for line in wrap(response) {
                let _ = sender.send(if what_is_a_row(&label) { line } else { format!("{label}: {line}") });
            }
        });
    }

    /// False when no client can say it.
    fn run(&mut self, verb: &str, args: &Args<'_>) -> bool {
        let version = requests::version(args, verb);
        let one = |response: Response| vec![print::response(&response)];
        match verb {
            "join" => {
                let mut request = requests::join(args);
                (request.group_id, request.member_id) = (self.group(&request.group_id), self.id(&request.member_id));
                self.send(args, "join", version, request, move |r| one(Response::JoinGroup(r)));
            }
            "sync" => {
                let mut request = requests::sync(args);
                (request.group_id, request.member_id) = (self.group(&request.group_id), self.id(&request.member_id));
                for row in &mut request.assignments {
                    row.member_id = self.id(&row.member_id);
                }
                self.send(args, "sync", version, request, move |r| one(Response::SyncGroup(r)));
            }
            "heartbeat" => {
                let mut request = requests::heartbeat(args);
                (request.group_id, request.member_id) = (self.group(&request.group_id), self.id(&request.member_id));
                self.send(args, "heartbeat", 4, request, |r| vec![print::code(r.error_code).to_owned()]);
            }
            "leave" => {
                let mut request = requests::leave(args);
                (request.group_id, request.member_id) = (self.group(&request.group_id), self.id(&request.member_id));
                for row in &mut request.members {
                    row.member_id = self.id(&row.member_id);
                }
                if version >= 3 {
                    request.member_id.clear();
                }
                self.send(args, "leave", version, request, move |r| one(Response::LeaveGroup(r)));
            }
            "commit" if args.get("id").is_none() => {
                let mut request = requests::commit(args);
                // Retention is a field of v2 to v4, and the instance id one from v7 on.
                let version = if request.retention_time_ms != -1 { 4 } else { version };
                (request.group_id, request.member_id) = (self.group(&request.group_id), self.id(&request.member_id));
                self.send(args, "commit", version, request, move |r| one(Response::OffsetCommit(r)));
            }
            "fetch" if args.get("id").is_none() => {
                let mut group = requests::fetch(args);
                group.group_id = self.group(&group.group_id);
                let require_stable = requests::is_stable(args);
                let request = OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() };
                let wrap = move |mut r: OffsetFetchResponse| {
                    let mut group = r.groups.remove(0);
                    group.topics.sort_by(|a, b| a.name.cmp(&b.name));
                    group.topics.iter_mut().for_each(|t| t.partitions.sort_by_key(|p| p.partition_index));
                    one(Response::OffsetFetch(group))
                };
                self.send(args, "fetch", 8, request, wrap);
            }
            "offset-delete" => {
                let mut request = requests::offset_delete(args);
                request.group_id = self.group(&request.group_id);
                self.send(args, "offset-delete", 0, request, move |r| one(Response::OffsetDelete(r)));
            }
            "delete" => {
                let groups_names = args.rest(1).iter().map(|g| self.group(g)).collect();
                let wrap =
                    move |r: taccola_wire::messages::DeleteGroupsResponse| one(Response::DeleteGroups(r.results));
                self.send(args, "delete", 2, DeleteGroupsRequest { groups_names }, wrap);
            }
            "describe" => {
                let groups = args.rest(0).iter().map(|g| self.group(g)).collect();
                let request = DescribeGroupsRequest { groups, ..Default::default() };
                self.send(args, ROWS, args.number("v", 6), request, |r| {
                    r.groups.iter().map(print::described).collect()
                });
            }
            "list" => {
                let prefix = self.prefix.clone();
                let request: ListGroupsRequest = requests::list(args);
                let with_client = Args::parse_line("list");
                self.send(&with_client, ROWS, 5, request, move |r| {
                    r.groups.iter().filter(|g| g.group_id.starts_with(&prefix)).map(print::listed).collect()
                });
            }
            "tick" => {
                let ms = duration_ms(args.word(0));
                if ms > TICK_MAX_MS {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(ms as u64 + 30));
            }
            _ => return false,
        }
        true
    }

    fn collect(&self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(line) = self.replies.recv_timeout(QUIET) {
            lines.push(line.replace(&self.prefix, ""));
        }
        lines
    }

    /// Learns the broker's name of a member from the two replies to one join, and speaks of it as the script does.
    fn translate(&mut self, expected: &[String], actual: &mut [String]) {
        let member = |line: &str| {
            let after = line.split_once(" member=")?.1;
            Some(after.split([' ']).next()?.trim_matches('"').to_owned()).filter(|id| !id.is_empty())
        };
        for line in expected.iter().filter(|l| l.contains(" join: ")) {
            let label = line.split(':').next().unwrap();
            let same = actual.iter().find(|l| l.split(':').next() == Some(label));
            if let (Some(ours), Some(theirs)) = (member(line), same.and_then(|l| member(l)))
                && ours.contains('#')
            {
                self.ids.insert(print::lengthen(&ours), theirs);
            }
        }
        for line in actual.iter_mut() {
            for (ours, theirs) in &self.ids {
                *line = line.replace(theirs.as_str(), ours);
            }
            *line = print::shorten(line);
        }
    }
}

const ROWS: &str = "rows";

fn what_is_a_row(label: &str) -> bool {
    label.ends_with(ROWS)
}

/// The order of members, and of rows, is nobody's promise. `old`: the version carries no protocol type.
fn normalized(mut lines: Vec<String>, old: bool) -> Vec<String> {
    for line in &mut lines {
        if let Some((before, protocol)) = line.clone().split_once(" protocol=").filter(|_| old) {
            let name = protocol.split_once('/').map_or("", |(_, name)| name);
            *line = if before.contains(" sync: ") { before.to_owned() } else { format!("{before} protocol=/{name}") };
        }
        if let Some((before, members)) = line.clone().split_once("members=[") {
            let (members, after) = members.split_once(']').unwrap();
            let mut members: Vec<&str> = members.split(", ").collect();
            members.sort_unstable();
            *line = format!("{before}members=[{}]{after}", members.join(", "));
        }
        let words = line.split(' ').collect::<Vec<_>>();
        if let Some(at) = line.find(" metadata=") {
            let start = line[..at].rfind(' ').unwrap();
            // Of members that have had no reply yet the broker's names are not known.
            let mut rows: Vec<String> = words_of_members(&line[start + 1..]);
            for row in &mut rows {
                let id_len = row.find(' ').unwrap();
                let client = row.find(['#', '-']).unwrap_or(id_len).min(id_len);
                row.replace_range(client..id_len, "");
            }
            rows.sort();
            *line = format!("{} {}", &line[..start], rows.join(" "));
        } else if line.contains(" delete: ") {
            let mut rows = words[2..].to_vec();
            rows.sort_unstable();
            *line = format!("{} {} {}", words[0], words[1], rows.join(" "));
        }
    }
    lines.sort();
    lines
}

fn words_of_members(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split(' ').collect();
    words.chunks(3).map(|member| member.join(" ")).collect()
}

/// Has the broker make `__consumer_offsets`.
fn find_coordinator(address: &str) {
    for _ in 0..60 {
        let request = FindCoordinatorRequest { key: "oracle".to_owned(), ..Default::default() };
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&encode_request(1, None, 1, &request).unwrap()).unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut frame).unwrap();
        let (_, response) = decode_response::<FindCoordinatorRequest>(1, Bytes::from(frame)).unwrap();
        if response.error_code == 0 {
            return;
        }
        std::thread::sleep(QUIET);
    }
    panic!("no coordinator");
}

#[test]
#[ignore = "needs a Kafka broker: KAFKA_ORACLE"]
fn a_real_kafka_replies_as_the_traces_say() {
    let address = std::env::var("KAFKA_ORACLE").expect("KAFKA_ORACLE=HOST:PORT");
    let only = std::env::var("ORACLE_SCRIPT").unwrap_or_default();
    find_coordinator(&address);
    let run = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt") && p.to_string_lossy().contains(&only));
    paths.sort();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (number, path) in paths.iter().enumerate() {
        let mut world = World::new();
        let mut oracle = Oracle::new(&address, String::new());
        let (mut part, mut live) = (0, false);
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().copied().enumerate() {
            let mut words = line.split_whitespace();
            let Some(verb) = words.next().filter(|_| !line.starts_with([' ', '#'])) else { continue };
            let args = Args::parse(words);
            world.run(verb, &args);
            let expected = world.take_output();
            if verb == "config" {
                part += 1;
                live = line.trim() == "config";
                oracle = Oracle::new(&address, format!("o{run}-{number}-{part}-"));
                continue;
            }
            if verb == "log" {
                continue;
            }
            live = live && oracle.run(verb, &args);
            if !live {
                continue;
            }
            let is_reply = |l: &String| {
                !["timer ", "append "].iter().any(|p| l.starts_with(p))
                    && ![" waits", " fires"].iter().any(|p| l.ends_with(p))
            };
            let mut expected: Vec<String> = expected.into_iter().filter(is_reply).collect();
            // The broker needs no tick to see that an initial delay of nothing is over.
            if let Some(next) = lines.get(at + 1..).and_then(|l| l.iter().find(|l| !l.starts_with([' ', '#'])))
                && *next == "tick 1ms"
            {
                world.run("tick", &Args::parse_line("1ms"));
                expected.extend(world.take_output().into_iter().filter(is_reply));
            }
            let mut actual = oracle.collect();
            oracle.translate(&expected, &mut actual);
            compared += expected.len();
            let null = actual.iter().any(|l| l.contains("protocol=null"));
            let (expected, actual) = (normalized(expected, null), normalized(actual, null));
            let differs = at.checked_sub(1).is_some_and(|before| lines[before].starts_with("# differs"));
            if expected != actual && !differs {
                let name = path.file_name().unwrap().to_string_lossy();
                wrong.push(format!("{name}:{} {line}\n  ours   {expected:#?}\n  Kafka's {actual:#?}", at + 1));
            }
        }
    }
    println!("{compared} replies compared");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
