//! ConsumerGroupHeartbeat and ConsumerGroupDescribe.

use taccola_base::Uuid;
use taccola_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use taccola_wire::messages::*;

use super::super::{Differential, equal};
use super::{consumer_described, create, short, strings, topic_id};

type Beat = ConsumerGroupHeartbeatRequest;
/// Partitions by the names of their topics.
type Owned<'a> = &'a [(&'a str, &'a [i32])];

pub(super) fn run(d: &mut Differential) {
    malformed(d);
    for version in 0..=1 {
        life(d, version);
        static_members(d, version);
    }
    subscriptions(d);
    ranges(d);
    expressions(d);
    describe(d);
}

/// A join that both must take.
pub(super) fn joining(group: &str, member: &str, topics: &[&str]) -> Beat {
    Beat {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(strings(topics)),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

/// A heartbeat that says nothing new.
pub(super) fn beating(group: &str, member: &str, member_epoch: i32) -> Beat {
    Beat {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch,
        rebalance_timeout_ms: -1,
        ..Default::default()
    }
}

fn replied(response: &mut ConsumerGroupHeartbeatResponse) {
    equal::message(response.error_code, &mut response.error_message);
    if let Some(assignment) = &mut response.assignment {
        assignment.topic_partitions.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        // Of two topics their ids decide the order, and those are the broker's.
        assignment.topic_partitions.sort_by(|a, b| a.partitions.cmp(&b.partitions));
    }
}

pub(super) fn beat(d: &mut Differential, case: &str, version: i16, request: &Beat) {
    d.at(case, version, request, replied);
}

/// A heartbeat that names partitions, which takes the broker's ids.
fn owning(d: &mut Differential, case: &str, version: i16, request: &Beat, owned: Owned<'_>) {
    let with_ids = |conn: &mut crate::conn::Conn| {
        let rows = owned.iter().map(|(topic, partitions)| TopicPartitions {
            topic_id: topic_id(conn, topic),
            partitions: partitions.to_vec(),
        });
        Beat { topic_partitions: Some(rows.collect()), ..request.clone() }
    };
    d.per_broker(case, version, with_ids, replied);
}

fn described(d: &mut Differential, case: &str, groups: &[&str]) {
    for (version, include_authorized_operations) in [(0, false), (1, true)] {
        let request = ConsumerGroupDescribeRequest { group_ids: strings(groups), include_authorized_operations };
        d.at(case, version, &request, consumer_described);
    }
}

/// What is refused before anybody looks for the group. A good join comes last: nothing of the others stayed.
fn malformed(d: &mut Differential) {
    let good = || joining("c-bad", "m", &["g-two"]);
    let long = "x".repeat(2_000);
    let with_id = |member: &str| Beat { member_id: member.to_owned(), ..good() };
    let epoch = |member_epoch| Beat { member_epoch, ..good() };
    let cases = [
        ("no group", Beat { group_id: String::new(), ..good() }),
        ("blank group", Beat { group_id: "  ".to_owned(), ..good() }),
        ("blank member", with_id(" ")),
        ("no member, epoch 3", Beat { member_epoch: 3, ..with_id("") }),
        ("no member, leaves", Beat { member_epoch: -1, ..with_id("") }),
        ("no member, leaves for a while", Beat { member_epoch: -2, instance_id: Some("i".into()), ..with_id("") }),
        ("no instance", Beat { instance_id: Some(String::new()), ..good() }),
        ("blank instance", Beat { instance_id: Some(" ".into()), ..good() }),
        ("no rack", Beat { rack_id: Some(String::new()), ..good() }),
        ("no timeout", Beat { rebalance_timeout_ms: -1, ..good() }),
        ("no partitions", Beat { topic_partitions: None, ..good() }),
        (
            "partitions of an unknown topic",
            Beat {
                topic_partitions: Some(vec![TopicPartitions {
                    topic_id: Uuid::METADATA_TOPIC_ID,
                    partitions: vec![0],
                }]),
                ..good()
            },
        ),
        ("no subscription", Beat { subscribed_topic_names: None, ..good() }),
        ("unknown assignor", Beat { server_assignor: Some("sticky".into()), ..good() }),
        ("empty assignor", Beat { server_assignor: Some(String::new()), ..good() }),
        ("assignor in capitals", Beat { server_assignor: Some("RANGE".into()), ..good() }),
        ("long assignor", Beat { server_assignor: Some(long.clone()), ..good() }),
        ("leaves for a while without instance", epoch(-2)),
        ("epoch -3", epoch(-3)),
        ("lowest epoch", epoch(i32::MIN)),
        ("epoch of nobody", epoch(1)),
        ("highest epoch", epoch(i32::MAX)),
        ("leaves what is not there", epoch(-1)),
        ("leaves for a while what is not there", Beat { instance_id: Some("i".into()), ..epoch(-2) }),
        ("bad and unknown", Beat { rack_id: Some(String::new()), ..epoch(7) }),
    ];
    for (case, request) in &cases {
        d.all(case, 0..=1, request, replied);
    }
    beat(d, "no member, joins", 1, &with_id(""));
    let regex =
        |regex: &str| Beat { subscribed_topic_names: None, subscribed_topic_regex: Some(regex.into()), ..good() };
    for bad in ["(", "[", "*a", "(?=a)", "(?<!a)b", "(a)\\1", "\\", "a{1001}", "\\p{Nope}", "(?z)", "a**", "(?x)a"] {
        beat(d, &format!("bad expression {}", short(bad)), 1, &regex(bad));
    }
    beat(d, "names and a bad expression", 1, &Beat { subscribed_topic_regex: Some("(".into()), ..good() });
    described(d, "nothing stayed", &["c-bad"]);
    let id = "no id of its own";
    let generated = |response: &mut ConsumerGroupHeartbeatResponse| {
        replied(response);
        if response.member_id.as_ref().is_some_and(|id| id.parse::<Uuid>().is_ok()) {
            response.member_id = Some("generated".to_owned());
        }
    };
    let request = Beat { group_id: "c-generated".to_owned(), ..with_id("") };
    d.at(id, 0, &request, generated);
}

/// Two members come and go, with every epoch that they could send.
fn life(d: &mut Differential, version: i16) {
    let group = format!("c-life-{version}");
    let group = group.as_str();
    let join = |member| joining(group, member, &["g-four"]);
    let at = |member, epoch| beating(group, member, epoch);
    beat(d, "the first joins", version, &join("a"));
    beat(d, "it joins again", version, &join("a"));
    beat(d, "it stays", version, &at("a", 2));
    described(d, "one member", &[group]);
    beat(d, "a stranger stays", version, &at("b", 2));
    beat(d, "a stranger leaves", version, &at("b", -1));
    beat(d, "the second joins", version, &join("b"));
    described(d, "a member that must give back", &[group]);
    owning(d, "the first has all", version, &at("a", 2), &[("g-four", &[0, 1, 2, 3])]);
    beat(d, "the first says nothing", version, &at("a", 2));
    beat(d, "the second waits", version, &at("b", 3));
    described(d, "both on their way", &[group]);
    owning(d, "the first claims too much", version, &at("a", 2), &[("g-four", &[0, 1, 2, 3]), ("g-two", &[0])]);
    owning(d, "the first has given back", version, &at("a", 2), &[("g-four", &[0, 1])]);
    described(d, "the first is done", &[group]);
    beat(d, "the first, previous epoch and nothing owned", version, &at("a", 2));
    owning(d, "the first, previous epoch and a part", version, &at("a", 2), &[("g-four", &[0])]);
    owning(d, "the first, previous epoch and too much", version, &at("a", 2), &[("g-four", &[0, 1, 2])]);
    beat(d, "the first, future epoch", version, &at("a", 4));
    beat(d, "the second gets its share", version, &at("b", 3));
    beat(d, "the second stays", version, &at("b", 3));
    described(d, "both are stable", &[group]);

    // The same said again, and something new.
    let full = |member, epoch| Beat { member_epoch: epoch, ..join(member) };
    owning(d, "a full heartbeat", version, &full("a", 3), &[("g-four", &[0, 1])]);
    owning(d, "claims of the other's", version, &full("a", 3), &[("g-four", &[2, 3])]);
    let subscribes =
        |member, epoch, topics| Beat { subscribed_topic_names: Some(strings(topics)), ..at(member, epoch) };
    beat(d, "another subscription", version, &subscribes("a", 3, &["g-two", "g-four"]));
    beat(d, "the same in another order", version, &subscribes("a", 4, &["g-four", "g-two"]));
    beat(d, "the other catches up", version, &at("b", 3));
    described(d, "different subscriptions", &[group]);
    beat(d, "subscribes to nothing", version, &subscribes("b", 4, &[]));
    beat(d, "gives back", version, &at("b", 4));
    owning(d, "has given back", version, &at("b", 4), &[]);
    beat(d, "gets everything", version, &at("a", 4));
    described(d, "one has all", &[group]);
    beat(d, "another timeout", version, &Beat { rebalance_timeout_ms: 7, ..at("a", 5) });
    beat(d, "another rack", version, &Beat { rack_id: Some("r".to_owned()), ..at("a", 5) });
    beat(d, "another assignor", version, &Beat { server_assignor: Some("range".to_owned()), ..at("a", 5) });
    described(d, "after changes", &[group]);

    // One joins anew without having left.
    beat(d, "joins anew", version, &join("b"));
    beat(d, "joins anew, with an epoch that was", version, &at("b", 4));
    beat(d, "one leaves", version, &at("a", -1));
    beat(d, "and again", version, &at("a", -1));
    beat(d, "one that left stays", version, &at("a", 5));
    described(d, "one is left", &[group]);
    beat(d, "the last leaves", version, &at("b", -1));
    described(d, "nobody is left", &[group]);
    beat(d, "nobody stays", version, &at("b", 6));
    beat(d, "somebody comes back", version, &join("b"));
    beat(d, "and goes", version, &at("b", -1));
}

fn static_members(d: &mut Differential, version: i16) {
    let group = format!("c-static-{version}");
    let group = group.as_str();
    let fixed = |instance: &str, request: Beat| Beat { instance_id: Some(instance.to_owned()), ..request };
    let join = |member, instance| fixed(instance, joining(group, member, &["g-two"]));
    let at = |member, instance, epoch| fixed(instance, beating(group, member, epoch));
    beat(d, "a static member joins", version, &join("s1", "i"));
    beat(d, "another of its instance", version, &join("s2", "i"));
    beat(d, "another of its instance stays", version, &at("s2", "i", 2));
    beat(d, "another of its instance leaves", version, &at("s2", "i", -1));
    beat(d, "another of its instance leaves for a while", version, &at("s2", "i", -2));
    beat(d, "an unknown instance stays", version, &at("s1", "j", 2));
    beat(d, "an unknown instance leaves", version, &at("s1", "j", -1));
    beat(d, "without its instance", version, &beating(group, "s1", 2));
    beat(d, "with its instance", version, &at("s1", "i", 2));
    beat(d, "a second instance", version, &join("t1", "j"));
    beat(d, "the first leaves for a while", version, &at("s1", "i", -2));
    described(d, "away for a while", &[group]);
    beat(d, "away, and stays", version, &at("s1", "i", 2));
    beat(d, "away, and leaves for a while", version, &at("s1", "i", -2));
    beat(d, "the second waits", version, &at("t1", "j", 3));
    beat(d, "back under a new name", version, &join("s3", "i"));
    described(d, "back", &[group]);
    beat(d, "the old name stays", version, &at("s1", "i", 2));
    beat(d, "the new name stays", version, &at("s3", "i", 3));
    beat(d, "the second gets its share", version, &at("t1", "j", 3));
    beat(d, "the second leaves for a while", version, &at("t1", "j", -2));
    beat(d, "the second is back under its own name", version, &join("t1", "j"));
    beat(d, "the first leaves for good", version, &at("s3", "i", -1));
    beat(d, "a third with the first instance", version, &join("s4", "i"));
    beat(d, "leaves for a while, then for good", version, &at("s4", "i", -2));
    beat(d, "leaves for good from away", version, &at("s4", "i", -1));
    described(d, "static members at the end", &[group]);
}

fn subscriptions(d: &mut Differential) {
    let many: Vec<String> = (0..300).map(|n| format!("g-{n}")).collect();
    let names = |topics: &[&str]| joining("c-sub", "a", topics);
    beat(d, "no topics at all", 1, &names(&[]));
    beat(d, "a missing topic", 1, &names(&["g-missing"]));
    beat(d, "the same topic twice", 1, &names(&["g-one", "g-one"]));
    beat(d, "an empty name", 1, &names(&[""]));
    beat(d, "bad names", 1, &names(&["a b", "..", "g-one"]));
    beat(d, "many names", 1, &Beat { subscribed_topic_names: Some(many), ..names(&[]) });
    beat(d, "topics and missing ones", 1, &names(&["g-one", "g-missing", "g-two"]));
    beat(d, "a timeout of nothing", 1, &Beat { rebalance_timeout_ms: 0, ..names(&["g-one"]) });
    beat(d, "a negative timeout", 1, &Beat { rebalance_timeout_ms: -5, ..names(&["g-one"]) });
    let partitions = |topic_id, partitions: Vec<i32>| Beat {
        topic_partitions: Some(vec![TopicPartitions { topic_id, partitions }]),
        ..names(&["g-one"])
    };
    beat(d, "joins with partitions", 1, &partitions(Uuid::ZERO, vec![-1]));
    for (case, rows) in [("negative", vec![-1, -1]), ("too high", vec![7, i32::MAX]), ("none", vec![])] {
        let request = Beat { member_epoch: 6, ..partitions(Uuid::METADATA_TOPIC_ID, rows) };
        beat(d, &format!("owns partitions, {case}"), 1, &request);
    }
    described(d, "what stayed of subscriptions", &["c-sub"]);
    beat(d, "end", 1, &beating("c-sub", "a", -1));
}

fn ranges(d: &mut Differential) {
    let join =
        |member| Beat { server_assignor: Some("range".into()), ..joining("c-range", member, &["g-four", "g-one"]) };
    beat(d, "range, the first", 1, &join("a"));
    beat(d, "range, the second", 1, &join("b"));
    owning(d, "range, gives back", 1, &beating("c-range", "a", 2), &[("g-four", &[0, 1]), ("g-one", &[0])]);
    beat(d, "range, the second gets it", 1, &beating("c-range", "b", 3));
    described(d, "range", &["c-range"]);
    // Uniform by majority: two of three.
    beat(d, "a third wants uniform", 1, &Beat { server_assignor: Some("uniform".into()), ..join("c") });
    described(d, "two of three want range", &["c-range"]);
    for member in ["a", "b", "c"] {
        beat(d, "end", 1, &beating("c-range", member, -1));
    }
    described(d, "the last assignor of an empty group", &["c-range"]);
}

/// Kafka resolves an expression in the background, here it is done with the heartbeat that brings it: what is compared is
/// where both come to.
fn expressions(d: &mut Differential) {
    let join = |group: &str, regex: &str| Beat {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(regex.to_owned()),
        ..joining(group, "r", &[])
    };
    let cases = [
        ("g-(two|four)", 2),
        ("g-t.*", 1),
        ("g-.*two", 1),
        ("two", 0),
        ("G-TWO", 0),
        ("(?i)G-TWO", 1),
        ("", 0),
        ("g-one|g-two", 2),
    ];
    for (number, (regex, topics)) in cases.into_iter().enumerate() {
        let group = format!("c-regex-{number}");
        let request = join(&group, regex);
        d.prepare("the expression is taken", |conn| !super::is_retriable(conn.ask(&request, 1).error_code));
        let what = DescribedUntil { group: &group, topics };
        what.ask(d, &format!("expression {regex:?}"));
        beat(d, "end", 1, &beating(&group, "r", -1));
    }
    let both = Beat { subscribed_topic_names: Some(strings(&["g-one"])), ..join("c-regex-both", "g-two") };
    d.prepare("the expression is taken", |conn| conn.ask(&both, 1).error_code == 0);
    DescribedUntil { group: "c-regex-both", topics: 2 }.ask(d, "names and an expression");
    let drops = Beat { subscribed_topic_regex: Some(String::new()), ..both.clone() };
    d.at("drops its expression", 1, &drops, |response| {
        replied(response);
        response.member_epoch = 0;
    });
    beat(d, "end", 1, &beating("c-regex-both", "r", -1));
    create(d, "g-later", 2);
}

/// A group whose member has been told of its topics, once they are known.
struct DescribedUntil<'a> {
    group: &'a str,
    topics: usize,
}

impl DescribedUntil<'_> {
    fn ask(&self, d: &mut Differential, case: &str) {
        let request = ConsumerGroupDescribeRequest { group_ids: strings(&[self.group]), ..Default::default() };
        // How many epochs that took is nobody's promise.
        let epochs = |response: &mut ConsumerGroupDescribeResponse| {
            consumer_described(response);
            for group in &mut response.groups {
                (group.group_epoch, group.assignment_epoch) = (0, 0);
                group.members.iter_mut().for_each(|member| member.member_epoch = 0);
            }
        };
        let group = self.group;
        d.prepare("the expression is resolved", |conn| {
            let row = conn.ask(&request, 1).groups.remove(0);
            let Some(member) = row.members.first() else { return false };
            let done = member.assignment.topic_partitions.len() >= self.topics;
            done || conn.ask(&beating(group, "r", member.member_epoch), 1).error_code > 1_000
        });
        d.at(case, 1, &request, epochs);
    }
}

fn describe(d: &mut Differential) {
    described(d, "no group", &[]);
    described(d, "an empty id", &[""]);
    described(d, "what never was", &["c-never"]);
    described(d, "several", &["c-never", "c-range", "", "c-range"]);
}
