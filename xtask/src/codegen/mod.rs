//! `cargo xtask codegen`: Kafka's JSON specs, out of Kafka's own jars, into `crates/wire/src/messages`.
//!
//! The specs themselves are not ours and are not committed. What is committed is the generated code and
//! `crates/wire/specs/fingerprint.tsv`: one line per spec with the hash of its content (without comments and
//! descriptions) and that of the file generated from it. A test of the wire crate holds the files against it.

mod emit;
mod spec;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spec::Spec;

pub(crate) const USAGE: &str = "\
codegen [--specs DIR | --jars DIR] [--check]
    Generates the wire crate's messages from Kafka's specs.
    --specs DIR   folders of *.json, one per jar
    --jars DIR    Kafka's jars (default: $KAFKA_JARS), of which the specs are unpacked
    --check       writes nothing; fails if specs, generated files and fingerprints differ";

const MESSAGES: &str = "crates/wire/src/messages";
const FINGERPRINT: &str = "crates/wire/specs/fingerprint.tsv";
/// Jars whose specs are not Kafka's wire or storage formats but a client's private ones.
const SKIPPED_JARS: &[&str] = &["kafka-streams"];

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let mut specs_dir = None;
    let mut jars = std::env::var_os("KAFKA_JARS").map(PathBuf::from);
    let mut check = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--specs" => specs_dir = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            "--jars" => jars = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            "--check" => check = true,
            _ => return Err(USAGE.into()),
        }
    }
    let specs = match (specs_dir, jars) {
        (Some(dir), _) => load(&dir)?,
        (None, Some(jars)) => {
            let dir = unpack(&jars)?;
            let specs = load(&dir);
            fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            specs?
        }
        (None, None) => return Err(format!("no specs: give --specs or --jars\n\n{USAGE}")),
    };
    let files = generate(&specs)?;
    let root = root()?;
    if check { compare(root, &files) } else { store(root, &files) }
}

/// The workspace.
pub(crate) fn root() -> Result<&'static Path, String> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or_else(|| "no workspace".into())
}

/// Unpacks the specs of every jar that has some; one folder per jar.
pub(crate) fn unpack(jars: &Path) -> Result<PathBuf, String> {
    let out = std::env::temp_dir().join(format!("taccola-specs-{}", std::process::id()));
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    for jar in sorted(jars)? {
        let name = jar.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if jar.extension().is_none_or(|ext| ext != "jar") || !name.starts_with("kafka-") {
            continue;
        }
        let name = name.rsplit_once('-').map_or(name.as_str(), |(name, _version)| name);
        // unzip fails when a jar has no such member, and most have none.
        Command::new("unzip")
            .args(["-qoj"])
            .arg(&jar)
            .args(["common/*.json", "message/*.json", "-d"])
            .arg(out.join(name))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| format!("unzip: {e}"))?;
    }
    Ok(out)
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    Ok(paths)
}

fn load(dir: &Path) -> Result<Vec<Spec>, String> {
    let mut specs = Vec::new();
    for jar in sorted(dir)? {
        let jar_name = jar.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !jar.is_dir() || SKIPPED_JARS.contains(&jar_name.as_str()) {
            continue;
        }
        for path in sorted(&jar)? {
            if path.extension().is_some_and(|ext| ext == "json") {
                let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let spec = Spec::parse(&text, &jar_name).map_err(|e| format!("{}: {e}", path.display()))?;
                specs.extend(spec);
            }
        }
    }
    if specs.is_empty() {
        return Err(format!("{}: no specs", dir.display()));
    }
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(specs)
}

/// Path below the workspace → content, formatted.
fn generate(specs: &[Spec]) -> Result<BTreeMap<String, String>, String> {
    let mut files = BTreeMap::new();
    for spec in specs {
        let code = emit::message(spec).map_err(|e| format!("{}: {e}", spec.name))?;
        files.insert(format!("{MESSAGES}/{}.rs", spec.module()), code);
    }
    files.insert(format!("{MESSAGES}/api_keys.rs"), emit::api_keys(specs)?);
    files.insert(format!("{MESSAGES}/mod.rs"), emit::index(specs));
    for content in files.values_mut() {
        *content = rustfmt(content)?;
    }
    let mut fingerprint = String::from("# spec\tspec hash\tfile\tfile hash\n");
    for spec in specs {
        let path = format!("{MESSAGES}/{}.rs", spec.module());
        let hash = files.get(&path).map_or(0, |code| fnv(code.as_bytes()));
        let line = format!("{}/{}\t{:016x}\t{}.rs\t{hash:016x}\n", spec.jar, spec.name, spec.hash, spec.module());
        fingerprint.push_str(&line);
    }
    for file in ["api_keys", "mod"] {
        let hash = files.get(&format!("{MESSAGES}/{file}.rs")).map_or(0, |code| fnv(code.as_bytes()));
        fingerprint.push_str(&format!("-\t-\t{file}.rs\t{hash:016x}\n"));
    }
    files.insert(FINGERPRINT.into(), fingerprint);
    Ok(files)
}

/// FNV-1a, 64 bits: guards against accidents, not against an adversary.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn rustfmt(source: &str) -> Result<String, String> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rustfmt.toml");
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--quiet", "--config-path"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("rustfmt: {e}"))?;
    let mut stdin = child.stdin.take().ok_or("rustfmt: no stdin")?;
    stdin.write_all(source.as_bytes()).map_err(|e| format!("rustfmt: {e}"))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| format!("rustfmt: {e}"))?;
    if !output.status.success() {
        return Err(format!("rustfmt: {}\n{source}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

fn store(root: &Path, files: &BTreeMap<String, String>) -> Result<(), String> {
    for stale in stale(root, files)? {
        fs::remove_file(&stale).map_err(|e| format!("{}: {e}", stale.display()))?;
    }
    let mut changed = 0;
    for (path, content) in files {
        let path = root.join(path);
        if fs::read_to_string(&path).is_ok_and(|old| old == *content) {
            continue;
        }
        let write = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, content));
        write.map_err(|e| format!("{}: {e}", path.display()))?;
        changed += 1;
    }
    eprintln!("{} files, {changed} changed", files.len());
    Ok(())
}

/// Files in the folder of generated code that no spec accounts for.
fn stale(root: &Path, files: &BTreeMap<String, String>) -> Result<Vec<PathBuf>, String> {
    let dir = root.join(MESSAGES);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let wanted = |path: &Path| path.strip_prefix(root).is_ok_and(|p| files.contains_key(&*p.to_string_lossy()));
    Ok(sorted(&dir)?.into_iter().filter(|path| !wanted(path)).collect())
}

fn compare(root: &Path, files: &BTreeMap<String, String>) -> Result<(), String> {
    let differing =
        files.iter().filter(|(path, content)| fs::read_to_string(root.join(path)).ok().as_ref() != Some(content));
    let mut wrong: Vec<String> = differing.map(|(path, _)| path.clone()).collect();
    wrong.extend(stale(root, files)?.iter().map(|path| path.display().to_string()));
    if wrong.is_empty() { Ok(()) } else { Err(format!("differs from what the specs give:\n{}", wrong.join("\n"))) }
}
