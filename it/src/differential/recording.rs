//! What Kafka answered, kept as text: a line with the case, and an indented one with the answer, or with [`SAME`] where it
//! is the one before.

use std::fmt::Write as _;

const SAME: &str = "=";

#[derive(Debug, Default)]
pub(super) struct Recording {
    answers: Vec<(String, String)>,
    read: usize,
}

impl Recording {
    pub(super) fn read(text: &str) -> Self {
        let mut answers: Vec<(String, String)> = Vec::new();
        let mut before = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match (line.strip_prefix("  "), answers.last_mut()) {
                (Some(SAME), Some(last)) => last.1.clone_from(&before),
                (Some(answer), Some(last)) => {
                    answer.clone_into(&mut before);
                    answer.clone_into(&mut last.1);
                }
                _ => answers.push((line.to_owned(), String::new())),
            }
        }
        Self { answers, read: 0 }
    }

    /// The answer to the next case, which must be this one.
    pub(super) fn next(&mut self, case: &str) -> String {
        let (name, answer) = self.answers.get(self.read).expect("a case that is not recorded");
        assert_eq!(name, case, "the recording is of other cases: make it anew");
        self.read += 1;
        answer.clone()
    }

    pub(super) fn add(&mut self, case: String, answer: String) {
        self.answers.push((case, answer));
    }

    pub(super) fn written(&self) -> String {
        let mut text = String::new();
        let mut before = "";
        for (case, answer) in &self.answers {
            let _ = writeln!(text, "{case}\n  {}", if answer == before { SAME } else { answer });
            before = answer;
        }
        text
    }
}

/// A reply's debugging text without the fields that hold nothing.
pub(crate) fn compact(text: &str) -> String {
    const NOTHING: [&str; 6] = ["0", "None", "[]", "\"\"", "false", "0.0"];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', ',']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        // Fields begin behind a brace or a comma: a name, a colon, what they hold.
        while let Some((name, value)) = rest.split_once(": ")
            && name.trim_start().chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && let Some(nothing) =
                NOTHING.iter().find(|n| value.strip_prefix(**n).is_some_and(|v| v.starts_with([',', ' ', '}'])))
        {
            let value = &value[nothing.len()..];
            if let Some(more) = value.strip_prefix(',') {
                rest = more;
            } else {
                // The last field: with it goes the comma before it.
                if out.ends_with(',') {
                    out.pop();
                }
                rest = value;
                break;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_anything_are_left_out() {
        let text = "R { a: 0, b: 1, c: None, d: [X { e: [], f: \"x: 0, y\" }, X { e: [0, 0], f: \"\" }], g: false }";
        assert_eq!(compact(text), "R { b: 1, d: [X { f: \"x: 0, y\" }, X { e: [0, 0] }] }");
        assert_eq!(compact("R { a: 0 }"), "R { }");
    }

    #[test]
    fn recordings_go_there_and_back() {
        let mut recording = Recording::default();
        recording.add("A v1: x".to_owned(), "R { a: 1 }".to_owned());
        recording.add("A v1: y".to_owned(), "no reply".to_owned());
        recording.add("A v1: z".to_owned(), "no reply".to_owned());
        assert!(recording.written().ends_with("A v1: z\n  =\n"));
        let mut read = Recording::read(&format!("# a header\n{}", recording.written()));
        assert_eq!((read.next("A v1: x").as_str(), read.next("A v1: y").as_str()), ("R { a: 1 }", "no reply"));
        assert_eq!(read.next("A v1: z"), "no reply");
    }
}
