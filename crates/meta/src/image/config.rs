//! Dynamic configs per resource. Answers to `ConfigurationsImage` and `ConfigResource`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use taccola_wire::messages::ConfigRecord;

use crate::chunk_map::ChunkMap;
use crate::record::VersionedRecord;

/// What a config belongs to, with Kafka's ids (`ConfigResource.Type`). An id of a later release is kept as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
    Other(i8),
}

impl ConfigResourceType {
    pub fn id(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
            Self::Other(id) => id,
        }
    }

    pub fn from_id(id: i8) -> Self {
        match id {
            2 => Self::Topic,
            4 => Self::Broker,
            8 => Self::BrokerLogger,
            16 => Self::ClientMetrics,
            32 => Self::Group,
            other => Self::Other(other),
        }
    }
}

/// One resource; a broker resource with an empty name is the cluster-wide default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    pub resource_type: ConfigResourceType,
    pub name: Arc<str>,
}

impl ConfigResource {
    pub fn new(resource_type: ConfigResourceType, name: impl Into<Arc<str>>) -> Self {
        Self { resource_type, name: name.into() }
    }

    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self::new(ConfigResourceType::Topic, name)
    }

    pub fn broker(id: i32) -> Self {
        Self::new(ConfigResourceType::Broker, id.to_string())
    }

    pub fn default_broker() -> Self {
        Self::new(ConfigResourceType::Broker, "")
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} '{}'", self.resource_type, self.name)
    }
}

/// Overrides by resource; a resource without any is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigsImage {
    resources: ChunkMap<ConfigResource, Arc<BTreeMap<String, String>>>,
}

impl ConfigsImage {
    /// What is set on the resource itself, without anything inherited.
    pub fn of(&self, resource: &ConfigResource) -> Option<&Arc<BTreeMap<String, String>>> {
        self.resources.get(resource)
    }

    pub fn value(&self, resource: &ConfigResource, name: &str) -> Option<&str> {
        self.of(resource)?.get(name).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ConfigResource, &Arc<BTreeMap<String, String>>)> {
        self.resources.iter()
    }

    /// Sets or, with `None`, removes one value.
    pub(crate) fn set(&mut self, resource: &ConfigResource, name: &str, value: Option<&str>) {
        let mut values = self.resources.get(resource).cloned().unwrap_or_default();
        let map = Arc::make_mut(&mut values);
        match value {
            Some(value) => map.insert(name.to_owned(), value.to_owned()),
            None => map.remove(name),
        };
        if map.is_empty() {
            self.resources.remove(resource);
        } else {
            self.resources.insert(resource.clone(), values);
        }
    }

    /// Whether there was anything to remove.
    pub(crate) fn remove(&mut self, resource: &ConfigResource) -> bool {
        self.resources.remove(resource).is_some()
    }

    pub(super) fn records(&self, out: &mut Vec<VersionedRecord>) {
        for (resource, values) in self.iter() {
            out.extend(values.iter().map(|(name, value)| config_record(resource, name, Some(value.clone()))));
        }
    }
}

pub(crate) fn config_record(resource: &ConfigResource, name: &str, value: Option<String>) -> VersionedRecord {
    let record = ConfigRecord {
        resource_type: resource.resource_type.id(),
        resource_name: resource.name.to_string(),
        name: name.to_owned(),
        value,
    };
    VersionedRecord::new(record, 0)
}
