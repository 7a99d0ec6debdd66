//! What a run of a suite says: one outcome per test by name, and what cut the run short. Kept as a small text file per suite
//! and side, so that a later run of the other side can be held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "pass",
            Outcome::Failed => "fail",
            Outcome::Skipped => "skip",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Outcome::Passed, Outcome::Failed, Outcome::Skipped].into_iter().find(|outcome| outcome.name() == text)
    }
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Results {
    pub(super) tests: BTreeMap<String, Outcome>,
    /// Why the run is not whole: the broker died, the suite hung or was not there.
    pub(super) cut_short: Vec<String>,
    /// Tests that failed among others, and passed when they ran once more alone.
    pub(super) alone: BTreeSet<String>,
    /// The commit under test, or the version of the other broker.
    pub(super) of: String,
}

impl Results {
    /// A test that ran twice has failed if one of the runs failed.
    pub(super) fn add(&mut self, name: &str, outcome: Outcome) {
        let known = self.tests.entry(name.to_owned()).or_insert(outcome);
        if outcome == Outcome::Failed {
            *known = outcome;
        }
    }

    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.tests.values().filter(|known| **known == outcome).count()
    }

    pub(super) fn store(&self, path: &Path) -> Result<(), String> {
        let mut text = format!("of\t{}\n", self.of);
        for reason in &self.cut_short {
            text.push_str(&format!("cut short\t{}\n", reason.replace(['\n', '\t'], " ")));
        }
        for name in &self.alone {
            text.push_str(&format!("alone\t{name}\n"));
        }
        for (name, outcome) in &self.tests {
            text.push_str(&format!("{}\t{name}\n", outcome.name()));
        }
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// `None` where no run was kept.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let mut results = Self::default();
        for (kind, text) in fs::read_to_string(path).ok()?.lines().filter_map(|line| line.split_once('\t')) {
            match (kind, Outcome::parse(kind)) {
                ("of", _) => text.clone_into(&mut results.of),
                ("cut short", _) => results.cut_short.push(text.to_owned()),
                ("alone", _) => drop(results.alone.insert(text.to_owned())),
                (_, Some(outcome)) => results.add(text, outcome),
                _ => {}
            }
        }
        Some(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_kept_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("suite.tsv");
        assert_eq!(Results::load(&path), None);
        let mut results = Results { of: "4.3.1".to_owned(), ..Results::default() };
        for (name, outcome) in [("b c", Outcome::Passed), ("a", Outcome::Skipped), ("b c", Outcome::Failed)] {
            results.add(name, outcome);
        }
        results.cut_short.push("the broker died".to_owned());
        results.alone.insert("d".to_owned());
        results.store(&path).unwrap();
        assert_eq!(Results::load(&path), Some(results.clone()));
        assert_eq!((results.count(Outcome::Failed), results.count(Outcome::Passed)), (1, 0));
    }
}
