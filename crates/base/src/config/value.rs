//! Values by type: parsing as Kafka's `ConfigDef.parseType` does, checking against the entry, rendering as
//! `ConfigDef.convertToString` does. Errors say what is allowed, as the end of a sentence.

use super::key::{ConfigKey, ConfigType, Valid};

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    /// int, short or long.
    Number(i64),
    Double(f64),
    /// string, class or password.
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// As Kafka shows it; `None` for null. Passwords are the caller's to hide.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Boolean(b) => Some(b.to_string()),
            Self::Number(n) => Some(n.to_string()),
            Self::Double(d) => Some(java_double(*d)),
            Self::Text(s) => Some(s.clone()),
            Self::List(items) => Some(items.join(",")),
        }
    }
}

/// Java's `String.trim`: control characters and spaces, but no other white space.
pub(super) fn trim(s: &str) -> &str {
    s.trim_matches(|c| c <= ' ')
}

/// The items of a list; none in an empty one. White space around commas goes.
pub fn split_list(raw: &str) -> Vec<String> {
    let raw = trim(raw);
    if raw.is_empty() { Vec::new() } else { raw.split(',').map(|s| s.trim().to_owned()).collect() }
}

/// Parses and checks; the error says what is allowed: "must be a whole number of at least 1".
pub fn parse(key: &ConfigKey, raw: &str) -> Result<Value, String> {
    let value = parse_type(key.kind, raw).ok_or_else(|| allowed(key))?;
    if is_valid(key, &value) { Ok(value) } else { Err(allowed(key)) }
}

fn parse_type(kind: ConfigType, raw: &str) -> Option<Value> {
    let s = trim(raw);
    let number = |min: i64, max: i64| s.parse::<i64>().ok().filter(|n| (min..=max).contains(n)).map(Value::Number);
    match kind {
        ConfigType::Boolean if s.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
        ConfigType::Boolean if s.eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
        ConfigType::Boolean => None,
        ConfigType::Int => number(i64::from(i32::MIN), i64::from(i32::MAX)),
        ConfigType::Short => number(i64::from(i16::MIN), i64::from(i16::MAX)),
        ConfigType::Long => number(i64::MIN, i64::MAX),
        ConfigType::Double => s.parse::<f64>().ok().filter(|d| d.is_finite()).map(Value::Double),
        ConfigType::List => Some(Value::List(split_list(s))),
        ConfigType::String | ConfigType::Class | ConfigType::Password => Some(Value::Text(s.to_owned())),
    }
}

fn is_valid(key: &ConfigKey, value: &Value) -> bool {
    if let Value::List(items) = value
        && items.iter().any(String::is_empty)
    {
        return false;
    }
    match (key.valid, value) {
        (Valid::Any, _) => true,
        (Valid::Range { min, max }, Value::Number(n)) => min.is_none_or(|m| *n >= m) && max.is_none_or(|m| *n <= m),
        (Valid::Between { min, max }, Value::Double(d)) => (min..=max).contains(d),
        (Valid::OneOf(all), Value::Text(s)) => all.contains(&s.as_str()),
        (Valid::OneOf(all), Value::List(items)) => items.iter().all(|s| all.contains(&s.as_str())),
        (Valid::OneOfAnyCase(all), Value::Text(s)) => all.iter().any(|a| a.eq_ignore_ascii_case(s)),
        (Valid::NonEmpty, Value::Text(s)) => !s.is_empty(),
        (Valid::GzipLevel, Value::Number(n)) => *n == -1 || (1..=9).contains(n),
        (Valid::ThrottledReplicas, Value::List(items)) => is_throttled_replicas(items),
        (Valid::ShareOffsetReset, Value::Text(s)) => is_share_offset_reset(s),
        _ => false,
    }
}

