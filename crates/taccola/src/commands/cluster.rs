//! `taccola cluster`.

use serde_json::json;
use taccola_client::Admin;

use super::Context;
use crate::cli::ClusterCommand;
use crate::exit::CliResult;
use crate::output::{self, Table};

pub(crate) async fn run(context: &Context, command: ClusterCommand) -> CliResult {
    match command {
        ClusterCommand::Info { output } => {
            let cluster = Admin::new(context.client.clone()).describe_cluster().await?;
            let mut summary = Table::new(&[]);
            summary.row(["CLUSTER", cluster.cluster_id.as_deref().unwrap_or("-")]);
            let mut brokers = Table::new(&["ID", "HOST", "PORT", "RACK", "CONTROLLER"]);
            let mut values = Vec::new();
            for node in &cluster.nodes {
                let controller = cluster.controller == Some(node.id);
                brokers.row([
                    node.id.to_string(),
                    node.host.clone(),
                    node.port.to_string(),
                    node.rack.clone().unwrap_or_else(|| "-".to_owned()),
                    if controller { "yes" } else { "" }.to_owned(),
                ]);
                values.push(json!({
                    "id": node.id, "host": node.host, "port": node.port, "rack": node.rack, "fenced": node.fenced,
                }));
            }
            let value = json!({
                "cluster_id": cluster.cluster_id, "controller": cluster.controller, "brokers": values,
            });
            output::result(context.format(output), &value, &[summary, brokers])
        }
    }
}
