//! Reads one partition out of a chain, batch by batch, checked and made fit to be written.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use taccola_remote::Store;

use crate::chain::{Chain, Piece};
use crate::error::{Error, Result};
use crate::extent::ExtentWalker;
use crate::object::ObjectReader;
use crate::rewrite::{Outgoing, outgoing};

/// Plain bytes that are read at once.
const READ_BYTES: u64 = 1024 * 1024;

/// See the module.
pub(super) struct PartitionReader {
    store: Store,
    chain: Arc<Chain>,
    pieces: VecDeque<Piece>,
    current: Option<Current>,
}

struct Current {
    reader: ObjectReader,
    walker: ExtentWalker,
    /// In the object's plain contents; what was not read yet.
    left: Range<u64>,
    window: Range<i64>,
}

impl PartitionReader {
    pub(super) fn new(store: &Store, chain: &Arc<Chain>, topic: &str, partition: i32) -> Result<Self> {
        let pieces = chain.pieces(topic, partition)?.into();
        Ok(Self { store: store.clone(), chain: Arc::clone(chain), pieces, current: None })
    }

    /// The next batch with records that count.
    pub(super) async fn next(&mut self) -> Result<Option<Outgoing>> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(piece) = self.pieces.pop_front() else { return Ok(None) };
                self.current = Some(self.begin(piece)?);
                continue;
            };
            match current.step().await? {
                Some(found) => return Ok(Some(found)),
                None => self.current = None,
            }
        }
    }

    fn begin(&self, piece: Piece) -> Result<Current> {
        let link = self.chain.links().get(piece.link);
        let link = link.ok_or_else(|| Error::Invalid("a piece of another chain".to_owned()))?;
        let extent = &piece.extent;
        Ok(Current {
            reader: link.reader(&self.store, extent.object)?,
            walker: ExtentWalker::new(extent),
            left: extent.at..extent.at.saturating_add(extent.bytes),
            window: piece.window,
        })
    }
}

impl Current {
    async fn step(&mut self) -> Result<Option<Outgoing>> {
        loop {
            let damaged = |reason: String| Error::damaged(&self.reader.name, reason);
            if let Some((header, batch)) = self.walker.next_batch().map_err(damaged)? {
                let found = outgoing(&batch, &self.window);
                let found = found.map_err(|error| damaged(format!("at offset {}: {error}", header.base_offset)))?;
                match found {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            }
            if self.left.is_empty() {
                return self.walker.finish().map(|()| None).map_err(damaged);
            }
            let end = self.left.end.min(self.left.start + READ_BYTES);
            let plain = self.reader.read(self.left.start..end).await?;
            self.walker.feed(&plain);
            self.left.start = end;
        }
    }
}
