//! `taccola backup`.

mod restore;
mod secret;
mod show;

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taccola_backup::contents::Isolation;
use taccola_backup::create::{self, CreateOptions};
use taccola_backup::crypto::Cipher;
use taccola_backup::repository::now_ms;
use taccola_backup::{Error, Keyring, Progress, Repository, Selector, chain::Link, rotate, verify};
use taccola_remote::{Options, RemoteError, Store};

use super::Context;
use crate::cli::{
    self, BackupCipher, BackupCleanArgs, BackupCommand, BackupCreateArgs, BackupDescribeArgs, BackupListArgs,
    BackupRotateArgs, BackupVerifyArgs, StoreArgs,
};
use crate::exit::{CliError, CliResult, Exit};
use crate::output::{self, Table};

/// How often progress is shown: on a terminal, and elsewhere.
const SHOW_EVERY: Duration = Duration::from_millis(500);
const NOTE_EVERY: Duration = Duration::from_secs(10);

pub(crate) async fn run(context: &Context, command: BackupCommand) -> CliResult {
    match command {
        BackupCommand::Create(args) => create(context, args).await,
        BackupCommand::List(args) => list(context, args).await,
        BackupCommand::Describe(args) => describe(context, args).await,
        BackupCommand::Verify(args) => verify(context, args).await,
        BackupCommand::Restore(args) => restore::run(context, args).await,
        BackupCommand::RotateKey(args) => rotate(context, args).await,
        BackupCommand::Clean(args) => clean(context, args).await,
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Cluster(error) => error.into(),
            Error::Store(error) => {
                let exit = match error {
                    RemoteError::NotFound { .. } => Exit::NotFound,
                    RemoteError::Denied { .. } => Exit::NotAuthorized,
                    RemoteError::Unavailable { .. } => Exit::CannotConnect,
                    RemoteError::Config(_) => Exit::Usage,
                    _ => Exit::Failure,
                };
                CliError::new(exit, message)
            }
            Error::NotFound(_) => CliError::new(Exit::NotFound, message).hint("`taccola backup list` shows them"),
            Error::Key { .. } => CliError::new(Exit::NotAuthorized, message),
            Error::KeyMissing(_) => CliError::new(Exit::NotAuthorized, message).hint(secret::HINT),
            Error::Invalid(_) => CliError::usage(message),
            Error::Damaged { .. } => {
                CliError::failure(message).hint("`taccola backup verify` says what is lost with it")
            }
            Error::Refused(_) | Error::Crypto(_) | Error::Batch { .. } => CliError::failure(message),
        }
    }
}

/// Opens the store; a path without a scheme is a directory.
fn repository(args: &StoreArgs) -> CliResult<Repository> {
    let url = match args.store.contains("://") || args.store.starts_with("memory:") {
        true => args.store.clone(),
        false => format!("file://{}", std::path::absolute(&args.store)?.display()),
    };
    let pairs = args.options.iter().map(|(name, value)| (name, value));
    let opened = Options::from_pairs(pairs).and_then(|options| Store::open(&url, &options));
    Ok(Repository::new(opened.map_err(Error::from)?))
}

/// Runs something and shows how far it is meanwhile.
async fn showing<T>(progress: &Progress, what: &str, work: impl Future<Output = T>) -> T {
    let terminal = output::stderr_is_terminal();
    let begun = Instant::now();
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(if terminal { SHOW_EVERY } else { NOTE_EVERY });
    ticks.tick().await;
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => {
                let text = progress_text(progress, what, begun.elapsed());
                if terminal { output::progress(&text) } else { output::note(&text) }
            }
        }
    };
    if terminal {
        output::progress("");
    }
    result
}

fn progress_text(progress: &Progress, what: &str, elapsed: Duration) -> String {
    let now = progress.read();
    let per_second = now.bytes.checked_div(elapsed.as_secs().max(1)).unwrap_or(0);
    format!(
        "{what}: {} of {}, {} records, {}, {}/s",
        now.partitions_done,
        now.partitions,
        now.records,
        show::size(now.bytes),
        show::size(per_second)
    )
}

fn level(isolation: cli::Isolation) -> Isolation {
    match isolation {
        cli::Isolation::ReadCommitted => Isolation::ReadCommitted,
        cli::Isolation::ReadUncommitted => Isolation::ReadUncommitted,
    }
}

fn cipher(cipher: BackupCipher) -> Cipher {
    match cipher {
        BackupCipher::Aes256Gcm => Cipher::Aes256Gcm,
        BackupCipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
        BackupCipher::Aes256CtrHmacSha256 => Cipher::Aes256CtrHmacSha256,
        BackupCipher::None => Cipher::None,
    }
}

async fn create(context: &Context, args: BackupCreateArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let keys = secret::keyring(&args.key, true)?;
    let parent = match &args.incremental {
        Some(text) => Some(repository.resolve(text).await?),
        None => None,
    };
    let options = CreateOptions {
        topics: Selector { include: args.topics, exclude: args.exclude_topic },
        groups: Selector { include: args.groups, exclude: Vec::new() },
        isolation: level(args.isolation),
        cipher: create_cipher(args.cipher, &keys, &repository, parent.as_deref()).await?,
        parent,
        kdf: secret::kdf(args.kdf)?,
        with_groups: !args.no_groups,
        with_cluster: !args.no_cluster,
        jobs: usize::from(args.jobs),
        object_bytes: args.object_size << 20,
    };
    let progress = Progress::default();
    let work = create::create(&context.client, &repository, options, &keys, &progress);
    let (manifest, contents) = showing(&progress, "partitions", work).await?;
    show::described(context.format(args.output), &manifest, &contents)
}

