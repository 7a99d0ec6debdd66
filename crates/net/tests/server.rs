//! The connection loop over real sockets, with a service that answers late, at once, or never.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use taccola_net::admission::{Admissions, ConnectionLimits};
use taccola_net::memory::MemoryBudget;
use taccola_net::reply_memory::ReplyMemory;
use taccola_net::server::{Call, ConnectionInfo, Reply, Server, ServerLimits, Service, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

/// The first byte says how: `o` overlaps and answers later the lower its second byte, `s` is serial and answers after a
/// yield, `d` is done at once, `c` closes, `n` has no reply. The reply is the frame itself. `O` overlaps and answers 8 MiB,
/// `w` overlaps, waits for [`GO`], and tells [`GONE`].
struct Echo;

static GO: Notify = Notify::const_new();
static GONE: Notify = Notify::const_new();

fn framed(body: &[u8]) -> Bytes {
    let mut out = BytesMut::from(&(body.len() as u32).to_be_bytes()[..]);
    out.extend_from_slice(body);
    out.freeze()
}

impl Service for Echo {
    fn serves(&self, api_key: i16, _api_version: i16) -> bool {
        api_key.to_be_bytes()[0] != b'?'
    }

    fn replies_at_length(&self, frame: &[u8]) -> bool {
        frame.first() == Some(&b'L')
    }

    fn overlaps(&self, frame: &[u8]) -> bool {
        matches!(frame.first(), Some(b'o' | b'O' | b'w'))
    }

    fn call(&self, _connection: &Arc<ConnectionInfo>, frame: Bytes) -> Call {
        let reply = Reply::Frame(framed(&frame).into());
        match frame.first() {
            Some(b'o') => {
                let late = Duration::from_millis(u64::from(64 - frame[1].min(64)));
                Call::Pending(Box::pin(async move {
                    tokio::time::sleep(late).await;
                    reply
                }))
            }
            Some(b's') => Call::Pending(Box::pin(async move {
                tokio::task::yield_now().await;
                reply
            })),
            Some(b'O') => Call::Pending(Box::pin(async {
                tokio::task::yield_now().await;
                Reply::Frame(framed(&vec![b'O'; 8 << 20]).into())
            })),
            Some(b'w') => Call::Pending(Box::pin(async move {
                GO.notified().await;
                GONE.notify_one();
                reply
            })),
            // A reply of 8 MiB.
            Some(b'L') => Call::Done(Reply::Frame(framed(&vec![b'L'; 8 << 20]).into())),
            Some(b'n') => Call::Done(Reply::None),
            Some(b'c') => Call::Done(Reply::Close("asked to".to_owned())),
            _ => Call::Done(reply),
        }
    }
}

async fn serve(frame_bytes_max: usize, connections_per_ip_max: usize) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let limits = ServerLimits {
        frame_bytes_max,
        idle_max: Duration::from_secs(60),
        send_buffer_bytes: None,
        receive_buffer_bytes: None,
        drain_max: Duration::from_secs(5),
    };
    let allowed = ConnectionLimits { per_ip_max: connections_per_ip_max, ..ConnectionLimits::default() };
    let server = Server {
        listener,
        listener_name: "PLAINTEXT".into(),
        service: Arc::new(Echo),
        limits,
        memory: MemoryBudget::new(1 << 20),
        replies: ReplyMemory::new(64 << 20),
        admissions: Arc::new(Admissions::new(allowed)),
        stop: stopped,
    };
    tokio::spawn(server.run());
    (address, stop)
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let size = stream.read_u32().await.unwrap();
        let mut body = vec![0; size as usize];
        stream.read_exact(&mut body).await.unwrap();
        body
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("a reply comes")
}

