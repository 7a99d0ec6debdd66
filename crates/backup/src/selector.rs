//! Which names are meant: patterns in which `*` stands for any text and `?` for one character.

/// Patterns to take and patterns to leave; nothing to take means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

impl Selector {
    pub fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Patterns that take none of the names: probably a mistake.
    pub fn useless<'a>(&'a self, names: &[&str]) -> Option<&'a str> {
        let used = |pattern: &&String| names.iter().any(|name| matches(pattern.as_bytes(), name.as_bytes()));
        self.include.iter().find(|pattern| !used(pattern)).map(String::as_str)
    }
}

/// Goes back to the last `*` only, so that the time is at most the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let of = |include: &[&str], exclude: &[&str]| Selector {
            include: include.iter().map(|p| (*p).to_owned()).collect(),
            exclude: exclude.iter().map(|p| (*p).to_owned()).collect(),
        };
        assert!(of(&[], &[]).takes("anything"));
        assert!(of(&["orders"], &[]).takes("orders"));
        assert!(!of(&["orders"], &[]).takes("orders2"));
        assert!(of(&["o*s", "x"], &[]).takes("orders"));
        assert!(of(&["*a*b*"], &[]).takes("xxaybzb"));
        assert!(!of(&["*a*bc"], &[]).takes("xxaybzb"));
        assert!(of(&["a?c"], &[]).takes("abc"));
        assert!(!of(&["a?c"], &[]).takes("ac"));
        assert!(!of(&["*"], &["tmp-*"]).takes("tmp-1"));
        assert_eq!(of(&["a*", "b"], &[]).useless(&["abc"]), Some("b"));
    }
}
