//! What a real client said to a Kafka and heard from it: recorded by a proxy between the two ([`Recorder`]), kept in a file
//! ([`Traffic`]), said again to any broker ([`replay`]), whose replies are compared with those that the client heard.
//!
//! Recordings lie in `it/testdata/traffic`, one for each client of [`CLIENTS`]; `it/tests/traffic.rs` replays them. `cargo run
//! -p taccola-it --bin traffic` makes them and replays them by hand.

mod clients;
mod recorder;
mod replay;
mod words;

use std::io;

use taccola_wire::batch::Compression;
use taccola_wire::compress::{compress, decompress};

pub use self::clients::{CLIENTS, Client, warm_up};
pub use self::recorder::Recorder;
pub use self::replay::{Replayed, replay};

/// Before what is compressed; the last character counts versions.
const MAGIC: &[u8] = b"taccola traffic 1\n";
/// Bytes of a recording at most.
const TRAFFIC_BYTES_MAX: usize = 64 << 20;

/// One thing that the proxy saw. Frames are without their sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Request { connection: u32, frame: Vec<u8> },
    Reply { connection: u32, frame: Vec<u8> },
    Closed { connection: u32 },
}

/// Everything that was seen, in its order: a reply stands before the requests that were sent after it was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub events: Vec<Event>,
}

impl Traffic {
    pub fn read(bytes: &[u8]) -> io::Result<Self> {
        let packed = bytes.strip_prefix(MAGIC).ok_or_else(|| io::Error::other("this is no recording"))?;
        let plain = decompress(Compression::Zstd, packed, TRAFFIC_BYTES_MAX).map_err(io::Error::other)?;
        let (mut rest, mut events) = (plain.as_slice(), Vec::new());
        let cut = || io::Error::other("the recording is cut off");
        while let Some((&kind, after)) = rest.split_first() {
            let (connection, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
            let (size, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
            let size = usize::try_from(u32::from_be_bytes(*size)).map_err(io::Error::other)?;
            let (frame, after) = after.split_at_checked(size).ok_or_else(cut)?;
            let (connection, frame) = (u32::from_be_bytes(*connection), frame.to_vec());
            events.push(match kind {
                0 => Event::Request { connection, frame },
                1 => Event::Reply { connection, frame },
                _ => Event::Closed { connection },
            });
            rest = after;
        }
        Ok(Self { events })
    }

    pub fn written(&self) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        for event in &self.events {
            let (kind, connection, frame): (u8, u32, &[u8]) = match event {
                Event::Request { connection, frame } => (0, *connection, frame),
                Event::Reply { connection, frame } => (1, *connection, frame),
                Event::Closed { connection } => (2, *connection, &[]),
            };
            plain.push(kind);
            plain.extend_from_slice(&connection.to_be_bytes());
            plain.extend_from_slice(&u32::try_from(frame.len()).map_err(io::Error::other)?.to_be_bytes());
            plain.extend_from_slice(frame);
        }
        let mut out = MAGIC.to_vec();
        compress(Compression::Zstd.into(), &plain, &mut out).map_err(io::Error::other)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_go_there_and_back() {
        let traffic = Traffic {
            events: vec![
                Event::Request { connection: 1, frame: vec![0, 18, 0, 4] },
                Event::Reply { connection: 1, frame: vec![7; 300] },
                Event::Closed { connection: 1 },
            ],
        };
        let bytes = traffic.written().unwrap();
        assert_eq!(Traffic::read(&bytes).unwrap(), traffic);
        assert!(Traffic::read(b"something else").is_err());
    }
}