/// Encrypted unless somebody said that it shall not be: with a key, by what was asked for or else AES-256-GCM.
async fn create_cipher(
    asked: Option<BackupCipher>,
    keys: &Keyring,
    repository: &Repository,
    parent: Option<&str>,
) -> CliResult<Cipher> {
    if let Some(parent) = parent {
        let of_parent = repository.manifest(parent).await?.identity.cipher;
        return match asked.map(cipher) {
            Some(asked) if asked != of_parent => Err(CliError::usage(format!(
                "{parent} is sealed with {}, and so is what continues it",
                of_parent.name()
            ))),
            None if of_parent == Cipher::None && !keys.is_empty() => {
                let error =
                    CliError::usage(format!("{parent} is not encrypted, and what continues it would not be either"));
                Err(error.hint("make a full backup, or say --cipher none"))
            }
            _ => Ok(of_parent),
        };
    }
    match asked.map(cipher) {
        Some(Cipher::None) if !keys.is_empty() => {
            Err(CliError::usage("a key is given, and --cipher none would not use it"))
        }
        Some(Cipher::None) => Ok(Cipher::None),
        _ if keys.is_empty() => {
            let hint = format!("{}; --cipher none makes one that whoever reads the store can read", secret::HINT);
            Err(CliError::usage("no key to encrypt the backup with").hint(hint))
        }
        asked => Ok(asked.unwrap_or(Cipher::Aes256Gcm)),
    }
}

async fn list(context: &Context, args: BackupListArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let listed = repository.list().await?;
    let unfinished = repository.unfinished().await?;
    show::list(context.format(args.output), &listed, &unfinished)
}

async fn describe(context: &Context, args: BackupDescribeArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let keys = secret::keyring(&args.key, false)?;
    let id = repository.resolve(&args.backup).await?;
    let link = Link::open(repository.manifest(&id).await?, &keys)?;
    show::described(context.format(args.output), &link.manifest, &link.contents)
}

async fn verify(context: &Context, args: BackupVerifyArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let keys = match args.checksums_only {
        true => Keyring::new(taccola_backup::Unlock::Nothing),
        false => secret::keyring(&args.key, false)?,
    };
    let id = repository.resolve(&args.backup).await?;
    if !args.checksums_only && keys.is_empty() && repository.manifest(&id).await.is_ok_and(|m| m.envelope.is_some()) {
        let error = CliError::from(Error::KeyMissing(id));
        return Err(error.hint(format!("{}; --checksums-only needs no key", secret::HINT)));
    }
    let progress = Progress::default();
    let work = verify::verify(&repository, &id, &keys, usize::from(args.jobs), &progress);
    let report = showing(&progress, "objects", work).await?;
    show::verified(context.format(args.output), &report)
}

async fn rotate(context: &Context, args: BackupRotateArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let old = secret::keyring(&args.key, false)?;
    let new = match (&args.new_key_file, &args.new_passphrase_file) {
        (Some(file), _) => secret::key_file(file)?,
        (None, Some(file)) => secret::derived(secret::read(file)?, args.kdf)?,
        (None, None) => secret::derived(secret::ask("New passphrase: ", true)?, args.kdf)?,
    };
    let mut ids = Vec::new();
    for text in &args.backups {
        ids.push(repository.resolve(text).await?);
    }
    if ids.is_empty() {
        for listed in repository.list().await? {
            if listed.manifest?.envelope.is_some() {
                ids.push(listed.id);
            }
        }
    }
    let mut table = Table::new(&["BACKUP", "KEY-ID"]);
    let mut values = Vec::new();
    for id in ids {
        let manifest = rotate::rotate(&repository, &id, &old, &new).await?;
        let key_id = manifest.envelope.map(|envelope| envelope.key_id).unwrap_or_default();
        table.row([&id, &key_id]);
        values.push(json!({"backup": id, "key_id": key_id}));
    }
    output::result(context.format(args.output), &Value::Array(values), &[table])
}

async fn clean(context: &Context, args: BackupCleanArgs) -> CliResult {
    let repository = repository(&args.store)?;
    let before = now_ms() - i64::from(args.older_than) * 3_600_000;
    let mut table = Table::new(&["RUN", "OBJECTS-REMOVED"]);
    let mut values = Vec::new();
    for run in repository.unfinished().await?.into_iter().filter(|run| run.begun_ms <= before) {
        let removed = match args.execute {
            true => Some(repository.remove_unfinished(&run.id).await?),
            false => None,
        };
        table.row([run.id.clone(), removed.map_or("-".to_owned(), |removed| removed.to_string())]);
        values.push(json!({"run": run.id, "objects_removed": removed}));
    }
    output::result(context.format(args.output), &Value::Array(values), &[table])?;
    if !args.execute {
        output::note("Nothing was changed; add --execute to do it.");
    }
    Ok(())
}
