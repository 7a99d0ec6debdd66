//! The language of the scripts. `CLIENT` names the client, whose requests carry it as client id and label.
//!
//! ```text
//! config KEY=VALUE...                 starts with an empty log and these settings
//! limit max-size=                     changes a setting of the running shard
//! join CLIENT GROUP [v= member= instance= type= protocols=NAME:TOPIC+TOPIC,... session= rebalance=]
//! sync CLIENT GROUP gen= member= [v= instance= type= protocol= assign=MEMBER:TEXT,...]
//! heartbeat CLIENT GROUP gen= member= [instance=]
//! leave CLIENT GROUP [v= members=MEMBER[/INSTANCE],...]
//! commit CLIENT GROUP [v= gen= member= instance= retention= id=N meta=] TOPIC-PARTITION=OFFSET[@EPOCH]...
//! fetch CLIENT GROUP [stable id=N] TOPIC-PARTITION... | all
//! offset-delete CLIENT GROUP TOPIC-PARTITION...
//! delete CLIENT GROUP...              describe v= GROUP...        list [states=A,B types=a,b]
//! topics-deleted [id=N] TOPIC...
//! topic NAME PARTITIONS               creates a topic, or gives it more partitions; the n-th has the id n
//! drop-topic NAME
//! group-config GROUP KEY:VALUE...     sets what can be set for a group by name
//! chb CLIENT GROUP [epoch= member= v= instance= rack= rebalance= topics=A+B regex= assignor= owned=ID:P+P,... | -]
//!                                     a ConsumerGroupHeartbeat; without `member=` the client's name is the id
//! cdescribe GROUP...                  a ConsumerGroupDescribe
//! shb CLIENT GROUP [epoch= member= topics=A+B rack=]   a ShareGroupHeartbeat
//! sdescribe GROUP...                  a ShareGroupDescribe
//! sinit | suninit CLIENT GROUP ID:P+P...   the share coordinator has, or has not, set this state up
//! salter CLIENT GROUP TOPIC-PARTITION=OFFSET...   an AlterShareGroupOffsets
//! soffset-delete CLIENT GROUP TOPIC...   a DeleteShareGroupOffsets
//! sdeleted CLIENT GROUP ID...         the share coordinator has forgotten the state of these topics
//! sforget CLIENT GROUP                the first step of deleting the group
//! tick DURATION                       lets time pass; timers fire at their time
//! hold                                appended records stay uncommitted until `release`
//! release                             commits what is held, and goes back to committing at once
//! next-append-fails ERROR             the next records never get into the log
//! append-fails ERROR | append-times-out ERROR   the fate of the oldest append that is held
//! crash                               forgets everything but the committed log, and replays it
//! unload                              gives the shard up
//! txn PRODUCER GROUP TOPIC-PARTITION=OFFSET   a transactional commit in the log, as a JVM writes it
//! end-txn PRODUCER commit|abort
//! raw KEY [VALUE|null]                a record as hexadecimal bytes in the log
//! log                                 prints the log
//! ```

mod cluster;
mod consumer;
mod oracle;
mod print;
mod requests;
mod share;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write;

use world::World;

/// The words of a line: `KEY=VALUE` pairs of known keys, and the others in order.
pub(crate) struct Args<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

const KEYS: &[&str] = &[
    "v",
    "member",
    "instance",
    "type",
    "protocols",
    "protocol",
    "session",
    "rebalance",
    "gen",
    "assign",
    "members",
    "retention",
    "id",
    "meta",
    "states",
    "types",
    "initial-delay",
    "max-size",
    "min-session",
    "max-session",
    "metadata-max",
    "offsets-retention",
    "check-interval",
    "epoch",
    "topics",
    "regex",
    "owned",
    "assignor",
    "rack",
    "assignment-interval",
    "consumer-max-size",
    "policy",
];

impl<'a> Args<'a> {
    fn parse(words: impl Iterator<Item = &'a str>) -> Self {
        let mut args = Args { words: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) if KEYS.contains(&key) => {
                    args.named.insert(key, value);
                }
                _ => args.words.push(word),
            }
        }
        args
    }

    fn parse_line(line: &'a str) -> Self {
        Self::parse(line.split_whitespace())
    }

    pub(crate) fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or_else(|| panic!("word {at} is missing in {:?}", self.words))
    }

    pub(crate) fn rest(&self, from: usize) -> &[&'a str] {
        self.words.get(from..).unwrap_or_default()
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
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i64 = digits.parse().unwrap_or_else(|_| panic!("{text} is no duration"));
    number
        * match text.strip_prefix(digits) {
            Some("ms") => 1,
            Some("s") => 1_000,
            Some("m") => 60_000,
            Some("h") => 3_600_000,
            Some("d") => 86_400_000,
            _ => panic!("{text} is no duration"),
        }
}

/// The script with its trace.
pub(crate) fn run(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        let command = line.split('#').next().filter(|_| line.starts_with('#')).map_or(line, |_| "");
        let mut words = command.split_whitespace();
        if let Some(verb) = words.next() {
            world.run(verb, &Args::parse(words));
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
