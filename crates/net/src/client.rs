//! The client's end of a TCP connection: framing, correlation ids, version negotiation. Answers to Kafka's
//! `NetworkClient` for one node.
//!
//! Invariants: requests leave in the order in which they were submitted; replies are matched in that same order and a
//! reply out of order closes the connection; at most [`limits::CLIENT_IN_FLIGHT_REQUESTS_MAX`] requests wait for replies, further ones wait to be
//! sent; a size field reserves no memory, buffers grow as bytes arrive. When a connection breaks, every request on it
//! fails with [`ApiError::Closed`] and the connection stays closed: whoever holds it opens another.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use taccola_base::limits;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::{Message, Reader};
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::api::{Api, ApiError, BoxFuture, Connector, PendingReply, VersionRange};

/// What every connection of a client has in common.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// `client.id` of the request headers.
    pub client_id: String,
    /// Name and version that ApiVersions tells the broker.
    pub software_name: String,
    pub software_version: String,
    pub connect_timeout: Duration,
    /// For the version negotiation that follows the connect.
    pub negotiation_timeout: Duration,
    pub reply_bytes_max: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: "taccola".to_owned(),
            software_name: "taccola".to_owned(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            connect_timeout: Duration::from_secs(10),
            negotiation_timeout: Duration::from_secs(10),
            reply_bytes_max: limits::REPLY_BYTES_MAX,
        }
    }
}

/// A request on its way to the socket.
struct Outgoing {
    header: BytesMut,
    body: Bytes,
    /// `None` for a request without a reply.
    waiter: Option<Waiter>,
    written: Option<oneshot::Sender<()>>,
}

/// Whoever waits for a reply.
struct Waiter {
    correlation_id: i32,
    header_version: i16,
    reply: oneshot::Sender<Result<Bytes, ApiError>>,
}

/// One open connection to a broker. Dropping it closes the socket once the replies that are awaited have come or failed.
pub struct Connection {
    address: Arc<str>,
    client_id: String,
    outgoing: mpsc::Sender<Outgoing>,
    correlation_id: std::sync::atomic::AtomicI32,
    closed: Arc<AtomicBool>,
    versions: HashMap<i16, VersionRange>,
}

impl Connection {
    /// Connects and negotiates versions.
    pub async fn open(host: &str, port: u16, options: &ConnectionOptions) -> Result<Self, ApiError> {
        let mut connection = Self::open_unnegotiated(host, port, options).await?;
        let negotiation = connection.negotiate(options);
        let versions = match tokio::time::timeout(options.negotiation_timeout, negotiation).await {
            Ok(result) => result?,
            Err(_) => return Err(connection.protocol_error("no answer to ApiVersions")),
        };
        connection.versions = versions;
        Ok(connection)
    }

