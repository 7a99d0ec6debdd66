//! Format strings for records, with the meanings that kcat and rpk give them.
//!
//! | verb | meaning |
//! |---|---|
//! | `%k` `%v` (or `%s`) | key, value |
//! | `%K` `%V` (or `%S`) | their lengths in bytes, -1 for null |
//! | `%t` `%p` `%o` `%e` | topic, partition, offset, leader epoch |
//! | `%d` (or `%T`) | timestamp in milliseconds |
//! | `%h` | headers as `name=value,…`; `%h{FORMAT}` repeats FORMAT per header, with `%k` and `%v` of the header |
//! | `%H` | number of headers |
//! | `%i` | number of the record in this run, from 0 |
//! | `%%` `%{` `%}` | a percent sign, a brace |
//!
//! Modifiers: `%v{hex}`, `%v{base64}` (also for `%k`), `%d{iso}`. Escapes: `\n` `\r` `\t` `\0` `\\` `\xHH`.

use bytes::Bytes;
use taccola_client::ConsumerRecord;

use crate::timestamp::rfc3339;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Raw,
    Hex,
    Base64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(Vec<u8>),
    Key(Encoding),
    Value(Encoding),
    KeyLength,
    ValueLength,
    Topic,
    Partition,
    Offset,
    LeaderEpoch,
    TimestampMillis,
    TimestampIso,
    Headers,
    HeadersEach(Vec<Part>),
    HeaderCount,
    Number,
}

/// Nesting of `%h{…}` that makes sense: headers have no headers.
const DEPTH_MAX: usize = 1;

pub(crate) fn parse(format: &str) -> Result<Vec<Part>, String> {
    let chars: Vec<char> = format.chars().collect();
    let mut parser = Parser { chars: &chars, at: 0 };
    parser.parts(0)
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    /// Up to the end, or at `depth` > 0 up to the brace that closes.
    fn parts(&mut self, depth: usize) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        loop {
            match self.next() {
                None if depth > 0 => return Err("a brace of %h{ is not closed".to_owned()),
                None => break,
                Some('}') if depth > 0 => break,
                Some('%') => {
                    if let Some(part) = self.verb(depth, &mut literal)? {
                        if !literal.is_empty() {
                            parts.push(Part::Literal(std::mem::take(&mut literal)));
                        }
                        parts.push(part);
                    }
                }
                Some('\\') => literal.push(self.escape()?),
                Some(c) => literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(parts)
    }

    /// `None` when it is text after all.
    fn verb(&mut self, depth: usize, literal: &mut Vec<u8>) -> Result<Option<Part>, String> {
        let verb = self.next().ok_or("the format ends with a single %; write %% for a percent sign")?;
        let part = match verb {
            '%' | '{' | '}' => {
                literal.extend_from_slice(verb.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(None);
            }
            'k' => Part::Key(self.encoding()?),
            'v' | 's' => Part::Value(self.encoding()?),
            'K' => Part::KeyLength,
            'V' | 'S' => Part::ValueLength,
            't' => Part::Topic,
            'p' => Part::Partition,
            'o' => Part::Offset,
            'e' => Part::LeaderEpoch,
            'd' | 'T' => match self.modifier()?.as_deref() {
                None | Some("millis") => Part::TimestampMillis,
                Some("iso") => Part::TimestampIso,
                Some(other) => return Err(format!("%{verb}{{{other}}} is unknown; only {{iso}} and {{millis}} exist")),
            },
            'h' if self.chars.get(self.at) == Some(&'{') && depth < DEPTH_MAX => {
                self.at += 1;
                Part::HeadersEach(self.parts(depth + 1)?)
            }
            'h' => Part::Headers,
            'H' => Part::HeaderCount,
            'i' => Part::Number,
            other => return Err(format!("%{other} is unknown; the verbs are %k %v %K %V %t %p %o %e %d %h %H %i %%")),
        };
        Ok(Some(part))
    }

    fn encoding(&mut self) -> Result<Encoding, String> {
        match self.modifier()?.as_deref() {
            None => Ok(Encoding::Raw),
            Some("hex") => Ok(Encoding::Hex),
            Some("base64") => Ok(Encoding::Base64),
            Some(other) => Err(format!("the modifier {{{other}}} is unknown; only {{hex}} and {{base64}} exist")),
        }
    }

    fn modifier(&mut self) -> Result<Option<String>, String> {
        if self.chars.get(self.at) != Some(&'{') {
            return Ok(None);
        }
        self.at += 1;
        let mut name = String::new();
        loop {
            match self.next() {
                Some('}') => return Ok(Some(name)),
                Some(c) => name.push(c),
                None => return Err("a brace is not closed; write %{ for a brace".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, String> {
        match self.next() {
            Some('n') => Ok(b'\n'),
            Some('r') => Ok(b'\r'),
            Some('t') => Ok(b'\t'),
            Some('0') => Ok(0),
            Some('\\') => Ok(b'\\'),
            Some('x') => {
                let digits: Option<String> = [self.next(), self.next()].into_iter().collect();
                digits
                    .and_then(|d| u8::from_str_radix(&d, 16).ok())
                    .ok_or("\\x needs two hexadecimal digits".to_owned())
            }
            Some(other) => Err(format!("\\{other} is unknown; the escapes are \\n \\r \\t \\0 \\\\ \\xHH")),
            None => Err("the format ends with a single backslash; write \\\\ for a backslash".to_owned()),
        }
    }
}

/// Appends a record. `number` counts the records of this run from 0.
pub(crate) fn render(parts: &[Part], record: &ConsumerRecord, number: u64, out: &mut Vec<u8>) {
    let (key, value) = (record.key.as_ref(), record.value.as_ref());
    for part in parts {
        match part {
            Part::Literal(bytes) => out.extend_from_slice(bytes),
            Part::Key(encoding) => render_bytes(key, *encoding, out),
            Part::Value(encoding) => render_bytes(value, *encoding, out),
            Part::KeyLength => out.extend_from_slice(length(key).as_bytes()),
            Part::ValueLength => out.extend_from_slice(length(value).as_bytes()),
            Part::Topic => out.extend_from_slice(record.topic.as_bytes()),
            Part::Partition => out.extend_from_slice(record.partition.to_string().as_bytes()),
            Part::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
            Part::LeaderEpoch => out.extend_from_slice(record.leader_epoch.to_string().as_bytes()),
            Part::TimestampMillis => out.extend_from_slice(record.timestamp.to_string().as_bytes()),
            Part::TimestampIso => out.extend_from_slice(rfc3339(record.timestamp).as_bytes()),
            Part::Headers => render_headers(record, out),
            Part::HeadersEach(inner) => {
                for header in &record.headers {
                    render_header(inner, &header.key, header.value.as_ref(), out);
                }
            }
            Part::HeaderCount => out.extend_from_slice(record.headers.len().to_string().as_bytes()),
            Part::Number => out.extend_from_slice(number.to_string().as_bytes()),
        }
    }
}

fn render_headers(record: &ConsumerRecord, out: &mut Vec<u8>) {
    for (at, header) in record.headers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&header.key);
        out.push(b'=');
        out.extend_from_slice(header.value.as_deref().unwrap_or(b"NULL"));
    }
}

/// Verbs that mean nothing for a header yield nothing.
fn render_header(parts: &[Part], key: &Bytes, value: Option<&Bytes>, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Literal(bytes) => out.extend_from_slice(bytes),
            Part::Key(encoding) => render_bytes(Some(key), *encoding, out),
            Part::Value(encoding) => render_bytes(value, *encoding, out),
            Part::KeyLength => out.extend_from_slice(length(Some(key)).as_bytes()),
            Part::ValueLength => out.extend_from_slice(length(value).as_bytes()),
            _ => {}
        }
    }
}

fn length(bytes: Option<&Bytes>) -> String {
    bytes.map_or("-1".to_owned(), |bytes| bytes.len().to_string())
}

fn render_bytes(bytes: Option<&Bytes>, encoding: Encoding, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return };
    match encoding {
        Encoding::Raw => out.extend_from_slice(bytes),
        Encoding::Hex => bytes.iter().for_each(|b| out.extend_from_slice(format!("{b:02x}").as_bytes())),
        Encoding::Base64 => out.extend_from_slice(base64(bytes).as_bytes()),
    }
}

/// Standard alphabet with padding (RFC 4648 §4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| ALPHABET.get((bits & 63) as usize).copied().unwrap_or(b'A') as char;
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| (bits << 8) | u32::from(chunk.get(at).copied().unwrap_or(0)));
        text.push(digit(bits >> 18));
        text.push(digit(bits >> 12));
        text.push(if chunk.len() > 1 { digit(bits >> 6) } else { '=' });
        text.push(if chunk.len() > 2 { digit(bits) } else { '=' });
    }
    text
}

