//! What is encrypted and how, as far as it is mathematics: ciphers, keys, chunks. No store, no clock.
//!
//! An object is cut into chunks of [`CHUNK_BYTES`], each sealed for itself. The key is derived (HKDF-SHA-256) from the
//! backup's data key, the backup's id, the object's name and the cipher, so that it is used for this one object and nothing
//! else; the nonce is the chunk's index. The associated data names backup, object, cipher, index, and whether it is the last
//! chunk: a chunk that is moved, swapped, repeated, or cut off behind does not open.
//!
//! Without encryption the same chunks carry a SHA-256 over the same associated data: damage is found, forgery is not.

mod envelope;
mod kdf;
mod seal;

pub use envelope::{Envelope, seal_data_key};
pub use kdf::{Kdf, MasterKey, Passphrase};
pub use seal::{CHUNK_BYTES, HEADER_BYTES, ObjectKey, stored_bytes};

use aws_lc_rs::{digest, hkdf, rand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Bytes of master and data keys.
pub const KEY_BYTES: usize = 32;

/// A secret of [`KEY_BYTES`]; wiped when dropped.
pub type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// How the contents of objects are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cipher {
    /// Nothing is secret; damage is found by SHA-256.
    #[serde(rename = "none")]
    None,
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// Encrypt, then authenticate what was encrypted.
    #[serde(rename = "aes-256-ctr-hmac-sha-256")]
    Aes256CtrHmacSha256,
}

impl Cipher {
    pub const ALL: [Cipher; 4] =
        [Cipher::None, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305, Cipher::Aes256CtrHmacSha256];

    pub fn name(self) -> &'static str {
        match self {
            Cipher::None => "none",
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
            Cipher::Aes256CtrHmacSha256 => "aes-256-ctr-hmac-sha-256",
        }
    }

    /// As it stands in an object's header and in associated data.
    pub(crate) fn id(self) -> u8 {
        match self {
            Cipher::None => 0,
            Cipher::Aes256Gcm => 1,
            Cipher::ChaCha20Poly1305 => 2,
            Cipher::Aes256CtrHmacSha256 => 3,
        }
    }

    /// Bytes that sealing adds to a chunk.
    pub fn tag_bytes(self) -> usize {
        match self {
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 16,
            Cipher::None | Cipher::Aes256CtrHmacSha256 => 32,
        }
    }

    pub fn encrypts(self) -> bool {
        self != Cipher::None
    }
}

/// Why something does not open. Says no more than that: which byte was wrong is nobody's business.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("is damaged or was changed: its authentication does not match")]
    Authentication,
    #[error("needs key {wanted}; the key given is {given}")]
    WrongKey { wanted: String, given: String },
    #[error("the key derivation {0}")]
    Kdf(String),
    #[error("the key file {0}")]
    KeyFile(&'static str),
    #[error("the cryptographic library failed: {0}")]
    Library(&'static str),
}

/// Fresh bytes from the system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| CryptoError::Library("no random bytes"))?;
    Ok(bytes)
}

/// A new data key.
pub fn new_data_key() -> Result<Secret, CryptoError> {
    Ok(Zeroizing::new(random()?))
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA-256 without salt: the secrets that go in are uniform already, or come out of a password hash.
fn derive<const N: usize>(secret: &[u8], info: &[&[u8]]) -> Result<Zeroizing<[u8; N]>, CryptoError> {
    let mut out = Zeroizing::new([0; N]);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    let okm = prk.expand(info, Length(N)).map_err(|_| CryptoError::Library("HKDF"))?;
    okm.fill(out.as_mut()).map_err(|_| CryptoError::Library("HKDF"))?;
    Ok(out)
}

/// Appends a part with its length in front, so that two lists of parts never read the same.
fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks_exact(2).map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect()
}

#[cfg(test)]
mod tests;
