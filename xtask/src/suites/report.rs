//! `docs/compatibility.md` out of results, and the verdict. The document is brought up to date suite by suite: rows and
//! sections of suites that did not take part stay as they are.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::node::Side;
use super::outcome::{Outcome, Results};
use super::table::{Kind, SUITES, Suite};
use crate::kafka_jars::KAFKA_VERSION;

const DOCUMENT: &str = "docs/compatibility.md";
const ROWS: (&str, &str) = ("<!-- rows -->\n", "<!-- end of rows -->\n");
const SECTIONS: (&str, &str) = ("<!-- sections -->\n", "<!-- end of sections -->\n");
const SECTION: &str = "### ";

/// One suite, both sides.
struct Comparison<'a> {
    suite: &'a Suite,
    kafka: Option<Results>,
    taccola: Option<Results>,
    /// Whether both sides are asked for.
    whole: bool,
}

/// A test that does not pass on Taccola, and what is known of it.
struct Short<'a> {
    test: &'a str,
    kafka: Option<Outcome>,
    taccola: Option<Outcome>,
    note: Option<(Kind, &'static str)>,
}

impl Comparison<'_> {
    /// What passes on Kafka, or was not run there, and does not pass on Taccola.
    fn short(&self) -> Vec<Short<'_>> {
        if self.taccola.is_none() && !self.whole {
            return Vec::new();
        }
        let sides = [&self.kafka, &self.taccola].map(Option::as_ref);
        let names: BTreeSet<&String> = sides.iter().flatten().flat_map(|results| results.tests.keys()).collect();
        let short = names.into_iter().filter_map(|test| {
            let [there, here] = sides.map(|results| results.and_then(|results| results.tests.get(test)).copied());
            let counts = there == Some(Outcome::Passed) || there.is_none() && here == Some(Outcome::Failed);
            let note = self.suite.notes.iter().find(|note| note.is_about(test)).map(|note| (note.kind, note.why));
            (counts && here != Some(Outcome::Passed)).then_some(Short { test, kafka: there, taccola: here, note })
        });
        short.collect()
    }

    /// Why this is no success.
    fn faults(&self) -> Vec<String> {
        let name = self.suite.name;
        let mut faults = Vec::new();
        for (side, results) in [(Side::Kafka, &self.kafka), (Side::Taccola, &self.taccola)] {
            for reason in results.iter().flat_map(|results| &results.cut_short) {
                faults.push(format!("{name} on {}: cut short: {reason}", side.name()));
            }
        }
        if self.taccola.is_none() && (self.whole || self.kafka.is_none()) {
            faults.push(format!("{name}: no run on Taccola"));
        }
        let open = self.short().into_iter().filter(|short| short.note.is_none());
        faults.extend(open.map(|short| format!("{name}: {}: {}", short.test, word(short.taccola))));
        faults
    }

    fn row(&self) -> String {
        let figures = |results: &Option<Results>| match results {
            None => "not run".to_owned(),
            Some(results) => {
                let count = |outcome| results.count(outcome);
                let cut = if results.cut_short.is_empty() { "" } else { ", **cut short**" };
                let (passed, failed) = (count(Outcome::Passed), count(Outcome::Failed));
                format!("{passed} / {failed} / {}{cut}", count(Outcome::Skipped))
            }
        };
        let open = self.short().iter().filter(|short| short.note.is_none()).count();
        let of = self.taccola.as_ref().map_or("", |results| results.of.as_str());
        let Suite { name, title, version, .. } = self.suite;
        let (kafka, taccola) = (figures(&self.kafka), figures(&self.taccola));
        format!("| `{name}` | {title} | {version} | {kafka} | {taccola} | {open} | {of} |\n")
    }

    fn section(&self) -> String {
        let Suite { name, title, version, source, changes, settings, .. } = self.suite;
        let mut text = format!("{SECTION}{name}\n\n{title}, {version}, from {source}: `cargo xtask suites {name}`.\n");
        if !changes.is_empty() {
            let _ = writeln!(text, "Changed in the sources: {changes}.");
        }
        if !settings.is_empty() {
            let settings: Vec<String> = settings.iter().map(|setting| format!("`{setting}`")).collect();
            let _ = writeln!(text, "Broker: {}.", settings.join(", "));
        }
        for (side, results) in [("Kafka", &self.kafka), ("Taccola", &self.taccola)] {
            for reason in results.iter().flat_map(|results| &results.cut_short) {
                let reason = reason.lines().next().unwrap_or_default();
                let _ = writeln!(text, "\n**Cut short on {side}**: {reason}");
            }
        }
        let short = self.short();
        if short.is_empty() {
            text.push_str("\nNo test that passes on Kafka falls short on Taccola.\n\n");
            return text;
        }
        text.push_str("\n| Test | Kafka | Taccola | |\n|---|---|---|---|\n");
        for Short { test, kafka, taccola, note } in short {
            let why = note.map_or("**open**".to_owned(), |(kind, why)| format!("{}: {why}", kind.title()));
            let _ = writeln!(text, "| `{test}` | {} | {} | {why} |", word(kafka), word(taccola));
        }
        text.push('\n');
        text
    }
}

