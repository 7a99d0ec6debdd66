//! Writes the seeds of the targets `request`, `response`, `schema` and `frame_header`: of every message the newest version's
//! full sample, out of the wire crate's golden bytes. And those of `coordinator_replay`, out of the JVM's logs. Run it in this folder: `cargo run --example seeds`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;

use bytes::Bytes;
use taccola_wire::api::ApiKey;
use taccola_wire::batch::{RecordIter, batches};
use taccola_wire::codec::{Message as _, Writer};
use taccola_wire::messages::RequestHeader;

/// Larger samples teach the fuzzer no more.
const SEED_BYTES_MAX: usize = 2048;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    let golden = fs::File::open("../crates/wire/tests/golden/messages.tsv.gz")?;
    flate2::read::GzDecoder::new(golden).read_to_string(&mut text)?;
    let mut newest: BTreeMap<&str, (i16, Vec<u8>)> = BTreeMap::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, version, "full", hex, _] = columns[..] else { continue };
        let bytes: Result<Vec<u8>, _> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16)).collect();
        let bytes = bytes?;
        if bytes.len() <= SEED_BYTES_MAX {
            newest.insert(name, (version.parse()?, bytes));
        }
    }
    let entries = taccola_fuzz::entries();
    let mut indexes: BTreeMap<&str, u8> = BTreeMap::new();
    for entry in &entries {
        let target = target(entry.name);
        let index = indexes.entry(target).or_default();
        if let Some((version, bytes)) = newest.get(entry.name) {
            let seed = [&[*index, (version - entry.min) as u8][..], bytes].concat();
            write(target, entry.name, &seed)?;
            if let Some(frame) = frame(entry.name, *version, bytes) {
                write("frame_header", entry.name, &frame)?;
            }
        }
        *index += 1;
    }
    coordinator_seeds()
}

/// Each log of the JVM as one run of records in the form of `coordinator_replay`.
fn coordinator_seeds() -> Result<(), Box<dyn std::error::Error>> {
    for name in ["consumer_offsets", "share_groups", "streams_groups"] {
        let log = fs::read(format!("../crates/coord/testdata/jvm_4_3_1.{name}.log"))?;
        let mut seed = Vec::new();
        for batch in batches(&log) {
            for record in RecordIter::new(&Bytes::copy_from_slice(batch?.bytes))? {
                let record = record?;
                let (key, value) = (record.key.unwrap_or_default(), record.value.clone().unwrap_or_default());
                seed.push(u8::from(record.value.is_none()));
                seed.extend_from_slice(&u16::try_from(key.len())?.to_be_bytes());
                seed.extend_from_slice(&u16::try_from(value.len())?.to_be_bytes());
                seed.extend_from_slice(&[&key[..], &value[..]].concat());
            }
        }
        write("coordinator_replay", name, &seed)?;
    }
    Ok(())
}

fn target(name: &str) -> &'static str {
    match name {
        _ if name.ends_with("Request") => "request",
        _ if name.ends_with("Response") => "response",
        _ => "schema",
    }
}

fn frame(name: &str, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    let info = ApiKey::ALL.iter().find(|info| Some(info.name) == name.strip_suffix("Request"))?;
    let header = RequestHeader {
        request_api_key: info.key.code(),
        request_api_version: version,
        correlation_id: 7,
        client_id: Some("seed".into()),
    };
    let mut w = Writer::new();
    header.write(&mut w, info.request_header_version(version)).ok()?;
    w.raw(body);
    Some(w.into_bytes().to_vec())
}

fn write(target: &str, name: &str, seed: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(format!("corpus/{target}"))?;
    fs::write(format!("corpus/{target}/{name}"), seed)
}
