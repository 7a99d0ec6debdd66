//! Bytes that nobody should send, and surroundings in which no broker can start. Nothing may panic, nothing may grow beyond
//! bounds, and nobody else may notice; what cannot start says why in one sentence.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use taccola_it::clients::ABSENT;
use taccola_it::conn::Conn;
use taccola_it::ledger::Rng;
use taccola_it::requests::{batch, fetch, list_offset, new_topic, produce, produce_request, produced};
use taccola_it::{Broker, binary, eventually, free_port};
use taccola_wire::api::ApiKey;
use taccola_wire::codec::Message;
use taccola_wire::messages::*;

/// Resident memory in KiB.
fn resident_kib(broker: &Broker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// A broker with a topic, and a connection whose owner must not notice anything.
struct Witness {
    broker: Broker,
    conn: Conn,
    next: i64,
    before_kib: u64,
}

impl Witness {
    fn new(properties: &[&str]) -> Self {
        let broker = Broker::start(properties);
        let mut conn = Conn::connect(broker.port).expect("the broker accepts");
        new_topic(&mut conn, "witness", 1, &[]);
        produced(&mut conn, "witness", 0, batch(&["first"]));
        let before_kib = resident_kib(&broker);
        Self { broker, conn, next: 1, before_kib }
    }

    /// The old connection works as before, a new one is accepted, the log has nothing but the witness's records.
    fn check(&mut self, after: &str) {
        self.broker.assert_alive();
        let at = produced(&mut self.conn, "witness", 0, batch(&["again"]));
        assert_eq!(at, self.next, "after {after}");
        self.next += 1;
        let mut new = Conn::connect(self.broker.port).expect("the broker accepts");
        assert_eq!(list_offset(&mut new, "witness", 0, -1).1, self.next, "after {after}");
        let log = self.broker.log().join("\n");
        assert!(!log.contains("panicked"), "after {after}: {log}");
        let grown = resident_kib(&self.broker).saturating_sub(self.before_kib);
        assert!(grown < 160 * 1024, "after {after}: {grown} KiB more");
    }

    fn throw(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.broker.port)).expect("the broker accepts");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        // The broker may close at the first bytes.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
    }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes()[..], bytes].concat()
}

#[test]
fn garbage_of_all_kinds() {
    let mut witness = Witness::new(&[]);
    let mut rng = Rng(7);
    for round in 0..200u64 {
        let bytes: Vec<u8> = (0..rng.below(2_000)).map(|_| rng.next() as u8).collect();
        witness.throw(&if round % 2 == 0 { bytes } else { framed(&bytes) });
    }
    witness.check("random bytes");
    for size in [-1, i32::MIN, i32::MAX, 0, 1, 7, 104_857_601, 104_857_600] {
        witness.throw(&i32::to_be_bytes(size));
        witness.throw(&[&i32::to_be_bytes(size)[..], &[0, 3, 0, 12]].concat());
    }
    witness.check("sizes that lie");
    witness.throw(b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n");
    witness.throw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03");
    witness.check("other protocols");
}

#[test]
fn frames_that_never_end_hold_nothing_up() {
    let mut witness = Witness::new(&[]);
    // A hundred connections announce 100 MB each and send a few bytes of it.
    let half: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", witness.broker.port)).expect("the broker accepts");
            stream.write_all(&104_857_600_i32.to_be_bytes()).expect("sent");
            stream.write_all(&[0, 0, 0, 12, 0, 0, 0, 1]).expect("sent");
            stream
        })
        .collect();
    let begun = Instant::now();
    witness.check("half frames");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(half);
    witness.check("their end");
}

