//! StreamsGroupHeartbeat and StreamsGroupDescribe.

use taccola_wire::messages::streams_group_describe_response::Assignment;
use taccola_wire::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Endpoint, KeyValue, Subtopology, TaskIds, TaskOffset, TopicInfo, Topology,
};
use taccola_wire::messages::*;

use super::super::{Differential, equal};
use super::strings;

type Beat = StreamsGroupHeartbeatRequest;

pub(super) fn run(d: &mut Differential) {
    malformed(d);
    topologies(d);
    life(d);
    describe(d, "no group", &[]);
    describe(d, "an empty id", &[""]);
    describe(d, "what never was", &["t-never", "t-life", "t-never"]);
}

fn topology(epoch: i32, subtopologies: Vec<Subtopology>) -> Option<Topology> {
    Some(Topology { epoch, subtopologies })
}

fn subtopology(id: &str, sources: &[&str]) -> Subtopology {
    Subtopology { subtopology_id: id.to_owned(), source_topics: strings(sources), ..Default::default() }
}

fn internal(name: &str, partitions: i32) -> TopicInfo {
    TopicInfo { name: name.to_owned(), partitions, ..Default::default() }
}

pub(super) fn joining(group: &str, member: &str) -> Beat {
    Beat {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        process_id: Some(format!("p-{member}")),
        rebalance_timeout_ms: 30_000,
        topology: topology(0, vec![subtopology("0", &["g-two"])]),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        client_tags: Some(Vec::new()),
        ..Default::default()
    }
}

pub(super) fn beating(group: &str, member: &str, member_epoch: i32) -> Beat {
    Beat {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch,
        rebalance_timeout_ms: -1,
        ..Default::default()
    }
}

fn tasks(rows: &[(&str, &[i32])]) -> Option<Vec<TaskIds>> {
    let row = |(id, partitions): &(&str, &[i32])| TaskIds {
        subtopology_id: (*id).to_owned(),
        partitions: partitions.to_vec(),
    };
    Some(rows.iter().map(row).collect())
}

fn owning(request: Beat, active: &[(&str, &[i32])]) -> Beat {
    Beat { active_tasks: tasks(active), standby_tasks: tasks(&[]), warmup_tasks: tasks(&[]), ..request }
}

fn replied(response: &mut StreamsGroupHeartbeatResponse) {
    equal::message(response.error_code, &mut response.error_message);
    for status in response.status.iter_mut().flatten() {
        status.status_detail.clear();
    }
    if let Some(status) = &mut response.status {
        status.sort_by_key(|status| status.status_code);
    }
    for tasks in
        [&mut response.active_tasks, &mut response.standby_tasks, &mut response.warmup_tasks].into_iter().flatten()
    {
        tasks.sort_by(|a, b| a.subtopology_id.cmp(&b.subtopology_id));
        tasks.iter_mut().for_each(|task| task.partitions.sort_unstable());
    }
    if let Some(endpoints) = &mut response.partitions_by_user_endpoint {
        endpoints.sort_by(|a, b| a.user_endpoint.host.cmp(&b.user_endpoint.host));
    }
}

pub(super) fn beat(d: &mut Differential, case: &str, request: &Beat) {
    d.at(case, 0, request, replied);
}

fn sorted(response: &mut StreamsGroupDescribeResponse) {
    response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    let sort = |assignment: &mut Assignment| {
        for tasks in [&mut assignment.active_tasks, &mut assignment.standby_tasks, &mut assignment.warmup_tasks] {
            tasks.sort_by(|a, b| a.subtopology_id.cmp(&b.subtopology_id));
            tasks.iter_mut().for_each(|task| task.partitions.sort_unstable());
        }
    };
    for group in &mut response.groups {
        equal::message(group.error_code, &mut group.error_message);
        group.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        for member in &mut group.members {
            sort(&mut member.assignment);
            sort(&mut member.target_assignment);
        }
    }
}

pub(super) fn describe(d: &mut Differential, case: &str, groups: &[&str]) {
    let request = StreamsGroupDescribeRequest { group_ids: strings(groups), include_authorized_operations: true };
    d.at(case, 0, &request, sorted);
}

