//! Kafka's message specs, parsed and resolved: every version range is cut down to the versions that exist, every type is
//! known, defaults are values. Answers to `org.apache.kafka.message.{MessageSpec, FieldSpec, StructRegistry}`.

use serde_json::Value;

/// Versions, both inclusive; empty when `lo > hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) lo: i16,
    pub(crate) hi: i16,
}

impl Versions {
    pub(crate) const NONE: Versions = Versions { lo: 0, hi: -1 };

    fn parse(text: &str) -> Result<Self, String> {
        let number = |s: &str| s.parse::<i16>().map_err(|e| format!("versions {text:?}: {e}"));
        if text == "none" {
            return Ok(Self::NONE);
        }
        if let Some(lo) = text.strip_suffix('+') {
            return Ok(Self { lo: number(lo)?, hi: i16::MAX });
        }
        match text.split_once('-') {
            Some((lo, hi)) => Ok(Self { lo: number(lo)?, hi: number(hi)? }),
            None => Ok(Self { lo: number(text)?, hi: number(text)? }),
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.lo > self.hi
    }

    pub(crate) fn and(self, other: Self) -> Self {
        let both = Self { lo: self.lo.max(other.lo), hi: self.hi.min(other.hi) };
        if both.is_empty() { Self::NONE } else { both }
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        self.and(other) == other
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    /// i8 i16 i32 i64 u16 u32 f64
    Number(&'static str),
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Self {
        if let Some(element) = text.strip_prefix("[]") {
            return Self::Array(Box::new(Self::parse(element)));
        }
        match text {
            "bool" => Self::Bool,
            "int8" => Self::Number("i8"),
            "int16" => Self::Number("i16"),
            "int32" => Self::Number("i32"),
            "int64" => Self::Number("i64"),
            "uint16" => Self::Number("u16"),
            "uint32" => Self::Number("u32"),
            "float64" => Self::Number("f64"),
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            name => Self::Struct(name.to_owned()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Default {
    /// Zero, false, empty, or a structure of defaults.
    Empty,
    Null,
    Text(String),
    /// A Rust literal.
    Literal(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// All ranges are within the versions of the structure that the field is in.
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tagged: Versions,
    pub(crate) tag: Option<u32>,
    pub(crate) ignorable: bool,
    /// The field keeps the old encoding in flexible versions.
    pub(crate) never_flexible: bool,
    pub(crate) default: Default,
}

impl Field {
    /// Whether the Rust type is an `Option`.
    pub(crate) fn optional(&self) -> bool {
        !self.nullable.is_empty()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// A header or plain data: no key of its own.
    Data,
    /// Records with a key: metadata and coordinators.
    Record,
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) jar: String,
    pub(crate) kind: Kind,
    pub(crate) api_key: Option<i16>,
    pub(crate) listeners: Vec<String>,
    pub(crate) versions: Versions,
    pub(crate) latest_unstable: bool,
    pub(crate) flexible: Versions,
    /// The message's own body comes first.
    pub(crate) structs: Vec<Struct>,
    pub(crate) hash: u64,
}

impl Spec {
    /// `None` for a message that has no version left.
    pub(crate) fn parse(text: &str, jar: &str) -> Result<Option<Self>, String> {
        let json: Value = serde_json::from_str(&strip_comments(text)).map_err(|e| e.to_string())?;
        let name = str_of(&json, "name")?.to_owned();
        let versions = Versions::parse(str_of(&json, "validVersions")?)?;
        if versions.is_empty() {
            return Ok(None);
        }
        let kind = match str_of(&json, "type")? {
            "request" => Kind::Request,
            "response" => Kind::Response,
            "header" | "data" => Kind::Data,
            "metadata" | "coordinator-key" | "coordinator-value" => Kind::Record,
            other => return Err(format!("type {other:?}")),
        };
        let mut normalized = json.clone();
        drop_descriptions(&mut normalized);
        let mut spec = Spec {
            name: name.clone(),
            jar: jar.to_owned(),
            kind,
            api_key: json.get("apiKey").and_then(Value::as_i64).and_then(|key| i16::try_from(key).ok()),
            listeners: list(&json, "listeners").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            versions,
            latest_unstable: json.get("latestVersionUnstable").and_then(Value::as_bool).unwrap_or(false),
            flexible: Versions::parse(str_of(&json, "flexibleVersions")?)?.and(versions),
            structs: Vec::new(),
            hash: super::fnv(normalized.to_string().as_bytes()),
        };
        spec.add_struct(name, versions, list(&json, "fields"))?;
        for common in list(&json, "commonStructs") {
            let within = Versions::parse(str_of(common, "versions")?)?.and(versions);
            spec.add_struct(str_of(common, "name")?.to_owned(), within, list(common, "fields"))?;
        }
        spec.check_uses()?;
        Ok(Some(spec))
    }

    fn add_struct(&mut self, name: String, versions: Versions, fields: &[Value]) -> Result<(), String> {
        let index = self.structs.len();
        self.structs.push(Struct { name, versions, fields: Vec::new() });
        let mut parsed = Vec::new();
        for json in fields {
            let field = self.field(json, versions).map_err(|e| format!("{}: {e}", json["name"]))?;
            // Of the versions that once had the field none is left.
            if field.versions.is_empty() {
                continue;
            }
            let inner = match &field.ty {
                Type::Array(element) => element.as_ref(),
                ty => ty,
            };
            if let (Type::Struct(name), Some(fields)) = (inner, json.get("fields").and_then(Value::as_array)) {
                self.add_struct(name.clone(), field.versions, fields)?;
            }
            parsed.push(field);
        }
        if let Some(new) = self.structs.get_mut(index) {
            new.fields = parsed;
        }
        Ok(())
    }

    fn field(&self, json: &Value, within: Versions) -> Result<Field, String> {
        let ty = Type::parse(str_of(json, "type")?);
        let range = |key: &str| json.get(key).and_then(Value::as_str).map_or(Ok(Versions::NONE), Versions::parse);
        let tagged = range("taggedVersions")?;
        // A tagged field may leave its versions out: they are those in which it is tagged.
        let versions = if json.get("versions").is_some() { range("versions")? } else { tagged }.and(within);
        let flexible = json.get("flexibleVersions").and_then(Value::as_str);
        if flexible.is_some_and(|versions| versions != "none") {
            return Err(format!("flexibleVersions {flexible:?}"));
        }
        let tag = json.get("tag").and_then(Value::as_u64).and_then(|tag| u32::try_from(tag).ok());
        let field = Field {
            name: str_of(json, "name")?.to_owned(),
            default: default(json.get("default"), &ty)?,
            ty,
            versions,
            nullable: range("nullableVersions")?.and(versions),
            tagged: tagged.and(versions),
            tag,
            ignorable: json.get("ignorable").is_some_and(|v| v.as_bool() == Some(true) || v.as_str() == Some("true")),
            never_flexible: flexible.is_some(),
        };
        if tag.is_some() == field.tagged.is_empty() && !versions.is_empty() {
            return Err("tag without taggedVersions, or the reverse".into());
        }
        if field.default == Default::Null && !field.optional() && !versions.is_empty() {
            return Err("null by default but never nullable".into());
        }
        if !self.flexible.covers(field.tagged) {
            return Err("tagged in a version that is not flexible".into());
        }
        Ok(field)
    }

    /// Every structure that a field names exists, in all versions of the field.
    fn check_uses(&self) -> Result<(), String> {
        for field in self.structs.iter().flat_map(|s| &s.fields) {
            let inner = match &field.ty {
                Type::Array(element) => element.as_ref(),
                ty => ty,
            };
            let Type::Struct(name) = inner else { continue };
            let mut named = self.structs.iter().filter(|s| s.name == *name);
            let (Some(found), None) = (named.next(), named.next()) else {
                return Err(format!("{}: not exactly one structure {name}", field.name));
            };
            if !found.versions.covers(field.versions) {
                return Err(format!("{}: {name} does not exist in all of its versions", field.name));
            }
        }
        Ok(())
    }

    pub(crate) fn module(&self) -> String {
        snake(&self.name)
    }
}

fn str_of<'a>(json: &'a Value, key: &str) -> Result<&'a str, String> {
    json.get(key).and_then(Value::as_str).ok_or_else(|| format!("no {key}"))
}

fn list<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    json.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn default(json: Option<&Value>, ty: &Type) -> Result<Default, String> {
    let text = match json {
        // A bare null counts as no default at all; it takes the string "null" to mean null.
        None | Some(Value::Null) => return Ok(Default::Empty),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let number = || {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |digits| (-1, digits));
        let value = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse::<i128>(),
        };
        value.map(|value| sign * value).map_err(|e| format!("default {text:?}: {e}"))
    };
    Ok(match ty {
        _ if text.is_empty() => Default::Empty,
        Type::Bool if text == "false" => Default::Empty,
        Type::Bool => Default::Literal(text),
        Type::Number("f64") if text.parse::<f64>() == Ok(0.0) => Default::Empty,
        Type::Number("f64") => return Err(format!("default {text:?}")),
        Type::Number(ty) => match number()? {
            0 => Default::Empty,
            n if n == i128::from(i32::MIN) && *ty == "i32" => Default::Literal("i32::MIN".into()),
            n if n == i128::from(i32::MAX) && *ty == "i32" => Default::Literal("i32::MAX".into()),
            n if n == i128::from(i64::MAX) && *ty == "i64" => Default::Literal("i64::MAX".into()),
            n => Default::Literal(n.to_string()),
        },
        _ if text == "null" => Default::Null,
        Type::String => Default::Text(text),
        _ => return Err(format!("default {text:?}")),
    })
}

/// Removes `//` comments, which may stand at the end of a line but not inside a string.
fn strip_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let mut end = line.len();
        let mut before = ' ';
        for (at, c) in line.char_indices() {
            match c {
                '"' if before != '\\' => quoted = !quoted,
                '/' if before == '/' && !quoted => {
                    end = at - 1;
                    break;
                }
                _ => {}
            }
            before = c;
        }
        out.push_str(line.get(..end).unwrap_or_default());
        out.push('\n');
    }
    out
}

fn drop_descriptions(json: &mut Value) {
    match json {
        Value::Object(map) => {
            map.shift_remove("about");
            map.values_mut().for_each(drop_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

/// `TimeoutMs` → `timeout_ms`, `ISRSize` → `isr_size`; `KRaft` counts as one word.
pub(crate) fn snake(name: &str) -> String {
    let chars: Vec<char> = name.replace("KRaft", "Kraft").chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| chars.get(i));
        let starts_word = before.is_some_and(|b| !b.is_uppercase())
            || before.is_some() && chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        if c.is_uppercase() && starts_word {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_snake_case() {
        assert_eq!(snake("TimeoutMs"), "timeout_ms");
        assert_eq!(snake("KRaftVersionRecord"), "kraft_version_record");
        assert_eq!(snake("leaderEpoch"), "leader_epoch");
        assert_eq!(snake("ISRSize"), "isr_size");
    }

    #[test]
    fn comments_end_where_the_line_does() {
        assert_eq!(strip_comments("a // b\n\"http://x\" // y\n// z"), "a \n\"http://x\" \n\n");
    }

    #[test]
    fn versions_parse() {
        assert_eq!(Versions::parse("3+"), Ok(Versions { lo: 3, hi: i16::MAX }));
        assert_eq!(Versions::parse("0-7"), Ok(Versions { lo: 0, hi: 7 }));
        assert_eq!(Versions::parse("4"), Ok(Versions { lo: 4, hi: 4 }));
        assert_eq!(Versions::parse("none"), Ok(Versions::NONE));
        assert!(Versions::parse("x").is_err());
    }
}
