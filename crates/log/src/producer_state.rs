//! What a log remembers of its producers: the last batches of each for idempotence, and the open transactions.
//! Answers to Kafka's `ProducerStateManager`, `ProducerStateEntry`, `ProducerAppendInfo` (KIP-98, KIP-360, KIP-890) and
//! to the snapshot file (`ProducerSnapshot.json`: version i16 = 1, CRC-32C of what follows it, entries).
//!
//! Kafka's snapshot keeps the last batch of a producer only, so that a retry of an older one is out of order after a
//! restart, and the client, giving up that sequence, writes its records twice. Ours has one entry per remembered batch,
//! oldest first. Kafka's reader lets a later entry of a producer replace an earlier one and thus reads what it always read.
//!
//! Pure: [`ProducerState::check`] judges a batch before it is written, [`ProducerState::update`] notes it afterwards.
//! INVARIANT: `ongoing` holds exactly the producers whose `txn_first_offset` is set, by that offset.
//! LIMIT: [`PRODUCER_IDS_PER_PARTITION_MAX`]; beyond, the longest idle ones without a transaction are forgotten.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use taccola_base::limits::PRODUCER_IDS_PER_PARTITION_MAX;
use taccola_base::planted::{Bug, planted};
use taccola_wire::batch::{BatchHeader, ControlRecord, NO_PRODUCER_EPOCH, NO_SEQUENCE, RecordIter};

use crate::cleaner::ProducerLast;
use crate::error::AppendError;
use crate::partition_log::{AppendOrigin, ProducerSummary};
use crate::verification::{Verification, VerificationGuard};

/// Batches remembered per producer; a retry of an older one is out of order.
const WINDOW: usize = 5;
const SNAPSHOT_VERSION: i16 = 1;
/// Version and CRC stand before what the CRC covers.
const CRC_COVERS_FROM: usize = 6;
const SNAPSHOT_ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

/// One batch that a producer wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BatchMeta {
    last_sequence: i32,
    last_offset: i64,
    /// Last offset less base offset; also last sequence less first sequence.
    offset_delta: i32,
    timestamp: i64,
}

