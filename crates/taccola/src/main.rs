//! The `taccola` binary: arguments, wiring, exit codes. Without a subcommand it is the broker; everything else is a client
//! over TCP that works against any Kafka. The only other task of this crate is to print ([`output`]).

mod cli;
mod commands;
mod exit;
mod output;
mod record_format;
mod record_input;
mod releases;
mod serve;
mod timestamp;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    #[cfg(feature = "planted")]
    plant();
    match commands::run(cli) {
        Ok(()) => exit::Exit::Ok.into(),
        Err(error) => {
            output::error(&error);
            error.exit.into()
        }
    }
}

/// Chooses the bug that the environment names, in a binary that was built to have bugs.
#[cfg(feature = "planted")]
fn plant() {
    use taccola_base::planted::{Bug, choose};
    let Some(name) = std::env::var("TACCOLA_PLANTED_BUG").ok().filter(|name| !name.is_empty()) else { return };
    match Bug::from_name(&name) {
        Some(bug) => {
            eprintln!("a bug is planted: {}", bug.doc());
            choose(bug);
        }
        None => {
            eprintln!("TACCOLA_PLANTED_BUG={name}: there is no such bug");
            std::process::exit(2);
        }
    }
}