#[tokio::test]
async fn trap_19_replies_come_in_request_order_whatever_is_ready_first() {
    let (address, _stop) = serve(1 << 20, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let kinds = [b'o', b'o', b'o', b's', b'd', b'o', b's', b's', b'n', b'd'];
    let requests: Vec<Vec<u8>> = (0..200_u8).map(|i| vec![kinds[i as usize % kinds.len()], i, i]).collect();
    let sent: Vec<u8> = requests.iter().flat_map(|request| framed(request).to_vec()).collect();
    stream.write_all(&sent).await.unwrap();
    for request in requests.iter().filter(|request| request[0] != b'n') {
        assert_eq!(receive(&mut stream).await, *request);
    }
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_served() {
    let (address, _stop) = serve(1 << 20, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in framed(b"dslow").iter() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(receive(&mut stream).await, b"dslow");
}

#[tokio::test]
async fn a_request_above_the_whole_memory_budget_is_served_alone() {
    let (address, _stop) = serve(64 << 20, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = vec![b'd'; 5 << 20];
    let sent = framed(&body);
    let (mut reading, mut writing) = stream.split();
    let send = async { writing.write_all(&sent).await.unwrap() };
    let get = async {
        let mut got = vec![0; body.len() + 4];
        reading.read_exact(&mut got).await.unwrap();
        got
    };
    let (got, ()) = tokio::join!(get, send);
    assert!(got[4..] == body[..]);
}

#[tokio::test]
async fn bad_sizes_end_their_connection_and_no_other() {
    let (address, _stop) = serve(1000, 10).await;
    let mut good = TcpStream::connect(address).await.unwrap();
    for size in [1001_i32, -1, i32::MIN, i32::MAX] {
        let mut bad = TcpStream::connect(address).await.unwrap();
        bad.write_all(&size.to_be_bytes()).await.unwrap();
        assert_eq!(bad.read(&mut [0; 8]).await.unwrap_or(0), 0, "{size}");
    }
    good.write_all(&framed(b"d")).await.unwrap();
    assert_eq!(receive(&mut good).await, b"d");
}

#[tokio::test]
async fn a_service_closes_after_earlier_replies_are_out() {
    let (address, _stop) = serve(1000, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let sent: Vec<u8> = [&b"o\x01"[..], b"d", b"c", b"d"].iter().flat_map(|body| framed(body).to_vec()).collect();
    stream.write_all(&sent).await.unwrap();
    assert_eq!(receive(&mut stream).await, b"o\x01");
    assert_eq!(receive(&mut stream).await, b"d");
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_of_an_address_are_closed() {
    let (address, _stop) = serve(1000, 1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&framed(b"d")).await.unwrap();
    receive(&mut first).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_large_request_that_is_not_known_is_not_waited_for() {
    let (address, _stop) = serve(100 << 20, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&(65_537_u32).to_be_bytes()).await.unwrap();
    stream.write_all(b"????").await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "closed with the frame's body still to come");
    // Small ones are read: the service answers what it does not know.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&framed(b"????")).await.unwrap();
    assert_eq!(receive(&mut stream).await, b"????");
}

/// Sixteen clients ask for eight MiB each, of sixty-four that may be held, and read nothing.
#[tokio::test]
async fn clients_that_read_nothing_hold_no_others_up() {
    let (address, _stop) = serve(1 << 20, 100).await;
    let mut deaf = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&framed(b"L")).await.unwrap();
        deaf.push(stream);
    }
    let begun = std::time::Instant::now();
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(&framed(b"d")).await.unwrap();
    assert_eq!(receive(&mut other).await, b"d", "small replies go on");
    assert!(begun.elapsed() < Duration::from_secs(5));
    other.write_all(&framed(b"L")).await.unwrap();
    let size = tokio::time::timeout(Duration::from_secs(40), other.read_u32()).await.expect("room is made").unwrap();
    let mut reply = vec![0; size as usize];
    other.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply.len(), 8 << 20);
}

/// Others may wait for what a request does after its wake-up, as they do for whoever leads a flush.
#[tokio::test]
async fn a_pending_request_goes_on_while_its_client_reads_nothing() {
    let (address, _stop) = serve(1 << 20, 100).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[framed(b"O"), framed(b"w")].concat()).await.unwrap();
    let mut size = [0; 4];
    stream.peek(&mut size).await.unwrap();
    GO.notify_one();
    tokio::time::timeout(Duration::from_secs(20), GONE.notified()).await.expect("the request goes on");
    assert_eq!(receive(&mut stream).await.len(), 8 << 20);
    assert_eq!(receive(&mut stream).await, b"w");
}
