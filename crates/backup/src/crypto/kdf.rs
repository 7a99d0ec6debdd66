//! Master keys: from a passphrase by Argon2id (RFC 9106) or PBKDF2-HMAC-SHA-256 (RFC 8018), or from a key file.
//!
//! Parameters stand in the manifest, where anybody who can write there can change them, so that they are bounded both ways:
//! upwards against a derivation that eats the machine, downwards against one that the next backup of a chain would inherit
//! and that costs an attacker nothing.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use aws_lc_rs::pbkdf2;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{CryptoError, KEY_BYTES, Secret, derive, hex, random, unhex};

/// Memory of Argon2id in KiB.
const ARGON2_MEMORY: RangeInclusive<u32> = 8 * 1024..=1024 * 1024;
/// Passes over that memory.
const ARGON2_PASSES: RangeInclusive<u32> = 1..=32;
/// Lanes; they are computed one after the other here.
const ARGON2_LANES: RangeInclusive<u32> = 1..=16;
const PBKDF2_ITERATIONS: RangeInclusive<u32> = 100_000..=10_000_000;
const SALT_BYTES: RangeInclusive<usize> = 16..=64;
/// Shortest passphrase that a backup is made with.
const PASSPHRASE_MIN: usize = 8;
/// A passphrase or key file that is longer is something else.
pub(crate) const SECRET_FILE_MAX: usize = 4096;

/// A passphrase; wiped when dropped, never shown.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// One end of line at the end is not part of it: editors and `echo` leave one.
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, CryptoError> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let secret = Self(Zeroizing::new(bytes));
        match secret.0.len() {
            0..PASSPHRASE_MIN => {
                Err(CryptoError::Kdf(format!("wants a passphrase of at least {PASSPHRASE_MIN} bytes")))
            }
            n if n > SECRET_FILE_MAX => Err(CryptoError::Kdf(format!("takes at most {SECRET_FILE_MAX} bytes"))),
            _ => Ok(secret),
        }
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(***)")
    }
}

/// How the master key comes about. Stored with each backup; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kdf {
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        salt: String,
    },
    Pbkdf2HmacSha256 {
        iterations: u32,
        salt: String,
    },
    /// The file holds the master key itself.
    KeyFile,
}

impl Kdf {
    /// RFC 9106's second recommendation: 64 MiB, 3 passes, 4 lanes.
    pub fn argon2id() -> Result<Self, CryptoError> {
        Ok(Self::Argon2id { memory_kib: 64 * 1024, passes: 3, lanes: 4, salt: hex(&random::<16>()?) })
    }

    /// OWASP's figure for HMAC-SHA-256.
    pub fn pbkdf2() -> Result<Self, CryptoError> {
        Ok(Self::Pbkdf2HmacSha256 { iterations: 600_000, salt: hex(&random::<16>()?) })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Argon2id { .. } => "argon2id",
            Self::Pbkdf2HmacSha256 { .. } => "pbkdf2-hmac-sha256",
            Self::KeyFile => "key-file",
        }
    }

    /// Refuses parameters out of bounds before any work is done.
    pub fn check(&self) -> Result<(), CryptoError> {
        let within = |name: &str, value: u32, range: RangeInclusive<u32>| match range.contains(&value) {
            true => Ok(()),
            false => {
                let (min, max) = range.into_inner();
                Err(CryptoError::Kdf(format!("is refused: {name}={value} is not between {min} and {max}")))
            }
        };
        match self {
            Self::Argon2id { memory_kib, passes, lanes, salt } => {
                within("memory_kib", *memory_kib, ARGON2_MEMORY)?;
                within("passes", *passes, ARGON2_PASSES)?;
                within("lanes", *lanes, ARGON2_LANES)?;
                salt_of(salt).map(|_| ())
            }
            Self::Pbkdf2HmacSha256 { iterations, salt } => {
                within("iterations", *iterations, PBKDF2_ITERATIONS)?;
                salt_of(salt).map(|_| ())
            }
            Self::KeyFile => Ok(()),
        }
    }
}

fn salt_of(text: &str) -> Result<Vec<u8>, CryptoError> {
    let salt = unhex(text).filter(|salt| SALT_BYTES.contains(&salt.len()));
    salt.ok_or_else(|| CryptoError::Kdf("is refused: its salt is not 16 to 64 bytes in hex".to_owned()))
}

/// The key that wraps data keys. It never encrypts anything else.
pub struct MasterKey {
    pub(super) secret: Secret,
    kdf: Kdf,
}

impl MasterKey {
    /// Takes a while, on purpose.
    pub fn from_passphrase(passphrase: &Passphrase, kdf: &Kdf) -> Result<Self, CryptoError> {
        kdf.check()?;
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        match kdf {
            Kdf::Argon2id { memory_kib, passes, lanes, salt } => {
                let wrong = |error: argon2::Error| CryptoError::Kdf(format!("failed: {error}"));
                let params = argon2::Params::new(*memory_kib, *passes, *lanes, Some(KEY_BYTES)).map_err(wrong)?;
                let hash = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
                hash.hash_password_into(&passphrase.0, &salt_of(salt)?, secret.as_mut()).map_err(wrong)?;
            }
            Kdf::Pbkdf2HmacSha256 { iterations, salt } => {
                let iterations = NonZeroU32::new(*iterations).ok_or(CryptoError::Library("PBKDF2"))?;
                let salt = salt_of(salt)?;
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, &passphrase.0, secret.as_mut());
            }
            Kdf::KeyFile => {
                return Err(CryptoError::Kdf("is a key file, not a passphrase: give --key-file".to_owned()));
            }
        }
        Ok(Self { secret, kdf: kdf.clone() })
    }

    /// 32 bytes as they are, or as 64 hexadecimal digits with or without an end of line.
    pub fn from_key_file(mut bytes: Vec<u8>) -> Result<Self, CryptoError> {
        let key = match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Zeroizing::new(key)),
            Err(_) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| unhex(text.trim_end()))
                .map(Zeroizing::new)
                .and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok())
                .map(Zeroizing::new)
                .ok_or(CryptoError::KeyFile("holds neither 32 bytes nor 64 hexadecimal digits")),
        };
        bytes.zeroize();
        let secret = key?;
        match secret.iter().all(|byte| *byte == 0) {
            true => Err(CryptoError::KeyFile("holds only zeros")),
            false => Ok(Self { secret, kdf: Kdf::KeyFile }),
        }
    }

    pub fn kdf(&self) -> &Kdf {
        &self.kdf
    }

    /// Names the key without giving it away: equal keys have equal ids.
    pub fn id(&self) -> Result<String, CryptoError> {
        Ok(hex(derive::<8>(self.secret.as_ref(), &[b"taccola-backup v1 key id"])?.as_ref()))
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKey").field("kdf", &self.kdf).finish_non_exhaustive()
    }
}
