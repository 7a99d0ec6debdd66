//! Chunks of one object: sealed and opened, each for itself; see the parent module.
//!
//! An object is [`HEADER_BYTES`] in the clear (`TKBO`, version, cipher, chunk size), then its chunks. The header tells tools
//! what they look at; readers take cipher and lengths from the manifest and only compare.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac};

use super::{Cipher, CryptoError, KEY_BYTES, Secret, derive, put_part};

/// Plain bytes of every chunk but the last, which has 1 to so many (0 only if the object is empty).
pub const CHUNK_BYTES: usize = 64 * 1024;
/// What stands in front of the chunks.
pub const HEADER_BYTES: usize = 16;

const MAGIC: &[u8; 4] = b"TKBO";
const FORMAT: u8 = 1;

enum Keys {
    Plain,
    Aead(Box<LessSafeKey>),
    CtrHmac { encrypt: Box<EncryptingKey>, decrypt: Box<DecryptingKey>, mac: Box<hmac::Key> },
}

/// Seals and opens the chunks of one object. Each index must be sealed once only: a writer that begins anew takes another
/// object name.
pub struct ObjectKey {
    cipher: Cipher,
    keys: Keys,
    /// Associated data that all chunks have in common.
    object: Vec<u8>,
}

impl ObjectKey {
    /// `data_key` is not used without encryption.
    pub fn new(cipher: Cipher, data_key: Option<&Secret>, backup: &str, name: &str) -> Result<Self, CryptoError> {
        let mut object = Vec::new();
        for part in [b"taccola-backup v1 object".as_slice(), backup.as_bytes(), name.as_bytes(), &[cipher.id()]] {
            put_part(&mut object, part);
        }
        let secret = || data_key.ok_or(CryptoError::Library("no data key"));
        let keys = match cipher {
            Cipher::None => Keys::Plain,
            Cipher::Aes256Gcm => aead(&AES_256_GCM, secret()?, &object)?,
            Cipher::ChaCha20Poly1305 => aead(&CHACHA20_POLY1305, secret()?, &object)?,
            Cipher::Aes256CtrHmacSha256 => ctr_hmac(secret()?, &object)?,
        };
        Ok(Self { cipher, keys, object })
    }

    /// The bytes in front of the chunks.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let chunk = (CHUNK_BYTES as u32).to_be_bytes();
        let format = [FORMAT, self.cipher.id(), 0, 0];
        let fields = MAGIC.iter().chain(&format).chain(&chunk);
        header.iter_mut().zip(fields).for_each(|(to, from)| *to = *from);
        header
    }

    fn associated_data(&self, index: u64, last: bool) -> Vec<u8> {
        let mut data = self.object.clone();
        data.extend_from_slice(&index.to_be_bytes());
        data.push(u8::from(last));
        data
    }

    /// Appends the sealed chunk to `out`.
    pub fn seal(&self, index: u64, last: bool, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let aad = self.associated_data(index, last);
        let start = out.len();
        out.extend_from_slice(plain);
        let body = out.get_mut(start..).unwrap_or_default();
        match &self.keys {
            Keys::Plain => {
                let tag = checksum(&aad, body);
                out.extend_from_slice(tag.as_ref());
            }
            Keys::Aead(key) => {
                let tag = key
                    .seal_in_place_separate_tag(nonce(index), Aad::from(&aad), body)
                    .map_err(|_| CryptoError::Library("AEAD"))?;
                out.extend_from_slice(tag.as_ref());
            }
            Keys::CtrHmac { encrypt, mac, .. } => {
                encrypt
                    .less_safe_encrypt(body, EncryptionContext::Iv128(counter_block(index)))
                    .map_err(|_| CryptoError::Library("AES-256-CTR"))?;
                let tag = authenticate(mac, &aad, body);
                out.extend_from_slice(tag.as_ref());
            }
        }
        Ok(())
    }

    /// The plain bytes of a sealed chunk, in its place.
    pub fn open<'a>(&self, index: u64, last: bool, chunk: &'a mut [u8]) -> Result<&'a [u8], CryptoError> {
        let aad = self.associated_data(index, last);
        let body = chunk.len().checked_sub(self.cipher.tag_bytes()).ok_or(CryptoError::Authentication)?;
        if let Keys::Aead(key) = &self.keys {
            let plain = key.open_in_place(nonce(index), Aad::from(&aad), chunk);
            return plain.map(|plain| &*plain).map_err(|_| CryptoError::Authentication);
        }
        let (body, tag) = chunk.split_at_mut_checked(body).ok_or(CryptoError::Authentication)?;
        match &self.keys {
            Keys::Plain | Keys::Aead(_) => match checksum(&aad, body).as_ref() == &*tag {
                true => Ok(body),
                false => Err(CryptoError::Authentication),
            },
            Keys::CtrHmac { decrypt, mac, .. } => {
                // Constant in time; nothing is decrypted before it matches.
                hmac::verify(mac, &authenticated(&aad, body), tag).map_err(|_| CryptoError::Authentication)?;
                let context = DecryptionContext::Iv128(counter_block(index));
                decrypt.decrypt(body, context).map(|plain| &*plain).map_err(|_| CryptoError::Authentication)
            }
        }
    }
}

