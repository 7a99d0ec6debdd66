//! Listeners and the connection loop. Answers to Kafka's `SocketServer`, with these promises:
//!
//! - Replies leave in the order of their requests, whatever order they are ready in.
//! - One request of a connection is worked on at a time, as in Kafka; only requests that the service declares to overlap
//!   (Produce) are started while earlier ones of that kind still wait for the disk.
//! - All frames that one read brings are started, and all replies that are ready leave in one `writev`.
//! - A size field reserves nothing: a buffer grows as bytes arrive, after a memory permit for the frame was granted.
//! - An idle connection holds no buffer.
//! - Whoever sends or reads too slowly loses the connection when others need the memory that it holds, not before.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use taccola_base::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::admission::Admissions;
use crate::memory::{MemoryBudget, MemoryPermit, UNCOUNTED_FRAME_BYTES};
use crate::outbox::Outbox;
pub use crate::outbox::ReplyFrame;
use crate::reply_memory::{ReplyMemory, ReplyShare};

/// Reply bytes of one connection that wait for its socket before no further request of it is started.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
/// A connection that was found busy when its idle time was up is looked at again no sooner than this.
const IDLE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// A client that sends a large frame, or reads its replies, may pause this long while memory is short.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Then, and with [`STALL_MAX`] granted, a large frame must come and replies must go at this rate.
const BYTES_PER_SECOND_MIN: usize = 10 * 1024 * 1024;
/// Replies of fewer bytes than this are not counted: their number is bounded by that of the connections.
const UNCOUNTED_REPLY_BYTES: usize = 64 * 1024;
/// API key and version, with which a request begins.
const KEY_AND_VERSION_BYTES: usize = 4;
/// Between two attempts to accept when the system is out of handles: the first wait, and the longest.
const ACCEPT_RETRY_FIRST: Duration = Duration::from_millis(10);
const ACCEPT_RETRY_MAX: Duration = Duration::from_secs(1);

/// What became of a request.
#[derive(Debug)]
pub enum Reply {
    Frame(ReplyFrame),
    /// The protocol wants no reply (Produce with acks=0).
    None,
    /// The connection is closed once earlier replies are written; the text is for the log.
    Close(String),
}

/// A started request.
pub enum Call {
    Done(Reply),
    Pending(Pin<Box<dyn Future<Output = Reply> + Send>>),
    /// As `Pending`, but no later request of the connection starts before this one is answered.
    Exclusive(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

/// What a listener serves.
pub trait Service: Send + Sync + 'static {
    /// Whether a request with this key and version is served. What is not is read up to [`limits::UNKNOWN_FRAME_BYTES_MAX`].
    fn serves(&self, api_key: i16, api_version: i16) -> bool;
    /// Whether the reply may hold many bytes, so that the request waits while too many are held already.
    fn replies_at_length(&self, frame: &[u8]) -> bool;
    /// Whether the request may start while earlier requests of the same connection, all of this kind, are pending.
    fn overlaps(&self, frame: &[u8]) -> bool;
    /// Starts a request: whatever must keep the connection's order happens before this returns.
    fn call(&self, connection: &Arc<ConnectionInfo>, frame: Bytes) -> Call;
    /// A connection ended; its pending requests are gone.
    fn disconnected(&self, _connection: &ConnectionInfo) {}
}

/// Facts of one connection.
#[derive(Debug)]
pub struct ConnectionInfo {
    pub id: u64,
    /// Listener name of `listeners`, upper case, e.g. `PLAINTEXT`.
    pub listener: Arc<str>,
    pub peer: SocketAddr,
    /// The address on which the client arrived.
    pub local: SocketAddr,
}

/// Limits of one listener; each has its Kafka key.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// `socket.request.max.bytes`: a larger frame closes the connection.
    pub frame_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_max: Duration,
    /// `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`; `None` leaves them to the system.
    pub send_buffer_bytes: Option<usize>,
    pub receive_buffer_bytes: Option<usize>,
    /// How long a stopping server waits for requests that are under way.
    pub drain_max: Duration,
}

