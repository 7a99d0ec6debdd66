//! ShareGroupHeartbeat, ShareGroupDescribe, and the offsets of share groups.

use taccola_wire::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use taccola_wire::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
};
use taccola_wire::messages::*;

use super::super::{Differential, equal};
use super::{short, strings};

type Beat = ShareGroupHeartbeatRequest;
const V: i16 = 1;

pub(super) fn run(d: &mut Differential) {
    malformed(d);
    life(d);
    offsets(d);
    describe(d, "no group", &[]);
    describe(d, "an empty id", &[""]);
    describe(d, "what never was", &["s-never", "s-life", "s-never"]);
}

pub(super) fn joining(group: &str, member: &str, topics: &[&str]) -> Beat {
    Beat {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        subscribed_topic_names: Some(strings(topics)),
        ..Default::default()
    }
}

pub(super) fn beating(group: &str, member: &str, member_epoch: i32) -> Beat {
    Beat { group_id: group.to_owned(), member_id: member.to_owned(), member_epoch, ..Default::default() }
}

fn replied(response: &mut ShareGroupHeartbeatResponse) {
    equal::message(response.error_code, &mut response.error_message);
    if let Some(assignment) = &mut response.assignment {
        assignment.topic_partitions.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        assignment.topic_partitions.sort_by(|a, b| a.partitions.cmp(&b.partitions));
    }
}

pub(super) fn beat(d: &mut Differential, case: &str, request: &Beat) {
    d.at(case, V, request, replied);
}

fn sorted(response: &mut ShareGroupDescribeResponse) {
    response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    for group in &mut response.groups {
        equal::message(group.error_code, &mut group.error_message);
        group.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        for member in &mut group.members {
            member.subscribed_topic_names.sort();
            member.assignment.topic_partitions.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
            member.assignment.topic_partitions.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        }
    }
}

pub(super) fn describe(d: &mut Differential, case: &str, groups: &[&str]) {
    let request = ShareGroupDescribeRequest { group_ids: strings(groups), include_authorized_operations: true };
    d.at(case, V, &request, sorted);
}

fn malformed(d: &mut Differential) {
    let good = || joining("s-bad", "m", &["g-two"]);
    let epoch = |member_epoch| Beat { member_epoch, ..good() };
    let cases = [
        ("no group", Beat { group_id: String::new(), ..good() }),
        ("blank group", Beat { group_id: " ".to_owned(), ..good() }),
        ("no member", Beat { member_id: String::new(), ..good() }),
        ("blank member", Beat { member_id: " ".to_owned(), ..good() }),
        ("long member", Beat { member_id: "m".repeat(500), ..good() }),
        ("member of 37", Beat { member_id: "m".repeat(37), ..good() }),
        ("member of 36", Beat { member_id: "m".repeat(36), group_id: "s-36".to_owned(), ..good() }),
        ("no rack", Beat { rack_id: Some(String::new()), ..good() }),
        ("blank rack", Beat { rack_id: Some(" ".to_owned()), ..good() }),
        ("no subscription", Beat { subscribed_topic_names: None, ..good() }),
        ("epoch -2", epoch(-2)),
        ("lowest epoch", epoch(i32::MIN)),
        ("epoch of nobody", epoch(1)),
        ("leaves what is not there", epoch(-1)),
    ];
    for (case, request) in &cases {
        beat(d, &format!("{case} {}", short(&request.group_id)), request);
    }
    describe(d, "nothing stayed", &["s-bad"]);
}

/// Beats until the member has so many partitions.
fn settle(d: &mut Differential, group: &str, member: &str, count: usize) {
    let describe = ShareGroupDescribeRequest { group_ids: strings(&[group]), ..Default::default() };
    d.prepare("the partitions are assigned", |conn| {
        let described = conn.ask(&describe, V).groups.remove(0);
        let Some(found) = described.members.iter().find(|m| m.member_id == member) else { return false };
        let partitions: usize = found.assignment.topic_partitions.iter().map(|t| t.partitions.len()).sum();
        if partitions != count {
            conn.ask(&beating(group, member, found.member_epoch), V);
        }
        partitions == count
    });
}

fn life(d: &mut Differential) {
    let group = "s-life";
    beat(d, "the first joins", &joining(group, "a", &["g-two"]));
    settle(d, group, "a", 2);
    describe(d, "one member", &[group]);
    beat(d, "stays", &beating(group, "a", 3));
    beat(d, "previous epoch", &beating(group, "a", 2));
    beat(d, "older epoch", &beating(group, "a", 1));
    beat(d, "future epoch", &beating(group, "a", 9));
    beat(d, "stranger", &beating(group, "b", 1));
    beat(d, "stranger leaves", &beating(group, "b", -1));
    beat(d, "joins again", &joining(group, "a", &["g-two"]));
    beat(d, "the second joins", &joining(group, "b", &["g-two"]));
    beat(d, "the first hears of it", &beating(group, "a", 3));
    describe(d, "two members", &[group]);
    beat(d, "the same subscription", &Beat { member_epoch: 4, ..joining(group, "a", &["g-two"]) });
    beat(d, "a missing topic", &Beat { member_epoch: 4, ..joining(group, "a", &["g-two", "g-missing"]) });
    beat(d, "no topics", &Beat { member_epoch: 5, ..joining(group, "b", &[]) });
    beat(d, "a rack", &Beat { rack_id: Some("r".to_owned()), ..beating(group, "a", 5) });
    describe(d, "different subscriptions", &[group]);
    beat(d, "one leaves", &beating(group, "b", -1));
    beat(d, "one leaves again", &beating(group, "b", -1));
    beat(d, "the other goes on", &beating(group, "a", 6));
    beat(d, "the last leaves", &beating(group, "a", -1));
    describe(d, "nobody", &[group]);
    beat(d, "nobody stays", &beating(group, "a", 7));
    beat(d, "comes back", &joining(group, "a", &["g-two"]));
    beat(d, "and goes", &beating(group, "a", -1));
}

