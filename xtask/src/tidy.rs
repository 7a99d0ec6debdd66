//! `cargo xtask tidy`: what no compiler checks. Layering as data, dead files, headers, bans in pure crates, words that do
//! not belong, documents that point at nothing. Each finding names file and line and says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate and the workspace crates that it may depend on. An arrow that is not here is an error; so is one that
/// points up. Adding one is a design decision: see CONTRIBUTING.md.
const LAYERS: &[(&str, &[&str])] = &[
    ("taccola-base", &[]),
    ("taccola-wire", &["taccola-base"]),
    ("taccola-log", &["taccola-base", "taccola-wire"]),
    ("taccola-coord", &["taccola-base", "taccola-wire"]),
    ("taccola-meta", &["taccola-base", "taccola-wire"]),
    ("taccola-net", &["taccola-base", "taccola-wire"]),
    ("taccola-remote", &[]),
    (
        "taccola-broker",
        &[
            "taccola-base",
            "taccola-wire",
            "taccola-log",
            "taccola-coord",
            "taccola-meta",
            "taccola-net",
            "taccola-remote",
        ],
    ),
    ("taccola-client", &["taccola-base", "taccola-wire", "taccola-net"]),
    ("taccola-backup", &["taccola-base", "taccola-wire", "taccola-client", "taccola-remote"]),
    (
        "taccola",
        &[
            "taccola-base",
            "taccola-wire",
            "taccola-net",
            "taccola-remote",
            "taccola-broker",
            "taccola-client",
            "taccola-backup",
        ],
    ),
    ("taccola-it", &["taccola-base", "taccola-wire", "taccola-net", "taccola-client"]),
    ("xtask", &["taccola-base", "taccola-wire", "taccola-broker"]),
];

/// Crates whose code is a pure engine: no clock, randomness, thread or socket. The log alone may use files.
const PURE: &[&str] = &["coord", "meta", "log", "wire"];

/// What a pure crate must not name, and what to use instead.
const BANNED_IN_PURE: &[(&str, &str)] = &[
    ("SystemTime", "take `now_ms` as an argument"),
    ("Instant::now", "take `now_ms` as an argument"),
    ("std::thread", "let the broker run threads"),
    ("thread::spawn", "let the broker run threads"),
    ("std::net", "only taccola-net opens sockets"),
    ("tokio", "engines are synchronous; the broker's runtime drives them"),
    ("getrandom", "take fresh ids as arguments"),
    ("Uuid::random", "take fresh ids as arguments"),
];

/// What opens sockets stands in taccola-net alone (taccola-remote's do so inside a library that it alone depends on); tools and black-box tests are free.
const SOCKETS: &[&str] = &["TcpStream::connect", "TcpListener::bind", "UdpSocket", "UnixStream", "UnixListener"];
const MAY_OPEN_SOCKETS: &[&str] = &["net", "xtask", "it"];

/// Words that mark unfinished work or belong to history.
const BANNED_WORDS: &[&str] = &["TODO", "FIXME", "XXX", "HACK", "for now", "dbg!("];

/// The text of the marker that exempts one line from the bans above, with its reason after a colon.
const ALLOW: &str = "tidy-allow:";

/// Longest hand-written file, lines.
const FILE_LINES_MAX: usize = 1_200;

pub(crate) const USAGE: &str = "\
tidy
    Layers, dead files, headers, bans in pure crates, words that do not belong, documents in step.";

pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut findings = Vec::new();
    layering(root, &mut findings)?;
    for crate_dir in crate_dirs(root)? {
        sources(root, &crate_dir, &mut findings)?;
        beside_sources(root, &crate_dir, &mut findings)?;
    }
    documents(root, &mut findings)?;
    if findings.is_empty() {
        println!("tidy: nothing to mend");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    Err(format!("tidy: {} findings", findings.len()))
}

fn crate_dirs(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut dirs: Vec<PathBuf> = read_dir(&root.join("crates"))?.into_iter().filter(|path| path.is_dir()).collect();
    dirs.extend([root.join("xtask"), root.join("it")]);
    dirs.sort();
    Ok(dirs)
}

