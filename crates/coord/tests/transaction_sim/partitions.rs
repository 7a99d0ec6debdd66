//! One partition of a topic: what producers wrote, and what the markers made of it. The rules of a log for transactions,
//! as simple as can be.

use std::collections::BTreeMap;

use taccola_coord::transaction::Markers;

use super::{Outcomes, Producer};

#[derive(Default)]
pub(crate) struct Partition {
    /// The transaction of each record, and its outcome.
    records: Vec<(i64, u64, Option<bool>)>,
    /// Of each producer id.
    epochs: BTreeMap<i64, i16>,
    coordinator_epochs: BTreeMap<i64, i32>,
}

impl Partition {
    /// False: the producer is fenced.
    pub(crate) fn write(&mut self, (producer_id, epoch): Producer, transaction: u64) -> bool {
        let known = self.epochs.entry(producer_id).or_insert(epoch);
        if epoch < *known {
            return false;
        }
        *known = epoch;
        self.records.push((producer_id, transaction, None));
        true
    }

    /// False: it comes from a coordinator that has been replaced.
    pub(crate) fn mark(&mut self, markers: &Markers) -> bool {
        let coordinator = self.coordinator_epochs.entry(markers.producer_id).or_insert(0);
        if markers.coordinator_epoch < *coordinator {
            return false;
        }
        *coordinator = markers.coordinator_epoch;
        let epoch = self.epochs.entry(markers.producer_id).or_insert(markers.producer_epoch);
        if markers.producer_epoch < *epoch {
            // It comes from one that is no more, and the one after it did not write here.
            return true;
        }
        *epoch = markers.producer_epoch;
        let open = self.records.iter_mut().filter(|(id, _, outcome)| *id == markers.producer_id && outcome.is_none());
        open.for_each(|(_, _, outcome)| *outcome = Some(markers.commit));
        true
    }

    pub(crate) fn collect(&self, outcomes: &mut Outcomes) {
        for (_, transaction, outcome) in &self.records {
            outcomes.entry(*transaction).or_default().insert(*outcome);
        }
    }
}
