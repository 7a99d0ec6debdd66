//! `taccola features`.

use serde_json::json;
use taccola_client::Admin;
use taccola_client::admin::{FeatureUpdate, UpgradeType};

use super::{Context, finish};
use crate::cli::{FeatureLevelsArgs, FeaturesArgs, FeaturesCommand, OutputArgs};
use crate::exit::{CliError, CliResult};
use crate::output::{self, Table};
use crate::releases::Release;

pub(crate) async fn run(context: &Context, args: FeaturesArgs) -> CliResult {
    let admin = Admin::new(context.client.clone());
    match args.command {
        None => describe(context, &admin, args.output).await,
        Some(FeaturesCommand::Describe { output }) => describe(context, &admin, output).await,
        Some(FeaturesCommand::Upgrade(levels)) => set(context, &admin, levels, UpgradeType::Upgrade).await,
        Some(FeaturesCommand::Downgrade { levels, lossy }) => set(context, &admin, levels, downgrade(lossy)).await,
        Some(FeaturesCommand::Disable { features, lossy, dry_run, output }) => {
            let features = features.into_iter().map(|name| (name, 0)).collect();
            let levels = FeatureLevelsArgs { features, release_version: None, dry_run, output };
            set(context, &admin, levels, downgrade(lossy)).await
        }
    }
}

fn downgrade(lossy: bool) -> UpgradeType {
    if lossy { UpgradeType::UnsafeDowngrade } else { UpgradeType::SafeDowngrade }
}

async fn describe(context: &Context, admin: &Admin, output: OutputArgs) -> CliResult {
    let found = admin.describe_features().await?;
    let mut table = Table::new(&["FEATURE", "MIN-SUPPORTED", "MAX-SUPPORTED", "FINALIZED"]);
    let mut values = Vec::new();
    for (name, feature) in &found.features {
        table.row([
            name.clone(),
            feature.min_supported.to_string(),
            feature.max_supported.to_string(),
            feature.finalized.to_string(),
        ]);
        values.push(json!({
            "feature": name,
            "min_supported": feature.min_supported,
            "max_supported": feature.max_supported,
            "finalized": feature.finalized,
        }));
    }
    let mut summary = Table::new(&[]);
    summary.row(["EPOCH".to_owned(), found.epoch.map_or("-".to_owned(), |epoch| epoch.to_string())]);
    let value = json!({"epoch": found.epoch, "features": values});
    output::result(context.format(output), &value, &[table, summary])
}

/// A release's levels of what the cluster knows; an upgrade does not take features out of use.
async fn levels_of(admin: &Admin, release: Release, kind: UpgradeType) -> CliResult<Vec<(String, i16)>> {
    let known = admin.describe_features().await?.features;
    let levels = release.levels().into_iter().filter(|(_, level)| *level > 0 || kind != UpgradeType::Upgrade);
    Ok(levels.filter(|(name, _)| known.contains_key(*name)).map(|(name, level)| (name.to_owned(), level)).collect())
}

async fn set(context: &Context, admin: &Admin, args: FeatureLevelsArgs, kind: UpgradeType) -> CliResult {
    let features = match args.release_version {
        Some(release) => levels_of(admin, release, kind).await?,
        None => args.features,
    };
    let update = |(name, level): &(String, i16)| FeatureUpdate { name: name.clone(), level: *level, kind };
    let updates: Vec<_> = features.iter().map(update).collect();
    let (mut table, mut values, mut failures) = (Table::new(&["FEATURE", "LEVEL", "STATUS"]), Vec::new(), Vec::new());
    for (name, outcome) in admin.update_features(&updates, args.dry_run).await? {
        let level = updates.iter().find(|u| u.name == name).map_or(0, |u| u.level);
        let status = match &outcome {
            Ok(()) if args.dry_run => "valid",
            Ok(()) if level == 0 => "disabled",
            Ok(()) if kind == UpgradeType::Upgrade => "upgraded",
            Ok(()) => "downgraded",
            Err(_) => "failed",
        };
        table.row([name.clone(), level.to_string(), status.to_owned()]);
        values.push(json!({"feature": name, "level": level, "status": status}));
        if let Err(error) = outcome {
            failures.push((name, CliError::from(error)));
        }
    }
    finish(context.format(args.output), values, table, failures)
}
