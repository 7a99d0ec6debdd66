//! What a backup is: one manifest, written last and never over another. Owns the format of manifests; docs/backup.md has it in
//! words.
//!
//! ```text
//! TKBM 01 00 00 00
//! u32 length, identity   JSON in the clear: who it is, its parent, its objects with sizes and checksums
//! u32 length, envelope   JSON in the clear: how to come by the data key; empty without encryption
//! u64 length, body       JSON, sealed like an object: topics, offsets, groups, configs, ACLs
//! 32 bytes               SHA-256 of all that
//! ```
//!
//! The identity's digest is part of the name under which the body is sealed, so that nothing in the identity can be changed
//! unnoticed when there is a key. The envelope stands outside: it may be replaced.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::contents::Contents;
use crate::crypto::{
    CHUNK_BYTES, Cipher, CryptoError, Envelope, MasterKey, ObjectKey, Secret, hex, sha256, stored_bytes,
};
use crate::error::{Error, Result};

/// Largest manifest that is read; with 150 bytes per partition that is some millions of them.
pub const MANIFEST_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Newest format that is understood.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"TKBM\x01\0\0\0";
const DIGEST_BYTES: usize = 32;

/// The public part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub format: u32,
    /// Sorts by time: see [`crate::repository::new_id`].
    pub id: String,
    /// Milliseconds since 1970, by the clock of the machine that made it.
    pub created_ms: i64,
    /// Who wrote it, with version.
    pub tool: String,
    pub parent: Option<Parent>,
    pub cipher: Cipher,
    /// In the order of their numbers, which extents refer to.
    pub objects: Vec<Object>,
    /// Of the body, before sealing.
    pub body_bytes: u64,
}

/// The backup that an incremental one continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    pub id: String,
    /// [`Manifest::digest`]: another manifest under the same name is not the parent.
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    pub name: String,
    /// In the store.
    pub bytes: u64,
    /// What is in it.
    pub plain_bytes: u64,
    /// SHA-256 of the bytes in the store, in hexadecimal: damage can be looked for without a key.
    pub sha256: String,
}

/// A manifest as far as it can be read without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub identity: Identity,
    pub envelope: Option<Envelope>,
    /// As they were read: the digest is of bytes.
    identity_json: Vec<u8>,
    body: Vec<u8>,
}

impl Manifest {
    /// Seals the contents. `data_key` with its envelope when the identity's cipher encrypts.
    pub fn seal(
        mut identity: Identity,
        envelope: Option<Envelope>,
        data_key: Option<&Secret>,
        contents: &Contents,
    ) -> Result<Self> {
        let plain = json(contents)?;
        identity.body_bytes = plain.len() as u64;
        let identity_json = json(&identity)?;
        let key = body_key(&identity, &identity_json, data_key)?;
        let mut body = Vec::new();
        let chunks = plain.len().div_ceil(CHUNK_BYTES).max(1);
        for index in 0..chunks {
            let from = index * CHUNK_BYTES;
            let chunk = plain.get(from..plain.len().min(from + CHUNK_BYTES)).unwrap_or_default();
            key.seal(index as u64, index + 1 == chunks, chunk, &mut body)?;
        }
        Ok(Self { identity, envelope, identity_json, body })
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        let envelope = self.envelope.as_ref().map(json).transpose()?.unwrap_or_default();
        let mut out = Vec::with_capacity(self.identity_json.len() + self.body.len() + 1024);
        out.extend_from_slice(MAGIC);
        for part in [&self.identity_json, &envelope] {
            let length = u32::try_from(part.len()).map_err(|_| Error::Invalid("too many objects".to_owned()))?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&(self.body.len() as u64).to_be_bytes());
        out.extend_from_slice(&self.body);
        let digest = sha256(&out);
        out.extend_from_slice(&digest);
        Ok(out)
    }

    /// Reads what needs no key. `name` is for messages, `id` is the one that the store's key promises.
    pub fn decode(name: &str, id: &str, bytes: &[u8]) -> Result<Self> {
        let damaged = |reason: &str| Error::damaged(name, reason);
        let split = bytes.len().checked_sub(DIGEST_BYTES).ok_or_else(|| damaged("is cut off"))?;
        let (covered, digest) = bytes.split_at_checked(split).ok_or_else(|| damaged("is cut off"))?;
        if covered.get(..4) != MAGIC.get(..4) {
            return Err(damaged("is no manifest of a backup"));
        }
        if sha256(covered) != digest {
            return Err(damaged("is damaged: its checksum does not match"));
        }
        let mut rest = covered;
        let magic = take(&mut rest, MAGIC.len()).ok_or_else(|| damaged("is cut off"))?;
        if magic != MAGIC {
            return Err(Error::Invalid(format!("{name} is of a newer format; a newer taccola reads it")));
        }
        let identity_json = take_part(&mut rest).ok_or_else(|| damaged("is cut off"))?;
        let envelope = take_part(&mut rest).ok_or_else(|| damaged("is cut off"))?;
        let length = take(&mut rest, 8).and_then(|bytes| bytes.first_chunk::<8>()).map(|b| u64::from_be_bytes(*b));
        if length != Some(rest.len() as u64) {
            return Err(damaged("has a wrong length"));
        }
        let identity: Identity = parse(name, identity_json)?;
        let envelope = if envelope.is_empty() { None } else { Some(parse(name, envelope)?) };
        if identity.format != FORMAT {
            return Err(Error::Invalid(format!("{name} has format {}; this reads {FORMAT}", identity.format)));
        }
        if identity.id != id {
            return Err(Error::damaged(name, format!("is the manifest of {}", identity.id)));
        }
        if identity.cipher.encrypts() != envelope.is_some() || identity.body_bytes > MANIFEST_BYTES_MAX {
            return Err(damaged("contradicts itself"));
        }
        for object in &identity.objects {
            if object.bytes != stored_bytes(identity.cipher, object.plain_bytes) {
                return Err(damaged("contradicts itself"));
            }
        }
        Ok(Self { identity, envelope, identity_json: identity_json.to_vec(), body: rest.to_vec() })
    }