    async fn open_unnegotiated(host: &str, port: u16, options: &ConnectionOptions) -> Result<Self, ApiError> {
        let address: Arc<str> =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }.into();
        let connecting = TcpStream::connect((host, port));
        let stream = match tokio::time::timeout(options.connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(ApiError::Connect { address: address.to_string(), source }),
            Err(_) => {
                let millis = options.connect_timeout.as_millis();
                return Err(ApiError::ConnectTimeout { address: address.to_string(), millis });
            }
        };
        stream.set_nodelay(true).map_err(|source| ApiError::Connect { address: address.to_string(), source })?;
        let (read, write) = stream.into_split();
        let (outgoing, queue) = mpsc::channel(limits::CLIENT_IN_FLIGHT_REQUESTS_MAX);
        let (waiting, waiters) = mpsc::channel(limits::CLIENT_IN_FLIGHT_REQUESTS_MAX);
        let closed = Arc::new(AtomicBool::new(false));
        tokio::spawn(write_loop(write, queue, waiting, Arc::clone(&closed)));
        tokio::spawn(read_loop(read, waiters, Arc::clone(&address), Arc::clone(&closed), options.reply_bytes_max));
        Ok(Self {
            address,
            client_id: options.client_id.clone(),
            outgoing,
            correlation_id: Default::default(),
            closed,
            versions: HashMap::new(),
        })
    }

    /// Asks with the newest version first. A broker that does not know it answers in version 0's form with
    /// UNSUPPORTED_VERSION and, since KIP-511, its own range.
    async fn negotiate(&self, options: &ConnectionOptions) -> Result<HashMap<i16, VersionRange>, ApiError> {
        let mut version = ApiVersionsRequest::MAX_VERSION;
        loop {
            let response = self.api_versions(version, options).await?;
            let code = ErrorCode::from_code(response.error_code);
            if code == ErrorCode::UnsupportedVersion && version > 0 {
                let own = response.api_keys.iter().find(|k| k.api_key == ApiKey::ApiVersions as i16);
                version = own.map_or(0, |k| k.max_version.clamp(0, version - 1));
                continue;
            }
            if code != ErrorCode::None {
                return Err(self.protocol_error(&format!("ApiVersions failed with {}", code.name())));
            }
            let range = |k: &taccola_wire::messages::api_versions_response::ApiVersion| VersionRange {
                min: k.min_version,
                max: k.max_version,
            };
            return Ok(response.api_keys.iter().map(|k| (k.api_key, range(k))).collect());
        }
    }

    async fn api_versions(&self, version: i16, options: &ConnectionOptions) -> Result<ApiVersionsResponse, ApiError> {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request.client_software_name.clone_from(&options.software_name);
            request.client_software_version.clone_from(&options.software_version);
        }
        let reply = self.submit(ApiKey::ApiVersions, version, request.to_bytes(version)?, true).await?;
        let body = reply.await?;
        // The error stands in front in every version, and only version 0 can follow a refusal.
        let refused = body.get(..2) == Some(&ErrorCode::UnsupportedVersion.code().to_be_bytes());
        let read_as = if refused { 0 } else { version };
        ApiVersionsResponse::read(&mut Reader::new(body), read_as).map_err(|e| self.protocol_error(&e.to_string()))
    }

    fn protocol_error(&self, reason: &str) -> ApiError {
        ApiError::Protocol { address: self.address.to_string(), reason: reason.to_owned() }
    }

    fn closed_error(&self) -> ApiError {
        ApiError::Closed { address: self.address.to_string() }
    }

    fn header(&self, key: ApiKey, version: i16, correlation_id: i32) -> Result<Bytes, ApiError> {
        let header = RequestHeader {
            request_api_key: key as i16,
            request_api_version: version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        Ok(header.to_bytes(key.info().request_header_version(version))?)
    }
}

impl Api for Connection {
    fn served(&self, key: ApiKey) -> Option<VersionRange> {
        self.versions.get(&(key as i16)).copied()
    }

    fn submit(
        &self,
        key: ApiKey,
        version: i16,
        body: Bytes,
        answered: bool,
    ) -> BoxFuture<'_, Result<PendingReply, ApiError>> {
        Box::pin(async move {
            // The place in the queue comes first, so that ids grow in the order of the wire.
            let permit = self.outgoing.reserve().await.map_err(|_| self.closed_error())?;
            let correlation_id = self.correlation_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            let header = self.header(key, version, correlation_id)?;
            let size = i32::try_from(header.len() + body.len())
                .map_err(|_| self.protocol_error("the request is larger than a frame can be"))?;
            let mut prefixed = BytesMut::with_capacity(4 + header.len());
            prefixed.put_i32(size);
            prefixed.put_slice(&header);
            let address = Arc::clone(&self.address);
            let closed = move || ApiError::Closed { address: address.to_string() };
            if !answered {
                let (written, done) = oneshot::channel();
                permit.send(Outgoing { header: prefixed, body, waiter: None, written: Some(written) });
                let pending: PendingReply =
                    Box::pin(async move { done.await.map(|()| Bytes::new()).map_err(|_| closed()) });
                return Ok(pending);
            }
            let (reply, incoming) = oneshot::channel();
            let header_version = key.info().response_header_version(version);
            let waiter = Waiter { correlation_id, header_version, reply };
            permit.send(Outgoing { header: prefixed, body, waiter: Some(waiter), written: None });
            let pending: PendingReply = Box::pin(async move { incoming.await.unwrap_or_else(|_| Err(closed())) });
            Ok(pending)
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.outgoing.is_closed()
    }

    fn address(&self) -> &str {
        &self.address
    }
}

/// Ends when the connection is dropped, the reader has ended, or the socket fails. A waiter is queued before its request
/// is written, so that no reply can overtake it.
async fn write_loop(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
    waiting: mpsc::Sender<Waiter>,
    closed: Arc<AtomicBool>,
) {
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            () = waiting.closed() => None,
        };
        let Some(request) = next else { break };
        if let Some(waiter) = request.waiter
            && waiting.send(waiter).await.is_err()
        {
            break;
        }
        if socket.write_all_buf(&mut request.header.chain(request.body)).await.is_err() {
            break;
        }
        if let Some(written) = request.written {
            // Nobody listens any more when the caller gave up; the request is out all the same.
            let _ = written.send(());
        }
    }
    closed.store(true, Ordering::Relaxed);
    // Half-closing lets replies that are on their way still arrive; the broker closes its end after the last one.
    let _ = socket.shutdown().await;
}

