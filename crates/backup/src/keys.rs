//! What a caller can open backups with: a passphrase, a key file, or nothing. Derived keys are kept, as deriving one is slow
//! on purpose and a chain of backups usually shares it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto::{Kdf, MasterKey, Passphrase};
use crate::error::{Error, Result};
use crate::manifest::Manifest;

/// See the module.
pub enum Unlock {
    Nothing,
    Passphrase(Passphrase),
    Key(Arc<MasterKey>),
}

/// [`Unlock`] with the keys that were derived so far.
pub struct Keyring {
    unlock: Unlock,
    derived: Mutex<Vec<Arc<MasterKey>>>,
}

impl Keyring {
    pub fn new(unlock: Unlock) -> Self {
        Self { unlock, derived: Mutex::default() }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.unlock, Unlock::Nothing)
    }

    /// The master key that a derivation gives; `None` when there is nothing to derive from.
    pub fn master(&self, kdf: &Kdf) -> Result<Option<Arc<MasterKey>>> {
        let passphrase = match &self.unlock {
            Unlock::Nothing => return Ok(None),
            Unlock::Key(key) => return Ok(Some(Arc::clone(key))),
            Unlock::Passphrase(passphrase) => passphrase,
        };
        // Held while it derives, so that nobody derives the same at the same time.
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = derived.iter().find(|key| key.kdf() == kdf) {
            return Ok(Some(Arc::clone(key)));
        }
        let key = Arc::new(MasterKey::from_passphrase(passphrase, kdf)?);
        derived.push(Arc::clone(&key));
        Ok(Some(key))
    }

    /// The key that opens a manifest; `None` when it needs none, or when there is none.
    pub fn for_manifest(&self, manifest: &Manifest) -> Result<Option<Arc<MasterKey>>> {
        let Some(envelope) = &manifest.envelope else { return Ok(None) };
        let id = &manifest.identity.id;
        self.master(&envelope.kdf).map_err(|error| match error {
            Error::Crypto(source) => Error::Key { backup: id.clone(), source },
            error => error,
        })
    }
}
