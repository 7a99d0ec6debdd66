//! The file `meta.properties` in every log directory: whose directory it is. Answers to `MetaProperties` (version 1).
//!
//! Written to a temporary file, flushed and renamed, then the directory is flushed. A directory of another cluster, of
//! another node, or one directory twice must not be opened: [`check`] says why in one sentence.

use taccola_base::Uuid;

use crate::error::MetaError;

pub const FILE_NAME: &str = "meta.properties";
/// Longest file that is read, in bytes, inclusive.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    /// A random id in nearly all clusters, but any text is allowed.
    pub cluster_id: String,
    pub node_id: i32,
    /// `None` in directories from before 3.7, which get one when they are opened.
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// The file's text, with the time as its second line, as `java.util.Properties` writes it.
    pub fn format(&self, written_at: &str) -> String {
        let mut text = format!("#\n#{}\nnode.id={}\n", written_at.replace(['\n', '\r'], " "), self.node_id);
        if let Some(id) = self.directory_id {
            text.push_str(&format!("directory.id={id}\n"));
        }
        text.push_str(&format!("version=1\ncluster.id={}\n", escape(&self.cluster_id)));
        text
    }

    pub fn parse(text: &str) -> Result<Self, MetaError> {
        let bad = |reason: String| MetaError::MetaProperties(reason);
        if text.len() > FILE_BYTES_MAX {
            return Err(bad(format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len())));
        }
        let pairs = pairs(text);
        let get = |key: &str| pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.trim());
        match get("version") {
            Some("1") => {}
            Some("0") => {
                return Err(bad(
                    "version 0 is of a node in ZooKeeper mode, which must be migrated to KRaft by Kafka 3.9 first"
                        .into(),
                ));
            }
            Some(other) => return Err(bad(format!("version {other:?} is not known"))),
            None => return Err(bad("it has no version".into())),
        }
        let required = |key: &str| get(key).filter(|v| !v.is_empty()).ok_or_else(|| bad(format!("it has no {key}")));
        let node_id = required("node.id")?;
        let node_id: i32 = node_id
            .parse()
            .ok()
            .filter(|id| *id >= 0)
            .ok_or_else(|| bad(format!("node.id {node_id:?} is no node id")))?;
        let directory_id =
            get("directory.id").map(|id| id.parse().map_err(|e| bad(format!("directory.id: {e}")))).transpose()?;
        if directory_id.is_some_and(is_reserved) {
            return Err(bad("directory.id is a reserved id".into()));
        }
        Ok(Self { cluster_id: required("cluster.id")?.to_owned(), node_id, directory_id })
    }
}

fn is_reserved(id: Uuid) -> bool {
    u128::from_be_bytes(*id.as_bytes()) < 100
}

/// Refuses directories that do not belong to this node, or not together. `cluster_id`: the one that is expected, if any is.
pub fn check(
    directories: &[(String, MetaProperties)],
    node_id: i32,
    cluster_id: Option<&str>,
) -> Result<(), MetaError> {
    let bad = |reason: String| Err(MetaError::MetaProperties(reason));
    for (at, (path, properties)) in directories.iter().enumerate() {
        if properties.node_id != node_id {
            return bad(format!("{path} belongs to node {}, this is node {node_id}", properties.node_id));
        }
        if let Some(expected) = cluster_id.filter(|id| *id != properties.cluster_id) {
            return bad(format!("{path} belongs to cluster {}, not to {expected}", properties.cluster_id));
        }
        for (earlier, other) in directories.iter().take(at) {
            if other.cluster_id != properties.cluster_id {
                return bad(format!(
                    "{earlier} and {path} belong to different clusters, {} and {}",
                    other.cluster_id, properties.cluster_id
                ));
            }
            if other.directory_id.is_some() && other.directory_id == properties.directory_id {
                return bad(format!("{earlier} and {path} have the same directory.id: one is a copy of the other"));
            }
        }
    }
    Ok(())
}

/// `key=value` lines as `java.util.Properties` reads them: comments, `=` or `:` or blanks between, escapes with `\`.
/// Values over several lines do not occur in this file and are not joined.
fn pairs(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with(['#', '!']));
    lines
        .map(|line| {
            let mut escaped = false;
            let end = line.find(|c: char| {
                let ends = !escaped && (c == '=' || c == ':' || c.is_ascii_whitespace());
                escaped = !escaped && c == '\\';
                ends
            });
            let (key, rest) = line.split_at_checked(end.unwrap_or(line.len())).unwrap_or((line, ""));
            let rest = rest.trim_start();
            let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
            (unescape(key), unescape(value))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '=' | ':' | '#' | '!') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Kafka 4.3.1.
    const JVM: &str = "#\n#Sat Nov 21 01:52:51 UTC 2026\nnode.id=0\ndirectory.id=YcA4-d1Ivdpre5-BtHOtxg\nversion=1\ncluster.id=tbZLMFfQS5eNs34n3mTkhA\n";

    #[test]
    fn it_is_kafkas_file() {
        let properties = MetaProperties::parse(JVM).unwrap();
        assert_eq!(properties.cluster_id, "tbZLMFfQS5eNs34n3mTkhA");
        assert_eq!(properties.node_id, 0);
        assert_eq!(properties.directory_id, "YcA4-d1Ivdpre5-BtHOtxg".parse().ok());
        assert_eq!(properties.format("Sat Nov 21 01:52:51 UTC 2026"), JVM);
        let odd = MetaProperties { cluster_id: "a=b:c#\\d".into(), ..properties };
        assert_eq!(MetaProperties::parse(&odd.format("now")), Ok(odd));
    }

    #[test]
    fn wrong_files_are_refused() {
        for (text, word) in [
            ("", "no version"),
            ("version=0\nbroker.id=1\n", "ZooKeeper"),
            ("version=2\n", "not known"),
            ("version=1\ncluster.id=x\n", "no node.id"),
            ("version=1\nnode.id=-4\ncluster.id=x\n", "node.id"),
            ("version=1\nnode.id=1\n", "no cluster.id"),
            ("version=1\nnode.id=1\ncluster.id=x\ndirectory.id=7\n", "directory.id"),
            ("version=1\nnode.id=1\ncluster.id=x\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n", "reserved"),
        ] {
            let error = MetaProperties::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn foreign_directories_are_refused() {
        let one = MetaProperties::parse(JVM).unwrap();
        let dir = |path: &str, p: &MetaProperties| (path.to_owned(), p.clone());
        assert!(check(&[dir("/a", &one)], 0, None).is_ok());
        assert!(check(&[dir("/a", &one)], 1, None).is_err());
        assert!(check(&[dir("/a", &one)], 0, Some("other")).is_err());
        assert!(check(&[dir("/a", &one), dir("/b", &one)], 0, None).is_err());
        let two = MetaProperties { directory_id: Some(Uuid::from_u128(12345)), ..one.clone() };
        assert!(check(&[dir("/a", &one), dir("/b", &two)], 0, Some(&one.cluster_id)).is_ok());
        let other = MetaProperties { cluster_id: "other".into(), ..two };
        assert!(check(&[dir("/a", &one), dir("/b", &other)], 0, None).is_err());
    }
}
