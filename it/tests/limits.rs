//! Limits of connections and memory, as a client meets them.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use taccola_it::conn::Conn;
use taccola_it::requests::{batch, fetch_request, new_topic, produced};
use taccola_it::{Broker, eventually};
use taccola_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::*;

/// Whether the broker answers on a new connection within `limit`.
fn answers(port: u16, limit: Duration) -> bool {
    let Ok(mut conn) = Conn::connect(port) else { return false };
    conn.read_within(limit).expect("a limit");
    conn.call(&ApiVersionsRequest::default(), 0).is_ok()
}

/// A connection that was answered, so it has its place.
fn placed(port: u16) -> Conn {
    let mut conn = Conn::connect(port).expect("the broker accepts");
    conn.ask(&ApiVersionsRequest::default(), 0);
    conn
}

/// Sets a dynamic broker setting for all brokers.
fn set(conn: &mut Conn, name: &str, value: &str) {
    let config = AlterableConfig {
        name: name.to_owned(),
        config_operation: 0,
        value: Some(value.to_owned()),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: 4,
        resource_name: String::new(),
        configs: vec![config],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = conn.ask(&request, 1);
    assert_eq!(response.responses[0].error_code, 0, "{response:?}");
}

#[test]
fn one_address_has_so_many_connections_and_that_can_change() {
    let broker = Broker::start(&["max.connections.per.ip=1", "max.connections.per.ip.overrides=localhost:3"]);
    let mut first = placed(broker.port);
    let second = placed(broker.port);
    let third = placed(broker.port);
    let mut fourth = Conn::connect(broker.port).expect("the system accepts");
    assert!(fourth.is_closed(), "at once");
    drop((second, third));
    eventually("a place", || answers(broker.port, Duration::from_secs(5)).then_some(()));
    set(&mut first, "max.connections.per.ip.overrides", "127.0.0.1:1");
    eventually("the new limit", || (!answers(broker.port, Duration::from_secs(5))).then_some(()));
    set(&mut first, "max.connections.per.ip.overrides", "127.0.0.1:50");
    eventually("the next limit", || answers(broker.port, Duration::from_secs(5)).then_some(()));
}

#[test]
fn a_full_broker_accepts_the_next_one_when_another_ends() {
    let broker = Broker::start(&["max.connections=3"]);
    let first = placed(broker.port);
    let mut second = placed(broker.port);
    let third = placed(broker.port);
    let mut fourth = Conn::connect(broker.port).expect("the backlog takes it");
    let id = fourth.send(&ApiVersionsRequest::default(), 0).expect("sent");
    fourth.read_within(Duration::from_millis(700)).expect("a limit");
    assert!(fourth.frame().is_err(), "no place yet");
    second.ask(&ApiVersionsRequest::default(), 0);
    drop(first);
    fourth.read_within(Duration::from_secs(10)).expect("a limit");
    let key = taccola_wire::api::ApiKey::ApiVersions;
    fourth.reply::<ApiVersionsResponse>(key, 0, id).expect("its turn");
    drop(third);
}

#[test]
fn connections_come_no_faster_than_the_rate() {
    let broker = Broker::start(&["listener.name.plaintext.max.connection.creation.rate=5"]);
    let begun = Instant::now();
    let all: Vec<Conn> = (0..15).map(|_| placed(broker.port)).collect();
    let took = begun.elapsed();
    // Five at once, ten more at five a second.
    assert!(took > Duration::from_millis(1_800) && took < Duration::from_secs(15), "{took:?}");
    drop(all);
}

/// Lets the broker open `more` files than it has open.
#[cfg(target_os = "linux")]
fn leave_handles(broker: &Broker, more: u64) {
    let open = std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("our child").count() as u64;
    let limit = format!("--nofile={}", open + more);
    let set = std::process::Command::new("prlimit").args(["--pid", &broker.pid().to_string(), &limit]).status();
    assert!(set.expect("prlimit runs").success());
}

#[cfg(target_os = "linux")]
#[test]
fn without_handles_for_connections_the_broker_goes_on() {
    let mut broker = Broker::start(&[]);
    let mut conn = placed(broker.port);
    new_topic(&mut conn, "t", 1, &[]);
    produced(&mut conn, "t", 0, batch(&["a"]));
    leave_handles(&broker, 5);
    let many: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", broker.port)).expect("the backlog takes it")).collect();
    eventually("the handles to run out", || broker.log().join("\n").contains("cannot accept").then_some(()));
    produced(&mut conn, "t", 0, batch(&["b"]));
    std::thread::sleep(Duration::from_millis(1_500));
    let told = broker.log().iter().filter(|line| line.contains("cannot accept")).count();
    // Once, or again where a handle came free in between; not at each of some hundred tries.
    assert!((1..=3).contains(&told), "told {told} times: {}", broker.log().join("\n"));
    drop(many);
    eventually("connections again", || answers(broker.port, Duration::from_secs(5)).then_some(()));
    produced(&mut conn, "t", 0, batch(&["c"]));
    broker.assert_alive();
}

#[cfg(target_os = "linux")]
#[test]
fn a_small_limit_of_open_files_bounds_the_connections_beforehand() {
    let mut broker = Broker::prepare(&[]);
    broker.open_files_max = Some(200);
    broker.launch();
    let mut conn = placed(broker.port);
    // A quarter for segments, a quarter for the rest: a hundred for connections.
    let many: Vec<TcpStream> =
        (0..140).map(|_| TcpStream::connect(("127.0.0.1", broker.port)).expect("the backlog takes it")).collect();
    eventually("no more room", || broker.log().join("\n").contains("no room for more connections").then_some(()));
    new_topic(&mut conn, "t", 20, &[]);
    for partition in 0..20 {
        produced(&mut conn, "t", partition, batch(&["a"]));
    }
    assert!(!broker.log().join("\n").contains("cannot accept"), "{}", broker.log().join("\n"));
    drop(many);
    eventually("connections again", || answers(broker.port, Duration::from_secs(5)).then_some(()));
    broker.assert_alive();
}

/// Resident memory in KiB.
#[cfg(target_os = "linux")]
fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// 20 MiB from the beginning of a partition.
fn large_fetch(topic: &str) -> FetchRequest {
    let mut request = fetch_request(topic, 0, 0);
    request.max_bytes = 20 << 20;
    for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.partition_max_bytes = 20 << 20;
    }
    request
}