#[cfg(test)]
mod tests {
    use taccola_wire::batch::{RecordHeader, TimestampType};

    use super::*;

    fn record() -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition: 3,
            offset: 42,
            timestamp: 1_795_255_200_123,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: 7,
            key: Some(Bytes::from_static(b"k\xff")),
            value: None,
            headers: vec![
                RecordHeader::new(&b"a"[..], Some(Bytes::from_static(b"1"))),
                RecordHeader::new(&b"a"[..], None),
            ],
        }
    }

    fn shown(format: &str) -> String {
        let mut out = Vec::new();
        render(&parse(format).unwrap(), &record(), 5, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn verbs() {
        assert_eq!(shown("%t/%p@%o e%e #%i %K,%V %T\\n"), "t/3@42 e7 #5 2,-1 1795255200123\n");
        assert_eq!(shown("%k{hex}|%k{base64}|%v|%s"), "6bff|a/8=||");
        assert_eq!(shown("%h %H %h{<%k=%v>}"), "a=1,a=NULL 2 <a=1><a=>");
        assert_eq!(shown("%d{iso} %%%{%}\\t\\x41\\\\"), "2026-11-21T10:00:00.123Z %{}\tA\\");
    }

    #[test]
    fn mistakes_are_named() {
        for (format, word) in
            [("%", "single %"), ("%q", "%q"), ("%k{x}", "{x}"), ("%h{%k", "not closed"), ("\\q", "\\q")]
        {
            let error = parse(format).unwrap_err();
            assert!(error.contains(word), "{format}: {error}");
        }
    }

    #[test]
    fn base64_pads() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|s| base64(s.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }
}
