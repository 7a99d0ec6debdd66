//! How a trace shows replies, records and timers.

use bytes::Bytes;
use taccola_coord::{CoordinatorRecord, Response, TimerKey};
use taccola_wire::codec::Message;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::describe_groups_response::DescribedGroup;
use taccola_wire::messages::list_groups_response::ListedGroup;
use taccola_wire::messages::{GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};

/// The UUIDs of the scripts are numbers: `CLIENT#7` stands for such a member id.
const UUID: &str = "-00000000-0000-4000-8000-0000000000";

pub(crate) fn shorten(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(UUID) {
        let (before, uuid) = rest.split_at(at);
        let (number, after) = uuid[UUID.len()..].split_at(2);
        out.push_str(before);
        out.push_str(&format!("#{}", u8::from_str_radix(number, 16).unwrap()));
        rest = after;
    }
    out + rest
}

pub(crate) fn lengthen(short: &str) -> String {
    match short.split_once('#') {
        Some((client, number)) => format!("{client}{UUID}{:02x}", number.parse::<u8>().unwrap()),
        None => short.to_owned(),
    }
}

pub(crate) fn error(name: &str) -> ErrorCode {
    ErrorCode::ALL.iter().copied().find(|e| e.name() == name).unwrap_or_else(|| panic!("no error {name}"))
}

pub(crate) fn code(code: i16) -> &'static str {
    ErrorCode::from_code(code).name()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// `\0` and the like in a script.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\0", "\0").replace("\\n", "\n")
}

pub(crate) fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub(crate) fn timer(key: &TimerKey) -> String {
    match key {
        TimerKey::Session { group, member } => format!("session {group}/{member}"),
        TimerKey::Join { group } => format!("join {group}"),
        TimerKey::Sync { group } => format!("sync {group}"),
        TimerKey::ModernSession { group, member } => format!("modern session {group}/{member}"),
        TimerKey::ModernRebalance { group, member } => format!("modern rebalance {group}/{member}"),
        TimerKey::ModernGroup { group } => format!("modern group {group}"),
        TimerKey::Expiration => "expiration".to_owned(),
    }
}

