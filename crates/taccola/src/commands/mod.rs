//! One module per noun. Each command asks through the client crate and prints through [`crate::output`].

mod backup;
mod cluster;
mod config;
mod consume;
mod features;
mod group;
mod log;
mod produce;
mod topic;
mod txn;

use std::future::Future;

use clap::CommandFactory;
use serde_json::Value;
use taccola_client::{Client, ClientConfig};

use crate::cli::{Cli, Command, ConfigCommand, DEFAULT_BOOTSTRAP, OutputArgs, ServeArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Format};
use crate::serve;

/// What every client command needs.
pub(crate) struct Context {
    pub(crate) client: Client,
    format: Option<Format>,
}

impl Context {
    /// The subcommand's own choice, else the one in front of it, else tables.
    fn format(&self, output: OutputArgs) -> Format {
        output.output.or(self.format).unwrap_or_default()
    }
}

pub(crate) fn run(cli: Cli) -> CliResult {
    let Some(command) = cli.command else {
        return serve::run(&ServeArgs::default());
    };
    match command {
        Command::Serve(args) => return serve::run(&args),
        Command::Completions { shell } => return completions(shell),
        Command::Config(ConfigCommand::Check { file, output }) => {
            return config::check(&file, output.output.or(cli.output.output).unwrap_or_default());
        }
        Command::Log(command) => return log::run(command, cli.output.output),
        _ => {}
    }
    if cli.verbose {
        start_log();
    }
    let context = Context { client: client(cli.bootstrap)?, format: cli.output.output };
    match command {
        Command::Serve(_) | Command::Completions { .. } | Command::Log(_) => Ok(()),
        Command::Topic(command) => block_on(topic::run(&context, command)),
        Command::Produce(args) => block_on(produce::run(&context, args)),
        Command::Consume(args) => block_on(consume::run(&context, args)),
        Command::Group(command) => block_on(group::run(&context, command)),
        Command::Txn(command) => block_on(txn::run(&context, command)),
        Command::Backup(command) => block_on(backup::run(&context, *command)),
        Command::Features(args) => block_on(features::run(&context, args)),
        Command::Config(command) => block_on(config::run(&context, command)),
        Command::Cluster(command) => block_on(cluster::run(&context, command)),
    }
}

/// Flag, then environment, then the default. An empty variable counts as unset.
fn client(flag: Option<String>) -> CliResult<Client> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let bootstrap = flag.or_else(|| variable("TACCOLA_BROKERS")).or_else(|| variable("RPK_BROKERS"));
    let config = ClientConfig::new(bootstrap.as_deref().unwrap_or(DEFAULT_BOOTSTRAP));
    let config = config.map_err(|error| CliError::new(Exit::Usage, error.to_string()))?;
    Ok(Client::new(config))
}

/// Commands are clients: two threads, so that encoding and the socket overlap.
fn block_on(command: impl Future<Output = CliResult>) -> CliResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failure(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A read of standard input may still block a thread of the pool; nobody waits for it.
    runtime.shutdown_background();
    result
}

fn start_log() {
    // A second call changes nothing.
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::DEBUG);
    let _ = lines.with_ansi(output::stderr_is_terminal()).try_init();
}

fn completions(shell: clap_complete::Shell) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "taccola", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

/// Prints outcomes unless there is only one and it failed, in which case the error says it all.
fn finish(
    format: output::Format,
    values: Vec<Value>,
    table: output::Table,
    failures: Vec<(String, CliError)>,
) -> CliResult {
    if values.len() > failures.len() || format != output::Format::Table {
        output::result(format, &Value::Array(values), &[table])?;
    }
    first_failure(failures)
}

/// The first failure of several, after all were shown.
fn first_failure<T>(failures: Vec<(T, CliError)>) -> CliResult {
    let mut failures = failures.into_iter().map(|(_, error)| error);
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|error| output::error(&error));
    Err(first)
}
