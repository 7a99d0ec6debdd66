//! From RE2's syntax, which Kafka's brokers speak (RE2/J), to that of the crate `regex`, where the two differ: what is a
//! letter there and an operator here, and what is refused there. Answers to `com.google.re2j.Parser`; the differences that
//! topic names cannot show (Unicode classes) are left.

use std::iter::Peekable;
use std::str::Chars;

/// Highest number in a repetition `{n,m}`.
const REPEAT_MAX: u32 = 1_000;

struct Translation<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// A repetition stands right before: a second one may not follow.
    repeated: bool,
}

fn number(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))
}

/// The same expression for the crate `regex`, or why it is none.
pub(super) fn translate(expression: &str) -> Result<String, String> {
    let mut t = Translation { rest: expression.chars().peekable(), out: String::new(), repeated: false };
    while let Some(c) = t.rest.next() {
        let repeats = t.step(c)?;
        t.repeated = repeats;
    }
    Ok(t.out)
}

impl Translation<'_> {
    /// Whether what begins with `c` is a repetition.
    fn step(&mut self, c: char) -> Result<bool, String> {
        match c {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' => self.group()?,
            '*' | '+' | '?' => return self.repeat(&c.to_string()),
            '{' => match self.bounds()? {
                Some(bounds) => return self.repeat(&bounds),
                None => self.out.push_str("\\{"),
            },
            _ => self.out.push(c),
        }
        Ok(false)
    }

    fn repeat(&mut self, operator: &str) -> Result<bool, String> {
        if self.repeated {
            return Err(format!("a repetition follows another one: {operator}"));
        }
        self.out.push_str(operator);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        Ok(true)
    }

    /// Behind a brace: `n}`, `n,}` or `n,m}` is a repetition, anything else makes the brace a letter.
    fn bounds(&mut self) -> Result<Option<String>, String> {
        let ahead: String = self.rest.clone().take_while(|c| *c != '}').take(16).collect();
        let (low, high) = match ahead.split_once(',') {
            None => (number(&ahead), number(&ahead)),
            Some((low, "")) => (number(low), Some("0")),
            Some((low, high)) => (number(low), number(high)),
        };
        let (Some(low), Some(high)) = (low, high) else { return Ok(None) };
        if self.rest.clone().nth(ahead.len()) != Some('}') {
            return Ok(None);
        }
        if [low, high].iter().any(|n| n.parse().unwrap_or(u32::MAX) > REPEAT_MAX) {
            return Err(format!("a repetition of more than {REPEAT_MAX}: {{{ahead}}}"));
        }
        self.rest.nth(ahead.len());
        Ok(Some(format!("{{{ahead}}}")))
    }

    fn escape(&mut self) {
        match self.rest.next() {
            Some('Q') => {
                let rest: String = self.rest.clone().collect();
                let (quoted, skipped) = match rest.split_once("\\E") {
                    Some((quoted, _)) => (quoted, quoted.chars().count() + 2),
                    None => (rest.as_str(), rest.chars().count()),
                };
                self.out.push_str(&regex::escape(quoted));
                for _ in 0..skipped {
                    self.rest.next();
                }
            }
            // Ends of words here, letters there.
            Some(c @ ('<' | '>')) => self.out.push(c),
            Some(c) => self.out.extend(['\\', c]),
            None => self.out.push('\\'),
        }
    }

    /// A class in brackets: one inside another, and operations on classes, are letters.
    fn class(&mut self) {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        if self.rest.next_if_eq(&']').is_some() {
            self.out.push_str("\\]");
        }
        while let Some(c) = self.rest.next() {
            match c {
                ']' => return self.out.push(']'),
                '\\' => {
                    self.out.push('\\');
                    self.out.extend(self.rest.next());
                }
                '[' if self.rest.peek() == Some(&':') => {
                    let name: String = self.rest.clone().take_while(|c| *c != ']').take(16).collect();
                    self.out.push('[');
                    self.out.push_str(&name);
                    for _ in 0..name.chars().count() {
                        self.rest.next();
                    }
                    self.out.extend(self.rest.next());
                }
                '[' | '&' | '~' => self.out.extend(['\\', c]),
                _ => self.out.push(c),
            }
        }
    }

    /// Flags that only one of the two knows.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        let mut ahead = self.rest.clone();
        if ahead.next() == Some('?') {
            let flags = ahead.take_while(|c| c.is_ascii_alphabetic() || *c == '-');
            if let Some(unknown) = flags.take(8).find(|c| matches!(c, 'x' | 'u' | 'R')) {
                return Err(format!("unknown flag {unknown}"));
            }
            self.rest.next();
            self.out.push('?');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, text: &str) -> bool {
        regex::Regex::new(&format!("^(?:{})$", translate(expression).unwrap())).unwrap().is_match(text)
    }

    #[test]
    fn what_is_an_operator_here_and_a_letter_there() {
        for (expression, text) in [
            ("a{", "a{"),
            ("a{,3}", "a{,3}"),
            ("a{x}", "a{x}"),
            ("a{2}", "aa"),
            ("a{2,}b{0,1}", "aaa"),
            ("\\Qa.b*\\E.c", "a.b*xc"),
            ("\\Qa+", "a+"),
            ("[a[]x", "[x"),
            ("[]a]", "]"),
            ("[^]a]", "b"),
            ("[a&&b]", "&"),
            ("[a~~b]", "~"),
            ("[[:alpha:][:digit:]]+", "a1"),
            ("\\<a\\>", "<a>"),
            ("(?i)AB", "ab"),
            ("(?P<n>a)(?:b)", "ab"),
            ("[\\]]", "]"),
        ] {
            assert!(matches(expression, text), "{expression} {text}");
        }
        assert!(!matches("[a&&b]", "x"));
    }

    #[test]
    fn what_is_refused_there() {
        for bad in ["a{1001}", "a{2,4000}", "a**", "a+*", "a{2}{3}", "(?x)a", "(?u)a"] {
            assert!(translate(bad).is_err(), "{bad}");
        }
        // Left to the crate to refuse.
        for bad in ["(", "[", "*a", "a{2,1}", "\\", "(?=a)", "(a)\\1", "[z-a]"] {
            let translated = translate(bad).unwrap();
            assert!(regex::Regex::new(&format!("^(?:{translated})$")).is_err(), "{bad}: {translated}");
        }
    }

    #[test]
    fn any_input_is_translated_or_refused() {
        for text in [
            "[",
            "[^",
            "[]",
            "[[:",
            "[[:x",
            "(?",
            "\\Q",
            "\\Q\\E",
            "{",
            "a{9999999999999999999}",
            "[\\",
            "a{1,",
            "ü{2}",
        ] {
            let _ = translate(text);
        }
    }
}
