//! One blocking connection that says exactly what a test wants said: typed requests at a chosen version, hand-made frames,
//! replies in the order in which they come. It negotiates nothing and retries nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::{Message, Reader, Request};
use taccola_wire::messages::{RequestHeader, ResponseHeader};

use crate::WITHIN;

/// A connection and the correlation id of its last request.
#[derive(Debug)]
pub struct Conn {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Conn {
    pub fn connect(port: u16) -> io::Result<Self> {
        Self::connect_to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    pub fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        Ok(Self { stream, correlation_id: 0 })
    }

    pub fn read_within(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Sends a request; answers its correlation id.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<i32> {
        let body = request.to_bytes(version).map_err(io::Error::other)?;
        self.send_body(R::KEY, version, &body)
    }

    /// The same with a body that may be anything.
    pub fn send_body(&mut self, key: ApiKey, version: i16, body: &[u8]) -> io::Result<i32> {
        self.correlation_id += 1;
        let header = RequestHeader {
            request_api_key: key.code(),
            request_api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("it".to_owned()),
            ..Default::default()
        };
        let header = header.to_bytes(key.info().request_header_version(version)).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(4 + header.len() + body.len());
        frame.extend_from_slice(&i32::try_from(header.len() + body.len()).map_err(io::Error::other)?.to_be_bytes());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(body);
        self.stream.write_all(&frame)?;
        Ok(self.correlation_id)
    }

    /// The next frame without its size.
    pub fn frame(&mut self) -> io::Result<Bytes> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = usize::try_from(i32::from_be_bytes(size)).map_err(io::Error::other)?;
        let mut frame = vec![0; size];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// The next reply, which must carry `correlation_id` and leave no byte unread.
    pub fn reply<M: Message>(&mut self, key: ApiKey, version: i16, correlation_id: i32) -> io::Result<M> {
        let mut reader = Reader::new(self.frame()?);
        let header_version = key.info().response_header_version(version);
        let header = ResponseHeader::read(&mut reader, header_version).map_err(io::Error::other)?;
        if header.correlation_id != correlation_id {
            return Err(io::Error::other(format!("reply {} where {correlation_id} was due", header.correlation_id)));
        }
        let body = M::read(&mut reader, version).map_err(io::Error::other)?;
        if reader.remaining() > 0 {
            return Err(io::Error::other(format!("{} bytes behind the reply of {key:?}", reader.remaining())));
        }
        Ok(body)
    }

    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let id = self.send(request, version)?;
        self.reply(R::KEY, version, id)
    }

    /// The same where a failure of the connection is a failure of the test.
    #[track_caller]
    pub fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.call(request, version).unwrap_or_else(|error| panic!("{:?} v{version}: {error}", R::KEY))
    }

    /// Whether the broker has closed the connection, waiting for that at most the read limit.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}
