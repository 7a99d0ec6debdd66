//! `cargo xtask status`: the README's table of what is served, from the broker's dispatch table and the keys that Kafka's
//! specs define. What has no row in the dispatch table is named as not served.

use std::fmt::Write as _;
use std::path::Path;

use taccola_broker::dispatch;
use taccola_wire::api::{ApiInfo, ApiKey};

use crate::kafka_jars::KAFKA_VERSION;

pub(crate) const USAGE: &str = "\
status [--check]
    Writes the table of served APIs into README.md.
    --check       writes nothing; fails if the table is not what the dispatch table says";

const BEGIN: &str = "<!-- status:begin -->\n";
const END: &str = "<!-- status:end -->";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err(USAGE.to_owned()),
    };
    let path = root.join("README.md");
    let readme = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let wanted =
        replaced(&readme, &table()).ok_or("README.md: no lines `<!-- status:begin -->` and `<!-- status:end -->`")?;
    match (wanted == readme, check) {
        (true, _) => Ok(()),
        (false, true) => Err("README.md: the status table is out of step; run `cargo xtask status`".to_owned()),
        (false, false) => std::fs::write(&path, wanted).map_err(|error| format!("{}: {error}", path.display())),
    }
}

/// The text with what stands between the two markers exchanged.
fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn table() -> String {
    let mut out = format!("| Key | API | Taccola | Kafka {KAFKA_VERSION} |\n| ---: | --- | --- | --- |\n");
    for row in dispatch::TABLE {
        let kafka = versions(row.key.info().advertised_min(), row.key.info().max);
        let (code, served) = (row.key.code(), versions(row.min_version, row.max_version));
        let _ = writeln!(out, "| {code} | {} | {served} | {kafka} |", row.key);
    }
    let absent: Vec<String> =
        ApiKey::ALL.iter().filter(|info| info.broker && dispatch::row(info.key.code()).is_none()).map(shown).collect();
    let _ = writeln!(
        out,
        "\nNot served and not advertised, of what a Kafka {KAFKA_VERSION} broker advertises: {}.",
        absent.join(", ")
    );
    out
}

fn shown(info: &ApiInfo) -> String {
    format!("{} ({})", info.name, info.key.code())
}

fn versions(min: i16, max: i16) -> String {
    if min == max { min.to_string() } else { format!("{min}–{max}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_markers_changes() {
        let text = format!("a\n{BEGIN}old\n{END}\nb");
        assert_eq!(replaced(&text, "new\n"), Some(format!("a\n{BEGIN}new\n{END}\nb")));
        assert_eq!(replaced("no markers", "new"), None);
    }

    #[test]
    fn nothing_is_served_beyond_kafka() {
        for row in dispatch::TABLE {
            let info = row.key.info();
            assert!(row.min_version >= info.advertised_min() && row.max_version <= info.max, "{}", row.key);
        }
    }
}