pub(crate) fn response(response: &Response) -> String {
    match response {
        Response::JoinGroup(r) => {
            let members: Vec<String> = r
                .members
                .iter()
                .map(|m| match &m.group_instance_id {
                    Some(instance) => format!("{}/{instance}", m.member_id),
                    None => m.member_id.clone(),
                })
                .collect();
            if r.error_code != 0 {
                return format!("{} member={:?} protocol={:?}", code(r.error_code), r.member_id, r.protocol_name);
            }
            format!(
                "ok generation={} member={} leader={} protocol={}/{} members={members:?}{}",
                r.generation_id,
                r.member_id,
                r.leader,
                r.protocol_type.as_deref().unwrap_or("null"),
                r.protocol_name.as_deref().unwrap_or("null"),
                if r.skip_assignment { " skip-assignment" } else { "" },
            )
            .replace('"', "")
        }
        Response::SyncGroup(r) if r.error_code != 0 => code(r.error_code).to_owned(),
        Response::SyncGroup(r) => format!(
            "ok assignment='{}' protocol={}/{}",
            text(&r.assignment),
            r.protocol_type.as_deref().unwrap_or("null"),
            r.protocol_name.as_deref().unwrap_or("null")
        ),
        Response::LeaveGroup(r) => {
            let rows: Vec<String> = r
                .members
                .iter()
                .map(|m| {
                    let instance = m.group_instance_id.as_ref().map(|i| format!("/{i}")).unwrap_or_default();
                    format!(" {}{instance}={}", m.member_id, code(m.error_code))
                })
                .collect();
            format!("{}{}", code(r.error_code), rows.concat())
        }
        Response::OffsetCommit(r) => {
            let rows = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
            rows.map(|(t, p)| format!("{}-{}={}", t.name, p.partition_index, code(p.error_code)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Response::OffsetFetch(r) => {
            let rows = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
            let rows: Vec<String> = rows
                .map(|(t, p)| {
                    let error = if p.error_code == 0 { String::new() } else { format!(" {}", code(p.error_code)) };
                    let metadata = p.metadata.as_deref().unwrap_or("null").escape_debug();
                    let epoch = p.committed_leader_epoch;
                    format!(" {}-{}={}@{epoch} '{metadata}'{error}", t.name, p.partition_index, p.committed_offset)
                })
                .collect();
            format!("{}{}", code(r.error_code), rows.concat())
        }
        Response::OffsetDelete(r) => {
            let rows = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
            let rows = rows.map(|(t, p)| format!(" {}-{}={}", t.name, p.partition_index, code(p.error_code)));
            format!("{}{}", code(r.error_code), rows.collect::<String>())
        }
        Response::DeleteGroups(rows) => {
            rows.iter().map(|r| format!("{}={}", r.group_id, code(r.error_code))).collect::<Vec<_>>().join(" ")
        }
        Response::ConsumerGroupHeartbeat(r) => super::consumer::reply(r),
        Response::Share(r) => super::share::reply(r),
        other => format!("{other:?}"),
    }
}

pub(crate) fn described(row: &DescribedGroup) -> String {
    let members: Vec<String> = row
        .members
        .iter()
        .map(|m| {
            let instance = m.group_instance_id.as_ref().map(|i| format!("/{i}")).unwrap_or_default();
            let metadata = m.member_metadata.len();
            format!(" {}{instance} metadata={metadata} assignment='{}'", m.member_id, text(&m.member_assignment))
        })
        .collect();
    let message = row.error_message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default();
    format!(
        "{}: {} {}{message} {}/{}{}",
        row.group_id,
        code(row.error_code),
        row.group_state,
        row.protocol_type,
        row.protocol_data,
        members.concat()
    )
}

pub(crate) fn listed(row: &ListedGroup) -> String {
    format!("{} {} {} '{}'", row.group_id, row.group_type, row.group_state, row.protocol_type)
}

pub(crate) fn record(record: &CoordinatorRecord) -> String {
    let key_type = i16::from_be_bytes([record.key[0], record.key[1]]);
    let key = record.key.slice(2..);
    let value = record.value.as_ref().map(|v| (i16::from_be_bytes([v[0], v[1]]), v.slice(2..)));
    match key_type {
        0 | 1 => {
            let key = OffsetCommitKey::from_bytes(key, 0).unwrap();
            let name = format!("offset {} {}-{}", key.group, key.topic, key.partition);
            let Some((version, body)) = value else { return format!("{name} tombstone") };
            let value = OffsetCommitValue::from_bytes(body, version).unwrap();
            let expire = if value.expire_timestamp == -1 {
                String::new()
            } else {
                format!(" expires {}", value.expire_timestamp)
            };
            let id = if value.topic_id.is_zero() { String::new() } else { format!(" id {}", value.topic_id) };
            format!(
                "{name} v{version} {}@{} '{}'{expire}{id}",
                value.offset,
                value.leader_epoch,
                value.metadata.escape_debug()
            )
        }
        2 => {
            let name = format!("group {}", GroupMetadataKey::from_bytes(key, 0).unwrap().group);
            let Some((version, body)) = value else { return format!("{name} tombstone") };
            let value = GroupMetadataValue::from_bytes(body, version).unwrap();
            let members: Vec<String> = value
                .members
                .iter()
                .map(|m| {
                    let instance = m.group_instance_id.as_ref().map(|i| format!("/{i}")).unwrap_or_default();
                    format!(" {}{instance}='{}'", m.member_id, text(&m.assignment))
                })
                .collect();
            format!(
                "{name} v{version} generation={} {}/{} leader={}{}",
                value.generation,
                value.protocol_type,
                value.protocol.as_deref().unwrap_or("null"),
                value.leader.as_deref().unwrap_or("null"),
                members.concat()
            )
        }
        other => format!("type {other}, {} + {} bytes", record.key.len(), record.value.as_ref().map_or(0, Bytes::len)),
    }
}
