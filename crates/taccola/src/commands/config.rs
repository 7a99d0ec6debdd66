//! `taccola config`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use taccola_base::config::{ConfigType, Scope, ServerConfig, Settings, find_broker_key, table};
use taccola_client::Admin;
use taccola_client::admin::{ConfigEntry, ConfigResource, ConfigSource, ResourceType};

use super::Context;
use crate::cli::{ConfigCommand, ConfigShowArgs, ServeArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Format, Table};
use crate::serve;

/// Stands in for a value that must not be shown.
const HIDDEN: &str = "(secret)";

pub(crate) async fn run(context: &Context, command: ConfigCommand) -> CliResult {
    match command {
        ConfigCommand::Show(args) => match resource(&args) {
            Some(resource) => show_resource(context, &resource, args).await,
            None => show_own(context, args),
        },
        ConfigCommand::Check { file, output } => check(&file, context.format(output)),
    }
}

/// Reads and checks a file as `taccola serve` would; the environment has no part in it.
pub(crate) fn check(file: &Path, format: Format) -> CliResult {
    let none: [(String, String); 0] = [];
    let settings = Settings::load(Some(file), none, &[]);
    let settings = settings.map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
    let (errors, warnings) = match ServerConfig::load(&settings) {
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(errors) => (errors.0.iter().map(ToString::to_string).collect(), Vec::new()),
    };
    let value = json!({"file": file, "ok": errors.is_empty(), "errors": errors, "warnings": warnings});
    match format {
        Format::Table => {
            errors.iter().for_each(|error| output::note(&format!("error: {error}")));
            warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
            if errors.is_empty() {
                output::text(&format!("{} can be used\n", file.display()))?;
            }
        }
        format => output::result(format, &value, &[])?,
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(CliError::failure(format!("{} cannot be used: one setting is wrong", file.display()))),
        n => Err(CliError::failure(format!("{} cannot be used: {n} settings are wrong", file.display()))),
    }
}

fn resource(args: &ConfigShowArgs) -> Option<ConfigResource> {
    let of = |kind, name: String| Some(ConfigResource { kind, name });
    match (args.broker, &args.topic, &args.group) {
        (Some(id), _, _) => of(ResourceType::Broker, id.to_string()),
        (_, Some(topic), _) => of(ResourceType::Topic, topic.clone()),
        (_, _, Some(group)) => of(ResourceType::Group, group.clone()),
        _ => None,
    }
}

async fn show_resource(context: &Context, resource: &ConfigResource, args: ConfigShowArgs) -> CliResult {
    let format = context.format(args.output);
    let configs = Admin::new(context.client.clone()).describe_configs(resource, format != Format::Table).await?;
    let mut table = Table::new(&["CONFIG", "VALUE", "SOURCE"]);
    let mut values = Vec::new();
    for config in configs.iter().filter(|c| args.all || c.source != ConfigSource::Default) {
        let shown = if config.sensitive { HIDDEN } else { config.value.as_deref().unwrap_or("") };
        table.row([config.name.as_str(), shown, config.source.name()]);
        values.push(entry(config));
    }
    output::result(format, &Value::Array(values), &[table])
}

fn entry(config: &ConfigEntry) -> Value {
    json!({
        "name": config.name,
        "value": config.value,
        "source": config.source.name(),
        "read_only": config.read_only,
        "sensitive": config.sensitive,
        "documentation": config.documentation,
    })
}

/// What `taccola serve` would start with here: file, environment, flags, and with `--all` every default.
fn show_own(context: &Context, args: ConfigShowArgs) -> CliResult {
    let serve = ServeArgs { config: args.config, overrides: args.overrides, log_format: None };
    let settings = serve::settings(&serve)?;
    let mut names: BTreeSet<&str> = settings.iter().map(|(name, _)| name).collect();
    if args.all {
        names.extend(table::keys(Scope::Broker).map(|key| key.name));
    }
    let mut shown = Table::new(&["CONFIG", "VALUE", "SOURCE"]);
    let mut values = Vec::new();
    for name in names {
        let key = find_broker_key(name);
        let secret = key.is_some_and(|key| key.kind == ConfigType::Password);
        let set = settings.get(name);
        let value = set.map(|s| s.value.clone()).or_else(|| key.and_then(|key| key.default.text()));
        let value = if secret && set.is_some() { Some(HIDDEN.to_owned()) } else { value };
        let source = set.map_or("default".to_owned(), |s| s.place.to_string());
        shown.row([name, value.as_deref().unwrap_or(""), &source]);
        values.push(json!({"name": name, "value": value, "source": source, "known": key.is_some()}));
    }
    output::result(context.format(args.output), &Value::Array(values), &[shown])?;
    // A table of what is wrong helps to see why it is.
    ServerConfig::load(&settings).map_err(|errors| CliError::new(Exit::Usage, errors.to_string()))?;
    Ok(())
}
