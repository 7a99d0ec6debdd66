//! The command line. Nouns and verbs are those that users of Kafka's tools, rpk and kcat know.

mod backup;
mod log;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::output::Format;
use crate::releases::Release;

pub(crate) use backup::{
    BackupCipher, BackupCleanArgs, BackupCommand, BackupCreateArgs, BackupDescribeArgs, BackupKdf, BackupListArgs,
    BackupRestoreArgs, BackupRotateArgs, BackupVerifyArgs, KeyArgs, StoreArgs,
};
pub(crate) use log::{DumpDecoder, LogCommand, LogDumpArgs, LogRepairArgs, LogVerifyArgs};

/// Where a broker is looked for when nothing says otherwise.
pub(crate) const DEFAULT_BOOTSTRAP: &str = "127.0.0.1:9092";

/// Kafka in one binary.
///
/// Without a command: a durable broker on 127.0.0.1:9092 with its data in ./taccola-data.
/// The other commands are clients; they work against any Kafka.
#[derive(Debug, Parser)]
#[command(name = "taccola", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 exists already, 5 cannot connect, \
                        6 timeout, 7 not authorized, 8 damaged files.")]
pub(crate) struct Cli {
    /// Brokers to start from, HOST:PORT, several separated by commas [env: TACCOLA_BROKERS or RPK_BROKERS] [default:
    /// 127.0.0.1:9092]
    #[arg(short, long, global = true, value_name = "HOST:PORT")]
    pub(crate) bootstrap: Option<String>,

    /// Tell on standard error what the client does
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// How results are printed [default: table]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a broker
    Serve(ServeArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand, visible_alias = "topics")]
    Topic(TopicCommand),
    /// Write records from standard input
    Produce(ProduceArgs),
    /// Read records
    Consume(ConsumeArgs),
    /// List, describe, reset and delete groups: classic, consumer, share, streams
    #[command(subcommand, visible_alias = "groups")]
    Group(GroupCommand),
    /// List, describe and abort transactions
    #[command(subcommand, visible_alias = "transactions")]
    Txn(TxnCommand),
    /// Create, list, verify and restore backups in an object store
    #[command(subcommand, visible_alias = "backups")]
    Backup(Box<BackupCommand>),
    /// Show and change the levels of the cluster's features
    Features(FeaturesArgs),
    /// Show configs, check a config file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Check, repair and show log directories, without a broker
    #[command(subcommand)]
    Log(LogCommand),
    /// Print a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
}

// ---- serve -----------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Kafka's server.properties, or the same names as TOML in a file that ends in .toml
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,

    /// Set one config key, over file and environment
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,

    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

// ---- topic -----------------------------------------------------------------------------------------------------------

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create topics
    Create(TopicCreateArgs),
    /// List topics
    #[command(visible_alias = "ls")]
    List(TopicListArgs),
    /// Show partitions, offsets and configs of topics
    Describe(TopicDescribeArgs),
    /// Add partitions, change configs
    Alter(TopicAlterArgs),
    /// Delete topics with all their records
    #[command(visible_alias = "rm")]
    Delete(TopicDeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TopicCreateArgs {
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    /// Number of partitions [default: the broker's num.partitions]
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,

    /// Replication factor [default: the broker's default.replication.factor]
    #[arg(short, long, alias = "replication-factor", value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replicas: Option<i16>,

    /// Set a topic config
    #[arg(short = 'c', long = "config", alias = "topic-config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) configs: Vec<(String, String)>,

    /// Accept topics that exist already
    #[arg(long)]
    pub(crate) if_not_exists: bool,

    /// Only let the broker check the request
    #[arg(long, visible_alias = "validate-only")]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopicListArgs {
    /// With the topics that the broker itself uses
    #[arg(short, long)]
    pub(crate) internal: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopicDescribeArgs {
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["partitions", "configs", "delete_configs"]))]
pub(crate) struct TopicAlterArgs {
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,

    /// Raise the number of partitions to this total
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,

    /// Set a topic config
    #[arg(short = 'c', long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) configs: Vec<(String, String)>,

    /// Take a topic config back to the broker's default
    #[arg(short = 'd', long = "delete-config", value_name = "KEY")]
    pub(crate) delete_configs: Vec<String>,

