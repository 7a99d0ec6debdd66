//! An object that is written in pieces of any size without being in memory as a whole: parts of [`PART_BYTES`], one request each, and
//! one more that makes the object of them. Before [`Upload::finish`] returned there is no object; an upload that is dropped or that
//! failed leaves at most parts, which stores remove by their own rules (S3: a lifecycle rule for incomplete uploads).

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};

use crate::{Operation, PART_BYTES, RemoteError, Store};

/// See the module. From [`Store::upload`].
#[derive(Debug)]
pub struct Upload {
    store: Store,
    key: String,
    path: Path,
    /// Less than a part.
    buffer: BytesMut,
    /// Begun when the first part is full: an object of less is one put.
    parts: Option<Box<dyn MultipartUpload>>,
    written: u64,
}

impl Upload {
    pub(crate) fn new(store: Store, key: String, path: Path) -> Self {
        Self { store, key, path, buffer: BytesMut::new(), parts: None, written: 0 }
    }

    /// Bytes taken until now.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes; returns when whole parts of it are at the store. After an error the upload is over: call
    /// [`Upload::abort`].
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), RemoteError> {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == PART_BYTES {
                let part = self.buffer.split().freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), RemoteError> {
        if self.parts.is_none() {
            let (store, path) = (&self.store, &self.path);
            let begun = store
                .attempt(Operation::Part, &self.key, |_| async move { store.inner().put_multipart(path).await })
                .await?;
            self.parts = Some(begun);
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        self.store.attempt_part(&self.key).await?;
        parts.put_part(PutPayload::from(part)).await.map_err(|error| RemoteError::from_store(&self.key, error))
    }

    /// Makes the object. Whoever calls knows its length from [`Upload::written`] and may compare with [`Store::head`].
    pub async fn finish(mut self) -> Result<(), RemoteError> {
        let rest = self.buffer.split().freeze();
        if self.parts.is_none() {
            return self.store.put(&self.key, rest).await;
        }
        if !rest.is_empty()
            && let Err(error) = self.send(rest).await
        {
            self.abort().await;
            return Err(error);
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let done = match self.store.attempt_complete(&self.key).await {
            Ok(()) => parts.complete().await.map(|_| ()).map_err(|error| RemoteError::from_store(&self.key, error)),
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.abort().await;
        }
        done
    }

    /// Gives up and lets the store forget the parts, if it can be reached.
    pub async fn abort(mut self) {
        if let Some(parts) = &mut self.parts
            && let Err(error) = parts.abort().await
        {
            tracing::debug!(key = %self.key, %error, "parts of a given up upload may be left in the object store");
        }
    }
}

impl Store {
    /// Only what is injected: a part may be sent once, and the store retries it inside.
    async fn attempt_part(&self, key: &str) -> Result<(), RemoteError> {
        self.attempt(Operation::Part, key, |_| std::future::ready(Ok(()))).await
    }

    async fn attempt_complete(&self, key: &str) -> Result<(), RemoteError> {
        self.attempt(Operation::Complete, key, |_| std::future::ready(Ok(()))).await
    }
}
