//! ShareFetch and ShareAcknowledge: what members of share groups do with records.

use taccola_base::Uuid;
use taccola_wire::messages::share_acknowledge_request as acknowledging;
use taccola_wire::messages::share_fetch_request::{AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic};
use taccola_wire::messages::share_fetch_response::AcquiredRecords;
use taccola_wire::messages::{ShareAcknowledgeRequest, ShareFetchRequest, ShareFetchResponse};

use super::data::{self, in_words};
use super::share;
use super::world::{World, about, below, pick, version};
use crate::ledger::Rng;

pub fn step(world: &mut World, rng: &mut Rng) {
    // Most of what happens, happens in the group that begins at the beginning.
    let (group, member) = (usize::from(rng.one_in(6)), below(rng, 2));
    if world.shares[group].members[member].epoch == 0 && rng.below(4) > 0 {
        return share::heartbeat(world, rng, group, member);
    }
    match rng.below(16) {
        0..4 => data::produce(world, rng),
        4..9 => fetch(world, rng, group, member),
        9..14 => acknowledge(world, rng, group, member),
        14 => share::offsets(world, rng, group),
        _ => share::heartbeat(world, rng, group, member),
    }
}

/// First and last offset, both inclusive, and what becomes of them.
type Ack = (i64, i64, Vec<i8>);

/// What a member says of what it was given, and now and then of what it was not.
fn acks(world: &mut World, rng: &mut Rng, group: usize, member: usize, renew: bool) -> Option<(String, i32, Vec<Ack>)> {
    let given = &mut world.shares[group].members[member].given;
    if given.is_empty() {
        let topic = world.some_topic(rng);
        return rng.one_in(6).then(|| (topic.name, 0, vec![(0, 0, vec![1])]));
    }
    let at = below(rng, given.len());
    let (topic, partition, first, last) = given[at].clone();
    let mut rows = Vec::new();
    let mut from = first;
    while from <= last && rows.len() < 4 {
        let to = (from + i64::try_from(rng.below(4)).expect("small")).min(last);
        let kinds: &[i8] = if renew { &[4, 4, 1] } else { &[1, 1, 2, 2, 3, 0] };
        let count = usize::try_from(to - from + 1).expect("few");
        let types = if rng.one_in(3) { (0..count).map(|_| pick(rng, kinds)).collect() } else { vec![pick(rng, kinds)] };
        rows.push((from, to, types));
        from = to + 1;
        if rng.one_in(4) {
            from += 1;
        }
    }
    match rng.below(16) {
        0 => rows.push((last + 1, last + 2, vec![1])),
        1 => rows.push((last, first - 1, vec![1])),
        2 => rows[0].2 = vec![pick(rng, &[5, -1, 4])],
        3 => rows[0].2 = vec![1; 9],
        4 => rows.reverse(),
        _ => {}
    }
    // What is told is mostly done with; now and then it is told again.
    let given = &mut world.shares[group].members[member].given;
    if !renew && !rng.one_in(4) {
        if from <= last { given[at].2 = from } else { drop(given.remove(at)) }
    }
    Some((topic, partition, rows))
}

fn fetch(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let version = version(rng, 1..=2);
    let who = world.shares[group].members[member].clone();
    let renew = version >= 2 && rng.one_in(10);
    let acks = if who.session > 0 && rng.one_in(3) { acks(world, rng, group, member, renew) } else { None };
    let mut topics: Vec<FetchTopic> = Vec::new();
    if who.session == 0 || rng.one_in(6) {
        for name in &who.topics {
            let Some(topic) = world.topics.iter().find(|topic| topic.name == *name && topic.exists).cloned() else {
                continue;
            };
            let partitions =
                (0..topic.partitions).map(|partition_index| FetchPartition { partition_index, ..Default::default() });
            if topics.iter().all(|known| known.topic_id != topic.id) {
                topics.push(FetchTopic { topic_id: topic.id, partitions: partitions.collect() });
            }
        }
    }
    if let Some((name, partition_index, rows)) = acks {
        let batches = rows.into_iter().map(|(first_offset, last_offset, acknowledge_types)| AcknowledgementBatch {
            first_offset,
            last_offset,
            acknowledge_types,
        });
        let id = world.topics.iter().find(|topic| topic.name == name).map_or(Uuid::ZERO, |topic| topic.id);
        let row = FetchPartition { partition_index, acknowledgement_batches: batches.collect(), ..Default::default() };
        topics.retain(|topic| topic.topic_id != id);
        topics.push(FetchTopic { topic_id: id, partitions: vec![row] });
    }
    let mut forgotten = Vec::new();
    if rng.one_in(20) && who.session > 0 {
        let topic = world.some_topic(rng);
        forgotten.push(ForgottenTopic { topic_id: topic.id, partitions: vec![0] });
    }
    let (max_records, batch_size) = pick(rng, &[(500, 500), (500, 500), (1, 1), (3, 3), (5, 2), (2, 5)]);
    // Partitions that are new to the broker are loaded in the background: who asks for them waits.
    let new = !topics.is_empty();
    let request = ShareFetchRequest {
        group_id: Some(world.shares[group].id.clone()),
        member_id: Some(who.id.clone()),
        share_session_epoch: if rng.one_in(40) { -1 } else { about(rng, who.session) },
        max_wait_ms: if new { 300 } else { 0 },
        min_bytes: if new { 1 << 20 } else { 0 },
        max_bytes: 1 << 20,
        max_records,
        batch_size,
        share_acquire_mode: if version >= 2 { pick(rng, &[0, 0, 1]) } else { 0 },
        is_renew_ack: renew,
        topics,
        forgotten_topics_data: forgotten,
        ..Default::default()
    };
    let known = world.topics.clone();
    let name =
        move |id: Uuid| known.iter().find(|topic| topic.id == id).map(|topic| topic.name.clone()).unwrap_or_default();
    let reply = world.ask(&request, version, |reply| equal(reply, &name));
    let Some(reply) = reply else { return };
    let member = &mut world.shares[group].members[member];
    if reply.error_code != 0 {
        if [122, 123].contains(&reply.error_code) {
            member.session = 0;
        }
        return;
    }
    member.session = if request.share_session_epoch == -1 { 0 } else { request.share_session_epoch.wrapping_add(1) };
    let mut new = Vec::new();
    for topic in reply.responses {
        for row in topic.partitions {
            let given = merged(row.acquired_records);
            let name = name(topic.topic_id);
            new.extend(
                given.into_iter().map(|it| (name.clone(), row.partition_index, it.first_offset, it.last_offset)),
            );
        }
    }
    new.sort();
    member.given.extend(new);
}

