//! The language of the scripts. `ID` is a transactional id; `PID/EPOCH` a producer, and `-` in its place the one that the
//! last InitProducerId or EndTxn of the id answered with.
//!
//! ```text
//! config [tv=2] [max-timeout= id-expiration= abort-interval= expiration-interval= epoch=]
//!                                     starts with an empty log, these settings, at this `transaction.version`
//! init ID [v=5 timeout=60s producer=PID/EPOCH 2pc keep]
//! add ID PID/EPOCH [v=3] TOPIC-PARTITION...       from v=4 on as brokers ask
//! verify ID PID/EPOCH [v=5] TOPIC-PARTITION...
//! offsets ID PID/EPOCH [v=4]          the group's offsets are in __consumer_offsets-3
//! end ID PID/EPOCH [v=5] commit|abort
//! markers ID                          the markers that were asked for are written; they are at once, until `hold-markers`
//! hold-markers | release-markers
//! describe ID                         list [states=A,B producers=1,2 duration=1s pattern=P]
//! tick DURATION                       lets time pass; timers fire at their time
//! hold | release                      appended records stay uncommitted | are committed, also those to come
//! next-append-fails ERROR             | append-times-out ERROR, of the oldest that is held
//! crash                               forgets everything but the committed log, and replays it
//! unload                              gives the shard up
//! state ID PID/EPOCH STATE [v=1 tv=2 next=PID] [TOPIC-PARTITION...]   a record in the log that another broker wrote
//! raw KEY [VALUE]                     likewise, as hexadecimal bytes
//! ```

pub(crate) mod oracle;
mod print;
mod requests;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write;

use world::World;

/// The words of a line: `KEY=VALUE` pairs, and the others in order.
pub(crate) struct Args<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Args<'a> {
    pub(crate) fn parse(words: impl Iterator<Item = &'a str>) -> Self {
        let mut args = Args { words: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => {
                    args.named.insert(key, value);
                }
                _ => args.words.push(word),
            }
        }
        args
    }

    pub(crate) fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or_else(|| panic!("word {at} is missing in {:?}", self.words))
    }

    pub(crate) fn rest(&self, from: usize) -> &[&'a str] {
        self.words.get(from..).unwrap_or_default()
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.named.get(key).copied()
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.get(key).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{key}={v} is no number")))
    }

    /// Milliseconds.
    pub(crate) fn duration(&self, key: &str, default: i64) -> i64 {
        self.get(key).map_or(default, duration_ms)
    }
}

pub(crate) fn duration_ms(text: &str) -> i64 {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: i64 = number.parse().unwrap_or_else(|_| panic!("{text} is no duration"));
    number
        * match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => panic!("{text} is no duration"),
        }
}

/// The command in a line of a script, if it is one.
pub(crate) fn command(line: &str) -> Option<(&str, Args<'_>)> {
    if line.starts_with(' ') || line.starts_with('#') {
        return None;
    }
    let mut words = line.split_whitespace();
    Some((words.next()?, Args::parse(words)))
}

/// The script with its trace.
pub(crate) fn run(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if let Some((verb, args)) = command(line) {
            world.run(verb, &args);
            for printed in world.take_output() {
                writeln!(out, "  {printed}").unwrap();
            }
        }
    }
    out
}

pub(crate) fn first_difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let show = |lines: &[&str]| lines.iter().skip(same).take(6).map(|l| format!("    {l}\n")).collect::<String>();
    let before: String = expected.iter().take(same).rev().take(3).rev().map(|l| format!("    {l}\n")).collect();
    format!("line {}:\n{before}  expected\n{}  actual\n{}", same + 1, show(&expected), show(&actual))
}
