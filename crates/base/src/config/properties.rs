//! Java's properties syntax: comments, continuation lines, escapes, `=`, `:` or white space between key and value.
//! Answers to `java.util.Properties.load`: bytes are ISO 8859-1, a key that comes again replaces the earlier one.
//! The one difference: a file that ends behind a lone backslash has no property without key and value at its end.

/// One key and value, and the number of the line, from 1, on which the key begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    pub line: usize,
}

/// A `\u` escape without four hexadecimal digits: the only thing that the syntax refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \\u must be followed by four hexadecimal digits")]
pub struct PropertiesError {
    pub line: usize,
}

/// All properties in the order of the file, repeated keys included.
pub fn parse_properties(bytes: &[u8]) -> Result<Vec<Property>, PropertiesError> {
    logical_lines(bytes)
        .into_iter()
        .map(|(line, text)| {
            let (key, value) = split(&text);
            let unescape = |part: &[char]| unescape(part).ok_or(PropertiesError { line });
            Ok(Property { key: unescape(key)?, value: unescape(value)?, line })
        })
        .collect()
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines without comments and empty ones, continuations joined, escapes still in. No input is copied more than once.
fn logical_lines(bytes: &[u8]) -> Vec<(usize, Vec<char>)> {
    let mut lines = Vec::new();
    let mut current: Option<(usize, Vec<char>)> = None;
    for (number, natural) in natural_lines(bytes).enumerate() {
        let mut chars = natural.iter().map(|b| char::from(*b)).skip_while(|c| is_blank(*c)).peekable();
        let is_new = current.as_ref().is_none_or(|(_, text)| text.is_empty());
        if is_new && matches!(chars.peek(), None | Some('#' | '!')) {
            current = None;
            continue;
        }
        let (_, text) = current.get_or_insert_with(|| (number + 1, Vec::new()));
        text.extend(chars);
        let backslashes = natural.iter().rev().take_while(|b| **b == b'\\').count();
        if backslashes % 2 == 1 {
            text.pop();
        } else if let Some(line) = current.take() {
            lines.push(line);
        }
    }
    lines.extend(current);
    lines.retain(|(_, text)| !text.is_empty());
    lines
}

/// Lines that end with LF, CR or CR LF.
fn natural_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let all = rest.take()?;
        let Some(end) = all.iter().position(|b| matches!(b, b'\n' | b'\r')) else { return Some(all) };
        let (line, tail) = all.split_at(end);
        rest = match tail {
            [b'\r', b'\n', after @ ..] | [_, after @ ..] => Some(after),
            [] => None,
        };
        Some(line)
    })
}

/// Key and value, escapes still in.
fn split(text: &[char]) -> (&[char], &[char]) {
    let mut escaped = false;
    let end = text
        .iter()
        .position(|c| {
            if escaped {
                escaped = false;
                return false;
            }
            escaped = *c == '\\';
            is_blank(*c) || matches!(c, '=' | ':')
        })
        .unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    let rest = skip_blanks(rest);
    let rest = match rest {
        ['=' | ':', after @ ..] => skip_blanks(after),
        other => other,
    };
    (key, rest)
}

fn skip_blanks(mut text: &[char]) -> &[char] {
    while let [first, after @ ..] = text
        && is_blank(*first)
    {
        text = after;
    }
    text
}

/// `None` for a malformed `\u`. Lone surrogates become U+FFFD.
fn unescape(text: &[char]) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.iter().copied();
    while let Some(c) = chars.next() {
        let c = if c == '\\' {
            match chars.next() {
                Some('u') => {
                    let mut unit: u32 = 0;
                    for _ in 0..4 {
                        unit = unit * 16 + chars.next()?.to_digit(16)?;
                    }
                    units.push(u16::try_from(unit).ok()?);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => break,
            }
        } else {
            c
        };
        units.extend(c.encode_utf16(&mut [0; 2]).iter());
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse_properties(text.as_bytes()).unwrap().into_iter().map(|p| (p.key, p.value)).collect()
    }

    fn pair(k: &str, v: &str) -> (String, String) {
        (k.to_owned(), v.to_owned())
    }

    #[test]
    fn separators() {
        for text in ["a=b", "a:b", "a b", "a = b", "a : b", "a\tb", "  a=b", "a\u{c}=\u{c}b"] {
            assert_eq!(pairs(text), [pair("a", "b")], "{text:?}");
        }
        assert_eq!(pairs("a==b"), [pair("a", "=b")]);
        assert_eq!(pairs("a b=c"), [pair("a", "b=c")]);
        assert_eq!(pairs("a=b  "), [pair("a", "b  ")], "trailing white space stays");
        assert_eq!(pairs("a"), [pair("a", "")]);
        assert_eq!(pairs("=x"), [pair("", "x")]);
        assert_eq!(pairs("a\\=b=c\na\\ b c"), [pair("a=b", "c"), pair("a b", "c")]);
    }

    #[test]
    fn comments_and_line_ends() {
        assert_eq!(pairs("# a=1\n  ! b=2\n\n\t\nc=3\rd=4\r\ne=5"), [pair("c", "3"), pair("d", "4"), pair("e", "5")]);
        assert_eq!(pairs("# no continuation \\\na=1"), [pair("a", "1")]);
        assert_eq!(pairs("a=1#2"), [pair("a", "1#2")]);
    }

    #[test]
    fn continuations() {
        assert_eq!(pairs("a=1,\\\n    2,\\\r\n 3\nb=4"), [pair("a", "1,2,3"), pair("b", "4")]);
        assert_eq!(pairs("a=1\\\\\nb=2"), [pair("a", "1\\"), pair("b", "2")], "an escaped backslash does not continue");
        assert_eq!(pairs("a=1\\\n# 2"), [pair("a", "1# 2")], "no comment inside a value");
        assert_eq!(pairs("a=1\\\n\nb=2"), [pair("a", "1"), pair("b", "2")], "an empty line ends it");
        assert_eq!(pairs("a=1\\"), [pair("a", "1")]);
        assert_eq!(pairs("\\\na=1"), [pair("a", "1")]);
        let lines: Vec<usize> = parse_properties(b"\na=1\\\n2\nb=3").unwrap().iter().map(|p| p.line).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn escapes() {
        assert_eq!(pairs(r"a=\t\n\r\f\q\u0041\ud83d\ude00"), [pair("a", "\t\n\r\u{c}qA😀")]);
        assert_eq!(pairs(r"a=\ud83d!"), [pair("a", "\u{fffd}!")]);
        assert_eq!(parse_properties(b"x=1\na=\\u12"), Err(PropertiesError { line: 2 }));
        assert_eq!(parse_properties(b"a=\\u00g0"), Err(PropertiesError { line: 1 }));
        assert_eq!(parse_properties(&[b'a', b'=', 0xe9]).unwrap()[0].value, "é", "ISO 8859-1");
    }

    #[test]
    fn repeated_keys_are_all_returned() {
        assert_eq!(pairs("a=1\na=2"), [pair("a", "1"), pair("a", "2")]);
    }
}
