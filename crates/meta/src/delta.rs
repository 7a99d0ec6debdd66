//! Records applied to an image, and what they changed. Answers to `MetadataDelta` and the deltas in it.
//!
//! A delta works on a copy; the image that it started from is never touched, so dropping a delta undoes it. A record that
//! contradicts the image (a partition of an unknown topic, a broker that is not registered) is an error: the log was
//! damaged or was written by something else, and whatever is built on it would be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taccola_base::Uuid;
use taccola_wire::messages::{
    BrokerRegistrationChangeRecord, ClearElrRecord, ClientQuotaRecord, ConfigRecord, FeatureLevelRecord,
    PartitionChangeRecord, PartitionRecord, TopicRecord,
};

use crate::chunk_map::ChunkMap;
use crate::error::MetaError;
use crate::feature::{METADATA_VERSION, METADATA_VERSION_MAX, METADATA_VERSION_MIN};
use crate::image::{
    AclBinding, BrokerRegistration, ConfigResource, ConfigResourceType, ControllerRegistration, DelegationToken,
    MetadataImage, NO_LEADER_CHANGE, PartitionRegistration, Provenance, QuotaEntity, ScramCredential, TopicImage,
};
use crate::record::MetadataRecord;

/// What records changed, compared to the image that they were applied to. A thing that was changed and changed back is
/// still named.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataChanges {
    pub features: bool,
    pub brokers: BTreeSet<i32>,
    pub controllers: BTreeSet<i32>,
    /// Topics that did not exist before and exist now.
    pub created_topics: BTreeSet<Uuid>,
    /// Topics that existed before and are gone, as they were before.
    pub deleted_topics: BTreeMap<Uuid, Arc<TopicImage>>,
    /// New and changed partitions of topics that exist now.
    pub partitions: BTreeMap<Uuid, BTreeSet<i32>>,
    pub configs: BTreeSet<ConfigResource>,
    pub client_quotas: BTreeSet<QuotaEntity>,
    pub producer_ids: bool,
    pub acls: BTreeSet<Uuid>,
    /// Mechanism and user.
    pub scram: BTreeSet<(i8, Arc<str>)>,
    pub delegation_tokens: BTreeSet<Arc<str>>,
}

impl MetadataChanges {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What one broker has to do about its replicas (`TopicsDelta.localChanges`).
    pub fn local(&self, image: &MetadataImage, broker: i32) -> LocalReplicaChanges {
        let mut local = LocalReplicaChanges::default();
        for topic in self.deleted_topics.values() {
            for (id, _) in topic.partitions.iter().filter(|(_, p)| p.has_replica(broker)) {
                local.deletes.push(LocalPartition {
                    topic: Arc::clone(&topic.name),
                    topic_id: topic.id,
                    partition: *id,
                });
            }
        }
        for (topic_id, partitions) in &self.partitions {
            let Some(topic) = image.topics.by_id(*topic_id) else { continue };
            for id in partitions {
                let Some(state) = topic.partition(*id) else { continue };
                let at = LocalPartition { topic: Arc::clone(&topic.name), topic_id: *topic_id, partition: *id };
                if !state.has_replica(broker) {
                    local.not_replicas.push(at);
                } else if state.leader == broker {
                    local.leaders.push((at, Arc::clone(state)));
                } else {
                    local.followers.push((at, Arc::clone(state)));
                }
            }
        }
        local
    }
}

/// A partition by name and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPartition {
    pub topic: Arc<str>,
    pub topic_id: Uuid,
    pub partition: i32,
}

/// See [`MetadataChanges::local`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalReplicaChanges {
    /// Replicas of deleted topics: to be removed from disk.
    pub deletes: Vec<LocalPartition>,
    /// Changed partitions of which the broker holds no replica; one that it held is to be removed from disk.
    pub not_replicas: Vec<LocalPartition>,
    pub leaders: Vec<(LocalPartition, Arc<PartitionRegistration>)>,
    /// Replicas here, led elsewhere or by nobody.
    pub followers: Vec<(LocalPartition, Arc<PartitionRegistration>)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct MetadataDelta {
    image: MetadataImage,
    /// Topics being changed: moved into the image by [`MetadataDelta::finish`], so that a topic of many partitions is not
    /// copied once for each.
    open_topics: BTreeMap<Uuid, TopicImage>,
    changes: MetadataChanges,
}

