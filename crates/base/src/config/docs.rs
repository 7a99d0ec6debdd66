//! `docs/config.md`, written from the table.

use super::key::{ConfigKey, DefaultValue, Scope, Status, Unit, UpdateMode, Valid};
use super::layers::stand_in;
use super::table::{AREAS, REMOVED};
use super::value::allowed;
use std::fmt::Write;

const HEAD: &str = "\
# Configuration

<!-- Generated from the table in crates/base/src/config; `UPDATE_DOCS=1 cargo test -p taccola-base docs` rewrites it. -->

Every key of Apache Kafka 4.3.1 is known, under Kafka's name. Settings come from, the later the stronger:

1. the defaults below;
2. one file: `server.properties` in Java's syntax, or TOML (`*.toml`) with the same names, dotted or nested
   (`log.dirs = [\"/a\"]` or `[log]` and `dirs = [\"/a\"]`; where one key is the beginning of another, as `max.connections`
   and `max.connections.per.ip`, quote both);
3. the environment, as Kafka's image reads it: `KAFKA_` and the name in capitals, `.` as `_`, `_` as `__`, `-` as `___`
   (`KAFKA_NUM_PARTITIONS=3`); also Bitnami's `KAFKA_CFG_…`, `TACCOLA_…` for our own keys, and `CLUSTER_ID`;
4. flags: `--override num.partitions=3`.

What becomes of a key:

- **works**: it does what it says.
- **no effect**: it is taken and shown; a value other than the default gives one warning at start.
- **refused**: a value other than the default is an error at start, because it would promise what is not kept.

Unknown keys are ignored with a warning. Wrong values are errors; all of them are reported at once, each with its place.

*Changes* says how a broker's key can change while it runs: read-only, per-broker (for one broker), cluster-wide (for one,
or as the default of all). Topics, groups and client metrics can always be changed.
";

/// The whole page.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    for (heading, keys) in AREAS {
        let mut keys: Vec<&ConfigKey> = keys.iter().collect();
        keys.sort_by_key(|k| k.name);
        let scope = keys.first().map_or(Scope::Broker, |k| k.scope);
        let heading = if scope == Scope::Broker {
            (*heading).to_owned()
        } else {
            format!("{heading} ({} configs)", scope.name())
        };
        let last = if scope == Scope::Broker { "Changes" } else { "Broker's keys behind it" };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n## {heading}\n\n| Key | What it is | Type | Default | {last} | Here |\n|---|---|---|---|---|---|\n"
        );
        for key in keys {
            row(&mut out, key);
        }
    }
    out.push_str("\n## Gone since Kafka 4.0\n\n| Key | Instead |\n|---|---|\n");
    for key in REMOVED {
        let refused = if key.refused { " (refused)" } else { "" };
        let _ = writeln!(out, "| `{}` | {}{refused} |", key.name, cell(key.advice));
    }
    out
}

fn row(out: &mut String, key: &ConfigKey) {
    let last = match key.scope {
        Scope::Broker => mode(key.update).to_owned(),
        _ => key.synonyms.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", "),
    };
    let _ = writeln!(
        out,
        "| `{}` | {} | {} | {} | {last} | {} |",
        key.name,
        cell(key.doc),
        cell(&kind(key)),
        default(key),
        cell(&status(key)),
    );
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

const fn mode(update: UpdateMode) -> &'static str {
    update.name()
}

fn kind(key: &ConfigKey) -> String {
    let unit = if key.unit == Unit::None { String::new() } else { format!(", {}", key.unit.name()) };
    let bounds = match key.valid {
        Valid::Any => String::new(),
        Valid::Range { min: Some(min), max: None } => format!(", ≥ {min}"),
        Valid::Range { min: Some(min), max: Some(max) } => format!(", {min} to {max}"),
        Valid::Between { min, max } => format!(", {min} to {max}"),
        Valid::OneOf(all) | Valid::OneOfAnyCase(all) => format!(": {}", all.join(", ")),
        _ => format!(", {}", allowed(key)),
    };
    format!("{}{unit}{bounds}", key.kind.name())
}

fn default(key: &ConfigKey) -> String {
    match (key.default, key.default.text()) {
        (DefaultValue::Required, _) => stand_in(key.name).map(|s| format!("`{s}`")).unwrap_or_default(),
        (_, None) => "none".to_owned(),
        (_, Some(text)) if text.is_empty() => "empty".to_owned(),
        (_, Some(text)) => format!("`{text}`"),
    }
}

fn status(key: &ConfigKey) -> String {
    match key.status {
        Status::Implemented => "works".to_owned(),
        Status::Accepted => "no effect".to_owned(),
        Status::Refused { reason, .. } => format!("refused: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_page_is_in_step() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
        let page = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == page, "docs/config.md is out of step: UPDATE_DOCS=1 cargo test -p taccola-base docs");
    }
}
