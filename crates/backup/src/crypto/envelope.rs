//! The envelope: a backup's data key, wrapped by a master key. Changing the master key changes the envelope and nothing
//! else.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Cipher, CryptoError, KEY_BYTES, Kdf, MasterKey, Secret, derive, hex, put_part, random, unhex};

/// How data keys are wrapped, whatever cipher the contents have.
const WRAP: &str = "aes-256-gcm";

/// A wrapped data key with everything but the secret that opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`MasterKey::id`] of the key that opens it.
    pub key_id: String,
    pub kdf: Kdf,
    pub wrap: String,
    /// Hexadecimal, like `wrapped`.
    pub nonce: String,
    /// Data key and tag.
    pub wrapped: String,
}

/// What the envelope belongs to: a wrapped key that is carried to another backup does not open there.
fn associated_data(backup: &str, cipher: Cipher, key_id: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for part in [b"taccola-backup v1 envelope".as_slice(), backup.as_bytes(), &[cipher.id()], key_id.as_bytes()] {
        put_part(&mut data, part);
    }
    data
}

fn wrapping_key(master: &MasterKey) -> Result<LessSafeKey, CryptoError> {
    let key = derive::<KEY_BYTES>(master.secret.as_ref(), &[b"taccola-backup v1 wrap"])?;
    let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| CryptoError::Library("AES-256-GCM"))?;
    Ok(LessSafeKey::new(key))
}

/// Wraps a data key. The nonce is random: a master key wraps one key per backup and rotation, far below 2³².
pub fn seal_data_key(
    master: &MasterKey,
    backup: &str,
    cipher: Cipher,
    data_key: &Secret,
) -> Result<Envelope, CryptoError> {
    let key_id = master.id()?;
    let nonce = random::<12>()?;
    let aad = associated_data(backup, cipher, &key_id);
    let mut wrapped = Zeroizing::new(data_key.to_vec());
    wrapping_key(master)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut *wrapped)
        .map_err(|_| CryptoError::Library("AES-256-GCM"))?;
    Ok(Envelope {
        key_id,
        kdf: master.kdf().clone(),
        wrap: WRAP.to_owned(),
        nonce: hex(&nonce),
        wrapped: hex(&wrapped),
    })
}

impl Envelope {
    /// The data key, if this is the right master key and nothing was changed.
    pub fn open(&self, master: &MasterKey, backup: &str, cipher: Cipher) -> Result<Secret, CryptoError> {
        let given = master.id()?;
        if given != self.key_id {
            return Err(CryptoError::WrongKey { wanted: self.key_id.clone(), given });
        }
        let nonce = unhex(&self.nonce).and_then(|nonce| <[u8; 12]>::try_from(nonce).ok());
        let wrapped = unhex(&self.wrapped).filter(|_| self.wrap == WRAP);
        let (Some(nonce), Some(wrapped)) = (nonce, wrapped) else { return Err(CryptoError::Authentication) };
        let mut wrapped = Zeroizing::new(wrapped);
        let aad = associated_data(backup, cipher, &self.key_id);
        let opened = wrapping_key(master)?
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut wrapped)
            .map_err(|_| CryptoError::Authentication)?;
        let key = <[u8; KEY_BYTES]>::try_from(&*opened).map_err(|_| CryptoError::Authentication)?;
        Ok(Zeroizing::new(key))
    }
}