/// Neighbours that were delivered as often as each other are one.
fn merged(rows: Vec<AcquiredRecords>) -> Vec<AcquiredRecords> {
    let mut merged: Vec<AcquiredRecords> = Vec::new();
    for row in rows {
        match merged.last_mut() {
            Some(last) if last.last_offset + 1 == row.first_offset && last.delivery_count == row.delivery_count => {
                last.last_offset = row.last_offset;
            }
            _ => merged.push(row),
        }
    }
    merged
}

fn equal(reply: &mut ShareFetchResponse, name: &impl Fn(Uuid) -> String) {
    reply.error_message = None;
    reply.responses.sort_by_key(|topic| name(topic.topic_id));
    for topic in &mut reply.responses {
        topic.partitions.sort_by_key(|row| row.partition_index);
        for row in &mut topic.partitions {
            (row.error_message, row.acknowledge_error_message) = (None, None);
            row.records = in_words(&row.records);
            row.acquired_records = merged(std::mem::take(&mut row.acquired_records));
        }
        // Kafka names what it could look at in time, also when that gave nothing.
        topic.partitions.retain(|row| {
            !row.acquired_records.is_empty()
                || !row.records.is_empty()
                || row.error_code != 0
                || row.acknowledge_error_code != 0
        });
    }
    reply.responses.retain(|topic| !topic.partitions.is_empty());
}

fn acknowledge(world: &mut World, rng: &mut Rng, group: usize, member: usize) {
    let version = version(rng, 1..=2);
    let renew = version >= 2 && rng.one_in(6);
    let who = world.shares[group].members[member].clone();
    if who.session == 0 && rng.below(4) > 0 {
        return fetch(world, rng, group, member);
    }
    let Some((name, partition_index, rows)) = acks(world, rng, group, member, renew) else {
        return fetch(world, rng, group, member);
    };
    let batches = rows.into_iter().map(|(first_offset, last_offset, acknowledge_types)| {
        acknowledging::AcknowledgementBatch { first_offset, last_offset, acknowledge_types }
    });
    let row = acknowledging::AcknowledgePartition { partition_index, acknowledgement_batches: batches.collect() };
    let topic_id = world.topics.iter().find(|topic| topic.name == name).map_or(Uuid::ZERO, |topic| topic.id);
    let request = ShareAcknowledgeRequest {
        group_id: Some(world.shares[group].id.clone()),
        member_id: Some(who.id.clone()),
        share_session_epoch: if rng.one_in(30) { -1 } else { about(rng, who.session) },
        is_renew_ack: if version < 2 { false } else { renew != rng.one_in(12) },
        topics: vec![acknowledging::AcknowledgeTopic { topic_id, partitions: vec![row] }],
    };
    let reply = world.ask(&request, version, |reply| {
        reply.error_message = None;
        for row in reply.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            row.error_message = None;
        }
    });
    let Some(reply) = reply else { return };
    let member = &mut world.shares[group].members[member];
    match reply.error_code {
        0 if request.share_session_epoch == -1 => (member.session, member.given) = (0, Vec::new()),
        0 => member.session = request.share_session_epoch.wrapping_add(1),
        122 | 123 => member.session = 0,
        _ => {}
    }
}
