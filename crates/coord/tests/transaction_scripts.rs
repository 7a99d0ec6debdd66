//! Runs the scripts of `testdata/transaction/`: a line that begins a line is a command, an indented one is what it
//! printed. The whole trace is compared; `UPDATE_EXPECT=1` writes it anew. `transaction_script/mod.rs` lists the commands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod transaction_image;
mod transaction_script;

use std::path::PathBuf;

fn scripts() -> Vec<PathBuf> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transaction");
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    paths
}

#[test]
fn scripts_print_what_they_printed() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let mut wrong = Vec::new();
    for path in scripts() {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = transaction_script::run(&expected);
        if actual == expected {
            continue;
        }
        if update {
            std::fs::write(&path, actual).unwrap();
        } else {
            wrong.push(format!("{}:\n{}", path.display(), transaction_script::first_difference(&expected, &actual)));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 writes the traces anew", wrong.join("\n"));
}

/// The scripts against a real Kafka: what it replies is what the traces say.
#[test]
#[ignore = "KAFKA_ORACLE=HOST:PORT names a Kafka 4.3.1 with a topic t of 4 partitions"]
fn kafka_replies_what_the_scripts_say() {
    let address = std::env::var("KAFKA_ORACLE").unwrap();
    let mut wrong = Vec::new();
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        wrong.extend(transaction_script::oracle::compare(&address, &path, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
