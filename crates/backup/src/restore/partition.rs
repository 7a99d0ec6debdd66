//! Writes one partition, or compares it with what is there already.

use std::collections::VecDeque;
use std::sync::Arc;

use taccola_base::{TopicPartition, Uuid};
use taccola_client::{BatchWriter, Client, IsolationLevel, ProducerId};
use taccola_remote::Store;
use taccola_wire::batch::{BatchHeader, HEADER_BYTES};

use super::reader::PartitionReader;
use crate::chain::Chain;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::rewrite::{Outgoing, SourceOffsets, Translation};
use crate::source::{Source, Step};

/// One partition of a restore.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// As it is called in the backup.
    pub(super) topic: String,
    pub(super) target: TopicPartition,
    pub(super) topic_id: Uuid,
    /// Where the first restored record stands or shall stand.
    pub(super) base: i64,
    /// End of the target's log: what lies between `base` and here must be what the restore would have written.
    pub(super) end: i64,
    /// Committed offsets to translate.
    pub(super) offsets: Vec<i64>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(super) struct Restored {
    pub(super) work: Work,
    /// Records that were written now, and those that were there.
    pub(super) written: i64,
    pub(super) found: i64,
    /// Every record has the offset that it had.
    pub(super) offsets_kept: bool,
    /// End of the target's log.
    pub(super) end: i64,
    /// Committed offsets before and after.
    pub(super) translated: Vec<(i64, i64)>,
}

/// What all partitions share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) chain: Arc<Chain>,
    pub(super) producer: ProducerId,
    pub(super) progress: Progress,
}

/// Restores one partition: compares as far as the target reaches, writes the rest.
pub(super) async fn restore(shared: &Shared, client: &Client, work: Work) -> Result<Restored> {
    let mut reader = PartitionReader::new(&shared.store, &shared.chain, &work.topic, work.target.partition)?;
    let mut target = Target::new(client, &work);
    let mut writer = BatchWriter::new(client.clone(), work.target.clone(), shared.producer);
    let mut expected = VecDeque::new();
    let mut translation = Translation::new(work.offsets.iter().copied());
    let (mut next, mut written, mut offsets_kept) = (work.base, 0, true);
    while let Some(found) = reader.next().await? {
        let count = found.offsets.count();
        offsets_kept &= found.offsets == SourceOffsets::Dense { first: next, count };
        translation.written(&found.offsets, next);
        let bytes = found.bytes.len() as u64;
        if next < work.end {
            target.expect(&found, next).await?;
        } else {
            expected.push_back(next);
            let settled = writer.write(found.bytes).await?;
            settle(&work, &mut expected, settled)?;
            written += count;
        }
        next = next.saturating_add(count);
        shared.progress.add(u64::try_from(count).unwrap_or(0), bytes);
    }
    while let Some(offset) = writer.settle().await? {
        settle(&work, &mut expected, Some(offset))?;
    }
    if next < work.end {
        return Err(Error::Refused(format!(
            "{} has offsets up to {} where the backup ends at {next}: it holds something else",
            work.target, work.end
        )));
    }
    let found = next - work.base - written;
    let translated = translation.finish(next).collect();
    Ok(Restored { written, found, offsets_kept, end: next, translated, work })
}

/// A batch that stands elsewhere than planned means that somebody else writes, too.
fn settle(work: &Work, expected: &mut VecDeque<i64>, settled: Option<i64>) -> Result<()> {
    let Some(offset) = settled else { return Ok(()) };
    match expected.pop_front() {
        Some(planned) if planned == offset => Ok(()),
        planned => Err(Error::Refused(format!(
            "{}: a batch came to offset {offset} instead of {}: another producer writes to the topic",
            work.target,
            planned.unwrap_or(-1)
        ))),
    }
}

/// What a target holds already.
struct Target {
    partition: TopicPartition,
    source: Source,
    batches: VecDeque<(BatchHeader, bytes::Bytes)>,
}

impl Target {
    fn new(client: &Client, work: &Work) -> Self {
        let level = IsolationLevel::ReadUncommitted;
        let source =
            Source::new(client.clone(), work.target.clone(), work.topic_id, level, work.base..work.end.max(work.base));
        Self { partition: work.target.clone(), source, batches: VecDeque::new() }
    }

    /// The target's next batch must be this one, at this offset.
    async fn expect(&mut self, wanted: &Outgoing, at: i64) -> Result<()> {
        while self.batches.is_empty() {
            match self.source.next().await? {
                Step::Batches(batches) => self.batches.extend(batches),
                Step::Removed(_) | Step::Gone | Step::End => return Err(self.differs(at)),
            }
        }
        let same = self
            .batches
            .pop_front()
            .is_some_and(|(header, batch)| header.base_offset == at && same_records(&header, &batch, &wanted.bytes));
        if same { Ok(()) } else { Err(self.differs(at)) }
    }

    fn differs(&self, at: i64) -> Error {
        Error::Refused(format!("{} at offset {at} holds something else than the backup", self.partition))
    }
}

/// Whether two batches hold the same records; offsets, producer and leader epoch aside.
fn same_records(header: &BatchHeader, batch: &[u8], wanted: &[u8]) -> bool {
    let Ok(other) = BatchHeader::parse_whole(wanted) else { return false };
    let of = |header: &BatchHeader| {
        (header.attributes, header.last_offset_delta, header.base_timestamp, header.max_timestamp, header.records_count)
    };
    of(header) == of(&other) && batch.get(HEADER_BYTES..header.size_bytes()) == wanted.get(HEADER_BYTES..)
}
