//! Runs the scripts of `testdata/`: a line that begins a line is a command, an indented one is what it printed. The whole
//! trace is compared; `UPDATE_EXPECT=1` writes it anew. `script/mod.rs` lists the commands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod script;

use std::path::Path;

#[test]
fn scripts_print_what_they_printed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    let mut wrong = Vec::new();
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = script::run(&expected);
        if actual == expected {
            continue;
        }
        if update {
            std::fs::write(&path, actual).unwrap();
        } else {
            wrong.push(format!("{}:\n{}", path.display(), script::first_difference(&expected, &actual)));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 writes the traces anew", wrong.join("\n"));
}
