//! Client quotas, ACLs, SCRAM credentials and delegation tokens, as their records say them. Answers to
//! `ClientQuotasImage`, `AclsImage`, `ScramImage`, `DelegationTokenImage`.

use std::collections::BTreeMap;

use bytes::Bytes;
use taccola_base::Uuid;
use taccola_wire::messages::client_quota_record::EntityData;
use taccola_wire::messages::{
    AccessControlEntryRecord, ClientQuotaRecord, DelegationTokenRecord, UserScramCredentialRecord,
};

use crate::record::VersionedRecord;

/// Who a quota is for: pairs of entity type (`user`, `client-id`, `ip`) and name (`None`: the default), by type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaEntity(Vec<(String, Option<String>)>);

impl QuotaEntity {
    /// Sorts the pairs; a type that comes twice keeps its last name, as in Kafka's map.
    pub fn new(pairs: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        Self(pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }

    pub fn pairs(&self) -> &[(String, Option<String>)] {
        &self.0
    }

    pub(super) fn records(&self, quotas: &BTreeMap<String, f64>, out: &mut Vec<VersionedRecord>) {
        out.extend(quotas.iter().map(|(key, value)| {
            let entity = self.0.iter().map(|(t, n)| EntityData { entity_type: t.clone(), entity_name: n.clone() });
            let record = ClientQuotaRecord { entity: entity.collect(), key: key.clone(), value: *value, remove: false };
            VersionedRecord::new(record, 0)
        }));
    }
}

/// One access control entry, with Kafka's ids for the enumerations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclBinding {
    pub resource_type: i8,
    pub resource_name: String,
    pub pattern_type: i8,
    pub principal: String,
    pub host: String,
    pub operation: i8,
    pub permission_type: i8,
}

impl AclBinding {
    pub(crate) fn from_record(r: &AccessControlEntryRecord) -> Self {
        Self {
            resource_type: r.resource_type,
            resource_name: r.resource_name.clone(),
            pattern_type: r.pattern_type,
            principal: r.principal.clone(),
            host: r.host.clone(),
            operation: r.operation,
            permission_type: r.permission_type,
        }
    }

    pub(super) fn record(&self, id: Uuid) -> VersionedRecord {
        let record = AccessControlEntryRecord {
            id,
            resource_type: self.resource_type,
            resource_name: self.resource_name.clone(),
            pattern_type: self.pattern_type,
            principal: self.principal.clone(),
            host: self.host.clone(),
            operation: self.operation,
            permission_type: self.permission_type,
        };
        VersionedRecord::new(record, 0)
    }
}

/// What the broker keeps of a user's password. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    pub salt: Bytes,
    pub stored_key: Bytes,
    pub server_key: Bytes,
    pub iterations: i32,
}

impl std::fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramCredential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl ScramCredential {
    pub(crate) fn from_record(r: &UserScramCredentialRecord) -> Self {
        // Copied: a slice would keep the whole batch that it was read from.
        let own = |b: &Bytes| Bytes::copy_from_slice(b);
        Self {
            salt: own(&r.salt),
            stored_key: own(&r.stored_key),
            server_key: own(&r.server_key),
            iterations: r.iterations,
        }
    }

    pub(super) fn record(&self, mechanism: i8, user: &str) -> VersionedRecord {
        let record = UserScramCredentialRecord {
            name: user.to_owned(),
            mechanism,
            salt: self.salt.clone(),
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
            iterations: self.iterations,
        };
        VersionedRecord::new(record, 0)
    }
}

/// A delegation token without its secret, which is derived. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationToken {
    pub owner: String,
    pub requester: String,
    pub renewers: Vec<String>,
    pub issue_timestamp: i64,
    pub max_timestamp: i64,
    pub expiration_timestamp: i64,
}

impl DelegationToken {
    pub(crate) fn from_record(r: &DelegationTokenRecord) -> Self {
        Self {
            owner: r.owner.clone(),
            requester: r.requester.clone(),
            renewers: r.renewers.clone(),
            issue_timestamp: r.issue_timestamp,
            max_timestamp: r.max_timestamp,
            expiration_timestamp: r.expiration_timestamp,
        }
    }

    pub(super) fn record(&self, token_id: &str) -> VersionedRecord {
        let record = DelegationTokenRecord {
            owner: self.owner.clone(),
            requester: self.requester.clone(),
            renewers: self.renewers.clone(),
            issue_timestamp: self.issue_timestamp,
            max_timestamp: self.max_timestamp,
            expiration_timestamp: self.expiration_timestamp,
            token_id: token_id.to_owned(),
        };
        VersionedRecord::new(record, 0)
    }
}
