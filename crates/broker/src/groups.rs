//! What all group handlers ask: where a group's shard is, and what goes back when it is not here.

use taccola_base::Uuid;
use taccola_base::topic::GROUP_METADATA_TOPIC;
use taccola_wire::error::ErrorCode;

use crate::broker::Broker;
use crate::runtime::coordinator::partition_for;

impl Broker {
    /// The partition of `__consumer_offsets` that a group belongs to.
    pub fn group_partition(&self, group_id: &str) -> Result<i32, ErrorCode> {
        let image = self.image();
        let topic = image.topics.by_name(GROUP_METADATA_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let partitions = i32::try_from(topic.partition_count()).unwrap_or(i32::MAX);
        Ok(partition_for(group_id, partitions))
    }

    /// A topic's name and id, whichever of the two a client gave; `None` when there is no such topic.
    pub fn name_and_id(&self, name: &str, id: Uuid, by_id: bool) -> Option<(String, Uuid)> {
        let image = self.image();
        let topic = if by_id { image.topics.by_id(id) } else { image.topics.by_name(name) }?;
        Some((topic.name.to_string(), topic.id))
    }
}