fn malformed(d: &mut Differential) {
    let good = || joining("t-bad", "m");
    let epoch = |member_epoch| Beat { member_epoch, ..good() };
    let endpoint = |host: &str, port| Some(Endpoint { host: host.to_owned(), port });
    let offsets = |partition, offset| Some(vec![TaskOffset { subtopology_id: "0".to_owned(), partition, offset }]);
    let cases = [
        ("no group", Beat { group_id: String::new(), ..good() }),
        ("blank group", Beat { group_id: " ".to_owned(), ..good() }),
        ("no member", Beat { member_id: String::new(), ..good() }),
        ("no instance", Beat { instance_id: Some(String::new()), ..good() }),
        ("an instance", Beat { instance_id: Some("i".to_owned()), ..good() }),
        ("no rack", Beat { rack_id: Some(String::new()), ..good() }),
        ("no timeout", Beat { rebalance_timeout_ms: -1, ..good() }),
        ("no process", Beat { process_id: None, ..good() }),
        ("no active tasks", Beat { active_tasks: None, ..good() }),
        ("no standby tasks", Beat { standby_tasks: None, ..good() }),
        ("no warm-up tasks", Beat { warmup_tasks: None, ..good() }),
        ("joins with active tasks", owning(good(), &[("0", &[0])])),
        ("joins with standby tasks", Beat { standby_tasks: tasks(&[("0", &[0])]), ..good() }),
        ("joins with warm-up tasks", Beat { warmup_tasks: tasks(&[("0", &[0])]), ..good() }),
        ("no topology", Beat { topology: None, ..good() }),
        ("task offsets", Beat { task_offsets: offsets(0, 3), ..good() }),
        ("end offsets", Beat { task_end_offsets: offsets(0, 3), ..good() }),
        ("epoch -3", epoch(-3)),
        ("leaves for a while", epoch(-2)),
        ("epoch of nobody", epoch(1)),
        ("a topology of somebody who is there", Beat { topology: topology(1, Vec::new()), ..epoch(1) }),
        ("leaves what is not there", beating("t-bad", "m", -1)),
        ("endpoint without host", Beat { user_endpoint: endpoint("", 1), ..epoch(3) }),
    ];
    for (case, request) in &cases {
        beat(d, case, request);
    }
    describe(d, "nothing stayed", &["t-bad"]);
}

/// Topologies, good and bad, each in a group of its own.
fn topologies(d: &mut Differential) {
    let cases: Vec<(&str, Vec<Subtopology>)> = vec![
        ("of nothing", vec![]),
        ("without sources", vec![subtopology("0", &[])]),
        ("with a missing source", vec![subtopology("0", &["g-missing"])]),
        ("with two sources", vec![subtopology("0", &["g-two", "g-four"])]),
        ("with an expression", vec![Subtopology { source_topic_regex: strings(&["g-.*"]), ..subtopology("0", &[]) }]),
        ("with a bad name", vec![subtopology("0", &["a b"])]),
        ("with an empty name", vec![subtopology("0", &[""])]),
        ("with an empty id", vec![subtopology("", &["g-two"])]),
        ("with two parts", vec![subtopology("0", &["g-two"]), subtopology("1", &["g-four"])]),
        (
            "with a changelog",
            vec![Subtopology {
                state_changelog_topics: vec![internal("t-changelog", 0)],
                ..subtopology("0", &["g-two"])
            }],
        ),
        (
            "with a changelog of a fixed size",
            vec![Subtopology { state_changelog_topics: vec![internal("t-fixed", 3)], ..subtopology("0", &["g-two"]) }],
        ),
        (
            "with settings of a changelog",
            vec![Subtopology {
                state_changelog_topics: vec![TopicInfo {
                    topic_configs: vec![KeyValue { key: "cleanup.policy".to_owned(), value: "compact".to_owned() }],
                    ..internal("t-compact", 0)
                }],
                ..subtopology("0", &["g-two"])
            }],
        ),
        (
            "with a repartition topic",
            vec![
                Subtopology { repartition_sink_topics: strings(&["t-between"]), ..subtopology("0", &["g-two"]) },
                Subtopology { repartition_source_topics: vec![internal("t-between", 0)], ..subtopology("1", &[]) },
            ],
        ),
        (
            "with a repartition topic of a size",
            vec![
                Subtopology { repartition_sink_topics: strings(&["t-sized"]), ..subtopology("0", &["g-two"]) },
                Subtopology { repartition_source_topics: vec![internal("t-sized", 5)], ..subtopology("1", &[]) },
            ],
        ),
        (
            "with a repartition topic that nobody writes",
            vec![Subtopology { repartition_source_topics: vec![internal("t-unwritten", 0)], ..subtopology("0", &[]) }],
        ),
        (
            "with copartitioned sources",
            vec![Subtopology {
                copartition_groups: vec![CopartitionGroup { source_topics: vec![0, 1], ..Default::default() }],
                ..subtopology("0", &["g-four", "g-two"])
            }],
        ),
        (
            "with a copartition group that is none",
            vec![Subtopology {
                copartition_groups: vec![CopartitionGroup { source_topics: vec![7], ..Default::default() }],
                ..subtopology("0", &["g-four"])
            }],
        ),
        ("with the same part twice", vec![subtopology("0", &["g-two"]), subtopology("0", &["g-four"])]),
        ("with a source of two parts", vec![subtopology("0", &["g-two"]), subtopology("1", &["g-two"])]),
    ];
    for (number, (case, subtopologies)) in cases.into_iter().enumerate() {
        let group = format!("t-top-{number}");
        let request = Beat { topology: topology(0, subtopologies), ..joining(&group, "m") };
        beat(d, &format!("a topology {case}"), &request);
        // Internal topics that are made meanwhile change the group once more.
        let describe = StreamsGroupDescribeRequest { group_ids: strings(&[&group]), ..Default::default() };
        d.at(&format!("a topology {case}"), 0, &describe, sorted);
    }
}

