//! The golden samples, and every message by its name.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use taccola_wire::codec::{DecodeError, EncodeError, Message, Reader};
use taccola_wire::messages;

pub struct Sample {
    pub message: String,
    pub version: i16,
    pub kind: String,
    pub bytes: Bytes,
    /// The value in Rust's `{:?}` form.
    pub text: String,
}

pub fn samples() -> Vec<Sample> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/messages.tsv.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(sample).collect()
}

fn sample(line: &str) -> Sample {
    let columns: Vec<&str> = line.split('\t').collect();
    let [message, version, kind, hex, text] = columns[..] else { panic!("{line}") };
    let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    Sample {
        message: message.to_owned(),
        version: version.parse().unwrap(),
        kind: kind.to_owned(),
        bytes: (0..hex.len()).step_by(2).map(byte).collect(),
        text: text.to_owned(),
    }
}

pub struct Decoded {
    pub text: String,
    pub encoded: Result<Bytes, EncodeError>,
    /// Bytes that the value left unread.
    pub left: usize,
}

/// One message type behind function pointers.
pub struct Functions {
    pub versions: RangeInclusive<i16>,
    pub decode: fn(&mut Reader, i16) -> Result<Decoded, DecodeError>,
    /// Decodes and drops.
    pub read: fn(&mut Reader, i16) -> Result<(), DecodeError>,
    /// The default value's bytes and text.
    pub default: fn(i16) -> (Result<Bytes, EncodeError>, String),
}

fn functions<T: Message>() -> (&'static str, Functions) {
    let decode = |r: &mut Reader, version| {
        let value = T::read(r, version)?;
        Ok(Decoded { text: format!("{value:?}"), encoded: value.to_bytes(version), left: r.remaining() })
    };
    let read = |r: &mut Reader, version| T::read(r, version).map(drop);
    let default = |version| (T::default().to_bytes(version), format!("{:?}", T::default()));
    (T::NAME, Functions { versions: T::MIN_VERSION..=T::MAX_VERSION, decode, read, default })
}

macro_rules! by_name {
    ($($name:ident)*) => {
        BTreeMap::from([$(functions::<messages::$name>()),*])
    };
}

pub static MESSAGES: LazyLock<BTreeMap<&'static str, Functions>> =
    LazyLock::new(|| taccola_wire::for_each_message!(by_name));

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Flips bits, plants huge and negative lengths, cuts, and doubles parts.
pub fn damage(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len());
        match random.below(6) {
            0 | 1 => out[at] ^= 1 << random.below(8),
            2 => out[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            3 => {
                let plant: &[u8] =
                    [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 4], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x7f, 0xff]]
                        [random.below(4)];
                let end = (at + plant.len()).min(out.len());
                out.splice(at..end, plant.iter().copied());
            }
            4 => {
                let end = at + random.below(out.len() - at);
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            _ => out.truncate(at.max(1)),
        }
    }
    out
}
