//! Every message, record schema and version against the bytes that Apache Kafka's own classes make of the same values
//! (`tests/golden/messages.tsv.gz`, written by `cargo xtask golden`), both ways; then the same bytes cut short and damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use common::{MESSAGES, Sample, samples};
use taccola_wire::codec::Reader;

#[test]
fn bytes_and_values_are_kafkas() {
    let mut wrong = String::new();
    for Sample { message, version, kind, bytes, text } in samples() {
        let functions = MESSAGES.get(message.as_str()).unwrap_or_else(|| panic!("no {message}"));
        let at = format!("{message} v{version} {kind}");
        match (functions.decode)(&mut Reader::new(bytes.clone()), version) {
            Ok(decoded) => {
                if decoded.text != text {
                    let _ = writeln!(wrong, "{at}: decoded\n  {}\nKafka has\n  {text}", decoded.text);
                }
                if decoded.left != 0 {
                    let _ = writeln!(wrong, "{at}: {} bytes left", decoded.left);
                }
                if decoded.encoded.as_ref() != Ok(&bytes) {
                    let _ = writeln!(wrong, "{at}: encoded\n  {:02x?}\nKafka has\n  {bytes:02x?}", decoded.encoded);
                }
            }
            Err(e) => _ = writeln!(wrong, "{at}: {e}"),
        }
        if kind == "default" {
            let (encoded, default) = (functions.default)(version);
            if encoded.as_ref() != Ok(&bytes) || default != text {
                let _ = writeln!(wrong, "{at}: Default is\n  {default}\nKafka has\n  {text}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_version_of_every_message_is_there() {
    let mut seen: BTreeMap<String, BTreeSet<i16>> = BTreeMap::new();
    for sample in samples().into_iter().filter(|s| s.kind == "full") {
        seen.entry(sample.message).or_default().insert(sample.version);
    }
    for (name, functions) in MESSAGES.iter() {
        let versions: BTreeSet<i16> = functions.versions.clone().collect();
        assert_eq!(seen.remove(*name), Some(versions), "{name}");
    }
    assert!(seen.is_empty(), "{seen:?}");
}

/// A cut message is an error or, where the cut falls between two optional ends, another value; never a panic.
#[test]
fn truncation_is_an_error_or_a_value() {
    for Sample { message, version, bytes, .. } in samples() {
        let functions = &MESSAGES[message.as_str()];
        for end in 0..bytes.len() {
            let mut r = Reader::new(bytes.slice(..end));
            assert!((functions.read)(&mut r, version).is_err(), "{message} v{version} cut at {end}");
        }
    }
}

#[test]
fn damage_is_an_error_or_a_value() {
    let mut random = common::Random::new(0x7acc01a);
    for Sample { message, version, bytes, .. } in samples().into_iter().filter(|s| !s.bytes.is_empty()) {
        let functions = &MESSAGES[message.as_str()];
        for _ in 0..40 {
            let damaged = common::damage(&bytes, &mut random);
            let mut r = Reader::new(Bytes::from(damaged));
            if (functions.read)(&mut r, version).is_ok() {
                let again =
                    (functions.decode)(&mut Reader::new(r.consumed()), version).expect("decodes once, decodes twice");
                let encoded = again.encoded.expect("what was decoded can be encoded");
                let back = (functions.decode)(&mut Reader::new(encoded), version).expect("what was encoded decodes");
                assert_eq!(back.text, again.text, "{message} v{version}");
            }
        }
    }
}

/// Other versions' bytes are no less hostile.
#[test]
fn the_wrong_version_is_an_error_or_a_value() {
    for Sample { message, bytes, .. } in samples() {
        let functions = &MESSAGES[message.as_str()];
        for version in functions.versions.clone() {
            let _ = (functions.read)(&mut Reader::new(bytes.clone()), version);
        }
        let past = *functions.versions.end() + 1;
        assert!((functions.read)(&mut Reader::new(bytes.clone()), past).is_err(), "{message} v{past}");
        assert!((functions.read)(&mut Reader::new(bytes), functions.versions.start() - 1).is_err());
    }
}