    /// What a child names its parent by. A new envelope does not change it.
    pub fn digest(&self) -> String {
        let mut covered = self.identity_json.clone();
        covered.extend_from_slice(&self.body);
        hex(&sha256(&covered))
    }

    /// The data key; `None` without encryption.
    pub fn data_key(&self, master: Option<&MasterKey>) -> Result<Option<Secret>> {
        let id = &self.identity.id;
        let Some(envelope) = &self.envelope else { return Ok(None) };
        let master = master.ok_or_else(|| Error::KeyMissing(id.clone()))?;
        let opened = envelope.open(master, id, self.identity.cipher);
        opened.map(Some).map_err(|source| Error::Key { backup: id.clone(), source })
    }

    /// The body.
    pub fn contents(&self, data_key: Option<&Secret>) -> Result<Contents> {
        let identity = &self.identity;
        let name = format!("manifest of {}", identity.id);
        let tag = identity.cipher.tag_bytes();
        let key = body_key(identity, &self.identity_json, data_key)?;
        let chunks = (identity.body_bytes).div_ceil(CHUNK_BYTES as u64).max(1);
        if self.body.len() as u64 != identity.body_bytes + chunks * tag as u64 {
            return Err(Error::damaged(name, "has a wrong length"));
        }
        let mut plain = Vec::with_capacity(self.body.len());
        for (index, chunk) in (0_u64..).zip(self.body.chunks(CHUNK_BYTES + tag)) {
            let mut chunk = chunk.to_vec();
            let opened = key.open(index, index + 1 == chunks, &mut chunk);
            plain.extend_from_slice(opened.map_err(|error| Error::damaged(&name, error))?);
        }
        parse(&name, &plain)
    }
}

/// Sealed under a name that holds the identity's digest.
fn body_key(identity: &Identity, identity_json: &[u8], data_key: Option<&Secret>) -> Result<ObjectKey, CryptoError> {
    let name = format!("manifest {}", hex(&sha256(identity_json)));
    ObjectKey::new(identity.cipher, data_key, &identity.id, &name)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Invalid(format!("cannot be written as JSON: {error}")))
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::damaged(name, format!("cannot be read: {error}")))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(*take(rest, 4)?.first_chunk::<4>()?);
    take(rest, usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Kdf, Passphrase, new_data_key, seal_data_key};

    fn sample(cipher: Cipher) -> (Manifest, Option<Secret>) {
        let identity = Identity {
            format: FORMAT,
            id: "20261121T080000Z-00".to_owned(),
            created_ms: 1,
            tool: "test".to_owned(),
            parent: Some(Parent { id: "p".to_owned(), digest: "d".to_owned() }),
            cipher,
            objects: vec![Object {
                name: "000000".to_owned(),
                bytes: stored_bytes(cipher, 5),
                plain_bytes: 5,
                sha256: "00".repeat(32),
            }],
            body_bytes: 0,
        };
        let kdf = Kdf::Argon2id { memory_kib: 8 * 1024, passes: 1, lanes: 1, salt: "5a".repeat(16) };
        let master = MasterKey::from_passphrase(&Passphrase::new(b"long enough".to_vec()).unwrap(), &kdf).unwrap();
        let data_key = cipher.encrypts().then(|| new_data_key().unwrap());
        let envelope = data_key.as_ref().map(|key| seal_data_key(&master, &identity.id, cipher, key).unwrap());
        let contents = Contents { notes: vec!["n".repeat(200_000)], ..Default::default() };
        (Manifest::seal(identity, envelope, data_key.as_ref(), &contents).unwrap(), data_key)
    }

    #[test]
    fn manifests_come_back_as_they_were() {
        for cipher in Cipher::ALL {
            let (manifest, key) = sample(cipher);
            let bytes = manifest.encode().unwrap();
            let read = Manifest::decode("m", &manifest.identity.id, &bytes).unwrap();
            assert_eq!(read, manifest);
            assert_eq!(read.contents(key.as_ref()).unwrap().notes[0].len(), 200_000);
            assert!(Manifest::decode("m", "another", &bytes).is_err());
        }
    }

    #[test]
    fn any_damage_is_found() {
        for cipher in [Cipher::None, Cipher::Aes256Gcm] {
            let (manifest, key) = sample(cipher);
            let bytes = manifest.encode().unwrap();
            let id = &manifest.identity.id;
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 3000).chain(0..400) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(Manifest::decode("m", id, &damaged).is_err(), "byte {at}");
                assert!(Manifest::decode("m", id, &bytes[..at]).is_err(), "cut at {at}");
            }
            // With the checksum mended, a changed identity still does not open.
            let text = String::from_utf8_lossy(&bytes).find("\"created_ms\":1").unwrap() + 13;
            let mut forged = bytes[..bytes.len() - 32].to_vec();
            forged[text] = b'2';
            let digest = sha256(&forged);
            forged.extend_from_slice(&digest);
            let forged = Manifest::decode("m", id, &forged).unwrap();
            assert_eq!(forged.identity.created_ms, 2);
            assert!(forged.contents(key.as_ref()).is_err());
        }
    }
}
