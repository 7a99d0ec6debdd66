//! Runs the scripts of `testdata/share_state/`: a line that begins a line is a command, an indented one is what it printed.
//! The whole trace is compared; `UPDATE_EXPECT=1` writes it anew. `share_state_script/mod.rs` lists the commands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod share_state_script;

#[test]
fn scripts_print_what_they_printed() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/share_state");
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = share_state_script::run(&expected);
        if update {
            std::fs::write(&path, actual).unwrap();
        } else {
            assert_eq!(expected, actual, "{}: UPDATE_EXPECT=1 writes the trace anew", path.display());
        }
    }
}