/// One bound listener that is ready to be served.
pub struct Server<S> {
    pub listener: TcpListener,
    pub listener_name: Arc<str>,
    pub service: Arc<S>,
    pub limits: ServerLimits,
    pub memory: MemoryBudget,
    pub replies: ReplyMemory,
    pub admissions: Arc<Admissions>,
    /// Turns true when the server shall stop.
    pub stop: watch::Receiver<bool>,
}

/// Binds a listener (`SO_REUSEADDR`, a backlog of `socket.listen.backlog.size`).
///
/// Errors: the system's, above all a port that is in use or a host that is not this machine's.
pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.max(1))?;
    TcpListener::from_std(socket.into())
}

impl<S: Service> Server<S> {
    /// Accepts connections until the stop signal, then waits for the open ones to finish what they started.
    pub async fn run(self) {
        let mut connections = tokio::task::JoinSet::new();
        let mut retry = ACCEPT_RETRY_FIRST;
        let mut stop = self.stop.clone();
        let mut stopped = std::pin::pin!(stopped(&mut stop));
        loop {
            let accepted = tokio::select! {
                () = &mut stopped => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if retry > ACCEPT_RETRY_FIRST {
                        tracing::info!(listener = &*self.listener_name, "connections are accepted again");
                        retry = ACCEPT_RETRY_FIRST;
                    }
                    tokio::select! {
                        () = &mut stopped => break,
                        () = self.admit(&mut connections, stream, peer) => {}
                    }
                }
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of handles or memory: the backlog holds the clients until some are free again.
                    if retry == ACCEPT_RETRY_FIRST {
                        tracing::warn!(%error, "cannot accept connections; trying again until it works");
                    }
                    retry = (retry * 2).min(ACCEPT_RETRY_MAX);
                    tokio::select! {
                        () = &mut stopped => break,
                        () = tokio::time::sleep(retry) => {}
                    }
                }
            }
        }
        drop(self.listener);
        let drained =
            tokio::time::timeout(self.limits.drain_max, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(open = connections.len(), "connections were cut off at the end of the drain time");
        }
    }

    /// Waits for a place, and serves the connection or closes it.
    async fn admit(&self, connections: &mut tokio::task::JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let Some(admission) = self.admissions.admit(&self.listener_name, peer.ip()).await else {
            tracing::debug!(%peer, "closed a connection: too many from its address");
            return;
        };
        let Ok(local) = stream.local_addr() else { return };
        if let Err(error) = self.tune(&stream) {
            tracing::debug!(%peer, %error, "socket options");
        }
        let info = Arc::new(ConnectionInfo {
            id: self.admissions.next_id(),
            listener: self.listener_name.clone(),
            peer,
            local,
        });
        let connection = Connection {
            stream,
            info,
            service: self.service.clone(),
            limits: self.limits.clone(),
            memory: self.memory.clone(),
            stop: self.stop.clone(),
            replies: self.replies.share(),
            inbox: BytesMut::new(),
            outbox: Outbox::default(),
            pending: FuturesOrdered::new(),
            pending_bytes: 0,
            pending_overlap: true,
            permit: None,
            permit_since: Instant::now(),
            closing: false,
        };
        connections.spawn(async move {
            let (info, service) = (connection.info.clone(), connection.service.clone());
            if let Err(error) = connection.run().await {
                tracing::debug!(peer = %info.peer, %error, "connection closed");
            }
            service.disconnected(&info);
            drop(admission);
        });
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(stream);
        socket.set_keepalive(true)?;
        if let Some(bytes) = self.limits.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.limits.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means that the broker is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A finished request on its way to the outbox, with the memory that its frame held.
struct Finished {
    reply: Reply,
    bytes: usize,
    _permit: Option<MemoryPermit>,
}

type PendingReply = Pin<Box<dyn Future<Output = Finished> + Send>>;

struct Connection<S> {
    stream: TcpStream,
    info: Arc<ConnectionInfo>,
    service: Arc<S>,
    limits: ServerLimits,
    memory: MemoryBudget,
    stop: watch::Receiver<bool>,
    /// Bytes that were read and not yet started; empty and without capacity while the connection idles.
    inbox: BytesMut,
    outbox: Outbox,
    /// Counts the bytes in the outbox.
    replies: ReplyShare,
    pending: FuturesOrdered<PendingReply>,
    /// Frame bytes of the pending requests.
    pending_bytes: usize,
    /// Whether all pending requests are of the overlapping kind.
    pending_overlap: bool,
    /// The permit of the frame that is being read, taken as soon as its size is known.
    permit: Option<MemoryPermit>,
    /// Since when the permit is held, while it is.
    permit_since: Instant,
    /// No further request is read; what is pending is still answered.
    closing: bool,
}

enum NextFrame {
    /// A whole frame lies in the inbox, of this many bytes without its size prefix.
    Whole(usize),
    /// The frame needs this many bytes in the inbox, prefix included.
    Partial(usize),
}

impl<S: Service> Connection<S> {
    async fn run(mut self) -> io::Result<()> {
        // Both are made once: a timer and a registration per request would cost more than many a request.
        let mut stop = self.stop.clone();
        let mut stopped = std::pin::pin!(stopped(&mut stop));
        let mut idle = std::pin::pin!(tokio::time::sleep(self.limits.idle_max));
        let mut active_at = Instant::now();
        loop {
            let blocked = self.start_frames()?;
            let progress = self.collect_ready();
            if blocked && progress && self.outbox.len() < OUTBOX_BYTES_MAX {
                continue;
            }
            if !self.outbox.is_empty() {
                self.write_outbox().await?;
                continue;
            }
            if self.closing && self.pending.is_empty() {
                return Ok(());
            }
            let permit_bytes = if self.closing { None } else { self.permit_wanted()? };
            let reading = !self.closing && !blocked && permit_bytes.is_none();
            // Whatever else blocks has pending requests, a full outbox or a permit to wait for.
            let wants_room = blocked && self.pending.is_empty() && permit_bytes.is_none();
            let replies = self.replies.memory().clone();
            if self.inbox.is_empty() && self.inbox.capacity() > 0 && self.pending.is_empty() {
                self.inbox = BytesMut::new();
            }
            tokio::select! {
                biased;
                Some(finished) = self.pending.next(), if !self.pending.is_empty() => self.finish(finished),
                ready = self.stream.readable(), if reading => {
                    ready?;
                    active_at = Instant::now();
                    self.read_available()?;
                }
                permit = self.memory.acquire(permit_bytes.unwrap_or(0)), if permit_bytes.is_some() => {
                    self.permit = Some(permit);
                    self.permit_since = Instant::now();
                    idle.as_mut().reset((Instant::now() + IDLE_CHECK_EVERY).into());
                }
                () = replies.room(), if wants_room => {}
                () = &mut stopped, if !self.closing => self.closing = true,
                () = &mut idle => {
                    self.check_progress()?;
                    let until = match self.permit {
                        // Looked at again soon.
                        Some(_) => Instant::now(),
                        None => active_at + self.limits.idle_max,
                    };
                    if reading && self.pending.is_empty() && active_at + self.limits.idle_max <= Instant::now() {
                        tracing::debug!(peer = %self.info.peer, "closed an idle connection");
                        return Ok(());
                    }
                    idle.as_mut().reset(until.max(Instant::now() + IDLE_CHECK_EVERY).into());
                }
            }
        }
    }

    /// Starts the requests that lie complete in the inbox, as far as order and limits allow. True when a complete
    /// request waits for pending ones.
    fn start_frames(&mut self) -> io::Result<bool> {
        while !self.closing {
            if self.outbox.len() >= OUTBOX_BYTES_MAX {
                return Ok(true);
            }
            let size = match self.next_frame()? {
                NextFrame::Whole(size) => size,
                NextFrame::Partial(_) => return Ok(false),
            };
            let frame_bytes = self.inbox.get(4..4 + size).unwrap_or_default();
            if self.replies.memory().is_spent() && self.service.replies_at_length(frame_bytes) {
                return Ok(true);
            }
            let overlaps = self.service.overlaps(frame_bytes);
            if !self.pending.is_empty() {
                let full = self.pending.len() >= limits::IN_FLIGHT_REQUESTS_MAX
                    || self.pending_bytes + size > limits::IN_FLIGHT_BYTES_MAX;
                if full || !(overlaps && self.pending_overlap) {
                    return Ok(true);
                }
            }
            let Some(permit) = self.permit.take().or_else(|| self.memory.try_acquire(size)) else { return Ok(true) };
            self.inbox.advance(4);
            let frame = self.inbox.split_to(size).freeze();
            self.start(frame, overlaps, permit);
        }
        Ok(false)
    }

    fn start(&mut self, frame: Bytes, overlaps: bool, permit: MemoryPermit) {
        let bytes = frame.len();
        match self.service.call(&self.info, frame) {
            Call::Done(reply) if self.pending.is_empty() => self.deliver(reply),
            Call::Done(reply) => {
                let finished = Finished { reply, bytes, _permit: Some(permit) };
                self.enqueue(Box::pin(std::future::ready(finished)), bytes, overlaps);
            }
            Call::Pending(reply) => {
                let finished = async move { Finished { reply: reply.await, bytes, _permit: Some(permit) } };
                self.enqueue(Box::pin(finished), bytes, overlaps);
            }
            Call::Exclusive(reply) => {
                let finished = async move { Finished { reply: reply.await, bytes, _permit: Some(permit) } };
                self.enqueue(Box::pin(finished), bytes, false);
            }
        }
    }

    fn enqueue(&mut self, reply: PendingReply, bytes: usize, overlaps: bool) {
        self.pending_overlap = if self.pending.is_empty() { overlaps } else { self.pending_overlap && overlaps };
        self.pending_bytes += bytes;
        self.pending.push_back(reply);
    }

    /// Moves the replies that are ready, and whose turn it is, to the outbox. True when there were any.
    fn collect_ready(&mut self) -> bool {
        let before = self.pending.len();
        while !self.pending.is_empty() {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match self.pending.poll_next_unpin(&mut context) {
                std::task::Poll::Ready(Some(finished)) => self.finish(finished),
                _ => break,
            }
        }
        self.pending.len() < before
    }

    fn finish(&mut self, finished: Finished) {
        self.pending_bytes = self.pending_bytes.saturating_sub(finished.bytes);
        self.deliver(finished.reply);
    }

    fn deliver(&mut self, reply: Reply) {
        match reply {
            Reply::Frame(frame) => {
                self.outbox.push(frame);
                self.count_replies();
            }
            Reply::None => {}
            Reply::Close(reason) => {
                tracing::debug!(peer = %self.info.peer, client = self.info.id, reason, "closing a connection");
                self.closing = true;
                self.inbox.clear();
            }
        }
    }

    /// Looks at the frame at the head of the inbox. A negative size, one above the limit, or a large request of a kind
    /// that is not served closes the connection: there is no way, or no reason, to get to the next request.
    fn next_frame(&self) -> io::Result<NextFrame> {
        let Some(prefix) = self.inbox.first_chunk::<4>() else { return Ok(NextFrame::Partial(4)) };
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        let size = i32::from_be_bytes(*prefix);
        let Ok(size) = usize::try_from(size) else { return invalid(format!("a request of {size} bytes")) };
        if size > self.limits.frame_bytes_max {
            let max = self.limits.frame_bytes_max;
            return invalid(format!("a request of {size} bytes is above socket.request.max.bytes={max}"));
        }
        if size > limits::UNKNOWN_FRAME_BYTES_MAX {
            let Some([_, _, _, _, key_high, key_low, version_high, version_low]) = self.inbox.first_chunk::<8>() else {
                return Ok(NextFrame::Partial(4 + KEY_AND_VERSION_BYTES));
            };
            let (key, version) =
                (i16::from_be_bytes([*key_high, *key_low]), i16::from_be_bytes([*version_high, *version_low]));
            if !self.service.serves(key, version) {
                return invalid(format!("{size} bytes of a request that is not served: key {key}, version {version}"));
            }
        }
        Ok(if self.inbox.len() >= 4 + size { NextFrame::Whole(size) } else { NextFrame::Partial(4 + size) })
    }

    /// Cuts off whoever holds memory for a frame that does not come while others wait for that memory.
    fn check_progress(&self) -> io::Result<()> {
        let NextFrame::Partial(size) = self.next_frame()? else { return Ok(()) };
        if self.permit.is_some() && self.memory.is_contended() && self.permit_since.elapsed() > patience(size) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a large request comes too slowly"));
        }
        Ok(())
    }

    /// Bytes for which the frame at the head of the inbox still needs a permit.
    fn permit_wanted(&self) -> io::Result<Option<usize>> {
        let size = match self.next_frame()? {
            NextFrame::Whole(size) => size,
            NextFrame::Partial(needed) => needed - 4,
        };
        Ok((self.permit.is_none() && size > UNCOUNTED_FRAME_BYTES).then_some(size))
    }

    /// Reads what the socket has, up to a bounded buffer's worth.
    fn read_available(&mut self) -> io::Result<()> {
        let wanted = match self.next_frame()? {
            NextFrame::Partial(needed) => needed.saturating_sub(self.inbox.len()),
            NextFrame::Whole(_) => 0,
        };
        // Doubling as bytes arrive: what is reserved is never more than what came plus one step.
        let step = self.inbox.len().max(limits::FRAME_RESERVE_MAX);
        self.inbox.reserve(wanted.clamp(8 * 1024, step));
        match self.stream.try_read_buf(&mut self.inbox) {
            Ok(0) if self.pending.is_empty() => Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(0) => {
                // The client may have shut down its sending side only: what it asked for is still answered.
                self.closing = true;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write_outbox(&mut self) -> io::Result<()> {
        let (begun, patience) = (Instant::now(), patience(self.outbox.len()));
        while !self.outbox.is_empty() {
            let written = self.stream.try_write_vectored(&self.outbox.slices());
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.outbox.advance(count);
                    self.count_replies();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let bytes = self.outbox.len();
                    let wait = Wait { bytes, idle_max: self.limits.idle_max, until: begun + patience };
                    let replies = self.replies.memory().clone();
                    // What is pending goes on meanwhile: it may be the one that others' requests wait for.
                    let waited = tokio::select! {
                        biased;
                        Some(finished) = self.pending.next(), if !self.pending.is_empty() => {
                            self.finish(finished);
                            Ok(())
                        }
                        waited = wait.writable(&self.stream, &replies) => waited,
                    };
                    if let Err(error) = waited {
                        tracing::info!(peer = %self.info.peer, bytes, %error, "closing a connection");
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count_replies(&mut self) {
        let bytes = self.outbox.len();
        self.replies.set(if bytes > UNCOUNTED_REPLY_BYTES { bytes } else { 0 });
    }
}

/// How long this many bytes may be under way while memory is short.
fn patience(bytes: usize) -> Duration {
    STALL_MAX + Duration::from_millis((bytes / (BYTES_PER_SECOND_MIN / 1000)) as u64)
}

/// The wait for a client that does not take its replies.
struct Wait {
    bytes: usize,
    idle_max: Duration,
    /// Longer only while nobody else needs the memory.
    until: Instant,
}

impl Wait {
    async fn writable(&self, stream: &TcpStream, replies: &ReplyMemory) -> io::Result<()> {
        let stalled = Instant::now();
        loop {
            if let Ok(ready) = tokio::time::timeout(IDLE_CHECK_EVERY, stream.writable()).await {
                return ready;
            }
            let needed = self.bytes > UNCOUNTED_REPLY_BYTES && replies.is_spent();
            if stalled.elapsed() >= self.idle_max || (needed && Instant::now() > self.until) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its replies"));
            }
        }
    }
}
