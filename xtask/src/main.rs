//! Repository tasks: `cargo xtask <task>`. One file per task; the table below is the whole list.

#![allow(clippy::print_stdout, reason = "a command line tool talks on standard output")]

mod bench;
mod ci;
mod codegen;
mod fuzz;
mod golden;
mod kafka_jars;
mod planted;
mod shell;
mod simulate;
mod status;
mod suites;
mod test;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

type Task = fn(&Path, &[String]) -> Result<(), String>;

/// Name, usage (its first word is the name), task.
const TASKS: &[(&str, &str, Task)] = &[
    ("test", test::USAGE, test::run),
    ("ci", ci::USAGE, ci::run),
    ("tidy", tidy::USAGE, |root, _| tidy::run(root)),
    ("status", status::USAGE, status::run),
    ("bench", bench::USAGE, bench::run),
    ("suites", suites::USAGE, suites::run),
    ("fuzz", fuzz::USAGE, fuzz::run),
    ("planted", planted::USAGE, planted::run),
    ("simulate", simulate::USAGE, simulate::run),
    ("codegen", codegen::USAGE, |_, arguments| codegen::run(arguments)),
    ("golden", golden::USAGE, |_, arguments| golden::run(arguments)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<(), String> {
    let task = arguments.first().and_then(|name| TASKS.iter().find(|(task, ..)| task == name));
    match (task, arguments) {
        (Some((_, _, run)), [_, rest @ ..]) => run(codegen::root()?, rest),
        _ => {
            let usages: Vec<&str> = TASKS.iter().map(|(_, usage, _)| *usage).collect();
            Err(format!("cargo xtask <task>\n\n{}", usages.join("\n\n")))
        }
    }
}