fn word(outcome: Option<Outcome>) -> &'static str {
    outcome.map_or("absent", Outcome::name)
}

/// Brings the document up to date where `write`, prints what falls short, and fails if anything does.
pub(super) fn conclude(
    root: &Path,
    folder: &Path,
    suites: &[&'static Suite],
    sides: &[Side],
    write: bool,
) -> Result<(), String> {
    let load = |suite: &Suite, side: Side| {
        let path = folder.join(format!("{}.{}.tsv", suite.name, side.name()));
        if sides.contains(&side) { Results::load(&path) } else { None }
    };
    let comparisons: Vec<Comparison<'_>> = suites
        .iter()
        .map(|suite| Comparison {
            suite,
            kafka: load(suite, Side::Kafka),
            taccola: load(suite, Side::Taccola),
            whole: sides.len() == Side::BOTH.len(),
        })
        .collect();
    if write {
        let path = root.join(DOCUMENT);
        let old = fs::read_to_string(&path).map_err(|error| format!("{DOCUMENT}: {error}"))?;
        fs::write(&path, document(&old, &comparisons)?).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    }
    println!(
        "\n| Suite | | Version | Kafka {KAFKA_VERSION} | Taccola | Short | Commit |\n|---|---|---|---|---|---|---|"
    );
    for comparison in &comparisons {
        print!("{}", comparison.row());
    }
    let faults: Vec<String> = comparisons.iter().flat_map(Comparison::faults).collect();
    if faults.is_empty() { Ok(()) } else { Err(format!("suites: {}", faults.join("\nsuites: "))) }
}

/// The document with the rows and sections of these suites in the place of their old ones, in the table's order.
fn document(old: &str, comparisons: &[Comparison<'_>]) -> Result<String, String> {
    let (before_rows, rows, rest) = between(old, ROWS)?;
    let (before_sections, sections, after) = between(rest, SECTIONS)?;
    let old_row = |suite: &Suite| {
        let start = format!("| `{}` |", suite.name);
        rows.split_inclusive('\n').find(|row| row.starts_with(&start)).map(str::to_owned)
    };
    let old_section = |suite: &Suite| {
        let start = format!("{SECTION}{}\n", suite.name);
        let from = sections.find(&start)?;
        let text = sections.get(from..)?;
        let end = text.get(1..)?.find(&format!("\n{SECTION}")).map_or(text.len(), |at| at + 2);
        text.get(..end).map(str::to_owned)
    };
    let (mut new_rows, mut new_sections) = (String::new(), String::new());
    for suite in SUITES {
        let new = comparisons.iter().find(|comparison| comparison.suite.name == suite.name);
        new_rows.push_str(&new.map(Comparison::row).or_else(|| old_row(suite)).unwrap_or_default());
        new_sections.push_str(&new.map(Comparison::section).or_else(|| old_section(suite)).unwrap_or_default());
    }
    let ((r0, r1), (s0, s1)) = (ROWS, SECTIONS);
    Ok(format!("{before_rows}{r0}{new_rows}{r1}{before_sections}{s0}{new_sections}{s1}{after}"))
}

/// What stands before, between and behind two marks.
fn between<'a>(text: &'a str, (start, end): (&str, &str)) -> Result<(&'a str, &'a str, &'a str), String> {
    let lost = || format!("{DOCUMENT} has lost its mark {}", start.trim());
    let (before, rest) = text.split_once(start).ok_or_else(lost)?;
    let (inside, after) = rest.split_once(end).ok_or_else(lost)?;
    Ok((before, inside, after))
}

#[cfg(test)]
mod tests {
    use super::super::table::Note;
    use super::*;

    fn results(tests: &[(&str, Outcome)]) -> Option<Results> {
        let mut results = Results { of: "x".to_owned(), ..Results::default() };
        for (test, outcome) in tests {
            results.add(test, *outcome);
        }
        Some(results)
    }

    fn suite(notes: &'static [Note]) -> Suite {
        Suite { notes, ..*SUITES.first().unwrap() }
    }

    #[test]
    fn a_skip_an_absence_and_a_failure_all_fall_short() {
        use Outcome::{Failed, Passed, Skipped};
        const NOTES: &[Note] = &[Note { test: "acl*", kind: Kind::OutOfScope, why: "no ACLs" }];
        let suite = suite(NOTES);
        let kafka = [("a", Passed), ("b", Passed), ("c", Passed), ("d", Passed), ("e", Failed), ("acl1", Passed)];
        let taccola = [("a", Passed), ("b", Skipped), ("c", Failed), ("e", Failed), ("acl1", Failed), ("new", Failed)];
        let comparison = Comparison { suite: &suite, kafka: results(&kafka), taccola: results(&taccola), whole: true };
        let open: Vec<String> = comparison.faults();
        let name = suite.name;
        let expected = ["b: skip", "c: fail", "d: absent", "new: fail"].map(|fault| format!("{name}: {fault}"));
        assert_eq!(open, expected);
        assert!(comparison.section().contains("| `acl1` | pass | fail | out of scope: no ACLs |"));
        assert!(comparison.row().contains("| 5 / 1 / 0 | 1 / 4 / 1 | 4 |"), "{}", comparison.row());
    }

    #[test]
    fn what_was_cut_short_or_not_run_is_no_success() {
        let suite = suite(&[]);
        let mut cut = results(&[("a", Outcome::Passed)]);
        cut.as_mut().unwrap().cut_short.push("the broker died".to_owned());
        let comparison =
            Comparison { suite: &suite, kafka: results(&[("a", Outcome::Passed)]), taccola: cut, whole: true };
        assert_eq!(comparison.faults(), [format!("{} on taccola: cut short: the broker died", suite.name)]);
        assert!(comparison.row().contains("**cut short**"));
        let comparison = Comparison { suite: &suite, kafka: None, taccola: None, whole: true };
        assert_eq!(comparison.faults(), [format!("{}: no run on Taccola", suite.name)]);
    }

    #[test]
    fn suites_that_did_not_take_part_keep_their_place() {
        let first = SUITES.first().unwrap();
        let old = "intro\n<!-- rows -->\n<!-- end of rows -->\nmid\n<!-- sections -->\n<!-- end of sections -->\nend\n";
        let green = results(&[("a", Outcome::Passed)]);
        let one = [Comparison { suite: first, kafka: green.clone(), taccola: green, whole: true }];
        let with_one = document(old, &one).unwrap();
        assert!(with_one.contains(&format!("| `{}` |", first.name)) && with_one.contains("No test that passes"));
        assert_eq!(document(&with_one, &[]).unwrap(), with_one);
        assert_eq!(document(&with_one, &one).unwrap(), with_one);
        assert!(document("no marks", &[]).is_err());
    }
}
