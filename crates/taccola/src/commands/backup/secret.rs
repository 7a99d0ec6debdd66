//! Keys and passphrases: from files, the environment or the terminal, never from arguments. Nothing is printed of them.

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use taccola_backup::crypto::{Kdf, MasterKey, Passphrase};
use taccola_backup::{Keyring, Unlock};

use crate::cli::{BackupKdf, KeyArgs};
use crate::exit::{CliError, CliResult, Exit};
use crate::output;

/// The variable that holds the passphrase itself.
const VARIABLE: &str = "TACCOLA_BACKUP_PASSPHRASE";
/// Longest key or passphrase file.
const FILE_MAX: u64 = 4096;

pub(super) const HINT: &str =
    "give --key-file, --passphrase-file or --ask-passphrase, or set TACCOLA_BACKUP_PASSPHRASE";

pub(super) fn kdf(kind: BackupKdf) -> CliResult<Kdf> {
    let kdf = match kind {
        BackupKdf::Argon2id => Kdf::argon2id(),
        BackupKdf::Pbkdf2 => Kdf::pbkdf2(),
    };
    kdf.map_err(|error| CliError::failure(error.to_string()))
}

/// What the arguments and the environment give; [`Unlock::Nothing`] if that is nothing. `confirm`: a passphrase that is
/// typed is asked for twice.
pub(super) fn keyring(args: &KeyArgs, confirm: bool) -> CliResult<Keyring> {
    if let Some(file) = &args.key_file {
        return Ok(Keyring::new(Unlock::Key(Arc::new(key_file(file)?))));
    }
    let passphrase = match &args.passphrase_file {
        Some(file) => Some(read(file)?),
        None if args.ask_passphrase => Some(ask("Passphrase: ", confirm)?),
        None => {
            std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(std::ffi::OsString::into_encoded_bytes)
        }
    };
    Ok(Keyring::new(match passphrase {
        Some(bytes) => Unlock::Passphrase(checked(bytes)?),
        None => Unlock::Nothing,
    }))
}

pub(super) fn key_file(file: &Path) -> CliResult<MasterKey> {
    let key = MasterKey::from_key_file(read(file)?);
    key.map_err(|error| {
        CliError::usage(format!("{}: {error}", file.display())).hint("make one with: head -c 32 /dev/urandom > FILE")
    })
}

/// A new master key from a passphrase.
pub(super) fn derived(bytes: Vec<u8>, kind: BackupKdf) -> CliResult<MasterKey> {
    let key = MasterKey::from_passphrase(&checked(bytes)?, &kdf(kind)?);
    key.map_err(|error| CliError::usage(error.to_string()))
}

fn checked(bytes: Vec<u8>) -> CliResult<Passphrase> {
    Passphrase::new(bytes).map_err(|error| CliError::usage(error.to_string()))
}

pub(super) fn read(file: &Path) -> CliResult<Vec<u8>> {
    let failed = |error: std::io::Error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
        CliError::new(exit, format!("{}: {error}", file.display()))
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > FILE_MAX {
        true => {
            Err(CliError::usage(format!("{}: more than {FILE_MAX} bytes are no key and no passphrase", file.display())))
        }
        false => Ok(bytes),
    }
}

/// Reads a line from the terminal without showing it.
pub(super) fn ask(prompt: &str, confirm: bool) -> CliResult<Vec<u8>> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage("standard input is no terminal to ask for a passphrase on").hint(HINT));
    }
    let first = hidden_line(prompt)?;
    if confirm && hidden_line("Once more: ")? != first {
        return Err(CliError::usage("the two passphrases differ"));
    }
    Ok(first)
}

fn hidden_line(prompt: &str) -> CliResult<Vec<u8>> {
    output::progress(prompt);
    let echo = EchoOff::new();
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(FILE_MAX + 1).read_until(b'\n', &mut line);
    drop(echo);
    output::note("");
    read.map_err(CliError::from)?;
    Ok(line)
}

/// The terminal does not show what is typed until this is dropped.
#[cfg(unix)]
struct EchoOff(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl EchoOff {
    fn new() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let changed = tcsetattr(&stdin, OptionalActions::Flush, &hidden).is_ok();
        Self(changed.then_some(before))
    }
}

#[cfg(unix)]
impl Drop for EchoOff {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing better can be done about a terminal that went away.
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Flush, before);
        }
    }
}

#[cfg(not(unix))]
struct EchoOff;

#[cfg(not(unix))]
impl EchoOff {
    fn new() -> Self {
        Self
    }
}
