//! A proxy between a client and a broker that does to requests and replies what networks do: it loses replies, loses
//! requests, and holds requests back until the test lets them go, long after the client has given up and asked again. It
//! knows frames and API keys and nothing else.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taccola_wire::api::ApiKey;

use crate::WITHIN;

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// The broker gets it, and the client loses the connection instead of hearing the reply.
    LoseReply,
    /// The client loses the connection, and the broker never hears of it.
    LoseRequest,
    /// The client loses the connection, and the broker hears of it when the test says so.
    Hold,
}

/// Of an API key and its version.
type Rule = Box<dyn FnMut(ApiKey, i16) -> Fate + Send>;

/// Keys and raw frames, without their sizes.
type Held = Vec<(ApiKey, Vec<u8>)>;

struct Shared {
    upstream: SocketAddr,
    rule: Mutex<Rule>,
    held: Mutex<Held>,
    over: AtomicBool,
}

/// Ends with its value; connections end with the client's or the broker's side.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// In front of a port of this machine that need not be open yet.
    pub fn start(upstream: u16, rule: impl FnMut(ApiKey, i16) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            rule: Mutex::new(Box::new(rule)),
            held: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                std::thread::spawn(move || drop(serve(&shared, client)));
            }
        });
        Self { port, shared }
    }

    /// Another rule from now on.
    pub fn rule(&self, rule: impl FnMut(ApiKey, i16) -> Fate + Send + 'static) {
        *locked(&self.shared.rule) = Box::new(rule);
    }

    /// How many requests wait.
    pub fn held(&self) -> usize {
        locked(&self.shared.held).len()
    }

    /// Delivers the oldest of the requests that wait, on a connection of its own; the raw reply, without its size. `None`:
    /// nothing waits.
    pub fn release(&self) -> Option<io::Result<(ApiKey, Vec<u8>)>> {
        let mut held = locked(&self.shared.held);
        let (key, request) = (!held.is_empty()).then(|| held.remove(0))?;
        drop(held);
        let deliver = || {
            let mut broker = TcpStream::connect_timeout(&self.shared.upstream, WITHIN)?;
            broker.set_read_timeout(Some(WITHIN))?;
            write_frame(&mut broker, &request)?;
            Ok((key, read_frame(&mut broker)?))
        };
        Some(deliver())
    }

    /// Forgets the requests that wait.
    pub fn forget(&self) {
        locked(&self.shared.held).clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), Duration::from_secs(1));
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size)).map_err(io::Error::other)?];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let mut bytes = i32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes)
}

/// One connection: requests here, replies in a thread of their own.
fn serve(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    let mut broker = TcpStream::connect_timeout(&shared.upstream, WITHIN)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    // Fates of the requests whose replies are due.
    let due: Arc<Mutex<VecDeque<Fate>>> = Arc::default();
    let (replies_from, replies_to, fates) = (broker.try_clone()?, client.try_clone()?, due.clone());
    std::thread::spawn(move || drop(replies(replies_from, replies_to, &fates)));
    let ended = requests(shared, &mut client, &mut broker, &due);
    let _ = client.shutdown(Shutdown::Both);
    // The broker answers what it has, closes, and with that ends the other thread.
    let _ = broker.shutdown(Shutdown::Write);
    ended
}

fn requests(
    shared: &Shared,
    client: &mut TcpStream,
    broker: &mut TcpStream,
    due: &Mutex<VecDeque<Fate>>,
) -> io::Result<()> {
    loop {
        let frame = read_frame(client)?;
        let [k0, k1, v0, v1] = *frame.first_chunk().ok_or_else(|| io::Error::other("a frame without a header"))?;
        let key = ApiKey::from_code(i16::from_be_bytes([k0, k1]));
        let key = key.ok_or_else(|| io::Error::other("an unknown API key"))?;
        let fate = locked(&shared.rule)(key, i16::from_be_bytes([v0, v1]));
        match fate {
            Fate::Pass | Fate::LoseReply => {
                locked(due).push_back(fate);
                write_frame(broker, &frame)?;
            }
            Fate::LoseRequest => return Ok(()),
            Fate::Hold => {
                locked(&shared.held).push((key, frame));
                return Ok(());
            }
        }
    }
}

fn replies(mut broker: TcpStream, mut client: TcpStream, due: &Mutex<VecDeque<Fate>>) -> io::Result<()> {
    let ended = loop {
        let frame = match read_frame(&mut broker) {
            Ok(frame) => frame,
            Err(error) => break Err(error),
        };
        if locked(due).pop_front() == Some(Fate::LoseReply) {
            break Ok(());
        }
        if let Err(error) = write_frame(&mut client, &frame) {
            break Err(error);
        }
    };
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
    ended
}