/// Ends when the socket ends or misbehaves, or when no writer and no waiter is left. Dropping a waiter tells it.
async fn read_loop(
    mut socket: OwnedReadHalf,
    mut waiters: mpsc::Receiver<Waiter>,
    address: Arc<str>,
    closed: Arc<AtomicBool>,
    reply_bytes_max: usize,
) {
    while let Some((waiter, frame)) = next_reply(&mut socket, &mut waiters, reply_bytes_max).await {
        let body = frame.and_then(|frame| reply_body(&waiter, frame));
        let failed = body.is_err();
        let result = body.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                ApiError::Protocol { address: address.to_string(), reason: error.to_string() }
            }
            _ => ApiError::Closed { address: address.to_string() },
        });
        // Nobody listens any more when the caller timed out; the reply is dropped.
        let _ = waiter.reply.send(result);
        if failed {
            break;
        }
    }
    closed.store(true, Ordering::Relaxed);
}

/// The next waiter with its frame; `None` when the connection is done. While nobody waits, the socket is watched, so that a
/// close by the broker is noticed at once.
async fn next_reply(
    socket: &mut OwnedReadHalf,
    waiters: &mut mpsc::Receiver<Waiter>,
    reply_bytes_max: usize,
) -> Option<(Waiter, io::Result<Bytes>)> {
    let waiter = tokio::select! {
        biased;
        waiter = waiters.recv() => waiter?,
        () = idle_end(socket) => return None,
    };
    let frame = read_frame(socket, reply_bytes_max).await;
    Some((waiter, frame))
}

/// Resolves when the broker closes an idle connection. Bytes that arrive are left for the reply that they belong to.
async fn idle_end(socket: &OwnedReadHalf) {
    let mut probe = [0u8; 1];
    match socket.as_ref().peek(&mut probe).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn read_frame(socket: &mut OwnedReadHalf, max: usize) -> io::Result<Bytes> {
    let size = socket.read_i32().await?;
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= max)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("a reply of {size} bytes was announced")))?;
    let mut frame = BytesMut::with_capacity(size.min(limits::FRAME_RESERVE_MAX));
    let mut limited = socket.take(size as u64);
    while frame.len() < size {
        if limited.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Doubling keeps copies few; growth follows only what has arrived.
        if frame.capacity() == frame.len() {
            frame.reserve(frame.len().min(size - frame.len()));
        }
    }
    Ok(frame.freeze())
}

/// Checks a reply's header and cuts it off.
fn reply_body(waiter: &Waiter, frame: Bytes) -> io::Result<Bytes> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::read(&mut reader, waiter.header_version).map_err(|e| invalid(e.to_string()))?;
    if header.correlation_id != waiter.correlation_id {
        return Err(invalid(format!("reply {} came where {} was due", header.correlation_id, waiter.correlation_id)));
    }
    Ok(reader.rest())
}

/// Opens TCP connections with the same options for every broker.
#[derive(Clone, Debug, Default)]
pub struct TcpConnector {
    pub options: ConnectionOptions,
}

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<Arc<dyn Api>, ApiError>> {
        Box::pin(async move {
            let connection: Arc<dyn Api> = Arc::new(Connection::open(host, port, &self.options).await?);
            Ok(connection)
        })
    }
}

#[cfg(test)]
mod tests {
    use taccola_wire::messages::MetadataRequest;
    use taccola_wire::messages::api_versions_response::ApiVersion;
    use tokio::net::TcpListener;

    use super::*;
    use crate::api::ApiExt;