fn offsets(d: &mut Differential) {
    let describe = |d: &mut Differential, case: &str, group: &str, topics: Option<&[(&str, &[i32])]>| {
        let topic = |(name, partitions): &(&str, &[i32])| DescribeShareGroupOffsetsRequestTopic {
            topic_name: (*name).to_owned(),
            partitions: partitions.to_vec(),
        };
        let row = DescribeShareGroupOffsetsRequestGroup {
            group_id: group.to_owned(),
            topics: topics.map(|topics| topics.iter().map(topic).collect()),
        };
        d.all(case, 0..=1, &DescribeShareGroupOffsetsRequest { groups: vec![row] }, |response| {
            for group in &mut response.groups {
                equal::message(group.error_code, &mut group.error_message);
                group.topics.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
                for topic in &mut group.topics {
                    topic.partitions.sort_by_key(|p| p.partition_index);
                    topic.partitions.iter_mut().for_each(|p| equal::message(p.error_code, &mut p.error_message));
                }
            }
        });
    };
    let alter = |d: &mut Differential, case: &str, group: &str, topic: &str, rows: &[(i32, i64)]| {
        let row = |(partition_index, start_offset): &(i32, i64)| AlterShareGroupOffsetsRequestPartition {
            partition_index: *partition_index,
            start_offset: *start_offset,
        };
        let topics = vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: topic.to_owned(),
            partitions: rows.iter().map(row).collect(),
        }];
        let request = AlterShareGroupOffsetsRequest { group_id: group.to_owned(), topics };
        d.at(case, 0, &request, |response| {
            equal::message(response.error_code, &mut response.error_message);
            for topic in &mut response.responses {
                topic.partitions.sort_by_key(|p| p.partition_index);
                topic.partitions.iter_mut().for_each(|p| equal::message(p.error_code, &mut p.error_message));
            }
        });
    };
    let delete = |d: &mut Differential, case: &str, group: &str, topics: &[&str]| {
        let rows = topics.iter().map(|name| DeleteShareGroupOffsetsRequestTopic { topic_name: (*name).to_owned() });
        let request = DeleteShareGroupOffsetsRequest { group_id: group.to_owned(), topics: rows.collect() };
        d.at(case, 0, &request, |response| {
            equal::message(response.error_code, &mut response.error_message);
            response.responses.iter_mut().for_each(|t| equal::message(t.error_code, &mut t.error_message));
            response.responses.sort_by(|a, b| a.topic_name.cmp(&b.topic_name));
        });
    };
    describe(d, "all of a group", "s-life", None);
    describe(
        d,
        "some, and what is not there",
        "s-life",
        Some(&[("g-two", &[0, 1, 7]), ("g-one", &[0]), ("g-missing", &[0])]),
    );
    describe(d, "none", "s-life", Some(&[]));
    describe(d, "of nobody", "s-never", None);
    describe(d, "of nobody, some", "s-never", Some(&[("g-two", &[0])]));
    describe(d, "of no name", "", None);
    alter(d, "of an empty group", "s-life", "g-two", &[(0, 0), (1, 5), (7, 0)]);
    alter(d, "of a missing topic", "s-life", "g-missing", &[(0, 0)]);
    alter(d, "of nothing", "s-life", "g-two", &[]);
    alter(d, "of nobody", "s-made", "g-one", &[(0, 3)]);
    alter(d, "of no name", "", "g-one", &[(0, 3)]);
    alter(d, "negative", "s-life", "g-two", &[(0, -1), (1, -7)]);
    describe(d, "after altering", "s-life", None);
    describe(d, "of the one that was made", "s-made", None);
    delete(d, "of nobody", "s-never", &["g-two"]);
    delete(d, "of no name", "", &["g-two"]);
    delete(d, "of a missing topic", "s-life", &["g-missing", "g-one"]);
    delete(d, "of nothing", "s-life", &[]);
    delete(d, "of a topic", "s-life", &["g-two"]);
    delete(d, "of a topic again", "s-life", &["g-two"]);
    describe(d, "after deleting", "s-life", None);
    beat(d, "a member comes", &joining("s-made", "m", &["g-one"]));
    alter(d, "with a member", "s-made", "g-one", &[(0, 0)]);
    delete(d, "with a member", "s-made", &["g-one"]);
}
