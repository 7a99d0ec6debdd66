//! Arguments of `taccola log`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::OutputArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Read every file and tell what is wrong; changes nothing, also while a broker runs there
    Verify(LogVerifyArgs),
    /// Make anew what can be made anew, quarantine what cannot be read; tells what it would do unless --execute is given
    Repair(LogRepairArgs),
    /// Show the records of segments, or the entries of indexes, snapshots and checkpoints
    Dump(LogDumpArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LogVerifyArgs {
    /// A log directory, or a partition's folder in one
    #[arg(value_name = "DIR", default_value = "taccola-data", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Only these topics
    #[arg(short, long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    /// With what is no fault: unfinished work, folders that wait for deletion
    #[arg(short, long)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogRepairArgs {
    /// A log directory, or a partition's folder in one
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Only these topics
    #[arg(short, long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    /// Do it
    #[arg(long)]
    pub(crate) execute: bool,

    /// Also after a stop that was not clean, instead of letting a broker recover first
    #[arg(long, requires = "execute")]
    pub(crate) even_if_unclean: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogDumpArgs {
    /// A partition's folder, a segment, an index, a snapshot or a checkpoint
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,

    /// From this offset on
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(crate) from: i64,

    /// Up to this offset, exclusive
    #[arg(long, value_name = "OFFSET", default_value_t = i64::MAX)]
    pub(crate) to: i64,

    /// Stop after so many records
    #[arg(short, long, visible_alias = "count", value_name = "COUNT")]
    pub(crate) num: Option<u64>,

    /// Batches without their records
    #[arg(long)]
    pub(crate) batches: bool,

    /// What keys and values are [default: by the topic's name]
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) decode: Option<DumpDecoder>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpDecoder {
    /// Bytes
    None,
    /// Of __consumer_offsets
    Offsets,
    /// Of __transaction_state
    Transactions,
    /// Of __share_group_state
    ShareState,
    /// Of __cluster_metadata
    Metadata,
}