    /// A broker that gives each request to `answer`: key, version, correlation id → raw reply frames.
    async fn broker<F>(mut answer: F) -> u16
    where
        F: FnMut(i16, i16, i32) -> Option<Vec<u8>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            while let Ok(size) = socket.read_i32().await {
                let mut frame = vec![0; size as usize];
                socket.read_exact(&mut frame).await.unwrap();
                let mut head = &frame[..];
                let (key, version, id) = (head.get_i16(), head.get_i16(), head.get_i32());
                match answer(key, version, id) {
                    Some(reply) => socket.write_all(&reply).await.unwrap(),
                    None => return,
                }
            }
        });
        port
    }

    fn frame(correlation_id: i32, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.put_i32(4 + body.len() as i32);
        frame.put_i32(correlation_id);
        frame.put_slice(body);
        frame
    }

    fn versions(code: ErrorCode, version: i16) -> Vec<u8> {
        let range = |key: ApiKey, max_version| ApiVersion { api_key: key as i16, min_version: 0, max_version };
        let response = ApiVersionsResponse {
            error_code: code.code(),
            api_keys: vec![range(ApiKey::ApiVersions, 2), range(ApiKey::Metadata, 1)],
            ..Default::default()
        };
        response.to_bytes(version).unwrap().to_vec()
    }

    async fn open(port: u16) -> Result<Connection, ApiError> {
        Connection::open("127.0.0.1", port, &ConnectionOptions::default()).await
    }

    #[tokio::test]
    async fn an_older_broker_is_asked_again_in_its_own_version() {
        let port = broker(|key, version, id| {
            assert_eq!(key, ApiKey::ApiVersions as i16);
            let known = version <= 2;
            let code = if known { ErrorCode::None } else { ErrorCode::UnsupportedVersion };
            Some(frame(id, &versions(code, if known { version } else { 0 })))
        })
        .await;
        let connection = open(port).await.unwrap();
        assert_eq!(connection.served(ApiKey::Metadata), Some(VersionRange { min: 0, max: 1 }));
        assert_eq!(connection.version::<MetadataRequest>().unwrap(), 1);
        assert!(matches!(
            connection.version::<taccola_wire::messages::FetchRequest>(),
            Err(ApiError::Unsupported { .. })
        ));
    }

    /// Negotiates, then answers Metadata with what `reply` makes of the correlation id.
    async fn negotiated(reply: impl Fn(i32) -> Option<Vec<u8>> + Send + 'static) -> Connection {
        let port = broker(move |key, version, id| match key == ApiKey::ApiVersions as i16 {
            true if version > 2 => Some(frame(id, &versions(ErrorCode::UnsupportedVersion, 0))),
            true => Some(frame(id, &versions(ErrorCode::None, version))),
            false => reply(id),
        })
        .await;
        open(port).await.unwrap()
    }

    fn empty_metadata(id: i32) -> Vec<u8> {
        let response = taccola_wire::messages::MetadataResponse { controller_id: id, ..Default::default() };
        frame(id, &response.to_bytes(1).unwrap())
    }

    #[tokio::test]
    async fn pipelined_requests_get_their_own_replies() {
        let connection = negotiated(|id| Some(empty_metadata(id))).await;
        let mut pending = Vec::new();
        for _ in 0..limits::CLIENT_IN_FLIGHT_REQUESTS_MAX * 2 {
            pending.push(connection.start(&MetadataRequest::default(), 1, true).await.unwrap());
        }
        let mut last = -1;
        for reply in pending {
            let response: taccola_wire::messages::MetadataResponse =
                crate::api::decode(reply.await.unwrap(), 1).unwrap();
            assert!(response.controller_id > last);
            last = response.controller_id;
        }
        assert!(!connection.is_closed());
    }

    #[tokio::test]
    async fn a_reply_that_makes_no_sense_closes_the_connection() {
        type Reply = fn(i32) -> Option<Vec<u8>>;
        let senseless: [Reply; 4] = [
            |id| Some(empty_metadata(id + 1)),
            |_| Some(vec![0, 0, 0, 2, 0, 0]),
            |_| Some((-1i32).to_be_bytes().to_vec()),
            |_| Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ];
        for (at, reply) in senseless.into_iter().enumerate() {
            let connection = negotiated(reply).await;
            let request = MetadataRequest::default();
            let outcome = connection.call(&request, 1).await;
            assert!(matches!(outcome, Err(ApiError::Protocol { .. })), "{at}: {outcome:?}");
            let again = connection.call(&request, 1).await;
            assert!(again.is_err() && connection.is_closed(), "{at}");
        }
    }

    #[tokio::test]
    async fn a_closed_connection_fails_everything_on_it() {
        let connection = negotiated(|_| None).await;
        let request = MetadataRequest::default();
        let (first, second) = tokio::join!(connection.call(&request, 1), connection.call(&request, 1));
        assert!(matches!(first, Err(ApiError::Closed { .. })), "{first:?}");
        assert!(matches!(second, Err(ApiError::Closed { .. })), "{second:?}");
        assert!(connection.is_closed());
        assert!(first.unwrap_err().retriable());
    }

    #[tokio::test]
    async fn nobody_listening_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = open(port).await.err().unwrap();
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
