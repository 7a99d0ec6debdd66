//! Cutting standard input into records for `taccola produce`, either as lines with a key separator (as kcat's `-K`) or by a
//! format (as rpk's `-f`): each verb takes the bytes up to the text that follows it in the format.
//!
//! Bounded: a record without an end within [`RECORD_INPUT_MAX`] bytes is an error.

use std::io::Read;

use bytes::Bytes;
use taccola_wire::batch::RecordHeader;

use crate::record_format::{Part, parse};

/// Input bytes of one record.
pub(crate) const RECORD_INPUT_MAX: usize = 64 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// What one record's input says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InputRecord {
    pub(crate) topic: Option<String>,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<RecordHeader>,
}

/// How input is cut.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Lines; with a separator, what stands before its first occurrence is the key, and a line without it has none.
    Lines { key_separator: Option<Vec<u8>> },
    /// Verbs, each with the delimiter that ends it.
    Format(Vec<(Part, Vec<u8>)>),
}

impl Shape {
    pub(crate) fn from_format(format: &str) -> Result<Self, String> {
        let mut fields: Vec<(Part, Vec<u8>)> = Vec::new();
        for part in parse(format)? {
            match (part, fields.last_mut()) {
                (Part::Literal(text), Some((_, delimiter))) => *delimiter = text,
                (Part::Literal(_), None) => {
                    return Err("a format for input begins with a verb, e.g. '%k %v\\n'".to_owned());
                }
                (part, last) => {
                    if last.is_some_and(|(_, delimiter)| delimiter.is_empty()) {
                        return Err("two verbs need some text between them, so that the first one ends".to_owned());
                    }
                    if !is_input(&part) {
                        return Err("only %k %v %t %p %d and %h can be read; the other verbs are for output".to_owned());
                    }
                    fields.push((part, Vec::new()));
                }
            }
        }
        match fields.last_mut() {
            None => Err("the format has no verb; expected e.g. '%k %v\\n'".to_owned()),
            Some((_, delimiter)) => {
                if delimiter.is_empty() {
                    delimiter.push(b'\n');
                }
                Ok(Self::Format(fields))
            }
        }
    }
}

fn is_input(part: &Part) -> bool {
    use crate::record_format::Encoding::Raw;
    matches!(
        part,
        Part::Key(Raw) | Part::Value(Raw) | Part::Topic | Part::Partition | Part::TimestampMillis | Part::Headers
    )
}

/// Reads records one after the other.
pub(crate) struct RecordReader<R> {
    input: R,
    shape: Shape,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are used up.
    start: usize,
    ended: bool,
    /// Records read so far.
    count: u64,
}

impl<R: Read> RecordReader<R> {
    pub(crate) fn new(input: R, shape: Shape) -> Self {
        Self { input, shape, buffer: Vec::new(), start: 0, ended: false, count: 0 }
    }

    /// `None` at the end of the input.
    pub(crate) fn next(&mut self) -> Result<Option<InputRecord>, String> {
        if self.at_end()? {
            return Ok(None);
        }
        self.count += 1;
        match self.shape.clone() {
            Shape::Lines { key_separator } => self.line(key_separator.as_deref()).map(Some),
            Shape::Format(fields) => self.fields(&fields).map(Some),
        }
    }

    fn line(&mut self, separator: Option<&[u8]>) -> Result<InputRecord, String> {
        let line = self.until(b"\n", true)?;
        let at = separator.filter(|s| !s.is_empty()).and_then(|s| find(&line, s).map(|at| (at, at + s.len())));
        Ok(match at {
            Some((key, value)) => {
                InputRecord { key: Some(line.slice(..key)), value: Some(line.slice(value..)), ..Default::default() }
            }
            None => InputRecord { value: Some(line), ..Default::default() },
        })
    }

    fn fields(&mut self, fields: &[(Part, Vec<u8>)]) -> Result<InputRecord, String> {
        let mut record = InputRecord::default();
        for (at, (part, delimiter)) in fields.iter().enumerate() {
            let last = at + 1 == fields.len();
            let bytes = self.until(delimiter, last)?;
            match part {
                Part::Key(_) => record.key = Some(bytes),
                Part::Value(_) => record.value = Some(bytes),
                Part::Topic => record.topic = Some(self.text(&bytes, "topic")?),
                Part::Partition => record.partition = Some(self.number(&bytes, "partition")?),
                Part::TimestampMillis => record.timestamp = Some(self.number(&bytes, "timestamp")?),
                _ => record.headers = self.headers(&bytes)?,
            }
        }
        Ok(record)
    }

