//! What a partition remembers between the moment in which somebody began to ask the coordinator whether a producer's
//! transaction includes it, and the producer's first batch here (KIP-890). Answers to Kafka's `VerificationStateEntry`
//! and `VerificationGuard`.
//!
//! A guard is good for one beginning: whatever the producer writes in a transaction, and every marker, takes the entry
//! away. So a batch whose transaction was ended between the coordinator's answer and the append comes with a guard that is
//! no more, and cannot begin a transaction that nobody would end. Lives in memory: after a restart everybody asks again.
//! LIMIT: as many producers as the log remembers; beyond, those who began longest ago must begin again.

use std::collections::HashMap;

use taccola_base::limits::PRODUCER_IDS_PER_PARTITION_MAX;

/// Names one beginning of a transaction in this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerificationGuard(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verification {
    pub(crate) guard: VerificationGuard,
    pub(crate) producer_epoch: i16,
    /// Of the batches that asked under this epoch: what is written first must not leave one out. [`i32::MAX`]: none that
    /// counts.
    pub(crate) lowest_sequence: i32,
    /// The producer gets a new epoch with each transaction, so that each begins with sequence 0.
    pub(crate) bumps_epoch: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Verifications {
    by_producer: HashMap<i64, Verification>,
    last_guard: u64,
}

impl Verifications {
    pub(crate) fn get(&self, producer_id: i64) -> Option<&Verification> {
        self.by_producer.get(&producer_id)
    }

    /// The guard of the producer's beginning; of the one under way if there is one.
    pub(crate) fn start(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        first_sequence: i32,
        bumps_epoch: bool,
    ) -> VerificationGuard {
        self.make_room(producer_id);
        let last_guard = &mut self.last_guard;
        let entry = self.by_producer.entry(producer_id).or_insert_with(|| {
            *last_guard += 1;
            let guard = VerificationGuard(*last_guard);
            Verification { guard, producer_epoch, lowest_sequence: first_sequence, bumps_epoch }
        });
        if producer_epoch > entry.producer_epoch {
            (entry.producer_epoch, entry.lowest_sequence) = (producer_epoch, first_sequence);
        } else if producer_epoch == entry.producer_epoch {
            entry.lowest_sequence = entry.lowest_sequence.min(first_sequence);
        }
        entry.guard
    }

    /// The transaction has its first batch, or its end.
    pub(crate) fn clear(&mut self, producer_id: i64) {
        self.by_producer.remove(&producer_id);
    }

    fn make_room(&mut self, producer_id: i64) {
        if self.by_producer.len() < PRODUCER_IDS_PER_PARTITION_MAX || self.by_producer.contains_key(&producer_id) {
            return;
        }
        let mut oldest: Vec<_> = self.by_producer.iter().map(|(id, entry)| (entry.guard, *id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest.iter().take((PRODUCER_IDS_PER_PARTITION_MAX / 64).max(1)) {
            self.by_producer.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_good_until_the_transaction_begins_or_ends() {
        let mut all = Verifications::default();
        let first = all.start(7, 0, 3, false);
        assert_eq!(all.start(7, 0, 1, false), first, "the same beginning");
        assert_eq!(all.get(7).unwrap().lowest_sequence, 1);
        all.start(7, 1, 5, false);
        assert_eq!((all.get(7).unwrap().producer_epoch, all.get(7).unwrap().lowest_sequence), (1, 5));
        all.clear(7);
        assert_ne!(all.start(7, 1, 0, false), first, "another one");
    }
}
