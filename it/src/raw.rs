//! The same request at a broker wherever it listens, answered or the test ends. For tests that compare two brokers.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Mutex;

use taccola_wire::codec::Request;

use crate::conn::Conn;

/// A connection to `host:port` that can be shared.
#[derive(Debug)]
pub struct Raw(Mutex<Conn>);

impl Raw {
    pub fn connect(address: &str) -> Self {
        let mut addresses = address.to_socket_addrs().expect("host:port");
        let address = addresses.find(std::net::SocketAddr::is_ipv4).expect("an IPv4 address");
        Self(Mutex::new(Conn::connect_to(address).expect("the broker accepts")))
    }

    pub fn try_call<R: Request>(&self, request: &R, version: i16) -> io::Result<R::Response> {
        self.0.lock().expect("no panic under this lock").call(request, version)
    }

    #[track_caller]
    pub fn call<R: Request>(&self, request: &R, version: i16) -> R::Response {
        self.try_call(request, version).unwrap_or_else(|error| panic!("{:?} v{version}: {error}", R::KEY))
    }
}
