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
    match commands::run(cli) {
        Ok(()) => exit::Exit::Ok.into(),
        Err(error) => {
            output::error(&error);
            error.exit.into()
        }
    }
}