    fn text(&self, bytes: &Bytes, what: &str) -> Result<String, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("record {}: the {what} is not UTF-8", self.count))?;
        Ok(text.to_owned())
    }

    fn number<T: std::str::FromStr>(&self, bytes: &Bytes, what: &str) -> Result<T, String> {
        let text = self.text(bytes, what)?;
        text.parse().map_err(|_| format!("record {}: {text:?} is no {what}", self.count))
    }

    /// `name=value,…`, as `%h` writes them.
    fn headers(&self, bytes: &Bytes) -> Result<Vec<RecordHeader>, String> {
        let pairs = bytes.split(|b| *b == b',').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let at = find(pair, b"=").ok_or_else(|| format!("record {}: a header has no '='", self.count))?;
                let (name, value) = pair.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                Ok(RecordHeader::new(bytes.slice_ref(name), Some(bytes.slice_ref(value))))
            })
            .collect()
    }

    fn at_end(&mut self) -> Result<bool, String> {
        while self.start == self.buffer.len() {
            if self.ended {
                return Ok(true);
            }
            self.fill()?;
        }
        Ok(false)
    }

    /// The bytes up to a delimiter, which is used up; the end of the input ends a record's last field as well.
    fn until(&mut self, delimiter: &[u8], end_counts: bool) -> Result<Bytes, String> {
        let mut searched = 0;
        loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            let from = searched.min(rest.len());
            if let Some(at) = find(rest.get(from..).unwrap_or_default(), delimiter) {
                let bytes = Bytes::copy_from_slice(rest.get(..from + at).unwrap_or_default());
                self.start += from + at + delimiter.len();
                return Ok(bytes);
            }
            if self.ended {
                if !end_counts {
                    let shown = String::from_utf8_lossy(delimiter).escape_debug().to_string();
                    return Err(format!("record {} does not match the format: no {shown:?} in it", self.count));
                }
                let bytes = Bytes::copy_from_slice(rest);
                self.start = self.buffer.len();
                return Ok(bytes);
            }
            if rest.len() > RECORD_INPUT_MAX {
                return Err(format!("record {} has no end within {RECORD_INPUT_MAX} bytes", self.count));
            }
            searched = rest.len().saturating_sub(delimiter.len().saturating_sub(1));
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), String> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let room = self.buffer.get_mut(length..).unwrap_or_default();
        let read = self.input.read(room).map_err(|e| format!("standard input cannot be read: {e}"));
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [] => None,
        [byte] => haystack.iter().position(|b| b == byte),
        _ => haystack.windows(needle.len()).position(|window| window == needle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields one byte per read, so that delimiters are cut in two.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(out.len()).min(1);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn read(input: &str, shape: Shape) -> Result<Vec<InputRecord>, String> {
        let mut reader = RecordReader::new(Dripping(input.as_bytes()), shape);
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    fn pair(key: Option<&'static str>, value: &'static str) -> InputRecord {
        InputRecord { key: key.map(Bytes::from), value: Some(Bytes::from(value)), ..Default::default() }
    }

    #[test]
    fn lines_with_and_without_keys() {
        let plain = Shape::Lines { key_separator: None };
        assert_eq!(read("a\n\nb", plain).unwrap(), [pair(None, "a"), pair(None, ""), pair(None, "b")]);
        let keyed = Shape::Lines { key_separator: Some(b"::".to_vec()) };
        assert_eq!(
            read("k::v::w\nx\n::y\n", keyed).unwrap(),
            [pair(Some("k"), "v::w"), pair(None, "x"), pair(Some(""), "y")]
        );
    }

    #[test]
    fn formats() {
        let shape = Shape::from_format("%k %v\\n").unwrap();
        assert_eq!(read("a b c\nd e", shape.clone()).unwrap(), [pair(Some("a"), "b c"), pair(Some("d"), "e")]);
        assert!(read("a b\nx", shape).unwrap_err().contains("record 2"));
        let shape = Shape::from_format("%p|%d|%t|%h|%v<EOL>").unwrap();
        let records = read("3|9|t|a=1,b=|x<EO\ny<EOL>", shape).unwrap();
        assert_eq!((records[0].partition, records[0].timestamp), (Some(3), Some(9)));
        assert_eq!((records[0].topic.as_deref(), records[0].value.as_deref()), (Some("t"), Some(&b"x<EO\ny"[..])));
        let headers: Vec<_> = records[0].headers.iter().map(|h| (&h.key[..], h.value.as_deref())).collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"b", Some(b""))]);
        for bad in ["", "x%v", "%k%v", "%o\\n", "%v{hex}"] {
            assert!(Shape::from_format(bad).is_err(), "{bad}");
        }
    }
}