fn read_dir(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Every workspace dependency of every manifest is allowed by [`LAYERS`], and every row of it has its crate.
fn layering(root: &Path, findings: &mut Vec<String>) -> Result<(), String> {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for dir in crate_dirs(root)? {
        let manifest_path = dir.join("Cargo.toml");
        let manifest = read(&manifest_path)?;
        let shown = manifest_path.strip_prefix(root).unwrap_or(&manifest_path).display().to_string();
        let name =
            manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or("").trim_matches('"').to_owned();
        seen.insert(name.clone());
        let Some(allowed) = allowed.get(name.as_str()) else {
            findings.push(format!("{shown}: crate {name} has no row in xtask/src/tidy.rs LAYERS"));
            continue;
        };
        let mut in_dev = false;
        for (number, line) in manifest.lines().enumerate() {
            if line.starts_with('[') {
                in_dev = line.contains("dev-dependencies");
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or("");
            if !in_dev && dependency.starts_with("taccola-") && !allowed.contains(&dependency) {
                findings.push(format!("{shown}:{}: {name} must not depend on {dependency}", number + 1));
            }
        }
    }
    for (name, _) in LAYERS {
        if !seen.contains(*name) {
            findings.push(format!("xtask/src/tidy.rs: LAYERS has a row for {name}, which does not exist"));
        }
    }
    Ok(())
}

/// Checks each source file of a crate.
fn sources(root: &Path, crate_dir: &Path, findings: &mut Vec<String>) -> Result<(), String> {
    let source_dir = crate_dir.join("src");
    let mut files = Vec::new();
    walk(&source_dir, &mut files)?;
    let crate_name = crate_dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let declared = declared_modules(&files)?;
    for file in &files {
        let text = read(file)?;
        let shown = shown(root, file);
        if !text.starts_with("//!") {
            findings.push(format!("{shown}:1: no `//!` header; say what the file owns"));
        }
        let generated = text.lines().take(3).any(|line| line.contains("Generated"));
        let lines = text.lines().count();
        if !generated && lines > FILE_LINES_MAX {
            findings.push(format!("{shown}: {lines} lines; split it below {FILE_LINES_MAX}"));
        }
        if !declared.contains(file) {
            findings.push(format!("{shown}: no `mod` declares this file; remove it or use it"));
        }
        words(&shown, &crate_name, &text, findings);
    }
    Ok(())
}

/// Integration tests, examples and benchmarks: header and words. Cargo finds them by itself, so none is dead.
fn beside_sources(root: &Path, crate_dir: &Path, findings: &mut Vec<String>) -> Result<(), String> {
    let mut files = Vec::new();
    for dir in ["tests", "examples", "benches"].map(|name| crate_dir.join(name)) {
        if dir.is_dir() {
            walk(&dir, &mut files)?;
        }
    }
    for file in files {
        let text = read(&file)?;
        let shown = shown(root, &file);
        if !text.starts_with("//!") {
            findings.push(format!("{shown}:1: no `//!` header; say what the file tests"));
        }
        banned_words(&shown, &text, findings);
    }
    Ok(())
}

/// Relative links of the documents lead somewhere, and so do the paths that ARCHITECTURE.md names.
fn documents(root: &Path, findings: &mut Vec<String>) -> Result<(), String> {
    let mut files = Vec::new();
    for dir in [root.to_path_buf(), root.join("docs"), root.join("docs/internals")] {
        if dir.is_dir() {
            files.extend(read_dir(&dir)?.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "md")));
        }
    }
    files.sort();
    for file in files {
        let dir = file.parent().unwrap_or(root);
        for (number, line) in read(&file)?.lines().enumerate() {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            let links = links.filter(|link| !link.is_empty() && !link.contains(':') && !dir.join(link).exists());
            let paths = line.split('`').skip(1).step_by(2).filter(|span| {
                let roots = ["crates/", "docs/", "xtask/", "it/", "fuzz/"];
                let path = !span.contains(['*', '<', '{', ' ']) && roots.iter().any(|root| span.starts_with(root));
                path && !root.join(span.split("::").next().unwrap_or("")).exists()
            });
            for missing in links.chain(paths) {
                findings.push(format!("{}:{}: {missing} does not exist", shown(root, &file), number + 1));
            }
        }
    }
    Ok(())
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

fn words(shown: &str, crate_name: &str, text: &str, findings: &mut Vec<String>) {
    banned_words(shown, text, findings);
    if shown.contains("/tests") || shown.contains("/bin/") {
        return;
    }
    // The tests at the end of a file may do what its code may not.
    let production = text.find("#[cfg(test)]\nmod tests {").and_then(|at| text.get(..at)).unwrap_or(text);
    let pure = PURE.contains(&crate_name);
    let sockets = MAY_OPEN_SOCKETS.contains(&crate_name);
    for (number, line) in production.lines().enumerate().filter(|(_, line)| !line.contains(ALLOW)) {
        let code = line.split("//").next().unwrap_or("");
        for (banned, instead) in BANNED_IN_PURE.iter().filter(|(banned, _)| pure && code.contains(banned)) {
            findings.push(format!("{shown}:{}: {banned} in a pure crate; {instead}", number + 1));
        }
        for banned in SOCKETS.iter().filter(|banned| !sockets && code.contains(**banned)) {
            findings.push(format!("{shown}:{}: {banned}; only taccola-net opens sockets", number + 1));
        }
    }
}

fn banned_words(shown: &str, text: &str, findings: &mut Vec<String>) {
    let own = shown.ends_with("xtask/src/tidy.rs");
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !own && !line.contains(ALLOW)) {
        for word in BANNED_WORDS.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{shown}:{}: \"{word}\" has no place in a source file", number + 1));
        }
    }
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for path in read_dir(dir)? {
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// The files that crate roots, binaries and `mod` lines reach.
fn declared_modules(files: &[PathBuf]) -> Result<BTreeSet<PathBuf>, String> {
    let mut declared: BTreeSet<PathBuf> = files
        .iter()
        .filter(|file| {
            file.ends_with("lib.rs") || file.ends_with("main.rs") || file.parent().is_some_and(|p| p.ends_with("bin"))
        })
        .cloned()
        .collect();
    for file in files {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = file.parent().unwrap_or(Path::new(""));
        let base =
            if matches!(stem.as_str(), "lib" | "main" | "mod") { parent.to_path_buf() } else { parent.join(&stem) };
        for line in read(file)?.lines() {
            let line = line.trim_start();
            let line = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|p| line.strip_prefix(p)).unwrap_or(line);
            let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
            declared.insert(base.join(format!("{name}.rs")));
            declared.insert(base.join(name).join("mod.rs"));
        }
    }
    Ok(declared)
}