    /// Only let the broker check the request
    #[arg(long, visible_alias = "validate-only")]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopicDeleteArgs {
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    /// Accept topics that do not exist
    #[arg(long)]
    pub(crate) if_exists: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

// ---- produce ---------------------------------------------------------------------------------------------------------

#[derive(Debug, Args)]
#[command(
    after_help = "FORMAT: %k key, %v value, %t topic, %p partition, %d timestamp in ms, %h headers as name=value,…; \
                        each ends at the text that follows it, e.g. -f '%k %v\\n'."
)]
pub(crate) struct ProduceArgs {
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,

    /// How input is cut into records [default: lines]
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "key_separator")]
    pub(crate) format: Option<String>,

    /// Lines hold a key, this separator, and a value
    #[arg(short = 'K', long, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,

    /// One key for all records
    #[arg(short, long, value_name = "KEY", conflicts_with = "key_separator")]
    pub(crate) key: Option<String>,

    /// Add a header to all records
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) headers: Vec<(String, String)>,

    /// Write to this partition instead of choosing by key
    #[arg(short, long)]
    pub(crate) partition: Option<i32>,

    /// An empty value becomes null, which deletes the key in a compacted topic
    #[arg(short = 'Z', long)]
    pub(crate) tombstone: bool,

    /// none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, default_value = "none", value_name = "CODEC")]
    pub(crate) compression: String,

    /// all (or -1), 1 or 0
    #[arg(long, default_value = "all", allow_hyphen_values = true)]
    pub(crate) acks: String,

    /// Bytes of a batch before compression
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024)]
    pub(crate) batch_size: usize,

    /// Largest record and request
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024)]
    pub(crate) max_message_bytes: usize,

    /// How long a batch waits for more records
    #[arg(long, value_name = "MS", default_value_t = 5)]
    pub(crate) linger: u64,

    /// How long a record may take to be acknowledged
    #[arg(long, value_name = "MS", default_value_t = 120_000)]
    pub(crate) delivery_timeout: u64,

    /// Write all of the input in one transaction: committed at its end, aborted on failure. Shuts out other producers with
    /// this id
    #[arg(long, value_name = "ID")]
    pub(crate) transactional_id: Option<String>,

    /// How long the transaction may stay open
    #[arg(long, value_name = "MS", default_value_t = 60_000, requires = "transactional_id")]
    pub(crate) transaction_timeout: u64,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

// ---- consume ---------------------------------------------------------------------------------------------------------

#[derive(Debug, Args)]
#[command(after_help = "FORMAT: %k key, %v value, %t topic, %p partition, %o offset, %d timestamp in ms, %d{iso}, \
                        %h headers, %h{%k=%v } per header, %K %V lengths, %H number of headers, %e leader epoch, \
                        %i number, %k{hex}, %v{base64}; escapes \\n \\t \\xHH.\n\
                        OFFSET: start, end, a number, -N (N before the end), @TIME with TIME as 2026-11-21T10:00:00Z, \
                        milliseconds, or -1h.\n\
                        With --share, a new group starts at the end of its topics unless its config \
                        share.auto.offset.reset says otherwise, and its config share.isolation.level decides about \
                        transactions.")]
pub(crate) struct ConsumeArgs {
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    /// How records are printed [default: '%v\n']
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,

    /// Where to start [default: start; in a group: its committed offset, else start]
    #[arg(short, long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub(crate) offset: Vec<String>,

    /// Stop after so many records
    #[arg(short, long, visible_alias = "count", value_name = "COUNT")]
    pub(crate) num: Option<u64>,

    /// Stop at the end of the topics instead of waiting for more; with --share, when nothing comes for two seconds
    #[arg(short, long)]
    pub(crate) exit: bool,

    /// Read as a member of this group, and commit
    #[arg(short, long, value_name = "GROUP", conflicts_with = "partitions")]
    pub(crate) group: Option<String>,

    /// Who assigns partitions in the group: a member (classic) or the broker (consumer)
    #[arg(long, value_enum, value_name = "PROTOCOL", requires = "group", default_value_t)]
    pub(crate) group_protocol: GroupProtocol,