#[test]
fn every_api_with_every_cut_of_its_body() {
    let mut witness = Witness::new(&[]);
    let rows = witness.conn.ask(&ApiVersionsRequest::default(), 0);
    let mut rng = Rng(11);
    for row in &rows.api_keys {
        let key = ApiKey::from_code(row.api_key).expect("a key of the release");
        for version in row.min_version.max(key.info().min)..=row.max_version {
            let Ok(mut conn) = Conn::connect(witness.broker.port) else { panic!("the broker accepts") };
            conn.read_within(Duration::from_secs(5)).unwrap();
            for body in 0..6u64 {
                let length = rng.below(60) as usize;
                let bytes: Vec<u8> = match body {
                    0 => Vec::new(),
                    // Counts and lengths that promise everything.
                    1 => vec![0x7f; length],
                    2 => vec![0xff; length],
                    3 => [vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![0; length]].concat(),
                    _ => (0..length).map(|_| rng.next() as u8).collect(),
                };
                let answered = conn.send_body(key, version, &bytes).and_then(|_| {
                    // Some of these are proper requests that wait, and acks=0 has no reply: nobody waits for them here.
                    conn.stream.set_nonblocking(false)
                });
                if answered.is_err() {
                    conn = Conn::connect(witness.broker.port).expect("the broker accepts");
                }
            }
        }
    }
    witness.check("bodies of all kinds");
    let whole = produce_request(-1, "witness", 0, batch(&["cut"])).to_bytes(9).expect("a request");
    for length in 0..whole.len() {
        let mut conn = Conn::connect(witness.broker.port).expect("the broker accepts");
        conn.send_body(ApiKey::Produce, 9, &whole[..length]).expect("sent");
        let answer = conn.frame();
        let closed = answer.is_err();
        assert!(closed || answer.is_ok_and(|frame| !frame.is_empty()), "cut at {length}");
    }
    witness.check("a Produce request cut at every byte");
}

#[test]
fn record_batches_with_every_byte_changed() {
    let mut witness = Witness::new(&[]);
    let good = batch(&["value"]);
    new_topic(&mut witness.conn, "flipped", 1, &[]);
    let mut taken = 0;
    for at in 0..good.len() {
        for bits in [0xff, 0x01, 0x80] {
            let mut bad = good.to_vec();
            bad[at] ^= bits;
            if produce(&mut witness.conn, "flipped", 0, bad.into()).error_code == 0 {
                taken += 1;
            }
        }
    }
    // The leader epoch is the broker's to set: its four bytes are the only ones that nobody checks.
    assert_eq!(taken, 4 * 3, "batches that were taken");
    let data = fetch(&mut witness.conn, "flipped", 0, 0);
    assert_eq!(taccola_it::requests::records_of(&data, 0).len(), taken);
    witness.check("changed batches");
}

// ---- surroundings ------------------------------------------------------------------------------------------------------

/// Starts the broker where it cannot start; what it said.
fn refused(home: &Path, port: u16, more: &str) -> Output {
    let controller = free_port();
    let file = home.join("server.properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=0\ncontroller.quorum.voters=0@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\nlog.dirs={}\n{more}\n",
        home.join("data").display()
    );
    fs::write(&file, text).expect("server.properties is written");
    let mut child = Command::new(binary())
        .args(["serve", "-c"])
        .arg(&file)
        .env_remove("KAFKA_JARS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the broker's binary runs");
    eventually("the broker to give up", || child.try_wait().expect("our child"));
    child.wait_with_output().expect("our child")
}

/// One sentence that names the cause, a status that is not 0, no panic.
fn assert_one_sentence(what: &str, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{what}: {said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{what}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    for word in words {
        assert!(errors[0].to_lowercase().contains(word), "{what} should speak of {word:?}: {said}");
    }
    println!("{what}: {}", errors[0]);
}

#[test]
fn a_port_that_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert_one_sentence("busy port", &refused(home.path(), port, ""), &[&port.to_string()]);
}

#[test]
fn directories_that_are_not_ours() {
    let foreign = |what: &str, words: &[&str], prepare: &dyn Fn(&Path)| {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        fs::create_dir(&data).unwrap();
        prepare(&data);
        assert_one_sentence(what, &refused(home.path(), free_port(), ""), words);
    };
    let meta = |text: &'static str| move |data: &Path| fs::write(data.join("meta.properties"), text).unwrap();
    foreign("another node", &["node"], &meta("version=1\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\nnode.id=7\n"));
    foreign("version", &["meta.properties"], &meta("version=9\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\nnode.id=0\n"));
    foreign("damaged", &["meta.properties"], &meta("version=1\nnode.id=zero\n"));
    foreign("empty", &["meta.properties"], &meta(""));
    foreign("a stranger's folder", &["data"], &|data| {
        fs::create_dir(data.join("photos")).unwrap();
        fs::write(data.join("photos/one.jpg"), b"x").unwrap();
    });
    foreign("a file in the folder's place", &["data"], &|data| {
        fs::remove_dir(data).unwrap();
        fs::write(data, b"x").unwrap();
    });
}

