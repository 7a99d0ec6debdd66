//! The generated files are what `cargo xtask codegen` wrote: a change by hand, or a file that no spec accounts for, fails here
//! without Kafka's jars at hand. `cargo xtask codegen --check` also holds them against the specs.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn generated_files_are_untouched() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("src/messages");
    let mut files: BTreeSet<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let fingerprint = fs::read_to_string(root.join("specs/fingerprint.tsv")).unwrap();
    for line in fingerprint.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [_spec, _spec_hash, file, hash] = columns[..] else { panic!("{line}") };
        assert!(files.remove(file), "{file} is missing");
        let actual = fnv(&fs::read(dir.join(file)).unwrap());
        assert_eq!(format!("{actual:016x}"), hash, "{file} was edited by hand: change the generator and run it");
    }
    assert!(files.is_empty(), "not generated: {files:?}");
}
