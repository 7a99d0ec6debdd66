//! The file `quorum-state` in the metadata log's folder: which epoch this voter is in and whom it voted for.
//!
//! One JSON object on one line, without a line end, the fields of `QuorumStateData.json` and `data_version`: 0 with a
//! static quorum (kraft.version 0), 1 with a dynamic one. It is written to `quorum-state.tmp`, flushed and renamed. Answers
//! to `FileQuorumStateStore`.

use taccola_base::Uuid;

use crate::error::MetaError;

pub const FILE_NAME: &str = "quorum-state";
/// Longest file that is read, in bytes, inclusive.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumState {
    /// 0 or 1.
    pub data_version: i16,
    /// Version 0 only.
    pub cluster_id: String,
    /// -1: none known.
    pub leader_id: i32,
    pub leader_epoch: i32,
    /// -1: no vote in this epoch.
    pub voted_id: i32,
    /// Version 1 only.
    pub voted_directory_id: Uuid,
    /// Version 0 only; always 0.
    pub applied_offset: i64,
    /// Version 0 only.
    pub current_voters: Vec<i32>,
}

impl QuorumState {
    /// This node leads the epoch, in a static quorum.
    pub fn static_leader(node_id: i32, epoch: i32, voters: &[i32]) -> Self {
        Self { data_version: 0, current_voters: voters.to_vec(), ..Self::leader(node_id, epoch) }
    }

    /// This node leads the epoch, in a dynamic quorum.
    pub fn dynamic_leader(node_id: i32, epoch: i32) -> Self {
        Self { data_version: 1, ..Self::leader(node_id, epoch) }
    }

    fn leader(node_id: i32, epoch: i32) -> Self {
        Self {
            data_version: 0,
            cluster_id: String::new(),
            leader_id: node_id,
            leader_epoch: epoch,
            voted_id: -1,
            voted_directory_id: Uuid::ZERO,
            applied_offset: 0,
            current_voters: Vec::new(),
        }
    }

    pub fn format(&self) -> String {
        let Self { leader_id, leader_epoch, voted_id, .. } = self;
        if self.data_version == 0 {
            let voters: Vec<String> = self.current_voters.iter().map(|v| format!("{{\"voterId\":{v}}}")).collect();
            return format!(
                "{{\"clusterId\":{},\"leaderId\":{leader_id},\"leaderEpoch\":{leader_epoch},\"votedId\":{voted_id},\
                 \"appliedOffset\":{},\"currentVoters\":[{}],\"data_version\":0}}",
                serde_json::Value::from(self.cluster_id.as_str()),
                self.applied_offset,
                voters.join(",")
            );
        }
        format!(
            "{{\"leaderId\":{leader_id},\"leaderEpoch\":{leader_epoch},\"votedId\":{voted_id},\
             \"votedDirectoryId\":\"{}\",\"data_version\":1}}",
            self.voted_directory_id
        )
    }

    pub fn parse(text: &str) -> Result<Self, MetaError> {
        let bad = |reason: String| MetaError::QuorumState(reason);
        if text.len() > FILE_BYTES_MAX {
            return Err(bad(format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len())));
        }
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|e| bad(format!("the file is not JSON: {e}")))?;
        let number = |name: &str| {
            json.get(name).and_then(serde_json::Value::as_i64).ok_or_else(|| bad(format!("it has no number {name}")))
        };
        let int = |name: &str| {
            number(name).and_then(|n| i32::try_from(n).map_err(|_| bad(format!("{name} is out of range"))))
        };
        let data_version = match number("data_version")? {
            0 => 0,
            1 => 1,
            other => return Err(bad(format!("data version {other} is not known; it was written by a later release"))),
        };
        let mut state =
            Self { data_version, voted_id: int("votedId")?, ..Self::leader(int("leaderId")?, int("leaderEpoch")?) };
        if state.leader_epoch < 0 {
            return Err(bad(format!("leader epoch {} is negative", state.leader_epoch)));
        }
        let string = |name: &str| json.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        if data_version == 1 {
            let id = string("votedDirectoryId");
            state.voted_directory_id = id.parse().map_err(|e| bad(format!("votedDirectoryId: {e}")))?;
            return Ok(state);
        }
        state.cluster_id = string("clusterId").to_owned();
        state.applied_offset = json.get("appliedOffset").and_then(serde_json::Value::as_i64).unwrap_or(0);
        if let Some(voters) = json.get("currentVoters").and_then(serde_json::Value::as_array) {
            let id = |v: &serde_json::Value| v.get("voterId")?.as_i64()?.try_into().ok();
            let ids: Option<Vec<i32>> = voters.iter().map(id).collect();
            state.current_voters = ids.ok_or_else(|| bad("currentVoters names something else than ids".into()))?;
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Kafka 4.3.1.
    const JVM_STATIC: &str = r#"{"clusterId":"","leaderId":0,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":0}],"data_version":0}"#;

    #[test]
    fn it_is_kafkas_file() {
        let state = QuorumState::static_leader(0, 1, &[0]);
        assert_eq!(QuorumState::parse(JVM_STATIC), Ok(state.clone()));
        assert_eq!(state.format(), JVM_STATIC);
        let dynamic = QuorumState::dynamic_leader(3, 7);
        assert_eq!(QuorumState::parse(&dynamic.format()), Ok(dynamic));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("", "JSON"),
            ("{}", "data_version"),
            (r#"{"data_version":2}"#, "later release"),
            (r#"{"leaderId":0,"leaderEpoch":99999999999,"votedId":-1,"data_version":0}"#, "out of range"),
            (r#"{"leaderId":0,"leaderEpoch":-1,"votedId":-1,"data_version":0}"#, "negative"),
            (
                r#"{"leaderId":0,"leaderEpoch":1,"votedId":-1,"votedDirectoryId":"x","data_version":1}"#,
                "votedDirectoryId",
            ),
        ] {
            let error = QuorumState::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