/// What a key takes, as the end of a sentence.
pub fn allowed(key: &ConfigKey) -> String {
    let number = "a whole number";
    let kind = match key.kind {
        ConfigType::Boolean => "true or false",
        ConfigType::Int => "a whole number (int)",
        ConfigType::Short => "a whole number (short)",
        ConfigType::Long => "a whole number (long)",
        ConfigType::Double => "a decimal number",
        ConfigType::List => "a list without empty items",
        ConfigType::String | ConfigType::Class | ConfigType::Password => "a text",
    };
    match key.valid {
        Valid::Any => format!("must be {kind}"),
        Valid::Range { min: Some(min), max: Some(max) } => format!("must be {number} from {min} to {max}"),
        Valid::Range { min: Some(min), max: None } => format!("must be {number} of at least {min}"),
        Valid::Range { min: None, max: Some(max) } => format!("must be {number} of at most {max}"),
        Valid::Range { min: None, max: None } => format!("must be {kind}"),
        Valid::Between { min, max } => format!("must be a decimal number from {min} to {max}"),
        Valid::OneOf(all) if key.kind == ConfigType::List => format!("must be a list of: {}", all.join(", ")),
        Valid::OneOf(all) => format!("must be one of: {}", all.join(", ")),
        Valid::OneOfAnyCase(all) => format!("must be one of, in any case: {}", all.join(", ")),
        Valid::NonEmpty => "must not be empty".to_owned(),
        Valid::GzipLevel => "must be from 1 to 9, or -1".to_owned(),
        Valid::ThrottledReplicas => "must be * or a list of partition:broker".to_owned(),
        Valid::ShareOffsetReset => {
            "must be latest, earliest, or by_duration: with an ISO 8601 duration such as PT1H".to_owned()
        }
    }
}

fn is_throttled_replicas(items: &[String]) -> bool {
    let pair = |s: &String| {
        s.split_once(':')
            .is_some_and(|(p, b)| [p, b].iter().all(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())))
    };
    matches!(items, [one] if one == "*") || items.iter().all(pair)
}

fn is_share_offset_reset(s: &str) -> bool {
    match s.strip_prefix("by_duration:") {
        Some(duration) => parse_iso_duration_ms(duration).is_some_and(|ms| ms >= 0),
        None => s == "latest" || s == "earliest",
    }
}

/// An ISO 8601 duration of days, hours, minutes and seconds (`P1DT2H3M4.5S`) in milliseconds, as Java's
/// `Duration.parse` takes it: signs are allowed, letters in any case. `None` if it is none or does not fit.
pub fn parse_iso_duration_ms(s: &str) -> Option<i64> {
    let upper = s.to_ascii_uppercase();
    let (negative, rest) = match upper.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, upper.strip_prefix('+').unwrap_or(&upper)),
    };
    let rest = rest.strip_prefix('P')?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let days = if date.is_empty() { 0 } else { date.strip_suffix('D')?.parse::<i64>().ok()? };
    let mut total = days.checked_mul(86_400_000)?;
    let mut time = time;
    for (unit, factor) in [('H', 3_600_000), ('M', 60_000)] {
        if let Some((n, rest)) = time.split_once(unit) {
            total = total.checked_add(n.parse::<i64>().ok()?.checked_mul(factor)?)?;
            time = rest;
        }
    }
    if !time.is_empty() {
        total = total.checked_add(parse_seconds_ms(time.strip_suffix('S')?)?)?;
    }
    if negative { total.checked_neg() } else { Some(total) }
}

/// Seconds with at most nine decimals; what is finer than a millisecond is cut off.
fn parse_seconds_ms(s: &str) -> Option<i64> {
    let (whole, fraction) = s.split_once(['.', ',']).unwrap_or((s, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let ms = whole.parse::<i64>().ok()?.checked_mul(1_000)?;
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let part = digits.parse::<i64>().ok()?;
    if whole.starts_with('-') { ms.checked_sub(part) } else { ms.checked_add(part) }
}

/// Java's `Double.toString`: plain from 1e-3 to below 1e7, else one digit, decimals, `E`, exponent.
fn java_double(d: f64) -> String {
    let size = d.abs();
    if d == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{d:?}");
    }
    let s = format!("{d:e}");
    match s.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => format!("{mantissa}E{exponent}"),
        Some((mantissa, exponent)) => format!("{mantissa}.0E{exponent}"),
        None => s,
    }
}
