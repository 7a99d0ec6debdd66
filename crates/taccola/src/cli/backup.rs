//! Arguments of `taccola backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{Isolation, OutputArgs, key_value};

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Back up topics with their records, configs, groups and ACLs
    Create(BackupCreateArgs),
    /// List backups
    #[command(visible_alias = "ls")]
    List(BackupListArgs),
    /// Show the cut, the topics and the notes of a backup
    Describe(BackupDescribeArgs),
    /// Check a backup and those that it continues, without restoring anything
    Verify(BackupVerifyArgs),
    /// Write a backup's topics, configs and groups into a cluster
    Restore(BackupRestoreArgs),
    /// Encrypt the keys of backups with another key; their data stays as it is
    RotateKey(BackupRotateArgs),
    /// Remove what runs left that broke off
    Clean(BackupCleanArgs),
}

/// Where backups lie.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// A directory, file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    #[arg(value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub(crate) store: String,

    /// Setting of the object store: endpoint, region, allow.http, retries, timeout.ms, or one of its own. Credentials are
    /// better left to the environment, where the store's own tools look for them
    #[arg(long = "store-option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) options: Vec<(String, String)>,
}

/// What opens backups. A passphrase is never an argument: arguments are seen by everybody on the machine.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Key of 32 bytes, raw or as 64 hexadecimal digits
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["passphrase_file", "ask_passphrase"])]
    pub(crate) key_file: Option<PathBuf>,

    /// Passphrase in a file [env: TACCOLA_BACKUP_PASSPHRASE, the passphrase itself]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "ask_passphrase")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// Ask for the passphrase on the terminal
    #[arg(long)]
    pub(crate) ask_passphrase: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackupCipher {
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
    #[value(name = "aes-256-ctr-hmac-sha-256")]
    Aes256CtrHmacSha256,
    /// No encryption: whoever reads the store reads the records
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackupKdf {
    #[default]
    Argon2id,
    Pbkdf2,
}

#[derive(Debug, Args)]
pub(crate) struct BackupCreateArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Only topics that match, with * and ? [default: all but the cluster's own]
    #[arg(short, long = "topic", value_name = "PATTERN")]
    pub(crate) topics: Vec<String>,

    /// But not topics that match
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude_topic: Vec<String>,

    /// Only groups that match
    #[arg(short, long = "group", value_name = "PATTERN")]
    pub(crate) groups: Vec<String>,

    /// Without groups and their offsets
    #[arg(long, conflicts_with = "groups")]
    pub(crate) no_groups: bool,

    /// Without broker configs and ACLs
    #[arg(long)]
    pub(crate) no_cluster: bool,

    /// With or without records of transactions that were aborted or are not over
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "read_committed")]
    pub(crate) isolation: Isolation,

    /// Only what was added since this backup: an id, the beginning of one, or latest
    #[arg(long, value_name = "BACKUP", num_args = 0..=1, require_equals = true, default_missing_value = "latest", visible_alias = "parent")]
    pub(crate) incremental: Option<String>,

    /// How records are encrypted [default: aes-256-gcm; an incremental backup takes its parent's]
    #[arg(long, value_enum, value_name = "CIPHER")]
    pub(crate) cipher: Option<BackupCipher>,

    /// How a passphrase becomes a key
    #[arg(long, value_enum, value_name = "KDF", default_value_t)]
    pub(crate) kdf: BackupKdf,

    /// Partitions that are read at a time
    #[arg(short, long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,

    /// Size at which an object is closed
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_240))]
    pub(crate) object_size: u64,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupDescribeArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// An id, the beginning of one, or latest
    #[arg(value_name = "BACKUP", default_value = "latest")]
    pub(crate) backup: String,

    #[command(flatten)]
    pub(crate) key: KeyArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupVerifyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// An id, the beginning of one, or latest
    #[arg(value_name = "BACKUP", default_value = "latest")]
    pub(crate) backup: String,

    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Compare the checksums of objects without opening them, for which no key is needed
    #[arg(long, conflicts_with_all = ["key_file", "passphrase_file", "ask_passphrase"])]
    pub(crate) checksums_only: bool,

    /// Objects that are read at a time
    #[arg(short, long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupRestoreArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// An id, the beginning of one, or latest
    #[arg(value_name = "BACKUP", default_value = "latest")]
    pub(crate) backup: String,

    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Only topics that match, with * and ? [default: all]
    #[arg(short, long = "topic", value_name = "PATTERN")]
    pub(crate) topics: Vec<String>,

    /// But not topics that match
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude_topic: Vec<String>,

    /// Give a topic another name
    #[arg(long, value_name = "OLD=NEW", value_parser = key_value)]
    pub(crate) rename: Vec<(String, String)>,

    /// Put this in front of the names of topics that are not renamed
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prefix: String,

    /// Only groups that match
    #[arg(short, long = "group", value_name = "PATTERN")]
    pub(crate) groups: Vec<String>,

    /// Without committed offsets and configs of groups
    #[arg(long, conflicts_with = "groups")]
    pub(crate) no_groups: bool,

    /// Also dynamic configs of brokers
    #[arg(long)]
    pub(crate) broker_configs: bool,

    /// Also ACLs
    #[arg(long)]
    pub(crate) acls: bool,

    /// Replication factor of topics that are made [default: the broker's default.replication.factor]
    #[arg(short, long, value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replicas: Option<i16>,

    /// Go on with a restore that broke off: what is there is compared, the rest is written
    #[arg(long, conflicts_with = "append")]
    pub(crate) resume: bool,

    /// Add records behind those of topics that are not empty
    #[arg(long)]
    pub(crate) append: bool,

    /// Do not check the whole backup before anything is written
    #[arg(long)]
    pub(crate) no_verify: bool,

    /// Read everything back afterwards and compare
    #[arg(long)]
    pub(crate) read_back: bool,

    /// Only show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Partitions that are written at a time
    #[arg(short, long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("new").required(true).args(["new_key_file", "new_passphrase_file", "new_ask_passphrase"]))]
pub(crate) struct BackupRotateArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Ids, or beginnings of them [default: all encrypted backups]
    #[arg(value_name = "BACKUP")]
    pub(crate) backups: Vec<String>,

    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// The new key: 32 bytes, raw or as 64 hexadecimal digits
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) new_key_file: Option<PathBuf>,

    /// The new passphrase in a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) new_passphrase_file: Option<PathBuf>,

    /// Ask for the new passphrase on the terminal
    #[arg(long)]
    pub(crate) new_ask_passphrase: bool,

    /// How the new passphrase becomes a key
    #[arg(long, value_enum, value_name = "KDF", default_value_t)]
    pub(crate) kdf: BackupKdf,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackupCleanArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Only runs that began so many hours ago: a younger one may be under way
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub(crate) older_than: u32,

    /// Only show what would be done; this is the default
    #[arg(long, conflicts_with = "execute")]
    pub(crate) dry_run: bool,

    /// Do it
    #[arg(long)]
    pub(crate) execute: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
