//! The cluster: brokers and their log directories.

use taccola_net::api::ApiExt;
use taccola_wire::messages::{DescribeClusterRequest, DescribeLogDirsRequest};

use super::Admin;
use crate::cluster::Lane;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
    pub fenced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    pub cluster_id: Option<String>,
    pub controller: Option<i32>,
    /// Sorted by id.
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirPartition {
    pub topic: String,
    pub partition: i32,
    pub bytes: i64,
}

#[derive(Clone, Debug)]
pub struct LogDir {
    pub broker: i32,
    pub path: String,
    pub error: Option<String>,
    /// `None` when the broker is too old to tell.
    pub total_bytes: Option<i64>,
    pub usable_bytes: Option<i64>,
    pub partitions: Vec<LogDirPartition>,
}

impl Admin {
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        self.client.retrying(|| self.describe_cluster_once()).await
    }

    async fn describe_cluster_once(&self) -> Result<ClusterDescription> {
        let api = self.client.any().await?;
        let Ok(version) = api.version::<DescribeClusterRequest>() else {
            return self.cluster_from_metadata().await;
        };
        let request = DescribeClusterRequest { include_fenced_brokers: version >= 2, ..Default::default() };
        let response = self.client.request(&api, &request, version).await?;
        Error::check(response.error_code, "cluster", response.error_message)?;
        let node = |b: taccola_wire::messages::describe_cluster_response::DescribeClusterBroker| Node {
            id: b.broker_id,
            host: b.host,
            port: b.port,
            rack: b.rack,
            fenced: b.is_fenced,
        };
        let mut nodes: Vec<_> = response.brokers.into_iter().map(node).collect();
        nodes.sort_by_key(|n| n.id);
        Ok(ClusterDescription {
            cluster_id: Some(response.cluster_id),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            nodes,
        })
    }

    /// For brokers before KIP-700.
    async fn cluster_from_metadata(&self) -> Result<ClusterDescription> {
        let info = self.client.cluster().await?;
        let node = |b: crate::cluster::Broker| Node {
            id: b.id,
            host: b.host,
            port: i32::from(b.port),
            rack: b.rack,
            fenced: false,
        };
        let mut nodes: Vec<_> = info.brokers.into_iter().map(node).collect();
        nodes.sort_by_key(|n| n.id);
        Ok(ClusterDescription { cluster_id: info.cluster_id, controller: info.controller, nodes })
    }

    pub async fn describe_log_dirs(&self, broker: i32) -> Result<Vec<LogDir>> {
        self.client.retrying(|| self.describe_log_dirs_once(broker)).await
    }

    async fn describe_log_dirs_once(&self, broker: i32) -> Result<Vec<LogDir>> {
        let api = self.client.broker(broker, Lane::General).await?;
        let version = api.version::<DescribeLogDirsRequest>()?;
        let request = DescribeLogDirsRequest { topics: None };
        let response = self.client.request(&api, &request, version).await?;
        Error::check(response.error_code, format!("log directories of broker {broker}"), None)?;
        let directory = |r: taccola_wire::messages::describe_log_dirs_response::DescribeLogDirsResult| LogDir {
            broker,
            error: Error::check(r.error_code, r.log_dir.clone(), None).err().map(|e| e.to_string()),
            path: r.log_dir,
            total_bytes: (r.total_bytes >= 0).then_some(r.total_bytes),
            usable_bytes: (r.usable_bytes >= 0).then_some(r.usable_bytes),
            partitions: r
                .topics
                .into_iter()
                .flat_map(|t| {
                    let topic = t.name;
                    t.partitions.into_iter().map(move |p| LogDirPartition {
                        topic: topic.clone(),
                        partition: p.partition_index,
                        bytes: p.partition_size,
                    })
                })
                .collect(),
        };
        Ok(response.results.into_iter().map(directory).collect())
    }
}
