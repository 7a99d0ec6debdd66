//! The broker that a test talks to: one of ours, or with `KAFKA_ORACLE=HOST:PORT` one that runs already, such as an Apache
//! Kafka on this machine, to see whether the test expects what that does.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::conn::Conn;
use crate::requests::now_ms;
use crate::{Broker, eventually};

pub struct Server {
    ours: Option<Broker>,
    address: SocketAddr,
}

impl Server {
    /// `properties` are the broker's if it is ours.
    pub fn start(properties: &[&str]) -> Self {
        match std::env::var("KAFKA_ORACLE") {
            Ok(oracle) if !oracle.is_empty() => {
                let address = oracle.to_socket_addrs().ok().and_then(|mut all| all.next());
                Self { ours: None, address: address.unwrap_or_else(|| panic!("KAFKA_ORACLE={oracle}")) }
            }
            _ => {
                let broker = Broker::start(properties);
                Self { address: SocketAddr::from(([127, 0, 0, 1], broker.port)), ours: Some(broker) }
            }
        }
    }

    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    pub fn conn(&self) -> Conn {
        eventually("the broker accepts", || Conn::connect_to(self.address).ok())
    }

    /// SIGKILL and a new start; false where the broker is not ours to kill.
    pub fn kill_and_restart(&mut self) -> bool {
        let Some(broker) = &mut self.ours else { return false };
        broker.kill();
        broker.launch();
        true
    }
}

/// A name that nobody had before: the oracle keeps its topics and groups.
pub fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", now_ms(), NEXT.fetch_add(1, Ordering::Relaxed))
}
