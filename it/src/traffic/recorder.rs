//! A proxy that writes down what goes through it. The broker must advertise the proxy's address, or clients go past it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Event, Traffic};
use crate::WITHIN;

struct Shared {
    upstream: SocketAddr,
    events: Mutex<Vec<Event>>,
    over: AtomicBool,
}

impl Shared {
    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records until it is taken.
pub struct Recorder {
    port: u16,
    shared: Arc<Shared>,
}

impl Recorder {
    /// Listens on `port` of this machine, in front of a broker's.
    pub fn start(port: u16, upstream: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            events: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let (accepting, port) = (shared.clone(), listener.local_addr()?.port());
        std::thread::spawn(move || {
            for (connection, client) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                std::thread::spawn(move || drop(serve(&shared, connection, client)));
            }
        });
        Ok(Self { port, shared })
    }

    /// Ends; what was seen.
    pub fn take(self) -> Traffic {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), Duration::from_secs(1));
        Traffic { events: std::mem::take(&mut *self.shared.events()) }
    }
}

pub(super) fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size)).map_err(io::Error::other)?];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

pub(super) fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let mut bytes = i32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes)
}

/// One connection: requests here, replies in a thread of their own. Each is written down before it goes on.
fn serve(shared: &Arc<Shared>, connection: u32, mut client: TcpStream) -> io::Result<()> {
    let mut broker = TcpStream::connect_timeout(&shared.upstream, WITHIN)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut replies_from, mut replies_to, theirs) = (broker.try_clone()?, client.try_clone()?, shared.clone());
    std::thread::spawn(move || {
        while let Ok(frame) = read_frame(&mut replies_from) {
            theirs.events().push(Event::Reply { connection, frame: frame.clone() });
            if write_frame(&mut replies_to, &frame).is_err() {
                break;
            }
        }
        let _ = replies_to.shutdown(Shutdown::Both);
    });
    while let Ok(frame) = read_frame(&mut client) {
        shared.events().push(Event::Request { connection, frame: frame.clone() });
        write_frame(&mut broker, &frame)?;
    }
    shared.events().push(Event::Closed { connection });
    broker.shutdown(Shutdown::Both)
}