impl MetadataDelta {
    pub fn new(image: &MetadataImage) -> Self {
        Self { image: image.clone(), open_topics: BTreeMap::new(), changes: MetadataChanges::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The image after all records so far, and what they changed.
    pub fn finish(mut self, provenance: Provenance) -> (MetadataImage, MetadataChanges) {
        for topic in self.open_topics.into_values() {
            self.image.topics.insert(Arc::new(topic));
        }
        self.image.provenance = provenance;
        (self.image, self.changes)
    }

    /// Applies one record. After an error the delta must be dropped.
    ///
    /// The markers of metadata transactions change nothing here; [`crate::loader::MetadataLoader`] heeds them.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), MetaError> {
        use MetadataRecord as R;
        match record {
            R::RegisterBroker(r) => {
                let registration = BrokerRegistration::from_record(r);
                Arc::make_mut(&mut self.image.cluster).brokers.insert(r.broker_id, registration);
                self.changes.brokers.insert(r.broker_id);
                Ok(())
            }
            R::UnregisterBroker(r) => self.unregister_broker(r.broker_id, r.broker_epoch),
            R::FenceBroker(r) => self.change_broker("FenceBrokerRecord", r.id, r.epoch, |b| b.fenced = true),
            R::UnfenceBroker(r) => self.change_broker("UnfenceBrokerRecord", r.id, r.epoch, |b| b.fenced = false),
            R::BrokerRegistrationChange(r) => self.broker_registration_change(r),
            R::RegisterController(r) => {
                let registration = ControllerRegistration::from_record(r);
                Arc::make_mut(&mut self.image.cluster).controllers.insert(r.controller_id, registration);
                self.changes.controllers.insert(r.controller_id);
                Ok(())
            }
            R::Topic(r) => self.topic(r),
            R::Partition(r) => self.partition(r),
            R::PartitionChange(r) => self.partition_change("PartitionChangeRecord", r),
            R::RemoveTopic(r) => self.remove_topic(r.topic_id),
            R::ClearElr(r) => self.clear_elr(r),
            R::Config(r) => {
                self.config(r);
                Ok(())
            }
            R::FeatureLevel(r) => self.feature_level(r),
            R::ZkMigrationState(r) => {
                Arc::make_mut(&mut self.image.features).zk_migration_state = Some(r.zk_migration_state);
                self.changes.features = true;
                Ok(())
            }
            R::ProducerIds(r) => {
                self.image.next_producer_id = Some(r.next_producer_id);
                self.changes.producer_ids = true;
                Ok(())
            }
            R::BeginTransaction(_) | R::EndTransaction(_) | R::AbortTransaction(_) | R::NoOp(_) => Ok(()),
            _ => self.replay_security(record),
        }
    }

    fn replay_security(&mut self, record: &MetadataRecord) -> Result<(), MetaError> {
        use MetadataRecord as R;
        match record {
            R::ClientQuota(r) => self.client_quota(r),
            R::AccessControlEntry(r) => {
                self.image.acls.insert(r.id, Arc::new(AclBinding::from_record(r)));
                self.changes.acls.insert(r.id);
            }
            R::RemoveAccessControlEntry(r) => {
                if self.image.acls.remove(&r.id).is_none() {
                    return Err(MetaError::replay(
                        "RemoveAccessControlEntryRecord",
                        format!("there is no ACL {}", r.id),
                    ));
                }
                self.changes.acls.insert(r.id);
            }
            R::UserScramCredential(r) => {
                let key: (i8, Arc<str>) = (r.mechanism, r.name.as_str().into());
                self.image.scram.insert(key.clone(), Arc::new(ScramCredential::from_record(r)));
                self.changes.scram.insert(key);
            }
            R::RemoveUserScramCredential(r) => {
                let key: (i8, Arc<str>) = (r.mechanism, r.name.as_str().into());
                self.image.scram.remove(&key);
                self.changes.scram.insert(key);
            }
            R::DelegationToken(r) => {
                let id: Arc<str> = r.token_id.as_str().into();
                self.image.delegation_tokens.insert(Arc::clone(&id), Arc::new(DelegationToken::from_record(r)));
                self.changes.delegation_tokens.insert(id);
            }
            R::RemoveDelegationToken(r) => {
                self.image.delegation_tokens.remove(r.token_id.as_str());
                self.changes.delegation_tokens.insert(r.token_id.as_str().into());
            }
            other => return Err(MetaError::replay(other.name(), "it is of no known kind")),
        }
        Ok(())
    }

    fn unregister_broker(&mut self, id: i32, epoch: i64) -> Result<(), MetaError> {
        self.change_broker("UnregisterBrokerRecord", id, epoch, |_| ())?;
        Arc::make_mut(&mut self.image.cluster).brokers.remove(&id);
        Ok(())
    }

    /// Changes a broker, provided that the record is about its current registration.
    fn change_broker(
        &mut self,
        record: &'static str,
        id: i32,
        epoch: i64,
        change: impl FnOnce(&mut BrokerRegistration),
    ) -> Result<(), MetaError> {
        let Some(broker) = Arc::make_mut(&mut self.image.cluster).brokers.get_mut(&id) else {
            return Err(MetaError::replay(record, format!("broker {id} is not registered")));
        };
        if broker.epoch != epoch {
            let reason = format!("it is about epoch {epoch} of broker {id}, which is at epoch {}", broker.epoch);
            return Err(MetaError::replay(record, reason));
        }
        change(broker);
        self.changes.brokers.insert(id);
        Ok(())
    }

    fn broker_registration_change(&mut self, r: &BrokerRegistrationChangeRecord) -> Result<(), MetaError> {
        const RECORD: &str = "BrokerRegistrationChangeRecord";
        if !(-1..=1).contains(&r.fenced) || !(0..=1).contains(&r.in_controlled_shutdown) {
            return Err(MetaError::replay(RECORD, "its flags have no meaning"));
        }
        self.change_broker(RECORD, r.broker_id, r.broker_epoch, |broker| {
            match r.fenced {
                -1 => broker.fenced = false,
                1 => broker.fenced = true,
                _ => {}
            }
            if r.in_controlled_shutdown == 1 {
                broker.in_controlled_shutdown = true;
            }
            if !r.log_dirs.is_empty() {
                broker.log_dirs.clone_from(&r.log_dirs);
            }
            if r.cordoned_log_dirs.is_some() {
                broker.cordoned_log_dirs.clone_from(&r.cordoned_log_dirs);
            }
        })
    }

    fn open_topic(&mut self, id: Uuid) -> Option<&mut TopicImage> {
        if !self.open_topics.contains_key(&id) {
            let topic = TopicImage::clone(self.image.topics.by_id(id)?);
            self.open_topics.insert(id, topic);
        }
        self.open_topics.get_mut(&id)
    }

    fn topic(&mut self, r: &TopicRecord) -> Result<(), MetaError> {
        let topic = TopicImage { name: r.name.as_str().into(), id: r.topic_id, partitions: ChunkMap::default() };
        if self.image.topics.by_name(&r.name).is_some() || self.image.topics.by_id(r.topic_id).is_some() {
            let reason = format!("topic '{}' or id {} exists already", r.name, r.topic_id);
            return Err(MetaError::replay("TopicRecord", reason));
        }
        // It stands in the image at once, so that a second topic of that name is noticed.
        self.image.topics.insert(Arc::new(topic.clone()));
        self.open_topics.insert(r.topic_id, topic);
        self.changes.created_topics.insert(r.topic_id);
        self.changes.partitions.entry(r.topic_id).or_default();
        Ok(())
    }

    fn partition(&mut self, r: &PartitionRecord) -> Result<(), MetaError> {
        const RECORD: &str = "PartitionRecord";
        let state = PartitionRegistration::from_record(r).map_err(|reason| MetaError::replay(RECORD, reason))?;
        let Some(topic) = self.open_topic(r.topic_id) else {
            return Err(MetaError::replay(RECORD, format!("there is no topic with id {}", r.topic_id)));
        };
        topic.partitions.insert(r.partition_id, Arc::new(state));
        self.changes.partitions.entry(r.topic_id).or_default().insert(r.partition_id);
        Ok(())
    }

    fn partition_change(&mut self, record: &'static str, r: &PartitionChangeRecord) -> Result<(), MetaError> {
        let Some(topic) = self.open_topic(r.topic_id) else {
            return Err(MetaError::replay(record, format!("there is no topic with id {}", r.topic_id)));
        };
        let Some(old) = topic.partitions.get(&r.partition_id) else {
            let reason = format!("topic '{}' has no partition {}", topic.name, r.partition_id);
            return Err(MetaError::replay(record, reason));
        };
        let new = old.merge(r).map_err(|reason| {
            MetaError::replay(record, format!("partition {}-{}: {reason}", topic.name, r.partition_id))
        })?;
        topic.partitions.insert(r.partition_id, Arc::new(new));
        self.changes.partitions.entry(r.topic_id).or_default().insert(r.partition_id);
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid) -> Result<(), MetaError> {
        let Some(stored) = self.image.topics.remove(id) else {
            return Err(MetaError::replay("RemoveTopicRecord", format!("there is no topic with id {id}")));
        };
        self.open_topics.remove(&id);
        let resource = ConfigResource::topic(Arc::clone(&stored.name));
        if self.image.configs.remove(&resource) {
            self.changes.configs.insert(resource);
        }
        self.changes.partitions.remove(&id);
        if !self.changes.created_topics.remove(&id) {
            self.changes.deleted_topics.insert(id, stored);
        }
        Ok(())
    }

    fn clear_elr(&mut self, r: &ClearElrRecord) -> Result<(), MetaError> {
        const RECORD: &str = "ClearElrRecord";
        let topics: Vec<Uuid> = if r.topic_name.is_empty() {
            self.image.topics.iter().map(|t| t.id).collect()
        } else {
            let topic = self.image.topics.by_name(&r.topic_name);
            let missing = || MetaError::replay(RECORD, format!("there is no topic '{}'", r.topic_name));
            vec![topic.ok_or_else(missing)?.id]
        };
        for id in topics {
            let topic = self.open_topics.get(&id).or_else(|| self.image.topics.by_id(id).map(|t| &**t));
            let has_elr = |p: &PartitionRegistration| !p.elr.is_empty() || !p.last_known_elr.is_empty();
            let partitions: Vec<i32> = topic
                .map(|t| t.partitions.iter().filter(|(_, p)| has_elr(p)).map(|(id, _)| *id).collect())
                .unwrap_or_default();
            for partition_id in partitions {
                let change = PartitionChangeRecord {
                    partition_id,
                    topic_id: id,
                    leader: NO_LEADER_CHANGE,
                    eligible_leader_replicas: Some(Vec::new()),
                    last_known_elr: Some(Vec::new()),
                    ..Default::default()
                };
                self.partition_change(RECORD, &change)?;
            }
        }
        Ok(())
    }

    fn config(&mut self, r: &ConfigRecord) {
        let kind = ConfigResourceType::from_id(r.resource_type);
        let resource = ConfigResource::new(kind, r.resource_name.as_str());
        self.image.configs.set(&resource, &r.name, r.value.as_deref());
        self.changes.configs.insert(resource);
    }

    fn feature_level(&mut self, r: &FeatureLevelRecord) -> Result<(), MetaError> {
        if r.name == METADATA_VERSION && !(METADATA_VERSION_MIN..=METADATA_VERSION_MAX).contains(&r.feature_level) {
            return Err(MetaError::MetadataVersion(r.feature_level));
        }
        let finalized = &mut Arc::make_mut(&mut self.image.features).finalized;
        if r.feature_level == 0 {
            finalized.remove(&r.name);
        } else {
            finalized.insert(r.name.clone(), r.feature_level);
        }
        self.changes.features = true;
        Ok(())
    }

    fn client_quota(&mut self, r: &ClientQuotaRecord) {
        let entity = QuotaEntity::new(r.entity.iter().map(|e| (e.entity_type.clone(), e.entity_name.clone())));
        let mut quotas = self.image.client_quotas.get(&entity).cloned().unwrap_or_default();
        let map = Arc::make_mut(&mut quotas);
        if r.remove {
            map.remove(&r.key);
        } else {
            map.insert(r.key.clone(), r.value);
        }
        if map.is_empty() {
            self.image.client_quotas.remove(&entity);
        } else {
            self.image.client_quotas.insert(entity.clone(), quotas);
        }
        self.changes.client_quotas.insert(entity);
    }
}
