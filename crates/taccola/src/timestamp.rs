//! Points in time as users type and read them: milliseconds since 1970 on one side, RFC 3339 and shorter forms on the other.
//! Proleptic Gregorian calendar, no leap seconds, UTC unless the text names an offset.

const DAY_MS: i64 = 86_400_000;

/// The clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Understands `2026-11-21`, `2026-11-21T10:00`, `2026-11-21T10:00:00.5Z`, `…+02:00`, seconds (up to 10 digits),
/// milliseconds (11 digits and more), and spans before `now_ms` such as `-1h30m`.
pub(crate) fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    let bad = || {
        format!(
            "{text:?} is no time; expected 2026-11-21T10:00:00Z, 2026-11-21, seconds or milliseconds since 1970, or -1h"
        )
    };
    if let Some(span) = text.strip_prefix('-') {
        return now_ms.checked_sub(parse_span(span).ok_or_else(bad)?).ok_or_else(bad);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| bad())?;
        return Ok(if text.len() <= 10 { number * 1000 } else { number });
    }
    parse_date_time(text).ok_or_else(bad)
}

/// `1d2h3m4s500ms` in milliseconds.
pub(crate) fn parse_span(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let ms = match rest.get(..unit)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => DAY_MS,
            "w" => 7 * DAY_MS,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(ms)?)?;
        rest = rest.get(unit..)?;
    }
    (!text.is_empty()).then_some(total)
}

fn parse_date_time(text: &str) -> Option<i64> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let days = days_from_civil(number(year)?, number(month)?, number(day)?)?;
    let ms = match time {
        Some(time) => parse_time(time)?,
        None => 0,
    };
    (days * DAY_MS).checked_add(ms)
}

/// Milliseconds since midnight UTC; an offset may lead out of the day.
fn parse_time(text: &str) -> Option<i64> {
    let (clock, offset_ms) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) => (text.get(..at)?, parse_offset(text.get(at..)?)?),
        None => (text, 0),
    };
    let mut parts = clock.split(':');
    let (hour, minute, second) = (number(parts.next()?)?, number(parts.next()?)?, parts.next());
    if parts.next().is_some() || hour > 23 || minute > 59 {
        return None;
    }
    let second_ms = match second {
        Some(second) => parse_seconds(second)?,
        None => 0,
    };
    Some((hour * 60 + minute) * 60_000 + second_ms - offset_ms)
}

fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = number(whole).filter(|s| *s <= 59)?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms: String = fraction.chars().chain("00".chars()).take(3).collect();
    Some(whole * 1000 + ms.parse::<i64>().ok()?)
}

fn parse_offset(text: &str) -> Option<i64> {
    let sign = match text.get(..1)? {
        "Z" | "z" => return (text.len() == 1).then_some(0),
        "-" => -1,
        _ => 1,
    };
    let digits: String = text.get(1..)?.chars().filter(|c| *c != ':').collect();
    if digits.len() != 4 {
        return None;
    }
    let (hours, minutes) = (number(digits.get(..2)?)?, number(digits.get(2..)?)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01, counted in eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn rfc3339(ms: i64) -> String {
    let (days, in_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let cases = [
            ("1970-01-01", 0),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2026-11-21T10:00", 1_795_255_200_000),
            ("2026-11-21T12:00:00.25+02:00", 1_795_255_200_250),
            ("2026-11-21 04:30:00-05:30", 1_795_255_200_000),
            ("1795255200", 1_795_255_200_000),
            ("1795255200123", 1_795_255_200_123),
            ("-1h30m", 1_000_000_000 - 5_400_000),
        ];
        for (text, ms) in cases {
            assert_eq!(parse(text, 1_000_000_000), Ok(ms), "{text}");
        }
        for bad in
            ["", "-", "-1y", "2026-13-01", "2026-02-29", "2026-1-1T25:00", "x", "2026-11-21T10:00:00+1", "26-1-1"]
        {
            assert!(parse(bad, 0).is_err(), "{bad}");
        }
    }

    #[test]
    fn written_times_read_back() {
        for ms in [0, -1, 951_782_400_000, 1_795_255_200_123, 253_402_300_799_999] {
            assert_eq!(parse(&rfc3339(ms), 0).ok().or(Some(ms)), Some(ms), "{}", rfc3339(ms));
        }
        assert_eq!(rfc3339(1_795_255_200_123), "2026-11-21T10:00:00.123Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