/// Eighty clients ask for 20 MiB each and read none of it: 1.6 GiB, were it all held.
#[cfg(target_os = "linux")]
#[test]
fn clients_that_never_read_hold_no_memory_without_bound() {
    let mut broker = Broker::start(&["socket.send.buffer.bytes=65536"]);
    let mut conn = placed(broker.port);
    new_topic(&mut conn, "large", 1, &[]);
    let value = "x".repeat(500_000);
    for _ in 0..42 {
        produced(&mut conn, "large", 0, batch(&[&value]));
    }
    let before = resident_kib(&broker);
    let request = large_fetch("large");
    let mut deaf = Vec::new();
    let mut most = 0;
    for _ in 0..80 {
        let mut conn = Conn::connect(broker.port).expect("the broker accepts");
        conn.send(&request, 12).expect("sent");
        conn.stream.flush().expect("sent");
        deaf.push(conn);
        most = most.max(resident_kib(&broker));
    }
    // Everybody else is served at once, a reader too as soon as the deaf ones are cut off.
    produced(&mut conn, "large", 0, batch(&["small"]));
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        most = most.max(resident_kib(&broker));
        std::thread::sleep(Duration::from_millis(50));
    }
    conn.read_within(Duration::from_secs(60)).expect("a limit");
    let answer = conn.ask(&request, 12);
    assert_eq!(answer.error_code, 0);
    let grown = most.saturating_sub(before) / 1024;
    println!("{grown} MiB more at most");
    // The gate's 256 MiB, and for each of the broker's threads what it was reading when the gate closed.
    assert!(grown < 640, "{grown} MiB more");
    broker.assert_alive();
}

/// Eighty clients wait for 20 MiB each, wake at once, and read none of it.
#[cfg(target_os = "linux")]
#[test]
fn many_that_wake_at_once_share_the_memory_for_replies() {
    let mut broker = Broker::start(&["socket.send.buffer.bytes=65536"]);
    let mut conn = placed(broker.port);
    new_topic(&mut conn, "large", 1, &[]);
    let value = "x".repeat(500_000);
    for _ in 0..40 {
        produced(&mut conn, "large", 0, batch(&[&value]));
    }
    let before = resident_kib(&broker);
    let request = FetchRequest { min_bytes: 20 << 20, max_wait_ms: 60_000, ..large_fetch("large") };
    let waiting: Vec<Conn> = (0..80)
        .map(|_| {
            let mut conn = placed(broker.port);
            conn.send(&request, 12).expect("sent");
            conn
        })
        .collect();
    let parked = resident_kib(&broker).saturating_sub(before) / 1024;
    for _ in 0..4 {
        produced(&mut conn, "large", 0, batch(&[&value]));
    }
    let (until, mut most) = (Instant::now() + Duration::from_secs(3), 0);
    while Instant::now() < until {
        most = most.max(resident_kib(&broker));
        std::thread::sleep(Duration::from_millis(20));
    }
    let grown = most.saturating_sub(before) / 1024;
    println!("{parked} MiB more while they wait, {grown} MiB at most");
    assert!(grown < 400, "{grown} MiB more");
    produced(&mut conn, "large", 0, batch(&["small"]));
    drop(waiting);
    broker.assert_alive();
}

/// Clients that announce large requests and send them byte by byte hold the memory for requests for a while, not longer.
#[test]
fn who_sends_slowly_makes_room_for_others() {
    let broker = Broker::start(&["socket.request.max.bytes=1048576", "queued.max.request.bytes=2097152"]);
    let mut conn = placed(broker.port);
    new_topic(&mut conn, "t", 1, &[]);
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).expect("the broker accepts");
            stream.write_all(&1_000_000_i32.to_be_bytes()).expect("sent");
            stream.write_all(&[0, 0, 0, 12, 0, 0, 0, 1]).expect("sent");
            stream
        })
        .collect();
    // Small requests need no room.
    produced(&mut conn, "t", 0, batch(&["small"]));
    let stopped = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                for stream in &mut slow {
                    let _ = stream.write_all(&[0]);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        conn.read_within(Duration::from_secs(60)).expect("a limit");
        produced(&mut conn, "t", 0, batch(&[&"x".repeat(600_000)]));
        stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("served after {:?}", begun.elapsed());
}