impl BatchMeta {
    fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        if first >= 0 { first as i32 } else { (first + i64::from(i32::MAX) + 1) as i32 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProducerEntry {
    producer_epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    txn_first_offset: Option<i64>,
    /// Oldest first; `count` of them are set.
    batches: [BatchMeta; WINDOW],
    count: u8,
}

impl ProducerEntry {
    const NEW: Self = Self {
        producer_epoch: NO_PRODUCER_EPOCH,
        coordinator_epoch: -1,
        last_timestamp: -1,
        txn_first_offset: None,
        batches: [BatchMeta { last_sequence: 0, last_offset: 0, offset_delta: 0, timestamp: 0 }; WINDOW],
        count: 0,
    };

    fn batches(&self) -> &[BatchMeta] {
        self.batches.get(..usize::from(self.count)).unwrap_or_default()
    }

    fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn set_epoch(&mut self, producer_epoch: i16) {
        if self.producer_epoch != producer_epoch {
            self.producer_epoch = producer_epoch;
            self.count = 0;
        }
    }

    fn push(&mut self, batch: BatchMeta) {
        if usize::from(self.count) == WINDOW {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        if let Some(place) = self.batches.get_mut(usize::from(self.count)) {
            *place = batch;
            self.count += 1;
        }
    }

    /// Makes the batches of an entry that stands before this one in a snapshot the older ones of this.
    fn put_behind(&mut self, older: &Self) {
        if older.producer_epoch != self.producer_epoch {
            return;
        }
        let own = *self;
        (self.batches, self.count) = (older.batches, older.count);
        own.batches().iter().for_each(|batch| self.push(*batch));
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<&BatchMeta> {
        if header.producer_epoch != self.producer_epoch {
            return None;
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let forgotten = usize::from(planted(Bug::FourEntryWindow) && usize::from(self.count) == WINDOW);
        self.batches()
            .iter()
            .skip(forgotten)
            .find(|batch| batch.first_sequence() == first && batch.last_sequence == last)
    }
}

/// A transaction's end, out of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub timestamp: i64,
}

/// What [`ProducerState::check`] says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// Written before, at these offsets (inclusive) and with this max timestamp.
    Duplicate {
        base_offset: i64,
        last_offset: i64,
        timestamp: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The marker's offset.
    pub last_offset: i64,
    pub commit: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
    /// First offset → producer id.
    ongoing: BTreeMap<i64, i64>,
    /// First offset → marker's offset, of transactions that ended at or above the high watermark.
    unreplicated: BTreeMap<i64, i64>,
}

/// The transaction marker in a control batch; `None` in one that compaction emptied or that holds none.
pub(crate) fn marker_of(header: &BatchHeader, batch: &[u8]) -> Option<Marker> {
    if !header.is_control() {
        return None;
    }
    let record = RecordIter::new(&Bytes::copy_from_slice(batch)).ok()?.next()?.ok()?;
    let timestamp = record.timestamp;
    match ControlRecord::decode(&record).ok()? {
        ControlRecord::Abort { coordinator_epoch } => Some(Marker { commit: false, coordinator_epoch, timestamp }),
        ControlRecord::Commit { coordinator_epoch } => Some(Marker { commit: true, coordinator_epoch, timestamp }),
        ControlRecord::Other { .. } => None,
    }
}

fn follows(last: i32, next: i32) -> bool {
    i64::from(next) == i64::from(last) + 1 || (next == 0 && last == i32::MAX)
}

impl ProducerState {
    /// Judges a batch that has a producer id. `marker` is [`marker_of`] for a control batch. Batches of origin
    /// [`AppendOrigin::Replay`] were judged before and are accepted.
    pub(crate) fn check(
        &self,
        header: &BatchHeader,
        marker: Option<&Marker>,
        origin: AppendOrigin,
        verification: Option<&Verification>,
    ) -> Result<Verdict, AppendError> {
        let known = self.producers.get(&header.producer_id);
        let entry = known.unwrap_or(&ProducerEntry::NEW);
        match origin {
            AppendOrigin::Replay => Ok(Verdict::Accept),
            AppendOrigin::Client | AppendOrigin::ClientTransaction { .. } => match entry.duplicate_of(header) {
                Some(_) if planted(Bug::DuplicateAccepted) => Ok(Verdict::Accept),
                Some(batch) => Ok(Verdict::Duplicate {
                    base_offset: batch.last_offset - i64::from(batch.offset_delta),
                    last_offset: batch.last_offset,
                    timestamp: batch.timestamp,
                }),
                None => {
                    // The epoch first: a producer that was fenced must not be told that its transaction is in disorder.
                    check_epoch(header, entry)?;
                    if let AppendOrigin::ClientTransaction { guard } = origin {
                        check_verified(header, entry, guard, verification)?;
                    }
                    check_first_sequence(header, entry, verification)?;
                    check_sequence(header, entry)?;
                    check_txn_state(header, entry)
                }
            },
            AppendOrigin::CoordinatorTransaction { guard } => {
                check_epoch(header, entry)?;
                check_verified(header, entry, guard, verification)?;
                check_txn_state(header, entry)
            }
            AppendOrigin::Coordinator { transaction_version } => match marker {
                Some(marker) => check_marker(header, marker, entry, transaction_version),
                None if header.is_control() => Ok(Verdict::Accept),
                None => {
                    check_epoch(header, entry)?;
                    check_txn_state(header, entry)
                }
            },
        }
    }

    /// Notes a batch that was written at the offsets in its header. Answers the transaction that it ends.
    pub(crate) fn update(&mut self, header: &BatchHeader, marker: Option<&Marker>) -> Option<CompletedTxn> {
        if header.is_control() {
            return marker.and_then(|marker| self.update_marker(header, marker));
        }
        self.make_room(header.producer_id);
        let entry = self.producers.entry(header.producer_id).or_insert(ProducerEntry::NEW);
        entry.set_epoch(header.producer_epoch);
        entry.push(BatchMeta {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        entry.last_timestamp = header.max_timestamp;
        if header.is_transactional() && entry.txn_first_offset.is_none() {
            entry.txn_first_offset = Some(header.base_offset);
            self.ongoing.insert(header.base_offset, header.producer_id);
        }
        None
    }

    fn update_marker(&mut self, header: &BatchHeader, marker: &Marker) -> Option<CompletedTxn> {
        self.make_room(header.producer_id);
        let entry = self.producers.entry(header.producer_id).or_insert(ProducerEntry::NEW);
        entry.set_epoch(header.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_timestamp = marker.timestamp;
        let first_offset = entry.txn_first_offset.take()?;
        Some(CompletedTxn {
            producer_id: header.producer_id,
            first_offset,
            last_offset: header.base_offset,
            commit: marker.commit,
        })
    }

    /// The last stable offset as of the transaction's marker: the first other open transaction, else behind the marker.
    pub(crate) fn stable_offset_at(&self, txn: &CompletedTxn) -> i64 {
        let other = self.ongoing.iter().find(|(_, producer_id)| **producer_id != txn.producer_id);
        other.map_or(txn.last_offset + 1, |(first, _)| *first)
    }

    /// Moves an ended transaction out of the open ones; it stays unstable until the high watermark passes its marker.
    pub(crate) fn complete(&mut self, txn: &CompletedTxn) {
        self.ongoing.remove(&txn.first_offset);
        self.unreplicated.insert(txn.first_offset, txn.last_offset);
    }

    pub(crate) fn high_watermark_moved(&mut self, high_watermark: i64) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, last| *last >= high_watermark);
        }
    }

    pub(crate) fn first_unstable_offset(&self) -> Option<i64> {
        let ongoing = self.ongoing.first_key_value().map(|(first, _)| *first);
        let unreplicated = self.unreplicated.first_key_value().map(|(first, _)| *first);
        match (ongoing, unreplicated) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn ongoing_txn(&self, producer_id: i64, producer_epoch: i16) -> Option<i64> {
        let entry = self.producers.get(&producer_id)?;
        entry.txn_first_offset.filter(|_| entry.producer_epoch == producer_epoch)
    }

    pub(crate) fn epoch_of(&self, producer_id: i64) -> Option<i16> {
        self.producers.get(&producer_id).map(|entry| entry.producer_epoch)
    }

    /// Whether the producer went on behind this sequence under the same epoch.
    pub(crate) fn is_past(&self, producer_id: i64, producer_epoch: i16, sequence: i32) -> bool {
        let entry = self.producers.get(&producer_id).filter(|entry| entry.producer_epoch == producer_epoch);
        let last = entry.map_or(NO_SEQUENCE, ProducerEntry::last_sequence);
        // Sequences wrap: half of them lie behind, half ahead.
        last != NO_SEQUENCE && last.wrapping_sub(sequence) & i32::MAX < 1 << 30
    }

    pub(crate) fn summaries(&self) -> Vec<ProducerSummary> {
        let mut rows: Vec<_> = self
            .producers
            .iter()
            .map(|(id, entry)| ProducerSummary {
                producer_id: *id,
                producer_epoch: entry.producer_epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp_ms: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_txn_start_offset: entry.txn_first_offset.unwrap_or(-1),
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.producer_id);
        rows
    }

    /// What each producer wrote last, for the cleaner.
    pub(crate) fn last_writes(&self) -> HashMap<i64, ProducerLast> {
        let last = |entry: &ProducerEntry| ProducerLast {
            last_data_offset: entry.batches().last().map(|batch| batch.last_offset),
            producer_epoch: entry.producer_epoch,
        };
        self.producers.iter().map(|(id, entry)| (*id, last(entry))).collect()
    }

    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, entry| !is_expired(entry, now_ms, expiration_ms));
        before - self.producers.len()
    }

    fn make_room(&mut self, producer_id: i64) {
        if self.producers.len() < PRODUCER_IDS_PER_PARTITION_MAX || self.producers.contains_key(&producer_id) {
            return;
        }
        let mut idle: Vec<_> = self
            .producers
            .iter()
            .filter(|(_, entry)| entry.txn_first_offset.is_none())
            .map(|(id, entry)| (entry.last_timestamp, *id))
            .collect();
        idle.sort_unstable();
        // Several at once, so that a stream of new producers does not sort for each.
        for (_, id) in idle.iter().take((PRODUCER_IDS_PER_PARTITION_MAX / 64).max(1)) {
            self.producers.remove(id);
        }
    }

    // -- snapshot ----------------------------------------------------------------------------------------------------

    pub(crate) fn encode_snapshot(&self) -> Vec<u8> {
        let stale = usize::from(planted(Bug::SnapshotStale));
        let entries = |entry: &ProducerEntry| entry.batches().len().saturating_sub(stale).max(1);
        let entries: usize = self.producers.values().map(entries).sum();
        let mut out = Vec::with_capacity(10 + entries * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(entries as u32).to_be_bytes());
        let mut ids: Vec<_> = self.producers.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        for (id, entry) in ids {
            let noted = entry.batches();
            let noted =
                if planted(Bug::SnapshotStale) { noted.split_last().map_or(noted, |(_, rest)| rest) } else { noted };
            let (older, last) = match noted.split_last() {
                Some((last, older)) => (older, Some(last)),
                None => (&[][..], None),
            };
            for batch in older {
                encode_entry(&mut out, *id, entry, Some(batch), (batch.timestamp, None));
            }
            encode_entry(&mut out, *id, entry, last, (entry.last_timestamp, entry.txn_first_offset));
        }
        let crc = crc_fast::crc32_iscsi(out.get(CRC_COVERS_FROM..).unwrap_or_default());
        if let Some(place) = out.get_mut(2..CRC_COVERS_FROM) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
        out
    }

    /// Reads a snapshot. Producers idle for `expiration_ms` at `now_ms` are left out.
    pub(crate) fn decode_snapshot(bytes: &[u8], now_ms: i64, expiration_ms: i64) -> Result<Self, String> {
        let (version, rest) = bytes.split_first_chunk::<2>().ok_or("too short")?;
        let (crc, covered) = rest.split_first_chunk::<4>().ok_or("too short")?;
        let (count, entries) = covered.split_first_chunk::<4>().ok_or("too short")?;
        if i16::from_be_bytes(*version) != SNAPSHOT_VERSION {
            return Err(format!("version {} is not {SNAPSHOT_VERSION}", i16::from_be_bytes(*version)));
        }
        if crc_fast::crc32_iscsi(covered) != u32::from_be_bytes(*crc) {
            return Err("the CRC does not match".to_owned());
        }
        let count = u32::from_be_bytes(*count) as usize;
        if count.checked_mul(SNAPSHOT_ENTRY_BYTES) != Some(entries.len()) {
            return Err(format!("{count} entries do not take {} bytes", entries.len()));
        }
        let mut state = Self::default();
        for entry in entries.chunks_exact(SNAPSHOT_ENTRY_BYTES) {
            let (id, mut entry) = decode_entry(entry).ok_or("too short")?;
            if let Some(older) = state.producers.remove(&id) {
                entry.put_behind(&older);
            }
            state.producers.insert(id, entry);
        }
        state.producers.retain(|_, entry| !is_expired(entry, now_ms, expiration_ms));
        let open = state.producers.iter().filter_map(|(id, entry)| Some((entry.txn_first_offset?, *id)));
        state.ongoing = open.collect();
        Ok(state)
    }
}

/// Whether the bytes are a producer snapshot, and how many producers it names. For checks and tools.
pub fn parse_snapshot(bytes: &[u8]) -> Result<usize, String> {
    ProducerState::decode_snapshot(bytes, 0, i64::MAX).map(|state| state.producers.len())
}

fn is_expired(entry: &ProducerEntry, now_ms: i64, expiration_ms: i64) -> bool {
    entry.txn_first_offset.is_none() && now_ms.saturating_sub(entry.last_timestamp) >= expiration_ms
}

fn encode_entry(
    out: &mut Vec<u8>,
    id: i64,
    entry: &ProducerEntry,
    batch: Option<&BatchMeta>,
    (timestamp, txn_first_offset): (i64, Option<i64>),
) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&entry.producer_epoch.to_be_bytes());
    out.extend_from_slice(&batch.map_or(NO_SEQUENCE, |batch| batch.last_sequence).to_be_bytes());
    out.extend_from_slice(&batch.map_or(-1, |batch| batch.last_offset).to_be_bytes());
    out.extend_from_slice(&batch.map_or(0, |batch| batch.offset_delta).to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
    out.extend_from_slice(&txn_first_offset.unwrap_or(-1).to_be_bytes());
}

fn decode_entry(bytes: &[u8]) -> Option<(i64, ProducerEntry)> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (delta, rest) = rest.split_first_chunk()?;
    let (timestamp, rest) = rest.split_first_chunk()?;
    let (coordinator_epoch, rest) = rest.split_first_chunk()?;
    let txn_first = rest.first_chunk()?;
    let mut entry = ProducerEntry {
        producer_epoch: i16::from_be_bytes(*epoch),
        coordinator_epoch: i32::from_be_bytes(*coordinator_epoch),
        last_timestamp: i64::from_be_bytes(*timestamp),
        txn_first_offset: Some(i64::from_be_bytes(*txn_first)).filter(|first| *first >= 0),
        ..ProducerEntry::NEW
    };
    let last_offset = i64::from_be_bytes(*offset);
    if last_offset >= 0 {
        entry.push(BatchMeta {
            last_sequence: i32::from_be_bytes(*sequence),
            last_offset,
            offset_delta: i32::from_be_bytes(*delta),
            timestamp: entry.last_timestamp,
        });
    }
    Some((i64::from_be_bytes(*id), entry))
}

fn check_epoch(header: &BatchHeader, entry: &ProducerEntry) -> Result<(), AppendError> {
    if header.producer_epoch < entry.producer_epoch {
        return Err(AppendError::InvalidProducerEpoch {
            producer_id: header.producer_id,
            found: header.producer_epoch,
            current: entry.producer_epoch,
        });
    }
    Ok(())
}

fn check_sequence(header: &BatchHeader, entry: &ProducerEntry) -> Result<(), AppendError> {
    // A producer that is not known (new, expired, or its records were deleted) may begin with any sequence.
    if entry.producer_epoch == NO_PRODUCER_EPOCH {
        return Ok(());
    }
    let in_order = if header.producer_epoch == entry.producer_epoch {
        follows(entry.last_sequence(), header.base_sequence)
            || planted(Bug::SequenceGapAccepted) && header.base_sequence > entry.last_sequence()
    } else {
        header.base_sequence == 0
    };
    if in_order {
        return Ok(());
    }
    Err(AppendError::OutOfOrderSequence {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        found: header.base_sequence,
        last: entry.last_sequence(),
    })
}

/// A transaction goes on, or begins under the guard of its verification.
fn check_verified(
    header: &BatchHeader,
    entry: &ProducerEntry,
    guard: Option<VerificationGuard>,
    verification: Option<&Verification>,
) -> Result<(), AppendError> {
    let ongoing = entry.txn_first_offset.is_some() && entry.producer_epoch == header.producer_epoch;
    let verified = guard.is_some() && guard == verification.map(|verification| verification.guard);
    if !header.is_transactional() || ongoing || verified {
        return Ok(());
    }
    Err(AppendError::InvalidTxnState {
        producer_id: header.producer_id,
        reason: "the partition is not known to be part of an open transaction",
    })
}

/// What waits for its verification must not be overtaken by what came behind it.
fn check_first_sequence(
    header: &BatchHeader,
    entry: &ProducerEntry,
    verification: Option<&Verification>,
) -> Result<(), AppendError> {
    // What another epoch wanted to begin with says nothing of this one.
    let relevant = |v: &&Verification| header.base_sequence != NO_SEQUENCE && v.producer_epoch == header.producer_epoch;
    let Some(verification) = verification.filter(relevant) else { return Ok(()) };
    let unknown = entry.producer_epoch == NO_PRODUCER_EPOCH;
    let not_first = verification.bumps_epoch && unknown && header.base_sequence != 0;
    let overtaking = header.base_sequence > verification.lowest_sequence;
    if !not_first && !overtaking {
        return Ok(());
    }
    Err(AppendError::OutOfOrderSequence {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        found: header.base_sequence,
        last: entry.last_sequence(),
    })
}

fn check_txn_state(header: &BatchHeader, entry: &ProducerEntry) -> Result<Verdict, AppendError> {
    if entry.txn_first_offset.is_some() && !header.is_transactional() {
        return Err(AppendError::InvalidTxnState {
            producer_id: header.producer_id,
            reason: "a batch outside of the transaction that is open",
        });
    }
    Ok(Verdict::Accept)
}

/// KIP-890: from transaction version 2 on each transaction ends with a higher producer epoch than its data had. The same
/// epoch again, with nothing open, is a coordinator's retry of a marker that is already there, and may be written twice.
fn check_marker(
    header: &BatchHeader,
    marker: &Marker,
    entry: &ProducerEntry,
    transaction_version: i16,
) -> Result<Verdict, AppendError> {
    let (found, current) = (header.producer_epoch, entry.producer_epoch);
    let retry = found == current && entry.txn_first_offset.is_none();
    let too_old = if transaction_version >= 2 { found <= current && !retry } else { found < current };
    if too_old {
        return Err(AppendError::InvalidProducerEpoch { producer_id: header.producer_id, found, current });
    }
    if entry.coordinator_epoch > marker.coordinator_epoch {
        return Err(AppendError::CoordinatorFenced {
            producer_id: header.producer_id,
            found: marker.coordinator_epoch,
            current: entry.coordinator_epoch,
        });
    }
    Ok(Verdict::Accept)
}