#[test]
fn a_directory_that_is_in_use() {
    let broker = Broker::start(&[]);
    let output = refused(broker.dir.path(), free_port(), "");
    assert_one_sentence("in use", &output, &["data"]);
    Conn::connect(broker.port).map(|mut conn| new_topic(&mut conn, "unharmed", 1, &[])).expect("it goes on");
}

#[test]
fn wrong_configurations() {
    let home = tempfile::tempdir().unwrap();
    for (line, word) in [
        ("num.partitions=many", "num.partitions"),
        ("log.segment.bytes=-5", "log.segment.bytes"),
        ("taccola.acks.durability=perhaps", "taccola.acks.durability"),
        ("listeners=PLAINTEXT//nowhere", "listeners"),
    ] {
        assert_one_sentence(line, &refused(home.path(), free_port(), line), &[word]);
    }
    let missing = Command::new(binary()).args(["serve", "-c", "/nowhere/at.all"]).output().unwrap();
    assert_one_sentence("missing file", &missing, &["/nowhere/at.all"]);
}

/// A small file system of its own, if root may mount one here.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(test: &str, mebibytes: u32) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "taccola-small"]).arg(at.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        println!("{ABSENT} {test}: a file system cannot be mounted here");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_disk_that_is_full_at_the_start() {
    let Some(small) = Small::mount("a_disk_that_is_full_at_the_start", 8) else { return };
    fs::write(small.0.path().join("filling"), vec![1; 7 << 20]).unwrap();
    let output = refused(small.0.path(), free_port(), "");
    assert_one_sentence("full disk", &output, &["no room", "free"]);
}

#[test]
fn a_disk_that_becomes_full() {
    let Some(small) = Small::mount("a_disk_that_becomes_full", 48) else { return };
    let data = format!("log.dirs={}", small.0.path().join("data").display());
    let mut broker = Broker::start(&[&data, "taccola.journal.bytes=8388608"]);
    let mut conn = Conn::connect(broker.port).unwrap();
    new_topic(&mut conn, "t", 1, &[]);
    let value = "x".repeat(500_000);
    let mut acknowledged = 0;
    let mut refusal = None;
    for _ in 0..200 {
        match conn.call(&produce_request(-1, "t", 0, batch(&[&value])), 9) {
            Ok(reply) if reply.responses[0].partition_responses[0].error_code == 0 => acknowledged += 1,
            Ok(reply) => refusal = Some(reply.responses[0].partition_responses[0].error_code),
            Err(_) => refusal = Some(-1),
        }
        if refusal.is_some() {
            break;
        }
    }
    let refusal = refusal.expect("a full disk is noticed");
    println!("{acknowledged} records of 500 KB on 48 MiB, then error {refusal}");
    assert!(acknowledged > 10);
    assert!(!broker.log().join("\n").contains("panicked"), "{}", broker.log().join("\n"));
    broker.kill();
    // With room again everything that was acknowledged is there.
    let grown = Command::new("mount").args(["-o", "remount,size=128m"]).arg(small.0.path()).status().unwrap();
    assert!(grown.success());
    broker.launch();
    let mut conn = Conn::connect(broker.port).unwrap();
    let (code, end, _) = list_offset(&mut conn, "t", 0, -1);
    assert!(code == 0 && end >= acknowledged, "{end} of {acknowledged} (error {code})");
    assert_eq!(taccola_it::requests::read_all(&mut conn, "t", 0, 0).len() as i64, end);
    assert!(produced(&mut conn, "t", 0, batch(&["room"])) >= acknowledged);
    broker.kill();
}
