//! `backup rotate-key`: another master key for the same backups. Only envelopes are written anew; objects, and the digests by
//! which children know their parents, stay.

use crate::crypto::{MasterKey, seal_data_key};
use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::manifest::Manifest;
use crate::repository::Repository;

/// Wraps the data key of one backup with the new master key. Nothing is written unless the old one opens it.
pub async fn rotate(repository: &Repository, id: &str, old: &Keyring, new: &MasterKey) -> Result<Manifest> {
    let mut manifest = repository.manifest(id).await?;
    let master = old.for_manifest(&manifest)?;
    let data_key = manifest.data_key(master.as_deref())?;
    let data_key = data_key.ok_or_else(|| Error::Invalid(format!("backup {id} is not encrypted")))?;
    // It opens what it should, not just the envelope.
    manifest.contents(Some(&data_key))?;
    manifest.envelope = Some(seal_data_key(new, id, manifest.identity.cipher, &data_key)?);
    repository.replace(&manifest).await?;
    Ok(manifest)
}
