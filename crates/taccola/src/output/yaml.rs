//! Writes a JSON value as YAML 1.2: block style, two spaces of indentation, strings quoted only where they would read as
//! something else. What it writes, any YAML reader reads back as the same value.

use std::fmt::Write;

use serde_json::Value;

pub(crate) fn emit(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        scalar => {
            flow(&mut out, scalar);
            out.push('\n');
        }
    }
    out
}

/// A non-empty map or list, each entry on lines of its own.
fn block(out: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&pad);
                out.push_str(&string(key));
                out.push(':');
                entry(out, value, indent + 2);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&pad);
                out.push('-');
                match item {
                    // The first key stands behind the dash.
                    Value::Object(map) if !map.is_empty() => {
                        let mut nested = String::new();
                        block(&mut nested, item, indent + 2);
                        out.push(' ');
                        out.push_str(nested.trim_start());
                    }
                    item => entry(out, item, indent + 2),
                }
            }
        }
        scalar => flow(out, scalar),
    }
}

fn entry(out: &mut String, value: &Value, indent: usize) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(out, value, indent);
    } else {
        out.push(' ');
        flow(out, value);
        out.push('\n');
    }
}

fn flow(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => out.push_str(&string(text)),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            // Null, booleans and numbers look the same in both. A String never refuses to be written to.
            let _ = write!(out, "{other}");
        }
    }
}

fn string(text: &str) -> String {
    // A JSON string is a YAML double-quoted string.
    if is_plain(text) { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ".inf", ".nan"];
    let first_ok = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '/'));
    let rest_ok =
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | '=' | ' ' | '@'));
    first_ok && rest_ok && !text.ends_with(' ') && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_values() {
        let value = json!({
            "name": "t", "count": 3, "empty": [], "none": null, "yes": "yes", "time": "10:00",
            "partitions": [{"id": 0, "isr": [0, 1]}, {"id": 1, "isr": []}], "plain": ["a b", "-x", "7", ""],
        });
        let expected = "name: t\n\
                        count: 3\n\
                        empty: []\n\
                        none: null\n\
                        \"yes\": \"yes\"\n\
                        time: \"10:00\"\n\
                        partitions:\n\
                        \x20 - id: 0\n\
                        \x20   isr:\n\
                        \x20     - 0\n\
                        \x20     - 1\n\
                        \x20 - id: 1\n\
                        \x20   isr: []\n\
                        plain:\n\
                        \x20 - a b\n\
                        \x20 - \"-x\"\n\
                        \x20 - \"7\"\n\
                        \x20 - \"\"\n";
        assert_eq!(emit(&value), expected);
        assert_eq!(emit(&json!([])), "[]\n");
        assert_eq!(emit(&json!("a\n")), "\"a\\n\"\n");
    }
}