    /// How partitions are assigned: range, roundrobin, cooperative-sticky, several in order of preference; with
    /// --group-protocol consumer the broker's, uniform or range
    #[arg(long, value_name = "ASSIGNOR", requires = "group", value_delimiter = ',')]
    pub(crate) assignor: Vec<String>,

    /// Static member id: its partitions wait for it to come back
    #[arg(long, value_name = "ID", requires = "group")]
    pub(crate) instance_id: Option<String>,

    /// TOPIC is a regular expression, which the broker evaluates (--group-protocol consumer)
    #[arg(short, long, requires = "group", conflicts_with = "share")]
    pub(crate) regex: bool,

    /// The group is a share group: its members take records of the same partitions
    #[arg(long, requires = "group", conflicts_with_all = ["offset", "group_protocol", "assignor", "instance_id", "isolation", "read_committed"])]
    pub(crate) share: bool,

    /// What happens to records that were printed
    #[arg(long, value_enum, value_name = "DECISION", requires = "share", default_value_t)]
    pub(crate) ack: AckDecision,

    /// Only these partitions
    #[arg(short, long = "partition", visible_alias = "partitions", value_name = "PARTITION", value_delimiter = ',')]
    pub(crate) partitions: Vec<i32>,

    /// With or without records of transactions that were aborted or are not over
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t, conflicts_with = "read_committed")]
    pub(crate) isolation: Isolation,

    /// Short for --isolation read_committed
    #[arg(long)]
    pub(crate) read_committed: bool,

    /// Print records as JSON lines or YAML documents instead
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "format")]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupProtocol {
    #[default]
    Classic,
    Consumer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AckDecision {
    /// Done with
    #[default]
    Accept,
    /// Others may have them
    Release,
    /// Nobody shall have them
    Reject,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    #[default]
    #[value(name = "read_uncommitted")]
    ReadUncommitted,
    #[value(name = "read_committed")]
    ReadCommitted,
}

// ---- group -----------------------------------------------------------------------------------------------------------

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List groups
    #[command(visible_alias = "ls")]
    List {
        /// Only groups of this type
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        kinds: Vec<GroupKind>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show members, assignments, offsets and lag
    Describe {
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Move committed offsets, or a share group's start offsets, of a group without members
    #[command(visible_alias = "seek")]
    Reset(GroupResetArgs),
    /// Make a group forget its offsets of topics that nobody in it reads
    DeleteOffsets {
        #[arg(value_name = "GROUP")]
        group: String,
        /// Topics, or partitions of them as TOPIC:0,1; a share group forgets whole topics
        #[arg(short, long = "topic", required = true, value_name = "TOPIC[:P,…]")]
        topics: Vec<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete groups without members, with their offsets
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Of streams groups, also the repartition and changelog topics
        #[arg(long)]
        internal_topics: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupKind {
    Classic,
    Consumer,
    Share,
    Streams,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(crate) struct GroupResetArgs {
    #[arg(value_name = "GROUP")]
    pub(crate) group: String,

    /// Only this topic, or partitions of it as TOPIC:0,1 [default: all topics with a committed offset]
    #[arg(short, long = "topic", value_name = "TOPIC[:P,…]")]
    pub(crate) topics: Vec<String>,

    #[arg(long, group = "target")]
    pub(crate) to_earliest: bool,

    #[arg(long, group = "target")]
    pub(crate) to_latest: bool,

    /// Leave offsets where they are, but inside the log
    #[arg(long, group = "target")]
    pub(crate) to_current: bool,

    #[arg(long, group = "target", value_name = "OFFSET")]
    pub(crate) to_offset: Option<i64>,

    /// First offset at or after this time
    #[arg(long, group = "target", value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to_datetime: Option<String>,

    /// Move by so many records, negative to go back
    #[arg(long, group = "target", value_name = "COUNT", allow_hyphen_values = true)]
    pub(crate) shift_by: Option<i64>,

    /// Only show what would be done; this is the default
    #[arg(long, conflicts_with = "execute")]
    pub(crate) dry_run: bool,

    /// Do it
    #[arg(long)]
    pub(crate) execute: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

// ---- txn -------------------------------------------------------------------------------------------------------------

#[derive(Debug, Subcommand)]
pub(crate) enum TxnCommand {
    /// List transactional ids with their states
    #[command(visible_alias = "ls")]
    List(TxnListArgs),
    /// Show producer, state and partitions of transactional ids
    Describe {
        #[arg(required = true, value_name = "TRANSACTIONAL_ID")]
        ids: Vec<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Abort what a transactional id has open and shut its producer out; or one partition's hanging transaction, which its
    /// coordinator has lost
    Abort(TxnAbortArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TxnListArgs {
    /// Only in this state: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort, Dead,
    /// PrepareEpochFence
    #[arg(long = "state", value_name = "STATE")]
    pub(crate) states: Vec<String>,

    /// Only of this producer
    #[arg(long = "producer-id", value_name = "ID")]
    pub(crate) producer_ids: Vec<i64>,

    /// Only those open for longer than this
    #[arg(long, value_name = "MS", alias = "duration-filter")]
    pub(crate) longer_than: Option<u64>,

    /// Only ids that match this regular expression
    #[arg(long, value_name = "REGEX", alias = "transactional-id-pattern")]
    pub(crate) pattern: Option<String>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["transactional_id", "topic"]))]
pub(crate) struct TxnAbortArgs {
    #[arg(value_name = "TRANSACTIONAL_ID")]
    pub(crate) transactional_id: Option<String>,

    /// Where the hanging transaction is
    #[arg(long, value_name = "TOPIC", requires = "partition")]
    pub(crate) topic: Option<String>,

    #[arg(long, requires = "topic")]
    pub(crate) partition: Option<i32>,

    /// First offset of the hanging transaction
    #[arg(long, value_name = "OFFSET", requires = "topic", conflicts_with = "producer_id")]
    pub(crate) start_offset: Option<i64>,

    /// Producer of the hanging transaction
    #[arg(long, value_name = "ID", requires_all = ["topic", "producer_epoch"])]
    pub(crate) producer_id: Option<i64>,

    #[arg(long, value_name = "EPOCH", requires = "producer_id")]
    pub(crate) producer_epoch: Option<i16>,

    #[arg(long, value_name = "EPOCH", requires = "producer_id", default_value_t = 0)]
    pub(crate) coordinator_epoch: i32,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

// ---- features --------------------------------------------------------------------------------------------------------

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct FeaturesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<FeaturesCommand>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeaturesCommand {
    /// Show supported and finalized levels; this is the default
    Describe {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Raise features to these levels
    Upgrade(FeatureLevelsArgs),
    /// Lower features to these levels
    Downgrade {
        #[command(flatten)]
        levels: FeatureLevelsArgs,
        /// Also where metadata is lost by it
        #[arg(long = "unsafe")]
        lossy: bool,
    },
    /// Take features out of use
    Disable {
        #[arg(long = "feature", required = true, value_name = "NAME")]
        features: Vec<String>,
        /// Also where metadata is lost by it
        #[arg(long = "unsafe")]
        lossy: bool,
        /// Only let the broker check the request
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FeatureLevelsArgs {
    #[arg(long = "feature", required_unless_present = "release_version", value_name = "NAME=LEVEL", value_parser = feature_level)]
    pub(crate) features: Vec<(String, i16)>,

    /// The levels of a release of Apache Kafka, such as 4.1
    #[arg(long, conflicts_with = "features", value_name = "RELEASE", value_parser = release)]
    pub(crate) release_version: Option<Release>,

    /// Only let the broker check the request
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

// ---- config ----------------------------------------------------------------------------------------------------------

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show what is in force: for `taccola serve` here, or for a broker, topic or group
    Show(ConfigShowArgs),
    /// Check a config file without starting anything
    Check {
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// The file that `taccola serve` would be given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,

    /// Set one config key, over file and environment
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,

    /// Ask this broker
    #[arg(long, value_name = "ID", group = "resource", conflicts_with_all = ["config", "overrides"])]
    pub(crate) broker: Option<i32>,

    /// Ask for this topic's configs
    #[arg(long, value_name = "TOPIC", group = "resource", conflicts_with_all = ["config", "overrides"])]
    pub(crate) topic: Option<String>,

    /// Ask for this group's configs
    #[arg(long, value_name = "GROUP", group = "resource", conflicts_with_all = ["config", "overrides"])]
    pub(crate) group: Option<String>,

    /// With everything that has its default value
    #[arg(short, long)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

// ---- cluster ---------------------------------------------------------------------------------------------------------

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show cluster id and brokers
    Info {
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `KEY=VALUE`, or with a colon as rpk takes it for headers.
fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once(['=', ':']).ok_or_else(|| "expected KEY=VALUE".to_owned())?;
    if key.is_empty() {
        return Err("the key is empty; expected KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `NAME=LEVEL`.
fn release(text: &str) -> Result<Release, String> {
    Release::parse(text).ok_or_else(|| format!("expected a release from {}", Release::known()))
}

fn feature_level(text: &str) -> Result<(String, i16), String> {
    let (name, level) = key_value(text).map_err(|_| "expected NAME=LEVEL".to_owned())?;
    let level = level.parse().ok().filter(|level| *level >= 0);
    level
        .map(|level| (name, level))
        .ok_or_else(|| "the level is no number from 0 to 32767; expected NAME=LEVEL".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn habits_are_understood() {
        for line in [
            "",
            "serve -c server.properties --override a=b --log-format json",
            "topic create t -p 3 -r 1 -c retention.ms=1000 --if-not-exists",
            "-b h:1 topic list -o json",
            "-o yaml topic describe t",
            "topic alter t -p 6 -c a=b -d c",
            "produce t -f %k|%v\\n -H a=b -z zstd --acks -1 -p 0",
            "consume t -o -5 -n 10 -f %v -e",
            "consume t -o @-1h -o json",
            "consume t -g g --output yaml",
            "group reset g --to-datetime 2026-01-01 --topic t:0,1 --execute",
            "group reset g --shift-by -5",
            "consume ^t -r -g g --group-protocol consumer --isolation read_committed",
            "consume t -g g --share --ack release -e -n 1",
            "produce t --transactional-id x --transaction-timeout 5",
            "group list --type share -o json",
            "txn list --state Ongoing --longer-than 5",
            "txn describe a b",
            "txn abort a",
            "txn abort --topic t --partition 0 --start-offset 7",
            "txn abort --topic t --partition 0 --producer-id 7 --producer-epoch 1",
            "backup create --incremental /b --key-file k -t a* --exclude-topic ab",
            "backup create s3://b/p --incremental=2026 --store-option endpoint=http://h:1 --cipher none -o json",
            "backup list file:///b",
            "backup describe /b",
            "backup verify /b latest --checksums-only",
            "backup restore /b 2026 --rename a=b --prefix x- --dry-run --passphrase-file p",
            "backup restore /b --resume --read-back",
            "backup rotate-key /b --key-file k --new-key-file l",
            "backup clean /b --execute",
            "features",
            "features -o json",
            "features describe -o yaml",
            "features upgrade --feature group.version=1 --dry-run",
            "features downgrade --feature a=1 --feature b=0 --unsafe",
            "features disable --feature a",
            "config show --broker 0 -a",
            "cluster info -b h:1",
            "log verify",
            "log verify data -t a -t b -o json -a",
            "log repair data/t-0 --execute --even-if-unclean",
            "log dump data/t-0 --from 5 --to 9 -n 3 --decode offsets -o yaml",
            "log dump data/t-0/00000000000000000000.index",
            "completions bash",
        ] {
            let words = std::iter::once("taccola").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "topic alter t",
            "group reset g",
            "group reset g --to-latest --to-earliest",
            "consume",
            "consume t --share",
            "consume t -g g --share --isolation read_committed",
            "consume t --group-protocol consumer",
            "produce",
            "txn abort",
            "txn abort --topic t",
            "txn abort a --topic t --partition 0",
            "backup create",
            "backup create /b --key-file k --ask-passphrase",
            "backup restore /b --resume --append",
            "backup rotate-key /b --key-file k",
            "features upgrade",
            "features upgrade --feature a=x",
            "log repair",
            "log repair data --even-if-unclean",
            "log dump",
        ] {
            let words = std::iter::once("taccola").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
