//! The only place that writes to standard output and standard error. Results go to standard output as a table, JSON or
//! YAML; progress and errors go to standard error. A reader that closes the pipe ends the program quietly.

mod table;
mod yaml;

use std::io::{self, BufWriter, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

pub(crate) use table::Table;

use crate::exit::{CliError, CliResult, Exit};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// Prints a result: the value for programs, the tables for people.
pub(crate) fn result(format: Format, value: &Value, tables: &[Table]) -> CliResult {
    let text = match format {
        Format::Table => tables.iter().map(Table::render).filter(|t| !t.is_empty()).collect::<Vec<_>>().join("\n"),
        Format::Json => format!("{value:#}\n"),
        Format::Yaml => yaml::emit(value),
    };
    let mut out = Stdout::new();
    out.write(text.as_bytes())?;
    out.flush()
}

/// Prints text as it is.
pub(crate) fn text(text: &str) -> CliResult {
    let mut out = Stdout::new();
    out.write(text.as_bytes())?;
    out.flush()
}

/// One document of a stream: a line of JSON, or a YAML document with its separator.
pub(crate) fn stream_document(format: Format, value: &Value) -> String {
    match format {
        Format::Yaml => format!("---\n{}", yaml::emit(value)),
        Format::Table | Format::Json => format!("{value}\n"),
    }
}

/// Tells the user something that is no result.
pub(crate) fn note(text: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Shows how far something is, in the place of what it showed before. Only for a terminal.
pub(crate) fn progress(text: &str) {
    let mut out = io::stderr();
    let _ = write!(out, "\r{text}\x1b[K");
    let _ = out.flush();
}

pub(crate) fn error(error: &CliError) {
    if !error.message.is_empty() {
        note(&format!("error: {error}"));
    }
}

/// Whether log lines may be coloured.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Standard output, buffered; [`Stdout::flush`] must be called where the reader expects to see something.
pub(crate) struct Stdout {
    inner: BufWriter<io::Stdout>,
}

impl Stdout {
    pub(crate) fn new() -> Self {
        Self { inner: BufWriter::with_capacity(64 * 1024, io::stdout()) }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> CliResult {
        self.inner.write_all(bytes).map_err(closed)
    }

    pub(crate) fn flush(&mut self) -> CliResult {
        self.inner.flush().map_err(closed)
    }
}

/// A closed pipe is the reader's wish, not a failure: an error without a message and with exit code 0.
fn closed(error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::new(Exit::Ok, ""),
        _ => CliError::failure(format!("cannot write to standard output: {error}")),
    }
}
