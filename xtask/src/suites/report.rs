//! `docs/compatibility.md` out of results, and the verdict. The document is brought up to date suite by suite: rows and
//! sections of suites that did not take part stay as they are. Beside it lies a list per suite, of every test with what it did
//! on either side; where Kafka does not run, its column is what Taccola is held against.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::node::Side;
use super::outcome::{Outcome, Results};
use super::table::{Kind, SUITES, Suite};
use crate::kafka_jars::KAFKA_VERSION;

const DOCUMENT: &str = "docs/compatibility.md";
const LISTS: &str = "docs/compatibility";
const LIST_HEAD: &str = "test\tkafka\ttaccola";
const ROWS: (&str, &str) = ("<!-- rows -->\n", "<!-- end of rows -->\n");
const SECTIONS: (&str, &str) = ("<!-- sections -->\n", "<!-- end of sections -->\n");
const SECTION: &str = "### ";

/// One suite, both sides.
struct Comparison<'a> {
    suite: &'a Suite,
    kafka: Option<Results>,
    taccola: Option<Results>,
    /// The sides that are to be there.
    judged: &'a [Side],
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
        if !self.judged.contains(&Side::Taccola) {
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
        for (side, results) in [(Side::Kafka, &self.kafka), (Side::Taccola, &self.taccola)] {
            if results.is_none() && self.judged.contains(&side) {
                faults.push(format!("{name}: no run on {}", side.name()));
            }
        }
        let open = self.short().into_iter().filter(|short| short.note.is_none());
        faults.extend(open.map(|short| format!("{name}: {}: {}", short.test, word(short.taccola))));
        faults
    }

    /// Every test with its two outcomes.
    fn list(&self) -> String {
        let sides = [&self.kafka, &self.taccola].map(Option::as_ref);
        let names: BTreeSet<&String> = sides.iter().flatten().flat_map(|results| results.tests.keys()).collect();
        let mut text = format!("{LIST_HEAD}\n");
        for test in names {
            let [there, here] = sides.map(|results| results.and_then(|results| results.tests.get(test)).copied());
            let _ = writeln!(text, "{test}\t{}\t{}", word(there), word(here));
        }
        text
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
        let _ = writeln!(text, "[Every test](compatibility/{name}.tsv).");
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
        for (side, results) in [("Kafka", &self.kafka), ("Taccola", &self.taccola)] {
            let alone: Vec<String> =
                results.iter().flat_map(|results| &results.alone).map(|test| format!("`{test}`")).collect();
            if !alone.is_empty() {
                let _ = writeln!(text, "\nPassed on {side} when run again, alone: {}.", alone.join(", "));
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

/// The results of suites, side by side.
fn compare<'a>(root: &Path, folder: &Path, suites: &[&'a Suite], judged: &'a [Side]) -> Vec<Comparison<'a>> {
    let load = |suite: &Suite, side: Side| {
        let path = folder.join(format!("{}.{}.tsv", suite.name, side.name()));
        if judged.contains(&side) { Results::load(&path) } else { None }
    };
    let compare = |suite: &&'a Suite| {
        let (mut kafka, taccola) = (load(suite, Side::Kafka), load(suite, Side::Taccola));
        if let (None, Some(taccola)) = (&kafka, &taccola) {
            kafka = known_of_kafka(root, suite);
            // A part of the suite is held against what is known of that part.
            if let (Some(kafka), false) = (&mut kafka, judged.contains(&Side::Kafka)) {
                kafka.tests.retain(|test, _| taccola.tests.contains_key(test));
            }
        }
        Comparison { suite, kafka, taccola, judged }
    };
    suites.iter().map(compare).collect()
}

/// Kafka's column of a suite's list.
fn known_of_kafka(root: &Path, suite: &Suite) -> Option<Results> {
    let list = fs::read_to_string(root.join(LISTS).join(format!("{}.tsv", suite.name))).ok()?;
    let mut results = Results { of: KAFKA_VERSION.to_owned(), ..Results::default() };
    for line in list.lines() {
        let mut columns = line.split('\t');
        if let (Some(test), Some(outcome)) = (columns.next(), columns.next().and_then(Outcome::parse)) {
            results.add(test, outcome);
        }
    }
    // A list that was written before Kafka ran says nothing of Kafka.
    (!results.tests.is_empty()).then_some(results)
}

/// Brings the document and the lists up to date.
pub(super) fn write(root: &Path, folder: &Path, suites: &[&Suite]) -> Result<(), String> {
    let comparisons = compare(root, folder, suites, &Side::BOTH);
    let path = root.join(DOCUMENT);
    let old = fs::read_to_string(&path).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    fs::write(&path, document(&old, &comparisons)?).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let failed = |error: std::io::Error| format!("{LISTS}: {error}");
    fs::create_dir_all(root.join(LISTS)).map_err(failed)?;
    for comparison in &comparisons {
        let path = root.join(LISTS).join(format!("{}.tsv", comparison.suite.name));
        fs::write(path, comparison.list()).map_err(failed)?;
    }
    Ok(())
}

/// Prints the table and what falls short, and fails if anything does; the document follows where `writes`.
pub(super) fn conclude(
    root: &Path,
    folder: &Path,
    suites: &[&'static Suite],
    judged: &[Side],
    writes: bool,
) -> Result<(), String> {
    if writes {
        write(root, folder, suites)?;
    }
    let comparisons = compare(root, folder, suites, judged);
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
        let comparison =
            Comparison { suite: &suite, kafka: results(&kafka), taccola: results(&taccola), judged: &Side::BOTH };
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
            Comparison { suite: &suite, kafka: results(&[("a", Outcome::Passed)]), taccola: cut, judged: &Side::BOTH };
        assert_eq!(comparison.faults(), [format!("{} on taccola: cut short: the broker died", suite.name)]);
        assert!(comparison.row().contains("**cut short**"));
        let comparison = Comparison { suite: &suite, kafka: None, taccola: None, judged: &Side::BOTH };
        assert_eq!(comparison.faults(), ["kafka", "taccola"].map(|side| format!("{}: no run on {side}", suite.name)));
    }

    #[test]
    fn where_kafka_does_not_run_its_column_of_the_list_counts() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("results");
        fs::create_dir(&folder).unwrap();
        fs::create_dir_all(root.path().join(LISTS)).unwrap();
        let suite = SUITES.first().unwrap();
        let list = format!("{LIST_HEAD}\na\tpass\tpass\nb\tpass\tpass\nc\tfail\tpass\nd\tpass\tpass\n");
        fs::write(root.path().join(LISTS).join(format!("{}.tsv", suite.name)), list).unwrap();
        let ran = results(&[("a", Outcome::Passed), ("b", Outcome::Skipped), ("c", Outcome::Failed)]).unwrap();
        ran.store(&folder.join(format!("{}.taccola.tsv", suite.name))).unwrap();
        let faults = |judged| compare(root.path(), &folder, &[suite], judged).first().unwrap().faults();
        let open = |test: &str| format!("{}: {test}", suite.name);
        // A part of the suite leaves out what it likes, the whole does not.
        assert_eq!(faults(&[Side::Taccola]), [open("b: skip")]);
        assert_eq!(faults(&Side::BOTH), [open("b: skip"), open("d: absent")]);
        let list = format!("{LIST_HEAD}\na\tabsent\tpass\n");
        fs::write(root.path().join(LISTS).join(format!("{}.tsv", suite.name)), list).unwrap();
        assert_eq!(faults(&Side::BOTH).first(), Some(&format!("{}: no run on kafka", suite.name)));
    }

    #[test]
    fn suites_that_did_not_take_part_keep_their_place() {
        let first = SUITES.first().unwrap();
        let old = "intro\n<!-- rows -->\n<!-- end of rows -->\nmid\n<!-- sections -->\n<!-- end of sections -->\nend\n";
        let green = results(&[("a", Outcome::Passed)]);
        let one = [Comparison { suite: first, kafka: green.clone(), taccola: green, judged: &Side::BOTH }];
        let with_one = document(old, &one).unwrap();
        assert!(with_one.contains(&format!("| `{}` |", first.name)) && with_one.contains("No test that passes"));
        assert_eq!(document(&with_one, &[]).unwrap(), with_one);
        assert_eq!(document(&with_one, &one).unwrap(), with_one);
        assert!(document("no marks", &[]).is_err());
    }
}
