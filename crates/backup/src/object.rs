//! Objects in the store: written as a stream of sealed chunks, read by ranges of their plain contents.

use std::ops::Range;

use aws_lc_rs::digest;
use taccola_remote::{RemoteError, Store, Upload};

use crate::crypto::{CHUNK_BYTES, Cipher, HEADER_BYTES, ObjectKey, Secret, hex, stored_bytes};
use crate::error::{Error, Result};
use crate::manifest::{Identity, Object};
use crate::repository::Repository;

const CHUNK: u64 = CHUNK_BYTES as u64;

/// What all objects of one backup have in common.
#[derive(Clone, Copy)]
pub(crate) struct Sealing<'a> {
    pub(crate) backup: &'a str,
    pub(crate) cipher: Cipher,
    pub(crate) data_key: Option<&'a Secret>,
}

/// Writes one object; there is none before [`ObjectWriter::finish`] returned.
pub(crate) struct ObjectWriter {
    name: String,
    key: ObjectKey,
    cipher: Cipher,
    upload: Upload,
    hash: digest::Context,
    /// Plain bytes of the chunk that is not sealed yet, as it may be the last.
    chunk: Vec<u8>,
    index: u64,
    plain: u64,
}

impl ObjectWriter {
    /// A name is used once in a backup: its key and nonces are its own.
    pub(crate) async fn begin(store: &Store, sealing: Sealing<'_>, number: u32) -> Result<Self> {
        let name = format!("{number:06}");
        let key = ObjectKey::new(sealing.cipher, sealing.data_key, sealing.backup, &name)?;
        let upload = store.upload(&Repository::object_key(sealing.backup, &name))?;
        let mut writer = Self {
            name,
            cipher: sealing.cipher,
            upload,
            hash: digest::Context::new(&digest::SHA256),
            chunk: Vec::with_capacity(CHUNK_BYTES),
            index: 0,
            plain: 0,
            key,
        };
        let header = writer.key.header();
        writer.put(&header).await?;
        Ok(writer)
    }

    /// Plain bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.plain
    }

    async fn put(&mut self, stored: &[u8]) -> Result<()> {
        self.hash.update(stored);
        Ok(self.upload.write(stored).await?)
    }

    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.plain += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_BYTES {
                self.seal(false).await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    async fn seal(&mut self, last: bool) -> Result<()> {
        let mut sealed = Vec::with_capacity(self.chunk.len() + self.cipher.tag_bytes());
        self.key.seal(self.index, last, &self.chunk, &mut sealed)?;
        self.chunk.clear();
        self.index += 1;
        self.put(&sealed).await
    }

    pub(crate) async fn finish(mut self) -> Result<Object> {
        self.seal(true).await?;
        let bytes = self.upload.written();
        self.upload.finish().await?;
        let sha256 = hex(self.hash.finish().as_ref());
        Ok(Object { name: self.name, bytes, plain_bytes: self.plain, sha256 })
    }

    pub(crate) async fn abort(self) {
        self.upload.abort().await;
    }
}

/// Reads one object of a backup.
pub(crate) struct ObjectReader {
    store: Store,
    /// In the store.
    pub(crate) name: String,
    key: ObjectKey,
    cipher: Cipher,
    plain: u64,
}

impl ObjectReader {
    pub(crate) fn new(store: &Store, sealing: Sealing<'_>, object: &Object) -> Result<Self> {
        Ok(Self {
            store: store.clone(),
            name: Repository::object_key(sealing.backup, &object.name),
            key: ObjectKey::new(sealing.cipher, sealing.data_key, sealing.backup, &object.name)?,
            cipher: sealing.cipher,
            plain: object.plain_bytes,
        })
    }

    fn chunks(&self) -> u64 {
        self.plain.div_ceil(CHUNK).max(1)
    }

    /// Bytes of every chunk but the last, as it lies in the store.
    pub(crate) fn sealed_chunk(&self) -> u64 {
        CHUNK + self.cipher.tag_bytes() as u64
    }

    /// Where a chunk lies in the store.
    fn stored(&self, index: u64) -> Range<u64> {
        let start = HEADER_BYTES as u64 + index * self.sealed_chunk();
        start..(start + self.sealed_chunk()).min(stored_bytes(self.cipher, self.plain))
    }

    /// What a chunk holds of the plain contents.
    pub(crate) fn contents(&self, index: u64) -> Range<u64> {
        (index * CHUNK).min(self.plain)..((index + 1) * CHUNK).min(self.plain)
    }

    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        self.key.header()
    }

    /// Opens one chunk.
    pub(crate) fn open<'a>(&self, index: u64, sealed: &'a mut [u8]) -> Result<&'a [u8]> {
        let opened = self.key.open(index, index + 1 == self.chunks(), sealed);
        opened.map_err(|error| Error::damaged(&self.name, format!("chunk {index} {error}")))
    }

    /// Plain contents; whole chunks are fetched and opened for it.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.end > self.plain {
            return Err(Error::damaged(&self.name, "is shorter than the manifest says"));
        }
        let (first, last) = (range.start / CHUNK, (range.end - 1) / CHUNK);
        let stored = self.stored(first).start..self.stored(last).end;
        let sealed = self.store.get(&self.name, stored).await.map_err(|error| lost(&self.name, error))?;
        let mut plain = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let size = usize::try_from(self.sealed_chunk()).unwrap_or(usize::MAX);
        for (index, chunk) in (first..).zip(sealed.chunks(size)) {
            let mut chunk = chunk.to_vec();
            let opened = self.open(index, &mut chunk)?;
            let start = index * CHUNK;
            let from = usize::try_from(range.start.saturating_sub(start)).unwrap_or(0);
            let to = usize::try_from(range.end - start).unwrap_or(usize::MAX).min(opened.len());
            plain.extend_from_slice(opened.get(from..to).unwrap_or_default());
        }
        Ok(plain)
    }
}

/// What is missing or short is damage; what cannot be reached is not.
pub(crate) fn lost(name: &str, error: RemoteError) -> Error {
    match error {
        RemoteError::NotFound { .. } => Error::damaged(name, "is missing"),
        RemoteError::Short { have, want, .. } => {
            Error::damaged(name, format!("is cut off: {have} bytes where {want} were expected"))
        }
        error => error.into(),
    }
}

impl<'a> Sealing<'a> {
    pub(crate) fn of(identity: &'a Identity, data_key: Option<&'a Secret>) -> Self {
        Self { backup: &identity.id, cipher: identity.cipher, data_key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::new_data_key;

    #[tokio::test]
    async fn any_range_reads_back() {
        let store = Store::memory();
        for cipher in Cipher::ALL {
            let key = new_data_key().unwrap();
            for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 200_000] {
                let sealing = Sealing { backup: "b", cipher, data_key: Some(&key) };
                let plain: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
                let mut writer = ObjectWriter::begin(&store, sealing, 1).await.unwrap();
                for piece in plain.chunks(10_007) {
                    writer.write(piece).await.unwrap();
                }
                let object = writer.finish().await.unwrap();
                assert_eq!(object.bytes, stored_bytes(cipher, size as u64));
                assert_eq!(store.head("data/b/000001").await.unwrap(), object.bytes);
                let reader = ObjectReader::new(&store, sealing, &object).unwrap();
                for range in [0..size, 0..size / 2, size / 3..size, size / 2..size / 2 + 1] {
                    let range = range.start.min(size)..range.end.min(size);
                    let read = reader.read(range.start as u64..range.end as u64).await.unwrap();
                    assert_eq!(read, &plain[range]);
                }
                assert!(reader.read(0..size as u64 + 1).await.is_err());
            }
        }
    }
}
