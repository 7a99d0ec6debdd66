//! Which transactions were aborted, and which markers nobody needs any more, as a walk through a log goes along. Answers
//! to Kafka's `CleanedTransactionMetadata`.

use std::collections::{BTreeMap, HashMap, HashSet};

use taccola_wire::batch::BatchHeader;

use crate::partition_log::AbortedTxn;
use crate::producer_state::marker_of;

#[derive(Default)]
pub(super) struct TransactionTracker {
    /// Not begun yet at the walk's position, by first offset and producer.
    upcoming: BTreeMap<(i64, i64), AbortedTxn>,
    /// By producer: the aborted transaction that the walk is in, and whether a batch of it is still in the log.
    aborted: HashMap<i64, (AbortedTxn, bool)>,
    /// Producers with a batch of a transaction that was committed, or is still open.
    committed: HashSet<i64>,
    /// Aborted transactions whose marker stays.
    retained: Vec<AbortedTxn>,
}

impl TransactionTracker {
    /// For a walk that begins at `from`: it will not meet the markers before.
    pub(super) fn new(aborted: &[AbortedTxn], from: i64) -> Self {
        let upcoming = aborted.iter().filter(|txn| txn.last_offset >= from);
        let upcoming = upcoming.map(|txn| ((txn.first_offset, txn.producer_id), *txn)).collect();
        Self { upcoming, ..Self::default() }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(entry) = self.upcoming.first_entry().filter(|entry| entry.key().0 <= offset) {
            let txn = entry.remove();
            self.aborted.entry(txn.producer_id).or_insert((txn, false));
        }
    }

    /// Takes in the next batch. For data: whether it is of an aborted transaction. For a marker: whether nothing of its
    /// transaction is left in the log.
    pub(super) fn sees(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        self.begin_up_to(header.last_offset());
        if header.is_control() {
            return self.sees_marker(header, batch);
        }
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, seen)) => {
                *seen = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    fn sees_marker(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        match marker_of(header, batch) {
            // A marker that an earlier round emptied; what is no marker at all is kept.
            None => header.records_count == 0,
            Some(marker) if marker.commit => !self.committed.remove(&header.producer_id),
            Some(_) => match self.aborted.remove(&header.producer_id) {
                Some((txn, true)) => {
                    self.retained.push(txn);
                    false
                }
                _ => true,
            },
        }
    }

    /// The aborted transactions whose marker stayed since the last call: the new segment's index names them.
    pub(super) fn take_retained(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.retained)
    }
}
