//! What the fuzz targets of the generated messages share: every message by its name, and the properties that hold for it.

use std::fmt::Debug;

use bytes::Bytes;
use taccola_wire::codec::{Message, Reader};
use taccola_wire::messages;

/// One message type behind a function pointer.
pub struct Entry {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    pub check: fn(Bytes, i16),
}

/// What decodes can be encoded, and from then on nothing changes any more.
pub fn check<T: Message>(body: Bytes, version: i16) {
    let mut r = Reader::new(body);
    let Ok(value) = T::read(&mut r, version) else { return };
    let encoded = value.to_bytes(version).expect("what was decoded has an encoding");
    let again = T::from_bytes(encoded.clone(), version).expect("what was encoded decodes and fills its bytes");
    assert_same(&again, &value);
    assert_eq!(again.to_bytes(version).expect("encodes twice"), encoded);
}

/// Equal, or equal but for NaN.
fn assert_same<T: PartialEq + Debug>(a: &T, b: &T) {
    if a != b {
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}

fn entry<T: Message>() -> Entry {
    Entry { name: T::NAME, min: T::MIN_VERSION, max: T::MAX_VERSION, check: check::<T> }
}

macro_rules! entries {
    ($($name:ident)*) => {
        vec![$(entry::<messages::$name>()),*]
    };
}

/// In the order of their names in snake case. A seed names its message by the index here, so a new one shifts the seeds:
/// `cargo run --example seeds` writes them anew.
pub fn entries() -> Vec<Entry> {
    taccola_wire::for_each_message!(entries)
}

/// Whether `name` is what a client sends or receives; everything else is a record's schema or a header.
pub fn is_api(name: &str) -> bool {
    name.ends_with("Request") || name.ends_with("Response")
}

/// Runs the check on an input whose first byte picks one of `entries`, whose second picks the version, and whose rest is the
/// body.
pub fn run(entries: &[&Entry], data: &[u8]) {
    let [index, version, body @ ..] = data else { return };
    let entry = entries[usize::from(*index) % entries.len()];
    let version = entry.min + i16::from(*version) % (entry.max - entry.min + 1);
    (entry.check)(Bytes::copy_from_slice(body), version);
}