fn life(d: &mut Differential) {
    let group = "t-life";
    let at = |member, epoch| beating(group, member, epoch);
    beat(d, "the first joins", &joining(group, "a"));
    beat(d, "it stays", &at("a", 2));
    beat(d, "it joins again", &joining(group, "a"));
    describe(d, "one member", &[group]);
    beat(d, "has its tasks", &owning(at("a", 2), &[("0", &[0, 1])]));
    describe(d, "one member with tasks", &[group]);
    beat(d, "stranger", &at("b", 1));
    beat(d, "stranger leaves", &at("b", -1));
    beat(d, "future epoch", &at("a", 9));
    beat(
        d,
        "older topology",
        &Beat { topology: topology(-1, vec![subtopology("0", &["g-two"])]), ..joining(group, "old") },
    );
    beat(
        d,
        "newer topology",
        &Beat { topology: topology(1, vec![subtopology("0", &["g-two"])]), ..joining(group, "new") },
    );
    beat(
        d,
        "another topology",
        &Beat { topology: topology(0, vec![subtopology("0", &["g-four"])]), ..joining(group, "other") },
    );
    beat(d, "the second joins", &joining(group, "b"));
    describe(d, "a member that must give back", &[group]);
    beat(d, "the first hears of it", &at("a", 2));
    beat(d, "the first has both still", &owning(at("a", 2), &[("0", &[0, 1])]));
    beat(d, "the first gave back", &owning(at("a", 2), &[("0", &[0])]));
    describe(d, "one is done", &[group]);
    beat(d, "previous epoch and too much", &owning(at("a", 2), &[("0", &[0, 1])]));
    describe(d, "unreleased", &[group]);
    beat(
        d,
        "the last joins with an endpoint",
        &Beat {
            user_endpoint: Some(Endpoint { host: "here".to_owned(), port: 7 }),
            client_tags: Some(vec![KeyValue { key: "zone".to_owned(), value: "z".to_owned() }]),
            ..joining(group, "c")
        },
    );
    describe(d, "three members of two tasks", &[group]);
    for member in ["a", "b", "c"] {
        beat(d, "leaves", &at(member, -1));
    }
    describe(d, "nobody", &[group]);
    beat(d, "one comes", &joining("t-end", "a"));
    beat(d, "asks for an end", &Beat { shutdown_application: true, ..beating("t-end", "a", 2) });
    beat(d, "hears of the end", &joining("t-end", "b"));
}
