//! Repository tasks: `cargo xtask <task>`.

mod codegen;
mod golden;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((task, rest)) if task == "codegen" => codegen::run(rest),
        Some((task, rest)) if task == "golden" => golden::run(rest),
        _ => Err(format!("cargo xtask <task>\n\n{}\n{}", codegen::USAGE, golden::USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