/// Bytes of an object in the store whose plain contents have `plain` bytes.
pub fn stored_bytes(cipher: Cipher, plain: u64) -> u64 {
    let chunks = plain.div_ceil(CHUNK_BYTES as u64).max(1);
    plain.saturating_add(HEADER_BYTES as u64).saturating_add(chunks.saturating_mul(cipher.tag_bytes() as u64))
}

fn aead(algorithm: &'static Algorithm, secret: &Secret, object: &[u8]) -> Result<Keys, CryptoError> {
    let key = derive::<KEY_BYTES>(secret.as_ref(), &[object])?;
    let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| CryptoError::Library("AEAD"))?;
    Ok(Keys::Aead(Box::new(LessSafeKey::new(key))))
}

fn ctr_hmac(secret: &Secret, object: &[u8]) -> Result<Keys, CryptoError> {
    let failed = |_| CryptoError::Library("AES-256-CTR");
    let encryption = derive::<KEY_BYTES>(secret.as_ref(), &[object, b" encryption"])?;
    let mac = derive::<KEY_BYTES>(secret.as_ref(), &[object, b" authentication"])?;
    let key = || UnboundCipherKey::new(&AES_256, encryption.as_ref()).map_err(failed);
    Ok(Keys::CtrHmac {
        encrypt: Box::new(EncryptingKey::ctr(key()?).map_err(failed)?),
        decrypt: Box::new(DecryptingKey::ctr(key()?).map_err(failed)?),
        mac: Box::new(hmac::Key::new(hmac::HMAC_SHA256, mac.as_ref())),
    })
}

/// 96 bits: the chunk's index. The key belongs to this object alone.
fn nonce(index: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce.iter_mut().skip(4).zip(index.to_be_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(nonce)
}

/// The first counter block: the index in the upper 96 bits, and 32 bits to count a chunk's 4,096 blocks with.
fn counter_block(index: u64) -> FixedLength<16> {
    let mut block = [0; 16];
    block.iter_mut().skip(4).zip(index.to_be_bytes()).for_each(|(to, from)| *to = from);
    FixedLength::from(&block)
}

fn checksum(aad: &[u8], body: &[u8]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(aad.len() as u64).to_be_bytes());
    context.update(aad);
    context.update(body);
    context.finish()
}

/// What the MAC covers: associated data with its length, then the ciphertext.
fn authenticated(aad: &[u8], body: &[u8]) -> Vec<u8> {
    let mut covered = Vec::with_capacity(aad.len() + body.len() + 8);
    put_part(&mut covered, aad);
    covered.extend_from_slice(body);
    covered
}

fn authenticate(mac: &hmac::Key, aad: &[u8], body: &[u8]) -> hmac::Tag {
    hmac::sign(mac, &authenticated(aad, body))
}
